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
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from xml.parsers import expat

import numpy as np
import pandas as pd
import python_calamine
import xlsxwriter
from xlsxwriter.format import Format
from xlsxwriter.utility import xl_cell_to_rowcol, xl_col_to_name, xl_rowcol_to_cell
from xlsxwriter.worksheet import Worksheet

from study.pack_layout import (
    ABOUT,
    ABOUT_FIELDS,
    ABOUT_TITLE,
    CODE_ROW,
    FIRST_DATA_ROW,
    LISTS_TITLE,
    AboutField,
    Choice,
    Column,
    Kind,
    Layout,
    Problem,
    ReadSheet,
    Reading,
    Severity,
    Sheet,
    fold_title,
)

# --- Writing ----------------------------------------------------------------------------------------------------------

_FIXED_CREATION = dt.datetime(2000, 1, 1)  # noqa: DTZ001 - Excel's times have no zone
_DATE_FORMAT = "dd mmm yyyy"
_ROWS_READY = 1000  # rows that have drop-downs and date checks
_ROWS_PRINTED_BLANK = 25
_CHARACTERS_PER_PAGE = 165  # what fits across A4 landscape and can still be read
_ITEMS_UPRIGHT = 8  # above this many items, their labels are turned
_FONT = "Calibri"
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
) -> bytes:
    """A return workbook: "About", then the sheets given, in the layout's order.

    ``about`` maps codes of `ABOUT_FIELDS` to values; study, layout_version and correction are filled in when left out.
    Each frame has columns named by the layout's codes (those left out stay blank; the column ``row`` is ignored), one
    record per row; dates as date, Timestamp or datetime64, blanks as None, NaN, NaT or "". ``print_blank_rows`` rules
    that many empty rows for filling in by hand. Raises ValueError for a sheet or column that the layout doesn't have.
    """
    unknown = set(sheets) - set(layout.sheet_by_code)
    if unknown:
        raise ValueError(f"sheets {sorted(unknown)} are not in the layout; it has {sorted(layout.sheet_by_code)}.")
    about = {"study": layout.study_id, "layout_version": layout.version, "correction": 0} | dict(about)
    wanted = [sheet for sheet in layout.sheets if sheet.code in sheets]
    buffer = io.BytesIO()
    with _Book(buffer, f"{layout.study_title}: return", parse_date(about.get("posted_on")).date) as book:
        _write_about(book, layout, about, wanted)
        for sheet in wanted:
            _write_records(book, sheet, sheets[sheet.code], layout, about, print_blank_rows)
        book.write_lists()
    return buffer.getvalue()


def write_blank_return(
    layout: Layout,
    site_id: str,
    *,
    posted_on: dt.date | None = None,
    sending_number: int | None = None,
) -> bytes:
    """The workbook that a site fills in: every sheet of the layout, empty, ruled for printing.

    The site fills in the posting date and the number of the sending unless they are given.
    """
    about = {"site": site_id, "posted_on": posted_on, "sending_number": sending_number}
    frames = {sheet.code: pd.DataFrame(columns=list(sheet.codes)) for sheet in layout.sheets}
    return write_return_workbook(layout, about, frames, print_blank_rows=_ROWS_PRINTED_BLANK)


@functools.cache
def _format_properties() -> dict[str, dict[str, Any]]:
    """Everything that must be seen is said by words, borders or weight; colour only adds to it."""
    cell = {"font_name": _FONT, "font_size": 10, "valign": "top"}
    ruled = cell | {"border": 4, "border_color": "#A6A6A6"}
    head = ruled | {"bold": True, "text_wrap": True, "bg_color": "#DCE6F1", "valign": "bottom", "top": 1, "bottom": 4}
    return {
        "title": cell | {"bold": True, "font_size": 16},
        "subtitle": cell | {"font_size": 11, "font_color": "#404040"},
        "heading": cell | {"bold": True, "font_size": 12, "top": 1},
        "prose": cell | {"text_wrap": True},
        "strong": cell | {"bold": True, "text_wrap": True},
        "label": ruled | {"bold": True},
        "code": ruled | {"font_size": 8, "font_color": "#767676", "italic": True, "bottom": 1},
        "head": head,
        "head_turned": head | {"rotation": 90, "align": "center"},
        "code_centred": ruled
        | {"font_size": 8, "font_color": "#767676", "italic": True, "bottom": 1, "align": "center", "shrink": True},
        "text": ruled | {"num_format": "@"},
        "date": ruled | {"num_format": _DATE_FORMAT, "align": "left"},
        "item": ruled | {"align": "center"},
        "value_text": ruled | {"num_format": "@", "left": 2, "right": 2},
        "value_date": ruled | {"num_format": _DATE_FORMAT, "align": "left", "left": 2, "right": 2},
        "value_number": ruled | {"num_format": "0", "align": "left", "left": 2, "right": 2},
        "wrapped": ruled | {"text_wrap": True},
        "count": ruled | {"num_format": "0", "align": "right", "bold": True},
    }


class _Book:
    """An xlsxwriter workbook with the house's formats, fixed times and, if needed, a hidden sheet of long lists."""

    def __init__(self, buffer: io.BytesIO, title: str, created_on: dt.date | None) -> None:
        self.workbook = xlsxwriter.Workbook(buffer, {"in_memory": True})
        created = dt.datetime.combine(created_on, dt.time()) if created_on else _FIXED_CREATION
        self.workbook.set_properties({"title": title, "created": created})
        self._formats: dict[str, Format] = {}
        self._lists: dict[tuple[str, ...], str] = {}

    def __enter__(self) -> _Book:
        return self

    def __exit__(self, *_: object) -> None:
        self.workbook.close()

    def find_format(self, name: str) -> Format:
        if name not in self._formats:
            self._formats[name] = self.workbook.add_format(_format_properties()[name])
        return self._formats[name]

    def add_sheet(self, title: str) -> Worksheet:
        return self.workbook.add_worksheet(title)

    def find_list(self, codes: tuple[str, ...]) -> list[str] | str:
        """A drop-down's entries; where they don't fit into the cell, the place where `write_lists` will put them."""
        if len(",".join(codes)) <= _EXCEL_TEXT_LIMIT and not any("," in code for code in codes):
            return list(codes)
        if codes not in self._lists:
            letter = xl_col_to_name(len(self._lists))
            self._lists[codes] = f"={LISTS_TITLE}!${letter}$1:${letter}${len(codes)}"
        return self._lists[codes]

    def write_lists(self) -> None:
        if self._lists:
            sheet = self.workbook.add_worksheet(LISTS_TITLE)
            sheet.hide()
            for column, codes in enumerate(self._lists):
                for row, code in enumerate(codes):
                    sheet.write_string(row, column, code)


def _write_about(book: _Book, layout: Layout, about: Mapping[str, object], sheets: Sequence[Sheet]) -> None:
    sheet = book.add_sheet(ABOUT_TITLE)
    for column, width in enumerate((26, 18, 30, 62)):
        sheet.set_column(column, column, width, book.find_format("prose"))
    sheet.write_string(0, 0, layout.study_title, book.find_format("title"))
    sheet.write_string(1, 0, "Return workbook: what a site sends to the study", book.find_format("subtitle"))
    row = 3
    for place in ABOUT_FIELDS:
        sheet.write_string(row, 0, place.label, book.find_format("label"))
        sheet.write_string(row, 1, place.code, book.find_format("code"))
        _write_about_value(book, sheet, row, place, about.get(place.code))
        if place.advice:
            sheet.write_string(row, 3, place.advice, book.find_format("prose"))
        row += 1
    row = _write_lines(book, sheet, row + 1, "How to fill it in", _HOW_TO_FILL, last_column=3)
    row += 1
    for column, heading in enumerate(("Sheet", "Columns", "What is recorded", "What may be typed")):
        sheet.write_string(row, column, heading, book.find_format("head"))
    for line in _derive_legend(tuple(sheets)):
        row += 1
        for column, text in enumerate(line):
            sheet.write_string(row, column, text, book.find_format("wrapped"))
        widths = (24, 16, 34, 72)
        lines = max(-(-len(text) // width) for text, width in zip(line, widths, strict=True))
        sheet.set_row(row, 14 * max(lines, 1))
    _set_up_print(sheet, f"{layout.study_id}  ·  {about.get('site') or ''}", 1)
    sheet.activate()


def _write_about_value(book: _Book, sheet: Worksheet, row: int, place: AboutField, value: object) -> None:
    if place.kind == "date":
        style = book.find_format("value_date")
        day = parse_date(value).date
        if day is None:
            sheet.write_blank(row, 2, None, style)
        else:
            sheet.write_datetime(row, 2, dt.datetime.combine(day, dt.time()), style)
        sheet.data_validation(row, 2, row, 2, _DATE_CHECK)
    elif place.kind == "whole_number":
        style = book.find_format("value_number")
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
        sheet.write_string(row, 2, "" if value is None else str(value), book.find_format("value_text"))


def _write_lines(
    book: _Book, sheet: Worksheet, row: int, heading: str, lines: Iterable[str], *, last_column: int
) -> int:
    """A heading and numbered lines over the whole width; returns the next free row."""
    for column in range(last_column + 1):
        sheet.write_blank(row, column, None, book.find_format("heading"))
    sheet.write_string(row, 0, heading, book.find_format("heading"))
    for number, line in enumerate(lines, start=1):
        row += 1
        sheet.merge_range(row, 0, row, last_column, f"{number}.  {line}", book.find_format("prose"))
        sheet.set_row(row, 14 * -(-len(line) // 135))
    return row + 1


@functools.lru_cache(maxsize=64)
def _derive_legend(sheets: tuple[Sheet, ...]) -> tuple[tuple[str, str, str, str], ...]:
    """Lines (sheet, columns, labels, what may be typed); neighbours that take the same answers share a line."""
    lines = []
    for sheet in sheets:
        coded = [column for column in sheet.columns if column.kind == "item" or column.choices]
        for expected, group in itertools.groupby(coded, key=lambda column: column.expected):
            columns = list(group)
            first, last = columns[0], columns[-1]
            same = len(columns) == 1
            lines.append(
                (
                    sheet.title,
                    first.code if same else f"{first.code} to {last.code}",
                    first.label if same else f"{first.label} … {last.label}",
                    expected if same or not first.advice else f"{expected}. {first.advice}",
                )
            )
    return tuple(lines)


_DATE_CHECK: dict[str, Any] = {
    "validate": "date",
    "criteria": "between",
    "minimum": EARLIEST_DAY,
    "maximum": LATEST_DAY,
    "error_title": "Not a date",
    "error_message": "Type the day, the month and the year, such as 28/03/2014.",
}


def _write_records(
    book: _Book, sheet: Sheet, frame: pd.DataFrame, layout: Layout, about: Mapping[str, object], blank_rows: int
) -> None:
    unknown = set(frame.columns) - set(sheet.codes) - {"row"}
    if unknown:
        raise ValueError(f'sheet "{sheet.title}" has no columns {sorted(map(str, unknown))}.')
    page = book.add_sheet(sheet.title)
    n_items = sum(column.kind == "item" for column in sheet.columns)
    turned = n_items > _ITEMS_UPRIGHT
    head, head_item = book.find_format("head"), book.find_format("head_turned" if turned else "head")
    code, code_item = book.find_format("code"), book.find_format("code_centred")
    label_row, code_row, first_row = 0, CODE_ROW - 1, FIRST_DATA_ROW - 1
    page.set_row(label_row, 15 + 5.2 * max(len(column.label) for column in sheet.columns) if turned else 45)
    widths = [_find_width(column, turned) for column in sheet.columns]
    for index, column in enumerate(sheet.columns):
        is_item = column.kind == "item"
        page.set_column(index, index, widths[index], book.find_format(column.kind))
        page.write_string(label_row, index, column.label, head_item if is_item else head)
        page.write_string(code_row, index, column.code, code_item if is_item else code)
        if column.code in frame.columns:
            _write_column(page, first_row, index, column.kind, frame[column.code], book.find_format(column.kind))
    _add_checks(book, page, sheet, first_row, first_row + max(_ROWS_READY, len(frame) + 100) - 1)
    n_keys = next((i for i, column in enumerate(sheet.columns) if column.kind == "date"), 1) if n_items else 1
    page.freeze_panes(first_row, n_keys)
    n_pages = -(-int(sum(widths)) // _CHARACTERS_PER_PAGE)
    _set_up_print(page, f"{layout.study_id}  ·  {about.get('site') or ''}", n_pages)
    page.repeat_rows(label_row, code_row)
    if n_pages > 1:
        page.repeat_columns(0, n_keys - 1)
    if blank_rows:
        last = len(sheet.columns) - 1
        page.print_area(0, 0, first_row + max(blank_rows, len(frame)) - 1, last)


def _find_width(column: Column, turned: bool) -> float:
    if column.kind == "item":
        return max(6.5 if turned else 12, len(column.code) * 0.85)
    if column.kind == "date":
        return 13
    longest = max((len(choice.code) for choice in column.choices), default=14)
    return min(max(longest + 3, len(column.code) * 0.85, 12), 34)


def _write_column(page: Worksheet, first_row: int, index: int, kind: Kind, values: pd.Series, style: Format) -> None:
    for row, value in enumerate(values.tolist(), start=first_row):
        if value is None or value is pd.NaT or value == "" or value != value:
            continue
        if kind == "text":
            page.write_string(row, index, str(value), style)
        elif kind == "item" and isinstance(value, int | float | np.number):
            page.write_number(row, index, float(value), style)
        elif isinstance(value, dt.date):
            page.write_datetime(row, index, dt.datetime(value.year, value.month, value.day), style)  # noqa: DTZ001 - a day has no zone
        else:
            page.write_string(row, index, str(value), style)


def _add_checks(book: _Book, page: Worksheet, sheet: Sheet, first_row: int, last_row: int) -> None:
    """Drop-downs and checks; neighbouring columns that take the same share one."""
    start = 0
    for _, group in itertools.groupby(sheet.columns, key=_find_check_key):
        columns = list(group)
        check = _derive_check(book, columns[0], len(columns) == 1, xl_rowcol_to_cell(first_row, start))
        if check:
            page.data_validation(first_row, start, last_row, start + len(columns) - 1, check)
        start += len(columns)


def _find_check_key(column: Column) -> tuple[object, ...]:
    bounds = (column.minimum, column.maximum, column.whole_numbers)
    return (column.kind, column.choices, column.only_choices, bounds, column.missing, column.advice)


def _derive_check(book: _Book, column: Column, alone: bool, first_cell: str) -> dict[str, Any] | None:
    message = f"{column.expected}. {column.advice}".removesuffix(" ")
    check: dict[str, Any]
    if column.kind == "date":
        return _DATE_CHECK
    if column.choices:
        codes = tuple(choice.code for choice in (*column.choices, *column.missing))
        check = {"validate": "list", "source": book.find_list(codes)}
        if not column.only_choices:
            check["error_type"] = "warning"
            message += " Another name is allowed for an unscheduled occasion."
    elif column.minimum is not None and column.maximum is not None:
        check = {"validate": "custom", "value": _derive_number_rule(column, first_cell)}
    else:
        return None
    check["error_title"] = "Not one of the codes" if column.choices else "Out of range"
    check["error_message"] = _shorten(message)
    check["input_title"] = _shorten(column.label, 32) if alone else "Allowed here"
    check["input_message"] = _shorten(message)
    return check


def _derive_number_rule(column: Column, cell: str) -> str:
    whole = f",INT({cell})={cell}" if column.whole_numbers else ""
    codes = "".join(f",{cell}={choice.code}" for choice in column.missing)
    within = f"AND(ISNUMBER({cell}),{cell}>={column.minimum:g},{cell}<={column.maximum:g}{whole})"
    return f"=OR({within}{codes})"


def _shorten(text: str, limit: int = _EXCEL_TEXT_LIMIT) -> str:
    return text if len(text) <= limit else f"{text[: limit - 2].rstrip()} …"


def _set_up_print(page: Worksheet, left: str, n_pages_wide: int) -> None:
    page.set_landscape()
    page.set_paper(9)
    page.fit_to_pages(n_pages_wide, 0)
    page.set_margins(left=0.4, right=0.4, top=0.6, bottom=0.6)
    page.set_header("&L&9" + left.replace("&", "&&") + "&R&9&A")
    page.set_footer("&L&9Identifiers only: no names&R&9Page &P of &N")


