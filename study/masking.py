"""Masked arms: a study and its tables with letters in the place of arms, for those who must not know which is which.

Who has only a masked edition cannot tell the arms apart: their codes, labels, order and roles are those of the letters,
and what a protocol says of an arm by name, as an assumption or a source, is left out. Where a site has people in one
arm only, a letter follows from the site to whoever knows the sites; `find_telling_sites` says of how many that is so.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Final

import pandas as pd

from study.protocol import PowerValue, Study

NAMES_AN_ARM = "Not told here: its words name an arm."
"""In the place of the source of a figure that the sample size rests on."""

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
    return study.model_copy(update={"arms": tuple(arms), "assumptions": assumptions, "sites": sites, "power": power})


def mask_arms(frame: pd.DataFrame, letters: Mapping[str, str], column: str = "arm") -> pd.DataFrame:
    """The frame with letters for the arms in a column; what is no arm ("not_allocated", missing) stays."""
    if column not in frame.columns:
        return frame
    return frame.assign(**{column: frame[column].replace(dict(letters))})


def find_telling_sites(participants: pd.DataFrame) -> int:
    """At how many sites everybody who was allocated is in one arm (`participants`: site, arm)."""
    arms = participants.dropna(subset=["arm"]).groupby("site")["arm"].nunique()
    return int((arms == 1).sum())
