"""Questionnaires from and to other tools: REDCap's data dictionary (CSV) and XLSForm (a workbook)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import python_calamine

from study.approval_entries import EntryFault
from study.exchange import Draft, NotCarried, Translated, Wording, WordingFaults, derive_wording
from study.instruments import DEFINITION_FILE, EXAMPLES_FILE, Instrument
from study.pack_layout import parse_text
from study.redcap import COLUMNS, DictionaryFault, derive_dictionary, parse_dictionary
from study.xlsform import (
    CHOICE_COLUMNS,
    QUESTION_COLUMNS,
    SETTING_COLUMNS,
    Form,
    FormFault,
    derive_xlsform,
    parse_xlsform,
)
from tasks.identifier_search import decode_text
from tasks.settings import read_settings
from tasks.workbook_inspection import WorkbookUnreadable, bound_sheet, build_package, inspect_package
from tasks.workbooks import Book

_SEPARATOR = re.compile(r"sep=([,;\t])(?:\r\n|\r|\n)", re.IGNORECASE)
_NO_TABLE = "The file is no table: it is empty, or not text. Save or export it as CSV (UTF-8)."
_WORDING_COLUMNS = ("item", "code", "text")
_WIDTHS = {"label": 60, "name": 24, "type": 28, "relevant": 36, "constraint": 36}


@dataclass(frozen=True)
class WrittenDraft:
    """A definition as it was written; `is_new`: False where a folder of that name was there, and was left as it is."""

    draft: Draft
    folder: Path
    is_new: bool


# Coming in ----------------------------------------------------------------------------------------------------------


def read_dictionary(data: bytes, *, is_neutral: bool = False) -> Translated:
    """Definitions from a REDCap data dictionary. Raises EntryFault for a file that is none."""
    lines = read_csv(data)
    try:
        return parse_dictionary(lines[0], lines[1:], is_neutral=is_neutral)
    except DictionaryFault as fault:
        raise EntryFault(str(fault)) from None


def read_csv(data: bytes) -> list[list[str]]:
    """The rows of a CSV file, the header first. Raises EntryFault."""
    return [cells for _, cells in read_csv_lines(data)]


def read_csv_lines(data: bytes) -> list[tuple[int, list[str]]]:
    """The rows of a CSV file with the number of the line (from 1) on which each begins, blank ones left out.

    Cells are parted by commas, semicolons or tabs: by what the header has most of, or by what a first line such as
    "sep=;" says. The text is UTF-8, UTF-16 with a byte order mark, or Windows-1252. Raises EntryFault.
    """
    text = decode_text(data)
    if text is None or not text.strip():
        raise EntryFault(_NO_TABLE)
    text = text.removeprefix("\ufeff")
    declared = _SEPARATOR.match(text)
    body = text[declared.end() :] if declared else text
    header = re.split(r"[\r\n]", body.lstrip(), maxsplit=1)[0]
    reader = csv.reader(
        io.StringIO(body, newline=""), delimiter=declared[1] if declared else max(",;\t", key=header.count), strict=True
    )
    rows: list[tuple[int, list[str]]] = []
    first = 1 + bool(declared)
    start = first
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((start, cells))
            start = first + reader.line_num
    except csv.Error as fault:
        line = first + reader.line_num - 1
        raise EntryFault(f"line {line}: this is no row of a CSV file ({fault}). Mend the quotes.") from None
    if not rows:
        raise EntryFault(_NO_TABLE)
    return rows


def read_xlsform(data: bytes, name: str, *, is_neutral: bool = False) -> Translated:
    """A definition from an XLSForm. `name`: of the file, without its ending. Raises EntryFault if it is none."""
    try:
        sheets = _read_workbook(data)
        rows, choices, settings = (sheets.get(title, []) for title in ("survey", "choices", "settings"))
        return parse_xlsform(rows, choices, settings, name, is_neutral=is_neutral)
    except (WorkbookUnreadable, FormFault) as fault:
        raise EntryFault(str(fault)) from None


def _read_workbook(data: bytes) -> dict[str, list[dict[str, str]]]:
    """Rows by heading of every sheet, cells as text. Raises WorkbookUnreadable."""
    package = inspect_package(data)
    built = build_package(package, [bound_sheet(part.read())[0] for part in package.sheets])
    try:
        workbook = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(built))
        tables = [workbook.get_sheet_by_index(n).to_python(skip_empty_area=False) for n in range(len(package.sheets))]
    except (python_calamine.CalamineError, ValueError, OverflowError, OSError):
        raise WorkbookUnreadable("damaged_workbook") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of the parser's Rust code, which is no Exception
            raise
        raise WorkbookUnreadable("damaged_workbook") from None
    return {part.title.strip().lower(): _name_cells(table) for part, table in zip(package.sheets, tables, strict=True)}


def _name_cells(table: Sequence[Sequence[object]]) -> list[dict[str, str]]:
    header = [parse_text(cell) for cell in table[0]] if table else []
    rows = ([parse_text(cell) for cell in cells] for cells in table[1:])
    return [{name: cell for name, cell in zip(header, cells, strict=False) if name} for cells in rows if any(cells)]


def write_drafts(drafts: Sequence[Draft], folder: Path | None = None) -> list[WrittenDraft]:
    """A folder for each definition, below `folder` or that of the settings. What is there already is left as it is."""
    written = []
    for draft in drafts:
        own = (folder or read_settings().instruments) / draft.id
        is_new = not own.exists()
        if is_new:
            own.mkdir(parents=True)
            (own / DEFINITION_FILE).write_text(draft.definition, encoding="utf-8")
            (own / EXAMPLES_FILE).write_text(draft.worked_examples, encoding="utf-8")
        written.append(WrittenDraft(draft, own, is_new))
    return written


def write_wording(translated: Translated) -> bytes:
    """The wording that definitions were to be without, as `read_wording` reads it."""
    sink = io.StringIO(newline="")
    csv.writer(sink).writerows([_WORDING_COLUMNS, *translated.wording])
    return sink.getvalue().encode()


# Going out ----------------------------------------------------------------------------------------------------------


def read_wording(data: bytes, instruments: Sequence[Instrument]) -> dict[str, Wording]:
    """A study's own wording by instrument: a CSV file with the columns item, code and text. Raises EntryFault."""
    header, *lines = read_csv(data)
    if [name.strip().lower() for name in header] != list(_WORDING_COLUMNS):
        raise EntryFault(f"A wording file has the columns {', '.join(_WORDING_COLUMNS)}, in this order.")
    rows = [dict(zip(_WORDING_COLUMNS, cells, strict=False)) for cells in lines]
    known = [{*one.item_ids, *(group.id for group in one.choice_groups)} for one in instruments]
    own: list[list[dict[str, str]]] = [[] for _ in instruments]
    faults = []
    for number, row in enumerate(rows, start=2):
        places = [place for place, names in enumerate(known) if row["item"].strip() in names]
        if not places:
            faults.append(f"line {number}: no instrument that goes out has this item. Correct it.")
        for place in places:
            own[place].append(row)
    found = {}
    for one, of_instrument in zip(instruments, own, strict=True):
        try:
            found[one.id] = derive_wording(one, of_instrument)
        except WordingFaults as fault:
            faults += fault.faults
    if faults:
        raise EntryFault(*faults)
    return found


def write_dictionary(instruments: Sequence[Instrument], wordings: dict[str, Wording]) -> tuple[bytes, list[NotCarried]]:
    """A REDCap data dictionary of one or more instruments, and what is left out."""
    rows, not_carried = derive_dictionary(instruments, wordings)
    sink = io.StringIO(newline="")
    writer = csv.DictWriter(sink, list(COLUMNS), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue().encode(), not_carried


def write_xlsform(instrument: Instrument, wording: Wording) -> tuple[bytes, list[NotCarried]]:
    """An XLSForm of one instrument, and what is left out. The same instrument gives the same bytes."""
    form, not_carried = derive_xlsform(instrument, wording)
    return _write_form(form, instrument.title), not_carried


def _write_form(form: Form, title: str) -> bytes:
    buffer = io.BytesIO()
    with Book(buffer, title, None) as book:
        for name, columns, rows in (
            ("survey", QUESTION_COLUMNS, form.rows),
            ("choices", CHOICE_COLUMNS, form.choices),
            ("settings", SETTING_COLUMNS, form.settings),
        ):
            sheet = book.add_sheet(name)
            for place, column in enumerate(columns):
                sheet.set_column(place, place, _WIDTHS.get(column, 20))
                sheet.write_string(0, place, column, book.find_format("head"))
                for number, row in enumerate(rows, start=1):
                    if row[column]:
                        sheet.write_string(number, place, row[column], book.find_format("text"))
            sheet.freeze_panes(1, 0)
    return buffer.getvalue()
