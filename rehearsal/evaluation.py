"""Play the whole IPC evaluation with invented people, from the first form to the frozen dataset.

The approvals go as `ipc_story.toml` tells; people and sites act as `ipc_assumptions.toml` supposes. Everything happens
through what a live study uses: sites find packs in their outboxes and post workbooks, the daily round receives, sends
and chases, the coordinator gives the word for what waits, the sponsor decides about incidents. The ledger's clock is
that of the rehearsal. One that was stopped goes on where it stopped, unless its assumptions or the story have changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Literal

import numpy as np
import pandas as pd

from rehearsal.approvals_story import NAME, REQUESTED_BY, STORY_FILE, STUDY, Told, derive_story, read_story, record_told
from rehearsal.contacts import write_contacts
from rehearsal.ipc_definitions import write_definitions
from rehearsal.ipc_packs import ASKED, PackContent, read_pack
from rehearsal.ipc_people import (
    ASSUMPTIONS_FILE,
    BASELINE,
    MAIN_FOLLOW_UP,
    Assumptions,
    Flow,
    add_months_to_days,
    derive_openings,
    draw_people,
    load_ipc_assumptions,
)
from rehearsal.ipc_postings import AtSites, Posting, Sites
from rehearsal.ipc_sites import compute_shares
from rehearsal.replay import Progress, ReplayClock, ReplayRefused, delete_replay, derive_study_days, hold
from study.approval_entries import foresee
from study.chasing import derive_chasers, find_kind
from study.events import (
    ApproachAnswered,
    ConsentRecorded,
    DispositionRecorded,
    Event,
    IncidentAssessed,
    IncidentClosed,
    IncidentDecided,
    IncidentEvent,
    ObligationChased,
    PackClaimed,
    PackDelivered,
    ParticipantApproached,
    QueryAnswered,
    QueryClosed,
    QueryRaised,
    QueryReason,
    ReturnAccepted,
    SafeguardingAcknowledged,
    StudyDayCompleted,
)
from study.incidents import derive_incidents
from study.modifications import derive_document_versions
from study.protocol import Study
from study.release_rules import EVERYTHING, find_hard_queries
from study.releasing import HELD, ReleasePlan
from study.safeguarding import find_open_alerts
from study.state import Events, derive_files
from tasks.ahead import begin, other_processes
from tasks.approvals import follow_approvals
from tasks.approvals import write_pages as write_approval_pages
from tasks.chasing import log_call
from tasks.definitions import load_study
from tasks.fieldwork import write_fieldwork_pages
from tasks.files import FileMissing
from tasks.holds import lift_hold
from tasks.incidents import record_step
from tasks.orchestration import many_runs
from tasks.releasing import draw_up_plan, release_packs
from tasks.settings import Settings
from tasks.workbooks import write_return_workbook
from tasks.workspace import Workspace, create_workspace, use_workspace

COORDINATOR, SPONSOR, CLINICIAN = "rehearsed coordinator", "sponsor", "safeguarding_clinician"
NOTE = "rehearsal.json"
_FOR_SMALL_FRAMES = "python"
"""How pandas keeps text while the rehearsal is played: Arrow's way pays from some ten thousand rows on, and takes an
eighth longer below."""


@dataclass(frozen=True)
class PlayedEvaluation:
    """What a rehearsal left. `n_days`: study days, of which `n_resumed` were played before; `n_posted`: workbooks that
    the sites posted in this run; `flow`: the people so far; `frozen`: the dataset, where it came to its end."""

    workspace: Workspace
    n_days: int
    n_resumed: int
    n_recorded: int
    n_posted: int
    last_on: date
    flow: Flow
    frozen: dict[str, str] = field(default_factory=dict)


def play_evaluation(
    settings: Settings,
    *,
    until: date | None = None,
    every: int = 7,
    fresh: bool = False,
    assumptions: Assumptions | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> PlayedEvaluation:
    """Play the evaluation, or its part until a day, or go on where an interrupted rehearsal stopped.

    Played to its end it leaves a frozen dataset. Raises ReplayRefused for a day outside the study, where an unfinished
    rehearsal was begun under other assumptions, and where the ledger refuses a step of the story.
    """
    from flows.datasets import freeze_dataset  # Prefect reads its settings from the environment when it is imported
    from flows.study_day import study_day

    assumptions = assumptions or load_ipc_assumptions()
    protocol = load_study(STUDY, settings.sites_config, settings.instruments)
    last = until or protocol.ends_on
    if not protocol.starts_on <= last <= protocol.ends_on:
        raise ReplayRefused(f"{last} lies outside the study: from {protocol.starts_on} to {protocol.ends_on}.")
    with hold(settings, NAME):
        if fresh:
            delete_replay(settings, NAME)
        write_definitions(settings, STUDY, NAME)
        workspace = create_workspace(STUDY, settings=settings, name=NAME, is_synced=False)
        study = workspace.study
        _note_version(workspace, assumptions)
        write_contacts(workspace)
        days = derive_study_days(study.starts_on, last, every)
        done = _find_done(workspace, study.starts_on - timedelta(days=1))
        clock = ReplayClock(max(days[0], done))
        workspace.clock = workspace.ledger.clock = clock
        workspace.writes_pages = False
        player = _Player(workspace, assumptions)
        to_do = [day for day in days if day > done]
        before, n_posted = done, 0
        small_frames = pd.option_context("mode.string_storage", _FOR_SMALL_FRAMES)
        with use_workspace(workspace), small_frames, many_runs(), other_processes():
            if to_do and done in days:
                player.give_word(done)  # what an interrupted rehearsal may have left undone
            for n, day in enumerate(to_do, start=len(days) - len(to_do) + 1):
                clock.day = day
                player.tell_approvals(before, day)
                player.take_over_alerts(day)
                n_posted += player.post(before, day)
                for state in study_day(study=STUDY, as_of=day, requested_by=REQUESTED_BY):
                    state.result()
                player.telephone(day)
                player.give_word(day)
                player.close_queries(day)
                player.decide_incidents(day)
                before = day
                on_progress(Progress(n, len(days), day, n_posted))
            write_pages(workspace, last)
        frozen = {}
        if last == study.ends_on:
            _waive_open_queries(workspace, last)
            with use_workspace(workspace), many_runs():
                frozen = freeze_dataset(study=STUDY, as_of=last, requested_by=REQUESTED_BY)
    n_recorded = sum(entry.known_on <= last for entry in player.told)
    flow = count_flow(study, workspace.read_events(), last)
    return PlayedEvaluation(
        workspace, len(days), len(days) - len(to_do), n_recorded, n_posted, last, flow, dict(frozen)
    )


def _waive_open_queries(workspace: Workspace, last: date) -> None:
    """The data manager lets the dataset go although sites never settled some hard queries: the study is over."""
    from tasks.release_checks import waive_hindrances  # with what draws figures, which takes a second

    if find_hard_queries(workspace.read_events(), last):
        waive_hindrances(
            workspace,
            "hard_queries",
            EVERYTHING,
            until=last,
            reason="nothing_more_expected",
            role="data_manager",
            requested_by=REQUESTED_BY,
            today=last,
        )


def write_pages(workspace: Workspace, last: date) -> None:
    """The pages of the last day, once everybody has acted on it."""
    following = follow_approvals(workspace, last)
    if following is not None:
        write_approval_pages(workspace, following)
    workspace.writes_pages = True
    write_fieldwork_pages(workspace, last)


def _note_version(workspace: Workspace, assumptions: Assumptions) -> None:
    """Note beside the ledger what this rehearsal rests on. Raises ReplayRefused where it was begun on something else,
    whose people would be others."""
    digest = hashlib.sha256(repr((assumptions.seed, [(a.id, a.value) for a in assumptions.listed])).encode())
    digest.update(STORY_FILE.read_bytes())
    ours = digest.hexdigest()
    try:
        theirs = json.loads(workspace.area.get(NOTE))["version"]
    except FileMissing:
        theirs = "" if workspace.ledger.head().seq else ours
        workspace.area.put(NOTE, (json.dumps({"version": ours}) + "\n").encode())
    if theirs != ours:
        raise ReplayRefused(
            f"The rehearsal in {workspace.name} was begun with another {ASSUMPTIONS_FILE.name} or {STORY_FILE.name}, "
            "and its people would be others now. Begin again with --fresh."
        )


def _find_done(workspace: Workspace, otherwise: date) -> date:
    """The last study day that this rehearsal completed."""
    completed = workspace.read_events().frame(StudyDayCompleted)
    own = completed.loc[completed["requested_by"] == REQUESTED_BY, "occurred_on"]
    return own.max().date() if len(own) else otherwise


class _Player:
    """Everybody but the program: those who tell of approvals, the sites, the coordinator and the sponsor."""

    def __init__(self, workspace: Workspace, assumptions: Assumptions) -> None:
        self.workspace, self.assumptions = workspace, assumptions
        study = workspace.study
        self.told: list[Told] = derive_story(study, read_story() | {"ends_on": study.ends_on})
        foreseen = foresee(Events({}), [entry.event for entry in self.told])
        openings = derive_openings(study, foreseen, study.ends_on)
        people = draw_people(study, openings, assumptions)
        versions = derive_document_versions(study, foreseen, study.ends_on)
        self.sites = Sites(study, workspace.instruments, people, assumptions, versions)
        self.received = frozenset(derive_files(workspace.read_events())["sha256"])
        self.opened: set[str] = set()  # packs, by pack_id
        self.identifiers = _no_rows("participant_id", "site_id", "had_on")
        self.asked = _no_rows(*ASKED, "had_on")

    def tell_approvals(self, before: date, day: date) -> None:
        told = [entry.event for entry in self.told if before < entry.known_on <= day]
        record_told(self.workspace, told, day)

    # The sites -------------------------------------------------------------------------------------------------------

    def post(self, before: date, day: date) -> int:
        """The sites open their packs and post what they have. How many workbooks."""
        if day < self.workspace.study.data_collection_starts_on:
            return 0
        postings = list(self.sites.derive_postings(self.open_packs(), before, day))
        for posting, find_data in [(posting, self._fill_in(posting)) for posting in postings]:
            data = find_data()
            # Not again where an interrupted rehearsal's round has received it.
            if hashlib.sha256(data).hexdigest() not in self.received:
                self.workspace.drop_box(posting.site_id).post(posting.file_name, data)
        return len(postings)

    def _fill_in(self, posting: Posting) -> Callable[[], bytes]:
        about = {
            "study": STUDY, "site": posting.site_id, "posted_on": posting.posted_on, "sending_number": 1,
            "pack_id": posting.pack_id,
        }  # fmt: skip
        return begin(write_return_workbook, self.workspace.layout, about, posting.sheets)

    def open_packs(self) -> AtSites:
        """What lies in the sites' outboxes, what receipts asked, and for what they were chased."""
        events = self.workspace.read_events()
        claims = events.frame(PackClaimed).merge(
            events.frame(PackDelivered)[["pack_id", "occurred_on"]].rename(columns={"occurred_on": "had_on"}),
            on="pack_id",
        )
        packs = claims.sort_values(["had_on", "pack_id"])
        new = packs[~packs["pack_id"].isin(self.opened)]
        given, asked = list[tuple[Any, ...]](), list[tuple[Any, ...]]()
        opened = new[["pack_id", "site_id", "file_name", "had_on"]].to_dict("records")
        for pack, find_content in [(pack, self._open(pack)) for pack in opened]:
            identifiers, wanted = find_content()
            given += ((identifier, pack["site_id"], pack["had_on"]) for identifier in identifiers)
            asked += ((*row, pack["had_on"]) for row in wanted)
            self.opened.add(pack["pack_id"])
        self.identifiers = _join(self.identifiers, given, ["participant_id"])
        self.asked = _join(self.asked, asked, ["participant_id", "wave", "respondent", "instrument"])
        queries = events.frame(QueryRaised).rename(columns={"occurred_on": "raised_on"})
        columns = ["query_id", "site_id", "participant_id", "wave", "respondent", "instrument", "raised_on"]
        return AtSites(
            identifiers=self.identifiers,
            asked=self.asked,
            chased=_find_chased(events),
            queries=queries[columns],
            packs=packs[["site_id", "pack_id", "had_on"]],
        )

    def _open(self, pack: Mapping[Any, Any]) -> Callable[[], PackContent]:
        data = self.workspace.area.get(f"sites/{pack['site_id']}/outbox/{pack['file_name']}")
        return begin(read_pack, data, self.workspace.study, self.workspace.layout)

    # The office ------------------------------------------------------------------------------------------------------

    def give_word(self, day: date) -> None:
        """The coordinator looks at what waits for a word, and sends it."""
        if day < self.workspace.study.data_collection_starts_on:
            return
        plan = draw_up_plan(self.workspace, day)
        if self._lift_holds(plan, day):
            plan = draw_up_plan(self.workspace, day)
        if plan.n_going:
            released = release_packs(self.workspace, plan, COORDINATOR)
            if released.failures:
                raise ReplayRefused("A pack did not go out: " + " ".join(released.failures))

    def _lift_holds(self, plan: ReleasePlan, day: date) -> int:
        """Where the committee has accepted a form that had been replaced, and nothing else holds. How many."""
        weeks = timedelta(weeks=self.assumptions["accepts_old_form_after"]["weeks"])
        rows = plan.rows[(plan.rows["decision"] == HELD) & (plan.rows["holds"] == "superseded_version")]
        rows = rows[rows["anchor_on"] <= pd.Timestamp(day - weeks)].drop_duplicates(["participant_id", "wave"])
        for participant_id, wave in rows[["participant_id", "wave"]].itertuples(index=False, name=None):
            reference = f"REC {participant_id}"
            lift_hold(
                self.workspace, participant_id, wave, "superseded_version", SPONSOR, "accepted_by_rec", reference,
                COORDINATOR,
            )  # fmt: skip
        return len(rows)

    def close_queries(self, day: date) -> None:
        """The office closes what was answered some days ago."""
        events = self.workspace.read_events()
        answers = events.frame(QueryAnswered).drop_duplicates("query_id", keep="last")
        days = timedelta(days=self.assumptions["closes_queries_after"]["days"])
        answers = answers[answers["occurred_on"] <= pd.Timestamp(day - days)]
        answers = answers[~answers["query_id"].isin(events.frame(QueryClosed)["query_id"])]
        reasons: dict[str, QueryReason] = {"corrected": "mended", "confirmed": "confirmed", "cannot_say": "withdrawn"}
        closed: list[Event] = [
            QueryClosed(
                occurred_on=day,
                requested_by=COORDINATOR,
                site_id=row.site_id,
                query_id=row.query_id,
                reason=reasons[str(row.answer)],
            )
            for row in answers.itertuples(index=False)
        ]
        if closed:
            self.workspace.ledger.append(closed)

    def take_over_alerts(self, day: date) -> None:
        """The clinician has taken over what was told some days ago; some of it late."""
        value, seed = self.assumptions["takes_alert_over_after"], self.assumptions.seed
        alerts = find_open_alerts(self.workspace.study, self.workspace.read_events(), day)
        alerts = alerts[alerts["told_on"].notna()]
        is_late = np.array(compute_shares(list(alerts["alert_id"]), "alert", seed)) < value["share_late"]
        taken_on = alerts["told_on"] + pd.to_timedelta(np.where(is_late, value["days_late"], value["days"]), "D")
        alerts = alerts.assign(taken_on=taken_on)[taken_on <= pd.Timestamp(day)]
        taken: list[Event] = [
            SafeguardingAcknowledged(
                occurred_on=row.taken_on.date(), requested_by=COORDINATOR, site_id=row.site_id,
                participant_id=row.participant_id, alert_id=row.alert_id, role=CLINICIAN, way="telephone",
            )
            for row in list[Any](alerts.itertuples(index=False))
        ]  # fmt: skip
        if taken:
            self.workspace.ledger.append(taken)

    def telephone(self, day: date) -> None:
        """The coordinator calls the sites that have waited longest for a call that is due."""
        if day < self.workspace.study.data_collection_starts_on:
            return
        value, seed = self.assumptions["calls"], self.assumptions.seed
        chasers = derive_chasers(self.workspace.study, self.workspace.read_events(), day)
        due = chasers[(chasers["state"] == "due") & (chasers["channel"] == "telephone") & (chasers["site_id"] != "")]
        longest = due.groupby("site_id")["due_on"].min().sort_values(kind="stable").index[: value["most_in_a_week"]]
        for site_id in longest:
            own = due[due["site_id"] == site_id]
            answered, promised = compute_shares([f"{site_id}:{day}:{n}" for n in (1, 2)], "call", seed)
            about = sorted(set(own["about"].map(find_kind)))
            outcome: Literal["not_reached", "reached", "promised"] = "promised"
            if answered >= value["reached"]:
                outcome = "not_reached"
            elif promised >= value["promised"]:
                outcome = "reached"
            by = day + timedelta(days=value["days"]) if outcome == "promised" else None
            log_call(
                self.workspace, str(site_id), about, outcome, COORDINATOR, on=day, promised_on=by, rungs=chasers
            )  # fmt: skip

    def decide_incidents(self, day: date) -> None:
        """The sponsor assesses and decides what was found so many weeks ago."""
        value = self.assumptions["decides_incident_after"]
        register = derive_incidents(self.workspace.study, self.workspace.read_events(), day)
        old = register["found_on"] <= pd.Timestamp(day - timedelta(weeks=value["weeks"]))
        for row in register[old & (register["state"] == "open")].to_dict("records"):
            about: dict[str, Any] = {
                "occurred_on": day, "requested_by": SPONSOR, "incident_id": row["incident_id"],
            }  # fmt: skip
            decided = {"role": SPONSOR, "reference": f"SP {row['incident_id']}"}
            steps: list[IncidentEvent] = [IncidentAssessed(**about, **decided, outcome="no_breach")]
            if row["n_held"]:
                steps.append(IncidentDecided(**about, **decided, decision=value["decision"]))
            for step in (*steps, IncidentClosed(**about)):
                record_step(self.workspace, step)


def _no_rows(*columns: str) -> pd.DataFrame:
    types = {name: "datetime64[s]" if name.endswith("_on") else "str" for name in columns}
    return pd.DataFrame(columns=list(columns)).astype(types)


def _join(known: pd.DataFrame, rows: list[tuple[Any, ...]], keys: list[str]) -> pd.DataFrame:
    """What was known and these rows, each thing as it came first."""
    if not rows:
        return known
    new = pd.DataFrame(rows, columns=known.columns).astype(known.dtypes.to_dict())
    return pd.concat([known, new], ignore_index=True).drop_duplicates(keys, ignore_index=True)


def _find_chased(events: Events) -> pd.DataFrame:
    """When a site was first chased for each questionnaire: participant_id, respondent, wave, chased_on."""
    steps = events.frame(ObligationChased, ["about", "chase", "occurred_on"])
    steps = steps[steps["about"] == "return"]
    parts = steps["chase"].str.extract(r"return:(?P<participant_id>[^:]+):(?P<respondent>[^:]+):(?P<wave>[^:]+)")
    chased = parts.assign(chased_on=steps["occurred_on"]).dropna()
    first = chased.groupby(["participant_id", "respondent", "wave"])["chased_on"].min().astype("datetime64[s]")
    return first.reset_index()


# The flow of people -----------------------------------------------------------------------------------------------


def count_flow(study: Study, events: Events, as_of: date) -> Flow:
    """How many people came how far, from the ledger alone.

    A baseline is in time if it was filled in before its window's late days were over; analysed is who then answered the
    six-month questionnaire while it was taken, and has not withdrawn the data. Carers' own questionnaires don't count.
    """
    view = events.select(as_of=as_of)
    answers = view.frame(ApproachAnswered)
    returns = view.frame(ReturnAccepted)
    returns = returns[returns["respondent"].isin(["self", "proxy"])]
    joined_on = view.frame(ConsentRecorded).groupby("participant_id")["occurred_on"].min()
    first = returns.groupby(["wave", "participant_id"])["occurred_on"].min()
    in_time = _find_in_time(study, first, BASELINE, joined_on)
    counted = _find_in_time(study, first, MAIN_FOLLOW_UP, in_time)
    counted = counted[counted <= pd.Timestamp(study.data_collection_ends_on)]
    left = view.frame(DispositionRecorded)
    withdrawn = left.loc[left["scope"] == "data", "participant_id"]
    return Flow(
        approached=view.frame(ParticipantApproached)["participant_id"].nunique(),
        agreed=answers.loc[answers["outcome"] == "agreed", "participant_id"].nunique(),
        baseline_in_time=len(in_time),
        analysed=int((~counted.index.isin(withdrawn)).sum()),
    )


def _find_in_time(study: Study, first: pd.Series[Any], wave_id: str, anchors: pd.Series[Any]) -> pd.Series[Any]:
    """The days on which a wave was answered before its late days were over, by participant."""
    wave = study.find_wave(wave_id)
    if wave is None or wave_id not in first.index.get_level_values("wave"):
        return pd.Series(dtype="datetime64[s]")
    answered = first.xs(wave_id, level="wave")
    answered = answered[answered.index.isin(anchors.index)]
    target = add_months_to_days(anchors.reindex(answered.index), wave.offset.months)
    late_until = target + pd.Timedelta(days=study.find_window(wave).late_until.days)
    return answered[answered <= late_until]
