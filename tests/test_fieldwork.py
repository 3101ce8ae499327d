"""The file of the fieldwork: each fault has its message, all come at once; what the rules answer; the studies' own."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from study.fieldwork import CONSENT_TAKERS, FIELDWORK_SECTIONS, OBLIGATIONS, Fieldwork
from study.protocol import parse_study
from tests.test_protocol import TRIAL, find_faults, make_files, replace_once

SITES_CONFIG = Path(__file__).parent.parent / "sites_config"

FIELDWORK = """
[[releases]]
wave = "baseline"
mode = "on_request"

[[releases]]
wave = "follow_up_6m"
mode = "automatic"
lead = "2 weeks"
at_once = 60

[[respondents]]
respondent = "self"
routes = ["self"]

[[respondents]]
respondent = "carer"
scopes = ["questionnaires"]

[[approach_reasons]]
id = "no_time"
label = "No time"
outcome = "declined"

[[identifiers]]
form = "{code}-{number}{check}"
digits = 2
block = 10

[[consent]]
needed_scope = "questionnaires"
copy_within = 10
source = "A proposal."

[[ladder]]
id = "return_overdue"
about = "return"
waves = ["baseline"]
counts_from = "closes"
days = -3
to = "site_researcher"
channel = "email"
template = "return_overdue"
encloses_copy = true

[[ladder]]
id = "query_open"
about = "query"
counts_from = "due"
days = 1
to = "site_researcher"
channel = "telephone"
template = "query_open"
tells = "project_manager"

[[quiet_periods]]
id = "christmas"
label = "Christmas"
from_on = 2017-12-20
until_on = 2018-01-02
sites = ["luton"]
about = ["return", "approval"]

[[chasing]]
weekly_digests = 2
answer_days = 10
coordinator = "fieldwork_coordinator"
manager = "project_manager"

[[held_files]]
keep = "nothing"
source = "A proposal."

[[return_checks]]
leaves_out = ["outside_window"]
blank_pct = 60
source = "A proposal."

[[across]]
id = "odd_together"
says = "Both at once"
severity = "soft"
never_together = [
    { instrument = "gds", items = ["gds01"], equals = [1] },
    { instrument = "qol", items = ["qol01"], at_least = 4 },
]

[[safeguarding]]
clinician = "safeguarding_clinician"
escalate_after = 1
escalates_to = "chief_investigator"
source = "A proposal."

[[safeguarding_triggers]]
id = "falls"
about = "Falls"
instrument = "eq5d5l"
item = "eq5d5l_mo"
equals = [5]

[[instrument_report]]
smallest_group = 20
source = "A proposal."

[[disclosure]]
threshold = 8
source = "A proposal."

[[figures]]
id = "care_plans"
label = "Care plans"
due = "10 days"
from_month = "2017-07"
until_month = "2018-11"

[[targets]]
measure = "baseline"
site = "luton"
n = 100
from_on = 2017-07-01
by = 2018-05-31
source = "A proposal."

[[burdens]]
work = "pack"
minutes = 30
source = "Assumed."
"""
# The check digit of 01 is 3.
STUDY = replace_once(TRIAL, 'participant_id_example = "LUT-001"', 'participant_id_example = "LUT-013"')


def find(fieldwork: str, study: str = STUDY) -> list[str]:
    """The faults, all of them of the fieldwork's file, without its path."""
    faults = find_faults({**make_files(study), "fieldwork.toml": fieldwork.encode()})
    place = "sites_config/trial/fieldwork.toml: "
    assert all(fault.startswith(place) for fault in faults), faults
    return [fault.removeprefix(place) for fault in faults]


def test_the_file_of_these_tests_has_no_fault_and_every_section() -> None:
    assert find(FIELDWORK) == []
    assert all(f"[[{section}]]" in FIELDWORK for section in FIELDWORK_SECTIONS)


FAULTS = [
    # what does not fit together
    (
        '[[chasing]]',
        '[[identifiers]]\nform = "{code}-{number}{check}"\ndigits = 2\nblock = 5\n\n[[chasing]]',
        "identifiers entry 2: there is one [[identifiers]] already. Make them one.",
    ),
    (
        '[[chasing]]',
        '[[consent]]\nneeded_scope = "questionnaires"\ncopy_within = 1\nsource = "x"\n\n[[chasing]]',
        "consent entry 2: there is one [[consent]] already. Make them one.",
    ),
    (
        '[[figures]]',
        '[[chasing]]\nweekly_digests = 1\nanswer_days = 1\ncoordinator = "a"\nmanager = "b"\n\n[[figures]]',
        "chasing entry 2: there is one [[chasing]] already. Make them one.",
    ),
    (
        '"outside_window"',
        '"outside_windows"',
        'return_checks entry 1.leaves_out names rule "outside_windows", which the study does not have. Correct or '
        'remove it. Did you mean "outside_window"?',
    ),
    (
        'at_least = 4 }',
        'at_least = 4, at_most = 5 }',
        "across.odd_together: each test has one of equals, at_least and at_most. Give one.",
    ),
    (
        'instrument = "qol", items = ["qol01"]',
        'instrument = "gds", items = ["gds02"]',
        "across.odd_together is about one questionnaire. Put it into [[rules]] of its definition.",
    ),
    (
        'wave = "baseline"',
        'wave = "basline"',
        'releases.basline.wave names wave "basline", which the study does not have. Correct or remove it. Did you mean '
        '"baseline"?',
    ),
    (
        'lead = "2 weeks"',
        'lead = "-2 weeks"',
        'releases.follow_up_6m.lead is "-14 days". Give the time before the window opens as "0 days" or more.',
    ),
    (
        'respondent = "carer"',
        'respondent = "proxy"',
        'respondents.proxy.respondent names respondent "proxy", which the study does not have. Correct or remove it. '
        "Known: self, carer.",
    ),
    (
        'scopes = ["questionnaires"]',
        'scopes = ["interview"]',
        'respondents.carer.scopes names consent scope "interview", which the study does not have. Correct or remove '
        "it. Known: questionnaires.",
    ),
    (
        '"{code}-{number}{check}"',
        '"{code}-{number}"',
        'identifiers entry 1.form is "{code}-{number}". It must hold {check} once. Correct it.',
    ),
    (
        '"{code}-{number}{check}"',
        '"{code}-{number}{number}{check}"',
        'identifiers entry 1.form is "{code}-{number}{number}{check}". It must hold {number} once. Correct it.',
    ),
    (
        '"{code}-{number}{check}"',
        '"{site}{code}-{number}{check}"',
        'identifiers entry 1.form is "{site}{code}-{number}{check}". Only {code}, {number}, {check} may stand in '
        "braces. Correct it.",
    ),
    (
        "digits = 2",
        "digits = 3",
        'identifiers entry 1 makes "DEV-0013" for the site with the code DEV, which study.participant_id_pattern '
        "'(?P<site>[A-Z]{3})-\\d{3}' does not take as one of that site. Correct one of the two.",
    ),
    (
        'needed_scope = "questionnaires"',
        'needed_scope = "questionaires"',
        'consent entry 1 names consent scope "questionaires", which the study does not have. Correct or remove it. Did '
        'you mean "questionnaires"?',
    ),
    (
        "copy_within = 10",
        'copy_within = 10\nlinkage_scope = "linkage"',
        'consent entry 1 names consent scope "linkage", which the study does not have.',
    ),
    (
        "copy_within = 10",
        'copy_within = 10\nnot_withdrawals = ["lost"]',
        'consent entry 1.not_withdrawals names disposition reason "lost", which the study does not have. Correct or '
        "remove it. Known: died.",
    ),
    (
        'waves = ["baseline"]',
        'waves = ["follow_up"]',
        'ladder.return_overdue.waves names wave "follow_up", which the study does not have.',
    ),
    (
        'about = "query"',
        'about = "query"\nwaves = ["baseline"]',
        'ladder.query_open.waves is for steps about "return" only. Remove it.',
    ),
    (
        'counts_from = "due"',
        'counts_from = "released"',
        'ladder.query_open.counts_from is "released"; what is no return counts from "due". Correct it.',
    ),
    (
        'about = "query"',
        'about = "query"\nencloses_copy = true',
        'ladder.query_open.encloses_copy is for steps about "return" only. Remove it.',
    ),
    (
        "days = 1\n",
        "days = -1\n",
        "ladder.query_open.days is -1: what is no return is chased when it is overdue. Give 0 or more.",
    ),
    (
        FIELDWORK[FIELDWORK.index("[[chasing]]") : FIELDWORK.index("[[figures]]")],
        "",
        "there is a ladder but no [[chasing]]. Add it: it says how often a person may be written to.",
    ),
    (
        'sites = ["luton"]',
        'sites = ["lutton"]',
        'quiet_periods.christmas.sites names site "lutton", which the study does not have. Correct or remove it. Did '
        'you mean "luton"?',
    ),
    (
        'about = ["return", "approval"]',
        'about = ["letters"]',
        'quiet_periods.christmas.about names obligation "letters", which the study does not have. Correct or remove '
        f"it. Known: {', '.join(OBLIGATIONS)}, approval.",
    ),
    (
        "until_on = 2018-01-02",
        "until_on = 2017-12-19",
        "quiet_periods.christmas.until_on (2017-12-19) is before from_on (2017-12-20). Correct one of them.",
    ),
    (
        'until_month = "2018-11"',
        'until_month = "2017-06"',
        "figures.care_plans.until_month (2017-06) is before from_month (2017-07). Correct one.",
    ),
    (
        'site = "luton"',
        'site = "london"',
        'targets entry 1.site names site "london", which the study does not have.',
    ),
    (
        "by = 2018-05-31",
        "by = 2017-07-01",
        "targets entry 1.by (2017-07-01) is not after from_on (2017-07-01). Correct one of them.",
    ),
    # what no entry may say
    ('mode = "on_request"', 'mode = "by_hand"', 'releases.baseline.mode is "by_hand". It must be "automatic" or '),
    ('lead = "2 weeks"', 'lead = "soon"', 'releases.follow_up_6m.lead is "soon". It must be a period in quotes'),
    ("at_once = 60", "at_once = 0", "releases.follow_up_6m.at_once is 0. It must be a whole number, without quotes."),
    ('routes = ["self"]', 'routes = ["judge"]', "respondents.self.routes (entry 1) is "),
    ('outcome = "declined"', 'outcome = "agreed"', 'approach_reasons.no_time.outcome is "agreed". It must be '),
    ("digits = 2", "digits = 1", "identifiers entry 1.digits is 1. It must be a whole number, 2 to 8. Correct it."),
    ("block = 10", "block = 0", "identifiers entry 1.block is 0. It must be a whole number, 1 to 1000. Correct it."),
    (
        "copy_within = 10",
        "copy_within = -1",
        "consent entry 1.copy_within is -1. It must be a whole number of working days, 0 to 1000. Correct it.",
    ),
    (
        "copy_within = 10",
        "copy_within = 10\ntaken_by = []",
        "consent entry 1.taken_by is an empty list. It must be a list of roles, such as site_researcher, at least one.",
    ),
    ('about = "query"', 'about = "money"', 'ladder.query_open.about is "money". It must be "return", '),
    ('channel = "telephone"', 'channel = "fax"', 'ladder.query_open.channel is "fax". It must be "email" or '),
    ("days = 1\n", 'days = "1"\n', 'ladder.query_open.days is "1". It must be a whole number of days, -1000 to 1000.'),
    (
        "weekly_digests = 2",
        "weekly_digests = 8",
        "chasing entry 1.weekly_digests is 8. It must be a whole number, 1 to 7. Correct it.",
    ),
    (
        'from_month = "2017-07"',
        'from_month = "2017-13"',
        'figures.care_plans.from_month is "2017-13". It must be a month in quotes, such as "2017-07". Correct it.',
    ),
    ('measure = "baseline"', 'measure = "base"', 'targets entry 1.measure is "base". It must be "approached", '),
    ('work = "pack"', 'work = "tea"', 'burdens.tea.work is "tea". It must be what is done: "approach", '),
    # the file
    ("[[burdens]]", "[burdens]", "burdens is a table. Write each entry under its own heading [[burdens]], in double "),
    ("[[burdens]]", "[[burden]]", "[burden] is no section here. Remove it or correct its name. Did you mean "),
    ('id = "query_open"', 'id = "return_overdue"', 'ladder has "return_overdue" twice. Give each entry its own id'),
    ('wave = "baseline"', 'wave = "follow_up_6m"', 'releases has "follow_up_6m" twice. Give each entry its own wave'),
    ("minutes = 30", "minuts = 30", "burdens.pack.minuts is no setting here. Remove it or correct its name. Did you "),
    ("minutes = 30", "", "burdens.pack.minutes is missing. Add minutes = a whole number of minutes, 0 to 1000."),
    ('to = "site_researcher"', 'to = "mary@nhs.example.org"', "holds an e-mail address. People's addresses belong in "),
    ("minutes = 30", "minutes = thirty", "cannot be read as TOML: "),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "fault"), FAULTS)
def test_each_fault_is_told(old: str, new: str, fault: str) -> None:
    faults = find(replace_once(FIELDWORK, old, new))
    assert any(fault in found for found in faults), faults


def test_a_document_is_one_of_the_pathway_if_there_is_one() -> None:
    fieldwork = replace_once(FIELDWORK, "copy_within = 10", 'copy_within = 10\ndocument = "consent_form"')
    files = {**make_files(STUDY), "fieldwork.toml": fieldwork.encode()}
    assert find_faults(files) == []
    pathway = '[[activities]]\nid = "approach"\nneeds = []\n\n[[documents]]\nid = "sheet"\nlabel = "Sheet"\n'
    [fault] = find_faults({**files, "approvals.toml": pathway.encode()})
    assert 'consent entry 1.document names document "consent_form", which the study does not have.' in fault


def test_faults_come_all_at_once() -> None:
    fieldwork = replace_once(FIELDWORK, "minutes = 30", "minutes = -1")
    fieldwork = replace_once(fieldwork, 'wave = "baseline"', 'wave = "basline"')
    fieldwork = replace_once(fieldwork, "digits = 2", "digits = 3")
    assert sorted(fault.partition(" ")[0] for fault in find(fieldwork)) == [
        "burdens.pack.minutes",
        "identifiers",
        "releases.basline.wave",
    ]


@pytest.mark.parametrize(
    ("pattern", "form"),
    [
        (r"(?P<site>[A-Z]{3})-\d{3}", "{code}{number}{check}"),
        (r"[A-Z]{3}(?P<site>\d)\d\d", "{code}{number}{check}"),
        (r"(?P<site>[A-Z])..-\d{3}", "{code}-{number}{check}"),
    ],
)
def test_identifiers_that_would_not_come_back_as_the_sites_own_are_a_fault(pattern: str, form: str) -> None:
    study = replace_once(STUDY, r"'(?P<site>[A-Z]{3})-\d{3}'", f"'{pattern}'")
    faults = find_faults(
        {
            **make_files(study),
            "fieldwork.toml": replace_once(FIELDWORK, "{code}-{number}{check}", form).encode(),
        }
    )
    assert any("identifiers entry 1 makes" in fault for fault in faults), faults


def test_an_example_with_a_wrong_check_digit_is_a_fault() -> None:
    assert find(FIELDWORK, TRIAL) == [
        'identifiers entry 1 makes no identifier like study.participant_id_example, "LUT-001": its check digit does '
        'not fit, or its form. Take one such as "DEV-013".'
    ]


def test_a_pattern_that_is_none_is_told_once() -> None:
    study = replace_once(STUDY, r"'(?P<site>[A-Z]{3})-\d{3}'", "'(?P<site>['")
    faults = find_faults({**make_files(study), "fieldwork.toml": FIELDWORK.encode()})
    assert len(faults) == 1
    assert "study.participant_id_pattern is no regular expression" in faults[0]


def test_faults_of_the_protocol_bring_no_more_of_the_fieldwork() -> None:
    """A wave with a bad date is one fault, and not one more wherever the fieldwork names it."""
    study = replace_once(STUDY, 'offset = "6 months"', 'offset = "half a year"')
    assert len(find_faults({**make_files(study), "fieldwork.toml": FIELDWORK.encode()})) == 1


# What the rules answer ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fieldwork() -> Fieldwork:
    return parse_study({**make_files(STUDY), "fieldwork.toml": FIELDWORK.encode()}, "trial").fieldwork


def test_rules_are_found_by_name(fieldwork: Fieldwork) -> None:
    release = fieldwork.find_release("follow_up_6m")
    assert release is not None
    assert (release.mode, str(release.lead), release.at_once) == ("automatic", "14 days", 60)
    assert fieldwork.find_release("follow_up_12m") is None
    rule = fieldwork.find_respondent_rule("carer")
    assert rule is not None
    assert (rule.routes, rule.scopes) == ((), ("questionnaires",))
    assert fieldwork.find_respondent_rule("proxy") is None
    reason = fieldwork.find_approach_reason(" NO TIME ")
    assert reason is not None
    assert reason.id == "no_time"
    assert fieldwork.find_approach_reason("no reason") is None
    step = fieldwork.find_step("query_open")
    assert step is not None
    assert (step.channel, step.tells) == ("telephone", "project_manager")
    assert fieldwork.find_step("query") is None
    assert fieldwork.find_figure("budgets") is None
    assert (fieldwork.find_minutes("pack"), fieldwork.find_minutes("call")) == (30, 0)


def test_roles_that_take_consent(fieldwork: Fieldwork) -> None:
    assert fieldwork.consent_takers == CONSENT_TAKERS
    own = replace_once(FIELDWORK, "copy_within = 10", 'copy_within = 10\ntaken_by = ["nurse"]')
    study = parse_study({**make_files(STUDY), "fieldwork.toml": own.encode()}, "trial")
    assert study.fieldwork.consent_takers == ("nurse",)
    assert Fieldwork().consent_takers == CONSENT_TAKERS


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        (date(2017, 12, 19), False),
        (date(2017, 12, 20), True),
        (date(2018, 1, 2), True),
        (date(2018, 1, 3), False),
    ],
)
def test_a_quiet_period_holds_its_first_and_its_last_day(fieldwork: Fieldwork, on: date, expected: bool) -> None:
    assert fieldwork.quiet_periods[0].covers(on) is expected


def test_a_study_without_the_file_releases_and_chases_nothing() -> None:
    study = parse_study(make_files(), "trial")
    assert study.fieldwork == Fieldwork()
    assert (study.fieldwork.identifier_rule, study.fieldwork.consent_rule, study.fieldwork.chasing_rule) == (None,) * 3
    assert study.fieldwork.find_release("baseline") is None
