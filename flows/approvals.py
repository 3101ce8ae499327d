"""Approvals: follow them every day, keep what is expected of each site's opening, and write the page that says so."""

from __future__ import annotations

from datetime import date
from typing import Any

from prefect import State, flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.runs import (
    AsOf,
    RequestedBy,
    StudyName,
    conclude,
    describe_failure,
    find_as_of,
    format_day,
    name_run,
)
from study.position import STATE_WORDS, Position
from study.protocol import Study
from tasks.approvals import APPROVALS_CALENDAR, APPROVALS_PAGE, follow_approvals, record_forecasts, write_pages
from tasks.orchestration import guarded
from tasks.workspace import open_workspace


@task(task_run_name="follow the approvals", cache_policy=NO_CACHE, persist_result=False)
@guarded
def follow(study: str, as_of: date, requested_by: str) -> tuple[str, str] | None:
    """Record the forecast where it is due, and write the page and the calendar. Returns the position, in a sentence and
    in Markdown; None for a study that needs no approvals, and on a day of which nobody reads pages."""
    workspace = open_workspace(study)
    following = follow_approvals(workspace, as_of)
    if following is None:
        return None
    record_forecasts(workspace, following, requested_by)
    if not workspace.writes_pages:
        return None
    write_pages(workspace, following)
    position = following.position
    return count_sites(position), describe_position(following.study, position, workspace.area.place)


def watch_approvals(study: str, as_of: date, requested_by: str) -> tuple[State[Any], list[str]]:
    """Follow the approvals of a study, and leave its position to read. What went wrong is told in sentences."""
    state = follow(study, as_of, requested_by, return_state=True)
    if not state.is_completed():
        return state, [f"The approvals could not be followed: {describe_failure(state)}."]
    if told := state.result():
        summary, text = told
        key = f"approvals-{study}".replace("_", "-")
        create_markdown_artifact(text, key=key, description=f"Approvals {as_of}: {summary}")
    return state, []


@flow(name="follow-approvals", flow_run_name=name_run, log_prints=False, persist_result=False)
@guarded
def follow_approvals_now(study: StudyName, requested_by: RequestedBy, as_of: AsOf = None) -> list[State[Any]]:
    """Write the page of approvals and the calendar now, without waiting for the next round."""
    state, failures = watch_approvals(study, find_as_of(as_of, open_workspace(study)), requested_by)
    return conclude([state], failures)


def count_sites(position: Position) -> str:
    """How many sites there are in each state, in a sentence."""
    counts = [f"{n} {words}" for state, words in STATE_WORDS.items() if (n := position.count(state))]
    return f"{len(position.sites)} sites: {', '.join(counts)}; {len(position.at_risk)} at risk."


def describe_position(study: Study, position: Position, place: str) -> str:
    """Where the study stands, for a run's page: counts, a row per site, what to do first, and where the page is."""
    lines = [
        f"## Approvals: {study.title}",
        "",
        f"Study day {format_day(position.as_of)}.",
        "",
        count_sites(position),
        "",
        "| Site | State | Still lacks | Overdue | Expected (median) | 80 % date |",
        "|---|---|---:|---:|---|---|",
    ]
    for site in position.sites:
        state = STATE_WORDS[site.standings[position.activity].state]
        expected = [str(day) if day and not site.opened_on else "" for day in (site.median_on, site.p80_on)]
        lines.append(f"| {site.name} | {state} | {site.n_lacking} | {site.n_overdue} | {' | '.join(expected)} |")
    if position.urgent:
        lines += ["", "First:", "", *(f"1. {urgent.text} {urgent.action}" for urgent in position.urgent[:3])]
    lines += ["", f"The whole page: `{place}/{APPROVALS_PAGE}`; the calendar: `{place}/{APPROVALS_CALENDAR}`."]
    return "\n".join(lines)
