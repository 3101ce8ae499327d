"""Models of attrition against published numbers, closed forms and other routes to the same figure."""

from datetime import date
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import fractional_matrix_power
from scipy.stats import nct, ttest_ind
from scipy.stats import t as student
from statsmodels.duration.survfunc import SurvfuncRight
from statsmodels.stats.proportion import test_proportions_2indep as compare_proportions

from study.attrition import Gap, derive_attrition_rows
from study.attrition_models import (
    MEANINGS,
    Attrition,
    choose_characteristics,
    compute_cluster_covariance,
    compute_cluster_design_effect,
    compute_design_effect,
    compute_effective_n,
    derive_attrition,
    derive_characteristics,
    derive_detectable_effects,
    derive_differences,
    derive_differential,
    derive_equivalence,
    derive_losses,
    derive_lost_differences,
    derive_time_to_loss,
    derive_times,
    derive_weights,
    find_comparison,
    find_pairs,
    find_separated,
    find_times,
    fit_loss_model,
    parse_boundary,
)
from study.protocol import Arm, PowerBasis, Study
from tasks.attrition import load_boundary
from tasks.definitions import load_study
from tasks.settings import PROJECT
from tests.attrition_histories import END, make_rows, tell_pilot
from tests.wave_histories import make_study

AS_OF, ENDS_ON = date(2019, 1, 1), date(2018, 12, 31)
START = pd.Timestamp("2017-01-01")


def _on(day: float) -> str:
    return str((START + pd.Timedelta(days=day)).date())


@pytest.fixture(scope="module")
def pilot() -> tuple[Study, pd.DataFrame]:
    study, events = tell_pilot()
    return study, derive_attrition_rows(study, events, END)


def _study(n_arms: int = 2, allocation: str = "randomised") -> Study:
    roles = ["comparison", *["intervention"] * (n_arms - 1)]
    arms = tuple(Arm(id=f"arm_{n}", label=f"Arm {n}", role=role) for n, role in enumerate(roles))  # type: ignore[arg-type]  # of a list
    study = make_study()
    sites = tuple(site.model_copy(update={"allocation": None}) for site in study.sites)
    return study.model_copy(update={"arms": arms, "allocation": allocation, "sites": sites})


# Time to loss -------------------------------------------------------------------------------------------------------


def _leave(*people: tuple[float, str]) -> pd.DataFrame:
    """Rows of people of one arm: the day on which each left or was last followed, and why ("" still in)."""
    return make_rows(
        {"person": f"P{n:04}", "in": True, "left_on": _on(day) if why else None, "left_kind": why,
         "completed_on": None if why else _on(day)}
        for n, (day, why) in enumerate(people)
    )  # fmt: skip


def test_incidence_by_hand() -> None:
    """Five people: lost on day 10, died on 20, lost on 30, followed until 40, lost on 50. Each one's share of who was
    still in: 1/5; 4/5 x 1/4; 3/5 x 1/3; and of the 2/5 that are left, all."""
    rows = _leave((10, "loss"), (20, "death"), (30, "loss"), (40, ""), (50, "loss"))
    found = derive_time_to_loss(rows, ["a"], AS_OF, ENDS_ON, [0, 10, 35, 60])
    curve = found.curves[found.curves["cause"] == "loss"]
    assert curve["day"].tolist() == [0, 10, 30, 50]
    assert curve["incidence_pct"].tolist() == pytest.approx([0, 20, 40, 80])
    assert found.curves.loc[found.curves["cause"] == "death", "incidence_pct"].max() == pytest.approx(20)
    at = found.at_times[found.at_times["cause"] == "loss"]
    assert at["n_at_risk"].tolist() == [5, 5, 2, 0]
    assert at["n"].tolist() == [0, 1, 2, 3]
    assert curve["gap"].tolist() == ["None so far.", "", "", "Nobody was left at risk: no interval."]
    assert at["gap"].tolist()[-1] == "Nobody is followed for so long."


def test_without_censoring_incidence_is_a_share_with_the_binomial_error() -> None:
    rows = _leave(*[(10, "loss")] * 20, *[(20, "death")] * 10, *[(100, "")] * 70)
    curves = derive_time_to_loss(rows, ["a"], AS_OF, ENDS_ON, []).curves
    for cause, p in (("loss", 0.2), ("death", 0.1)):
        last = curves[curves["cause"] == cause].iloc[-1]
        assert last["incidence_pct"] == pytest.approx(100 * p)
        width = 1.959964 * np.sqrt(p * (1 - p) / 100) / abs(p * np.log(p))
        assert last["low_pct"] == pytest.approx(100 * p ** np.exp(width), rel=1e-5)
        assert last["high_pct"] == pytest.approx(100 * p ** np.exp(-width), rel=1e-5)


def test_with_one_cause_incidence_is_what_survival_leaves() -> None:
    random = np.random.default_rng(7)
    days, is_lost = random.integers(1, 200, 80), random.random(80) < 0.5
    rows = _leave(*((day, "loss" if lost else "") for day, lost in zip(days, is_lost, strict=True)))
    curve = derive_time_to_loss(rows, ["a"], AS_OF, ENDS_ON, []).curves.query("cause == 'loss' and day > 0")
    survival = SurvfuncRight(days.astype(float), is_lost.astype(int))
    expected = dict(zip(survival.surv_times, 100 * (1 - survival.surv_prob), strict=True))
    assert [expected[day] for day in curve["day"]] == pytest.approx(curve["incidence_pct"].tolist())


def test_time_to_loss_of_the_pilot_trial(pilot: tuple[Study, pd.DataFrame]) -> None:
    study, rows = pilot
    times = find_times(rows, study)
    found = derive_time_to_loss(rows, [arm.id for arm in study.arms], END, study.data_collection_ends_on, times)
    n = found.people.groupby(["arm", "outcome"]).size()
    assert {arm: n[arm, ""] for arm in ("placebo", "high_dose", "low_dose")} == {
        "placebo": 58, "high_dose": 27, "low_dose": 25,
    }  # fmt: skip
    assert (n["placebo", "death"], n["low_dose", "death"]) == (2, 1)
    assert ("high_dose", "death") not in n.index
    assert found.gaps == ()
    first = found.at_times.groupby("arm")["n_at_risk"].first()
    assert (first <= [84, 84, 86]).all()
    assert not found.curves[["low_pct", "high_pct"]].isna().any(axis=1).eq(found.curves["gap"] == "").any()


def test_whoever_stops_answering_without_a_word_is_lost_from_the_first_wave_missed() -> None:
    waves = {"w1": "2017-04-01", "w2": "2017-07-01", "w3": "2017-10-01"}

    def answer(person: str, marks: str, **more: Any) -> list[dict[str, Any]]:
        return [
            {"person": person, "wave": wave, "last_on": on, "in": mark == "1", **more}
            for (wave, on), mark in zip(waves.items(), marks, strict=True)
        ]

    rows = make_rows(
        [
            *answer("P1", "100"), *answer("P2", "101"), *answer("P3", "111"), *answer("P4", "000"),
            *answer("P5", "100", left_on="2017-05-01", left_kind="death"),
            *answer("P6", "100", left_on="2017-08-01", left_kind="death"),
        ]
    )  # fmt: skip
    people, _ = derive_times(rows, AS_OF, ENDS_ON)
    told = people.set_index("participant_id")
    assert told["outcome"].to_dict() == {"P1": "loss", "P2": "", "P3": "", "P4": "loss", "P5": "death", "P6": "loss"}
    assert told["days"].tolist() == [181, 729, 729, 90, 120, 181]


def test_time_to_loss_of_an_arm_without_anybody_and_of_people_without_a_start() -> None:
    found = derive_time_to_loss(_leave((10, "loss")), ["a", "b"], AS_OF, ENDS_ON, [5])
    assert found.gaps == (Gap("time to loss, arm b", "Nobody is in this arm."),)
    rows = make_rows([{"person": "P1", "started_on": None}, {"person": "P2"}])
    found = derive_time_to_loss(rows, ["a"], AS_OF, ENDS_ON, [5])
    assert "left out: 1" in found.gaps[0].words
    never = make_rows([{"person": "P1", "in": False}, {"person": "P2", "in": False}])
    assert derive_times(never, AS_OF, ENDS_ON)[0]["outcome"].tolist() == ["loss", "loss"]
    nobody = derive_time_to_loss(make_rows([]), ["a"], AS_OF, ENDS_ON, [5])
    assert nobody.curves.empty
    assert len(nobody.gaps) == 1


# Differential attrition ---------------------------------------------------------------------------------------------


def _lose(**arms: tuple[int, int]) -> pd.DataFrame:
    """Rows of arms of so many people, so many of them lost."""
    return make_rows(
        {"person": f"{arm}-{number}", "arm": arm, "in": number >= lost}
        for arm, (n, lost) in arms.items()
        for number in range(n)
    )


def _judge(rows: pd.DataFrame, study: Study | None = None) -> pd.DataFrame:
    found = derive_differential(rows, study or _study(), load_boundary(), "w1", ["self"])
    assert isinstance(found, pd.DataFrame)
    return found[found["of"] == "allocated"].set_index("assumption")


def test_the_boundary_is_the_published_table() -> None:
    boundary = load_boundary()
    assert len(boundary.cautious) == len(boundary.optimistic) == 66
    # The corners of table II.1 of the handbook, and the last rows at which a difference is allowed.
    assert [boundary.cautious[at] for at in (0, 10, 20, 30, 57, 58)] == [57, 63, 54, 41, 0, -1]
    assert [boundary.optimistic[at] for at in (0, 10, 20, 30, 57, 65)] == [100, 109, 100, 82, 21, 3]


@pytest.mark.parametrize("text", ["", "a,b,c\n1,2,3", "a,b,c\n0,1,2\n2,1,2", "# note\n"])
def test_a_boundary_that_does_not_count_up_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="one line for each per cent"):
        parse_boundary(text)


def test_what_lies_on_the_boundary_is_low() -> None:
    """131 and 68 of 1,000 lost: 9.95 % overall, so 10 %, and 6.3 points apart, which is the cautious limit."""
    on = _judge(_lose(arm_1=(1000, 131), arm_0=(1000, 68))).loc["cautious"]
    assert (on["overall_pct"], on["limit_pct"], on["verdict"], on["more_intervention"]) == (10, 6.3, "low", 0)
    over = _judge(_lose(arm_1=(1000, 132), arm_0=(1000, 68)))
    assert over["verdict"].tolist() == ["high", "low"]
    assert over.loc["cautious", "more_intervention"] == 1


@given(st.tuples(*[st.integers(1, 60)] * 2), st.tuples(*[st.floats(0, 1)] * 2))
@settings(max_examples=25, deadline=None)
def test_the_verdict_and_the_returns_that_would_pass_by_exhaustion(
    sizes: tuple[int, int], shares: tuple[float, float]
) -> None:
    lost = tuple(int(n * share) for n, share in zip(sizes, shares, strict=True))
    boundary = load_boundary()
    found = _judge(_lose(arm_1=(sizes[0], lost[0]), arm_0=(sizes[1], lost[1])))
    for assumption, limits in boundary._asdict().items():

        def passes(lost_1: int, lost_0: int, limits: Any = limits) -> bool:
            overall = Fraction(100 * (lost_1 + lost_0), sum(sizes))
            whole = int(overall + Fraction(1, 2))
            if whole > 65 or limits[whole] < 0:
                return False
            return 100 * abs(Fraction(lost_1, sizes[0]) - Fraction(lost_0, sizes[1])) <= Fraction(
                int(limits[whole]), 10
            )

        row = found.loc[assumption]
        assert (row["verdict"] == "low") == passes(*lost)
        more = [n for n in range(lost[0] + 1) if passes(lost[0] - n, lost[1])]
        assert (None if pd.isna(row["more_intervention"]) else row["more_intervention"]) == (more[0] if more else None)
        more = [n for n in range(lost[1] + 1) if passes(lost[0], lost[1] - n)]
        assert (None if pd.isna(row["more_comparison"]) else row["more_comparison"]) == (more[0] if more else None)


def test_differential_attrition_of_the_pilot_trial(pilot: tuple[Study, pd.DataFrame]) -> None:
    study, rows = pilot
    found = derive_differential(rows, study, load_boundary(), "week_24", ["self"])
    assert isinstance(found, pd.DataFrame)
    high = found[(found["intervention"] == "high_dose") & (found["assumption"] == "optimistic")].set_index("of")
    row = high.loc["allocated"]
    assert (row["n_intervention"], row["lost_intervention"], row["n_comparison"], row["lost_comparison"]) == (
        84,
        54,
        86,
        27,
    )
    assert row["overall_pct"] == 48  # 81 of 170 is 47.6 %
    assert row["differential_pct"] == pytest.approx(100 * (54 / 84 - 27 / 86))
    assert (row["verdict"], row["more_intervention"]) == ("high", 22)
    assert pd.isna(row["more_comparison"])
    assert high.loc["expected", "n_comparison"] == 85  # one had died before


def test_the_dead_count_and_cannot_return() -> None:
    rows = make_rows(
        [
            *({"person": f"i{n}", "arm": "arm_1", "in": n >= 20, "why": "died" if n < 20 else ""} for n in range(40)),
            *({"person": f"c{n}", "arm": "arm_0"} for n in range(40)),
        ]
    )
    found = derive_differential(rows, _study(), load_boundary(), "w1", ["self"])
    assert isinstance(found, pd.DataFrame)
    row = found.set_index(["of", "assumption"]).sort_index().loc[("allocated", "cautious")]
    assert (row["lost_intervention"], row["verdict"]) == (20, "high")
    assert pd.isna(row["more_intervention"])
    assert (found.loc[found["of"] == "expected", "verdict"] == "low").all()


def test_differential_attrition_that_cannot_be_told() -> None:
    rows = _lose(arm_1=(5, 1), arm_0=(5, 1))

    def ask(rows: pd.DataFrame, study: Study, wave: str = "w1") -> Any:
        return derive_differential(rows, study, load_boundary(), wave, ["self"])

    assert "not randomised" in ask(rows, _study(allocation="matched")).words
    assert "one arm" in ask(rows, _study(1)).words
    assert "not over" in ask(rows, _study(), "w9").words
    assert (
        "not over"
        in ask(make_rows([{"person": "P", "arm": "arm_1", "in": False, "reason": "awaited"}]), _study()).words
    )
    assert (ask(rows[rows["arm"] == "arm_1"], _study())["gap"] == "Nobody counts in one of the two arms.").all()
    everybody = _judge(_lose(arm_1=(10, 10), arm_0=(10, 10)))
    assert everybody["gap"].str.startswith("At 100 % overall").all()
    many = _study(40)
    assert len(ask(_lose(**{arm.id: (4, 1) for arm in many.arms}), many)) == 39 * 2 * 2


def test_pairs_of_arms() -> None:
    assert find_pairs(_study(3).arms) == [("arm_1", "arm_0"), ("arm_2", "arm_0")]
    assert find_pairs(_study(1).arms) == []
    both = [Arm(id=name, label=name, role="intervention") for name in ("x", "y")]
    assert find_pairs(both) == [("y", "x")]


# Differences --------------------------------------------------------------------------------------------------------


def _two_groups(first: list[Any], second: list[Any]) -> tuple[pd.DataFrame, pd.Series]:
    index = [f"P{n}" for n in range(len(first) + len(second))]
    is_first = pd.Series([True] * len(first) + [False] * len(second), index)
    return pd.DataFrame({"x": [*first, *second]}, index), is_first


def _draw(mean: float, sd: float, n: int) -> list[float]:
    values = np.random.default_rng(3).normal(size=n)
    values = (values - values.mean()) / values.std(ddof=1)
    return list(mean + sd * values)


def test_hedges_g_is_the_published_one() -> None:
    """Borenstein and others 2009, chapter 4: means 103 and 100, SD 5.5 and 4.5, 50 each: g = 0.5924."""
    row = derive_differences(*_two_groups(_draw(103, 5.5, 50), _draw(100, 4.5, 50))).iloc[0]
    assert round(row["difference"], 4) == 0.5924
    assert (row["measure"], row["n_1"], row["n_2"], row["meaning"]) == ("hedges_g", 50, 50, "not_equivalent")


def test_the_cox_index_is_the_log_odds_ratio() -> None:
    """By the other route: statsmodels' log odds ratio, over 1.65, with the correction for small samples."""
    yes = [["yes"] * n + ["no"] * (40 - n) for n in (24, 16)]
    table = derive_differences(*_two_groups(*yes)).set_index("level")
    logged = compare_proportions(24, 40, 16, 40, compare="odds-ratio", method="logit").odds_ratio
    expected = np.log(logged) / 1.65 * (1 - 3 / (4 * 80 - 9))
    assert table.loc["yes", "difference"] == pytest.approx(expected)
    assert table.loc["no", "difference"] == pytest.approx(-expected)
    assert table.loc["yes", ["value_1", "value_2"]].tolist() == [60, 40]


@pytest.mark.parametrize(
    ("shift", "meaning"),
    [(0, "equivalent"), (0.04, "equivalent"), (0.06, "adjust"), (0.24, "adjust"), (0.26, "not_equivalent")],
)
def test_the_thresholds_of_equivalence(shift: float, meaning: str) -> None:
    row = derive_differences(*_two_groups(_draw(-shift, 1, 2000), _draw(0, 1, 2000))).iloc[0]
    assert row["meaning"] == meaning
    assert meaning in MEANINGS


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ([1.0, 1.0], [1.0, 1.0], "same value"),
        ([1e9, 1e9], [1e9, 1e9], "same value"),
        ([1.0], [1.0, 2.0], "fewer than two"),
        ([np.nan, np.nan], [1.0, 2.0], "fewer than two"),
        (["a", "a"], ["a", "b"], "nobody or of everybody"),
        (["", ""], ["a", "b"], "nobody's value is known"),
        (["", ""], ["", ""], "nobody's value is known"),
    ],
)
def test_differences_that_cannot_be_told(first: list[Any], second: list[Any], words: str) -> None:
    table = derive_differences(*_two_groups(first, second))
    assert table["difference"].isna().all()
    assert table["gap"].str.contains(words).all()
    assert (table["meaning"] == "").all()


def test_a_score_that_nobody_has_and_nobody_to_have_it() -> None:
    table = derive_differences(*_two_groups([], []))
    assert (table["gap"] != "").all()
    missing = derive_differences(*_two_groups([1.0, np.nan, 2.0], [3.0, 4.0])).iloc[0]
    assert (missing["n_1"], missing["missing_1"], missing["missing_2"]) == (2, 1, 0)


def test_equivalence_of_the_analysed_sample() -> None:
    rows = _lose(arm_1=(6, 2), arm_0=(6, 3))
    people = rows["participant_id"].tolist()
    characteristics = pd.DataFrame({"x": np.arange(12.0), "labelled ⅜ «é»": ["ä", "б"] * 6}, people)
    found = derive_equivalence(rows, characteristics, _study(), "w1", ["self"])
    assert isinstance(found, pd.DataFrame)
    row = found[found["characteristic"] == "x"].iloc[0]
    assert (row["n_1"], row["n_2"], row["value_1"], row["value_2"]) == (4, 3, 3.5, 10.0)
    gaps = [
        derive_equivalence(rows, characteristics, _study(1), "w1", ["self"]),
        derive_equivalence(rows, characteristics, _study(), "w9", ["self"]),
        derive_equivalence(rows, characteristics[[]], _study(), "w1", ["self"]),
    ]
    assert [isinstance(gap, Gap) and bool(gap.words) for gap in gaps] == [True] * 3
    chosen = derive_equivalence(rows, characteristics, _study(), "w1", ["self"], {"arm_1-0", "arm_1-1", "arm_0-0"})
    assert isinstance(chosen, pd.DataFrame)
    assert chosen.loc[chosen["characteristic"] == "x", ["n_1", "n_2"]].to_numpy().tolist() == [[2, 1]]
    one_sided = derive_equivalence(_lose(arm_1=(6, 6), arm_0=(6, 0)), characteristics, _study(), "w1", ["self"])
    assert isinstance(one_sided, pd.DataFrame)
    assert (one_sided["gap"] != "").all()


def test_characteristics_are_those_of_the_baseline(pilot: tuple[Study, pd.DataFrame]) -> None:
    study, rows = pilot
    person = rows["participant_id"].iloc[0]
    told = (("baseline", "self", 20.0), ("week_8", "self", 25.0), ("baseline", "carer", 3.0))
    scores = pd.DataFrame(
        [(person, wave, respondent, "adas_cog", "total", value) for wave, respondent, value in told],
        columns=["participant_id", "wave", "respondent", "instrument", "scale", "score"],
    )  # fmt: skip
    found = derive_characteristics(study, rows, scores)
    assert len(found) == 306
    assert found.loc[person].to_dict() == {"adas_cog.total": 20.0, "adas_cog.total (carer)": 3.0}
    assert found.drop(person).isna().all(axis=None)


def test_one_score_of_each_questionnaire_goes_into_a_model(pilot: tuple[Study, pd.DataFrame]) -> None:
    study, _ = pilot
    columns = ["cohort", "npi_x.npi01 (carer)", "npi_x.npi_x_12 (carer)", "adas_cog.other", "adas_cog.adas_cog_11",
               "adas_cog.third", "mmse.mmse_total", "age", "a.b"]  # fmt: skip
    chosen = choose_characteristics(study, pd.DataFrame(columns=columns))
    assert list(chosen.columns) == [
        "cohort", "npi_x.npi01 (carer)", "adas_cog.adas_cog_11", "mmse.mmse_total", "age", "a.b",
    ]  # fmt: skip


def test_of_several_respondents_the_one_who_answered_counts() -> None:
    rows = make_rows(
        [
            {"person": "P1", "in": False}, {"person": "P1", "respondent": "proxy"},
            {"person": "P2", "why": "not_asked"}, {"person": "P2", "respondent": "proxy", "in": False},
            {"person": "P3"}, {"person": "P3", "respondent": "proxy", "in": False},
            {"person": "P4", "respondent": "carer"},
        ]
    )  # fmt: skip
    assert derive_losses(rows, "w1", ["self", "proxy"])["is_lost"].to_dict() == {"P1": False, "P2": True, "P3": False}
    assert derive_losses(rows, "w1", ["self"])["is_lost"].to_dict() == {"P1": True, "P3": False}


# The covariance for few clusters ------------------------------------------------------------------------------------


def _by_definition(x: Any, e: Any, w: Any, clusters: Any) -> tuple[Any, Any]:
    """CR2 and its degrees of freedom, written out with whole n x n matrices."""
    root = np.diag(np.sqrt(w))
    x, e = root @ x, root @ e
    bread = np.linalg.inv(x.T @ x)
    residual = np.eye(len(x)) - x @ bread @ x.T
    meat, directions = np.zeros((x.shape[1],) * 2), []
    for label in sorted(set(clusters)):
        own = clusters == label
        adjust = np.real(fractional_matrix_power(residual[np.ix_(own, own)], -0.5))
        score = x[own].T @ adjust @ e[own]
        meat += np.outer(score, score)
        directions.append(residual[own].T @ adjust @ x[own] @ bread)
    df = []
    for term in range(x.shape[1]):
        g = np.column_stack([direction[:, term] for direction in directions])
        values = np.linalg.eigvalsh(g.T @ g)
        df.append(values.sum() ** 2 / (values**2).sum())
    return bread @ meat @ bread, df


@pytest.mark.parametrize("seed", range(4))
def test_the_covariance_is_its_definition(seed: int) -> None:
    random = np.random.default_rng(seed)
    x = np.column_stack([np.ones(40), random.normal(size=(40, 2))])
    clusters = random.integers(0, 8, 40)
    weights, residuals = random.uniform(0.5, 2, 40), random.normal(size=40)
    covariance, df = _by_definition(x, residuals, weights, clusters)
    found = compute_cluster_covariance(x, residuals, weights, clusters)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-9)
    np.testing.assert_allclose(found.df, df, rtol=1e-9)


def test_with_every_row_a_cluster_it_is_hc2() -> None:
    random = np.random.default_rng(1)
    x = np.column_stack([np.ones(25), random.normal(size=(25, 2))])
    fit = sm.OLS(random.normal(size=25), x).fit()
    found = compute_cluster_covariance(x, fit.resid, np.ones(25), np.arange(25))
    np.testing.assert_allclose(found.covariance, fit.cov_HC2, rtol=1e-10)


@pytest.mark.parametrize(("n_1", "n_0", "df"), [(3, 27, 2.5), (15, 15, 28.0)])
def test_degrees_of_freedom_are_the_published_ones(n_1: int, n_0: int, df: float) -> None:
    """Two groups, all errors alike: Imbens and Kolesar 2016, formula for one binary regressor; 3 and 27 give 2.5."""
    x = np.column_stack([np.ones(n_1 + n_0), np.r_[np.ones(n_1), np.zeros(n_0)]])
    found = compute_cluster_covariance(x, np.ones(n_1 + n_0), np.ones(n_1 + n_0), np.arange(n_1 + n_0))
    exact = (n_0 + n_1) ** 2 * (n_0 - 1) * (n_1 - 1) / (n_1**2 * (n_1 - 1) + n_0**2 * (n_0 - 1))
    assert found.df[1] == pytest.approx(exact)
    assert round(found.df[1], 1) == df


def test_equal_sites_of_one_arm_give_the_t_test_of_their_means() -> None:
    """Bell and McCaffrey 2002: exact where clusters are alike; 12 sites of 7, six to an arm."""
    random = np.random.default_rng(5)
    sites = np.repeat(np.arange(12), 7)
    arm = (sites < 6).astype(float)
    y = random.normal(size=84) + random.normal(size=12)[sites]
    x = np.column_stack([np.ones(84), arm])
    fit = sm.OLS(y, x).fit()
    found = compute_cluster_covariance(x, fit.resid, np.ones(84), sites)
    means = pd.Series(y).groupby(sites).mean().to_numpy()
    expected = ttest_ind(means[:6], means[6:])
    assert found.df[1] == pytest.approx(10)
    assert fit.params[1] / np.sqrt(found.covariance[1, 1]) == pytest.approx(expected.statistic)


def test_it_is_larger_than_the_usual_cluster_covariance_of_few_clusters() -> None:
    random = np.random.default_rng(2)
    sites = np.repeat(np.arange(9), 12)
    x = np.column_stack([np.ones(108), random.normal(size=108) + random.normal(size=9)[sites]])
    y = (random.random(108) < 0.4).astype(float)
    fit = sm.GLM(y, x, family=sm.families.Binomial()).fit()
    weights = fit.fittedvalues * (1 - fit.fittedvalues)
    found = compute_cluster_covariance(x, fit.resid_working, weights, sites)
    plain = sm.GLM(y, x, family=sm.families.Binomial()).fit(
        cov_type="cluster", cov_kwds={"groups": sites, "use_correction": False}
    )
    ratio = np.diag(found.covariance) / np.diag(plain.cov_params())
    assert (ratio > 1).all()
    assert (ratio < 2).all()


# Who is lost --------------------------------------------------------------------------------------------------------


def _make_losses(n: int = 240, n_sites: int = 12, seed: int = 11) -> tuple[pd.DataFrame, pd.DataFrame]:
    random = np.random.default_rng(seed)
    people = [f"P{number:05}" for number in range(n)]
    score = random.normal(50, 10, n)
    lost = random.random(n) < 1 / (1 + np.exp(-(-0.8 + 0.05 * (score - 50))))
    losses = pd.DataFrame(
        {"arm": np.where(np.arange(n) % 2, "arm_1", "arm_0"), "site": [f"s{k % n_sites}" for k in range(n)],
         "cohort": "older", "is_lost": lost},
        index=pd.Index(people, name="participant_id"),
    )  # fmt: skip
    return losses, pd.DataFrame({"score": score}, people)


def test_an_odds_ratio_is_that_of_its_table() -> None:
    rows = _lose(arm_1=(60, 24), arm_0=(60, 12)).assign(site=[f"s{number % 10}" for number in range(120)])
    found = fit_loss_model(derive_losses(rows, "w1", ["self"]), pd.DataFrame(index=rows["participant_id"]), "arm_0")
    assert not isinstance(found, Gap)
    term = found.terms.set_index("term").loc["arm: arm_1"]
    assert term["odds_ratio"] == pytest.approx((24 / 36) / (12 / 48))
    assert (found.n, found.n_lost, found.n_sites) == (120, 36, 10)
    assert "CR2" in found.method


def test_the_model_is_statsmodels_with_the_covariance_for_few_clusters() -> None:
    losses, characteristics = _make_losses()
    found = fit_loss_model(losses, characteristics, "arm_0")
    assert not isinstance(found, Gap)
    score = characteristics["score"]
    x = np.column_stack([np.ones(len(losses)), losses["arm"] == "arm_1", (score - score.mean()) / score.std()])
    fit = sm.Logit(losses["is_lost"].astype(float).to_numpy(), x).fit(disp=0)
    np.testing.assert_allclose(np.log(found.terms["odds_ratio"]), fit.params, rtol=1e-6)
    p = fit.predict()
    y = losses["is_lost"].to_numpy()
    covariance, df = _by_definition(x, (y - p) / (p * (1 - p)), p * (1 - p), losses["site"].to_numpy(object))
    np.testing.assert_allclose(found.terms["standard_error"], np.sqrt(np.diag(covariance)), rtol=1e-5)
    np.testing.assert_allclose(found.terms["df"], df, rtol=1e-5)
    row = found.terms.iloc[2]
    assert row["high"] == pytest.approx(np.exp(fit.params[2] + student.ppf(0.975, df[2]) * np.sqrt(covariance[2, 2])))
    assert row["p"] == pytest.approx(2 * student.sf(abs(fit.params[2]) / np.sqrt(covariance[2, 2]), df[2]))
    assert row["p"] < 0.05


def test_deaths_are_apart() -> None:
    rows = make_rows(
        [
            {"person": "in"}, {"person": "lost", "in": False},
            {"person": "died in the window", "in": False, "reason": "died", "kind": "death"},
            {"person": "died before", "why": "died"}, {"person": "awaited", "in": False, "reason": "awaited"},
            {"person": "of nobody's arm", "arm": "not_allocated"},
        ]
    )  # fmt: skip
    assert derive_losses(rows, "w1", ["self"])["is_lost"].to_dict() == {"in": False, "lost": True}


def test_who_is_lost_of_the_pilot_trial(pilot: tuple[Study, pd.DataFrame]) -> None:
    _, rows = pilot
    losses = derive_losses(rows, "week_24", ["self"])
    assert losses.groupby("arm")["is_lost"].agg(["size", "sum"]).T.to_dict("list") == {
        "high_dose": [84, 54], "low_dose": [83, 56], "placebo": [84, 25],
    }  # fmt: skip
    found = fit_loss_model(losses, pd.DataFrame(index=losses.index), "placebo")
    assert not isinstance(found, Gap)
    odds = {arm: lost / (n - lost) for arm, n, lost in (("high_dose", 84, 54), ("low_dose", 83, 56), ("p", 84, 25))}
    ratios = found.terms.set_index("term")["odds_ratio"]
    assert ratios["arm: high_dose"] == pytest.approx(odds["high_dose"] / odds["p"])
    assert ratios["arm: low_dose"] == pytest.approx(odds["low_dose"] / odds["p"])


def test_separation_is_found() -> None:
    """Complete (every x above 0 has the outcome), quasi-complete (a cell of a table is empty), and neither."""
    x = np.array([-3.0, -2, -1, 1, 2, 3])
    one = np.ones(6)
    assert find_separated(np.column_stack([one, x]), x > 0, ["(constant)", "x"]) == ["x"]
    group = np.array([0.0, 0, 0, 1, 1, 1])
    outcome = np.array([False, True, False, True, True, True])
    assert find_separated(np.column_stack([one, group]), outcome, ["(constant)", "group"]) == ["group"]
    outcome = np.array([False, True, False, True, False, True])
    assert find_separated(np.column_stack([one, group]), outcome, ["(constant)", "group"]) == []
    assert find_separated(np.column_stack([one, x]), np.ones(6, bool), ["(constant)", "x"]) != []


def test_a_separated_model_gives_no_numbers() -> None:
    losses, characteristics = _make_losses()
    characteristics["pet"] = np.where(losses["is_lost"] & (np.arange(len(losses)) % 3 == 0), "rabbit", "cat")
    for found in (fit_loss_model(losses, characteristics, "arm_0"), derive_weights(losses, characteristics, "arm_0")):
        assert isinstance(found, Gap)
        assert "separated by pet: rabbit" in found.words


def test_an_arm_with_nobody_left_separates() -> None:
    rows = _lose(arm_1=(20, 20), arm_0=(20, 5)).assign(site=[f"s{number % 5}" for number in range(40)])
    found = fit_loss_model(derive_losses(rows, "w1", ["self"]), pd.DataFrame(index=rows["participant_id"]), "arm_0")
    assert isinstance(found, Gap)
    assert "arm: arm_1" in found.words


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_loss_of_everybody_or_nobody_is_a_gap(is_lost: bool) -> None:
    losses, characteristics = _make_losses()
    for every in (losses.assign(is_lost=is_lost), losses.iloc[:0]):
        for found in (
            fit_loss_model(every, characteristics, "arm_0"),
            derive_weights(every, characteristics, "arm_0"),
            derive_lost_differences(every, characteristics),
        ):
            assert isinstance(found, Gap)
            assert found.words


def test_what_cannot_be_in_a_model_is_left_out_and_told() -> None:
    losses, characteristics = _make_losses()
    more = characteristics.assign(constant=4.0, never=np.nan, twice=2 * characteristics["score"], blank="")
    more.loc[more.index[:10], "score"] = np.nan
    found = fit_loss_model(losses, more, "arm_0")
    assert not isinstance(found, Gap)
    words = " ".join(gap.words for gap in found.gaps)
    assert "left out: never, blank" in words
    assert "value is missing: 10" in words
    assert "follows from the others, left out: constant, twice" in words
    assert found.terms["term"].tolist() == ["(constant)", "arm: arm_1", "score"]
    assert found.n == 230
    nobody = fit_loss_model(losses, more[["never"]].assign(score=np.nan), "arm_0")
    assert not isinstance(nobody, Gap)  # all missing: the arms are left
    assert nobody.terms["term"].tolist() == ["(constant)", "arm: arm_1"]


def test_one_site_and_sites_of_one() -> None:
    losses, characteristics = _make_losses()
    found = fit_loss_model(losses.assign(site="s1"), characteristics, "arm_0")
    assert isinstance(found, Gap)
    assert "one site" in found.words
    single = losses.assign(site=["alone", *losses["site"].iloc[1:]])
    found = fit_loss_model(single, characteristics, "arm_0")
    assert not isinstance(found, Gap)
    assert found.n_sites == 13
    assert found.terms["standard_error"].notna().all()
    few = fit_loss_model(_make_losses(n_sites=3)[0], characteristics, "arm_0")
    assert not isinstance(few, Gap)
    assert few.terms["gap"].str.contains("Fewer than 4 degrees").all()
    everywhere = fit_loss_model(
        losses.assign(site=np.where(losses["arm"] == "arm_1", "x", "y")), characteristics, "arm_0"
    )
    assert not isinstance(everywhere, Gap)
    assert (everywhere.terms["low"].isna() <= (everywhere.terms["gap"] != "")).all()


def test_forty_arms_in_one_model() -> None:
    losses, characteristics = _make_losses(1200, 15)
    losses["arm"] = [f"Arm «{number % 40}» ж" for number in range(1200)]
    found = fit_loss_model(losses, characteristics, "Arm «0» ж")
    assert not isinstance(found, Gap)
    assert len(found.terms) == 41
    assert found.terms.loc[found.terms["gap"] == "", ["low", "high", "p"]].notna().all(axis=None)
    assert any("fewer than 10 for each" in gap.words for gap in found.gaps)


# Weights ------------------------------------------------------------------------------------------------------------


def test_weights_of_a_saturated_model_are_ratios_of_shares() -> None:
    """One arm, and one characteristic of two levels: 30 of 40 and 20 of 60 stayed, 50 of 100 in all."""
    people = [f"P{n:03}" for n in range(100)]
    level = np.where(np.arange(100) < 40, "a", "b")
    lost = np.r_[np.arange(40) >= 30, np.arange(60) >= 20]
    losses = pd.DataFrame({"arm": "arm_0", "site": "s", "cohort": "c", "is_lost": lost}, index=people)
    found = derive_weights(losses, pd.DataFrame({"level": level}, people), "arm_0", (0, 100))
    assert not isinstance(found, Gap)
    weight = found.people.set_index("participant_id")["weight"]
    assert weight["P000"] == pytest.approx((50 / 100) / (30 / 40))
    assert weight["P040"] == pytest.approx((50 / 100) / (20 / 60))
    assert found.mean == pytest.approx(1)
    assert found.n_trimmed == 0
    assert found.n == 50
    assert found.effective_n == pytest.approx((30 * 2 / 3 + 20 * 1.5) ** 2 / (30 * 4 / 9 + 20 * 2.25))
    assert found.people.set_index("participant_id").loc["P039", "gap"] == "Lost: not in the analysis."


def test_the_effective_number_is_kishs() -> None:
    assert compute_effective_n(np.array([1.0, 1, 2])) == pytest.approx(16 / 6)
    assert compute_effective_n(np.ones(17)) == 17
    assert compute_effective_n(np.array([])) == 0


def test_weights_are_trimmed_and_told() -> None:
    losses, characteristics = _make_losses(400)
    characteristics.iloc[:5] = np.nan
    found = derive_weights(losses, characteristics, "arm_0", (5, 95))
    assert not isinstance(found, Gap)
    raw = found.people["weight_untrimmed"].dropna()
    assert found.people["weight"].max() == pytest.approx(np.percentile(raw, 95))
    assert found.n_trimmed == (~raw.between(*np.percentile(raw, [5, 95]))).sum()
    assert found.effective_n < found.n
    assert (found.people["weight"].isna() == (found.people["gap"] != "")).all()
    assert set(found.people["gap"]) == {"", "Lost: not in the analysis.", "A baseline value is missing."}
    assert "percentiles 5 and 95" in found.recipe
    assert "score" in found.recipe


# The effect that can be detected ------------------------------------------------------------------------------------


def _basis(**values: float) -> PowerBasis:
    usual = {"sd": 1.0, "icc": 0.0, "baseline_correlation": 0.0, "power": 0.8, "alpha": 0.05, **values}
    stated = {name: {"value": value, "source": "Made up."} for name, value in usual.items()}
    told = {"id": "p", "label": "P", "instrument": "mood", "scale": "s", "respondents": ["self"], "wave": "w1"}
    return PowerBasis.model_validate({**told, **stated})


def _effects(rows: pd.DataFrame, **values: float) -> pd.DataFrame:
    found = derive_detectable_effects(rows, _study(), _basis(**values), ["older", "none"])
    assert isinstance(found, pd.DataFrame)
    return found.set_index(["cohort", "when"])


def test_64_in_each_arm_detect_half_a_standard_deviation() -> None:
    """Cohen 1988, table 2.4.1: d = 0.50, two-sided 0.05, power 0.80 needs 64 in each group."""
    found = _effects(_lose(arm_1=(64, 0), arm_0=(64, 0)), sd=12.0)
    assert round(found.loc[("", "now"), "effect_sd"], 2) == 0.50
    assert found.loc[("", "now"), "effect"] == pytest.approx(12 * found.loc[("", "now"), "effect_sd"])


def test_the_power_at_the_effect_is_the_power_asked_for() -> None:
    """By the noncentral t distribution, 50 and 30 people, power 0.9."""
    d = _effects(_lose(arm_1=(50, 0), arm_0=(30, 0)), power=0.9).loc[("", "now"), "effect_sd"]
    shift, limit = d * np.sqrt(50 * 30 / 80), student.ppf(0.975, 78)
    assert nct.sf(limit, 78, shift) + nct.cdf(-limit, 78, shift) == pytest.approx(0.9, abs=1e-6)


def test_a_baseline_that_correlates_shrinks_the_effect() -> None:
    rows = _lose(arm_1=(64, 0), arm_0=(64, 0))
    plain, adjusted = (_effects(rows, baseline_correlation=r).loc[("", "now"), "effect"] for r in (0, 0.6))
    assert adjusted / plain == pytest.approx(0.8)


def test_design_effects_in_their_closed_forms() -> None:
    """Equal clusters: 1 + (m - 1) ICC. Whole sites of one arm: the same by both. Both arms alike at each site: 1 - ICC.
    Eldridge and others 2006: m = 20, CV = 0.65, ICC = 0.05 gives 1 + ((1 + 0.4225) 20 - 1) 0.05."""
    sizes = np.full(10, 20.0)
    assert compute_cluster_design_effect(sizes, 0.05) == pytest.approx(1 + 19 * 0.05)
    one, other = np.r_[sizes[:5], np.zeros(5)], np.r_[np.zeros(5), sizes[:5]]
    assert compute_design_effect(one, other, 0.05) == pytest.approx(1 + 19 * 0.05)
    assert compute_design_effect(sizes, 2 * sizes, 0.05) == pytest.approx(0.95)
    uneven = np.array([20 - 13.0, 20 + 13.0])  # a standard deviation of 13: CV 0.65
    assert compute_cluster_design_effect(uneven, 0.05) == pytest.approx(1 + (1.4225 * 20 - 1) * 0.05)
    split = np.r_[uneven, 0, 0], np.r_[0, 0, uneven]
    assert compute_design_effect(*split, 0.05) == pytest.approx(compute_cluster_design_effect(uneven, 0.05))


def test_the_end_follows_from_what_came_back_so_far() -> None:
    rows = make_rows(
        {"person": f"{arm}{n}", "arm": arm, "in": n < 30, "why": "not_due" if n >= 40 else "", "cohort": "older"}
        for arm in ("arm_1", "arm_0")
        for n in range(60)
    )
    rows.loc[rows["participant_id"] == "arm_059", ["left_on", "left_kind"]] = [pd.Timestamp("2017-05-01"), "loss"]
    found = _effects(rows)
    n = found[["n_intervention", "n_comparison"]]
    assert n.loc[("", "allocated")].tolist() == [60, 60]
    assert n.loc[("", "now")].tolist() == [30, 30]
    assert n.loc[("", "end")].tolist() == pytest.approx(
        [30 + 20 * 0.75, 30 + 19 * 0.75]
    )  # who has left is not waited for
    assert found.loc[("older", "now"), "effect"] == found.loc[("", "now"), "effect"]
    assert found.loc[("none", "now"), "gap"] == "One of the two arms has fewer than two people."


def test_effects_that_cannot_be_told() -> None:
    gap = derive_detectable_effects(_lose(arm_0=(9, 1)), _study(1), _basis())
    assert isinstance(gap, Gap)
    assert "one arm" in gap.words
    gap = derive_detectable_effects(make_rows([]), _study(), _basis())
    assert isinstance(gap, Gap)
    waiting = make_rows(
        {"person": f"{arm}{n}", "arm": arm, "why": "not_due"} for arm in ("arm_1", "arm_0") for n in range(9)
    )
    found = _effects(waiting)
    assert "nobody knows how many" in found.loc[("", "end"), "gap"]
    assert found.loc[("", "allocated"), "gap"] == ""
    assert found.loc[("", "now"), "gap"] == "One of the two arms has fewer than two people."
    lost = _effects(_lose(arm_1=(9, 9), arm_0=(9, 0)))
    assert lost.loc[("", "now"), "effect"] != lost.loc[("", "now"), "effect"]  # NaN, and the gap says why
    assert lost.loc[("", "now"), "gap"] != ""
    clustered = _effects(_lose(arm_1=(9, 0), arm_0=(9, 0)), icc=0.99)
    assert "too few people" in clustered.loc[("", "now"), "gap"]


# All of it ----------------------------------------------------------------------------------------------------------

NOT_NUMBERS = {"sd_1", "sd_2", "more_intervention", "more_comparison"}  # missing where there is none, as they say


def _list_frames(found: Attrition) -> list[pd.DataFrame]:
    parts = [*found.tables.values(), found.reasons, found.patterns, found.time_to_loss.curves]
    parts += [found.time_to_loss.at_times, found.differential, found.equivalence, found.lost_differences]
    parts += [*found.detectable.values()]
    parts += [found.loss_model.terms] if not isinstance(found.loss_model, Gap) else []
    parts += [found.weights.people] if not isinstance(found.weights, Gap) else []
    return [part for part in parts if isinstance(part, pd.DataFrame)]


def _find_silent_blanks(frame: pd.DataFrame) -> list[str]:
    """Columns of numbers that are missing in a row whose gap says nothing."""
    numbers = frame.select_dtypes("number").drop(columns=list(NOT_NUMBERS & set(frame.columns)))
    is_silent = frame["gap"].isin(["", None]) if "gap" in frame else pd.Series(True, frame.index)
    return [str(name) for name in numbers.columns if (numbers[name].isna() & is_silent).any()]


def _find_gap_words(found: Attrition) -> str:
    parts = [found.retained_pct, found.differential, found.equivalence, found.lost_differences, found.loss_model]
    parts += [found.weights, *found.detectable.values(), *found.gaps, *found.time_to_loss.gaps]
    return " ".join(part.words for part in parts if isinstance(part, Gap))


def _ask(rows: pd.DataFrame, study: Study, characteristics: pd.DataFrame | None = None) -> Attrition:
    """Everything, of a study whose comparison is at w1."""
    waves = tuple(wave.model_copy(update={"id": f"w{n}"}) for n, wave in enumerate(study.waves))
    study = study.model_copy(update={"waves": waves, "power": (_basis(icc=0.02),)})
    people = sorted(set(rows["participant_id"]))
    if characteristics is None:
        values = np.random.default_rng(4).normal(size=len(people))
        characteristics = pd.DataFrame({"age": values}, people)
    return derive_attrition(study, rows, characteristics, load_boundary(), AS_OF)


def _spread(n_sites: int = 6, n: int = 60, **usual: Any) -> list[dict[str, Any]]:
    return [
        {"person": f"P{k:03}", "arm": f"arm_{k % 2}", "site": f"s{k // 2 % n_sites}", "in": k % 5 > 0, **usual}
        for k in range(n)
    ]


def _constant(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame({"score": 4.0}, [row["person"] for row in rows])


USUAL = _spread()
LOST = {"in": False, "reason": "withdrew", "kind": "loss", "left_on": "2017-05-01", "left_kind": "loss"}
BAD_INPUT: dict[str, tuple[list[dict[str, Any]], int, Any, str]] = {
    "an empty study": ([], 2, None, "no participant has joined"),
    "one arm": (_spread(arm="arm_0"), 1, None, "has one arm"),
    "an arm without anybody": (_spread(arm="arm_0"), 2, None, "Nobody is in this arm."),
    "an arm with nobody left": (
        [{**row, **(LOST if row["arm"] == "arm_1" else {})} for row in USUAL], 2, None, "Everybody in this arm",
    ),
    "a wave with no returns": (_spread(**{"in": False}), 2, None, "Nothing of this wave has come back."),
    "a wave that nobody owes yet": (_spread(why="not_due"), 2, None, "No window of w1 is over yet."),
    "a wave that is awaited": (_spread(**{"in": False, "reason": "awaited"}), 2, None, "No window of w1 is over yet."),
    "everybody dead": (_spread(why="died"), 2, None, "No window of w1 is over yet."),
    "a site with one participant": (
        [{**USUAL[0], "site": "alone"}, *USUAL[1:]], 2, None, "1 site has one participant",
    ),
    "one site": (_spread(1), 2, None, "All people are of one site"),
    "all missing": (USUAL, 2, lambda rows: _constant(rows) * np.nan, "Nobody's value is known, left out: score."),
    "constant scores": (USUAL, 2, _constant, "Does not vary"),
    "nothing known at the baseline": (USUAL, 2, lambda rows: _constant(rows)[[]], "Nothing is known of people"),
    "a participant in two arms": (
        [*USUAL, {**USUAL[0], "arm": "arm_1", "wave": "w2"}], 2, None, "1 participant stands in more than one arm",
    ),
    "separation": (
        USUAL, 2,
        lambda rows: pd.DataFrame({"pet": ["rabbit" if not row["in"] else "cat" for row in rows]},
                                  [row["person"] for row in rows]),
        "separated by pet",
    ),
    "forty arms": (
        [{**row, "arm": f"arm_{k % 40}", "in": k // 40 % 3 > 0} for k, row in enumerate(_spread(n=200))],
        40, None, "fewer than 10 for each",
    ),
    "one participant": (USUAL[:1], 2, None, "Everybody is lost"),
    "labels of any script": (
        [{**row, "site": f"Łódź «{row['site']}» 市", "cohort": "ÄÖ " + "x" * 500} for row in USUAL], 2, None, "",
    ),
    "people without a start": (_spread(started_on=None), 2, None, "Nobody told when these people joined"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_gives_named_gaps_and_no_silent_blank(name: str) -> None:
    rows, n_arms, make, words = BAD_INPUT[name]
    found = _ask(make_rows(rows), _study(n_arms), make(rows) if make else None)
    model_gaps = found.loss_model.gaps if not isinstance(found.loss_model, Gap) else ()
    assert words in _find_gap_words(found) + " ".join(gap.words for gap in model_gaps)
    frames = _list_frames(found)
    assert len(frames) >= 9
    assert {n: blanks for n, frame in enumerate(frames) if (blanks := _find_silent_blanks(frame))} == {}


def test_all_figures_of_the_pilot_trial_are_there(pilot: tuple[Study, pd.DataFrame]) -> None:
    study, rows = pilot
    values = pd.Series(np.arange(306.0), sorted(set(rows["participant_id"])))
    characteristics = pd.DataFrame({"adas_cog.adas_cog_11": np.cos(values), "dad.dad_total (carer)": np.sin(values)})
    found = derive_attrition(study, rows, characteristics, load_boundary(), END)
    assert (found.wave, found.respondents) == ("week_24", ("self",))
    assert found.retained_pct == pytest.approx(100 * (59 + 30 + 27) / 252)
    assert found.benchmark.startswith("Below the lower quartile")
    assert not any(isinstance(part, Gap) for part in vars(found).values())
    assert not any(isinstance(part, Gap) for part in found.detectable.values())
    assert all(_find_silent_blanks(frame) == [] for frame in _list_frames(found))


def test_without_a_main_analysis_comparisons_look_at_the_last_wave_at_which_participants_are_asked() -> None:
    plain = {"main_analysis": (), "power": ()}
    pilot = load_study("cdisc_pilot", PROJECT / "sites_config", PROJECT / "instruments").model_copy(update=plain)
    last = [wave.id for wave in pilot.waves if wave.role == "follow_up"][-1]
    assert {entry.respondent for entry in pilot.find_scheduled(last)} == {"carer"}
    wave, respondents = find_comparison(pilot)
    assert (wave, respondents) == ("week_24", ("self",))
    of_carers = tuple(entry for entry in pilot.schedule if entry.respondent == "carer")
    assert find_comparison(pilot.model_copy(update={"schedule": of_carers})) == (last, ("carer",))
