"""Receive what sites have put into their drop-boxes: keep it, read it, decide on it, record it, answer it."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from datetime import date

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from study.events import (
    ConsentRecorded,
    DispositionRecorded,
    ParticipantAllocated,
    ParticipantScreened,
    QueryRaised,
)
from study.pack_layout import Reading
from study.returns import (
    RECORD_KEY,
    RESPONSE_COLUMNS,
    Decision,
    FileFacts,
    Standing,
    compute_log_content,
    decide_quarantine,
    decide_return,
    derive_return_events,
    parse_sending,
)
from study.state import Events, derive_files, derive_participants, derive_queries, derive_returns
from tasks.files import FileTooLarge
from tasks.receipts import write_receipt, write_repeat_receipt
from tasks.workbook_inspection import WorkbookUnreadable
from tasks.workbooks import read_return_workbook
from tasks.workspace import Workspace

RESPONSES_SCHEMA = pa.schema(
    [
        ("participant_id", pa.string()),
        ("respondent", pa.string()),
        ("wave", pa.string()),
        ("instrument", pa.string()),
        ("form", pa.string()),
        ("item", pa.string()),
        ("response", pa.float64()),
        ("missing_reason", pa.string()),
        ("collected_on", pa.date32()),
        ("return_id", pa.string()),
    ]
)


@dataclass(frozen=True)
class Received:
    """One file as it lies in an inbox, kept and read. `rule` says why it could not be read."""

    name: str
    facts: FileFacts
    reading: Reading | None
    rule: str = ""


def find_sites_with_files(workspace: Workspace) -> list[str]:
    """Sites whose inbox holds something to receive now, in the order of their ids."""
    return [
        site.site_id
        for site in workspace.study.sites
        if workspace.drop_box(site.site_id).waiting(workspace.clock(), workspace.settings.settle_seconds)
    ]


def receive_site_returns(workspace: Workspace, site_id: str, as_of: date, requested_by: str) -> Counter[str]:
    """Receive every file that waits in one site's inbox. Returns counts for people to read.

    A crash at any point loses nothing and doubles nothing: a file is kept before it is read, everything that follows
    from it is recorded in one append, and it leaves the inbox last.
    """
    counts: Counter[str] = Counter()
    for received in _read_inbox(workspace, site_id, as_of):
        counts["files"] += 1
        decision = record_return(workspace, received, as_of, requested_by)
        if decision is None:
            counts["files repeated"] += 1
        else:
            counts["files quarantined"] += bool(decision.quarantine_rule)
            counts["records accepted"] += decision.n_accepted
            counts["records repeated"] += decision.n_repeated
            counts["records refused"] += decision.n_refused
            counts["records superseded"] += decision.n_superseded
            counts["log entries"] += len(decision.log_events)
            counts["queries"] += decision.faults["query_id"].nunique()
        box = workspace.drop_box(site_id)
        if received.rule == "file_too_large":
            box.set_aside(received.name, received.facts.sha256)
        else:
            box.clear(received.name, received.facts.sha256)
    return counts


def _read_inbox(workspace: Workspace, site_id: str, as_of: date) -> list[Received]:
    """The files of an inbox in the order in which they count: by posting date, number and correction, never by
    arrival; what cannot be read comes last, by content."""
    box = workspace.drop_box(site_id)
    limit = workspace.settings.largest_return_mb * 2**20
    ordered = []
    for waiting in box.waiting(workspace.clock(), workspace.settings.settle_seconds):
        try:
            data = box.take(waiting.name, limit)
        except FileTooLarge:
            facts = FileFacts(box.compute_sha256(waiting.name), waiting.size, site_id)
            ordered.append(((date.max, 0, 0, facts.sha256), Received(waiting.name, facts, None, "file_too_large")))
            continue
        facts = FileFacts(workspace.content.put(data), len(data), site_id)
        try:
            reading = read_return_workbook(data, workspace.layout, site_id=site_id, max_bytes=limit)
        except WorkbookUnreadable as unreadable:
            received = Received(waiting.name, facts, None, unreadable.rule)
            ordered.append(((date.max, 0, 0, facts.sha256), received))
            continue
        sending, _ = parse_sending(reading, facts, workspace.study, as_of)
        place = (sending.posted_on, sending.sending_number, sending.correction) if sending else (date.max, 0, 0)
        ordered.append(((*place, facts.sha256), Received(waiting.name, facts, reading)))
    return [received for _, received in sorted(ordered, key=lambda pair: pair[0])]


def record_return(workspace: Workspace, received: Received, as_of: date, requested_by: str) -> Decision | None:
    """Decide on one file and record everything that follows in one append; leave the site its receipt.

    Returns None for a file that was recorded before. Decided on the ledger's state without a lock; if anything about
    the site was recorded meanwhile, decided again.
    """
    facts, site_id = received.facts, received.facts.site_id
    box = workspace.drop_box(site_id)
    while True:
        events = workspace.read_events()
        files = derive_files(events)
        before = files[(files["site_id"] == site_id) & (files["sha256"] == facts.sha256)]
        if len(before):
            box.leave_receipt(*write_repeat_receipt(workspace, facts, before.iloc[0]))
            return None
        standing = derive_standing(workspace, events, received)
        if received.reading is None:
            decision = decide_quarantine(facts, received.rule)
        else:
            decision = decide_return(
                received.reading, facts, workspace.study, workspace.instruments, standing, as_of, requested_by
            )
        responses_sha256 = ""
        if len(decision.responses):
            responses_sha256 = workspace.content.put(encode_responses(decision.responses))
        with workspace.ledger.writing() as writing:
            if writing.newest_seq(site_ids=[site_id]) > events.head.seq:
                continue
            n_queries = writing.count(QueryRaised.kind, site_id)
            writing.append(
                derive_return_events(decision, standing, n_queries, responses_sha256, as_of, requested_by)
            )
            # Before the commit: a file that counts as received always has its receipt.
            box.leave_receipt(*write_receipt(workspace, decision, as_of))
        return decision


def derive_standing(workspace: Workspace, events: Events, received: Received) -> Standing:
    """What the ledger and the accepted answers say of one site, as far as this file concerns it."""
    site_id = received.facts.site_id
    files = derive_files(events)
    return_ids = dict(zip(files["sha256"], files["return_id"], strict=True))
    log: dict[str, tuple[str, tuple[str, ...], str]] = {}
    for kind in (ParticipantScreened, ConsentRecorded, ParticipantAllocated, DispositionRecorded):
        rows = events.frame(kind)
        for row in rows[rows["site_id"] == site_id].to_dict("records"):
            payload = {name: row[name] for name in kind.payload_types}
            content = compute_log_content(f"{row['occurred_on']:%Y-%m-%d}", site_id, payload)
            log[row["key"]] = (row["hash"], content, return_ids.get(row["source_sha256"], ""))
    returns = derive_returns(events)
    returns = returns[(returns["site_id"] == site_id) & returns["is_current"]]
    returns = returns.rename(columns={"occurred_on": "collected_on"})
    queries = derive_queries(events)
    queries = queries[queries["site_id"] == site_id]
    asked = queries.groupby(["subject", "rule", "item"])["episode"].max()
    return Standing(
        participants=derive_participants(events),
        log=log,
        returns=returns,
        answers=_read_named_answers(workspace, returns, received.reading),
        queries=queries,
        n_episodes={key: int(n) for key, n in asked.items()},
    )


def _read_named_answers(workspace: Workspace, returns: pd.DataFrame, reading: Reading | None) -> pd.DataFrame:
    """Accepted answers of those records that a file may name again (its participants), from the files that hold them."""
    named: set[str] = set()
    for code, sheet in (reading.sheets if reading else {}).items():
        if code in workspace.instruments:
            named |= set(sheet.frame["participant_id"])
    again = returns[returns["participant_id"].isin(named)]
    if again.empty:
        return pd.DataFrame(columns=RESPONSE_COLUMNS)
    return read_answers(workspace, again).reindex(columns=RESPONSE_COLUMNS)


def read_answers(workspace: Workspace, returns: pd.DataFrame) -> pd.DataFrame:
    """The long answers of accepted records (rows with RECORD_KEY, return_id and responses_sha256), as they were kept."""
    parts = []
    for sha256 in sorted(set(returns["responses_sha256"])):
        part = pq.read_table(io.BytesIO(workspace.content.get(sha256)), use_threads=False)
        parts.append(part.append_column("responses_sha256", pa.array([sha256] * len(part), pa.string())))
    if not parts:
        return pd.DataFrame(columns=[*RESPONSE_COLUMNS, "responses_sha256"])
    answers = pa.concat_tables(parts).to_pandas(date_as_object=False)
    keys = [*RECORD_KEY, "responses_sha256"]
    return answers.merge(returns[keys].drop_duplicates(), on=keys)


def encode_responses(responses: pd.DataFrame) -> bytes:
    """Accepted answers as Parquet; the same answers give the same bytes."""
    table = responses.sort_values([*RECORD_KEY, "item"], ignore_index=True)[RESPONSE_COLUMNS]
    table = table.assign(missing_reason=table["missing_reason"].where(table["missing_reason"] != ""))
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(table, RESPONSES_SCHEMA, preserve_index=False), sink, compression="zstd")
    return sink.getvalue()
