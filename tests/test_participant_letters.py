"""Letters to participants: merged by identifier alone, one to a page, and never to somebody who wants none."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from jinja2 import UndefinedError
from jinja2.exceptions import SecurityError

from study.protocol import Study
from tasks.definitions import load_instruments, load_study
from tasks.participant_letters import (
    FOLDER,
    KINDS,
    find_participant_letter_faults,
    write_participant_letters,
)
from tests.conftest import give_up
from tests.pack_plans import make_identifier, make_plan, make_rows, make_stops
from tests.provide import find_arial
from tests.services import ServiceMissing

STUDY = load_study("ipc")
INSTRUMENTS = load_instruments(STUDY)


def read_letters(page: bytes) -> list[str]:
    """The text of each letter, without marks."""
    parts = re.findall(r"<article[^>]*>(.*?)</article>", page.decode(), re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", part).split()) for part in parts]


def write_one(study: Study = STUDY, **columns: object) -> str:
    rows = make_rows(study, 1, **columns)
    [letter] = read_letters(write_participant_letters(study, make_plan(study, rows=rows), INSTRUMENTS))
    return letter


def test_each_return_has_a_letter_with_its_identifier_and_no_name() -> None:
    page = write_participant_letters(STUDY, make_plan(STUDY, 8), INSTRUMENTS)
    letters = read_letters(page)
    assert [letter.rpartition("Reference ")[2] for letter in letters] == [
        make_identifier(STUDY, number) for number in range(1, 9)
    ]
    assert page.decode().count('class="letter easy"') == 2
    assert all(letter.split("Dear ")[1].startswith("It is time") for letter in letters if "Dear" in letter)
    assert page == write_participant_letters(STUDY, make_plan(STUDY, 8), INSTRUMENTS)


def test_the_first_page_is_for_the_site() -> None:
    page = write_participant_letters(STUDY, make_plan(STUDY, 2), INSTRUMENTS).decode()
    cover = re.sub(r"<[^>]+>", " ", page.split("<body>")[1].split("<article")[0])
    assert "for the site, not to be sent" in cover
    assert "Check before each letter: is the person alive" in cover
    assert cover.index(make_identifier(STUDY, 1)) < cover.index(make_identifier(STUDY, 2))
    assert "EQ-5D-5L, ASCOT SCT4, ONS4" in cover
    assert not any("alive" in letter or "EQ-5D" in letter for letter in read_letters(page.encode()))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"wave": "baseline"}, "Your first questionnaire"),
        ({}, "It is time for your next questionnaire"),
        ({"copy_number": 2}, "If you have sent it back: thank you very much."),
        ({"respondent": "proxy"}, "fill in the enclosed questionnaire for that person"),
        ({"respondent": "carer"}, "It asks about you and about caring"),
        ({"respondent": "manager"}, "lives in your home"),
        ({"respondent": "carer", "copy_number": 2}, "It asks about you and about caring"),
        ({"form": "easy_read"}, "We have some questions for you"),
        ({"form": "easy_read", "copy_number": 2}, "Then thank you very much."),
        ({"form": "easy_read", "respondent": "proxy"}, "Please answer as you think they would."),
    ],
)
def test_wording_follows_wave_respondent_form_and_copy(columns: dict[str, object], said: str) -> None:
    letter = write_one(**columns)
    assert said in letter
    assert "You do not have to answer" in letter
    assert "22 January 2018" in letter


@pytest.mark.parametrize(
    ("due_on", "said"),
    [
        ("2018-01-09", "9 January 2018"),
        ("2018-01-08", "5 February 2018"),  # due today: asked for by the window's end
        ("2017-12-11", "5 March 2018"),  # the window ends today, so by the last day of all
        ("2017-11-13", "8 January 2018"),  # nothing is to come
    ],
)
def test_a_day_to_come_is_asked_for_while_there_is_one(due_on: str, said: str) -> None:
    due = pd.Timestamp(due_on)
    closes, late = (due + pd.Timedelta(28, "D"), due + pd.Timedelta(56, "D"))
    if due_on == "2017-12-11":
        late = pd.Timestamp("2018-03-05")
    assert f"by {said}" in write_one(due_on=due, closes_on=closes, late_until=late)


def test_who_wants_no_letters_gets_none() -> None:
    plan = make_plan(STUDY, 3, stop_list=make_stops(STUDY, (2, "post", "2017-12-01"), (3, "linkage", "2017-12-01")))
    page = write_participant_letters(STUDY, plan, INSTRUMENTS)
    assert make_identifier(STUDY, 2) not in page.decode()
    assert len(read_letters(page)) == 2


def test_where_nobody_gets_a_letter_there_is_no_file() -> None:
    stopped = make_stops(STUDY, (1, "post", "2017-12-01"))
    assert write_participant_letters(STUDY, make_plan(STUDY, 0), INSTRUMENTS) == b""
    assert write_participant_letters(STUDY, make_plan(STUDY, 1, stop_list=stopped), INSTRUMENTS) == b""


def test_odd_characters_are_shown_as_they_are() -> None:
    study = STUDY.model_copy(update={"title": 'A & B <script>alert("x")</script> {{ 7 * 7 }} é'})
    page = write_participant_letters(study, make_plan(study, 1), INSTRUMENTS).decode()
    assert "<script" not in page
    assert "A &amp; B &lt;script&gt;" in page
    assert "{{ 7 * 7 }} é" in page


def test_a_page_asks_nothing_of_the_outside() -> None:
    page = write_participant_letters(STUDY, make_plan(STUDY, 4), INSTRUMENTS).decode()
    assert not re.search(r"https?:|src=|url\(|@import|<script|<link", page)
    assert "size: A4" in page
    assert '<html lang="en-GB">' in page


def test_easy_read_is_short() -> None:
    """One idea a line: no line of more than twelve words, and no comma but in a date."""
    page = write_participant_letters(STUDY, make_plan(STUDY, rows=make_rows(STUDY, 1, form="easy_read")), INSTRUMENTS)
    lines = re.findall(r"<p[^>]*>(.*?)</p>", page.decode().split("<article")[1], re.DOTALL)
    said = [re.sub(r"<[^>]+>", "", line).strip() for line in lines if "study" not in line.split(">")[0]]
    said = [line for line in said if line and line != STUDY.title]
    assert len(said) > 10
    assert [line for line in said if len(line.split()) > 12] == []


# The wording as people may change it --------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "participants"))


def test_the_wording_that_is_there_has_no_fault() -> None:
    assert find_participant_letter_faults(STUDY) == []
    assert {f"{kind}.{form}.html.jinja" for kind in KINDS for form in STUDY.forms} <= {
        file.name for file in FOLDER.iterdir()
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ first_name }}", "'first_name' is undefined"),
        ("{% if respondent == 'carer' %}{{ carer_name }}{% endif %}", "'carer_name' is undefined"),
        ("{% if %}", "Expected an expression"),
        ("{{ study_title.__class__.__mro__ }}", "access to attribute '__class__'"),
    ],
)
def test_faults_of_wording_are_found_before_a_letter_is_written(folder: Path, text: str, said: str) -> None:
    (folder / "invitation.standard.html.jinja").write_text(text, encoding="utf-8")
    [fault] = find_participant_letter_faults(STUDY, folder)
    assert fault.startswith("templates/letters/participants/invitation.standard.html.jinja: ")
    assert said in fault


def test_a_missing_file_is_a_fault(folder: Path) -> None:
    (folder / "second_copy.easy_read.html.jinja").unlink()
    [fault] = find_participant_letter_faults(STUDY, folder)
    assert "second_copy.easy_read.html.jinja" in fault


@pytest.mark.parametrize(
    ("text", "raised"),
    [("{{ first_name }}", UndefinedError), ("{{ ''.__class__.__mro__ }}", SecurityError)],
)
def test_nothing_is_written_with_a_value_that_is_missing_or_a_template_that_reaches_out(
    folder: Path, text: str, raised: type[Exception]
) -> None:
    (folder / "invitation.standard.html.jinja").write_text(text, encoding="utf-8")
    with pytest.raises(raised):
        write_participant_letters(STUDY, make_plan(STUDY, 1), INSTRUMENTS, folder=folder)


# On paper -----------------------------------------------------------------------------------------------------------


def test_each_letter_prints_on_one_page_of_a4(tmp_path: Path) -> None:
    browser, counter = shutil.which("chromium"), shutil.which("pdfinfo")
    if browser is None or counter is None or find_arial() is None:
        packages = "chromium poppler-utils fonts-liberation"
        give_up(
            ServiceMissing(f"A browser or its font is not on this machine. Install it: apt-get install {packages}.")
        )
    rows = pd.concat(
        [
            make_rows(STUDY, 1, form=form, respondent=respondent, copy_number=copy)
            for form in ("standard", "easy_read")
            for respondent in ("self", "proxy", "carer")
            for copy in (1, 2)
        ],
        ignore_index=True,
    )
    title = "An evaluation of services with a title that is rather longer than most titles of evaluations ever are"
    study = STUDY.model_copy(update={"title": title})
    plan = replace(make_plan(study), rows=rows)
    source, target = tmp_path / "letters.html", tmp_path / "letters.pdf"
    source.write_bytes(write_participant_letters(study, plan, INSTRUMENTS))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--print-to-pdf={target}", "--no-pdf-header-footer", source.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    told = subprocess.run([counter, str(target)], check=True, capture_output=True, timeout=60, text=True).stdout
    assert f"Pages:           {1 + len(rows)}\n" in told
    assert "(A4)" in told
