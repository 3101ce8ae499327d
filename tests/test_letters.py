"""Letters: plain text and HTML from the same words, in a sandbox; what is wrong with a wording is found beforehand."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from study.digests import Section
from tasks.definitions import load_study
from tasks.letters import LETTERS_FOLDER, LetterFault, find_letter_faults, render_letter
from tests.chasing_studies import CHASERS, NO_FIGURES, make_study
from tests.release_studies import APPROVALS

COLUMNS = ("Identifier", "Wave", "Who answers", "Due on", "Days late")
ROWS = (
    ("LUT-P00013", "Baseline", "the participant", "4 Sep 2017", "12"),
    ("LUT-P00021", "6-month follow-up", "somebody for them", "8 Sep 2017", "8"),
)
OVERDUE = Section("return_overdue", "return", COLUMNS, ROWS, role="site researcher")


def give(*sections: Section, **values: Any) -> dict[str, Any]:
    usual = {
        "study": "A trial", "name": "Rosa Reed", "place": "Luton", "on": "16 September 2017", "instead_of": (),
        "answer_to": None, "is_rehearsal": False,
    }  # fmt: skip
    return {**usual, "sections": sections or (OVERDUE,), **values}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the wordings, to spoil."""
    return Path(shutil.copytree(LETTERS_FOLDER, tmp_path / "letters"))


def test_a_digest_as_plain_text() -> None:
    letter = render_letter("digest", give())
    assert letter.subject == "2 things to look at: Luton, 16 September 2017 (A trial)"
    assert "Dear Rosa Reed," in letter.text
    table = [line for line in letter.text.splitlines() if line.startswith("  ")]
    assert table == [
        "  Identifier  Wave               Who answers        Due on      Days late",
        "  ----------  -----------------  -----------------  ----------  ---------",
        "  LUT-P00013  Baseline           the participant    4 Sep 2017         12",
        "  LUT-P00021  6-month follow-up  somebody for them  8 Sep 2017          8",
    ]
    assert max(map(len, letter.text.splitlines())) <= 78
    assert "\n\n\n\n" not in letter.text
    assert letter.text.endswith("\n--\nA trial\n")


def test_the_same_words_as_html() -> None:
    letter = render_letter("digest", give(name="O'Hara & <b>Sons</b>"))
    assert "O&#39;Hara &amp; &lt;b&gt;Sons&lt;/b&gt;" in letter.html
    assert "O'Hara & <b>Sons</b>" in letter.text
    told = " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", letter.html, flags=re.S).split())
    for words in ("These questionnaires have not reached us yet:", "6-month follow-up", "Thank you for your work."):
        assert words in told
        assert words in " ".join(letter.text.split())
    assert "http" not in letter.html  # nothing is fetched when it is opened
    assert "<script" not in letter.html


def test_one_thing_many_things_and_those_asked_before() -> None:
    one = Section("query_open", "query", ("Query", "Identifier"), (("LUT-0001", "LUT-P00013"),))
    before = Section("query_open", "query", ("Query", "Identifier"), (("LUT-0002", "LUT-P00013"),), is_open=True)
    letter = render_letter("digest", give(one, before))
    assert letter.subject.startswith("One thing to look at")
    assert "STILL OPEN: QUESTIONS ABOUT YOUR RETURNS" in letter.text
    assert letter.text.count("The receipt of your return says") == 1


def test_what_somebody_is_told_asks_them_for_nothing() -> None:
    told = Section("return_last", "return", COLUMNS, ROWS, is_told=True, role="site lead")
    text = render_letter("digest", give(told)).text
    assert "FOR YOU TO KNOW" in text
    assert "The site lead has been asked about these." in text
    assert "Please let us know" not in text
    call = Section("return_call", "return", COLUMNS, ROWS, is_told=True, role="site lead", channel="telephone")
    assert "Please telephone:" in render_letter("digest", give(call)).text


def test_deputies_coordinators_and_rehearsals_are_named() -> None:
    coordinator = {"name": "Cora Cole", "telephone": "020 0000 0000"}
    letter = render_letter("digest", give(instead_of=("Ann", "Ben"), answer_to=coordinator, is_rehearsal=True))
    text = " ".join(letter.text.split())
    assert "on behalf of Ann and Ben, who are away" in text
    assert "ask Cora Cole, telephone 020 0000 0000" in text
    assert text.startswith("REHEARSAL. This letter is sent to nobody.")
    assert "Rehearsal. This letter" in letter.html


def test_a_table_that_is_too_wide_is_a_list() -> None:
    rows = (("Council approval, Luton Council (Luton)", "has been with the authority since 1 Mar 2017"),)
    text = render_letter("digest", give(Section("approval_waiting", "authority", ("What", "Since"), rows))).text
    assert "- Council approval, Luton Council (Luton) has been with the authority since\n  1 Mar 2017\n" in text


@pytest.mark.parametrize("study_id", ["ipc", "cdisc_pilot"])
def test_the_letters_of_the_studies_that_are_there_are_in_order(study_id: str) -> None:
    assert find_letter_faults(load_study(study_id)) == []


def test_every_wording_that_is_there_is_one_that_somebody_names() -> None:
    named = {step.template for step in load_study("ipc").fieldwork.ladder}
    named |= {chaser.template for chaser in load_study("ipc").pathway.chasers}
    own = {"digest", "stop_notice", "stopped_packs", "told", "still_open", "nobody_to_write_to", "wrong_address"}
    own |= {"file_held", "safeguarding", "safeguarding_raised", "safeguarding_escalated"}
    there = {path.stem for path in LETTERS_FOLDER.glob("*.jinja") if not path.name.startswith("layout")}
    assert named | own == there


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("return_overdue", "[table]", "", '"[table]" stands there 0 times. Give it once.'),
        ("return_overdue", "# Q", "Q", 'the first line is no heading. Begin with "# ".'),
        ("return_overdue", "once more", "{{ nmae }}", "'nmae' is undefined. A letter has: heading, n, role, study."),
        ("return_overdue", "once more", "{{ name", "line 7: "),
        ("return_overdue", "once more", "{{ study.__class__.__mro__ }}", "access to attribute '__class__'"),
        ("digest", "Subject: ", "", 'the first line is no subject. Begin with "Subject: ".'),
        ("digest", "[parts]", "[parts]\n\n[parts]", '"[parts]" stands there 2 times.'),
        ("digest", "{{ name }}", "{{ first_name }}", "'first_name' is undefined"),
        ("still_open", "{{ heading", "{{ title", "'title' is undefined"),
        ("stop_notice", "{{ on }}", "{{ day }}", "'day' is undefined"),
        ("layout.html", "{{ subject }}", "{{ sujet }}", "'sujet' is undefined"),
    ],
)
def test_faults_are_found_before_the_day_of_sending(folder: Path, name: str, old: str, new: str, expected: str) -> None:
    path = folder / f"{name}.jinja"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    faults = find_letter_faults(make_study(), folder)
    assert faults
    assert all(fault.startswith("templates/letters/") for fault in faults)
    assert any(f"templates/letters/{name}.jinja" in fault and expected in fault for fault in faults)


def test_a_template_that_is_not_there_says_who_names_it() -> None:
    chasers = APPROVALS + CHASERS.replace("answer_owed", "owed")
    study = make_study(NO_FIGURES.replace('"return_last"', '"return_lost"'), chasers)
    there_is_none = "there is no such template. Add it, or correct its name where it is named. Named by"
    assert find_letter_faults(study) == [
        f'templates/letters/return_lost.jinja: {there_is_none} sites_config/trial/fieldwork.toml in ladder "last".',
        f'templates/letters/owed.jinja: {there_is_none} sites_config/trial/approvals.toml in chasers "light_lapsed".',
    ]


def test_a_value_that_nobody_gave_is_no_blank() -> None:
    values = give()
    del values["place"]
    with pytest.raises(LetterFault, match="'place' is undefined"):
        render_letter("digest", values)


def test_a_study_that_chases_nobody_sends_no_letters() -> None:
    assert find_letter_faults(make_study(NO_FIGURES.partition("[[ladder]]")[0])) == []
