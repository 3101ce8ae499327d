"""What a timeline shows: bars that meet, scales that keep within their ends, what a slip leaves of recruiting."""

from datetime import date, timedelta
from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.approval_steps import ITEM, derive_steps
from study.approvals import derive_approvals
from study.forecast import forecast_openings
from study.gate import open_gate
from study.state import Events
from study.timeline import (
    compute_percent,
    derive_approval_bars,
    derive_approval_marks,
    derive_room,
    derive_site_bars,
    list_quarters,
    list_wave_plans,
)
from tests.approval_histories import make_study, step, tell
from tests.test_position import TODAY, load_ipc, play_until

FIRST, LAST = date(2016, 11, 1), date(2018, 11, 30)


def draw_bars(*told: object, as_of: str = "2017-06-30") -> list[tuple[str, str, str]]:
    study, day = make_study(), date.fromisoformat(as_of)
    bars = derive_approval_bars(study, derive_steps(study, tell(*told), day), day)  # type: ignore[arg-type]  # events
    return [
        (kind, f"{start:%m-%d}", f"{end:%m-%d}") for kind, start, end in bars[["kind", "from_on", "until_on"]].values
    ]


@given(st.dates(date(2015, 1, 1), date(2020, 12, 31)))
def test_a_day_lies_on_the_scale(day: date) -> None:
    percent = compute_percent(day, FIRST, LAST)
    assert 0 <= percent <= 100
    assert percent == 0 if day <= FIRST else percent == 100 if day > LAST else 0 < percent < 100
    assert compute_percent(day, FIRST, LAST) <= compute_percent(day + timedelta(days=1), FIRST, LAST)


def test_a_scale_ends_with_its_last_day() -> None:
    assert compute_percent(FIRST, FIRST, FIRST) == 0
    assert compute_percent(FIRST + timedelta(days=1), FIRST, FIRST) == 100
    assert list_quarters(date(2016, 12, 31), date(2017, 7, 1)) == [date(2017, n, 1) for n in (1, 4, 7)]


def test_bars_of_an_application_meet_and_stop_from_the_day_after_the_request() -> None:
    told = [
        step("submitted", "2017-01-02"),
        step("valid", "2017-01-05"),
        step("requested", "2017-01-20"),
        step("answered", "2017-02-03"),
    ]
    assert draw_bars(*told) == [
        ("sent", "01-02", "01-04"),
        ("running", "01-05", "01-20"),
        ("stopped", "01-21", "02-03"),
        ("running", "02-04", "06-30"),
    ]
    granted = step("granted", "2017-03-01", expires_on="2017-05-31")
    assert draw_bars(*told, granted)[-2:] == [("running", "02-04", "02-28"), ("in_force", "03-01", "05-31")]
    assert draw_bars(*told, as_of="2017-01-20")[-1] == ("running", "01-05", "01-20")
    assert draw_bars(*told, as_of="2017-01-21")[-1] == ("stopped", "01-21", "01-21")
    assert draw_bars(*told, step("withdrawn", "2017-02-04"))[-1] == ("stopped", "01-21", "02-03")


def test_a_refusal_leaves_no_bar_and_the_next_attempt_has_its_own() -> None:
    told = [
        step("submitted", "2017-01-02", "council"),
        step("refused", "2017-02-01", "council"),
        step("resubmitted", "2017-03-01", "council", attempt=2),
    ]
    assert draw_bars(*told) == [("running", "01-02", "01-31"), ("running", "03-01", "06-30")]


def test_what_ran_out_is_marked_on_the_day_after() -> None:
    study = make_study()
    events = tell(step("submitted", "2017-01-02"), step("granted", "2017-02-01", expires_on="2017-02-28"))
    for day, kinds in (("2017-02-28", ["submitted", "granted"]), ("2017-03-01", ["submitted", "granted", "expired"])):
        on = date.fromisoformat(day)
        marks = derive_approval_marks(derive_steps(study, events, on), derive_approvals(study, events, on))
        assert marks["kind"].tolist() == kinds
    assert marks["on"].iloc[-1] == pd.Timestamp("2017-03-01")


def test_bars_of_one_attempt_never_overlap_in_the_played_study() -> None:
    study = load_ipc()
    events, _ = play_until()
    bars = derive_approval_bars(study, derive_steps(study, events, TODAY), TODAY)
    assert set(bars["kind"]) == {"sent", "running", "stopped", "in_force"}
    assert (bars["from_on"] <= bars["until_on"]).all()
    for _, own in bars.groupby([*ITEM, "attempt"]):
        for (_, before), (_, after) in pairwise(own.iterrows()):
            assert before["until_on"] < after["from_on"]


@pytest.mark.parametrize("activity", ["approach", "collect_baseline"])
def test_bars_of_sites_are_what_the_gate_says(activity: str) -> None:
    """Held against the gate on every tenth day, and on the days around each turn."""
    study = load_ipc()
    events, _ = play_until()
    bars = derive_site_bars(study, events, derive_approvals(study, events, TODAY), TODAY, activity)
    is_open = bars.loc[bars["kind"] == "open"]
    days = {stamp.date() + timedelta(days=n) for stamp in is_open["from_on"].tail(6) for n in (-1, 0)}
    days |= {study.starts_on + timedelta(days=n) for n in range(0, (TODAY - study.starts_on).days, 50)} | {TODAY}
    for day in sorted(days):
        gate, stamp = open_gate(study, events, day), pd.Timestamp(day)
        drawn = set(is_open.loc[(is_open["from_on"] <= stamp) & (stamp <= is_open["until_on"]), "site_id"])
        assert drawn == {site.site_id for site in study.sites if gate.ask(activity, site.site_id).is_allowed}


def test_a_wave_has_room_until_the_last_baseline_that_it_falls_due_after() -> None:
    study = load_ipc()
    for plan in list_wave_plans(study):
        wave = study.find_wave(plan.wave)
        assert wave is not None
        assert plan.last_baseline_on is not None
        if plan.role == "follow_up":
            last = study.compute_window_dates(wave, plan.last_baseline_on)
            after = study.compute_window_dates(wave, plan.last_baseline_on + timedelta(days=1))
            assert last.due_on <= study.data_collection_ends_on < after.due_on
            first = study.compute_window_dates(wave, study.data_collection_starts_on)
            assert plan.opens_on == first.opens_on
    assert [plan.wave for plan in list_wave_plans(study)] == ["baseline", "follow_up_6m", "follow_up_12m"]


def test_a_wave_that_never_fits_has_no_last_baseline() -> None:
    study = load_ipc()
    short = study.model_copy(update={"data_collection_ends_on": date(2018, 3, 31)})
    assert [plan.last_baseline_on for plan in list_wave_plans(short)][2] is None
    forecast = forecast_openings(short, Events({}), date(2016, 12, 1), n_draws=50)
    room = derive_room(short, forecast, ["luton"]).set_index("wave")
    assert room["n_days"].to_dict()["follow_up_12m"] == 0
    assert room["last_on"].isna().to_dict() == {"baseline": False, "follow_up_6m": False, "follow_up_12m": True}


def test_a_slip_takes_its_days_from_what_is_left_and_never_more() -> None:
    study = load_ipc()
    _, forecast = play_until()
    room = derive_room(study, forecast, [site.site_id for site in study.sites])
    known = room.loc[room["n_days"].notna()]
    lost = known["n_days"] - known["n_days_after_slip"]
    assert ((lost >= 0) & (lost <= 30)).all()
    assert (known["n_days_after_slip"] >= 0).all()
    hampshire = known.loc[(known["site_id"] == "hampshire") & (known["wave"] == "baseline")]
    assert (hampshire["n_days"] - hampshire["n_days_after_slip"]).tolist() == [30]
    refused = room.loc[room["site_id"] == "nottingham_city"]
    assert refused["n_days"].isna().all()
    open_one = room.loc[(room["site_id"] == "portsmouth") & (room["wave"] == "follow_up_12m")]
    assert open_one["opens_on"].tolist() == [pd.Timestamp(TODAY)]
    assert open_one["n_days"].tolist() == [(date(2017, 11, 2) - TODAY).days + 1]
