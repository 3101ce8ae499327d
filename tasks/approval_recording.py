"""Record steps of approvals: decided on the ledger as it stands, appended under its lock, with letters and files kept.

Nobody overwrites anybody: what the ledger holds otherwise stays, the person is told who told it and when, and that it
was told otherwise is a row of the ledger too. A mistake is voided, or voided and told anew in one append.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from study.approval_entries import (
    RECORDED_KINDS,
    Entry,
    EntryFault,
    complete_entry,
    find_entry_faults,
    find_orphans,
    foresee,
    list_standing,
)
from study.approval_steps import ITEM, STEPS, Item, derive_steps
from study.approval_tracker import Decision, Fault, FilledRow, decide_rows
from study.approvals import find_recording_faults
from study.calendar import LONDON, london_day
from study.duties import find_duty_faults
from study.events import (
    ApprovalEvent,
    DocumentVersionIssued,
    DutyDone,
    Event,
    ModificationIntroduced,
    ModificationSupplied,
    Source,
    Voided,
    VoidReason,
)
from study.instruments import find_suggestion
from study.modifications import find_modification_faults
from study.state import Events
from tasks.ledger import Answer, Appended
from tasks.workbook_inspection import MEGABYTE
from tasks.workspace import Workspace

MAX_LETTER_BYTES = 25 * MEGABYTE
_KINDS = [*(kind.kind for kind in RECORDED_KINDS), Voided.kind]
_END_BYTES = 2048  # of a PDF, where its end marker must be; some programs write a line or two behind it


@dataclass(frozen=True)
class Recorded:
    """What became of one event. `seq`: its row in the ledger, or the one that stands instead."""

    event: Event
    answer: Answer
    seq: int


def record_events(
    workspace: Workspace, decide: Callable[[Events], Sequence[Event]], keep: Sequence[bytes] = ()
) -> list[Recorded]:
    """Append what `decide` makes of the ledger, and first keep these files by content.

    Decided without a lock; if anything about approvals was recorded meanwhile, decided again. What `decide` raises
    leaves nothing recorded and no file kept.
    """
    while True:
        events = workspace.read_events()
        told = list(decide(events))
        if not told:
            return []
        for data in keep:
            workspace.content.put(data)
        with workspace.ledger.writing() as writing:
            if writing.newest_seq(kinds=_KINDS) <= events.head.seq:
                return [_answer(event, appended) for event, appended in zip(told, writing.append(told), strict=True)]


def _answer(event: Event, appended: Appended) -> Recorded:
    return Recorded(event, appended.answer, appended.seq)


# One step -----------------------------------------------------------------------------------------------------------


def record_step(
    workspace: Workspace,
    entry: Entry,
    requested_by: str,
    *,
    letter: bytes | None = None,
    corrects: VoidReason | None = None,
) -> Recorded:
    """Record one step of an approval. With `corrects`, the record of the same step is voided for that reason and this
    one put in its place, in one append; what can't stand beside it then is a fault. Raises EntryFault."""
    today = london_day(workspace.clock())
    study = workspace.study
    if letter is not None:
        entry = replace(entry, letter_sha256=require_pdf(letter))

    def decide(events: Events) -> list[Event]:
        steps = derive_steps(study, events, today)
        event = complete_entry(study, events, steps, entry, requested_by)
        standing = [pair for pair in list_standing(events, tuple(STEPS)) if pair[0].key == event.key]
        event = _keep_letter(event, standing)
        if corrects is None:
            faults = find_entry_faults(study, events, steps, event, today)
            if faults:
                raise EntryFault(*faults)
            return [event]
        if not standing:
            text = "nothing is on record to correct. Leave --correct out, or give its --number."
            raise EntryFault(f"{entry.item}: {text}")
        ((stands, row),) = standing
        if (stands.kind, stands.occurred_on, stands.encode_payload()) == (
            *(event.kind, event.occurred_on),
            event.encode_payload(),
        ):
            return [event]  # the same already: the ledger says so
        void = Voided(occurred_on=today, requested_by=requested_by, voids=row["hash"], reason=corrects)
        after = foresee(events, [void])
        faults = find_recording_faults(study, after, event, today, derive_steps(study, after, today))
        faults = faults or [f"not with {text}" for text in find_orphans(study, events, [void, event], today)]
        if faults:
            raise EntryFault(*faults)
        return [void, event]

    return record_events(workspace, decide, [letter] if letter is not None else [])[-1]


def _keep_letter(event: ApprovalEvent, standing: Sequence[tuple[Event, Mapping[str, Any]]]) -> ApprovalEvent:
    """A step told again, or corrected, keeps the letter that is on record of it, unless it brings one of its own."""
    for stands, _ in standing:
        if isinstance(stands, ApprovalEvent):
            kept = {name: getattr(stands, name) for name in ("letter", "letter_sha256") if not getattr(event, name)}
            return event.model_copy(update=kept)
    return event


def describe_conflict(workspace: Workspace, recorded: Recorded) -> str:
    """What stands, who told it and when, what was told now, and how to correct the record."""
    told = recorded.event
    standing, row = next(pair for pair in list_standing(workspace.read_events()) if pair[1]["seq"] == recorded.seq)
    stands, now = _describe_fields(standing), _describe_fields(told)
    differing = [name for name in {**stands, **now} if stands.get(name) != now.get(name)]

    def show(fields: dict[str, str]) -> str:
        return ", ".join(f"{name} {fields.get(name) or 'none'}" for name in differing)

    at = row["recorded_at"].astimezone(LONDON)
    return (
        f"Row {recorded.seq} of the ledger has: {show(stands)}, told by {row['requested_by']} on "
        f"{at:%Y-%m-%d at %H:%M}. You told: {show(now)}. Nothing was overwritten; that you told it otherwise is kept "
        "too. If the record is wrong, give the same command with --correct wrong_date (or entered_in_error), or take "
        f"the row away: summative approvals void {workspace.name} {recorded.seq} --reason entered_in_error --by NAME"
    )


def _describe_fields(event: Event) -> dict[str, str]:
    fields = {"step": event.kind.removeprefix("approval_").replace("_", " "), "date": event.occurred_on.isoformat()}
    for name in event.payload_types:
        value = getattr(event, name)
        if value not in (None, "", ()):
            shown = ", ".join(value) if isinstance(value, tuple) else str(value)
            fields[name.replace("_", " ")] = shown[:12] if name.endswith("sha256") else shown
    return fields


# Modifications, documents, duties -----------------------------------------------------------------------------------


def record_change(workspace: Workspace, event: Event, *, file: bytes | None = None) -> Recorded:
    """Record a modification, its supply, a version of a document or a duty done, with its letter or the document itself
    as a PDF. Raises EntryFault."""
    today = london_day(workspace.clock())
    study = workspace.study
    if file is not None:
        name = "letter_sha256" if isinstance(event, DutyDone) else "file_sha256"
        event = event.model_copy(update={name: require_pdf(file)})

    def decide(events: Events) -> list[Event]:
        if isinstance(event, DutyDone):
            faults = find_duty_faults(study, events, event, today)
        else:
            faults = find_modification_faults(study, events, event, today)
        if faults:
            raise EntryFault(*faults)
        return [event]

    return record_events(workspace, decide, [file] if file is not None else [])[0]


# Voids --------------------------------------------------------------------------------------------------------------


def void_record(workspace: Workspace, reference: str, reason: VoidReason, requested_by: str) -> Event:
    """Void a row, named by its number or its key, of what is recorded of approvals; the event that it held.

    Raises EntryFault where there is no such row, or where later records rest on it: those are named.
    """
    today = london_day(workspace.clock())
    found: list[Event] = []

    def decide(events: Events) -> list[Event]:
        event, digest = _find_row(workspace, events, reference)
        found[:] = [event]
        void = Voided(occurred_on=today, requested_by=requested_by, voids=digest, reason=reason)
        orphans = find_orphans(workspace.study, events, [void], today)
        if orphans:
            raise EntryFault(
                f"Other records rest on it: {reference}. Void those first, the last one first; or, to change a date, "
                "tell the step again with --correct.",
                *orphans,
            )
        return [void]

    record_events(workspace, decide)
    return found[0]


def _find_row(workspace: Workspace, events: Events, reference: str) -> tuple[Event, str]:
    for event, row in list_standing(events):
        if reference in (str(row["seq"]), event.key):
            return event, str(row["hash"])
    seq = int(reference) if reference.isascii() and reference.isdigit() else 0
    for kind, table in events.tables.items():
        if seq in table["seq"].to_pylist() if seq else reference in table["key"].to_pylist():
            if kind in _KINDS[:-1]:
                raise EntryFault(f"{reference}: that row is voided already. Nothing was changed.")
            raise EntryFault(f'{reference}: that row is "{kind.replace("_", " ")}", which is not voided here.')
    raise EntryFault(
        f"{reference}: {workspace.name} has no such row. Give the number or the key of one: summative ledger "
        f"{workspace.name}"
    )


# Letters ------------------------------------------------------------------------------------------------------------


def require_pdf(data: bytes) -> str:
    """The SHA-256 of a PDF. Refuses what does not begin and end like one. Raises EntryFault."""
    if not data:
        raise EntryFault("The file is empty. Attach the letter as a PDF.")
    if len(data) > MAX_LETTER_BYTES:
        raise EntryFault(f"The file is larger than {MAX_LETTER_BYTES // MEGABYTE} MB. Attach a smaller PDF.")
    if b"%PDF-" not in data[:1024]:
        raise EntryFault(
            "The file is not a PDF, whatever its name says. Save or scan the letter as a PDF and attach that."
        )
    if b"%%EOF" not in data[-_END_BYTES:]:
        raise EntryFault("The end of the PDF is missing: it was cut off on its way. Get the letter again, attach that.")
    return hashlib.sha256(data).hexdigest()


def list_letters(events: Events) -> list[tuple[str, Event]]:
    """Files that approvals, duties and documents refer to: SHA-256 and the event, oldest first."""
    found = []
    for event, _ in list_standing(events):
        sha256 = getattr(event, "letter_sha256", "") or getattr(event, "file_sha256", "")
        if sha256:
            found.append((str(sha256), event))
    return found


def find_letter(events: Events, reference: str, item: Item | None) -> str:
    """The SHA-256 of the one letter that is meant: by its item, or the beginning of its SHA-256. Raises EntryFault."""
    letters = list_letters(events)
    if item is not None:
        own = [pair for pair in letters if all(getattr(pair[1], name, None) == getattr(item, name) for name in ITEM)]
        called = str(item)
    else:
        own = [pair for pair in letters if len(reference) >= 8 and pair[0].startswith(reference.lower())]
        called = f'"{reference}"'
    hashes = dict.fromkeys(sha256 for sha256, _ in own)
    if not hashes:
        hint = find_suggestion(reference, [sha256 for sha256, _ in letters])
        raise EntryFault(f"No letter is kept of {called}.{hint}")
    if len(hashes) > 1:
        lines = [f"{sha256[:16]}: {event.kind.replace('_', ' ')} on {event.occurred_on}" for sha256, event in own]
        raise EntryFault(f"Several letters are kept of {called}. Name one by its SHA-256.", *lines)
    return next(iter(hashes))


# Whole files --------------------------------------------------------------------------------------------------------


@dataclass
class FileRecorded:
    """What became of a file of rows. `added`: steps with the number of their row."""

    sha256: str
    added: Sequence[tuple[int, Event]] = ()
    n_rows: int = 0
    n_unchanged: int = 0
    n_known: int = 0
    n_refused: int = 0
    faults: list[Fault] = field(default_factory=list)


def record_rows(
    workspace: Workspace,
    data: bytes,
    sheet: str,
    rows: Sequence[FilledRow],
    requested_by: str,
    *,
    dry_run: bool = False,
) -> FileRecorded:
    """Record what follows from the rows of a file, and keep the file by its SHA-256. `sheet`: its title in the file.

    A row is recorded whole or not at all; rows with a fault hinder no others. With `dry_run` nothing is recorded.
    """
    today = london_day(workspace.clock())
    sha256 = hashlib.sha256(data).hexdigest()
    decision = Decision()

    def find_source(row: int) -> Source:
        return Source(sha256=sha256, sheet=sheet, row=row)

    def decide(events: Events) -> list[Event]:
        nonlocal decision
        decision = decide_rows(workspace.study, events, rows, requested_by, today, find_source)
        return [event for _, event in (*decision.told, *decision.refused)]

    if dry_run:
        decide(workspace.read_events())
        answers = [Recorded(event, "added", 0) for _, event in decision.told]
    else:
        workspace.content.put(data)  # whatever becomes of its rows: what came in is never lost
        answers = record_events(workspace, decide)
    told = decision.told
    added = [
        (row, event)
        for (row, event), recorded in zip(told, answers[: len(told)], strict=True)
        if recorded.answer == "added"
    ]
    return FileRecorded(
        sha256,
        added,
        len(rows),
        decision.n_unchanged,
        decision.n_known + len(told) - len(added),
        len(decision.refused),
        decision.faults,
    )


def describe_event(event: Event) -> str:
    """One recorded step in a line: "rec: granted on 2017-02-11"."""
    what = event.kind.removeprefix("approval_").replace("_", " ")
    if isinstance(event, ApprovalEvent):
        item = Item.of(event)
        attempt = f", attempt {event.attempt}" if event.attempt > 1 else ""
        number = getattr(event, "request", getattr(event, "renewal", 1))
        nth = f" (number {number})" if number > 1 else ""
        return f"{item}: {what}{nth} on {event.occurred_on}{attempt}"
    if isinstance(event, ModificationIntroduced | ModificationSupplied):
        place = f" to {event.site_id}" if event.site_id else ""
        return f"{event.modification}: {what}{place} on {event.occurred_on}"
    if isinstance(event, DocumentVersionIssued):
        return f"{event.document} {event.version}: issued on {event.occurred_on}"
    if isinstance(event, DutyDone):
        return f"{event.duty} due on {event.due_on}: done on {event.occurred_on}"
    return f"{what} on {event.occurred_on}"
