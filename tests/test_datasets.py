"""The tables of a release and what a report counts in them, by literal tables."""

import datetime as dt
from collections.abc import Callable
from functools import cache
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.analysis_tables import derive_scores_table
from study.answers import derive_records
from study.datasets import (
    PARTICIPANTS,
    RECORD_KEY,
    RESPONSES,
    SCORES,
    TABLES,
    derive_answered_after_leaving,
    derive_attendance,
    derive_dispositions,
    derive_means,
    derive_missing_answers,
    derive_participants_table,
    derive_site_counts,
    find_participant_faults,
    find_score_faults,
)
from study.instruments import Instrument
from study.protocol import Study
from study.value_sets import list_profiles
from tasks.definitions import load_instrument, load_instruments, load_study
from tests.long_answers import collect, hold, list_records

DAY = dt.date(2013, 3, 4)
ADAS = {f"adas{n:02}": 1.0 for n in range(1, 15)}
MMSE = {"mmse01": 5.0, "mmse02": 4.0, "mmse03": 3.0, "mmse04": 4.0, "mmse05": 3.0, "mmse06": 8.0}


@cache
def load() -> tuple[Study, dict[str, Instrument]]:
    study = load_study("cdisc_pilot")
    return study, load_instruments(study)


def make_people(*people: dict[str, object]) -> pd.DataFrame:
    """One row for each; what is not said: site 701, the pilot's cohort, screened and consented on 1 August 2012."""
    usual = dict.fromkeys(PARTICIPANTS.column_names) | {
        "site": "701", "cohort": "alzheimers_disease", "screened_on": dt.date(2012, 8, 1), "consent_basis": "assumed",
        "consented_on": dt.date(2012, 8, 1),
    }  # fmt: skip
    return PARTICIPANTS.shape(pd.DataFrame([usual | person for person in people], columns=PARTICIPANTS.column_names))


def make_answers(
    participant_id: str,
    wave: str = "baseline",
    answers: dict[str, float | str] | None = None,
    *,
    instrument: str = "mmse",
    respondent: str = "self",
    on: dt.date = dt.date(2012, 9, 1),
) -> pd.DataFrame:
    rows = [
        {
            "participant_id": participant_id, "wave": wave, "respondent": respondent, "instrument": instrument,
            "item": item, "response": np.nan if isinstance(value, str) else value,
            "missing_reason": value if isinstance(value, str) else None, "collected_on": on, "return_id": "701-1",
            "form": "standard", "responses_sha256": "a",
        }
        for item, value in (MMSE if answers is None else answers).items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def make_responses(*parts: pd.DataFrame) -> pd.DataFrame:
    return RESPONSES.shape(
        pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=RESPONSES.column_names)
    )


def read_table(responses: pd.DataFrame, returns: pd.DataFrame | None = None) -> pd.DataFrame:
    """The table RESPONSES of a release with these answers."""
    study, instruments = load()
    answers, faults = collect(responses, study, instruments, returns)
    assert faults == []
    return RESPONSES.shape(answers.read_rows(0, answers.n_answers))


def make_records(*parts: pd.DataFrame) -> pd.DataFrame:
    return derive_records(make_responses(*parts))


# The tables


def test_column_names_are_an_interface() -> None:
    assert PARTICIPANTS.column_names[:7] == [
        "participant_id", "site", "arm", "cohort", "consented_on", "disposition", "disposition_on"
    ]  # fmt: skip
    record = ["participant_id", "wave", "respondent", "instrument"]
    assert RESPONSES.column_names[:9] == [
        *record, "item", "response", "missing_reason", "collected_on", "return_id"
    ]  # fmt: skip
    assert SCORES.column_names[:8] == [*record, "scale", "score", "missing_reason", "collected_on"]
    assert all(set(table.key) <= set(table.column_names) for table in TABLES.values())


@pytest.mark.parametrize("name", TABLES)
def test_an_empty_table_is_typed(name: str) -> None:
    table = TABLES[name].shape(pd.DataFrame(columns=TABLES[name].column_names))
    expected = {"text": "str", "number": "float64", "date": "datetime64[us]"}
    assert {column: str(kind) for column, kind in table.dtypes.items()} == {
        column.name: expected[column.type] for column in TABLES[name].columns
    }


def test_participants_are_ordered_by_identifier_as_text() -> None:
    people = make_people({"participant_id": "00010"}, {"participant_id": "00007"}, {"participant_id": "0001"})
    table = derive_participants_table(people.rename(columns={"site": "site_id"}))
    assert table["participant_id"].tolist() == ["00007", "0001", "00010"]


def test_rows_follow_the_protocol_and_the_definitions() -> None:
    answers = [
        make_answers("b", "week_8"),
        make_answers("a", "RETRIEVAL"),
        make_answers("a", "AMBUL ECG REMOVAL"),
        make_answers("a", "week_10"),
        make_answers("a", "week_8", ADAS, instrument="adas_cog"),
        make_answers("a", "week_8"),
        make_answers("a", "week_8", {"dad02": 1.0, "dad01": 0.0}, instrument="dad", respondent="carer"),
    ]
    table = read_table(pd.concat(answers, ignore_index=True))
    places = table[RECORD_KEY].drop_duplicates().apply(tuple, axis="columns").tolist()
    assert places == [
        ("a", "week_8", "carer", "dad"),
        ("a", "week_8", "self", "adas_cog"),
        ("a", "week_8", "self", "mmse"),
        ("a", "week_10", "self", "mmse"),
        ("a", "AMBUL ECG REMOVAL", "self", "mmse"),
        ("a", "RETRIEVAL", "self", "mmse"),
        ("b", "week_8", "self", "mmse"),
    ]
    assert table["item"].tolist()[:4] == ["dad01", "dad02", "adas01", "adas02"]


@given(st.randoms())
def test_the_order_of_the_input_leaves_no_trace(random: Random) -> None:
    study, instruments = load()
    raw = pd.concat([make_answers(name, wave) for name in "ab" for wave in ("week_8", "X", "baseline")])
    returns = list_records(make_responses(raw))
    order = list(range(len(raw)))
    random.shuffle(order)
    pd.testing.assert_frame_equal(read_table(raw.iloc[order], returns.sample(frac=1)), read_table(raw, returns))
    shuffled, straight = (hold(rows, study, instruments) for rows in (raw.iloc[order], raw))
    pd.testing.assert_frame_equal(derive_scores_table(shuffled), derive_scores_table(straight))


@pytest.mark.parametrize("change", [{"return_id": "701-2"}, {"responses_sha256": "b"}, {"wave": "week_8"}])
def test_answers_of_a_record_that_is_not_current_stay_out(change: dict[str, str]) -> None:
    old = make_answers("a")
    current = make_answers("a", answers={**MMSE, "mmse01": 0.0}).assign(**change)
    returns = list_records(make_responses(current)).assign(**change)
    table = read_table(pd.concat([old, current]), returns)
    assert table["response"].tolist() == [0.0, 4.0, 3.0, 4.0, 3.0, 8.0]


def test_scores_follow_the_definition_and_say_why_they_are_missing() -> None:
    study, instruments = load()
    responses = make_responses(
        make_answers("a"),
        make_answers("b", answers={**MMSE, "mmse02": "refused"}),
        make_answers("c", answers={name: MMSE[name] for name in list(MMSE)[:5]}),
    )
    scores = derive_scores_table(hold(responses, study, instruments))
    assert scores["scale"].tolist() == ["mmse_total"] * 3
    assert scores["score"].tolist()[0] == 27
    assert scores["score"].isna().tolist() == [False, True, True]
    assert SCORES.shape(scores)["missing_reason"].fillna("").tolist() == ["", "refused", "not_returned"]
    assert scores["collected_on"].tolist() == [pd.Timestamp("2012-09-01")] * 3


def test_a_score_by_age_and_sex_takes_them_from_who_told_them() -> None:
    """EQ-5D-5L of a participant at two waves and of a carer; the participant told age and sex once, at the first."""
    study = load_study("ipc")
    instruments = load_instruments(study) | {"sociodemographics": load_instrument("sociodemographics")}
    levels = {"eq5d5l_mo": 5.0, "eq5d5l_sc": 5.0, "eq5d5l_ua": 5.0, "eq5d5l_pd": 4.0, "eq5d5l_ad": 2.0}
    asked = {"instrument": "sociodemographics", "answers": {"socio_age": 34.0, "socio_sex": 1.0}}
    eq5d = {"instrument": "eq5d5l", "answers": {**levels, "eq5d5l_vas": 20.0}}
    responses = make_responses(
        make_answers("a", **asked, on=dt.date(2016, 12, 1)),
        make_answers("a", **eq5d, on=dt.date(2016, 12, 1)),
        make_answers("a", "follow_up_12m", **eq5d, on=dt.date(2017, 12, 5)),
        make_answers("b", **eq5d),
    )
    scores = derive_scores_table(hold(responses, study, instruments))
    assert find_score_faults(scores, make_people({"participant_id": "a"}, {"participant_id": "b"})) == []
    mapped = scores[scores["scale"] == "eq5d5l_dsu_uk"].set_index(["participant_id", "wave"])
    table = load_instrument("eq5d5l").find_value_set("dsu_uk")
    assert table is not None
    values = table.values[:, list_profiles(table).index("55542")]
    assert mapped.loc[("a", "baseline"), "score"] == values[0]  # men from 18 to 34
    assert mapped.loc[("a", "follow_up_12m"), "score"] == values[2]  # men from 35 to 44
    assert values[0] != values[2]
    assert mapped.loc[("b", "baseline"), "missing_reason"] == "not_returned"
    shuffled = derive_scores_table(hold(responses.iloc[::-1], study, instruments))
    pd.testing.assert_frame_equal(shuffled, scores)


# What a release must be


def find_faults(responses: pd.DataFrame, returns: pd.DataFrame | None = None) -> list[str]:
    study, instruments = load()
    people = make_people({"participant_id": "a"}, {"participant_id": "b"})
    return collect(responses, study, instruments, returns, people, DAY)[1]


def test_sound_tables_have_no_faults() -> None:
    responses = make_responses(make_answers("a"), make_answers("b", answers={**MMSE, "mmse02": "refused"}))
    study, instruments = load()
    assert find_faults(responses) == []
    people = make_people({"participant_id": "a"}, {"participant_id": "b"})
    assert find_participant_faults(people, study) == []
    assert find_score_faults(derive_scores_table(hold(responses, study, instruments)), people) == []
    assert find_faults(make_responses()) == []


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda rows: pd.concat([rows, rows.iloc[:2]]), "responses: 2 rows repeat the key of another ("),
        (lambda rows: rows.assign(participant_id="00007"), "responses: 6 rows belong to nobody in participants."),
        (lambda rows: rows.assign(item=rows["item"].where(rows.index > 0)), "mmse: 1 answers belong to an item that"),
        (lambda rows: rows.assign(form=["easy_read"] + ["standard"] * 5), "responses: 5 rows tell another form or day"),
        (lambda rows: rows.assign(instrument="mmmse"), "responses.instrument: 6 rows have a code"),
        (lambda rows: rows.assign(respondent="proxy"), "responses.respondent: 6 rows have a code"),
        (lambda rows: rows.assign(form="easy_read"), "responses.form: 6 rows have a code"),
        (lambda rows: rows.assign(missing_reason="lost", response=np.nan), "responses.missing_reason: 6 rows have a"),
        (lambda rows: rows.assign(missing_reason="refused"), "responses: 6 rows have both a response and a missing_"),
        (lambda rows: rows.assign(response=np.nan), "responses: 6 rows have both a response and a missing_reason, or"),
        (lambda rows: rows.assign(collected_on=dt.date(2013, 3, 5)), "responses.collected_on: 6 rows are dated after"),
        (lambda rows: rows.assign(collected_on=None), "responses.collected_on: 6 rows are dated after 2013-03-04, or"),
        (lambda rows: rows.assign(response=[5, 4, 3, 4, 3, 1234.0]), "mmse.mmse06: 1 records break the rule"),
        (lambda rows: rows.assign(item=rows["item"].replace("mmse06", "x")), "mmse: 1 answers belong to an item that"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_by_place_and_count(spoil: Callable[[pd.DataFrame], pd.DataFrame], fault: str) -> None:
    faults = find_faults(RESPONSES.shape(spoil(make_responses(make_answers("a")))))
    assert len(faults) == (2 if "form or day" in fault else 1), faults
    assert faults[-1].startswith(fault)
    assert not any(value in " ".join(faults) for value in ("1234", "00007", "lost"))


def test_all_faults_are_told_at_once() -> None:
    rows = make_responses(make_answers("a")).assign(participant_id="c", form="x", missing_reason="refused")
    assert len(find_faults(RESPONSES.shape(rows))) == 3


def test_answers_that_the_ledger_knows_of_and_that_are_gone_are_noticed() -> None:
    responses = make_responses(make_answers("a"), make_answers("b"))
    told = "responses: 1 records do not hold as many answers as the ledger says were accepted."
    assert find_faults(responses.iloc[:-1], list_records(responses)) == [told]
    assert find_faults(responses[responses["participant_id"] == "a"], list_records(responses)) == [told]
    blanked = responses.assign(
        response=responses["response"].where(responses.index > 0),
        missing_reason=responses["missing_reason"].where(responses.index > 0, "refused"),
    )
    assert find_faults(blanked, list_records(responses)) == [told]


def test_a_broken_routing_is_counted_once() -> None:
    rows = make_answers("a", answers={"npi01_present": 0.0, "npi01_frequency": 3.0}, instrument="npi_x")
    assert find_faults(make_responses(rows)) == [
        "npi_x: 1 records break the rule answered_though_not_asked: npi01_frequency."
    ]


def test_people_with_strange_codes_are_told() -> None:
    study, _ = load()
    strange = {"site": "999", "arm": "sham", "cohort": "x", "disposition": "bored"}
    faults = find_participant_faults(make_people({"participant_id": "a", **strange}, {"participant_id": "a"}), study)
    assert [fault.split(":")[0] for fault in faults] == [
        "participants", *(f"participants.{name}" for name in ("site", "arm", "cohort", "disposition"))
    ]  # fmt: skip
    assert not any(code in " ".join(faults) for code in ("999", "sham", "bored"))


def test_scores_are_held_to_the_same() -> None:
    scores = SCORES.shape(pd.DataFrame([dict.fromkeys(SCORES.column_names) | {"participant_id": "z", "score": 1.0}]))
    people = make_people({"participant_id": "a"})
    assert find_score_faults(scores, people) == [
        "scores: 1 rows have a blank in their key (participant_id, wave, respondent, instrument, scale).",
        "scores: 1 rows belong to nobody in participants.",
    ]


# What a report counts

PEOPLE = [
    {"participant_id": "a", "arm": "placebo"},
    {"participant_id": "b", "arm": "placebo", "disposition": "death"},
    {"participant_id": "c", "arm": "low_dose"},
    {"participant_id": "d", "site": "702", "disposition": "screen_failure"},
]


def test_attendance() -> None:
    study, _ = load()
    responses = make_responses(
        make_answers("a", "week_8", ADAS, instrument="adas_cog"),
        make_answers("a", "week_8", ADAS, instrument="adas_cog", respondent="carer"),  # one person, whoever answered
        make_answers("c", "week_8", ADAS, instrument="adas_cog"),
        make_answers("c", "RETRIEVAL", ADAS, instrument="adas_cog"),
        make_answers("d", "screening"),
    )
    table = derive_attendance(derive_records(responses), make_people(*PEOPLE), study)
    assert table.columns.tolist() == [
        "instrument", "wave", "placebo", "high_dose", "low_dose", "not_allocated", "total"
    ]  # fmt: skip
    assert table.apply(tuple, axis="columns").tolist() == [
        ("adas_cog", "baseline", 0, 0, 0, 0, 0),
        ("adas_cog", "week_8", 1, 0, 1, 0, 2),
        ("adas_cog", "week_16", 0, 0, 0, 0, 0),
        ("adas_cog", "week_24", 0, 0, 0, 0, 0),
        ("adas_cog", "RETRIEVAL", 0, 0, 1, 0, 1),
        ("mmse", "screening", 0, 0, 0, 1, 1),
    ]


def test_attendance_of_nobody() -> None:
    study, _ = load()
    assert derive_attendance(make_records(), make_people(), study).empty


@pytest.mark.parametrize("people", [PEOPLE, []])
def test_dispositions_add_up_to_everyone(people: list[dict[str, object]]) -> None:
    study, _ = load()
    table = derive_dispositions(make_people(*people), study).set_index("disposition")
    assert table.index.tolist() == [*(reason.id for reason in study.disposition_reasons), "not_recorded"]
    assert table["total"].sum() == len(people)
    assert (table.drop(columns="total").sum(axis="columns") == table["total"]).all()
    if people:
        assert table.loc["death"].tolist() == [1, 0, 0, 0, 1]
        assert table.loc["screen_failure"].tolist() == [0, 0, 0, 1, 1]
        assert table.loc["not_recorded"].tolist() == [1, 0, 1, 0, 2]


def test_means_keep_respondents_apart_and_count_scores_only() -> None:
    study, instruments = load()
    responses = make_responses(
        make_answers("a", "week_8"),
        make_answers("b", "week_8", {**MMSE, "mmse01": 1.0}),
        make_answers("b", "week_8", {**MMSE, "mmse01": 0.0}, respondent="carer"),
        make_answers("c", "week_8", {**MMSE, "mmse01": "refused"}),
        make_answers("d", "week_8"),  # in no arm
    )
    scores = derive_scores_table(hold(responses, study, instruments))
    table = derive_means(scores, make_people(*PEOPLE), study)
    assert table["respondent"].tolist() == ["carer", "self"]
    assert table["n"].tolist() == [1, 2]
    assert table["mean"].tolist() == [22.0, 25.0]
    assert table["sd"].fillna(-1).round(6).tolist() == [-1, 2.828427]
    assert derive_means(scores.iloc[:0], make_people(), study).empty


def test_missing_answers_by_reason() -> None:
    study, _ = load()
    responses = make_responses(
        make_answers("a", answers={**MMSE, "mmse01": "refused", "mmse02": "not_answered"}),
        make_answers("a", answers=ADAS, instrument="adas_cog"),
    )
    table = derive_missing_answers(derive_records(responses), study).set_index("instrument")
    assert table.loc["mmse", ["n_items", "n_answered", "refused", "not_answered"]].tolist() == [6, 4, 1, 1]
    assert table.loc["adas_cog", ["n_items", "n_answered"]].tolist() == [14, 14]
    assert (
        table.drop(columns=["n_items", "n_answered"]).sum(axis="columns") == table["n_items"] - table["n_answered"]
    ).all()
    assert derive_missing_answers(make_records(), study).empty


@pytest.mark.parametrize(
    ("left_on", "scope", "n"),
    [("2012-08-31", "treatment", 1), ("2012-09-01", "treatment", 0), ("2012-08-31", "study", 0)],
)
def test_who_answered_after_leaving_treatment(left_on: str, scope: str, n: int) -> None:
    dispositions = pd.DataFrame(
        {"participant_id": ["a", "a"], "scope": [scope, "study"], "reason": ["adverse_event", "death"],
         "occurred_on": pd.to_datetime([left_on, "2012-12-01"])}
    )  # fmt: skip
    table = derive_answered_after_leaving(make_records(make_answers("a")), dispositions)
    assert table["reason"].tolist() == ["adverse_event"] * n


def test_every_site_is_counted() -> None:
    study, _ = load()
    responses = make_responses(make_answers("a"), make_answers("d", "screening"))
    files = pd.DataFrame(
        {"site_id": ["701", "701", "702"], "outcome": ["accepted", "quarantined", "accepted"], "n_refused": [2, 0, 1]}
    )
    queries = pd.DataFrame({"site_id": ["701", "701"], "status": ["open", "closed"]})
    table = derive_site_counts(make_people(*PEOPLE), derive_records(responses), files, queries, study).set_index("site")
    assert table.index.tolist() == [site.site_id for site in study.sites]
    assert table.loc["701"].tolist() == [3, 3, 1, 2, 1, 2, 2, 1]
    assert table.loc["702"].tolist() == [1, 0, 1, 1, 0, 1, 0, 0]
    assert table.drop(index=["701", "702"]).to_numpy().sum() == 0
