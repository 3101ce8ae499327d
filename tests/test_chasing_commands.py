"""`summative chasing`: what people see and enter, in a study of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from desk import chasing_commands
from desk.chasing_commands import chasing_app
from study.chasing import derive_chasers
from study.events import CallLogged, ChasingPaused, ChasingResumed, ObligationChased
from tasks.chasing import ChasingRefused, log_call, pause_chasing, resume_chasing
from tasks.workspace import Workspace
from tests.chasing_studies import CONTACTS, joined, list_mail, open_chasing, released, set_day
from tests.release_studies import BY, grant, identify

ONE = identify(1)
KEY = f"chase:return:{ONE}:self:baseline"
LATE, CALL = date(2017, 8, 18), date(2017, 8, 30)

Command = Callable[..., str]


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Workspace]:
    workspace = open_chasing(tmp_path, LATE)
    workspace.ledger.append([*grant("luton", "devon"), *joined(1), *released(1)])
    yield workspace
    workspace.ledger.close()


@pytest.fixture
def summative(study: Workspace, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command; what it says. With `fails`, what it says when it refuses."""
    monkeypatch.setattr(chasing_commands, "open_study", lambda name: study)

    def run(*arguments: str, fails: bool = False) -> str:
        result = CliRunner().invoke(chasing_app, list(arguments), catch_exceptions=False, env={"COLUMNS": "300"})
        assert (result.exit_code != 0) == fails, result.output
        return " ".join(result.output.replace("│", " ").split())

    return run


def test_the_list_says_what_is_due_comes_and_rests_and_why(study: Workspace, summative: Command) -> None:
    told = summative("list", "trial")
    assert "due 2017-08-18 Luton" in told
    assert f"{ONE}, Baseline, self 3 days site researcher, email is due by 2017-08-15 (" in told
    assert "coming 2017-08-30 Luton" in told
    assert told.endswith("1 due, 0 resting, 1 coming.")
    assert "0 due, 0 resting, 0 coming." in summative("list", "trial", "--site", "devon")
    assert "coming 2017-08-08" in summative("list", "trial", "--as-of", "2017-08-01")
    assert "has no site" in summative("list", "trial", "--site", "lutn", fails=True)


def test_what_waits_for_another_day_is_listed_as_resting(study: Workspace, summative: Command) -> None:
    assert summative("send", "trial", "--by", BY) == "1 digest, 1 thing owed asked for, 1 sent."
    study.ledger.append([*joined(2), *released(2)])
    told = summative("list", "trial")
    assert "Today's digest has been written already" in told
    assert "0 due, 1 resting, 2 coming." in told
    assert "chased 2017-08-18" in summative("list", "trial", "--all")


def test_a_preview_shows_the_letters_and_records_nothing(study: Workspace, summative: Command, tmp_path: Path) -> None:
    before = study.ledger.head()
    told = summative("preview", "trial")
    assert "Dear Rosa Reed," in told
    assert "Subject: One thing to look at: Luton, 18 August 2017" in told
    assert told.endswith("1 letter would be sent. Nothing was recorded.")
    assert "0 letters would be sent." in summative("preview", "trial", "--site", "devon")
    summative("preview", "trial", "--to-folder", str(tmp_path / "letters"))
    assert sorted(path.name for path in (tmp_path / "letters").iterdir()) == [
        "digest-luton-rosa-2017-08-18.html", "digest-luton-rosa-2017-08-18.txt",
    ]  # fmt: skip
    assert study.ledger.head() == before
    assert list_mail(study) == []


def test_sending_and_sending_again(study: Workspace, summative: Command) -> None:
    assert summative("send", "trial", "--by", BY, "--to-folder") == "1 digest, 1 thing owed asked for, 1 sent."
    assert summative("send", "trial", "--by", BY) == "Nothing was due."
    assert len(list_mail(study)) == 1


def test_a_call_settles_the_step_and_a_promise_lets_it_rest(study: Workspace, summative: Command) -> None:
    set_day(study, CALL)
    assert "telephone" in summative("list", "trial")
    assert "0 steps by telephone are settled" in summative(
        "call", "trial", "Luton", "return", "not_reached", "--by", BY
    )
    told = summative(
        "call", "trial", "Luton", "return", "promised", "--promised", "2017-09-20", "--person", "lena", "--by", BY
    )
    assert told == (
        "Call 2 of that day is logged; 1 step by telephone is settled. What was promised rests until 20 September 2017."
    )
    events = study.read_events()
    chased = events.frame(ObligationChased)
    assert chased[["key", "channel", "message_id"]].values.tolist() == [[f"{KEY}:call", "telephone", ""]]
    assert events.frame(CallLogged)["outcome"].tolist() == ["not_reached", "promised"]
    states = {
        day: derive_chasers(study.study, events, day).query("not is_told")["state"].tolist()
        for day in (date(2017, 9, 13), date(2017, 9, 20), date(2017, 9, 21))
    }
    assert states == {date(2017, 9, 13): ["resting"], date(2017, 9, 20): ["resting"], date(2017, 9, 21): ["due"]}


def test_a_call_about_something_else_settles_nothing(study: Workspace, summative: Command) -> None:
    set_day(study, CALL)
    assert "0 steps" in summative("call", "trial", "luton", "query", "reached", "--by", BY)
    assert "0 steps" in summative("call", "trial", "devon", "return", "reached", "--by", BY)
    assert "1 step " in summative("call", "trial", "luton", "query,return", "left_message", "--by", BY, "--incoming")
    assert "0 steps" in summative("call", "trial", "luton", "return", "reached", "--by", BY)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["return", "promised"], "A promise needs the day"),
        (["return", "reached", "--promised", "2017-09-20"], "A promise needs the day"),
        (["return", "promised", "--promised", "2017-08-01"], "is before the call"),
        (["retrun", "reached"], 'Did you mean "return"?'),
        (["return", "reached", "--person", "ghost"], "no person_id"),
    ],
)
def test_a_call_that_cannot_be(study: Workspace, summative: Command, arguments: list[str], expected: str) -> None:
    told = summative("call", "trial", "luton", *arguments, "--by", BY, fails=True)
    assert expected in told
    assert study.read_events().frame(CallLogged).empty


def test_pausing_and_resuming(study: Workspace, summative: Command) -> None:
    told = summative(
        "pause", "trial", "staff_ill", "--by", BY, "--site", "LUT", "--about", "return", "--until", "2017-09-01"
    )
    assert told == "Paused as luton-2017-08-18-1 until 2017-09-01."
    assert summative("pause", "trial", "staff_ill", "--by", BY) == "Paused as study-2017-08-18-1."
    told = summative("pause", "trial", "bereaved", "--by", BY, "--participant", ONE)
    assert told == f"Paused as {ONE}-2017-08-18-1."
    listed = summative("list", "trial")
    assert "0 due, 1 resting" in listed
    assert "Pause luton-2017-08-18-1: until 1 September 2017 (staff_ill)." in listed
    assert summative("send", "trial", "--by", BY) == "Nothing was due."
    for name in ("luton-2017-08-18-1", "study-2017-08-18-1", f"{ONE}-2017-08-18-1"):
        assert summative("resume", "trial", name, "--by", BY) == f"{name} is over."
    assert "1 due, 0 resting" in summative("list", "trial")
    assert len(study.read_events().frame(ChasingResumed)) == 3
    about = study.read_events().frame(ChasingPaused)[["site_id", "participant_id", "about"]].values.tolist()
    assert about == [["luton", "", "return"], ["", "", ""], ["luton", ONE, ""]]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["pause", "trial", "no: reason", "--by", BY], "the ledger holds no free text"),
        (["pause", "trial", "ill", "--by", BY, "--until", "2017-08-17"], "is before 2017-08-18"),
        (["pause", "trial", "ill", "--by", BY, "--participant", "LUT-P99999"], "knows no such participant"),
        (["pause", "trial", "ill", "--by", BY, "--participant", ONE, "--site", "devon"], "belongs to another site"),
        (["pause", "trial", "ill", "--by", BY, "--about", "parcels"], "Nothing is owed that is called"),
        (["resume", "trial", "luton-2017-08-18-1", "--by", BY], "There is no pause"),
    ],
)
def test_pauses_that_cannot_be(study: Workspace, summative: Command, arguments: list[str], expected: str) -> None:
    assert expected in summative(*arguments, fails=True)
    assert study.read_events().frame(ChasingPaused).empty


def test_who_would_be_written_to_and_what_is_missing(study: Workspace, summative: Command) -> None:
    path = study.folder / "contacts.toml"
    path.write_text(
        CONTACTS.replace("[[2017-09-25, 2017-09-29]]", "[[2017-08-14, 2017-08-25]]").replace(
            'role = "site_lead"', 'role = "site_lead"\nuntil_on = 2017-08-01'
        ),
        encoding="utf-8",
    )
    told = summative("contacts", "trial")
    assert "Luton site researcher dora rosa" in told
    assert "Luton site lead nobody holds this role" in told
    assert "Devon site lead ravi" in told
    assert "6 people in contacts.toml; 1 roles without anybody. lena leaves on 2017-08-01." in told
    assert "Devon" not in summative("contacts", "trial", "--site", "luton").partition("people in")[0]


def test_the_functions_refuse_what_the_commands_do(study: Workspace) -> None:
    with pytest.raises(ChasingRefused):
        log_call(study, "luton", ["return"], "promised", BY, on=LATE)
    with pytest.raises(ChasingRefused):
        pause_chasing(study, BY, "ill", on=LATE, until=date(2017, 8, 17))
    with pytest.raises(ChasingRefused):
        resume_chasing(study, "none", BY, on=LATE)
