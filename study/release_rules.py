"""What stands in the way of releasing a dataset, what a recorded waiver lets pass, and which answers stay out.

Judgement calls:

- A hard query is in the way while it is open as far as is known, if it was raised by the release's day: a row that was
  refused or stopped is missing from the data, and somebody must say that this may be.
- An approval is in the way where it was in force, is no longer, and something is still to be collected under it: a
  return that is expected and not over, or a record from after its last day. Once a study's fieldwork is over its
  approvals may end.
- Released columns of text hold codes. One that looks as if it told who somebody is stops the release, whatever else.
- A waiver covers what stood in the way when it was recorded, for datasets as of days up to its own. It counts for
  every view, since it decides about publishing and not about data.
- Answers stay out where no consent of the day on which they were collected covers them: there was none, or not yet, or
  no longer, or not of that scope; and where the person took back what they had given. A study without a rule for
  consent (`[[consent]]`) leaves out none. The person stays in the tables: they were screened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Literal

import pandas as pd

from study.approval_steps import ITEM, Item, derive_known_spells
from study.approvals import derive_approvals
from study.consent import FINDINGS, derive_consents, judge_records
from study.datasets import TableRows
from study.erasure import find_limit
from study.events import ReleaseWaived
from study.identifier_scan import Scanner, describe_kinds
from study.incidents import derive_held
from study.participation import DATA, derive_stops
from study.protocol import Study
from study.state import Events, derive_current_returns, derive_queries
from study.waves import derive_expected_returns

Obstacle = Literal["hard_queries", "lapsed_approval", "identifiers"]
OBSTACLES: Final = {
    "hard_queries": "hard queries that are open",
    "lapsed_approval": "an approval that lapsed",
    "identifiers": "a column that looks as if it told who somebody is",
}
REASONS: Final = {
    "interim": "this is an interim dataset",
    "nothing_more_expected": "nothing more is expected of the sites",
    "not_analysed": "what is concerned is not analysed",
    "sponsor_decided": "the sponsor decided so",
    "not_identifying": "it identifies nobody",
}
"""Why something may be waived."""
EVERYTHING: Final = "all"
"""The subject of a waiver of all hard queries that were open when it was recorded."""

WITHDRAWN: Final = "data_withdrawn"
LEFT_OUT_WORDS: Final = {
    **{code: finding.words for code, finding in FINDINGS.items() if code != "no_return"},
    "release_scope_missing": "Collected without consent to what this study's datasets need",
    WITHDRAWN: "Taken back by the person, and not erased yet",
}
"""Why answers stay out of a dataset, the gravest first."""

_GOING_ON: Final = ("planned", "held", "released", "partial")


@dataclass(frozen=True, slots=True)
class Hindrance:
    """One thing that stands in the way: `subject` as waivers name it, `n` of them, what to tell people; of a query its
    site, and the ledger's row that raised it."""

    what: Obstacle
    subject: str
    n: int
    text: str
    site_id: str = ""
    seq: int = 0


def find_hindrances(
    study: Study,
    known: Events,
    as_of: date,
    tables: Mapping[str, TableRows],
    scanner: Scanner,
) -> list[Hindrance]:
    """Everything that stands in the way of a release. `known`: the ledger as known at the release's moment."""
    return [
        *find_identifier_columns(tables, scanner),
        *find_lapsed_approvals(study, known, as_of),
        *find_hard_queries(known, as_of),
    ]


def find_hard_queries(known: Events, as_of: date) -> list[Hindrance]:
    """One for each query, by its number."""
    queries = derive_queries(known)
    is_open = (queries["severity"] == "hard") & (queries["status"] == "open")
    queries = queries[is_open & (queries["raised_on"] <= pd.Timestamp(as_of))].sort_values("query_id")
    rows: list[Any] = list(queries.itertuples(index=False))
    return [
        Hindrance("hard_queries", row.query_id, 1, f"{row.query_id}: {row.rule}", row.site_id, row.seq) for row in rows
    ]


def find_lapsed_approvals(study: Study, known: Events, as_of: date) -> list[Hindrance]:
    """One for each approval that collecting needs, that was in force, and is not on the day, while collecting goes on
    at its place; once data collection is over, where answers were collected after its last day."""
    needs = {name for activity in ("collect_baseline", "collect_follow_up") for name in _find_needs(study, activity)}
    if not needs:
        return []
    approvals = derive_approvals(study, known, as_of)
    lacking = approvals[approvals["is_needed"] & ~approvals["is_in_force"] & approvals["approval"].isin(needs)]
    spells = derive_known_spells(study, known, as_of)
    spells = spells[spells["from_on"] <= pd.Timestamp(as_of)]
    last = spells.groupby(ITEM, as_index=False)["until_on"].max()
    lapsed = lacking[ITEM].merge(last, on=ITEM)
    if lapsed.empty:
        return []
    expected = derive_expected_returns(study, known, as_of)
    expected = expected[expected["is_expected"] & expected["status"].isin(_GOING_ON)]
    open_places = set(zip(expected["site_id"], expected["body_id"], strict=True))
    collected = _find_last_collected(known, as_of)
    found = []
    for row in lapsed.itertuples(index=False):
        item = Item.of(row)
        goes_on = as_of <= study.data_collection_ends_on and any(
            (not item.site_id or site == item.site_id) and (not item.body_id or body in ("", item.body_id))
            for site, body in open_places
        )
        later = collected if not item.site_id else collected[collected.index == item.site_id]
        if goes_on or bool((later > row.until_on).any()):
            words = f"{item}: {row.until_on:%Y-%m-%d} was its last day in force, and collecting goes on."
            found.append(Hindrance("lapsed_approval", ":".join(filter(None, item)), 1, words))
    return found


def _find_needs(study: Study, activity: str) -> tuple[str, ...]:
    return study.pathway.find_needs(activity) or ()


def _find_last_collected(known: Events, as_of: date) -> pd.Series[Any]:
    """The last day of collecting by site, held records among them."""
    columns = ["site_id", "occurred_on"]
    held = derive_held(known)
    records = pd.concat([derive_current_returns(known, columns), held.loc[held["is_held"], columns]])
    records = records[records["occurred_on"] <= pd.Timestamp(as_of)]
    return records.groupby("site_id")["occurred_on"].max()


def find_identifier_columns(tables: Mapping[str, TableRows], scanner: Scanner) -> list[Hindrance]:
    """One for each column of text among the tables in which something looks like an identifier: kinds and how many
    different texts, never one of them."""
    texts: dict[str, list[str]] = {}
    for name, rows in tables.items():
        for column in rows.table.columns:
            if column.type == "text":
                own = rows.find_texts(column.name)
                texts[f"{name}.{column.name}"] = [text for text in own if not scanner.is_own(text)]
    every = list(dict.fromkeys(text for column in texts.values() for text in column))
    kinds = {every[number]: found for number, found in scanner.scan(every).items()}
    found = []
    for place, said_there in texts.items():
        hits = [kinds[text] for text in said_there if text in kinds]
        if hits:
            said = describe_kinds(set().union(*hits))
            words = f"{place}: {len(hits)} different texts look like {said}."
            found.append(Hindrance("identifiers", place, len(hits), words))
    return found


# Waivers ------------------------------------------------------------------------------------------------------------


def apply_waivers(
    hindrances: list[Hindrance], events: Events, as_of: date
) -> tuple[list[Hindrance], list[dict[str, Any]]]:
    """What still stands in the way, and what the manifest says of what was waived: waived, subject, until, reason,
    role, reference, recorded_at, n (what it covers here). Of several waivers the one recorded first covers.

    `events`: the ledger, without a view.
    """
    waivers: list[Any] = list(events.frame(ReleaseWaived).itertuples(index=False))
    waivers = [waiver for waiver in waivers if waiver.until >= pd.Timestamp(as_of)]
    left, covered = [], dict.fromkeys(range(len(waivers)), 0)
    for hindrance in hindrances:
        covering = (
            n
            for n, waiver in enumerate(waivers)
            if waiver.seq > hindrance.seq and _covers(waiver.waived, waiver.subject, hindrance)
        )
        place = next(covering, None)
        if place is None:
            left.append(hindrance)
        else:
            covered[place] += hindrance.n
    used = [
        {
            "waived": waiver.waived,
            "subject": waiver.subject,
            "until": f"{waiver.until:%Y-%m-%d}",
            "reason": waiver.reason,
            "role": waiver.role,
            "reference": waiver.reference,
            "ledger_row": int(waiver.seq),
            "n": covered[place],
        }
        for place, waiver in enumerate(waivers)
        if covered[place]
    ]
    return left, used


def _covers(what: str, subject: str, hindrance: Hindrance) -> bool:
    if what == "hard_queries" == hindrance.what:
        return subject in (EVERYTHING, hindrance.subject, hindrance.site_id)
    return what == hindrance.what and subject == hindrance.subject


def find_covered(hindrances: list[Hindrance], what: Obstacle, subject: str) -> list[Hindrance]:
    """What a waiver of this subject covers, if it is recorded now."""
    return [hindrance for hindrance in hindrances if _covers(what, subject, hindrance)]


def describe_hindrances(hindrances: list[Hindrance], study_name: str, as_of: date) -> list[str]:
    """Each reason for refusing as a sentence or two, with what to do; queries by site."""
    waive = f"summative release waive {study_name}"
    found = [
        f"{hindrance.text} A dataset may not hold that. Void or correct what holds it; if it identifies nobody: "
        f"`{waive} identifiers {hindrance.subject} --until {as_of} --reason not_identifying`."
        for hindrance in hindrances
        if hindrance.what == "identifiers"
    ]
    found += [
        f"{hindrance.text} Have it renewed, or record the decision to release all the same: "
        f"`{waive} lapsed_approval {hindrance.subject} --until {as_of} --reason sponsor_decided`."
        for hindrance in hindrances
        if hindrance.what == "lapsed_approval"
    ]
    queries = [hindrance for hindrance in hindrances if hindrance.what == "hard_queries"]
    if queries:
        sites = Counter(query.site_id for query in queries)
        told = ", ".join(f"{site} {n:,}" for site, n in sorted(sites.items()))
        found.append(
            f"Hard queries are open: {len(queries):,} ({told}). What they ask about is not in the data. Have them "
            f"settled, or record why the dataset may do without: `{waive} hard_queries {EVERYTHING} --until {as_of} "
            "--reason interim`."
        )
    return found


# Answers that stay out ----------------------------------------------------------------------------------------------


def judge_consent(study: Study, happened: Events, returns: pd.DataFrame, as_of: date) -> pd.Series[Any]:
    """Why each record (`returns`: participant_id, respondent, occurred_on) stays out: of LEFT_OUT_WORDS, '' where it is
    in. By the index of `returns`."""
    reasons = pd.Series("", returns.index, dtype="str")
    rule = study.fieldwork.consent_rule
    if rule is None or returns.empty:
        return reasons
    records = returns[["participant_id", "respondent", "occurred_on"]].assign(place=returns.index)
    judged = judge_records(study, happened, records, as_of).set_index("place")
    reasons = judged["finding"].reindex(returns.index).astype("str")
    if rule.release_scopes:
        consents = derive_consents(study, happened, as_of).set_index("participant_id")["scopes"]
        agreed = {person: set(text.split(";")) for person, text in consents.items()}
        lacks = [not set(rule.release_scopes) <= agreed.get(person, set()) for person in returns["participant_id"]]
        reasons = reasons.mask((reasons == "") & pd.Series(lacks, returns.index), "release_scope_missing")
    stops = derive_stops(study, happened, as_of)
    stopped: list[Any] = list(stops[stops["stops"] == DATA].itertuples(index=False))
    for stop in stopped:
        limit = find_limit(study, stop.from_on.date())
        is_own = returns["participant_id"] == stop.participant_id
        if limit is not None:
            is_own &= returns["occurred_on"] >= pd.Timestamp(limit)
        reasons = reasons.mask(is_own, WITHDRAWN)
    return reasons


def count_left_out(returns: pd.DataFrame, reasons: pd.Series[Any]) -> dict[str, Any]:
    """What `judge_consent` leaves out: n_records, n_participants, and by reason and site the same."""
    out = returns.assign(reason=reasons)[reasons != ""]
    order = {code: place for place, code in enumerate(LEFT_OUT_WORDS)}
    groups = out.groupby(["reason", "site_id"], sort=True)["participant_id"].agg(["size", "nunique"]).reset_index()
    groups = groups.sort_values(["reason", "site_id"], key=lambda s: s.map(order) if s.name == "reason" else s)
    return {
        "n_records": len(out),
        "n_participants": int(out["participant_id"].nunique()),
        "reasons": [
            {
                "reason": row["reason"],
                "site": row["site_id"],
                "n_records": row["size"],
                "n_participants": row["nunique"],
            }
            for row in groups.to_dict("records")
        ],
    }
