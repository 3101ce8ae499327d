"""Priors, documents, duties, chasers and incident rules in approvals.toml: each fault has its message."""

from pathlib import Path

import pytest

from study.pathway import PATHWAY_SECTIONS, Pathway
from tasks.definitions import load_study, scaffold_study
from tests.approval_histories import PATHWAY, make_study
from tests.test_pathway import INSTRUMENTS, SITES_CONFIG, find_faults

SECTIONS = """
[[priors]]
route = "form"
step = "decision"
lower_quartile = 40
median = 60
upper_quartile = 85
unit = "calendar"
weight = 4
source = "Made up."

[[priors]]
route = "form"
step = "validation"
lower_quartile = 5
median = 5
upper_quartile = 5
unit = "working"
weight = 1
source = "Made up."

[[documents]]
id = "sheet"
label = "Information sheet"

[[duties]]
id = "yearly"
label = "Yearly report"
to = "REC"
owner = "project_manager"
counts_from = "approval"
approval = "rec"
offset = "13 months"
every = "12 months"
source = "Made up."

[[duties]]
id = "closing"
label = "Notice of the end"
to = "REC"
owner = "project_manager"
counts_from = "study_end"
offset = "90 days"
source = "Made up."

[[chasers]]
id = "waiting"
about = "authority"
of = ["council", "trust"]
counts_from = "turn"
days = 20
unit = "working"
to = "approving_office"
channel = "email"
template = "approval_waiting"

[[chasers]]
id = "duty_near"
about = "duty"
of = ["yearly"]
counts_from = "due"
days = -14
unit = "calendar"
to = "project_manager"
channel = "email"
template = "duty_near"

[[chasers]]
id = "assess"
about = "incident"
counts_from = "due"
days = -2
unit = "working"
to = "sponsor"
channel = "telephone"
template = "incident_assessment"

[[incident_rules]]
category = "identifier_leak"
owner = "data_protection_officer"
assess_days = 1
unit = "working"
source = "Made up."
"""


def find(*changes: tuple[str, str]) -> list[str]:
    text = SECTIONS
    for old, new in changes:
        assert text.count(old) >= 1, f"{old!r} is not in the text that this test changes"
        text = text.replace(old, new, 1)
    return [fault.removeprefix("sites_config/trial/approvals.toml: ") for fault in find_faults(PATHWAY + text)]


def test_the_sections_pass_as_they_are() -> None:
    assert find() == []
    pathway = make_study(PATHWAY + SECTIONS).pathway
    assert pathway.find_prior("form", "validation") == pathway.priors[1]
    assert pathway.find_prior("form", "submission") is None
    assert [found is not None for found in (pathway.find_duty("closing"), pathway.find_duty("close"))] == [True, False]
    assert [found is not None for found in (pathway.find_document("sheet"), pathway.find_document(""))] == [True, False]
    rule = pathway.find_incident_rule("identifier_leak")
    assert rule is not None
    assert (rule.assess_days, pathway.find_incident_rule("other")) == (1, None)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        # priors
        (
            'route = "form"\nstep = "validation"',
            'route = "forms"\nstep = "validation"',
            'priors entry 2.route names route "forms", which is not under [[routes]]. Add or correct it. '
            'Did you mean "form"?',
        ),
        (
            "median = 60",
            "median = 86",
            "priors entry 1 has quartiles 40, 86 and 85. Put them in order: lower_quartile, median, upper_quartile.",
        ),
        (
            "lower_quartile = 40",
            "lower_quartile = 61",
            "priors entry 1 has quartiles 61, 60 and 85. Put them in order: lower_quartile, median, upper_quartile.",
        ),
        (
            'step = "validation"',
            'step = "decision"',
            'priors entry 2 is a second prior of route "form", step "decision". Remove one of them.',
        ),
        (
            'step = "decision"',
            'step = "decided"',
            'priors entry 1.step is "decided". It must be "submission", "validation" or "decision".',
        ),
        ("lower_quartile = 40", "lower_quartile = 0", "priors entry 1.lower_quartile is 0. It must be a whole number"),
        (
            "median = 60",
            "median = 60.5",
            "priors entry 1.median is 60.5. It must be a whole number of days, 1 to 1000.",
        ),
        ("weight = 4", "weight = 0", "priors entry 1.weight is 0. It must be a whole number from 1, without quotes."),
        ("weight = 4\n", "", "priors entry 1.weight is missing. Add weight ="),
        ('unit = "calendar"', 'unit = "weeks"', 'priors entry 1.unit is "weeks". It must be "calendar" or "working".'),
        ('source = "Made up."\n\n[[documents]]', "\n[[documents]]", "priors entry 2.source is missing. Add source ="),
        # documents
        (
            'label = "Information sheet"\n',
            'label = "Information sheet"\n\n[[documents]]\nid = "sheet"\nlabel = "Sheet"\n',
            'documents has "sheet" twice. Give each entry its own id, or remove one.',
        ),
        ('id = "sheet"', 'id = "Sheet 1"', 'documents.Sheet 1.id is "Sheet 1". It must be a short name in quotes'),
        ('label = "Information sheet"\n', "", "documents.sheet.label is missing. Add label ="),
        # duties
        (
            'counts_from = "approval"',
            'counts_from = "study_start"',
            'duties.yearly counts from "study_start" but has an approval. Name one only with counts_from = "approval".',
        ),
        (
            'approval = "rec"\noffset',
            "offset",
            'duties.yearly counts from "approval" but has no approval. Name one only with counts_from = "approval".',
        ),
        (
            'approval = "rec"\noffset',
            'approval = "reck"\noffset',
            'duties.yearly.approval names approval "reck", which is not under [[approvals]]. Add or correct it. '
            'Did you mean "rec"?',
        ),
        (
            'every = "12 months"',
            'every = "0 days"',
            'duties.yearly.every is "0 days". It must be longer than no time. Correct it.',
        ),
        (
            'every = "12 months"',
            'every = "-1 month"',
            'duties.yearly.every is "-1 month". It must be longer than no time. Correct it.',
        ),
        ('every = "12 months"', 'every = "yearly"', 'duties.yearly.every is "yearly". It must be a period in quotes'),
        ('offset = "90 days"', "offset = 90", "duties.closing.offset is 90. It must be a period in quotes, such as"),
        (
            'counts_from = "study_end"',
            'counts_from = "end"',
            'duties.closing.counts_from is "end". It must be "study_start", "data_collection_start", '
            '"data_collection_end", "study_end" or "approval".',
        ),
        (
            'every = "12 months"',
            'every = "12 months"\nuntil = "never"',
            'duties.yearly.until is "never". It must be "data_collection_end" or "study_end".',
        ),
        ('id = "closing"', 'id = "yearly"', 'duties has "yearly" twice. Give each entry its own id, or remove one.'),
        ('owner = "project_manager"\n', "", "duties.yearly.owner is missing. Add owner ="),
        # chasers
        (
            'of = ["council", "trust"]',
            'of = ["council", "trusts"]',
            'chasers.waiting.of names approval "trusts", which is not under [[approvals]]. Add or correct it. '
            'Did you mean "trust"?',
        ),
        (
            'of = ["yearly"]',
            'of = ["rec"]',
            'chasers.duty_near.of names duty "rec", which is not under [[duties]]. Add or correct it. '
            "Known: yearly, closing.",
        ),
        (
            'about = "incident"',
            'about = "incident"\nof = ["rec"]',
            "chasers.assess.of names rec, but an incident is no approval. Remove it.",
        ),
        (
            'counts_from = "turn"\ndays = 20',
            'counts_from = "turn"\ndays = -20',
            "chasers.waiting counts from the day on which a turn began, which is known only for the turn of an",
        ),
        (
            'counts_from = "due"\ndays = -14',
            'counts_from = "turn"\ndays = 14',
            "chasers.duty_near counts from the day on which a turn began, which is known only for the turn of an "
            'applicant, an authority or an incident, and only afterwards. Use counts_from = "due", or days from 0.',
        ),
        ("days = 20", "days = 1001", "chasers.waiting.days is 1001. It must be a whole number of days, -1000 to"),
        ('channel = "email"', 'channel = "fax"', 'chasers.waiting.channel is "fax". It must be "email" or'),
        (
            'about = "authority"',
            'about = "authorities"',
            'chasers.waiting.about is "authorities". It must be "authority", "applicant", "expiry", "review", "duty" '
            'or "incident". Correct it. Did you mean "authority"?',
        ),
        ('id = "duty_near"', 'id = "waiting"', 'chasers has "waiting" twice. Give each entry its own id, or remove'),
        ('template = "duty_near"\n', "", "chasers.duty_near.template is missing. Add template ="),
        ('template = "duty_near"', 'tempalte = "duty_near"', "chasers.duty_near.tempalte"),
        # incident rules
        (
            'category = "identifier_leak"',
            'category = "leak"',
            'incident_rules.leak.category is "leak". It must be "collected_while_not_open", "protocol_deviation", '
            '"consent_breach", "identifier_leak" or "other".',
        ),
        ("assess_days = 1\n", "assess_days = -1\n", "incident_rules.identifier_leak.assess_days is -1. It must be a"),
        (
            "[[incident_rules]]\n",
            '[[incident_rules]]\ncategory = "identifier_leak"\nowner = "sponsor"\nassess_days = 5\nunit = "working"\n'
            'source = "Made up."\n\n[[incident_rules]]\n',
            'incident_rules has "identifier_leak" twice. Give each entry its own category, or remove one.',
        ),
        ("[[incident_rules]]", "[[incident_rule]]", "[incident_rule] is no section here. Remove it or correct its"),
    ],
)
def test_each_fault_is_named(old: str, new: str, fault: str) -> None:
    faults = find((old, new))
    assert any(told.startswith(fault) for told in faults), faults


def test_a_faulty_duty_is_one_fault_and_not_one_more_where_it_is_named() -> None:
    (fault,) = find(('offset = "13 months"', 'offset = "a year"'))
    assert fault.startswith('duties.yearly.offset is "a year".')


def test_all_faults_of_the_sections_come_at_once() -> None:
    faults = find(
        ("median = 60", "median = 90"),
        ('every = "12 months"', 'every = "0 days"'),
        ('of = ["yearly"]', 'of = ["monthly"]'),
        ('of = ["council", "trust"]', 'of = ["nobody"]'),
    )
    assert len(faults) == 4


# The pathways of the repository ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ipc", "a new study"])
def test_shipped_pathways_hold_the_sections(name: str, tmp_path: Path) -> None:
    if name != "ipc":
        scaffold_study("trial", "A trial", tmp_path)
    study = (
        load_study("ipc", SITES_CONFIG, INSTRUMENTS) if name == "ipc" else load_study("trial", tmp_path, INSTRUMENTS)
    )
    pathway: Pathway = study.pathway
    assert [section for section in PATHWAY_SECTIONS if not getattr(pathway, section)] == []
    # every decision of the first approval has a prior to hold on to, or a route that nobody needs to use
    decided = {pathway.find_route(prior.route).approval for prior in pathway.priors if prior.step == "decision"}  # type: ignore[union-attr]  # a prior without a route does not pass
    needed = {approval for activity in ("approach", "recruit") for approval in pathway.find_needs(activity) or ()}
    assert needed <= decided
    assert {chaser.about for chaser in pathway.chasers} == {
        *("authority", "applicant", "expiry", "review", "duty", "incident")
    }
    assert {rule.category for rule in pathway.incident_rules} == {
        *("collected_while_not_open", "consent_breach", "protocol_deviation", "identifier_leak")
    }
    # the two rules of 35 days: silence grants at NHS bodies alone, and never at the committee or a council
    silent = {clock.route for clock in pathway.clocks if clock.silence_grants}
    assert {pathway.find_route(route).approval for route in silent} == {"capacity_and_capability"}  # type: ignore[union-attr]  # the same
    days = {clock.route: (clock.starts, clock.days) for clock in pathway.clocks}
    assert days["rec_modification"] == ("valid", 35)
    assert days["nhs_modification_considered"] == ("submitted", 35)
    for category in "ABC":
        asked = [a.id for a in pathway.approvals if pathway.find_routes(a.id, None, category, is_substantial=True)]
        assert asked == ["rec", "hra", "council_governance", "capacity_and_capability"]
    assert all(entry.source for entry in (*pathway.priors, *pathway.duties, *pathway.incident_rules))


def test_a_new_study_has_the_sections_of_ipc(tmp_path: Path) -> None:
    scaffold_study("trial", "A trial", tmp_path)
    new, ipc = load_study("trial", tmp_path, INSTRUMENTS).pathway, load_study("ipc", SITES_CONFIG, INSTRUMENTS).pathway
    for section in ("priors", "documents", "duties", "chasers", "incident_rules"):
        assert getattr(new, section) == getattr(ipc, section), section
