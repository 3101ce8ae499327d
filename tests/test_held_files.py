"""Files that may tell who a person is: held, told of, reviewed, released or erased; and what was in them is nowhere."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import openpyxl
import pytest
from cryptography.fernet import Fernet
from openpyxl.comments import Comment
from openpyxl.workbook import Workbook
from typer.testing import CliRunner

from desk.command_line import app, find_wording_faults
from study.events import DataErased, FileHeld, HeldFileDecided, QueryClosed, QueryRaised, ReturnFileProcessed
from study.held_files import derive_held_files, describe_finding
from study.state import derive_queries
from study.work_list import derive_work_list
from tasks.files import AreaUnavailable, FileMissing, S3Area, connect_s3
from tasks.quarantine import (
    HeldFileRefused,
    QuarantineUnusable,
    erase_held_file,
    find_key_faults,
    make_key,
    read_held_file,
    record_decision,
    remove_decided_copies,
)
from tasks.returns import receive_released_file, receive_site_returns, remove_leftovers
from tasks.settings import PROJECT, read_settings
from tests.approval_histories import tell
from tests.chasing_studies import chased, make_study
from tests.services import S3Server
from tests.test_bad_input import ANN, BEN, SITE, TODAY, Post, mmse, open_post, read_ledger, set_cell
from tests.test_digests import KEY as CHASE
from tests.test_digests import OUT, plan

KEY = make_key()
NHS, PERSON = "943 476 5919", "Philippa Featherstone"
MAIL, PHONE, CODE = "p.featherstone@example.org", "07700 900123", "LU1 2AB"
VALUES = (NHS, "9434765919", PERSON, "Philippa", "Featherstone", MAIL, "p.featherstone", PHONE, "900123", CODE)
DECIDED = {"reason": "identifying", "role": "data_manager", "reference": "IG-7", "requested_by": "Mary"}
RELEASED = {**DECIDED, "reason": "not_identifying"}


def make_config(folder: Path, keep: str) -> Path:
    """The studies' own files, with what the trial keeps of held files."""
    config = folder / "sites_config"
    shutil.copytree(PROJECT / "sites_config", config)
    with (config / "cdisc_pilot" / "fieldwork.toml").open("a", encoding="utf-8") as file:
        file.write(f'\n[[held_files]]\nkeep = "{keep}"\nsource = "Agreed with the sponsor."\n')
    return config


def open_own_post(folder: Path, keep: str, **settings: object) -> Post:
    settings = {"sites_config": make_config(folder, keep), "quarantine_key": KEY} | settings
    return open_post(folder / "out", **settings)


@pytest.fixture(params=["encrypted", "nothing"])
def any_keep(request: pytest.FixtureRequest, tmp_path: Path) -> Post:
    post = open_own_post(tmp_path, request.param)
    post.begin()
    return post


@pytest.fixture
def post(tmp_path: Path) -> Post:
    post = open_own_post(tmp_path, "encrypted")
    post.begin()
    return post


def hold_one(post: Post, **about: object) -> bytes:
    """A workbook with somebody's name where a remark could stand, received: one held file."""
    data = post.make({"mmse": mmse(ANN)}, change=set_cell("MMSE", "P3", PERSON), **about)
    counts = post.receive(data)
    assert (counts["files held"], counts["files quarantined"], counts["records accepted"]) == (1, 1, 0)
    return data


def list_copies(post: Post) -> list[str]:
    return [stored.key for stored in post.workspace.area.list("held/")]


def find_traces(folder: Path, values: tuple[str, ...] = VALUES) -> list[str]:
    """Files below a folder, and parts of those that are zips, whose name or content holds one of the values."""

    def unpack(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
        yield name, data
        if data[:2] == b"PK":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                for part in archive.namelist():
                    yield f"{name}: {part}", archive.read(part)

    found = []
    for file in sorted(folder.rglob("*")):
        for name, data in unpack(str(file.relative_to(folder)), file.read_bytes() if file.is_file() else b""):
            forms = [form for value in values for form in (value.encode(), value.encode("utf-16-le"))]
            if any(form in data for form in forms) or any(value in name for value in values):
                found.append(name)
    return found


# What becomes of a file -----------------------------------------------------------------------------------------------


def test_a_held_file_is_not_read_and_the_site_is_told_where(any_keep: Post) -> None:
    hold_one(any_keep)
    assert any_keep.list_inbox() == []
    receipt = any_keep.receipt
    assert [(row["Sheet"], row["Cell"]) for row in receipt.rows] == [("MMSE", "P3")]
    assert receipt.says("may tell who a person is")
    assert receipt.says("What was found: a name.")
    assert receipt.says("We found this at 1 place;")
    kept = any_keep.workspace.study.fieldwork.keeps_held_files
    assert receipt.says("encrypted copy") is kept
    assert receipt.says("kept no copy") is not kept
    assert len(list_copies(any_keep)) == kept
    [held] = derive_held_files(any_keep.workspace.read_events()).to_dict("records")
    assert (held["held_id"], held["identifiers"], held["places"]) == ("702-F0001", "name", "mmse P3 cell name")
    assert (held["return_id"], held["state"]) == ("702-2013-03-01-1", "waiting")
    assert held["query_id"] == receipt.rows[0]["Query"]
    assert find_traces(any_keep.workspace.folder) == []
    assert not [value for value in VALUES if value in read_ledger(any_keep.workspace)]


def comment(book: Workbook) -> None:
    book["MMSE"]["A4"].comment = Comment(f"ring {PHONE}", "Ward clerk")


def hide(book: Workbook) -> None:
    book.create_sheet("Old")["B2"] = NHS
    book["Old"].sheet_state = "veryHidden"


CHANGES: list[tuple[str, Callable[[Workbook], object] | None, str]] = [
    ("return.xlsx", comment, "mmse A4 comment telephone"),
    ("return.xlsx", hide, "sheet_3 B2 cell nhs_number"),
    ("return.xlsx", lambda book: setattr(book.properties, "title", PERSON), "document_property name"),
    ("return.xlsx", lambda book: book.create_sheet(PERSON), "sheet_3 sheet_name name"),
    ("return.xlsx", set_cell("MMSE", "A4", int(NHS.replace(" ", ""))), "mmse A4 cell nhs_number"),
    (f"{PERSON}.xlsx", None, "file_name name"),
    (f"{CODE} return.xlsx", None, "file_name postcode"),
]


@pytest.mark.parametrize(("name", "change", "place"), CHANGES)
def test_wherever_it_stands_nothing_of_it_is_kept(
    post: Post, caplog: pytest.LogCaptureFixture, name: str, change: Callable[[Workbook], object] | None, place: str
) -> None:
    post.put(post.make({"mmse": mmse(ANN)}, change=change), name)
    with caplog.at_level("DEBUG"):
        receive_site_returns(post.workspace, SITE, TODAY, "Mary")
    [held] = derive_held_files(post.workspace.read_events()).to_dict("records")
    assert held["places"] == place
    assert find_traces(post.workspace.folder) == []
    assert not [value for value in VALUES if value in caplog.text]
    assert len(list_copies(post)) == 1


def test_an_export_as_text_is_held_like_a_workbook(post: Post) -> None:
    post.put(f"study_id,first_name,dob\n1,Zharko,1983-09-23\n2,,\n3,,{CODE}\n".encode(), "export.csv")
    counts = receive_site_returns(post.workspace, SITE, TODAY, "Mary")
    assert counts["files held"] == 1
    assert [(row["Sheet"], row["Cell"]) for row in post.receipt.rows] == [("", "B2"), ("", "C2"), ("", "C4")]
    assert find_traces(post.workspace.folder, ("Zharko", "1983-09-23", CODE)) == []


def test_others_of_the_inbox_are_received_and_a_clean_sending_settles_the_query(post: Post) -> None:
    bad = post.make({"mmse": mmse(ANN)}, change=set_cell("MMSE", "P3", PERSON))
    post.put(bad, "a.xlsx")
    post.put(post.make({"mmse": mmse(BEN)}, sending_number=2), "b.xlsx")
    counts = receive_site_returns(post.workspace, SITE, TODAY, "Mary")
    assert (counts["files"], counts["files held"], counts["records accepted"]) == (2, 1, 1)
    assert post.count()["open"] == 1
    post.receive(post.make({"mmse": mmse(ANN)}))
    assert post.count() == {"accepted": 2, "refused": 0, "open": 0, "quarantined": 1}
    assert derive_queries(post.workspace.read_events())["close_reason"].tolist() == ["mended"]


def test_the_same_file_again_is_held_once(any_keep: Post) -> None:
    data = hold_one(any_keep)
    counts = any_keep.receive(data)
    assert (counts["files repeated"], counts["files held"]) == (1, 0)
    events = any_keep.workspace.read_events()
    assert (len(events.frame(FileHeld)), len(events.frame(ReturnFileProcessed)), len(events.frame(QueryRaised))) == (
        1,
        2,
        1,
    )
    assert find_traces(any_keep.workspace.folder) == []


def test_a_file_full_of_names_is_told_in_one_question(post: Post) -> None:
    def fill(book: Workbook) -> None:
        for row in range(3, 303):
            book["MMSE"][f"P{row}"] = PERSON

    post.receive(post.make({"mmse": mmse(ANN)}, change=fill))
    assert len(post.receipt.rows) == 200
    assert post.receipt.says("We found this at 300 places;")
    assert len({row["Query"] for row in post.receipt.rows}) == 1
    [held] = derive_held_files(post.workspace.read_events()).to_dict("records")
    assert (held["n_places"], len(held["places"].split(";"))) == (300, 200)


# Encrypted ------------------------------------------------------------------------------------------------------------


def test_only_the_key_opens_the_copy(post: Post, tmp_path: Path) -> None:
    data = hold_one(post)
    [held] = derive_held_files(post.workspace.read_events()).to_dict("records")
    assert read_held_file(post.workspace, SITE, held["sha256"]) == data
    stored = post.workspace.area.get(list_copies(post)[0])
    assert Fernet(KEY).decrypt(stored) == data
    assert KEY not in read_ledger(post.workspace)
    assert find_traces(post.workspace.folder, (KEY,)) == []
    other = open_post(tmp_path / "out", sites_config=tmp_path / "sites_config", quarantine_key=make_key()).workspace
    with pytest.raises(QuarantineUnusable, match="encrypted with another key, or altered"):
        read_held_file(other, SITE, held["sha256"])
    both = open_post(tmp_path / "out", sites_config=tmp_path / "sites_config", quarantine_key=f"{make_key()},{KEY}")
    assert read_held_file(both.workspace, SITE, held["sha256"]) == data
    post.workspace.area.put(list_copies(post)[0], stored[:-9] + b"x" + stored[-8:])
    with pytest.raises(QuarantineUnusable):
        read_held_file(post.workspace, SITE, held["sha256"])


@pytest.mark.parametrize(("key", "words"), [("", "it is not set"), ("secret", "it is no key")])
def test_without_a_key_nothing_is_received_and_nothing_is_kept(tmp_path: Path, key: str, words: str) -> None:
    post = open_own_post(tmp_path, "encrypted", quarantine_key=key)
    post.begin()
    [fault] = find_key_faults(post.workspace.study, post.workspace.settings)
    assert words in fault
    assert "secret" not in fault
    with pytest.raises(AreaUnavailable, match=words):
        post.receive(post.make({"mmse": mmse(ANN)}, change=set_cell("MMSE", "P3", PERSON)))
    assert post.list_inbox() == ["inbox/return 0.xlsx"]
    assert (list_copies(post), len(post.workspace.read_events().frame(FileHeld))) == ([], 0)
    post.workspace.settings = post.workspace.settings.model_copy(
        update={"quarantine_key": open_post(tmp_path / "x", quarantine_key=KEY).workspace.settings.quarantine_key}
    )
    assert receive_site_returns(post.workspace, SITE, TODAY, "Mary")["files held"] == 1
    assert post.list_inbox() == []


def test_a_study_that_keeps_nothing_needs_no_key(tmp_path: Path) -> None:
    post = open_own_post(tmp_path, "nothing", quarantine_key="")
    assert find_key_faults(post.workspace.study, post.workspace.settings) == []
    post.begin()
    hold_one(post)


# Decided --------------------------------------------------------------------------------------------------------------


def test_a_released_file_is_received_and_its_copy_goes(post: Post) -> None:
    data = hold_one(post)
    assert record_decision(post.workspace, "702-F0001", "released", **RELEASED)
    decision = receive_released_file(post.workspace, "702-F0001", TODAY, "Mary")
    assert decision is not None
    assert decision.n_accepted == 1
    assert post.count() == {"accepted": 1, "refused": 0, "open": 0, "quarantined": 0}
    assert list_copies(post) == []
    events = post.workspace.read_events()
    [told] = events.frame(HeldFileDecided).to_dict("records")
    assert (told["decision"], told["reason"], told["role"], told["requested_by"]) == (
        "released", "not_identifying", "data_manager", "Mary",
    )  # fmt: skip
    assert events.frame(QueryClosed)["reason"].tolist() == ["withdrawn"]
    assert post.workspace.content.get(decision.facts.sha256) == data
    assert not record_decision(post.workspace, "702-F0001", "released", **RELEASED)
    assert receive_released_file(post.workspace, "702-F0001", TODAY, "Mary") is None
    assert post.receive(data)["files repeated"] == 1
    assert len(post.workspace.read_events().frame(FileHeld)) == 1
    assert post.workspace.ledger.verify().is_clean


def test_a_file_of_which_nothing_was_kept_is_taken_when_it_comes_again(tmp_path: Path) -> None:
    post = open_own_post(tmp_path, "nothing")
    post.begin()
    data = hold_one(post)
    assert record_decision(post.workspace, "702-F0001", "released", **RELEASED)
    assert receive_released_file(post.workspace, "702-F0001", TODAY, "Mary") is None
    post.workspace.snapshot = None
    counts = post.receive(data)
    assert (counts["files held"], counts["records accepted"]) == (0, 1)
    other = post.make({"mmse": mmse(BEN)}, change=set_cell("MMSE", "P3", PERSON), sending_number=2)
    assert post.receive(other)["files held"] == 1  # another file is looked at anew


def test_an_erased_file_is_gone_with_a_tombstone_and_still_owed(post: Post) -> None:
    data = hold_one(post)
    decided = erase_held_file(post.workspace, "702-F0001", **DECIDED)
    assert (decided.is_new, decided.n_deleted, list_copies(post)) == (True, 1, [])
    events = post.workspace.read_events()
    [tombstone] = events.frame(DataErased).to_dict("records")
    assert (tombstone["reason"], tombstone["role"], tombstone["reference"]) == (
        "identifier_leak",
        "data_manager",
        "IG-7",
    )
    assert derive_queries(events)["status"].tolist() == ["open"]
    with pytest.raises(HeldFileRefused, match="702-F0001 was erased on 01 Mar 2013: that stands"):
        record_decision(post.workspace, "702-F0001", "released", **RELEASED)
    with pytest.raises(FileMissing):
        read_held_file(post.workspace, SITE, str(tombstone["sha256"]))
    assert post.receive(data)["files repeated"] == 1
    assert list_copies(post) == []
    assert post.receive(post.make({"mmse": mmse(ANN)}))["records accepted"] == 1
    assert post.count()["open"] == 0


def test_a_killed_run_is_finished_and_what_waits_stays(post: Post) -> None:
    hold_one(post)
    hold_one(post, sending_number=2)
    record_decision(post.workspace, "702-F0001", "erased", **DECIDED)  # killed before the copy went
    post.workspace.area.put("held/702/" + "0" * 64 + ".encrypted", b"kept, and killed before it was recorded")
    assert remove_leftovers(post.workspace) == 2
    [copy] = list_copies(post)
    [waiting] = [
        row for row in derive_held_files(post.workspace.read_events()).to_dict("records") if row["state"] == "waiting"
    ]
    assert waiting["sha256"] in copy
    assert erase_held_file(post.workspace, "702-F0001", **DECIDED).is_new is False
    record_decision(post.workspace, "702-F0002", "released", **RELEASED)  # killed before it was received
    assert remove_decided_copies(post.workspace) == 0
    assert receive_released_file(post.workspace, "702-F0002", TODAY, "Mary") is not None
    assert list_copies(post) == []


def test_in_a_bucket_that_keeps_versions_no_version_stays(
    tmp_path: Path, s3_server: S3Server, fresh_bucket: str
) -> None:
    keys = {
        "endpoint_url": s3_server.endpoint_url,
        "access_key": s3_server.access_key,
        "secret_key": s3_server.secret_key,
    }
    client = connect_s3(**keys)
    client.put_bucket_versioning(Bucket=fresh_bucket, VersioningConfiguration={"Status": "Enabled"})
    post = open_own_post(
        tmp_path, "encrypted", files=f"s3://{fresh_bucket}/x", s3_endpoint=keys["endpoint_url"],
        s3_access_key=keys["access_key"], s3_secret_key=keys["secret_key"],
    )  # fmt: skip
    assert isinstance(post.workspace.area, S3Area)
    post.begin()
    hold_one(post)
    [copy] = list_copies(post)
    post.workspace.area.put(copy, post.workspace.area.get(copy))  # a second version of it
    assert erase_held_file(post.workspace, "702-F0001", **DECIDED).n_deleted == 1
    left = client.list_object_versions(Bucket=fresh_bucket, Prefix="x/cdisc_pilot/held/")
    assert left.get("Versions", []) == left.get("DeleteMarkers", []) == []


# By command -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Commands on a study of their own with one held file; each gives what it says."""
    monkeypatch.setenv("SUMMATIVE_DATA_FOLDER", str(tmp_path / "out"))
    monkeypatch.setenv("SUMMATIVE_SITES_CONFIG", str(make_config(tmp_path, "encrypted")))
    monkeypatch.setenv("SUMMATIVE_QUARANTINE_KEY", KEY)
    read_settings.cache_clear()
    post = open_post(tmp_path / "out", sites_config=tmp_path / "sites_config", quarantine_key=KEY)
    post.begin()
    hold_one(post)

    def run(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["held-files", *words])
        assert result.exit_code == code, result.output
        return " ".join(result.output.split())

    yield run
    read_settings.cache_clear()


def test_a_person_looks_and_releases(desk: Callable[..., str]) -> None:
    listed = desk("list", "cdisc_pilot")
    assert "702-F0001" in listed
    assert "1 held file." in listed
    shown = desk("show", "cdisc_pilot", "702-F0001")
    assert "702-F0001, from 702, held on 2013-03-01: waiting." in shown
    assert "mmse" in shown
    assert "P3" in shown
    assert "a name" in shown
    by = ("--by", "Mary", "--role", "data_manager")
    told = desk("release", "cdisc_pilot", "702-F0001", "not_identifying", *by, "--reference", "IG-9")
    assert "702-F0001 is released and received: 1 records accepted, 0 entries of logs, 0 faults." in told
    assert "was released before; nothing was changed." in desk(
        "release", "cdisc_pilot", "702-F0001", "not_identifying", *by
    )
    assert "by Mary (data_manager, IG-9): not identifying." in desk("show", "cdisc_pilot", "702-F0001")
    assert "0 held files." in desk("list", "cdisc_pilot")
    assert "released" in desk("list", "cdisc_pilot", "--all")


def test_a_person_erases(desk: Callable[..., str]) -> None:
    told = desk("erase", "cdisc_pilot", "702-F0001", "identifying", "--by", "Mary", "--role", "data_manager")
    assert told == "702-F0001 is erased. Copies deleted: 1."
    again = desk("erase", "cdisc_pilot", "702-F0001", "identifying", "--by", "Mary", "--role", "data_manager")
    assert again == "702-F0001 is erased already, and nothing was changed. Copies deleted: 0."


def test_what_a_person_gets_wrong(desk: Callable[..., str]) -> None:
    by = ("--by", "Mary", "--role", "data_manager")
    assert "free text" in desk("erase", "cdisc_pilot", "702-F0001", "identifying", "--by", "May", "--role", "?", code=2)
    desk("erase", "cdisc_pilot", "702-F0001", "because", *by, code=2)
    result = CliRunner().invoke(app, ["held-files", "show", "cdisc_pilot", "702-F0009"])
    assert isinstance(result.exception, HeldFileRefused)
    assert "cdisc_pilot has no held file 702-F0009" in str(result.exception)


def test_check_asks_for_the_key(desk: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_wording_faults("cdisc_pilot") == []
    monkeypatch.delenv("SUMMATIVE_QUARANTINE_KEY")
    read_settings.cache_clear()
    [fault] = find_wording_faults("cdisc_pilot")
    assert fault.startswith("SUMMATIVE_QUARANTINE_KEY: it is not set, and this study keeps held files encrypted.")
    Fernet(desk("new-key"))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("sheet_4 B7 comment name", ("sheet 4", "B7", "a name, in a comment")),
        ("mmse P3 cell nhs_number", ("mmse", "P3", "an NHS number")),
        ("file_name email", ("the file", "", "an e-mail address, in the name of the file")),
        ("sheet_3 sheet_name name", ("sheet 3", "", "a name, in the name of the sheet")),
        ("B2 cell birth_date", ("the file", "B2", "a date of birth")),
    ],
)
def test_places_in_words(code: str, words: tuple[str, str, str]) -> None:
    assert describe_finding(code) == words


# Told in the next digest ----------------------------------------------------------------------------------------------


def hold(held_id: str, on: str, n_places: int = 2) -> FileHeld:
    places = tuple(f"sheet_4 B{row} cell name" for row in range(7, 7 + min(n_places, 200)))
    return FileHeld(
        occurred_on=on, requested_by="A. Coordinator", site_id="luton", held_id=held_id, size_bytes=9, kept="nothing",
        sha256=f"{held_id[-1]}" * 64, return_id="luton-2017-08-17-1", identifiers=("name",), places=places,
        n_places=n_places, query_id="LUT-0007",
    )  # fmt: skip


def test_the_site_is_told_once_where_and_never_what() -> None:
    told = [*OUT, *chased(CHASE + ":late", on="2017-08-17"), hold("luton-F0001", "2017-08-18")]
    [draft] = [draft for draft in plan("2017-08-18", *told).drafts if draft.person.person_id == "rosa"]
    [part] = [part for part in draft.sections if part.template == "file_held"]
    assert part.rows == tuple(("LUT-0007", "luton-2017-08-17-1", "sheet 4", cell, "a name") for cell in ("B7", "B8"))
    assert "chase:file_held:luton-F0001" in [chase.chase for chase in draft.chases]
    once = [*told, *chased("chase:file_held:luton-F0001", on="2017-08-18")]
    assert not [
        draft for draft in plan("2017-08-21", *once).drafts for part in draft.sections if "held" in part.template
    ]


def test_many_places_end_in_the_receipt_and_a_decided_file_is_told_to_nobody() -> None:
    many = [*OUT, hold("luton-F0001", "2017-08-18", 40)]
    [part] = [
        part for draft in plan("2017-08-18", *many).drafts for part in draft.sections if part.template == "file_held"
    ]
    assert (len(part.rows), part.rows[-1][2:]) == (11, ("and more", "", "see the receipt"))
    decided = HeldFileDecided(
        occurred_on="2017-08-18", requested_by="A. Coordinator", site_id="luton", held_id="luton-F0001",
        decision="erased", reason="identifying", role="data_manager",
    )  # fmt: skip
    drafts = plan("2017-08-18", *many, decided).drafts
    assert not [part for draft in drafts for part in draft.sections if part.template == "file_held"]


def test_the_coordinator_has_it_on_the_list() -> None:
    [work] = derive_work_list(make_study(), tell(hold("luton-F0001", "2017-08-18")), date(2017, 8, 21))
    assert (work.kind, work.site_id, work.since) == ("file_held", "luton", date(2017, 8, 18))
    assert work.text == "File luton-F0001 was not read: it may hold a name"
    assert "summative held-files show trial luton-F0001" in work.action


# The whole way --------------------------------------------------------------------------------------------------------


def test_a_run_leaves_nothing_in_prefect_the_log_the_ledger_or_any_file(tmp_path: Path) -> None:
    """`summative receive` in a process of its own, with Prefect's database in the study's folder. The names of people
    are in six files: in a comment, a hidden sheet, a property, a name of a sheet, a name of a file and a text file."""
    post = open_own_post(tmp_path, "encrypted")
    post.begin()
    files = [(name, post.make({"mmse": mmse(ANN)}, change=change)) for name, change, _ in CHANGES]
    files += [("export.csv", f"note\n{PERSON}\n{MAIL}\n".encode())]
    for number, (name, data) in enumerate(files):
        post.put(data, name if name != "return.xlsx" else f"{number}.xlsx")
    post.put(post.make({"mmse": mmse(BEN)}, sending_number=9), "clean.xlsx")
    assert len(find_traces(tmp_path / "out")) >= len(files)
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "SUMMATIVE_"))}
    environment = own | {
        "SUMMATIVE_DATA_FOLDER": str(tmp_path / "out"),
        "SUMMATIVE_SITES_CONFIG": str(tmp_path / "sites_config"),
        "SUMMATIVE_QUARANTINE_KEY": KEY,
        "SUMMATIVE_SETTLE_SECONDS": "0",
        "PREFECT_LOGGING_LEVEL": "DEBUG",
    }
    command = "from desk.command_line import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command, "receive", "cdisc_pilot", "--by", "Mary"],
        cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    n_held = len({data for _, data in files})
    assert f"files held {n_held}" in said
    assert not [value for value in VALUES if value in said]
    prefect = tmp_path / "out" / "prefect"
    assert (prefect / "prefect.db").stat().st_size > 0
    assert find_traces(tmp_path / "out") == []
    assert len(list_copies(post)) == n_held
    held = derive_held_files(post.workspace.read_events())
    assert set(held["kept"]) == {"encrypted"}
    assert set(held["held_on"].dt.date) == {date.today()}  # noqa: DTZ011 (the command's own day)
    for file in (tmp_path / "out" / "cdisc_pilot" / "sites" / SITE / "receipts").glob("*.xlsx"):
        openpyxl.load_workbook(file).close()
