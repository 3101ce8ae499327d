"""The accepted answers of a release: records down, items across, one block at a time.

A study of 100,000 people at three waves with 100 questions has 30 million answers. As rows of text they would take
gigabytes; here an answer is a double and the code of its missing reason, 9 bytes, and only some waves are held at once:
as many as have `ANSWERS_AT_ONCE` answers, or else one. What a release needs of all of them (who answered what when, and
how many) stands in `Answers.records`; the answers themselves lie in a store, and are read back by the block or by rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from study.datasets import RECORD_KEY, RESPONSES, find_wave_places
from study.instruments import MISSING_REASONS, Instrument
from study.protocol import Study
from study.validation import REASON_CODES, Codes, Floats, Positions, derive_response_schema

ANSWERS_AT_ONCE = 2**21
ABSENT = -1
"""In the place of a reason's code: the record says nothing of the item."""
RECORD_COLUMNS = (*RECORD_KEY, "form", "collected_on", "return_id")
COUNTS = ("n_items", "n_answered", *(f"n_{reason}" for reason in MISSING_REASONS))

_NO_DAY = int(np.iinfo(np.int32).min)
REASONS = pd.CategoricalDtype(list(MISSING_REASONS))
"""Missing reasons as categories; the code of a reason in a block less 1 is its place here."""
_TEXTS = tuple(column.name for column in RESPONSES.columns if column.type == "text")

Flags = npt.NDArray[np.bool_]
ReadParts = Callable[[Collection[str]], Iterable[tuple[str, pa.Table]]]
"""The long answers of files by SHA-256, in parts of any size."""


class AnswerStore(Protocol):
    """Where blocks of answers lie until they are needed; the first that is put is number 0."""

    def put(self, values: Floats, reasons: Codes) -> None: ...

    def get(self, number: int, start: int, stop: int) -> tuple[Floats, Codes]:
        """Rows of a block. They may be its own, not a copy."""


@dataclass
class HeldAnswers:
    """A store in memory."""

    blocks: list[tuple[Floats, Codes]] = field(default_factory=list)

    def put(self, values: Floats, reasons: Codes) -> None:
        self.blocks.append((values, reasons))

    def get(self, number: int, start: int, stop: int) -> tuple[Floats, Codes]:
        values, reasons = self.blocks[number]
        return values[start:stop], reasons[start:stop]


@dataclass(frozen=True)
class AnswerBlock:
    """Answers to one instrument. `records`: RECORD_COLUMNS, one row each, ordered as in a release. `values`: records x
    items, NaN where there is no answer. `reasons`: why, in the same shape; 0 where there is one, ABSENT where the
    record says nothing of the item."""

    instrument: Instrument
    records: pd.DataFrame
    values: Floats
    reasons: Codes

    @property
    def told_reasons(self) -> Codes:
        """`reasons` with not_returned for ABSENT."""
        return np.where(self.reasons == ABSENT, np.int8(REASON_CODES["not_returned"]), self.reasons)


@dataclass(frozen=True)
class Answers:
    """Every accepted answer of a release.

    `records`: RECORD_COLUMNS, COUNTS, and where its answers lie (block, row), in the order of a release: by
    participant, wave (the protocol's order, then unscheduled ones by name), respondent, instrument. `told`: RESPONSES
    of the items that were asked for when the answers were collected. `of_blocks`: the instrument of each block; a block
    has whole waves of it.
    """

    records: pd.DataFrame
    told: pd.DataFrame
    instruments: Mapping[str, Instrument]
    of_blocks: Sequence[str]
    store: AnswerStore

    @property
    def n_answers(self) -> int:
        return int(self.records["n_items"].sum())

    def read_blocks(self, instrument_id: str = "") -> Iterator[AnswerBlock]:
        """All blocks, or those of one instrument. Let go of one before the next, so that one is in memory."""
        for number, name in enumerate(self.of_blocks):
            if instrument_id in ("", name):
                places = self.find_records(number)
                records = self.records.loc[places, list(RECORD_COLUMNS)].reset_index(drop=True)
                yield AnswerBlock(self.instruments[name], records, *self.store.get(number, 0, len(places)))

    def find_records(self, number: int) -> Positions:
        """Where in `records` those of a block are."""
        return np.flatnonzero(self.records["block"].to_numpy() == number)

    def count_records(self, instrument_id: str) -> int:
        return len(self._of_instrument.get(instrument_id, ()))

    def read_records(self, instrument_id: str, start: int, stop: int) -> AnswerBlock:
        """Some of an instrument's records, by their place among them in the order of a release."""
        instrument = self.instruments[instrument_id]
        places = self._of_instrument.get(instrument_id, np.empty(0, np.intp))[start:stop]
        values = np.full((len(places), len(instrument.items)), np.nan, order="F")  # what is made of it takes columns
        reasons = np.full(values.shape, ABSENT, np.int8, order="F")
        for here, own_values, own_reasons in self._read(places):
            values[here], reasons[here] = own_values, own_reasons
        records = self.records.loc[places, list(RECORD_COLUMNS)].reset_index(drop=True)
        return AnswerBlock(instrument, records, values, reasons)

    def read_rows(self, start: int, stop: int) -> pd.DataFrame:
        """Rows of the table RESPONSES; text as categories."""
        ends = self._ends
        stop = min(stop, int(ends[-1]) if len(ends) else 0)
        first, last = np.searchsorted(ends, [start, stop - 1], side="right")
        places = np.arange(first, last + 1 if stop > start else first)
        n_items = self.records["n_items"].to_numpy()[places]
        total, begins = int(n_items.sum()), np.cumsum(n_items) - n_items
        items, response = np.empty(total, np.int32), np.empty(total)
        reasons = np.empty(total, np.int8)
        for here, own_values, own_reasons in self._read(places):
            is_there = own_reasons != ABSENT
            name = self.of_blocks[self.records["block"].to_numpy()[places[here[0]]]]
            n_own = n_items[here]
            at = np.arange(n_own.sum()) + np.repeat(begins[here] - (np.cumsum(n_own) - n_own), n_own)
            items[at] = self._item_codes[name][np.nonzero(is_there)[1]]
            response[at], reasons[at] = own_values[is_there], own_reasons[is_there]
        begin = start - int(ends[first] - self.records["n_items"].to_numpy()[first]) if total else 0
        cut = slice(begin, begin + max(stop - start, 0))
        record = np.repeat(places, n_items)[cut]
        parts: dict[str, Any] = {
            "item": pd.Categorical.from_codes(items[cut], dtype=self._items),
            "response": response[cut],
            "missing_reason": pd.Categorical.from_codes(reasons[cut] - 1, dtype=REASONS),
            "collected_on": self._days[record],
        }
        for name in _TEXTS:
            if name in self.coded:
                coded = self.coded[name]
                parts[name] = pd.Categorical.from_codes(coded.codes[record], dtype=coded.dtype)
        return pd.DataFrame(parts, columns=RESPONSES.column_names)

    def find_texts(self, column: str) -> list[str]:
        """The different texts of a column of RESPONSES."""
        if column == "item":
            used = sorted({*self.of_blocks})
            return list(dict.fromkeys(item for name in used for item in self.instruments[name].item_ids))
        if column == "missing_reason":
            return [reason for reason in MISSING_REASONS if self.records[f"n_{reason}"].any()]
        return list(self.records[column].dropna().unique())

    def _read(self, places: Positions) -> Iterator[tuple[Positions, Floats, Codes]]:
        """The answers of some neighbouring records, block by block: which of them, and their rows.

        In a block records keep the order of a release, so that neighbours lie together there.
        """
        blocks, rows = self.records["block"].to_numpy()[places], self.records["row"].to_numpy()[places]
        for number in np.unique(blocks):
            here = np.flatnonzero(blocks == number)
            yield here, *self.store.get(int(number), int(rows[here[0]]), int(rows[here[-1]]) + 1)

    @cached_property
    def _of_instrument(self) -> dict[str, Positions]:
        codes, names = pd.factorize(self.records["instrument"])
        return {str(name): np.flatnonzero(codes == code) for code, name in enumerate(names)}

    @cached_property
    def _ends(self) -> Positions:
        return np.cumsum(self.records["n_items"].to_numpy())

    @cached_property
    def _days(self) -> npt.NDArray[np.datetime64]:
        return self.records["collected_on"].to_numpy("datetime64[us]")

    @cached_property
    def coded(self) -> dict[str, pd.Categorical]:
        """The texts of `records` as categories."""
        return {name: pd.Categorical(self.records[name]) for name in _TEXTS if name in self.records}

    @cached_property
    def _items(self) -> pd.CategoricalDtype:
        return pd.CategoricalDtype(list(dict.fromkeys(n for one in self.instruments.values() for n in one.item_ids)))

    @cached_property
    def _item_codes(self) -> dict[str, Positions]:
        places = {name: place for place, name in enumerate(self._items.categories)}
        return {one.id: np.array([places[name] for name in one.item_ids]) for one in self.instruments.values()}


# Collecting ---------------------------------------------------------------------------------------------------------


def collect_answers(
    returns: pd.DataFrame,
    read_parts: ReadParts,
    participants: pd.DataFrame,
    study: Study,
    instruments: Mapping[str, Instrument],
    as_of: date,
    store: AnswerStore,
    told: Mapping[str, Collection[str]],
) -> tuple[Answers, list[str]]:
    """The answers of current accepted records, wave by wave, and what is wrong with them.

    `returns`: RECORD_KEY, return_id, responses_sha256, n_items, n_answered. An answer counts only where its own file's
    record is the current one, so a superseded answer never gets in. `told`: items by instrument whose answers are kept
    at hand.

    Faults are told by column and count, without values: keys that repeat; people who are not in `participants`; codes
    without a definition; a value and a reason for having none, or neither; answers later than `as_of`; values that
    break the schema generated from their instrument; records whose answers are not all there. Answers were checked when
    they came in: a fault here means that a definition or the pipeline has changed.
    """
    tally = _Tally(study, instruments, frozenset(participants["participant_id"]), as_of)
    returns = sort_records(returns, study)
    blocks: list[str] = []
    records: list[pd.DataFrame] = []
    at_hand: list[pd.DataFrame] = []

    def collect(waves: list[str]) -> None:
        own = returns[returns["wave"].isin(waves)].reset_index(drop=True)
        laid_out = _lay_out(own, read_parts(sorted(set(own["responses_sha256"]))), instruments, tally)
        for block in laid_out:
            tally.check_block(block)
            counts = {"n_items": (block.reasons != ABSENT).sum(axis=1), "n_answered": (block.reasons == 0).sum(axis=1)}
            counts |= {f"n_{name}": (block.reasons == REASON_CODES[name]).sum(axis=1) for name in MISSING_REASONS}
            records.append(block.records.assign(**counts, block=len(blocks), row=np.arange(len(block.records))))
            at_hand.extend(list_answers(block, item) for item in told.get(block.instrument.id, ()))
            store.put(block.values, block.reasons)
            blocks.append(block.instrument.id)

    for waves in _plan_passes(returns, study):
        collect(waves)
    columns = [*RECORD_COLUMNS, *COUNTS, "block", "row"]
    empty = pd.DataFrame({name: pd.Series(dtype=_find_dtype(name)) for name in columns})
    joined = pd.concat([empty, *records], ignore_index=True) if records else empty
    kept = RESPONSES.shape(pd.concat(at_hand, ignore_index=True) if at_hand else _NO_ANSWERS)
    return Answers(sort_records(joined, study), kept, instruments, blocks, store), tally.describe()


def _find_dtype(name: str) -> str:
    if name in RECORD_COLUMNS:
        return "datetime64[us]" if name == "collected_on" else "str"
    return "int64"


_NO_ANSWERS = pd.DataFrame(columns=RESPONSES.column_names)


def sort_records(records: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Records by participant, wave (the protocol's order, then unscheduled ones by name), respondent, instrument."""
    keys = [
        pd.factorize(records["instrument"], sort=True)[0],
        pd.factorize(records["respondent"], sort=True)[0],
        find_wave_places(records["wave"], study),
        pd.factorize(records["participant_id"], sort=True)[0],
    ]
    return records.iloc[np.lexsort(keys)].reset_index(drop=True)


def list_answers(block: AnswerBlock, item: str) -> pd.DataFrame:
    """RESPONSES of one item, in the order of the records that tell of it."""
    place = block.instrument.item_ids.index(item)
    is_there = block.reasons[:, place] != ABSENT
    reasons = pd.Categorical.from_codes(block.reasons[is_there, place] - 1, dtype=REASONS)
    rows = block.records[is_there].assign(
        item=item, response=block.values[is_there, place], missing_reason=pd.Series(reasons).astype("str").to_numpy()
    )
    return RESPONSES.shape(rows).reset_index(drop=True)


def derive_records(responses: pd.DataFrame) -> pd.DataFrame:
    """The records of a table RESPONSES: RECORD_COLUMNS and COUNTS, in its order."""
    groups = responses.groupby(RECORD_KEY, sort=False)
    records = groups[["form", "collected_on", "return_id"]].first()
    records["n_items"], records["n_answered"] = groups.size(), groups["response"].count()
    for reason in MISSING_REASONS:
        is_so = responses["missing_reason"] == reason
        records[f"n_{reason}"] = is_so.groupby([responses[name] for name in RECORD_KEY], sort=False).sum()
    return records.reset_index()


def _plan_passes(returns: pd.DataFrame, study: Study) -> Iterator[list[str]]:
    """Waves in their order, as many together as have ANSWERS_AT_ONCE answers, or else one."""
    waves = returns.groupby("wave", sort=True)["n_items"].sum()
    waves = waves.iloc[np.argsort(find_wave_places(pd.Series(waves.index), study), kind="stable")]
    held: list[str] = []
    total = 0
    for wave, n in waves.items():
        if held and total + n > ANSWERS_AT_ONCE:
            yield held
            held, total = [], 0
        held.append(str(wave))
        total += int(n)
    if held:
        yield held


@dataclass
class _Tally:
    """What is wrong with answers, counted as they pass."""

    study: Study
    instruments: Mapping[str, Instrument]
    people: frozenset[str]
    as_of: date
    n: Counter[str] = field(default_factory=Counter)
    strange_items: Counter[str] = field(default_factory=Counter)
    broken_rules: Counter[tuple[str, str]] = field(default_factory=Counter)

    def check_block(self, block: AnswerBlock) -> None:
        self.broken_rules.update(find_broken_rules(block))

    def check_records(self, records: pd.DataFrame, n_rows: Positions, n_answered: Positions) -> None:
        """`n_rows` and `n_answered`: of each record, as its file has them."""
        known: dict[str, Collection[str]] = {"instrument": self.instruments, "respondent": self.study.respondents}
        if not self.study.accepts_unscheduled:
            known["wave"] = [wave.id for wave in self.study.waves]
        for column, codes in known.items():
            self.n[column] += int(n_rows[~records[column].isin(list(codes)).to_numpy()].sum())
        self.n["strangers"] += int(n_rows[~records["participant_id"].isin(self.people).to_numpy()].sum())
        is_other = (records["n_items"].to_numpy() != n_rows) | (records["n_answered"].to_numpy() != n_answered)
        self.n["lost"] += int(is_other.sum())

    def describe(self) -> list[str]:
        n, faults = self.n, []
        if n["repeated"]:
            faults.append(f"responses: {n['repeated']} rows repeat the key of another ({', '.join(RESPONSES.key)}).")
        faults += [
            f"responses.{column}: {n[column]} rows have a code that the definitions in force do not know. Put it back "
            "into them, or void what was recorded with it."
            for column in ("instrument", "respondent", "form", "missing_reason", "wave")
            if n[column]
        ]
        if n["strangers"]:
            faults.append(f"responses: {n['strangers']} rows belong to nobody in participants.")
        if n["unexplained"]:
            faults.append(
                f"responses: {n['unexplained']} rows have both a response and a missing_reason, or neither of the two."
            )
        if n["late"]:
            faults.append(f"responses.collected_on: {n['late']} rows are dated after {self.as_of}, or not at all.")
        if n["unlike"]:
            faults.append(f"responses: {n['unlike']} rows tell another form or day than the rest of their record.")
        if faults:
            return faults
        if n["lost"]:
            faults.append(
                f"responses: {n['lost']} records do not hold as many answers as the ledger says were accepted."
            )
        faults += [
            f"{name}: {many} answers belong to an item that its definition does not have."
            for name, many in sorted(self.strange_items.items())
        ]
        return faults + [
            f"{place}: {many} records break the rule {rule}." for (place, rule), many in self._list_broken()
        ]

    def _list_broken(self) -> list[tuple[tuple[str, str], int]]:
        return sorted(self.broken_rules.items())


def find_broken_rules(block: AnswerBlock) -> Counter[tuple[str, str]]:
    """How many records break each rule of the schema generated from their instrument, by instrument or item and rule.

    pandera's own message would show the answers; it goes no further.
    """
    from pandera.errors import SchemaErrors  # takes a moment to import, and only freezing needs it

    broken: Counter[tuple[str, str]] = Counter()
    instrument = block.instrument
    try:
        derive_response_schema(instrument).validate(
            pd.DataFrame(block.values, columns=list(instrument.item_ids)), lazy=True
        )
    except SchemaErrors as errors:
        cases = errors.failure_cases
    else:
        return broken
    # A check of routing looks at two columns, and pandera lists a row once for every column of the frame.
    cases = cases.assign(column=cases["column"].where(cases["schema_context"] == "Column", ""))
    for (column, check), n in cases.groupby(["column", "check"])["index"].nunique().items():
        broken[f"{instrument.id}.{column}" if column else instrument.id, str(check)] += int(n)
    return broken


def _lay_out(
    own: pd.DataFrame, parts: Iterable[tuple[str, pa.Table]], instruments: Mapping[str, Instrument], tally: _Tally
) -> list[AnswerBlock]:
    """Long answers as blocks, one for each instrument. `own`: the records that are wanted, as `collect_answers` has
    them, in the order of a release."""
    own = own.iloc[np.argsort(pd.factorize(own["instrument"], sort=True)[0], kind="stable")].reset_index(drop=True)
    widths = {one.id: len(one.items) for one in instruments.values()}
    width = own["instrument"].map(widths).fillna(0).to_numpy(np.int64)
    offset = np.cumsum(width) - width
    values, reasons = np.full(int(width.sum()), np.nan), np.full(int(width.sum()), ABSENT, np.int8)
    finder = _Finder(own)
    n_rows, n_answered = np.zeros(len(own), np.int64), np.zeros(len(own), np.int64)
    day, form = np.full(len(own), _NO_DAY, np.int32), np.full(len(own), -1, np.int32)
    forms: dict[str, int] = {}
    last_day, n_known = (tally.as_of - date(1970, 1, 1)).days, 0
    for sha256, part in parts:
        rows = _Rows(part)
        found = finder.find(rows, sha256)
        rows, found = rows.select(found >= 0), found[found >= 0]
        record = np.repeat(found, rows.lengths)
        response, why, own_form = rows.response, rows.find_reasons(), rows.code("form", forms)
        is_answered = ~np.isnan(response)
        first, run = np.unique(found, return_index=True)
        is_new = n_rows[first] == 0  # the first row of a record tells its form and day
        form[first[is_new]] = own_form[rows.starts[run[is_new]]]
        day[first[is_new]] = rows.day[rows.starts[run[is_new]]]
        n_rows += np.bincount(record, minlength=len(own))
        n_answered += np.bincount(record[is_answered], minlength=len(own))
        tally.n["unlike"] += int(((form[record] != own_form) | (day[record] != rows.day)).sum())
        tally.n["form"] += int(np.isin(own_form, [n for f, n in forms.items() if f not in tally.study.forms]).sum())
        tally.n["late"] += int(((rows.day > last_day) | (rows.day == _NO_DAY)).sum())
        tally.n["missing_reason"] += int((why == _STRANGE).sum())
        tally.n["unexplained"] += int((is_answered == (why != 0)).sum())
        place = rows.find_items(instruments)
        is_known = place >= 0
        if not is_known.all():
            strange = own["instrument"].to_numpy()[record[~is_known]]
            tally.strange_items.update(name for name in strange if name in instruments)
        at = offset[record[is_known]] + place[is_known]
        values[at], reasons[at] = response[is_known], np.where(why == _STRANGE, 0, why)[is_known]
        n_known += len(at)
    tally.n["repeated"] += n_known - int((reasons != ABSENT).sum())
    tally.check_records(own, n_rows, n_answered)
    words = np.array([*forms, None], dtype=object)
    told = own[[*RECORD_KEY, "return_id"]].assign(
        form=pd.array(words[form], dtype="str"),
        collected_on=np.where(day == _NO_DAY, np.datetime64("NaT"), day.astype("datetime64[D]")).astype("M8[us]"),
    )[list(RECORD_COLUMNS)]
    blocks = []
    for name, a, b in _find_stretches(own["instrument"]):
        if name in instruments:
            shape = (b - a, len(instruments[name].items))
            cells = slice(int(offset[a]), int(offset[a]) + shape[0] * shape[1])
            records = told.iloc[a:b].reset_index(drop=True)
            blocks.append(
                AnswerBlock(instruments[name], records, values[cells].reshape(shape), reasons[cells].reshape(shape))
            )
    return blocks


def _find_stretches(names: pd.Series[str]) -> list[tuple[str, int, int]]:
    """Name, first place and the one after the last, of sorted names."""
    codes, found = pd.factorize(names)
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    return [(str(found[codes[a]]), int(a), int(b)) for a, b in zip(starts, [*starts[1:], len(codes)], strict=True)]


_STRANGE = 127  # a missing reason that there is not


class _Rows:
    """Long answers of a file, as codes. Neighbouring rows with the same key are a run of one record."""

    def __init__(self, part: pa.Table) -> None:
        coded = {name: _encode(part[name]) for name in (*RECORD_KEY, "return_id", "form", "item", "missing_reason")}
        self.codes = {name: codes for name, (codes, _) in coded.items()}
        self.words = {name: words for name, (_, words) in coded.items()}
        self.response = part["response"].to_numpy().astype(np.float64, copy=False)
        self.day = part["collected_on"].cast(pa.int32()).fill_null(pa.scalar(_NO_DAY, pa.int32())).to_numpy()
        changes: Flags = np.zeros(len(part), dtype=np.bool_)
        changes[:1] = True
        for name in (*RECORD_KEY, "return_id"):
            changes[1:] |= self.codes[name][1:] != self.codes[name][:-1]
        self.starts = np.flatnonzero(changes)
        self.lengths = np.diff(np.append(self.starts, len(part)))

    def select(self, chosen: Flags) -> _Rows:
        """These runs."""
        if chosen.all():
            return self
        other, is_in = object.__new__(_Rows), np.repeat(chosen, self.lengths)
        other.codes, other.words = {name: codes[is_in] for name, codes in self.codes.items()}, self.words
        other.response, other.day = self.response[is_in], self.day[is_in]
        other.lengths = self.lengths[chosen]
        other.starts = np.cumsum(other.lengths) - other.lengths
        return other

    def code(self, name: str, places: dict[str, int]) -> npt.NDArray[np.int32]:
        """A column by the places of its words in a list that grows; -1 for none."""
        own = [places.setdefault(word, len(places)) for word in self.words[name]]
        return np.array([*own, -1], np.int32)[self.codes[name]]

    def find_reasons(self) -> Codes:
        """REASON_CODES, 0 for none, _STRANGE for a word that is none."""
        own = [REASON_CODES.get(word, _STRANGE) for word in self.words["missing_reason"]]
        return np.array([*own, 0], np.int8)[self.codes["missing_reason"]]

    def find_items(self, instruments: Mapping[str, Instrument]) -> Positions:
        """The place of each row's item in its instrument; -1 for none that it has."""
        items = self.words["item"]
        table = np.full((len(self.words["instrument"]) + 1, len(items) + 1), -1)
        for row, name in enumerate(self.words["instrument"]):
            if name in instruments:
                places = {item: place for place, item in enumerate(instruments[name].item_ids)}
                table[row, :-1] = [places.get(item, -1) for item in items]
        return table[self.codes["instrument"], self.codes["item"]]


def _encode(column: pa.ChunkedArray[Any]) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Codes, -1 for none, and the words that they stand for."""
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    array: Any = column.unify_dictionaries().combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # of no rows
        return np.empty(0, np.int32), []
    return array.indices.fill_null(-1).to_numpy().astype(np.int32, copy=False), array.dictionary.to_pylist()


class _Finder:
    """Finds the wanted record of a run of rows."""

    def __init__(self, own: pd.DataFrame) -> None:
        self.own = {name: pd.factorize(own[name]) for name in RECORD_KEY}
        self.returns, self.files = (pd.factorize(own[name]) for name in ("return_id", "responses_sha256"))
        keys = self._combine([self.own[name][0] for name in RECORD_KEY])
        self.order = np.argsort(keys)
        self.keys = keys[self.order]

    def find(self, rows: _Rows, sha256: str) -> Positions:
        """The place of each run's record; -1 where it is not wanted, or not as this file has it."""
        file = self.files[1].get_indexer(pd.Index([sha256]))[0]
        if not len(self.keys) or file < 0:
            return np.full(len(rows.starts), -1)
        codes = [self._translate(rows, name, self.own[name][1]) for name in RECORD_KEY]
        key = self._combine(codes)
        at = self.order[np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)]
        is_it = np.all([code >= 0 for code in codes], axis=0)
        for name, code in zip(RECORD_KEY, codes, strict=True):
            is_it &= self.own[name][0][at] == code
        is_it &= self.returns[0][at] == self._translate(rows, "return_id", self.returns[1])
        is_it &= self.files[0][at] == file
        return np.where(is_it, at, -1)

    def _combine(self, codes: Sequence[Positions]) -> Positions:
        key = np.zeros(len(codes[0]), np.int64)
        for name, code in zip(RECORD_KEY, codes, strict=True):
            key = key * (len(self.own[name][1]) + 1) + code
        return key

    @staticmethod
    def _translate(rows: _Rows, name: str, known: pd.Index[Any]) -> Positions:
        places = known.get_indexer(pd.Index(rows.words[name], dtype=object))
        return np.append(places, -1)[rows.codes[name][rows.starts]]
