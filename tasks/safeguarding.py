"""Safeguarding alerts: raised in the same append as the return, sent the same day, acknowledged by a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal

from study.calendar import london_day
from study.contacts import CONTACTS_FILE, WHY_WORDS, Contacts, find_gaps, parse_contacts
from study.deadlines import describe_place
from study.events import Event, SafeguardingAcknowledged, SafeguardingRaised
from study.instruments import DefinitionFaults, find_suggestion
from study.messages import derive_messages, find_stopped_addresses
from study.pack_layout import Reading
from study.protocol import Study
from study.returns import Decision, Standing
from study.safeguarding import (
    CATEGORY,
    AlertPlan,
    derive_alert_events,
    derive_alerts,
    find_triggered,
    has_open_alerts,
    plan_alerts,
)
from tasks.chasing import ROUNDS, has_turned_down, make_outgoing
from tasks.contacts import load_contacts
from tasks.ledger import Writing
from tasks.mail import Transport
from tasks.orchestration import StepFailed
from tasks.outbox import queue_message, send_waiting
from tasks.settings import Settings
from tasks.workspace import Workspace

_ON_THEIR_WAY = ("queued", "claimed")
Way = Literal["email", "telephone", "in_person"]


class AlertRefused(StepFailed):
    """What was asked about an alert cannot be recorded, and why."""


class AlertsUnheard(StepFailed):
    """Alerts of which nobody could be told: the sentences of `describe_unheard`."""


def raise_alerts(
    workspace: Workspace,
    writing: Writing,
    decision: Decision,
    reading: Reading | None,
    standing: Standing,
    as_of: date,
    requested_by: str,
) -> Sequence[Event]:
    """The alerts that a file raises and that stand not yet, to be appended with what else follows from the file."""
    study = workspace.study
    triggered = find_triggered(study, workspace.instruments, decision, reading, standing.people)
    if not triggered:
        return ()
    known = writing.find_keys(one.key for one in triggered)
    new = [one for one in triggered if one.key not in known or known[one.key].is_voided]
    n_already = writing.count(SafeguardingRaised.kind, decision.facts.site_id)
    return derive_alert_events(new, decision, n_already, as_of, requested_by)


@dataclass(frozen=True)
class Drawn:
    """What is to be told on a day, decided at row `decided_at`. `has_waiting`: letters of before wait to be sent."""

    plan: AlertPlan
    contacts: Contacts
    decided_at: int
    has_waiting: bool


def draw_up_alerts(workspace: Workspace, as_of: date) -> Drawn:
    """Who would be told what on a day. Nothing is recorded. Raises DefinitionFaults for a faulty contacts file."""
    events, contacts = workspace.read_events(), load_contacts(workspace)
    alerts = derive_messages(events, as_of, category=CATEGORY)
    states = dict(zip(alerts["message_id"], alerts["state"], strict=True))
    titles = {sheet.code: sheet.title for sheet in workspace.layout.sheets}
    plan = plan_alerts(workspace.study, contacts, events, states, find_stopped_addresses(events), titles, as_of)
    return Drawn(plan, contacts, events.head.seq, bool(alerts["state"].isin(_ON_THEIR_WAY).any()))


def send_alerts(workspace: Workspace, requested_by: str, transport: Transport | None = None) -> Counter[str]:
    """Tell of every alert that is due to be told today, now. Today is that of the clock, whatever day a round is of: a
    danger waits for no study day.

    Counts: alerts (letters queued), told and escalated (alerts in them), and those of `send_waiting`. Raises
    AlertsUnheard where nobody can be told, once everything else is sent; SendingRefused, SendingFailed,
    DefinitionFaults, LetterFault: what was queued by then stays, and goes out with the next run.
    """
    today, counts = london_day(workspace.clock()), Counter[str]()
    if not has_open_alerts(workspace.read_events(), today):
        return counts
    drawn = draw_up_alerts(workspace, today)
    if drawn.has_waiting:  # of an earlier run: sent, or voided if its day is over, before anything counts as told
        counts.update(send_waiting(workspace, today, requested_by, transport))
        drawn = draw_up_alerts(workspace, today)
    for _ in range(ROUNDS):
        if not drawn.plan.drafts:
            break
        queued = Counter[str]()
        for draft in drawn.plan.drafts:
            outgoing = make_outgoing(workspace, drawn.contacts, draft, "alert", requested_by)
            if queue_message(workspace, outgoing, drawn.decided_at, today, requested_by):
                queued["alerts"] += 1
                queued.update(chase.step for chase in draft.chases)
            else:
                queued["undecided"] += 1
        sent = send_waiting(workspace, today, requested_by, transport)
        counts.update(queued + sent)
        drawn = draw_up_alerts(workspace, today)
        if not has_turned_down(queued, sent):
            break
    if drawn.plan.unheard:
        raise AlertsUnheard(describe_unheard(workspace, drawn))
    return counts


def describe_unheard(workspace: Workspace, drawn: Drawn) -> str:
    """The alerts of which nobody can be told by mail, and why, in a sentence."""
    why = "; ".join(
        f"{gap.role.replace('_', ' ')}, {describe_place(workspace.study, gap.site_id)}: {WHY_WORDS[gap.why]}"
        for gap in drawn.plan.gaps
    )
    return (
        f"Nobody could be told of {', '.join(drawn.plan.unheard)} ({why}). Telephone today, and correct the contacts "
        "file"
    )


def acknowledge_alert(workspace: Workspace, alert_id: str, role: str, way: Way, requested_by: str, *, on: date) -> bool:
    """Record that somebody has taken an alert over; False where that was recorded before. Raises AlertRefused for an
    alert that nobody knows, a role that the study does not tell of alerts, and a day before it was raised."""
    rule = workspace.study.fieldwork.safeguarding_rule
    roles = [rule.clinician, rule.escalates_to] if rule else []
    if role not in roles:
        raise AlertRefused(f"{role}: who takes over an alert is {' or '.join(roles) or 'nobody'} (fieldwork.toml).")
    alerts = derive_alerts(workspace.study, workspace.read_events(), london_day(workspace.clock()))
    alerts = alerts.set_index("alert_id")
    if alert_id not in alerts.index:
        hint = find_suggestion(alert_id, alerts.index) or " `safeguarding list` shows those that are open."
        raise AlertRefused(f"There is no alert {alert_id}.{hint}")
    alert = alerts.loc[alert_id]
    if alert["state"] == "acknowledged":
        return False
    if on < alert["raised_on"].date():
        raise AlertRefused(f"{on} is before {alert_id} was raised, on {alert['raised_on'].date()}. Give a later day.")
    told = SafeguardingAcknowledged(
        occurred_on=on, requested_by=requested_by, site_id=str(alert["site_id"]),
        participant_id=str(alert["participant_id"]), alert_id=alert_id, role=role, way=way,
    )  # fmt: skip
    (appended,) = workspace.ledger.append([told])
    return appended.answer == "added"


def find_contact_faults(study: Study, settings: Settings) -> list[str]:
    """Whom of those who must hear of an alert nobody can write to today, a sentence a role; and what is wrong with the
    contacts file. A study that has no contacts file yet is told when it sends."""
    rule, path = study.fieldwork.safeguarding_rule, settings.contacts / f"{study.study_id}.toml"
    if rule is None or not path.is_file():
        return []
    try:
        contacts = parse_contacts(path.read_bytes(), study)
    except DefinitionFaults as error:
        return list(error.faults)
    faults, today = [], london_day(datetime.now(UTC))
    for role in (rule.clinician, rule.escalates_to):
        gaps = find_gaps(study, contacts, [(role, site.site_id, "") for site in study.sites], today)
        if gaps:
            why = ", ".join(dict.fromkeys(WHY_WORDS[gap.why] for gap in gaps))
            faults.append(
                f"{CONTACTS_FILE}: {role} must hear of safeguarding alerts, and at {len(gaps)} of {len(study.sites)} "
                f"sites nobody can be written to ({why}). Add somebody, for the study or for each site."
            )
    return faults
