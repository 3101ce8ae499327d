"""Where the study stands: states of sites, what changed in a week, what to do first."""

import random
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from study.approvals import derive_approvals
from study.events import (
    ApprovalEvent,
    ApprovalGranted,
    ConsentRecorded,
    DocumentVersionIssued,
    Event,
    ModificationIntroduced,
    ModificationSupplied,
    ParticipantScreened,
    Voided,
)
from study.forecast import Forecast, derive_forecast_events, forecast_openings
from study.position import STATES, Position, SitePosition, derive_lacking, derive_position
from study.protocol import Study
from study.state import Events
from tasks.definitions import load_study
from tests.approval_histories import ENTRY_STEPS, make_study, step, tell

BY = "Siân Ó Briain"
TODAY = date(2017, 7, 12)
_ROUTES = {
    "rec": "rec_review", "hra": "hra_application", "cag": "cag_full", "adass": "adass_application",
    "dpia": "dpia_sign_off", "council_governance": "council_application",
    "capacity_and_capability": "local_information_pack", "data_sharing": "agreement",
    "letter_of_access": "research_passport", "green_light": "sponsor_check",
}  # fmt: skip
_STUDY_STEPS = [
    ("rec", "submitted", "2016-11-10"), ("rec", "valid", "2016-11-16"), ("rec", "requested", "2016-12-14"),
    ("rec", "answered", "2017-01-09"), ("rec", "granted", "2017-02-06"),
    ("hra", "submitted", "2016-11-10"), ("hra", "granted", "2017-02-14"),
    ("adass", "submitted", "2016-11-21"), ("adass", "granted", "2017-01-30"),
    ("dpia", "submitted", "2016-12-01"), ("dpia", "granted", "2017-01-16"),
    ("cag", "submitted", "2017-05-02"), ("cag", "valid", "2017-05-09"), ("cag", "requested", "2017-06-20"),
]  # fmt: skip
_UNSENT = {("data_sharing", "somerset"), ("data_sharing", "sheffield"), ("green_light", "tower_hamlets")}


def record(
    name: str, approval: str, on: date | str, site_id: str = "", body_id: str = "", **more: Any
) -> ApprovalEvent:
    fields = {"approval": approval, "site_id": site_id, "body_id": body_id, "occurred_on": on, "requested_by": BY}
    if name in ("submitted", "resubmitted"):
        fields["route"] = more.pop("route", _ROUTES[approval])
    return ENTRY_STEPS[name](**fields, **more)


def tell_in_time(told: Iterable[Event], late: dict[str, date] | None = None) -> Events:
    """A ledger in which each event was recorded at noon of its day, some (by key) later than that."""
    told = sorted(told, key=lambda event: event.occurred_on)
    events = tell(*told)
    days = {event.key: (late or {}).get(event.key, event.occurred_on) for event in told}
    tables = {}
    for kind, table in events.tables.items():
        moments = [datetime.combine(days[str(key)], time(12), UTC) for key in table["key"].to_pylist()]
        place = table.schema.get_field_index("recorded_at")
        column = pa.array(moments, pa.timestamp("us", "UTC"))
        tables[kind] = table.set_column(place, table.schema.field("recorded_at"), column)
    return Events(tables, events.head)


def play_study(study: Study) -> list[Event]:
    """The approvals of the IPC study from November 2016 on, staggered: clock stops, a refusal, a lapse, an objection,
    two modifications, people who consent where it is open. Some dates lie after TODAY."""
    chance = random.Random(20170712)
    told: list[Event] = []
    for approval, name, day in _STUDY_STEPS:
        more = {"expires_on": "2018-12-31"} if (approval, name) == ("dpia", "granted") else {}
        told.append(record(name, approval, day, **more))

    def draw(median: float, spread: float) -> int:
        return max(1, round(median * float(np.exp(chance.gauss(0, spread)))))

    for site in study.sites:
        told += _play_site(site.site_id, [(body.id, body.kind) for body in site.bodies], draw)
    told += _play_modifications()
    return told


def _play_site(site_id: str, bodies: list[tuple[str, str]], draw: Any) -> list[Event]:
    told: list[Event] = []
    pace = draw(1_00, 0.25) / 100

    def seek(approval: str, body_id: str, begun: date, median: float, **granted: Any) -> None:
        sent_on = begun + timedelta(days=draw(12, 0.7))
        told.append(record("submitted", approval, sent_on, site_id, body_id))
        days = draw(median * pace, 0.4)
        if days > 60 and approval != "green_light":
            told.append(record("requested", approval, sent_on + timedelta(days=days // 3), site_id, body_id))
            told.append(record("answered", approval, sent_on + timedelta(days=days // 3 + 16), site_id, body_id))
        granted_on = sent_on + timedelta(days=days)
        if (approval, body_id) == ("council_governance", "nottingham_city_council"):
            told.append(record("refused", approval, "2017-06-23", site_id, body_id))
        else:
            told.append(record("granted", approval, granted_on, site_id, body_id, **granted))

    for body_id, kind in bodies:
        if kind == "council":
            seek("council_governance", body_id, date(2017, 2, 8), 75)
        if kind in ("nhs_trust", "ccg"):
            ends = {"expires_on": "2017-07-09"} if body_id == "east_london" and site_id == "luton" else {}
            ends = {"expires_on": "2017-08-02"} if body_id == "sheffield_ccg" else ends
            seek("capacity_and_capability", body_id, date(2017, 2, 15), 60, **ends)
        if kind in ("council", "nhs_trust", "ccg") and ("data_sharing", site_id) not in _UNSENT:
            seek("data_sharing", body_id, date(2017, 3, 1), 65, expires_on=date(2018, 12, 31))
    if ("green_light", site_id) not in _UNSENT:
        seek("green_light", "", date(2017, 2, 20), 9)
    return told


def _play_modifications() -> list[Event]:
    about: dict[str, Any] = {"requested_by": BY}
    first, second = "SA01", "NSA02"
    told: list[Event] = [
        DocumentVersionIssued(occurred_on=date(2016, 11, 10), document=name, version="1.0", approval="rec", **about)
        for name in ("information_sheet", "consent_form", "questionnaire")
    ]
    told += [
        ModificationIntroduced(
            occurred_on=date(2017, 5, 2), modification=first, category="A", is_substantial=True, **about
        ),
        DocumentVersionIssued(
            occurred_on=date(2017, 5, 2), document="information_sheet", version="1.1", modification=first, **about
        ),
        DocumentVersionIssued(
            occurred_on=date(2017, 5, 2), document="consent_form", version="1.1", modification=first, **about
        ),
        record("submitted", "rec", "2017-05-03", modification=first, route="rec_modification"),
        record("valid", "rec", "2017-05-08", modification=first),
        record("granted", "rec", "2017-05-29", modification=first),
        record("submitted", "hra", "2017-05-03", modification=first, route="hra_modification"),
        record("granted", "hra", "2017-06-02", modification=first),
        ModificationSupplied(occurred_on=date(2017, 6, 5), modification=first, **about),
        record("granted", "council_governance", "2017-06-19", "luton", "luton_borough_council", modification=first),
        record(
            "granted",
            "council_governance",
            "2017-06-28",
            "islington",
            "london_borough_of_islington",
            modification=first,
        ),
        record("granted", "capacity_and_capability", "2017-06-21", "luton", "east_london", modification=first),
        record("refused", "capacity_and_capability", "2017-06-30", "luton", "luton_ccg", modification=first),
        ModificationIntroduced(
            occurred_on=date(2017, 6, 26), modification=second, category="C", is_substantial=False, **about
        ),
        DocumentVersionIssued(
            occurred_on=date(2017, 6, 26), document="questionnaire", version="1.1", modification=second, **about
        ),
        record("submitted", "hra", "2017-06-27", modification=second, route="hra_modification"),
    ]
    for n, site_id in enumerate(["luton"] * 7 + ["islington"] * 4, start=1):
        person = {"participant_id": f"{site_id[:3].upper()}-P{n:05d}", "site_id": site_id, **about}
        told.append(ParticipantScreened(occurred_on=date(2017, 7, 3), cohort="mental_health", **person))
        scopes = ("questionnaires",)
        told.append(
            ConsentRecorded(occurred_on=date(2017, 7, 5), form_version="1.0", scopes=scopes, basis="signed", **person)
        )
    return told


@cache
def load_ipc() -> Study:
    return load_study("ipc")


@cache
def play_until(as_of: date = TODAY) -> tuple[Events, Forecast]:
    """The ledger of the played study, with four forecasts on record, and the forecast of the day."""
    study = load_ipc()
    told = play_study(study)
    bare = tell_in_time(told)
    for weeks in (12, 8, 4, 1):
        told += derive_forecast_events(
            forecast_openings(study, bare, as_of - timedelta(weeks=weeks), n_draws=400), "round"
        )
    events = tell_in_time(told)
    return events, forecast_openings(study, events, as_of, n_draws=1000)


def make_incidents(*rows: dict[str, Any]) -> pd.DataFrame:
    """The register (`study.incidents.derive_incidents`), as far as it is shown."""
    days = ["found_on", "assess_by", "next_due_on", "overdue_since"]
    columns = ["incident_id", "site_id", "body_id", "category", "activity", "state", "next_step", "turn", "n_held"]
    frame = pd.DataFrame(rows, columns=[*columns, *days])
    return frame.astype(dict.fromkeys(days, "datetime64[us]") | dict.fromkeys(columns[:-1], "str"))


def make_deadlines(*rows: dict[str, Any]) -> pd.DataFrame:
    """Deadlines (`study.deadlines.derive_deadlines`)."""
    columns = ["kind", "title", "site_id", "body_id", "approval", "modification", "owner", "uid"]
    frame = pd.DataFrame(rows, columns=["on", *columns, "is_overdue"])
    frame[columns] = frame[columns].astype(object).fillna("")
    return frame.astype({"on": "datetime64[us]", "is_overdue": "bool"} | dict.fromkeys(columns, "str"))


LATE_INCIDENT = {
    "incident_id": "luton-I0001", "site_id": "luton", "body_id": "east_london", "category": "collected_while_not_open",
    "activity": "approach", "state": "open", "next_step": "assess", "turn": "sponsor", "n_held": 0,
    "found_on": "2017-07-03", "assess_by": "2017-07-10", "next_due_on": "2017-07-10", "overdue_since": "2017-07-11",
}  # fmt: skip
DUTIES = [
    {"on": "2017-07-05", "kind": "duty", "title": "Progress report to the funder", "owner": "project_manager",
     "is_overdue": True, "uid": "a"},
    {"on": "2017-08-02", "kind": "expiry", "title": "Confirmation of capacity and capability", "site_id": "sheffield",
     "body_id": "sheffield_ccg", "approval": "capacity_and_capability", "owner": "project_manager",
     "is_overdue": False, "uid": "b"},
]  # fmt: skip


@pytest.fixture(scope="module")
def position() -> Position:
    study = load_ipc()
    events, forecast = play_until()
    return derive_position(study, events, TODAY, forecast, make_deadlines(*DUTIES), make_incidents(LATE_INCIDENT))


def find_site(position: Position, site_id: str) -> SitePosition:
    return next(site for site in position.sites if site.site_id == site_id)


def take_position(*told: Event, as_of: date, late: dict[str, date] | None = None) -> Position:
    """Of the small study with two sites."""
    study, events = make_study(), tell_in_time(told, late)
    forecast = forecast_openings(study, events, as_of, n_draws=50)
    return derive_position(study, events, as_of, forecast, make_deadlines(), make_incidents())


def open_luton(trust_until: str = "2017-05-31") -> list[Event]:
    """Everything that approaching rests on at Luton, in force from 1 March 2017."""
    told: list[Event] = []
    for approval in ("rec", "adass", "council", "trust", "green_light"):
        ends = {"expires_on": trust_until} if approval == "trust" else {}
        told += [step("submitted", "2017-02-01", approval), step("granted", "2017-03-01", approval, **ends)]
    return told


@pytest.mark.parametrize("day", ["2017-02-28", "2017-03-01", "2017-05-31", "2017-06-01"])
def test_a_site_opens_and_lapses_with_the_gate(day: str) -> None:
    """The day before, first, last, day after."""
    luton = find_site(take_position(*open_luton(), as_of=date.fromisoformat(day)), "luton")
    expected: dict[str, tuple[str, date | None]] = {
        "2017-02-28": ("waiting", None),
        "2017-03-01": ("open", date(2017, 3, 1)),
        "2017-05-31": ("open", date(2017, 3, 1)),
        "2017-06-01": ("suspended", date(2017, 6, 1)),
    }
    standing = luton.standings["approach"]
    assert (standing.state, standing.since) == expected[day]
    assert standing.n_open_bodies == {"waiting": 0, "open": 2, "suspended": 1}[standing.state]


@pytest.mark.parametrize(("day", "is_warned"), [("2017-05-02", False), ("2017-05-03", True), ("2017-05-31", True)])
def test_an_open_site_is_at_risk_four_weeks_before_something_ends(day: str, is_warned: bool) -> None:
    position = take_position(*open_luton(), as_of=date.fromisoformat(day))
    luton = find_site(position, "luton")
    assert bool(luton.risks) == is_warned
    assert [entry.kind for entry in position.urgent if entry.site_ids == ("luton",)][:1] == ["ending"] * is_warned
    if is_warned:
        assert luton.risks == ("Capacity and capability, Luton Trust (Luton) ends on 31 May 2017",)


def test_a_refusal_blocks_until_it_is_sent_in_again() -> None:
    told = [
        *(event for event in open_luton() if getattr(event, "approval", "") != "council"),
        step("submitted", "2017-02-01", "council"),
        step("refused", "2017-03-10", "council"),
    ]
    blocked = take_position(*told, as_of=date(2017, 3, 10))
    assert find_site(blocked, "luton").standings["approach"].state == "blocked"
    assert find_site(blocked, "luton").risks == ()
    assert blocked.urgent[0].kind == "refused"
    assert "refused on 10 March 2017" in blocked.urgent[0].text
    again = take_position(*told, step("resubmitted", "2017-03-11", "council", attempt=2), as_of=date(2017, 3, 11))
    standing = find_site(again, "luton").standings["approach"]
    assert standing.state == "partly_open"
    assert [(body.body_id, body.is_open) for body in standing.bodies] == [
        ("luton_council", False),
        ("luton_trust", True),
    ]


def test_interviews_are_open_where_somebody_may_do_them() -> None:
    told = open_luton()
    assert find_site(take_position(*told, as_of=date(2017, 4, 1)), "luton").standings["interview"].state == "waiting"
    for person_id, expires_on in (("R01", "2017-03-20"), ("R02", "2017-12-31")):
        about = {"person_id": person_id}
        told.append(step("submitted", "2017-03-02", "access", **about))
        told.append(step("granted", "2017-03-10", "access", expires_on=expires_on, **about))
    standing = find_site(take_position(*told, as_of=date(2017, 4, 1)), "luton").standings["interview"]
    assert (standing.state, standing.since, standing.reasons) == ("open", date(2017, 3, 10), ())


def test_changes_are_those_of_the_week_and_what_became_known_in_it() -> None:
    told = open_luton()
    trust = next(event.key for event in told if event.kind == "approval_granted" and "trust" in event.key)

    def list_changes(as_of: str, late: dict[str, date] | None = None) -> list[tuple[str, str]]:
        position = take_position(*told, as_of=date.fromisoformat(as_of), late=late)
        return sorted(
            (change.kind, change.item.approval if change.item else change.activity)
            for change in position.changes
            if change.site_id != "devon"  # where no trust is, interviews rest on the committee alone
        )

    week = [("granted", name) for name in ("adass", "council", "green_light", "rec", "trust")] + [
        ("opened", "approach")
    ]
    assert list_changes("2017-03-01") == week
    assert list_changes("2017-03-07") == week
    assert list_changes("2017-03-08") == []
    assert list_changes("2017-06-01") == [("closed", "approach"), ("expired", "trust")]
    late = {trust: date(2017, 3, 20)}
    assert list_changes("2017-03-26", late) == [("granted", "trust"), ("opened", "approach")]
    assert list_changes("2017-03-27", late) == []


def test_an_entry_that_was_taken_back_is_a_change() -> None:
    told = open_luton()
    granted = tell_in_time(told).frame(ApprovalGranted).set_index("approval")
    wrong = str(granted.loc["trust", "hash"])
    void = Voided(occurred_on=date(2017, 4, 3), requested_by=BY, voids=wrong, reason="entered_in_error")
    position = take_position(*told, void, as_of=date(2017, 4, 4))
    kinds = {(change.kind, change.item.approval if change.item else "") for change in position.changes}
    assert kinds == {("closed", ""), ("taken_back", "trust")}


def test_a_forecast_moves_by_a_week_or_not() -> None:
    study = make_study()
    as_of = date(2017, 2, 20)
    told = [event for event in open_luton() if event.occurred_on < as_of]
    forecast = forecast_openings(study, tell_in_time(told), as_of, n_draws=50)
    for moved in (0, 6, 7):
        recorded = [
            event.model_copy(
                update={
                    "occurred_on": as_of - timedelta(days=7),
                    "median_on": event.median_on and event.median_on - timedelta(days=moved),
                }
            )
            for event in derive_forecast_events(forecast, "round")
        ]
        position = take_position(*told, *recorded, as_of=as_of)
        assert position.was_forecast
        assert [move.n_days for move in position.moves if move.site_id == "luton"] == [7] * (moved == 7)
    assert not take_position(*told, as_of=as_of).was_forecast


def test_what_waits_for_others_is_nobodys_turn() -> None:
    study = make_study()
    day = date(2017, 2, 10)
    lacking = derive_lacking(study, derive_approvals(study, tell(step("submitted", "2017-02-01")), day))
    told = lacking.loc[lacking["body_id"].str.startswith("luton")].set_index("approval")
    rows = told[["waits_for", "turn", "is_sendable"]].to_dict("index")
    assert list(rows["council"].values()) == ["REC favourable opinion", "", False]
    assert list(rows["trust"].values()) == ["", "applicant", True]
    assert "cag" not in set(lacking["approval"])  # nothing planned rests on it


def test_the_played_study_stands_where_the_story_says(position: Position) -> None:
    luton = find_site(position, "luton")
    assert luton.standings["approach"].state == "suspended"
    assert luton.standings["approach"].since == date(2017, 7, 10)
    assert luton.n_recruited == 7
    assert position.n_recruited == 11
    assert {site.site_id for site in position.find_sites("blocked")} == {"nottingham_city"}
    assert [entry.kind for entry in position.urgent[:3]] == ["lapsed", "refused", "incident_overdue"]
    assert {"ending", "answer_owed", "not_sent", "duty_overdue"} <= {entry.kind for entry in position.urgent}
    assert position.groups == {
        "approach": ("approach", "recruit"),
        "collect_baseline": ("collect_baseline", "collect_follow_up"),
        "link_records": ("link_records",),
        "interview": ("interview",),
    }
    for activity in position.groups:
        assert sum(position.count(state, activity) for state in STATES) == len(position.sites)
    assert position.count("open", "recruit") == position.count("open")
    for site in position.at_risk:
        assert site.standings["approach"].state in ("open", "partly_open", "waiting")


def test_no_sentence_names_an_id(position: Position) -> None:
    study = load_ipc()
    ids = {body.id for site in study.sites for body in site.bodies} | {entry.id for entry in study.pathway.approvals}
    ids = {name for name in ids if "_" in name}
    for entry in position.urgent:
        assert not [name for name in ids if name in entry.text + entry.action]


def test_a_forecast_of_another_day_is_refused() -> None:
    study = load_ipc()
    events, forecast = play_until()
    with pytest.raises(ValueError, match="make one of that day"):
        derive_position(study, events, TODAY + timedelta(days=1), forecast, make_deadlines(), make_incidents())
