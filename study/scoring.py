"""Scores from checked answers, by the rules that an instrument's definition states.

A score whose missing rule is not met is missing, and says why. Where its items are missing for several reasons it
takes the reason that most of them share; among equals, the first of: refused, illegible, not answered, not returned,
not applicable, not asked (a person's decision before an accident, and both before what nobody did wrong). A score that
rests on other scores takes their reasons in the same way.

Some published tables need the age and the sex of the person besides the answers. Where these are not known the score is
missing as not_returned; where the table does not cover the person (an age beyond its bands, a sex that it does not
have) as not_applicable.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pandas as pd

from study.instruments import MISSING_REASONS, Condition, Instrument, Scale, WorkedExample
from study.validation import REASON_CODES, REASON_NAMES, Codes, Floats, Positions, check_records
from study.value_sets import SEXES, ValueSet, map_values

# Which reason a score takes when as many of its items are missing for one as for another.
REASONS_IN_ORDER = ("refused", "illegible", "not_answered", "not_returned", "not_applicable", "not_asked")

_NOT_ANSWERED, _NOT_RETURNED = REASON_CODES["not_answered"], REASON_CODES["not_returned"]
_NOT_ASKED, _NOT_APPLICABLE = REASON_CODES["not_asked"], REASON_CODES["not_applicable"]
_ORDER: Codes = np.array([REASON_CODES[reason] for reason in REASONS_IN_ORDER], dtype=np.int8)
_RECORDS_AT_ONCE = 32_768

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Step:
    """One scale as places in the working arrays, which hold the items, age and sex if needed, and then the scales."""

    scale: Scale
    inputs: Positions
    output: int
    highest: Floats  # the highest possible value of each input
    weights: Floats
    leave_out: Codes
    mapped: tuple[Floats, Floats]  # answers in ascending order, their values
    gate: int  # the place of zero_if's item, or -1
    worth: tuple[tuple[Floats, Floats], ...] = ()  # valued_sum: of each input, answers in ascending order and values
    value_set: ValueSet | None = None


@lru_cache(maxsize=256)
def _steps(instrument: Instrument) -> tuple[_Step, ...]:
    names = (*instrument.item_ids, *instrument.covariates, *instrument.scale_ids)
    place = {name: number for number, name in enumerate(names)}
    highest: dict[str, float] = {item.id: item.highest for item in instrument.items}
    highest.update({scale.id: scale.maximum for scale in instrument.scales})
    tables = {value_set.id: value_set for value_set in instrument.value_sets}
    inputs = {
        scale.id: (*scale.items, *(tables[scale.value_set].covariates if scale.value_set else ()))
        for scale in instrument.scales
    }
    return tuple(
        _Step(
            scale=scale,
            inputs=np.array([place[name] for name in inputs[scale.id]], dtype=np.intp),
            output=place[scale.id],
            highest=np.array([highest[name] for name in scale.items]),
            weights=np.array([scale.weights.get(name, 1.0) for name in scale.items]),
            leave_out=np.array([REASON_CODES[reason] for reason in scale.missing.leave_out], dtype=np.int8),
            mapped=_sort_values(scale.values),
            gate=-1 if scale.zero_if is None else place[scale.zero_if.item],
            worth=tuple(_sort_values(scale.item_values[name]) for name in scale.items if scale.item_values),
            value_set=tables.get(scale.value_set),
        )
        for scale in instrument.scales
    )


def _sort_values(values: Mapping[int, float]) -> tuple[Floats, Floats]:
    """Answers in ascending order, and what each is worth."""
    answers = sorted(values)
    return np.array(answers, dtype=np.float64), np.array([values[answer] for answer in answers], dtype=np.float64)


def derive_scores(
    instrument: Instrument,
    wide: pd.DataFrame,
    missing: pd.DataFrame | None = None,
    people: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Every scale of the instrument for every record, long.

    ``wide``: one row per record, float columns named by item ids, NaN where missing, checked beforehand. ``missing``:
    the missing reasons in the same shape ("" where answered); where it says nothing a missing answer is not_answered.
    An item without a column is not_returned. ``people``: one row per record in the same order, columns age (years at
    collection, NaN if not known) and sex ("male", "female", "" if not known), for instruments that need them; none is
    the same as nothing known. Returns columns scale, score (NaN if missing), missing_reason ("" if not), the texts as
    categories, indexed by ``wide``'s index, each record's scales together in the order of the definition. Raises
    ValueError for a missing reason that does not exist.
    """
    answers, reasons = _read_answers(instrument, wide, missing)
    scores, score_reasons = compute_scores(instrument, answers, reasons, people)
    return pd.DataFrame(
        {
            "scale": pd.Categorical.from_codes(
                np.tile(np.arange(len(scores)), len(wide)), categories=pd.Index(instrument.scale_ids)
            ),
            "score": scores.T.ravel(),
            "missing_reason": pd.Categorical.from_codes(score_reasons.T.ravel(), categories=REASON_NAMES.tolist()),
        },
        index=wide.index.repeat(len(scores)),
    )


def compute_scores(
    instrument: Instrument, answers: Floats, reasons: Codes, people: pd.DataFrame | None = None
) -> tuple[Floats, Codes]:
    """`derive_scores` of arrays: answers and reason codes are items x records, scores and theirs scales x records."""
    steps = _steps(instrument)
    if instrument.covariates:
        of_people, of_people_reasons = _read_people(answers.shape[1], people)
        answers, reasons = np.vstack([answers, of_people]), np.vstack([reasons, of_people_reasons])
    n_items, n = answers.shape
    scores = np.empty((len(steps), n))
    score_reasons = np.empty((len(steps), n), dtype=np.int8)
    for start in range(0, n, _RECORDS_AT_ONCE):
        records = slice(start, start + _RECORDS_AT_ONCE)
        values = np.vstack([answers[:, records], scores[:, records]])
        codes = np.vstack([reasons[:, records], score_reasons[:, records]])
        for step in steps:
            values[step.output], codes[step.output] = _score(step, values, codes)
        scores[:, records], score_reasons[:, records] = values[n_items:], codes[n_items:]
    return scores, score_reasons


def _read_people(n: int, people: pd.DataFrame | None) -> tuple[Floats, Codes]:
    """Age and sex (as its place in SEXES) as arrays, 2 x records, and the reasons why they are missing."""
    found = np.full((2, n), np.nan)
    reasons = np.full((2, n), _NOT_RETURNED, dtype=np.int8)
    if people is not None:
        found[0] = people["age"].to_numpy(dtype=np.float64, na_value=np.nan)
        sexes = pd.Categorical(people["sex"]).rename_categories(str)
        names = sexes.categories.tolist()
        worth = np.array([*(SEXES.index(name) if name in SEXES else np.nan for name in names), np.nan])
        why = np.array([*(_NOT_APPLICABLE if name else _NOT_RETURNED for name in names), _NOT_RETURNED], dtype=np.int8)
        found[1], reasons[1] = worth[sexes.codes], why[sexes.codes]
    reasons[~np.isnan(found)] = 0
    return found, reasons


def _read_answers(instrument: Instrument, wide: pd.DataFrame, missing: pd.DataFrame | None) -> tuple[Floats, Codes]:
    """Answers and reason codes as arrays, items x records."""
    names = pd.Index(instrument.item_ids, dtype=object)
    columns = wide.columns.get_indexer(names)
    is_there = columns >= 0
    answers = np.full((len(names), len(wide)), np.nan)
    answers[is_there] = wide.iloc[:, columns[is_there]].to_numpy(dtype=np.float64, na_value=np.nan).T
    reasons = np.zeros(answers.shape, dtype=np.int8)
    rows, records = np.nonzero(np.isnan(answers))
    reasons[rows, records] = np.where(is_there[rows], _NOT_ANSWERED, _NOT_RETURNED)
    if missing is not None and len(rows):
        if not missing.index.equals(wide.index):
            missing = missing.reindex(wide.index)
        given = missing.columns.get_indexer(names)
        is_given = given[rows] >= 0
        rows, records = rows[is_given], records[is_given]
        words = missing.to_numpy(dtype=object)[records, given[rows]]
        codes = np.array([_reason_code(word) for word in words.tolist()], dtype=np.int8)
        reasons[rows, records] = np.where(codes > 0, codes, reasons[rows, records])
    return answers, reasons


def _reason_code(word: object) -> int:
    """The code of a missing reason; 0 for none (an empty text, or a gap that a pivot left)."""
    code = REASON_CODES.get(word) if isinstance(word, str) else 0
    if code is None:
        raise ValueError(f"missing holds a word that is no missing reason: {', '.join(MISSING_REASONS)}")
    return code


def _score(step: _Step, values: Floats, codes: Codes) -> tuple[Floats, Codes]:
    """One scale for all records: the scores, and the reason codes of those that are missing."""
    scale, rule = step.scale, step.scale.missing
    inputs = values[step.inputs]
    is_missing: Flags = np.isnan(inputs)
    if not is_missing.any():
        return _explain(_compute_scores(step, inputs, is_missing), np.zeros(inputs.shape[1], dtype=np.int8))
    reasons = codes[step.inputs]
    if rule.not_asked_as is not None:
        not_asked = is_missing & (reasons == _NOT_ASKED)
        inputs[not_asked] = rule.not_asked_as
        is_missing &= ~not_asked
    is_left_out = is_missing & np.isin(reasons, step.leave_out) if len(step.leave_out) else np.zeros_like(is_missing)
    counts = is_missing & ~is_left_out
    n_missing, n_expected = counts.sum(axis=0), len(step.inputs) - is_left_out.sum(axis=0)
    is_lost: Flags = (n_missing * 100 > rule.at_most_missing_pct * n_expected) | is_missing.all(axis=0)
    scores = _compute_scores(step, inputs, is_missing)
    if scale.zero_if is not None:
        is_zero = _holds(scale.zero_if, values[step.gate])
        scores[is_zero] = 0.0
        is_lost &= ~is_zero
    scores[is_lost] = np.nan
    lost_reasons = np.zeros(len(scores), dtype=np.int8)
    if is_lost.any():
        # Where every item was left out, what left them out is the reason.
        why = np.where(counts.any(axis=0), counts, is_missing)[:, is_lost]
        among = reasons[:, is_lost]
        n_each = np.stack([((among == code) & why).sum(axis=0) for code in _ORDER])
        lost_reasons[is_lost] = _ORDER[n_each.argmax(axis=0)]
    return _explain(scores, lost_reasons)


def _explain(scores: Floats, reasons: Codes) -> tuple[Floats, Codes]:
    """Nothing is missing, and still there is no score: the published table does not cover this person."""
    reasons[np.isnan(scores) & (reasons == 0)] = _NOT_APPLICABLE
    return scores, reasons


def _holds(condition: Condition, answers: Floats) -> Flags:
    holds: Flags = answers == condition.equals[0]
    for value in condition.equals[1:]:
        holds |= answers == value
    return holds


def _compute_scores(step: _Step, inputs: Floats, is_missing: Flags) -> Floats:
    """The method's formula over the inputs that are there; what is missing adds nothing."""
    scale = step.scale
    if step.value_set is not None:
        return _look_up(step.value_set, inputs)
    if scale.method == "mapping":
        return _map(step.mapped, inputs[0])
    scores = _compute_bare_scores(step, inputs, is_missing)
    if scale.times != 1:
        scores *= scale.times
    if scale.plus:
        scores += scale.plus
    return scores


def _compute_bare_scores(step: _Step, inputs: Floats, is_missing: Flags) -> Floats:
    """The methods that add or multiply, before any linear transform."""
    scale = step.scale
    scores: Floats
    if scale.method == "valued_sum":
        scores = np.zeros(inputs.shape[1])
        for values, answers in zip(step.worth, inputs, strict=True):
            scores += np.nan_to_num(_map(values, answers))
        return scores
    if scale.method == "product":
        scores = np.where(is_missing, 1.0, inputs).prod(axis=0)
        return scores
    if scale.method == "count":
        scores = np.isin(inputs, scale.counted).sum(axis=0).astype(np.float64)
        return scores
    present = np.where(is_missing, 0.0, inputs)
    if scale.method in ("weighted", "cost"):
        scores = step.weights @ present
        return scores
    scores = present.sum(axis=0)
    if scale.method == "prorated_sum":
        reach = step.highest @ ~is_missing
        scores = np.divide(scores * (scale.scale_to or 0.0), reach, out=np.full_like(scores, np.nan), where=reach > 0)
    return scores


def _look_up(value_set: ValueSet, inputs: Floats) -> Floats:
    """Values by the number of the profile; NaN where an answer, the age or the sex is missing or in no band."""
    n_items = len(value_set.items)
    profiles = inputs[0] - value_set.lowest[0]
    for answers, lowest, n_levels in zip(inputs[1:n_items], value_set.lowest[1:], value_set.n_levels[1:], strict=True):
        profiles = profiles * n_levels + (answers - lowest)
    is_known = ~np.isnan(profiles)
    if not value_set.age_bands:
        if is_known.all():
            values: Floats = value_set.values[0].take(profiles.astype(np.intp))
            return values
        groups = np.zeros(len(profiles), dtype=np.intp)
    else:
        ages, sexes = inputs[n_items:]
        is_known &= ~np.isnan(ages) & ~np.isnan(sexes)
        groups = value_set.find_groups(ages, np.nan_to_num(sexes))
        is_known &= groups >= 0
    places = groups * value_set.values.shape[1] + np.where(is_known, profiles, 0).astype(np.intp)
    return np.where(is_known, value_set.values.ravel().take(np.where(is_known, places, 0)), np.nan)


def _map(mapped_values: tuple[Floats, Floats], answers: Floats) -> Floats:
    keys, mapped = mapped_values
    if not len(keys):
        return answers.copy()
    near = np.minimum(np.searchsorted(keys, answers), len(keys) - 1)
    return np.where(keys[near] == answers, mapped[near], np.nan)


def find_worked_example_faults(instrument: Instrument) -> list[str]:
    """Check and score every worked example; one sentence per answer refused and per score that comes out otherwise.

    A score agrees if it is the expected one when rounded to the example's decimals.
    """
    faults: list[str] = []
    for example in instrument.worked_examples:
        where = f'instruments/{instrument.id}: worked example "{example.example}"'
        checked = check_records(instrument, pd.DataFrame([example.answers], dtype=object))
        age, sex = example.person.get("age", ""), example.person.get("sex", "")
        people = pd.DataFrame({"age": [float(age) if age else np.nan], "sex": [sex]})
        for fault in checked.faults.itertuples():
            faults.append(f"{where}, item {fault.item}: {fault.rule}. Expected {fault.expected}.")
        scores = derive_scores(instrument, checked.responses, checked.missing_reasons, people).set_index("scale")
        results = {
            str(scale): str(reason) if reason else float(score)
            for scale, score, reason in zip(scores.index, scores["score"], scores["missing_reason"], strict=True)
        }
        faults += [f"{where}: {text}" for text in _find_differences(example, results)]
    return faults


def _find_differences(example: WorkedExample, results: Mapping[str, float | str]) -> list[str]:
    differences = []
    for scale, expected in example.expected.items():
        if scale not in results:  # a cost, and the study supplies no unit costs
            continue
        result = results[scale]
        if isinstance(result, str) or expected in MISSING_REASONS:
            is_equal = result == expected
        else:
            is_equal = abs(result - float(expected)) <= 0.5 * 10**-example.decimals + 1e-9
        if not is_equal:
            shown = result if isinstance(result, str) else f"{result:.{example.decimals}f}"
            differences.append(f"{scale} must be {expected}, and comes out as {shown}.")
    return differences


def map_utilities(
    instrument: Instrument, value_set_id: str, people: pd.DataFrame, bandwidth: float = 0.0
) -> "pd.Series[float]":
    """Utilities of people whose answers are not known, translated by a mapping of the instrument.

    ``people``: columns utility (by the value set that the mapping `maps_from`), age, sex. For the bandwidth see
    `study.value_sets.map_values`. Raises KeyError where there is no such mapping.
    """
    value_set = instrument.find_value_set(value_set_id)
    origin = instrument.find_value_set(value_set.maps_from) if value_set else None
    if value_set is None or origin is None:
        raise KeyError(f"{instrument.id} has no mapping {value_set_id}")
    (ages, sexes), _ = _read_people(len(people), people)
    ages = np.where(np.isnan(sexes), np.nan, ages)
    utilities = people["utility"].to_numpy(dtype=np.float64)
    mapped = map_values(value_set, origin, utilities, ages, np.nan_to_num(sexes), bandwidth)
    return pd.Series(mapped, index=people.index)


def derive_people(
    records: pd.DataFrame, responses: pd.DataFrame, instruments: Mapping[str, Instrument]
) -> pd.DataFrame:
    """Age and sex of who each record is about, from the questionnaires that ask for them.

    ``records``: participant_id, respondent, collected_on. ``responses``: long answers (these, and instrument, item,
    response). An item that `provides` age or sex counts from the first record that answers it; a carer's own
    questionnaires are about the carer, all others about the participant. The age at collection is the age told, with
    the whole years between the two days added: at most a year too low, since no birth date is held. Returns columns
    age (NaN where nobody told) and sex ("" where nobody told), indexed as ``records``.
    """
    people = pd.DataFrame({"age": np.nan, "sex": ""}, index=records.index)
    about = pd.MultiIndex.from_arrays([records["participant_id"], records["respondent"] == "carer"])
    askers = [i.id for i in instruments.values() if any(item.provides for item in i.items)]
    responses = responses[responses["instrument"].isin(askers) & responses["response"].notna()]
    if responses.empty:
        return people
    pairs = pd.MultiIndex.from_frame(responses[["instrument", "item"]])
    for provided in ("age", "sex"):
        asked = {(i.id, item.id): item for i in instruments.values() for item in i.items if item.provides == provided}
        told = responses[pairs.isin(list(asked))].sort_values(
            ["collected_on", "instrument", "respondent", "item", "response"]
        )
        told = told.assign(is_carer=told["respondent"] == "carer").drop_duplicates(["participant_id", "is_carer"])
        first = told.set_index(["participant_id", "is_carer"])
        if provided == "age":
            found = first.reindex(about)
            days = (records["collected_on"].to_numpy() - found["collected_on"].to_numpy()) / np.timedelta64(1, "D")
            people["age"] = found["response"].to_numpy() + np.floor(days / 365.25)
        else:
            answers = zip(first["instrument"], first["item"], first["response"], strict=True)
            words = [asked[instrument, item].levels.get(int(code), "") for instrument, item, code in answers]
            people["sex"] = pd.Series(words, first.index, dtype="str").reindex(about).fillna("").to_numpy()
    return people
