"""Receive what sites have put into their drop-boxes: keep it, read it, decide on it, record it, answer it."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from study.events import (
    ConsentRecorded,
    DispositionRecorded,
    ParticipantAllocated,
    ParticipantEvent,
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
    find_wave_code,
    parse_sending,
)
from study.state import Events, derive_files, derive_participants, derive_queries, derive_returns
from tasks.files import FileTooLarge
from tasks.receipts import write_receipt, write_repeat_receipt
from tasks.workbook_inspection import WorkbookUnreadable
from tasks.workbooks import read_return_workbook
from tasks.workspace import Workspace

LOG_KINDS = (ParticipantScreened, ConsentRecorded, ParticipantAllocated, DispositionRecorded)
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

    Returns None for a file that was recorded before. Decided without a lock, on what this process read of the ledger
    last; if anything about the site was recorded since, decided again on the ledger as it is.
    """
    facts, site_id = received.facts, received.facts.site_id
    box = workspace.drop_box(site_id)
    snapshot = take_snapshot(workspace)
    while True:
        before = snapshot.find_file(site_id, facts.sha256)
        if before is not None:
            box.leave_receipt(*write_repeat_receipt(workspace, facts, before))
            return None
        standing = derive_standing(workspace, snapshot, received)
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
            if writing.newest_seq(site_ids=[site_id]) <= snapshot.events.head.seq:
                n_queries = writing.count(QueryRaised.kind, site_id)
                writing.append(
                    derive_return_events(decision, standing, n_queries, responses_sha256, as_of, requested_by)
                )
                # Before the commit: a file that counts as received always has its receipt.
                box.leave_receipt(*write_receipt(workspace, decision, as_of))
                return decision
        snapshot = take_snapshot(workspace, afresh=True)


@dataclass(frozen=True)
class Snapshot:
    """What this process read of the ledger last, with the frames that deciding on a return needs, each folded once."""

    events: Events

    @cached_property
    def participants(self) -> Mapping[str, pd.DataFrame]:
        return _split_by_site(derive_participants(self.events))

    @cached_property
    def returns(self) -> Mapping[str, pd.DataFrame]:
        """Current accepted records."""
        returns = derive_returns(self.events)
        return _split_by_site(returns[returns["is_current"]].rename(columns={"occurred_on": "collected_on"}))

    @cached_property
    def queries(self) -> Mapping[str, pd.DataFrame]:
        return _split_by_site(derive_queries(self.events))

    @cached_property
    def files(self) -> pd.DataFrame:
        return derive_files(self.events)

    @cached_property
    def return_ids(self) -> Mapping[str, str]:
        """Return id by the SHA-256 of the file."""
        return dict(zip(self.files["sha256"], self.files["return_id"], strict=True))

    @cached_property
    def log(self) -> Mapping[type[ParticipantEvent], Mapping[str, pd.DataFrame]]:
        """Standing entries of the sites' logs."""
        return {kind: _split_by_site(self.events.frame(kind)) for kind in LOG_KINDS}

    def find_file(self, site_id: str, sha256: str) -> pd.Series | None:
        """The file as it was processed before, if it was."""
        found = self.files[(self.files["site_id"] == site_id) & (self.files["sha256"] == sha256)]
        return None if found.empty else found.iloc[0]


def take_snapshot(workspace: Workspace, *, afresh: bool = False) -> Snapshot:
    """What was read last, by this process and of this workspace; read again if asked for or never read.

    Sites are independent, so a round folds the ledger once for all of them: an older snapshot is good for a site about
    which nothing was recorded since, and `record_return` makes sure of that under the write lock.
    """
    if afresh or not isinstance(workspace.snapshot, Snapshot):
        workspace.snapshot = Snapshot(workspace.read_events())
    return workspace.snapshot


def _split_by_site(frame: pd.DataFrame) -> Mapping[str, pd.DataFrame]:
    """A frame's rows by site_id; an empty frame of the same columns for a site that has none."""
    empty = frame.iloc[:0]
    return defaultdict(lambda: empty, {str(site_id): rows for site_id, rows in frame.groupby("site_id")})


def derive_standing(workspace: Workspace, snapshot: Snapshot, received: Received) -> Standing:
    """What the ledger and the accepted answers say of one site, as far as this file concerns it."""
    site_id = received.facts.site_id
    log: dict[str, tuple[str, tuple[str, ...], str]] = {}
    for kind, rows in snapshot.log.items():
        for row in rows[site_id].to_dict("records"):
            payload = {name: row[name] for name in kind.payload_types}
            content = compute_log_content(f"{row['occurred_on']:%Y-%m-%d}", site_id, payload)
            log[row["key"]] = (row["hash"], content, snapshot.return_ids.get(row["source_sha256"], ""))
    queries = snapshot.queries[site_id]
    asked = queries.groupby(["subject", "rule", "item"])["episode"].max()
    returns = snapshot.returns[site_id]
    return Standing(
        participants=snapshot.participants[site_id],
        log=log,
        returns=returns,
        answers=_read_named_answers(workspace, returns, received.reading),
        queries=queries,
        n_episodes={key: int(n) for key, n in asked.items()},
    )


def _read_named_answers(workspace: Workspace, returns: pd.DataFrame, reading: Reading | None) -> pd.DataFrame:
    """Accepted answers of those records that a file names again, from the files that hold them."""
    named = {
        (participant_id, respondent, find_wave_code(workspace.study, wave), code)
        for code, sheet in (reading.sheets if reading else {}).items()
        if code in workspace.instruments
        for participant_id, respondent, wave in zip(
            *(sheet.frame[name] for name in ("participant_id", "respondent", "wave")), strict=True
        )
    }
    again = [key in named for key in zip(*(returns[name] for name in RECORD_KEY), strict=True)]
    if not any(again):
        return pd.DataFrame(columns=RESPONSE_COLUMNS)
    return read_answers(workspace, returns[np.array(again)]).reindex(columns=RESPONSE_COLUMNS)


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
