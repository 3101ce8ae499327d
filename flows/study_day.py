"""The daily round: the procedures of the protocol, in their order."""

from __future__ import annotations

from datetime import date
from typing import Any

from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE

from flows.approvals import watch_approvals
from flows.returns import receive_returns
from flows.runs import (
    AsOf,
    RequestedBy,
    StudyName,
    conclude,
    describe_failure,
    find_as_of,
    find_sites,
    format_day,
    is_scheduled,
    leave_artifact,
    name_run,
)
from study.calendar import find_holidays, is_working_day, next_working_day
from tasks.orchestration import guarded
from tasks.returns import remove_leftovers
from tasks.workspace import adopt_configuration, open_workspace, record_study_day


@task(task_run_name="adopt the definitions", cache_policy=NO_CACHE, persist_result=False)
@guarded
def adopt_definitions(study: str, as_of: date, requested_by: str) -> int:
    """Record what changed in protocol, sites and instruments since the last round. Returns how many parts did."""
    return len(adopt_configuration(open_workspace(study), as_of, requested_by))


@task(task_run_name="complete the study day", cache_policy=NO_CACHE, persist_result=False)
@guarded
def complete_study_day(study: str, as_of: date, requested_by: str) -> None:
    """Record that the round of this day came to its end with every site served, and tidy up after killed runs."""
    workspace = open_workspace(study)
    record_study_day(workspace, as_of, requested_by)
    if workspace.is_live:
        remove_leftovers(workspace)


@flow(name="study-day", flow_run_name=name_run, log_prints=False, persist_result=False)
@guarded
def study_day(study: StudyName, requested_by: RequestedBy, as_of: AsOf = None) -> list[State[Any]]:
    """One day of the study: adopt what changed in its definitions, receive what every site has sent, and follow the
    approvals."""
    workspace = open_workspace(study)
    day = find_as_of(as_of, workspace)
    holidays = find_holidays(workspace.study.bank_holidays)
    if is_scheduled() and not is_working_day(day, holidays):
        # The schedule knows weekdays only. Who starts a round by hand wants it, on any day.
        note = f"No round: a bank holiday. What sites send waits for {format_day(next_working_day(day, holidays))}."
        leave_artifact("study-day", "Study day", workspace.study, day, {}, note=note)
        return []
    adopted = adopt_definitions(study, day, requested_by, return_state=True)
    if not adopted.is_completed():
        failures = [f"No round, since the study's definitions are wrong:\n{describe_failure(adopted)}"]
        leave_artifact("study-day", "Study day", workspace.study, day, {}, failures=failures)
        return conclude([adopted], failures)
    received = receive_returns(study, find_sites(workspace.study, []), day, requested_by)
    followed, failures = watch_approvals(study, day, requested_by)
    states: list[State[Any]] = [adopted, *received.states, followed]
    failures = [*received.failures, *failures]
    if not failures:
        completed = complete_study_day(study, day, requested_by, return_state=True)
        states.append(completed)
        if not completed.is_completed():
            failures.append(f"Every site was served, but the day could not be closed: {describe_failure(completed)}.")
    leave_artifact("study-day", "Study day", workspace.study, day, received.counts, failures=failures)
    return conclude(states, failures)
