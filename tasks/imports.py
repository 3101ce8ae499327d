"""Import a table that somebody kept elsewhere: a CSV file and a map that says which column is what.

The map is TOML. `[columns]` names the file's column for each field, `[fixed]` what holds for every row, and
`[values.FIELD]` what the file's own words stand for ("" for a word that means a blank). Days are read with the day
first, whatever the file's program was set to.
"""

from __future__ import annotations

import csv
import io
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field

from study.approval_entries import EntryFault, find_item
from study.approval_tracker import DAYS, FIELD_BY_CODE, FIELDS, Fault, FilledRow
from study.instruments import find_suggestion
from study.pack_layout import fold_title, parse_text
from study.protocol import Study
from tasks.workbook_inspection import MEGABYTE

MAX_CSV_BYTES = 20 * MEGABYTE
_PLACES = ("approval", "site", "body", "person", "modification")
_NUMBERS = ("attempt", "request", "renewal")
_KNOWN = (*_PLACES, *_NUMBERS, *FIELD_BY_CODE)
_SECTIONS = ("columns", "fixed", "values", "delimiter")
_DELIMITERS = (",", ";", "\t", "|")
_NUMERIC = re.compile(r"(\d{1,2})[/.-](\d{1,2})[/.-]\d{4}", re.ASCII)
_HINTS = {
    "approval": ("approval", "approval type", "type", "permission"),
    "site": ("site", "area", "locality"),
    "body": ("body", "organisation", "organization", "trust", "council", "authority"),
    "person": ("person", "researcher", "person code"),
    "modification": ("modification", "amendment"),
    "submitted_on": ("submitted", "date submitted", "sent", "date sent", "application date"),
    "valid_on": ("valid", "date valid", "validated", "valid from"),
    "requested_on": ("information requested", "query received", "further information requested"),
    "answered_on": ("answered", "response sent", "query answered"),
    "decision": ("decision", "outcome", "result", "status"),
    "decided_on": ("date granted", "granted", "approved", "date approved", "approval date", "decision date"),
    "expires_on": ("expires", "expiry", "expiry date", "valid until", "end date"),
    "letter": ("letter", "reference", "ref", "letter ref"),
}


@dataclass(frozen=True)
class ColumnMap:
    """Which column is what. `columns`: field to the file's column; `values`: field to the file's words, folded."""

    columns: Mapping[str, str]
    fixed: Mapping[str, str]
    values: Mapping[str, Mapping[str, str]]
    delimiter: str = ""


@dataclass
class TableReading:
    """A table as it was read: its rows, every fault, and what a person should know. `header`: as it stands."""

    header: list[str] = field(default_factory=list)
    rows: list[FilledRow] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def parse_map(data: bytes, name: str) -> ColumnMap:
    """Read a map. Raises EntryFault with every fault found."""
    try:
        raw = tomllib.loads(data.decode("utf-8-sig"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as fault:
        raise EntryFault(f"{name}: this is no TOML: {fault}. A map can be begun with --propose.") from None
    faults = [
        f'{name}: "{section}" is no part of a map. Use [columns], [fixed], [values.FIELD] and delimiter.'
        for section in raw
        if section not in _SECTIONS
    ]
    tables: dict[str, dict[str, object]] = {}
    for section in ("columns", "fixed", "values"):
        table = raw.get(section, {})
        tables[section] = table if isinstance(table, dict) else {}
        if not isinstance(table, dict):
            faults.append(f"{name}: write [{section}] and below it one line for each field.")
        for code, value in tables[section].items():
            if code not in _KNOWN:
                hint = find_suggestion(code, _KNOWN) or f" Fields: {', '.join(_KNOWN)}."
                faults.append(f'{name}: [{section}] names "{code}", which is no field. Correct it.{hint}')
            is_text = isinstance(value, str)
            is_map = isinstance(value, dict) and all(isinstance(word, str) for word in value.values())
            if not (is_map if section == "values" else is_text):
                faults.append(f"{name}: {section}.{code} must be {'words in quotes' if is_map else 'text in quotes'}.")
    delimiter = raw.get("delimiter", "")
    if delimiter not in ("", *_DELIMITERS):
        faults.append(f'{name}: delimiter must be one of "," ";" "|" or "\\t" (a tab).')
    columns, fixed = tables["columns"], tables["fixed"]
    faults += [f'{name}: "{code}" is in [columns] and in [fixed]. Keep one.' for code in columns if code in fixed]
    if "approval" not in columns and "approval" not in fixed:
        faults.append(f"{name}: say which approval a row is about: approval under [columns], or under [fixed].")
    if not any(code in FIELD_BY_CODE for code in columns):
        faults.append(
            f"{name}: [columns] names no step, such as submitted_on or decided_on. Add those that the file has."
        )
    if faults:
        raise EntryFault(*faults)
    values = {
        code: {fold_title(str(word)): str(meaning) for word, meaning in words.items()}
        for code, words in tables["values"].items()
        if isinstance(words, dict)
    }
    texts = [{code: str(value) for code, value in table.items()} for table in (columns, fixed)]
    return ColumnMap(texts[0], texts[1], values, str(delimiter))


def decode_table(data: bytes) -> tuple[str, list[str]]:
    """The text of a CSV file, and a note where its encoding had to be taken for granted. Raises EntryFault."""
    if len(data) > MAX_CSV_BYTES:
        raise EntryFault(f"The file is larger than {MAX_CSV_BYTES // MEGABYTE} MB. Import it in parts.")
    if not data.strip():
        raise EntryFault("The file is empty.")
    if b"\x00" in data:
        raise EntryFault("The file is no CSV file. Save the table as CSV (UTF-8) and import that.")
    try:
        return data.decode("utf-8-sig"), []
    except UnicodeDecodeError:
        pass
    try:
        note = (
            "The file is not UTF-8, so it was read as Windows-1252 (as Excel saves it). Look at letters with accents."
        )
        return data.decode("cp1252"), [note]
    except UnicodeDecodeError:
        raise EntryFault("The file is neither UTF-8 nor Windows-1252. Save it as CSV (UTF-8).") from None


def _find_lines(text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """(number of the line on which a row ends, its cells), the header first. Raises EntryFault."""
    first = text.split("\n", 1)[0]
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter or max(_DELIMITERS, key=first.count), strict=True
    )
    lines = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                lines.append((reader.line_num, [parse_text(cell) for cell in cells]))
    except csv.Error as fault:
        raise EntryFault(f"line {reader.line_num}: this is no row of a CSV file ({fault}). Mend the quotes.") from None
    if not lines:
        raise EntryFault("The file is empty.")
    return lines


def read_table(data: bytes, study: Study, mapped: ColumnMap) -> TableReading:
    """Read a CSV file by a map: one row per approval, place and attempt, as the tracker has them.

    A fault of a row is told with its line and column and leaves out that row. Raises EntryFault where nothing can be
    read: an unreadable file, or a column of the map that the file does not have.
    """
    text, notes = decode_table(data)
    (_, header), *lines = _find_lines(text, mapped.delimiter)
    reading = TableReading(header, notes=notes)
    folded = [fold_title(name) for name in header]
    faults = []
    places: dict[str, int] = {}
    for code, name in mapped.columns.items():
        n = folded.count(fold_title(name))
        if n == 1:
            places[code] = folded.index(fold_title(name))
        elif n:
            faults.append(f'the file has the column "{name}" {n} times. Give each its own name.')
        else:
            hint = find_suggestion(name, header) or f" Columns: {', '.join(header)}."
            faults.append(f'the file has no column "{name}", which the map names for {code}. Correct the map.{hint}')
    if faults:
        raise EntryFault(*faults)
    unread = [name for place, name in enumerate(header) if name and place not in places.values()]
    if unread:
        reading.notes.append(f"Columns that the map does not name were not read: {', '.join(unread)}.")
    for number, cells in lines:
        _read_line(reading, study, mapped, places, number, cells)
    _refuse_month_first(reading)
    return reading


def _refuse_month_first(reading: TableReading) -> None:
    """Refuse 02/03/2017 in a column that has 02/13/2017 elsewhere: whoever wrote that column put the month first."""
    doubted: dict[str, FilledRow] = {}
    for row in reading.rows:
        for code in DAYS:
            match = _NUMERIC.fullmatch(str(row.cells.get(code, "")))
            if match and int(match[1]) <= 12 < int(match[2]):
                doubted.setdefault(code, row)
    kept = []
    for row in reading.rows:
        texts = [
            f"{row.find_place(code)}: the month may be first here, as it is in {doubted[code].place} of this column. "
            "Write the days of the column as 2017-02-13."
            for code in doubted
            if row is not doubted[code] and _NUMERIC.fullmatch(str(row.cells.get(code, "")))
        ]
        reading.faults += [Fault(row.row, text) for text in texts]
        if not texts:
            kept.append(row)
    reading.rows = kept


def _read_line(
    reading: TableReading, study: Study, mapped: ColumnMap, places: Mapping[str, int], number: int, cells: list[str]
) -> None:
    place = f"line {number}"
    if any(cells[len(reading.header) :]):
        text = f"{place}: it has more cells than the header has columns. Put quotes around cells that hold a delimiter."
        reading.faults.append(Fault(number, text))
        return

    def find(code: str) -> str:
        if code in mapped.fixed:
            return mapped.fixed[code]
        where = places.get(code, len(cells))
        word = cells[where] if where < len(cells) else ""
        return mapped.values.get(code, {}).get(fold_title(word), word)

    names = {code: f'{place}, column "{mapped.columns[code]}"' for code in mapped.columns}
    faults = []
    numbers = {}
    for code in _NUMBERS:
        word = find(code) or "1"
        if word.isascii() and word.isdigit() and 0 < int(word[:6]) < 1000:
            numbers[code] = int(word[:6])
        else:
            faults.append(f'{names.get(code, place)}: "{word[:20]}" is no number from 1 to 999. Correct it.')
    try:
        item = find_item(study, *(find(code) for code in _PLACES))
    except EntryFault as fault:
        faults += [f"{place}: {text}" for text in fault.faults]
    if faults:
        reading.faults += [Fault(number, text) for text in faults]
        return
    filled = {code: find(code) for code in FIELD_BY_CODE if code in places or code in mapped.fixed}
    counted = (numbers["attempt"], numbers["request"], numbers["renewal"])
    reading.rows.append(FilledRow(number, place, item, *counted, cells=filled, places=names))


def propose_map(data: bytes, study: Study) -> str:
    """A map to begin with: the columns of a file's header that are recognised by name, the rest as comments."""
    text, _ = decode_table(data)
    header = _find_lines(text, "")[0][1]
    hints = {code: list(words) for code, words in _HINTS.items()}
    for entry in FIELDS:
        hints.setdefault(entry.code, []).extend([entry.label, entry.code])
    known = {fold_title(word): code for code, words in hints.items() for word in words}
    found: dict[str, str] = {}
    for name in header:
        code = known.get(fold_title(name))
        if code and code not in found:
            found[code] = name
    lines = ["# Which column is what. Correct it, then import the file with --map.", "", "[columns]"]
    lines += [f"{code} = {_quote(name)}" for code, name in found.items()]
    unknown = [name for name in header if name and name not in found.values()]
    lines += [f"# ? = {_quote(name)}" for name in unknown]
    lines += ["", f"# Fields: {', '.join(_KNOWN)}"]
    if "approval" not in found:
        ids = ", ".join(approval.id for approval in study.pathway.approvals)
        lines += ["", "[fixed]", 'approval = ""', f"# one of: {ids}"]
    lines += ["", '# What the file\'s own words stand for; "" for a word that means a blank.', "# [values.decision]"]
    lines += ['# "Approved" = "granted"', "# [values.submitted_on]", '# "n/a" = ""', ""]
    return "\n".join(lines)


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
