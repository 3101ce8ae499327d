"""New identifiers of participants: what they look like, which block a site gets next, and whether one is sound.

An identifier ends in a check digit of its number by Damm's scheme, so that one wrong digit, or two neighbours that
changed places, are found; what was meant is never guessed. A site is given its numbers in blocks, from 1 on, and no
number twice: the next block follows on the highest number ever issued there, whatever became of it. Identifiers that a
site used without having been issued any (before blocks began, or from an imported list) are sound all the same.

Source of the scheme: Damm, Total anti-symmetrische Quasigruppen, 2004.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
from stdnum import damm

if TYPE_CHECKING:
    from study.fieldwork import IdentifierRule
    from study.protocol import Site, Study


class Block(NamedTuple):
    """So many numbers (`n`) from `first` on."""

    first: int
    n: int


def compute_identifier(rule: IdentifierRule, code: str, number: int) -> str:
    """The identifier of a number at the site with this code. Raises ValueError for one with more digits than the rule
    has, or below 1."""
    if not 1 <= number < 10**rule.digits:
        raise ValueError(f"{number} is no number of {rule.digits} digits from 1 on.")
    digits = f"{number:0{rule.digits}d}"
    return rule.form.format_map({"code": code, "number": digits, "check": damm.calc_check_digit(digits)})


def derive_block(study: Study, site: Site, issued: pd.DataFrame) -> Block:
    """The block that a site gets next; `issued`: rows of IdentifiersIssued (site_id, first, n). Leave out none whose
    numbers may be at the site: no number goes out twice.

    The last block is cut short where the digits end. Raises ValueError where they are used up, or where the study makes
    no identifiers.
    """
    rule = study.fieldwork.identifier_rule
    if rule is None:
        raise ValueError(f"{study.study_id} has no [[identifiers]] in fieldwork.toml: it issues none.")
    own = issued[issued["site_id"] == site.site_id]
    first = int((own["first"] + own["n"]).max()) if len(own) else 1
    n = min(rule.block, 10**rule.digits - first)
    if n < 1:
        raise ValueError(
            f"{site.site_id} has used all numbers of {rule.digits} digits. Raise [[identifiers]] digits in "
            "fieldwork.toml, and participant_id_pattern with it."
        )
    return Block(first, n)


def list_block(rule: IdentifierRule, code: str, block: Block) -> list[str]:
    """The identifiers of a block, in order."""
    return [compute_identifier(rule, code, number) for number in range(block.first, block.first + block.n)]


def has_sound_check(study: Study, participant_id: str) -> bool:
    """Whether the check digit of an identifier fits its number; so is every one where the study makes none.

    Asked of what looks like an identifier of the study. One that is not of the form that the study makes is not sound.
    """
    rule = study.fieldwork.identifier_rule
    return rule is None or parse_sound_number(rule, participant_id) is not None


def parse_sound_number(rule: IdentifierRule, participant_id: str) -> int | None:
    """The number that an identifier was made of; None where its check digit, or its form, is another."""
    found = _compile(rule.form, rule.digits).fullmatch(participant_id)
    return int(found["number"]) if found and damm.is_valid(found["number"] + found["check"]) else None


def is_issued(rule: IdentifierRule, participant_id: str, blocks: Mapping[int, int]) -> bool:
    """Whether an identifier of a site is of one of the blocks that it was issued (`blocks`: first to n)."""
    number = parse_sound_number(rule, participant_id)
    return number is not None and any(first <= number < first + n for first, n in blocks.items())


@lru_cache(maxsize=16)
def _compile(form: str, digits: int) -> re.Pattern[str]:
    parts = {"code": r"(?P<code>\w+?)", "number": rf"(?P<number>[0-9]{{{digits}}})", "check": "(?P<check>[0-9])"}
    text = re.escape(form)
    for name, pattern in parts.items():
        text = text.replace(re.escape(f"{{{name}}}"), pattern)
    return re.compile(text)
