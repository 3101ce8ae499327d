"""What a day of releasing and chasing costs a large study: 17 sites with 5,000 participants each.

Run it with `python -m benchmarks.fieldwork_round [--participants 5000] [--database-url postgresql://...]`. The IPC
evaluation with every approval in force and every baseline in. First a round with nothing new to send; then one in which
a follow-up of one person in twenty has come due, packs written and put into the outboxes included; then one in which
none of these has come back, and every site is chased. Times are of a process that has read the ledger before, as a
worker has; the first reading is told apart. Memory is the peak of the process.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
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
    PackClaimed,
    PackDelivered,
    ParticipantApproached,
    ParticipantScreened,
    ReturnAccepted,
    ReturnReleased,
)
from study.identifiers import compute_identifier
from study.protocol import Study
from tasks.chasing import chase
from tasks.releasing import draw_up_plan, release_packs
from tasks.settings import Settings
from tasks.workspace import Workspace, create_workspace

STUDY, BY = "ipc", "benchmark"
JOINED_EARLY, JOINED_LATE = date(2017, 11, 6), date(2018, 3, 5)
QUIET_DAY, DUE_DAY = date(2018, 4, 3), date(2018, 4, 17)
SHARE_DUE = 20
LIMITS = {"a round with nothing new": 10.0, "a round that sends to one in twenty": 60.0}
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


def fill(workspace: Workspace, n_at_site: int) -> int:
    """Append the events in batches; how many there are."""
    batch: list[Event] = []
    n = 0
    for event in list_events(workspace.study, n_at_site):
        batch.append(event)
        if len(batch) == _A_BATCH:
            workspace.ledger.append(batch)
            n += len(batch)
            batch = []
    workspace.ledger.append(batch)
    return n + len(batch)


def run_round(workspace: Workspace, day: date) -> str:
    """The part of the daily round that sends: automatic waves, then chasers. What became of it, in words."""
    released = release_packs(workspace, draw_up_plan(workspace, day, is_scheduled=True), BY)
    if released.failures:
        raise SystemExit("\n".join(released.failures))
    counts = chase(workspace, day, BY)
    n_rows = sum(int(site_counts["questionnaires"]) for site_counts in released.counts.values())
    return f"{len(released.counts)} packs with {n_rows:,} questionnaires, {counts['sent']} letters"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--participants", type=int, default=5_000, help="at each of the 17 sites")
    parser.add_argument("--database-url", default="")
    chosen = parser.parse_args()
    console = Console()
    misses = []
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_folder=Path(folder), database_url=chosen.database_url)
        workspace = create_workspace(STUDY, settings=settings, name=f"{STUDY}.benchmark")
        releases = tuple(
            release.model_copy(update={"at_once": 100_000}) for release in workspace.study.fieldwork.releases
        )
        fieldwork = workspace.study.fieldwork.model_copy(update={"releases": releases})
        workspace.study = workspace.study.model_copy(update={"fieldwork": fieldwork})
        day = QUIET_DAY

        def read_clock() -> datetime:
            return datetime(day.year, day.month, day.day, 9, tzinfo=UTC)

        workspace.clock = workspace.ledger.clock = read_clock
        write_contacts(workspace)
        n_rows = fill(workspace, chosen.participants)
        started = perf_counter()
        workspace.read_events()
        console.print(f"{n_rows:,} events; the first reading took {perf_counter() - started:.1f} s.")
        run_round(workspace, day)  # what is owed on the first day at all, such as figures, is not new on the next
        rounds = (
            ("a round with nothing new", QUIET_DAY + timedelta(days=1)),
            ("a round that sends to one in twenty", DUE_DAY),
            ("a round that chases", DUE_DAY + timedelta(days=58)),
        )
        for name, on in rounds:
            day = on
            started = perf_counter()
            told = run_round(workspace, day)
            seconds = perf_counter() - started
            limit = LIMITS.get(name)
            words = f", limit {limit:.0f} s" if limit else ""
            console.print(f"{name}: {seconds:.1f} s{words}; {told}")
            if limit and seconds > limit:
                misses.append(name)
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    console.print(f"peak memory {megabytes:,.0f} MB, limit {MOST_MEGABYTES:,} MB")
    if megabytes > MOST_MEGABYTES:
        misses.append("memory")
    if misses:
        raise SystemExit(f"Missed: {', '.join(misses)}.")


if __name__ == "__main__":
    main()
