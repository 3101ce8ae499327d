"""Erasing what a person gave: which records a decision concerns, and what became of the files that held them.

The ledger keeps its rows: they are states of a pseudonymous identifier and hold no answer. What goes is the answers, in
files. A decision counts from the moment it is recorded, for every view of the ledger: a dataset as of an earlier day
that is made today holds none of it either, because what was erased cannot be read as it was known then.

Judgement calls: the limit that was agreed counts, for each record, from the day on which it was collected to the day on
which the person withdrew (the day of asking, if no withdrawal of data is on record). What was given earlier is erased
only if the decision says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

import pandas as pd

from study.calendar import Period, add_period
from study.events import DataErased, ErasureDecided, ReturnAccepted, ReturnQuarantined
from study.participation import DATA, derive_stops
from study.protocol import Study
from study.state import Events, derive_participants

_DAY: Final = "datetime64[us]"
_LONG_AGO = date(1900, 1, 1)


@dataclass(frozen=True)
class Extent:
    """What a decision to erase concerns: of a participant of a site, all that was collected from `given_from` on (None:
    all of it). `withdrawn_on`: from when the limit counts. `n_records`, and `n_kept`, given too long ago."""

    participant_id: str
    site_id: str
    withdrawn_on: date
    given_from: date | None
    n_records: int
    n_kept: int


def derive_given(events: Events) -> pd.DataFrame:
    """Every record that was ever taken in, voided and superseded ones too: participant_id, site_id, occurred_on,
    responses_sha256 and source_sha256. What was voided counts no more, but its answers are still in a file."""
    columns = ["participant_id", "site_id", "occurred_on", "responses_sha256", "source_sha256"]
    tables = [events.tables[kind.kind] for kind in (ReturnAccepted, ReturnQuarantined) if kind.kind in events.tables]
    parts = [table.select(columns).to_pandas() for table in tables]
    empty = events.frame(ReturnAccepted)[columns].iloc[:0]
    return pd.concat([empty, *parts], ignore_index=True).astype({"occurred_on": _DAY})


def find_extent(study: Study, events: Events, participant_id: str, as_of: date, *, is_all: bool) -> Extent | None:
    """What there is to erase of a participant; None for somebody whom the ledger does not know.

    `is_all`: what was given before the agreed limit as well.
    """
    people = derive_participants(events).set_index("participant_id")["site_id"]
    if participant_id not in people.index:
        return None
    stops = derive_stops(study, events, as_of)
    own = stops[(stops["participant_id"] == participant_id) & (stops["stops"] == DATA)]
    withdrawn_on = own["from_on"].iloc[0].date() if len(own) else as_of
    given_from = None if is_all else find_limit(study, withdrawn_on)
    given = derive_given(events)
    given = given[given["participant_id"] == participant_id]
    is_kept = given["occurred_on"] < pd.Timestamp(given_from or _LONG_AGO)
    return Extent(
        participant_id, str(people[participant_id]), withdrawn_on, given_from, int((~is_kept).sum()), int(is_kept.sum())
    )


def find_limit(study: Study, withdrawn_on: date) -> date | None:
    """The first day of collecting that is within the agreed limit of a withdrawal; None where there is no limit."""
    rule = study.fieldwork.consent_rule
    if rule is None or rule.data_withdrawal_within is None:
        return None
    within = rule.data_withdrawal_within
    day = add_period(withdrawn_on, Period(-within.months, -within.days)) - timedelta(days=4)
    while add_period(day, within) < withdrawn_on:  # months differ in length: the last steps are taken day by day
        day += timedelta(days=1)
    return day


def derive_erased(events: Events) -> pd.DataFrame:
    """Whose answers were decided to be erased: participant_id, site_id, given_from (of the decision that goes farthest
    back; the first of all days where it is everything). `events`: the ledger, without a view."""
    decided = events.frame(ErasureDecided)
    decided["given_from"] = decided["given_from"].fillna(pd.Timestamp(_LONG_AGO))
    decided = decided.sort_values("given_from").drop_duplicates("participant_id")
    return decided[["participant_id", "site_id", "given_from"]].reset_index(drop=True)


def is_erased(records: pd.DataFrame, erased: pd.DataFrame, day: str = "occurred_on") -> pd.Series[Any]:
    """Whether each record (participant_id, and under `day` when it was collected) is among what was erased."""
    given_from = erased.set_index("participant_id")["given_from"].reindex(records["participant_id"])
    return pd.Series(given_from.to_numpy() <= records[day].astype(_DAY).to_numpy(), records.index, dtype="bool")


def derive_replacements(events: Events) -> dict[str, str]:
    """Every file that was erased, and the one that now holds what others need of it; '' where nothing is left."""
    erased = events.frame(DataErased)
    return dict(zip(erased["sha256"], erased["replaced_by"], strict=True))


def find_replacement(replacements: Mapping[str, str], sha256: str) -> str:
    """The file that holds now what this one held: itself while it was not erased, '' where nothing is left."""
    while sha256 in replacements:
        sha256 = replacements[sha256]
    return sha256


def summarise_erasures(events: Events, returns: pd.DataFrame, files: pd.DataFrame) -> dict[str, Any]:
    """What a release says of erasing, as far as it concerns that release.

    `events`: the ledger, without a view. `returns`: the records that would be in it (participant_id, occurred_on).
    `files`: those that it rests on (sha256, responses_sha256). n_participants and n_records: whose answers are left
    out, and how many. files: those that were erased, each with its sha256, replaced_by, reason, erased_on, n_records.
    """
    gone = returns[is_erased(returns, derive_erased(events))]
    tombstones = events.frame(DataErased).sort_values("sha256")
    tombstones = tombstones[tombstones["sha256"].isin([*files["sha256"], *files["responses_sha256"]])]
    rows: list[Any] = list(tombstones.itertuples(index=False))
    return {
        "n_participants": int(gone["participant_id"].nunique()),
        "n_records": len(gone),
        "files": [
            {
                "sha256": row.sha256,
                "replaced_by": row.replaced_by,
                "reason": row.reason,
                "erased_on": f"{row.occurred_on:%Y-%m-%d}",
                "n_records": row.n_records,
            }
            for row in rows
        ],
    }
