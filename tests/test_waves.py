"""What is expected of whom, when, and where it stands: boundary days, corrections, and what others got wrong."""

from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.calendar import Period, add_period
from study.events import Event, ParticipantScreened, Voided
from study.protocol import Study
from study.state import Events
from study.waves import (
    NOT_EXPECTED,
    STATUSES,
    derive_expected_returns,
    derive_moves,
    derive_reachable_follow_up,
    find_form,
)
from tasks.definitions import load_study
from tests.approval_histories import PATHWAY, tell
from tests.consent_histories import collected, left, released, screened, signed
from tests.wave_histories import FIELDWORK, allocated, answered, approached, enrol, lifted, make_study, tell_when

TRIAL = make_study()
IPC, PILOT = load_study("ipc"), load_study("cdisc_pilot")
ANN, BEN = "LUT-001", "LUT-002"
# Ann consents on Monday 4 September 2017 and answers the baseline a week later, so that the six-month follow-up opens
# on 5 March 2018, is due on 12 March, closes on 26 March and may come in late until 11 April.
ANNS_BASELINE = enrol(ANN, "2017-09-04", "2017-09-11")


def derive(events: Events | list[Event], as_of: str, study: Study = TRIAL) -> pd.DataFrame:
    ledger = events if isinstance(events, Events) else tell(*events)
    return derive_expected_returns(study, ledger, date.fromisoformat(as_of))


def find(expected: pd.DataFrame, wave: str, respondent: str = "self", person: str = ANN) -> Any:
    is_it = (expected["participant_id"] == person) & (expected["wave"] == wave) & (expected["respondent"] == respondent)
    (row,) = expected[is_it].itertuples(index=False)
    return row


def list_rows(expected: pd.DataFrame) -> list[tuple[str, ...]]:
    return list(expected[["participant_id", "wave", "respondent"]].itertuples(index=False, name=None))


def day(text: str) -> pd.Timestamp:
    return pd.Timestamp(text)


# Dates --------------------------------------------------------------------------------------------------------------


def test_dates_count_from_the_day_of_consent_and_of_the_answered_baseline() -> None:
    expected = derive(ANNS_BASELINE, "2017-12-01")
    baseline, follow_up = find(expected, "baseline"), find(expected, "follow_up_6m")
    assert (baseline.anchor_on, follow_up.anchor_on) == (day("2017-09-04"), day("2017-09-11"))
    assert baseline.opens_on == day("2017-08-29")  # a week before is the summer bank holiday
    assert follow_up.opens_on == day("2018-03-05")  # 4 March is a Sunday
    assert (follow_up.due_on, follow_up.closes_on) == (day("2018-03-12"), day("2018-03-26"))
    assert (follow_up.late_until, follow_up.release_from) == (day("2018-04-11"), day("2018-02-19"))
    assert (follow_up.optimum_from, follow_up.optimum_to) == (day("2018-03-12"), day("2018-03-12"))
    assert baseline.release_from == baseline.opens_on


@pytest.mark.parametrize(
    ("baseline_on", "due_on"),
    [
        ("2019-08-28", "2020-02-28"),
        ("2019-08-29", "2020-03-02"),  # 29 February 2020 is a Saturday
        ("2019-08-31", "2020-03-02"),
        ("2018-08-31", "2019-02-28"),
        ("2019-02-28", "2019-08-28"),
        ("2020-02-29", "2020-09-01"),  # 29 August is a Saturday, 31 August the bank holiday
    ],
)
def test_months_are_clipped_and_days_off_move(baseline_on: str, due_on: str) -> None:
    long = make_study(
        ("data_collection_ends_on = 2018-11-30", "data_collection_ends_on = 2021-11-30"),
        ("\nends_on = 2019-05-31", "\nends_on = 2022-05-31"),
    )
    expected = derive(enrol(ANN, "2018-08-01", baseline_on), "2020-03-01", long)
    assert find(expected, "follow_up_6m").due_on == day(due_on)


@pytest.mark.parametrize(
    ("lead", "release_from"), [("0 days", "2018-03-05"), ("2 weeks", "2018-02-19"), ("1 month", "2018-02-05")]
)
def test_a_pack_may_go_so_long_before_its_window_opens(lead: str, release_from: str) -> None:
    study = make_study(fieldwork=FIELDWORK.replace('lead = "2 weeks"', f'lead = "{lead}"'))
    assert find(derive(ANNS_BASELINE, "2018-01-01", study), "follow_up_6m").release_from == day(release_from)


WINDOWS = st.sampled_from(["none", "earlier", "later"])
PERIODS = st.sampled_from(["0 days", "5 days", "2 weeks", "6 months", "12 months", "-1 month"])
DAYS = st.dates(date(2015, 1, 1), date(2026, 12, 31))


@settings(max_examples=40, deadline=None)
@given(
    days=st.lists(DAYS, min_size=1, max_size=8),
    weekends=WINDOWS,
    offset=PERIODS,
    lead=PERIODS.filter(lambda p: p[0] != "-"),
)
def test_many_people_have_the_dates_that_each_has_alone(
    days: list[date], weekends: str, offset: str, lead: str
) -> None:
    study = make_study(
        ('weekends = "later"', f'weekends = "{weekends}"'), ('offset = "6 months"', f'offset = "{offset}"')
    )
    releases = tuple(one.model_copy(update={"lead": _read(lead)}) for one in study.fieldwork.releases)
    study = study.model_copy(update={"fieldwork": study.fieldwork.model_copy(update={"releases": releases})})
    told: list[Event] = []
    for n, on in enumerate(days):
        told += [*enrol(f"LUT-{n:03d}", "2014-06-02", on.isoformat()), allocated(on.isoformat(), f"LUT-{n:03d}")]
    _hold_against_the_protocol(study, tell(*told), date(2027, 1, 1))


@settings(max_examples=15, deadline=None)
@given(days=st.lists(DAYS, min_size=1, max_size=6))
@pytest.mark.parametrize("study", [IPC, PILOT], ids=["ipc", "cdisc_pilot"])
def test_the_studies_at_hand_have_the_dates_of_their_protocols(study: Study, days: list[date]) -> None:
    told: list[Event] = []
    site = study.sites[0]
    for n, on in enumerate(days):
        person = {"participant_id": f"{site.code}-{n:05d}", "site_id": site.site_id}
        for event in (screened("2014-06-02"), signed(on.isoformat()), allocated(on.isoformat())):
            told.append(event.model_copy(update={**person, **_first_cohort(study, event)}))
        told.append(collected(on.isoformat(), study.baseline.id).model_copy(update={**person, "instrument": "eq5d5l"}))
    assert len(_hold_against_the_protocol(study, tell(*told), date(2027, 1, 1))) > 2 * len(days)


def _first_cohort(study: Study, event: Event) -> dict[str, str]:
    return {"cohort": study.cohorts[0].id} if isinstance(event, ParticipantScreened) else {}


def _read(text: str) -> Period:
    number, unit = text.split()
    n = int(number) * (7 if unit.startswith("week") else 1)
    return Period(months=n) if unit.startswith("month") else Period(days=n)


def _hold_against_the_protocol(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    expected = derive_expected_returns(study, events, as_of)
    for row in expected.itertuples(index=False):
        wave = study.find_wave(str(row.wave))
        assert wave is not None
        assert pd.notna(row.anchor_on)
        dates = study.compute_window_dates(wave, row.anchor_on.date())
        for name in ("opens_on", "optimum_from", "optimum_to", "due_on", "closes_on", "late_until"):
            told, found = getattr(dates, name), getattr(row, name)
            assert (None if pd.isna(found) else found.date()) == told
        assert row.is_truncated == dates.is_truncated
        release = study.fieldwork.find_release(wave.id)
        if release is None:
            assert pd.isna(row.release_from)
        else:
            lead = Period(-release.lead.months, -release.lead.days)
            assert row.release_from.date() == add_period(dates.opens_on, lead)
    return expected


def test_a_wave_counts_from_the_first_answer_of_the_earlier_one() -> None:
    told = [
        *enrol(),
        collected("2017-09-13", instrument="walking"),
        collected("2017-09-11"),
        signed("2017-12-01", form_version="2.0"),
    ]
    expected = derive(told, "2017-12-01")
    assert find(expected, "follow_up_6m").anchor_on == day("2017-09-11")
    assert find(expected, "baseline").anchor_on == day("2017-09-04")  # a renewed consent moves nothing
    assert find(expected, "baseline").returned_on == day("2017-09-13")


def test_without_the_event_that_it_counts_from_a_wave_has_no_dates() -> None:
    expected = derive(enrol(), "2017-10-01")
    follow_up = find(expected, "follow_up_6m")
    assert pd.isna(follow_up.anchor_on)
    assert pd.isna(follow_up.due_on)
    assert (follow_up.status, follow_up.holds) == ("planned", "earlier_wave_not_in")
    assert find(expected, "home_visit").holds.startswith("not_allocated")
    assert find(derive([*enrol(), allocated("2017-09-20")], "2017-10-01"), "home_visit").due_on == day("2017-10-20")


def test_what_would_open_after_data_collection_is_shown_as_truncated() -> None:
    last = derive(enrol(ANN, "2017-11-01", "2017-12-07"), "2018-11-30")
    assert not find(last, "follow_up_12m").is_truncated  # opens on Friday 30 November 2018
    over = derive(enrol(ANN, "2017-11-01", "2017-12-08"), "2018-11-30")
    row = find(over, "follow_up_12m")
    assert row.is_truncated  # the Saturday moves to Monday 3 December
    assert (row.status, "after_data_collection" in row.holds) == ("planned", True)
    assert find(derive(enrol(ANN, "2017-11-01", "2017-12-08"), "2019-03-01"), "follow_up_12m").status == "planned"


# Who, and what ------------------------------------------------------------------------------------------------------


def test_who_is_expected_follows_the_consent() -> None:
    both = {"form_version": "2.0", "scopes": ("questionnaires", "carer_contact")}
    told = [
        *enrol(),
        screened("2018-02-05", BEN, cohort="younger"),
        signed("2018-02-05", BEN, route="consultee", **both),
    ]
    assert list_rows(derive(told, "2018-03-01")) == [
        (ANN, "baseline", "self"),
        (ANN, "follow_up_6m", "self"),
        (ANN, "follow_up_12m", "self"),
        (ANN, "home_visit", "self"),
        (BEN, "baseline", "proxy"),
        (BEN, "follow_up_6m", "proxy"),
        (BEN, "follow_up_6m", "carer"),
        (BEN, "follow_up_12m", "proxy"),
    ]


def test_a_blank_route_is_the_persons_own() -> None:
    assert find(derive(enrol(route=""), "2017-09-04"), "baseline").is_expected


def test_instruments_follow_the_cohort_and_name_what_is_only_planned() -> None:
    carers = {"scopes": ("questionnaires", "carer_contact")}
    older = derive(enrol(**carers), "2017-09-10")
    younger = derive([screened("2017-09-04", cohort="younger"), signed("2017-09-04", **carers)], "2017-09-10")
    nobody_knows = derive([signed("2017-09-04", **carers)], "2017-09-10")
    assert find(older, "follow_up_6m", "carer").instruments == "care"
    assert find(older, "follow_up_6m", "carer").n_instruments == 0
    assert find(younger, "follow_up_6m", "carer").instruments == "mood"
    assert find(younger, "follow_up_6m", "carer").n_instruments == 1
    assert (ANN, "follow_up_6m", "carer") not in list_rows(nobody_knows)
    assert find(nobody_knows, "baseline").instruments == "mood;walking"


def test_what_asks_for_planned_instruments_alone_never_counts_as_returned() -> None:
    told = [*enrol(ANN, "2017-09-04", "2017-09-11", scopes=("questionnaires", "carer_contact"))]
    expected = derive(
        [*told, collected("2018-03-12", "follow_up_6m", respondent="carer", instrument="care")], "2018-03-13"
    )
    assert find(expected, "follow_up_6m", "carer").status == "planned"


@pytest.mark.parametrize(
    ("wanted", "wave", "form"),
    [("", "baseline", "standard"), ("standard", "baseline", "standard"), ("easy_read", "baseline", "easy_read")],
)
def test_the_form_is_the_one_that_the_person_wants(wanted: str, wave: str, form: str) -> None:
    assert find(derive(enrol(form=wanted), "2017-09-04"), wave).form == form


def test_a_form_that_there_is_not_gives_way_to_what_there_is() -> None:
    younger = [
        screened("2017-09-04", cohort="younger"),
        signed("2017-09-04", scopes=("questionnaires", "carer_contact")),
    ]
    assert find(derive(younger, "2017-09-04"), "follow_up_6m", "carer").form == "easy_read"
    assert find_form(["standard"], "easy_read") == "standard"
    assert find_form(["easy_read"], "") == "easy_read"
    assert find_form([], "standard") == ""


def test_nothing_is_expected_of_those_who_did_not_agree() -> None:
    told = [
        *(approached("2017-09-01", f"LUT-00{n}") for n in range(1, 5)),
        *(screened("2017-09-01", f"LUT-00{n}") for n in range(1, 5)),
        answered("2017-09-02", "agreed", "LUT-001"),
        answered("2017-09-02", "declined", "LUT-002"),
        answered("2017-09-02", "not_eligible", "LUT-003"),
    ]
    expected = derive(told, "2017-09-10")
    assert set(expected["participant_id"]) == {"LUT-001"}
    assert (find(expected, "baseline").status, find(expected, "baseline").holds) == ("held", "no_consent")


def test_a_wave_that_counts_from_screening_is_expected_of_all_who_have_not_said_no() -> None:
    study = make_study(('anchor = "allocated"', 'anchor = "screened"'))
    told = [screened("2017-09-01", f"LUT-00{n}") for n in range(1, 5)]
    told += [answered("2017-09-02", "declined", "LUT-002"), answered("2017-09-02", "no_answer", "LUT-003")]
    assert list_rows(derive(told, "2017-09-10", study)) == [
        ("LUT-001", "home_visit", "self"),
        ("LUT-004", "home_visit", "self"),
    ]


VISIT = 'anchor = "allocated"\noffset = "1 month"\n'


@pytest.mark.parametrize(
    ("applies_to", "on", "is_expected"),
    [
        ("opening", "2017-10-12", False),  # one month later, less a week: opens on 6 November
        ("opening", "2017-10-13", False),
        ("opening", "2017-10-14", True),  # 7 November
        ("joining", "2017-10-12", False),
        ("joining", "2017-11-06", False),
        ("joining", "2017-11-07", True),
    ],
)
def test_a_wave_that_an_amendment_added_applies_from_its_date(applies_to: str, on: str, is_expected: bool) -> None:
    study = make_study((VISIT, f'{VISIT}applies_from = 2017-11-07\napplies_to = "{applies_to}"\n'))
    told = [screened("2017-01-01"), signed(on), allocated(on)]
    rows = list_rows(derive(told, "2017-12-01", study))
    assert ((ANN, "home_visit", "self") in rows) == is_expected
    assert (ANN, "baseline", "self") in rows


# Status and timing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("as_of", "status", "holds"),
    [
        ("2017-09-11", "planned", "window_not_open"),
        ("2018-02-18", "planned", "window_not_open"),
        ("2018-02-19", "planned", ""),  # the first day on which the pack may go: two weeks before it opens
        ("2018-03-24", "planned", ""),
        ("2018-03-25", "planned", ""),  # summer time begins
        ("2018-03-26", "planned", ""),  # the window's last day
        ("2018-03-27", "held", "window_closed"),
        ("2018-04-11", "held", "window_closed"),
        ("2018-04-12", "missed", "too_late"),
        ("2019-05-31", "missed", "reconsent_overdue;too_late"),
    ],
)
def test_status_by_day_of_what_was_never_sent(as_of: str, status: str, holds: str) -> None:
    row = find(derive(ANNS_BASELINE, as_of), "follow_up_6m")
    assert (row.status, row.holds) == (status, holds)


@pytest.mark.parametrize(
    ("as_of", "status"),
    [("2018-02-20", "planned"), ("2018-02-21", "released"), ("2018-04-11", "released"), ("2018-04-12", "missed")],
)
def test_status_by_day_of_what_was_sent(as_of: str, status: str) -> None:
    told = [*ANNS_BASELINE, released("2018-02-21", "luton-2018-02-21-1", due_on="2018-03-10")]
    row = find(derive(told, as_of), "follow_up_6m")
    assert row.status == status
    if status != "planned":
        assert (row.pack_id, row.released_on, row.n_copies) == ("luton-2018-02-21-1", day("2018-02-21"), 1)
        assert (row.due_told_on, row.due_on) == (day("2018-03-10"), day("2018-03-12"))


def test_a_second_copy_is_counted_and_the_first_sending_keeps_its_day() -> None:
    told = [
        *ANNS_BASELINE,
        released("2018-03-20", "second", copy_number=2, due_on="2018-03-13", instruments=("mood", "walking")),
        released("2018-02-21", "first", due_on="2018-03-12", instruments=("mood", "walking")),
    ]
    row = find(derive(told, "2018-03-25"), "follow_up_6m")
    assert (row.pack_id, row.released_on, row.due_told_on, row.n_copies) == (
        *("second", day("2018-02-21"), day("2018-03-13"), 2),
    )


@pytest.mark.parametrize(
    ("on", "timing"),
    [
        ("2018-03-04", "early"),
        ("2018-03-05", "in_window"),
        ("2018-03-26", "in_window"),
        ("2018-03-27", "late"),
        ("2018-04-11", "late"),
        ("2018-04-12", "out_of_window"),
    ],
)
def test_timing_is_kept_apart_from_status(on: str, timing: str) -> None:
    whole = [collected(on, "follow_up_6m", instrument=name) for name in ("mood", "walking")]
    row = find(derive([*ANNS_BASELINE, *whole], "2018-08-01"), "follow_up_6m")
    assert (row.status, row.timing, row.returned_on) == ("returned", timing, day(on))
    part = find(derive([*ANNS_BASELINE, whole[0]], "2018-08-01"), "follow_up_6m")
    assert (part.status, part.timing, part.n_returned) == ("partial", timing, 1)


def test_what_went_out_asks_for_what_was_in_the_pack() -> None:
    sent = [*ANNS_BASELINE, released("2018-02-21", instruments=("mood",), form="easy_read")]
    row = find(derive(sent, "2018-03-12"), "follow_up_6m")
    assert (row.instruments, row.n_instruments, row.form) == ("mood", 1, "easy_read")
    row = find(derive([*sent, collected("2018-03-12", "follow_up_6m")], "2018-03-12"), "follow_up_6m")
    assert (row.status, row.n_returned) == ("returned", 1)


def test_the_answer_that_counts_is_the_newest_version() -> None:
    again = collected("2018-03-15", "follow_up_6m", version=2)
    told = [
        *ANNS_BASELINE,
        again,
        collected("2018-03-12", "follow_up_6m"),
        collected("2018-03-12", "follow_up_6m", instrument="walking"),
    ]
    assert find(derive(told, "2018-03-20"), "follow_up_6m").returned_on == day("2018-03-15")


@pytest.mark.parametrize(
    ("on", "status"),
    [("2018-02-01", "stopped"), ("2018-04-11", "stopped"), ("2018-04-12", "released")],
)
def test_a_stop_counts_until_the_window_is_over(on: str, status: str) -> None:
    told = [*ANNS_BASELINE, released("2018-01-21"), left(on, "questionnaires")]
    row = find(derive(told, "2018-08-01"), "follow_up_6m")
    assert row.status == (status if status == "stopped" else "missed")
    assert (row.stopped_on, row.stopped_by) == (day(on), "withdrew")


def test_what_was_in_before_the_stop_stays_returned() -> None:
    expected = derive([*ANNS_BASELINE, left("2017-12-01", "study", "died")], "2018-08-01")
    assert find(expected, "baseline").status == "returned"
    assert find(expected, "follow_up_6m").status == "stopped"
    assert find(expected, "follow_up_6m").holds.endswith("died")


def test_leaving_the_treatment_stops_no_questionnaire() -> None:
    assert find(derive([*ANNS_BASELINE, left("2017-12-01", "treatment")], "2018-03-01"), "follow_up_6m").holds == ""


def test_who_answers_may_change_hands_and_what_is_answered_is_not_owed_again() -> None:
    told = [*ANNS_BASELINE, signed("2018-02-10", form_version="2.0", route="consultee", capacity="assessed")]
    expected = derive(told, "2018-03-05")
    assert list_rows(expected) == [
        *((ANN, "baseline", "self"), (ANN, "follow_up_6m", "proxy"), (ANN, "follow_up_12m", "proxy")),
    ]
    assert find(expected, "baseline").status == "returned"
    assert find(expected, "follow_up_6m", "proxy").holds == ""


def test_what_was_sent_to_somebody_not_expected_any_more_stays_and_is_stopped() -> None:
    new = signed("2018-02-26", form_version="2.0", route="consultee", capacity="assessed")
    expected = derive([*ANNS_BASELINE, released("2018-02-21"), new], "2018-03-05")
    row = find(expected, "follow_up_6m", "self")
    assert (row.status, row.stopped_by, row.stopped_on, row.is_expected) == (
        *("stopped", NOT_EXPECTED, day("2018-02-26"), False),
    )
    assert find(expected, "follow_up_6m", "proxy").status == "planned"


# What others got wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clock_change", "due_on"), [("2017-10-29", "2018-04-30"), ("2018-03-25", "2018-09-25")])
def test_nothing_is_an_hour_off_at_a_clock_change(clock_change: str, due_on: str) -> None:
    """A baseline answered on the day of a change, told in the last hour of that London day."""
    on = date.fromisoformat(clock_change)
    late = datetime.combine(on, datetime.min.time(), UTC) + timedelta(hours=23, minutes=30)
    told = [(late, event) for event in enrol(ANN, "2017-09-04", clock_change)]
    row = find(derive_expected_returns(TRIAL, tell_when(*told), on), "follow_up_6m")
    assert (row.anchor_on, row.due_on) == (day(clock_change), day(due_on))
    for column in ("opens_on", "due_on", "closes_on", "late_until", "release_from", "anchor_on"):
        assert getattr(row, column) == getattr(row, column).normalize()


@pytest.mark.parametrize(
    ("corrected_at", "n_moves"),
    [
        (
            datetime(2018, 3, 25, 22, 59, tzinfo=UTC),
            0,
        ),  # 23:59 in London, where the summer's first day is 23 hours long
        (datetime(2018, 3, 25, 23, 0, tzinfo=UTC), 5),
        (datetime(2018, 3, 26, 9, 0, tzinfo=UTC), 5),
    ],
)
def test_a_day_of_knowing_ends_at_midnight_in_london(corrected_at: datetime, n_moves: int) -> None:
    soon = datetime(2018, 3, 20, 12, tzinfo=UTC)
    told: list[tuple[datetime, Event]] = [(soon, event) for event in enrol(ANN, "2018-03-01")]
    told += [(soon, collected("2018-03-12")), (corrected_at, collected("2018-03-14", version=2))]
    moves = derive_moves(TRIAL, tell_when(*told), date(2018, 3, 26), date(2018, 3, 25))
    assert len(moves[moves["wave"] == "follow_up_6m"]) == n_moves


def test_imported_records_are_scheduled() -> None:
    """People told in one go, months after they joined, have the same dates as people told day by day."""
    at_once = [(datetime(2018, 2, 19, 9, tzinfo=UTC), event) for event in ANNS_BASELINE]
    by_day = [(datetime.combine(event.occurred_on, datetime.min.time(), UTC), event) for event in ANNS_BASELINE]
    frames = [derive_expected_returns(TRIAL, tell_when(*told), date(2018, 2, 19)) for told in (at_once, by_day)]
    pd.testing.assert_frame_equal(*frames)
    assert (find(frames[0], "follow_up_6m").status, find(frames[0], "follow_up_6m").holds) == ("planned", "")


def test_nothing_is_locked_at_scheduling() -> None:
    """A baseline that turns out to be of another day moves what has not gone out, and what has keeps its own dates."""
    sent = [*ANNS_BASELINE, released("2018-02-21")]
    moved = [collected("2017-10-09", instrument=name, version=2) for name in ("mood", "walking")]
    row = find(derive([*sent, *moved], "2018-02-26"), "follow_up_6m")
    assert (row.anchor_on, row.due_on, row.due_told_on) == (day("2017-10-09"), day("2018-04-09"), day("2018-03-05"))
    assert (row.status, row.released_on) == ("released", day("2018-02-21"))
    unsent = find(derive([*ANNS_BASELINE, *moved], "2018-02-26"), "follow_up_6m")
    assert (unsent.status, unsent.holds) == ("planned", "window_not_open")


def test_a_window_that_is_past_lets_nothing_out_at_once() -> None:
    """People imported long after their windows: nothing of it is ready to go, on any of the days."""
    told = [event for n in range(1, 6) for event in enrol(f"LUT-00{n}", "2017-07-03", "2017-07-10")]
    for as_of in ("2018-02-01", "2018-02-12", "2018-11-30"):
        expected = derive(told, as_of)
        past = expected[expected["closes_on"] < day(as_of)]
        assert len(past) >= 5
        assert (past["holds"] != "").all()


def test_a_withdrawal_dated_before_the_consent_stops_all_the_same() -> None:
    expected = derive([*enrol(ANN, "2017-09-04"), left("2017-09-01", "questionnaires")], "2017-09-05")
    assert set(expected["status"]) == {"stopped"}
    assert all("stopped" in holds.split(";") for holds in expected["holds"])


def test_a_person_told_twice_is_expected_once() -> None:
    void = Voided(occurred_on=date(2017, 9, 5), requested_by="Siân", voids=f"{1:064x}", reason="duplicate")
    told = [screened("2017-09-01"), *enrol(), void, signed("2017-12-01", form_version="2.0")]
    rows = list_rows(derive(told, "2017-12-01"))
    assert len(rows) == len(set(rows)) == 4


def test_what_is_over_asks_for_nothing_more() -> None:
    """Completed, withdrawn and dead people have nothing that may go out, on any later day."""
    whole = [collected("2018-03-12", "follow_up_6m", instrument=name) for name in ("mood", "walking")]
    for end in (whole, [left("2018-03-01", "study")], [left("2018-03-01", "study", "died")]):
        for as_of in ("2018-03-12", "2018-03-25", "2018-03-26"):
            assert find(derive([*ANNS_BASELINE, *end], as_of), "follow_up_6m").holds != ""


# What moved ---------------------------------------------------------------------------------------------------------


def move(told: list[Event], study_then: Study | None = None, study: Study = TRIAL) -> pd.DataFrame:
    """Everything but the last event was known at noon on 1 December 2017; the last was told the day after."""
    first = datetime(2017, 12, 1, 12, tzinfo=UTC)
    when = [(first, event) for event in told[:-1]] + [(first + timedelta(days=1), told[-1])]
    return derive_moves(study, tell_when(*when), date(2017, 12, 2), date(2017, 12, 1), study_then)


def test_a_corrected_baseline_shows_what_moved_and_why() -> None:
    told = [*enrol(), collected("2017-09-11"), collected("2017-09-13", version=2)]
    moves = move([told[0], told[1], released("2017-11-30", due_on="2018-03-12"), *told[2:]])
    due = moves[(moves["wave"] == "follow_up_6m") & (moves["date_column"] == "due_on")].iloc[0]
    assert (due["moved_from"], due["moved_to"]) == (day("2018-03-12"), day("2018-03-13"))
    assert due["due_told_on"] == day("2018-03-12")
    assert due["why"] == "Baseline answered on 13 September 2017, not 11 September 2017."
    assert set(moves["wave"]) == {"follow_up_6m", "follow_up_12m"}
    assert len(moves) == 10  # five dates of two follow-ups
    assert pd.isna(moves.loc[moves["wave"] == "follow_up_12m", "due_told_on"]).all()


def test_an_earlier_consent_moves_the_baseline() -> None:
    moves = move([screened("2017-09-01"), signed("2017-10-04"), signed("2017-10-02", form_version="0.9")])
    assert set(moves["why"]) == {"Consented on 2 October 2017, not 4 October 2017."}


def test_a_voided_baseline_leaves_its_follow_up_without_dates() -> None:
    void = Voided(occurred_on=date(2017, 12, 2), requested_by="Siân", voids=f"{3:064x}", reason="entered_in_error")
    moves = move([*enrol(), collected("2017-09-11"), void])
    assert moves["moved_to"].isna().all()
    assert set(moves["why"]) == {"Baseline answered on 11 September 2017: that is not on record any more."}


def test_a_new_protocol_moves_dates_too() -> None:
    later = make_study(('due = "0 days"', 'due = "1 week"'))
    moves = move([*enrol(), screened("2017-12-01", BEN)], study_then=TRIAL, study=later)
    assert list(moves[["date_column", "why"]].itertuples(index=False, name=None)) == [
        ("due_on", "The protocol changed."),
    ]


def test_what_is_expected_no_longer_is_told() -> None:
    carers = {"scopes": ("questionnaires", "carer_contact")}
    moves = move([*enrol(ANN, "2017-09-04", "2017-09-11", **carers), signed("2017-12-01", form_version="2.0")])
    assert set(zip(moves["wave"], moves["respondent"], moves["why"], strict=True)) == {
        ("follow_up_6m", "carer", "It is expected no longer."),
    }


def test_a_first_date_is_no_move() -> None:
    assert move([*enrol(), collected("2017-09-11")]).empty
    assert move([screened("2017-12-01"), signed("2017-12-01")]).empty


# What can still be reached ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("baseline_on", "as_of", "n_months", "reachable", "out_of_reach"),
    [
        ("2017-09-11", "2018-01-01", 14, "follow_up_12m", ""),
        ("2017-11-30", "2018-01-01", 12, "follow_up_12m", ""),
        ("2017-12-01", "2018-01-01", 11, "follow_up_12m", ""),
        ("2017-12-08", "2018-01-01", 11, "follow_up_6m", "follow_up_12m"),
        ("2018-06-07", "2018-07-01", 5, "follow_up_6m", "follow_up_12m"),
        ("2018-06-08", "2018-07-01", 5, "", "follow_up_6m;follow_up_12m"),
        ("2018-11-30", "2018-11-30", 0, "", "follow_up_6m;follow_up_12m"),
    ],
)
def test_the_follow_up_that_can_still_be_reached(
    baseline_on: str, as_of: str, n_months: int, reachable: str, out_of_reach: str
) -> None:
    told = tell(*enrol(ANN, "2017-09-04", baseline_on))
    (row,) = derive_reachable_follow_up(TRIAL_WITHOUT_VISIT, told, date.fromisoformat(as_of)).itertuples(index=False)
    assert (row.counts_from, row.is_assumed) == (day(baseline_on), False)
    assert (row.n_months, row.reachable, row.out_of_reach) == (n_months, reachable, out_of_reach)


TRIAL_WITHOUT_VISIT = make_study(('waves = ["follow_up_12m", "home_visit"]', 'waves = ["follow_up_12m"]'))


def test_without_a_baseline_it_is_reckoned_from_today() -> None:
    (row,) = derive_reachable_follow_up(TRIAL_WITHOUT_VISIT, tell(*enrol()), date(2018, 6, 7)).itertuples(index=False)
    assert (row.counts_from, row.is_assumed, row.reachable) == (day("2018-06-07"), True, "follow_up_6m")
    (row,) = derive_reachable_follow_up(TRIAL_WITHOUT_VISIT, tell(*enrol()), date(2018, 6, 8)).itertuples(index=False)
    assert (row.reachable, row.out_of_reach) == ("", "follow_up_6m;follow_up_12m")


def test_who_has_left_reaches_what_is_in() -> None:
    whole = [collected("2018-03-12", "follow_up_6m", instrument=name) for name in ("mood", "walking")]
    told = tell(*ANNS_BASELINE, *whole, left("2018-05-01", "study"))
    (row,) = derive_reachable_follow_up(TRIAL_WITHOUT_VISIT, told, date(2018, 6, 1)).itertuples(index=False)
    assert (row.reachable, row.out_of_reach) == ("follow_up_6m", "")


# Any history --------------------------------------------------------------------------------------------------------

POOL: list[Event] = [
    *enrol(ANN, "2017-09-04", "2017-09-11"),
    *enrol(BEN, "2017-10-02", route="consultee", capacity="assessed"),
    collected("2017-10-09", person=BEN, respondent="proxy"),
    collected("2017-10-16", version=2),
    released("2018-02-21", instruments=("mood", "walking")),
    released("2018-03-26", "luton-2018-03-26-1", copy_number=2, instruments=("mood", "walking")),
    released("2017-10-02", "luton-2017-10-02-1", BEN, wave="baseline", respondent="proxy"),
    *(collected("2018-03-14", "follow_up_6m", instrument=name) for name in ("mood", "walking")),
    signed("2018-02-05", form_version="2.0", route="consultee", scopes=("questionnaires", "carer_contact")),
    allocated("2017-10-29"),
    answered("2017-08-28"),
    answered("2018-01-15", "declined", BEN),
    left("2018-03-25", "questionnaires"),
    left("2018-01-01", "study", "died", BEN),
    left("2018-05-01", "study"),
    lifted("window_closed", "2018-03-27", "follow_up_6m"),
    lifted("died", "2018-01-02", "follow_up_6m", BEN),
]


@settings(max_examples=60, deadline=None)
@given(
    told=st.lists(st.sampled_from(range(len(POOL))), unique=True),
    order=st.randoms(use_true_random=False),
    as_of=st.sampled_from(["2017-10-29", "2018-03-25", "2018-03-26", "2017-12-31", "2018-01-01"])
    | st.dates(date(2017, 8, 1), date(2019, 1, 31)).map(str),
)
def test_whatever_was_told_in_whatever_order(told: list[int], order: Random, as_of: str) -> None:
    expected = derive([POOL[place] for place in sorted(told)], as_of)
    rows = list_rows(expected)
    assert len(rows) == len(set(rows))
    assert set(expected["status"]) <= set(STATUSES)
    may_go = expected[expected["holds"] == ""]
    assert set(may_go["status"]) <= {"planned"}
    assert (may_go["release_from"] <= day(as_of)).all()
    assert (may_go["late_until"] >= day(as_of)).all()
    assert may_go["released_on"].isna().all()
    assert may_go["stopped_on"].isna().all()
    is_in = (expected["n_instruments"] > 0) & (expected["n_returned"] == expected["n_instruments"])
    assert ((expected["status"] == "returned") == is_in).all()
    assert ((expected["timing"] != "") == (expected["n_returned"] > 0) & expected["anchor_on"].notna()).all()
    assert (expected.loc[expected["status"] == "held", "holds"] != "").all()
    order.shuffle(told)
    pd.testing.assert_frame_equal(derive([POOL[place] for place in told], as_of), expected)


# The whole ----------------------------------------------------------------------------------------------------------


def test_a_ledger_without_people_expects_nothing() -> None:
    for study in (TRIAL, IPC, PILOT):
        expected = derive([], "2018-01-01", study)
        assert expected.empty
        assert expected["due_on"].dtype == "datetime64[us]"
        assert derive_moves(study, tell(), date(2018, 1, 2), date(2018, 1, 1)).empty
        assert derive_reachable_follow_up(study, tell(), date(2018, 1, 1)).empty


def test_the_frame_that_one_caller_writes_to_nobody_else_sees() -> None:
    events = tell(*ANNS_BASELINE)
    first = derive_expected_returns(TRIAL, events, date(2018, 3, 1))
    first["status"] = "changed"
    assert "changed" not in set(derive_expected_returns(TRIAL, events, date(2018, 3, 1))["status"])


def test_sites_bodies_and_arms_are_told_as_far_as_known() -> None:
    told = [screened("2017-09-01", body_id="luton_council"), signed("2017-09-04"), allocated("2017-09-05")]
    told += [signed("2017-09-04", "DEV-001")]
    expected = derive(told, "2017-09-10")
    columns = ["participant_id", "site_id", "body_id", "cohort", "arm"]
    assert sorted(set(expected[columns].itertuples(index=False, name=None))) == [
        ("DEV-001", "devon", "", "", ""),
        ("LUT-001", "luton", "luton_council", "older", "budget"),
    ]


def test_a_lifted_hold_lets_one_wave_of_one_participant_go() -> None:
    told = [
        *ANNS_BASELINE,
        *enrol(BEN, "2017-09-04", "2017-09-11"),
        lifted("window_closed", "2018-03-28", "follow_up_6m"),
    ]
    expected = derive(told, "2018-04-02")
    assert (find(expected, "follow_up_6m").holds, find(expected, "follow_up_6m").status) == ("", "planned")
    assert find(expected, "follow_up_6m", person=BEN).holds == "window_closed"
    assert find(derive(told, "2018-04-12"), "follow_up_6m").status == "missed"


def test_ipc_asks_each_person_and_carer_at_three_waves() -> None:
    person = {"participant_id": "LUT-P00017", "site_id": "luton"}
    scopes = ("questionnaires", "linkage", "carer_contact")
    told = [
        screened("2017-09-04").model_copy(update={**person, "cohort": "learning_disabilities"}),
        signed("2017-09-04", scopes=scopes, form="easy_read").model_copy(update=person),
    ]
    expected = derive_expected_returns(IPC, tell(*told), date(2017, 9, 5))
    assert list(expected["wave"]) == [wave for wave in ("baseline", "follow_up_6m", "follow_up_12m") for _ in range(2)]
    assert set(expected["respondent"]) == {"self", "carer"}
    own = expected[expected["respondent"] == "self"]
    each_time = "eq5d5l;ascot_sct4;ons4;service_use"
    assert own["instruments"].tolist() == [f"{each_time};sociodemographics", each_time, each_time]
    assert set(own["form"]) == {"easy_read"}
    assert set(expected["status"]) == {"held", "planned"}  # nothing is approved yet
    assert expected.loc[expected["wave"] == "baseline", "holds"].str.contains("site_not_open").all()


def test_the_pilot_counts_visits_from_the_allocation() -> None:
    person = {"participant_id": "01-701-1015", "site_id": "701"}
    told = [event.model_copy(update=person) for event in (signed("2014-01-02"), allocated("2014-01-02"))]
    told.insert(0, screened("2013-12-26").model_copy(update={**person, "cohort": "alzheimers_disease"}))
    expected = derive_expected_returns(PILOT, tell(*told), date(2014, 1, 6))
    assert len(expected) == 19
    week_2 = expected[expected["wave"] == "week_2"].iloc[0]
    assert (week_2["respondent"], week_2["instruments"]) == ("carer", "npi_x")
    assert (week_2["opens_on"], week_2["due_on"]) == (day("2014-01-09"), day("2014-01-19"))
    assert (week_2["release_from"], week_2["holds"]) == (day("2014-01-02"), "")
    screening = expected[expected["wave"] == "screening"].iloc[0]
    assert (screening["status"], screening["holds"]) == ("missed", "not_sent_out;too_late")


def test_a_closed_site_holds_what_would_go() -> None:
    study = make_study(pathway=PATHWAY.replace('id = "approach"', 'id = "collect_follow_up"'))
    row = find(derive(ANNS_BASELINE, "2018-03-01", study), "follow_up_6m")
    assert (row.status, row.holds) == ("held", "site_not_open")
