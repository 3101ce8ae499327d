"""Safeguarding alerts: raised once whatever becomes of the return, sent on the day, escalated, and never telling."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from desk.command_line import app
from study.events import (
    ChasingPaused,
    MessageBounced,
    MessageQueued,
    ObligationChased,
    ReturnAccepted,
    SafeguardingRaised,
)
from study.instruments import AnswerTest, DefinitionFaults, Trigger
from study.returns import Decision, FileFacts, Record, RecordKey
from study.safeguarding import ESCALATED, TOLD, derive_alerts, find_triggered
from study.work_list import derive_work_list
from tasks.definitions import find_faults, load_instrument
from tasks.mail import MailUnavailable, Outcome
from tasks.outbox import SendingFailed
from tasks.returns import read_answers
from tasks.safeguarding import (
    AlertRefused,
    AlertsUnheard,
    acknowledge_alert,
    draw_up_alerts,
    find_contact_faults,
    send_alerts,
)
from tasks.settings import PROJECT, Settings
from tests.chasing_studies import list_mail, set_day
from tests.test_bad_input import ANN, BEN, CAT, SITE, TODAY, Post, open_post, read_ledger, set_cell

BY = "Mary"
LEVEL, LABEL = 47110, "zzqx in fear"
"""An answer that nothing else in a study looks like."""
DEFINITION = f"""
id = "concern"
title = "Staff's concern"
sheet_title = "Concern"
version = "1"
citation = "Written for this test."
licence = "None."
respondents = ["self", "proxy"]
forms = ["standard"]

[[items]]
id = "concern01"
label = "Concern about safety"
levels = {{ 0 = "none", {LEVEL} = "{LABEL}" }}

[[items]]
id = "concern02"
label = "How often"
levels = "0 to 4"

[[scales]]
id = "concern_total"
label = "How often"
method = "sum"
items = ["concern02"]
minimum = 0
maximum = 4

[[safeguarding]]
id = "safety"
about = "Safety at home"
any_of = [{{ items = ["concern01"], equals = [{LEVEL}] }}]
"""
EXAMPLES = (
    "example,evidence,source,decimals,expected_concern_total,concern01,concern02\nnone,hand_computed,Rule,0,0,0,0\n"
)
RULE = """
[[safeguarding]]
clinician = "safeguarding_clinician"
escalate_after = 1
escalates_to = "chief_investigator"
source = "Agreed with the sponsor."

[[quiet_periods]]
id = "always"
label = "All year"
from_on = 2013-01-01
until_on = 2013-12-31
"""
CLINICIAN = """
[[people]]
person_id = "cleo"
name = "Cleo Clinician"
email = "cleo@clinic.invalid"
role = "safeguarding_clinician"
deputy_id = "dora"
"""
OTHERS = """
[[people]]
person_id = "dora"
name = "Dora Deputy"
email = "dora@clinic.invalid"
role = "project_manager"

[[people]]
person_id = "ivan"
name = "Ivan Investigator"
email = "ivan@university.invalid"
role = "chief_investigator"
"""
MONDAY = date(2013, 3, 4)  # TODAY is the Friday before


def make_config(folder: Path) -> Path:
    """The trial with one instrument more, and a clinician."""
    shutil.copytree(PROJECT / "sites_config" / "cdisc_pilot", folder / "sites_config" / "cdisc_pilot")
    shutil.copytree(PROJECT / "instruments", folder / "instruments")
    (folder / "instruments" / "concern").mkdir()
    (folder / "instruments" / "concern" / "definition.toml").write_text(DEFINITION, encoding="utf-8")
    (folder / "instruments" / "concern" / "worked_examples.csv").write_text(EXAMPLES, encoding="utf-8")
    study = folder / "sites_config" / "cdisc_pilot" / "study.toml"
    study.write_text(study.read_text("utf-8").replace('"hachinski"]', '"hachinski", "concern"]'), encoding="utf-8")
    with (folder / "sites_config" / "cdisc_pilot" / "fieldwork.toml").open("a", encoding="utf-8") as file:
        file.write(RULE)
    return folder


def begin(folder: Path, config: Path) -> Post:
    """The study at work, with people at its sites and three participants."""
    post = open_post(folder, sites_config=config / "sites_config", instruments=config / "instruments")
    write_contacts(post, CLINICIAN + OTHERS)
    set_day(post.workspace, TODAY)
    post.begin()
    return post


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_config(tmp_path_factory.mktemp("config"))


@pytest.fixture
def post(tmp_path: Path, config: Path) -> Iterator[Post]:
    post = begin(tmp_path, config)
    yield post
    post.workspace.ledger.close()


def write_contacts(post: Post, text: str) -> None:
    (post.workspace.folder / "contacts.toml").write_text(text, encoding="utf-8")


def concern(*people: str, **cells: object) -> dict[str, pd.DataFrame]:
    fixed = {
        "respondent": "self", "form": "standard", "wave": "screening", "collected_on": date(2013, 2, 10),
        "concern01": float(LEVEL), "concern02": 3.0,
    }  # fmt: skip
    return {"concern": pd.DataFrame({"participant_id": list(people)} | fixed | cells, range(len(people)))}


def read_alerts(post: Post, as_of: date = TODAY) -> list[dict[str, Any]]:
    alerts = derive_alerts(post.workspace.study, post.workspace.read_events(), as_of)
    return [{str(name): value for name, value in row.items()} for row in alerts.to_dict("records")]


def send(post: Post, on: date = TODAY) -> Counter[str]:
    set_day(post.workspace, on)
    return send_alerts(post.workspace, BY)


def read_mail(post: Post) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in list_mail(post.workspace)]


def list_addressees(post: Post) -> list[str]:
    return sorted(mail.partition("\nTo: ")[2].partition("\n")[0].partition(" <")[0] for mail in read_mail(post))


# Raised ---------------------------------------------------------------------------------------------------------------


def test_an_answer_raises_an_alert_that_is_sent_the_same_day(post: Post) -> None:
    assert post.receive(post.make(concern(ANN)))["records accepted"] == 1
    [alert] = read_alerts(post)
    assert (alert["alert_id"], alert["participant_id"], alert["state"]) == ("702-S0001", ANN, "untold")
    assert (alert["wave"], alert["instrument"], alert["trigger"]) == ("screening", "concern", "safety")
    assert send(post) == {"alerts": 1, TOLD: 1, "sent": 1}
    [mail] = read_mail(post)
    assert "To: Cleo Clinician <cleo@clinic.invalid>" in mail
    for told in ("702-S0001", ANN, "702-2013-03-01-1", "sheet and row: Concern, row 3"):
        assert told in mail
    assert ANN not in mail.partition("\n\n")[0]  # the headers
    assert send(post) == {}
    [alert] = read_alerts(post)
    assert (alert["state"], alert["told_on"]) == ("told", pd.Timestamp(TODAY))


def test_one_alert_for_a_record_and_a_trigger(post: Post) -> None:
    first = post.make(concern(ANN))
    post.receive(first)
    post.receive(first)
    post.receive(post.make(concern(ANN, concern02=1.0), correction=1))  # still triggers
    post.receive(post.make(concern(ANN, concern01=0.0), correction=2))  # no longer does
    assert [alert["alert_id"] for alert in read_alerts(post)] == ["702-S0001"]
    assert send(post)[TOLD] == 1  # what was raised is not silenced
    post.receive(post.make(concern(ANN), correction=3))
    assert len(read_alerts(post)) == 1


def test_a_correction_that_triggers_for_the_first_time_raises_one(post: Post) -> None:
    post.receive(post.make(concern(ANN, BEN, concern01=0.0)))
    assert read_alerts(post) == []
    post.receive(post.make(concern(ANN, BEN, concern01=[0.0, float(LEVEL)]), correction=1))
    assert [alert["participant_id"] for alert in read_alerts(post)] == [BEN]


def test_rows_that_are_refused_raise_their_alerts(post: Post) -> None:
    cells: dict[str, list[object]] = {
        "participant_id": [ANN, BEN, CAT, ANN, BEN, "01-702-9999", "01-706-1001"],
        "collected_on": [date(2013, 1, 2), None, *[date(2013, 2, 10)] * 5],  # the first before consent
        "wave": ["screening", "screening", "no such wave!", "week_2", "week_4", "week_2", "week_2"],
        "respondent": ["self", "self", "self", "neighbour", "self", "self", "self"],
        "concern02": [3.0, 3.0, 3.0, 3.0, 9.0, 3.0, 3.0],
    }
    counts = post.receive(post.make(concern(*[ANN] * 7, **cells)))
    assert (counts["records refused"], counts["records accepted"]) == (7, 0)
    alerts = read_alerts(post)
    assert [alert["participant_id"] for alert in alerts] == [ANN, BEN, CAT, ANN, BEN, "", ""]
    assert [(alert["source_sheet"], alert["source_row"]) for alert in alerts] == [("concern", n) for n in range(3, 10)]
    assert [alert["wave"] for alert in alerts][2:4] == ["", "week_2"]
    assert send(post)[TOLD] == 7
    [mail] = read_mail(post)
    assert "identifier: not known" in " ".join(mail.replace("=\n", "").split())
    assert "9999" not in read_ledger(post.workspace) + mail


def test_a_file_that_is_not_taken_as_a_whole_raises_its_alerts(post: Post) -> None:
    data = post.make(concern(ANN, BEN, concern01=[0.0, float(LEVEL)]), posted_on=date(2013, 5, 1))
    assert post.receive(data)["files quarantined"] == 1
    [alert] = read_alerts(post)
    assert (alert["participant_id"], alert["source_row"]) == (BEN, 4)
    post.receive(post.make(concern(ANN, BEN, concern01=0.0), posted_on=TODAY, sending_number=2))
    assert len(read_alerts(post)) == 1


def test_of_somebody_who_has_left_and_of_an_overtaken_correction(post: Post) -> None:
    left = pd.DataFrame(
        {"participant_id": [ANN], "scope": "study", "reason": "withdrawal_by_participant", "left_on": date(2013, 2, 9)}
    )
    reasons = [reason.id for reason in post.workspace.study.disposition_reasons if "study" in reason.scopes]
    post.receive(post.make({"disposition": left.assign(reason=reasons[0])}, sending_number=7))
    post.receive(post.make(concern(ANN)))
    post.receive(post.make(concern(BEN, concern01=0.0), sending_number=2, correction=2))
    post.receive(post.make(concern(BEN), sending_number=2, correction=1))
    assert [alert["participant_id"] for alert in read_alerts(post)] == [ANN, BEN]


def test_a_cell_that_cannot_be_read_triggers_nothing_and_is_asked_about(post: Post) -> None:
    counts = post.receive(post.make(concern(ANN), change=set_cell("Concern", "F3", "0, or nearly so")))
    assert (counts["records refused"], counts["queries"]) == (1, 1)
    assert read_alerts(post) == []


def make_decision(outcome: str, answers: list[list[float]]) -> Decision:
    items = np.array(["concern01", "concern02"], dtype=object)
    records = [
        Record(
            RecordKey(ANN, "self", f"week_{n}", "concern"), n + 3, "standard", TODAY, items, np.array(row),
            np.zeros(2, dtype=np.int8), outcome=outcome,
        )
        for n, row in enumerate(answers)
    ]  # fmt: skip
    return Decision(FileFacts("a" * 64, 1, SITE), None, records=records)


def test_what_the_gate_holds_and_tests_of_every_kind(post: Post) -> None:
    study, instrument = post.workspace.study, post.workspace.instruments["concern"]
    decision = make_decision("quarantined", [[LEVEL, 0], [0, 4], [np.nan, 2], [np.nan, np.nan]])

    def find(*tests: AnswerTest) -> list[str]:
        trigger = Trigger(id="t", about="Something", any_of=tests)
        own = {"concern": instrument.model_copy(update={"safeguarding": (trigger,)})}
        return [one.wave for one in find_triggered(study, own, decision, None, [])]

    assert find(AnswerTest(items=("concern01",), equals=(LEVEL, 1))) == ["week_0"]
    assert find(AnswerTest(items=("concern02",), at_least=2)) == ["week_1", "week_2"]
    assert find(AnswerTest(items=("concern02",), at_most=0)) == ["week_0"]
    assert find(AnswerTest(items=("concern02",), above="concern01")) == ["week_1"]
    both = AnswerTest(items=("concern01", "concern02"), at_least=0)
    assert find(both) == ["week_0", "week_1"]
    assert find(AnswerTest(items=("concern02",), equals=(2,)), both) == ["week_0", "week_1", "week_2"]
    assert find(AnswerTest(items=("elsewhere",), equals=(1,))) == []


def test_a_study_whose_clinician_has_no_contact_is_at_fault(post: Post, tmp_path: Path) -> None:
    study, settings = post.workspace.study, Settings(_env_file=None, contacts=tmp_path)
    path = tmp_path / "cdisc_pilot.toml"
    assert find_contact_faults(study, settings) == []  # no contacts yet
    path.write_text(CLINICIAN + OTHERS, encoding="utf-8")
    assert find_contact_faults(study, settings) == []
    path.write_text(OTHERS + CLINICIAN.replace('role = "safe', 'site_id = "702"\nrole = "safe'), encoding="utf-8")
    assert find_contact_faults(study, settings) == [
        "contacts.toml: safeguarding_clinician must hear of safeguarding alerts, and at 16 of 17 sites nobody can be "
        "written to (nobody holds this role). Add somebody, for the study or for each site."
    ]
    path.write_text(OTHERS.replace("ivan@univ", "ivan univ"), encoding="utf-8")
    [fault] = find_contact_faults(study, settings)
    assert 'people "ivan": email must be one e-mail address' in fault


WORDS = RULE.replace("escalate_after = 1", 'escalate_after = 1\nwords = ["zzqx  hurt", "afraid"]')


def test_a_remark_with_a_word_of_the_study_raises_an_alert(config: Path, tmp_path: Path) -> None:
    assert check(config, tmp_path / "a", WORDS) == ()
    shutil.copytree(config / "instruments", tmp_path / "a" / "instruments")
    post = begin(tmp_path / "out", tmp_path / "a")
    remarks = ["Was Zzqx hurting\u00a0him?", "not AFRAID", "unafraid, all well"]
    cells = {"concern01": 0.0, "safety_remarks": remarks}
    assert post.receive(post.make(concern(ANN, BEN, CAT, **cells)))["records accepted"] == 3
    found = [(alert["trigger"], alert["participant_id"]) for alert in read_alerts(post)]
    assert found == [("safety_remarks", ANN), ("safety_remarks", BEN)]
    both = concern("01-702-9999", safety_remarks="afraid", wave="week_2")
    post.receive(post.make(both, sending_number=2))  # an answer and a remark, of nobody who is known
    assert [alert["trigger"] for alert in read_alerts(post)[2:]] == ["safety", "safety_remarks"]
    assert send(post)[TOLD] == 4
    returns = post.workspace.read_events().frame(ReturnAccepted)
    kept = read_answers(post.workspace, returns).to_csv()
    receipts = [row for receipt in post.read_receipts().values() for row in receipt.rows]
    for text in (read_ledger(post.workspace), *read_mail(post), kept, str(receipts)):
        assert "zzqx" not in text.lower()
        assert "afraid" not in text.lower()
    late = concern(ANN, BEN, safety_remarks=["", "afraid"], concern01=0.0)
    assert post.receive(post.make(late, posted_on=date(2013, 5, 1)))["files quarantined"] == 1
    assert [alert["participant_id"] for alert in read_alerts(post)[4:]] == [BEN]
    post.workspace.ledger.close()


def test_without_words_a_sheet_has_no_remarks(post: Post) -> None:
    assert not any("safety_remarks" in sheet.codes for sheet in post.workspace.layout.sheets)


# Told, escalated, acknowledged ----------------------------------------------------------------------------------------


def test_what_nobody_acknowledges_is_escalated_once(post: Post) -> None:
    post.receive(post.make(concern(ANN)))
    assert send(post)[TOLD] == 1
    assert send(post, date(2013, 3, 3)) == {}  # a Sunday
    assert send(post, MONDAY) == {"alerts": 1, ESCALATED: 1, "sent": 1}
    assert send(post, date(2013, 3, 11)) == {}
    assert list_addressees(post) == ["Cleo Clinician", "Ivan Investigator"]
    assert read_alerts(post, MONDAY)[0]["state"] == "escalated"
    steps = post.workspace.read_events().frame(ObligationChased)
    assert steps["chase"].tolist() == ["safeguarding:702-S0001:told", "safeguarding:702-S0001:escalated"]


def test_an_acknowledged_alert_is_not_escalated(post: Post) -> None:
    post.receive(post.make(concern(ANN)))
    send(post)
    work = derive_work_list(post.workspace.study, post.workspace.read_events(), TODAY)
    assert (work[0].kind, work[0].site_id) == ("safeguarding", SITE)
    assert "702-S0001" in work[0].text
    assert "the safeguarding clinician (1 Mar 2013)" in work[0].text
    assert acknowledge_alert(post.workspace, "702-S0001", "safeguarding_clinician", "telephone", BY, on=TODAY)
    assert not acknowledge_alert(post.workspace, "702-S0001", "chief_investigator", "email", BY, on=TODAY)
    assert send(post, MONDAY) == {}
    assert read_alerts(post)[0]["role"] == "safeguarding_clinician"
    kinds = [entry.kind for entry in derive_work_list(post.workspace.study, post.workspace.read_events(), MONDAY)]
    assert "safeguarding" not in kinds


def test_an_acknowledgement_that_cannot_be(post: Post) -> None:
    post.receive(post.make(concern(ANN)))
    with pytest.raises(AlertRefused, match=r'There is no alert 702-S0002\. Did you mean "702-S0001"'):
        acknowledge_alert(post.workspace, "702-S0002", "safeguarding_clinician", "email", BY, on=TODAY)
    with pytest.raises(AlertRefused, match="2013-02-28 is before 702-S0001 was raised, on 2013-03-01"):
        acknowledge_alert(post.workspace, "702-S0001", "safeguarding_clinician", "email", BY, on=date(2013, 2, 28))
    with pytest.raises(AlertRefused, match="nurse: who takes over an alert is safeguarding_clinician or "):
        acknowledge_alert(post.workspace, "702-S0001", "nurse", "email", BY, on=TODAY)


def test_neither_a_pause_nor_a_quiet_period_nor_news_holds_it_back(post: Post) -> None:
    pause = ChasingPaused(occurred_on=TODAY, requested_by=BY, site_id=SITE, pause="p1", reason="holiday")
    post.workspace.ledger.append([pause])
    assert post.workspace.study.fieldwork.quiet_periods[-1].covers(TODAY)
    post.receive(post.make(concern(ANN)))
    drawn = draw_up_alerts(post.workspace, TODAY)
    post.receive(post.make(concern(ANN, BEN, CAT, concern01=0.0), sending_number=2))  # news of this very person
    assert drawn.decided_at < post.workspace.ledger.head().seq
    assert send(post)[TOLD] == 1


class Server:
    """A way out that fails as told: before anything, or for one address."""

    way: Literal["smtp", "folder"] = "smtp"

    def __init__(self, *, down: bool = False, refuses: str = "") -> None:
        self.down, self.refuses = down, refuses
        self.taken: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def prepare(self) -> None:
        if self.down:
            raise MailUnavailable("The mail server does not answer.")

    def hand_over(self, name: str, address: str, data: bytes) -> Outcome:
        if address == self.refuses:
            return Outcome("permanent", "5.1.1")
        self.taken.append(address)
        return Outcome("sent")

    def has(self, name: str) -> bool:
        return False


@pytest.mark.parametrize("later", [TODAY, MONDAY])
def test_what_a_mail_server_does_not_take_goes_with_the_next_run(post: Post, later: date) -> None:
    post.receive(post.make(concern(ANN)))
    with pytest.raises(SendingFailed):
        send_alerts(post.workspace, BY, Server(down=True))
    post.receive(post.make(concern(ANN, concern02=1.0), correction=1))  # news in between
    set_day(post.workspace, later)
    server = Server()
    counts = send_alerts(post.workspace, BY, server)
    assert (counts["sent"], server.taken) == (1, ["cleo@clinic.invalid"])
    assert read_alerts(post, later)[0]["told_on"] == pd.Timestamp(later)
    assert send_alerts(post.workspace, BY, server) == {}


def test_who_is_out_of_reach_is_not_waited_for(post: Post) -> None:
    post.receive(post.make(concern(ANN)))
    server = Server(refuses="cleo@clinic.invalid")
    send_alerts(post.workspace, BY, server)
    assert server.taken == ["dora@clinic.invalid"]  # her deputy
    post.receive(post.make(concern(BEN), sending_number=2))
    write_contacts(post, OTHERS)
    send_alerts(post.workspace, BY, server)
    assert server.taken == ["dora@clinic.invalid", "ivan@university.invalid"]
    write_contacts(post, "")
    post.receive(post.make(concern(CAT), sending_number=3))
    with pytest.raises(
        AlertsUnheard, match=r"Nobody could be told of 702-S0003 \(safeguarding clinician, .*nobody hol"
    ):
        send_alerts(post.workspace, BY, server)


def test_what_came_back_is_escalated_at_once(post: Post) -> None:
    post.receive(post.make(concern(ANN)))
    send(post)
    queued = post.workspace.read_events().frame(MessageQueued).iloc[-1]
    post.workspace.ledger.append([
        MessageBounced(
            occurred_on=TODAY, requested_by=BY, site_id=SITE, message_id=queued["message_id"],
            persistence="permanent", status="5.1.1", address_code=queued["address_code"],
        )
    ])  # fmt: skip
    assert send(post)[ESCALATED] == 1
    assert list_addressees(post) == ["Cleo Clinician", "Ivan Investigator"]


def test_several_alerts_of_a_day_are_one_letter(post: Post) -> None:
    post.receive(post.make(concern(ANN, BEN, CAT)))
    assert send(post) == {"alerts": 1, TOLD: 3, "sent": 1}
    post.receive(post.make(concern(ANN, wave="week_2"), sending_number=2))
    assert send(post) == {"alerts": 1, TOLD: 1, "sent": 1}
    assert len(list_mail(post.workspace)) == 2


# Nothing is lost, nothing is told -------------------------------------------------------------------------------------


def test_alert_and_record_are_one_append(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that dies before the commit has recorded neither; the next one records both."""

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tasks.returns.write_receipt", die)
    with pytest.raises(KeyboardInterrupt):
        post.receive(post.make(concern(ANN)))
    assert read_alerts(post) == []
    assert post.workspace.read_events().frame(ReturnAccepted).empty
    monkeypatch.undo()
    assert post.receive()["records accepted"] == 1
    assert len(read_alerts(post)) == 1
    # raised, and dead before anything was sent: the next run sends
    assert send(post)[TOLD] == 1


def test_no_answer_is_anywhere(post: Post, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    post.receive(post.make(concern(ANN)))
    post.receive(post.make(concern(BEN, collected_on=None), sending_number=2))
    send(post)
    send(post, MONDAY)
    assert len(read_alerts(post, MONDAY)) == 2
    set_day(post.workspace, MONDAY)
    work = derive_work_list(post.workspace.study, post.workspace.read_events(), MONDAY)
    told = [read_ledger(post.workspace), caplog.text, *read_mail(post), *(entry.text for entry in work)]
    told += [path.read_text("utf-8") for path in post.workspace.folder.rglob("*.json")]
    for text in told:
        assert str(LEVEL) not in text
        assert "zzqx" not in text
        assert "Safety at home" not in text


# What a study states --------------------------------------------------------------------------------------------------


def check(config: Path, folder: Path, fieldwork: str, old: str = RULE) -> tuple[str, ...]:
    shutil.copytree(config / "sites_config", folder / "sites_config")
    path = folder / "sites_config" / "cdisc_pilot" / "fieldwork.toml"
    path.write_text(path.read_text("utf-8").replace(old, fieldwork), encoding="utf-8")
    return find_faults("cdisc_pilot", folder / "sites_config", config / "instruments").faults


def test_a_study_that_declares_triggers_and_names_nobody_is_at_fault(config: Path, tmp_path: Path) -> None:
    [fault] = check(config, tmp_path, "")
    assert fault == (
        "sites_config/cdisc_pilot/fieldwork.toml: concern.safety must be told to a clinician on the day, and the study "
        "names none. Add [[safeguarding]] with clinician, escalate_after and escalates_to."
    )


OWN = """
[[safeguarding_triggers]]
id = "memory"
about = "Memory"
instrument = "mmse"
item = "mmse01"
equals = [0]
"""


def test_a_study_adds_triggers_of_its_own_and_leaves_some_out(config: Path, tmp_path: Path) -> None:
    leaves_out = RULE.replace("escalate_after = 1", 'escalate_after = 0\nleaves_out = ["concern.safety"]')
    assert check(config, tmp_path / "a", leaves_out + OWN) == ()
    shutil.copytree(config / "instruments", tmp_path / "a" / "instruments")
    post = begin(tmp_path / "out", tmp_path / "a")
    marks = {f"mmse{n:02d}": 0.0 for n in range(1, 7)}
    record = pd.DataFrame({"participant_id": [ANN], "respondent": "self", "form": "standard", "wave": "screening",
                           "collected_on": date(2013, 2, 10), **marks})  # fmt: skip
    post.receive(post.make({**concern(BEN), "mmse": record}))
    raised = post.workspace.read_events().frame(SafeguardingRaised)
    assert raised[["instrument", "trigger", "participant_id"]].values.tolist() == [["mmse", "memory", ANN]]
    assert send(post) == {"alerts": 2, TOLD: 1, ESCALATED: 1, "sent": 2}  # both roles at once
    post.workspace.ledger.close()


@pytest.mark.parametrize(
    ("fieldwork", "words"),
    [
        (RULE.replace("escalate_after = 1", 'escalate_after = 1\nleaves_out = ["concern.savety"]'), "concern.savety"),
        (RULE + OWN.replace('"mmse"', '"mms"'), 'names instrument "mms", which is none of the study. Did you mean'),
        (RULE + OWN.replace('"mmse01"', '"mmse1"'), 'names item "mmse1", which instruments/mmse does not have. Did'),
        (RULE + OWN.replace("[0]", "[77]"), "77 is no answer of mmse01 (0 to 5)"),
        (RULE + OWN + "at_least = 1\n", "a trigger has one of equals, at_least and at_most"),
        (RULE + OWN.replace('"memory"', '"safety"').replace("mmse01", "concern01").replace("mmse", "concern"),
         "has a trigger of this id"),
        (RULE + RULE.partition("[[quiet")[0], "there is one [[safeguarding]] already"),
    ],
)  # fmt: skip
def test_faults_of_a_rule(config: Path, tmp_path: Path, fieldwork: str, words: str) -> None:
    assert any(words in fault for fault in check(config, tmp_path, fieldwork))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("any_of = [", "any_of = 1 # [", 'safeguarding safety: "any_of" must be a list of tests'),
        ('["concern01"], equals', '["concern1"], equals', 'items names "concern1"'),
        (f"[{LEVEL}] }}]", "[9] }]", "safeguarding safety: 9 is no answer of concern01"),
        ("about = ", "abuot = ", '"abuot" is no word of a definition here. Did you mean "about"?'),
    ],
)
def test_faults_of_a_trigger(config: Path, tmp_path: Path, old: str, new: str, words: str) -> None:
    folder = tmp_path / "concern"
    shutil.copytree(config / "instruments" / "concern", folder)
    assert old in DEFINITION
    (folder / "definition.toml").write_text(DEFINITION.replace(old, new), encoding="utf-8")
    with pytest.raises(DefinitionFaults) as raised:
        load_instrument("concern", tmp_path)
    assert any(words in fault for fault in raised.value.faults), raised.value.faults


# The desk -------------------------------------------------------------------------------------------------------------


def test_the_commands(post: Post, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("desk.safeguarding_commands.open_study", lambda _: post.workspace)

    def run(*words: str) -> str:
        result = CliRunner().invoke(app, ["safeguarding", *words], env={"COLUMNS": "250"})
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    assert "0 safeguarding alerts." in run("list", "cdisc_pilot")
    post.receive(post.make(concern(ANN)))
    assert run("send", "cdisc_pilot", "--by", BY) == "Letters: 1. Alerts told: 1, escalated: 0."
    listed = run("list", "cdisc_pilot", "--site", SITE)
    for shown in ("702-S0001", ANN, "Safety at home", "2013-03-01", "1 safeguarding alerts."):
        assert shown in listed
    words = ("acknowledge", "cdisc_pilot", "702-S0001", "telephone", "--role", "safeguarding_clinician", "--by", BY)
    assert run(*words) == "702-S0001 is taken over by the safeguarding clinician."
    assert run(*words) == "702-S0001 was acknowledged before; nothing was changed."
    assert "0 safeguarding alerts." in run("list", "cdisc_pilot")
    assert "1 safeguarding alerts." in run("list", "cdisc_pilot", "--all")
    words = ("acknowledge", "cdisc_pilot", "702-S0001", "email", "--role", "é!", "--by", BY)
    assert isinstance(CliRunner().invoke(app, ["safeguarding", *words]).exception, AlertRefused)
