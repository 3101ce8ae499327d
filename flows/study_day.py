"""The daily round: the procedures of the protocol, in their order."""

from __future__ import annotations

from collections import Counter
from datetime import date
from typing import Any

from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE

from flows.approvals import watch_approvals
from flows.chasing import Chased, chase_sites, list_second_copies, read_mail
from flows.consent import watch_consents
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
from flows.safeguarding import tell_clinicians
from flows.waves import release_due
from study.calendar import find_holidays, is_working_day, next_working_day
from tasks.fieldwork import write_fieldwork_pages
from tasks.orchestration import guarded
from tasks.returns import remove_leftovers
from tasks.workspace import adopt_configuration, open_workspace, record_study_day


@task(task_run_name="adopt the definitions", cache_policy=NO_CACHE, persist_result=False)
@guarded
def adopt_definitions(study: str, as_of: date, requested_by: str) -> int:
    """Record what changed in protocol, sites and instruments since the last round. Returns how many parts did."""
    return len(adopt_configuration(open_workspace(study), as_of, requested_by))


@task(task_run_name="write the pages of the fieldwork", cache_policy=NO_CACHE, persist_result=False)
@guarded
def write_pages(study: str, as_of: date) -> None:
    """The coordinator's page, and the one of consent by site."""
    write_fieldwork_pages(open_workspace(study), as_of)


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
    """One day of the study: adopt what changed in its definitions, receive what every site has sent, tell
    clinicians of what must not wait, follow approvals and consents, send the packs that are due, chase what is owed."""
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
    sites = find_sites(workspace.study, [])
    received = receive_returns(study, sites, day, requested_by)
    mail = read_mail(study, day, requested_by)
    told, of_alerts = tell_clinicians(study, requested_by)
    followed, of_approvals = watch_approvals(study, day, requested_by)
    watched, of_consents = watch_consents(study, day, requested_by)
    # Whose files could not be read may have answered already: nothing is sent or asked there until they are.
    served = [site_id for site_id in sites if site_id not in received.unread]
    sent = release_due(study, served, day, requested_by, list_second_copies(study, day))
    chased = chase_sites(study, day, requested_by, not_at=received.unread)
    written = write_pages(study, day, return_state=True)
    states: list[State[Any]] = [adopted, *received.states, *mail.states, *told, followed, watched]
    states += [*sent.states, *chased.states, written]
    failures = [*received.failures, *mail.failures, *of_alerts, *of_approvals, *of_consents]
    failures += [*sent.failures, *chased.failures]
    if not written.is_completed():
        failures.append(f"The pages of the fieldwork could not be written: {describe_failure(written)}.")
    if not failures:
        completed = complete_study_day(study, day, requested_by, return_state=True)
        states.append(completed)
        if not completed.is_completed():
            failures.append(f"Every site was served, but the day could not be closed: {describe_failure(completed)}.")
    nothing = Counter[str]()
    counts = {site: received.counts.get(site, nothing) + sent.counts.get(site, nothing) for site in sites}
    counts = {site: row for site, row in counts.items() if row}
    note = describe_letters(chased)
    leave_artifact("study-day", "Study day", workspace.study, day, counts, failures=failures, note=note)
    return conclude(states, failures)


def describe_letters(chased: Chased) -> str:
    """How many letters went out, in a sentence; "" where nobody had to be written to."""
    n = {name: chased.counts[name] for name in ("stop_notices", "digests", "chased", "put_off", "refused", "uncertain")}
    if not any(n.values()):
        return chased.note
    return (
        f"Letters: {n['digests']:,} digests about {n['chased']:,} things that are owed, {n['stop_notices']:,} stop "
        f"notices. Of all: {n['put_off']:,} put off, {n['refused']:,} refused, {n['uncertain']:,} uncertain."
    )
