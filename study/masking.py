"""Masked arms: a study and its tables with letters in the place of arms, for those who must not know which is which.

Who has only a masked edition cannot tell the arms apart: their codes, labels, order and roles are those of the letters,
and what a protocol says of an arm by name, as an assumption or a source, is left out. In labels ARM_MARK stands for
the name of an arm; a code that holds one cannot be masked, and `find_telling_codes` names it. The study keeps its own
title, by which everybody knows it: that tells which arms there are, and not whose letter is whose. Where a site
has people in one arm only, a letter follows from the site to whoever knows the sites; `find_telling_sites` says of how
many that is so.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pandas as pd

from study.definition_fields import DefinitionModel
from study.protocol import PowerValue, Study

NAMES_AN_ARM = "Not told here: its words name an arm."
"""In the place of the source of a figure that the sample size rests on."""
ARM_MARK = "[arm]"
"""In the place of the name of an arm in a label."""

_LABELS = ("title", "label", "name")
"""Fields of a protocol that pages and files show as words."""
_ROLES = ("intervention", "comparison")
"""Codes of arms that are words of every protocol, and no names."""
_SHORTEST = 4  # letters of a name that is looked for whatever its capitals and its ending

UNMASKING_REASONS: Final = {
    "committee_asked": "the monitoring committee asked for it",
    "safety": "somebody's safety asks for it",
    "regulator_asked": "a regulator asked for it",
    "analysis_done": "the analysis by letters is done",
}
"""Why the letters may be opened."""


def assign_letters(arm_ids_in_drawn_order: Sequence[str]) -> dict[str, str]:
    """Each arm's letter: A for the first drawn, AA after Z."""
    letters = [first + second for first in ("", *string.ascii_uppercase) for second in string.ascii_uppercase]
    if len(arm_ids_in_drawn_order) > len(letters):
        raise ValueError(f"{len(arm_ids_in_drawn_order)} arms are more than there are letters for ({len(letters)}).")
    return dict(zip(arm_ids_in_drawn_order, letters, strict=False))


def mask_study(study: Study, letters: Mapping[str, str]) -> Study:
    """The study with "Arm A", "Arm B" ... for its arms. The role of A is "comparison" and that of all others
    "intervention", whatever they are; every site may have every arm."""
    drawn = sorted(study.arms, key=lambda arm: (len(letters[arm.id]), letters[arm.id]))
    arms = [
        arm.model_copy(
            update={
                "id": letters[arm.id],
                "label": f"Arm {letters[arm.id]}",
                "role": "intervention" if place else "comparison",
            }
        )
        for place, arm in enumerate(drawn)
    ]
    words = [word.casefold() for arm in study.arms for word in (arm.label, arm.id, arm.id.replace("_", " "))]
    assumptions = tuple(
        entry for entry in study.assumptions if not any(word in entry.text.casefold() for word in words)
    )
    sites = tuple(site.model_copy(update={"role": "both"}) for site in study.sites)
    power = tuple(
        basis.model_copy(
            update={
                name: value.model_copy(update={"source": NAMES_AN_ARM})
                for name, value in dict(basis).items()
                if isinstance(value, PowerValue) and any(word in value.source.casefold() for word in words)
            }
        )
        for basis in study.power
    )
    told = study.model_copy(update={"assumptions": assumptions, "sites": sites, "power": power})
    masked: Study = _mask_labels(told, _find_names(study))
    return masked.model_copy(update={"arms": tuple(arms), "title": study.title})


def find_telling_codes(study: Study) -> list[str]:
    """The codes of a study that hold the name of an arm, as "cohorts: on_placebo": tables and files have them as they
    are, so no edition of it can be blinded."""
    names = _find_names(study)
    codes = {
        "sites": [site.site_id for site in study.sites],
        "cohorts": [cohort.id for cohort in study.cohorts],
        "waves": [wave.id for wave in study.waves],
        "disposition_reasons": [reason.id for reason in study.disposition_reasons],
        "power": [basis.id for basis in study.power],
    }
    return [f"{section}: {code}" for section, own in codes.items() for code in own if names.search(code)]


def _find_names(study: Study) -> re.Pattern[str]:
    """The names of the arms, the longest first: labels, and codes that are no roles; "High Dose" also as "high-dose"
    and in "high doses", but "UC" only so."""
    names = {arm.label for arm in study.arms}
    names |= {arm.id for arm in study.arms if arm.id not in _ROLES and len(arm.id) >= _SHORTEST}
    told = [_match_name(name) for name in sorted(names, key=lambda name: (-len(name), name))]
    return re.compile("|".join(told) or r"(?!)")


def _match_name(name: str) -> str:
    parts = r"[\s_-]+".join(re.escape(part) for part in re.split(r"[\s_-]+", name.strip()))
    start = r"(?<![0-9A-Za-z])" if name[:1].isascii() else ""
    return rf"{start}(?i:{parts})[^\W_]*" if len(name) >= _SHORTEST else rf"{start}{parts}(?![0-9A-Za-z])"


def _mask_labels(part: Any, names: re.Pattern[str]) -> Any:
    """A part of a protocol with ARM_MARK for names of arms in its labels, however deep they lie."""
    if isinstance(part, tuple):
        return tuple(_mask_labels(one, names) for one in part)
    if not isinstance(part, DefinitionModel):
        return part
    told = {
        field: names.sub(ARM_MARK, value) if field in _LABELS and isinstance(value, str) else _mask_labels(value, names)
        for field, value in dict(part).items()
    }
    return part.model_copy(update=told)


def mask_arms(frame: pd.DataFrame, letters: Mapping[str, str], column: str = "arm") -> pd.DataFrame:
    """The frame with letters for the arms in a column; what is no arm ("not_allocated", missing) stays."""
    if column not in frame.columns:
        return frame
    return frame.assign(**{column: frame[column].replace(dict(letters))})


def find_telling_sites(participants: pd.DataFrame) -> int:
    """At how many sites everybody who was allocated is in one arm (`participants`: site, arm)."""
    arms = participants.dropna(subset=["arm"]).groupby("site")["arm"].nunique()
    return int((arms == 1).sum())
