"""Commands that need no Prefect, as a person types them."""

from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from desk.command_line import app
from study.events import QueryRaised
from tasks.settings import read_settings
from tasks.workspace import create_workspace


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SUMMATIVE_DATA_FOLDER", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    read_settings.cache_clear()
    yield "ipc"
    read_settings.cache_clear()


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, words)
    return result.exit_code, " ".join(result.output.split())


def ask(study: str) -> None:
    with create_workspace(study, settings=read_settings()).ledger as ledger:
        place = {"subject": "file:0123456789abcdef", "rule": "truncated_workbook", "severity": "hard"}
        event = QueryRaised(
            occurred_on=date(2017, 9, 4), requested_by="round", site_id="luton", query_id="luton-0001", **place
        )
        assert ledger.append([event])[0].answer == "added"


def test_a_query_that_no_return_will_close_is_closed_by_hand_once(study: str) -> None:
    ask(study)
    code, said = run("queries", study, "--site", "luton")
    assert code == 0
    assert "luton-0001" in said
    assert "The end of this file is missing." in said
    code, said = run("close-query", study, "luton-0001", "--by", "Anna Price")
    assert (code, "Missing option '--reason'" in said) == (2, True), "nothing is withdrawn unasked"
    assert "[confirmed|withdrawn]" in run("close-query", "--help")[1].replace("<", "[").replace(">", "]")
    code, said = run("close-query", study, "luton-0001", "--by", "Anna Price", "--reason", "withdrawn")
    assert code == 0
    assert said.startswith("luton-0001 is closed: withdrawn. This value is not asked about again; another one is.")
    assert "It had stopped its file, which stays out of every dataset" in said
    assert run("queries", study)[1].endswith("0 queries.")
    code, said = run("close-query", study, "luton-0001", "--by", "Ben Hall", "--reason", "withdrawn")
    assert (code, said) == (0, "luton-0001 was closed before; nothing was changed.")
    code, said = run("ledger", study, "--by", "Anna Price")
    assert "query closed" in said
    assert said.endswith("1 row.")


@pytest.mark.parametrize("name", ["", "X", " X "])
def test_who_asks_gives_a_name(study: str, name: str) -> None:
    code, said = run("receive", study, "--by", name)
    assert (code, "give your name, of 2 letters or more" in said) == (2, True)


def test_a_query_that_does_not_exist_is_not_closed(study: str) -> None:
    code, said = run("close-query", study, "luton-0009", "--by", "Anna Price", "--reason", "withdrawn")
    assert code == 2
    assert 'has no query "luton-0009"' in said


@pytest.mark.parametrize(
    "words",
    [("queries", "--site", "Lutton"), ("ledger", "--site", "Lutton"), ("receive", "--by", "Me", "--sites", "Lutton")],
)
def test_a_misspelt_site_is_refused_with_the_nearest_name(study: str, words: tuple[str, ...]) -> None:
    code, said = run(words[0], study, *words[1:])
    assert code == 2
    assert 'Did you mean "luton"?' in said


def test_an_empty_ledger_is_not_called_in_order(study: str) -> None:
    code, said = run("verify", study)
    assert code == 1
    assert "Nothing is recorded of ipc yet" in said
    ask(study)
    code, said = run("verify", study)
    assert code == 0
    assert said.startswith("In order: 1 rows.")
