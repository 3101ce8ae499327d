"""Replay the CDISC pilot trial, day by day, through the flows that a live study uses.

The sites post what happened in their week; the daily round receives, checks and records it; at the end a dataset is
frozen. The ledger's clock is that of the replay. A replay that was stopped or killed goes on where it stopped, unless
the program, the definitions or the assumptions have changed since: then it would end in a dataset that no single
version gives.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from importlib.metadata import version
from zoneinfo import ZoneInfo

import pandas as pd

from rehearsal.contacts import write_contacts
from rehearsal.pilot_sites import Posting, derive_postings, write_posting
from rehearsal.pilot_source import ASSUMPTIONS_FILE, PACKAGE, read_source
from rehearsal.reconciliation import RECORD_KEY
from study.events import ReturnRefused, StudyDayCompleted
from study.incidents import derive_held
from study.protocol import Study
from study.state import Events, derive_files, derive_returns
from tasks.definitions import list_configuration, load_instruments, load_study
from tasks.files import FileMissing
from tasks.orchestration import many_runs
from tasks.settings import PROJECT, Settings
from tasks.workspace import Workspace, create_workspace, use_workspace

STUDY = "cdisc_pilot"
REPLAY = "replay"
"""Who asked, in the ledger, for what a replay does."""
NOTE = "replay.json"
ROUND_STARTS = time(6, 30)
LONDON = ZoneInfo("Europe/London")


class ReplayRefused(ValueError):
    """Why a replay cannot begin or go on; says what to do."""


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
    """What a replay left. `rows`: the release's tables and their rows, for people. `n_resumed`: study days that an
    earlier replay had completed; all of them where it only had to be frozen again. `is_of_this_version`: False where
    what stands was replayed by another version of the program, the definitions or the assumptions."""

    workspace: Workspace
    release: str
    location: str
    answer: str
    rows: str
    n_days: int
    n_resumed: int
    n_posted: int
    is_of_this_version: bool


def parse_every(text: str) -> int:
    """The 7 of "7d". Raises ValueError for anything but a number of days from 1 to 31."""
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


def find_postings(settings: Settings, sites: Collection[str], until: date | None) -> list[Posting]:
    """Everything that the sites post up to a day. Raises ReplayRefused where that is nothing, or cannot be replayed."""
    source = read_source()
    if unknown := sorted(set(sites) - set(source.site_ids)):
        own = ", ".join(source.site_ids)
        raise ReplayRefused(f"The pilot trial has no site {', '.join(unknown)}. Its sites: {own}.")
    study = load_study(STUDY, settings.sites_config, settings.instruments)
    instruments = load_instruments(study, settings.instruments)
    try:
        postings = derive_postings(source, study, instruments, sites or None)
    except ValueError as misfit:
        raise ReplayRefused(str(misfit)) from None
    first, last = postings[0].posted_on, postings[-1].posted_on
    if until is not None and not first <= until <= last:
        raise ReplayRefused(
            f"{until} lies outside this replay: its workbooks are posted from {first} to {last}. Choose a day among "
            "these, or leave --until out."
        )
    # Derived again: an allocation or a disposition posted later is not known by then.
    return postings if until is None else derive_postings(source, study, instruments, sites or None, until)


def replay(
    settings: Settings,
    *,
    sites: Sequence[str] = (),
    until: date | None = None,
    every: int = 7,
    fresh: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Replayed:
    """Replay the trial, or some sites of it, or until a day; go on where an interrupted replay stopped, or begin again.

    Any `every` ends in the same data files. Raises ReplayRefused, having changed nothing, for what cannot be replayed.
    """
    sites = sorted(set(sites))
    name, postings = find_workspace_name(sites, until), find_postings(settings, sites, until)
    # Imported here: flows import Prefect, which reads its settings from the environment when it is imported.
    from flows.datasets import freeze_dataset
    from flows.study_day import study_day

    with hold(settings, name):
        if fresh:
            delete_replay(settings, name)
        workspace = create_workspace(STUDY, settings=settings, name=name, is_synced=False)
        last = until or postings[-1].posted_on
        days = derive_study_days(workspace.study.starts_on, last, every)
        clock = ReplayClock(days[0])
        workspace.clock = workspace.ledger.clock = clock
        standing = find_standing(workspace, postings, last)
        to_do = standing.find_days_to_do(days)
        is_of_this_version = _note_version(workspace, is_unfinished=bool(to_do))
        write_contacts(workspace)
        waiting = [posting for posting in postings if not standing.done or posting.posted_on > standing.done]
        n_posted = len(postings) - len(waiting)
        with use_workspace(workspace), many_runs():
            for n, day in enumerate(to_do, start=len(days) - len(to_do) + 1):
                clock.day = day
                workspace.writes_pages = day == days[-1]
                while waiting and waiting[0].posted_on <= day:
                    post(workspace, waiting.pop(0), standing.received)
                    n_posted += 1
                for state in study_day(study=STUDY, as_of=day, requested_by=REPLAY):
                    state.result()
                on_progress(Progress(n, len(days), day, n_posted))
            clock.day = last
            frozen = freeze_dataset(study=STUDY, as_of=last, requested_by=REPLAY)
    return Replayed(
        workspace=workspace,
        release=frozen["release"],
        location=frozen["location"],
        answer=frozen["answer"],
        rows=frozen["rows"],
        n_days=len(days),
        n_resumed=len(days) - len(to_do),
        n_posted=n_posted,
        is_of_this_version=is_of_this_version,
    )


@dataclass(frozen=True)
class Standing:
    """What an earlier replay left. `done`: the last study day completed. `begun`: the last day that left anything, even
    if only a workbook in an inbox. `received`: the SHA-256 of every file received."""

    done: date | None
    begun: date | None
    received: frozenset[str]

    def find_days_to_do(self, days: Sequence[date]) -> list[date]:
        """Days not completed, from the one that was interrupted on. An earlier one, which another rhythm may have,
        would meet workbooks posted in its own future."""
        return [day for day in days if not (self.done and day <= self.done) and not (self.begun and day < self.begun)]


def find_standing(workspace: Workspace, postings: Sequence[Posting], last: date) -> Standing:
    """Where an earlier replay of these postings up to `last` stopped.

    Raises ReplayRefused if it is unfinished and something else has written to its ledger since, by a later clock: what
    the replay still has to record could then not be told from what was known on its days.
    """
    events = workspace.read_events()
    completed = events.frame(StudyDayCompleted)
    own = completed.loc[completed["requested_by"] == REPLAY, "occurred_on"]
    done = own.max().date() if len(own) else None
    recorded_on = _find_recorded_on(workspace)
    if recorded_on and recorded_on > last and done != last:
        raise ReplayRefused(
            f"The ledger of {workspace.name} holds rows of {recorded_on}, recorded by something else than this replay, "
            f"which ends on {last} and is unfinished. It cannot go on behind them. Begin again with --fresh."
        )
    in_inboxes = {
        (site.site_id, file.name)
        for site in workspace.study.sites
        for file in workspace.drop_box(site.site_id).waiting(workspace.clock(), 0)
    }
    posted = [posting.posted_on for posting in postings if (posting.site_id, posting.file_name) in in_inboxes]
    begun = max([*posted, *([min(recorded_on, last)] if recorded_on else [])], default=None)
    return Standing(done, begun, frozenset(derive_files(events)["sha256"]))


def _find_recorded_on(workspace: Workspace) -> date | None:
    """The London day of the ledger's newest row."""
    newest = workspace.ledger.history(newest=1)["recorded_at"]
    return pd.Timestamp(newest.iloc[0]).tz_convert(LONDON).date() if len(newest) else None


def compute_version(settings: Settings, study: Study) -> str:
    """SHA-256 of all that decides what a replay ends in: code, trial, definitions, assumptions."""
    digest = hashlib.sha256(ASSUMPTIONS_FILE.read_bytes())
    for room in ("flows", "rehearsal", "study", "tasks"):
        for path in sorted((PROJECT / room).glob("*.py")):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    for package in (PACKAGE, "numpy", "pandas", "pyarrow", "xlsxwriter"):
        digest.update(f"{package} {version(package)}\n".encode())
    for part in list_configuration(STUDY, settings.sites_config, settings.instruments, study):
        digest.update(f"{part.part} {part.name} {part.sha256}\n".encode())
    return digest.hexdigest()


def _note_version(workspace: Workspace, *, is_unfinished: bool) -> bool:
    """Note beside the ledger which version replays here; True if it is this one.

    Raises ReplayRefused if another one began what is unfinished.
    """
    ours = compute_version(workspace.settings, workspace.study)
    is_new = workspace.ledger.head().seq == 0
    try:
        theirs = None if is_new else json.loads(workspace.area.get(NOTE))["version"]
    except FileMissing:
        theirs = ""
    if theirs is None:
        workspace.area.put(NOTE, (json.dumps({"version": ours}) + "\n").encode())
    elif theirs != ours and is_unfinished:
        raise ReplayRefused(
            f"An unfinished replay of {workspace.name} was begun by another version of the program, the definitions or "
            "the assumptions, and would end in a dataset that neither gives. Begin again with --fresh."
        )
    return theirs is None or theirs == ours


@contextmanager
def hold(settings: Settings, name: str) -> Iterator[None]:
    """One replay of a study at a time: two would post into each other's future.

    The lock is that of an SQLite file, which every system ends with the process, however that ends.
    """
    settings.data_folder.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(settings.data_folder / f".{name}.lock", timeout=0, isolation_level=None)) as lock:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            raise ReplayRefused(f"{name} is being replayed by another process. Wait until it ends.") from None
        yield


def post(workspace: Workspace, posting: Posting, received: Collection[str]) -> None:
    """A site puts its workbook into its drop-box; not again where an interrupted replay's round has received it."""
    name, data = write_posting(posting, workspace.layout)
    if hashlib.sha256(data).hexdigest() not in received:
        workspace.drop_box(posting.site_id).post(name, data)


@dataclass(frozen=True)
class Unreleased:
    """What a release does not hold, for the reconciliation: refused and superseded records, files in quarantine, and
    records that are held back since they were collected while that was not allowed."""

    refused: pd.DataFrame
    superseded: pd.DataFrame
    quarantined: pd.DataFrame
    held: pd.DataFrame


def find_unreleased(workspace: Workspace, events: Events) -> Unreleased:
    """Records that were refused, superseded or held back, and sendings in quarantine, from the ledger's events."""
    returns, files, records = derive_returns(events), derive_files(events), derive_held(events)
    held = files[files["outcome"] == "quarantined"]
    return Unreleased(
        refused=events.frame(ReturnRefused)[[*RECORD_KEY, "query_id"]],
        superseded=returns.loc[~returns["is_current"], RECORD_KEY],
        quarantined=held[["site_id", "posted_on", "sending_number"]],
        held=records.loc[records["is_held"], RECORD_KEY],
    )


def delete_replay(settings: Settings, name: str) -> None:
    """Delete what an earlier replay left in the data folder. Raises ReplayRefused where any of it lies elsewhere."""
    if settings.database_url or settings.files:
        raise ReplayRefused(
            "--fresh deletes only what lies in the data folder; the settings put the ledger or the files elsewhere. "
            "Name an empty database and an empty bucket or prefix in the settings instead."
        )
    folder, aside = settings.data_folder / name, settings.data_folder / f".{name}.deleted"
    if aside.exists():
        shutil.rmtree(aside)  # what a run that was killed meanwhile left
    if folder.exists():
        folder.rename(aside)  # in one step: never half a ledger
        shutil.rmtree(aside)
