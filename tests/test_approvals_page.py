"""The project manager's page: what it says, whether everyone can read it, and that nothing vanishes from it."""

import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest

from study.approval_chasing import derive_approval_chasers
from study.deadlines import derive_deadlines
from study.events import Event
from study.forecast import forecast_openings
from study.pathway import Pathway
from study.position import derive_position
from study.protocol import Study
from study.state import Events
from tasks.approvals_page import write_approvals_page
from tests.approval_histories import make_study, step
from tests.conftest import give_up
from tests.services import ServiceMissing
from tests.test_pages import browser, look_at, read_text
from tests.test_position import (
    LATE_INCIDENT,
    TODAY,
    load_ipc,
    make_incidents,
    play_until,
    tell_in_time,
)

__all__ = ["browser"]
SECTIONS = ("today", "timeline", "sites", "deadlines", "modifications", "path", "incidents")


def write_page(study: Study, events: Events, as_of: date, incidents: pd.DataFrame) -> str:
    if study is load_ipc() and events.tables:
        _, forecast = play_until()
    else:
        forecast = forecast_openings(study, events, as_of, n_draws=100)
    deadlines = derive_deadlines(study, events, as_of)
    return write_approvals_page(
        study=study,
        events=events,
        as_of=as_of,
        written_at=datetime(as_of.year, as_of.month, as_of.day, 22, 30, tzinfo=UTC),
        position=derive_position(study, events, as_of, forecast, deadlines, incidents),
        forecast=forecast,
        deadlines=deadlines,
        incidents=incidents,
        chasers=derive_approval_chasers(study, events, as_of),
    ).decode()


@pytest.fixture(scope="module")
def played() -> str:
    return write_page(load_ipc(), play_until()[0], TODAY, make_incidents(LATE_INCIDENT))


@pytest.fixture(scope="module")
def empty() -> str:
    """Before anything was sent in."""
    return write_page(load_ipc(), Events({}), date(2016, 11, 1), make_incidents())


def read_section(page: str, name: str) -> str:
    start = page.index(f'<h2 id="{name}"')
    end = page.find('<h2 id="', start + 1)
    return read_text(page[start : end if end > 0 else page.index("</main>")])


def read_site(page: str, site_id: str) -> str:
    start = page.index(f'id="site-{site_id}"')
    following = [place for mark in ('<details class="site"', "<h2 ") if (place := page.find(mark, start)) > 0]
    return read_text("<" + page[start : min(following)])


def test_the_first_screen_says_where_we_stand(played: str) -> None:
    text = read_section(played, "today")
    assert "1 suspended: Luton 1 blocked: Nottingham City" in text
    assert "11 people have consented so far, at 2 sites. 7 of them at sites that are suspended now: Luton." in text
    first = text[text.index("What to do first") : text.index("What changed")]
    assert "East London NHS Foundation Trust (Luton): it ran out, 9 July 2017 was its last day" in first
    assert "Nottingham City Council (Nottingham City): refused on 23 June 2017" in first
    changed = text[text.index("What changed since 5 July 2017") :]
    assert "Suspended: approaching people and recruiting; Luton (10 Jul 2017)" in changed
    assert re.search(
        r"Agreed by silence: Confirmation of capacity and capability, modification SA01; 7\d bodies", changed
    )
    for word in ("Open", "Partly open", "Waiting", "Suspended", "Blocked", "At risk"):
        assert re.search(rf"<dt>{word}</dt><dd>[^<]+\.</dd>", played)


def test_every_site_has_a_lane_with_words(played: str) -> None:
    study = load_ipc()
    for site in study.sites:
        title = re.search(rf'<title id="lane-{site.site_id}-t">([^<]+)</title><desc [^>]*>([^<]+)</desc>', played)
        assert title is not None
        assert read_text(title[1]) == site.name
        assert "sent in from" in title[2]
    luton = re.search(r'<desc id="lane-luton-d">([^<]+)</desc>', played)
    assert luton is not None
    assert "open 5 Jul 2017 to 9 Jul 2017; suspended 10 Jul 2017 to 12 Jul 2017" in luton[1]


def test_drawings_are_well_formed_and_keep_within_their_width(played: str) -> None:
    drawings = re.findall(r'<svg height="\d+" role="img".*?</svg></li>', played, flags=re.DOTALL)
    assert len(drawings) > 200
    for drawing in drawings:
        root = ET.fromstring(drawing.removesuffix("</li>"))
        assert [part.tag for part in root[:2]] == ["title", "desc"]
        assert root.get("aria-labelledby") == f"{root[0].get('id')} {root[1].get('id')}"
        for part in root.iter("rect"):
            x, width = (float(str(part.get(name)).removesuffix("%")) for name in ("x", "width"))
            assert 0 <= x <= 100
            assert width > 0
            assert x + width <= 100.26
    ids = re.findall(r' id="([^"]+)"', played)
    assert len(ids) == len(set(ids))


def test_a_site_says_what_it_lacks_and_under_which_bodies_it_is_open(played: str) -> None:
    blocked = read_site(played, "nottingham_city")
    assert (
        "closed under Nottingham City Council. Missing: Research governance approval of the council (refused)"
        in blocked
    )
    assert "No date: something it needs was refused and has not been sent in again." in blocked
    assert "Approaching people and recruiting: suspended since 10 Jul 2017" in read_site(played, "luton")
    waiting = read_site(played, "tower_hamlets")
    assert "Sponsor's green light The site not sought yet Study team" in waiting
    assert "Section 251 support The study information requested; clock stopped Study team 20 Jun 2017 42 of 60" in (
        read_section(played, "sites")
    )


def test_what_is_ahead_and_in_progress(played: str) -> None:
    deadlines = read_section(played, "deadlines")
    assert (
        "2 Aug 2017 21 days Confirmation of capacity and capability: last day of force NHS Sheffield CCG" in deadlines
    )
    changes = read_section(played, "modifications")
    assert "SA01 category A, substantial, introduced on 2 May 2017" in changes
    assert re.search(
        r"Of 96 bodies asked, 3 agreed, 7\d by silence; \d+ still to answer; 1 objected: NHS Luton CCG", changes
    )
    assert "NSA02 category C, not substantial" in changes
    assert "It may start nowhere yet." in changes
    assert re.search(r"Participant information sheet 1\.1 1 Islington Participant information sheet 1\.0 16", changes)
    assert "luton-I0001 Collected while not open Luton, East London NHS Foundation Trust" in read_section(
        played, "incidents"
    )
    path = read_section(played, "path")
    assert "Nottingham City No date" in path
    assert re.search(r"Hampshire .* \(\d+ %\)", path)


def test_sections_without_content_say_so(empty: str) -> None:
    for section in SECTIONS:
        assert len(read_section(empty, section)) > 40
    today = read_section(empty, "today")
    assert "0 of 17 open" in today
    assert "Nobody has consented yet." in today
    assert "No approval moved, and no site opened or closed." in today
    assert "No forecast was on record a week ago to compare with." in today
    assert "No modification has been introduced." in read_section(empty, "modifications")
    assert "No incident is open." in read_section(empty, "incidents")
    assert "Participant information sheet none 17 every site" in read_section(empty, "modifications")


def test_a_study_that_has_everything_lacks_nothing() -> None:
    told: list[Event] = []
    places = {"luton": ("luton_council", "luton_trust"), "devon": ("devon_council", "devon_partnership")}
    study = make_study()
    for approval in ("rec", "adass"):
        told += [step("submitted", "2017-01-02", approval), step("granted", "2017-02-01", approval)]
    for site in study.sites:
        told += [step(name, "2017-02-01", "green_light", site_id=site.site_id) for name in ("submitted", "granted")]
        for body in site.bodies:
            for approval, kind in (("council", "council"), ("trust", "nhs_trust")):
                if body.kind == kind:
                    about = {"site_id": site.site_id, "body_id": body.id}
                    told += [step(name, "2017-02-01", approval, **about) for name in ("submitted", "granted")]
    assert set(places) == {site.site_id for site in study.sites}
    page = write_page(study, tell_in_time(told), date(2017, 3, 1), make_incidents())
    assert "2 of 2 open" in read_section(page, "today")
    assert "Every approval of its own is in force." in read_site(page, "luton")
    assert "Every site is open." in read_section(page, "path")
    assert "a slip of approvals would cost no recruiting" in read_section(page, "timeline")


def test_a_study_without_a_pathway_has_a_page() -> None:
    page = write_page(
        make_study().model_copy(update={"pathway": Pathway()}), Events({}), date(2017, 3, 1), make_incidents()
    )
    assert "0 of 2 open" in read_section(page, "today")
    assert "The study itself needs no approval of its own." in read_section(page, "timeline")
    assert "Missing: the pathway does not plan it." in read_site(page, "luton")


@pytest.mark.parametrize("which", ["played", "empty"])
def test_nothing_comes_from_outside_and_no_id_is_shown(request: pytest.FixtureRequest, which: str) -> None:
    page = request.getfixturevalue(which)
    assert not re.search(r"<(script|link|img|iframe)|https?://", page)
    ids = set(re.findall(r' id="([^"]+)"', page))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= ids
    assert set(re.findall(r"url\(#(\w+)\)", page)) <= ids
    study = load_ipc()
    names = {body.id for site in study.sites for body in site.bodies} | {entry.id for entry in study.pathway.approvals}
    text = read_text(page)
    assert not [name for name in names if "_" in name and name in text]
    assert len(page) < 800_000


def test_labels_are_shown_as_they_are() -> None:
    study = make_study()
    approvals = tuple(
        entry.model_copy(update={"label": "<b>Green & light</b>"}) if entry.id == "green_light" else entry
        for entry in study.pathway.approvals
    )
    study = study.model_copy(update={"pathway": study.pathway.model_copy(update={"approvals": approvals})})
    page = write_page(study, tell_in_time([step("submitted", "2017-01-02")]), date(2017, 3, 1), make_incidents())
    assert "&lt;b&gt;Green &amp; light&lt;/b&gt;" in page
    assert "<b>Green" not in page


@pytest.mark.parametrize("which", ["played", "empty"])
def test_everyone_can_use_the_page_and_it_fits_a_phone(
    request: pytest.FixtureRequest, browser: Path, tmp_path: Path, which: str
) -> None:
    judged = look_at(browser, request.getfixturevalue(which), tmp_path)
    for width in ("1280", "375"):
        assert judged[width]["violations"] == []
        assert int(str(judged[width]["width"])) <= int(width)
        assert int(str(judged[width]["passes"])) > 10


def test_paper_shows_what_the_screen_folds(played: str, browser: Path, tmp_path: Path) -> None:
    if shutil.which("pdftotext") is None:
        give_up(ServiceMissing("pdftotext is not on this machine. Install it: apt-get install poppler-utils."))
    (tmp_path / "page.html").write_text(played, "utf-8")
    command = [
        str(browser), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}", "--no-pdf-header-footer",
        f"--print-to-pdf={tmp_path / 'page.pdf'}", (tmp_path / "page.html").as_uri(),
    ]  # fmt: skip
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    done = subprocess.run(["pdftotext", str(tmp_path / "page.pdf"), "-"], capture_output=True, timeout=60, check=True)
    paper = " ".join(done.stdout.decode().split())
    assert "Something that was open there" in paper
    assert "Cambridgeshire Community Services NHS Trust" in paper  # a body in a site's own part
