"""What a site's return is worth: which records are accepted, repeated, superseded or refused, and what is asked back.

Everything wrong with a file is found in one pass, so that the site is asked once. One fault never harms the rest of
the file: a hard rule stops the row it concerns, and only a file that cannot be identified at all is quarantined.

A record is one respondent's answers to one instrument at one wave. A **sending** (site, posting date, number) may be
corrected: sent again with a higher correction number, what differs supersedes what came before. The same file again
changes nothing, whatever its name. Answers that differ from accepted ones are otherwise a conflict, asked about and not
accepted. A correction that comes after a higher one adds nothing: its number counts, not its arrival.

What a file tells anew is held against the gate. A record collected while that was not allowed is quarantined: kept
apart, with no query, since the site can mend nothing. Entries of the logs are facts that must be known and are always
taken. Either way an incident is opened. The newest telling of a record is what counts: where a correction of an
accepted record is quarantined, what was accepted is voided, and where it may be accepted, nothing is held any longer.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute

from study.consent import Signing
from study.events import (
    ActivityReported,
    ApproachAnswered,
    ConsentRecorded,
    DispositionRecorded,
    Event,
    FileHeld,
    HeldFileDecided,
    IdentifiersIssued,
    IncidentDecided,
    IncidentOpened,
    ParticipantEvent,
    ParticipantScreened,
    QueryAnswered,
    QueryClosed,
    QueryRaised,
    QueryReason,
    ReturnAccepted,
    ReturnFileProcessed,
    ReturnQuarantined,
    ReturnRefused,
    ReturnReleased,
    Source,
    Voided,
    is_code,
)
from study.identifier_scan import Place
from study.identifiers import has_sound_check, is_issued
from study.incidents import (
    COLLECTED,
    RECORD_KEY,
    Breach,
    Question,
    SiteGate,
    compute_assess_by,
    derive_incident_ids,
    find_activity,
    find_logged,
)
from study.instruments import Instrument
from study.logs import (
    LOGGED_KINDS,
    Entry,
    Log,
    LogEntry,
    Person,
    Posted,
    Telling,
    Told,
    derive_choices,
    derive_telling_event,
    drop_unfilled_rows,
    find_month_fault,
    find_renewals,
    list_logs,
    parse_codes,
)
from study.pack_layout import ABOUT, ACTIVITY, ANSWER_WORDS, QUERIES, Problem, Reading, ReadSheet, parse_text
from study.protocol import Study
from study.queries import (
    FILE_RULES,
    IDENTIFIERS_FOUND,
    IDENTITY_RULES,
    NOTHING_FILLED_IN,
    ROW_RULES,
    SHEET_RULES,
    WHOLE_ROW_RULES,
    AskedQuery,
    Settled,
    Severity,
    compute_fingerprint,
    derive_query_ids,
    make_comparison,
    settle_fault,
)
from study.return_checks import Beside, Finding, find_earlier, find_return_faults, find_settled
from study.state import Events
from study.validation import REASON_CODES, REASON_NAMES, check_records

pc: Any = pyarrow.compute  # its stubs do not know chunked arrays in every place

RESPONSE_COLUMNS = [*RECORD_KEY, "form", "item", "response", "missing_reason", "collected_on", "return_id"]

Outcome = Literal["accepted", "accepted_in_part", "nothing_accepted", "quarantined"]
QueryKey = tuple[str, str, str]
"""What makes a second query the same one: subject, rule, item."""


class RecordKey(NamedTuple):
    """Which record it is. A part that a file gave wrongly is "": nothing from outside goes further unknown."""

    participant_id: str
    respondent: str
    wave: str
    instrument: str


@dataclass(frozen=True)
class FileFacts:
    """What is known of a file before it is read."""

    sha256: str
    size_bytes: int
    site_id: str


class Sending(NamedTuple):
    """Which sending a file says it is."""

    return_id: str
    posted_on: date
    sending_number: int
    correction: int

    @property
    def posted(self) -> Posted:
        return self.posted_on, self.sending_number, self.correction


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a file: the rule, where, what is expected there; about whom, if that is known."""

    rule: str
    severity: Severity
    sheet: str = ""
    row: int = 0
    column: str = ""
    cell: str = ""
    expected: str = ""
    participant_id: str = ""
    respondent: str = ""
    wave: str = ""
    instrument: str = ""
    item: str = ""


# --- What stands ------------------------------------------------------------------------------------------------------


class StandingRecord(NamedTuple):
    """A record's current version (0: it is held). `return_id`, `correction`: of the file that brought it; `hashes`: of
    the rows that accepted it, all versions; `incident_id`: of what is held."""

    version: int
    form: str
    collected_on: date
    return_id: str
    correction: int
    responses_sha256: str
    hashes: tuple[str, ...] = ()
    incident_id: str = ""


@dataclass(frozen=True)
class Standing:
    """What the study holds of one site already, as a return meets it.

    people: by participant_id. log: by the event's key. records: current versions, those held among them. holding: the
    question of each incident that may hold more: its answers are not decided on. asked: the queries that the site had,
    oldest first, by what they ask. episodes: the last of each. corrections: the highest one received of each sending,
    by return_id, quarantined files left out. homes: site_id of every participant of the study. query_ids: whether it is
    open, of every query that the site ever had. figures: the newest count by figure, month and whom it was reported to.
    answers: the newest one by query. blocks: the identifiers issued to the site, first number to how many. sent_forms:
    of what went out, by participant_id, respondent and wave.
    """

    people: Mapping[str, Person] = field(default_factory=dict)
    log: Mapping[str, LogEntry] = field(default_factory=dict)
    records: Mapping[RecordKey, StandingRecord] = field(default_factory=dict)
    holding: Mapping[str, Question] = field(default_factory=dict)
    asked: Mapping[QueryKey, tuple[AskedQuery, ...]] = field(default_factory=dict)
    episodes: Mapping[QueryKey, int] = field(default_factory=dict)
    corrections: Mapping[str, int] = field(default_factory=dict)
    homes: Mapping[str, str] = field(default_factory=dict)
    query_ids: Mapping[str, bool] = field(default_factory=dict)
    figures: Mapping[tuple[str, ...], Told] = field(default_factory=dict)
    answers: Mapping[tuple[str, ...], Told] = field(default_factory=dict)
    blocks: Mapping[int, int] = field(default_factory=dict)
    sent_forms: Mapping[tuple[str, str, str], str] = field(default_factory=dict)

    @property
    def open_queries(self) -> dict[QueryKey, AskedQuery]:
        """The newest open one of each."""
        return {key: query for key, several in self.asked.items() for query in several if not query.reason}


def find_allowed_files(events: Events, site_id: str) -> frozenset[str]:
    """Files (SHA-256) of a site that a person released after looking at what they were held for."""
    held, decided = events.frame(FileHeld), events.frame(HeldFileDecided)
    released = decided.loc[decided["decision"] == "released", "held_id"]
    return frozenset(held.loc[(held["site_id"] == site_id) & held["held_id"].isin(released), "sha256"])


def derive_homes(events: Events) -> dict[str, str]:
    """site_id of every participant who was screened."""
    table = events.table(ParticipantScreened)
    return dict(zip(*(_list_values(table[name]) for name in ("participant_id", "site_id")), strict=True))


def derive_standing(events: Events, site_id: str, homes: Mapping[str, str]) -> Standing:
    """What stands of one site (`homes`: of all of them, as `derive_homes` gives them)."""

    def rows(kind: type[Event], *columns: str) -> Iterator[tuple[Any, ...]]:
        table = events.table_of_site(kind, site_id)
        return zip(*(_list_values(table[name]) for name in columns), strict=True)

    sendings: dict[str, tuple[str, int, Posted | None]] = {}
    corrections: dict[str, int] = {}
    columns: tuple[str, ...] = ("sha256", "return_id", "correction", "outcome", "posted_on", "sending_number")
    for sha256, return_id, correction, outcome, posted_on, number in rows(ReturnFileProcessed, *columns):
        sendings[sha256] = (return_id, correction, (posted_on, number, correction) if posted_on else None)
        if outcome != "quarantined":
            corrections[return_id] = max(correction, corrections.get(return_id, 0))

    people: dict[str, Person] = {}
    log: dict[str, LogEntry] = {}
    nowhere: tuple[str, int, Posted | None] = ("", 0, None)
    for kind in LOGGED_KINDS:
        columns = ("key", "participant_id", "hash", "source_sha256", "occurred_on", *kind.payload_types)
        for key, participant_id, entry_hash, sha256, day, *payload in rows(kind, *columns):
            log[key] = LogEntry(entry_hash, (day, *payload), *sendings.get(sha256, nowhere))
            told = dict(zip(kind.payload_types, payload, strict=True))
            people[participant_id] = people.get(participant_id, Person()).note(kind, key, day, told)

    records: dict[RecordKey, StandingRecord] = {}
    columns = (*RECORD_KEY, "form", "occurred_on", "return_id", "source_sha256", "responses_sha256")
    for *names, form, day, return_id, sha256, answers, incident_id in rows(ReturnQuarantined, *columns, "incident_id"):
        correction = sendings.get(sha256, nowhere)[1]
        records[RecordKey(*names)] = StandingRecord(
            0, form, day, return_id, correction, answers, incident_id=incident_id
        )
    columns = (*columns, "version", "hash")
    for *names, form, day, return_id, sha256, answers, version, row in rows(ReturnAccepted, *columns):
        record = RecordKey(*names)
        before = records.get(record)
        hashes = (*(before.hashes if before else ()), row)
        if before is None or before.version < version:
            correction = sendings.get(sha256, nowhere)[1]
            before = StandingRecord(version, form, day, return_id, correction, answers)
        records[record] = before._replace(hashes=hashes)
    decided = {incident_id for (incident_id,) in rows(IncidentDecided, "incident_id")}
    opened = rows(IncidentOpened, "incident_id", "activity", "body_id")
    holding = {incident_id: Question(*question) for incident_id, *question in opened if incident_id not in decided}

    asked: dict[QueryKey, tuple[AskedQuery, ...]] = {}
    episodes: dict[QueryKey, int] = {}
    query_ids: dict[str, bool] = {}
    reasons = dict(rows(QueryClosed, "query_id", "reason"))
    standing_rows: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for query_id, row_hash in chain(*(rows(step, "query_id", "hash") for step in (QueryClosed, QueryAnswered))):
        standing_rows[query_id] += (row_hash,)
    columns = ("query_id", "return_id", "sheet", "source_row", "column_name", "fingerprint", "source_sha256")
    for subject, rule, item, episode, *place in rows(QueryRaised, "subject", "rule", "item", "episode", *columns):
        question, query = (subject, rule, item), AskedQuery(*place)
        query = query._replace(reason=reasons.get(query.query_id, ""), standing=standing_rows.get(query.query_id, ()))
        query_ids[query.query_id] = not query.reason
        episodes[question] = max(episode, episodes.get(question, 0))
        asked[question] = (*asked.get(question, ()), query)
    figures: dict[tuple[str, ...], Told] = {}
    columns = ("figure", "month", "reported_to", "version", "count", "source_sha256")
    for *place, version, count, sha256 in rows(ActivityReported, *columns):
        told_now = Told(version, count, sendings.get(sha256, nowhere)[2])
        figures[tuple(place)] = max(figures.get(tuple(place), told_now), told_now, key=lambda entry: entry.version)
    answered: dict[tuple[str, ...], Told] = {}
    for query_id, version, answer, sha256 in rows(
        QueryAnswered, "query_id", "answer_number", "answer", "source_sha256"
    ):
        told_now = Told(version, answer, sendings.get(sha256, nowhere)[2])
        answered[query_id,] = max(answered.get((query_id,), told_now), told_now, key=lambda entry: entry.version)
    blocks = dict(rows(IdentifiersIssued, "first", "n"))
    sent = rows(ReturnReleased, "participant_id", "respondent", "wave", "form")
    sent_forms = {(name, respondent, wave): form for name, respondent, wave, form in sent}
    return Standing(
        people, log, records, holding, asked, episodes, corrections, homes, query_ids, figures, answered, blocks,
        sent_forms,
    )  # fmt: skip


def find_processed_file(events: Events, site_id: str, sha256: str) -> dict[str, Any] | None:
    """What became of this very content when this site sent it before: the fields of ReturnFileProcessed, and
    n_quarantined, the records of it that were held."""
    table = events.table(ReturnFileProcessed)
    found = table.filter(pc.and_(pc.equal(table["sha256"], sha256), pc.equal(table["site_id"], site_id)))
    if not len(found):
        return None
    names = ["occurred_on", *ReturnFileProcessed.payload_types]
    n_quarantined = pc.sum(pc.equal(events.table(ReturnQuarantined)["source_sha256"], sha256)).as_py() or 0
    return {name: _list_values(found[name])[0] for name in names} | {"n_quarantined": n_quarantined}


def _list_values(column: pa.ChunkedArray[Any]) -> list[Any]:
    """Plain values: days as dates, several codes as a tuple."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.date32())
    values: list[Any] = column.to_pylist()
    return [tuple(codes) for codes in values] if pa.types.is_list(column.type) else values


# --- The decision -----------------------------------------------------------------------------------------------------


@dataclass
class Record:
    """One record as a file tells it, and what became of it: accepted, superseding, repeated, refused or quarantined.

    Answers stand in the order of the names of their `items`: `responses` (NaN where missing) and `reasons` (a value of
    REASON_CODES each). `n_given`: item cells that the site had filled in, whatever became of them. Of a quarantined
    one: its `question` to the gate, the incident that it goes on with (or ''), the accepted rows that it `voids`.
    """

    key: RecordKey
    row: int
    form: str
    collected_on: date | None
    items: npt.NDArray[np.object_]
    responses: npt.NDArray[np.float64]
    reasons: npt.NDArray[np.int8]
    n_given: int = 0
    outcome: str = "accepted"
    version: int = 1
    supersedes_return_id: str = ""
    question: Question | None = None
    incident_id: str = ""
    voids: tuple[str, ...] = ()

    @property
    def is_taken(self) -> bool:
        return self.outcome in ("accepted", "superseding")

    def is_same_as(self, other: Record) -> bool:
        """Whether both tell the same date, form and answers."""
        return (
            (self.form, self.collected_on) == (other.form, other.collected_on)
            and np.array_equal(self.items, other.items)
            and np.array_equal(self.responses, other.responses, equal_nan=True)
            and np.array_equal(self.reasons, other.reasons)
        )


@dataclass
class Decision:
    """What follows from a return. Its queries carry no number yet: `number_queries` gives them one, under the lock.

    `stopped_by`: for each refused record (instrument and row) the place in `faults` of what stopped it. `told_soundly`:
    subjects of queries about which the file says nothing wrong. `rows_read`: the rows of each sheet that the file has.
    `is_overtaken`: a higher correction of the sending was received before. `breaches`: what was done on days on which
    the gate says no; `assess_by`: the day by which an incident of today must be assessed. `pack_id`: of the pack that
    the file says it is. `values`: what stands where each fault is, as text; never recorded nor told. `settled`: what
    follows where a fault meets what was asked before, as `settle_queries` gives it. `export_lines`: as in `Reading`.
    `mended_elsewhere`: questions from other sendings that this one answers.
    """

    facts: FileFacts
    sending: Sending | None
    quarantine_rule: str = ""
    faults: list[Fault] = field(default_factory=list)
    log_events: list[Event] = field(default_factory=list)
    n_log_repeated: int = 0
    records: list[Record] = field(default_factory=list)
    stopped_by: dict[tuple[str, int], int] = field(default_factory=dict)
    told_soundly: set[str] = field(default_factory=set)
    rows_read: Mapping[str, frozenset[int]] = field(default_factory=dict)
    is_overtaken: bool = False
    breaches: tuple[Breach, ...] = ()
    assess_by: date | None = None
    pack_id: str = ""
    places: tuple[Place, ...] = ()
    export_lines: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    values: tuple[str, ...] = field(default=(), repr=False)
    settled: Mapping[QueryKey, Settled] = field(default_factory=dict)
    mended_elsewhere: frozenset[QueryKey] = frozenset()

    def count(self, *outcomes: str) -> int:
        """How many records came out so."""
        return sum(record.outcome in outcomes for record in self.records)

    @property
    def n_accepted(self) -> int:
        """Superseding records are among them."""
        return self.count("accepted", "superseding")

    @property
    def n_log_entries(self) -> int:
        return sum(not isinstance(event, Voided) for event in self.log_events)

    @property
    def outcome(self) -> Outcome:
        if self.quarantine_rule:
            return "quarantined"
        if not (self.count("quarantined") or any(fault.severity == "hard" for fault in self.faults)):
            return "accepted"
        something = self.log_events or self.n_log_repeated or self.count("accepted", "superseding", "repeated")
        return "accepted_in_part" if something else "nothing_accepted"

    @property
    def new_participant_ids(self) -> list[str]:
        """People whom this site screened: no other site may have screened them meanwhile."""
        return [event.participant_id for event in self.log_events if isinstance(event, ParticipantScreened)]

    def find_subject(self, fault: Fault) -> str:
        """What a query is about: the record or log entry where it can be named, else the place in the sending, else the
        pack or the file. The same fault in a corrected file has the same subject, so it is asked once. Everything that
        a held file must not hold is one question."""
        if fault.rule == IDENTIFIERS_FOUND and self.sending:
            return f"{self.sending.return_id}:file"
        if fault.rule == IDENTIFIERS_FOUND:
            return f"file:{self.facts.site_id}:{self.facts.sha256[:16]}"
        if fault.participant_id and fault.respondent and fault.wave and fault.instrument:
            return f"{fault.participant_id}:{fault.respondent}:{fault.wave}:{fault.instrument}"
        if fault.participant_id and fault.sheet:
            return f"{fault.participant_id}:{fault.sheet}"
        if self.sending:
            return f"{self.sending.return_id}:{fault.sheet or 'file'}:{fault.cell or fault.column or fault.row}"
        if self.pack_id:
            return f"pack:{self.pack_id}:{fault.cell or fault.column or 'file'}"
        return f"file:{self.facts.site_id}:{self.facts.sha256[:16]}"

    def find_query_key(self, fault: Fault) -> QueryKey:
        return (self.find_subject(fault), fault.rule, fault.item)

    def find_settled(self, key: QueryKey, standing: Standing) -> Settled:
        """What follows for one question; of a file whose values nobody looked at, by what is open alone."""
        if key in self.settled:
            return self.settled[key]
        return settle_fault(standing.asked.get(key, ()), lambda _: None, is_overtaken=self.is_overtaken)

    def is_silent(self, fault: Fault) -> bool:
        """Whether a person has settled it, so that nobody is told again. What stops a row is always told."""
        settled = self.settled.get(self.find_query_key(fault))
        return settled is not None and settled.step == "silent" and fault.severity == "soft"


def decide_return(
    reading: Reading,
    facts: FileFacts,
    study: Study,
    instruments: Mapping[str, Instrument],
    standing: Standing,
    answers: pd.DataFrame,
    today: date,
    requested_by: str,
    gate: SiteGate,
) -> Decision:
    """Everything that follows from one return, decided on what stands.

    `reading`: the workbook as read (raw cells). `answers`: the kept answers (RESPONSE_COLUMNS, one row an item) of
    the records that `find_named_again` gives. `today`: the study day; nothing may be dated after it. `gate`: that of
    the site, up to today.
    """
    reading = drop_unfilled_rows(reading, study)
    sending, rule = parse_sending(reading, facts.site_id, today)
    if sending is None or rule:
        found = decide_quarantine(facts, rule, sending, problems=reading.problems)
        return replace(found, pack_id=_find_pack_id(reading, facts.site_id))
    case = _Case(reading, facts, sending, study, instruments, standing, today, requested_by, gate, _Findings(reading))
    people = dict(standing.people)
    log_events, n_log_repeated, log_subjects = _decide_logs(case, people)
    for told, standing_there in ((_read_figures(case), standing.figures), (_read_answers(case), standing.answers)):
        told_events, n_repeated = _decide_tellings(case, *told, standing_there)
        log_events += told_events
        n_log_repeated += n_repeated
    records = list(_read_records(case, people))
    old = _group_answers(standing, answers)
    beside = Beside(standing.records, old, people, standing.sent_forms, sending.posted_on, today)
    for finding in find_return_faults(study, instruments, records, reading.sheets, beside):
        case.findings.add_found(finding, records)
    _settle_records(case, records, old, people)
    _find_left_out(case, records)
    came = [record for record in records if record.outcome != "refused"]
    return Decision(
        facts,
        sending,
        faults=case.findings.faults,
        log_events=log_events,
        n_log_repeated=n_log_repeated,
        records=records,
        stopped_by={
            (record.key.instrument, record.row): case.findings.find_stop(record.key.instrument, record.row)
            for record in records
            if record.outcome == "refused"
        },
        told_soundly=log_subjects | {":".join(record.key) for record in records if record.outcome != "refused"},
        rows_read={code: frozenset(map(int, sheet.frame["row"])) for code, sheet in reading.sheets.items()},
        is_overtaken=case.is_overtaken,
        breaches=case.derive_breaches(),
        mended_elsewhere=frozenset(find_settled(standing.open_queries, study, came)),
        assess_by=compute_assess_by(study, COLLECTED, today),
        pack_id=_find_pack_id(reading, facts.site_id),
        values=_find_values(reading, case.findings.faults),
        export_lines=reading.export_lines,
    )


def _find_pack_id(reading: Reading, site_id: str) -> str:
    """The pack that a file says it is, if that reads like one of the site's."""
    text = str(reading.about.get("pack_id") or "")
    return text if re.fullmatch(rf"{re.escape(site_id)}-\d{{4}}-\d\d-\d\d-\d{{1,4}}", text, re.ASCII) else ""


def decide_quarantine(
    facts: FileFacts, rule: str, sending: Sending | None = None, *, expected: str = "", problems: Sequence[Problem] = ()
) -> Decision:
    """A file that is kept as it came and read no further; the site is asked about it as a whole. A pack that came back
    as it was sent is no question: the receipt says so, and nothing waits for an answer."""
    if rule == NOTHING_FILLED_IN:
        return Decision(facts, sending, rule)
    faults = [_derive_fault(problem) for problem in problems if _is_of_file(problem)]
    return Decision(facts, sending, rule, faults or [Fault(rule, FILE_RULES[rule], expected=expected)])


MOST_TOLD = 200
"""So many places of a held file are told to its site, and kept in the ledger."""


def decide_held(facts: FileFacts, sending: Sending | None, places: Sequence[Place]) -> Decision:
    """A file in which `places` hold what may tell who a person is: not read, and asked about with its places. Its
    sending is known where its sheet About says it; nothing else of it is looked at."""
    faults = [
        Fault(
            IDENTIFIERS_FOUND, FILE_RULES[IDENTIFIERS_FOUND], place.sheet, int(re.sub(r"\D", "", place.cell) or 0),
            cell=place.cell, expected=place.words,
        )
        for place in places[:MOST_TOLD]
    ]  # fmt: skip
    return Decision(facts, sending, IDENTIFIERS_FOUND, faults, places=tuple(places))


def parse_sending(reading: Reading, site_id: str, today: date) -> tuple[Sending | None, str]:
    """Which sending a file is, from its sheet About, and the rule that sends it to quarantine ("" for none)."""
    about = reading.about
    posted_on, number, correction = (about.get(name) for name in ("posted_on", "sending_number", "correction"))
    sending = None
    if isinstance(posted_on, date) and isinstance(number, int) and number > 0 and about.get("site") == site_id:
        return_id = f"{site_id}-{posted_on.isoformat()}-{number}"
        sending = Sending(return_id, posted_on, number, correction if isinstance(correction, int) else 0)
    holds_rows = any(len(sheet.frame) for sheet in reading.sheets.values())
    if about.get("pack_id") and not holds_rows and not any(_is_of_rows(problem) for problem in reading.problems):
        return sending, NOTHING_FILLED_IN
    for problem in reading.problems:
        if _is_of_file(problem):
            return sending, problem.rule if problem.rule in FILE_RULES else "about_incomplete"
    if sending is None:
        return None, "about_incomplete"
    if sending.posted_on > today:
        return sending, "posted_in_future"
    if not holds_rows and not any(problem.severity == "hard" for problem in reading.problems):
        return sending, "nothing_to_read"
    return sending, ""


def _is_of_file(problem: Problem) -> bool:
    """A file is known by its sheet About: what must be mended there concerns all of it."""
    return problem.rule in FILE_RULES or (problem.sheet == ABOUT and problem.severity == "hard")


def _is_of_rows(problem: Problem) -> bool:
    """Something keeps rows from being read, so that nobody can say that there are none; or it is not this study's."""
    names_another = problem.rule in ("wrong_study", "wrong_site", "wrong_layout_version")
    return problem.severity == "hard" and (problem.sheet != ABOUT or names_another)


def _derive_fault(problem: Problem) -> Fault:
    return Fault(
        problem.rule, problem.severity, problem.sheet, problem.row, problem.column, problem.cell, problem.expected
    )


class _Findings:
    """Faults of one file as they are found, and which rows and sheets they stop."""

    def __init__(self, reading: Reading) -> None:
        self.faults: list[Fault] = []
        self._sheets = reading.sheets
        self._told: set[tuple[str, int, str]] = set()
        self._stopped_rows: dict[tuple[str, int], int] = {}
        self._stopped_sheets: dict[str, int] = {}
        for problem in reading.problems:
            self._add_problem(problem, reading.sheets.get(problem.sheet))

    def _add_problem(self, problem: Problem, sheet: ReadSheet | None) -> None:
        """What the reader of the workbook found: of a sheet, of some rows, or only to be told."""
        place = len(self.faults)
        self.faults.append(_derive_fault(problem))
        if problem.severity == "hard":
            if problem.rule in SHEET_RULES or not problem.row:
                self._stopped_sheets.setdefault(problem.sheet, place)
            elif sheet is not None:
                numbers = sheet.frame["row"]
                for row in numbers[numbers.between(problem.row, problem.last_row)].tolist():
                    self._stopped_rows.setdefault((problem.sheet, row), place)
                    self._told.add((problem.sheet, row, problem.column))

    def add(
        self, rule: str, sheet: str, row: int, column: str, expected: str = "", *, participant_id: str = ""
    ) -> None:
        """A fault of one cell of a log."""
        self._add(Fault(rule, ROW_RULES[rule], sheet, row, column, expected=expected, participant_id=participant_id))

    def add_of_record(self, rule: str, record: Record, column: str, expected: str = "") -> None:
        """A fault of one cell that says which record it is."""
        sheet = record.key.instrument
        self._add(Fault(rule, ROW_RULES[rule], sheet, record.row, column, "", expected, **record.key._asdict()))

    def add_of_item(self, rule: str, severity: Severity, record: Record, item: str, expected: str) -> None:
        """A fault of one answer."""
        sheet = record.key.instrument
        self._add(Fault(rule, severity, sheet, record.row, item, "", expected, **record.key._asdict(), item=item))

    def _add(self, fault: Fault) -> None:
        """What the reader told of a cell is not told again, nor is anything of a column that the sheet lacks."""
        cell = self._sheets[fault.sheet].find_cell(fault.column, fault.row)
        if not cell or (fault.sheet, fault.row, fault.column) in self._told:
            return
        if fault.severity == "hard":
            self._stopped_rows.setdefault((fault.sheet, fault.row), len(self.faults))
        self.faults.append(replace(fault, cell=cell))

    def add_found(self, found: Finding, records: Sequence[Record]) -> None:
        """What a record, a row of a log, a column of a sheet or the sheet About says beside what else is known."""
        if found.row:
            told = (found.rule, found.severity, found.sheet, found.row, found.column)
            self._add(Fault(*told, expected=found.expected, participant_id=found.participant_id))
            return
        if found.record is None:
            letter = self._sheets[found.sheet].letters.get(found.column, "") if found.sheet in self._sheets else ""
            cell = f"{letter}:{letter}" if letter else ""
            self.faults.append(Fault(found.rule, found.severity, found.sheet, 0, found.column, cell, found.expected))
            return
        record = records[found.record]
        sheet, key = record.key.instrument, record.key._asdict()
        self._add(
            Fault(
                found.rule, found.severity, sheet, record.row, found.column, "", found.expected, **key, item=found.item
            )
        )

    def add_left_out(self, key: RecordKey) -> None:
        """A record that a correction leaves out has no row, and stops none."""
        rule = "left_out_of_correction"
        self.faults.append(Fault(rule, ROW_RULES[rule], key.instrument, **key._asdict()))

    def is_stopped(self, sheet: str, row: int) -> bool:
        return sheet in self._stopped_sheets or (sheet, row) in self._stopped_rows

    def find_stop(self, sheet: str, row: int) -> int:
        """The place in `faults` of what stops this row."""
        place = self._stopped_rows.get((sheet, row))
        return self._stopped_sheets[sheet] if place is None else place


@dataclass(frozen=True)
class _Case:
    """One return and all that it is judged by."""

    reading: Reading
    facts: FileFacts
    sending: Sending
    study: Study
    instruments: Mapping[str, Instrument]
    standing: Standing
    today: date
    requested_by: str
    gate: SiteGate
    findings: _Findings
    # What the gate says no to: the day, sheet and row of each, by the question and the incident that it goes on with.
    not_allowed: dict[tuple[Question, str], list[tuple[date, str, int]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    @property
    def is_overtaken(self) -> bool:
        return self.sending.correction < self.standing.corrections.get(self.sending.return_id, 0)

    def derive_breaches(self) -> tuple[Breach, ...]:
        """What the gate said no to, one for each incident that it is, or will be, entered under."""
        breaches = []
        for (question, incident_id), told in sorted(self.not_allowed.items()):
            first_on, rows = min(told)[0], tuple((sheet, row) for _, sheet, row in told)
            reasons = self.gate.find_reasons(*question, first_on)
            breaches.append(Breach(question, first_on, rows, reasons, incident_id))
        return tuple(breaches)

    def is_older_than(self, posted: Posted | None) -> bool:
        """Whether this workbook was posted before another one."""
        return posted is not None and self.sending.posted < posted

    def corrects(self, stands: LogEntry | StandingRecord) -> bool:
        """Whether an earlier telling of this very sending brought it."""
        return stands.return_id == self.sending.return_id and stands.correction < self.sending.correction

    def find_outcome(self, stands: LogEntry | StandingRecord | None, *, is_same: bool, otherwise: str) -> str:
        """accepted, superseding, repeated, or the rule that keeps what is told from standing.

        A sending may replace what it brought itself, by a higher correction; nothing else is ever replaced.
        """
        if stands and is_same:
            return "repeated"
        if self.is_overtaken:
            return "overtaken_by_correction"
        if stands is None:
            return "accepted"
        return "superseding" if self.corrects(stands) else otherwise

    def find_identity_fault(self, participant_id: str, people: Collection[str], *, introduces: bool = False) -> str:
        """The rule that an identifier breaks, or ''. Only one that is known here goes further, into the ledger or a
        message: any other may be a name, another site's, or nobody's."""
        if not participant_id:
            return "participant_missing"
        if not self.study.is_participant_id(participant_id):
            return "participant_malformed"
        if participant_id not in people and not has_sound_check(self.study, participant_id):
            return "check_digit_wrong"
        home = self.standing.homes.get(participant_id) or self.study.participant_site(participant_id)
        if home is not None and home != self.facts.site_id:
            return "participant_of_another_site"
        return "" if introduces or participant_id in people else "participant_unknown"

    def find_date_fault(self, day: object) -> tuple[str, str]:
        """The rule that a date breaks ('' for none), and what is expected."""
        if not isinstance(day, date):
            return "date_missing", ""
        return ("date_in_future", f"a date up to {self.today:%d %b %Y}") if day > self.today else ("", "")


# --- Logs -------------------------------------------------------------------------------------------------------------


def _decide_logs(case: _Case, people: dict[str, Person]) -> tuple[list[Event], int, set[str]]:
    """What the logs tell of people: new events, how many entries were repeats, and the subjects about which nothing is
    wrong. Adds to `people` whom the file introduces.

    Logs may be cumulative: a site can send the whole log each time, and what stands already is a repeat. An entry that
    differs from the record supersedes it where the sending brought the record itself, or where it only adds what
    becomes known later; else it is asked about. Left blank later, what was told stands. A workbook that was posted
    before the record, and only knows less, adds nothing.
    """
    events: list[Event] = []
    n_repeated = 0
    subjects = set()
    choices = derive_choices(case.study, case.facts.site_id)
    for log in list_logs(case.study):
        if log.sheet not in case.reading.sheets:
            continue
        rows: list[Any] = case.reading.sheets[log.sheet].frame.to_dict("records")
        renewals = _find_renewals(case, log, rows)
        told = [_read_entries(case, log, row, people, choices, renewals) for row in rows]
        contents: dict[str, set[tuple[object, ...]]] = defaultdict(set)
        for entry in chain.from_iterable(told):
            contents[entry.key].add(entry.content)
        settled: set[str] = set()
        for entry in chain.from_iterable(told):
            if case.findings.is_stopped(log.sheet, entry.row):
                continue
            stands = case.standing.log.get(entry.key)
            is_outdated = stands is not None and case.is_older_than(stands.posted) and entry.falls_short_of(stands)
            is_same = is_outdated or (stands is not None and stands.content == entry.content)
            otherwise = "superseding" if entry.goes_beyond(stands) else "differs_from_record"
            outcome = case.find_outcome(stands, is_same=is_same, otherwise=otherwise)
            if len(contents[entry.key]) > 1:
                outcome = "duplicate_in_file"
            if outcome in ROW_RULES:
                known = entry.participant_id if entry.participant_id in people else ""
                case.findings.add(outcome, log.sheet, entry.row, "participant_id", participant_id=known)
                continue
            if outcome == "repeated" or entry.key in settled:
                n_repeated += 1
            else:
                events += _derive_log_events(case, log.sheet, entry, stands)
            if is_outdated:
                continue
            person = people.get(entry.participant_id, Person())
            _ask_softly(case, log.sheet, entry, person)
            person = people[entry.participant_id] = person.note(
                entry.step.kind, entry.key, entry.occurred_on, entry.payload
            )
            if entry.key not in settled:
                _judge_entry(case, log.sheet, entry, stands, person.body_id)
            settled.add(entry.key)
        subjects |= {
            f"{entry.participant_id}:{log.sheet}"
            for entry in chain.from_iterable(told)
            if not case.findings.is_stopped(log.sheet, entry.row)
        }
    return events, n_repeated, subjects


def _ask_softly(case: _Case, sheet: str, entry: Entry, person: Person) -> None:
    """What is taken as it is told and yet asked about."""
    payload, rules = entry.payload, []
    rule, blocks = case.study.fieldwork.identifier_rule, case.standing.blocks
    is_new = entry.step.kind is ParticipantScreened and person == Person()
    if is_new and rule is not None and blocks and not is_issued(rule, entry.participant_id, blocks):
        rules.append(("identifier_not_issued", "participant_id"))
    if entry.step.kind is ConsentRecorded:
        rules += _find_gaps(payload)
        if person.outcome in ("declined", "not_eligible"):
            rules.append(("consent_without_agreement", "participant_id"))
        left_on = [day for scope, day in person.left.items() if scope in ("questionnaires", "study", "data")]
        if left_on and min(left_on) < entry.occurred_on:
            rules.append(("consent_after_leaving", "participant_id"))
    for name, column in rules:
        case.findings.add(name, sheet, entry.row, column, participant_id=entry.participant_id)


def _find_gaps(consent: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a consent leaves open that is asked about: rule and column."""
    rules = []
    if consent["route"] == "consultee" and consent["capacity"] != "assessed":
        rules.append(("capacity_not_assessed", "capacity"))
    if consent["route"] == "parent" and not consent["sixteen_in"]:
        rules.append(("sixteenth_month_missing", "sixteen_in"))
    return rules


def _judge_entry(case: _Case, sheet: str, entry: Entry, stands: LogEntry | None, body_id: str) -> None:
    """Whether somebody was approached, or signed, while that was not allowed. What stands was judged when it came: it
    counts again only if it was right then, and is not as it is told now."""
    activity = find_logged(case.study).get(entry.step.kind)
    if activity is None:
        return
    told = (body_id, entry.occurred_on)
    if stands is not None:
        before: tuple[Any, Any] = (case.standing.people[entry.participant_id].body_id, stands.content[0])
        if told == before or not case.gate.is_allowed(activity, *before):
            return
    if not case.gate.is_allowed(activity, *told):
        case.not_allowed[Question(activity, body_id), ""].append((entry.occurred_on, sheet, entry.row))


def _read_entries(
    case: _Case,
    log: Log,
    row: Mapping[str, Any],
    people: Mapping[str, Person],
    choices: Mapping[str, Collection[str]],
    renewals: Mapping[tuple[str, str, date], str],
) -> list[Entry]:
    """What one row of a log tells. Every fault of the row is found, and a faulty row tells nothing."""
    number, participant_id = row["row"], row["participant_id"]
    identity_fault = case.find_identity_fault(participant_id, people, introduces=log.introduces)
    known = participant_id if participant_id in people and not identity_fault else ""
    told_already = set()

    def fault(rule: str, column: str, expected: str = "") -> None:
        if (rule, column) not in told_already:
            told_already.add((rule, column))
            case.findings.add(rule, log.sheet, number, column, expected, participant_id=known)

    if identity_fault:
        fault(identity_fault, "participant_id", case.study.participant_id_example)
    person = people[known] if known else Person()
    entries, first_consents = [], []
    for step in log.steps:
        if step.told_by and not any(row.get(column) for column in step.told_by):
            continue
        payload: dict[str, Any] = {"basis": case.study.consent_basis} if step.kind is ConsentRecorded else {}
        for name, column in step.codes.items():
            text = row.get(column, "")
            payload[name] = parse_codes(text) if name == "scopes" else text
            if name in step.may_be_blank and not text:
                continue
            codes = payload[name] if name == "scopes" else (text,)
            allowed = choices.get(name)
            if name == "reason":
                allowed = choices.get(f"{payload.get('scope', payload.get('outcome'))}:reason")
            if allowed == []:
                if text:
                    fault("blank_expected", column, "no reason here, unless the person declined or is not eligible")
            elif allowed is not None and not (codes and set(codes) <= set(allowed)):
                fault("code_unknown", column, ", ".join(allowed))
        if step.kind is ConsentRecorded and not person.consents:
            first_consents.append(payload)
        dated = step.dated
        if step.kind is ApproachAnswered and payload["outcome"] == "not_eligible" and not row[dated]:
            dated = "screened_on"
        day = row[dated]
        date_fault, expected = case.find_date_fault(day)
        if date_fault:
            fault(date_fault, dated, expected)
            continue
        if expected := _find_earlier_step(step.kind, day, person):
            fault("dates_out_of_order", dated, expected)
        if step.kind is ConsentRecorded:
            payload["renewal"] = renewals[participant_id, payload["form_version"], day]
        key = step.kind.derive_key({"participant_id": participant_id, **payload})
        stands = case.standing.log.get(key)
        if stands is not None:
            kept = stands.read_fields(step.kind)
            payload |= {name: kept[name] for name in step.may_be_blank if not payload[name]}
        person = person.note(step.kind, key, day, payload)
        entries.append(Entry(step, number, participant_id, day, payload, key))
    if not case.findings.is_stopped(log.sheet, number):
        return entries
    for payload in first_consents:  # asked at once, so that the site mends the row once
        for rule, column in _find_gaps(payload):
            fault(rule, column)
    return []


def _find_renewals(case: _Case, log: Log, rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, date], str]:
    """Which consent on its version of the form each row with a day of signing tells: `renewal` by participant_id,
    version and day."""
    told: dict[tuple[str, str], list[Signing]] = defaultdict(list)
    for step in log.steps:
        if step.kind is ConsentRecorded:
            for row in rows:
                if isinstance(row[step.dated], date):
                    names = (row["participant_id"], row.get(step.codes["form_version"], ""))
                    signing = Signing(row[step.dated], row.get("route", ""), row.get("sixteen_in", ""))
                    told[names].append(signing)
    found: dict[tuple[str, str, date], str] = {}
    for (participant_id, version), signings in told.items():
        recorded: dict[str, Signing] = {}
        corrected, posted_later = set[str](), set[str]()
        for key in case.standing.people.get(participant_id, Person()).consents:
            entry = case.standing.log[key]
            stands = entry.read_fields(ConsentRecorded)
            if stands["form_version"] == version:
                recorded[stands["renewal"]] = Signing(stands["occurred_on"], stands["route"], stands["sixteen_in"])
                corrected |= {stands["renewal"]} if case.corrects(entry) else set()
                posted_later |= {stands["renewal"]} if case.is_older_than(entry.posted) else set()
        apart = find_renewals(
            case.study.fieldwork.consent_rule, recorded, signings, corrected=corrected, posted_later=posted_later
        )
        found |= {(participant_id, version, day): renewal for day, renewal in apart.items()}
    return found


def _find_earlier_step(kind: type[ParticipantEvent], day: date, person: Person) -> str:
    """What is expected of a day that comes before one that it must follow ('' where nothing is wrong). A person is
    screened, then approached, then consents; the rest follows on the screening, and nobody who consented left before.
    """
    if kind is ParticipantScreened:
        return ""
    if person.screened_on and day < person.screened_on:
        return "a date on or after the day of screening"
    if kind is ConsentRecorded and person.approached_on and day < person.approached_on:
        return "a date on or after the day of the approach"
    if kind is DispositionRecorded and person.consented_on and day < person.consented_on:
        return "a date on or after the day of consent"
    return ""


def _derive_log_events(case: _Case, sheet: str, entry: Entry, stands: LogEntry | None) -> list[Event]:
    """A new entry; where it takes the place of an old one, that is voided first."""
    common: dict[str, Any] = {
        "requested_by": case.requested_by,
        "site_id": case.facts.site_id,
        "participant_id": entry.participant_id,
        "source": Source(sha256=case.facts.sha256, sheet=sheet, row=entry.row),
    }
    events: list[Event] = [entry.step.kind(**common, occurred_on=entry.occurred_on, **entry.payload)]
    if stands:
        events.insert(0, Voided(**common, occurred_on=case.today, voids=stands.hash, reason="superseded"))
    return events


# --- Figures and answers to queries -----------------------------------------------------------------------------------


def _read_figures(case: _Case) -> tuple[str, list[Telling]]:
    """The sheet and what it tells: each figure of a month as reported to the evaluation and to NHS England. A blank
    tells nothing."""
    sheet, tellings = case.reading.sheets.get(ACTIVITY), []
    rows: list[Any] = sheet.frame.to_dict("records") if sheet is not None else []
    for row in rows:
        number = row["row"]
        figure = case.study.fieldwork.find_figure(row["figure"])
        if figure is None or figure.id != row["figure"]:
            known = ", ".join(entry.id for entry in case.study.fieldwork.figures)
            case.findings.add("code_unknown", ACTIVITY, number, "figure", known)
        else:
            rule, expected = find_month_fault(figure, row["month"], case.sending.posted_on)
            if rule:
                case.findings.add(rule, ACTIVITY, number, "month", expected)
        tellings += [
            Telling((row["figure"], row["month"], reported_to), row[reported_to], number, reported_to)
            for reported_to in ("evaluation", "nhs_england")
            if row[reported_to] is not None and not case.findings.is_stopped(ACTIVITY, number)
        ]
    return ACTIVITY, tellings


def _read_answers(case: _Case) -> tuple[str, list[Telling]]:
    """The sheet and what it tells: an answer for each query. One to a query that is closed tells nothing new."""
    sheet, tellings = case.reading.sheets.get(QUERIES), []
    rows: list[Any] = sheet.frame.to_dict("records") if sheet is not None else []
    for row in rows:
        number, query_id, answer = row["row"], row["query_id"], row["answer"]
        if query_id not in case.standing.query_ids:
            case.findings.add("query_unknown", QUERIES, number, "query_id")
        if answer not in ANSWER_WORDS:
            case.findings.add("code_unknown", QUERIES, number, "answer", ", ".join(ANSWER_WORDS))
        if not case.findings.is_stopped(QUERIES, number):
            tellings.append(Telling((query_id,), answer, number, "answer"))
    return QUERIES, tellings


def _decide_tellings(
    case: _Case, sheet: str, tellings: Sequence[Telling], standing: Mapping[tuple[str, ...], Told]
) -> tuple[list[Event], int]:
    """New versions of figures or answers, and how many were repeats. The newest posting counts, whichever arrives
    first; told twice in one file with different contents, neither does."""
    values: dict[tuple[str, ...], set[object]] = defaultdict(set)
    for telling in tellings:
        values[telling.place].add(telling.value)
    events: list[Event] = []
    n_repeated, settled = 0, set()
    for telling in tellings:
        stands = standing.get(telling.place)
        is_closed = case.standing.query_ids.get(telling.place[0]) is False
        if len(values[telling.place]) > 1:
            outcome = "duplicate_in_file"
        elif telling.place in settled or is_closed or (stands and stands.value == telling.value):
            outcome = "repeated"
        elif case.is_overtaken:
            outcome = "overtaken_by_correction"
        elif stands and case.is_older_than(stands.posted):
            outcome = "overtaken_by_later_return"
        else:
            outcome = "accepted"
            common = {
                "occurred_on": case.sending.posted_on,
                "requested_by": case.requested_by,
                "site_id": case.facts.site_id,
                "source": Source(sha256=case.facts.sha256, sheet=sheet, row=telling.row),
            }
            events.append(derive_telling_event(telling, stands.version + 1 if stands else 1, common))
        settled.add(telling.place)
        n_repeated += outcome == "repeated"
        if outcome in ROW_RULES:
            case.findings.add(outcome, sheet, telling.row, telling.column)
    return events, n_repeated


# --- Questionnaires ---------------------------------------------------------------------------------------------------


def find_wave_code(study: Study, text: str) -> str:
    """The code of a wave given by code or label; the name of an unscheduled occasion as it is; '' for neither.

    What reads like a wave but for blanks and signs ("WEEK8") is a slip of the pen, and no occasion of its own.
    """
    wave = study.find_wave(text)
    if wave is not None:
        return wave.id
    if not study.accepts_unscheduled or not is_code(text):
        return ""
    names = (name for wave in study.waves for name in (wave.id, wave.label, *wave.aliases))
    is_slip = _fold_sign(text) in map(_fold_sign, names)
    return "" if is_slip else text


def _fold_sign(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def find_named_again(
    reading: Reading, study: Study, instruments: Mapping[str, Instrument], standing: Standing
) -> list[RecordKey]:
    """Standing records that a file names again, and earlier ones of the same people: to decide on it, their answers are
    needed."""
    found = set()
    for instrument_id, sheet in reading.sheets.items():
        if instrument_id in instruments:
            waves = _find_waves(study, sheet)
            names = zip(*(sheet.frame[name] for name in RECORD_KEY[:3]), strict=True)
            found |= {RecordKey(name, respondent, waves[text], instrument_id) for name, respondent, text in names}
    named = found & standing.records.keys()
    return sorted(named | find_earlier(study, instruments, found, standing.records))


def _find_waves(study: Study, sheet: ReadSheet) -> dict[str, str]:
    return {text: find_wave_code(study, text) for text in set(sheet.frame["wave"])}


def _read_records(case: _Case, people: Mapping[str, Person]) -> Iterator[Record]:
    """Every row of every questionnaire, with all its faults found."""
    for instrument_id, instrument in case.instruments.items():
        sheet = case.reading.sheets.get(instrument_id)
        if sheet is None or not len(sheet.frame):
            continue
        waves = _find_waves(case.study, sheet)
        respondents = [name for name in instrument.respondents if name in case.study.respondents]
        forms = [name for name in instrument.forms if name in case.study.forms]
        checked = check_records(instrument, sheet.frame)
        names = checked.responses.columns.to_numpy(dtype=object)
        order = np.argsort(names)
        items, responses, reasons = names[order], checked.responses.to_numpy()[:, order], checked.reasons[:, order]
        cells = sheet.frame[names].to_numpy(dtype=object)
        n_given = (~(pd.isna(cells) | (cells == ""))).sum(axis=1).tolist()
        columns = ("row", *RECORD_KEY[:3], "form", "collected_on")
        records = []
        for n, (row, participant_id, respondent, text, form, collected_on) in enumerate(
            zip(*(sheet.frame[name].tolist() for name in columns), strict=True)
        ):
            identity_fault = case.find_identity_fault(participant_id, people)
            key = RecordKey(
                "" if identity_fault else participant_id,
                respondent if respondent in respondents else "",
                waves[text],
                instrument_id,
            )
            record = Record(key, row, form, collected_on, items, responses[n], reasons[n], n_given[n])
            if identity_fault:
                case.findings.add_of_record(identity_fault, record, "participant_id", case.study.participant_id_example)
            else:
                _check_consent(case, record, people[participant_id].consented_on)
            if not key.respondent:
                case.findings.add_of_record("respondent_unknown", record, "respondent", ", ".join(respondents))
            if form not in forms:
                case.findings.add_of_record("form_unknown", record, "form", ", ".join(forms))
            if not key.wave:
                expected = ", ".join(wave.id for wave in case.study.waves)
                case.findings.add_of_record("wave_unknown", record, "wave", expected)
            date_fault, expected = case.find_date_fault(collected_on)
            if date_fault:
                case.findings.add_of_record(date_fault, record, "collected_on", expected)
            records.append(record)
        columns = ("record", "rule", "severity", "item", "expected")
        for n, rule, severity, item, expected in zip(*(checked.faults[name].tolist() for name in columns), strict=True):
            case.findings.add_of_item(rule, severity, records[n], item, expected)
        yield from records


def _check_consent(case: _Case, record: Record, consented_on: date | None) -> None:
    """No answers without consent, and none from before it."""
    if consented_on is None:
        case.findings.add_of_record("consent_not_recorded", record, "participant_id")
    elif isinstance(record.collected_on, date) and record.collected_on < consented_on:
        case.findings.add_of_record("collected_before_consent", record, "collected_on")


def _settle_records(
    case: _Case, records: Sequence[Record], old: Mapping[RecordKey, Record], people: Mapping[str, Person]
) -> None:
    """What becomes of each record: sets `outcome`, and of a superseding one `version` and `supersedes_return_id`.

    The same record twice in one file: the same answers count once; sound answers that differ are all refused, since
    nothing says which is right, and of those that are refused anyway it is told too. What would be accepted is asked of
    the gate.
    """
    sound, stopped = (defaultdict[RecordKey, list[Record]](list) for _ in range(2))
    for record in records:
        if case.findings.is_stopped(record.key.instrument, record.row):
            record.outcome = "refused"
            stopped[record.key].append(record)
        else:
            sound[record.key].append(record)
    for key, tellings in stopped.items():
        if all(key) and _differ(tellings):
            for record in tellings:
                case.findings.add_of_record("duplicate_in_file", record, "participant_id")
    for key, tellings in sound.items():
        first = tellings[0]
        stands = case.standing.records.get(key)
        is_same = key in old and first.is_same_as(old[key])
        outcome = case.find_outcome(stands, is_same=is_same, otherwise="conflicts_with_accepted")
        if _differ(tellings):
            outcome = "duplicate_in_file"
        for record in tellings:
            record.outcome = "repeated"
            if outcome in ROW_RULES:
                record.outcome = "refused"
                case.findings.add_of_record(outcome, record, "participant_id")
        if outcome not in ROW_RULES:
            first.outcome = outcome
        if first.is_taken:
            _judge_record(case, first, stands, people[key.participant_id].body_id)
        if stands and first.outcome == "superseding":
            first.version, first.supersedes_return_id = stands.version + 1, stands.return_id


def _differ(tellings: Sequence[Record]) -> bool:
    return not all(other.is_same_as(tellings[0]) for other in tellings[1:])


def _judge_record(case: _Case, record: Record, stands: StandingRecord | None, body_id: str) -> None:
    """Quarantine a record that was collected while that was not allowed. One that corrects what is held goes on with
    the same incident, while that is about the same and nobody has decided on it."""
    question = Question(find_activity(case.study, record.key.wave), body_id)
    if record.collected_on is None or case.gate.is_allowed(*question, record.collected_on):
        return
    record.outcome, record.question = "quarantined", question
    if stands:
        record.voids = stands.hashes
        if case.standing.holding.get(stands.incident_id) == question:
            record.incident_id = stands.incident_id
    case.not_allowed[question, record.incident_id].append((record.collected_on, record.key.instrument, record.row))


def _group_answers(standing: Standing, answers: pd.DataFrame) -> dict[RecordKey, Record]:
    """Kept answers as records, to be compared with what a file tells."""
    items, responses = answers["item"].to_numpy(dtype=object), answers["response"].to_numpy(dtype=np.float64)
    reasons = np.array([REASON_CODES[reason] for reason in answers["missing_reason"].fillna("")], dtype=np.int8)
    groups: Mapping[Any, Any] = answers.groupby(RECORD_KEY, sort=False).indices
    found = {}
    for names, places in groups.items():
        key = RecordKey(*names)
        order = places[np.argsort(items[places])]
        stands = standing.records[key]
        found[key] = Record(key, 0, stands.form, stands.collected_on, items[order], responses[order], reasons[order])
    return found


def _find_left_out(case: _Case, records: Sequence[Record]) -> None:
    """Accepted records that a correction of their sending names no more. They stay, and the site is asked: the row may
    have been deleted because it was wrong. Where a row of the sheet cannot be told whose it is, nobody can say."""
    if case.is_overtaken or not case.sending.correction:
        return
    named = {record.key for record in records}
    unclear = {key.instrument for key in named if "" in key}
    sheets = case.reading.sheets.keys() - unclear
    for key, stands in case.standing.records.items():
        is_own = stands.return_id == case.sending.return_id and stands.correction < case.sending.correction
        if is_own and stands.version and key.instrument in sheets and key not in named:
            case.findings.add_left_out(key)


def derive_responses(decision: Decision, *, quarantined: bool = False) -> pd.DataFrame:
    """The accepted answers of a return, or the quarantined ones: RESPONSE_COLUMNS, one row an item, ordered by record
    and item."""
    wanted = ("quarantined",) if quarantined else ("accepted", "superseding")
    taken = sorted((record for record in decision.records if record.outcome in wanted), key=lambda record: record.key)
    if not taken or decision.sending is None:
        return pd.DataFrame(columns=RESPONSE_COLUMNS)
    sizes = [len(record.items) for record in taken]

    def spread(values: Sequence[object]) -> npt.NDArray[np.object_]:
        return np.repeat(np.array(values, dtype=object), sizes)

    keys = {name: spread([getattr(record.key, name) for record in taken]) for name in RECORD_KEY}
    return pd.DataFrame(
        {
            **keys,
            "form": spread([record.form for record in taken]),
            "item": np.concatenate([record.items for record in taken]),
            "response": np.concatenate([record.responses for record in taken]),
            "missing_reason": REASON_NAMES[np.concatenate([record.reasons for record in taken])],
            "collected_on": spread([record.collected_on for record in taken]),
            "return_id": decision.sending.return_id,
        }
    )


# --- What is recorded -------------------------------------------------------------------------------------------------


def _find_values(reading: Reading, faults: Sequence[Fault]) -> tuple[str, ...]:
    """What stands where each fault is, as text: its cell, or all cells of the row where the rule is about the row; ""
    for a place without a cell. As typed, where it was not understood."""
    frames = {sheet: reading.sheets[sheet].frame for sheet in {fault.sheet for fault in faults} & reading.sheets.keys()}
    cells = {sheet: frame.iloc[:, 1:].to_numpy(dtype=object) for sheet, frame in frames.items()}
    places = {sheet: {row: n for n, row in enumerate(frame["row"].tolist())} for sheet, frame in frames.items()}
    columns = {sheet: {name: n for n, name in enumerate(frame.columns[1:])} for sheet, frame in frames.items()}

    def find_value(fault: Fault) -> str:
        place = places.get(fault.sheet, {}).get(fault.row)
        if place is None:
            return ""
        if fault.rule in WHOLE_ROW_RULES:
            return "\x1f".join(map(parse_text, cells[fault.sheet][place]))
        odd = reading.sheets[fault.sheet].odd_cells.get((fault.column, fault.row))
        if odd is not None:
            return odd
        column = columns[fault.sheet].get(fault.column)
        return "" if column is None else parse_text(cells[fault.sheet][place, column])

    return tuple(map(find_value, faults))


def find_files_asked_about(decision: Decision, standing: Standing) -> set[str]:
    """The files (SHA-256) without which nobody can tell whether a value was asked about: this one, and those of queries
    that the site had about the same. None where nothing was read."""
    if not decision.values or not decision.faults:
        return set()
    places = _find_asked_at_places(standing)
    before = chain.from_iterable(_find_asked(decision, fault, standing, places) for fault in decision.faults)
    return {query.sha256 for query in before if query.fingerprint} | {decision.facts.sha256}


def settle_queries(decision: Decision, standing: Standing, seals: Mapping[str, bytes]) -> Decision:
    """The decision with what follows from each fault for what was asked before. `seals`: by the SHA-256 of the files
    that `find_files_asked_about` names, as `queries.derive_seal` gives them; one that is gone is left out."""
    told: dict[QueryKey, list[tuple[str, Fault]]] = defaultdict(list)
    for fault, value in zip(decision.faults, decision.values, strict=False):
        told[decision.find_query_key(fault)].append((value, fault))
    own, places = seals.get(decision.facts.sha256), _find_asked_at_places(standing) if told else {}
    settled = {}
    for key, several in told.items():
        values = sorted(value for value, _ in several)
        is_same = make_comparison(seals, values)
        before = _find_asked(decision, several[0][1], standing, places)
        if key not in standing.asked:
            before = tuple(query for query in before if values != [""] and is_same(query))
        step = settle_fault(before, is_same, is_overtaken=decision.is_overtaken)
        settled[key] = step._replace(fingerprint=compute_fingerprint(own, values) if own else "")
    return replace(decision, settled=settled)


_Places = Mapping[tuple[str, str, str], tuple[AskedQuery, ...]]


def _find_asked_at_places(standing: Standing) -> _Places:
    """Queries about places that no person is known of, by rule, sheet and column: a log that is sent whole each time
    tells the same cell in another sending, or further down."""
    found: dict[tuple[str, str, str], tuple[AskedQuery, ...]] = {}
    for (subject, rule, _), several in standing.asked.items():
        for query in several:
            if query.row and query.column and subject.startswith(f"{query.return_id}:"):
                place = (rule, query.sheet, query.column)
                found[place] = (*found.get(place, ()), query)
    return found


def _find_asked(decision: Decision, fault: Fault, standing: Standing, places: _Places) -> tuple[AskedQuery, ...]:
    """What the site was asked about this fault; where nothing is known of it, what it was asked in other sendings about
    such a cell."""
    asked = standing.asked.get(decision.find_query_key(fault), ())
    if asked or fault.participant_id or not fault.row:
        return asked
    return places.get((fault.rule, fault.sheet, fault.column), ())


def number_queries(decision: Decision, standing: Standing, n_queries_already: int) -> list[str]:
    """The query of each fault. One that was asked already keeps its number; new ones follow on those the site has had.

    Call it under the write lock, with the number of queries that the site has had so far.
    """
    asked = [decision.find_query_key(fault) for fault in decision.faults]
    known = {key: decision.find_settled(key, standing).query for key in asked}
    new = [key for key, query in known.items() if query is None]
    ids = dict(zip(new, derive_query_ids(decision.facts.site_id, n_queries_already, len(new)), strict=True))
    return [ids[key] if (query := known[key]) is None else query.query_id for key in asked]


def number_incidents(decision: Decision, n_incidents_already: int) -> list[str]:
    """The incident of each breach: the one that it goes on with, or a new one that follows on those the site has had.

    Call it under the write lock, with the number of incidents that the site has had so far.
    """
    new = [breach for breach in decision.breaches if not breach.incident_id]
    ids = iter(derive_incident_ids(decision.facts.site_id, n_incidents_already, len(new)))
    return [breach.incident_id or next(ids) for breach in decision.breaches]


def derive_return_events(
    decision: Decision,
    standing: Standing,
    query_ids: Sequence[str],
    responses_sha256: str,
    today: date,
    requested_by: str,
    incident_ids: Sequence[str] = (),
    quarantined_sha256: str = "",
) -> list[Event]:
    """The decision as events of the ledger: log entries, records, incidents, queries raised and closed, the file.

    `query_ids`: one for each fault, as `number_queries` gives them; `incident_ids`: one for each breach, as
    `number_incidents` does. `responses_sha256`, `quarantined_sha256`: of the files that hold what `derive_responses`
    gives. A fault is asked about once for each value: see `queries.settle_fault`.
    """
    facts, sending = decision.facts, decision.sending
    return_id = sending.return_id if sending else ""
    common: dict[str, Any] = {"site_id": facts.site_id, "requested_by": requested_by}
    of_file = Source(sha256=facts.sha256)

    def accept(record: Record) -> Event:
        return ReturnAccepted(
            **common, **record.key._asdict(), occurred_on=record.collected_on, source=_find_source(facts, record),
            return_id=return_id, form=record.form, version=record.version,
            supersedes_return_id=record.supersedes_return_id, n_items=len(record.items),
            n_answered=int((record.reasons == 0).sum()), responses_sha256=responses_sha256,
        )  # fmt: skip

    def hold(record: Record, question: Question) -> list[Event]:
        about: dict[str, Any] = {**common, "participant_id": record.key.participant_id}
        source = _find_source(facts, record)
        quarantined = ReturnQuarantined(
            **common, **record.key._asdict(), occurred_on=record.collected_on, source=source,
            incident_id=incidents[question, record.incident_id], activity=question.activity, return_id=return_id,
            form=record.form, n_items=len(record.items),
            n_answered=int((record.reasons == 0).sum()), responses_sha256=quarantined_sha256,
        )  # fmt: skip
        voids = (
            Voided(**about, occurred_on=today, source=source, voids=row, reason="superseded") for row in record.voids
        )
        return [*voids, quarantined]

    def open_incident(breach: Breach, incident_id: str) -> Event:
        return IncidentOpened(
            **common, occurred_on=breach.first_on, source=of_file, incident_id=incident_id, category=COLLECTED,
            subject=f"{return_id}:{facts.sha256[:12]}", activity=breach.question.activity,
            body_id=breach.question.body_id, n_records=len(breach.rows), found_on=today, assess_by=decision.assess_by,
        )  # fmt: skip

    def ask(fault: Fault, query_id: str) -> Event:
        key = decision.find_query_key(fault)
        return QueryRaised(
            **common, occurred_on=today, participant_id=fault.participant_id,
            source=Source(sha256=facts.sha256, sheet=fault.sheet, row=fault.row), query_id=query_id, rule=fault.rule,
            severity=fault.severity, subject=key[0], episode=standing.episodes.get(key, 0) + 1,
            respondent=fault.respondent, wave=fault.wave, instrument=fault.instrument, item=fault.item,
            sheet=fault.sheet, column_name=fault.column, row=fault.row, return_id=return_id,
            fingerprint=decision.find_settled(key, standing).fingerprint,
            export_line=decision.export_lines.get(fault.sheet, {}).get(fault.row, 0),
        )  # fmt: skip

    def close(query_id: str, reason: QueryReason) -> Event:
        return QueryClosed(**common, occurred_on=today, source=of_file, query_id=query_id, reason=reason)

    def refuse(record: Record) -> Event:
        place = decision.stopped_by[record.key.instrument, record.row]
        return ReturnRefused(
            **common, **record.key._asdict(), occurred_on=today, source=_find_source(facts, record),
            return_id=return_id, n_items=record.n_given, rule=decision.faults[place].rule, query_id=query_ids[place],
        )  # fmt: skip

    told = list(zip(decision.breaches, incident_ids, strict=True))
    incidents = {(breach.question, breach.incident_id): incident_id for breach, incident_id in told}
    new: dict[str, Fault] = {}
    reopened: dict[str, tuple[str, ...]] = {}
    changed: dict[str, None] = {}
    for fault, query_id in zip(decision.faults, query_ids, strict=True):
        settled = decision.find_settled(decision.find_query_key(fault), standing)
        changed |= {query.query_id: None for query in settled.changed}
        if settled.step == "ask":
            new.setdefault(query_id, fault)
        elif settled.step == "reopen" and settled.query:
            reopened[query_id] = settled.query.standing
    mended = find_mended_queries(decision, standing)
    processed = ReturnFileProcessed(
        **common, occurred_on=today, source=of_file, sha256=facts.sha256, return_id=return_id,
        posted_on=sending.posted_on if sending else None, sending_number=sending.sending_number if sending else 0,
        correction=sending.correction if sending else 0, size_bytes=facts.size_bytes, outcome=decision.outcome,
        reason=decision.quarantine_rule, n_accepted=decision.n_accepted, n_repeated=decision.count("repeated"),
        n_refused=decision.count("refused"), n_superseded=decision.count("superseding"), n_queries=len(new),
        responses_sha256=responses_sha256,
    )  # fmt: skip
    return [
        *decision.log_events,
        *(accept(record) for record in decision.records if record.is_taken),
        *(open_incident(breach, incident_id) for breach, incident_id in told if not breach.incident_id),
        *chain.from_iterable(hold(record, record.question) for record in decision.records if record.question),
        *(close(query_id, "changed") for query_id in changed),
        *(
            Voided(**common, occurred_on=today, source=of_file, voids=row, reason="reopened")
            for row in chain.from_iterable(reopened.values())
        ),
        *(ask(fault, query_id) for query_id, fault in new.items()),
        *(refuse(record) for record in decision.records if record.outcome == "refused"),
        *(close(query_id, "mended") for query_id in mended),
        processed,
    ]


def _find_source(facts: FileFacts, record: Record) -> Source:
    return Source(sha256=facts.sha256, sheet=record.key.instrument, row=record.row)


def find_mended_queries(decision: Decision, standing: Standing) -> list[str]:
    """Open queries that this return settles: it tells soundly what they are about, or it is the same sending sent again
    with the sheet and the row they concern and without the fault; or the same pack again, which had not even said which
    sending it was. What a correction leaves out settles nothing: a person could vanish so, and nobody would have
    answered."""
    sending = decision.sending
    if sending is None or decision.quarantine_rule:
        return []
    asked = {decision.find_query_key(fault) for fault in decision.faults}
    told_again = {settled.query.query_id for settled in decision.settled.values() if settled.query}

    def is_mended(key: QueryKey, query: AskedQuery) -> bool:
        if key in decision.mended_elsewhere:
            return True
        if key[0] in decision.told_soundly or (decision.pack_id and key[0].startswith(f"pack:{decision.pack_id}:")):
            return True
        is_own = query.return_id == sending.return_id and not decision.is_overtaken
        if key[1] == IDENTIFIERS_FOUND or not _is_sheet_of_study(query.sheet):
            return is_own
        rows = decision.rows_read.get(query.sheet)
        return is_own and rows is not None and (not query.row or query.row in rows)

    queries = standing.open_queries.items()
    mended = (query.query_id for key, query in queries if key not in asked and is_mended(key, query))
    return [query_id for query_id in mended if query_id not in told_again]


def find_left_open(decision: Decision, standing: Standing) -> list[tuple[QueryKey, AskedQuery]]:
    """Open queries about rows of this very sending that this correction of it no longer has. They stay open: to leave a
    row out answers nothing."""
    sending = decision.sending
    if sending is None or not sending.correction or decision.quarantine_rule or decision.is_overtaken:
        return []
    gone = set(find_mended_queries(decision, standing)) | {
        query.query_id for settled in decision.settled.values() for query in (settled.query, *settled.changed) if query
    }
    asked = {decision.find_query_key(fault) for fault in decision.faults}
    return [
        (key, query)
        for key, query in standing.open_queries.items()
        if query.return_id == sending.return_id
        and query.row
        and key not in asked
        and query.query_id not in gone
        and query.row not in decision.rows_read.get(query.sheet, ())
    ]


# A row whose identifier was at fault ----------------------------------------------------------------------------------

_FEWEST_ALIKE = 3
"""So many filled cells beside the identifier must be the same, for a row to be the same one in another sending."""


def find_unidentified(decision: Decision, standing: Standing) -> dict[QueryKey, AskedQuery]:
    """Open queries from other sendings about a row of which nobody knew whose it was, on a sheet that this one has."""
    if decision.sending is None or decision.quarantine_rule or decision.is_overtaken:
        return {}
    return {
        key: query
        for key, query in standing.open_queries.items()
        if key[1] in IDENTITY_RULES
        and query.row
        and query.sheet in decision.rows_read
        and query.return_id != decision.sending.return_id
    }


def find_identified(
    decision: Decision, reading: Reading, asked: Mapping[QueryKey, AskedQuery], earlier: Mapping[str, Reading]
) -> frozenset[QueryKey]:
    """Which of the queries of `find_unidentified` this return mends: it has the same row, with an identifier that is
    sound. `earlier`: the files that were asked about, by SHA-256, as far as they are there.

    It is the same row where all that stood beside the identifier stands there again, what was blank apart, and where no
    second row says so, in neither file. Else nobody can know, and the query stays open.
    """
    stopped = {(fault.sheet, fault.row) for fault in decision.faults if fault.severity == "hard"}
    return frozenset(
        key
        for key, query in asked.items()
        if query.sha256 in earlier
        and _is_identified(query, reading.sheets[query.sheet], earlier[query.sha256], stopped)
    )


def _is_identified(query: AskedQuery, now: ReadSheet, earlier: Reading, stopped: Collection[tuple[str, int]]) -> bool:
    if query.sheet not in earlier.sheets:
        return False
    before = _list_cells(earlier.sheets[query.sheet])
    told = {name: text for name, text in before.get(query.row, {}).items() if text and name != "participant_id"}
    if len(told) < _FEWEST_ALIKE:
        return False

    def find_alike(rows: Mapping[int, Mapping[str, str]]) -> list[int]:
        return [row for row, cells in rows.items() if all(cells.get(name) == text for name, text in told.items())]

    alike = find_alike(_list_cells(now))
    return len(alike) == 1 and (query.sheet, alike[0]) not in stopped and find_alike(before) == [query.row]


def _list_cells(sheet: ReadSheet) -> dict[int, dict[str, str]]:
    """The cells of each row, as text, by the row's number and the column."""
    names, rows = sheet.frame.columns[1:], sheet.frame["row"].tolist()
    cells = sheet.frame.iloc[:, 1:].to_numpy(dtype=object)
    return {
        row: {name: sheet.odd_cells.get((name, row)) or parse_text(cell) for name, cell in zip(names, own, strict=True)}
        for row, own in zip(rows, cells, strict=True)
    }


def _is_sheet_of_study(sheet: str) -> bool:
    """A log or an instrument: not the file as a whole, its sheet About, or a sheet that the study does not know."""
    return sheet not in ("", ABOUT) and not re.fullmatch(r"sheet_\d+", sheet)
