import datetime as dt
from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.fieldwork import Fieldwork
from study.pack_layout import (
    ABOUT,
    ABOUT_FIELDS,
    ABOUT_TITLE,
    ACTIVITY,
    ALLOCATION,
    DISPOSITION,
    DUE,
    EARLIEST_DAY,
    LATEST_DAY,
    LAYOUT_VERSION,
    LOG_SHEETS,
    QUERIES,
    RECORD_KEYS,
    SCREENING,
    Choice,
    Column,
    Problem,
    Reading,
    ReadSheet,
    derive_return_layout,
    fold_title,
    parse_answer,
    parse_count,
    parse_date,
    parse_month,
    parse_text,
)
from tests.return_workbooks import LAYOUT, list_studies, load_layout

DAYS = st.dates(EARLIEST_DAY, LATEST_DAY)


@pytest.mark.parametrize("study_id", list_studies())
def test_every_configured_study_has_a_layout_that_excel_can_hold(study_id):
    layout = load_layout(study_id)
    assert (layout.study_id, layout.version) == (study_id, LAYOUT_VERSION)
    codes = [sheet.code for sheet in layout.sheets]
    own = [code for code in codes if code in (*LOG_SHEETS, ACTIVITY, QUERIES, DUE)]
    assert own == codes[: len(own)]
    assert {SCREENING, ALLOCATION, DISPOSITION, QUERIES, DUE} <= set(own)
    titles = [ABOUT_TITLE, *(sheet.title for sheet in layout.sheets)]
    assert len({fold_title(title) for title in titles}) == len(titles)
    for sheet in layout.sheets:
        assert 1 <= len(sheet.title) <= 31
        assert not set(sheet.title) & set("[]:*?/\\")
        assert len(set(sheet.codes)) == len(sheet.codes)
        assert all(column.label for column in sheet.columns)
        assert sheet.telling_codes
        if sheet.code in LOG_SHEETS:
            assert sheet.codes[0] == "participant_id"
            assert any(column.kind == "date" for column in sheet.columns)
        elif sheet.code not in own:
            assert sheet.codes[:5] == RECORD_KEYS
            assert all(column.kind == "item" for column in sheet.columns[5:])
            assert all(column.choices or column.minimum is not None for column in sheet.columns[5:])
    telling = [code for sheet in layout.sheets for code in sheet.telling_codes]
    assert len(set(telling)) == len(telling)


def test_the_pilot_layout_holds_what_its_sites_fill_in():
    layout = load_layout("cdisc_pilot")
    assert layout.sheet_by_code["screening"].codes == (
        "participant_id", "cohort", "screened_on", "consented_on", "consent_form_version", "consent_scopes",
    )  # fmt: skip
    assert layout.sheet_by_code["allocation"].codes == ("participant_id", "arm", "allocated_on")
    assert layout.sheet_by_code["disposition"].codes == ("participant_id", "scope", "reason", "left_on")
    adas = layout.sheet_by_code["adas_cog"]
    assert adas.codes[5:] == tuple(f"adas{number:02}" for number in range(1, 15))
    assert not adas.column_by_code["wave"].only_choices  # the pilot has unscheduled visits
    assert adas.column_by_code["adas02"].answers_in_words == "0 to 5"
    assert adas.column_by_code["adas01"].answers_in_words == "a number from 0 to 10"
    frequency = layout.sheet_by_code["npi_x"].column_by_code["npi01_frequency"]
    assert frequency.advice == "Only if npi01_present is 1; otherwise leave blank."
    assert "96 not applicable" in layout.sheet_by_code["dad"].column_by_code["dad01"].expected


def test_two_sheets_with_one_title_are_refused():
    def instrument(code, title):
        return SimpleNamespace(id=code, sheet_title=title, respondents=("self",), forms=("standard",), items=())

    study = SimpleNamespace(
        study_id="bridge", title="Bridge study", waves=(), cohorts=(), arms=(), disposition_reasons=(), sites=(),
        consent_forms=(), consent_scopes=(), participant_id_example="B-1", instruments=("a", "b"),
        accepts_unscheduled=False, respondents=(), forms=(), consent_basis="assumed", fieldwork=Fieldwork(),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"two sheets of the return have the title walking"):
        derive_return_layout(study, {"a": instrument("a", "Walking"), "b": instrument("b", "walking ")})
    with pytest.raises(ValueError, match="the title about"):
        derive_return_layout(study, {"a": instrument("a", "ABOUT"), "b": instrument("b", "B")})
    study.instruments = ("screening",)
    with pytest.raises(ValueError, match="the code screening"):
        derive_return_layout(study, {"screening": instrument("screening", "Walking")})


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (Column("a", "A", "item", (Choice("0", "no"), Choice("1", "yes"))), "0 = no, 1 = yes"),
        (Column("a", "A", "item", tuple(Choice(str(n), str(n)) for n in range(6))), "0 to 5"),
        (Column("a", "A", "item", (Choice("0", ""), Choice("1", ""), Choice("9", ""))), "0, 1, 9"),
        (Column("a", "A", "text", (Choice("low", "low dose"), Choice("week_8", "WEEK 8"))), "low (low dose), week_8"),
        (Column("a", "A", "item", minimum=0, maximum=7.5), "a number from 0 to 7.5"),
        (Column("a", "A", "item", minimum=0, maximum=7, whole_numbers=True), "a whole number from 0 to 7"),
        (Column("a", "A", "date"), "a date"),
        (
            Column("a", "A", "item", minimum=0, maximum=7, missing=(Choice("-9", "not answered"),)),
            "a number from 0 to 7; or -9 not answered",
        ),
    ],
)
def test_what_may_be_typed_is_said_in_words(column, expected):
    assert column.expected == expected


@pytest.mark.parametrize(
    ("value", "day"),
    [
        (dt.date(2014, 3, 28), (2014, 3, 28)),
        (dt.datetime.fromisoformat("2014-03-28T13:30"), (2014, 3, 28)),
        (pd.Timestamp("2014-03-28"), (2014, 3, 28)),
        (41726.0, (2014, 3, 28)),
        (41726.75, (2014, 3, 28)),
        ("2014-03-28", (2014, 3, 28)),
        ("2014-03-28T00:00:00", (2014, 3, 28)),
        ("2014-03-28 13:30", (2014, 3, 28)),
        ("28/03/2014", (2014, 3, 28)),
        ("3/4/2014", (2014, 4, 3)),  # day first, always
        ("28.3.2014", (2014, 3, 28)),
        ("28-03-2014", (2014, 3, 28)),
        ("28 Mar 2014", (2014, 3, 28)),
        ("28-Mar-2014", (2014, 3, 28)),
        ("28th March 2014", (2014, 3, 28)),
        ("1 sept 2014", (2014, 9, 1)),
        ("\u00a028/03/2014 ", (2014, 3, 28)),
        ("29/02/2016", (2016, 2, 29)),
    ],
)
def test_dates_that_are_understood(value, day):
    assert parse_date(value).date == dt.date(*day)
    assert not parse_date(value).is_fault


@pytest.mark.parametrize(
    "value",
    [
        "03/28/2014", "28/13/2014", "29/02/2014", "31/04/2014", "28/03/14", "March 2014", "28 Mars 2014", "soon", "n/a",
        "28/03-2014", "2014", 0.5, -3.0, 5.0, 1e9, float("inf"), True, dt.time(10), dt.date(1900, 1, 5),
        dt.date(2100, 1, 1), dt.timedelta(1), "٢٨/٠٣/٢٠١٤", "#REF!",
    ],
)  # fmt: skip
def test_dates_that_are_not_understood_are_faults_and_never_guessed(value):
    assert parse_date(value).date is None
    assert parse_date(value).is_fault


@pytest.mark.parametrize("value", [None, "", "  ", "\u00a0", pd.NaT])
def test_a_blank_date_is_no_fault(value):
    assert parse_date(value).date is None
    assert not parse_date(value).is_fault


@given(DAYS, st.sampled_from(["%Y-%m-%d", "%d/%m/%Y", "%d %b %Y", "%d %B %Y", "%d.%m.%Y"]))
def test_every_day_is_read_back_from_each_way_of_writing_it(day, form):
    assert parse_date(day.strftime(form)).date == day


@given(DAYS)
def test_serial_numbers_count_from_the_workbooks_own_epoch(day):
    assert parse_date((day - dt.date(1899, 12, 30)).days).date == day
    assert parse_date((day - dt.date(1904, 1, 1)).days, is_1904=True).date == day


@given(st.one_of(st.text(), st.floats(), st.booleans(), st.none(), st.datetimes(), st.dates(), st.times()))
def test_no_cell_whatever_stops_the_readers_of_cells(value):
    assert isinstance(parse_text(value), str)
    parse_answer(value)
    parsed = parse_date(value)
    assert parsed.date is None or (EARLIEST_DAY <= parsed.date <= LATEST_DAY and not parsed.is_fault)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("LUT-001", "LUT-001"),
        ("  LUT-001\u00a0", "LUT-001"),
        ("\ufeffLUT-001\u200b\n", "LUT-001"),
        ("LUT\u00a0001", "LUT 001"),
        (701.0, "701"),
        (701.5, "701.5"),
        (0.0, "0"),
        (True, "TRUE"),
        (None, ""),
        ("", ""),
        (dt.date(2014, 3, 1), "2014-03-01"),
        (dt.datetime.fromisoformat("2014-03-01"), "2014-03-01"),
        ("0003", "0003"),
    ],
)
def test_identifiers_are_text_without_blanks_around(value, text):
    assert parse_text(value) == text


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (3.0, 3.0),
        ("3", 3.0),
        (" 3\u00a0", 3.0),
        ("-9", -9.0),
        ("2.5", 2.5),
        ("3 - severe", "3 - severe"),
        ("3,5", "3,5"),
        ("1e5", "1e5"),
        ("٣", "٣"),
        ("", None),
        ("  ", None),
        ("\u00a0", None),
        (True, True),
        (dt.datetime.fromisoformat("2014-03-01"), dt.date(2014, 3, 1)),
    ],
)
def test_answers_stay_as_typed_except_for_numbers_typed_as_text(value, answer):
    read = parse_answer(value)
    assert read == answer
    assert type(read) is type(answer)


def test_hard_problems_stop_their_rows_and_soft_ones_none():
    problems = (
        Problem("merged_cells", "hard", "walk", row=5, last_row=7),
        Problem("formula_in_cell", "hard", "walk", row=3, last_row=3),
        Problem("unknown_column", "soft", "walk", row=2, last_row=2),
        Problem("missing_column", "hard", "walk"),
        Problem("formula_in_cell", "hard", "mood", row=9, last_row=9),
    )
    reading = Reading({}, {}, problems)
    assert reading.find_stopped_rows("walk") == {3, 5, 6, 7}
    assert reading.find_stopped_rows("mood") == {9}


def test_a_fault_can_be_addressed_as_a_cell():
    read = ReadSheet("walk", "Walking scale", 2, pd.DataFrame(), {"walk01": "F", "walk02": "AB"})
    assert read.find_cell("walk01", 14) == "F14"
    assert read.find_cell("walk02", 3) == "AB3"
    assert read.find_cell("walk03", 3) == ""


def test_titles_are_the_studys_own():
    assert LAYOUT.find_title("walk") == "Walking scale"
    assert LAYOUT.find_title(ABOUT) == "About"
    assert LAYOUT.find_title("sheet_4") == "sheet 4"
    assert LAYOUT.find_title("elsewhere") == ""
    assert [field.code for field in ABOUT_FIELDS] == [
        "study", "site", "posted_on", "sending_number", "correction", "layout_version", "pack_id",
    ]  # fmt: skip


# Logs of consent, approach, figures and queries ---------------------------------------------------------------------


def test_the_layout_of_a_study_with_signed_consent():
    layout = load_layout("ipc")
    codes = {sheet.code: sheet.codes for sheet in layout.sheets}
    assert list(codes)[:7] == [
        "screening", "consent", "allocation", "disposition", "activity", "queries", "due",
    ]  # fmt: skip
    assert codes["screening"] == (
        "participant_id", "cohort", "body", "screened_on", "approached_on", "outcome", "reason",
    )  # fmt: skip
    assert codes["consent"] == (
        "participant_id", "consented_on", "consent_form_version", "consent_scopes", "route", "taken_by", "capacity",
        "sixteen_in", "copy_filed", "form", "asked",
    )  # fmt: skip
    assert codes["activity"] == ("month", "figure", "evaluation", "nhs_england")
    assert codes["queries"] == ("query_id", "about", "question", "answer")
    titles = {sheet.code: sheet.title for sheet in layout.sheets}
    assert (titles["screening"], titles["consent"]) == ("Screening and approach", "Consent")
    assert (titles["activity"], titles["queries"], titles["due"]) == ("Activity figures", "Queries", "Due")
    assert [sheet.code for sheet in layout.sheets if sheet.is_for_reading] == ["due"]


def test_drop_downs_hold_what_the_study_lists():
    layout = load_layout("ipc")

    def choices(sheet, column):
        return [choice.code for choice in layout.sheet_by_code[sheet].column_by_code[column].choices]

    assert choices("disposition", "scope") == ["treatment", "questionnaires", "linkage", "post", "data", "study"]
    assert choices("consent", "route") == ["self", "consultee", "parent"]
    assert choices("consent", "taken_by")[0] == "site_researcher"
    assert choices("activity", "figure") == ["care_plans", "budgets"]
    months = choices("activity", "month")
    assert (months[0], months[5], months[6], months[-1], len(months)) == (
        "2017-07", "2017-12", "2018-01", "2018-11", 17,
    )  # fmt: skip
    pilot = load_layout("cdisc_pilot").sheet_by_code["disposition"]
    assert [choice.code for choice in pilot.column_by_code["scope"].choices] == ["treatment", "study"]


def test_a_workbook_of_the_old_layout_is_read_where_nothing_of_it_changed():
    assert load_layout("cdisc_pilot").reads_also == ("1",)
    assert load_layout("ipc").reads_also == ()


@pytest.mark.parametrize(
    ("value", "month"),
    [
        ("2018-03", "2018-03"),
        ("2018-3", "2018-03"),
        (" 2018/03\u00a0", "2018-03"),
        ("03/2018", "2018-03"),
        ("3.2018", "2018-03"),
        ("March 2018", "2018-03"),
        ("mar 2018", "2018-03"),
        ("Sept-2018", "2018-09"),
        (dt.date(2018, 3, 1), "2018-03"),
        (dt.datetime.fromisoformat("2018-03-01"), "2018-03"),
        (43160.0, "2018-03"),
        (None, ""),
        ("", ""),
        ("  ", ""),
        (pd.NaT, ""),
    ],
)
def test_months_that_are_understood(value, month):
    parsed = parse_month(value)
    assert (parsed.month, parsed.is_fault) == (month, False)


@pytest.mark.parametrize(
    "value",
    [
        dt.date(2018, 3, 2), dt.date(2002, 3, 14), 43161.0, "14/03/2002", "2002-03-14", "14 March 2002", "2018-13",
        "2018-00", "1979-12", "2100-01", "18-03", "March", "2018", "n/a", "Smarch 2018", True, 0.5,
    ],
)  # fmt: skip
def test_a_date_is_no_month_so_that_no_birthday_comes_in_by_the_month_of_it(value):
    parsed = parse_month(value)
    assert (parsed.month, parsed.is_fault) == ("", True)


@pytest.mark.parametrize(
    ("value", "count"),
    [(0.0, 0), (131.0, 131), ("131", 131), (" 1,310 ", 1310), ("12,345,678", None), (9_999_999, 9_999_999)],
)
def test_counts_that_are_understood(value, count):
    parsed = parse_count(value)
    assert (parsed.count, parsed.is_fault) == (count, count is None)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_blank_count_is_no_fault(value):
    assert (parse_count(value).count, parse_count(value).is_fault) == (None, False)


@pytest.mark.parametrize(
    "value",
    [-1.0, 2.5, "about 100", "1.310,5", "1,31", "12%", 10_000_000, 1e20, float("inf"), True, dt.date(2018, 3, 1)],
)
def test_counts_that_are_not_understood_are_faults_and_never_guessed(value):
    assert (parse_count(value).count, parse_count(value).is_fault) == (None, True)


@given(st.one_of(st.text(), st.floats(), st.booleans(), st.none(), st.datetimes(), st.dates(), st.times()))
def test_no_cell_whatever_stops_the_readers_of_months_and_counts(value):
    month, count = parse_month(value), parse_count(value)
    assert month.month == "" or (len(month.month) == 7 and not month.is_fault)
    assert count.count is None or (count.count >= 0 and not count.is_fault)
