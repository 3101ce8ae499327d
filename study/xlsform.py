"""XLSForm (ODK, Kobo, SurveyCTO and others) as questions, and definitions as an XLSForm.

An XLSForm is a workbook with the sheets "survey" (a row for each question), "choices" and "settings". Repeats, media,
places and metadata are not answers of a questionnaire, and are listed as left behind; groups are taken apart, and a
condition on a group holds for each of its questions.

Source: the XLSForm reference of xlsform.org and of the ODK documentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from study.exchange import (
    NotCarried,
    Question,
    Translated,
    Wording,
    derive_drafts,
    find_group,
    find_identifier_words,
    find_record_column,
    list_left_at_home,
    list_questions,
    refuse_identifier,
)
from study.instruments import Condition, Instrument

QUESTION_COLUMNS = ("type", "name", "label", "hint", "required", "relevant", "constraint", "constraint_message")
CHOICE_COLUMNS = ("list_name", "name", "label")
SETTING_COLUMNS = ("form_title", "form_id", "version")
Row = Mapping[str, str]

_REFUSED: Mapping[str, str] = {
    "phonenumber": "a telephone number",
    "email": "an e-mail address",
    "username": "a name",
    "deviceid": "whose device it is",
    "subscriberid": "whose telephone it is",
    "simserial": "whose telephone it is",
    "geopoint": "where somebody is",
    "geotrace": "where somebody went",
    "geoshape": "where somebody is",
    "start-geopoint": "where somebody is",
    "image": "a picture",
    "audio": "a voice",
    "video": "a picture and a voice",
    "background-audio": "a voice",
    "barcode": "what a barcode says of somebody",
}
_NO_ANSWERS: Mapping[str, tuple[str, str]] = {
    "note": ("words without an answer", "They are for the person who fills in the form."),
    "calculate": ("a calculation", "What follows from answers is a score of the definition. Write it there."),
    "hidden": ("a hidden value", "Definitions hold what is asked."),
    "text": ("free text", "Definitions have levels and numbers; free text may tell who a person is."),
    "file": ("a file", "Files stay where they are; the study takes answers only."),
    "acknowledge": ("an acknowledgement", "Make it a question with choices, if it is one."),
    "trigger": ("an acknowledgement", "Make it a question with choices, if it is one."),
} | dict.fromkeys(
    ("date", "time", "datetime", "start", "end", "today"),
    ("a date or a time", "A day on which something was done is not an answer. Name it in a column map."),
)
_TAKEN = frozenset({"type", "name", "label", "relevant", "constraint", "parameters", "repeat_count", "choice_filter"})
_LEFT: Mapping[str, tuple[str, str]] = {
    "hint": ("a hint", "Definitions have one label."),
    "guidance_hint": ("a hint", "Definitions have one label."),
    "required": ("that it must be answered", "A blank is taken here as not answered; no form refuses it."),
    "appearance": ("how it looks", "Definitions say nothing of looks."),
    "default": ("what is filled in beforehand", "An answer that nobody gave is none."),
    "constraint_message": ("the message about its bounds", "Queries say what is expected."),
    "choice_filter": ("that its choices depend on another answer", "All choices are offered. Add rules."),
    "calculation": ("a calculation", "Definitions hold what is asked."),
}
_BOUND = re.compile(r"\.\s*(>=|<=|>|<)\s*(-?\d+(?:\.\d+)?)")
_ALONE = re.compile(r"not\(\s*selected\(\s*\.\s*,\s*'([^']+)'\s*\)\s+and\s+count-selected\(\s*\.\s*\)\s*>\s*1\s*\)")
_SELECTED = re.compile(r"selected\(\s*\$\{([\w.-]+)\}\s*,\s*(?:'([^']*)'|\"([^\"]*)\")\s*\)")
_NOT_SELECTED = re.compile(rf"not\(\s*{_SELECTED.pattern}\s*\)")
_OTHER_SPELLINGS = (
    (re.compile(r"^(begin|end)[ _](?=group|repeat)", re.IGNORECASE), r"\1_"),
    (re.compile(r"^select[ _]one(?: from)?\b", re.IGNORECASE), "select_one"),
    (re.compile(r"^select[ _](?:multiple|all that apply)(?: from)?\b", re.IGNORECASE), "select_multiple"),
)
_FALSE = ("", "no", "false", "false()", "0")


class FormFault(ValueError):
    """The workbook is no XLSForm."""


@dataclass
class _Reading:
    """A form while it is read: conditions of the groups that are open, and what was found."""

    form: str
    lists: Mapping[str, tuple[tuple[str, str], ...]]
    groups: list[tuple[str, str]] = field(default_factory=list)
    n_repeats: int = 0
    questions: list[Question] = field(default_factory=list)
    not_carried: list[NotCarried] = field(default_factory=list)
    asked_of: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def leave(self, name: str, what: str, why: str) -> None:
        self.not_carried.append(NotCarried(name, what, why))


def parse_xlsform(
    rows: Sequence[Row], choices: Sequence[Row], settings: Sequence[Row], name: str, *, is_neutral: bool = False
) -> Translated:
    """A definition from the rows of the three sheets, cells by heading; with `is_neutral` without its wording. `name`:
    of the file, where the form has no id.

    Raises FormFault for a workbook that is no XLSForm.
    """
    if not rows or "type" not in rows[0] or "name" not in rows[0]:
        raise FormFault('This is no XLSForm: it needs a sheet "survey" with the columns type, name and label.')
    given = settings[0] if settings else {}
    form = given.get("form_id") or name
    labels = _find_label_column(rows)
    read = _Reading(form, _read_lists(choices))
    others = sorted({column for column in rows[0] if column.split("::")[0] == "label" and column != labels})
    if others:
        read.leave(form, "other languages", f'Only "{labels}" was taken; the definition has one label.')
    for row in rows:
        if row.get("type"):
            _read_row(read, row, row.get(labels, ""))
    title = {form: given["form_title"]} if given.get("form_title") else {}
    version = {form: given["version"]} if given.get("version") else {}
    translated = derive_drafts(
        read.questions, "an XLSForm", title, version, asked_of=read.asked_of, is_neutral=is_neutral
    )
    translated.not_carried = read.not_carried + translated.not_carried
    return translated


def _find_label_column(rows: Sequence[Row]) -> str:
    """The labels without a language, else those of the first language."""
    columns = list(rows[0]) if rows else []
    return next((c for c in columns if c == "label"), next((c for c in columns if c.startswith("label")), "label"))


def _read_lists(choices: Sequence[Row]) -> dict[str, tuple[tuple[str, str], ...]]:
    labels = _find_label_column(choices)
    lists: dict[str, list[tuple[str, str]]] = {}
    for row in choices:
        list_name = row.get("list_name") or row.get("list name") or ""
        if list_name and row.get("name"):
            lists.setdefault(list_name, []).append((row["name"], row.get(labels, "")))
    return {name: tuple(entries) for name, entries in lists.items()}


def _read_row(read: _Reading, row: Row, label: str) -> None:
    typed = " ".join(row["type"].split())
    for pattern, usual in _OTHER_SPELLINGS:
        typed = pattern.sub(usual, typed)
    kind, _, list_name = typed.partition(" ")
    kind, name = kind.lower(), row.get("name", "")
    if kind in ("begin_group", "begin_repeat"):
        read.groups.append((kind, row.get("relevant", "")))
        if kind == "begin_repeat":
            read.leave(name, "a part that is repeated", "A record has each answer once. Its questions are left out.")
            read.n_repeats += 1
        return
    if kind in ("end_group", "end_repeat"):
        if read.groups:
            read.n_repeats -= read.groups.pop()[0] == "begin_repeat"
        return
    question = _read_question(read, row, kind, list_name, label)
    if question is None:
        return
    told = {column.split("::")[0]: text for column, text in row.items() if text}
    for column, text in told.items():
        if column in _LEFT and (column != "required" or text.lower() not in _FALSE):
            read.leave(name, *_LEFT[column])
        elif column not in _LEFT and column not in _TAKEN:
            read.leave(name, f"its {column.replace('_', ' ')}", "Definitions have nothing like it.")
    read.questions.append(question)


def _read_question(read: _Reading, row: Row, kind: str, list_name: str, label: str) -> Question | None:
    name = row.get("name", "")
    is_typed = kind in ("text", "integer", "decimal", "int")
    words = _REFUSED.get(kind, "") or (find_identifier_words(name, label) if is_typed or kind == "date" else "")
    if words:
        read.not_carried.append(refuse_identifier(name or kind, words))
        return None
    codes = [code for code, _ in read.lists.get(list_name, ())]
    if column := find_record_column(name, codes) if kind == "select_one" else "":
        read.asked_of[read.form, column] = codes
    if column or name in ("participant_id", "collected_on"):
        read.leave(name, "as an item: it says which record it is", "Name it in a column map.")
        return None
    if kind in _NO_ANSWERS:
        read.leave(name or kind, *_NO_ANSWERS[kind])
        return None
    if read.n_repeats:
        read.leave(name, "a question of a part that is repeated", "A record has each answer once.")
        return None
    if not name:
        read.leave(kind, "a question without a name", "Give it one there.")
        return None
    condition = _translate_conditions([text for _, text in read.groups] + [row.get("relevant", "")])
    base = Question(read.form, name, label, "level", condition=condition)
    if kind in ("select_one", "select_multiple"):
        if list_name.endswith("or_other"):
            read.leave(name, 'the choice "other" with free text', "Add a choice for it.")
            list_name = list_name.removesuffix("or_other").strip()
        choices = read.lists.get(list_name, ())
        if not choices:
            read.leave(name, "a question without choices", f'The sheet "choices" has no list "{list_name}".')
            return None
        if kind == "select_one":
            if row.get("constraint"):
                read.leave(name, "a rule about its answers", "Write it as a rule of the definition.")
            return replace(base, choices=choices)
        alone, rest = _find_alone(row.get("constraint", ""))
        if rest:
            read.leave(name, "a rule about its answers", "Write it as a rule of the definition.")
        return replace(base, kind="choices", choices=choices, exclusive=alone)
    if kind in ("integer", "int", "decimal", "range"):
        return _read_number(read, base, row, kind)
    read.leave(name or kind, f"a question of type {kind}", "Definitions have nothing like it.")
    return None


def _read_number(read: _Reading, base: Question, row: Row, kind: str) -> Question:
    low: float | None = None
    high: float | None = None
    whole = kind in ("integer", "int")
    if kind == "range":
        given = dict(re.findall(r"(start|end|step)\s*=\s*(-?\d+(?:\.\d+)?)", row.get("parameters", "")))
        low, high, step = (float(given.get(key, usual)) for key, usual in (("start", 1), ("end", 10), ("step", 1)))
        whole = low.is_integer() and step.is_integer()
    constraint = row.get("constraint", "")
    bounds = _BOUND.findall(constraint)
    rest = re.sub(r"\band\b", "", _BOUND.sub("", constraint)).strip(" ()")
    steps = {">": 1.0, "<": -1.0}
    if rest or any(operator in steps and not whole for operator, _ in bounds):
        read.leave(base.name, "a rule about its answers", "Write bounds and rules into the definition.")
        bounds = [] if rest else [entry for entry in bounds if entry[0] not in steps]
    for operator, text in bounds:
        value = float(text) + steps.get(operator, 0.0)
        if operator.startswith(">"):
            low = value if low is None else max(low, value)
        else:
            high = value if high is None else min(high, value)
    return replace(base, kind="number", minimum=low, maximum=high, whole_numbers=whole)


def _find_alone(constraint: str) -> tuple[tuple[str, ...], str]:
    """The choices that stand alone, and what else the constraint says."""
    rest = re.sub(r"\band\b", "", _ALONE.sub("", constraint)).strip(" ()")
    return tuple(_ALONE.findall(constraint)), rest


def _translate_conditions(texts: Iterable[str]) -> str:
    """Conditions that all hold, in the notation of `study.exchange.parse_condition`."""

    def name(match: re.Match[str], value: str) -> str:
        return f"[{match[1]}({match[2] if match[2] is not None else match[3]})] = '{value}'"

    translated = []
    for text in filter(None, (text.strip() for text in texts)):
        text = _NOT_SELECTED.sub(lambda match: name(match, "0"), text)
        text = _SELECTED.sub(lambda match: name(match, "1"), text)
        translated.append(re.sub(r"\$\{([\w.-]+)\}", r"[\1]", text))
    return translated[0] if len(translated) == 1 else " and ".join(f"({text})" for text in translated)


# --- Going out --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """The rows of an XLSForm by sheet, cells by heading."""

    rows: list[dict[str, str]]
    choices: list[dict[str, str]]
    settings: list[dict[str, str]]


def derive_xlsform(instrument: Instrument, wording: Wording) -> tuple[Form, list[NotCarried]]:
    """An instrument as a form, and what is left out. Besides its questions it asks which record it is."""
    rows = [_question_row("text", "participant_id", "Participant", required=True)]
    rows[0]["hint"] = "As the study issued it; never a name"
    choices: list[dict[str, str]] = []
    lists: dict[tuple[tuple[str, str], ...], str] = {}

    def find_list(entries: tuple[tuple[str, str], ...], name: str) -> str:
        if entries not in lists:
            lists[entries] = f"{name}_list"
            choices.extend(dict(zip(CHOICE_COLUMNS, (lists[entries], *entry), strict=True)) for entry in entries)
        return lists[entries]

    for column, codes in (("respondent", instrument.respondents), ("form", instrument.forms)):
        entries = tuple((code, code.replace("_", " ")) for code in codes)
        rows.append(
            _question_row(f"select_one {find_list(entries, column)}", column, column.capitalize(), required=True)
        )
    rows.append(_question_row("date", "collected_on", "Collected on", required=True))
    for question, condition in list_questions(instrument, wording):
        kind = "integer" if question.whole_numbers else "decimal"
        if question.kind != "number":
            select = "select_one" if question.kind == "level" else "select_multiple"
            kind = f"{select} {find_list(question.choices, question.name)}"
        row = _question_row(kind, question.name, question.label)
        if condition is not None:
            row["relevant"] = _write_condition(instrument, condition)
        if question.kind == "number":
            row["constraint"] = f". >= {question.minimum:.15g} and . <= {question.maximum:.15g}"
        elif question.exclusive:
            row["constraint"] = " and ".join(
                f"not(selected(., '{code}') and count-selected(.) > 1)" for code in question.exclusive
            )
        rows.append(row)
    settings = dict(zip(SETTING_COLUMNS, (instrument.title, instrument.id, instrument.version), strict=True))
    return Form(rows, choices, [settings]), list_left_at_home(instrument, "the form")


def _question_row(kind: str, name: str, label: str, *, required: bool = False) -> dict[str, str]:
    given = {"type": kind, "name": name, "label": label, "required": "yes" if required else ""}
    return dict.fromkeys(QUESTION_COLUMNS, "") | given


def _write_condition(instrument: Instrument, condition: Condition) -> str:
    group = find_group(instrument, condition.item)
    if group is None:
        return " or ".join(f"${{{condition.item}}} = '{value}'" for value in condition.equals)
    chosen = f"selected(${{{group[0]}}}, '{group[1]}')"
    return " or ".join(chosen if value else f"not({chosen})" for value in condition.equals)
