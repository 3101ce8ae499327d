"""Safeguarding: of an answer that must not wait, a clinician is told on the day on which it was read."""

from __future__ import annotations

from collections import Counter
from typing import Any

from prefect import State, task
from prefect.cache_policies import NO_CACHE

from flows.runs import describe_failure
from study.calendar import london_day
from study.safeguarding import has_open_alerts
from tasks.orchestration import guarded
from tasks.safeguarding import send_alerts
from tasks.workspace import open_workspace


@task(task_run_name="send safeguarding alerts", cache_policy=NO_CACHE, persist_result=False)
@guarded
def send_safeguarding_alerts(study: str, requested_by: str) -> Counter[str]:
    """Tell clinicians of what was raised, and the next role of what nobody has taken over. Returns counts."""
    return send_alerts(open_workspace(study), requested_by)


def tell_clinicians(study: str, requested_by: str) -> tuple[list[State[Any]], list[str]]:
    """Send what is due of safeguarding alerts; nothing is done while every alert is acknowledged. What went wrong is
    told in sentences."""
    workspace = open_workspace(study)
    if not has_open_alerts(workspace.read_events(), london_day(workspace.clock())):
        return [], []
    state = send_safeguarding_alerts(study, requested_by, return_state=True)
    if not state.is_completed():
        return [state], [f"Safeguarding alerts: {describe_failure(state)}."]
    return [state], []
