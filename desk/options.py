"""What the commands share: consoles, options, and how they find a study, a site or a day."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from rehearsal.replay import NOTE as REPLAY_NOTE
from rehearsal.replay import ReplayClock
from study.approval_entries import EntryFault, parse_written_day
from study.calendar import london_day
from study.instruments import find_suggestion
from tasks.definitions import StudyNotFound
from tasks.orchestration import prepare_prefect
from tasks.settings import read_settings
from tasks.workspace import Workspace, create_workspace

# What goes into a file or another program is not cut to the width of a window.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 240)
err = Console(stderr=True, highlight=False)

_NAME_LENGTHS = range(2, 81)  # as the ledger keeps a name, and as a run's form takes it


def check_name(name: str) -> str:
    if len(name.strip()) not in _NAME_LENGTHS:
        raise typer.BadParameter('give your name, of 2 letters or more, such as --by "Anna Price".')
    return name


StudyArgument = Annotated[str, typer.Argument(help="The study's name, such as cdisc_pilot, or a slice's.")]
ByOption = Annotated[
    str, typer.Option("--by", callback=check_name, help="Your name: the ledger keeps who asked for what.")
]
SitesOption = Annotated[str, typer.Option("--sites", help="Only these sites, such as 701,703.")]


def parse_sites(text: str) -> list[str]:
    """ "701, 703" to a list of site ids."""
    return sorted({site.strip() for site in text.split(",") if site.strip()})


def parse_day(text: str) -> date | None:
    """A date of an option, written as everywhere: 2013-01-31, 31/01/2013 or 31 Jan 2013; empty for none."""
    try:
        return parse_written_day(text)
    except EntryFault as fault:
        raise typer.BadParameter(str(fault)) from None


def find_day(workspace: Workspace, text: str = "") -> date:
    """The day that is asked for; left out, today."""
    return parse_day(text) or london_day(workspace.clock())


def find_past_day(workspace: Workspace, text: str) -> date:
    """The day on which something was done; left out, today. Raises BadParameter for one that is still to come."""
    day, today = find_day(workspace, text), find_day(workspace)
    if day > today:
        raise typer.BadParameter(
            f"the date {day} is in the future (today is {today}). Give the day on which it was done."
        )
    return day


def is_rehearsed(workspace: Workspace) -> bool:
    """Whether this is a rehearsal or a replay, and not a study that goes on."""
    return workspace.name != workspace.study.study_id or (workspace.folder / REPLAY_NOTE).is_file()


def refuse_sending_from_rehearsal(workspace: Workspace) -> None:
    """The days of a rehearsal are over, and nothing of them is sent today. Raises BadParameter."""
    if is_rehearsed(workspace):
        raise typer.BadParameter(
            f"{workspace.name} is a rehearsal or a replay, and its last day was {find_day(workspace)}. Nothing is sent "
            "from a day that is over; the commands that only look work on it."
        )


def write_file(path: Path, data: bytes) -> None:
    """A file that a person asked for. Raises BadParameter where it cannot be written, with the reason."""
    try:
        path.write_bytes(data)
    except OSError as fault:
        raise typer.BadParameter(f"{path} cannot be written: {fault.strerror or fault}.") from None


def print_table(table: Table) -> None:
    """A table that has rows; without any, the line that follows it says so. A name that is longer than its column goes
    on in the next line, since it may be typed into another command."""
    for column in table.columns:
        column.overflow = "fold"
    if table.row_count:
        out.print(table)


def open_study(name: str) -> Workspace:
    """The workspace of a study, or of a replay's slice ("cdisc_pilot.701-703"). Raises StudyNotFound.

    In a rehearsal time stands still: its today is its last study day.
    """
    settings = read_settings()
    if "." in name and not (settings.data_folder / name).is_dir():
        raise StudyNotFound(f'There is no slice "{name}" in {settings.data_folder}. Replay it first.')
    workspace = create_workspace(name.partition(".")[0], settings=settings, name=name)
    if is_rehearsed(workspace):
        last = workspace.ledger.history(kind="study_day_completed", newest=1)
        if len(last):
            clock = ReplayClock(date.fromisoformat(str(last["occurred_on"].iloc[0])))
            workspace.clock = workspace.ledger.clock = clock
    return workspace


def find_site_id(workspace: Workspace, site: str) -> str:
    """The id of a site that a person names by id, name or code; none named is fine. Refuses what the study lacks."""
    folded = site.casefold()
    for own in workspace.study.sites:
        if folded in (own.site_id.casefold(), own.name.casefold(), own.code.casefold()):
            return own.site_id
    known = [own.site_id for own in workspace.study.sites]
    if site:
        hint = find_suggestion(folded, known)
        raise typer.BadParameter(
            f'{workspace.study.study_id} has no site "{site}".{hint} Its sites: {", ".join(known)}.'
        )
    return ""


@contextmanager
def use_prefect() -> Iterator[None]:
    """Flows run in this process with a quiet Prefect of their own; set up before Prefect is imported."""
    prepare_prefect(read_settings().data_folder / "prefect")
    from tasks.orchestration import many_runs

    with many_runs():
        yield


def find_program() -> str:
    """How to call this program from where the person is: as they did."""
    called = Path(sys.argv[0])
    if called.stem != "summative":
        return ".venv/bin/summative"
    return str(called.relative_to(Path.cwd()) if called.is_relative_to(Path.cwd()) else called)
