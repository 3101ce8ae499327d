"""Returns: take what sites have sent, site by site; one site's trouble never stops the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import Any, NamedTuple

from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE

from flows.runs import (
    AsOf,
    RequestedBy,
    SiteNames,
    StudyName,
    conclude,
    describe_failure,
    find_as_of,
    find_sites,
    leave_artifact,
    name_run,
)
from flows.safeguarding import tell_clinicians
from tasks.orchestration import guarded
from tasks.returns import find_sites_with_files, reading_ahead, receive_site_returns, take_snapshot
from tasks.workspace import open_workspace


class Receipt(NamedTuple):
    """What became of receiving: a state and counts for each site that had sent something, and what went wrong.

    `unread`: sites of which something may lie unread. They may have answered what they would be chased for.
    """

    states: list[State[Counter[str]]]
    counts: dict[str, Counter[str]]
    failures: list[str]
    unread: list[str]


@task(task_run_name="receive {site_id}", cache_policy=NO_CACHE, persist_result=False)
@guarded
def receive_site(study: str, site_id: str, as_of: date, requested_by: str) -> Counter[str]:
    """Everything that waits in one site's inbox. Returns counts."""
    return receive_site_returns(open_workspace(study), site_id, as_of, requested_by)


def receive_returns(study: str, sites: Sequence[str], as_of: date, requested_by: str) -> Receipt:
    """Receive from each of these sites that has sent something."""
    workspace = open_workspace(study)
    waiting = set(find_sites_with_files(workspace))
    if waiting:
        take_snapshot(workspace, afresh=True)
    received = Receipt([], {}, [], [])
    with reading_ahead(workspace, due := [site_id for site_id in sites if site_id in waiting], as_of):
        for site_id in due:
            state = receive_site(study, site_id, as_of, requested_by, return_state=True)
            received.states.append(state)
            if state.is_completed():
                received.counts[site_id] = state.result()
            else:
                received.unread.append(site_id)
                received.failures.append(
                    f"Site {site_id} was not served to the end: {describe_failure(state)}. Nothing that it sent is "
                    "lost: the next run takes up the rest."
                )
    return received


@flow(name="receive-returns", flow_run_name=name_run, log_prints=False, persist_result=False)
@guarded
def receive_returns_now(
    study: StudyName,
    requested_by: RequestedBy,
    sites: SiteNames = [],  # noqa: B006 - never changed
    as_of: AsOf = None,
) -> list[State[Any]]:
    """Take in what sites have sent since the last round, without waiting for the next one."""
    workspace = open_workspace(study)
    day = find_as_of(as_of, workspace)
    received = receive_returns(study, find_sites(workspace.study, sites), day, requested_by)
    told, of_alerts = tell_clinicians(study, requested_by)
    failures = [*received.failures, *of_alerts]
    leave_artifact("returns", "Returns received", workspace.study, day, received.counts, failures=failures)
    return conclude([*received.states, *told], failures)
