"""Incidents: what was done while it was not allowed, or went otherwise wrong, and what became of it.

A record is judged by the gate on the day on which it was collected, with the ledger as it is today. What was collected
while it was not allowed is **held**: kept, in no dataset, until a named role decides with the sponsor's reference. A
grant that is recorded late changes nothing by itself: the register shows that the gate says yes now, and the decision
stays a person's.

Two judgement calls. Answers to a questionnaire are data of somebody who consented, so a screening wave rests on what
the baseline rests on, and not on what approaching people needs; every other wave and every unscheduled occasion is
follow-up. People of whom no body is known are judged under the whole site, which asks all its bodies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal, NamedTuple

import pandas as pd

from study.calendar import add_days, find_holidays
from study.events import (
    ConsentRecorded,
    IncidentActionDone,
    IncidentActionPlanned,
    IncidentAssessed,
    IncidentAssigned,
    IncidentClosed,
    IncidentDecided,
    IncidentEvent,
    IncidentOpened,
    ParticipantApproached,
    ParticipantEvent,
    ParticipantScreened,
    ReturnAccepted,
    ReturnQuarantined,
    Source,
)
from study.gate import derive_open_days, open_gate
from study.instruments import find_suggestion
from study.pathway import ACTIVITIES
from study.protocol import Study
from study.state import Events, remembered

RECORD_KEY = ["participant_id", "respondent", "wave", "instrument"]
_PLACE = ["source_sha256", "source_sheet", "source_row"]
_QUESTION = ["activity", "site_id", "body_id", "person_id"]

COLLECTED: Literal["collected_while_not_open"] = "collected_while_not_open"
APPROACH, RECRUIT, BASELINE, FOLLOW_UP = ACTIVITIES[:4]

SPONSOR, STUDY_TEAM = "sponsor", "study team"


def find_activity(study: Study, wave: str) -> str:
    """What collecting a record at a wave is to the gate."""
    found = study.find_wave(wave)
    return BASELINE if found is not None and found.role != "follow_up" else FOLLOW_UP


def find_logged(study: Study) -> dict[type[ParticipantEvent], str]:
    """What an entry of a site's logs says was done, as the gate is asked about it. A study that asks for the approach
    apart from the screening looks through records before it approaches anybody; elsewhere the two are one."""
    first: type[ParticipantEvent] = ParticipantApproached if study.fieldwork.approach_reasons else ParticipantScreened
    return {first: APPROACH, ConsentRecorded: RECRUIT}


# Judging ------------------------------------------------------------------------------------------------------------


@dataclass
class SiteGate:
    """The gate's answers about one site for the many days that a file may tell of, up to `today`: one fold for all."""

    study: Study
    events: Events
    site_id: str
    today: date
    _first: date = field(default=date.max, repr=False)
    _answers: Mapping[tuple[str, str], list[bool]] = field(default_factory=dict, repr=False)

    def is_allowed(self, activity: str, body_id: str, on: date) -> bool:
        """Whether something was allowed under a body ('': under all of the site's) on a day up to `today`."""
        if on < self._first or (activity, body_id) not in self._answers:
            self._ask(activity, body_id, on)
        return self._answers[activity, body_id][(on - self._first).days]

    def _ask(self, activity: str, body_id: str, on: date) -> None:
        """Ask all that a file usually tells of, and what was asked before."""
        site = self.study.find_site(self.site_id)
        bodies = ["", *(body.id for body in site.bodies)] if site else [""]
        usual = [(activity, body_id) for activity in ACTIVITIES[:4] for body_id in bodies]
        asked = list(dict.fromkeys([*usual, *self._answers, (activity, body_id)]))
        self._first = min(on, self._first, self.study.starts_on, self.today)
        questions = pd.DataFrame([(name, self.site_id, body, "") for name, body in asked], columns=_QUESTION)
        answers = derive_open_days(self.study, self.events, questions, self._first, self.today)
        self._answers = dict(zip(asked, answers.to_numpy().tolist(), strict=True))

    def find_reasons(self, activity: str, body_id: str, on: date) -> tuple[str, ...]:
        """Why something was not allowed on a day; nothing if it was."""
        answer = open_gate(self.study, self.events, on).ask(activity, self.site_id, body_id)
        return tuple(reason.text for reason in answer.reasons)


class Question(NamedTuple):
    """What the gate is asked of a day: which activity, under which body ('': under all of the site's)."""

    activity: str
    body_id: str


@dataclass(frozen=True)
class Breach:
    """What one file tells of one activity under one body on days on which the gate says no.

    `rows`: sheet and row of each record or entry. `reasons`: the gate's on the first of these days. `incident_id`: of
    the incident that it belongs to already (a correction of what is held); '' where a new one must be opened.
    """

    question: Question
    first_on: date
    rows: tuple[tuple[str, int], ...]
    reasons: tuple[str, ...]
    incident_id: str = ""


def compute_assess_by(study: Study, category: str, found_on: date) -> date | None:
    """The last day for assessing an incident, by the study's rule for its category; None if it has none."""
    rule = study.pathway.find_incident_rule(category)
    if rule is None:
        return None
    return add_days(found_on, rule.assess_days, rule.unit, find_holidays(study.bank_holidays))


def derive_incident_ids(place: str, n_already: int, n_new: int) -> list[str]:
    """Numbers for new incidents of a site (or, with the study's id, of none), as `luton-I0001`.

    Count under the ledger's write lock those that there were already, voided ones too.
    """
    return [f"{place}-I{number:04d}" for number in range(n_already + 1, n_already + n_new + 1)]


# What is held -------------------------------------------------------------------------------------------------------


def derive_held(events: Events) -> pd.DataFrame:
    """Every record that was ever quarantined: the columns of `Events.frame(ReturnQuarantined)` and what became of it.

    is_held: it is the newest telling of its record, and no telling of that is accepted. is_admitted: the accepted one
    is this very row. A record of which neither holds was corrected since.
    """
    held = events.frame(ReturnQuarantined)
    accepted = events.frame_among(ReturnAccepted, "participant_id", held["participant_id"])
    is_newest = ~held.duplicated(RECORD_KEY, keep="last")
    held["is_held"] = is_newest & ~_is_among(held, accepted, RECORD_KEY)
    held["is_admitted"] = _is_among(held, accepted, _PLACE)
    return held


def _is_among(rows: pd.DataFrame, others: pd.DataFrame, key: list[str]) -> Any:
    if rows.empty or others.empty:
        return pd.Series(False, rows.index)
    return pd.MultiIndex.from_frame(rows[key]).isin(pd.MultiIndex.from_frame(others[key]))


def derive_admission(events: Events, decided: IncidentDecided) -> tuple[list[ReturnAccepted], int]:
    """What an admission accepts: the newest telling of each record that the incident still holds, with its answers
    where they were kept. The number beside it: records of the incident that stand otherwise since and are left alone.
    """
    held = derive_held(events)
    held = held[held["incident_id"] == decided.incident_id]
    rows: list[Any] = list(held[held["is_held"]].itertuples(index=False))
    accepted = [
        ReturnAccepted(
            occurred_on=row.occurred_on.date(), requested_by=decided.requested_by, site_id=row.site_id,
            participant_id=row.participant_id,
            source=Source(sha256=row.source_sha256, sheet=row.source_sheet, row=row.source_row),
            return_id=row.return_id, respondent=row.respondent, wave=row.wave, instrument=row.instrument,
            form=row.form, version=1, n_items=row.n_items, n_answered=row.n_answered,
            responses_sha256=row.responses_sha256,
        )
        for row in rows
    ]  # fmt: skip
    others = held[~held["is_held"]][RECORD_KEY].drop_duplicates()
    n_left = int((~_is_among(others, held[held["is_held"]], RECORD_KEY)).sum())
    return accepted, n_left


# The register -------------------------------------------------------------------------------------------------------

_REGISTER = [
    *("incident_id", "site_id", "body_id", "category", "subject", "activity", "occurred_on", "found_on", "assess_by"),
    *("owner", "due_on", "outcome", "assessed_by", "reference", "n_records", "n_held", "n_admitted", "n_actions"),
    *("n_actions_open", "decision", "decided_by", "state", "next_step", "turn", "next_due_on", "overdue_since"),
    "is_allowed_now",
]


@remembered
def derive_incidents(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """The register at the end of a day: one row per incident, in the order in which they were opened.

    Columns: incident_id, site_id ('' of none), body_id, category, subject, activity, occurred_on, found_on, assess_by,
    owner and due_on (of the newest assignment), outcome, assessed_by (a role) and reference (of the newest assessment),
    n_records (when it was opened), n_held (records held back now), n_admitted, n_actions, n_actions_open, decision
    ("admitted", "excluded" or ''), decided_by (a role), state ("open", "assessed" or "closed"), next_step ("assess",
    "decide", "act", "close" or ''), turn (who is to do it), next_due_on, overdue_since (the day after the first date
    that was missed) and is_allowed_now (what the gate says now of the days concerned; missing where nothing was
    collected).
    """
    events = events.select(as_of=as_of)
    register = events.frame(IncidentOpened)
    register = register[register["found_on"] <= pd.Timestamp(as_of)].reset_index(drop=True)
    newest: dict[type[IncidentEvent], pd.DataFrame] = {
        kind: events.frame(kind).drop_duplicates("incident_id", keep="last").set_index("incident_id")
        for kind in (IncidentAssigned, IncidentAssessed, IncidentDecided, IncidentClosed)
    }

    def look_up(kind: type[IncidentEvent], column: str) -> pd.Series[Any]:
        return _look_up(register["incident_id"], newest[kind][column])

    for name, kind, column in (
        ("owner", IncidentAssigned, "owner"),
        ("outcome", IncidentAssessed, "outcome"),
        ("assessed_by", IncidentAssessed, "role"),
        ("reference", IncidentAssessed, "reference"),
        ("decision", IncidentDecided, "decision"),
        ("decided_by", IncidentDecided, "role"),
    ):
        register[name] = _fill(look_up(kind, column))
    register["due_on"] = look_up(IncidentAssigned, "due_on")
    is_closed = look_up(IncidentClosed, "key").notna()
    is_assessed = register["outcome"] != ""
    held = derive_held(events)
    actions = _derive_actions(events)
    open_actions = actions[~actions["is_done"]].sort_values(["due_on", "action"], na_position="last")
    first_action = open_actions.drop_duplicates("incident_id").set_index("incident_id")
    for name, rows in (
        ("n_held", held[held["is_held"]]),
        ("n_admitted", held[held["is_admitted"]]),
        ("n_actions", actions),
        ("n_actions_open", open_actions),
    ):
        register[name] = _look_up(register["incident_id"], rows["incident_id"].value_counts()).fillna(0).astype("int64")
    state = pd.Series("open", register.index, dtype="str").mask(is_assessed, "assessed").mask(is_closed, "closed")
    owner = register["owner"].where(register["owner"] != "", STUDY_TEAM)
    rules = {rule.category: rule.owner for rule in study.pathway.incident_rules}
    assessors = _fill(_look_up(register["category"], pd.Series(rules, dtype="str")), SPONSOR)
    acts = _fill(_look_up(register["incident_id"], first_action["owner"]))
    step, turn = pd.Series("close", register.index, dtype="str"), owner
    due_on = register["due_on"]
    for condition, name, who, due in (
        (register["n_actions_open"] > 0, "act", acts.where(acts != "", owner), first_action["due_on"]),
        (is_assessed & (register["n_held"] > 0) & (register["decision"] == ""), "decide", SPONSOR, None),
        (~is_assessed, "assess", assessors, register.set_index("incident_id")["assess_by"]),
        (is_closed, "", "", None),
    ):
        step, turn = step.mask(condition, name), turn.mask(condition, who)
        dates = register["due_on"] if due is None else _look_up(register["incident_id"], due)
        due_on = due_on.mask(condition, dates.fillna(register["due_on"]))
    due_on = due_on.mask(is_closed)
    missed = [
        register["assess_by"].mask(is_assessed | is_closed),
        register["due_on"].mask(is_closed),
        _look_up(register["incident_id"], first_action["due_on"]).mask(is_closed),
    ]
    first_missed = pd.concat(missed, axis="columns").min(axis="columns")
    late = first_missed < pd.Timestamp(as_of)
    register["state"], register["next_step"], register["turn"], register["next_due_on"] = state, step, turn, due_on
    register["overdue_since"] = (first_missed + pd.Timedelta(days=1)).where(late).astype("datetime64[us]")
    register["is_allowed_now"] = _find_allowed_now(study, events, register, held, as_of)
    return register[_REGISTER]


def _look_up(keys: pd.Series[Any], values: pd.Series[Any]) -> pd.Series[Any]:
    """The value of each key by the values' index, missing where there is none; the values keep their type."""
    return values.reindex(keys).set_axis(keys.index)


def _fill(texts: pd.Series[Any], blank: str = "") -> pd.Series[Any]:
    """Texts, some of which, or all, may be missing."""
    return texts.astype("object").where(texts.notna(), blank).astype("str")


def _derive_actions(events: Events) -> pd.DataFrame:
    """Corrective actions: incident_id, action, owner, due_on, is_done."""
    planned, done = events.frame(IncidentActionPlanned), events.frame(IncidentActionDone)
    planned["is_done"] = _is_among(planned, done, ["incident_id", "action"])
    return planned[["incident_id", "action", "owner", "due_on", "is_done"]]


def _find_allowed_now(
    study: Study, events: Events, register: pd.DataFrame, held: pd.DataFrame, as_of: date
) -> pd.Series[Any]:
    """Whether the gate, with what is on record by now, says yes to every day that an incident concerns."""
    of_gate = register[register["activity"].isin(ACTIVITIES[:4])]
    answers = pd.Series(pd.NA, register.index, dtype="boolean")
    if of_gate.empty:
        return answers
    sources = of_gate[["incident_id", "activity", "site_id", "body_id", "source_sha256"]]
    told = [sources.merge(held[["incident_id", "occurred_on"]], on="incident_id")]
    bodies = events.frame(ParticipantScreened)[["participant_id", "body_id"]]
    place = ["site_id", "source_sha256", "body_id"]
    for kind, activity in find_logged(study).items():
        entries = events.frame(kind)[["participant_id", "site_id", "source_sha256", "occurred_on"]]
        entries = entries.merge(bodies, on="participant_id").drop(columns="participant_id")
        told.append(sources[sources["activity"] == activity].merge(entries, on=place))
    # What the file told may have been voided since, and an incident recorded by hand has none: its own day is left.
    told.append(sources.assign(occurred_on=of_gate["occurred_on"]))
    days = pd.concat(told, ignore_index=True)
    places = days[["activity", "site_id", "body_id"]].drop_duplicates().reset_index(drop=True)
    days = days.merge(places.reset_index(names="place"), on=["activity", "site_id", "body_id"])
    first = days["occurred_on"].min()
    open_days = derive_open_days(study, events, places.assign(person_id=""), first.date(), as_of)
    days["is_allowed"] = open_days.to_numpy()[days["place"], (days["occurred_on"] - first).dt.days]
    found = days.groupby("incident_id")["is_allowed"].all()
    return _look_up(register["incident_id"], found).astype("boolean")


def count_quarantined(events: Events, as_of: date) -> dict[str, Any]:
    """What a release leaves out because it was collected while that was not allowed, and what was admitted to it.

    n_records_held (no decision yet), n_records_excluded, n_records_admitted, and the incidents concerned, each with its
    id, site, activity, decision, and how many records it keeps out and admitted. Of records collected by `as_of`.
    """
    held = derive_held(events)
    held = held[held["occurred_on"] <= pd.Timestamp(as_of)]
    opened = events.frame(IncidentOpened).set_index("incident_id")
    sites, activities = opened["site_id"].to_dict(), opened["activity"].to_dict()
    decisions = events.frame(IncidentDecided).set_index("incident_id")["decision"]
    held = held.assign(decision=_fill(_look_up(held["incident_id"], decisions)))
    incidents = [
        {
            "incident": str(incident_id),
            "site": sites.get(incident_id, ""),
            "activity": activities.get(incident_id, ""),
            "decision": rows["decision"].iloc[0],
            "n_kept_out": int(rows["is_held"].sum()),
            "n_admitted": int(rows["is_admitted"].sum()),
        }
        for incident_id, rows in held.groupby("incident_id", sort=True)
    ]
    return {
        "n_records_held": int((held["is_held"] & (held["decision"] != "excluded")).sum()),
        "n_records_excluded": int((held["is_held"] & (held["decision"] == "excluded")).sum()),
        "n_records_admitted": int(held["is_admitted"].sum()),
        "incidents": incidents,
    }


# Recording ----------------------------------------------------------------------------------------------------------


def find_incident_faults(study: Study, events: Events, event: IncidentOpened | IncidentEvent, today: date) -> list[str]:
    """What makes a step of an incident impossible, beside what is on record: a sentence each, with the next step."""
    faults = []
    if event.occurred_on > today:
        faults.append(f"the date {event.occurred_on} is in the future (today is {today}). Correct the date.")
    if isinstance(event, IncidentOpened):
        return [*faults, *_find_opening_faults(study, event, today)]
    opened = events.frame(IncidentOpened)
    own = opened[opened["incident_id"] == event.incident_id]
    if own.empty:
        known = list(opened["incident_id"])
        hint = find_suggestion(event.incident_id, known) or f" Known: {', '.join(known[-5:]) or 'none'}."
        return [*faults, f'there is no incident "{event.incident_id}". Correct its number.{hint}']
    found_on = own["found_on"].iloc[0].date()
    if event.occurred_on < found_on:
        faults.append(f"the date {event.occurred_on} is before it was found ({found_on}). Correct the date.")
    faults += _find_step_faults(events, event)
    return [f"{event.incident_id}: {text}" for text in faults]


def _find_opening_faults(study: Study, event: IncidentOpened, today: date) -> list[str]:
    faults = []
    if event.found_on > today:
        faults.append(f"it was found in the future ({event.found_on}; today is {today}). Correct the date.")
    if event.found_on < event.occurred_on:
        faults.append(f"it was found ({event.found_on}) before it happened ({event.occurred_on}). Correct one of them.")
    if event.assess_by is not None and event.assess_by < event.found_on:
        faults.append(f"it is to be assessed by {event.assess_by}, before it was found. Correct the date.")
    site = study.find_site(event.site_id)
    if event.site_id and site is None:
        known = [entry.site_id for entry in study.sites]
        hint = find_suggestion(event.site_id, known) or f" Known: {', '.join(known)}."
        faults.append(f'"{event.site_id}" is no site of {study.study_id}. Correct it.{hint}')
    bodies = [body.id for body in site.bodies] if site else []
    if event.body_id and (site is not None or not event.site_id) and event.body_id not in bodies:
        hint = find_suggestion(event.body_id, bodies) or (f" Known: {', '.join(bodies)}." if bodies else "")
        faults.append(f'"{event.body_id}" is no body of the site. Correct it, or name its site.{hint}')
    if event.activity and event.activity not in ACTIVITIES:
        hint = find_suggestion(event.activity, ACTIVITIES) or f" Known: {', '.join(ACTIVITIES)}."
        faults.append(f'"{event.activity}" is no activity. Correct it.{hint}')
    return faults


def _find_step_faults(events: Events, event: IncidentEvent) -> list[str]:
    """What the other steps of the incident make impossible."""

    def own(kind: type[IncidentEvent]) -> pd.DataFrame:
        rows = events.frame(kind)
        return rows[rows["incident_id"] == event.incident_id]

    day = pd.Timestamp(event.occurred_on)
    faults = []
    closed = own(IncidentClosed)
    if not closed.empty:
        return [f"it was closed on {closed['occurred_on'].iloc[0].date()}. Record a new incident instead."]
    due_on = getattr(event, "due_on", None)
    if due_on is not None and due_on < event.occurred_on:
        faults.append(f"it is due on {due_on}, before the day itself ({event.occurred_on}). Correct one of them.")
    assessed, decided = own(IncidentAssessed), own(IncidentDecided)
    planned, done = own(IncidentActionPlanned), own(IncidentActionDone)
    held = derive_held(events)
    held = held[held["incident_id"] == event.incident_id]
    if isinstance(event, IncidentActionPlanned) and event.action in set(planned["action"]):
        faults.append(f"action {event.action} was planned already. Give this one another code.")
    if isinstance(event, IncidentActionDone):
        faults += _find_action_faults(event, planned, done)
    if isinstance(event, IncidentDecided):
        if held.empty:
            faults.append("it holds no answers back, so there is nothing to admit or exclude. Assess and close it.")
        if not decided.empty:
            was, on = decided["decision"].iloc[0], decided["occurred_on"].iloc[0].date()
            faults.append(f"its answers were {was} on {on}. A decision is made once.")
        faults += _find_missing_assessment(assessed, day, "decided")
    if isinstance(event, IncidentClosed):
        faults += _find_missing_assessment(assessed, day, "closed")
        open_actions = sorted(set(planned["action"]) - set(done["action"]))
        if open_actions:
            faults.append(f"actions are not done yet: {', '.join(open_actions)}. Record them as done first.")
        n_held = int(held["is_held"].sum())
        if n_held and decided.empty:
            faults.append(f"it holds back {n_held} records. Record first whether they are admitted or excluded.")
        steps = [own(kind) for kind in (IncidentAssigned, IncidentActionPlanned, IncidentActionDone, IncidentDecided)]
        latest = pd.concat([rows["occurred_on"] for rows in (*steps, assessed)]).max()
        if latest > day:
            faults.append(f"a step of it is dated {latest.date()}, after that. Correct the date of one of them.")
    return faults


def _find_missing_assessment(assessed: pd.DataFrame, day: pd.Timestamp, told: str) -> list[str]:
    if assessed.empty:
        return [f"the sponsor has not assessed it yet, so it can't be {told}. Record the assessment first."]
    if assessed["occurred_on"].min() > day:
        on = assessed["occurred_on"].min().date()
        return [f"{told} on {day.date()}, but assessed only on {on}. Correct the date of one of them."]
    return []


def _find_action_faults(event: IncidentActionDone, planned: pd.DataFrame, done: pd.DataFrame) -> list[str]:
    own = planned[planned["action"] == event.action]
    if own.empty:
        known = list(planned["action"])
        hint = find_suggestion(event.action, known) or f" Planned: {', '.join(known) or 'none'}."
        return [f"no action {event.action} was planned. Correct its code, or plan it first.{hint}"]
    if event.action in set(done["action"]):
        return [f"action {event.action} was done already."]
    planned_on = own["occurred_on"].iloc[0].date()
    if event.occurred_on < planned_on:
        return [f"action {event.action} was planned only on {planned_on}. Correct the date of one of them."]
    return []


def find_site_of_incident(events: Events, incident_id: str) -> str:
    """The site of an incident; '' if it has none, or is not there."""
    opened = events.frame(IncidentOpened)
    return str(next(iter(opened.loc[opened["incident_id"] == incident_id, "site_id"]), ""))


def number_step(events: Events, event: IncidentEvent) -> IncidentEvent:
    """A step as the next of its kind, where an incident may have several; any other as it is."""
    field_name = {IncidentAssigned: "assignment", IncidentAssessed: "assessment"}.get(type(event))
    if field_name is None:
        return event
    rows = events.frame(type(event))
    return event.model_copy(update={field_name: int((rows["incident_id"] == event.incident_id).sum()) + 1})
