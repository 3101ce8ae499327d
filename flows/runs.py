"""What every run has in common: which study and sites it may be asked for, which day it is, what it leaves to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Any, cast

from prefect import State, get_run_logger, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext
from prefect.states import Failed
from pydantic import Field, StringConstraints, WithJsonSchema

from study.calendar import london_day
from study.protocol import Study
from tasks.definitions import list_sites, list_studies
from tasks.orchestration import StepFailed
from tasks.settings import read_settings
from tasks.workspace import Workspace

_FOLDER = read_settings().sites_config

# The choices that Prefect's form shows, and outside which its server refuses a run. Each deployment narrows them to its
# own study and its sites (desk/serve.py). Prefect replaces a field's own title and description, hence the extra.
StudyName = Annotated[
    str, Field(json_schema_extra={"enum": list(list_studies(_FOLDER)), "title": "Study", "description": "Which study."})
]
SiteName = Annotated[str, Field(json_schema_extra={"enum": list(list_sites(_FOLDER))})]
SiteNames = Annotated[
    list[SiteName],
    Field(
        json_schema_extra={
            "uniqueItems": True,
            "title": "Sites",
            "description": "Which sites; none chosen means all of them.",
        }
    ),
]
RequestedBy = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=2, max_length=80, pattern=r"\S.*\S"),
    Field(
        json_schema_extra={
            "title": "Requested by",
            "description": "Your name: the ledger keeps who asked for what.",
        }
    ),
]
AsOf = Annotated[
    date | None,
    # A plain date, so that the form shows a calendar; the pattern, because the server checks patterns and not formats.
    WithJsonSchema({"type": "string", "format": "date", "pattern": r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$"}),
    Field(
        json_schema_extra={
            "title": "As of",
            "description": "The study day; left empty, the day on which the run is due, in London.",
        }
    ),
]


def name_run() -> str:
    """What the run is called on Prefect's page: its study and its day."""
    parameters = runtime.flow_run.parameters
    as_of = parameters.get("as_of")
    return f"{parameters['study']}, {as_of or _find_due_day()}"


def is_scheduled() -> bool:
    """Whether the schedule started this run, and not a person or a program."""
    context = FlowRunContext.get()
    return bool(context and context.flow_run and context.flow_run.auto_scheduled)


def find_as_of(as_of: date | None, workspace: Workspace) -> date:
    """The study day of this run: as asked, else the London date at which it was due to start.

    A run that starts late, after midnight, still belongs to the day for which it was scheduled. Raises StepFailed for a
    day that has not come yet.
    """
    day = as_of or _find_due_day()
    today = london_day(workspace.clock())
    if day > today:
        raise StepFailed(f"{day} has not come yet: today is {today}. Ask for a day up to today.")
    return day


def _find_due_day() -> date:
    day = london_day(runtime.flow_run.scheduled_start_time or datetime.now(UTC))
    # Prefect's moments are of a class of its own, and so are their days: nothing that the ledger could write down.
    return date(day.year, day.month, day.day)


def find_sites(study: Study, sites: Sequence[str]) -> list[str]:
    """The sites asked for, in the study's order; all of them where none is named. Raises StepFailed for a stranger."""
    own = [site.site_id for site in study.sites]
    strangers = sorted(set(sites) - set(own))
    if strangers:
        raise StepFailed(f"{study.study_id} has no site {', '.join(strangers)}. Its sites: {', '.join(own)}.")
    return [site_id for site_id in own if site_id in sites or not sites]


def conclude(states: list[State[Any]], failures: Sequence[str]) -> list[State[Any]]:
    """What a flow returns: the states of its parts, or, where a part failed, a failure that says which.

    Prefect takes a returned state for the run's own, so the run's page shows the words; a program that called the flow
    gets them as StepFailed.
    """
    if not failures:
        return states
    text = "\n".join(failures)
    return cast(list[State[Any]], Failed(message=text, data=StepFailed(text)))


def describe_failure(state: State[Any]) -> str:
    """Why a step failed, as `tasks.orchestration.guarded` told it."""
    fault = state.result(raise_on_failure=False)
    return str(fault) if isinstance(fault, StepFailed) else f"ended as {state.name}"


def leave_artifact(
    key: str,
    title: str,
    study: Study,
    as_of: date,
    counts: Mapping[str, Counter[str]],
    *,
    failures: Sequence[str] = (),
    note: str = "",
) -> None:
    """A page of counts on the run: one row per site, with a total; what failed comes first. Never a value from a
    questionnaire. The run's log gets the same in a line each."""
    total = sum(counts.values(), Counter[str]())
    names = [name for name in dict.fromkeys(name for row in counts.values() for name in row) if total[name]]
    counted = ", ".join(f"{name} {total[name]:,}" for name in names)
    said = ". ".join(text for text in (counted, note) if text) or "No site had sent anything."
    if failures and not names:
        said = note or "Nothing was received."
    lines = [f"## {title}: {study.title}", "", f"Study day {format_day(as_of)}.", ""]
    lines += [line for failure in failures for line in (f"**{failure}**", "")]
    if names:
        lines += [f"| Site | {' | '.join(names)} |", "|---" + "|---:" * len(names) + "|"]
        lines += [f"| {site} | {' | '.join(f'{row[name]:,}' for name in names)} |" for site, row in counts.items()]
        lines.append(f"| **All** | {' | '.join(f'**{total[name]:,}**' for name in names)} |")
        lines += ["", note] if note else []
    else:
        lines.append(said)
    logger = get_run_logger()
    for failure in failures:
        logger.error(failure)
    logger.info("%s, %s: %s", title, as_of, said)
    create_markdown_artifact(
        "\n".join(lines),
        key=f"{key}-{study.study_id}".replace("_", "-"),
        description=f"{title} {as_of}: {f'{len(failures)} failed. ' if failures else ''}{said}",
    )


def format_day(day: date) -> str:
    """A day for people: Monday 3 June 2013."""
    return f"{day:%A} {day.day} {day:%B %Y}"
