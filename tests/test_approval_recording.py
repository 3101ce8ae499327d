"""Recording under the lock: conflicts, races, voids, letters, whole files, and tables from elsewhere."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from study.approval_entries import Entry, EntryFault, find_item, list_standing
from study.approval_steps import Item
from study.approval_tracker import derive_tracker, format_key
from study.events import ConflictRefused, Voided
from study.state import Events
from tasks import approval_recording
from tasks.approval_recording import (
    MAX_LETTER_BYTES,
    Recorded,
    describe_conflict,
    describe_event,
    find_letter,
    list_letters,
    record_rows,
    record_step,
    require_pdf,
    void_record,
)
from tasks.approval_tracker import SHEET, read_tracker, write_tracker
from tasks.imports import parse_map, propose_map, read_table
from tasks.workspace import Workspace
from tests.approval_histories import make_study
from tests.approval_workspaces import open_trial

TRIAL = make_study()
TODAY = date(2018, 1, 1)
PDF = b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n%%EOF\n"
REC = Item("rec")
COUNCIL = Item("council", "luton", "luton_council")


@pytest.fixture
def trial(ledger_url: str, tmp_path: Path) -> Iterator[Workspace]:
    with open_trial(TRIAL, tmp_path, ledger_url) as workspace:
        yield workspace


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Workspace]:
    with open_trial(TRIAL, tmp_path) as workspace:
        yield workspace


def tell(workspace: Workspace, step: str, on: str, item: Item = REC, by: str = "Anna Price", **more: Any) -> Recorded:
    options = {name: more.pop(name) for name in ("letter", "corrects") if name in more}
    fields = more.pop("fields", {})
    return record_step(workspace, Entry(step, item, date.fromisoformat(on), fields=fields, **more), by, **options)


def list_told(events: Events) -> list[str]:
    return [describe_event(event) for event, _ in list_standing(events)]


# One step -----------------------------------------------------------------------------------------------------------


def test_two_people_and_two_dates(trial: Workspace) -> None:
    assert tell(trial, "submitted", "2017-01-02").answer == "added"
    assert tell(trial, "submitted", "2017-01-02", by="Ben Hall").answer == "same"
    tell(trial, "valid", "2017-01-05")
    # later than "valid", which would be a fault if nothing stood: now it is the second telling that is refused
    told = tell(trial, "submitted", "2017-01-09", by="Ben Hall")
    assert (told.answer, told.seq) == ("conflict", 1)
    said = describe_conflict(trial, told)
    assert "Row 1 of the ledger has: date 2017-01-02, told by Anna Price on 2018-01-01 at 12:00." in said
    assert "You told: date 2017-01-09. Nothing was overwritten" in said
    (refused,) = trial.read_events().frame(ConflictRefused).to_dict("records")
    assert (refused["requested_by"], refused["refused_key"]) == ("Ben Hall", "approval:rec:::::1:submitted")


def test_what_is_left_out_is_filled_in(local: Workspace) -> None:
    events = [
        tell(local, step, on).event
        for step, on in [
            ("submitted", "2017-01-02"), ("requested", "2017-01-05"), ("answered", "2017-01-06"),
            ("requested", "2017-01-07"), ("answered", "2017-01-08"), ("answered", "2017-01-08"),
            ("refused", "2017-02-01"), ("resubmitted", "2017-02-02"), ("resubmitted", "2017-02-02"),
            ("granted", "2017-03-01"), ("renewed", "2017-04-01"), ("renewed", "2017-05-01"),
        ]
    ]  # fmt: skip
    assert [event.key.removeprefix("approval:rec:::::") for event in events] == [
        *("1:submitted", "1:requested:1", "1:answered:1", "1:requested:2", "1:answered:2", "1:answered:2"),
        *("1:decided", "2:submitted", "2:submitted", "2:decided", "2:renewed:1", "2:renewed:2"),
    ]
    assert events[0].route == "form"  # type: ignore[attr-defined]  # it is the submission


@pytest.mark.parametrize(
    ("names", "item"),
    [
        (("rec",), REC),
        (("REC favourable opinion",), REC),
        (("council", "", "Luton Council"), COUNCIL),
        (("council", "LUT"), COUNCIL),
        (("green_light", "luton"), Item("green_light", "luton")),
        (("access", "", "luton_trust", "R01"), Item("access", "luton", "luton_trust", "R01")),
    ],
)
def test_places_go_by_any_of_their_names(names: tuple[str, ...], item: Item) -> None:
    assert find_item(TRIAL, *names) == item


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("reck",), '"reck" is no approval of trial. Correct it. Did you mean "rec"?'),
        (("council", "Lutton"), "is no site of trial"),
        (("council", "luton", "devon_council"), "devon_council is no body at Luton"),
        (("council", "luton", "luton_trust"), 'Luton Trust is a body of kind "nhs_trust"'),
        (("council",), "the approval is one of each body, and no site is named"),
        (("rec", "luton"), "Leave the site out"),
        (("access", "luton"), "no person is named"),
    ],
)
def test_places_that_are_not_there(names: tuple[str, ...], text: str) -> None:
    with pytest.raises(EntryFault) as caught:
        find_item(TRIAL, *names)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("step", "on", "more", "text"),
    [
        ("granted", "2017-01-01", {}, "granted on 2017-01-01, but submitted only on 2017-01-02"),
        ("granted", "2018-01-02", {}, "is in the future (today is 2018-01-01)"),
        ("granted", "2017-02-01", {"fields": {"expires_on": date(2017, 1, 31)}}, "before its first (2017-02-01)"),
        ("granted_with_conditions", "2017-02-01", {}, "name each condition by a short code"),
        ("granted", "2017-02-01", {"fields": {"conditions": ("a",)}}, '"granted" has no conditions'),
        ("withdrawn", "2017-02-01", {}, "say who withdrew it"),
        ("valid", "2017-02-01", {"route": "form"}, "a route belongs to a submission"),
        ("valid", "2017-02-01", {"number": 2}, "only requests, answers and renewals are numbered"),
        ("valid", "2017-02-01", {"letter": b"no"}, "The file is not a PDF"),
        ("refused", "2017-02-01", {"corrects": "wrong_date"}, "nothing is on record to correct"),
    ],
)
def test_what_is_refused_leaves_nothing(local: Workspace, step: str, on: str, more: dict[str, Any], text: str) -> None:
    tell(local, "submitted", "2017-01-02")
    with pytest.raises(EntryFault) as caught:
        tell(local, step, on, **more)
    assert text in str(caught.value)
    assert local.ledger.head().seq == 1
    assert not (local.folder / "files").exists()


def test_what_was_recorded_meanwhile_is_decided_on_again(trial: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the reading and the lock somebody withdraws: a decision of the next day can't stand any more."""
    tell(trial, "submitted", "2017-01-02")
    read, n_read = trial.ledger.read_events, 0

    def read_and_be_overtaken(*arguments: Any) -> Events:
        nonlocal n_read
        events = read(*arguments)
        n_read += 1
        if n_read == 1:
            tell(trial, "withdrawn", "2017-01-03", by="Ben Hall", fields={"withdrawn_by": "applicant"})
        return events

    monkeypatch.setattr(trial.ledger, "read_events", read_and_be_overtaken)
    with pytest.raises(EntryFault, match="after it was withdrawn on 2017-01-03"):
        tell(trial, "granted", "2017-01-04")
    assert n_read == 3
    assert list_told(read()) == ["rec: submitted on 2017-01-02", "rec: withdrawn on 2017-01-03"]


def test_many_at_once_record_one_decision(ledger_url: str, tmp_path: Path) -> None:
    def tell_one(n: int) -> str:
        with open_trial(TRIAL, tmp_path / str(n), ledger_url) as workspace:
            return tell(workspace, "granted", f"2017-02-{1 + n:02d}", by=f"Person {n}").answer

    with open_trial(TRIAL, tmp_path, ledger_url) as workspace:
        tell(workspace, "submitted", "2017-01-02")
        with ThreadPoolExecutor(4) as pool:
            answers = sorted(pool.map(tell_one, range(4)))
        assert answers == ["added", "conflict", "conflict", "conflict"]
        events = workspace.read_events()
        assert (len(list_told(events)), len(events.frame(ConflictRefused))) == (2, 3)


# Corrections --------------------------------------------------------------------------------------------------------


def test_a_void_of_what_others_rest_on_is_refused_and_names_them(local: Workspace) -> None:
    tell(local, "submitted", "2017-01-02")
    tell(local, "valid", "2017-01-05")
    tell(local, "granted", "2017-02-01")
    with pytest.raises(EntryFault) as caught:
        void_record(local, "1", "entered_in_error", "Ben Hall")
    assert [text.split(":")[0] for text in caught.value.faults[1:]] == [
        "row 2 (valid on 2017-01-05)",
        "row 3 (granted on 2017-02-01)",
    ]
    assert local.ledger.head().seq == 3
    void_record(local, "approval:rec:::::1:decided", "entered_in_error", "Ben Hall")
    void_record(local, "2", "wrong_date", "Ben Hall")
    assert list_told(local.read_events()) == ["rec: submitted on 2017-01-02"]
    assert tell(local, "granted", "2017-02-03").answer == "added"


@pytest.mark.parametrize(
    ("reference", "text"),
    [("2", "is voided already"), ("3", 'that row is "voided"'), ("99", "has no such row"), ("rec", "has no such row")],
)
def test_what_cannot_be_voided(local: Workspace, reference: str, text: str) -> None:
    tell(local, "submitted", "2017-01-02")
    tell(local, "valid", "2017-01-05")
    void_record(local, "2", "wrong_date", "Anna Price")
    with pytest.raises(EntryFault, match=text):
        void_record(local, reference, "wrong_date", "Ben Hall")


def test_a_correction_takes_the_place_of_the_record_in_one_append(local: Workspace) -> None:
    tell(local, "submitted", "2017-01-02")
    tell(local, "valid", "2017-01-05")
    with pytest.raises(EntryFault, match="but found valid on 2017-01-05 already"):
        tell(local, "submitted", "2017-01-06", corrects="wrong_date")
    assert tell(local, "submitted", "2017-01-03", corrects="wrong_date").answer == "added"
    events = local.read_events()
    assert list_told(events) == ["rec: found valid on 2017-01-05", "rec: submitted on 2017-01-03"]
    assert events.frame(Voided)["reason"].tolist() == ["wrong_date"]
    assert tell(local, "submitted", "2017-01-03", corrects="wrong_date").answer == "same"
    assert local.ledger.head().seq == 4


# Letters ------------------------------------------------------------------------------------------------------------


def test_a_letter_is_kept_by_its_content_and_found_again(local: Workspace) -> None:
    tell(local, "submitted", "2017-01-02")
    digest = hashlib.sha256(PDF).hexdigest()
    tell(local, "granted", "2017-02-01", letter=PDF)
    events = local.read_events()
    assert list_letters(events)[0][0] == digest
    assert find_letter(events, "rec", REC) == find_letter(events, digest[:8], None) == digest
    assert local.content.get(digest) == PDF
    with pytest.raises(EntryFault, match="No letter is kept of council"):
        find_letter(events, "council", COUNCIL)
    tell(local, "renewed", "2017-06-01", letter=b"\n" + PDF)
    with pytest.raises(EntryFault, match="Several letters are kept of rec"):
        find_letter(local.read_events(), "rec", REC)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "The file is empty"),
        (b"PK\x03\x04 a workbook called letter.pdf", "is not a PDF"),
        (PDF[:20], "The end of the PDF is missing"),
        (PDF + b"x" * 5000, "The end of the PDF is missing"),
        (PDF[:-6] + b"x" * MAX_LETTER_BYTES + PDF[-6:], "larger than 25 MB"),
    ],
)
def test_what_is_no_pdf(data: bytes, text: str) -> None:
    with pytest.raises(EntryFault, match=text):
        require_pdf(data)


# Whole files --------------------------------------------------------------------------------------------------------


def fill_tracker(workspace: Workspace, changes: dict[tuple[str, str], Any]) -> bytes:
    events = workspace.read_events()
    book = openpyxl.load_workbook(
        io.BytesIO(write_tracker(TRIAL, derive_tracker(TRIAL, events, TODAY), events.head, TODAY))
    )
    page = book[SHEET]
    columns = {cell.value: cell.column for cell in page[3]}
    rows = {page.cell(row, 1).value: row for row in range(4, page.max_row + 1)}
    for (key, code), value in changes.items():
        page.cell(rows[key], columns[code]).value = value
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def read_back(workspace: Workspace, data: bytes, **options: bool) -> approval_recording.FileRecorded:
    rows = read_tracker(data, TRIAL, workspace.read_events()).rows
    return record_rows(workspace, data, SHEET, rows, "Carol Mann", **options)


def test_a_tracker_read_twice_changes_nothing_more(trial: Workspace) -> None:
    rec, council = format_key(REC, 1), format_key(COUNCIL, 1)
    tell(trial, "submitted", "2017-01-02")
    data = fill_tracker(
        trial, {(rec, "valid_on"): "5 Jan 17", (council, "submitted_on"): "13/02/2017", (council, "letter"): "C/1"}
    )
    assert [row for row, _ in read_back(trial, data, dry_run=True).added] == [4, 9]
    assert trial.ledger.head().seq == 1
    recorded = read_back(trial, data)
    assert (len(recorded.added), recorded.faults) == (2, [])
    events = trial.read_events()
    (row,) = [row for event, row in list_standing(events) if event.site_id == "luton"]
    assert (row["source_sha256"], row["source_sheet"], row["source_row"]) == (recorded.sha256, SHEET, 9)
    assert row["requested_by"] == "Carol Mann"
    assert trial.content.get(recorded.sha256) == data
    again = read_back(trial, data)
    assert (list(again.added), again.faults, again.n_known) == ([], [], 2)
    assert trial.ledger.head().seq == 3


def test_what_another_person_told_is_kept_and_the_second_telling_too(trial: Workspace) -> None:
    rec, council = format_key(REC, 1), format_key(COUNCIL, 1)
    tell(trial, "submitted", "2017-01-02")
    data = fill_tracker(trial, {(rec, "valid_on"): date(2017, 1, 6), (council, "submitted_on"): date(2017, 2, 13)})
    tell(trial, "valid", "2017-01-05", by="Ben Hall")
    recorded = read_back(trial, data)
    assert [describe_event(event) for _, event in recorded.added] == [
        "council (luton, luton_council): submitted on 2017-02-13"
    ]
    assert recorded.n_refused == 1
    assert "told by Ben Hall" in recorded.faults[0].text
    events = trial.read_events()
    (refused,) = events.frame(ConflictRefused).to_dict("records")
    assert (refused["requested_by"], refused["source_row"]) == ("Carol Mann", 4)
    read_back(trial, data)
    assert len(trial.read_events().frame(ConflictRefused)) == 1


# Tables from elsewhere ----------------------------------------------------------------------------------------------

MAP = b"""
[columns]
approval = "Type"
site = "Area"
body = "Who"
submitted_on = "Date sent"
decision = "Outcome"
decided_on = "Date"
letter = "Ref"
[values.approval]
"R&D" = "trust"
[values.decision]
"Approved" = "granted"
[values.submitted_on]
"n/a" = ""
"""
HEADER = "Type;Area;Who;Date sent;Outcome;Date;Ref;Remarks\n"


def import_lines(
    workspace: Workspace, *lines: str, encoding: str = "utf-8"
) -> tuple[Sequence[str], list[str], list[str]]:
    data = (HEADER + "\n".join(lines)).encode(encoding)
    reading = read_table(data, TRIAL, parse_map(MAP, "map.toml"))
    recorded = record_rows(workspace, data, "", reading.rows, "Carol Mann")
    faults = sorted([*reading.faults, *recorded.faults], key=lambda fault: fault.row)
    return [describe_event(event) for _, event in recorded.added], [fault.text for fault in faults], reading.notes


def test_a_table_goes_in_and_goes_in_once(local: Workspace) -> None:
    lines = (
        "rec;;;02/01/2017;Approved;1 Feb 2017;A/1;",
        "R&D;Luton;;2017-02-01;;;;",
        "Council approval;LUT;Luton Council;13/02/2017;refused;1 Mar 17;;said no",
        ";;;;;;;",
        "CAG;;;n/a;;;;",
    )
    added, faults, notes = import_lines(local, *lines[:4])
    assert added == [
        "rec: submitted on 2017-01-02",
        "rec: granted on 2017-02-01",
        "trust (luton, luton_trust): submitted on 2017-02-01",
        "council (luton, luton_council): submitted on 2017-02-13",
        "council (luton, luton_council): refused on 2017-03-01",
    ]
    assert (faults, notes) == ([], ["Columns that the map does not name were not read: Remarks."])
    assert import_lines(local, *lines) == ([], [], notes)
    assert local.ledger.head().seq == 5


def test_faults_of_a_table_are_told_at_once_by_line_and_column(local: Workspace) -> None:
    added, faults, _ = import_lines(
        local,
        "rec;;;02/01/2017;Approved;1 Feb 2017;A/1;",
        "reck;;;02/01/2017;;;;",
        "council;Luton;luton_trust;02/01/2017;;;;",
        "cag;;;02/01/2017;maybe;1 Feb 2017;;",
        "trust;Luton;;1 Jan 2030;;;;",
        "green_light;Luton;;;granted;2017-02-01;;",
        "council;Devon;;2017-01-01;;;;one;cell more",
        "adass;;;03/01/2017;;;;",
        "adass;;;04/01/2017;;;;",
    )
    assert added == ["rec: submitted on 2017-01-02", "rec: granted on 2017-02-01"]
    assert [fault.split(":")[0] for fault in faults] == [
        *("line 3", "line 4", 'line 5, column "Outcome"', 'line 6, column "Date sent"', 'line 7, column "Date"'),
        *("line 8", 'line 9, column "Date sent"', 'line 10, column "Date sent"'),
    ]
    assert "is told otherwise in line 10" in faults[6]


def test_a_column_with_the_month_first_is_not_trusted_at_all(local: Workspace) -> None:
    added, faults, _ = import_lines(
        local, "rec;;;02/13/2017;;;;", "cag;;;02/03/2017;;;;", "adass;;;2017-02-13;;;;", "trust;Luton;;3 Feb 2017;;;;"
    )
    assert added == ["adass: submitted on 2017-02-13", "trust (luton, luton_trust): submitted on 2017-02-03"]
    assert "has no month 13" in faults[0]
    assert 'line 3, column "Date sent": the month may be first here, as it is in line 2' in faults[1]


def test_encodings_and_files_that_are_none(local: Workspace) -> None:
    line = "rec;;;02/01/2017;;;;Siân"
    assert import_lines(local, line, encoding="utf-8-sig")[2] == [
        "Columns that the map does not name were not read: Remarks."
    ]
    assert "read as Windows-1252" in import_lines(local, line, encoding="cp1252")[2][0]
    mapped = parse_map(MAP, "map.toml")
    for data, text in [
        (b"", "The file is empty"),
        (b"PK\x03\x04\x00", "is no CSV file"),
        (b"\x81\x8d", "neither UTF-8 nor Windows-1252"),
        (b'Type;Area\n"a;b', "line 2: this is no row"),
        (
            b"Type;Are;Who;Date sent;Outcome;Date;Ref",
            'no column "Area", which the map names for site. Correct the map.',
        ),
        (HEADER.replace("Who", "Type").encode(), 'the column "Type" 2 times'),
    ]:
        with pytest.raises(EntryFault, match=text.replace("(", "\\(")):
            read_table(data, TRIAL, mapped)


def test_a_map_is_checked_and_can_be_proposed() -> None:
    with pytest.raises(EntryFault) as caught:
        parse_map(b'[columns]\nsubmited_on = "Sent"\nsite = 3\n[extra]\n', "map.toml")
    assert len(caught.value.faults) == 5
    assert 'Did you mean "submitted_on"?' in str(caught.value)
    proposed = propose_map(b"Area,Organisation,Date submitted,Outcome,Colour\n", TRIAL)
    mapped = parse_map(proposed.replace('approval = ""', 'approval = "council"').encode(), "map.toml")
    assert mapped.columns == {
        "site": "Area", "body": "Organisation", "submitted_on": "Date submitted", "decision": "Outcome",
    }  # fmt: skip
    assert mapped.fixed == {"approval": "council"}
    assert '# ? = "Colour"' in proposed
