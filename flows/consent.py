"""Consent: what consents and returns give rise to is noticed on the day on which it becomes known."""

from __future__ import annotations

from collections import Counter
from datetime import date
from typing import Any

from prefect import State, task
from prefect.cache_policies import NO_CACHE

from flows.runs import describe_failure
from tasks.consent import watch_consent
from tasks.erasure import finish_erasures
from tasks.orchestration import guarded
from tasks.workspace import open_workspace


@task(task_run_name="watch the consents", cache_policy=NO_CACHE, persist_result=False)
@guarded
def watch(study: str, as_of: date, requested_by: str) -> Counter[str]:
    """Open the incidents that are due, and finish what was decided to be erased. Returns counts."""
    workspace = open_workspace(study)
    return watch_consent(workspace, as_of, requested_by) + finish_erasures(workspace, requested_by)


def watch_consents(study: str, as_of: date, requested_by: str) -> tuple[State[Any], list[str]]:
    """Look through the consents of a study. What went wrong is told in sentences."""
    state = watch(study, as_of, requested_by, return_state=True)
    if not state.is_completed():
        return state, [f"The consents could not be looked through: {describe_failure(state)}."]
    return state, []
