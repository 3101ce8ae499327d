"""Replay the CDISC pilot trial, day by day, through the flows that a live study uses.

The sites post what happened in their week; the daily round receives, checks and records it; at the end a dataset is
frozen. The ledger's clock is that of the replay. A replay that was killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pandas as pd

from rehearsal.pilot_sites import Posting, derive_postings, write_posting
from rehearsal.pilot_source import read_source
from rehearsal.reconciliation import RECORD_KEY
from study.events import ReturnRefused, StudyDayCompleted
from study.state import derive_files, derive_returns
from tasks.orchestration import many_runs
from tasks.settings import Settings
from tasks.workspace import Workspace, create_workspace, use_workspace

STUDY = "cdisc_pilot"
ROUND_STARTS = time(6, 30)
LONDON = ZoneInfo("Europe/London")


class ReplayClock:
    """The ledger's clock during a replay: half past six in London on the study day."""

    def __init__(self, day: date) -> None:
        self.day = day

    def __call__(self) -> datetime:
        return datetime.combine(self.day, ROUND_STARTS, LONDON).astimezone(UTC)


@dataclass(frozen=True)
class Progress:
    """Where a replay stands: study day `n` of `n_days`, and how many workbooks sites have posted so far."""

    n: int
    n_days: int
    day: date
    n_posted: int


@dataclass(frozen=True)
class Replayed:
    """What a replay left. `n_resumed`: study days that an earlier, interrupted replay had completed."""

    workspace: Workspace
    release: str
    location: str
    answer: str
    n_days: int
    n_resumed: int
    n_posted: int


def parse_every(text: str) -> int:
    """"7d" to 7. Raises ValueError for anything but a number of days from 1 to 31."""
    match = re.fullmatch(r"(\d{1,2})d?", text.strip())
    if not match or not 1 <= int(match[1]) <= 31:
        raise ValueError(f'"{text}" is not a rhythm of study days. Give a number of days from 1d to 31d, such as 7d.')
    return int(match[1])


def derive_study_days(first: date, last: date, every: int) -> list[date]:
    """Study days from the first, `every` days apart; the last day always among them, so that nothing stays behind."""
    days = [first + timedelta(days=n) for n in range(0, (last - first).days + 1, every)]
    return days if days[-1] == last else [*days, last]


def find_workspace_name(sites: Sequence[str], until: date | None) -> str:
    """A slice of the trial is a study of its own, so that it never mixes with the whole."""
    parts = [STUDY, *(["-".join(sites)] if sites else []), *([f"until-{until}"] if until else [])]
    return ".".join(parts)


def open_replay(settings: Settings, sites: Sequence[str] = (), until: date | None = None) -> Workspace:
    """The workspace of a replay, or of a slice of it."""
    return create_workspace(STUDY, settings=settings, name=find_workspace_name(sites, until))


def replay(
    settings: Settings,
    *,
    sites: Sequence[str] = (),
    until: date | None = None,
    every: int = 7,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Replayed:
    """Replay the trial, or some sites of it, or until a day; go on where an interrupted replay stopped.

    Any `every` ends in the same data files. Raises ValueError for a site that the trial does not have.
    """
    # Imported here: flows import Prefect, which reads its settings from the environment when it is imported.
    from flows.datasets import freeze_dataset
    from flows.study_day import study_day

    sites = sorted(set(sites))
    workspace = open_replay(settings, sites, until)
    postings = derive_postings(read_source(), workspace.study, workspace.instruments, sites or None, until)
    if not postings:
        raise ValueError(f"No site had posted anything by {until}. The first posting is a week after the trial began.")
    last = until or postings[-1].posted_on
    days = derive_study_days(workspace.study.starts_on, last, every)
    clock = ReplayClock(days[0])
    workspace.clock = workspace.ledger.clock = clock
    with use_workspace(workspace), many_runs():
        events = workspace.read_events()
        completed = events.frame(StudyDayCompleted)["occurred_on"]
        done = completed.max().date() if len(completed) else None
        received = set(derive_files(events)["sha256"])
        waiting = [posting for posting in postings if done is None or posting.posted_on > done]
        n_posted = len(postings) - len(waiting)
        to_do = [day for day in days if done is None or day > done]
        for n, day in enumerate(to_do, start=len(days) - len(to_do) + 1):
            clock.day = day
            while waiting and waiting[0].posted_on <= day:
                post(workspace, waiting.pop(0), received)
                n_posted += 1
            for state in study_day(study=STUDY, as_of=day, requested_by="replay"):
                state.result()
            on_progress(Progress(n, len(days), day, n_posted))
        clock.day = last
        frozen = freeze_dataset(study=STUDY, as_of=last, requested_by="replay")
    return Replayed(
        workspace=workspace,
        release=frozen["release"],
        location=frozen["location"],
        answer=frozen["answer"],
        n_days=len(days),
        n_resumed=len(days) - len(to_do),
        n_posted=n_posted,
    )


def post(workspace: Workspace, posting: Posting, received: set[str]) -> None:
    """A site puts its workbook into its drop-box; not again where an interrupted replay's round has received it."""
    name, data = write_posting(posting, workspace.layout)
    if hashlib.sha256(data).hexdigest() not in received:
        workspace.drop_box(posting.site_id).post(name, data)


@dataclass(frozen=True)
class Unreleased:
    """What a release does not hold, for the reconciliation: refused and superseded records, files in quarantine."""

    refused: pd.DataFrame
    superseded: pd.DataFrame
    quarantined: pd.DataFrame


def find_unreleased(workspace: Workspace) -> Unreleased:
    """Records that were refused or superseded, and sendings held in quarantine, from the ledger."""
    events = workspace.read_events()
    returns, files = derive_returns(events), derive_files(events)
    held = files[files["outcome"] == "quarantined"]
    return Unreleased(
        refused=events.frame(ReturnRefused)[[*RECORD_KEY, "query_id"]],
        superseded=returns.loc[~returns["is_current"], RECORD_KEY],
        quarantined=held[["site_id", "posted_on", "sending_number"]],
    )


def start_afresh(settings: Settings, sites: Sequence[str] = (), until: date | None = None) -> None:
    """Delete what an earlier replay left in the data folder. Raises ValueError where it lies on a server."""
    if settings.database_url or settings.files:
        raise ValueError(
            "A replay on a database server or a bucket is not deleted from here. Use a fresh database and prefix."
        )
    shutil.rmtree(settings.data_folder / find_workspace_name(sorted(set(sites)), until), ignore_errors=True)
