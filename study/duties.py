"""What the study owes others by a day: reports, uploads, notices, the destruction of data.

Days are counted afresh each time from what a duty counts from, so a date that is corrected moves them. Months are
counted from that day and clipped to the end of a shorter month (31 January, monthly: 28 February, 31 March). A day that
falls on a weekend or a bank holiday stays where it is, since the rule or the contract names the day.

Two judgement calls. A duty that counts from an approval of bodies is owed once for each site, from the first day on
which one of them was in force there. And what was done stays done: where a due day moved by up to a month, what was
recorded for the old day counts for the new one; nobody is asked for a report again because a date was corrected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from typing import Any

import pandas as pd

from study.approval_steps import DAY, derive_known_spells
from study.calendar import Period, add_months, add_period
from study.events import DutyDone
from study.instruments import find_suggestion
from study.pathway import Duty
from study.protocol import Study
from study.state import Events, remembered

DUTY_STATES = ("done", "overdue", "due", "coming")
DUE_WITHIN_DAYS = 30
_HORIZON_MONTHS = 15 * 12
_MOVED_BY_DAYS = 31

_COLUMNS = [
    *("duty", "label", "to", "owner", "site_id", "n", "due_on", "done_on", "letter", "state", "overdue_since"),
    "days_left",
]


@remembered
def derive_duties(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """Every time at which a duty falls due, done or not, at the end of a day: in the order of the pathway, then by site
    and day.

    The first time of a duty is always there; it comes again until its `until`, that day included, but not later than 15
    years after `as_of`. A duty that counts from an approval has no rows before that came into force.

    Columns: duty, label, to, owner (a role), site_id ('' unless it counts from an approval of sites or bodies), n (1,
    2, ...; 0 for something that was done for a day that is no due day, or none any more), due_on, done_on (NaT),
    letter, state (one of DUTY_STATES; "due": today or within 30 days), overdue_since (the day after due_on, once that
    has come) and days_left (calendar days; negative once overdue, missing once done).
    """
    done: dict[tuple[str, str], dict[date, tuple[Any, str]]] = {}
    told = events.select(as_of=as_of).frame(DutyDone)[["duty", "site_id", "due_on", "occurred_on", "letter"]]
    for duty_id, site_id, due_on, done_on, letter in told.itertuples(index=False, name=None):
        done.setdefault((duty_id, site_id), {})[due_on.date()] = (done_on, letter)
    granted = _find_first_grants(study, events, as_of)
    site_ids = dict.fromkeys(["", *(site.site_id for site in study.sites), *(site_id for _, site_id in done)])
    rows: list[tuple[Any, ...]] = []
    for duty in study.pathway.duties:
        anchors = _find_anchors(study, duty, granted)
        for site_id in site_ids:
            own = done.get((duty.id, site_id), {})
            due_days = _list_due_days(study, duty, anchors[site_id], as_of) if site_id in anchors else []
            matched = _match_done(due_days, own)
            times = [(day, n, *own.get(matched.get(day, date.min), (pd.NaT, ""))) for n, day in enumerate(due_days, 1)]
            times += [(day, 0, *own[day]) for day in own.keys() - matched.values()]
            about = (duty.id, duty.label, duty.to, duty.owner, site_id)
            rows += [
                (*about, n, day, done_on, letter) for day, n, done_on, letter in sorted(times, key=lambda t: t[:2])
            ]
    frame = pd.DataFrame(rows, columns=_COLUMNS[:9])
    texts = dict.fromkeys(("duty", "label", "to", "owner", "site_id", "letter"), "str")
    frame = frame.astype({**texts, "n": "int64", "due_on": DAY, "done_on": DAY})
    left = (frame["due_on"] - pd.Timestamp(as_of)).dt.days.astype("Int64")
    state = pd.Series("coming", frame.index, dtype="str").mask(left <= DUE_WITHIN_DAYS, "due").mask(left < 0, "overdue")
    frame["state"] = state.mask(frame["done_on"].notna(), "done")
    frame["overdue_since"] = (frame["due_on"] + pd.Timedelta(days=1)).where(frame["state"] == "overdue").astype(DAY)
    frame["days_left"] = left.mask(frame["state"] == "done")
    return frame[_COLUMNS]


def _find_first_grants(study: Study, events: Events, as_of: date) -> dict[str, dict[str, date]]:
    """For each approval the first day on which it was in force, by site ('' for the study's own)."""
    if all(duty.approval is None for duty in study.pathway.duties):
        return {}
    spells = derive_known_spells(study, events, as_of)
    spells = spells.loc[(spells["modification"] == "") & (spells["from_on"] <= pd.Timestamp(as_of))]
    first = spells.groupby(["approval", "site_id"], as_index=False)["from_on"].min()
    granted: dict[str, dict[str, date]] = {}
    for approval, site_id, day in first.itertuples(index=False, name=None):
        granted.setdefault(approval, {})[site_id] = day.date()
    return granted


def _find_anchors(study: Study, duty: Duty, granted: Mapping[str, dict[str, date]]) -> dict[str, date]:
    """The days that a duty counts from, by site; '' where it is owed once for the study."""
    if duty.counts_from == "approval":
        return granted.get(duty.approval or "", {})
    days = {
        "study_start": study.starts_on,
        "data_collection_start": study.data_collection_starts_on,
        "data_collection_end": study.data_collection_ends_on,
        "study_end": study.ends_on,
    }
    return {"": days[duty.counts_from]}


def _list_due_days(study: Study, duty: Duty, anchor: date, as_of: date) -> list[date]:
    days = [add_period(anchor, duty.offset)]
    if duty.every is None:
        return days
    until = study.ends_on if duty.until == "study_end" else study.data_collection_ends_on
    until = min(until, add_months(as_of, _HORIZON_MONTHS))
    while True:
        n = len(days)
        months, n_days = duty.offset.months + n * duty.every.months, duty.offset.days + n * duty.every.days
        day = add_period(anchor, Period(months, n_days))
        if day > until:
            return days
        days.append(day)


def _match_done(due_days: Iterable[date], told: Iterable[date]) -> dict[date, date]:
    """For each due day the day that something was recorded as done for: the same, or the nearest within a month."""
    told = sorted(told)
    matched = {day: day for day in due_days if day in told}
    for day in (day for day in told if day not in matched):
        free = [due_on for due_on in due_days if due_on not in matched]
        nearest = min(free, key=lambda due_on: abs(due_on - day), default=None)
        if nearest is not None and abs(nearest - day) <= timedelta(days=_MOVED_BY_DAYS):
            matched[nearest] = day
    return matched


def find_duty_faults(study: Study, events: Events, event: DutyDone, today: date) -> list[str]:
    """Why a duty can't be recorded as done as told: sentences for whoever records it; none if it can.

    `events`: the ledger, without a view. `today`: the date in London.
    """
    duty = study.pathway.find_duty(event.duty)
    if duty is None:
        known = [entry.id for entry in study.pathway.duties]
        hint = find_suggestion(event.duty, known) or f" Known: {', '.join(known) or 'none'}."
        return [f'"{event.duty}" is not under [[duties]] in approvals.toml. Correct it.{hint}']
    faults = []
    if event.occurred_on > today:
        faults.append(f"the date {event.occurred_on} is in the future (today is {today}). Correct the date.")
    duties = derive_duties(study, events, max(today, event.occurred_on))
    own = duties.loc[(duties["duty"] == duty.id) & (duties["n"] > 0)]
    here = own.loc[own["site_id"] == event.site_id, "due_on"]
    if own.empty:
        faults.append(
            f"it counts from the approval {duty.approval}, which has not come into force yet. Record that first."
        )
    elif here.empty:
        faults.append(_tell_site_fault(study, event, own["site_id"].drop_duplicates().tolist()))
    elif not (here == pd.Timestamp(event.due_on)).any():
        nearest = here.iloc[(here - pd.Timestamp(event.due_on)).abs().argmin()]
        faults.append(f"it is not due on {event.due_on}. The nearest day is {nearest.date()}. Correct it.")
    return [f"{event.duty}: {text}" for text in faults]


def _tell_site_fault(study: Study, event: DutyDone, site_ids: list[str]) -> str:
    if site_ids == [""]:
        return f"it is a duty of the study, not of a site ({event.site_id}). Leave the site out."
    if not event.site_id:
        return f"it is due for each site, and no site is named. Name one of: {', '.join(site_ids)}."
    if study.find_site(event.site_id) is None:
        hint = find_suggestion(event.site_id, [site.site_id for site in study.sites])
        return f'"{event.site_id}" is no site of {study.study_id}. Correct it.{hint}'
    return f"it is not due at {event.site_id} yet: the approval that it counts from has not come into force there."
