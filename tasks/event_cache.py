"""A disposable copy of decoded events on disk, so that the next process need not decode a whole ledger again.

One file per study: an Arrow stream for each kind, a footer that says which ledger row the copy ends at, and a checksum.
A file that is damaged, cut, of another study or from other code is no cache; whether it is of this ledger, `Ledger`
decides. The file may be deleted at any time.
"""

import ctypes
import hashlib
import logging
import sys
import tempfile
import zlib
from contextlib import suppress
from io import IOBase
from pathlib import Path
from time import time
from typing import IO, cast

import orjson
import pyarrow as pa

import study.events
import study.state
from study.state import Events, Head, derive_schema

_log = logging.getLogger(__name__)
_MMAP_THRESHOLD = -3  # in malloc.h

# Arrow's own allocator keeps for itself most of what a round has freed; the system's gives it back. That of Linux does
# so with pieces above a limit, which it raises by itself to 32 MB unless it is set (man mallopt).
pa.set_memory_pool(pa.system_memory_pool())
if sys.platform == "linux" and (set_option := getattr(ctypes.CDLL(None), "mallopt", None)):
    set_option(_MMAP_THRESHOLD, 2**20)

_TAIL = 12  # bytes: the footer's length (8), the checksum of all that is before it (4)
_STALE_SECONDS = 3600


def read_cached_events(folder: Path, study_id: str) -> Events | None:
    """What was cached last for a study; None if there is nothing that this code wrote whole."""
    try:
        with pa.memory_map(str(_find_path(folder, study_id))) as file:
            data = file.read_buffer()
            view = memoryview(data)
            length, checksum = int.from_bytes(view[-_TAIL:-4]), int.from_bytes(view[-4:])
            if zlib.crc32(view[:-4]) != checksum:
                return None
            footer = orjson.loads(view[-_TAIL - length : -_TAIL])
            if (footer["study"], footer["code"]) != (study_id, _compute_code_hash()):
                return None
            streams = pa.BufferReader(data)
            tables = {kind: pa.ipc.open_stream(streams).read_all() for kind in footer["kinds"]}
    except (OSError, ValueError):
        return None
    return Events(tables, Head(footer["seq"], footer["hash"]))


def write_cached_events(folder: Path, study_id: str, events: Events) -> None:
    """Replace what was cached, at one stroke. A cache that cannot be written is not missed: it is logged."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as file:
            part = _Checked(file)
            sink = pa.PythonFile(cast(IOBase, part), mode="w")
            for table in events.tables.values():
                with pa.ipc.new_stream(sink, table.schema) as stream:
                    stream.write_table(table)
            about = {"study": study_id, "code": _compute_code_hash(), "seq": events.head.seq, "hash": events.head.hash}
            footer = orjson.dumps({**about, "kinds": list(events.tables)})
            part.write(footer + len(footer).to_bytes(8))
            file.write(part.checksum.to_bytes(4))
        Path(file.name).replace(_find_path(folder, study_id))
    except OSError as fault:
        _log.warning("Decoded events could not be cached in %s (%s).", folder, fault.strerror)


class _Checked:
    """A file to write to that keeps the checksum of what is written: mapping it for that would take its size again."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.checksum = 0

    def write(self, data: bytes) -> int:
        self.checksum = zlib.crc32(data, self.checksum)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _find_path(folder: Path, study_id: str) -> Path:
    return folder / f"{study_id}.events"


def _sweep(folder: Path) -> None:
    """Remove what writers left that were killed, once nobody can be writing it any more."""
    for part in folder.glob("*.part"):
        with suppress(FileNotFoundError):
            if part.stat().st_mtime < time() - _STALE_SECONDS:
                part.unlink()


def _compute_code_hash() -> str:
    """Changes with the code that decodes and with the kinds that it knows: other code would decode otherwise."""
    digest = hashlib.sha256(pa.__version__.encode())
    for module in (study.events, study.state):
        digest.update(Path(str(module.__file__)).read_bytes())
    for kind, event in sorted(study.events.KINDS.items()):
        digest.update(f"{kind} {event.kind_version} {derive_schema(event)}".encode())
    return digest.hexdigest()
