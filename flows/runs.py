"""What every run has in common: which study and sites it may be asked for, which day it is, what it leaves to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Annotated

from prefect import runtime
from prefect.artifacts import create_markdown_artifact
from pydantic import Field, StringConstraints

from study.calendar import london_day
from study.protocol import Study
from tasks.definitions import list_sites, list_studies
from tasks.settings import read_settings

_FOLDER = read_settings().sites_config

# The choices that Prefect's form shows, and outside which its server refuses a run.
StudyName = Annotated[
    str, Field(title="Study", json_schema_extra={"enum": list(list_studies(_FOLDER))}, description="Which study.")
]
SiteName = Annotated[str, Field(json_schema_extra={"enum": list(list_sites(_FOLDER))})]
SiteNames = Annotated[list[SiteName], Field(title="Sites", description="Which sites; none chosen means all of them.")]
RequestedBy = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=2, max_length=80),
    Field(title="Requested by", description="Your name: the ledger keeps who asked for what."),
]
AsOf = Annotated[
    date | None,
    Field(title="As of", description="The study day; left empty, the day on which the run was due, in London."),
]


def find_as_of(as_of: date | None) -> date:
    """The study day of this run: as asked, else the London date at which it was due to start.

    A run that starts late, after midnight, still belongs to the day for which it was scheduled.
    """
    if as_of is not None:
        return as_of
    return london_day(runtime.flow_run.scheduled_start_time or datetime.now(UTC))


def find_sites(study: Study, sites: Sequence[str]) -> list[str]:
    """The sites asked for, in the study's order; all of them where none is named. Raises ValueError for a stranger."""
    own = [site.site_id for site in study.sites]
    strangers = sorted(set(sites) - set(own))
    if strangers:
        raise ValueError(f"{study.study_id} has no site {', '.join(strangers)}. Its sites: {', '.join(own)}.")
    return [site_id for site_id in own if site_id in sites or not sites]


def leave_artifact(key: str, title: str, study: Study, as_of: date, counts: Mapping[str, Counter[str]]) -> None:
    """A page of counts on the run: one row per site, with a total. Never a value from a questionnaire."""
    names = list(dict.fromkeys(name for row in counts.values() for name in row))
    lines = [f"## {title}: {study.title}", "", f"Study day {as_of:%A %d %B %Y}.", ""]
    if not names:
        lines.append("No site had sent anything.")
    else:
        lines += [f"| Site | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        lines += [f"| {site} | {' | '.join(str(row[name]) for name in names)} |" for site, row in counts.items()]
        total = sum(counts.values(), Counter[str]())
        lines.append(f"| **All** | {' | '.join(f'**{total[name]}**' for name in names)} |")
    create_markdown_artifact("\n".join(lines), key=f"{key}-{study.study_id}".replace("_", "-"), description=title)
