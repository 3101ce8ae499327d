"""One layout of packs and returns, for the code that writes them and the code that reads them.

A return has a sheet "About" (which study, site and sending it is), logs of people (screening and approach, consent,
allocation, disposition), where the study asks for them figures of activity, answers to queries, and one sheet per
instrument. In every sheet but "About" row 1 holds labels for people, row 2 holds the codes that the reader relies on,
and data begin in row 3. Sheets without entries may be left out of a return. A pack may hold rows filled in beforehand
(identifiers, what is due, months, queries): while a site adds nothing to such a row, it says nothing. A pack also has
sheets for reading only; the reader passes over them.

This module holds no file format: `tasks/workbooks.py` puts a layout into a workbook and takes it out again.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal

import pandas as pd

if TYPE_CHECKING:
    from study.fieldwork import Figure
    from study.instruments import Instrument, Item
    from study.protocol import Study

# Raised whenever a workbook written by the code before could be misread by the code after.
LAYOUT_VERSION = "2"

ABOUT = "about"
SCREENING = "screening"
CONSENT = "consent"
ALLOCATION = "allocation"
DISPOSITION = "disposition"
ACTIVITY = "activity"
QUERIES = "queries"
DUE = "due"
BODY = "body"
REMARKS = "safety_remarks"
LOG_SHEETS = (SCREENING, CONSENT, ALLOCATION, DISPOSITION)
"""Logs of people."""
ABOUT_TITLE = "About"
# Sheets without records: drop-down lists that are too long for the cell itself, words to the site, and the lines of an
# export that rows came from.
LISTS_TITLE, README_TITLE, LINES_TITLE = "Lists", "Read me", "Export lines"
TITLES_PASSED_OVER = (LISTS_TITLE, README_TITLE, LINES_TITLE)

LABEL_ROW = 1
CODE_ROW = 2
FIRST_DATA_ROW = 3

RECORD_KEYS = ("participant_id", "respondent", "form", "wave", "collected_on")
DISPOSITION_SCOPES = {
    "treatment": "stopped the treatment only",
    "questionnaires": "no more questionnaires",
    "linkage": "no more linkage to records",
    "post": "no more letters",
    "data": "what was given already is not to be used",
    "study": "left the whole study",
}
APPROACH_OUTCOMES = {
    "agreed": "wants to take part",
    "declined": "does not want to take part",
    "not_eligible": "turned out not to be eligible",
    "no_answer": "has not answered",
}
ROUTE_WORDS = {
    "self": "for themselves",
    "consultee": "a consultee advised",
    "parent": "a parent consented for a child",
}
CAPACITY_WORDS = {"assessed": "capacity was assessed", "not_assessed": "capacity was not assessed"}
COPY_WORDS = {"yes": "the form is filed", "no": "the form is not filed yet"}
ANSWER_WORDS = {
    "corrected": "it was wrong: corrected in this workbook",
    "confirmed": "it is right as it is",
    "cannot_say": "nobody can say any more",
}
# Codes that stand in several sheets: no sheet is known by them.
_SHARED_CODES = frozenset({*RECORD_KEYS, "reason", REMARKS})

Kind = Literal["text", "date", "month", "count", "item"]
Severity = Literal["hard", "soft"]


@dataclass(frozen=True)
class Choice:
    """One entry of a drop-down: what is stored, and what it means in words."""

    code: str
    label: str


_CODE_AND_LABEL = re.compile(r"([+-]?\d{1,6})(?: ?[-\u2013=:.)] ?| )(.+)", re.ASCII)
_KIND_WORDS = {"date": "a date", "month": "a month such as 2018-03", "count": "a whole number, 0 or more"}


@dataclass(frozen=True)
class Column:
    """One column of a sheet.

    ``kind``: "text" (identifiers and codes, always text), "date", "month" (text, such as 2018-03), "count" (a whole
    number from 0), or "item" (an answer, a number). ``choices`` are the entries of its drop-down; unless
    ``only_choices``, another entry is let through after a word of warning. A number item has no choices but ``minimum``
    and ``maximum`` and, beside them, the codes of ``missing``. A workbook may lack a column that ``is_optional``; what
    ``is_locked`` is written by the study and read by people.
    """

    code: str
    label: str
    kind: Kind
    choices: tuple[Choice, ...] = ()
    only_choices: bool = True
    minimum: float | None = None
    maximum: float | None = None
    whole_numbers: bool = False
    missing: tuple[Choice, ...] = ()
    advice: str = ""
    is_optional: bool = False
    is_locked: bool = False

    @property
    def answers_in_words(self) -> str:
        """What may stand in the column, missing codes apart: "0 = no, 1 = yes", "0 to 5", "a number from 0 to 10"."""
        if self.choices:
            return _choices_in_words(self.choices)
        if self.minimum is not None and self.maximum is not None:
            number = "a whole number" if self.whole_numbers else "a number"
            return f"{number} from {self.minimum:g} to {self.maximum:g}"
        return _KIND_WORDS.get(self.kind, "text")

    @property
    def expected(self) -> str:
        """What may stand in the column, missing codes included."""
        if not self.missing:
            return self.answers_in_words
        return f"{self.answers_in_words}; or {', '.join(f'{code.code} {code.label}' for code in self.missing)}"

    @cached_property
    def _labels(self) -> Mapping[str, str]:
        """The folded label of each code; labels that read like numbers are left out."""
        labels = {choice.code: fold_title(choice.label) for choice in (*self.choices, *self.missing)}
        return {code: label for code, label in labels.items() if label and not _WRITTEN_NUMBER.fullmatch(label)}

    def find_code(self, text: str) -> float | None:
        """The code of an answer that was typed in words: exactly a label that no other code has ("severe"), or a code
        with its own label ("3 - severe", "3 = severe", "-9 not answered"). None for anything else, such as a part of a
        label, or a code with the label of another: nothing is guessed."""
        told = fold_title(text)
        codes = [code for code, label in self._labels.items() if label == told]
        if not codes and (match := _CODE_AND_LABEL.fullmatch(told)) and self._labels.get(match[1]) == match[2]:
            codes = [match[1]]
        return float(codes[0]) if len(codes) == 1 and _WRITTEN_NUMBER.fullmatch(codes[0]) else None


@dataclass(frozen=True)
class Sheet:
    """One sheet of records. ``code`` is an instrument's id, or the name of a log. What stands on a sheet that
    ``is_for_reading`` is never read back."""

    code: str
    title: str
    purpose: str
    columns: tuple[Column, ...]
    is_for_reading: bool = False

    @cached_property
    def codes(self) -> tuple[str, ...]:
        return tuple(column.code for column in self.columns)

    @cached_property
    def column_by_code(self) -> Mapping[str, Column]:
        return {column.code: column for column in self.columns}

    @cached_property
    def code_by_label(self) -> Mapping[str, str]:
        """Column codes by folded label, for sheets whose code row was deleted; labels used twice are left out."""
        folded = [fold_title(column.label) for column in self.columns]
        return {
            label: column.code for label, column in zip(folded, self.columns, strict=True) if folded.count(label) == 1
        }

    @cached_property
    def telling_codes(self) -> frozenset[str]:
        """The codes by which this sheet is known, whatever its title: those which no other sheet has."""
        items = frozenset(column.code for column in self.columns if column.kind == "item")
        return items or frozenset(self.codes) - _SHARED_CODES


@dataclass(frozen=True)
class AboutField:
    """One row of the sheet "About": label, code, value."""

    code: str
    label: str
    kind: Literal["text", "date", "whole_number"]
    advice: str = ""
    is_optional: bool = False


ABOUT_FIELDS = (
    AboutField("study", "Study", "text"),
    AboutField("site", "Site", "text"),
    AboutField("posted_on", "Posted on", "date", "The day on which you send this workbook."),
    AboutField("sending_number", "Sending number", "whole_number", "1 for the first workbook of that day, then 2, 3 …"),
    AboutField(
        "correction",
        "Correction",
        "whole_number",
        "0 for a new sending. To correct one, keep its date and number and put 1, then 2 …",
        is_optional=True,
    ),
    AboutField("layout_version", "Layout version", "text", "Please leave as it is."),
    AboutField("pack_id", "Pack", "text", "Please leave as it is.", is_optional=True),
)


@dataclass(frozen=True)
class Layout:
    """The workbook of one study: ``sheets`` in the order in which they stand, after "About". ``bodies``: the choices
    of the column of that name, by site. ``reads_also``: older versions that are read the same way."""

    study_id: str
    study_title: str
    version: str
    site_ids: tuple[str, ...]
    sheets: tuple[Sheet, ...]
    bodies: Mapping[str, tuple[Choice, ...]] = field(default_factory=dict)
    reads_also: tuple[str, ...] = ()

    def list_sheets(self, site_id: str) -> tuple[Sheet, ...]:
        """The sheets as one site gets them: with the site's own bodies to choose from."""
        own = self.bodies.get(site_id, ())
        if not own:
            return self.sheets
        return tuple(
            replace(sheet, columns=tuple(replace(c, choices=own) if c.code == BODY else c for c in sheet.columns))
            if sheet.code == SCREENING
            else sheet
            for sheet in self.sheets
        )

    def find_sheet(self, code: str) -> Sheet | None:
        return self.sheet_by_code.get(code)

    @cached_property
    def sheet_by_code(self) -> Mapping[str, Sheet]:
        return {sheet.code: sheet for sheet in self.sheets}

    @cached_property
    def code_by_title(self) -> Mapping[str, str]:
        """Sheet codes by folded title, "About" included."""
        titles = {fold_title(sheet.title): sheet.code for sheet in self.sheets}
        return titles | {fold_title(ABOUT_TITLE): ABOUT}

    def name_column(self, sheet: str, column: str) -> str:
        """A column as a person knows it: an item by its wording and its code, "Usual activities (eq5d5l_ua)", any other
        by its heading, "column On"; the code of one that the layout lacks, "" of none."""
        found = own.column_by_code.get(column) if (own := self.find_sheet(sheet)) else None
        if found is None:
            return column
        return f"{found.label} ({found.code})" if found.kind == "item" else f"column {found.label}"

    def find_title(self, code: str) -> str:
        """The title as the study gave it, never the one that a sender may have put in its place.

        "sheet 4" for "sheet_4", the name in a `Problem` of a sheet that the layout doesn't know; else "".
        """
        if sheet := self.sheet_by_code.get(code):
            return sheet.title
        if code == ABOUT:
            return ABOUT_TITLE
        return code.replace("_", " ") if re.fullmatch(r"sheet_\d+", code) else ""


@dataclass(frozen=True)
class Problem:
    """One fault of a workbook, by place. It never holds what stood in the cell.

    ``sheet`` is a code of the layout, or "sheet_4" for one that the layout doesn't know (by position: its title might
    hold a name), or "" for the whole file; ``sheet_title`` is the layout's title for it. ``cell`` is an address (F14),
    a range (A5:A7) or "". ``row`` to ``last_row`` are the rows concerned (0: none in particular), ``column`` is a
    column code. ``expected`` says what should stand there. A "hard" problem stops its rows; without rows, its sheet.
    """

    rule: str
    severity: Severity
    sheet: str = ""
    sheet_title: str = ""
    cell: str = ""
    row: int = 0
    last_row: int = 0
    column: str = ""
    expected: str = ""


@dataclass(frozen=True)
class ReadSheet:
    """One sheet as it was read.

    ``frame``: ``row`` (int64, the row in Excel, from 1), then the layout's columns that were found, in the layout's
    order, cells as objects: text columns stripped text ("" if blank), date columns `datetime.date` or None, months as
    "2018-03" or "", counts as int or None, item columns None, float, bool, date or stripped text, as typed (a number
    typed as text is a number). All but item columns that the file lacks are there, blank. ``letters``: column code to
    letter. ``odd_cells``: by column and row, the text of days, months and counts that were not understood.
    """

    code: str
    title: str
    position: int
    frame: pd.DataFrame
    letters: Mapping[str, str]
    missing_columns: tuple[str, ...] = ()
    found_by: Literal["codes", "labels"] = "codes"
    odd_cells: Mapping[tuple[str, int], str] = field(default_factory=dict, repr=False)

    def find_cell(self, column: str, row: int) -> str:
        """The address of a cell, "F14"; "" for a column that the file lacks."""
        letter = self.letters.get(column, "")
        return f"{letter}{row}" if letter else ""


@dataclass(frozen=True)
class Reading:
    """A workbook as it was read.

    ``about``: study, site, layout_version, pack_id (text), posted_on (date or None), sending_number, correction (int or
    None); "" or None where missing. ``sheets`` by sheet code, only those in the file. ``problems`` in the order of the
    file. ``export_lines``: of a workbook made from an export, for each row of a sheet the export's line it came from.
    """

    about: Mapping[str, object]
    sheets: Mapping[str, ReadSheet]
    problems: tuple[Problem, ...] = field(default=())
    export_lines: Mapping[str, Mapping[int, int]] = field(default_factory=dict)

    def find_stopped_rows(self, sheet_code: str) -> frozenset[int]:
        """Rows of one sheet that a hard problem with a row concerns."""
        return frozenset(
            row
            for problem in self.problems
            if problem.sheet == sheet_code and problem.severity == "hard" and problem.row
            for row in range(problem.row, problem.last_row + 1)
        )


@lru_cache(maxsize=4096)
def fold_title(text: str) -> str:
    """A title or label for comparison: lower case, runs of blanks as one, no blanks around."""
    return " ".join(text.replace("\u200b", "").split()).casefold()


def derive_return_layout(study: Study, instruments: Mapping[str, Instrument]) -> Layout:
    """The layout of a study's packs and returns.

    One sheet per instrument, in the order of ``study.instruments``. Sites are asked for a person's body only where some
    site has several, and for the approach where the study lists reasons for not joining. Consent that is signed has a
    sheet of its own; consent that a replay assumes stands beside the screening. Raises ValueError if two sheets would
    have one title or code, which a definition check should have found before.
    """
    waves = tuple(Choice(wave.id, wave.label) for wave in study.waves)
    bodies = {site.site_id: tuple(Choice(body.id, body.name) for body in site.bodies) for site in study.sites}
    logs = [
        _screening_sheet(study, asks_body=any(len(own) > 1 for own in bodies.values())),
        *([_consent_sheet(study)] if study.consent_basis == "signed" else []),
        Sheet(
            ALLOCATION,
            "Allocation",
            "One row for each person allocated to an arm.",
            (
                _participant(study),
                _coded("arm", "Arm", ((arm.id, arm.label) for arm in study.arms)),
                _dated("allocated_on", "Allocated on"),
            ),
        ),
        _disposition_sheet(study),
        *([_activity_sheet(study)] if study.fieldwork.figures else []),
        _QUERIES_SHEET,
        _due_sheet(study, waves),
    ]
    sheets = tuple(logs) + tuple(
        _instrument_sheet(study, instruments[instrument_id], waves) for instrument_id in study.instruments
    )
    for what, names in (
        ("code", [ABOUT, *(sheet.code for sheet in sheets)]),
        (
            "title",
            [fold_title(title) for title in (ABOUT_TITLE, *TITLES_PASSED_OVER, *(sheet.title for sheet in sheets))],
        ),
    ):
        doubles = sorted({name for name in names if names.count(name) > 1})
        if doubles:
            raise ValueError(f"study {study.study_id}: two sheets of the return have the {what} {', '.join(doubles)}.")
    is_as_before = study.consent_basis == "assumed" and not study.fieldwork.approach_reasons
    return Layout(
        study_id=study.study_id,
        study_title=study.title,
        version=LAYOUT_VERSION,
        site_ids=tuple(site.site_id for site in study.sites),
        sheets=sheets,
        bodies=bodies,
        reads_also=("1",) if is_as_before else (),
    )


def _screening_sheet(study: Study, *, asks_body: bool) -> Sheet:
    of_body = Column(
        BODY,
        "Under which body",
        "text",
        advice="The organisation that answers for the person. Blank if it is not known.",
        is_optional=True,
    )
    body = (of_body,) if asks_body else ()
    person = (_participant(study), _coded("cohort", "Cohort", ((cohort.id, cohort.label) for cohort in study.cohorts)))
    screened = _dated("screened_on", "Screened on")
    reasons = study.fieldwork.approach_reasons
    asked = (
        _dated("approached_on", "Approached on", "Blank if the person has not been approached."),
        _coded("outcome", "What came of it", APPROACH_OUTCOMES.items(), "Blank as long as nobody knows."),
        _coded(
            "reason",
            "Reason",
            ((reason.id, reason.label) for reason in reasons),
            "Only for those who declined or are not eligible.",
        ),
    )
    approach = asked if reasons else ()
    if study.consent_basis == "signed":
        title, purpose = "Screening and approach", "One row for each person screened, approached or not."
        return Sheet(SCREENING, title, purpose, (*person, *body, screened, *approach))
    consent = (
        _dated("consented_on", "Consented on", "Blank if the person has not consented."),
        *_consent_columns(study),
    )
    title, purpose = "Screening and consent", "One row for each person screened."
    return Sheet(SCREENING, title, purpose, (*person, screened, *approach, *consent, *body))


def _consent_columns(study: Study) -> tuple[Column, Column]:
    forms = ((form.version, form.label) for form in study.consent_forms)
    return (
        _coded("consent_form_version", "Consent form version", forms),
        Column("consent_scopes", "What the consent covers", "text", advice=_scopes_in_words(study)),
    )


def _consent_sheet(study: Study) -> Sheet:
    takers = ((role, _words(role)) for role in study.fieldwork.consent_takers)
    return Sheet(
        CONSENT,
        "Consent",
        "One row for each consent form signed. The forms stay with you; no names here.",
        (
            _participant(study),
            _dated("consented_on", "Signed on"),
            *_consent_columns(study),
            _coded("route", "Who consented", ROUTE_WORDS.items()),
            _coded("taken_by", "Taken by (role)", takers, "The role of the person who took it, never a name."),
            _coded("capacity", "Capacity", CAPACITY_WORDS.items(), "Needed where a consultee advised."),
            Column(
                "sixteen_in",
                "Month of the 16th birthday",
                "month",
                advice="Needed where a parent consented. Year and month only, never a date of birth.",
            ),
            _coded("copy_filed", "Form filed", COPY_WORDS.items()),
            _coded("form", "Questionnaire wanted", ((name, _words(name)) for name in study.forms)),
            Column("asked", "What we ask", "text", is_optional=True, is_locked=True),
        ),
    )


def _disposition_sheet(study: Study) -> Sheet:
    used = {scope for reason in study.disposition_reasons for scope in reason.scopes}
    scopes = ((scope, words) for scope, words in DISPOSITION_SCOPES.items() if scope in used)
    return Sheet(
        DISPOSITION,
        "Disposition",
        "One row for each person who completed or left, and what it was that they left.",
        (
            _participant(study),
            _coded("scope", "What was left", scopes),
            _coded("reason", "Reason", ((reason.id, reason.label) for reason in study.disposition_reasons)),
            _dated("left_on", "On"),
        ),
    )


def _activity_sheet(study: Study) -> Sheet:
    figures = study.fieldwork.figures
    return Sheet(
        ACTIVITY,
        "Activity figures",
        "One row for each month and figure: as counted for the evaluation, and as reported to NHS England. The two may "
        "differ.",
        (
            Column("month", "Month", "month", tuple(Choice(month, "") for month in list_months(figures))),
            _coded("figure", "Figure", ((figure.id, figure.label) for figure in figures)),
            Column("evaluation", "For the evaluation", "count"),
            Column("nhs_england", "As reported to NHS England", "count"),
        ),
    )


def list_months(figures: Iterable[Figure]) -> list[str]:
    """Every month for which any of the figures is asked, in order."""
    asked = list(figures)
    first, last = min(figure.from_month for figure in asked), max(figure.until_month for figure in asked)
    n_months = (int(last[:4]) - int(first[:4])) * 12 + int(last[5:]) - int(first[5:]) + 1
    start = int(first[:4]) * 12 + int(first[5:]) - 1
    return [f"{month // 12}-{month % 12 + 1:02d}" for month in range(start, start + n_months)]


_QUERIES_SHEET = Sheet(
    QUERIES,
    "Queries",
    "One row for each question to you. Correct what is wrong on its own sheet, and say here what you did.",
    (
        Column("query_id", "Query", "text", advice="Its number, as in a pack or a receipt."),
        Column("about", "About", "text", is_optional=True, is_locked=True),
        Column("question", "Question", "text", is_optional=True, is_locked=True),
        Column("answer", "Your answer", "text", tuple(Choice(code, words) for code, words in ANSWER_WORDS.items())),
    ),
)


def _due_sheet(study: Study, waves: tuple[Choice, ...]) -> Sheet:
    columns = (
        _participant(study),
        Column("wave", "Wave", "text", waves),
        _coded("respondent", "Respondent", ((name, _words(name)) for name in study.respondents)),
        _coded("form", "Form", ((name, _words(name)) for name in study.forms)),
        Column("version", "Protocol version", "text"),
        Column("instruments", "Questionnaires", "text"),
        Column("copy_number", "Copy", "text", advice="2 or more: a copy in place of one that did not come back."),
        _dated("opens_on", "Not before"),
        _dated("due_on", "Due on"),
        _dated("closes_on", "Window closes on"),
        _dated("late_until", "Taken until"),
    )
    tick = Column("status_checked", "Status checked (tick)", "text", is_optional=True)
    return Sheet(
        DUE,
        "Due",
        "What is due, for reading only. Check a person's status before you hand anything over.",
        (*(replace(column, choices=(), is_locked=True) for column in columns), tick),
        is_for_reading=True,
    )


def _instrument_sheet(study: Study, instrument: Instrument, waves: tuple[Choice, ...]) -> Sheet:
    return Sheet(
        instrument.id,
        instrument.sheet_title,
        "One row for each questionnaire filled in.",
        (
            _participant(study),
            _coded("respondent", "Respondent", ((name, _words(name)) for name in instrument.respondents)),
            _coded("form", "Form", ((name, _words(name)) for name in instrument.forms)),
            Column("wave", "Wave", "text", waves, only_choices=not study.accepts_unscheduled),
            _dated("collected_on", "Collected on", "The day on which it was answered."),
            *(_item(item) for item in instrument.items),
            *(_REMARKS_COLUMN for rule in study.fieldwork.safeguarding if rule.words),
        ),
    )


_REMARKS_COLUMN = Column(
    REMARKS,
    "Remarks on the person's safety",
    "text",
    advice="What staff want said; no names. It does not take the place of your own safeguarding procedure.",
    is_optional=True,
)


def _item(item: Item) -> Column:
    condition, whom = item.asked_if, item.whom_in_words
    only = [f"Only {whom}"] if whom else []
    if condition:
        only.append(f"Only if {condition.item} is {' or '.join(str(code) for code in condition.equals)}")
    return Column(
        item.id,
        item.label,
        "item",
        choices=tuple(Choice(str(code), label) for code, label in item.levels.items()),
        minimum=item.minimum,
        maximum=item.maximum,
        whole_numbers=item.whole_numbers,
        missing=tuple(Choice(str(code), _words(reason)) for code, reason in item.missing_codes.items()),
        advice=f"{'. '.join(only)}; otherwise leave blank." if only else "",
    )


def _participant(study: Study) -> Column:
    return Column(
        "participant_id", "Participant", "text", advice=f"Such as {study.participant_id_example}; never a name."
    )


def _coded(code: str, label: str, choices: Iterable[tuple[str, str]], advice: str = "") -> Column:
    return Column(code, label, "text", tuple(Choice(choice, words) for choice, words in choices), advice=advice)


def _dated(code: str, label: str, advice: str = "") -> Column:
    return Column(code, label, "date", advice=advice)


def _scopes_in_words(study: Study) -> str:
    scopes = "; ".join(f"{scope.id} {scope.label}" for scope in study.consent_scopes)
    return f"The codes of all that was agreed to, separated by semicolons: {scopes}"


def _words(code: str) -> str:
    return code.replace("_", " ")


def _choices_in_words(choices: tuple[Choice, ...]) -> str:
    """ "0 = no, 1 = yes"; levels that are their own label and follow each other as "0 to 5"."""
    codes = [choice.code for choice in choices]
    if len(codes) > 2 and all(choice.label in {"", choice.code} for choice in choices):
        numbers = sorted(int(code) for code in codes if re.fullmatch(r"-?\d+", code))
        if len(numbers) == len(codes) and numbers == list(range(numbers[0], numbers[-1] + 1)):
            return f"{numbers[0]} to {numbers[-1]}"
    if all(re.fullmatch(r"-?\d+", code) for code in codes):
        return ", ".join(f"{choice.code} = {choice.label}" if choice.label else choice.code for choice in choices)
    return ", ".join(
        choice.code
        if fold_title(choice.label) in {"", choice.code.casefold(), _words(choice.code)}
        else f"{choice.code} ({choice.label})"
        for choice in choices
    )


# --- Dates and text of cells ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ParsedDate:
    """``date`` is None for a blank and for what is not understood; only the latter is ``is_fault``."""

    date: dt.date | None
    is_fault: bool = False


_BLANK_DATE = ParsedDate(None)
_NO_DATE = ParsedDate(None, is_fault=True)
EARLIEST_DAY, LATEST_DAY = dt.date(1980, 1, 1), dt.date(2099, 12, 31)
_SERIAL_1900 = dt.date(1899, 12, 30)
_SERIAL_1904 = dt.date(1904, 1, 1)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH_NAMES = (
    *_MONTHS, "january", "february", "march", "april", "june", "july", "august", "september", "october", "november",
    "december", "sept",
)  # fmt: skip
_ISO_DATE = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?Z?)?", re.ASCII)
_UK_DATE = re.compile(r"(\d{1,2})([/.-])(\d{1,2})\2(\d{4})", re.ASCII)
_WORD_DATE = re.compile(r"(\d{1,2})(?:st|nd|rd|th)?[ /.-]?([A-Za-z]{3,9})[ /.,-]{1,2}(\d{4})", re.ASCII)


def parse_date(value: object, *, is_1904: bool = False) -> ParsedDate:
    """A cell as a day: a real date, a whole serial number, ISO text, day/month/year, or day month-name year.

    Month before day is never tried: 03/28/2014 is a fault, and so is a year of two digits. Days outside 1980 to 2099
    are faults: a stray number in a cell formatted as a date would otherwise be a day in 1900.
    """
    if value is None or value is pd.NaT or value == "":
        return _BLANK_DATE
    day: dt.date | None = None
    if isinstance(value, dt.datetime):
        day = value.date()
    elif isinstance(value, dt.date):
        day = value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if 0 < value < 100_000:
            day = (_SERIAL_1904 if is_1904 else _SERIAL_1900) + dt.timedelta(days=int(value))
    elif isinstance(value, str):
        text = parse_text(value)
        if not text:
            return _BLANK_DATE
        day = _parse_written_date(text)
    return ParsedDate(day) if day is not None and EARLIEST_DAY <= day <= LATEST_DAY else _NO_DATE


def _parse_written_date(text: str) -> dt.date | None:
    if match := _ISO_DATE.fullmatch(text):
        year, month, day = (int(part) for part in match.groups())
    elif match := _UK_DATE.fullmatch(text):
        day, month, year = int(match[1]), int(match[3]), int(match[4])
    elif (match := _WORD_DATE.fullmatch(text)) and match[2].lower() in _MONTH_NAMES:
        day, month, year = int(match[1]), _MONTHS.index(match[2].lower()[:3]) + 1, int(match[3])
    else:
        return None
    try:
        return dt.date(year, month, day)
    except ValueError:
        return None


@dataclass(frozen=True)
class ParsedMonth:
    """``month`` is "" for a blank and for what is not understood; only the latter is ``is_fault``."""

    month: str
    is_fault: bool = False


_ISO_MONTH = re.compile(r"(\d{4})[-/.](\d{1,2})", re.ASCII)
_UK_MONTH = re.compile(r"(\d{1,2})[-/.](\d{4})", re.ASCII)
_WORD_MONTH = re.compile(r"([A-Za-z]{3,9})[ /.,-]{1,2}(\d{4})", re.ASCII)


def parse_month(value: object, *, is_1904: bool = False) -> ParsedMonth:
    """A cell as a month, "2018-03": ISO text, month/year, or month-name year; a real date only if it is the first of a
    month, as which spreadsheet programs keep a month that was typed. Any other day would be a date that was not asked
    for, such as a birthday, and is a fault. Months outside 1980 to 2099 are faults."""
    if isinstance(value, str):
        text = parse_text(value)
        if not text:
            return ParsedMonth("")
        if match := _ISO_MONTH.fullmatch(text):
            year, month = int(match[1]), int(match[2])
        elif match := _UK_MONTH.fullmatch(text):
            year, month = int(match[2]), int(match[1])
        elif (match := _WORD_MONTH.fullmatch(text)) and match[1].lower() in _MONTH_NAMES:
            year, month = int(match[2]), _MONTHS.index(match[1].lower()[:3]) + 1
        else:
            return ParsedMonth("", is_fault=True)
        is_known = EARLIEST_DAY.year <= year <= LATEST_DAY.year and 1 <= month <= 12
        return ParsedMonth(f"{year}-{month:02d}" if is_known else "", is_fault=not is_known)
    parsed = parse_date(value, is_1904=is_1904)
    if parsed.date is None:
        return ParsedMonth("", parsed.is_fault)
    is_first = parsed.date.day == 1
    return ParsedMonth(f"{parsed.date:%Y-%m}" if is_first else "", is_fault=not is_first)


@dataclass(frozen=True)
class ParsedCount:
    """``count`` is None for a blank and for what is not understood; only the latter is ``is_fault``."""

    count: int | None
    is_fault: bool = False


LARGEST_COUNT = 9_999_999
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+", re.ASCII)


def parse_count(value: object) -> ParsedCount:
    """A cell as a whole number from 0, typed as a number or as text; thousands may be parted by commas."""
    if isinstance(value, str) and _THOUSANDS.fullmatch(parse_text(value)):
        value = parse_text(value).replace(",", "")
    number = parse_answer(value)
    if number is None:
        return ParsedCount(None)
    if isinstance(number, bool) or not isinstance(number, int | float):
        return ParsedCount(None, is_fault=True)
    is_count = 0 <= number <= LARGEST_COUNT and number == int(number)
    return ParsedCount(int(number) if is_count else None, is_fault=not is_count)


# No-break, figure, narrow no-break and ideographic spaces count as blanks; zero-width ones and marks as nothing. Digits
# of full width, as keyboards of East Asia type them, are the digits that they show, and so are the signs of numbers.
_SAME_SIGNS = str.maketrans(
    {"\u00a0": " ", "\u2007": " ", "\u202f": " ", "\u3000": " ", "\t": " ", "\n": " ", "\r": " "}
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u200e\u200f", None)
    | {chr(0xFF10 + digit): str(digit) for digit in range(10)}
    | {"\uff0b": "+", "\uff0d": "-", "\u2212": "-", "\uff0e": ".", "\uff0f": "/"}
)
_WRITTEN_NUMBER = re.compile(r"[+-]?\d{1,15}(?:\.\d{1,15})?", re.ASCII)


def parse_text(value: object) -> str:
    """A cell as text, without blanks around: 701.0 is "701", a date its ISO form."""
    if isinstance(value, str):
        return value.strip() if value.isascii() and value.isprintable() else value.translate(_SAME_SIGNS).strip()
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, dt.datetime) and value.time() == dt.time():
        value = value.date()
    return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)


def parse_answer(value: object) -> object:
    """An answer as typed, except that a number typed as text is a number and nothing but blanks is None."""
    if isinstance(value, str):
        text = parse_text(value)
        if not text:
            return None
        return float(text) if _WRITTEN_NUMBER.fullmatch(text) else text
    if isinstance(value, dt.datetime):
        return value.date()
    return value
