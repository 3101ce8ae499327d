"""When each site will open: a forecast from how long this study's own approvals have taken.

An item that still needs something goes through steps: "submission" (from the day on which it could be sent in until it
is), "validation" (where the route's clock starts at "valid") and "decision" (until it is in force; clock stops and open
conditions are inside it). How long a step takes is learned for each route and step, over all sites: from completed
steps, from those that still run (they took longer than so far) and from a prior that counts as `weight` cases. The log
of a duration has a location and a scale, and one of three shapes (normal, logistic, smallest extreme value: so the
duration is log-normal, log-logistic or Weibull), and all three are weighed by how well they fit. The location's own
uncertainty is part of the prior's spread, so that without own cases the prior's quartiles come back. Part of that
uncertainty is the pace of the study, which all its steps share: where the first steps took longer than their priors
say, the others are expected to.

Each draw takes one set of such parameters per route and step for all sites, then a duration for every step that is not
over, given that it was not over by now, and passes them through the pathway: an item is sent in after its
`submitted_after` are in force, and not in force before its `granted_after` are. The study's own approvals fall on the
same day at all sites of a draw. `benchmarks/forecast.py` shows how well the dates are calibrated.

Judgement calls. What is in force is taken to stay so; what has expired is sought again, and takes as long as the first
time. What was refused or withdrawn has no date until somebody sends it in again: that is a decision, not a duration
(`hindrance`). A refusal took as long as a decision takes. A grant on the day on which what it waited for came into
force says only that the work took no longer than that; while that is not in force, waiting says nothing. As long as
nothing was sent in by a route, all that could have been counts as one case: it waits for one decision of ours.
Approvals of single persons do not open a site. Modifications do not either, and their durations are not looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property, lru_cache
from graphlib import TopologicalSorter
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import scipy

from study.approval_steps import (
    DAY,
    ITEM,
    STEPS,
    Item,
    derive_attempts,
    derive_spells,
    derive_steps,
    find_clock,
    list_items,
)
from study.calendar import find_holidays, is_working_day
from study.events import ForecastRecorded, Voided
from study.gate import derive_open_days, find_run_start
from study.pathway import Prior
from study.protocol import Study
from study.state import Events

Step = Literal["submission", "validation", "decision"]
Unit = Literal["calendar", "working"]
Numbers = np.ndarray[Any, np.dtype[np.float64]]
Days = np.ndarray[Any, np.dtype[np.int32]]
Places = np.ndarray[Any, np.dtype[np.int64]]

MODEL = "log_scale_three_shapes_1"
"""What made a recorded forecast. Raise the number with any change that moves its dates."""

HORIZON_DAYS = 1096
"""Three years: a date that lies further off than that is not told."""


def _make_default(step: Step, lower: int, median: int, upper: int) -> Prior:
    return Prior(
        route="any",
        step=step,
        lower_quartile=lower,
        median=median,
        upper_quartile=upper,
        unit="calendar",
        weight=1,
        source="No figure is known: a wide guess.",
    )


DEFAULT_PRIORS: Mapping[str, Prior] = {
    "submission": _make_default("submission", 7, 21, 60),
    "validation": _make_default("validation", 2, 5, 14),
    "decision": _make_default("decision", 25, 60, 140),
}
"""For a step of a route that has no prior of its own."""

_NEVER = HORIZON_DAYS + 1  # days are counted from as_of, which is day 0
_LONG_AGO = -(10**6)
_SHARES = (0.1, 0.5, 0.8)
_QUARTILE = NormalDist().inv_cdf(0.75)


class Attempt(NamedTuple):
    """One application and what became of it by now. `submitted_on`: or its first step on record; `granted_on`: when it
    first came into force; `in_force_from`: the start of the statement that counts today or is the next to count;
    `lapsed_on`: the last day, if there is neither. `route` is '' if no submission is on record."""

    item: Item
    attempt: int
    route: str
    submitted_on: date
    valid_on: date | None = None
    refused_on: date | None = None
    withdrawn_on: date | None = None
    granted_on: date | None = None
    in_force_from: date | None = None
    lapsed_on: date | None = None


def list_attempts(study: Study, events: Events, as_of: date) -> list[Attempt]:
    """Every attempt at an approval of the study as first approved, persons' own left out; in the order of the items."""
    steps = derive_steps(study, events, as_of)
    steps = steps.loc[(steps["modification"] == "") & (steps["person_id"] == "")]
    spells = derive_spells(steps)
    day = pd.Timestamp(as_of)
    counting = spells.loc[spells["until_on"] >= day].drop_duplicates([*ITEM, "attempt"])
    bounds = spells.groupby([*ITEM, "attempt"]).agg(granted_on=("from_on", "min"), lapsed_on=("until_on", "max"))
    bounds["in_force_from"] = counting.set_index([*ITEM, "attempt"])["from_on"]
    bounds["lapsed_on"] = bounds["lapsed_on"].where(bounds["in_force_from"].isna())
    attempts = derive_attempts(steps).drop(columns="in_force_from").join(bounds, on=[*ITEM, "attempt"])
    attempts["submitted_on"] = attempts["submitted_on"].fillna(attempts["begun_on"])
    attempts["refused_on"] = attempts["decided_on"].where(attempts["decision"] == "refused")
    columns = list(Attempt._fields[3:])
    days = attempts[columns].astype(object).where(attempts[columns].notna(), None)
    about = attempts[[*ITEM, "attempt", "route"]].itertuples(index=False, name=None)
    return [
        Attempt(Item(*row[: len(ITEM)]), *row[len(ITEM) :], *(on and on.date() for on in told))
        for row, told in zip(about, days.itertuples(index=False, name=None), strict=True)
    ]


# How long a step takes ----------------------------------------------------------------------------------------------


class _Calendar:
    """Counts calendar and working days, all days as numbers from `as_of` (day 0) to the horizon and one more."""

    def __init__(self, study: Study, first: date, as_of: date) -> None:
        self.as_of, self.before = as_of, (as_of - first).days + 1
        holidays = find_holidays(study.bank_holidays)
        days = np.arange(-self.before, _NEVER + 1, dtype=np.int32)
        worked = np.array([is_working_day(as_of + timedelta(days=int(n)), holidays) for n in days])
        self._totals = np.cumsum(worked, dtype=np.int32)
        self._worked_days = np.append(days[worked], np.int32(_NEVER)).astype(np.int32)

    def number(self, on: date) -> int:
        return min((on - self.as_of).days, _NEVER)

    def count(self, unit: Unit, after: int, until: int) -> int:
        """Days later than `after`, up to and including `until`; 0 if `until` is not later."""
        if until <= after:
            return 0
        if unit == "calendar":
            return until - after
        return int(self._totals[until + self.before] - self._totals[after + self.before])

    def add(self, unit: Unit, after: Days, n_days: Days) -> Days:
        """The n-th counted day after a day; the day itself for none."""
        if unit == "calendar":
            later: Days = np.minimum(after + n_days, np.int32(_NEVER))
            return later
        place = self._totals[after + self.before] + n_days - 1
        found = self._worked_days[np.minimum(place, len(self._worked_days) - 1)]
        days: Days = np.where(n_days > 0, found, after)
        return days


_STRAY = 1e-5  # the least likelihood of a case
_LOGISTIC = _QUARTILE / float(np.log(3))
_EXTREME = float(np.log(np.log(4)) - np.log(np.log(4 / 3))) / (2 * _QUARTILE)
_LOG_2 = float(np.log(2))


class _Shape(NamedTuple):
    """A shape of the log of a duration, scaled so that its median is 0 and its quartiles lie as far apart as those of
    the normal."""

    compute_tail: Callable[[Numbers], Numbers]  # the share above a value
    compute_value: Callable[[Numbers], Numbers]  # the inverse


SHAPES: Mapping[str, _Shape] = {
    "normal": _Shape(lambda z: scipy.special.ndtr(-z), lambda tail: -scipy.special.ndtri(tail)),
    "logistic": _Shape(
        lambda z: scipy.special.expit(-z / _LOGISTIC), lambda tail: -_LOGISTIC * scipy.special.logit(tail)
    ),
    "extreme": _Shape(
        lambda z: np.exp(-_LOG_2 * np.exp(np.minimum(_EXTREME * z, 50))),
        lambda tail: np.log(-np.log(tail) / _LOG_2) / _EXTREME,
    ),
}
PACES = np.linspace(-2.5, 2.5, 11)
"""How far a study is from its priors, the same for all steps, in standard deviations."""
SHARE_OF_PACE = 0.6
"""How much of the doubt about a step's location is the study's pace; the rest is its own."""
DOUBT_OF_SCALE = 0.45
"""The standard deviation of the log of a step's scale, for a prior that weighs one case. It and the share of the pace
are the values that kept coverage in bounds over the families of `benchmarks/forecast.py`."""


@dataclass(frozen=True)
class Kinds:
    """The shape and the pace of each draw, the same for all steps. `groups`: the draws of each shape and pace."""

    shapes: tuple[str, ...]
    groups: tuple[tuple[int, int, Places], ...]
    draws: tuple[Places, ...]
    n_draws: int


@dataclass(frozen=True)
class Durations:
    """The distribution of a step's durations in each draw."""

    kinds: Kinds
    location: Numbers
    scale: Numbers

    def draw(self, rng: np.random.Generator, longer_than: float = 0) -> Days:
        """One duration per draw in whole days, given that it is longer than this."""
        tail = 1 - rng.random(self.kinds.n_draws)
        z = (np.log(longer_than) - self.location) / self.scale if longer_than > 0 else None
        for name, draws in zip(self.kinds.shapes, self.kinds.draws, strict=True):
            shape = SHAPES[name]
            part = tail[draws] if z is None else tail[draws] * shape.compute_tail(z[draws])
            tail[draws] = shape.compute_value(np.clip(part, 1e-300, 1 - 1e-15))
        days = np.exp(np.clip(self.location + self.scale * tail, -20, 12))
        return np.maximum(np.floor(days + 0.5), np.ceil(longer_than)).astype(np.int32)


@dataclass(frozen=True)
class Posterior:
    """What is believed of the durations of one step by one route, for each shape and pace (the first two axes):
    `weights` of locations and of logs of scales, and the log of how well shape and pace fit the cases."""

    locations: Numbers
    log_scales: Numbers
    weights: Numbers
    log_fit: Numbers

    def draw(self, kinds: Kinds, rng: np.random.Generator) -> Durations:
        """A location and a scale for each draw, whose shape and pace are given."""
        at = rng.random(kinds.n_draws)
        cells = np.empty(kinds.n_draws, np.int64)
        for shape, pace, draws in kinds.groups:
            total = np.cumsum(self.weights[shape, pace])
            cells[draws] = np.minimum(np.searchsorted(total, at[draws] * total[-1]), len(total) - 1)
        row, column = np.unravel_index(cells, self.weights.shape[2:])
        jitter = rng.random((2, kinds.n_draws)) - 0.5
        location = self.locations[row] + jitter[0] * (self.locations[1] - self.locations[0])
        log_scale = self.log_scales[column] + jitter[1] * (self.log_scales[1] - self.log_scales[0])
        return Durations(kinds, location, np.exp(log_scale))


def learn_durations(
    prior: Prior, cases: Sequence[tuple[float, float]], shapes: Sequence[str] = tuple(SHAPES)
) -> Posterior:
    """What the cases of one step and its prior say of its durations, on a grid of locations and scales.

    `cases`: between which bounds each duration lies, in the prior's unit: a day counted as d is (d - 0.5, d + 0.5), one
    that still runs (d + 0.5, infinity). Any case may be a stray one, so that no slip of a date rules the rest.
    """
    centre = float(np.log(prior.median))
    spread = max(float(np.log(prior.upper_quartile / prior.lower_quartile)) / (2 * _QUARTILE), 0.05)
    usual = float(np.log(spread / np.sqrt(1 + 1 / prior.weight)))
    doubt = DOUBT_OF_SCALE / float(np.sqrt(prior.weight))
    told, n_told = np.unique(np.array(cases, float).reshape(-1, 2), axis=0, return_counts=True)
    low, high = np.log(np.maximum(told[:, 0], 1e-9)), np.log(np.minimum(told[:, 1], 1e9))
    reach = 4 * spread / np.sqrt(prior.weight)
    known = [centre - reach, centre + reach, *low[told[:, 0] > 0], *high[np.isfinite(told[:, 1])]]
    bounds = [(float(min(known)), float(max(known))), (usual - 1.5, usual + 1.5)]
    for _ in range(2):  # the second time only where the first found something
        locations, log_scales = (np.linspace(*bound, n) for bound, n in zip(bounds, (33, 25), strict=True))
        scales = np.exp(log_scales)
        off = (locations[:, None] - centre) / scales * np.sqrt(prior.weight)
        off = (off - np.sqrt(SHARE_OF_PACE) * PACES[:, None, None]) / np.sqrt(1 - SHARE_OF_PACE)
        log_prior = -0.5 * ((log_scales - usual) / doubt) ** 2 - log_scales - 0.5 * off**2
        z_low, z_high = ((bound - locations[:, None, None]) / scales[:, None] for bound in (low, high))
        tails = [(SHAPES[name].compute_tail(z_low), SHAPES[name].compute_tail(z_high)) for name in shapes]
        log_likelihood = np.stack([np.log(above - beyond + _STRAY) @ n_told for above, beyond in tails])
        log_weights = log_likelihood[:, None] + log_prior
        tops = log_weights.max(axis=(2, 3), keepdims=True)
        weights = np.exp(log_weights - tops)
        is_some = weights.max(axis=(0, 1)) > 1e-6
        bounds = [_find_reach(locations, is_some.any(axis=1)), _find_reach(log_scales, is_some.any(axis=0))]
    log_fit = tops[:, :, 0, 0] + np.log(weights.sum(axis=(2, 3)))
    return Posterior(locations, log_scales, weights, log_fit)


@lru_cache(maxsize=128)
def _learn_again(prior: Prior, cases: tuple[tuple[float, float], ...], shapes: tuple[str, ...]) -> Posterior:
    """What was learned of the same cases before: those of most steps are the same from week to week."""
    return learn_durations(prior, cases, shapes)


def draw_kinds(
    posteriors: Iterable[Posterior], rng: np.random.Generator, n_draws: int, shapes: Sequence[str] = tuple(SHAPES)
) -> Kinds:
    """One shape and pace per draw, by how well they fit all steps. Before any case all shapes are as likely."""
    log_fit = np.tile(-(PACES**2) / 2, (len(shapes), 1))
    for posterior in posteriors:
        log_fit = log_fit + posterior.log_fit
    weights = np.exp(log_fit - log_fit.max()).ravel()
    number = rng.choice(len(weights), n_draws, p=weights / weights.sum())
    groups = tuple((*divmod(int(n), len(PACES)), np.flatnonzero(number == n)) for n in np.unique(number))
    draws = tuple(np.flatnonzero(number // len(PACES) == n) for n in range(len(shapes)))
    return Kinds(tuple(shapes), groups, draws, n_draws)


def _find_reach(values: Numbers, is_some: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[float, float]:
    """The first and last value that has some weight, and one more on each side."""
    places = np.flatnonzero(is_some)
    step = values[1] - values[0]
    return float(values[places[0]] - step), float(values[places[-1]] + step)


# The pathway --------------------------------------------------------------------------------------------------------


class _Ahead(NamedTuple):
    """A step that is not over. `start`: the day it began, None where that depends on others; `longer_than`: how long
    it has taken so far, 0 where that is not known."""

    step: Step
    route: str
    start: int | None = None
    longer_than: float = 0.0


@dataclass
class _Node:
    """An item on its way: a day in force that is known, or the steps ahead and what they wait for."""

    item: Item
    submitted_after: list[int]
    granted_after: list[int]
    known: int | None = None
    hindrance: str = ""
    earliest: int = 0
    ahead: list[_Ahead] = field(default_factory=list)
    drawn: list[tuple[Unit, Days]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Openings:
    """What the draws say: a row per site of the study, a column per draw. Days count from `as_of`; what lies beyond the
    horizon, or can't come at all, is on the day after the horizon.

    `days`: when the site opens; `own`: when the last of its own items comes that is not in force yet; `shared`: the
    same of everything else that it needs. `hindrances`: why a site has no date ('' if it has).
    """

    days: Days
    own: Days
    shared: Days
    hindrances: tuple[str, ...]


def simulate_openings(
    study: Study,
    attempts: Iterable[Attempt],
    as_of: date,
    activity: str,
    n_draws: int,
    shapes: Iterable[str] = tuple(SHAPES),
) -> Openings:
    """Draw the opening of every site from what became of the attempts by the end of `as_of`."""
    walk = Walk(study, attempts, as_of, activity, n_draws, shapes)
    return walk.derive_openings(walk.draw())


class Walk:
    """The items that an activity rests on, and those that these wait for, in the order of the pathway."""

    def __init__(
        self,
        study: Study,
        attempts: Iterable[Attempt],
        as_of: date,
        activity: str,
        n_draws: int,
        shapes: Iterable[str] = tuple(SHAPES),
    ) -> None:
        self.study, self.as_of, self.n_draws, self.shapes = study, as_of, n_draws, tuple(shapes)
        attempts = list(attempts)
        seed = hashlib.sha256(f"{study.study_id}:{activity}:{as_of}".encode()).digest()
        self.rng = np.random.default_rng(int.from_bytes(seed[:8]))
        begun = [attempt.submitted_on for attempt in attempts]
        self.calendar = _Calendar(study, min([study.starts_on, as_of, *begun]), as_of)
        self.attempts: dict[Item, list[Attempt]] = {}
        for attempt in sorted(attempts, key=lambda attempt: attempt.attempt):
            self.attempts.setdefault(attempt.item, []).append(attempt)
        self.granted = {
            item: min(days)
            for item, told in self.attempts.items()
            if (days := [self.calendar.number(one.granted_on) for one in told if one.granted_on is not None])
        }
        self.nodes: list[_Node] = []
        self.places: dict[str, list[int]] = {}
        self.list_nodes()
        self.routes = {approval: self.choose_route(approval) for approval in self.places}
        self.validated = {route.id for route in study.pathway.routes if self.is_validated(route.id)}
        self.cases: dict[tuple[str, Step], list[tuple[float, float]]] = {}
        for node in self.nodes:
            self.follow(node)
        self.needs = study.pathway.find_needs(activity) or ()

    # What waits for what

    def list_nodes(self) -> None:
        """Every item that the study needs, persons' own left out, each after all that it waits for."""
        pathway = self.study.pathway
        waits = {approval.id: [*approval.submitted_after, *approval.granted_after] for approval in pathway.approvals}
        for approval_id in TopologicalSorter(waits).static_order():
            approval = pathway.find_approval(approval_id)
            if approval is None or approval.level == "person":
                continue
            for item, needed in list_items(self.study, approval, self.study.sites):
                if needed:
                    sent_after = self.find_places(item, approval.submitted_after)
                    granted_after = self.find_places(item, approval.granted_after)
                    self.places.setdefault(approval.id, []).append(len(self.nodes))
                    self.nodes.append(_Node(item, sent_after, granted_after))

    def find_places(self, item: Item, approval_ids: Iterable[str]) -> list[int]:
        """The items of these approvals that concern the same site and body."""
        found = []
        for place in (place for approval_id in approval_ids for place in self.places.get(approval_id, ())):
            other = self.nodes[place].item
            if all("" in pair or pair[0] == pair[1] for pair in zip(item[1:3], other[1:3], strict=True)):
                found.append(place)
        return found

    def choose_route(self, approval_id: str) -> str:
        """How an approval would be sought now: as it mostly was, else by the first route of the file; '' if by none."""
        routes = [route.id for route in self.study.pathway.find_routes(approval_id, self.as_of)]
        used = [
            one.route for place in self.places[approval_id] for one in self.attempts.get(self.nodes[place].item, ())
        ]
        return max(routes, key=used.count, default="")

    def is_validated(self, route: str) -> bool:
        """Whether applications by a route are found valid first: its clock says so, and the records don't deny it."""
        clock = find_clock(self.study.pathway, route, self.as_of, None)
        if clock is None or clock.starts != "valid":
            return False
        told = [one for several in self.attempts.values() for one in several if one.route == route]
        over = [one for one in told if one.granted_on or one.refused_on]
        return not over or any(one.valid_on for one in told)

    def find_latest_grant(self, places: Iterable[int]) -> int | None:
        """The day by which all of these had come into force; None if some have not."""
        days = [self.granted.get(self.nodes[place].item, _NEVER) for place in places]
        latest = max(days, default=_LONG_AGO)
        return None if latest == _NEVER else latest

    # What is over, and what is ahead

    def follow(self, node: _Node) -> None:
        """Take from an item's attempts the cases that they are, and the steps that are ahead of the latest."""
        route = self.routes[node.item.approval]
        told = [one._replace(route=one.route or route) for one in self.attempts.get(node.item, ())]
        latest = told[-1] if told else None
        starts_on = self.calendar.number(self.study.starts_on)
        sendable = self.find_latest_grant(node.submitted_after)
        ready = None if sendable is None else max(sendable, starts_on)
        for attempt in told:
            self.add_cases(node, attempt, ready)
        if latest is None and ready is not None and ready <= 0:
            self.add_case(route, "submission", ready, 0, "at_least")
        if latest is not None and (latest.withdrawn_on or latest.refused_on):
            node.hindrance = "withdrawn" if latest.withdrawn_on else "refused"
        elif latest is not None and latest.in_force_from is not None:
            node.known = self.calendar.number(latest.in_force_from)
        elif latest is not None and latest.lapsed_on is None:
            self.go_on(node, latest)
        elif not route:
            node.hindrance = "no_route"
        else:
            if latest is not None and latest.lapsed_on is not None:
                ready = self.calendar.number(latest.lapsed_on) + 1
            node.earliest = starts_on
            node.ahead = [self.find_ahead(route, "submission", ready)]
            node.ahead += [_Ahead("validation", route)] if route in self.validated else []
            node.ahead += [_Ahead("decision", route)]

    def go_on(self, node: _Node, attempt: Attempt) -> None:
        """The steps ahead of an application that waits for a decision. While what the grant must wait for is not in
        force, the decision may be ready and nobody would know: then the time so far says nothing."""
        submitted, valid = self.calendar.number(attempt.submitted_on), attempt.valid_on
        if attempt.route in self.validated and valid is None:
            node.ahead = [self.find_ahead(attempt.route, "validation", submitted), _Ahead("decision", attempt.route)]
            return
        start = self.calendar.number(valid) if attempt.route in self.validated and valid is not None else submitted
        waited = self.find_latest_grant(node.granted_after)
        if waited is None or waited > 0:
            node.ahead = [_Ahead("decision", attempt.route, start)]
        else:
            node.ahead = [self.find_ahead(attempt.route, "decision", start)]

    def find_ahead(self, route: str, step: Step, start: int | None) -> _Ahead:
        if start is None or start > 0:
            return _Ahead(step, route, start)
        return _Ahead(step, route, start, self.calendar.count(self.find_prior(route, step).unit, start, 0) + 0.5)

    def add_cases(self, node: _Node, attempt: Attempt, ready: int | None) -> None:
        """The completed steps of an attempt, and the one that still runs or was broken off."""
        submitted = self.calendar.number(attempt.submitted_on)
        valid, refused, withdrawn, granted = (None if on is None else self.calendar.number(on) for on in attempt[4:8])
        end = refused if granted is None else granted
        until = 0 if withdrawn is None else withdrawn
        if attempt.attempt == 1 and ready is not None:
            self.add_case(attempt.route, "submission", ready, submitted)
        start, is_unknown = submitted, False
        if attempt.route in self.validated:
            if valid is not None:
                self.add_case(attempt.route, "validation", submitted, valid)
                start = valid
            elif end is None:
                self.add_case(attempt.route, "validation", submitted, until, "at_least")
                return
            is_unknown = valid is None
        waited = self.find_latest_grant(node.granted_after)
        if end is not None:
            is_prompt = granted is not None and bool(node.granted_after) and waited is not None and end <= waited
            self.add_case(attempt.route, "decision", start, end, "at_most" if is_unknown or is_prompt else "exactly")
        elif waited is not None and waited <= until:
            self.add_case(attempt.route, "decision", start, until, "at_least")

    def add_case(
        self, route: str, step: Step, start: int, end: int, told: Literal["exactly", "at_least", "at_most"] = "exactly"
    ) -> None:
        n_days = self.calendar.count(self.find_prior(route, step).unit, start, end)
        low = 0.0 if told == "at_most" else n_days + (0.5 if told == "at_least" else -0.5)
        high = np.inf if told == "at_least" else n_days + 0.5
        self.cases.setdefault((route, step), []).append((max(low, 0.0), high))

    def find_prior(self, route: str, step: Step) -> Prior:
        found = self.study.pathway.find_prior(route, step)
        return found or DEFAULT_PRIORS[step]

    # Drawing

    def draw(self) -> dict[int, Days]:
        """Draw every step ahead that matters, and resolve every item that does, by its place."""
        wanted = {place for places in self.list_places().values() for place in places}
        for place in reversed(range(len(self.nodes))):
            node = self.nodes[place]
            if place in wanted and node.known is None:
                wanted |= {*node.submitted_after, *node.granted_after}
        for place in sorted(wanted):
            node = self.nodes[place]
            node.hindrance = node.hindrance or self.find_hindrance(node)
        drawn = [self.nodes[place] for place in sorted(wanted)]
        drawn = [node for node in drawn if node.known is None and not node.hindrance]
        keys = dict.fromkeys([*self.cases, *((ahead.route, ahead.step) for node in drawn for ahead in node.ahead)])
        learned = {key: self.learn(*key) for key in keys}
        kinds = draw_kinds(learned.values(), self.rng, self.n_draws, self.shapes)
        parameters = {key: posterior.draw(kinds, self.rng) for key, posterior in learned.items()}
        for node in drawn:
            for ahead in node.ahead:
                n_days = parameters[ahead.route, ahead.step].draw(self.rng, ahead.longer_than)
                node.drawn.append((self.find_prior(ahead.route, ahead.step).unit, n_days))
        in_force: dict[int, Days] = {}
        for place in sorted(wanted):
            in_force[place] = self.resolve(self.nodes[place], in_force)
        return in_force

    def learn(self, route: str, step: Step) -> Posterior:
        cases = self.cases.get((route, step), [])
        if step == "submission" and all(high == np.inf for _, high in cases):
            cases = cases[:1]
        return _learn_again(self.find_prior(route, step), tuple(cases), tuple(self.shapes))

    def list_places(self) -> dict[str, list[int]]:
        """The items that the activity needs at each site: the study's and the site's own."""
        needed = [place for approval in self.needs for place in self.places.get(approval, ())]
        return {
            site.site_id: [place for place in needed if self.nodes[place].item.site_id in ("", site.site_id)]
            for site in self.study.sites
        }

    def find_hindrance(self, node: _Node) -> str:
        """That of what it waits for, if that can't come."""
        waits = () if node.known is not None else (*node.submitted_after, *node.granted_after)
        return next((self.nodes[place].hindrance for place in waits if self.nodes[place].hindrance), "")

    def resolve(self, node: _Node, in_force: Mapping[int, Days], halved: int | None = None) -> Days:
        """The day on which an item comes into force, per draw (one number where it is known).

        `halved`: the step ahead, by its place, of which only half of what remains is counted.
        """
        if node.hindrance or node.known is not None:
            return np.array([_NEVER if node.known is None else node.known], np.int32)
        sendable = np.array([node.earliest], np.int32)
        for place in node.submitted_after:
            sendable = np.maximum(sendable, in_force[place])
        day = sendable
        for number, (ahead, (unit, n_days)) in enumerate(zip(node.ahead, node.drawn, strict=True)):
            begun = day if ahead.start is None else np.array([ahead.start], np.int32)
            day = self.calendar.add(unit, begun, n_days)
            if number == halved:
                base = np.maximum(begun, 0)
                day = base + (np.maximum(day, base) - base + 1) // 2
            if ahead.step == "submission":
                day = np.maximum(np.maximum(day, sendable), 1)
        day = np.maximum(day, 1)
        for place in node.granted_after:
            day = np.maximum(day, in_force[place])
        return day

    def is_ahead(self, place: int) -> bool:
        """Whether an item is not in force today."""
        known = self.nodes[place].known
        return known is None or known > 0

    # Telling

    def derive_openings(self, in_force: Mapping[int, Days]) -> Openings:
        sites = self.list_places()
        own, shared = (np.full((len(sites), self.n_draws), _LONG_AGO, np.int32) for _ in range(2))
        hindrances = []
        for row, places in enumerate(sites.values()):
            for place in places:
                kept = own if self.is_ahead(place) and self.nodes[place].item.site_id else shared
                np.maximum(kept[row], in_force[place], out=kept[row])
            hindrances.append(next((found for place in places if (found := self.nodes[place].hindrance)), ""))
        return Openings(np.maximum(own, shared), own, shared, tuple(hindrances))

    def find_dates(self, days: Days) -> list[Any]:
        return [_to_date(day, self.as_of) for day in _find_days(days)]

    def derive_items(self, in_force: Mapping[int, Days]) -> pd.DataFrame:
        rows = [
            (*self.nodes[place].item[1:3], self.nodes[place].item.approval, *self.find_dates(days)[1:])
            for place, days in in_force.items()
            if self.is_ahead(place)
        ]
        return _type_columns(rows, ["site_id", "body_id", "approval", "median_on", "p80_on"])

    def derive_critical(self, in_force: Mapping[int, Days]) -> pd.DataFrame:
        rows: list[tuple[Any, ...]] = []
        for site_id, places in self.list_open_places().items():
            table = np.stack([np.broadcast_to(in_force[place], self.n_draws) for place in places])
            is_last = table == table.max(axis=0)
            shares = (is_last / is_last.sum(axis=0)).mean(axis=1)
            for rank in np.argsort(-shares, kind="stable"):
                item = self.nodes[places[rank]].item
                rows.append((site_id, item.approval, item.body_id, item.person_id, str(item), float(shares[rank])))
        return _type_columns(rows, ["site_id", "approval", "body_id", "person_id", "item", "share"])

    def list_open_places(self) -> dict[str, list[int]]:
        """What each site waits for, of those that wait and have a date."""
        found = {}
        for site_id, places in self.list_places().items():
            if not any(self.nodes[place].hindrance for place in places):
                found[site_id] = [place for place in places if self.is_ahead(place)]
        return {site_id: places for site_id, places in found.items() if places}

    def derive_levers(self, in_force: Mapping[int, Days]) -> pd.DataFrame:
        waiting = self.list_open_places()
        before = {site_id: _find_days(_find_last(in_force, places)) for site_id, places in waiting.items()}
        rows: list[tuple[Any, ...]] = []
        for place in in_force:
            node = self.nodes[place]
            for number, ahead in enumerate(node.ahead if node.drawn else ()):
                halved = {**in_force, place: self.resolve(node, in_force, number)}
                moved = {place}
                for later in in_force:
                    follower = self.nodes[later]
                    if follower.drawn and not moved.isdisjoint((*follower.submitted_after, *follower.granted_after)):
                        moved.add(later)
                        halved[later] = self.resolve(follower, halved)
                for rank, (site_id, places) in enumerate(waiting.items()):
                    if not moved.isdisjoint(places):
                        after = _find_days(_find_last(halved, places))
                        gained = [
                            None if _NEVER in pair else pair[0] - pair[1]
                            for pair in zip(before[site_id][1:], after[1:], strict=True)
                        ]
                        if any(gained):
                            about = (site_id, node.item.approval, node.item.body_id, ahead.step)
                            rows.append((rank, *about, *gained))
        rows.sort(key=lambda row: (row[0], -(row[-2] or 0), -(row[-1] or 0)))
        columns = ["site_id", "approval", "body_id", "step", "days_gained", "days_gained_p80"]
        return _type_columns([row[1:] for row in rows], columns)


def _find_last(in_force: Mapping[int, Days], places: Iterable[int]) -> Days:
    last = np.array([_LONG_AGO], np.int32)
    for place in places:
        last = np.maximum(last, in_force[place])
    return last


def _find_days(days: Days) -> list[int]:
    """The first days by which 10, 50 and 80 of 100 draws have come."""
    places = [max(int(np.ceil(share * len(days))) - 1, 0) for share in _SHARES]
    return [int(day) for day in np.partition(days, places)[places]]


# What is told -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Forecast:
    """When the sites open for an activity, as expected at the end of `as_of`.

    `sites`, in the order of the study: site_id, is_open (today, by the gate), opened_on (the first day of the spell
    that it is in, else NaT), p10_on, median_on and p80_on (the first day by which it is open in so many of 100 draws;
    of an open site the day on which it opened), hindrance: '' or why dates are missing: "refused", "withdrawn" (an item
    that it needs or waits for, and nobody sent it in again), "no_route" (none by which such an item could be sent in),
    "not_planned" (the activity), "beyond_horizon" (p80_on and perhaps others lie more than HORIZON_DAYS off).

    `critical`: per site the items that it waits for: site_id, approval, body_id, person_id (''), item (text), share (of
    draws in which it is the last to come into force; shared equally where several are), largest first.

    `levers`: per site the steps that move it: site_id, approval, body_id, step, days_gained and days_gained_p80: how
    much earlier median_on and p80_on come if what remains of this one step took half as long in every draw and all else
    stayed; missing where the date is. Largest first; steps that move neither date are left out.

    `items`: each item that is not in force and that an opening waits for, in the order of the pathway: site_id,
    body_id, approval, median_on, p80_on.

    The last three are worked out when they are first asked for.
    """

    as_of: date
    activity: str
    n_draws: int
    sites: pd.DataFrame
    openings: Openings = field(repr=False)
    _walk: Walk = field(repr=False)
    _in_force: Mapping[int, Days] = field(repr=False)

    @cached_property
    def critical(self) -> pd.DataFrame:
        return self._walk.derive_critical(self._in_force)

    @cached_property
    def levers(self) -> pd.DataFrame:
        return self._walk.derive_levers(self._in_force)

    @cached_property
    def items(self) -> pd.DataFrame:
        return self._walk.derive_items(self._in_force)

    def find_probability(self, site_id: str, by: date) -> float:
        """The share of draws in which a site is open by a day (at most HORIZON_DAYS off). KeyError for no site."""
        site = self._find_site(site_id)
        if site.is_open:
            return float(site.opened_on <= pd.Timestamp(by))
        last = min((by - self.as_of).days, HORIZON_DAYS)
        return float((self.openings.days[site.Index] <= last).mean())

    def _find_site(self, site_id: str) -> Any:
        for site in self.sites.itertuples():
            if site.site_id == site_id:
                return site
        raise KeyError(f'"{site_id}" is no site of the forecast.')


def compute_slip(forecast: Forecast, site_ids: Iterable[str], n_days: int = 30) -> pd.DataFrame:
    """What it does to the opening of these sites if each of their own items that is still open comes so much later.

    The study's own approvals stay as they are, so a site that waits for one of them anyway may lose nothing. Columns:
    site_id, median_on, p80_on, slipped_median_on, slipped_p80_on. KeyError for no site of the forecast.
    """
    rows = []
    for site_id in site_ids:
        site = forecast._find_site(site_id)
        drawn = forecast.openings
        slipped = np.minimum(np.maximum(drawn.own[site.Index] + n_days, drawn.shared[site.Index]), _NEVER)
        days = [site.median_on, site.p80_on]
        if not site.is_open and site.hindrance not in ("", "beyond_horizon"):
            days += [pd.NaT, pd.NaT]
        elif not site.is_open:
            days += [_to_date(day, forecast.as_of) for day in _find_days(slipped)[1:]]
        rows.append((site_id, *days, *(days if site.is_open else ())))
    return _type_columns(rows, ["site_id", "median_on", "p80_on", "slipped_median_on", "slipped_p80_on"])


def forecast_openings(
    study: Study, events: Events, as_of: date, activity: str = "approach", *, n_draws: int = 10_000
) -> Forecast:
    """When each site opens for an activity, by what the ledger said at the end of `as_of`.

    The same ledger, study, activity and day give the same draws. A view of the events (`known_at`) only narrows.
    """
    attempts = list_attempts(study, events, as_of)
    study = _leave_people_out(study)
    walk = Walk(study, attempts, as_of, activity, n_draws)
    in_force = walk.draw()
    drawn = walk.derive_openings(in_force)
    opened = _find_opened(study, events, attempts, as_of, activity)
    is_planned = study.pathway.find_needs(activity) is not None
    rows: list[tuple[Any, ...]] = []
    for row, site in enumerate(study.sites):
        if site.site_id in opened:
            rows.append((site.site_id, True, *[opened[site.site_id]] * 4, ""))
            continue
        hindrance = drawn.hindrances[row] if is_planned else "not_planned"
        days = [pd.NaT if hindrance else _to_date(day, as_of) for day in _find_days(drawn.days[row])]
        rows.append((site.site_id, False, pd.NaT, *days, hindrance or ("beyond_horizon" if pd.isna(days[-1]) else "")))
    sites = _type_columns(rows, ["site_id", "is_open", "opened_on", "p10_on", "median_on", "p80_on", "hindrance"])
    return Forecast(
        as_of=as_of,
        activity=activity,
        n_draws=n_draws,
        sites=sites,
        openings=drawn,
        _walk=walk,
        _in_force=in_force,
    )


def _leave_people_out(study: Study) -> Study:
    """The study as if no activity needed anything of single persons."""
    pathway = study.pathway
    personal = {approval.id for approval in pathway.approvals if approval.level == "person"}
    activities = tuple(
        entry.model_copy(update={"needs": tuple(need for need in entry.needs if need not in personal)})
        for entry in pathway.activities
    )
    return study.model_copy(update={"pathway": pathway.model_copy(update={"activities": activities})})


def _find_opened(
    study: Study, events: Events, attempts: Iterable[Attempt], as_of: date, activity: str
) -> dict[str, pd.Timestamp]:
    """The sites that the gate has open today, and the first day of the spell."""
    questions = pd.DataFrame({"site_id": [site.site_id for site in study.sites]}).assign(activity=activity)
    questions = questions.assign(body_id="", person_id="")
    first = min([study.starts_on, as_of, *(one.granted_on for one in attempts if one.granted_on is not None)])
    answers = derive_open_days(study, events, questions, first, as_of).to_numpy()
    return {
        site.site_id: pd.Timestamp(find_run_start(own, first))
        for site, own in zip(study.sites, answers, strict=True)
        if own[-1]
    }


def _to_date(day: int, as_of: date) -> Any:
    return pd.NaT if day >= _NEVER else pd.Timestamp(as_of + timedelta(days=int(day)))


_KINDS_OF_COLUMN = {"is_open": "bool", "share": "float64", "days_gained": "Int64", "days_gained_p80": "Int64"}


def _type_columns(rows: Sequence[Sequence[Any]], columns: Sequence[str]) -> pd.DataFrame:
    kinds = {name: DAY if name.endswith("_on") else _KINDS_OF_COLUMN.get(name, "str") for name in columns}
    return pd.DataFrame(rows, columns=list(columns)).astype(kinds)


# Recording ----------------------------------------------------------------------------------------------------------


def derive_forecast_events(forecast: Forecast, requested_by: str) -> list[ForecastRecorded]:
    """The forecast as the ledger keeps it: one event per site."""

    def date_or_none(day: Any) -> date | None:
        return None if pd.isna(day) else day.date()

    return [
        ForecastRecorded(
            occurred_on=forecast.as_of,
            requested_by=requested_by,
            site_id=site.site_id,
            activity=forecast.activity,
            model=MODEL,
            n_draws=forecast.n_draws,
            is_open=site.is_open,
            p10_on=date_or_none(site.p10_on),
            median_on=date_or_none(site.median_on),
            p80_on=date_or_none(site.p80_on),
        )
        for site in forecast.sites.itertuples(index=False)
    ]


def derive_forecast_history(events: Events) -> pd.DataFrame:
    """How what was expected of each site moved: one row per recorded forecast, by activity, site and day.

    Columns: activity, site_id, occurred_on, recorded_at, model, is_open, p10_on, median_on, p80_on, opened_on (the day
    on which it opened, once that forecast or a later one found it open), days_late (opened_on less median_on: negative
    where it opened sooner) and is_covered (open by p80_on); missing where the site has not opened, or had no date.
    """
    columns = ["activity", "site_id", "occurred_on", "recorded_at", "model", "is_open", "p10_on", "median_on", "p80_on"]
    told = events.frame(ForecastRecorded)[columns]
    told = told.sort_values(["activity", "site_id", "occurred_on"], ignore_index=True)
    places = [told["activity"], told["site_id"]]
    told["opened_on"] = told["median_on"].where(told["is_open"]).groupby(places).bfill()
    told["days_late"] = (told["opened_on"] - told["median_on"]).dt.days.astype("Int64")
    is_known = told["opened_on"].notna() & told["p80_on"].notna()
    told["is_covered"] = (told["opened_on"] <= told["p80_on"]).astype("boolean").where(is_known)
    return told


def is_forecast_due(study: Study, events: Events, as_of: date, activity: str = "approach") -> bool:
    """Whether the round of a day records a forecast: on the first round of a week (from Monday), and on the first after
    a step of an approval, or its voiding, that the last forecast did not know.

    Never twice for one day (what came after the first counts on the next), and not once the study has ended.
    """
    if as_of > study.ends_on or study.pathway.find_needs(activity) is None:
        return False
    view = events.select(as_of=as_of)
    told = view.frame(ForecastRecorded)
    told = told.loc[told["activity"] == activity]
    if told.empty:
        return True
    last_on = told["occurred_on"].max().date()
    if last_on.isocalendar()[:2] != as_of.isocalendar()[:2]:
        return True
    last = told["seq"].max()
    steps = pd.concat([view.frame(kind)[["seq", "modification"]] for kind in STEPS])
    is_newer = bool((steps.loc[steps["modification"] == "", "seq"] > last).any())
    return last_on < as_of and (is_newer or _has_newer_void(view, last))


def _has_newer_void(view: Events, last: int) -> bool:
    """Whether a step of an approval was voided after row `last`."""
    told = view.frame(Voided)
    voids = told.loc[told["seq"] > last, "voids"]
    tables = [view.tables[kind.kind] for kind in STEPS if kind.kind in view.tables]
    return any(voids.isin(table["hash"].to_pylist()).any() for table in tables)
