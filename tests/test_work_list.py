"""The coordinator's list and page: what waits today, in the right order, readable by everybody."""

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from study.events import (
    ActivityReported,
    DispositionRecorded,
    Event,
    MessageBounced,
    MessageClaimed,
    MessageQueued,
    MessageSent,
    MessageTransmitting,
    PackClaimed,
    ReplyHandled,
    ReplyReceived,
)
from study.state import Events
from study.work_list import KIND_WORDS, Work, derive_differing_figures, derive_work_list
from tasks.fieldwork_page import write_fieldwork_page
from tests.approval_histories import tell
from tests.release_studies import BY, FIELDWORK, answer, grant, identify, join, make_study
from tests.test_pages import browser, look_at, read_tables, read_text

__all__ = ["browser"]
SHA = "a" * 64
JULY_3, DAY = date(2017, 7, 3), date(2017, 7, 10)
OPEN = grant("luton", "devon")
STUDY = make_study(
    FIELDWORK
    + """
[[chasing]]
weekly_digests = 2
answer_days = 10
coordinator = "fieldwork_coordinator"
manager = "project_manager"

[[targets]]
measure = "baseline"
n = 40
from_on = 2017-07-01
by = 2017-12-31
source = "Made up."

[[burdens]]
work = "questionnaire"
minutes = 30
source = "Made up."
"""
)


def on(day: date, kind: type[Event], site: str = "luton", **fields: Any) -> Event:
    return kind(occurred_on=day, requested_by=BY, site_id=site, **fields)


def queued(message: str = "m1", site: str = "luton") -> Event:
    return on(
        DAY, MessageQueued, site, message_id=message, category="digest", person_id="l1", role="site_researcher",
        channel="email", template="digest", content_sha256=SHA, address_code="a1",
    )  # fmt: skip


def steps(*kinds: type[Event], message: str = "m1") -> list[Event]:
    way = {MessageTransmitting: {"way": "smtp"}}
    return [on(DAY, kind, message_id=message, **way.get(kind, {})) for kind in kinds]


def list_work(*told: Event, as_of: date = DAY) -> list[Work]:
    return derive_work_list(STUDY, tell(*told), as_of)


def test_nothing_waits_in_a_study_that_has_not_begun() -> None:
    assert derive_work_list(STUDY, Events({}), DAY) == []


def test_an_uncertain_message_comes_first_and_names_the_command() -> None:
    told = [*OPEN, *join([1], JULY_3), queued(), *steps(MessageClaimed, MessageTransmitting)]
    first, *others = list_work(*told)
    assert (first.kind, first.site_id, first.since) == ("uncertain", "luton", DAY)
    assert "summative messages resolve trial m1" in first.action
    assert all(entry.kind != "uncertain" for entry in others)
    assert all(entry.kind != "uncertain" for entry in list_work(*told, *steps(MessageSent)))


def test_a_wrong_address_waits_until_it_is_mended() -> None:
    sent = [queued(), *steps(MessageClaimed, MessageTransmitting, MessageSent)]
    late = on(DAY, MessageBounced, message_id="m1", address_code="a1", persistence="temporary", status="4.2.2")
    assert [entry.kind for entry in list_work(*sent, late)] == []
    gone = on(DAY, MessageBounced, message_id="m1", address_code="a1", persistence="permanent", status="5.1.1")
    [entry] = list_work(*sent, gone)
    assert (entry.kind, entry.site_id, entry.text) == ("address", "luton", "Mail to the site researcher came back")


def test_replies_of_a_site_are_one_entry_and_absence_notices_none() -> None:
    replies = [on(DAY - timedelta(days=n), ReplyReceived, reply_code=f"r{n}", message_id="m1") for n in (0, 3)]
    automatic = on(DAY, ReplyReceived, reply_code="auto", is_automatic=True)
    [entry] = list_work(*replies, automatic)
    assert (entry.kind, entry.n, entry.text, entry.since) == ("reply", 2, "2 replies", DAY - timedelta(days=3))
    handled = [on(DAY, ReplyHandled, reply_code=code) for code in ("r0", "r3")]
    assert list_work(*replies, automatic, *handled) == []


def test_a_wave_that_waits_for_a_word_says_how_to_see_it() -> None:
    [entry] = list_work(*OPEN, *join(range(1, 4), JULY_3))
    assert (entry.kind, entry.site_id, entry.n) == ("release", "luton", 3)
    assert entry.text.startswith("Baseline: 3 questionnaires can go out. This wave goes out only when")
    assert entry.action == "See what would go: `summative waves release trial --wave baseline --site luton`."


def test_what_is_held_is_bundled_by_reason_and_what_nobody_can_mend_is_left_out() -> None:
    closed = list_work(*join(range(1, 4), JULY_3))
    assert [(entry.kind, entry.n) for entry in closed] == [("held", 3)]
    assert "the site is not open for this" in closed[0].text
    died = on(DAY, DispositionRecorded, participant_id=identify(1), scope="study", reason="died")
    assert [(entry.kind, entry.n) for entry in list_work(*OPEN, *join([1, 2], JULY_3), died)] == [("release", 1)]


def test_a_pack_that_was_claimed_and_not_delivered_is_told() -> None:
    claim = on(
        DAY, PackClaimed, pack_id="luton-2017-07-10-1", purpose="blank", sha256=SHA, file_name="a.xlsx",
        protocol_version="1",
    )  # fmt: skip
    [entry] = list_work(claim)
    assert (entry.kind, entry.site_id) == ("undelivered", "luton")


def report(n: int, to: str, version: int = 1) -> Event:
    return on(DAY, ActivityReported, figure="plans", month="2017-07", reported_to=to, version=version, count=n)


@pytest.mark.parametrize(
    ("told", "differing"),
    [
        ([report(48, "evaluation")], []),
        ([report(48, "evaluation"), report(48, "nhs_england")], []),
        ([report(48, "evaluation"), report(61, "nhs_england")], [(48, 61)]),
        ([report(48, "evaluation"), report(61, "nhs_england"), report(61, "evaluation", 2)], []),
        ([report(61, "evaluation"), report(61, "nhs_england"), report(1048, "nhs_england", 2)], [(61, 1048)]),
    ],
)
def test_figures_are_compared_by_their_latest_versions(told: list[Event], differing: list[tuple[int, int]]) -> None:
    found = derive_differing_figures(tell(*told), DAY)
    assert list(found[["evaluation", "nhs_england"]].itertuples(index=False, name=None)) == differing
    assert [entry.kind for entry in list_work(*told)] == ["figures"] * len(differing)


def test_how_a_site_counts_is_asked_once_whatever_the_months() -> None:
    """Both counts may be right: they have rules of their own."""
    later = [
        on(DAY, ActivityReported, figure="plans", month="2017-08", reported_to=to, version=1, count=n)
        for to, n in (("evaluation", 50), ("nhs_england", 1063))
    ]
    [entry] = list_work(report(48, "evaluation"), report(61, "nhs_england"), *later)
    assert (entry.kind, entry.n) == ("figures", 2)
    assert entry.text.endswith("2 months, the last 2017-08: 50 told to us, 1,063 to NHS England")
    assert entry.action.startswith("Both may be right. Ask the site once how it counts each")


# The page -----------------------------------------------------------------------------------------------------------


def write(events: Events, as_of: date = DAY, banner: str = "") -> str:
    written_at = datetime(as_of.year, as_of.month, as_of.day, 6, 30, tzinfo=UTC)
    return write_fieldwork_page(STUDY, events, as_of, written_at, banner).decode()


@pytest.fixture(scope="module")
def full() -> str:
    return write(
        tell(
            *OPEN, *join(range(1, 6), JULY_3), *answer(range(1, 3), "baseline", JULY_3), queued(),
            *steps(MessageClaimed, MessageTransmitting), report(48, "evaluation"), report(61, "nhs_england"),
        ),
        banner="A rehearsal.",
    )  # fmt: skip


def test_the_page_counts_what_is_in(full: str) -> None:
    tables = read_tables(full)
    [matrix] = [rows for caption, rows in tables.items() if caption.startswith("Questionnaires in")]
    assert matrix[0][0] == "Site"
    row = dict(zip(matrix[0], matrix[1], strict=True))
    assert row["Site"] == "Luton"
    assert row["Baseline"].startswith("2 of 5")
    text = read_text(full)
    assert "People with a baseline : 2 by 10 July 2017" in text
    assert "A rehearsal." in text
    assert tables["Work of each site so far"][1][-1] == "1.0"  # two questionnaires of half an hour


def test_each_kind_of_work_has_its_heading_in_order(full: str) -> None:
    today = full[full.index('<h2 id="today"') : full.index('<h2 id="matrix"')]
    found = [words for words in KIND_WORDS.values() if f"<h3>{words} " in today]
    assert found == ["Message uncertain", "Ready to send", "Figures differ"]
    places = [today.index(f"<h3>{words} ") for words in found]
    assert places == sorted(places)


def test_an_empty_study_says_so() -> None:
    text = read_text(write(Events({})))
    for sentence in (
        "Nothing waits for you today.", "No questionnaire is expected of anybody yet.", "No due day moved.",
        "Nobody has been chased so far.", "Sites have had no work with the study so far.",
    ):  # fmt: skip
        assert sentence in text


@pytest.mark.parametrize("which", ["full", "empty"])
def test_everyone_can_use_the_page_and_it_fits_a_phone(full: str, browser: Path, tmp_path: Path, which: str) -> None:
    page = full if which == "full" else write(Events({}))
    assert not re.search(r"<(script|link|img|iframe)|https?://", page)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(re.findall(r' id="([^"]+)"', page))
    judged = look_at(browser, page, tmp_path)
    for width in ("1280", "375"):
        assert judged[width]["violations"] == []
        assert int(str(judged[width]["width"])) <= int(width)
        assert int(str(judged[width]["passes"])) > 10
