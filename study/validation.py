"""Checking the cells of a return against an instrument: every fault found in one pass, located by record and item.

A hard fault stops the record (the site is asked before it is accepted); a soft one is accepted with a query. Hard are
a level that does not exist, a number out of range, text or a date where a number belongs, an answer to a question that
another answer rules out, and a choice that stands alone ("none of these") beside another: both cannot be true, and a
score would rest on a guess which one is. Soft is an answer to a routed question whose gate was left blank: nothing
contradicts it. Rules between items are hard or soft as the definition says; they speak of answers only, so that a blank
or a faulty cell breaks none.

Text that is exactly a plain number ("3", "-9", "7.33") is taken as that number; nothing else is guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.types import infer_dtype, is_bool_dtype, is_numeric_dtype

from study.instruments import MISSING_REASONS, AnswerTest, Condition, Instrument, Item, Rule

if TYPE_CHECKING:
    import pandera.pandas as pa

HARD, SOFT = "hard", "soft"
RULES = (
    "level_unknown", "out_of_range", "not_a_number", "unexpected_type", "answered_though_not_asked", "choice_not_alone",
    "answers_disagree",
)  # fmt: skip
FAULT_COLUMNS = ("record", "item", "rule", "severity", "expected", "code_shown")

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int8]
Positions = npt.NDArray[np.intp]
Objects = npt.NDArray[np.object_]

# How a missing cell is held in an int8 array: 0 answered, otherwise the place in MISSING_REASONS plus one.
REASON_CODES: dict[str, int] = {"": 0, **{reason: place for place, reason in enumerate(MISSING_REASONS, start=1)}}
REASON_NAMES: Objects = np.array(["", *MISSING_REASONS], dtype=object)
_NOT_ASKED, _NOT_ANSWERED = REASON_CODES["not_asked"], REASON_CODES["not_answered"]
_NOT_APPLICABLE, _ILLEGIBLE = REASON_CODES["not_applicable"], REASON_CODES["illegible"]
_BLANK, _FAULTY = 126, 127  # while checking only: the reason is still to be found; the cell has a hard fault

(
    _LEVEL_UNKNOWN, _OUT_OF_RANGE, _NOT_A_NUMBER, _UNEXPECTED_TYPE, _NOT_ASKED_RULE, _NOT_ALONE, _DISAGREE,
) = range(len(RULES))  # fmt: skip
_ALONE = "this choice and no other, or the others without it"
_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
_CELLS_AT_ONCE = 262_144  # read together: 2 MB of numbers
_CELLS_IN_CACHE = 32_768  # looked at together: what they take stays in the processor's cache


@dataclass(frozen=True)
class CheckedRecords:
    """What a return's cells say, one row per record and one column per item that the return had.

    ``reasons``: int8, records x items, 0 where answered, else a value of ``REASON_CODES``. ``faults``: columns record,
    item, rule, severity, expected, code_shown, in the order of records and items. A cell with a hard fault has no
    response, and counts as illegible; only answers that do not go with another (a question that was not asked, choices,
    rules between items) are kept beside their fault. ``items``, ``index``: the names of columns and rows; ``cells``: a
    column of numbers for each item.
    """

    reasons: Codes
    faults: pd.DataFrame
    items: tuple[str, ...]
    index: pd.Index[Any]
    cells: tuple[Floats | pd.Series[Any], ...]

    @cached_property
    def responses(self) -> pd.DataFrame:
        """Numbers, NaN where there is no answer. Made when first asked for: who only wants the faults of a large frame
        pays for no second one."""
        values = np.empty((len(self.items), len(self.index)))
        for own, cells, reasons in zip(values, self.cells, self.reasons.T, strict=True):
            own[:] = cells
            own[reasons != 0] = np.nan
        return pd.DataFrame(values.T, index=self.index, columns=list(self.items), copy=False)

    @cached_property
    def missing_reasons(self) -> pd.DataFrame:
        """``reasons`` in words: the missing reason of each cell, "" where answered."""
        return pd.DataFrame(REASON_NAMES[self.reasons], index=self.index, columns=list(self.items), dtype=object)


class _Answers:
    """The cells of each item as numbers (those given, where a column holds nothing else), and what of it is answered:
    ``reasons``, items x records."""

    def __init__(self, n_items: int, n: int) -> None:
        self.cells: list[Floats | pd.Series[Any]] = [np.empty(0)] * n_items
        self.reasons: Codes = np.zeros((n_items, n), dtype=np.int8)
        self._answers: dict[int, Floats] = {}

    def find(self, number: int) -> Floats:
        """The answers to an item, NaN where there is none."""
        if number not in self._answers:
            is_answered = self.reasons[number] == 0
            self._answers[number] = np.where(is_answered, np.asarray(self.cells[number]), np.nan)
        return self._answers[number]


@dataclass(frozen=True)
class _Routing:
    """The routed items that have the same answers of their gates in common, at one depth of routing."""

    items: Positions
    gates: Positions
    equals: tuple[int, ...]


@dataclass(frozen=True)
class _Plan:
    """An instrument as arrays, one place per item."""

    lowest: Floats
    highest: Floats
    is_whole: npt.NDArray[np.bool_]
    is_level: npt.NDArray[np.bool_]
    gaps: tuple[tuple[int, Floats], ...]  # level items whose codes leave a gap: place, codes
    codes: Floats  # every missing code of any item, sorted
    code_reasons: Codes  # items x codes: what the code means in this item, 0 if nothing
    routing: tuple[_Routing, ...]  # gates before what hangs on them
    expected: Objects
    expected_if_asked: Objects
    choices: tuple[tuple[Positions, Positions], ...] = ()  # of each question with several answers: alone, others
    tests: tuple[tuple[Rule, tuple[tuple[AnswerTest, Positions, int], ...]], ...] = ()  # -1: compared with no item
    # Items that not everybody is asked: place, column of the record, who is not.
    asked_of: tuple[tuple[int, str, tuple[str, ...]], ...] = ()
    says: Objects = field(default_factory=lambda: np.empty(0, dtype=object))  # what each rule between items says


@lru_cache(maxsize=256)
def _plan(instrument: Instrument) -> _Plan:
    items = instrument.items
    place = {item.id: number for number, item in enumerate(items)}
    codes = sorted({code for item in items for code in item.missing_codes})
    code_reasons = np.zeros((len(items), len(codes)), dtype=np.int8)
    depth: dict[str, int] = {}
    groups: dict[tuple[int, tuple[int, ...]], list[str]] = {}
    for number, item in enumerate(items):
        for code, reason in item.missing_codes.items():
            code_reasons[number, codes.index(code)] = REASON_CODES[reason]
        depth[item.id] = 0 if item.asked_if is None else depth[item.asked_if.item] + 1
        if item.asked_if is not None:
            groups.setdefault((depth[item.id], item.asked_if.equals), []).append(item.id)
    routing = []
    for (_, equals), names in sorted(groups.items()):
        gates = [condition.item for name in names if (condition := items[place[name]].asked_if)]
        routing.append(_Routing(_places(place, names), _places(place, gates), equals))
    return _Plan(
        lowest=np.array([item.lowest for item in items]),
        highest=np.array([item.highest for item in items]),
        is_whole=np.array([item.type == "level" or item.whole_numbers for item in items]),
        is_level=np.array([item.type == "level" for item in items]),
        gaps=tuple(
            (number, np.array(sorted(item.levels), dtype=np.float64))
            for number, item in enumerate(items)
            if item.levels and item.highest - item.lowest + 1 != len(item.levels)
        ),
        codes=np.array(codes, dtype=np.float64),
        code_reasons=code_reasons,
        routing=tuple(routing),
        expected=np.array([item.expected_in_words for item in items], dtype=object),
        expected_if_asked=np.array([_routing_in_words(instrument, item) for item in items], dtype=object),
        choices=tuple(
            (_places(place, group.exclusive), _places(place, [n for n in group.items if n not in group.exclusive]))
            for group in instrument.choice_groups
            if group.exclusive
        ),
        tests=tuple(
            (
                rule,
                tuple((test, _places(place, test.items), place.get(test.above, -1)) for test in rule.never_together),
            )
            for rule in instrument.rules
        ),
        asked_of=tuple(
            (number, column, tuple(word for word in every if word not in allowed))
            for number, item in enumerate(items)
            for column, every, allowed in (
                ("respondent", instrument.respondents, item.respondents),
                ("form", instrument.forms, item.forms),
            )
            if allowed
        ),
        says=np.array([rule.says for rule in instrument.rules], dtype=object),
    )


def _places(place: dict[str, int], names: Sequence[str]) -> Positions:
    return np.array([place[name] for name in names], dtype=np.intp)


def _routing_in_words(instrument: Instrument, item: Item) -> str:
    only = [item.whom_in_words] if item.whom_in_words else []
    condition = item.asked_if
    gate = instrument.find_item(condition.item) if condition else None
    if condition is not None and gate is not None:
        answers = " or ".join(f"{v} ({gate.levels[v]})" if v in gate.levels else str(v) for v in condition.equals)
        only.append(f"if {gate.label} ({gate.id}) is {answers}")
    return f"no answer, because it is asked only {', and '.join(only)}" if only else ""


class _Found:
    """Faults as they are found, in arrays; made into a frame at the end."""

    def __init__(self) -> None:
        self.parts: list[tuple[Positions, Positions, npt.NDArray[np.int8], npt.NDArray[np.bool_], Floats]] = []

    def add(
        self,
        items: Positions,
        records: Positions,
        rules: npt.ArrayLike,
        is_soft: npt.ArrayLike = False,
        shown: npt.ArrayLike = math.nan,
    ) -> None:
        n = len(items)
        self.parts.append(
            (
                items,
                records,
                np.broadcast_to(np.asarray(rules, dtype=np.int8), n),
                np.broadcast_to(np.asarray(is_soft, dtype=np.bool_), n),
                np.broadcast_to(np.asarray(shown, dtype=np.float64), n),
            )
        )

    def to_frame(self, index: pd.Index[Any], plan: _Plan, names: Sequence[str]) -> pd.DataFrame:
        if not self.parts:
            return _NO_FAULTS.copy()
        items, records, rules, is_soft, shown = (np.concatenate(part) for part in zip(*self.parts, strict=True))
        order = np.lexsort((rules, items, records))
        items, rules, shown = items[order], rules[order], shown[order]
        # What is expected: of each item, of each item that was not asked, of choices, and of each rule between items.
        n = len(plan.expected)
        expected = np.where(rules == _NOT_ASKED_RULE, items + n, items)
        expected[rules == _NOT_ALONE] = 2 * n
        disagree = rules == _DISAGREE
        if disagree.any():
            expected[disagree] = 2 * n + 1 + shown[disagree].astype(np.intp)
            shown[disagree] = math.nan
        codes, inverse = np.unique(shown, return_inverse=True)
        return pd.DataFrame(
            {
                "record": index.to_numpy()[records[order]],
                "item": _take(names, items),
                "rule": _take(RULES, rules),
                "severity": _take((HARD, SOFT), is_soft[order]),
                "expected": _take((*plan.expected, *plan.expected_if_asked, _ALONE, *plan.says), expected),
                "code_shown": _take([_code_in_words(code) for code in codes.tolist()], inverse),
            }
        )


def _take(words: Sequence[str], places: npt.NDArray[Any]) -> pd.api.extensions.ExtensionArray:
    """A column of words, looked up: far quicker than one made of as many texts."""
    return pd.array(list(words), dtype="str").take(places.astype(np.intp))


_NO_FAULTS = pd.DataFrame(
    {"record": np.empty(0, dtype=np.int64), **{name: np.empty(0, dtype=object) for name in FAULT_COLUMNS[1:]}}
).astype(dict.fromkeys(FAULT_COLUMNS[1:], "str"))


def _code_in_words(value: float) -> str:
    """The offending code, if it is short enough to be one: an identifier must not travel in a message."""
    if not math.isfinite(value):
        return ""
    text = str(int(value)) if value.is_integer() else repr(value)
    return text if len(text) <= 6 else ""


def check_records(instrument: Instrument, records: pd.DataFrame) -> CheckedRecords:
    """Check every cell of ``records``: type, level or range, missing code, who is asked, routing, choices, and the
    definition's rules between items.

    ``records`` has one row per record (any unique index) and columns named by item ids, no name twice, with cells as a
    workbook reader gives them. Columns respondent and form, where they are there, tell who was asked which items; other
    columns are ignored. An item without a column is not checked, and neither is what hangs on it. A blank cell is
    not_asked where routing says so, or where the item is not for this respondent or form; where the gate itself has no
    answer it takes the gate's reason; otherwise it is not_answered.
    """
    plan = _plan(instrument)
    names = instrument.item_ids
    columns = records.columns.get_indexer(pd.Index(names, dtype=object))
    present = np.flatnonzero(columns >= 0)
    n = len(records)
    answers = _Answers(len(names), n)
    reasons = answers.reasons
    found = _Found()
    per_block = max(1, _CELLS_AT_ONCE // max(n, 1))
    for start in range(0, len(present), per_block):
        block = present[start : start + per_block]
        _check_block(plan, records, block, columns[block], answers, found)
    for number, column, excluded in plan.asked_of:
        if columns[number] >= 0 and column in records.columns:
            not_asked = records[column].isin(excluded).to_numpy()
            _check_asked_of(number, not_asked, reasons, found)
    for routing in plan.routing:
        _check_routing(routing, columns >= 0, answers, found)
    _check_between(plan, columns >= 0, answers, found)
    reasons[reasons == _BLANK] = _NOT_ANSWERED
    reasons[reasons == _FAULTY] = _ILLEGIBLE
    return CheckedRecords(
        reasons=(reasons if len(present) == len(names) else reasons[present]).T,
        faults=found.to_frame(records.index, plan, names),
        items=tuple(names[number] for number in present),
        index=records.index,
        cells=tuple(answers.cells[number] for number in present),
    )


def _check_block(
    plan: _Plan, records: pd.DataFrame, block: Positions, columns: Positions, answers: _Answers, found: _Found
) -> None:
    """Read the cells of some items, and find what is no answer: blanks, missing codes, faults."""
    cells, odd = _read_cells(records, columns)
    for number, own in zip(block, cells, strict=True):
        answers.cells[number] = own
    values = np.asarray(cells) if len(cells) > 1 else np.asarray(cells[0])[None, :]
    per_part = max(1, _CELLS_IN_CACHE // len(block))
    for start in range(0, values.shape[1], per_part):
        _check_part(plan, block, values[:, start : start + per_part], start, answers.reasons, found)
    if odd:
        odd_rows, odd_positions, rules = (np.array(part, dtype=np.intp) for part in zip(*odd, strict=True))
        answers.reasons[block[odd_rows], odd_positions] = _FAULTY
        found.add(block[odd_rows], odd_positions, rules)


def _check_part(plan: _Plan, block: Positions, cells: Floats, start: int, reasons: Codes, found: _Found) -> None:
    """Some records of a block, from the one at ``start`` on."""
    is_answer = cells >= plan.lowest[block, None]
    is_answer &= cells <= plan.highest[block, None]
    is_whole = plan.is_whole[block]
    if is_whole.all():
        is_answer &= np.rint(cells) == cells
    elif is_whole.any():
        is_answer &= (np.rint(cells) == cells) | ~is_whole[:, None]
    for number, levels in plan.gaps:
        for row in np.flatnonzero(block == number):
            is_answer[row] = np.isin(cells[row], levels)
    # Places in one dimension: finding them in two takes several times as long.
    rows, positions = np.divmod(np.flatnonzero(~is_answer.ravel()), max(cells.shape[1], 1))
    if not len(rows):
        return
    shown = cells[rows, positions]
    items, positions = block[rows], positions + start
    meaning = np.full(len(rows), _BLANK, dtype=np.int8)
    numbers = np.flatnonzero(~np.isnan(shown))
    if len(numbers):
        codes, items_there = shown[numbers], items[numbers]
        meaning[numbers] = _FAULTY
        if len(plan.codes):
            near = np.minimum(np.searchsorted(plan.codes, codes), len(plan.codes) - 1)
            reason = np.where(plan.codes[near] == codes, plan.code_reasons[items_there, near], 0)
            meaning[numbers] = np.where(reason > 0, reason, _FAULTY)
        wrong = meaning[numbers] == _FAULTY
        if wrong.any():
            faulty = items_there[wrong]
            rules = np.where(plan.is_level[faulty], _LEVEL_UNKNOWN, _OUT_OF_RANGE)
            found.add(faulty, positions[numbers[wrong]], rules, shown=codes[wrong])
    reasons[items, positions] = meaning


def _check_asked_of(number: int, not_asked: npt.NDArray[np.bool_], reasons: Codes, found: _Found) -> None:
    """Blanks of an item that these records' respondents or forms do not have, and answers to it all the same."""
    own = reasons[number]
    answered = np.flatnonzero(not_asked & (own == 0))
    found.add(np.full(len(answered), number, dtype=np.intp), answered, _NOT_ASKED_RULE)
    own[not_asked & (own != 0) & (own != _FAULTY)] = _NOT_ASKED


def _check_between(plan: _Plan, is_present: npt.NDArray[np.bool_], answers: _Answers, found: _Found) -> None:
    """Choices that stand alone beside others, and answers that the definition's rules forbid together."""
    n = answers.reasons.shape[1]
    for alone, others in plan.choices:
        alone, others = alone[is_present[alone]], others[is_present[others]]
        chosen, others_chosen = (
            np.array([answers.find(number) == 1 for number in group], dtype=np.bool_).reshape(len(group), n)
            for group in (alone, others)
        )
        too_many = chosen.sum(axis=0) + others_chosen.sum(axis=0) > 1
        rows, positions = np.nonzero(chosen & too_many)
        if len(rows):
            found.add(alone[rows], positions, _NOT_ALONE)
    for number, (rule, tests) in enumerate(plan.tests):
        named = np.concatenate([np.append(items, other) if other >= 0 else items for _, items, other in tests])
        if not is_present[named].all():
            continue
        broken = np.ones(n, dtype=np.bool_)
        for test, items, other in tests:
            for item in items:
                broken &= passes_test(test, answers.find(item), answers.find(item if other < 0 else other))
        positions = np.flatnonzero(broken)
        if len(positions):
            last = np.full(len(positions), tests[-1][1][-1], dtype=np.intp)
            found.add(last, positions, _DISAGREE, is_soft=rule.severity == SOFT, shown=float(number))


def passes_test(test: AnswerTest, answers: Floats, others: Floats) -> npt.NDArray[np.bool_]:
    """Whether each answer is as the test tells; never true of a missing one."""
    if test.equals:
        passes: npt.NDArray[np.bool_] = answers == test.equals[0]
        for value in test.equals[1:]:
            passes |= answers == value
        return passes
    if test.above:
        return answers > others
    if test.at_least is not None:
        return answers >= test.at_least
    return answers <= (math.inf if test.at_most is None else test.at_most)


def _check_routing(routing: _Routing, is_present: npt.NDArray[np.bool_], answers: _Answers, found: _Found) -> None:
    """Give blanks of routed items their reason, and find answers to what was not asked."""
    checked = is_present[routing.items] & is_present[routing.gates]
    items, gates = routing.items[checked], routing.gates[checked]
    if not len(items):
        return
    reasons = answers.reasons
    gate_reasons = reasons[gates]
    distinct, places = np.unique(gates, return_inverse=True)
    gate_values = np.array([answers.find(gate) for gate in distinct])[places]
    is_asked = gate_values == routing.equals[0]
    for value in routing.equals[1:]:
        is_asked |= gate_values == value
    if is_asked.all():
        return
    own_reasons = reasons[items]
    is_answered = own_reasons == 0
    rules_out = ~is_asked & ((gate_reasons == 0) | (gate_reasons == _NOT_ASKED))
    contradicts = rules_out | (gate_reasons == _NOT_APPLICABLE)
    is_unclear = ~is_asked & ~contradicts & (gate_reasons != _FAULTY)
    wrong = is_answered & (contradicts | is_unclear)
    if wrong.any():
        rows, positions = np.nonzero(wrong)
        found.add(items[rows], positions, _NOT_ASKED_RULE, is_soft=is_unclear[rows, positions])
    own_reasons[rules_out & ~is_answered & (own_reasons != _FAULTY)] = _NOT_ASKED
    inherits = (own_reasons == _BLANK) & ~is_asked & ~rules_out
    own_reasons[inherits] = gate_reasons[inherits]
    reasons[items] = own_reasons


def _read_cells(
    records: pd.DataFrame, columns: Positions
) -> tuple[Sequence[Floats | pd.Series[Any]], list[tuple[int, int, int]]]:
    """The cells of each column as numbers (NaN for blanks and oddities), and the oddities as (row, position, rule).

    A column of floats is taken as it is, without a copy: as a Series, so that pandas knows of it and copies it should
    the frame be changed.
    """
    n = len(records)
    odd: list[tuple[int, int, int]] = []
    if n * len(columns) <= _CELLS_AT_ONCE and n <= 1_000:
        # Few records: one object array for all columns costs less than looking at each column.
        flat = records.iloc[:, columns].to_numpy(dtype=object).T.ravel()
        numbers, odd_flat = _read_objects(flat)
        return list(numbers.reshape(len(columns), n)), [(place // n, place % n, rule) for place, rule in odd_flat]
    cells: list[Floats | pd.Series[Any]] = []
    for row, column in enumerate(columns):
        series = records.iloc[:, column]
        if series.dtype == np.float64:
            cells.append(series)
        elif is_numeric_dtype(series.dtype) and not is_bool_dtype(series.dtype) and series.dtype.kind != "c":
            cells.append(series.to_numpy(dtype=np.float64, na_value=np.nan))
        else:
            numbers, odd_here = _read_objects(series.to_numpy(dtype=object))
            cells.append(numbers)
            odd += [(row, position, rule) for position, rule in odd_here]
    return cells, odd


def _read_objects(cells: Objects) -> tuple[Floats, list[tuple[int, int]]]:
    """Numbers from cells of any type, NaN where blank, and the oddities as (place, rule)."""
    numbers = np.full(len(cells), np.nan)
    filled = np.flatnonzero(~pd.isna(cells))
    filled = filled[cells[filled] != ""]
    contents = cells[filled]
    if infer_dtype(contents, skipna=False) in ("integer", "floating", "mixed-integer-float"):
        try:
            numbers[filled] = contents.astype(np.float64)
        except OverflowError:  # a whole number beyond what a float can hold: read one by one, as out of range
            pass
        else:
            return numbers, []
    odd = []
    for place, cell in zip(filled.tolist(), contents.tolist(), strict=True):
        if isinstance(cell, str):
            text = cell.strip()
            if _PLAIN_NUMBER.fullmatch(text):
                numbers[place] = float(text)
            elif text:
                odd.append((place, _NOT_A_NUMBER))
        elif isinstance(cell, int | float | np.integer | np.floating) and not isinstance(cell, bool):
            try:
                numbers[place] = float(cell)
            except OverflowError:
                numbers[place] = math.inf
        else:
            odd.append((place, _UNEXPECTED_TYPE))
    return numbers, odd


def derive_response_schema(instrument: Instrument) -> pa.DataFrameSchema:
    """The schema that checked responses must meet when a release is frozen.

    One nullable float column per item (a column may be absent, others may stand beside): levels or range; and for each
    routed item that no answer stands beside an answer of its gate that rules it out. A frame breaks it exactly where
    :func:`check_records` finds a level, range or routing fault between answers.
    """
    import pandera.pandas as pa  # takes a second to import, and only freezing needs it

    columns = {item.id: pa.Column(float, _checks(item), nullable=True, required=False) for item in instrument.items}
    routing = [_routing_check(item.id, item.asked_if) for item in instrument.items if item.asked_if is not None]
    return pa.DataFrameSchema(columns, checks=routing, strict=False, name=instrument.id)


def _checks(item: Item) -> list[pa.Check]:
    import pandera.pandas as pa

    if item.type == "level":
        return [pa.Check.isin([float(code) for code in sorted(item.levels)], name="level_unknown")]
    checks = [pa.Check.in_range(item.lowest, item.highest, name="out_of_range")]
    if item.whole_numbers:
        checks.append(pa.Check(lambda answers: answers == answers.round(), name="out_of_range"))
    return checks


def _routing_check(item_id: str, condition: Condition) -> pa.Check:
    import pandera.pandas as pa

    def is_in_order(frame: pd.DataFrame) -> pd.Series[bool]:
        if item_id not in frame or condition.item not in frame:
            return pd.Series(True, index=frame.index)
        gate = frame[condition.item]
        return frame[item_id].isna() | gate.isna() | gate.isin(condition.equals)

    return pa.Check(is_in_order, name=f"answered_though_not_asked: {item_id}")
