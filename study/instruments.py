"""Instruments as data: what a definition may say, and every fault of a definition found at once.

An instrument is a folder with ``definition.toml`` (items, missing codes, scales) and ``worked_examples.csv`` (answers
with the scores that they must give). This module turns their bytes into a frozen :class:`Instrument`, or raises
:class:`DefinitionFaults` with one sentence per fault, written for the person who wrote the definition.

Three rules of the language are judgement calls:

- A code is an answer where it is one of the item's levels (or within its range), and a missing code only elsewhere:
  9 may mean "not answered" in one item and nine in another. An item that claims one code for both is a fault.
- Only ``prorated_sum`` may go without an item. A plain sum over fewer items would silently be a lower score.
- The stated minimum and maximum of a scale must be what its items can reach: a wrong weight or a forgotten item
  shows there.
"""

import csv
import io
import math
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict

MISSING_REASONS = ("not_asked", "not_answered", "refused", "not_applicable", "not_returned", "illegible")
RESPONDENTS = ("self", "proxy", "carer", "manager")
FORMS = ("standard", "easy_read")
METHODS = ("sum", "prorated_sum", "product", "count", "mapping", "weighted")
# What a definition that declares no table of its own means by a negative code.
DEFAULT_MISSING_CODES: Mapping[int, str] = {
    -9: "not_answered",
    -8: "refused",
    -7: "not_applicable",
    -6: "illegible",
    -5: "not_asked",
}
# The columns that every sheet of a return has before its items; no item may be called so.
RECORD_COLUMNS = ("participant_id", "respondent", "form", "wave", "collected_on")
# Where the expected score of a worked example comes from.
EVIDENCE = ("published_table", "published_rule", "trial_record", "hand_computed")

DEFINITION_FILE = "definition.toml"
EXAMPLES_FILE = "worked_examples.csv"

Method = Literal["sum", "prorated_sum", "product", "count", "mapping", "weighted"]

_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,31}")  # 32 characters: what Stata takes as the name of a variable
_LEVEL_RANGE = re.compile(r"(-?[0-9]{1,5}) to (-?[0-9]{1,5})")
_CODE = re.compile(r"-?[0-9]{1,5}")  # longer ones could be identifiers, and are never shown in a message
_LARGEST = 1_000_000_000
_EXAMPLE_COLUMNS = ("example", "evidence", "source", "decimals")
_EXPECTED = "expected_"
_SHEET_TITLE_FORBIDDEN = set("[]:*?/\\")


class DefinitionFaults(ValueError):
    """Everything that is wrong with one definition; ``faults`` holds one sentence each, in the order of the file."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults: list[str] = list(faults)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Condition(_Model):
    """True of a record whose answer to ``item`` is one of ``equals``."""

    item: str
    equals: tuple[int, ...]


class Item(_Model):
    """One question or rating.

    A ``level`` item takes the codes of ``levels``; a ``number`` item anything from ``minimum`` to ``maximum``, both
    included, and only whole numbers if ``whole_numbers``. ``missing_codes`` holds the codes that mean "no answer" in
    this item: the instrument's, with the item's own put over them, less those that are answers here.
    """

    id: str
    label: str
    type: Literal["level", "number"]
    levels: dict[int, str] = {}
    minimum: float | None = None
    maximum: float | None = None
    whole_numbers: bool = False
    missing_codes: dict[int, str] = {}
    asked_if: Condition | None = None

    @property
    def lowest(self) -> float:
        return float(min(self.levels)) if self.minimum is None else self.minimum

    @property
    def highest(self) -> float:
        return float(max(self.levels)) if self.maximum is None else self.maximum

    @property
    def answers_in_words(self) -> str:
        """The answers allowed, for a person: "1 to 5", "1, 2 or 9", "a whole number from 0 to 40"."""
        if self.type == "number":
            kind = "whole number" if self.whole_numbers else "number"
            return f"a {kind} from {self.lowest:g} to {self.highest:g}"
        codes = sorted(self.levels)
        if len(codes) > 2 and codes == list(range(codes[0], codes[-1] + 1)):
            return f"{codes[0]} to {codes[-1]}"
        *rest, last = (str(code) for code in codes)
        return f"{', '.join(rest)} or {last}" if rest else last

    @property
    def expected_in_words(self) -> str:
        """The answers and the missing codes allowed: "1 to 5, or -9 not answered, -8 refused"."""
        codes = ", ".join(f"{code} {reason.replace('_', ' ')}" for code, reason in self.missing_codes.items())
        return f"{self.answers_in_words}, or {codes}" if codes else self.answers_in_words


class MissingRule(_Model):
    """When a scale may do without an item.

    ``at_most_missing_pct`` is the largest share of items, in per cent, that may be missing (0: none). ``leave_out``
    names reasons that make an item not belong to this person's score at all: it neither counts as missing nor to the
    items that the share is taken of. ``not_asked_as`` is the value of an item that routing skipped.
    """

    at_most_missing_pct: float = 0.0
    leave_out: tuple[str, ...] = ()
    not_asked_as: float | None = None


class Scale(_Model):
    """One score of the instrument: how it follows from items or from scales defined before it."""

    id: str
    label: str
    method: Method
    items: tuple[str, ...]
    minimum: float
    maximum: float
    missing: MissingRule = MissingRule()
    scale_to: float | None = None  # prorated_sum: the score of somebody with the highest answer everywhere
    weights: dict[str, float] = {}  # weighted
    counted: tuple[int, ...] = ()  # count: the answers that count
    values: dict[int, float] = {}  # mapping: answer -> score; empty means the answer itself
    zero_if: Condition | None = None  # the score is 0 then, whatever else is missing

    @property
    def rule_in_words(self) -> str:
        """The scoring rule for a codebook, missing items included."""
        return f"{_METHOD_WORDS[self.method](self)}; {self._missing_in_words}"

    @property
    def _missing_in_words(self) -> str:
        rule, words = self.missing, []
        if self.zero_if is not None:
            words.append(f"0 if {self.zero_if.item} is {_either(self.zero_if.equals)}")
        if rule.not_asked_as is not None:
            words.append(f"an item that was not asked counts {rule.not_asked_as:g}")
        if rule.leave_out:
            reasons = _either(reason.replace("_", " ") for reason in rule.leave_out)
            words.append(f"items that are {reasons} are left out")
        if rule.at_most_missing_pct:
            words.append(f"missing if more than {rule.at_most_missing_pct:g} % of the items are missing")
        else:
            words.append("missing if any item is missing")
        return "; ".join(words)


_METHOD_WORDS: Mapping[str, Callable[[Scale], str]] = {
    "sum": lambda _: "sum of the items",
    "prorated_sum": lambda scale: f"sum x {scale.scale_to:g} / the highest possible sum of the items answered",
    "product": lambda _: "product of the items",
    "count": lambda scale: f"number of items answered {_either(scale.counted)}",
    "mapping": lambda scale: (
        "by table: " + ", ".join(f"{k} gives {v:g}" for k, v in scale.values.items())
        if scale.values
        else "the answer itself"
    ),
    "weighted": lambda scale: "sum of item x weight: " + ", ".join(f"{k} x {v:g}" for k, v in scale.weights.items()),
}


class WorkedExample(_Model):
    """Answers (as text, as they stand in the file) and what each scale must give: a number or a missing reason."""

    example: str
    evidence: str
    source: str
    decimals: int
    answers: dict[str, str]
    expected: dict[str, str]


class Instrument(_Model):
    """A questionnaire or rating scale: its items in the order of the sheet, and its scales in the order of scoring."""

    id: str
    title: str
    sheet_title: str
    version: str
    citation: str
    licence: str
    respondents: tuple[str, ...]
    forms: tuple[str, ...]
    missing_codes: dict[int, str]
    items: tuple[Item, ...]
    scales: tuple[Scale, ...]
    worked_examples: tuple[WorkedExample, ...] = ()

    def __hash__(self) -> int:
        """Instruments with equal fields hash alike; plans of checking and scoring are kept by it."""
        return hash((self.id, self.version, len(self.items), len(self.scales)))

    @cached_property
    def item_ids(self) -> tuple[str, ...]:
        return tuple(item.id for item in self.items)

    @cached_property
    def scale_ids(self) -> tuple[str, ...]:
        return tuple(scale.id for scale in self.scales)

    def find_item(self, item_id: str) -> Item | None:
        return next((item for item in self.items if item.id == item_id), None)

    def find_scale(self, scale_id: str) -> Scale | None:
        return next((scale for scale in self.scales if scale.id == scale_id), None)


def find_suggestion(word: str, known: Iterable[str]) -> str:
    """' Did you mean "x"?' for the known word nearest to ``word``, or '' when none is near."""
    near = get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f' Did you mean "{near[0]}"?' if near else ""


def _either(words: Iterable[object]) -> str:
    *rest, last = (str(word) for word in words)
    return f"{', '.join(rest)} or {last}" if rest else last


def parse_instrument(folder_name: str, files: Mapping[str, bytes]) -> Instrument:
    """Parse one folder of instruments/.

    ``files`` maps file names to contents; ``definition.toml`` and ``worked_examples.csv`` are read. Raises
    :class:`DefinitionFaults` with every fault found, each beginning with ``instruments/<folder_name>``.
    """
    parser = _Parser(folder_name)
    instrument = parser.parse(files)
    if parser.faults or instrument is None:
        raise DefinitionFaults(parser.faults)
    return instrument


class _Parser:
    """Reads one definition and keeps going after a fault: the author is told everything in one go."""

    def __init__(self, folder_name: str) -> None:
        self.folder_name = folder_name
        self.faults: list[str] = []

    def fault(self, text: str) -> None:
        self.faults.append(f"instruments/{self.folder_name}: {text}")

    # Reading one value --------------------------------------------------------------------------------------------

    def refuse_unknown(self, table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
        for key in table:
            if key not in known:
                hint = find_suggestion(key, known) or f" Known: {_listed(known)}."
                self.fault(f'{where}"{key}" is no word of a definition here.{hint}')

    def text(self, table: Mapping[str, Any], key: str, where: str) -> str:
        value = table.get(key)
        if value is None:
            self.fault(f'{where}"{key}" is missing. Add {key} = "...".')
        elif not isinstance(value, str) or not value.strip():
            self.fault(f'{where}"{key}" must be text in quotes that is not empty.')
        else:
            return value.strip()
        return ""

    def number(self, table: Mapping[str, Any], key: str, where: str, *, required: bool = True) -> float | None:
        value = table.get(key)
        if value is None:
            if required:
                self.fault(f'{where}"{key}" is missing. Add {key} = a number.')
        elif isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
            self.fault(f'{where}"{key}" must be a number without quotes, at most {_LARGEST:,}.')
        else:
            return float(value)
        return None

    def words(self, table: Mapping[str, Any], key: str, where: str, known: Sequence[str] | None) -> tuple[str, ...]:
        """A list of words, without repeats, each one of ``known`` unless that is None; a fault if empty."""
        value = table.get(key)
        if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
            self.fault(f'{where}"{key}" must be a list of words, such as {key} = ["{(known or ("...",))[0]}"].')
            return ()
        for word in value:
            if known is not None and word not in known:
                hint = find_suggestion(word, known)
                self.fault(f'{where}{key} names "{word}", which is none of {_listed(known)}.{hint}')
        for word in sorted({word for word in value if value.count(word) > 1}):
            self.fault(f'{where}{key} names "{word}" more than once.')
        return tuple(value)

    def coded(self, table: object, where: str, key: str) -> dict[int, Any]:
        """A table whose keys are whole numbers."""
        if not isinstance(table, dict) or not table:
            self.fault(f'{where}"{key}" must be a table of code = meaning that is not empty.')
            return {}
        for code in table:
            if not _CODE.fullmatch(code):
                self.fault(f'{where}{key} has the code "{code}", which is no whole number of at most 5 digits.')
        codes = {int(code): value for code, value in table.items() if _CODE.fullmatch(code)}
        if len(codes) < sum(bool(_CODE.fullmatch(code)) for code in table):
            self.fault(f"{where}{key} has the same code twice.")
        return codes

    def labelled(self, table: object, where: str, key: str) -> dict[int, str]:
        levels = self.coded(table, where, key)
        for code, label in levels.items():
            if not isinstance(label, str) or not label.strip():
                self.fault(f'{where}{key}: code {code} has no label. Write {code} = "...".')
        return {code: label for code, label in levels.items() if isinstance(label, str)}

    def missing_codes(self, table: object, where: str) -> dict[int, str]:
        codes = self.coded(table, where, "missing_codes")
        for code, reason in codes.items():
            if reason not in MISSING_REASONS:
                self.fault(
                    f'{where}missing code {code} has the reason "{reason}", which is none of '
                    f"{_listed(MISSING_REASONS)}.{find_suggestion(reason, MISSING_REASONS)}"
                )
        return {code: reason for code, reason in codes.items() if reason in MISSING_REASONS}

    def condition(
        self, table: object, where: str, key: str, items: Mapping[str, Item | None], later: Sequence[str]
    ) -> Condition | None:
        """{ item = "...", equals = [..] }: an item defined before, and answers that it can have."""
        if not isinstance(table, dict):
            self.fault(f'{where}"{key}" must read {key} = {{ item = "...", equals = [1] }}.')
            return None
        self.refuse_unknown(table, ("item", "equals"), f"{where}{key}: ")
        item_id, equals = table.get("item"), table.get("equals")
        if not isinstance(equals, list) or not equals or any(type(value) is not int for value in equals):
            self.fault(f'{where}{key}: "equals" must be a list of answers, such as equals = [1].')
            return None
        if not isinstance(item_id, str):
            self.fault(f'{where}{key}: "item" must be the id of an item in quotes.')
            return None
        if item_id in later:
            self.fault(f'{where}{key} names item "{item_id}", which comes later. It must come before.')
            return None
        if item_id not in items:
            hint = find_suggestion(item_id, items)
            self.fault(f'{where}{key} names item "{item_id}", which is not defined.{hint}')
            return None
        gate = items[item_id]
        if gate is None:
            return None
        for value in equals:
            if not _is_answer(gate, value):
                self.fault(f"{where}{key}: {value} is no answer of {gate.id} ({gate.answers_in_words}).")
        return Condition(item=gate.id, equals=tuple(equals))

    def identifier(self, table: Mapping[str, Any], where: str) -> str:
        value = self.text(table, "id", where)
        if value and not _IDENTIFIER.fullmatch(value):
            self.fault(f'{where}id "{value}" must be small letters, digits and _, begin with a letter, 32 at most.')
        return value

    # The parts of a definition ------------------------------------------------------------------------------------

    def parse(self, files: Mapping[str, bytes]) -> Instrument | None:
        if DEFINITION_FILE not in files:
            self.fault(f"there is no {DEFINITION_FILE}.")
            return None
        try:
            raw = tomllib.loads(files[DEFINITION_FILE].decode("utf-8-sig"))
        except UnicodeDecodeError:
            self.fault(f"{DEFINITION_FILE} is not UTF-8 text. Save it as UTF-8.")
            return None
        except ValueError as error:  # of TOML, or of Python about a number with thousands of digits
            self.fault(f"{DEFINITION_FILE} cannot be read as TOML: {error}.")
            return None
        known = [name for name in Instrument.model_fields if name != "worked_examples"]
        self.refuse_unknown(raw, [*known, "level_sets"], "")
        instrument_id = self.identifier(raw, "")
        if instrument_id and instrument_id != self.folder_name:
            self.fault(f'id is "{instrument_id}", but the folder is "{self.folder_name}". They must be the same.')
        title, sheet_title = self.text(raw, "title", ""), self.text(raw, "sheet_title", "")
        is_forbidden = _SHEET_TITLE_FORBIDDEN & set(sheet_title) or sheet_title.strip("'") != sheet_title
        if len(sheet_title) > 31 or is_forbidden or sheet_title.casefold() == "history":
            self.fault(
                f'sheet_title "{sheet_title}" is no name for a sheet: at most 31 characters, none of []:*?/\\, '
                'no apostrophe at either end, and not "History".'
            )
        version, citation, licence = (self.text(raw, key, "") for key in ("version", "citation", "licence"))
        respondents = self.words(raw, "respondents", "", RESPONDENTS)
        forms = self.words(raw, "forms", "", FORMS)
        codes = self.missing_codes(raw["missing_codes"], "") if "missing_codes" in raw else dict(DEFAULT_MISSING_CODES)
        items = self.parse_items(raw, codes)
        scales = self.parse_scales(raw, items)
        examples = self.parse_examples(files.get(EXAMPLES_FILE), items, [scale.id for scale in scales])
        if self.faults:
            return None
        return Instrument(
            id=instrument_id,
            title=title,
            sheet_title=sheet_title,
            version=version,
            citation=citation,
            licence=licence,
            respondents=respondents,
            forms=forms,
            missing_codes=codes,
            items=tuple(item for item in items.values() if item is not None),
            scales=tuple(scales),
            worked_examples=tuple(examples),
        )

    def tables(self, raw: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
        tables = raw.get(key)
        if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
            self.fault(f"there are no {key}. Write each under a line [[{key}]].")
            return []
        return tables

    def parse_items(self, raw: Mapping[str, Any], codes: Mapping[int, str]) -> dict[str, Item | None]:
        """Every item by its id; None for one whose answers cannot be told, so that others may still name it."""
        sets = raw.get("level_sets", {})
        if not isinstance(sets, dict):
            self.fault("level_sets must be tables, such as [level_sets.yes_no].")
            sets = {}
        level_sets = {name: self.labelled(table, f"level set {name}: ", "levels") for name, table in sets.items()}
        tables = self.tables(raw, "items")
        order = [str(table.get("id")) for table in tables]
        items: dict[str, Item | None] = {}
        for position, table in enumerate(tables, start=1):
            where = f"item {table.get('id') or f'number {position}'}: "
            item_id = self.identifier(table, where)
            if item_id in RECORD_COLUMNS or item_id in _EXAMPLE_COLUMNS or item_id.startswith(_EXPECTED):
                self.fault(f'{where}id "{item_id}" is the name of another column. Choose another.')
            if item_id in items:
                self.fault(f'{where}id "{item_id}" is used twice.')
            item = self.parse_item(table, item_id, where, codes, level_sets)
            if "asked_if" in table:
                asked_if = self.condition(table["asked_if"], where, "asked_if", items, order[position - 1 :])
                item = item and item.model_copy(update={"asked_if": asked_if})
            items.setdefault(item_id, item)
        return items

    def parse_item(
        self,
        table: Mapping[str, Any],
        item_id: str,
        where: str,
        codes: Mapping[int, str],
        level_sets: Mapping[str, dict[int, str]],
    ) -> Item | None:
        """An item without its routing."""
        self.refuse_unknown(table, list(Item.model_fields), where)
        label = self.text(table, "label", where)
        kind = table.get("type", "level" if "levels" in table else "number")
        own = self.missing_codes(table["missing_codes"], where) if "missing_codes" in table else {}
        if kind == "level":
            for key in ("minimum", "maximum", "whole_numbers"):
                if key in table:
                    self.fault(f'{where}"{key}" belongs to an item of type "number"; a level item has levels.')
            levels = self.parse_levels(table.get("levels"), where, level_sets)
            if not levels:
                return None
            item = Item(id=item_id, label=label, type="level", levels=levels)
        elif kind == "number":
            if "levels" in table:
                self.fault(f'{where}"levels" belongs to an item of type "level"; a number has minimum and maximum.')
            whole = table.get("whole_numbers", False)
            if not isinstance(whole, bool):
                self.fault(f'{where}"whole_numbers" must be true or false.')
            lowest, highest = self.number(table, "minimum", where), self.number(table, "maximum", where)
            if lowest is None or highest is None:
                return None
            if lowest >= highest:
                self.fault(f"{where}minimum {lowest:g} is not below maximum {highest:g}.")
            item = Item(
                id=item_id, label=label, type="number", minimum=lowest, maximum=highest, whole_numbers=whole is True
            )
        else:
            hint = find_suggestion(str(kind), ("level", "number"))
            self.fault(f'{where}type "{kind}" is none of level, number.{hint}')
            return None
        for code in own:
            if _is_answer(item, code):
                self.fault(f"{where}{code} is both an answer ({item.answers_in_words}) and a missing code.")
        combined = {code: reason for code, reason in {**codes, **own}.items() if not _is_answer(item, code)}
        return item.model_copy(update={"missing_codes": combined})

    def parse_levels(self, value: object, where: str, level_sets: Mapping[str, dict[int, str]]) -> dict[int, str]:
        """Levels as a table, as the name of a level set, or as "0 to 5" for points without labels."""
        if value is None:
            self.fault(f'{where}"levels" is missing. Write levels = "0 to 5", the name of a level set, or a table.')
            return {}
        if not isinstance(value, str):
            return self.labelled(value, where, "levels")
        if match := _LEVEL_RANGE.fullmatch(value.strip()):
            first, last = int(match[1]), int(match[2])
            if not 0 < last - first <= 1000:
                self.fault(f'{where}levels "{value}" must go up, over at most 1,000 steps.')
                return {}
            return {code: str(code) for code in range(first, last + 1)}
        if value not in level_sets:
            self.fault(
                f'{where}levels names the level set "{value}", which is not defined.'
                f"{find_suggestion(value, level_sets)}"
            )
        return level_sets.get(value, {})

    def parse_scales(self, raw: Mapping[str, Any], items: Mapping[str, Item | None]) -> list[Scale]:
        scales: list[Scale] = []
        ranges = {item.id: (item.lowest, item.highest) for item in items.values() if item is not None}
        seen: set[str] = set()
        tables = self.tables(raw, "scales")
        order = [str(table.get("id")) for table in tables]
        for position, table in enumerate(tables, start=1):
            where = f"scale {table.get('id') or f'number {position}'}"
            n_before = len(self.faults)
            scale = self.parse_scale(table, f"{where}: ", where, items, ranges, [*items, *seen], order[position - 1 :])
            if scale is not None and len(self.faults) == n_before:
                scale = self.check_range(scale, f"{where}: ", ranges)
            scale_id = str(table.get("id"))
            if scale_id in seen or scale_id in items:
                self.fault(f'{where}: id "{scale_id}" is used twice.')
            seen.add(scale_id)
            if scale is not None:
                scales.append(scale)
                ranges[scale.id] = (scale.minimum, scale.maximum)
        return scales

    def parse_scale(
        self,
        table: Mapping[str, Any],
        where: str,
        name: str,
        items: Mapping[str, Item | None],
        ranges: Mapping[str, tuple[float, float]],
        known: Sequence[str],
        later: Sequence[str],
    ) -> Scale | None:
        method = table.get("method")
        if method not in METHODS:
            hint = find_suggestion(str(method), METHODS)
            self.fault(f'{where}method "{method}" is none of {_listed(METHODS)}.{hint}')
        shared = ("id", "label", "method", "items", "minimum", "maximum", "zero_if", "not_asked_as")
        own: Mapping[str, tuple[str, ...]] = {
            "prorated_sum": ("at_most_missing_pct", "leave_out", "scale_to"),
            "weighted": ("weights",),
            "count": ("counted",),
            "mapping": ("values",),
        }
        every = {key for keys in own.values() for key in keys}
        for key in sorted(every & table.keys() - set(own.get(str(method), ()))):
            belongs = next(other for other, keys in own.items() if key in keys)
            if method in METHODS:
                self.fault(f'{where}"{key}" belongs to the method {belongs}, and this scale has the method {method}.')
        self.refuse_unknown({key: None for key in table if key not in every}, shared, where)
        scale_id, label = self.identifier(table, where), self.text(table, "label", where)
        names = self.words(table, "items", where, None)
        for item_id in names:
            if item_id in later and item_id not in known:
                self.fault(f'{name} names scale "{item_id}", which is not defined before it.')
            elif item_id not in known:
                self.fault(f'{name} names item "{item_id}", which is not defined.{find_suggestion(item_id, known)}')
        minimum, maximum = self.number(table, "minimum", where), self.number(table, "maximum", where)
        pct = self.number(table, "at_most_missing_pct", where, required=method == "prorated_sum") or 0.0
        if not 0 <= pct < 100:
            self.fault(f"{where}at_most_missing_pct must be from 0 to less than 100.")
        leave_out = self.words(table, "leave_out", where, MISSING_REASONS) if "leave_out" in table else ()
        not_asked_as = self.number(table, "not_asked_as", where, required=False)
        zero_if = self.condition(table["zero_if"], where, "zero_if", items, ()) if "zero_if" in table else None
        weights = self.parse_weights(table.get("weights"), where, names) if method == "weighted" else {}
        counted = table.get("counted", [])
        if method == "count" and (
            not isinstance(counted, list) or not counted or any(type(value) is not int for value in counted)
        ):
            self.fault(f'{where}"counted" must be the list of answers that count, such as counted = [1].')
            return None
        values: dict[int, float] = {}
        if method == "mapping":
            if len(names) != 1:
                self.fault(f"{where}mapping takes one item, not {len(names)}.")
            values = self.parse_mapping(table, where, items.get(names[0]) if names else None)
        scale_to = self.number(table, "scale_to", where, required=False)
        if minimum is None or maximum is None or method not in METHODS or any(item not in ranges for item in names):
            return None
        if method == "prorated_sum" and scale_to is None:
            scale_to = sum(ranges[item][1] for item in names)
        return Scale(
            id=scale_id,
            label=label,
            method=method,
            items=names,
            minimum=minimum,
            maximum=maximum,
            missing=MissingRule(at_most_missing_pct=pct, leave_out=leave_out, not_asked_as=not_asked_as),
            scale_to=scale_to,
            weights=weights,
            counted=tuple(counted),
            values=values,
            zero_if=zero_if,
        )

    def parse_weights(self, table: object, where: str, names: Sequence[str]) -> dict[str, float]:
        if not isinstance(table, dict):
            self.fault(f'{where}"weights" is missing. Write weights = {{ item = weight, ... }}.')
            return {}
        for key in table:
            if key not in names:
                self.fault(f'{where}weights names "{key}", which is not among its items.{find_suggestion(key, names)}')
        weights = {name: self.number(table, name, f"{where}weights: ") for name in names}
        return {name: weight for name, weight in weights.items() if weight is not None}

    def parse_mapping(self, table: Mapping[str, Any], where: str, item: Item | None) -> dict[int, float]:
        if "values" not in table or item is None:
            return {}
        values = self.coded(table["values"], where, "values")
        numbers = {
            code: self.number({"value": value}, "value", f"{where}values: code {code}: ")
            for code, value in values.items()
        }
        if item.type != "level":
            self.fault(f"{where}a table of values needs a level item, and {item.id} is a number.")
            return {}
        for code in sorted(item.levels.keys() - values.keys()):
            self.fault(f"{where}values says nothing about level {code} of {item.id}.")
        for code in sorted(values.keys() - item.levels.keys()):
            self.fault(f"{where}values names {code}, which is no level of {item.id} ({item.answers_in_words}).")
        return {code: number for code, number in numbers.items() if number is not None}

    def check_range(self, scale: Scale, where: str, ranges: Mapping[str, tuple[float, float]]) -> Scale:
        lows, highs = [ranges[item][0] for item in scale.items], [ranges[item][1] for item in scale.items]
        if scale.missing.not_asked_as is not None:
            lows = [min(low, scale.missing.not_asked_as) for low in lows]
            highs = [max(high, scale.missing.not_asked_as) for high in highs]
        if scale.method == "product" and min(lows) < 0:
            self.fault(f"{where}a product needs items that are never below 0.")
        if scale.method == "prorated_sum":
            if any(lows) and len(set(zip(lows, highs, strict=True))) > 1:
                self.fault(f"{where}prorated_sum needs items that begin at 0, or that all have the same range.")
            if min(highs) <= 0 or not scale.scale_to or scale.scale_to < 0:
                self.fault(f"{where}prorated_sum needs items, and scale_to, that reach above 0.")
                return scale
        low, high = _compute_reach(scale, lows, highs)
        if scale.zero_if is not None:
            low, high = min(low, 0.0), max(high, 0.0)
        for key, stated, reached in (("minimum", scale.minimum, low), ("maximum", scale.maximum, high)):
            if not math.isclose(stated, reached, abs_tol=1e-9):
                self.fault(f"{where}{key} is {stated:g}, but by its items the score can reach {reached:g}.")
        return scale

    def parse_examples(self, data: bytes | None, items: Collection[str], scales: Sequence[str]) -> list[WorkedExample]:
        if data is None:
            self.fault(f"there is no {EXAMPLES_FILE}. Add answers with the scores that they must give.")
            return []
        try:
            rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig")), strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            self.fault(f"{EXAMPLES_FILE} cannot be read as UTF-8 CSV: {error}.")
            return []
        header = [name.strip() for name in rows[0]] if rows else []
        known = [*_EXAMPLE_COLUMNS, *items, *(_EXPECTED + scale for scale in scales)]
        for name in header:
            if name not in known:
                self.fault(
                    f'{EXAMPLES_FILE}: column "{name}" is no item and no expected score.{find_suggestion(name, known)}'
                )
        for name in [*_EXAMPLE_COLUMNS, *(_EXPECTED + scale for scale in scales)]:
            if name not in header:
                self.fault(f'{EXAMPLES_FILE}: column "{name}" is missing.')
        if len(set(header)) < len(header):
            self.fault(f"{EXAMPLES_FILE}: a column stands there twice.")
        if self.faults:
            return []
        examples = [
            self.parse_example(dict(zip(header, row, strict=False)), number, len(row) == len(header), items)
            for number, row in enumerate(rows[1:], start=2)
            if any(row)
        ]
        for scale in scales:
            if not any(scale in example.expected for example in examples):
                self.fault(f"{EXAMPLES_FILE}: no example says what {scale} must be.")
        return examples

    def parse_example(
        self, row: Mapping[str, str], number: int, is_whole: bool, items: Collection[str]
    ) -> WorkedExample:
        where = f"{EXAMPLES_FILE}, line {number}: "
        cells = {key: value.strip() for key, value in row.items()}
        if not is_whole:
            self.fault(f"{where}the number of cells is not the number of columns.")
        if cells.get("evidence") not in EVIDENCE:
            self.fault(
                f'{where}evidence "{cells.get("evidence")}" is none of {_listed(EVIDENCE)}.'
                f"{find_suggestion(cells.get('evidence', ''), EVIDENCE)}"
            )
        for key in ("example", "source"):
            if not cells.get(key):
                self.fault(f"{where}{key} is empty.")
        decimals = cells.get("decimals", "")
        if not decimals.isdecimal():
            self.fault(f"{where}decimals must be the number of decimals that the expected scores have.")
        expected = {
            key.removeprefix(_EXPECTED): value for key, value in cells.items() if key.startswith(_EXPECTED) and value
        }
        for scale, value in expected.items():
            if value not in MISSING_REASONS and not re.fullmatch(r"-?\d+(\.\d+)?", value):
                self.fault(
                    f'{where}expected {scale} must be a number or a missing reason, and is "{value}".'
                    f"{find_suggestion(value, MISSING_REASONS)}"
                )
        return WorkedExample(
            example=cells.get("example", ""),
            evidence=cells.get("evidence", ""),
            source=cells.get("source", ""),
            decimals=int(decimals) if decimals.isdecimal() else 0,
            expected=expected,
            answers={key: value for key, value in cells.items() if key in items},
        )


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)


def _is_answer(item: Item, value: float) -> bool:
    if item.type == "level":
        return value in item.levels
    return item.lowest <= value <= item.highest and (not item.whole_numbers or float(value).is_integer())


def _compute_reach(scale: Scale, lows: Sequence[float], highs: Sequence[float]) -> tuple[float, float]:
    """The lowest and highest score that the answers allow, by the scale's method."""
    if scale.method == "sum":
        return sum(lows), sum(highs)
    if scale.method == "prorated_sum":
        factor = (scale.scale_to or 0.0) / sum(highs)
        return sum(lows) * factor, sum(highs) * factor
    if scale.method == "product":
        return math.prod(lows), math.prod(highs)
    if scale.method == "count":
        return 0.0, float(len(scale.items))
    if scale.method == "mapping":
        return (min(scale.values.values()), max(scale.values.values())) if scale.values else (lows[0], highs[0])
    ends = [
        sorted((low * scale.weights[item], high * scale.weights[item]))
        for item, low, high in zip(scale.items, lows, highs, strict=True)
    ]
    return sum(low for low, _ in ends), sum(high for _, high in ends)


def derive_codebook_rows(instrument: Instrument) -> pd.DataFrame:
    """One row per item for a codebook.

    Columns, all text: instrument, item, label, type, levels ("0 = absent; 1 = present", or "0 to 10" for a number),
    missing_codes ("-9 = not_answered; ..."), asked_if ("" or "npi01_present is 1"), scales (those that use the item,
    directly or through another scale, separated by spaces).
    """
    members: dict[str, set[str]] = {}
    for scale in instrument.scales:
        leaves: set[str] = set(scale.items) | ({scale.zero_if.item} if scale.zero_if else set())
        members[scale.id] = leaves.union(*(members.get(name, set()) for name in scale.items))
    rows = [
        {
            "instrument": instrument.id,
            "item": item.id,
            "label": item.label,
            "type": item.type,
            "levels": "; ".join(f"{code} = {label}" for code, label in item.levels.items())
            or f"{item.lowest:g} to {item.highest:g}",
            "missing_codes": "; ".join(f"{code} = {reason}" for code, reason in item.missing_codes.items()),
            "asked_if": f"{item.asked_if.item} is {_either(item.asked_if.equals)}" if item.asked_if else "",
            "scales": " ".join(scale.id for scale in instrument.scales if item.id in members[scale.id]),
        }
        for item in instrument.items
    ]
    return pd.DataFrame(rows)


def derive_scale_rows(instrument: Instrument) -> pd.DataFrame:
    """One row per scale for a codebook: instrument, scale, label, method, items, rule (in words), minimum, maximum."""
    rows = [
        {
            "instrument": instrument.id,
            "scale": scale.id,
            "label": scale.label,
            "method": scale.method,
            "items": " ".join(scale.items),
            "rule": scale.rule_in_words,
            "minimum": scale.minimum,
            "maximum": scale.maximum,
        }
        for scale in instrument.scales
    ]
    return pd.DataFrame(rows)
