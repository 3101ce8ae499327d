"""The tables that follow from participants, responses and scores: returns, items, wide, difference-in-difference."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from study.analysis_tables import (
    DID,
    RETURN_STATUSES,
    RETURNS,
    TIMINGS,
    WIDE,
    compute_days_between,
    derive_did_layout,
    derive_further_tables,
    derive_items_rows,
    derive_layouts,
    derive_wide_layout,
    find_characteristics,
    find_groups,
    find_outcomes,
    find_post,
    find_return_statuses,
    find_slots,
    find_timings,
    list_table_rows,
)
from study.datasets import PARTICIPANTS, RESPONSES, SCORES
from study.instruments import MISSING_REASONS, Instrument
from study.protocol import Study
from tasks.definitions import list_studies, load_instruments, load_study
from tasks.releases import assemble_release
from tests.long_answers import hold
from tests.releases import enrol, fill_study, move_clock, open_study, send

DAY = date(2013, 3, 4)
TIMED = {"opens_on": "2013-01-10", "closes_on": "2013-01-20", "late_until": "2013-01-31"}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    workspace = open_study(tmp_path_factory.mktemp("study"))
    fill_study(workspace)
    return {name: rows.read_all() for name, rows in assemble_release(workspace, DAY).rows.items()}


def pick(frame: pd.DataFrame, **key: str) -> pd.Series[Any]:
    for name, value in key.items():
        frame = frame[frame[name] == value]
    (row,) = [row for _, row in frame.iterrows()]
    return row


# Layouts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("study_id", list_studies())
def test_layouts_are_known_before_any_data(study_id: str) -> None:
    study = load_study(study_id)
    instruments = load_instruments(study)
    layouts = derive_layouts(study, instruments)
    items = [f"items_{name}" for name in study.instruments]
    assert list(layouts) == ["participants", "returns", "responses", "scores", WIDE, DID, *items, "dispositions"]
    for table in layouts.values():
        names = table.column_names
        assert len(set(names)) == len(names)
        assert set(table.key) <= set(names)
        assert all(column.label for column in table.columns)
        assert {column.reason for column in table.columns if column.reason} <= set(names)


def test_scores_stand_by_wave_and_respondent_with_all_value_sets() -> None:
    study = load_study("ipc")
    instruments = load_instruments(study)
    names = derive_wide_layout(study, instruments).column_names
    utilities = [scale.id for scale in instruments["eq5d5l"].scales if scale.method == "value_set"]
    assert len(utilities) > 1
    for scale in utilities:
        assert {f"{scale}_{wave.id}" for wave in study.waves} <= set(names)
        assert {f"{scale}_proxy_{wave.id}_missing" for wave in study.waves} <= set(names)
    assert {"site_type", "form_baseline", "form_baseline_proxy", "timing_baseline_carer"} <= set(names)
    did = derive_did_layout(study, instruments)
    assert did.column_names[:9] == [
        *("participant_id", "wave", "wave_number", "group", "post", "interaction", "site", "site_type", "allocation")
    ]


def test_two_scales_of_one_name_are_told_apart() -> None:
    study = load_study("cdisc_pilot")
    instruments = load_instruments(study)
    scale = instruments["mmse"].scales[0]
    other = instruments["hachinski"].model_copy(update={"scales": (scale,)})
    names = {outcome.name for outcome in find_outcomes(study, {**instruments, "hachinski": other})}
    assert {f"mmse_{scale.id}", f"hachinski_{scale.id}"} <= names


def test_an_instrument_without_scores_gives_baseline_characteristics() -> None:
    study = load_study("cdisc_pilot")
    instruments = load_instruments(study)
    waves = tuple(
        wave.model_copy(update={"role": "baseline" if wave.id == "screening" else "follow_up"}) for wave in study.waves
    )
    study = study.model_copy(update={"waves": waves})
    bare = {**instruments, "mmse": instruments["mmse"].model_copy(update={"scales": ()})}
    found = find_characteristics(study, bare)
    assert list(found) == list(instruments["mmse"].item_ids)
    columns = {column.name: column for column in derive_wide_layout(study, bare).columns}
    assert columns["mmse01"].reason == "mmse01_missing"
    assert columns["mmse01"].label.endswith(": at baseline")


# Returns ------------------------------------------------------------------------------------------------------------


def test_a_return_says_what_came_when_and_how(tables: dict[str, pd.DataFrame]) -> None:
    row = pick(tables["returns"], participant_id="01-701-1015", wave="screening")
    assert (row["status"], row["expected"], row["returned"]) == ("partial", 1, 1)
    assert (row["instruments"], row["n_instruments"], row["n_returned"]) == ("mmse;hachinski", 2, 1)
    assert (row["form"], row["is_proxy"], row["is_easy_read"]) == ("standard", 0, 0)
    assert row["anchor_on"] == row["collected_on"] == row["completed_on"] == pd.Timestamp("2012-08-01")
    assert row["days_from_anchor"] == 0
    assert (row["site"], row["arm"]) == ("701", "placebo")
    assert pd.isna(row["not_expected_because"])
    assert pd.isna(row["reason"])


def test_what_is_missing_says_why(tables: dict[str, pd.DataFrame]) -> None:
    stayed = pick(tables["returns"], participant_id="01-701-1015", wave="week_8", respondent="self")
    assert (stayed["expected"], stayed["returned"], stayed["status"]) == (1, 0, "missed")
    assert (stayed["reason"], stayed["reason_kind"]) == ("missed", "unexplained")
    left = pick(tables["returns"], participant_id="01-701-1023", wave="week_24", respondent="self")
    assert (left["reason"], left["reason_kind"]) == ("adverse_event", "loss")
    assert left["left_on"] == pd.Timestamp("2013-02-01")
    never = pick(tables["returns"], participant_id="01-702-1082", wave="week_8", respondent="self")
    assert (never["expected"], never["not_expected_because"]) == (0, "not_allocated")


def test_an_unscheduled_occasion_has_a_row(tables: dict[str, pd.DataFrame]) -> None:
    row = pick(tables["returns"], participant_id="01-701-1023", wave="RETRIEVAL")
    assert (row["status"], row["not_expected_because"]) == ("unscheduled", "unscheduled")
    assert (row["expected"], row["returned"], row["instruments"]) == (0, 1, "cibic_plus")


def test_returns_agree_with_the_responses_to_the_row(tables: dict[str, pd.DataFrame]) -> None:
    slot = ["participant_id", "wave", "respondent"]
    returns, responses = tables["returns"], tables["responses"]
    assert not returns.duplicated(slot).any()
    came = responses.drop_duplicates([*slot, "instrument"]).groupby(slot).size()
    held = returns[returns["returned"] == 1].set_index(slot)["n_returned"]
    pd.testing.assert_series_equal(held.sort_index(), came.sort_index().astype(float), check_names=False)
    assert (returns["returned"] == (returns["n_returned"] > 0)).all()
    assert (returns["expected"] == returns["not_expected_because"].isna()).all()
    assert returns.loc[returns["reason"].notna(), "returned"].eq(0).all()


@pytest.mark.parametrize(
    ("day", "timing"),
    [
        ("2013-01-09", "early"), ("2013-01-10", "in_window"), ("2013-01-20", "in_window"), ("2013-01-21", "late"),
        ("2013-01-31", "late"), ("2013-02-01", "out_of_window"), (None, None),
    ],
)  # fmt: skip
def test_timing_on_the_boundary_days(day: str | None, timing: str | None) -> None:
    table = pd.DataFrame({"completed_on": [day], **{name: [on] for name, on in TIMED.items()}})
    found = find_timings(table.astype("datetime64[us]"))[0]
    assert found == timing if timing else pd.isna(found)
    assert timing is None or timing in TIMINGS


def test_timing_is_unknown_without_a_window() -> None:
    table = pd.DataFrame({"completed_on": ["2013-01-12"], **{key: [None] for key in TIMED}})
    assert find_timings(table.astype("datetime64[us]")).isna().all()


@pytest.mark.parametrize(
    ("row", "status"),
    [
        ({"status": "planned"}, "pending"),
        ({"status": "released"}, "pending"),
        ({"status": "held"}, "pending"),
        ({"status": "missed"}, "missed"),
        ({"status": "returned", "returned": 1.0, "n_told": 2, "n_returned": 2}, "returned"),
        ({"status": "returned", "returned": 1.0, "n_told": 2, "n_returned": 1}, "partial"),  # a part was erased
        ({"status": "returned", "n_told": 2}, "kept_apart"),
        ({"status": None, "is_scheduled": False, "returned": 1.0, "n_returned": 1}, "unscheduled"),
    ],
)
def test_statuses(row: dict[str, Any], status: str) -> None:
    blank = {"is_scheduled": True, "returned": 0.0, "n_told": 0, "n_returned": 0, "n_instruments": 2}
    assert find_return_statuses(pd.DataFrame([{**blank, **row}]))[0] == status
    assert status in RETURN_STATUSES


def test_days_are_whole_and_cross_a_leap_day() -> None:
    since = pd.Series(["2012-02-28", "2013-02-28", None], dtype="datetime64[us]")
    until = pd.Series(["2012-03-01", "2013-03-01", "2013-03-01"], dtype="datetime64[us]")
    assert compute_days_between(since, until).tolist()[:2] == [2, 1]
    assert np.isnan(compute_days_between(since, until)[2])


# Items --------------------------------------------------------------------------------------------------------------


def test_items_hold_every_response_and_reason(tables: dict[str, pd.DataFrame]) -> None:
    responses = tables["responses"]
    for name, frame in tables.items():
        if not name.startswith("items_"):
            continue
        own = responses[responses["instrument"] == name.removeprefix("items_")]
        items = [column for column in frame if f"{column}_missing" in frame]
        key = ["participant_id", "wave", "respondent"]
        values = frame.melt(key, items, "item", "response").dropna(subset="response")
        merged = own.merge(values, on=[*key, "item"], how="left", suffixes=("", "_"))
        pd.testing.assert_series_equal(merged["response"], merged["response_"], check_names=False)
        reasons = frame.melt(key, [f"{item}_missing" for item in items], "item", "missing_reason")
        reasons = reasons.dropna(subset="missing_reason")
        assert len(values) + len(reasons) == len(items) * len(frame)


def test_an_item_that_a_record_does_not_have_is_not_returned() -> None:
    study = load_study("cdisc_pilot")
    instrument = load_instruments(study)["mmse"]
    rows = [
        dict(zip(RESPONSES.column_names, row, strict=True))
        for row in [
            ("p", "screening", "self", "mmse", "mmse01", 5.0, None, pd.Timestamp(DAY), "x", "standard"),
            ("p", "screening", "self", "mmse", "mmse02", None, "refused", pd.Timestamp(DAY), "x", "standard"),
        ]
    ]
    answers = hold(RESPONSES.shape(pd.DataFrame(rows)), study, {"mmse": instrument})
    (row,) = derive_items_rows(answers, instrument, 0, 1).to_dict("records")
    assert (row["mmse01"], row["mmse02_missing"], row["mmse03_missing"]) == (5, "refused", "not_returned")
    assert pd.isna(row["mmse01_missing"])


# Analysis tables ----------------------------------------------------------------------------------------------------


def test_wide_scores_are_those_of_scores(tables: dict[str, pd.DataFrame]) -> None:
    wide = tables[WIDE]
    assert wide["participant_id"].tolist() == tables["participants"]["participant_id"].tolist()
    row = pick(wide, participant_id="01-701-1015")
    score = pick(tables["scores"], participant_id="01-701-1015", scale="mmse_total")["score"]
    assert row["mmse_total_screening"] == score
    assert pd.isna(row["mmse_total_screening_missing"])
    assert (row["group"], row["site"], row["allocation"]) == (0, "701", "randomised")
    refused = pick(wide, participant_id="01-701-1023")
    assert pd.isna(refused["mmse_total_screening"])
    assert refused["mmse_total_screening_missing"] == "refused"


def test_every_blank_score_has_a_reason_to_the_end(tables: dict[str, pd.DataFrame]) -> None:
    for name in (WIDE, DID):
        frame = tables[name]
        scores = [column for column in frame if f"{column}_missing" in frame]
        assert scores
        for score in scores:
            assert (frame[score].isna() == frame[f"{score}_missing"].notna()).all()
            assert frame[f"{score}_missing"].dropna().isin(MISSING_REASONS).all()


def test_not_returned_and_not_asked_are_told_apart(tables: dict[str, pd.DataFrame]) -> None:
    stayed, never = (pick(tables[WIDE], participant_id=who) for who in ("01-701-1015", "01-702-1082"))
    assert stayed["adas_cog_11_week_8_missing"] == "not_returned"  # expected, and it did not come
    assert stayed["hachinski_total_screening_missing"] == "not_returned"  # the other half of a return came
    assert never["adas_cog_11_week_8_missing"] == "not_asked"  # never allocated
    did = pick(tables[DID], participant_id="01-701-1015", wave="week_2")
    assert did["adas_cog_11_missing"] == "not_asked"  # the schedule has it at other waves


def test_difference_in_difference(tables: dict[str, pd.DataFrame]) -> None:
    did = tables[DID]
    study = load_study("cdisc_pilot")
    waves = [wave.id for wave in study.waves if wave.role != "screening"]
    assert sorted(set(did["participant_id"])) == ["01-701-1015", "01-701-1023"]  # who was never allocated has no group
    assert did["wave"].tolist() == waves * 2
    assert did["wave_number"].tolist() == list(range(len(waves))) * 2
    assert (did["post"] == (did["wave"] != "baseline")).all()
    assert did.groupby("participant_id")["group"].unique().map(list).to_dict() == {
        "01-701-1015": [0],
        "01-701-1023": [1],
    }
    assert (did["interaction"] == did["group"] * did["post"]).all()


def test_the_earliest_answers_time_a_wave(tmp_path: Path) -> None:
    workspace = open_study(tmp_path)
    move_clock(workspace, date(2012, 9, 3))
    enrol(workspace, "01-701-1015", "placebo")
    send(workspace, "01-701-1015", "week_8", date(2012, 9, 28), {"cibic": 4}, instrument="cibic_plus")
    dad = {"dad01": 1.0}
    send(workspace, "01-701-1015", "week_8", date(2012, 9, 26), dad, instrument="dad", respondent="carer", number=2)
    move_clock(workspace, DAY)
    assembled = assemble_release(workspace, DAY)
    row = pick(assembled.tables[DID], wave="week_8")
    assert (row["collected_on"], row["days_from_anchor"]) == (pd.Timestamp("2012-09-26"), 56)
    wide = assembled.tables[WIDE].iloc[0]
    assert (wide["days_from_anchor_week_8"], wide["days_from_anchor_week_8_carer"]) == (58, 56)


def test_a_score_that_the_schedule_does_not_ask_for_stands_in_scores_alone(tmp_path: Path) -> None:
    workspace = open_study(tmp_path)
    move_clock(workspace, date(2012, 9, 3))
    enrol(workspace, "01-701-1015", "placebo")
    send(workspace, "01-701-1015", "week_2", date(2012, 8, 15), {"cibic": 4}, instrument="cibic_plus")
    tables = assemble_release(workspace, date(2012, 9, 3)).tables
    assert pick(tables["scores"], wave="week_2")["score"] == 4
    assert pick(tables["returns"], wave="week_2", respondent="self")["status"] == "unscheduled"
    assert tables[DID]["cibic_plus"].isna().all()
    assert pick(tables[DID], wave="week_2")["cibic_plus_missing"] == "not_asked"


def test_arms_and_waves_in_the_design() -> None:
    study = load_study("cdisc_pilot")
    groups = find_groups(pd.Series(["placebo", "high_dose", "low_dose", None]), study)
    assert groups.tolist()[:3] == [0, 1, 1]
    assert np.isnan(groups[3])
    assert {wave.id: find_post(wave) for wave in study.waves if wave.role != "screening"}["baseline"] == 0
    assert next(slot for slot in find_slots(study) if slot[0].id == "screening")[1] == "self"


@pytest.mark.parametrize("study_id", list_studies())
def test_a_study_without_anybody_has_typed_tables(study_id: str) -> None:
    study = load_study(study_id)
    tables = derive_empty(study, load_instruments(study))
    for name, table in derive_layouts(study, load_instruments(study)).items():
        assert len(tables[name]) == 0
        pd.testing.assert_frame_equal(tables[name], table.shape(tables[name]))


def derive_empty(study: Study, instruments: dict[str, Instrument]) -> dict[str, pd.DataFrame]:
    from study.analysis_tables import derive_asked_returns
    from study.attrition import derive_attrition_rows
    from study.flow import derive_dispositions_layout
    from study.state import Events

    layouts = (PARTICIPANTS, SCORES, derive_dispositions_layout(study))
    empty = {table.name: table.shape(pd.DataFrame(columns=table.column_names)) for table in layouts}
    answers = hold(RESPONSES.shape(pd.DataFrame(columns=RESPONSES.column_names)), study, instruments)
    events = Events({})
    asked, rows = derive_asked_returns(study, events, DAY), derive_attrition_rows(study, events, DAY)
    tables = derive_further_tables(empty, answers, asked, rows, study, instruments)
    return {name: one.read_all() for name, one in list_table_rows(tables, answers, study, instruments).items()}


def test_names_of_returns_are_an_interface() -> None:
    assert RETURNS.column_names == [
        *(
            "participant_id",
            "wave",
            "respondent",
            "site",
            "arm",
            "cohort",
            "expected",
            "not_expected_because",
            "reason",
        ),
        *("reason_kind", "returned", "status", "instruments", "n_instruments", "n_returned", "form", "is_proxy"),
        *("is_easy_read", "anchor_on", "opens_on", "due_on", "closes_on", "late_until", "collected_on"),
        *("completed_on", "days_from_anchor", "timing", "in_window", "left_on"),
    ]
