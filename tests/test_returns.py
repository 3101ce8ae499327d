"""What a return is worth, in literal tables: what each rule stops, how sendings correct themselves, what is asked once.

Readings are made by hand here, and the ledger is a list of events; `test_bad_input` sends real workbooks.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.events import (
    ConsentRecorded,
    Event,
    ParticipantScreened,
    QueryClosed,
    QueryRaised,
    ReturnAccepted,
    ReturnFileProcessed,
    ReturnRefused,
    Voided,
)
from study.incidents import SiteGate
from study.instruments import Instrument
from study.pack_layout import Layout, Problem, Reading, ReadSheet, derive_return_layout
from study.protocol import Study
from study.queries import (
    FILE_RULES,
    GATE_RULES,
    NOTHING_FILLED_IN,
    PLACE_RULES,
    RETURN_RULES,
    ROW_RULES,
    SHEET_RULES,
    derive_query_ids,
    derive_seal,
)
from study.returns import (
    RECORD_KEY,
    RESPONSE_COLUMNS,
    Decision,
    FileFacts,
    decide_quarantine,
    decide_return,
    derive_homes,
    derive_responses,
    derive_return_events,
    derive_standing,
    find_files_asked_about,
    find_mended_queries,
    find_named_again,
    find_processed_file,
    find_wave_code,
    number_queries,
    settle_queries,
)
from study.state import derive_participants, derive_queries, derive_returns
from study.validation import RULES
from tasks.definitions import load_instruments, load_study
from tasks.receipts import find_wording, read_wording
from tests.test_state import tell

STUDY = load_study("cdisc_pilot")
INSTRUMENTS = load_instruments(STUDY)
LAYOUT = derive_return_layout(STUDY, INSTRUMENTS)
TODAY = date(2013, 3, 1)
ANN, BEN, NEW = "01-702-1001", "01-702-1002", "01-702-1003"
FULL_MARKS = {"mmse01": 5, "mmse02": 5, "mmse03": 3, "mmse04": 5, "mmse05": 3, "mmse06": 9}

Row = dict[str, Any]


def screened(participant_id: str, **cells: Any) -> Row:
    return {
        "participant_id": participant_id, "cohort": "alzheimers_disease", "screened_on": date(2013, 2, 1),
        "consented_on": date(2013, 2, 1), "consent_form_version": "1", "consent_scopes": "treatment; questionnaires",
    } | cells  # fmt: skip


def allocated(participant_id: str, **cells: Any) -> Row:
    return {"participant_id": participant_id, "arm": "placebo", "allocated_on": date(2013, 2, 14)} | cells


def left(participant_id: str, **cells: Any) -> Row:
    row = {"participant_id": participant_id, "scope": "treatment", "reason": "adverse_event"}
    return row | {"left_on": date(2013, 2, 20)} | cells


def mmse(participant_id: str, **cells: Any) -> Row:
    row = {"participant_id": participant_id, "respondent": "self", "form": "standard", "wave": "screening"}
    return row | {"collected_on": date(2013, 2, 10)} | FULL_MARKS | cells


def npi_x(participant_id: str, **cells: Any) -> Row:
    items = {item.id: 0 for item in INSTRUMENTS["npi_x"].items if item.id.endswith("_present")}
    row = {"participant_id": participant_id, "respondent": "carer", "form": "standard", "wave": "week_2"}
    return row | {"collected_on": date(2013, 2, 28)} | items | cells


def make_reading(
    sheets: Mapping[str, Sequence[Row]],
    about: Mapping[str, Any],
    problems: Sequence[Problem] = (),
    layout: Layout = LAYOUT,
) -> Reading:
    """As the reader gives it: rows from 3 on, every column of the layout unless a problem says that it is missing."""
    read = {}
    for code, rows in sheets.items():
        lacking = {problem.column for problem in problems if (problem.rule, problem.sheet) == ("missing_column", code)}
        columns = [column for column in layout.sheet_by_code[code].columns if column.code not in lacking]
        blank = {"text": "", "month": ""}
        cells = [[row.get(column.code, blank.get(column.kind)) for column in columns] for row in rows]
        frame = pd.DataFrame(cells, columns=[column.code for column in columns], dtype=object)
        for column in layout.sheet_by_code[code].columns:
            if column.code in lacking and column.kind != "item":
                frame[column.code] = blank.get(column.kind)
        frame.insert(0, "row", np.arange(3, 3 + len(rows), dtype=np.int64))
        letters = dict(zip((column.code for column in columns), _letters(), strict=False))
        read[code] = ReadSheet(code, layout.find_title(code), 1, frame, letters)
    return Reading(dict(about), read, tuple(problems))


def _letters() -> Any:
    single = [chr(65 + n) for n in range(26)]
    return itertools.chain(single, (first + second for first in single for second in single))


@dataclass
class Received:
    decision: Decision
    query_ids: list[str]
    events: list[Event]

    def find(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def file(self) -> ReturnFileProcessed:
        [file] = self.find(ReturnFileProcessed)
        return file

    @property
    def faults(self) -> list[tuple[str, str, str, str]]:
        told = [fault for fault in self.decision.faults if not self.decision.is_silent(fault)]
        return [(fault.rule, fault.sheet, fault.cell, fault.severity) for fault in told]

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Accepted (superseding ones among them), repeated, refused, superseding."""
        return (self.file.n_accepted, self.file.n_repeated, self.file.n_refused, self.file.n_superseded)


@dataclass
class Site:
    """A site that sends, and a study that keeps what follows as a list of events, as its ledger would."""

    site_id: str = "702"
    events: list[Event] = field(default_factory=list)
    answers: dict[str, pd.DataFrame] = field(default_factory=dict)
    study: Study = STUDY
    instruments: Mapping[str, Instrument] = field(default_factory=lambda: INSTRUMENTS)
    layout: Layout = LAYOUT

    def send(
        self,
        sheets: Mapping[str, Sequence[Row]],
        *problems: Problem,
        posted_on: date = date(2013, 3, 1),
        number: int = 1,
        correction: int = 0,
        today: date = TODAY,
        about: Mapping[str, Any] | None = None,
        sha256: str = "",
    ) -> Received:
        facts = {"study": self.study.study_id, "site": self.site_id, "posted_on": posted_on, "sending_number": number}
        facts |= {"correction": correction, "layout_version": self.layout.version} | dict(about or {})
        sha256 = sha256 or hashlib.sha256(repr((sheets, facts, problems)).encode()).hexdigest()
        view = tell(*self.events)
        standing = derive_standing(view, self.site_id, derive_homes(view))
        reading = make_reading(sheets, facts, problems, self.layout)
        named = find_named_again(reading, self.study, self.instruments, standing)
        parts = []
        for kept_as in sorted({standing.records[key].responses_sha256 for key in named}):
            own = {key for key in named if standing.records[key].responses_sha256 == kept_as}
            kept = self.answers[kept_as]
            keys = kept[RECORD_KEY].itertuples(index=False, name=None)
            parts.append(kept[np.array([key in own for key in keys], dtype=bool)])
        answers = pd.concat(parts) if parts else pd.DataFrame(columns=RESPONSE_COLUMNS)
        decision = decide_return(
            reading, FileFacts(sha256, 5000, self.site_id), self.study, self.instruments, standing, answers, today,
            "Mary", SiteGate(self.study, view, self.site_id, today),
        )  # fmt: skip
        return self.record(decision, standing)

    def record(self, decision: Decision, standing: Any = None) -> Received:
        if standing is None:
            view = tell(*self.events)
            standing = derive_standing(view, self.site_id, derive_homes(view))
        seals = {sha256: derive_seal(sha256.encode()) for sha256 in find_files_asked_about(decision, standing)}
        decision = settle_queries(decision, standing, seals)
        asked = [event for event in self.events if isinstance(event, QueryRaised) and event.site_id == self.site_id]
        query_ids = number_queries(decision, standing, len(asked))
        responses = derive_responses(decision)
        sha256 = decision.facts.sha256
        events = derive_return_events(decision, standing, query_ids, sha256 if len(responses) else "", TODAY, "Mary")
        self.answers[sha256] = responses
        self.events += events
        self._check_keys()
        return Received(decision, query_ids, events)

    def _check_keys(self) -> None:
        """What a ledger would refuse: a key that stands already."""
        voided = {event.voids for event in self.events if isinstance(event, Voided)}
        standing = [event.key for seq, event in enumerate(self.events, 1) if f"{seq:064x}" not in voided]
        assert len(standing) == len(set(standing))

    @property
    def view(self) -> Any:
        return tell(*self.events)

    def find_marks(self) -> dict[tuple[str, str], float]:
        """The standing answer to mmse01 by participant and wave."""
        returns = derive_returns(self.view)
        marks = {}
        for row in returns[returns["is_current"] & (returns["instrument"] == "mmse")].itertuples():
            kept = self.answers[row.responses_sha256]
            own = kept[(kept["participant_id"] == row.participant_id) & (kept["wave"] == row.wave)]
            marks[row.participant_id, row.wave] = own.loc[own["item"] == "mmse01", "response"].item()
        return marks

    def list_queries(self, status: str = "open") -> list[tuple[str, str]]:
        queries = derive_queries(self.view)
        queries = queries[queries["status"] == status]
        return list(zip(queries["query_id"], queries["rule"], strict=True))


def start(*participants: str) -> Site:
    """A site that has screened these people and received their consent."""
    site = Site()
    site.send({"screening": [screened(name) for name in participants]}, posted_on=date(2013, 2, 8))
    return site


# One row is wrong ---------------------------------------------------------------------------------------------------

# rule, sheet, what is wrong with its second row, the cell that is named, what the site is told to expect there
BASE: dict[str, Any] = {"screening": screened, "allocation": allocated, "disposition": left, "mmse": mmse}
ONE_ROW = [
    ("participant_missing", "mmse", {"participant_id": ""}, "A4", "01-701-1015"),
    ("participant_malformed", "mmse", {"participant_id": "Ann Jones"}, "A4", "01-701-1015"),
    ("participant_unknown", "mmse", {"participant_id": "01-702-9999"}, "A4", "01-701-1015"),
    ("participant_of_another_site", "mmse", {"participant_id": "01-706-1001"}, "A4", "01-701-1015"),
    ("participant_missing", "screening", {"participant_id": ""}, "A4", "01-701-1015"),
    ("participant_malformed", "screening", {"participant_id": "Ann Jones"}, "A4", "01-701-1015"),
    ("participant_of_another_site", "screening", {"participant_id": "01-706-1001"}, "A4", "01-701-1015"),
    ("participant_unknown", "allocation", {"participant_id": "01-702-9999"}, "A4", "01-701-1015"),
    ("participant_unknown", "disposition", {"participant_id": "01-702-9999"}, "A4", "01-701-1015"),
    ("code_unknown", "screening", {"cohort": "stroke"}, "B4", "alzheimers_disease"),
    ("code_unknown", "screening", {"consent_form_version": "7"}, "E4", "1"),
    ("code_unknown", "screening", {"consent_form_version": ""}, "E4", "1"),
    ("code_unknown", "screening", {"consent_scopes": "treatment; dancing"}, "F4", "treatment, questionnaires"),
    ("code_unknown", "screening", {"consent_scopes": ""}, "F4", "treatment, questionnaires"),
    ("code_unknown", "allocation", {"arm": "sugar"}, "B4", "placebo, high_dose, low_dose"),
    ("code_unknown", "disposition", {"scope": "garden"}, "B4", "treatment, study"),
    ("code_unknown", "disposition", {"reason": "screen_failure"}, "C4", None),
    ("code_unknown", "disposition", {"scope": "study"}, "C4", "death, screen_failure"),
    ("date_missing", "screening", {"screened_on": None}, "C4", ""),
    ("date_missing", "screening", {"consented_on": None}, "D4", ""),
    ("date_missing", "allocation", {"allocated_on": None}, "C4", ""),
    ("date_missing", "disposition", {"left_on": None}, "D4", ""),
    ("date_missing", "mmse", {"collected_on": None}, "E4", ""),
    ("date_in_future", "screening", {"screened_on": date(2013, 3, 2)}, "C4", "a date up to 01 Mar 2013"),
    ("date_in_future", "screening", {"consented_on": date(2013, 3, 2)}, "D4", "a date up to 01 Mar 2013"),
    ("date_in_future", "allocation", {"allocated_on": date(2013, 3, 2)}, "C4", "a date up to 01 Mar 2013"),
    ("date_in_future", "disposition", {"left_on": date(2013, 3, 2)}, "D4", "a date up to 01 Mar 2013"),
    ("date_in_future", "mmse", {"collected_on": date(2013, 3, 2)}, "E4", "a date up to 01 Mar 2013"),
    ("dates_out_of_order", "screening", {"consented_on": date(2013, 1, 31)}, "D4", None),
    ("dates_out_of_order", "allocation", {"allocated_on": date(2013, 1, 31)}, "C4", None),
    ("dates_out_of_order", "disposition", {"left_on": date(2013, 1, 31)}, "D4", None),
    ("collected_before_consent", "mmse", {"collected_on": date(2013, 1, 31)}, "E4", ""),
    ("respondent_unknown", "mmse", {"respondent": "carer"}, "B4", "self"),
    ("respondent_unknown", "mmse", {"respondent": "Mrs Jones next door"}, "B4", "self"),
    ("form_unknown", "mmse", {"form": "easy_read"}, "C4", "standard"),
    ("wave_unknown", "mmse", {"wave": ""}, "D4", None),
    ("wave_unknown", "mmse", {"wave": "WEEK8"}, "D4", None),
    ("wave_unknown", "mmse", {"wave": "week: eight"}, "D4", None),
    ("level_unknown", "mmse", {"mmse03": 4}, "H4", None),
    ("level_unknown", "mmse", {"mmse03": -4}, "H4", None),
    ("not_a_number", "mmse", {"mmse03": "three"}, "H4", None),
    ("unexpected_type", "mmse", {"mmse03": date(2013, 2, 3)}, "H4", None),
    ("unexpected_type", "mmse", {"mmse03": True}, "H4", None),
]


@pytest.mark.parametrize(("rule", "sheet", "wrong", "cell", "expected"), ONE_ROW)
def test_one_wrong_row_is_refused_by_place_and_the_others_are_unharmed(rule, sheet, wrong, cell, expected):
    people = [NEW, BEN] if sheet == "screening" else [ANN, BEN]
    site = start(ANN) if sheet == "screening" else start(ANN, BEN)
    sheets: dict[str, list[Row]] = {"mmse": [mmse(ANN)]}
    sheets[sheet] = [BASE[sheet](people[0]), BASE[sheet](people[1]) | wrong]
    received = site.send(sheets)
    assert received.faults == [(rule, sheet, cell, "hard")]
    [fault] = received.decision.faults
    if expected is not None:
        assert fault.expected == expected
    assert received.file.outcome == "accepted_in_part"
    refused = received.find(ReturnRefused)
    if sheet == "mmse":
        assert [(event.source.row, event.rule, event.query_id) for event in refused] == [(4, rule, "702-0001")]
        assert refused[0].n_items == 6
        assert received.counts == (1, 0, 1, 0)
    else:
        assert refused == []
        assert received.counts == (1, 0, 0, 0)
        told = {event.participant_id for event in received.decision.log_events}
        assert told == {people[0]}
    [query] = received.find(QueryRaised)
    assert (query.query_id, query.rule, query.sheet, query.row) == ("702-0001", rule, sheet, 4)
    assert (query.episode, query.severity, query.return_id) == (1, "hard", "702-2013-03-01-1")
    [accepted] = received.find(ReturnAccepted)
    assert (accepted.participant_id, accepted.n_items, accepted.n_answered) == (ANN, 6, 6)
    for stranger in ("Jones", "9999", "706", "dancing", "sugar", "garden", "three"):
        assert not any(stranger in event.encode_payload() + event.participant_id for event in received.events)


def test_answers_without_consent_are_refused():
    site = Site()
    blank = {"consented_on": None, "consent_form_version": "", "consent_scopes": ""}
    site.send({"screening": [screened(ANN), screened(BEN, **blank)]}, posted_on=date(2013, 2, 8))
    received = site.send({"mmse": [mmse(ANN), mmse(BEN)]})
    assert received.faults == [("consent_not_recorded", "mmse", "A4", "hard")]
    assert received.counts == (1, 0, 1, 0)


@pytest.mark.parametrize(
    ("collected_on", "n_refused"),
    [(date(2013, 1, 31), 1), (date(2013, 2, 1), 0), (TODAY, 0), (TODAY + timedelta(days=1), 1)],
)
def test_answers_count_from_the_day_of_consent_to_today(collected_on, n_refused):
    received = start(ANN).send({"mmse": [mmse(ANN, collected_on=collected_on)]})
    assert received.file.n_refused == n_refused


@pytest.mark.parametrize("form", [{"form_version": "2"}, {"form_version": "1", "renewal": "2013-02-20"}])
def test_a_renewed_consent_does_not_move_the_day_from_which_answers_count(form):
    site = start(ANN)
    renewed = ConsentRecorded(
        occurred_on=date(2013, 2, 20), requested_by="Mary", site_id="702", participant_id=ANN, scopes=("treatment",),
        basis="signed", **form,
    )  # fmt: skip
    site.events.append(renewed)
    assert site.send({"mmse": [mmse(ANN, collected_on=date(2013, 2, 10))]}).counts == (1, 0, 0, 0)


def test_every_fault_of_a_row_is_told_at_once():
    received = start(ANN).send(
        {
            "mmse": [mmse(ANN, respondent="x", form="y", wave="", collected_on=None, mmse01=9, mmse02="?")],
            "screening": [screened(NEW, cohort="z", screened_on=None, consented_on=None, consent_scopes="q")],
        }
    )
    assert sorted(received.faults) == [
        ("code_unknown", "screening", "B3", "hard"),
        ("code_unknown", "screening", "F3", "hard"),
        ("date_missing", "mmse", "E3", "hard"),
        ("date_missing", "screening", "C3", "hard"),
        ("date_missing", "screening", "D3", "hard"),
        ("form_unknown", "mmse", "C3", "hard"),
        ("level_unknown", "mmse", "F3", "hard"),
        ("not_a_number", "mmse", "G3", "hard"),
        ("respondent_unknown", "mmse", "B3", "hard"),
        ("wave_unknown", "mmse", "D3", "hard"),
    ]
    assert received.file.outcome == "nothing_accepted"


def test_an_answer_to_a_question_that_was_not_asked():
    """Hard where another answer rules it out; a query beside the accepted record where the gate was left blank."""
    site = start(ANN, BEN)
    contradicting, unclear = npi_x(ANN, npi01_severity=2), npi_x(BEN, npi01_present=None, npi01_severity=2)
    received = site.send({"npi_x": [contradicting, unclear]})
    assert received.faults == [
        ("answered_though_not_asked", "npi_x", "H3", "hard"),
        ("answered_though_not_asked", "npi_x", "H4", "soft"),
    ]
    assert received.counts == (1, 0, 1, 0)
    assert [event.participant_id for event in received.find(ReturnAccepted)] == [BEN]


def test_a_number_out_of_range():
    adas = INSTRUMENTS["adas_cog"]
    number = next(item for item in adas.items if item.maximum is not None or item.levels)
    row = {item.id: 0 for item in adas.items} | {number.id: 1e6}
    key = {"participant_id": ANN, "respondent": "self", "form": "standard", "wave": "baseline"}
    received = start(ANN).send({"adas_cog": [key | {"collected_on": date(2013, 2, 10)} | row]})
    [fault] = received.decision.faults
    assert fault.rule in ("out_of_range", "level_unknown")
    assert fault.item == number.id


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("screening", "screening"),
        ("SCREENING 1", "screening"),
        ("week 8", "week_8"),
        ("WEEK_8", "week_8"),
        ("WEEK8", ""),
        ("WEEK 10 T", ""),
        ("RETRIEVAL", "RETRIEVAL"),
        ("AMBUL ECG REMOVAL", "AMBUL ECG REMOVAL"),
        ("", ""),
        ("=1+1", ""),
        ("a: b", ""),
        ("x" * 81, ""),
    ],
)
def test_waves_by_code_label_or_as_an_unscheduled_occasion(text, code):
    assert find_wave_code(STUDY, text) == code
    planned = STUDY.model_copy(update={"accepts_unscheduled": False})
    assert find_wave_code(planned, text) == (code if planned.find_wave(text) else "")


# Places and files -----------------------------------------------------------------------------------------------------

# rule, where, how many of three records are refused, of three sent
PLACES = [
    ("unknown_sheet", Problem("unknown_sheet", "soft", "sheet_4", "sheet 4"), 0),
    ("unknown_column", Problem("unknown_column", "soft", "mmse", "MMSE", "L2", 2, 2), 0),
    ("missing_column", Problem("missing_column", "hard", "mmse", "MMSE", column="mmse04", expected="MMSE04"), 3),
    ("missing_column", Problem("missing_column", "hard", "mmse", "MMSE", column="wave", expected="Wave"), 3),
    ("missing_column", Problem("missing_column", "hard", "mmse", "MMSE", column="participant_id"), 3),
    ("codes_missing", Problem("codes_missing", "hard", "dad", "DAD", expected="rows 1 and 2"), 0),
    ("column_repeated", Problem("column_repeated", "hard", "mmse", "MMSE", "L2", 2, 2), 3),
    ("columns_mixed_up", Problem("columns_mixed_up", "hard", "mmse", "MMSE", "F1:F2", 1, 2, "mmse01"), 3),
    ("read_from_label", Problem("read_from_label", "soft", "mmse", "MMSE", "F3:G4", 3, 4, "mmse01"), 0),
    ("sheet_repeated", Problem("sheet_repeated", "hard", "sheet_5", "sheet 5"), 0),
    ("cells_out_of_reach", Problem("cells_out_of_reach", "hard", "mmse", "MMSE"), 3),
    ("merged_cells", Problem("merged_cells", "hard", "mmse", "MMSE", "A4:A5", 4, 5, "participant_id"), 2),
    ("formula_in_cell", Problem("formula_in_cell", "hard", "mmse", "MMSE", "H4", 4, 4, "mmse03"), 1),
    ("formula_in_cell", Problem("formula_in_cell", "hard", "mmse", "MMSE", "A3:K100000", 3, 100000), 3),
    ("formula_in_cell", Problem("formula_in_cell", "hard", "mmse", "MMSE"), 3),
    ("error_in_cell", Problem("error_in_cell", "hard", "mmse", "MMSE", "H4", 4, 4, "mmse03"), 1),
    ("date_not_understood", Problem("date_not_understood", "hard", "mmse", "MMSE", "E4", 4, 4, "collected_on"), 1),
]


@pytest.mark.parametrize(("rule", "problem", "n_refused"), PLACES)
def test_a_fault_of_a_place_stops_its_rows_or_its_sheet_and_no_more(rule, problem, n_refused):
    site = start(ANN, BEN, NEW)
    rows = [mmse(ANN), mmse(BEN), mmse(NEW)]
    if rule == "date_not_understood":
        rows[1]["collected_on"] = None
    received = site.send({"mmse": rows, "npi_x": [npi_x(ANN)]}, problem)
    assert received.faults == [(rule, problem.sheet, problem.cell, PLACE_RULES[rule])]
    assert received.counts == (4 - n_refused, 0, n_refused, 0)
    assert received.query_ids == ["702-0001"]
    assert {(event.rule, event.query_id) for event in received.find(ReturnRefused)} <= {(rule, "702-0001")}
    assert received.file.outcome == ("accepted" if problem.severity == "soft" else "accepted_in_part")
    assert received.find(QueryRaised)[0].column_name == problem.column


def test_a_log_without_a_column_is_not_read_and_questionnaires_are():
    site = start(ANN)
    problem = Problem("missing_column", "hard", "allocation", "Allocation", column="arm")
    received = site.send({"allocation": [allocated(ANN)], "mmse": [mmse(ANN)]}, problem)
    assert received.decision.log_events == []
    assert received.counts == (1, 0, 0, 0)


def test_what_the_reader_told_of_a_cell_is_not_told_again():
    formula = Problem("formula_in_cell", "hard", "mmse", "MMSE", "A3", 3, 3, "participant_id")
    received = start(ANN).send({"mmse": [mmse("Ann Jones", mmse01=7)]}, formula)
    assert received.faults == [("formula_in_cell", "mmse", "A3", "hard"), ("level_unknown", "mmse", "F3", "hard")]


@pytest.mark.parametrize(
    ("about", "problem", "rule", "return_id"),
    [
        ({"study": "", "site": "", "posted_on": None}, Problem("about_missing", "hard", "about"), "about_missing", ""),
        (
            {"posted_on": None},
            Problem("about_incomplete", "hard", "about", "About", "C5", 5, 5, "posted_on"),
            "about_incomplete",
            "",
        ),
        ({"sending_number": 0}, None, "about_incomplete", ""),
        (
            {"correction": 0},
            Problem("formula_in_cell", "hard", "about", "About", "C7", 7, 7),
            "about_incomplete",
            "702-2013-03-01-1",
        ),
        ({"study": "ipc"}, Problem("wrong_study", "hard", "about"), "wrong_study", "702-2013-03-01-1"),
        ({"site": "706"}, Problem("wrong_site", "hard", "about"), "wrong_site", ""),
        (
            {"layout_version": "0"},
            Problem("wrong_layout_version", "hard", "about"),
            "wrong_layout_version",
            "702-2013-03-01-1",
        ),
        ({"posted_on": date(2013, 3, 2)}, None, "posted_in_future", "702-2013-03-02-1"),
        ({}, Problem("nothing_to_read", "hard"), "nothing_to_read", "702-2013-03-01-1"),
    ],
)
def test_a_file_that_cannot_be_identified_is_quarantined(about, problem, rule, return_id):
    site = start(ANN)
    received = site.send({"mmse": [mmse(ANN)]}, *([problem] if problem else []), about=about)
    assert (received.file.outcome, received.file.reason, received.file.return_id) == ("quarantined", rule, return_id)
    assert received.counts == (0, 0, 0, 0)
    assert [type(event) for event in received.events] == [QueryRaised, ReturnFileProcessed]
    assert len(derive_responses(received.decision)) == 0


@pytest.mark.parametrize("sheets", [{}, {"mmse": []}, {"mmse": [], "screening": []}])
@pytest.mark.parametrize("problems", [(), (Problem("unknown_sheet", "soft", "sheet_2", "sheet 2"),)])
def test_a_workbook_without_a_row_is_no_return(sheets, problems):
    assert start(ANN).send(sheets, *problems).file.reason == "nothing_to_read"


@pytest.mark.parametrize("rule", FILE_RULES)
def test_an_unreadable_file_is_asked_about_as_a_whole(rule):
    site = start(ANN)
    received = site.record(decide_quarantine(FileFacts("5" * 64, 10, "702"), rule, expected="at most 50 MB"))
    [query, file] = received.events
    assert (query.subject, query.rule, query.query_id) == (f"file:702:{'5' * 16}", rule, "702-0001")
    assert (file.outcome, file.reason, file.size_bytes) == ("quarantined", rule, 10)


def test_two_sites_may_send_the_same_unreadable_bytes():
    keys = set()
    for site_id in ("702", "706"):
        site = Site(site_id)
        received = site.record(decide_quarantine(FileFacts("0" * 64, 0, site_id), "empty_workbook"))
        keys |= {event.key for event in received.events}
    assert len(keys) == 4


# Corrections, repeats, conflicts --------------------------------------------------------------------------------------


def test_the_same_answers_from_another_sending_are_repeated():
    site = start(ANN)
    site.send({"mmse": [mmse(ANN)]})
    again = site.send({"mmse": [mmse(ANN, wave="SCREENING 1")]}, number=2)
    assert again.counts == (0, 1, 0, 0)
    assert again.faults == []
    assert again.file.outcome == "accepted"


@pytest.mark.parametrize(
    "change",
    [
        {"mmse01": 4},
        {"mmse01": None},
        {"mmse01": -9},
        {"mmse06": -8},
        {"collected_on": date(2013, 2, 11)},
    ],
)
def test_other_answers_from_another_sending_are_a_conflict(change):
    site = start(ANN, BEN)
    site.send({"mmse": [mmse(ANN)]})
    other = site.send({"mmse": [mmse(ANN, **change), mmse(BEN)]}, number=2)
    assert other.counts == (1, 0, 1, 0)
    assert other.faults == [("conflicts_with_accepted", "mmse", "A3", "hard")]
    assert site.find_marks() == {(ANN, "screening"): 5.0, (BEN, "screening"): 5.0}


def test_a_blank_and_not_answered_are_the_same_answer():
    site = start(ANN)
    site.send({"mmse": [mmse(ANN, mmse01=None)]})
    assert site.send({"mmse": [mmse(ANN, mmse01=-9)]}, number=2).counts == (0, 1, 0, 0)


def test_a_correction_supersedes_what_its_own_sending_brought():
    site = start(ANN, BEN)
    site.send({"mmse": [mmse(ANN), mmse(BEN)]})
    corrected = site.send({"mmse": [mmse(ANN, mmse01=1), mmse(BEN)]}, correction=1)
    assert corrected.counts == (1, 1, 0, 1)
    [accepted] = corrected.find(ReturnAccepted)
    assert (accepted.version, accepted.supersedes_return_id) == (2, "702-2013-03-01-1")
    assert site.find_marks()[ANN, "screening"] == 1.0
    back = site.send({"mmse": [mmse(ANN), mmse(BEN)]}, correction=2)
    assert back.find(ReturnAccepted)[0].version == 3
    assert site.find_marks()[ANN, "screening"] == 5.0


@pytest.mark.parametrize("correction", [0, 1])
def test_the_same_correction_number_with_other_answers_is_a_conflict(correction):
    site = start(ANN)
    site.send({"mmse": [mmse(ANN)]}, correction=correction)
    other = site.send({"mmse": [mmse(ANN, mmse01=1)]}, correction=correction)
    assert other.faults == [("conflicts_with_accepted", "mmse", "A3", "hard")]


def test_a_lower_correction_that_comes_later_undoes_nothing():
    site = start(ANN, BEN, NEW)
    site.send({"mmse": [mmse(ANN, mmse01=1), mmse(BEN)], "allocation": [allocated(ANN, arm="high_dose")]}, correction=2)
    late = site.send(
        {
            "mmse": [mmse(ANN), mmse(BEN), mmse(NEW)],
            "allocation": [allocated(ANN), allocated(BEN)],
        },
        correction=1,
    )
    assert late.counts == (0, 1, 2, 0)
    assert late.decision.log_events == []
    assert late.faults == [
        ("overtaken_by_correction", "allocation", "A3", "hard"),
        ("overtaken_by_correction", "allocation", "A4", "hard"),
        ("overtaken_by_correction", "mmse", "A3", "hard"),
        ("overtaken_by_correction", "mmse", "A5", "hard"),
    ]
    assert site.find_marks() == {(ANN, "screening"): 1.0, (BEN, "screening"): 5.0}
    people = derive_participants(site.view).set_index("participant_id")
    assert people.loc[ANN, "arm"] == "high_dose"


def test_a_quarantined_correction_overtakes_nothing():
    site = start(ANN)
    site.send({"mmse": [mmse(ANN)]}, Problem("wrong_layout_version", "hard", "about"), correction=3)
    assert site.send({"mmse": [mmse(ANN)]}, correction=1).counts == (1, 0, 0, 0)


def test_a_record_left_out_of_a_correction_stays_and_is_asked_about():
    site = start(ANN, BEN)
    site.send({"mmse": [mmse(ANN), mmse(BEN)], "npi_x": [npi_x(ANN)]})
    corrected = site.send({"mmse": [mmse(ANN)]}, correction=1)
    assert corrected.faults == [("left_out_of_correction", "mmse", "", "soft")]
    assert corrected.decision.faults[0].participant_id == BEN
    assert corrected.file.outcome == "accepted"
    assert site.find_marks() == {(ANN, "screening"): 5.0, (BEN, "screening"): 5.0}
    assert site.list_queries() == [("702-0001", "left_out_of_correction")]
    assert site.send({"mmse": [mmse(ANN), mmse(BEN)]}, correction=2).faults == []
    assert site.list_queries() == []


def test_nobody_is_missed_where_a_row_of_the_sheet_cannot_be_told():
    site = start(ANN, BEN)
    site.send({"mmse": [mmse(ANN), mmse(BEN)]})
    assert [fault[0] for fault in site.send({"mmse": [mmse(ANN), mmse("")]}, correction=1).faults] == [
        "participant_missing"
    ]


def test_a_correction_of_a_log_voids_and_enters_again():
    site = start(ANN)
    site.send({"allocation": [allocated(ANN)]})
    corrected = site.send({"allocation": [allocated(ANN, arm="low_dose")]}, correction=1)
    assert [event.kind for event in corrected.decision.log_events] == ["voided", "participant_allocated"]
    assert corrected.decision.n_log_entries == 1
    people = derive_participants(site.view).set_index("participant_id")
    assert people.loc[ANN, "arm"] == "low_dose"


def test_of_two_faulty_tellings_that_differ_both_faults_are_told_at_once():
    site = start(ANN)
    received = site.send({"mmse": [mmse(ANN, mmse01=9), mmse(ANN, mmse01=9, mmse02=1)]})
    assert received.counts == (0, 0, 2, 0)
    assert sorted(fault[0] for fault in received.faults) == 2 * ["duplicate_in_file"] + 2 * ["level_unknown"]
    same = start(ANN).send({"mmse": [mmse(ANN, mmse01=9), mmse(ANN, mmse01=9)]})
    assert "duplicate_in_file" not in {fault[0] for fault in same.faults}


def test_logs_may_be_cumulative_and_differ_only_where_their_own_sending_says_so():
    site = start(ANN)
    again = site.send({"screening": [screened(ANN), screened(BEN)]}, number=1)
    assert (again.decision.n_log_repeated, again.decision.n_log_entries) == (2, 2)
    other = site.send({"screening": [screened(ANN, screened_on=date(2013, 1, 30)), screened(NEW)]}, number=2)
    assert other.faults == [("differs_from_record", "screening", "A3", "hard")]
    assert {event.participant_id for event in other.decision.log_events} == {NEW}


def test_a_corrected_day_of_screening_and_consent_is_what_the_rest_of_the_file_is_held_against():
    site = start(ANN)
    later = {"screened_on": date(2013, 2, 15), "consented_on": date(2013, 2, 15)}
    received = site.send(
        {"screening": [screened(ANN, **later)], "allocation": [allocated(ANN)], "mmse": [mmse(ANN)]},
        posted_on=date(2013, 2, 8), correction=1,
    )  # fmt: skip
    assert received.faults == [
        ("dates_out_of_order", "allocation", "C3", "hard"),
        ("collected_before_consent", "mmse", "E3", "hard"),
    ]


@pytest.mark.parametrize(
    ("rows", "n_refused", "n_repeated"),
    [([{}, {}], 0, 1), ([{}, {"mmse01": 1}], 2, 0), ([{}, {}, {"mmse01": 1}], 3, 0), ([{}, {"mmse01": 9}], 1, 0)],
)
def test_the_same_record_twice_in_one_file(rows, n_refused, n_repeated):
    site = start(ANN, BEN)
    received = site.send({"mmse": [*(mmse(ANN, **row) for row in rows), mmse(BEN)]})
    n_accepted = 1 + (n_refused < len(rows) and n_refused != 2)
    assert received.counts == (n_accepted, n_repeated, n_refused, 0)
    if n_refused > 1:
        assert {fault[0] for fault in received.faults} == {"duplicate_in_file"}
        assert len(received.find(QueryRaised)) == 1


def test_the_same_log_entry_twice_in_one_file():
    site = start(ANN, BEN)
    same = site.send({"allocation": [allocated(ANN), allocated(ANN)]})
    assert (same.decision.n_log_entries, same.decision.n_log_repeated, same.faults) == (1, 1, [])
    differing = site.send({"allocation": [allocated(BEN), allocated(BEN, arm="low_dose")]}, number=2)
    assert [fault[0] for fault in differing.faults] == ["duplicate_in_file", "duplicate_in_file"]
    assert differing.decision.n_log_entries == 0


def test_a_participant_of_another_site_is_known_by_record_where_identifiers_do_not_say():
    """A study whose identifiers carry no site: the first site that screened a person keeps them."""
    bare = STUDY.model_copy(update={"participant_id_pattern": r"P\d{4}"})
    bare.__dict__.pop("_identifier", None)
    event = ParticipantScreened(
        occurred_on=date(2013, 2, 1), requested_by="Mary", site_id="706", participant_id="P0001", cohort="a"
    )
    standing = derive_standing(tell(event), "702", derive_homes(tell(event)))
    about = {"study": "cdisc_pilot", "site": "702", "posted_on": TODAY, "sending_number": 1, "correction": 0}
    reading = make_reading({"screening": [screened("P0001"), screened("P0002")], "mmse": [mmse("P0001")]}, about)
    decision = decide_return(
        reading, FileFacts("1" * 64, 1, "702"), bare, INSTRUMENTS, standing, pd.DataFrame(columns=RESPONSE_COLUMNS),
        TODAY, "Mary", SiteGate(bare, tell(event), "702", TODAY),
    )  # fmt: skip
    assert [(fault.rule, fault.cell) for fault in decision.faults] == [("participant_of_another_site", "A3")] * 2
    assert decision.new_participant_ids == ["P0002"]


# Queries --------------------------------------------------------------------------------------------------------------


def test_a_fault_in_a_file_sent_again_is_asked_once_closed_when_mended_and_the_same_query_when_it_comes_back():
    site = start(ANN, BEN)
    wrong, right = {"mmse": [mmse(ANN, mmse01=9), mmse(BEN)]}, {"mmse": [mmse(ANN), mmse(BEN)]}
    assert site.send(wrong).query_ids == ["702-0001"]
    again = site.send(wrong, correction=1)
    assert (again.query_ids, again.find(QueryRaised)) == (["702-0001"], [])
    assert again.find(ReturnRefused)[0].query_id == "702-0001"
    mended = site.send(right, correction=2)
    assert [event.query_id for event in mended.find(QueryClosed)] == ["702-0001"]
    assert mended.counts == (1, 1, 0, 0)
    reopened = site.send(wrong, number=2)
    assert (reopened.query_ids, reopened.find(QueryRaised)) == (["702-0001"], [])
    assert [event.reason for event in reopened.find(Voided)] == ["reopened"]
    assert site.list_queries() == [("702-0001", "level_unknown")]


def test_a_query_follows_its_record_and_not_its_row():
    site = start(ANN, BEN)
    site.send({"mmse": [mmse(ANN, mmse01=9)]})
    moved = site.send({"mmse": [mmse(BEN), mmse(ANN, mmse01=9)]}, correction=1)
    assert (moved.query_ids, moved.find(QueryRaised)) == (["702-0001"], [])


def test_a_query_is_settled_by_the_record_itself_from_any_sending():
    site = start(ANN)
    site.send({"mmse": [mmse(ANN, mmse01=9)]})
    site.send({"mmse": [mmse(ANN)]}, number=2)
    assert site.list_queries() == []
    assert site.list_queries("closed") == [("702-0001", "level_unknown")]


def test_a_sheet_left_out_of_a_correction_settles_none_of_its_queries():
    site = start(ANN, BEN)
    site.send({"mmse": [mmse(ANN, mmse01=9)], "npi_x": [npi_x(ANN, npi01_severity=2)]})
    site.send({"npi_x": [npi_x(ANN)]}, correction=1)
    assert site.list_queries() == [("702-0001", "level_unknown")]


def test_an_overtaken_correction_settles_nothing_of_its_sending():
    site = start(ANN, BEN)
    site.send({"mmse": [mmse(ANN, mmse01=9), mmse("")]}, correction=2)
    late = site.send({"mmse": [mmse(BEN)]}, correction=1)
    assert late.find(QueryClosed) == []
    assert len(site.list_queries()) == 3


def test_a_query_about_a_place_is_settled_by_the_sending_without_it():
    site = start(ANN)
    site.send({"mmse": [mmse("")]}, Problem("unknown_sheet", "soft", "sheet_4", "sheet 4"))
    assert [rule for _, rule in site.list_queries()] == ["unknown_sheet", "participant_missing"]
    site.send({"mmse": [mmse(ANN)]}, correction=1)
    assert site.list_queries() == []


def test_a_log_entry_told_again_as_it_stands_settles_its_query():
    site = start(ANN)
    site.send({"allocation": [allocated(ANN)]}, number=1)
    site.send({"allocation": [allocated(ANN, arm="low_dose")]}, number=2)
    assert site.list_queries() == [("702-0001", "differs_from_record")]
    site.send({"allocation": [allocated(ANN)]}, number=3)
    assert site.list_queries() == []


def test_queries_are_numbered_per_site():
    assert derive_query_ids("702", 0, 2) == ["702-0001", "702-0002"]
    assert derive_query_ids("luton", 9998, 2) == ["luton-9999", "luton-10000"]
    site = start(ANN)
    received = site.send({"mmse": [mmse(""), mmse("x"), mmse(ANN, mmse01=9, mmse02=9)]})
    assert received.query_ids == ["702-0001", "702-0002", "702-0003", "702-0004"]
    assert received.file.n_queries == 4


def test_a_row_left_out_of_a_correction_settles_nothing():
    site = start(ANN)
    site.send({"mmse": [mmse(ANN), mmse("702-stranger")]})
    without = site.send({"mmse": [mmse(ANN)]}, correction=1)
    assert without.find(QueryClosed) == []
    mended = site.send({"mmse": [mmse(ANN), mmse(ANN, wave="baseline")]}, correction=2)
    assert [event.query_id for event in mended.find(QueryClosed)] == ["702-0001"]


def test_a_quarantined_file_settles_nothing():
    site = start(ANN)
    site.send({"mmse": [mmse(ANN, mmse01=9)]})
    received = site.send({"mmse": [mmse(ANN)]}, Problem("wrong_study", "hard", "about"), correction=1)
    view = tell(*site.events)
    standing = derive_standing(view, "702", derive_homes(view))
    assert find_mended_queries(received.decision, standing) == []


def test_a_file_is_found_again_by_site_and_content():
    site = start(ANN)
    site.send({"mmse": [mmse(ANN)]}, sha256="e" * 64)
    found = find_processed_file(site.view, "702", "e" * 64)
    assert found is not None
    assert (found["return_id"], found["n_accepted"], found["posted_on"]) == ("702-2013-03-01-1", 1, date(2013, 3, 1))
    assert find_processed_file(site.view, "706", "e" * 64) is None
    assert find_processed_file(site.view, "702", "d" * 64) is None


# The whole ------------------------------------------------------------------------------------------------------------

SENDINGS = [
    (1, 0, {"mmse": [mmse(ANN, mmse01=0), mmse(BEN, mmse01=0)], "allocation": [allocated(ANN)]}),
    (1, 1, {"mmse": [mmse(ANN, mmse01=1), mmse(BEN, mmse01=0)], "allocation": [allocated(ANN, arm="low_dose")]}),
    (1, 2, {"mmse": [mmse(ANN, mmse01=2), mmse(BEN, mmse01=0)], "allocation": [allocated(ANN, arm="high_dose")]}),
]


@given(order=st.permutations(SENDINGS))
@settings(max_examples=6)
def test_the_highest_correction_stands_whatever_came_when(order):
    site = start(ANN, BEN)
    for number, correction, sheets in order:
        site.send(sheets, number=number, correction=correction)
    assert site.find_marks() == {(ANN, "screening"): 2.0, (BEN, "screening"): 0.0}
    assert derive_participants(site.view).set_index("participant_id").loc[ANN, "arm"] == "high_dose"


def test_responses_are_ordered_and_typed():
    site = start(ANN, BEN)
    received = site.send({"npi_x": [npi_x(BEN)], "mmse": [mmse(BEN, mmse02=-8), mmse(ANN, mmse01=None)]})
    responses = derive_responses(received.decision)
    assert list(responses.columns) == RESPONSE_COLUMNS
    keys = list(responses[[*RECORD_KEY, "item"]].itertuples(index=False, name=None))
    assert keys == sorted(keys)
    missing = responses[(responses["instrument"] == "mmse") & (responses["missing_reason"] != "")]
    assert list(zip(missing["participant_id"], missing["item"], missing["missing_reason"], strict=True)) == [
        (ANN, "mmse01", "not_answered"),
        (BEN, "mmse02", "refused"),
    ]
    assert missing["response"].isna().all()


def test_a_log_of_thousands_told_again_costs_in_proportion():
    """Eight times the rows may cost eight times as much, and not sixty-four times."""

    def measure(n: int) -> float:
        site = Site()
        people = [f"01-702-{number:04d}" for number in range(n)]
        sheets = {"screening": [screened(name) for name in people], "mmse": [mmse(name) for name in people]}
        site.send(sheets)
        started = time.process_time()
        again = site.send(sheets, number=2)
        cost = time.process_time() - started
        assert again.counts == (0, n, 0, 0)
        assert again.decision.n_log_repeated == 2 * n
        return cost

    measure(50)
    assert measure(1600) < 20 * max(measure(200), 0.05)


# Wording --------------------------------------------------------------------------------------------------------------

EVERY_RULE = [*FILE_RULES, NOTHING_FILLED_IN, *PLACE_RULES, *ROW_RULES, *RULES, *RETURN_RULES]
EVERY_RULE += dict.fromkeys(GATE_RULES.values())


def test_the_tables_above_reach_every_rule_of_a_row_and_of_a_place():
    reached = {rule for rule, *_ in ONE_ROW} | {rule for rule, *_ in PLACES}
    of_logs = {
        "check_digit_wrong", "identifier_not_issued", "blank_expected", "month_not_over", "month_not_understood",
        "count_not_understood", "consent_without_agreement", "consent_after_leaving", "capacity_not_assessed",
        "sixteenth_month_missing", "query_unknown", "overtaken_by_later_return",
    }  # fmt: skip
    elsewhere = {
        "consent_not_recorded", "differs_from_record", "duplicate_in_file", "conflicts_with_accepted",
        "overtaken_by_correction", "left_out_of_correction", "out_of_range", "answered_though_not_asked",
        "choice_not_alone", "answers_disagree",
    }  # fmt: skip
    assert reached | of_logs | elsewhere == {*PLACE_RULES, *ROW_RULES, *RULES}
    assert PLACE_RULES.keys() >= SHEET_RULES


def test_every_rule_has_wording_and_no_wording_is_without_a_rule():
    assert sorted(read_wording()) == sorted(EVERY_RULE)
    for texts in read_wording().values():
        assert {"wrong", "do"} <= texts.keys() <= {"wrong", "do", "expected"}
        assert "{" not in texts["wrong"] + texts["do"]
        assert "{expected}" in texts.get("expected", "{expected}")


@pytest.mark.parametrize("rule", EVERY_RULE)
@pytest.mark.parametrize("expected", ["", "0 to 5, or -9 not answered", "Row 1 is full. Use 50% {of} it."])
def test_wording_is_made_of_whole_sentences(rule, expected):
    wrong, what_to_do = find_wording(rule, expected)
    for text in (wrong, what_to_do):
        assert text == text.strip()
        assert text[0].isupper()
        assert text.endswith((".", "!", "?"))
        assert "{expected}" not in text
        for slip in ("  ", "..", " .", " ,", ":.", ",.", ";."):
            assert slip not in text
    is_told = expected != "" and "expected" in read_wording()[rule]
    assert (expected.rstrip(".") in what_to_do) == (is_told or expected == "")
    assert len(wrong) <= 160
    assert len(what_to_do) <= 260
