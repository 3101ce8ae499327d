"""What a timeline shows: bars and marks with their dates, for approvals, for sites, and for the plan behind them.

Everything is a date here; `compute_percent` puts one on a scale. Bars include their last day. What is in force or open
comes from the same folds as the gate's answers, what is expected from a forecast.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd

from study.approval_steps import DAY, ITEM, derive_attempts, derive_spells, find_clock
from study.calendar import add_period
from study.forecast import Forecast, compute_slip
from study.position import derive_site_days
from study.protocol import Study, Wave
from study.state import Events

SLIP_DAYS = 30
"""A month, as a slip counts it."""

_BAR = ["kind", "from_on", "until_on"]


@dataclass(frozen=True)
class WavePlan:
    """A wave of the whole study. `last_baseline_on`: the last day of a baseline after which this wave still falls due
    within data collection (None: no day of it); `opens_on` and `closes_on`: the first and last day on which it may be
    collected, of people whose baseline lies within data collection."""

    wave: str
    label: str
    role: str
    last_baseline_on: date | None
    opens_on: date
    closes_on: date


def compute_percent(day: date, first: date, last: date) -> float:
    """Where a day begins on a scale from the first day (0) to the end of the last (100); kept within it."""
    share = (day - first).days / ((last - first).days + 1)
    return round(100 * min(max(share, 0.0), 1.0), 3)


def list_quarters(first: date, last: date) -> list[date]:
    """The first days of the quarters of a scale."""
    days = (date(year, month, 1) for year in range(first.year, last.year + 1) for month in (1, 4, 7, 10))
    return [day for day in days if first <= day <= last]


# Approvals ----------------------------------------------------------------------------------------------------------


def derive_approval_bars(study: Study, steps: pd.DataFrame, as_of: date) -> pd.DataFrame:
    """What became of each attempt at each approval of the study as first approved, by `derive_steps` up to a day.

    Columns: those of an Item, attempt, kind, from_on, until_on. Kinds: "sent" (sent in, its clock not running yet),
    "running" (its clock runs), "stopped" (it waits for our answer), "in_force" (to the last day that is stated, or the
    end of 2200). A request stops the bar whether or not its clock goes on.
    """
    steps = steps.loc[steps["modification"] == ""]
    attempts = derive_attempts(steps)
    day = pd.Timestamp(as_of)
    asked = steps.loc[steps["step"].isin(("requested", "answered"))].groupby([*ITEM, "attempt"])
    requests = dict(iter(asked))
    rows: list[tuple[Any, ...]] = []
    columns = [*ITEM, "attempt", "route", "submitted_on", "valid_on", "decided_on", "withdrawn_on"]
    for *key, route, submitted, valid, decided, withdrawn in attempts[columns].itertuples(index=False, name=None):
        if pd.isna(submitted):
            continue
        ends = [stamp for stamp in (decided, withdrawn) if pd.notna(stamp)]
        last = min([day, *(stamp - pd.Timedelta(days=1) for stamp in ends)])
        clock = find_clock(study.pathway, route, submitted.date(), None if pd.isna(valid) else valid.date())
        runs_from = submitted if clock is None or clock.starts == "submitted" else valid
        cuts = [(submitted, "sent" if pd.isna(runs_from) or runs_from > submitted else "running")]
        if pd.notna(runs_from) and runs_from > submitted:
            cuts.append((runs_from, "running"))
        for step, on in requests.get(tuple(key), steps[:0])[["step", "occurred_on"]].itertuples(index=False, name=None):
            resumed = "running" if pd.notna(runs_from) and on >= runs_from else "sent"
            after = on + pd.Timedelta(days=1)  # the day of the request is the last that counts
            cuts.append((after, "stopped" if step == "requested" else resumed))
        cuts.sort(key=lambda cut: cut[0])
        for (start, kind), until in zip(cuts, [*(cut[0] for cut in cuts[1:]), None], strict=True):
            until_on = last if until is None else min(until - pd.Timedelta(days=1), last)
            if start <= until_on:
                rows.append((*key, kind, start, until_on))
    bars = pd.DataFrame(rows, columns=[*ITEM, "attempt", *_BAR])
    spells = derive_spells(steps)
    bars = pd.concat([bars, spells.assign(kind="in_force")[bars.columns]], ignore_index=True)
    bars = bars.astype(
        {"attempt": "int64", "kind": "str", "from_on": DAY, "until_on": DAY} | dict.fromkeys(ITEM, "str")
    )
    return bars.sort_values([*ITEM, "from_on"], kind="stable", ignore_index=True)


def derive_approval_marks(steps: pd.DataFrame, approvals: pd.DataFrame) -> pd.DataFrame:
    """The steps of the approvals of the study as first approved: the columns of an Item, attempt, kind, on.

    `steps` and `approvals`: as from `derive_steps` and `derive_approvals`, of one day.

    Kinds: the steps, and "expired" on the day after the last day of force, once that has come.
    """
    steps = steps.loc[steps["modification"] == ""]
    marks = steps[[*ITEM, "attempt", "step", "occurred_on"]].rename(columns={"step": "kind", "occurred_on": "on"})
    lapsed = approvals.loc[approvals["state"] == "expired", [*ITEM, "attempt", "turn_since"]]
    lapsed = lapsed.rename(columns={"turn_since": "on"}).assign(kind="expired")
    marks = pd.concat([marks, lapsed[marks.columns]], ignore_index=True)
    return marks.sort_values([*ITEM, "on"], kind="stable", ignore_index=True)


# Sites --------------------------------------------------------------------------------------------------------------


def derive_site_bars(study: Study, events: Events, approvals: pd.DataFrame, as_of: date, activity: str) -> pd.DataFrame:
    """When each site was open for an activity, up to a day: site_id, kind, from_on, until_on, by site.

    `approvals`: as from `derive_approvals`, of the same day. Kinds: "open", "suspended" and "partly_open", with the
    meaning that `study.position` gives them. Other days are in no bar.
    """
    first = min(study.starts_on, as_of)
    days = derive_site_days(study, events, approvals, [activity], first, as_of)
    rows = []
    for site_id, answers in days.groupby(level=1, sort=False):
        table = answers.to_numpy()
        is_lost = (np.logical_or.accumulate(table, axis=1) & ~table).any(axis=0)
        kinds = np.select([table[0], is_lost, table.any(axis=0)], ["open", "suspended", "partly_open"], "")
        starts = np.flatnonzero(np.concatenate([[True], kinds[1:] != kinds[:-1]]))
        for start, end in zip(starts, [*starts[1:], len(kinds)], strict=True):
            if kinds[start]:
                bounds = (first + timedelta(days=int(start)), first + timedelta(days=int(end) - 1))
                rows.append((site_id, str(kinds[start]), *bounds))
    bars = pd.DataFrame(rows, columns=["site_id", *_BAR])
    return bars.astype({"site_id": "str", "kind": "str", "from_on": DAY, "until_on": DAY})


# The plan behind ----------------------------------------------------------------------------------------------------


def list_wave_plans(study: Study) -> tuple[WavePlan, ...]:
    """The baseline and every later wave, as the dates of data collection leave room for them.

    A wave that counts from screening, consent or allocation is taken to count from the day of the baseline.
    """
    first, last = study.data_collection_starts_on, study.data_collection_ends_on
    plans = []
    for wave in study.waves:
        if wave.role == "screening":
            continue
        last_baseline: date | None = last
        opens_on, closes_on = first, last
        if wave.role == "follow_up":
            last_baseline = _find_last_baseline(study, wave)
            bounds = [_find_anchor(study, wave, day) for day in (first, last_baseline or first)]
            opens_on = study.compute_window_dates(wave, bounds[0]).opens_on
            closes_on = min(last, study.compute_window_dates(wave, bounds[1]).closes_on)
        plans.append(WavePlan(wave.id, wave.label, wave.role, last_baseline, opens_on, closes_on))
    return tuple(plans)


def _find_anchor(study: Study, wave: Wave, baseline_on: date) -> date:
    """The day that a wave counts from, of somebody with this baseline."""
    before = study.find_wave(wave.anchor)
    if before is None or before.role != "follow_up":
        return baseline_on
    return add_period(_find_anchor(study, before, baseline_on), before.offset)


def _find_last_baseline(study: Study, wave: Wave) -> date | None:
    day = study.data_collection_ends_on
    while day >= study.data_collection_starts_on:
        if study.compute_window_dates(wave, _find_anchor(study, wave, day)).due_on <= study.data_collection_ends_on:
            return day
        day -= timedelta(days=1)
    return None


def derive_room(study: Study, forecast: Forecast, site_ids: Iterable[str]) -> pd.DataFrame:
    """How many days of recruiting each site has, and what a month's slip of its own approvals leaves of them.

    One row per site and wave: site_id, wave, opens_on (the median of the forecast, but neither before today nor before
    data collection starts; NaT where it has no date), last_on (the last useful day of a baseline; NaT for none),
    slipped_on, n_days and n_days_after_slip (0 where it comes too late; missing where there is no date). Open sites
    slip no more.
    """
    dated = forecast.sites.loc[forecast.sites["median_on"].notna(), "site_id"]
    asked = pd.DataFrame({"site_id": list(site_ids)}, dtype="str")
    slip = compute_slip(forecast, asked.loc[asked["site_id"].isin(dated), "site_id"], SLIP_DAYS)
    slip = asked.merge(slip, how="left", on="site_id")
    start = pd.Timestamp(max(study.data_collection_starts_on, forecast.as_of))
    frames = []
    for plan in list_wave_plans(study):
        frame = slip[["site_id"]].assign(wave=plan.wave)
        last_on = pd.NaT if plan.last_baseline_on is None else pd.Timestamp(plan.last_baseline_on)
        frame["last_on"] = pd.Series(last_on, slip.index).astype(DAY)
        for column, told in (("opens_on", "median_on"), ("slipped_on", "slipped_median_on")):
            frame[column] = slip[told].mask(slip[told] < start, start)
        for column, opens in (("n_days", "opens_on"), ("n_days_after_slip", "slipped_on")):
            room = (frame["last_on"] - frame[opens]).dt.days + 1
            room = room.mask(frame["last_on"].isna(), 0).clip(lower=0)
            frame[column] = room.mask(frame[opens].isna()).astype("Int64")
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)
