"""The tracker: written dates, what follows from changed cells, and workbooks that came back spoilt."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl.worksheet.worksheet import Worksheet

from study.approval_entries import EntryFault, foresee, parse_written_day
from study.approval_steps import Item
from study.approval_tracker import Decision, FilledRow, decide_rows, derive_tracker, format_key
from study.events import Event
from study.state import Events
from tasks.approval_tracker import TrackerReading, read_tracker, write_tracker
from tests.approval_histories import make_study, step, tell
from tests.conftest import give_up
from tests.services import ServiceMissing

TRIAL = make_study()
TODAY = date(2018, 1, 1)
DAYS = st.dates(date(1980, 1, 1), date(2079, 12, 31))
TOLD = [
    step("submitted", "2017-01-02", letter="17/SC/1"),
    step("valid", "2017-01-05"),
    step("submitted", "2017-02-01", "council"),
    step("requested", "2017-02-10", "council"),
    step("answered", "2017-02-20", "council"),
    step("submitted", "2017-02-01", "trust"),
    step("refused", "2017-03-01", "trust"),
    step("submitted", "2017-02-01", "access"),
    step("granted", "2017-03-01", "access", expires_on="2018-03-01"),
]
REC = format_key(Item("rec"), 1)
CAG = format_key(Item("cag"), 1)
COUNCIL = format_key(Item("council", "luton", "luton_council"), 1)
AGAIN = format_key(Item("trust", "luton", "luton_trust"), 2)
LIGHT = format_key(Item("green_light", "luton"), 1)
ACCESS = format_key(Item("access", "luton", "luton_trust", "R01"), 1)


# Written dates ------------------------------------------------------------------------------------------------------


@given(DAYS)
def test_three_styles_agree(day: date) -> None:
    written = [f"{day:%Y-%m-%d}", f"{day:%d/%m/%Y}", f"{day:%d %b %y}", f"{day:%d %b %Y}", f"{day.day} {day:%B %Y}"]
    assert {parse_written_day(text) for text in written} == {day}


@given(DAYS)
def test_month_first_is_never_taken_for_itself(day: date) -> None:
    for text in (f"{day:%m/%d/%Y}", f"{day:%b %d %Y}", f"{day:%B %d, %Y}", f"{day:%m-%d-%Y}", f"{day:%m/%d/%y}"):
        try:
            taken = parse_written_day(text)
        except EntryFault:
            continue
        assert taken == date(day.year, day.day, day.month)  # the day first, whoever wrote it
        assert day.day <= 12


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("02/13/2017", "has no month 13: the day comes first here"),
        ("Feb 13, 2017", "has the month first"),
        ("13/02/17", "has a year of two digits, which could be a day"),
        ("30/02/2017", "is not in the calendar"),
        ("2017-02-30", "is not in the calendar"),
        ("42779", "is a number, not a date"),
        ("20170213", "is a number, not a date"),
        ("soon", "is not a date"),
        (20170213.0, '"20170213" is no day of 1980 to 2099'),
        (2017.0, '"2017" is no day of 1980 to 2099'),
        (True, "is no day of 1980 to 2099"),
    ],
)
def test_what_is_no_day_says_why(value: object, reason: str) -> None:
    with pytest.raises(EntryFault) as caught:
        parse_written_day(value)
    assert reason in str(caught.value)
    assert "Write 2017-02-13" in str(caught.value)


def test_years_of_two_digits_and_numbers_of_excel() -> None:
    assert parse_written_day("1 Jan 79") == date(2079, 1, 1)
    assert parse_written_day("1 Jan 80") == date(1980, 1, 1)
    assert parse_written_day(42779.0) == date(2017, 2, 13)
    assert parse_written_day(41317.0, is_1904=True) == date(2017, 2, 13)
    assert parse_written_day("  ") is None


# The merge ----------------------------------------------------------------------------------------------------------


@cache
def make_frame() -> tuple[Events, pd.DataFrame]:
    events = tell(*TOLD)
    return events, derive_tracker(TRIAL, events, TODAY)


def make_tracker() -> tuple[Events, bytes]:
    events, frame = make_frame()
    return events, write_tracker(TRIAL, frame, events.head, TODAY)


class Sheet:
    """A tracker opened with another program's eyes: cells by key of the row and code of the column."""

    def __init__(self, data: bytes) -> None:
        self.book = openpyxl.load_workbook(io.BytesIO(data))
        self.page: Worksheet = self.book["Approvals"]
        self.columns = {cell.value: cell.column for cell in self.page[3]}

    def find_row(self, key: str) -> int:
        return next(row for row in range(4, self.page.max_row + 1) if self.page.cell(row, 1).value == key)

    def cell(self, key: str, code: str) -> Any:
        return self.page.cell(self.find_row(key), self.columns[code])

    def save(self) -> bytes:
        buffer = io.BytesIO()
        self.book.save(buffer)
        return buffer.getvalue()


def read(data: bytes, events: Events) -> tuple[TrackerReading, Decision]:
    reading = read_tracker(data, TRIAL, events)
    return reading, decide_rows(TRIAL, events, reading.rows, "Anna Price", TODAY)


def fill(changes: dict[tuple[str, str], object], *meanwhile: Event) -> tuple[Sheet, TrackerReading, Decision]:
    events, data = make_tracker()
    sheet = Sheet(data)
    for (key, code), value in changes.items():
        sheet.cell(key, code).value = value
    return sheet, *read(sheet.save(), foresee(events, meanwhile))


def name_told(decision: Decision) -> list[tuple[str, str, str]]:
    return [
        (event.kind.removeprefix("approval_"), event.approval, str(event.occurred_on)) for _, event in decision.told
    ]


def test_an_unchanged_tracker_tells_nothing() -> None:
    _, reading, decision = fill({})
    assert (decision.told, decision.refused, decision.faults, reading.faults, reading.notes) == ([], [], [], [], [])
    assert decision.n_unchanged == len(reading.rows) == 9


def test_rows_and_what_they_show() -> None:
    sheet = Sheet(make_tracker()[1])
    keys = [sheet.page.cell(row, 1).value for row in range(4, sheet.page.max_row + 1)]
    assert keys[:2] == [REC, CAG]  # the study's own first, then site by site and body by body
    assert keys[-5:] == [LIGHT, COUNCIL, format_key(Item("trust", "luton", "luton_trust"), 1), AGAIN, ACCESS]
    shown = {code: sheet.cell(REC, code).value for code in ("state", "turn", "days_used", "route", "letter")}
    assert shown == {
        "state": "valid, under review", "turn": "the authority", "days_used": 361, "route": "form", "letter": "17/SC/1",
    }  # fmt: skip
    assert sheet.cell(REC, "deadline").value.date() == date(2017, 3, 6)
    # what is on record is locked, what may be filled in is not; the request that was answered makes room for the next
    assert [sheet.cell(REC, code).protection.locked for code in ("valid_on", "decision", "site")] == [True, False, True]
    assert [sheet.cell(COUNCIL, code).value for code in ("request", "requested_on")] == [2, None]
    assert sheet.cell(AGAIN, "state").value == "can be sought again"
    assert sheet.page.protection.sheet
    assert sheet.page.freeze_panes == "E4"
    assert sheet.page.print_title_rows == "$1:$3"
    assert sheet.page.page_setup.orientation == "landscape"
    assert sheet.book["As written"].sheet_state == "veryHidden"


def test_changed_cells_become_steps_of_their_rows() -> None:
    _, reading, decision = fill({
        (REC, "decision"): "granted with conditions",
        (REC, "decided_on"): "13 Feb 17",
        (REC, "conditions"): "poster; indemnity",
        (REC, "letter"): "17/SC/9",
        (CAG, "submitted_on"): date(2017, 3, 1),
        (CAG, "valid_on"): "07/03/2017",
        (COUNCIL, "requested_on"): "2017-03-01",
        (AGAIN, "submitted_on"): 42826.0,
        (ACCESS, "renewed_on"): date(2017, 12, 1),
        (ACCESS, "renewed_until"): date(2019, 3, 1),
    })  # fmt: skip
    assert (decision.faults, reading.faults) == ([], [])
    assert sorted(name_told(decision)) == [
        ("found_valid", "cag", "2017-03-07"),
        ("granted_with_conditions", "rec", "2017-02-13"),
        ("information_requested", "council", "2017-03-01"),
        ("renewed", "access", "2017-12-01"),
        ("resubmitted", "trust", "2017-04-01"),
        ("submitted", "cag", "2017-03-01"),
    ]
    granted = next(event for _, event in decision.told if event.approval == "rec")
    assert (granted.letter, granted.conditions) == ("17/SC/9", ("indemnity", "poster"))  # type: ignore[attr-defined]  # it is the grant
    asked = next(event for _, event in decision.told if event.approval == "council")
    assert asked.key.endswith("requested:2")


OPEN_DAYS = [
    (REC, "decided_on"),
    (CAG, "submitted_on"),
    (COUNCIL, "requested_on"),
    (AGAIN, "submitted_on"),
    (LIGHT, "submitted_on"),
]


@settings(max_examples=15)  # each folds a ledger four times
@given(st.dictionaries(st.sampled_from(OPEN_DAYS), st.integers(0, 30), max_size=5))
def test_a_changed_subset_yields_exactly_these_steps(chosen: dict[tuple[str, str], int]) -> None:
    events, frame = make_frame()
    tracker = frame.set_index("key")
    days = {place: date(2017, 4, 1) + timedelta(days=n) for place, n in chosen.items()}
    rows = []
    for n, (key, row) in enumerate(tracker.iterrows()):
        was = {code: "" if value is None else str(value) for code, value in row.items() if isinstance(code, str)}
        cells = {
            code: row[code] for code in ("route", "submitted_on", "requested_on", "decision", "decided_on", "letter")
        }
        cells |= {code: day for (own, code), day in days.items() if own == key}
        if (key, "decided_on") in days:
            cells["decision"] = "refused"
        *item, attempt = str(key).split("|")
        numbers = (int(attempt), row["request"], row["renewal"])
        rows.append(FilledRow(n, f"row {n}", Item(*item), *numbers, cells=cells, was=was))
    decision = decide_rows(TRIAL, events, rows, "Anna Price", TODAY)
    assert decision.faults == []
    told = [
        (format_key(Item(e.approval, e.site_id, e.body_id, e.person_id), e.attempt), e.occurred_on)
        for _, e in decision.told
    ]
    assert sorted(told) == sorted((key, day) for (key, _), day in days.items())
    # Read again when all of it is recorded: nothing new.
    again = decide_rows(TRIAL, foresee(events, [event for _, event in decision.told]), rows, "Ben Hall", TODAY)
    assert (again.told, again.refused, again.faults, again.n_known) == ([], [], [], len(days))


def test_what_somebody_recorded_meanwhile_stands_and_the_other_rows_go_in() -> None:
    sheet, _, decision = fill(
        {(REC, "decision"): "granted", (REC, "decided_on"): date(2017, 2, 13), (CAG, "submitted_on"): date(2017, 2, 1)},
        step("granted", "2017-02-14"),
    )
    assert name_told(decision) == [("submitted", "cag", "2017-02-01")]
    assert [event.key for _, event in decision.refused] == [step("granted", "2017-02-14").key]
    (fault,) = decision.faults
    assert fault.text.startswith(f'sheet "Approvals", cell {sheet.cell(REC, "decision").coordinate}: somebody recorded')
    assert 'row 10, "granted" on 2017-02-14, told by Siân Ó Briain' in fault.text


def test_the_same_recorded_meanwhile_needs_nothing_more() -> None:
    _, _, decision = fill(
        {(REC, "decision"): "Granted", (REC, "decided_on"): date(2017, 2, 14)}, step("granted", "2017-02-14")
    )
    assert (decision.told, decision.faults, decision.n_known) == ([], [], 1)


@pytest.mark.parametrize(("value", "what"), [(None, "emptied"), (date(2017, 1, 6), "changed")])
def test_a_record_is_not_changed_by_a_cell(value: date | None, what: str) -> None:
    sheet, _, decision = fill({(REC, "valid_on"): value, (CAG, "submitted_on"): date(2017, 2, 1)})
    (fault,) = decision.faults
    assert fault.text.startswith(
        f'sheet "Approvals", cell {sheet.cell(REC, "valid_on").coordinate}: the cell was {what}'
    )
    assert "summative approvals void trial 2 --reason" in fault.text
    assert name_told(decision) == [("submitted", "cag", "2017-02-01")]


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"decided_on": date(2017, 2, 1)}, "decision", "there is a day but no decision"),
        ({"decision": "granted"}, "decided_on", "the step has no day"),
        ({"decision": "grantd", "decided_on": date(2017, 2, 1)}, "decision", 'Did you mean "granted"?'),
        ({"decision": "granted", "decided_on": date(2018, 1, 2)}, "decided_on", "2018-01-02 is in the future"),
        ({"decision": "granted", "decided_on": date(2016, 1, 2)}, "decided_on", "but submitted only on 2017-01-02"),
        ({"decision": "granted", "decided_on": "02/13/2017"}, "decided_on", "has no month 13"),
        (
            {"decision": "granted", "decided_on": date(2017, 2, 1), "expires_on": date(2017, 1, 31)},
            "decided_on",
            "its last day of force (2017-01-31) is before its first (2017-02-01)",
        ),
        ({"withdrawn_on": date(2017, 2, 1)}, "withdrawn_on", "say who withdrew it"),
        ({"letter": "new"}, "letter", "a reference is kept with a new step"),
        ({"decided_on": "=A1", "decision": "granted"}, "decided_on", "there is a formula where a value belongs"),
        ({"site": "Devon", "withdrawn_on": date(2017, 2, 1)}, "site", 'It must be "The whole study".'),
    ],
)  # fmt: skip
def test_faults_name_their_cell_and_leave_out_their_row_alone(changes: dict[str, Any], code: str, text: str) -> None:
    told = {(REC, name): value for name, value in changes.items()}
    sheet, reading, decision = fill({**told, (CAG, "submitted_on"): date(2017, 2, 1)})
    faults = [fault.text for fault in (*reading.faults, *decision.faults)]
    cell = sheet.cell(REC, code).coordinate
    assert any(f"cell {cell}:" in fault and text in fault for fault in faults), faults
    assert name_told(decision) == [("submitted", "cag", "2017-02-01")]


# Spoilt workbooks ---------------------------------------------------------------------------------------------------


def spoil(change: Callable[[Sheet], None]) -> tuple[TrackerReading, Decision]:
    """A tracker in which the committee's grant was filled in, and then something else happened to it."""
    events, data = make_tracker()
    sheet = Sheet(data)
    sheet.cell(REC, "decision").value = "granted"
    sheet.cell(REC, "decided_on").value = date(2017, 2, 13)
    change(sheet)
    return read(sheet.save(), events)


GRANT = [("granted", "rec", "2017-02-13")]


def test_rows_reordered_and_sheets_renamed_change_nothing() -> None:
    def change(sheet: Sheet) -> None:
        rows = [[cell.value for cell in row] for row in sheet.page.iter_rows(min_row=4)]
        for number, row in enumerate(reversed(rows), start=4):
            for column, value in enumerate(row, start=1):
                sheet.page.cell(number, column).value = value
        sheet.page.title = "Tabelle1"
        sheet.book["As written"].title = "x"
        sheet.book.move_sheet("Tabelle1", 2)

    reading, decision = spoil(change)
    assert (reading.faults, decision.faults, name_told(decision)) == ([], [], GRANT)


def test_a_row_deleted_changes_nothing_and_is_told() -> None:
    reading, decision = spoil(lambda sheet: sheet.page.delete_rows(sheet.find_row(COUNCIL)))
    assert (name_told(decision), decision.faults) == (GRANT, [])
    assert reading.notes == ["Rows missing from the file: 1. Nothing was changed for them."]


def test_a_row_added_is_told_with_its_number() -> None:
    def change(sheet: Sheet) -> None:
        row = sheet.page.max_row + 1
        sheet.page.cell(row, sheet.columns["site"]).value = "Luton"
        sheet.page.cell(row, sheet.columns["submitted_on"]).value = date(2017, 2, 1)

    reading, decision = spoil(change)
    assert name_told(decision) == GRANT
    (fault,) = reading.faults
    assert fault.text.startswith('sheet "Approvals", row 13: this row was added')


def test_a_row_copied_is_refused_in_both_places() -> None:
    def change(sheet: Sheet) -> None:
        row = sheet.page.max_row + 1
        sheet.page.cell(row, 1).value = REC
        sheet.page.cell(row, sheet.columns["decided_on"]).value = date(2017, 2, 1)

    reading, decision = spoil(change)
    assert name_told(decision) == []
    assert [fault.row for fault in reading.faults] == [4, 13]


def test_a_column_deleted_loses_only_itself() -> None:
    reading, decision = spoil(lambda sheet: sheet.page.delete_cols(sheet.columns["valid_on"]))
    assert name_told(decision) == GRANT
    assert reading.faults[0].text.startswith('sheet "Approvals": the column "Valid on" is missing.')


def test_facts_changed_by_force_are_not_read() -> None:
    def change(sheet: Sheet) -> None:
        sheet.cell(REC, "state").value = "granted"
        sheet.cell(REC, "deadline").value = date(2030, 1, 1)

    reading, decision = spoil(change)
    assert (name_told(decision), reading.faults) == (GRANT, [])
    assert "cells for information were changed (H4, L4)" in reading.notes[0]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda sheet: sheet.book.remove(sheet.book["As written"]), 'the hidden sheet "As written" is missing'),
        (lambda sheet: sheet.book.remove(sheet.page), 'there is no sheet "Approvals"'),
        (lambda sheet: sheet.page.delete_cols(1), "the hidden column item_key is missing"),
        (lambda sheet: sheet.page.delete_rows(1, 3), 'sheet "Approvals"'),
        (lambda sheet: setattr(sheet.book["As written"]["B2"], "value", "other"), 'a tracker of study "other"'),
        (lambda sheet: setattr(sheet.book["As written"]["D2"], "value", f"3:{'ab' * 32}"), "from another ledger"),
    ],
)
def test_a_workbook_that_is_no_tracker_any_more_is_refused_whole(change: Callable[[Sheet], None], text: str) -> None:
    reading, decision = spoil(change)
    assert reading.is_refused
    assert text in reading.faults[0].text
    assert decision.told == []


def test_libreoffice_saves_what_can_be_read_back(tmp_path: Path) -> None:
    soffice = shutil.which("soffice")
    if soffice is None:
        give_up(ServiceMissing("LibreOffice is not on this machine. Install it: apt-get install libreoffice-calc."))
    events, data = make_tracker()
    sheet = Sheet(data)
    sheet.cell(REC, "decision").value = "granted"
    sheet.cell(REC, "decided_on").value = date(2017, 2, 13)
    source = tmp_path / "tracker.xlsx"
    source.write_bytes(sheet.save())
    profile = f"-env:UserInstallation=file://{tmp_path}/profile"
    command = [soffice, profile, "--headless", "--convert-to", "xlsx:Calc MS Excel 2007 XML", "--outdir"]
    subprocess.run([*command, str(tmp_path / "saved"), str(source)], check=True, capture_output=True, timeout=120)
    reading, decision = read((tmp_path / "saved" / "tracker.xlsx").read_bytes(), events)
    assert (reading.faults, reading.notes, decision.faults, name_told(decision)) == ([], [], [], GRANT)
