"""What Prefect costs a daily round over 17 sites that all have work, against the same work without it.

Run it with `python -m benchmarks.rounds`. The same round as plain calls; as a flow in this process, with and without
what `many_runs` saves (one client, no heartbeats: how a replay and `summative round` run it); and as a flow in a fresh
process, as a worker starts one, both ways too. The start of such a process is told apart: most of it is imports that a
plain program would need as well. Every round is over a fresh study, on a server that is up already. Medians.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter

from rich.console import Console
from rich.table import Table

from rehearsal.pilot_sites import derive_postings, write_posting
from rehearsal.pilot_source import read_source
from tasks.definitions import load_instruments, load_study
from tasks.orchestration import many_runs, prepare_prefect
from tasks.returns import find_sites_with_files, receive_site_returns, take_snapshot
from tasks.settings import PROJECT, Settings
from tasks.workspace import Workspace, adopt_configuration, create_workspace, record_study_day, use_workspace

STUDY = "cdisc_pilot"
BY = "benchmark"
DAY = date(2014, 12, 31)
N_ROUNDS = 5
MOST_SECONDS = 3.0

Post = Callable[[Workspace], None]


def make_post() -> Post:
    """Every site's first sending with questionnaires in it, written once, posted to each round's own drop-boxes."""
    study = load_study(STUDY)
    instruments = load_instruments(study)
    first: dict[str, tuple[str, bytes]] = {}
    with tempfile.TemporaryDirectory() as folder:
        layout = create_workspace(STUDY, settings=Settings(data_folder=Path(folder))).layout
    for posting in derive_postings(read_source(), study, instruments):
        if posting.site_id not in first and "adas_cog" in posting.sheets:
            first[posting.site_id] = write_posting(posting, layout)
    missing = [site.site_id for site in study.sites if site.site_id not in first]
    for posting in derive_postings(read_source(), study, instruments, missing) if missing else []:
        first.setdefault(posting.site_id, write_posting(posting, layout))
    if len(first) != len(study.sites):
        raise SystemExit(f"Only {len(first)} of {len(study.sites)} sites have something to post.")

    def post(workspace: Workspace) -> None:
        for site_id, (name, data) in first.items():
            workspace.drop_box(site_id).post(name, data)

    return post


def open_fresh(folder: Path, post: Post) -> Workspace:
    workspace = create_workspace(STUDY, settings=Settings(data_folder=folder))
    post(workspace)
    return workspace


def run_plain(workspace: Workspace) -> None:
    """The steps of `flows/study_day.py`, called one after the other."""
    adopt_configuration(workspace, DAY, BY)
    sites = find_sites_with_files(workspace)
    take_snapshot(workspace, afresh=True)
    for site_id in sites:
        receive_site_returns(workspace, site_id, DAY, BY)
    record_study_day(workspace, DAY, BY)


def run_flow(workspace: Workspace) -> None:
    from flows.study_day import study_day

    with use_workspace(workspace):
        study_day(study=STUDY, requested_by=BY, as_of=DAY)


def measure(run: Callable[[Workspace], None], post: Post, n_rounds: int = N_ROUNDS) -> list[float]:
    """Seconds of each round. The first, which warms imports and caches up, is not counted."""
    seconds = []
    for _ in range(n_rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            workspace = open_fresh(Path(folder), post)
            started = perf_counter()
            run(workspace)
            seconds.append(perf_counter() - started)
            n_files = workspace.ledger.history(kind="return_file_processed").shape[0]
            if n_files != len(workspace.study.sites):
                raise SystemExit(f"The round received {n_files} files instead of {len(workspace.study.sites)}.")
    return seconds[1:]


def measure_processes(
    post: Post, url: str, *, is_saving: bool, n_rounds: int = N_ROUNDS
) -> tuple[list[float], list[float]]:
    """The round in a fresh process each time, as a worker starts one: seconds of the flow, and of the whole process."""
    program = (
        "from contextlib import nullcontext\n"
        "from datetime import date\n"
        "from time import perf_counter\n"
        "from flows.study_day import study_day\n"
        "from tasks.orchestration import many_runs\n"
        "started = perf_counter()\n"
        f"with many_runs() if {is_saving} else nullcontext():\n"
        f"    study_day(study={STUDY!r}, requested_by={BY!r}, as_of=date({DAY.year}, {DAY.month}, {DAY.day}))\n"
        "print(perf_counter() - started)"
    )
    flows, processes = [], []
    for _ in range(n_rounds):
        with tempfile.TemporaryDirectory() as folder:
            open_fresh(Path(folder), post)
            environment = os.environ | {"SUMMATIVE_DATA_FOLDER": folder, "PREFECT_API_URL": url}
            started = perf_counter()
            done = subprocess.run(  # noqa: S603 - our own interpreter, a fixed program
                [sys.executable, "-c", program],
                env=environment,
                cwd=PROJECT,
                capture_output=True,
                text=True,
                check=True,
            )
            processes.append(perf_counter() - started)
            flows.append(float(done.stdout.split()[-1]))
    return flows, processes


def show(rows: Sequence[tuple[str, list[float]]], plain: float) -> None:
    table = Table("17 sites with work", "median s", "fastest", "slowest", "more, s", "ratio")
    for name, seconds in rows:
        middle = median(seconds)
        table.add_row(
            name, f"{middle:.2f}", f"{min(seconds):.2f}", f"{max(seconds):.2f}", f"{middle - plain:.2f}",
            f"{middle / plain:.2f}",
        )  # fmt: skip
    Console().print(table)


def main() -> None:
    with tempfile.TemporaryDirectory() as home, ExitStack() as stack:
        os.environ.pop("PREFECT_API_URL", None)
        os.environ["PREFECT_HOME"] = home
        prepare_prefect(Path(home))
        from prefect.server.api.server import SubprocessASGIServer
        from prefect.settings import PREFECT_API_URL, temporary_settings

        post = make_post()
        plain = measure(run_plain, post)
        server = SubprocessASGIServer()
        server.start()
        stack.callback(server.stop)
        url = server.api_url
        with temporary_settings({PREFECT_API_URL: url}):
            alone = measure(run_flow, post)
            with many_runs():
                many = measure(run_flow, post)
        saving, _ = measure_processes(post, url, is_saving=True)
        worker, process = measure_processes(post, url, is_saving=False)
    base = median(plain)
    show(
        [
            ("plain calls", plain),
            ("flow here, many_runs", many),
            ("flow here", alone),
            ("flow in a worker's process, many_runs", saving),
            ("flow in a worker's process", worker),
            ("the whole of that process", process),
        ],
        base,
    )
    cost = max(median(many), median(worker)) - base
    verdict = "within" if cost <= MOST_SECONDS else "OVER"
    Console().print(f"Prefect costs a round {cost:.2f} s: {verdict} the {MOST_SECONDS:.0f} s that it may.")
    if cost > MOST_SECONDS:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
