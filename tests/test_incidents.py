"""What was collected while it was not allowed: kept apart, entered in the register, and decided on by a person.

Workbooks go through the tasks of a real workspace, at a site with a council and a clinic; the council's approval is
what collecting rests on.
"""

from __future__ import annotations

import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from desk.incident_commands import app
from rehearsal.replay import find_unreleased
from study.events import (
    ApprovalGranted,
    ApprovalRenewed,
    ApprovalSubmitted,
    Event,
    IncidentActionDone,
    IncidentActionPlanned,
    IncidentAssessed,
    IncidentAssigned,
    IncidentClosed,
    IncidentDecided,
    IncidentOpened,
    ParticipantScreened,
    QueryRaised,
    ReturnAccepted,
    ReturnQuarantined,
    Voided,
)
from study.gate import open_gate
from study.incidents import (
    ACTIVITIES,
    SiteGate,
    count_quarantined,
    derive_held,
    derive_incidents,
    find_activity,
    find_incident_faults,
)
from study.state import derive_queries, derive_returns
from tasks.definitions import load_study
from tasks.files import FileMissing
from tasks.incidents import IncidentRefused, record_step
from tasks.release_files import write_data_files
from tasks.releases import assemble_release, derive_manifest
from tasks.returns import read_answers
from tasks.settings import PROJECT, Settings, read_settings
from tasks.workspace import adopt_configuration, create_workspace
from tests.test_bad_input import ANN, BEN, CAT, SITE, TODAY, Killed, Post, list_facts, mmse, screening
from tests.test_state import tell

COUNCIL, CLINIC = "council_702", "clinic_702"
PATHWAY = """
[[approvals]]
id = "rec"
label = "REC favourable opinion"
level = "study"
authority = "REC"

[[approvals]]
id = "council"
label = "Council approval"
level = "body"
authority = "The council"
body_kinds = ["council"]

[[routes]]
id = "rec_form"
approval = "rec"
label = "Form"

[[routes]]
id = "council_form"
approval = "council"
label = "Form"

[[activities]]
id = "approach"
needs = ["rec"]

[[activities]]
id = "recruit"
needs = ["rec"]

[[activities]]
id = "collect_baseline"
needs = ["rec", "council"]

[[activities]]
id = "collect_follow_up"
needs = ["rec", "council"]

[[incident_rules]]
category = "collected_while_not_open"
owner = "sponsor"
assess_days = 5
unit = "working"
source = "Assumed."
"""
BODIES = f"""
[[bodies]]
id = "{COUNCIL}"
name = "Borough council"
kind = "council"
confirmed = true
"""


def day(text: str) -> date:
    """ "02-14" of 2013."""
    return date.fromisoformat(f"2013-{text}")


def grant(approval: str, on: date, **more: Any) -> list[Event]:
    place = {"site_id": SITE, "body_id": COUNCIL} if approval == "council" else {}
    about: dict[str, Any] = {"requested_by": "Mary", "approval": approval, **place}
    return [
        ApprovalSubmitted(**about, occurred_on=date(2012, 12, 1), route=f"{approval}_form"),
        ApprovalGranted(**about, occurred_on=on, **more),
    ]


def write_study(folder: Path) -> Path:
    """The pilot's protocol with a pathway, and a site of two bodies."""
    study = folder / "sites_config" / "cdisc_pilot"
    shutil.copytree(PROJECT / "sites_config" / "cdisc_pilot", study)
    (study / "approvals.toml").write_text(PATHWAY)
    site = study / "sites" / f"{SITE}.toml"
    site.write_text(site.read_text() + BODIES)
    return folder / "sites_config"


def open_post(folder: Path, *granted: Event, today: date = TODAY) -> Post:
    """A workspace at half past six of a day, with these approvals."""
    sites_config = folder / "sites_config" if (folder / "sites_config").exists() else write_study(folder)
    settings = Settings(
        _env_file=None, data_folder=folder / "out", sites_config=sites_config, settle_seconds=10, largest_return_mb=2
    )
    clock = datetime(today.year, today.month, today.day, 6, 30, tzinfo=UTC)
    workspace = create_workspace("cdisc_pilot", settings=settings, clock=lambda: clock)
    workspace.ledger.append(granted)
    return Post(workspace)


def screen(*people: str, body: str = "") -> pd.DataFrame:
    return screening(*people).assign(body=body)


def begin(post: Post, *people: str, body: str = "") -> None:
    post.receive(post.make({"screening": screen(*people, body=body)}, posted_on=date(2013, 2, 8)))


def read_register(post: Post) -> dict[str, dict[str, Any]]:
    register = derive_incidents(post.workspace.study, post.workspace.read_events(), TODAY)
    return {row["incident_id"]: row for row in register.to_dict("records")}


def list_held(post: Post) -> list[tuple[str, str]]:
    held = derive_held(post.workspace.read_events())
    held = held[held["is_held"]]
    return list(zip(held["participant_id"], held["wave"], strict=True))


def step(kind: type[Any], incident_id: str = "702-I0001", on: date = TODAY, **fields: Any) -> Any:
    return kind(occurred_on=on, requested_by="Ann Price", site_id=SITE, incident_id=incident_id, **fields)


def assess(post: Post, incident_id: str = "702-I0001") -> None:
    record_step(post.workspace, step(IncidentAssessed, incident_id, outcome="breach", role="sponsor", reference="S 1"))


def decide(post: Post, decision: str, incident_id: str = "702-I0001") -> Any:
    event = step(IncidentDecided, incident_id, decision=decision, role="sponsor", reference="S 2")
    return record_step(post.workspace, event)


def find_marks(post: Post) -> dict[tuple[str, str], float]:
    """The accepted answers to mmse01, as a release would hold them."""
    adopt_configuration(post.workspace, TODAY, "Mary")
    responses = assemble_release(post.workspace, TODAY).rows["responses"].read_all()
    responses = responses[responses["item"] == "mmse01"]
    return {(row.participant_id, row.wave): row.response for row in responses.itertuples()}


# Which days -----------------------------------------------------------------------------------------------------------

FORCE = [
    *grant("rec", day("01-01")),
    *grant("council", day("02-05"), expires_on=day("02-14")),
    ApprovalRenewed(
        occurred_on=day("02-18"), requested_by="Mary", approval="council", site_id=SITE, body_id=COUNCIL,
        expires_on=day("02-24"),
    ),
]  # fmt: skip
# The day before the grant, the day, the last day of force, the day after; and the same of the renewal after the lapse.
DAYS = [
    ("02-04", False), ("02-05", True), ("02-14", True), ("02-15", False),
    ("02-17", False), ("02-18", True), ("02-24", True), ("02-25", False),
]  # fmt: skip


def test_boundary_days_under_the_whole_site_and_under_each_body(tmp_path):
    post = open_post(tmp_path, *FORCE)
    post.receive(
        post.make(
            {"screening": pd.concat([screen(ANN), screen(BEN, body=COUNCIL), screen(CAT, body=CLINIC)])},
            posted_on=date(2013, 2, 8),
        )
    )
    names = [f"VISIT {n}" for n in range(len(DAYS))]
    rows = [
        mmse(person, wave=name, collected_on=day(on))
        for person in (ANN, BEN, CAT)
        for name, (on, _) in zip(names, DAYS, strict=True)
    ]
    counts = post.receive(post.make({"mmse": pd.concat(rows)}))
    held = [name for name, (_, is_open) in zip(names, DAYS, strict=True) if not is_open]
    assert sorted(list_held(post)) == [(person, name) for person in (ANN, BEN) for name in held]
    accepted = derive_returns(post.workspace.read_events())
    assert sorted(accepted.loc[accepted["participant_id"] == CAT, "wave"]) == names
    assert (counts["records accepted"], counts["records quarantined"], counts["queries"]) == (16, 8, 0)
    register = read_register(post)
    assert [(row["body_id"], row["n_records"], row["n_held"]) for row in register.values()] == [
        ("", 4, 4),
        (COUNCIL, 4, 4),
    ]
    assert {row["occurred_on"].date() for row in register.values()} == {day("02-04")}
    assert {row["assess_by"].date() for row in register.values()} == {date(2013, 3, 8)}


@pytest.mark.parametrize(
    ("wave", "activity"),
    [
        ("screening", "collect_baseline"), ("baseline", "collect_baseline"), ("week_2", "collect_follow_up"),
        ("RETRIEVAL", "collect_follow_up"), ("week_26", "collect_follow_up"),
    ],
)  # fmt: skip
def test_what_a_record_is_to_the_gate(wave, activity):
    assert find_activity(load_study("cdisc_pilot"), wave) == activity


MONTH = st.integers(min_value=0, max_value=40).map(lambda n: day("01-20") + timedelta(days=n))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return load_study("cdisc_pilot", write_study(tmp_path_factory.mktemp("study")))


@settings(max_examples=12, deadline=None)
@given(granted_on=MONTH, days=st.integers(0, 20), asked=st.lists(MONTH, min_size=1, max_size=3), data=st.data())
def test_a_site_is_judged_as_the_gate_answers(study, granted_on, days, asked, data):
    """Whatever is asked first, and however far back the first question goes."""
    events = tell(*grant("rec", day("01-25")), *grant("council", granted_on, expires_on=granted_on + timedelta(days)))
    gate = SiteGate(study, events, SITE, date(2013, 3, 1))
    for on in asked:
        activity, body_id = (
            data.draw(st.sampled_from(ACTIVITIES)),
            data.draw(st.sampled_from(["", COUNCIL, CLINIC, "x"])),
        )
        answer = open_gate(study, events, on).ask(activity, SITE, body_id)
        assert (
            gate.is_allowed(activity, body_id, on)
            == answer.is_allowed
            == (not gate.find_reasons(activity, body_id, on))
        )


# A file with records that were not allowed --------------------------------------------------------------------------

RECENT = [*grant("rec", day("01-01")), *grant("council", day("02-10"))]
EARLY, LATE = day("02-09"), day("02-10")


@pytest.fixture
def post(tmp_path: Path) -> Post:
    """The council's approval is of 10 February; three people under the council consented on 1 February."""
    post = open_post(tmp_path, *RECENT)
    begin(post, ANN, BEN, CAT, body=COUNCIL)
    return post


def make_early(post: Post, *, n_early: int = 1, marks: float = 5.0, on: date = EARLY, **about: Any) -> bytes:
    """The first people's questionnaires are of a day that was not allowed, the others' of one that was."""
    people = [ANN, BEN, CAT]
    rows = [mmse(*people[:n_early], collected_on=on, mmse01=marks), mmse(*people[n_early:], collected_on=LATE)]
    return post.make({"mmse": pd.concat(rows)}, **about)


def test_what_was_not_allowed_is_kept_apart_and_the_rest_is_unharmed(post):
    counts = post.receive(make_early(post))
    assert (counts["records accepted"], counts["records quarantined"]) == (2, 1)
    events = post.workspace.read_events()
    [held] = events.frame(ReturnQuarantined).to_dict("records")
    assert (held["participant_id"], held["incident_id"], held["activity"]) == (ANN, "702-I0001", "collect_baseline")
    assert (held["source_sheet"], held["source_row"], held["n_items"], held["n_answered"]) == ("mmse", 3, 6, 6)
    kept = read_answers(post.workspace, pd.DataFrame([held]))
    assert set(kept["participant_id"]) == {ANN}
    assert dict(zip(kept["item"], kept["response"], strict=True))["mmse01"] == 5.0
    assert set(derive_returns(events)["responses_sha256"]).isdisjoint({held["responses_sha256"]})
    assert len(events.frame(QueryRaised)) == 0
    [incident] = events.frame(IncidentOpened).to_dict("records")
    assert (incident["category"], incident["activity"], incident["body_id"]) == (
        "collected_while_not_open", "collect_baseline", COUNCIL,
    )  # fmt: skip
    assert incident["subject"].startswith("702-2013-03-01-1:")
    assert (incident["occurred_on"].date(), incident["found_on"].date()) == (EARLY, TODAY)
    row = read_register(post)["702-I0001"]
    assert (row["state"], row["next_step"], row["turn"], row["n_held"]) == ("open", "assess", "sponsor", 1)
    assert row["is_allowed_now"] is False
    assert find_marks(post) == {(BEN, "screening"): 5.0, (CAT, "screening"): 5.0}
    assert list(find_unreleased(post.workspace, events).held["participant_id"]) == [ANN]


def test_the_receipt_says_what_is_kept_apart_why_and_who_decides(post):
    post.receive(make_early(post))
    receipt = post.receipt
    assert receipt.rows == []
    assert receipt.says("Part of this workbook was accepted; the rest is kept apart.")
    assert receipt.says("MMSE, row 3: These questionnaires were answered on days on which the approvals")
    assert receipt.says("unless the sponsor decides that they may be")
    assert receipt.says(f"What was missing: council ({SITE}, {COUNCIL}): submitted on 2012-12-01, not granted yet.")
    assert receipt.says("The first was on 09 Feb 2013. Incident 702-I0001.")
    assert receipt.says("Nothing: there is nothing to mend.")


def test_people_who_were_approached_or_signed_too_soon_are_known_all_the_same(tmp_path):
    post = open_post(tmp_path, *grant("rec", day("02-02")), *grant("council", day("02-02")))
    rows = screening(ANN, BEN)
    rows.loc[1, ["screened_on", "consented_on"]] = [day("02-01"), day("02-02")]
    later = {"screened_on": day("02-02"), "consented_on": day("02-02")}
    rows = pd.concat([rows, screening(CAT).assign(**later)])
    counts = post.receive(post.make({"screening": rows}))
    assert (counts["log entries"], counts["records quarantined"]) == (6, 0)
    found = [
        (row["activity"], row["n_records"], row["n_held"], row["next_step"]) for row in read_register(post).values()
    ]
    assert found == [("approach", 2, 0, "assess"), ("recruit", 1, 0, "assess")]
    assert post.receipt.says("Everything in this workbook was accepted")
    assert post.receipt.says("Screening and consent, rows 3 to 4: These people were approached on days")
    assert post.receipt.says("Screening and consent, row 3: These people signed the consent form on days")
    # The whole log again, and a correction that changes nothing of the day: no second incident.
    post.receive(post.make({"screening": rows}, sending_number=2))
    corrected = rows.assign(consent_scopes="questionnaires")
    post.receive(post.make({"screening": corrected}, correction=1))
    assert len(read_register(post)) == 2
    # Nor does another day that was not allowed either.
    corrected.loc[corrected["participant_id"] == ANN, "screened_on"] = day("01-31")
    post.receive(post.make({"screening": corrected}, correction=2))
    assert len(read_register(post)) == 2
    # A day that was right and is now told otherwise is another matter.
    corrected.loc[corrected["participant_id"] == CAT, "screened_on"] = day("02-01")
    post.receive(post.make({"screening": corrected}, correction=3))
    assert [(row["activity"], row["n_records"]) for row in read_register(post).values()][2:] == [("approach", 1)]


def test_a_body_is_told_once_filled_in_later_and_never_changed_unasked(tmp_path):
    post = open_post(tmp_path, *RECENT)
    old_layout = screening(ANN, BEN)
    post.receive(post.make({"screening": old_layout}, posted_on=date(2013, 2, 8)))
    post.receive(post.make({"screening": screen(ANN, body=CLINIC)}))
    post.receive(post.make({"screening": screen(ANN)}, sending_number=2))
    counts = post.receive(post.make({"screening": screen(ANN, body=COUNCIL)}, sending_number=3))
    assert counts["log entries"] == 0
    assert list(derive_queries(post.workspace.read_events())["rule"]) == ["differs_from_record"]
    post.receive(post.make({"screening": screen(BEN, body="clinic_703")}, sending_number=4))
    assert list(derive_queries(post.workspace.read_events())["rule"]) == ["differs_from_record", "code_unknown"]
    screened = post.workspace.read_events().frame(ParticipantScreened).set_index("participant_id")
    assert screened["body_id"].to_dict() == {ANN: CLINIC, BEN: ""}


def test_sites_choose_among_their_own_bodies_and_are_not_asked_where_each_has_one(post):
    [column] = [c for c in post.workspace.layout.list_sheets(SITE)[0].columns if c.code == "body"]
    assert [choice.code for choice in column.choices] == [CLINIC, COUNCIL]
    [column] = [c for c in post.workspace.layout.list_sheets("703")[0].columns if c.code == "body"]
    assert [choice.code for choice in column.choices] == ["clinic_703"]
    plain = create_workspace("cdisc_pilot", settings=Settings(_env_file=None, data_folder=post.workspace.folder / "x"))
    assert "body" not in plain.layout.sheet_by_code["screening"].codes


# The same again, corrections ------------------------------------------------------------------------------------------


def test_the_same_file_and_the_same_record_again_open_no_second_incident(post):
    data = make_early(post)
    post.receive(data)
    head = post.workspace.ledger.head()
    post.receive(data)
    assert post.workspace.ledger.head() == head
    again = next(receipt for name, receipt in post.read_receipts().items() if "received-before" in name)
    assert again.says("stays so until the sponsor decides")
    counts = post.receive(make_early(post, sending_number=2))
    assert (counts["records repeated"], counts["records quarantined"]) == (3, 0)
    assert list(read_register(post)) == ["702-I0001"]


def test_other_answers_from_another_sending_are_asked_about_and_held_apart_from(post):
    post.receive(make_early(post))
    counts = post.receive(make_early(post, marks=1.0, sending_number=2))
    assert (counts["records refused"], counts["records quarantined"]) == (1, 0)
    assert list(derive_queries(post.workspace.read_events())["rule"]) == ["conflicts_with_accepted"]
    assert list_held(post) == [(ANN, "screening")]


def test_a_correction_takes_the_place_of_what_is_held_in_the_same_incident(post):
    post.receive(make_early(post))
    post.receive(make_early(post, marks=1.0, correction=1))
    events = post.workspace.read_events()
    assert list(events.frame(ReturnQuarantined)["incident_id"]) == ["702-I0001"] * 2
    assert (list_held(post), read_register(post)["702-I0001"]["n_held"]) == ([(ANN, "screening")], 1)
    assess(post)
    decide(post, "admitted")
    assert find_marks(post)[ANN, "screening"] == 1.0


def test_a_correction_to_a_day_that_was_allowed_is_accepted_and_nothing_is_held(post):
    post.receive(make_early(post))
    counts = post.receive(make_early(post, n_early=0, correction=1))
    assert (counts["records accepted"], counts["records quarantined"]) == (1, 0)
    assert list_held(post) == []
    assert find_marks(post)[ANN, "screening"] == 5.0
    assess(post)
    recorded = decide(post, "admitted")
    assert (recorded.n_admitted, recorded.n_left) == (0, 1)
    assert find_marks(post)[ANN, "screening"] == 5.0


def test_a_correction_of_accepted_answers_to_a_day_that_was_not_allowed_takes_them_out(post):
    post.receive(make_early(post, n_early=0))
    post.receive(make_early(post, n_early=0, marks=4.0, correction=1))
    post.receive(make_early(post, n_early=1, correction=2))
    events = post.workspace.read_events()
    assert (ANN, "screening") not in find_marks(post)
    assert list_held(post) == [(ANN, "screening")]
    assert len(events.frame(Voided)) == 1
    assess(post)
    assert decide(post, "admitted").n_admitted == 1
    assert find_marks(post)[ANN, "screening"] == 5.0
    # A correction of what was admitted is held anew: the decision was about other answers.
    post.receive(make_early(post, n_early=1, marks=2.0, correction=3))
    assert (ANN, "screening") not in find_marks(post)
    assert read_register(post)["702-I0002"]["n_held"] == 1


def test_what_a_correction_leaves_out_stays_held_without_a_question(post):
    post.receive(make_early(post))
    post.receive(post.make({"mmse": mmse(BEN, CAT, collected_on=LATE)}, correction=1))
    assert list_held(post) == [(ANN, "screening")]
    assert len(derive_queries(post.workspace.read_events())) == 0


def test_an_approval_of_the_whole_study_recorded_meanwhile_is_seen_before_anything_is_recorded(tmp_path, monkeypatch):
    """Decided on a ledger without the REC's opinion; recorded on one that has it."""
    post = open_post(tmp_path, *grant("council", day("01-02")))
    original = type(post.workspace.ledger).writing
    told: list[Event] = grant("rec", day("01-01"))

    def interrupt(ledger: Any) -> Any:
        if told:
            events, told[:] = list(told), []
            ledger.append(events)
        return original(ledger)

    monkeypatch.setattr(type(post.workspace.ledger), "writing", interrupt)
    begin(post, ANN)
    assert told == []
    assert read_register(post) == {}


# The register ---------------------------------------------------------------------------------------------------------


def test_a_grant_that_is_recorded_late_is_shown_and_decides_nothing(tmp_path):
    post = open_post(tmp_path, *grant("rec", day("01-01")))
    begin(post, ANN, BEN, CAT)
    post.receive(make_early(post, n_early=3))
    assert read_register(post)["702-I0001"]["is_allowed_now"] is False
    post.workspace.ledger.append(grant("council", EARLY))
    post.receive(make_early(post, n_early=3, sending_number=2))
    row = read_register(post)["702-I0001"]
    assert (row["is_allowed_now"], row["n_held"], row["decision"]) == (True, 3, "")
    assert find_marks(post) == {}


@pytest.mark.parametrize(("last", "is_allowed"), [("01-31", False), ("02-01", True)])
def test_what_is_allowed_now_is_asked_of_every_day_that_a_log_told_of(tmp_path, last, is_allowed):
    """Under the council, whose people of the file these are; a day of the clinic's people is no matter of it."""
    post = open_post(tmp_path)
    rows = pd.concat([screen(ANN, BEN, body=COUNCIL), screen(CAT, body=CLINIC)], ignore_index=True)
    rows.loc[0, "screened_on"] = day("01-20")
    rows.loc[2, "screened_on"] = day("01-02")
    post.receive(post.make({"screening": rows}))
    assert [row["is_allowed_now"] for row in read_register(post).values()] == [False] * 4
    post.workspace.ledger.append(grant("rec", day("01-15"), expires_on=day(last)))
    found = {(row["activity"], row["body_id"]): row["is_allowed_now"] for row in read_register(post).values()}
    assert found == {
        ("approach", COUNCIL): is_allowed,
        ("approach", CLINIC): False,
        ("recruit", COUNCIL): is_allowed,
        ("recruit", CLINIC): is_allowed,
    }


def test_admission_takes_the_answers_into_the_data_in_one_append(post, monkeypatch):
    post.receive(make_early(post, n_early=2))
    with pytest.raises(IncidentRefused, match="the sponsor has not assessed it yet"):
        decide(post, "admitted")
    assess(post)
    assert read_register(post)["702-I0001"]["next_step"] == "decide"

    # The process ends inside the append: neither the decision nor any of the answers is recorded.
    before = list_facts(post.workspace)
    from tasks.ledger import Writing

    append = Writing.append

    def die(writing: Writing, events: Any) -> Any:
        append(writing, events)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Writing, "append", die)
        with pytest.raises(Killed):
            decide(post, "admitted")
    assert list_facts(post.workspace) == before

    assert decide(post, "admitted").n_admitted == 2
    assert list_held(post) == []
    assert find_marks(post) == {(person, "screening"): 5.0 for person in (ANN, BEN, CAT)}
    accepted = post.workspace.read_events().frame(ReturnAccepted)
    assert list(accepted.loc[accepted["requested_by"] == "Ann Price", "source_row"]) == [3, 4]
    assert count_quarantined(post.workspace.read_events(), TODAY) == {
        "n_records_held": 0,
        "n_records_excluded": 0,
        "n_records_admitted": 2,
        "incidents": [
            {
                "incident": "702-I0001", "site": SITE, "activity": "collect_baseline", "decision": "admitted",
                "n_kept_out": 0, "n_admitted": 2,
            }
        ],
    }  # fmt: skip
    with pytest.raises(IncidentRefused, match="its answers were admitted on 2013-03-01"):
        decide(post, "excluded")


def test_excluded_answers_are_never_released_and_always_counted(post, tmp_path):
    post.receive(make_early(post))
    assess(post)
    assert decide(post, "excluded").n_admitted == 0
    assert (ANN, "screening") not in find_marks(post)
    assembled = assemble_release(post.workspace, TODAY)
    data = write_data_files(assembled.rows, tmp_path)
    manifest = derive_manifest(assembled, "", data, data.entries)
    told = manifest["collected_while_not_allowed"]
    assert (told["n_records_held"], told["n_records_excluded"], told["n_records_admitted"]) == (0, 1, 0)
    assert list(find_unreleased(post.workspace, post.workspace.read_events()).held["participant_id"]) == [ANN]


def test_answers_that_are_gone_are_not_admitted(post):
    post.receive(make_early(post))
    assess(post)
    [sha256] = set(post.workspace.read_events().frame(ReturnQuarantined)["responses_sha256"])
    for path in (post.workspace.folder / "files").rglob(f"{sha256}*"):
        path.unlink()
    with pytest.raises(FileMissing):
        decide(post, "admitted")
    assert read_register(post)["702-I0001"]["decision"] == ""


def test_an_incident_from_the_first_day_to_the_last(post):
    post.receive(make_early(post))
    workspace = post.workspace
    record_step(workspace, step(IncidentAssigned, owner="project_manager", due_on=day("03-20")))
    assess(post)
    record_step(workspace, step(IncidentActionPlanned, action="CAPA-1", owner="site_lead", due_on=day("03-10")))
    decide(post, "excluded")
    row = read_register(post)["702-I0001"]
    assert (row["state"], row["next_step"], row["turn"], row["n_actions_open"]) == ("assessed", "act", "site_lead", 1)
    with pytest.raises(IncidentRefused, match="actions are not done yet: CAPA-1"):
        record_step(workspace, step(IncidentClosed))
    record_step(workspace, step(IncidentActionDone, action="CAPA-1"))
    row = read_register(post)["702-I0001"]
    assert (row["next_step"], row["turn"], row["next_due_on"].date()) == ("close", "project_manager", day("03-20"))
    record_step(workspace, step(IncidentClosed))
    row = read_register(post)["702-I0001"]
    assert (row["state"], row["next_step"], row["turn"], row["outcome"]) == ("closed", "", "", "breach")
    assert pd.isna(row["overdue_since"])
    with pytest.raises(IncidentRefused, match="it was closed on 2013-03-01"):
        assess(post)


@pytest.mark.parametrize(("as_of", "overdue_since"), [("03-08", None), ("03-09", "03-09"), ("03-12", "03-09")], ids=str)
def test_an_assessment_is_overdue_from_the_day_after_its_last(post, as_of, overdue_since):
    """Found on Friday 1 March 2013; five working days end on Friday the 8th."""
    post.receive(make_early(post))
    register = derive_incidents(post.workspace.study, post.workspace.read_events(), day(as_of))
    found = register["overdue_since"].iloc[0]
    assert (None if pd.isna(found) else found.date()) == (day(overdue_since) if overdue_since else None)


OPENED = IncidentOpened(
    occurred_on=EARLY, requested_by="Mary", site_id=SITE, incident_id="702-I0001", category="protocol_deviation",
    subject=ANN, found_on=day("02-20"),
)  # fmt: skip
ASSESSED = step(IncidentAssessed, on=day("02-22"), outcome="breach", role="sponsor", reference="S 1")
PLANNED = step(IncidentActionPlanned, on=day("02-23"), action="A1")
HELD = ReturnQuarantined(
    occurred_on=EARLY, requested_by="Mary", site_id=SITE, participant_id=ANN, source={"sha256": "a" * 64},
    incident_id="702-I0001", activity="collect_baseline", return_id="r", respondent="self", wave="screening",
    instrument="mmse", form="standard", n_items=6, n_answered=6, responses_sha256="b" * 64,
)  # fmt: skip
ADMIT = {"decision": "admitted", "role": "sponsor", "reference": "S 2"}

FAULTS = [
    (
        [OPENED],
        step(IncidentAssessed, "702-I0002", outcome="breach", role="x", reference="y"),
        'no incident "702-I0002"',
    ),
    ([OPENED], step(IncidentAssigned, on=day("02-19"), owner="x"), "before it was found (2013-02-20)"),
    ([OPENED], step(IncidentAssigned, on=day("03-02"), owner="x"), "is in the future (today is 2013-03-01)"),
    (
        [OPENED],
        step(IncidentAssigned, owner="x", due_on=day("02-28")),
        "it is due on 2013-02-28, before the day itself",
    ),
    ([OPENED, ASSESSED], step(IncidentDecided, **ADMIT), "it holds no answers back"),
    ([OPENED, HELD], step(IncidentDecided, **ADMIT), "the sponsor has not assessed it yet"),
    ([OPENED, HELD, ASSESSED], step(IncidentDecided, on=day("02-21"), **ADMIT), "but assessed only on 2013-02-22"),
    ([OPENED], step(IncidentClosed), "the sponsor has not assessed it yet"),
    ([OPENED, HELD, ASSESSED], step(IncidentClosed), "it holds back 1 records"),
    ([OPENED, ASSESSED, PLANNED], step(IncidentClosed), "actions are not done yet: A1"),
    ([OPENED, ASSESSED, PLANNED], step(IncidentActionPlanned, action="A1"), "action A1 was planned already"),
    ([OPENED, ASSESSED, PLANNED], step(IncidentActionDone, action="A2"), "no action A2 was planned"),
    (
        [OPENED, ASSESSED, PLANNED],
        step(IncidentActionDone, on=day("02-22"), action="A1"),
        "action A1 was planned only on 2013-02-23",
    ),
    (
        [OPENED, ASSESSED, PLANNED, step(IncidentActionDone, on=day("02-24"), action="A1")],
        step(IncidentActionDone, action="A1"),
        "action A1 was done already",
    ),
    (
        [OPENED, ASSESSED, step(IncidentAssigned, on=day("02-26"), owner="x")],
        step(IncidentClosed, on=day("02-25")),
        "a step of it is dated 2013-02-26",
    ),
    ([], OPENED.model_copy(update={"found_on": day("02-08")}), "it was found (2013-02-08) before it happened"),
    ([], OPENED.model_copy(update={"found_on": day("03-03")}), "it was found in the future"),
    ([], OPENED.model_copy(update={"site_id": "720"}), '"720" is no site of cdisc_pilot'),
    ([], OPENED.model_copy(update={"body_id": "clinic_703"}), "no body of the site. Correct it, or name its site. Did"),
    ([], OPENED.model_copy(update={"activity": "recruiting"}), '"recruiting" is no activity. Correct it. Did you mean'),
]


@pytest.mark.parametrize(("standing", "event", "words"), FAULTS)
def test_a_step_that_cannot_be_is_refused_in_a_sentence(study, standing, event, words):
    [fault] = find_incident_faults(study, tell(*standing), event, TODAY)
    assert words in fault
    assert fault.endswith((".", "?"))


# Commands -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("SUMMATIVE_DATA_FOLDER", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "250")
    read_settings.cache_clear()
    yield lambda *words: _run(*words)
    read_settings.cache_clear()


def _run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [words[0], "ipc", *words[1:]])
    if isinstance(result.exception, IncidentRefused):
        return 1, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, " ".join(result.output.split())


def test_a_leaked_identifier_is_recorded_assessed_and_closed_by_command(desk):
    by = ("--by", "Ann Price")
    leak = ("record", "identifier_leak", "luton-2017-05-02-1", "--site", "luton", "--on", "2017-05-02", *by)
    assert desk(*leak) == (0, "Recorded as luton-I0001.")
    assert desk(*leak) == (0, "This was recorded before, as luton-I0001; nothing was changed.")
    assert desk("record", "other", "office", *by) == (0, "Recorded as ipc-I0001.")
    code, said = desk("list", "--site", "luton")
    assert code == 0
    assert "luton-I0001" in said
    assert "identifier leaked" in said
    assert "data protection officer" in said
    assert said.endswith("1 incidents.")
    assert desk("close", "luton-I0001", *by) == (
        1,
        "luton-I0001: the sponsor has not assessed it yet, so it can't be closed. Record the assessment first.",
    )
    assert desk("assign", "luton-I0001", "data_protection_officer", *by)[0] == 0
    assert desk("assess", "luton-I0001", "breach", "--reference", "DPO 4/17", *by)[0] == 0
    assert desk("action", "luton-I0001", "CAPA-1", *by) == (0, "luton-I0001: action CAPA-1 is planned.")
    assert desk("action", "luton-I0001", "CAPA-1", "--done", *by) == (0, "luton-I0001: action CAPA-1 is done.")
    code, said = desk("decide", "luton-I0001", "admit", "--role", "sponsor", "--reference", "S 1", *by)
    assert (code, "it holds no answers back" in said) == (1, True)
    assert desk("close", "luton-I0001", *by) == (0, "luton-I0001 is closed.")
    assert desk("list", "--site", "luton")[1].endswith("0 incidents.")
    assert desk("list", "--all")[1].endswith("2 incidents.")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("record", "other", "Mrs Jones: phoned about it?", "--by", "Ann"), "subject: the ledger holds no free text"),
        (("record", "other", "x", "--by", "Ann", "--on", "02/13/2017"), '"02/13/2017" has no month 13'),
        (("record", "other", "x", "--by", "Ann", "--site", "Lutton"), 'Did you mean "luton"?'),
        (("action", "x", "A", "--done", "--owner", "y", "--by", "Ann"), "belong to an action that is planned"),
    ],
)
def test_what_a_command_cannot_take_is_said(desk, words, said):
    code, output = desk(*words)
    assert code == 2
    assert said in output
