"""A site's own rows with their faulty cells marked, as its receipt shows them: what may be repeated, and what may not.

Only cells of the study's own columns are repeated, and of these only what is a code of the study, an identifier of the
site, a day near the day of posting, a count, or the number of an answer. Whatever else a person typed may
be a name; so it is marked, and its place said, and not repeated. Of a log all columns are shown, and of a questionnaire
with many questions those that say which one it is and those with a fault.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from study.logs import parse_codes
from study.pack_layout import ACTIVITY, RECORD_KEYS, Column, Layout, Reading, Sheet, parse_text
from study.queries import Severity

if TYPE_CHECKING:
    from study.returns import Fault

WITHHELD = "(not repeated)"
"""Stands in place of what was typed into a cell."""
BLANK = "(blank)"
"""Stands in a faulty cell in which nothing was typed."""

MOST_ROWS = 500  # of one sheet: nobody goes through more on a receipt, and the list of what to mend has them all
MOST_ITEMS = 12  # of a questionnaire that is shown whole
_YEARS_BEFORE, _YEARS_AFTER = timedelta(days=5 * 366), timedelta(days=366)  # a day beyond may be a date of birth
_LARGEST_ANSWER = 99_999  # a longer number may be a telephone's, or a person's with the NHS


class Mark(NamedTuple):
    """A faulty cell: `faults` by their place in the decision, the gravest severity of them."""

    severity: Severity
    faults: tuple[int, ...]


@dataclass(frozen=True)
class MarkedRow:
    """One row of the site's sheet: its number there, what is shown of each cell, marks by place among the columns."""

    row: int
    cells: tuple[str | float, ...]
    marks: Mapping[int, Mark]


@dataclass(frozen=True)
class MarkedSheet:
    """The rows of one sheet that have a faulty cell. `letters`: of the columns as the site's file has them."""

    code: str
    title: str
    columns: tuple[Column, ...]
    letters: tuple[str, ...]
    rows: tuple[MarkedRow, ...]
    n_left_out: int = 0


def derive_marked_sheets(
    reading: Reading,
    layout: Layout,
    site_id: str,
    faults: Sequence[Fault],
    known: Collection[str],
    posted_on: date,
    scopes: Collection[str] = (),
    is_own: Callable[[str], bool] = lambda _: False,
) -> tuple[MarkedSheet, ...]:
    """The sheets that have rows with a faulty cell, in the order of the layout.

    `faults`: those that are told. `known`: identifiers of people at this site; `is_own`: whether a text is one that
    this site may give to somebody, which is shown where nothing is wrong with it; `scopes`: the codes of what a consent
    covers. A fault of a whole sheet, of a column or of a row that the file lacks marks nothing.
    """

    def never(_: str) -> bool:
        return False

    places: dict[str, dict[int, dict[str, list[int]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for place, fault in enumerate(faults):
        told_on = reading.sheets.get(fault.sheet)
        if told_on is not None and fault.row and fault.column in told_on.letters:
            places[fault.sheet][fault.row][fault.column].append(place)
    found = []
    for sheet in layout.list_sheets(site_id):
        own = places.get(sheet.code)
        if not own:
            continue
        read = reading.sheets[sheet.code]
        numbers = {int(row): n for n, row in enumerate(read.frame["row"])}
        wanted = sorted(own.keys() & numbers.keys())
        faulty = {code for row in wanted for code in own[row]}
        columns = tuple(column for column in _choose_columns(sheet, faulty) if column.code in read.letters)
        shown = read.frame[[column.code for column in columns]].to_numpy(dtype=object)
        show = partial(_show, known=known, posted_on=posted_on, scopes=scopes, is_month_shown=sheet.code == ACTIVITY)
        rows = tuple(
            MarkedRow(
                row,
                tuple(
                    _show_odd(read.odd_cells.get((column.code, row), ""), column.code in own[row])
                    if (text := show(column, value, is_own=never if column.code in own[row] else is_own)) is None
                    else text
                    for column, value in zip(columns, shown[numbers[row]], strict=True)
                ),
                {
                    n: _mark(faults, own[row][column.code])
                    for n, column in enumerate(columns)
                    if column.code in own[row]
                },
            )
            for row in wanted[:MOST_ROWS]
        )
        if rows:
            letters = tuple(read.letters[column.code] for column in columns)
            found.append(MarkedSheet(sheet.code, sheet.title, columns, letters, rows, max(0, len(wanted) - MOST_ROWS)))
    return tuple(found)


def _choose_columns(sheet: Sheet, faulty: Collection[str]) -> list[Column]:
    columns = [column for column in sheet.columns if not column.is_locked]
    n_items = sum(column.kind == "item" for column in columns)
    if n_items <= MOST_ITEMS:
        return columns
    return [column for column in columns if column.code in RECORD_KEYS or column.code in faulty]


def _mark(faults: Sequence[Fault], places: Sequence[int]) -> Mark:
    is_hard = any(faults[place].severity == "hard" for place in places)
    return Mark("hard" if is_hard else "soft", tuple(places))


def _show_odd(text: str, is_marked: bool) -> str:
    """What stands where a cell is blank as it was read: a day that nobody could read is not repeated."""
    if text:
        return WITHHELD
    return BLANK if is_marked else ""


def _show(
    column: Column,
    value: object,
    *,
    known: Collection[str],
    is_own: Callable[[str], bool],
    posted_on: date,
    scopes: Collection[str],
    is_month_shown: bool,
) -> str | float | None:
    """What may be repeated of a cell; None of a blank one."""
    if value is None or value == "":
        return None
    if column.kind == "date":
        is_near = isinstance(value, date) and posted_on - _YEARS_BEFORE <= value <= posted_on + _YEARS_AFTER
        return f"{value:%d %b %Y}" if is_near else WITHHELD
    if column.kind in ("item", "count"):
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _LARGEST_ANSWER:
            return WITHHELD
        return float(value) if round(value, 2) == value else WITHHELD
    text = parse_text(value)
    if column.kind == "month":
        return text if is_month_shown else WITHHELD
    if column.code == "participant_id":
        return text if text in known or is_own(text) else WITHHELD
    if column.code == "consent_scopes":
        return text if set(parse_codes(text)) <= set(scopes) else WITHHELD
    if column.code == "query_id":
        return text if re.fullmatch(r"[A-Za-z0-9_.-]{1,20}-\d{4,6}", text, re.ASCII) else WITHHELD
    return text if text in {choice.code for choice in column.choices} else WITHHELD
