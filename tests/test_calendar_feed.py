"""The calendar feed: read again by its own library, and line by line by what RFC 5545 asks for."""

import re
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from icalendar import Calendar

from study.deadlines import DEADLINE_KINDS, derive_deadlines
from study.protocol import Study
from tasks.calendar_feed import write_calendar
from tests.approval_histories import PATHWAY, make_study, step, tell
from tests.test_approval_chasing import DUTIES, OPENED
from tests.test_deadlines import CAG, CHANGE, SENT
from tests.test_modifications import ROUTES

BASE = make_study(PATHWAY + DUTIES + ROUTES)
WRITTEN_AT = datetime(2017, 3, 26, 0, 30, 15, 987654, tzinfo=UTC)


def name(study: Study, title: str, body: str) -> Study:
    """The same study under another title, with another name for Luton's trust."""
    luton = study.find_site("luton")
    assert luton is not None
    bodies = tuple(b.model_copy(update={"name": body}) if b.id == "luton_trust" else b for b in luton.bodies)
    sites = tuple(luton.model_copy(update={"bodies": bodies}) if s is luton else s for s in study.sites)
    return study.model_copy(update={"title": title, "sites": sites})


STUDY = name(BASE, "Évaluation; «the first», ☂ of its kind", "Ysbyty Ŵyl, Trust; the \\ 1st")
FOUND = OPENED.model_copy(update={"occurred_on": date(2017, 3, 20), "found_on": date(2017, 3, 20)})
EVENTS = tell(*SENT, *CAG, *CHANGE, FOUND, step("submitted", "2017-02-01", "trust"))
DEADLINES = derive_deadlines(STUDY, EVENTS, date(2017, 3, 26), within_days=None)


def read_plainly(data: bytes) -> list[list[tuple[str, str]]]:
    """Properties of each component by the letter of the RFC, without the library: (name with parameters, raw value).

    The first list is the calendar's own. Checks what every line must meet on the way.
    """
    assert data.endswith(b"\r\n")
    assert b"\r\n" not in data.replace(b"\r\n", b"")
    assert b"\n" not in data.replace(b"\r\n", b"")
    lines = data.split(b"\r\n")[:-1]
    assert all(1 <= len(line) <= 75 for line in lines)
    assert [line.decode("utf-8") for line in lines]  # no character is cut in two by a fold
    text = re.sub(r"\r\n[ \t]", "", data.decode("utf-8"))
    components: list[list[tuple[str, str]]] = []
    open_ones: list[int] = []
    for line in text.split("\r\n")[:-1]:
        head, _, value = line.partition(":")
        assert re.fullmatch(r"[A-Z-]+(;[A-Z-]+=[^;:]+)*", head), line
        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", value), line
        if head == "BEGIN":
            components.append([("BEGIN", value)])
            open_ones.append(len(components) - 1)
        elif head == "END":
            assert components[open_ones.pop()][0] == ("BEGIN", value)
        else:
            components[open_ones[-1]].append((head, value))
    assert not open_ones
    return components


def find_rfc_faults(data: bytes) -> list[str]:
    """What RFC 5545 asks of a calendar of whole days, besides the form of lines."""
    calendar, *others = read_plainly(data)
    faults = []
    names = [head.partition(";")[0] for head, _ in calendar]
    if calendar[0] != ("BEGIN", "VCALENDAR") or names.count("PRODID") != 1 or ("VERSION", "2.0") not in calendar:
        faults.append("the calendar's own properties")
    if not others:
        faults.append("no component")
    uids = []
    for entry in (component for component in others if component[0] == ("BEGIN", "VEVENT")):
        told = dict(entry)
        once = [head.partition(";")[0] for head, _ in entry if not head.startswith("CATEGORIES")]
        if len(once) != len(set(once)):
            faults.append(f"a property twice: {entry}")
        if not {"UID", "DTSTAMP", "DTSTART;VALUE=DATE", "DTEND;VALUE=DATE", "SUMMARY"} <= told.keys():
            faults.append(f"a property is missing: {entry}")
            continue
        if not re.fullmatch(r"\d{8}T\d{6}Z", told["DTSTAMP"]):
            faults.append("DTSTAMP is not in UTC")
        first, last = (date.fromisoformat(told[f"{end};VALUE=DATE"]) for end in ("DTSTART", "DTEND"))
        if last - first != timedelta(days=1):
            faults.append("not one whole day")
        for text in (told["SUMMARY"], told["DESCRIPTION"]):
            if re.search(r"(?<!\\)(?:\\\\)*[;,]", text) or re.search(r"(?<!\\)(?:\\\\)*\\[^\\;,nN]", text):
                faults.append(f"text that is not escaped: {text}")
        uids.append(told["UID"])
    if len(uids) != len(set(uids)):
        faults.append("a UID twice")
    if any(component[0] == ("BEGIN", "VALARM") for component in others):
        faults.append("an alarm")
    return faults


def test_it_is_a_calendar_by_the_letter() -> None:
    assert find_rfc_faults(write_calendar(STUDY, DEADLINES, WRITTEN_AT)) == []
    assert len(DEADLINES) == 10


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (b"VERSION:2.0\r\n", b"", "the calendar's own properties"),
        (b"DTEND;VALUE=DATE:20170216", b"DTEND;VALUE=DATE:20170215", "not one whole day"),
        (b"DTSTAMP:20170326T003015Z", b"DTSTAMP:20170326T003015", "DTSTAMP is not in UTC"),
        (b"decision_due:rec", b"decision_due:rec\r\nUID:again", "a property twice"),
        (b"SUMMARY:Progress", b"COMMENT:Progress", "a property is missing"),
        (b"::report::2@", b"::report::1@", "a UID twice"),
        (b"\\;", b";", "text that is not escaped"),
        (b"END:VEVENT", b"BEGIN:VALARM\r\nEND:VALARM\r\nEND:VEVENT", "an alarm"),
    ],
)
def test_the_letter_is_looked_at(old: bytes, new: bytes, fault: str) -> None:
    data = write_calendar(STUDY, DEADLINES, WRITTEN_AT)
    assert old in data
    assert any(told.startswith(fault) for told in find_rfc_faults(data.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("old", "new"), [(b"\r\n ", b""), (b"\r\n", b"\n"), (b"END:VCALENDAR\r\n", b""), ("Ŵ".encode(), "Ŵ".encode()[:1])]
)
def test_the_form_of_lines_is_looked_at(old: bytes, new: bytes) -> None:
    data = write_calendar(STUDY, DEADLINES, WRITTEN_AT)
    with pytest.raises((AssertionError, UnicodeDecodeError)):
        read_plainly(data.replace(old, new))


def test_it_imports_as_it_was_meant() -> None:
    calendar: Any = Calendar.from_ical(write_calendar(STUDY, DEADLINES, WRITTEN_AT))
    assert calendar.errors == []
    assert (str(calendar["version"]), str(calendar["x-wr-calname"])) == ("2.0", f"{STUDY.title}: deadlines")
    assert str(calendar["prodid"]) == "-//Summative//Deadlines//EN"
    entries = {str(entry["uid"]): entry for entry in calendar.walk("VEVENT")}
    assert list(entries) == [f"{uid}@summative" for uid in DEADLINES["uid"]]
    assert [entry["dtstart"].dt for entry in entries.values()] == [on.date() for on in DEADLINES["on"]]
    late = entries["trial:decision_due:trust:luton:luton_trust:::::1@summative"]
    assert late.errors == []
    assert (
        str(late["summary"])
        == "Overdue: Capacity and capability: the decision is due, Ysbyty Ŵyl, Trust; the \\ 1st (Luton)"
    )
    assert late["dtstart"].dt == date(2017, 2, 15)  # it stays on its day
    assert late["dtend"].dt == date(2017, 2, 16)
    assert late["dtstamp"].dt == datetime(2017, 3, 26, 0, 30, 15, tzinfo=UTC)
    assert [str(one) for one in late["categories"].cats] == ["Decision", "Overdue"]
    assert str(late["description"]) == (
        "Study: Évaluation; «the first», ☂ of its kind\nPlace: Ysbyty Ŵyl, Trust; the \\ 1st (Luton)\n"
        "Who has to act: R&D office"
    )
    silent = entries["trial:implied_start:trust:luton:luton_trust::M1:::1@summative"]
    assert str(silent["description"]).endswith("\nModification: M1")
    assert [str(one) for one in silent["categories"].cats] == ["Modification"]
    report = entries["trial:duty::::::report::1@summative"]
    assert str(report["summary"]) == "Progress report (to: Funder)"
    assert "Who has to act: project manager" in str(report["description"])


def test_the_same_input_gives_the_same_bytes() -> None:
    first = write_calendar(STUDY, DEADLINES, WRITTEN_AT)
    assert write_calendar(STUDY, DEADLINES.copy(), WRITTEN_AT) == first
    elsewhere = WRITTEN_AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert write_calendar(STUDY, DEADLINES, elsewhere) == first
    later = write_calendar(STUDY, DEADLINES, WRITTEN_AT + timedelta(days=1))
    assert later.replace(b"DTSTAMP:20170327T", b"DTSTAMP:20170326T") == first  # nothing else moves with the hour
    with pytest.raises(ValueError, match="time zone"):
        write_calendar(STUDY, DEADLINES, WRITTEN_AT.replace(tzinfo=None))


@pytest.mark.parametrize("written_at", [WRITTEN_AT, datetime(2024, 2, 29, 12, tzinfo=UTC)])
def test_an_empty_calendar_is_one_too(written_at: datetime) -> None:
    data = write_calendar(STUDY, DEADLINES.iloc[:0], written_at)
    assert find_rfc_faults(data) == []
    calendar: Any = Calendar.from_ical(data)
    assert calendar.walk("VEVENT") == []
    assert data == write_calendar(STUDY, DEADLINES.iloc[:0], written_at)


WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=120)


@settings(max_examples=60, deadline=None)
@given(title=WORDS, body=WORDS, on=st.dates(date(2016, 1, 1), date(2040, 12, 31)), kind=st.sampled_from(DEADLINE_KINDS))
def test_any_names_and_days_survive(title: str, body: str, on: date, kind: str) -> None:
    study = name(BASE, title, body)
    row = DEADLINES.loc[DEADLINES["body_id"] == "luton_trust"].iloc[[0]].assign(kind=kind)
    row["on"] = pd.Series([pd.Timestamp(on)], row.index, dtype="datetime64[us]")
    data = write_calendar(study, row, WRITTEN_AT)
    assert find_rfc_faults(data) == []
    calendar: Any = Calendar.from_ical(data)
    (entry,) = calendar.walk("VEVENT")
    assert str(calendar["x-wr-calname"]) == f"{title}: deadlines"
    assert body in str(entry["summary"])
    assert (entry["dtstart"].dt, entry["dtend"].dt) == (on, on + timedelta(days=1))
