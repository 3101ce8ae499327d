"""What a site's return is worth: which records are accepted, repeated, superseded, refused, and what is asked about them.

Everything wrong with a file is found in one pass, so that the site is asked once. One fault never harms the rest of
the file: a hard rule stops the row it concerns, and only a file that cannot be identified at all is quarantined.

A record is one respondent's answers to one instrument at one wave. A **sending** (site, posting date, number) may be
sent again with changes; then it corrects itself: what differs supersedes what came before. The same file again changes
nothing, whatever its name. Answers that differ from accepted ones in any other sending are a conflict, asked about and
not accepted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pandas as pd

from study.events import (
    ConsentRecorded,
    DispositionRecorded,
    Event,
    ParticipantAllocated,
    ParticipantEvent,
    ParticipantScreened,
    QueryClosed,
    QueryRaised,
    ReturnAccepted,
    ReturnFileProcessed,
    ReturnRefused,
    Source,
    Voided,
)
from study.instruments import Instrument
from study.pack_layout import LAYOUT_VERSION, Problem, Reading
from study.protocol import Study
from study.queries import FILE_RULES, PLACE_RULES, ROW_RULES, Severity, derive_query_ids
from study.validation import check_records

RECORD_KEY = ["participant_id", "respondent", "wave", "instrument"]
RESPONSE_COLUMNS = [*RECORD_KEY, "form", "item", "response", "missing_reason", "collected_on", "return_id"]
FAULT_COLUMNS = [
    "sheet", "row", "column", "cell", "rule", "severity", "expected", "participant_id", "respondent", "wave",
    "instrument", "item", "stops_row",
]  # fmt: skip


@dataclass(frozen=True)
class FileFacts:
    """What is known of a file before it is read."""

    sha256: str
    size_bytes: int
    site_id: str


@dataclass(frozen=True)
class Standing:
    """What the study already holds, as a return meets it.

    participants: rows of `state.derive_participants`. log: standing log events, columns key, hash, content (the event's
    own fields as `compute_log_content` gives them), return_id of the file it came from. returns: current accepted
    records, columns RECORD_KEY + version, return_id, form, collected_on. answers: long responses (RESPONSE_COLUMNS) of
    those records which the return names again. queries: the site's open queries, rows of `state.derive_queries`.
    n_episodes: how often each (subject, rule, item) was asked before.
    """

    participants: pd.DataFrame
    log: Mapping[str, tuple[str, tuple[Any, ...], str]]
    returns: pd.DataFrame
    answers: pd.DataFrame
    queries: pd.DataFrame
    n_episodes: Mapping[tuple[str, str, str], int]


@dataclass(frozen=True)
class Sending:
    """Which sending a file says it is."""

    return_id: str
    posted_on: date
    sending_number: int
    correction: int


@dataclass
class Decision:
    """What follows from a return. Queries carry no number yet: `number_queries` gives them one, under the lock."""

    facts: FileFacts
    sending: Sending | None
    quarantine_rule: str = ""
    responses: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=RESPONSE_COLUMNS))
    faults: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=FAULT_COLUMNS))
    records: pd.DataFrame = field(default_factory=pd.DataFrame)
    log_events: list[Event] = field(default_factory=list)
    n_log_repeated: int = 0
    n_accepted: int = 0
    n_repeated: int = 0
    n_refused: int = 0
    n_superseded: int = 0

    @property
    def outcome(self) -> str:
        if self.quarantine_rule:
            return "quarantined"
        if not self.n_refused and not self.faults["stops_row"].any():
            return "accepted"
        something = self.n_accepted + self.n_repeated + self.n_log_repeated + len(self.log_events)
        return "accepted_in_part" if something else "nothing_accepted"


def decide_return(
    reading: Reading,
    facts: FileFacts,
    study: Study,
    instruments: Mapping[str, Instrument],
    standing: Standing,
    today: date,
    requested_by: str,
) -> Decision:
    """Everything that follows from one return, decided on what stands.

    `reading`: the workbook as read (raw cells). `today`: the study day; nothing may be dated after it.
    """
    sending, rule = parse_sending(reading, facts, study, today)
    if sending is None or rule:
        return decide_quarantine(facts, rule, sending)
    decision = Decision(facts, sending)
    faults = _Faults()
    faults.add_problems(reading.problems)
    known = _decide_log(reading, decision, faults, study, standing, today, requested_by)
    _decide_records(reading, decision, faults, study, instruments, standing, known, today)
    decision.faults = faults.frame()
    return decision


def decide_quarantine(facts: FileFacts, rule: str, sending: Sending | None = None) -> Decision:
    """A file that is kept as it came and read no further; the site is asked about it as a whole."""
    faults = _Faults()
    faults.add_place(rule, FILE_RULES[rule])
    return Decision(facts, sending, quarantine_rule=rule, faults=faults.frame())


def parse_sending(reading: Reading, facts: FileFacts, study: Study, today: date) -> tuple[Sending | None, str]:
    """Which sending a file is, from its About sheet, or the rule that sends it to quarantine."""
    for problem in reading.problems:
        if problem.rule in FILE_RULES:
            return None, problem.rule
    about = reading.about
    if not about:
        return None, "about_missing"
    if about.get("study") != study.study_id:
        return None, "wrong_study" if about.get("study") else "about_incomplete"
    if about.get("site") != facts.site_id:
        return None, "wrong_site" if about.get("site") else "about_incomplete"
    if str(about.get("layout_version")) != str(LAYOUT_VERSION):
        return None, "wrong_layout_version"
    posted_on, number = about.get("posted_on"), about.get("sending_number")
    if not isinstance(posted_on, date) or not isinstance(number, int) or number < 1:
        return None, "about_incomplete"
    correction = about.get("correction") or 0
    if not isinstance(correction, int) or correction < 0:
        return None, "about_incomplete"
    sending = Sending(f"{facts.site_id}-{posted_on.isoformat()}-{number}", posted_on, number, correction)
    return (sending, "posted_in_future") if posted_on > today else (sending, "")


class _Faults:
    """Faults of one file as they are found; one row each in the end (FAULT_COLUMNS)."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.stopped_sheets: set[str] = set()
        self.stopped_rows: set[tuple[str, int]] = set()

    def add_problems(self, problems: Sequence[Problem]) -> None:
        """What the reader of the workbook found. A missing column stops its sheet, a faulty cell its row."""
        for problem in problems:
            severity = PLACE_RULES[problem.rule]
            if severity == "hard" and problem.rule in ("missing_column", "codes_missing"):
                self.stopped_sheets.add(problem.sheet)
            self.add_place(
                problem.rule,
                severity,
                sheet=problem.sheet,
                row=problem.row,
                column=problem.column,
                cell=problem.cell,
                expected=problem.expected,
            )

    def add_place(self, rule: str, severity: Severity, **where: Any) -> None:
        row = dict.fromkeys(FAULT_COLUMNS, "") | {"row": 0} | where | {"rule": rule, "severity": severity}
        row["stops_row"] = severity == "hard"
        if row["stops_row"] and row["row"]:
            self.stopped_rows.add((row["sheet"], row["row"]))
        self.rows.append(row)

    def add_rows(
        self, frame: pd.DataFrame, rule: str, letters: Mapping[str, Mapping[str, str]], column: str, expected: str = ""
    ) -> None:
        """The same fault on each of some rows (columns sheet, row and RECORD_KEY)."""
        for sheet, row, participant_id, respondent, wave, instrument in zip(
            *(frame[name] for name in ["sheet", "row", *RECORD_KEY]), strict=True
        ):
            letter = letters.get(sheet, {}).get(column, "")
            self.add_place(
                rule,
                ROW_RULES[rule],
                sheet=sheet,
                row=int(row),
                column=column,
                cell=f"{letter}{row}" if letter else "",
                expected=expected,
                participant_id=participant_id,
                respondent=respondent,
                wave=wave,
                instrument=instrument,
            )

    def is_stopped(self, sheet: str, row: int) -> bool:
        return sheet in self.stopped_sheets or (sheet, row) in self.stopped_rows

    def frame(self) -> pd.DataFrame:
        table = pd.DataFrame(self.rows, columns=FAULT_COLUMNS)
        return table.drop_duplicates(["sheet", "row", "column", "rule", "item"], ignore_index=True)


def _compute_content(event: ParticipantEvent) -> tuple[Any, ...]:
    return (event.occurred_on.isoformat(), event.site_id, event.encode_payload())


def compute_log_content(occurred_on: str, site_id: str, payload: str) -> tuple[Any, ...]:
    """What two tellings of one log entry must share to be the same; as the ledger holds it."""
    return (occurred_on, site_id, payload)


def _decide_log(
    reading: Reading,
    decision: Decision,
    faults: _Faults,
    study: Study,
    standing: Standing,
    today: date,
    requested_by: str,
) -> pd.DataFrame:
    """Screening, consent, allocation and disposition: new events, repeats, faults.

    Logs may be cumulative: a site can send the whole log each time, and what stands already is a repeat. An entry that
    differs from the record supersedes it only where this sending itself brought the record; else it is asked about.
    Returns who is known now: participant_id, site_id, consented_on.
    """
    assert decision.sending is not None
    known = {
        row.participant_id: {"site_id": row.site_id, "consented_on": row.consented_on, "screened_on": row.screened_on}
        for row in standing.participants[["participant_id", "site_id", "consented_on", "screened_on"]].itertuples()
    }
    site_id = decision.facts.site_id
    cohorts = {cohort.id for cohort in study.cohorts}
    arms = {arm.id for arm in study.arms}
    reasons = {(reason.scope, reason.id) for reason in study.disposition_reasons}
    form_versions = {form.version for form in study.consent_forms}
    scopes = {scope.id for scope in study.consent_scopes}

    def record(event: ParticipantEvent, sheet: str, row: int) -> bool:
        """One entry of a log against what stands; True where it stands now."""
        stands = standing.log.get(event.key)
        if stands is None:
            decision.log_events.append(event)
            return True
        standing_hash, content, return_id = stands
        if content == _compute_content(event):
            decision.n_log_repeated += 1
            return True
        if return_id and decision.sending is not None and return_id == decision.sending.return_id:
            decision.log_events.append(
                Voided(
                    occurred_on=today, requested_by=requested_by, site_id=site_id,
                    participant_id=event.participant_id, source=event.source, voids=standing_hash, reason="superseded",
                )  # fmt: skip
            )
            decision.log_events.append(event)
            return True
        fault("differs_from_record", sheet, row, "participant_id", event.participant_id)
        return False

    def fault(rule: str, sheet: str, row: int, column: str, participant_id: str, expected: str = "") -> None:
        letter = reading.sheets[sheet].letters.get(column, "")
        faults.add_place(
            rule, ROW_RULES[rule], sheet=sheet, row=row, column=column, cell=f"{letter}{row}" if letter else "",
            expected=expected, participant_id=participant_id if participant_id in known else "",
        )  # fmt: skip

    def find_date(entry: Any, sheet: str, column: str, participant_id: str) -> date | None:
        day = getattr(entry, column)
        if not isinstance(day, date):
            if not faults.is_stopped(sheet, entry.row):
                fault("date_missing", sheet, entry.row, column, participant_id)
            return None
        if day > today:
            fault("date_in_future", sheet, entry.row, column, participant_id, f"a date up to {today:%d %b %Y}")
            return None
        return day

    def find_participant(entry: Any, sheet: str, *, must_be_known: bool) -> str:
        participant_id: str = entry.participant_id
        rule = find_identity_fault(participant_id, site_id, study, known, must_be_known=must_be_known)
        if rule:
            fault(rule, sheet, entry.row, "participant_id", "", study.participant_id_example)
            return ""
        return participant_id

    def entries(sheet: str) -> list[Any]:
        if sheet not in reading.sheets or sheet in faults.stopped_sheets:
            return []
        return [e for e in reading.sheets[sheet].frame.itertuples() if not faults.is_stopped(sheet, e.row)]

    def source(sheet: str, row: int) -> Source:
        return Source(sha256=decision.facts.sha256, sheet=sheet, row=row)

    common = {"site_id": site_id, "requested_by": requested_by}
    for entry in entries("screening"):
        if not (participant_id := find_participant(entry, "screening", must_be_known=False)):
            continue
        if entry.cohort not in cohorts:
            fault("code_unknown", "screening", entry.row, "cohort", participant_id, ", ".join(sorted(cohorts)))
            continue
        screened_on = find_date(entry, "screening", "screened_on", participant_id)
        if screened_on is None:
            continue
        about_person = {**common, "participant_id": participant_id, "source": source("screening", entry.row)}
        screened = ParticipantScreened(**about_person, occurred_on=screened_on, cohort=entry.cohort)
        if not record(screened, "screening", entry.row):
            continue
        person = known.setdefault(
            participant_id, {"site_id": site_id, "consented_on": pd.NaT, "screened_on": pd.Timestamp(screened_on)}
        )
        if not entry.consented_on and not entry.consent_form_version:
            continue
        consented_on = find_date(entry, "screening", "consented_on", participant_id)
        if consented_on is None:
            continue
        if consented_on < screened_on:
            fault("dates_out_of_order", "screening", entry.row, "consented_on", participant_id,
                  "a date on or after screened_on")  # fmt: skip
            continue
        if entry.consent_form_version not in form_versions:
            fault("code_unknown", "screening", entry.row, "consent_form_version", participant_id,
                  ", ".join(sorted(form_versions)))  # fmt: skip
            continue
        given = {scope.strip() for scope in str(entry.consent_scopes or "").replace(",", ";").split(";")} - {""}
        if not given or not given <= scopes:
            fault("code_unknown", "screening", entry.row, "consent_scopes", participant_id,
                  "; ".join(sorted(scopes)))  # fmt: skip
            continue
        consent = ConsentRecorded(
            **about_person, occurred_on=consented_on, form_version=entry.consent_form_version,
            scopes=tuple(sorted(given)), basis=study.consent_basis,
        )  # fmt: skip
        if record(consent, "screening", entry.row):
            person["consented_on"] = pd.Timestamp(consented_on)
    for entry in entries("allocation"):
        if not (participant_id := find_participant(entry, "allocation", must_be_known=True)):
            continue
        if entry.arm not in arms:
            fault("code_unknown", "allocation", entry.row, "arm", participant_id, ", ".join(sorted(arms)))
            continue
        allocated_on = find_date(entry, "allocation", "allocated_on", participant_id)
        if allocated_on is None:
            continue
        screened_on = known[participant_id]["screened_on"]
        if pd.notna(screened_on) and pd.Timestamp(allocated_on) < screened_on:
            fault("dates_out_of_order", "allocation", entry.row, "allocated_on", participant_id,
                  "a date on or after screened_on")  # fmt: skip
            continue
        about_person = {**common, "participant_id": participant_id, "source": source("allocation", entry.row)}
        record(ParticipantAllocated(**about_person, occurred_on=allocated_on, arm=entry.arm), "allocation", entry.row)
    for entry in entries("disposition"):
        if not (participant_id := find_participant(entry, "disposition", must_be_known=True)):
            continue
        if (entry.scope, entry.reason) not in reasons:
            allowed = ", ".join(sorted(reason for scope, reason in reasons if scope == entry.scope))
            fault("code_unknown", "disposition", entry.row, "reason", participant_id, allowed)
            continue
        left_on = find_date(entry, "disposition", "left_on", participant_id)
        if left_on is None:
            continue
        screened_on = known[participant_id]["screened_on"]
        if pd.notna(screened_on) and pd.Timestamp(left_on) < screened_on:
            fault("dates_out_of_order", "disposition", entry.row, "left_on", participant_id,
                  "a date on or after screened_on")  # fmt: skip
            continue
        about_person = {**common, "participant_id": participant_id, "source": source("disposition", entry.row)}
        left = DispositionRecorded(**about_person, occurred_on=left_on, scope=entry.scope, reason=entry.reason)
        record(left, "disposition", entry.row)
    return pd.DataFrame(
        [
            {"participant_id": name, "known_site": person["site_id"], "consented_on": person["consented_on"]}
            for name, person in known.items()
        ],
        columns=["participant_id", "known_site", "consented_on"],
    )


def find_identity_fault(
    participant_id: str, site_id: str, study: Study, known: Mapping[str, Any], *, must_be_known: bool
) -> str:
    """The rule that an identifier breaks, or ''. A malformed one may be a name: it is never shown or recorded."""
    if not participant_id:
        return "participant_missing"
    if not study.is_participant_id(participant_id):
        return "participant_malformed"
    home = known[participant_id]["site_id"] if participant_id in known else study.participant_site(participant_id)
    if home is not None and home != site_id:
        return "participant_of_another_site"
    if must_be_known and participant_id not in known:
        return "participant_unknown"
    return ""
