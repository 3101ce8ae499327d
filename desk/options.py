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

from study.instruments import find_suggestion
from tasks.definitions import StudyNotFound
from tasks.orchestration import prepare_prefect
from tasks.settings import read_settings
from tasks.workspace import Workspace, create_workspace

# What goes into a file or another program is not cut to the width of a window.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 240)
err = Console(stderr=True, highlight=False)

StudyArgument = Annotated[str, typer.Argument(help="The study's name, such as cdisc_pilot, or a slice's.")]
ByOption = Annotated[str, typer.Option("--by", help="Your name: the ledger keeps who asked for what.")]
SitesOption = Annotated[str, typer.Option("--sites", help="Only these sites, such as 701,703.")]


def parse_sites(text: str) -> list[str]:
    """ "701, 703" to a list of site ids."""
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
