"""How long the replay of the whole trial takes, and how much of that is more than writing and reading its workbooks.

    python -m benchmarks.replay [--sites 701,703] [--until 2013-01-31] [--every 7d]

The bare cost is that of the same workbooks written and read one after another, with no ledger, flow or file between.
CPU seconds count this process and the Prefect server that it starts, so they say the same on a machine that is busy.
"""

import argparse
import os
import resource
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from rehearsal.pilot_sites import write_posting
from rehearsal.replay import STUDY, Progress, Replayed, find_postings, parse_every, replay
from study.pack_layout import derive_return_layout
from tasks.definitions import load_instruments, load_study
from tasks.orchestration import prepare_prefect
from tasks.settings import Settings
from tasks.workbooks import read_return_workbook

Result = TypeVar("Result")

TARGET_SECONDS = 180  # the whole trial, a study day a week, on two idle cores


@dataclass(frozen=True)
class Cost:
    """Seconds: on the wall, and of CPU in this process."""

    wall: float
    own: float


def measure(action: Callable[[], Result]) -> tuple[Result, Cost]:
    before, start = _read_cpu(), perf_counter()
    result = action()
    return result, Cost(perf_counter() - start, _read_cpu() - before)


def _read_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _read_server_cpu() -> float:
    """CPU seconds of child processes that still run (Prefect's server): on Linux, elsewhere 0."""
    total, ticks = 0.0, os.sysconf("SC_CLK_TCK")
    for task in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        for child in task.read_text().split():
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / ticks
    return total


def write_and_read(settings: Settings, sites: list[str], until: date | None) -> int:
    """The bare workbooks of a replay: how many there are."""
    study = load_study(STUDY, settings.sites_config, settings.instruments)
    layout = derive_return_layout(study, load_instruments(study, settings.instruments))
    postings = find_postings(settings, sites, until)
    for posting in postings:
        _, data = write_posting(posting, layout)
        read_return_workbook(data, layout, site_id=posting.site_id)
    return len(postings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sites", default="", help="only these, such as 701,703")
    parser.add_argument("--until", type=date.fromisoformat, help="only up to this day")
    parser.add_argument("--every", type=parse_every, default="7d", help="days from one study day to the next")
    options = parser.parse_args()
    sites = sorted(filter(None, options.sites.split(",")))
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_folder=Path(folder), database_url="", files="")
        find_postings(settings, sites, options.until)  # the source is read once and stays read
        n_workbooks, bare = measure(lambda: write_and_read(settings, sites, options.until))
        prepare_prefect(Path(folder) / "prefect")
        said = Console(stderr=True)

        def show(step: Progress) -> None:
            if step.n % 20 == 0:
                said.print(f"{step.n} of {step.n_days} study days")

        def run() -> tuple[Replayed, float]:
            done = replay(settings, sites=sites, until=options.until, every=options.every, on_progress=show)
            return done, _read_server_cpu()

        (done, server), whole = measure(run)
    name = done.workspace.name
    table = Table("", "wall", "CPU", "per day", "per workbook", title=f"Replay of {name}")
    for row, wall, cpu in (
        ("bare workbooks", bare.wall, bare.own),
        ("replay", whole.wall, whole.own),
        ("its Prefect server", 0.0, server),
    ):
        per = (f"{wall / done.n_days * 1000:.0f} ms", f"{wall / n_workbooks * 1000:.0f} ms") if wall else ("", "")
        table.add_row(row, f"{wall:.1f} s" if wall else "", f"{cpu:.1f} s", *per)
    Console().print(table)
    Console().print(
        f"{done.n_days} study days, {n_workbooks:,} workbooks. The replay costs {whole.wall / bare.wall:.1f} times the "
        f"bare workbooks ({(whole.own + server) / bare.own:.1f} times in CPU). Target for the whole trial, a study day "
        f"a week, two idle cores: {TARGET_SECONDS} s."
    )


if __name__ == "__main__":
    main()
