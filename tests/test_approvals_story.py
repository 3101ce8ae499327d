"""The made-up course of the IPC approvals: a valid story, played through the daily round; and the gate held against the
page for every site and day of three years."""

import re
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import icalendar
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prefect.server.api.server import SubprocessASGIServer
from rich.console import Console
from typer.testing import CliRunner

from desk.approval_views import approvals_app
from flows.approvals import describe_position
from rehearsal.approvals_story import NAME, Played, Told, derive_postings, derive_story, play, read_story, record_told
from rehearsal.replay import ReplayRefused
from study.approval_chasing import derive_approval_chasers
from study.approval_steps import STEPS
from study.approvals import derive_approvals
from study.calendar import find_day_bounds
from study.deadlines import derive_deadlines
from study.events import ApprovalEvent, ForecastRecorded, StudyDayCompleted
from study.forecast import derive_forecast_history, forecast_openings
from study.gate import derive_open_days, open_gate
from study.incidents import derive_incidents
from study.modifications import derive_document_versions, derive_modifications, find_document_version
from study.pathway import ACTIVITIES
from study.position import derive_position
from study.protocol import Study
from study.state import Events
from study.timeline import derive_site_bars
from tasks.approvals import APPROVALS_CALENDAR, APPROVALS_PAGE, follow_approvals
from tasks.approvals_page import write_approvals_page
from tasks.definitions import load_study
from tasks.settings import Settings, read_settings
from tasks.workspace import create_workspace
from tests.approval_histories import NOON, tell

FIRST, LAST = date(2016, 11, 1), date(2019, 10, 31)
END = date(2017, 9, 29)


@cache
def study() -> Study:
    return load_study("ipc")


@cache
def story() -> tuple[Told, ...]:
    return tuple(derive_story(study()))


@cache
def ledger() -> Events:
    return tell(*(entry.event for entry in story()))


def ask_everything(days: tuple[date, date], events: Events) -> pd.DataFrame:
    """The gate's answers about every site as a whole, by activity and site."""
    activities = [activity for activity in ACTIVITIES if activity != "interview"]
    questions = pd.DataFrame(
        [(activity, site.site_id, "", "") for activity in activities for site in study().sites],
        columns=["activity", "site_id", "body_id", "person_id"],
    )
    answers = derive_open_days(study(), events, questions, *days)
    return answers.set_index(pd.MultiIndex.from_frame(questions[["activity", "site_id"]]))


# The story


def test_story_holds_what_it_is_for() -> None:
    """Sent in in November 2016; the last site opens for baseline in July 2017 or later; clock stops, two
    modifications, a lapse."""
    steps = [entry.event for entry in story() if isinstance(entry.event, ApprovalEvent)]
    assert min(step.occurred_on for step in steps) == date(2016, 11, 7)
    assert {STEPS[type(step)] for step in steps} == set(STEPS.values()) - {"withdrawn"}
    opened = ask_everything((FIRST, END), ledger()).loc["collect_baseline"].idxmax(axis="columns")
    assert opened.max() >= pd.Timestamp(2017, 7, 1)
    assert opened.nunique() > 10
    modifications = derive_modifications(study(), ledger(), END)
    assert set(modifications["modification"]) == {"SA01", "NSA02"}
    luton = ask_everything((FIRST, END), ledger()).loc[("approach", "luton")]
    assert [luton[pd.Timestamp(2017, month, day)] for month, day in ((8, 31), (9, 1), (9, 14), (9, 15))] == [
        True, False, False, True,
    ]  # fmt: skip


def test_a_story_that_no_ledger_would_hold_is_refused(tmp_path: Path) -> None:
    """What the story tells is checked as what anybody tells: a grant without its sending in is refused."""
    workspace = create_workspace("ipc", settings=Settings(data_folder=tmp_path, _env_file=None), name=NAME)
    key = "approval:council_governance:luton:luton_borough_council:::1:decided"
    (grant,) = (entry.event for entry in story() if entry.event.key == key)
    with pytest.raises(ReplayRefused, match=r"2017-03-31 is refused: .*no record that it was submitted"):
        record_told(workspace, [grant], END)
    assert workspace.ledger.head().seq == 0


def test_people_are_screened_where_the_gate_says_yes_except_at_one_site() -> None:
    is_open = ask_everything((FIRST, END), ledger()).loc["recruit"]
    screened = [
        (posting.site_id, day)
        for posting in derive_postings(study(), read_story(), ledger(), FIRST, END)
        for day in posting.screening["screened_on"]
    ]
    assert len(screened) > 100
    wrongly = {(site_id, day) for site_id, day in screened if not is_open.loc[site_id, day]}
    assert {site_id for site_id, _ in wrongly} == {"luton"}
    assert all(pd.Timestamp(2017, 8, 31) < day < pd.Timestamp(2017, 9, 15) for _, day in wrongly)


# The gate and the page


def test_gate_and_timeline_agree_for_every_site_and_day_of_three_years() -> None:
    """What the page draws as open is what the gate answers, for each activity, site and day."""
    answers = ask_everything((FIRST, LAST), ledger())
    days, approvals = answers.columns, derive_approvals(study(), ledger(), LAST)
    for activity in answers.index.unique(level=0):
        bars = derive_site_bars(study(), ledger(), approvals, LAST, activity)
        for site_id, own in answers.loc[activity].iterrows():
            drawn = np.zeros(len(days), bool)
            for bar in bars[(bars["site_id"] == site_id) & (bars["kind"] == "open")].itertuples():
                drawn |= (days >= bar.from_on) & (days <= bar.until_on)
            assert np.array_equal(drawn, own.to_numpy()), (activity, site_id)


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.integers(0, (LAST - FIRST).days), st.sampled_from(["approach", "collect_baseline", "link_records"]))
def test_gate_says_of_a_day_what_it_says_of_many(n: int, activity: str) -> None:
    """One day asked alone, with the ledger up to then, has the answer that it has among many."""
    day = FIRST + timedelta(days=n)
    gate = open_gate(study(), ledger(), day)
    answers = ask_everything((FIRST, LAST), ledger()).loc[activity, pd.Timestamp(day)]
    for site in study().sites:
        assert gate.ask(activity, site.site_id).is_allowed == answers[site.site_id]


@pytest.mark.parametrize("day", [date(2017, 3, 26), date(2017, 6, 21), date(2017, 9, 5), END, date(2018, 12, 31)])
def test_page_shows_each_site_as_the_gate_has_it(day: date) -> None:
    """Read from the written page: the tag of each site, and the day on which it opened."""
    events = ledger().select(as_of=day)
    forecast = forecast_openings(study(), events, day, "collect_baseline", n_draws=500)
    deadlines, incidents = (
        derive_deadlines(study(), events, day, within_days=90),
        derive_incidents(study(), events, day),
    )
    page = write_approvals_page(
        study=study(),
        events=events,
        as_of=day,
        written_at=NOON,
        position=derive_position(study(), events, day, forecast, deadlines, incidents),
        forecast=forecast,
        deadlines=deadlines,
        incidents=incidents,
        chasers=derive_approval_chasers(study(), events, day),
    ).decode()
    answers = ask_everything((FIRST, day), events).loc["collect_baseline"]
    for site in study().sites:
        (state,) = re.findall(rf'id="site-{site.site_id}"><summary><h3>[^<]*</h3> <span class="tag (\w+)">', page)
        assert (state == "open") == answers.loc[site.site_id, pd.Timestamp(day)], site.site_id
    for row in forecast.sites[forecast.sites["is_open"]].itertuples():
        own = answers.loc[row.site_id]
        assert own[row.opened_on]
        assert row.opened_on == pd.Timestamp(FIRST) or not own[row.opened_on - pd.Timedelta(days=1)]
        assert f"{row.opened_on.day} {row.opened_on:%B %Y}" in page


# Playing it


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    settings = Settings(data_folder=tmp_path_factory.mktemp("story"), _env_file=None)
    yield play(settings, every=21)
    SubprocessASGIServer().stop()  # else it ends after pytest has, and complains that nobody listens any more


def test_rounds_follow_the_story(played: Played) -> None:
    events = played.workspace.read_events()
    completed = events.frame(StudyDayCompleted)
    assert (len(completed), completed["occurred_on"].max()) == (played.n_days, pd.Timestamp(END))
    assert played.workspace.ledger.verify().is_clean
    expected = derive_approvals(study(), ledger(), END)
    found = derive_approvals(study(), events, END)
    assert found["state"].tolist() == expected["state"].tolist()


def test_page_of_the_last_day_is_filled(played: Played) -> None:
    """Each part of the page has what the story put there."""
    page = played.workspace.area.get(APPROVALS_PAGE).decode()
    assert "<h1>Approvals on 29 September 2017</h1>" in page
    for words in ("17 of 17", "SA01", "NSA02", "Luton", "luton-I0001", "What changed since", "The next 90 days"):
        assert words in page
    assert page.count('class="site" id="site-') == 17
    for empty in ("No modification", "No incident", "Nothing ends"):
        assert empty not in page
    assert not re.findall(r'<script|(?:src|href)="(?!#|data:|(?:fieldwork|consent|returns)\.html")', page)


def test_calendar_of_the_last_day(played: Played) -> None:
    calendar = icalendar.Calendar.from_ical(played.workspace.area.get(APPROVALS_CALENDAR))
    titles = [str(entry["SUMMARY"]) for entry in calendar.walk("VEVENT")]
    deadlines = derive_deadlines(study(), played.workspace.read_events(), END, within_days=None)
    assert len(titles) == len(deadlines) > 20


def test_collecting_on_through_the_lapse_is_an_incident(played: Played) -> None:
    incidents = derive_incidents(study(), played.workspace.read_events(), END)
    assert set(incidents["site_id"]) == {"luton"}
    assert set(incidents["category"]) == {"collected_while_not_open"}
    days = incidents["occurred_on"]
    assert days.between(pd.Timestamp(2017, 9, 1), pd.Timestamp(2017, 9, 14)).all()


def test_what_was_thought_on_a_day_has_one_answer(played: Played) -> None:
    """What did we think on 1 March the opening of Luton would be? The record of the day is what the ledger, as it was
    known then, gives again; later steps change what is expected later, and not that."""
    workspace = played.workspace
    events = workspace.read_events()
    told = events.frame(ForecastRecorded)
    luton = told[told["site_id"] == "luton"].set_index("occurred_on")
    day = luton.index[luton.index <= pd.Timestamp(2017, 3, 1)].max()
    known = events.select(known_at=find_day_bounds(day.date())[1])
    again = forecast_openings(study(), known, day.date(), luton.loc[day, "activity"])
    row = again.sites.set_index("site_id").loc["luton"]
    assert (row["median_on"], row["p80_on"]) == (luton.loc[day, "median_on"], luton.loc[day, "p80_on"])
    history = derive_forecast_history(events)
    moved = history.loc[history["site_id"] == "luton", "median_on"]
    assert moved.nunique() > 3
    assert history.loc[(history["site_id"] == "luton") & ~history["is_open"], "opened_on"].notna().all()


def test_version_in_force_at_a_site_on_a_day(played: Played) -> None:
    versions = derive_document_versions(study(), played.workspace.read_events(), END)
    luton = [find_document_version(versions, "consent_form", "luton", day) for day in (date(2017, 1, 26), END)]
    assert luton == ["", "1.1"]
    # A trust of Somerset objected to the modification: there the first version stays.
    assert find_document_version(versions, "consent_form", "somerset", END) == "1.0"


def test_position_of_an_earlier_day_is_what_it_was(played: Played) -> None:
    """Asked afterwards, with what was known by then, a day looks as it did."""
    day = date(2017, 3, 28)
    known = played.workspace.read_events().select(known_at=find_day_bounds(day)[1])
    following = follow_approvals(played.workspace, day, known)
    assert following is not None
    assert following.position.count("open") == 0
    assert following.forecast.sites["median_on"].notna().all()


# The terminal and the run's page


@pytest.fixture
def type_in(played: Played, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """`summative approvals` as a person types it about the played study; the words of the answer."""
    monkeypatch.setenv("SUMMATIVE_DATA_FOLDER", str(played.workspace.settings.data_folder))
    monkeypatch.setattr("desk.approval_views.out", Console(width=240, highlight=False))
    read_settings.cache_clear()

    def run(command: str, *words: str) -> str:
        result = CliRunner().invoke(approvals_app, [command, NAME, *words])
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    yield run
    read_settings.cache_clear()


def test_terminal_says_what_the_page_says(played: Played, type_in: Callable[..., str]) -> None:
    said = type_in("show", "--as-of", "2017-09-05")
    assert "│ Luton │ suspended since 2017-09-01 │ 1 │" in said
    following = follow_approvals(played.workspace, date(2017, 9, 5))
    assert following is not None
    assert said.count("│ open since") == following.position.count("open")
    luton = type_in("show", "--as-of", "2017-09-05", "--site", "luton")
    assert "Research governance approval of the council │ Luton Borough Council │ expired │ ours │ 2017-09-01" in luton
    assert "linking records: suspended since 2017-09-01" in luton


def test_terminal_tells_the_forecast_of_a_day_and_what_came_of_it(type_in: Callable[..., str]) -> None:
    said = type_in("forecasts", "--site", "luton", "--on", "2017-03-01")
    assert said.count("│ luton │") == 1
    assert "│ 2017-06-21 │" in said  # the day on which it opened
    known, now = type_in("show", "--known", "2017-03-01"), type_in("show", "--as-of", "2017-03-01")
    assert "2017-03-01. State for" in known
    assert known != now  # steps that were recorded later than they happened


def test_terminal_lists_deadlines_and_chasers(type_in: Callable[..., str]) -> None:
    said = type_in("deadlines", "--as-of", "2017-09-29", "--days", "90")
    assert "2017-11-30" in said  # the impact assessment ends
    told = type_in("chasers", "--as-of", "2017-05-30")
    assert "approving office" in told
    assert "due on 2017-05-30" in told


def test_runs_page_counts_what_the_position_counts(played: Played) -> None:
    following = follow_approvals(played.workspace, date(2017, 9, 5))
    assert following is not None
    text = describe_position(following.study, following.position, "out/ipc")
    assert text.count("| suspended |") == following.position.count("suspended") == 1
    assert "17 sites: 16 open, 1 suspended;" in text
    assert "LUT-P" not in text


def test_playing_again_changes_nothing(played: Played, tmp_path: Path) -> None:
    head = played.workspace.ledger.head()
    again = play(played.workspace.settings, every=21)
    assert (again.n_resumed, again.workspace.ledger.head()) == (played.n_days, head)
    assert again.workspace.name == NAME
    with pytest.raises(ReplayRefused, match="lies outside the story"):
        play(Settings(data_folder=tmp_path, _env_file=None), until=date(2018, 1, 1))
