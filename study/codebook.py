"""The codebook: what every column, code, instrument, item, level, missing code and scale of a release means.

Written from the definitions alone, so that it can be had before any data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from study.datasets import TABLES
from study.instruments import Instrument, derive_codebook_rows, derive_scale_rows
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
SCOPE_LABELS: Mapping[str, str] = {
    "treatment": "The treatment only; questionnaires may go on",
    "questionnaires": "The questionnaires",
    "linkage": "Linkage to records",
    "post": "Letters to the person",
    "data": "Use of what was given already",
    "study": "The study as a whole",
}


def derive_study_codebook(
    study: Study, instruments: Mapping[str, Instrument], tables: Mapping[str, pd.DataFrame] | None = None
) -> dict[str, Any]:
    """The codebook as plain values (dicts, lists, text, numbers), for JSON and for a page.

    With `tables`, their numbers of rows; None before there are any. A column that rests on a declared assumption of
    the study (one that is named like it) carries that assumption's text.
    """
    assumed = {entry.id: entry.text for entry in study.assumptions}
    return {
        "study": study.study_id,
        "title": study.title,
        "protocol_version": study.protocol_version,
        "tables": [
            {
                "name": table.name,
                "key": list(table.key),
                "n_rows": len(tables[table.name]) if tables else None,
                "columns": [
                    {
                        "name": column.name,
                        "type": column.type,
                        "label": column.label,
                        "assumption": assumed.get(column.name),
                    }
                    for column in table.columns
                ],
            }
            for table in TABLES.values()
        ],
        "codes": _describe_codes(study),
        "accepts_unscheduled": study.accepts_unscheduled,
        "assumptions": [{"id": entry.id, "text": entry.text} for entry in study.assumptions],
        "instruments": [describe_instrument(instruments[name]) for name in study.instruments],
        "planned_instruments": [{"id": entry.id, "label": entry.label} for entry in study.planned_instruments],
    }


def _describe_codes(study: Study) -> dict[str, dict[str, str]]:
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
    }


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
