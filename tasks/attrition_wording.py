"""How the report on attrition calls things: arms, waves, reasons and characteristics by their labels.

Sentences are macros of `templates/pages/attrition_words.jinja`; each rests on counts alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from html import escape, unescape
from typing import Any

import pandas as pd

from study.attrition import IN_SEVERAL_ARMS, NOT_ALLOCATED, NOT_KNOWN, Gap, settle_arms
from study.attrition_models import Attrition
from study.codebook import derive_codes
from study.instruments import Instrument
from study.protocol import Study
from tasks.attrition_parts import Section, Words
from tasks.drawing import shorten
from tasks.pages import load_words

OUT_OF_ARMS = (NOT_ALLOCATED, IN_SEVERAL_ARMS)
LONGEST = 60
"""Characters of a label in a sentence or a table."""
LONGEST_HEAD = 34
"""Characters of a label that heads a column."""
MOST_NAMED = 4
"""Reasons, characteristics or pairs of arms in one sentence."""


class Material:
    """What a report is made from, and what its parts are called. Arguments as in
    `tasks.attrition_page.write_attrition_report`; `found`: from `derive_report_figures`."""

    def __init__(
        self,
        study: Study,
        instruments: Mapping[str, Instrument],
        rows: pd.DataFrame,
        people: pd.DataFrame,
        found: Attrition,
        flow: Mapping[str, Any],
        as_of: date,
        release: str,
    ) -> None:
        self.study, self.instruments, self.found, self.flow = study, instruments, found, flow
        self.rows, self.people, self.as_of, self.release = settle_arms(rows), people, as_of, release
        codes = derive_codes(study)
        self.labels = {
            **{name: dict(codes[name]) for name in ("wave", "arm", "site", "cohort")},
            "respondent": {"self": "Participant", "proxy": "Proxy", "carer": "Carer", "manager": "Manager"},
            "reason": dict(codes["reason"]),
        }
        self.labels["arm"] |= {NOT_ALLOCATED: "In no arm", IN_SEVERAL_ARMS: "In several arms"}
        self.labels["cohort"] |= {NOT_KNOWN: "Not known"}
        self.arms = {arm.id: self.name("arm", arm.id) for arm in study.arms}
        self._words = load_words("attrition_words.jinja")

    @property
    def wave(self) -> str:
        return self.name("wave", self.found.wave)

    @property
    def respondents(self) -> str:
        """Those whose answers the comparisons look at."""
        names = {"self": "the participants themselves", "proxy": "a proxy", "carer": "a carer", "manager": "a manager"}
        return " or ".join(names[name] for name in self.found.respondents)

    def name(self, what: str, code: Any) -> str:
        return shorten(str(self.labels[what].get(str(code), code)), LONGEST)

    def cell(self, what: str, code: Any) -> str:
        return escape(self.name(what, code))

    def head(self, arm: str) -> str:
        return escape(shorten(self.name("arm", arm), LONGEST_HEAD))

    def name_pair(self, row: Mapping[Any, Any]) -> str:
        return f"{self.cell('arm', row['intervention'])} against {self.cell('arm', row['comparison'])}"

    def name_term(self, term: str) -> str:
        """A characteristic or a term of a model by its labels."""
        kind, colon, code = term.partition(": ")
        if colon and kind in ("arm", "cohort") and code in self.labels[kind]:
            return f"{kind.capitalize()}: {self.name(kind, code)}"
        if colon and kind not in ("arm", "cohort"):
            return f"{self.name_term(kind)}: {shorten(code, LONGEST)}"
        instrument, dot, rest = term.partition(".")
        if dot and instrument in self.instruments:
            scale_id, _, whose = rest.partition(" (")
            scale = self.instruments[instrument].find_scale(scale_id)
            label = shorten(scale.label if scale is not None else scale_id, LONGEST)
            return f"{label} ({whose}" if whose else label
        if term == "(constant)":
            return "Constant"
        return {"age": "Age", "sex": "Sex", "cohort": "Cohort"}.get(term, term)

    def name_characteristic(self, row: Mapping[Any, Any]) -> str:
        """A row of a table of differences: its characteristic, and the level of it that is compared."""
        term, level = str(row["characteristic"]), str(row["level"])
        if level and term == "cohort":
            level = self.name("cohort", level)
        return f"{self.name_term(term)}{f': {shorten(level, LONGEST)}' if level else ''}"

    # Sentences ----------------------------------------------------------------------------------------------------

    def say(self, macro: str, *facts: Any, kind: str = "p", **named: Any) -> Words:
        """The paragraphs of a macro of the template."""
        plain = {name: _unescape(value) for name, value in named.items()}
        text = str(getattr(self._words, macro)(*map(_unescape, facts), **plain))  # the template escapes, once
        return Words(
            [re.sub(r"[ \n]+", " ", part).strip() for part in re.split(r"\n\s*\n", text) if part.strip()], kind
        )

    def add_gap(self, section: Section, gap: Gap, title: str) -> None:
        """A named gap in the place of a figure; it stands in the list at the end too."""
        words = self.word_gap(gap.words)
        section.gaps.append((title, words))
        section.add(Words([f"<b>Not given.</b> {escape(words)}"]))

    def word_gap(self, words: str) -> str:
        """Codes of the study and names of characteristics in a gap by their labels."""
        for wave in self.study.waves:
            words = words.replace(f"window of {wave.id} is", f"window of {self.name('wave', wave.id)} is")
        return re.sub(r"[\w]+\.[\w]+( \(\w+\))?|\b(arm|cohort): \w+", lambda found: self.name_term(found[0]), words)

    def name_place(self, place: str) -> str:
        """What a gap is of, as a list names it."""
        kind, _, code = place.partition(" ")
        return self.name(kind, code) if kind in ("arm", "wave") and code else place[:1].upper() + place[1:]


def reorder_by_size(table: pd.DataFrame) -> pd.DataFrame:
    """Differences, the largest first, whatever their sign."""
    return table.reindex(table["difference"].abs().sort_values(ascending=False, kind="stable").index)


def say_too_many(arms: Sequence[str] | Mapping[str, str]) -> Words:
    return Words([f"No plot: {len(arms)} arms are more than one can show apart."])


def _unescape(value: Any) -> Any:
    """Words, and those in lists and mappings, as they were before they became HTML."""
    if isinstance(value, str):
        return unescape(value)
    if isinstance(value, Mapping):
        return {name: _unescape(part) for name, part in value.items()}
    return [_unescape(part) for part in value] if isinstance(value, list) else value
