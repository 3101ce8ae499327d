"""Who was expected, who came back and who did not: the one frame of attrition, and what is counted in it.

`derive_attrition_rows` gives one row per participant, wave and respondent. Every table, pattern, curve and model of
attrition is made from these rows, so that their numbers agree. Where there is nothing to compute a number from there is
none: a `Gap`, or the column `gap` of a table, says in words why.

Judgement calls:

- A questionnaire is expected from the day on which its window opens. So what is expected is what is in, what is awaited
  (the window is open), and what is missing with its reason; the three add up on any day.
- Not expected, and counted by why: of people who died before the window opened, and of people whom the protocol's own
  reasons (`is_ineligibility`) call found not eligible, where nothing of them is in. Other exclusions by the study team
  stay among the expected, with their reason: a site that leaves the study is attrition.
- Leaving a treatment at whose end a wave's visits stop takes nobody out of the expected: it is why the row is missing.
- Something of a questionnaire is in: it is returned; if not all of it, it is counted as partial too.
- Whoever has left answers no more from that day on, so the first of several ways of leaving counts.

Sources: CONSORT 2025 (flow of participants, kinds of loss); What Works Clearinghouse Handbook 4.1 (2020), chapter II.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from study.events import DispositionRecorded
from study.participation import QUESTIONNAIRES, TREATMENT, derive_stops
from study.protocol import ANCHORS, Study
from study.state import Events, derive_participants, remembered
from study.waves import derive_expected_returns

Flags = npt.NDArray[np.bool_]

NOT_ALLOCATED, NOT_KNOWN, IN_SEVERAL_ARMS = "not_allocated", "not_known", "in_several_arms"
AWAITED, MISSED = "awaited", "missed"

WHY_NOT_EXPECTED: Mapping[str, str] = {
    "ineligible": "Found not eligible",
    "died": "Died before the window opened",
    "completed": "Had completed before the window opened",
    "not_asked": "Not asked for by consent or protocol any more",
    "not_defined": "Its questionnaires are not defined yet",
    "truncated": "Would open after data collection ends",
    "not_allocated": "Never allocated to an arm",
    "no_anchor": "What it counts from has not happened",
    "not_due": "Its window has not opened yet",
}
"""Why a row is not expected, the first that holds, and the words for it."""

REASON_KINDS: Mapping[str, str] = {
    "loss": "Lost",
    "exclusion": "Excluded by the study team",
    "death": "Died",
    "unexplained": "Missed, reason not known",
    "awaited": "Awaited, the window is open",
}
"""What a reason for a missing row counts as, and the words for it."""

ROW_COLUMNS = (
    *("participant_id", "arm", "site", "cohort", "wave", "respondent", "started_on", "opens_on", "due_on", "last_on"),
    *("is_over", "is_expected", "why_not_expected", "is_returned", "is_partial", "returned_on", "reason"),
    *("reason_kind", "left_on", "left_reason", "left_kind", "completed_on"),
)
DIMENSIONS = ("wave", "arm", "site", "cohort", "respondent")
PATTERNS: Mapping[str, str] = {
    "complete": "Returned whenever expected",
    "monotone": "Returned at first, then no more",
    "intermittent": "Missed a wave and came back",
    "never": "Never returned",
    "nothing_due": "Nothing expected so far",
}
_LEAVING = ("loss", "exclusion", "death")
_PERSON = ["on", "reason", "kind"]


@dataclass(frozen=True, slots=True)
class Gap:
    """In place of a number: what it would have been (`place`), and why it cannot be given (`words`)."""

    place: str
    words: str


# The frame ----------------------------------------------------------------------------------------------------------


@remembered
def derive_attrition_rows(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """What was to come back of whom, and what became of it by the end of a day: one row per participant, wave and
    respondent, in the order of `derive_expected_returns`.

    ROW_COLUMNS: participant_id, arm (NOT_ALLOCATED where there is none; of a study without allocation its one arm),
    site, cohort (NOT_KNOWN where nobody told it), wave, respondent; started_on (allocated, else consented, else
    screened); opens_on, due_on, last_on (of the window, or of data collection where that ends before; NaT where what
    it counts from has not happened); is_over (that last day has passed, whether something came in or not);
    is_expected, why_not_expected (WHY_NOT_EXPECTED, "" where it is expected); is_returned, is_partial, returned_on;
    reason (why an expected row is missing: a reason for leaving, AWAITED or MISSED; "" otherwise) and reason_kind
    (REASON_KINDS). Of the person, the same in each of their rows: left_on, left_reason, left_kind (loss, exclusion or
    death; NaT and "" of those who are in), completed_on.

    A person has left when they left the questionnaires; in a study all of whose follow-ups end with the treatment,
    when they left that.
    """
    view = events.select(as_of=as_of)
    bound = [wave.id for wave in study.waves if wave.ends_with_treatment]
    rows = derive_expected_returns(keep_ended_waves(study), view, as_of).rename(columns={"site_id": "site"})
    only_arm = study.arms[0].id if study.allocation == "none" else NOT_ALLOCATED
    rows["arm"] = rows["arm"].mask(rows["arm"] == "", only_arm)
    rows["cohort"] = rows["cohort"].mask(rows["cohort"] == "", NOT_KNOWN)
    rows["started_on"] = _find_starts(view, rows["participant_id"])
    rows["is_returned"] = rows["n_returned"] > 0
    rows["is_partial"] = rows["is_returned"] & (rows["n_returned"] < rows["n_instruments"])
    ends_on = pd.Timestamp(study.data_collection_ends_on)
    rows["last_on"] = rows["late_until"].where(~(rows["late_until"] > ends_on), ends_on)
    rows["is_over"] = _find_over(study, rows, as_of)
    is_bound = rows["wave"].isin(bound).to_numpy(bool)
    leaving = _Leaving(study, view, as_of, rows["participant_id"])
    _add_expectation(rows, leaving, is_bound, as_of)
    _add_reasons(rows, leaving, is_bound)
    follow_ups = [wave for wave in study.waves if wave.role == "follow_up"]
    ends_all = bool(follow_ups) and all(wave.ends_with_treatment for wave in follow_ups)
    left = leaving.of_treatment_too if ends_all else leaving.of_questionnaires
    rows["left_on"], rows["left_reason"], rows["left_kind"] = (left[name].to_numpy() for name in _PERSON)
    rows["completed_on"] = leaving.completed_any_on if ends_all else leaving.completed_on
    return rows[list(ROW_COLUMNS)]


def keep_ended_waves(study: Study) -> Study:
    """The study with visits that ended with somebody's treatment wanted as rows: that they ended is to be counted."""
    if not any(wave.ends_with_treatment for wave in study.waves):
        return study
    waves = tuple(wave.model_copy(update={"ends_with_treatment": False}) for wave in study.waves)
    return study.model_copy(update={"waves": waves})


def _find_starts(view: Events, of: pd.Series[Any]) -> npt.NDArray[Any]:
    people = derive_participants(view).set_index("participant_id")
    started_on = people["allocated_on"].fillna(people["consented_on"]).fillna(people["screened_on"])
    return started_on.reindex(of).to_numpy()


def _find_over(study: Study, rows: pd.DataFrame, as_of: date) -> npt.NDArray[np.bool_]:
    """What counts from another wave, and has no dates because nothing of that came, is over when that one is."""
    today, ends_on = pd.Timestamp(as_of), pd.Timestamp(study.data_collection_ends_on)
    is_over: Flags = ((rows["last_on"] < today) | (today > ends_on)).to_numpy(bool, copy=True)
    is_over &= ~rows["is_truncated"].to_numpy(bool)
    for wave in study.waves:
        if wave.anchor in ANCHORS:
            continue
        before = rows["wave"] == wave.anchor
        was_over = pd.Series(is_over[before], rows.loc[before, "participant_id"]).groupby(level=0).all()
        own = (rows["wave"] == wave.id) & rows["anchor_on"].isna()
        is_over[own] |= was_over.reindex(rows.loc[own, "participant_id"], fill_value=False).to_numpy(bool)
    return is_over


class _Leaving:
    """How each row's person left: frames of on, reason and kind (NaT and "" of who has not), one place per row."""

    def __init__(self, study: Study, view: Events, as_of: date, of: pd.Series[Any]) -> None:
        stops = derive_stops(study, view, as_of).rename(columns={"from_on": "on"})
        stops["kind"] = stops["kind"].mask(stops["kind"] == "", "loss")  # a reason that the protocol lists no more
        self.of = of
        questionnaires = stops[stops["stops"] == QUESTIONNAIRES]
        either = stops[stops["stops"].isin((QUESTIONNAIRES, TREATMENT))]
        self.of_questionnaires = self._find_first(questionnaires, _LEAVING)
        self.of_treatment_too = self._find_first(either, _LEAVING)
        self.completed_on = self._find_first(questionnaires, ("completion",))["on"].to_numpy()
        self.completed_any_on = self._find_first(either, ("completion",))["on"].to_numpy()
        self.died_on = self._find_first(stops, ("death",))["on"].to_numpy()
        ineligible = [reason.id for reason in study.disposition_reasons if reason.is_ineligibility]
        told = view.frame(DispositionRecorded)
        told = told[told["reason"].isin(ineligible) & told["scope"].isin(("study", "questionnaires", "data"))]
        self.is_ineligible = of.isin(told["participant_id"]).to_numpy(bool)

    def _find_first(self, stops: pd.DataFrame, kinds: Sequence[str]) -> pd.DataFrame:
        first = stops[stops["kind"].isin(kinds)].sort_values("on", kind="stable").drop_duplicates("participant_id")
        found = first.set_index("participant_id")[_PERSON].reindex(self.of)
        return found.fillna({"reason": "", "kind": ""}).reset_index(drop=True)


def _add_expectation(rows: pd.DataFrame, leaving: _Leaving, is_bound: Flags, as_of: date) -> None:
    opens_on = rows["opens_on"].to_numpy()
    has_no_day = np.isnat(opens_on)
    completed_on = np.where(is_bound, leaving.completed_any_on, leaving.completed_on)
    died_before = (leaving.died_on < opens_on) | (has_no_day & ~np.isnat(leaving.died_on))
    conditions: dict[str, Any] = {
        "ineligible": leaving.is_ineligible,
        "died": died_before,
        "completed": completed_on < opens_on,
        "not_asked": ~rows["is_expected"].to_numpy(bool),
        "not_defined": (rows["n_instruments"] == 0).to_numpy(bool),
        "truncated": rows["is_truncated"].to_numpy(bool),
        "not_allocated": has_no_day & (rows["arm"] == NOT_ALLOCATED).to_numpy(bool),
        "no_anchor": has_no_day,
        "not_due": opens_on > np.datetime64(as_of),
    }
    is_out = ~rows["is_returned"].to_numpy(bool)
    codes = np.select([is_out & holds for holds in conditions.values()], range(1, len(conditions) + 1), 0)
    rows["why_not_expected"] = pd.Series(np.array(["", *conditions], object)[codes], rows.index, dtype="str")
    rows["is_expected"] = codes == 0


def _add_reasons(rows: pd.DataFrame, leaving: _Leaving, is_bound: Flags) -> None:
    left = leaving.of_questionnaires.copy()
    left.loc[is_bound] = leaving.of_treatment_too.loc[is_bound]
    is_missing = (rows["is_expected"] & ~rows["is_returned"]).to_numpy(bool)
    has_left = is_missing & (left["on"].to_numpy() <= rows["last_on"].to_numpy())
    is_over = rows["is_over"].to_numpy(bool)
    reason, kind = np.full(len(rows), "", object), np.full(len(rows), "", object)
    reason[is_missing], kind[is_missing] = MISSED, "unexplained"
    reason[is_missing & ~is_over], kind[is_missing & ~is_over] = AWAITED, AWAITED
    reason[has_left], kind[has_left] = left["reason"].to_numpy()[has_left], left["kind"].to_numpy()[has_left]
    rows["reason"], rows["reason_kind"] = pd.Series(reason, dtype="str"), pd.Series(kind, dtype="str")


def settle_arms(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, those of a participant who stands in more than one arm in none of them (IN_SEVERAL_ARMS).

    The ledger allows one allocation; rows that were made of other tables may hold more.
    """
    pairs = rows[["participant_id", "arm"]].drop_duplicates()
    several = pairs.loc[pairs["participant_id"].duplicated(), "participant_id"]
    if several.empty:
        return rows
    return rows.assign(arm=rows["arm"].mask(rows["participant_id"].isin(several), IN_SEVERAL_ARMS))


def find_levels(study: Study, rows: pd.DataFrame) -> dict[str, list[str]]:
    """What each of DIMENSIONS can be, in the protocol's order; what else the rows hold comes after, by name."""
    rows = settle_arms(rows)
    known: dict[str, list[Any]] = {
        "wave": [wave.id for wave in study.waves],
        "arm": [arm.id for arm in study.arms],
        "site": [site.site_id for site in study.sites],
        "cohort": [cohort.id for cohort in study.cohorts],
        "respondent": [name for name in study.respondents if name in {entry.respondent for entry in study.schedule}],
    }
    return {name: _complete(levels, rows[name]) for name, levels in known.items()}


def _complete(levels: Iterable[Any], values: pd.Series[Any]) -> list[str]:
    levels = list(levels)
    return [*levels, *sorted(set(values.dropna().unique()) - set(levels))]


def find_gaps(rows: pd.DataFrame, levels: Mapping[str, Sequence[str]]) -> tuple[Gap, ...]:
    """What the figures of these rows lack as a whole: nobody, one arm, an arm with nobody or with nobody left, a wave
    without returns, people in several arms, a site with one participant."""
    rows = settle_arms(rows)
    if rows.empty:
        return (Gap("study", "Nothing is expected of anybody yet: no participant has joined."),)
    gaps = []
    arms = [arm for arm in levels["arm"] if arm not in (NOT_ALLOCATED, IN_SEVERAL_ARMS)]
    if len(arms) < 2:
        gaps.append(Gap("arms", "The study has one arm: arms are not compared."))
    if n_several := rows.loc[rows["arm"] == IN_SEVERAL_ARMS, "participant_id"].nunique():
        who = "participant stands" if n_several == 1 else "participants stand"
        gaps.append(Gap("arms", f"{n_several} {who} in more than one arm and in no arm's figures."))
    people = rows.groupby("arm")["participant_id"].nunique()
    settled = rows[rows["is_expected"] & (rows["reason"] != AWAITED)]
    for arm in arms:
        own = settled[settled["arm"] == arm]
        if not people.get(arm, 0):
            gaps.append(Gap(f"arm {arm}", "Nobody is in this arm."))
        elif len(own) and own["left_on"].notna().all():
            gaps.append(Gap(f"arm {arm}", "Everybody in this arm has left."))
        elif len(own) and not own["is_returned"].any():
            gaps.append(Gap(f"arm {arm}", "Nothing has come back from anybody in this arm."))
    for wave in levels["wave"]:
        own = rows[rows["wave"] == wave]
        if len(own) and own["is_expected"].any() and not own["is_returned"].any():
            gaps.append(Gap(f"wave {wave}", "Nothing of this wave has come back."))
    sizes = rows.groupby("site")["participant_id"].nunique()
    if n_single := int((sizes == 1).sum()):
        sites = "site has" if n_single == 1 else "sites have"
        gaps.append(Gap("sites", f"{n_single} {sites} one participant: nothing varies within."))
    return tuple(gaps)


# Tables -------------------------------------------------------------------------------------------------------------


def derive_return_table(
    rows: pd.DataFrame, by: Sequence[str], levels: Mapping[str, Sequence[str]], confidence: float = 0.95
) -> pd.DataFrame:
    """Expected, returned and why not, by any of DIMENSIONS (none: one row for all): one row for every combination of
    `levels`, those with nobody too.

    Columns: `by`; n (rows of the frame), n_not_expected and its parts n_<code of WHY_NOT_EXPECTED>; n_expected,
    n_returned, n_partial (of the returned), n_awaited, n_missing (neither in nor awaited); rate_pct (returned of
    expected), rate_low_pct, rate_high_pct (Wilson's interval, 1927); n_over (expected, and the window is over), n_kept
    (returned of these), retained_pct, retained_low_pct and retained_high_pct (their share and its interval: while a
    window is open, the quick ones would flatter it); gap (why there is no rate or no retention; "" otherwise).
    n = n_not_expected + n_expected, and n_expected = n_returned + n_awaited + n_missing.
    """
    rows = settle_arms(rows)
    flags = pd.DataFrame({"n": True}, index=rows.index)
    flags["n_not_expected"] = ~rows["is_expected"]
    for code in WHY_NOT_EXPECTED:
        flags[f"n_{code}"] = rows["why_not_expected"] == code
    flags["n_expected"], flags["n_returned"] = rows["is_expected"], rows["is_returned"] & rows["is_expected"]
    flags["n_partial"] = flags["n_returned"] & rows["is_partial"]
    flags["n_awaited"] = rows["is_expected"] & (rows["reason"] == AWAITED)
    flags["n_over"] = rows["is_expected"] & rows["is_over"]
    flags["n_kept"] = flags["n_over"] & rows["is_returned"]
    flags["n_missing"] = flags["n_expected"] & ~flags["n_returned"] & ~flags["n_awaited"]
    table = _sum_by(flags.astype("int64"), rows, by, levels)
    table["rate_pct"] = _divide(table["n_returned"], table["n_expected"])
    table["rate_low_pct"], table["rate_high_pct"] = _find_wilson(table["n_returned"], table["n_expected"], confidence)
    table["retained_pct"] = _divide(table["n_kept"], table["n_over"])
    table["retained_low_pct"], table["retained_high_pct"] = _find_wilson(table["n_kept"], table["n_over"], confidence)
    gap = np.select(
        [table["n"] == 0, table["n_expected"] == 0, table["n_over"] == 0],
        ["There is nobody here.", "Nothing was expected of anybody here.", "No window is over yet: no retention."],
        "",
    )
    table["gap"] = pd.Series(gap, table.index, dtype="str")
    return table


def derive_reason_table(
    rows: pd.DataFrame, by: Sequence[str], levels: Mapping[str, Sequence[str]], study: Study
) -> pd.DataFrame:
    """Why expected questionnaires are missing: `by`, reason, reason_kind, n, n_expected (of the combination), pct of
    these, gap (why there is none); every reason of the protocol that is no completion has a row in every
    combination, with 0 too, then MISSED and AWAITED."""
    rows = settle_arms(rows)
    kinds: dict[str, str] = {reason.id: reason.kind for reason in study.disposition_reasons if reason.kind in _LEAVING}
    kinds |= {MISSED: "unexplained", AWAITED: AWAITED}
    missing = rows[rows["reason"] != ""]
    kinds |= {str(reason): str(kind) for reason, kind in missing[["reason", "reason_kind"]].value_counts().index
              if reason not in kinds}  # fmt: skip
    reasons = {**levels, "reason": list(kinds)}
    table = _sum_by(pd.DataFrame({"n": 1}, index=missing.index), missing, [*by, "reason"], reasons)
    table["reason_kind"] = table["reason"].map(kinds).astype("str")
    expected = _sum_by(pd.DataFrame({"n_expected": rows["is_expected"].astype("int64")}), rows, by, levels)
    table = (
        table.merge(expected, on=list(by), how="left")
        if by
        else table.assign(n_expected=int(rows["is_expected"].sum()))
    )
    table["pct"] = _divide(table["n"], table["n_expected"])
    gap = np.where(table["n_expected"] == 0, "Nothing was expected of anybody here.", "")
    table["gap"] = pd.Series(gap, table.index, dtype="str")
    return table[[*by, "reason", "reason_kind", "n", "n_expected", "pct", "gap"]]


def _sum_by(
    values: pd.DataFrame, rows: pd.DataFrame, by: Sequence[str], levels: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """Sums of the columns by every combination of levels, 0 where there is no row."""
    if not by:
        return values.sum().to_frame().T.astype("int64")
    keys = [pd.Categorical(rows[name], _complete(levels.get(name, ()), rows[name])) for name in by]
    shape = tuple(len(key.categories) for key in keys)
    n = int(np.prod(shape))
    place = np.zeros(len(rows), np.int64)
    for key, size in zip(keys, shape, strict=True):
        place = place * size + key.codes
    told = np.unravel_index(np.arange(n), shape) if n else [np.zeros(0, np.int64) for _ in by]
    summed = {name: key.categories.to_numpy(object)[at] for name, key, at in zip(by, keys, told, strict=True)}
    frame = pd.DataFrame(summed, columns=list(by)).astype("str")
    for name in values.columns:
        sums = np.bincount(place, values[name].to_numpy("float64"), n) if len(rows) else np.zeros(n)
        frame[name] = sums.astype("int64")
    return frame


def _divide(part: pd.Series[Any], whole: pd.Series[Any]) -> pd.Series[Any]:
    return 100 * part / whole.where(whole > 0)


def _find_wilson(
    count: pd.Series[Any], of: pd.Series[Any], confidence: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    from statsmodels.stats.proportion import proportion_confint  # type: ignore[import-untyped]  # it ships no types

    low, high = np.full(len(count), np.nan), np.full(len(count), np.nan)
    has = (of > 0).to_numpy(bool)
    if has.any():
        low[has], high[has] = proportion_confint(count[has], of[has], alpha=1 - confidence, method="wilson")
    return 100 * low, 100 * high


# Patterns -----------------------------------------------------------------------------------------------------------


def derive_patterns(rows: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Each participant's pattern from the baseline on, by respondent: participant_id, arm, respondent, pattern (of
    PATTERNS), sequence, n_expected, n_returned.

    What counts is what was expected and is settled: in, or over. `sequence` has a place for every wave: 1 in, 0
    missing, "." not expected (died before, for example), "?" awaited. Monotone: nothing after the first wave missed;
    whoever comes back later is intermittent, and so is who missed the baseline and answered a follow-up (Little and
    Rubin 2019, section 1.2).
    """
    rows = settle_arms(rows)
    waves = [wave.id for wave in study.waves if wave.role != "screening"]
    rows = rows[rows["wave"].isin(waves)]
    keys = ["participant_id", "arm", "respondent"]
    if rows.empty:
        return pd.DataFrame(columns=[*keys, "pattern", "sequence", "n_expected", "n_returned"])
    group = rows.groupby(keys, sort=False).ngroup().to_numpy()
    people = rows.drop_duplicates(keys)[keys].reset_index(drop=True)
    marks = np.full((len(people), len(waves)), ".", dtype="<U1")
    is_settled = rows["is_returned"] | rows["is_over"] | ~rows["reason"].isin((AWAITED, ""))
    mark = np.select([~rows["is_expected"], rows["is_returned"], is_settled], [".", "1", "0"], "?")
    place = pd.Categorical(rows["wave"], waves).codes
    marks[group, place] = mark
    is_in, is_missing = marks == "1", marks == "0"
    n_in, n_missing = is_in.sum(axis=1), is_missing.sum(axis=1)
    last_in = np.where(is_in, np.arange(len(waves)), -1).max(axis=1)
    first_missing = np.where(is_missing, np.arange(len(waves)), len(waves)).min(axis=1)
    names = list(PATTERNS)
    which = np.select(
        [n_in + n_missing == 0, n_in == 0, n_missing == 0, first_missing > last_in],
        [names.index(name) for name in ("nothing_due", "never", "complete", "monotone")],
        names.index("intermittent"),
    )
    people["pattern"] = pd.Series(np.array(names, object)[which], dtype="str")
    people["sequence"] = pd.Series(["".join(row) for row in marks], dtype="str")
    people["n_expected"], people["n_returned"] = n_in + n_missing, n_in
    return people


def derive_pattern_table(patterns: pd.DataFrame, levels: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """How many have each pattern: arm, respondent, pattern, n, n_people (of the arm and respondent), pct (NaN where
    there is nobody), gap; every combination has a row."""
    wanted = {"arm": levels["arm"], "respondent": levels["respondent"], "pattern": list(PATTERNS)}
    by = ["arm", "respondent", "pattern"]
    table = _sum_by(pd.DataFrame({"n": 1}, index=patterns.index), patterns, by, wanted)
    table["n_people"] = table.groupby(["arm", "respondent"])["n"].transform("sum")
    table["pct"] = _divide(table["n"], table["n_people"])
    table["gap"] = pd.Series(np.where(table["n_people"] == 0, "There is nobody here.", ""), table.index, dtype="str")
    return table


# Beside other studies -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A figure of other studies to look at beside one's own. `unit`: people or per cent."""

    id: str
    label: str
    value: float
    unit: str
    source: str


BENCHMARKS = (
    Benchmark(
        "ibsen_approached", "Individual Budgets evaluation: people approached", 2521, "people",
        "Glendinning C and others (2008), Evaluation of the Individual Budgets Pilot Programme: Final Report.",
    ),
    Benchmark(
        "ibsen_agreed", "Individual Budgets evaluation: people who agreed", 1594, "people",
        "Glendinning C and others (2008), Evaluation of the Individual Budgets Pilot Programme: Final Report.",
    ),
    Benchmark(
        "ibsen_baseline", "Individual Budgets evaluation: baselines in time for the 6-month interview", 1356, "people",
        "Glendinning C and others (2008), Evaluation of the Individual Budgets Pilot Programme: Final Report.",
    ),
    Benchmark(
        "ibsen_analysed", "Individual Budgets evaluation: people analysed at 6 months", 959, "people",
        "Glendinning C and others (2008), Evaluation of the Individual Budgets Pilot Programme: Final Report.",
    ),
    Benchmark(
        "nihr_retention_q1", "388 NIHR trials: retention, lower quartile", 80, "per cent",
        "Jacques RM and others (2022), BMJ Open 12:e059230.",
    ),
    Benchmark(
        "nihr_retention_median", "388 NIHR trials: retention, median", 88, "per cent",
        "Jacques RM and others (2022), BMJ Open 12:e059230.",
    ),
    Benchmark(
        "nihr_retention_q3", "388 NIHR trials: retention, upper quartile", 97, "per cent",
        "Jacques RM and others (2022), BMJ Open 12:e059230.",
    ),
)  # fmt: skip
"""Figures of other studies. IBSEN ran in 12 pilot sites from 2006 to 2008; the quartiles are of trials in the NIHR
Journals Library, 1997 to 2020."""


def find_benchmark_place(retained_pct: float) -> str:
    """Where a study's retention lies among the 388 NIHR trials, in words."""
    q1, median, q3 = (
        next(mark.value for mark in BENCHMARKS if mark.id == f"nihr_retention_{name}")
        for name in ("q1", "median", "q3")
    )
    if np.isnan(retained_pct):
        return "There is no retention to compare yet."
    if retained_pct < q1:
        return f"Below the lower quartile of 388 NIHR trials ({q1:g} %)."
    if retained_pct < median:
        return f"Between the lower quartile and the median of 388 NIHR trials ({q1:g} to {median:g} %)."
    if retained_pct <= q3:
        return f"Between the median and the upper quartile of 388 NIHR trials ({median:g} to {q3:g} %)."
    return f"Above the upper quartile of 388 NIHR trials ({q3:g} %)."
