"""Receive what sites have put into their drop-boxes: keep it, read it, decide on it, record it, answer it."""

from __future__ import annotations

import hashlib
import io
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from study.erasure import derive_replacements, find_replacement
from study.events import FileHeld, IncidentOpened, QueryRaised
from study.identifier_scan import Place
from study.incidents import RECORD_KEY, SiteGate
from study.pack_layout import Layout, Reading
from study.protocol import Study
from study.queries import IDENTIFIERS_FOUND, derive_seal
from study.returns import (
    RESPONSE_COLUMNS,
    Decision,
    FileFacts,
    RecordKey,
    Sending,
    Standing,
    decide_held,
    decide_quarantine,
    decide_return,
    derive_homes,
    derive_responses,
    derive_return_events,
    derive_standing,
    find_allowed_files,
    find_files_asked_about,
    find_identified,
    find_left_open,
    find_named_again,
    find_processed_file,
    find_unidentified,
    number_incidents,
    number_queries,
    parse_sending,
    settle_queries,
)
from study.state import Events
from tasks.ahead import begin, has_other_processes
from tasks.files import DropBox, FileFault, FileMissing, FileTooLarge, FolderArea, Inbox, WaitingFile
from tasks.identifier_search import find_identifiers, make_scanner
from tasks.quarantine import (
    derive_held_event,
    find_held_file,
    keep_held_file,
    read_held_file,
    remove_decided_copies,
)
from tasks.receipts import write_receipt, write_repeat_receipt
from tasks.safeguarding import raise_alerts
from tasks.workbook_inspection import (
    MAX_UNPACKED_BYTES,
    MEGABYTE,
    WorkbookUnreadable,
    inspect_package,
)
from tasks.workbooks import read_return_workbook
from tasks.workspace import Workspace

logger = logging.getLogger(__name__)

_NOT_TEXT = {"response": pa.float64(), "collected_on": pa.date32()}
_TEXT_COLUMNS = [name for name in RESPONSE_COLUMNS if name not in _NOT_TEXT]
ROWS_AT_ONCE = 2**20
RESPONSES_SCHEMA = pa.schema([pa.field(name, _NOT_TEXT.get(name, pa.string())) for name in RESPONSE_COLUMNS])


class DecisionRefused(RuntimeError):
    """The ledger holds otherwise what was decided as new. Nothing of the file is recorded; it stays in the inbox."""


@dataclass(frozen=True)
class Received:
    """One file as it lies in an inbox. `rule` says why it could not be read, and `expected` what could be."""

    name: str
    facts: FileFacts
    reading: Reading | None
    rule: str = ""
    expected: str = ""
    held: Held | None = None


@dataclass(frozen=True)
class Held:
    """Why a file is not read: `places` that hold what may tell who a person is. `data`: the file as it came."""

    places: tuple[Place, ...]
    sending: Sending | None
    data: bytes = field(repr=False)


def find_sites_with_files(workspace: Workspace) -> list[str]:
    """Sites in whose inbox something lies, to be received or to be told of, in the order of their ids.

    An inbox that cannot be looked into counts as well: receiving from that site then fails, and from no other.
    """
    now, settle_seconds = workspace.clock(), workspace.settings.settle_seconds
    found = []
    for site in workspace.study.sites:
        try:
            inbox = workspace.drop_box(site.site_id).look(now, settle_seconds)
        except FileFault:
            found.append(site.site_id)
            continue
        if inbox.waiting or inbox.unfinished or inbox.ignored:
            found.append(site.site_id)
    return found


def remove_leftovers(workspace: Workspace) -> int:
    """Delete what killed runs left half-written in the study's folder more than a day ago, and copies of held files
    that nobody waits for any more; how many. A bucket has none of the first: it takes a
    file whole or not at all."""
    n_copies = remove_decided_copies(workspace)
    return n_copies + (workspace.area.remove_leftovers() if isinstance(workspace.area, FolderArea) else 0)


def receive_site_returns(workspace: Workspace, site_id: str, as_of: date, requested_by: str) -> Counter[str]:
    """Receive every file that waits in one site's inbox. Returns counts for people to read.

    A crash at any point loses nothing and doubles nothing: a file is kept before it is read, everything that follows
    from it is recorded in one append, and it leaves the inbox last. Files that are left there, because they are
    unfinished or nobody's return, are counted too.
    """
    box = workspace.drop_box(site_id)
    inbox = box.look(workspace.clock(), workspace.settings.settle_seconds)
    counts: Counter[str] = Counter()
    for received in _read_files(workspace, box, site_id, inbox.waiting, as_of):
        counts["files"] += 1
        decision = record_return(workspace, received, as_of, requested_by)
        if decision is None:
            counts["files repeated"] += 1
        else:
            counts["files held"] += bool(decision.places)
            counts["files quarantined"] += bool(decision.quarantine_rule)
            counts["records accepted"] += decision.n_accepted
            counts["records repeated"] += decision.count("repeated")
            counts["records refused"] += decision.count("refused")
            counts["records superseded"] += decision.count("superseding")
            counts["records quarantined"] += decision.count("quarantined")
            counts["log entries"] += decision.n_log_entries
            counts["queries"] += len({decision.find_query_key(fault) for fault in decision.faults})
        _clear(box, received)
    _tell_of_files_left(site_id, inbox, counts)
    return counts


def _read_files(
    workspace: Workspace, box: DropBox, site_id: str, waiting: Sequence[WaitingFile], as_of: date
) -> list[Received]:
    """The files of an inbox in the order in which they count: by posting date, number and correction, never by
    arrival; what cannot be read comes last, by content. A file that another run took meanwhile is left out."""
    allowed = find_allowed_files(take_snapshot(workspace).events, site_id) if waiting else frozenset[str]()
    ordered = []
    for file in waiting:
        with suppress(FileMissing):
            received = _read_file(workspace, box, site_id, file, as_of, allowed)
            sending = parse_sending(received.reading, site_id, as_of)[0] if received.reading else None
            sending = received.held.sending if received.held else sending
            place = sending[1:] if sending else (date.max, 0, 0)
            ordered.append((place, received.facts.sha256, received))
    return [received for _, _, received in sorted(ordered, key=lambda entry: entry[:2])]


def _read_file(
    workspace: Workspace, box: DropBox, site_id: str, file: WaitingFile, as_of: date, allowed: Collection[str]
) -> Received:
    """Search a file for what must not be in it, read it, and keep it as it came. One that is too large is neither kept
    nor read, nor is one in which something was found, unless it is among the `allowed`. Raises FileMissing."""
    limit = workspace.settings.largest_return_mb * MEGABYTE
    try:
        data = box.take(file.name, limit)
    except FileTooLarge:
        facts = FileFacts(box.compute_sha256(file.name), file.size, site_id)
        return Received(file.name, facts, None, "file_too_large", f"at most {limit // MEGABYTE} MB")
    facts = FileFacts(hashlib.sha256(data).hexdigest(), len(data), site_id)
    begun = _begun.pop((workspace.name, site_id, file.name), None)
    if facts.sha256 in allowed or begun is None or begun.sha256 != facts.sha256:
        examined = _examine(workspace, file.name, site_id, data, as_of, is_searched=facts.sha256 not in allowed)()
    else:
        examined = begun.find_result()
    if examined.places:
        return Received(file.name, facts, None, IDENTIFIERS_FOUND, held=Held(examined.places, examined.sending, data))
    return _keep(workspace, file.name, facts, data, examined)


class Examined(NamedTuple):
    """What is in a file: `places` that hold what may tell who a person is, and then which sending it is and nothing
    else; or what could be read, or the rule by which nothing could."""

    places: tuple[Place, ...] = ()
    sending: Sending | None = None
    reading: Reading | None = None
    rule: str = ""


def examine_file(
    data: bytes, name: str, site_id: str, study: Study, layout: Layout, as_of: date, limit: int, *, is_searched: bool
) -> Examined:
    """Search the bytes of a file, of at most `limit`, and read them if nothing was found. `is_searched`: False for a
    file that a person has released."""
    package, rule = None, ""
    try:
        package = inspect_package(data, max_bytes=limit)
    except WorkbookUnreadable as unreadable:
        rule = unreadable.rule
    places = find_identifiers(data, package, name, layout, make_scanner(study, as_of)) if is_searched else ()
    reading = None
    if package is not None:
        try:
            reading = read_return_workbook(package, layout, site_id=site_id)
        except WorkbookUnreadable as unreadable:
            rule = unreadable.rule
    if places:
        return Examined(places, parse_sending(reading, site_id, as_of)[0] if reading else None)
    return Examined((), None, reading, rule)


def _examine(
    workspace: Workspace, name: str, site_id: str, data: bytes, as_of: date, *, is_searched: bool = True
) -> Callable[[], Examined]:
    limit = workspace.settings.largest_return_mb * MEGABYTE
    about = (data, name, site_id, workspace.study, workspace.layout, as_of, limit)
    return begin(examine_file, *about, is_searched=is_searched)


class _Begun(NamedTuple):
    sha256: str
    find_result: Callable[[], Examined]


_begun: dict[tuple[str, str, str], _Begun] = {}  # by workspace, site and name of the file


@contextmanager
def reading_ahead(workspace: Workspace, sites: Sequence[str], as_of: date) -> Iterator[None]:
    """While this lasts, other processes, where they are lent, read what lies in the inboxes of these sites."""
    _begun.clear()
    for site_id in sites if has_other_processes() else ():
        with suppress(FileFault):  # the site's own step meets it again, and stops no other site
            box = workspace.drop_box(site_id)
            for file in box.look(workspace.clock(), workspace.settings.settle_seconds).waiting:
                data = box.take(file.name, workspace.settings.largest_return_mb * MEGABYTE)
                begun = _Begun(hashlib.sha256(data).hexdigest(), _examine(workspace, file.name, site_id, data, as_of))
                _begun[workspace.name, site_id, file.name] = begun
    try:
        yield
    finally:
        _begun.clear()


def _keep(workspace: Workspace, name: str, facts: FileFacts, data: bytes, examined: Examined) -> Received:
    workspace.content.put(data)
    expected = f"at most {MAX_UNPACKED_BYTES // MEGABYTE} MB" if examined.rule == "zip_bomb" else ""
    return Received(name, facts, examined.reading, examined.rule, expected)


def receive_released_file(workspace: Workspace, held_id: str, as_of: date, requested_by: str) -> Decision | None:
    """Receive the copy of a held file that a person released, as if it had come now; then the copy goes.

    None where it was received before, or where no copy was kept: then the site sends it again, and it is taken. Raises
    QuarantineUnusable.
    """
    held, events = find_held_file(workspace, held_id), workspace.read_events()
    decision = None
    if held["kept"] == "encrypted" and find_processed_file(events, held["site_id"], held["sha256"]) is None:
        data = read_held_file(workspace, held["site_id"], held["sha256"])
        facts = FileFacts(held["sha256"], len(data), held["site_id"])
        examined = _examine(workspace, "", facts.site_id, data, as_of, is_searched=False)()
        take_snapshot(workspace, afresh=True)
        decision = record_return(workspace, _keep(workspace, "", facts, data, examined), as_of, requested_by)
    remove_decided_copies(workspace)
    return decision


def _clear(box: DropBox, received: Received) -> None:
    """Take a file out of the inbox; two runs may do so at once."""
    if received.rule == "file_too_large":
        with suppress(FileMissing):
            box.set_aside(received.name, received.facts.sha256, as_name="too-large")
    else:
        box.clear(received.name, received.facts.sha256)


def _tell_of_files_left(site_id: str, inbox: Inbox, counts: Counter[str]) -> None:
    """Count and log what stays in an inbox, by reason; never by name, which comes from outside."""
    for kind, files in (("unfinished", inbox.unfinished), ("ignored", inbox.ignored)):
        if files:
            counts[f"files {kind}"] += len(files)
            reasons = Counter(file.remark for file in files)
            told = "; ".join(f"{n} {reason}" for reason, n in sorted(reasons.items()))
            logger.warning("Site %s: %d files left in its inbox as %s (%s).", site_id, len(files), kind, told)


def record_return(workspace: Workspace, received: Received, as_of: date, requested_by: str) -> Decision | None:
    """Decide on one file and record everything that follows in one append; leave the site its receipt.

    Returns None for a file that was recorded before. Decided without a lock, on what this process read of the ledger
    last; if anything was recorded since about the site, about no site in particular (such as an approval of the whole
    study), or about people whom it takes in, decided again on the ledger as it is. Raises DecisionRefused, and records
    nothing, where the ledger holds otherwise all the same.
    """
    facts, site_id = received.facts, received.facts.site_id
    box = workspace.drop_box(site_id)
    snapshot = take_snapshot(workspace)
    if site_id in snapshot.outdated:
        snapshot = take_snapshot(workspace, afresh=True)
    while True:
        before = find_processed_file(snapshot.events, site_id, facts.sha256)
        if before is not None:
            box.leave_receipt(*write_repeat_receipt(workspace, facts, before))
            return None
        standing = snapshot.find_standing(site_id)
        gate = snapshot.find_gate(workspace.study, site_id, as_of)
        decision = _decide(workspace, received, standing, gate, requested_by)
        seals = _read_seals(workspace, snapshot, find_files_asked_about(decision, standing))
        decision = _identify_rows(workspace, settle_queries(decision, standing, seals), received, standing, snapshot)
        with workspace.ledger.writing() as writing:
            newest = writing.newest_seq(site_ids=[site_id, ""], participant_ids=decision.new_participant_ids)
            if newest <= snapshot.events.head.seq:
                query_ids = number_queries(decision, standing, writing.count(QueryRaised.kind, site_id))
                incident_ids = number_incidents(decision, writing.count(IncidentOpened.kind, site_id))
                parts = [derive_responses(decision, quarantined=quarantined) for quarantined in (False, True)]
                accepted, quarantined = (
                    workspace.content.put(encode_responses(part)) if len(part) else "" for part in parts
                )
                events = derive_return_events(
                    decision, standing, query_ids, accepted, as_of, requested_by, incident_ids, quarantined
                )
                if received.held:
                    kept = keep_held_file(workspace, site_id, received.held.data)
                    n_held = writing.count(FileHeld.kind, site_id)
                    events.append(derive_held_event(decision, kept, n_held, query_ids[0], as_of, requested_by))
                events += raise_alerts(workspace, writing, decision, received.reading, standing, as_of, requested_by)
                for appended in writing.append(events):
                    if appended.answer == "conflict":
                        raise DecisionRefused(
                            f"{site_id}: the ledger holds {appended.key} otherwise (row {appended.seq}). Nothing of "
                            f"the file {facts.sha256[:12]} was recorded; it stays in the inbox. Report this fault."
                        )
                # Before the commit: a file that counts as received always has its receipt.
                left_open = find_left_open(decision, standing)
                box.leave_receipt(
                    *write_receipt(workspace, decision, query_ids, as_of, incident_ids, received.reading, left_open)
                )
                snapshot.outdated.add(site_id)
                return decision
        snapshot = take_snapshot(workspace, afresh=True)


def _decide(
    workspace: Workspace, received: Received, standing: Standing, gate: SiteGate, requested_by: str
) -> Decision:
    study, instruments = workspace.study, workspace.instruments
    if received.held:
        return decide_held(received.facts, received.held.sending, received.held.places)
    if received.reading is None:
        return decide_quarantine(received.facts, received.rule, expected=received.expected)
    named = find_named_again(received.reading, study, instruments, standing)
    answers = read_standing_answers(workspace, standing, named)
    return decide_return(
        received.reading, received.facts, study, instruments, standing, answers, gate.today, requested_by, gate
    )


def _read_seals(workspace: Workspace, snapshot: Snapshot, files: Collection[str]) -> dict[str, bytes]:
    """The seal of each file that is still there, by its SHA-256."""
    for sha256 in set(files) - snapshot.seals.keys():
        with suppress(FileMissing):
            snapshot.seals[sha256] = derive_seal(workspace.content.get(sha256))
    return {sha256: snapshot.seals[sha256] for sha256 in files if sha256 in snapshot.seals}


def _identify_rows(
    workspace: Workspace, decision: Decision, received: Received, standing: Standing, snapshot: Snapshot
) -> Decision:
    """The decision with the queries about rows of nobody known that this file mends: their files are read again."""
    asked = find_unidentified(decision, standing)
    if not asked or received.reading is None:
        return decision
    for sha256 in {query.sha256 for query in asked.values()} - snapshot.readings.keys():
        with suppress(FileMissing, WorkbookUnreadable):
            package = inspect_package(workspace.content.get(sha256))
            reading = read_return_workbook(package, workspace.layout, site_id=decision.facts.site_id)
            snapshot.readings[sha256] = reading
    mended = find_identified(decision, received.reading, asked, snapshot.readings)
    return replace(decision, mended_elsewhere=decision.mended_elsewhere | mended)


@dataclass(frozen=True)
class Snapshot:
    """What this process read of the ledger last. `outdated`: sites about which it has recorded something since.
    `seals`, `readings`: of files, by SHA-256."""

    events: Events
    outdated: set[str] = field(default_factory=set)
    seals: dict[str, bytes] = field(default_factory=dict)
    readings: dict[str, Reading] = field(default_factory=dict, repr=False)
    _standing: dict[str, Standing] = field(default_factory=dict)
    _gates: dict[tuple[str, date], SiteGate] = field(default_factory=dict)

    @cached_property
    def homes(self) -> dict[str, str]:
        return derive_homes(self.events)

    def find_standing(self, site_id: str) -> Standing:
        if site_id not in self._standing:
            self._standing[site_id] = derive_standing(self.events, site_id, self.homes)
        return self._standing[site_id]

    def find_gate(self, study: Study, site_id: str, today: date) -> SiteGate:
        if (site_id, today) not in self._gates:
            self._gates[site_id, today] = SiteGate(study, self.events, site_id, today)
        return self._gates[site_id, today]


def take_snapshot(workspace: Workspace, *, afresh: bool = False) -> Snapshot:
    """What was read last, by this process and of this workspace; read again if asked for or never read.

    Sites are independent, so a round folds the ledger once for all of them: an older snapshot is good for a site about
    which nothing was recorded since, and `record_return` makes sure of that under the write lock.
    """
    if afresh or not isinstance(workspace.snapshot, Snapshot):
        workspace.snapshot = Snapshot(workspace.read_events())
    return workspace.snapshot


def read_standing_answers(workspace: Workspace, standing: Standing, named: Sequence[RecordKey]) -> pd.DataFrame:
    """Answers of these records, from the files that hold them."""
    if not named:
        return pd.DataFrame(columns=RESPONSE_COLUMNS)
    returns = pd.DataFrame(named, columns=RECORD_KEY)
    return read_answers(
        workspace, returns.assign(responses_sha256=[standing.records[key].responses_sha256 for key in named])
    )


def read_answers(workspace: Workspace, returns: pd.DataFrame) -> pd.DataFrame:
    """The long answers of accepted or held records (rows with RECORD_KEY and responses_sha256), as they were kept."""
    parts = []
    for sha256 in sorted(set(returns["responses_sha256"])):
        part = read_responses(workspace, sha256)
        parts.append(part.append_column("responses_sha256", pa.array([sha256] * len(part), pa.string())))
    if not parts:
        return pd.DataFrame(columns=[*RESPONSE_COLUMNS, "responses_sha256"])
    answers = pa.concat_tables(parts).to_pandas(date_as_object=False)
    keys = [*RECORD_KEY, "responses_sha256"]
    return answers.merge(returns[keys].drop_duplicates(), on=keys)


def read_answer_parts(workspace: Workspace, hashes: Collection[str]) -> Iterator[tuple[str, pa.Table]]:
    """The long answers of files, by SHA-256, in parts of at most ROWS_AT_ONCE rows; text as dictionaries."""
    for sha256 in sorted(hashes):
        data = _find_kept(workspace, sha256)
        if data is not None:
            file = pq.ParquetFile(io.BytesIO(data), read_dictionary=_TEXT_COLUMNS)
            for batch in file.iter_batches(ROWS_AT_ONCE, use_threads=False):
                yield sha256, pa.Table.from_batches([batch])


def read_responses(workspace: Workspace, sha256: str) -> pa.Table:
    """The answers of one file as they were kept; where it was erased, what others need of it, which may be nothing.

    Raises FileMissing for a file that is gone and that nobody decided to erase.
    """
    data = _find_kept(workspace, sha256)
    return RESPONSES_SCHEMA.empty_table() if data is None else pq.read_table(io.BytesIO(data), use_threads=False)


def _find_kept(workspace: Workspace, sha256: str) -> bytes | None:
    """A file of answers, or what took its place; None where it was erased and others need nothing of it."""
    try:
        return workspace.content.get(sha256)
    except FileMissing:
        held_by = find_replacement(derive_replacements(workspace.read_events()), sha256)
        if held_by == sha256:
            raise
        return _find_kept(workspace, held_by) if held_by else None


def encode_responses(responses: pd.DataFrame) -> bytes:
    """Answers, as `derive_responses` orders them, as Parquet; the same answers give the same bytes."""
    table = responses.assign(missing_reason=responses["missing_reason"].where(responses["missing_reason"] != ""))
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(table, RESPONSES_SCHEMA, preserve_index=False), sink, compression="zstd")
    return sink.getvalue()
