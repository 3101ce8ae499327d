"""What chasing brings and costs: which step an answer counts for, what waits, and a site's work in pieces."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import pytest

from study.events import (
    ActivityReported,
    ApproachAnswered,
    CallLogged,
    ConsentCopyChecked,
    ConsentRecorded,
    Event,
    MessageQueued,
    MessageResolved,
    MessageSent,
    ObligationChased,
    PackDelivered,
    ParticipantApproached,
    QueryAnswered,
    ReturnAccepted,
)
from study.protocol import Study
from study.state import Events
from study.yields import derive_burden, derive_step_yields
from tasks.definitions import load_study
from tests.test_state import A, tell

BY = "daily round"
PERSON = "LUT-P00018"


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study("ipc")


def known(day: str, event: Event) -> tuple[Event, datetime]:
    return event, datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC).replace(hour=12)


def on(day: str, kind: type[Event], site: str = "luton", **fields: Any) -> tuple[Event, datetime]:
    return known(day, kind(occurred_on=date.fromisoformat(day), requested_by=BY, site_id=site, **fields))


def chased(day: str, obligation: str, step: str, message: str = "m1", site: str = "luton") -> tuple[Event, datetime]:
    about = obligation.split(":")[1]
    return on(
        day, ObligationChased, site, chase=f"{obligation}:{step}", about=about, step=step, message_id=message,
        channel="email" if message else "telephone", due_on=date.fromisoformat(day),
    )  # fmt: skip


def sent(day: str, message: str = "m1", site: str = "luton") -> tuple[Event, datetime]:
    return on(day, MessageSent, site, message_id=message)


def returned(day: str, collected: str, participant: str = PERSON, wave: str = "baseline") -> tuple[Event, datetime]:
    return known(
        day,
        ReturnAccepted(
            occurred_on=date.fromisoformat(collected), requested_by=BY, site_id="luton", participant_id=participant,
            return_id="r1", respondent="self", wave=wave, instrument="eq5d5l", form="standard", version=1, n_items=5,
            n_answered=5, responses_sha256=A,
        ),
    )  # fmt: skip


def find_row(study: Study, rows: Sequence[tuple[Event, datetime]], as_of: str, step: str, site: str = "") -> list[int]:
    table = derive_step_yields(study, tell(*rows), date.fromisoformat(as_of))
    found = table[(table["step"] == step) & (table["site_id"] == site)]
    return [] if found.empty else found[["n_chased", "n_answered", "n_late", "n_waiting"]].iloc[0].tolist()


OWED = f"chase:return:{PERSON}:self:baseline"
FIRST, SECOND = "return_overdue", "return_second_copy"


@pytest.mark.parametrize(
    ("came_in", "as_of", "first", "second"),
    [
        ("", "2017-09-13", [1, 0, 0, 1], []),  # answer_days is 10: the ninth day still waits
        ("", "2017-09-14", [1, 0, 0, 0], []),
        ("2017-09-04", "2017-09-20", [1, 1, 0, 0], [1, 0, 0, 1]),  # on the day of the step itself
        ("2017-09-03", "2017-09-26", [1, 0, 0, 0], [1, 0, 0, 0]),  # before any step: no step brought it
        ("2017-09-14", "2017-09-14", [1, 1, 0, 0], []),  # the tenth day still counts
        ("2017-09-15", "2017-09-15", [1, 0, 1, 0], []),  # the eleventh does not
        ("2017-09-20", "2017-09-20", [1, 0, 0, 0], [1, 1, 0, 0]),  # for the last step before it, and not for both
    ],
)
def test_an_answer_counts_for_the_last_step_before_it(
    study: Study, came_in: str, as_of: str, first: list[int], second: list[int]
) -> None:
    rows = [chased("2017-09-04", OWED, FIRST), sent("2017-09-04"), chased("2017-09-16", OWED, SECOND)]
    if came_in:
        rows = sorted([*rows, returned(came_in, "2017-09-01")], key=lambda row: row[1])
    assert find_row(study, rows, as_of, FIRST) == first
    assert find_row(study, rows, as_of, SECOND) == second


def test_steps_of_messages_that_never_went_out_are_no_steps(study: Study) -> None:
    rows = [chased("2017-09-04", OWED, FIRST, message="lost")]
    assert find_row(study, rows, "2017-09-20", FIRST) == []
    said = on("2017-09-05", MessageResolved, message_id="lost", outcome="was_sent")
    assert find_row(study, [*rows, said], "2017-09-20", FIRST) == [1, 0, 0, 0]
    denied = on("2017-09-05", MessageResolved, message_id="lost", outcome="was_not_sent")
    assert find_row(study, [*rows, denied], "2017-09-20", FIRST) == []


@pytest.mark.parametrize(
    ("obligation", "step", "answer"),
    [
        (
            "chase:query:LUT-0007",
            "query_open",
            on("2017-09-06", QueryAnswered, query_id="LUT-0007", answer="confirmed"),
        ),
        (
            f"chase:consent_copy:{PERSON}:1.0",
            "consent_copy_overdue",
            on("2017-09-06", ConsentCopyChecked, participant_id=PERSON, form_version="1.0", finding="seen"),
        ),
        (
            f"chase:reconsent:{PERSON}:1.0",
            "reconsent_due",
            on("2017-09-06", ConsentRecorded, participant_id=PERSON, form_version="2.0", scopes=(), basis="signed"),
        ),
        (
            f"chase:reconsent:{PERSON}:1.0:2017-03-06",
            "reconsent_due",
            on(
                "2017-09-06",
                ConsentRecorded,
                participant_id=PERSON,
                form_version="1.0",
                renewal="2017-09-06",
                scopes=(),
                basis="signed",
            ),
        ),
        (
            f"chase:consent_copy:{PERSON}:1.0:2017-09-01",
            "consent_copy_overdue",
            on(
                "2017-09-06",
                ConsentCopyChecked,
                participant_id=PERSON,
                form_version="1.0",
                renewal="2017-09-01",
                finding="seen",
            ),
        ),
        (
            "chase:activity_figures:luton:care_plans:2017-08",
            "figures_overdue",
            on(
                "2017-09-06", ActivityReported, figure="care_plans", month="2017-08", reported_to="evaluation", count=12
            ),
        ),
    ],
)
def test_each_kind_of_obligation_has_its_answer(
    study: Study, obligation: str, step: str, answer: tuple[Event, datetime]
) -> None:
    rows = [chased("2017-09-04", obligation, step), sent("2017-09-04")]
    assert find_row(study, rows, "2017-09-30", step) == [1, 0, 0, 0]
    assert find_row(study, [*rows, answer], "2017-09-30", step) == [1, 1, 0, 0]


def test_a_copy_that_is_missing_is_no_answer(study: Study) -> None:
    looked = on("2017-09-06", ConsentCopyChecked, participant_id=PERSON, form_version="1.0", finding="missing")
    owed = f"chase:consent_copy:{PERSON}:1.0"
    rows = [chased("2017-09-04", owed, "consent_copy_overdue"), sent("2017-09-04"), looked]
    assert find_row(study, rows, "2017-09-30", "consent_copy_overdue") == [1, 0, 0, 0]


@pytest.mark.parametrize(("owed", "renewal"), [("1.0", "2017-09-01"), ("1.0:2017-09-01", "")])
def test_another_paper_on_the_same_version_is_no_answer(study: Study, owed: str, renewal: str) -> None:
    looked = on("2017-09-06", ConsentCopyChecked, participant_id=PERSON, form_version="1.0", renewal=renewal,
                finding="seen")  # fmt: skip
    rows = [chased("2017-09-04", f"chase:consent_copy:{PERSON}:{owed}", "consent_copy_overdue"), sent("2017-09-04")]
    assert find_row(study, [*rows, looked], "2017-09-30", "consent_copy_overdue") == [1, 0, 0, 0]


def test_sites_add_up_to_the_row_of_all(study: Study) -> None:
    other = "chase:return:STO-P00012:self:baseline"
    rows = [
        chased("2017-09-04", OWED, FIRST),
        sent("2017-09-04"),
        chased("2017-09-05", other, FIRST, "m2", "stockton_on_tees"),
        sent("2017-09-05", "m2", "stockton_on_tees"),
        returned("2017-09-08", "2017-09-06"),
    ]
    table = derive_step_yields(study, tell(*rows), date(2017, 9, 30))
    assert table[["site_id", "n_chased", "n_answered"]].to_numpy().tolist() == [
        ["", 2, 1], ["luton", 1, 1], ["stockton_on_tees", 1, 0]
    ]  # fmt: skip
    assert table["answered_pct"].tolist() == [50.0, 100.0, 0.0]


def test_nothing_sent_is_an_empty_table(study: Study) -> None:
    assert derive_step_yields(study, Events({}), date(2017, 9, 1)).empty


def test_burden_counts_pieces_and_multiplies_by_the_minutes(study: Study) -> None:
    queued: dict[str, Any] = {
        "person_id": "l1", "role": "site_researcher", "channel": "email", "template": "digest", "content_sha256": A,
        "address_code": "a1",
    }  # fmt: skip
    consent = on("2017-09-02", ConsentRecorded, participant_id=PERSON, form_version="1.0", scopes=(), basis="signed")
    rows = [
        on("2017-09-01", ParticipantApproached, participant_id=PERSON, cohort="mental_health"),
        on("2017-09-02", ApproachAnswered, participant_id=PERSON, outcome="agreed"),
        # Nobody wrote down when this one was approached: an approach all the same.
        on("2017-09-02", ApproachAnswered, participant_id="LUT-P00024", outcome="declined"),
        consent,
        on("2017-09-03", PackDelivered, pack_id="luton-2017-09-03-1"),
        returned("2017-09-08", "2017-09-06"),
        on("2017-09-10", MessageQueued, message_id="m1", category="digest", **queued),
        sent("2017-09-10", "m1"),
        on("2017-09-10", MessageQueued, message_id="m2", category="stop_notice", **queued),
        sent("2017-09-10", "m2"),
        on("2017-09-11", MessageQueued, message_id="m3", category="digest", **queued),  # not sent
        on("2017-09-11", CallLogged, direction="out", about=("return",), outcome="reached"),
    ]
    table = derive_burden(study, tell(*rows), date(2017, 9, 30)).set_index(["site_id", "work"])
    assert {work: int(n) for work, n in table.loc["luton", "n"].items()} == {
        "approach": 2, "consent": 1, "pack": 1, "questionnaire": 1, "digest": 1, "call": 1, "query": 0,
        "activity_figures": 0,
    }  # fmt: skip
    assert table.loc[("luton", "approach"), "minutes"] == 2 * study.fieldwork.find_minutes("approach") > 0
    assert table.loc["islington", "n"].sum() == 0
    assert len(table) == 8 * len(study.sites)
    assert (
        derive_burden(study, tell(*rows), date(2017, 9, 2)).set_index(["site_id", "work"]).loc["luton", "n"].sum() == 3
    )
