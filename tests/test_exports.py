"""Files for other programs: same values, same labels, same reasons, legal names, right dates, the same bytes."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import runpy
import shutil
import subprocess
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

import numpy as np
import openpyxl  # type: ignore[import-untyped]  # it ships no types
import pandas as pd
import pyreadstat
import pytest

import tasks.exports
from study.analysis_tables import derive_layouts
from study.codebook import MISSING_REASON_LABELS, ColumnSummary, derive_study_codebook, describe_summary
from study.datasets import Column, ReleaseFault, Table, TableRows
from study.instruments import MISSING_REASONS
from study.labelled import (
    LONGEST_NAME,
    SPSS_MISSING,
    STATA_MISSING,
    derive_legal_names,
    derive_names_table,
    derive_spss_columns,
    derive_variables,
    extend_codes,
)
from tasks.codebook_files import DDI, encode_codebook_workbook, encode_ddi, write_codebook_files, write_current_codebook
from tasks.definitions import list_studies, load_instruments, load_study
from tasks.exports import encode_workbook, write_spss, write_stata
from tasks.files import FileMissing
from tasks.release_reading import FrozenRelease, ReleaseDamaged, read_release, write_release_workbook
from tasks.releases import freeze_release
from tasks.workspace import Workspace
from tests.provide import find_haven
from tests.releases import BY, fill_study, open_study

DAY = date(2013, 3, 4)
AT = datetime(2013, 3, 4, 6, 30, tzinfo=UTC)
CODES = {"arm": {"a": "Arm A", "b": "Arm B"}}
TABLE = Table(
    "small",
    ("participant_id",),
    (
        Column("participant_id", "text", "Who"),
        Column("arm", "text", "Arm", codes="arm"),
        Column("on", "date", "A day"),
        Column("mood", "number", "Mood", levels=((0, "Low"), (1, "High ☺")), reason="mood_missing"),
        Column("mood_missing", "text", "Why", codes="missing_reason"),
        Column("weight", "number", "Weight"),
    ),
)
DAYS = ["1960-01-01", "1582-10-15", "2012-02-29", None, "2038-01-19", "1900-01-01", "2013-03-31"]
FRAME = TABLE.shape(
    pd.DataFrame(
        {
            "participant_id": ["00007", "b", "c", "d", "e", "f", "g"],
            "arm": ["b", "a", None, "b", "b", "a", "a"],
            "on": pd.Series(DAYS, dtype="datetime64[us]"),
            "mood": [np.nan] * 6 + [1.0],
            "mood_missing": [*MISSING_REASONS, None],
            "weight": [0.1, -0.594, np.nan, 1e9, 0, 1 / 3, 5],
        }
    )
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = open_study(tmp_path_factory.mktemp("study"))
    fill_study(workspace)
    freeze_release(workspace, DAY, BY)
    return workspace


@pytest.fixture(scope="module")
def folder(workspace: Workspace) -> Path:
    return Path(workspace.area.place) / "releases" / DAY.isoformat()


@pytest.fixture(scope="module")
def release(folder: Path) -> FrozenRelease:
    return read_release(folder)


def encode(kind: str, frame: pd.DataFrame = FRAME, table: Table = TABLE, at: datetime = AT) -> bytes:
    variables = derive_variables(table, CODES)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        if kind == "stata":
            write_stata(path, frame, variables, "A title", at)
        else:
            write_spss(path, derive_spss_columns(table, frame, variables), variables, "A title", at)
        return path.read_bytes()


def read_back(kind: str, content: bytes, path: Path) -> tuple[pd.DataFrame, Any]:
    path = path / "file"
    path.write_bytes(content)
    read = pyreadstat.read_dta if kind == "stata" else pyreadstat.read_sav
    frame, about = read(str(path), user_missing=True, disable_datetime_conversion=True)
    return frame, about


# Stata and SPSS -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["stata", "spss"])
def test_values_labels_and_reasons_come_back(kind: str, tmp_path: Path) -> None:
    frame, about = read_back(kind, encode(kind), tmp_path)
    assert list(frame) == ["participant_id", "arm", "on", "mood", "weight"]
    assert frame["participant_id"].tolist() == FRAME["participant_id"].tolist()
    assert frame["arm"].fillna(0).tolist() == [2, 1, 0, 2, 2, 1, 1]
    np.testing.assert_array_equal(frame["weight"].to_numpy(float), FRAME["weight"].to_numpy(float))
    missing: dict[str, Any] = dict(STATA_MISSING) if kind == "stata" else dict(SPSS_MISSING)
    assert frame["mood"].tolist() == [*missing.values(), 1]
    labels = {missing[reason]: label for reason, label in MISSING_REASON_LABELS.items()}
    assert about.variable_value_labels["mood"] == {0: "Low", 1: "High ☺"} | labels
    assert about.variable_value_labels["arm"] == {1: "Arm A", 2: "Arm B"}
    assert about.column_names_to_labels["on"] == "A day"
    if kind == "spss":
        assert about.missing_ranges["mood"] == [{"lo": -9996, "hi": -9991}]
    else:
        assert about.missing_user_values["mood"] == list(STATA_MISSING.values())


@pytest.mark.parametrize("kind", ["stata", "spss"])
def test_dates_are_right(kind: str, tmp_path: Path) -> None:
    """pyreadstat writes datetime64[s] as the beginning of its epoch, without a word."""
    (tmp_path / "file").write_bytes(encode(kind))
    read = pyreadstat.read_dta if kind == "stata" else pyreadstat.read_sav
    found, about = read(str(tmp_path / "file"))
    assert [None if pd.isna(day) else str(day) for day in found["on"]] == DAYS
    assert about.original_variable_types["on"] == ("%td" if kind == "stata" else "DATE11")


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("kind", ["stata", "spss"])
def test_dates_of_any_unit_are_right(kind: str, unit: str) -> None:
    days = FRAME[FRAME["on"] >= "1900-01-01"].reset_index(drop=True)
    other = days.assign(on=days["on"].dt.as_unit(unit))
    assert encode(kind, other) == encode(kind, days)


def test_another_reader_finds_the_same_reasons() -> None:
    """pandas reads Stata's files by code of its own."""
    frame = pd.read_stata(
        io.BytesIO(encode("stata")), convert_missing=True, convert_dates=False, convert_categoricals=False
    )
    assert [str(value) for value in frame["mood"][:6]] == [".a", ".b", ".c", ".d", ".e", ".f"]
    assert frame["mood"][6] == 1
    assert frame["weight"].tolist()[3:6] == [1e9, 0, 1 / 3]
    with pd.read_stata(io.BytesIO(encode("stata")), iterator=True) as reader:
        assert reader.variable_labels()["mood"] == "Mood"
        assert reader.value_labels()["arm"] == {1: "Arm A", 2: "Arm B"}


def test_reasons_survive_where_the_first_hundred_are_all_missing(tmp_path: Path) -> None:
    many = pd.concat([FRAME.iloc[:1]] * 300 + [FRAME.iloc[6:]], ignore_index=True)
    found, about = read_back("stata", encode("stata", many), tmp_path)
    assert found["mood"].tolist() == ["a"] * 300 + [1]
    assert about.readstat_variable_types["mood"] == "int8"


@pytest.mark.parametrize("kind", ["stata", "spss"])
def test_an_empty_table_and_one_without_any_value_keep_their_types(kind: str, tmp_path: Path) -> None:
    for frame in (FRAME.iloc[:0], FRAME.iloc[:2].assign(arm=None, participant_id="", weight=np.nan)):
        found, about = read_back(kind, encode(kind, TABLE.shape(frame)), tmp_path)
        assert len(found) == len(frame)
        types = about.readstat_variable_types
        small = "int8" if kind == "stata" else "double"
        assert [types[name] for name in found] == ["string", small, "double", small, "double"]
        assert about.variable_value_labels["arm"] == {1: "Arm A", 2: "Arm B"}


@pytest.mark.parametrize("kind", ["stata", "spss"])
def test_long_and_foreign_labels_are_kept_as_far_as_the_format_goes(kind: str, tmp_path: Path) -> None:
    label = "Zufriedenheit – ça va? 満足 " * 25
    table = Table("long", ("x",), (Column("x", "number", label, levels=((1, label), (2, "<data> <map> ok"))),))
    frame, about = read_back(kind, encode(kind, table.shape(pd.DataFrame({"x": [1.0, 2.0]})), table), tmp_path)
    assert frame["x"].tolist() == [1, 2]
    told = about.column_names_to_labels["x"]
    assert told.endswith("…")
    assert label.startswith(told[:-1])
    assert label.startswith(about.variable_value_labels["x"][1].rstrip("…"))
    assert len(told) <= 80 if kind == "stata" else len(told.encode()) <= 250


@pytest.mark.parametrize("kind", ["stata", "spss"])
def test_categoricals_give_the_same_bytes(kind: str) -> None:
    """Also with categories that no row has, in whichever order."""
    other = FRAME.copy()
    for name in ("participant_id", "arm", "mood_missing"):
        words = [*sorted(FRAME[name].dropna().unique(), reverse=True), "none has this one"]
        other[name] = pd.Categorical(FRAME[name], categories=words)
    assert encode(kind, other) == encode(kind)
    assert encode(kind, other.iloc[:0]) == encode(kind, FRAME.iloc[:0])
    codes = [extend_codes(CODES, {"small": TableRows.of(TABLE, frame)}) for frame in (FRAME, other)]
    assert codes[0] == codes[1]


@pytest.mark.parametrize("kind", ["stata", "spss"])
@pytest.mark.parametrize("width", [1, 255, 256, 2045, 2046, 9000])
def test_texts_of_any_width_come_back(kind: str, width: int, tmp_path: Path) -> None:
    texts = ["満足" * (width // 6) + "x" * (width % 6), "", "short", "y" * width, "short", None]
    frame = TABLE.shape(FRAME.iloc[:6].assign(participant_id=pd.Series(texts, dtype="str")))
    path = tmp_path / "file"
    content = encode(kind, frame)
    assert encode(kind, frame.astype({"participant_id": "category"})) == content
    if kind == "stata":  # which pandas reads, too
        path.write_bytes(content)
        assert pd.read_stata(path)["participant_id"].tolist() == [text or "" for text in texts]
    found, _ = read_back(kind, content, tmp_path)
    assert found["participant_id"].tolist() == [text or "" for text in texts]
    assert found["weight"].fillna(-1).tolist() == frame["weight"].fillna(-1).tolist()


def test_rows_are_written_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encode("stata")
    monkeypatch.setattr(tasks.exports, "_ROWS_AT_ONCE", 3)
    assert encode("stata") == whole


@pytest.mark.parametrize(
    ("level", "values", "stored"),
    [
        (100, [0, 100, 1, 0], "int8"),
        (101, [0, 101, 1, 0], "int16"),
        (32_741, [0, 32_741, 1, 0], "double"),
        (1, [0, 0.5, 1, 0], "double"),
        (1, [0, 107, 1, 0], "double"),
        (1, [np.nan] * 4, "int8"),
    ],
)
def test_stata_holds_levels_in_as_few_bytes_as_they_take(
    level: int, values: list[float], stored: str, tmp_path: Path
) -> None:
    """A byte holds -127 to 100 and an int up to 32,740; beyond are the missing values."""
    columns = (
        Column("x", "number", "X", levels=((-127, "Least"), (level, "Most"), (0, "None"), (1, "One")), reason="x_why"),
        Column("x_why", "text", "Why", codes="missing_reason"),
    )
    table = Table("levels", ("x",), columns)
    frame = table.shape(pd.DataFrame({"x": values, "x_why": [None, None, None, "refused"]}))
    frame.loc[3, "x"] = np.nan
    found, about = read_back("stata", encode("stata", frame, table), tmp_path)
    assert about.readstat_variable_types["x"] == stored
    assert found["x"].tolist()[3] == STATA_MISSING["refused"]
    np.testing.assert_array_equal(found["x"][:3].astype(float), frame["x"][:3])
    assert about.variable_value_labels["x"][level] in ("Most", "One")


def test_words_of_statas_matrices_are_no_names(tmp_path: Path) -> None:
    """The library that writes the file calls them otherwise, and our list of names would not hold."""
    words = ["class", "end", "Function", "_cons", "str5"]
    table = Table("words", ("class",), tuple(Column(word, "number", word) for word in words))
    found, _ = read_back("stata", encode("stata", table.shape(pd.DataFrame(1.0, [0], words)), table), tmp_path)
    assert list(found) == list(derive_legal_names(words).values())
    assert derive_legal_names(words)["end"] == "v_end"


@pytest.mark.parametrize("kind", ["stata", "spss"])
def test_the_moment_of_writing_is_that_of_the_release(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = encode(kind)
    stamp = b"04 Mar 2013 06:30" if kind == "stata" else b"04 Mar 1306:30:00"
    assert first.count(stamp) == 1
    assert encode(kind, at=AT.replace(hour=7)) == first.replace(stamp, stamp.replace(b"06:30", b"07:30"))
    unpatched = pyreadstat.write_sav

    def write_later(frame: pd.DataFrame, path: Path, **how: Any) -> None:
        """As it would be written in another century: the stamp that the library leaves is another."""
        unpatched(frame, path, **how)
        content = path.read_bytes()
        assert stamp not in content  # the library's own is of today
        path.write_bytes(content[:92] + b"01 Jan 0100:00:00" + content[109:])

    monkeypatch.setattr(pyreadstat, "write_sav", write_later)
    assert encode(kind) == first


def test_a_value_that_would_mean_missing_in_spss_is_refused() -> None:
    frame = FRAME.assign(mood=[-9993.0, *FRAME["mood"][1:]])
    with pytest.raises(ReleaseFault, match=r"small\.mood: a value lies between -9996 and -9991"):
        encode("spss", frame)


# Names --------------------------------------------------------------------------------------------------------------


def test_legal_names() -> None:
    names = ["ok", "If", "x" * 40 + "1", "x" * 40 + "2", "Wert (%)", "2nd", "_all", "strl", "str12", "ÄÖ", "満", "OK"]
    names += ["", "to", "ends_"]
    legal = derive_legal_names(names)
    assert legal["ok"] == "ok"
    assert list(legal) == names
    found = list(legal.values())
    assert len({name.lower() for name in found}) == len(names)
    for name in found:
        assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_]*[A-Za-z0-9])?", name)
        assert len(name) <= LONGEST_NAME
    assert legal["If"] == "v_If"
    assert legal["Wert (%)"] == "Wert"
    assert legal["2nd"] == "v_2nd"


def test_a_name_is_the_same_whatever_other_columns_there_are() -> None:
    long = "npi_x_distress_caregiver_week_20_carer"
    alone = derive_legal_names([long])[long]
    assert derive_legal_names(["a", "npi_x_distress_caregiver_week_22_carer", long])[long] == alone
    assert alone.startswith("npi_x_distre")
    assert alone.endswith("20_carer")


def test_a_legal_name_is_not_taken_from_its_column() -> None:
    legal = derive_legal_names(["Wert!", "Wert"])
    assert legal["Wert"] == "Wert"
    assert legal["Wert!"] != "Wert"


@pytest.mark.parametrize("study_id", list_studies())
def test_every_column_of_every_study_has_a_name_in_both_programs(study_id: str) -> None:
    study = load_study(study_id)
    codebook = derive_study_codebook(study, load_instruments(study))
    for table in codebook["tables"]:
        reasons = {column["reason"] for column in table["columns"]}
        for column in table["columns"]:
            assert (column["variable"] is None) == (column["name"] in reasons or table["name"] == "responses")


def test_names_are_printed_with_what_numbers_mean() -> None:
    (row,) = derive_names_table({"small": TABLE}, CODES).query("column == 'arm'").to_dict("records")
    assert row["values"] == "1 = a (Arm A); 2 = b (Arm B)"
    (mood,) = derive_names_table({"small": TABLE}, CODES).query("column == 'mood'").to_dict("records")
    assert (mood["values"], mood["missing_from"]) == ("0 = Low; 1 = High ☺", "mood_missing")


def test_codes_that_only_the_data_have_come_last() -> None:
    frame = FRAME.assign(arm=pd.Series(["z", "a", None, "y", "b", "a", "a"], dtype="str"))
    codes = extend_codes(CODES, {"small": TableRows.of(TABLE, frame)})
    assert list(codes["arm"].items()) == [("a", "Arm A"), ("b", "Arm B"), ("y", "y"), ("z", "z")]


# In a release -------------------------------------------------------------------------------------------------------


def test_every_table_is_there_in_every_format(release: FrozenRelease) -> None:
    study = load_study("cdisc_pilot")
    names = list(derive_layouts(study, load_instruments(study)))
    assert list(release.tables) == names == list(release.manifest["tables"])
    files = set(release.manifest["files"])
    assert {f"data/{name}.{kind}" for name in names for kind in ("parquet", "csv")} <= files
    labelled = set(names) - {"responses"}
    assert {name for name in files if name.startswith("stata/")} == {f"stata/{name}.dta" for name in labelled}
    assert {name for name in files if name.startswith("spss/")} == {f"spss/{name}.sav" for name in labelled}
    assert {f"codebook.{kind}" for kind in ("html", "json", "xlsx", "xml")} <= files
    assert {"names.csv", "data/datapackage.json", "examples/read_release.R"} <= files


@pytest.mark.parametrize("kind", ["stata", "spss"])
def test_each_file_holds_what_its_table_holds(kind: str, folder: Path, release: FrozenRelease, tmp_path: Path) -> None:
    names = pd.read_csv(folder / "names.csv", keep_default_na=False)
    missing: dict[str, Any] = dict(STATA_MISSING) if kind == "stata" else dict(SPSS_MISSING)
    for name in {*release.tables} - {"responses"}:
        path = folder / ("stata" if kind == "stata" else "spss") / f"{name}.{'dta' if kind == 'stata' else 'sav'}"
        found, about = read_back(kind, path.read_bytes(), tmp_path)
        assert about.creation_time == about.modification_time
        own = release.tables[name]
        assert len(found) == len(own)
        for row in names[names["table"] == name].to_dict("records"):
            column, values = own[row["column"]], found[row["variable"]]
            label = about.column_names_to_labels[row["variable"]]
            assert label == row["label"] or (label.endswith("…") and row["label"].startswith(label[:-1]))
            if row["missing_from"]:
                reasons = own[row["missing_from"]]
                assert values[reasons.notna()].tolist() == reasons.dropna().map(missing).tolist()
                column, values = column[reasons.isna()], values[reasons.isna()].astype(float)
            if row["values"] and row["type"] == "text":
                numbers = {
                    part.split(" = ")[1].split(" (")[0]: float(part.split(" = ")[0])
                    for part in row["values"].split("; ")
                    if " = " in part
                }
                column = column.map(numbers)
            if row["type"] == "date":
                since, unit = ("1960-01-01", "1D") if kind == "stata" else ("1582-10-14", "1s")
                column = (column - pd.Timestamp(since).as_unit("us")) / pd.Timedelta(unit)
            if row["type"] == "text" and not row["values"]:
                assert values.tolist() == column.fillna("").tolist()
            else:
                np.testing.assert_array_equal(values.astype(float), column.astype(float))


_READ_BY_HAVEN = """
library(haven)
for (kind in c("stata", "spss")) for (path in list.files(kind, full.names = TRUE)) {
  table <- if (kind == "stata") read_dta(path) else read_sav(path, user_na = TRUE)
  name <- file.path(out, paste(kind, sub("[.].*", "", basename(path)), sep = "."))
  cells <- lapply(table, function(x) {
    if (is.character(x)) return(x)
    ifelse(is_tagged_na(x), na_tag(x), sprintf("%.17g", as.numeric(x)))
  })
  write.csv(as.data.frame(cells, optional = TRUE), paste0(name, ".csv"), row.names = FALSE, fileEncoding = "UTF-8")
  labels <- do.call(rbind, lapply(names(table), function(v) {
    known <- attr(table[[v]], "labels")
    codes <- as.character(known)
    if (kind == "stata") codes <- ifelse(is_tagged_na(known), na_tag(known), codes)
    data.frame(variable = v, code = c("", codes), text = c(attr(table[[v]], "label"), names(known)))
  }))
  write.csv(labels, paste0(name, ".labels.csv"), row.names = FALSE, fileEncoding = "UTF-8")
}
"""


def test_haven_reads_every_table_and_label_as_they_are(folder: Path, release: FrozenRelease, tmp_path: Path) -> None:
    """Independently of the library that writes: each cell, each reason, each label of all tables in both formats."""
    if find_haven() is None:
        pytest.skip("R with haven is not here: apt-get install r-cran-haven")
    script = f"out <- '{tmp_path.as_posix()}'\n{_READ_BY_HAVEN}"
    done = subprocess.run(["Rscript", "-e", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = pd.read_csv(folder / "names.csv", keep_default_na=False)
    for kind, missing in (("stata", STATA_MISSING), ("spss", SPSS_MISSING)):
        for name in {*release.tables} - {"responses"}:
            found = pd.read_csv(tmp_path / f"{kind}.{name}.csv", dtype="str", keep_default_na=False)
            told = pd.read_csv(tmp_path / f"{kind}.{name}.labels.csv", dtype="str", keep_default_na=False)
            texts = {(row.variable, row.code): row.text for row in told.itertuples()}
            for row in names[names["table"] == name].to_dict("records"):
                variable, own = row["variable"], release.tables[name][row["column"]]
                label = texts[variable, ""]
                assert label == row["label"] or (label.endswith("…") and row["label"].startswith(label[:-1]))
                values = dict(part.split(" = ", 1) for part in row["values"].split("; ") if " = " in part)
                if row["type"] == "date":
                    own = (own - pd.Timestamp("1970-01-01").as_unit("us")) / pd.Timedelta("1D")
                elif row["type"] == "text" and values:
                    own = own.map({text.split(" (")[0]: float(number) for number, text in values.items()})
                if row["type"] == "text" and not row["values"]:
                    wanted = own.fillna("").tolist()
                else:
                    wanted = ["NA" if np.isnan(value) else f"{value:.17g}" for value in own.astype(float)]
                if row["missing_from"]:
                    reasons = release.tables[name][row["missing_from"]].map({k: str(v) for k, v in missing.items()})
                    wanted = reasons.where(reasons.notna(), pd.Series(wanted)).tolist()
                    assert {str(code) for code in missing.values()} <= {c for v, c in texts if v == variable}
                assert found[variable].tolist() == wanted, (kind, name, variable)
                assert {v for v, c in texts if c in values} or not values


def test_the_moment_in_the_files_is_known_at(folder: Path, release: FrozenRelease) -> None:
    known_at = datetime.fromisoformat(release.manifest["known_at"]).replace(tzinfo=None, second=0, microsecond=0)
    assert pyreadstat.read_dta(str(folder / "stata" / "scores.dta"), metadataonly=True)[1].creation_time == known_at
    about = pyreadstat.read_sav(str(folder / "spss" / "scores.sav"), metadataonly=True)[1]
    assert f"{about.creation_time:%Y-%m-%d %H:%M}" == f"{known_at:%Y-%m-%d %H:%M}"


def test_the_same_release_elsewhere_has_the_same_bytes(workspace: Workspace, folder: Path, tmp_path: Path) -> None:
    again = open_study(tmp_path)
    fill_study(again)
    freeze_release(again, DAY, BY)
    other = Path(again.area.place) / "releases" / DAY.isoformat()
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert names == sorted(str(path.relative_to(other)) for path in other.rglob("*") if path.is_file())
    for name in names:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


def test_the_descriptor_fits_the_csv_files(folder: Path, release: FrozenRelease) -> None:
    descriptor = json.loads((folder / "data" / "datapackage.json").read_text())
    people = set(release.tables["participants"]["participant_id"])
    for resource in descriptor["resources"]:
        content = (folder / "data" / resource["path"]).read_bytes()
        assert resource["bytes"] == len(content)
        assert resource["hash"] == f"sha256:{hashlib.sha256(content).hexdigest()}"
        rows = list(csv.DictReader(io.StringIO(content.decode())))
        schema = resource["schema"]
        fields = {field["name"]: field for field in schema["fields"]}
        assert list(fields) == content.decode().splitlines()[0].replace('"', "").split(",")
        assert len({tuple(row[name] for name in schema["primaryKey"]) for row in rows}) == len(rows)
        for key in schema.get("foreignKeys", []):
            assert {row[key["fields"][0]] for row in rows} <= people
        for name, field in fields.items():
            cells = {row[name] for row in rows} - set(schema["missingValues"])
            read: Any = {"number": float, "integer": int, "date": date.fromisoformat, "string": str}[field["type"]]
            values = {read(cell) for cell in cells}
            if "categories" in field:
                assert values <= {category["value"] for category in field["categories"]}
            if "missingReason" in field:
                assert all((row[name] == "") == (row[field["missingReason"]] != "") for row in rows)


def test_the_workbook_holds_the_tables(workspace: Workspace, release: FrozenRelease) -> None:
    key = write_release_workbook(workspace)
    content = workspace.area.get(key)
    assert key == f"workbooks/{DAY}.xlsx"
    book = openpyxl.load_workbook(io.BytesIO(content))
    assert book.sheetnames == ["about", *(name for name in release.tables if name != "responses")]
    rows = list(book["participants"].iter_rows(values_only=True))
    columns = list(release.tables["participants"])
    assert list(rows[0]) == columns
    assert rows[1][columns.index("site")] == "701"  # text, not a number
    assert rows[1][columns.index("screened_on")].date() == date(2012, 8, 1)
    assert book["participants"].cell(2, columns.index("screened_on") + 1).is_date
    scores = list(book["scores"].iter_rows(values_only=True))
    assert len(scores) == len(release.tables["scores"]) + 1
    assert write_release_workbook(workspace) == key
    assert workspace.area.get(key) == content


def test_a_table_that_no_sheet_holds_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.exports, "MOST_ROWS", 3)
    small = Table("tiny", ("x",), (Column("x", "text", "X"),))
    pairs = [(TABLE, FRAME), (small, small.shape(pd.DataFrame({"x": ["=1+1", "00012"]})))]
    book = openpyxl.load_workbook(io.BytesIO(encode_workbook("A study", pairs, DAY)))
    assert book.sheetnames == ["about", "tiny"]
    told = [cell for row in book["about"].iter_rows(values_only=True) for cell in row if cell]
    assert any("an Excel sheet cannot hold it" in str(cell) for cell in told)
    assert [row[0] for row in book["tiny"].iter_rows(values_only=True)] == ["x", "=1+1", "00012"]
    assert book["tiny"]["A2"].data_type == "s"


# Reading a release --------------------------------------------------------------------------------------------------


def test_a_release_is_read_from_its_folder_or_its_workspace(workspace: Workspace, release: FrozenRelease) -> None:
    for other in (read_release(workspace), read_release(workspace, DAY.isoformat())):
        for name, frame in release.tables.items():
            pd.testing.assert_frame_equal(other.tables[name], frame)
    assert release.tables["participants"]["screened_on"].dtype == "datetime64[us]"
    with pytest.raises(FileMissing):
        read_release(workspace, "2011-01-01")
    with pytest.raises(FileMissing, match=r"manifest\.json is not there"):
        read_release(Path("nowhere"))


def test_labels_stand_for_codes_and_levels(release: FrozenRelease) -> None:
    people = release.label("participants")
    assert people["arm"].tolist()[:2] == ["Placebo", "Xanomeline High Dose"]
    assert list(people["arm"].cat.categories) == ["Placebo", "Xanomeline High Dose", "Xanomeline Low Dose"]
    assert people.attrs["labels"]["site"] == "Site that the participant belongs to"
    assert release.label("analysis_did")["group"].unique().tolist() == ["Comparison", "Intervention"]
    cibic = release.label("items_cibic_plus")
    assert cibic.loc[0, "cibic"] == load_instruments(load_study("cdisc_pilot"))["cibic_plus"].items[0].levels[4]
    assert cibic.loc[0, "wave"] == "RETRIEVAL"
    assert release.tables["participants"]["arm"].tolist()[0] == "placebo"  # the tables keep their codes


def test_a_changed_file_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "release"
    shutil.copytree(folder, copy)
    frame = pd.read_parquet(copy / "data" / "scores.parquet")
    frame.assign(score=0.0).to_parquet(copy / "data" / "scores.parquet")
    with pytest.raises(ReleaseDamaged, match=r"data/scores\.parquet of the release 2013-03-04"):
        read_release(copy)


def test_the_python_example_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len((folder / "examples" / "read_release.py").read_text().splitlines()) <= 14
    runpy.run_path(str(folder / "examples" / "read_release.py"))
    told = capsys.readouterr().out
    assert "placebo" in told
    assert "not_returned" in told
    assert "Intervention" in told


def test_the_r_example_runs_and_haven_reads_the_same(folder: Path, release: FrozenRelease, tmp_path: Path) -> None:
    if find_haven() is None:
        pytest.skip("R with haven is not here: apt-get install r-cran-haven")
    done = subprocess.run(
        ["Rscript", "read_release.R"], cwd=folder / "examples", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Placebo" in done.stdout
    script = """
    library(haven)
    for (kind in c("dta", "sav")) {
      path <- file.path("..", if (kind == "dta") "stata" else "spss", paste0("analysis_wide.", kind))
      wide <- if (kind == "dta") read_dta(path) else read_sav(path, user_na = TRUE)
      score <- wide$mmse_total_screening
      reason <- if (kind == "dta") na_tag(score) else as.numeric(score)
      cat(kind, as.character(as_factor(wide$arm)), format(wide$screened_on), as.character(reason), "\\n", sep = "|")
    }
    """
    done = subprocess.run(
        ["Rscript", "-e", script], cwd=folder / "examples", capture_output=True, text=True, check=False
    )
    wide = release.tables["analysis_wide"]
    for line, (kind, missing) in zip(
        done.stdout.splitlines(), (("dta", STATA_MISSING), ("sav", SPSS_MISSING)), strict=True
    ):
        cells = line.strip("|").split("|")
        n = len(wide)
        assert cells[0] == kind
        assert cells[1 : n + 1] == release.label("analysis_wide")["arm"].astype(object).fillna("NA").tolist()
        assert cells[n + 1 : 2 * n + 1] == wide["screened_on"].dt.strftime("%Y-%m-%d").tolist()
        for cell, value, reason in zip(
            cells[2 * n + 1 :], wide["mmse_total_screening"], wide["mmse_total_screening_missing"], strict=True
        ):
            told: Any = {**STATA_MISSING} if missing is STATA_MISSING else {**SPSS_MISSING}
            assert cell == str(told.get(reason, "NA" if kind == "dta" else f"{value:g}"))


def test_examples_of_a_study_without_scores_read_the_people(tmp_path: Path) -> None:
    workspace = open_study(tmp_path, study_id="new")
    frozen = freeze_release(workspace, workspace.clock().date(), BY)
    folder = Path(workspace.area.place) / "releases" / frozen.release
    assert "analysis_did" not in (folder / "examples" / "read_release.R").read_text()
    runpy.run_path(str(folder / "examples" / "read_release.py"))
    assert pyreadstat.read_sav(str(folder / "spss" / "analysis_did.sav"))[0].empty


# The codebook -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("study_id", list_studies())
def test_the_codebook_is_there_before_any_data(study_id: str) -> None:
    study = load_study(study_id)
    codebook = derive_study_codebook(study, load_instruments(study))
    files = write_codebook_files(codebook)
    assert set(files) == {"codebook.json", "codebook.html", "codebook.xlsx", "codebook.xml"}
    assert json.loads(files["codebook.json"]) == codebook
    assert files == write_codebook_files(codebook)
    assert all(column["summary"] is None for table in codebook["tables"] for column in table["columns"])
    root = ElementTree.fromstring(files["codebook.xml"])  # our own
    ids = [element.get("ID") for element in root.iter() if element.get("ID")]
    assert len(ids) == len(set(ids))
    variables = root.findall(f".//{{{DDI}}}var")
    assert len(variables) == sum(len(table["columns"]) for table in codebook["tables"])
    assert all(variable.find(f"{{{DDI}}}labl") is not None for variable in variables)


def test_ddi_keeps_the_order_of_the_schema(release: FrozenRelease) -> None:
    order = ["labl", "sumStat", "txt", "catgry", "varFormat"]
    root = ElementTree.fromstring(encode_ddi(release.codebook))
    assert next(element.tag.split("}")[1] for element in root) == "stdyDscr"
    for variable in root.iter(f"{{{DDI}}}var"):
        places = [order.index(element.tag.split("}")[1]) for element in variable]
        assert places == sorted(places)
        assert variable.get("files") == f"F_{str(variable.get('ID'))[2:].split('.')[0]}"
        assert variable.get("intrvl") in ("contin", "discrete")


def test_the_codebook_sums_up_the_data(release: FrozenRelease) -> None:
    entries = {entry["id"]: entry for entry in release.codebook["instruments"]}
    item = next(one for one in entries["mmse"]["items"] if one["item"] == "mmse06")
    assert item["summary"]["n"] == 1
    assert item["summary"]["missing"] == {"refused": 1}
    scale = entries["mmse"]["scales"][0]["summary"]
    assert (scale["n"], scale["minimum"], scale["maximum"]) == (1, 27, 27)
    people = next(table for table in release.codebook["tables"] if table["name"] == "participants")
    arm = next(column for column in people["columns"] if column["name"] == "arm")["summary"]
    assert arm == {"n": 2, "missing": {"": 1}, "counts": {"placebo": 1, "high_dose": 1, "low_dose": 0}}
    assert list(arm["counts"]) == ["placebo", "high_dose", "low_dose"]  # as the protocol has them


def test_summaries_in_words() -> None:
    def summarise_column(column: Column, frame: pd.DataFrame) -> dict[str, Any]:
        """As two blocks of rows."""
        found = ColumnSummary(column)
        for block in (frame.iloc[:2], frame.iloc[2:]):
            found.add(block)
        return found.describe()

    columns = {column.name: column for column in TABLE.columns}
    assert describe_summary(summarise_column(columns["mood"], FRAME)) == (
        "1 value (1: 1); 6 missing (illegible 1, not answered 1, not applicable 1, not asked 1, not returned 1, "
        "refused 1)"
    )
    assert describe_summary(summarise_column(columns["on"], FRAME)) == (
        "6 values, 1582-10-15 to 2038-01-19; 1 missing (blank 1)"
    )
    assert (
        describe_summary(summarise_column(columns["weight"], FRAME.iloc[:2])) == "2 values, -0.594 to 0.1, mean -0.247"
    )
    assert describe_summary(summarise_column(columns["weight"], FRAME.iloc[:0])) == "0 values"
    assert describe_summary(None) == ""


def test_the_codebook_for_excel(release: FrozenRelease) -> None:
    book = openpyxl.load_workbook(io.BytesIO(encode_codebook_workbook(release.codebook)))
    assert book.sheetnames == ["columns", "codes", "items", "scales", "missing values", "assumptions"]
    codes = {row[:3] for row in book["codes"].iter_rows(min_row=2, values_only=True)}
    assert ("arm", "high_dose", "2") in codes
    assert ("wave", "RETRIEVAL", "16") in codes
    assert any(row[:2] == ("site", "701") and row[2] is None for row in book["codes"].iter_rows(values_only=True))
    columns = {row[:3] for row in book["columns"].iter_rows(min_row=2, values_only=True)}
    assert ("scores", "missing_reason", None) in columns
    reasons = [row[:3] for row in book["missing values"].iter_rows(min_row=2, values_only=True)]
    assert reasons[0] == ("not_asked", ".a", "-9991")


def test_the_codebook_of_a_study_is_written_on_demand(workspace: Workspace) -> None:
    keys = write_current_codebook(workspace)
    assert keys == [f"codebook/codebook.{kind}" for kind in ("json", "html", "xlsx", "xml")]
    page = workspace.area.get("codebook/codebook.html").decode()
    assert "In this release" not in page
    assert "analysis_wide" in page
