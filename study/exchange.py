"""Questionnaires of other tools as definitions: what can be carried over, and everything that cannot, by name.

`study.redcap` and `study.xlsform` read and write the two formats; here is what they share. A form of another tool comes
in as :class:`Question` rows and goes on as the text of a definition, which `summative instruments check` accepts and
a person completes.

Judgement calls:

- Nothing is dropped silently: what a definition cannot say, or what was supplied so that it is one, is `NotCarried`.
- A field that would hold an identifier is refused by name: what the other tool marks as one or checks as an e-mail
  address, a telephone number or the like, and any other field into which people type whose name or label says so.
- Definitions have codes that are whole numbers. Other codes are numbered from 1, in their order.
- A definition has one condition on one earlier item. Of "A and B" only B is kept where B is asked only if A holds,
  which is the same; "or" is kept where both sides are about one item. All else is told: the item is asked of all.
- A number without a range gets one from 0, and the person who checks the definition narrows it.
- The wording of definitions is neutral. Licensed wording goes out where the study supplies it, and only then.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from study.identifier_scan import KIND_WORDS, find_column_kind
from study.instruments import FORMS, RECORD_COLUMNS, RESPONDENTS, Condition, Instrument

HIGHEST_SUPPLIED = 999_999
_LONGEST_ID = 32
_LONGEST_CHOICE = 20
LONGEST_INSTRUMENT = 31  # the ledger keeps the name of a sheet, which Excel lets have so many letters
_RESERVED = (*RECORD_COLUMNS, "example", "evidence", "source", "decimals", "age", "sex")
_CODE = re.compile(r"-?[0-9]{1,5}")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_TELLING = (
    (re.compile(r"\be-? ?mail", re.IGNORECASE), "an e-mail address"),
    (re.compile(r"\bip ?address\b|\blatitude\b|\blongitude\b", re.IGNORECASE), "where somebody is"),
    (re.compile(r"\baddress\b|\bpost ?code\b|\bzip ?code\b", re.IGNORECASE), "an address"),
)
_SHEET_TITLE_FORBIDDEN = re.compile(r"[\[\]:*?/\\]")
_ASKED_OF: Mapping[str, Sequence[str]] = {"respondent": ("self",), "form": ("standard",)}
_MOST_CODES_OF_A_RANGE = 100
_MOST_ALTERNATIVES = 64

Kind = Literal["level", "number", "choices"]


@dataclass(frozen=True)
class NotCarried:
    """What was left behind, changed or supplied: the field, what of it, and why or what to do."""

    name: str
    what: str
    why: str


@dataclass(frozen=True)
class Question:
    """One question of another tool. `choices`: code and words; `exclusive`: codes that stand alone; `condition`: when
    it is asked, in the notation of `parse_condition`."""

    form: str
    name: str
    label: str
    kind: Kind
    choices: tuple[tuple[str, str], ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    whole_numbers: bool = False
    exclusive: tuple[str, ...] = ()
    condition: str = ""


@dataclass(frozen=True)
class Draft:
    """A definition drawn up from another tool: the two files of an instrument's folder. `form`: its name there."""

    id: str
    form: str
    definition: str
    worked_examples: str
    n_items: int


@dataclass
class Translated:
    """Drafts by form, in the order of the file, and everything that was not carried over. `wording`: item, code ("" for
    the question) and text, as a wording file has them, where definitions were to be without it."""

    drafts: list[Draft] = field(default_factory=list)
    not_carried: list[NotCarried] = field(default_factory=list)
    wording: list[tuple[str, str, str]] = field(default_factory=list)


# --- What is refused --------------------------------------------------------------------------------------------------


def find_record_column(name: str, codes: Sequence[str]) -> str:
    """ "respondent" or "form" for a field that says so by its name and choices; else ""."""
    for column, known in (("respondent", RESPONDENTS), ("form", FORMS)):
        if (name == column or name.endswith(f"_{column}")) and codes and set(codes) <= set(known):
            return column
    return ""


def find_identifier_words(*texts: str) -> str:
    """What a field into which people type would hold by its name or label: "a telephone number", or ""."""
    for text in texts:
        kind = find_column_kind(text)
        if kind and kind != "perhaps_name":
            return KIND_WORDS[kind]
        for pattern, words in _TELLING:
            if pattern.search(re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", text)):
                return words
    kinds = {find_column_kind(text) for text in texts}
    return "a name" if "perhaps_name" in kinds else ""


def refuse_identifier(name: str, words: str) -> NotCarried:
    return NotCarried(
        name, f"refused: it would hold {words}", "The study holds nothing that tells who a person is. Leave it there."
    )


# --- Drafts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Built:
    """A question as items: `codes` of a level by the other tool's, `items` of several answers by its codes."""

    question: Question
    id: str
    codes: Mapping[str, int] = field(default_factory=dict)
    items: Mapping[str, str] = field(default_factory=dict)
    asked_if: Condition | None = None

    def list_answers(self) -> list[int] | None:
        """Every answer, where they can be listed."""
        if self.question.kind == "level":
            return list(self.codes.values())
        low, high = self.question.minimum, self.question.maximum
        if self.question.kind != "number" or low is None or high is None or not self.question.whole_numbers:
            return None
        return list(range(int(low), int(high) + 1)) if high - low < _MOST_CODES_OF_A_RANGE else None


def derive_drafts(
    questions: Sequence[Question],
    tool: str,
    titles: Mapping[str, str],
    versions: Mapping[str, str],
    *,
    asked_of: Mapping[tuple[str, str], Sequence[str]] | None = None,
    is_neutral: bool = False,
) -> Translated:
    """One definition for each form that has a question to carry. `titles`, `versions`: by form, where known.
    `asked_of`: by form, its "respondent" and its "form" (of the questionnaire), where a field of it says them. With
    `is_neutral` names and codes stand for the wording, which is given apart."""
    found = Translated()
    for form in dict.fromkeys(question.form for question in questions):
        own = [question for question in questions if question.form == form]
        instrument_id = _derive_id(form, {draft.id for draft in found.drafts}, LONGEST_INSTRUMENT, ())
        if instrument_id != form:
            found.not_carried.append(NotCarried(form, "the form's name", f"The instrument is called {instrument_id}."))
        built = _build(own, found.not_carried)
        if not built:
            continue
        if is_neutral:
            found.wording += [row for one in built for row in _list_wording(one)]
            built = [replace(one, question=_make_neutral(one.question)) for one in built]
        title = titles.get(form) or _words(form)
        whom = {column: (asked_of or {}).get((form, column), usual) for column, usual in _ASKED_OF.items()}
        found.drafts.append(_write_draft(instrument_id, form, title, versions.get(form, ""), tool, built, whom))
        found.not_carried += [
            NotCarried(form, "citation and licence", "Fill them in in its definition.toml."),
            NotCarried(form, "scores", "The definition repeats its first answer as a score. Put the real ones there."),
        ]
    return found


def _list_wording(one: _Built) -> list[tuple[str, str, str]]:
    codes = {name: str(code) for name, code in one.codes.items()}
    codes |= {name: item.removeprefix(f"{one.id}_") for name, item in one.items.items()}
    answers = [(one.id, codes[name], words) for name, words in one.question.choices]
    return [(one.id, "", one.question.label), *answers]


def _make_neutral(question: Question) -> Question:
    choices = tuple((code, _words(code) if question.kind == "choices" else code) for code, _ in question.choices)
    return replace(question, label=_words(question.name), choices=choices)


def _build(questions: Sequence[Question], not_carried: list[NotCarried]) -> list[_Built]:
    built: dict[str, _Built] = {}
    ids: set[str] = set()
    for asked in questions:
        if asked.name in built:
            not_carried.append(NotCarried(asked.name, "a second field of that name", "Only the first was taken."))
            continue
        question = _supply_range(_clean(asked, not_carried), not_carried)
        if question.kind != "number" and not question.choices:
            not_carried.append(NotCarried(asked.name, "a question without choices", "Give each a code and words."))
            continue
        made = (
            _build_choices(question, ids, not_carried)
            if question.kind == "choices"
            else _build_item(question, ids, not_carried)
        )
        if made.id != asked.name:
            not_carried.append(
                NotCarried(asked.name, "its name", f"It is called {made.id} here; name both in a column map.")
            )
        if question.condition:
            alternatives = parse_condition(question.condition)
            condition = _resolve(alternatives, built) if alternatives else None
            if condition is None:
                not_carried.append(
                    NotCarried(
                        asked.name,
                        "when it is asked",
                        "A definition has one condition, on answers to one earlier question. It is asked of everybody.",
                    )
                )
            made = replace(made, asked_if=condition)
        ids |= {made.id, *made.items.values()}
        built[asked.name] = made
    return list(built.values())


def _clean(question: Question, not_carried: list[NotCarried]) -> Question:
    """Words on one line and without marks of web pages."""
    texts = [question.label, *(words for _, words in question.choices)]
    if any(_TAG.search(text) for text in texts):
        not_carried.append(NotCarried(question.name, "bold, colours and other marks", "Definitions hold plain words."))
    if any("[" in text or "${" in text for text in texts):
        not_carried.append(
            NotCarried(question.name, "words taken from another answer", "They stand as they were typed. Reword them.")
        )
    choices: dict[str, tuple[str, str]] = {}
    for code, words in question.choices:
        if code.strip():
            key = _key(code.strip()) if question.kind == "choices" else code.strip()
            choices.setdefault(key, (code.strip(), clean_words(words) or code.strip()))
    if len(choices) < len(question.choices):
        why = "One code stands for one choice. The first was taken, and none without a code."
        not_carried.append(NotCarried(question.name, "choices with the same code, or with none", why))
    return replace(
        question, label=clean_words(question.label) or _words(question.name), choices=tuple(choices.values())
    )


def clean_words(text: str) -> str:
    return " ".join(html.unescape(_TAG.sub(" ", text)).split())


def _supply_range(question: Question, not_carried: list[NotCarried]) -> Question:
    low, high = question.minimum, question.maximum
    if question.kind != "number" or (low is not None and high is not None and low < high):
        return question
    if low is not None and high is not None:
        not_carried.append(NotCarried(question.name, "its range", "Its lowest value is not below its highest one."))
        low = high = None
    low = low if low is not None else min(0.0, (high if high is not None else 0.0) - HIGHEST_SUPPLIED)
    low = max(low, 0.0) if question.minimum is None and (high is None or high > 0) else low
    high = high if high is not None else max(float(HIGHEST_SUPPLIED), low + 1)
    not_carried.append(
        NotCarried(question.name, "a whole range", f"{low:g} to {high:.0f} is taken. Give lowest and highest.")
    )
    return replace(question, minimum=low, maximum=high)


def _build_item(question: Question, ids: set[str], not_carried: list[NotCarried]) -> _Built:
    codes: dict[str, int] = {}
    if question.kind == "level":
        names = list(dict.fromkeys(code for code, _ in question.choices))
        if all(_CODE.fullmatch(name) for name in names) and len({int(name) for name in names}) == len(names):
            codes = {name: int(name) for name in names}
        else:
            codes = {name: number for number, name in enumerate(names, start=1)}
            told = ", ".join(f"{name} is {number}" for name, number in codes.items())
            not_carried.append(
                NotCarried(question.name, "codes that are no whole numbers", f"{told}; say so in a column map.")
            )
    return _Built(question, _derive_id(question.name, ids), codes)


def _build_choices(question: Question, ids: set[str], not_carried: list[NotCarried]) -> _Built:
    """The names are those of the columns of a flat export: <field>_<code>, all else but letters and digits as _."""
    keys: dict[str, str] = {}
    for code, _ in question.choices:
        key = _key(code)[:_LONGEST_CHOICE]
        keys[code] = key if key not in keys.values() else f"{key[: _LONGEST_CHOICE - 4]}_{len(keys)}"
    if any(_key(code) != key for code, key in keys.items()):
        why = "They are shortened; name the columns of these choices in a column map."
        not_carried.append(NotCarried(question.name, f"codes of more than {_LONGEST_CHOICE} letters", why))
    id_ = _derive_id(question.name, ids, _LONGEST_ID - max(map(len, keys.values())) - 1)
    return _Built(question, id_, items={code: f"{id_}_{key}" for code, key in keys.items()})


def _key(code: str) -> str:
    return re.sub(r"[^a-z0-9]", "_", code.lower())


def _derive_id(
    name: str, taken: Iterable[str], longest: int = _LONGEST_ID, reserved: Collection[str] = _RESERVED
) -> str:
    id_ = _key(name)[:longest] or "item"
    if not id_[0].isalpha() or id_.startswith("expected_"):
        id_ = f"q_{id_}"[:longest]
    if id_ in reserved:
        id_ = f"{id_[: longest - 7]}_answer"
    others, number, first = set(taken), 2, id_
    while id_ in others:
        id_, number = f"{first[: longest - 3]}_{number}", number + 1
    return id_


# --- Conditions -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """`[name] = 'value'`, or `[name(choice)] = '1'` of a question with several answers."""

    name: str
    choice: str
    operator: str
    value: str


Alternatives = list[list[Comparison]]
"""Any of these holds; each holds if all of its comparisons do."""

_TOKEN = re.compile(
    r"\s*(?:(?P<open>\()|(?P<close>\))|(?P<word>and|or)\b"
    r"|\[(?P<name>[\w.-]+)(?:\((?P<choice>-?\w+)\))?\]\s*(?P<operator><>|!=|<=|>=|=|<|>)\s*"
    r"(?:\"(?P<double>[^\"]*)\"|'(?P<single>[^']*)'|(?P<number>-?\d+(?:\.\d+)?)))\s*",
    re.IGNORECASE,
)


def parse_condition(text: str) -> Alternatives | None:
    """A condition such as `[sex] = '0' and ([hurt(2)] = '1' or [age] > 64)`; None for what cannot be taken apart."""
    tokens: list[str | Comparison] = []
    place = 0
    while place < len(text.rstrip()):
        match = _TOKEN.match(text, place)
        if match is None:
            return None
        place = match.end()
        if match["name"]:
            value = next(text for text in (match["double"], match["single"], match["number"]) if text is not None)
            operator = "!=" if match["operator"] == "<>" else match["operator"]
            tokens.append(Comparison(match["name"], match["choice"] or "", operator, value.strip()))
        else:
            tokens.append((match["open"] or match["close"] or match["word"]).lower())
    alternatives, rest = _parse_any(tokens, 0)
    return alternatives if rest == len(tokens) else None


def _parse_any(tokens: Sequence[str | Comparison], place: int) -> tuple[Alternatives | None, int]:
    found, place = _parse_all(tokens, place)
    while found is not None and place < len(tokens) and tokens[place] == "or":
        other, place = _parse_all(tokens, place + 1)
        found = None if other is None else found + other
    return found, place


def _parse_all(tokens: Sequence[str | Comparison], place: int) -> tuple[Alternatives | None, int]:
    found, place = _parse_one(tokens, place)
    while found is not None and place < len(tokens) and tokens[place] == "and":
        other, place = _parse_one(tokens, place + 1)
        if other is None or len(found) * len(other) > _MOST_ALTERNATIVES:
            return None, place
        found = [[*one, *two] for one in found for two in other]
    return found, place


def _parse_one(tokens: Sequence[str | Comparison], place: int) -> tuple[Alternatives | None, int]:
    if place >= len(tokens):
        return None, place
    token = tokens[place]
    if isinstance(token, Comparison):
        return [[token]], place + 1
    if token != "(":  # noqa: S105 (a bracket)
        return None, place
    found, place = _parse_any(tokens, place + 1)
    if place >= len(tokens) or tokens[place] != ")":
        return None, place
    return found, place + 1


_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "=": lambda one, other: one == other,
    "!=": lambda one, other: one != other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}


def _resolve(alternatives: Alternatives, built: Mapping[str, _Built]) -> Condition | None:
    """One item and its answers, or None where that cannot say it."""
    found: dict[str, set[int]] = {}
    for comparisons in alternatives:
        condition = _resolve_all(comparisons, built)
        if condition is None:
            return None
        found.setdefault(condition.item, set()).update(condition.equals)
    if len(found) != 1:
        return None
    ((item, answers),) = found.items()
    return Condition(item=item, equals=tuple(sorted(answers)))


def _resolve_all(comparisons: Sequence[Comparison], built: Mapping[str, _Built]) -> Condition | None:
    allowed: dict[str, set[int]] = {}
    asked_if: dict[str, Condition] = {}
    for comparison in comparisons:
        gate = built.get(comparison.name)
        told = _find_answers(comparison, gate) if gate else None
        if gate is None or told is None:
            return None
        item, answers = told
        allowed[item] = allowed[item] & answers if item in allowed else answers
        if gate.asked_if is not None:
            asked_if[item] = gate.asked_if
    for condition in asked_if.values():  # whoever answered was asked: then the gate's own condition holds
        if set(condition.equals) <= allowed.get(condition.item, set()):
            del allowed[condition.item]
    if len(allowed) != 1:
        return None
    ((item, answers),) = allowed.items()
    return Condition(item=item, equals=tuple(sorted(answers))) if answers else None


def _find_answers(comparison: Comparison, gate: _Built) -> tuple[str, set[int]] | None:
    """The item that a comparison is about, and the answers that it allows."""
    if gate.question.kind == "choices":
        item = gate.items.get(comparison.choice)
        if item is None or comparison.operator not in ("=", "!=") or comparison.value not in ("0", "1"):
            return None
        return item, {int(comparison.value) if comparison.operator == "=" else 1 - int(comparison.value)}
    answers = gate.list_answers()
    value = comparison.choice if comparison.choice else comparison.value
    if comparison.choice and (comparison.operator, comparison.value) not in (("=", "1"), ("!=", "0")):
        return None
    operator = "=" if comparison.choice else comparison.operator
    if value == "":
        return (gate.id, set(answers)) if operator == "!=" and answers else None
    if value in gate.codes and operator in ("=", "!="):
        return gate.id, {code for code in gate.codes.values() if _OPERATORS[operator](code, gate.codes[value])}
    is_renumbered = any(name != str(code) for name, code in gate.codes.items() if not _CODE.fullmatch(name))
    if is_renumbered or not re.fullmatch(r"-?\d+(\.\d+)?", value):
        return None
    if answers is None:
        low, high, number = gate.question.minimum or 0.0, gate.question.maximum or 0.0, float(value)
        return (gate.id, {int(number)}) if operator == "=" and number.is_integer() and low <= number <= high else None
    return gate.id, {answer for answer in answers if _OPERATORS[operator](answer, float(value))}


# --- The text of a definition -----------------------------------------------------------------------------------------


def _write_draft(
    id_: str,
    form: str,
    title: str,
    version: str,
    tool: str,
    built: Sequence[_Built],
    whom: Mapping[str, Sequence[str]],
) -> Draft:
    sheet_title = _SHEET_TITLE_FORBIDDEN.sub(" ", title).strip("' ")[:31].strip("' ") or id_[:31]
    lines = [
        f"# Drawn up from {tool}. Read it through, fill in what says so, and check it.",
        "",
        f"id = {_quote(id_)}",
        f"title = {_quote(title)}",
        f"sheet_title = {_quote(sheet_title)}",
        f"version = {_quote(version or '0.1')}",
        'citation = "To be filled in: where the questionnaire is published."',
        'licence = "To be filled in: whose the wording is, and what may be done with it."',
        f"respondents = [{', '.join(map(_quote, whom['respondent']))}]",
        f"forms = [{', '.join(map(_quote, whom['form']))}]",
    ]
    n_items = 0
    for one in built:
        question = one.question
        n_items += len(one.items) or 1
        lines += ["", "[[items]]", f"id = {_quote(one.id)}", f"label = {_quote(question.label)}"]
        if question.kind == "choices":
            words = dict(question.choices)
            lines.append('type = "choices"')
            if question.exclusive:
                alone = [one.items[code].removeprefix(f"{one.id}_") for code in question.exclusive if code in one.items]
                lines += [f"exclusive = [{', '.join(map(_quote, alone))}]"] if alone else []
        elif question.kind == "number":
            lines += [
                'type = "number"',
                f"minimum = {_number(question.minimum)}",
                f"maximum = {_number(question.maximum)}",
            ]
            lines += ["whole_numbers = true"] if question.whole_numbers else []
        elif points := _find_points(one):
            lines.append(f'levels = "{points}"')
        if one.asked_if is not None:
            equals = ", ".join(map(str, one.asked_if.equals))
            lines.append(f"asked_if = {{ item = {_quote(one.asked_if.item)}, equals = [{equals}] }}")
        if question.kind == "choices":
            lines += [
                "",
                "[items.choices]",
                *(f"{item.removeprefix(f'{one.id}_')} = {_quote(words[code])}" for code, item in one.items.items()),
            ]
        elif question.kind == "level" and not _find_points(one):
            words = dict(question.choices)
            lines += ["", "[items.levels]", *(f"{code} = {_quote(words[name])}" for name, code in one.codes.items())]
    first = built[0]
    item_id = next(iter(first.items.values()), first.id)
    low, high = _find_ends(first)
    score_id = _derive_id(
        f"{id_[:26]}_score", {one.id for one in built} | {i for one in built for i in one.items.values()}
    )
    lines += [
        "",
        "# A definition has at least one score. This one repeats an answer: put the questionnaire's own in its place.",
        "[[scales]]",
        f"id = {_quote(score_id)}",
        f"label = {_quote(f'Answer to {item_id}')}",
        'method = "mapping"',
        f"items = [{_quote(item_id)}]",
        f"minimum = {_number(low)}",
        f"maximum = {_number(high)}",
        "",
    ]
    answer = _number(low)
    sink = io.StringIO()
    header = ["example", "evidence", "source", "decimals", f"expected_{score_id}", item_id]
    decimals = len(answer.partition(".")[2])
    row = ["lowest answer", "hand_computed", "Rule stated in definition.toml", str(decimals), answer, answer]
    csv.writer(sink, lineterminator="\n").writerows([header, row])
    return Draft(id_, form, "\n".join(lines), sink.getvalue(), n_items)


def _find_points(one: _Built) -> str:
    """ "0 to 10" for levels whose words are their codes."""
    codes = list(one.codes.values())
    is_run = len(codes) > 1 and codes == list(range(codes[0], codes[-1] + 1))
    words = dict(one.question.choices)
    return (
        f"{codes[0]} to {codes[-1]}" if is_run and all(words[name] == str(c) for name, c in one.codes.items()) else ""
    )


def _find_ends(one: _Built) -> tuple[float, float]:
    if one.question.kind == "choices":
        return 0, 1
    if one.codes:
        return min(one.codes.values()), max(one.codes.values())
    return one.question.minimum or 0.0, one.question.maximum or 0.0


def _number(value: float | None) -> str:
    number = float(value or 0)
    return str(int(number)) if number.is_integer() else repr(number)


def _quote(text: str) -> str:
    """A TOML string: JSON's escapes are TOML's, but for the delete character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "")


def _words(name: str) -> str:
    text = " ".join(name.replace("_", " ").split()) or name or "?"
    return text[:1].upper() + text[1:]


# --- Going out --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wording:
    """A study's own wording of one instrument: of questions by item or group, of answers by item and code."""

    questions: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[tuple[str, str], str] = field(default_factory=dict)


class WordingFaults(ValueError):
    """Everything that is wrong with a wording file; ``faults`` holds a sentence each."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = list(faults)


def derive_wording(instrument: Instrument, rows: Iterable[Mapping[str, str]]) -> Wording:
    """Wording from rows with item, code ("" for the question itself) and text. Raises WordingFaults.

    Of a question with several answers, `item` is its id and `code` the choice.
    """
    known: dict[str, set[str]] = {item.id: set(map(str, item.levels)) for item in instrument.items}
    for group in instrument.choice_groups:
        known[group.id] = {item.removeprefix(f"{group.id}_") for item in group.items}
    questions, answers, faults = {}, {}, []
    for line, row in enumerate(rows, start=2):
        item, code, text = ((row.get(name) or "").strip() for name in ("item", "code", "text"))
        if item not in known:
            faults.append(f"line {line}: {instrument.id} has no item of that name. Correct it.")
        elif code and code not in known[item]:
            faults.append(f"line {line}: {item} has no such code. It has {', '.join(sorted(known[item])) or 'none'}.")
        elif not text:
            faults.append(f"line {line}: the text is empty.")
        elif code:
            answers[item, code] = text
        else:
            questions[item] = text
    if faults:
        raise WordingFaults(faults)
    return Wording(questions, answers)


Asked = tuple[Question, Condition | None]
"""A question, and when it is asked."""


def list_questions(instrument: Instrument, wording: Wording) -> list[Asked]:
    """An instrument as questions, those with several answers as one each."""
    grouped = {item: group for group in instrument.choice_groups for item in group.items}
    found: list[Asked] = []
    for item in instrument.items:
        group = grouped.get(item.id)
        if group is not None:
            if item.id == group.items[0]:
                names = [name.removeprefix(f"{group.id}_") for name in group.items]
                words = tuple(
                    (name, wording.answers.get((group.id, name), text))
                    for name, text in zip(names, group.choices, strict=True)
                )
                question = Question(
                    instrument.id, group.id, wording.questions.get(group.id, group.label), "choices", words,
                    exclusive=tuple(name.removeprefix(f"{group.id}_") for name in group.exclusive),
                )  # fmt: skip
                found.append((question, item.asked_if))
            continue
        words = tuple(
            (str(code), wording.answers.get((item.id, str(code)), text)) for code, text in item.levels.items()
        )
        question = Question(
            instrument.id, item.id, wording.questions.get(item.id, item.label), item.type, words, item.minimum,
            item.maximum, item.whole_numbers,
        )  # fmt: skip
        found.append((question, item.asked_if))
    return found


def find_group(instrument: Instrument, item_id: str) -> tuple[str, str] | None:
    """The question with several answers of which an item is a choice, and the choice."""
    for group in instrument.choice_groups:
        if item_id in group.items:
            return group.id, item_id.removeprefix(f"{group.id}_")
    return None


def list_left_at_home(instrument: Instrument, tool: str) -> list[NotCarried]:
    """What a definition says and no form of another tool can."""
    id_ = instrument.id
    found = [
        NotCarried(scale.id, "a score", "Scores are computed here when the returns have come.")
        for scale in instrument.scales
    ]
    found += [NotCarried(rule.id, "a rule between answers", "It is checked here.") for rule in instrument.rules]
    found += [
        NotCarried(trigger.id, "a safeguarding trigger", "Alerts are raised here.")
        for trigger in instrument.safeguarding
    ]
    found += [NotCarried(id_, "a caution to readers of scores", "It stands in the codebook.")] * bool(
        instrument.cautions
    )
    found += [
        NotCarried(scale.id, "a change between waves that is asked about", "It is checked here.")
        for scale in instrument.scales
        if scale.largest_change is not None
    ]
    found += [
        NotCarried(id_, f"a check for answers on {version.title}", "It is checked here.")
        for version in instrument.other_versions
    ]
    found += [NotCarried(id_, f"how far back it asks ({instrument.recall})", "Say it there.")] * bool(instrument.recall)
    found += [NotCarried(id_, "that it asks for facts and measures nothing", "It is known here.")] * instrument.facts
    found.append(NotCarried(id_, "citation and licence", "Keep to the licence there too."))
    if instrument.missing_codes:
        codes = ", ".join(f"{code} {_words(reason).lower()}" for code, reason in instrument.missing_codes.items())
        found.append(NotCarried(id_, f"codes for no answer ({codes})", f"Set them up in {tool}, or leave blanks."))
    for item in instrument.items:
        if item.whom_in_words:
            found.append(
                NotCarried(item.id, f"that it is asked {item.whom_in_words} only", "It is asked of everybody.")
            )
        if item.provides:
            found.append(NotCarried(item.id, f"that it tells the {item.provides} to other scores", "It does so here."))
        own = {code for code, reason in item.missing_codes.items() if instrument.missing_codes.get(code) != reason}
        if own:
            found.append(NotCarried(item.id, "its own codes for no answer", f"Set them up in {tool}."))
    return found
