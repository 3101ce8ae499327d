"""Read an SPSS file from standard input and write it as JSON: a program of its own, which `tasks.spss` runs.

The library that reads the format is written in C, and a damaged file can end the process that it runs in: this one, and
no other. It takes no more memory than `MOST_MEMORY`, either.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import math
import resource
import sys
from collections.abc import Sequence
from typing import Any

import pyreadstat

MOST_MEMORY = 8 << 30  # bytes of addresses, of which libraries reserve more than they use
# SPSS counts seconds from the first day of the Gregorian calendar.
_SPSS_EPOCH = dt.datetime.fromisoformat("1582-10-14")
SPSS_DATES = ("DATE", "ADATE", "EDATE", "SDATE", "JDATE", "QYR", "MOYR", "WKYR", "DATETIME", "YMDHMS")


def read(data: bytes) -> dict[str, Any]:
    """What `study.flat_exports.Export` holds, as lists, tables and text."""
    columns, about = pyreadstat.read_sav(
        io.BytesIO(data), user_missing=True, disable_datetime_conversion=True, output_format="dict"
    )
    header = list(columns)
    texts, missing = [], {}
    for name in header:
        is_date = (about.original_variable_types.get(name) or "").rstrip("0123456789.").upper() in SPSS_DATES
        values = list(columns[name])
        told = {value: write_value(value, is_date=is_date) for value in set(values)}
        texts.append([told[value] for value in values])
        ranges = about.missing_ranges.get(name, [])
        own = {told[value] for value in told if is_declared_missing(value, ranges)}
        if own - {""}:
            missing[name] = sorted(own)
    return {
        "header": header,
        "lines": [list(cells) for cells in zip(*texts, strict=True)],
        "missing": missing,
        "labels": {
            name: {write_value(value, is_date=False): str(label) for value, label in labels.items()}
            for name, labels in about.variable_value_labels.items()
        },
        "titles": {name: label for name, label in about.column_names_to_labels.items() if label},
    }


def write_value(value: object, *, is_date: bool) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    number = float(value)  # type: ignore[arg-type]  # of numpy
    if math.isnan(number):
        return ""
    if is_date:
        try:
            moment = _SPSS_EPOCH + dt.timedelta(seconds=number)
        except OverflowError:
            return "a day out of range"
        return moment.date().isoformat() if moment.time() == dt.time() else moment.isoformat(timespec="seconds")
    if math.isinf(number) or abs(number) >= 1e15:
        return repr(number)
    return f"{number:.12f}".rstrip("0").rstrip(".")


def is_declared_missing(value: object, ranges: Sequence[Any]) -> bool:
    """Whether a value lies in one of the ranges, or is one of the single values, that the file calls missing."""
    for entry in ranges:
        low, high = (entry["lo"], entry["hi"]) if isinstance(entry, dict) else (entry, entry)
        if value == low or (isinstance(value, float) and isinstance(low, float | int) and low <= value <= high):
            return True
    return False


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    json.dump(read(sys.stdin.buffer.read()), sys.stdout)
