"""Models of attrition: time to loss, differential attrition, equivalence at baseline, who is lost, weights, and the
effect that can still be detected.

All of it is made from the rows of `study.attrition.derive_attrition_rows`, and of people's characteristics at the
baseline (`derive_characteristics`). The estimates come from statsmodels and scipy. The one thing that neither has, a
cluster-robust covariance for few clusters with its degrees of freedom, is `compute_cluster_covariance`. Where a number
cannot be given there is a `Gap`, or words in the column `gap`, and never a bare NaN.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from study.attrition import (
    AWAITED,
    IN_SEVERAL_ARMS,
    NOT_ALLOCATED,
    Gap,
    derive_pattern_table,
    derive_patterns,
    derive_reason_table,
    derive_return_table,
    find_benchmark_place,
    find_gaps,
    find_levels,
    settle_arms,
)
from study.protocol import Arm, PowerBasis, Study

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

CAUSES: Mapping[str, str] = {"loss": "Lost", "death": "Died", "exclusion": "Excluded by the study team"}
"""What ends a person's time in the study; each competes with the others."""

_OUT_OF_ARMS = (NOT_ALLOCATED, IN_SEVERAL_ARMS)


def find_pairs(arms: Sequence[Arm]) -> list[tuple[str, str]]:
    """Each intervention arm with each comparison arm; where there is only one of the two kinds, each later arm with the
    first."""
    comparisons = [arm.id for arm in arms if arm.role == "comparison"]
    if not comparisons or len(comparisons) == len(arms):
        comparisons = [arm.id for arm in arms[:1]]
    return [(arm.id, other) for other in comparisons for arm in arms if arm.id not in comparisons]


def _select(rows: pd.DataFrame, wave: str, respondents: Sequence[str]) -> pd.DataFrame:
    """One row per participant in one arm at a wave: of these respondents the one whose return is in, else one that is
    expected, the first named if there are several."""
    rows = settle_arms(rows)
    own = rows[(rows["wave"] == wave) & rows["respondent"].isin(respondents) & ~rows["arm"].isin(_OUT_OF_ARMS)]
    if len(respondents) > 1:
        order = own["respondent"].map({name: place for place, name in enumerate(respondents)})
        best = own.assign(order=order, is_out=~own["is_returned"], is_odd=~own["is_expected"])
        own = own.loc[best.sort_values(["is_out", "is_odd", "order"], kind="stable").index]
    return own.drop_duplicates("participant_id").sort_values("participant_id")


# Time to loss -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TimeToLoss:
    """`people`: as `derive_times` gives them. `curves`: arm, cause, day, incidence_pct, low_pct, high_pct, gap; day 0
    and each day on which the arm's curve rises. `at_times`: arm, day, n_at_risk, cause, n (so far), incidence_pct,
    low_pct, high_pct, gap. `gap` says why there is no interval ("" where there is one)."""

    people: pd.DataFrame
    curves: pd.DataFrame
    at_times: pd.DataFrame
    gaps: tuple[Gap, ...]


def derive_times(rows: pd.DataFrame, as_of: date, ends_on: date) -> tuple[pd.DataFrame, tuple[Gap, ...]]:
    """How long each participant was in: participant_id, arm, days (since their start), outcome (of CAUSES; "" still in
    when last looked at).

    Lost is whoever left for a reason that counts as a loss, and whoever returned nothing any more without a word: from
    the last day of the first wave that they missed since. That is known only afterwards, so the newest waves show too
    few of them. People are followed until they completed, or else until `as_of` or `ends_on` (of data collection).
    """
    rows = settle_arms(rows)
    people = rows.drop_duplicates("participant_id").set_index("participant_id")
    people = people[["arm", "started_on", "left_on", "left_kind", "completed_on"]]
    silent_on = _find_silent(rows).reindex(people.index)
    is_silent = silent_on.notna() & ~(people["left_on"] <= silent_on)
    gone_on = people["left_on"].mask(is_silent, silent_on)
    outcome = people["left_kind"].mask(is_silent, "loss")
    until = pd.Timestamp(min(as_of, ends_on))
    last_on = people["completed_on"].where(people["completed_on"] < until, until)
    is_gone = gone_on <= last_on
    people["days"] = (gone_on.where(is_gone, last_on) - people["started_on"]).dt.days.clip(lower=0)
    people["outcome"] = outcome.where(is_gone, "").astype("str")
    gaps = []
    if n_unknown := int(people["days"].isna().sum()):
        gaps.append(Gap("time to loss", f"Nobody told when these people joined, so they are left out: {n_unknown}."))
    people = people.dropna(subset="days").reset_index()
    return people[["participant_id", "arm", "days", "outcome"]].astype({"days": "int64"}), tuple(gaps)


def _find_silent(rows: pd.DataFrame) -> pd.Series[Any]:
    """By participant, the last day of the first of the waves that they missed up to now."""
    rows = rows[rows["is_expected"] & (rows["reason"] != AWAITED) & rows["last_on"].notna()]
    if rows.empty:
        return pd.Series(dtype=rows["last_on"].dtype)
    waves = rows.groupby(["participant_id", "wave"], sort=False)[["last_on", "is_returned"]].max().reset_index()
    came_on = waves[waves["is_returned"]].groupby("participant_id")["last_on"].max()
    missed = waves[~waves["is_returned"].astype(bool)]
    since = came_on.reindex(missed["participant_id"]).to_numpy()
    first: pd.Series[Any] = missed[~(missed["last_on"] <= since)].groupby("participant_id")["last_on"].min()
    return first


def find_times(rows: pd.DataFrame, study: Study) -> list[int]:
    """The days since the start on which follow-ups are due in the middle case: where curves are read off."""
    follow_ups = [wave.id for wave in study.waves if wave.role == "follow_up"]
    own = rows[rows["wave"].isin(follow_ups)]
    days = (own["due_on"] - own["started_on"]).dt.days.groupby(own["wave"]).median().dropna()
    return sorted({max(int(day), 0) for day in days})


def derive_time_to_loss(
    rows: pd.DataFrame, arms: Sequence[str], as_of: date, ends_on: date, times: Sequence[int], confidence: float = 0.95
) -> TimeToLoss:
    """Cumulative incidence of each of CAUSES by arm, with the others as competing events, and the numbers at risk.

    The estimate and its standard error are those of statsmodels (`CumIncidenceRight`: Aalen and Johansen 1978; error
    by the delta method, Dinse and Larson 1986, Marubini and Valsecchi 1995); intervals are on the scale of
    log(-log(incidence)), as Stata's stcompet gives them (Coviello and Boggess 2004). At risk on a day: who was still
    in at its beginning.
    """
    people, gaps = derive_times(rows, as_of, ends_on)
    curves, at_times, more = [], [], list(gaps)
    for arm in arms:
        own = people[people["arm"] == arm]
        if own.empty:
            more.append(Gap(f"time to loss, arm {arm}", "Nobody is in this arm."))
            continue
        curve = _estimate_incidence(own, confidence).assign(arm=arm)
        curves.append(curve)
        at_times.append(_read_off(own, curve, times).assign(arm=arm))
    told = ["incidence_pct", "low_pct", "high_pct", "gap"]
    return TimeToLoss(
        people,
        _stack(curves, ["arm", "cause", "day", *told]),
        _stack(at_times, ["arm", "day", "n_at_risk", "cause", "n", *told]),
        tuple(more),
    )


def _stack(parts: Sequence[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _estimate_incidence(people: pd.DataFrame, confidence: float) -> pd.DataFrame:
    from scipy.stats import norm
    from statsmodels.duration.survfunc import CumIncidenceRight  # type: ignore[import-untyped]  # it ships no types

    present = [cause for cause in CAUSES if (people["outcome"] == cause).any()]
    status = people["outcome"].map({cause: place for place, cause in enumerate(present, start=1)}).fillna(0)
    found = None
    if present:
        with np.errstate(divide="ignore", invalid="ignore"):  # of the day on which the last ones at risk leave
            found = CumIncidenceRight(people["days"].to_numpy(float), status.to_numpy(int))
    parts = []
    for cause in CAUSES:
        days, incidence, error = np.zeros(1), np.zeros(1), np.zeros(1)
        if found is not None and cause in present:
            place = present.index(cause)
            rises = np.diff(found.cinc[place], prepend=0) > 0
            days = np.append(days, found.times[rises])
            incidence = np.append(incidence, found.cinc[place][rises])
            error = np.append(error, found.cinc_se[place][rises])
        can = np.isfinite(error) & (incidence > 0) & (incidence < 1 - 1e-12)
        low, high = incidence.copy(), incidence.copy()
        logged = np.log(incidence[can])
        width = norm.ppf((1 + confidence) / 2) * error[can] / (incidence[can] * np.abs(logged))
        low[can], high[can] = np.exp(logged * np.exp(width)), np.exp(logged * np.exp(-width))
        low[~can], high[~can] = np.nan, np.nan
        gap = np.where(can, "", np.where(incidence > 0, "Nobody was left at risk: no interval.", "None so far."))
        parts.append(
            pd.DataFrame(
                {"cause": cause, "day": days.astype(int), "incidence_pct": 100 * incidence, "low_pct": 100 * low,
                 "high_pct": 100 * high, "gap": gap}
            )
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _read_off(people: pd.DataFrame, curve: pd.DataFrame, times: Sequence[int]) -> pd.DataFrame:
    rows = []
    for day in times:
        n_at_risk = int((people["days"] >= day).sum())
        for cause, own in curve.groupby("cause", sort=False):
            last = own[own["day"] <= day].iloc[-1]
            n = int(((people["outcome"] == cause) & (people["days"] <= day)).sum())
            beyond = "Nobody is followed for so long."
            is_beyond = n_at_risk == 0 and day > people["days"].max()
            told = {name: np.nan if is_beyond else last[name] for name in ("incidence_pct", "low_pct", "high_pct")}
            gap = beyond if is_beyond else last["gap"]
            rows.append({"day": day, "n_at_risk": n_at_risk, "cause": cause, "n": n, **told, "gap": gap})
    return pd.DataFrame(rows, columns=["day", "n_at_risk", "cause", "n", "incidence_pct", "low_pct", "high_pct", "gap"])


# Differential attrition ---------------------------------------------------------------------------------------------


class Boundary(NamedTuple):
    """By overall attrition in whole per cent (the place), the most differential attrition, in tenths of a point; -1
    where none is allowed."""

    cautious: Numbers
    optimistic: Numbers


def parse_boundary(text: str) -> Boundary:
    """The table of the What Works Clearinghouse: CSV with the overall attrition and the two limits, a blank where none
    is allowed; lines that begin with # are notes. Raises ValueError unless overall attrition counts up from 0."""
    lines = [line.split(",") for line in text.splitlines() if line and not line.startswith("#")][1:]
    if [line[0] for line in lines] != [str(place) for place in range(len(lines))] or not lines:
        raise ValueError("The boundary of attrition must have one line for each per cent from 0 on, in order.")
    cautious, optimistic = (
        np.array([round(10 * float(line[at])) if line[at] else -1 for line in lines], np.int64) for at in (1, 2)
    )
    return Boundary(cautious, optimistic)


DIFFERENTIAL_COLUMNS = (
    *("of", "intervention", "comparison", "n_intervention", "lost_intervention", "n_comparison", "lost_comparison"),
    *("overall_pct", "differential_pct", "assumption", "limit_pct", "verdict", "more_intervention", "more_comparison"),
    "gap",
)


def derive_differential(
    rows: pd.DataFrame, study: Study, boundary: Boundary, wave: str, respondents: Sequence[str]
) -> pd.DataFrame | Gap:
    """Whether attrition at a wave is low by the boundary of the What Works Clearinghouse; randomised studies only.

    DIFFERENTIAL_COLUMNS, one row for each pair of arms, `of` and assumption. `of`: "allocated" (the rule: everybody
    allocated counts, deaths and people found not eligible too), and "expected" beside it. assumption: "cautious" or
    "optimistic". overall_pct is rounded to the nearest per cent (half a per cent up), as the handbook reads its table
    off; differential_pct is exact, in points. verdict: "low" or "high". more_intervention, more_comparison: how many
    more returns in this arm alone would bring attrition to low, by trying every number (0: it is low; missing: no
    number would, which can be so in the arm that lost fewer).

    Only people for whom the wave is over count. Gap where the study is not randomised, has one arm, or nobody's wave
    is over. Source: WWC Procedures and Standards Handbook 4.1 (2020), chapter II and table II.1.
    """
    place = f"differential attrition at {wave}, {', '.join(respondents)}"
    if not study.is_randomised:
        return Gap(place, "The study is not randomised at every site: see the equivalence of the analysed sample.")
    pairs = find_pairs(study.arms)
    if not pairs:
        return Gap(place, "The study has one arm: there is nothing to compare it with.")
    own = _select(rows, wave, respondents)
    is_left_out = own["why_not_expected"].isin(("truncated", "not_asked", "not_defined", "completed", "not_due"))
    own = own[own["is_over"] & ~is_left_out]
    if own.empty:
        return Gap(place, "The wave is not over for anybody yet.")
    parts = []
    for of, among in (("allocated", own), ("expected", own[own["is_expected"]])):
        dead = (among["reason_kind"] == "death") | (among["why_not_expected"] == "died")
        by_arm = among.assign(is_lost=~among["is_returned"], may_return=~among["is_returned"] & ~dead).groupby("arm")
        counts = by_arm.agg(n=("is_lost", "size"), lost=("is_lost", "sum"), open=("may_return", "sum"))
        figures = {arm: _Attrition(*map(int, row)) for arm, *row in counts.itertuples()}
        for intervention, comparison in pairs:
            both = [figures.get(arm, _Attrition(0, 0, 0)) for arm in (intervention, comparison)]
            for assumption in Boundary._fields:
                judged = _judge(both[0], both[1], assumption, getattr(boundary, assumption))
                parts.append((of, intervention, comparison, *judged))
    return pd.DataFrame(parts, columns=list(DIFFERENTIAL_COLUMNS)).astype(
        {"more_intervention": "Int64", "more_comparison": "Int64"}
    )


class _Attrition(NamedTuple):
    """Of one arm: people, how many are lost, and how many of these are alive."""

    n: int
    lost: int
    open: int


def _judge(one: _Attrition, other: _Attrition, assumption: str, limits: Numbers) -> tuple[Any, ...]:
    told = (one.n, one.lost, other.n, other.lost)
    if not one.n or not other.n:
        gap = "Nobody counts in one of the two arms."
        return (*told, np.nan, np.nan, assumption, np.nan, "", None, None, gap)
    overall = _find_overall(*told)
    limit = limits[overall] if overall < len(limits) else -1
    gap = "" if limit >= 0 else f"At {overall} % overall no difference between the arms is small enough."
    fewer = [np.arange(arm.open + 1) for arm in (one, other)]
    passing = [
        np.flatnonzero(_is_low(one.n, one.lost - fewer[0], other.n, other.lost + 0 * fewer[0], limits)),
        np.flatnonzero(_is_low(one.n, one.lost + 0 * fewer[1], other.n, other.lost - fewer[1], limits)),
    ]
    more = [int(enough[0]) if len(enough) else None for enough in passing]
    verdict = "low" if more[0] == 0 else "high"
    differential = 100 * abs(one.lost / one.n - other.lost / other.n)
    limit_pct = limit / 10 if limit >= 0 else np.nan
    return (*told, overall, differential, assumption, limit_pct, verdict, *more, gap)


def _find_overall(n_1: int, lost_1: Any, n_2: int, lost_2: Any) -> Any:
    n = n_1 + n_2
    return (200 * (lost_1 + lost_2) + n) // (2 * n)


def _is_low(n_1: int, lost_1: Numbers, n_2: int, lost_2: Numbers, limits: Numbers) -> npt.NDArray[np.bool_]:
    """In whole numbers, so that what lies on the boundary is judged right."""
    overall = _find_overall(n_1, lost_1, n_2, lost_2)
    limit = np.append(limits, -1)[np.minimum(overall, len(limits))]
    is_low: npt.NDArray[np.bool_] = (1000 * np.abs(lost_1 * n_2 - lost_2 * n_1) <= limit * n_1 * n_2) & (limit >= 0)
    return is_low


# Differences between two groups -------------------------------------------------------------------------------------

SMALL_DIFFERENCE, LARGE_DIFFERENCE = 0.05, 0.25
MEANINGS: Mapping[str, str] = {
    "equivalent": "At most 0.05 standard deviations: the groups count as equivalent",
    "adjust": "Over 0.05 and at most 0.25 standard deviations: equivalent only if the analysis adjusts for it",
    "not_equivalent": "Over 0.25 standard deviations: not equivalent, and no adjustment mends that",
}
DIFFERENCE_COLUMNS = (
    *("characteristic", "level", "measure", "n_1", "n_2", "missing_1", "missing_2", "value_1", "value_2", "sd_1"),
    *("sd_2", "difference", "meaning", "gap"),
)


def derive_characteristics(study: Study, rows: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """What people were like at the baseline: one row per participant of `rows`, indexed by participant_id, ordered.

    Columns: cohort (where the study has several), and the score of every scale at the baseline, called
    "<instrument>.<scale>", or "<instrument>.<scale> (<respondent>)" where it is not the person's own; NaN where there
    is none. `scores`: the table SCORES of study.datasets. More columns (age, sex) can be joined by the index: numbers
    are compared by their means, text by the share of each of its levels ("" or missing: not known).
    """
    people = rows.drop_duplicates("participant_id").set_index("participant_id")[["cohort"]].sort_index()
    if len(study.cohorts) < 2:
        people = people.drop(columns="cohort")
    own = scores[scores["wave"] == study.baseline.id]
    own = own.astype(dict.fromkeys(("participant_id", "respondent", "instrument", "scale"), "str"))
    names = own["instrument"] + "." + own["scale"]
    own = own.assign(name=names.where(own["respondent"] == "self", names + " (" + own["respondent"] + ")"))
    wide = own.drop_duplicates(["participant_id", "name"]).pivot(index="participant_id", columns="name", values="score")
    characteristics: pd.DataFrame = people.join(wide[list(own["name"].unique())].rename_axis(columns=None))
    return characteristics


def choose_characteristics(
    study: Study, characteristics: pd.DataFrame, respondents: Sequence[str] = ("self",)
) -> pd.DataFrame:
    """Those that go into a model: all but scores, and one score of each instrument and respondent, that of a
    [[power]] of the protocol or else the first of its definition. Scales of one instrument tell much the same, and by
    several value sets nearly so. `respondents`: who answers for the participant; the first of them whose score is known
    counts, since a person has one or the other."""
    of_power = {f"{basis.instrument}.{basis.scale}" for basis in study.power}
    chosen: dict[tuple[str, str], tuple[str, str]] = {}
    for name in map(str, characteristics.columns):
        instrument, dot, rest = name.partition(".")
        if not dot or instrument not in study.instruments:
            chosen[name, ""] = (name, "")
            continue
        scale, _, whose = rest.partition(" (")
        whose = whose.rstrip(")") or "self"
        key = (instrument, "" if whose in respondents else whose)
        if key not in chosen or f"{instrument}.{scale}" in of_power:
            chosen[key] = (f"{instrument}.{scale}", key[1] or "")
    found: dict[str, pd.Series[Any]] = {}
    for (instrument, _), (name, whose) in chosen.items():
        if name == instrument:
            found[name] = characteristics[name]
            continue
        names = [name if one == "self" else f"{name} ({one})" for one in ([whose] if whose else respondents)]
        there = [name for name in names if name in characteristics.columns]
        found[there[0]] = characteristics[there].bfill(axis="columns").iloc[:, 0]
    return pd.DataFrame(found, index=characteristics.index)


def derive_differences(characteristics: pd.DataFrame, is_first: pd.Series[Any]) -> pd.DataFrame:
    """Standardised differences between two groups of people: the first less the second, in standard deviations.

    `is_first`: by participant_id, whether in the first group; whoever is not in its index is in neither.
    DIFFERENCE_COLUMNS, one row per number and per level of a text: n and missing of each group; value (mean, or per
    cent) and sd (NaN for a share); measure "hedges_g" (difference of means over the pooled standard deviation, times
    1 - 3 / (4 N - 9)) or "cox_index" (difference of log odds / 1.65, times the same); meaning (of MEANINGS); gap (why
    there is no difference). Source: WWC Handbook 4.1, chapter II and appendix E.
    """
    people = characteristics.reindex(is_first.index)
    first = is_first.to_numpy(bool)
    found: list[dict[str, Any]] = []
    for name in people.columns:
        values = people[name]
        if pd.api.types.is_numeric_dtype(values):
            found.append({"characteristic": name, "level": "", **_compare_means(values.to_numpy(float), first)})
            continue
        known = values.fillna("").astype("str")
        levels = sorted(set(known) - {""})
        for level in levels or [""]:
            answers = np.where(known == "", np.nan, known == level).astype(float)
            found.append({"characteristic": name, "level": level, **_compare_shares(answers, first)})
    table = pd.DataFrame(found, columns=list(DIFFERENCE_COLUMNS))
    size = table["difference"].astype(float).abs()
    meaning = np.select(
        [size.isna(), size <= SMALL_DIFFERENCE, size <= LARGE_DIFFERENCE], ["", *list(MEANINGS)[:2]], [*MEANINGS][2]
    )
    return table.assign(meaning=pd.Series(meaning, table.index, dtype="str"))


def _split(values: Floats, first: npt.NDArray[np.bool_]) -> tuple[list[Floats], dict[str, Any]]:
    groups = [values[first], values[~first]]
    known = [group[~np.isnan(group)] for group in groups]
    counts = {f"n_{at}": len(group) for at, group in enumerate(known, start=1)}
    counts |= {f"missing_{at}": int(np.isnan(group).sum()) for at, group in enumerate(groups, start=1)}
    values_of = {
        f"value_{at}": float(group.mean()) if len(group) else np.nan for at, group in enumerate(known, start=1)
    }
    return known, {**counts, **values_of, "sd_1": np.nan, "sd_2": np.nan, "difference": np.nan, "gap": ""}


def _compare_means(values: Floats, first: npt.NDArray[np.bool_]) -> dict[str, Any]:
    from statsmodels.stats.meta_analysis import effectsize_smd  # type: ignore[import-untyped]  # it ships no types

    known, told = _split(values, first)
    told["measure"] = "hedges_g"
    n_1, n_2 = map(len, known)
    if min(n_1, n_2) < 2:
        return {**told, "gap": "A group has fewer than two people whose value is known."}
    told["sd_1"], told["sd_2"] = (float(group.std(ddof=1)) for group in known)
    scale = max(1.0, float(np.abs(np.concatenate(known)).max()))
    if max(told["sd_1"], told["sd_2"]) <= 1e-12 * scale:
        return {**told, "gap": "Everybody within a group has the same value: there is no standard deviation."}
    difference, _ = effectsize_smd(told["value_1"], told["sd_1"], n_1, told["value_2"], told["sd_2"], n_2)
    return {**told, "difference": float(difference)}


def _compare_shares(values: Floats, first: npt.NDArray[np.bool_]) -> dict[str, Any]:
    from scipy.special import logit

    known, told = _split(values, first)
    told["measure"] = "cox_index"
    n_1, n_2 = map(len, known)
    shares = told["value_1"], told["value_2"]
    told["value_1"], told["value_2"] = 100 * shares[0], 100 * shares[1]
    if not n_1 or not n_2:
        return {**told, "gap": "Of one of the groups nobody's value is known."}
    if n_1 + n_2 < 3:
        return {**told, "gap": "The groups have fewer than three people whose value is known."}
    if min(shares) <= 0 or max(shares) >= 1:
        return {**told, "gap": "In one of the groups it is so of nobody or of everybody: odds have no logarithm."}
    correction = 1 - 3 / (4 * (n_1 + n_2) - 9)
    return {**told, "difference": float(correction * (logit(shares[0]) - logit(shares[1])) / 1.65)}


def derive_equivalence(
    rows: pd.DataFrame,
    characteristics: pd.DataFrame,
    study: Study,
    wave: str,
    respondents: Sequence[str],
    analysed: Collection[str] | None = None,
) -> pd.DataFrame | Gap:
    """How alike the arms were at the baseline, among those who are in the analysis of a wave: `analysed`, or else
    everybody whose return is in.

    intervention, comparison, then DIFFERENCE_COLUMNS (1: intervention, 2: comparison), for each pair of arms. It is
    what stands in for differential attrition where the study is not randomised, and is of use in any other. Gap where
    there is one arm, or nobody in the analysis. Source: WWC Handbook 4.1, baseline equivalence.
    """
    place = f"equivalence at {wave}, {', '.join(respondents)}"
    pairs = find_pairs(study.arms)
    if not pairs:
        return Gap(place, "The study has one arm: there is nothing to compare it with.")
    own = _select(rows, wave, respondents)
    own = own[own["is_returned"] if analysed is None else own["participant_id"].isin(list(analysed))]
    if own.empty:
        return Gap(place, "Nobody's questionnaire of this wave is in.")
    if characteristics.columns.empty:
        return Gap(place, "Nothing is known of people at the baseline.")
    parts = []
    for intervention, comparison in pairs:
        both = own[own["arm"].isin((intervention, comparison))].set_index("participant_id")
        differences = derive_differences(characteristics, both["arm"] == intervention)
        parts.append(differences.assign(intervention=intervention, comparison=comparison))
    return pd.concat(parts, ignore_index=True)[["intervention", "comparison", *DIFFERENCE_COLUMNS]]


# Who is lost --------------------------------------------------------------------------------------------------------


def derive_losses(rows: pd.DataFrame, wave: str, respondents: Sequence[str]) -> pd.DataFrame:
    """Who is lost at a wave, deaths apart: participant_id (the index), arm, site, cohort, is_lost.

    People of whom it was expected, in an arm, for whom the wave is over; who died, before the window or in it, is
    neither lost nor in.
    """
    own = _select(rows, wave, respondents)
    own = own[own["is_expected"] & own["is_over"] & (own["reason_kind"] != "death")]
    own = own.assign(is_lost=~own["is_returned"])
    return own.set_index("participant_id")[["arm", "site", "cohort", "is_lost"]].sort_index()


def derive_lost_differences(losses: pd.DataFrame, characteristics: pd.DataFrame) -> pd.DataFrame | Gap:
    """Those who were lost (1) beside those who stayed (2): DIFFERENCE_COLUMNS. `losses`: from `derive_losses`."""
    if losses.empty or losses["is_lost"].all() or not losses["is_lost"].any():
        return Gap("who is lost", _find_one_sided(losses))
    if characteristics.columns.empty:
        return Gap("who is lost", "Nothing is known of people at the baseline.")
    return derive_differences(characteristics, losses["is_lost"])


def _find_one_sided(losses: pd.DataFrame) -> str:
    if losses.empty:
        return "The wave is not over for anybody yet."
    return "Everybody is lost: nobody stayed to compare them with." if losses["is_lost"].all() else "Nobody is lost."


class ClusterCovariance(NamedTuple):
    """`covariance` of the coefficients (k x k) and `df`, the degrees of freedom of each."""

    covariance: Floats
    df: Floats


def compute_cluster_covariance(
    design: Floats, residuals: Floats, weights: Floats, clusters: npt.NDArray[Any]
) -> ClusterCovariance:
    """The bias-reduced cluster-robust covariance (CR2) of weighted least squares, with Satterthwaite degrees of
    freedom, for few clusters.

    `design` n x k, `residuals` n, `weights` n above 0, `clusters` n labels. Of a generalised linear model give the
    working residuals and working weights of its last step. Each cluster's weighted residuals are multiplied by
    (I - H)^(-1/2), H being its block of the hat matrix, which makes the covariance unbiased if the weights are right;
    a direction that a cluster alone decides is left out. The degrees of freedom are those of a chi-square with the
    same mean and variance as each coefficient's variance. With every row a cluster of its own it is HC2.

    Sources: Bell and McCaffrey 2002; Pustejovsky and Tipton 2018; Imbens and Kolesar 2016.
    """
    root = np.sqrt(weights)
    x, e = design * root[:, None], residuals * root
    bread = np.linalg.inv(x.T @ x)
    half = np.linalg.cholesky(bread)
    n_terms = design.shape[1]
    parts: list[tuple[Floats, Floats, Floats]] = []
    for label in pd.unique(pd.Series(clusters)):
        own = clusters == label
        x_own, e_own = x[own], e[own]
        left, singular, _ = np.linalg.svd(x_own @ half, full_matrices=False)
        rest = 1 - np.minimum(singular, 1) ** 2
        factor = np.where(rest > 1e-10, 1 / np.sqrt(np.where(rest > 1e-10, rest, 1)), 0.0)
        # (I - H)^(-1/2) times rows: only the directions of the cluster's own design change.
        adjusted = x_own + left @ ((factor - 1)[:, None] * (left.T @ x_own))
        a = adjusted @ bread  # one column per coefficient
        parts.append((a.T @ e_own, x_own.T @ a, (a * a).sum(axis=0)))
    scores = np.array([score for score, _, _ in parts])
    covariance = scores.T @ scores
    df = np.empty(n_terms)
    for term in range(n_terms):
        through = np.array([cross[:, term] for _, cross, _ in parts])
        gram = np.diag([norm[term] for _, _, norm in parts]) - through @ bread @ through.T
        squared = (gram * gram).sum()
        df[term] = np.trace(gram) ** 2 / squared if squared > 0 else 0.0
    return ClusterCovariance(covariance, df)


@dataclass(frozen=True)
class Design:
    """A model's design: one row per person with all values known, the first column 1. `terms`: what each is called."""

    matrix: Floats
    terms: list[str]
    person: pd.Index[Any]
    gaps: tuple[Gap, ...]


LEAST_KNOWN = 0.8
"""The least share of people whose value of a characteristic is known, for it to be in a model."""


@dataclass(frozen=True)
class LossModel:
    """The odds of being lost, deaths apart. `terms`: term, odds_ratio, low, high, p, standard_error (of the log odds
    ratio), df, gap (why the interval is to be read with care). `method` in words, with its sources."""

    terms: pd.DataFrame
    n: int
    n_lost: int
    n_sites: int
    method: str
    gaps: tuple[Gap, ...]


METHOD_OF_LOSS = (
    "Logistic regression of loss (deaths left out) on arm and baseline characteristics (numbers per standard "
    "deviation); errors clustered by site with the bias-reduced covariance CR2 and t tests with Satterthwaite degrees "
    "of freedom (Bell and McCaffrey 2002; Pustejovsky and Tipton 2018). Below 4 degrees of freedom intervals and "
    "p-values are not reliable (Tipton 2015)."
)


def derive_design(
    losses: pd.DataFrame, characteristics: pd.DataFrame, reference_arm: str, with_characteristics: bool = True
) -> Design:
    """The design of a model of loss: 1, the arms but `reference_arm`, and the characteristics.

    Numbers are standardised among the people of the model; a text has a column for each level but its most frequent
    one. Characteristics that are known of fewer than LEAST_KNOWN of the people are left out (a carer's score where few
    have a carer), then people with a value missing, then columns that do not vary or follow from earlier ones. Each is
    told in `gaps`.
    """
    people = characteristics.reindex(losses.index) if with_characteristics else pd.DataFrame(index=losses.index)
    people = people.mask(people == "")
    gaps = []
    known = people.notna().mean()
    if never := [str(name) for name in people.columns if not known[name] > 0]:
        gaps.append(Gap("model of loss", f"Nobody's value is known, left out: {', '.join(never)}."))
    if scarce := [str(name) for name in people.columns if 0 < known[name] < LEAST_KNOWN]:
        words = f"Known of fewer than {LEAST_KNOWN:.0%} of the people, left out: {', '.join(scarce)}."
        gaps.append(Gap("model of loss", words.replace("%", " %")))
    people = people.drop(columns=[*never, *scarce])
    is_known = people.notna().all(axis="columns")
    if n_missing := int((~is_known).sum()):
        gaps.append(Gap("model of loss", f"People left out because a baseline value is missing: {n_missing}."))
    people, arms = people[is_known], losses.loc[is_known, "arm"]
    columns: dict[str, Floats] = {"(constant)": np.ones(len(people))}
    for arm in [name for name in dict.fromkeys(arms) if name != reference_arm]:
        columns[f"arm: {arm}"] = (arms == arm).to_numpy(float)
    for name in people.columns:
        values = people[name]
        if pd.api.types.is_numeric_dtype(values):
            spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
            centred = values.to_numpy(float) - float(values.mean() if len(values) else 0)
            columns[str(name)] = (
                centred / spread if spread > 1e-12 * max(1.0, float(values.abs().max())) else 0 * centred
            )
            continue
        for level in list(values.value_counts().index)[1:]:
            columns[f"{name}: {level}"] = (values == level).to_numpy(float)
    matrix = np.column_stack(list(columns.values()))
    kept = _find_independent(matrix)
    terms = list(columns)
    if dropped := [term for place, term in enumerate(terms) if place not in kept]:
        gaps.append(Gap("model of loss", f"Does not vary, or follows from the others, left out: {', '.join(dropped)}."))
    return Design(matrix[:, kept], [terms[place] for place in kept], people.index, tuple(gaps))


def _find_independent(matrix: Floats) -> list[int]:
    """The columns that do not follow from those before them."""
    kept: list[int] = []
    for place in range(matrix.shape[1]):
        if np.linalg.matrix_rank(matrix[:, [*kept, place]]) > len(kept):
            kept.append(place)
    return kept


def find_separated(design: Floats, outcome: npt.NDArray[np.bool_], terms: Sequence[str]) -> list[str]:
    """The terms by which a 0/1 outcome is separated: along which the likelihood has no maximum; none if there is one.

    There is separation, complete or quasi-complete, where some combination of the columns is never negative for those
    with the outcome, never positive for those without, and not 0 for all: a linear programme finds it (Albert and
    Anderson 1984; Konis 2007). The constant is told only where no other term takes part.
    """
    from scipy.optimize import linprog

    signed = np.unique(np.where(outcome[:, None], design, -design), axis=0)
    found = linprog(-signed.sum(axis=0), A_ub=-signed, b_ub=np.zeros(len(signed)), bounds=(-1, 1), method="highs")
    if found.x is None or found.fun is None or -found.fun <= 1e-7:
        return []
    taking_part = [term for term, at in zip(terms, found.x, strict=True) if abs(at) > 1e-7]
    return taking_part[1:] if taking_part[0] == "(constant)" and len(taking_part) > 1 else taking_part


def _fit_logistic(design: Design, outcome: npt.NDArray[np.bool_], place: str) -> Any:
    """statsmodels' fit, or a Gap."""
    from statsmodels.genmod.families import Binomial  # type: ignore[import-untyped]  # it ships no types
    from statsmodels.genmod.generalized_linear_model import GLM  # type: ignore[import-untyped]  # it ships no types

    if not len(outcome) or outcome.all() or not outcome.any():
        return Gap(place, "Of those whose values are known everybody, or nobody, is lost.")
    if len(outcome) <= len(design.terms):
        return Gap(place, f"There are no more people ({len(outcome)}) than terms ({len(design.terms)}).")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an outcome that is separated, which is asked next
        fit = GLM(outcome.astype(float), design.matrix, family=Binomial()).fit()
    # Where the likelihood has no maximum, the fit stops only when some odds are beyond e^18: else nobody need ask.
    is_far = not fit.converged or float(np.abs(design.matrix @ fit.params).max()) > 12
    if is_far and (separated := find_separated(design.matrix, outcome, design.terms)):
        words = f"Loss is separated by {', '.join(separated)}: within it everybody or nobody is lost, so no odds ratio"
        return Gap(place, f"{words} is finite and none is given.")
    return fit if fit.converged else Gap(place, "The estimates did not settle.")


def fit_loss_model(
    losses: pd.DataFrame, characteristics: pd.DataFrame, reference_arm: str, confidence: float = 0.95
) -> LossModel | Gap:
    """The odds ratio of being lost for each arm and characteristic, all in one model: METHOD_OF_LOSS.

    `losses`: from `derive_losses`. Gap where everybody or nobody is lost, where loss is separated (instead of estimates
    that run to infinity), or where there is one site.
    """
    from scipy.stats import t

    place = "model of loss"
    if losses.empty or losses["is_lost"].all() or not losses["is_lost"].any():
        return Gap(place, _find_one_sided(losses))
    design = derive_design(losses, characteristics, reference_arm)
    people = losses.loc[design.person]
    sites = people["site"].to_numpy(object)
    n_sites = len(set(sites))
    if n_sites < 2:
        return Gap(place, "All people are of one site: errors cannot be clustered by site.")
    fit = _fit_logistic(design, people["is_lost"].to_numpy(bool), place)
    if isinstance(fit, Gap):
        return fit
    robust = compute_cluster_covariance(design.matrix, fit.resid_working, _find_weights(fit), sites)
    gaps = list(design.gaps)
    n_lost = int(people["is_lost"].sum())
    n_scarce = min(n_lost, len(people) - n_lost)
    if n_scarce < 10 * (len(design.terms) - 1):
        words = f"Of the rarer of lost and stayed there are {n_scarce}, of terms {len(design.terms) - 1}: "
        words += "fewer than 10 for each term (Peduzzi and others 1996)."
        gaps.append(Gap(place, words))
    error = np.sqrt(np.diag(robust.covariance))
    is_given = (robust.df > 0) & (error > 0)
    df, safe = np.where(is_given, robust.df, 1.0), np.where(is_given, error, 1.0)
    width = t.ppf((1 + confidence) / 2, df) * safe
    with np.errstate(over="ignore"):
        low, high = np.exp(fit.params - width), np.exp(fit.params + width)
    care = np.where(
        ~is_given, "One site alone decides this term: no error can be given.",
        np.where(robust.df < 4, "Fewer than 4 degrees of freedom: the interval is not reliable.", ""),
    )  # fmt: skip
    terms = pd.DataFrame(
        {
            "term": design.terms,
            "odds_ratio": np.exp(fit.params),
            "low": np.where(is_given, low, np.nan),
            "high": np.where(is_given, high, np.nan),
            "p": np.where(is_given, 2 * t.sf(np.abs(fit.params / safe), df), np.nan),
            "standard_error": np.where(is_given, error, np.nan),
            "df": robust.df,
            "gap": care,
        }
    )
    return LossModel(terms, len(people), n_lost, n_sites, METHOD_OF_LOSS, tuple(gaps))


def _find_weights(fit: Any) -> Floats:
    weights: Floats = fit.fittedvalues * (1 - fit.fittedvalues)
    return weights


# Weights ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weights:
    """`people`: participant_id, weight, weight_untrimmed (NaN without one), gap (why there is none), for everybody in
    an arm for whom the wave is over. `recipe`: how they were made, in words. `effective_n`: Kish's; of `n` people.
    """

    people: pd.DataFrame
    recipe: str
    n: int
    effective_n: float
    mean: float
    largest: float
    n_trimmed: int
    gaps: tuple[Gap, ...]


def derive_weights(
    losses: pd.DataFrame, characteristics: pd.DataFrame, reference_arm: str, trim_pct: tuple[float, float] = (1, 99)
) -> Weights | Gap:
    """Stabilised inverse-probability-of-attrition weights of those who stayed.

    weight = P(stayed | arm) / P(stayed | arm, characteristics), each from a logistic regression, and then set to the
    percentiles `trim_pct` of the weights where it lies beyond them. Deaths are left out: the weights stand for those
    who are alive. The mean of good weights is near 1. effective_n = (sum w)^2 / sum w^2 (Kish 1965).

    Gap as for `fit_loss_model`. Sources: Robins, Hernan and Brumback 2000; Cole and Hernan 2008 (stabilising, trimming,
    the mean as a check).
    """
    place = "weights"
    if losses.empty or losses["is_lost"].all() or not losses["is_lost"].any():
        return Gap(place, _find_one_sided(losses))
    design = derive_design(losses, characteristics, reference_arm)
    stayed = ~losses.loc[design.person, "is_lost"].to_numpy(bool)
    full = _fit_logistic(design, stayed, place)
    if isinstance(full, Gap):
        return Gap(place, full.words)
    by_arm = derive_design(losses.loc[design.person], characteristics, reference_arm, with_characteristics=False)
    base = _fit_logistic(by_arm, stayed, place)
    if isinstance(base, Gap):
        return Gap(place, base.words)
    raw = base.fittedvalues[stayed] / full.fittedvalues[stayed]
    low, high = np.percentile(raw, trim_pct)
    trimmed = np.clip(raw, low, high)
    people = pd.DataFrame({"participant_id": losses.index, "weight": np.nan, "weight_untrimmed": np.nan})
    at = people["participant_id"].isin(design.person[stayed]).to_numpy(bool)
    order = pd.Index(design.person[stayed]).get_indexer(people.loc[at, "participant_id"])
    people.loc[at, "weight"], people.loc[at, "weight_untrimmed"] = trimmed[order], raw[order]
    is_lost = losses["is_lost"].to_numpy(bool)
    gap = np.select([at, is_lost], ["", "Lost: not in the analysis."], "A baseline value is missing.")
    people["gap"] = pd.Series(gap, people.index, dtype="str")
    terms = ", ".join(term for term in design.terms if term != "(constant)") or "nothing"
    recipe = (
        "weight = P(stayed | arm) / P(stayed | arm, characteristics), by logistic regression among people whose wave "
        f"is over, deaths left out; terms: {terms}; set to their percentiles {trim_pct[0]:g} and {trim_pct[1]:g} "
        f"({low:.4f} and {high:.4f}) beyond these. Use it as a probability weight, with errors clustered by site."
    )
    return Weights(
        people, recipe, len(raw), compute_effective_n(trimmed), float(trimmed.mean()), float(trimmed.max()),
        int((trimmed != raw).sum()), design.gaps,
    )  # fmt: skip


def compute_effective_n(weights: Floats) -> float:
    """How many equally weighted people give the same precision: (sum w)^2 / sum w^2 (Kish 1965); 0 of nobody."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


WEIGHT_STATUSES: Mapping[str, str] = {
    "weighted": "Has a weight",
    "lost": "Lost: stands in nobody's sample, and others stand for them",
    "died": "Died: the weights stand for those who are alive",
    "not_expected": "Nothing was expected of them at the wave",
    "not_over": "The wave is not over for them yet",
    "no_baseline_value": "A baseline value that the weights rest on is missing",
    "no_model": "No model could be fitted: the attrition report says why",
    "not_in_arm": "In no arm",
}
"""Whether somebody has a weight, and why not."""
WEIGHT_RECIPE = (
    "P(stayed | arm) / P(stayed | arm, characteristics at baseline), each by logistic regression among those whose "
    "wave is over, deaths left out, and set to the 1st and 99th percentile of the weights beyond these. The mean is "
    "near 1. Use it as a probability weight, with errors clustered by site. Characteristics, percentiles and the "
    "effective number of people are in the attrition report."
)


def derive_weight_columns(
    people: pd.Series[Any], rows: pd.DataFrame, weights: Weights | Gap, wave: str, respondents: Sequence[str]
) -> pd.DataFrame:
    """The weights as columns, one row for each of `people` (participant_id), in their order: attrition_weight (six
    decimals; NaN without one) and attrition_weight_status (WEIGHT_STATUSES)."""
    own = _select(rows, wave, respondents).set_index("participant_id").reindex(people)
    is_in = own["is_expected"].notna().to_numpy(bool)
    flags = {name: own[name].fillna(False).to_numpy(bool) for name in ("is_expected", "is_over", "is_returned")}
    died = ((own["reason_kind"] == "death") | (own["why_not_expected"] == "died")).to_numpy(bool)
    found = np.full(len(people), np.nan)
    if isinstance(weights, Weights):
        found = weights.people.set_index("participant_id")["weight"].reindex(people).to_numpy(float)
    counts = flags["is_expected"] & flags["is_over"] & ~died
    found = np.where(counts & flags["is_returned"], np.round(found, 6), np.nan)
    status = np.select(
        [
            ~is_in, died, ~flags["is_expected"], ~flags["is_over"], ~flags["is_returned"],
            np.full(len(people), isinstance(weights, Gap)), np.isnan(found),
        ],
        ["not_in_arm", "died", "not_expected", "not_over", "lost", "no_model", "no_baseline_value"],
        "weighted",
    )  # fmt: skip
    return pd.DataFrame({"attrition_weight": found, "attrition_weight_status": pd.Series(status, dtype="str")})


def fit_weights(
    study: Study, rows: pd.DataFrame, characteristics: pd.DataFrame
) -> tuple[str, tuple[str, ...], Weights | Gap]:
    """The wave and the respondents that comparisons look at, and the weights for them, as `derive_attrition` has them.

    `characteristics`: from `derive_characteristics`, with more columns or not.
    """
    wave, respondents = find_comparison(study)
    pairs = find_pairs(study.arms)
    chosen = choose_characteristics(study, characteristics, respondents)
    reference = pairs[0][1] if pairs else study.arms[0].id
    return wave, respondents, derive_weights(derive_losses(rows, wave, respondents), chosen, reference)


# The effect that can be detected ------------------------------------------------------------------------------------

DETECTABLE_COLUMNS = (
    *("cohort", "when", "intervention", "comparison", "n_intervention", "n_comparison", "n_sites", "mean_site_size"),
    *("cv_site_size", "design_effect", "effect_sd", "effect", "design_effect_clusters", "effect_sd_clusters"),
    *("effect_clusters", "gap"),
)
WHENS: Mapping[str, str] = {
    "allocated": "Had nobody been lost",
    "now": "With the returns that are in",
    "end": "At the end, if the rest come back as those before them did",
}


def derive_detectable_effects(
    rows: pd.DataFrame, study: Study, basis: PowerBasis, cohorts: Sequence[str] = ()
) -> pd.DataFrame | Gap:
    """The smallest difference between two arms at a wave that the study would find with the power stated.

    DETECTABLE_COLUMNS, one row for each cohort ("" for all, then those of `cohorts`), of WHENS, and pair of arms:
    numbers of people (of the end: expected numbers, not whole), sites, mean and coefficient of variation of the sites'
    sizes; effect_sd in standard deviations and effect in units of the score.

    n is divided by the design effect; the two-sided t test of two groups gives the effect (statsmodels' TTestIndPower)
    and adjusting for the baseline shrinks it by sqrt(1 - r^2) (Borm and others 2007). Two design effects:

    - `design_effect`: 1 + (S - 1) ICC, where S = n1 n2 / (n1 + n2) times the sum over sites of (n1j / n1 - n2j / n2)^2
      (Vierron and Giraudeau 2009). It follows how the arms really lie: 1 - ICC where each site has both arms in the
      same proportion, and the one below where each site has one arm.
    - `design_effect_clusters`: 1 + ((1 + CV^2) m - 1) ICC with m the mean size of sites (Eldridge, Ashby and Kerry
      2006), as if whole sites had been allocated: the cautious one, for effects that differ from site to site.

    What is not over yet is taken to come back as often as what is over in the same arm. Gap where there is one arm or
    nothing is expected at the wave.
    """
    place = f"detectable effect on {basis.id}"
    pairs = find_pairs(study.arms)
    if not pairs:
        return Gap(place, "The study has one arm: there is no difference to detect.")
    own = _select(rows, basis.wave, basis.respondents)
    if own.empty:
        return Gap(place, "Nothing of this wave is expected of anybody in an arm.")
    is_open = ~own["is_over"] & ~own["is_returned"] & own["left_on"].isna()
    is_open &= own["why_not_expected"].isin(("", "not_due", "no_anchor"))
    settled = own[own["is_expected"] & own["is_over"]]
    retention = settled.groupby("arm")["is_returned"].mean()
    own = own.assign(allocated=1.0, now=own["is_returned"].astype(float))
    own["end"] = own["now"].mask(is_open, own["arm"].map(retention))
    found = []
    for cohort in ["", *cohorts]:
        among = own if cohort == "" else own[own["cohort"] == cohort]
        for when in WHENS:
            sizes = among.groupby(["site", "arm"])[when].sum().unstack(fill_value=0)
            unknown = set(among.loc[among[when].isna(), "arm"])
            for pair in pairs:
                found.append({"cohort": cohort, "when": when, **_detect(sizes, pair, basis, unknown)})
    return pd.DataFrame(found, columns=list(DETECTABLE_COLUMNS))


def compute_design_effect(n_1: Floats, n_2: Floats, icc: float) -> float:
    """1 + (S - 1) ICC for sites with these numbers in the two arms (Vierron and Giraudeau 2009); each arm has some."""
    total_1, total_2 = float(n_1.sum()), float(n_2.sum())
    spread = float(((n_1 / total_1 - n_2 / total_2) ** 2).sum()) * total_1 * total_2 / (total_1 + total_2)
    return 1 + (spread - 1) * icc


def compute_cluster_design_effect(sizes: Floats, icc: float) -> float:
    """1 + ((1 + CV^2) m - 1) ICC for whole clusters of these sizes (Eldridge, Ashby and Kerry 2006); they are all that
    there are, so the standard deviation is that of a population."""
    mean = float(sizes.mean())
    return 1 + ((1 + (float(sizes.std()) / mean) ** 2) * mean - 1) * icc


def _detect(sizes: pd.DataFrame, pair: tuple[str, str], basis: PowerBasis, unknown: set[str]) -> dict[str, Any]:
    n_1, n_2 = (sizes[arm].fillna(0).to_numpy(float) if arm in sizes else np.zeros(len(sizes)) for arm in pair)
    both = n_1 + n_2
    told: dict[str, Any] = dict.fromkeys(DETECTABLE_COLUMNS[8:-1], np.nan)
    told |= {"intervention": pair[0], "comparison": pair[1], "n_intervention": n_1.sum(), "n_comparison": n_2.sum()}
    of_sites = both[both > 0]
    told |= {"n_sites": len(of_sites), "mean_site_size": of_sites.mean() if len(of_sites) else np.nan, "gap": ""}
    if unknown & set(pair):
        return {**told, "gap": "The wave is not over for anybody in an arm: nobody knows how many will come back."}
    if min(n_1.sum(), n_2.sum()) < 2:
        return {**told, "gap": "One of the two arms has fewer than two people."}
    told["cv_site_size"] = float(of_sites.std() / of_sites.mean())
    for name, effect in (
        ("", compute_design_effect(n_1, n_2, basis.icc.value)),
        ("_clusters", compute_cluster_design_effect(of_sites, basis.icc.value)),
    ):
        told[f"design_effect{name}"] = effect
        smallest = _solve_effect(n_1.sum() / effect, n_2.sum() / effect, basis)
        if smallest is None:
            told["gap"] = "By the design effect there are too few people to detect any effect."
            continue
        told[f"effect_sd{name}"], told[f"effect{name}"] = smallest, smallest * basis.sd.value
    return told


def _solve_effect(n_1: float, n_2: float, basis: PowerBasis) -> float | None:
    from statsmodels.stats.power import TTestIndPower  # type: ignore[import-untyped]  # it ships no types

    if n_1 + n_2 < 3 or min(n_1, n_2) < 1:
        return None
    found = TTestIndPower().solve_power(
        effect_size=None, nobs1=n_1, ratio=n_2 / n_1, alpha=basis.alpha.value, power=basis.power.value
    )
    return float(found) * float(np.sqrt(1 - basis.baseline_correlation.value**2))


# All of it ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attrition:
    """Everything that a report on attrition tells, by the functions above and those of `study.attrition`.

    `wave` and `respondents` are those that the comparisons look at. `tables`: return tables by what they are divided
    by. `people`: the same of this wave and these respondents, one row of the frame for each person in an arm, and
    `people_reasons`: why they are missing, by arm. `weights`, `loss_model` and others are a Gap where they cannot be
    given; `detectable` is by the id of the basis.
    """

    wave: str
    respondents: tuple[str, ...]
    retained_pct: float | Gap
    benchmark: str
    levels: Mapping[str, list[str]]
    people: Mapping[tuple[str, ...], pd.DataFrame]
    people_reasons: pd.DataFrame
    tables: Mapping[tuple[str, ...], pd.DataFrame]
    reasons: pd.DataFrame
    patterns: pd.DataFrame
    time_to_loss: TimeToLoss
    differential: pd.DataFrame | Gap
    equivalence: pd.DataFrame | Gap
    lost_differences: pd.DataFrame | Gap
    loss_model: LossModel | Gap
    weights: Weights | Gap
    detectable: Mapping[str, pd.DataFrame | Gap]
    gaps: tuple[Gap, ...]


PEOPLE_TABLES: tuple[tuple[str, ...], ...] = ((), ("arm",), ("site",), ("site", "arm"), ("cohort", "arm"))
TABLES = (
    ("wave",),
    ("wave", "arm"),
    ("wave", "respondent"),
    ("wave", "arm", "respondent"),
    ("wave", "site"),
    ("wave", "cohort", "arm"),
)


def derive_attrition(
    study: Study,
    rows: pd.DataFrame,
    characteristics: pd.DataFrame,
    boundary: Boundary,
    as_of: date,
    analysed: Collection[str] | None = None,
) -> Attrition:
    """All figures of attrition. The comparisons look at the wave of the main analysis; where the protocol states none,
    at that of its first [[power]], else at the last follow-up at which participants are asked.

    `rows`: from `derive_attrition_rows`; `characteristics`: from `derive_characteristics`, with more columns or not, of
    which `choose_characteristics` takes those of the models; `analysed`: who is in the main analysis (None: whose
    return is in).
    """
    wave, respondents, weights = fit_weights(study, rows, characteristics)
    levels = find_levels(study, rows)
    pairs = find_pairs(study.arms)
    reference = pairs[0][1] if pairs else study.arms[0].id
    losses = derive_losses(rows, wave, respondents)
    chosen = choose_characteristics(study, characteristics, respondents)
    own = _select(rows, wave, respondents)
    of_arms = {**levels, "arm": [arm for arm in levels["arm"] if arm not in _OUT_OF_ARMS]}
    people = {by: derive_return_table(own, by, of_arms) for by in PEOPLE_TABLES}
    retained = float(people[()]["retained_pct"].iloc[0])
    effects: dict[str, pd.DataFrame | Gap] = {
        basis.id: derive_detectable_effects(rows, study, basis, levels["cohort"] if len(levels["cohort"]) > 1 else ())
        for basis in study.power
    }
    gaps = list(find_gaps(rows, levels))
    if not effects:
        gaps.append(Gap("detectable effect", "The protocol has no [[power]]: it does not say what to compute it from."))
    return Attrition(
        wave=wave,
        respondents=respondents,
        retained_pct=Gap("retention", f"No window of {wave} is over yet.") if np.isnan(retained) else retained,
        benchmark=find_benchmark_place(retained),
        levels=levels,
        people=people,
        people_reasons=derive_reason_table(own, ("arm",), of_arms, study),
        tables={by: derive_return_table(rows, by, levels) for by in TABLES},
        reasons=derive_reason_table(rows, ("wave", "arm"), levels, study),
        patterns=derive_pattern_table(derive_patterns(rows, study), levels),
        time_to_loss=derive_time_to_loss(
            rows, [arm.id for arm in study.arms], as_of, study.data_collection_ends_on, find_times(rows, study)
        ),
        differential=derive_differential(rows, study, boundary, wave, respondents),
        equivalence=derive_equivalence(rows, characteristics, study, wave, respondents, analysed),
        lost_differences=derive_lost_differences(losses, characteristics),
        loss_model=fit_loss_model(losses, chosen, reference),
        weights=weights,
        detectable=effects,
        gaps=tuple(gaps),
    )


def find_comparison(study: Study) -> tuple[str, tuple[str, ...]]:
    """The wave and the respondents that comparisons look at: those of the main analysis, of the first [[power]], or the
    last follow-up at which the participants themselves are asked. Where that is none: the last one, and all who are
    asked there."""
    if study.main_analysis:
        return study.main_analysis[0].wave, study.main_analysis[0].respondents
    if study.power:
        return study.power[0].wave, study.power[0].respondents
    follow_ups = [wave.id for wave in study.waves if wave.role == "follow_up"] or [study.baseline.id]
    asked = {wave: {entry.respondent for entry in study.find_scheduled(wave)} for wave in follow_ups}
    last = next((wave for wave in reversed(follow_ups) if "self" in asked[wave]), None)
    if last is not None or not asked[follow_ups[-1]]:
        return last or follow_ups[-1], ("self",)
    return follow_ups[-1], tuple(name for name in study.respondents if name in asked[follow_ups[-1]])
