"""The vocabulary of the ledger: one frozen class per kind of event.

An event is an envelope (when it happened, who asked, about whom, from which file and row) and a payload of its own.
The ledger holds no answers and no free text, so a payload field is a code, a whole number, a yes or no, a date, a
SHA-256 or a tuple of codes; any other annotation is refused when the class is defined.

To add a kind: subclass `Event` (or `SiteEvent`, `ParticipantEvent`), give `kind`, `key_form` and the fields. To change
the payload of a kind that ledgers already hold: raise `kind_version` and register an `upcaster` from the old one.
"""

import hashlib
import re
import types
import typing
from collections.abc import Callable, Mapping
from datetime import date
from typing import Annotated, Any, ClassVar, Literal, Union

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

Payload = dict[str, Any]

# Codes are printable ASCII without ":" (which separates the parts of a key); they may hold spaces, because an
# unscheduled occasion keeps the name its source gave it ("AMBUL ECG REMOVAL").
_CODE = r"[A-Za-z0-9][A-Za-z0-9 _.,+/&'()-]{0,79}"
Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,39}$")]
Code = Annotated[str, StringConstraints(pattern=rf"^{_CODE}$")]
CodeOrBlank = Annotated[str, StringConstraints(pattern=rf"^({_CODE})?$")]
IdentifierOrBlank = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9_./-]{0,39})?$")]
Codes = Annotated[tuple[Code, ...], AfterValidator(lambda codes: tuple(sorted(set(codes))))]
Reference = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.,+/&'():>-]{0,239}$")]
"""Names a record or a place: codes joined with ":"."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Fingerprint = Annotated[str, StringConstraints(pattern=r"^([a-p]{32})?$")]
Sha256OrBlank = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")]
Moment = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")]
"""UTC with microseconds, always 27 characters, so that text order is time order."""
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Ordinal = Annotated[int, Field(ge=1, le=2**53 - 1)]
SheetOrBlank = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f:]{0,32}$")]
"""The code of a sheet: an instrument's has up to 32 characters."""
Requester = Annotated[str, StringConstraints(pattern=r"^[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]{0,119}$")]

CorrectionReason = Literal["site_says", "typed_wrongly", "evident"]
QueryReason = Literal["mended", "confirmed", "withdrawn", "changed"]
VoidReason = Literal["entered_in_error", "wrong_participant", "wrong_date", "duplicate", "superseded", "reopened"]

KINDS: dict[str, type["Event"]] = {}
"""Every kind of event by the name it has in the ledger."""

_UPCASTERS: dict[tuple[str, int], Callable[[Payload], Payload]] = {}
_PAYLOAD_TYPES = (str, int, bool, date, tuple)


class UnknownKind(ValueError):
    """A row that this version of Summative cannot read."""


class Source(BaseModel):
    """Where an event was read: a stored file, and in it a sheet and a row (1-based, as Excel counts; 0: the file)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Sha256
    sheet: SheetOrBlank = ""
    row: Count = 0


class Event(BaseModel):
    """What every event says. `occurred_on` is a London date; `requested_by` a person or a procedure, never blank."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[str] = ""
    kind_version: ClassVar[int] = 1
    key_form: ClassVar[str]
    payload_types: ClassVar[dict[str, type]]

    occurred_on: date
    requested_by: Requester
    site_id: IdentifierOrBlank = ""
    participant_id: IdentifierOrBlank = ""
    source: Source | None = None

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        cls.payload_types = {
            name: find_payload_type(f"{cls.__name__}.{name}", field.annotation, field.metadata)
            for name, field in cls.model_fields.items()
            if name not in Event.model_fields
        }
        if "kind" not in vars(cls):
            return
        if KINDS.setdefault(cls.kind, cls) is not cls:
            raise TypeError(f'{cls.__name__}: kind "{cls.kind}" is {KINDS[cls.kind].__name__} already.')

    @property
    def key(self) -> str:
        """The natural key: what makes a second telling of the same thing the same event."""
        return self.derive_key(vars(self))

    @classmethod
    def derive_key(cls, fields: Mapping[str, Any]) -> str:
        """The key of an event of this kind with these fields."""
        return cls.key_form.format_map(fields)

    def encode_payload(self) -> str:
        """The payload as canonical JSON text."""
        fields = vars(self)
        return encode_canonical({name: fields[name] for name in self.payload_types})


class SiteEvent(Event):
    """An event that concerns one site."""

    site_id: Identifier


class ParticipantEvent(SiteEvent):
    """An event that concerns one participant at one site."""

    participant_id: Identifier


def find_payload_type(place: str, annotation: Any, metadata: list[Any]) -> type:
    """The plain type that a payload field is stored as: str, int, bool, date or tuple (of codes).

    Raises TypeError for anything else; for text without a pattern too, since that would be free text.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return find_payload_type(place, arguments[0], [*metadata, *arguments[1:]])
    if origin is Literal and all(isinstance(value, str) for value in arguments):
        return str
    if origin in (Union, types.UnionType) and len(arguments) == 2 and type(None) in arguments:
        present = next(argument for argument in arguments if argument is not type(None))
        if find_payload_type(place, present, metadata) is date:
            return date
    elif origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        find_payload_type(place, arguments[0], [])
        return tuple
    elif annotation is str and any(getattr(extra, "pattern", None) for extra in metadata):
        return str
    elif annotation in _PAYLOAD_TYPES and annotation not in (str, tuple):
        return typing.cast(type, annotation)
    raise TypeError(
        f"{place}: a payload holds codes (text with a pattern), whole numbers, yes or no, dates (which may be None) "
        f"and tuples of codes; {annotation} is none of them."
    )


def is_code(text: str) -> bool:
    """Whether a text may stand in the ledger as a code."""
    return re.fullmatch(_CODE, text) is not None


def encode_canonical(value: Any) -> str:
    """Canonical JSON: UTF-8, keys in code point order, no spaces, dates in ISO form."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def compute_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def compute_content_hash(
    kind: str, kind_version: int, occurred_on: str, site_id: str, participant_id: str, payload: str
) -> str:
    """What two events of one key must share to be the same event. Who told it, when and from which file don't count."""
    return compute_sha256(encode_canonical([kind, kind_version, occurred_on, site_id, participant_id, payload]))


def upcaster(kind: str, from_version: int) -> Callable[[Callable[[Payload], Payload]], Callable[[Payload], Payload]]:
    """Register a pure function from the payload of `from_version` to that of the next version."""

    def register(upcast: Callable[[Payload], Payload]) -> Callable[[Payload], Payload]:
        if _UPCASTERS.setdefault((kind, from_version), upcast) is not upcast:
            raise TypeError(f'kind "{kind}" version {from_version} has an upcaster already.')
        return upcast

    return register


def find_kind(kind: str, kind_version: int) -> type[Event]:
    """The class that reads rows of this kind and version.

    Raises UnknownKind for a kind or version that this code does not know: a ledger is never read in part.
    """
    if kind not in KINDS or kind_version > KINDS[kind].kind_version:
        raise UnknownKind(
            f'The ledger holds kind "{kind}" version {kind_version}, which this version of Summative does not know. '
            "Update Summative and read it again."
        )
    return KINDS[kind]


def upcast_payload(kind: str, kind_version: int, payload: str) -> str:
    """The payload text of an old row as the present version of its kind would have written it."""
    present = find_kind(kind, kind_version).kind_version
    if kind_version == present:
        return payload
    fields: Payload = orjson.loads(payload)
    for version in range(kind_version, present):
        if (kind, version) not in _UPCASTERS:
            raise UnknownKind(f'Kind "{kind}" version {version} has no upcaster to version {version + 1}.')
        fields = _UPCASTERS[kind, version](fields)
    return encode_canonical(fields)


def parse_event(row: Mapping[str, Any]) -> Event:
    """A row of the ledger (its columns by name) back to the event that was appended."""
    payload = orjson.loads(upcast_payload(row["kind"], row["kind_version"], row["payload"]))
    source = None
    if row["source_sha256"]:
        source = Source(sha256=row["source_sha256"], sheet=row["source_sheet"], row=row["source_row"])
    envelope = {name: row[name] for name in ("occurred_on", "requested_by", "site_id", "participant_id")}
    return KINDS[row["kind"]](source=source, **envelope, **payload)


# The protocol and its configuration


class ConfigurationAdopted(Event):
    """From this day the study follows this version of a part of its configuration (`follows`: the one before)."""

    kind = "configuration_adopted"
    key_form = "configuration:{part}:{name}:{occurred_on}:{follows:.12}>{sha256:.12}"

    part: Literal["protocol", "pathway", "fieldwork", "site", "source", "instrument", "templates", "assumptions"]
    name: Code
    sha256: Sha256
    follows: Sha256OrBlank = ""


# People


class ParticipantScreened(ParticipantEvent):
    """A site considered a person for the study. `body_id`: the body that answers for the person, if that is known."""

    kind = "participant_screened"
    kind_version = 2
    key_form = "screened:{participant_id}"

    cohort: Code
    body_id: IdentifierOrBlank = ""


@upcaster("participant_screened", 1)
def _add_body(payload: Payload) -> Payload:
    """Version 1 knew no body."""
    return {**payload, "body_id": ""}


class IdentifiersIssued(SiteEvent):
    """A block of new identifiers was given to a site: the `n` numbers that begin with `first`."""

    kind = "identifiers_issued"
    key_form = "identifiers:{site_id}:{first}"

    first: Ordinal
    n: Ordinal


class ParticipantApproached(ParticipantEvent):
    """A site told a person of the study for the first time."""

    kind = "participant_approached"
    key_form = "approached:{participant_id}"

    cohort: Code
    body_id: IdentifierOrBlank = ""


class ApproachAnswered(ParticipantEvent):
    """What came of an approach. `reason`: why the person declined or is not eligible, as the study lists reasons."""

    kind = "approach_answered"
    key_form = "approach_answered:{participant_id}"

    outcome: Literal["agreed", "declined", "not_eligible", "no_answer"]
    reason: CodeOrBlank = ""


def name_form(form_version: str, renewal: str) -> str:
    """Which of a person's signed forms it is, as keys name it: "1.0", or "1.0:2018-09-10" where it was signed anew."""
    return f"{form_version}:{renewal}" if renewal else form_version


class SignedForm(ParticipantEvent):
    """About a form that a person signed. `renewal`: blank for the consent on this version that was told first; for each
    other one, given anew on the same version, its day of signing as it was told."""

    form_version: Code
    renewal: Annotated[str, StringConstraints(pattern=r"^(\d{4}-\d\d-\d\d)?$")] = ""

    @classmethod
    def derive_key(cls, fields: Mapping[str, Any]) -> str:
        named = name_form(fields["form_version"], fields["renewal"])
        return super().derive_key({**fields, "form_version": named})


class ConsentRecorded(SignedForm):
    """Consent to the named scopes; `occurred_on` is the day of signing. Basis "assumed": a replay's declared guess.

    `route`: who consented (blank: the log does not say). `taken_by`: a role. `capacity`: whether capacity was assessed,
    which a consultee's advice needs. `sixteen_in`: the month of the 16th birthday, "2018-03", of a child. `copy_filed`:
    whether the site has filed the form. `form`: the version of the questionnaire that the person wants.
    """

    kind = "consent_recorded"
    kind_version = 3
    key_form = "consent:{participant_id}:{form_version}"

    scopes: Codes
    basis: Literal["signed", "assumed"]
    route: Literal["self", "consultee", "parent", ""] = ""
    taken_by: CodeOrBlank = ""
    capacity: Literal["assessed", "not_assessed", ""] = ""
    sixteen_in: Annotated[str, StringConstraints(pattern=r"^(\d{4}-(0[1-9]|1[0-2]))?$")] = ""
    copy_filed: Literal["yes", "no", ""] = ""
    form: CodeOrBlank = ""


@upcaster("consent_recorded", 1)
def _add_route(payload: Payload) -> Payload:
    """Version 1 knew the form's version and the scopes alone."""
    blank = dict.fromkeys(("route", "taken_by", "capacity", "sixteen_in", "copy_filed", "form"), "")
    return {**payload, **blank}


@upcaster("consent_recorded", 2)
@upcaster("consent_copy_checked", 1)
def _add_renewal(payload: Payload) -> Payload:
    """These versions knew one consent on each version of the form."""
    return {**payload, "renewal": ""}


class ConsentCopyChecked(SignedForm):
    """Somebody looked for a filed consent form, the n-th time (`check`): it was seen, is missing, or has a fault."""

    kind = "consent_copy_checked"
    kind_version = 2
    key_form = "consent_copy:{participant_id}:{form_version}:{check}"

    check: Ordinal = 1
    finding: Literal["seen", "missing", "faulty"]
    role: CodeOrBlank = ""


class ParticipantAllocated(ParticipantEvent):
    """A person entered an arm."""

    kind = "participant_allocated"
    key_form = "allocated:{participant_id}"

    arm: Code


class DispositionRecorded(ParticipantEvent):
    """How a person left a part of the study (`scope`). Leaving treatment is not leaving the questionnaires."""

    kind = "disposition_recorded"
    key_form = "disposition:{participant_id}:{scope}"

    scope: Code
    reason: Code


# Returns and queries


class ReturnFileProcessed(SiteEvent):
    """A file from a site was dealt with, once per site and content. Counts are of records."""

    kind = "return_file_processed"
    key_form = "return_file:{site_id}:{sha256}"

    sha256: Sha256
    return_id: CodeOrBlank = ""
    posted_on: date | None = None
    sending_number: Count = 0
    correction: Count = 0
    size_bytes: Count
    outcome: Literal["accepted", "accepted_in_part", "nothing_accepted", "quarantined"]
    reason: CodeOrBlank = ""
    n_accepted: Count = 0
    n_repeated: Count = 0
    n_refused: Count = 0
    n_superseded: Count = 0
    n_queries: Count = 0
    responses_sha256: Sha256OrBlank = ""


class ReturnAccepted(ParticipantEvent):
    """Answers of one respondent to one instrument at one wave; `occurred_on` is the day they were collected."""

    kind = "return_accepted"
    key_form = "return:{participant_id}:{respondent}:{wave}:{instrument}:{version}"

    return_id: Code
    respondent: Code
    wave: Code
    instrument: Code
    form: Code
    version: Ordinal
    supersedes_return_id: CodeOrBlank = ""
    n_items: Count
    n_answered: Count
    responses_sha256: Sha256


class ReturnRefused(SiteEvent):
    """A record that was not accepted, and the query that asks the site about it."""

    kind = "return_refused"
    key_form = "refused:{source.sha256}:{source.sheet}:{source.row}"

    source: Source
    return_id: CodeOrBlank = ""
    respondent: CodeOrBlank = ""
    wave: CodeOrBlank = ""
    instrument: CodeOrBlank = ""
    n_items: Count = 0
    rule: Code
    query_id: CodeOrBlank = ""


class QueryRaised(SiteEvent):
    """A question to a site about one value. `subject` names the record or place; `episode` counts the values of it that
    were asked about. `fingerprint`: of the value, sealed with the file that told it (blank: of no cell in particular).
    `export_line`: of the export of another tool from which the row came, 0 where it came from no export.
    """

    kind = "query_raised"
    kind_version = 3
    key_form = "query:{subject}:{rule}:{item}:{episode}"

    query_id: Code
    rule: Code
    severity: Literal["hard", "soft"]
    subject: Reference
    episode: Ordinal = 1
    respondent: CodeOrBlank = ""
    wave: CodeOrBlank = ""
    instrument: CodeOrBlank = ""
    item: CodeOrBlank = ""
    sheet: SheetOrBlank = ""
    column_name: CodeOrBlank = ""
    row: Count = 0
    return_id: CodeOrBlank = ""
    fingerprint: Fingerprint = ""
    export_line: Count = 0


class AnswerCorrected(ParticipantEvent):
    """The study corrected an answer of an accepted record, on a site's word; `version`: of the record that holds it so.
    The values are fingerprints, sealed with the file of that version's answers."""

    kind = "answer_corrected"
    key_form = "answer_corrected:{participant_id}:{respondent}:{wave}:{instrument}:{version}"

    respondent: Code
    wave: Code
    instrument: Code
    item: Code
    version: Ordinal
    reason: CorrectionReason
    role: CodeOrBlank = ""
    reference: CodeOrBlank = ""
    old_fingerprint: Fingerprint
    new_fingerprint: Fingerprint


@upcaster("query_raised", 1)
def _add_fingerprint(payload: Payload) -> Payload:
    """Version 1 did not say which value it was about."""
    return {**payload, "fingerprint": ""}


@upcaster("query_raised", 2)
def _add_export_line(payload: Payload) -> Payload:
    """Version 2 did not say from which line of an export a row came."""
    return {**payload, "export_line": 0}


class QueryClosed(SiteEvent):
    """A question was settled: the data were mended, the site confirms them, nobody need answer, or the value that it is
    about was changed and is asked about anew. It is opened again by voiding this, as "reopened"."""

    kind = "query_closed"
    key_form = "query_closed:{query_id}"

    query_id: Code
    reason: QueryReason


class QueryAnswered(SiteEvent):
    """A site's answer to a query, the n-th. It settles nothing by itself: the data do, or whoever manages them."""

    kind = "query_answered"
    key_form = "query_answered:{query_id}:{answer_number}"

    query_id: Code
    answer_number: Ordinal = 1
    answer: Literal["corrected", "confirmed", "cannot_say"]


class ActivityReported(SiteEvent):
    """A count of a site's work for a month, as reported to the evaluation or to NHS England; `version` counts up."""

    kind = "activity_reported"
    key_form = "activity:{site_id}:{figure}:{month}:{reported_to}:{version}"

    figure: Code
    month: Annotated[str, StringConstraints(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]
    reported_to: Literal["evaluation", "nhs_england"]
    version: Ordinal = 1
    count: Count


class FileHeld(SiteEvent):
    """A file was held unread, since something in it may tell who a person is. `sha256`: of the file as it came.

    `kept`: an encrypted copy waits for a person to look at it, or nothing was kept. `identifiers`: the kinds found.
    `places`: where, and never what ("sheet_4 B7 cell name"), the first of `n_places`. `query_id` asks the site.
    """

    kind = "file_held"
    key_form = "file_held:{site_id}:{sha256}"

    held_id: Code
    sha256: Sha256
    size_bytes: Count
    kept: Literal["encrypted", "nothing"]
    return_id: CodeOrBlank = ""
    identifiers: Codes
    places: Codes
    n_places: Ordinal
    query_id: CodeOrBlank = ""


class HeldFileDecided(SiteEvent):
    """A person, in a named role, looked at a held file: it is received after all, or it is erased."""

    kind = "held_file_decided"
    key_form = "held_file:{held_id}"

    held_id: Code
    decision: Literal["released", "erased"]
    reason: Literal["not_identifying", "allowed_here", "identifying", "sent_in_error"]
    role: Code
    reference: CodeOrBlank = ""


class ErasureDecided(ParticipantEvent):
    """A named role decided that what a person gave is erased: all of it, or what was collected from `given_from` on.

    From then on no dataset holds it. The files follow, each with a tombstone of its own. `decision` counts decisions
    about one person.
    """

    kind = "erasure_decided"
    key_form = "erasure:{participant_id}:{decision}"

    decision: Ordinal = 1
    given_from: date | None = None
    role: Code
    reference: Code


class DataErased(Event):
    """Tombstone: a file that held answers was erased, for a person or because it held what it must not.

    `replaced_by`: the file that holds what others still need of it, "" where nothing is left. `reference`: of the
    decision, which a named `role` took.
    """

    kind = "data_erased"
    key_form = "erased:{sha256}"

    sha256: Sha256
    replaced_by: Sha256OrBlank = ""
    reason: Literal["withdrawal_of_data", "identifier_leak"]
    role: Code
    reference: Code
    n_records: Count = 0


# Packs
#
# What goes to a site in one sending is a pack: claimed in one append together with the returns that it asks for, then
# put into the site's outbox, then recorded as delivered. A claim that must not go out any more is voided, with the
# returns that it would have released.


class PackClaimed(SiteEvent):
    """A pack was made up and is about to be put into the site's outbox. `sha256`: the workbook, as kept;
    `letters_sha256`: the letters to participants that go with it."""

    kind = "pack_claimed"
    key_form = "pack:{pack_id}"

    pack_id: Code
    purpose: Literal["wave", "blank", "replacement"]
    waves: Codes = ()
    n_returns: Count = 0
    n_queries: Count = 0
    first_number: Count = 0
    n_numbers: Count = 0
    sha256: Sha256
    letters_sha256: Sha256OrBlank = ""
    file_name: Code
    protocol_version: Code


class ReturnReleased(ParticipantEvent):
    """A questionnaire was sent to a site, in a pack; `occurred_on` is the day. `copy_number`: from 2 on, a replacement.

    The dates are those that the pack told: what moves them later does not change what was sent.
    """

    kind = "return_released"
    key_form = "released:{participant_id}:{respondent}:{wave}:{copy_number}"

    pack_id: Code
    respondent: Code
    wave: Code
    copy_number: Ordinal = 1
    form: Code
    instruments: Codes
    opens_on: date
    due_on: date
    late_until: date


class PackDelivered(SiteEvent):
    """A pack lies in the site's outbox."""

    kind = "pack_delivered"
    key_form = "pack_delivered:{pack_id}"

    pack_id: Code


class HoldLifted(ParticipantEvent):
    """A named role lifted one hold on one wave for one participant, with the reference of the decision."""

    kind = "hold_lifted"
    key_form = "hold_lifted:{participant_id}:{wave}:{hold}"

    wave: Code
    hold: Code
    role: Code
    reason: Code
    reference: Code


# Messages
#
# A message is queued with everything that it chases, claimed, handed to the mail server and recorded as sent: each a
# row of its own. A message that was being handed over when the program died is uncertain: a person looks and says what
# became of it, and nothing is ever sent again by itself. What must not go out any more is voided, with the steps that
# it would have taken. Addresses stand in no row; `address_code` tells two apart.


class MessageQueued(Event):
    """A message is to go out on `occurred_on`. `content_sha256`: its wording, as kept. `person_id`: of the contacts."""

    kind = "message_queued"
    key_form = "message:{message_id}"

    message_id: Code
    category: Literal["digest", "stop_notice", "escalation", "pack_notice", "alert"]
    person_id: IdentifierOrBlank = ""
    role: Code
    channel: Literal["email"]
    template: Code
    content_sha256: Sha256
    address_code: Code
    n_obligations: Count = 0


class ObligationChased(Event):
    """A step of a ladder was taken, for one obligation: in a message that was queued, or by a call that was logged.

    `chase`: what makes it this step of this obligation. `step` is the id of the chaser in the study's configuration.
    """

    kind = "obligation_chased"
    key_form = "{chase}"

    chase: Reference
    about: Code
    step: Code
    message_id: CodeOrBlank = ""
    channel: Literal["email", "telephone", "outbox"]
    due_on: date


class MessageEvent(Event):
    """A later step of a message; `attempt` counts the tries to send it."""

    message_id: Code
    attempt: Ordinal = 1


class MessageClaimed(MessageEvent):
    """A run took the message to send it, having made sure that nothing newer forbids it."""

    kind = "message_claimed"
    key_form = "message_claimed:{message_id}:{attempt}"


class MessageTransmitting(MessageEvent):
    """The message is being handed over from now on: to the mail server, or written to a folder of files."""

    kind = "message_transmitting"
    key_form = "message_transmitting:{message_id}:{attempt}"

    way: Literal["smtp", "folder"]


class MessageSent(MessageEvent):
    """The mail server took the message."""

    kind = "message_sent"
    key_form = "message_sent:{message_id}:{attempt}"


class MessageFailed(MessageEvent):
    """The mail server did not take the message: for good, or for now. `status`: its code, such as 550 or 5.1.1."""

    kind = "message_failed"
    key_form = "message_failed:{message_id}:{attempt}"

    persistence: Literal["permanent", "temporary"]
    status: CodeOrBlank = ""
    address_code: Code


class MessageResolved(MessageEvent):
    """A person looked for an uncertain message and says whether it went out."""

    kind = "message_resolved"
    key_form = "message_resolved:{message_id}:{attempt}"

    outcome: Literal["was_sent", "was_not_sent"]


class MessageBounced(MessageEvent):
    """A message came back: for good (a wrong address), or it was delayed. `status`: the code of the report."""

    kind = "message_bounced"
    key_form = "message_bounced:{message_id}:{persistence}:{status}"

    persistence: Literal["permanent", "temporary"]
    status: CodeOrBlank = ""
    address_code: Code


class ReplyReceived(Event):
    """Somebody answered a message by mail. What they wrote stays in the mailbox."""

    kind = "reply_received"
    key_form = "reply:{reply_code}"

    reply_code: Code
    message_id: CodeOrBlank = ""
    person_id: IdentifierOrBlank = ""
    is_automatic: bool = False


class ReplyHandled(Event):
    """A person has dealt with a reply."""

    kind = "reply_handled"
    key_form = "reply_handled:{reply_code}"

    reply_code: Code


class CallLogged(SiteEvent):
    """Somebody telephoned a site, or was telephoned; the n-th call of that day. `about`: what it was about."""

    kind = "call_logged"
    key_form = "call:{site_id}:{occurred_on}:{call}"

    call: Ordinal = 1
    person_id: IdentifierOrBlank = ""
    direction: Literal["out", "in"]
    about: Codes
    outcome: Literal["reached", "promised", "left_message", "not_reached"]
    promised_on: date | None = None


class ChasingPaused(Event):
    """Chasing rests: of a site (blank: the study), of a participant (blank: all), of what it is `about` (empty: all).

    Until the last day of it, `until`, or until it is resumed. `pause` names it.
    """

    kind = "chasing_paused"
    key_form = "chasing_paused:{pause}"

    pause: Code
    about: Codes = ()
    until: date | None = None
    reason: Code


class ChasingResumed(Event):
    """A pause is over from this day on."""

    kind = "chasing_resumed"
    key_form = "chasing_resumed:{pause}"

    pause: Code


STEPS_OF_SENDING = frozenset(
    kind.kind
    for kind in (
        PackDelivered, MessageQueued, ObligationChased, MessageClaimed, MessageTransmitting, MessageSent, MessageFailed,
    )
)  # fmt: skip
"""Kinds that our own sending leaves, and that change nothing about who may be written to. A run that has folded the
ledger passes over them when it looks for news about a site or a person."""


# The study as a whole


class StudyDayCompleted(Event):
    """The daily round of this day came to its end."""

    kind = "study_day_completed"
    key_form = "study_day:{occurred_on}"


class ReleaseFrozen(Event):
    """A dataset was frozen: the study as of a date, as known at a moment."""

    kind = "release_frozen"
    key_form = "release:{release}"

    release: Code
    as_of: date
    known_at: Moment
    manifest_sha256: Sha256


class ReleaseWaived(Event):
    """A named role decided that datasets as of days up to `until` may be released in spite of something that stands in
    the way: open hard queries (`subject`: a site, a query or "all"), an approval that lapsed, or a column that looks as
    if it told who somebody is. It concerns what stood in the way when it was recorded: `n_concerned` of them."""

    kind = "release_waived"
    key_form = "release_waived:{waived}:{subject}:{until}:{number}"

    waived: Literal["hard_queries", "lapsed_approval", "identifiers"]
    subject: Reference
    until: date
    number: Ordinal = 1
    n_concerned: Count
    reason: Literal["interim", "nothing_more_expected", "not_analysed", "sponsor_decided", "not_identifying"]
    role: Code
    reference: CodeOrBlank = ""


class ArmsUnmasked(Event):
    """A named role decided to see which arms the letters of blinded editions stand for, and was shown. `sealed`: which
    drawing of letters; `release`: of whose edition. `number` counts the decisions about one drawing."""

    kind = "arms_unmasked"
    key_form = "arms_unmasked:{sealed}:{number}"

    sealed: Code
    number: Ordinal = 1
    release: Code
    reason: Literal["committee_asked", "safety", "regulator_asked", "analysis_done"]
    role: Code
    reference: CodeOrBlank = ""


# Approvals
#
# Their keys hold no date: two people who tell the same step of one approval with different dates, or one a grant and
# the other a refusal, meet as a conflict. `site_id` is blank where the approval is the study's, `body_id` where it is a
# site's, `person_id` (a code, never a name) unless it concerns one person. `modification` is blank for the study as it
# was first approved. `attempt` counts up when it is sought anew.

_APPROVAL_KEY = "approval:{approval}:{site_id}:{body_id}:{person_id}:{modification}:{attempt}"


class ApprovalEvent(Event):
    """A step of one approval. `letter` is the reference of the letter, `letter_sha256` the file that was kept of it."""

    approval: Code
    body_id: IdentifierOrBlank = ""
    person_id: IdentifierOrBlank = ""
    modification: CodeOrBlank = ""
    attempt: Ordinal = 1
    letter: CodeOrBlank = ""
    letter_sha256: Sha256OrBlank = ""


class ApprovalSubmitted(ApprovalEvent):
    """An application was sent in for the first time."""

    kind = "approval_submitted"
    key_form = _APPROVAL_KEY + ":submitted"

    route: Code


class ApprovalResubmitted(ApprovalEvent):
    """An application was sent in again, after a refusal, a withdrawal or an expiry; `attempt` is 2 or more."""

    kind = "approval_resubmitted"
    key_form = _APPROVAL_KEY + ":submitted"

    attempt: Annotated[int, Field(ge=2, le=2**53 - 1)]
    route: Code


class ApprovalFoundValid(ApprovalEvent):
    """The authority found the application complete; `occurred_on` is the day on which it became valid."""

    kind = "approval_found_valid"
    key_form = _APPROVAL_KEY + ":valid"


class ApprovalInformationRequested(ApprovalEvent):
    """The authority asked for further information, for the n-th time (`request`)."""

    kind = "approval_information_requested"
    key_form = _APPROVAL_KEY + ":requested:{request}"

    request: Ordinal = 1


class ApprovalInformationAnswered(ApprovalEvent):
    """The n-th request for information was answered in full."""

    kind = "approval_information_answered"
    key_form = _APPROVAL_KEY + ":answered:{request}"

    request: Ordinal = 1


class ApprovalGranted(ApprovalEvent):
    """Granted; in force from `occurred_on`, or from `in_force_from`, to the last day `expires_on` (None: no end)."""

    kind = "approval_granted"
    key_form = _APPROVAL_KEY + ":decided"

    in_force_from: date | None = None
    expires_on: date | None = None


class ApprovalGrantedWithConditions(ApprovalEvent):
    """Granted, but not in force until every condition (a code each) is met."""

    kind = "approval_granted_with_conditions"
    key_form = _APPROVAL_KEY + ":decided"

    conditions: Annotated[Codes, Field(min_length=1)]
    in_force_from: date | None = None
    expires_on: date | None = None


class ApprovalConditionMet(ApprovalEvent):
    """A condition of the grant was met."""

    kind = "approval_condition_met"
    key_form = _APPROVAL_KEY + ":condition_met:{condition}"

    condition: Code


class ApprovalRefused(ApprovalEvent):
    """The authority refused."""

    kind = "approval_refused"
    key_form = _APPROVAL_KEY + ":decided"


class ApprovalWithdrawn(ApprovalEvent):
    """Withdrawn, before a decision or after; from this day it is not in force."""

    kind = "approval_withdrawn"
    key_form = _APPROVAL_KEY + ":withdrawn"

    withdrawn_by: Literal["applicant", "authority"]


class ApprovalRenewed(ApprovalEvent):
    """The n-th renewal of a grant; from its start (`occurred_on` or `in_force_from`) its own last day counts."""

    kind = "approval_renewed"
    key_form = _APPROVAL_KEY + ":renewed:{renewal}"

    renewal: Ordinal = 1
    in_force_from: date | None = None
    expires_on: date | None = None


# Modifications and documents


class ModificationIntroduced(Event):
    """A change of the approved study. It affects every body that has a say by its category, or `body_ids` alone."""

    kind = "modification_introduced"
    key_form = "modification:{modification}"

    modification: Code
    category: Literal["A", "B", "C"]
    is_substantial: bool
    body_ids: Codes = ()


class ModificationSupplied(Event):
    """The sponsor supplied a modification to every body that it affects, or, with `site_id`, to those of one site."""

    kind = "modification_supplied"
    key_form = "modification_supplied:{modification}:{site_id}"

    modification: Code
    letter: CodeOrBlank = ""


class DocumentVersionIssued(Event):
    """A version of a document. What puts it in force is the approval that it was sent in with, or a modification."""

    kind = "document_version_issued"
    key_form = "document:{document}:{version}"

    document: Code
    version: Code
    approval: CodeOrBlank = ""
    modification: CodeOrBlank = ""
    file_sha256: Sha256OrBlank = ""


# Duties and forecasts


class DutyDone(Event):
    """A duty of the study to others was done for the time when it fell due on `due_on`."""

    kind = "duty_done"
    key_form = "duty:{duty}:{site_id}:{due_on}"

    duty: Code
    due_on: date
    letter: CodeOrBlank = ""
    letter_sha256: Sha256OrBlank = ""


class ForecastRecorded(SiteEvent):
    """What was expected on `occurred_on` of a site's opening for an activity.

    The days by which it opens in 10, 50 and 80 of 100 draws; None where they lie too far off, or it can't open.
    """

    kind = "forecast_recorded"
    key_form = "forecast:{activity}:{site_id}:{occurred_on}"

    activity: Code
    model: Code
    n_draws: Count
    is_open: bool
    p10_on: date | None = None
    median_on: date | None = None
    p80_on: date | None = None


# Incidents


class IncidentOpened(Event):
    """Something that may be a breach. `subject` says of what; `found_on` when it was noticed; a site may be blank.
    `n_records`: how many records, or entries of a log, it concerned when it was opened."""

    kind = "incident_opened"
    key_form = "incident:{category}:{subject}:{activity}:{body_id}:{occurred_on}"

    incident_id: Code
    category: Literal["collected_while_not_open", "protocol_deviation", "consent_breach", "identifier_leak", "other"]
    subject: Reference
    activity: CodeOrBlank = ""
    body_id: IdentifierOrBlank = ""
    n_records: Count = 0
    found_on: date
    assess_by: date | None = None


class IncidentEvent(Event):
    """A later step of an incident."""

    incident_id: Code


class IncidentAssigned(IncidentEvent):
    """Someone, named by role, answers for it until `due_on`; the n-th time."""

    kind = "incident_assigned"
    key_form = "incident_assigned:{incident_id}:{assignment}"

    assignment: Ordinal = 1
    owner: Code
    due_on: date | None = None


class IncidentAssessed(IncidentEvent):
    """The sponsor's assessment, the n-th; `reference` is the sponsor's own."""

    kind = "incident_assessed"
    key_form = "incident_assessed:{incident_id}:{assessment}"

    assessment: Ordinal = 1
    outcome: Literal["no_breach", "breach", "serious_breach"]
    role: Code
    reference: Code


class IncidentActionPlanned(IncidentEvent):
    """A corrective action was agreed. Its wording is in the sponsor's papers; `action` is its code there."""

    kind = "incident_action_planned"
    key_form = "incident_action:{incident_id}:{action}"

    action: Code
    owner: CodeOrBlank = ""
    due_on: date | None = None


class IncidentActionDone(IncidentEvent):
    """A corrective action was carried out."""

    kind = "incident_action_done"
    key_form = "incident_action_done:{incident_id}:{action}"

    action: Code


class IncidentDecided(IncidentEvent):
    """A named role decided whether the data that an incident holds back are used; with the sponsor's reference."""

    kind = "incident_decided"
    key_form = "incident_decided:{incident_id}"

    decision: Literal["admitted", "excluded"]
    role: Code
    reference: Code


class IncidentClosed(IncidentEvent):
    """Nothing more is to be done about it."""

    kind = "incident_closed"
    key_form = "incident_closed:{incident_id}"


# Safeguarding


class SafeguardingRaised(SiteEvent):
    """An answer was read of which a clinician is told at once. The event says where to look, and no answer.

    `subject` is the record, or, where nobody can say whose it is, its place in the sending; `trigger` is the id that
    the definition, or the study, gave to the answers that raise it.
    """

    kind = "safeguarding_raised"
    key_form = "safeguarding:{subject}:{trigger}"

    alert_id: Code
    subject: Reference
    trigger: Code
    instrument: Code
    respondent: CodeOrBlank = ""
    wave: CodeOrBlank = ""
    return_id: CodeOrBlank = ""


class SafeguardingAcknowledged(SiteEvent):
    """Somebody, named by role, has taken a safeguarding alert over. What was done stands in the clinical records."""

    kind = "safeguarding_acknowledged"
    key_form = "safeguarding_acknowledged:{alert_id}"

    alert_id: Code
    role: Code
    way: Literal["email", "telephone", "in_person"]


class ReturnQuarantined(ParticipantEvent):
    """Answers collected while the gate said no: kept, and used only if the decision on the incident admits them."""

    kind = "return_quarantined"
    key_form = "quarantined:{source.sha256}:{source.sheet}:{source.row}"

    source: Source
    incident_id: Code
    activity: Code
    return_id: Code
    respondent: Code
    wave: Code
    instrument: Code
    form: Code
    n_items: Count
    n_answered: Count
    responses_sha256: Sha256


# The ledger about itself


class Voided(Event):
    """The row with hash `voids` was a mistake and counts no more. Its key may be entered again."""

    kind = "voided"
    key_form = "void:{voids}"

    voids: Sha256
    reason: VoidReason


class ConflictRefused(Event):
    """Someone told otherwise what the ledger holds already (`standing_hash`); the standing row was kept."""

    kind = "conflict_refused"
    key_form = "conflict:{standing_hash}:{refused_content_hash}"

    refused_key: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,1000}$")]
    refused_kind: Code
    refused_content_hash: Sha256
    standing_hash: Sha256
