"""`summative waves` as a person types it; and the page and the workbook of a plan."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import openpyxl
import pandas as pd
import pytest
from typer.testing import CliRunner

from desk import wave_commands
from desk.wave_commands import waves_app
from study.events import HoldLifted, PackClaimed, ReturnReleased
from study.releasing import plan_release
from tasks.release_plan_page import write_release_plan_page, write_release_plan_workbook
from tasks.workspace import Workspace, adopt_configuration
from tests.approval_histories import tell
from tests.release_studies import BY, Clock, answer, grant, identify, join, leave, make_study, move_clock, open_trial
from tests.test_pages import browser, look_at, read_text

__all__ = ["browser"]
JULY_3, JULY_10 = date(2017, 7, 3), date(2017, 7, 10)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """Luton is open and three people joined there; Devon is not, and two have."""
    monkeypatch.setenv("COLUMNS", "200")
    workspace = open_trial(tmp_path, JULY_10)
    workspace.ledger.append([*grant("luton"), *join(range(1, 4), JULY_3), *join(range(1, 3), JULY_3, "devon")])
    monkeypatch.setattr(wave_commands, "open_study", lambda _: workspace)
    with workspace.ledger:
        yield workspace


def run(command: str, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(waves_app, [command, "trial", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(re.sub(r"[│┃]", " ", result.output).split())


def test_show_counts_by_site_and_wave(workspace: Workspace) -> None:
    code, said = run("show")
    assert code == 0
    assert "Devon Baseline 2 2" in said
    assert "Luton Baseline 3 3" in said
    assert "Why: " in said
    run("release", "--site", "luton", "--send", "--expect", "3", "--by", BY)
    workspace.ledger.append(answer([1], "baseline", date(2017, 7, 6)))
    assert re.search(r"Luton Baseline 3 2 1", run("show", "--site", "LUT")[1])
    move_clock(workspace, date(2017, 7, 20))
    assert re.search(r"Luton Baseline 3 2 2 1", run("show", "--site", "Luton")[1])  # two of them late
    assert "trial has no site" in run("show", "--site", "Lutton")[1]


def test_a_dry_run_is_the_default_and_says_how_to_send(workspace: Workspace) -> None:
    head = workspace.ledger.head()
    code, said = run("release", "--wave", "Baseline", "--site", "luton")
    assert code == 0
    assert "What would be sent on 2017-07-10. Nothing was sent." in said
    assert "Luton Baseline 3" in said
    assert "waves release trial --wave Baseline --site luton --send --expect 3 --by" in said
    assert workspace.ledger.head() == head
    assert b"What would be sent" in workspace.area.get("pages/release_plan.html")


def test_what_was_told_is_sent_and_nothing_else(workspace: Workspace) -> None:
    code, said = run("release", "--send", "--expect", "4", "--by", BY)
    assert code == 1
    assert "The plan was of 4 questionnaires, and now 3 would go" in said
    code, said = run("release", "--send", "--expect", "3", "--by", BY)
    assert code == 0
    assert "Served Luton: 1 packs, 3 questionnaires, 20 new identifiers." in said
    events = workspace.read_events()
    assert len(events.frame(ReturnReleased)) == 3
    assert events.frame(PackClaimed)["requested_by"].tolist() == [BY]
    assert "Nothing is due to go there" in run("release", "--send", "--expect", "0", "--by", BY)[1]
    assert "Nothing would go." in run("release")[1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--send", "--expect", "3"), "--by is missing"),
        (("--send", "--by", BY), "--expect is missing"),
        (("--send", "--expect", "3", "--by", BY, "--as-of", "2017-07-09"), "today is 10 July 2017"),
        (("--wave", "follow_up_9m"), 'trial has no wave "follow_up_9m". Did you mean'),
        (("--site", "leeds"), 'trial has no site "leeds"'),
        (("--as-of", "07/13/2017"), "has no month 13"),
    ],
)
def test_what_is_typed_wrong_is_told_and_nothing_is_sent(
    workspace: Workspace, words: tuple[str, ...], told: str
) -> None:
    head = workspace.ledger.head()
    code, said = run("release", *words)
    assert code in (1, 2)
    assert told in said.replace("╭", "").replace("  ", " ")
    assert workspace.ledger.head() == head


def test_what_is_held_is_listed_and_written(workspace: Workspace, tmp_path: Path) -> None:
    code, said = run("held", "--to", str(tmp_path / "held.xlsx"))
    assert code == 0
    assert "2 questionnaires are held on 2017-07-10" in said
    assert identify(1, "devon") in said
    assert "site_not_open" in said
    rows = list(openpyxl.load_workbook(tmp_path / "held.xlsx")["Held"].values)
    assert rows[0][:3] == ("Site", "Participant", "Wave")
    assert len(rows) == 3
    run("held", "--site", "devon", "--to", str(tmp_path / "held.csv"))
    assert "cannot be written: No such file" in run("held", "--to", str(tmp_path / "no_folder" / "held.csv"))[1]
    assert pd.read_csv(tmp_path / "held.csv")["participant_id"].tolist() == [identify(1, "devon"), identify(2, "devon")]
    assert "Nothing is held" in run("held", "--site", "luton")[1]
    assert "is written as .xlsx or .csv" in run("held", "--to", str(tmp_path / "held.doc"))[1]


def lift(*words: str) -> tuple[int, str]:
    decided = ("--role", "project_manager", "--reason", "wanted_late", "--reference", "Minute 12", "--by", BY)
    return run("lift", *words, *decided)


def test_a_hold_is_lifted_by_a_role_and_never_a_missing_approval(workspace: Workspace) -> None:
    assert identify(1) not in run("moved")[1]
    early = ("--wave", "follow_up_6m", "--hold", "window_not_open")
    workspace.ledger.append(answer([1], "baseline", JULY_3))
    code, said = lift(identify(1), *early)
    assert code == 0, said
    assert f"no longer holds {identify(1)} at follow_up_6m, by decision Minute 12" in said
    lifted = workspace.read_events().frame(HoldLifted)
    assert lifted[["role", "reason", "reference"]].to_numpy().tolist() == [
        ["project_manager", "wanted_late", "Minute 12"]
    ]
    assert "Follow-up" not in run("release", "--site", "devon")[1]
    assert "6-month follow-up 1" in run("release", "--site", "luton", "--wave", "follow_up_6m")[1]
    code, said = lift(identify(1, "devon"), "--wave", "baseline", "--hold", "site_not_open")
    assert code == 1
    assert "can't be lifted" in said
    assert "Nothing is expected of LUT-P09999" in lift("LUT-P09999", *early)[1]
    assert lift(identify(2), "--wave", "baseline", "--hold", "nonsense")[0] == 1
    assert len(workspace.read_events().frame(HoldLifted)) == 1


def test_a_blank_pack_is_shown_and_then_sent(workspace: Workspace) -> None:
    code, said = run("pack", "--site", "luton", "--blank")
    assert code == 0
    assert "would hold 20 new identifiers, 0 open queries. Nothing was sent." in said
    assert workspace.read_events().frame(PackClaimed).empty
    code, said = run("pack", "--site", "luton", "--blank", "--send", "--by", BY)
    assert "Sent luton-2017-07-10-1: 20 new identifiers" in said
    assert "Enough identifiers are unused there" in run("pack", "--site", "luton", "--blank")[1]
    assert "add --blank" in run("pack", "--site", "luton")[1]


def test_what_moved_is_told_from_to_and_why(workspace: Workspace) -> None:
    workspace.ledger.append(answer([1], "baseline", JULY_3))
    move_clock(workspace, date(2017, 7, 12))
    workspace.ledger.append(join([9], date(2017, 7, 11)))
    assert "0 dates moved between 2017-07-11 and 2017-07-12" in run("moved")[1]
    assert isinstance(workspace.clock, Clock)


def test_what_an_amended_protocol_moved_is_told_too(workspace: Workspace) -> None:
    protocol = workspace.settings.sites_config / "trial" / "study.toml"
    adopt_configuration(workspace, JULY_10, BY)
    text = protocol.read_text(encoding="utf-8")
    protocol.write_text(
        text.replace('due = "2 weeks"\ncloses = "4 weeks"', 'due = "3 weeks"\ncloses = "4 weeks"'), "utf-8"
    )
    move_clock(workspace, date(2017, 7, 11))
    adopt_configuration(workspace, date(2017, 7, 11), BY)
    code, said = run("moved", "--site", "luton")
    assert code == 0
    assert f"luton {identify(1)} baseline self due on 2017-07-17 2017-07-24" in said
    assert "0 dates moved" in run("moved", "--since", "2017-07-11")[1]


# The page and the workbook --------------------------------------------------------------------------------------------


def draw_up(*, is_scheduled: bool = False, is_empty: bool = False) -> str:
    told = [] if is_empty else [
        *grant("luton"), *join(range(1, 9), JULY_3), *join([1, 2], JULY_3, "devon"), *leave(8, JULY_10),
    ]  # fmt: skip
    plan = plan_release(make_study(), tell(*told), JULY_10, is_scheduled=is_scheduled)
    return write_release_plan_page(plan, Clock(JULY_10)()).decode()


def test_the_page_says_what_goes_what_needs_a_word_and_what_is_held() -> None:
    text = read_text(draw_up())
    assert "What would be sent on 10 July 2017" in text
    assert "7 questionnaires would go, to 1 site" in text
    assert "7 of those that go need the word that sending gives" in text
    assert "2 are held" in text
    assert "One pack, with 7 questionnaires, 20 new identifiers, 0 open queries." in text
    assert f"{identify(1)} Baseline self standard mood" in text
    assert "The site is not open for this 2 Get the approvals that are missing project manager" in text
    assert identify(8) not in text
    assert "7 wait for a coordinator's word" in read_text(draw_up(is_scheduled=True))
    assert "There is nothing to send to any site." in read_text(draw_up(is_empty=True))


@pytest.mark.parametrize("is_empty", [False, True])
def test_everyone_can_use_the_page_and_it_fits_a_phone(browser: Path, tmp_path: Path, is_empty: bool) -> None:
    page = draw_up(is_empty=is_empty)
    assert not re.search(r"<(script|link|img|iframe)|https?://", page)
    judged = look_at(browser, page, tmp_path)
    for width in ("1280", "375"):
        assert judged[width]["violations"] == []
        assert int(str(judged[width]["width"])) <= int(width)
        assert int(str(judged[width]["passes"])) > 10


def test_the_workbook_has_every_row_once_and_the_same_bytes() -> None:
    told = [*grant("luton"), *join(range(1, 9), JULY_3), *join([1, 2], JULY_3, "devon")]
    plan = plan_release(make_study(), tell(*told), JULY_10)
    data = write_release_plan_workbook(plan)
    assert data == write_release_plan_workbook(plan)
    book = openpyxl.load_workbook(io.BytesIO(data))
    assert book.sheetnames == ["Plan", "Goes", "Waits for a word", "Held"]
    rows = {name: list(book[name].values)[1:] for name in book.sheetnames[1:]}
    assert {name: len(found) for name, found in rows.items()} == {"Goes": 8, "Waits for a word": 0, "Held": 2}
    assert rows["Held"][0][-2:] == ("The site is not open for this", "Get the approvals that are missing")
