"""What is different between two frozen datasets, cell by cell, and which event of the ledger made it so.

Both datasets are folds of one ledger, so what differs follows from the events that stand in the one view and not in the
other: recorded between the two, voided between them, or of a day that the one does not reach. A cell that differs
although its record is the same came of another definition, of another record of the same person (an age, say), or of
another version of the program; what none of these explains is called so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np
import pandas as pd

from study.datasets import RECORD_KEY, Table
from study.erasure import derive_erased, is_erased
from study.events import (
    AnswerCorrected,
    ConfigurationAdopted,
    ConsentRecorded,
    DispositionRecorded,
    ErasureDecided,
    Event,
    ParticipantAllocated,
    ParticipantScreened,
    ReturnAccepted,
    ReturnQuarantined,
    Voided,
)
from study.protocol import Study
from study.state import Events, derive_returns

CAUSES: Final = {
    "later_return": "A return came in later",
    "corrected_return": "A site corrected its return",
    "correction": "The study corrected an answer",
    "admitted": "A record that was held was admitted by decision",
    "void": "An entry was voided",
    "erasure": "What the person gave was erased",
    "withdrawal": "The person withdrew",
    "consent": "A consent was told, or told anew",
    "log_entry": "An entry of a site's log: screening, allocation, leaving",
    "other_day": "It happened between the days of the two datasets",
    "not_known_yet": "It was recorded after the second dataset's moment",
    "definition": "A definition or the study's configuration changed",
    "program": "Another version of the program wrote it",
    "unexplained": "Nothing in the ledger explains it",
}
"""Why something differs."""

CHANGES: Final = {"added": "rows added", "changed": "cells changed", "gone": "rows gone"}
COLUMNS: Final = [
    *("table", "change", "participant_id", "wave", "respondent", "instrument", "item", "column", "old", "new"),
    *("cause", "ledger_rows"),
]
_WHO: Final = ["participant_id", "wave", "respondent", "instrument"]
_COLUMN_KINDS: Final[dict[str, type[Event]]] = {
    "site": ParticipantScreened,
    "cohort": ParticipantScreened,
    "screened_on": ParticipantScreened,
    "consented_on": ConsentRecorded,
    "consent_basis": ConsentRecorded,
    "arm": ParticipantAllocated,
    "allocated_on": ParticipantAllocated,
    "disposition": DispositionRecorded,
    "disposition_on": DispositionRecorded,
    "disposition_scope": DispositionRecorded,
}
_PERSON_KINDS: Final = (ParticipantScreened, ConsentRecorded, ParticipantAllocated, DispositionRecorded)


@dataclass(frozen=True)
class Side:
    """One of the two datasets: `events` up to the row `seq` under which it was frozen, the definitions
    (part and name to hash) and the version of the program that wrote it."""

    study: Study
    events: Events
    as_of: date
    seq: int
    definitions: Mapping[tuple[str, str], str]
    code: Mapping[str, str]
    tables: Mapping[str, pd.DataFrame]
    layouts: Mapping[str, Table]

    @property
    def happened(self) -> Events:
        return self.events.select(as_of=self.as_of)


# Cells --------------------------------------------------------------------------------------------------------------


def compare_table(layout: Table, before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Rows added and gone (column, old and new are ''), and cells changed: COLUMNS without cause and ledger_rows.

    Values as text: numbers in the fewest digits, days as 2013-01-31, '' for none. A column that one of the two lacks is
    compared as empty.
    """
    key = list(layout.key)
    if before.equals(after):
        return pd.DataFrame(columns=COLUMNS[:-2], dtype="str")
    columns = [*key, *(name for name in dict.fromkeys([*before.columns, *after.columns]) if name not in key)]
    old, new = (_as_text(frame.reindex(columns=columns)) for frame in (before, after))
    # Rows that are the same on both sides are most of them, and are put aside first.
    hashes = [pd.util.hash_pandas_object(frame, index=False).to_numpy() for frame in (old, new)]
    old, new = old[~np.isin(hashes[0], hashes[1])], new[~np.isin(hashes[1], hashes[0])]
    both = old.merge(new, how="outer", on=key, suffixes=("\x00old", "\x00new"), indicator=True)
    parts = [
        both.loc[both["_merge"] == side, key].assign(change=change, column="", old="", new="")
        for side, change in (("left_only", "gone"), ("right_only", "added"))
    ]
    shared = both[both["_merge"] == "both"]
    names = columns[len(key) :]
    was, now = (shared[[f"{name}\x00{side}" for name in names]].to_numpy(dtype=object) for side in ("old", "new"))
    rows, places = np.nonzero(was != now)
    changed = shared[key].iloc[rows].assign(change="changed", column=np.array(names, dtype=object)[places])
    parts.append(changed.assign(old=was[rows, places], new=now[rows, places]))
    found = pd.concat(parts, ignore_index=True).assign(table=layout.name)
    leaf = next((name for name in ("item", "scale") if name in key), "")
    found["item"] = found[leaf] if leaf else ""
    return found.reindex(columns=COLUMNS[:-2], fill_value="").astype("str")


def _as_text(frame: pd.DataFrame) -> pd.DataFrame:
    def write(column: pd.Series[Any]) -> pd.Series[Any]:
        if column.dtype.kind == "M":
            days: pd.Series[Any] = column.dt.strftime("%Y-%m-%d").fillna("")
            return days
        if column.dtype.kind == "f":
            values, places = np.unique(column.to_numpy(), return_inverse=True)
            texts = ["" if np.isnan(value) else repr(float(value)).removesuffix(".0") for value in values]
            return pd.Series(texts, dtype="str").take(places).set_axis(column.index)
        texts_only: pd.Series[Any] = column.astype("object").where(column.notna(), "").astype("str")
        return texts_only

    return pd.DataFrame({name: write(frame[name]) for name in frame.columns}, index=frame.index)


# Causes -------------------------------------------------------------------------------------------------------------


def compare_datasets(before: Side, after: Side, everything: Events) -> pd.DataFrame:
    """All that differs (COLUMNS), each row and cell with its cause (of CAUSES) and the ledger's rows that it rests on,
    joined with ";". `everything`: the ledger, without a view."""
    layouts = {**before.layouts, **after.layouts}
    empty = pd.DataFrame()
    tables = {
        name: compare_table(layouts[name], before.tables.get(name, empty), after.tables.get(name, empty))
        for name in layouts
        if name in before.tables or name in after.tables
    }
    records = _find_record_causes(before, after, everything)
    people = _find_person_causes(before, after, everything)
    general = _find_general_cause(before, after, everything)
    found = []
    for name, changes in tables.items():
        has_record = set(RECORD_KEY) <= set(layouts[name].key)
        by = _WHO if has_record else ["participant_id", "wave"] if "wave" in layouts[name].key else ["participant_id"]
        if name == "participants":
            causes = _join_person_causes(changes, people)
        else:
            causes = _look_up(changes, [records], by)
        # What its own record does not explain may follow from another of the same person.
        for fallback in ([records], [people]):
            causes = causes.mask(causes["cause"] == "", _look_up(changes, fallback, ["participant_id"]))
        is_left = causes["cause"] == ""
        causes.loc[is_left, ["cause", "ledger_rows"]] = _explain_in_general(changes[is_left], general)
        found.append(changes.assign(cause=causes["cause"], ledger_rows=causes["ledger_rows"]))
    every = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=COLUMNS)
    return every[COLUMNS]


def _find_differing(kind: type[Event], before: Side, after: Side, everything: Events) -> pd.DataFrame:
    """Events of a kind that stand in one view and not in the other, with `is_new` (stands in the second), cause and
    ledger_rows."""
    old, new = before.happened.frame(kind), after.happened.frame(kind)
    frames = [
        new[~new["hash"].isin(old["hash"])].assign(is_new=True),
        old[~old["hash"].isin(new["hash"])].assign(is_new=False),
    ]
    found = pd.concat(frames, ignore_index=True)
    voids = everything.frame(Voided)
    void = found["hash"].map(dict(zip(voids["voids"], voids["seq"].astype("str"), strict=True))).astype("object")
    other = np.where(found["is_new"], before.seq, after.seq)
    was_recorded = found["seq"] <= other
    is_of_other_day = found["occurred_on"] > pd.Timestamp(min(before.as_of, after.as_of))
    conditions = [~found["is_new"] & void.notna(), was_recorded & is_of_other_day, ~found["is_new"] & ~was_recorded]
    found["cause"] = np.select(conditions, ["void", "other_day", "not_known_yet"], default="")
    found["ledger_rows"] = found["seq"].astype("str").astype("object").mask(conditions[0], void)
    return found


def _find_record_causes(before: Side, after: Side, everything: Events) -> pd.DataFrame:
    """Why records differ: _WHO, cause and ledger_rows; one row per record."""
    accepted = _find_differing(ReturnAccepted, before, after, everything)
    quarantined = everything.frame(ReturnQuarantined)[_WHO].drop_duplicates().assign(was_held=True)
    corrected = everything.frame(AnswerCorrected)[[*_WHO, "version", "seq"]]
    corrected["corrected_by"] = corrected.pop("seq").astype("str").astype("object")
    corrected = corrected.drop_duplicates([*_WHO, "version"], keep="last")
    accepted = accepted.merge(quarantined, how="left", on=_WHO).merge(corrected, how="left", on=[*_WHO, "version"])
    is_plain = (accepted["cause"] == "") & accepted["is_new"]
    conditions = [
        is_plain & accepted["corrected_by"].notna(),
        is_plain & (accepted["was_held"] == True),  # noqa: E712 - missing where it was not held
        is_plain & (accepted["version"] > 1),
        is_plain,
    ]
    names = ["correction", "admitted", "corrected_return", "later_return"]
    accepted["cause"] = np.select(conditions, names, default=accepted["cause"])
    with_telling = accepted["ledger_rows"] + ";" + accepted["corrected_by"].fillna("")
    accepted["ledger_rows"] = accepted["ledger_rows"].mask(conditions[0], with_telling)
    # An unvoided older version counts again: the void is the cause, and comes first; so does what was told last.
    accepted["rank"] = np.where(accepted["cause"] == "void", accepted["seq"] + 10**9, accepted["seq"])
    causes = accepted.sort_values("rank").drop_duplicates(_WHO, keep="last")
    parts = [_find_erased(before, after, everything), causes[[*_WHO, "cause", "ledger_rows"]]]
    every = pd.concat(parts, ignore_index=True).drop_duplicates(_WHO)
    return every[[*_WHO, "cause", "ledger_rows"]]


def _find_erased(before: Side, after: Side, everything: Events) -> pd.DataFrame:
    """Records of people whose answers were decided to be erased between the two."""
    decided = everything.frame(ErasureDecided)
    decided = decided[decided["seq"] > min(before.seq, after.seq)].drop_duplicates("participant_id", keep="last")
    erased = derive_erased(everything)
    erased = erased[erased["participant_id"].isin(decided["participant_id"])]
    returns = pd.concat([derive_returns(side.happened)[[*_WHO, "occurred_on"]] for side in (before, after)])
    own = returns[is_erased(returns, erased)].drop_duplicates(_WHO)
    own = own.merge(decided[["participant_id", "seq"]], on="participant_id")
    return own.assign(cause="erasure", ledger_rows=own["seq"].astype("str"))


def _find_person_causes(before: Side, after: Side, everything: Events) -> pd.DataFrame:
    """Why what is told of a person differs: participant_id, kind, cause and ledger_rows (joined)."""
    losses = {reason.id for reason in after.study.disposition_reasons if reason.kind == "loss"}
    parts = []
    for kind in _PERSON_KINDS:
        events = _find_differing(kind, before, after, everything)
        own = "consent" if kind is ConsentRecorded else "log_entry"
        causes = pd.Series(own, events.index, dtype="str")
        if kind is DispositionRecorded:
            causes = causes.mask(events["reason"].isin(losses), "withdrawal")
        events["cause"] = events["cause"].where(events["cause"] != "", causes)
        events = events.sort_values("is_new", ascending=False, kind="stable")
        grouped = events.groupby("participant_id", sort=False)
        rows = grouped["ledger_rows"].agg(lambda texts: ";".join(dict.fromkeys(texts)))
        # A void says more than the entry that came in the place of what it voided.
        ranked = events.assign(rank=events["cause"] != "void").sort_values("rank", kind="stable")
        first = ranked.drop_duplicates("participant_id").set_index("participant_id")
        part = pd.DataFrame({"ledger_rows": rows, "cause": first["cause"]}).rename_axis("participant_id").reset_index()
        parts.append(part.assign(kind=kind.kind))
    columns = ["participant_id", "kind", "cause", "ledger_rows"]
    return pd.concat(parts, ignore_index=True)[columns].astype("str")


def _join_person_causes(changes: pd.DataFrame, people: pd.DataFrame) -> pd.DataFrame:
    """For each cell of the participants table the cause by the kind of event that its column comes from."""
    kinds = {column: kind.kind for column, kind in _COLUMN_KINDS.items()}
    wanted = changes[["participant_id"]].assign(kind=changes["column"].map(kinds).fillna("").astype("str"))
    joined = wanted.merge(people, how="left", on=["participant_id", "kind"])[["cause", "ledger_rows"]]
    return joined.fillna("").astype("str").set_axis(changes.index)


def _look_up(changes: pd.DataFrame, causes: Sequence[pd.DataFrame], by: list[str]) -> pd.DataFrame:
    """The first cause of each change by these columns; '' where there is none."""
    known = pd.concat(causes).drop_duplicates(by)
    joined = changes[by].merge(known[[*by, "cause", "ledger_rows"]], how="left", on=by)
    return joined[["cause", "ledger_rows"]].fillna("").astype("str").set_axis(changes.index)


def _find_general_cause(before: Side, after: Side, everything: Events) -> dict[str, tuple[str, str]]:
    """What explains what no event of a person does: by instrument ("" for any) cause and ledger_rows."""
    parts = {part for part in {*before.definitions, *after.definitions}
             if before.definitions.get(part) != after.definitions.get(part)}  # fmt: skip
    found: dict[str, tuple[str, str]] = {}
    if parts:
        adopted = everything.frame(ConfigurationAdopted)
        told = adopted["sha256"].isin([*before.definitions.values(), *after.definitions.values()])
        between = adopted[told & (adopted["seq"] > min(before.seq, after.seq))]
        between = between if len(between) else adopted[told]

        def list_rows(of: set[tuple[str, str]]) -> str:
            places = zip(between["part"], between["name"], between["seq"], strict=True)
            return ";".join(str(seq) for part, name, seq in places if (part, name) in of)

        for part, name in parts:
            if part == "instrument":
                found[name] = ("definition", list_rows({(part, name)}))
        if others := {part for part in parts if part[0] != "instrument"}:
            found[""] = ("definition", list_rows(others))
    if "" not in found and dict(before.code) != dict(after.code):
        found[""] = ("program", "")
    found.setdefault("", ("other_day", "") if before.as_of != after.as_of else ("unexplained", ""))
    return found


def _explain_in_general(changes: pd.DataFrame, general: Mapping[str, tuple[str, str]]) -> np.ndarray[Any, Any]:
    """Cause and ledger_rows of changes that no event of a person explains."""
    rows = [general.get(instrument, general[""]) for instrument in changes["instrument"]]
    return np.array(rows, dtype=object).reshape(len(rows), 2)


def count_changes(changes: pd.DataFrame) -> pd.DataFrame:
    """How many by table and cause, in the order of the tables and of CAUSES: table, cause, added, changed, gone."""
    counts = changes.groupby(["table", "cause", "change"], sort=False).size().unstack(fill_value=0)
    counts = counts.reindex(columns=list(CHANGES), fill_value=0).reset_index()
    tables = {name: place for place, name in enumerate(dict.fromkeys(changes["table"]))}
    order = {name: place for place, name in enumerate(CAUSES)}
    ranks = pd.DataFrame({"table": counts["table"].map(tables), "cause": counts["cause"].map(order)})
    return counts.loc[ranks.sort_values(["table", "cause"]).index].reset_index(drop=True).rename_axis(columns=None)
