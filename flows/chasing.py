"""Chasing: read what came back, draw up what is to be asked of whom today, queue it and send it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import Any, NamedTuple

import pandas as pd
from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE

from flows.runs import (
    AsOf,
    RequestedBy,
    StudyName,
    conclude,
    describe_failure,
    find_as_of,
    format_day,
    leave_artifact,
    name_run,
)
from flows.safeguarding import tell_clinicians
from study.calendar import london_day
from tasks.chasing import ROUNDS, describe_gaps, draw_up, find_second_copies, has_turned_down, queue_letters
from tasks.mailbox import read_mailbox
from tasks.orchestration import guarded
from tasks.outbox import send_waiting
from tasks.workspace import open_workspace

WHOLE_STUDY = "All sites"


class Chased(NamedTuple):
    """What became of chasing: states, counts over all sites, what went wrong, and, where nobody could be chased on that
    day at all, why."""

    states: list[State[Any]]
    counts: Counter[str]
    failures: list[str]
    note: str = ""


@task(task_run_name="read the mailbox", cache_policy=NO_CACHE, persist_result=False)
@guarded
def look_into_mailbox(study: str, as_of: date, requested_by: str) -> Counter[str]:
    """Record what came back and who answered. Returns counts."""
    return read_mailbox(open_workspace(study), as_of, requested_by)


@task(task_run_name="draw up the letters", cache_policy=NO_CACHE, persist_result=False)
@guarded
def draw_up_letters(study: str, as_of: date, requested_by: str, not_at: Sequence[str]) -> Counter[str]:
    """Queue today's stop notices and digests. Returns counts."""
    return queue_letters(open_workspace(study), as_of, requested_by, not_at)


@task(task_run_name="send what waits", cache_policy=NO_CACHE, persist_result=False)
@guarded
def send_letters(study: str, as_of: date, requested_by: str) -> Counter[str]:
    """Send what waits, one letter after another. Returns counts."""
    return send_waiting(open_workspace(study), as_of, requested_by)


def read_mail(study: str, as_of: date, requested_by: str) -> Chased:
    """Read the mailbox, so that nobody is chased who has answered and nothing is sent to a wrong address. For a day
    that is not today there is nothing to read."""
    if not _is_today(study, as_of):
        return Chased([], Counter(), [])
    state = look_into_mailbox(study, as_of, requested_by, return_state=True)
    if not state.is_completed():
        return Chased([state], Counter(), [f"The mailbox could not be read: {describe_failure(state)}."])
    return Chased([state], state.result(), [])


def list_second_copies(study: str, as_of: date) -> pd.DataFrame:
    """Questionnaires of which the ladder sends a second copy on a day: participant_id, respondent, wave."""
    return find_second_copies(open_workspace(study), as_of)


def chase_sites(study: str, as_of: date, requested_by: str, not_at: Sequence[str] = ()) -> Chased:
    """Today's round of chasing, as `tasks.chasing.chase`: a task for drawing up and one for sending.

    `not_at`: sites that are asked for nothing, since what they sent could not be read. For a day that is not today,
    nobody is chased. What was queued before goes out even where the letters of today could not be drawn up.
    """
    chased = Chased([], Counter(), [])
    if not _is_today(study, as_of):
        today = format_day(london_day(open_workspace(study).clock()))
        return chased._replace(note=f"Nobody was chased: a chaser belongs to its own day, and today is {today}.")
    for _ in range(ROUNDS):
        drawn = draw_up_letters(study, as_of, requested_by, list(not_at), return_state=True)
        sent = send_letters(study, as_of, requested_by, return_state=True)
        chased.states.extend([drawn, sent])
        if not drawn.is_completed():
            chased.failures.append(f"Nobody could be chased: {describe_failure(drawn)}.")
        if not sent.is_completed():
            chased.failures.append(
                f"Not every letter was sent: {describe_failure(sent)}. What waits goes out with the next run of today."
            )
        queued: Counter[str] = drawn.result() if drawn.is_completed() else Counter()
        became: Counter[str] = sent.result() if sent.is_completed() else Counter()
        chased.counts.pop("unreachable", None)  # counted anew each time
        chased.counts.update(queued + became)
        if chased.failures or not has_turned_down(queued, became):
            break
    return chased


def _is_today(study: str, as_of: date) -> bool:
    return as_of == london_day(open_workspace(study).clock())


@flow(name="chase", flow_run_name=name_run, log_prints=False, persist_result=False)
@guarded
def chase_now(study: StudyName, requested_by: RequestedBy, as_of: AsOf = None) -> list[State[Any]]:
    """Chase what is due today, without waiting for the next round. Nothing goes out twice."""
    workspace = open_workspace(study)
    day = find_as_of(as_of, workspace)
    mail = read_mail(study, day, requested_by)
    told, of_alerts = tell_clinicians(study, requested_by)
    chased = chase_sites(study, day, requested_by)
    failures = [*mail.failures, *of_alerts, *chased.failures]
    counts = {name.replace("_", " "): n for name, n in chased.counts.items() if n}
    gaps = describe_gaps(workspace, draw_up(workspace, day)) if chased.counts["unreachable"] else []
    note = " ".join([chased.note or ("" if counts or failures else "Nothing was due."), *gaps]).strip()
    rows = {WHOLE_STUDY: Counter(counts)} if counts else {}
    leave_artifact("chasing", "Chasing", workspace.study, day, rows, failures=failures, note=note)
    return conclude([*mail.states, *told, *chased.states], failures)
