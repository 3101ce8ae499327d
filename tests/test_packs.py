"""Packs: what is in them, that they look the same every time, and that they come back filled in and are accepted."""

from __future__ import annotations

import io
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest
from openpyxl.worksheet.worksheet import Worksheet

from study.consent import derive_consents
from study.events import (
    ActivityReported,
    ApproachAnswered,
    ConsentRecorded,
    Event,
    IdentifiersIssued,
    ParticipantAllocated,
    ParticipantApproached,
    ParticipantScreened,
    QueryAnswered,
    QueryRaised,
    ReturnAccepted,
    ReturnFileProcessed,
)
from study.pack_layout import LISTS_TITLE, Layout, derive_return_layout
from study.packs import (
    PackPlan,
    add_what_is_open,
    derive_asked_consents,
    derive_pack_id,
    derive_stop_list,
    list_new_identifiers,
)
from study.state import derive_queries
from tasks.definitions import load_instruments, load_study
from tasks.packs import find_letters_name, find_pack_name, write_pack, write_participant_letters
from tasks.releasing import draw_up_plan, release_packs
from tasks.returns import receive_site_returns
from tasks.settings import PROJECT, Settings
from tasks.workbooks import read_return_workbook
from tasks.workspace import Workspace, create_workspace
from tests.libreoffice import fill_in
from tests.pack_plans import (
    AS_OF,
    make_consents,
    make_full_plan,
    make_identifier,
    make_plan,
    make_queries,
    make_rows,
    make_stops,
)
from tests.return_workbooks import edit, list_studies
from tests.test_state import tell

STUDY = load_study("ipc")
INSTRUMENTS = load_instruments(STUDY)
LAYOUT = derive_return_layout(STUDY, INSTRUMENTS)
BY = "A. Tester"


def write(plan: PackPlan, layout: Layout = LAYOUT, **more: Any) -> bytes:
    return write_pack(STUDY, INSTRUMENTS, plan, layout, **more)


def open_book(data: bytes) -> openpyxl.Workbook:
    return openpyxl.load_workbook(io.BytesIO(data))


def read_texts(page: Worksheet) -> list[str]:
    return [str(cell.value) for row in page.iter_rows() for cell in row if cell.value is not None]


def read_column(page: Worksheet, code: str) -> list[Any]:
    """What stands below a code, without blanks at the end."""
    place = next(cell.column for cell in page[2] if cell.value == code)
    values = [page.cell(row, place).value for row in range(3, page.max_row + 1)]
    while values and values[-1] is None:
        values.pop()
    return values


def find_cell(page: Worksheet, code: str, row: int) -> str:
    return f"{next(cell.column_letter for cell in page[2] if cell.value == code)}{row}"


def read_problems(data: bytes, layout: Layout) -> list[str]:
    """What the reader finds wrong: columns, or rules where no column is to blame."""
    problems = read_return_workbook(data, layout, site_id="luton").problems
    return [problem.column or problem.rule for problem in problems]


# What is in it ------------------------------------------------------------------------------------------------------


def test_a_pack_has_a_sheet_for_everything_that_is_due_or_asked() -> None:
    book = open_book(write(make_full_plan(STUDY)))
    assert [title for title in book.sheetnames if title != LISTS_TITLE] == [
        "Read me", "About", "Due", "Screening and approach", "Consent", "Allocation", "Disposition", "EQ-5D-5L",
        "ASCOT SCT4", "ONS4", "Service use", "Activity figures", "Queries",
    ]  # fmt: skip
    assert book.active is not None
    assert book.active.title == "Read me"


def test_names() -> None:
    plan = make_plan(STUDY)
    assert plan.pack_id == derive_pack_id("luton", AS_OF, 1) == "luton-2018-01-08-1"
    assert (find_pack_name(plan), find_letters_name(plan)) == (
        "luton-2018-01-08-1.xlsx",
        "luton-2018-01-08-1_letters.html",
    )


def test_the_same_plan_gives_the_same_bytes() -> None:
    assert write(make_full_plan(STUDY)) == write(make_full_plan(STUDY))
    assert write(make_full_plan(STUDY)) != write(replace(make_full_plan(STUDY), first_number=251))


def test_about_says_which_pack_it_is_and_leaves_the_day_to_the_site() -> None:
    reading = read_return_workbook(write(make_full_plan(STUDY)), LAYOUT, site_id="luton")
    assert reading.about == {
        "study": "ipc", "site": "luton", "posted_on": None, "sending_number": 1, "correction": 0,
        "layout_version": LAYOUT.version, "pack_id": "luton-2018-01-08-1",
    }  # fmt: skip
    texts = read_texts(open_book(write(make_full_plan(STUDY)))["About"])
    for instrument in ("eq5d5l", "ascot_sct4", "ons4", "service_use"):
        assert INSTRUMENTS[instrument].version in texts
    assert texts[texts.index("Protocol") + 1] == STUDY.protocol_version


def test_the_list_due_tells_each_return_in_words() -> None:
    page = open_book(write(make_full_plan(STUDY, 4)))["Due"]
    rows = [[cell.value for cell in row] for row in page.iter_rows(min_row=3, max_row=6)]
    due, ident = datetime.fromisoformat, make_identifier
    assert rows[1] == [
        ident(STUDY, 2), "6-month follow-up", "self", "standard", STUDY.protocol_version,
        "EQ-5D-5L, ASCOT SCT4, ONS4", "copy 2", due("2018-01-09"), due("2018-01-23"), due("2018-02-20"),
        due("2018-03-20"), None,
    ]  # fmt: skip
    assert rows[3][:7] == [
        ident(STUDY, 4), "6-month follow-up", "self", "easy read", STUDY.protocol_version,
        "ASCOT SCT4, ONS4, Service use", "first",
    ]  # fmt: skip


def test_a_questionnaire_has_the_rows_that_are_due_and_no_answers() -> None:
    book = open_book(write(make_full_plan(STUDY, 8)))
    assert read_column(book["EQ-5D-5L"], "participant_id") == [make_identifier(STUDY, n) for n in (1, 2, 3, 5, 6, 7)]
    assert read_column(book["Service use"], "participant_id") == [make_identifier(STUDY, n) for n in (4, 8)]
    assert set(read_column(book["Service use"], "form")) == {"easy_read"}
    assert set(read_column(book["ONS4"], "wave")) == {"follow_up_6m"}
    for title in ("EQ-5D-5L", "ASCOT SCT4", "ONS4", "Service use"):
        page = book[title]
        assert {cell.value for row in page.iter_rows(min_row=3, min_col=5) for cell in row} == {None}


def test_a_block_of_identifiers_is_listed_once_in_order_each_with_its_check_digit() -> None:
    plan = make_plan(STUDY, first_number=201, n_numbers=50)
    identifiers = list_new_identifiers(STUDY, plan)
    assert len(identifiers) == len(set(identifiers)) == 50
    assert (identifiers[0], identifiers[-1]) == (make_identifier(STUDY, 201), make_identifier(STUDY, 250))
    book = open_book(write(plan))
    assert read_column(book["Screening and approach"], "participant_id") == identifiers
    assert any(f"({identifiers[0]} to {identifiers[-1]})" in text for text in read_texts(book["Read me"]))
    assert read_column(open_book(write(make_plan(STUDY)))["Screening and approach"], "participant_id") == []


def test_consent_lists_what_is_known_and_what_is_asked() -> None:
    plan = make_full_plan(STUDY)
    page = open_book(write(plan))["Consent"]
    three, five, six, agreed = (make_identifier(STUDY, number) for number in (3, 5, 6, 110))
    assert read_column(page, "participant_id") == [three, five, six, agreed]  # of the fourth, nothing is asked
    assert read_column(page, "copy_filed") == [None, "no", "yes"]
    assert read_column(page, "consent_scopes") == ["linkage; questionnaires"] * 3
    asked = read_column(page, "asked")
    assert asked[0] == 'Is the signed form filed with you? Put "yes" as soon as it is (by 05 Jan 2018).'
    assert asked[1].endswith("A consultee advised. Was capacity assessed?")
    assert asked[2] == "Give the month of the 16th birthday (no birth date)."


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({}, None),
        ({"copy": "seen"}, None),
        ({"copy": "faulty"}, "signed_form"),
        ({"reconsent_due_on": pd.Timestamp("2018-02-05")}, "reconsent"),  # 28 days ahead
        ({"reconsent_due_on": pd.Timestamp("2018-02-06")}, None),
        ({"reconsent_due_on": pd.Timestamp("2018-01-08")}, "reconsent"),
        ({"reconsent_due_on": pd.Timestamp("2018-01-07"), "faults": "reconsent_overdue"}, "reconsent_overdue"),
        ({"copy": "", "faults": "superseded_version"}, "signed_form;superseded_version"),
        ({"number": 31, "copy": "", "faults": "superseded_version"}, "signed_form"),  # has left: the form only
        ({"number": 31, "faults": "superseded_version"}, None),
        ({"number": 32, "faults": "superseded_version"}, "superseded_version"),  # wants no letters, and goes on
    ],
)
def test_what_is_asked_about_a_consent(row: dict[str, Any], asked: str | None) -> None:
    stops = make_stops(STUDY, (31, "questionnaires", "2017-12-01"), (32, "post", "2017-12-01"))
    plan = make_plan(STUDY, consents=make_consents(STUDY, {"number": 3} | row), stop_list=stops)
    assert derive_asked_consents(STUDY, plan)["asked"].tolist() == ([asked] if asked else [])


def test_everything_that_may_be_asked_about_a_consent_has_words() -> None:
    from study.consent import FAULTS
    from study.packs import RECONSENT, SIGNED_FORM
    from tasks.packs import _ASKED_WORDS

    assert set(_ASKED_WORDS) == {*FAULTS, RECONSENT, SIGNED_FORM}


def test_the_read_me_names_whom_nobody_may_contact() -> None:
    stopped = derive_stop_list(make_full_plan(STUDY))
    assert stopped.to_dict("records") == [
        {"participant_id": make_identifier(STUDY, 31), "stops": "post;questionnaires",
         "from_on": pd.Timestamp("2017-12-02")},
        {"participant_id": make_identifier(STUDY, 32), "stops": "post", "from_on": pd.Timestamp("2017-12-24")},
    ]  # fmt: skip
    texts = read_texts(open_book(write(make_full_plan(STUDY)))["Read me"])
    place = texts.index(make_identifier(STUDY, 31))
    assert texts[place + 1 : place + 3] == ["no letters and no questionnaires", "2 December 2017"]
    assert make_identifier(STUDY, 30) not in texts  # stopped linkage, and nothing that a pack sends
    nobody = read_texts(open_book(write(make_plan(STUDY)))["Read me"])
    assert any("nobody at your site" in text for text in nobody)


def test_the_read_me_says_what_to_do_in_order_and_whom_to_ask() -> None:
    texts = read_texts(open_book(write(make_full_plan(STUDY)))["Read me"])
    steps = [text for text in texts if re.match(r"\d+\.  ", text)]
    assert [step.split(".")[0] for step in steps] == [str(number) for number in range(1, 11)]
    assert steps[0].startswith("1.  Before you post or hand over anything, check each person's status")
    assert "between 22 January 2018 and 29 January 2018" in steps[2]
    assert "1 of them is overdue" in steps[7]
    assert "Anything unclear, or anything wrong: ask the fieldwork coordinator of the study team." in texts
    named = read_texts(open_book(write(make_plan(STUDY), whom_to_ask="Anna Price, coordinator"))["Read me"])
    assert "Anything unclear, or anything wrong: ask Anna Price, coordinator." in named


def test_queries_say_what_they_are_about() -> None:
    page = open_book(write(make_full_plan(STUDY)))["Queries"]
    assert read_column(page, "query_id") == ["LUT-0007", "LUT-0009"]
    assert read_column(page, "about") == [
        f"{make_identifier(STUDY, 1)}, Baseline, self, EQ-5D-5L, Usual activities (eq5d5l_ua), in what you sent as "
        "2017-10-02-1",
        "Disposition, column On, row 7, in what you sent as 2017-12-04-1",
    ]
    assert read_column(page, "question")[1] == "The date is missing. Fill it in as day, month and year."
    assert read_column(page, "answer") == []


def test_figures_owed_are_listed_with_what_was_told_of_them() -> None:
    page = open_book(write(make_full_plan(STUDY)))["Activity figures"]
    rows = [[cell.value for cell in row] for row in page.iter_rows(min_row=3, max_row=5)]
    assert rows == [
        ["2017-11", "care_plans", 41, None],
        ["2017-12", "budgets", None, None],
        ["2017-12", "care_plans", None, None],
    ]


def test_where_nothing_is_due_a_pack_has_logs_and_figures_only() -> None:
    data = write(make_plan(STUDY, 0, "blank"))
    assert [title for title in open_book(data).sheetnames if title != LISTS_TITLE] == [
        "Read me", "About", "Screening and approach", "Consent", "Allocation", "Disposition", "Activity figures",
        "Queries",
    ]  # fmt: skip
    assert read_problems(data, LAYOUT) == ["posted_on"]


def test_odd_characters_stay_text() -> None:
    odd = '=HYPERLINK("x")&<b>"é" 中文 –\u2028'
    study = STUDY.model_copy(update={"title": odd})
    layout = derive_return_layout(study, INSTRUMENTS)
    queries = make_queries(("LUT-0001", "date_missing", {"sheet": "disposition", "column_name": odd}))
    plan = make_plan(study, queries=queries, rows=make_rows(study, 3, participant_id=["=1+1", "@x", odd]))
    data = write_pack(study, INSTRUMENTS, plan, layout, whom_to_ask=odd)
    book = open_book(data)
    assert {cell.data_type for page in book for row in page.iter_rows() for cell in row} <= {"s", "n", "d"}
    assert read_column(book["ONS4"], "participant_id") == ["=1+1", "@x", odd]
    assert book["Read me"]["A1"].value == odd
    assert read_problems(data, layout) == ["posted_on"]


def test_sixty_people() -> None:
    book = open_book(write(make_full_plan(STUDY, 60)))
    assert len(read_column(book["ASCOT SCT4"], "participant_id")) == 60
    assert len(read_column(book["Due"], "participant_id")) == 60
    days = read_column(book["Due"], "due_on")
    assert days == sorted(days)


# How it is locked, and printed --------------------------------------------------------------------------------------


def test_what_the_study_wrote_is_locked_and_all_else_is_open() -> None:
    book = open_book(write(make_full_plan(STUDY)))
    for page in book:
        if page.title != LISTS_TITLE:
            assert page.protection.sheet
            assert page.protection.password is None
            assert page.protection.formatColumns is False  # allowed
    for title in ("Screening and approach", "Consent", "ONS4", "Queries", "Activity figures"):
        assert book[title].protection.insertRows is False

    def is_locked(title: str, code: str) -> bool:
        page = book[title]
        cell = page[find_cell(page, code, 3)]
        if cell.has_style:
            return bool(cell.protection.locked)
        [column] = [each for each in page.column_dimensions.values() if each.min <= cell.column <= each.max]
        return bool(column.protection.locked)

    locked = {
        "ONS4": ("participant_id", "respondent", "wave"), "Queries": ("query_id", "about", "question"),
        "Consent": ("participant_id", "asked", "consented_on"), "Due": ("participant_id", "due_on"),
        "Activity figures": ("month", "figure", "evaluation"), "Screening and approach": ("participant_id", "cohort"),
    }  # fmt: skip
    opened = {
        "ONS4": ("form", "collected_on", "ons_satisfied"), "Queries": ("answer",), "Due": ("status_checked",),
        "Consent": ("copy_filed", "taken_by", "capacity"), "Activity figures": ("nhs_england",),
        "Screening and approach": ("outcome", "reason"), "Disposition": ("participant_id", "left_on"),
    }  # fmt: skip
    assert {(title, code) for title, codes in locked.items() for code in codes if not is_locked(title, code)} == set()
    assert {(title, code) for title, codes in opened.items() for code in codes if is_locked(title, code)} == set()
    about = book["About"]
    open_cells = {about.cell(row, 2).value for row in range(4, 11) if not about.cell(row, 3).protection.locked}
    assert open_cells == {"posted_on", "sending_number", "correction"}


def test_it_prints_on_a4_landscape_with_headers_and_page_numbers() -> None:
    for page in open_book(write(make_full_plan(STUDY))):
        if page.title == LISTS_TITLE:
            continue
        assert (page.page_setup.paperSize, page.page_setup.orientation) == (9, "landscape")
        assert "luton-2018-01-08-1" in str(page.oddHeader.left.text)
        assert "Luton" in str(page.oddHeader.left.text)
        assert "&P" in str(page.oddFooter.right.text)
        if page.title not in ("Read me", "About"):
            assert page.print_title_rows == "$1:$2"
            assert page.freeze_panes is not None


def test_what_is_given_stands_out_without_colour() -> None:
    page = open_book(write(make_full_plan(STUDY)))["ONS4"]
    given, open_cell = page[find_cell(page, "participant_id", 3)], page[find_cell(page, "form", 3)]
    assert (given.font.bold, open_cell.font.bold) == (True, False)
    assert given.font.size >= 11


def test_answers_are_checked_as_they_are_typed() -> None:
    book = open_book(write(make_full_plan(STUDY)))
    sources = [check.formula1 for check in book["EQ-5D-5L"].data_validations.dataValidation]
    assert any(source and "1,2,3,4,5" in source for source in sources)
    kinds = {check.type for page in book for check in page.data_validations.dataValidation}
    assert {"list", "date", "custom", "whole"} <= kinds


# What is open at a site ---------------------------------------------------------------------------------------------


def told(kind: type[Event], number: int, on: str, **payload: Any) -> Event:
    who = {"participant_id": make_identifier(STUDY, number), "site_id": "luton"}
    return kind(occurred_on=date.fromisoformat(on), requested_by=BY, **who, **payload)


def approached(number: int, outcome: str = "", site_id: str = "luton") -> list[Event]:
    who = {"cohort": "mental_health", "body_id": "luton_ccg"}
    events = [
        told(ParticipantScreened, number, "2017-12-01", **who),
        told(ParticipantApproached, number, "2017-12-04", **who),
    ]
    if outcome:
        events.append(told(ApproachAnswered, number, "2017-12-04", outcome=outcome))
    return events


def signed(number: int, **payload: Any) -> Event:
    usual = {"form_version": "1.0", "scopes": ("questionnaires",), "basis": "signed", "route": "self"}
    return told(ConsentRecorded, number, "2017-12-10", **usual | payload)


def test_people_of_whom_something_is_not_known_are_listed() -> None:
    events = tell(
        *approached(1), *approached(2, "agreed"), *approached(3, "agreed"), signed(3), *approached(4, "declined"),
        *approached(5, "agreed"), signed(5), told(ParticipantAllocated, 5, "2017-12-20", arm="comparison"),
    )  # fmt: skip
    plan = add_what_is_open(STUDY, events, make_plan(STUDY))
    assert plan.approaches.to_dict("records") == [
        {
            "participant_id": make_identifier(STUDY, 1), "cohort": "mental_health", "body": "luton_ccg",
            "approached_on": pd.Timestamp("2017-12-04"), "screened_on": pd.Timestamp("2017-12-01"),
        }
    ]  # fmt: skip
    assert plan.unsigned == (make_identifier(STUDY, 2),)
    assert plan.unallocated == (make_identifier(STUDY, 3),)


def test_the_newest_counts_that_were_told_are_given_again() -> None:
    def report(version: int, count: int) -> Event:
        return ActivityReported(
            occurred_on=date(2018, 1, 3), requested_by=BY, site_id="luton", figure="care_plans", month="2017-12",
            reported_to="evaluation", version=version, count=count,
        )  # fmt: skip

    owed = pd.DataFrame({"month": ["2017-12"] * 2, "figure": ["budgets", "care_plans"]})
    plan = add_what_is_open(STUDY, tell(report(1, 40), report(2, 44)), make_plan(STUDY, figures=owed))
    assert plan.figures["evaluation"].tolist() == [pd.NA, 44]
    assert plan.figures["nhs_england"].isna().all()


# There and back -----------------------------------------------------------------------------------------------------

SENT, BACK = date(2017, 12, 18), date(2018, 1, 8)
ONE, TWO, THREE, FOUR = (make_identifier(STUDY, number) for number in (1, 2, 3, 4))


def at_noon(day: date) -> Callable[[], datetime]:
    return lambda: datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """The IPC evaluation in a folder of its own, with every activity allowed: approvals have tests of their own.

    Two people have consented, one with a form that is not filed; one agreed, and one has not answered yet.
    """
    config = tmp_path / "sites_config" / "ipc"
    shutil.copytree(PROJECT / "sites_config" / "ipc", config)
    shutil.copy(PROJECT / "sites_config" / "cdisc_pilot" / "approvals.toml", config)
    text = (config / "fieldwork.toml").read_text(encoding="utf-8")
    (config / "fieldwork.toml").write_text(text.replace('document = "consent_form"\n', ""), encoding="utf-8")
    settings = Settings(data_folder=tmp_path / "out", sites_config=config.parent, settle_seconds=0)
    workspace = create_workspace("ipc", settings=settings, clock=at_noon(SENT))
    query = QueryRaised(
        occurred_on=date(2017, 12, 11), requested_by=BY, site_id="luton", query_id="LUT-0001", rule="date_missing",
        severity="hard", subject="luton-2017-12-11-1:disposition:D3", sheet="disposition", column_name="left_on",
        row=3, return_id="luton-2017-12-11-1",
    )  # fmt: skip
    people = [*approached(1, "agreed"), *approached(2, "agreed"), *approached(3), *approached(4, "agreed")]
    consents = [signed(1, copy_filed="no", taken_by="site_researcher"), signed(2, copy_filed="yes")]
    issued = IdentifiersIssued(occurred_on=date(2017, 11, 1), requested_by=BY, site_id="luton", first=1, n=20)
    workspace.ledger.append([issued, *people, *consents, query])
    return workspace


def send_pack(workspace: Workspace) -> bytes:
    """Release the baseline at Luton, and fetch the workbook from its outbox."""
    plan = draw_up_plan(workspace, SENT, ["baseline"], ["luton"])
    assert release_packs(workspace, plan, BY).failures == []
    [file] = (workspace.folder / "sites" / "luton" / "outbox").glob("*.xlsx")
    return file.read_bytes()


def return_pack(workspace: Workspace, data: bytes, day: date = BACK) -> tuple[Counter[str], list[str]]:
    """Put it into the inbox, and let the round of a day receive it: its counts, and the texts of the newest receipt."""
    workspace.clock = workspace.ledger.clock = at_noon(day)
    workspace.drop_box("luton").post("pack.xlsx", data)
    counts = receive_site_returns(workspace, "luton", day, BY)
    receipts = (workspace.folder / "sites" / "luton" / "receipts").glob("*.xlsx")
    newest = max(receipts, key=lambda file: file.stat().st_mtime_ns)
    return counts, [text for page in open_book(newest.read_bytes()) for text in read_texts(page)]


def test_what_a_site_fills_in_with_libreoffice_is_accepted(workspace: Workspace, tmp_path: Path) -> None:
    data = send_pack(workspace)
    book = open_book(data)
    new = read_column(book["Screening and approach"], "participant_id")[1]
    plan = {
        ("About", "C6"): "2018-01-08",
        ("Screening and approach", "outcome", 3): "declined",
        ("Screening and approach", "reason", 3): "no_time",
        ("Screening and approach", "cohort", 4): "long_term_conditions",
        ("Screening and approach", "screened_on", 4): "3 Jan 2018",
        ("Screening and approach", "approached_on", 4): "2018-01-04",
        ("Consent", "participant_id", 3): "somebody else",  # locked: it stays
        ("Consent", "copy_filed", 3): "yes",
        ("Consent", "consented_on", 4): "2018-01-04",
        ("Consent", "consent_form_version", 4): "1.0",
        ("Consent", "consent_scopes", 4): "questionnaires; linkage",
        ("Consent", "route", 4): "self",
        ("Consent", "copy_filed", 4): "no",
        ("Allocation", "arm", 3): "intervention",
        ("Allocation", "allocated_on", 3): "2017-12-20",
        ("Allocation", "arm", 4): "comparison",
        ("Allocation", "allocated_on", 4): "2017-12-20",
        ("Disposition", "participant_id", 3): THREE,
        ("Disposition", "scope", 3): "post",
        ("Disposition", "reason", 3): "no_post",
        ("Disposition", "left_on", 3): "2018-01-05",
        ("Activity figures", "evaluation", 3): "12",
        ("Activity figures", "nhs_england", 3): "15",
        ("Queries", "answer", 3): "confirmed",
    }
    for row, person in enumerate((ONE, TWO), start=3):
        assert book["ONS4"][f"A{row}"].value == person
        plan |= {("ONS4", "collected_on", row): "22/12/2017"}
        plan |= {("ONS4", item.id, row): "7" for item in INSTRUMENTS["ons4"].items}
    plan |= {("EQ-5D-5L", "collected_on", 3): "2017-12-22"}
    plan |= {("EQ-5D-5L", item.id, 3): "2" for item in INSTRUMENTS["eq5d5l"].items}
    cells = [
        (key[0], key[1] if len(key) == 2 else find_cell(book[key[0]], *key[1:]), text) for key, text in plan.items()
    ]
    filled = fill_in(data, cells, tmp_path)
    assert open_book(filled)["Consent"]["A3"].value == ONE

    counts, receipt = return_pack(workspace, filled)
    assert counts["queries"] == 0, "\n".join(receipt)
    assert (counts["files"], counts["files quarantined"], counts["records refused"]) == (1, 0, 0)
    assert counts["records accepted"] == 3
    assert "Everything in this workbook was accepted. Thank you." in receipt
    events = workspace.read_events()
    accepted = events.frame(ReturnAccepted)[["participant_id", "instrument"]].to_records(index=False).tolist()
    assert sorted(accepted) == sorted([(ONE, "eq5d5l"), (ONE, "ons4"), (TWO, "ons4")])
    consents = derive_consents(workspace.study, events, BACK).set_index("participant_id")
    assert consents["copy"].to_dict() == {ONE: "held", TWO: "held", FOUR: "missing"}
    assert events.frame(ApproachAnswered).set_index("participant_id")["outcome"][THREE] == "declined"
    assert new in events.frame(ParticipantApproached)["participant_id"].tolist()
    assert sorted(events.frame(ParticipantAllocated)["arm"]) == ["comparison", "intervention"]
    assert events.frame(QueryAnswered)["answer"].tolist() == ["confirmed"]
    assert sorted(events.frame(ActivityReported)["count"]) == [12, 15]


def put_day(book: openpyxl.Workbook, day: date = BACK) -> None:
    cell = next(row[2] for row in book["About"].iter_rows() if row[1].value == "posted_on")
    cell.value = day


@pytest.mark.parametrize("change", [lambda book: None, put_day])
def test_a_pack_sent_back_as_it_was_is_told_so_once_and_asks_nothing(
    workspace: Workspace, change: Callable[[openpyxl.Workbook], None]
) -> None:
    rows = draw_up_plan(workspace, SENT, ["baseline"], ["luton"]).going
    bare = make_plan(workspace.study, rows=rows, first_number=21, n_numbers=50, unsigned=(FOUR,))
    data = edit(write_pack(workspace.study, workspace.instruments, bare, workspace.layout), change)
    counts, receipt = return_pack(workspace, data)
    assert (counts["files"], counts["records accepted"], counts["log entries"], counts["queries"]) == (1, 0, 0, 0)
    assert "This pack came back as we sent it: nothing is filled in." in receipt
    assert "To mend" not in receipt
    events = workspace.read_events()
    assert events.frame(ReturnFileProcessed)["reason"].tolist() == ["nothing_filled_in"]
    assert events.frame(QueryRaised)["query_id"].tolist() == ["LUT-0001"]


def test_a_pack_without_anything_new_says_so(workspace: Workspace) -> None:
    """What the study filled in beforehand of people and their consent is what it knows already."""
    counts, receipt = return_pack(workspace, edit(send_pack(workspace), put_day))
    assert (counts["records accepted"], counts["log entries"], counts["queries"]) == (0, 0, 0), receipt
    assert any("There was nothing new in this workbook" in text for text in receipt)


def test_a_day_that_was_forgotten_is_asked_for_once_and_settled_by_the_next_sending(workspace: Workspace) -> None:
    def answer(book: openpyxl.Workbook) -> None:
        page = book["ONS4"]
        page[find_cell(page, "collected_on", 3)] = date(2017, 12, 22)
        for item in INSTRUMENTS["ons4"].items:
            page[find_cell(page, item.id, 3)] = 5

    def correct(book: openpyxl.Workbook) -> None:
        answer(book)
        put_day(book)

    data = send_pack(workspace)
    counts, _ = return_pack(workspace, edit(data, answer))
    assert (counts["files quarantined"], counts["queries"]) == (1, 1)
    counts, receipt = return_pack(
        workspace, edit(edit(data, answer), lambda book: book["Read me"].__setitem__("A1", "x"))
    )
    queries = derive_queries(workspace.read_events())
    assert queries[queries["rule"] == "about_incomplete"]["status"].tolist() == ["open"]
    counts, receipt = return_pack(workspace, edit(data, correct))
    assert (counts["files quarantined"], counts["records accepted"]) == (0, 1), receipt
    queries = derive_queries(workspace.read_events())
    assert queries[queries["rule"] == "about_incomplete"]["status"].tolist() == ["closed"]


def test_rows_left_empty_are_passed_over_and_sent_later(workspace: Workspace) -> None:
    """A pack may be sent half filled, and again: what is in it is counted once, and what is not is no fault."""

    def answer(*rows: int, day: date) -> Callable[[openpyxl.Workbook], None]:
        def change(book: openpyxl.Workbook) -> None:
            put_day(book, day)
            page = book["ONS4"]
            for row in rows:
                page[find_cell(page, "collected_on", row)] = date(2017, 12, 22)
                for item in INSTRUMENTS["ons4"].items:
                    page[find_cell(page, item.id, row)] = row

        return change

    data = send_pack(workspace)
    counts, receipt = return_pack(workspace, edit(data, answer(4, day=BACK)))
    assert (counts["records accepted"], counts["queries"]) == (1, 0), receipt
    later = BACK + timedelta(days=7)
    counts, receipt = return_pack(workspace, edit(data, answer(3, 4, day=later)), later)
    assert (counts["records accepted"], counts["records repeated"], counts["queries"]) == (1, 1, 0), receipt


def test_what_was_asked_of_a_consent_may_be_answered(workspace: Workspace) -> None:
    """Whether the form is filed and capacity assessed, the month of a 16th birthday: told later, no contradiction."""
    workspace.ledger.append(
        [
            signed(5, route="consultee", capacity="not_assessed", copy_filed="no"),
            signed(6, route="parent", copy_filed="yes"),
            *(event for number in (5, 6) for event in approached(number, "agreed")),
        ]
    )

    def answer(book: openpyxl.Workbook) -> None:
        put_day(book)
        page = book["Consent"]
        places = {page.cell(row, 1).value: row for row in range(3, 8)}
        five, six = (places[make_identifier(STUDY, number)] for number in (5, 6))
        page[find_cell(page, "capacity", five)] = "assessed"
        page[find_cell(page, "copy_filed", five)] = "yes"
        page[find_cell(page, "sixteen_in", six)] = "2019-03"

    counts, receipt = return_pack(workspace, edit(send_pack(workspace), answer))
    assert counts["queries"] == 0, receipt
    consents = derive_consents(workspace.study, workspace.read_events(), BACK).set_index("participant_id")
    found = consents.loc[[make_identifier(STUDY, 5), make_identifier(STUDY, 6)], ["capacity", "copy", "sixteen_in"]]
    assert found.to_numpy().tolist() == [["assessed", "held", ""], ["", "held", "2019-03"]]


# Other studies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("study_id", list_studies())
def test_every_study_that_is_configured_can_send_packs(study_id: str) -> None:
    study = load_study(study_id)
    instruments = load_instruments(study)
    layout = derive_return_layout(study, instruments)
    wave = study.baseline.id
    due = [entry for entry in study.find_scheduled(wave) if entry.instrument in instruments]
    if not due:
        pytest.skip(f"{study_id} has no instrument at its baseline yet")
    rows = make_rows(STUDY, 3).assign(
        participant_id=study.participant_id_example, site_id=study.sites[0].site_id, wave=wave,
        respondent=due[0].respondent, form=due[0].forms[0], instruments=due[0].instrument,
    )  # fmt: skip
    site_id = study.sites[0].site_id
    plan = PackPlan(derive_pack_id(site_id, AS_OF, 1), site_id, AS_OF, "wave", rows.iloc[:1])
    data = write_pack(study, instruments, add_what_is_open(study, tell(), plan), layout)
    reading = read_return_workbook(data, layout, site_id=site_id)
    assert [problem.column for problem in reading.problems] == ["posted_on"]
    assert reading.sheets[due[0].instrument].frame["participant_id"].tolist() == [study.participant_id_example]
    assert write_participant_letters(study, plan, instruments).count(b"<article") == 1
