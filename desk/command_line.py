"""The command line: `summative`.

Every command answers in plain sentences. What a person can get wrong ends in a message that says where, what and what
to do; only a fault of the program itself shows a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from study.datasets import ReleaseFault
from study.instruments import DefinitionFaults
from study.queries import find_open_queries
from study.state import derive_queries, derive_returns
from tasks.definitions import StudyExists, StudyNotFound, find_faults, list_studies, scaffold_study
from tasks.files import FileFault
from tasks.ledger import LedgerRefused
from tasks.orchestration import prepare_prefect
from tasks.settings import read_settings
from tasks.workspace import Workspace, create_workspace

app = typer.Typer(
    help="Operations for multi-site evaluation studies: from raw returns to a frozen dataset.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

EXPECTED = (DefinitionFaults, FileFault, LedgerRefused, ReleaseFault, StudyExists, StudyNotFound)

StudyArgument = Annotated[str, typer.Argument(help="The study's name, such as cdisc_pilot, or that of a replay's slice.")]
ByOption = Annotated[str, typer.Option("--by", help="Your name: the ledger keeps who asked for what.")]
SitesOption = Annotated[str, typer.Option("--sites", help="Only these sites, such as 701,703.")]


def main() -> None:
    """The console script."""
    try:
        app()
    except EXPECTED as fault:
        faults = getattr(fault, "faults", None) or [str(fault)]
        for text in faults:
            err.print(f"[red]✗[/red] {text}", soft_wrap=True, markup=True)
        sys.exit(1)
    except KeyboardInterrupt:
        err.print("Stopped. Nothing is lost: the same command goes on where it stopped.")
        sys.exit(130)


def parse_sites(text: str) -> list[str]:
    """"701, 703" to a list of site ids."""
    return sorted({site.strip() for site in text.split(",") if site.strip()})


def parse_day(text: str) -> date | None:
    """A date of an option, written 2013-01-31; empty for none."""
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f'"{text}" is not a date. Write it as 2013-01-31.') from None


def open_study(name: str) -> Workspace:
    """The workspace of a study, or of a replay's slice ("cdisc_pilot.701-703"). Raises StudyNotFound."""
    settings = read_settings()
    if "." in name and not (settings.data_folder / name).is_dir():
        raise StudyNotFound(f'There is no slice "{name}" in {settings.data_folder}. Replay it first.')
    return create_workspace(name.partition(".")[0], settings=settings, name=name)


@contextmanager
def _prefect() -> Iterator[None]:
    """Flows run in this process with a quiet Prefect of their own; set up before Prefect is imported."""
    prepare_prefect(read_settings().data_folder / "prefect")
    from tasks.orchestration import many_runs

    with many_runs():
        yield


@app.command()
def rehearse(
    study: Annotated[str, typer.Argument(help="The trial to replay: cdisc_pilot.")] = "cdisc_pilot",
    sites: SitesOption = "",
    until: Annotated[str, typer.Option(help="Replay up to this day, such as 2013-01-31.")] = "",
    every: Annotated[str, typer.Option(help="Days from one study day to the next, 1d to 31d.")] = "7d",
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin again instead of going on.")] = False,
) -> None:
    """Replay a real 17-site trial through the flows that a live study uses, and freeze its dataset."""
    from rehearsal.pilot_source import load_assumptions
    from rehearsal.replay import STUDY, parse_every, replay, start_afresh
    from rehearsal.replay import Progress as Step

    if study != STUDY:
        raise typer.BadParameter(f'"{study}" cannot be replayed. The trial that can is {STUDY}.')
    try:
        days, chosen = parse_every(every), parse_sites(sites)
    except ValueError as fault:
        raise typer.BadParameter(str(fault)) from None
    settings, last = read_settings(), parse_day(until)
    if fresh:
        start_afresh(settings, chosen, last)
    out.print(
        "Replaying the CDISC pilot trial, 2012 to 2015: its sites post their workbooks, the daily round receives, "
        "checks and records them.",
        soft_wrap=True,
    )
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(), TextColumn("study days"),
        TextColumn("·"), TimeElapsedColumn(), TextColumn("gone,"), TimeRemainingColumn(), TextColumn("to go"),
    )  # fmt: skip
    with _prefect(), Progress(*columns, console=out) as bar:
        task = bar.add_task("Starting Prefect and reading the source", total=None)

        def show(step: Step) -> None:
            bar.update(
                task,
                total=step.n_days,
                completed=step.n,
                description=f"{step.day:%d %b %Y}, {step.n_posted:,} workbooks",
            )

        try:
            result = replay(settings, sites=chosen, until=last, every=days, on_progress=show)
        except ValueError as fault:
            bar.stop()
            raise typer.BadParameter(str(fault)) from None
    name, folder = result.workspace.name, result.workspace.folder
    if result.n_resumed:
        out.print(f"Went on after {result.n_resumed} study days that an earlier replay had completed.")
    out.print(f"\n[bold]Frozen:[/bold] {result.n_posted:,} workbooks, release {result.release}.")
    out.print(f"Rests on {len(load_assumptions())} declared assumptions: rehearsal/assumptions.toml", soft_wrap=True)
    out.print(f"\n  Release  {result.location}/", soft_wrap=True)
    out.print(f"  Report   {result.location}/report.html", soft_wrap=True)
    out.print(f"  Ledger   {folder / 'ledger.db'}", soft_wrap=True)
    out.print("\nTry next:")
    slice_of = (f" --sites {sites}" if sites else "") + (f" --until {until}" if until else "")
    for command, meaning in (
        (f"reconcile{slice_of}", "every answer of the source, and the trial's own scores"),
        (f"verify {name}", "the ledger's chain of hashes"),
        (f"ledger {name} --newest 20", "who recorded what, when, from which file and row"),
        ("serve", "Prefect's page, where a coordinator starts a run"),
    ):
        out.print(f"  .venv/bin/summative {command:<40} {meaning}", soft_wrap=True)


@app.command()
def reconcile(
    sites: SitesOption = "", until: Annotated[str, typer.Option(help="The day to which it was replayed.")] = ""
) -> None:
    """Hold a replayed release against its source: no answer lost, every score equal to the trial's own."""
    from rehearsal.pilot_source import read_source
    from rehearsal.reconciliation import ReleaseFrames, reconcile as follow
    from rehearsal.replay import find_workspace_name
    from tasks.releases import read_latest_tables

    chosen, last = parse_sites(sites), parse_day(until)
    workspace = open_study(find_workspace_name(chosen, last))
    events = workspace.read_events()
    result = follow(
        read_source(),
        workspace.study,
        ReleaseFrames(**read_latest_tables(workspace)),
        **_find_unreleased(workspace),
        sites=chosen or None,
        until=last,
    )
    del events
    print(result.to_text())
    raise typer.Exit(0 if result.adds_up and result.agrees_with_trial else 1)
