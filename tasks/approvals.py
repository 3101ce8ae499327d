"""Follow the approvals: record what is expected of each site's opening, and write the pages that show it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cached_property

import pandas as pd

from study.approval_chasing import derive_approval_chasers
from study.calendar import london_day
from study.deadlines import derive_deadlines
from study.forecast import Forecast, derive_forecast_events, forecast_openings, is_forecast_due
from study.incidents import derive_incidents
from study.position import Position, derive_position
from study.protocol import Study
from study.state import Events
from tasks.approvals_page import write_approvals_page
from tasks.calendar_feed import write_calendar
from tasks.page_links import link_pages
from tasks.workspace import Workspace

APPROVALS_PAGE = "pages/approvals.html"
APPROVALS_CALENDAR = "pages/approvals.ics"
_DAYS_AHEAD = 90


@dataclass(frozen=True)
class Following:
    """Everything about a study's approvals at the end of a day, from one read of the ledger; each part is worked out
    when it is first asked for. `activity`: the one by which a site counts as open."""

    study: Study
    events: Events
    as_of: date
    activity: str

    @cached_property
    def forecast(self) -> Forecast:
        return forecast_openings(self.study, self.events, self.as_of, self.activity)

    @cached_property
    def deadlines(self) -> pd.DataFrame:
        return derive_deadlines(self.study, self.events, self.as_of, within_days=None)

    @cached_property
    def incidents(self) -> pd.DataFrame:
        return derive_incidents(self.study, self.events, self.as_of)

    @cached_property
    def chasers(self) -> pd.DataFrame:
        return derive_approval_chasers(self.study, self.events, self.as_of)

    @cached_property
    def position(self) -> Position:
        return derive_position(self.study, self.events, self.as_of, self.forecast, self.deadlines, self.incidents)


def find_forecast_activity(study: Study) -> str | None:
    """The activity by which a site counts as open: the first collecting of data that is planned, or approaching."""
    planned = ("collect_baseline", "approach")
    return next((activity for activity in planned if study.pathway.find_needs(activity)), None)


def follow_approvals(workspace: Workspace, as_of: date, events: Events | None = None) -> Following | None:
    """Where the approvals stand at the end of a day; None for a study that needs none.

    `events`: a view of the ledger, where it is not to be read as it is now.
    """
    study = workspace.study
    activity = find_forecast_activity(study)
    if activity is None:
        return None
    return Following(study, workspace.read_events() if events is None else events, as_of, activity)


def record_forecasts(workspace: Workspace, following: Following, requested_by: str) -> int:
    """Keep what is expected of each site, where that is due; how many sites. Only of today: what was expected on an
    earlier day can't be known afterwards."""
    study, as_of = following.study, following.as_of
    if as_of != london_day(workspace.clock()):
        return 0
    if not is_forecast_due(study, following.events, as_of, following.activity):
        return 0
    told = derive_forecast_events(following.forecast, requested_by)
    return sum(appended.answer == "added" for appended in workspace.ledger.append(told))


def write_pages(workspace: Workspace, following: Following) -> None:
    """The project manager's page and the calendar of deadlines, in the study's files; they replace those before."""
    as_of, deadlines = following.as_of, following.deadlines
    soon = deadlines.loc[deadlines["on"] <= pd.Timestamp(as_of) + pd.Timedelta(days=_DAYS_AHEAD)]
    written_at = workspace.clock()
    chasers = following.chasers
    page = write_approvals_page(
        study=following.study,
        events=following.events,
        as_of=as_of,
        written_at=written_at,
        position=following.position,
        forecast=following.forecast,
        deadlines=soon,
        incidents=following.incidents,
        chasers=chasers.loc[chasers["state"] == "due"],
    )
    workspace.area.put(APPROVALS_PAGE, page)
    workspace.area.put(APPROVALS_CALENDAR, write_calendar(following.study, deadlines, written_at))
    link_pages(workspace.area)
