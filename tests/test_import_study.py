"""Studies that are over, from flat files: two public trials in three formats, and what files can have wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyreadstat
import pytest
from typer.testing import CliRunner

from desk.command_line import app
from study.approval_entries import EntryFault
from study.events import DispositionRecorded, FileHeld, ParticipantAllocated, ReturnAccepted
from study.instruments import DefinitionFaults
from tasks.definitions import (
    FINISHED_STUDIES,
    StudyExists,
    check_instrument,
    copy_finished_study,
    find_faults,
    list_studies,
)
from tasks.erasure import erase_data
from tasks.files import FileMissing
from tasks.quarantine import record_decision
from tasks.release_checks import verify_release
from tasks.releases import freeze_release, read_latest_tables
from tasks.returns import read_answers
from tasks.settings import Settings
from tasks.study_import import StudyImport, import_study, load_import_map, plan_import, propose_import_map
from tasks.workspace import Workspace, create_workspace
from tests.public_trials import FORMATS, TRIALS, read_trial, write_trial

TODAY = date(2026, 3, 2)
BY = "A. Tester"
N_RETURNED = {"baseline": 100, "month_2": 97, "month_4": 73, "month_6": 58, "month_8": 52}
MAP = "sources/import.toml"


def make_workspace(folder: Path, like: str, edit: Callable[[str, str], str] = lambda path, text: text) -> Workspace:
    """A copy of a finished study of the templates in a folder of the test's; `edit`: path and text to text."""
    settings = Settings(
        data_folder=folder / "out", sites_config=folder / "sites_config", instruments=folder / "instruments"
    )
    for path in copy_finished_study(like, like, "", settings.sites_config, settings.instruments):
        path.write_text(edit(path.name, path.read_text(encoding="utf-8")), encoding="utf-8")
    return create_workspace(like, settings=settings, clock=lambda: datetime(2026, 3, 2, 12, tzinfo=UTC))


def take(workspace: Workspace, folder: Path) -> tuple[StudyImport, int]:
    plan, n_rows = import_study(workspace, folder, TODAY, BY)
    assert not plan.faults
    assert not plan.held
    return plan, n_rows


# --- Two public trials ------------------------------------------------------------------------------------------------


def list_rows(workspace: Workspace) -> list[tuple[object, ...]]:
    """The ledger without what follows from the format of the file: hashes, sizes and numbers of rows."""
    rows = workspace.ledger.history()
    told: list[tuple[object, ...]] = []
    for row in rows.to_dict("records"):
        fields = {k: v for k, v in json.loads(row["payload"]).items() if k not in ("sha256", "size_bytes")}
        told.append((row["kind"], row["site_id"], row["participant_id"], str(row["occurred_on"]), json.dumps(fields)))
    return told


def test_three_formats_give_one_ledger(tmp_path: Path) -> None:
    ledgers = []
    for kind in FORMATS:
        folder = tmp_path / kind
        write_trial("btheb", folder / "data", kind)
        workspace = make_workspace(folder, "btheb")
        take(workspace, folder / "data")
        ledgers.append(list_rows(workspace))
    assert len(ledgers[0]) > 700
    assert ledgers[0] == ledgers[1] == ledgers[2]


def test_btheb_becomes_a_release_that_says_what_it_rests_on(tmp_path: Path) -> None:
    write_trial("btheb", tmp_path / "data")
    workspace = make_workspace(tmp_path, "btheb")
    plan, n_rows = take(workspace, tmp_path / "data")
    assert {wave: plan.sheets["bdi_total", wave] for wave in N_RETURNED} == N_RETURNED
    assert n_rows == 100 * 3 + sum(N_RETURNED.values()) + 100 + 2

    release = freeze_release(workspace, date(2000, 12, 31), BY)
    assert [entry["id"] for entry in release.manifest["assumptions"]] == [
        "screened_on", "consented_on", "allocated_on", "collected_on", "site", "leaving",
    ]  # fmt: skip
    tables = read_latest_tables(workspace)
    scores = tables["scores"]
    own = scores[scores["instrument"] == "bdi_total"]
    assert own[own["score"].notna()].groupby("wave").size().to_dict() == N_RETURNED
    public = read_trial("btheb").set_index("rownames")
    of_month_8 = own[(own["wave"] == "month_8") & own["score"].notna()].set_index("participant_id")["score"]
    expected = public["bdi.8m"].dropna()
    assert of_month_8.rename(int).sort_index().to_list() == expected.to_list()
    people = tables["participants"]
    assert people["arm"].value_counts().to_dict() == {"beat_the_blues": 52, "usual_treatment": 48}
    checked = verify_release(workspace, release.release)
    assert checked.faults == []

    # Each row of the ledger names the file and the row that it came from.
    accepted = workspace.read_events().frame(ReturnAccepted)
    second = accepted[(accepted["participant_id"] == "2") & (accepted["wave"] == "month_8")].iloc[0]
    line = (tmp_path / "data" / "btheb.csv").read_text().splitlines()[int(second["source_row"]) - 1]
    assert line.startswith("2,Yes,>6m,BtheB,32")
    assert workspace.content.get(second["source_sha256"]) == (tmp_path / "data" / "btheb.csv").read_bytes()


def test_respiratory_has_two_centres_and_five_visits(tmp_path: Path) -> None:
    write_trial("respiratory", tmp_path / "data")
    workspace = make_workspace(tmp_path, "respiratory")
    plan, _ = take(workspace, tmp_path / "data")
    assert [n for (sheet, _), n in plan.sheets.items() if sheet == "respiratory_status"] == [111] * 5
    freeze_release(workspace, date(1990, 12, 31), BY)
    tables = read_latest_tables(workspace)
    assert tables["participants"]["site"].value_counts().to_dict() == {"centre_1": 56, "centre_2": 55}
    scores = tables["scores"]
    own = scores[(scores["scale"] == "good_status") & (scores["wave"] == "month_4")]
    public = read_trial("respiratory")
    assert own["score"].sum() == ((public["month"] == 4) & (public["status"] == "good")).sum()


def test_the_same_import_adds_nothing_and_a_changed_one_corrects(tmp_path: Path) -> None:
    path = write_trial("btheb", tmp_path / "data")
    workspace = make_workspace(tmp_path, "btheb")
    take(workspace, tmp_path / "data")
    head = workspace.ledger.head()
    plan, n_rows = take(workspace, tmp_path / "data")
    assert (plan.is_known, n_rows, workspace.ledger.head()) == (True, 0, head)

    was = path.read_text()
    path.write_text(was.replace("\n2,Yes,>6m,BtheB,32,16.0", "\n2,Yes,>6m,BtheB,32,17.0"))
    _, n_rows = take(workspace, tmp_path / "data")
    accepted = workspace.read_events().frame(ReturnAccepted)
    corrected = accepted[accepted["version"] == 2]
    assert corrected[["participant_id", "wave"]].to_numpy().tolist() == [["2", "month_2"]]
    assert n_rows == 3  # the record, the new file, the new import
    answers = read_answers(workspace, corrected)
    assert answers["response"].to_list() == [17.0]

    # The first file again is a correction as well: what was told last counts.
    path.write_text(was)
    take(workspace, tmp_path / "data")
    accepted = workspace.read_events().frame(ReturnAccepted)
    last = accepted[accepted["version"] == 3]
    assert read_answers(workspace, last)["response"].to_list() == [16.0]


def test_a_person_is_erased_from_an_import_and_the_others_stay(tmp_path: Path) -> None:
    path = write_trial("btheb", tmp_path / "data")
    workspace = make_workspace(tmp_path, "btheb")
    plan, _ = take(workspace, tmp_path / "data")
    assert erase_data(workspace, "2", "principal_investigator", "R1", BY).unread == ()
    with pytest.raises(FileMissing):
        workspace.content.get(plan.tables[0].sha256)
    freeze_release(workspace, date(2000, 12, 31), BY)
    scores = read_latest_tables(workspace)["scores"]
    own = scores[(scores["instrument"] == "bdi_total") & scores["score"].notna()]
    assert own.groupby("wave").size().to_dict() == {wave: n - 1 for wave, n in N_RETURNED.items()}
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith("2,")))
    plan, _ = take(workspace, tmp_path / "data")
    assert plan.counts["records repeated"] == 474


def test_a_changed_map_corrects_too(tmp_path: Path) -> None:
    write_trial("btheb", tmp_path / "data")
    workspace = make_workspace(tmp_path, "btheb")
    take(workspace, tmp_path / "data")
    own = workspace.settings.sites_config / "btheb" / MAP
    own.write_text(own.read_text().replace('BtheB = "beat', 'Beating = "beat_the_blues", BtheB = "beat'))
    plan, n_rows = take(workspace, tmp_path / "data")
    assert plan.counts["records repeated"] == 480
    assert n_rows == 1  # the import is noted


def test_templates_are_in_order_and_are_copied_once(tmp_path: Path) -> None:
    assert list_studies(FINISHED_STUDIES) == sorted(TRIALS)
    for name in TRIALS:
        workspace = make_workspace(tmp_path, name)
        settings = workspace.settings
        assert find_faults(name, settings.sites_config, settings.instruments).faults == ()
        for instrument in workspace.instruments:
            assert check_instrument(instrument, settings.instruments).faults == ()
        with pytest.raises(StudyExists):
            copy_finished_study(name, name, "", settings.sites_config, settings.instruments)
    written = copy_finished_study("btheb", "mine", 'A "quoted" title', settings.sites_config, settings.instruments)
    assert {path.parent.name for path in written} == {"mine", "sites", "sources"}  # instruments were there
    assert create_workspace("mine", settings=settings).study.title == 'A "quoted" title'
    with pytest.raises(ValueError, match="btheb, respiratory"):
        copy_finished_study("nothing", "mine2", "", settings.sites_config, settings.instruments)


def test_the_command_tells_what_it_would_take_then_takes_it(own_settings: Path) -> None:
    run = CliRunner().invoke
    assert run(app, ["new", "btheb", "--like", "btheb"]).exit_code == 0
    nothing = run(app, ["import-study", "btheb", "--dry-run"])
    assert nothing.exit_code == 1
    assert 'has no file "btheb"' in nothing.output
    write_trial("btheb", own_settings / "out" / "btheb" / "import")
    assert "--by NAME" in run(app, ["import-study", "btheb"]).output
    looked = run(app, ["import-study", "btheb", "--dry-run"])
    assert "records accepted 480" in looked.output
    assert "Nothing was kept or recorded" in looked.output
    taken = run(app, ["import-study", "btheb", "--by", BY])
    assert "summative freeze btheb --as-of 2000-12-31" in taken.output
    assert "nothing was added" in run(app, ["import-study", "btheb", "--by", BY]).output
    proposed = run(app, ["import-study", "btheb", "--propose"])
    assert 'participant_id = "rownames"' in proposed.output
    assert "# bdi.8m: " in proposed.output
    assert '"TAU" = ""' in proposed.output


# --- Files as people have them ----------------------------------------------------------------------------------------

HEADER = "subject,centre,treatment,sex,age,status,month"
ROWS = (
    "1,1,placebo,female,46,poor,0",
    "1,1,placebo,female,46,good,1",
    "2,2,treatment,male,23,good,0",
    "2,2,treatment,male,23,good,1",
)


def plan_of(
    folder: Path, data: bytes | str, edit: Callable[[str], str] = lambda text: text, name: str = "respiratory.csv"
) -> tuple[Workspace, StudyImport]:
    """What an import of one file would take, by the map of the respiratory trial."""

    def of_map(path: str, text: str) -> str:
        return edit(text) if path == "import.toml" else text

    workspace = make_workspace(folder, "respiratory", of_map)
    (folder / "data").mkdir()
    (folder / "data" / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return workspace, plan_import(workspace, folder / "data", TODAY, BY)


def lines(*rows: str, header: str = HEADER) -> str:
    return "\n".join([header, *rows]) + "\n"


FAULTY = {
    "two rows of one wave": ((*ROWS, "1,1,placebo,female,46,poor,1"), "rows 3, 6, sheet respiratory_status"),
    "an unknown arm": ((*ROWS, "3,1,active,male,30,good,0"), 'row 6, column "treatment": this is no arm of the study'),
    "a person in two arms": ((*ROWS, "2,2,placebo,male,23,good,2"), "this person is in another arm"),
    "a person at two sites": ((*ROWS, "2,1,treatment,male,23,good,2"), "this person is at another site"),
    "an unknown site": ((*ROWS, "3,9,placebo,male,23,good,0"), 'row 6, column "centre": this is no site ("9")'),
    "an unknown level": ((*ROWS, "3,1,placebo,male,30,fair,0"), 'row 6, column "status" (sheet respiratory_status)'),
    "a number out of range": ((*ROWS, "3,1,placebo,male,460,good,0"), "Expected: a whole number from 0 to 110"),
    "no identifier": ((*ROWS, ",1,placebo,male,30,good,0"), 'row 6, column "subject": there is no identifier'),
    "an identifier of another form": ((*ROWS, "A7,1,placebo,male,30,good,0"), 'row 6, column "subject"'),
    "an unknown wave": ((*ROWS, "2,2,treatment,male,23,good,9"), 'row 6, column "month": this is no wave'),
}


@pytest.mark.parametrize("case", FAULTY)
def test_what_is_wrong_is_told_by_its_place_and_nothing_is_taken(tmp_path: Path, case: str) -> None:
    rows, told = FAULTY[case]
    workspace, plan = plan_of(tmp_path, lines(*rows))
    assert told in "\n".join(plan.faults)
    assert "respiratory.csv" in plan.faults[0]
    _, n_rows = import_study(workspace, tmp_path / "data", TODAY, BY)
    assert (n_rows, workspace.ledger.head().seq) == (0, 0)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    rows = (*ROWS, "3,1,active,male,30,good,0", ",1,placebo,male,30,good,0", "2,2,treatment,male,23,good,9")
    _, plan = plan_of(tmp_path, lines(*rows, "4,1,placebo,male,300,good,0"))
    assert len(plan.faults) == 4
    assert 'row 9, column "age" (sheet respiratory_characteristics)' in plan.faults[-1]


UNREADABLE = {
    "empty": (b"", "the file is empty"),
    "blank": (b"\n \n", "the file is empty"),
    "a header alone": (f"{HEADER}\n".encode(), "has a header and no row"),
    "more cells": (
        lines(*ROWS, "3,1,placebo,male,30,good,0,7").encode(),
        "respiratory.csv, row 6: more or fewer cells",
    ),
    "fewer cells": (lines(*ROWS, "3,1,placebo").encode(), "respiratory.csv, row 6: more or fewer cells"),
    "one name twice": (lines(*ROWS, header=HEADER.replace("sex", "age")).encode(), "two columns are called age"),
    "no text": (bytes(range(256)) * 4, "no CSV, SPSS or Stata file"),
    "damaged SPSS": (b"$FL2" + bytes(400), "cannot be read as a file of SPSS"),
    "damaged Stata": (b"<stata_dta><header>" + bytes(400), "cannot be read as a file of Stata"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, case: str) -> None:
    data, told = UNREADABLE[case]
    with pytest.raises(EntryFault) as caught:
        plan_of(tmp_path, data)
    assert told in caught.value.faults[0]


def test_a_file_that_claims_a_million_rows_is_refused(tmp_path: Path) -> None:
    path = write_trial("respiratory", tmp_path, "sav")
    data = bytearray(path.read_bytes())
    at = data.index((555).to_bytes(4, "little"))
    data[at : at + 4] = (1_000_000).to_bytes(4, "little")
    with pytest.raises(EntryFault, match="fewer cases than it says"):
        plan_of(tmp_path, bytes(data), name="respiratory.sav")


def test_a_column_that_is_not_there_is_named_with_a_suggestion(tmp_path: Path) -> None:
    _, plan = plan_of(tmp_path, lines(*ROWS), lambda text: text.replace('"status"', '"statis"'))
    (fault,) = [text for text in plan.faults if "statis" in text]
    assert 'has no column "statis", which the map names for respiratory_status.resp_status' in fault
    assert 'Did you mean "status"?' in fault


ENCODED = {
    "UTF-8 with a mark": lines(*ROWS).encode("utf-8-sig"),
    "UTF-16": lines(*ROWS).encode("utf-16"),
    "semicolons": lines(*ROWS).replace(",", ";").encode(),
    "tabs": lines(*ROWS).replace(",", "\t").encode(),
    "sep=": ("sep=;\n" + lines(*ROWS).replace(",", ";")).encode(),
    "line ends of Windows": lines(*ROWS).replace("\n", "\r\n").encode(),
    "quotes and blank lines": lines(*(f'"{row}"'.replace(",", '","') for row in ROWS), ",,,,,,").encode(),
}


@pytest.mark.parametrize("case", ENCODED)
def test_any_csv_is_read(tmp_path: Path, case: str) -> None:
    _, plan = plan_of(tmp_path, ENCODED[case])
    assert not plan.faults
    assert plan.counts["records accepted"] == 6


def test_windows_1252_and_words_with_accents(tmp_path: Path) -> None:
    data = lines(*ROWS).replace("placebo", "plac\u00e9bo").replace(",1,", ",Z\u00fcrich,").encode("cp1252")

    def edit(text: str) -> str:
        text = text.replace('1 = "centre_1"', '"Z\u00fcrich" = "centre_1"')
        return text.replace("fixed = { allocated", 'values.arm = { "plac\u00e9bo" = "placebo" }\nfixed = { allocated')

    _, plan = plan_of(tmp_path, data, edit)
    assert not plan.faults
    assert any("Windows-1252" in note for note in plan.notes)


def test_decimal_commas_are_read_where_the_map_says_so(tmp_path: Path) -> None:
    data = lines(*ROWS).replace(",", ";").replace("46", "46,0").replace("23", "23,0")
    _, plan = plan_of(tmp_path / "a", data, lambda text: text.replace("posted_on", 'decimal = ","\nposted_on', 1))
    assert not plan.faults
    _, plan = plan_of(tmp_path / "b", data)
    assert any('column "age"' in fault for fault in plan.faults)


def test_rows_that_are_alike_count_once_and_blank_ones_are_no_return(tmp_path: Path) -> None:
    rows = (*ROWS, ROWS[0], "2,2,treatment,male,23,NA,2", "2,2,treatment,male,23,,3")
    _, plan = plan_of(tmp_path, lines(*rows), lambda text: text.replace("posted_on", 'blank = ["NA"]\nposted_on', 1))
    assert not plan.faults
    assert {wave: n for (sheet, wave), n in plan.sheets.items() if sheet == "respiratory_status"} == {
        "baseline": 2, "month_1": 2,
    }  # fmt: skip
    assert any("respiratory_status: 1 rows repeat" in note for note in plan.notes)


# --- Missing values of SPSS and Stata ---------------------------------------------------------------------------------


def make_labelled() -> pd.DataFrame:
    frame = pd.DataFrame([row.split(",") for row in ROWS], columns=HEADER.split(","))
    numbers = frame[["subject", "centre", "age", "month"]].astype(float)
    return numbers.assign(
        treatment=frame["treatment"],
        sex=(frame["sex"] == "female") + 1.0,
        status=(frame["status"] == "good").astype(float),
    )


def test_typed_missing_values_of_stata_need_a_reason_and_keep_it(tmp_path: Path) -> None:
    frame = make_labelled().astype({"status": object})
    frame.loc[1, "status"] = "a"
    path = tmp_path / "respiratory.dta"
    pyreadstat.write_dta(frame, str(path), missing_user_values={"status": ["a"]})
    _, plan = plan_of(tmp_path / "a", path.read_bytes(), name="respiratory.dta")
    assert any('declares ".a" as missing' in fault for fault in plan.faults)
    workspace, plan = plan_of(
        tmp_path / "b", path.read_bytes(), lambda text: text + '\n[missing]\n".a" = "not_answered"\n', "respiratory.dta"
    )
    take(workspace, tmp_path / "b" / "data")
    accepted = workspace.read_events().frame(ReturnAccepted)
    answers = read_answers(workspace, accepted)
    own = answers[(answers["item"] == "resp_status") & (answers["missing_reason"].fillna("") != "")]
    assert own[["participant_id", "wave", "missing_reason"]].to_numpy().tolist() == [["1", "month_1", "not_answered"]]


def test_user_missing_values_of_spss_need_a_reason_and_keep_it(tmp_path: Path) -> None:
    frame = make_labelled()
    frame.loc[[0, 1], "age"] = 99.0
    path = tmp_path / "respiratory.sav"
    pyreadstat.write_sav(frame, str(path), missing_ranges={"age": [99]})
    _, plan = plan_of(tmp_path / "a", path.read_bytes(), name="respiratory.sav")
    assert any('declares "99" as missing' in fault for fault in plan.faults)

    def edit(text: str) -> str:
        return text.replace("[sites]", '[missing]\n99 = "not_answered"\n[sites]')

    _, plan = plan_of(tmp_path / "b", frame.to_csv(index=False), edit)
    assert any('column "age": "99" is an answer of respiratory_characteristics.resp_age' in f for f in plan.faults)
    workspace, _ = plan_of(tmp_path / "c", path.read_bytes(), edit, "respiratory.sav")
    take(workspace, tmp_path / "c" / "data")
    answers = read_answers(workspace, workspace.read_events().frame(ReturnAccepted))
    own = answers[answers["item"] == "resp_age"].set_index("participant_id")
    assert own["missing_reason"].fillna("").to_dict() == {"1": "not_answered", "2": ""}


def test_labels_of_the_file_decide_what_a_number_is(tmp_path: Path) -> None:
    frame = make_labelled()
    frame["status"] = 2 - frame["status"]  # 1 is good here, 2 is poor
    path = tmp_path / "respiratory.sav"
    pyreadstat.write_sav(frame, str(path), variable_value_labels={"status": {1: "good", 2: "poor"}})
    workspace, _ = plan_of(tmp_path / "a", path.read_bytes(), name="respiratory.sav")
    take(workspace, tmp_path / "a" / "data")
    answers = read_answers(workspace, workspace.read_events().frame(ReturnAccepted))
    assert answers.loc[answers["item"] == "resp_status", "response"].sum() == 3


# --- What tells who a person is ---------------------------------------------------------------------------------------


IDENTIFYING = {
    "NHS numbers": ("number", "943 476 5919", 'column "number", row 2: an NHS number'),
    "names": ("patient_name", "Margaret Thatcher", 'column "patient_name", row 2'),
    "days of birth": ("dob", "1950-02-03", 'column "dob", row 2'),
    "postcodes": ("place", "SW1A 1AA", 'column "place", row 2'),
}


@pytest.mark.parametrize("case", IDENTIFYING)
def test_a_file_that_tells_who_people_are_is_held(tmp_path: Path, case: str) -> None:
    column, value, told = IDENTIFYING[case]
    text = lines(f"{ROWS[0]},{value}", *(f"{row}," for row in ROWS[1:]), header=f"{HEADER},{column}")
    workspace, plan = plan_of(tmp_path, text)
    assert told in "\n".join(plan.held[0].told)
    assert value not in str(plan.held)
    assert plan.parts == []
    import_study(workspace, tmp_path / "data", TODAY, BY)
    import_study(workspace, tmp_path / "data", TODAY, BY)
    events = workspace.read_events()
    held = events.frame(FileHeld)
    assert (len(held), held["kept"].item(), len(events.frame(ReturnAccepted))) == (1, "nothing", 0)
    assert not list((tmp_path / "out").rglob(held["sha256"].item()))


def test_a_day_of_the_study_is_no_date_of_birth_where_the_map_says_so(tmp_path: Path) -> None:
    text = lines(*(f"{row},1990-02-05" for row in ROWS), header=f"{HEADER},Rand.Date")
    _, plan = plan_of(tmp_path / "a", text)
    assert "a date of birth" in plan.held[0].told[0]
    _, plan = plan_of(tmp_path / "b", text, lambda text: text.replace("site_c", 'days = ["rand_date"]\nsite_c'))
    assert not plan.held
    assert any("not taken: Rand.Date" in note for note in plan.notes)


def test_a_held_file_that_somebody_lets_through_is_taken(tmp_path: Path) -> None:
    text = lines(f"{ROWS[0]},SW1A 1AA", *(f"{row}," for row in ROWS[1:]), header=f"{HEADER},clinic_postcode")
    workspace, _ = plan_of(tmp_path, text)
    import_study(workspace, tmp_path / "data", TODAY, BY)
    held_id = workspace.read_events().frame(FileHeld)["held_id"].item()
    record_decision(
        workspace, held_id, "released", reason="not_identifying", role="data_manager", reference="", requested_by=BY
    )
    plan, _ = take(workspace, tmp_path / "data")
    assert plan.counts["records accepted"] == 6


# --- Several files, with days -----------------------------------------------------------------------------------------

SEVERAL = """
format = "files"
posted_on = 1990-12-31

[sites]
north = "centre_1"
south = "centre_2"

[[files]]
name = "people"
participant_id = "{n}"
site_column = "clinic"

[[files]]
name = "visits.csv"
participant_id = "person"

[[files]]
name = "left"
participant_id = "person"

[[sheets]]
file = "people"
sheet = "screening"
columns = { screened_on = "seen", consented_on = "seen" }

[[sheets]]
file = "people"
sheet = "allocation"
columns = { arm = "arm", allocated_on = "start" }

[[sheets]]
file = "left"
sheet = "disposition"
columns = { reason = "why" }
day_column = "day"
values.reason = { gone = "reason_not_known" }

[[sheets]]
file = "visits.csv"
sheet = "respiratory_status"
columns = { wave = "visit", resp_status = "status", collected_on = "on" }

[[sheets]]
file = "people"
sheet = "respiratory_characteristics"
columns = { resp_sex = "sex", resp_age = "age", collected_on = "start" }
fixed = { wave = "baseline" }
"""
PEOPLE = """n,clinic,arm,seen,start,sex,age
1,north,Placebo,01/02/1990,1990-02-05,female,46
2,south,Treatment,2 Feb 1990,1990-02-05,male,23
"""
VISITS = """person,visit,on,status
1,Before treatment,1990-02-05,poor
1,month_1,05/03/1990,good
2,baseline,1990-02-06,good
"""
LEFT = "person,why,day\n2,gone,20\n1,,\n"


def write_several(folder: Path, **texts: str) -> Workspace:
    workspace = make_workspace(folder, "respiratory", lambda path, text: SEVERAL if path == "import.toml" else text)
    (folder / "data").mkdir()
    for name, text in {"people": PEOPLE, "visits": VISITS, "left": LEFT, **texts}.items():
        (folder / "data" / f"{name}.csv").write_text(text)
    return workspace


def test_several_files_with_days_and_leavings(tmp_path: Path) -> None:
    workspace = write_several(tmp_path)
    plan, _ = take(workspace, tmp_path / "data")
    assert plan.counts["records accepted"] == 5
    events = workspace.read_events()
    (left,) = events.frame(DispositionRecorded).to_dict("records")
    assert (left["participant_id"], left["reason"], left["occurred_on"]) == (
        "2", "reason_not_known", pd.Timestamp("1990-02-25"),
    )  # fmt: skip
    assert events.frame(ParticipantAllocated)["arm"].to_list() == ["placebo", "treatment"]
    accepted = events.frame(ReturnAccepted)
    later = accepted[accepted["wave"] == "month_1"].iloc[0]
    assert (later["occurred_on"], later["source_row"]) == (pd.Timestamp("1990-03-05"), 3)
    names = {table.sha256: table.name for table in plan.tables}
    assert names[later["source_sha256"]] == "visits.csv"
    assert names[left["source_sha256"]] == "left.csv"


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        ({"visits": VISITS + "3,baseline,1990-02-06,good\n"}, "no file says at which site this person was"),
        ({"visits": VISITS.replace("05/03/1990", "03/25/1990")}, 'visits.csv, row 3, column "on": this is no day'),
        ({"visits": VISITS.replace("1990-02-06", "1990-01-06")}, 'visits.csv, row 4, column "on"'),
        ({"visits": VISITS.replace("1990-02-06", "2030-01-06")}, 'visits.csv, row 4, column "on"'),
        ({"left": LEFT.replace("gone", "bored")}, 'left.csv, row 2, column "why": this is no reason of the study'),
        ({"left": LEFT.replace("20", "x")}, 'left.csv, row 2, column "day": no day can be counted here'),
    ],
)
def test_faults_between_files_name_the_file(tmp_path: Path, texts: dict[str, str], told: str) -> None:
    workspace = write_several(tmp_path, **texts)
    assert told in "\n".join(plan_import(workspace, tmp_path / "data", TODAY, BY).faults)


def test_days_of_spss_and_stata_are_days(tmp_path: Path) -> None:
    """One file says in which clinic people were; identifiers are made of two columns."""
    workspace = write_several(tmp_path)
    own = workspace.settings.sites_config / "respiratory"
    (own / MAP).write_text(SEVERAL.replace("{n}", "{clinic_number}{n}").replace('"visits.csv"', '"visits"'))
    (own / "study.toml").write_text((own / "study.toml").read_text().replace("1,3", "1,5"))
    (tmp_path / "data" / "visits.csv").unlink()
    (tmp_path / "data" / "people.csv").unlink()
    days = [date(1990, 2, 5), date(1990, 3, 5), date(1990, 2, 6)]
    visits = pd.DataFrame({"person": [71.0, 71.0, 82.0], "visit": ["baseline", "month_1", "baseline"], "on": days})
    visits["status"] = ["poor", "good", "good"]
    pyreadstat.write_sav(visits, str(tmp_path / "data" / "visits.sav"))
    people = pd.DataFrame({"n": [1.0, 2.0], "clinic_number": [7.0, 8.0], "clinic": ["north", "south"]})
    people = people.assign(
        arm=["Placebo", "Treatment"], seen=days[0], start=days[0], sex=["female", "male"], age=[46, 23]
    )
    pyreadstat.write_dta(people, str(tmp_path / "data" / "people.dta"))
    (tmp_path / "data" / "left.csv").write_text("person,why,day\n82,gone,20\n")
    plan, _ = take(workspace, tmp_path / "data")
    assert plan.counts["records accepted"] == 5
    accepted = workspace.read_events().frame(ReturnAccepted)
    own_rows = accepted[accepted["instrument"] == "respiratory_status"]
    assert own_rows["occurred_on"].dt.date.to_list() == days
    assert own_rows["participant_id"].to_list() == ["71", "71", "82"]


WIDE = """
format = "files"
posted_on = 1990-12-31

[waves]
a = "baseline"
b = "month_1"
c = "month_2"

[[files]]
name = "wide"
participant_id = "id"
site = "centre_1"

[[sheets]]
sheet = "screening"
columns = { screened_on = "day_a", consented_on = "day_a" }

[[sheets]]
sheet = "respiratory_status"
wide = { resp_status = "status_{wave}", collected_on = "day_{wave}" }
"""
WIDE_ROWS = "id,day_a,status_a,day_b,status_b\n1,1990-02-05,poor,1990-03-05,good\n2,1990-02-06,good,,\n"


def test_waves_in_the_names_of_columns_have_days_of_their_own(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, "respiratory", lambda path, text: WIDE if path == "import.toml" else text)
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "wide.csv"
    file.write_text(WIDE_ROWS.replace("day_b", "Day B"))
    take(workspace, tmp_path / "data")
    accepted = workspace.read_events().frame(ReturnAccepted)
    assert accepted[["participant_id", "wave"]].to_numpy().tolist() == [
        ["1", "baseline"], ["2", "baseline"], ["1", "month_1"],
    ]  # fmt: skip
    assert accepted["occurred_on"].iloc[-1] == pd.Timestamp("1990-03-05")
    file.write_text(WIDE_ROWS.replace("day_b", "seen"))
    faults = plan_import(workspace, tmp_path / "data", TODAY, BY).faults
    assert faults == ['wide.csv has no column "day_b", though others of that wave are there. Correct the map.']


# --- The map ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('month_4"', 'month_5"', '[waves] names "month_5", which is no wave of respiratory. Did you mean "month_4"?'),
        ('2 = "centre_2"', '2 = "centre_9"', '"centre_9" is no site of respiratory.'),
        ('sheet = "allocation"', 'sheet = "alocation"', 'there is no sheet "alocation". Did you mean "allocation"?'),
        ("resp_status =", "resp_state =", 'sheet respiratory_status has no column "resp_state".'),
        ('site_column = "centre"', "", "no file says where people were"),
        ('"subject"', '"patient name"', "It is not taken."),
        ("nominal_days", "nominal_day", "sheets 3 nominal_day is no word of a map."),
        ("posted_on = 1990-12-31", "", "posted_on is missing."),
        ('fixed = { allocated_on = "1990-01-01" }', "", "say where allocated_on comes from"),
        ('allocated_on = "1990-01-01"', 'allocated_on = "soon"', "fixed.allocated_on is no day"),
        ("[sites]", '[missing]\n1 = "bored"\n[sites]', '[missing] has "bored" for a code'),
        ("posted_on = 1990-12-31", 'posted_on = 1990-12-31\nposted_by = "me"', "posted_by is no word of a map."),
    ],
)
def test_faults_of_a_map_are_told_by_the_check(tmp_path: Path, old: str, new: str, told: str) -> None:
    workspace = make_workspace(tmp_path, "respiratory")
    own = workspace.settings.sites_config / "respiratory" / MAP
    own.write_text(own.read_text().replace(old, new))
    settings = workspace.settings
    faults = find_faults("respiratory", settings.sites_config, settings.instruments).faults
    assert any(told in fault and MAP in fault for fault in faults)
    with pytest.raises((DefinitionFaults, EntryFault)):
        load_import_map(workspace)


def test_a_day_in_the_future_and_two_maps_of_one_sending_are_faults(tmp_path: Path) -> None:
    def edit(text: str) -> str:
        return text.replace("posted_on = 1990", "posted_on = 2090")

    workspace, plan = plan_of(tmp_path, lines(*ROWS), edit)
    assert "sources/import.toml, posted_on 2090-12-31" in plan.faults[0]
    own = workspace.settings.sites_config / "respiratory" / MAP
    own.with_name("again.toml").write_text(own.read_text())
    settings = workspace.settings
    (fault,) = find_faults("respiratory", settings.sites_config, settings.instruments).faults
    assert "has the same posted_on and sending_number" in fault
    with pytest.raises(EntryFault, match="Name one with --map: again, import"):
        load_import_map(workspace)


def test_a_day_that_no_file_holds_must_be_a_declared_assumption(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, "respiratory")
    own = workspace.settings.sites_config / "respiratory" / "study.toml"
    own.write_text(own.read_text().replace('id = "collected_on"', 'id = "another"'))
    settings = workspace.settings
    faults = find_faults("respiratory", settings.sites_config, settings.instruments).faults
    assert any("no file holds collected_on, so the protocol must declare it" in fault for fault in faults)


def test_a_proposed_map_lists_the_columns_and_guesses(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, "respiratory")
    write_trial("respiratory", tmp_path / "data")
    text = propose_import_map(workspace, tmp_path / "data")
    assert 'participant_id = "subject"' in text
    assert 'site_column = "centre"' in text
    assert '"placebo" = "placebo"' in text
    assert '"4" = ""' in text
    with pytest.raises(EntryFault, match="has no file that can be read"):
        propose_import_map(workspace, tmp_path / "nowhere")


def test_many_people_are_taken_in_one_go(tmp_path: Path) -> None:
    """Two thousand people at two sites and five waves; `benchmarks/` has more."""
    n = 900
    people = np.repeat(np.arange(1, n + 1), 5)
    frame = pd.DataFrame(
        {
            "subject": people, "centre": people % 2 + 1, "treatment": np.where(people % 3, "placebo", "treatment"),
            "sex": "male", "age": 20 + people % 50, "status": np.where(people % 7, "good", "poor"),
            "month": np.tile(np.arange(5), n),
        }
    )  # fmt: skip
    workspace, plan = plan_of(tmp_path, frame.to_csv(index=False))
    assert plan.faults == []
    assert plan.counts["records accepted"] == n * 6
    _, n_rows = take(workspace, tmp_path / "data")
    assert n_rows > n * 9
