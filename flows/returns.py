"""Returns: take what sites have sent, site by site; one site's trouble never stops the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date

from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE

from flows.runs import AsOf, RequestedBy, SiteNames, StudyName, find_as_of, find_sites, leave_artifact
from tasks.returns import find_sites_with_files, receive_site_returns, take_snapshot
from tasks.workspace import open_workspace


@task(task_run_name="receive {site_id}", cache_policy=NO_CACHE, persist_result=False)
def receive_site(study: str, site_id: str, as_of: date, requested_by: str) -> Counter[str]:
    """Everything that waits in one site's inbox. Returns counts."""
    return receive_site_returns(open_workspace(study), site_id, as_of, requested_by)


def receive_returns(
    study: str, sites: Sequence[str], as_of: date, requested_by: str
) -> tuple[list[State[Counter[str]]], dict[str, Counter[str]]]:
    """Receive from each of these sites that has sent something. Returns the state and the counts of each."""
    workspace = open_workspace(study)
    waiting = set(find_sites_with_files(workspace))
    if waiting:
        take_snapshot(workspace, afresh=True)
    states, counts = [], {}
    for site_id in sites:
        if site_id in waiting:
            state = receive_site(study, site_id, as_of, requested_by, return_state=True)
            states.append(state)
            counts[site_id] = state.result() if state.is_completed() else Counter({"failed": 1})
    return states, counts


@flow(name="receive-returns", log_prints=False)
def receive_returns_now(
    study: StudyName, requested_by: RequestedBy, sites: SiteNames = [], as_of: AsOf = None  # noqa: B006 - never changed
) -> list[State[Counter[str]]]:
    """Take in what sites have sent since the last round, without waiting for the next one."""
    protocol = open_workspace(study).study
    day = find_as_of(as_of)
    states, counts = receive_returns(study, find_sites(protocol, sites), day, requested_by)
    leave_artifact("returns", "Returns received", protocol, day, counts)
    return states
