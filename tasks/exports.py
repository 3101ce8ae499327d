"""A release's tables as other programs' files: Stata, SPSS, Excel, and descriptions that programs read.

Same tables, same bytes: the moment of writing that .dta and .sav files hold is that of the release.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xlsxwriter  # type: ignore[import-untyped]  # it ships no types
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from study.analysis_tables import ITEMS, derive_did_layout, derive_layouts, find_outcomes
from study.codebook import MISSING_REASON_LABELS, derive_codes
from study.datasets import RESPONSES, Table
from study.instruments import Instrument
from study.labelled import (
    SPSS_MISSING,
    STATA_MISSING,
    Variable,
    derive_legal_names,
    derive_names_table,
    derive_spss_columns,
    derive_stata_columns,
    derive_stata_reasons,
    derive_variables,
    extend_codes,
)
from study.protocol import Study
from tasks.settings import PROJECT

DESCRIPTOR = "data/datapackage.json"
MOST_ROWS, MOST_COLUMNS = 1_048_575, 16_384
"""What an Excel sheet holds below its headings."""

_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_STATA_VERSION = 14  # of the program: it and every later one reads the file
_STATA_STAMP, _STATA_STAMP_LENGTH = b"<timestamp>\x11", 17
_STATA_SECTIONS, _STATA_TYPES, _STATA_DATA = 14, 2, 9  # in the map: how many, and the places of two
_STATA_LONGEST_TEXT, _STATA_DOUBLE = 2045, 65526
# ".", ".a", ".b" ...: a double's highest exponent, and the letter's number 5 bytes up.
_STATA_MISSING_BYTES = (
    np.array([0x7FE0_0000_0000_0000 + (number << 40) for number in range(len(STATA_MISSING) + 1)], "<u8")
    .view(np.uint8)
    .reshape(-1, 8)
)
_SPSS_STAMP_AT, _SPSS_STAMP_LENGTH = 92, 17
_MOST_LABEL = 80  # characters of a variable's label in Stata
_MOST_LABEL_BYTES, _MOST_VALUE_LABEL_BYTES = 250, 120  # in SPSS


@dataclass(frozen=True)
class LabelledTables:
    """What is exported: the layouts and frames by name, and the lists of codes (`study.labelled.extend_codes`)."""

    title: str
    layouts: Mapping[str, Table]
    frames: Mapping[str, pd.DataFrame]
    codes: Mapping[str, Mapping[str, str]]

    def list_labelled(self) -> list[tuple[Table, pd.DataFrame, list[Variable]]]:
        """The tables that statistics programs and workbooks get: all but `responses`, in which each row would need
        labels of its own. Its answers stand side by side in the tables of items."""
        return [
            (table, self.frames[name], derive_variables(table, self.codes))
            for name, table in self.layouts.items()
            if name != RESPONSES.name
        ]


def write_labelled_files(tables: LabelledTables, written_at: datetime) -> dict[str, bytes]:
    """Every exported file by its name in the release. `written_at`: the moment that the files give as theirs."""
    files: dict[str, bytes] = {}
    labelled = tables.list_labelled()
    for table, frame, variables in labelled:
        title = f"{table.name}: {tables.title}"
        files[f"stata/{table.name}.dta"] = encode_stata(frame, variables, title, written_at)
        files[f"spss/{table.name}.sav"] = encode_spss(table, frame, variables, title, written_at)
    return files


def label_tables(
    study: Study, instruments: Mapping[str, Instrument], frames: Mapping[str, pd.DataFrame]
) -> LabelledTables:
    """A study's released tables (`frames`, by name) with their layouts and lists of codes."""
    layouts = derive_layouts(study, instruments)
    return LabelledTables(study.title, layouts, frames, extend_codes(derive_codes(study), layouts, frames))


def encode_names(tables: LabelledTables) -> bytes:
    """How columns and codes are called in the files for Stata and SPSS, as CSV."""
    exported = {table.name: table for table, _, _ in tables.list_labelled()}
    return derive_names_table(exported, tables.codes).to_csv(index=False, lineterminator="\n").encode()


def write_examples(study: Study, instruments: Mapping[str, Instrument]) -> dict[str, bytes]:
    """A few lines each of Python, R and Stata that read the release and look at one outcome, if there is one."""
    outcome = next((found for found in find_outcomes(study, instruments) if len(found.waves) > 1), None)
    names = derive_legal_names(column.name for column in derive_did_layout(study, instruments).columns)
    values = {
        "study": study.title,
        "outcome": outcome.name if outcome else "",
        "variable": names[outcome.name] if outcome else "",
    }
    return {
        f"examples/{name}": _templates().get_template(f"{name}.jinja").render(**values).encode()
        for name in ("read_release.py", "read_release.R", "read_release.do")
    }


@lru_cache(maxsize=1)
def _templates() -> Environment:
    return Environment(  # noqa: S701  # it writes programs, in which nothing is to be escaped as in a page
        loader=FileSystemLoader(PROJECT / "templates" / "examples"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


# Stata and SPSS -----------------------------------------------------------------------------------------------------


def encode_stata(frame: pd.DataFrame, variables: list[Variable], title: str, written_at: datetime) -> bytes:
    """A .dta file of Stata 14: labelled variables and values, .a to .f for the reasons of missing values."""
    import pyreadstat  # takes a moment to import, and only freezing needs it

    columns = derive_stata_columns(frame, variables)
    missing = {variable.name: list(STATA_MISSING.values()) for variable in variables if variable.column.reason}
    reasons = {STATA_MISSING[reason]: label for reason, label in MISSING_REASON_LABELS.items()}
    labels = {
        variable.name: {**variable.labels, **(reasons if variable.column.reason else {})}
        for variable in variables
        if variable.labels or variable.column.reason
    }
    written = _write(
        pyreadstat.write_dta,
        columns,
        file_label=title[:_MOST_LABEL],
        column_labels=[_cut(variable.column.label, _MOST_LABEL) for variable in variables],
        version=_STATA_VERSION,
        variable_value_labels=labels,
        missing_user_values=missing,
        variable_format={variable.name: "%td" for variable in variables if variable.column.type == "date"},
    )
    at = written.index(_STATA_STAMP) + len(_STATA_STAMP)
    stamp = f"{written_at:%d} {_MONTHS[written_at.month - 1]} {written_at:%Y %H:%M}"
    return _mark_missing(_patch(written, at, _STATA_STAMP_LENGTH, stamp), at, variables, frame)


def _mark_missing(written: bytes, header_at: int, variables: list[Variable], frame: pd.DataFrame) -> bytes:
    """The file with .a to .f in place of plain missing values, where there is a reason.

    The library takes such values only among Python objects, one by one, and takes a column for text if its first
    hundred are all missing. In the format a missing double is eight bytes, and the letter is one of them (Stata's
    manual: help dta). Where sections begin and how wide each variable is stands in the file's own map and types.
    """
    start = written.index(b"<map>", header_at) + len(b"<map>")
    places = np.frombuffer(written, "<u8", _STATA_SECTIONS, start)
    types_at = int(places[_STATA_TYPES]) + len(b"<variable_types>")
    types = np.frombuffer(written, "<u2", len(variables), types_at)
    widths = np.where(types <= _STATA_LONGEST_TEXT, types, 8).astype(np.int64)
    offsets, n_bytes = np.cumsum(widths) - widths, len(frame) * int(widths.sum())
    marked = bytearray(written)
    rows = np.frombuffer(marked, np.uint8, n_bytes, int(places[_STATA_DATA]) + len(b"<data>"))
    rows = rows.reshape(len(frame), int(widths.sum()))
    for variable, reasons in derive_stata_reasons(frame, variables):
        place = variables.index(variable)
        if types[place] != _STATA_DOUBLE:
            raise ValueError(f"{variable.name} was not written as a number.")
        at = reasons.nonzero()[0]
        rows[at[:, None], np.arange(offsets[place], offsets[place] + 8)] = _STATA_MISSING_BYTES[reasons[at]]
    return bytes(marked)


def encode_spss(
    table: Table, frame: pd.DataFrame, variables: list[Variable], title: str, written_at: datetime
) -> bytes:
    """A .sav file: labelled variables and values, user-missing numbers for the reasons of missing values."""
    import pyreadstat

    columns = derive_spss_columns(table, frame, variables)
    reasons = {SPSS_MISSING[reason]: label for reason, label in MISSING_REASON_LABELS.items()}
    own = [variable for variable in variables if variable.column.reason]
    labels = {
        variable.name: {
            number: _cut_bytes(label, _MOST_VALUE_LABEL_BYTES)
            for number, label in {**variable.labels, **(reasons if variable.column.reason else {})}.items()
        }
        for variable in variables
        if variable.labels or variable.column.reason
    }
    written = _write(
        pyreadstat.write_sav,
        columns,
        file_label=_cut_bytes(title, 64),
        column_labels=[_cut_bytes(variable.column.label, _MOST_LABEL_BYTES) for variable in variables],
        variable_value_labels=labels,
        missing_ranges={
            variable.name: [{"lo": min(SPSS_MISSING.values()), "hi": max(SPSS_MISSING.values())}] for variable in own
        },
        variable_format={
            variable.name: written_as for variable in variables if (written_as := _find_spss_format(variable))
        },
        variable_measure={variable.name: _find_measure(variable) for variable in variables},
        row_compress=True,
    )
    stamp = f"{written_at:%d} {_MONTHS[written_at.month - 1]} {written_at:%y%H:%M:%S}"
    return _patch(written, _SPSS_STAMP_AT, _SPSS_STAMP_LENGTH, stamp)


def _write(writer: Any, columns: Mapping[str, Any], **how: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table"
        writer(pd.DataFrame(columns), str(path), **how)
        return path.read_bytes()


def _patch(written: bytes, at: int, length: int, stamp: str) -> bytes:
    """The file with another moment of writing. The length is that of the stamp in the format's header."""
    if len(stamp) != length:
        raise ValueError(f"A stamp of {length} characters was wanted.")
    return written[:at] + stamp.encode("ascii") + written[at + length :]


def _find_spss_format(variable: Variable) -> str:
    if variable.column.type == "date":
        return "DATE11"
    return "F8.0" if variable.labels else "F10.3" if variable.column.type == "number" else ""


def _find_measure(variable: Variable) -> str:
    if variable.column.levels:
        return "ordinal"
    return "nominal" if variable.numbers or variable.column.type == "text" else "scale"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _cut_bytes(text: str, most: int) -> str:
    if len(text.encode()) <= most:
        return text
    return f"{text.encode()[: most - 3].decode(errors='ignore')}…"


# Excel --------------------------------------------------------------------------------------------------------------


def encode_workbook(title: str, tables: Sequence[tuple[Table, pd.DataFrame]], created_on: date) -> bytes:
    """The tables as sheets of a workbook, after one that says what their columns mean. Identifiers are text, dates are
    dates, a missing value is blank with its reason beside it. A table that no sheet can hold is left out, and named."""
    buffer = io.BytesIO()
    workbook = xlsxwriter.Workbook(buffer, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False})
    workbook.set_properties({"title": title, "created": datetime.combine(created_on, time())})
    heading = workbook.add_format({"bold": True, "bottom": 1, "text_wrap": True, "valign": "top"})
    day = workbook.add_format({"num_format": "yyyy-mm-dd"})
    wrapped = workbook.add_format({"text_wrap": True, "valign": "top"})
    kept = [pair for pair in tables if _fits_sheet(*pair)]
    left_out = [pair for pair in tables if not _fits_sheet(*pair)]
    about = workbook.add_worksheet("about")
    about.set_column(0, 1, 28)
    about.set_column(2, 2, 90, wrapped)
    lines = [("", "", f"{title}. Answers stand side by side on the sheets {ITEMS}…; one a row in the file responses.")]
    lines += [
        (table.name, f"{len(frame):,} rows", "Left out: an Excel sheet cannot hold it. Take it from the folder data.")
        for table, frame in left_out
    ]
    for row, line in enumerate([*lines, ("Sheet", "Column", "Meaning")]):
        for place, text in enumerate(line):
            about.write_string(row, place, text, *([heading] if row == len(lines) else []))
    row = len(lines) + 1
    sheets = _name_sheets([table.name for table, _ in kept])
    for table, _ in kept:
        for column in table.columns:
            for place, text in enumerate((sheets[table.name], column.name, column.label)):
                about.write_string(row, place, text)
            row += 1
    about.freeze_panes(len(lines) + 1, 0)
    for table, frame in kept:
        _write_sheet(workbook.add_worksheet(sheets[table.name]), table, frame, heading, day)
    workbook.close()
    return buffer.getvalue()


def _fits_sheet(table: Table, frame: pd.DataFrame) -> bool:
    return len(frame) <= MOST_ROWS and len(table.columns) <= MOST_COLUMNS


def _name_sheets(names: list[str]) -> dict[str, str]:
    """At most 31 characters each, unique whatever the case; "about" is taken."""
    sheets: dict[str, str] = {}
    taken = {"about"}
    for name in names:
        found = name[:31]
        while found.lower() in taken:
            found = f"{name[:26]}_{hashlib.sha256(f'{name}{found}'.encode()).hexdigest()[:4]}"
        taken.add(found.lower())
        sheets[name] = found
    return sheets


def _write_sheet(sheet: Any, table: Table, frame: pd.DataFrame, heading: Any, day: Any) -> None:
    for place, column in enumerate(table.columns):
        sheet.write_string(0, place, column.name, heading)
        present = frame[column.name].notna().to_numpy().nonzero()[0].tolist()
        values = frame[column.name].iloc[present]
        cells = values.dt.to_pydatetime() if column.type == "date" else values.tolist()
        for row, value in zip(present, cells, strict=True):
            if column.type == "text":
                sheet.write_string(row + 1, place, value)
            elif column.type == "date":
                sheet.write_datetime(row + 1, place, value, day)
            else:
                sheet.write_number(row + 1, place, value)
    sheet.set_column(0, max(len(table.columns) - 1, 0), 14)
    sheet.freeze_panes(1, len(table.key))
    sheet.autofilter(0, 0, max(len(frame), 1), max(len(table.columns) - 1, 0))


# For programs that read CSV -----------------------------------------------------------------------------------------


def derive_descriptor(study_id: str, tables: LabelledTables, data_files: Mapping[str, bytes]) -> dict[str, Any]:
    """A Data Package (version 2, https://datapackage.org) of the CSV files: types, labels, codes, keys, and for each
    value the column that says why it is missing."""
    return {
        "$schema": "https://datapackage.org/profiles/2.0/datapackage.json",
        "name": study_id,
        "title": tables.title,
        "resources": [
            {
                "name": name,
                "type": "table",
                "path": f"{name}.csv",
                "format": "csv",
                "mediatype": "text/csv",
                "encoding": "utf-8",
                "bytes": len(data_files[f"data/{name}.csv"]),
                "hash": f"sha256:{hashlib.sha256(data_files[f'data/{name}.csv']).hexdigest()}",
                "schema": _describe_schema(table, tables),
            }
            for name, table in tables.layouts.items()
        ],
    }


def _describe_schema(table: Table, tables: LabelledTables) -> dict[str, Any]:
    fields = []
    for column in table.columns:
        field: dict[str, Any] = {
            "name": column.name,
            "type": {"text": "string", "date": "date", "number": "integer" if column.levels else "number"}[column.type],
            "description": column.label,
        }
        labels: Mapping[Any, str] = dict(column.levels) or tables.codes.get(column.codes, {})
        if labels:
            field["categories"] = [{"value": value, "label": label} for value, label in labels.items()]
        if column.name in table.key:
            field["constraints"] = {"required": True}
        if column.reason:
            field["missingReason"] = column.reason
        fields.append(field)
    schema: dict[str, Any] = {
        "$schema": "https://datapackage.org/profiles/2.0/tableschema.json",
        "fields": fields,
        "missingValues": [""],
        "primaryKey": list(table.key),
    }
    if table.name != "participants":
        reference = {"resource": "participants", "fields": ["participant_id"]}
        schema["foreignKeys"] = [{"fields": ["participant_id"], "reference": reference}]
    return schema


def encode_descriptor(study_id: str, tables: LabelledTables, data_files: Mapping[str, bytes]) -> bytes:
    descriptor = derive_descriptor(study_id, tables, data_files)
    return (json.dumps(descriptor, indent=1, ensure_ascii=False) + "\n").encode()
