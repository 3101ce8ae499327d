"""Scores from checked answers, by the rules that an instrument's definition states.

A score whose missing rule is not met is missing, and says why. Where its items are missing for several reasons it
takes the reason that most of them share; among equals, the first of: refused, illegible, not answered, not returned,
not applicable, not asked (a person's decision before an accident, and both before what nobody did wrong). A score that
rests on other scores takes their reasons in the same way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pandas as pd

from study.instruments import MISSING_REASONS, Condition, Instrument, Scale, WorkedExample
from study.validation import REASON_CODES, REASON_NAMES, Codes, Floats, Positions, check_records

# Which reason a score takes when as many of its items are missing for one as for another.
REASONS_IN_ORDER = ("refused", "illegible", "not_answered", "not_returned", "not_applicable", "not_asked")

_NOT_ANSWERED, _NOT_RETURNED = REASON_CODES["not_answered"], REASON_CODES["not_returned"]
_NOT_ASKED = REASON_CODES["not_asked"]
_ORDER: Codes = np.array([REASON_CODES[reason] for reason in REASONS_IN_ORDER], dtype=np.int8)
_RECORDS_AT_ONCE = 32_768

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Step:
    """One scale as places in the working arrays, which hold the items and then the scales."""

    scale: Scale
    inputs: Positions
    output: int
    highest: Floats  # the highest possible value of each input
    weights: Floats
    leave_out: Codes
    mapped: tuple[Floats, Floats]  # answers in ascending order, their values
    gate: int  # the place of zero_if's item, or -1


@lru_cache(maxsize=256)
def _steps(instrument: Instrument) -> tuple[_Step, ...]:
    place = {name: number for number, name in enumerate((*instrument.item_ids, *instrument.scale_ids))}
    highest: dict[str, float] = {item.id: item.highest for item in instrument.items}
    highest.update({scale.id: scale.maximum for scale in instrument.scales})
    return tuple(
        _Step(
            scale=scale,
            inputs=np.array([place[name] for name in scale.items], dtype=np.intp),
            output=place[scale.id],
            highest=np.array([highest[name] for name in scale.items]),
            weights=np.array([scale.weights.get(name, 1.0) for name in scale.items]),
            leave_out=np.array([REASON_CODES[reason] for reason in scale.missing.leave_out], dtype=np.int8),
            mapped=(
                np.array(sorted(scale.values), dtype=np.float64),
                np.array([scale.values[answer] for answer in sorted(scale.values)], dtype=np.float64),
            ),
            gate=-1 if scale.zero_if is None else place[scale.zero_if.item],
        )
        for scale in instrument.scales
    )


def derive_scores(instrument: Instrument, wide: pd.DataFrame, missing: pd.DataFrame | None = None) -> pd.DataFrame:
    """Every scale of the instrument for every record, long.

    ``wide``: one row per record, float columns named by item ids, NaN where missing, checked beforehand. ``missing``:
    the missing reasons in the same shape ("" where answered); where it says nothing a missing answer is not_answered.
    An item without a column is not_returned. Returns columns scale, score (NaN if missing), missing_reason ("" if not),
    indexed by ``wide``'s index, each record's scales together in the order of the definition. Raises ValueError for a
    missing reason that does not exist.
    """
    steps = _steps(instrument)
    answers, reasons = _read_answers(instrument, wide, missing)
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
    return pd.DataFrame(
        {
            "scale": np.tile(np.array(instrument.scale_ids, dtype=object), n),
            "score": scores.T.ravel(),
            "missing_reason": REASON_NAMES[score_reasons.T.ravel()],
        },
        index=wide.index.repeat(len(steps)),
    )


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
        return _compute_scores(step, inputs, is_missing), np.zeros(inputs.shape[1], dtype=np.int8)
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
    return scores, lost_reasons


def _holds(condition: Condition, answers: Floats) -> Flags:
    holds: Flags = answers == condition.equals[0]
    for value in condition.equals[1:]:
        holds |= answers == value
    return holds


def _compute_scores(step: _Step, inputs: Floats, is_missing: Flags) -> Floats:
    """The method's formula over the inputs that are there; what is missing adds nothing."""
    scale = step.scale
    if scale.method == "mapping":
        return _map(step, inputs[0])
    scores: Floats
    if scale.method == "product":
        scores = np.where(is_missing, 1.0, inputs).prod(axis=0)
        return scores
    if scale.method == "count":
        scores = np.isin(inputs, scale.counted).sum(axis=0).astype(np.float64)
        return scores
    present = np.where(is_missing, 0.0, inputs)
    if scale.method == "weighted":
        scores = step.weights @ present
        return scores
    scores = present.sum(axis=0)
    if scale.method == "prorated_sum":
        reach = step.highest @ ~is_missing
        scores = np.divide(scores * (scale.scale_to or 0.0), reach, out=np.full_like(scores, np.nan), where=reach > 0)
    return scores


def _map(step: _Step, answers: Floats) -> Floats:
    keys, mapped = step.mapped
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
        for fault in checked.faults.itertuples():
            faults.append(f"{where}, item {fault.item}: {fault.rule}. Expected {fault.expected}.")
        scores = derive_scores(instrument, checked.responses, checked.missing_reasons).set_index("scale")
        results = {
            str(scale): str(reason) if reason else float(score)
            for scale, score, reason in zip(scores.index, scores["score"], scores["missing_reason"], strict=True)
        }
        faults += [f"{where}: {text}" for text in _find_differences(example, results)]
    return faults


def _find_differences(example: WorkedExample, results: Mapping[str, float | str]) -> list[str]:
    differences = []
    for scale, expected in example.expected.items():
        result = results[scale]
        if isinstance(result, str) or expected in MISSING_REASONS:
            is_equal = result == expected
        else:
            is_equal = abs(result - float(expected)) <= 0.5 * 10**-example.decimals + 1e-9
        if not is_equal:
            shown = result if isinstance(result, str) else f"{result:.{example.decimals}f}"
            differences.append(f"{scale} must be {expected}, and comes out as {shown}.")
    return differences
