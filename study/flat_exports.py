"""Flat exports of other tools as the sheets of a return: REDCap, ODK and Kobo, Qualtrics, SPSS.

An export is a table, CSV or SPSS, with a row for each form, visit or submission. A :class:`SourceMap`, a TOML file
beside the study, says which of its columns is what; what comes out are the rows of a return workbook for each site, so
that every check, query and event is the same as for a workbook that a site filled in. Which line of the export each row
came from goes with it.

Judgement calls:

- Only what the map names is taken. A column that by its name holds an identifier is refused by name, and a map that
  names one is at fault: what tells who a person is never gets as far as a workbook.
- Exports are cumulative. All those of one source are one sending of each site: the first is the sending, each later one
  a correction of it, numbered by the days between. So what changed supersedes what came before, and what has vanished
  is asked about.
- An event, a repeat or a group that has answers and that the map does not name stops the whole export: it is named
  with an empty text if it is to be passed over.
- An export does not tell an unanswered question with several answers from one where nothing applied. No tick is taken
  for an answer only where the form was marked as filled in, and never where a choice means "none of these", or where
  the question was not to be asked.
- A code that means "missing" must not be an answer as well. [missing] holds for all columns, so a code that some item
  has as an answer is refused there. An SPSS file says of each variable by itself which of its values are missing: such
  a value is never an answer, and one that neither [missing] nor the item knows stops the export. So does a variable
  whose labels belong to other codes of the definition: 1 = yes must not become 1 = no.
- A row with more or fewer cells than the header stops the export: its answers may stand under the wrong names.
- A comma within a number is a decimal mark only where the map says decimal = ","; else such a cell is asked about.

Source of the columns: REDCap's description of its exports (redcap_event_name, redcap_repeat_instrument,
redcap_repeat_instance, redcap_data_access_group, <field>___<code>, <form>_complete); the exports of ODK, Kobo and
Qualtrics.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

import pandas as pd
from pydantic import Field, ValidationError

from study.definition_fields import DAY_WORDS, Day, DefinitionModel
from study.exchange import find_identifier_words
from study.identifier_scan import find_column_kind
from study.instruments import MISSING_REASONS, ChoiceGroup, DefinitionFaults, Instrument, Item, find_suggestion
from study.pack_layout import Column, Layout, Sheet, fold_title, parse_date, parse_text
from study.protocol import SOURCES_FOLDER, Study

EVENT, REPEAT_FORM, REPEAT, ARM = (
    "redcap_event_name", "redcap_repeat_instrument", "redcap_repeat_instance", "redcap_arm",
)  # fmt: skip
_OF_REDCAP = (EVENT, REPEAT_FORM, REPEAT, "redcap_data_access_group")
_COMPLETE = "_complete"
_FILLED_IN = frozenset({"1", "2", "unverified", "complete"})
_CHOSEN = frozenset({"1", "true", "yes", "checked", "1.0"})
_NOT_CHOSEN = frozenset({"0", "false", "no", "unchecked", "0.0"})
_BARE_DECIMAL = re.compile(r"([+-]?)(\.\d{1,15})")
_NUMBER = re.compile(r"[+-]?\d{1,15}(?:\.\d{1,15})?", re.ASCII)
_WITH_COMMA = re.compile(r"[+-]?\d{0,15},\d{1,15}", re.ASCII)
_SOURCE_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_ARM = re.compile(r"_arm_(\d+)[a-z]?$")
_CLOCK = re.compile(r"(?<=\d)T\d\d:\d\d.*$")  # with its zone: the day is that of the place
_QUALTRICS_ID = '{"ImportId"'

Cell = str | float | date


class ColumnsMap(DefinitionModel):
    """Where the columns of one sheet come from.

    `columns`: column of the sheet to column of the file, "" for an item that it does not have; items are found by their
    own names otherwise. `fixed`: what holds for each row. `values`: what the file's words stand for.
    """

    sheet: str = Field(description="the name of an instrument or a log, such as screening")
    columns: dict[str, str] = Field({}, description='a table such as { collected_on = "visit_date" }')
    fixed: dict[str, str] = Field({}, description='a table such as { respondent = "self" }')
    values: dict[str, dict[str, str]] = Field({}, description="a table of the export's words for each column")


class SheetMap(ColumnsMap):
    """Where one sheet of a return comes from in an export.

    `events`: only rows of these, empty for all. `form`: what the other tool calls it. `of_record`: columns that are
    looked for in other rows of the record where the row itself has none.
    """

    events: tuple[str, ...] = Field((), description="a list of events in quotes")
    form: str = Field("", description="the form's name in the export")
    of_record: tuple[str, ...] = Field((), description="a list of columns of the sheet in quotes")


class SourceMap(DefinitionModel):
    """One source of exports: what its columns, events and groups are in this study."""

    format: Literal["redcap", "odk", "qualtrics", "spss"] = Field(description='"redcap", "odk", "qualtrics" or "spss"')
    posted_on: Day = Field(description=f"the day of the first export: {DAY_WORDS}")
    sending_number: int = Field(ge=1, description="a number that the sites' own workbooks of that day do not have")
    participant_id: str = Field(description="the column that holds the study's identifier")
    record_id: str = Field("", description="the column that says which rows are one record, if it is another one")
    site: str = Field("", description="the one site of this source")
    site_column: str = Field("", description="the column that says the site, such as redcap_data_access_group")
    sites: dict[str, str] = Field({}, description="a table of groups and the sites that they are")
    event_column: str = Field("", description="the column that says the event or wave")
    waves: dict[str, str] = Field({}, description='a table of events and the waves that they are; "" to pass over one')
    missing: dict[str, str] = Field({}, description='a table of codes and reasons, such as "-99" = "not_answered"')
    decimal: Literal[".", ","] = Field(".", description='"." or ",": what parts a number from its decimals')
    sheets: tuple[SheetMap, ...] = Field(description="one [[sheets]] for each sheet")

    def find_events_column(self) -> str:
        return self.event_column or (EVENT if self.format == "redcap" else "")


@dataclass(frozen=True)
class Export:
    """A table as it came, cells as text. `numbers`: which line of the file (from 1) each row is, or which case.

    What only some tools tell, by name of the column: `missing`, values that it declares as missing; `labels`, words of
    its values; `titles`, its own words.
    """

    header: Sequence[str]
    lines: Sequence[Sequence[str]]
    numbers: Sequence[int]
    missing: Mapping[str, frozenset[str]] = field(default_factory=dict)
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)


@dataclass
class SiteSheets:
    """What an export tells, by site and sheet: frames with the columns of the sheet, and the line of the export that
    each row came from. `notes`: for a person to know."""

    sheets: dict[str, dict[str, pd.DataFrame]] = field(default_factory=dict)
    lines: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def compute_correction(source: SourceMap, exported_on: date) -> int:
    """The number of an export among those of its source: days since the first. Raises DefinitionFaults before it."""
    if exported_on < source.posted_on:
        raise DefinitionFaults(
            [f"The export is of {exported_on}, and the source begins on {source.posted_on}: correct posted_on."]
        )
    return (exported_on - source.posted_on).days


# --- The map ----------------------------------------------------------------------------------------------------------


def find_source_faults(files: Mapping[str, bytes], study: Study, layout: Layout) -> list[str]:
    """What is wrong with the maps among a study's files (path to contents), each with its place."""
    faults = []
    for path, data in sorted(files.items()):
        folder, _, name = path.rpartition("/")
        if folder != SOURCES_FOLDER or is_import_map(data):
            continue
        place = f"sites_config/{study.study_id}/{path}"
        if not _SOURCE_NAME.fullmatch(name.removesuffix(".toml")):
            faults.append(f"{place}: a source is called by small letters, digits and underscores. Rename the file.")
        try:
            parse_source(data, place, study, layout)
        except DefinitionFaults as error:
            faults += error.faults
    return faults


def is_import_map(data: bytes) -> bool:
    """Whether a map is one of the files of a finished study (`study.flat_files`), and none of exports."""
    try:
        return tomllib.loads(data.decode("utf-8-sig")).get("format") == "files"
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        return False


def parse_source(data: bytes, name: str, study: Study, layout: Layout) -> SourceMap:
    """Read a map of one study. Raises DefinitionFaults with every fault, each beginning with `name`."""
    try:
        source = SourceMap.model_validate(tomllib.loads(data.decode("utf-8-sig")))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as fault:
        raise DefinitionFaults([f"{name}: this is no TOML: {fault}."]) from None
    except ValidationError as error:
        faults = [_explain(found["type"], found["loc"]) for found in error.errors(include_url=False)]
        raise DefinitionFaults([f"{name}: {text}" for text in faults]) from None
    faults = [f"{name}: {text}" for text in _find_map_faults(source, study, layout)]
    if faults:
        raise DefinitionFaults(faults)
    return source


def _explain(kind: str, loc: tuple[int | str, ...]) -> str:
    model: type[DefinitionModel] = SourceMap
    words = [str(part + 1) if isinstance(part, int) else part for part in loc]
    where, key = " ".join(words), str(loc[0])
    if key == "sheets" and len(loc) > 2:
        model, key = SheetMap, str(loc[2])
    if kind == "extra_forbidden":
        return f"{where} is no word of a map.{find_suggestion(key, model.model_fields)}"
    expected = model.model_fields[key].description
    return f"{where} is missing. Add {expected}." if kind == "missing" else f"{where} must be {expected}."


def _find_map_faults(source: SourceMap, study: Study, layout: Layout) -> list[str]:
    faults = []
    sites = [site.site_id for site in study.sites]
    if bool(source.site) == bool(source.site_column):
        faults.append("say either site, if all is of one site, or site_column and [sites].")
    for site in filter(None, (source.site, *source.sites.values())):
        if site not in sites:
            faults.append(f'"{site}" is no site of {study.study_id}.{find_suggestion(site, sites)}')
    if not study.accepts_unscheduled:
        known = [wave.id for wave in study.waves]
        faults += [
            f'[waves] names "{wave}", which is no wave of {study.study_id}.{find_suggestion(wave, known)}'
            for wave in source.waves.values()
            if wave and study.find_wave(wave) is None
        ]
    for code, reason in source.missing.items():
        if reason not in MISSING_REASONS:
            faults.append(f'[missing] has "{reason}" for a code, which is none of {", ".join(MISSING_REASONS)}.')
        if not code.strip():
            faults.append("[missing] has an empty code; a blank needs none.")
    if source.format != "spss":
        faults += _find_missing_answers(source.missing, source.sheets, layout)
    codes = [sheet.code for sheet in layout.sheets if not sheet.is_for_reading]
    for entry in source.sheets:
        sheet = layout.find_sheet(entry.sheet)
        if sheet is None or sheet.is_for_reading:
            faults.append(f'there is no sheet "{entry.sheet}".{find_suggestion(entry.sheet, codes)}')
            continue
        named = {*entry.fixed, *entry.of_record, *entry.values}
        for column in sorted({*named, *entry.columns} - set(sheet.codes)):
            is_group = column in entry.columns and any(code.startswith(f"{column}_") for code in sheet.codes)
            if not is_group:
                hint = find_suggestion(column, sheet.codes)
                faults.append(f'sheet {entry.sheet} has no column "{column}".{hint}')
        faults += [
            f"sheet {entry.sheet}: {column} is in columns and fixed."
            for column in entry.columns
            if column in entry.fixed
        ]
    named_columns = [source.participant_id, *(name for entry in source.sheets for name in entry.columns.values())]
    for column in dict.fromkeys(named_columns):
        kind, words = find_column_kind(column), find_identifier_words(column)
        if kind not in ("", "perhaps_name") or words in ("an e-mail address", "where somebody is"):
            faults.append(f'the column "{column}" holds {words} by its name. It is not taken.')
    return faults


def _find_missing_answers(missing: Mapping[str, str], entries: Sequence[ColumnsMap], layout: Layout) -> list[str]:
    """Codes of [missing] that some item has as an answer: which of the two a cell means, nobody could tell."""
    sheets = {entry.sheet: layout.find_sheet(entry.sheet) for entry in entries}
    items = [
        (f"{name}.{column.code}", column)
        for name, sheet in sheets.items()
        for column in (sheet.columns if sheet else ())
        if column.kind == "item"
    ]
    faults = []
    for code in missing:
        answers = [name for name, column in items if is_answer(code.strip(), column)]
        if answers:
            more = f" and {len(answers) - 1} more" if len(answers) > 1 else ""
            faults.append(
                f'[missing] has "{code}", which is an answer of {answers[0]}{more}. Leave it out there. Where it means '
                f'that something is missing, say so of the one column, such as values.glad = {{ "{code}" = "-9" }}.'
            )
    return faults


def is_answer(code: str, column: Column) -> bool:
    if not _NUMBER.fullmatch(code):
        return False
    if column.choices:
        return any(_NUMBER.fullmatch(choice.code) and float(choice.code) == float(code) for choice in column.choices)
    return column.minimum is not None and column.maximum is not None and column.minimum <= float(code) <= column.maximum


# --- The table --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FoundColumn:
    """A column of the export: its name there, its cells, and what the export tells of it."""

    name: str
    cells: list[str]
    missing: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)


class _Table:
    """An export as text, with its columns found by folded name. A header that was pasted in again is no row."""

    def __init__(self, source: SourceMap, export: Export) -> None:
        lines = list(zip(export.numbers, export.lines, strict=True))
        if source.format == "qualtrics":
            lines = lines[next((n for n, (_, cells) in enumerate(lines[:2], 1) if _is_import_row(cells)), 0) :]
        self.export = export
        self.header = [name.strip() for name in export.header]
        width = len(self.header)
        rows = [(number, cells) for number, cells in lines if [cell.strip() for cell in cells] != self.header]
        self.n_headers = len(lines) - len(rows)
        self.numbers = [number for number, _ in rows]
        self.cells = [[parse_text(cell) for cell in cells[:width]] + [""] * (width - len(cells)) for _, cells in rows]
        self.longer = [number for number, cells in rows if any(cell.strip() for cell in cells[width:])]
        self.shorter = [number for number, cells in rows if len(cells) < width]
        places: dict[str, list[int]] = {}
        for place, name in enumerate(self.header):
            for key in {_fold(name), *(_fold(part) for part in _list_endings(name, source.format))}:
                places.setdefault(key, []).append(place)
        self.place = {key: found[0] for key, found in places.items() if len(found) == 1}
        self.place |= {_fold(name): place for place, name in reversed(list(enumerate(self.header)))}
        self.used: set[int] = set()

    def find(self, *names: str) -> FoundColumn | None:
        """The first of these columns that the export has."""
        for name in names:
            place = self.place.get(_fold(name))
            if place is not None:
                self.used.add(place)
                own, export = self.header[place], self.export
                cells = [cells[place] for cells in self.cells]
                return FoundColumn(own, cells, export.missing.get(own, frozenset()), export.labels.get(own, {}))
        return None

    def find_cells(self, *names: str) -> list[str] | None:
        found = self.find(*names)
        return found.cells if found else None


def _is_import_row(cells: Sequence[str]) -> bool:
    return bool(cells) and cells[0].strip().startswith(_QUALTRICS_ID)


def _fold(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "_", name.strip().casefold())


def _list_endings(name: str, tool: str) -> list[str]:
    """A column's name without the groups before it: "visit/mood/q1" or "visit-mood-q1" is q1 too."""
    if tool != "odk":
        return []
    parts = re.split(r"[/-]", name)
    return ["_".join(parts[n:]) for n in range(1, len(parts))]


# --- From rows to sheets ----------------------------------------------------------------------------------------------


def derive_site_sheets(
    source: SourceMap, export: Export, study: Study, layout: Layout, instruments: Mapping[str, Instrument]
) -> SiteSheets:
    """The rows of each site's return from an export's rows.

    Raises DefinitionFaults with everything that the map must say first; it tells columns, events, groups and counts,
    and never a value of a person's.
    """
    table = _Table(source, export)
    found = SiteSheets()
    faults = []
    for numbers, how in ((table.longer, "more"), (table.shorter, "fewer")):
        if numbers:
            lines = ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
            faults.append(f"{len(numbers)} rows have {how} cells than the header has columns: lines {lines}.")
    if table.n_headers:
        found.notes.append(f"The header stands {table.n_headers} times more among the rows, and was passed over there.")
    doubles = sorted(name for name, n in Counter(table.header).items() if name and n > 1)
    faults += [f'the export has the column "{name}" more than once. Give each its own name.' for name in doubles]
    context = _read_context(source, table, faults)
    for entry in source.sheets:
        sheet = layout.find_sheet(entry.sheet)
        if sheet is not None:
            frame = _derive_sheet(
                source, entry, sheet, instruments.get(entry.sheet), table, context, faults, found.notes
            )
            _part_by_site(found, entry.sheet, frame)
    if faults:
        raise DefinitionFaults(list(dict.fromkeys(faults)))
    found.notes += _list_not_taken(source, table)
    return found


@dataclass(frozen=True)
class _Context:
    """What each row is about: lists with one entry a row. `record`: which rows belong together."""

    record: list[str]
    participant_id: list[str]
    site: list[str]
    event: list[str]
    repeat_form: list[str]
    repeat: list[str]
    group: list[str]


def _read_context(source: SourceMap, table: _Table, faults: list[str]) -> _Context:
    n = len(table.cells)
    blank = [""] * n

    def need(name: str, what: str) -> list[str]:
        cells = table.find_cells(name)
        if cells is None:
            hint = find_suggestion(name, table.header)
            faults.append(
                f'the export has no column "{name}", which the map names for {what}. Export raw values and names of '
                f"fields, not labels.{hint}"
            )
        return cells or blank

    participants = need(source.participant_id, "participant_id")
    records = need(source.record_id, "record_id") if source.record_id else participants
    of_record: dict[str, str] = {}
    for record, participant in zip(records, participants, strict=True):
        if participant and of_record.setdefault(record, participant) != participant:
            faults.append("a record has two participants. Correct it in the other tool.")
    groups = need(source.site_column, "site_column") if source.site_column else [source.site] * n
    sites = {group: group for group in (source.site,) if group} | dict(source.sites)
    of_sites = {record: group for record, group in zip(records, groups, strict=True) if record and group}
    groups = [group or of_sites.get(record, "") for record, group in zip(records, groups, strict=True)]
    column = source.find_events_column()
    events = (
        (need(column, "the event") if source.event_column else table.find_cells(column) or blank) if column else blank
    )
    return _Context(
        records,
        [of_record.get(record, "") for record in records],
        [sites.get(group, "") for group in groups],
        events,
        table.find_cells(REPEAT_FORM) or blank,
        table.find_cells(REPEAT) or blank,
        groups,
    )


def _derive_sheet(
    source: SourceMap,
    entry: SheetMap,
    sheet: Sheet,
    instrument: Instrument | None,
    table: _Table,
    context: _Context,
    faults: list[str],
    notes: list[str],
) -> pd.DataFrame:
    """The rows of one sheet, with the columns site_id and line before its own."""
    columns: dict[str, list[Cell]] = {}
    missing = {fold_code(code): reason for code, reason in source.missing.items()}
    in_groups = {code for group in (instrument.choice_groups if instrument else ()) for code in group.items}
    for column in sheet.columns:
        if column.code in in_groups and column.code not in entry.columns:
            continue
        there = _find_column(entry, column.code, table, context, faults, is_log=instrument is None)
        if there is None:
            continue
        words = {word.casefold(): text for word, text in entry.values.get(column.code, {}).items()}
        told = {cell: words.get(cell.casefold(), cell) for cell in dict.fromkeys(there.cells)}
        item = instrument.find_item(column.code) if instrument else None
        if item is not None:
            faults += _find_label_faults(entry, item, there, words)
            faults += find_undeclared(entry, item, there, told, missing)
            if source.decimal == "," and any("." in text and _is_decimal(text) for text in told.values()):
                faults.append(f'the column "{there.name}" has numbers with a point, and the map says decimal = ",".')
            parsed = {
                cell: parse_item(text, item, column, there, missing, source.decimal) for cell, text in told.items()
            }
            columns[column.code] = [parsed[cell] for cell in there.cells]
            continue
        texts = ["" if cell in there.missing else told[cell] for cell in there.cells]
        if column.kind == "date":
            columns[column.code] = [parse_date(_CLOCK.sub("", text)).date or text for text in texts]
        else:
            columns[column.code] = list(texts)
    n, form = len(table.cells), entry.form or entry.sheet
    complete = table.find_cells(f"{form}{_COMPLETE}")
    is_filled = [cell.casefold() in _FILLED_IN for cell in complete] if complete else None
    if source.format == "redcap" and instrument and instrument.choice_groups and complete is None:
        notes.append(
            f'{entry.sheet}: the export has no column "{form}{_COMPLETE}". Whether a question without any tick was put '
            "to somebody is not known for sure."
        )
    for group in instrument.choice_groups if instrument else ():
        columns |= _read_group(entry, group, instrument, columns, table, is_filled, missing)
    absent = [item.id for item in (instrument.items if instrument else ()) if item.id not in columns]
    unnamed = [code for code in absent if not _is_left_out(code, entry, instrument)]
    if unnamed:
        faults.append(
            f"the export has no columns for these items of {entry.sheet}: {', '.join(unnamed)}. Export them, name them "
            'under columns, or write = "" there for one that was never asked.'
        )
    has_answer = [any(_tells(columns[code][row], code, entry, instrument) for code in columns) for row in range(n)]
    is_here = [
        (has_answer[row] or bool(instrument and is_filled and is_filled[row]))
        and (not entry.events or context.event[row] in entry.events)
        and context.repeat_form[row] in ("", form)
        for row in range(n)
    ]
    for code in entry.of_record:
        _fill_from_record(columns, code, context.record, is_here, entry.sheet, notes)
    waves = _find_waves(source, entry, sheet, context, is_here, faults, notes)
    columns["participant_id"] = list(context.participant_id)
    for code, text in entry.fixed.items():
        columns[code] = [text] * n
    if "wave" in sheet.column_by_code and "wave" not in columns:
        columns["wave"] = [wave or "" for wave in waves]
    kept = [row for row in range(n) if is_here[row] and waves[row] is not None]
    _check_sites(context, kept, faults)
    frame = pd.DataFrame(
        {
            "site_id": [context.site[row] for row in kept],
            "line": [table.numbers[row] for row in kept],
            **{c.code: [columns[c.code][row] for row in kept] for c in sheet.columns if c.code in columns},
        },
        dtype=object,
    )
    if instrument is None:
        return frame.drop_duplicates([name for name in frame.columns if name != "line"], ignore_index=True)
    return frame


def _is_left_out(code: str, entry: SheetMap, instrument: Instrument | None) -> bool:
    """Whether the map says that an item, or the question of which it is a choice, is not in the export."""
    groups = [group.id for group in (instrument.choice_groups if instrument else ()) if code in group.items]
    return code in entry.fixed or any(entry.columns.get(name) == "" for name in (code, *groups))


def _find_column(
    entry: SheetMap, code: str, table: _Table, context: _Context, faults: list[str], *, is_log: bool
) -> FoundColumn | None:
    """The export's column for one of a sheet, or None where the export has none for it. Of a log only what the map
    names is taken: a column that happens to be called "reason" may be of anything."""
    name = entry.columns.get(code)
    if name == "":
        return None
    if name == ARM:
        return FoundColumn(name, [match[1] if (match := _ARM.search(event)) else "" for event in context.event])
    if name is None:
        # As `study.redcap` and `study.xlsform` call what says which record it is: <form>_respondent and the like.
        is_found = not is_log and code not in (*entry.fixed, "participant_id", "wave")
        return table.find(f"{entry.sheet}_{code}", code) if is_found else None
    found = table.find(name)
    if found is None:
        hint = find_suggestion(name, table.header)
        faults.append(f'the export has no column "{name}", which the map names for {entry.sheet}.{code}.{hint}')
    return found


def fold_code(code: str) -> str:
    return code.strip().casefold()


def parse_item(
    text: str, item: Item, column: Column, there: FoundColumn, missing: Mapping[str, str], decimal: str
) -> Cell:
    """An answer as a workbook holds it: a number, the item's own code for a missing reason, or text as it stands. What
    the export does not declare as missing there, and what is an answer of the item, is an answer."""
    if (reason := missing.get(fold_code(text))) and (text in there.missing or not is_answer(text, column)):
        codes = [code for code, meaning in item.missing_codes.items() if meaning == reason]
        return float(max(codes)) if codes else text
    if decimal == "," and _WITH_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    if match := _BARE_DECIMAL.fullmatch(text):
        text = f"{match[1]}0{match[2]}"
    return float(text) if _NUMBER.fullmatch(text) else text


def _is_decimal(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text) or _BARE_DECIMAL.fullmatch(text))


def find_undeclared(
    entry: ColumnsMap, item: Item, there: FoundColumn, told: Mapping[str, str], missing: Mapping[str, str]
) -> list[str]:
    """Values that the export declares as missing, and of which nobody says why."""
    codes = {str(code) for code in item.missing_codes}
    own = [cell for cell in told if cell in there.missing]
    unknown = [cell for cell in own if fold_code(told[cell]) not in missing and told[cell] not in codes]
    return [
        f'the variable "{there.name}", for {entry.sheet}.{item.id}, declares {_shorten(cell)} as missing. Say under '
        "[missing] which reason that is."
        for cell in unknown
    ]


def _find_label_faults(entry: ColumnsMap, item: Item, there: FoundColumn, words: Mapping[str, str]) -> list[str]:
    """Codes that the export labels with the words that the definition has for another code."""
    by_label: dict[str, list[int]] = {}
    for code, label in item.levels.items():
        by_label.setdefault(fold_title(label), []).append(code)
    faults = []
    for cell, label in there.labels.items():
        codes = by_label.get(fold_title(label), [])
        text = words.get(cell.casefold(), cell)
        if len(codes) == 1 and _NUMBER.fullmatch(text) and float(text) != codes[0] and cell not in there.missing:
            faults.append(
                f'the variable "{there.name}" has {_shorten(cell)} for what {entry.sheet}.{item.id} has {codes[0]} for '
                f'("{item.levels[codes[0]]}"). Write values.{item.id} with its codes.'
            )
    return faults


def _shorten(code: str) -> str:
    """A code, if it is short enough to be one: a value of a person's must not travel in a message."""
    return f'"{code}"' if len(code) <= 6 else "a value"


def _tells(cell: Cell, code: str, entry: SheetMap, instrument: Instrument | None) -> bool:
    """Whether a cell shows that its row is a record: an answer of a questionnaire, or something told in a log. A choice
    that was not ticked shows nothing, and neither does the arm, which every row has."""
    if instrument is None:
        return cell != "" and entry.columns.get(code) != ARM
    if instrument.find_item(code) is None or cell == "":
        return False
    return cell != 0.0 or not any(code in group.items for group in instrument.choice_groups)


def _read_group(
    entry: SheetMap,
    group: ChoiceGroup,
    instrument: Instrument | None,
    columns: Mapping[str, list[Cell]],
    table: _Table,
    is_filled: Sequence[bool] | None,
    missing: Mapping[str, str],
) -> dict[str, list[Cell]]:
    """A question with several answers: a column for each choice, or one column with the codes that were chosen."""
    base = entry.columns.get(group.id, group.id)
    if not base:
        return {}
    choices = {item: item.removeprefix(f"{group.id}_") for item in group.items}
    found = {
        item: cells
        for item, choice in choices.items()
        if item not in columns
        and (cells := table.find_cells(f"{base}___{choice}", f"{base}/{choice}", f"{base}_{choice}")) is not None
    }
    if not found:
        together = table.find_cells(base) if not any(item in columns for item in group.items) else None
        if together is None:
            return {}
        chosen = [{_fold(code) for code in re.split(r"[\s,;]+", cell) if code} for cell in together]
        return {
            item: [float(_fold(choice) in codes) if codes else "" for codes in chosen]
            for item, choice in choices.items()
        }
    codes_of_missing = {
        reason: cells
        for code, reason in missing.items()
        if (cells := table.find_cells(f"{base}___{_fold(code)}")) is not None
    }
    first = instrument.find_item(group.items[0]) if instrument else None
    reasons = {reason: code for code, reason in sorted(first.missing_codes.items())} if first else {}
    of_missing = {code: float(reasons[reason]) for code, reason in missing.items() if reason in reasons}
    result: dict[str, list[Cell]] = {item: [] for item in found}
    for row in range(len(table.cells)):
        told = {
            item: of_missing.get(fold_code(of_item[row]), _parse_choice(of_item[row]))
            for item, of_item in found.items()
        }
        reason = next((why for why, marks in codes_of_missing.items() if _parse_choice(marks[row]) == 1.0), "")
        if reason in reasons:
            told = dict.fromkeys(told, float(reasons[reason]))
        elif any(cell == 1.0 for cell in told.values()):
            told = {item: 0.0 if cell == "" else cell for item, cell in told.items()}
        elif group.exclusive or (is_filled and not is_filled[row]) or not _is_asked(first, columns, row):
            told = {item: "" if cell == 0.0 else cell for item, cell in told.items()}
        for item, cell in told.items():
            result[item].append(cell)
    return result


def _parse_choice(text: str) -> Cell:
    folded = text.casefold()
    return 1.0 if folded in _CHOSEN else 0.0 if folded in _NOT_CHOSEN else text


def _is_asked(item: Item | None, columns: Mapping[str, list[Cell]], row: int) -> bool:
    condition = item.asked_if if item else None
    gate = columns.get(condition.item) if condition else None
    return condition is None or gate is None or gate[row] in condition.equals


def _fill_from_record(
    columns: dict[str, list[Cell]],
    code: str,
    records: Sequence[str],
    is_here: Sequence[bool],
    sheet: str,
    notes: list[str],
) -> None:
    """A blank takes what another row of the record has, the first that has any; how often is told."""
    cells = columns.get(code)
    if cells is None:
        return
    of_record: dict[str, Cell] = {}
    for record, cell in zip(records, cells, strict=True):
        if cell != "":
            of_record.setdefault(record, cell)
    filled = [cell if cell != "" else of_record.get(record, "") for record, cell in zip(records, cells, strict=True)]
    n = sum(here and one != other for here, one, other in zip(is_here, cells, filled, strict=True))
    if n:
        notes.append(f"{sheet}: {n} rows had no {code} and took that of another row of the record, as the map says.")
    columns[code] = filled


def _find_waves(
    source: SourceMap,
    entry: SheetMap,
    sheet: Sheet,
    context: _Context,
    is_here: Sequence[bool],
    faults: list[str],
    notes: list[str],
) -> list[str | None]:
    """The wave of each row; None where the map passes over its event. A second repeat is "event#2" in the map."""
    if "wave" not in sheet.column_by_code or "wave" in entry.fixed or "wave" in entry.columns:
        return [""] * len(is_here)
    unknown: Counter[str] = Counter()
    passed_over: Counter[str] = Counter()
    waves: list[str | None] = []
    for here, event, repeat in zip(is_here, context.event, context.repeat, strict=True):
        name = event if repeat in ("", "1") else f"{event}#{repeat}"
        wave = source.waves.get(name)
        if here and wave is None:
            unknown[name] += 1
        elif here and not wave:
            passed_over[name] += 1
        waves.append(wave or None)
    if unknown.pop("", 0):
        faults.append(f"sheet {entry.sheet}: its rows have no event. Give their wave under fixed, or as a column.")
    faults += [
        f'{n} rows of {entry.sheet} are of "{name}", which [waves] does not name. Name its wave, or "" to pass over it.'
        for name, n in unknown.items()
    ]
    notes += [
        f'{entry.sheet}: {n} rows of "{name}" were passed over, as [waves] says.' for name, n in passed_over.items()
    ]
    return waves


def _check_sites(context: _Context, kept: Iterable[int], faults: list[str]) -> None:
    unknown = {context.group[row] for row in kept if not context.site[row]}
    faults += [f'the group "{group}" is no site in [sites]. Name its site.' for group in sorted(unknown - {""})]
    if "" in unknown:
        faults.append("some records are in no group, so that nobody knows their site. Put them into one, or name it.")


def _part_by_site(found: SiteSheets, code: str, frame: pd.DataFrame) -> None:
    for site_id, rows in frame.groupby("site_id", sort=True):
        own = rows.drop(columns=["site_id", "line"]).reset_index(drop=True)
        before = found.sheets.setdefault(str(site_id), {}).get(code)
        found.sheets[str(site_id)][code] = own if before is None else pd.concat([before, own], ignore_index=True)
        found.lines.setdefault(str(site_id), {}).setdefault(code, []).extend(map(int, rows["line"]))


def _list_not_taken(source: SourceMap, table: _Table) -> list[str]:
    """Columns that were left alone: those that tell who a person is by what they are called, and all others."""
    left = [name for place, name in enumerate(table.header) if place not in table.used and name]
    left = [name for name in left if not name.endswith(_COMPLETE) and name not in _OF_REDCAP]
    titles = table.export.titles
    telling = {name: words for name in left if (words := find_identifier_words(name, titles.get(name, "")))}
    notes = [f"Refused, and not read: {name} ({words})." for name, words in telling.items()]
    others = [name for name in left if name not in telling]
    if others:
        notes.append(f"Not in the map, and not taken: {', '.join(others)}.")
    return notes
