"""What the commands share: days, and the today of a rehearsal."""

from collections.abc import Iterator
from contextlib import nullcontext
from datetime import date
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from desk.command_line import app
from desk.options import find_day, find_past_day, open_study, parse_day
from study.calendar import london_day
from study.events import CallLogged, ChasingPaused, StudyDayCompleted
from tasks.settings import read_settings
from tasks.workspace import Workspace, create_workspace, open_workspace, read_clock

LAST = date(2017, 11, 7)


@pytest.fixture
def rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A rehearsal of two study days, the later one entered last."""
    monkeypatch.setenv("SUMMATIVE_DATA_FOLDER", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    read_settings.cache_clear()
    workspace = create_workspace("ipc", settings=read_settings(), name="ipc.rehearsal")
    for day in (date(2017, 10, 31), LAST):
        workspace.ledger.append([StudyDayCompleted(occurred_on=day, requested_by="rehearsal")])
    yield workspace
    workspace.ledger.close()
    read_settings.cache_clear()


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, words)
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize("text", ["2013-01-31", "31/01/2013", "31.1.2013", "31 Jan 2013"])
def test_a_day_is_written_as_in_a_workbook(text: str) -> None:
    assert parse_day(text) == date(2013, 1, 31)


@pytest.mark.parametrize("text", ["01/31/2013", "2013-02-30", "31/1/13", "soon"])
def test_what_is_no_day_or_could_be_another_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_day(text)


def test_time_stands_still_in_a_rehearsal_and_goes_on_in_a_study(rehearsal: Workspace) -> None:
    opened = open_study(rehearsal.name)
    with opened.ledger:
        assert (find_day(opened), opened.is_of_the_world) == (LAST, False)
        assert find_day(opened, "1/10/2017") == date(2017, 10, 1)
        assert find_past_day(opened, "2017-11-07") == LAST
        with pytest.raises(typer.BadParameter, match="in the future"):
            find_past_day(opened, "2017-11-08")
        opened.ledger.append([StudyDayCompleted(occurred_on=date(2017, 11, 14), requested_by="rehearsal")])
        assert opened.ledger.verify().is_clean
    live = open_study("ipc")
    with live.ledger:
        assert (find_day(live), live.is_of_the_world) == (london_day(read_clock()), True)


def test_a_call_and_a_pause_are_entered_on_the_last_day_of_a_rehearsal(rehearsal: Workspace) -> None:
    promise = ("chasing", "call", rehearsal.name, "luton", "return", "promised", "--promised", "10/11/2017")
    code, said = run(*promise, "--by", "Anna Price")
    assert (code, "What was promised rests until 10 November 2017." in said) == (0, True)
    assert run("chasing", "pause", rehearsal.name, "staff_ill", "--by", "Anna Price")[0] == 0
    events = rehearsal.read_events()
    for kind in (CallLogged, ChasingPaused):
        assert events.frame(kind)["occurred_on"].dt.date.tolist() == [LAST]


@pytest.mark.parametrize(
    "words",
    [
        ("chasing", "send"),
        ("messages", "send"),
        ("round",),
        ("waves", "release", "--send", "--expect", "0"),
        ("waves", "pack", "--site", "luton", "--blank", "--send"),
    ],
)
def test_nothing_is_sent_from_a_rehearsal(rehearsal: Workspace, words: tuple[str, ...]) -> None:
    head = rehearsal.ledger.head()
    code, said = run(*words, rehearsal.name, "--by", "Anna Price")
    assert code == 2
    assert "ipc.rehearsal is a rehearsal or a replay, and its last day was 2017-11-07." in said
    assert rehearsal.ledger.head() == head


def test_a_rehearsal_receives_into_itself_on_its_last_day(
    rehearsal: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def note(study: str, as_of: date | None, **_: object) -> list[object]:
        asked.append((open_workspace(study).name, as_of))
        return []

    monkeypatch.setattr("desk.command_line.use_prefect", nullcontext)
    monkeypatch.setattr("flows.returns.receive_returns_now", note)
    assert run("receive", rehearsal.name, "--by", "Anna Price", "--sites", "luton")[0] == 0
    assert asked == [("ipc.rehearsal", LAST)]
