"""Every gate in front of a pack: on its boundary days, with its words, and what a named role may lift."""

from datetime import date
from typing import Any

import pandas as pd
import pytest

from study.consent import FAULTS
from study.events import ConsentRecorded, Event
from study.holds import HOLDS, NEEDED_COLUMNS, find_holds, find_lift_faults, list_held
from study.protocol import Study
from study.waves import derive_expected_returns
from tasks.definitions import load_study
from tests.approval_histories import PATHWAY, step, tell
from tests.consent_histories import collected, left, released, screened, signed
from tests.wave_histories import FIELDWORK, allocated, answered, approached, enrol, lifted, make_study

TRIAL = make_study()
ANN, BEN = "LUT-001", "LUT-002"
BASELINE = enrol(ANN, "2017-09-04")  # opens on 29 August, closes on 18 September, late until 4 October 2017


def find(told: list[Event], as_of: str, wave: str = "baseline", study: Study = TRIAL, respondent: str = "self") -> Any:
    expected = derive_expected_returns(study, tell(*told), date.fromisoformat(as_of))
    is_it = (expected["participant_id"] == ANN) & (expected["wave"] == wave) & (expected["respondent"] == respondent)
    (row,) = expected[is_it].itertuples(index=False)
    return row


def hold(told: list[Event], as_of: str, wave: str = "baseline", study: Study = TRIAL, respondent: str = "self") -> str:
    return str(find(told, as_of, wave, study, respondent).holds)


def consent(**fields: Any) -> list[Event]:
    return [screened("2017-09-04"), signed("2017-09-04", **fields)]


def test_a_person_with_everything_in_order_is_held_by_nothing() -> None:
    assert hold(BASELINE, "2017-09-04") == ""


CONSENTS: list[tuple[str, list[Event], str]] = [
    ("no_consent", [screened("2017-09-04"), answered("2017-09-04")], "2017-09-05"),
    ("scope_missing", consent(scopes=("carer_contact",)), "2017-09-05"),
    ("sixteen_unknown", consent(route="parent"), "2017-09-05"),
    ("capacity_not_assessed", consent(route="consultee"), "2017-09-05"),
    ("capacity_not_assessed", consent(route="consultee", capacity="not_assessed"), "2017-09-05"),
    ("parent_after_sixteen", consent(route="parent", sixteen_in="2017-08"), "2017-09-05"),
    ("signed_before_approved", consent(form_version="2.0"), "2017-09-05"),
    ("signed_before_approved", consent(form_version="0.9"), "2017-09-05"),
    ("superseded_version", [screened("2018-02-01"), signed("2018-02-01")], "2018-02-02"),
]


def _answers_for(told: Event) -> str:
    return "proxy" if isinstance(told, ConsentRecorded) and told.route in ("consultee", "parent") else "self"


@pytest.mark.parametrize(("code", "told", "as_of"), CONSENTS)
def test_what_is_wrong_with_a_consent_holds(code: str, told: list[Event], as_of: str) -> None:
    row = find(told, as_of, respondent=_answers_for(told[-1]))
    assert (row.holds, row.status) == (code, "held")


def test_what_is_in_order_with_a_consent_does_not_hold() -> None:
    assert (
        hold(consent(route="parent", sixteen_in="2017-09"), "2017-09-30", "baseline", TRIAL, "proxy") == "window_closed"
    )
    assert hold(consent(route="parent", sixteen_in="2017-09"), "2017-09-05", "baseline", TRIAL, "proxy") == ""
    assert hold(consent(route="consultee", capacity="assessed"), "2017-09-05", "baseline", TRIAL, "proxy") == ""
    assert hold([screened("2018-02-01"), signed("2018-02-01", form_version="2.0")], "2018-02-02") == ""


def test_a_consent_that_runs_out_holds_from_the_day_after_its_last() -> None:
    told = [*enrol(ANN, "2017-09-04", "2017-09-15")]
    assert hold(told, "2018-09-04", "follow_up_12m") == ""
    assert hold(told, "2018-09-05", "follow_up_12m") == "reconsent_overdue"
    renewed = [*told, signed("2018-09-05", form_version="2.0")]
    assert hold(renewed, "2018-09-05", "follow_up_12m") == ""


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (left("2017-09-05", "questionnaires"), "stopped"),
        (left("2017-09-05", "study"), "stopped"),
        (left("2017-09-05", "data"), "stopped"),
        (left("2017-09-05", "study", "not_eligible"), "not_eligible"),
        (left("2017-09-05", "study", "died"), "died"),
        (left("2017-09-05", "treatment", "died"), "died"),
        (left("2017-09-05", "treatment"), ""),
        (left("2017-09-05", "linkage"), ""),
        (left("2017-09-05", "post"), ""),
        (answered("2017-09-05", "not_eligible"), "not_eligible"),
    ],
)
def test_each_way_of_leaving_holds_what_it_says_and_nothing_else(told: Event, code: str) -> None:
    assert hold([*BASELINE, told], "2017-09-04") == ""
    assert hold([*BASELINE, told], "2017-09-05") == code


@pytest.mark.parametrize(
    ("as_of", "codes"),
    [
        ("2018-02-18", "window_not_open"),
        ("2018-02-19", ""),
        ("2018-03-26", ""),
        ("2018-03-27", "window_closed"),
        ("2018-04-11", "window_closed"),
        ("2018-04-12", "too_late"),
    ],
)
def test_the_window_holds_before_and_after(as_of: str, codes: str) -> None:
    assert hold(enrol(ANN, "2017-09-04", "2017-09-11"), as_of, "follow_up_6m") == codes


def test_nothing_goes_after_the_end_of_data_collection() -> None:
    told = enrol(ANN, "2017-11-20", "2017-11-27")
    assert hold(told, "2018-11-20", "follow_up_12m") == ""
    assert hold([*told, signed("2018-11-01", form_version="2.0")], "2018-11-30", "follow_up_12m") == ""
    assert hold([*told, signed("2018-11-01", form_version="2.0")], "2018-12-01", "follow_up_12m") == "too_late"


def test_what_went_out_or_came_in_does_not_go_again() -> None:
    sent = [*BASELINE, released("2017-09-04", wave="baseline", instruments=("mood", "walking"))]
    assert hold(sent, "2017-09-05") == "already_released"
    part = collected("2017-09-06")
    assert hold([*BASELINE, part], "2017-09-06") == "partly_in"
    assert hold([*sent, part], "2017-09-06") == "already_released"
    assert hold([*BASELINE, part, collected("2017-09-06", instrument="walking")], "2017-09-06") == "already_in"


@pytest.mark.parametrize(("on", "code"), [("2017-09-03", ""), ("2017-09-04", "declined"), ("2017-09-05", "declined")])
def test_who_declined_is_left_alone_unless_they_signed_later(on: str, code: str) -> None:
    assert hold([*BASELINE, answered(on, "declined")], "2017-09-06") == code
    assert hold([*BASELINE, answered(on, "no_answer")], "2017-09-06") == ""


def test_a_wave_without_its_anchor_says_what_it_waits_for() -> None:
    study = make_study(fieldwork=FIELDWORK + '\n[[releases]]\nwave = "home_visit"\nmode = "automatic"\n')
    assert hold(BASELINE, "2017-09-05", "follow_up_6m") == "earlier_wave_not_in"
    assert hold(BASELINE, "2017-09-05", "home_visit", study) == "not_allocated"
    assert hold([*BASELINE, allocated("2017-09-05")], "2017-10-05", "home_visit", study) == ""
    screening = make_study(
        ('anchor = "allocated"', 'anchor = "screened"'),
        fieldwork=FIELDWORK + '\n[[releases]]\nwave = "home_visit"\nmode = "automatic"\n',
    )
    assert hold([signed("2017-09-04")], "2017-09-05", "home_visit", screening) == "not_screened"


def test_a_wave_that_the_study_does_not_send_is_never_ready() -> None:
    row = find([*BASELINE, allocated("2017-09-05")], "2017-10-05", "home_visit")
    assert (row.holds, row.status) == ("not_sent_out", "planned")


GATED = make_study(pathway=PATHWAY.replace('id = "approach"', 'id = "collect_baseline"'))
GRANTED = [
    event
    for approval in ("rec", "council", "trust", "green_light")
    for event in (step("submitted", "2017-06-01", approval), step("granted", "2017-09-05", approval))
]


def test_a_site_that_is_not_open_for_the_wave_holds_it() -> None:
    assert hold([*BASELINE, *GRANTED], "2017-09-04", study=GATED) == "site_not_open"
    assert hold([*BASELINE, *GRANTED], "2017-09-05", study=GATED) == ""
    lapsed = step("withdrawn", "2017-09-11", "council")
    assert hold([*BASELINE, *GRANTED, lapsed], "2017-09-10", study=GATED) == ""
    assert hold([*BASELINE, *GRANTED, lapsed], "2017-09-11", study=GATED) == "site_not_open"


def test_a_body_or_site_that_nobody_knows_holds() -> None:
    told = [screened("2017-09-04", body_id="luton_hospital"), signed("2017-09-04")]
    assert hold(told, "2017-09-05") == "unknown_site"
    assert hold([event.model_copy(update={"site_id": "nowhere"}) for event in BASELINE], "2017-09-05").endswith(
        "unknown_site"
    )


# Order and words ----------------------------------------------------------------------------------------------------


def test_holds_come_in_the_order_of_what_can_be_done() -> None:
    told = [*consent(route="consultee", form_version="2.0"), left("2017-09-05", "study", "died")]
    codes = hold(told, "2017-09-20", "baseline", TRIAL, "proxy").split(";")
    assert codes == ["capacity_not_assessed", "signed_before_approved", "window_closed", "died"]
    order = list(HOLDS)
    assert codes == sorted(codes, key=order.index)


def test_every_hold_is_told_in_words_and_never_lifts_what_must_not_be() -> None:
    for code, one in HOLDS.items():
        assert one.words
        assert one.to_do
        assert not one.words.endswith("."), code
    never = {
        "died",
        "stopped",
        "no_consent",
        "scope_missing",
        "reconsent_overdue",
        "parent_after_sixteen",
        "site_not_open",
    }
    assert not any(HOLDS[code].is_liftable for code in never)
    assert {code for code, one in HOLDS.items() if one.is_liftable} == {
        *("superseded_version", "signed_before_approved", "capacity_not_assessed", "sixteen_unknown"),
        *("partly_in", "window_closed", "window_not_open"),
    }


def test_every_fault_of_a_consent_holds_or_is_known_not_to() -> None:
    """A fault that somebody adds is not passed over here."""
    assert set(FAULTS) - set(HOLDS) == {"collected_before_consent", "withdrawn_before_consent"}


# Lifting ------------------------------------------------------------------------------------------------------------

SUPERSEDED: list[Event] = [screened("2018-02-05"), signed("2018-02-05")]


def test_a_lifted_hold_is_gone_for_that_wave_and_participant_from_its_day() -> None:
    told = [
        *SUPERSEDED,
        lifted("superseded_version", "2018-02-07"),
        screened("2018-02-05", BEN),
        signed("2018-02-05", BEN),
    ]
    assert hold(told, "2018-02-06") == "superseded_version"
    assert hold(told, "2018-02-07") == ""
    assert hold(told, "2018-02-07", "follow_up_6m") == "superseded_version;earlier_wave_not_in"
    held = list_held(TRIAL, tell(*told), date(2018, 2, 7))
    assert list(held["participant_id"]) == [BEN]


def test_one_hold_is_lifted_and_the_others_stay() -> None:
    told = [*consent(route="consultee", form_version="2.0"), lifted("signed_before_approved", "2017-09-05")]
    assert hold(told, "2017-09-06", "baseline", TRIAL, "proxy") == "capacity_not_assessed"
    two = [*told, lifted("capacity_not_assessed", "2017-09-05")]
    assert hold(two, "2017-09-06", "baseline", TRIAL, "proxy") == ""


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("died", [*BASELINE, left("2017-09-05", "study", "died")]),
        ("stopped", [*BASELINE, left("2017-09-05", "questionnaires")]),
        ("no_consent", [screened("2017-09-04"), answered("2017-09-04")]),
        ("scope_missing", consent(scopes=("carer_contact",))),
        ("already_in", [*BASELINE, *(collected("2017-09-05", instrument=name) for name in ("mood", "walking"))]),
    ],
)
def test_a_death_a_withdrawal_or_a_missing_consent_is_never_lifted(code: str, told: list[Event]) -> None:
    """Not even where somebody got the event into the ledger."""
    assert code in hold([*told, lifted(code, "2017-09-05")], "2017-09-06").split(";")


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        (lifted("superseded_version", "2018-02-07"), ""),
        (lifted("superseded", "2018-02-07"), '"superseded" is no hold.'),
        (lifted("died", "2018-02-07"), '"died" can\'t be lifted: it ends when the thing itself changes.'),
        (
            lifted("superseded_version", "2018-02-07", "baselin"),
            '"baselin" is no wave of trial. Did you mean "baseline"?',
        ),
        (lifted("superseded_version", "2018-02-08"), "the date 2018-02-08 is in the future (today is 2018-02-07)."),
        (
            lifted("superseded_version", "2018-02-07", person=BEN),
            f"nothing is expected of {BEN}. Check the identifier.",
        ),
        (lifted("window_closed", "2018-02-07"), f"window_closed does not hold {ANN} at baseline on 2018-02-07."),
    ],
)
def test_what_cannot_be_lifted_is_said(told: Any, fault: str) -> None:
    faults = find_lift_faults(TRIAL, tell(*SUPERSEDED), told, date(2018, 2, 7))
    if fault:
        (only,) = faults
        assert only.startswith(fault)
    else:
        assert faults == []


# What people see ----------------------------------------------------------------------------------------------------


def test_what_is_held_is_listed_with_words_and_what_to_do() -> None:
    told = [
        *SUPERSEDED,
        approached("2018-02-01", BEN),
        answered("2018-02-02", "agreed", BEN),
        *enrol("DEV-001", "2018-01-15"),
    ]
    held = list_held(TRIAL, tell(*told), date(2018, 2, 6))
    columns = ["participant_id", "site_id", "wave", "hold", "by", "is_liftable", "since_on"]
    assert list(held[columns].itertuples(index=False, name=None)) == [
        (BEN, "luton", "baseline", "no_consent", "site_researcher", False, pd.Timestamp("2018-02-02")),
        (ANN, "luton", "baseline", "superseded_version", "project_manager", True, pd.Timestamp("2018-01-29")),
        ("DEV-001", "devon", "baseline", "window_closed", "fieldwork_coordinator", True, pd.Timestamp("2018-01-30")),
    ]
    assert held["words"].iloc[0] == "No consent is recorded"
    assert (held["to_do"] != "").all()


def test_what_is_only_waiting_for_its_day_is_not_listed() -> None:
    assert list_held(TRIAL, tell(*enrol(ANN, "2017-09-04", "2017-09-11")), date(2017, 9, 20)).empty
    died = [*enrol(ANN, "2017-09-04"), left("2017-09-05", "study", "died")]
    assert list_held(TRIAL, tell(*died), date(2017, 9, 6)).empty


def test_a_closed_site_is_told_with_its_missing_approvals() -> None:
    held = list_held(GATED, tell(*BASELINE, step("submitted", "2017-06-01")), date(2017, 9, 5))
    (row,) = held.itertuples(index=False)
    assert row.words == (
        "The site is not open to collect baseline. rec: submitted on 2017-06-01, not granted yet. "
        "council (luton, luton_council): not sought yet. trust (luton, luton_trust): not sought yet. And 1 more."
    )
    assert row.since_on == pd.Timestamp("2017-08-29")


def test_an_expired_consent_is_held_since_it_ran_out() -> None:
    told = enrol(ANN, "2017-09-04", "2017-09-15")
    (row,) = list_held(TRIAL, tell(*told), date(2018, 9, 10)).itertuples(index=False)
    assert (row.hold, row.wave, row.since_on) == ("reconsent_overdue", "follow_up_12m", pd.Timestamp("2018-09-05"))


# Asking again -------------------------------------------------------------------------------------------------------


def test_some_rows_asked_again_get_the_answers_that_they_had() -> None:
    told = tell(*SUPERSEDED, *enrol(BEN, "2018-01-15", "2018-01-20"), left("2018-02-01", "study", person=BEN))
    as_of = date(2018, 2, 6)
    expected = derive_expected_returns(TRIAL, told, as_of)
    some = expected.loc[expected["wave"] == "baseline", list(NEEDED_COLUMNS)].iloc[::-1]
    holds = find_holds(TRIAL, told, some, as_of)
    assert list(holds.index) == list(some.index)
    pd.testing.assert_series_equal(holds, expected["holds"].loc[some.index], check_names=False)
    assert find_holds(TRIAL, told, some.iloc[:0], as_of).empty


def test_rows_decided_on_before_a_death_are_held_when_asked_after_it() -> None:
    as_of = date(2017, 9, 5)
    before = derive_expected_returns(TRIAL, tell(*BASELINE), as_of)
    ready = before[before["holds"] == ""]
    assert len(ready) == 1
    after = tell(*BASELINE, left("2017-09-05", "study", "died"))
    assert list(find_holds(TRIAL, after, ready, as_of)) == ["died"]


@pytest.mark.parametrize("name", ["ipc", "cdisc_pilot"])
def test_the_studies_at_hand_plan_everything_that_their_waves_ask_of_the_gate(name: str) -> None:
    """An activity that no approvals.toml plans would hold every pack for ever."""
    study = load_study(name)
    for wave in study.waves:
        if study.fieldwork.find_release(wave.id):
            activity = "collect_follow_up" if wave.role == "follow_up" else "collect_baseline"
            assert study.pathway.find_needs(activity) is not None
