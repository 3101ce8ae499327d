"""How instruments behaved: figures against published and independent ones, each flag by a frame made for it, pages."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

from desk.command_line import app
from rehearsal.pilot_source import read_source
from study.analysis_tables import derive_scores_table
from study.answers import Answers
from study.datasets import PARTICIPANTS, RESPONSES
from study.instrument_parser import parse_instrument
from study.instruments import MISSING_REASONS, DefinitionFaults, Instrument
from study.protocol import Study
from study.psychometrics import (
    FIGURE_COLUMNS,
    FLAGS,
    LIMITS,
    Psychometrics,
    band_answers,
    compute_agreement,
    compute_same_level_share,
    compute_variability,
    derive_flags,
    derive_psychometrics,
    derive_response_quality,
    find_contradictable,
    find_limits,
    find_longest_runs,
    read_distribution,
)
from study.state import Head
from tasks.definitions import load_instrument, load_instruments, load_study
from tasks.psychometrics_page import InstrumentsReport, write_instruments_report
from tasks.releases import freeze_release, read_latest_tables, write_current_instruments
from tasks.settings import PROJECT
from tests.long_answers import collect
from tests.release_studies import FIELDWORK, make_study
from tests.releases import BY, fill_study, open_study

DEFINITION = """
id = "mood"
title = "Mood"
sheet_title = "Mood"
version = "1"
citation = "Written for this test."
licence = "Free to use."
respondents = ["self", "proxy"]
forms = ["standard", "easy_read"]
level_sets.agree = { 1 = "not at all", 2 = "a little", 3 = "rather", 4 = "much", 5 = "very much" }

%s
[[scales]]
id = "mood_total"
label = "Mood, total"
method = "%s"
items = [%s]
minimum = %g
maximum = %g
%s
"""
ITEMS = [f"mood{n:02d}" for n in range(1, 9)]
STUDY = make_study()


def make_instrument(
    scale: str = "reflective = true", n: int = 8, more: str = "", reversed_from: int = 99, head: str = ""
) -> Instrument:
    """A scale of items from 1 to 5; from `reversed_from` on, an item's answers are worth the other way round."""
    names = ITEMS[:n]
    items = "".join(f'[[items]]\nid = "{name}"\nlabel = "Label of {name}"\nlevels = "agree"\n' for name in names) + more
    method, low, high = "sum", n, 5 * n
    if reversed_from < 99:
        method = "valued_sum"
        worth = [
            f"{name} = {{ {', '.join(f'{k} = {6 - k if place >= reversed_from else k}' for k in range(1, 6))} }}"
            for place, name in enumerate(names)
        ]
        scale += "\n[scales.item_values]\n" + "\n".join(worth)
    text = DEFINITION % (items, method, ", ".join(f'"{name}"' for name in names), low, high, scale)
    header = ",".join(["example", "evidence", "source", "decimals", "expected_mood_total", *names])
    line = ",".join(["low", "hand_computed", "Stated", "0", "not_answered", "", *["1"] * (n - 1)])
    files = {"definition.toml": f"{head}\n{text}".encode(), "worked_examples.csv": f"{header}\n{line}\n".encode()}
    return parse_instrument("mood", files)


def draw_answers(n: int = 200, k: int = 8, seed: int = 1) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Answers from 1 to 5 to k items that have one cause, with hardly anybody at an end throughout."""
    rng = np.random.default_rng(seed)
    return np.clip(np.rint(3 + 0.9 * rng.normal(size=(n, 1)) + 0.9 * rng.normal(size=(n, k))), 1, 5)


def make_tables(
    values: Any, instrument: Instrument, *, wave: str = "baseline", sites: Any = "luton", respondent: str = "self",
    form: str = "standard", reasons: Mapping[tuple[int, int], str] | None = None,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """The released tables of these answers, records x items; NaN is not answered unless `reasons` says else."""
    values = np.asarray(values, dtype=np.float64)
    n, k = values.shape
    people = [f"P{number:05d}" for number in range(n)]
    why = np.where(np.isnan(values), "not_answered", None)
    for place, reason in (reasons or {}).items():
        values[place], why[place] = np.nan, reason
    long = pd.DataFrame(
        {
            "participant_id": np.repeat(people, k), "wave": wave, "respondent": respondent,
            "instrument": instrument.id, "item": np.tile(instrument.item_ids, n), "response": values.ravel(),
            "missing_reason": why.ravel(), "collected_on": pd.Timestamp("2017-09-01"), "return_id": "luton-1",
            "form": form,
        }
    )  # fmt: skip
    blank = dict.fromkeys(PARTICIPANTS.column_names)
    rows = [{**blank, "participant_id": person, "arm": None} for person in people]
    participants = PARTICIPANTS.shape(pd.DataFrame(rows, columns=PARTICIPANTS.column_names).assign(site=sites))
    return {"participants": participants, "responses": RESPONSES.shape(long)}


def join_tables(*parts: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    joined = {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in parts[0]}
    return joined | {"participants": joined["participants"].drop_duplicates("participant_id")}


def take_answers(
    tables: Mapping[str, pd.DataFrame], instrument: Instrument, study: Study = STUDY
) -> tuple[Answers, pd.DataFrame, pd.DataFrame]:
    """What the figures are derived from; the answers are not held to rules here."""
    answers, _ = collect(tables["responses"], study, {instrument.id: instrument})
    return answers, derive_scores_table(answers), tables["participants"]


def derive(tables: Mapping[str, pd.DataFrame], instrument: Instrument, study: Study = STUDY) -> Psychometrics:
    return derive_psychometrics(*take_answers(tables, instrument, study), study)


def describe(values: Any, instrument: Instrument | None = None, **about: Any) -> pd.DataFrame:
    """The figures of these answers."""
    instrument = instrument or make_instrument(n=np.shape(values)[1])
    return derive(make_tables(values, instrument, **about), instrument).figures


def pick(figures: pd.DataFrame, of: str, name: str = "", site: str = "", wave: str = "baseline") -> pd.Series[Any]:
    rows = figures[
        (figures["of"] == of) & (figures["name"] == name) & (figures["site"] == site) & (figures["wave"] == wave)
    ]
    assert len(rows) == 1
    return rows.iloc[0]


def raised(figures: pd.DataFrame, *, rank: int = 2) -> set[str]:
    flags = derive_flags(figures)
    return set(flags.loc[flags["rank"] <= rank, "flag"])


# Agreement, against published and independent figures ---------------------------------------------------------------

# Real Statistics Using Excel, Cronbach's alpha, as checked against R's psych: 15 people, 10 items.
REAL_STATISTICS = [
    "3 5 7 2 6 1 4 2 6 5 4 4 5 6 4", "2 4 3 4 5 2 3 4 5 4 3 2 5 5 3", "4 6 5 3 6 3 5 4 5 6 5 3 6 5 5",
    "1 3 5 3 5 4 3 3 5 4 2 2 2 4 5", "4 5 6 2 4 2 5 7 1 3 5 5 3 2 3", "5 1 4 2 4 5 2 2 6 5 3 3 3 2 1",
    "1 2 3 2 4 2 1 2 5 3 2 4 2 1 3", "4 5 3 6 6 3 2 4 2 1 3 2 4 4 2", "3 5 6 6 7 5 4 6 3 7 4 3 4 6 3",
    "2 5 5 3 5 2 3 5 2 2 1 4 5 5 4",
]  # fmt: skip


def test_alpha_and_its_interval_are_the_published_ones():
    answers = np.array([[int(cell) for cell in line.split()] for line in REAL_STATISTICS], dtype=float)
    found = compute_agreement(np.cov(answers), answers.shape[1])
    assert round(found.alpha, 6) == 0.591719
    assert (round(found.low, 3), round(found.high, 3)) == (0.195, 0.840)


def test_agreement_is_that_of_a_textbook():
    """Denis, Applied Univariate, Bivariate, and Multivariate Statistics: SPSS's RELIABILITY of 10 people, 5 items."""
    sd = np.array([2.71006, 5.05085, 4.74810, 2.71621, 3.80058])
    correlation = np.array([
        [1, 0.679, 0.351, 0.827, 0.022], [0.679, 1, 0.612, 0.743, -0.463], [0.351, 0.612, 1, 0.462, -0.129],
        [0.827, 0.743, 0.462, 1, -0.011], [0.022, -0.463, -0.129, -0.011, 1],
    ])  # fmt: skip
    found = compute_agreement(correlation * np.outer(sd, sd), 10)
    assert round(found.alpha, 3) == 0.633
    assert round(found.item_rest[0], 3) == 0.712
    assert found.item_rest[4] < 0


def test_alpha_is_that_of_an_analysis_of_variance():
    """Hoyt 1941: 1 - MS(residual) / MS(people), with no covariance in it."""
    answers = draw_answers(61, 7)
    n, k = answers.shape
    grand = answers.mean()
    people = k * ((answers.mean(axis=1) - grand) ** 2).sum() / (n - 1)
    rest = answers - answers.mean(axis=1, keepdims=True) - answers.mean(axis=0) + grand
    residual = (rest**2).sum() / ((n - 1) * (k - 1))
    found = compute_agreement(np.cov(answers, rowvar=False), n)
    assert found.alpha == pytest.approx(1 - residual / people, abs=1e-12)
    quantiles = stats.f.ppf([0.975, 0.025], n - 1, (n - 1) * (k - 1))
    assert (found.low, found.high) == pytest.approx(tuple(1 - (1 - found.alpha) * quantiles), abs=1e-9)
    for item in range(k):
        others = np.delete(answers, item, axis=1)
        assert found.item_rest[item] == pytest.approx(np.corrcoef(answers[:, item], others.sum(axis=1))[0, 1])
        alone = compute_agreement(np.cov(others, rowvar=False), n).alpha
        assert found.alpha_without[item] == pytest.approx(alone)


@pytest.mark.parametrize(("k", "r"), [(2, 0.5), (5, 0.3), (12, 0.9)])
def test_parallel_items_give_spearman_and_brown(k: int, r: float):
    covariance = np.full((k, k), r) + (1 - r) * np.eye(k)
    found = compute_agreement(covariance, 100)
    assert found.alpha == pytest.approx(k * r / (1 + (k - 1) * r))
    assert found.low < found.alpha < found.high
    assert np.isnan(found.alpha_without).all() == (k == 2)


def test_the_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(5)
    true = 5 * 0.4 / (1 + 4 * 0.4)
    covered = 0
    for _ in range(400):
        answers = math.sqrt(0.4) * rng.normal(size=(40, 1)) + math.sqrt(0.6) * rng.normal(size=(40, 5))
        found = compute_agreement(np.cov(answers, rowvar=False), 40)
        covered += found.low <= true <= found.high
    assert 370 <= covered <= 391  # 380 of 400, and three standard errors are 13


def test_where_nothing_varies_there_is_no_agreement():
    found = compute_agreement(np.zeros((3, 3)), 50)
    assert math.isnan(found.alpha)
    assert math.isnan(found.low)
    assert np.isnan(found.item_rest).all()


@pytest.fixture(scope="module")
def pilot() -> pd.DataFrame:
    """The CDISC pilot trial's ADAS-Cog at baseline, person by item, from the trial's records themselves."""
    records = read_source().items
    own = records[(records["instrument"] == "adas_cog") & (records["visit"].str.upper() == "BASELINE")]
    return own.pivot(index="participant_id", columns="item", values="response")


def test_agreement_of_the_public_trial(pilot: pd.DataFrame):
    """ADAS-Cog (11), 250 complete of 254, by the formula over item and total variances."""
    instrument = load_instrument("adas_cog", PROJECT / "instruments")
    items = list(instrument.scales[0].items)
    complete = pilot[items].dropna()
    alpha = 11 / 10 * (1 - complete.var().sum() / complete.sum(axis=1).var())
    figures = describe(pilot[list(instrument.item_ids)].to_numpy(), instrument)
    scale = pick(figures, "scale", "adas_cog_11")
    assert (len(complete), scale["n_complete"], scale["n"]) == (250, 250, 254)
    assert scale["alpha"] == pytest.approx(alpha, abs=1e-6)
    assert alpha == pytest.approx(0.874592, abs=1e-6)
    rest = complete[items[0]].corr(complete[items[1:]].sum(axis=1))
    first = pick(figures, "item_of_scale", items[0])
    assert first["item_rest"] == pytest.approx(rest, abs=1e-6)
    assert raised(figures) == set()


# The figures --------------------------------------------------------------------------------------------------------


def test_figures_of_an_item_by_hand():
    values = np.full((20, 2), 3.0)
    values[:12, 0] = [1, 1, 1, 2, 2, 5, 5, 5, 5, np.nan, np.nan, np.nan]
    reasons = {(10, 0): "refused", (11, 0): "not_applicable"}
    row = pick(describe(values, reasons=reasons), "item", "mood01")
    answers = np.array([1, 1, 1, 2, 2, 5, 5, 5, 5, *[3] * 8])
    assert (row["n"], row["n_answered"], row["n_refused"], row["n_not_applicable"], row["n_not_answered"]) == (
        20, 17, 1, 1, 1,
    )  # fmt: skip
    assert row["missing_pct"] == pytest.approx(100 * 2 / 19, abs=1e-6)
    assert row["mean"] == pytest.approx(answers.mean(), abs=1e-6)
    assert row["sd"] == pytest.approx(answers.std(ddof=1), abs=1e-6)
    assert (row["lowest_pct"], row["highest_pct"]) == pytest.approx((100 * 3 / 17, 100 * 4 / 17), abs=1e-6)
    assert read_distribution(row["distribution"]) == {"1": 3, "2": 2, "3": 8, "4": 0, "5": 4}


def test_every_answer_is_somewhere():
    values = draw_answers(90)
    values[np.random.default_rng(3).random(values.shape) < 0.1] = np.nan
    figures = describe(values)
    items = figures[(figures["of"] == "item") & (figures["site"] == "")]
    reasons = items[[f"n_{reason}" for reason in MISSING_REASONS]].sum(axis=1)
    assert (items["n_answered"] + reasons == items["n"]).all()
    assert [sum(read_distribution(text).values()) for text in items["distribution"]] == items["n_answered"].tolist()
    left_out = read_distribution(pick(figures, "questionnaire")["distribution"])
    n_missing = pd.Series(np.isnan(values).sum(axis=1)).value_counts()
    assert left_out == {str(n): count for n, count in sorted(n_missing.items())}


def test_groups_are_wave_respondent_form_and_site():
    instrument = make_instrument()
    halves = np.where(np.arange(80) < 50, "luton", "devon")
    tables = join_tables(
        make_tables(draw_answers(80), instrument, sites=halves),
        make_tables(draw_answers(40, seed=2), instrument, sites=halves[:40], wave="follow_up_6m"),
        make_tables(draw_answers(30, seed=3), instrument, sites=halves[:30], respondent="proxy"),
        make_tables(draw_answers(12, seed=4), instrument, sites=halves[:12], wave="w9", form="easy_read"),
    )
    figures = derive(tables, instrument).figures
    assert list(figures.columns) == list(FIGURE_COLUMNS)
    own = figures[figures["of"] == "questionnaire"]
    counts = {tuple(row[:4]): row[4] for row in own[["respondent", "form", "wave", "site", "n"]].to_numpy()}
    assert [row[0] for row in counts] == ["self"] * 10 + ["proxy"] * 3
    assert counts == {
        ("proxy", "standard", "", "luton"): 30, ("proxy", "standard", "baseline", ""): 30,
        ("proxy", "standard", "baseline", "luton"): 30,
        ("self", "easy_read", "", "luton"): 12, ("self", "easy_read", "w9", ""): 12,
        ("self", "easy_read", "w9", "luton"): 12,
        ("self", "standard", "", "devon"): 30, ("self", "standard", "", "luton"): 90,
        ("self", "standard", "baseline", ""): 80, ("self", "standard", "baseline", "devon"): 30,
        ("self", "standard", "baseline", "luton"): 50, ("self", "standard", "follow_up_6m", ""): 40,
        ("self", "standard", "follow_up_6m", "luton"): 40,
    }  # fmt: skip
    shuffled = {name: table.sample(frac=1, random_state=1) for name, table in tables.items()}
    pd.testing.assert_frame_equal(derive(shuffled, instrument).figures, figures)


def test_small_groups_are_not_shown():
    instrument = make_instrument()
    sites = np.where(np.arange(39) < 9, "luton", "devon")
    figures = derive(make_tables(draw_answers(39), instrument, sites=sites), instrument).figures
    small = figures[figures["site"] == "luton"]
    assert set(small["of"]) == {"questionnaire"}
    assert set(small["not_given"]) == {"fewer than 10 questionnaires"}
    numbers = small.drop(columns=["instrument", "respondent", "form", "wave", "site", "of", "not_given"])
    assert numbers.replace("", np.nan).isna().all(axis=None)
    assert not math.isnan(pick(figures, "scale", "mood_total", "devon")["alpha"])


def test_a_study_may_declare_other_limits():
    text = '[[instrument_report]]\nsmallest_group = 40\nfloor_pct = 30\nsource = "Agreed for this test."\n'
    study = make_study(f"{FIELDWORK}\n{text}")
    assert find_limits(study) == replace(LIMITS, smallest_group=40, floor_pct=30)
    assert find_limits(STUDY) == LIMITS
    instrument = make_instrument()
    tables = make_tables(draw_answers(39), instrument)
    found = derive(tables, instrument, study)
    assert set(found.figures["not_given"]) == {"fewer than 40 questionnaires"}


def test_agreement_needs_thirty_who_answered_everything():
    values = draw_answers(35)
    values[:6, 0] = np.nan
    scale = pick(describe(values), "scale", "mood_total")
    assert (scale["n_complete"], scale["not_given"]) == (29, "alpha: fewer than 30 people answered every item")
    assert math.isnan(scale["alpha"])
    assert not math.isnan(scale["mean"])
    values[:6, 0] = 3
    assert pick(describe(values), "scale", "mood_total")["alpha"] > 0.5


def test_without_variation_alpha_is_not_given_and_says_why():
    scale = pick(describe(np.full((40, 8), 3.0)), "scale", "mood_total")
    assert math.isnan(scale["alpha"])
    assert scale["not_given"] == "alpha: everybody has the same score"


def test_an_item_that_few_were_asked_is_not_shown():
    values = draw_answers(60)
    reasons = {(person, 0): "not_asked" for person in range(52)}
    row = pick(describe(values, reasons=reasons), "item", "mood01")
    assert row["not_given"] == "fewer than 10 answers"
    assert row[["n_answered", "n_not_asked", "missing_pct", "mean", "sd", "lowest_pct"]].isna().all()
    assert row["distribution"] == ""


def test_only_reflective_scales_have_an_alpha():
    plain = make_instrument(scale="")
    figures = describe(draw_answers(), plain)
    assert figures["alpha"].isna().all()
    assert not (figures["of"] == "item_of_scale").any()
    for name in ("eq5d3l", "eq5d5l", "ascot_sct4", "icecap_o", "service_use"):
        instrument = load_instrument(name, PROJECT / "instruments")
        assert not any(scale.reflective for scale in instrument.scales)


def test_numbers_are_shown_in_bands():
    more = '[[items]]\nid = "visits"\nlabel = "Visits"\ntype = "number"\nminimum = 0\nmaximum = 100\n'
    whole, real = (make_instrument(more=more + words).items[-1] for words in ("whole_numbers = true\n", ""))
    labels, places = band_answers(whole, np.array([0.0, 19, 20, 100, np.nan]))
    assert labels == ["0 to 19", "20 to 39", "40 to 60", "61 to 80", "81 to 100"]
    assert places.tolist() == [0, 0, 1, 4, -1]
    labels, places = band_answers(real, np.array([0, 19.9, 20, 100]))
    assert (labels[0], labels[-1]) == ("0 to under 20", "80 to 100")
    assert places.tolist() == [0, 0, 1, 4]


def test_nothing_in_nothing_out():
    tables = {table.name: table.shape(pd.DataFrame(columns=table.column_names)) for table in (RESPONSES, PARTICIPANTS)}
    found = derive(tables, make_instrument())
    assert list(found.figures.columns) == list(FIGURE_COLUMNS)
    assert found.figures.empty
    assert derive_flags(found.figures).empty


# Flags --------------------------------------------------------------------------------------------------------------


def break_item(values: Any) -> Any:
    values[:, 2] = 6 - values[:, 2]
    return values


def fill_column(values: Any) -> Any:
    values[:, 2] = 3
    return values


def blank(values: Any, share: float, columns: slice) -> Any:
    values[: int(len(values) * share), columns] = np.nan
    return values


def draw_unrelated(values: Any) -> Any:
    return np.random.default_rng(8).integers(1, 6, size=values.shape).astype(float)


def push_to(values: Any, level: int, share: float = 0.2) -> Any:
    values[: int(len(values) * share)] = level
    return values


def test_a_clean_frame_raises_no_flag():
    assert raised(describe(draw_answers())) == set()


@pytest.mark.parametrize(
    ("flag", "made"),
    [
        ("item_against_rest", break_item),
        ("no_variation", fill_column),
        ("missing_answers", lambda values: blank(values, 0.15, slice(None))),
        ("missing_item", lambda values: blank(values, 0.15, slice(0, 1))),
        ("missing_score", lambda values: blank(values, 0.15, slice(0, 1))),
        ("alpha_low", draw_unrelated),
        ("floor", lambda values: push_to(values, 1)),
        ("ceiling", lambda values: push_to(values, 5)),
        ("alpha_high", lambda values: np.repeat(values[:, :1], 8, axis=1)),
        ("items_alike", lambda values: np.column_stack([values[:, :7], values[:, 0]])),
        ("item_crowded", lambda values: push_to(values, 5)),
    ],
)
def test_each_flag_is_raised_by_what_it_is_about(flag: str, made: Any):
    assert flag in raised(describe(made(draw_answers())), rank=3)


def test_every_flag_says_what_it_means_and_what_to_do():
    for flag in FLAGS.values():
        assert flag.title
        assert flag.meaning.endswith(".")
        assert flag.to_do.endswith(".")
    assert [flag.rank for flag in FLAGS.values()] == sorted(flag.rank for flag in FLAGS.values())


@pytest.mark.parametrize(("n_at_end", "is_raised"), [(15, False), (16, True)])
def test_floor_is_more_than_15_in_100_of_enough_people(n_at_end: int, is_raised: bool):
    values = np.clip(draw_answers(100, seed=6), 2, 4)
    values[:n_at_end] = 1
    assert ("floor" in raised(describe(values))) == is_raised
    assert "floor" not in raised(describe(values[:40]))  # 16 of 40, and fewer than 50


def test_counts_and_amounts_have_no_floor_and_no_ceiling():
    values = np.clip(draw_answers(100, seed=6), 2, 4)
    values[:60] = 1
    counted = make_instrument("").model_copy(update={"facts": True})
    assert {"floor", "item_crowded"} <= raised(describe(values, make_instrument("")), rank=3)
    assert not {"floor", "ceiling", "item_crowded"} & raised(describe(values, counted), rank=3)
    assert describe(values, counted)["lowest_pct"].max() == 60, "the share itself is told"
    assert {name for name, one in load_instruments(load_study("ipc")).items() if one.facts} == {
        "service_use",
        "sociodemographics",
    }


def test_facts_are_effects_of_no_cause():
    with pytest.raises(DefinitionFaults, match="it asks for facts, so its items are no effects of one cause"):
        make_instrument(more="", scale="reflective = true", head="facts = true")
    with pytest.raises(DefinitionFaults, match='"facts" must be true or false'):
        make_instrument("", head='facts = "yes"')
    assert make_instrument("", head="facts = true").facts


def test_a_site_alone_that_turned_an_item_round_is_found():
    values = draw_answers(200)
    sites = np.where(np.arange(200) < 40, "devon", "luton")
    values[:40, 2] = 6 - values[:40, 2]
    flags = derive_flags(describe(values, sites=sites))
    own = flags[flags["flag"] == "item_against_rest"]
    assert own[["site", "name"]].to_numpy().tolist() == [["devon", "mood03"]]
    everywhere = derive_flags(describe(break_item(draw_answers(200)), sites=sites))
    assert everywhere.loc[everywhere["flag"] == "item_against_rest", "site"].tolist() == [""]


def test_scores_that_are_turned_round_by_their_values_agree():
    """A valued sum with reversed items: the items are compared as they count."""
    values = draw_answers()
    values[:, 4:] = 6 - values[:, 4:]
    turned = make_instrument(reversed_from=4)
    assert pick(describe(values, turned), "scale", "mood_total")["alpha"] == pytest.approx(
        pick(describe(draw_answers()), "scale", "mood_total")["alpha"]
    )
    assert "item_against_rest" in raised(describe(values))


# Careless answering -------------------------------------------------------------------------------------------------


def test_runs_and_variability_by_hand():
    answers = np.array([
        [1, 1, 1, 2, 2, 5], [3, 3, 3, 3, 3, 3], [1, 2, 1, 2, 1, 2], [4, np.nan, 4, 4, np.nan, np.nan], [np.nan] * 6,
    ])  # fmt: skip
    assert find_longest_runs(answers).tolist() == [3, 6, 1, 2, 0]
    directions = np.array([1, 1, 1, 1, -1, -1])
    assert find_longest_runs(answers, directions).tolist() == [2, 6, 0, 0, 0]
    variability = compute_variability(answers)
    assert variability[:4] == pytest.approx([np.std(answers[0], ddof=1), 0, math.sqrt(0.3), 0])
    assert math.isnan(variability[4])
    assert compute_same_level_share(answers)[:4] == pytest.approx([0.5, 1, 0.5, 1])
    assert math.isnan(compute_same_level_share(answers)[4])


def test_runs_against_a_loop():
    answers = np.random.default_rng(2).choice([1.0, 2.0, np.nan], size=(300, 9))
    slow = []
    for record in answers.tolist():
        longest = length = 0
        for before, here in zip([math.nan, *record], record, strict=False):
            length = length + 1 if here == before else int(not math.isnan(here))
            longest = max(longest, length)
        slow.append(longest)
    assert find_longest_runs(answers).tolist() == slow


def test_careless_answering_is_looked_for_only_where_it_contradicts():
    turned = make_instrument(reversed_from=4)
    found = find_contradictable(turned)
    assert found is not None
    assert found[1].tolist() == [1, 1, 1, 1, -1, -1, -1, -1]
    assert find_contradictable(make_instrument()) is None
    assert find_contradictable(make_instrument(reversed_from=4, n=7)) is None
    for folder in (PROJECT / "instruments").iterdir():
        assert find_contradictable(load_instrument(folder.name, PROJECT / "instruments")) is None


def test_the_same_answer_throughout_is_valid_in_eq5d():
    """11111 and a VAS of 100: no flag of carelessness, and nobody left out."""
    instrument = load_instrument("eq5d3l", PROJECT / "instruments")
    values = np.ones((60, len(instrument.item_ids)))
    values[:, -1] = np.arange(40, 100)
    assert derive_response_quality(instrument, values) is None
    figures = describe(values, instrument)
    assert "careless" not in raised(figures)
    assert figures["careless_pct"].isna().all()
    assert pick(figures, "questionnaire")["n"] == 60


def test_answers_that_contradict_themselves_are_flagged_and_kept():
    turned = make_instrument(reversed_from=4)
    values = draw_answers()
    values[:, 4:] = 6 - values[:, 4:]
    clean = describe(values, turned)
    assert "careless" not in raised(clean)
    values[:30] = 5
    figures = describe(values, turned)
    assert "careless" in raised(figures)
    row = pick(figures, "questionnaire")
    assert row["careless_pct"] >= 15
    assert (row["n"], pick(figures, "scale", "mood_total")["n_answered"]) == (200, 200)
    quality = derive_response_quality(turned, values)
    assert quality is not None
    assert quality["contradicts"][:30].all()
    assert quality["longest_run"][:30].eq(8).all()


# The page -----------------------------------------------------------------------------------------------------------


def write(tables: Mapping[str, pd.DataFrame], instrument: Instrument, **words: str) -> InstrumentsReport:
    answers, scores, participants = take_answers(tables, instrument)
    return write_instruments_report(
        study=STUDY.model_copy(update={"instruments": (instrument.id,)}), instruments={instrument.id: instrument},
        answers=answers, scores=scores, participants=participants, as_of=date(2018, 3, 1),
        known_at=datetime(2018, 3, 1, 6, 30, tzinfo=UTC),
        head=Head(7, "ab" * 32), **words,
    )  # fmt: skip


def read_text(page: bytes) -> str:
    body = re.sub(r"<style.*?</style>", "", page.decode(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)).replace("&#39;", "'")


@pytest.fixture(scope="module")
def report() -> InstrumentsReport:
    """An instrument at two waves; an item goes against the rest, some answers are missing, a third wave is small."""
    instrument = make_instrument()
    values = break_item(draw_answers(80))
    values[:4, 5] = np.nan
    sites = np.where(np.arange(80) < 71, "luton", "devon")
    tables = join_tables(
        make_tables(values, instrument, sites=sites),
        make_tables(draw_answers(60, seed=4), instrument, sites=sites[:60], wave="follow_up_6m"),
        make_tables(draw_answers(9, seed=5), instrument, sites=sites[:9], wave="w9"),
    )
    written = write(tables, instrument)
    assert write(tables, instrument) == written
    return written


def test_the_page_begins_with_what_to_look_at(report: InstrumentsReport):
    text = read_text(report.page)
    assert text.index("An item goes against the rest of its scale") < text.index("Questionnaires by wave")
    assert "Mood : Label of mood03 (mood03) in Mood, total Baseline (-0." in text
    assert FLAGS["item_against_rest"].to_do in text
    assert "Fewer than 10 questionnaires, so no figures: w9." in text
    assert "Not a release." in text
    assert "149 questionnaires of 1 instrument. A flag is a reason to look." in text


def test_plots_have_a_text_and_a_table_and_share_no_name(report: InstrumentsReport):
    page = report.page.decode()
    labels = re.findall(r'<svg [^>]*role="img" aria-label="([^"]+)"', page)
    assert [label.split(":")[0].split(" of ")[0] for label in labels] == [
        "Cronbach&#x27;s alpha", "Stacked bars", "A map",
    ]  # fmt: skip
    assert len(labels) == page.count("<svg")
    names = re.findall(r'\bid="([^"]+)"', page)
    assert len(set(names)) == len(names)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(names)
    assert '<td class="w">not answered 4</td>' in page
    for caption in ("Mood, total", "Items at Baseline: per cent with each answer", "Missing answers by item and wave"):
        assert f"<caption>{caption}</caption>" in page
    assert "<metadata" not in page
    assert "http://www.w3.org/1999/xlink" in page
    assert not re.findall(r'(?:src|href)="https?:', page)


def test_labels_are_text_and_nothing_else():
    """Neither a formula, as between two dollars, nor markup."""
    more = '[[items]]\nid = "paid"\nlabel = "Paid $x_1$ & <b>had</b> \\"much\\""\nlevels = "agree"\n'
    instrument = make_instrument(more=more)
    values = np.column_stack([draw_answers(), draw_answers(k=1)])
    values[0, -1] = np.nan
    page = write(make_tables(values, instrument, wave="<i>w$9$"), instrument).page.decode()
    assert "<b>had" not in page.replace("<b>Mood", "")
    assert "<i>w" not in page
    assert page.count("Paid $x_1$ &amp; &lt;b&gt;had&lt;/b&gt;") >= 4


def test_plotting_is_imported_where_it_is_needed():
    """It takes long to import, and every command would wait for it."""
    for room in ("study", "tasks", "flows", "desk"):
        for path in (PROJECT / room).glob("*.py"):
            assert not re.search(r"^(?:import|from) matplotlib", path.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_csv_holds_the_figures_and_nobody(report: InstrumentsReport):
    figures = pd.read_csv(io.BytesIO(report.figures), keep_default_na=False)
    assert list(figures.columns) == list(FIGURE_COLUMNS)
    assert "P000" not in report.figures.decode() + report.page.decode()
    assert set(figures.loc[figures["site"] == "devon", "n"]) == {""}
    assert figures.loc[figures["flags"] == "item_against_rest", "name"].tolist() == ["mood03", "mood03"]


def test_a_page_without_answers_says_so():
    instrument = make_instrument()
    tables = make_tables(np.empty((0, 8)), instrument)
    text = read_text(write(tables, instrument, banner="Invented people.").page)
    assert "No questionnaire has been accepted yet." in text
    assert "Not answered yet Mood ." in text.replace("Mood.", "Mood .")
    assert "Invented people." in text


def test_a_release_has_it_and_twice_the_same_bytes(tmp_path: Path):
    names = ("instruments.html", "instruments.csv")
    written = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        workspace = open_study(folder)
        fill_study(workspace)
        frozen = freeze_release(workspace, date(2013, 3, 4), BY)
        assert set(names) <= set(frozen.manifest["files"])
        written.append([workspace.area.get(f"releases/{frozen.release}/{name}") for name in names])
    assert written[0] == written[1]
    assert b"fewer than 10 questionnaires" in written[0][1]
    assert b"01-701-1015" not in b"".join(written[0])
    assert set(read_latest_tables(workspace)) == {"participants", "responses", "scores"}


def test_the_command_writes_it_without_freezing(own_settings: Path):
    workspace = open_study(own_settings)
    fill_study(workspace)
    n_rows = workspace.ledger.head().seq
    done = CliRunner().invoke(app, ["instruments", "report", "cdisc_pilot"])
    assert done.exit_code == 0, done.output
    assert "pages/instruments.html" in done.output
    assert b"Not a release." in workspace.area.get("pages/instruments.html")
    assert workspace.ledger.head().seq == n_rows
    assert not workspace.area.has("releases/latest/manifest.json")
    assert write_current_instruments(workspace) == ["pages/instruments.html", "pages/instruments.csv"]
