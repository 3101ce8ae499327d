"""What people decide about queries, to close one or to open it again; and the list of queries as a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, Literal, NamedTuple

import pandas as pd

from study.calendar import london_day
from study.events import Event, QueryAnswered, QueryClosed, Voided
from study.pack_layout import Layout
from study.queries import CLOSED, CLOSINGS, derive_ages, describe_state
from study.state import Events, derive_queries
from tasks.receipts import find_wording
from tasks.workspace import Workspace

Query = Mapping[Any, Any]
"""A row of `state.derive_queries`."""


class QueryRefused(ValueError):
    """A query is not as the person who decided about it thought."""


class Closed(NamedTuple):
    """What came of closing a query: whether it was open until now, and what that does to the data, in a sentence."""

    is_new: bool
    effect: str


def close_query(
    workspace: Workspace, query_id: str, reason: Literal["confirmed", "withdrawn"], requested_by: str
) -> Closed:
    """Close a query: what it is about is right as it is, or nobody need answer. Either way this value is never asked
    about again by this rule. Not new where it was closed so before.

    Raises QueryRefused for one that was closed otherwise, among them one whose value the site has changed since: what
    somebody looked at is not what stands there now.
    """

    def decide(events: Events, query: Query) -> list[Event]:
        if query["close_reason"] == reason:
            return []
        if query["stage"] == CLOSED:
            newer = _find_newer(events, query)
            told = f" The question about what stands there now is {newer}." if newer else ""
            raise QueryRefused(
                f"{query_id} was closed before ({CLOSINGS[query['close_reason']]}), so nothing was changed.{told}"
            )
        return [QueryClosed(**_about(workspace, query, requested_by), query_id=query_id, reason=reason)]

    return Closed(*_record(workspace, query_id, decide))


def describe_effect(query: Query) -> str:
    """What becomes of the data where a query is closed by a person. Closing changes none of them."""
    if query["severity"] == "soft":
        return "The data were accepted, and stay as they are."
    what = "row" if query["row"] else "sheet" if query["sheet"] else "file"
    return (
        f"It had stopped its {what}, which stays out of every dataset: closing lets nothing in. To have it in, the "
        "site sends it mended."
    )


def reopen_query(workspace: Workspace, query_id: str, requested_by: str) -> bool:
    """Put a query to its site again: what closed it and what the site answered count no more. False where it waits for
    the site already. Raises QueryRefused where the site has changed the value since."""

    def decide(events: Events, query: Query) -> list[Event]:
        if query["close_reason"] == "changed":
            newer = _find_newer(events, query)
            told = f" The question about that is {newer}." if newer else ""
            raise QueryRefused(f"{query_id} is about a value that the site has changed since.{told}")
        common = _about(workspace, query, requested_by)
        rows = pd.concat([events.frame(kind, ["query_id", "hash"]) for kind in (QueryClosed, QueryAnswered)])
        own = rows.loc[rows["query_id"] == query_id, "hash"]
        return [Voided(**common, voids=row, reason="reopened") for row in own]

    return _record(workspace, query_id, decide)[0]


def _record(workspace: Workspace, query_id: str, decide: Callable[[Events, Query], list[Event]]) -> tuple[bool, str]:
    """Append what `decide` says of a query as it stands, under the lock; whether that was anything, and
    `describe_effect`."""
    while True:
        events = workspace.read_events()
        queries = derive_queries(events)
        own = queries[queries["query_id"] == query_id]
        if own.empty:
            raise QueryRefused(
                f'{workspace.name} has no query "{query_id}". See them with: summative queries {workspace.name} --all'
            )
        query: Query = own.iloc[0].to_dict()
        told = decide(events, query)
        with workspace.ledger.writing() as writing:
            if writing.newest_seq(site_ids=[query["site_id"]]) <= events.head.seq:
                writing.append(told)
                return bool(told), describe_effect(query)


def _about(workspace: Workspace, query: Query, requested_by: str) -> dict[str, Any]:
    return {
        "occurred_on": london_day(workspace.clock()),
        "requested_by": requested_by,
        "site_id": query["site_id"],
    }


def _find_newer(events: Events, query: Query) -> str:
    """The open query about the same place by the same rule."""
    queries = derive_queries(events)
    asks = ["subject", "rule", "item"]
    same = (queries[asks] == [query[name] for name in asks]).all(axis="columns") & (queries["stage"] != CLOSED)
    return str(next(iter(queries.loc[same, "query_id"]), ""))


EXPORTED = {
    "query_id": "query", "site_id": "site", "raised_on": "raised_on", "age_days": "age_days", "age_band": "age_band",
    "severity": "severity", "rule": "rule", "participant_id": "participant", "wave": "wave",
    "respondent": "respondent", "instrument": "instrument", "item": "item", "about": "item_or_column",
    "return_id": "return", "sheet": "sheet", "row": "row", "export_line": "export_line", "stage": "stage",
    "answer": "answer", "answered_on": "answered_on", "closed_on": "closed_on", "close_reason": "close_reason",
}  # fmt: skip


def derive_query_list(queries: pd.DataFrame, as_of: date, layout: Layout) -> pd.DataFrame:
    """Queries (rows of `state.derive_queries`) with age and words: age_days, age_band, about (the item or column, as
    the sheets name it), wrong and state."""
    aged = derive_ages(queries, as_of)
    columns = aged["item"].where(aged["item"] != "", aged["column_name"])
    return aged.assign(
        about=[layout.name_column(*place) for place in zip(aged["sheet"], columns, strict=True)],
        wrong=[find_wording(rule, "")[0] for rule in aged["rule"]],
        state=[describe_state(row) for row in aged[["stage", "answer", "close_reason"]].to_dict("records")],
    )


def write_query_list(listed: pd.DataFrame) -> bytes:
    """Rows of `derive_query_list` as CSV for other programs (UTF-8, days as 2017-09-04)."""
    exported = listed[[*EXPORTED, "wrong"]].rename(columns=EXPORTED | {"wrong": "what_is_wrong"})
    return exported.to_csv(index=False, date_format="%Y-%m-%d", lineterminator="\n").encode()
