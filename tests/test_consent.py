"""Consent that sites hold: what each person agreed to, where the form is, what is wrong, and what does not agree."""

from datetime import date, timedelta
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.consent import (
    FAULTS,
    FINDINGS,
    Signing,
    derive_consent_incidents,
    derive_consents,
    is_given_anew,
    reconcile_consent,
)
from study.events import DocumentVersionIssued, Event, IncidentOpened, QueryClosed, Voided
from study.protocol import Study
from tests.approval_histories import step, tell
from tests.consent_histories import FIELDWORK, collected, left, looked, make_study, refused, signed
from tests.test_protocol import replace_once

DAY = date(2017, 10, 2)


@pytest.fixture(scope="module")
def study() -> Study:
    return make_study()


def find_consent(study: Study, *told: Event, as_of: date = DAY) -> dict[str, Any]:
    (row,) = derive_consents(study, tell(*told), as_of).to_dict("records")
    return row


def find_faults(study: Study, *told: Event, as_of: date = DAY) -> str:
    return str(find_consent(study, *told, as_of=as_of)["faults"])


# Which consent is in force -----------------------------------------------------------------------------------------


def test_columns_of_consents(study: Study) -> None:
    event = signed(
        "2017-09-01",
        scopes=("questionnaires", "linkage"),
        taken_by="site_researcher",
        form="standard",
        copy_filed="yes",
    )
    row = find_consent(study, event)
    assert row == {
        "participant_id": "LUT-001", "site_id": "luton", "consented_on": pd.Timestamp("2017-09-01"),
        "signed_on": pd.Timestamp("2017-09-01"), "form_version": "1.0", "renewal": "",
        "scopes": "linkage;questionnaires", "route": "self", "form": "standard", "taken_by": "site_researcher",
        "capacity": "", "sixteen_in": "", "copy": "held", "copy_due_on": pd.Timestamp("2017-09-15"),
        "reconsent_due_on": pd.NaT, "faults": "", "covers_questionnaires": True, "covers_linkage": True,
    }  # fmt: skip
    filled = derive_consents(study, tell(event), DAY)
    assert derive_consents(study, tell(), DAY).dtypes.to_dict() == filled.dtypes.to_dict()


def test_the_form_signed_last_counts_whatever_was_told_first(study: Study) -> None:
    second = signed("2018-02-05", form_version="2.0", scopes=("questionnaires", "linkage"))
    row = find_consent(study, second, signed("2017-09-01"), as_of=date(2018, 3, 1))
    assert (row["form_version"], row["covers_linkage"]) == ("2.0", True)
    assert (row["consented_on"], row["signed_on"]) == (pd.Timestamp("2017-09-01"), pd.Timestamp("2018-02-05"))
    before = find_consent(study, second, signed("2017-09-01"), as_of=date(2018, 2, 4))
    assert (before["form_version"], before["covers_linkage"]) == ("1.0", False)


def test_one_row_per_person_and_none_before_the_day(study: Study) -> None:
    told = tell(signed("2017-09-01"), signed("2017-09-04", "DEV-002"), signed("2017-10-03", "LUT-003"))
    assert list(derive_consents(study, told, DAY)["participant_id"]) == ["DEV-002", "LUT-001"]


def test_a_voided_consent_is_none(study: Study) -> None:
    void = Voided(occurred_on=DAY, requested_by="Siân", voids=f"{1:064x}", reason="entered_in_error")
    assert derive_consents(study, tell(signed("2017-09-01"), void), DAY).empty


@pytest.mark.parametrize(
    ("scopes", "covers"),
    [
        (("questionnaires",), (True, False)),
        (("linkage",), (False, True)),
        (("linkage", "questionnaires"), (True, True)),
        (("carer_contact",), (False, False)),
        ((), (False, False)),
    ],
)
def test_a_consent_covers_what_was_agreed_to(study: Study, scopes: tuple[str, ...], covers: tuple[bool, bool]) -> None:
    row = find_consent(study, signed("2017-09-01", scopes=scopes))
    assert (row["covers_questionnaires"], row["covers_linkage"]) == covers


def test_a_study_without_a_rule_asks_for_consent_alone() -> None:
    row = find_consent(make_study(fieldwork=""), signed("2016-01-01", scopes=(), basis="assumed"))
    assert (row["covers_questionnaires"], row["covers_linkage"], row["faults"]) == (True, False, "")
    assert pd.isna(row["copy_due_on"])


# Versions of the form ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on", "version", "fault"),
    [
        ("2017-06-30", "1.0", "signed_before_approved"),
        ("2017-07-01", "1.0", ""),
        ("2018-01-31", "1.0", ""),
        ("2018-02-01", "1.0", "superseded_version"),
        ("2018-01-31", "2.0", "signed_before_approved"),
        ("2018-02-01", "2.0", ""),
        ("2018-02-01", "3.0", "signed_before_approved"),
    ],
)
def test_while_no_version_is_issued_the_protocols_dates_count(study: Study, on: str, version: str, fault: str) -> None:
    assert find_faults(study, signed(on, form_version=version), as_of=date(2018, 6, 1)) == fault


APPROVED = [
    DocumentVersionIssued(
        occurred_on="2017-02-01", requested_by="Siân", document="consent_form", version="1.0", approval="green_light"
    ),
    step("submitted", "2017-06-01", "green_light"),
    step("granted", "2017-08-01", "green_light"),
]


@pytest.mark.parametrize(
    ("on", "person", "fault"),
    [
        ("2017-07-31", "LUT-001", "signed_before_approved"),
        ("2017-08-01", "LUT-001", ""),
        ("2017-08-01", "DEV-001", "signed_before_approved"),  # nothing is approved there yet
    ],
)
def test_a_version_may_be_signed_at_a_site_from_its_approval_there(
    study: Study, on: str, person: str, fault: str
) -> None:
    assert find_faults(study, *APPROVED, signed(on, person)) == fault


def test_a_version_that_was_never_issued_is_not_approved_whatever_the_protocol_lists(study: Study) -> None:
    assert find_faults(study, *APPROVED, signed("2018-02-05", form_version="2.0"), as_of=date(2018, 3, 1)) == (
        "signed_before_approved"
    )


def test_a_document_of_another_name_puts_no_form_in_force(study: Study) -> None:
    other = APPROVED[0].model_copy(update={"document": "information_sheet"})
    assert find_faults(study, other, *APPROVED[1:], signed("2017-07-15")) == ""


# Routes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capacity", "fault"), [("assessed", ""), ("not_assessed", "capacity_not_assessed"), ("", "capacity_not_assessed")]
)
def test_a_consultee_needs_an_assessment_of_capacity(study: Study, capacity: str, fault: str) -> None:
    assert find_faults(study, signed("2017-09-01", route="consultee", capacity=capacity)) == fault
    assert find_faults(study, signed("2017-09-01", capacity=capacity)) == ""


@pytest.mark.parametrize(
    ("on", "as_of", "fault", "covers"),
    [
        ("2017-08-31", "2017-08-31", "", True),
        ("2017-08-31", "2017-09-30", "", True),
        ("2017-08-31", "2017-10-01", "reconsent_overdue", False),
        ("2017-09-30", "2017-09-30", "", True),
        ("2017-10-01", "2017-10-01", "parent_after_sixteen", False),
    ],
)
def test_a_parent_consents_until_the_month_of_the_sixteenth_birthday_is_over(
    study: Study, on: str, as_of: str, fault: str, covers: bool
) -> None:
    child = signed(on, route="parent", sixteen_in="2017-09")
    row = find_consent(study, child, as_of=date.fromisoformat(as_of))
    assert (row["faults"], row["covers_questionnaires"]) == (fault, covers)
    assert row["reconsent_due_on"] == pd.Timestamp("2017-09-30")


def test_a_leap_years_february_has_29_days(study: Study) -> None:
    child = signed("2017-09-01", route="parent", sixteen_in="2020-02")
    assert find_consent(study, child)["reconsent_due_on"] == pd.Timestamp("2020-02-29")


def test_own_consent_takes_the_place_of_a_parents(study: Study) -> None:
    child = signed("2017-09-01", route="parent", sixteen_in="2018-02")
    own = signed("2018-02-15", form_version="2.0", sixteen_in="2018-02")
    row = find_consent(study, child, own, as_of=date(2018, 3, 1))
    assert (row["faults"], row["covers_questionnaires"], row["reconsent_due_on"]) == ("", True, pd.NaT)


def test_the_month_is_asked_for_where_a_parent_consented(study: Study) -> None:
    assert find_faults(study, signed("2017-09-01", route="parent")) == "sixteen_unknown"


@pytest.mark.parametrize(
    ("on", "due", "as_of", "fault"),
    [
        ("2017-08-31", "2018-02-28", "2018-02-28", ""),
        ("2017-08-31", "2018-02-28", "2018-03-01", "reconsent_overdue"),
        ("2019-08-31", "2020-02-29", "2020-02-29", "superseded_version"),
        ("2019-08-31", "2020-02-29", "2020-03-01", "superseded_version;reconsent_overdue"),
    ],
)
def test_consent_is_given_anew_where_the_study_says_so(on: str, due: str, as_of: str, fault: str) -> None:
    rule = replace_once(FIELDWORK, "copy_within = 10", 'copy_within = 10\nreconsent_after = "6 months"')
    row = find_consent(make_study(rule), signed(on), as_of=date.fromisoformat(as_of))
    assert row["reconsent_due_on"] == pd.Timestamp(due)
    assert row["faults"] == fault
    assert row["covers_questionnaires"] == ("reconsent_overdue" not in fault)


def test_signing_again_begins_the_time_anew() -> None:
    rule = replace_once(FIELDWORK, "copy_within = 10", 'copy_within = 10\nreconsent_after = "6 months"')
    told = [signed("2017-08-31"), signed("2018-02-20", form_version="2.0")]
    assert find_consent(make_study(rule), *told, as_of=date(2018, 3, 1))["reconsent_due_on"] == pd.Timestamp(
        "2018-08-20"
    )


@given(
    day=st.dates(date(2017, 7, 1), date(2020, 12, 31)),
    months=st.integers(0, 14),
    sixteen_in=st.sampled_from(["", "2017-12", "2018-02", "2020-02", "2021-04"]),
    route=st.sampled_from(["self", "parent"]),
)
@settings(deadline=None, max_examples=60)
def test_another_day_is_a_consent_given_anew_from_the_notice_on(
    day: date, months: int, sixteen_in: str, route: str
) -> None:
    """The one rule for a single pair of days and the one for all consents give the same day."""
    lasts = f'copy_within = 10\nreconsent_after = "{months} months"' if months else "copy_within = 10"
    study = make_study(replace_once(FIELDWORK, "copy_within = 10", lasts))
    rule = study.fieldwork.consent_rule
    assert rule is not None
    (consent,) = derive_consents(study, tell(signed(str(day), route=route, sixteen_in=sixteen_in)), day).itertuples()
    before, first = Signing(day, route, sixteen_in), day + timedelta(1)
    if pd.isna(consent.reconsent_due_on):
        assert not is_given_anew(rule, before, Signing(date(2030, 1, 1), route))
        return
    first = max(first, consent.reconsent_due_on.date() - timedelta(28))
    assert is_given_anew(rule, before, Signing(first, route))
    assert not is_given_anew(rule, before, Signing(first - timedelta(1), route))


def test_consent_given_anew_on_the_same_version_takes_the_place_of_the_first(study: Study) -> None:
    parents = signed("2017-09-01", route="parent", sixteen_in="2018-02", copy_filed="yes")
    own = signed("2018-03-15", renewal="2018-03-15")
    before = find_consent(study, parents, own, as_of=date(2018, 3, 14))
    assert (before["route"], before["renewal"], before["faults"]) == ("parent", "", "reconsent_overdue")
    now = find_consent(study, parents, own, as_of=date(2018, 3, 15))
    assert (now["route"], now["renewal"], now["covers_questionnaires"]) == ("self", "2018-03-15", True)
    assert (now["consented_on"], now["signed_on"]) == (pd.Timestamp("2017-09-01"), pd.Timestamp("2018-03-15"))
    # An answer from between the two was given after the first consent, if not always under it.
    told = [parents, own, collected("2017-09-04"), collected("2018-03-05", wave="follow_up_6m")]
    assert "collected_before_consent" not in find_faults(study, *told, as_of=date(2018, 4, 1))
    assert [row[1] for row in find_rows(study, *told, as_of=date(2018, 4, 1))] == ["consent_ended"]


def test_a_look_at_the_old_paper_does_not_show_that_the_new_one_is_filed(study: Study) -> None:
    first, again = signed("2017-09-01", copy_filed="yes"), signed("2017-09-20", renewal="2017-09-20")
    old = looked("2017-09-25", "seen")
    assert find_consent(study, first, again, old)["copy"] == ""
    new = looked("2017-09-25", "faulty", renewal="2017-09-20")
    row = find_consent(study, first, again, old, new)
    assert (row["copy"], row["copy_due_on"]) == ("faulty", pd.Timestamp("2017-10-09"))


# Dates that do not agree -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on", "fault"), [("2017-08-31", "collected_before_consent"), ("2017-09-01", ""), ("2017-09-02", "")]
)
def test_answers_from_before_consent(study: Study, on: str, fault: str) -> None:
    assert find_faults(study, signed("2017-09-01"), collected(on)) == fault


def test_a_renewed_form_makes_no_earlier_answers_wrong(study: Study) -> None:
    told = [signed("2017-09-01"), collected("2017-09-08"), signed("2018-02-05", form_version="2.0")]
    assert find_faults(study, *told, as_of=date(2018, 3, 1)) == ""


def test_a_corrected_date_of_collecting_mends_it(study: Study) -> None:
    told = [signed("2017-09-01"), collected("2017-08-01"), collected("2017-09-01", version=2)]
    assert find_faults(study, *told) == ""


@pytest.mark.parametrize(
    ("on", "scope", "reason", "fault"),
    [
        ("2017-08-31", "questionnaires", "withdrew", "withdrawn_before_consent"),
        ("2017-08-31", "study", "withdrew", "withdrawn_before_consent"),
        ("2017-08-31", "data", "withdrew", "withdrawn_before_consent"),
        ("2017-09-01", "study", "withdrew", ""),
        ("2017-08-31", "treatment", "withdrew", ""),
        ("2017-08-31", "study", "completed", ""),
    ],
)
def test_a_withdrawal_dated_before_consent_is_noticed(
    study: Study, on: str, scope: str, reason: str, fault: str
) -> None:
    assert find_faults(study, signed("2017-09-01"), left(on, scope, reason)) == fault


def test_what_a_replay_assumes_has_no_faults(study: Study) -> None:
    assert find_faults(study, signed("2016-01-01", basis="assumed", route="parent"), collected("2015-01-01")) == ""


def test_every_fault_is_found_and_says_what_to_do(study: Study) -> None:
    told = [
        signed("2017-06-30", route="parent"), left("2017-06-29", "study"), collected("2017-06-29"),
        signed("2018-02-05", "LUT-002", route="consultee"),
        signed("2017-10-01", "LUT-003", route="parent", sixteen_in="2017-09"),
        signed("2017-09-01", "LUT-004", route="parent", sixteen_in="2017-09"),
    ]  # fmt: skip
    found = derive_consents(study, tell(*told), date(2018, 3, 1))["faults"]
    assert set(";".join(found).split(";")) == set(FAULTS)
    assert next(iter(found)).split(";") == [code for code in FAULTS if code in found.iloc[0]]
    assert all(fault.words and fault.to_do for fault in [*FAULTS.values(), *FINDINGS.values()])


# Copies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "copy", "due"),
    [
        ([signed("2017-09-01")], "", "2017-09-15"),
        ([signed("2017-09-01", copy_filed="yes")], "held", "2017-09-15"),
        ([signed("2017-09-01", copy_filed="no")], "missing", "2017-09-15"),
        ([signed("2017-09-01"), looked("2017-09-05", "seen")], "seen", "2017-09-15"),
        # The site never said that it filed the form: it is owed as long as before.
        ([signed("2017-09-01"), looked("2017-09-20", "missing")], "missing", "2017-09-15"),
        # A filed form that is gone, or has a fault, is a new thing to mend.
        ([signed("2017-09-01", copy_filed="yes"), looked("2017-09-20", "missing")], "missing", "2017-10-04"),
        ([signed("2017-09-01"), looked("2017-09-20", "faulty")], "faulty", "2017-10-04"),
        # The latest look counts, and what the site tells after a look that found it wanting.
        (
            [signed("2017-09-01"), looked("2017-09-20", "missing"), looked("2017-09-22", "seen", 2)],
            "seen",
            "2017-09-15",
        ),
        ([looked("2017-09-20", "faulty"), signed("2017-09-01", copy_filed="yes")], "held", "2017-09-15"),
        ([looked("2017-09-20", "seen"), signed("2017-09-01", copy_filed="yes")], "seen", "2017-09-15"),
        ([signed("2017-09-01"), looked("2017-09-20", "seen", version="2.0")], "", "2017-09-15"),
    ],
)
def test_where_a_signed_form_is(study: Study, told: list[Event], copy: str, due: str) -> None:
    row = find_consent(study, *told)
    assert (row["copy"], str(row["copy_due_on"].date())) == (copy, due)


def test_working_days_pass_over_bank_holidays(study: Study) -> None:
    assert find_consent(study, signed("2017-08-18"))["copy_due_on"] == pd.Timestamp("2017-09-04")  # 28 August


# Consents and returns ----------------------------------------------------------------------------------------------


def find_rows(study: Study, *told: Event, as_of: date = DAY) -> list[tuple[Any, ...]]:
    found = reconcile_consent(study, tell(*told), as_of)
    columns = ["participant_id", "finding", "respondent", "wave", "scope", "n_records"]
    return list(found[columns].itertuples(index=False, name=None))


def test_consents_and_returns_that_agree(study: Study) -> None:
    carer = collected("2018-03-02", "follow_up_6m", respondent="carer", instrument="care")
    consent = signed("2017-09-01", scopes=("questionnaires", "carer_contact"))
    assert find_rows(study, consent, collected("2017-09-01"), carer, as_of=date(2018, 4, 1)) == []


@pytest.mark.parametrize(
    ("told", "rows"),
    [
        ([collected("2017-09-04")], [("LUT-001", "no_consent", "self", "baseline", "", 1)]),
        (
            [signed("2017-09-05"), collected("2017-09-04"), collected("2017-09-04", instrument="care")],
            [("LUT-001", "before_consent", "self", "baseline", "", 2)],
        ),
        ([signed("2017-09-04"), collected("2017-09-04")], []),
        (
            [signed("2017-09-01", scopes=("linkage",)), collected("2017-09-04")],
            [("LUT-001", "scope_missing", "self", "baseline", "questionnaires", 1)],
        ),
        (
            [signed("2017-09-01", scopes=("linkage",)), collected("2017-09-04", respondent="carer")],
            [("LUT-001", "scope_missing", "carer", "baseline", "questionnaires;carer_contact", 1)],
        ),
        (
            [signed("2017-08-01", route="parent", sixteen_in="2017-08"), collected("2017-09-01")],
            [("LUT-001", "consent_ended", "self", "baseline", "", 1)],
        ),
        ([signed("2017-08-01", route="parent", sixteen_in="2017-08"), collected("2017-08-31")], []),
        (
            [signed("2017-08-01"), left("2017-09-03", "study"), collected("2017-09-04")],
            [("LUT-001", "after_withdrawal", "self", "baseline", "", 1)],
        ),
        ([signed("2017-08-01"), left("2017-09-04", "study"), collected("2017-09-04")], []),
        ([signed("2017-08-01"), left("2017-09-03", "study", "lost_contact"), collected("2017-09-04")], []),
        ([signed("2017-08-01"), left("2017-09-03", "linkage"), collected("2017-09-04")], []),
        ([signed("2017-08-01")], [("LUT-001", "no_return", "", "", "", 0)]),
        ([signed("2017-08-01"), left("2017-09-03", "study")], []),
        ([signed("2017-08-01", scopes=("linkage",))], []),
    ],
)
def test_what_does_not_agree(study: Study, told: list[Event], rows: list[tuple[Any, ...]]) -> None:
    assert find_rows(study, *told) == rows


MENDED = QueryClosed(
    occurred_on="2017-09-20", requested_by="Siân", site_id="luton", query_id="LUT-0001", reason="mended"
)
REFUSED = refused("2017-09-10", "collected_before_consent")


@pytest.mark.parametrize(
    ("told", "rows", "fault"),
    [
        ([REFUSED], [("before_consent", "2017-09-10")], "collected_before_consent"),
        (
            [REFUSED, refused("2017-09-17", "collected_before_consent", row=4)],
            [("before_consent", "2017-09-10")],
            "collected_before_consent",
        ),
        ([REFUSED, MENDED], [("no_return", "2017-09-05")], ""),
        ([REFUSED, collected("2017-09-05")], [], ""),
        ([refused("2017-09-10", "consent_not_recorded")], [("no_return", "2017-09-05")], ""),
        ([refused("2017-09-10", "duplicate_in_file")], [("no_return", "2017-09-05")], ""),
    ],
)
def test_a_record_refused_for_want_of_consent_is_told_of_until_it_is_settled(
    study: Study, told: list[Event], rows: list[tuple[str, str]], fault: str
) -> None:
    events = tell(signed("2017-09-05"), *told)
    found = reconcile_consent(study, events, DAY)
    assert list(zip(found["finding"], found["first_on"].dt.strftime("%Y-%m-%d"), strict=True)) == rows
    assert derive_consents(study, events, DAY)["faults"].to_list() == [fault]


def test_a_record_refused_because_nobody_told_of_consent(study: Study) -> None:
    told = refused("2017-09-10", "consent_not_recorded")
    assert find_rows(study, told) == [("LUT-001", "no_consent", "self", "baseline", "", 1)]


def test_each_record_is_judged_by_the_consent_of_its_own_day(study: Study) -> None:
    told = [
        signed("2017-09-01", scopes=("questionnaires",)), collected("2017-09-01", respondent="carer"),
        signed("2018-02-05", form_version="2.0", scopes=("questionnaires", "carer_contact")),
        collected("2018-02-05", "follow_up_6m", respondent="carer"),
    ]  # fmt: skip
    assert find_rows(study, *told, as_of=date(2018, 3, 1)) == [
        ("LUT-001", "scope_missing", "carer", "baseline", "carer_contact", 1)
    ]


def test_the_gravest_comes_first_at_each_site(study: Study) -> None:
    told = [
        signed("2017-09-01", "LUT-001"), collected("2017-09-04", person="LUT-002"),
        signed("2017-09-09", "LUT-003"), collected("2017-09-04", person="LUT-003"), signed("2017-09-01", "DEV-004"),
    ]  # fmt: skip
    found = reconcile_consent(study, tell(*told), DAY)
    assert list(zip(found["site_id"], found["finding"], strict=True)) == [
        ("devon", "no_return"), ("luton", "before_consent"), ("luton", "no_consent"), ("luton", "no_return"),
    ]  # fmt: skip
    assert reconcile_consent(study, tell(), DAY).dtypes.to_dict() == found.dtypes.to_dict()


# Incidents ---------------------------------------------------------------------------------------------------------


def find_incidents(study: Study, *told: Event, as_of: date = DAY) -> list[IncidentOpened]:
    return derive_consent_incidents(study, tell(*told), as_of, "procedure")


def test_a_baseline_before_consent_is_an_incident(study: Study) -> None:
    told = [signed("2017-09-05"), collected("2017-09-04"), collected("2017-08-04", "screening")]
    (incident,) = find_incidents(study, *told)
    assert incident.key == "incident:consent_breach:LUT-001:before_consent:::2017-08-04"
    assert (incident.site_id, incident.participant_id, incident.n_records) == ("luton", "LUT-001", 2)
    assert (incident.found_on, incident.assess_by) == (DAY, date(2017, 10, 9))


@pytest.mark.parametrize(
    ("told", "subjects"),
    [
        ([signed("2017-09-01"), left("2017-09-02", "study"), collected("2017-09-04")], ["LUT-001:after_withdrawal"]),
        ([signed("2017-09-05"), REFUSED], ["LUT-001:before_consent"]),
        ([signed("2017-10-01", route="parent", sixteen_in="2017-09")], ["LUT-001:parent_after_sixteen"]),
        ([collected("2017-09-04")], []),
        ([signed("2018-02-05"), collected("2018-02-05")], []),
        ([signed("2017-09-01", route="consultee")], []),
    ],
)
def test_what_is_an_incident_and_what_is_only_asked_for(study: Study, told: list[Event], subjects: list[str]) -> None:
    assert [incident.subject for incident in find_incidents(study, *told)] == subjects


def test_an_incident_is_opened_once_whatever_comes_later(study: Study) -> None:
    told = [signed("2017-09-05"), collected("2017-09-04")]
    (incident,) = find_incidents(study, *told)
    numbered = incident.model_copy(update={"incident_id": "luton-I0001"})
    assert find_incidents(study, *told, numbered) == []
    assert find_incidents(study, *told, numbered, collected("2017-09-01", "screening")) == []
    voided = Voided(occurred_on=DAY, requested_by="Siân", voids=f"{3:064x}", reason="entered_in_error")
    assert len(find_incidents(study, *told, numbered, voided)) == 1


def test_nothing_is_an_incident_where_consent_is_assumed() -> None:
    assert find_incidents(make_study(fieldwork=""), signed("2017-09-05"), collected("2017-09-04")) == []
