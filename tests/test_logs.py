"""What sites tell in their logs: approach, consent, leaving, figures of activity, answers to queries; and identifiers.

Readings are made by hand, as in `test_returns`; the study is IPC's own, with approvals that allow everything.
"""

from __future__ import annotations

import itertools
from datetime import date, timedelta
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.calendar import Period
from study.events import (
    ActivityReported,
    ApproachAnswered,
    ConsentRecorded,
    DispositionRecorded,
    IdentifiersIssued,
    ParticipantApproached,
    ParticipantScreened,
    QueryAnswered,
    QueryClosed,
    QueryRaised,
    Voided,
)
from study.identifiers import compute_identifier
from study.incidents import SiteGate
from study.logs import drop_unfilled_rows
from study.pack_layout import Problem, derive_return_layout
from study.returns import FileFacts, decide_return, derive_homes, derive_standing
from tasks.definitions import load_instruments, load_study
from tests.test_returns import RESPONSE_COLUMNS, STUDY, Received, Row, Site, make_reading, tell

IPC = load_study("ipc")
OPEN = IPC.model_copy(update={"pathway": STUDY.pathway})
INSTRUMENTS = load_instruments(IPC)
LAYOUT = derive_return_layout(IPC, INSTRUMENTS)
TODAY = date(2017, 10, 2)
RULE = IPC.fieldwork.identifiers[0]
ANN, BEN, CAT, DAN = (compute_identifier(RULE, "LUT", number) for number in (1, 2, 3, 60))
VERSION, COUNCIL = IPC.consent_forms[0].version, "luton_borough_council"


def screened(name: str, **cells: Any) -> Row:
    row = {"participant_id": name, "cohort": "mental_health", "screened_on": date(2017, 9, 4)}
    return row | {"approached_on": date(2017, 9, 5), "outcome": "agreed"} | cells


def consented(name: str, **cells: Any) -> Row:
    return {
        "participant_id": name, "consented_on": date(2017, 9, 11), "consent_form_version": VERSION,
        "consent_scopes": "questionnaires; linkage", "route": "self", "taken_by": "site_researcher",
        "copy_filed": "no", "form": "easy_read",
    } | cells  # fmt: skip


def left(name: str, **cells: Any) -> Row:
    row = {"participant_id": name, "scope": "questionnaires", "reason": "withdrew"}
    return row | {"left_on": date(2017, 9, 20)} | cells


def figures(**cells: Any) -> Row:
    return {"month": "2017-08", "figure": "care_plans", "evaluation": 120, "nhs_england": 131} | cells


class Luton(Site):
    def __init__(self, study: Any = OPEN) -> None:
        super().__init__("luton", study=study, instruments=INSTRUMENTS, layout=LAYOUT)

    def post(self, *, on: date = date(2017, 9, 29), today: date = TODAY, **rest: Any) -> Received:
        """Keywords that name a sheet are its rows."""
        sheets = {code: rows for code, rows in rest.items() if code in LAYOUT.sheet_by_code}
        options = {name: value for name, value in rest.items() if name not in sheets}
        return self.send(sheets, posted_on=on, today=today, **options)

    def stands(self, kind: Any) -> pd.DataFrame:
        return self.view.frame(kind)


def begin(*people: str, consent: bool = True) -> Luton:
    site = Luton()
    sheets = {"screening": [screened(name) for name in people]}
    if consent:
        sheets["consent"] = [consented(name) for name in people]
    site.post(on=date(2017, 9, 15), **sheets)
    return site


def list_faults(received: Received) -> list[tuple[str, str, str]]:
    return [(rule, cell, severity) for rule, _, cell, severity in received.faults]


# What a row says ------------------------------------------------------------------------------------------------------


def test_a_row_of_the_approach_tells_three_things():
    received = Luton().post(screening=[screened(ANN, body=COUNCIL, outcome="declined", reason="no_time")])
    assert received.faults == []
    first, second, third = received.decision.log_events
    assert isinstance(first, ParticipantScreened)
    assert (first.occurred_on, first.cohort, first.body_id) == (date(2017, 9, 4), "mental_health", COUNCIL)
    assert isinstance(second, ParticipantApproached)
    assert (second.occurred_on, second.cohort, second.body_id) == (date(2017, 9, 5), "mental_health", COUNCIL)
    assert isinstance(third, ApproachAnswered)
    assert (third.occurred_on, third.outcome, third.reason) == (date(2017, 9, 5), "declined", "no_time")
    assert received.decision.n_log_entries == 3


@pytest.mark.parametrize(
    ("cells", "kinds"),
    [
        ({"approached_on": None, "outcome": ""}, {"participant_screened"}),
        ({"outcome": ""}, {"participant_screened", "participant_approached"}),
        ({"outcome": "no_answer"}, {"participant_screened", "participant_approached", "approach_answered"}),
        (
            {"approached_on": None, "outcome": "not_eligible", "reason": "no_plan"},
            {"participant_screened", "approach_answered"},
        ),
    ],
)
def test_a_blank_tells_nothing(cells, kinds):
    received = Luton().post(screening=[screened(ANN, **cells)])
    assert received.faults == []
    assert {event.kind for event in received.decision.log_events} == kinds
    assert {event.occurred_on for event in received.find(ApproachAnswered)} <= {date(2017, 9, 4), date(2017, 9, 5)}


def test_a_row_of_the_consent_log_tells_all_of_it():
    site = begin(ANN, consent=False)
    row = consented(
        ANN, route="parent", sixteen_in="2018-03", capacity="assessed", copy_filed="yes",
        consent_scopes="linkage, questionnaires;interview",
    )  # fmt: skip
    [consent] = site.post(consent=[row]).find(ConsentRecorded)
    assert consent.model_dump(exclude={"source", "requested_by"}) == {
        "occurred_on": date(2017, 9, 11), "site_id": "luton", "participant_id": ANN, "form_version": VERSION,
        "scopes": ("interview", "linkage", "questionnaires"), "basis": "signed", "route": "parent",
        "taken_by": "site_researcher", "capacity": "assessed", "sixteen_in": "2018-03", "copy_filed": "yes",
        "form": "easy_read", "renewal": "",
    }  # fmt: skip


@pytest.mark.parametrize("scope", ["treatment", "questionnaires", "linkage", "post", "data", "study"])
def test_each_part_can_be_left_by_itself(scope):
    reason = next(reason.id for reason in IPC.disposition_reasons if scope in reason.scopes)
    [event] = begin(ANN).post(disposition=[left(ANN, scope=scope, reason=reason)]).find(DispositionRecorded)
    assert (event.scope, event.reason) == (scope, reason)


# What is wrong with one -----------------------------------------------------------------------------------------------

STRANGE = "Mrs Jones"
WRONG: list[tuple[str, Row, list[tuple[str, str, str]], str]] = [
    ("screening", {"outcome": "maybe"}, [("code_unknown", "F3", "hard")], "agreed, declined, not_eligible, no_answer"),
    ("screening", {"outcome": "", "reason": "no_time"}, [("code_unknown", "F3", "hard")], "agreed, declined, "),
    ("screening", {"outcome": "declined"}, [("code_unknown", "G3", "hard")], "too_ill, no_time, "),
    ("screening", {"outcome": "declined", "reason": "no_plan"}, [("code_unknown", "G3", "hard")], "too_ill, "),
    ("screening", {"outcome": "not_eligible", "reason": "no_time"}, [("code_unknown", "G3", "hard")], "no_plan, "),
    ("screening", {"reason": "no_time"}, [("blank_expected", "G3", "hard")], "no reason here"),
    ("screening", {"outcome": "no_answer", "reason": STRANGE}, [("blank_expected", "G3", "hard")], "no reason here"),
    ("screening", {"approached_on": None}, [("date_missing", "E3", "hard")], ""),
    ("screening", {"approached_on": TODAY + timedelta(1)}, [("date_in_future", "E3", "hard")], "a date up to"),
    ("screening", {"approached_on": date(2017, 9, 3)}, [("dates_out_of_order", "E3", "hard")], "of screening"),
    ("screening", {"cohort": STRANGE}, [("code_unknown", "B3", "hard")], "children_complex_needs"),
    ("screening", {"body": STRANGE}, [("code_unknown", "C3", "hard")], "luton_borough_council"),
    ("consent", {"consent_form_version": "9"}, [("code_unknown", "C3", "hard")], VERSION),
    ("consent", {"consent_scopes": "questionnaires; dancing"}, [("code_unknown", "D3", "hard")], "questionnaires, "),
    ("consent", {"route": "solicitor"}, [("code_unknown", "E3", "hard")], "self, consultee, parent"),
    ("consent", {"taken_by": STRANGE}, [("code_unknown", "F3", "hard")], "site_researcher, site_lead, "),
    ("consent", {"taken_by": "jones"}, [("code_unknown", "F3", "hard")], "site_researcher, site_lead, "),
    ("consent", {"capacity": "yes"}, [("code_unknown", "G3", "hard")], "assessed, not_assessed"),
    ("consent", {"copy_filed": "soon"}, [("code_unknown", "I3", "hard")], "yes, no"),
    ("consent", {"form": "large print"}, [("code_unknown", "J3", "hard")], "standard, easy_read"),
    ("consent", {"consented_on": None}, [("date_missing", "B3", "hard")], ""),
    ("consent", {"consented_on": date(2017, 9, 3)}, [("dates_out_of_order", "B3", "hard")], "of screening"),
    ("consent", {"consented_on": date(2017, 9, 4)}, [("dates_out_of_order", "B3", "hard")], "of the approach"),
    ("consent", {"participant_id": STRANGE}, [("participant_malformed", "A3", "hard")], "LUT-P00013"),
    ("consent", {"participant_id": CAT}, [("participant_unknown", "A3", "hard")], "LUT-P00013"),
    ("consent", {"route": "consultee"}, [("capacity_not_assessed", "G3", "soft")], ""),
    ("consent", {"route": "consultee", "capacity": "not_assessed"}, [("capacity_not_assessed", "G3", "soft")], ""),
    ("consent", {"route": "parent"}, [("sixteenth_month_missing", "H3", "soft")], ""),
    ("disposition", {"scope": "linkage"}, [("code_unknown", "C3", "hard")], "no_linkage"),
    ("disposition", {"scope": "garden"}, [("code_unknown", "B3", "hard")], "questionnaires, study"),
    ("activity", {"figure": "visits"}, [("code_unknown", "B3", "hard")], "care_plans, budgets"),
    ("activity", {"figure": "Care plans"}, [("code_unknown", "B3", "hard")], "care_plans, budgets"),
    ("activity", {"month": ""}, [("code_unknown", "A3", "hard")], "a month from 2017-07 to 2018-11"),
    ("activity", {"month": "2017-06"}, [("code_unknown", "A3", "hard")], "a month from 2017-07 to 2018-11"),
    ("activity", {"month": "2018-12"}, [("code_unknown", "A3", "hard")], "a month from 2017-07 to 2018-11"),
    ("activity", {"month": "2017-09"}, [("month_not_over", "A3", "hard")], "was over on 29 Sep 2017"),
    ("queries", {"query_id": "luton-0077"}, [("query_unknown", "A3", "hard")], ""),
    ("queries", {"query_id": STRANGE}, [("query_unknown", "A3", "hard")], ""),
    ("queries", {"answer": "see my letter"}, [("code_unknown", "D3", "hard")], "corrected, confirmed, cannot_say"),
]
MAKE: dict[str, Any] = {
    "screening": screened,
    "consent": consented,
    "disposition": left,
    "activity": lambda _, **cells: figures(**cells),
    "queries": lambda _, **cells: {"query_id": "luton-0001", "answer": "confirmed"} | cells,
}


@pytest.mark.parametrize("day", [date(2017, 9, 3), date(2030, 1, 1)])
def test_a_consent_that_is_refused_for_its_date_is_asked_about_whole(day):
    site = begin(ANN)
    site.post(on=date(2017, 9, 16), screening=[screened(BEN), screened("")])
    received = site.post(consent=[consented(BEN, consented_on=day, route="consultee")])
    date_fault, capacity = list_faults(received)
    assert date_fault[1:] == ("B3", "hard")
    assert capacity == ("capacity_not_assessed", "G3", "soft")


@pytest.mark.parametrize(("sheet", "wrong", "faults", "expected"), WRONG)
def test_one_wrong_row_is_told_by_its_place_and_repeats_nothing_that_was_typed(sheet, wrong, faults, expected):
    site = begin(ANN)
    site.post(on=date(2017, 9, 16), screening=[screened(BEN), screened("")])
    name = CAT if sheet == "screening" else BEN
    received = site.post(**{sheet: [MAKE[sheet](name, **wrong)]})
    assert list_faults(received) == faults
    [fault] = received.decision.faults
    assert expected in fault.expected
    is_taken = fault.severity == "soft"
    assert bool(received.decision.log_events) == is_taken
    written = "".join(event.encode_payload() + event.participant_id + event.key for event in received.events)
    for typed in (STRANGE, "jones", "maybe", "solicitor", "large", "visits", "garden", "0077", "letter", "dancing"):
        assert typed not in written


def test_a_name_in_the_column_of_roles_reaches_no_event_receipt_or_log(caplog):
    received = begin(BEN, consent=False).post(consent=[consented(BEN, taken_by=STRANGE)])
    assert "Jones" not in repr(received.events) + repr(received.decision) + caplog.text


def test_a_month_or_a_count_that_is_not_understood_stops_its_row():
    site = begin(ANN)
    problems = [
        Problem("month_not_understood", "hard", "activity", cell="A3", row=3, last_row=3, column="month"),
        Problem("count_not_understood", "hard", "activity", cell="C4", row=4, last_row=4, column="evaluation"),
    ]
    rows = [figures(month=""), figures(figure="budgets", evaluation=None), figures(month="2017-07")]
    facts = {"study": "ipc", "site": "luton", "posted_on": date(2017, 9, 29), "sending_number": 1, "correction": 0}
    reading = make_reading({"activity": rows}, facts, problems, LAYOUT)
    view = site.view
    standing = derive_standing(view, "luton", derive_homes(view))
    decision = decide_return(
        reading, FileFacts("c" * 64, 9, "luton"), OPEN, INSTRUMENTS, standing, pd.DataFrame(columns=RESPONSE_COLUMNS),
        TODAY, "Mary", SiteGate(OPEN, view, "luton", TODAY),
    )  # fmt: skip
    assert [(fault.rule, fault.cell) for fault in decision.faults] == [
        ("month_not_understood", "A3"),
        ("count_not_understood", "C4"),
    ]
    assert {(event.month, event.figure) for event in decision.log_events} == {("2017-07", "care_plans")}


def test_several_faults_of_a_row_are_told_at_once_and_each_once():
    row = screened(CAT, cohort="x", outcome="declined", reason="y", screened_on=None)
    assert list_faults(Luton().post(screening=[row])) == [
        ("code_unknown", "B3", "hard"),
        ("date_missing", "D3", "hard"),
        ("code_unknown", "G3", "hard"),
    ]


# Consent, held against the rest ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outcome", "reason"), [("declined", "no_time"), ("not_eligible", "no_plan")])
def test_consent_of_somebody_who_did_not_agree_is_taken_and_asked_about_once(outcome, reason):
    site = Luton()
    site.post(on=date(2017, 9, 15), screening=[screened(ANN, outcome=outcome, reason=reason)])
    first = site.post(consent=[consented(ANN)])
    assert list_faults(first) == [("consent_without_agreement", "A3", "soft")]
    assert len(first.find(ConsentRecorded)) == 1
    again = site.post(number=2, consent=[consented(ANN)])
    assert (again.query_ids, again.find(QueryRaised)) == (first.query_ids, [])
    site.events.append(QueryClosed(occurred_on=TODAY, requested_by="M", site_id="luton", query_id="luton-0001",
                                   reason="confirmed"))  # fmt: skip
    assert site.post(number=3, consent=[consented(ANN)]).faults == []


@pytest.mark.parametrize(
    ("asked_about", "filled_in"),
    [
        ({"route": "consultee", "capacity": ""}, {"capacity": "assessed"}),
        ({"route": "parent", "sixteen_in": ""}, {"sixteen_in": "2018-03"}),
    ],
)
def test_what_was_asked_about_is_settled_by_filling_it_in(asked_about, filled_in):
    site = begin(ANN, consent=False)
    asked = site.post(on=date(2017, 9, 22), consent=[consented(ANN, **asked_about)])
    assert len(asked.find(QueryRaised)) == 1
    settled = site.post(consent=[consented(ANN, **asked_about | filled_in)])
    assert [event.query_id for event in settled.find(QueryClosed)] == asked.query_ids
    assert site.list_queries() == []


@pytest.mark.parametrize(
    ("left_on", "is_asked"),
    [(date(2017, 9, 10), True), (date(2017, 9, 11), False), (date(2017, 9, 12), False)],
)
def test_consent_after_leaving_is_asked_about(left_on, is_asked):
    site = begin(ANN, consent=False)
    site.post(on=date(2017, 9, 22), disposition=[left(ANN, left_on=left_on)])
    received = site.post(consent=[consented(ANN)])
    assert list_faults(received) == ([("consent_after_leaving", "A3", "soft")] if is_asked else [])


@pytest.mark.parametrize(("left_on", "is_taken"), [(date(2017, 9, 10), False), (date(2017, 9, 11), True)])
def test_nobody_who_consented_had_withdrawn_before(left_on, is_taken):
    received = begin(ANN).post(disposition=[left(ANN, left_on=left_on)])
    assert bool(received.find(DispositionRecorded)) == is_taken
    if not is_taken:
        assert list_faults(received) == [("dates_out_of_order", "D3", "hard")]
        assert received.decision.faults[0].expected == "a date on or after the day of consent"


def test_a_newer_version_of_the_form_is_a_consent_of_its_own():
    newer = IPC.consent_forms[0].model_copy(update={"version": "9.0"})
    study = OPEN.model_copy(update={"consent_forms": (*IPC.consent_forms, newer)})
    site = Luton(study)
    site.post(on=date(2017, 9, 15), screening=[screened(ANN)], consent=[consented(ANN)])
    renewed = site.post(consent=[consented(ANN), consented(ANN, consent_form_version="9.0", consented_on=TODAY)])
    assert (renewed.faults, renewed.decision.n_log_repeated) == ([], 1)
    assert set(site.stands(ConsentRecorded)["form_version"]) == {VERSION, "9.0"}


# Consent given anew on the same version ------------------------------------------------------------------------------

SPRING = date(2018, 4, 23)
TWICE_A_YEAR = OPEN.model_copy(
    update={
        "fieldwork": IPC.fieldwork.model_copy(
            update={"consent": (IPC.fieldwork.consent[0].model_copy(update={"reconsent_after": Period(months=6)}),)}
        )
    }
)
CHILD = {"route": "parent", "sixteen_in": "2018-03", "copy_filed": "yes"}
OWN = {"consented_on": date(2018, 4, 9), "route": "self"}


def read_consents(site: Luton) -> list[tuple[str, str, str, str]]:
    """Those that stand, by day of signing: the day, who consented, whether the form is filed, what tells it apart."""
    stands = site.stands(ConsentRecorded).sort_values("occurred_on")
    days = stands["occurred_on"].dt.strftime("%Y-%m-%d")
    return list(zip(days, stands["route"], stands["copy_filed"], stands["renewal"], strict=True))


PARENTS, ANNS = ("2017-09-11", "parent", "yes", ""), ("2018-04-09", "self", "no", "2018-04-09")


def begin_child(**cells: Any) -> Luton:
    """Screened, and a parent consented on 11 September 2017 for a child who turns 16 in March 2018."""
    site = begin(ANN, consent=False)
    site.post(on=date(2017, 9, 16), consent=[consented(ANN, **CHILD | cells)])
    return site


@pytest.mark.parametrize("is_whole", [True, False])
def test_own_consent_follows_on_a_parents_on_the_same_form(is_whole):
    site = begin_child()
    rows = [consented(ANN, **CHILD), consented(ANN, **OWN)] if is_whole else [consented(ANN, **OWN)]
    renewed = site.post(on=SPRING, today=SPRING, consent=rows)
    assert renewed.faults == []
    assert [event.key for event in renewed.find(ConsentRecorded)] == [f"consent:{ANN}:{VERSION}:2018-04-09"]
    assert renewed.find(Voided) == []
    assert read_consents(site) == [PARENTS, ANNS]
    for number, again in enumerate((rows, rows[::-1], rows[-1:]), 2):
        repeated = site.post(on=SPRING, today=SPRING, number=number, consent=again)
        assert (repeated.faults, repeated.decision.log_events) == ([], [])
    filed = site.post(on=SPRING, today=SPRING, number=5, consent=[consented(ANN, **OWN, copy_filed="yes")])
    assert (filed.faults, len(filed.find(Voided))) == ([], 1)
    assert read_consents(site) == [PARENTS, ("2018-04-09", "self", "yes", "2018-04-09")]


@pytest.mark.parametrize(
    ("study", "before", "after", "is_consent_of_its_own"),
    [
        (OPEN, CHILD, OWN | {"consented_on": date(2017, 9, 12)}, True),
        # as a parent's it is to be given anew within four weeks of the end of the month
        (OPEN, CHILD, CHILD | {"consented_on": date(2018, 3, 2)}, False),
        (OPEN, CHILD, CHILD | {"consented_on": date(2018, 3, 3)}, True),
        (OPEN, CHILD, {"consented_on": date(2018, 3, 3), "route": "", "sixteen_in": "2018-03"}, True),
        (OPEN, CHILD | {"sixteen_in": ""}, CHILD | {"consented_on": date(2018, 4, 9)}, False),
        (OPEN, {"route": "consultee", "capacity": "assessed"}, OWN, True),
        (OPEN, {}, OWN | {"route": "consultee", "capacity": "assessed"}, True),
        (OPEN, CHILD, OWN | {"route": "consultee", "capacity": "assessed"}, True),
        (OPEN, {}, OWN | CHILD, False),
        (OPEN, {"route": ""}, OWN, False),
        (OPEN, {}, OWN, False),
        # six months are over on 11 March 2018, the notice begins on 11 February
        (TWICE_A_YEAR, {}, OWN | {"consented_on": date(2018, 2, 10)}, False),
        (TWICE_A_YEAR, {}, OWN | {"consented_on": date(2018, 2, 11)}, True),
        (TWICE_A_YEAR, {"route": ""}, OWN | {"route": ""}, True),
        (TWICE_A_YEAR, {}, {"consented_on": date(2017, 9, 6)}, False),
    ],
)
def test_another_day_of_signing_is_another_consent_or_a_contradiction(study, before, after, is_consent_of_its_own):
    site = Luton(study)
    site.post(on=date(2017, 9, 15), screening=[screened(ANN)], consent=[consented(ANN, **before)])
    received = site.post(on=SPRING, today=SPRING, consent=[consented(ANN, **before | after)])
    rules = [rule for rule, *_ in received.faults if rule != "sixteenth_month_missing"]
    assert rules == ([] if is_consent_of_its_own else ["differs_from_record"])
    assert len(site.stands(ConsentRecorded)) == 1 + is_consent_of_its_own
    assert derive_standing(site.view, "luton", {}).people[ANN].consented_on == date(2017, 9, 11)


def test_what_is_blank_of_a_consent_given_anew_is_not_taken_from_the_old_one():
    site = begin_child(taken_by="site_lead", form="standard")
    site.post(on=SPRING, today=SPRING, consent=[consented(ANN, **OWN | {"taken_by": "", "form": "", "copy_filed": ""})])
    new = site.stands(ConsentRecorded).sort_values("occurred_on").iloc[-1]
    assert new[["taken_by", "form", "copy_filed", "sixteen_in"]].tolist() == ["", "", "", ""]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_backlog_tells_all_consents_at_once_in_any_order(order):
    rows = [consented(ANN, **CHILD), consented(ANN, **OWN), consented(ANN, **OWN | {"consented_on": date(2018, 10, 1)})]
    site = Luton(TWICE_A_YEAR)
    told = [rows[place] for place in order]
    received = site.post(on=date(2018, 10, 5), today=date(2018, 10, 5), screening=[screened(ANN)], consent=told)
    assert received.faults == []
    assert [line[3] for line in read_consents(site)] == ["", "2018-04-09", "2018-10-01"]


def test_two_days_of_one_consent_in_one_file_are_neither():
    site = begin(ANN, consent=False)
    received = site.post(consent=[consented(ANN), consented(ANN, consented_on=date(2017, 9, 12))])
    assert [rule for rule, *_ in received.faults] == ["duplicate_in_file", "duplicate_in_file"]
    assert read_consents(site) == []


def test_an_older_workbook_tells_the_first_consent_after_the_second():
    site = begin(ANN, consent=False)
    site.post(on=SPRING, today=SPRING, consent=[consented(ANN, **OWN)])
    late = site.post(on=date(2017, 9, 16), today=SPRING, consent=[consented(ANN, **CHILD)])
    assert late.faults == []
    first, second = read_consents(site)
    assert (first, second) == (("2017-09-11", "parent", "yes", "2017-09-11"), ("2018-04-09", "self", "no", ""))
    assert derive_standing(site.view, "luton", {}).people[ANN].consented_on == date(2017, 9, 11)


def test_a_newer_workbook_tells_an_earlier_consent_only_beside_the_one_that_is_known():
    def told() -> Luton:
        site = begin(ANN, consent=False)
        site.post(on=date(2018, 4, 20), today=SPRING, consent=[consented(ANN, **OWN)])
        return site

    alone = told().post(on=SPRING, today=SPRING, consent=[consented(ANN, **CHILD)])
    assert [rule for rule, *_ in alone.faults] == ["differs_from_record"]
    site = told()
    assert site.post(on=SPRING, today=SPRING, consent=[consented(ANN, **OWN), consented(ANN, **CHILD)]).faults == []
    assert [line[0] for line in read_consents(site)] == ["2017-09-11", "2018-04-09"]


def test_its_own_sending_corrects_a_day_and_makes_no_second_consent_of_it():
    moved = consented(ANN, **CHILD | OWN | {"consented_on": date(2017, 9, 12)})
    site = begin_child()
    assert site.post(on=date(2017, 9, 16), correction=1, consent=[moved]).faults == []
    assert read_consents(site) == [("2017-09-12", "self", "yes", "")]
    site = begin_child()
    both = site.post(on=date(2017, 9, 16), correction=1, consent=[consented(ANN, **CHILD), moved])
    assert both.faults == []
    assert [line[0] for line in read_consents(site)] == ["2017-09-11", "2017-09-12"]


@pytest.mark.parametrize("on", [date(2018, 4, 8), date(2018, 4, 10)])
def test_a_corrected_day_of_a_consent_given_anew_leaves_the_first_alone(on):
    site = begin_child()
    site.post(on=SPRING, today=SPRING, consent=[consented(ANN, **OWN)])
    moved = [consented(ANN, **CHILD), consented(ANN, **OWN | {"consented_on": on})]
    asked = site.post(on=SPRING, today=SPRING, number=2, consent=moved)
    assert [rule for rule, *_ in asked.faults] == ["differs_from_record"]
    corrected = site.post(on=SPRING, today=SPRING, correction=1, consent=moved[::-1])
    assert corrected.faults == []
    assert read_consents(site) == [PARENTS, (on.isoformat(), "self", "no", "2018-04-09")]
    assert site.list_queries() == []
    overtaken = site.post(on=SPRING, today=SPRING, sha256="f" * 64, consent=[consented(ANN, **OWN)])
    assert [rule for rule, *_ in overtaken.faults] == ["overtaken_by_correction"]


GROWING = [
    (date(2017, 9, 16), [CHILD | {"copy_filed": ""}]),
    (date(2018, 4, 13), [CHILD, OWN]),
    (date(2018, 4, 20), [CHILD, OWN | {"copy_filed": "yes"}]),
]


@given(order=st.lists(st.integers(0, 2), min_size=3, max_size=6).filter(lambda order: len(set(order)) == 3))
@settings(max_examples=10, deadline=None)
def test_a_growing_log_of_consent_ends_the_same_in_whatever_order_it_comes(order):
    site = begin(ANN, consent=False)
    for place, n in enumerate(order):
        on, rows = GROWING[n]
        told = [consented(ANN, **cells) for cells in rows]
        assert site.post(on=on, today=SPRING, consent=told, sha256=f"{place:064d}").faults == []
    assert read_consents(site) == [PARENTS, ("2018-04-09", "self", "yes", "2018-04-09")]


# Logs sent whole each time --------------------------------------------------------------------------------------------


def test_a_whole_log_sent_again_is_a_repeat():
    site = Luton()
    sheets = {"screening": [screened(ANN), screened(BEN, outcome="no_answer")], "consent": [consented(ANN)]}
    site.post(on=date(2017, 9, 15), **sheets)
    again = site.post(**sheets)
    assert (again.faults, again.decision.log_events, again.decision.n_log_repeated) == ([], [], 7)


LATER = [
    ("screening", {"outcome": ""}, {"outcome": "agreed"}, "approach_answered"),
    ("screening", {"outcome": "no_answer"}, {"outcome": "declined", "reason": "no_time"}, "approach_answered"),
    ("screening", {"outcome": "no_answer"}, {"outcome": "agreed"}, "approach_answered"),
    ("screening", {"approached_on": None, "outcome": ""}, {}, "participant_approached"),
    ("screening", {}, {"body": COUNCIL}, "participant_screened"),
    ("consent", {}, {"copy_filed": "yes"}, "consent_recorded"),
    ("consent", {"copy_filed": ""}, {"copy_filed": "no"}, "consent_recorded"),
    ("consent", {"taken_by": ""}, {}, "consent_recorded"),
    ("consent", {"form": "", "route": "", "capacity": ""}, {"capacity": "assessed"}, "consent_recorded"),
    (
        "consent",
        {"route": "parent", "sixteen_in": ""},
        {"route": "parent", "sixteen_in": "2018-03"},
        "consent_recorded",
    ),
]


@pytest.mark.parametrize(("sheet", "before", "after", "kind"), LATER)
def test_what_becomes_known_later_is_added_without_a_query(sheet, before, after, kind):
    site = begin(ANN, consent=False)
    person = BEN if sheet == "screening" else ANN
    site.post(on=date(2017, 9, 16), **{sheet: [MAKE[sheet](person, **before)]})
    later = site.post(**{sheet: [MAKE[sheet](person, **after)]})
    assert later.faults == []
    assert kind in {event.kind for event in later.decision.log_events}
    content = [e.model_dump(exclude={"source"}) for e in later.decision.log_events if e.kind == kind]
    standing = site.stands(type(next(e for e in later.decision.log_events if e.kind == kind)))
    assert len(standing[standing["participant_id"] == person]) == len(content) == 1


@pytest.mark.parametrize(
    ("sheet", "told", "blank"),
    [
        ("screening", {}, {"outcome": ""}),
        ("screening", {"outcome": "declined", "reason": "no_time"}, {"outcome": "", "reason": ""}),
        ("screening", {}, {"approached_on": None, "outcome": ""}),
        ("screening", {"body": COUNCIL}, {"body": ""}),
        ("consent", {"capacity": "assessed"}, {"capacity": "", "route": "", "taken_by": "", "form": ""}),
        ("consent", {"copy_filed": "yes", "sixteen_in": "2018-03"}, {"copy_filed": "", "sixteen_in": ""}),
    ],
)
def test_what_is_left_blank_later_stays_as_it_was_told(sheet, told, blank):
    site = begin(ANN, consent=False)
    person = BEN if sheet == "screening" else ANN
    site.post(on=date(2017, 9, 16), **{sheet: [MAKE[sheet](person, **told)]})
    again = site.post(**{sheet: [MAKE[sheet](person, **told | blank)]})
    assert (again.faults, again.decision.log_events) == ([], [])


DIFFERENT = [
    ("screening", {}, {"outcome": "declined", "reason": "no_time"}),
    ("screening", {"outcome": "declined", "reason": "no_time"}, {"outcome": "declined", "reason": "privacy"}),
    ("screening", {"outcome": "no_answer"}, {"outcome": "agreed", "approached_on": date(2017, 9, 6)}),
    ("screening", {}, {"approached_on": date(2017, 9, 6)}),
    ("screening", {"body": COUNCIL}, {"body": "luton_ccg"}),
    ("consent", {"copy_filed": "yes"}, {"copy_filed": "no"}),
    ("consent", {}, {"taken_by": "site_lead"}),
    ("consent", {}, {"consented_on": date(2017, 9, 12), "copy_filed": "yes"}),
    ("consent", {}, {"consent_scopes": "questionnaires", "copy_filed": "yes"}),
    ("consent", {}, {"route": "consultee", "capacity": "assessed"}),
]


@pytest.mark.parametrize(("sheet", "before", "after"), DIFFERENT)
def test_what_differs_is_asked_about_unless_its_own_sending_corrects_it(sheet, before, after):
    def told() -> Luton:
        site = begin(ANN, consent=False)
        person = BEN if sheet == "screening" else ANN
        site.post(on=date(2017, 9, 16), **{sheet: [MAKE[sheet](person, **before)]})
        return site

    person = BEN if sheet == "screening" else ANN
    other = told().post(**{sheet: [MAKE[sheet](person, **after)]})
    assert [(rule, severity) for rule, _, severity in list_faults(other)] == [("differs_from_record", "hard")]
    assert other.decision.log_events == []
    corrected = told().post(on=date(2017, 9, 16), correction=1, **{sheet: [MAKE[sheet](person, **after)]})
    assert corrected.faults == []
    assert len(corrected.find(Voided)) == corrected.decision.n_log_entries > 0


@pytest.mark.parametrize(
    ("sheet", "known", "older"),
    [
        ("consent", {"copy_filed": "yes"}, {"copy_filed": "no"}),
        ("consent", {}, {"taken_by": ""}),
        ("screening", {"outcome": "agreed"}, {"outcome": "no_answer"}),
    ],
)
def test_a_workbook_posted_before_and_received_later_undoes_nothing(sheet, known, older):
    site = begin(ANN, consent=False)
    person = BEN if sheet == "screening" else ANN
    site.post(on=date(2017, 9, 28), **{sheet: [MAKE[sheet](person, **known)]})
    late = site.post(on=date(2017, 9, 27), **{sheet: [MAKE[sheet](person, **older)]})
    assert (late.faults, late.decision.log_events) == ([], [])


def test_the_same_person_told_twice_with_different_answers_is_neither():
    received = Luton().post(screening=[screened(ANN), screened(ANN, outcome="no_answer"), screened(BEN)])
    assert {rule for rule, *_ in received.faults} == {"duplicate_in_file"}
    assert [event.participant_id for event in received.find(ApproachAnswered)] == [BEN]


# Rows that a pack filled in beforehand --------------------------------------------------------------------------------


def test_rows_to_which_nothing_was_added_say_nothing():
    site = begin(ANN, BEN)
    key = {"participant_id": ANN, "respondent": "self", "form": "standard", "wave": "baseline"}
    received = site.post(
        screening=[{"participant_id": CAT}, screened(ANN)],
        consent=[{"participant_id": ANN, "asked": "the signed form"}],
        allocation=[{"participant_id": ANN}],
        disposition=[{"participant_id": BEN}],
        activity=[{"month": "2017-08", "figure": "care_plans"}, figures(figure="budgets", nhs_england=None)],
        queries=[{"query_id": "luton-0001", "about": "a row", "question": "Which?"}],
        eq5d5l=[key],
    )
    assert received.faults == []
    assert [event.kind for event in received.decision.log_events] == ["activity_reported"]
    assert received.decision.records == []
    assert received.file.outcome == "accepted"


def test_a_pack_sent_back_as_it_came_holds_nothing_to_read():
    received = begin(ANN).post(
        screening=[{"participant_id": CAT}], activity=[{"month": "2017-08", "figure": "budgets"}]
    )
    assert (received.file.outcome, received.file.reason) == ("quarantined", "nothing_to_read")


@pytest.mark.parametrize(("typed", "rule"), [(STRANGE, "participant_malformed"), (ANN[:-1] + "9", "check_digit_wrong")])
def test_a_row_with_an_identifier_that_nobody_issued_is_never_passed_over(typed, rule):
    received = Luton().post(screening=[{"participant_id": typed}, screened(ANN)])
    assert (rule, "A3", "hard") in list_faults(received)


def test_a_row_with_a_fault_is_never_passed_over():
    facts = {"study": "ipc", "site": "luton", "posted_on": TODAY, "sending_number": 1, "correction": 0}
    problem = Problem("date_not_understood", "hard", "consent", cell="B3", row=3, last_row=3, column="consented_on")
    reading = make_reading({"consent": [{"participant_id": ANN}] * 2}, facts, [problem], LAYOUT)
    assert drop_unfilled_rows(reading, IPC).sheets["consent"].frame["row"].tolist() == [3]


# Identifiers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sheet", ["screening", "consent", "disposition"])
@pytest.mark.parametrize("wrong", [ANN[:-1] + "9", ANN[:-2] + "31", "LUT-P00103"])
def test_a_wrong_digit_is_refused_by_its_own_rule_and_never_guessed(sheet, wrong):
    assert wrong != ANN
    received = begin(ANN).post(**{sheet: [MAKE[sheet](wrong)]})
    assert list_faults(received) == [("check_digit_wrong", "A3", "hard")]
    assert received.decision.faults[0].participant_id == ""
    assert wrong not in "".join(event.encode_payload() + event.key for event in received.events)


def test_a_wrong_digit_in_a_questionnaire_is_refused_too():
    key = {"participant_id": ANN[:-1] + "9", "respondent": "self", "form": "standard", "wave": "baseline"}
    items = {item.id: next(iter(item.levels), item.maximum) for item in INSTRUMENTS["eq5d5l"].items}
    received = begin(ANN).post(eq5d5l=[key | {"collected_on": date(2017, 9, 12)} | items])
    assert list_faults(received) == [("check_digit_wrong", "A3", "hard")]


def issue(site: Luton, first: int, n: int) -> None:
    block = IdentifiersIssued(occurred_on=date(2017, 9, 1), requested_by="M", site_id=site.site_id, first=first, n=n)
    site.events.append(block)


@pytest.mark.parametrize(("number", "is_issued"), [(1, True), (50, True), (51, False), (60, False), (100, False)])
def test_an_identifier_that_was_never_issued_to_the_site_is_taken_and_asked_about(number, is_issued):
    site = Luton()
    issue(site, 1, 50)
    issue(site, 101, 50)
    name = compute_identifier(RULE, "LUT", number)
    received = site.post(screening=[screened(name)])
    assert list_faults(received) == ([] if is_issued else [("identifier_not_issued", "A3", "soft")])
    assert {event.participant_id for event in received.find(ParticipantScreened)} == {name}
    assert site.post(number=2, screening=[screened(name)]).faults == []


def test_where_no_block_was_issued_any_sound_identifier_will_do():
    assert Luton().post(screening=[screened(DAN)]).faults == []


def test_who_is_known_already_is_known_whatever_the_digit():
    """From an imported list, or from before the study had check digits."""
    site = Luton()
    old = "LUT-P00017"
    site.events.append(
        ParticipantScreened(occurred_on=date(2017, 8, 1), requested_by="M", site_id="luton", participant_id=old,
                            cohort="mental_health")
    )  # fmt: skip
    assert site.post(consent=[consented(old)]).faults == []


# Figures --------------------------------------------------------------------------------------------------------------


def read_figures(site: Luton) -> list[tuple[str, str, str, int, int]]:
    rows = site.stands(ActivityReported)
    return list(
        zip(*(rows[name] for name in ("figure", "month", "reported_to", "version", "count")), strict=True)
    )  # fmt: skip


def test_a_figure_is_reported_twice_over_and_a_blank_not_at_all():
    site = Luton()
    received = site.post(activity=[figures(), figures(figure="budgets", evaluation=0, nhs_england=None)])
    assert received.decision.n_log_entries == 3
    assert {event.occurred_on for event in received.find(ActivityReported)} == {date(2017, 9, 29)}
    assert read_figures(site) == [
        ("care_plans", "2017-08", "evaluation", 1, 120),
        ("care_plans", "2017-08", "nhs_england", 1, 131),
        ("budgets", "2017-08", "evaluation", 1, 0),
    ]


def test_another_count_is_a_new_version_and_the_same_count_a_repeat():
    site = Luton()
    site.post(on=date(2017, 9, 15), activity=[figures()])
    same = site.post(activity=[figures(), figures()])
    assert (same.faults, same.decision.log_events, same.decision.n_log_repeated) == ([], [], 4)
    other = site.post(number=2, activity=[figures(evaluation=118)])
    assert [event.version for event in other.find(ActivityReported)] == [2]
    back = site.post(number=3, activity=[figures()])
    assert [(event.version, event.count) for event in back.find(ActivityReported)] == [(3, 120)]


def test_the_newest_posting_counts_whichever_arrives_first():
    site = Luton()
    site.post(on=date(2017, 9, 22), activity=[figures()])
    late = site.post(on=date(2017, 9, 15), activity=[figures(evaluation=1)])
    assert list_faults(late) == [("overtaken_by_later_return", "C3", "hard")]
    assert late.decision.log_events == []
    corrected = site.post(on=date(2017, 9, 22), correction=2, activity=[figures(evaluation=2)])
    assert [event.version for event in corrected.find(ActivityReported)] == [2]
    overtaken = site.post(on=date(2017, 9, 22), correction=1, activity=[figures(evaluation=3)])
    assert list_faults(overtaken) == [("overtaken_by_correction", "C3", "hard")]


def test_one_figure_told_twice_in_a_file_with_different_counts_is_neither():
    received = Luton().post(activity=[figures(), figures(evaluation=9), figures(figure="budgets")])
    assert list_faults(received) == [("duplicate_in_file", "C3", "hard"), ("duplicate_in_file", "C4", "hard")]
    assert {event.figure for event in received.find(ActivityReported)} == {"care_plans", "budgets"}
    assert len(received.find(ActivityReported)) == 3


@pytest.mark.parametrize(
    ("month", "posted_on", "is_over"),
    [
        ("2017-08", date(2017, 8, 30), False),
        ("2017-08", date(2017, 8, 31), True),
        ("2017-08", date(2017, 9, 1), True),
        ("2017-12", date(2017, 12, 31), True),
        ("2017-12", date(2018, 1, 1), True),
        ("2018-02", date(2018, 2, 27), False),
        ("2018-02", date(2018, 2, 28), True),
    ],
)
def test_a_month_is_counted_when_it_is_over(month, posted_on, is_over):
    received = Luton().post(on=posted_on, today=date(2018, 3, 5), activity=[figures(month=month)])
    assert [rule for rule, *_ in received.faults] == ([] if is_over else ["month_not_over"])


# Answers to queries ---------------------------------------------------------------------------------------------------


def ask(site: Luton) -> str:
    [query_id] = site.post(on=date(2017, 9, 18), consent=[consented(ANN, route="solicitor")]).query_ids
    return query_id


def answer(query_id: str, word: str) -> Row:
    return {"query_id": query_id, "about": "Consent, F3", "question": "Which route?", "answer": word}


def test_an_answer_is_recorded_and_closes_nothing_by_itself():
    site = begin(ANN)
    query_id = ask(site)
    received = site.post(queries=[answer(query_id, "confirmed")])
    [told] = received.find(QueryAnswered)
    assert (told.query_id, told.answer_number, told.answer) == (query_id, 1, "confirmed")
    assert received.find(QueryClosed) == []
    assert [open_id for open_id, _ in site.list_queries()] == [query_id]


def test_another_answer_is_the_next_and_the_same_one_a_repeat():
    site = begin(ANN)
    query_id = ask(site)
    site.post(queries=[answer(query_id, "cannot_say")])
    assert site.post(number=2, queries=[answer(query_id, "cannot_say")]).decision.log_events == []
    [second] = site.post(number=3, queries=[answer(query_id, "corrected")]).find(QueryAnswered)
    assert second.answer_number == 2
    late = site.post(on=date(2017, 9, 20), queries=[answer(query_id, "confirmed")])
    assert list_faults(late) == [("overtaken_by_later_return", "D3", "hard")]


def test_an_answer_to_a_closed_query_says_nothing_new():
    site = begin(ANN)
    query_id = ask(site)
    site.post(on=date(2017, 9, 18), correction=1, consent=[consented(ANN)])
    assert site.list_queries() == []
    received = site.post(queries=[answer(query_id, "corrected")])
    assert (received.faults, received.decision.log_events, received.decision.n_log_repeated) == ([], [], 1)


def test_nobody_answers_for_another_site():
    site = begin(ANN)
    query_id = ask(site)
    other = Luton()
    other.site_id, other.events = "portsmouth", list(site.events)
    received = other.post(queries=[answer(query_id, "confirmed")])
    assert list_faults(received) == [("query_unknown", "A3", "hard")]


# What was not allowed -------------------------------------------------------------------------------------------------


def decide(site: Luton, **sheets: Any) -> Any:
    view = site.view
    facts = {"study": "ipc", "site": "luton", "posted_on": TODAY, "sending_number": 1, "correction": 0}
    return decide_return(
        make_reading(sheets, facts, (), LAYOUT), FileFacts("d" * 64, 9, "luton"), IPC, INSTRUMENTS,
        derive_standing(view, "luton", derive_homes(view)), pd.DataFrame(columns=RESPONSE_COLUMNS), TODAY, "Mary",
        SiteGate(IPC, view, "luton", TODAY),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("cells", "activities"),
    [({"approached_on": None, "outcome": ""}, []), ({"outcome": ""}, ["approach"]), ({}, ["approach"])],
)
def test_looking_through_records_is_no_approach(cells, activities):
    """No approval of IPC is in force here: what counts as done while it was not allowed is the approach itself."""
    decision = decide(Luton(), screening=[screened(ANN, **cells)])
    assert [breach.question.activity for breach in decision.breaches] == activities
    assert decision.n_log_entries


def test_signing_is_recruiting():
    decision = decide(begin(ANN, consent=False), consent=[consented(ANN)])
    assert [(breach.question.activity, breach.rows) for breach in decision.breaches] == [("recruit", (("consent", 3),))]


# The whole ------------------------------------------------------------------------------------------------------------

TELLINGS = [
    (date(2017, 9, 8), {"outcome": ""}, {"taken_by": "", "copy_filed": ""}, 5),
    (date(2017, 9, 15), {"outcome": "no_answer"}, {"taken_by": "", "copy_filed": "no"}, 6),
    (date(2017, 9, 22), {"outcome": "agreed"}, {"copy_filed": "yes"}, 7),
]


@given(order=st.lists(st.integers(0, 2), min_size=3, max_size=6).filter(lambda order: len(set(order)) == 3))
@settings(max_examples=10, deadline=None)
def test_the_order_of_arrival_changes_nothing(order):
    """A log sent whole three times, each time knowing more, ends the same however and how often the three arrive."""
    site = Luton()
    for place, n in enumerate(order):
        posted_on, approach, consent, count = TELLINGS[n]
        received = site.post(
            on=posted_on, screening=[screened(ANN, **approach)], consent=[consented(ANN, **consent)],
            activity=[figures(evaluation=count)], sha256=f"{place:064d}",
        )  # fmt: skip
        assert {rule for rule, *_ in received.faults} <= {"overtaken_by_later_return"}
    assert site.stands(ApproachAnswered)["outcome"].tolist() == ["agreed"]
    [consent] = site.stands(ConsentRecorded).to_dict("records")
    assert (consent["taken_by"], consent["copy_filed"]) == ("site_researcher", "yes")
    newest = site.stands(ActivityReported).query("reported_to == 'evaluation'").sort_values("version").iloc[-1]
    assert newest["count"] == 7


def test_rebuilding_what_stands_gives_what_was_decided():
    site = begin(ANN)
    issue(site, 1, 50)
    site.post(disposition=[left(ANN)], activity=[figures()])
    view = tell(*site.events)
    standing = derive_standing(view, "luton", derive_homes(view))
    person = standing.people[ANN]
    assert (person.screened_on, person.approached_on, person.outcome) == (date(2017, 9, 4), date(2017, 9, 5), "agreed")
    assert (person.consented_on, person.left) == (date(2017, 9, 11), {"questionnaires": date(2017, 9, 20)})
    assert standing.blocks == {1: 50}
    assert standing.figures["care_plans", "2017-08", "evaluation"] == (1, 120, (date(2017, 9, 29), 1, 0))
