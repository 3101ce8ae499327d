"""The page of returns and checks: what it counts and lists, and whether everyone can read it."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from study.events import Event, FileHeld, QueryAnswered, QueryClosed, QueryRaised, ReturnFileProcessed, Voided
from study.pack_layout import derive_return_layout
from study.state import Events
from tasks.definitions import load_instruments, load_study
from tasks.returns_page import write_returns_page
from tests.test_pages import browser, look_at, read_tables, read_text
from tests.test_state import tell

__all__ = ["browser"]
DAY = date(2018, 3, 5)
STUDY = load_study("ipc")
LAYOUT = derive_return_layout(STUDY, load_instruments(STUDY))


def write_page(*events: Event, as_of: date = DAY, banner: str = "") -> str:
    written_at = datetime(as_of.year, as_of.month, as_of.day, 22, 30, tzinfo=UTC)
    view = tell(*events) if events else Events({})
    return write_returns_page(
        study=STUDY, layout=LAYOUT, events=view, as_of=as_of, written_at=written_at, banner=banner
    ).decode()


def who(days_ago: int, site_id: str = "luton") -> dict[str, Any]:
    return {"occurred_on": DAY - timedelta(days=days_ago), "requested_by": "round", "site_id": site_id}


def asked(number: int, days_ago: int, site_id: str = "luton", **rest: Any) -> QueryRaised:
    place = {"rule": "date_missing", "severity": "hard", "sheet": "consent", "column_name": "consented_on", "row": 3}
    place |= {"return_id": f"{site_id}-2018-02-02-1"} | rest
    return QueryRaised(**who(days_ago, site_id), query_id=f"{site_id}-{number:04d}", subject=f"x{number}", **place)


def answered(query_id: str, days_ago: int, answer: Any) -> QueryAnswered:
    return QueryAnswered(**who(days_ago, query_id[:-5]), query_id=query_id, answer=answer)


def closed(query_id: str, days_ago: int, reason: Any) -> QueryClosed:
    return QueryClosed(**who(days_ago, query_id[:-5]), query_id=query_id, reason=reason)


def file(number: int, days_ago: int, outcome: Any, site_id: str = "luton", **rest: Any) -> ReturnFileProcessed:
    return_id = f"{site_id}-2018-02-02-{number}"
    return ReturnFileProcessed(
        **who(days_ago, site_id), sha256=f"{number:064d}", return_id=return_id, size_bytes=9, outcome=outcome, **rest
    )


def make_history() -> list[Event]:
    soft = {"rule": "capacity_not_assessed", "severity": "soft", "column_name": "capacity"}
    of_item = {"rule": "level_unknown", "sheet": "eq5d5l", "instrument": "eq5d5l", "item": "eq5d5l_ua"}
    return [
        asked(1, 60, participant_id="LUT-P00013"), asked(2, 40), asked(3, 20, **soft), asked(4, 3, **of_item),
        asked(5, 70, **soft), asked(6, 70), asked(7, 70),
        asked(1, 9, "somerset"),
        answered("luton-0002", 12, "cannot_say"), answered("luton-0005", 30, "confirmed"),
        closed("luton-0005", 25, "confirmed"), closed("luton-0006", 25, "mended"),
        closed("luton-0007", 25, "withdrawn"),
        file(1, 60, "accepted_in_part", n_accepted=3, n_refused=1, n_queries=2),
        file(2, 40, "accepted", n_accepted=4, n_repeated=2),
        file(3, 3, "quarantined", reason="about_incomplete"),
        file(4, 9, "accepted", "somerset", n_accepted=1),
        FileHeld(
            **who(2), held_id="luton-F0001", sha256="f" * 64, size_bytes=9, kept="encrypted",
            return_id="luton-2018-03-02-1", identifiers=("name",), places=("consent A4 cell name",), n_places=1,
        ),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def full() -> str:
    return write_page(*make_history())


@pytest.fixture(scope="module")
def empty() -> str:
    return write_page()


def test_queries_are_counted_by_site_age_and_who_acts(full: str) -> None:
    _, *rows = read_tables(full)["Queries by site"]
    counted = {row[0]: row[1:] for row in rows}
    # open, must be mended, five bands of age, the oldest, with the site, answered, mended, confirmed, withdrawn
    assert counted["Luton"] == ["4", "3", "1", "0", "1", "1", "1", "60", "3", "1", "1", "1", "1"]
    assert counted["Islington"] == ["0"] * 7 + ["–"] + ["0"] * 5
    assert counted["All"][:2] == ["5", "4"]


def test_what_a_site_answered_waits_for_the_study(full: str) -> None:
    [head, row] = read_tables(full)["Queries that a site has answered"]
    assert head[5:] == ["The site says", "On", "Days old"]
    assert row == ["luton-0002", "Luton", "–", "2018-02-02-1, Consent, row 3, column Signed on", "The date is missing.",
                   "nobody can say", "21 Feb 2018", "40"]  # fmt: skip
    assert 'summative close-query ipc QUERY --reason confirmed --by "Your Name"' in read_text(full)


def test_what_is_wrong_is_counted_by_rule_and_site_and_confirmed_values_are_listed(full: str) -> None:
    head, *rows = read_tables(full)["Queries raised, by rule and site"]
    assert head[:5] == ["What is wrong", "Importance", "Raised", "Still open", "LUT"]
    assert {tuple(row[1:5]) for row in rows} >= {("please check", "2", "1", "2"), ("must be mended", "1", "1", "1")}
    [_, row] = read_tables(full)["Values that are confirmed as they are"]
    assert (row[0], row[-1]) == ("luton-0005", "8 Feb 2018")


def test_files_are_shown_by_site_and_day_with_what_became_of_them(full: str) -> None:
    _, *rows = read_tables(full)["Files received by site"]
    assert next(row for row in rows if row[0] == "Luton") == ["Luton", "3", "1", "1", "0", "1", "7", "1", "2 Mar 2018"]
    _, *rows = read_tables(full)["The newest files, day by day"]
    put_aside = next(row for row in rows if row[2] == "2018-02-02-3")
    assert put_aside[4] == "put aside: The sheet About is incomplete or cannot be understood."
    [_, row] = read_tables(full)["Files held because they may tell who a person is"]
    assert row[:1] + row[3:] == ["luton-F0001", "2018-03-02-1", "a name", "1", "an encrypted copy"]


def test_what_waits_for_the_study_comes_first(full: str) -> None:
    work = full[full.index('<h2 id="first"') : full.index('<h2 id="sites"')]
    assert re.findall(r"<p><strong>([^<]+)</strong></p>", work) == [
        "Review them: release or erase.", "Look at each: close it, or put it again.", "Telephone the site.",
        "Ask whether they can read the receipt.",
    ]  # fmt: skip


def test_a_page_of_an_earlier_day_shows_what_stood_then() -> None:
    page = write_page(*make_history(), as_of=DAY - timedelta(days=26))
    counted = {row[0]: row[1:] for row in read_tables(page)["Queries by site"][1:]}
    assert counted["Luton"][0] == "5"
    reopened = Voided(**who(0), voids=f"{11:064x}", reason="reopened")
    again = write_page(*make_history(), reopened)
    assert {row[0]: row[9] for row in read_tables(again)["Queries by site"][1:]}["Luton"] == "3"


def test_much_is_cut_and_says_so() -> None:
    page = write_page(*(asked(n, 10) for n in range(1, 61)), *(file(n, n, "accepted") for n in range(1, 50)))
    assert len(read_tables(page)["Luton: each open query"]) == 51
    assert "10 more: summative queries ipc --site luton lists them all." in read_text(page)
    assert "The newest 40 of 49." in read_text(page)


def test_an_empty_study_says_so(empty: str) -> None:
    text = read_text(empty)
    for sentence in ("Nothing waits for you here.", "No answer waits.", "Nothing was found wrong.", "No file has come.",
                     "No file waits for a decision.", "No query is open."):  # fmt: skip
        assert sentence in text


@pytest.mark.parametrize("which", ["full", "empty"])
def test_nothing_comes_from_outside_and_links_lead_somewhere(request: pytest.FixtureRequest, which: str) -> None:
    page = request.getfixturevalue(which)
    assert not re.search(r"<(script|link|img|iframe)|https?://", page)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(re.findall(r' id="([^"]+)"', page))
    assert not re.findall(r'href="([^#"]+)"', page), "which pages there are is known once they are written"
    assert set(re.findall(r"\b[a-z]+_[a-z_]+\b", read_text(page))) <= {"eq5d5l_ua"}  # codes of an instrument alone


def test_a_banner_stands_above_all(empty: str) -> None:
    text = read_text(write_page(banner="Rehearsal: these people are invented."))
    assert text.index("these people are invented") < text.index("What to do first", text.index("Query by query"))
    assert "invented" not in read_text(empty)


@pytest.mark.parametrize("which", ["full", "empty"])
def test_everyone_can_use_the_page_and_it_fits_a_phone(
    request: pytest.FixtureRequest, browser: Path, tmp_path: Path, which: str
) -> None:
    judged = look_at(browser, request.getfixturevalue(which), tmp_path)
    for width in ("1280", "375"):
        assert judged[width]["violations"] == []
        assert int(str(judged[width]["width"])) <= int(width)
        assert int(str(judged[width]["passes"])) > 10
