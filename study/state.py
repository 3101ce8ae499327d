"""Fold the ledger into frames, as of a date and as known at a moment.

`Events` holds every row of a ledger, decoded into one Arrow table per kind. Rules ask it for the frame of one kind, or
for one of the `derive_` folds below. All of it is vectorised: a million rows take seconds, not minutes.
"""

import io
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from functools import cached_property, lru_cache, wraps
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.json

from study.events import (
    ConsentRecorded,
    DispositionRecorded,
    Event,
    ParticipantAllocated,
    ParticipantScreened,
    QueryAnswered,
    QueryClosed,
    QueryRaised,
    ReturnAccepted,
    ReturnFileProcessed,
    Voided,
    find_kind,
    upcast_payload,
)
from study.queries import CLOSED, WITH_SITE, WITH_STUDY

if TYPE_CHECKING:
    from study.protocol import Study

pc: Any = pyarrow.compute  # its stubs know neither chunked arrays in every place nor plain values as scalars

_DAY = pa.timestamp("us")
_MOMENT = pa.timestamp("us", "UTC")
_TYPES: dict[type, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    bool: pa.bool_(),
    date: _DAY,
    tuple: pa.list_(pa.string()),
}
_ENVELOPE: dict[str, pa.DataType] = {
    "seq": pa.int64(),
    "key": pa.string(),
    "hash": pa.string(),
    "site_id": pa.string(),
    "participant_id": pa.string(),
    "occurred_on": _DAY,
    "recorded_at": _MOMENT,
    "requested_by": pa.string(),
    "source_sha256": pa.string(),
    "source_sheet": pa.string(),
    "source_row": pa.int64(),
}
ROW_TYPES = {**_ENVELOPE, "kind": pa.string(), "kind_version": pa.int64(), "payload": pa.string()}
"""The columns that a fold needs of every row, in the order in which `decode_rows` expects them."""


class Head(NamedTuple):
    """The last row of a ledger. Published elsewhere as `seq:hash`, it shows later whether a tail was cut off."""

    seq: int = 0
    hash: str = "0" * 64

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"


EMPTY = Head()


def parse_head(text: str) -> Head:
    """Raises ValueError unless the text is a head as published: a whole number, a colon, 64 hexadecimal digits."""
    seq, _, digest = text.strip().partition(":")
    if not seq.isdecimal() or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ValueError(f'"{text}" is not a ledger head. Expected the form 1234:<64 hexadecimal digits>.')
    return Head(int(seq), digest)


def format_moment(moment: datetime) -> str:
    """A moment as the ledger writes it: UTC, microseconds, "Z". Raises ValueError for a time without a zone."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone. Give one, so that it names one moment.")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_moment(text: str) -> datetime:
    """The inverse of `format_moment`."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


def derive_schema(kind: type[Event]) -> pa.Schema:
    """The columns of a decoded kind: the envelope, then the payload."""
    payload = {name: _TYPES[plain] for name, plain in kind.payload_types.items()}
    return pa.schema([*_ENVELOPE.items(), *payload.items()])


def decode_rows(lines: bytes) -> dict[str, pa.Table]:
    """Rows as text to one table per kind.

    One row a line, its `ROW_TYPES` columns parted by the unit separator (U+001F). No value can hold either of the two:
    events refuse control characters, and canonical JSON escapes them. Rows of older kind versions are upcast.

    Raises ValueError where the text is no row of a ledger, UnknownKind for a kind or version of later code.
    """
    try:
        rows = pyarrow.csv.read_csv(
            io.BytesIO(lines),
            pyarrow.csv.ReadOptions(column_names=list(ROW_TYPES)),
            pyarrow.csv.ParseOptions(delimiter="\x1f", quote_char=False),
            pyarrow.csv.ConvertOptions(column_types=ROW_TYPES, null_values=[], strings_can_be_null=False),
        )
    except pa.ArrowInvalid:
        raise ValueError("A row of the ledger cannot be read. `summative verify` names it.") from None
    versions = rows.group_by(["kind", "kind_version"]).aggregate([]).to_pylist()
    fields = rows.drop_columns(["kind", "kind_version"])
    parts: dict[str, list[pa.Table]] = {}
    for version in sorted(versions, key=lambda row: (row["kind"], row["kind_version"])):
        here = pc.and_(*(pc.equal(rows[name], value) for name, value in version.items()))
        parts.setdefault(version["kind"], []).append(_decode(**version, rows=fields.filter(here)))
    return {kind: join_tables(tables) for kind, tables in parts.items()}


def _decode(kind: str, kind_version: int, rows: pa.Table) -> pa.Table:
    present = find_kind(kind, kind_version)
    table = rows.select(list(_ENVELOPE))
    if not present.payload_types:
        return table
    payloads = rows["payload"].combine_chunks()
    try:
        if kind_version < present.kind_version:
            payloads = pa.array(
                [upcast_payload(kind, kind_version, str(text)) for text in payloads.to_pylist()], pa.string()
            )
        one_list = pa.ListArray.from_arrays(pa.array([0, len(payloads)], pa.int32()), payloads)
        decoded = pyarrow.json.read_json(
            io.BytesIO(pc.binary_join(one_list, "\n")[0].as_buffer()),
            parse_options=pyarrow.json.ParseOptions(
                explicit_schema=pa.schema([(name, _TYPES[plain]) for name, plain in present.payload_types.items()]),
                unexpected_field_behavior="error",
            ),
        )
    except (pa.ArrowInvalid, json.JSONDecodeError):
        raise ValueError(f'A payload of kind "{kind}" cannot be read. `summative verify` names the row.') from None
    for name, plain in present.payload_types.items():
        if plain is not date and decoded[name].null_count:
            raise ValueError(f'Rows of kind "{kind}" version {kind_version} lack {name}: the kind needs an upcaster.')
        table = table.append_column(name, decoded[name])
    return table


def join_tables(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables of one kind as one, in the order of the ledger."""
    joined = pa.concat_tables(tables)
    if len(tables) > 1 and joined["seq"].num_chunks > max(100, len(joined) // 1_000):
        joined = joined.combine_chunks()  # many small additions: copied now and then, so that each stays cheap
    seq = joined["seq"].to_numpy()
    return joined if bool(np.all(seq[1:] > seq[:-1])) else joined.sort_by("seq")


@dataclass(frozen=True)
class Events:
    """The rows of a ledger up to `head`, one decoded Arrow table per kind, seen as of a date and known at a moment.

    A selection keeps all rows and narrows the view, so a void that was recorded later is not yet known in it.
    """

    _tables: Mapping[str, pa.Table]
    head: Head = EMPTY
    as_of: date | None = None
    known_at: datetime | None = None
    # What `remembered` folds gave, for as long as the rows that they read are in memory; shared by all views of them.
    _folded: "dict[tuple[object, ...], _Folded]" = field(default_factory=dict, compare=False, repr=False)
    # What was looked at before: tables and frames by kind and view, and their rows by site; shared in the same way.
    _looked_at: "dict[tuple[object, ...], Any]" = field(default_factory=dict, compare=False, repr=False)

    @property
    def tables(self) -> Mapping[str, pa.Table]:
        """Every row by kind, voided ones among them, whatever the view."""
        _note_reading(_ANY_KIND)
        return self._tables

    def select(self, as_of: date | None = None, known_at: datetime | str | None = None) -> "Events":
        """Only what had happened by the end of `as_of`, as far as recorded by `known_at`; both count themselves in.

        A view only narrows: of two limits the earlier holds. Raises ValueError for a moment without a time zone.
        """
        if isinstance(known_at, str):
            known_at = parse_moment(known_at)
        if known_at is not None:
            format_moment(known_at)
        return replace(
            self,
            as_of=min((limit for limit in (self.as_of, as_of) if limit), default=None),
            known_at=min((limit for limit in (self.known_at, known_at) if limit), default=None),
        )

    @cached_property
    def voided(self) -> "pa.ChunkedArray[Any]":
        """Hashes of the rows that were known to be mistakes. A void holds from when it was recorded, whatever `as_of`:
        what was entered in error was never true."""
        return self._find_known(Voided)["voids"]

    def _find_known(self, kind: type[Event]) -> pa.Table:
        _note_reading(kind.kind)
        if kind.kind not in self._tables:
            return derive_schema(kind).empty_table()
        table = self._tables[kind.kind]
        if self.known_at is None:
            return table
        return table.filter(pc.less_equal(table["recorded_at"], pa.scalar(self.known_at, _MOMENT)))

    def table(self, kind: type[Event]) -> pa.Table:
        """The standing events of one kind in this view, as Arrow columns: envelope, then payload; in ledger order."""
        _note_reading(kind.kind, Voided.kind)
        table: pa.Table = self._look(("table", kind.kind), lambda: self._select(kind))
        return table

    def table_of_site(self, kind: type[Event], site_id: str) -> pa.Table:
        """The rows of `table` that are of one site. To ask for every site costs little more than to ask for one."""
        table = self.table(kind)
        if len(table) > _MANY:
            return table.filter(pc.equal(table["site_id"], site_id))
        parts: dict[str, pa.Table] = self._look(("sites", kind.kind), lambda: _divide_by_site(table))
        return parts.get(site_id, table.slice(0, 0))

    def frame(self, kind: type[Event], columns: Sequence[str] = ()) -> pd.DataFrame:
        """The standing events of one kind in this view: seq, key, hash, site_id, participant_id, occurred_on,
        recorded_at, requested_by, source_sha256, source_sheet, source_row, then the payload's fields.

        Dates are datetime64, NaT where the field may be None; text is "" where the event left it blank; several codes
        are one text, joined with ";". One row an event, in ledger order, fresh index. `columns`: these alone, which of
        many rows takes a fraction of time and memory.
        """
        _note_reading(kind.kind, Voided.kind)
        if columns:
            return derive_frame(self.table(kind).select(list(columns)))
        frame: pd.DataFrame = self._look(("frame", kind.kind), lambda: derive_frame(self.table(kind)))
        return frame.copy(deep=False)

    def frame_among(self, kind: type[Event], name: str, among: Any, columns: Sequence[str] = ()) -> pd.DataFrame:
        """The rows of `frame` whose column `name` is one of these: where few are meant, a fraction of the time."""
        table = self.table(kind)
        is_wanted = pc.is_in(table[name], pa.array(among, table.schema.field(name).type))
        return derive_frame((table.select(list(columns)) if columns else table).filter(is_wanted))

    @property
    def _view(self) -> tuple[date | None, datetime | None]:
        """Names the view: of an hour that comes twice, which of the two."""
        return self.as_of, self.known_at and self.known_at.astimezone(UTC)

    def _look(self, what: tuple[str, str], look: "Callable[[], Any]") -> Any:
        """What `look` gives, kept for as long as no row of that kind is new; what is large is not kept twice."""
        as_of, known_at = self._view
        # A day from which on no row of the kind is hidden shows what any later one does.
        place = (*what, None if as_of is None or self._find_latest(what[1]) <= as_of else as_of, known_at)
        if place not in self._looked_at:
            found = look()
            if found is not (whole := self._tables.get(what[1])) and whole is not None and len(whole) > _MANY:
                return found
            self._looked_at[place] = found
        return self._looked_at[place]

    def _find_latest(self, kind: str) -> date:
        """The latest day on which an event of a kind happened, voided ones and those recorded later among them."""
        place = ("latest", kind)
        if place not in self._looked_at:
            latest = pc.max(self._tables[kind]["occurred_on"]).as_py() if kind in self._tables else None
            self._looked_at[place] = latest.date() if latest else date.min
        found: date = self._looked_at[place]
        return found

    def _select(self, kind: type[Event]) -> pa.Table:
        table = self._find_known(kind)
        if self.as_of is not None and self._find_latest(kind.kind) > self.as_of:
            table = table.filter(pc.less_equal(table["occurred_on"], pa.scalar(self.as_of).cast(_DAY)))
        if len(self.voided):
            is_voided = pc.is_in(table["hash"], self.voided)
            if pc.any(is_voided).as_py():
                table = table.filter(pc.invert(is_voided))
        return table

    def count_rows(self) -> int:
        """How many rows of the ledger these are, whatever the view."""
        return sum(len(table) for table in self.tables.values())

    def extend(self, parts: Iterable[Mapping[str, pa.Table]], head: Head) -> "Events":
        """These and newer decoded rows, up to `head`, without a view. What folds gave that read none of the kinds of
        the newer rows still holds; of that the newest is kept."""
        tables: dict[str, list[pa.Table]] = {kind: [table] for kind, table in self._tables.items()}
        kinds = {_ANY_KIND}
        for part in parts:
            for kind, table in part.items():
                tables.setdefault(kind, []).append(table)
                kinds.add(kind)
        _forget_large(self._folded)
        holding = [(key, folded) for key, folded in self._folded.items() if not folded.kinds & kinds]
        looked_at = {} if Voided.kind in kinds else {k: v for k, v in self._looked_at.items() if k[1] not in kinds}
        joined = {kind: join_tables(several) if kind in kinds else several[0] for kind, several in tables.items()}
        return Events(
            joined, head, _folded=dict(holding[-_MOST_KEPT:]), _looked_at=dict([*looked_at.items()][-_MOST_LOOKED_AT:])
        )


R = TypeVar("R")
_ANY_KIND = "*"  # of a fold that looked at rows of every kind
_MOST_KEPT = 64
_MOST_LOOKED_AT = 256
_MANY = 50_000  # rows of one kind of which no copies are kept


class _Folded(NamedTuple):
    """What a fold gave for a study, and the kinds of rows that it read."""

    study: "Study"
    result: Any
    kinds: frozenset[str]

    @property
    def is_large(self) -> bool:
        return isinstance(self.result, pd.DataFrame) and len(self.result) > _MANY


def _forget_large(folded: "dict[tuple[object, ...], _Folded]", fold: object = None, is_past: bool = True) -> None:
    """Of one fold (None: of any) forget what is large: of views as known at a moment, or (not `is_past`) of others."""
    for key, known in list(folded.items()):
        if known.is_large and (fold is None or key[0] == fold) and (key[-1] is not None) == is_past:
            folded.pop(key, None)


_READING: ContextVar[tuple[set[str], ...]] = ContextVar("_READING", default=())
"""What the folds that are being computed have read so far, the outermost first."""


def _note_reading(*kinds: str) -> None:
    for read in _READING.get():
        read.update(kinds)


def remembered(fold: "Callable[[Study, Events, date], R]") -> "Callable[[Study, Events, date], R]":
    """A fold that many others begin with is computed once for the same study, rows, view and day, and stands until the
    ledger has new rows of a kind that it read, or a void. Of a large result only that of the last view is kept, and
    beside it that of the last view as known at a moment, until there are new rows.

    Each caller gets a frame of its own: what it writes there, nobody else sees. Other results must not be changed.
    """

    @wraps(fold)
    def look_up(study: "Study", events: Events, as_of: date) -> R:
        view = events.select(as_of=as_of)
        key = (fold.__qualname__, id(study), as_of, *view._view)
        known = events._folded.get(key)
        if known is None or known.study is not study:
            _forget_large(events._folded, fold.__qualname__, is_past=view.known_at is not None)
            kinds = {Voided.kind}
            outer = _READING.set((*_READING.get(), kinds))
            try:
                result = fold(study, events, as_of)
            finally:
                _READING.reset(outer)
            known = events._folded[key] = _Folded(study, result, frozenset(kinds))
        _note_reading(*known.kinds)
        found: R = known.result
        return cast(R, found.copy(deep=False)) if isinstance(found, pd.DataFrame) else found

    return look_up


def remembered_by_content(rule: "Callable[[pd.DataFrame], pd.DataFrame]") -> "Callable[[pd.DataFrame], pd.DataFrame]":
    """A rule about one frame and nothing else gives what it gave before where the frame is the same again, one of the
    last few: on most days nothing is new, and to compare takes a thirtieth of the time of most rules.

    Each caller gets a frame of its own, as from `remembered`.
    """
    known: deque[tuple[pd.DataFrame, pd.DataFrame]] = deque(maxlen=8)

    @wraps(rule)
    def look_up(frame: pd.DataFrame) -> pd.DataFrame:
        result = next((result for asked, result in tuple(known) if asked.equals(frame)), None)
        if result is None:
            result = rule(frame)
            known.append((frame.copy(deep=False), result))
        return result.copy(deep=False)

    return look_up


def is_in(texts: "pd.Series[Any]", among: Any) -> "pd.Series[bool]":
    """`Series.isin` for text. pandas looks at each value of `among` by itself, which of thousands takes long."""
    values = pa.array(texts, from_pandas=True)
    found = pc.is_in(values, value_set=pa.array(among, values.type, from_pandas=True))
    return pd.Series(found.to_numpy(zero_copy_only=False), texts.index)


def _divide_by_site(table: pa.Table) -> dict[str, pa.Table]:
    """The rows of each site, in ledger order."""
    ordered = table.combine_chunks().sort_by([("site_id", "ascending"), ("seq", "ascending")])
    counts = pc.value_counts(ordered["site_id"].combine_chunks()).to_pylist()
    parts, start = {}, 0
    for count in counts:
        parts[count["values"]] = ordered.slice(start, count["counts"])
        start += count["counts"]
    return parts


def derive_frame(table: pa.Table) -> pd.DataFrame:
    """Rows of one kind as `Events.frame` gives them."""
    if len(table):
        return _convert(table)
    return _convert_nothing(table.schema, pd.get_option("mode.string_storage")).copy(deep=False)


@lru_cache(maxsize=256)
def _convert_nothing(schema: pa.Schema, text_kept_as: str) -> pd.DataFrame:
    """No rows, in the columns and types that they have where pandas keeps text in this way."""
    return _convert(schema.empty_table())


def _convert(table: pa.Table) -> pd.DataFrame:
    for place, column in enumerate(table.schema):
        if pa.types.is_list(column.type):
            table = table.set_column(place, column.name, pc.binary_join(table[column.name], ";"))
    frame: pd.DataFrame = table.to_pandas()
    return frame


def number_groups(table: pa.Table, columns: Sequence[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """One number per row, equal exactly where the columns are."""
    numbers, n_numbers = np.zeros(len(table), np.int64), 1
    for name in columns:
        codes = table[name].combine_chunks().dictionary_encode()
        n_codes = len(codes.dictionary) + 1
        if n_numbers * n_codes > np.iinfo(np.int64).max:
            numbers, n_numbers = np.unique(numbers, return_inverse=True)[1], len(table)
        numbers, n_numbers = numbers * n_codes + codes.indices.to_numpy(), n_numbers * n_codes
    return numbers


def _find_last(table: pa.Table, by: Sequence[str], order: Sequence[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """True for the row of each group that comes last in `order` (numbers or dates; the ledger's order breaks ties)."""
    groups = number_groups(table, by)
    if not pd.Series(groups).duplicated().any():
        return np.ones(len(table), bool)
    ranks = [table[name].to_numpy() for name in reversed(order)]
    ordered = np.lexsort([table["seq"].to_numpy(), *ranks, groups])
    last = np.ones(len(table), bool)
    last[ordered[:-1]] = groups[ordered[:-1]] != groups[ordered[1:]]
    return last


_PARTICIPANT_COLUMNS = [
    *("participant_id", "site_id", "cohort", "screened_on", "consented_on", "consent_basis", "arm", "allocated_on"),
    *("disposition", "disposition_scope", "disposition_on"),
]


def derive_participants(events: Events) -> pd.DataFrame:
    """One row for each participant who was screened, consented, was allocated or left; ordered by participant_id.

    Columns: participant_id, site_id, cohort, screened_on, consented_on, consent_basis, arm, allocated_on, disposition,
    disposition_scope, disposition_on. Missing (NaN, NaT) where nothing was recorded.

    Consent is the first one, when the person joined: a renewed form does not move it. Of several dispositions the one
    of the scope "study" is shown, or else the latest (of one day: by key); `derive_dispositions` has them all. The
    site is that of the first step on record, in the order above.
    """
    leaving = events.table(DispositionRecorded)
    leaving = leaving.append_column("of_study", pc.cast(pc.equal(leaving["scope"], "study"), pa.int8()))
    latest_first: Any = [("of_study", "descending"), ("occurred_on", "descending"), ("key", "ascending")]
    steps = [
        (events.table(ParticipantScreened), {"occurred_on": "screened_on", "cohort": "cohort"}),
        (
            events.table(ConsentRecorded).sort_by([("occurred_on", "ascending"), ("key", "ascending")]),
            {"occurred_on": "consented_on", "basis": "consent_basis"},
        ),
        (events.table(ParticipantAllocated), {"arm": "arm", "occurred_on": "allocated_on"}),
        (
            leaving.sort_by(latest_first),
            {"reason": "disposition", "scope": "disposition_scope", "occurred_on": "disposition_on"},
        ),
    ]
    frames = [
        derive_frame(table.select(["participant_id", "site_id", *names]))
        .drop_duplicates("participant_id")
        .set_index("participant_id")
        .rename(columns=names)
        for table, names in steps
    ]
    sites = pd.concat([frame.pop("site_id") for frame in frames])
    sites = sites[~sites.index.duplicated()]
    participants: pd.DataFrame = pd.concat([sites.to_frame(), *frames], axis="columns").sort_index().reset_index()
    return participants.reindex(columns=_PARTICIPANT_COLUMNS)


def derive_dispositions(events: Events) -> pd.DataFrame:
    """Every standing DispositionRecorded, one row per participant and scope, with the columns of `Events.frame`."""
    return events.frame(DispositionRecorded)


def derive_returns(events: Events) -> pd.DataFrame:
    """Every standing ReturnAccepted with the columns of `Events.frame` and `is_current`.

    A return is current if none of its participant, respondent, wave and instrument has a higher version. If the newest
    version was voided, the one before it is current again.
    """
    table = events.table(ReturnAccepted)
    returns = derive_frame(table)
    returns["is_current"] = _find_last(table, ["participant_id", "respondent", "wave", "instrument"], ["version"])
    return returns


def derive_current_returns(events: Events, columns: Sequence[str]) -> pd.DataFrame:
    """The current rows of `derive_returns`, with these columns alone: of many returns that is much quicker."""
    table = events.table(ReturnAccepted)
    is_current = _find_last(table, ["participant_id", "respondent", "wave", "instrument"], ["version"])
    return derive_frame(table.select(list(columns)).filter(pa.array(is_current)))


def derive_queries(events: Events) -> pd.DataFrame:
    """Every standing QueryRaised with the columns of `Events.frame`, raised_on, closed_on (NaT while open),
    close_reason ("" while open), status ("open" or "closed": what the study makes of it); answer and answered_on, the
    site's newest ("" and NaT where it gave none); stage, one of `queries.STAGES`; n_reopened, how often it was put to
    the site again, and asked_on, when it was put last."""
    raised, closed = events.table(QueryRaised), events.table(QueryClosed)
    place = pc.index_in(raised["query_id"], closed["query_id"])
    queries = derive_frame(raised)
    queries["raised_on"] = queries["occurred_on"]
    queries["closed_on"] = pc.take(closed["occurred_on"], place).to_pandas()
    queries["close_reason"] = pc.fill_null(pc.take(closed["reason"], place), "").to_pandas()
    queries["status"] = pc.if_else(pc.is_valid(place), "closed", "open").to_pandas()
    answered = events.table(QueryAnswered)
    newest = answered.filter(pa.array(_find_last(answered, ["query_id"], ["answer_number"])))
    place = pc.index_in(raised["query_id"], newest["query_id"])
    queries["answered_on"] = pc.take(newest["occurred_on"], place).to_pandas()
    queries["answer"] = pc.fill_null(pc.take(newest["answer"], place), "").to_pandas()
    with_site_or_study = queries["answer"].eq("").map({True: WITH_SITE, False: WITH_STUDY})
    queries["stage"] = with_site_or_study.where(queries["status"] == "open", CLOSED).astype("str")
    queries["n_reopened"], queries["asked_on"] = 0, queries["raised_on"]
    again = _find_reopened(events)
    if len(again):
        queries["n_reopened"] = queries["query_id"].map(again["n"]).fillna(0).astype("int64")
        queries["asked_on"] = queries["query_id"].map(again["on"]).fillna(queries["raised_on"])
    return queries


def _find_reopened(events: Events) -> pd.DataFrame:
    """By query_id, on how many days (n) and when last (on) a step of it was voided to put it to its site again."""
    voids = events.table(Voided)
    voids = voids.filter(pc.equal(voids["reason"], "reopened"))
    if not len(voids):
        return pd.DataFrame({"n": [], "on": []})
    steps = [events._find_known(kind).select(["query_id", "hash"]) for kind in (QueryClosed, QueryAnswered)]
    told = pa.concat_tables(steps)
    place = pc.index_in(voids["voids"], told["hash"])
    found = pd.DataFrame({"on": voids["occurred_on"].to_pandas()})
    found["query_id"] = pc.take(told["query_id"], place).to_pandas()
    by_query = found.drop_duplicates().groupby("query_id")["on"]
    return pd.DataFrame({"n": by_query.size(), "on": by_query.max()})


def derive_files(events: Events) -> pd.DataFrame:
    """Every file dealt with, one row per site and content, with the columns of `Events.frame`."""
    return events.frame(ReturnFileProcessed)
