"""A definition from its files: a frozen instrument, or every fault told at once, for the person who wrote it."""

import csv
import io
import math
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from study.instruments import (
    DEFAULT_MISSING_CODES,
    DEFINITION_FILE,
    EVIDENCE,
    EXAMPLES_FILE,
    FORMS,
    METHODS,
    MISSING_REASONS,
    RECORD_COLUMNS,
    RESPONDENTS,
    SEVERITIES,
    UNIT_COSTS_FILE,
    AnswerTest,
    Caution,
    ChoiceGroup,
    Condition,
    DefinitionFaults,
    Instrument,
    Item,
    MissingRule,
    OtherVersion,
    Rule,
    Scale,
    Trigger,
    UnitCosts,
    WorkedExample,
    find_suggestion,
)
from study.value_sets import COVARIATES, SEXES, VALUE_SETS_FOLDER, ValueSet, parse_value_table

_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,31}")  # 32 characters: what Stata takes as the name of a variable
_LEVEL_RANGE = re.compile(r"(-?[0-9]{1,5}) to (-?[0-9]{1,5})")
_CODE = re.compile(r"-?[0-9]{1,5}")  # longer ones could be identifiers, and are never shown in a message
_LARGEST = 1_000_000_000
_EXAMPLE_COLUMNS = ("example", "evidence", "source", "decimals")
_COST_COLUMNS = ("item", "unit_cost", "unit", "price_year", "edition", "source")
_PRICE_YEAR = re.compile(r"[0-9]{4}(/[0-9]{2})?")
_EXPECTED = "expected_"
_SHEET_TITLE_FORBIDDEN = set("[]:*?/\\")
# What a definition does not say about an instrument, but other files or the parser do.
_NO_WORDS = ("worked_examples", "unit_costs", "choice_groups", "has_costs")
# What only scales of one method (or of several) have.
_OWN_WORDS: Mapping[str, tuple[str, ...]] = {
    "prorated_sum": ("at_most_missing_pct", "leave_out", "scale_to"),
    "weighted": ("weights", "times", "plus"),
    "count": ("counted",),
    "mapping": ("values",),
    "sum": ("times", "plus"),
    "valued_sum": ("values", "item_values", "times", "plus"),
    "value_set": ("value_set",),
    "cost": ("times_in_recall",),
}


def parse_instrument(folder_name: str, files: Mapping[str, bytes]) -> Instrument:
    """Parse one folder of instruments/.

    ``files`` maps paths within the folder to contents; ``definition.toml``, ``worked_examples.csv``, the value sets
    that the definition names, and ``unit_costs.csv`` if it is there are read. Raises
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
        self.choice_groups: list[ChoiceGroup] = []
        self.cost_scales: list[str] = []  # those of the definition, computed or not
        self.unsound: set[str] = set()  # value sets with faults of their own: nothing more is said of what names them

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
            if not gate.is_answer(value):
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
        known = [name for name in Instrument.model_fields if name not in _NO_WORDS]
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
        items = self.parse_items(raw, codes, respondents, forms)
        value_sets = self.parse_value_sets(raw, items, files)
        costs = self.parse_unit_costs(files.get(UNIT_COSTS_FILE), items)
        scales = self.parse_scales(raw, items, {value_set.id: value_set for value_set in value_sets}, costs)
        rules = [self.parse_rule(table, n, items) for n, table in enumerate(self.tables_if_any(raw, "rules"), start=1)]
        for rule_id in sorted({rule.id for rule in rules if sum(rule.id == other.id for other in rules) > 1}):
            self.fault(f'rule {rule_id}: id "{rule_id}" is used twice.')
        told_of: dict[str, str] = {}
        for rule in rules:
            if (first := told_of.setdefault(rule.last_item, rule.id)) != rule.id:
                self.fault(
                    f"rule {rule.id}: it is told of its last item, {rule.last_item}, and so is rule {first}. A site is "
                    "asked one thing of an answer: put another item last."
                )
        listed = raw["scales"] if isinstance(raw.get("scales"), list) else []
        declared = [str(table.get("id")) for table in listed if isinstance(table, dict)]
        cautions = [
            self.parse_caution(table, n, declared, respondents, forms)
            for n, table in enumerate(self.tables_if_any(raw, "cautions"), start=1)
        ]
        versions = [
            self.parse_other_version(table, n, items)
            for n, table in enumerate(self.tables_if_any(raw, "other_versions"), start=1)
        ]
        tables = self.tables_if_any(raw, "safeguarding")
        triggers = [self.parse_trigger(table, n, items) for n, table in enumerate(tables, start=1)]
        for trigger_id in sorted({one.id for one in triggers if sum(one.id == other.id for other in triggers) > 1}):
            self.fault(f'safeguarding {trigger_id}: id "{trigger_id}" is used twice.')
        default = self.parse_default(raw, scales)
        recall = self.text(raw, "recall", "") if "recall" in raw else ""
        facts = raw.get("facts", False)
        if not isinstance(facts, bool):
            self.fault('"facts" must be true or false.')
        if facts is True and (reflective := [scale.id for scale in scales if scale.reflective]):
            self.fault(f"it asks for facts, so its items are no effects of one cause, as {reflective[0]} says.")
        must_have = [scale.id for scale in scales if scale.method != "cost"]
        examples = self.parse_examples(files.get(EXAMPLES_FILE), items, declared, must_have)
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
            recall=recall,
            default_value_set=default,
            value_sets=tuple(value_sets),
            unit_costs=costs,
            choice_groups=tuple(self.choice_groups),
            rules=tuple(rules),
            cautions=tuple(cautions),
            other_versions=tuple(versions),
            safeguarding=tuple(triggers),
            has_costs=bool(self.cost_scales),
            facts=facts is True,
        )

    def tables_if_any(self, raw: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
        return self.tables(raw, key) if key in raw else []

    def tables(self, raw: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
        tables = raw.get(key)
        if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
            self.fault(f"there are no {key}. Write each under a line [[{key}]].")
            return []
        return tables

    def parse_items(
        self, raw: Mapping[str, Any], codes: Mapping[int, str], respondents: Sequence[str], forms: Sequence[str]
    ) -> dict[str, Item | None]:
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
            if item_id in items:
                self.fault(f'{where}id "{item_id}" is used twice.')
            if table.get("type") == "choices":
                made = self.parse_choices(table, item_id, where, codes)
            else:
                made = {item_id: self.parse_item(table, item_id, where, codes, level_sets)}
            shared: dict[str, Any] = {}
            if "asked_if" in table:
                shared["asked_if"] = self.condition(table["asked_if"], where, "asked_if", items, order[position - 1 :])
            for key, known in (("respondents", respondents), ("forms", forms)):
                if key in table:
                    shared[key] = self.words(table, key, where, known)
            for made_id, item in made.items():
                if made_id in (*RECORD_COLUMNS, *_EXAMPLE_COLUMNS, *COVARIATES) or made_id.startswith(_EXPECTED):
                    self.fault(f'{where}id "{made_id}" is the name of another column. Choose another.')
                if made_id in items and made_id != item_id:
                    self.fault(f'{where}the choice makes an item "{made_id}", and that id is used already.')
                items.setdefault(made_id, item and item.model_copy(update=shared))
        return items

    def parse_choices(
        self, table: Mapping[str, Any], group_id: str, where: str, codes: Mapping[int, str]
    ) -> dict[str, Item | None]:
        """A question with several answers as an item for each choice: <id>_<choice>, yes or no."""
        known = ("id", "label", "type", "choices", "exclusive", "asked_if", "respondents", "forms")
        self.refuse_unknown(table, known, where)
        label, choices = self.text(table, "label", where), table.get("choices")
        if not isinstance(choices, dict) or not choices:
            self.fault(f'{where}"choices" is missing. Write choices = {{ none = "None of these", ... }}.')
            return {}
        for choice, words in choices.items():
            if not isinstance(words, str) or not words.strip():
                self.fault(f'{where}choices: {choice} has no label. Write {choice} = "...".')
            if not _IDENTIFIER.fullmatch(f"{group_id}_{choice}"):
                self.fault(
                    f'{where}choice "{choice}" must be small letters, digits and _, and at most 32 with the id before '
                    "it."
                )
        exclusive = self.words(table, "exclusive", where, list(choices)) if "exclusive" in table else ()
        self.choice_groups.append(
            ChoiceGroup(
                id=group_id,
                label=label,
                items=tuple(f"{group_id}_{choice}" for choice in choices),
                choices=tuple(str(words) for words in choices.values()),
                exclusive=tuple(f"{group_id}_{choice}" for choice in exclusive),
            )
        )
        levels = {0: "not chosen", 1: "chosen"}
        missing = {code: reason for code, reason in codes.items() if code not in levels}
        return {
            f"{group_id}_{choice}": Item(
                id=f"{group_id}_{choice}", label=f"{label}: {words}", type="level", levels=levels, missing_codes=missing
            )
            for choice, words in choices.items()
        }

    def parse_item(
        self,
        table: Mapping[str, Any],
        item_id: str,
        where: str,
        codes: Mapping[int, str],
        level_sets: Mapping[str, dict[int, str]],
    ) -> Item | None:
        """An item without its routing and without who is asked it."""
        kind = table.get("type", "level" if "levels" in table else "number")
        if kind not in ("level", "number"):
            hint = find_suggestion(str(kind), ("level", "number", "choices"))
            self.fault(f'{where}type "{kind}" is none of level, number, choices.{hint}')
            return None
        self.refuse_unknown(table, list(Item.model_fields), where)
        label = self.text(table, "label", where)
        own = self.missing_codes(table["missing_codes"], where) if "missing_codes" in table else {}
        if kind == "level":
            for key in ("minimum", "maximum", "whole_numbers"):
                if key in table:
                    self.fault(f'{where}"{key}" belongs to an item of type "number"; a level item has levels.')
            levels = self.parse_levels(table.get("levels"), where, level_sets)
            if not levels:
                return None
            item = Item(id=item_id, label=label, type="level", levels=levels)
        else:
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
        item = item.model_copy(update={"provides": self.parse_provides(table, item, where)})
        for code in own:
            if item.is_answer(code):
                self.fault(f"{where}{code} is both an answer ({item.answers_in_words}) and a missing code.")
        combined = {code: reason for code, reason in {**codes, **own}.items() if not item.is_answer(code)}
        return item.model_copy(update={"missing_codes": combined})

    def parse_provides(self, table: Mapping[str, Any], item: Item, where: str) -> str:
        provides = table.get("provides", "")
        if provides not in ("", *COVARIATES):
            self.fault(f'{where}provides "{provides}" is none of {_listed(COVARIATES)}.')
            return ""
        if provides == "age" and item.type != "number":
            self.fault(f'{where}an item that provides the age must be of type "number", in years.')
        if provides == "sex" and not set(SEXES) <= set(item.levels.values()):
            self.fault(f'{where}an item that provides the sex must have levels labelled "male" and "female".')
        return str(provides)

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
            hint = find_suggestion(value, level_sets) or ' A range is written as "0 to 3".'
            self.fault(f'{where}levels names the level set "{value}", which is not defined.{hint}')
        return level_sets.get(value, {})

    def parse_value_sets(
        self, raw: Mapping[str, Any], items: Mapping[str, Item | None], files: Mapping[str, bytes]
    ) -> list[ValueSet]:
        found: dict[str, ValueSet] = {}
        used: set[str] = set()
        for position, table in enumerate(self.tables_if_any(raw, "value_sets"), start=1):
            where = f"value set {table.get('id') or f'number {position}'}: "
            words = ("id", "label", "file", "items", "country", "citation", "source", "decimals", "maps_from")
            self.refuse_unknown(table, words, where)
            id_ = self.identifier(table, where)
            texts = {key: self.text(table, key, where) for key in ("label", "file", "country", "citation", "source")}
            names = self.words(table, "items", where, None)
            levels = [self.profile_levels(name, items, where) for name in names]
            decimals = table.get("decimals")
            if type(decimals) is not int or not 0 <= decimals <= 12:
                self.fault(f'{where}"decimals" must be how many the published values have, such as decimals = 3.')
                decimals = 12
            maps_from = str(table.get("maps_from", ""))
            origin = found.get(maps_from)
            is_wrong = origin.items != names or origin.covariates if origin else maps_from not in self.unsound
            if maps_from and is_wrong:
                self.fault(f"{where}maps_from must name a value set defined before it, of the same items and no ages.")
            used.add(texts["file"])
            data = files.get(texts["file"])
            if texts["file"] and data is None:
                near = find_suggestion(texts["file"], files)
                self.fault(f'{where}there is no file "{texts["file"]}" in the folder of the instrument.{near}')
            if id_ in found:
                self.fault(f'{where}id "{id_}" is used twice.')
            sound = [level for level in levels if level is not None]
            self.unsound.add(id_)
            if data is None or not names or len(sound) < len(names):
                continue
            bands, values, faults = parse_value_table(data, texts["file"], decimals, sound)
            for fault in faults:
                self.fault(fault)
            if not faults:
                self.unsound.discard(id_)
                found[id_] = ValueSet(
                    id=id_,
                    **texts,
                    items=names,
                    decimals=decimals,
                    maps_from=maps_from,
                    lowest=tuple(low for low, _ in sound),
                    n_levels=tuple(high - low + 1 for low, high in sound),
                    age_bands=bands,
                    table=values,
                )
        for name in sorted(files):
            if name.startswith(f"{VALUE_SETS_FOLDER}/") and name not in used:
                self.fault(f'{name}: no value set names this file. Add one with file = "{name}", or remove it.')
        return list(found.values())

    def profile_levels(self, name: str, items: Mapping[str, Item | None], where: str) -> tuple[int, int] | None:
        """The lowest and highest level of an item of a profile."""
        item = items.get(name)
        if name not in items:
            self.fault(f'{where}names item "{name}", which is not defined.{find_suggestion(name, items)}')
        if item is None:
            return None
        codes = sorted(item.levels)
        if not codes or codes != list(range(codes[0], codes[-1] + 1)):
            self.fault(f"{where}item {name} must have levels without a gap to be part of a profile.")
            return None
        return codes[0], codes[-1]

    def parse_unit_costs(self, data: bytes | None, items: Mapping[str, Item | None]) -> UnitCosts | None:
        """The table of unit costs that a study supplies: all in one price year, since sums of several mean nothing."""
        if data is None:
            return None
        try:
            reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig")), strict=True)
            rows, header = list(reader), reader.fieldnames or []
        except (UnicodeDecodeError, csv.Error) as error:
            self.fault(f"{UNIT_COSTS_FILE} cannot be read as UTF-8 CSV: {error}.")
            return None
        if not rows or sorted(header) != sorted(_COST_COLUMNS):
            self.fault(f"{UNIT_COSTS_FILE}: the columns must be {_listed(_COST_COLUMNS)}, with a row for each item.")
            return None
        costs: dict[str, float] = {}
        units: dict[str, str] = {}
        for line, row in enumerate(rows, start=2):
            where = f"{UNIT_COSTS_FILE}, line {line}: "
            cells = {key: (row[key] or "").strip() for key in _COST_COLUMNS}
            if len(row) > len(_COST_COLUMNS):
                self.fault(f"{where}there are more cells than columns.")
            item = items.get(cells["item"])
            if item is None or item.type != "number":
                self.fault(f'{where}"{cells["item"]}" is no item that counts.{find_suggestion(cells["item"], items)}')
            if cells["item"] in costs:
                self.fault(f"{where}{cells['item']} stands there twice.")
            if not re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,4})?", cells["unit_cost"]):
                self.fault(f"{where}unit_cost must be a number of pounds that is not below 0, such as 42.50.")
                continue
            if not _PRICE_YEAR.fullmatch(cells["price_year"]):
                self.fault(f"{where}price_year must be a year such as 2022, or a financial year such as 2021/22.")
            for key in ("unit", "edition", "source"):
                if not cells[key]:
                    self.fault(f"{where}{key} is empty.")
            costs[cells["item"]], units[cells["item"]] = float(cells["unit_cost"]), cells["unit"]
        years = sorted({(row["price_year"] or "").strip() for row in rows})
        if len(years) > 1:
            self.fault(f"{UNIT_COSTS_FILE}: several price years ({_listed(years)}). Bring all costs to one of them.")
        editions = tuple(dict.fromkeys((row["edition"] or "").strip() for row in rows))
        return UnitCosts(costs=costs, units=units, price_year=years[0], editions=editions)

    def parse_rule(self, table: Mapping[str, Any], position: int, items: Mapping[str, Item | None]) -> Rule:
        where = f"rule {table.get('id') or f'number {position}'}: "
        self.refuse_unknown(table, list(Rule.model_fields), where)
        severity = table.get("severity")
        if severity not in SEVERITIES:
            self.fault(f'{where}severity "{severity}" is none of {_listed(SEVERITIES)}.')
        made = self.parse_tests(table, "never_together", where, items)
        if len({item for test in made for item in (*test.items, test.above) if item}) < 2 and made:
            self.fault(f"{where}a rule is about at least two items.")
        return Rule(
            id=self.identifier(table, where),
            says=self.text(table, "says", where),
            severity="hard" if severity == "hard" else "soft",
            never_together=tuple(made) or (AnswerTest(items=("",)),),
        )

    def parse_trigger(self, table: Mapping[str, Any], position: int, items: Mapping[str, Item | None]) -> Trigger:
        where = f"safeguarding {table.get('id') or f'number {position}'}: "
        self.refuse_unknown(table, list(Trigger.model_fields), where)
        return Trigger(
            id=self.identifier(table, where),
            about=self.text(table, "about", where),
            any_of=tuple(self.parse_tests(table, "any_of", where, items)),
        )

    def parse_tests(
        self, table: Mapping[str, Any], key: str, where: str, items: Mapping[str, Item | None]
    ) -> list[AnswerTest]:
        tests = table.get(key)
        if not isinstance(tests, list) or not tests or not all(isinstance(test, dict) for test in tests):
            self.fault(
                f'{where}"{key}" must be a list of tests, such as [{{ items = ["a"], equals = [1] }}, '
                '{ items = ["b"], at_least = 2 }].'
            )
            return []
        return [self.parse_test(test, f"{where}{key}: ", where, items) for test in tests]

    def parse_test(
        self, test: Mapping[str, Any], place: str, where: str, items: Mapping[str, Item | None]
    ) -> AnswerTest:
        ways = ("equals", "at_least", "at_most", "above")
        self.refuse_unknown(test, ("items", *ways), place)
        names = self.words(test, "items", where, list(items))
        given = [way for way in ways if way in test]
        if len(given) != 1:
            self.fault(f"{where}each test has one of equals, at_least, at_most and above.")
        equals, above = test.get("equals", []), test.get("above", "")
        if "equals" in test and (
            not isinstance(equals, list) or not equals or any(type(value) is not int for value in equals)
        ):
            self.fault(f'{where}"equals" must be a list of answers, such as equals = [1].')
            equals = []
        for name in names:
            item = items.get(name)
            for value in equals if item else ():
                if item and not item.is_answer(value):
                    self.fault(f"{where}{value} is no answer of {name} ({item.answers_in_words}).")
        if "above" in test and above not in items:
            self.fault(f'{where}above names item "{above}", which is not defined.{find_suggestion(str(above), items)}')
        return AnswerTest(
            items=names or ("",),
            equals=tuple(equals),
            at_least=self.number(test, "at_least", where, required=False),
            at_most=self.number(test, "at_most", where, required=False),
            above=str(above),
        )

    def parse_caution(
        self,
        table: Mapping[str, Any],
        position: int,
        scales: Sequence[str],
        respondents: Sequence[str],
        forms: Sequence[str],
    ) -> Caution:
        where = f"caution number {position}: "
        self.refuse_unknown(table, list(Caution.model_fields), where)
        return Caution(
            scales=self.words(table, "scales", where, scales),
            text=self.text(table, "text", where),
            forms=self.words(table, "forms", where, forms) if "forms" in table else (),
            respondents=self.words(table, "respondents", where, respondents) if "respondents" in table else (),
        )

    def parse_other_version(
        self, table: Mapping[str, Any], position: int, items: Mapping[str, Item | None]
    ) -> OtherVersion:
        where = f"other version number {position}: "
        self.refuse_unknown(table, list(OtherVersion.model_fields), where)
        names = self.words(table, "items", where, list(items))
        highest, rows = (self.number(table, key, where) or 0 for key in ("highest", "rows"))
        for name in names:
            item = items.get(name)
            if item is not None and not item.lowest <= highest < item.highest:
                self.fault(f"{where}highest must be an answer of {name} below its highest ({item.answers_in_words}).")
        if rows < 2 or not (float(rows).is_integer() and float(highest).is_integer()):
            self.fault(f"{where}highest and rows must be whole numbers, and rows at least 2.")
        return OtherVersion(title=self.text(table, "title", where), items=names, highest=int(highest), rows=int(rows))

    def parse_default(self, raw: Mapping[str, Any], scales: Sequence[Scale]) -> str:
        """Which value set is the default: said wherever there are several, since a reader would have to guess."""
        used = [scale.value_set for scale in scales if scale.value_set]
        default = str(raw.get("default_value_set", ""))
        if default and default not in used and default not in self.unsound:
            hint = find_suggestion(default, used)
            self.fault(f'default_value_set names "{default}", which no scale is scored by.{hint}')
        if len(used) > 1 and not default:
            self.fault(f'there are several value sets. Say which is the default: default_value_set = "{used[0]}".')
        return default

    def parse_scales(
        self,
        raw: Mapping[str, Any],
        items: Mapping[str, Item | None],
        value_sets: Mapping[str, ValueSet],
        costs: UnitCosts | None,
    ) -> list[Scale]:
        scales: list[Scale] = []
        ranges = {item.id: (item.lowest, item.highest) for item in items.values() if item is not None}
        seen: set[str] = set()
        tables = self.tables(raw, "scales")
        order = [str(table.get("id")) for table in tables]
        for position, table in enumerate(tables, start=1):
            where = f"scale {table.get('id') or f'number {position}'}"
            n_before = len(self.faults)
            known, later = [*items, *seen], order[position - 1 :]
            scale = self.parse_scale(table, f"{where}: ", where, items, ranges, known, later, value_sets, costs)
            if scale is not None and len(self.faults) == n_before and scale.method == "value_set":
                self.check_stated(scale, f"{where}: ", *value_sets[scale.value_set].reach)
            elif scale is not None and len(self.faults) == n_before and scale.method != "cost":
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
        value_sets: Mapping[str, ValueSet],
        costs: UnitCosts | None,
    ) -> Scale | None:
        method = table.get("method")
        if method not in METHODS:
            hint = find_suggestion(str(method), METHODS)
            self.fault(f'{where}method "{method}" is none of {_listed(METHODS)}.{hint}')
        shared = (
            *("id", "label", "method", "items", "minimum", "maximum", "zero_if", "not_asked_as", "reflective"),
            "largest_change",
        )
        every = {key for keys in _OWN_WORDS.values() for key in keys}
        for key in sorted(every & table.keys() - set(_OWN_WORDS.get(str(method), ()))):
            belongs = " or ".join(other for other, keys in _OWN_WORDS.items() if key in keys)
            if method in METHODS:
                self.fault(f'{where}"{key}" belongs to the method {belongs}, and this scale has the method {method}.')
        own = _OWN_WORDS.get(str(method), ())
        stray = {key: None for key in table if key not in every}
        hinted = next((word for word in sorted(every) if any(word.startswith(key) for key in stray)), "")
        self.refuse_unknown(stray, (*shared, *own, *([hinted] if hinted else [])), where)
        scale_id, label = self.identifier(table, where), self.text(table, "label", where)
        if method == "cost":
            return self.parse_cost(table, where, scale_id, label, items, costs)
        if method == "value_set":
            return self.parse_valued(table, where, scale_id, label, value_sets)
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
        elif 0 < pct < 1:
            self.fault(f"{where}at_most_missing_pct is in per cent of the items: 25 for a quarter, and not 0.25.")
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
            reach = ranges.get(names[0]) if names else None
            values = self.parse_mapping(table, where, items.get(names[0]) if names else None, reach)
        item_values = self.parse_item_values(table, where, names, items, ranges) if method == "valued_sum" else {}
        times = self.number(table, "times", where, required=False)
        reflective = table.get("reflective", False)
        if not isinstance(reflective, bool):
            self.fault(f'{where}"reflective" must be true or false.')
        change = self.number(table, "largest_change", where, required=False)
        if change is not None and minimum is not None and maximum is not None and not 0 < change < maximum - minimum:
            self.fault(f"{where}largest_change must be more than 0 and less than from the minimum to the maximum.")
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
            item_values=item_values,
            times=1.0 if times is None else times,
            plus=self.number(table, "plus", where, required=False) or 0.0,
            zero_if=zero_if,
            reflective=reflective is True,
            largest_change=change,
        )

    def parse_valued(
        self, table: Mapping[str, Any], where: str, scale_id: str, label: str, value_sets: Mapping[str, ValueSet]
    ) -> Scale | None:
        """A score looked up in a published table, whose items are those of the table."""
        for key in ("items", "zero_if", "not_asked_as", "reflective", "largest_change"):
            if key in table:
                self.fault(f'{where}"{key}" does not go with a value set: the table says what is scored.')
        name = self.text(table, "value_set", where)
        minimum, maximum = self.number(table, "minimum", where), self.number(table, "maximum", where)
        value_set = value_sets.get(name)
        if name and value_set is None and name not in self.unsound:
            self.fault(f'{where}value_set names "{name}", which is not defined.{find_suggestion(name, value_sets)}')
        if value_set is None or minimum is None or maximum is None:
            return None
        return Scale(
            id=scale_id,
            label=label,
            method="value_set",
            items=value_set.items,
            minimum=minimum,
            maximum=maximum,
            value_set=name,
        )

    def parse_cost(
        self,
        table: Mapping[str, Any],
        where: str,
        scale_id: str,
        label: str,
        items: Mapping[str, Item | None],
        costs: UnitCosts | None,
    ) -> Scale | None:
        """Contacts x unit cost; no scale at all without the study's table. Its reach follows from the table."""
        self.cost_scales.append(scale_id)
        for key in ("minimum", "maximum", "zero_if", "reflective", "largest_change"):
            if key in table:
                self.fault(f'{where}"{key}" does not go with a cost: it follows from the table of unit costs.')
        names = self.words(table, "items", where, list(items))
        times = table.get("times_in_recall", {})
        if not isinstance(times, dict):
            self.fault(f'{where}"times_in_recall" must be a table of item = number, such as {{ hours_a_week = 26 }}.')
            times = {}
        for name in times:
            if name not in names:
                self.fault(f'{where}times_in_recall names "{name}", which is not among its items.')
        factors = {name: self.number(times, name, f"{where}times_in_recall: ", required=False) for name in names}
        not_asked_as = self.number(table, "not_asked_as", where, required=False)
        if costs is None:
            return None
        for name in names:
            if name not in costs.costs:
                self.fault(f"{where}{UNIT_COSTS_FILE} says nothing about {name}.")
        weights = {name: costs.costs.get(name, 0.0) * (factors[name] or 1.0) for name in names}
        highest = sum(weights[name] * item.highest for name in names if (item := items.get(name)))
        return Scale(
            id=scale_id,
            label=f"{label} (pounds, prices of {costs.price_year})",
            method="cost",
            items=names,
            minimum=0.0,
            maximum=highest,
            missing=MissingRule(not_asked_as=not_asked_as),
            weights=weights,
            price_year=costs.price_year,
        )

    def parse_item_values(
        self,
        table: Mapping[str, Any],
        where: str,
        names: Sequence[str],
        items: Mapping[str, Item | None],
        ranges: Mapping[str, tuple[float, float]],
    ) -> dict[str, dict[int, float]]:
        """What each answer is worth: the same for all items (values), or item by item (item_values)."""
        own = table.get("item_values", {})
        if ("values" in table) == ("item_values" in table) or not isinstance(own, dict):
            self.fault(f'{where}write either "values" (for all items alike) or a table "item_values" (item by item).')
            return {}
        for name in own:
            if name not in names:
                self.fault(
                    f'{where}item_values names "{name}", which is not among its items.{find_suggestion(name, names)}'
                )
        worth: dict[str, dict[int, float]] = {}
        for name in names:
            if "values" not in table and name not in own:
                self.fault(f"{where}item_values says nothing about {name}.")
            elif name not in items and name in ranges:
                self.fault(f"{where}valued_sum takes items and not scales, and {name} is a scale.")
            elif items.get(name) is not None:
                given = {"values": table["values"] if "values" in table else own[name]}
                worth[name] = self.parse_mapping(given, where, items[name], None)
        return worth

    def parse_weights(self, table: object, where: str, names: Sequence[str]) -> dict[str, float]:
        if not isinstance(table, dict):
            self.fault(f'{where}"weights" is missing. Write weights = {{ item = weight, ... }}.')
            return {}
        for key in table:
            if key not in names:
                self.fault(f'{where}weights names "{key}", which is not among its items.{find_suggestion(key, names)}')
        weights = {name: self.number(table, name, f"{where}weights: ") for name in names}
        return {name: weight for name, weight in weights.items() if weight is not None}

    def parse_mapping(
        self, table: Mapping[str, Any], where: str, item: Item | None, reach: tuple[float, float] | None
    ) -> dict[int, float]:
        """A value for each level of an item, or for each whole number that a scale can reach."""
        if "values" not in table or (item is None and reach is None):
            return {}
        values = self.coded(table["values"], where, "values")
        numbers = {
            code: self.number({"value": value}, "value", f"{where}values: code {code}: ")
            for code, value in values.items()
        }
        if item is None and reach is not None:
            points = (
                set(range(math.ceil(reach[0]), math.floor(reach[1]) + 1)) if reach[1] - reach[0] <= 10_000 else set()
            )
            if values.keys() != points:
                self.fault(f"{where}values must name each score from {reach[0]:g} to {reach[1]:g} once.")
        elif item is not None and item.type != "level":
            self.fault(f"{where}a table of values needs a level item, and {item.id} is a number.")
            return {}
        elif item is not None:
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
        self.check_stated(scale, where, low, high)
        return scale

    def check_stated(self, scale: Scale, where: str, low: float, high: float) -> None:
        for key, stated, reached in (("minimum", scale.minimum, low), ("maximum", scale.maximum, high)):
            if not math.isclose(stated, reached, abs_tol=1e-9):
                self.fault(f"{where}{key} is {stated:.10g}, but by its items the score can reach {reached:.10g}.")

    def parse_examples(
        self, data: bytes | None, items: Collection[str], scales: Sequence[str], must_have: Sequence[str]
    ) -> list[WorkedExample]:
        if data is None:
            self.fault(f"there is no {EXAMPLES_FILE}. Add answers with the scores that they must give.")
            return []
        try:
            rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig")), strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            self.fault(f"{EXAMPLES_FILE} cannot be read as UTF-8 CSV: {error}.")
            return []
        header = [name.strip() for name in rows[0]] if rows else []
        optional = [_EXPECTED + scale for scale in scales]
        known = [*_EXAMPLE_COLUMNS, *COVARIATES, *items, *optional]
        for name in header:
            if name not in known:
                self.fault(
                    f'{EXAMPLES_FILE}: column "{name}" is no item and no expected score.{find_suggestion(name, known)}'
                )
        for name in [*_EXAMPLE_COLUMNS, *(_EXPECTED + scale for scale in must_have)]:
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
        for scale in must_have:
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
        age, sex = cells.get("age", ""), cells.get("sex", "")
        if (age and not age.isdecimal()) or sex not in ("", *SEXES):
            self.fault(f"{where}age must be a whole number of years, and sex male or female.")
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
            person={key: value for key, value in cells.items() if key in COVARIATES and value},
        )


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)


def _compute_reach(scale: Scale, lows: Sequence[float], highs: Sequence[float]) -> tuple[float, float]:
    """The lowest and highest score that the answers allow, by the scale's method."""
    low, high = sorted(end * scale.times + scale.plus for end in _compute_bare_reach(scale, lows, highs))
    return low, high


def _compute_bare_reach(scale: Scale, lows: Sequence[float], highs: Sequence[float]) -> tuple[float, float]:
    if scale.method == "sum":
        return sum(lows), sum(highs)
    if scale.method == "valued_sum":
        worth = [scale.item_values[item].values() for item in scale.items]
        return math.fsum(min(values) for values in worth), math.fsum(max(values) for values in worth)
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
