"""Read an SPSS or a Stata file from standard input and write it as an Arrow table: a program of its own, which
`tasks.study_import` runs.

As `tasks.spss_reader`, and for files of any length: each column as its distinct texts and, for each case, which one.
What the file says of its variables goes along as JSON under "about".
"""

from __future__ import annotations

import datetime as dt
import io
import json
import resource
import sys
from typing import Any

import pandas as pd
import pyarrow as pa
import pyreadstat

from tasks.spss_reader import MOST_MEMORY, SPSS_DATES, is_declared_missing, write_value

_STATA_EPOCH = dt.datetime.fromisoformat("1960-01-01")
_DAYS, _MOMENTS = ("%td", "%d"), ("%tc", "%tC")


def read(data: bytes, kind: str) -> tuple[pa.Table, dict[str, Any]]:
    """The table as text, and what the file says of its variables: `missing`, `labels` and `titles` by name."""
    reader = pyreadstat.read_sav if kind == "sav" else pyreadstat.read_dta
    columns, about = reader(io.BytesIO(data), user_missing=True, disable_datetime_conversion=True, output_format="dict")
    arrays, missing = {}, {}
    for name, values in columns.items():
        written = about.original_variable_types.get(name) or ""
        is_text = about.readstat_variable_types.get(name) == "string"
        codes, distinct = pd.factorize(pd.Series(values, dtype=object))
        if kind == "sav":
            is_date = written.rstrip("0123456789.").upper() in SPSS_DATES
            texts = [write_value(value, is_date=is_date) for value in distinct]
            ranges = about.missing_ranges.get(name, [])
            own = {text for text, value in zip(texts, distinct, strict=True) if is_declared_missing(value, ranges)}
        else:
            texts = [_write_stata(value, written, is_text=is_text) for value in distinct]
            own = set() if is_text else {text for text in texts if text.startswith(".") and text[1:].isalpha()}
        if own - {""}:
            missing[name] = sorted(own - {""})
        indices = pa.array(codes, pa.int32(), mask=codes < 0)
        arrays[name] = pa.DictionaryArray.from_arrays(indices, pa.array(texts, pa.string()))
    labels = {
        name: {_write_label(value, kind): str(label) for value, label in of_name.items()}
        for name, of_name in about.variable_value_labels.items()
    }
    titles = {name: label for name, label in about.column_names_to_labels.items() if label}
    notes = [str(text) for text in [about.file_label, *(about.notes or [])] if text]
    return pa.table(arrays), {"missing": missing, "labels": labels, "titles": titles, "notes": notes}


def _write_stata(value: object, written: str, *, is_text: bool) -> str:
    """A value of Stata as text: days as 2026-02-01, .a to .z as they are called there."""
    if isinstance(value, str):
        return value if is_text else f".{value}"
    if isinstance(value, float | int) and value == value:
        try:
            if written.startswith(_MOMENTS):
                return (_STATA_EPOCH + dt.timedelta(milliseconds=float(value))).date().isoformat()
            if written.startswith(_DAYS):
                return (_STATA_EPOCH + dt.timedelta(days=float(value))).date().isoformat()
        except OverflowError:
            return "a day out of range"
    return write_value(value, is_date=False)


def _write_label(value: object, kind: str) -> str:
    if kind == "dta" and isinstance(value, str):
        return f".{value}"
    return write_value(value, is_date=False)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    table, about = read(sys.stdin.buffer.read(), sys.argv[1])
    table = table.replace_schema_metadata({"about": json.dumps(about)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    sys.stdout.buffer.write(sink.getvalue())
