"""The ledger: an append-only, hash-chained table of everything that happened, on SQLite or PostgreSQL.

Writers take turns: SQLite's BEGIN IMMEDIATE, on PostgreSQL an advisory lock per study. Under that lock a row gets its
`seq`, its `recorded_at` and the hash of the row before it, so the order of rows is the order of commits, and whoever
reads up to a head reads a state that never changes.
"""

import errno
import hashlib
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache, partial
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self
from zoneinfo import ZoneInfo

import orjson
import pandas as pd
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from study.events import ConflictRefused, Event, Voided, compute_content_hash, upcast_payload
from study.state import EMPTY, ROW_TYPES, Events, Head, decode_rows, format_moment, parse_head
from tasks.event_cache import read_cached_events, write_cached_events

HASH_VERSION = 1
REVISION = "0001"
"""The newest migration of the ledger's tables."""

LONDON = ZoneInfo("Europe/London")
MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"

# In the order in which they are hashed, the hash itself last.
COLUMNS: dict[str, type[sa.Text] | type[sa.BigInteger]] = {
    "hash_version": sa.BigInteger,
    "previous_hash": sa.Text,
    "study": sa.Text,
    "seq": sa.BigInteger,
    "key": sa.Text,
    "revision": sa.BigInteger,
    "kind": sa.Text,
    "kind_version": sa.BigInteger,
    "site_id": sa.Text,
    "participant_id": sa.Text,
    "occurred_on": sa.Text,
    "recorded_at": sa.Text,
    "requested_by": sa.Text,
    "source_sha256": sa.Text,
    "source_sheet": sa.Text,
    "source_row": sa.BigInteger,
    "payload": sa.Text,
    "content_hash": sa.Text,
    "voids": sa.Text,
    "hash": sa.Text,
}
TABLE = sa.Table("ledger", sa.MetaData(), *(sa.Column(name, kind, nullable=False) for name, kind in COLUMNS.items()))
_MIGRATED = sa.Table("ledger_migration", sa.MetaData(), sa.Column("version_num", sa.Text))
_row = TABLE.c

_VALUES_AT_ONCE = 5_000  # well below the parameters that either database takes in one statement
_ROWS_AT_ONCE = 20_000  # about 10 MB of text: fewer round trips gain nothing more
_ROWS_A_PAGE = 2_000  # as Python objects
_BUSY_SECONDS = 60
_LOOK_AGAIN_SECONDS = 0.1
_PLACES_SOUGHT = 5  # faulty rows whose right place is looked for, which costs a hash per row of the ledger

Answer = Literal["added", "same", "conflict"]


class LedgerRefused(ValueError):
    """What was asked of the ledger would make it untrue."""


class SendingBusy(Exception):
    """Another process sends already."""


class Appended(NamedTuple):
    """What became of an event. For "same" and "conflict": the row that stands already."""

    key: str
    answer: Answer
    seq: int
    hash: str
    revision: int


class Standing(NamedTuple):
    """The newest revision of a key."""

    key: str
    revision: int
    seq: int
    hash: str
    kind: str
    kind_version: int
    content_hash: str
    is_voided: bool


class _Target(NamedTuple):
    """What a void must know of the row that it voids."""

    seq: int
    key: str
    kind: str
    site_id: str
    participant_id: str


@dataclass(frozen=True)
class Verification:
    """What re-computing the chain showed. `faults` are in ledger order: the first names the first tampered row."""

    n_rows: int
    head: Head
    faults: list[str]

    @property
    def is_clean(self) -> bool:
        return not self.faults


def utc_now() -> datetime:
    return datetime.now(UTC)


def compute_row_hash(row: Sequence[str | int]) -> str:
    """SHA-256 of a row without its hash, as a canonical JSON array in the order of `COLUMNS`."""
    return hashlib.sha256(orjson.dumps(row)).hexdigest()


class Ledger:
    """One study's ledger. Safe to share between threads; every process opens its own."""

    def __init__(self, engine: sa.Engine, study: str, clock: Callable[[], datetime]) -> None:
        self.engine = engine
        self.study = study
        self.clock = clock
        self._events = Events({})
        self._cached_seq = 0

    @classmethod
    def open(cls, url: str, study: str, clock: Callable[[], datetime] = utc_now, *, is_synced: bool = True) -> Self:
        """Open the ledger of a study, and create or migrate its tables where needed.

        `url` names a SQLite file (sqlite:///path) or a PostgreSQL database (postgresql://...). `clock` gives the time
        with its zone; a replay injects its own. Without `is_synced` a SQLite ledger is written faster, and a power cut
        (not a killed process) may take its last rows. Raises ValueError for a study whose name cannot name a file
        (of its cache), or a URL that cannot hold a ledger.
        """
        if not study or Path(study).name != study:
            raise ValueError(f'"{study}" cannot name a study. Use letters, digits and "_".')
        engine = _create_engine(make_url(url), is_synced=is_synced)
        try:
            _migrate(engine)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, study, clock)

    def close(self) -> None:
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def append(self, events: Iterable[Event]) -> list[Appended]:
        """Append all of these or, if one is refused, none; see `Writing.append`."""
        with self.writing() as writing:
            return writing.append(events)

    @contextmanager
    def writing(self) -> Iterator["Writing"]:
        """Hold the study's write lock: look, decide and append with nobody between. An exception undoes it all.

        Keep it short: every other writer waits (on SQLite up to a minute, then they fail).
        """
        with self.engine.connect().execution_options(writes=True) as connection, connection.begin():
            _lock(connection, self.study)
            yield Writing(connection, self.study, self.clock)

    @contextmanager
    def sending(self, wait_seconds: float = 0.0) -> Iterator[None]:
        """While this lasts no other process or thread sends what goes out of this study; it ends with the process.

        Writing goes on meanwhile. On SQLite a file beside the ledger is held, on PostgreSQL an advisory lock by a
        connection of its own (to the server itself: a pool in between may hand a session to somebody else). Raises
        SendingBusy if another sends for longer than `wait_seconds`.
        """
        give_up_at = monotonic() + wait_seconds
        with _open_sending(self.engine, self.study) as is_ours:
            while not is_ours():
                if monotonic() >= give_up_at:
                    raise SendingBusy(
                        "Another run is sending what waits. Look again when it is through; nothing is sent twice."
                    )
                sleep(_LOOK_AGAIN_SECONDS)
            yield

    def head(self) -> Head:
        with self.engine.connect() as connection:
            return _find_head(connection, self.study)[0]

    def read_events(self, cache_folder: Path | None = None) -> Events:
        """Every row up to the present head, decoded; only what came since the last reading is read and decoded.

        What was read stays in this object and, with `cache_folder`, on disk for the next process. Either counts only
        if the ledger holds the row at which it ends, with its hash.
        """
        with self.engine.connect() as connection:
            head = _find_head(connection, self.study)[0]
            events = self._events
            if not events.head.seq and cache_folder and (cached := read_cached_events(cache_folder, self.study)):
                events, self._cached_seq = cached, cached.head.seq
            if events.head != head and not _holds(connection, self.study, events.head):
                events, self._cached_seq = Events({}), 0
            if events.head != head:
                events = events.extend(_read_parts(connection, self.study, events.head.seq, head.seq), head)
        # A cache is rewritten when a tenth is new: the rest is decoded again in less time than writing it takes.
        if cache_folder and head.seq - self._cached_seq > self._cached_seq // 10:
            write_cached_events(cache_folder, self.study, events)
            self._cached_seq = head.seq
        self._events = events
        return events

    def forget_events(self) -> None:
        """Give back what reading, and what is remembered with it, takes of the memory, as soon as no caller holds it
        any more; the next reading begins with what is on disk."""
        self._events, self._cached_seq = Events({}), 0
        pa.default_memory_pool().release_unused()

    def verify(self, against: Head | str | None = None) -> Verification:
        """Compute every hash again and follow the chain from the first row; say which rows were changed, are missing
        or stand in another place than they were written.

        A chain cannot show that its tail was cut off, or that all of it was written anew: `against` is a head that was
        published elsewhere, and must be on the chain. Raises ValueError if it is no head.
        """
        published = parse_head(against) if isinstance(against, str) else against
        faults: list[str] = []
        n_rows, last, last_recorded_at = 0, EMPTY, ""
        for row in self._scan():
            n_rows += 1
            previous_hash, seq, recorded_at = row[1], row[3], row[11]
            if seq != last.seq + 1:
                faults.append(_name_missing(last.seq + 1, seq - 1))
            if compute_row_hash(row[:-1]) != row[-1]:
                faults.append(self._name_fault(row) if len(faults) < _PLACES_SOUGHT else f"Row {seq} was changed.")
            elif previous_hash != last.hash and seq == last.seq + 1:
                faults.append(f"Row {seq} does not follow row {last.seq}: row {last.seq} is not the one it was.")
            elif recorded_at < last_recorded_at:
                faults.append(f"Row {seq} says that it was recorded before row {last.seq}.")
            if published and published.seq == seq and published.hash != row[-1]:
                faults.append(f"Row {seq} is not the one that was published, whose hash was {published.hash}.")
            last, last_recorded_at = Head(seq, row[-1]), recorded_at
        if published and published.seq > last.seq:
            missing = _name_missing(last.seq + 1, published.seq)
            faults.append(f"{missing} The published head was row {published.seq}; the ledger ends at row {last.seq}.")
        return Verification(n_rows, last, faults)

    def _scan(self) -> Iterator[tuple[Any, ...]]:
        """Every row as plain values, in the order of `COLUMNS`; straight from the driver, which halves the time."""
        limits = (_row.study == self.study, _row.seq > sa.bindparam("after"))
        query = sa.select(*(_row[name] for name in COLUMNS)).where(*limits).order_by(_row.seq).limit(_ROWS_A_PAGE)
        after = -sys.maxsize
        with self.engine.connect() as connection:
            while (cursor := connection.execute(query, {"after": after}).cursor) and (part := cursor.fetchall()):
                yield from part
                after = part[-1][3]

    def _name_fault(self, row: tuple[Any, ...]) -> str:
        """A row without its hash was changed, unless the hash is right for another place: then it was moved there."""
        columns = list(row[:-1])
        place = list(COLUMNS).index("seq")
        for seq in range(1, self.head().seq + 2):
            columns[place] = seq
            if compute_row_hash(columns) == row[-1]:
                return f"Row {row[place]} stands in another place than it was written: it was row {seq}."
        return f"Row {row[place]} was changed."

    def history(
        self,
        kind: str | None = None,
        site_id: str | None = None,
        participant_id: str | None = None,
        requested_by: str | None = None,
        since: date | datetime | None = None,
        until: date | datetime | None = None,
        source_sha256: str | None = None,
        key: str | None = None,
        newest: int | None = None,
    ) -> pd.DataFrame:
        """What was recorded, for people: one row an event in ledger order, voided ones among them.

        `since` and `until` limit when it was recorded and count themselves in; a date means that day in London.
        `newest` keeps the last so many. Columns: seq, recorded_at, occurred_on, kind, site_id, participant_id,
        requested_by, source_sha256, source_sheet, source_row, key, revision, payload, hash, voided_by (the seq of the
        void, 0: it stands).
        """
        void = TABLE.alias()
        voided_by = sa.select(void.c.seq).where(
            void.c.study == _row.study, void.c.voids == _row.hash, void.c.voids != sa.literal_column("''")
        )
        query = sa.select(
            *(_row[name] for name in _HISTORY), sa.func.coalesce(voided_by.scalar_subquery(), 0).label("voided_by")
        ).where(_row.study == self.study)
        for name, wanted in {
            "kind": kind,
            "site_id": site_id,
            "participant_id": participant_id,
            "requested_by": requested_by,
            "source_sha256": source_sha256,
            "key": key,
        }.items():
            if wanted is not None:
                query = query.where(_row[name] == wanted)
        if since is not None:
            query = query.where(_row.recorded_at >= format_moment(_find_start(since)))
        if isinstance(until, datetime):
            query = query.where(_row.recorded_at <= format_moment(until))
        elif until is not None:
            query = query.where(_row.recorded_at < format_moment(_find_start(until + timedelta(days=1))))
        with self.engine.connect() as connection:
            rows = connection.execute(query.order_by(_row.seq.desc()).limit(newest)).all()
        return pd.DataFrame(rows[::-1], columns=[*_HISTORY, "voided_by"])


_HISTORY = (
    *("seq", "recorded_at", "occurred_on", "kind", "site_id", "participant_id", "requested_by"),
    *("source_sha256", "source_sheet", "source_row", "key", "revision", "payload", "hash"),
)


class Writing:
    """The ledger under its study's write lock. Of no use after the `with` block that gave it."""

    def __init__(self, connection: sa.Connection, study: str, clock: Callable[[], datetime]) -> None:
        self._connection = connection
        self._study = study
        self._clock = clock
        self.head, self._last_recorded_at = _find_head(connection, study)

    def append(self, events: Iterable[Event]) -> list[Appended]:
        """Add what is new, in the order given, and say of each event what became of it.

        "added": it is in the ledger now. "same": its key stands with the same content; who tells it again, and from
        which file, makes no difference. "conflict": its key stands with other content; the event is refused, and that
        it was refused is recorded, once. A voided key can be entered again: it becomes the key's next revision.

        A void may leave site_id and participant_id blank: it concerns whom the voided row concerns. `recorded_at` is
        the clock's time, or the last row's if the clock went back. Raises LedgerRefused for a void of a row that is
        not there, is itself a void, or concerns someone else; nothing is added then.
        """
        events = list(events)
        standing = self.find_keys(event.key for event in events)
        targets = self._find_targets(event.voids for event in events if isinstance(event, Voided))
        head, recorded_at = self.head, max(format_moment(self._clock()), self._last_recorded_at)
        rows: list[tuple[str | int, ...]] = []

        def tell(event: Event) -> Appended:
            nonlocal head
            key, payload, occurred_on = event.key, event.encode_payload(), event.occurred_on.isoformat()
            content = (event.kind, event.kind_version, occurred_on, event.site_id, event.participant_id, payload)
            content_hash = compute_content_hash(*content)
            stands = standing.get(key)
            if stands and not stands.is_voided:
                if self._find_content_hash(stands, event) == content_hash:
                    return Appended(key, "same", stands.seq, stands.hash, stands.revision)
                conflict = _derive_conflict(event, content_hash, stands)
                if conflict.key not in standing:
                    standing.update(self.find_keys([conflict.key]))
                if conflict.key not in standing:
                    tell(conflict)
                return Appended(key, "conflict", stands.seq, stands.hash, stands.revision)
            source = event.source
            row = (
                *(HASH_VERSION, head.hash, self._study, head.seq + 1),
                *(key, stands.revision + 1 if stands else 1, event.kind, event.kind_version),
                *(event.site_id, event.participant_id, occurred_on, recorded_at, event.requested_by),
                *((source.sha256, source.sheet, source.row) if source else ("", "", 0)),
                *(payload, content_hash, event.voids if isinstance(event, Voided) else ""),
            )
            head = Head(head.seq + 1, compute_row_hash(row))
            rows.append((*row, head.hash))
            added = Standing(key, row[5], head.seq, head.hash, event.kind, event.kind_version, content_hash, False)
            standing[key] = added
            return Appended(key, "added", added.seq, added.hash, added.revision)

        answers = []
        for event in events:
            if isinstance(event, Voided):
                target = targets.get(event.voids)
                answers.append(tell(_complete_void(event, target)))
                if target and (stands := standing.get(target.key)) and stands.hash == event.voids:
                    standing[target.key] = stands._replace(is_voided=True)
            else:
                answers.append(tell(event))
        if rows:
            marker = "?" if self._connection.dialect.paramstyle == "qmark" else "%s"
            markers = ", ".join([marker] * len(COLUMNS))
            self._connection.exec_driver_sql(f"INSERT INTO ledger ({', '.join(COLUMNS)}) VALUES ({markers})", rows)  # noqa: S608 (names of columns, nothing from outside)
            self.head, self._last_recorded_at = head, recorded_at
        return answers

    def find_keys(self, keys: Iterable[str]) -> dict[str, Standing]:
        """The newest revision of those of these keys that the ledger has."""
        found = {}
        for part in _divide(keys):
            for row in self._connection.execute(_ask_for_keys(), {"study": self._study, "keys": part}):
                found[row.key] = Standing._make(row)
        return found

    def count(self, kind: str, site_id: str | None = None) -> int:
        """How many events of a kind were ever recorded, voided ones too: a number derived from it is never given
        twice."""
        query = sa.select(sa.func.count()).select_from(TABLE).where(_row.study == self._study, _row.kind == kind)
        if site_id is not None:
            query = query.where(_row.site_id == site_id)
        return int(self._connection.execute(query).scalar_one())

    def newest_seq(
        self,
        participant_ids: Iterable[str] = (),
        site_ids: Iterable[str] = (),
        kinds: Iterable[str] = (),
        passing_over: Iterable[str] = (),
        after: int = 0,
    ) -> int:
        """The last row that names any of these participants or sites, or is of any of these kinds; 0 if none does.

        Who decided on the state at head H claims only if nothing that the decision rests on is newer than H. Rows of
        the kinds in `passing_over` do not count, nor do voids of such rows. `after`: only rows later than this one are
        looked at, which costs the same however long the ledger is.
        """
        if self.head.seq <= after:
            return 0
        newest, passed = 0, tuple(sorted(passing_over))
        for name, wanted in (("participant_id", participant_ids), ("site_id", site_ids), ("kind", kinds)):
            query = _ask_for_newest(name, passed)
            for part in _divide(wanted):
                about = {"study": self._study, "wanted": part, "after": after}
                newest = max(newest, self._connection.execute(query, about).scalar() or 0)
        return newest

    def _find_targets(self, hashes: Iterable[str]) -> dict[str, "_Target"]:
        columns = [_row[name] for name in ("hash", *_Target._fields)]
        query = sa.select(*columns).where(_row.study == self._study)
        return {
            row.hash: _Target(*row[1:])
            for part in _divide(hashes)
            for row in self._connection.execute(query.where(_start_of(_row.hash).in_([each[:16] for each in part])))
        }

    def _find_content_hash(self, stands: Standing, event: Event) -> str:
        """The content hash of a standing row, as the event's version of the kind would have written the row."""
        if stands.kind != event.kind or stands.kind_version == event.kind_version:
            return stands.content_hash
        columns = (_row.occurred_on, _row.site_id, _row.participant_id, _row.payload)
        query = sa.select(*columns).where(_row.study == self._study, _row.seq == stands.seq)
        occurred_on, site_id, participant_id, payload = self._connection.execute(query).one()
        payload = upcast_payload(stands.kind, stands.kind_version, payload)
        return compute_content_hash(event.kind, event.kind_version, occurred_on, site_id, participant_id, payload)


# The questions that are asked for every message and pack: put together once.


@lru_cache(maxsize=1)
def _ask_for_keys() -> sa.Select[Any]:
    """The rows of these `keys`, a key's newest revision last, and whether each is voided."""
    void = TABLE.alias()
    is_voided = sa.exists().where(
        void.c.study == _row.study, void.c.voids == _row.hash, void.c.voids != sa.literal_column("''")
    )
    columns = [_row[name] for name in Standing._fields[:-1]]
    is_asked_for = _row.key.in_(sa.bindparam("keys", expanding=True))
    return (
        sa.select(*columns, is_voided).where(_row.study == sa.bindparam("study"), is_asked_for).order_by(_row.revision)
    )


@lru_cache(maxsize=32)
def _ask_for_newest(name: str, passing_over: tuple[str, ...]) -> sa.Select[Any]:
    """The last row later than `after` whose column holds one of `wanted` and whose kind is not passed over."""
    counts = _is_none_of(passing_over) if passing_over else sa.true()
    is_wanted = _row[name].in_(sa.bindparam("wanted", expanding=True))
    query = sa.select(sa.func.max(_row.seq)).where(_row.study == sa.bindparam("study"), is_wanted, counts)
    return query.where(_row.seq > sa.bindparam("after"))


def _start_of(digest: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    """The first digits of a hash, as in the index of hashes."""
    return sa.func.substr(digest, sa.literal_column("1"), sa.literal_column("16"))


def _is_none_of(kinds: Sequence[str]) -> sa.ColumnElement[bool]:
    """A row is of none of these kinds, and voids no row of one."""
    target = TABLE.alias()
    voids_one = sa.exists().where(
        target.c.study == _row.study,
        _start_of(target.c.hash) == _start_of(_row.voids),
        target.c.hash == _row.voids,
        target.c.kind.in_(kinds),
    )
    return sa.and_(_row.kind.not_in(kinds), sa.or_(_row.kind != Voided.kind, sa.not_(voids_one)))


def _complete_void(void: Voided, target: _Target | None) -> Voided:
    if target is None:
        raise LedgerRefused(f"No row of this ledger has the hash {void.voids}, so it cannot be voided.")
    if target.kind == Voided.kind:
        raise LedgerRefused(
            f"Row {target.seq} is a void, and a void cannot be voided. Enter again what it voided: that becomes a new "
            "revision."
        )
    about = {"site_id": target.site_id, "participant_id": target.participant_id}
    told = {"site_id": void.site_id, "participant_id": void.participant_id}
    if any(told[name] not in ("", about[name]) for name in about):
        raise LedgerRefused(
            f"Row {target.seq} ({target.key}) does not concern the site and participant that its void names."
        )
    return void.model_copy(update=about)


def _derive_conflict(event: Event, content_hash: str, stands: Standing) -> ConflictRefused:
    return ConflictRefused(
        occurred_on=event.occurred_on,
        requested_by=event.requested_by,
        site_id=event.site_id,
        participant_id=event.participant_id,
        source=event.source,
        refused_key=stands.key,
        refused_kind=event.kind,
        refused_content_hash=content_hash,
        standing_hash=stands.hash,
    )


def _divide(values: Iterable[str]) -> Iterator[list[str]]:
    ordered = sorted(set(values))
    return (ordered[start : start + _VALUES_AT_ONCE] for start in range(0, len(ordered), _VALUES_AT_ONCE))


def _find_start(when: date | datetime) -> datetime:
    return when if isinstance(when, datetime) else datetime.combine(when, time.min, LONDON)


def _name_missing(first: int, last: int) -> str:
    return f"Row {first} is missing." if first == last else f"Rows {first} to {last} are missing."


@lru_cache(maxsize=1)
def _ask_for_head() -> sa.Select[Any]:
    query = sa.select(_row.seq, _row.hash, _row.recorded_at).where(_row.study == sa.bindparam("study"))
    return query.order_by(_row.seq.desc()).limit(1)


def _find_head(connection: sa.Connection, study: str) -> tuple[Head, str]:
    """The last row, and when it was recorded ("" in an empty ledger)."""
    row = connection.execute(_ask_for_head(), {"study": study}).one_or_none()
    return (Head(row.seq, row.hash), row.recorded_at) if row else (EMPTY, "")


def _holds(connection: sa.Connection, study: str, head: Head) -> bool:
    if head == EMPTY:
        return True
    query = sa.select(_row.hash).where(_row.study == study, _row.seq == head.seq)
    return connection.execute(query).scalar() == head.hash


def _read_parts(connection: sa.Connection, study: str, after: int, until: int) -> Iterator[dict[str, pa.Table]]:
    """Decode the rows after one `seq` until another, inclusive.

    The database joins the rows of a part into one text, which Arrow parses: no Python object per value. (ADBC would do
    as well, but its own copy of SQLite in this process would undo the file locks of Python's copy.) While one part is
    decoded, a second thread has the database write the next.
    """
    query = _select_lines(connection.dialect.name)

    def read(start: int) -> bytes:
        limits = {"study": study, "after": start, "until": min(start + _ROWS_AT_ONCE, until)}
        lines: bytes | str = connection.execute(query, limits).scalar_one()
        return lines.encode() if isinstance(lines, str) else lines

    if until - after <= _ROWS_AT_ONCE:
        yield decode_rows(read(after))
        return
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(read, after)
        for start in range(after + _ROWS_AT_ONCE, until, _ROWS_AT_ONCE):
            lines, ahead = ahead.result(), reader.submit(read, start)
            yield decode_rows(lines)
        yield decode_rows(ahead.result())


def _select_lines(dialect: str) -> sa.Select[Any]:
    """Joined in whatever order the database visits the rows (by the primary key's index): decoding sorts if need be."""
    columns = [_row[name] for name in ROW_TYPES]
    if dialect == "sqlite":
        lines = sa.func.group_concat(sa.func.printf("\x1f".join(["%s"] * len(columns)), *columns), "\n")
    else:
        lines = sa.func.string_agg(sa.func.concat_ws("\x1f", *columns), "\n")
    limits = (_row.study == sa.bindparam("study"), _row.seq > sa.bindparam("after"), _row.seq <= sa.bindparam("until"))
    return sa.select(sa.cast(lines, sa.LargeBinary) if dialect == "sqlite" else lines).where(*limits)


def _lock(connection: sa.Connection, name: str) -> None:
    """Wait until this transaction alone may write. On SQLite it does so from its BEGIN IMMEDIATE on."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_number_lock("ledger", name))))


def _number_lock(what: str, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"summative {what} {name}".encode()).digest()[:8], signed=True)


@contextmanager
def _open_sending(engine: sa.Engine, study: str) -> Iterator[Callable[[], bool]]:
    """Gives a function that tries to become the one sender of a study, and says whether that is now so."""
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.detach()  # closed at the end, and not pooled: with its session the lock is gone for sure
            attempt = sa.select(sa.func.pg_try_advisory_lock(_number_lock("sending", study)))
            try:
                yield lambda: bool(connection.execute(attempt).scalar_one())
            finally:
                with suppress(sa.exc.SQLAlchemyError):  # the server notices a closed connection a little later
                    connection.execute(sa.select(sa.func.pg_advisory_unlock_all()))
    else:
        path = Path(f"{engine.url.database}-sending-{study}")
        with path.open("ab") as file:
            yield lambda: _hold(file.fileno())


def _hold(descriptor: int) -> bool:
    """Hold a file until it is closed, or the process ends; False if somebody else does."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as fault:
        if fault.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        raise
    return True


def _create_engine(url: URL, *, is_synced: bool) -> sa.Engine:
    if url.get_backend_name() == "postgresql":
        return sa.create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        raise ValueError(
            f"{url.render_as_string()} cannot hold a ledger. Give a SQLite file (sqlite:///path) or a PostgreSQL "
            "database (postgresql://...)."
        )
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_SECONDS})
    sa.event.listen(engine, "connect", partial(_prepare_sqlite, is_synced=is_synced))
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _: object, *, is_synced: bool) -> None:
    """WAL: readers never wait. FULL: what was committed survives a power cut, because a sending is claimed here before
    it goes out, and a claim that is lost is a message that goes out twice."""
    connection.isolation_level = None  # transactions are begun below, not by the driver
    give_up_at = monotonic() + _BUSY_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = wal")
        except sqlite3.OperationalError:  # another process opens the new file too: SQLite does not wait for this one
            if monotonic() > give_up_at:
                raise
            sleep(0.01)
    connection.execute(f"PRAGMA synchronous = {'full' if is_synced else 'normal'}")
    connection.execute("PRAGMA cache_size = -65536")  # KiB; a fold reads four times as fast as with the default 2 MB


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def _migrate(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        is_new = not sa.inspect(connection).has_table(_MIGRATED.name)
        if not is_new and connection.execute(sa.select(_MIGRATED.c.version_num)).scalar() == REVISION:
            return
    from alembic import command  # takes a moment to import, and a ledger is new, or of an older version, once
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        _lock(connection, "")
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as fault:
            raise LedgerRefused(
                f"The tables of {engine.url.render_as_string()} are not known to this version of Summative ({fault}). "
                "Update Summative."
            ) from None
