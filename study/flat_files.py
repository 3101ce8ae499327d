"""Flat files of a study that is over as the sheets of a return: people, arms, sites, answers by wave, how they left.

An :class:`ImportMap`, a TOML file among the study's sources with `format = "files"`, says which column of which file is
what, in the words of the maps for exports (`study.flat_exports`). What comes out are the rows of the very sheets that a
site's workbook has, so that every check, event and table is the same; which file and row each came from goes along.

Judgement calls:

- A file has one row for each person and wave (long: the sheet's column "wave" is named), or one for each person, with
  the wave in the columns' names (`wide`: "bdi.{wave}", of the waves that [waves] names).
- A row without any answer is no return: nobody was seen. What `blank` names ("NA" of R) is a blank. A code that
  [missing] names is an answer that was not given, and shows that somebody was seen.
- A word that is the label of an arm, a cohort, a reason or a level means that. Else `values` says what it means.
- A code of [missing] that is an answer of an item too stops the import where it is in a column of that item, unless the
  file itself declares it as missing there, as SPSS does.
- A day that no file holds is an assumption: a day under `fixed`, or the day on which the protocol has the wave
  (`nominal_days`). It is taken only where the protocol declares it, in an assumption that is named like the column.
- What can only be one thing need not be said: the one cohort, the one version of the consent form and all that it asks
  for, the one respondent, the one form, the one scope of leaving.
- People are in one arm and at one site. Two rows of one person and wave that differ, and a person in two arms or at two
  sites, stop the import: nothing says which is right. Rows that are alike count once.
- Everything wrong is found at once, by file, row and column, and never with a value of a person's.

Rows are counted as Excel does, the header being row 1; a case of SPSS or Stata counts from 1.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field, ValidationError

from study.calendar import add_period
from study.definition_fields import DAY_WORDS, Day, DefinitionModel
from study.exchange import find_identifier_words
from study.flat_exports import (
    ColumnsMap,
    FoundColumn,
    find_undeclared,
    fold_code,
    is_answer,
    is_import_map,
    parse_item,
)
from study.identifier_scan import find_column_kind
from study.instruments import MISSING_REASONS, DefinitionFaults, Instrument, Item, find_suggestion
from study.pack_layout import ALLOCATION, CONSENT, DISPOSITION, SCREENING, Column, Layout, Sheet, fold_title, parse_date
from study.protocol import ANCHORS, SOURCES_FOLDER, Study

NO_COLUMN = "has no column"
_WAVE = "{wave}"
_NAMED = re.compile(r"\{([^{}]+)\}")
_MOST_ROWS_TOLD = 8
_LOGS = (SCREENING, CONSENT, ALLOCATION, DISPOSITION)
_ONE_EACH = (SCREENING, ALLOCATION)
_WHOLE = re.compile(r"[+-]?\d{1,6}(?:\.0+)?", re.ASCII)

Texts = npt.NDArray[np.object_]


class FileMap(DefinitionModel):
    """One file. `name`: with its ending, or without, so that the same table is taken as CSV, SPSS or Stata.
    `participant_id`: a column, or several in braces with what stands between them ("{centre}-{patient}"). `days`: other
    columns that hold days of the study, and no dates of birth; they are not taken."""

    name: str = Field(description='the name of a file in quotes, such as "visits.csv", or "visits" for any format')
    participant_id: str = Field(description='a column, or several such as "{centre}-{patient}"')
    site: str = Field("", description="the one site of this file")
    site_column: str = Field("", description="the column that says the site")
    days: tuple[str, ...] = Field((), description="a list of columns in quotes")


class FileSheetMap(ColumnsMap):
    """Where one sheet comes from in a file. `wide`: as `columns`, with {wave} where the name of the wave stands.

    `day_column`: the column that counts days from allocation, for the day of the sheet. `nominal_days`: the day is the
    one on which the protocol has the wave.
    """

    file: str = Field("", description="the name of one of [[files]]; left out where there is one")
    wide: dict[str, str] = Field({}, description='a table such as { bdi_score = "bdi.{wave}" }')
    day_column: str = Field("", description="the column that counts days from allocation")
    nominal_days: bool = Field(False, description="true or false, without quotes")


class ImportMap(DefinitionModel):
    """What the columns of a finished study's files are. `posted_on`: the day as of which the files are."""

    format: Literal["files"] = Field(description='"files"')
    posted_on: Day = Field(description=f"the day as of which the files are: {DAY_WORDS}")
    sending_number: int = Field(1, ge=1, description="a whole number from 1")
    sites: dict[str, str] = Field({}, description="a table of the files' words for sites and the sites that they are")
    waves: dict[str, str] = Field({}, description='a table of the files\' words for waves; "" to pass over one')
    missing: dict[str, str] = Field({}, description='a table of codes and reasons, such as "-99" = "not_answered"')
    blank: tuple[str, ...] = Field((), description='a list of words that mean that nothing was there, such as "NA"')
    decimal: Literal[".", ","] = Field(".", description='"." or ",": what parts a number from its decimals')
    files: tuple[FileMap, ...] = Field(min_length=1, description="one [[files]] for each file")
    sheets: tuple[FileSheetMap, ...] = Field(min_length=1, description="one [[sheets]] for each sheet")

    def find_file(self, entry: FileSheetMap) -> FileMap | None:
        """The file of a sheet."""
        if not entry.file:
            return self.files[0] if len(self.files) == 1 else None
        return next((file for file in self.files if file.name == entry.file), None)


@dataclass(frozen=True)
class FlatColumn:
    """The cells of a column: `texts` without repetition, and for each row the place of its own among them. What some
    formats tell: `missing`, texts declared as missing; `labels`, words of its values; `title`, its own words."""

    codes: npt.NDArray[np.int64] = field(repr=False)
    texts: Sequence[str] = field(repr=False)
    missing: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict, repr=False)
    title: str = ""

    def map(self, parse: Callable[[str], object]) -> Texts:
        """One value a row, each distinct text read once."""
        values = np.empty(len(self.texts), dtype=object)
        values[:] = [parse(text) for text in self.texts]
        return values[self.codes]


@dataclass(frozen=True)
class FlatTable:
    """A file as it was read. `rows`: the number of each row there."""

    name: str
    sha256: str
    rows: npt.NDArray[np.int64] = field(repr=False)
    columns: Mapping[str, FlatColumn] = field(repr=False)


ORIGIN = ["site_id", "file", "row"]


@dataclass
class FlatSheets:
    """What the files tell. `sheets`: by sheet code a frame of ORIGIN (`file`: place among the tables, `row`: there) and
    the sheet's own columns: identifiers and codes as text, days as `date` or None, answers as in a return that was
    read. `faults`: everything that stops the import. `notes`: for a person to know."""

    sheets: dict[str, pd.DataFrame] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


# --- The map ----------------------------------------------------------------------------------------------------------


def find_import_map_faults(files: Mapping[str, bytes], study: Study, layout: Layout) -> list[str]:
    """What is wrong with the maps of files among a study's files (path to contents), each with its place."""
    faults = []
    known: dict[tuple[date, int], str] = {}
    for path, data in sorted(files.items()):
        if path.rpartition("/")[0] == SOURCES_FOLDER and is_import_map(data):
            place = f"sites_config/{study.study_id}/{path}"
            try:
                mapped = parse_import_map(data, place, study, layout)
            except DefinitionFaults as error:
                faults += error.faults
                continue
            other = known.setdefault((mapped.posted_on, mapped.sending_number), path)
            if other != path:
                faults.append(
                    f"{place}: {other} has the same posted_on and sending_number, and each would correct the other. "
                    "Give it another sending_number."
                )
    return faults


def parse_import_map(data: bytes, name: str, study: Study, layout: Layout) -> ImportMap:
    """Read a map of one study's files. Raises DefinitionFaults with every fault, each beginning with `name`."""
    try:
        mapped = ImportMap.model_validate(tomllib.loads(data.decode("utf-8-sig")))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as fault:
        raise DefinitionFaults([f"{name}: this is no TOML: {fault}."]) from None
    except ValidationError as error:
        texts = [_explain(found["type"], found["loc"]) for found in error.errors(include_url=False)]
        raise DefinitionFaults([f"{name}: {text}" for text in texts]) from None
    faults = [f"{name}: {text}" for text in _find_map_faults(mapped, study, layout)]
    if faults:
        raise DefinitionFaults(list(dict.fromkeys(faults)))
    return mapped


def _explain(kind: str, loc: tuple[int | str, ...]) -> str:
    model: type[DefinitionModel] = ImportMap
    where, key = " ".join(str(part + 1) if isinstance(part, int) else part for part in loc), str(loc[0])
    if key in ("files", "sheets") and len(loc) > 2:
        model, key = (FileMap if key == "files" else FileSheetMap), str(loc[2])
    if kind == "extra_forbidden":
        return f"{where} is no word of a map.{find_suggestion(key, model.model_fields)}"
    expected = model.model_fields[key].description
    return f"{where} is missing. Add {expected}." if kind == "missing" else f"{where} must be {expected}."


def _find_map_faults(mapped: ImportMap, study: Study, layout: Layout) -> Iterator[str]:
    sites, waves = [site.site_id for site in study.sites], [wave.id for wave in study.waves]
    names = [file.name for file in mapped.files]
    yield from (f'two [[files]] have the name "{name}".' for name in dict.fromkeys(names) if names.count(name) > 1)
    for file in mapped.files:
        if re.search(r"[\\/]|^\.|^$", file.name):
            yield f'files.name "{file.name}": give the name of a file, without a folder.'
        if file.site and file.site_column:
            yield f"{file.name}: say either site, if all is of one site, or site_column."
    if not any(file.site or file.site_column for file in mapped.files):
        yield "no file says where people were: add site (one of the study's) or site_column to one of [[files]]."
    for site in (*(file.site for file in mapped.files if file.site), *mapped.sites.values()):
        if site not in sites:
            yield f'"{site}" is no site of {study.study_id}.{find_suggestion(site, sites)}'
    for wave in mapped.waves.values():
        if wave and study.find_wave(wave) is None and not study.accepts_unscheduled:
            yield f'[waves] names "{wave}", which is no wave of {study.study_id}.{find_suggestion(wave, waves)}'
    for reason in mapped.missing.values():
        if reason not in MISSING_REASONS:
            yield f'[missing] has "{reason}" for a code, which is none of {", ".join(MISSING_REASONS)}.'
    both = sorted({fold_code(code) for code in mapped.missing} & {fold_code(code) for code in mapped.blank})
    yield from (f'"{code}" is under blank and under [missing]. Keep one.' for code in both)
    for entry in mapped.sheets:
        yield from _find_sheet_faults(mapped, entry, study, layout)
    told = [sheet.sheet for sheet in mapped.sheets]
    if SCREENING not in told:
        yield f'no [[sheets]] has sheet = "{SCREENING}": say which file names the people of the study.'
    columns = [name for file in mapped.files for name in list_names(file.participant_id)]
    columns += [name for entry in mapped.sheets for name in entry.columns.values()]
    for column in dict.fromkeys(columns):
        kind, words = find_column_kind(column), find_identifier_words(column)
        if kind not in ("", "perhaps_name") or words in ("an e-mail address", "where somebody is"):
            yield f'the column "{column}" holds {words} by its name. It is not taken.'


def _find_sheet_faults(mapped: ImportMap, entry: FileSheetMap, study: Study, layout: Layout) -> Iterator[str]:
    known = [sheet.code for sheet in layout.sheets if sheet.code in (*_LOGS, *study.instruments)]
    sheet = layout.find_sheet(entry.sheet)
    if sheet is None or entry.sheet not in known:
        yield f'there is no sheet "{entry.sheet}".{find_suggestion(entry.sheet, known)} It may be {", ".join(known)}.'
        return
    if mapped.find_file(entry) is None:
        hint = find_suggestion(entry.file, [file.name for file in mapped.files])
        yield f'sheet {entry.sheet}: "{entry.file}" is none of [[files]].{hint}'
    for column in sorted({*entry.columns, *entry.fixed, *entry.wide, *entry.values} - set(sheet.codes)):
        yield f'sheet {entry.sheet} has no column "{column}".{find_suggestion(column, sheet.codes)}'
    for column in sorted(entry.columns.keys() & entry.fixed.keys() | entry.wide.keys() & entry.fixed.keys()):
        yield f"sheet {entry.sheet}: {column} is in columns or wide, and fixed."
    if entry.sheet in _LOGS and (entry.wide or entry.nominal_days):
        yield f"sheet {entry.sheet}: wide and nominal_days are for questionnaires."
    for column, name in entry.wide.items():
        if _WAVE not in name:
            yield f'sheet {entry.sheet}: wide.{column} = "{name}" lacks {{wave}}, where the name of the wave stands.'
    if entry.wide and not mapped.waves:
        yield f'sheet {entry.sheet}: wide needs [waves], with the files\' names of waves, such as 2m = "month_2".'
    days = [column.code for column in sheet.columns if column.kind == "date"]
    if "wave" in sheet.codes and not (entry.wide or "wave" in entry.columns or "wave" in entry.fixed):
        yield f"sheet {entry.sheet}: say which wave a row is of: columns.wave, fixed.wave or wide."
    given = {*entry.columns, *entry.wide}
    assumed = {entry.id for entry in study.assumptions}
    for column in days:
        ways = (column in given, column in entry.fixed, entry.nominal_days, bool(entry.day_column))
        if column == days[-1] and sum(ways) > 1:
            yield f"sheet {entry.sheet}: {column} comes from more than one place. Keep one."
        needs_day = entry.sheet != SCREENING or column == "screened_on"
        if needs_day and not any(ways[:2]) and not (column == days[-1] and any(ways[2:])):
            yield f"sheet {entry.sheet}: say where {column} comes from: a column, day_column or a fixed day."
        if column in entry.fixed and parse_date(entry.fixed[column]).date is None:
            yield f"sheet {entry.sheet}: fixed.{column} is no day. Write it as 2017-02-13."
        if column not in assumed and (column in entry.fixed or (entry.nominal_days and column == days[-1])):
            yield (
                f"sheet {entry.sheet}: no file holds {column}, so the protocol must declare it. Add [[assumptions]] "
                f'with id = "{column}" and the text that every release is to say.'
            )
    if entry.day_column and not any(other.sheet == ALLOCATION for other in mapped.sheets):
        yield f"sheet {entry.sheet}: day_column counts from allocation, and no [[sheets]] tells of that."


def fold_name(name: str) -> str:
    """A column's name for comparison: each format allows other signs in it."""
    return re.sub(r"[^a-z0-9]", "_", name.strip().casefold())


def list_names(template: str) -> list[str]:
    """The columns that an identifier is made of."""
    return _NAMED.findall(template) or [template]


_DOCUMENT = b'{\n "correction": '


def encode_import_document(document: Mapping[str, object], correction: int) -> bytes:
    """What stands for an import as a sending: its files, map and definitions, by hash. It tells nothing of anybody."""
    text = json.dumps({**document, "correction": correction}, indent=1, sort_keys=True, ensure_ascii=False)
    return f"{text}\n".encode()


def is_import_document(data: bytes) -> bool:
    """Whether a kept file is the document of an import."""
    return data.startswith(_DOCUMENT)


# --- From files to sheets ---------------------------------------------------------------------------------------------


def derive_flat_sheets(
    mapped: ImportMap,
    tables: Sequence[FlatTable],
    study: Study,
    layout: Layout,
    instruments: Mapping[str, Instrument],
) -> FlatSheets:
    """The rows of each sheet, with everything that is wrong. `tables`: one for each of `mapped.files`, in order."""
    found = FlatSheets()
    files = [
        _File(mapped, file, table, n, study, found)
        for n, (file, table) in enumerate(zip(mapped.files, tables, strict=True))
    ]
    homes = _find_homes(files, found)
    for file in files:
        file.find_sites(homes)
    parts: dict[str, list[pd.DataFrame]] = {}
    order = [sheet.code for sheet in layout.sheets]
    anchors = _Anchors(study)
    for entry in sorted(mapped.sheets, key=lambda entry: order.index(entry.sheet)):
        file = next(file for file in files if file.map is mapped.find_file(entry))
        sheet = layout.find_sheet(entry.sheet)
        if sheet is None:
            continue
        reader = _SheetReader(mapped, entry, sheet, file, study, instruments.get(entry.sheet), found, anchors)
        parts.setdefault(entry.sheet, []).append(frame := reader.read())
        anchors.note(entry.sheet, frame)
    for code, frames in parts.items():
        frame = frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
        found.sheets[code] = _drop_repeats(code, frame, tables, found)
    for file in files:
        unread = [name for name in file.table.columns if name not in file.used]
        if unread:
            found.notes.append(f"{file.table.name}: not in the map, and not taken: {', '.join(unread)}.")
    found.faults = list(dict.fromkeys(found.faults))
    return found


def tell_rows(rows: Sequence[int]) -> str:
    """ "row 7", or "rows 3, 9 and 12": the first of many."""
    shown = [str(row) for row in rows[:_MOST_ROWS_TOLD]]
    if len(shown) == 1:
        return f"row {shown[0]}"
    more = f" and {len(rows) - len(shown):,} more" if len(rows) > len(shown) else ""
    return f"rows {', '.join(shown)}{more}"


class _File:
    """One file by its map: whose rows they are, and where those people were."""

    def __init__(
        self, mapped: ImportMap, file: FileMap, table: FlatTable, number: int, study: Study, found: FlatSheets
    ) -> None:
        self.map, self.table, self.number, self.found = file, table, number, found
        self.used: set[str] = set()
        self.blank = {fold_code(code) for code in mapped.blank}
        self.participants = self._make_identifiers()
        missing = self.table.rows[self.participants == ""]
        if len(missing) and all(name in table.columns for name in list_names(file.participant_id)):
            self.tell(missing, file.participant_id, "there is no identifier. Fill it in, or remove the row")
        self.sites = np.full(len(table.rows), file.site, dtype=object)
        column = self.find(file.site_column, "site_column") if file.site_column else None
        if column is not None:
            known = {fold_code(word): site for word, site in mapped.sites.items()}
            known = {fold_code(site.site_id): site.site_id for site in study.sites} | known
            labels = column.labels
            self.sites = column.map(
                lambda text: known.get(fold_code(text)) or known.get(fold_code(labels.get(text, "")), "")
            )
            unknown = (self.sites == "") & (self.participants != "")
            if unknown.any():
                few = sorted({text for text in column.map(str)[unknown] if len(text) <= 20})[:_MOST_ROWS_TOLD]
                words = ", ".join(f'"{text}"' for text in few)
                self.tell(table.rows[unknown], file.site_column, f"this is no site ({words}). Name it in [sites]")

    def tell(self, rows: npt.NDArray[np.int64], column: str, text: str) -> None:
        """A fault of some rows of one column."""
        self.found.faults.append(f'{self.table.name}, {tell_rows(rows.tolist())}, column "{column}": {text}.')

    def find_name(self, name: str) -> str:
        """What the file calls a column, whatever its capitals and signs: Stata has bdi_2m for "bdi.2m"."""
        alike = [key for key in self.table.columns if fold_name(key) == fold_name(name)]
        return name if name in self.table.columns else alike[0] if len(alike) == 1 else ""

    def find(self, name: str, what: str) -> FlatColumn | None:
        """A column of the file by its name; a fault where there is none."""
        columns, own = self.table.columns, self.find_name(name)
        if not own:
            hint = find_suggestion(name, columns) or f" Its columns: {', '.join(list(columns)[:40])}."
            self.found.faults.append(
                f'{self.table.name} {NO_COLUMN} "{name}", which the map names for {what}. Correct the map.{hint}'
            )
            return None
        self.used.add(own)
        return columns[own]

    def is_blank(self, text: str) -> bool:
        return not text or fold_code(text) in self.blank

    def _make_identifiers(self) -> Texts:
        template = self.map.participant_id
        names = list_names(template)
        parts = {name: self.find(name, "participant_id") for name in names}
        n = len(self.table.rows)
        if any(column is None for column in parts.values()):
            return np.full(n, "", dtype=object)
        texts = {
            name: column.map(lambda text: "" if self.is_blank(text) else text)
            for name, column in parts.items()
            if column is not None
        }
        if not _NAMED.search(template):
            return texts[template]
        of_names = [texts[name] for name in names]
        made = np.empty(n, dtype=object)
        made[:] = [
            template.format(**dict(zip(names, row, strict=True))) if all(row) else ""
            for row in zip(*of_names, strict=True)
        ]
        return made

    def find_sites(self, homes: Mapping[str, str]) -> None:
        """Where the people of a file that does not say it were, by the others."""
        if not self.map.site and not self.map.site_column:
            self.sites = np.array([homes.get(name, "") for name in self.participants], dtype=object)
            unknown = (self.sites == "") & (self.participants != "")
            if unknown.any():
                text = "no file says at which site this person was"
                self.tell(self.table.rows[unknown], self.map.participant_id, text)


def _find_homes(files: Sequence[_File], found: FlatSheets) -> dict[str, str]:
    """The site of everybody. A person at two sites is a fault."""
    told = [
        pd.DataFrame({"person": file.participants, "site": file.sites, "file": file.number, "row": file.table.rows})
        for file in files
        if file.map.site or file.map.site_column
    ]
    people = pd.concat(told, ignore_index=True) if told else pd.DataFrame(columns=["person", "site", "file", "row"])
    people = people[(people["person"] != "") & (people["site"] != "")]
    first = people.drop_duplicates(["person", "site"])
    twice = first[first.duplicated("person")]
    by_number = {file.number: file for file in files}
    for number, rows in twice.groupby("file"):
        file = by_number[int(str(number))]
        file.tell(rows["row"].to_numpy(), file.map.site_column or "site", "this person is at another site elsewhere")
    return dict(zip(first["person"], first["site"], strict=True))


class _Anchors:
    """The days from which waves count, by person."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.days: dict[str, dict[str, date]] = {name: {} for name in ANCHORS}
        self.doubted: set[str] = set()  # people whose own days are at fault already

    def note(self, sheet: str, frame: pd.DataFrame) -> None:
        for name, column in (("screened", "screened_on"), ("consented", "consented_on"), ("allocated", "allocated_on")):
            if sheet in _LOGS and column in frame:
                pairs = zip(frame["participant_id"], frame[column], strict=True)
                self.days[name].update((person, day) for person, day in pairs if isinstance(day, date))

    def find_nominal_days(self, people: Texts, waves: Texts) -> Texts:
        """The day on which the protocol has each person's wave; None where it has none, or nobody knows its start."""
        days = np.full(len(people), None, dtype=object)
        for text in set(waves.tolist()):
            is_own = waves == text
            days[is_own] = self._find_days(people[is_own], text)
        return days

    def _find_days(self, people: Texts, wave_id: str) -> Texts:
        wave = self.study.find_wave(wave_id)
        found = np.full(len(people), None, dtype=object)
        if wave is None:
            return found
        if wave.anchor in self.days:
            known = self.days[wave.anchor]
            starts = np.array([known.get(person) for person in people], dtype=object)
        else:
            starts = self._find_days(people, wave.anchor)
        moved = {day: add_period(day, wave.offset) for day in set(starts.tolist()) if day is not None}
        found[:] = [moved.get(day) for day in starts]
        return found


class _SheetReader:
    """Reads one sheet from one file."""

    def __init__(
        self,
        mapped: ImportMap,
        entry: FileSheetMap,
        sheet: Sheet,
        file: _File,
        study: Study,
        instrument: Instrument | None,
        found: FlatSheets,
        anchors: _Anchors,
    ) -> None:
        self.mapped, self.entry, self.sheet, self.file, self.study = mapped, entry, sheet, file, study
        self.instrument, self.found, self.anchors = instrument, found, anchors
        self.missing = {fold_code(code): reason for code, reason in mapped.missing.items()}
        self.days = [column.code for column in sheet.columns if column.kind == "date"]

    def read(self) -> pd.DataFrame:
        if self.entry.wide:
            parts = [self._read_rows(word, wave) for word, wave in self._list_wide_waves()]
            return pd.concat(parts, ignore_index=True) if parts else self._read_rows("", "")
        return self._read_rows()

    def _list_wide_waves(self) -> list[tuple[str, str]]:
        """The waves of which the file has columns, by its own word for each."""
        told: list[tuple[str, str]] = []
        incomplete: list[str] = []
        for word, wave in self.mapped.waves.items():
            names = [name.replace(_WAVE, word) for name in self.entry.wide.values()]
            absent = [name for name in names if not self.file.find_name(name)]
            if len(absent) < len(names) and wave:
                told.append((word, wave))
                incomplete += absent
        self.found.faults += [
            f'{self.file.table.name} {NO_COLUMN} "{name}", though others of that wave are there. Correct the map.'
            for name in incomplete
        ]
        if not told:
            wanted = ", ".join(self.entry.wide.values())
            self.found.faults.append(
                f"{self.file.table.name} {NO_COLUMN} {wanted} of any wave that [waves] names. Correct the map."
            )
        return [] if incomplete else told

    def _read_rows(self, word: str = "", wave: str = "") -> pd.DataFrame:
        table = self.file.table
        n = len(table.rows)
        cells: dict[str, Texts] = {"participant_id": self.file.participants}
        if wave:
            cells["wave"] = np.full(n, wave, dtype=object)
        unsound = np.zeros(n, dtype=bool)
        for column in self.sheet.columns:
            if column.code in cells:
                continue
            if column.code in self.entry.fixed:
                fixed = self.entry.fixed[column.code]
                value = parse_date(fixed).date if column.kind == "date" else self._read_fixed(column, fixed)
                cells[column.code] = np.full(n, value, dtype=object)
                continue
            name = self._find_name(column, word)
            there = self.file.find(name, f"{self.sheet.code}.{column.code}") if name else None
            if there is not None:
                cells[column.code] = self._read_column(column, name, there, unsound)
            elif not name and (default := self._find_default(column)):
                cells[column.code] = np.full(n, default, dtype=object)
        self._check_items(cells)
        keep = self._find_telling(cells, n) & (self.file.participants != "") & (self.file.sites != "") & ~unsound
        if "wave" in cells:
            keep &= ~pd.isna(cells["wave"])  # None: a wave that the map passes over
        if self.sheet.code in _LOGS:
            self.anchors.doubted.update(self.file.participants[unsound])
        frame = pd.DataFrame(
            {
                "site_id": self.file.sites[keep],
                "file": np.full(int(keep.sum()), self.file.number),
                "row": table.rows[keep],
                **{c.code: cells[c.code][keep] for c in self.sheet.columns if c.code in cells},
            }
        )
        return self._date(frame, keep)

    def _find_name(self, column: Column, word: str) -> str:
        """The file's name for a column of the sheet; items are found by their own names."""
        entry = self.entry
        if column.code in entry.wide and word:
            return entry.wide[column.code].replace(_WAVE, word)
        if column.code in entry.columns:
            return entry.columns[column.code]
        is_item = column.kind == "item" and not entry.wide
        return column.code if is_item and column.code in self.file.table.columns else ""

    def _find_default(self, column: Column) -> str:
        """What can only be one thing."""
        study = self.study
        only: dict[str, Sequence[str]] = {
            "cohort": [cohort.id for cohort in study.cohorts],
            "consent_form_version": [form.version for form in study.consent_forms],
            "consent_scopes": ["; ".join(form.scopes) for form in study.consent_forms],
            "respondent": [name for name in self._list_of_instrument("respondents") if name in study.respondents],
            "form": [name for name in self._list_of_instrument("forms") if name in study.forms],
            "scope": list({scope for reason in study.disposition_reasons for scope in reason.scopes}),
        }
        known = only.get(column.code, ())
        return known[0] if len(known) == 1 else ""

    def _list_of_instrument(self, name: str) -> Sequence[str]:
        return getattr(self.instrument, name) if self.instrument else ()

    def _read_fixed(self, column: Column, text: str) -> object:
        return float(text) if column.kind == "item" and _WHOLE.fullmatch(text) else text

    def _read_column(self, column: Column, name: str, there: FlatColumn, unsound: npt.NDArray[np.bool_]) -> Texts:
        words = {word.casefold(): text for word, text in self.entry.values.get(column.code, {}).items()}
        declared = frozenset(text for text in there.missing if not self.file.is_blank(text))
        item = self.instrument.find_item(column.code) if self.instrument else None
        levels = _find_levels(item)
        told = {
            text: "" if self.file.is_blank(text) else self._find_word(text, there, words, levels)
            for text in there.texts
        }
        if item is not None:
            as_found = FoundColumn(name, [], declared, there.labels)
            undeclared = find_undeclared(self.entry, item, as_found, told, self.missing)
            self.found.faults += [f"{self.file.table.name}: {text}" for text in undeclared]
            doubted = [text for text in there.texts if fold_code(text) in self.missing and text not in declared]
            self.found.faults += [
                f'{self.file.table.name}, column "{name}": "{text}" is an answer of {self.sheet.code}.{item.id}, and '
                f"is under [missing]. Say under values.{item.id} which of the two it is here."
                for text in doubted
                if told[text] == text and is_answer(text, column)
            ]
            decimal = self.mapped.decimal
            return there.map(lambda text: parse_item(told[text], item, column, as_found, self.missing, decimal))
        told |= dict.fromkeys(declared, "")
        if column.kind == "date":
            return self._read_days(name, there, told, unsound)
        find = self._find_parser(column.code)
        values = there.map(lambda text: find(told[text]))
        if column.code == "wave":
            self._tell_unknown(name, there, values == "", unsound, "this is no wave of the study. Name it in [waves]")
        elif column.code in ("arm", "cohort", "reason"):
            unknown = values == "?"
            text = f"this is no {column.code} of the study. Say what it is under values.{column.code}"
            self._tell_unknown(name, there, unknown, unsound, text)
        return values

    def _find_word(self, text: str, there: FlatColumn, words: Mapping[str, str], levels: Mapping[str, str]) -> str:
        """What the map says that a cell, or the file's own label of it, stands for; else the level of that label: in
        one file 1 is yes, in another 2."""
        label = there.labels.get(text, "")
        for word in filter(None, (text, label)):
            if (meaning := words.get(word.casefold())) is not None:
                return meaning
        for word in filter(None, (label, text)):
            if (level := levels.get(fold_title(word))) is not None:
                return level
        return label if label and not levels else text

    def _find_parser(self, code: str) -> Callable[[str], object]:
        study = self.study
        if code == "wave":
            waves = {fold_code(word): wave for word, wave in self.mapped.waves.items()}

            def find_wave(text: str) -> object:
                wave = waves.get(fold_code(text))
                known = study.find_wave(text)
                return known.id if wave is None and known else None if wave == "" else wave or ""

            return find_wave
        if code == "consent_form_version":
            versions = [form.version for form in study.consent_forms]
            return lambda text: text if text in versions or f"{text}.0" not in versions else f"{text}.0"
        find_known: Callable[[str], Any] | None = {
            "arm": study.find_arm, "cohort": study.find_cohort, "reason": study.find_disposition_reason,
        }.get(code)  # fmt: skip
        if find_known is None:
            return lambda text: text
        return lambda text: "" if not text else known.id if (known := find_known(text)) else "?"

    def _tell_unknown(
        self, name: str, there: FlatColumn, unknown: npt.NDArray[np.bool_], unsound: npt.NDArray[np.bool_], text: str
    ) -> None:
        is_fault = unknown & (self.file.participants != "")
        if is_fault.any():
            told = sorted({there.texts[code] for code in set(there.codes[is_fault].tolist())})
            words = ", ".join(f'"{word}"' for word in told[:_MOST_ROWS_TOLD] if len(word) <= 40)
            self.file.tell(self.file.table.rows[is_fault], name, f"{text}{f' ({words})' if words else ''}")
            unsound |= is_fault

    def _read_days(
        self, name: str, there: FlatColumn, told: Mapping[str, str], unsound: npt.NDArray[np.bool_]
    ) -> Texts:
        days = {text: parse_date(re.sub(r"(?<=\d)[T ]\d\d:\d\d.*$", "", told[text])).date for text in there.texts}
        wrong = there.map(lambda text: bool(told[text]) and days[text] is None).astype(bool)
        if wrong.any():
            text = "this is no day. Write days as 2017-02-13, or with the day first"
            self.file.tell(self.file.table.rows[wrong], name, text)
            unsound |= wrong
        return there.map(lambda text: days[text])

    def _check_items(self, cells: Mapping[str, Texts]) -> None:
        if self.instrument is None:
            return
        absent = [item.id for item in self.instrument.items if item.id not in cells]
        unnamed = [name for name in absent if self.entry.columns.get(name) != ""]
        if unnamed:
            self.found.faults.append(
                f"{self.file.table.name}: no columns for these items of {self.sheet.code}: {', '.join(unnamed)}. Name "
                'them under columns or wide, or write = "" under columns for one that was never asked.'
            )

    def _find_telling(self, cells: Mapping[str, Texts], n: int) -> npt.NDArray[np.bool_]:
        """Which rows tell anything: an answer or a reason for none, a reason for leaving, an arm, a person."""
        if self.instrument is not None:
            names = [item.id for item in self.instrument.items if item.id in cells and item.id not in self.entry.fixed]
        else:
            names = {ALLOCATION: ["arm"], DISPOSITION: ["reason"], CONSENT: ["consented_on"]}.get(self.sheet.code, [])
            if not names:
                return np.ones(n, dtype=bool)
        telling = np.zeros(n, dtype=bool)
        for name in names:
            if name in cells:
                telling |= ~(pd.isna(cells[name]) | (cells[name] == ""))
        return telling

    def _date(self, frame: pd.DataFrame, keep: npt.NDArray[np.bool_]) -> pd.DataFrame:
        """The sheet's day where it is counted from allocation or taken from the protocol."""
        if not self.days:
            return frame
        people = frame["participant_id"].to_numpy(dtype=object)
        if self.entry.nominal_days and "wave" in frame:
            days = self.anchors.find_nominal_days(people, frame["wave"].to_numpy(dtype=object))
        elif self.entry.day_column:
            column = self.file.find(self.entry.day_column, f"{self.sheet.code}.{self.days[-1]}")
            if column is None:
                return frame
            counts = column.map(lambda text: int(float(text)) if _WHOLE.fullmatch(text) else None)[keep]
            starts = [self.anchors.days["allocated"].get(person) for person in people]
            days = np.array(
                [s + timedelta(days=n) if s and n is not None else None for s, n in zip(starts, counts, strict=True)],
                dtype=object,
            )
        else:
            return frame
        doubted = self.anchors.doubted
        pairs = zip(people, days, strict=True)
        unknown = np.array([day is None and person not in doubted for person, day in pairs], dtype=bool)
        if unknown.any():
            name = self.entry.day_column or self.file.map.participant_id
            text = (
                "no day can be counted here: there is no number of days, or the day from which it counts is not known"
            )
            self.file.tell(frame["row"].to_numpy()[unknown], name, text)
        return frame.assign(**{self.days[-1]: days})


def _drop_repeats(code: str, frame: pd.DataFrame, tables: Sequence[FlatTable], found: FlatSheets) -> pd.DataFrame:
    """The frame with rows that tell the same once; such as differ are faults."""
    names = [name for name in frame.columns if name not in ORIGIN]
    if code in _LOGS:
        frame = frame.drop_duplicates([*names, "site_id"], ignore_index=True)
        key = ["participant_id"] if code in _ONE_EACH else ["participant_id", "scope"] if "scope" in frame else names
        words = {ALLOCATION: "this person is in another arm, or on another day, elsewhere"}
        text = words.get(code, "this person is told of otherwise elsewhere")
    else:
        key = [name for name in ("participant_id", "respondent", "wave") if name in frame]
        n = len(frame)
        repeated = frame.duplicated(key)
        if repeated.any():
            frame = frame.drop_duplicates([*names, "site_id"], ignore_index=True)
        if len(frame) < n:
            found.notes.append(f"{code}: {n - len(frame):,} rows repeat another one, and count once.")
        text = "this person has two rows of this wave, which differ. Keep the right one"
    for number, rows in frame[frame.duplicated(key, keep=False)].groupby("file"):
        table = tables[int(str(number))]
        found.faults.append(f"{table.name}, {tell_rows(rows['row'].tolist())}, sheet {code}: {text}.")
    return frame


def _find_levels(item: Item | None) -> dict[str, str]:
    """The code of each label of an item; nothing where two codes share one."""
    levels = {fold_title(label): str(code) for code, label in item.levels.items()} if item else {}
    return levels if item and len(levels) == len(item.levels) else {}


# --- A map to begin with ----------------------------------------------------------------------------------------------


def propose_map(tables: Sequence[FlatTable], study: Study, layout: Layout) -> str:
    """The text of a map that names what can be guessed, and lists the columns of each file."""
    lines = ['format = "files"', f"posted_on = {study.data_collection_ends_on}   # the day as of which the files are"]
    hints = {
        "participant_id": ("participant.*", "subj.*", "pat.*", "person.*", "p?id", "rownames"),
        "site": ("site.*", "cent(re|er)", "clinic"),
        "arm": ("arm", "treat.*", "trt.*", "group", "allocation"),
        "wave": ("wave", "visit", "month", "week", "time.*"),
    }

    def guess(table: FlatTable, what: str) -> str:
        names = (name for hint in hints[what] for name in table.columns if re.fullmatch(hint, name.casefold()))
        return next(names, "")

    waves: list[str] = []
    for table in tables:
        stem = table.name.rpartition(".")[0] or table.name
        lines += ["", "[[files]]", f'name = "{stem}"', f'participant_id = "{guess(table, "participant_id")}"']
        site = guess(table, "site")
        lines += [f'site_column = "{site}"' if site else f'site = "{study.sites[0].site_id}"']
        lines += [f"# {name}: {_describe(column)}" for name, column in table.columns.items()]
        if wave := guess(table, "wave"):
            waves += [text for text in table.columns[wave].texts if text]
    lines += ["", "[waves]", *(f'"{word}" = ""' for word in dict.fromkeys(waves[:40]))]
    lines += ["", "[[sheets]]", f'sheet = "{SCREENING}"', 'columns = { screened_on = "" }']
    arms = [(table, name) for table in tables if (name := guess(table, "arm"))]
    for table, name in arms[:1]:
        lines += ["", "[[sheets]]", f'sheet = "{ALLOCATION}"', f'columns = {{ arm = "{name}", allocated_on = "" }}']
        own = _list_words(table.columns[name])[:10]
        words = ", ".join(f'"{word}" = "{_guess_arm(word, study)}"' for word in own)
        lines += [f"values.arm = {{ {words} }}"]
    for instrument in study.instruments:
        sheet = layout.find_sheet(instrument)
        items = [column.code for column in sheet.columns if column.kind == "item"] if sheet else []
        lines += ["", "[[sheets]]", f'sheet = "{instrument}"', f"# its items: {', '.join(items)}"]
        lines += ['columns = { wave = "", collected_on = "" }']
    return "\n".join(lines) + "\n"


def _describe(column: FlatColumn) -> str:
    """What a column holds, as far as that tells nothing of a person: its label, and its words where they are few."""
    texts = _list_words(column)
    few = ", ".join(texts) if len(texts) <= 6 and all(len(text) <= 20 for text in texts) else f"{len(texts)} values"
    return f"{column.title} ({few})" if column.title else few


def _list_words(column: FlatColumn) -> list[str]:
    """The distinct texts of a column, in the file's own words where it has any."""
    return sorted(column.labels.get(text, text) for text in column.texts if text)


def _guess_arm(text: str, study: Study) -> str:
    arm = study.find_arm(text)
    return arm.id if arm else ""
