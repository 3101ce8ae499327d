"""Play a made-up course of the IPC evaluation's approvals through the daily round, from the first form on.

`ipc_story.toml` tells what happens; what it leaves open is drawn, the same on every machine. Each step is recorded on
the day on which it became known, as a person would record it; sites that are open screen made-up people and post their
workbooks. The ledger's clock is the story's. A rehearsal that was stopped goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rehearsal.replay import Progress, ReplayClock, ReplayRefused, delete_replay, derive_study_days, hold
from study.approval_entries import ENTRY_STEPS, foresee
from study.approval_steps import Item, derive_steps, list_items, list_modification_items
from study.approvals import find_recording_faults
from study.calendar import is_working_day, next_working_day
from study.duties import find_duty_faults
from study.events import (
    ApprovalEvent,
    ApprovalSubmitted,
    DocumentVersionIssued,
    DutyDone,
    Event,
    ModificationIntroduced,
    ModificationSupplied,
    StudyDayCompleted,
)
from study.gate import derive_open_days
from study.identifiers import compute_identifier
from study.modifications import find_modification_faults
from study.pack_layout import CONSENT, SCREENING
from study.protocol import Study
from study.state import Events, derive_files
from tasks.orchestration import many_runs
from tasks.settings import PROJECT, Settings
from tasks.workbooks import write_return_workbook
from tasks.workspace import REHEARSAL, Workspace, create_workspace, use_workspace

STUDY = "ipc"
NAME = f"{STUDY}.{REHEARSAL}"
STORY_FILE = PROJECT / "rehearsal" / "ipc_story.toml"
REQUESTED_BY = "rehearsal"


class Told(NamedTuple):
    """An event, and the day on which it is recorded."""

    known_on: date
    event: Event


@dataclass(frozen=True)
class Played:
    """What a rehearsal left. `n_recorded`: events that people recorded; `n_days`: study days, all of them."""

    workspace: Workspace
    n_days: int
    n_resumed: int
    n_recorded: int
    last_on: date


def read_story() -> dict[str, Any]:
    """The story as it is written."""
    return tomllib.loads(STORY_FILE.read_text(encoding="utf-8"))


def derive_story(study: Study, story: Mapping[str, Any] | None = None) -> list[Told]:
    """Everything that people record, in the order in which they do. Steps of one item are recorded in their order."""
    story = story or read_story()
    rng = np.random.default_rng(story["seed"])
    events = [*_tell_frame(story), *_tell_steps(study, story)]
    events += _draw_steps(study, story, {Item.of(event) for event in events if isinstance(event, ApprovalEvent)}, rng)
    last, lag = story["ends_on"], story["most_days_until_recorded"]
    told: list[Told] = []
    latest: dict[Item, date] = {}
    for event in sorted(events, key=lambda event: event.occurred_on):
        known_on = event.occurred_on + timedelta(days=int(rng.integers(0, lag + 1)))
        if isinstance(event, ApprovalEvent):
            item = Item.of(event)
            known_on = max(known_on, latest.get(item, known_on))
            latest[item] = known_on
        if isinstance(event, ModificationIntroduced | ModificationSupplied):
            known_on = event.occurred_on
        if known_on <= last:
            told.append(Told(known_on, event))
    return sorted(told, key=lambda entry: entry.known_on)


def _tell_frame(story: Mapping[str, Any]) -> Iterator[Event]:
    """Modifications, supplies, documents and duties, as they stand in the story."""
    kinds: dict[str, type[Event]] = {
        "modifications": ModificationIntroduced,
        "supplies": ModificationSupplied,
        "documents": DocumentVersionIssued,
        "duties": DutyDone,
    }
    for section, kind in kinds.items():
        for entry in story[section]:
            fields = {name: value for name, value in entry.items() if name != "on"}
            yield kind(occurred_on=entry["on"], requested_by=REQUESTED_BY, **fields)


def _tell_steps(study: Study, story: Mapping[str, Any]) -> Iterator[Event]:
    """The steps that stand in the story. A body names its site; an attempt after the first says so."""
    homes = {body.id: site.site_id for site in study.sites for body in site.bodies}
    for entry in story["steps"]:
        fields = {name: value for name, value in entry.items() if name not in ("on", "step", "body", "person")}
        body_id = entry.get("body", "")
        if entry["step"] == "resubmitted":
            fields = {"attempt": 2, **fields}
        yield ENTRY_STEPS[entry["step"]](
            occurred_on=entry["on"],
            requested_by=REQUESTED_BY,
            site_id=homes[body_id] if body_id else "",
            body_id=body_id,
            person_id=entry.get("person", ""),
            **fields,
        )


def _draw_steps(
    study: Study, story: Mapping[str, Any], told: set[Item], rng: np.random.Generator
) -> Iterator[ApprovalEvent]:
    """How the rest goes: sent in, sometimes asked about, and granted, at every place that the story says nothing of."""
    modifications = pd.DataFrame(story["modifications"]).assign(body_ids="")
    of_modifications = [item for item, _ in list_modification_items(study, modifications)]
    for draw in story["draws"]:
        approval = study.pathway.find_approval(draw["approval"])
        if approval is None:
            raise ValueError(f"{STORY_FILE.name}: {draw['approval']} is no approval of {study.study_id}.")
        modification = draw.get("modification", "")
        items = [item for item, is_needed in list_items(study, approval, study.sites) if is_needed]
        if modification:
            items = [item for item in of_modifications if item[::4] == (approval.id, modification)]
        for item in items:
            days = rng.lognormal(0, draw["log_spread"], 3)
            shares = rng.random(2)
            if item not in told:
                yield from _draw_course(item, draw, days, shares)


def _draw_course(
    item: Item, draw: Mapping[str, Any], days: np.ndarray[Any, Any], shares: np.ndarray[Any, Any]
) -> Iterator[ApprovalEvent]:
    fields = {**item._asdict(), "requested_by": REQUESTED_BY}
    sent_on = _find_office_day(draw["sent_from"], draw["median_days_until_sent"] * days[0])
    if not item.modification:  # what the sponsor supplied to all counts as sent in
        yield ApprovalSubmitted(occurred_on=sent_on, route=draw["route"], **fields)
    decided_on = _find_office_day(sent_on, draw["median_days_until_decided"] * days[1])
    if shares[0] < draw["share_asked"]:
        asked_on = _find_office_day(sent_on, shares[1] * (decided_on - sent_on).days)
        answered_on = _find_office_day(asked_on, 14 * days[2])
        yield ENTRY_STEPS["requested"](occurred_on=asked_on, **fields)
        yield ENTRY_STEPS["answered"](occurred_on=answered_on, **fields)
        decided_on = _find_office_day(decided_on, (answered_on - asked_on).days)
    if "days_in_force" in draw:
        fields["expires_on"] = decided_on + timedelta(days=draw["days_in_force"])
    yield ENTRY_STEPS["granted"](occurred_on=decided_on, **fields)


def _find_office_day(day: date, n_days: float) -> date:
    """So many days later, or the next working day."""
    found = day + timedelta(days=round(float(n_days)))
    return found if is_working_day(found) else next_working_day(found)


# People -------------------------------------------------------------------------------------------------------------


class Posting(NamedTuple):
    """A workbook that a site posts: the people whom it screened in a week, and who agreed and signed."""

    posted_on: date
    site_id: str
    screening: pd.DataFrame
    consent: pd.DataFrame

    @property
    def file_name(self) -> str:
        return f"{self.site_id}-{self.posted_on}.xlsx"


def derive_postings(
    study: Study, story: Mapping[str, Any], events: Events, after: date, until: date
) -> Iterator[Posting]:
    """Screening logs of the weeks that end on a Friday later than `after` and up to `until`, of sites open in them.

    The site that goes on screens whether it is open or not, once it has opened. Identifiers say the week.
    """
    people, first = story["people"], study.data_collection_starts_on
    fridays = pd.date_range(max(first, after + timedelta(days=1)), until, freq="W-FRI")
    if fridays.empty:
        return
    questions = pd.DataFrame(
        [("recruit", site.site_id, "", "") for site in study.sites],
        columns=["activity", "site_id", "body_id", "person_id"],
    )
    is_open = derive_open_days(study, events, questions, first, until)
    for friday in fridays:
        rng = np.random.default_rng([story["seed"], friday.toordinal()])
        week = [friday - pd.Timedelta(days=n) for n in range(4, -1, -1)]
        for (_, own), site in zip(is_open.iterrows(), study.sites, strict=True):
            n_people, places = int(rng.integers(0, people["most_in_a_week"] + 1)), rng.random((2, 10))
            goes_on = site.site_id == people["site_that_goes_on"] and own.loc[:friday].any()
            days = [day for day in week if day >= pd.Timestamp(first) and (goes_on or own[day])]
            if days and n_people:
                sheets = _write_week(study, site.code, people["cohorts"], friday, days, places[:, :n_people])
                yield Posting(friday.date(), site.site_id, *sheets)


def _write_week(
    study: Study, code: str, cohorts: list[str], friday: pd.Timestamp, days: list[pd.Timestamp], places: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The screening and the consent log of a week; each person agrees and signs on the day of screening."""
    rule = study.fieldwork.identifier_rule
    if rule is None:
        raise ValueError(f"{STORY_FILE.name}: {study.study_id} makes no identifiers.")
    week = (friday.date() - study.data_collection_starts_on).days // 7
    when = [days[int(place * len(days))] for place in sorted(places[0])]
    people = [compute_identifier(rule, code, 1 + 10 * week + n) for n in range(len(when))]
    screening = pd.DataFrame(
        {
            "participant_id": people,
            "cohort": [cohorts[int(place * len(cohorts))] for place in places[1]],
            "screened_on": when,
            "approached_on": when,
            "outcome": "agreed",
        }
    )
    consent = pd.DataFrame(
        {
            "participant_id": people,
            "consented_on": when,
            "consent_form_version": study.consent_forms[0].version,
            "consent_scopes": ";".join(scope.id for scope in study.consent_scopes),
            "route": "self",
            "taken_by": study.fieldwork.consent_takers[0],
            "copy_filed": "yes",
            "form": study.forms[0],
        }
    )
    return screening, consent


def post(workspace: Workspace, posting: Posting, received: frozenset[str]) -> None:
    """A site puts its workbook into its drop-box; not again where an interrupted rehearsal's round has received it."""
    about = {"study": STUDY, "site": posting.site_id, "posted_on": posting.posted_on, "sending_number": 1}
    data = write_return_workbook(workspace.layout, about, {SCREENING: posting.screening, CONSENT: posting.consent})
    if hashlib.sha256(data).hexdigest() not in received:
        workspace.drop_box(posting.site_id).post(posting.file_name, data)


# Playing ------------------------------------------------------------------------------------------------------------


def play(
    settings: Settings,
    *,
    until: date | None = None,
    every: int = 7,
    fresh: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Played:
    """Play the story, or its part until a day, or go on where an interrupted rehearsal stopped.

    Raises ReplayRefused for a day outside the story, and where what the ledger holds already refuses a step of it.
    """
    from flows.study_day import study_day  # Prefect reads its settings from the environment when it is imported

    story = read_story()
    last = until or story["ends_on"]
    if not story["starts_on"] <= last <= story["ends_on"]:
        raise ReplayRefused(f"{last} lies outside the story: from {story['starts_on']} to {story['ends_on']}.")
    with hold(settings, NAME):
        if fresh:
            delete_replay(settings, NAME)
        workspace = create_workspace(STUDY, settings=settings, name=NAME)
        days = derive_study_days(story["starts_on"], last, every)
        completed = workspace.read_events().frame(StudyDayCompleted)["occurred_on"]
        done = completed.max().date() if len(completed) else story["starts_on"] - timedelta(days=1)
        clock = ReplayClock(max(days[0], done))
        workspace.clock = workspace.ledger.clock = clock
        told = derive_story(workspace.study, story)
        received = frozenset(derive_files(workspace.read_events())["sha256"])
        to_do = [day for day in days if day > done]
        n_posted, before = 0, done
        with use_workspace(workspace), many_runs():
            for n, day in enumerate(to_do, start=len(days) - len(to_do) + 1):
                clock.day = day
                record_told(workspace, [entry.event for entry in told if before < entry.known_on <= day], day)
                for posting in derive_postings(workspace.study, story, workspace.read_events(), before, day):
                    post(workspace, posting, received)
                    n_posted += 1
                for state in study_day(study=STUDY, as_of=day, requested_by=REQUESTED_BY):
                    state.result()
                before = day
                on_progress(Progress(n, len(days), day, n_posted))
    n_recorded = sum(entry.known_on <= last for entry in told)
    return Played(workspace, len(days), len(days) - len(to_do), n_recorded, last)


def record_told(workspace: Workspace, events: list[Event], today: date) -> None:
    """Record what people tell on a day, after each was checked as any other, with those beside it. Raises
    ReplayRefused, having recorded nothing of the day."""
    study, standing = workspace.study, foresee(workspace.read_events(), events)
    steps = derive_steps(study, standing, today)
    for event in events:
        faults: list[str] = []
        if isinstance(event, ApprovalEvent):
            faults = find_recording_faults(study, standing, event, today, steps)
        elif isinstance(event, ModificationIntroduced | ModificationSupplied | DocumentVersionIssued):
            faults = find_modification_faults(study, standing, event, today)
        elif isinstance(event, DutyDone):
            faults = find_duty_faults(study, standing, event, today)
        if faults:
            raise ReplayRefused(f"{STORY_FILE.name}: {event.key} on {event.occurred_on} is refused: {' '.join(faults)}")
    workspace.ledger.append(events)
