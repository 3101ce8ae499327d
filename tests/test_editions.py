"""External editions and committee reports: what stands in them, what does not, and the letters that are opened."""

from __future__ import annotations

import io
import json
import logging
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from typer.testing import CliRunner

import desk.release_commands
import tasks.editions
from study.datasets import ReleaseFault
from study.disclosure import SECONDARY, Protected
from study.events import ArmsUnmasked
from study.masking import UNMASKING_REASONS
from tasks.editions import PAGE, open_letters, publish_committee_report, publish_external
from tasks.releases import freeze_release
from tasks.workspace import Workspace
from tests.releases import BY, MMSE, enrol, fill_study, move_clock, open_study, send

FIRST, SECOND = date(2013, 3, 4), date(2013, 6, 3)
ARM_WORDS = ("placebo", "high_dose", "low_dose", "high dose", "low dose")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A study of sixty-three people, frozen on two days and blinded on the second; the key seals the letters."""
    workspace = open_study(tmp_path_factory.mktemp("study"))
    key = SecretStr(Fernet.generate_key().decode())
    workspace.settings = workspace.settings.model_copy(update={"quarantine_key": key})
    fill_study(workspace)
    arms = ("placebo", "high_dose", "low_dose")
    for number in range(40):
        who = f"01-7{1 + number % 3:02d}-{2001 + number}"
        enrol(workspace, who, arms[number % 3], left="adverse_event" if number % 7 == 0 else "")
        if number % 4:
            send(workspace, who, "screening", date(2012, 8, 1), MMSE, number=10 + number)
    freeze_release(workspace, FIRST, BY)
    move_clock(workspace, SECOND)
    for number in range(40, 60):
        enrol(workspace, f"01-7{1 + number % 3:02d}-{2001 + number}", arms[number % 3], on=date(2013, 5, 1))
    freeze_release(workspace, SECOND, BY)
    freeze_release(workspace, SECOND, BY, is_blinded=True)
    return workspace


def read(workspace: Workspace, name: str, file: str = PAGE) -> str:
    return workspace.area.get(f"editions/{name}/{file}").decode()


def list_all(workspace: Workspace, prefix: str) -> list[str]:
    return sorted(stored.key.removeprefix(f"{prefix}/") for stored in workspace.area.list(f"{prefix}/"))


# External editions --------------------------------------------------------------------------------------------------


def test_two_external_editions_one_after_the_other(workspace: Workspace) -> None:
    before = list_all(workspace, "releases")
    first = publish_external(workspace, FIRST.isoformat())
    second = publish_external(workspace)
    assert (first.name, first.answer, first.protected_against) == ("2013-03-04-external", "added", ())
    assert (second.name, second.protected_against) == ("2013-06-03-external", (first.name,))
    assert 0 < second.n_hidden < second.n_counts
    assert list_all(workspace, "releases") == before
    assert list_all(workspace, f"editions/{second.name}") == sorted(
        ["flow.csv", "manifest.json", "reasons.csv", "report.html", "returns.csv"]
    )
    manifest = json.loads(read(workspace, second.name, "manifest.json"))
    assert manifest["source"]["release"] == SECOND.isoformat()
    assert manifest["rule"]["threshold"] == 10
    assert manifest["protected_against"][0]["edition"] == first.name
    assert set(manifest["files"]) == {"flow.csv", "reasons.csv", "report.html", "returns.csv"}
    assert publish_external(workspace, FIRST.isoformat()).answer == "same"
    again = publish_external(workspace)
    assert (again.answer, again.n_hidden, again.protected_against) == ("same", second.n_hidden, (first.name,))


def test_an_edition_shows_no_small_and_no_exact_number(workspace: Workspace) -> None:
    edition = publish_external(workspace)
    tables = {
        name: pd.read_csv(io.StringIO(read(workspace, edition.name, f"{name}.csv")))
        for name in ("flow", "returns", "reasons")
    }
    numbers: dict[str, list[str]] = {"flow": ["n"], "reasons": ["n"]}
    numbers["returns"] = ["expected", "returned", "awaited", "missing"]
    for name, columns in numbers.items():
        shown = tables[name][columns].stack().dropna()
        assert (shown % 5 == 0).all(), name
        assert not shown.between(1, 9).any(), name
    assert "n_sites" not in tables["flow"]
    hidden = tables["returns"][["expected", "returned"]].isna().any(axis=1)
    assert tables["returns"].loc[hidden, "returned_pct"].isna().all()
    people = tables["flow"].set_index(["box", "group"])["n"]
    assert people["entered", "all"] in (60, 65)
    record = pd.read_csv(io.BytesIO(workspace.area.get(f"disclosure/{edition.name}.counts.csv")), keep_default_na=False)
    is_shown = record["hidden"] == ""
    assert is_shown.sum() == edition.n_counts - edition.n_hidden
    page = read(workspace, edition.name)
    assert f"{edition.n_hidden:,} of {edition.n_counts:,} numbers are not shown" in page
    assert "01-701" not in page
    assert "small counts are not suppressed" not in page


def test_what_cannot_be_an_external_edition(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ReleaseFault, match="is a blinded edition"):
        publish_external(workspace, "2013-06-03-blinded")
    with pytest.raises(ReleaseFault, match='There is no release "2001-01-01"'):
        publish_external(workspace, "2001-01-01")
    name = publish_external(workspace).name
    records = f"disclosure/{name}.counts.csv"
    kept = workspace.area.get(records)
    workspace.area.delete(records)
    with pytest.raises(ReleaseFault, match="no further edition can be protected beside"):
        publish_external(workspace)
    workspace.area.put(records, kept)
    usual: Any = tasks.editions.Rule
    monkeypatch.setattr(tasks.editions, "Rule", lambda threshold, base: usual(20, base))
    with pytest.raises(ReleaseFault, match="is out already, made by other rules"):
        publish_external(workspace)


def test_an_edition_that_leaks_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate before publishing does not trust what decides on hiding."""
    workspace = open_study(tmp_path)
    move_clock(workspace, date(2012, 9, 3))
    for number in range(33):
        enrol(
            workspace,
            f"01-701-{2001 + number}",
            "placebo" if number < 20 else "high_dose" if number < 30 else "low_dose",
        )
    freeze_release(workspace, date(2012, 9, 3), BY)
    protect = tasks.editions.protect_counts

    def forget(*given: Any) -> Protected:
        protected = protect(*given)
        hidden = protected.cells["hidden"]
        return Protected(protected.cells.assign(hidden=hidden.mask(hidden == SECONDARY, "")), protected.lines)

    monkeypatch.setattr(tasks.editions, "protect_counts", forget)
    with pytest.raises(ReleaseFault, match="hidden counts could be told more closely than 10"):
        publish_external(workspace)
    assert list_all(workspace, "editions") == []
    monkeypatch.setattr(tasks.editions, "protect_counts", protect)
    assert publish_external(workspace).answer == "added"


def test_an_empty_study_has_an_external_edition(tmp_path: Path) -> None:
    workspace = open_study(tmp_path)
    freeze_release(workspace, date(2012, 7, 1), BY)
    edition = publish_external(workspace)
    assert edition.n_hidden == 0
    returns = pd.read_csv(io.StringIO(read(workspace, edition.name, "returns.csv")))
    assert (returns["expected"] == 0).all()
    assert returns["returned_pct"].isna().all()


# Committee reports --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", ["2013-06-03", "2013-06-03-blinded"])
def test_the_open_report_names_no_arm(workspace: Workspace, release: str) -> None:
    report = publish_committee_report(workspace, release, "open")
    assert report.name == f"{release}-committee-open"
    for file in list_all(workspace, f"editions/{report.name}"):
        content = read(workspace, report.name, file).casefold()
        assert not any(word in content for word in ARM_WORDS), file
        assert not any(f"arm {letter}" in content for letter in "abc"), file
    page = read(workspace, report.name)
    for heading in ("Recruitment", "Retention", "Quality of the data"):
        assert f">{heading}<" in page
    assert '<th scope="row">2012-08</th><td class="n">43</td>' in page
    assert "Confidential" not in page
    assert publish_committee_report(workspace, release, "open").answer == "same"


def test_the_closed_report_has_letters_alone_and_says_whom_it_is_for(workspace: Workspace) -> None:
    blinded = publish_committee_report(workspace, "2013-06-03-blinded", "closed")
    plain = publish_committee_report(workspace, "2013-06-03", "closed")
    assert plain.matched_by == blinded.matched_by == ("2013-03-04", "2013-06-03")
    warning = "Made from a release that has the arms."
    assert (warning in read(workspace, plain.name), warning in read(workspace, blinded.name)) == (True, False)
    for report in (blinded, plain):
        for file in list_all(workspace, f"editions/{report.name}"):
            assert not any(word in read(workspace, report.name, file).casefold() for word in ARM_WORDS), file
        page = read(workspace, report.name)
        assert "Confidential: for members of the monitoring committee only." in page
        assert all(f"Arm {letter}" in page for letter in "ABC")
        assert "Site 70" not in page  # where a site has one arm, it would tell the letter
    pages = [read(workspace, report.name).replace(report.name[:18], "") for report in (blinded, plain)]
    numbers = [
        page[page.index('id="flow"') :].replace("2013-06-03-blinded", "").replace("2013-06-03", "") for page in pages
    ]
    assert numbers[0] == numbers[1]
    assert json.loads(read(workspace, blinded.name, "manifest.json"))["letters"] == ["A", "B", "C"]


def test_letters_are_opened_for_a_role_and_that_is_recorded(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        letters = open_letters(
            workspace, "2013-06-03-blinded", reason="safety", role="unblinded_statistician", requested_by=BY
        )
        open_letters(workspace, "2013-06-03-blinded", reason="analysis_done", role="statistician", requested_by=BY)
    assert set(letters) == {"A", "B", "C"}
    assert set(letters.values()) == {"Placebo", "Xanomeline High Dose", "Xanomeline Low Dose"}
    assert list(letters) == ["A", "B", "C"]
    arms = {"Placebo": "placebo", "Xanomeline High Dose": "high_dose", "Xanomeline Low Dose": "low_dose"}
    plain, masked = (
        pd.read_parquet(io.BytesIO(workspace.area.get(f"releases/{release}/data/participants.parquet")))["arm"]
        for release in ("2013-06-03", "2013-06-03-blinded")
    )
    pairs = set(zip(masked.dropna(), plain.dropna(), strict=True))
    assert {(letter, arms[label]) for letter, label in letters.items()} == pairs
    assert not any(label in caplog.text for label in letters.values())
    told = workspace.read_events().frame(ArmsUnmasked)
    assert told["number"].tolist() == [1, 2]
    assert told["role"].tolist() == ["unblinded_statistician", "statistician"]
    assert set(told["release"]) == {"2013-06-03-blinded"}
    assert not any("dose" in str(value) for value in told.iloc[0])
    with pytest.raises(ReleaseFault, match="is not blinded"):
        open_letters(workspace, "2013-06-03", reason="safety", role="statistician", requested_by=BY)


def test_nothing_is_recorded_where_nothing_can_be_opened(workspace: Workspace) -> None:
    n_before = len(workspace.read_events().frame(ArmsUnmasked))
    own, other = workspace.settings, SecretStr(Fernet.generate_key().decode())
    for key, words in ((other, "no key of the settings opens"), (SecretStr(""), "SUMMATIVE_QUARANTINE_KEY")):
        workspace.settings = own.model_copy(update={"quarantine_key": key})
        with pytest.raises(ReleaseFault, match=words):
            open_letters(workspace, "2013-06-03-blinded", reason="safety", role="statistician", requested_by=BY)
    workspace.settings = own
    assert len(workspace.read_events().frame(ArmsUnmasked)) == n_before


def test_the_reasons_of_the_command_are_those_of_the_event() -> None:
    assert set(ArmsUnmasked.model_fields["reason"].annotation.__args__) == set(UNMASKING_REASONS)  # type: ignore[union-attr]  # a Literal


def test_the_commands(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk.release_commands, "open_study", lambda _: workspace)

    def run(*words: str) -> tuple[int, str]:
        answer = CliRunner().invoke(desk.release_commands.release_app, list(words))
        return answer.exit_code, answer.output

    status, said = run("external", "cdisc_pilot", "2013-06-03")
    assert status == 0
    assert "numbers are hidden" in " ".join(said.split())
    status, said = run("committee", "cdisc_pilot", "2013-06-03-blinded", "--part", "closed")
    assert (status, "Confidential" in said, "Warning" in said) == (0, True, False)
    assert "Releases with the arms are there as well: 2013-03-04, 2013-06-03." in " ".join(said.split())
    status, said = run("committee", "cdisc_pilot", "2013-06-03", "--part", "closed")
    assert (status, "Warning: made from 2013-06-03, which has the arms." in " ".join(said.split())) == (0, True)
    assert "Warning" not in run("committee", "cdisc_pilot", "2013-06-03", "--part", "open")[1]
    assert run("committee", "cdisc_pilot", "2013-06-03", "--part", "both")[0] == 2
    letters = ["unmask", "cdisc_pilot", "2013-06-03-blinded", "--role", "statistician", "--by", BY]
    assert run(*letters, "--reason", "curiosity")[0] == 2
    status, said = run(*letters, "--reason", "safety")
    assert (status, "Placebo" in said) == (0, True)
    target = tmp_path / "letters.csv"
    status, said = run(*letters, "--reason", "safety", "--to", str(target))
    assert (status, "Placebo" in said) == (0, False)
    assert "Placebo" in target.read_text()
    n_before = len(workspace.read_events().frame(ArmsUnmasked))
    assert run(*letters, "--reason", "safety", "--to", str(target))[0] == 2
    assert len(workspace.read_events().frame(ArmsUnmasked)) == n_before
