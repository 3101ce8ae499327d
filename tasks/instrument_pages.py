"""The pages of an instrument: its codebook, and a sample form with neutral names where the wording is licensed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from study.codebook import describe_instrument
from study.instruments import Caution, Instrument, Item
from tasks.pages import describe_items, format_list, render_page

CODEBOOK_FILE = "codebook.html"
FORM_FILE = "form.html"
_LEAST_IN_GRID = 3


class InstrumentPages(NamedTuple):
    """Where the two pages of an instrument were written."""

    codebook: Path
    form: Path


def write_instrument_pages(instrument: Instrument, folder: Path) -> InstrumentPages:
    """Write both pages into a folder of the instrument's own below `folder`; an older version is replaced."""
    own = folder / instrument.id
    own.mkdir(parents=True, exist_ok=True)
    written = InstrumentPages(own / CODEBOOK_FILE, own / FORM_FILE)
    written.codebook.write_bytes(write_instrument_page(instrument))
    written.form.write_bytes(write_sample_form(instrument))
    return written


def write_instrument_page(instrument: Instrument) -> bytes:
    """What is asked, which answers there are, how it is scored, and what must be known of it."""
    asked_of = {
        item.id: item.whom_in_words or "of everybody"
        for item in instrument.items
        if any(other.whom_in_words for other in instrument.items)
    }
    return render_page(
        "instrument.html.jinja",
        title=f"Codebook: {instrument.title}",
        instrument=describe_items(describe_instrument(instrument)),
        form_file=FORM_FILE,
        asked_of=asked_of,
        cautions=[_describe_caution(instrument, caution) for caution in instrument.cautions],
        safeguarding=[trigger.about for trigger in instrument.safeguarding],
        lacks_costs=instrument.has_costs and instrument.unit_costs is None,
        examples=instrument.worked_examples,
    )


def write_sample_form(instrument: Instrument) -> bytes:
    """A form to print: items in their order, several in a row with the same answers as one grid."""
    return render_page(
        "instrument_form.html.jinja",
        title=f"{instrument.title}: sample form",
        instrument=instrument,
        blocks=_lay_out(instrument),
    )


def _lay_out(instrument: Instrument) -> list[dict[str, Any]]:
    group_of = {name: group for group in instrument.choice_groups for name in group.items}
    groups: list[list[Item]] = []
    for item in instrument.items:
        last = groups[-1][-1] if groups else None
        if last is not None and _goes_with(item, last, group_of):
            groups[-1].append(item)
        else:
            groups.append([item])
    blocks: list[dict[str, Any]] = []
    number = 0
    numbers: dict[str, int] = {}
    for items in groups:
        group = group_of.get(items[0].id)
        if group is not None:
            number += 1
            words = dict(zip(group.items, group.choices, strict=True))
            alone = [words[name] for name in group.exclusive]
            notes = ["Tick all that apply." + (f" Tick {format_list(alone)} alone." if alone else "")]
            answers = [(str(place), choice) for place, choice in enumerate(group.choices, start=1)]
            notes += _describe_routing(instrument, items[0], numbers)
            blocks.append(_ask("choices", number, group.label, notes, answers))
        elif len(items) >= _LEAST_IN_GRID:
            numbers |= {item.id: number + n for n, item in enumerate(items, start=1)}
            numbered = [{"number": numbers[item.id], "label": item.label} for item in items]
            blocks.append({"kind": "grid", "answers": _list_answers(items[0]), "items": numbered})
            number += len(items)
        else:
            for item in items:
                number += 1
                numbers[item.id] = number
                notes = _describe_routing(instrument, item, numbers)
                block = _ask(item.type, number, item.label, notes, _list_answers(item))
                blocks.append({**block, "words": item.answers_in_words})
    return blocks


def _goes_with(item: Item, last: Item, group_of: dict[str, Any]) -> bool:
    """Choices of one question, or levels alike without anything that only one of the two has."""
    if item.id in group_of or last.id in group_of:
        return group_of.get(item.id) == group_of.get(last.id)
    if any(one.asked_if or one.whom_in_words for one in (item, last)):
        return False
    return item.type == last.type == "level" and item.levels == last.levels


def _ask(kind: str, number: int, label: str, notes: list[str], answers: list[tuple[str, str]]) -> dict[str, Any]:
    block = {"kind": kind, "number": number, "label": label, "notes": notes, "answers": answers}
    return {**block, "shows_codes": kind == "level"}


def _list_answers(item: Item) -> list[tuple[str, str]]:
    return [(str(code), label) for code, label in item.levels.items()]


def _describe_routing(instrument: Instrument, item: Item, numbers: dict[str, int]) -> list[str]:
    """Who is asked a question, with the number of the question before that decides it."""
    notes = []
    condition = item.asked_if
    gate = instrument.find_item(condition.item) if condition else None
    if condition is not None and gate is not None:
        answers = " or ".join(f'"{gate.levels.get(value, value)}"' for value in condition.equals)
        which = f"question {numbers[gate.id]}" if gate.id in numbers else f'"{gate.label}"'
        notes.append(f"Only if {which} is {answers}.")
    if item.whom_in_words:
        notes.append(f"Only {item.whom_in_words}.")
    return notes


def _describe_caution(instrument: Instrument, caution: Caution) -> dict[str, Any]:
    whom = [f"{form.replace('_', '-')} form" for form in caution.forms] + [*caution.respondents]
    labels = [scale.label for scale in instrument.scales if scale.id in caution.scales]
    return {"whom": (format_list(whom) or "All answers").capitalize(), "text": caution.text, "scales": labels}
