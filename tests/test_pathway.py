"""Pathways: each fault has its message and all come at once; the pathways of this repository; rules by date."""

import shutil
from datetime import date
from pathlib import Path

import pytest

from study.approval_steps import is_needed
from study.configuration import assemble_files, find_changes, find_in_force, list_parts
from study.instruments import DefinitionFaults
from study.pathway import ACTIVITIES
from study.protocol import PATHWAY_FILE, Study, parse_study
from tasks.definitions import find_faults as check
from tasks.definitions import list_configuration, load_study, parse_configuration, scaffold_study
from tests.approval_histories import LUTON, PATHWAY, make_study
from tests.test_configuration import adoptions
from tests.test_protocol import DEVON, TRIAL

PROJECT = Path(__file__).parent.parent
SITES_CONFIG, INSTRUMENTS = PROJECT / "sites_config", PROJECT / "instruments"


def find_faults(pathway: str, study: str = TRIAL) -> list[str]:
    files = {"study.toml": study, "sites/luton.toml": LUTON, "sites/devon.toml": DEVON, PATHWAY_FILE: pathway}
    try:
        parse_study({path: text.encode() for path, text in files.items()}, "trial")
    except DefinitionFaults as error:
        return error.faults
    return []


def change(*changes: tuple[str, str]) -> str:
    text = PATHWAY
    for old, new in changes:
        assert old in text, f"{old!r} is not in the text that this test changes"
        text = text.replace(old, new, 1)
    return text


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            'id = "rec"\n',
            'id = "rec"\nsubmitted_after = ["green_light"]\n',
            "approvals wait for one another in a ring: rec waits for green_light waits for rec. None of them could "
            "ever be granted: remove one from submitted_after or granted_after.",
        ),
        (
            'id = "rec"\n',
            'id = "rec"\ngranted_after = ["rec"]\n',
            "approvals wait for one another in a ring: rec waits for rec.",
        ),
        (
            'body_kinds = ["council"]',
            'body_kinds = ["counsel"]',
            'approvals.council.body_kinds (entry 1) is "counsel". It must be a list of "council", "ccg", "icb", '
            '"nhs_trust", "clinic", "university" and "other". Correct it. Did you mean "council"?',
        ),
        ('approval = "cag"', 'approval = "rec"', 'approvals.cag has no route. Add a [[routes]] with approval = "cag".'),
        (
            'approval = "cag"',
            'approval = "caag"',
            'routes.full.approval names approval "caag", which is not under [[approvals]]. Add or correct it. '
            'Did you mean "cag"?',
        ),
        (
            'submitted_after = ["rec"]',
            'submitted_after = ["rek"]',
            'approvals.council.submitted_after names approval "rek", which is not under [[approvals]].',
        ),
        (
            'needs = ["rec", "access"]',
            'needs = ["rec", "acces"]',
            'activities.interview.needs names approval "acces", which is not under [[approvals]]. Add or correct it. '
            'Did you mean "access"?',
        ),
        ('route = "local_pack"', 'route = "pack"', 'clocks entry 3.route names route "pack", which is not under'),
        (
            'id = "interview"',
            'id = "interviews"',
            'activities.interviews.id is "interviews". It must be "approach", "recruit", "collect_baseline", '
            '"collect_follow_up", "link_records", "interview". Correct it. Did you mean "interview"?',
        ),
        (
            "[[clocks]]",
            "[[clock]]",
            '[clock] is no section here. Remove it or correct its name. Did you mean "clocks"?',
        ),
        ('unit = "working"', 'unit = "workdays"', 'clocks entry 3.unit is "workdays". It must be "calendar" or'),
        ("days = 60\n", "days = -1\n", "clocks entry 1.days is -1. It must be a whole number of days, 0 to 1000."),
        ("days = 60\n", "days = 1.5\n", "clocks entry 1.days is 1.5. It must be"),
        ("n_stops = 1\n", "n_stops = true\n", "clocks entry 1.n_stops is true. It must be a whole number from 0"),
        ('source = "Old rules."\n', "", "clocks entry 1.source is missing. Add source = where the figures come from"),
        (
            "applies_from = 2026-04-28\n",
            "",
            'clocks entry 2 is a second clock of route "form" from the same day. Give it another applies_from',
        ),
        (
            'body_kinds = ["council"]\n',
            "",
            'approvals.council has level "body" but no body_kinds. Add the kinds of body that give it.',
        ),
        (
            'authority = "Sponsor"\n',
            'authority = "Sponsor"\nbody_kinds = ["council"]\n',
            'approvals.green_light has level "site", so no body gives it.',
        ),
        (
            'counted_kinds = ["council"]\n',
            "",
            "approvals.adass has only one of needed_from_n_bodies and counted_kinds. Add the other, or remove it.",
        ),
        (
            'body_kinds = ["council"]\n',
            'body_kinds = ["council"]\nnot_needed_at = ["luton_counsil"]\n',
            'approvals.council.not_needed_at names body "luton_counsil", which no site has. Remove or correct it. '
            'Did you mean "luton_council"?',
        ),
        ('review_every = "12 months"\n', "", "approvals.cag has review_form_before but no review_every."),
        ('"12 months"', '"0 months"', 'approvals.cag.review_every is "0 days". It must be longer than no time.'),
        ('"12 months"', '"yearly"', 'approvals.cag.review_every is "yearly". It must be a period in quotes'),
        (
            "open_from = 2016-03-31",
            "open_from = 2016-03-31\nopen_until = 2016-03-30",
            "routes.local_pack.open_until (2016-03-30) is before open_from (2016-03-31). Correct one of them.",
        ),
        ('id = "full"', 'id = "form"', 'routes has "form" twice. Give each entry its own id, or remove one.'),
        ('level = "site"', 'level = "area"', 'approvals.green_light.level is "area". It must be "study", "site"'),
        ("[[approvals]]", "[approvals", "cannot be read as TOML"),
    ],
)
def test_each_fault_is_named(old: str, new: str, fault: str) -> None:
    assert any(
        told.startswith(f"sites_config/trial/approvals.toml: {fault}") for told in find_faults(change((old, new)))
    )


def test_all_faults_come_at_once_with_those_of_the_protocol() -> None:
    spoilt = change(('approval = "cag"', 'approval = "nobody"'), ('unit = "calendar"', 'unit = "weeks"'))
    faults = find_faults(spoilt, TRIAL.replace('blinding = "open"', 'blinding = "shut"'))
    assert len(faults) == 4
    assert {fault.partition(":")[0] for fault in faults} == {
        "sites_config/trial/study.toml",
        "sites_config/trial/approvals.toml",
    }


def test_a_pathway_without_activities_is_a_fault() -> None:
    assert find_faults("") == [
        "sites_config/trial/approvals.toml: there are no activities. Add at least one [[activities]]."
    ]


def test_a_study_without_a_pathway_plans_nothing_and_the_check_says_so(tmp_path: Path) -> None:
    shutil.copytree(SITES_CONFIG / "cdisc_pilot", tmp_path / "cdisc_pilot")
    (tmp_path / "cdisc_pilot" / "approvals.toml").unlink()
    study = load_study("cdisc_pilot", tmp_path, INSTRUMENTS)
    assert [study.pathway.find_needs(activity) for activity in ACTIVITIES] == [None] * len(ACTIVITIES)
    notes = check("cdisc_pilot", tmp_path, INSTRUMENTS).notes
    assert any(note.startswith("sites_config/cdisc_pilot/approvals.toml: the file is missing") for note in notes)


def test_the_pilot_needs_nothing_for_what_its_records_tell_of() -> None:
    study = load_study("cdisc_pilot", SITES_CONFIG, INSTRUMENTS)
    assert [study.pathway.find_needs(activity) for activity in ACTIVITIES[:4]] == [()] * 4
    assert not any("approvals.toml" in note for note in check("cdisc_pilot", SITES_CONFIG, INSTRUMENTS).notes)


# The pathways of the repository ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ipc() -> Study:
    return load_study("ipc", SITES_CONFIG, INSTRUMENTS)


def test_ipc_carries_the_english_pathway(ipc: Study) -> None:
    assert len(ipc.sites) == 17
    assert {approval.id: is_needed(ipc, approval) for approval in ipc.pathway.approvals} == dict.fromkeys(
        (
            *("rec", "hra", "cag", "adass", "dpia", "council_governance", "capacity_and_capability", "data_sharing"),
            *("letter_of_access", "green_light"),
        ),
        True,
    )
    assert all(ipc.pathway.find_needs(activity) for activity in ACTIVITIES)
    assert all(clock.source for clock in ipc.pathway.clocks)


def test_a_new_study_has_the_pathway_and_the_needs_of_ipc(ipc: Study, tmp_path: Path) -> None:
    scaffold_study("trial", "A trial", tmp_path)
    new = load_study("trial", tmp_path, INSTRUMENTS)
    assert new.pathway.clocks == ipc.pathway.clocks
    assert new.pathway.activities == ipc.pathway.activities
    adass = new.pathway.find_approval("adass")
    assert adass is not None
    assert not is_needed(new, adass)  # the example site has one council


@pytest.mark.parametrize(
    ("on", "routes"),
    [(date(2016, 3, 30), ["rd_approval"]), (date(2016, 3, 31), ["local_information_pack"])],
)
def test_hra_approval_changed_the_route_of_trusts(ipc: Study, on: date, routes: list[str]) -> None:
    assert [route.id for route in ipc.pathway.find_routes("capacity_and_capability", on)] == routes


@pytest.mark.parametrize(("starts_on", "expected"), [("2016-03-30", False), ("2016-03-31", True), ("2016-04-01", True)])
def test_which_studies_need_an_approval_by_their_start(starts_on: str, expected: bool) -> None:
    study = make_study(change(('authority = "REC"\n', 'authority = "REC"\nfor_studies_from = 2016-03-31\n')))
    rec = study.pathway.approvals[0]
    assert is_needed(study.model_copy(update={"starts_on": date.fromisoformat(starts_on)}), rec) is expected
    until = rec.model_copy(update={"for_studies_from": None, "for_studies_until": date(2016, 3, 30)})
    assert is_needed(study.model_copy(update={"starts_on": date.fromisoformat(starts_on)}), until) is not expected


@pytest.mark.parametrize(("threshold", "expected"), [(1, True), (2, True), (3, False)])
def test_adass_is_needed_from_so_many_councils(threshold: int, expected: bool) -> None:
    study = make_study(change(("needed_from_n_bodies = 3", f"needed_from_n_bodies = {threshold}")))
    adass = study.pathway.find_approval("adass")
    assert adass is not None
    assert is_needed(study, adass) is expected


# Configuration ------------------------------------------------------------------------------------------------------


def test_the_pathway_is_adopted_with_the_rest() -> None:
    parts = list_configuration("ipc", SITES_CONFIG, INSTRUMENTS)
    assert [(part.part, part.name) for part in parts[:2]] == [("protocol", "ipc"), ("pathway", "ipc")]
    contents = {(part.part, part.name): part.data for part in parts}
    study, _ = parse_configuration(contents)
    assert study.pathway.find_needs("approach")
    before, _ = parse_configuration(contents | {("pathway", "ipc"): b""})
    assert before.pathway.approvals == ()


def test_a_pathway_that_is_removed_is_given_up() -> None:
    with_it = list_parts("trial", {"study.toml": b"a", PATHWAY_FILE: b"b"}, {})
    assert assemble_files({(part.part, part.name): part.data for part in with_it}).study == {
        "study.toml": b"a",
        PATHWAY_FILE: b"b",
    }
    rows = [(part.part, part.name, part.sha256, "2017-01-10", n) for n, part in enumerate(with_it)]
    changes = find_changes(find_in_force(adoptions(*rows), date(2017, 2, 1)), with_it[:1])
    assert [(change.part, change.follows) for change in changes] == [("pathway", with_it[1].sha256)]
