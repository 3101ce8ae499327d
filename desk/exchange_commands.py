"""Other tools: `summative instruments from-redcap`, `to-xlsform` and the like; `summative returns from-export`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from desk.instrument_commands import instruments_app
from desk.options import StudyArgument, err, find_past_day, open_study, out, print_table, write_file
from study.approval_entries import EntryFault
from study.exchange import NotCarried, Translated, Wording
from study.instruments import DefinitionFaults, Instrument
from tasks.definitions import InstrumentNotFound, check_instrument, load_instrument
from tasks.exchange import (
    read_dictionary,
    read_wording,
    read_xlsform,
    write_dictionary,
    write_drafts,
    write_wording,
    write_xlsform,
)
from tasks.flat_exports import list_sources, load_source, post_export, read_export
from tasks.pages import format_counted

returns_app = typer.Typer(help="Returns that arrive as exports of other tools.", no_args_is_help=True)

FileArgument = Annotated[Path, typer.Argument(help="The file.")]
FolderOption = Annotated[
    Path | None, typer.Option("--to", help="Where definitions are put; left out, with the others.")
]
FormOption = Annotated[list[str] | None, typer.Option("--form", help="Only this form of the file; may be repeated.")]
TargetOption = Annotated[Path, typer.Option("--to", help="The file to write. One that is there is not overwritten.")]
PartedOption = Annotated[
    Path | None,
    typer.Option("--wording-to", help="Put the wording into this file, and only names and codes into definitions."),
]
WordingOption = Annotated[
    Path | None, typer.Option(help="The study's own wording: a CSV file with item, code, text. Else neutral labels go.")
]


@contextmanager
def telling_faults() -> Iterator[None]:
    """What a person can get wrong is said in full, one line each."""
    try:
        yield
    except EntryFault as fault:
        for text in fault.faults:
            err.print(f"[red]✗[/red] {escape(text)}", soft_wrap=True)
        raise typer.Exit(1) from None


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as fault:
        raise EntryFault(f"{path}: cannot be read ({fault.strerror}).") from None


@instruments_app.command()
def from_redcap(
    file: FileArgument, to: FolderOption = None, form: FormOption = None, wording_to: PartedOption = None
) -> None:
    """Draw up definitions from a REDCap data dictionary, one for each form. What cannot be carried over is listed."""
    with telling_faults():
        _take_in(read_dictionary(read_file(file), is_neutral=wording_to is not None), to, form or [], wording_to)


@instruments_app.command()
def from_xlsform(file: FileArgument, to: FolderOption = None, wording_to: PartedOption = None) -> None:
    """Draw up a definition from an XLSForm (ODK, Kobo). What cannot be carried over is listed."""
    with telling_faults():
        _take_in(read_xlsform(read_file(file), file.stem, is_neutral=wording_to is not None), to, [], wording_to)


@instruments_app.command()
def to_redcap(
    instruments: Annotated[list[str], typer.Argument(help="Instruments, such as who5; each becomes a form.")],
    to: TargetOption,
    wording: WordingOption = None,
) -> None:
    """Write instruments as a REDCap data dictionary. What cannot be carried over is listed."""
    with telling_faults():
        found = [_load(name) for name in instruments]
        data, not_carried = write_dictionary(found, _find_wording(wording, found))
        _hand_out(to, data, not_carried)


@instruments_app.command()
def to_xlsform(
    instrument: Annotated[str, typer.Argument(help="An instrument, such as who5.")],
    to: TargetOption,
    wording: WordingOption = None,
) -> None:
    """Write an instrument as an XLSForm (ODK, Kobo). What cannot be carried over is listed."""
    with telling_faults():
        found = _load(instrument)
        data, not_carried = write_xlsform(found, _find_wording(wording, [found]).get(found.id, Wording()))
        _hand_out(to, data, not_carried)


def _take_in(translated: Translated, folder: Path | None, forms: Sequence[str], wording_to: Path | None) -> None:
    if wording_to and wording_to.exists():
        raise EntryFault(f"{wording_to} is there already. Give another name; nothing is overwritten.")
    known = [draft.id for draft in translated.drafts]
    if unknown := [name for name in forms if name not in known]:
        raise EntryFault(f'The file has no form "{unknown[0]}" with questions to carry. It has {", ".join(known)}.')
    written = write_drafts([draft for draft in translated.drafts if not forms or draft.id in forms], folder)
    _list_not_carried(translated.not_carried)
    for one in written:
        what = f"{one.draft.id}: {format_counted(one.draft.n_items, 'item')}"
        if not one.is_new:
            out.print(f"[yellow]![/yellow] {what}; there is such a folder already, which was left as it is.")
            continue
        faults = check_instrument(one.draft.id, one.folder.parent).faults
        out.print(f"[green]✓[/green] {what}, in {escape(str(one.folder))}", soft_wrap=True)
        for text in faults:
            out.print(f"[red]✗[/red] {escape(text)}", soft_wrap=True)
    if not written:
        out.print("No question of the file can be carried.")
    elif wording_to:
        write_file(wording_to, write_wording(translated))
        out.print(f"The wording is in {wording_to}; keep it outside the repository.", soft_wrap=True, markup=False)
    else:
        out.print("The labels stand as they did there. Where the wording is licensed, part it with --wording-to.")


def _hand_out(to: Path, data: bytes, not_carried: Sequence[NotCarried]) -> None:
    if to.exists():
        raise EntryFault(f"{to} is there already. Give another name; nothing is overwritten.")
    write_file(to, data)
    _list_not_carried(not_carried)
    out.print(f"Written: {to}", soft_wrap=True, markup=False)


def _list_not_carried(entries: Sequence[NotCarried]) -> None:
    """What was not carried over: fields of which the same is to be said stand in one line."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        grouped.setdefault((entry.what, entry.why), []).append(entry.name)
    table = Table("Field", "Not carried over", "Why, or what to do")
    for (what, why), names in grouped.items():
        table.add_row(escape(", ".join(dict.fromkeys(names))), escape(what), escape(why))
    print_table(table)


def _find_wording(path: Path | None, instruments: Sequence[Instrument]) -> dict[str, Wording]:
    return read_wording(read_file(path), instruments) if path else {}


def _load(instrument_id: str) -> Instrument:
    try:
        return load_instrument(instrument_id)
    except InstrumentNotFound as error:
        raise EntryFault(str(error)) from None


@returns_app.command()
def from_export(
    study: StudyArgument,
    source: Annotated[str, typer.Argument(help="The source: the name of its map in the study's folder sources/.")],
    file: Annotated[Path, typer.Argument(help="The export: a CSV file of raw values, not of labels, or an SPSS file.")],
    on: Annotated[str, typer.Option("--on", help="The day of the export; left out, today.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be put where.")] = False,
) -> None:
    """Take an export of REDCap, ODK, Kobo, Qualtrics or SPSS: put what it tells of each site into that site's inbox."""
    workspace = open_study(study)
    with telling_faults():
        mapped = load_source(workspace, source)
        postings, found = read_export(workspace, mapped, read_file(file), find_past_day(workspace, on))
        for text in found.notes:
            out.print(f"[yellow]![/yellow] {escape(text)}", soft_wrap=True)
        table = Table("Site", "Sheet", "Rows")
        for posting in postings:
            for code, n in posting.n_rows.items():
                table.add_row(posting.site_id, code, f"{n:,}")
        print_table(table)
        if dry_run or not postings:
            out.print("Nothing was put anywhere." if postings else "The map finds no record in this file.")
            return
        post_export(workspace, postings)
    out.print(
        f"{format_counted(len(postings), 'workbook')} put into inboxes. Next: summative receive {study} --by NAME"
    )


@returns_app.command(name="sources")
def list_all_sources(study: StudyArgument) -> None:
    """The sources that a study has a map for, and what is wrong with a map."""
    workspace = open_study(study)
    n_wrong = 0
    for name in list_sources(workspace):
        try:
            mapped = load_source(workspace, name)
        except DefinitionFaults as fault:
            n_wrong += 1
            for text in fault.faults:
                err.print(f"[red]✗[/red] {escape(text)}", soft_wrap=True)
            continue
        sheets = ", ".join(entry.sheet for entry in mapped.sheets)
        out.print(f"[green]✓[/green] {name}: {mapped.format}, from {mapped.posted_on}; {sheets}", soft_wrap=True)
    if n_wrong:
        raise typer.Exit(1)
