"""The codebook: everything that a released table can hold is explained, before there are data and after."""

import json
from typing import get_args

import pandas as pd
import pytest

from study.analysis_tables import derive_layouts
from study.codebook import MISSING_REASON_LABELS, SCOPE_LABELS, TableSummary, derive_study_codebook
from study.datasets import TABLES
from study.instruments import MISSING_REASONS
from study.protocol import Scope
from tasks.definitions import list_studies, load_instruments, load_study

STUDIES = list_studies()


@pytest.mark.parametrize("study_id", STUDIES)
def test_every_column_and_code_is_explained(study_id: str) -> None:
    study = load_study(study_id)
    codebook = derive_study_codebook(study, load_instruments(study))
    layouts = derive_layouts(study, load_instruments(study))
    assert set(TABLES) < set(layouts)
    assert [table["name"] for table in codebook["tables"]] == list(layouts)
    for entry, table in zip(codebook["tables"], layouts.values(), strict=True):
        assert entry["n_rows"] is None
        assert [column["name"] for column in entry["columns"]] == table.column_names
        assert all(column["label"] and column["type"] in ("text", "number", "date") for column in entry["columns"])
    assert set(codebook["codes"]) == {column.codes for table in layouts.values() for column in table.columns} - {""}
    for name, known in (
        ("arm", study.arms), ("cohort", study.cohorts), ("wave", study.waves),
        ("disposition", study.disposition_reasons),
    ):  # fmt: skip
        assert list(codebook["codes"][name]) == [entry.id for entry in known]
    assert list(codebook["codes"]["site"]) == [site.site_id for site in study.sites]
    assert list(codebook["codes"]["respondent"]) == list(study.respondents)
    assert list(codebook["codes"]["form"]) == list(study.forms)
    scopes = {scope for reason in study.disposition_reasons for scope in reason.scopes}
    assert set(codebook["codes"]["disposition_scope"]) == scopes
    assert all(label for labels in codebook["codes"].values() for label in labels.values())
    assert json.loads(json.dumps(codebook)) == codebook


def test_every_scope_that_a_study_may_declare_has_words() -> None:
    assert set(SCOPE_LABELS) == set(get_args(Scope))


def test_every_missing_reason_has_words() -> None:
    assert set(MISSING_REASON_LABELS) == set(MISSING_REASONS)


@pytest.mark.parametrize("study_id", STUDIES)
def test_every_item_and_scale_is_there(study_id: str) -> None:
    study = load_study(study_id)
    instruments = load_instruments(study)
    entries = {entry["id"]: entry for entry in derive_study_codebook(study, instruments)["instruments"]}
    assert list(entries) == list(study.instruments)
    for instrument in instruments.values():
        entry = entries[instrument.id]
        assert [item["item"] for item in entry["items"]] == list(instrument.item_ids)
        assert [scale["scale"] for scale in entry["scales"]] == list(instrument.scale_ids)
        for item, row in zip(instrument.items, entry["items"], strict=True):
            assert {int(code): label for code, label in row["levels"].items()} == item.levels
            assert {int(code): reason for code, reason in row["missing_codes"].items()} == item.missing_codes
            assert (row["minimum"], row["maximum"]) == (item.lowest, item.highest)
            assert bool(row["asked_if"]) == (item.asked_if is not None)


def test_a_column_says_that_it_is_assumed() -> None:
    study = load_study("cdisc_pilot")
    codebook = derive_study_codebook(study, load_instruments(study))
    columns = {column["name"]: column for column in codebook["tables"][0]["columns"]}
    assert columns["consented_on"]["assumption"].startswith("Consent was signed on the date of screening")
    assert columns["site"]["assumption"] is None
    assert len(codebook["assumptions"]) == len(study.assumptions)


def test_with_tables_it_says_how_long_they_are() -> None:
    study = load_study("cdisc_pilot")
    summaries = {name: TableSummary(table) for name, table in TABLES.items()}
    for n, (name, table) in enumerate(TABLES.items()):
        summaries[name].add(table.shape(pd.DataFrame(index=range(n), columns=table.column_names)))
    codebook = derive_study_codebook(study, load_instruments(study), summaries=summaries)
    n_rows = {table["name"]: table["n_rows"] for table in codebook["tables"]}
    assert [n_rows[name] for name in TABLES] == [0, 1, 2]
