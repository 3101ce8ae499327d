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

import numpy as np
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
    is_code,
)
from study.instruments import Instrument
from study.pack_layout import LAYOUT_VERSION, Problem, Reading
from study.protocol import Study
from study.queries import FILE_RULES, ROW_RULES, SHEET_RULES, Severity, derive_query_ids
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
    log: Mapping[str, tuple[str, tuple[str, ...], str]]
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
    faults: pd.DataFrame = field(default_factory=lambda: _Faults().frame())
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
            if problem.rule in SHEET_RULES:
                self.stopped_sheets.add(problem.sheet)
            self.stopped_rows |= {
                (problem.sheet, row)
                for row in range(problem.row, problem.last_row + 1)
                if problem.severity == "hard" and row
            }
            self.add_place(
                problem.rule,
                problem.severity,
                sheet=problem.sheet or problem.sheet_title,
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
        """The same fault on each of some rows (columns sheet, row and RECORD_KEY).

        A column that the sheet lacks is one fault of the sheet, told already, and none of its rows.
        """
        for sheet, row, participant_id, respondent, wave, instrument in zip(
            *(frame[name] for name in ["sheet", "row", *RECORD_KEY]), strict=True
        ):
            letter = letters[sheet].get(column, "")
            if not letter:
                continue
            self.add_place(
                rule,
                ROW_RULES[rule],
                sheet=sheet,
                row=int(row),
                column=column,
                cell=f"{letter}{row}",
                expected=expected,
                participant_id=participant_id,
                respondent=respondent,
                wave=wave,
                instrument=instrument,
            )

    def is_stopped(self, sheet: str, row: int) -> bool:
        return sheet in self.stopped_sheets or (sheet, row) in self.stopped_rows

    def frame(self) -> pd.DataFrame:
        table = pd.DataFrame(self.rows, columns=FAULT_COLUMNS).astype({"stops_row": bool})
        return table.drop_duplicates(["sheet", "row", "column", "rule", "item"], ignore_index=True)


def compute_log_content(occurred_on: str, site_id: str, payload: Mapping[str, Any]) -> tuple[str, ...]:
    """What two tellings of one log entry must share to be the same: its date, its site and its payload."""
    texts = (f"{name}={';'.join(value) if isinstance(value, tuple) else value}" for name, value in payload.items())
    return (occurred_on, site_id, *sorted(texts))


def _compute_content(event: ParticipantEvent) -> tuple[str, ...]:
    payload = {name: getattr(event, name) for name in event.payload_types}
    return compute_log_content(event.occurred_on.isoformat(), event.site_id, payload)


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
    reasons = {(scope, reason.id) for reason in study.disposition_reasons for scope in reason.scopes}
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


def _decide_records(
    reading: Reading,
    decision: Decision,
    faults: _Faults,
    study: Study,
    instruments: Mapping[str, Instrument],
    standing: Standing,
    known: pd.DataFrame,
    today: date,
) -> None:
    """The questionnaires: which records are accepted, repeated, superseded or refused."""
    assert decision.sending is not None
    read = {
        instrument_id: reading.sheets[instrument_id]
        for instrument_id in instruments
        if instrument_id in reading.sheets and len(reading.sheets[instrument_id].frame)
    }
    if not read:
        return
    parts, start = [], 0
    for instrument_id, sheet in read.items():
        part = sheet.frame.reindex(columns=["row", "participant_id", "respondent", "form", "wave", "collected_on"])
        part.index = pd.RangeIndex(start, start + len(part))
        start += len(part)
        part["instrument"] = instrument_id
        part["sheet"] = instrument_id
        parts.append(part)
    records = pd.concat(parts)
    for column in ("participant_id", "respondent", "form", "wave"):
        records[column] = records[column].fillna("").astype(object)
    letters = {instrument_id: sheet.letters for instrument_id, sheet in read.items()}
    _find_record_faults(records, faults, letters, instruments, study, known, decision.facts.site_id, today)
    answers = _check_answers(records, read, faults, instruments, letters)

    stopped = [faults.is_stopped(sheet, row) for sheet, row in zip(records["sheet"], records["row"], strict=True)]
    records["outcome"] = pd.Series(stopped, index=records.index).map({True: "refused", False: "accepted"})
    _find_duplicates(records, answers, faults, letters)
    _compare_with_standing(records, answers, faults, letters, standing, decision.sending.return_id)

    accepted = records.index[records["outcome"].isin(["accepted", "superseding"])]
    answers = answers[answers["record"].isin(accepted)]
    responses = answers.merge(
        records[[*RECORD_KEY, "form", "collected_on"]], left_on="record", right_index=True, validate="many_to_one"
    )
    decision.responses = responses.assign(return_id=decision.sending.return_id)[RESPONSE_COLUMNS]
    counts = answers.groupby("record")["missing_reason"].agg(n_items="size", n_answered=lambda s: int((s == "").sum()))
    decision.records = records.join(counts)
    decision.n_accepted = len(accepted)
    decision.n_superseded = int((records["outcome"] == "superseding").sum())
    decision.n_repeated = int((records["outcome"] == "repeated").sum())
    decision.n_refused = int((records["outcome"] == "refused").sum())


def _find_record_faults(
    records: pd.DataFrame,
    faults: _Faults,
    letters: Mapping[str, Mapping[str, str]],
    instruments: Mapping[str, Instrument],
    study: Study,
    known: pd.DataFrame,
    site_id: str,
    today: date,
) -> None:
    """Who, when and which form: one fault of identity per record at most, and every other fault beside it.

    Resolves the wave in place: a label of the protocol becomes its code, an unscheduled occasion keeps its name.
    """
    lookup = {row.participant_id: {"site_id": row.known_site} for row in known.itertuples()}
    rules = {
        name: find_identity_fault(name, site_id, study, lookup, must_be_known=True)
        for name in records["participant_id"].unique()
    }
    records["identity_fault"] = records["participant_id"].map(rules)
    # What may be a name, or another site's secret, goes no further: neither into the ledger nor into a message.
    hidden = records["identity_fault"].isin(["participant_malformed", "participant_of_another_site"])
    records.loc[hidden, "participant_id"] = ""

    waves = {text: find_wave_code(study, text) for text in records["wave"].unique()}
    records["wave"] = records["wave"].map(waves).fillna("")
    allowed_respondents = {name: set(instrument.respondents) for name, instrument in instruments.items()}
    allowed_forms = {name: set(instrument.forms) & set(study.forms) for name, instrument in instruments.items()}
    respondent_ok = [
        respondent in allowed_respondents[instrument] and respondent in study.respondents
        for respondent, instrument in zip(records["respondent"], records["instrument"], strict=True)
    ]
    form_ok = [
        form in allowed_forms[name] for form, name in zip(records["form"], records["instrument"], strict=True)
    ]
    records["respondent_ok"] = respondent_ok
    bad_respondent = records[~np.array(respondent_ok, dtype=bool)]
    for instrument_id, rows in bad_respondent.groupby("instrument"):
        expected = ", ".join(instruments[str(instrument_id)].respondents)
        faults.add_rows(rows.assign(respondent=""), "respondent_unknown", letters, "respondent", expected)
    for instrument_id, rows in records[~np.array(form_ok, dtype=bool)].groupby("instrument"):
        expected = ", ".join(sorted(allowed_forms[str(instrument_id)]))
        faults.add_rows(rows, "form_unknown", letters, "form", expected)
    for rule, rows in records[records["identity_fault"] != ""].groupby("identity_fault"):
        faults.add_rows(rows, str(rule), letters, "participant_id", study.participant_id_example)
    expected = ", ".join(wave.id for wave in study.waves)
    faults.add_rows(records[records["wave"] == ""], "wave_unknown", letters, "wave", expected)

    is_date = records["collected_on"].map(lambda value: isinstance(value, date))
    undated = records[~is_date]
    told = [faults.is_stopped(sheet, row) for sheet, row in zip(undated["sheet"], undated["row"], strict=True)]
    faults.add_rows(undated[~np.array(told, dtype=bool)], "date_missing", letters, "collected_on")
    collected = pd.to_datetime(records["collected_on"].where(is_date))
    future = collected > pd.Timestamp(today)
    faults.add_rows(records[future], "date_in_future", letters, "collected_on", f"a date up to {today:%d %b %Y}")
    consented = pd.to_datetime(records["participant_id"].map(known.set_index("participant_id")["consented_on"]))
    identified = records["identity_fault"] == ""
    faults.add_rows(records[identified & consented.isna()], "consent_not_recorded", letters, "participant_id")
    early = identified & (collected < consented)
    faults.add_rows(records[early], "collected_before_consent", letters, "collected_on")


def find_wave_code(study: Study, text: str) -> str:
    """The code of a wave given by code or label; the name of an unscheduled occasion as it is; '' for neither."""
    wave = study.find_wave(text)
    if wave is not None:
        return wave.id
    return text if study.accepts_unscheduled and is_code(text) else ""


def _check_answers(
    records: pd.DataFrame,
    read: Mapping[str, Any],
    faults: _Faults,
    instruments: Mapping[str, Instrument],
    letters: Mapping[str, Mapping[str, str]],
) -> pd.DataFrame:
    """Every item of every record against its instrument: long answers (record, item, response, missing_reason).

    Adds `n_given` to `records`: how many item cells the site had filled in, whatever became of them.
    """
    records["n_given"] = 0
    long = []
    for instrument_id, sheet in read.items():
        instrument = instruments[instrument_id]
        index = records.index[records["instrument"] == instrument_id]
        items = [item for item in instrument.item_ids if item in sheet.frame]
        cells = sheet.frame[items].set_axis(index, axis=0)
        records.loc[index, "n_given"] = (cells.notna() & (cells != "")).sum(axis=1)
        checked = check_records(instrument, cells)
        if len(checked.faults):
            places = records.loc[checked.faults["record"], ["sheet", "row", *RECORD_KEY]]
            for fault, place in zip(checked.faults.itertuples(), places.itertuples(), strict=True):
                faults.add_place(
                    fault.rule,
                    fault.severity,
                    sheet=place.sheet,
                    row=int(place.row),
                    column=fault.item,
                    cell=f"{letters[instrument_id].get(fault.item, '')}{place.row}",
                    expected=fault.expected,
                    participant_id=place.participant_id,
                    respondent=place.respondent,
                    wave=place.wave,
                    instrument=instrument_id,
                    item=fault.item,
                )
        responses = checked.responses[items]
        long.append(
            pd.DataFrame(
                {
                    "record": index.repeat(len(items)),
                    "item": items * len(index),
                    "response": responses.to_numpy().ravel(),
                    "missing_reason": checked.missing_reasons[items].to_numpy().ravel(),
                }
            )
        )
    return pd.concat(long, ignore_index=True)


def _find_duplicates(
    records: pd.DataFrame, answers: pd.DataFrame, faults: _Faults, letters: Mapping[str, Mapping[str, str]]
) -> None:
    """The same record twice in one file: the same answers count once; answers that differ are all refused, since
    nothing says which is right."""
    sound = records[records["outcome"] == "accepted"]
    twice = sound[sound.duplicated(RECORD_KEY, keep=False)]
    for _, group in twice.groupby(RECORD_KEY, sort=True):
        told = {_compute_telling(records, answers, record) for record in group.index}
        if len(told) == 1:
            records.loc[group.index[1:], "outcome"] = "repeated"
        else:
            records.loc[group.index, "outcome"] = "refused"
            faults.add_rows(group, "duplicate_in_file", letters, "participant_id")


def _compute_telling(records: pd.DataFrame, answers: pd.DataFrame, record: int) -> tuple[Any, ...]:
    """A record's date, form and answers as one comparable value (answers in the order of items; a blank by reason)."""
    cells = answers[answers["record"] == record].sort_values("item")
    values = tuple(zip(cells["item"], cells["response"].fillna(-1e300), cells["missing_reason"], strict=True))
    return (records.at[record, "collected_on"], records.at[record, "form"], values)


def _compare_with_standing(
    records: pd.DataFrame,
    answers: pd.DataFrame,
    faults: _Faults,
    letters: Mapping[str, Mapping[str, str]],
    standing: Standing,
    return_id: str,
) -> None:
    """Records that were accepted before: repeated, superseding (this sending corrects itself), or in conflict.

    Sets `version` (1 for a first acceptance) and `supersedes_return_id`.
    """
    records["version"], records["supersedes_return_id"] = 1, ""
    columns = [*RECORD_KEY, "version", "return_id", "form", "collected_on"]
    before = records.loc[records["outcome"] == "accepted", RECORD_KEY].reset_index()
    before = before.merge(standing.returns[columns], on=RECORD_KEY).set_index("index")
    if before.empty:
        return
    old = standing.answers.merge(before.reset_index()[[*RECORD_KEY, "index"]], on=RECORD_KEY)
    both = answers[answers["record"].isin(before.index)].merge(
        old[["index", "item", "response", "missing_reason"]],
        left_on=["record", "item"], right_on=["index", "item"], how="outer", suffixes=("", "_old"), indicator=True,
    )  # fmt: skip
    equal = (
        (both["_merge"] == "both")
        & ((both["response"] == both["response_old"]) | (both["response"].isna() & both["response_old"].isna()))
        & (both["missing_reason"].fillna("") == both["missing_reason_old"].fillna(""))
    )
    same_answers = equal.groupby(both["record"].fillna(both["index"]).astype(int)).all()
    same = same_answers.reindex(before.index, fill_value=False)
    same &= before["form"] == records.loc[before.index, "form"]
    same &= pd.to_datetime(before["collected_on"]) == pd.to_datetime(records.loc[before.index, "collected_on"])
    own = before["return_id"] == return_id
    records.loc[before.index[same], "outcome"] = "repeated"
    superseding = before.index[~same & own]
    records.loc[superseding, "outcome"] = "superseding"
    records.loc[superseding, "version"] = before.loc[superseding, "version"].astype(int) + 1
    records.loc[superseding, "supersedes_return_id"] = before.loc[superseding, "return_id"]
    conflicting = before.index[~same & ~own]
    records.loc[conflicting, "outcome"] = "refused"
    faults.add_rows(records.loc[conflicting], "conflicts_with_accepted", letters, "participant_id")


def derive_return_events(
    decision: Decision, standing: Standing, n_queries_already: int, responses_sha256: str, today: date, requested_by: str
) -> list[Event]:
    """The decision as events of the ledger, with numbers for new queries (sets `query_id` in `decision.faults`).

    Call it under the write lock with the number of queries the site has had so far. A fault whose query is open
    already is not asked again; queries that this return settles are closed as mended.
    """
    facts, sending = decision.facts, decision.sending
    return_id = sending.return_id if sending else ""
    common: dict[str, Any] = {"site_id": facts.site_id, "requested_by": requested_by}
    events = list(decision.log_events)
    records = decision.records
    if len(records):
        for row in records[records["outcome"].isin(["accepted", "superseding"])].itertuples():
            events.append(
                ReturnAccepted(
                    **common, occurred_on=row.collected_on, participant_id=row.participant_id,
                    source=Source(sha256=facts.sha256, sheet=row.sheet, row=row.row), return_id=return_id,
                    respondent=row.respondent, wave=row.wave, instrument=row.instrument, form=row.form,
                    version=row.version, supersedes_return_id=row.supersedes_return_id, n_items=int(row.n_items),
                    n_answered=int(row.n_answered), responses_sha256=responses_sha256,
                )  # fmt: skip
            )
    faults = decision.faults
    faults["subject"] = [_derive_subject(fault, return_id, facts.sha256) for fault in faults.itertuples()]
    opened = standing.queries[standing.queries["status"] == "open"]
    open_ids = dict(
        zip(zip(opened["subject"], opened["rule"], opened["item"], strict=True), opened["query_id"], strict=True)
    )
    asked = list(zip(faults["subject"], faults["rule"], faults["item"], strict=True))
    new = [key for key in dict.fromkeys(asked) if key not in open_ids]
    new_ids = dict(zip(new, derive_query_ids(facts.site_id, n_queries_already, len(new)), strict=True))
    faults["query_id"] = [open_ids.get(key) or new_ids[key] for key in asked]
    source = Source(sha256=facts.sha256)
    for fault in faults.drop_duplicates("query_id").itertuples():
        if fault.query_id not in set(new_ids.values()):
            continue
        events.append(
            QueryRaised(
                **common, occurred_on=today, participant_id=fault.participant_id,
                source=Source(sha256=facts.sha256, sheet=fault.sheet, row=fault.row), query_id=fault.query_id,
                rule=fault.rule, severity=fault.severity, subject=fault.subject,
                episode=standing.n_episodes.get((fault.subject, fault.rule, fault.item), 0) + 1,
                respondent=fault.respondent, wave=fault.wave, instrument=fault.instrument, item=fault.item,
                sheet=fault.sheet, column_name=fault.column, row=fault.row, return_id=return_id,
            )  # fmt: skip
        )
    if len(records):
        stops = faults[faults["stops_row"]]
        by_row = stops.drop_duplicates(["sheet", "row"]).set_index(["sheet", "row"])[["rule", "query_id"]]
        for row in records[records["outcome"] == "refused"].itertuples():
            place = (row.sheet, row.row) if (row.sheet, row.row) in by_row.index else (row.sheet, 0)
            events.append(
                ReturnRefused(
                    **common, occurred_on=today, participant_id=row.participant_id,
                    source=Source(sha256=facts.sha256, sheet=row.sheet, row=row.row), return_id=return_id,
                    respondent=row.respondent if row.respondent_ok else "", wave=row.wave, instrument=row.instrument,
                    n_items=int(row.n_given), rule=by_row.at[place, "rule"], query_id=by_row.at[place, "query_id"],
                )  # fmt: skip
            )
    for query in find_mended_queries(decision, opened, set(asked)):
        events.append(QueryClosed(**common, occurred_on=today, source=source, query_id=query, reason="mended"))
    events.append(
        ReturnFileProcessed(
            **common, occurred_on=today, source=source, sha256=facts.sha256, return_id=return_id,
            posted_on=sending.posted_on if sending else None, sending_number=sending.sending_number if sending else 0,
            correction=sending.correction if sending else 0, size_bytes=facts.size_bytes, outcome=decision.outcome,
            reason=decision.quarantine_rule, n_accepted=decision.n_accepted, n_repeated=decision.n_repeated,
            n_refused=decision.n_refused, n_superseded=decision.n_superseded, n_queries=len(new),
            responses_sha256=responses_sha256,
        )  # fmt: skip
    )
    return events


def _derive_subject(fault: Any, return_id: str, sha256: str) -> str:
    """What a query is about: the record or log entry where it can be named, else the place in the sending, else the
    file. The same fault in a corrected file has the same subject, so it is asked once."""
    if fault.participant_id and fault.respondent and fault.wave and fault.instrument:
        return f"{fault.participant_id}:{fault.respondent}:{fault.wave}:{fault.instrument}"
    if fault.participant_id and fault.sheet:
        return f"{fault.participant_id}:{fault.sheet}"
    if return_id:
        return f"{return_id}:{fault.sheet or 'file'}:{fault.cell or fault.column or fault.row}"
    return f"file:{sha256[:16]}"


def find_mended_queries(decision: Decision, opened: pd.DataFrame, asked: set[tuple[str, str, str]]) -> list[str]:
    """Open queries that this return settles: it holds the record soundly, or it is the same sending sent again without
    the fault."""
    if decision.sending is None or decision.quarantine_rule:
        return []
    sound = {f"{event.participant_id}:{sheet}" for event, sheet in _find_log_places(decision)}
    records = decision.records
    if len(records):
        passed = records[records["outcome"] != "refused"]
        sound |= {":".join(key) for key in passed[RECORD_KEY].itertuples(index=False)}
    return [
        query.query_id
        for query in opened.itertuples()
        if (query.subject, query.rule, query.item) not in asked
        and (query.subject in sound or query.return_id == decision.sending.return_id)
    ]


def _find_log_places(decision: Decision) -> list[tuple[Event, str]]:
    return [(event, event.source.sheet) for event in decision.log_events if event.source is not None]
