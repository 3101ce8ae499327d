"""Files that were held because something in them may tell who a person is, and what was decided about each.

A person decides, in a named role: the file is received after all (and its places are no reason to hold the same file
again), or it is erased. What was found is nowhere in the ledger; where it was found, and of what kind, is.
"""

from __future__ import annotations

import pandas as pd

from study.events import FileHeld, HeldFileDecided
from study.identifier_scan import IDENTIFIER_KINDS, KIND_WORDS, SPOT_WORDS
from study.state import Events

COLUMNS = (
    *(
        "held_id",
        "site_id",
        "held_on",
        "sha256",
        "size_bytes",
        "kept",
        "return_id",
        "identifiers",
        "places",
        "n_places",
    ),
    *("query_id", "state", "decided_on", "reason", "role", "reference", "reviewer"),
)


def derive_held_files(events: Events) -> pd.DataFrame:
    """Every file that was ever held, oldest first: COLUMNS. `state`: "waiting", "released" or "erased"; `identifiers`
    and `places` are joined with ";"; decided_on (NaT), reason, role, reference and reviewer ("") of the decision."""
    held = events.frame(FileHeld).rename(columns={"occurred_on": "held_on"})
    decided = events.frame(HeldFileDecided)
    decided = decided.rename(columns={"occurred_on": "decided_on", "requested_by": "reviewer", "decision": "state"})
    wanted = ["held_id", "state", "decided_on", "reason", "role", "reference", "reviewer"]
    found = held.merge(decided[wanted], on="held_id", how="left")
    texts = ["state", "reason", "role", "reference", "reviewer"]
    found[texts] = found[texts].astype("object").fillna("")
    found["state"] = found["state"].replace("", "waiting")
    return found.sort_values(["held_on", "held_id"], ignore_index=True)[list(COLUMNS)]


def derive_held_id(site_id: str, n_already: int) -> str:
    """The next number of a held file of a site: `luton-F0001`. Count under the ledger's write lock."""
    return f"{site_id}-F{n_already + 1:04d}"


def describe_finding(code: str) -> tuple[str, str, str]:
    """(sheet, cell, what was found) of a place as the ledger keeps it: "sheet_4 B7 comment name"."""
    *where, spot, kind = code.split(" ")
    cell = where.pop() if where and where[-1][-1:].isdigit() and where[-1][:1].isupper() else ""
    found = [words for name, words in KIND_WORDS.items() if name == kind]
    found += [words for name, words in SPOT_WORDS.items() if name == spot and words]
    return " ".join(where).replace("_", " ") or "the file", cell, ", ".join(found)


def describe_kinds(codes: str) -> str:
    """ "a name, a postcode" of kinds joined with ";"."""
    return ", ".join(KIND_WORDS[kind] for kind in IDENTIFIER_KINDS if kind in codes.split(";"))
