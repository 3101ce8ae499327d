"""REDCap's data dictionary as questions, and definitions as a data dictionary.

A dictionary is a CSV file with a row for each field; its columns are those of REDCap's "Data Dictionary" download, or
of its interface for programs. What REDCap has and a definition has not is listed field by field.

Source: REDCap's own description of the data dictionary's columns, field types, validation types and action tags.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

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

# The columns of the download, with their names in the interface for programs.
COLUMNS: Mapping[str, str] = {
    "Variable / Field Name": "field_name",
    "Form Name": "form_name",
    "Section Header": "section_header",
    "Field Type": "field_type",
    "Field Label": "field_label",
    "Choices, Calculations, OR Slider Labels": "select_choices_or_calculations",
    "Field Note": "field_note",
    "Text Validation Type OR Show Slider Number": "text_validation_type_or_show_slider_number",
    "Text Validation Min": "text_validation_min",
    "Text Validation Max": "text_validation_max",
    "Identifier?": "identifier",
    "Branching Logic (Show field only if...)": "branching_logic",
    "Required Field?": "required_field",
    "Custom Alignment": "custom_alignment",
    "Question Number (surveys only)": "question_number",
    "Matrix Group Name": "matrix_group_name",
    "Matrix Ranking?": "matrix_ranking",
    "Field Annotation": "field_annotation",
}
_NEEDED = ("field_name", "form_name", "field_type", "field_label")
_IDENTIFYING = (
    (re.compile(r"email"), "an e-mail address"),
    (re.compile(r"phone"), "a telephone number"),
    (re.compile(r"zipcode|postalcode"), "a postcode"),
    (re.compile(r"v?mrn|ssn|nhs|national_?id"), "a person's number"),
)
_NO_ANSWERS: Mapping[str, tuple[str, str]] = {
    "calc": ("a calculation", "What follows from answers is a score of the definition. Write it there."),
    "file": ("a file", "Files stay where they are; the study takes answers only."),
    "signature": ("a signature", "It tells who a person is, and stays where it is."),
    "notes": ("free text", "Definitions have levels and numbers; free text may tell who a person is."),
    "descriptive": ("words without an answer", "They are for the person who fills in the form."),
    "sql": ("choices from a query", "They are not in the dictionary. Make it a list of choices."),
}
_LEFT: Mapping[str, tuple[str, str]] = {
    "section_header": ("a heading", "Definitions have no headings."),
    "field_note": ("a note below it", "Definitions have one label."),
    "custom_alignment": ("how it is aligned", "Definitions say nothing of looks."),
    "question_number": ("its number on the page", "Items stand in their order."),
    "matrix_group_name": ("its place in a matrix", "Definitions say nothing of looks."),
    "matrix_ranking": ("that a matrix is a ranking", "Add rules between the items."),
    "required_field": ("that it must be answered", "A blank is taken here as not answered; no form refuses it."),
}
_ALONE = re.compile(r"@NONEOFTHEABOVE\s*=\s*(?:'([^']*)'|\"([^\"]*)\"|(-?\w+))", re.IGNORECASE)
_WHOLE_VALIDATIONS = frozenset({"integer", "int"})


class DictionaryFault(ValueError):
    """The file is no data dictionary."""


def parse_dictionary(header: Sequence[str], rows: Sequence[Sequence[str]], *, is_neutral: bool = False) -> Translated:
    """Definitions by form from a data dictionary, with `is_neutral` without its wording. Raises DictionaryFault."""
    names = [COLUMNS.get(name.strip().strip('"'), name.strip()) for name in header]
    missing = [title for title, name in COLUMNS.items() if name in _NEEDED and name not in names]
    if missing:
        raise DictionaryFault(
            f"This is no data dictionary of REDCap: it has no column {', '.join(missing)}. Download it in REDCap under "
            '"Data Dictionary", and change nothing in it.'
        )
    questions: list[Question] = []
    not_carried: list[NotCarried] = []
    asked_of: dict[tuple[str, str], list[str]] = {}
    for number, cells in enumerate(rows):
        row = {name: cell.strip() for name, cell in zip(names, cells, strict=False)}
        if not row.get("field_name"):
            continue
        question = _read_field(row, is_first=number == 0, not_carried=not_carried, asked_of=asked_of)
        if question is not None:
            questions.append(question)
            not_carried += [
                NotCarried(question.name, what, why) for name, (what, why) in _LEFT.items() if row.get(name)
            ]
    translated = derive_drafts(questions, "a REDCap data dictionary", {}, {}, asked_of=asked_of, is_neutral=is_neutral)
    translated.not_carried = not_carried + translated.not_carried
    place = names.index("form_name")
    forms = dict.fromkeys(cells[place].strip() for cells in rows if len(cells) > place)
    with_questions = {question.form for question in questions}
    translated.not_carried += [
        NotCarried(form, "the whole form", "No field of it can be carried.")
        for form in forms
        if form and form not in with_questions
    ]
    return translated


def _read_field(
    row: Mapping[str, str], *, is_first: bool, not_carried: list[NotCarried], asked_of: dict[tuple[str, str], list[str]]
) -> Question | None:
    name, kind = row["field_name"], row.get("field_type", "").lower()
    validation = row.get("text_validation_type_or_show_slider_number", "").lower()
    choices = _parse_choices(row.get("select_choices_or_calculations", ""))
    if is_first and kind == "text" and (not validation or name.endswith("id")):
        why = "It says whose the record is. Name it as participant_id in a column map."
        not_carried.append(NotCarried(name, "the record's identifier", why))
        return None
    if (words := _find_refused(row, kind, validation)) and kind != "descriptive":
        not_carried.append(refuse_identifier(name, words))
        return None
    if column := find_record_column(name, [code for code, _ in choices]):
        asked_of[row["form_name"], column] = [code for code, _ in choices]
        not_carried.append(
            NotCarried(name, f"as an item: it says the {column} of a record", "Name it in a column map.")
        )
        return None
    if kind == "text" and validation.startswith(("date", "time")):
        why = "A day on which something was done is not an answer. Name it in a column map if it is the record's."
        not_carried.append(NotCarried(name, "a date or a time", why))
        return None
    if kind == "text" and not _is_number(validation):
        what = f"text checked as {validation}" if validation else "free text"
        why = "Definitions have levels and numbers. Have it checked as a number or as choices there, if it is that."
        not_carried.append(NotCarried(name, what, why))
        return None
    if kind in _NO_ANSWERS:
        not_carried.append(NotCarried(name, *_NO_ANSWERS[kind]))
        return None
    if kind in ("yesno", "truefalse"):
        yes, no = ("Yes", "No") if kind == "yesno" else ("True", "False")
        return _question(row, "level", (("1", yes), ("0", no)), not_carried)
    if kind in ("radio", "dropdown") and choices:
        return _question(row, "level", choices, not_carried)
    if kind == "checkbox" and choices:
        return _question(row, "choices", choices, not_carried)
    if kind == "slider":
        if row.get("select_choices_or_calculations"):
            not_carried.append(NotCarried(name, "the words along the slider", "Numbers have no words here."))
        return _question(row, "number", (), not_carried)
    if kind == "text":
        return _question(row, "number", (), not_carried)
    not_carried.append(NotCarried(name, f"a field of type {kind or 'unknown'}", "Definitions have nothing like it."))
    return None


def _find_refused(row: Mapping[str, str], kind: str, validation: str) -> str:
    """What a field would hold that tells who a person is, or ""."""
    name, label = row["field_name"], row.get("field_label", "")
    is_typed = kind in ("text", "notes")
    for pattern, words in _IDENTIFYING:
        if is_typed and pattern.match(validation):
            return words
    told = find_identifier_words(name, label) if is_typed else ""
    if row.get("identifier", "").lower() in ("y", "yes", "1", "true"):
        return told or 'what REDCap marks as "Identifier"'
    return told


def _question(
    row: Mapping[str, str],
    kind: str,
    choices: tuple[tuple[str, str], ...],
    not_carried: list[NotCarried],
) -> Question:
    name, annotation = row["field_name"], row.get("field_annotation", "")
    validation = row.get("text_validation_type_or_show_slider_number", "").lower()
    is_slider = row.get("field_type", "").lower() == "slider"
    exclusive: tuple[str, ...] = ()
    if match := _ALONE.search(annotation) if kind == "choices" else None:
        told = next(text for text in match.groups() if text is not None)
        exclusive = tuple(code.strip() for code in told.split(",") if code.strip() in dict(choices))
        annotation = annotation.replace(match[0], "").strip()
    if annotation:
        not_carried.append(NotCarried(name, "its annotation or action tags", "Definitions have none."))
    low, high = (
        _parse_bound(row, key, default, not_carried) if kind == "number" else None
        for key, default in (("text_validation_min", 0.0), ("text_validation_max", 100.0))
    )
    return Question(
        row["form_name"],
        name,
        row.get("field_label", ""),
        "choices" if kind == "choices" else "number" if kind == "number" else "level",
        choices,
        low,
        high,
        whole_numbers=kind == "number" and (is_slider or validation in _WHOLE_VALIDATIONS),
        exclusive=exclusive,
        condition=row.get("branching_logic", ""),
    )


def _parse_bound(row: Mapping[str, str], key: str, default: float, not_carried: list[NotCarried]) -> float | None:
    text = row.get(key, "")
    if re.fullmatch(r"-?\d{0,9}(\.\d+)?", text) and text not in ("", "-"):
        return float(text)
    if text:
        not_carried.append(NotCarried(row["field_name"], "a bound that is no number", "Give it in the definition."))
    return default if row.get("field_type", "").lower() == "slider" else None


def _is_number(validation: str) -> bool:
    return validation in _WHOLE_VALIDATIONS or validation.startswith("number")


def _parse_choices(text: str) -> tuple[tuple[str, str], ...]:
    """ "0, No | 1, Yes": only the first comma parts code and words. Words without a comma have no code."""
    parts = [part.strip() for part in text.split("|") if part.strip()]
    pairs = (part.partition(",") for part in parts)
    return tuple((code.strip(), words.strip()) if comma else ("", code) for code, comma, words in pairs)


# --- Going out --------------------------------------------------------------------------------------------------------


def derive_dictionary(
    instruments: Sequence[Instrument], wordings: Mapping[str, Wording]
) -> tuple[list[dict[str, str]], list[NotCarried]]:
    """A data dictionary of one or more instruments, a form each, and what is left out.

    Besides its questions a form has what says which record it is: the participant (once, as REDCap's record), who
    answered, on which form, and the day. `wordings`: a study's own, by instrument; without it the neutral labels go.
    """
    rows: list[dict[str, str]] = []
    not_carried: list[NotCarried] = []
    for instrument in instruments:
        form = instrument.id
        if not rows:
            rows.append(
                _row("participant_id", form, "text", "Participant", note="As the study issued it; never a name")
            )
        for column, codes in (("respondent", instrument.respondents), ("form", instrument.forms)):
            choices = " | ".join(f"{code}, {code.replace('_', ' ')}" for code in codes)
            rows.append(_row(f"{form}_{column}", form, "radio", column.capitalize(), choices, required=True))
        rows.append(_row(f"{form}_collected_on", form, "text", "Collected on", validation="date_dmy", required=True))
        for question, condition in list_questions(instrument, wordings.get(form, Wording())):
            rows.append(_write_question(instrument, question, condition, not_carried))
        not_carried += list_left_at_home(instrument, "REDCap")
    seen: set[str] = set()
    for row in rows:
        name = row["Variable / Field Name"]
        if name in seen:
            not_carried.append(NotCarried(name, "a second field of that name", "REDCap takes one. Rename an item."))
        seen.add(name)
    return rows, not_carried


def _row(
    name: str, form: str, kind: str, label: str, choices: str = "", validation: str = "", note: str = "",
    *, required: bool = False,
) -> dict[str, str]:  # fmt: skip
    return dict.fromkeys(COLUMNS, "") | {
        "Variable / Field Name": name,
        "Form Name": form,
        "Field Type": kind,
        "Field Label": label,
        "Choices, Calculations, OR Slider Labels": choices,
        "Text Validation Type OR Show Slider Number": validation,
        "Field Note": note,
        "Required Field?": "y" if required else "",
    }


def _write_question(
    instrument: Instrument, question: Question, condition: Condition | None, not_carried: list[NotCarried]
) -> dict[str, str]:
    if any("|" in words for _, words in question.choices):
        not_carried.append(NotCarried(question.name, 'the sign "|" in its choices', 'It parts choices: "/" is there.'))
    choices = " | ".join(f"{code}, {words.replace('|', '/')}" for code, words in question.choices)
    kind = {"level": "radio", "choices": "checkbox", "number": "text"}[question.kind]
    row = _row(question.name, question.form, kind, question.label, choices)
    if question.kind == "number":
        row |= {
            "Text Validation Type OR Show Slider Number": "integer" if question.whole_numbers else "number",
            "Text Validation Min": f"{question.minimum:.15g}",
            "Text Validation Max": f"{question.maximum:.15g}",
        }
    if question.exclusive:
        row["Field Annotation"] = f"@NONEOFTHEABOVE='{','.join(question.exclusive)}'"
    if condition is not None:
        group = find_group(instrument, condition.item)
        gate = f"[{group[0]}({group[1]})]" if group else f"[{condition.item}]"
        row["Branching Logic (Show field only if...)"] = " or ".join(
            f"{gate} = '{value}'" for value in condition.equals
        )
    return row
