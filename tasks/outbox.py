"""The outbox: a message is queued with everything that it chases, claimed, looked at again, handed over, recorded.

Queued under the write lock, if nothing that the decision rests on is newer than the decision. Sent by one process at a
time, one message after another; claimed and handed over are recorded apart, so a sender that dies leaves at most one
message of which nobody knows whether it went out. That one is never sent again by itself: a person looks and says what
became of it. What news has overtaken, or whose day is over, is voided with the steps that it would have taken, so the
next decision finds them untaken.

The wording and the address lie in a file named by its SHA-256; the ledger holds neither.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, TypeVar

import orjson
import pandas as pd
from pydantic import ValidationError

from study.calendar import london_day
from study.events import (
    STEPS_OF_SENDING,
    Event,
    MessageClaimed,
    MessageEvent,
    MessageFailed,
    MessageQueued,
    MessageResolved,
    MessageSent,
    MessageTransmitting,
    ObligationChased,
    Voided,
    encode_canonical,
)
from study.messages import compute_message_code, derive_messages
from study.state import Events
from tasks.contacts import load_contacts
from tasks.files import ContentDamaged, FileMissing
from tasks.ledger import SendingBusy, Writing
from tasks.mail import (
    OUTBOX_FOLDER,
    AddressRefused,
    FolderTransport,
    Mail,
    MailUnavailable,
    Outcome,
    SmtpTransport,
    Transport,
    make_headers,
    write_mail,
)
from tasks.orchestration import StepFailed
from tasks.workspace import Workspace

Category = Literal["digest", "stop_notice", "escalation", "pack_notice", "alert"]

_WHATEVER_COMES = "alert"  # a safeguarding alert goes out whatever else has become known
_WAIT_SECONDS = 600.0  # for another run that sends
_MOMENT_SECONDS = 5.0
_TROUBLES_IN_A_ROW = 3
_KEPT_VERSION = 1
_ANY_ADDRESS = "anybody@study.invalid"
_BAD_ADDRESS = "5.1.3"  # RFC 3463: bad destination mailbox address syntax

_Step = TypeVar("_Step", bound=MessageEvent)


class SendingRefused(StepFailed):
    """What was asked of the outbox is not done, and why."""


class SendingFailed(MailUnavailable):
    """Sending ended early. `counts`: what became of messages until then, as `send_waiting` gives them."""

    def __init__(self, text: str, counts: Counter[str]) -> None:
        super().__init__(text)
        self.counts = counts


@dataclass(frozen=True)
class Letter:
    """A wording: the subject line, and the same text twice, plain and as HTML."""

    subject: str
    text: str
    html: str


@dataclass(frozen=True)
class Outgoing:
    """A message that somebody is to get. `message_id` makes it the same message if it is decided on again.

    `obligations`: the steps that it takes; each names the message. `participant_ids`: whom it concerns, all of them:
    news about any of them holds it back.
    """

    message_id: str
    category: Category
    site_id: str
    person_id: str
    role: str
    template: str
    name: str
    address: str
    address_code: str
    letter: Letter
    obligations: tuple[ObligationChased, ...] = ()
    participant_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kept:
    """What the file of a message holds."""

    name: str
    address: str
    letter: Letter
    participant_ids: tuple[str, ...]


@dataclass(frozen=True)
class _Waiting:
    """A message that stands and has not gone out. `last_attempt`: the number of the last try, 0: none."""

    message_id: str
    category: str
    site_id: str
    person_id: str
    address_code: str
    content_sha256: str
    queued_on: date
    queued_seq: int
    state: str
    way: str
    n_attempts: int
    last_attempt: int
    steps: tuple[str, ...]
    """Hashes of the row that queued it, and of the rows of the steps that it takes."""
    step_participants: tuple[str, ...]
    step_sites: tuple[str, ...]


def queue_message(workspace: Workspace, outgoing: Outgoing, decided_at: int, as_of: date, requested_by: str) -> bool:
    """Queue a message and take its steps, in one append; False, and nothing is changed, where that may not be any more:

    something newer than row `decided_at` (the head of the fold that was decided on) concerns its people, its site or
    the study; it is queued already; or one of its steps was taken by another message. Decide afresh then.

    Raises SendingRefused unless `as_of` is today, and SendingRefused or MailRefused for a message that no mail can be
    made of. An address that no mail can go to is told when the message is sent, as one that was refused.
    """
    _refuse_unless_today(workspace, as_of)
    _refuse_faulty(workspace, outgoing)
    kept = {
        "version": _KEPT_VERSION,
        "name": outgoing.name,
        "address": outgoing.address,
        "subject": outgoing.letter.subject,
        "text": outgoing.letter.text,
        "html": outgoing.letter.html,
        "participant_ids": sorted(set(outgoing.participant_ids)),
    }
    try:
        queued = MessageQueued(
            occurred_on=as_of, requested_by=requested_by, site_id=outgoing.site_id, message_id=outgoing.message_id,
            category=outgoing.category, person_id=outgoing.person_id, role=outgoing.role, channel="email",
            template=outgoing.template, content_sha256=workspace.content.put(encode_canonical(kept).encode()),
            address_code=outgoing.address_code, n_obligations=len(outgoing.obligations),
        )  # fmt: skip
    except ValidationError as error:
        names = ", ".join(str(fault["loc"][0]) for fault in error.errors(include_url=False))
        refused = SendingRefused(f"A message has no code that the ledger can keep as its {names}.")
    else:
        events: list[Event] = [queued, *outgoing.obligations]
        people = _find_people(outgoing.participant_ids, (step.participant_id for step in outgoing.obligations))
        with workspace.ledger.writing() as writing:
            sites = {outgoing.site_id, *(step.site_id for step in outgoing.obligations)}
            if outgoing.category != _WHATEVER_COMES and _has_news(writing, sites, people, decided_at):
                return False
            standing = writing.find_keys(event.key for event in events)
            if any(not row.is_voided for row in standing.values()):
                return False
            writing.append(events)
        return True
    raise refused


def _refuse_unless_today(workspace: Workspace, as_of: date) -> None:
    today = london_day(workspace.clock())
    if as_of != today:
        raise SendingRefused(f"Nothing is sent as of {as_of}: today is {today}, and a message belongs to its day.")


def _refuse_faulty(workspace: Workspace, outgoing: Outgoing) -> None:
    letter = outgoing.letter
    people = _find_people(outgoing.participant_ids, (step.participant_id for step in outgoing.obligations))
    if any(re.search(rf"(?<!\w){re.escape(person)}(?!\w)", letter.subject) for person in people):
        raise SendingRefused(
            f"The subject line of {outgoing.template} names a participant. Say it in the text instead."
        )
    if any(step.message_id != outgoing.message_id for step in outgoing.obligations):
        raise SendingRefused(f"A step of {outgoing.message_id} names another message.")
    # A wrong address is no fault of the message: it stops nobody else, and is told as one that the server refused.
    mail = Mail("0", 1, outgoing.name, _ANY_ADDRESS, letter.subject, letter.text, letter.html, workspace.clock())
    make_headers(mail, workspace.settings, workspace.study.title)


def _find_people(*several: Any) -> list[str]:
    return sorted({person for people in several for person in people if person})


def _has_news(writing: Writing, site_ids: Collection[str], participant_ids: Sequence[str], after: int) -> bool:
    """Whether anything came in since about these people, these sites or the study; a digest may be about many sites."""
    newest = writing.newest_seq(participant_ids, {*site_ids, ""}, passing_over=STEPS_OF_SENDING, after=after)
    return newest > after


def read_kept(workspace: Workspace, content_sha256: str) -> Kept:
    """Name, address and wording of a message. Raises FileMissing, ContentDamaged."""
    kept = orjson.loads(workspace.content.get(content_sha256))
    letter = Letter(kept["subject"], kept["text"], kept["html"])
    return Kept(kept["name"], kept["address"], letter, tuple(kept["participant_ids"]))


def find_transport(workspace: Workspace, *, to_folder: bool = False) -> Transport:
    """How this study's messages go out: by the mail server of the settings; as files where none is set, and always in
    a replay, and where a study is rehearsed. Raises MailUnavailable for a URL that is no mail server.
    """
    if to_folder or not workspace.is_of_the_world or not workspace.settings.smtp_url:
        return FolderTransport(workspace.folder / OUTBOX_FOLDER, is_synced=workspace.is_live)
    return SmtpTransport(workspace.settings)


def send_waiting(
    workspace: Workspace, as_of: date, requested_by: str, transport: Transport | None = None
) -> Counter[str]:
    """Send every message of today that waits; how many became what: sent, put_off (a server wants it later), refused
    (for good), overtaken (by news), expired (of another day), lost (its wording is gone), uncertain.

    Safeguarding alerts go first, then stop notices; who was put off before goes last. Raises SendingRefused unless
    `as_of` is today or while another run sends, and SendingFailed where the server cannot be worked with; what was not
    reached goes on waiting.
    """
    _refuse_unless_today(workspace, as_of)
    transport = transport or find_transport(workspace)
    try:
        with workspace.ledger.sending(_WAIT_SECONDS), transport:
            return _Round(workspace, as_of, requested_by, transport).send()
    except SendingBusy as busy:
        text = str(busy)
    raise SendingRefused(text)


def _find_newest(events: Events) -> int:
    """The row that queued the last message that stands."""
    queued = events.table(MessageQueued)["seq"]
    return int(queued[-1].as_py()) if len(queued) else 0


class _Round:
    """One run that sends what waits, while it alone does."""

    def __init__(self, workspace: Workspace, as_of: date, requested_by: str, transport: Transport) -> None:
        self.workspace = workspace
        self.as_of = as_of
        self.requested_by = requested_by
        self.transport = transport
        self.contacts = load_contacts(workspace)
        self.counts: Counter[str] = Counter()
        self._troubles = 0

    def send(self) -> Counter[str]:
        tried: set[str] = set()
        seen = -1
        # A second look is for what was queued meanwhile.
        while (newest := _find_newest(events := self.workspace.read_events())) != seen:
            seen = newest
            for message in [one for one in self._list_waiting(events) if one.message_id not in tried]:
                tried.add(message.message_id)
                if london_day(self.workspace.clock()) != self.as_of:
                    return self.counts  # midnight: what is left is voided by the next run
                result = self._send_one(message)
                if result:
                    self.counts[result] += 1
        return self.counts

    def _list_waiting(self, events: Events) -> list[_Waiting]:
        """What is to be looked at, in the order of sending; uncertain messages only where that can be mended."""
        messages = derive_messages(events, self.as_of, unsent_only=True)
        states = ["queued", "claimed", "uncertain"]
        waiting = _list_waiting(messages[messages["state"].isin(states)], events)
        first = {_WHATEVER_COMES: 0, "stop_notice": 1}
        return sorted(waiting, key=lambda one: (first.get(one.category, 2), one.n_attempts, one.queued_seq))

    def _send_one(self, message: _Waiting) -> str:
        """What became of it; "" where another run has dealt with it meanwhile."""
        transport, name = self.transport, f"{message.message_id}.{message.last_attempt}"
        if message.state == "uncertain":
            if not message.way == transport.way == "folder":
                return "uncertain"
            if transport.has(name):
                self.workspace.ledger.append([self._make(MessageSent, message, message.last_attempt)])
                return "sent"
        if message.queued_on != self.as_of:
            return self._void(message, "expired")
        try:
            kept = read_kept(self.workspace, message.content_sha256)
        except (FileMissing, ContentDamaged):
            return self._void(message, "lost")
        if not self._is_still_theirs(message):
            return self._void(message, "overtaken")
        # A file that is written twice is one file: there the try that broke off goes on under its number.
        goes_on = transport.way == "folder" and message.state in ("claimed", "uncertain")
        attempt = message.last_attempt + (not goes_on)
        try:
            data = self._write(message, kept, attempt)
        except AddressRefused:
            self.workspace.ledger.append([self._make(MessageClaimed, message, attempt)])
            return self._record_outcome(message, attempt, Outcome("permanent", _BAD_ADDRESS))
        self._prepare()
        people = _find_people(message.step_participants, kept.participant_ids)
        claimed = self._make(MessageClaimed, message, attempt)
        transmitting = self._make(MessageTransmitting, message, attempt, way=transport.way)
        for step in (claimed, transmitting):
            refused = self._take(message, step, people, goes_on=goes_on)
            if refused is not None:
                return refused
        outcome = transport.hand_over(f"{message.message_id}.{attempt}", kept.address, data)
        return self._record_outcome(message, attempt, outcome)

    def _is_still_theirs(self, message: _Waiting) -> bool:
        """Whether the contacts still have this address for this person, who has not left. Who keeps no contacts is not
        held to them."""
        person = self.contacts.find_person(message.person_id)
        if person is None:
            return not self.contacts.people
        return person.is_there(self.as_of) and self.contacts.find_code(person) == message.address_code

    def _prepare(self) -> None:
        try:
            self.transport.prepare()
            return
        except MailUnavailable as fault:
            text = str(fault)
        raise SendingFailed(text, self.counts)

    def _take(self, message: _Waiting, step: MessageEvent, people: Sequence[str], *, goes_on: bool) -> str | None:
        """Record that a message is claimed, or handed over from now on, having looked once more whether it may go.

        None: it is recorded. Otherwise the message must not be sent by this run: "overtaken", or "" where somebody else
        has taken it: that holds even if the lock of sending was lost on the way.
        """
        queued_key = f"message:{message.message_id}"
        taken = [self._make(MessageClaimed, message, step.attempt + 1).key]
        if not goes_on:
            taken.append(step.key)
            if message.state == "claimed":
                taken.append(self._make(MessageTransmitting, message, message.last_attempt, way="smtp").key)
        with self.workspace.ledger.writing() as writing:
            standing = writing.find_keys([queued_key, *taken])
            queued = standing.pop(queued_key)
            if queued.is_voided or queued.seq != message.queued_seq or standing:
                return ""
            sites = {message.site_id, *message.step_sites}
            if message.category != _WHATEVER_COMES and _has_news(writing, sites, people, message.queued_seq):
                writing.append(self._make_voids(message))
                return "overtaken"
            writing.append([step])
        return None

    def _record_outcome(self, message: _Waiting, attempt: int, outcome: Outcome) -> str:
        self._troubles = self._troubles + 1 if outcome.trouble else 0
        if outcome.result == "sent":
            self.workspace.ledger.append([self._make(MessageSent, message, attempt)])
        elif outcome.result == "permanent":
            # Nobody was chased: the steps are free again. The message stands, as one that was refused.
            self._record_failed(message, attempt, outcome, self._make_voids(message)[1:])
        elif outcome.result == "temporary":
            self._record_failed(message, attempt, outcome, [])
        result = {"sent": "sent", "permanent": "refused", "temporary": "put_off", "unknown": "uncertain"}[
            outcome.result
        ]
        if outcome.trouble == "account" or self._troubles >= _TROUBLES_IN_A_ROW:
            self.counts[result] += 1
            what = "does not let us send" if outcome.status else "breaks off"
            code = f" ({outcome.status})" if outcome.status else ""
            raise SendingFailed(
                f"The mail server {what}{code}. What waits goes out with the next run of today.", self.counts
            )
        return result

    def _record_failed(self, message: _Waiting, attempt: int, outcome: Outcome, voids: Sequence[Event]) -> None:
        failed = MessageFailed(
            occurred_on=self.as_of, requested_by=self.requested_by, site_id=message.site_id,
            message_id=message.message_id, attempt=attempt, status=outcome.status, address_code=message.address_code,
            persistence="permanent" if outcome.result == "permanent" else "temporary",
        )  # fmt: skip
        self.workspace.ledger.append([failed, *voids])

    def _void(self, message: _Waiting, why: str) -> str:
        self.workspace.ledger.append(self._make_voids(message))
        return why

    def _make_voids(self, message: _Waiting) -> list[Event]:
        return make_voids(message.steps, self.as_of, self.requested_by)

    def _make(self, kind: type[_Step], message: _Waiting, attempt: int, **more: str) -> _Step:
        return kind(
            occurred_on=self.as_of, requested_by=self.requested_by, site_id=message.site_id,
            message_id=message.message_id, attempt=attempt, **more,
        )  # fmt: skip

    def _write(self, message: _Waiting, kept: Kept, attempt: int) -> bytes:
        code = compute_message_code(self.workspace.name, message.message_id)
        letter = kept.letter
        mail = Mail(
            code, attempt, kept.name, kept.address, letter.subject, letter.text, letter.html, self.workspace.clock()
        )
        return write_mail(mail, self.workspace.settings, self.workspace.study.title)


def make_voids(hashes: Sequence[str], as_of: date, requested_by: str) -> list[Event]:
    return [
        Voided(occurred_on=as_of, requested_by=requested_by, voids=digest, reason="superseded") for digest in hashes
    ]


def _list_waiting(messages: pd.DataFrame, events: Events) -> list[_Waiting]:
    if messages.empty:
        return []
    steps = events.frame_among(ObligationChased, "message_id", messages["message_id"])
    by_message = dict(list(steps.groupby("message_id")))
    waiting = []
    for row in messages.to_dict("records"):
        own = by_message.get(row["message_id"], steps.iloc[:0])
        waiting.append(
            _Waiting(
                **{name: row[name] for name in ("message_id", "category", "site_id", "person_id", "address_code")},
                **{
                    name: row[name]
                    for name in ("content_sha256", "queued_seq", "state", "way", "n_attempts", "last_attempt")
                },
                queued_on=row["queued_on"].date(),
                steps=(row["queued_hash"], *own["hash"]),
                step_participants=tuple(own["participant_id"]),
                step_sites=tuple(own["site_id"]),
            )
        )
    return waiting


def resolve_message(
    workspace: Workspace, message_id: str, outcome: Literal["was_sent", "was_not_sent"], requested_by: str
) -> None:
    """Record what a person found out about an uncertain message. One that was not sent is voided with its steps: they
    are due again. Raises SendingRefused for a message that is not uncertain, or while a run sends."""
    today = london_day(workspace.clock())
    try:
        with workspace.ledger.sending(_MOMENT_SECONDS):
            events = workspace.read_events()
            messages = derive_messages(events, today)
            found = messages[(messages["message_id"] == message_id) & (messages["state"] == "uncertain")]
            text = "" if len(found) else f"{message_id} is no uncertain message. `messages list` shows those that are."
            for message in _list_waiting(found, events):
                resolved = MessageResolved(
                    occurred_on=today, requested_by=requested_by, site_id=message.site_id, message_id=message_id,
                    attempt=message.last_attempt, outcome=outcome,
                )  # fmt: skip
                voids = make_voids(message.steps, today, requested_by) if outcome == "was_not_sent" else []
                workspace.ledger.append([resolved, *voids])
    except SendingBusy as busy:
        text = str(busy)
    if text:
        raise SendingRefused(text)
