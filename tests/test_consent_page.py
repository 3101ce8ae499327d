"""The page of consent: what it says of each site and person, and whether everyone can read it."""

import re
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from study.consent import derive_consent_incidents
from study.events import Event, IncidentAssessed, IncidentOpened
from study.protocol import Study
from study.state import Events
from tasks.consent_page import write_consent_page
from tests.approval_histories import tell
from tests.consent_histories import collected, left, looked, make_study, signed
from tests.test_pages import browser, look_at, read_tables, read_text

__all__ = ["browser"]
DAY = date(2018, 3, 5)


def write_page(study: Study, events: Events, as_of: date = DAY, banner: str = "") -> str:
    written_at = datetime(as_of.year, as_of.month, as_of.day, 22, 30, tzinfo=UTC)
    return write_consent_page(study=study, events=events, as_of=as_of, written_at=written_at, banner=banner).decode()


def make_history() -> list[Event]:
    """Ten people at two sites: each fault, each state of a form, several ways of leaving."""
    own = ("questionnaires", "linkage")
    told: list[Event] = [
        signed("2017-09-01", "LUT-001", copy_filed="yes", scopes=own), collected("2017-09-04", person="LUT-001"),
        signed("2017-09-05", "LUT-002", copy_filed="yes"), collected("2017-09-04", person="LUT-002"),
        looked("2017-10-02", "seen", person="LUT-002"),
        signed("2018-02-26", "LUT-003", form_version="2.0"),
        signed("2018-02-05", "LUT-004", copy_filed="no"), collected("2018-02-05", person="LUT-004"),
        signed("2017-09-01", "LUT-005", route="parent", sixteen_in="2017-09"),
        signed("2017-09-01", "DEV-001", route="consultee", scopes=own), collected("2017-09-01", person="DEV-001"),
        looked("2017-10-02", "missing", person="DEV-001"),
        signed("2017-09-01", "DEV-002", route="parent", sixteen_in="2018-03", copy_filed="yes"),
        looked("2018-02-20", "faulty", person="DEV-002"), collected("2017-09-08", person="DEV-002"),
        collected("2017-09-08", person="DEV-003"),
        signed("2017-09-01", "DEV-004", copy_filed="yes"), left("2018-01-10", "questionnaires", person="DEV-004"),
        signed("2017-09-01", "DEV-005", copy_filed="yes", scopes=own), left("2018-01-11", "study", "died", "DEV-005"),
        left("2018-01-12", "linkage", person="LUT-001"), left("2018-01-12", "post", "moved", person="LUT-002"),
    ]  # fmt: skip
    incidents = [
        incident.model_copy(update={"incident_id": f"luton-I{number:04d}"})
        for number, incident in enumerate(derive_consent_incidents(make_study(), tell(*told), DAY, "procedure"), 1)
    ]
    assessed = IncidentAssessed(
        occurred_on=DAY, requested_by="Siân", site_id="luton", incident_id="luton-I0001", outcome="no_breach",
        role="sponsor", reference="S-1",
    )  # fmt: skip
    return [*told, *incidents, assessed]


@pytest.fixture(scope="module")
def full() -> str:
    return write_page(make_study(), tell(*make_history()))


@pytest.fixture(scope="module")
def empty() -> str:
    return write_page(make_study(), Events({}))


def test_each_site_is_counted(full: str) -> None:
    head, *rows = read_tables(full)["Consents and forms by site"]
    assert head[1:4] == ["Consented", "May be sent question\xadnaires", "May be linked"]
    counted = {row[0]: [int(n) for n in row[1:]] for row in rows}
    # consented, questionnaires, linkage, form held, seen, missing, faulty, not told, overdue, anew, faults, incidents
    assert counted == {
        "Devon": [4, 2, 1, 2, 0, 1, 1, 0, 1, 1, 1, 0],
        "Luton": [5, 4, 0, 1, 1, 1, 0, 2, 2, 1, 3, 1],
        "All": [9, 6, 1, 3, 1, 2, 1, 2, 3, 2, 4, 1],
    }


def test_what_to_do_comes_first_the_gravest_first(full: str) -> None:
    work = full[full.index('<h2 id="first"') : full.index('<h2 id="sites"')]
    entries = [read_text(entry) for entry in re.findall(r"<li.*?</li>", work, flags=re.DOTALL)]
    assert entries[0] == (
        "May be a breach. Answers were collected before consent was given: 1 (Luton 1). Have the site check both dates "
        "against the papers; the sponsor assesses the incident."
    )
    assert [entry.partition(":")[0] for entry in entries[1:]] == [
        "A consultee advised, and no assessment of capacity is recorded",
        "Signed on a version of the form that had been replaced",
        "Consent was to be given anew, and was not",
        "Collected, and no consent is on record",
        "The signed form should be filed by now, and is missing, faulty or not told of",
        "Consent runs out soon",
    ]
    assert "(Devon 1 and Luton 2)" in entries[5]


def test_stops_are_told_by_reason_and_by_site(full: str) -> None:
    tables = read_tables(full)
    assert {row[0]: row[1:] for row in tables["What has stopped, by reason"][1:]} == {
        # kind, people, questionnaires, linkage, letters, treatment, data given
        "Withdrew": ["left", "2", "1", "1", "0", "0", "0"],
        "Died": ["died", "1", "1", "1", "1", "1", "0"],
        "Moved, address not known": ["left", "1", "0", "0", "1", "0", "0"],
    }
    assert {row[0]: row[1:] for row in tables["What has stopped, by site"][1:]} == {
        "Devon": ["2", "2", "1", "1", "1", "0"],
        "Luton": ["2", "0", "1", "1", "0", "0"],
    }


def test_records_that_no_consent_covers_are_listed(full: str) -> None:
    rows = read_tables(full)["Records that no consent covers"][1:]
    assert rows == [
        ["Devon", "DEV-003", "Collected, and no consent is on record", "–", "Baseline", "self", "8 Sep 2017", "1"],
        ["Luton", "LUT-002", "Collected before consent was given", "–", "Baseline", "self", "4 Sep 2017", "1"],
    ]
    assert "1 person has consented to questionnaires and sent nothing yet." in read_text(full)


def test_incidents_are_listed_with_what_became_of_them(full: str) -> None:
    assert read_tables(full)["Incidents about consent"][1:] == [
        [
            "luton-I0001", "Luton", "LUT-002", "Collected before consent was given", "4 Sep 2017", "to be closed",
            "no breach", "–",
        ]
    ]  # fmt: skip


def test_a_form_signed_anew_shows_both_days() -> None:
    told = [signed("2017-09-01"), signed("2018-02-05", renewal="2018-02-05"), signed("2017-09-01", "LUT-002")]
    rows = read_tables(write_page(make_study(), tell(*told)))["Luton: each consent"][1:]
    assert sorted(row[:3] for row in rows) == [
        ["LUT-001", "5 Feb 2018 (first 1 Sep 2017)", "1.0"], ["LUT-002", "1 Sep 2017", "1.0"],
    ]  # fmt: skip


def test_each_person_has_a_row_and_the_troubled_come_first(full: str) -> None:
    rows = read_tables(full)["Luton: each consent"][1:]
    assert [row[0] for row in rows] == ["LUT-002", "LUT-004", "LUT-005", "LUT-001", "LUT-003"]
    by_person = {row[0]: row for row in rows}
    assert by_person["LUT-004"][5] == "missing, overdue since 19 Feb 2018"
    assert by_person["LUT-005"][6] == "30 Sep 2017 (over)"
    assert by_person["LUT-001"][1:5] == ["1 Sep 2017", "1.0", "own", "Linkage to records and Questionnaires"]
    assert by_person["LUT-001"][8] == "linkage 12 Jan 2018"
    assert by_person["LUT-003"][5] == "not told, due 12 Mar 2018"


def test_of_many_people_those_are_shown_who_want_something_most() -> None:
    fine = [signed("2017-09-01", f"LUT-{n:03d}", copy_filed="yes") for n in range(3)]
    overdue = [signed("2017-09-01", f"LUT-{n:03d}", copy_filed="no") for n in range(3, 55)]
    grave = [signed("2017-09-05", "LUT-099", copy_filed="yes"), collected("2017-09-04", person="LUT-099")]
    uncovered = [collected("2017-09-04", person=f"DEV-{n:03d}") for n in range(53)]
    page = write_page(make_study(), tell(*fine, *overdue, *grave, *uncovered))
    people = [row[0] for row in read_tables(page)["Luton: each consent"][1:]]
    assert people == ["LUT-099", *(f"LUT-{n:03d}" for n in range(3, 52))]
    assert "56 consents, 53 to see to" in page
    shown = read_text(page)
    assert "6 more, 3 of them to see to: summative consent show trial --site luton --all lists them all." in shown
    records = [row[0] for row in read_tables(page)["Records that no consent covers"][1:]]
    assert records == ["Devon"] * 50 + ["Luton"]
    assert "3 more: summative consent reconcile trial lists them all." in shown


def test_an_empty_study_says_so(empty: str) -> None:
    text = read_text(empty)
    for sentence in (
        "Nothing is wrong with any consent, and no form is overdue.",
        "Nobody has stopped anything.",
        "Every record that came in is covered by a consent that was in force on its day.",
        "None was opened.",
    ):
        assert sentence in text


def test_a_study_that_assumes_consent_says_so() -> None:
    page = read_text(write_page(make_study(fieldwork="").model_copy(update={"consent_basis": "assumed"}), Events({})))
    assert "Consent is an assumption in this study" in page


def test_an_incident_that_a_person_entered_is_shown() -> None:
    told = IncidentOpened(
        occurred_on="2018-02-01", requested_by="Siân", incident_id="trial-I0001", category="consent_breach",
        subject="LUT-001", found_on="2018-02-01",
    )  # fmt: skip
    page = write_page(make_study(), tell(told))
    assert read_tables(page)["Incidents about consent"][1][:4] == ["trial-I0001", "", "LUT-001", "Entered by a person"]


def test_a_banner_stands_above_all(empty: str) -> None:
    page = write_page(make_study(), Events({}), banner="Rehearsal: these people are invented.")
    text = read_text(page)
    assert text.index("these people are invented") < text.index("What to do first", text.index("Person by person"))
    assert "invented" not in read_text(empty)


@pytest.mark.parametrize("which", ["full", "empty"])
def test_nothing_comes_from_outside_and_links_lead_somewhere(request: pytest.FixtureRequest, which: str) -> None:
    page = request.getfixturevalue(which)
    assert not re.search(r"<(script|link|img|iframe)|https?://", page)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(re.findall(r' id="([^"]+)"', page))
    assert not re.search(r"\b[a-z]+_[a-z_]+\b", read_text(page))  # no code of the program's own


def test_labels_are_shown_as_they_are() -> None:
    study = make_study()
    scopes = tuple(scope.model_copy(update={"label": "<b>A & B</b>"}) for scope in study.consent_scopes)
    page = write_page(study.model_copy(update={"consent_scopes": scopes}), tell(*make_history()))
    assert "&lt;b&gt;A &amp; B&lt;/b&gt;" in page
    assert "<b>A " not in page


@pytest.mark.parametrize("which", ["full", "empty"])
def test_everyone_can_use_the_page_and_it_fits_a_phone(
    request: pytest.FixtureRequest, browser: Path, tmp_path: Path, which: str
) -> None:
    judged = look_at(browser, request.getfixturevalue(which), tmp_path)
    for width in ("1280", "375"):
        assert judged[width]["violations"] == []
        assert int(str(judged[width]["width"])) <= int(width)
        assert int(str(judged[width]["passes"])) > 10
