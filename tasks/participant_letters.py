"""Letters to participants, for their site to print and send: the product itself never writes to them.

A letter is merged by identifier and holds no name: the site writes it by hand. The wording is that of
`templates/letters/participants/`, one file for each kind of letter and form of the questionnaire. Templates can do
nothing but put words together (a sandbox), and one that names a value that nobody gives is a fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import FileSystemLoader, StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from study.calendar import format_day
from study.instruments import Instrument
from study.packs import PackPlan, find_without_post
from study.protocol import Study
from tasks.settings import PROJECT

FOLDER = PROJECT / "templates" / "letters" / "participants"
FRAME = "letters.html.jinja"
INVITATION, SECOND_COPY = KINDS = ("invitation", "second_copy")


@lru_cache(maxsize=4)
def _templates(folder: Path) -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_participant_letters(
    study: Study, plan: PackPlan, instruments: Mapping[str, Instrument] | None = None, *, folder: Path = FOLDER
) -> bytes:
    """The letters of a pack as one page of HTML: a list for the site, then one letter on each sheet of A4, both in the
    order of the list due. Empty where nobody gets one: nothing is due, or letters have stopped for all of them.

    `instruments`: by whose titles the site is told what to enclose; their codes stand in for them.
    """
    rows = plan.rows
    if len(rows):
        rows = rows[~rows["participant_id"].isin(find_without_post(plan))]
        rows = rows.sort_values(["due_on", "participant_id", "wave", "respondent"])
    if not len(rows):
        return b""
    titles = {code: instrument.sheet_title for code, instrument in (instruments or {}).items()}
    letters = [_write_letter(study, plan, row, titles, folder) for row in rows.to_dict("records")]
    page = _templates(folder).get_template(FRAME).render(pack_id=plan.pack_id, letters=letters)
    return (page.rstrip() + "\n").encode()


def _write_letter(
    study: Study, plan: PackPlan, row: Mapping[Any, Any], titles: Mapping[str, str], folder: Path
) -> dict[str, Any]:
    wave = study.find_wave(row["wave"])
    copy_number = int(row.get("copy_number", 1))
    values = {
        "study_title": study.title,
        "participant_id": row["participant_id"],
        "wave_label": wave.label if wave else row["wave"],
        "is_first": wave is not None and wave.role != "follow_up",
        "respondent": row["respondent"],
        "return_by": _find_return_day(plan, row),
    }
    kind = SECOND_COPY if copy_number > 1 else INVITATION
    return values | {
        "text": _render(kind, row["form"], values, folder),
        "form": row["form"],
        "form_label": row["form"].replace("_", " "),
        "copy_number": copy_number,
        "not_before": f"{row['opens_on']:%d %b %Y}",
        "enclosed": ", ".join(titles.get(code, code) for code in row["instruments"].split(";")),
    }


def _render(kind: str, form: str, values: Mapping[str, Any], folder: Path) -> str:
    return _templates(folder).get_template(f"{kind}.{form}.html.jinja").render(values)


def _find_return_day(plan: PackPlan, row: Mapping[Any, Any]) -> str:
    """By when an answer is asked for: the next of the due day, the end of the window and the last day of all that is
    not over; a copy that is sent when the first is overdue asks for a day to come."""
    days = [row[name] for name in ("due_on", "closes_on", "late_until") if not pd.isna(row[name])]
    return format_day(next((day for day in days if day > pd.Timestamp(plan.as_of)), days[-1]).date())


def find_participant_letter_faults(study: Study, folder: Path = FOLDER) -> list[str]:
    """What is wrong with the wording of letters to participants, each as one sentence: a file that is missing or that
    is no template, and a value that nobody gives."""
    return [fault for kind in KINDS for form in study.forms for fault in _find_faults(study, kind, form, folder)]


def _find_faults(study: Study, kind: str, form: str, folder: Path) -> Iterator[str]:
    place = f"templates/letters/participants/{kind}.{form}.html.jinja"
    for respondent in study.respondents:
        for is_first in (True, False):
            values = {
                "study_title": study.title,
                "participant_id": study.participant_id_example,
                "wave_label": study.waves[-1].label,
                "is_first": is_first,
                "respondent": respondent,
                "return_by": format_day(study.data_collection_ends_on),
            }
            try:
                _render(kind, form, values, folder)
            except TemplateError as fault:
                what = fault.message or type(fault).__name__
                yield f"{place}: {what}. Mend the wording; its first lines say what is known."
                return
