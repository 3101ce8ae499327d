"""Return workbooks and receipts: written, read back by us and by others, the same every time."""

import datetime as dt
import io
import shutil
import statistics
import subprocess
import time
import zipfile
from dataclasses import replace

import openpyxl
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from study.pack_layout import ABOUT_TITLE, LISTS_TITLE, Choice, fold_title
from tasks.workbooks import (
    ReceiptRow,
    ReceiptSummary,
    read_return_workbook,
    write_blank_return,
    write_receipt_workbook,
    write_return_workbook,
)
from tests.conftest import give_up
from tests.return_workbooks import ABOUT, LAYOUT, edit, list_studies, load_layout, make_frames, make_return
from tests.services import ServiceMissing

SOFFICE = shutil.which("soffice")
WALK = LAYOUT.sheet_by_code["walk"]


def open_workbook(data: bytes) -> openpyxl.Workbook:
    return openpyxl.load_workbook(io.BytesIO(data))


def assert_frames_equal(read: pd.DataFrame, written: pd.DataFrame) -> None:
    expected = written.astype(object).where(written.notna(), None)
    for column in expected:
        values = [value.date() if isinstance(value, pd.Timestamp) else value for value in expected[column]]
        assert read[column].tolist() == values, column


def test_a_return_is_read_back_as_it_was_written():
    reading = read_return_workbook(make_return(), LAYOUT, site_id="LUT")
    assert reading.problems == ()
    assert reading.about == {
        "study": "bridge",
        "site": "LUT",
        "posted_on": dt.date(2014, 3, 28),
        "sending_number": 2,
        "correction": 0,
        "layout_version": "1",
        "pack_id": "",
    }
    assert list(reading.sheets) == ["allocation", "walk", "mood"]
    for code, frame in make_frames().items():
        assert_frames_equal(reading.sheets[code].frame, frame)
    walk = reading.sheets["walk"]
    assert list(walk.frame.columns) == ["row", *WALK.codes]
    assert walk.frame["row"].tolist() == [3, 4, 5]
    assert str(walk.frame["row"].dtype) == "int64"
    assert walk.find_cell("walk01", 4) == "F4"
    assert walk.missing_columns == ()
    assert walk.found_by == "codes"


def test_the_same_input_gives_the_same_bytes_at_any_time():
    first = make_return()
    time.sleep(2.1)  # a zip keeps times to two seconds
    assert make_return() == first
    assert make_return(sending_number=3) != first
    core = zipfile.ZipFile(io.BytesIO(first)).read("docProps/core.xml").decode()
    assert core.count("2014-03-28T00:00:00Z") == 2


def test_a_return_without_a_posting_date_is_the_same_every_time_too():
    assert write_blank_return(LAYOUT, "LUT") == write_blank_return(LAYOUT, "LUT")


identifiers = st.text("ABC0123456789-", min_size=1, max_size=12)
days = st.dates(dt.date(2000, 1, 1), dt.date(2030, 12, 31))
answers = st.one_of(st.none(), st.sampled_from([0.0, 1.0, 5.0, -9.0, 7.0, 12.25]), st.just("two"), st.booleans())
records = st.fixed_dictionaries(
    {
        "participant_id": identifiers,
        "respondent": st.sampled_from(["self", "carer"]),
        "form": st.just("standard"),
        "wave": st.sampled_from(["baseline", "week_8", "RETRIEVAL", "=1+1", "@x", "<&>\"'"]),
        "collected_on": st.none() | days,
        "walk01": answers,
        "walk02": answers,
        "walk03": answers,
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(records, min_size=1, max_size=12))
def test_any_records_make_the_round_trip(rows):
    frame = pd.DataFrame(rows, columns=list(WALK.codes), dtype=object)
    reading = read_return_workbook(write_return_workbook(LAYOUT, ABOUT, {"walk": frame}), LAYOUT)
    assert reading.problems == ()
    read = reading.sheets["walk"].frame
    assert_frames_equal(read, frame)
    assert read.map(type).eq(bool).sum().sum() == frame.map(type).eq(bool).sum().sum()


def test_dates_may_come_as_any_kind_of_date():
    frame = make_frames()["walk"].iloc[:3].copy()
    frame["collected_on"] = [dt.date(2014, 3, 1), pd.Timestamp("2014-03-02"), dt.datetime.fromisoformat("2014-03-03")]
    reading = read_return_workbook(write_return_workbook(LAYOUT, ABOUT, {"walk": frame}), LAYOUT)
    assert reading.sheets["walk"].frame["collected_on"].tolist() == [dt.date(2014, 3, day) for day in (1, 2, 3)]


@pytest.mark.parametrize("blank", [None, "", float("nan"), pd.NA, pd.NaT])
def test_every_kind_of_blank_is_an_empty_cell(blank):
    frame = pd.DataFrame([["LUT-001", *[blank] * 7]], columns=list(WALK.codes), dtype=object)
    data = write_return_workbook(LAYOUT, ABOUT, {"walk": frame})
    assert [cell.value for cell in open_workbook(data)["Walking scale"][3]] == ["LUT-001", *[None] * 7]


def test_columns_that_are_not_given_stay_blank_and_unknown_ones_are_refused():
    frame = make_frames()["walk"][["participant_id", "walk03"]]
    read = read_return_workbook(write_return_workbook(LAYOUT, ABOUT, {"walk": frame}), LAYOUT).sheets["walk"].frame
    assert read["walk03"].tolist() == [400.0, 12.0, -8.0]
    assert read["walk01"].tolist() == [None] * 3
    assert read["wave"].tolist() == [""] * 3
    with pytest.raises(ValueError, match='"Walking scale" has no columns'):
        write_return_workbook(LAYOUT, ABOUT, {"walk": frame.assign(walk99=1)})
    with pytest.raises(ValueError, match=r"\['gait'\] are not in the layout"):
        write_return_workbook(LAYOUT, ABOUT, {"gait": frame})


def test_openpyxl_reads_the_same_and_finds_the_help_for_people():
    workbook = open_workbook(make_return())
    assert workbook.sheetnames == ["About", "Allocation", "Walking scale", "Mood"]
    sheet = workbook["Walking scale"]
    assert [cell.value for cell in sheet[1]] == [column.label for column in WALK.columns]
    assert [cell.value for cell in sheet[2]] == list(WALK.codes)
    assert [sheet.cell(row, 1).value for row in (3, 4, 5)] == ["LUT-001", "LUT-002", "0003"]
    assert sheet["A5"].data_type == "s"
    assert sheet["A5"].number_format == sheet.column_dimensions["A"].number_format == "@"  # typed later, it stays text
    assert sheet["E3"].value == dt.datetime.fromisoformat("2014-03-01")
    assert sheet["E3"].number_format == "dd mmm yyyy"
    assert [sheet["F3"].value, sheet["G4"].value, sheet["H5"].value] == [0, None, -8]
    assert sheet.freeze_panes == "E3"
    assert sheet.print_title_rows == "$1:$2"
    assert sheet.page_setup.orientation == "landscape"
    assert (sheet.page_setup.fitToWidth or 1, sheet.page_setup.fitToHeight) == (1, 0)
    assert sheet.sheet_properties.pageSetUpPr.fitToPage
    checks = {str(check.sqref): check for check in sheet.data_validations.dataValidation}
    assert checks["B3:B1002"].formula1 == '"self,carer"'
    assert checks["D3:D1002"].formula1 == '"baseline,week_8"'
    assert checks["D3:D1002"].errorStyle == "warning"
    assert checks["E3:E1002"].type == "date"
    assert checks["F3:G1002"].formula1 == '"0,1,2,3,4,5,-9,-8"'
    assert checks["F3:G1002"].prompt == "0 to 5; or -9 not answered, -8 refused."
    assert checks["H3:H1002"].formula1 == "OR(AND(ISNUMBER(H3),H3>=0,H3<=400,INT(H3)=H3),H3=-9,H3=-8)"
    workbook.close()


@pytest.mark.parametrize("study_id", list_studies())
def test_every_sheet_of_every_study_can_be_used_from_the_blank_workbook_alone(study_id):
    layout = load_layout(study_id)
    data = write_blank_return(layout, layout.site_ids[0], posted_on=dt.date(2026, 1, 5), sending_number=1)
    reading = read_return_workbook(data, layout, site_id=layout.site_ids[0])
    assert reading.problems == ()
    to_fill_in = [sheet for sheet in layout.sheets if not sheet.is_for_reading]
    assert list(reading.sheets) == [sheet.code for sheet in to_fill_in]
    assert all(read.frame.empty and not read.missing_columns for read in reading.sheets.values())
    workbook = open_workbook(data)
    for sheet in to_fill_in:
        page = workbook[sheet.title]
        checked = " ".join(str(check.sqref) for check in page.data_validations.dataValidation)
        for column, cell in zip(sheet.columns, page[3], strict=True):
            if column.choices or column.kind in {"date", "count", "item"}:
                assert any(cell.coordinate in area for area in page.data_validations.dataValidation), column.code
        assert checked
        for check in page.data_validations.dataValidation:
            assert len(check.formula1 or "") <= 257
            assert len(check.prompt or "") <= 255
        assert page.print_area
    legend = {fold_title(str(cell.value)) for cell in workbook[ABOUT_TITLE]["A"]}
    assert {fold_title(sheet.title) for sheet in layout.sheets if sheet.code == "screening"} <= legend
    workbook.close()


def test_a_drop_down_too_long_for_a_cell_takes_its_entries_from_a_hidden_sheet():
    waves = tuple(Choice(f"wave, number {number}", "") for number in range(40))
    columns = tuple(replace(column, choices=waves) if column.code == "wave" else column for column in WALK.columns)
    layout = replace(LAYOUT, sheets=(replace(WALK, columns=columns),))
    data = write_return_workbook(layout, ABOUT, {"walk": make_frames()["walk"]})
    workbook = open_workbook(data)
    assert workbook[LISTS_TITLE].sheet_state == "hidden"
    assert [cell.value for cell in workbook[LISTS_TITLE]["A"]] == [wave.code for wave in waves]
    checks = {str(check.sqref): check.formula1 for check in workbook["Walking scale"].data_validations.dataValidation}
    assert checks["D3:D1002"] == "Lists!$A$1:$A$40"
    workbook.close()
    assert read_return_workbook(data, layout).problems == ()


def test_a_blank_return_tells_what_is_still_to_be_filled_in():
    reading = read_return_workbook(write_blank_return(LAYOUT, "LUT"), LAYOUT, site_id="LUT")
    assert [(problem.rule, problem.column, problem.cell) for problem in reading.problems] == [
        ("about_incomplete", "posted_on", "C6"),
        ("about_incomplete", "sending_number", "C7"),
    ]
    assert reading.about["site"] == "LUT"


def test_a_person_fills_in_a_blank_return():
    def fill_in(workbook):
        workbook["About"]["C6"] = "28 March 2014"
        workbook["About"]["C7"] = 1
        page = workbook["Walking scale"]
        for column, value in enumerate(
            ["LUT-001 ", "self", "standard", "baseline", "01/03/2014", 3, "4", 120], start=1
        ):
            page.cell(3, column).value = value

    blank = write_blank_return(LAYOUT, "LUT")
    reading = read_return_workbook(edit(blank, fill_in), LAYOUT, site_id="LUT")
    assert reading.problems == ()
    assert reading.about["posted_on"] == dt.date(2014, 3, 28)
    [row] = reading.sheets["walk"].frame.to_dict("records")
    assert row == {
        "row": 3, "participant_id": "LUT-001", "respondent": "self", "form": "standard", "wave": "baseline",
        "collected_on": dt.date(2014, 3, 1), "walk01": 3.0, "walk02": 4.0, "walk03": 120.0,
    }  # fmt: skip


@pytest.mark.parametrize("target", ["xlsx", "xlsx:Calc MS Excel 2007 XML"])
def test_what_libreoffice_saves_is_read_the_same(tmp_path, target):
    if SOFFICE is None:
        give_up(ServiceMissing("LibreOffice is not on this machine. Install it: apt-get install libreoffice-calc."))
    source = tmp_path / "return.xlsx"
    source.write_bytes(make_return())
    profile = f"-env:UserInstallation=file://{tmp_path}/profile"
    command = [SOFFICE, profile, "--headless", "--convert-to", target, "--outdir", str(tmp_path / "saved"), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    saved = (tmp_path / "saved" / "return.xlsx").read_bytes()
    assert saved != source.read_bytes()
    reading = read_return_workbook(saved, LAYOUT, site_id="LUT")
    assert reading.problems == ()
    for code, frame in make_frames().items():
        assert_frames_equal(reading.sheets[code].frame, frame)
    sheet = open_workbook(saved)["Walking scale"]
    assert any("self,carer" in (check.formula1 or "") for check in sheet.data_validations.dataValidation)


# Receipts -------------------------------------------------------------------------------------------------------------

SUMMARY = ReceiptSummary(
    study_title="Bridge study",
    site_id="LUT",
    return_id="LUT-2014-03-28-2",
    outcome="accepted_in_part",
    received_on=dt.date(2014, 3, 31),
    posted_on=dt.date(2014, 3, 28),
    sending_number=2,
    n_accepted=17,
    n_repeated=3,
    n_superseded=1,
    n_refused=2,
    n_log_entries=4,
    notes=("Sites are assumed to post weekly.",),
)
ROWS = [
    ReceiptRow(
        "Walking scale", "F14", "LUT-001", "baseline", "walk", "walk01", "This is not one of the answers.",
        "Check the questionnaire; expected is 0 to 5.", "LUT-0001", "hard",
    ),
    ReceiptRow(
        "Mood", "F3", "LUT-002", "week_8", "mood", "mood01", '=HYPERLINK("http://example.org")', "+1", "LUT-0002",
        "soft",
    ),
]  # fmt: skip


def read_texts(data: bytes) -> dict[str, list[str]]:
    workbook = open_workbook(data)
    texts = {
        sheet.title: [str(cell.value) for row in sheet.iter_rows() for cell in row if cell.value is not None]
        for sheet in workbook
    }
    workbook.close()
    return texts


def test_a_receipt_says_what_became_of_the_file_and_what_to_do():
    data = write_receipt_workbook(SUMMARY, ROWS)
    assert write_receipt_workbook(SUMMARY, ROWS) == data
    texts = read_texts(data)
    assert list(texts) == ["Read me", "To mend"]
    readme = texts["Read me"]
    counts = {label: readme[readme.index(label) + 1] for label in readme if label in {
        "Accepted", "Repeated", "Replaced", "Not accepted", "Entries in the logs", "To be mended", "To be checked",
    }}  # fmt: skip
    assert counts == {
        "Accepted": "17", "Repeated": "3", "Replaced": "1", "Not accepted": "2", "Entries in the logs": "4",
        "To be mended": "1", "To be checked": "1",
    }  # fmt: skip
    assert "Part of this workbook was accepted; some of it needs your attention." in readme
    assert any("Correction" in text for text in readme)
    assert "1.  Sites are assumed to post weekly." in readme
    assert texts["To mend"][10:14] == ["LUT-0001", "Must be mended", "Walking scale", "F14"]
    assert "Please check" in texts["To mend"]


def test_text_in_a_receipt_is_never_a_formula():
    workbook = open_workbook(write_receipt_workbook(SUMMARY, ROWS))
    cells = [cell for sheet in workbook for row in sheet.iter_rows() for cell in row]
    assert not [cell.coordinate for cell in cells if cell.data_type == "f"]
    assert workbook["To mend"]["I3"].value == '=HYPERLINK("http://example.org")'
    workbook.close()


def test_a_receipt_of_a_clean_return_asks_for_nothing():
    texts = read_texts(write_receipt_workbook(replace(SUMMARY, outcome="accepted", n_refused=0), []))
    assert list(texts) == ["Read me"]
    assert "1.  Nothing: there is nothing to mend." in texts["Read me"]


def test_a_receipt_of_a_quarantined_file_says_why_and_counts_nothing():
    summary = ReceiptSummary(
        "Bridge study", "LUT", "", "quarantined", dt.date(2014, 3, 31), reason="This workbook holds macros.",
        what_to_do="Save it without macros and send that.",
    )  # fmt: skip
    texts = read_texts(write_receipt_workbook(summary, []))["Read me"]
    assert "This workbook was put aside unread. Nothing in it was accepted." in texts
    assert "This workbook holds macros." in texts
    assert "1.  Save it without macros and send that." in texts
    assert "not known" in texts
    assert "Accepted" not in texts


# Speed ----------------------------------------------------------------------------------------------------------------


def test_a_weekly_workbook_costs_little_to_write_and_to_read():
    """The replay writes and reads 1,150 of these; the limits are three times what one costs on an idle core."""
    layout = load_layout("cdisc_pilot")
    frames = {}
    for code in ("screening", "disposition", "adas_cog", "cibic_plus", "dad", "mmse"):
        sheet = layout.sheet_by_code[code]
        cell = {"text": "01-701-1015", "date": dt.date(2014, 1, 2), "item": 1.0}
        frames[code] = pd.DataFrame({column.code: [cell[column.kind]] * 4 for column in sheet.columns})
    about = {"site": "701", "posted_on": dt.date(2014, 1, 20), "sending_number": 1}
    spent_writing, spent_reading = [], []
    for _ in range(15):
        started = time.process_time()
        data = write_return_workbook(layout, about, frames)
        between = time.process_time()
        read_return_workbook(data, layout)
        spent_writing.append(between - started)
        spent_reading.append(time.process_time() - between)
    assert statistics.median(spent_writing) < 0.060
    assert statistics.median(spent_reading) < 0.036


# Logs -----------------------------------------------------------------------------------------------------------------

IPC = load_layout("ipc")
IPC_ABOUT = {"site": "luton", "posted_on": dt.date(2017, 9, 29), "sending_number": 1, "pack_id": "luton-2017-09-04-1"}


def make_logs() -> dict[str, pd.DataFrame]:
    consent = pd.DataFrame(
        {
            "participant_id": ["LUT-P00013", "LUT-P00021"],
            "consented_on": [dt.date(2017, 9, 11), dt.date(2017, 9, 12)],
            "consent_form_version": "1.0",
            "consent_scopes": "questionnaires;linkage",
            "route": ["self", "parent"],
            "taken_by": "site_researcher",
            "sixteen_in": ["", "2018-03"],
        },
        dtype=object,
    )
    activity = pd.DataFrame(
        {
            "month": ["2017-07", "2017-08", "2017-08"],
            "figure": ["care_plans", "care_plans", "budgets"],
            "evaluation": [120, 0, None],
            "nhs_england": [131.0, None, None],
        },
        dtype=object,
    )
    queries = pd.DataFrame({"query_id": ["luton-0001"], "about": ["A row"], "question": ["Which?"], "answer": [""]})
    due = pd.DataFrame(
        {"participant_id": ["LUT-P00013"], "wave": ["baseline"], "respondent": ["self"], "form": ["standard"],
         "opens_on": [dt.date(2017, 9, 11)]}
    )  # fmt: skip
    return {"consent": consent, "activity": activity, "queries": queries, "due": due}


def test_months_counts_and_answers_make_the_round_trip():
    reading = read_return_workbook(write_return_workbook(IPC, IPC_ABOUT, make_logs()), IPC, site_id="luton")
    assert reading.problems == ()
    assert (reading.about["pack_id"], reading.about["layout_version"]) == ("luton-2017-09-04-1", "2")
    assert list(reading.sheets) == ["consent", "activity", "queries"]  # what is due is for reading only
    assert reading.sheets["consent"].frame["sixteen_in"].tolist() == ["", "2018-03"]
    activity = reading.sheets["activity"].frame
    assert activity["month"].tolist() == ["2017-07", "2017-08", "2017-08"]
    assert activity["evaluation"].tolist() == [120, 0, None]
    assert activity["nhs_england"].tolist() == [131, None, None]
    assert [type(count) for count in activity["evaluation"]] == [int, int, type(None)]
    assert reading.sheets["queries"].frame["query_id"].tolist() == ["luton-0001"]


def test_months_and_counts_as_people_type_them():
    def type_in(workbook):
        consent, activity = workbook["Consent"], workbook["Activity figures"]
        consent["H3"] = dt.datetime(2018, 3, 1)  # noqa: DTZ001 (a spreadsheet program knows no time zones)
        consent["H4"] = "March 2018"
        activity["A3"], activity["C3"], activity["D3"] = "07/2017", "1,120", " 131 "

    data = edit(write_return_workbook(IPC, IPC_ABOUT, make_logs()), type_in)
    reading = read_return_workbook(data, IPC, site_id="luton")
    assert reading.problems == ()
    assert reading.sheets["consent"].frame["sixteen_in"].tolist() == ["2018-03", "2018-03"]
    first = reading.sheets["activity"].frame.iloc[0]
    assert (first["month"], first["evaluation"], first["nhs_england"]) == ("2017-07", 1120, 131)


def test_a_birthday_and_words_for_a_count_are_named_by_their_place_and_never_repeated():
    def type_in(workbook):
        workbook["Consent"]["H4"] = dt.datetime(2002, 3, 14)  # noqa: DTZ001 (as above)
        workbook["Activity figures"]["A4"] = "last summer"
        workbook["Activity figures"]["C3"] = "about 120"

    data = edit(write_return_workbook(IPC, IPC_ABOUT, make_logs()), type_in)
    reading = read_return_workbook(data, IPC, site_id="luton")
    assert [(problem.rule, problem.sheet, problem.cell, problem.row) for problem in reading.problems] == [
        ("month_not_understood", "consent", "H4", 4),
        ("month_not_understood", "activity", "A4", 4),
        ("count_not_understood", "activity", "C3", 3),
    ]
    assert reading.sheets["consent"].frame["sixteen_in"].tolist() == ["", ""]
    for typed in ("2002", "14", "summer", "about"):
        assert typed not in "".join(problem.expected for problem in reading.problems)


def test_sheets_for_reading_are_passed_over_whatever_they_are_called():
    def add(workbook):
        workbook.create_sheet("Read me", 0)["A1"] = "How to"
        workbook["Due"].title = "what is due"

    data = edit(write_return_workbook(IPC, IPC_ABOUT, make_logs()), add)
    assert read_return_workbook(data, IPC, site_id="luton").problems == ()


@pytest.mark.parametrize(
    ("study_id", "version", "rules"),
    [
        ("cdisc_pilot", "1", []),
        ("cdisc_pilot", "2", []),
        ("cdisc_pilot", "3", ["wrong_layout_version"]),
        ("ipc", "2", []),
        ("ipc", "1", ["wrong_layout_version"]),
    ],
)
def test_an_older_layout_is_read_where_nothing_of_it_changed(study_id, version, rules):
    layout = load_layout(study_id)
    frames = {"allocation": pd.DataFrame({"participant_id": ["x"], "arm": ["y"], "allocated_on": [None]})}
    about = {"site": layout.site_ids[0], "posted_on": dt.date(2017, 9, 29), "sending_number": 1}
    data = write_return_workbook(layout, about | {"layout_version": version}, frames)
    assert [problem.rule for problem in read_return_workbook(data, layout).problems] == rules


def test_logs_that_libreoffice_saves_are_read_the_same(tmp_path):
    if SOFFICE is None:
        give_up(ServiceMissing("LibreOffice is not on this machine. Install it: apt-get install libreoffice-calc."))
    source = tmp_path / "logs.xlsx"
    source.write_bytes(write_return_workbook(IPC, IPC_ABOUT, make_logs()))
    profile = f"-env:UserInstallation=file://{tmp_path}/profile"
    command = [SOFFICE, profile, "--headless", "--convert-to", "xlsx", "--outdir", str(tmp_path / "saved"), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    reading = read_return_workbook((tmp_path / "saved" / "logs.xlsx").read_bytes(), IPC, site_id="luton")
    assert reading.problems == ()
    assert reading.sheets["consent"].frame["sixteen_in"].tolist() == ["", "2018-03"]
    assert reading.sheets["activity"].frame["evaluation"].tolist() == [120, 0, None]
