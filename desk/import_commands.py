"""A finished study from flat files: `summative import-study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from desk.exchange_commands import telling_faults
from desk.options import StudyArgument, check_name, err, find_day, open_study, out, print_table
from tasks.pages import format_counted
from tasks.study_import import (
    StudyImport,
    find_import_folder,
    import_study,
    load_import_map,
    plan_import,
    propose_import_map,
)

import_app = typer.Typer()


def _check_if_given(name: str) -> str:
    return check_name(name) if name else name


@import_app.command(name="import-study")
def run_import(
    study: StudyArgument,
    by: Annotated[
        str, typer.Option("--by", callback=_check_if_given, help="Your name: the ledger keeps who asked for what.")
    ] = "",
    folder: Annotated[
        Path | None, typer.Option("--from", help="The files' folder; left out, out/STUDY/import.")
    ] = None,
    map_name: Annotated[str, typer.Option("--map", help="The map, where the study has several.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be taken.")] = False,
    propose: Annotated[bool, typer.Option("--propose", help="Print a map to begin with.")] = False,
) -> None:
    """Take a study that is over from flat files (CSV, SPSS, Stata), by the map in its folder sources/."""
    workspace = open_study(study)
    place, today = folder or find_import_folder(workspace), find_day(workspace)
    if not by and not (dry_run or propose):
        raise typer.BadParameter("Say who imports it: --by NAME. Or look first: --dry-run.")
    with telling_faults():
        if propose:
            out.print(propose_import_map(workspace, place), soft_wrap=True, markup=False)
            return
        with err.status("Reading, searching and deciding; 100,000 people take a minute or two."):
            if dry_run:
                plan, n_rows = plan_import(workspace, place, today, by or "dry run", map_name), 0
            else:
                plan, n_rows = import_study(workspace, place, today, by, map_name)
        _tell(plan, is_dry_run=dry_run, study=study)
        if plan.held or plan.faults:
            raise typer.Exit(1)
        if plan.is_known:
            out.print("This very import is in the ledger already: nothing was added.")
            return
        if dry_run:
            out.print("Nothing was kept or recorded. Leave out --dry-run to import.")
            return
        mapped = load_import_map(workspace, map_name)[1]
    out.print(f"[green]Imported[/green]: {format_counted(n_rows, 'row')} of the ledger.")
    out.print(f"Next: summative freeze {study} --as-of {mapped.posted_on} --by NAME", soft_wrap=True, markup=False)


def _tell(plan: StudyImport, *, is_dry_run: bool, study: str) -> None:
    """What the files tell, and everything that is wrong with them."""
    out.print(f"Files: {', '.join(plan.names)}; map sources/{plan.map_name}.toml", soft_wrap=True, markup=False)
    table = Table("Sheet", "Wave", "Rows")
    for (sheet, wave), n in plan.sheets.items():
        table.add_row(sheet, wave, f"{n:,}")
    print_table(table)
    for text in plan.notes:
        out.print(f"[yellow]·[/yellow] {escape(text)}", soft_wrap=True)
    for text in plan.faults:
        err.print(f"[red]✗[/red] {escape(text)}", soft_wrap=True)
    for held in plan.held:
        err.print(f"[red]✗[/red] {escape(held.name)} may tell who people are:", soft_wrap=True)
        for where in held.told:
            err.print(f"    {escape(where)}", soft_wrap=True)
    if plan.faults:
        err.print(f"{format_counted(len(plan.faults), 'fault')}: nothing was taken. Mend the files or the map.")
    elif plan.held:
        done = "would be held" if is_dry_run else "is held, and nothing of it was kept"
        err.print(
            f"Such a file {done}. Take these columns out of it. Where it is no such thing, let it through with "
            f"summative held-files list {study} and held-files release, and import again.",
            soft_wrap=True,
        )
    else:
        told = ", ".join(f"{name} {n:,}" for name, n in plan.counts.items() if n)
        out.print(told, soft_wrap=True, markup=False)
