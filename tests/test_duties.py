"""Duties of the study: due days by the calendar, what was done for them, and what cannot be recorded."""

from datetime import date
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.calendar import Period, add_months, add_period
from study.duties import derive_duties, find_duty_faults
from study.events import DutyDone, Event
from study.protocol import Study
from tests.approval_histories import PATHWAY, make_study, step, tell

DUTY = """
[[duties]]
id = "report"
label = "Progress report"
to = "Funder"
owner = "project_manager"
counts_from = "study_start"
offset = "6 months"
every = "6 months"
source = "Made up."
"""


def make(*changes: tuple[str, str], **dates: str) -> Study:
    """The trial with one duty. It starts on 2017-01-01, collects from 2017-07-01 to 2018-11-30, ends on 2019-05-31."""
    duty = DUTY
    for old, new in changes:
        assert old in duty
        duty = duty.replace(old, new)
    return make_study(PATHWAY + duty).model_copy(update={key: date.fromisoformat(day) for key, day in dates.items()})


def done(due_on: str, on: str, site_id: str = "", **fields: Any) -> DutyDone:
    about = {"duty": "report", "requested_by": "A. Manager", "site_id": site_id}
    return DutyDone(**{**about, "due_on": due_on, "occurred_on": on, **fields})


def show(day: Any) -> str:
    return "-" if pd.isna(day) else f"{day:%Y-%m-%d}"


def list_due(study: Study, *told: Event, on: str = "2017-06-01") -> list[str]:
    return [show(day) for day in derive_duties(study, tell(*told), date.fromisoformat(on))["due_on"]]


START, END = ('"study_start"', '"data_collection_start"'), ('"study_start"', '"study_end"')
COLLECTION_END = ('"study_start"', '"data_collection_end"')
ONCE = ('every = "6 months"\n', "")


@pytest.mark.parametrize(
    ("changes", "dates", "expected"),
    [
        ([], {}, ["2017-07-01", "2018-01-01", "2018-07-01", "2019-01-01"]),
        ([], {"ends_on": "2019-07-01"}, ["2017-07-01", "2018-01-01", "2018-07-01", "2019-01-01", "2019-07-01"]),
        ([], {"ends_on": "2019-06-30"}, ["2017-07-01", "2018-01-01", "2018-07-01", "2019-01-01"]),
        ([START], {}, ["2018-01-01", "2018-07-01", "2019-01-01"]),
        (
            [START, ("source", 'until = "data_collection_end"\nsource')],
            {"data_collection_ends_on": "2018-07-01"},
            ["2018-01-01", "2018-07-01"],
        ),
        # the first time is owed even if it comes after `until`: a report on the end can only come later
        ([END], {}, ["2019-11-30"]),
        ([COLLECTION_END, ONCE, ('"6 months"', '"90 days"')], {}, ["2019-02-28"]),
        ([ONCE, ('"6 months"', '"-2 weeks"')], {}, ["2016-12-18"]),
        # months are counted from the start, so that a short month moves no later day
        (
            [('"6 months"', '"1 month"')],
            {"starts_on": "2020-01-31", "ends_on": "2020-05-31"},
            ["2020-02-29", "2020-03-31", "2020-04-30", "2020-05-31"],
        ),
        (
            [('offset = "6 months"', 'offset = "12 months"'), ('every = "6 months"', 'every = "12 months"')],
            {"starts_on": "2016-02-29", "ends_on": "2020-02-29"},
            ["2017-02-28", "2018-02-28", "2019-02-28", "2020-02-29"],
        ),
        (
            [('"6 months"', '"2 weeks"')],
            {"ends_on": "2017-02-12"},
            ["2017-01-15", "2017-01-29", "2017-02-12"],
        ),  # Sundays
        # every so many months, so many days after: the distance to the anniversary stays
        (
            [('offset = "6 months"', 'offset = "30 days"')],
            {"starts_on": "2017-01-31", "ends_on": "2018-03-02"},
            ["2017-03-02", "2017-08-30", "2018-03-02"],
        ),
    ],
)
def test_due_days(changes: list[tuple[str, str]], dates: dict[str, str], expected: list[str]) -> None:
    assert list_due(make(*changes, **dates)) == expected


def test_what_is_15_years_ahead_is_not_listed() -> None:
    days = list_due(make(ends_on="2099-12-31"), on="2020-02-29")
    assert (days[-1], len(days)) == ("2035-01-01", 36)
    assert list_due(make(END, ONCE, ('"6 months"', '"300 months"'))) == ["2044-05-31"]  # once: however far off


@given(
    anchor=st.dates(date(2016, 1, 1), date(2020, 12, 31)),
    every=st.integers(1, 400).map(lambda n: Period(days=n)) | st.integers(1, 24).map(lambda n: Period(months=n)),
    offset=st.integers(-60, 400).map(lambda n: Period(days=n)) | st.integers(-2, 24).map(lambda n: Period(months=n)),
    until=st.dates(date(2016, 1, 1), date(2026, 12, 31)),
)
def test_a_duty_comes_at_its_distance_until_its_end(anchor: date, every: Period, offset: Period, until: date) -> None:
    duty = TRIAL.pathway.duties[0].model_copy(update={"every": every, "offset": offset})
    pathway = TRIAL.pathway.model_copy(update={"duties": (duty,)})
    study = TRIAL.model_copy(update={"pathway": pathway, "starts_on": anchor, "ends_on": until})
    days = [day.date() for day in derive_duties(study, tell(), anchor)["due_on"]]
    assert days[0] == add_period(anchor, offset)
    assert days == sorted(set(days))
    assert all(day <= until for day in days[1:])
    following = Period(offset.months + len(days) * every.months, offset.days + len(days) * every.days)
    assert add_period(anchor, following) > min(until, add_months(anchor, 180))


TRIAL = make()


@pytest.mark.parametrize(
    ("told", "on", "expected"),
    [
        # state, days left, overdue since of the first
        ([], "2017-05-31", "coming 31 -"),
        ([], "2017-06-01", "due 30 -"),
        ([], "2017-07-01", "due 0 -"),
        ([], "2017-07-02", "overdue -1 2017-07-02"),
        ([done("2017-07-01", "2017-06-20")], "2017-06-19", "due 12 -"),
        ([done("2017-07-01", "2017-06-20")], "2017-06-20", "done - -"),
        ([done("2017-07-01", "2017-08-20")], "2017-08-20", "done - -"),
        ([done("2018-01-01", "2017-07-05")], "2017-07-05", "overdue -4 2017-07-02"),
    ],
)
def test_states_on_boundary_days(told: list[Event], on: str, expected: str) -> None:
    row = derive_duties(TRIAL, tell(*told), date.fromisoformat(on)).iloc[0]
    left = "-" if pd.isna(row["days_left"]) else row["days_left"]
    assert f"{row['state']} {left} {show(row['overdue_since'])}" == expected


OF_REC = (('"study_start"', '"approval"\napproval = "rec"'), ONCE)
OF_COUNCIL = (('"study_start"', '"approval"\napproval = "council"'), ONCE)


def grant(approval: str, on: str, **fields: Any) -> list[Event]:
    place = {key: fields[key] for key in ("site_id", "body_id") if key in fields}
    return [step("submitted", "2017-01-02", approval, **place), step("granted", on, approval, **fields)]


DEVON = {"site_id": "devon", "body_id": "devon_council"}


@pytest.mark.parametrize(
    ("changes", "told", "on", "expected"),
    [
        (OF_REC, [], "2017-06-01", []),
        (OF_REC, grant("rec", "2017-02-28"), "2017-02-27", []),
        (OF_REC, grant("rec", "2017-02-28"), "2017-02-28", ["1 2017-08-28"]),
        # it counts from the first day of force, whatever came later
        (
            OF_REC,
            [*grant("rec", "2017-02-28", in_force_from="2017-03-31"), step("renewed", "2018-03-01")],
            "2018-04-01",
            ["1 2017-09-30"],
        ),
        (OF_REC, [*grant("rec", "2017-02-28"), step("withdrawn", "2017-04-01")], "2017-05-01", ["1 2017-08-28"]),
        (OF_COUNCIL, grant("council", "2017-03-01"), "2017-03-01", ["luton 1 2017-09-01"]),
        (
            OF_COUNCIL,
            [
                *grant("council", "2017-03-01", **DEVON),
                *grant("council", "2017-03-02"),
                done("2017-09-01", "2017-08-01"),
            ],
            "2017-09-01",
            # done "for the study" is not done for a site, and is not lost either
            ["0 2017-09-01 done", "devon 1 2017-09-01", "luton 1 2017-09-02"],
        ),
    ],
)
def test_a_duty_that_counts_from_an_approval(
    changes: list[tuple[str, str]], told: list[Event], on: str, expected: list[str]
) -> None:
    duties = derive_duties(make(*changes), tell(*told), date.fromisoformat(on))
    shown = [
        f"{row.site_id} {row.n} {show(row.due_on)} {'done' if row.state == 'done' else ''}".strip()
        for row in duties.itertuples()
    ]
    assert shown == expected


def list_done(study: Study, *told: Event) -> list[str]:
    duties = derive_duties(study, tell(*told), date(2019, 1, 1))
    return [f"{row.n} {show(row.due_on)} {show(row.done_on)}" for row in duties.itertuples() if row.state == "done"]


def test_what_was_done_stays_done_when_its_day_moves_a_little() -> None:
    told = [done("2017-07-01", "2017-06-30"), done("2018-01-01", "2018-01-03")]
    later = make(starts_on="2017-02-01")  # 31 days
    assert list_done(later, *told) == ["1 2017-08-01 2017-06-30", "2 2018-02-01 2018-01-03"]
    much_later = make(starts_on="2017-02-02")
    assert list_done(much_later, *told) == ["0 2017-07-01 2017-06-30", "0 2018-01-01 2018-01-03"]
    # its own day counts before a near one
    near = [done("2017-07-01", "2017-06-30"), done("2017-06-20", "2017-06-19")]
    assert list_done(TRIAL, *near) == ["0 2017-06-20 2017-06-19", "1 2017-07-01 2017-06-30"]


@pytest.mark.parametrize(
    ("changes", "event", "faults"),
    [
        ([], done("2017-07-01", "2017-06-30"), []),
        (
            [],
            done("2017-07-01", "2017-06-30", duty="raport"),
            ['"raport" is not under [[duties]] in approvals.toml. Correct it. Did you mean "report"?'],
        ),
        (
            [],
            done("2017-07-02", "2018-01-02"),
            [
                "report: the date 2018-01-02 is in the future (today is 2018-01-01). Correct the date.",
                "report: it is not due on 2017-07-02. The nearest day is 2017-07-01. Correct it.",
            ],
        ),
        (
            [],
            done("2017-12-31", "2018-01-01"),
            ["report: it is not due on 2017-12-31. The nearest day is 2018-01-01. Correct it."],
        ),
        (
            [],
            done("2017-07-01", "2018-01-01", "luton"),
            ["report: it is a duty of the study, not of a site (luton). Leave the site out."],
        ),
        (OF_COUNCIL, done("2017-09-01", "2018-01-01", "luton"), []),
        (
            OF_COUNCIL,
            done("2017-09-01", "2018-01-01"),
            ["report: it is due for each site, and no site is named. Name one of: luton."],
        ),
        (
            OF_COUNCIL,
            done("2017-09-01", "2018-01-01", "devon"),
            ["report: it is not due at devon yet: the approval that it counts from has not come into force there."],
        ),
        (
            OF_COUNCIL,
            done("2017-09-01", "2018-01-01", "lutton"),
            ['report: "lutton" is no site of trial. Correct it. Did you mean "luton"?'],
        ),
        (
            OF_REC,
            done("2017-09-01", "2018-01-01"),
            ["report: it counts from the approval rec, which has not come into force yet. Record that first."],
        ),
    ],
)
def test_what_cannot_be_recorded(changes: list[tuple[str, str]], event: DutyDone, faults: list[str]) -> None:
    told = grant("council", "2017-03-01")
    assert find_duty_faults(make(*changes), tell(*told), event, date(2018, 1, 1)) == faults


def test_duties_of_nobody() -> None:
    duties = derive_duties(make_study(), tell(), date(2017, 1, 1))
    assert duties.empty
    assert [str(duties[column].dtype) for column in ("due_on", "n", "days_left", "state")] == [
        *("datetime64[us]", "int64", "Int64", "str")
    ]
