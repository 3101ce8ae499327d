"""What the sites of the IPC rehearsal do with their paper: answers, mistakes, figures, and the days on which they post.

Everything follows from a seed and a name (of a record, a query, a week), so that what is told twice is told alike, in
whatever order a rehearsal comes to it and wherever it was interrupted. Values come from `ipc_assumptions.toml`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtri

from rehearsal.ipc_people import Assumptions, Numbers
from study.calendar import add_months
from study.instruments import Instrument, Item
from study.pack_layout import RECORD_KEYS, list_months
from study.protocol import Study
from study.validation import passes_test

NOT_ANSWERED = -9
NAME_AS_ROLE = "duty worker"  # no real name: a file with one would be held as a whole
MISTAKES_OF_RECORDS = ("wrong_level", "month_first", "unknown_identifier", "doubled_row", "wrong_wave")
FRIDAY = 4


def compute_shares(names: Sequence[str], about: str, seed: int) -> Numbers:
    """For each name a number from 0 to 1, as if drawn evenly: the same for the same name, subject and seed."""
    texts = np.array([f"{about}:{name}" for name in names], dtype=object)
    hashed = pd.util.hash_array(texts, hash_key=f"{seed % 10**16:016d}", categorize=False)
    return (hashed >> np.uint64(11)).astype(float) / 2.0**53


def compute_days(names: Sequence[str], about: str, value: Mapping[str, float], seed: int) -> pd.Series[Any]:
    """For each name a number of days, log-normal as an assumption says, as timedelta."""
    places = np.clip(compute_shares(names, about, seed), 1e-12, 1 - 1e-12)
    days = np.round(value["median"] * np.exp(value["spread"] * ndtri(places)))
    clipped = np.clip(days, value["least"], value["most"])
    return pd.Series(pd.to_timedelta(clipped, unit="D").astype("timedelta64[s]"))


# When they post -----------------------------------------------------------------------------------------------------


def list_posting_days(site_id: str, first: date, last: date, assumptions: Assumptions) -> list[date]:
    """The Fridays on which a site posts what it has."""
    value = assumptions["posts_weekly"]
    chance = value["all"] + value.get("sites", {}).get(site_id, 0.0)
    begin = first + timedelta(days=(FRIDAY - first.weekday()) % 7)
    fridays = [begin + timedelta(weeks=n) for n in range(max(0, (last - begin).days // 7 + 1))]
    shares = compute_shares([f"{site_id}:{day}" for day in fridays], "posts", assumptions.seed)
    return [day for day, share in zip(fridays, shares, strict=True) if share < chance]


# What stands in a questionnaire -------------------------------------------------------------------------------------


def write_records(
    instrument: Instrument,
    rows: pd.DataFrame,
    assumptions: Assumptions,
    *,
    with_mistakes: bool,
    beside: Sequence[str] = (),
) -> pd.DataFrame:
    """The sheet of one instrument as a site fills it in.

    In: participant_id, respondent, form, wave, collected_on, is_partly, mistake (one of MISTAKES_OF_RECORDS, or ''),
    one row per record; for an instrument that asks the age also cohort and route of consent. Out: the columns of the
    sheet and those `beside`, in the order of the rows; a doubled row stands there twice. Answers agree with each other.
    """
    seed = assumptions.seed
    names = (rows["participant_id"] + ":" + rows["wave"] + ":" + rows["respondent"] + ":" + instrument.id).tolist()
    health = compute_shares(rows["participant_id"].tolist(), "health", seed)
    answers: dict[str, Numbers] = {}
    for item in instrument.items:
        own = compute_shares(names, item.id, seed)
        values = _find_values(item, 0.6 * health + 0.4 * own)
        if item.provides == "age":
            values = _find_ages(rows, assumptions)
        if item.asked_if is not None:
            asked = np.isin(answers[item.asked_if.item], item.asked_if.equals)
            values = np.where(asked, values, np.nan)
        for column, allowed in (("respondent", item.respondents), ("form", item.forms)):
            if allowed:
                values = np.where(rows[column].isin(allowed), values, np.nan)
        blank = rows["is_partly"].to_numpy(bool) & (
            compute_shares(names, f"blank:{item.id}", seed) < assumptions["partly"]["items"]
        )
        answers[item.id] = np.where(blank & ~np.isnan(values) & (item.asked_if is None), NOT_ANSWERED, values)
    _make_agree(instrument, answers)
    keys = rows[[*RECORD_KEYS, *beside]].astype({"collected_on": object}).reset_index(drop=True)
    frame: pd.DataFrame = keys.assign(**answers)
    if with_mistakes and (rows["mistake"] != "").any():
        frame = _make_mistakes(instrument, frame, rows["mistake"].to_numpy(str))
    return frame


def _find_values(item: Item, places: Numbers) -> Numbers:
    """Answers from a place between the best and the worst: levels evenly, counts mostly low."""
    if item.type == "level":
        levels = np.array(sorted(item.levels), float)
        values: Numbers = levels[np.minimum((places * len(levels)).astype(int), len(levels) - 1)]
        return values
    span = item.highest - item.lowest
    share = places if item.highest == 100 else places**6
    return np.floor(item.lowest + span * share)


def _find_ages(rows: pd.DataFrame, assumptions: Assumptions) -> Numbers:
    """Ages in whole years, one for each person: children as their route of consent has it, and adults."""
    ages, children = assumptions["adults"], assumptions["children"]
    place = compute_shares(rows["participant_id"].tolist(), "age", assumptions.seed)
    is_child, has_parent = rows["cohort"] == "children_complex_needs", rows["route"] == "parent"
    youngest = np.select([has_parent, is_child], [children["youngest"], 16], ages["youngest"])
    oldest = np.select([has_parent, is_child], [16, children["oldest"]], ages["oldest"])
    found: Numbers = np.floor(youngest + (oldest - youngest) * place)
    return found


def _make_agree(instrument: Instrument, answers: dict[str, Numbers]) -> None:
    """What was drawn item by item, so that nothing contradicts anything else: choices that stand alone, and rules."""
    for group in instrument.choice_groups:
        others = [answers[name] == 1 for name in group.items if name not in group.exclusive]
        for name in group.exclusive[:1]:
            told = answers[name] >= 0
            answers[name] = np.where(told, ~np.any(others, axis=0), answers[name])
        for name in group.exclusive[1:]:
            answers[name] = np.where(answers[name] == 1, 0, answers[name])
    items = {item.id: item for item in instrument.items}
    for rule in instrument.rules:
        broken = np.all(
            [
                passes_test(test, answers[name], answers.get(test.above, answers[name])) & (answers[name] >= 0)
                for test in rule.never_together
                for name in test.items
            ],
            axis=0,
        )
        test = rule.never_together[0]
        for name in test.items:
            if test.above:
                other = np.maximum(answers[test.above], items[name].lowest)
            else:
                other = np.full(len(broken), next((n for n in items[name].levels if n not in test.equals), np.nan))
            answers[name] = np.where(broken & ~np.isnan(other), other, answers[name])


def _make_mistakes(instrument: Instrument, frame: pd.DataFrame, mistakes: npt.NDArray[np.str_]) -> pd.DataFrame:
    first = instrument.items[0]
    frame.loc[mistakes == "wrong_level", first.id] = first.highest + 4
    is_month_first = mistakes == "month_first"
    frame.loc[is_month_first, "collected_on"] = [f"{day:%m/%d/%Y}" for day in frame["collected_on"][is_month_first]]
    is_unknown = mistakes == "unknown_identifier"
    frame.loc[is_unknown, "participant_id"] = [_misspell(name) for name in frame["participant_id"][is_unknown]]
    frame.loc[mistakes == "wrong_wave", "wave"] = "month 18"
    doubled: pd.DataFrame = frame.loc[mistakes == "doubled_row"]
    return pd.concat([frame, doubled], ignore_index=True)


def _misspell(participant_id: str) -> str:
    """One digit too high: the check digit no longer fits."""
    return participant_id[:-1] + str((int(participant_id[-1]) + 1) % 10)


def find_mistakes(records: pd.DataFrame, assumptions: Assumptions) -> npt.NDArray[np.str_]:
    """Which mistake stands in each record ('' for none). A date has its month first only where that shows.

    In: participant_id, wave, respondent, instrument, collected_on.
    """
    names = records["participant_id"] + ":" + records["wave"] + ":" + records["respondent"] + ":"
    shares = compute_shares((names + records["instrument"]).tolist(), "mistake", assumptions.seed)
    bounds = np.cumsum([assumptions["mistakes"][kind] for kind in MISTAKES_OF_RECORDS])
    kinds = np.array([*MISTAKES_OF_RECORDS, ""])
    found = kinds[np.searchsorted(bounds, shares, side="right")]
    hidden = (found == "month_first") & (records["collected_on"].dt.day <= 12).to_numpy()
    return np.where(hidden, "", found)


# Queries and figures ------------------------------------------------------------------------------------------------


def find_answers(query_ids: Sequence[str], assumptions: Assumptions) -> tuple[pd.Series[Any], npt.NDArray[np.str_]]:
    """After how many days a query is answered (NaT: never), and what the answer is."""
    value, seed = assumptions["answers_query_after"], assumptions.seed
    days = compute_days(query_ids, "query", value, seed)
    is_answered = compute_shares(query_ids, "is answered", seed) >= value["never"]
    codes = np.array(["corrected", "confirmed", "cannot_say"])
    bounds = np.cumsum([value[code] for code in codes])
    which = np.searchsorted(bounds / bounds[-1], compute_shares(query_ids, "answer", seed), side="right")
    return days.where(is_answered), codes[np.minimum(which, len(codes) - 1)]


def derive_figures(study: Study, assumptions: Assumptions) -> pd.DataFrame:
    """Every count that the sites report: site_id, month, figure, evaluation, nhs_england, reported_on.

    Months that a site never reports are left out. Budgets are fewer than plans; what NHS England was told differs.
    """
    value, seed = assumptions["figures"], assumptions.seed
    columns = ["site_id", "month", "figure", "evaluation", "nhs_england", "reported_on"]
    months = list_months(study.fieldwork.figures) if study.fieldwork.figures else []
    rows = []
    for site in study.sites:
        (size,) = compute_shares([site.site_id], "size", seed)
        span = value["small_most"] - value["small_least"]
        final = value["large"] if site.site_id in value["large_sites"] else value["small_least"] + span * size
        names = [f"{site.site_id}:{month}" for month in months]
        late = assumptions["reports_figures_after"]
        delays = compute_days(names, "figures", late, seed)
        is_told = compute_shares(names, "tells figures", seed) >= late["never"]
        differs = compute_shares(names, "differs", seed) < value["months_that_differ"]
        by = np.exp(value["spread_of_difference"] * ndtri(np.clip(compute_shares(names, "by", seed), 1e-9, 1 - 1e-9)))
        for place, month in enumerate(months):
            plans = final * (0.1 + 0.9 * (place + 1) / len(months))
            ended_on = add_months(date.fromisoformat(f"{month}-01"), 1) - timedelta(days=1)
            for figure in study.fieldwork.figures:
                count = round(plans * (value["budgets_share"] if figure.id == "budgets" else 1.0))
                other = round(count * by[place]) if differs[place] else count
                if is_told[place] and figure.from_month <= month <= figure.until_month:
                    rows.append(
                        (site.site_id, month, figure.id, count, other, ended_on + delays[place].to_pytimedelta())
                    )
    return pd.DataFrame(rows, columns=columns).astype({"reported_on": "datetime64[s]"})
