"""The forecast of openings: what is learned of durations, how they pass through the pathway, what is recorded."""

from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.forecast import FAMILIES, MOMENTS, Score, World, compute_score
from study.calendar import add_working_days
from study.events import Event, Voided
from study.forecast import (
    Forecast,
    Walk,
    compute_slip,
    derive_forecast_events,
    derive_forecast_history,
    draw_kinds,
    forecast_openings,
    is_forecast_due,
    learn_durations,
    list_attempts,
)
from study.gate import open_gate
from study.pathway import Prior
from study.protocol import Study
from tasks.definitions import load_study
from tests.approval_histories import PATHWAY, make_study, step, tell

DEVON: dict[str, Any] = {"site_id": "devon"}
DEVON_COUNCIL: dict[str, Any] = {"site_id": "devon", "body_id": "devon_council"}


def write_prior(
    route: str, step: str, lower: int, median: int, upper: int, unit: str = "calendar", weight: int = 4
) -> str:
    return f"""
[[priors]]
route = "{route}"
step = "{step}"
lower_quartile = {lower}
median = {median}
upper_quartile = {upper}
unit = "{unit}"
weight = {weight}
source = "Made up."
"""


PRIORS = "".join(
    [
        write_prior("form", "submission", 10, 20, 40),
        write_prior("form", "validation", 3, 5, 8, "working"),
        write_prior("form", "decision", 40, 60, 85),
        write_prior("council_form", "submission", 7, 14, 30),
        write_prior("council_form", "decision", 60, 100, 160),
        write_prior("local_pack", "submission", 7, 14, 30),
        write_prior("local_pack", "decision", 9, 10, 11, "working", 1000),
        write_prior("sponsor_check", "submission", 2, 5, 10),
        write_prior("sponsor_check", "decision", 2, 5, 10, "working"),
    ]
)
STUDY = make_study(PATHWAY + PRIORS)
PRIOR = Prior(
    route="form",
    step="decision",
    lower_quartile=40,
    median=60,
    upper_quartile=85,
    unit="calendar",
    weight=4,
    source="Made up.",
)

REC = [step("submitted", "2017-01-05"), step("valid", "2017-01-10"), step("granted", "2017-03-01")]
LIGHTS = [
    *(step("submitted", "2017-03-01", "green_light"), step("granted", "2017-03-06", "green_light")),
    step("submitted", "2017-03-01", "green_light", **DEVON),
    step("granted", "2017-03-03", "green_light", **DEVON),
]
TRUST = [step("submitted", "2017-01-20", "trust"), step("granted", "2017-03-02", "trust")]
LUTON_SENT = [step("submitted", "2017-03-10", "council")]
DEVON_SENT = [step("submitted", "2017-03-15", "council", **DEVON_COUNCIL)]
LUTON_GRANTED = [*LUTON_SENT, step("granted", "2017-06-01", "council")]
DEVON_GRANTED = [*DEVON_SENT, step("granted", "2017-05-04", "council", **DEVON_COUNCIL)]
COMMON = [*REC, *LIGHTS, *TRUST]
EVERYTHING = [*COMMON, *LUTON_GRANTED, *DEVON_GRANTED]


def forecast(on: str, *told: Event, study: Study = STUDY, n_draws: int = 2_000) -> Forecast:
    return forecast_openings(study, tell(*told), date.fromisoformat(on), n_draws=n_draws)


def find_row(found: Forecast, site_id: str) -> Any:
    return next(row for row in found.sites.itertuples() if row.site_id == site_id)


def show(value: Any) -> str:
    return "-" if pd.isna(value) else f"{value:%Y-%m-%d}"


# Durations ----------------------------------------------------------------------------------------------------------


def draw(
    cases: list[tuple[float, float]], longer_than: float = 0, prior: Prior = PRIOR, shapes: tuple[str, ...] = ()
) -> Any:
    rng = np.random.default_rng(1)
    names = shapes or ("normal", "logistic", "extreme")
    posterior = learn_durations(prior, cases, names)
    kinds = draw_kinds([posterior], rng, 20_000, names)
    return posterior.draw(kinds, rng).draw(rng, longer_than)


@pytest.mark.parametrize("weight", [1, 4, 40])
def test_without_own_cases_the_quartiles_of_the_prior_come_back(weight: int) -> None:
    days = draw([], prior=PRIOR.model_copy(update={"weight": weight}))
    assert np.quantile(days, [0.25, 0.5, 0.75]) == pytest.approx([40, 60, 85], rel=0.06)


def test_many_own_cases_outweigh_the_prior() -> None:
    own = np.random.default_rng(2).gamma(6, 20, 400)  # median 113, quartiles 85 and 149
    days = draw([(n - 0.5, n + 0.5) for n in np.round(own)])
    assert np.quantile(days, [0.25, 0.5, 0.75]) == pytest.approx(np.quantile(own, [0.25, 0.5, 0.75]), rel=0.06)


def test_the_weight_of_a_prior_is_that_of_so_many_cases() -> None:
    cases = [(119.5, 120.5)] * 5
    medians = [np.median(draw(cases, prior=PRIOR.model_copy(update={"weight": weight}))) for weight in (1, 5, 50)]
    assert medians[0] > medians[1] > medians[2]
    assert medians[1] == pytest.approx(np.sqrt(60 * 120), rel=0.1)  # half way, on the log scale


def test_what_still_runs_lengthens_the_estimate() -> None:
    over = [(29.5, 30.5)] * 4
    assert np.median(draw([*over, *[(90.5, np.inf)] * 4])) > 1.3 * np.median(draw(over))
    assert np.median(draw([*over, *[(5.5, np.inf)] * 4])) == pytest.approx(np.median(draw(over)), rel=0.05)
    assert np.median(draw([*over, *[(0, 20.5)] * 4])) < 0.85 * np.median(draw(over))


def test_one_absurd_case_does_not_rule() -> None:
    cases = [(n - 0.5, n + 0.5) for n in range(50, 70)]
    assert np.median(draw([*cases, (0, 0.5), (2999.5, 3000.5)])) == pytest.approx(np.median(draw(cases)), rel=0.1)


def test_the_longer_it_takes_the_longer_it_will_take() -> None:
    left = [np.median(draw([(elapsed, np.inf)], elapsed) - elapsed) for elapsed in (60.5, 120.5, 240.5)]
    assert left[0] < left[1] < left[2]
    assert all(draw([], elapsed).min() >= elapsed for elapsed in (0.5, 60.5, 900.5))


# Sites --------------------------------------------------------------------------------------------------------------


def test_what_is_open_has_no_spread() -> None:
    found = forecast("2017-06-10", *EVERYTHING)
    days = found.sites[["opened_on", "p10_on", "median_on", "p80_on"]].map(show)
    assert days.to_numpy().tolist() == [["2017-05-04"] * 4, ["2017-06-01"] * 4]
    assert found.sites["is_open"].all()
    assert (found.sites["hindrance"] == "").all()
    assert found.critical.empty
    assert found.levers.empty
    assert found.items.empty
    assert [found.find_probability("luton", date(2017, 6, day)) for day in (1, 2)] == [1, 1]
    assert found.find_probability("luton", date(2017, 5, 31)) == 0


def test_one_item_left() -> None:
    found = forecast("2017-06-01", *COMMON, *LUTON_GRANTED, *DEVON_SENT)
    luton, devon = find_row(found, "luton"), find_row(found, "devon")
    assert (luton.is_open, devon.is_open) == (True, False)
    assert found.openings.days[devon.Index].min() >= 1
    assert found.items[["site_id", "body_id", "approval"]].to_numpy().tolist() == [
        ["devon", "devon_council", "council"]
    ]
    assert found.critical[["site_id", "item", "share"]].to_numpy().tolist() == [
        ["devon", "council (devon, devon_council)", 1]
    ]
    (lever,) = found.levers.to_dict("records")
    assert (lever["approval"], lever["step"]) == ("council", "decision")
    left = (devon.median_on - pd.Timestamp("2017-06-01")).days
    assert lever["days_gained"] == pytest.approx(left / 2, abs=1)


def test_the_probability_agrees_with_the_quantiles() -> None:
    found = forecast("2017-04-01", *COMMON, *LUTON_SENT)
    for site_id in ("luton", "devon"):
        for name, share in (("p10_on", 0.1), ("median_on", 0.5), ("p80_on", 0.8)):
            day = getattr(find_row(found, site_id), name).date()
            assert found.find_probability(site_id, day) >= share
            assert found.find_probability(site_id, day - timedelta(days=1)) < share
        assert found.find_probability(site_id, date(2017, 4, 1)) == 0
    with pytest.raises(KeyError, match=r'"leeds" is no site of the forecast\.'):
        found.find_probability("leeds", date(2017, 4, 1))


@pytest.mark.parametrize("sent", ["2017-04-10", "2017-04-13", "2017-05-26", "2017-12-22", "2020-02-27", "2024-03-28"])
def test_working_days_skip_holidays(sent: str) -> None:
    """The trust decides in 10 working days, give or take none."""
    on = date.fromisoformat(sent)
    found = forecast(sent, *REC, *LIGHTS, step("submitted", on, "trust"), *LUTON_GRANTED)
    (median_on,) = found.items.loc[found.items["approval"] == "trust", "median_on"]
    assert median_on.date() == add_working_days(on, 10)


def test_a_pack_that_waits_for_the_committee_says_nothing() -> None:
    """The trust's ten working days are long over, but it can't confirm before the committee's opinion."""
    waiting = [step("submitted", "2017-01-05"), step("valid", "2017-01-10"), step("submitted", "2017-01-06", "trust")]
    items = forecast("2017-02-20", *waiting).items.set_index("approval")
    assert items["median_on"]["trust"] == items["median_on"]["rec"]


@pytest.mark.parametrize(
    ("told", "hindrances"),
    [
        ([*COMMON, *LUTON_SENT, step("refused", "2017-04-01", "council")], ["", "refused"]),
        ([*COMMON, *LUTON_SENT, step("withdrawn", "2017-04-01", "council")], ["", "withdrawn"]),
        (
            [
                *(*COMMON, *LUTON_SENT, step("refused", "2017-04-01", "council")),
                step("resubmitted", "2017-04-20", "council", attempt=2),
            ],
            ["", ""],
        ),
        ([*REC[:2], step("refused", "2017-02-01")], ["refused", "refused"]),  # everything waits for the committee
    ],
)
def test_what_hinders(told: list[Event], hindrances: list[str]) -> None:
    found = forecast("2017-05-01", *told)
    assert found.sites["hindrance"].tolist() == hindrances
    assert (found.sites["median_on"].isna() == (found.sites["hindrance"] != "")).all()
    hindered = found.sites.loc[found.sites["hindrance"] != "", "site_id"].tolist()
    assert set(found.critical["site_id"]).isdisjoint(hindered)
    assert all(found.find_probability(site_id, date(2019, 1, 1)) == 0 for site_id in hindered)


def test_what_has_lapsed_is_sought_again() -> None:
    granted = step("granted", "2017-05-04", "council", **DEVON_COUNCIL, expires_on=date(2017, 6, 30))
    told = [*COMMON, *LUTON_GRANTED, *DEVON_SENT, granted]
    assert find_row(forecast("2017-06-30", *told), "devon").is_open
    row = find_row(forecast("2017-07-01", *told), "devon")
    assert (row.is_open, row.hindrance) == (False, "")
    assert row.p10_on > pd.Timestamp("2017-07-20")


def test_a_grant_that_starts_later_has_a_known_day() -> None:
    granted = step("granted", "2017-05-04", "council", **DEVON_COUNCIL, in_force_from=date(2017, 7, 3))
    row = find_row(forecast("2017-05-10", *COMMON, *DEVON_SENT, granted), "devon")
    assert [show(day) for day in (row.opened_on, row.p10_on, row.median_on, row.p80_on)] == ["-", *["2017-07-03"] * 3]


def test_open_conditions_are_part_of_the_decision() -> None:
    granted = step("granted_with_conditions", "2017-05-04", "council", **DEVON_COUNCIL, conditions=["a"])
    waiting = find_row(forecast("2017-05-10", *COMMON, *DEVON_SENT), "devon")
    row = find_row(forecast("2017-05-10", *COMMON, *DEVON_SENT, granted), "devon")
    assert (row.is_open, row.median_on) == (False, waiting.median_on)


def test_activities_that_are_not_planned_and_those_that_need_persons() -> None:
    unplanned = forecast_openings(STUDY, tell(*EVERYTHING), date(2017, 6, 10), "recruit", n_draws=100)
    assert unplanned.sites["hindrance"].tolist() == ["not_planned"] * 2
    interview = forecast_openings(STUDY, tell(*REC), date(2017, 6, 10), "interview", n_draws=100)
    assert [show(day) for day in interview.sites["opened_on"]] == ["2017-03-01"] * 2


def test_slow_first_steps_slow_the_rest_down() -> None:
    """The pace of a study: no council has decided, and what they are expected to take depends on the committee."""
    sent = [*LUTON_SENT, *DEVON_SENT]
    early = [step("submitted", "2017-01-05"), step("valid", "2017-01-10"), step("granted", "2017-02-01")]
    late = [step("submitted", "2016-08-05"), step("valid", "2016-08-30"), step("granted", "2017-02-01")]
    quick, slow = (
        forecast("2017-03-15", *rec, *sent, n_draws=10_000).items.set_index(["approval", "site_id"])["median_on"]
        for rec in (early, late)
    )
    assert slow["council", "devon"] > quick["council", "devon"] + pd.Timedelta(days=5)


def test_what_a_month_of_slip_does() -> None:
    found = forecast("2017-04-01", *COMMON, *LUTON_SENT, *DEVON_SENT)
    slip = compute_slip(found, ["devon"]).loc[0]
    assert (slip["slipped_median_on"] - slip["median_on"]).days == 30
    assert (slip["slipped_p80_on"] - slip["p80_on"]).days == 30
    opened = compute_slip(forecast("2017-06-10", *EVERYTHING), ["luton"])
    assert opened["slipped_median_on"].equals(opened["median_on"])


# The pathway --------------------------------------------------------------------------------------------------------

DAYS = st.integers(0, 60)


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Ledgers in which each item has got some way, in whatever order."""
    told: list[Event] = []
    places: list[tuple[str, dict[str, Any]]] = [("rec", {}), ("trust", {}), ("council", {}), ("green_light", {})]
    for approval, place in [*places, ("council", DEVON_COUNCIL), ("green_light", DEVON)]:
        day = date(2017, 1, 2)
        names = ["submitted", *(["valid"] if approval == "rec" else []), "granted"]
        for name in names[: draw(st.integers(0, len(names)))]:
            day += timedelta(days=draw(DAYS))
            expires: dict[str, Any] = {}
            if name == "granted" and draw(st.booleans()):
                expires = {"expires_on": day + timedelta(days=draw(DAYS))}
            told.append(step(name, day, approval, **place, **expires))
    return told


@settings(max_examples=15, deadline=None)
@given(told=histories(), n_days=st.integers(0, 150))
def test_every_draw_keeps_the_order_of_the_pathway_and_agrees_with_the_gate(told: list[Event], n_days: int) -> None:
    as_of = date(2017, 1, 2) + timedelta(days=n_days)
    events = tell(*told)
    attempts = list_attempts(STUDY, events, as_of)
    walk = Walk(STUDY, attempts, as_of, "approach", 200)
    in_force = walk.draw()
    sent = {one.item for one in attempts if one.lapsed_on is None}
    for place, days in in_force.items():
        node = walk.nodes[place]
        if node.known is None:
            assert days.min() >= 1
            for other in [*node.granted_after, *([] if node.item in sent else node.submitted_after)]:
                assert (days >= in_force[other]).all()
    openings = walk.derive_openings(in_force)
    gate = open_gate(STUDY, events, as_of)
    is_open = [gate.ask("approach", site.site_id).is_allowed for site in STUDY.sites]
    assert ((openings.days <= 0).all(axis=1) == is_open).all()
    assert ((openings.days <= 0).any(axis=1) == is_open).all()


def test_the_same_day_gives_the_same_forecast_and_a_view_narrows() -> None:
    first = forecast("2017-04-01", *COMMON, *LUTON_SENT)
    again = forecast("2017-04-01", *COMMON, *LUTON_SENT)
    for name in ("sites", "critical", "levers", "items"):
        pd.testing.assert_frame_equal(getattr(first, name), getattr(again, name))
    later = forecast("2017-04-01", *COMMON, *LUTON_SENT, *DEVON_SENT[:0], step("granted", "2017-04-02", "council"))
    pd.testing.assert_frame_equal(first.sites, later.sites)
    n_before = len(COMMON) + len(LUTON_SENT)
    events = tell(*COMMON, *LUTON_SENT, step("granted", "2017-03-20", "council"))
    known_at = datetime(2017, 1, 1, 12, n_before, tzinfo=UTC)
    believed = forecast_openings(STUDY, events.select(known_at=known_at), date(2017, 4, 1), n_draws=2_000)
    pd.testing.assert_frame_equal(first.sites, believed.sites)
    assert find_row(forecast_openings(STUDY, events, date(2017, 4, 1), n_draws=10), "luton").is_open


# Recording ----------------------------------------------------------------------------------------------------------


def test_what_was_recorded_is_held_against_what_happened() -> None:
    days = ["2017-04-03", "2017-05-01", "2017-06-05"]
    recorded = [
        event
        for on in days
        for event in derive_forecast_events(forecast(on, *COMMON, *LUTON_GRANTED, *DEVON_SENT), "daily round")
    ]
    assert len({event.key for event in recorded}) == len(recorded) == 6
    history = derive_forecast_history(tell(*recorded))
    luton = history.loc[history["site_id"] == "luton"]
    assert [show(day) for day in luton["occurred_on"]] == days
    assert luton["is_open"].tolist() == [False, False, True]
    assert [show(day) for day in luton["opened_on"]] == ["2017-06-01"] * 3
    assert luton["days_late"].tolist() == [
        (pd.Timestamp("2017-06-01") - median).days for median in luton["median_on"].iloc[:2]
    ] + [0]
    assert luton["is_covered"].tolist() == [True, True, True]
    devon = history.loc[history["site_id"] == "devon"]
    assert devon[["opened_on", "days_late", "is_covered"]].isna().all(axis=None)


RECORDED = derive_forecast_events(forecast("2017-04-05", *COMMON, n_draws=10), "daily round")  # a Wednesday


@pytest.mark.parametrize(
    ("told", "on", "expected"),
    [
        (COMMON, "2017-04-05", True),
        ([*COMMON, *RECORDED], "2017-04-05", False),
        ([*COMMON, *RECORDED], "2017-04-09", False),
        ([*COMMON, *RECORDED], "2017-04-10", True),  # Monday
        ([*COMMON, *RECORDED, *LUTON_SENT], "2017-04-05", False),  # one a day
        ([*COMMON, *RECORDED, *LUTON_SENT], "2017-04-06", True),
        ([*COMMON, *RECORDED, step("submitted", "2017-04-07", "council")], "2017-04-06", False),
        ([*COMMON, *RECORDED, step("submitted", "2017-03-10", "council", modification="m1")], "2017-04-06", False),
        (
            [
                *(*COMMON, *RECORDED),
                Voided(occurred_on=date(2017, 4, 6), requested_by="Siân", voids=f"{3:064x}", reason="entered_in_error"),
            ],
            "2017-04-06",
            True,
        ),
        (COMMON, "2019-06-01", False),  # the study is over
    ],
)
def test_when_a_forecast_is_due(told: list[Event], on: str, expected: bool) -> None:
    assert is_forecast_due(STUDY, tell(*told), date.fromisoformat(on)) is expected


# Calibration --------------------------------------------------------------------------------------------------------


@cache
def open_world() -> World:
    return World(load_study("ipc"))


@pytest.mark.parametrize("name", ["gamma", "mixture of quick and slow", "one body in ten three times as slow"])
def test_calibration(name: str) -> None:
    world, rng = open_world(), np.random.default_rng(3)
    scores = []
    for _ in range(30):
        truths = world.play(FAMILIES[name], rng)
        scores += [compute_score(world, truths, as_of, 400) for as_of in MOMENTS.values()]
    total = Score(*(int(count) for count in np.sum(scores, axis=0)))
    assert total.n_sites > 1000
    assert 0.65 <= total.n_covered / total.n_sites <= 0.92
