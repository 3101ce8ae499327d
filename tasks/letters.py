"""Letters: the wording that people edit in templates/letters, rendered in a sandbox as plain text and as HTML.

A letter begins with the line "Subject: ..." and has "[parts]" where its parts come; a part begins with "# Heading" and
has "[table]" where its table comes. Both formats are made from the same words. A value that a wording names and nobody
gives is an error, and `find_letter_faults` finds it when the study is checked, not on the day of sending.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined, TemplateError, TemplateNotFound, TemplateSyntaxError
from jinja2.sandbox import SandboxedEnvironment

from study.digests import LETTERS, OWN_PARTS, PART_TEMPLATES, Section
from study.protocol import FIELDWORK_FILE, PATHWAY_FILE, Study
from tasks.outbox import Letter
from tasks.pages import format_list
from tasks.settings import PROJECT

LETTERS_FOLDER = PROJECT / "templates" / "letters"
_ENDING = ".jinja"
_WIDTH = 76
_NUMBERS = ("Days late",)
_SUBJECT = "Subject: "


class LetterFault(ValueError):
    """A template that cannot be made into a letter, with the reason."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a letter, worded. `drawn`: its table as plain text."""

    heading: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    drawn: str


@lru_cache(maxsize=4)
def _open_templates(folder: Path, *, html: bool) -> SandboxedEnvironment:
    environment = SandboxedEnvironment(
        loader=FileSystemLoader(folder),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"listed": format_list, "wrapped": _wrap, "lower_first": _lower_first}
    return environment


def _wrap(text: str) -> str:
    return "\n".join(textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False))


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def render_letter(template: str, values: Mapping[str, Any], folder: Path = LETTERS_FOLDER) -> Letter:
    """A letter from its template.

    `values`: study (its title), name, place, on (a day in words), sections (of `study.digests`), instead_of (names),
    answer_to (None, or something with name and telephone), is_rehearsal. Raises LetterFault for a template that is not
    there, is wrong, or names a value that no letter has.
    """
    parts = [_word_part(section, values, folder) for section in values["sections"]]
    own = {name: value for name, value in values.items() if name != "sections"}
    blocks = _word(template, {**own, "n": sum(len(one.rows) for one in values["sections"] if not one.is_open)}, folder)
    if not blocks or not blocks[0].startswith(_SUBJECT):
        raise LetterFault(f'{_place(template)}: the first line is no subject. Begin with "{_SUBJECT}".')
    opening, closing = _divide(blocks[1:], "[parts]", template)
    shown = {
        "study": values["study"],
        "subject": blocks[0].removeprefix(_SUBJECT).strip(),
        "is_rehearsal": values["is_rehearsal"],
        "opening": opening,
        "closing": closing,
        "parts": parts,
        "numbers": _NUMBERS,
    }
    text, html = (_render(f"layout.{ending}", shown, folder, html=ending == "html") for ending in ("txt", "html"))
    return Letter(shown["subject"], text.strip() + "\n", html.strip() + "\n")


def _word_part(section: Section, values: Mapping[str, Any], folder: Path) -> Part:
    """A part in words. What is told and not asked, and what was asked before, has a wording of its own under the
    heading of what it is about."""
    known = {"study": values["study"], "n": len(section.rows), "role": section.role, "heading": ""}
    heading, before, after = _split_part(section.template, known, folder)
    other = PART_TEMPLATES.get(section.manner)
    if other:
        heading, before, after = _split_part(other, {**known, "heading": heading}, folder)
    drawn = _draw_table(section.columns, section.rows)
    return Part(heading, before, after, section.columns, section.rows, drawn)


def _split_part(template: str, values: Mapping[str, Any], folder: Path) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    blocks = _word(template, values, folder)
    if not blocks or not blocks[0].startswith("# "):
        raise LetterFault(f'{_place(template)}: the first line is no heading. Begin with "# ".')
    return blocks[0][2:].strip(), *_divide(blocks[1:], "[table]", template)


def _divide(blocks: list[str], marker: str, template: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if blocks.count(marker) != 1:
        raise LetterFault(f'{_place(template)}: "{marker}" stands there {blocks.count(marker)} times. Give it once.')
    place = blocks.index(marker)
    return tuple(blocks[:place]), tuple(blocks[place + 1 :])


def _word(template: str, values: Mapping[str, Any], folder: Path) -> list[str]:
    """The paragraphs of a wording, each on one line."""
    text = _render(template, values, folder, html=False)
    return [" ".join(block.split()) for block in text.split("\n\n") if block.strip()]


def _render(template: str, values: Mapping[str, Any], folder: Path, *, html: bool) -> str:
    try:
        return _open_templates(folder, html=html).get_template(f"{template}{_ENDING}").render(values)
    except TemplateNotFound:
        fault = f"{_place(template)}: there is no such template. Add it, or correct its name where it is named."
    except TemplateSyntaxError as error:
        fault = f"{_place(template)}, line {error.lineno}: {error.message}. Correct it."
    except TemplateError as error:
        fault = f"{_place(template)}: {error.message}. A letter has: {', '.join(sorted(values))}."
    raise LetterFault(fault)


def _place(template: str) -> str:
    return f"templates/letters/{template}{_ENDING}"


def _draw_table(columns: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> str:
    """A table for a letter in plain text; one that is too wide for a line of mail is a list."""
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    if sum(widths) + 2 * len(widths) > _WIDTH:
        items = [_list_cells(columns, row) for row in rows]
        return "\n".join(textwrap.fill(f"- {item}", _WIDTH, subsequent_indent="  ") for item in items)
    lines = [columns, tuple("-" * width for width in widths), *rows]
    return "\n".join(
        "  "
        + "  ".join(
            cell.rjust(width) if title in _NUMBERS else cell.ljust(width)
            for cell, width, title in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    )


def _list_cells(columns: tuple[str, ...], row: tuple[str, ...]) -> str:
    first, *others = row
    if len(others) == 1:
        return f"{first} {others[0]}"
    return ", ".join([first, *(f"{title.lower()}: {cell}" for title, cell in zip(columns[1:], others, strict=True))])


# Checking -------------------------------------------------------------------------------------------------------------


def find_letter_faults(study: Study, folder: Path = LETTERS_FOLDER) -> list[str]:
    """What is wrong with the letters that a study sends: each is rendered with made-up values; each fault once.

    A study that chases nobody and raises no safeguarding alert sends none.
    """
    if study.fieldwork.chasing_rule is None and study.fieldwork.safeguarding_rule is None:
        return []
    faults: dict[str, None] = {}
    for template, where in _list_named(study):
        for n, manner in ((1, ""), (2, "is_told"), (2, "is_open")):
            rows = (("LUT-P00013", "1 July 2017", "3"),) * n
            flags: dict[str, Any] = {manner: True} if manner else {}
            section = Section(template, "return", ("Identifier", "Due on", "Days late"), rows, role="lead", **flags)
            for letter in LETTERS:
                try:
                    render_letter(letter, _make_up(study, section, is_rehearsal=n == 1), folder)
                except LetterFault as fault:
                    faults[f"{fault}{where}"] = None
    return list(faults)


def _list_named(study: Study) -> Iterator[tuple[str, str]]:
    """The templates of parts that a study's letters may need, and where each is named."""
    places: dict[str, list[str]] = {template: [] for template in OWN_PARTS}
    for step in study.fieldwork.ladder:
        places.setdefault(step.template, []).append(f'{FIELDWORK_FILE} in ladder "{step.id}"')
    for chaser in study.pathway.chasers:
        places.setdefault(chaser.template, []).append(f'{PATHWAY_FILE} in chasers "{chaser.id}"')
    for template, where in places.items():
        yield template, f" Named by sites_config/{study.study_id}/{', '.join(where)}." if where else ""


def _make_up(study: Study, section: Section, *, is_rehearsal: bool) -> dict[str, Any]:
    answer_to = {"name": "A. Coordinator", "telephone": "01234 567890"} if is_rehearsal else None
    return {
        "study": study.title,
        "name": "A. Researcher",
        "place": "Luton",
        "on": "4 September 2017",
        "sections": (section,),
        "instead_of": ("B. Researcher",) if is_rehearsal else (),
        "answer_to": answer_to,
        "is_rehearsal": is_rehearsal,
    }
