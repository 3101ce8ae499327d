"""`summative consent` as a person types it, and what the daily round does about consent."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from desk import consent_commands
from desk.consent_commands import consent_app
from study.events import ConsentCopyChecked, Event, IncidentOpened
from tasks.consent import ConsentRefused, record_copy_check, watch_consent
from tasks.erasure import ErasureRefused
from tasks.workspace import Workspace
from tests.approval_workspaces import open_trial
from tests.consent_histories import collected, left, looked, make_study, signed

NEW_YEAR = date(2018, 1, 1)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    with open_trial(make_study(), tmp_path) as workspace:
        monkeypatch.setattr(consent_commands, "open_study", lambda _: workspace)
        yield workspace


def tell(workspace: Workspace, *told: Event) -> None:
    workspace.ledger.append(told)


def run(command: str, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(consent_app, [command, "trial", *words], env={"COLUMNS": "240"})
    if isinstance(result.exception, (ConsentRefused, ErasureRefused)):
        return 1, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


def look(workspace: Workspace, *words: str, person: str = "LUT-001") -> tuple[int, str]:
    return run("copy", "--participant", person, "--role", "coordinator", "--by", "Anna Price", *words)


def read_checks(workspace: Workspace) -> list[tuple[int, str, str, str]]:
    found = workspace.read_events().frame(ConsentCopyChecked)
    days = found["occurred_on"].dt.strftime("%Y-%m-%d")
    return list(zip(found["check"], found["form_version"], found["finding"], days, strict=True))


# Forms -------------------------------------------------------------------------------------------------------------


def test_what_was_found_of_a_form_is_recorded_once_and_counted_up(workspace: Workspace) -> None:
    tell(workspace, signed("2017-09-01"))
    assert look(workspace, "--missing", "--on", "2017-10-02") == (
        0,
        "Recorded: the form of LUT-001 was looked for and not found.",
    )
    assert look(workspace, "--missing", "--on", "2017-10-02")[1] == "This was recorded before; nothing was changed."
    assert look(workspace, "--seen", "--version", "1.0")[1] == "Recorded: the form of LUT-001 was seen."
    assert read_checks(workspace) == [(1, "1.0", "missing", "2017-10-02"), (2, "1.0", "seen", "2018-01-01")]
    assert workspace.read_events().frame(ConsentCopyChecked)["site_id"].to_list() == ["luton", "luton"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--seen", "--version", "2.0"), "LUT-001 has signed no form of version 2.0. Signed: 1.0."),
        (("--seen", "--on", "2017-08-31"), "the date 2017-08-31 is before the form was signed (2017-09-01)"),
        (("--seen", "--on", "2018-01-02"), "the date 2018-01-02 is in the future (today is 2018-01-01)"),
        (("--seen", "--faulty"), "one of --seen, --missing and --faulty"),
        ((), "one of --seen, --missing and --faulty"),
        (("--seen", "--on", "May"), '"May" is not a date'),
    ],
)
def test_what_cannot_be_recorded_of_a_form(workspace: Workspace, words: tuple[str, ...], text: str) -> None:
    tell(workspace, signed("2017-09-01"))
    code, said = look(workspace, *words)
    assert code != 0
    assert text in said
    assert read_checks(workspace) == []


def test_the_form_signed_last_is_meant_unless_a_day_is_given(workspace: Workspace) -> None:
    tell(workspace, signed("2017-09-01"), signed("2017-12-01", renewal="2017-12-01"))
    assert look(workspace, "--seen", "--on", "2017-11-30")[1] == (
        "the date 2017-11-30 is before the form was signed (2017-12-01). Correct the date."
    )
    look(workspace, "--seen")
    look(workspace, "--seen", "--version", "1.0", "--signed", "2017-09-01")
    look(workspace, "--missing", "--signed", "2017-09-01")
    found = workspace.read_events().frame(ConsentCopyChecked)
    assert list(zip(found["renewal"], found["finding"], found["check"], strict=True)) == [
        ("2017-12-01", "seen", 1), ("", "seen", 1), ("", "missing", 2),
    ]  # fmt: skip
    assert look(workspace, "--seen", "--signed", "2017-10-01")[1] == (
        "LUT-001 has signed no such form on 2017-10-01. Signed: 2017-09-01, 2017-12-01. Correct the day."
    )


def test_a_form_of_nobody_is_not_looked_for(workspace: Workspace) -> None:
    code, said = look(workspace, "--seen")
    assert code == 1
    assert said == "no consent of LUT-001 is on record, so there is no form to look for. Correct the identifier."
    assert look(workspace, "--seen", person="¿")[0] == 2


def test_two_who_look_at_once_leave_two_numbers(workspace: Workspace) -> None:
    tell(workspace, signed("2017-09-01"))

    def one(day: int) -> str:
        return record_copy_check(workspace, looked(f"2017-10-{day:02d}", "seen", version="latest"))

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(one, [2, 3])) == ["added", "added"]
    assert sorted(number for number, *_ in read_checks(workspace)) == [1, 2]


# Showing -----------------------------------------------------------------------------------------------------------


def test_show_lists_what_there_is_to_see_to(workspace: Workspace) -> None:
    tell(
        workspace,
        signed("2017-09-01", copy_filed="yes"),
        signed("2017-09-01", "LUT-002", route="consultee"),
        signed("2017-09-01", "DEV-001"),
        left("2017-10-02", "linkage", person="DEV-001"),
    )
    code, said = run("show")
    assert code == 0
    assert "LUT-001" not in said
    assert "A consultee advised, and no assessment of capacity is recorded" in said
    assert "not told, overdue since 2017-09-15" in said
    assert "2 of 3 consents." in said
    assert "3 of 3 consents." in run("show", "--all")[1]
    said = run("show", "--site", "Devon")[1]
    assert "1 of 1 consent." in said
    assert "linkage" in said
    assert run("show", "--site", "Derby")[0] == 2


def test_reconcile_lists_records_without_consent_and_what_to_do(workspace: Workspace) -> None:
    tell(workspace, collected("2017-09-04"), signed("2017-09-04", "DEV-001"))
    said = run("reconcile")[1]
    assert "Collected, and no consent is on record: Ask the site for the entry of its consent log." in said
    assert "1 person consented and sent nothing yet." in said
    said = run("reconcile", "--site", "devon")[1]
    assert "Every record that came in is covered by a consent that was in force on its day." in said


# Erasing -----------------------------------------------------------------------------------------------------------


def erase(*words: str, person: str = "LUT-001") -> tuple[int, str]:
    decided = ("--role", "investigator", "--reference", "DPO-17", "--by", "Anna Price")
    return run("erase", "--participant", person, *decided, *words)


def test_erasing_is_shown_first_and_done_only_when_told(workspace: Workspace) -> None:
    tell(workspace, signed("2017-09-01"))
    head = workspace.ledger.head()
    code, said = erase()
    assert code == 0
    assert "LUT-001 has not left the study: is it the right one?" in said
    assert "LUT-001 (luton): what was given from 1 July 2017 on, 0 records." in said
    assert "Nothing was changed. To do it: the same with --yes" in said
    assert workspace.ledger.head() == head
    said = erase("--yes")[1]
    assert "No file held anything of it, so nothing was deleted. The decision is on record." in said
    assert workspace.ledger.head().seq == head.seq + 1
    assert "everything" in erase("--beyond-limit")[1]


def test_nobody_unknown_is_erased(workspace: Workspace) -> None:
    assert erase("--yes", person="LUT-009") == (
        1,
        "LUT-009 is no participant of trial that the ledger knows. Correct the identifier.",
    )


# The daily round ---------------------------------------------------------------------------------------------------


def test_incidents_are_opened_once_and_numbered_at_their_site(workspace: Workspace) -> None:
    tell(
        workspace,
        *(signed("2017-09-05"), collected("2017-09-04")),
        *(signed("2017-09-05", "LUT-002"), left("2017-09-10", "study", person="LUT-002")),
        collected("2017-09-11", person="LUT-002"),
        *(signed("2017-09-05", "DEV-001"), collected("2017-09-04", person="DEV-001")),
    )
    assert watch_consent(workspace, NEW_YEAR, "study_day") == {"incidents opened": 3}
    assert watch_consent(workspace, NEW_YEAR, "study_day") == {}
    opened = workspace.read_events().frame(IncidentOpened)
    assert dict(zip(opened["subject"], opened["incident_id"], strict=True)) == {
        "DEV-001:before_consent": "devon-I0001",
        "LUT-001:before_consent": "luton-I0001",
        "LUT-002:after_withdrawal": "luton-I0002",
    }
    assert opened["assess_by"].dt.strftime("%Y-%m-%d").unique().tolist() == ["2018-01-08"]


def test_two_rounds_at_once_open_an_incident_once(tmp_path: Path) -> None:
    study = make_study()
    with open_trial(study, tmp_path) as one, open_trial(study, tmp_path) as other:
        tell(one, signed("2017-09-05"), collected("2017-09-04"))
        with ThreadPoolExecutor(2) as threads:
            counts = list(threads.map(lambda each: watch_consent(each, NEW_YEAR, "study_day"), [one, other]))
        assert sum(count["incidents opened"] for count in counts) == 1
        assert len(one.read_events().frame(IncidentOpened)) == 1
