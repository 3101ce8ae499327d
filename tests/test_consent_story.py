"""One child's consent, from a parent's signature to their own on the same version of the form, by real workbooks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import openpyxl
import pandas as pd
import pytest

from study.chasing import derive_chasers
from study.consent import derive_consents
from study.events import ConsentRecorded, ObligationChased, QueryRaised, ReturnReleased, Voided
from tasks.chasing import chase
from tasks.releasing import draw_up_plan, release_packs, send_blank_pack
from tasks.workspace import Workspace
from tests.chasing_studies import CONTACTS, NO_FIGURES, accepted, joined, list_mail, make_study, set_day
from tests.release_studies import BY, grant, identify, open_trial
from tests.test_bad_input import Post

CHILD = identify(1)
SIXTEEN, HELD, AGAIN, BACK = date(2018, 1, 10), date(2018, 2, 5), date(2018, 2, 7), date(2018, 2, 12)
SIGNED = date(2018, 2, 9)
FIRST_ROW = {
    "participant_id": CHILD, "consented_on": date(2017, 8, 1), "consent_form_version": "1.0",
    "consent_scopes": "questionnaires", "route": "parent", "sixteen_in": "2018-01", "copy_filed": "yes",
}  # fmt: skip
PARENTS_ROW = FIRST_ROW | {"consented_on": date(2018, 2, 2)}
OWN_ROW = FIRST_ROW | {"consented_on": SIGNED, "route": "self", "sixteen_in": ""}


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """A child who turns 16 in January 2018, for whom a parent consented in August, and whose baseline came in."""
    workspace = open_trial(tmp_path, SIXTEEN, fieldwork=NO_FIGURES, settle_seconds=0)
    workspace.study = make_study(NO_FIGURES)
    (workspace.folder / "contacts.toml").write_text(CONTACTS, encoding="utf-8")
    parents = joined(1, route="parent", sixteen_in="2018-01")
    workspace.ledger.append([*grant("luton", "devon"), *parents, accepted(1, "2017-08-15")])
    with workspace.ledger:
        yield workspace


def send(workspace: Workspace, day: date) -> tuple[list[str], int]:
    """The automatic waves of a day: what is decided of each questionnaire of the child and why, and how many go."""
    set_day(workspace, day)
    plan = draw_up_plan(workspace, day)
    rows = plan.rows[plan.rows["participant_id"] == CHILD]
    released = release_packs(workspace, plan, BY)
    assert released.failures == []
    told = rows["respondent"] + " " + rows["wave"] + " " + rows["decision"] + " " + rows["holds"]
    return told.tolist(), released.counts.get("luton", Counter())["questionnaires"]


def receive(workspace: Workspace, day: date, *rows: dict[str, object]) -> Counter[str]:
    set_day(workspace, day)
    post = Post(workspace, "luton")
    return post.receive(post.make({"consent": pd.DataFrame(list(rows))}, study="trial", posted_on=day), today=day)


def read_asked(workspace: Workspace, day: date) -> list[str]:
    """What a pack asks about consents on a day, as its sheet says it."""
    set_day(workspace, day)
    pack = send_blank_pack(workspace, "luton", day, BY)
    [file] = (workspace.folder / "sites" / "luton" / "outbox").glob(f"{pack.pack_id}.xlsx")
    head, _, *rows = openpyxl.load_workbook(file)["Consent"].values
    return [str(row[len(head) - 1]) for row in rows if row[0]]


def list_due(workspace: Workspace, day: date) -> list[str]:
    chasers = derive_chasers(workspace.study, workspace.read_events(), day)
    return chasers.loc[chasers["state"] == "due", "key"].tolist()


def test_a_child_who_turns_sixteen_signs_the_form_that_a_parent_signed(workspace: Workspace) -> None:
    # Before the month is over the site is asked to seek the young person's own consent.
    chase(workspace, SIXTEEN, BY)
    assert workspace.read_events().frame(ObligationChased)["chase"].tolist() == [f"chase:reconsent:{CHILD}:1.0:again"]
    assert len(list_mail(workspace)) == 1

    # After it nothing goes, and a pack says why.
    assert send(workspace, HELD) == (["self follow_up_6m held reconsent_overdue"], 0)
    assert read_asked(workspace, HELD) == ["Consent has run out. Ask again, and put the new form into a new row."]

    # A parent's signature does not do any more.
    counts = receive(workspace, AGAIN, FIRST_ROW, PARENTS_ROW)
    assert (counts["log entries"], counts["queries"]) == (1, 0)
    assert send(workspace, AGAIN) == (["self follow_up_6m held parent_after_sixteen"], 0)
    assert read_asked(workspace, AGAIN) == [
        "The young person is over 16. Ask for their own consent, and put it into a new row."
    ]

    # The log brings what it had, as ever, and the young person's own consent.
    counts = receive(workspace, BACK, FIRST_ROW, PARENTS_ROW, OWN_ROW)
    assert (counts["log entries"], counts["queries"]) == (1, 0)
    events = workspace.read_events()
    first = f"consent:{CHILD}:1.0"
    assert events.frame(ConsentRecorded)["key"].tolist() == [first, f"{first}:2018-02-02", f"{first}:2018-02-09"]
    (consent,) = derive_consents(workspace.study, events, BACK).to_dict("records")
    assert (consent["consented_on"], consent["signed_on"]) == (pd.Timestamp("2017-08-01"), pd.Timestamp(SIGNED))
    assert (consent["faults"], consent["covers_questionnaires"]) == ("", True)
    assert list_due(workspace, BACK) == []
    assert read_asked(workspace, BACK) == []

    # The next wave goes, to the young person; the log sent again changes nothing.
    assert send(workspace, BACK) == (["self follow_up_6m goes "], 1)
    assert workspace.read_events().frame(ReturnReleased)["respondent"].tolist() == ["self"]
    for day, rows in ((date(2018, 2, 19), (OWN_ROW, PARENTS_ROW, FIRST_ROW)), (date(2018, 2, 26), (OWN_ROW,))):
        counts = receive(workspace, day, *rows)
        assert (counts["log entries"], counts["queries"]) == (0, 0)
    events = workspace.read_events()
    assert len(events.frame(ConsentRecorded)) == 3
    assert len(events.frame(Voided)) == len(events.frame(QueryRaised)) == 0
