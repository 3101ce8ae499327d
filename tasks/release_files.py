"""The tables of a release as Parquet and CSV files, written and hashed some rows at a time.

The same rows give the same bytes, whatever they were held as. Until they are published, answers and files lie where no
other study's user reads them and a killed run leaves nothing behind that stays: answers in a file without a name, files
in a folder of the run.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet as pq

from study.codebook import TableSummary
from study.datasets import Column, Table, TableRows
from study.validation import Codes, Floats

pc: Any = pyarrow.compute  # its stubs know no plain values as scalars

_STORED_AS: dict[str, pa.DataType] = {"text": pa.string(), "number": pa.float64(), "date": pa.date32()}
_COMPRESSION: Literal["gzip", "zstd"] = "zstd"
_ROWS_HASHED = 65_536
_ROWS_OF_CSV = 16_384


class FileEntry(NamedTuple):
    """What a manifest says of a file."""

    sha256: str
    n_bytes: int


@dataclass(frozen=True)
class WrittenTable:
    """A table in its files: its content's hash, and what it holds."""

    content_hash: str
    summary: TableSummary


@dataclass(frozen=True)
class DataFiles:
    """The tables of a release as files: where each file lies and what it is, by its name there (`data/scores.csv`), and
    the tables by theirs."""

    paths: Mapping[str, Path]
    entries: Mapping[str, FileEntry]
    tables: Mapping[str, WrittenTable]


class SpooledAnswers:
    """A store of answers (`study.answers.AnswerStore`) in a file without a name, gone when nobody holds it any more."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it is open as long as this store is
        self._places: list[tuple[int, int, int]] = []
        weakref.finalize(self, self._file.close)

    def put(self, values: Floats, reasons: Codes) -> None:
        self._places.append((self._file.seek(0, 2), *values.shape))
        for array in (values, reasons):
            self._file.write(np.ascontiguousarray(array).data)
        self._file.flush()

    def get(self, number: int, start: int, stop: int) -> tuple[Floats, Codes]:
        begin, n, width = self._places[number]
        values = self._read(begin + start * width * 8, np.float64, stop - start, width)
        return values, self._read(begin + n * width * 8 + start * width, np.int8, stop - start, width)

    def _read(self, at: int, kind: Any, n: int, width: int) -> Any:
        self._file.seek(at)
        return np.fromfile(self._file, kind, n * width).reshape(n, width)


# Writing ------------------------------------------------------------------------------------------------------------


def write_data_files(tables: Mapping[str, TableRows], folder: Path) -> DataFiles:
    """Each table as Parquet and CSV below a folder, by its name in the release."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    files = [f"data/{name}.{ending}" for name in tables for ending in ("parquet", "csv")]
    paths = {file: folder / file for file in files}
    written: dict[str, TableSummary] = {}
    hashes: dict[str, Future[str]] = {}
    entries: dict[str, Future[FileEntry]] = {}
    with ThreadPoolExecutor(1) as beside:  # files are hashed while the next table is written
        for name, rows in tables.items():
            parquet, csv = (f"data/{name}.{ending}" for ending in ("parquet", "csv"))
            written[name] = write_table(rows, paths[parquet], paths[csv])
            hashes[name] = beside.submit(lambda path: compute_content_hash(pq.ParquetFile(path)), paths[parquet])
            entries |= {file: beside.submit(describe_file, paths[file]) for file in (parquet, csv)}
            pa.default_memory_pool().release_unused()  # the next table needs room of its own
        return DataFiles(
            paths,
            {file: entries[file].result() for file in files},
            {name: WrittenTable(hashes[name].result(), summary) for name, summary in written.items()},
        )


def write_table(rows: TableRows, parquet: Path, csv: Path) -> TableSummary:
    """A table as Parquet and CSV; gives what it holds.

    CSV: UTF-8, comma, one header, lines ended by a line feed. Text in quotes ("00007"), dates as 2013-01-31, numbers in
    the fewest digits that read back as the same double, missing values empty.
    """
    summary = TableSummary(rows.table)
    plain, coded = (_derive_schema(rows.table, is_coded=is_coded) for is_coded in (False, True))
    with (
        pq.ParquetWriter(parquet, coded, compression=_COMPRESSION, store_schema=False) as to_parquet,
        pyarrow.csv.CSVWriter(csv, plain) as to_csv,
        ThreadPoolExecutor(1) as beside,
    ):
        writing: Future[None] | None = None
        for block in rows.read_blocks():
            table = encode_rows(rows.table, block)
            if writing:
                writing.result()
            writing = beside.submit(_write_csv, to_csv, table, plain)
            to_parquet.write_table(table)
            summary.add(block)
        if writing:
            writing.result()
    return summary


def _write_csv(to_csv: pyarrow.csv.CSVWriter, table: pa.Table, plain: pa.Schema) -> None:
    for start in range(0, len(table), _ROWS_OF_CSV):
        to_csv.write_table(table.slice(start, _ROWS_OF_CSV).cast(plain))


def encode_rows(table: Table, frame: pd.DataFrame) -> pa.Table:
    """Rows of a released table as Arrow columns: text (as dictionaries of what is there), doubles, dates; nothing of
    the writer's environment."""
    columns = [
        _encode_text(frame[column.name], _find_number_type(column))
        if column.type == "text"
        else pa.Array.from_pandas(frame[column.name], type=_STORED_AS[column.type])
        for column in table.columns
    ]
    return pa.Table.from_arrays(columns, schema=_derive_schema(table, is_coded=True))


def _derive_schema(table: Table, *, is_coded: bool) -> pa.Schema:
    def find_type(column: Column) -> Any:
        is_dictionary = is_coded and column.type == "text"
        return pa.dictionary(_find_number_type(column), pa.string()) if is_dictionary else _STORED_AS[column.type]

    return pa.schema([(column.name, find_type(column)) for column in table.columns])


def _find_number_type(column: Column) -> Any:
    """Of the numbers that stand for texts: the reasons for missing values are few, and stand beside every item."""
    return pa.int8() if column.codes == "missing_reason" else pa.int32()


def _encode_text(values: pd.Series[Any], number_type: Any) -> Any:
    if isinstance(values.dtype, pd.CategoricalDtype):
        codes, words = values.cat.codes.to_numpy(), values.cat.categories
    else:
        codes, words = pd.factorize(values)
    used = np.flatnonzero(np.bincount(codes[codes >= 0], minlength=len(words)))
    places = np.full(len(words) + 1, -1, np.int32)
    places[used] = np.arange(len(used))
    own = places[codes]
    indices: Any = pa.array(own, number_type, mask=own < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(words.take(used).astype(object), pa.string()))


# Hashes -------------------------------------------------------------------------------------------------------------


def describe_file(content: bytes | Path) -> FileEntry:
    if isinstance(content, bytes):
        return FileEntry(hashlib.sha256(content).hexdigest(), len(content))
    with content.open("rb") as file:
        return FileEntry(hashlib.file_digest(file, "sha256").hexdigest(), content.stat().st_size)


def compute_content_hash(file: pq.ParquetFile) -> str:
    """`compute_table_hash` of a Parquet file, read a column at a time."""

    def read(name: str) -> Iterator[pa.Array[Any]]:
        for number in range(file.num_row_groups):
            yield from file.read_row_group(number, columns=[name], use_threads=False).column(0).chunks

    return _hash_content(file.schema_arrow, file.metadata.num_rows, read)


def compute_table_hash(table: pa.Table) -> str:
    """The SHA-256 of a table's content, which follows from its columns and values alone and from no library's way of
    writing them.

    Over: the columns' names and types as JSON, and the number of rows; then by column, of each 65,536 rows, a byte for
    each value (1: there is one, 0: missing), and the values: text as lengths (little-endian, 4 bytes) and then the
    UTF-8 of all; numbers as little-endian doubles, -0 as 0; dates as days since 1970 (little-endian, 4 bytes). A
    missing value counts as an empty text or 0.
    """
    return _hash_content(table.schema, len(table), lambda name: table[name].chunks)


def _hash_content(schema: pa.Schema, n_rows: int, read: Callable[[str], Iterable[pa.Array[Any]]]) -> str:
    names = [[column.name, next(k for k, stored in _STORED_AS.items() if stored == column.type)] for column in schema]
    digest = hashlib.sha256(json.dumps([names, n_rows], ensure_ascii=False).encode())
    for column in schema:
        for values in _cut(read(column.name), _ROWS_HASHED):
            digest.update(pc.is_valid(values).cast(pa.uint8()).to_numpy().tobytes())
            if values.type == pa.string():
                values = pc.fill_null(values, "")
                digest.update(pc.binary_length(values).to_numpy().astype("<i4").tobytes())
                _, offsets, text = values.buffers()
                ends = np.frombuffer(offsets, "<i4")[[values.offset, values.offset + len(values)]]
                digest.update(memoryview(text or b"")[ends[0] : ends[1]])
            elif values.type == pa.float64():
                digest.update((pc.fill_null(values, 0.0).to_numpy() + 0.0).astype("<f8").tobytes())
            else:
                digest.update(pc.fill_null(values.cast(pa.int32()), 0).to_numpy().astype("<i4").tobytes())
    return digest.hexdigest()


def _cut(arrays: Iterable[pa.Array[Any]], size: int) -> Iterator[Any]:
    """The same values in arrays of one size; the last may be shorter."""
    held: list[pa.Array[Any]] = []
    n = 0
    for array in arrays:
        held.append(array)
        n += len(array)
        if n < size:
            continue
        joined = held[0] if len(held) == 1 else pa.concat_arrays(held)
        whole = n - n % size
        for start in range(0, whole, size):
            yield joined.slice(start, size)
        held, n = [joined.slice(whole)], n - whole
    if n:
        yield pa.concat_arrays(held)
