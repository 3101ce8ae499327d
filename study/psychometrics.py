"""How the questionnaires behaved: what is missing, where answers crowd, whether the items of a scale agree, and flags.

Everything is told of groups: the questionnaires of one instrument, respondent and form, at one wave, of all sites or of
one. A figure of fewer people than `Limits` says is not given, and a word says why. A flag is a reason to look, and
excludes nobody.

Agreement among items (Cronbach's alpha, item-rest correlation) is told only of scales that the definition declares
reflective: among the items of a preference-based or a counting measure it means nothing.

Sources. Alpha: Cronbach 1951; its interval: Feldt 1965, in the form of Feldt, Woodruff and Salih 1987 (formulas 6 and
7). Floor and ceiling above 15 %, from 50 people on, and alpha from 0.70 to 0.95: Terwee et al. 2007. More than 10 %
missing: Bennett 2001. Longest run of half the items: Curran 2016. Variability within a person: Dunn et al. 2018.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from study.answers import AnswerBlock, Answers
from study.datasets import RECORD_KEY, find_wave_places
from study.instruments import FORMS, MISSING_REASONS, RESPONDENTS, Instrument, Item, Scale
from study.protocol import Study
from study.validation import REASON_CODES, Codes, Floats, Positions

Flags = npt.NDArray[np.bool_]

GROUP = ("instrument", "respondent", "form", "wave", "site")
KINDS = ("questionnaire", "item", "scale", "item_of_scale", "item_pair")
# What is left out when a share of missing answers is told: nobody owed these.
NOT_OWED = ("not_asked", "not_applicable")
FIGURE_COLUMNS = (
    *GROUP, "of", "name", "within", "n", "n_answered", *(f"n_{reason}" for reason in MISSING_REASONS), "missing_pct",
    "mean", "sd", "lowest_pct", "highest_pct", "distribution", "n_complete", "alpha", "alpha_low", "alpha_high",
    "item_rest", "alpha_without", "correlation", "longest_run", "variability", "same_level_pct", "careless_pct",
    "flags", "not_given",
)  # fmt: skip
_TEXT = frozenset({*GROUP, "of", "name", "within", "distribution", "flags", "not_given"})
_DECIMALS = 6  # of every figure: the last bits of a sum differ between processors
_MOST_LEVELS = 11  # of an item whose answers are counted one by one; beyond that in bands
_BANDS = 5
_CELLS_AT_ONCE = 2**21


@dataclass(frozen=True)
class Limits:
    """From how many people on a figure is given, and beyond which value it is flagged. Per cent, people or items.

    `smallest_for_agreement`: also for what is said of single items and scores, that answers are missing or all alike.
    `smallest_for_floor`: for floor and ceiling.
    """

    smallest_group: int = 10
    smallest_for_agreement: int = 30
    smallest_for_floor: int = 50
    missing_pct: float = 10.0
    floor_pct: float = 15.0
    alpha_low: float = 0.70
    alpha_high: float = 0.95
    correlation: float = 0.80
    careless_items: int = 8
    careless_pct: float = 10.0


LIMITS = Limits()


def find_limits(study: Study) -> Limits:
    """Those that the study declares, the usual ones where it says nothing."""
    rule = study.fieldwork.instrument_report_rule
    return LIMITS if rule is None else Limits(**rule.model_dump(exclude={"source"}))


@dataclass(frozen=True)
class Flag:
    """What a flag means. `rank`: 1 may be an error in the data, 2 bears on the analysis, 3 is for information.
    `by_site`: raised of single sites too."""

    id: str
    rank: Literal[1, 2, 3]
    title: str
    meaning: str
    to_do: str
    by_site: bool = False


FLAGS: Mapping[str, Flag] = {
    flag.id: flag
    for flag in (
        Flag(
            "item_against_rest", 1, "An item goes against the rest of its scale",
            "Those who score high on the item score low on the other items (item-rest correlation below 0).",
            "Look whether the item was coded the wrong way round, at one site or at all, or taken from another column.",
            by_site=True,
        ),
        Flag(
            "no_variation", 1, "Everybody gave the same answer",
            "Not one answer differs from the others.",
            "Look whether the column was filled in for everybody, or stands for another question.",
        ),
        Flag(
            "careless", 1, "Answers that contradict themselves",
            "More than 1 in 10 people gave one same answer to at least half of the items in a row, although some of "
            "these ask the opposite.",
            "Ask how these questionnaires were filled in. Leave none out for that alone.",
            by_site=True,
        ),
        Flag(
            "missing_answers", 1, "Many answers are missing",
            "More than 10 % of the answers that were owed did not come.",
            "Ask how the questionnaire is filled in there: by whom, on which form, and whether a page was left out.",
            by_site=True,
        ),
        Flag(
            "missing_item", 2, "An item is often left blank",
            "More than 10 % of those who were asked have no answer.",
            "See whether people decline it, cannot read it or are not asked; a scale loses them with the item.",
        ),
        Flag(
            "missing_score", 2, "A score is often missing",
            "More than 10 % of those who owed it have no score: their items, age or sex are missing.",
            "See which items are missing; the analysis must say what it does about it.",
        ),
        Flag(
            "alpha_low", 2, "The items of a scale hardly agree",
            "Cronbach's alpha is below 0.70.",
            "Look at items that agree least with the rest. The score is imprecise, and differences get blurred.",
        ),
        Flag(
            "floor", 2, "Many have the lowest score",
            "More than 15 % have the lowest score that there is: the scale cannot show that these get lower still. Not "
            "looked for among counts, amounts and characteristics, where the lowest is an answer like any other.",
            "Say so where change on this scale is reported.",
        ),
        Flag(
            "ceiling", 2, "Many have the highest score",
            "More than 15 % have the highest score that there is: the scale cannot show that these get higher still. "
            "Not looked for among counts, amounts and characteristics.",
            "Say so where change on this scale is reported.",
        ),
        Flag(
            "alpha_high", 3, "The items of a scale agree almost entirely",
            "Cronbach's alpha is above 0.95: some items repeat others.",
            "Nothing is wrong with the data; the scale could be shorter.",
        ),
        Flag(
            "items_alike", 3, "Two items say nearly the same",
            "Their correlation is above 0.80.",
            "Look whether one was copied from the other; else one of them adds little.",
        ),
        Flag(
            "item_crowded", 3, "An item's answers crowd at one end",
            "More than 15 % gave its lowest or highest answer. With few answers to choose from that is usual. Not "
            "told of counts, amounts and characteristics.",
            "No need to act; it tells where an item separates people.",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Psychometrics:
    """`figures`: FIGURE_COLUMNS, one row for each thing told of a group; text columns are "" and numbers NaN where
    there is nothing to tell; `not_given` says why a figure is not there. Site "" is all sites, wave "" all waves.
    `limits`: by which they were made."""

    figures: pd.DataFrame
    limits: Limits


# Agreement of items -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """Cronbach's alpha with its interval; of each item, the correlation with the sum of the others, and the alpha of
    the others (NaN of two items, or where nothing varies)."""

    alpha: float
    low: float
    high: float
    item_rest: Floats
    alpha_without: Floats


def compute_agreement(covariance: Floats, n: int, confidence: float = 0.95) -> Agreement:
    """Agreement of k items from their covariances (k x k, k >= 2) among n people."""
    from scipy.special import fdtri  # the F distribution's quantiles; importing it takes a moment

    k = len(covariance)
    variances, total, row = np.diag(covariance), covariance.sum(), covariance.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        alpha = float(k / (k - 1) * (1 - variances.sum() / total)) if total > 0 else np.nan
        of_rest = total - 2 * row + variances
        item_rest = (row - variances) / np.sqrt(variances * of_rest)
        without = (k - 1) / (k - 2) * (1 - (variances.sum() - variances) / of_rest) if k > 2 else np.full(k, np.nan)
    tail = (1 - confidence) / 2
    low, high = (1 - (1 - alpha) * fdtri(n - 1, (n - 1) * (k - 1), p) for p in (1 - tail, tail))
    item_rest, without = (np.where(np.isfinite(values), values, np.nan) for values in (item_rest, without))
    return Agreement(alpha, float(low), float(high), item_rest, without)


def score_items(instrument: Instrument, scale: Scale, values: Floats, reasons: Codes) -> Floats | None:
    """What each item adds to a scale (records x items, NaN where there is no answer), so that all run the same way;
    None where a scale is no sum of items."""
    places = [instrument.item_ids.index(name) for name in scale.items if name in instrument.item_ids]
    if len(places) < len(scale.items) or len(places) < 2 or scale.method in ("product", "mapping", "value_set"):
        return None
    answers = values[:, places].copy()
    if scale.missing.not_asked_as is not None:
        answers[reasons[:, places] == REASON_CODES["not_asked"]] = scale.missing.not_asked_as
    if scale.method == "count":
        answers = np.where(np.isnan(answers), np.nan, np.isin(answers, scale.counted))
    for column, name in enumerate(scale.items):
        if scale.item_values:
            worth = scale.item_values[name]
            answers[:, column] = pd.Series(answers[:, column]).map(worth).to_numpy(dtype=np.float64)
        elif scale.weights:
            answers[:, column] *= scale.weights[name]
    return answers


# Careless answering -------------------------------------------------------------------------------------------------


def find_longest_runs(answers: Floats, directions: Positions | None = None) -> Positions:
    """The longest run of one same answer in each record (records x items, NaN where there is none; a gap ends a run).

    With `directions` (1 or -1 of each item) only runs count that hold items of both directions.
    """
    n, k = answers.shape
    longest, current = np.zeros(n, dtype=np.intp), np.zeros(n, dtype=np.intp)
    both: Flags = np.zeros((2, n), dtype=np.bool_)
    before = np.full(n, np.nan)
    for column in range(k):
        here = answers[:, column]
        goes_on = here == before
        current = np.where(goes_on, current + 1, ~np.isnan(here))
        counts = current
        if directions is not None:
            both &= goes_on
            both[int(directions[column] > 0)] = True
            counts = np.where(both.all(axis=0), current, 0)
        longest = np.maximum(longest, counts)
        before = here
    return longest


def compute_variability(answers: Floats) -> Floats:
    """The standard deviation of each record's answers (records x items); NaN of fewer than two answers."""
    answered = ~np.isnan(answers)
    n = answered.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.where(answered, answers, 0).sum(axis=1) / n
        squares = np.where(answered, (answers - means[:, None]) ** 2, 0).sum(axis=1)
        return np.where(n > 1, np.sqrt(squares / (n - 1)), np.nan)


def compute_same_level_share(answers: Floats) -> Floats:
    """The share of each record's answers that are its most frequent answer, from 0 to 1; NaN of none."""
    answered = ~np.isnan(answers)
    most = np.zeros(len(answers), dtype=np.intp)
    for level in np.unique(answers[answered]):
        most = np.maximum(most, (answers == level).sum(axis=1))
    n = answered.sum(axis=1)
    return np.where(n > 0, most / np.maximum(n, 1), np.nan)


def find_contradictable(instrument: Instrument, limits: Limits = LIMITS) -> tuple[Positions, Positions] | None:
    """Items to which one same answer contradicts itself, and which way each runs (1 or -1); None where there are none.

    These are the items of one scale that share their levels, at least `careless_items` of them, some of which the
    scale turns round: by what their answers are worth, or by a weight below 0. Where no item is turned round, as in
    EQ-5D, the same answer throughout is an answer like any other.
    """
    for scale in instrument.scales:
        items = [instrument.find_item(name) for name in scale.items]
        if scale.method not in ("weighted", "valued_sum") or not all(item and item.levels for item in items):
            continue
        known = [item for item in items if item]
        if len(known) < limits.careless_items or any(item.levels != known[0].levels for item in known):
            continue
        ways = [_find_direction(scale, item) for item in known]
        if {1, -1} == set(ways):
            places = np.array([instrument.item_ids.index(item.id) for item in known], dtype=np.intp)
            order = np.argsort(places)  # runs are runs on the sheet
            return places[order], np.array(ways, dtype=np.intp)[order]
    return None


def _find_direction(scale: Scale, item: Item) -> int:
    """1 where a higher level adds to the score, -1 where it takes away, 0 where neither holds throughout."""
    if scale.weights:
        return int(np.sign(scale.weights[item.id]))
    steps = np.sign(np.diff([scale.item_values[item.id][level] for level in sorted(item.levels)]))
    return int(steps[0]) if len(steps) and (steps == steps[0]).all() else 0


def derive_response_quality(instrument: Instrument, answers: Floats, limits: Limits = LIMITS) -> pd.DataFrame | None:
    """How each record was answered: longest_run, variability, same_level (share) and contradicts, a flag that excludes
    nothing; None for an instrument where the same answer throughout is no contradiction.

    `answers`: records x items of the instrument, NaN where there is none. A record contradicts itself where a run of
    one answer, over items of both directions, is at least half as long as the items are many.
    """
    found = find_contradictable(instrument, limits)
    if found is None:
        return None
    places, directions = found
    own = answers[:, places]
    return pd.DataFrame(
        {
            "longest_run": find_longest_runs(own),
            "variability": compute_variability(own),
            "same_level": compute_same_level_share(own),
            "contradicts": find_longest_runs(own, directions) * 2 >= len(places),
        }
    )


# The figures --------------------------------------------------------------------------------------------------------


def derive_psychometrics(
    answers: Answers, scores: pd.DataFrame, participants: pd.DataFrame, study: Study
) -> Psychometrics:
    """Every figure of a release's answers, and of its tables SCORES and PARTICIPANTS of `study.datasets`.

    Rows: instruments in the protocol's order; respondent; form; waves in their order; all sites, then each; then what
    it is told of in the order of KINDS and of the definition. Of a single site, over all waves, only `questionnaire`.
    """
    limits = find_limits(study)
    sites = participants.set_index("participant_id")["site"]
    order = {name: place for place, name in enumerate(study.instruments)}
    parts: list[pd.DataFrame] = []
    for instrument_id in sorted({*answers.of_blocks}, key=lambda name: (order.get(name, len(order)), name)):
        groups, facts = [], []
        for block in answers.read_blocks(instrument_id):
            own = _lay_out(block, scores, sites)
            groups.append(own.groups)
            facts.append(own.facts)
            parts += [_describe(own, by_site=by_site, limits=limits) for by_site in (False, True)]
            del block, own
        parts.append(_describe_over_waves(pd.concat(groups), pd.concat(facts), limits))
    empty = pd.DataFrame({name: pd.Series(dtype="str" if name in _TEXT else "float64") for name in FIGURE_COLUMNS})
    if not parts:
        return Psychometrics(empty, limits)
    figures = pd.concat(parts, ignore_index=True)
    firsts = {name: place for place, name in enumerate(dict.fromkeys(figures["instrument"]))}
    keys = [
        figures["place"].to_numpy(),
        figures["of"].map({name: place for place, name in enumerate(KINDS)}).to_numpy(),
        pd.factorize(figures["site"], sort=True)[0],
        np.where(figures["wave"] == "", -1, find_wave_places(figures["wave"], study)),
        figures["form"].map({name: place for place, name in enumerate(FORMS)}).to_numpy(),
        figures["respondent"].map({name: place for place, name in enumerate(RESPONDENTS)}).to_numpy(),
        figures["instrument"].map(firsts).to_numpy(),
    ]
    figures = figures.iloc[np.lexsort(keys)].reset_index(drop=True).reindex(columns=list(FIGURE_COLUMNS))
    for name in FIGURE_COLUMNS:
        if name in _TEXT:
            figures[name] = figures[name].astype("object").where(figures[name].notna(), "").astype("str")
        else:
            figures[name] = figures[name].astype("float64").round(_DECIMALS) + 0.0  # no -0
    return Psychometrics(figures, limits)


@dataclass(frozen=True)
class _Answers:
    """One instrument's answers as arrays: a row for each record; items and scales in the order of the definition."""

    instrument: Instrument
    groups: pd.DataFrame  # GROUP, with wave and site of each record
    values: Floats
    reasons: Codes
    scores: Floats
    score_reasons: Codes

    @cached_property
    def facts(self) -> pd.DataFrame:
        """What is told of each record as a whole: counts of its answers, and how it was answered
        (`derive_response_quality`) where that is told."""
        reasons = self.reasons
        owed = ~np.isin(reasons, [REASON_CODES[reason] for reason in NOT_OWED])
        counts = {"n_owed": owed.sum(axis=1), "n_missing": (owed & (reasons > 0)).sum(axis=1)}
        counts |= {"n_answered": (reasons == 0).sum(axis=1)}
        counts |= {f"n_{reason}": (reasons == REASON_CODES[reason]).sum(axis=1) for reason in MISSING_REASONS}
        quality = derive_response_quality(self.instrument, self.values)
        return pd.DataFrame(counts) if quality is None else pd.DataFrame(counts).join(quality)

    def select(self, chosen: Flags) -> _Answers:
        return _Answers(
            self.instrument,
            self.groups[chosen].reset_index(drop=True),
            self.values[chosen],
            self.reasons[chosen],
            self.scores[chosen],
            self.score_reasons[chosen],
        )


def _lay_out(block: AnswerBlock, scores: pd.DataFrame, sites: pd.Series[str]) -> _Answers:
    instrument, records = block.instrument, block.records
    groups = records.assign(site=records["participant_id"].map(sites).fillna(""))[list(GROUP)]
    own = scores[(scores["instrument"] == instrument.id) & scores["wave"].isin(records["wave"].unique())]
    record, of_score = np.zeros(len(records), np.int64), np.zeros(len(own), np.int64)
    for name in RECORD_KEY:  # one number for each key; 0 for a word that no record has
        codes, words = pd.factorize(records[name])
        record = record * (len(words) + 1) + codes + 1
        of_score = of_score * (len(words) + 1) + pd.Index(words).get_indexer(pd.Index(own[name])) + 1
    place = pd.Index(record).get_indexer(pd.Index(of_score))
    scored, why = _pivot(len(records), instrument.scale_ids, place, own["scale"], own, "score")
    return _Answers(instrument, groups, block.values, block.told_reasons, scored, why)


def _pivot(
    n: int, names: Sequence[str], record: Positions, name: pd.Series[str], rows: pd.DataFrame, value: str
) -> tuple[Floats, Codes]:
    """Long rows as records x names: values and reason codes; what has no row was not returned."""
    values = np.full((n, len(names)), np.nan)
    reasons = np.full(values.shape, REASON_CODES["not_returned"], dtype=np.int8)
    column = pd.Index(names).get_indexer(pd.Index(name))
    is_known = (column >= 0) & (record >= 0)
    record, column = record[is_known], column[is_known]
    values[record, column] = rows[value].to_numpy(dtype=np.float64)[is_known]
    codes, words = pd.factorize(rows["missing_reason"])
    reasons[record, column] = np.array([*(REASON_CODES[word] for word in words), 0], np.int8)[codes[is_known]]
    return values, reasons


@dataclass(frozen=True)
class _Grouping:
    """Records in groups: the place of each record's group, and sums by group."""

    number: Positions
    labels: pd.DataFrame  # GROUP, one row for each group
    order: Positions
    starts: Positions

    @property
    def sizes(self) -> Positions:
        return np.diff(np.append(self.starts, len(self.order)))

    def sum(self, values: npt.NDArray[Any]) -> Floats:
        """Sums of the rows of each group (groups x columns)."""
        return np.add.reduceat(values[self.order].astype(np.float64), self.starts, axis=0)

    def find(self, group: int) -> Positions:
        """The records of one group."""
        return self.order[self.starts[group] : self.starts[group] + self.sizes[group]]


def _group(groups: pd.DataFrame, *, by_wave: bool, by_site: bool) -> _Grouping:
    keys = groups if by_wave else groups.assign(wave="")
    keys = keys if by_site else keys.assign(site="")
    number = keys.groupby(list(GROUP), sort=True).ngroup().to_numpy().astype(np.intp)
    order = np.argsort(number, kind="stable")
    starts = np.flatnonzero(np.diff(number[order], prepend=-1))
    return _Grouping(number, keys.iloc[order[starts]].reset_index(drop=True), order, starts)


def _describe(answers: _Answers, *, by_site: bool, limits: Limits) -> pd.DataFrame:
    """FIGURE_COLUMNS and `place`, the place in the definition, of every group at a wave."""
    small, chosen = _set_small_apart(answers.groups, by_wave=True, by_site=by_site, limits=limits)
    if not chosen.any():
        return small
    facts = answers.facts[chosen]
    if not chosen.all():
        answers = answers.select(chosen)
    grouping = _group(answers.groups, by_wave=True, by_site=by_site)
    parts = [small, _describe_records(facts, grouping, limits), _describe_items(answers, grouping, limits)]
    parts += _describe_scales(answers, grouping, limits)
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def _describe_over_waves(groups: pd.DataFrame, facts: pd.DataFrame, limits: Limits) -> pd.DataFrame:
    """Of single sites, over all waves; `_Answers.groups` and `facts` of all of them."""
    small, chosen = _set_small_apart(groups, by_wave=False, by_site=True, limits=limits)
    if not chosen.any():
        return small
    grouping = _group(groups[chosen].reset_index(drop=True), by_wave=False, by_site=True)
    parts = [small, _describe_records(facts[chosen], grouping, limits)]
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def _set_small_apart(
    groups: pd.DataFrame, *, by_wave: bool, by_site: bool, limits: Limits
) -> tuple[pd.DataFrame, Flags]:
    """A row for each group that is too small to tell anything of, and the records of the others."""
    grouping = _group(groups, by_wave=by_wave, by_site=by_site)
    is_large = grouping.sizes >= limits.smallest_group
    small = grouping.labels[~is_large].assign(
        of="questionnaire", place=0, not_given=f"fewer than {limits.smallest_group} questionnaires"
    )
    return small, is_large[grouping.number]


def _flag(flagged: Mapping[str, Flags], by_site: Flags) -> npt.NDArray[np.object_]:
    """The ids of the flags raised, with spaces between; of single sites only those that are raised of them."""
    texts: npt.NDArray[np.object_] = np.full(len(by_site), "", dtype=object)
    for name, is_raised in flagged.items():
        raised = is_raised & (~by_site | FLAGS[name].by_site)
        texts[raised] = [f"{text} {name}".strip() for text in texts[raised]]
    return texts


def _describe_records(facts: pd.DataFrame, grouping: _Grouping, limits: Limits) -> pd.DataFrame:
    table = grouping.labels.assign(of="questionnaire", place=0, n=grouping.sizes)
    for name in ("n_answered", *(f"n_{reason}" for reason in MISSING_REASONS)):
        table[name] = grouping.sum(facts[name].to_numpy())
    n_missing = facts["n_missing"].to_numpy()
    table["missing_pct"] = _percent(grouping.sum(n_missing), grouping.sum(facts["n_owed"].to_numpy()))
    width = int(n_missing.max()) + 1
    by_number = np.bincount(grouping.number * width + n_missing, minlength=len(table) * width).reshape(-1, width)
    labels = [str(n) for n in range(width)]
    table["distribution"] = [_encode_distribution(labels, row, only_some=True) for row in by_number.tolist()]
    flagged = {"missing_answers": (table["missing_pct"] > limits.missing_pct).to_numpy()}
    if "contradicts" in facts:
        table["longest_run"] = grouping.sum(facts["longest_run"].to_numpy()) / grouping.sizes
        for name, column, times in (("variability", "variability", 1.0), ("same_level_pct", "same_level", 100.0)):
            told = facts[column].notna().to_numpy()
            total = grouping.sum(facts[column].fillna(0).to_numpy())
            table[name] = times * _percent(total, grouping.sum(told)) / 100
        table["careless_pct"] = _percent(grouping.sum(facts["contradicts"].to_numpy()), grouping.sizes)
        flagged["careless"] = (table["careless_pct"] > limits.careless_pct).to_numpy()
    table["flags"] = _flag(flagged, (table["site"] != "").to_numpy())
    return table


def _percent(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
    """Per cent; NaN of nothing."""
    whole = np.asarray(whole, dtype=np.float64)
    share: Floats = np.divide(100.0 * part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return share


def _encode_distribution(labels: Sequence[str], counts: Sequence[int], *, only_some: bool = False) -> str:
    """Answers and how many gave them: "1=20;2=31". `only_some`: none of which there are none."""
    return ";".join(f"{label}={n}" for label, n in zip(labels, counts, strict=True) if n or not only_some)


def read_distribution(text: str) -> dict[str, int]:
    """What `distribution` says: answer to number of people."""
    pairs = (part.rpartition("=") for part in text.split(";") if part)
    return {label: int(n) for label, _, n in pairs}


def _describe_columns(
    values: Floats,
    reasons: Codes,
    ends: Sequence[tuple[float, float]],
    names: Sequence[str],
    grouping: _Grouping,
    limits: Limits,
) -> dict[str, npt.NDArray[Any]]:
    """Figures that items and scores have alike, each groups x names; of many answers some columns at a time."""
    at_once = max(_CELLS_AT_ONCE // len(values), 1)
    cuts = [slice(start, start + at_once) for start in range(0, max(len(names), 1), at_once)]
    parts = [_describe_some(values[:, cut], reasons[:, cut], ends[cut], grouping, limits) for cut in cuts]
    return {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}


def _describe_some(
    values: Floats, reasons: Codes, ends: Sequence[tuple[float, float]], grouping: _Grouping, limits: Limits
) -> dict[str, npt.NDArray[Any]]:
    answered = ~np.isnan(values)
    n = np.broadcast_to(grouping.sizes[:, None], (len(grouping.sizes), len(ends)))
    found: dict[str, npt.NDArray[Any]] = {"n": n.astype(np.float64), "n_answered": grouping.sum(answered)}
    for reason in MISSING_REASONS:
        found[f"n_{reason}"] = grouping.sum(reasons == REASON_CODES[reason])
    n_answered = found["n_answered"]
    n_owed = n - sum(found[f"n_{reason}"] for reason in NOT_OWED)
    found["missing_pct"] = _percent(n_owed - n_answered, n_owed)
    with np.errstate(divide="ignore", invalid="ignore"):
        found["mean"] = grouping.sum(np.where(answered, values, 0)) / n_answered
        centred = np.where(answered, values - found["mean"][grouping.number], 0)
        found["sd"] = np.sqrt(grouping.sum(centred**2) / np.where(n_answered > 1, n_answered - 1, np.nan))
    for name, end in (("lowest_pct", 0), ("highest_pct", 1)):
        at_end = np.isclose(values, np.array([pair[end] for pair in ends]), rtol=0, atol=1e-9)
        found[name] = _percent(grouping.sum(at_end), n_answered)
    is_few_asked, is_few = n_owed < limits.smallest_group, n_answered < limits.smallest_group
    for name, column in found.items():
        if name in ("mean", "sd", "lowest_pct", "highest_pct"):
            found[name] = np.where(is_few, np.nan, column)
        elif name != "n":
            found[name] = np.where(is_few_asked, np.nan, column)
    found["not_given"] = np.where(is_few, f"fewer than {limits.smallest_group} answers", "").astype(object)
    return found


def _to_rows(grouping: _Grouping, of: str, names: Sequence[str], found: Mapping[str, npt.NDArray[Any]]) -> pd.DataFrame:
    """Arrays groups x names as rows of FIGURE_COLUMNS."""
    rows = grouping.labels.loc[grouping.labels.index.repeat(len(names))].reset_index(drop=True)
    n_groups = len(grouping.labels)
    told = {name: column.ravel() for name, column in found.items()}
    return rows.assign(
        of=of, name=np.tile(np.array(names, dtype=object), n_groups), place=np.tile(np.arange(len(names)), n_groups),
        **told,
    )  # fmt: skip


def _describe_items(answers: _Answers, grouping: _Grouping, limits: Limits) -> pd.DataFrame:
    items, values = answers.instrument.items, answers.values
    ends = [(item.lowest, item.highest) for item in items]
    found = _describe_columns(values, answers.reasons, ends, answers.instrument.item_ids, grouping, limits)
    n_groups, is_told = len(grouping.labels), found["not_given"] == ""
    texts = np.full((n_groups, len(items)), "", dtype=object)
    varies: Flags = np.ones((n_groups, len(items)), dtype=np.bool_)
    for place, item in enumerate(items):
        labels, bands = band_answers(item, values[:, place])
        counts = np.bincount(
            (grouping.number * len(labels) + bands)[bands >= 0], minlength=n_groups * len(labels)
        ).reshape(n_groups, -1)
        for group in np.flatnonzero(is_told[:, place]):
            texts[group, place] = _encode_distribution(labels, counts[group].tolist())
        own = values[:, place]
        low = np.fmin.reduceat(own[grouping.order], grouping.starts)
        high = np.fmax.reduceat(own[grouping.order], grouping.starts)
        varies[:, place] = low < high
    found["distribution"] = texts
    rows = _to_rows(grouping, "item", answers.instrument.item_ids, found)
    same = ~varies.ravel() & (rows["n_answered"] >= limits.smallest_for_agreement).to_numpy()
    rows["flags"] = _flag(
        {
            "no_variation": same,
            "missing_item": _is_missing(rows, limits),
            "item_crowded": _is_crowded(rows, limits).any(axis=0) & ~same & (not answers.instrument.facts),
        },
        (rows["site"] != "").to_numpy(),
    )
    return rows


def band_answers(item: Item, values: Floats) -> tuple[list[str], Positions]:
    """The answers of an item as people read them in a plot, one by one or in bands, and the place of each value among
    them (-1 where there is none)."""
    is_there = ~np.isnan(values)
    filled = np.where(is_there, values, item.lowest)
    is_whole = item.type == "level" or item.whole_numbers
    span = int(item.highest - item.lowest) + 1
    if is_whole and (len(item.levels) or span) <= _MOST_LEVELS:
        codes = sorted(item.levels) or list(range(int(item.lowest), int(item.highest) + 1))
        labels = [str(code) for code in codes]
        places = np.searchsorted(np.array(codes, dtype=np.float64), filled)
    elif is_whole:
        edges = [int(item.lowest) + round(n * span / _BANDS) for n in range(_BANDS + 1)]
        labels = [f"{low} to {high - 1}" for low, high in pairwise(edges)]
        places = np.searchsorted(np.array(edges[1:-1], dtype=np.float64), filled, side="right")
    else:
        parts = np.linspace(item.lowest, item.highest, _BANDS + 1)
        labels = [f"{low:g} to under {high:g}" for low, high in pairwise(parts)]
        labels[-1] = labels[-1].replace("under ", "")
        places = np.searchsorted(parts[1:-1], filled, side="right")
    return labels, np.where(is_there, places, -1)


def _is_missing(rows: pd.DataFrame, limits: Limits) -> Flags:
    """Whether more than `missing_pct` are missing, of enough people for one or two not to make the share."""
    n_owed = rows["n"] - sum(rows[f"n_{reason}"] for reason in NOT_OWED)
    return ((rows["missing_pct"] > limits.missing_pct) & (n_owed >= limits.smallest_for_agreement)).to_numpy()


def _is_crowded(rows: pd.DataFrame, limits: Limits) -> Flags:
    """Whether more than `floor_pct` are at the lowest end, and at the highest, of enough people (2 x rows)."""
    enough = (rows["n_answered"] >= limits.smallest_for_floor).to_numpy()
    return np.stack([(rows[name] > limits.floor_pct).to_numpy() & enough for name in ("lowest_pct", "highest_pct")])


def _describe_scales(answers: _Answers, grouping: _Grouping, limits: Limits) -> list[pd.DataFrame]:
    """Rows of scales, of the items in them, and of pairs of items that say nearly the same."""
    instrument, scales = answers.instrument, answers.instrument.scales
    if not scales:
        return []
    ends = [(scale.minimum, scale.maximum) for scale in scales]
    found = _describe_columns(answers.scores, answers.score_reasons, ends, instrument.scale_ids, grouping, limits)
    for name in ("n_complete", "alpha", "alpha_low", "alpha_high"):
        found[name] = np.full(found["n"].shape, np.nan)
    of_items: list[dict[str, Any]] = []
    for place, scale in enumerate(scales):
        added = score_items(instrument, scale, answers.values, answers.reasons) if scale.reflective else None
        if added is None:
            continue
        is_complete = np.isnan(added).sum(axis=1) == 0
        found["n_complete"][:, place] = grouping.sum(is_complete)
        for group in range(len(grouping.labels)):
            own = grouping.find(group)
            own = own[is_complete[own]]
            if len(own) < limits.smallest_for_agreement:
                if len(own) < limits.smallest_group:
                    found["n_complete"][group, place] = np.nan
                why = f"alpha: fewer than {limits.smallest_for_agreement} people answered every item"
                found["not_given"][group, place] = "; ".join(filter(None, [found["not_given"][group, place], why]))
                continue
            covariance = np.cov(added[own], rowvar=False)
            agreement = compute_agreement(covariance, len(own))
            if np.isnan(agreement.alpha):
                found["not_given"][group, place] = "alpha: everybody has the same score"
            found["alpha"][group, place] = agreement.alpha
            found["alpha_low"][group, place], found["alpha_high"][group, place] = agreement.low, agreement.high
            label = {name: str(grouping.labels[name].iloc[group]) for name in GROUP}
            of_items += _describe_agreement(label, scale, covariance, agreement, len(own), limits)
    rows = _to_rows(grouping, "scale", instrument.scale_ids, found)
    amounts = {scale.id for scale in scales if instrument.facts or scale.method == "cost"}
    lowest, highest = _is_crowded(rows, limits) & ~rows["name"].isin(amounts).to_numpy()
    inputs = {name for scale in scales for name in scale.items}
    plain = {scale.id for scale in scales if len(scale.items) == 1 and scale.items[0] in instrument.item_ids}
    is_score = ~rows["name"].isin(inputs | plain).to_numpy()
    rows["flags"] = _flag(
        {
            "missing_score": _is_missing(rows, limits),
            "alpha_low": (rows["alpha"] < limits.alpha_low).to_numpy(),
            "floor": lowest & is_score,
            "ceiling": highest & is_score,
            "alpha_high": (rows["alpha"] > limits.alpha_high).to_numpy(),
            "item_crowded": (lowest | highest) & ~is_score,
        },
        (rows["site"] != "").to_numpy(),
    )
    return [rows, pd.DataFrame(of_items)]


def _describe_agreement(
    label: Mapping[str, Any], scale: Scale, covariance: Floats, agreement: Agreement, n: int, limits: Limits
) -> list[dict[str, Any]]:
    """Each item against the others of its scale, and the pairs that correlate above the limit."""
    sd = np.sqrt(np.diag(covariance))
    with np.errstate(divide="ignore", invalid="ignore"):
        correlations = covariance / np.outer(sd, sd)
    rows = [
        {
            **label, "of": "item_of_scale", "name": name, "within": scale.id, "place": place, "n_complete": n,
            "item_rest": rest, "alpha_without": without, "flags": "item_against_rest" if rest < 0 else "",
        }
        for place, (name, rest, without) in enumerate(
            zip(scale.items, agreement.item_rest, agreement.alpha_without, strict=True)
        )
    ]  # fmt: skip
    firsts, seconds = np.nonzero(np.triu(correlations > limits.correlation, k=1))
    is_of_all = label["site"] == ""
    return rows + [
        {
            **label, "of": "item_pair", "name": scale.items[first], "within": scale.items[second],
            "place": first * len(sd) + second, "n_complete": n, "correlation": correlations[first, second],
            "flags": "items_alike" if is_of_all else "",
        }
        for first, second in zip(firsts, seconds, strict=True)
    ]  # fmt: skip


# What to look at first ----------------------------------------------------------------------------------------------


def derive_flags(figures: pd.DataFrame) -> pd.DataFrame:
    """One row for each flag raised: flag, rank, GROUP, of, name, within and value (the figure that raised it); by
    rank, then flag, then as in `figures`. A site's flag stands only where all sites together do not raise the same."""
    raised = figures[figures["flags"] != ""]
    raised = raised.assign(flag=raised["flags"].str.split(" ")).explode("flag")
    ranks = {name: place for place, name in enumerate(FLAGS)}
    keys = ["flag", "instrument", "respondent", "form", "wave", "of", "name", "within"]
    of_all = pd.MultiIndex.from_frame(raised.loc[raised["site"] == "", keys])
    raised = raised[(raised["site"] == "") | ~pd.MultiIndex.from_frame(raised[keys]).isin(of_all)]
    value = np.full(len(raised), np.nan)
    for names, column in _VALUE_OF_FLAG:
        is_one = raised["flag"].isin(names).to_numpy()
        value[is_one] = raised[column].to_numpy()[is_one]
    ends = raised[["lowest_pct", "highest_pct"]].max(axis=1).to_numpy()
    is_crowded = (raised["flag"] == "item_crowded").to_numpy()
    value[is_crowded] = ends[is_crowded]
    table = raised.assign(rank=raised["flag"].map({name: flag.rank for name, flag in FLAGS.items()}), value=value)
    table = table.iloc[np.argsort(table["flag"].map(ranks).to_numpy(), kind="stable")]
    return table[["flag", "rank", *GROUP, "of", "name", "within", "n", "value"]].reset_index(drop=True)


_VALUE_OF_FLAG = (
    (("missing_answers", "missing_item", "missing_score"), "missing_pct"),
    (("alpha_low", "alpha_high"), "alpha"),
    (("item_against_rest",), "item_rest"),
    (("items_alike",), "correlation"),
    (("careless",), "careless_pct"),
    (("floor",), "lowest_pct"),
    (("ceiling",), "highest_pct"),
    (("no_variation",), "mean"),
)
