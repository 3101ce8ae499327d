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

from study.events import (
    ApprovalEvent,
    ConsentRecorded,
    DocumentVersionIssued,
    Event,
    ModificationIntroduced,
    ModificationSupplied,
    ParticipantScreened,
)
from study.forecast import Forecast, derive_forecast_events, forecast_openings
from study.protocol import Study
from study.state import Events
from tasks.definitions import load_study
from tests.approval_histories import _STEPS, tell

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


def record(name: str, approval: str, on: date | str, site_id: str = "", body_id: str = "", **more: Any) -> ApprovalEvent:
    fields = {"approval": approval, "site_id": site_id, "body_id": body_id, "occurred_on": on, "requested_by": BY}
    if name in ("submitted", "resubmitted"):
        fields["route"] = more.pop("route", _ROUTES[approval])
    return _STEPS[name](**fields, **more)


def tell_in_time(told: Iterable[Event], late: dict[str, date] | None = None) -> Events:
    """A ledger in which each event was recorded at noon of its day, some (by key) later than that."""
    told = sorted(told, key=lambda event: event.occurred_on)
    events = tell(*told)
    days = {event.key: (late or {}).get(event.key, event.occurred_on) for event in told}
    tables = {}
    for kind, table in events.tables.items():
        moments = [datetime.combine(days[key], time(12), UTC) for key in table["key"].to_pylist()]
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
        record("granted", "council_governance", "2017-06-28", "islington", "london_borough_of_islington", modification=first),
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
        told += derive_forecast_events(forecast_openings(study, bare, as_of - timedelta(weeks=weeks), n_draws=400), "round")
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
    frame[columns] = frame[columns].fillna("")
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
