"""Erase what a person gave: decide, write again what others need, record what goes, and delete it.

In this order, so that a crash at any point loses nothing of others and lets nothing of the person into a dataset:

1. The decision is recorded, with role and reference. From then on every reading leaves the person's answers out.
2. Answers that were kept together with those of others are written again without them.
3. A tombstone is recorded for each file that goes: what it held is now in the file that it names, or nowhere.
4. The files are deleted. A run that finds a file with a tombstone deletes it, so a repeated run finishes.

What a site sent is deleted whole, since a workbook cannot be changed without becoming another: what others need of it
are the answers that were taken in. Judgement calls: files that could not be read are nobody's known answers and are
told of, for a person to look into; receipts hold no answers; releases are other people's copies too, so those that hold
something of the person are named, to be called back by a person, and stay as they were frozen. Backups are not in the
program's reach.
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from study.calendar import london_day
from study.erasure import (
    Extent,
    derive_erased,
    derive_given,
    derive_replacements,
    find_extent,
    find_replacement,
    is_erased,
)
from study.events import DataErased, ErasureDecided, Event, ReleaseFrozen, ReturnFileProcessed, ReturnRefused
from study.flat_files import is_import_document
from study.incidents import RECORD_KEY
from study.state import Events
from tasks.files import FileMissing
from tasks.ledger import LedgerRefused
from tasks.releases import RELEASES
from tasks.workbook_inspection import WorkbookUnreadable
from tasks.workbooks import read_return_workbook
from tasks.workspace import Workspace


class ErasureRefused(LedgerRefused):
    """Why nothing is erased, in one sentence."""


@dataclass(frozen=True)
class Erasure:
    """What an erasure concerns, before it and after it.

    extent: of the decision. answers and workbooks: files that hold something of it (SHA-256). unread: files of the site
    that nobody can read, so that nobody knows. releases: those that hold something of it, to be called back.
    """

    extent: Extent
    answers: tuple[str, ...]
    workbooks: tuple[str, ...]
    unread: tuple[str, ...]
    releases: tuple[str, ...]


def plan_erasure(workspace: Workspace, participant_id: str, *, is_all: bool = False) -> Erasure:
    """What erasing a participant's answers would concern; nothing is changed. `is_all`: beyond the agreed limit too.

    Raises ErasureRefused for somebody unknown, and FileMissing where answers are gone that no tombstone explains.
    """
    events = workspace.read_events()
    extent = _find_extent(workspace, events, participant_id, is_all=is_all)
    erased = _to_frame([extent])
    answers = [sha256 for sha256, _ in _find_answers(workspace, events, erased)]
    workbooks, unread = _find_workbooks(workspace, events, erased, everything=True)
    releases = _find_releases(workspace, events, erased)
    return Erasure(extent, tuple(answers), tuple(workbooks), tuple(unread), tuple(releases))


def erase_data(
    workspace: Workspace,
    participant_id: str,
    role: str,
    reference: str,
    requested_by: str,
    *,
    is_all: bool = False,
) -> Erasure:
    """Record the decision to erase what a participant gave, and carry it out. A repeated run finishes what a killed one
    began, and changes nothing where all is done. Raises what `plan_erasure` does."""
    planned = plan_erasure(workspace, participant_id, is_all=is_all)
    extent = planned.extent
    while True:
        events = workspace.read_events()
        decided = events.frame(ErasureDecided)
        own = decided[decided["participant_id"] == participant_id]
        reach = derive_erased(events).set_index("participant_id")["given_from"]
        if participant_id in reach.index and reach[participant_id] <= _to_frame([extent])["given_from"].iloc[0]:
            break
        with workspace.ledger.writing() as writing:
            if writing.newest_seq(participant_ids=[participant_id]) > events.head.seq:
                continue
            decision = ErasureDecided(
                occurred_on=london_day(workspace.clock()), requested_by=requested_by, site_id=extent.site_id,
                participant_id=participant_id, decision=len(own) + 1, given_from=extent.given_from, role=role,
                reference=reference,
            )  # fmt: skip
            writing.append([decision])
    finish_erasures(workspace, requested_by, workbooks_too=True)
    return planned


def finish_erasures(workspace: Workspace, requested_by: str, *, workbooks_too: bool = False) -> Counter[str]:
    """Carry out every decision to erase as far as it is not: new files that hold what was to be erased, and files whose
    tombstone stands and that are there all the same (a killed run, or a workbook sent again). Returns counts.

    Of workbooks it knows those from which something of the person was taken in or refused; with `workbooks_too` it
    reads all that the sites concerned have sent, which takes as long as reading them did. Cheap where nothing was
    erased.
    """
    counts: Counter[str] = Counter()
    while True:
        events = workspace.read_events()
        decided = events.frame(ErasureDecided)
        if not len(decided):
            return counts
        told = _derive_tombstones(workspace, events, requested_by, workbooks_too=workbooks_too)
        with workspace.ledger.writing() as writing:
            if writing.newest_seq(kinds=[DataErased.kind, ErasureDecided.kind]) > events.head.seq:
                continue
            counts["files erased"] = sum(appended.answer == "added" for appended in writing.append(told))
        break
    for sha256 in derive_replacements(workspace.read_events()):
        counts["files deleted"] += workspace.content.erase(sha256) if workspace.content.has(sha256) else 0
    return counts


def find_unfinished(workspace: Workspace, events: Events) -> list[str]:
    """Files (SHA-256) that the ledger says were erased, and that are there all the same."""
    return [sha256 for sha256 in derive_replacements(events) if workspace.content.has(sha256)]


def _find_extent(workspace: Workspace, events: Events, participant_id: str, *, is_all: bool) -> Extent:
    today = london_day(workspace.clock())
    extent = find_extent(workspace.study, events, participant_id, today, is_all=is_all)
    if extent is None:
        raise ErasureRefused(
            f"{participant_id} is no participant of {workspace.name} that the ledger knows. Correct the identifier."
        )
    return extent


def _to_frame(extents: Sequence[Extent]) -> pd.DataFrame:
    """As `derive_erased` gives it."""
    rows = [(one.participant_id, one.site_id, pd.Timestamp(one.given_from or date(1900, 1, 1))) for one in extents]
    frame = pd.DataFrame(rows, columns=["participant_id", "site_id", "given_from"])
    return frame.astype({"given_from": "datetime64[us]"})


def _derive_tombstones(workspace: Workspace, events: Events, requested_by: str, *, workbooks_too: bool) -> list[Event]:
    """A tombstone for each file that must go and has none; what others need is written first."""
    erased = derive_erased(events)
    decisions = events.frame(ErasureDecided).set_index("participant_id")[["role", "reference"]]
    today = london_day(workspace.clock())
    replacements = derive_replacements(events)
    told: list[Event] = []

    def bury(sha256: str, replaced_by: str, people: Collection[str], n_records: int) -> None:
        """`people`: whose decision it was; of several, the last one's reference is given."""
        replacements[sha256] = replaced_by
        own = decisions[decisions.index.isin(people)] if people else decisions
        tombstone = DataErased(
            occurred_on=today, requested_by=requested_by, sha256=sha256, replaced_by=replaced_by,
            reason="withdrawal_of_data", role=own["role"].iloc[-1], reference=own["reference"].iloc[-1],
            n_records=n_records,
        )  # fmt: skip
        told.append(tombstone)

    for sha256, table in _find_answers(workspace, events, erased):
        goes = _is_erased(table, erased)
        rest = table.filter(pa.array(~goes))
        records = table.select(RECORD_KEY).to_pandas()[goes].drop_duplicates()
        replaced_by = workspace.content.put(_encode(rest)) if len(rest) else ""
        bury(sha256, replaced_by, set(records["participant_id"]), len(records))
    answers = events.frame(ReturnFileProcessed).set_index("sha256")["responses_sha256"].to_dict()
    given = derive_given(events)
    given = given[is_erased(given, erased)]
    found, _ = _find_workbooks(workspace, events, erased, everything=workbooks_too)
    for sha256 in sorted(set(found) - replacements.keys()):
        own = given[given["source_sha256"] == sha256]
        bury(sha256, find_replacement(replacements, answers.get(sha256, "")), set(own["participant_id"]), len(own))
    return told


def _find_answers(workspace: Workspace, events: Events, erased: pd.DataFrame) -> Iterator[tuple[str, pa.Table]]:
    """The files of answers as they are now that hold something of what is erased, with what is in them."""
    replacements = derive_replacements(events)
    given = derive_given(events)
    own = given[is_erased(given, erased)]
    for sha256 in sorted({find_replacement(replacements, sha256) for sha256 in own["responses_sha256"]} - {""}):
        table = pq.read_table(io.BytesIO(workspace.content.get(sha256)), use_threads=False)
        if _is_erased(table, erased).any():
            yield sha256, table


def _is_erased(table: pa.Table, erased: pd.DataFrame) -> pd.Series[bool]:
    rows = table.select(["participant_id", "collected_on"]).to_pandas(date_as_object=False)
    return is_erased(rows, erased, "collected_on")


def _encode(table: pa.Table) -> bytes:
    """As the answers were written that these are a part of."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _find_workbooks(
    workspace: Workspace, events: Events, erased: pd.DataFrame, *, everything: bool
) -> tuple[list[str], list[str]]:
    """Files as they came from the sites concerned that hold answers of what is erased, and those nobody can read.

    A file from which something of it was taken in holds it. Others are read, those from which something of the person
    was refused, or with `everything` all of them: a repeated record is in no row that names the person.
    """
    given = derive_given(events)
    known = set(given[is_erased(given, erased)]["source_sha256"]) - {""}
    replacements = derive_replacements(events)
    files = events.frame(ReturnFileProcessed)
    files = files[files["site_id"].isin(erased["site_id"]) & ~files["sha256"].isin(list(replacements))]
    if not everything:
        refused = events.frame(ReturnRefused)
        refused = refused[refused["participant_id"].isin(erased["participant_id"])]
        files = files[files["sha256"].isin(refused["source_sha256"])]
    found, unread = {sha256 for sha256 in known if sha256 not in replacements}, []
    for sha256, site_id, reason in zip(files["sha256"], files["site_id"], files["reason"], strict=True):
        if sha256 in known:
            continue
        try:
            data = workspace.content.get(sha256)
            holds = not is_import_document(data) and _holds_answers(workspace, data, site_id, erased)
        except (FileMissing, WorkbookUnreadable, zipfile.BadZipFile):
            # One that was too large was never kept.
            unread += [sha256] if reason != "file_too_large" else []
            continue
        if holds:
            found.add(sha256)
    return sorted(found), sorted(set(unread))


def _holds_answers(workspace: Workspace, data: bytes, site_id: str, erased: pd.DataFrame) -> bool:
    reading = read_return_workbook(data, workspace.layout, site_id=site_id)
    for code, sheet in reading.sheets.items():
        frame = sheet.frame
        if code not in workspace.instruments or not {"participant_id", "collected_on"} <= set(frame.columns):
            continue
        # A row whose day cannot be read may be of any day.
        days = pd.to_datetime(frame["collected_on"], errors="coerce").fillna(pd.Timestamp("2200-12-31"))
        rows = pd.DataFrame({"participant_id": frame["participant_id"].astype("str"), "collected_on": days})
        if is_erased(rows, erased, "collected_on").any():
            return True
    return False


def _find_releases(workspace: Workspace, events: Events, erased: pd.DataFrame) -> list[str]:
    """Releases whose answers hold something of what is erased, oldest first."""
    found = []
    for release in events.frame(ReleaseFrozen)["release"]:
        try:
            data = workspace.area.get(f"{RELEASES}/{release}/data/responses.parquet")
        except FileMissing:
            continue
        parts = pq.ParquetFile(io.BytesIO(data)).iter_batches(use_threads=False)
        if any(_is_erased(pa.Table.from_batches([part]), erased).any() for part in parts):
            found.append(str(release))
    return found


def list_recalled(workspace: Workspace, events: Events) -> Mapping[str, str]:
    """Releases that hold what was erased since they were frozen, and so cannot be rebuilt; each with where it lies."""
    erased = derive_erased(events)
    if erased.empty:
        return {}
    place = f"{workspace.area.place}/{RELEASES}"
    return {release: f"{place}/{release}" for release in _find_releases(workspace, events, erased)}
