"""Workbooks that sites fill in and get back: written with xlsxwriter, read with calamine.

Writing is a function of its arguments: the same input gives the same bytes. Reading trusts nothing: a file is
inspected as bytes, as a zip and as XML before a parser sees it, and the parser is given a package built anew from the
inspected parts. Nothing here repeats what a respondent answered.
"""

from __future__ import annotations

import datetime as dt
import functools
import io
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import python_calamine
import xlsxwriter  # type: ignore[import-untyped]  # it ships no types

from study.marked_rows import WITHHELD, MarkedSheet
from study.pack_layout import (
    ABOUT,
    ABOUT_FIELDS,
    ABOUT_TITLE,
    CODE_ROW,
    EARLIEST_DAY,
    FIRST_DATA_ROW,
    LABEL_ROW,
    LARGEST_COUNT,
    LATEST_DAY,
    LINES_TITLE,
    LISTS_TITLE,
    TITLES_PASSED_OVER,
    AboutField,
    Column,
    Kind,
    Layout,
    Problem,
    Reading,
    ReadSheet,
    Severity,
    Sheet,
    fold_title,
    parse_answer,
    parse_count,
    parse_date,
    parse_month,
    parse_text,
)
from tasks.workbook_inspection import (
    MAX_COLUMN,
    MAX_FILE_BYTES,
    MAX_ROW,
    Area,
    Package,
    SheetPart,
    WorkbookUnreadable,
    bound_sheet,
    build_package,
    cut_head,
    find_errors,
    find_formulas,
    find_letters,
    inspect_package,
)

__all__ = [
    "Book",
    "ReceiptRow",
    "ReceiptSummary",
    "WorkbookUnreadable",
    "find_row_height",
    "read_return_workbook",
    "read_sheets",
    "set_up_print",
    "write_about",
    "write_blank_return",
    "write_facts",
    "write_lines",
    "write_receipt_workbook",
    "write_records",
    "write_return_workbook",
]

# --- Writing ----------------------------------------------------------------------------------------------------------

_FIXED_CREATION = dt.datetime.fromisoformat("2000-01-01")
_DATE_FORMAT = "dd mmm yyyy"
_ROWS_READY = 1000  # rows that have drop-downs and date checks
_ROWS_PRINTED_BLANK = 25
_CHARACTERS_PER_PAGE = 165  # what fits across A4 landscape and can still be read
_ITEMS_UPRIGHT = 8  # above this many items, their labels are turned
_FONT = "Calibri"
_LINE = 15  # points
_ABOUT_WIDTHS = (24, 24, 30, 62)
_README_WIDTHS = (30, 22, 78)
_EXCEL_TEXT_LIMIT = 255  # for the list, the message and the formula of a data validation

_HOW_TO_FILL = (
    "Each sheet has its own record in each row. Start in the first empty row, and leave no row for later.",
    "Type identifiers as the study issued them. No names, dates of birth, addresses or telephone numbers, please: "
    "a workbook that holds any cannot be kept.",
    "Pick codes from the drop-down lists. If a question was left blank or could not be asked, type the code that says "
    "why (below); an empty cell is read as not answered.",
    "Type dates as day, month, year: 28/03/2014 or 28 Mar 2014.",
    "Type values, not formulas. Please don't merge cells, and leave the grey row of codes as it is.",
    "Sheets that have nothing to report may stay empty.",
)


def write_return_workbook(
    layout: Layout,
    about: Mapping[str, object],
    sheets: Mapping[str, pd.DataFrame],
    *,
    print_blank_rows: int = 0,
    export_lines: Mapping[str, Sequence[int]] | None = None,
) -> bytes:
    """A return workbook: "About", then the sheets given, in the layout's order.

    ``about`` maps codes of `ABOUT_FIELDS` to values; study, layout_version and correction are filled in when left out.
    Each frame has columns named by the layout's codes (those left out stay blank; the column ``row`` is ignored), one
    record per row; dates as date, Timestamp or datetime64, blanks as None, NaN, NaT or "". ``print_blank_rows`` rules
    that many empty rows for filling in by hand. ``export_lines``: by sheet, the line of an export that each row came
    from, for a sheet that says so row by row. Raises ValueError for a sheet or column that the layout doesn't have.
    """
    unknown = set(sheets) - set(layout.sheet_by_code)
    if unknown:
        raise ValueError(f"sheets {sorted(unknown)} are not in the layout; it has {sorted(layout.sheet_by_code)}.")
    about = {"study": layout.study_id, "layout_version": layout.version, "correction": 0} | dict(about)
    wanted = [sheet for sheet in layout.list_sheets(str(about.get("site"))) if sheet.code in sheets]
    buffer = io.BytesIO()
    header = f"{layout.study_id}  ·  {about.get('site') or ''}"
    with Book(buffer, f"{layout.study_title}: return", parse_date(about.get("posted_on")).date) as book:
        write_about(book, layout, about, wanted, header).activate()
        for sheet in wanted:
            write_records(book, sheet, sheets[sheet.code], header, print_blank_rows)
        if export_lines:
            _write_export_lines(book, wanted, export_lines)
        book.write_lists()
    return buffer.getvalue()


def _write_export_lines(book: Book, sheets: Sequence[Sheet], lines: Mapping[str, Sequence[int]]) -> None:
    """A column for each sheet, under its code; the line of the export stands in the row whose line it is."""
    page = book.add_sheet(LINES_TITLE)
    for column, sheet in enumerate(sheets):
        page.set_column(column, column, 16)
        page.write_string(LABEL_ROW - 1, column, sheet.title, book.find_format("head"))
        page.write_string(CODE_ROW - 1, column, sheet.code, book.find_format("code"))
        page.write_column(FIRST_DATA_ROW - 1, column, lines.get(sheet.code, ()), book.find_format("fixed_number"))


def write_blank_return(
    layout: Layout,
    site_id: str,
    *,
    posted_on: dt.date | None = None,
    sending_number: int | None = None,
) -> bytes:
    """The workbook that a site fills in: every sheet of the layout to be filled in, empty, ruled for printing.

    The site fills in the posting date and the number of the sending unless they are given.
    """
    about = {"site": site_id, "posted_on": posted_on, "sending_number": sending_number}
    frames = {
        sheet.code: pd.DataFrame(columns=list(sheet.codes)) for sheet in layout.sheets if not sheet.is_for_reading
    }
    return write_return_workbook(layout, about, frames, print_blank_rows=_ROWS_PRINTED_BLANK)


@functools.cache
def _format_properties() -> dict[str, dict[str, Any]]:
    """Everything that must be seen is said by words, borders or weight; colour only adds to it."""
    cell = {"font_name": _FONT, "font_size": 11, "valign": "vcenter"}
    ruled = cell | {"border": 1, "border_color": "#BFBFBF"}
    inset = ruled | {"indent": 1}
    head = ruled | {"bold": True, "text_wrap": True, "bg_color": "#E4ECF4", "border_color": "#7F7F7F"}
    given = inset | {"bold": True, "bg_color": "#EDEDED"}
    code = ruled | {"font_size": 8, "font_color": "#6B6B6B", "italic": True, "bottom": 2, "bottom_color": "#7F7F7F"}
    return {
        "title": cell | {"bold": True, "font_size": 18},
        "subtitle": cell | {"font_color": "#404040"},
        "heading": cell | {"bold": True, "font_size": 13, "bottom": 1},
        "prose": cell | {"text_wrap": True, "indent": 1},
        "label": inset | {"bold": True},
        "field_code": inset | {"font_size": 8, "font_color": "#6B6B6B", "italic": True},
        "head": head | {"indent": 1},
        "head_low": head | {"indent": 1, "valign": "bottom"},
        "head_item": head | {"align": "center"},
        "head_item_turned": head | {"rotation": 90, "align": "center", "valign": "bottom"},
        "code": code | {"indent": 1},
        "code_item": code | {"align": "center", "shrink": True},
        "text": inset | {"num_format": "@"},
        "date": inset | {"num_format": _DATE_FORMAT, "align": "left"},
        "item": ruled | {"align": "center"},
        "month": inset | {"num_format": "@"},
        "whole": inset | {"num_format": "0", "align": "right"},
        "value_text": inset | {"num_format": "@", "border": 2, "border_color": "#404040"},
        "value_date": inset | {"num_format": _DATE_FORMAT, "align": "left", "border": 2, "border_color": "#404040"},
        "value_number": inset | {"num_format": "0", "align": "left", "border": 2, "border_color": "#404040"},
        "wrapped": inset | {"num_format": "@", "text_wrap": True},
        "wrapped_strong": inset | {"num_format": "@", "text_wrap": True, "bold": True},
        "count": inset | {"num_format": "0", "align": "right", "bold": True},
        "open_text": inset | {"num_format": "@", "locked": False},
        "open_date": inset | {"num_format": _DATE_FORMAT, "align": "left", "locked": False},
        "open_month": inset | {"num_format": "@", "locked": False},
        "open_whole": inset | {"num_format": "0", "align": "right", "locked": False},
        "open_item": ruled | {"align": "center", "locked": False},
        "open_value_text": inset | {"num_format": "@", "border": 2, "border_color": "#404040", "locked": False},
        "open_value_date": inset
        | {"num_format": _DATE_FORMAT, "align": "left", "border": 2, "border_color": "#404040", "locked": False},
        "open_value_number": inset
        | {"num_format": "0", "align": "left", "border": 2, "border_color": "#404040", "locked": False},
        "given_text": given | {"num_format": "@"},
        "given_date": given | {"num_format": _DATE_FORMAT, "align": "left"},
        "given_month": given | {"num_format": "@"},
        "given_whole": given | {"num_format": "0", "align": "right"},
        "given_words": inset | {"num_format": "@", "text_wrap": True, "bg_color": "#EDEDED"},
        "fixed_text": inset | {"num_format": "@", "bg_color": "#F2F2F2", "text_wrap": True},
        "fixed_date": inset | {"num_format": _DATE_FORMAT, "align": "left", "bg_color": "#F2F2F2"},
        "fixed_number": inset | {"num_format": "0", "align": "right", "bg_color": "#F2F2F2"},
        "link": inset | {"num_format": "@", "underline": 1, "font_color": "#0B3D91"},
        "link_back": cell | {"underline": 1, "font_color": "#0B3D91"},
        "marked_hard": inset
        | {
            "num_format": "General",
            "align": "left",
            "bold": True,
            "border": 5,
            "border_color": "#000000",
            "bg_color": "#F6E0D8",
        },
        "marked_soft": inset
        | {
            "num_format": "General",
            "align": "left",
            "italic": True,
            "border": 8,
            "border_color": "#000000",
            "bg_color": "#FFF7E0",
        },
        "as_sent": inset | {"num_format": "General", "align": "left"},
    }


class _Worksheet(xlsxwriter.worksheet.Worksheet):  # type: ignore[misc]  # it ships no types
    """One that prepares each formula once: the library tries some 130 replacements on it, and the drop-downs and checks
    of a study's workbooks say the same on every sheet."""

    _prepared: ClassVar[dict[tuple[str, bool], str]] = {}

    def _prepare_formula(self, formula: str, expand_future_functions: bool = False) -> str:
        key = (formula, expand_future_functions)
        if key not in self._prepared:
            self._prepared[key] = str(super()._prepare_formula(formula, expand_future_functions))
        return self._prepared[key]


class Book:
    """An xlsxwriter workbook with the house's formats, fixed times and, if needed, a hidden sheet of long lists."""

    def __init__(self, buffer: io.BytesIO, title: str, created_on: dt.date | None) -> None:
        self.workbook = xlsxwriter.Workbook(buffer, {"in_memory": True})
        created = dt.datetime.combine(created_on, dt.time()) if created_on else _FIXED_CREATION
        self.workbook.set_properties({"title": title, "created": created})
        self._formats: dict[str, xlsxwriter.format.Format] = {}
        self._lists: dict[tuple[str, ...], str] = {}

    def __enter__(self) -> Book:
        return self

    def __exit__(self, *_: object) -> None:
        self.workbook.close()

    def find_format(self, name: str) -> xlsxwriter.format.Format:
        if name not in self._formats:
            self._formats[name] = self.workbook.add_format(_format_properties()[name])
        return self._formats[name]

    def add_sheet(self, title: str) -> xlsxwriter.worksheet.Worksheet:
        return self.workbook.add_worksheet(title, _Worksheet)

    def find_list(self, codes: tuple[str, ...]) -> list[str] | str:
        """A drop-down's entries; where they don't fit into the cell, the place where `write_lists` will put them."""
        if len(",".join(codes)) <= _EXCEL_TEXT_LIMIT and not any("," in code for code in codes):
            return list(codes)
        if codes not in self._lists:
            letter = find_letters(len(self._lists) + 1)
            self._lists[codes] = f"={LISTS_TITLE}!${letter}$1:${letter}${len(codes)}"
        return self._lists[codes]

    def write_lists(self) -> None:
        if self._lists:
            sheet = self.workbook.add_worksheet(LISTS_TITLE)
            sheet.hide()
            for column, codes in enumerate(self._lists):
                for row, code in enumerate(codes):
                    sheet.write_string(row, column, code)


# What people may still do on a sheet that is protected.
_ALLOWED_WHERE_LOCKED = dict.fromkeys(
    ("format_columns", "format_rows", "sort", "autofilter", "insert_rows", "delete_rows"), True
)
_ABOUT_TO_FILL_IN = ("posted_on", "sending_number", "correction")
_Facts = Sequence[tuple[str, str]]


def write_about(
    book: Book,
    layout: Layout,
    about: Mapping[str, object],
    sheets: Sequence[Sheet],
    header: str,
    *,
    subtitle: str = "Return workbook: what a site sends to the study",
    lines: Sequence[str] = _HOW_TO_FILL,
    facts: _Facts = (),
    is_locked: bool = False,
) -> xlsxwriter.worksheet.Worksheet:
    """The sheet "About", with a legend of the sheets. `facts` (label and text) are for reading. With `is_locked` only
    what the sender fills in is open; there is no password, it keeps hands from slipping."""
    sheet = book.add_sheet(ABOUT_TITLE)
    for column, width in enumerate(_ABOUT_WIDTHS):
        sheet.set_column(column, column, width, book.find_format("prose"))
    sheet.write_string(0, 0, layout.study_title, book.find_format("title"))
    sheet.write_string(1, 0, subtitle, book.find_format("subtitle"))
    sheet.set_row(0, 28)
    row = 3
    for place in ABOUT_FIELDS:
        if place.is_optional and place.kind == "text" and not about.get(place.code):
            continue
        sheet.set_row(row, _LINE + 4)
        sheet.write_string(row, 0, place.label, book.find_format("label"))
        sheet.write_string(row, 1, place.code, book.find_format("field_code"))
        lock = ("open_value" if place.code in _ABOUT_TO_FILL_IN else "given") if is_locked else "value"
        _write_about_value(book, sheet, row, place, about.get(place.code), lock)
        if place.advice:
            sheet.write_string(row, 3, place.advice, book.find_format("prose"))
        row += 1
    row = write_lines(book, sheet, row + 1, "How to fill it in", lines, last_column=3, width=sum(_ABOUT_WIDTHS))
    if facts:
        row = write_facts(book, sheet, row + 1, "Versions", facts)
    row += 1
    for column, heading in enumerate(("Sheet", "Columns", "What is recorded", "What may be typed")):
        sheet.write_string(row, column, heading, book.find_format("head"))
    for line in _derive_legend(tuple(sheets)):
        row += 1
        for column, text in enumerate(line):
            sheet.write_string(row, column, text, book.find_format("wrapped"))
        sheet.set_row(row, find_row_height(line, _ABOUT_WIDTHS))
    set_up_print(sheet, header, 1)
    if is_locked:
        sheet.protect("", _ALLOWED_WHERE_LOCKED)
    return sheet


def _write_about_value(
    book: Book, sheet: xlsxwriter.worksheet.Worksheet, row: int, place: AboutField, value: object, lock: str
) -> None:
    if place.kind == "date":
        style = book.find_format(f"{lock}_date")
        day = parse_date(value).date
        if day is None:
            sheet.write_blank(row, 2, None, style)
        else:
            sheet.write_datetime(row, 2, dt.datetime.combine(day, dt.time()), style)
        sheet.data_validation(row, 2, row, 2, _DATE_CHECK)
    elif place.kind == "whole_number":
        style = book.find_format(f"{lock}_number")
        if value is None or value == "":
            sheet.write_blank(row, 2, None, style)
        else:
            sheet.write_number(row, 2, int(str(value)), style)
        sheet.data_validation(
            row,
            2,
            row,
            2,
            {
                "validate": "integer",
                "criteria": ">=",
                "value": 0 if place.code == "correction" else 1,
                "error_title": place.label,
                "error_message": place.advice[:_EXCEL_TEXT_LIMIT],
            },
        )
    else:
        sheet.write_string(row, 2, "" if value is None else str(value), book.find_format(f"{lock}_text"))


def write_lines(
    book: Book,
    sheet: xlsxwriter.worksheet.Worksheet,
    row: int,
    heading: str,
    lines: Iterable[str],
    *,
    last_column: int,
    width: int,
) -> int:
    """A heading and numbered lines over the whole width; returns the next free row."""
    for column in range(last_column + 1):
        sheet.write_blank(row, column, None, book.find_format("heading"))
    sheet.write_string(row, 0, heading, book.find_format("heading"))
    sheet.set_row(row, 22)
    for number, line in enumerate(lines, start=1):
        row += 1
        sheet.merge_range(row, 0, row, last_column, f"{number}.  {line}", book.find_format("prose"))
        sheet.set_row(row, find_row_height((line,), (width,)))
    return row + 1


def write_facts(book: Book, sheet: xlsxwriter.worksheet.Worksheet, row: int, heading: str, facts: _Facts) -> int:
    """A heading, and under it a label and a text in each row; returns the next free row."""
    sheet.write_string(row, 0, heading, book.find_format("heading"))
    sheet.write_blank(row, 1, None, book.find_format("heading"))
    sheet.set_row(row, 22)
    for label, text in facts:
        row += 1
        sheet.write_string(row, 0, label, book.find_format("label"))
        sheet.write_string(row, 1, text, book.find_format("text"))
    return row + 1


def find_row_height(texts: Iterable[str], widths: Iterable[float]) -> float:
    """The height of a row of wrapped texts, in points; a little generous, since fonts differ between machines."""
    lines = max(-(-len(text) // max(int(width * 1.02) - 2, 1)) for text, width in zip(texts, widths, strict=True))
    return _LINE * max(lines, 1) + 3


@functools.lru_cache(maxsize=64)
def _derive_legend(sheets: tuple[Sheet, ...]) -> tuple[tuple[str, str, str, str], ...]:
    """Lines (sheet, columns, labels, what may be typed). What many sheets or columns share is said once."""
    shared, own = _split_shared_columns(sheets)
    items = [column for sheet in sheets for column in sheet.columns if column.kind == "item"]
    reasons = set.intersection(*(set(item.missing) for item in items)) if items else set()
    lines = [("All questionnaires", column.code, column.label, column.answers_in_words) for column in shared]
    if reasons:
        missing = ", ".join(f"{code.code} {code.label}" for code in items[0].missing if code in reasons)
        lines.append(("All questionnaires", "every question", "Why there is no answer", missing))
    for sheet in sheets:
        alike: dict[tuple[str, bool], list[Column]] = {}
        for column in sheet.columns:
            if column in own and (column.kind in ("item", "month", "count") or column.choices):
                more = ", ".join(f"{code.code} {code.label}" for code in column.missing if code not in reasons)
                answers = f"{column.answers_in_words}; or {more}" if more else column.answers_in_words
                alike.setdefault((answers, bool(column.advice)), []).append(column)
        for (answers, has_advice), columns in alike.items():
            first, last = columns[0], columns[-1]
            if len(columns) == 1:
                advice = f". {first.advice}" if has_advice else ""
                lines.append((sheet.title, first.code, first.label, answers + advice))
            else:
                advice = ". Blank where it was not to be asked" if has_advice and first.kind == "item" else ""
                labels = f"{first.label} … {last.label}"
                lines.append((sheet.title, _name_columns(sheet, columns), labels, answers + advice))
    return tuple(lines)


def _name_columns(sheet: Sheet, columns: Sequence[Column]) -> str:
    """ "adas02, adas04 to adas06": runs of neighbours as one; many single ones by the first two and the last."""
    places = [sheet.codes.index(column.code) for column in columns]
    runs = [[place for _, place in run] for _, run in itertools.groupby(enumerate(places), key=lambda p: p[1] - p[0])]
    names = [sheet.codes[run[0]] + (f" to {sheet.codes[run[-1]]}" if len(run) > 1 else "") for run in runs]
    return ", ".join(names) if len(names) <= 4 else f"{names[0]}, {names[1]} … {names[-1]}"


def _split_shared_columns(sheets: tuple[Sheet, ...]) -> tuple[list[Column], set[Column]]:
    """Columns with choices that every questionnaire has alike, and all others."""
    questionnaires = [sheet for sheet in sheets if any(column.kind == "item" for column in sheet.columns)]
    shared = []
    if len(questionnaires) > 1:
        shared = [
            column
            for column in questionnaires[0].columns
            if column.choices and all(column in sheet.columns for sheet in questionnaires)
        ]
    return shared, {column for sheet in sheets for column in sheet.columns} - set(shared)


_DATE_CHECK: dict[str, Any] = {
    "validate": "date",
    "criteria": "between",
    "minimum": EARLIEST_DAY,
    "maximum": LATEST_DAY,
    "error_title": "Not a date",
    "error_message": "Type the day, the month and the year, such as 28/03/2014.",
}


_COUNT_CHECK: dict[str, Any] = {
    "validate": "integer",
    "criteria": "between",
    "minimum": 0,
    "maximum": LARGEST_COUNT,
    "error_title": "Not a count",
    "error_message": "Type a whole number, 0 or more, without words.",
}
_FORMATS: Mapping[Kind, str] = {"count": "whole"}


def write_records(
    book: Book,
    sheet: Sheet,
    frame: pd.DataFrame,
    header: str,
    blank_rows: int,
    *,
    given: Collection[str] | None = None,
    widths: Mapping[str, float] | None = None,
) -> xlsxwriter.worksheet.Worksheet:
    """One sheet of a layout with the rows of a frame, ruled for `blank_rows` in all on paper.

    With `given` (codes of columns) the sheet is protected, without a password: what is filled in there, and whole
    columns that the layout locks, cannot be changed, and stand out by weight and ground. Everything else is open, as
    are all rows below. `widths`: of columns that are not to have their usual one, in characters.
    """
    unknown = set(frame.columns) - set(sheet.codes) - {"row"}
    if unknown:
        raise ValueError(f'sheet "{sheet.title}" has no columns {sorted(map(str, unknown))}.')
    page = book.add_sheet(sheet.title)
    n_items = sum(column.kind == "item" for column in sheet.columns)
    turned = n_items > _ITEMS_UPRIGHT
    head = book.find_format("head_low" if turned else "head")
    head_item = book.find_format("head_item_turned" if turned else "head_item")
    code, code_item = book.find_format("code"), book.find_format("code_item")
    label_row, code_row, first_row = 0, CODE_ROW - 1, FIRST_DATA_ROW - 1
    page.set_row(code_row, 13)
    places = {str(code): place for place, code in enumerate(frame.columns)}
    values = frame.to_numpy(dtype=object)
    usual = {column.code: _find_width(column, turned, roomy=not n_items) for column in sheet.columns}
    usual |= {code: width for code, width in (widths or {}).items() if code in usual}
    labels = [column.label for column in sheet.columns]
    upright = max(find_row_height(labels, [width - 1 for width in usual.values()]), 34)
    page.set_row(label_row, 15 + 5.2 * max(map(len, labels)) if turned else upright)
    for index, column in enumerate(sheet.columns):
        is_item = column.kind == "item"
        of_column, of_cells = _find_styles(column, None if given is None else column.code in given)
        page.set_column(index, index, usual[column.code], book.find_format(of_column))
        page.write_string(label_row, index, column.label, head_item if is_item else head)
        page.write_string(code_row, index, column.code, code_item if is_item else code)
        if column.code in places:
            cells = values[:, places[column.code]].tolist()
            _write_column(page, first_row, index, column.kind, cells, book.find_format(of_cells))
    if not sheet.is_for_reading:
        _add_checks(book, page, sheet, first_row, first_row + max(_ROWS_READY, len(frame) + 100) - 1)
    n_keys = next((i for i, column in enumerate(sheet.columns) if column.kind == "date"), 1) if n_items else 1
    page.freeze_panes(first_row, n_keys)
    n_pages = 1 if sheet.is_for_reading else -(-int(sum(usual.values())) // _CHARACTERS_PER_PAGE)
    set_up_print(page, header, n_pages)
    page.repeat_rows(label_row, code_row)
    if n_pages > 1:
        page.repeat_columns(0, n_keys - 1)
    if blank_rows:
        last = len(sheet.columns) - 1
        page.print_area(0, 0, first_row + max(blank_rows, len(frame)) - 1, last)
    if given is not None:
        page.protect("", _ALLOWED_WHERE_LOCKED)
    return page


def _find_styles(column: Column, is_given: bool | None) -> tuple[str, str]:
    """The formats of a column and of its filled cells. `is_given`: None where the sheet is not protected."""
    style = _FORMATS.get(column.kind, column.kind)
    if is_given is None:
        return style, style
    if column.is_locked:
        return (style, "given_words") if column.kind == "text" else (style, f"given_{style}")
    return f"open_{style}", f"given_{style}" if is_given else f"open_{style}"


def _find_width(column: Column, turned: bool, *, roomy: bool) -> float:
    """In characters; the logs have few columns and are given room."""
    if column.kind == "item":
        return max(6.5 if turned else 12, len(column.code) * 0.8)
    least = 20 if roomy else 14
    longest = max((len(choice.code) for choice in column.choices), default=0)
    return min(max(longest + 5, len(column.code) * 0.85 + 2, least), 34)


def _write_column(
    page: xlsxwriter.worksheet.Worksheet,
    first_row: int,
    index: int,
    kind: Kind,
    values: Sequence[Any],
    style: xlsxwriter.format.Format,
) -> None:
    for row, value in enumerate(values, start=first_row):
        if value is None or value is pd.NaT or value is pd.NA or value == "" or value != value:
            continue
        if kind in ("text", "month"):
            page.write_string(row, index, str(value), style)
        elif isinstance(value, bool | np.bool_):
            page.write_boolean(row, index, bool(value), style)
        elif kind in ("item", "count") and isinstance(value, int | float | np.number):
            page.write_number(row, index, float(value), style)
        elif isinstance(value, dt.date):
            page.write_datetime(row, index, dt.datetime.combine(value, dt.time()), style)
        else:
            page.write_string(row, index, str(value), style)


def _add_checks(book: Book, page: xlsxwriter.worksheet.Worksheet, sheet: Sheet, first_row: int, last_row: int) -> None:
    """Drop-downs and checks; columns that take the same share one, wherever they stand."""
    alike: dict[tuple[object, ...], list[int]] = {}
    for index, column in enumerate(sheet.columns):
        bounds = (column.minimum, column.maximum, column.whole_numbers)
        key = (column.kind, column.choices, column.only_choices, bounds, column.missing, bool(column.advice))
        alike.setdefault(key, []).append(index)
    for indexes in alike.values():
        first = indexes[0]
        check = _derive_check(
            book, sheet.columns[first], len(indexes) == 1, f"{find_letters(first + 1)}{first_row + 1}"
        )
        if check is None:
            continue
        runs = [list(run) for _, run in itertools.groupby(enumerate(indexes), key=lambda pair: pair[1] - pair[0])]
        if len(runs) > 1:
            check = check | {
                "multi_range": " ".join(
                    f"{find_letters(run[0][1] + 1)}{first_row + 1}:{find_letters(run[-1][1] + 1)}{last_row + 1}"
                    for run in runs
                )
            }
        page.data_validation(first_row, first, last_row, runs[0][-1][1], check)


def _derive_check(book: Book, column: Column, alone: bool, first_cell: str) -> dict[str, Any] | None:
    advice = column.advice if alone or not column.advice else "Leave it blank if it was not to be asked."
    message = f"{column.expected}. {advice}".removesuffix(" ")
    check: dict[str, Any]
    if column.is_locked:
        return None
    if column.kind in ("date", "count"):
        return _DATE_CHECK if column.kind == "date" else _COUNT_CHECK
    if column.choices:
        codes = tuple(choice.code for choice in (*column.choices, *column.missing))
        check = {"validate": "list", "source": book.find_list(codes)}
        if not column.only_choices:
            check["error_type"] = "warning"
            message += " Another name is allowed for an unscheduled occasion."
    elif column.minimum is not None and column.maximum is not None:
        check = {"validate": "custom", "value": _derive_number_rule(column, first_cell)}
    elif column.kind == "month":
        check = {"validate": "custom", "value": _derive_month_rule(first_cell)}
    else:
        return None
    out = "Not a month" if column.kind == "month" else "Out of range"
    check["error_title"] = "Not one of the codes" if column.choices else out
    check["error_message"] = _shorten(message)
    check["input_title"] = _shorten(column.label, 32) if alone else "Allowed here"
    check["input_message"] = _shorten(message)
    return check


def _derive_month_rule(cell: str) -> str:
    """Year and month as text, or the first of a month, as which a spreadsheet program keeps what was typed."""
    return f'=OR(AND(ISTEXT({cell}),LEN({cell})=7,MID({cell},5,1)="-"),AND(ISNUMBER({cell}),DAY({cell})=1))'


def _derive_number_rule(column: Column, cell: str) -> str:
    whole = f",INT({cell})={cell}" if column.whole_numbers else ""
    codes = "".join(f",{cell}={choice.code}" for choice in column.missing)
    within = f"AND(ISNUMBER({cell}),{cell}>={column.minimum:g},{cell}<={column.maximum:g}{whole})"
    return f"=OR({within}{codes})"


def _shorten(text: str, limit: int = _EXCEL_TEXT_LIMIT) -> str:
    return text if len(text) <= limit else f"{text[: limit - 2].rstrip()} …"


def set_up_print(page: xlsxwriter.worksheet.Worksheet, left: str, n_pages_wide: int) -> None:
    page.set_landscape()
    page.set_paper(9)
    page.fit_to_pages(n_pages_wide, 0)
    page.set_margins(left=0.4, right=0.4, top=0.6, bottom=0.6)
    page.set_header("&L&9" + left.replace("&", "&&") + "&R&9&A")
    page.set_footer("&L&9Identifiers only: no names&R&9Page &P of &N")


# --- Reading ----------------------------------------------------------------------------------------------------------

_MAX_PROBLEMS = 2_000  # of one kind on one sheet; more are said in one
_HEADER_ROWS = 12  # where the rows of labels and codes are looked for
_KNOWN_BY = 0.5  # the share of its own codes by which a sheet is known, whatever its title

_Cells = list[list[Any]]


@dataclass(frozen=True)
class _Header:
    """Where columns are: ``row`` (from 1) holds codes or labels, ``places`` maps codes to columns (from 0)."""

    row: int
    places: Mapping[str, int]
    found_by: Literal["codes", "labels"]


@dataclass(frozen=True)
class _Found:
    """A worksheet of the file (``position`` from 1) that is a sheet of the layout."""

    part: SheetPart
    position: int
    code: str
    outside: str  # the first cell that lies too far out to be read
    cells: _Cells
    merged: tuple[Area, ...]


class _Problems:
    """Collects problems of one sheet under the title that the layout gives it."""

    def __init__(self, sheet: str = "", title: str = "") -> None:
        self.sheet, self.title = sheet, title
        self.found: list[Problem] = []

    def add(self, rule: str, severity: Severity, expected: str, area: Area | None = None, column: str = "") -> None:
        if area is None:
            self.found.append(Problem(rule, severity, self.sheet, self.title, column=column, expected=expected))
        else:
            place = (area.cell, area.row, area.last_row)
            self.found.append(Problem(rule, severity, self.sheet, self.title, *place, column, expected))


def read_return_workbook(
    data: bytes | Package, layout: Layout, *, site_id: str | None = None, max_bytes: int = MAX_FILE_BYTES
) -> Reading:
    """Read a return, with every fault of its form found at once.

    A sheet is known by its codes first and its title second, so it may be renamed or moved; columns are known by code,
    or by label where the row of codes was deleted, so they may be reordered. Blank rows are passed over. Raises
    `WorkbookUnreadable` for a file that is not read at all. Without a usable "About", or if that names another study,
    site (where ``site_id`` is given) or layout version, a problem of the file says so and the sheets are read all the
    same. A file that was inspected already is given as its package.
    """
    package = inspect_package(data, max_bytes=max_bytes) if isinstance(data, bytes) else data
    found, problems = _identify_sheets(package, layout)
    about, about_problems = _read_about(found, layout, site_id, package)
    problems = about_problems + problems
    ordered, sheet_problems = _read_found(found, layout, package)
    problems += sheet_problems
    if not ordered and not problems:
        problems.append(Problem("nothing_to_read", "hard", expected="At least one sheet with records."))
    return Reading(about, ordered, tuple(problems), _read_export_lines(package))


def _read_export_lines(package: Package) -> dict[str, dict[int, int]]:
    """By sheet, the line of an export that each row came from; empty for a workbook that was not made from one."""
    own = [part for part in package.sheets if fold_title(part.title) == fold_title(LINES_TITLE)]
    if len(own) != 1:
        return {}
    [(cells, _)] = _parse_cells(package, [bound_sheet(own[0].read())[0]])
    codes = cells[CODE_ROW - 1] if len(cells) >= CODE_ROW else []
    return {
        code: {
            row: int(line[column])
            for row, line in enumerate(cells[CODE_ROW:], start=FIRST_DATA_ROW)
            if line[column].__class__ is float and 0 < line[column] < MAX_FILE_BYTES
        }
        for column, code in enumerate(codes)
        if isinstance(code, str) and code
    }


def read_sheets(
    data: bytes, layout: Layout, *, max_bytes: int = MAX_FILE_BYTES
) -> tuple[dict[str, ReadSheet], list[Problem], bool]:
    """The sheets of a workbook of any layout, their problems, and whether its days count from 1904; no "About".

    Raises `WorkbookUnreadable` for a file that is not read at all.
    """
    package = inspect_package(data, max_bytes=max_bytes)
    found, problems = _identify_sheets(package, layout)
    sheets, sheet_problems = _read_found(found, layout, package)
    return sheets, problems + sheet_problems, package.is_1904


def _read_found(
    found: Sequence[_Found], layout: Layout, package: Package
) -> tuple[dict[str, ReadSheet], list[Problem]]:
    """The sheets that the layout knows, in its order."""
    sheets: dict[str, ReadSheet] = {}
    problems: list[Problem] = []
    for place in found:
        sheet = layout.sheet_by_code.get(place.code)
        if sheet is not None and not sheet.is_for_reading:
            read, sheet_problems = _read_records(place, sheet, package)
            problems += sheet_problems
            if read is not None:
                sheets[place.code] = read
    return {sheet.code: sheets[sheet.code] for sheet in layout.sheets if sheet.code in sheets}, problems


def _parse_cells(package: Package, sheets: Sequence[bytes]) -> list[tuple[_Cells, tuple[Area, ...]]]:
    """Cells from A1 on, blanks as "", and merged areas, of each sheet."""
    result = []
    inspected = io.BytesIO(build_package(package, sheets))
    try:
        workbook = python_calamine.CalamineWorkbook.from_filelike(inspected)
        for index in range(len(sheets)):
            sheet = workbook.get_sheet_by_index(index)
            merged = tuple(
                Area(row + 1, column + 1, last_row + 1, last_column + 1)
                for (row, column), (last_row, last_column) in sheet.merged_cell_ranges or ()
            )
            result.append((sheet.to_python(skip_empty_area=False), merged))
    except (python_calamine.CalamineError, ValueError, OverflowError, OSError):
        raise WorkbookUnreadable("damaged_workbook") from None
    except BaseException as error:
        # A panic of the parser's Rust code is no Exception, so that nobody swallows it unawares; here it is one.
        if type(error).__name__ != "PanicException":
            raise
        raise WorkbookUnreadable("damaged_workbook") from None
    return result


def _identify_sheets(package: Package, layout: Layout) -> tuple[list[_Found], list[Problem]]:
    """The worksheets that the layout knows, in the order of the file; small ones are read here already."""
    passed_over = set(map(fold_title, TITLES_PASSED_OVER))
    tabs = [tab for tab in enumerate(package.sheets, start=1) if fold_title(tab[1].title) not in passed_over]
    positions, usable = [position for position, _ in tabs], [part for _, part in tabs]
    bounded = [bound_sheet(part.head if part.is_whole else cut_head(part)) for part in usable]
    heads = _parse_cells(package, [xml for xml, _ in bounded])
    guesses = [_find_sheet_code(part.title, cells, layout) for part, (cells, _) in zip(usable, heads, strict=True)]
    if not any(_is_filled(row) for cells, _ in heads for row in cells):
        raise WorkbookUnreadable("empty_workbook")
    problems: list[Problem] = []
    found: list[_Found] = []
    for place, code in enumerate(guesses):
        part, position = usable[place], positions[place]
        if not code:
            if any(map(_is_filled, heads[place][0])):
                problems.append(_unknown_sheet(position))
        elif place != _find_best(code, guesses, usable, layout):
            problems.append(
                Problem(
                    "sheet_repeated",
                    "hard",
                    f"sheet_{position}",
                    f"sheet {position}",
                    expected=f'One sheet "{layout.find_title(code)}". Move the rows of this one there; send it again.',
                )
            )
        else:
            found.append(_Found(part, position, code, bounded[place][1], *heads[place]))
    return found, problems


def _unknown_sheet(position: int) -> Problem:
    expected = "Only the sheets of the workbook that we sent. This one was not read; nothing needs to be done."
    return Problem("unknown_sheet", "soft", f"sheet_{position}", f"sheet {position}", expected=expected)


def _find_best(code: str, guesses: Sequence[str], parts: Sequence[SheetPart], layout: Layout) -> int:
    """Of the worksheets taken for one sheet, the one that has its title, or else the first."""
    places = [place for place, guess in enumerate(guesses) if guess == code]
    titled = [place for place in places if layout.code_by_title.get(fold_title(parts[place].title)) == code]
    return (titled or places)[0]


def _find_sheet_code(title: str, cells: _Cells, layout: Layout) -> str:
    """Which sheet of the layout a worksheet is: by the codes or labels that only that sheet has, else by its title."""
    rows = [{fold_title(cell) for cell in row if isinstance(cell, str) and cell} for row in cells[:_HEADER_ROWS]]
    best, best_share = "", 0.0
    titled = layout.code_by_title.get(fold_title(title), "")
    for sheet in layout.sheets:
        telling = sheet.telling_codes
        labels = {label for label, code in sheet.code_by_label.items() if code in telling}
        share = max((len(telling & row) / len(telling) for row in rows), default=0.0)
        if len(labels) > 1:
            share = max([share, *(len(labels & row) / len(labels) for row in rows)])
        if share >= _KNOWN_BY and (share, sheet.code == titled) > (best_share, best == titled):
            best, best_share = sheet.code, share
    if best or titled:
        return best or titled
    codes = {place.code for place in ABOUT_FIELDS}
    return ABOUT if len(codes & set().union(*rows)) >= len(codes) * _KNOWN_BY else ""


def _is_filled(row: Sequence[Any]) -> bool:
    return any(cell.__class__ is not str or parse_text(cell) for cell in row)


# About ------------------------------------------------------------------------------------------------------------


def _read_about(
    found: Sequence[_Found], layout: Layout, site_id: str | None, package: Package
) -> tuple[dict[str, object], list[Problem]]:
    """The values of "About" by code, and what keeps the file from being taken for a return of this study."""
    problems = _Problems(ABOUT, ABOUT_TITLE)
    place = next((sheet for sheet in found if sheet.code == ABOUT), None)
    if place is None:
        problems.add("about_missing", "hard", f'A sheet "{ABOUT_TITLE}" with study, site, posting date and number.')
        return {}, problems.found
    cells = _find_about_values(place.cells)
    xml = place.part.head
    formulas = {(area.row, area.column): area for area in find_formulas(xml)[0]} if place.part.is_whole else {}
    about: dict[str, object] = {}
    for entry in ABOUT_FIELDS:
        value, row, column = cells.get(entry.code, ("", 0, 0))
        area = Area(row, column, row, column) if row else None
        if (row, column) in formulas:
            problems.add("formula_in_cell", "hard", f"{entry.label}: type the value, not a formula.", area)
            value = ""
        about[entry.code], is_fault = _parse_about_value(entry, value, is_1904=package.is_1904)
        is_needed = not entry.is_optional and entry.code != "layout_version"
        if is_fault or (is_needed and about[entry.code] in {"", None}):
            what = {"date": "a date such as 28/03/2014", "whole_number": "a whole number", "text": "its code"}[
                entry.kind
            ]
            problems.add(
                "about_incomplete", "hard", f"{entry.label}: {what}. {entry.advice}".rstrip(), area, entry.code
            )
    if about["correction"] is None:
        about["correction"] = 0
    for rule, code, allowed, expected in (
        ("wrong_study", "study", {layout.study_id}, f'Study "{layout.study_id}". Send it to the study it belongs to.'),
        ("wrong_site", "site", {site_id} if site_id else set(layout.site_ids), "The code of your own site."),
        (
            "wrong_layout_version",
            "layout_version",
            {layout.version, *layout.reads_also},
            f"Version {layout.version}: use the newest workbook.",
        ),
    ):
        _, row, column = cells.get(code, ("", 0, 0))
        if about[code] not in allowed and (about[code] or rule == "wrong_layout_version"):
            problems.add(rule, "hard", expected, Area(row, column, row, column) if row else None, code)
    return about, problems.found


def _find_about_values(cells: _Cells) -> dict[str, tuple[Any, int, int]]:
    """code -> (value, row, column), wherever the rows stand: the cell right of the code, or of the label without it."""
    by_label = {fold_title(entry.label): entry.code for entry in ABOUT_FIELDS}
    codes = set(by_label.values())
    values: dict[str, tuple[Any, int, int]] = {}
    for row, line in enumerate(cells, start=1):
        names = [fold_title(cell) if isinstance(cell, str) else "" for cell in line[:3]]
        for column, name in enumerate(names):
            code = name if name in codes else by_label.get(name, "")
            if not code or code in values:
                continue
            has_code = column + 1 < len(names) and names[column + 1] == code
            after = column + 2 if has_code else column + 1
            if column == 0 and not has_code and not _is_filled(line[after : after + 1]):
                after += 1  # the cell of the code, emptied
            values[code] = (line[after] if after < len(line) else "", row, after + 1)
    return values


def _parse_about_value(entry: AboutField, value: object, *, is_1904: bool) -> tuple[object, bool]:
    """The value as text, day or whole number, and whether it is none of these."""
    if entry.kind == "text":
        return parse_text(value), False
    if entry.kind == "date":
        parsed = parse_date(value, is_1904=is_1904)
        return parsed.date, parsed.is_fault
    text = parse_text(value)
    if not text:
        return None, False
    return (int(text), False) if text.isascii() and text.isdigit() and len(text) <= 6 else (None, True)


# Sheets of records ------------------------------------------------------------------------------------------------


def _read_records(place: _Found, sheet: Sheet, package: Package) -> tuple[ReadSheet | None, list[Problem]]:
    problems = _Problems(sheet.code, sheet.title)
    cells, merged, outside = place.cells, place.merged, place.outside
    xml = place.part.head
    if not place.part.is_whole:
        xml, outside = bound_sheet(place.part.read())
        [(cells, merged)] = _parse_cells(package, [xml])
    header = _find_header(cells, sheet)
    if header is None:
        if any(map(_is_filled, cells)):
            problems.add("codes_missing", "hard", f"rows 1 and {CODE_ROW} as they are in the study's own workbook.")
        return None, problems.found
    letters = {code: find_letters(column + 1) for code, column in header.places.items()}
    missing = tuple(c.code for c in sheet.columns if c.code not in header.places and not c.is_optional)
    for code in missing:
        label = sheet.column_by_code[code].label
        problems.add(
            "missing_column", "hard", f'a column "{label}" with the code {code} in row {CODE_ROW}.', None, code
        )
    _find_odd_columns(cells, header, sheet, problems)
    _find_mixed_columns(cells, header, sheet, problems)
    if outside:
        expected = f"We read rows up to {MAX_ROW:,} and columns up to {find_letters(MAX_COLUMN)}."
        problems.add("cells_out_of_reach", "hard", expected)
    rows, lines = _find_lines(cells, header, sheet)
    columns = {column: code for code, column in header.places.items()}
    _find_formula_problems(xml, header, sheet, columns, rows, problems)
    for area in merged[:_MAX_PROBLEMS]:
        known = [code for column, code in columns.items() if area.column <= column + 1 <= area.last_column]
        if known and area.last_row > header.row:
            data = Area(max(area.row, header.row + 1), area.column, area.last_row, area.last_column)
            problems.add("merged_cells", "hard", "Unmerge them and type a value into each cell.", data, known[0])
    frame, odd_cells = _derive_frame(rows, lines, header, sheet, problems, is_1904=package.is_1904)
    read = ReadSheet(sheet.code, sheet.title, place.position, frame, letters, missing, header.found_by, odd_cells)
    return read, problems.found


def _find_header(cells: _Cells, sheet: Sheet) -> _Header | None:
    """The row that names the columns: by code, or by label if more are named so."""
    folded = [[fold_title(cell) if isinstance(cell, str) else "" for cell in row] for row in cells[:_HEADER_ROWS]]
    by_codes = _find_fullest_row(folded, {code.casefold(): code for code in sheet.codes})
    by_labels = _find_fullest_row(folded, sheet.code_by_label)
    if max(len(by_codes[1]), len(by_labels[1])) < 2:
        return None
    # Some labels are spelled like their codes ("Wave", "wave"), so labels must name more to be preferred.
    if len(by_labels[1]) > len(by_codes[1]):
        return _Header(*by_labels, "labels")
    return _Header(*by_codes, "codes")


def _find_fullest_row(folded: Sequence[Sequence[str]], known: Mapping[str, str]) -> tuple[int, dict[str, int]]:
    """The first row (from 1) that names most columns, and where it names them."""
    places = [_find_places(row, known) for row in folded]
    best = max(range(len(places)), key=lambda row: len(places[row]), default=0)
    return best + 1, places[best] if places else {}


def _find_places(row: Sequence[str], known: Mapping[str, str]) -> dict[str, int]:
    places: dict[str, int] = {}
    for column, name in enumerate(row):
        if name in known:
            places.setdefault(known[name], column)
    return places


def _find_odd_columns(cells: _Cells, header: _Header, sheet: Sheet, problems: _Problems) -> None:
    """Columns that the layout doesn't know, and columns named twice."""
    known = set(header.places.values())
    names = cells[header.row - 1]
    codes = {code.casefold() for code in sheet.codes} | set(sheet.code_by_label)
    above = cells[header.row - 2] if header.row > 1 else [""] * len(names)
    odd: list[tuple[int, bool]] = []
    for column, name in enumerate(names):
        if column not in known and (_is_filled([name]) or _is_filled([above[column]])):
            odd.append((column + 1, isinstance(name, str) and fold_title(name) in codes))
    for (_, is_repeated), run in itertools.groupby(enumerate(odd), key=lambda pair: (pair[1][0] - pair[0], pair[1][1])):
        columns = [column for _, (column, _) in run]
        area = Area(header.row, columns[0], header.row, columns[-1])
        if is_repeated:
            problems.add("column_repeated", "hard", "Each column once only, with its values in one column.", area)
        else:
            problems.add("unknown_column", "soft", "Only the columns of the study's own workbook.", area)


def _find_mixed_columns(cells: _Cells, header: _Header, sheet: Sheet, problems: _Problems) -> None:
    """Columns whose code is that of one question and whose label, above it, that of another: cells were moved in one of
    the two rows, and nobody can tell of which question the answers are."""
    if header.found_by != "codes" or header.row == 1:
        return
    labels = cells[header.row - 2]
    for code, column in header.places.items():
        label = labels[column]
        if isinstance(label, str) and sheet.code_by_label.get(fold_title(label), code) != code:
            area = Area(header.row - 1, column + 1, header.row, column + 1)
            problems.add("columns_mixed_up", "hard", f'the label "{sheet.column_by_code[code].label}".', area, code)


def _find_lines(cells: _Cells, header: _Header, sheet: Sheet) -> tuple[list[int], _Cells]:
    """Rows of data (numbers from 1, and cells) below the header: without blank rows and repeated headers."""
    columns = list(header.places.values())
    width = len(cells[0]) if cells else 0
    names = {code: fold_title(sheet.column_by_code[code].label) for code in header.places}
    first, first_column = next(iter(header.places.items()))
    repeats = {first.casefold(), names[first]}
    numbers, lines = [], []
    for number, row in enumerate(cells[header.row :], start=header.row + 1):
        if row.count("") == width or not _is_filled([row[column] for column in columns]):
            continue
        if isinstance(row[first_column], str) and fold_title(row[first_column]) in repeats:
            continue
        numbers.append(number)
        lines.append(row)
    return numbers, lines


def _find_formula_problems(
    xml: bytes, header: _Header, sheet: Sheet, columns: Mapping[int, str], rows: Sequence[int], problems: _Problems
) -> None:
    """Formulas and error values in cells of data: a parser gives the value kept from the last calculation, or none."""
    formulas, n_unplaced = find_formulas(xml, [column + 1 for column in columns])
    last_row = rows[-1] if rows else header.row
    cells = _list_data_cells(formulas, header, columns, last_row)
    _add_cell_problems("formula_in_cell", cells, sheet, columns, MAX_ROW, problems)
    if n_unplaced:
        problems.add("formula_in_cell", "hard", "The sheet holds formulas that cannot be placed.")
    taken = {(area.row, area.column) for area in formulas}
    errors = [area for area in find_errors(xml) if (area.row, area.column) not in taken]
    cells = _list_data_cells(errors, header, columns, last_row)
    _add_cell_problems("error_in_cell", cells, sheet, columns, MAX_ROW, problems)


def _list_data_cells(
    areas: Iterable[Area], header: _Header, columns: Mapping[int, str], last_row: int
) -> Iterator[tuple[int, int]]:
    """(row, column) of the cells of data within areas; an array may reach beyond the last row with values."""
    for area in areas:
        for row in range(max(area.row, header.row + 1), min(area.last_row, max(last_row, area.row)) + 1):
            for column in range(area.column, min(area.last_column, max(columns) + 1) + 1):
                if column - 1 in columns:
                    yield row, column


def _add_cell_problems(
    rule: str,
    cells: Iterator[tuple[int, int]],
    sheet: Sheet,
    columns: Mapping[int, str],
    last_row: int,
    problems: _Problems,
) -> None:
    """One problem for each cell; beyond a number that anybody would read, one for all the rows."""
    for row, column in itertools.islice(cells, _MAX_PROBLEMS):
        code = columns[column - 1]
        expected = f"Allowed here: {sheet.column_by_code[code].expected}."
        problems.add(rule, "hard", expected, Area(row, column, row, column), code)
    if next(cells, None):
        first_row, first_column = FIRST_DATA_ROW, min(columns) + 1
        rest = Area(first_row, first_column, last_row, max(columns) + 1)
        problems.add(rule, "hard", f"The same in more than {_MAX_PROBLEMS:,} cells of this sheet.", rest)


def _derive_frame(
    rows: list[int],
    lines: _Cells,
    header: _Header,
    sheet: Sheet,
    problems: _Problems,
    *,
    is_1904: bool,
) -> tuple[pd.DataFrame, dict[tuple[str, int], str]]:
    """The rows as `ReadSheet` holds them, and the cells that were not understood."""
    odd_cells = {}
    labelled: list[tuple[int, int, str]] = []
    columns = [column for column in sheet.columns if column.code in header.places or column.kind != "item"]
    values = np.empty((len(lines), len(columns)), dtype=object)
    for index, column in enumerate(columns):
        place = header.places.get(column.code)
        if place is None:
            values[:, index] = "" if column.kind in ("text", "month") else None
        elif column.kind == "text":
            values[:, index] = [parse_text(line[place]) for line in lines]
        elif column.kind == "item":
            own = [cell if cell.__class__ is float else parse_answer(cell) for line in lines for cell in (line[place],)]
            values[:, index] = own
            in_words = _read_labels(column, own)
            values[list(in_words), index] = list(in_words.values())
            labelled += [(rows[n], place + 1, column.code) for n in in_words]
        else:
            told = [_parse_cell(column.kind, line[place], is_1904=is_1904) for line in lines]
            values[:, index] = [value for value, _ in told]
            for n, row in ((n, row) for n, row in enumerate(rows) if told[n][1]):
                odd_cells[column.code, row] = parse_text(lines[n][place])
                area = Area(row, place + 1, row, place + 1)
                problems.add(f"{column.kind}_not_understood", "hard", _EXPECTED[column.kind], area, column.code)
    if labelled:
        numbers, places, codes = zip(*labelled, strict=True)
        area = Area(min(numbers), min(places), max(numbers), max(places))
        expected = sheet.column_by_code[codes[0]].expected
        problems.add("read_from_label", "soft", f"{len(labelled):,} cells. In the first: {expected}.", area, codes[0])
    frame = pd.DataFrame(values, columns=[column.code for column in columns], dtype=object)
    frame.insert(0, "row", np.asarray(rows, dtype=np.int64))
    return frame, odd_cells


def _read_labels(column: Column, cells: Sequence[object]) -> dict[int, float]:
    """Places of cells that hold words which stand for one code of the column and no other, with that code."""
    told = {cell: column.find_code(cell) for cell in {cell for cell in cells if isinstance(cell, str)}}
    found = {cell: code for cell, code in told.items() if code is not None}
    return {n: found[cell] for n, cell in enumerate(cells) if isinstance(cell, str) and cell in found} if found else {}


_EXPECTED: Mapping[Kind, str] = {
    "date": "The month may be a name: 28 Mar 2014.",
    "month": "Such as 2018-03 or March 2018.",
    "count": "A whole number, 0 or more.",
}


def _parse_cell(kind: Kind, value: object, *, is_1904: bool) -> tuple[object, bool]:
    """A day, a month or a count, and whether the cell holds something else."""
    if kind == "date":
        day = parse_date(value, is_1904=is_1904)
        return day.date, day.is_fault
    if kind == "month":
        month = parse_month(value, is_1904=is_1904)
        return month.month, month.is_fault
    count = parse_count(value)
    return count.count, count.is_fault


# --- Receipts ---------------------------------------------------------------------------------------------------------

Outcome = Literal["accepted", "accepted_in_part", "nothing_accepted", "quarantined"]


@dataclass(frozen=True)
class ReceiptSummary:
    """What became of one file, for the person at the site who sent it.

    ``reason`` and ``what_to_do`` are sentences, needed for a file in quarantine; ``not_allowed`` says what was done
    while the approvals did not allow it; ``still_open`` names queries about rows that a correction left out; ``notes``
    are further sentences, such as the assumptions that a rehearsal rests on. ``n_quarantined`` counts questionnaires.
    """

    study_title: str
    site_id: str
    return_id: str
    outcome: Outcome
    received_on: dt.date
    posted_on: dt.date | None = None
    sending_number: int | None = None
    correction: int = 0
    n_accepted: int = 0
    n_repeated: int = 0
    n_superseded: int = 0
    n_refused: int = 0
    n_quarantined: int = 0
    n_log_entries: int = 0
    reason: str = ""
    what_to_do: str = ""
    not_allowed: tuple[str, ...] = ()
    still_open: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReceiptRow:
    """One thing to mend or to look at: where, what is wrong, what to do. `marked_at`: sheet, row and column (codes) of
    the cell, if it is marked on a sheet of the receipt."""

    sheet: str
    cell: str
    participant_id: str
    wave: str
    instrument: str
    item: str
    what_is_wrong: str
    what_to_do: str
    query_id: str
    severity: Severity
    marked_at: tuple[str, int, str] = ("", 0, "")


_OUTCOMES: Mapping[str, str] = {
    "accepted": "Everything in this workbook was accepted. Thank you.",
    "accepted_in_part": "Part of this workbook was accepted; some of it needs your attention.",
    "nothing_accepted": "Nothing in this workbook could be accepted yet.",
    "quarantined": "This workbook was put aside unread. Nothing in it was accepted.",
}
# Where questionnaires are kept apart and nothing else is wrong: the site has nothing to mend.
_OUTCOMES_KEPT_APART: Mapping[str, str] = {
    "accepted_in_part": "Part of this workbook was accepted; the rest is kept apart.",
    "nothing_accepted": "The questionnaires in this workbook are kept apart for now.",
}
_SEVERITIES: Mapping[Severity, str] = {"hard": "Must be mended", "soft": "Please check"}
_RECEIPT_COLUMNS = (
    ("Query", 11), ("Importance", 12), ("Sheet", 16), ("Cell", 8), ("Participant", 15), ("Wave", 11),
    ("Questionnaire", 15), ("Question or column", 20), ("What is wrong", 36), ("What to do", 36),
)  # fmt: skip


def write_receipt_workbook(
    summary: ReceiptSummary, rows: Sequence[ReceiptRow], marked: Sequence[MarkedSheet] = ()
) -> bytes:
    """The answer to a site: "Read me", and, if anything needs attention, "To mend" with one row for each thing, and the
    site's own rows with the faulty cells `marked`, sheet by sheet. A mark's faults are places in `rows`.

    Written anew and never made from the file received; of that it holds what `study.marked_rows` lets through.
    """
    buffer = io.BytesIO()
    with Book(buffer, f"{summary.study_title}: receipt {summary.return_id}", summary.received_on) as book:
        titles = _name_marked(marked)
        _write_receipt_summary(book, summary, rows, list(titles.values()))
        if rows:
            _write_receipt_rows(book, summary, rows, _place_marks(marked, titles))
        for sheet in marked:
            _write_marked_sheet(book, summary, sheet, titles[sheet.code], rows)
    return buffer.getvalue()


_FIRST_MARKED_ROW = 5  # of a sheet with marked cells, counted from 0: title, advice, the way back, two rows of headings
_MARKS: Mapping[Severity, str] = {"hard": "!!", "soft": "?"}


def _name_marked(marked: Sequence[MarkedSheet]) -> dict[str, str]:
    """The title of each sheet with marked cells, by its code: at most 31 characters, and no two the same."""
    titles: dict[str, str] = {}
    for number, sheet in enumerate(marked, start=1):
        title = f"{sheet.title[:22].strip()} - marked"
        is_taken = fold_title(title) in map(fold_title, titles.values())
        titles[sheet.code] = f"{sheet.title[:18].strip()} {number} - marked" if is_taken else title
    return titles


def _place_marks(marked: Sequence[MarkedSheet], titles: Mapping[str, str]) -> dict[tuple[str, int, str], str]:
    """Where each marked cell stands in the receipt, as a link: by sheet, row and column (codes)."""
    return {
        (sheet.code, row.row, sheet.columns[place].code): "internal:'{}'!{}{}".format(
            titles[sheet.code].replace("'", "''"), find_letters(place + 3), _FIRST_MARKED_ROW + n + 1
        )
        for sheet in marked
        for n, row in enumerate(sheet.rows)
        for place in row.marks
    }


def _write_marked_sheet(
    book: Book, summary: ReceiptSummary, sheet: MarkedSheet, title: str, rows: Sequence[ReceiptRow]
) -> None:
    """The rows of one sheet with a fault: a column that names the marked cells, then the site's own columns. A marked
    cell has a heavy or a dashed border and bold or slanting letters, and a note that says what to do."""
    page = book.add_sheet(title)
    last = len(sheet.columns) + 1
    page.write_string(0, 0, f"{sheet.title}: your rows with something to mend", book.find_format("title"))
    page.write_string(
        1, 0,
        "!! and a heavy border: must be mended.  ? and a dashed border: please check.  Mend your own workbook, not "
        "this copy: the row numbers and letters are those of yours.",
        book.find_format("subtitle"),
    )  # fmt: skip
    page.write_url(2, 0, "internal:'To mend'!A1", book.find_format("link_back"), "Back to the list")
    page.set_row(0, 28)
    if any(WITHHELD in row.cells for row in sheet.rows):
        page.write_string(2, 2, _WITHHELD_WORDS, book.find_format("subtitle"))
    for place, (label, width) in enumerate((("Your row", 9), ("Marked cells", 18))):
        page.set_column(place, place, width)
        page.write_string(3, place, label, book.find_format("head"))
        page.write_blank(4, place, None, book.find_format("code"))
    for place, (column, letter) in enumerate(zip(sheet.columns, sheet.letters, strict=True), start=2):
        page.set_column(place, place, 18 if column.kind != "item" else 14)
        page.write_string(3, place, column.label, book.find_format("head"))
        page.write_string(4, place, f"{letter}  {column.code}", book.find_format("code"))
    labels = [(column.label,) for column in sheet.columns]
    page.set_row(3, max((find_row_height(label, (13,)) for label in labels), default=15))
    for number, row in enumerate(sheet.rows, start=_FIRST_MARKED_ROW):
        named = [f"{_MARKS[mark.severity]} {sheet.letters[place]}{row.row}" for place, mark in row.marks.items()]
        page.write_number(number, 0, row.row, book.find_format("fixed_number"))
        page.write_string(number, 1, ", ".join(named), book.find_format("wrapped_strong"))
        page.set_row(number, find_row_height((", ".join(named),), (17,)))
        for place, value in enumerate(row.cells):
            mark = row.marks.get(place)
            style = book.find_format(f"marked_{mark.severity}" if mark else "as_sent")
            if isinstance(value, float):
                page.write_number(number, place + 2, value, style)
            else:
                page.write_string(number, place + 2, value, style)
            if mark:
                page.write_comment(number, place + 2, _word_note([rows[n] for n in mark.faults]), _NOTE)
    end = _FIRST_MARKED_ROW + len(sheet.rows)
    if sheet.n_left_out:
        page.write_string(
            end, 0, f"{sheet.n_left_out:,} more rows are on the sheet To mend.", book.find_format("subtitle")
        )
    page.freeze_panes(_FIRST_MARKED_ROW, 2)
    page.set_comments_author("The study")
    page.protect("", _ALLOWED_WHERE_LOCKED)
    set_up_print(page, f"Site {summary.site_id}  {summary.return_id}", 1)
    page.repeat_rows(3, 4)
    page.print_area(0, 0, end, last)


_WITHHELD_WORDS = (
    f"{WITHHELD}: what you typed there might tell who a person is, so it stays in your own workbook alone."
)
_NOTE = {"author": "The study", "x_scale": 2.2, "y_scale": 1.6, "font_size": 9, "font_name": _FONT}


def _word_note(rows: Sequence[ReceiptRow]) -> str:
    """What to do about a cell, each fault in a line of its own."""
    return "\n".join(
        f"{_SEVERITIES[row.severity]}. {row.what_is_wrong} {row.what_to_do} Query {row.query_id}." for row in rows
    )


def _write_receipt_summary(
    book: Book, summary: ReceiptSummary, rows: Sequence[ReceiptRow], marked: Sequence[str]
) -> None:
    sheet = book.add_sheet("Read me")
    for column, width in enumerate(_README_WIDTHS):
        sheet.set_column(column, column, width, book.find_format("prose"))
    sheet.write_string(0, 0, summary.study_title, book.find_format("title"))
    sheet.write_string(1, 0, f"Receipt for site {summary.site_id}", book.find_format("subtitle"))
    sheet.set_row(0, 28)
    heading = _OUTCOMES[summary.outcome]
    if summary.n_quarantined and not any(entry.severity == "hard" for entry in rows):
        heading = _OUTCOMES_KEPT_APART.get(summary.outcome, heading)
    sheet.merge_range(3, 0, 3, 2, heading, book.find_format("heading"))
    sheet.set_row(3, 22)
    row = 4
    if summary.reason:
        sheet.merge_range(row, 0, row, 2, summary.reason, book.find_format("prose"))
        sheet.set_row(row, find_row_height((summary.reason,), (sum(_README_WIDTHS),)))
        row += 1
    row += 1
    for label, value in _list_receipt_facts(summary):
        sheet.write_string(row, 0, label, book.find_format("label"))
        sheet.write_string(row, 1, value, book.find_format("text"))
        row += 1
    if summary.outcome != "quarantined":
        row = _write_receipt_counts(book, sheet, row + 1, summary, rows)
    row = write_lines(
        book,
        sheet,
        row + 1,
        "What to do now",
        (*_list_next_steps(summary, rows), *_word_marked(marked)),
        last_column=2,
        width=sum(_README_WIDTHS),
    )
    if summary.not_allowed:
        row = write_lines(
            book,
            sheet,
            row + 1,
            "What was not allowed yet",
            summary.not_allowed,
            last_column=2,
            width=sum(_README_WIDTHS),
        )
    if summary.still_open:
        row = write_lines(
            book,
            sheet,
            row + 1,
            "Still open: rows that you left out",
            (_LEFT_OUT, *summary.still_open),
            last_column=2,
            width=sum(_README_WIDTHS),
        )
    if summary.notes:
        write_lines(book, sheet, row + 1, "Please note", summary.notes, last_column=2, width=sum(_README_WIDTHS))
    set_up_print(sheet, f"Site {summary.site_id}  {summary.return_id}", 1)
    sheet.activate()


_LEFT_OUT = (
    "To leave a row out of a correction answers nothing: the query about it stays open, and a row that was accepted "
    'stays in the data. Send the row again, mended; or answer the query on the sheet "Queries" of your workbook. If '
    'the row should never have been there, say "cannot_say" there and tell the study team so.'
)


def _word_marked(titles: Sequence[str]) -> tuple[str, ...]:
    if not titles:
        return ()
    named = f"{', '.join(titles[:-1])} and {titles[-1]}" if len(titles) > 1 else titles[0]
    return (
        f"Your own rows, with the cells marked, are on {'the sheets' if len(titles) > 1 else 'the sheet'} {named}. "
        "A note on each cell says what to do.",
    )


def _write_receipt_counts(
    book: Book,
    sheet: xlsxwriter.worksheet.Worksheet,
    row: int,
    summary: ReceiptSummary,
    rows: Sequence[ReceiptRow],
) -> int:
    n_hard = sum(entry.severity == "hard" for entry in rows)
    for label, count, meaning in (
        ("Accepted", summary.n_accepted, "Questionnaires that are now in the study's data."),
        ("Repeated", summary.n_repeated, "The same as what you sent before; counted once."),
        ("Replaced", summary.n_superseded, "Corrections that took the place of what you sent before."),
        ("Not accepted", summary.n_refused, 'Left out for now. The sheet "To mend" says why.'),
        ("Kept apart", summary.n_quarantined, "Answered while the approvals did not allow it. See below."),
        ("Entries in the logs", summary.n_log_entries, "What logs tell of people, figures, answers to queries."),
        ("To be mended", n_hard, "Places to correct; until then their rows are left out."),
        ("To be checked", len(rows) - n_hard, "Places to look at again; taken as they are."),
    ):
        sheet.write_string(row, 0, label, book.find_format("label"))
        sheet.write_number(row, 1, count, book.find_format("count"))
        sheet.write_string(row, 2, meaning, book.find_format("prose"))
        row += 1
    return row


_MOST_LINKS = 5_000  # Excel takes 65,530 in a sheet


def _list_receipt_facts(summary: ReceiptSummary) -> list[tuple[str, str]]:
    facts = [("Return", summary.return_id or "not known")]
    if summary.posted_on:
        facts.append(("Posted on", f"{summary.posted_on:%d %b %Y}"))
    if summary.sending_number is not None:
        facts.append(("Sending number", str(summary.sending_number)))
    if summary.correction:
        facts.append(("Correction", str(summary.correction)))
    facts.append(("Received on", f"{summary.received_on:%d %b %Y}"))
    return facts


def _list_next_steps(summary: ReceiptSummary, rows: Sequence[ReceiptRow]) -> tuple[str, ...]:
    if summary.outcome == "quarantined":
        return (summary.what_to_do or "Please ask the study team what to send instead.",)
    steps = [summary.what_to_do] if summary.what_to_do else []
    if any(entry.severity == "hard" for entry in rows):
        steps += [
            'Open your own copy of the workbook and go through the sheet "To mend": it gives the sheet, the cell, and '
            "what should stand there.",
            'On its sheet "About" keep the posting date and the sending number, and put the next number under '
            '"Correction" (1 for the first).',
            "Send the whole workbook again. What was accepted already is not counted twice.",
        ]
    elif rows:
        steps.append(
            'Please look at the rows of the sheet "To mend". If something is wrong, correct it in your workbook, put '
            'the next number under "Correction" and send it again; if it is right, tell the study team its query.'
        )
    if summary.still_open:
        steps.append("Answer what is still open about rows that this correction left out; see below.")
    return tuple(steps) or ("Nothing: there is nothing to mend.",)


def _write_receipt_rows(
    book: Book, summary: ReceiptSummary, rows: Sequence[ReceiptRow], links: Mapping[tuple[str, int, str], str]
) -> None:
    """One row for each thing; its cell leads to where it is marked, by `links`."""
    sheet = book.add_sheet("To mend")
    sheet.set_row(0, 22)
    for column, (label, width) in enumerate(_RECEIPT_COLUMNS):
        sheet.set_column(column, column, width, book.find_format("wrapped"))
        sheet.write_string(0, column, label, book.find_format("head"))
    plain, strong = book.find_format("wrapped"), book.find_format("wrapped_strong")
    for number, entry in enumerate(rows, start=1):
        importance = _SEVERITIES[entry.severity]
        texts = (
            entry.query_id, importance, entry.sheet, entry.cell, entry.participant_id, entry.wave, entry.instrument,
            entry.item, entry.what_is_wrong, entry.what_to_do,
        )  # fmt: skip
        for column, text in enumerate(texts):
            sheet.write_string(number, column, text, strong if column == 1 and entry.severity == "hard" else plain)
        if (link := links.get(entry.marked_at)) and number <= _MOST_LINKS:
            sheet.write_url(number, 3, link, book.find_format("link"), entry.cell, "To the marked cell")
        sheet.set_row(number, find_row_height(texts, (width for _, width in _RECEIPT_COLUMNS)))
    sheet.freeze_panes(1, 0)
    sheet.autofilter(0, 0, len(rows), len(_RECEIPT_COLUMNS) - 1)
    set_up_print(sheet, f"Site {summary.site_id}  {summary.return_id}", 1)
    sheet.repeat_rows(0)
