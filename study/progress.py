"""How far the fieldwork has come: what is expected, out, in, late and missing, and how it compares with its targets.

A return is "late" while it is out and its day is over, and "missing" once it can no longer come in. A target is reached
in even steps from its first day to its last: that is a yardstick and no forecast.
"""

from __future__ import annotations

from datetime import date, timedelta

import pandas as pd

from study.events import ApproachAnswered, ConsentRecorded, ParticipantApproached, ParticipantScreened, ReturnAccepted
from study.fieldwork import Target
from study.protocol import Study
from study.state import Events, remembered
from study.waves import derive_expected_returns

MATRIX_COLUMNS = [
    *("site_id", "wave", "n_expected", "n_planned", "n_held", "n_out", "n_late", "n_in", "n_partial", "n_missing"),
    *("n_stopped", "n_truncated"),
]
MEASURES = ("approached", "agreed", "consented", "baseline", "follow_up")
MEASURE_WORDS = {
    "approached": "people approached",
    "agreed": "people agreed",
    "consented": "people consented",
    "baseline": "people with a baseline",
    "follow_up": "people with a follow-up",
}


def derive_matrix(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """Site by wave: counts of expected returns (a participant's respondent at a wave), a row for every site and wave.

    Columns: site_id, wave, n_expected (all, less n_stopped and n_truncated), n_planned (their time has not come),
    n_held, n_out (gone out, not in), n_late (of those, past their due day), n_in, n_partial (some of it in), n_missing
    (too late for it now), n_stopped (the participant left before), n_truncated (they would open after the end of data
    collection). n_planned + n_held + n_out + n_in + n_partial + n_missing = n_expected.
    """
    rows = derive_expected_returns(study, events, as_of)
    status = rows["status"]
    is_out, is_planned = status == "released", status == "planned"
    is_truncated = is_planned & rows["is_truncated"].astype("bool")
    flags = pd.DataFrame(
        {
            "site_id": rows["site_id"],
            "wave": rows["wave"],
            "n_expected": (status != "stopped") & ~is_truncated,
            "n_planned": is_planned & ~is_truncated,
            "n_held": status == "held",
            "n_out": is_out,
            "n_late": is_out & (rows["due_on"] < pd.Timestamp(as_of)),
            "n_in": status == "returned",
            "n_partial": status == "partial",
            "n_missing": status == "missed",
            "n_stopped": status == "stopped",
            "n_truncated": is_truncated,
        }
    )
    every = pd.MultiIndex.from_product(
        [[site.site_id for site in study.sites], [wave.id for wave in study.waves]], names=["site_id", "wave"]
    )
    counts = flags.groupby(["site_id", "wave"]).sum().reindex(every, fill_value=0).astype("int64")
    return counts.reset_index()[MATRIX_COLUMNS]


@remembered
def derive_reached(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """Who reached what, once each: measure (one of MEASURES), site_id, participant_id, on (the first day of it).

    Approached: by the approach log, or screened where a site keeps none. A follow-up is the first of any wave.
    """
    events = events.select(as_of=as_of)
    columns = ["site_id", "participant_id", "occurred_on"]
    roles = {wave.id: wave.role for wave in study.waves}
    returns = events.frame(ReturnAccepted, [*columns, "wave"])
    role = returns["wave"].map(roles)
    answered = events.frame(ApproachAnswered)
    approached = pd.concat([events.frame(kind, columns) for kind in (ParticipantApproached, ParticipantScreened)])
    parts = {
        "approached": approached,
        "agreed": answered[answered["outcome"] == "agreed"],
        "consented": events.frame(ConsentRecorded, columns),
        "baseline": returns[role == "baseline"],
        "follow_up": returns[role == "follow_up"],
    }
    told = [
        frame[columns]
        .sort_values("occurred_on", kind="stable")
        .drop_duplicates("participant_id")
        .assign(measure=measure)
        for measure, frame in parts.items()
        if len(frame)
    ]
    if not told:
        return pd.DataFrame(columns=["measure", "site_id", "participant_id", "on"])
    frame = pd.concat(told).rename(columns={"occurred_on": "on"}).sort_values("on", kind="stable")
    return frame[["measure", "site_id", "participant_id", "on"]].reset_index(drop=True)


def derive_curves(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """Each target against what was reached, month by month: measure, site_id ('' for all), on (month ends, and as_of),
    n (reached by then; NA for days to come) and n_target (in even steps from the target's first day to its last).
    """
    reached = derive_reached(study, events, as_of)
    rows = []
    for target in study.fieldwork.targets:
        own = reached[reached["measure"] == target.measure]
        if target.site:
            own = own[own["site_id"] == target.site]
        days = own["on"].sort_values().to_numpy()
        for on in _list_month_ends(target.from_on, target.by, as_of):
            n = int((days <= pd.Timestamp(on).to_datetime64()).sum()) if len(days) else 0
            rows.append((target.measure, target.site, on, n if on <= as_of else None, _compute_target(target, on)))
    frame = pd.DataFrame(rows, columns=["measure", "site_id", "on", "n", "n_target"])
    return frame.astype({"on": "datetime64[s]", "n": "Int64", "n_target": "float64"})


def _compute_target(target: Target, on: date) -> float:
    share = (on - target.from_on).days / (target.by - target.from_on).days
    return target.n * min(max(share, 0.0), 1.0)


def _list_month_ends(first: date, last: date, as_of: date) -> list[date]:
    """The first day, each month's last day up to the last, the last day; and `as_of`, where it lies among them or
    after."""
    days = {first, last}
    day = date(first.year, first.month, 1)
    while day <= last:
        following = date(day.year + day.month // 12, day.month % 12 + 1, 1)
        end = following - timedelta(days=1)
        if first <= end <= last:
            days.add(end)
        day = following
    if as_of >= first:
        days.add(as_of)
    return sorted(days)
