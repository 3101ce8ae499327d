"""Fold the ledger into frames, as of a date and as known at a moment.

`Events` holds every row of a ledger, decoded into one Arrow table per kind. Rules ask it for the frame of one kind, or
for one of the `derive_` folds below. All of it is vectorised: a million rows take seconds, not minutes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json

from study.events import (
    KINDS,
    ConfigurationAdopted,
    ConsentRecorded,
    DispositionRecorded,
    Event,
    ParticipantAllocated,
    ParticipantScreened,
    QueryClosed,
    QueryRaised,
    ReturnAccepted,
    ReturnFileProcessed,
    Voided,
    upcast_payload,
)

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
    """The columns of a decoded kind: the envelope, then the payload in alphabetical order."""
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
            pa.BufferReader(lines),
            pyarrow.csv.ReadOptions(column_names=list(ROW_TYPES), block_size=1 << 22),
            pyarrow.csv.ParseOptions(delimiter="\x1f", quote_char=False),
            pyarrow.csv.ConvertOptions(column_types=ROW_TYPES, null_values=[], strings_can_be_null=False),
        )
    except pa.ArrowInvalid:
        raise ValueError("A row of the ledger cannot be read. `summative verify` names it.") from None
    versions = rows.select(["kind", "kind_version"]).group_by(["kind", "kind_version"]).aggregate([]).to_pylist()
    parts: dict[str, list[pa.Table]] = {}
    for version in versions:
        kind, number = version["kind"], version["kind_version"]
        some = rows if len(versions) == 1 else rows.filter((pc.field("kind") == kind) & (pc.field("kind_version") == number))
        parts.setdefault(kind, []).append(_decode_kind(kind, number, some))
    return {kind: pa.concat_tables(tables).sort_by("seq") if len(tables) > 1 else tables[0] for kind, tables in parts.items()}


def _decode_kind(kind: str, version: int, rows: pa.Table) -> pa.Table:
    upcast_payload(kind, version, "{}") if kind not in KINDS or version > KINDS[kind].kind_version else None
    payloads = rows["payload"]
    if version < KINDS[kind].kind_version:
        payloads = pa.chunked_array([[upcast_payload(kind, version, text) for text in payloads.to_pylist()]])
    schema = derive_schema(KINDS[kind])
    own = pa.schema([schema.field(name) for name in KINDS[kind].payload_types])
    table = rows.select(list(_ENVELOPE))
    if not len(own):
        return table
    lists = pa.ListArray.from_arrays(pa.array([0, len(payloads)], pa.int32()), payloads.combine_chunks())
    try:
        decoded = pyarrow.json.read_json(
            pa.BufferReader(pc.binary_join(lists, "\n")[0].as_buffer()),
            pyarrow.json.ReadOptions(block_size=1 << 22),
            pyarrow.json.ParseOptions(explicit_schema=own, unexpected_field_behavior="error"),
        )
    except pa.ArrowInvalid:
        raise ValueError(f'A payload of kind "{kind}" cannot be read. `summative verify` names the row.') from None
    for name in own.names:
        table = table.append_column(schema.field(name), decoded[name])
    return table
