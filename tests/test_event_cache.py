"""The cache of decoded events: it may save time, and never changes what is read."""

import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pytest

from study import state
from study.events import ParticipantScreened, StudyDayCompleted
from study.state import Events
from tasks import event_cache
from tasks.event_cache import read_cached_events, write_cached_events
from tasks.ledger import Ledger


def screened(number: int) -> ParticipantScreened:
    return ParticipantScreened(
        occurred_on=date(2024, 3, 1), requested_by="a test", site_id="701", participant_id=f"P{number:03d}", cohort="x"
    )


def days(events: Events) -> list[str]:
    return sorted(events.frame(ParticipantScreened)["participant_id"])


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.sqlite'}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def filled(url: str, folder: Path) -> Path:
    """A ledger of 100 people and a study day, and the cache of it."""
    with Ledger.open(url, "ipc") as ledger:
        ledger.append([*map(screened, range(100)), StudyDayCompleted(occurred_on=date(2024, 3, 1), requested_by="x")])
        ledger.read_events(folder)
    return folder / "ipc.events"


def read_anew(url: str, folder: Path | None, study_id: str = "ipc") -> Events:
    with Ledger.open(url, study_id) as ledger:
        return ledger.read_events(folder)


def test_cache_holds_what_the_ledger_holds(url: str, folder: Path, filled: Path) -> None:
    cached, read = read_cached_events(folder, "ipc"), read_anew(url, None)
    assert cached is not None
    assert cached.head == read.head
    assert {kind: table.to_pylist() for kind, table in cached.tables.items()} == {
        kind: table.to_pylist() for kind, table in read.tables.items()
    }


def test_only_what_is_new_is_decoded(url: str, folder: Path, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger.open(url, "ipc") as ledger:
        ledger.append(map(screened, range(100, 103)))
    written = filled.read_bytes()
    decoded: list[int] = []

    def decode(lines: bytes) -> object:
        decoded.append(lines.count(b"\n") + 1)
        return decode_rows(lines)

    decode_rows = state.decode_rows
    monkeypatch.setattr("tasks.ledger.decode_rows", decode)
    with Ledger.open(url, "ipc") as ledger:
        assert len(days(ledger.read_events(folder))) == 103
        assert len(days(ledger.read_events(folder))) == 103
        assert decoded == [3]
        assert filled.read_bytes() == written  # too little is new for writing it all again
        ledger.append(map(screened, range(103, 120)))
        assert len(days(ledger.read_events(folder))) == 120
        assert decoded == [3, 17]
        assert filled.read_bytes() != written
    assert len(days(read_anew(url, folder))) == 120
    assert decoded == [3, 17]


@pytest.mark.parametrize("place", [0, 8, 1_000, 7_777, -1, -4, -5, -12, -13, -60, -100, -200])
def test_damaged_cache_is_rebuilt(url: str, folder: Path, filled: Path, place: int) -> None:
    whole = filled.read_bytes()
    damaged = bytearray(whole)
    damaged[place] ^= 0x10
    filled.write_bytes(damaged)
    assert read_cached_events(folder, "ipc") is None
    assert len(days(read_anew(url, folder))) == 100
    assert filled.read_bytes() == whole


@pytest.mark.parametrize("length", [0, 1, 11, 12, 500, -1, -12])
def test_cut_cache_is_rebuilt(url: str, folder: Path, filled: Path, length: int) -> None:
    filled.write_bytes(filled.read_bytes()[:length])
    assert read_cached_events(folder, "ipc") is None
    assert len(days(read_anew(url, folder))) == 100
    assert read_cached_events(folder, "ipc") is not None


def test_cache_of_another_ledger_is_rebuilt(url: str, folder: Path, filled: Path, tmp_path: Path) -> None:
    other = f"sqlite:///{tmp_path / 'other.sqlite'}"
    with Ledger.open(other, "ipc") as ledger:
        ledger.append(map(screened, range(200, 500)))
    assert days(read_anew(other, folder)) == [f"P{number}" for number in range(200, 500)]
    assert len(days(read_anew(url, folder))) == 100


def test_cache_of_another_study_is_none(folder: Path, filled: Path) -> None:
    filled.rename(folder / "pilot.events")
    assert read_cached_events(folder, "pilot") is None
    assert read_cached_events(folder, "ipc") is None


def test_cache_of_other_code_is_none(folder: Path, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_cached_events(folder, "ipc") is not None
    monkeypatch.setattr(StudyDayCompleted, "kind_version", 2)
    assert read_cached_events(folder, "ipc") is None


def test_ledger_that_was_begun_anew_is_read_anew(url: str, folder: Path, filled: Path, tmp_path: Path) -> None:
    with Ledger.open(url, "ipc") as ledger:
        assert len(days(ledger.read_events())) == 100
        ledger.close()
        for file in tmp_path.glob("ledger.sqlite*"):
            file.unlink()
        with Ledger.open(url, "ipc") as fresh:
            fresh.append(map(screened, range(3)))
        assert len(days(ledger.read_events(folder))) == 3
        assert len(days(read_anew(url, folder))) == 3


def test_cache_that_cannot_be_written_is_not_missed(
    url: str, folder: Path, filled: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = folder / "a file"
    blocked.touch()
    with caplog.at_level(logging.WARNING):
        assert len(days(read_anew(url, blocked))) == 100
    assert "could not be cached" in caplog.text


def test_what_killed_writers_left_is_swept(folder: Path, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = read_cached_events(folder, "ipc")
    assert cached is not None
    left = folder / "left.part"
    left.touch()
    write_cached_events(folder, "ipc", cached)
    assert left.exists()
    monkeypatch.setattr(event_cache, "_STALE_SECONDS", -1)
    write_cached_events(folder, "ipc", cached)
    assert [file.name for file in folder.iterdir()] == ["ipc.events"]


def test_many_read_and_write_the_cache_at_once(url: str, folder: Path) -> None:
    def work(worker: int) -> None:
        for part in range(8):
            with Ledger.open(url, "ipc") as ledger:
                ledger.append(screened(worker * 10_000 + part * 100 + number) for number in range(20))
                events = ledger.read_events(folder)
                assert events.count_rows() == events.head.seq

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert len(days(read_anew(url, folder))) == 6 * 8 * 20
    assert [file.name for file in folder.iterdir()] == ["ipc.events"]
