"""Folders of studies: what a check finds across files, what is loaded, and a new study that validates at once."""

import shutil
from datetime import date
from pathlib import Path

import pytest

from study.instruments import DefinitionFaults
from study.protocol import SITES_FOLDER, STUDY_FILE
from tasks.definitions import (
    Findings,
    StudyExists,
    StudyNotFound,
    find_faults,
    list_configuration,
    list_sites,
    list_studies,
    load_instruments,
    load_study,
    parse_configuration,
    scaffold_study,
)
from tasks.settings import PROJECT

SITES_CONFIG = PROJECT / "sites_config"
INSTRUMENTS = PROJECT / "instruments"
STUDIES = list_studies(SITES_CONFIG)


class Desk:
    """A copy of the pilot's configuration that a test may spoil."""

    def __init__(self, folder: Path) -> None:
        self.sites_config = folder / "sites_config"
        self.instruments = folder / "instruments"
        self.study = self.sites_config / "cdisc_pilot"
        shutil.copytree(SITES_CONFIG / "cdisc_pilot", self.study)
        shutil.copytree(INSTRUMENTS, self.instruments)

    def change(self, path: Path, old: str, new: str) -> None:
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{old!r} is not in {path.name}"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    def change_study(self, old: str, new: str) -> None:
        self.change(self.study / STUDY_FILE, old, new)

    def check(self) -> Findings:
        return find_faults("cdisc_pilot", self.sites_config, self.instruments)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.mark.parametrize("study_id", STUDIES)
def test_studies_of_the_repository_have_no_faults(study_id: str) -> None:
    assert find_faults(study_id, SITES_CONFIG, INSTRUMENTS).faults == ()
    study = load_study(study_id, SITES_CONFIG, INSTRUMENTS)
    assert list(load_instruments(study, INSTRUMENTS)) == list(study.instruments)
    assert list_sites(SITES_CONFIG, study_id) == sorted(site.site_id for site in study.sites)


@pytest.mark.parametrize("study_id", STUDIES)
def test_a_study_is_rebuilt_from_its_stored_parts(study_id: str) -> None:
    study = load_study(study_id, SITES_CONFIG, INSTRUMENTS)
    parts = list_configuration(study_id, SITES_CONFIG, INSTRUMENTS)
    assert len({(part.part, part.name) for part in parts}) == len(parts)
    assert [part.part for part in parts].count("site") == len(study.sites)
    rebuilt, instruments = parse_configuration({(part, name): data for part, name, data in parts})
    assert rebuilt == study
    assert instruments == load_instruments(study, INSTRUMENTS)


def test_a_past_study_keeps_its_own_version_of_each_part(desk: Desk) -> None:
    then = {
        (part, name): data
        for part, name, data in list_configuration("cdisc_pilot", desk.sites_config, desk.instruments)
    }
    desk.change_study('label = "Placebo"', 'label = "Dummy patch"')
    desk.change(desk.instruments / "mmse" / "definition.toml", "title = ", "# changed\ntitle = ")
    now = {
        (part, name): data
        for part, name, data in list_configuration("cdisc_pilot", desk.sites_config, desk.instruments)
    }
    assert {key for key in now if now[key] != then[key]} == {("protocol", "cdisc_pilot"), ("instrument", "mmse")}
    assert [parse_configuration(parts)[0].arms[0].label for parts in (then, now)] == ["Placebo", "Dummy patch"]


def test_a_stored_study_without_one_of_its_instruments_is_refused() -> None:
    parts = {(part, name): data for part, name, data in list_configuration("cdisc_pilot", SITES_CONFIG, INSTRUMENTS)}
    parts[("instrument", "mmse")] = b""  # given up, though the protocol still names it
    with pytest.raises(DefinitionFaults, match="instruments/mmse"):
        parse_configuration(parts)


# Checks across files ------------------------------------------------------------------------------------------------


def test_unconfirmed_bodies_are_a_note() -> None:
    notes = find_faults("ipc", SITES_CONFIG, INSTRUMENTS).notes
    assert any(note.startswith("sites_config/ipc/sites: 96 of 96 bodies are still to be confirmed") for note in notes)
    assert any("luton 5" in note for note in notes)


def test_planned_instruments_are_notes_until_they_are_defined(desk: Desk) -> None:
    desk.change_study('"mmse", ', "")
    planned = '[[planned_instruments]]\nid = "mmse"\nlabel = "MMSE"\n\n'
    planned += '[[planned_instruments]]\nid = "icecap_a"\nlabel = "ICECAP-A"\n\n[[assumptions]]'
    desk.change_study("[[assumptions]]", planned)
    findings = desk.check()
    place = "sites_config/cdisc_pilot/study.toml"
    assert findings.faults == ()
    assert (
        f"{place}: planned_instruments.mmse is defined now. Move it to study.instruments to use it." in findings.notes
    )
    assert (
        f"{place}: planned_instruments.icecap_a is not defined yet: nothing of it can be sent or returned until "
        "instruments/icecap_a exists."
    ) in findings.notes
    assert f"{place}: icecap_a is expected at no wave. Add it to the schedule if it should be." in findings.notes
    study = load_study("cdisc_pilot", desk.sites_config, desk.instruments)
    assert "mmse" not in load_instruments(study, desk.instruments)


def test_an_instrument_without_a_folder(desk: Desk) -> None:
    (desk.instruments / "adas_cog").rename(desk.instruments / "adas_cogs")
    assert desk.check().faults == (
        'sites_config/cdisc_pilot/study.toml: study.instruments names "adas_cog", but there is no folder '
        "instruments/adas_cog. Add it, move the name to [[planned_instruments]], or correct it. "
        'Did you mean "adas_cogs"?',
    )


def test_faults_of_protocol_sites_and_instruments_come_together(desk: Desk) -> None:
    desk.change_study("starts_on = 2012-07-06", 'starts_on = "July 2012"')
    desk.change(desk.study / SITES_FOLDER / "703.toml", 'site_id = "703"', 'site_id = "730"')
    desk.change(desk.instruments / "mmse" / "definition.toml", "title = ", "titel = ")
    (desk.instruments / "dad" / "notes.csv").write_bytes("Größe".encode("utf-16"))
    (desk.study / "sties").mkdir()
    (desk.study / "sties" / "719.toml").write_text("", encoding="utf-8")
    faults = desk.check().faults
    for start in (
        'sites_config/cdisc_pilot/study.toml: study.starts_on is "July 2012".',
        'sites_config/cdisc_pilot/sites/703.toml: site_id is "730", but the file is called 703.toml.',
        "instruments/mmse: ",
        "instruments/dad/notes.csv: not UTF-8 text.",
        "sites_config/cdisc_pilot/sties/719.toml: nothing reads this file.",
    ):
        assert any(fault.startswith(start) for fault in faults), faults
    with pytest.raises(DefinitionFaults) as raised:
        load_study("cdisc_pilot", desk.sites_config, desk.instruments)
    assert raised.value.faults == list(faults)


def test_an_instrument_asked_of_those_it_is_not_for(desk: Desk) -> None:
    desk.change_study('respondents = ["self", "carer"]', 'respondents = ["self", "carer", "manager"]')
    desk.change_study('instrument = "mmse"\nrespondent = "self"', 'instrument = "mmse"\nrespondent = "manager"')
    desk.change_study('forms = ["standard"]', 'forms = ["standard", "easy_read"]')
    desk.change_study(
        'instrument = "adas_cog"\nrespondent = "self"\nforms = ["standard"]',
        'instrument = "adas_cog"\nrespondent = "self"\nforms = ["standard", "easy_read"]',
    )
    assert desk.check().faults == (
        'sites_config/cdisc_pilot/study.toml: schedule entry 1 has form "easy_read", but instruments/adas_cog is for '
        "standard. Correct one of the two.",
        'sites_config/cdisc_pilot/study.toml: schedule entry 5 has respondent "manager", but instruments/mmse is for '
        "self. Correct one of the two.",
    )


@pytest.mark.parametrize("title", ["About", "allocation"])
def test_a_sheet_title_that_every_return_has(desk: Desk, title: str) -> None:
    definition = desk.instruments / "mmse" / "definition.toml"
    lines = definition.read_text(encoding="utf-8").splitlines()
    kept = [f'sheet_title = "{title}"' if line.startswith("sheet_title") else line for line in lines]
    definition.write_text("\n".join(kept), encoding="utf-8")
    assert [fault for fault in desk.check().faults if "sheet_title" in fault] == [
        f'instruments/mmse: sheet_title "{title}" is also that of the sheet "{title.title()}" that every return has. '
        "Give it another one."
    ]


def test_an_assumption_that_its_file_does_not_declare(desk: Desk) -> None:
    desk.change_study('id = "posting_rhythm"', 'id = "posting_rythm"')
    desk.change_study('id = "visit_windows"\n', 'id = "visit_windows"\ndeclared_in = "rehearsal/no_such_file.toml"\n')
    assert desk.check().faults == (
        "sites_config/cdisc_pilot/study.toml: assumptions.posting_rythm is not declared in rehearsal/assumptions.toml. "
        'Add it there or correct the id. Did you mean "posting_rhythm"?',
        "sites_config/cdisc_pilot/study.toml: assumptions.visit_windows is declared in rehearsal/no_such_file.toml, "
        "which cannot be read. Correct it.",
    )


def test_files_that_nothing_reads(desk: Desk) -> None:
    sites = desk.study / SITES_FOLDER
    (sites / "719.tml").write_text("", encoding="utf-8")
    (desk.study / "719.toml").write_text("", encoding="utf-8")
    (desk.study / "protocol.pdf").write_bytes(b"%PDF")
    (sites / ".DS_Store").write_bytes(b"\x00")
    (sites / "701.toml~").write_bytes(b"\xff")
    findings = desk.check()
    assert [fault.split(": ")[0] for fault in findings.faults] == [
        "sites_config/cdisc_pilot/719.toml",
        "sites_config/cdisc_pilot/sites/719.tml",
    ]
    assert "sites_config/cdisc_pilot/protocol.pdf: nothing reads this file." in findings.notes


def test_an_arm_that_nobody_can_be_in(desk: Desk) -> None:
    for path in (desk.study / SITES_FOLDER).iterdir():
        desk.change(path, 'role = "both"', 'role = "intervention"')
    assert (
        "sites_config/cdisc_pilot/study.toml: no site has a role that goes with arm placebo: nobody can be in it yet."
    ) in desk.check().notes


@pytest.mark.parametrize("study_id", ["cdsc_pilot", "", ".", "..", "../sites_config/cdisc_pilot", "cdisc_pilot/"])
def test_a_study_that_is_not_there(desk: Desk, study_id: str) -> None:
    with pytest.raises(StudyNotFound, match="There is no study"):
        find_faults(study_id, desk.sites_config, desk.instruments)


def test_a_slip_in_a_study_name_is_recognised(desk: Desk) -> None:
    with pytest.raises(StudyNotFound, match=r'Known: cdisc_pilot\. Did you mean "cdisc_pilot"'):
        load_study("cdsc_pilot", desk.sites_config, desk.instruments)


def test_lists_of_names_need_no_sound_files(desk: Desk) -> None:
    (desk.study / STUDY_FILE).write_text("not TOML", encoding="utf-8")
    (desk.sites_config / "empty").mkdir()
    assert list_studies(desk.sites_config) == ["cdisc_pilot"]
    assert list_sites(desk.sites_config)[:2] == ["701", "702"]
    assert list_studies(desk.sites_config / "nowhere") == []


# A new study --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "title",
    ["Housing support", 'A "quoted" title', "C:\\studies", "Évaluation — 50 % {{ title }}", "'''", "# not a comment"],
)
def test_a_new_study_validates_at_once(tmp_path: Path, title: str) -> None:
    written = scaffold_study("housing_support", title, tmp_path)
    assert all(path.is_file() for path in written)
    assert {path.relative_to(tmp_path).as_posix() for path in written} == {
        "housing_support/approvals.toml",
        "housing_support/fieldwork.toml",
        "housing_support/study.toml",
        "housing_support/sites/example_area.toml",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["housing_support"]
    findings = find_faults("housing_support", tmp_path, INSTRUMENTS)
    assert findings.faults == ()
    assert load_study("housing_support", tmp_path, INSTRUMENTS).title == title


@pytest.mark.parametrize("starts_on", [date(2027, 1, 1), date(2024, 2, 29), date(2026, 8, 31)])
def test_dates_of_a_new_study(tmp_path: Path, starts_on: date) -> None:
    scaffold_study("trial", "A trial", tmp_path, starts_on=starts_on)
    study = load_study("trial", tmp_path, INSTRUMENTS)
    assert study.starts_on == starts_on
    assert study.starts_on < study.data_collection_starts_on < study.data_collection_ends_on < study.ends_on


def test_a_new_study_overwrites_nothing(tmp_path: Path) -> None:
    scaffold_study("trial", "A trial", tmp_path)
    (tmp_path / "trial" / STUDY_FILE).write_text("edited", encoding="utf-8")
    with pytest.raises(StudyExists, match="was left as it is"):
        scaffold_study("trial", "Another", tmp_path)
    assert (tmp_path / "trial" / STUDY_FILE).read_text(encoding="utf-8") == "edited"
    assert [path.name for path in tmp_path.iterdir()] == ["trial"]


@pytest.mark.parametrize(
    ("study_id", "title", "fault"),
    [
        ("Housing Support", "x", 'such as "housing_support"'),
        ("../trial", "x", 'such as "trial"'),
        ("2nd_trial", "x", 'such as "nd_trial"'),
        ("", "x", 'such as "my_study"'),
        ("a" * 41, "x", "cannot be the name of a study"),
        ("trial\n", "x", "cannot be the name of a study"),
        ("trial", "", "title of the study is empty"),
        ("trial", " ", "title of the study is empty"),
        ("trial", "two\nlines", "line break"),
    ],
)
def test_names_that_cannot_be(tmp_path: Path, study_id: str, title: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        scaffold_study(study_id, title, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_new_study_explains_every_section(tmp_path: Path) -> None:
    """Where a section begins, the lines above it are a comment."""
    scaffold_study("trial", "A trial", tmp_path)
    for path in (tmp_path / "trial").rglob("*.toml"):
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line]
        assert max(map(len, lines)) <= 120, path.name
        headings = [line for line in lines if line.startswith("[")]
        for heading in dict.fromkeys(headings):
            assert lines[lines.index(heading) - 1].startswith("#"), heading
