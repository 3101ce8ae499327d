"""The daily round: the procedures of the protocol, in their order."""

from __future__ import annotations

from datetime import date
from typing import Any

from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE

from flows.returns import receive_returns
from flows.runs import AsOf, RequestedBy, StudyName, find_as_of, find_sites, leave_artifact
from tasks.workspace import adopt_configuration, open_workspace, record_study_day


@task(name="adopt the definitions", cache_policy=NO_CACHE, persist_result=False)
def adopt_definitions(study: str, as_of: date, requested_by: str) -> int:
    """Record what changed in protocol, sites and instruments since the last round. Returns how many parts did."""
    return len(adopt_configuration(open_workspace(study), as_of, requested_by))


@task(name="complete the study day", cache_policy=NO_CACHE, persist_result=False)
def complete_study_day(study: str, as_of: date, requested_by: str) -> None:
    """Record that the round of this day came to its end with every site served."""
    record_study_day(open_workspace(study), as_of, requested_by)


@flow(name="study-day", log_prints=False)
def study_day(study: StudyName, as_of: AsOf = None, requested_by: RequestedBy = "daily round") -> list[State[Any]]:
    """One day of the study: adopt what changed in its definitions, then receive what every site has sent."""
    day = find_as_of(as_of)
    adopted = adopt_definitions(study, day, requested_by, return_state=True)
    if not adopted.is_completed():
        return [adopted]
    protocol = open_workspace(study).study
    states, counts = receive_returns(study, find_sites(protocol, []), day, requested_by)
    if all(state.is_completed() for state in states):
        states.append(complete_study_day(study, day, requested_by, return_state=True))
    leave_artifact("study-day", "Study day", protocol, day, counts)
    return [adopted, *states]
