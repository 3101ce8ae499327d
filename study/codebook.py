"""The codebook: what every column, code, instrument, item, level, missing code and scale of a release means.

Written from the definitions alone, so that it can be had before any data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from study.analysis_tables import ITEMS, OF_ANALYSIS, OF_RETURNS, derive_layouts
from study.attrition import AWAITED, MISSED
from study.datasets import RESPONSES, SCORES, Column, Table
from study.flow import OF_DISPOSITIONS
from study.instruments import Instrument, derive_codebook_rows, derive_scale_rows
from study.labelled import derive_variables, find_reason_columns
from study.protocol import Study

MISSING_REASON_LABELS: Mapping[str, str] = {
    "not_asked": "The question was not put: routing, or a version of the form without it",
    "not_answered": "The question was put and left blank",
    "refused": "The respondent declined to answer",
    "not_applicable": "The question does not apply to this person",
    "not_returned": "The questionnaire did not come back, or came back without this item",
    "illegible": "There is an answer that cannot be read",
}
RESPONDENT_LABELS: Mapping[str, str] = {
    "self": "The participant",
    "proxy": "Someone who answered in the participant's place, about the participant",
    "carer": "The participant's carer",
    "manager": "The manager of the participant's service",
}
FORM_LABELS: Mapping[str, str] = {"standard": "The standard form", "easy_read": "The easy-read form"}
CONSENT_BASIS_LABELS: Mapping[str, str] = {
    "signed": "The date stands on a signed form, as the site's consent log says",
    "assumed": "The date is a declared assumption; nobody observed it",
}
ALLOCATION_LABELS: Mapping[str, str] = {
    "randomised": "By chance",
    "matched": "Comparison people are matched to those of the intervention",
    "waiting_list": "Comparison people wait for the intervention",
    "neighbouring_area": "Comparison people live in a neighbouring area",
    "none": "There is no comparison",
}
SCOPE_LABELS: Mapping[str, str] = {
    "treatment": "The treatment only; questionnaires may go on",
    "questionnaires": "The questionnaires",
    "linkage": "Linkage to records",
    "post": "Letters to the person",
    "data": "Use of what was given already",
    "study": "The study as a whole",
}


def derive_study_codebook(
    study: Study,
    instruments: Mapping[str, Instrument],
    codes: Mapping[str, Mapping[str, str]] | None = None,
    summaries: Mapping[str, TableSummary] | None = None,
) -> dict[str, Any]:
    """The codebook as plain values (dicts, lists, text, numbers), for JSON and for a page.

    With `codes` those lists of codes (`labelled.extend_codes`), and with `summaries` the tables' numbers of rows and a
    summary of each column; None before there are any. A column that rests
    on a declared assumption of the study (one that is named like it) carries that assumption's text. `variable` is its
    name in Stata and SPSS, None where these files hold it otherwise; a code's number there is its place in its list.
    """
    assumed = {entry.id: entry.text for entry in study.assumptions}
    layouts = derive_layouts(study, instruments)
    codes, told = codes or derive_codes(study), summaries or {}
    described = {
        table.name: _describe_columns(table, assumed, codes, told.get(table.name)) for table in layouts.values()
    }
    scales = told[SCORES.name].describe_parts() if SCORES.name in told else {}
    return {
        "study": study.study_id,
        "title": study.title,
        "protocol_version": study.protocol_version,
        "tables": [
            {
                "name": table.name,
                "key": list(table.key),
                "n_rows": told[table.name].n_rows if table.name in told else None,
                "columns": described[table.name],
            }
            for table in layouts.values()
        ],
        "codes": codes,
        "accepts_unscheduled": study.accepts_unscheduled,
        "assumptions": [{"id": entry.id, "text": entry.text} for entry in study.assumptions],
        "instruments": [
            _summarise_instrument(instruments[name], described[f"{ITEMS}{name}"], scales) for name in study.instruments
        ],
        "planned_instruments": [{"id": entry.id, "label": entry.label} for entry in study.planned_instruments],
    }


def _summarise_instrument(
    instrument: Instrument,
    columns: Sequence[Mapping[str, Any]],
    of_scales: Mapping[tuple[str, str], Mapping[str, Any]],
) -> dict[str, Any]:
    """`describe_instrument`, with the summary of each item (from the columns of its table) and scale."""
    described, of_items = describe_instrument(instrument), {column["name"]: column["summary"] for column in columns}
    for item in described["items"]:
        item["summary"] = of_items[item["item"]]
    for scale in described["scales"]:
        scale["summary"] = of_scales.get((instrument.id, scale["scale"]))
    return described


def _describe_columns(
    table: Table, assumed: Mapping[str, str], codes: Mapping[str, Mapping[str, str]], told: TableSummary | None
) -> list[dict[str, Any]]:
    is_exported = table.name != RESPONSES.name
    variables = {one.column.name: one.name for one in derive_variables(table, codes)} if is_exported else {}
    reasons = find_reason_columns(table)
    return [
        {
            "name": column.name,
            "type": column.type,
            "label": column.label,
            "note": column.note,
            "assumption": assumed.get(column.name),
            "variable": variables.get(column.name),
            "codes": column.codes,
            "levels": {str(level): label for level, label in column.levels},
            "reason": column.reason,
            "summary": None
            if told is None or column.name in reasons
            else told.columns[column.name].describe(list(codes.get(column.codes, ()))),
        }
        for column in table.columns
    ]


class ColumnSummary:
    """What a column holds, counted as its rows pass."""

    def __init__(self, column: Column) -> None:
        self.column = column
        self.n, self.n_rows, self.total = 0, 0, 0.0
        self.lowest: Any = None
        self.highest: Any = None
        self.missing: Counter[str] = Counter()
        self.counts: Counter[Any] = Counter()

    def add(self, frame: pd.DataFrame) -> None:
        column, values = self.column, frame[self.column.name]
        n = int(values.notna().sum())
        self.n, self.n_rows = self.n + n, self.n_rows + len(values)
        if column.reason and n < len(values):
            self.missing.update(_count(frame[column.reason]))
        if column.levels or column.codes:
            self.counts.update(_count(values))
        elif column.type in ("number", "date") and n:
            lowest, highest = values.min(), values.max()
            self.lowest = lowest if self.lowest is None else min(self.lowest, lowest)
            self.highest = highest if self.highest is None else max(self.highest, highest)
            if column.type == "number":
                self.total += float(values.sum())

    def describe(self, codes: Sequence[str] = ()) -> dict[str, Any]:
        """n (with a value), missing (by reason, "" without one), and counts by code or level, or minimum, mean and
        maximum, or first and last day; of other text nothing more. `codes`: in their order."""
        column = self.column
        if column.reason:
            missing = dict(sorted(self.missing.items()))
        else:
            missing = {"": self.n_rows - self.n} if self.n < self.n_rows else {}
        summary: dict[str, Any] = {"n": self.n, "missing": missing}
        if column.levels or column.codes:
            order: Sequence[Any] = [level for level, _ in column.levels] if column.levels else codes
            summary["counts"] = {str(code): self.counts[code] for code in order}
        elif column.type == "number" and self.n:
            lowest, highest = float(self.lowest), float(self.highest)
            summary |= {"minimum": lowest, "mean": self.total / self.n, "maximum": highest}
        elif column.type == "date" and self.n:
            summary |= {"first": f"{self.lowest:%Y-%m-%d}", "last": f"{self.highest:%Y-%m-%d}"}
        return summary


def _count(values: pd.Series[Any]) -> dict[Any, int]:
    """How often each value is there."""
    counts = values.value_counts()
    return {value: int(n) for value, n in counts[counts > 0].items()}


class TableSummary:
    """What a table holds, counted as its rows pass; of SCORES also by instrument and scale."""

    def __init__(self, table: Table) -> None:
        reasons = find_reason_columns(table)
        self.table, self.n_rows = table, 0
        self.columns = {one.name: ColumnSummary(one) for one in table.columns if one.name not in reasons}
        self.parts: dict[tuple[str, str], ColumnSummary] = {}

    def add(self, frame: pd.DataFrame) -> None:
        self.n_rows += len(frame)
        for column in self.columns.values():
            column.add(frame)
        if self.table.name == SCORES.name:
            for key, rows in frame.groupby(["instrument", "scale"], sort=False):
                name = (str(key[0]), str(key[1]))
                self.parts.setdefault(name, ColumnSummary(_SCORE)).add(rows)

    def describe_parts(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The summary of each scale by instrument and scale, over all waves and respondents."""
        return {name: part.describe() for name, part in self.parts.items()}


_SCORE = next(column for column in SCORES.columns if column.name == "score")


def describe_summary(summary: Mapping[str, Any] | None) -> str:
    """A summary in words, "" before there are data: "818 values, 0 to 10, mean 4.2; 3 missing (refused 3)"."""
    if summary is None:
        return ""
    words = f"{summary['n']:,} {'value' if summary['n'] == 1 else 'values'}"
    if "mean" in summary:
        words += f", {summary['minimum']:g} to {summary['maximum']:g}, mean {summary['mean']:.4g}"
    if "first" in summary:
        words += f", {summary['first']} to {summary['last']}"
    if any(summary.get("counts", {}).values()):
        words += f" ({'; '.join(f'{code}: {many:,}' for code, many in summary['counts'].items() if many)})"
    if summary["missing"]:
        reasons = [
            f"{reason.replace('_', ' ')} {many:,}" if reason else f"blank {many:,}"
            for reason, many in summary["missing"].items()
        ]
        words += f"; {sum(summary['missing'].values()):,} missing ({', '.join(reasons)})"
    return words


def derive_codes(study: Study) -> dict[str, dict[str, str]]:
    """Column name to code to label, for every column that holds codes of the study."""
    scopes = {scope for reason in study.disposition_reasons for scope in reason.scopes}
    return {
        "site": {site.site_id: site.name for site in study.sites},
        "arm": {arm.id: arm.label for arm in study.arms},
        "cohort": {cohort.id: cohort.label for cohort in study.cohorts},
        "consent_basis": dict(CONSENT_BASIS_LABELS),
        "disposition": {reason.id: f"{reason.label} ({reason.kind})" for reason in study.disposition_reasons},
        "disposition_scope": {scope: label for scope, label in SCOPE_LABELS.items() if scope in scopes},
        "wave": {wave.id: wave.label for wave in study.waves},
        "respondent": {name: RESPONDENT_LABELS[name] for name in study.respondents},
        "form": {name: FORM_LABELS[name] for name in study.forms},
        "missing_reason": dict(MISSING_REASON_LABELS),
        "allocation": {way: ALLOCATION_LABELS[way] for way in sorted({study.allocation, *_find_allocations(study)})},
        **{
            name: dict(labels) for name, labels in (*OF_RETURNS.items(), *OF_DISPOSITIONS.items(), *OF_ANALYSIS.items())
        },
        "reason": {
            **{reason.id: reason.label for reason in study.disposition_reasons},
            AWAITED: "Awaited, the window is open",
            MISSED: "Missed, reason not known",
        },
    }


def _find_allocations(study: Study) -> set[str]:
    return {site.allocation for site in study.sites if site.allocation}


def describe_instrument(instrument: Instrument) -> dict[str, Any]:
    """An instrument with its items: in words as `derive_codebook_rows` has them, levels and codes as tables too; its
    scales, value sets, unit costs and rules between items."""
    rows = derive_codebook_rows(instrument).drop(columns="instrument").to_dict("records")
    return {
        "id": instrument.id,
        "title": instrument.title,
        "version": instrument.version,
        "citation": instrument.citation,
        "licence": instrument.licence,
        "respondents": list(instrument.respondents),
        "forms": list(instrument.forms),
        "recall": instrument.recall,
        "items": [
            {
                "item": item.id,
                "label": item.label,
                "type": item.type,
                "minimum": item.lowest,
                "maximum": item.highest,
                "levels": {str(code): label for code, label in item.levels.items()},
                "missing_codes": {str(code): reason for code, reason in item.missing_codes.items()},
                "asked_if": row["asked_if"],
                "respondents": list(item.respondents),
                "forms": list(item.forms),
                "scales": row["scales"].split(),
            }
            for item, row in zip(instrument.items, rows, strict=True)
        ],
        "choice_groups": [group.model_dump(mode="json") for group in instrument.choice_groups],
        "scales": [
            {**row, "values": {item: {str(k): v for k, v in of.items()} for item, of in scale.long_values.items()}}
            for scale, row in zip(
                instrument.scales,
                derive_scale_rows(instrument).drop(columns="instrument").to_dict("records"),
                strict=True,
            )
        ],
        "default_value_set": instrument.default_value_set,
        "value_sets": [
            {
                "id": value_set.id,
                "label": value_set.label,
                "country": value_set.country,
                "citation": value_set.citation,
                "source": value_set.source,
                "decimals": value_set.decimals,
                "covariates": list(value_set.covariates),
            }
            for value_set in instrument.value_sets
        ],
        "unit_costs": instrument.unit_costs.model_dump(mode="json") if instrument.unit_costs else None,
        "rules": [{"id": rule.id, "says": rule.says, "severity": rule.severity} for rule in instrument.rules],
    }
