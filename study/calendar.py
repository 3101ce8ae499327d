"""Days: which are worked in England, how months and working days are counted, which day it is in London.

Everything here is arithmetic on dates that are passed in. Bank holidays of England come from the `holidays` package,
which is data (it knows the moved and the one-off ones: 2 and 3 June 2022, 19 September 2022, 8 May 2023); a caller may
pass its own set instead.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Container
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from holidays import country_holidays

LONDON = ZoneInfo("Europe/London")

WeekendRule = Literal["none", "earlier", "later"]
WEEKEND_RULES: tuple[str, ...] = get_args(WeekendRule)
HolidayCalendar = Literal["england", "none"]

_PERIOD = re.compile(r"(?P<sign>[+-]?)(?P<number>\d{1,4}) (?P<unit>day|week|month)s?")
_NO_DAYS: frozenset[date] = frozenset()


@cache
def _find_england_holidays(year: int) -> frozenset[date]:
    return frozenset(country_holidays("GB", subdiv="ENG", years=year))


class _EnglandHolidays:
    """England's bank holidays of every year, looked up a year at a time."""

    def __contains__(self, day: object) -> bool:
        return isinstance(day, date) and day in _find_england_holidays(day.year)


ENGLAND: Container[date] = _EnglandHolidays()


def find_holidays(calendar: HolidayCalendar) -> Container[date]:
    """The days that a protocol's calendar takes off besides weekends: England's bank holidays, or none."""
    return ENGLAND if calendar == "england" else _NO_DAYS


def is_working_day(day: date, holidays: Container[date] = ENGLAND) -> bool:
    """Monday to Friday and not a bank holiday."""
    return day.weekday() < 5 and day not in holidays


def next_working_day(day: date, holidays: Container[date] = ENGLAND) -> date:
    """The first working day strictly after `day`."""
    return add_working_days(day, 1, holidays)


def add_working_days(day: date, n_days: int, holidays: Container[date] = ENGLAND) -> date:
    """The n-th working day after `day` (before it, if negative). `day` itself never counts; n = 0 gives it back.

    So a letter of Friday evening and one of Saturday both have Monday as their first working day.
    """
    step = timedelta(days=1 if n_days > 0 else -1)
    left = abs(n_days)
    while left:
        day += step
        left -= is_working_day(day, holidays)
    return day


def add_days(day: date, n_days: int, unit: str, holidays: Container[date] = ENGLAND) -> date:
    """The n-th "working" or "calendar" day after `day` (before it, if negative)."""
    return add_working_days(day, n_days, holidays) if unit == "working" else day + timedelta(days=n_days)


def count_working_days(after: date, until: date, holidays: Container[date] = ENGLAND) -> int:
    """Working days later than `after`, up to and including `until`; 0 if `until` is not later.

    The inverse of `add_working_days` on working days.
    """
    n_calendar_days = (until - after).days
    return sum(is_working_day(after + timedelta(days=n), holidays) for n in range(1, n_calendar_days + 1))


def move_to_working_day(day: date, rule: WeekendRule, holidays: Container[date] = ENGLAND) -> date:
    """Where a date that falls on a weekend or bank holiday moves: the working day before, the one after, or nowhere."""
    if rule == "none" or is_working_day(day, holidays):
        return day
    return add_working_days(day, 1 if rule == "later" else -1, holidays)


def add_months(day: date, n_months: int) -> date:
    """The same day of the month n months later (earlier, if negative), clipped to the end of a shorter month.

    31 August + 6 months is 28 February, 29 in a leap year.
    """
    year, month = divmod(day.year * 12 + day.month - 1 + n_months, 12)
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


@dataclass(frozen=True, slots=True)
class Period:
    """A distance between dates: calendar months, then days; negative is earlier."""

    months: int = 0
    days: int = 0

    def __str__(self) -> str:
        number, unit = (self.months, "month") if self.months else (self.days, "day")
        return f"{number} {unit}{'' if abs(number) == 1 else 's'}"


def parse_period(text: str) -> Period:
    """Read "14 days", "-2 weeks" or "6 months". Raises ValueError for anything else."""
    found = _PERIOD.fullmatch(text.strip())
    if found is None:
        raise ValueError('not a period such as "14 days", "-2 weeks" or "6 months"')
    number = int(found["sign"] + found["number"])
    if found["unit"] == "month":
        return Period(months=number)
    return Period(days=number * (7 if found["unit"] == "week" else 1))


def add_period(day: date, period: Period) -> date:
    """Months first, clipped to the month's end, then days."""
    return add_months(day, period.months) + timedelta(days=period.days)


def format_day(day: date) -> str:
    """A date as people write it: 9 March 2015."""
    return f"{day.day} {day:%B %Y}"


def format_short_day(day: date) -> str:
    """A date as tables have room for it: 9 Mar 2015."""
    return f"{day.day} {day:%b %Y}"


def london_day(at: datetime) -> date:
    """The date in London at this moment. Raises ValueError for a moment without a time zone."""
    if at.tzinfo is None:
        raise ValueError("a moment without a time zone has no London date: pass an aware datetime")
    return at.astimezone(LONDON).date()


def find_day_bounds(day: date) -> tuple[datetime, datetime]:
    """First moment of a London day and first moment of the next, in UTC: 23 or 25 hours apart at a clock change."""
    first = datetime.combine(day, time.min, LONDON)
    following = datetime.combine(day + timedelta(days=1), time.min, LONDON)
    return first.astimezone(UTC), following.astimezone(UTC)
