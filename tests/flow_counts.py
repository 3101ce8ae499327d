"""Boxes of a flow counted again from the files of a release alone, without the code that counted them first."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

STEPS = ("assessed", "approached", "agreed", "consented", "entered")
REASON_OF = {"standing": "left_reason", "treatment": "treatment_reason", "follow_up": "follow_up_reason"}
REASON_OF |= {"not_analysed": "not_analysed", "not_received": "treatment_reason"}
LOST = ("lost", "died", "missed", "not_answered", "no_anchor")
OUT = ("not_eligible", "declined", "lost", "died", "excluded")


def read_release(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The dispositions and the boxes of a release's folder, as text."""
    people = pd.read_csv(folder / "data" / "dispositions.csv", dtype="str", keep_default_na=False)
    return people, pd.read_csv(folder / "flow.csv", dtype={"n": "int64", "n_sites": "int64"}, keep_default_na=False)


def find_held(people: pd.DataFrame, name: str, rest: str, reason: str) -> pd.Series[bool]:
    is_in = people["reached"] == "entered"
    code, _, told = rest.partition(".")
    if name in STEPS and not rest:
        return people["reached"].isin(STEPS[STEPS.index(name) :])
    if name in STEPS:
        held = (people["reached"] == name) & (people["entry"].isin(OUT) if code == "out" else people["entry"] == code)
        return held & (people["entry_reason"] == blank(told)) if told else held
    if name == "wave":
        return is_in & (people[f"outcome_{reason}"] == rest.removeprefix(f"{reason}."))
    plain = {
        "allocated": is_in,
        "lost": is_in & people["follow_up"].isin(LOST),
        "analysed": is_in & (people["analysed"] == "1"),
        "received": is_in & (people["received"] == "1"),
        "not_received": is_in & (people["received"] != "1"),
        "not_analysed": is_in & (people["follow_up"] == "followed_up") & (people["analysed"] != "1"),
    }
    if name in plain:
        return plain[name] & (people[REASON_OF[name]] == blank(code)) if code else plain[name]
    held = is_in & (people[name] == code)
    return held & (people[REASON_OF[name]] == blank(told)) if told else held


def blank(reason: str) -> str:
    return "" if reason == "not_recorded" else reason


def find_differences(people: pd.DataFrame, boxes: pd.DataFrame) -> list[str]:
    """Boxes whose numbers, of people or of their sites, the table of dispositions does not give."""
    differences = []
    for (box, reason), rows in boxes.groupby(["box", "reason"], sort=False):
        name, _, rest = str(box).partition(".")
        held = people[find_held(people, name, rest, str(reason))]
        for group, n, n_sites in rows[["group", "n", "n_sites"]].itertuples(index=False, name=None):
            own = held if group == "all" else held[held["arm"] == group]
            if (len(own), own["site"].nunique()) != (n, n_sites):
                differences.append(f"{box}, {group}: {n} at {n_sites}")
    return differences
