"""What a site reads in a pack: the identifiers that are new, and the questionnaires that are due."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import python_calamine

from study.pack_layout import DUE, SCREENING, Layout, parse_date
from study.protocol import Study

ASKED = ["participant_id", "wave", "respondent", "instrument", "form", "opens_on"]

PackContent = tuple[list[str], list[tuple[Any, ...]]]


def read_pack(data: bytes, study: Study, layout: Layout) -> PackContent:
    """The identifiers on the screening sheet, in their order, and what is due (ASKED), a row for each row of a
    questionnaire's sheet; from when it may be filled in, the list due says.
    """
    book = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
    titles = {sheet.code: sheet.title for sheet in layout.sheets if sheet.title in book.sheet_names}

    def read(code: str, *names: str) -> Iterator[tuple[Any, ...]]:
        """What stands in these columns, below the row of codes, of each row with an identifier."""
        rows = iter(book.get_sheet_by_name(titles[code]).to_python() if code in titles else ())
        codes = next((row for row in rows if "participant_id" in row), [])
        places = [codes.index(name) for name in ("participant_id", *names) if name in codes]
        return (tuple(row[place] for place in places) for row in rows if row[places[0]] != "")

    waves = {wave.label: wave.id for wave in study.waves}
    opens_on = {
        (participant_id, waves.get(wave), respondent.replace(" ", "_")): parse_date(day).date
        for participant_id, wave, respondent, day in read(DUE, "wave", "respondent", "opens_on")
    }
    due = [
        (participant_id, wave, respondent, code, form, opens_on[participant_id, wave, respondent])
        for code in study.instruments
        for participant_id, wave, respondent, form in read(code, "wave", "respondent", "form")
        if (participant_id, wave, respondent) in opens_on
    ]
    return [str(participant_id) for (participant_id,) in read(SCREENING)], due
