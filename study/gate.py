"""The gate: may this activity be done at this site, under this body, by this person, on this day?

Everything that releases or accepts asks here, and nothing decides for itself. The answer is no unless every approval
that the activity names is in force; each that is not gives a reason. A body's approvals close what that body covers:
a question about one body is not answered by another's delay, while a question about a whole site asks all its bodies.
A person's letters are asked for where the activity names them; nobody named is then a reason too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from study.approval_steps import ITEM, Item, derive_known_spells, list_items
from study.approvals import derive_approvals
from study.instruments import find_suggestion
from study.pathway import ACTIVITIES
from study.protocol import Study
from study.state import Events, remembered


class Reason(NamedTuple):
    """Why not. `state`: that of the approval, or not_planned, unknown_activity, unknown_site, unknown_body or
    person_not_named; `item` is None for those."""

    state: str
    text: str
    item: Item | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Yes, or no with every reason."""

    reasons: tuple[Reason, ...] = ()

    @property
    def is_allowed(self) -> bool:
        return not self.reasons


@dataclass(frozen=True)
class Gate:
    """The approvals of a study at the end of one day, ready for questions. `approvals`: as from `derive_approvals`."""

    study: Study
    on: date
    approvals: pd.DataFrame

    @cached_property
    def _rows(self) -> dict[Item, Any]:
        rows = self.approvals.itertuples(index=False)
        return {Item.of(row): row for row in rows}

    def ask(self, activity: str, site_id: str, body_id: str = "", person_id: str = "") -> Answer:
        """Whether an activity may be done; without `body_id` under every body of the site."""
        items, reasons = _find_required(self.study, activity, site_id, body_id, person_id)
        return Answer((*reasons, *(reason for item in items if (reason := self._find_reason(item)) is not None)))

    def _find_reason(self, item: Item) -> Reason | None:
        row = self._rows.get(item)
        if row is None:  # a person of whom nothing was recorded yet
            return Reason("not_sought", f"{item}: not sought yet.", item)
        if row.is_in_force:
            return None
        text = {
            "not_sought": "not sought yet",
            "submitted": f"submitted on {_show(row.submitted_on)}, not granted yet",
            "valid": f"valid since {_show(row.valid_on)}, not granted yet",
            "information_requested": "waits for an answer to a request for information",
            "granted": f"granted, but in force only from {_show(row.in_force_from)}",
            "granted_with_conditions": f"granted, but {row.n_conditions_open} of its conditions must still be met",
            "refused": f"refused on {_show(row.decided_on)}",
            "withdrawn": f"withdrawn on {_show(row.withdrawn_on)}",
            "expired": f"expired: {_show(row.in_force_until)} was its last day",
        }[row.state]
        return Reason(row.state, f"{item}: {text}.", item)


def open_gate(study: Study, events: Events, on: date) -> Gate:
    """The gate as it stands on a day, from the ledger (whose own view, if it has one, only narrows further)."""
    return Gate(study, on, derive_approvals(study, events, on))


def derive_open_days(study: Study, events: Events, questions: pd.DataFrame, first: date, last: date) -> pd.DataFrame:
    """The gate's answers for many days at once, in one fold.

    In: `questions` with the columns activity, site_id, body_id, person_id ('' as for `Gate.ask`). Out: one row per
    question, its index kept, one column per day (Timestamps, `first` to `last`), True where it may be done. Of each day
    it says what `Gate.ask` says of it with the ledger up to then.
    """
    days = pd.date_range(first, last, freq="D")
    columns = ["activity", "site_id", "body_id", "person_id"]
    required = [_find_required(study, *row) for row in questions[columns].itertuples(index=False, name=None)]
    in_force: dict[Item, np.ndarray[Any, np.dtype[np.bool_]]] = {}
    if wanted := {item for items, _ in required for item in items}:  # an activity that needs nothing asks for no fold
        in_force = _find_days_in_force(_list_spells(study, events, last), wanted, days)
    never = np.zeros(len(days), bool)
    answers = np.ones((len(questions), len(days)), bool)
    for answer, (items, reasons) in zip(answers, required, strict=True):
        if reasons:
            answer[:] = False
        for item in items:
            answer &= in_force.get(item, never)
    return pd.DataFrame(answers, index=questions.index, columns=days)


def find_run_start(answers: Any, first: date) -> date:
    """The first day of the run of yes that the last day is in; `answers`: those of successive days from `first`."""
    closed = np.flatnonzero(~answers)
    return first + timedelta(days=int(closed[-1]) + 1 if len(closed) else 0)


@remembered
def _list_spells(study: Study, events: Events, as_of: date) -> dict[Item, list[tuple[Any, Any]]]:
    """The first and the last day of each spell that an item was in force, by item."""
    spells = derive_known_spells(study, events, as_of)
    bounds = zip(spells["from_on"].to_numpy(), spells["until_on"].to_numpy(), strict=True)
    found: dict[Item, list[tuple[Any, Any]]] = {}
    for key, bound in zip(spells[ITEM].itertuples(index=False, name=None), bounds, strict=True):
        found.setdefault(Item(*key), []).append(bound)
    return found


def _find_days_in_force(
    spells: Mapping[Item, list[tuple[Any, Any]]], items: Iterable[Item], days: pd.DatetimeIndex
) -> dict[Item, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Of each of these items that was ever in force: on which of these days."""
    stamps = days.to_numpy()
    return {
        item: np.logical_or.reduce([(stamps >= from_on) & (stamps <= until_on) for from_on, until_on in spells[item]])
        for item in items
        if item in spells
    }


def _find_required(
    study: Study, activity: str, site_id: str, body_id: str, person_id: str
) -> tuple[list[Item], list[Reason]]:
    """The items that must be in force, and what makes the question itself end in no. The one place that decides."""
    needs = study.pathway.find_needs(activity)
    if needs is None and activity in ACTIVITIES:
        return [], [Reason("not_planned", f"{activity}: the study's approvals.toml does not plan this activity.")]
    if needs is None:
        hint = find_suggestion(activity, ACTIVITIES)
        return [], [Reason("unknown_activity", f'"{activity}" is no activity.{hint}')]
    site = study.find_site(site_id)
    if site is None:
        hint = find_suggestion(site_id, [site.site_id for site in study.sites])
        return [], [Reason("unknown_site", f'"{site_id}" is no site of {study.study_id}.{hint}')]
    if body_id and all(body.id != body_id for body in site.bodies):
        hint = find_suggestion(body_id, [body.id for body in site.bodies])
        return [], [Reason("unknown_body", f'"{body_id}" is no body at {site.name}.{hint}')]
    required: list[Item] = []
    reasons: list[Reason] = []
    for approval in (entry for entry in study.pathway.approvals if entry.id in needs):
        items = [item for item, needed in list_items(study, approval, [site], body_id, [person_id]) if needed]
        if approval.level == "person" and not person_id and items:
            reasons.append(
                Reason("person_not_named", f"{approval.id}: {activity} needs it of each person, and nobody is named.")
            )
        else:
            required += items
    return required, reasons


def _show(day: pd.Timestamp) -> str:
    return "an unknown day" if pd.isna(day) else f"{day:%Y-%m-%d}"
