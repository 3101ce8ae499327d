"""A site's own rows on its receipt: the faulty cells marked, and nothing repeated that may be somebody's name."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from study.marked_rows import BLANK, MOST_ROWS, WITHHELD, MarkedSheet, derive_marked_sheets
from study.pack_layout import derive_return_layout
from study.returns import Fault
from tasks.definitions import load_instruments, load_study
from tasks.workbooks import ReceiptRow, ReceiptSummary, write_receipt_workbook
from tests.test_bad_input import ANN as ANN_THERE
from tests.test_bad_input import Post, open_post, set_cell
from tests.test_returns import ANN, LAYOUT, make_reading, mmse, screened

IPC = load_study("ipc")
IPC_LAYOUT = derive_return_layout(IPC, load_instruments(IPC))
POSTED_ON = date(2013, 3, 1)
SUMMARY = ReceiptSummary("Bridge study", "LUT", "LUT-1", "accepted_in_part", POSTED_ON, POSTED_ON, 1)


@pytest.fixture
def post(tmp_path: Path) -> Post:
    post = open_post(tmp_path)
    post.begin()
    return post


def mark(sheets: Mapping[str, Sequence[dict[str, Any]]], *faults: Fault, layout: Any = LAYOUT) -> list[MarkedSheet]:
    reading = make_reading(sheets, {}, layout=layout)
    scopes = {"treatment", "questionnaires"}
    return list(derive_marked_sheets(reading, layout, "702", faults, {ANN}, POSTED_ON, scopes))


def fault(
    column: str, row: int = 3, *, rule: str = "level_unknown", severity: Any = "hard", sheet: str = "mmse"
) -> Fault:
    return Fault(rule, severity, sheet, row, column)


def test_rows_with_a_fault_are_shown_by_their_number_with_the_cell_marked():
    faults = [fault("mmse01", 4), fault("mmse02", 5, severity="soft"), fault("mmse01", 4, severity="soft")]
    [sheet] = mark({"mmse": [mmse(ANN), mmse(ANN, mmse01=7), mmse(ANN, mmse02=0)]}, *faults)
    assert (sheet.title, [row.row for row in sheet.rows], sheet.n_left_out) == ("MMSE", [4, 5], 0)
    assert sheet.rows[0].cells == (ANN, "self", "standard", "screening", "10 Feb 2013", 7.0, 5.0, 3.0, 5.0, 3.0, 9.0)
    assert sheet.rows[1].cells[6] == 0.0, "a zero is an answer and no blank"
    assert sheet.letters == tuple("ABCDEFGHIJK")
    assert [dict(row.marks) for row in sheet.rows] == [{5: ("hard", (0, 2))}, {6: ("soft", (1,))}]


@pytest.mark.parametrize(
    ("cells", "column", "shown"),
    [
        ({"participant_id": "Ann Jones"}, "participant_id", WITHHELD),
        ({"participant_id": "01-706-1001"}, "participant_id", WITHHELD),
        ({"participant_id": ANN}, "participant_id", ANN),
        ({"participant_id": ""}, "participant_id", BLANK),
        ({"respondent": "her sister Mary"}, "respondent", WITHHELD),
        ({"respondent": "self"}, "respondent", "self"),
        ({"wave": "home, 3 High Street"}, "wave", WITHHELD),
        ({"collected_on": date(1941, 5, 6)}, "collected_on", WITHHELD),
        ({"collected_on": date(2008, 1, 1)}, "collected_on", WITHHELD),
        ({"collected_on": date(2013, 12, 1)}, "collected_on", "01 Dec 2013"),
        ({"collected_on": None}, "collected_on", BLANK),
        ({"mmse01": 7.0}, "mmse01", 7.0),
        ({"mmse01": -3.5}, "mmse01", -3.5),
        ({"mmse01": 9434765919.0}, "mmse01", WITHHELD),
        ({"mmse01": 0.1234567}, "mmse01", WITHHELD),
        ({"mmse01": "see my letter"}, "mmse01", WITHHELD),
        ({"mmse01": True}, "mmse01", WITHHELD),
        ({"mmse01": date(1941, 5, 6)}, "mmse01", WITHHELD),
    ],
)
def test_only_codes_known_identifiers_near_days_and_short_numbers_are_repeated(cells, column, shown):
    [sheet] = mark({"mmse": [mmse(ANN) | cells]}, fault(column))
    place = [own.code for own in sheet.columns].index(column)
    assert sheet.rows[0].cells[place] == shown
    assert list(sheet.rows[0].marks) == [place]


def test_what_is_typed_into_logs_is_repeated_only_as_codes():
    row = screened(ANN, consent_scopes="treatment; Mary", consent_form_version="1")
    [sheet] = mark({"screening": [row]}, fault("consent_scopes", sheet="screening"))
    shown = dict(zip((column.code for column in sheet.columns), sheet.rows[0].cells, strict=True))
    assert (shown["consent_scopes"], shown["consent_form_version"]) == (WITHHELD, "1")
    consent = {"participant_id": ANN, "sixteen_in": "2001-04", "asked": "Ann was asked", "taken_by": "Mary"}
    [sheet] = mark({"consent": [consent]}, fault("taken_by", sheet="consent"), layout=IPC_LAYOUT)
    shown = dict(zip((column.code for column in sheet.columns), sheet.rows[0].cells, strict=True))
    assert (shown["sixteen_in"], shown["taken_by"]) == (WITHHELD, WITHHELD)
    assert "asked" not in shown


def test_an_identifier_of_the_site_is_shown_where_nothing_is_wrong_with_it():
    reading = make_reading({"mmse": [mmse("01-702-1009", mmse01=7)]}, {})

    def show(column: str, is_own: bool) -> object:
        [sheet] = derive_marked_sheets(reading, LAYOUT, "702", [fault(column)], (), POSTED_ON, (), lambda _: is_own)
        return sheet.rows[0].cells[0]

    assert [show("mmse01", True), show("mmse01", False), show("participant_id", True)] == [
        "01-702-1009", WITHHELD, WITHHELD]  # fmt: skip


def test_two_sheets_of_one_beginning_have_titles_of_their_own():
    row = {"participant_id": ANN}
    sheets = mark({"mmse": [mmse(ANN)], "allocation": [row]}, fault("mmse01"), fault("arm", sheet="allocation"))
    alike = [replace(sheet, title=f"A questionnaire with a long title {n}") for n, sheet in enumerate(sheets)]
    rows = [ReceiptRow("", "", "", "", "", "", "Wrong.", "Mend it.", "702-0001", "hard")] * 2
    workbook = openpyxl.load_workbook(io.BytesIO(write_receipt_workbook(SUMMARY, rows, alike)))
    assert workbook.sheetnames[2:] == ["A questionnaire with a - marked", "A questionnaire wi 2 - marked"]


def test_of_many_questions_those_with_a_fault_are_shown():
    items = [item.id for item in load_instruments(load_study("cdisc_pilot"))["npi_x"].items]
    row = {"participant_id": ANN, "respondent": "carer", "form": "standard", "wave": "week_2"}
    [sheet] = mark({"npi_x": [row]}, fault(items[3], sheet="npi_x"))
    assert [column.code for column in sheet.columns][-2:] == ["collected_on", items[3]]
    assert len(sheet.columns) == 6


def test_faults_of_a_sheet_or_of_a_row_that_is_not_there_mark_nothing():
    rows = {"mmse": [mmse(ANN)]}
    lacks = [fault("mmse01", 0), fault("mmse01", 9), fault("other"), fault("x", sheet="sheet_9"), fault("", sheet="")]
    assert mark(rows, *lacks) == []


def test_a_sheet_shows_no_more_rows_than_a_person_reads():
    n = MOST_ROWS + 20
    [sheet] = mark({"mmse": [mmse(ANN)] * n}, *(fault("mmse01", row) for row in range(3, n + 3)))
    assert (len(sheet.rows), sheet.n_left_out) == (MOST_ROWS, 20)


def test_marks_are_seen_without_colour_and_say_what_to_do():
    sheets = mark({"mmse": [mmse(ANN, mmse01=7, mmse02=0)]}, fault("mmse01"), fault("mmse02", severity="soft"))
    rows = [
        ReceiptRow("MMSE", "", ANN, "", "mmse", item, "Wrong.", "Mend it.", f"702-000{n}", severity, ("mmse", 3, item))
        for n, (item, severity) in enumerate((("mmse01", "hard"), ("mmse02", "soft")))
    ]
    data = write_receipt_workbook(SUMMARY, rows, sheets)
    assert write_receipt_workbook(SUMMARY, rows, sheets) == data
    workbook = openpyxl.load_workbook(io.BytesIO(data))
    page, to_mend = workbook["MMSE - marked"], workbook["To mend"]
    assert [cell.value for cell in page[6]][:3] == [3, "!! F3, ? G3", ANN]
    hard, soft, plain = page["H6"], page["I6"], page["J6"]
    assert (hard.border.left.style, soft.border.left.style, plain.border.left.style) == (
        "thick",
        "mediumDashed",
        "thin",
    )
    assert (hard.font.b, soft.font.i, plain.font.b or plain.font.i) == (True, True, False)
    assert hard.comment.text.endswith("Must be mended. Wrong. Mend it. Query 702-0000.")
    assert (soft.comment is None, plain.comment) == (False, None)
    assert page.protection.sheet
    assert page.print_title_rows == "$4:$5"
    assert [to_mend.cell(row, 4).hyperlink.location for row in (2, 3)] == ["'MMSE - marked'!H6", "'MMSE - marked'!I6"]
    assert page["A3"].hyperlink.location == "'To mend'!A1"
    assert any("MMSE - marked" in str(cell.value) for row in workbook["Read me"] for cell in row)


def test_a_receipt_marks_what_a_file_had_wrong_and_a_held_file_nothing(post):
    def spoil(workbook: openpyxl.Workbook) -> None:
        set_cell("MMSE", "F3", 7)(workbook)
        set_cell("MMSE", "E4", "next week")(workbook)

    post.receive(post.make(change=spoil))
    [data] = [post.area.get(own.key) for own in post.area.list("receipts/") if "2013-02-08" not in own.key]
    page = openpyxl.load_workbook(io.BytesIO(data))["MMSE - marked"]
    told = [[str(cell or "") for cell in row] for row in page.iter_rows(min_row=6, values_only=True)]
    assert told[0][:3] == ["3", "!! F3", ANN_THERE]
    assert (told[0][7], told[1][6]) == ("7", WITHHELD)
    assert "next week" not in str(told)

    before = {own.key for own in post.area.list("receipts/")}
    post.receive(post.make(sending_number=2, change=set_cell("MMSE", "B4", "Bob Jones")))
    [name] = {own.key for own in post.area.list("receipts/")} - before
    assert openpyxl.load_workbook(io.BytesIO(post.area.get(name))).sheetnames == ["Read me", "To mend"]
