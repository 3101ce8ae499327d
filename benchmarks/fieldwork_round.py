"""What a daily round costs a large study: 17 sites with 5,000 participants each.

Run it with `python -m benchmarks.fieldwork_round [--participants 5000] [--database-url postgresql://...]`. The IPC
evaluation with every approval in force and every baseline in, and with `at_once` so high that whole waves go out by
themselves. First a round with nothing new to send; then one in which a follow-up of one person in twenty has come due,
packs written and put into the outboxes included; then one in which none of these has come back, and every site is
chased. Each is the whole flow of a study day, with its pages, in one process that has read the ledger, as `summative
serve` has. Filling the ledger, and reading it for the first time without a cache, are done by processes of their own
before. Memory is the peak of a process, its imports included.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import resource
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path
from time import perf_counter

from rich.console import Console

from rehearsal.contacts import write_contacts
from study.approval_steps import list_items
from study.events import (
    ApprovalGranted,
    ApprovalSubmitted,
    ConsentRecorded,
    Event,
    MessageSent,
    PackClaimed,
    PackDelivered,
    ParticipantApproached,
    ParticipantScreened,
    ReturnAccepted,
    ReturnReleased,
)
from study.identifiers import compute_identifier
from study.protocol import FIELDWORK_FILE, Study
from tasks.orchestration import many_runs, prepare_prefect
from tasks.settings import Settings
from tasks.workspace import OWN_DEFINITIONS, Workspace, create_workspace, use_workspace

STUDY, BY = "ipc", "benchmark"
NAME = f"{STUDY}.benchmark"
JOINED_EARLY, JOINED_LATE = date(2017, 11, 6), date(2018, 3, 5)
QUIET_DAY, DUE_DAY = date(2018, 4, 3), date(2018, 4, 17)
SHARE_DUE = 20
QUIET = "a round with nothing new"
LIMITS = {QUIET: 10.0, "a round that sends to one in twenty": 60.0}
MOST_MEGABYTES = 1_000
_A_BATCH = 20_000


def list_events(study: Study, n_at_site: int) -> Iterator[Event]:
    """Approvals, consents, baselines sent and in; one person in twenty joined so early that a follow-up comes due."""
    common = {"requested_by": BY}
    for approval in study.pathway.approvals:
        routes = study.pathway.find_routes(approval.id, study.starts_on)
        for item, _ in list_items(study, approval, study.sites) if routes else []:
            about = {**common, **item._asdict()}
            yield ApprovalSubmitted(occurred_on=date(2016, 11, 1), route=routes[0].id, **about)
            yield ApprovalGranted(occurred_on=date(2017, 6, 1), **about)
    rule = study.fieldwork.identifier_rule
    if rule is None:
        raise SystemExit(f"{study.study_id} makes no identifiers.")
    scopes = tuple(scope.id for scope in study.consent_scopes if scope.id != "carer_contact")
    names = [
        entry.instrument for entry in study.find_scheduled("baseline", "mental_health") if entry.respondent == "self"
    ]
    for site in study.sites:
        pack_id = f"{site.site_id}-2017-11-06-1"
        at_site = {**common, "site_id": site.site_id}
        yield PackClaimed(
            occurred_on=JOINED_EARLY, **at_site, pack_id=pack_id, purpose="wave", sha256="0" * 64,
            file_name=f"{pack_id}.xlsx", protocol_version=study.protocol_version,
        )  # fmt: skip
        yield PackDelivered(occurred_on=JOINED_EARLY, **at_site, pack_id=pack_id)
        for n in range(n_at_site):
            joined = JOINED_EARLY if n % SHARE_DUE == 0 else JOINED_LATE
            person = {**at_site, "participant_id": compute_identifier(rule, site.code, n + 1), "occurred_on": joined}
            yield ParticipantScreened(**person, cohort="mental_health")
            yield ParticipantApproached(**person, cohort="mental_health")
            yield ConsentRecorded(
                **person, form_version="1.0", scopes=scopes, basis="signed", route="self", copy_filed="yes",
                form="standard",
            )  # fmt: skip
            sent = {"respondent": "self", "wave": "baseline", "form": "standard"}
            yield ReturnReleased(
                **person, **sent, pack_id=pack_id, instruments=tuple(names), opens_on=joined,
                due_on=joined + timedelta(days=28), late_until=joined + timedelta(days=84),
            )  # fmt: skip
            person["occurred_on"] = joined + timedelta(days=7)
            for name in names:
                yield ReturnAccepted(
                    **person, **sent, return_id=f"{site.site_id}-1", instrument=name, version=1, n_items=5,
                    n_answered=5, responses_sha256="1" * 64,
                )  # fmt: skip


def open_benchmark(settings: Settings) -> Workspace:
    """The study by definitions of its own: those of the settings, with releases that wait for nobody's word."""
    folder = settings.data_folder / NAME / OWN_DEFINITIONS / STUDY
    if not folder.is_dir():
        shutil.copytree(settings.sites_config / STUDY, folder)
        rules = folder / FIELDWORK_FILE
        text = re.sub(r"^at_once = \d+$", "at_once = 100000", rules.read_text(encoding="utf-8"), flags=re.MULTILINE)
        rules.write_text(text, encoding="utf-8")
    return create_workspace(STUDY, settings=settings, name=NAME)


def fill(settings: Settings, n_at_site: int) -> int:
    """Append the events in batches, on the first day; how many there are."""
    workspace = open_benchmark(settings)
    workspace.clock = workspace.ledger.clock = lambda: datetime(
        QUIET_DAY.year, QUIET_DAY.month, QUIET_DAY.day, 9, tzinfo=UTC
    )
    write_contacts(workspace)
    events = list_events(workspace.study, n_at_site)
    n = 0
    while batch := list(islice(events, _A_BATCH)):
        workspace.ledger.append(batch)
        n += len(batch)
    return n


def read_first(settings: Settings) -> tuple[float, float]:
    """Seconds of reading a ledger of which there is no cache yet, and the peak of the process in megabytes."""
    workspace = open_benchmark(settings)
    started = perf_counter()
    workspace.read_events()
    return perf_counter() - started, measure_memory()


def run_round(workspace: Workspace, day: date) -> str:
    """The daily round, as a flow. What it sent, in words."""
    from flows.study_day import study_day  # Prefect reads its settings from the environment when it is imported

    before = count(workspace)
    for state in study_day(study=STUDY, as_of=day, requested_by=BY):
        state.result()
    packs, questionnaires, letters = (now - then for now, then in zip(count(workspace), before, strict=True))
    return f"{packs:,} packs with {questionnaires:,} questionnaires, {letters:,} letters"


def count(workspace: Workspace) -> tuple[int, int, int]:
    """Packs, questionnaires in them, and letters, that went out so far."""
    events = workspace.read_events()
    packs, questionnaires, letters = (len(events.table(kind)) for kind in (PackDelivered, ReturnReleased, MessageSent))
    return packs, questionnaires, letters


def measure_memory() -> float:
    """The peak of this process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def play(settings: Settings) -> list[str]:
    """The rounds, one after another, each told as it ends. What was slower or larger than its limit."""
    prepare_prefect(settings.data_folder / "prefect")
    console = Console(width=120)
    workspace = open_benchmark(settings)
    day = QUIET_DAY

    def read_clock() -> datetime:
        return datetime(day.year, day.month, day.day, 9, tzinfo=UTC)

    workspace.clock = workspace.ledger.clock = read_clock
    rounds = (
        # What is owed on the first day at all, such as figures, is not new on the next.
        ("the first round", QUIET_DAY),
        (QUIET, QUIET_DAY + timedelta(days=1)),
        ("a round that sends to one in twenty", DUE_DAY),
        ("a round that chases", DUE_DAY + timedelta(days=58)),
    )
    misses = []
    with use_workspace(workspace), many_runs():
        console.print(f"before the first round: {measure_memory():,.0f} MB")
        for name, on in rounds:
            day = on
            started = perf_counter()
            told = run_round(workspace, day)
            seconds = perf_counter() - started
            limit = LIMITS.get(name)
            words = f", limit {limit:.0f} s" if limit else ""
            megabytes = measure_memory()
            console.print(f"{name}: {seconds:.1f} s{words}; {told}; peak {megabytes:,.0f} MB")
            if limit and seconds > limit:
                misses.append(name)
            if limit == LIMITS[QUIET] and megabytes > MOST_MEGABYTES:
                misses.append(f"memory of {name}")
    return misses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--participants", type=int, default=5_000, help="at each of the 17 sites")
    parser.add_argument("--database-url", default="")
    chosen = parser.parse_args()
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_folder=Path(folder), database_url=chosen.database_url)
        fresh = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(max_workers=1, mp_context=fresh, max_tasks_per_child=1) as processes:
            n_rows = processes.submit(fill, settings, chosen.participants).result()
            seconds, megabytes = processes.submit(read_first, settings).result()
            console.print(f"{n_rows:,} events; the first reading took {seconds:.1f} s; peak {megabytes:,.0f} MB")
            misses = processes.submit(play, settings).result()
    if megabytes > MOST_MEGABYTES:
        misses.append("memory of the first reading")
    if misses:
        raise SystemExit(f"Missed: {', '.join(misses)}.")


if __name__ == "__main__":
    main()
