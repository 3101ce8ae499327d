"""Waves: send what is due, site by site; one site's trouble never stops the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, NamedTuple

import pandas as pd
from prefect import State, flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from flows.runs import (
    AsOf,
    RequestedBy,
    SiteNames,
    StudyName,
    conclude,
    describe_failure,
    find_as_of,
    find_sites,
    format_day,
    leave_artifact,
    name_run,
)
from study.calendar import london_day
from study.releasing import ReleasePlan
from tasks.definitions import list_waves
from tasks.orchestration import StepFailed, guarded
from tasks.pages import format_counted
from tasks.releasing import (
    ReleaseRefused,
    draw_up_plan,
    find_plan,
    find_sites_to_serve,
    keep_plan,
    refuse_another_day,
    refuse_another_plan,
    release_site,
    write_release_plan,
)
from tasks.settings import read_settings
from tasks.workspace import Workspace, open_workspace

WaveName = Annotated[str, Field(json_schema_extra={"enum": list(list_waves(read_settings().sites_config))})]
WaveNames = Annotated[
    list[WaveName],
    Field(
        json_schema_extra={
            "uniqueItems": True,
            "title": "Waves",
            "description": "Which waves; none chosen means all that the study sends.",
        }
    ),
]
Send = Annotated[
    bool,
    Field(
        json_schema_extra={
            "title": "Send",
            "description": "Leave it off to see what would go where. Turn it on to send just that.",
        }
    ),
]
Expect = Annotated[
    int,
    Field(
        ge=0,
        json_schema_extra={
            "title": "Expected questionnaires",
            "description": "To send: how many go, as the run without sending told. Another number sends nothing.",
        },
    ),
]


class Sendings(NamedTuple):
    """What became of releasing: a state and counts for each site that was served, what went wrong, and, where nothing
    could be sent on that day at all, why."""

    states: list[State[Counter[str]]]
    counts: dict[str, Counter[str]]
    failures: list[str]
    note: str = ""


@task(task_run_name="release to {site_id}", cache_policy=NO_CACHE, persist_result=False)
@guarded
def release_to_site(study: str, site_id: str, as_of: date, requested_by: str) -> Counter[str]:
    """Send one site what the plan of this run has for it. Returns counts."""
    workspace = open_workspace(study)
    try:
        return release_site(workspace, find_plan(workspace, as_of), site_id, requested_by)
    except ReleaseRefused as refused:
        raise StepFailed(str(refused)) from None


def _serve(study: str, plan: ReleasePlan, as_of: date, requested_by: str) -> Sendings:
    workspace, sendings = open_workspace(study), Sendings([], {}, [])
    with keep_plan(workspace, plan):
        for site_id in find_sites_to_serve(plan):
            state = release_to_site(study, site_id, as_of, requested_by, return_state=True)
            sendings.states.append(state)
            if state.is_completed():
                sendings.counts[site_id] = state.result()
            else:
                sendings.failures.append(
                    f"Site {site_id} was not sent its pack: {describe_failure(state)}. Nothing is sent twice: the next "
                    "run takes up what was begun."
                )
    return sendings


def release_due(
    study: str, sites: Sequence[str], as_of: date, requested_by: str, second_copies: pd.DataFrame | None = None
) -> Sendings:
    """Send these sites what the study sends by itself: automatic waves that are due, copies that a ladder encloses, new
    identifiers where a site runs out of them. What needs a coordinator's word waits. For a day that is not today,
    nothing goes."""
    workspace = open_workspace(study)
    if not sites:
        return Sendings([], {}, [])
    today = london_day(workspace.clock())
    if as_of != today:
        note = f"No packs: they go on their own day only, and today is {format_day(today)}."
        return Sendings([], {}, [], note)
    plan = draw_up_plan(workspace, as_of, sites=sites, is_scheduled=True, second_copies=second_copies)
    return _serve(study, plan, as_of, requested_by)


@flow(name="release-wave", flow_run_name=name_run, log_prints=False, persist_result=False)
@guarded
def release_wave_now(
    study: StudyName,
    requested_by: RequestedBy,
    sites: SiteNames = [],  # noqa: B006 - never changed
    waves: WaveNames = [],  # noqa: B006 - never changed
    send: Send = False,
    expect: Expect = 0,
    as_of: AsOf = None,
) -> list[State[Any]]:
    """Look at what would go where today; with "send" and the count that was told, send it."""
    workspace = open_workspace(study)
    day = find_as_of(as_of, workspace)
    plan = draw_up_plan(workspace, day, find_waves(workspace, waves), find_sites(workspace.study, sites))
    counts = count_plan(plan)
    if not send:
        place = write_release_plan(workspace, plan)
        note = "" if counts else "Nothing is due there, and nothing is held."
        leave_artifact("release-plan", "What would be sent", workspace.study, day, counts, note=note)
        told = f"Nothing was sent. {format_counted(plan.n_going, 'questionnaire')} would go."
        advice = f"To send just these, run this again with Send and {plan.n_going} expected. " if plan.n_going else ""
        advice += f"The page: `{place}`"
        key = f"release-page-{study}".replace("_", "-")
        create_markdown_artifact(f"{told}\n\n{advice}", key=key, description=told)
        return []
    try:
        refuse_another_day(workspace, day)
        refuse_another_plan(plan, expect)
    except ReleaseRefused as refused:
        raise StepFailed(str(refused)) from None
    sendings = _serve(study, plan, day, requested_by)
    note = "" if sendings.counts else "Nothing was sent." if sendings.failures else "Nothing is due there."
    leave_artifact(
        "release", "Packs sent", workspace.study, day, sendings.counts, failures=sendings.failures, note=note
    )
    return conclude(list(sendings.states), sendings.failures)


def find_waves(workspace: Workspace, waves: Sequence[str]) -> list[str]:
    """The waves asked for. Raises StepFailed for one that the study does not have."""
    own = [wave.id for wave in workspace.study.waves]
    if strangers := sorted(set(waves) - set(own)):
        raise StepFailed(f"{workspace.study.study_id} has no wave {', '.join(strangers)}. Its waves: {', '.join(own)}.")
    return list(waves)


def count_plan(plan: ReleasePlan) -> dict[str, Counter[str]]:
    """By site, how many questionnaires would go, wait for a word and are held."""
    words = {"goes": "would go", "waits": "wait for your word", "held": "held"}
    counts: dict[str, Counter[str]] = {}
    for row in plan.count().to_dict("records"):
        counts.setdefault(row["site_id"], Counter()).update({words[code]: row[code] for code in words if row[code]})
    return counts
