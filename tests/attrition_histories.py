"""The ledger of the pilot trial as its sites knew it, without flows: for tests of what is counted in it."""

from collections.abc import Iterable, Mapping
from datetime import date
from functools import cache
from typing import Any

import pandas as pd

from rehearsal.pilot_source import read_source
from study.attrition import ROW_COLUMNS
from study.events import (
    ConsentRecorded,
    DispositionRecorded,
    Event,
    ParticipantAllocated,
    ParticipantScreened,
    ReturnAccepted,
)
from study.protocol import Study
from study.state import Events
from tasks.definitions import load_study
from tests.approval_histories import tell

END = date(2015, 12, 31)


@cache
def tell_pilot() -> tuple[Study, Events]:
    """The pilot trial's study, and its people, ways of leaving and questionnaires as a ledger."""
    study, source = load_study("cdisc_pilot"), read_source()
    told: list[Event] = []
    for person in source.people.to_dict("records"):
        who = _who(person)
        told.append(ParticipantScreened(**who, occurred_on=person["screened_on"].date(), cohort=person["cohort"]))
        told.append(
            ConsentRecorded(
                **who, occurred_on=person["consented_on"].date(), form_version="1", basis="assumed",
                scopes=("treatment", "questionnaires"), route="self",
            )
        )  # fmt: skip
        if person["arm"]:
            told.append(ParticipantAllocated(**who, occurred_on=person["allocated_on"].date(), arm=person["arm"]))
    for row in source.dispositions.to_dict("records"):
        on = row["left_on"].date()
        told.append(DispositionRecorded(**_who(row), occurred_on=on, scope=row["scope"], reason=row["reason"]))
    items = source.items.assign(is_answered=source.items["response"].notna())
    keys = ["participant_id", "site_id", "visit", "respondent", "instrument", "form", "collected_on"]
    records = items.groupby(keys, sort=False)["is_answered"].agg(n_items="size", n_answered="sum").reset_index()
    for row in records.to_dict("records"):
        wave = study.find_wave(row["visit"])
        if wave is not None:
            told.append(
                ReturnAccepted(
                    **_who(row), occurred_on=row["collected_on"].date(), return_id="pilot", wave=wave.id, version=1,
                    **{name: row[name] for name in ("respondent", "instrument", "form", "n_items", "n_answered")},
                    responses_sha256="a" * 64,
                )
            )  # fmt: skip
    return study, tell(*told)


def _who(row: dict[str, Any]) -> dict[str, Any]:
    return {"site_id": row["site_id"], "participant_id": row["participant_id"], "requested_by": "site:pilot"}


def make_rows(told: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of attrition, one for each of `told`: person, arm, site, cohort, wave, respondent, in (returned), why (not
    expected), reason, kind, left_on, left_kind, completed_on, started_on, last_on, is_over; what is not told is usual.
    """
    rows = []
    for one in told:
        why = one.get("why", "")
        is_in = bool(one.get("in", True)) and not why
        is_missing = not why and not is_in
        reason = one.get("reason", "missed") if is_missing else ""
        kind = one.get("kind", {"awaited": "awaited"}.get(reason, "unexplained")) if is_missing else ""
        rows.append(
            {
                "participant_id": one["person"], "arm": one.get("arm", "a"), "site": one.get("site", "s1"),
                "cohort": one.get("cohort", "older"), "wave": one.get("wave", "w1"),
                "respondent": one.get("respondent", "self"), "started_on": one.get("started_on", "2017-01-01"),
                "opens_on": "2017-06-01", "due_on": one.get("due_on", "2017-07-01"),
                "last_on": one.get("last_on", "2017-08-01"),
                "is_over": one.get("is_over", reason != "awaited" and why != "not_due"), "is_expected": not why,
                "why_not_expected": why, "is_returned": is_in, "is_partial": False,
                "returned_on": "2017-07-01" if is_in else None, "reason": reason, "reason_kind": kind,
                "left_on": one.get("left_on"), "left_reason": one.get("left_reason", ""),
                "left_kind": one.get("left_kind", ""), "completed_on": one.get("completed_on"),
            }
        )  # fmt: skip
    frame = pd.DataFrame(rows, columns=list(ROW_COLUMNS))
    days = [name for name in ROW_COLUMNS if name.endswith("_on")]
    words = [name for name in ROW_COLUMNS if name not in days and not name.startswith("is_")]
    return frame.astype({**dict.fromkeys(days, "datetime64[us]"), **dict.fromkeys(words, "str")})
