"""The approvals tracker as a workbook: written with locked facts and cells to fill in, and read back.

A hidden column says which row is which, so rows may be sorted; a hidden sheet says what each cell held when the
workbook was written, so that only what a person changed is taken.
"""

from __future__ import annotations

import datetime as dt
import io
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from study.approval_tracker import (
    DAYS,
    DECISION_WORDS,
    FACTS,
    FIELD_BY_CODE,
    FIELDS,
    IDENTITY,
    LAYOUT_VERSION,
    WITHDRAWN_BY,
    Fault,
    FilledRow,
    parse_key,
)
from study.pack_layout import EARLIEST_DAY, LATEST_DAY, Column, Layout, Problem, ReadSheet, Sheet, parse_text
from study.protocol import Study
from study.state import EMPTY, Events, Head, parse_head
from tasks.workbook_inspection import find_letters
from tasks.workbooks import Book, find_row_height, read_sheets, set_up_print, write_lines

SHEET = "Approvals"
KEY = "item_key"
_AS_WRITTEN = "As written"
_BAND_ROW, _LABEL_ROW, _CODE_ROW, _FIRST_ROW = 0, 1, 2, 3
_A3 = 8
_WIDTHS = {
    **{"site": 22, "body": 36, "approval": 31, "modification": 14, "person": 10, "attempt": 9, "state": 20},
    **{"turn": 12, "since": 12, "days_used": 7, "deadline": 12, "in_force_until": 12, "request": 9, "renewal": 9},
    **{"route": 21, "decision": 15, "conditions": 16, "withdrawn_by": 11, "letter": 18},
}
_DAY_WIDTH = 12.5
_NUMBERS = ("attempt", "days_used", "request", "renewal")
_TERM_DAYS = ("in_force_from", "expires_on", "renewed_until")
_README = (
    'Fill in the sheet "Approvals" from the column "Route" on, and send the workbook back. Locked cells (grey) are for '
    "information, or are on record already.",
    "Each row is one approval at one place. Rows may be sorted and filtered. Please don't add rows or delete columns; "
    "a row that you delete changes nothing.",
    "Days are those of the letters: 13/02/2017, 2017-02-13 or 13 Feb 2017, always the day first. A day in the future "
    "is not taken.",
    '"Information requested on" and "Answered on" are about the request whose number the row gives; "Renewed on" '
    'likewise. "In force from" and "Last day of force" only if the letter states them.',
    '"Granted with conditions" needs a short code for each condition, parted by semicolons, and opens nothing until '
    "all are met.",
    "The letter reference belongs to the newest step that you fill in on that row.",
    "When the workbook is read, a row is taken whole or not at all, and each fault is told with its cell. What "
    "somebody else recorded meanwhile is never overwritten. What is on record is not changed here: it is corrected by "
    "command.",
    "Type values, not formulas. No names of people, please: a person goes by a code.",
)


def _derive_layout(study: Study) -> Layout:
    facts = tuple(Column(code, label, "text") for code, label, _ in FACTS)
    # Days are read as they were typed, so that one rule for written dates serves every door: hence "item".
    fields = tuple(Column(entry.code, entry.label, "item" if entry.kind == "date" else "text") for entry in FIELDS)
    written = ("was_key", "was_study", "was_layout", "was_head", "was_request", "was_renewal")
    codes = (*written, *(f"was_{code}" for code, _, _ in FACTS[:-2]), *(f"was_{entry.code}" for entry in FIELDS))
    return Layout(
        study.study_id,
        study.title,
        LAYOUT_VERSION,
        (),
        (
            Sheet("approvals", SHEET, "", (Column(KEY, "Row key", "text"), *facts, *fields)),
            Sheet("as_written", _AS_WRITTEN, "", tuple(Column(code, code, "text") for code in codes)),
        ),
    )


# Writing ------------------------------------------------------------------------------------------------------------


def write_tracker(study: Study, tracker: pd.DataFrame, head: Head, as_of: dt.date) -> bytes:
    """The workbook of a tracker, as from `derive_tracker`. The same tracker of the same day gives the same bytes."""
    buffer = io.BytesIO()
    with Book(buffer, f"{study.title}: approvals tracker", as_of) as book:
        _write_readme(book, study, as_of)
        _write_rows(book, study, tracker, as_of)
        _write_as_written(book, study, tracker, head)
        book.write_lists()
    return buffer.getvalue()


def _write_readme(book: Book, study: Study, as_of: dt.date) -> None:
    sheet = book.add_sheet("Read me")
    widths = (30, 44, 62)
    for column, width in enumerate(widths):
        sheet.set_column(column, column, width, book.find_format("prose"))
    sheet.set_row(0, 28)
    sheet.write_string(0, 0, study.title, book.find_format("title"))
    sheet.write_string(1, 0, f"Approvals tracker, as of {as_of:%d %b %Y}", book.find_format("subtitle"))
    row = write_lines(book, sheet, 3, "How to fill it in", _README, last_column=2, width=sum(widths))
    row += 1
    for column, heading in enumerate(("Column", "What to fill in", "Advice")):
        sheet.write_string(row, column, heading, book.find_format("head"))
    for entry in FIELDS:
        row += 1
        words = {"decision": ", ".join(DECISION_WORDS.values()), "withdrawn_by": " or ".join(WITHDRAWN_BY)}
        what = "a day" if entry.kind == "date" else words.get(entry.code, "text")
        if entry.code == "route":
            what = "one of the list"
        texts = (entry.label, what, entry.advice)
        for column, text in enumerate(texts):
            sheet.write_string(row, column, text, book.find_format("wrapped"))
        sheet.set_row(row, find_row_height(texts, widths))
    set_up_print(sheet, study.study_id, 1)
    sheet.fit_to_pages(1, 1)


def _write_rows(book: Book, study: Study, tracker: pd.DataFrame, as_of: dt.date) -> None:
    sheet = book.add_sheet(SHEET)
    codes = [KEY, *(code for code, _, _ in FACTS), *FIELD_BY_CODE]
    labels = ["Row key", *(label for _, label, _ in FACTS), *(entry.label for entry in FIELDS)]
    place = {code: column for column, code in enumerate(codes)}
    fact_days = {code for code, _, is_day in FACTS if is_day}
    rows = tracker.to_dict("records")
    for column, (code, label) in enumerate(zip(codes, labels, strict=True)):
        is_unused = code in ("modification", "person", "attempt") and all(row[code] in ("", 1) for row in rows)
        options = {"hidden": code == KEY or is_unused}
        sheet.set_column(column, column, _WIDTHS.get(code, _DAY_WIDTH), None, options)
        band = "For information" if column == 1 else "To fill in" if code == FIELDS[0].code else ""
        sheet.write_string(_BAND_ROW, column, band, book.find_format("heading"))
        sheet.write_string(_LABEL_ROW, column, label, book.find_format("head"))
        sheet.write_string(_CODE_ROW, column, code, book.find_format("code"))
    sheet.set_row(_BAND_ROW, 20)
    sheet.set_row(_LABEL_ROW, 48)
    sheet.set_row(_CODE_ROW, 12)
    for number, row in enumerate(rows, start=_FIRST_ROW):
        steps_told = {entry.step for entry in FIELDS if row[entry.code] and entry.step}
        for code in codes:
            value = row["key"] if code == KEY else row[code]
            is_open = code in FIELD_BY_CODE and FIELD_BY_CODE[code].step not in steps_told
            kind = "date" if code in DAYS or code in fact_days else "number" if code in _NUMBERS else "text"
            style = book.find_format(f"{'open' if is_open else 'fixed'}_{kind}")
            if value is None or value == "":
                sheet.write_blank(number, place[code], None, style)
            elif kind == "date":
                sheet.write_datetime(number, place[code], dt.datetime.combine(value, dt.time()), style)
            elif kind == "number":
                sheet.write_number(number, place[code], value, style)
            else:
                sheet.write_string(number, place[code], str(value), style)
        wrapped = ("site", "body", "approval", "state", "route", "conditions", "letter")
        texts = [str(row[code]) for code in wrapped]
        sheet.set_row(number, find_row_height(texts, [_WIDTHS[code] for code in wrapped]))
    last = max(_FIRST_ROW + len(rows) - 1, _FIRST_ROW)
    _add_checks(book, sheet, study, rows, place, last)
    sheet.freeze_panes(_FIRST_ROW, place["approval"] + 1)
    sheet.autofilter(_CODE_ROW, 0, last, len(codes) - 1)
    sheet.protect("", {"autofilter": True, "sort": True, "format_columns": True, "format_rows": True})
    set_up_print(sheet, f"{study.study_id}  ·  as of {as_of:%d %b %Y}", 1)
    sheet.set_paper(_A3)
    sheet.repeat_rows(_BAND_ROW, _CODE_ROW)
    sheet.print_area(0, 0, last, len(codes) - 1)
    sheet.activate()


def _add_checks(
    book: Book, sheet: Any, study: Study, rows: Sequence[Mapping[Hashable, Any]], place: Mapping[str, int], last: int
) -> None:
    for code in DAYS:
        entry = FIELD_BY_CODE[code]
        check: dict[str, Any] = {
            "validate": "date",
            "criteria": "between",
            "minimum": EARLIEST_DAY,
            "maximum": LATEST_DAY if code in _TERM_DAYS else "=TODAY()",
            "input_title": entry.label[:32],
            "input_message": entry.advice,
            "error_title": "Not a day that can be taken",
            "error_message": "Type day, month and year, such as 13/02/2017"
            + ("." if code in _TERM_DAYS else "; not a day in the future."),
        }
        sheet.data_validation(_FIRST_ROW, place[code], last, place[code], check)
    lists: dict[tuple[str, ...], list[int]] = {}
    for number, row in enumerate(rows, start=_FIRST_ROW):
        is_change = bool(row["modification"])
        routes = tuple(
            route.id
            for route in study.pathway.routes
            if route.approval == row["approval_id"] and bool(route.for_modifications) == is_change
        )
        if routes:
            lists.setdefault(routes, []).append(number)
    letter = find_letters(place["route"] + 1)
    for routes, numbers in lists.items():
        check = {
            "validate": "list",
            "source": book.find_list(routes),
            "multi_range": " ".join(f"{letter}{number + 1}" for number in numbers),
            "error_title": "Not one of the routes",
            "error_message": "Choose a route from the list.",
        }
        sheet.data_validation(numbers[0], place["route"], numbers[0], place["route"], check)
    for code, words in (("decision", tuple(DECISION_WORDS.values())), ("withdrawn_by", WITHDRAWN_BY)):
        check = {
            "validate": "list",
            "source": list(words),
            "error_title": "Not one of the choices",
            "error_message": "Choose from the list.",
        }
        sheet.data_validation(_FIRST_ROW, place[code], last, place[code], check)


def _write_as_written(book: Book, study: Study, tracker: pd.DataFrame, head: Head) -> None:
    sheet = book.add_sheet(_AS_WRITTEN)
    sheet.very_hidden()
    codes = _derive_layout(study).sheet_by_code["as_written"].codes
    for column, code in enumerate(codes):
        sheet.write_string(0, column, code)
    about = {"was_study": study.study_id, "was_layout": LAYOUT_VERSION, "was_head": str(head)}
    for number, row in enumerate(tracker.to_dict("records"), start=1):
        for column, code in enumerate(codes):
            value = about.get(code, row.get(code.removeprefix("was_"), ""))
            sheet.write_string(number, column, parse_text(value))


# Reading ------------------------------------------------------------------------------------------------------------


@dataclass
class TrackerReading:
    """A tracker as it came back. `faults` of row 0 concern the file; with `is_refused` no row of it can be taken."""

    rows: list[FilledRow] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_refused: bool = False

    def refuse(self, text: str) -> TrackerReading:
        self.faults.append(Fault(0, text))
        self.rows, self.is_refused = [], True
        return self


_NEW_TRACKER = "Write a new one with: summative approvals tracker, and fill that in."
_WRONG = {
    "formula_in_cell": "there is a formula where a value belongs. Type the value itself.",
    "error_in_cell": "the cell shows an error. Type the value itself.",
    "merged_cells": "cells are merged here. Take them apart, and type a value into each.",
}


def read_tracker(data: bytes, study: Study, events: Events) -> TrackerReading:
    """Read a tracker back: its rows, and what keeps a row or the file from being taken. Never by position.

    Raises `WorkbookUnreadable` for a file that is not read at all.
    """
    reading = TrackerReading()
    sheets, problems, is_1904 = read_sheets(data, _derive_layout(study))
    sheet, written = sheets.get("approvals"), sheets.get("as_written")
    if sheet is None:
        return reading.refuse(
            f'there is no sheet "{SHEET}" with its row of codes (row {_CODE_ROW + 1}). {_NEW_TRACKER}'
        )
    if written is None or written.frame.empty or written.missing_columns:
        return reading.refuse(
            f'the hidden sheet "{_AS_WRITTEN}" is missing or damaged, so what was changed is not known. {_NEW_TRACKER}'
        )
    if KEY not in sheet.letters:
        return reading.refuse(f'sheet "{SHEET}": the hidden column {KEY} is missing. {_NEW_TRACKER}')
    was = {row["was_key"]: row for row in written.frame.to_dict("records")}
    first = next(iter(was.values()))
    if first["was_study"] != study.study_id:
        return reading.refuse(f'it is a tracker of study "{first["was_study"][:40]}", not of {study.study_id}.')
    if first["was_layout"] != LAYOUT_VERSION:
        return reading.refuse(f"it has another layout than version {LAYOUT_VERSION}. {_NEW_TRACKER}")
    if not _holds(events, first["was_head"]):
        return reading.refuse(f"it was written from another ledger than this one. {_NEW_TRACKER}")
    stopped = _read_problems(reading, sheet, problems)
    if not reading.is_refused:
        _read_rows(reading, study, sheet, was, stopped, is_1904)
    return reading


def _holds(events: Events, text: str) -> bool:
    """Whether this ledger has the row at which it ended when the tracker was written."""
    try:
        head = parse_head(text)
    except ValueError:
        return False
    if head == EMPTY:
        return True
    return any(head.hash in table["hash"].to_pylist() for table in events.tables.values())


def _read_problems(reading: TrackerReading, sheet: ReadSheet, problems: list[Problem]) -> set[int]:
    """Tell of what the reader found; the rows that it stops."""
    stopped: set[int] = set()
    first_row = int(sheet.frame["row"].min()) if len(sheet.frame) else 0
    labels = {code: label for code, label, _ in FACTS} | {code: entry.label for code, entry in FIELD_BY_CODE.items()}
    n_unknown = sum(problem.rule == "unknown_sheet" for problem in problems)
    if n_unknown > 1:
        reading.notes.append("The file has sheets that are not of the tracker; they were not read.")
    for problem in problems:
        place = f'sheet "{SHEET}"' + (f", cell {problem.cell}" if problem.cell else "")
        if problem.rule == "unknown_sheet" or problem.sheet == "as_written":
            continue
        if problem.rule == "missing_column":
            text = f'{place}: the column "{labels.get(problem.column, problem.column)}" is missing. '
            if problem.column in FIELD_BY_CODE:
                reading.faults.append(Fault(0, f"{text}What it held was not read; the other columns were."))
            elif problem.column in IDENTITY:
                reading.faults.append(Fault(0, f"{text}Rows are known by their hidden keys all the same."))
        elif problem.rule == "unknown_column":
            reading.notes.append(f"{place}: this column is not of the tracker; it was not read.")
        elif problem.rule in _WRONG and problem.row >= first_row:
            if problem.column in FIELD_BY_CODE or problem.column in (KEY, *IDENTITY):
                rows = set(sheet.frame["row"]) & set(range(problem.row, problem.last_row + 1))
                stopped |= rows
                reading.faults += [Fault(row, f"{place}: {_WRONG[problem.rule]}") for row in sorted(rows)]
        elif problem.severity == "hard":
            reading.refuse(f"{place}: {problem.expected or problem.rule.replace('_', ' ')} {_NEW_TRACKER}")
    return stopped


def _read_rows(
    reading: TrackerReading,
    study: Study,
    sheet: ReadSheet,
    was: Mapping[str, Mapping[Hashable, Any]],
    stopped: set[int],
    is_1904: bool,
) -> None:
    records = sheet.frame.to_dict("records")
    counts = Counter(parse_text(row[KEY]) for row in records)
    fields = [code for code in FIELD_BY_CODE if code in sheet.letters]
    n_forced: list[str] = []
    for row in records:
        number, key = int(row["row"]), parse_text(row[KEY])
        place = f'sheet "{SHEET}", row {number}'

        def name_cell(code: str, number: int = number) -> str:
            return f'sheet "{SHEET}", cell {sheet.find_cell(code, number)}'

        base, parsed = was.get(key), parse_key(key)
        if not key:
            if any(parse_text(row[code]) for code in fields):
                reading.faults.append(
                    Fault(
                        number,
                        f"{place}: this row was added, so it has no key and was not read. Record it with: summative "
                        f"approvals record {study.study_id} …; a new tracker then has its row.",
                    )
                )
            continue
        if base is None or parsed is None:
            reading.faults.append(Fault(number, f"{name_cell(KEY)}: the row's hidden key was changed. {_NEW_TRACKER}"))
            continue
        if counts[key] > 1:
            rows = ", ".join(str(other["row"]) for other in records if parse_text(other[KEY]) == key)
            text = f"{place}: rows {rows} have one key; one of them is a copy. Delete the copy and send the file again."
            reading.faults.append(Fault(number, text))
            continue
        forced = [
            code
            for code, _, _ in FACTS
            if code in sheet.letters and f"was_{code}" in base and parse_text(row[code]) != base[f"was_{code}"]
        ]
        moved = [code for code in forced if code in IDENTITY]
        for code in moved:
            text = (
                f'{name_cell(code)}: this cell says which row it is, and was changed. It must be "{base[f"was_{code}"]}'
            )
            reading.faults.append(Fault(number, f"{text}\". A step for another place goes into that place's row."))
        n_forced += [sheet.find_cell(code, number) for code in forced if code not in IDENTITY]
        if moved or number in stopped:
            continue
        item, attempt = parsed
        reading.rows.append(
            FilledRow(
                number,
                place,
                item,
                attempt,
                int(base["was_request"]) if base["was_request"].isdigit() else 1,
                int(base["was_renewal"]) if base["was_renewal"].isdigit() else 1,
                {code: row[code] for code in fields},
                {code: base[f"was_{code}"] for code in FIELD_BY_CODE},
                {code: name_cell(code) for code in fields},
                is_1904,
            )
        )
    if n_forced:
        shown = ", ".join(n_forced[:10]) + (" …" if len(n_forced) > 10 else "")
        reading.notes.append(
            f'Sheet "{SHEET}": cells for information were changed ({shown}). They were not read: steps make them.'
        )
    n_missing = len(set(was) - set(counts))
    if n_missing:
        reading.notes.append(f"Rows missing from the file: {n_missing}. Nothing was changed for them.")
