"""Packs: the workbook that a site gets in one sending, filled in beforehand with all that the study knows.

Writing is a function of its arguments: the same plan gives the same bytes. The layout is that of returns, so what a
site fills in and sends back is read like any other return, and rows that it left as they were say nothing.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

import pandas as pd
import xlsxwriter  # type: ignore[import-untyped]  # it ships no types

from study.calendar import format_day
from study.instruments import Instrument
from study.pack_layout import (
    ACTIVITY,
    ALLOCATION,
    CONSENT,
    DISPOSITION,
    DUE,
    FIRST_DATA_ROW,
    QUERIES,
    README_TITLE,
    SCREENING,
    Layout,
    Sheet,
)
from study.packs import (
    RECONSENT,
    SIGNED_FORM,
    PackPlan,
    derive_asked_consents,
    derive_stop_list,
    list_new_identifiers,
)
from study.protocol import Study
from study.waves import find_form
from tasks.pages import format_counted, format_list
from tasks.participant_letters import write_participant_letters
from tasks.receipts import find_wording
from tasks.workbooks import (
    Book,
    find_row_height,
    set_up_print,
    write_about,
    write_lines,
    write_records,
)

__all__ = ["find_letters_name", "find_pack_name", "write_pack", "write_participant_letters"]

_README_WIDTHS = (26, 30, 24, 66)
_LAST = len(_README_WIDTHS) - 1
_SPARE_ROWS = 10  # empty rows that are printed below those that are filled in

# What may not be changed where it is filled in beforehand, by sheet. An instrument's own are _RECORD_NAMES.
_GIVEN: Mapping[str, tuple[str, ...]] = {
    SCREENING: ("participant_id", "cohort", "body", "screened_on", "approached_on"),
    CONSENT: (
        *("participant_id", "consented_on", "consent_form_version", "consent_scopes", "route", "taken_by"),
        *("sixteen_in", "form", "asked"),
    ),
    ALLOCATION: ("participant_id",),
    DISPOSITION: (),
    ACTIVITY: ("month", "figure", "evaluation", "nhs_england"),
    QUERIES: ("query_id", "about", "question"),
}
_RECORD_NAMES = ("participant_id", "respondent", "wave")

_HOW_TO_FILL = (
    "Each row is one record. Where a row begins with an identifier, fill in the rest of it; enter anything else in the "
    "empty rows below. A row to which you add nothing is passed over.",
    "Pick codes from the drop-down lists. If a question was left blank or could not be asked, type the code that says "
    "why (below); an empty cell is read as not answered.",
    "Type dates as day, month, year: 28/03/2018 or 28 Mar 2018. Type values, not formulas, and don't merge cells.",
    "No names, dates of birth, addresses or telephone numbers, please: a workbook that holds any cannot be kept.",
)

_ASKED_WORDS: Mapping[str, str] = {
    SIGNED_FORM: 'Is the signed form filed with you? Put "yes" as soon as it is',
    RECONSENT: "Consent is to be given anew soon. Put the new form into a new row",
    "collected_before_consent": "Answers are dated before this day. Check both dates against the papers, and tell us",
    "parent_after_sixteen": "The young person is over 16. Ask for their own consent, and put it into a new row",
    "signed_before_approved": "Signed before this version was approved with you. Check date and version, and tell us",
    "capacity_not_assessed": "A consultee advised. Was capacity assessed?",
    "superseded_version": "Signed on a version that had been replaced. Have the present one signed, in a new row",
    "reconsent_overdue": "Consent has run out. Ask again, and put the new form into a new row",
    "sixteen_unknown": "Give the month of the 16th birthday (no birth date)",
    "withdrawn_before_consent": "The person had left before this day. Check both dates against the papers, and tell us",
}
_STOP_WORDS = {"questionnaires": "no questionnaires", "post": "no letters", "data": "may not use what was given"}


def find_pack_name(plan: PackPlan) -> str:
    """The workbook's name in the outbox."""
    return f"{plan.pack_id}.xlsx"


def find_letters_name(plan: PackPlan) -> str:
    """The name in the outbox of the letters that go with it."""
    return f"{plan.pack_id}_letters.html"


class PackFiles(NamedTuple):
    """The files of a pack: its workbook, and the letters that go with it, empty where there are none."""

    workbook: bytes
    letters: bytes


def write_pack_files(study: Study, instruments: Mapping[str, Instrument], plan: PackPlan, layout: Layout) -> PackFiles:
    """All files of a pack."""
    return PackFiles(
        write_pack(study, instruments, plan, layout), write_participant_letters(study, plan, instruments) or b""
    )


def write_pack(
    study: Study,
    instruments: Mapping[str, Instrument],
    plan: PackPlan,
    layout: Layout,
    *,
    whom_to_ask: str = "",
) -> bytes:
    """The workbook of a pack. `whom_to_ask`: who answers questions, in words; the role alone where nothing is given."""
    frames = _derive_frames(study, instruments, plan, layout)
    sheets = sorted(
        (sheet for sheet in layout.list_sheets(plan.site_id) if sheet.code in frames),
        key=lambda sheet: _find_rank(sheet.code),
    )
    site = study.find_site(plan.site_id)
    name = site.name if site else plan.site_id
    header = f"{study.study_id}  ·  {name} ({plan.site_id})  ·  pack {plan.pack_id}"
    about = {
        "study": layout.study_id,
        "site": plan.site_id,
        "sending_number": 1,
        "correction": 0,
        "layout_version": layout.version,
        "pack_id": plan.pack_id,
    }
    buffer = io.BytesIO()
    with Book(buffer, f"{study.title}: pack {plan.pack_id}", plan.as_of) as book:
        _write_readme(book, study, plan, sheets, frames, name, header, whom_to_ask or _find_role(study))
        write_about(
            book,
            layout,
            about,
            [sheet for sheet in sheets if not sheet.is_for_reading],
            header,
            subtitle=f"Pack {plan.pack_id} for {name}: fill in the boxes and send it back",
            lines=_HOW_TO_FILL,
            facts=_list_versions(study, instruments, sheets),
            is_locked=True,
        )
        for sheet in sheets:
            frame = frames[sheet.code]
            is_instrument = sheet.code in instruments
            page = write_records(
                book,
                sheet,
                frame,
                header,
                max(len(frame) + (0 if sheet.is_for_reading else _SPARE_ROWS), 2),
                given=_RECORD_NAMES if is_instrument else _GIVEN.get(sheet.code, ()),
                widths=_find_widths(sheet, frame),
            )
            _set_heights(page, sheet, frame)
        book.write_lists()
    return buffer.getvalue()


def _find_rank(code: str) -> int:
    """The order of the sheets: what is due, then the logs, then the questionnaires, then what the study asks."""
    order = (DUE, SCREENING, CONSENT, ALLOCATION, DISPOSITION, "", ACTIVITY, QUERIES)
    return order.index(code if code in order else "")


def _find_role(study: Study) -> str:
    rule = study.fieldwork.chasing_rule
    return f"the {rule.coordinator.replace('_', ' ')} of the study team" if rule else "the study team"


def _list_versions(
    study: Study, instruments: Mapping[str, Instrument], sheets: Iterable[Sheet]
) -> list[tuple[str, str]]:
    own = [(sheet.title, instruments[sheet.code].version) for sheet in sheets if sheet.code in instruments]
    return [("Protocol", study.protocol_version), *own]


# What stands on the sheets ------------------------------------------------------------------------------------------


def _derive_frames(
    study: Study, instruments: Mapping[str, Instrument], plan: PackPlan, layout: Layout
) -> dict[str, pd.DataFrame]:
    """The rows of each sheet of the pack by its code. Questionnaires have a sheet where they are due."""
    frames = {
        SCREENING: _derive_screening(study, plan),
        CONSENT: _derive_consent(study, plan),
        ALLOCATION: pd.DataFrame({"participant_id": list(plan.unallocated)}),
        DISPOSITION: pd.DataFrame(),
        ACTIVITY: _derive_activity(plan),
        QUERIES: _derive_queries(study, instruments, plan, layout),
    }
    if len(plan.rows):
        rows = plan.rows.sort_values(["due_on", "participant_id", "wave", "respondent"], ignore_index=True)
        frames[DUE] = _derive_due(study, instruments, rows)
        codes = rows["instruments"].str.split(";")
        names = rows[["participant_id", "respondent", "form", "wave"]]
        for code in study.instruments:
            own = names[[code in listed for listed in codes]].reset_index(drop=True)
            if len(own):
                # Who wants an easy-read form gets it where the questionnaire has one.
                forms = instruments[code].forms
                frames[code] = own.assign(form=[find_form(forms, wanted) for wanted in own["form"]])
    return {code: frame for code, frame in frames.items() if layout.find_sheet(code) is not None}


def _derive_due(study: Study, instruments: Mapping[str, Instrument], rows: pd.DataFrame) -> pd.DataFrame:
    """The list due, in words: it is not read back."""
    waves = {wave.id: wave.label for wave in study.waves}
    titles = {
        codes: ", ".join(instruments[code].sheet_title for code in codes.split(";"))
        for codes in rows["instruments"].unique()
    }
    copies = rows["copy_number"] if "copy_number" in rows else pd.Series(1, rows.index)
    return pd.DataFrame(
        {
            "participant_id": rows["participant_id"],
            "wave": rows["wave"].map(waves).fillna(rows["wave"]),
            "respondent": rows["respondent"].str.replace("_", " "),
            "form": rows["form"].str.replace("_", " "),
            "version": study.protocol_version,
            "instruments": rows["instruments"].map(titles),
            "copy_number": [f"copy {copy}" if copy > 1 else "first" for copy in copies],
            **{name: rows[name] for name in ("opens_on", "due_on", "closes_on", "late_until")},
        }
    )


def _derive_screening(study: Study, plan: PackPlan) -> pd.DataFrame:
    """People whose answer is not known, then the new identifiers, each with a row of its own."""
    new = pd.DataFrame({"participant_id": list_new_identifiers(study, plan)})
    columns = ["participant_id", "cohort", "body", "screened_on", "approached_on"]
    if not study.fieldwork.approach_reasons or not len(plan.approaches):
        return new
    known = plan.approaches[columns].astype(object)
    if not any(len(site.bodies) > 1 for site in study.sites):
        known = known.drop(columns="body")
    return pd.concat([known, new.astype(object)], ignore_index=True)


def _derive_consent(study: Study, plan: PackPlan) -> pd.DataFrame:
    """Consents about which something is asked, with all that is known of them, then people who have not signed yet."""
    asked = derive_asked_consents(study, plan)
    copies = {"held": "yes", "seen": "yes", "missing": "no"}
    known = pd.DataFrame(
        {
            "participant_id": asked["participant_id"],
            "consented_on": asked["signed_on"],
            "consent_form_version": asked["form_version"],
            "consent_scopes": asked["scopes"].str.replace(";", "; "),
            **{name: asked[name] for name in ("route", "taken_by", "capacity", "sixteen_in", "form")},
            "copy_filed": asked["copy"].map(copies),
            "asked": [
                _word_asked(codes.split(";"), due_on, until)
                for codes, due_on, until in zip(
                    asked["asked"], asked["copy_due_on"], asked["reconsent_due_on"], strict=True
                )
            ],
        }
        if len(asked)
        else {}
    )
    unsigned = pd.DataFrame({"participant_id": list(plan.unsigned)})
    if len(unsigned):
        unsigned["asked"] = "Agreed to take part. If the form is signed, fill in the row."
    return pd.concat([known.astype(object), unsigned.astype(object)], ignore_index=True)


def _word_asked(codes: Sequence[str], due_on: pd.Timestamp, reconsent_due_on: pd.Timestamp) -> str:
    """What is asked about one consent, each in a sentence."""
    days = {SIGNED_FORM: due_on, RECONSENT: reconsent_due_on}
    sentences = []
    for code in codes:
        words, day = _ASKED_WORDS.get(code, "Please check this row against the papers"), days.get(code, pd.NaT)
        sentences.append(words if pd.isna(day) else f"{words} (by {day.date():%d %b %Y})")
    return " ".join(sentence if sentence.endswith("?") else f"{sentence}." for sentence in sentences)


def _derive_activity(plan: PackPlan) -> pd.DataFrame:
    columns = ["month", "figure", "evaluation", "nhs_england"]
    if not len(plan.figures):
        return pd.DataFrame(columns=columns)
    return plan.figures.reindex(columns=columns).sort_values(["month", "figure"], ignore_index=True)


def _derive_queries(
    study: Study, instruments: Mapping[str, Instrument], plan: PackPlan, layout: Layout
) -> pd.DataFrame:
    """Open queries: their number, what they are about, and the question, in words."""
    if not len(plan.queries):
        return pd.DataFrame(columns=["query_id", "about", "question"])
    rows = plan.queries.to_dict("records")
    return pd.DataFrame(
        {
            "query_id": [row["query_id"] for row in rows],
            "about": [_word_place(study, instruments, layout, row) for row in rows],
            "question": [" ".join(find_wording(row["rule"], "")) for row in rows],
        }
    )


def _word_place(study: Study, instruments: Mapping[str, Instrument], layout: Layout, query: Mapping[Any, Any]) -> str:
    """What a query is about: the person, wave, questionnaire and item where they are known, else the place."""
    waves = {wave.id: wave.label for wave in study.waves}
    sheet = instruments[query["instrument"]].sheet_title if query["instrument"] in instruments else ""
    parts = [query["participant_id"], waves.get(query["wave"], query["wave"]), query["respondent"].replace("_", " ")]
    parts.append(sheet or layout.find_title(query["sheet"]))
    parts.append(layout.name_column(query["sheet"] or query["instrument"], query["item"] or query["column_name"]))
    if not query["participant_id"] and query["row"]:
        parts.append(f"row {query['row']}")
    if query["return_id"]:
        parts.append(f"in what you sent as {query['return_id'].removeprefix(str(query['site_id']) + '-')}")
    return ", ".join(part for part in parts if part) or "a file that you sent"


# How it looks -------------------------------------------------------------------------------------------------------

_WIDE: Mapping[tuple[str, str], float] = {(QUERIES, "about"): 44, (QUERIES, "question"): 80, (QUERIES, "answer"): 18}


def _find_widths(sheet: Sheet, frame: pd.DataFrame) -> dict[str, float]:
    """Widths where the usual ones don't serve: sheets for reading as their words need, logs so that they fit a page."""
    widths = {
        column.code: _WIDE[sheet.code, column.code] for column in sheet.columns if (sheet.code, column.code) in _WIDE
    }
    if sheet.is_for_reading:
        for column in sheet.columns:
            is_worded = column.code in frame and column.kind == "text"
            texts: list[str] = frame[column.code].astype(str).tolist() if is_worded else []
            widths[column.code] = min(max([13.0, *(len(text) + 3.0 for text in texts)]), 40)
        widths |= {"version": 10, "copy_number": 10, "status_checked": 14}
    elif sheet.code == CONSENT:
        widths |= {column.code: 13 for column in sheet.columns}
        widths |= {"copy_filed": 9, "consent_form_version": 11, "consent_scopes": 22, "asked": 32}
    elif sheet.code == SCREENING:
        widths |= {"participant_id": 15, "screened_on": 14, "approached_on": 14}
    return {code: width for code, width in widths.items() if code in sheet.column_by_code}


def _set_heights(page: xlsxwriter.worksheet.Worksheet, sheet: Sheet, frame: pd.DataFrame) -> None:
    """Rows with sentences are as high as these need."""
    widths = _find_widths(sheet, frame)
    worded = [
        column.code for column in sheet.columns if column.is_locked and column.kind == "text" and column.code in frame
    ]
    if not worded:
        return
    for number, texts in enumerate(frame[worded].fillna("").astype(str).itertuples(index=False, name=None)):
        page.set_row(FIRST_DATA_ROW - 1 + number, find_row_height(texts, [widths.get(code, 20) for code in worded]))


# Read me ------------------------------------------------------------------------------------------------------------


def _write_readme(
    book: Book,
    study: Study,
    plan: PackPlan,
    sheets: Sequence[Sheet],
    frames: Mapping[str, pd.DataFrame],
    name: str,
    header: str,
    whom_to_ask: str,
) -> None:
    page = book.add_sheet(README_TITLE)
    for column, width in enumerate(_README_WIDTHS):
        page.set_column(column, column, width, book.find_format("prose"))
    page.write_string(0, 0, study.title, book.find_format("title"))
    page.set_row(0, 28)
    made = f"Pack for {name}, made up on {format_day(plan.as_of)}. Its number: {plan.pack_id}"
    page.write_string(1, 0, made, book.find_format("subtitle"))
    row = _write_prose(book, page, 3, "What this is", _describe(study, plan, frames))
    width = sum(_README_WIDTHS)
    row = _write_stop_list(book, page, row + 1, plan)
    row = write_lines(
        book, page, row + 1, "What to do", _list_steps(study, plan, frames), last_column=_LAST, width=width
    )
    row = _write_prose(book, page, row + 1, "Whom to ask", [f"Anything unclear, or anything wrong: ask {whom_to_ask}."])
    row = _write_prose(
        book,
        page,
        row + 1,
        "How to read the sheets",
        [
            "White cells are for you. Bold words on grey are ours and cannot be changed; if one is wrong, tell us.",
            "Each row is one record. Use the empty rows below for more. Columns may be made wider.",
            "Identifiers only: no names, dates of birth, addresses or telephone numbers anywhere in this workbook.",
        ],
    )
    _write_contents(book, page, row + 1, sheets, frames)
    set_up_print(page, header, 1)
    page.protect("", {"format_columns": True, "format_rows": True})
    page.activate()


def _write_prose(book: Book, page: xlsxwriter.worksheet.Worksheet, row: int, heading: str, lines: Iterable[str]) -> int:
    """A heading and sentences over the whole width; returns the next free row."""
    _write_heading(book, page, row, heading)
    for line in lines:
        row += 1
        page.merge_range(row, 0, row, _LAST, line, book.find_format("prose"))
        page.set_row(row, find_row_height((line,), (sum(_README_WIDTHS),)))
    return row + 1


def _write_heading(book: Book, page: xlsxwriter.worksheet.Worksheet, row: int, heading: str) -> None:
    for column in range(_LAST + 1):
        page.write_blank(row, column, None, book.find_format("heading"))
    page.write_string(row, 0, heading, book.find_format("heading"))
    page.set_row(row, 22)


def _describe(study: Study, plan: PackPlan, frames: Mapping[str, pd.DataFrame]) -> list[str]:
    if not len(plan.rows):
        return [
            "No questionnaire is due at your site. This workbook has the logs, for people whom you have screened, "
            "approached or enrolled and for those who have left, and what we would like to know from you."
        ]
    waves = {wave.id: wave.label for wave in study.waves}
    counts = plan.rows["wave"].value_counts()
    listed = format_list(f"{label}: {counts[wave]}" for wave, label in waves.items() if wave in counts)
    n_people = plan.rows["participant_id"].nunique()
    again = plan.rows["copy_number"] > 1 if "copy_number" in plan.rows else pd.Series(False, plan.rows.index)
    lines = [
        f"Questionnaires are due from {format_counted(n_people, 'person', 'people')} at your site ({listed}). This "
        "workbook lists them, takes their answers, and has the logs and our questions to you."
    ]
    if again.any():
        n_again = int(again.sum())
        lines.append(
            f"{format_counted(n_again, 'questionnaire is', 'questionnaires are')} sent a second time, because nothing "
            'has come back: the column "Copy" of the sheet Due says which.'
        )
    return lines


def _list_steps(study: Study, plan: PackPlan, frames: Mapping[str, pd.DataFrame]) -> list[str]:
    """What to do, by when, in the order in which it is done."""
    steps = []
    if len(plan.rows):
        first, last = (plan.rows["due_on"].min().date(), plan.rows["due_on"].max().date())
        latest = plan.rows["late_until"].max().date()
        due = f"on {format_day(first)}" if first == last else f"between {format_day(first)} and {format_day(last)}"
        steps += [
            "Before you post or hand over anything, check each person's status: is the person alive, still taking "
            "part, and not on the list above? If anything has changed, leave that person out and fill in the sheet "
            "Disposition today.",
            f"Print the letters (file {find_letters_name(plan)}), write each name in by hand, and enclose the "
            'questionnaires that the sheet Due names. Nothing goes out before the day under "Not before".',
            "When a questionnaire comes back, type its answers into its own sheet: the row with the identifier is "
            f"there. Each is due on the day that the sheet Due gives ({due}). We take answers until the day under "
            f'"Taken until" ({format_day(latest)} for the last).',
        ]
    new = list_new_identifiers(study, plan)
    if new:
        steps.append(
            f"New people: {len(new)} new identifiers are ready on the sheet Screening and approach ({new[0]} to "
            f"{new[-1]}). Use them in order, one for each person and none twice, and enter everybody whom you "
            "screen, whatever comes of it."
        )
    elif SCREENING in frames:
        steps.append(
            "New people: enter everybody whom you screen on the first of the logs, whatever comes of it, with the "
            "identifiers that you have from before."
        )
    if len(plan.approaches) and SCREENING in frames:
        steps.append(
            f"{format_counted(len(plan.approaches), 'person has', 'people have')} been approached and we do not know "
            "what came of it: fill in the first rows of that sheet."
        )
    if n_asked := len(frames.get(CONSENT, ())):
        steps.append(
            f"Consent: we ask something about {format_counted(n_asked, 'person', 'people')}; the last column of the "
            "sheet Consent says what. Enter new consent forms below. The forms themselves stay with you."
        )
    if plan.unallocated:
        n = format_counted(len(plan.unallocated), "person has", "people have")
        steps.append(f"Allocation: {n} consented and no arm yet, as far as we know. Fill in the arm and the day.")
    if n_months := len(frames.get(ACTIVITY, ())):
        steps.append(_word_figures(study, plan, n_months))
    if len(plan.queries):
        n = format_counted(len(plan.queries), "question", "questions")
        steps.append(f"Queries: {n} of ours to you. Do what the question says, and choose an answer beside it.")
    steps.append(
        'On the sheet About put the day on which you send this back under "Posted on". Save it and put it into your '
        "inbox folder. You may send it before everything is filled in, and again later with a new day: nothing is "
        "counted twice, and rows left empty are passed over."
    )
    return steps


def _word_figures(study: Study, plan: PackPlan, n_months: int) -> str:
    overdue = ""
    if "due_on" in plan.figures:
        days = pd.to_datetime(plan.figures["due_on"])
        if n_overdue := int((days < pd.Timestamp(plan.as_of)).sum()):
            overdue = f" {n_overdue} of them {'is' if n_overdue == 1 else 'are'} overdue."
        elif len(days):
            overdue = f" The first is due on {format_day(days.min().date())}."
    figures = format_counted(n_months, "figure is", "figures are")
    return (
        f"Activity figures: {figures} owed. Give each twice: as you count it for this evaluation, and as you reported "
        f"it to NHS England. The two may differ, since each has rules of its own: make neither fit the other. Where "
        f"they do, we ask you once how you count.{overdue}"
    )


def _write_stop_list(book: Book, page: xlsxwriter.worksheet.Worksheet, row: int, plan: PackPlan) -> int:
    """Who must not be contacted."""
    stopped = derive_stop_list(plan)
    heading = "Do not contact: check status before posting"
    if not len(stopped):
        nobody = f"As far as we knew on {format_day(plan.as_of)}, nobody at your site. Check each person all the same."
        return _write_prose(book, page, row, heading, [nobody])
    row = _write_prose(
        book,
        page,
        row,
        heading,
        [
            "These people have left the study or a part of it. Send them nothing that is named here, from this pack or "
            "from an earlier one."
        ],
    )
    for column, label in enumerate(("Participant", "What has stopped", "Since")):
        page.write_string(row, column, label, book.find_format("head"))
    for participant_id, stops, from_on in stopped.itertuples(index=False, name=None):
        row += 1
        page.write_string(row, 0, participant_id, book.find_format("given_text"))
        words = format_list(_STOP_WORDS[stop] for stop in stops.split(";"))
        page.write_string(row, 1, words, book.find_format("wrapped"))
        page.write_string(row, 2, format_day(_find_day(from_on)), book.find_format("text"))
        page.set_row(row, find_row_height((words,), (_README_WIDTHS[1],)))
    return row + 1


def _find_day(moment: pd.Timestamp) -> date:
    return moment.date()


def _write_contents(
    book: Book,
    page: xlsxwriter.worksheet.Worksheet,
    row: int,
    sheets: Sequence[Sheet],
    frames: Mapping[str, pd.DataFrame],
) -> None:
    _write_heading(book, page, row, "What is in this workbook")
    row += 1
    for column, label in enumerate(("Sheet", "Rows filled in by us", "")):
        page.write_string(row, column, label, book.find_format("head"))
    page.merge_range(row, 2, row, _LAST, "What it is for", book.find_format("head"))
    for sheet in sheets:
        row += 1
        page.write_string(row, 0, sheet.title, book.find_format("label"))
        page.write_number(row, 1, len(frames[sheet.code]), book.find_format("whole"))
        page.merge_range(row, 2, row, _LAST, sheet.purpose, book.find_format("wrapped"))
        page.set_row(row, find_row_height((sheet.purpose,), (sum(_README_WIDTHS[2:]),)))
