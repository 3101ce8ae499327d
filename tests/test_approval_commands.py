"""`summative approvals` as a person types it, on the IPC study."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import openpyxl
import pytest
from typer.testing import CliRunner

from desk.approval_commands import approvals_app
from tasks.settings import read_settings

PDF = b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n%%EOF\n"
COUNCIL = ("council_governance", "submitted", "--body", "luton_borough_council")


@pytest.fixture(autouse=True)
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SUMMATIVE_DATA_FOLDER", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    read_settings.cache_clear()
    yield
    read_settings.cache_clear()


def run(command: str, *words: str, by: str = "Anna Price") -> tuple[int, str]:
    signed = [] if command in ("letter", "versions", "tracker") else ["--by", by]
    result = CliRunner().invoke(approvals_app, [command, "ipc", *words, *signed])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


def record(approval: str, step: str, on: str, *words: str, by: str = "Anna Price") -> tuple[int, str]:
    return run("record", approval, step, "--on", on, *words, by=by)


def test_a_step_is_answered_with_its_state_turn_and_deadline() -> None:
    code, said = record("rec", "submitted", "14 Nov 16")
    assert code == 0
    assert said.startswith("Recorded (row 1): rec: submitted on 2016-11-14. Now submitted.")
    code, said = record("REC favourable opinion", "valid", "18/11/2016")
    assert "The turn is theirs (Social Care Research Ethics Committee), since 2016-11-14" in said
    assert "due by 2017-01-17." in said
    assert "the same was recorded before (row 2)" in record("rec", "valid", "2016-11-18", by="Ben Hall")[1]
    code, said = record("rec", "valid", "2016-11-21", by="Ben Hall")
    assert code == 1
    assert "rec: found valid on 2016-11-21: the ledger holds it otherwise." in said
    assert "told by Anna Price on" in said
    assert "summative approvals void ipc 2" in said
    assert record("rec", "valid", "2016-11-21", "--correct", "wrong_date", by="Ben Hall")[0] == 0
    code, said = run("void", "5", "--reason", "entered_in_error", by="Ben Hall")
    assert (code, said[:30]) == (0, "Voided (entered in error): rec")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("rec", "granted", "2016-11-01"), "but submitted only on 2016-11-14. Correct the date of one of them."),
        (("rec", "valid", "2099-01-01"), "is in the future"),
        (("rec", "valid", "11/18/2016"), "--on: \"11/18/2016\" has no month 18: the day comes first here"),
        (("rec", "granted", "2016-12-01", "--expires", "2016-11-30"), "force (2016-11-30) is before its first"),
        (("data_sharing", "submitted", "2016-12-01", "--site", "luton", "--body", "islington_ccg"), "no body at Luton"),
        (("council_governance", "submitted", "2016-12-01", "--site", "Lutton"), 'Did you mean "Luton"?'),
        (("rec", "sumbitted", "2016-12-01"), 'Did you mean "submitted"?'),
        (("cag", "submitted", "2016-12-01"), "name the route: cag_full or cag_precedent_set"),
        (("rec", "granted", "2016-12-01", "--letter", "a:b"), "cannot be kept as a letter's reference"),
        (("rec", "granted", "2016-12-01", "--file", "no-such-letter.pdf"), "cannot be read"),
    ],
)  # fmt: skip
def test_bad_input_is_told_and_nothing_is_recorded(words: tuple[str, ...], text: str) -> None:
    record("rec", "submitted", "2016-11-14")
    code, said = record(*words)
    assert code == 1
    assert text in said
    assert said.endswith("Nothing was recorded.")
    assert record("rec", "valid", "2016-11-18")[1].startswith("Recorded (row 2)")


def test_a_letter_goes_in_and_comes_out(tmp_path: Path) -> None:
    letter, other, back = tmp_path / "letter.pdf", tmp_path / "other.pdf", tmp_path / "back.pdf"
    letter.write_bytes(PDF)
    other.write_text("no letter")
    record("rec", "submitted", "2016-11-14")
    code, said = record("rec", "granted", "2017-01-20", "--file", str(other))
    assert code == 1
    assert "The file is not a PDF, whatever its name says." in said
    assert record("rec", "granted", "2017-01-20", "--file", str(letter), "--letter", "16/IEC08/0001")[0] == 0
    assert run("letter", "rec", "--to", str(back))[0] == 0
    assert back.read_bytes() == PDF
    assert "is there already" in run("letter", "rec", "--to", str(back))[1]


def test_modifications_documents_duties_and_versions() -> None:
    for approval, step, on in [
        ("rec", "submitted", "2016-11-14"), ("rec", "granted", "2017-01-20"), ("hra", "submitted", "2016-11-14"),
        ("hra", "granted", "2017-01-27"),
    ]:  # fmt: skip
        record(approval, step, on)
    assert run("document", "consent_form", "1", "--approval", "rec", "--on", "2016-11-01")[0] == 0
    code, said = run("modification", "SA01", "--category", "a", "--substantial", "--on", "2017-03-01")
    assert (code, "It is put to" in said) == (0, True)
    assert (
        "Nothing was changed"
        in run("modification", "SA01", "--category", "A", "--substantial", "--on", "2017-03-01")[1]
    )
    assert (
        "category: cannot be kept"
        in run("modification", "SA02", "--category", "D", "--substantial", "--on", "2017-03-01")[1]
    )
    assert run("supply", "SA01", "--on", "2017-03-10")[0] == 0
    assert "is no modification on record" in run("supply", "SA9", "--on", "2017-03-10")[1]
    assert run("document", "consent_form", "2", "--modification", "SA01", "--on", "2017-03-01")[0] == 0
    assert "1 since 2017-01-20" in run("versions", "--on", "2017-06-01", "--site", "luton")[1]
    assert record("rec", "granted", "2017-04-01", "--modification", "SA01")[0] == 1  # not sent in to the committee yet
    assert run("duty", "funder_report", "--due", "2017-05-01", "--on", "2017-04-28")[0] == 0
    assert "is not due on 2017-05-02" in run("duty", "funder_report", "--due", "2017-05-02", "--on", "2017-04-28")[1]
    code, said = run("void", "6", "--reason", "entered_in_error")
    assert code == 1
    assert "Other records rest on it: 6." in said
    assert "row 7 (modification supplied on 2017-03-10)" in said


def test_a_tracker_goes_out_and_comes_back(tmp_path: Path) -> None:
    record("rec", "submitted", "2016-11-14")
    assert run("tracker")[1].startswith(f"Written: {tmp_path}/data/ipc/approvals/ipc-approvals-tracker.xlsx (")
    path = tmp_path / "tracker.xlsx"
    run("tracker", "--to", str(path))
    code, said = run("read", str(path))
    assert (code, said[:18]) == (0, "Recorded: 0 steps.")
    book = openpyxl.load_workbook(path)
    page = book["Approvals"]
    columns = {cell.value: cell.column for cell in page[3]}
    rows = {page.cell(row, 1).value: row for row in range(4, page.max_row + 1)}
    council = rows["council_governance|luton|luton_borough_council|||1"]
    page.cell(council, columns["submitted_on"]).value = "13 Feb 17"
    page.cell(rows["rec|||||1"], columns["valid_on"]).value = date(2016, 11, 18)
    page.cell(rows["hra|||||1"], columns["submitted_on"]).value = "02/13/2017"
    book.save(path)
    code, said = run("read", str(path), "--dry-run")
    assert "Would be recorded: 2 steps; not taken: 1 rows, each whole (see above)." in said
    record(*COUNCIL[:2], "2017-02-14", *COUNCIL[2:], by="Ben Hall")
    code, said = run("read", str(path), by="Carol Mann")
    assert code == 1
    assert f"row {rows['rec|||||1']}: rec: found valid on 2016-11-18" in said
    assert 'Submitted on: "02/13/2017" has no month 13' in said
    assert "told by Ben Hall" in said
    assert "Recorded: 1 steps; not taken: 2 rows, each whole (see above)." in said
    path.write_bytes(PDF)
    code, said = run("read", str(path))
    assert (code, "is not an Excel workbook" in said) == (1, True)


def test_a_table_is_imported_by_a_map(tmp_path: Path) -> None:
    table, mapped = tmp_path / "old.csv", tmp_path / "map.toml"
    table.write_text("Area,Organisation,Date sent\nLuton,Luton Borough Council,13/02/2017\nLuton,Nobody,1 Mar 2017\n")
    code, said = run("import", str(table), "--propose")
    assert (code, 'site = "Area"' in said) == (0, True)
    proposed = (
        CliRunner().invoke(approvals_app, ["import", "ipc", str(table), "--propose", "--by", "Anna Price"]).output
    )
    mapped.write_text(proposed.replace('approval = ""', 'approval = "council_governance"'))
    code, said = run("import", str(table), "--map", str(mapped))
    assert code == 1
    assert "row 2: council_governance (luton, luton_borough_council): submitted on 2017-02-13" in said
    assert 'line 3: "Nobody" is no body of ipc.' in said
    assert "1 were on record already" in run("import", str(table), "--map", str(mapped))[1]


def test_a_corrected_step_keeps_its_letter(tmp_path: Path) -> None:
    """Told again without the file it is the same; with another date it keeps the letter that is on record."""
    (tmp_path / "letter.pdf").write_bytes(PDF)
    assert (
        record("rec", "submitted", "2016-11-14", "--file", str(tmp_path / "letter.pdf"), "--letter", "IRAS 7")[0] == 0
    )
    assert "the same was recorded before" in record("rec", "submitted", "2016-11-14")[1]
    assert record("rec", "submitted", "2016-11-15", "--correct", "wrong_date")[0] == 0
    code, said = run("letter", "rec", "--to", str(tmp_path / "again.pdf"))
    assert (code, (tmp_path / "again.pdf").read_bytes()) == (0, PDF), said
