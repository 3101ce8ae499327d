"""What a site reads in a pack: the identifiers that are new, and the questionnaires that are due."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
import python_calamine

from study.pack_layout import DUE, SCREENING, Layout, parse_date
from study.protocol import Study

ASKED = ["participant_id", "wave", "respondent", "instrument", "form", "opens_on"]


def read_pack(data: bytes, study: Study, layout: Layout) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The identifiers on the screening sheet (participant_id, in their order), and what is due (ASKED), a row for each
    row of a questionnaire's sheet; from when it may be filled in, the list due says.
    """
    book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
    sheets = {
        sheet.code: _read_sheet(book.get_sheet_by_name(sheet.title).to_python())
        for sheet in layout.sheets
        if sheet.code in (SCREENING, DUE, *study.instruments) and sheet.title in book.sheet_names
    }
    screening = sheets.get(SCREENING, pd.DataFrame(columns=["participant_id"]))
    given = screening.loc[screening["participant_id"] != "", ["participant_id"]].astype("str")
    due = sheets.get(DUE)
    if due is None or not len(due):
        return given, pd.DataFrame(columns=ASKED)
    waves = {wave.label: wave.id for wave in study.waves}
    keys = ["participant_id", "wave", "respondent"]
    days = pd.DataFrame(
        {
            "participant_id": due["participant_id"],
            "wave": due["wave"].map(waves),
            "respondent": due["respondent"].str.replace(" ", "_"),
            "opens_on": [parse_date(day).date for day in due["opens_on"]],
        }
    )
    named = [
        sheets[code].loc[sheets[code]["participant_id"] != "", [*keys, "form"]].assign(instrument=code)
        for code in study.instruments
        if code in sheets
    ]
    return given, pd.concat(named).merge(days, on=keys)[ASKED]


def _read_sheet(rows: list[list[Any]]) -> pd.DataFrame:
    """What stands below the row of codes, by code; blank rows left out."""
    place = next((n for n, row in enumerate(rows) if "participant_id" in row), None)
    if place is None:
        return pd.DataFrame(columns=["participant_id"])
    frame = pd.DataFrame(rows[place + 1 :], columns=[str(code) for code in rows[place]], dtype=object)
    return frame[(frame != "").any(axis=1)].drop(columns="", errors="ignore").reset_index(drop=True)
