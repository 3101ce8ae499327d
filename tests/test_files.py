"""Files: a folder and an S3 bucket behave alike, lose nothing, and say plainly what is wrong."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import pickle
import random
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws

import tasks.files
from tasks.files import (
    AreaUnavailable,
    Content,
    ContentDamaged,
    ContentStore,
    DropBox,
    FileArea,
    FileMissing,
    FileTooLarge,
    FolderArea,
    KeyRefused,
    ReleaseDiffers,
    S3Area,
    connect_s3,
    find_releases,
    hash_file,
    open_area,
    parse_key,
    point_latest,
    publish_folder,
    safe_name,
)
from tests.services import S3Server, find_free_ports

NOW = datetime.now(UTC)
LATER = NOW + timedelta(hours=1)  # everything written by a test has settled by then
SMALL_RELEASE = {"manifest.json": b"{}", "data/scores.csv": b"a,b\n", "report.html": b"<p>"}


def make_zip(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names or ("one.txt",):
            archive.writestr(zipfile.ZipInfo(name), random.Random(name).randbytes(200))
    return buffer.getvalue()


def compute_sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def find_keys(area: FileArea, prefix: str = "") -> list[str]:
    return [stored.key for stored in area.list(prefix)]


def run_together(n: int, work: Callable[[int], object]) -> list[object]:
    """Start n threads at one moment; what each returned or raised."""
    gate = threading.Barrier(n)

    def one(number: int) -> object:
        gate.wait(timeout=20)
        try:
            return work(number)
        except Exception as fault:
            return fault

    with ThreadPoolExecutor(n) as threads:
        return list(threads.map(one, range(n)))


# ---------------------------------------------------------------- both stores


def test_a_file_comes_back_as_it_was_put(file_area: FileArea) -> None:
    every_byte = bytes(range(256)) * 5
    assert file_area.put("a/b c/é.bin", every_byte)
    assert file_area.get("a/b c/é.bin") == every_byte
    assert b"".join(file_area.read_chunks("a/b c/é.bin")) == every_byte
    assert file_area.read_end("a/b c/é.bin", 3) == every_byte[-3:]
    assert file_area.read_end("a/b c/é.bin", 10_000) == every_byte
    stored = file_area.describe("a/b c/é.bin")
    assert (stored.key, stored.size) == ("a/b c/é.bin", len(every_byte))
    assert abs(stored.modified_at - datetime.now(UTC)) < timedelta(minutes=2)


def test_an_empty_file_is_a_file(file_area: FileArea) -> None:
    file_area.put("empty", b"")
    assert file_area.has("empty")
    assert file_area.get("empty") == b""
    assert file_area.read_end("empty", 10) == b""


def test_putting_again_replaces(file_area: FileArea) -> None:
    file_area.put("k", b"long first content")
    assert file_area.put("k", b"2")
    assert file_area.get("k") == b"2"
    assert find_keys(file_area) == ["k"]


def test_if_absent_leaves_what_is_there(file_area: FileArea) -> None:
    assert file_area.put("k", b"1", if_absent=True)
    assert not file_area.put("k", b"2", if_absent=True)
    assert file_area.get("k") == b"1"
    assert find_keys(file_area) == ["k"]


@pytest.mark.parametrize("round_number", range(3))
def test_one_of_twenty_writers_wins(file_area: FileArea, round_number: int) -> None:
    answers = run_together(20, lambda n: file_area.put("claim", b"%d" % n, if_absent=True))
    assert sorted(map(str, answers)) == ["False"] * 19 + ["True"]
    assert file_area.get("claim") == b"%d" % answers.index(True)
    assert find_keys(file_area) == ["claim"]


def test_what_is_missing_is_said_to_be(file_area: FileArea) -> None:
    file_area.put("there/is/one", b"x")
    for key in ("nothing", "there/is/two", "there/is"):
        assert not file_area.has(key)
        for read in (file_area.get, file_area.describe, lambda key: list(file_area.read_chunks(key))):
            with pytest.raises(FileMissing, match="there is no such file") as caught:
                read(key)
            assert file_area.place in str(caught.value)


def test_delete_is_no_fault_when_there_is_none(file_area: FileArea) -> None:
    file_area.put("k", b"1")
    file_area.delete("k")
    file_area.delete("k")
    file_area.delete("no/folder/either")
    assert not file_area.has("k")


def test_delete_if_spares_what_was_replaced(file_area: FileArea) -> None:
    file_area.put("k", b"new")
    assert not file_area.delete_if("k", compute_sha256(b"old"))
    assert file_area.get("k") == b"new"
    assert file_area.delete_if("k", compute_sha256(b"new"))
    assert not file_area.has("k")
    assert not file_area.delete_if("k", compute_sha256(b"new"))


def test_move(file_area: FileArea) -> None:
    file_area.put("from/a", b"1")
    file_area.move("from/a", "to/b")
    assert find_keys(file_area) == ["to/b"]
    with pytest.raises(FileMissing):
        file_area.move("from/a", "to/c")
    with pytest.raises(KeyRefused):
        file_area.move("to/b", "../b")


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", ["a", "b/1", "b/2", "b/c/3", "bc/4", "é/5"]),
        ("b", ["b/1", "b/2", "b/c/3", "bc/4"]),
        ("b/", ["b/1", "b/2", "b/c/3"]),
        ("b/c", ["b/c/3"]),
        ("b/c/", ["b/c/3"]),
        ("é/", ["é/5"]),
        ("nothing/", []),
        ("a/", []),
    ],
)
def test_list_by_prefix(file_area: FileArea, prefix: str, expected: list[str]) -> None:
    for key in ("b/c/3", "a", "bc/4", "b/2", "b/1", "é/5"):
        file_area.put(key, b"x")
    assert find_keys(file_area, prefix) == expected


def test_list_goes_on_after_the_first_thousand(file_area: FileArea) -> None:
    keys = [f"many/{n:04d}" for n in range(1003)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda key: file_area.put(key, b""), keys))
    assert find_keys(file_area, "many/") == keys


def test_below_is_the_same_place(file_area: FileArea) -> None:
    below = file_area.below("sites").below("lut")
    below.put("inbox/a", b"1")
    assert file_area.get("sites/lut/inbox/a") == b"1"
    assert find_keys(below) == ["inbox/a"]
    assert below.place.startswith(file_area.place)
    with pytest.raises(KeyRefused):
        file_area.below("..")


BAD_KEYS = [
    "", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a\\b", "C:\\a", "c:a", "a\nb", "a\rb", "a\tb",
    "a\0b", "a\x7fb", "a\u202eb", "a\u2028b", "a\ud800b", "e\u0301", "a?b", "a*b", 'a"b', "a<b", "a|b", " a", "a ",
    "a.", "a/b. /c", "CON", "con.txt", "a/lpt1.csv", "x" * 256, "é" * 128, "a/" * 450 + "a",
    ".summative-0123456789abcdef",
]  # fmt: skip


@pytest.mark.parametrize("key", BAD_KEYS, ids=lambda key: ascii(key)[:24])
def test_bad_keys_are_refused_for_writing(file_area: FileArea, key: str) -> None:
    with pytest.raises(KeyRefused) as caught:
        file_area.put(key, b"x")
    assert str(caught.value).isprintable()
    assert file_area.list("") == []


@given(st.text(max_size=300))
def test_a_safe_name_is_a_key_and_stays_the_same(name: str) -> None:
    shown = safe_name(name)
    assert parse_key(shown) == shown
    assert "/" not in shown
    assert 1 <= len(shown) <= 100
    assert shown.isprintable() or any(c.isspace() for c in shown) or not name.isprintable()
    assert shown[0] not in "-=+@~"
    assert safe_name(shown) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("return 3.xlsx", "return 3.xlsx"),
        ("Rücklauf_März.xlsx", "Rücklauf_März.xlsx"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("..\\evil.xlsx", "_evil.xlsx"),
        ("a\nb.xlsx", "a_b.xlsx"),
        ("-rf", "_rf"),
        ("=cmd()|x", "_cmd()_x"),
        ("\u202egnp.xlsx", "_gnp.xlsx"),
        ("NUL.xlsx", "_NUL.xlsx"),
        ("caf\udce9.xlsx", "caf_.xlsx"),
        ("", "unnamed"),
        (" . ", "unnamed"),
    ],
)
def test_safe_names(name: str, shown: str) -> None:
    assert safe_name(name) == shown


def test_a_long_name_keeps_its_ending() -> None:
    assert safe_name("x" * 300 + ".xlsx").endswith("x.xlsx")


def test_limit_refuses_without_reading(file_area: FileArea) -> None:
    file_area.put("big", b"x" * 8_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(FileTooLarge) as caught:
            file_area.get("big", limit_bytes=7_999_999)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
    assert (caught.value.size_bytes, caught.value.limit_bytes) == (8_000_000, 7_999_999)
    assert "8,000,000 bytes, more than the 7,999,999" in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert len(file_area.get("big", limit_bytes=8_000_000)) == 8_000_000


# ---------------------------------------------------------------- content by hash


def test_content_is_named_by_its_hash(file_area: FileArea) -> None:
    store = ContentStore(file_area)
    sha256 = store.put(b"abc")
    assert sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert find_keys(file_area) == [f"sha256/ba/{sha256}"]
    assert store.put(b"abc") == sha256
    assert store.has(sha256)
    assert store.get(sha256) == b"abc"
    assert not store.has("0" * 64)
    with pytest.raises(FileMissing):
        store.get("0" * 64)


@pytest.mark.parametrize("damage", [b"", b"abd", b"abc\0", b"ab"])
def test_damage_is_found_and_mended_by_putting_again(file_area: FileArea, damage: bytes) -> None:
    store = ContentStore(file_area)
    sha256 = store.put(b"abc")
    file_area.put(f"sha256/{sha256[:2]}/{sha256}", damage)
    with pytest.raises(ContentDamaged, match="no longer has the hash") as caught:
        store.get(sha256)
    assert sha256 in str(caught.value)
    assert store.put(b"abc") == sha256
    assert store.get(sha256) == b"abc"


@pytest.mark.parametrize("text", ["", "abc", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_only_a_hash_names_content(tmp_path: Path, text: str) -> None:
    with pytest.raises(KeyRefused, match="SHA-256"):
        ContentStore(FolderArea(tmp_path)).get(text)


def test_twenty_may_store_the_same_content(file_area: FileArea) -> None:
    store = ContentStore(file_area)
    answers = run_together(20, lambda n: store.put(b"same"))
    assert set(answers) == {compute_sha256(b"same")}
    assert store.get(compute_sha256(b"same")) == b"same"


# ---------------------------------------------------------------- drop-boxes


def test_a_posted_file_is_taken_stored_and_cleared(file_area: FileArea) -> None:
    box, data = DropBox(file_area, "lut"), make_zip()
    box.post("Rückgabe 3.xlsx", data)
    [found] = box.waiting(LATER)
    assert (found.name, found.safe_name, found.size) == ("Rückgabe 3.xlsx", "Rückgabe 3.xlsx", len(data))
    assert box.take(found.name) == data
    assert box.waiting(LATER) == [found], "taking alone loses nothing"
    assert box.clear(found.name, compute_sha256(data))
    assert box.waiting(LATER) == []


def test_a_file_replaced_after_taking_is_not_cleared(file_area: FileArea) -> None:
    box = DropBox(file_area, "lut")
    box.post("return.xlsx", b"first")
    taken = box.take("return.xlsx")
    box.post("return.xlsx", b"second")
    assert not box.clear("return.xlsx", compute_sha256(taken))
    assert box.take("return.xlsx") == b"second"


def test_sites_see_only_their_own_box(file_area: FileArea) -> None:
    lut, lutterworth = DropBox(file_area, "lut"), DropBox(file_area, "lutterworth")
    lut.post("a.xlsx", b"1")
    lutterworth.post("b.xlsx", b"2")
    assert [file.name for file in lut.waiting(LATER)] == ["a.xlsx"]
    lut.leave_receipt("a receipt.xlsx", b"r")
    lut.send("pack.xlsx", b"p")
    assert [file.name for file in lut.waiting(LATER)] == ["a.xlsx"]
    assert find_keys(file_area, "lut/") == ["lut/inbox/a.xlsx", "lut/outbox/pack.xlsx", "lut/receipts/a receipt.xlsx"]
    for site_id in ("..", "a/b", "", "a\nb"):
        with pytest.raises(KeyRefused):
            DropBox(file_area, site_id)


def test_prepare_shows_people_their_folders(tmp_path: Path) -> None:
    DropBox(FolderArea(tmp_path / "boxes"), "lut").prepare()
    assert sorted(path.name for path in (tmp_path / "boxes/lut").iterdir()) == ["inbox", "outbox", "receipts"]


def test_what_computers_drop_is_listed_as_ignored(file_area: FileArea) -> None:
    box = DropBox(file_area, "lut")
    ignored = ["Desktop.ini", ".DS_Store", "Thumbs.db", "._return.xlsx", "old/.DS_Store"]
    for name in [*ignored, "return.xlsx", "return", "~return.xlsx"]:
        box.post(name, b"x")
    file_area.put("lut/inbox/~$return.xlsx", b"x")
    found = box.look(LATER)
    assert [file.name for file in found.waiting] == ["return", "return.xlsx", "~return.xlsx"]
    assert sorted(file.name for file in found.ignored) == sorted([*ignored, "~$return.xlsx"])
    assert {file.remark for file in found.ignored} == {"made by a computer, not by a person"}
    assert found.unfinished == ()


def make_prefilled() -> bytes:
    """As a copy on Windows: the final size at once, the end still zeros."""
    data = make_zip()
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


@pytest.mark.parametrize(
    ("name", "data", "is_taken_at_once", "is_taken_later"),
    [
        pytest.param("a.xlsx", make_zip("x", "y"), True, True, id="complete"),
        pytest.param("a.xlsx", make_zip()[:-1], False, True, id="lacks the last byte"),
        pytest.param("a.xlsx", make_zip()[:100], False, True, id="half-way"),
        pytest.param("a.xlsx", make_prefilled(), False, True, id="filled with zeros"),
        pytest.param("a.xlsx", b"", False, True, id="empty"),
        pytest.param("a.csv", b"a,b\n1,2\n", False, True, id="not a zip"),
        pytest.param("a.xlsx.part", make_zip(), False, False, id="part"),
        pytest.param("a.xlsx.CRDOWNLOAD", make_zip(), False, False, id="download"),
        pytest.param("~WRL0001.tmp", make_zip(), False, False, id="tmp"),
        pytest.param("1A2B3C40", make_zip(), False, True, id="Excel saving"),
    ],
)
def test_a_file_still_being_written_is_left_alone(
    file_area: FileArea, name: str, data: bytes, is_taken_at_once: bool, is_taken_later: bool
) -> None:
    box = DropBox(file_area, "lut")
    file_area.put(f"lut/inbox/{name}", data)
    for now, is_taken in ((datetime.now(UTC), is_taken_at_once), (LATER, is_taken_later)):
        found = box.look(now, settle_seconds=60)
        assert [file.name for file in found.waiting] == [name] * is_taken
        assert [file.name for file in found.unfinished] == [name] * (not is_taken)
        assert all(file.remark for file in found.unfinished)


def test_a_zip_with_a_comment_is_complete(file_area: FileArea) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", b"b")
        archive.comment = b"PK\x05\x06" + b"c" * 5000
    file_area.put("lut/inbox/a.xlsx", buffer.getvalue())
    assert len(DropBox(file_area, "lut").waiting(datetime.now(UTC))) == 1


@pytest.mark.parametrize(
    ("seconds_ago", "is_taken"), [(59, False), (61, True), (-59, False), (-61, True), (86_400 * 400, True)]
)
def test_settling_boundaries(tmp_path: Path, seconds_ago: float, is_taken: bool) -> None:
    """A clock that is wrong by more than the settling time holds nothing back for ever."""
    box = DropBox(FolderArea(tmp_path), "lut")
    box.post("a.csv", b"x")
    os.utime(tmp_path / "lut/inbox/a.csv", (time.time(), NOW.timestamp() - seconds_ago))
    assert len(box.waiting(NOW, settle_seconds=60)) == is_taken


ODD_NAMES = [
    "a\nb.xlsx", "a\x1b[31m.xlsx", "-rf.xlsx", "=1+1.xlsx", "漢字 é.xlsx", "\u202exslx.exe", "a b+c%20&#.xlsx",
    "sub/a.xlsx", "x" * 240 + ".xlsx", "con.xlsx", "a?.xlsx", "trailing ",
]  # fmt: skip


@contextmanager
def open_raw(area: FileArea) -> Iterator[Callable[[str, bytes], None]]:
    """Write as an outside program would, past the checks of the area."""
    if isinstance(area, FolderArea):

        def write(key: str, data: bytes) -> None:
            path = Path(area.place, *key.split("/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    else:
        assert isinstance(area, S3Area)

        def write(key: str, data: bytes) -> None:
            area._client.put_object(Bucket=area._bucket, Key=f"{area._prefix}{key}", Body=data)

    yield write


def test_odd_names_from_outside_are_listed_taken_and_cleared(file_area: FileArea) -> None:
    box = DropBox(file_area, "lut")
    with open_raw(file_area) as write:
        for n, name in enumerate(ODD_NAMES):
            write(f"lut/inbox/{name}", b"content %d" % n)
    found = {file.name: file for file in box.waiting(LATER)}
    assert sorted(found) == sorted(ODD_NAMES)
    for n, name in enumerate(ODD_NAMES):
        shown = found[name].safe_name
        assert shown.isprintable()
        assert "/" not in shown
        assert box.take(name) == b"content %d" % n
        assert box.clear(name, compute_sha256(b"content %d" % n))
    assert box.waiting(LATER) == []


def test_undecodable_name_on_a_disk(tmp_path: Path) -> None:
    box = DropBox(FolderArea(tmp_path), "lut")
    box.prepare()
    name = os.fsdecode(b"caf\xe9.xlsx")
    try:
        (tmp_path / "lut/inbox" / name).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    [found] = box.waiting(LATER)
    assert found.safe_name == "caf_.xlsx"
    assert box.take(found.name) == b"x"
    assert box.clear(found.name, compute_sha256(b"x"))


def test_odd_keys_that_amazon_takes() -> None:
    """Steps that would lead elsewhere on a disk are plain text in a key."""
    with mock_aws():
        client = connect_s3(access_key="k", secret_key="s", region="us-east-1")
        client.create_bucket(Bucket="odd")
        area = S3Area("odd", "boxes", client)
        for key in ("lut/inbox/../../bed/inbox/a", "lut/inbox//b", "lut/inbox/./c", "lut/inbox/d\\e", "lut/inbox/f/"):
            client.put_object(Bucket="odd", Key=f"boxes/{key}", Body=key.encode())
        client.put_object(Bucket="odd", Key="boxes/lut/inbox/", Body=b"")
        box = DropBox(area, "lut")
        found = box.look(LATER)
        assert [file.name for file in found.waiting] == ["../../bed/inbox/a", "./c", "/b", "d\\e"]
        assert [file.name for file in found.ignored] == ["f/"]
        assert DropBox(area, "bed").waiting(LATER) == []
        for file in found.waiting:
            data = box.take(file.name)
            assert data == f"lut/inbox/{file.name}".encode()
            assert box.clear(file.name, compute_sha256(data))
            assert parse_key(file.safe_name)
        client.close()


@pytest.mark.parametrize("name", ["../../bed/inbox/a.xlsx", "..", "", "/etc/passwd", "a\0b", "sub/../../x"])
def test_a_name_cannot_lead_out_of_the_inbox(tmp_path: Path, name: str) -> None:
    area = FolderArea(tmp_path)
    DropBox(area, "bed").post("a.xlsx", b"secret")
    with pytest.raises((KeyRefused, FileMissing)):
        DropBox(area, "lut").take(name)
    with pytest.raises((KeyRefused, FileMissing)):
        DropBox(area, "lut").set_aside(name, "0" * 64)


def test_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    area = FolderArea(tmp_path / "area")
    box = DropBox(area, "lut")
    box.prepare()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.xlsx").write_bytes(b"secret")
    inbox = tmp_path / "area/lut/inbox"
    (inbox / "link.xlsx").symlink_to(outside / "secret.xlsx")
    (inbox / "broken").symlink_to("nowhere")
    (inbox / "folder").symlink_to(outside)
    os.mkfifo(inbox / "pipe.xlsx")
    found = box.look(LATER)
    assert found.waiting == ()
    assert [file.name for file in found.ignored] == ["broken", "folder", "link.xlsx", "pipe.xlsx"]
    for name in ("link.xlsx", "broken", "folder", "pipe.xlsx", "folder/secret.xlsx"):
        assert not area.has(f"lut/inbox/{name}")
        with pytest.raises(FileMissing):
            box.take(name)
    (tmp_path / "area/lut/receipts").rmdir()
    (tmp_path / "area/lut/receipts").symlink_to(outside)
    with pytest.raises(AreaUnavailable, match="link that leads out"):
        box.leave_receipt("r.xlsx", b"x")
    assert [path.name for path in outside.iterdir()] == ["secret.xlsx"]


def test_200_megabytes_are_refused_unread_and_can_be_set_aside(tmp_path: Path) -> None:
    area = FolderArea(tmp_path)
    box = DropBox(area, "lut")
    box.prepare()
    with (tmp_path / "lut/inbox/huge\n.xlsx").open("wb") as file:
        file.truncate(200_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(FileTooLarge, match="200,000,000 bytes, more than the 50,000,000") as caught:
            box.take("huge\n.xlsx")
        sha256 = box.compute_sha256("huge\n.xlsx")
        key = box.set_aside("huge\n.xlsx", sha256)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert sha256 == hashlib.sha256(bytes(200_000_000)).hexdigest()
    assert key == f"lut/set_aside/{sha256[:16]}-huge_.xlsx"
    assert box.waiting(LATER) == []
    assert area.describe(key).size == 200_000_000


def test_set_aside_on_both_stores(file_area: FileArea) -> None:
    box = DropBox(file_area, "lut")
    box.post("large.xlsx", b"0123456789")
    with pytest.raises(FileTooLarge):
        box.take("large.xlsx", limit_bytes=9)
    key = box.set_aside("large.xlsx", box.compute_sha256("large.xlsx"))
    assert file_area.get(key) == b"0123456789"
    assert box.waiting(LATER) == []


def test_a_date_beyond_all_calendars(tmp_path: Path) -> None:
    box = DropBox(FolderArea(tmp_path), "lut")
    box.post("a.csv", b"x")
    try:
        os.utime(tmp_path / "lut/inbox/a.csv", (0, 300_000_000_000))
    except OSError:
        pytest.skip("this file system has no such dates")
    assert [file.name for file in box.waiting(NOW)] == ["a.csv"]


# ---------------------------------------------------------------- releases


def test_a_release_is_published_once(file_area: FileArea) -> None:
    assert publish_folder(file_area, SMALL_RELEASE, "releases/r1") == "added"
    assert {key: file_area.get(f"releases/r1/{key}") for key in SMALL_RELEASE} == SMALL_RELEASE
    assert publish_folder(file_area, SMALL_RELEASE, "releases/r1") == "same"
    assert find_releases(file_area, "releases") == ["r1"]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({**SMALL_RELEASE, "data/scores.csv": b"a,c\n"}, "data/scores.csv"),
        ({**SMALL_RELEASE, "manifest.json": b"[]"}, "manifest.json"),
        ({**SMALL_RELEASE, "new.csv": b""}, "new.csv"),
        ({"manifest.json": b"{}", "report.html": b"<p>"}, "data/scores.csv"),
    ],
)
def test_a_release_is_never_changed(file_area: FileArea, other: dict[str, bytes], named: str) -> None:
    publish_folder(file_area, SMALL_RELEASE, "releases/r1")
    with pytest.raises(ReleaseDiffers, match="publish under another name") as caught:
        publish_folder(file_area, other, "releases/r1")
    assert named in str(caught.value)
    assert {key: file_area.get(f"releases/r1/{key}") for key in SMALL_RELEASE} == SMALL_RELEASE
    assert find_keys(file_area) == sorted(f"releases/r1/{key}" for key in SMALL_RELEASE)


def test_what_a_finder_window_leaves_makes_no_difference(file_area: FileArea) -> None:
    publish_folder(file_area, SMALL_RELEASE, "releases/r1")
    file_area.put("releases/r1/.DS_Store", b"x")
    assert publish_folder(file_area, SMALL_RELEASE, "releases/r1") == "same"


@pytest.mark.parametrize("round_number", range(3))
def test_publishing_at_once_adds_once(file_area: FileArea, round_number: int) -> None:
    answers = run_together(8, lambda n: publish_folder(file_area, SMALL_RELEASE, "releases/r1"))
    assert sorted(map(str, answers)) == ["added"] + ["same"] * 7
    assert find_keys(file_area) == sorted(f"releases/r1/{key}" for key in SMALL_RELEASE)


def test_of_different_releases_at_once_one_is_published_whole(tmp_path: Path) -> None:
    area = FolderArea(tmp_path)
    made = [{"manifest.json": b"%d" % n, "a": b"%d" % n, "b": b"%d" % n} for n in range(8)]
    answers = run_together(8, lambda n: publish_folder(area, made[n], "releases/r1"))
    assert answers.count("added") == 1
    assert sum(isinstance(answer, ReleaseDiffers) for answer in answers) == 7
    assert {key: area.get(f"releases/r1/{key}") for key in ("manifest.json", "a", "b")} == made[answers.index("added")]


def test_an_s3_release_that_was_cut_short_is_absent_and_can_be_finished(s3_server: S3Server, fresh_bucket: str) -> None:
    with connected(s3_server, fresh_bucket) as area:
        area.put("releases/r1/data/scores.csv", b"from a run that was killed")
        area.put("releases/r1/data/stale.csv", b"likewise")
        assert find_releases(area, "releases") == []
        with pytest.raises(FileMissing):
            point_latest(area, "releases", "r1")
        assert publish_folder(area, SMALL_RELEASE, "releases/r1") == "added"
        assert {key: area.get(f"releases/r1/{key}") for key in SMALL_RELEASE} == SMALL_RELEASE
        assert find_keys(area) == sorted(f"releases/r1/{key}" for key in SMALL_RELEASE)


@contextmanager
def killed_at_sync(monkeypatch: pytest.MonkeyPatch, moment: int) -> Iterator[None]:
    """Stopped at the n-th sync, as a kill would, without the clean-up."""
    n_syncs = 0

    def stop(descriptor: int) -> None:
        nonlocal n_syncs
        n_syncs += 1
        if n_syncs == moment:
            raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", stop)
        patch.setattr("shutil.rmtree", lambda *_, **__: None)
        with pytest.raises(SystemExit):
            yield


@pytest.mark.parametrize("moment", range(1, 6))
def test_a_folder_release_killed_on_the_way_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    area = FolderArea(tmp_path)
    with killed_at_sync(monkeypatch, moment):
        publish_folder(area, SMALL_RELEASE, "releases/r1")
    assert area.list("") == []
    assert find_releases(area, "releases") == []
    assert publish_folder(area, SMALL_RELEASE, "releases/r1") == "added"
    assert area.remove_leftovers(older_than_seconds=3600) == 0
    assert area.remove_leftovers(older_than_seconds=-1) == 1
    assert [path.name for path in (tmp_path / "releases").iterdir()] == ["r1"]


def test_latest_follows(file_area: FileArea) -> None:
    first, second = SMALL_RELEASE, {"manifest.json": b"{2}", "new.csv": b"n"}
    publish_folder(file_area, first, "out/releases/r1")
    publish_folder(file_area, second, "out/releases/r2")
    for release, files in (("r1", first), ("r1", first), ("r2", second), ("r1", first)):
        point_latest(file_area, "out/releases", release)
        for name in first.keys() | second.keys():
            key = f"out/releases/latest/{name}"
            assert (file_area.get(key) if file_area.has(key) else None) == files.get(name)
    assert find_releases(file_area, "out/releases") == ["r1", "r2"]
    with pytest.raises(FileMissing):
        point_latest(file_area, "out/releases", "r3")


def test_latest_is_a_relative_link_that_is_never_missing(tmp_path: Path) -> None:
    area = FolderArea(tmp_path / "area")
    for release in ("r1", "r2"):
        publish_folder(area, SMALL_RELEASE, f"releases/{release}")
    point_latest(area, "releases", "r1")
    stop, seen = threading.Event(), set()

    def watch() -> None:
        while not stop.is_set():
            seen.add(area.has("releases/latest/manifest.json"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for n in range(100):
        point_latest(area, "releases", f"r{n % 2 + 1}")
    stop.set()
    watcher.join()
    assert seen == {True}
    assert str((tmp_path / "area/releases/latest").readlink()) == "r2"
    (tmp_path / "area").rename(tmp_path / "elsewhere")
    assert FolderArea(tmp_path / "elsewhere").has("releases/latest/manifest.json")


def test_latest_is_a_copy_where_links_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    area = FolderArea(tmp_path)
    publish_folder(area, SMALL_RELEASE, "releases/r1")
    publish_folder(area, {"manifest.json": b"2"}, "releases/r2")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "a required privilege is not held")

    with monkeypatch.context() as patch:
        patch.setattr(os, "symlink", refuse)
        for release in ("r1", "r2"):
            point_latest(area, "releases", release)
            latest = tmp_path / "releases/latest"
            assert latest.is_dir()
            assert not latest.is_symlink()
            assert area.get("releases/latest/manifest.json") == area.get(f"releases/{release}/manifest.json")
    assert not area.has("releases/latest/data/scores.csv")
    point_latest(area, "releases", "r1")
    assert (tmp_path / "releases/latest").is_symlink()
    assert sorted(path.name for path in (tmp_path / "releases").iterdir()) == ["latest", "r1", "r2"]


def test_a_persons_folder_called_latest_is_not_deleted(tmp_path: Path) -> None:
    area = FolderArea(tmp_path)
    publish_folder(area, SMALL_RELEASE, "releases/r1")
    area.put("releases/latest/my notes.txt", b"keep")
    with pytest.raises(Exception, match="Move it away"):
        point_latest(area, "releases", "r1")
    assert area.get("releases/latest/my notes.txt") == b"keep"


@pytest.mark.parametrize(
    ("files", "prefix"),
    [
        ({"a": b""}, "releases/r1"),
        ({"manifest.json": b"", "../x": b""}, "releases/r1"),
        (SMALL_RELEASE, "releases/../r1"),
        (SMALL_RELEASE, "releases/latest"),
    ],
)
def test_what_cannot_be_published(file_area: FileArea, files: dict[str, bytes], prefix: str) -> None:
    with pytest.raises(KeyRefused):
        publish_folder(file_area, files, prefix)
    assert file_area.list("") == []


# ---------------------------------------------------------------- releases of large files


PART_BYTES = 5 << 20  # the least that S3 takes, so that a file in parts is a small one
SPOOLED = {"empty": b"", "small": b"a,b\n", "part": bytes(PART_BYTES), "parts": b"1234567\n" * (PART_BYTES // 8) + b"."}


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.files, "_PART_BYTES", PART_BYTES)


@pytest.fixture
def spool(tmp_path: Path, small_parts: None) -> Path:
    """A folder with what a release may be made of, on the same disk as the folder of the area."""
    folder = tmp_path / "spool"
    folder.mkdir()
    for name, data in SPOOLED.items():
        (folder / name).write_bytes(data)
    return folder


def make_large_release(spool: Path) -> dict[str, Content]:
    return {**SMALL_RELEASE, **{f"data/{path.name}.csv": path for path in sorted(spool.iterdir())}}


def read_content(data: Content) -> bytes:
    return data.read_bytes() if isinstance(data, Path) else data


def read_release(area: FileArea, prefix: str) -> dict[str, bytes]:
    return {key.removeprefix(f"{prefix}/"): area.get(key) for key in find_keys(area, f"{prefix}/")}


def list_uploads(area: FileArea) -> list[str]:
    """Keys of the uploads in parts that are not ended; a folder has none."""
    if not isinstance(area, S3Area):
        return []
    found = area._client.list_multipart_uploads(Bucket=area._bucket, Prefix=area._prefix)
    return [upload["Key"].removeprefix(area._prefix) for upload in found.get("Uploads", [])]


def test_files_and_bytes_are_published_together(file_area: FileArea, spool: Path) -> None:
    files = make_large_release(spool)
    expected = {name: read_content(data) for name, data in files.items()}
    before = {path: (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns) for path in spool.iterdir()}
    assert publish_folder(file_area, files, "releases/r1") == "added"
    assert read_release(file_area, "releases/r1") == expected
    assert publish_folder(file_area, files, "releases/r1") == "same"
    assert publish_folder(file_area, expected, "releases/r1") == "same"
    assert publish_folder(file_area, files, "releases/r2") == "added"
    point_latest(file_area, "releases", "r2")
    assert {path: (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns) for path in before} == before
    for path in before:
        path.unlink()
    for release in ("r1", "r2"):
        assert read_release(file_area, f"releases/{release}") == expected
    assert {name: file_area.get(f"releases/latest/{name}") for name in expected} == expected
    assert find_releases(file_area, "releases") == ["r1", "r2"]
    assert list_uploads(file_area) == []


@pytest.mark.parametrize("change", [lambda data: data[:-1] + b"\0", lambda data: data + b"x", lambda data: data[:-1]])
def test_a_release_of_files_is_never_changed(
    file_area: FileArea, spool: Path, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    files = make_large_release(spool)
    expected = {name: read_content(data) for name, data in files.items()}
    publish_folder(file_area, files, "releases/r1")
    other = tmp_path / "other"
    other.write_bytes(change((spool / "parts").read_bytes()))
    with pytest.raises(ReleaseDiffers, match=r"\(data/parts\.csv\)"):
        publish_folder(file_area, {**files, "data/parts.csv": other}, "releases/r1")
    assert read_release(file_area, "releases/r1") == expected


def test_a_large_file_may_come_last(file_area: FileArea, spool: Path) -> None:
    files: dict[str, Content] = {"a.csv": b"a", "manifest.json": spool / "parts"}
    answers = run_together(4, lambda n: publish_folder(file_area, files, "releases/r1"))
    assert sorted(map(str, answers)) == ["added"] + ["same"] * 3
    with pytest.raises(ReleaseDiffers):
        publish_folder(file_area, {**files, "manifest.json": spool / "part"}, "releases/r1")
    assert read_release(file_area, "releases/r1") == {"a.csv": b"a", "manifest.json": (spool / "parts").read_bytes()}
    assert list_uploads(file_area) == []


def test_publishing_files_at_once_adds_once(file_area: FileArea, spool: Path) -> None:
    files = make_large_release(spool)
    answers = run_together(4, lambda n: publish_folder(file_area, files, "releases/r1"))
    assert sorted(map(str, answers)) == ["added"] + ["same"] * 3
    assert read_release(file_area, "releases/r1") == {name: read_content(data) for name, data in files.items()}
    assert list_uploads(file_area) == []


def test_a_file_that_is_none_stops_everything(file_area: FileArea, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for source, pattern in (("nothing", "there is no such file"), ("pipe", "no ordinary file"), (".", "no ordinary")):
        with pytest.raises(FileMissing, match=pattern) as caught:
            publish_folder(file_area, {**SMALL_RELEASE, "data/x.csv": tmp_path / source}, "releases/r1")
        assert str(tmp_path) in str(caught.value)
    with pytest.raises(FileMissing, match="there is no such file"):
        hash_file(tmp_path / "nothing")
    assert file_area.list("") == []


def test_a_closed_file_is_said_to_be(file_area: FileArea, spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the words of the caller's file, not of the area."""
    opened = Path.open

    def refuse(path: Path, *arguments: Any, **named: Any) -> Any:
        if path.parent == spool:
            raise OSError(errno.EACCES, "Permission denied")
        return opened(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", refuse)
    for name in ("small", "parts"):
        (spool / name).chmod(0o600)  # no release has such a file, so it is read
        with pytest.raises(AreaUnavailable, match="permission denied") as caught:
            publish_folder(file_area, {"manifest.json": b"{}", "k": spool / name}, "releases/r1")
        assert str(caught.value).startswith(str(spool / name))
        with pytest.raises(AreaUnavailable, match="permission denied"):
            hash_file(spool / name)
    assert file_area.list("") == []
    assert list_uploads(file_area) == []


def test_fetching_a_file(file_area: FileArea, spool: Path, tmp_path: Path) -> None:
    file_area.put("a/b", SPOOLED["parts"])
    for target in (tmp_path / "new folder/b", tmp_path / "new folder/b", spool / "small"):
        assert file_area.fetch("a/b", target) == hash_file(spool / "parts")
        assert target.read_bytes() == (spool / "parts").read_bytes()
    with pytest.raises(FileMissing, match="there is no such file"):
        file_area.fetch("a/c", spool / "part")
    assert (spool / "part").stat().st_size == PART_BYTES
    with pytest.raises(AreaUnavailable, match="in the way") as caught:
        file_area.fetch("a/b", spool / "part" / "b")
    assert str(caught.value).startswith(str(spool / "part" / "b"))
    assert sorted(path.name for path in spool.iterdir()) == ["empty", "part", "parts", "small"]
    assert hash_file(spool / "empty") == compute_sha256(b"")


def test_a_large_release_is_never_held_in_memory(file_area: FileArea, tmp_path: Path) -> None:
    source, n_bytes = tmp_path / "responses.csv", 64 << 20
    with source.open("wb") as file:
        for n in range(64):
            file.write(b"%04d" % n * (1 << 18))
    files: dict[str, Content] = {"manifest.json": b"{}", "responses.csv": source}
    tracemalloc.start()
    try:
        assert publish_folder(file_area, files, "releases/r1") == "added"
        assert publish_folder(file_area, files, "releases/r1") == "same"
        assert file_area.fetch("releases/r1/responses.csv", tmp_path / "fetched") == hash_file(source)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert (tmp_path / "fetched").stat().st_size == n_bytes


@pytest.mark.parametrize("moment", range(1, 6))
def test_a_folder_release_of_files_killed_on_the_way_is_absent(
    tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    area = FolderArea(tmp_path / "area")
    files: dict[str, Content] = {"small.csv": spool / "small", "parts.csv": spool / "parts", "manifest.json": b"{}"}
    expected = {name: read_content(data) for name, data in files.items()}

    with killed_at_sync(monkeypatch, moment):
        publish_folder(area, files, "releases/r1")
    if moment <= 4:  # three files and their folder
        assert area.list("") == []
        assert publish_folder(area, files, "releases/r1") == "added"
    assert publish_folder(area, files, "releases/r1") == "same"
    area.remove_leftovers(older_than_seconds=-1)
    assert [path.name for path in (tmp_path / "area/releases").iterdir()] == ["r1"]
    assert read_release(area, "releases/r1") == expected
    assert {path.stat().st_nlink for path in spool.iterdir()} <= {1, 2}
    assert (spool / "parts").read_bytes() == expected["parts.csv"]


def test_files_on_the_same_disk_are_linked(tmp_path: Path, spool: Path) -> None:
    area = FolderArea(tmp_path / "area")
    for release in ("r1", "r2"):
        publish_folder(area, {"manifest.json": b"{}", "data/parts.csv": spool / "parts"}, f"releases/{release}")
    linked, copied = (tmp_path / "area/releases" / release / "data/parts.csv" for release in ("r1", "r2"))
    assert linked.samefile(spool / "parts")
    assert not copied.samefile(spool / "parts"), "two releases never share a file"
    assert linked.read_bytes() == copied.read_bytes()


@pytest.mark.parametrize(
    "reason", ["closed to others", "other name", "symbolic link", "label", "refused", "other disk"]
)
def test_what_cannot_be_linked_is_copied(
    tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    source = spool / "parts"
    if reason == "closed to others":
        source.chmod(0o600)
    elif reason == "other name":
        (spool / "second").hardlink_to(source)
    elif reason == "symbolic link":
        source = spool / "link"
        source.symlink_to(spool / "parts")
    elif reason == "label":
        try:
            os.setxattr(source, "user.summative", b"1")
        except OSError:
            pytest.skip("this file system has no labels")
    else:
        code = errno.EXDEV if reason == "other disk" else errno.EPERM

        def refuse(*_: object, **__: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "link", refuse)
    before = source.stat()
    area = FolderArea(tmp_path / "area")
    assert publish_folder(area, {"manifest.json": b"{}", "parts.csv": source}, "releases/r1") == "added"
    published = tmp_path / "area/releases/r1/parts.csv"
    assert published.read_bytes() == source.read_bytes()
    assert not published.is_symlink()
    assert not published.samefile(source)
    assert published.stat().st_mode == (tmp_path / "area/releases/r1/manifest.json").stat().st_mode
    assert (source.stat().st_mode, source.stat().st_nlink) == (before.st_mode, before.st_nlink)


@pytest.mark.parametrize("n_sent", [1, 2])
def test_an_s3_release_of_files_stopped_on_the_way_is_absent_and_can_be_finished(
    s3_server: S3Server, fresh_bucket: str, spool: Path, n_sent: int
) -> None:
    """Before the n-th part, or the word that these were all."""
    files = make_large_release(spool)
    with connected(s3_server, fresh_bucket) as area:
        events, n_seen = area._client.meta.events, 0

        def stop(**_: object) -> None:
            nonlocal n_seen
            n_seen += 1
            if n_seen > n_sent:
                raise KeyboardInterrupt

        for operation in ("UploadPart", "CompleteMultipartUpload"):
            events.register(f"before-call.s3.{operation}", stop)
        with pytest.raises(KeyboardInterrupt):
            publish_folder(area, files, "releases/r1")
        for operation in ("UploadPart", "CompleteMultipartUpload"):
            events.unregister(f"before-call.s3.{operation}", stop)
        assert find_releases(area, "releases") == []
        assert not area.has("releases/r1/data/parts.csv")
        # What is not complete may be being completed: it is given up when nobody can be at it any more.
        assert list_uploads(area) == ["releases/r1/data/parts.csv"] * (n_sent == 2)
        assert publish_folder(area, files, "releases/r1") == "added"
        assert read_release(area, "releases/r1") == {name: read_content(data) for name, data in files.items()}
        assert area.remove_leftovers(older_than_seconds=3600) == 0
        assert area.remove_leftovers(older_than_seconds=-60) == (n_sent == 2)
        assert list_uploads(area) == []
        assert publish_folder(area, files, "releases/r1") == "same"


def test_leftovers_of_others_stay(s3_server: S3Server, fresh_bucket: str) -> None:
    with connected(s3_server, fresh_bucket) as area:
        for key in ("ours/a", "theirs/a"):
            area._client.create_multipart_upload(Bucket=fresh_bucket, Key=key)
        assert area.below("ours").remove_leftovers(older_than_seconds=-60) == 1
        assert list_uploads(area) == ["theirs/a"]


def test_the_lost_answer_to_a_completion_is_made_out(s3_server: S3Server, fresh_bucket: str, spool: Path) -> None:
    with connected(s3_server, fresh_bucket) as area:
        repeats = iter([0.0])

        def repeat_once(**_: object) -> Any:
            return next(repeats, None)

        area._client.meta.events.register_first("needs-retry.s3.CompleteMultipartUpload", repeat_once)
        files: dict[str, Content] = {"manifest.json": b"{}", "parts.csv": spool / "parts"}
        assert publish_folder(area, files, "releases/r1") == "added"
        assert next(repeats, None) is None, "it was repeated"
        assert area.get("releases/r1/parts.csv") == SPOOLED["parts"]


@pytest.mark.parametrize("theirs", [SMALL_RELEASE, {**SMALL_RELEASE, "data/parts.csv": b"theirs"}])
def test_another_release_that_comes_while_parts_are_sent_stays_whole(
    s3_server: S3Server, fresh_bucket: str, spool: Path, theirs: dict[str, bytes]
) -> None:
    """Whether it has the file that is being sent, with other content, or not."""
    answers: list[str] = []
    with connected(s3_server, fresh_bucket) as area:

        def overtake(**_: object) -> None:
            if not answers:
                answers.append(publish_folder(area, theirs, "releases/r1"))

        area._client.meta.events.register("before-call.s3.UploadPart", overtake)
        with pytest.raises(ReleaseDiffers):
            publish_folder(area, {"manifest.json": b"mine", "data/parts.csv": spool / "parts"}, "releases/r1")
        assert answers == ["added"]
        assert read_release(area, "releases/r1") == theirs
        assert list_uploads(area) == []


def test_a_part_altered_on_its_way_is_refused(s3_server: S3Server, fresh_bucket: str, spool: Path) -> None:
    with connected(s3_server, fresh_bucket) as area:
        area._client.meta.events.register_last(
            "before-call.s3.UploadPart", lambda params, **_: params.update(body=b"altered"), unique_id="alter"
        )
        with pytest.raises(AreaUnavailable, match="altered on its way"):
            publish_folder(area, {"manifest.json": b"{}", "a.csv": spool / "parts"}, "releases/r1")
        assert area.list("") == []
        assert list_uploads(area) == []


def test_a_large_file_is_copied_in_parts(
    s3_server: S3Server, fresh_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.files, "_COPY_BYTES", 5 << 20)
    data = random.Random(8).randbytes((12 << 20) + 1)
    with connected(s3_server, fresh_bucket) as area:
        publish_folder(area, {"manifest.json": b"{}", "large.csv": data}, "releases/r1")
        point_latest(area, "releases", "r1")
        assert area.get("releases/latest/large.csv") == data
        assert list_uploads(area) == []


# ---------------------------------------------------------------- faults of a folder


@contextmanager
def as_somebody_without_rights(folder: Path) -> Iterator[None]:
    """Root may do everything, so root acts as another account; others lose the right to their own folder."""
    if os.geteuid() == 0:
        folder.chmod(0o755)
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        folder.chmod(0o500)
        try:
            yield
        finally:
            folder.chmod(0o700)


def test_permission_denied_says_where_and_what_to_do(tmp_path: Path) -> None:
    area = FolderArea(tmp_path / "area")
    area.put("a", b"1")
    with as_somebody_without_rights(tmp_path / "area"):
        for act in (lambda: area.put("b", b"2"), lambda: area.put("c/d", b"2"), lambda: area.list("")):
            with pytest.raises(AreaUnavailable, match=r"permission denied\. Give the account") as caught:
                act()
            assert str(tmp_path / "area") in str(caught.value)
            if os.geteuid() != 65534:
                break  # an owner without the write bit may still list
    assert find_keys(area) == ["a"]


def test_a_closed_folder_in_an_area_is_no_empty_one(tmp_path: Path) -> None:
    area = FolderArea(tmp_path)
    area.put("closed/a", b"1")
    (tmp_path / "closed").chmod(0o000)
    try:
        if os.geteuid() == 0:
            for folder in (tmp_path, *tmp_path.parents[:2]):
                folder.chmod(0o755)
            os.seteuid(65534)
        with pytest.raises(AreaUnavailable, match="permission denied"):
            area.list("")
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        (tmp_path / "closed").chmod(0o700)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    area = FolderArea(tmp_path)
    area.put("a", b"before")

    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        for act in (
            lambda: area.put("a", b"after"),
            lambda: area.put("b", b"new", if_absent=True),
            lambda: publish_folder(area, SMALL_RELEASE, "r/r1"),
        ):
            with pytest.raises(AreaUnavailable, match=r"no space is left .* Free some") as caught:
                act()
            assert str(tmp_path) in str(caught.value)
    assert area.get("a") == b"before"
    assert find_keys(area) == ["a"]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "a"], "no half-written file is left"


def test_the_systems_own_refusal_of_space(tmp_path: Path) -> None:
    """A real one, by the limit on file sizes: the write itself stops half-way."""
    area = FolderArea(tmp_path)
    area.put("a", b"before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(AreaUnavailable, match="no space is left"):
            area.put("a", b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert area.get("a") == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_in_the_way(tmp_path: Path) -> None:
    area = FolderArea(tmp_path)
    area.put("a", b"1")
    with pytest.raises(AreaUnavailable, match="in the way"):
        area.put("a/b", b"2")
    area.put("c/d", b"3")
    with pytest.raises(AreaUnavailable, match="in the way"):
        area.put("c", b"4")


def test_no_hard_links_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(AreaUnavailable, match="no hard links"):
        FolderArea(tmp_path).put("a", b"1", if_absent=True)
    assert list(tmp_path.iterdir()) == []


WRITER = """
import sys
from tasks.files import FolderArea
area, n = FolderArea(sys.argv[1]), 0
print("ready", flush=True)
while True:
    n += 1
    area.put("k", bytes([n % 256]) * 2_000_000)
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    area = FolderArea(tmp_path)
    area.put("k", bytes(2_000_000))
    for n in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        with writer.stdout:
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(0.05 + 0.013 * n)
            writer.send_signal(signal.SIGKILL)
            writer.wait(timeout=10)
        data = area.get("k")
        assert len(data) == 2_000_000
        assert len(set(data)) == 1
        assert find_keys(area) == ["k"]
    area.remove_leftovers(older_than_seconds=-1)
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


# ---------------------------------------------------------------- faults of S3


@contextmanager
def connected(
    server: S3Server, bucket: str, *, secret_key: str = "", access_key: str = "", port: int = 0, prefix: str = ""
) -> Iterator[S3Area]:
    client = connect_s3(
        endpoint_url=f"http://127.0.0.1:{port or server.port}", access_key=access_key or server.access_key,
        secret_key=secret_key or server.secret_key, region=server.region, timeout_seconds=2, attempts=2,
    )  # fmt: skip
    try:
        yield S3Area(bucket, prefix, client)
    finally:
        client.close()


def act_in_every_way(area: FileArea) -> Iterator[Callable[[], object]]:
    yield lambda: area.put("a", b"1")
    yield lambda: area.put("a", b"1", if_absent=True)
    yield lambda: area.get("a")
    yield lambda: list(area.read_chunks("a"))
    yield lambda: area.read_end("a", 5)
    yield lambda: area.has("a")
    yield lambda: area.list("")
    yield lambda: area.delete_if("a", "0" * 64)
    yield lambda: area.move("a", "b")
    yield lambda: publish_folder(area, SMALL_RELEASE, "r1")
    yield lambda: point_latest(area, "releases", "r1")


def check_every_way_fails(area: FileArea, pattern: str, *never: str) -> None:
    for act in act_in_every_way(area):
        with pytest.raises(AreaUnavailable, match=pattern) as caught:
            act()
        assert area.place in str(caught.value)
        assert caught.value.__suppress_context__
        assert not any(secret in str(caught.value) for secret in never)


def test_a_wrong_secret_is_said_without_repeating_it(s3_server: S3Server, fresh_bucket: str) -> None:
    wrong = "W" * 40
    with connected(s3_server, fresh_bucket, secret_key=wrong) as area:
        check_every_way_fails(area, "does not accept the keys|access denied", wrong, s3_server.access_key)


def test_an_unknown_access_key_is_said(s3_server: S3Server, fresh_bucket: str) -> None:
    with connected(s3_server, fresh_bucket, access_key="A" * 20) as area:
        check_every_way_fails(area, "does not accept the keys|access denied", "A" * 20, s3_server.secret_key)


def test_a_missing_bucket_is_no_empty_one(s3_server: S3Server) -> None:
    with connected(s3_server, "no-such-bucket") as area:
        check_every_way_fails(area, "there is no such bucket. Create it", s3_server.secret_key)


def test_a_store_that_is_down_is_said_in_bounded_time(s3_server: S3Server) -> None:
    [port] = find_free_ports(1)
    with connected(s3_server, "any", port=port, prefix="study") as area:
        began = time.monotonic()
        check_every_way_fails(area, rf"no answer from 127\.0\.0\.1:{port} .* Check network", s3_server.secret_key)
        assert time.monotonic() - began < 30


def test_a_store_that_never_answers_is_given_up(s3_server: S3Server) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        connected(s3_server, "any", port=silent.getsockname()[1]) as area,
    ):
        began = time.monotonic()
        with pytest.raises(AreaUnavailable, match="no answer from"):
            area.get("a")
        assert 3 < time.monotonic() - began < 10


def test_the_lost_answer_to_a_conditional_put_is_made_out(s3_server: S3Server, fresh_bucket: str) -> None:
    """The put succeeded, its answer got lost, the client's second try is refused: still ours, and nobody else's."""
    with connected(s3_server, fresh_bucket) as area:
        repeats = iter([0.0])

        def repeat_once(**_: object) -> Any:
            return next(repeats, None)

        area._client.meta.events.register_first("needs-retry.s3.PutObject", repeat_once)
        assert area.put("claim", b"mine", if_absent=True)
        repeats = iter([0.0])
        assert not area.put("claim", b"mine", if_absent=True)
        assert area.get("claim") == b"mine"


def test_a_file_altered_on_its_way_is_refused(s3_server: S3Server, fresh_bucket: str) -> None:
    with connected(s3_server, fresh_bucket) as area:
        area._client.meta.events.register_last(
            "before-call.s3.PutObject", lambda params, **_: params.update(body=b"altered"), unique_id="alter"
        )
        with pytest.raises(AreaUnavailable, match="altered on its way"):
            area.put("a", b"as it was")
        assert area.list("") == []


@pytest.mark.parametrize(
    ("code", "status", "pattern"),
    [
        ("SlowDown", 503, "overloaded. Run again later"),
        ("WeNeverHeardOf", 507, "no space left"),
        ("RequestTimeTooSkewed", 403, "clock is wrong"),
        ("ExpiredToken", 400, "Renew the sign-in"),
        ("AccessDenied", 403, "access denied"),
        ("PermanentRedirect", 301, "another region"),
        ("SomethingNew", 418, "answered SomethingNew"),
    ],
)
def test_what_a_store_answers_is_translated(
    s3_server: S3Server, fresh_bucket: str, code: str, status: int, pattern: str
) -> None:
    from botocore.exceptions import ClientError

    def refuse(**_: object) -> None:
        raise ClientError(
            {"Error": {"Code": code, "Message": "AWSAccessKeyId=LEAK"}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]  # as short as some stores are
            "PutObject",
        )

    with connected(s3_server, fresh_bucket) as area:
        area._client.meta.events.register("before-call.s3.PutObject", refuse)
        with pytest.raises(AreaUnavailable, match=pattern) as caught:
            area.put("a", b"1")
        assert "LEAK" not in str(caught.value)


# ---------------------------------------------------------------- opening


def test_open_area_by_path_and_url(tmp_path: Path) -> None:
    for address in (tmp_path / "a b", str(tmp_path / "a b"), (tmp_path / "a b").as_uri()):
        assert open_area(address).place == str(tmp_path / "a b")
    assert list(tmp_path.iterdir()) == [], "looking makes nothing"
    area = open_area("s3://bucket/some/prefix/", access_key="k", secret_key="s", region="eu-west-2")
    assert isinstance(area, S3Area)
    assert area.place == "s3://bucket/some/prefix"
    area._client.close()


def test_an_opened_bucket_works(s3_server: S3Server, fresh_bucket: str) -> None:
    area = open_area(
        f"s3://{fresh_bucket}/study", endpoint_url=s3_server.endpoint_url, access_key=s3_server.access_key,
        secret_key=s3_server.secret_key, region=s3_server.region,
    )  # fmt: skip
    assert isinstance(area, S3Area)
    area.put("a", b"1")
    with s3_server.connect() as client:
        assert client.get_object(Bucket=fresh_bucket, Key="study/a")["Body"].read() == b"1"
    area._client.close()


@pytest.mark.parametrize(
    ("address", "pattern"),
    [
        ("s3://key:SECRET@bucket", "Keys have settings of their own"),
        ("s3://bucket?secret=SECRET", "Keys have settings of their own"),
        ("s3://", "no place for files"),
        ("gs://bucket", "no place for files"),
        ("https://SECRET.example", "no place for files"),
    ],
)
def test_other_addresses_are_refused(address: str, pattern: str) -> None:
    with pytest.raises(AreaUnavailable, match=pattern) as caught:
        open_area(address)
    assert "SECRET" not in str(caught.value)


def test_half_a_pair_of_keys_is_refused() -> None:
    with pytest.raises(AreaUnavailable, match="only one of access key and secret key"):
        connect_s3(access_key="k")
    with pytest.raises(AreaUnavailable, match="Check endpoint") as caught:
        connect_s3(endpoint_url="http://user:SECRET@bad host", access_key="k", secret_key="s")
    assert "SECRET" not in str(caught.value)
