"""Days, months and working days, at the places where others go wrong: clipped months, clock changes, moved holidays."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.calendar import (
    Period,
    add_months,
    add_period,
    add_working_days,
    count_working_days,
    find_day_bounds,
    find_holidays,
    is_working_day,
    london_day,
    move_to_working_day,
    next_working_day,
    parse_period,
)

DAYS = st.dates(date(2000, 1, 1), date(2060, 12, 31))


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (date(2022, 6, 1), True),
        (date(2022, 6, 2), False),  # the spring bank holiday, moved for the Platinum Jubilee
        (date(2022, 6, 3), False),  # the Platinum Jubilee
        (date(2022, 5, 30), True),  # the last Monday of May, from which it was moved
        (date(2022, 9, 19), False),  # the state funeral
        (date(2023, 5, 8), False),  # the coronation
        (date(2020, 5, 4), True),  # the early May holiday was moved ...
        (date(2020, 5, 8), False),  # ... to VE Day
        (date(2018, 3, 30), False),  # Good Friday
        (date(2018, 4, 2), False),  # Easter Monday
        (date(2019, 4, 19), False),
        (date(2019, 4, 22), False),
        (date(2021, 12, 27), False),  # Christmas Day on a Saturday
        (date(2021, 12, 28), False),  # Boxing Day on a Sunday
        (date(2021, 12, 29), True),
        (date(2017, 1, 2), False),  # New Year's Day on a Sunday
        (date(2017, 1, 3), True),
        (date(2018, 1, 2), True),  # a holiday in Scotland only
        (date(2018, 3, 19), True),  # a holiday in Northern Ireland only
        (date(2017, 8, 28), False),
        (date(2024, 2, 29), True),
        (date(2017, 7, 1), False),  # a Saturday
        (date(2017, 7, 2), False),
    ],
)
def test_working_days_of_england(day: date, expected: bool) -> None:
    assert is_working_day(day) is expected


def test_holidays_can_be_passed_in() -> None:
    assert is_working_day(date(2017, 12, 25), holidays=find_holidays("none"))
    assert not is_working_day(date(2017, 7, 3), holidays={date(2017, 7, 3)})


@pytest.mark.parametrize(
    ("day", "n_days", "expected"),
    [
        (date(2017, 12, 21), 1, date(2017, 12, 22)),
        (date(2017, 12, 22), 1, date(2017, 12, 27)),  # over the weekend, Christmas Day and Boxing Day
        (date(2017, 12, 22), 4, date(2018, 1, 2)),  # and New Year's Day
        (date(2017, 12, 24), 1, date(2017, 12, 27)),  # from a Sunday
        (date(2017, 12, 27), -1, date(2017, 12, 22)),
        (date(2021, 12, 24), 2, date(2021, 12, 30)),  # substitute days on the Monday and the Tuesday
        (date(2018, 3, 29), 1, date(2018, 4, 3)),  # Easter
        (date(2022, 6, 1), 1, date(2022, 6, 6)),  # Jubilee: two holidays and a weekend
        (date(2020, 2, 28), 1, date(2020, 3, 2)),  # 29 February on a Saturday
        (date(2024, 2, 28), 1, date(2024, 2, 29)),
        (date(2017, 7, 8), 0, date(2017, 7, 8)),
        (date(2017, 7, 7), 1, date(2017, 7, 10)),
        (date(2017, 7, 8), 1, date(2017, 7, 10)),
    ],
)
def test_adding_working_days(day: date, n_days: int, expected: date) -> None:
    assert add_working_days(day, n_days) == expected


def test_next_working_day_is_never_the_day_itself() -> None:
    assert next_working_day(date(2017, 7, 6)) == date(2017, 7, 7)
    assert next_working_day(date(2017, 7, 7)) == date(2017, 7, 10)


@given(day=DAYS, n_days=st.integers(1, 40))
def test_working_days_there_and_back(day: date, n_days: int) -> None:
    later = add_working_days(day, n_days)
    assert is_working_day(later)
    assert later > day
    assert count_working_days(day, later) == n_days
    back = add_working_days(later, -n_days)
    assert back == day if is_working_day(day) else back == add_working_days(day, -1)


@pytest.mark.parametrize(
    ("after", "until", "expected"),
    [
        (date(2017, 12, 22), date(2018, 1, 2), 4),
        (date(2017, 7, 3), date(2017, 7, 3), 0),
        (date(2017, 7, 4), date(2017, 7, 3), 0),
        (date(2017, 7, 7), date(2017, 7, 9), 0),
        (date(2017, 7, 7), date(2017, 7, 10), 1),
    ],
)
def test_counting_working_days(after: date, until: date, expected: int) -> None:
    assert count_working_days(after, until) == expected


@pytest.mark.parametrize(
    ("day", "n_months", "expected"),
    [
        (date(2016, 8, 31), 6, date(2017, 2, 28)),
        (date(2015, 8, 31), 6, date(2016, 2, 29)),
        (date(2016, 2, 29), 12, date(2017, 2, 28)),
        (date(2016, 2, 29), 48, date(2020, 2, 29)),
        (date(2017, 12, 31), 2, date(2018, 2, 28)),
        (date(2017, 3, 31), 1, date(2017, 4, 30)),
        (date(2017, 3, 31), -1, date(2017, 2, 28)),
        (date(2017, 1, 15), -1, date(2016, 12, 15)),
        (date(2017, 12, 15), 1, date(2018, 1, 15)),
        (date(2017, 5, 20), 0, date(2017, 5, 20)),
    ],
)
def test_adding_months_clips_to_the_end(day: date, n_months: int, expected: date) -> None:
    assert add_months(day, n_months) == expected


@given(day=DAYS, n_months=st.integers(-120, 120))
def test_months_keep_the_day_or_clip(day: date, n_months: int) -> None:
    moved = add_months(day, n_months)
    assert (moved.year * 12 + moved.month) - (day.year * 12 + day.month) == n_months
    is_last_of_month = (moved + timedelta(days=1)).day == 1
    assert moved.day == day.day or (moved.day < day.day and is_last_of_month)


@given(first=DAYS, second=DAYS, n_months=st.integers(-120, 120))
def test_months_keep_order(first: date, second: date, n_months: int) -> None:
    earlier, later = sorted((first, second))
    assert add_months(earlier, n_months) <= add_months(later, n_months)


@pytest.mark.parametrize(
    ("day", "rule", "expected"),
    [
        (date(2017, 7, 8), "later", date(2017, 7, 10)),
        (date(2017, 7, 8), "earlier", date(2017, 7, 7)),
        (date(2017, 7, 8), "none", date(2017, 7, 8)),
        (date(2017, 12, 25), "later", date(2017, 12, 27)),
        (date(2017, 12, 25), "earlier", date(2017, 12, 22)),
        (date(2018, 4, 1), "later", date(2018, 4, 3)),
        (date(2023, 5, 8), "earlier", date(2023, 5, 5)),
        (date(2017, 7, 7), "later", date(2017, 7, 7)),
    ],
)
def test_moving_off_weekends_and_holidays(day: date, rule: str, expected: date) -> None:
    assert move_to_working_day(day, rule) == expected  # type: ignore[arg-type]  # the table holds plain text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("14 days", Period(days=14)),
        ("1 day", Period(days=1)),
        ("-2 weeks", Period(days=-14)),
        ("+3 days", Period(days=3)),
        ("6 months", Period(months=6)),
        ("-1 month", Period(months=-1)),
        ("0 days", Period()),
    ],
)
def test_reading_periods(text: str, expected: Period) -> None:
    assert parse_period(text) == expected


@pytest.mark.parametrize(
    "text", ["", "6", "months", "six months", "6 years", "6months", "1.5 days", "- 2 days", "99999 days"]
)
def test_other_texts_are_no_periods(text: str) -> None:
    with pytest.raises(ValueError, match="not a period such as"):
        parse_period(text)


@given(months=st.integers(-240, 240), days=st.integers(-999, 999), by_months=st.booleans())
def test_periods_are_written_as_they_are_read(months: int, days: int, by_months: bool) -> None:
    period = Period(months=months) if by_months else Period(days=days)
    assert parse_period(str(period)) == period


def test_months_come_before_days() -> None:
    assert add_period(date(2016, 8, 31), Period(months=6, days=1)) == date(2017, 3, 1)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        # Summer time begins on 26 March 2017 at 01:00 UTC.
        (datetime(2017, 3, 25, 23, 59, tzinfo=UTC), date(2017, 3, 25)),
        (datetime(2017, 3, 26, 0, 0, tzinfo=UTC), date(2017, 3, 26)),
        (datetime(2017, 3, 26, 22, 59, tzinfo=UTC), date(2017, 3, 26)),
        (datetime(2017, 3, 26, 23, 0, tzinfo=UTC), date(2017, 3, 27)),
        # It ends on 29 October 2017 at 01:00 UTC.
        (datetime(2017, 10, 28, 22, 59, tzinfo=UTC), date(2017, 10, 28)),
        (datetime(2017, 10, 28, 23, 0, tzinfo=UTC), date(2017, 10, 29)),
        (datetime(2017, 10, 29, 23, 59, tzinfo=UTC), date(2017, 10, 29)),
        (datetime(2017, 10, 30, 0, 0, tzinfo=UTC), date(2017, 10, 30)),
        (datetime(2017, 12, 31, 23, 59, tzinfo=UTC), date(2017, 12, 31)),
        (datetime(2017, 6, 30, 23, 30, tzinfo=UTC), date(2017, 7, 1)),
    ],
)
def test_the_day_in_london(at: datetime, expected: date) -> None:
    assert london_day(at) == expected


def test_a_moment_without_a_zone_has_no_day() -> None:
    with pytest.raises(ValueError, match="time zone"):
        london_day(datetime(2017, 3, 26))  # noqa: DTZ001  # what must be refused


@pytest.mark.parametrize(
    ("day", "hours"),
    [(date(2017, 3, 26), 23), (date(2017, 10, 29), 25), (date(2017, 7, 1), 24), (date(2016, 2, 29), 24)],
)
def test_length_of_a_london_day(day: date, hours: int) -> None:
    first, following = find_day_bounds(day)
    assert following - first == timedelta(hours=hours)


@given(day=DAYS)
def test_days_follow_without_gap_or_overlap(day: date) -> None:
    first, following = find_day_bounds(day)
    assert london_day(first) == day
    assert london_day(following - timedelta(microseconds=1)) == day
    assert london_day(following) == day + timedelta(days=1)
    assert find_day_bounds(day + timedelta(days=1))[0] == following
