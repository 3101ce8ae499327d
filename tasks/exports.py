"""A release's tables as other programs' files: Stata, SPSS, Excel, and descriptions that programs read.

Same tables, same bytes: the moment of writing that .dta and .sav files hold is that of the release.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import xlsxwriter  # type: ignore[import-untyped]  # it ships no types
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from study.analysis_tables import ITEMS, derive_did_layout, find_outcomes
from study.codebook import MISSING_REASON_LABELS, derive_codes
from study.datasets import RESPONSES, Table, TableRows
from study.instruments import Instrument
from study.labelled import (
    SPSS_MISSING,
    STATA_EPOCH,
    STATA_MISSING_LABELLED,
    Variable,
    derive_legal_names,
    derive_names_table,
    derive_spss_columns,
    derive_stata_columns,
    derive_stata_types,
    derive_variables,
    extend_codes,
    find_words,
)
from study.protocol import Study
from tasks.ahead import begin
from tasks.release_files import FileEntry
from tasks.settings import PROJECT

DESCRIPTOR = "data/datapackage.json"
MOST_ROWS, MOST_COLUMNS = 1_048_575, 16_384
"""What an Excel sheet holds below its headings."""

_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_STATA_SECTIONS, _STATA_DATA = 14, 9  # in the file's map: how many, and the place of the rows
_ROWS_AT_ONCE = 20_000
_CELLS_AT_ONCE = 1_000_000
_SPSS_STAMP_AT = 92
_MOST_LABEL = 80  # characters of a variable's label in Stata
_MOST_LABEL_BYTES, _MOST_VALUE_LABEL_BYTES = 250, 120  # in SPSS


@dataclass(frozen=True)
class LabelledTables:
    """What is exported: the tables by name, and the lists of codes (`study.labelled.extend_codes`)."""

    title: str
    rows: Mapping[str, TableRows]
    codes: Mapping[str, Mapping[str, str]]

    @property
    def labelled(self) -> dict[str, TableRows]:
        """The tables that statistics programs and workbooks get: all but `responses`, in which each row would need
        labels of its own. Its answers stand side by side in the tables of items."""
        return {name: rows for name, rows in self.rows.items() if name != RESPONSES.name}


def begin_labelled_files(
    tables: LabelledTables, written_at: datetime, data_files: Mapping[str, Path], folder: Path
) -> Callable[[], dict[str, Path]]:
    """Have every table written for Stata and SPSS below a folder, from its Parquet file. What this gives waits for it
    (`tasks.ahead.begin`), and has the files by their names in the release. `written_at`: the moment that the files give
    as theirs."""
    begun = [
        begin(
            write_labelled_table,
            rows.table,
            data_files[f"data/{name}.parquet"],
            tables.codes,
            f"{name}: {tables.title}",
            written_at,
            folder,
        )
        for name, rows in tables.labelled.items()
    ]
    return lambda: {name: path for find_files in begun for name, path in find_files().items()}


def write_labelled_table(
    table: Table, parquet: Path, codes: Mapping[str, Mapping[str, str]], title: str, written_at: datetime, folder: Path
) -> dict[str, Path]:
    """A released table, as its Parquet file holds it, for Stata and SPSS below a folder."""
    variables = derive_variables(table, codes)
    files = {name: folder / name for name in (f"stata/{table.name}.dta", f"spss/{table.name}.sav")}
    for path in files.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    stata, spss = files.values()
    lean = {str(name): values for _, part in _read_parts(table, parquet, variables) for name, values in part.items()}
    write_stata(stata, pd.DataFrame(lean, copy=False), variables, title, written_at)
    del lean  # read again for SPSS: a table in the types of both takes the most memory
    columns: dict[str, Any] = {}
    for own, part in _read_parts(table, parquet, variables):
        columns |= derive_spss_columns(table, part, own)
    write_spss(spss, columns, variables, title, written_at)
    return files


def _read_parts(
    table: Table, parquet: Path, variables: list[Variable]
) -> Iterator[tuple[list[Variable], pd.DataFrame]]:
    """A table in little memory, a few variables at a time, each with its reasons: text as categories, numbers in 2 or 4
    bytes where these are enough."""
    file = pq.ParquetFile(parquet, read_dictionary=[one.name for one in table.columns if one.type == "text"])
    at_once = max(_CELLS_AT_ONCE // max(file.metadata.num_rows, 1), 1)
    for start in range(0, len(variables), at_once):
        own = variables[start : start + at_once]
        names = [name for one in own for name in (one.column.name, one.column.reason) if name]
        part = file.read(names, use_threads=False)
        columns = {name: part[name].to_pandas(date_as_object=False) for name in names}
        yield own, pd.DataFrame({name: _narrow(values) for name, values in columns.items()}, copy=False)


def _narrow(values: pd.Series[Any]) -> pd.Series[Any]:
    for kind in ("float16", "float32") if values.dtype == "float64" else ():
        with np.errstate(over="ignore"):
            narrow = values.astype(kind)
        if bool(((narrow == values) | values.isna()).all()):
            return narrow
    return values


def label_tables(study: Study, rows: Mapping[str, TableRows]) -> LabelledTables:
    """A study's released tables (by name) with their lists of codes."""
    return LabelledTables(study.title, rows, extend_codes(derive_codes(study), rows))


def encode_names(tables: LabelledTables) -> bytes:
    """How columns and codes are called in the files for Stata and SPSS, as CSV."""
    exported = {name: rows.table for name, rows in tables.labelled.items()}
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


def write_stata(path: Path, frame: pd.DataFrame, variables: list[Variable], title: str, written_at: datetime) -> None:
    """A .dta file of Stata 14: labelled variables and values, .a to .f for the reasons of missing values.

    pandas writes all but the rows, of which it would make several copies without reasons: a template, in which our own
    take the place of its rows, some at a time. Their number, and where the sections behind them begin, stand in the
    file's header and map (Stata's manual: help dta).
    """
    types = derive_stata_types(frame, variables)
    long = {variable.name: variable for variable in variables if types[variable.name].kind == "O"}
    texts = {name: sorted({"", *find_words(frame[variable.column.name])[1]}) for name, variable in long.items()}
    written = _write_stata_template(variables, types, texts, title, written_at)
    stamp_at = written.index(b"<timestamp>\x11")  # behind the title
    map_at = written.index(b"<map>", stamp_at) + len(b"<map>")
    places = np.frombuffer(written, "<i8", _STATA_SECTIONS, map_at).copy()
    start, end = int(places[_STATA_DATA]) + len(b"<data>"), int(places[_STATA_DATA + 1]) - len(b"</data>")
    record = np.dtype([(name, "<i8" if name in long else kind.newbyteorder("<")) for name, kind in types.items()])
    held = np.frombuffer(written, record, (end - start) // record.itemsize, start)
    kept = {name: dict(zip(words, held[name].tolist(), strict=False)) for name, words in texts.items()}
    places[_STATA_DATA + 1 :] += len(frame) * record.itemsize - (end - start)
    n_at = written.index(b"<N>") + len(b"<N>")
    with path.open("wb") as file:
        file.write(written[:n_at] + len(frame).to_bytes(8, "little") + written[n_at + 8 : map_at])
        file.write(places.tobytes() + written[map_at + places.nbytes : start])
        for first in range(0, len(frame), _ROWS_AT_ONCE):
            part = frame.iloc[first : first + _ROWS_AT_ONCE]
            rows = np.empty(len(part), record)
            for name, values in derive_stata_columns(part, variables, types).items():
                rows[name] = [kept[name][text] for text in values] if name in long else values
            rows.tofile(file)
        file.write(written[end:])


def _write_stata_template(
    variables: list[Variable],
    types: Mapping[str, np.dtype[Any]],
    texts: Mapping[str, list[str]],
    title: str,
    written_at: datetime,
) -> bytes:
    """A file with the variables and labels, and a row for each text that is not of fixed width, at least one."""
    n_rows = max(map(len, texts.values()), default=1)
    columns: dict[str, Any] = {}
    for variable in variables:
        kind = types[variable.name]
        if variable.column.type == "date":
            columns[variable.name] = np.full(n_rows, STATA_EPOCH)
        elif kind.kind in "SO":
            held = texts.get(variable.name, ["x" * kind.itemsize])
            columns[variable.name] = np.array([*held, *[held[0]] * (n_rows - len(held))], object)
        else:
            columns[variable.name] = np.zeros(n_rows, kind)
    buffer = io.BytesIO()
    pd.DataFrame({name: pd.Series(values, dtype=values.dtype) for name, values in columns.items()}).to_stata(
        buffer,
        version=118,  # Stata 14 and every later one read it
        byteorder="<",
        write_index=False,
        time_stamp=written_at,
        data_label=title[:_MOST_LABEL],
        variable_labels={variable.name: _cut(variable.column.label, _MOST_LABEL) for variable in variables},
        value_labels=_label_values(variables, STATA_MISSING_LABELLED),
        convert_dates={variable.name: "td" for variable in variables if variable.column.type == "date"},
        convert_strl=list(texts),
    )
    return buffer.getvalue()


def write_spss(
    path: Path, columns: dict[str, Any], variables: list[Variable], title: str, written_at: datetime
) -> None:
    """A .sav file: labelled variables and values, user-missing numbers for the reasons of missing values. `columns`:
    from `derive_spss_columns`."""
    import pyreadstat  # takes a moment to import, and only freezing needs it

    own = [variable for variable in variables if variable.column.reason]
    pyreadstat.write_sav(
        pd.DataFrame(columns, copy=False),
        path,
        file_label=_cut_bytes(title, 64),
        column_labels=[_cut_bytes(variable.column.label, _MOST_LABEL_BYTES) for variable in variables],
        variable_value_labels={
            name: {number: _cut_bytes(label, _MOST_VALUE_LABEL_BYTES) for number, label in labels.items()}
            for name, labels in _label_values(variables, SPSS_MISSING).items()
        },
        missing_ranges={
            variable.name: [{"lo": min(SPSS_MISSING.values()), "hi": max(SPSS_MISSING.values())}] for variable in own
        },
        variable_format={
            variable.name: written_as for variable in variables if (written_as := _find_spss_format(variable))
        },
        variable_measure={variable.name: _find_measure(variable) for variable in variables},
        row_compress=True,
    )
    stamp = f"{written_at:%d} {_MONTHS[written_at.month - 1]} {written_at:%y%H:%M:%S}".encode()
    with path.open("r+b") as file:
        file.seek(_SPSS_STAMP_AT)
        file.write(stamp)


def _label_values(variables: list[Variable], missing: Mapping[str, int]) -> dict[str, dict[int | float, str]]:
    """What numbers mean, by variable: its codes or levels, and the reasons for missing values (`missing`: of each)."""
    reasons = {missing[reason]: label for reason, label in MISSING_REASON_LABELS.items()}
    return {
        variable.name: {
            number: label
            for labels in (variable.labels, reasons if variable.column.reason else {})
            for number, label in labels.items()
        }
        for variable in variables
        if variable.labels or variable.column.reason
    }


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


def derive_descriptor(study_id: str, tables: LabelledTables, data_files: Mapping[str, FileEntry]) -> dict[str, Any]:
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
                "bytes": data_files[f"data/{name}.csv"].n_bytes,
                "hash": f"sha256:{data_files[f'data/{name}.csv'].sha256}",
                "schema": _describe_schema(rows.table, tables),
            }
            for name, rows in tables.rows.items()
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


def encode_descriptor(study_id: str, tables: LabelledTables, data_files: Mapping[str, FileEntry]) -> bytes:
    descriptor = derive_descriptor(study_id, tables, data_files)
    return (json.dumps(descriptor, indent=1, ensure_ascii=False) + "\n").encode()
