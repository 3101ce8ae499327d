"""The calendar of deadlines and expiries as a file that any calendar program subscribes to or imports (RFC 5545).

Whole days without alarms, which block nobody's time. An entry keeps its UID from day to day, so that what moves is
moved and not doubled; what is overdue stays on its day and says so.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
from icalendar import Calendar, Event, Timezone

from study.calendar import LONDON, london_day
from study.deadlines import describe_place
from study.protocol import Study

_PRODUCT = "-//Summative//Deadlines//EN"
_HOST = "summative"
_CATEGORIES = {
    "decision_due": "Decision",
    "answer_due": "Answer",
    "expiry": "Expiry",
    "review_form_due": "Review",
    "review_due": "Review",
    "duty": "Duty",
    "implied_start": "Modification",
    "incident_assessment": "Incident",
}
_ONE_DAY = timedelta(days=1)


def write_calendar(study: Study, deadlines: pd.DataFrame, written_at: datetime) -> bytes:
    """The feed, from `study.deadlines.derive_deadlines`. The same input gives the same bytes.

    `written_at`: the moment of writing; raises ValueError if it has no time zone.
    """
    written_on = london_day(written_at)
    stamp = written_at.astimezone(UTC).replace(microsecond=0)
    calendar = Calendar()
    calendar.add("prodid", _PRODUCT)
    calendar.add("version", "2.0")
    calendar.add("x-wr-calname", f"{study.title}: deadlines")
    for row in deadlines.to_dict("records"):
        calendar.add_component(_make_entry(study, row, stamp))
    if deadlines.empty:  # a calendar without any component would be faulty; a time zone shows nowhere
        calendar.add_component(Timezone.from_tzinfo(LONDON, str(LONDON), written_on, written_on + 366 * _ONE_DAY))
    return bytes(calendar.to_ical())


def _make_entry(study: Study, row: dict[Any, Any], stamp: datetime) -> Event:
    on = row["on"].date()
    place = describe_place(study, row["site_id"], row["body_id"])
    title = f"{row['title']}, {place}" if place else row["title"]
    told = {
        "Study": study.title,
        "Place": place,
        "Who has to act": row["owner"].replace("_", " "),
        "Modification": row["modification"],
    }
    entry = Event()
    entry.add("uid", f"{row['uid']}@{_HOST}")
    entry.add("dtstamp", stamp)
    entry.add("dtstart", on)
    entry.add("dtend", on + _ONE_DAY)
    entry.add("summary", f"Overdue: {title}" if row["is_overdue"] else title)
    entry.add("description", "\n".join(f"{name}: {text}" for name, text in told.items() if text))
    entry.add("categories", [_CATEGORIES[row["kind"]], *(["Overdue"] if row["is_overdue"] else [])])
    entry.add("transp", "TRANSPARENT")
    return entry
