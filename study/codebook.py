"""The codebook: what every column, instrument, item, level, missing code and scale of a release means.

Written from the definitions alone, so that it can be had before any data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from study.datasets import COLUMN_LABELS, PARTICIPANT_COLUMNS, RESPONSE_COLUMNS, SCORE_COLUMNS
from study.instruments import Instrument, derive_codebook_rows, derive_scale_rows
from study.protocol import Study

MISSING_REASON_LABELS: Mapping[str, str] = {
    "not_asked": "The question was not put: routing, or a version of the form without it",
    "not_answered": "The question was put and left blank",
    "refused": "The respondent declined to answer",
    "not_applicable": "The question does not apply to this person",
    "not_returned": "The questionnaire did not come back",
    "illegible": "There is an answer that cannot be read",
}


def derive_study_codebook(
    study: Study, instruments: Mapping[str, Instrument], tables: Mapping[str, pd.DataFrame] | None = None
) -> dict[str, Any]:
    """The codebook as plain values (dicts, lists, text, numbers), for JSON and for a page. With `tables`, their sizes."""
    columns = {"participants": PARTICIPANT_COLUMNS, "responses": RESPONSE_COLUMNS, "scores": SCORE_COLUMNS}
    return {
        "study": study.study_id,
        "title": study.title,
        "tables": [
            {
                "name": name,
                "n_rows": len(tables[name]) if tables else None,
                "columns": [
                    {"name": column, "type": find_column_type(column), "label": COLUMN_LABELS[column]}
                    for column in names
                ],
            }
            for name, names in columns.items()
        ],
        "codes": {
            "arm": {arm.id: arm.label for arm in study.arms},
            "cohort": {cohort.id: cohort.label for cohort in study.cohorts},
            "site": {site.site_id: site.name for site in study.sites},
            "wave": {wave.id: wave.label for wave in study.waves},
            "disposition": {reason.id: reason.label for reason in study.disposition_reasons},
            "missing_reason": dict(MISSING_REASON_LABELS),
        },
        "assumptions": [{"id": entry.id, "text": entry.text} for entry in study.assumptions],
        "instruments": [_describe_instrument(instruments[name]) for name in study.instruments if name in instruments],
    }


def _describe_instrument(instrument: Instrument) -> dict[str, Any]:
    return {
        "id": instrument.id,
        "title": instrument.title,
        "version": instrument.version,
        "citation": instrument.citation,
        "licence": instrument.licence,
        "respondents": list(instrument.respondents),
        "forms": list(instrument.forms),
        "items": derive_codebook_rows(instrument).drop(columns="instrument").to_dict("records"),
        "scales": derive_scale_rows(instrument).drop(columns="instrument").to_dict("records"),
    }


def find_column_type(column: str) -> str:
    """date, number or text: how a column of a release is stored."""
    if column.endswith("_on"):
        return "date"
    return "number" if column in ("response", "score") else "text"
