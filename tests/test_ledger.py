"""The ledger on both databases: one truth for many writers, shown to be whole."""

import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory

from study import events as vocabulary
from study.events import (
    KINDS,
    Code,
    ConflictRefused,
    Count,
    DispositionRecorded,
    Event,
    ParticipantScreened,
    QueryRaised,
    Source,
    StudyDayCompleted,
    UnknownKind,
    Voided,
    upcaster,
)
from study.state import EMPTY, derive_participants
from tasks.ledger import COLUMNS, MIGRATIONS, REVISION, Ledger, LedgerRefused, Verification

A = "a" * 64
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
LONDON = ZoneInfo("Europe/London")
WHO: dict[str, Any] = {"requested_by": "flow study_day", "site_id": "701"}

# Writers are forked from a process that has imported the ledger once: 20 of them start within a second.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.test_ledger"])


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def screened(participant_id: str, cohort: str = "older_adults", **fields: Any) -> ParticipantScreened:
    told = {"occurred_on": date(2024, 2, 29), "participant_id": participant_id, "cohort": cohort}
    return ParticipantScreened(**{**WHO, **told, **fields})


def void(digest: str, reason: str = "wrong_date", **fields: Any) -> Voided:
    return Voided(
        **{"occurred_on": date(2024, 3, 1), "requested_by": "a person", "voids": digest, **fields}, reason=reason
    )


def people(ledger: Ledger) -> dict[str, str]:
    frame = derive_participants(ledger.read_events())
    return dict(zip(frame["participant_id"], frame["cohort"], strict=True))


def tamper(ledger: Ledger, *statements: str) -> None:
    """Change rows as someone would who owns the database: the triggers first."""
    with ledger.engine.connect().execution_options(writes=True) as connection, connection.begin():
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("DROP TRIGGER IF EXISTS ledger_no_update")
            connection.exec_driver_sql("DROP TRIGGER IF EXISTS ledger_no_delete")
        else:
            connection.exec_driver_sql("DROP TRIGGER IF EXISTS ledger_no_change ON ledger")
        for statement in statements:
            connection.exec_driver_sql(statement)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(ledger_url: str, clock: Clock) -> Iterator[Ledger]:
    with Ledger.open(ledger_url, "ipc", clock) as opened:
        yield opened


def test_new_ledger_is_empty_and_clean(ledger: Ledger) -> None:
    assert ledger.head() == EMPTY
    assert ledger.verify() == Verification(0, EMPTY, [])
    assert ledger.verify(EMPTY).is_clean
    assert ledger.read_events().count_rows() == 0
    assert ledger.history().empty
    assert ledger.append([]) == []


def test_event_is_added_once(ledger: Ledger) -> None:
    [first] = ledger.append([screened("P1")])
    assert (first.answer, first.seq, first.revision, first.key) == ("added", 1, 1, "screened:P1")
    again = screened("P1", requested_by="someone else", source=Source(sha256=A, sheet="Log", row=3))
    assert ledger.append([again, screened("P2"), again]) == [
        first._replace(answer="same"),
        (ledger.append([screened("P2")])[0]._replace(answer="added")),
        first._replace(answer="same"),
    ]
    assert ledger.head().seq == 2


def test_conflict_is_refused_and_recorded_once(ledger: Ledger) -> None:
    [first] = ledger.append([screened("P1")])
    other = screened("P1", "children")
    for _ in range(2):
        assert ledger.append([other, other]) == [first._replace(answer="conflict")] * 2
    assert ledger.head().seq == 2
    assert people(ledger) == {"P1": "older_adults"}
    [notice] = ledger.read_events().frame(ConflictRefused).to_dict("records")
    assert (notice["participant_id"], notice["refused_key"], notice["standing_hash"]) == (
        "P1",
        "screened:P1",
        first.hash,
    )
    assert ledger.append([screened("P1", occurred_on=date(2024, 3, 1))])[0].answer == "conflict"
    assert ledger.head().seq == 3


def test_dismissed_conflict_is_not_raised_again(ledger: Ledger) -> None:
    ledger.append([screened("P1"), screened("P1", "children")])
    ledger.append([void(ledger.head().hash, "entered_in_error")])
    ledger.append([screened("P1", "children")])
    assert ledger.head().seq == 3
    assert ledger.read_events().frame(ConflictRefused).empty


def test_voided_key_is_entered_again(ledger: Ledger) -> None:
    [first] = ledger.append([screened("P1")])
    mistake = void(first.hash)
    [voided, second] = ledger.append([mistake, screened("P1", "children")])
    assert (voided.answer, second.answer, second.revision) == ("added", "added", 2)
    assert people(ledger) == {"P1": "children"}
    assert [answer.answer for answer in ledger.append([mistake, screened("P1", "children")])] == ["same", "same"]
    assert ledger.append([void(first.hash, "duplicate")])[0].answer == "conflict"
    ledger.append([void(second.hash)])
    assert people(ledger) == {}
    [third] = ledger.append([screened("P1")])
    assert (third.revision, people(ledger)) == (3, {"P1": "older_adults"})
    assert ledger.verify().is_clean


def test_void_concerns_whom_its_row_concerns(ledger: Ledger) -> None:
    [first, other] = ledger.append([screened("P1"), screened("P2")])
    with pytest.raises(LedgerRefused, match="does not concern the site and participant that its void names"):
        ledger.append([void(first.hash, participant_id="P2")])
    ledger.append([void(first.hash), void(other.hash, participant_id="P2")])
    assert ledger.history(participant_id="P1")["kind"].tolist() == ["participant_screened", "voided"]
    assert ledger.history(site_id="701")["voided_by"].tolist() == [3, 4, 0, 0]


def test_void_that_cannot_be(ledger: Ledger) -> None:
    [first] = ledger.append([screened("P1")])
    [voided] = ledger.append([void(first.hash)])
    with pytest.raises(LedgerRefused, match=f"No row of this ledger has the hash {A}"):
        ledger.append([screened("P2"), void(A)])
    with pytest.raises(LedgerRefused, match="Row 2 is a void, and a void cannot be voided"):
        ledger.append([void(voided.hash)])
    assert ledger.head() == (voided.seq, voided.hash)
    assert people(ledger) == {}


def test_writing_is_all_or_nothing(ledger: Ledger) -> None:
    def fail() -> None:
        with ledger.writing() as writing:
            writing.append([screened("P1")])
            assert writing.head.seq == 1
            writing.append([screened("P2")])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert ledger.head() == EMPTY
    with ledger.writing() as writing:
        writing.append([screened("P1")])
        [added] = writing.append([screened("P2")])
        assert writing.head == (added.seq, added.hash)
        assert writing.append([screened("P1")])[0].answer == "same"
    assert ledger.head() == (2, added.hash)
    assert ledger.verify(ledger.head()).is_clean


def test_writing_counts_and_finds(ledger: Ledger) -> None:
    query = {"rule": "r", "severity": "hard", "subject": "file:1", "occurred_on": date(2024, 3, 1)}
    ledger.append(
        [
            screened("P1"),
            screened("P2", site_id="702"),
            QueryRaised(**{**WHO, **query}, query_id="701-1"),
            QueryRaised(**{**WHO, **query, "site_id": "702"}, query_id="702-1", item="x"),
            StudyDayCompleted(occurred_on=date(2024, 3, 1), requested_by="flow study_day"),
        ]
    )
    ledger.append([void(ledger.history(key="query:file:1:r::1")["hash"][0])])
    with ledger.writing() as writing:
        assert writing.count("query_raised") == 2  # the voided one too: its number is never given again
        assert writing.count("query_raised", "701") == 1
        assert writing.count("query_raised", "799") == 0
        found = writing.find_keys(["screened:P1", "query:file:1:r::1", "screened:P9"])
        assert {key: (row.seq, row.is_voided) for key, row in found.items()} == {
            "screened:P1": (1, False),
            "query:file:1:r::1": (3, True),
        }
        newest = writing.newest_seq
        assert newest() == 0
        assert newest(participant_ids=["P1"]) == 1
        assert newest(participant_ids=["P1", "P2", "P9"]) == 2
        assert newest(site_ids=["701"]) == 6
        assert newest(site_ids=["702"]) == 4
        assert newest(kinds=["study_day_completed"]) == 5
        assert newest(participant_ids=["P2"], kinds=["query_raised"]) == 4
        assert newest(participant_ids=(f"P{n}" for n in range(12_000))) == 2


def test_news_is_looked_for_after_a_row_and_past_what_does_not_count(ledger: Ledger) -> None:
    """Rows of the kinds that are passed over do not count, nor do voids of such rows; any other void does."""
    day = StudyDayCompleted(occurred_on=date(2024, 3, 1), requested_by="flow study_day", site_id="701")
    ledger.append([screened("P1"), day, screened("P2")])
    ledger.append([void(ledger.history(kind="study_day_completed")["hash"][0])])
    passing_over = ["study_day_completed"]
    with ledger.writing() as writing:
        assert writing.newest_seq(site_ids=["701"]) == 4
        assert writing.newest_seq(site_ids=["701"], passing_over=passing_over) == 3
        assert writing.newest_seq(["P1"], ["701"], passing_over=passing_over, after=3) == 0
        assert writing.newest_seq(["P1"], ["701"], passing_over=passing_over, after=2) == 3
        assert writing.newest_seq(["P1"], passing_over=passing_over, after=1) == 0
    ledger.append([void(ledger.history(key="screened:P2")["hash"][0])])
    with ledger.writing() as writing:
        assert writing.newest_seq(site_ids=["701"], passing_over=passing_over) == 5


def test_recorded_at_never_goes_back(ledger: Ledger, clock: Clock) -> None:
    moments = ["12:00:00.000000", "12:00:00.000000", "12:00:00.000000", "12:00:01.000000"]
    for number, now in enumerate([NOON, NOON - timedelta(days=9), NOON, NOON + timedelta(seconds=1)]):
        clock.now = now
        ledger.append([screened(f"P{number}")])
    assert ledger.history()["recorded_at"].tolist() == [f"2024-03-01T{moment}Z" for moment in moments]
    assert ledger.verify().is_clean
    clock.now = datetime(2024, 3, 2)  # noqa: DTZ001 (the fault on trial)
    with pytest.raises(ValueError, match="has no time zone"):
        ledger.append([screened("P9")])


def test_clocks_that_change_keep_the_order(ledger: Ledger, clock: Clock) -> None:
    twice = datetime(2024, 10, 27, 1, 30, tzinfo=LONDON)
    for number, now in enumerate([datetime(2024, 3, 31, 2, 30, tzinfo=LONDON), twice, twice.replace(fold=1)]):
        clock.now = now
        ledger.append([screened(f"P{number}")])
    hours = ["2024-03-31T01:30:00.000000Z", "2024-10-27T00:30:00.000000Z", "2024-10-27T01:30:00.000000Z"]
    assert ledger.history()["recorded_at"].tolist() == hours
    assert ledger.verify().is_clean
    # 27 October lasts 25 hours in London, 31 March 23.
    assert ledger.history(since=date(2024, 10, 27), until=date(2024, 10, 27))["seq"].tolist() == [2, 3]
    assert ledger.history(until=date(2024, 3, 31))["seq"].tolist() == [1]


def test_history_is_filtered(ledger: Ledger, clock: Clock) -> None:
    source = Source(sha256=A, sheet="Ynys Môn", row=9)
    ledger.append([screened("P1", source=source), screened("P2", site_id="702", requested_by="Siân")])
    clock.now = NOON + timedelta(days=1)
    ledger.append(
        [DispositionRecorded(**WHO, participant_id="P1", occurred_on=date(2024, 3, 1), scope="a", reason="b")]
    )
    cases: list[tuple[dict[str, Any], list[int]]] = [
        ({}, [1, 2, 3]),
        ({"kind": "participant_screened"}, [1, 2]),
        ({"site_id": "702"}, [2]),
        ({"participant_id": "P1"}, [1, 3]),
        ({"requested_by": "Siân"}, [2]),
        ({"source_sha256": A}, [1]),
        ({"key": "screened:P2"}, [2]),
        ({"since": date(2024, 3, 2)}, [3]),
        ({"until": date(2024, 3, 1)}, [1, 2]),
        ({"since": NOON, "until": NOON}, [1, 2]),
        ({"since": NOON + timedelta(microseconds=1)}, [3]),
        ({"kind": "participant_screened", "site_id": "701", "until": date(2024, 3, 1)}, [1]),
        ({"newest": 2}, [2, 3]),
        ({"kind": "no_such_kind"}, []),
    ]
    for filters, rows in cases:
        assert ledger.history(**filters)["seq"].tolist() == rows, filters
    [first] = ledger.history(source_sha256=A).to_dict("records")
    assert (first["source_sheet"], first["source_row"], first["payload"]) == (
        "Ynys Môn",
        9,
        '{"body_id":"","cohort":"older_adults"}',
    )


def test_studies_share_a_database_and_nothing_else(ledger: Ledger, ledger_url: str, clock: Clock) -> None:
    with Ledger.open(ledger_url, "cdisc_pilot", clock) as other:
        [first] = ledger.append([screened("P1")])
        [second] = other.append([screened("P1", "children")])
        assert (second.answer, second.seq) == ("added", 1)
        with pytest.raises(LedgerRefused, match="No row of this ledger"):
            other.append([void(first.hash)])
        assert (people(ledger), people(other)) == ({"P1": "older_adults"}, {"P1": "children"})
        assert ledger.verify().is_clean
        assert other.verify().is_clean


# Computed with json.dumps and hashlib alone; a change to them would orphan every ledger there is.
GOLDEN = [
    "c4eb88343c1b90ea157b3f7d68f0e9769e530f4528431c9001af2e51f9db9d4c",
    "4c6fdf1b7fabf6a137ad4570a58dd7ebfb15e5dfd4a0f670407a7b30f3e92916",
    "cc3b6e347b97f0acc309e6968add2211329dc6b0d83e69d29281e3dee61eeb63",
]


def test_chain_is_frozen(ledger: Ledger) -> None:
    source = Source(sha256=A, sheet='Ynys Môn "日本" 😀', row=9)
    ledger.append([screened("01-701-1015", source=source, requested_by="Siân Ó Briain")])
    ledger.append([StudyDayCompleted(occurred_on=date(2024, 3, 31), requested_by="flow study_day")])
    ledger.append([void(ledger.history()["hash"][0])])
    assert ledger.history()["hash"].tolist() == GOLDEN
    [row] = ledger.read_events().frame(StudyDayCompleted).to_dict("records")
    assert row["hash"] == GOLDEN[1]
    assert derive_participants(ledger.read_events().select(known_at=NOON - timedelta(1))).empty


@pytest.mark.parametrize("change", ["UPDATE ledger SET site_id = '702'", "DELETE FROM ledger"])
def test_rows_cannot_be_changed(ledger: Ledger, change: str) -> None:
    ledger.append([screened("P1")])
    with (
        pytest.raises(sa.exc.DBAPIError, match="append-only: void the row instead"),
        ledger.engine.begin() as connection,
    ):
        connection.exec_driver_sql(change)
    assert ledger.verify(ledger.head()).n_rows == 1


@pytest.mark.parametrize("column", COLUMNS)
def test_tampering_with_a_column_is_found(ledger: Ledger, column: str) -> None:
    ledger.append([screened(f"P{number}", source=Source(sha256=A, sheet="Log", row=3)) for number in range(1, 8)])
    changes = {
        "study": "'other'",
        "seq": "8",
        "recorded_at": "'2024-03-01T12:00:00.000001Z'",
        "payload": "replace(payload, 'older', 'other')",
    }
    whole = COLUMNS[column] is sa.BigInteger
    change = changes.get(column, f"{column} + 1" if whole else f"'x' || {column}")
    tamper(ledger, f"UPDATE ledger SET {column} = {change} WHERE study = 'ipc' AND seq = 4")
    first = ledger.verify().faults[0]
    assert first == ("Row 4 is missing." if column in ("study", "seq") else "Row 4 was changed.")


def test_missing_rows_are_found(ledger: Ledger) -> None:
    ledger.append([screened(f"P{number}") for number in range(1, 10)])
    tamper(ledger, "DELETE FROM ledger WHERE seq IN (1, 4, 5)")
    assert ledger.verify().faults == ["Row 1 is missing.", "Rows 4 to 5 are missing."]


def test_reordered_rows_are_found(ledger: Ledger) -> None:
    ledger.append([screened(f"P{number}") for number in range(1, 8)])
    swap = ("UPDATE ledger SET seq = {} WHERE seq = {}".format(*places) for places in ((-1, 3), (3, 5), (5, -1)))
    tamper(ledger, *swap)
    assert ledger.verify().faults[:2] == [
        "Row 3 stands in another place than it was written: it was row 5.",
        "Row 4 does not follow row 3: row 3 is not the one it was.",
    ]


def test_row_taken_out_and_the_rest_moved_up_is_found(ledger: Ledger) -> None:
    ledger.append([screened(f"P{number}") for number in range(1, 5)])
    tamper(
        ledger,
        "DELETE FROM ledger WHERE seq = 2",
        *(f"UPDATE ledger SET seq = {n - 1} WHERE seq = {n}" for n in (3, 4)),
    )
    assert ledger.verify().faults[0] == "Row 2 stands in another place than it was written: it was row 3."


def test_cut_tail_is_found_by_a_published_head(ledger: Ledger) -> None:
    ledger.append([screened(f"P{number}") for number in range(1, 8)])
    published = ledger.head()
    tamper(ledger, "DELETE FROM ledger WHERE seq > 5")
    assert ledger.verify().is_clean
    assert ledger.verify(ledger.head()).is_clean
    assert ledger.verify(str(published)).faults == [
        "Rows 6 to 7 are missing. The published head was row 7; the ledger ends at row 5."
    ]


def test_ledger_written_anew_is_found_by_a_published_head(ledger: Ledger, clock: Clock) -> None:
    ledger.append([screened(f"P{number}") for number in range(1, 4)])
    published = ledger.head()
    tamper(ledger, "DELETE FROM ledger")
    ledger.append([screened(f"Q{number}") for number in range(1, 8)])
    assert ledger.verify().is_clean
    [fault] = ledger.verify(published).faults
    assert fault == f"Row 3 is not the one that was published, whose hash was {published.hash}."
    with pytest.raises(ValueError, match="is not a ledger head"):
        ledger.verify("yesterday's")


def test_row_rewritten_with_its_hash_is_found(ledger: Ledger, clock: Clock) -> None:
    """Row 2 gets a new hash of its own, which row 3 does not follow."""
    ledger.append([screened(f"P{number}") for number in range(1, 5)])
    forged = f"UPDATE ledger SET hash = '{A}', previous_hash = previous_hash WHERE seq = 2"
    tamper(ledger, forged)
    assert ledger.verify().faults == [
        "Row 2 was changed.",
        "Row 3 does not follow row 2: row 2 is not the one it was.",
    ]


def test_old_rows_stay_the_same_event(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A flow that runs again after an update tells a newer version of what stands: that is no conflict."""
    monkeypatch.setattr(vocabulary, "KINDS", dict(KINDS))
    monkeypatch.setattr(vocabulary, "_UPCASTERS", {})

    class Visited(Event):
        kind: ClassVar[str] = "visited"
        key_form: ClassVar[str] = "visited:{site_id}:{occurred_on}"
        purpose: Code

    visit: dict[str, Any] = {**WHO, "occurred_on": date(2024, 3, 1)}
    [old] = ledger.append([Visited(**visit, purpose="audit")])
    assert ledger.read_events(tmp_path).frame(Visited)["purpose"].tolist() == ["audit"]
    del vocabulary.KINDS["visited"]

    class VisitedNow(Event):
        kind: ClassVar[str] = "visited"
        kind_version: ClassVar[int] = 2
        key_form: ClassVar[str] = "visited:{site_id}:{occurred_on}"
        reason: Code
        n_people: Count

    upcaster("visited", 1)(lambda payload: {"reason": payload["purpose"], "n_people": 1})
    assert ledger.append([VisitedNow(**visit, reason="audit", n_people=1)]) == [old._replace(answer="same")]
    assert ledger.append([VisitedNow(**visit, reason="audit", n_people=2)])[0].answer == "conflict"
    ledger.append([VisitedNow(**{**visit, "site_id": "702"}, reason="training", n_people=3)])
    with Ledger.open(ledger.engine.url.render_as_string(hide_password=False), "ipc") as later:
        frame = later.read_events(tmp_path).frame(VisitedNow)
        assert frame[["reason", "n_people"]].to_numpy().tolist() == [["audit", 1], ["training", 3]]
        assert later.verify().is_clean
        del vocabulary.KINDS["visited"]
        with pytest.raises(
            UnknownKind, match='kind "visited" version 1, which this version of Summative does not know'
        ):
            Ledger(later.engine, "ipc", Clock()).read_events()


def test_tables_of_later_code_are_left_alone(ledger: Ledger, ledger_url: str) -> None:
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE ledger_migration SET version_num = '9999'")
    with pytest.raises(LedgerRefused, match="not known to this version of Summative"):
        Ledger.open(ledger_url, "ipc")


def test_newest_migration_is_the_one_that_the_ledger_expects() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [REVISION]


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://root:secret@host/db"])
def test_what_cannot_hold_a_ledger(url: str) -> None:
    with pytest.raises(ValueError, match="cannot hold a ledger") as fault:
        Ledger.open(url, "ipc")
    assert "secret" not in str(fault.value)


def write_much(url: str, writer: int, start: Any) -> None:
    """One of many: its own events, some that all writers tell alike, and one on which they contradict each other."""
    with Ledger.open(url, "ipc") as ledger:
        start.wait()
        for part in range(5):
            own = [screened(f"P{writer}-{part}-{number}") for number in range(5)]
            shared = [screened(f"S{part}-{number}") for number in range(5)]
            answers = ledger.append([*own, *shared, screened("contested", f"cohort_{writer}")])
            assert [answer.answer for answer in answers[:5]] == ["added"] * 5
            assert {answer.answer for answer in answers[5:-1]} <= {"added", "same"}
        assert {answer.answer for answer in ledger.append([*own, *shared])} == {"same"}


def test_many_writers_lose_and_double_nothing(ledger_url: str) -> None:
    """20 processes open a database that none of them has prepared, and write at once."""
    n_writers = 20
    start = PROCESSES.Barrier(n_writers)
    writers = [PROCESSES.Process(target=write_much, args=(ledger_url, number, start)) for number in range(n_writers)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0] * n_writers
    with Ledger.open(ledger_url, "ipc") as ledger:
        verification = ledger.verify(ledger.head())
        assert verification.is_clean, verification.faults
        assert verification.n_rows == n_writers * 25 + 25 + 1 + (n_writers - 1)
        told = Counter(people(ledger))
        assert set(told) == {
            *(f"P{writer}-{part}-{number}" for writer in range(n_writers) for part in range(5) for number in range(5)),
            *(f"S{part}-{number}" for part in range(5) for number in range(5)),
            "contested",
        }
        assert len(ledger.read_events().frame(ConflictRefused)) == n_writers - 1
        assert ledger.history()["recorded_at"].is_monotonic_increasing


PART = 40


def write_until_killed(url: str, writer: int) -> None:
    with Ledger.open(url, "ipc") as ledger:
        for part in range(10_000):
            ledger.append([screened(f"P{writer}-{part}-{number}") for number in range(PART)])


def test_killed_writers_leave_whole_appends(ledger_url: str) -> None:
    """SIGKILL at random moments: what was appended together is there together, and the next writer just goes on."""
    chance = random.Random(20240301)
    n_before = 0
    with Ledger.open(ledger_url, "ipc") as ledger:
        for number in range(20):
            writer = PROCESSES.Process(target=write_until_killed, args=(ledger_url, number))
            writer.start()
            give_up_at = time.monotonic() + 60
            while ledger.head().seq == n_before and time.monotonic() < give_up_at:
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.05))
            writer.kill()
            writer.join()
            n_after = ledger.append([screened(f"after-{number}")])[0].seq
            assert n_after > n_before + PART
            assert (n_after - n_before - 1) % PART == 0
            n_before = n_after
        assert ledger.verify(ledger.head()).is_clean
        whole = Counter(name.rpartition("-")[0] for name in people(ledger) if name.startswith("P"))
        assert set(whole.values()) == {PART}


@pytest.mark.parametrize("study", ["", ".", "a/b", "/ipc"])
def test_what_cannot_name_a_study(tmp_path: Path, study: str) -> None:
    with pytest.raises(ValueError, match="cannot name a study"):
        Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}", study)
