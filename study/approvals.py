"""Where each approval stands on a day: folded from the ledger, with clocks, deadlines and whose turn it is.

Items and their steps are those of `study/approval_steps.py`. Of several attempts only the latest counts.

How days count: the day after the start is day 1, so "60 calendar days from valid" ends on the 60th day after it. A
request for information stops the clock from the day after it until the day of the answer, that day included. A last day
of force (`expires_on`) is still in force; the day after is not. Nothing is in force before the day on which it was
decided, whatever earlier start a letter gives: on the days before, nobody could rely on it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd

from study.approval_steps import (
    DAY,
    DECISIONS,
    ITEM,
    NO_END,
    STEPS,
    Item,
    derive_attempts,
    derive_spells,
    derive_steps,
    find_category,
    find_clock,
    list_items,
    list_modification_items,
)
from study.calendar import Period, add_period, find_holidays, is_working_day
from study.events import (
    ApprovalEvent,
    ApprovalGranted,
    ApprovalGrantedWithConditions,
    ApprovalRenewed,
    ApprovalResubmitted,
    ApprovalSubmitted,
    ModificationIntroduced,
)
from study.instruments import find_suggestion
from study.pathway import Pathway
from study.protocol import Study
from study.state import Events, remembered

STATE_WORDS = {
    "not_needed": "not needed",
    "not_sought": "not sought yet",
    "submitted": "submitted",
    "valid": "valid, under review",
    "information_requested": "information requested",
    "granted": "granted",
    "granted_with_conditions": "granted, conditions to meet",
    "refused": "refused",
    "withdrawn": "withdrawn",
    "expired": "expired",
}
STATES = tuple(STATE_WORDS)

_NONE = -(10**6)  # a day number that stands for no day
_UNITS = ("calendar", "working")
_WAITING = ("submitted", "valid", "information_requested")
_TURNS = {"submitted": "authority", "valid": "authority"} | dict.fromkeys(
    ("information_requested", "granted_with_conditions", "refused", "expired", "not_sought"), "applicant"
)

Days = np.ndarray[Any, np.dtype[np.int64]]


_COLUMNS = [
    *(*ITEM, "level", "is_needed", "state", "is_in_force", "attempt", "route", "submitted_on", "valid_on"),
    *("decided_on", "withdrawn_on", "in_force_from", "in_force_until", "n_conditions_open", "turn", "turn_since"),
    *("clock_started_on", "clock_unit", "is_stopped", "days_allowed", "days_used", "days_left", "decision_due_on"),
    *("due_on", "overdue_since", "review_due_on", "review_form_due_on"),
]


@remembered
def derive_approvals(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """Where every approval stands at the end of a day: one row per item, in the order of the pathway and the sites.

    Items are those that the pathway gives the study, sought or not, and after them whatever else the ledger has steps
    of (level '', never needed). A person is known once a step names them.

    Columns: approval, site_id, body_id, person_id, modification (''), level, is_needed, state (one of STATES),
    is_in_force, attempt (0 if not sought), route, submitted_on, valid_on, decided_on, withdrawn_on, in_force_from and
    in_force_until (of the statement that counts; NaT for no end), n_conditions_open, turn ("applicant", "authority" or
    ''), turn_since (the day on which the turn began; NaT where it has not: not sought yet), and of the clock:
    clock_started_on, clock_unit ("calendar" or "working"), is_stopped, days_allowed (missing where no limit is
    published), days_used (up to the decision, if there is one), days_left (negative once overdue) and decision_due_on
    (missing while stopped). due_on is the last day of the one whose turn it is; overdue_since the day after it, once
    that has come. review_due_on and review_form_due_on are those of the next periodic review of what was granted.
    """
    steps = derive_steps(study, events, as_of)
    steps = steps.loc[steps["modification"] == ""]
    return derive_standing(study, steps, _list_all_items(study, steps), as_of)


def derive_standing(study: Study, steps: pd.DataFrame, items: pd.DataFrame, as_of: date) -> pd.DataFrame:
    """Where these items stand at the end of a day, by these steps of them: the columns of `derive_approvals`.

    `items`: one row per item, with the columns of an Item, level and is_needed; their order is kept.
    """
    attempts = derive_attempts(steps)
    latest = attempts.loc[~attempts.duplicated(ITEM, keep="last")]
    latest = latest.rename(columns={"in_force_from": "granted_from"}).drop(columns=["begun_on", "expires_on"])
    approvals = items.merge(latest, how="left", on=ITEM)
    approvals["attempt"] = approvals["attempt"].fillna(0).astype("int64")
    approvals["n_conditions_open"] = approvals["n_conditions_open"].fillna(0).astype("int64")
    approvals["route"] = approvals["route"].fillna("").astype("str")
    approvals["decision"] = approvals["decision"].fillna("").astype("str")
    day = pd.Timestamp(as_of)
    spells = derive_spells(steps)
    spells = spells.loc[spells["is_latest"], [*ITEM, "from_on", "until_on"]]
    begun = spells.loc[spells["from_on"] <= day].drop_duplicates(ITEM, keep="last")
    coming = spells.loc[spells["from_on"] > day].drop_duplicates(ITEM)
    counting = pd.concat([begun, coming]).drop_duplicates(ITEM)
    approvals = approvals.merge(counting, how="left", on=ITEM)
    approvals["in_force_from"] = approvals["from_on"]
    approvals["in_force_until"] = approvals["until_on"].where(approvals["until_on"] < NO_END)
    requests = _find_requests(steps, approvals)
    approvals["state"] = _find_states(approvals, requests, day)
    is_within = (approvals["from_on"] <= day) & (day <= approvals["until_on"])
    approvals["is_in_force"] = is_within & (approvals["state"] == "granted")
    approvals["turn"] = approvals["state"].map(_TURNS).fillna("").astype("str")
    approvals["turn_since"] = _find_turn_starts(approvals, requests)
    _add_clocks(study, approvals, requests, as_of)
    _add_reviews(study.pathway, approvals, steps)
    return approvals[_COLUMNS]


def _list_all_items(study: Study, steps: pd.DataFrame) -> pd.DataFrame:
    sought = [Item(*row) for row in steps[ITEM].drop_duplicates().itertuples(index=False, name=None)]
    people: dict[str, dict[str, None]] = {}
    for item in sought:
        people.setdefault(item.approval, {})[item.person_id] = None
    rows: dict[Item, tuple[str, bool]] = {}
    for approval in study.pathway.approvals:
        for item, needed in list_items(study, approval, study.sites, person_ids=people.get(approval.id, ())):
            if approval.level != "person" or item in sought:
                rows[item] = (approval.level, needed)
    for item in sought:
        rows.setdefault(item, ("", False))
    frame = pd.DataFrame([(*item, *about) for item, about in rows.items()], columns=[*ITEM, "level", "is_needed"])
    return frame.astype({**dict.fromkeys([*ITEM, "level"], "str"), "is_needed": "bool"})


@dataclass(frozen=True)
class _Requests:
    """Requests for information of each row's attempt, by number, and the days of their answers."""

    asked: Days
    answered: Days

    @property
    def is_open(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        is_waiting: np.ndarray[Any, np.dtype[np.bool_]] = ((self.asked != _NONE) & (self.answered == _NONE)).any(axis=1)
        return is_waiting


def _find_requests(steps: pd.DataFrame, approvals: pd.DataFrame) -> _Requests:
    places = approvals[[*ITEM, "attempt"]].assign(place=np.arange(len(approvals)))
    rows = steps.loc[steps["step"].isin(("requested", "answered"))].merge(places, on=[*ITEM, "attempt"])
    numbers = np.unique(rows["number"].to_numpy())
    tables = {
        name: np.full((len(approvals), max(len(numbers), 1)), _NONE, np.int64) for name in ("requested", "answered")
    }
    for name, table in tables.items():
        part = rows.loc[rows["step"] == name]
        table[part["place"].to_numpy(), np.searchsorted(numbers, part["number"].to_numpy())] = _to_days(
            part["occurred_on"]
        )
    return _Requests(tables["requested"], tables["answered"])


def _find_turn_starts(approvals: pd.DataFrame, requests: _Requests) -> pd.Series[Any]:
    asked = _to_dates(np.where(requests.answered == _NONE, requests.asked, _NONE).max(axis=1)).set_axis(approvals.index)
    answered = _to_dates(requests.answered.max(axis=1)).set_axis(approvals.index)
    sent = pd.concat([approvals["submitted_on"], answered], axis="columns").max(axis="columns")
    state = approvals["state"]
    since = sent.where(approvals["turn"] == "authority", approvals["decided_on"])
    since = since.mask(state == "information_requested", asked)
    since = since.mask(state == "expired", approvals["until_on"] + pd.Timedelta(days=1))
    return since.where(approvals["turn"] != "").astype(DAY)


def _find_states(approvals: pd.DataFrame, requests: _Requests, day: pd.Timestamp) -> pd.Series[Any]:
    decision = approvals["decision"]
    is_over = ~((day < approvals["from_on"]) | (day <= approvals["until_on"]))
    choices = [
        (approvals["withdrawn_on"].notna(), "withdrawn"),
        (decision == "refused", "refused"),
        (decision.isin(DECISIONS[:2]) & (approvals["n_conditions_open"] > 0), "granted_with_conditions"),
        (decision.isin(DECISIONS[:2]) & is_over, "expired"),
        (decision.isin(DECISIONS[:2]), "granted"),
        (requests.is_open, "information_requested"),
        (approvals["valid_on"].notna(), "valid"),
        (approvals["submitted_on"].notna(), "submitted"),
        (~approvals["is_needed"], "not_needed"),
    ]
    conditions = [np.asarray(condition, dtype=bool) for condition, _ in choices]
    found = np.select(conditions, [state for _, state in choices], "not_sought")
    return pd.Series(found, approvals.index, dtype="str")


# Clocks -------------------------------------------------------------------------------------------------------------


class _DayCounter:
    """Counts calendar and working days for whole columns of day numbers (days since 1970) between two days."""

    def __init__(self, first: int, last: int, holidays: Container[date]) -> None:
        self.first = first
        epoch = date(1970, 1, 1)
        days = [epoch + timedelta(days=n) for n in range(first, last + 1)]
        worked = np.fromiter((is_working_day(day, holidays) for day in days), np.int64, len(days))
        self.totals = np.stack([np.arange(len(days), dtype=np.int64), np.cumsum(worked)])

    def count(self, unit: Days, after: Days, until: Days) -> Days:
        """Days later than `after`, up to and including `until`; 0 if `until` is not later."""
        counted: Days = self.totals[unit, until - self.first] - self.totals[unit, after - self.first]
        return np.maximum(counted, 0)

    def add(self, unit: Days, day: Days, n_days: Days) -> Days:
        """The n-th counted day after `day`; `day` itself for none."""
        result = day.copy()
        for place, totals in enumerate(self.totals):
            rows = (unit == place) & (n_days > 0)
            wanted = totals[day[rows] - self.first] + n_days[rows]
            result[rows] = np.searchsorted(totals, wanted) + self.first
        return result


def _to_days(column: pd.Series[Any]) -> Days:
    """Day numbers; _NONE where there is no day."""
    days = column.astype("datetime64[s]").to_numpy().astype("datetime64[D]")
    return np.where(np.isnat(days), _NONE, days.astype(np.int64))


def _to_dates(days: Days) -> pd.Series[Any]:
    dates = pd.Series(np.where(days == _NONE, 0, days).astype("datetime64[D]").astype(DAY))
    return dates.where(days != _NONE)


def _add_clocks(study: Study, approvals: pd.DataFrame, requests: _Requests, as_of: date) -> None:
    """Add the columns of the clock. One pass over the numbers of requests, each for all rows."""
    n_rows = len(approvals)
    submitted, valid = _to_days(approvals["submitted_on"]), _to_days(approvals["valid_on"])
    clocks = [
        find_clock(study.pathway, route, *(None if pd.isna(on) else on.date() for on in days))
        for route, *days in approvals[["route", "submitted_on", "valid_on"]].itertuples(index=False, name=None)
    ]

    def collect(field: str) -> Days:
        values = (getattr(clock, field, None) for clock in clocks)
        return np.fromiter((_NONE if value is None else value for value in values), np.int64, n_rows)

    allowed, after_answer = collect("days"), collect("after_answer_days")
    n_stops = collect("n_stops")
    n_stops = np.where(n_stops == _NONE, 10**6, n_stops)
    unit = np.array([_UNITS.index(clock.unit) if clock else 0 for clock in clocks], np.int64)
    from_valid = np.array([clock is not None and clock.starts == "valid" for clock in clocks], bool)
    start = np.where(from_valid, valid, submitted)
    is_running = start != _NONE
    today = (as_of - date(1970, 1, 1)).days
    end = np.full(n_rows, today, np.int64)
    for column in ("decided_on", "withdrawn_on"):
        days = _to_days(approvals[column])
        end = np.where(days == _NONE, end, np.minimum(end, days))
    limits = ("days", "after_answer_days", "answer_days", "mending_days", "validation_days")
    longest = max(int(collect(field).max(initial=0)) for field in limits)
    known = np.concatenate([days[days != _NONE] for days in (submitted, valid, requests.asked, requests.answered, end)])
    first, last = int(known.min(initial=today)), int(known.max(initial=today))
    counter = _DayCounter(first - 1, last + 2 * max(longest, 0) + 60, find_holidays(study.bank_holidays))

    here = np.where(is_running, start, first)
    end = np.maximum(end, here)
    used, counted_stops = np.zeros(n_rows, np.int64), np.zeros(n_rows, np.int64)
    due = np.full(n_rows, _NONE, np.int64)
    is_stopped, is_in_review = np.zeros(n_rows, bool), np.zeros(n_rows, bool)
    last_asked, last_mended = np.full(n_rows, _NONE, np.int64), submitted.copy()
    for asked, answered in zip(requests.asked.T, requests.answered.T, strict=True):
        is_asked, is_answered = asked != _NONE, answered != _NONE
        concerns_review = is_asked & is_running & (asked >= start) & (~is_answered | (answered > start))
        is_in_review = np.where(is_asked & ~is_answered, concerns_review, is_in_review)
        last_asked = np.where(is_asked & ~is_answered, asked, last_asked)
        last_mended = np.where(is_answered & ~concerns_review, np.maximum(last_mended, answered), last_mended)
        stops = concerns_review & (counted_stops < n_stops) & ~is_stopped & (asked <= end)
        counted_stops += concerns_review
        stopped_on = np.where(stops, np.maximum(asked, here), here)
        until_then = counter.count(unit, here, stopped_on)
        was_due = stops & (due == _NONE) & (allowed != _NONE) & (used + until_then >= allowed)
        due = np.where(was_due, counter.add(unit, here, np.where(was_due, allowed - used, 0)), due)
        used = used + until_then
        goes_on = stops & is_answered & (answered <= end)
        is_stopped |= stops & ~goes_on
        here = np.where(goes_on, np.maximum(answered, here), here)
        starts_anew = goes_on & (after_answer != _NONE)
        used, allowed = np.where(starts_anew, 0, used), np.where(starts_anew, after_answer, allowed)
        due = np.where(starts_anew, _NONE, due)
    is_counting = is_running & ~is_stopped
    falls_due = is_counting & (due == _NONE) & (allowed != _NONE)
    due = np.where(falls_due, counter.add(unit, here, np.where(falls_due, allowed - used, 0)), due)
    used = used + np.where(is_counting, counter.count(unit, here, np.maximum(end, here)), 0)

    state = approvals["state"]
    is_open = state.isin(_WAITING).to_numpy()
    mended_due = _add_days(counter, collect("mending_days"), last_asked, unit * 0)
    answer_due = np.where(is_in_review, _add_days(counter, collect("answer_days"), last_asked, unit * 0), mended_due)
    validation_unit = np.array([_UNITS.index(clock.validation_unit) if clock else 0 for clock in clocks], np.int64)
    found_valid_due = _add_days(counter, collect("validation_days"), last_mended, validation_unit)
    due = np.where(is_open, due, _NONE)
    due_of_turn = np.where(state == "information_requested", answer_due, due)
    due_of_turn = np.where((state == "submitted") & (due == _NONE), found_valid_due, due_of_turn)
    due_of_turn = np.where(is_open, due_of_turn, _NONE)
    approvals["clock_started_on"] = _to_dates(start)
    approvals["clock_unit"] = pd.Series(np.where(is_running, np.array(_UNITS)[unit], ""), dtype="str")
    approvals["is_stopped"] = is_stopped & is_open
    approvals["days_allowed"] = pd.Series(allowed, dtype="Int64").mask(~is_running | (allowed == _NONE))
    approvals["days_used"] = pd.Series(used, dtype="Int64").mask(~is_running)
    approvals["days_left"] = (approvals["days_allowed"] - approvals["days_used"]).mask(~is_open)
    approvals["decision_due_on"] = _to_dates(due)
    approvals["due_on"] = _to_dates(due_of_turn)
    is_late = (due_of_turn != _NONE) & (due_of_turn < today)
    approvals["overdue_since"] = _to_dates(np.where(is_late, due_of_turn + 1, _NONE))


def _add_days(counter: _DayCounter, n_days: Days, after: Days, unit: Days) -> Days:
    """So many days after a day; _NONE where either is not known."""
    is_known = (n_days != _NONE) & (after != _NONE)
    base = np.where(is_known, after, counter.first)
    return np.where(is_known, counter.add(unit, base, np.where(is_known, n_days, 0)), _NONE)


def _add_reviews(pathway: Pathway, approvals: pd.DataFrame, steps: pd.DataFrame) -> None:
    """The n-th review is due on the n-th anniversary of the decision; each renewal is a review that was passed."""
    renewed = steps.loc[steps["step"] == "renewed"].groupby([*ITEM, "attempt"]).size()
    reviews: list[date | None] = []
    forms: list[date | None] = []
    rows = approvals[[*ITEM, "attempt", "state", "decided_on"]].itertuples(index=False, name=None)
    for *item, attempt, state, decided_on in rows:
        approval = pathway.find_approval(item[0])
        every = approval.review_every if approval else None
        if approval is None or every is None or state not in ("granted", "granted_with_conditions"):
            reviews.append(None)
            forms.append(None)
            continue
        n = 1 + int(renewed.get((*item, attempt), 0))
        review_on = add_period(decided_on.date(), Period(months=every.months * n, days=every.days * n))
        before = approval.review_form_before
        reviews.append(review_on)
        forms.append(add_period(review_on, Period(-before.months, -before.days)) if before else None)
    approvals["review_due_on"] = pd.Series(reviews, dtype=DAY)
    approvals["review_form_due_on"] = pd.Series(forms, dtype=DAY)


# Recording ----------------------------------------------------------------------------------------------------------


def find_recording_faults(
    study: Study, events: Events, event: ApprovalEvent, today: date, steps: pd.DataFrame | None = None
) -> list[str]:
    """Why a step can't be recorded as told: sentences for whoever records it; none if it can.

    `events`: the ledger, without a view. `today`: the date in London. `steps`: those of the ledger by `derive_steps`,
    if the caller has them. A step that another person told with another date is no fault here: it has the same key, so
    the ledger answers "conflict" and keeps what stands.
    """
    faults = find_telling_faults(study, events, event, today)
    item = Item.of(event)
    if find_place_faults(study, item):
        return faults
    if steps is None:
        steps = derive_steps(study, events, max(today, event.occurred_on))
    own = steps.loc[(steps[ITEM] == list(item)).all(axis="columns") & (steps["key"] != event.key)]
    return [*faults, *(f"{item}: {text}" for text in _find_order_faults(event, STEPS[type(event)], own))]


def find_telling_faults(study: Study, events: Events, event: ApprovalEvent, today: date) -> list[str]:
    """What is wrong with a step in itself, whatever else is on record of its item: place, date, route, term."""
    item = Item.of(event)
    faults = find_place_faults(study, item)
    if not faults:
        if event.modification:
            faults += _find_modification_faults(study, events, event, item)
        if event.occurred_on > today:
            faults.append(f"the date {event.occurred_on} is in the future (today is {today}). Correct the date.")
        faults += _find_term_faults(study, events, event)
    return [f"{item}: {text}" for text in faults]


def _find_modification_faults(study: Study, events: Events, event: ApprovalEvent, item: Item) -> list[str]:
    """Whether there is such a modification, and whether it concerns the place."""
    introduced = events.frame(ModificationIntroduced)
    faults = find_unknown_modification(introduced, event.modification, event.occurred_on)
    category, is_substantial = find_category(events, event.modification)
    if category and not any(found == item for found, _ in list_modification_items(study, introduced)):
        called = f"a {'' if is_substantial else 'non-'}substantial modification of category {category}"
        faults.append(
            f"{called} is not put to it, or not to this body. See [[routes]] with for_modifications in approvals.toml, "
            "and the bodies with which the modification was introduced."
        )
    return faults


def find_unknown_modification(introduced: pd.DataFrame, modification: str, on: date) -> list[str]:
    """Why nothing can be told of a modification on a day: it is not on record, or only later."""
    rows = introduced.loc[introduced["modification"] == modification, "occurred_on"]
    if rows.empty:
        known = introduced["modification"].tolist()
        hint = find_suggestion(modification, known) or f" Known: {', '.join(known) or 'none'}."
        return [f'"{modification}" is no modification on record. Record that it was introduced first.{hint}']
    first_on = rows.iloc[0].date()
    if on < first_on:
        return [f"{on} is before modification {modification} was introduced ({first_on}). Correct one of them."]
    return []


def find_place_faults(study: Study, item: Item) -> list[str]:
    """Why the study has no such item: an approval, a site or a body that is not there, or not for one another."""
    pathway = study.pathway
    approval = pathway.find_approval(item.approval)
    if approval is None:
        known = [entry.id for entry in pathway.approvals]
        hint = find_suggestion(item.approval, known) or f" Known: {', '.join(known) or 'none'}."
        return [f"no such approval is in the pathway of {study.study_id}. Correct it.{hint}"]
    expected = {
        "site_id": approval.level != "study",
        "body_id": approval.level in ("body", "person"),
        "person_id": approval.level == "person",
    }
    faults = []
    for field, is_expected in expected.items():
        called = field.removesuffix("_id")
        if is_expected and not getattr(item, field):
            faults.append(f"the approval is one of each {approval.level}, and no {called} is named. Name the {called}.")
        if not is_expected and getattr(item, field):
            faults.append(f"the approval is one of the {approval.level}, not of a {called}. Leave the {called} out.")
    if faults or approval.level == "study":
        return faults
    site = study.find_site(item.site_id)
    if site is None:
        known = [entry.site_id for entry in study.sites]
        hint = find_suggestion(item.site_id, known) or f" Known: {', '.join(known)}."
        return [f'"{item.site_id}" is no site of {study.study_id}. Correct it.{hint}']
    if approval.level == "site":
        return []
    body = next((body for body in site.bodies if body.id == item.body_id), None)
    if body is None:
        known = [body.id for body in site.bodies]
        hint = find_suggestion(item.body_id, known) or f" Known: {', '.join(known)}."
        return [f"{item.body_id} is no body at {site.name}. Correct it, or add it to the site's file.{hint}"]
    if body.kind not in approval.body_kinds:
        kinds = ", ".join(approval.body_kinds)
        return [
            f'{body.name} is a body of kind "{body.kind}", and the approval is for {kinds}. Correct one of the two.'
        ]
    return []


def _find_term_faults(study: Study, events: Events, event: ApprovalEvent) -> list[str]:
    """What is wrong with the route, or with the first and last day of force."""
    faults = []
    if isinstance(event, ApprovalSubmitted | ApprovalResubmitted):
        category, is_substantial = find_category(events, event.modification)
        routes = study.pathway.find_routes(event.approval, event.occurred_on, category, is_substantial)
        possible = [route.id for route in routes]
        if event.route not in possible:
            hint = find_suggestion(event.route, possible) or f" Possible: {', '.join(possible) or 'none'}."
            faults.append(f'route "{event.route}" is not open to it on {event.occurred_on}. Correct it.{hint}')
    if isinstance(event, ApprovalGranted | ApprovalGrantedWithConditions | ApprovalRenewed):
        start = event.in_force_from or event.occurred_on
        approval = study.pathway.find_approval(event.approval)
        if event.expires_on is None:
            if approval is not None and approval.must_state_expiry:
                faults.append("it has no last day of force, which this approval must state. Add it from the letter.")
        elif event.expires_on < start:
            faults.append(f"its last day of force ({event.expires_on}) is before its first ({start}). Correct one.")
    return faults


# What must have been recorded before a step, with a date that is not later: any one of the steps named.
_REQUIRED = {
    "valid": ("submitted",),
    "requested": ("submitted",),
    "answered": ("requested",),
    "granted": ("submitted",),
    "granted_with_conditions": ("submitted",),
    "refused": ("submitted",),
    "condition_met": ("granted_with_conditions",),
    "renewed": ("granted", "granted_with_conditions"),
    "withdrawn": ("submitted",),
}
# What can't come after a step of the same attempt.
_CLOSED_BY = {
    "valid": ("granted", "granted_with_conditions", "refused"),
    "requested": ("granted", "granted_with_conditions", "refused"),
    "answered": ("granted", "granted_with_conditions", "refused"),
    "renewed": ("refused",),
    "condition_met": ("refused",),
}
_WORDS = {
    "valid": "found valid",
    "requested": "asked for information",
    "granted_with_conditions": "granted with conditions",
    "condition_met": "met its condition",
}


def _find_order_faults(event: ApprovalEvent, step: str, own: pd.DataFrame) -> list[str]:
    """What the other steps of the item make impossible. `own`: those steps, this one left out."""
    rows = own.loc[own["attempt"] == event.attempt]
    number = getattr(event, "request", getattr(event, "renewal", 0))
    told = f"{_WORDS.get(step, step)} on {event.occurred_on}"
    faults = []

    def find(names: Iterable[str], n: int | None = None) -> pd.DataFrame:
        found = rows.loc[rows["step"].isin(list(names))]
        return found if n is None else found.loc[found["number"] == n]

    def require(before: pd.DataFrame, called: str) -> None:
        if before.empty:
            faults.append(f"{told}, but there is no record that it was {called} before. Record that first.")
        elif before["occurred_on"].min() > pd.Timestamp(event.occurred_on):
            earlier = before["occurred_on"].min().date()
            faults.append(f"{told}, but {called} only on {earlier}. Correct the date of one of them.")

    if step in _REQUIRED:
        names = _REQUIRED[step]
        require(find(names, number if step == "answered" else None), _WORDS.get(names[0], names[0]))
    if step == "requested" and number > 1:
        require(find(("answered",), number - 1), f"answered for the {number - 1}. time")
    if step == "renewed" and number > 1:
        require(find(("renewed",), number - 1), f"renewed for the {number - 1}. time")
    if step == "submitted":
        faults += _find_attempt_faults(event, own, told)
    if step == "condition_met":
        conditions = ";".join(find(("granted_with_conditions",))["conditions"]).split(";")
        if conditions != [""] and event.condition not in conditions:  # type: ignore[attr-defined]  # step says its class
            faults.append(f"no such condition is in the grant ({', '.join(conditions)}). Correct it.")
    faults += _find_later_faults(event, step, rows, told)
    return faults


def _find_later_faults(event: ApprovalEvent, step: str, rows: pd.DataFrame, told: str) -> list[str]:
    """Steps on record that can't stand before this one, or can't stand before it any longer."""
    faults = []
    day = pd.Timestamp(event.occurred_on)
    number = getattr(event, "request", getattr(event, "renewal", 0))
    steps_told: list[Any] = list(rows[["step", "number", "occurred_on"]].itertuples(index=False))
    for row in steps_told:
        other, on = str(row.step), row.occurred_on
        words = f"{_WORDS.get(other, other)} on {on.date()}"
        is_closed = other in _CLOSED_BY.get(step, ()) or other == "withdrawn"
        if is_closed and on < day:
            faults.append(f"{told}, after it was {words}. Correct the date of one of them.")
        closes = step in _CLOSED_BY.get(other, ()) or step == "withdrawn"
        needs = step in _REQUIRED.get(other, ()) and not (step == "requested" and row.number != number)
        follows = (other, step) == ("requested", "answered") and row.number == number + 1
        follows = follows or ((other, step) == ("renewed", "renewed") and row.number == number + 1)
        if (needs or follows) and on < day:
            faults.append(f"{told}, but {words} already. Correct the date of one of them.")
        elif closes and day < on:
            faults.append(f"{told}, but {words}, which is later. Correct the date of one of them.")
    return faults


def _find_attempt_faults(event: ApprovalEvent, own: pd.DataFrame, told: str) -> list[str]:
    """Whether an application can begin this attempt: the one before must be over, and a first one is not a second."""
    if isinstance(event, ApprovalSubmitted) and event.attempt > 1:
        return [f"{told} as attempt {event.attempt}: record it as submitted again (resubmitted)."]
    if event.attempt == 1:
        return []
    before = own.loc[own["attempt"] == event.attempt - 1]
    if before.empty:
        return [f"{told} as attempt {event.attempt}, but there is no attempt {event.attempt - 1}. Correct the attempt."]
    day = pd.Timestamp(event.occurred_on)
    if (before.loc[before["step"].isin(("refused", "withdrawn")), "occurred_on"] <= day).any():
        return []
    spells = derive_spells(before)
    if not spells.empty and spells["until_on"].max() < day:
        return []
    return [
        f"{told} again, but attempt {event.attempt - 1} was neither refused nor withdrawn, nor had it expired, by "
        "then. Record that first, or correct the date."
    ]
