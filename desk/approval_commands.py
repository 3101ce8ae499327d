"""`summative approvals`: how steps of approvals come in, by command, by the tracker workbook and from other tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.markup import escape
from rich.table import Table

from desk.options import ByOption, StudyArgument, err, find_day, find_site_id, open_study, out, parse_day, write_file
from study.approval_entries import ENTRY_STEPS, Entry, EntryFault, find_item, parse_written_day
from study.approval_steps import ITEM
from study.approval_tracker import derive_tracker, describe_standing
from study.approvals import derive_approvals
from study.calendar import london_day
from study.events import (
    ApprovalEvent,
    DocumentVersionIssued,
    DutyDone,
    Event,
    ModificationIntroduced,
    ModificationSupplied,
    VoidReason,
)
from study.instruments import find_suggestion
from study.modifications import derive_document_versions, derive_modifications
from tasks.approval_recording import (
    FileRecorded,
    Recorded,
    describe_conflict,
    describe_event,
    find_letter,
    list_letters,
    record_change,
    record_rows,
    record_step,
    void_record,
)
from tasks.approval_tracker import SHEET, read_tracker, write_tracker
from tasks.imports import parse_map, propose_map, read_table
from tasks.workbook_inspection import WorkbookUnreadable
from tasks.workspace import Workspace

approvals_app = typer.Typer(
    help="Approvals: record what happened, one step at a time, by the tracker workbook, or from another table.",
    no_args_is_help=True,
)

OnOption = Annotated[str, typer.Option("--on", help="The day: 2017-02-13, 13/02/2017 (day first) or 13 Feb 2017.")]
SiteOption = Annotated[str, typer.Option("--site", help="The site: its id, name or code.")]
BodyOption = Annotated[str, typer.Option("--body", help="The body at the site: its id or name.")]
PersonOption = Annotated[str, typer.Option("--person", help="The person's code, where it concerns one. No name.")]
ModificationOption = Annotated[str, typer.Option("--modification", help="The modification's reference.")]
LetterOption = Annotated[str, typer.Option("--letter", help="The letter's reference.")]
FileOption = Annotated[Path | None, typer.Option("--file", help="The letter itself, a PDF.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be recorded.")]


@contextmanager
def _telling_faults() -> Iterator[None]:
    """What a person can get wrong is said in full, one line each, and nothing is recorded."""
    try:
        yield
    except EntryFault as fault:
        _refuse(fault.faults)
    except WorkbookUnreadable as fault:
        _refuse([str(fault)])


def _refuse(faults: list[str]) -> None:
    for text in faults:
        err.print(f"[red]✗[/red] {escape(text)}", soft_wrap=True)
    err.print("Nothing was recorded.")
    raise typer.Exit(1)


def _parse_day(text: str, option: str) -> date | None:
    try:
        return parse_written_day(text)
    except EntryFault as fault:
        raise EntryFault(f"{option}: {fault}") from None


def _require_day(text: str, option: str = "--on") -> date:
    day = _parse_day(text, option)
    if day is None:
        raise EntryFault(f"{option}: no day is given. Write it as 2017-02-13.")
    return day


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as fault:
        raise EntryFault(f"{path}: cannot be read ({fault.strerror}).") from None


def _tell(workspace: Workspace, recorded: Recorded) -> None:
    """Added, the same before, or a conflict; a conflict ends with code 1."""
    text = describe_event(recorded.event)
    if recorded.answer == "conflict":
        err.print(f"[red]✗[/red] {escape(text)}: the ledger holds it otherwise.", soft_wrap=True)
        err.print(escape(describe_conflict(workspace, recorded)), soft_wrap=True)
        raise typer.Exit(1)
    if recorded.answer == "same":
        out.print(
            f"{escape(text)}: the same was recorded before (row {recorded.seq}). Nothing was changed.", soft_wrap=True
        )
    else:
        out.print(f"[green]Recorded[/green] (row {recorded.seq}): {escape(text)}.", soft_wrap=True)
    if isinstance(recorded.event, ApprovalEvent):
        _tell_standing(workspace, recorded.event)


def _tell_standing(workspace: Workspace, event: ApprovalEvent) -> None:
    today = london_day(workspace.clock())
    derive: Callable[..., pd.DataFrame] = derive_modifications if event.modification else derive_approvals
    standing = derive(workspace.study, workspace.read_events(), today)
    item = [getattr(event, name) for name in ITEM]
    for row in standing.loc[(standing[ITEM] == item).all(axis="columns")].itertuples(index=False):
        out.print(escape(describe_standing(workspace.study, row)), soft_wrap=True)


@approvals_app.command()
def record(
    study: StudyArgument,
    approval: Annotated[str, typer.Argument(help="The approval: its id, such as council_governance, or its label.")],
    step: Annotated[str, typer.Argument(help=f"What happened: {', '.join(ENTRY_STEPS)}.")],
    on: OnOption,
    by: ByOption,
    site: SiteOption = "",
    body: BodyOption = "",
    person: PersonOption = "",
    modification: ModificationOption = "",
    attempt: Annotated[
        int | None, typer.Option(min=1, help="Left out: the present one; for resubmitted the next.")
    ] = None,
    route: Annotated[str, typer.Option(help="How it was sought. Left out: the only route possible.")] = "",
    letter: LetterOption = "",
    file: FileOption = None,
    condition: Annotated[list[str] | None, typer.Option(help="A condition's short code; give it for each.")] = None,
    in_force_from: Annotated[str, typer.Option(help="If the letter says another day than the decision.")] = "",
    expires: Annotated[str, typer.Option(help="The last day of force, if the letter states one.")] = "",
    request: Annotated[
        int | None,
        typer.Option("--request", "--number", min=1, help="Which request or renewal; left out, the open or next one."),
    ] = None,
    withdrawn_by: Annotated[str, typer.Option(help='Who withdrew it: "applicant" or "authority".')] = "",
    correct: Annotated[
        VoidReason | None,
        typer.Option(help="Put this in the place of what is on record of this step, for this reason."),
    ] = None,
) -> None:
    """Record one step of an approval. What is left out is filled in: the present attempt, the open request, the only
    route or body."""
    workspace = open_study(study)
    with _telling_faults():
        word = step.strip().casefold().replace(" ", "_").replace("-", "_")
        if word not in ENTRY_STEPS:
            hint = find_suggestion(word, ENTRY_STEPS)
            raise EntryFault(f'"{step}" is no step. Use one of: {", ".join(ENTRY_STEPS)}.{hint}')
        fields: dict[str, Any] = {}
        if condition:
            fields |= {"condition": condition[0]} if word == "condition_met" else {"conditions": tuple(condition)}
        if withdrawn_by:
            fields["withdrawn_by"] = withdrawn_by
        for name, text, option in (
            ("in_force_from", in_force_from, "--in-force-from"),
            ("expires_on", expires, "--expires"),
        ):
            if text:
                fields[name] = _parse_day(text, option)
        item = find_item(workspace.study, approval, site, body, person, modification)
        data = _read_file(file) if file else None
        entry = Entry(word, item, _require_day(on), attempt, request, route, letter, fields=fields)
        recorded = record_step(workspace, entry, by, letter=data, corrects=correct)
    _tell(workspace, recorded)


@approvals_app.command()
def void(
    study: StudyArgument,
    row: Annotated[str, typer.Argument(help="The row's number in the ledger, or its key.")],
    reason: Annotated[VoidReason, typer.Option(help="Why it was a mistake.")],
    by: ByOption,
) -> None:
    """Take back a record that was a mistake. It stays in the ledger, marked; then the right one can be recorded."""
    workspace = open_study(study)
    with _telling_faults():
        event = void_record(workspace, row, reason, by)
    out.print(f"Voided ({reason.replace('_', ' ')}): {escape(describe_event(event))}.", soft_wrap=True)
    if isinstance(event, ApprovalEvent):
        _tell_standing(workspace, event)


@approvals_app.command()
def letter(
    study: StudyArgument,
    which: Annotated[str, typer.Argument(help="The approval, or the first 8 or more signs of the SHA-256.")],
    to: Annotated[Path, typer.Option("--to", help="The file to write.")],
    site: SiteOption = "",
    body: BodyOption = "",
    person: PersonOption = "",
    modification: ModificationOption = "",
) -> None:
    """Get a letter out again that was kept with a step."""
    workspace = open_study(study)
    with _telling_faults():
        events = workspace.read_events()
        is_hash = any(sha256.startswith(which.lower()) for sha256, _ in list_letters(events)) and len(which) >= 8
        item = None if is_hash else find_item(workspace.study, which, site, body, person, modification)
        sha256 = find_letter(events, which, item)
        data = workspace.content.get(sha256)
        if to.exists():
            raise EntryFault(f"{to} is there already. Give another name; nothing is overwritten.")
        write_file(to, data)
    out.print(f"Written: {to} (SHA-256 {sha256}, {len(data):,} bytes)", soft_wrap=True, markup=False)


# Modifications, documents, duties -----------------------------------------------------------------------------------


def _make(kind: type[Event], **fields: Any) -> Event:
    try:
        return kind(**fields)
    except ValueError as fault:
        wrong = {str(error["loc"][0]).replace("_", " ") for error in getattr(fault, "errors", list)()}
        raise EntryFault(
            f"{', '.join(sorted(wrong))}: cannot be kept as it is. Use a code of letters, digits and spaces, no colon."
        ) from None


@approvals_app.command()
def modification(
    study: StudyArgument,
    reference: Annotated[str, typer.Argument(help="The modification's own reference, such as SA01.")],
    category: Annotated[str, typer.Option(help="A: all NHS bodies consider it; B: some; C: none has to.")],
    on: OnOption,
    by: ByOption,
    substantial: Annotated[bool, typer.Option("--substantial/--non-substantial", help="Whether the REC reviews it.")],
    body: Annotated[list[str] | None, typer.Option("--body", help="Only these bodies; left out, all.")] = None,
) -> None:
    """Record that a change of the approved study was introduced. It is put to every body that has a say in it."""
    workspace = open_study(study)
    with _telling_faults():
        fields = {"modification": reference, "category": category.upper(), "is_substantial": substantial}
        event = _make(
            ModificationIntroduced,
            occurred_on=_require_day(on), requested_by=by, body_ids=tuple(body or ()), **fields,
        )  # fmt: skip
        recorded = record_change(workspace, event)
    _tell(workspace, recorded)
    items = derive_modifications(workspace.study, workspace.read_events(), find_day(workspace))
    out.print(f"It is put to {(items['modification'] == reference).sum()} approvals at bodies, sites and the study.")


@approvals_app.command()
def supply(
    study: StudyArgument,
    reference: Annotated[str, typer.Argument(help="The modification's reference.")],
    on: OnOption,
    by: ByOption,
    site: Annotated[str, typer.Option("--site", help="Only to the bodies of this site.")] = "",
    letter: LetterOption = "",
) -> None:
    """Record that the sponsor supplied a modification to every body, or to those of one site."""
    workspace = open_study(study)
    with _telling_faults():
        event = _make(
            ModificationSupplied,
            occurred_on=_require_day(on), requested_by=by, site_id=find_site_id(workspace, site),
            modification=reference, letter=letter,
        )  # fmt: skip
        recorded = record_change(workspace, event)
    _tell(workspace, recorded)


@approvals_app.command()
def document(
    study: StudyArgument,
    document: Annotated[str, typer.Argument(help="The document: its id, such as consent_form.")],
    version: Annotated[str, typer.Argument(help="The version, as it stands on the document.")],
    on: OnOption,
    by: ByOption,
    approval: Annotated[str, typer.Option(help="The approval that it was sent in with.")] = "",
    modification: ModificationOption = "",
    file: FileOption = None,
) -> None:
    """Record a version of a document. It is in force at a site once what it was sent in with is approved there."""
    workspace = open_study(study)
    with _telling_faults():
        data = _read_file(file) if file else None
        event = _make(
            DocumentVersionIssued,
            occurred_on=_require_day(on), requested_by=by, document=document, version=version, approval=approval,
            modification=modification,
        )  # fmt: skip
        recorded = record_change(workspace, event, file=data)
    _tell(workspace, recorded)


@approvals_app.command()
def duty(
    study: StudyArgument,
    duty: Annotated[str, typer.Argument(help="The duty: its id, such as funder_report.")],
    due: Annotated[str, typer.Option("--due", help="The day on which it fell due.")],
    on: OnOption,
    by: ByOption,
    site: SiteOption = "",
    letter: LetterOption = "",
    file: FileOption = None,
) -> None:
    """Record that a duty of the study, such as a report, was done for the time at which it fell due."""
    workspace = open_study(study)
    with _telling_faults():
        data = _read_file(file) if file else None
        event = _make(
            DutyDone,
            occurred_on=_require_day(on), requested_by=by, site_id=find_site_id(workspace, site), duty=duty,
            due_on=_require_day(due, "--due"), letter=letter,
        )  # fmt: skip
        recorded = record_change(workspace, event, file=data)
    _tell(workspace, recorded)


@approvals_app.command()
def versions(
    study: StudyArgument,
    on: Annotated[str, typer.Option("--on", help="The day; left out, today.")] = "",
    site: Annotated[str, typer.Option("--site", help="Only this site.")] = "",
) -> None:
    """Which version of each document is in force at each site on a day."""
    workspace = open_study(study)
    site = find_site_id(workspace, site)
    today = find_day(workspace)
    day = parse_day(on) or today
    found = derive_document_versions(workspace.study, workspace.read_events(), max(day, today))
    stamp = pd.Timestamp(day)
    found = found.loc[(found["from_on"] <= stamp) & (stamp <= found["until_on"])]
    versions = found.set_index(["site_id", "document"])["version"]
    since = found.set_index(["site_id", "document"])["from_on"]
    documents = workspace.study.pathway.documents
    table = Table("Site", *(document.label for document in documents))
    for place in workspace.study.sites:
        if site not in ("", place.site_id):
            continue
        cells = []
        for document in documents:
            key = (place.site_id, document.id)
            cells.append(f"{versions[key]} since {since[key]:%Y-%m-%d}" if key in versions.index else "none in force")
        table.add_row(place.name, *cells)
    out.print(table)
    out.print(f"As of {day}.")


# Whole files --------------------------------------------------------------------------------------------------------


@approvals_app.command()
def tracker(
    study: StudyArgument,
    to: Annotated[Path | None, typer.Option("--to", help="The file to write; left out, in the study's files.")] = None,
) -> None:
    """Write the approvals tracker: a workbook to fill in and to read back with `read`."""
    workspace = open_study(study)
    today = london_day(workspace.clock())
    events = workspace.read_events()
    rows = derive_tracker(workspace.study, events, today)
    data = write_tracker(workspace.study, rows, events.head, today)
    name = f"{workspace.study.study_id}-approvals-tracker.xlsx"
    if to is None:
        key = f"approvals/{name}"
        workspace.area.put(key, data)
        place = f"{workspace.area.place}/{key}"
    else:
        write_file(to, data)
        place = str(to)
    out.print(f"Written: {place} ({len(rows)} rows)", soft_wrap=True, markup=False)


@approvals_app.command(name="read")
def read_back(
    study: StudyArgument,
    file: Annotated[Path, typer.Argument(help="The tracker that was filled in.")],
    by: ByOption,
    dry_run: DryRunOption = False,
) -> None:
    """Read a tracker back: what was filled in is recorded, row by row; every fault is told with its cell."""
    workspace = open_study(study)
    with _telling_faults():
        data = _read_file(file)
        reading = read_tracker(data, workspace.study, workspace.read_events())
        if reading.is_refused:
            raise EntryFault(*(fault.text for fault in reading.faults))
        recorded = record_rows(workspace, data, SHEET, reading.rows, by, dry_run=dry_run)
    recorded.faults += reading.faults
    _tell_file(recorded, reading.notes, dry_run)


@approvals_app.command(name="import")
def import_table(
    study: StudyArgument,
    file: Annotated[Path, typer.Argument(help="A CSV file.")],
    by: ByOption,
    mapped: Annotated[Path | None, typer.Option("--map", help="A TOML file: which column is what.")] = None,
    propose: Annotated[bool, typer.Option("--propose", help="Only print a map to begin with.")] = False,
    dry_run: DryRunOption = False,
) -> None:
    """Import steps from a table that was kept elsewhere. They are recorded now, with the days that it claims."""
    workspace = open_study(study)
    with _telling_faults():
        data = _read_file(file)
        if propose:
            out.print(propose_map(data, workspace.study), soft_wrap=True, markup=False)
            return
        if mapped is None:
            raise EntryFault("no --map is given. Begin one with --propose.")
        reading = read_table(data, workspace.study, parse_map(_read_file(mapped), mapped.name))
        recorded = record_rows(workspace, data, "", reading.rows, by, dry_run=dry_run)
    recorded.faults += reading.faults
    _tell_file(recorded, reading.notes, dry_run)


def _tell_file(recorded: FileRecorded, notes: list[str], dry_run: bool) -> None:
    for note in notes:
        out.print(f"[yellow]·[/yellow] {escape(note)}", soft_wrap=True)
    for row, event in recorded.added:
        out.print(f"  row {row}: {escape(describe_event(event))}", soft_wrap=True)
    faults = sorted(recorded.faults, key=lambda fault: fault.row)
    for fault in faults:
        err.print(f"[red]✗[/red] {escape(fault.text)}", soft_wrap=True)
    verb = "Would be recorded" if dry_run else "Recorded"
    parts = [f"{verb}: {len(recorded.added)} steps"]
    if recorded.n_known:
        parts.append(f"{recorded.n_known} were on record already")
    n_rows = len({fault.row for fault in faults if fault.row})
    if n_rows:
        parts.append(f"not taken: {n_rows} rows, each whole (see above)")
    out.print(f"{'; '.join(parts)}.")
    if not dry_run:
        out.print(f"The file is kept as SHA-256 {recorded.sha256}.", soft_wrap=True)
    if faults:
        raise typer.Exit(1)
