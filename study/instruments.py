"""Instruments as data: what a definition may say, and how that reads in words.

An instrument is a folder with ``definition.toml`` (items, missing codes, scales, rules between items) and
``worked_examples.csv`` (answers with the scores that they must give); where scores come from a published table, with
``value_sets/*.csv``; where they are costs, with the ``unit_costs.csv`` that a study supplies. `study.instrument_parser`
turns their bytes into the frozen :class:`Instrument` of this module.

Four rules of the language are judgement calls:

- A code is an answer where it is one of the item's levels (or within its range), and a missing code only elsewhere:
  9 may mean "not answered" in one item and nine in another. An item that claims one code for both is a fault.
- Only ``prorated_sum`` may go without an item. A plain sum over fewer items would silently be a lower score.
- The stated minimum and maximum of a scale must be what its items can reach: a wrong weight or a forgotten item
  shows there.
- A scale is taken for one of effects on a common cause (``reflective``) only where the definition says so: agreement
  among the items of a preference-based or a counting measure means nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict

from study.value_sets import VALUE_SETS_FOLDER, ValueSet

MISSING_REASONS = ("not_asked", "not_answered", "refused", "not_applicable", "not_returned", "illegible")
RESPONDENTS = ("self", "proxy", "carer", "manager")
FORMS = ("standard", "easy_read")
METHODS = ("sum", "prorated_sum", "product", "count", "mapping", "weighted", "valued_sum", "value_set", "cost")
SEVERITIES = ("hard", "soft")
# What a definition that declares no table of its own means by a negative code.
DEFAULT_MISSING_CODES: Mapping[int, str] = {
    -9: "not_answered",
    -8: "refused",
    -7: "not_applicable",
    -6: "illegible",
    -5: "not_asked",
}
# The columns that every sheet of a return has before its items; no item may be called so.
RECORD_COLUMNS = ("participant_id", "respondent", "form", "wave", "collected_on")
# Where the expected score of a worked example comes from.
EVIDENCE = ("published_table", "published_rule", "trial_record", "hand_computed")

DEFINITION_FILE = "definition.toml"
EXAMPLES_FILE = "worked_examples.csv"
UNIT_COSTS_FILE = "unit_costs.csv"

Method = Literal["sum", "prorated_sum", "product", "count", "mapping", "weighted", "valued_sum", "value_set", "cost"]

_MOST_IN_WORDS = 8  # values of a table that a rule still says in a sentence


class DefinitionFaults(ValueError):
    """Everything that is wrong with one definition; ``faults`` holds one sentence each, in the order of the file."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults: list[str] = list(faults)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Condition(_Model):
    """True of a record whose answer to ``item`` is one of ``equals``."""

    item: str
    equals: tuple[int, ...]


class Item(_Model):
    """One question or rating.

    A ``level`` item takes the codes of ``levels``; a ``number`` item anything from ``minimum`` to ``maximum``, both
    included, and only whole numbers if ``whole_numbers``. ``missing_codes`` holds the codes that mean "no answer" in
    this item: the instrument's, with the item's own put over them, less those that are answers here. ``respondents``
    and ``forms``: who is asked it and on which form, empty for all of the instrument's. ``provides``: what the answer
    says about the person that scores of other instruments rest on: their age in years on that day, or their sex.
    """

    id: str
    label: str
    type: Literal["level", "number"]
    levels: dict[int, str] = {}
    minimum: float | None = None
    maximum: float | None = None
    whole_numbers: bool = False
    missing_codes: dict[int, str] = {}
    asked_if: Condition | None = None
    respondents: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    provides: Literal["", "age", "sex"] = ""

    @property
    def lowest(self) -> float:
        return float(min(self.levels)) if self.minimum is None else self.minimum

    @property
    def highest(self) -> float:
        return float(max(self.levels)) if self.maximum is None else self.maximum

    @property
    def answers_in_words(self) -> str:
        """The answers allowed, for a person: "1 to 5", "1, 2 or 9", "a whole number from 0 to 40"."""
        if self.type == "number":
            kind = "whole number" if self.whole_numbers else "number"
            return f"a {kind} from {self.lowest:g} to {self.highest:g}"
        codes = sorted(self.levels)
        if len(codes) > 2 and codes == list(range(codes[0], codes[-1] + 1)):
            return f"{codes[0]} to {codes[-1]}"
        *rest, last = (str(code) for code in codes)
        return f"{', '.join(rest)} or {last}" if rest else last

    @property
    def expected_in_words(self) -> str:
        """The answers and the missing codes allowed: "1 to 5, or -9 not answered, -8 refused"."""
        codes = ", ".join(f"{code} {reason.replace('_', ' ')}" for code, reason in self.missing_codes.items())
        return f"{self.answers_in_words}, or {codes}" if codes else self.answers_in_words

    def is_answer(self, value: float) -> bool:
        """Whether this is one of the item's levels, or within its range."""
        if self.type == "level":
            return value in self.levels
        return self.lowest <= value <= self.highest and (not self.whole_numbers or float(value).is_integer())

    @property
    def whom_in_words(self) -> str:
        """Who is asked it and on which form, "" for everybody: "of self or proxy", "on the easy-read form"."""
        words = [f"of {_either(self.respondents)}"] if self.respondents else []
        if self.forms:
            words.append(f"on the {_either(form.replace('_', '-') for form in self.forms)} form")
        return " ".join(words)


class MissingRule(_Model):
    """When a scale may do without an item.

    ``at_most_missing_pct`` is the largest share of items, in per cent, that may be missing (0: none). ``leave_out``
    names reasons that make an item not belong to this person's score at all: it neither counts as missing nor to the
    items that the share is taken of. ``not_asked_as`` is the value of an item that routing skipped.
    """

    at_most_missing_pct: float = 0.0
    leave_out: tuple[str, ...] = ()
    not_asked_as: float | None = None


class ChoiceGroup(_Model):
    """A question with several answers: an item for each choice, 1 if it was chosen and 0 if not.

    ``choices``: the words of each item's choice. One of ``exclusive`` ("none of these") cannot stand beside another.
    """

    id: str
    label: str
    items: tuple[str, ...]
    choices: tuple[str, ...]
    exclusive: tuple[str, ...] = ()


class AnswerTest(_Model):
    """True of a record in which each of ``items`` is answered as told: with one of ``equals``, with ``at_least`` or
    ``at_most`` a number, or with more than the item ``above`` is answered. Exactly one of these is given."""

    items: tuple[str, ...]
    equals: tuple[int, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    above: str = ""


class Rule(_Model):
    """Answers that cannot (hard) or can hardly (soft) stand beside each other: all tests are true of one record.

    ``says`` is what is wrong then, for the site; the fault is told of the last item named, which no other rule's is.
    """

    id: str
    says: str
    severity: Literal["hard", "soft"]
    never_together: tuple[AnswerTest, ...]

    @property
    def last_item(self) -> str:
        return self.never_together[-1].items[-1]


class Trigger(_Model):
    """Answers of which a clinician is told on the day on which they are read: any of the tests is true of a record.

    ``about`` says what they concern, and no answer.
    """

    id: str
    about: str
    any_of: tuple[AnswerTest, ...]


class OtherVersion(_Model):
    """A shorter version of the questionnaire, filled in by mistake: of ``rows`` records or more in one sheet, none is
    answered above ``highest`` in ``items``, though this version goes further."""

    title: str
    items: tuple[str, ...]
    highest: int
    rows: int


class Caution(_Model):
    """What a reader of these scores must know where the answers came on one of these forms or from one of these
    respondents; empty: from all."""

    scales: tuple[str, ...]
    text: str
    forms: tuple[str, ...] = ()
    respondents: tuple[str, ...] = ()


class UnitCosts(_Model):
    """What a contact, an hour or a night costs, from the table that the study supplies: by item, in one price year."""

    costs: dict[str, float]
    units: dict[str, str]
    price_year: str
    editions: tuple[str, ...]


class Scale(_Model):
    """One score of the instrument: how it follows from items or from scales defined before it.

    ``times`` and ``plus`` are applied last: score x times + plus.
    """

    id: str
    label: str
    method: Method
    items: tuple[str, ...]
    minimum: float
    maximum: float
    missing: MissingRule = MissingRule()
    scale_to: float | None = None  # prorated_sum: the score of somebody with the highest answer everywhere
    weights: dict[str, float] = {}  # weighted, cost
    counted: tuple[int, ...] = ()  # count: the answers that count
    values: dict[int, float] = {}  # mapping: answer -> score; empty means the answer itself
    item_values: dict[str, dict[int, float]] = {}  # valued_sum: item -> answer -> value
    value_set: str = ""  # value_set: the id of the table
    times: float = 1.0
    plus: float = 0.0
    zero_if: Condition | None = None  # the score is 0 then, whatever else is missing
    reflective: bool = False
    price_year: str = ""  # cost
    largest_change: float | None = None  # between two waves; a larger one is asked about

    @property
    def rule_in_words(self) -> str:
        """The scoring rule for a codebook, missing items included."""
        return f"{_METHOD_WORDS[self.method](self)}{self._transform_in_words}; {self._missing_in_words}"

    @property
    def long_values(self) -> dict[str, dict[int, float]]:
        """What answers are worth, by item, where that takes a table to say; otherwise the rule says it."""
        tables = list(self.item_values.values())
        if self.values and len(self.values) > _MOST_IN_WORDS:
            return {self.items[0]: self.values}
        return self.item_values if any(table != tables[0] for table in tables) else {}

    @property
    def _transform_in_words(self) -> str:
        times = "" if self.times == 1 else f", times {self.times:g}"
        sign = "minus" if self.plus < 0 else "plus"
        return times + ("" if self.plus == 0 else f", {sign} {abs(self.plus):g}")

    @property
    def _missing_in_words(self) -> str:
        rule, words = self.missing, []
        if self.zero_if is not None:
            words.append(f"0 if {self.zero_if.item} is {_either(self.zero_if.equals)}")
        if rule.not_asked_as is not None:
            words.append(f"an item that was not asked counts {rule.not_asked_as:g}")
        if rule.leave_out:
            reasons = _either(reason.replace("_", " ") for reason in rule.leave_out)
            words.append(f"items that are {reasons} are left out")
        if rule.at_most_missing_pct:
            words.append(f"missing if more than {rule.at_most_missing_pct:g} % of the items are missing")
        else:
            words.append("missing if any item is missing")
        return "; ".join(words)


_METHOD_WORDS: Mapping[str, Callable[[Scale], str]] = {
    "sum": lambda _: "sum of the items",
    "prorated_sum": lambda scale: f"sum x {scale.scale_to:g} / the highest possible sum of the items answered",
    "product": lambda _: "product of the items",
    "count": lambda scale: f"number of items answered {_either(scale.counted)}",
    "mapping": lambda scale: (
        "the answer itself"
        if not scale.values
        else "by its table of values"
        if scale.long_values
        else "by table: " + ", ".join(f"{k} gives {v:g}" for k, v in scale.values.items())
    ),
    "weighted": lambda scale: "sum of item x weight: " + ", ".join(f"{k} x {v:g}" for k, v in scale.weights.items()),
    "valued_sum": lambda scale: (
        "sum of what each answer is worth by its table of values"
        if scale.long_values
        else "sum of what each answer is worth: "
        + ", ".join(f"{k} gives {v:g}" for k, v in scale.item_values[scale.items[0]].items())
    ),
    "value_set": lambda scale: f"by the published table {scale.value_set}",
    "cost": lambda scale: (
        f"sum of item x unit cost, at prices of {scale.price_year}: "
        + ", ".join(f"{k} x {v:g}" for k, v in scale.weights.items())
    ),
}


class WorkedExample(_Model):
    """Answers (as text, as they stand in the file) and what each scale must give: a number or a missing reason.
    ``person``: age and sex, where scores depend on them."""

    example: str
    evidence: str
    source: str
    decimals: int
    answers: dict[str, str]
    expected: dict[str, str]
    person: dict[str, str] = {}


class Instrument(_Model):
    """A questionnaire or rating scale: its items in the order of the sheet, and its scales in the order of scoring.

    ``facts``: it asks for counts, amounts or characteristics and measures nothing, so that no answer is a floor or a
    ceiling.
    """

    id: str
    title: str
    sheet_title: str
    version: str
    citation: str
    licence: str
    respondents: tuple[str, ...]
    forms: tuple[str, ...]
    missing_codes: dict[int, str]
    items: tuple[Item, ...]
    scales: tuple[Scale, ...]
    worked_examples: tuple[WorkedExample, ...] = ()
    recall: str = ""
    default_value_set: str = ""
    value_sets: tuple[ValueSet, ...] = ()
    unit_costs: UnitCosts | None = None
    choice_groups: tuple[ChoiceGroup, ...] = ()
    rules: tuple[Rule, ...] = ()
    cautions: tuple[Caution, ...] = ()
    other_versions: tuple[OtherVersion, ...] = ()
    safeguarding: tuple[Trigger, ...] = ()
    has_costs: bool = False
    facts: bool = False

    def __hash__(self) -> int:
        """Instruments with equal fields hash alike; plans of checking and scoring are kept by it."""
        return hash((self.id, self.version, len(self.items), len(self.scales)))

    @cached_property
    def item_ids(self) -> tuple[str, ...]:
        return tuple(item.id for item in self.items)

    @cached_property
    def scale_ids(self) -> tuple[str, ...]:
        return tuple(scale.id for scale in self.scales)

    def find_item(self, item_id: str) -> Item | None:
        return next((item for item in self.items if item.id == item_id), None)

    def find_scale(self, scale_id: str) -> Scale | None:
        return next((scale for scale in self.scales if scale.id == scale_id), None)

    def find_value_set(self, value_set_id: str) -> ValueSet | None:
        return next((value_set for value_set in self.value_sets if value_set.id == value_set_id), None)

    @cached_property
    def covariates(self) -> tuple[str, ...]:
        """What scores need to know of the person besides the answers: age and sex, or nothing."""
        used = [value_set.covariates for value_set in self.value_sets]
        return max(used, key=len, default=())

    def is_default(self, scale: Scale) -> bool:
        """Whether this is the score by the value set to be used where nothing else is asked for."""
        return scale.value_set != "" and scale.value_set == self.default_value_set


def is_instrument_file(name: str) -> bool:
    """Whether a file of an instrument's folder, by its path within it, is one that a definition can have."""
    is_table = name.startswith(f"{VALUE_SETS_FOLDER}/") and name.endswith(".csv")
    return is_table or name in (DEFINITION_FILE, EXAMPLES_FILE, UNIT_COSTS_FILE)


def find_suggestion(word: str, known: Iterable[str]) -> str:
    """' Did you mean "x"?' for the known word nearest to ``word``, or '' when none is near."""
    near = get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f' Did you mean "{near[0]}"?' if near else ""


def _either(words: Iterable[object]) -> str:
    *rest, last = (str(word) for word in words)
    return f"{', '.join(rest)} or {last}" if rest else last


def derive_codebook_rows(instrument: Instrument) -> pd.DataFrame:
    """One row per item for a codebook.

    Columns, all text: instrument, item, label, type, levels ("0 = absent; 1 = present", or "0 to 10" for a number),
    missing_codes ("-9 = not_answered; ..."), asked_if ("" or "npi01_present is 1"), scales (those that use the item,
    directly or through another scale, separated by spaces).
    """
    members: dict[str, set[str]] = {}
    for scale in instrument.scales:
        leaves: set[str] = set(scale.items) | ({scale.zero_if.item} if scale.zero_if else set())
        members[scale.id] = leaves.union(*(members.get(name, set()) for name in scale.items))
    rows = [
        {
            "instrument": instrument.id,
            "item": item.id,
            "label": item.label,
            "type": item.type,
            "levels": "; ".join(f"{code} = {label}" for code, label in item.levels.items())
            or f"{item.lowest:g} to {item.highest:g}",
            "missing_codes": "; ".join(f"{code} = {reason}" for code, reason in item.missing_codes.items()),
            "asked_if": f"{item.asked_if.item} is {_either(item.asked_if.equals)}" if item.asked_if else "",
            "scales": " ".join(scale.id for scale in instrument.scales if item.id in members[scale.id]),
        }
        for item in instrument.items
    ]
    return pd.DataFrame(rows)


def derive_scale_rows(instrument: Instrument) -> pd.DataFrame:
    """One row per scale for a codebook: instrument, scale, label, method, items, rule (in words), minimum, maximum,
    is_default (the value set to be used where nothing else is asked for), reflective, cautions (in words, "" if none).
    """
    value_sets = {value_set.id: value_set for value_set in instrument.value_sets}
    rows = [
        {
            "instrument": instrument.id,
            "scale": scale.id,
            "label": scale.label,
            "method": scale.method,
            "items": " ".join(scale.items),
            "rule": scale.rule_in_words + _covariates_in_words(value_sets.get(scale.value_set)),
            "minimum": scale.minimum,
            "maximum": scale.maximum,
            "is_default": instrument.is_default(scale),
            "reflective": scale.reflective,
            "cautions": " ".join(
                f"{_whom_in_words(caution)}: {caution.text}"
                for caution in instrument.cautions
                if scale.id in caution.scales
            ),
        }
        for scale in instrument.scales
    ]
    return pd.DataFrame(rows)


def _covariates_in_words(value_set: ValueSet | None) -> str:
    if value_set is None or not value_set.covariates:
        return ""
    first, last = min(value_set.age_bands)[0], max(value_set.age_bands)[1]
    return f"; needs the age in years at collection ({first} to {last}) and the sex of the person, else missing"


def _whom_in_words(caution: Caution) -> str:
    """Whose answers a caution is about: "Form easy-read", "Respondent proxy", "All answers"."""
    words = [f"form {form.replace('_', '-')}" for form in caution.forms]
    words += [f"respondent {name}" for name in caution.respondents]
    text = _either(words) if words else "all answers"
    return text[:1].upper() + text[1:]
