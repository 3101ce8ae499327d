"""Chasing: today's stop notices and digests, drawn up from the ledger, queued and sent; calls and pauses recorded.

Each round folds the ledger once and decides; the outbox looks again before it queues, and again before it sends. What
it turns down is decided on afresh in the same run, a few times at most; the next run takes up the rest.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import pandas as pd

from study.calendar import format_day, london_day
from study.chasing import CALL_SUBJECTS, derive_rungs, derive_second_copies, find_kind, list_pauses
from study.contacts import STOP_NOTICE_ROLES, WHY_WORDS, Contacts, Gap
from study.deadlines import describe_place
from study.digests import (
    STOP_NOTICE,
    STOP_TEMPLATE,
    Chase,
    Draft,
    Plan,
    make_chase,
    make_stop_section,
    plan_digests,
    plan_stop_notices,
)
from study.events import STEPS_OF_SENDING, CallLogged, ChasingPaused, ChasingResumed, ObligationChased
from study.instruments import find_suggestion
from study.messages import find_stopped_addresses
from study.participation import derive_stop_notices
from study.state import Events, derive_participants
from tasks.contacts import load_contacts
from tasks.letters import render_letter
from tasks.mail import Transport
from tasks.outbox import Category, Letter, Outgoing, SendingRefused, queue_message, send_waiting
from tasks.workspace import Workspace

ROUNDS = 3
"""How often a run decides afresh on what the outbox turned down."""

_TURNED_DOWN = ("overtaken", "expired", "refused", "lost")
"""What became of messages whose steps are free again."""

_SETTLES = ("reached", "promised", "left_message")


class ChasingRefused(ValueError):
    """What was asked cannot be recorded, and why."""


@dataclass(frozen=True)
class Drawn:
    """What is to go out on a day, decided at row `decided_at`. `stops`: by site, the notices themselves."""

    events: Events
    contacts: Contacts
    notices: pd.DataFrame
    stop_drafts: tuple[Draft, ...]
    stops: dict[str, list[Chase]]
    plan: Plan
    rungs: pd.DataFrame

    @property
    def drafts(self) -> tuple[Draft, ...]:
        """Stop notices first."""
        return (*self.stop_drafts, *self.plan.drafts)

    @property
    def decided_at(self) -> int:
        return self.events.head.seq


def draw_up(workspace: Workspace, as_of: date, not_at: Collection[str] = ()) -> Drawn:
    """What would be sent on a day. Nothing is recorded. Raises DefinitionFaults for a faulty contacts file.

    `not_at`: sites that are asked for nothing, since what they sent could not be read. Stop notices go to them too.
    """
    study, events, contacts = workspace.study, workspace.read_events(), load_contacts(workspace)
    stopped = find_stopped_addresses(events)
    notices = derive_stop_notices(study, events, as_of)
    stop_drafts, stops = plan_stop_notices(study, contacts, events, notices, stopped, as_of)
    told = {draft.site_id for draft in stop_drafts}
    gaps = [
        Gap(role, site_id, "", contacts.seek(role, site_id, as_of, stopped=stopped).why)
        for site_id in stops
        if site_id not in told
        for role in STOP_NOTICE_ROLES
    ]
    rungs = derive_rungs(study, events, as_of)
    rungs = rungs[~rungs["site_id"].isin(not_at)].reset_index(drop=True)
    plan = plan_digests(study, contacts, events, rungs, stopped, as_of, gaps)
    return Drawn(events, contacts, notices, tuple(stop_drafts), stops, plan, rungs)


def describe_gaps(workspace: Workspace, drawn: Drawn) -> list[str]:
    """The roles in which somebody is to be written to and nobody can be, in a sentence each."""
    return [
        f"Nobody to write to: {gap.role.replace('_', ' ')}, "
        f"{describe_place(workspace.study, gap.site_id, gap.body_id) or 'the study'}: {WHY_WORDS[gap.why]}."
        for gap in drawn.plan.gaps
    ]


def word_letter(workspace: Workspace, contacts: Contacts, draft: Draft) -> Letter:
    """The letter of a draft. Raises LetterFault."""
    study, rule = workspace.study, workspace.study.fieldwork.chasing_rule
    coordinator = contacts.find_recipient(rule.coordinator, draft.site_id, draft.on) if rule else None
    if coordinator is not None and coordinator.person_id == draft.person.person_id:
        coordinator = None
    return render_letter(
        draft.template,
        {
            "study": study.title,
            "name": draft.person.name,
            "place": describe_place(study, draft.person.site_id or draft.site_id, draft.person.body_id) or "all sites",
            "on": format_day(draft.on),
            "sections": draft.sections,
            "instead_of": draft.instead_of,
            "answer_to": coordinator,
            "is_rehearsal": not workspace.is_of_the_world,
        },
    )


def find_second_copies(workspace: Workspace, as_of: date) -> pd.DataFrame:
    """Questionnaires of which a step that is due on a day encloses a second copy: participant_id, respondent, wave."""
    if not any(step.encloses_copy for step in workspace.study.fieldwork.ladder):
        return pd.DataFrame(columns=["participant_id", "respondent", "wave"], dtype="str")
    return derive_second_copies(workspace.study, workspace.read_events(), as_of)


def queue_letters(workspace: Workspace, as_of: date, requested_by: str, not_at: Collection[str] = ()) -> Counter[str]:
    """Draw up the day's stop notices and digests and queue them; a stop notice also lies in its site's outbox as text.

    Counts: stop_notices and digests (letters queued), chased (steps taken by them), undecided (turned down by the
    outbox, because something newer came in or another run was quicker), unreachable (roles in which nobody can be
    written to). Raises SendingRefused unless `as_of` is today, DefinitionFaults, LetterFault.
    """
    today = london_day(workspace.clock())
    if as_of != today:
        raise SendingRefused(f"Nothing is sent as of {as_of}: today is {today}, and a chaser belongs to its day.")
    drawn = draw_up(workspace, as_of, not_at)
    counts: Counter[str] = Counter(unreachable=len(drawn.plan.gaps))
    for site_id in drawn.stops:
        _leave_stop_file(workspace, drawn, site_id, as_of)
    for draft in drawn.drafts:
        category: Category = "stop_notice" if draft.category == STOP_NOTICE else "digest"
        outgoing = make_outgoing(workspace, drawn.contacts, draft, category, requested_by)
        if queue_message(workspace, outgoing, drawn.decided_at, as_of, requested_by):
            counts["stop_notices" if draft.category == STOP_NOTICE else "digests"] += 1
            counts["chased"] += len(draft.chases)
        else:
            counts["undecided"] += 1
    mailed = {draft.site_id for draft in drawn.stop_drafts}
    for site_id, chases in drawn.stops.items():
        if site_id not in mailed:
            _record_left(workspace, drawn, site_id, chases, as_of, requested_by)
    return counts


def chase(
    workspace: Workspace,
    as_of: date,
    requested_by: str,
    transport: Transport | None = None,
    not_at: Collection[str] = (),
) -> Counter[str]:
    """Today's round of chasing: stop notices first, then one digest for everybody of whom something is due.

    Counts: those of `queue_letters` and of `send_waiting`. Raises what they raise; what was queued by then stays, and
    goes out with the next run of the day.
    """
    counts: Counter[str] = Counter()
    for _ in range(ROUNDS):
        queued = queue_letters(workspace, as_of, requested_by, not_at)
        sent = send_waiting(workspace, as_of, requested_by, transport)
        unreachable = queued.pop("unreachable", 0)
        counts.update(queued + sent)
        counts["unreachable"] = unreachable
        if not has_turned_down(queued, sent):
            break
    return +counts


def has_turned_down(queued: Counter[str], sent: Counter[str]) -> bool:
    """Whether steps are free again that are to be decided on afresh. Counts: of `queue_letters`, of `send_waiting`."""
    return bool(queued["undecided"] or any(sent[name] for name in _TURNED_DOWN))


def make_outgoing(
    workspace: Workspace, contacts: Contacts, draft: Draft, category: Category, requested_by: str
) -> Outgoing:
    """The message of a draft, with the steps that it takes. Raises LetterFault."""
    person = draft.person
    return Outgoing(
        message_id=draft.message_id,
        category=category,
        site_id=draft.site_id,
        person_id=person.person_id,
        role=draft.role,
        template=draft.template,
        name=person.name,
        address=person.email,
        address_code=contacts.find_code(person),
        letter=word_letter(workspace, contacts, draft),
        obligations=tuple(
            _make_chased(chase, draft.on, requested_by, "email", draft.message_id) for chase in draft.chases
        ),
        participant_ids=draft.participant_ids,
    )


def _make_chased(
    chase: Chase, on: date, requested_by: str, channel: Literal["email", "telephone", "outbox"], message_id: str = ""
) -> ObligationChased:
    return ObligationChased(
        occurred_on=on, requested_by=requested_by, site_id=chase.site_id, participant_id=chase.participant_id,
        chase=chase.chase, about=chase.about, step=chase.step, message_id=message_id, channel=channel,
        due_on=chase.due_on,
    )  # fmt: skip


# Stop notices ---------------------------------------------------------------------------------------------------------


def find_stop_file_name(chases: Sequence[Chase], as_of: date) -> str:
    """The name of a stop notice in an outbox: the same for the same notices."""
    keys = "\n".join(sorted(chase.chase for chase in chases))
    return f"stop-{as_of}-{hashlib.sha256(keys.encode()).hexdigest()[:8]}.txt"


def _leave_stop_file(workspace: Workspace, drawn: Drawn, site_id: str, as_of: date) -> None:
    """Put a stop notice into a site's outbox, whoever can be written to. Putting it twice changes nothing."""
    chases = drawn.stops[site_id]
    rows = drawn.notices.loc[drawn.notices["site_id"] == site_id]
    section = make_stop_section(workspace.study, rows)
    letter = render_letter(
        STOP_TEMPLATE,
        {
            "study": workspace.study.title,
            "name": "colleague",
            "place": describe_place(workspace.study, site_id),
            "on": format_day(as_of),
            "sections": (section,),
            "instead_of": (),
            "answer_to": None,
            "is_rehearsal": not workspace.is_of_the_world,
        },
    )
    workspace.drop_box(site_id).send(find_stop_file_name(chases, as_of), letter.text.encode())


def _record_left(
    workspace: Workspace, drawn: Drawn, site_id: str, chases: Sequence[Chase], as_of: date, requested_by: str
) -> None:
    """Where nobody at a site can be written to, the notice in the outbox is all; unless news came in meanwhile."""
    people = sorted({chase.participant_id for chase in chases})
    events = [_make_chased(chase, as_of, requested_by, "outbox") for chase in chases]
    after = drawn.decided_at
    with workspace.ledger.writing() as writing:
        newest = writing.newest_seq(people, [site_id, ""], passing_over=STEPS_OF_SENDING, after=after)
        standing = writing.find_keys(event.key for event in events)
        if newest <= after and all(row.is_voided for row in standing.values()):
            writing.append(events)


# Calls and pauses -----------------------------------------------------------------------------------------------------


def log_call(
    workspace: Workspace,
    site_id: str,
    about: Sequence[str],
    outcome: Literal["reached", "promised", "left_message", "not_reached"],
    requested_by: str,
    *,
    on: date,
    direction: Literal["out", "in"] = "out",
    person_id: str = "",
    promised_on: date | None = None,
    rungs: pd.DataFrame | None = None,
) -> tuple[int, int]:
    """Record a call with a site: its number on that day, and how many steps by telephone it settled.

    A call settles the steps that were due about the same, unless nobody was reached. `rungs`: `derive_rungs` or
    `derive_chasers` of that day, where they are at hand; of other sites' calls they need not know. Raises
    ChasingRefused for a promise without its day, a day without a promise, and words that no call is about.
    """
    _refuse_unknown(about)
    if (outcome == "promised") != (promised_on is not None):
        raise ChasingRefused(
            "A promise needs the day that was promised, and only a promise has one. Give both or none."
        )
    if promised_on is not None and promised_on < on:
        raise ChasingRefused(f"{promised_on} is before the call of {on}. Give the day that was promised.")
    rungs = derive_rungs(workspace.study, workspace.read_events(), on) if rungs is None else rungs
    is_settled = (rungs["channel"] == "telephone") & ~rungs["is_told"] & rungs["state"].isin(["due", "resting"])
    is_settled &= (rungs["site_id"] == site_id) & rungs["about"].map(find_kind).isin(about)
    rows: list[Any] = list(rungs.loc[is_settled].itertuples(index=False)) if outcome in _SETTLES else []
    settled = [_make_chased(make_chase(row), on, requested_by, "telephone") for row in rows]
    with workspace.ledger.writing() as writing:
        n = 1
        while (key := _make_call_key(site_id, on, n)) in writing.find_keys([key]):
            n += 1
        call = CallLogged(
            occurred_on=on, requested_by=requested_by, site_id=site_id, call=n, person_id=person_id,
            direction=direction, about=tuple(about), outcome=outcome, promised_on=promised_on,
        )  # fmt: skip
        standing = writing.find_keys(event.key for event in settled)
        new = [event for event in settled if event.key not in standing or standing[event.key].is_voided]
        writing.append([call, *new])
    return n, len(new)


def _make_call_key(site_id: str, on: date, n: int) -> str:
    return CallLogged.key_form.format(site_id=site_id, occurred_on=on, call=n)


def pause_chasing(
    workspace: Workspace,
    requested_by: str,
    reason: str,
    *,
    on: date,
    site_id: str = "",
    participant_id: str = "",
    about: Sequence[str] = (),
    until: date | None = None,
) -> str:
    """Let chasing rest from a day on; the name of the pause. Raises ChasingRefused for a participant whom nobody knows,
    a day that is over, words that no chaser is about, and a pause that holds already."""
    _refuse_unknown(about)
    if until is not None and until < on:
        raise ChasingRefused(f"{until} is before {on}, the first day of the pause. Give a later day, or none.")
    if participant_id:
        people = derive_participants(workspace.read_events())
        own = people.loc[people["participant_id"] == participant_id, "site_id"]
        if own.empty:
            raise ChasingRefused("The ledger knows no such participant. Look at the identifier again.")
        if site_id and site_id != own.iloc[0]:
            raise ChasingRefused("That participant belongs to another site. Leave the site out.")
        site_id = own.iloc[0]
    place = participant_id or site_id or "study"
    held = list_pauses(workspace.read_events(), on)
    same = (held["site_id"] == site_id) & (held["participant_id"] == participant_id)
    same &= held["about"] == ";".join(about)
    same &= held["until"].isna() if until is None else held["until"] == pd.Timestamp(until)
    if same.any():
        raise ChasingRefused(f"That rests already, by the pause {held.loc[same, 'pause'].iloc[0]}.")
    with workspace.ledger.writing() as writing:
        n = 1
        while (name := f"{place}-{on}-{n}") and writing.find_keys([f"chasing_paused:{name}"]):
            n += 1
        paused = ChasingPaused(
            occurred_on=on, requested_by=requested_by, site_id=site_id, participant_id=participant_id, pause=name,
            about=tuple(about), until=until, reason=reason,
        )  # fmt: skip
        writing.append([paused])
    return name


def resume_chasing(workspace: Workspace, pause: str, requested_by: str, *, on: date) -> None:
    """End a pause. Raises ChasingRefused for one that does not hold on that day."""
    held = list_pauses(workspace.read_events(), on).set_index("pause")
    if pause not in held.index:
        known = list(held.index)
        hint = find_suggestion(pause, known) or f" Pauses: {', '.join(known) or 'none'}."
        raise ChasingRefused(f'There is no pause "{pause}" on {on}.{hint}')
    site_id, participant_id = held.loc[pause, ["site_id", "participant_id"]]
    workspace.ledger.append([
        ChasingResumed(
            occurred_on=on, requested_by=requested_by, site_id=site_id, participant_id=participant_id, pause=pause
        )
    ])  # fmt: skip


def _refuse_unknown(about: Sequence[str]) -> None:
    for word in about:
        if word not in CALL_SUBJECTS:
            hint = find_suggestion(word, CALL_SUBJECTS) or f" Known: {', '.join(CALL_SUBJECTS)}."
            raise ChasingRefused(f'Nothing is owed that is called "{word}".{hint}')
