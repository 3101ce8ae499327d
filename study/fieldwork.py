"""How a study's fieldwork is run, as data: what is released when, who answers, what is chased and how, what is counted.

The rules are the file `fieldwork.toml` beside the protocol, and are adopted with the rest of the configuration. A study
without it collects what sites send by themselves: nothing is released and nobody is chased.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from typing import Any, Literal, get_args

from pydantic import Field, StrictBool, StrictInt

from study.calendar import Period
from study.definition_fields import (
    CODE_IN_QUOTES,
    DAY_WORDS,
    LINE_WORDS,
    PERIOD_WORDS,
    Code,
    Day,
    DefinitionModel,
    Line,
    PeriodText,
)
from study.identifiers import compute_identifier, parse_sound_number
from study.instruments import find_suggestion
from study.queries import RETURN_RULES

ConsentRoute = Literal["self", "consultee", "parent"]
CONSENT_ROUTES: tuple[str, ...] = get_args(ConsentRoute)
Obligation = Literal["return", "consent_copy", "reconsent", "query", "activity_figures"]
OBLIGATIONS: tuple[str, ...] = get_args(Obligation)
"""What a site can owe the study, besides approvals."""

CONSENT_TAKERS = ("site_researcher", "site_lead", "care_coordinator")
"""Roles that take consent where a study names none."""

_DAYS_WORDS = "a whole number of days, -1000 to 1000"
_NUMBER_WORDS = "a whole number, without quotes"
_PCT_WORDS = "a whole number of per cent, without quotes"
_YES_NO_WORDS = "true or false, without quotes"
_SOURCE_WORDS = f"where the figure comes from, as {LINE_WORDS}"
_SITES_WORDS = "a list of ids of sites"


class Release(DefinitionModel):
    """How the questionnaires of a wave go out.

    `mode`: "automatic" (the daily round sends what may go) or "on_request" (a coordinator does). A pack may go to its
    site `lead` before the window opens, so that it is there in time. When one goes, what may go within `gather` after
    that day goes along, so that a site gets few packs. More than `at_once` returns of one site at once need a
    coordinator's word: a site that joins late, or an imported backlog, starts no flood.
    """

    wave: Code = Field(description="the id of a wave, in quotes")
    mode: Literal["automatic", "on_request"] = Field(description='"automatic" or "on_request"')
    lead: PeriodText = Field(default=Period(), description=PERIOD_WORDS)
    gather: PeriodText = Field(default=Period(), description=PERIOD_WORDS)
    at_once: StrictInt = Field(default=100, ge=1, le=100_000, description=_NUMBER_WORDS)


class RespondentRule(DefinitionModel):
    """For whom a respondent is expected to answer: those whose consent came by one of these `routes` (none named: by
    any) and covers all of these `scopes`. A respondent without a rule is expected of everybody."""

    respondent: Literal["self", "proxy", "carer", "manager"] = Field(
        description='"self", "proxy", "carer" or "manager"'
    )
    routes: tuple[ConsentRoute, ...] = Field(default=(), description='a list of "self", "consultee" and "parent"')
    scopes: tuple[Code, ...] = Field(default=(), description="a list of ids of consent_scopes")


class ApproachReason(DefinitionModel):
    """Why somebody who was approached did not join."""

    id: Code = Field(description=CODE_IN_QUOTES)
    label: Line = Field(description=LINE_WORDS)
    outcome: Literal["declined", "not_eligible"] = Field(description='"declined" or "not_eligible"')


class IdentifierRule(DefinitionModel):
    """How new participant identifiers are made: `form`, with the site's {code}, a {number} of so many `digits` and a
    {check} digit (Damm's scheme: one wrong digit, or two that changed places, are found). `block`: so many at a time.
    """

    form: Line = Field(
        description="text in quotes with {code}, {number} and {check}, such as '{code}-P{number}{check}'"
    )
    digits: StrictInt = Field(ge=2, le=8, description="a whole number, 2 to 8")
    block: StrictInt = Field(ge=1, le=1000, description="a whole number, 1 to 1000")


class ConsentRule(DefinitionModel):
    """What is asked of consent that sites hold.

    The form is to be filed within `copy_within` (working days) of signing. `reconsent_after`: a consent is to be given
    anew after so long (left out: never). Until `sixteen_in` is over a parent may consent for a child. Data already
    given may be withdrawn within `data_withdrawal_within` of giving them (left out: as long as the study lasts).
    `not_withdrawals`: reasons for leaving that withdraw nothing, such as contact lost; linkage goes on after them.
    `release_scopes`: what a consent must cover besides, so that the answers are in a released dataset.
    `taken_by`: the roles that may take consent.
    """

    needed_scope: Code = Field(description="the id of the consent scope that questionnaires need, in quotes")
    linkage_scope: Code | None = Field(default=None, description="the id of a consent scope, in quotes")
    copy_within: StrictInt = Field(ge=0, le=1000, description="a whole number of working days, 0 to 1000")
    reconsent_after: PeriodText | None = Field(default=None, description=PERIOD_WORDS)
    reconsent_notice: PeriodText = Field(default=Period(days=28), description=PERIOD_WORDS)
    data_withdrawal_within: PeriodText | None = Field(default=None, description=PERIOD_WORDS)
    not_withdrawals: tuple[Code, ...] = Field(default=(), description="a list of ids of disposition_reasons")
    release_scopes: tuple[Code, ...] = Field(default=(), description="a list of ids of consent_scopes")
    taken_by: tuple[Code, ...] = Field(
        default=CONSENT_TAKERS, min_length=1, description="a list of roles, such as site_researcher, at least one"
    )
    document: Code | None = Field(
        default=None, description="the id of the document of approvals.toml whose versions consent forms are, in quotes"
    )
    source: Line = Field(description=_SOURCE_WORDS)


class LadderStep(DefinitionModel):
    """One step of a ladder of chasers for what a site owes.

    `about`: "return" (a questionnaire of one of `waves`, or of any), "consent_copy" (a signed form to be filed),
    "reconsent", "query" or "activity_figures". It falls due `days` working days after (negative: before) `counts_from`:
    "released" (the pack went out), "due" (the day that it is owed by) or "closes" (the window's last day). `to`: the
    role that is written to; `tells`: a role that is told as well. A step by "telephone" stands on the coordinator's
    list until the call is logged. A step that `encloses_copy` sends the questionnaire a second time.
    """

    id: Code = Field(description=CODE_IN_QUOTES)
    about: Obligation = Field(description=", ".join(f'"{name}"' for name in OBLIGATIONS))
    waves: tuple[Code, ...] = Field(default=(), description="a list of ids of waves")
    counts_from: Literal["released", "due", "closes"] = Field(description='"released", "due" or "closes"')
    days: StrictInt = Field(ge=-1000, le=1000, description=_DAYS_WORDS)
    to: Code = Field(description="the role that is chased, such as site_researcher, in quotes")
    channel: Literal["email", "telephone"] = Field(description='"email" or "telephone"')
    template: Code = Field(description=CODE_IN_QUOTES)
    tells: Code | None = Field(default=None, description="the role that is told, such as project_manager, in quotes")
    encloses_copy: StrictBool = Field(default=False, description=_YES_NO_WORDS)


class QuietPeriod(DefinitionModel):
    """Days on which nobody is chased: Christmas, the weeks before an election, a site's own leave. `sites`: only these;
    `about`: only for these. Stop notices go out all the same."""

    id: Code = Field(description=CODE_IN_QUOTES)
    label: Line = Field(description=LINE_WORDS)
    from_on: Day = Field(description=DAY_WORDS)
    until_on: Day = Field(description=DAY_WORDS)
    sites: tuple[str, ...] = Field(default=(), description=_SITES_WORDS)
    about: tuple[Code, ...] = Field(default=(), description='a list of what is owed, such as "return"')

    def covers(self, on: date) -> bool:
        return self.from_on <= on <= self.until_on


class ChasingRule(DefinitionModel):
    """At most `weekly_digests` a week to one person (Monday to Sunday, one a day at most in any case), and whose answer
    is expected within `answer_days` of a step, for the figures of what each step brings. A query is to be answered
    within `query_within` working days."""

    weekly_digests: StrictInt = Field(ge=1, le=7, description="a whole number, 1 to 7")
    query_within: StrictInt = Field(default=5, ge=0, le=100, description="a whole number of working days, 0 to 100")
    answer_days: StrictInt = Field(ge=1, le=365, description="a whole number of days, 1 to 365")
    coordinator: Code = Field(description="the role that runs the fieldwork, such as fieldwork_coordinator, in quotes")
    manager: Code = Field(description="the role that is told of what is stuck, such as project_manager, in quotes")


class HeldFilesRule(DefinitionModel):
    """What becomes of a file from a site in which something was found that may tell who a person is: an NHS number, a
    name, a postcode, an e-mail address, a telephone number, a date of birth.

    `keep`: "encrypted" (a copy that only the key of the settings opens, until a person has looked at it) or "nothing"
    (the file is not kept; the site sends another, or the same again once a person has allowed it).
    """

    keep: Literal["encrypted", "nothing"] = Field(description='"encrypted" or "nothing"')
    source: Line = Field(description=_SOURCE_WORDS)


class ReturnChecks(DefinitionModel):
    """What sites are asked of returns beyond single records (`study.return_checks`), and from when on.

    `leaves_out`: rules that this study does not ask about. `recall_overlap_pct`: so much of a recall period may be told
    twice. A column is often blank at `blank_pct` of at least `blank_rows` rows; a number such as 99 is suspected at
    `sentinel_pct` of the answers, at least `sentinel_rows` of them; a sheet is answered alike where `alike_pct` of at
    least `alike_rows` rows have one answer to all of at least `alike_items` questions. Two people are swapped where
    each is `swap_apart_pct` of the range or more from their own earlier answers and within `swap_alike_pct` of the
    other's, by at least `swap_items` items.
    """

    leaves_out: tuple[Code, ...] = Field(default=(), description='a list of rules, such as "outside_window"')
    recall_overlap_pct: StrictInt = Field(default=25, ge=0, le=100, description=_PCT_WORDS)
    blank_rows: StrictInt = Field(default=10, ge=2, description=_NUMBER_WORDS)
    blank_pct: StrictInt = Field(default=50, ge=1, le=100, description=_PCT_WORDS)
    sentinel_rows: StrictInt = Field(default=3, ge=2, description=_NUMBER_WORDS)
    sentinel_pct: StrictInt = Field(default=20, ge=1, le=100, description=_PCT_WORDS)
    alike_rows: StrictInt = Field(default=5, ge=2, description=_NUMBER_WORDS)
    alike_pct: StrictInt = Field(default=50, ge=1, le=100, description=_PCT_WORDS)
    alike_items: StrictInt = Field(default=8, ge=3, description=_NUMBER_WORDS)
    swap_items: StrictInt = Field(default=10, ge=3, description=_NUMBER_WORDS)
    swap_apart_pct: StrictInt = Field(default=25, ge=1, le=100, description=_PCT_WORDS)
    swap_alike_pct: StrictInt = Field(default=5, ge=0, le=100, description=_PCT_WORDS)
    source: Line = Field(default="Assumed.", description=_SOURCE_WORDS)


class AcrossTest(DefinitionModel):
    """True of a record of `instrument` in which each of `items` is as told: one of `equals`, `at_least` or `at_most` a
    number."""

    instrument: Code = Field(description="the id of one of the study's instruments, in quotes")
    items: tuple[Code, ...] = Field(min_length=1, description="a list of ids of items, at least one")
    equals: tuple[StrictInt, ...] = Field(default=(), description="a list of answers, such as [1]")
    at_least: StrictInt | None = Field(default=None, description=_NUMBER_WORDS)
    at_most: StrictInt | None = Field(default=None, description=_NUMBER_WORDS)


class AcrossRule(DefinitionModel):
    """Answers of one respondent at one wave to different questionnaires that cannot ("hard") or can hardly ("soft")
    stand beside each other: all tests are true. The site is asked at the last item of the last test."""

    id: Code = Field(description=CODE_IN_QUOTES)
    says: Line = Field(description=LINE_WORDS)
    severity: Literal["hard", "soft"] = Field(description='"hard" or "soft"')
    never_together: tuple[AcrossTest, ...] = Field(
        min_length=2, description='a list of tests: { instrument = "eq5d5l", items = ["eq5d5l_ad"], equals = [5] }'
    )


class SafeguardingRule(DefinitionModel):
    """Who is told, on the same day, of answers that speak of danger, and who next.

    `clinician`: the role that is told, of the site or else of the study; deputies stand in, as the contacts say. What
    nobody has acknowledged `escalate_after` working days later (0: at once) is told to the role `escalates_to`, and so
    is what no clinician can be told. `leaves_out`: triggers of instruments that do not count in this study, as
    "instrument.trigger". `words`: beginnings of words, or phrases, that raise an alert in a remark on safety; sheets
    have a column for such remarks where there are any.
    """

    clinician: Code = Field(description="the role that is told, such as safeguarding_clinician, in quotes")
    escalate_after: StrictInt = Field(ge=0, le=20, description="a whole number of working days, 0 to 20")
    escalates_to: Code = Field(description="the role that is told next, such as chief_investigator, in quotes")
    leaves_out: tuple[str, ...] = Field(
        default=(), description='a list of triggers in quotes, such as "ascot_sct4.personal_safety"'
    )
    words: tuple[Line, ...] = Field(default=(), description='a list of words in quotes, such as "abus"')
    source: Line = Field(description=_SOURCE_WORDS)


class SafeguardingTrigger(DefinitionModel):
    """A trigger of the study's own: an answer to `item` of `instrument` that is one of `equals`, `at_least` or
    `at_most` a number. `about` says what it concerns, and no answer."""

    id: Code = Field(description=CODE_IN_QUOTES)
    about: Line = Field(description=LINE_WORDS)
    instrument: Code = Field(description="the id of one of the study's instruments, in quotes")
    item: Code = Field(description="the id of an item, in quotes")
    equals: tuple[StrictInt, ...] = Field(default=(), description="a list of answers, such as [1]")
    at_least: StrictInt | None = Field(default=None, description=_NUMBER_WORDS)
    at_most: StrictInt | None = Field(default=None, description=_NUMBER_WORDS)


class InstrumentReport(DefinitionModel):
    """From how many people on a figure of how an instrument behaved is given, and from which share on it is flagged
    (`study.psychometrics.Limits` says of what)."""

    smallest_group: StrictInt = Field(default=10, ge=5, le=1000, description=_NUMBER_WORDS)
    smallest_for_agreement: StrictInt = Field(default=30, ge=10, le=1000, description=_NUMBER_WORDS)
    smallest_for_floor: StrictInt = Field(default=50, ge=10, le=1000, description=_NUMBER_WORDS)
    missing_pct: StrictInt = Field(default=10, ge=0, le=100, description=_PCT_WORDS)
    floor_pct: StrictInt = Field(default=15, ge=1, le=100, description=_PCT_WORDS)
    source: Line = Field(description=_SOURCE_WORDS)


class DisclosureRule(DefinitionModel):
    """What an external edition hides: counts from 1 to below `threshold`, and whatever would tell them more closely;
    what it shows is a multiple of `base` (1: exact)."""

    threshold: StrictInt = Field(default=10, ge=2, le=1000, description=_NUMBER_WORDS)
    base: StrictInt = Field(default=5, ge=1, le=100, description=_NUMBER_WORDS)
    source: Line = Field(description=_SOURCE_WORDS)


class Figure(DefinitionModel):
    """A count that each site reports for every month: to the evaluation, and as it told NHS England, to compare.

    The two may differ: each has rules of its own. Neither is a fault, nor a query to the site; the coordinator's list
    has one entry a site and figure, to ask once how each is counted.

    It is owed `due` after the month's last day.
    """

    id: Code = Field(description=CODE_IN_QUOTES)
    label: Line = Field(description=LINE_WORDS)
    due: PeriodText = Field(description=PERIOD_WORDS)
    from_month: str = Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])$", description='a month in quotes, such as "2017-07"')
    until_month: str = Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])$", description='a month in quotes, such as "2018-11"')


class Target(DefinitionModel):
    """So many are to be reached by a day, over all sites or at one; from `from_on` on, in even steps."""

    measure: Literal["approached", "agreed", "consented", "baseline", "follow_up"] = Field(
        description='"approached", "agreed", "consented", "baseline" or "follow_up"'
    )
    site: str = Field(default="", description="the id of a site in quotes; left out: all of them together")
    n: StrictInt = Field(ge=1, le=1_000_000, description=_NUMBER_WORDS)
    from_on: Day = Field(description=DAY_WORDS)
    by: Day = Field(description=DAY_WORDS)
    source: Line = Field(description=_SOURCE_WORDS)


class Burden(DefinitionModel):
    """How many minutes of a site's time something takes, by assumption."""

    work: Literal["approach", "consent", "pack", "questionnaire", "digest", "call", "query", "activity_figures"] = (
        Field(description='what is done: "approach", "consent", "pack", "questionnaire", "digest", "call", "query" ...')
    )
    minutes: StrictInt = Field(ge=0, le=1000, description="a whole number of minutes, 0 to 1000")
    source: Line = Field(description=_SOURCE_WORDS)


_USUAL_CHECKS = ReturnChecks()
_USUAL_DISCLOSURE = DisclosureRule(source="The usual rule: the study states none of its own.")


class Fieldwork(DefinitionModel):
    """How the fieldwork of a study is run."""

    releases: tuple[Release, ...] = ()
    respondents: tuple[RespondentRule, ...] = ()
    approach_reasons: tuple[ApproachReason, ...] = ()
    identifiers: tuple[IdentifierRule, ...] = ()
    consent: tuple[ConsentRule, ...] = ()
    ladder: tuple[LadderStep, ...] = ()
    quiet_periods: tuple[QuietPeriod, ...] = ()
    chasing: tuple[ChasingRule, ...] = ()
    held_files: tuple[HeldFilesRule, ...] = ()
    return_checks: tuple[ReturnChecks, ...] = ()
    across: tuple[AcrossRule, ...] = ()
    safeguarding: tuple[SafeguardingRule, ...] = ()
    safeguarding_triggers: tuple[SafeguardingTrigger, ...] = ()
    instrument_report: tuple[InstrumentReport, ...] = ()
    disclosure: tuple[DisclosureRule, ...] = ()
    figures: tuple[Figure, ...] = ()
    targets: tuple[Target, ...] = ()
    burdens: tuple[Burden, ...] = ()

    @property
    def identifier_rule(self) -> IdentifierRule | None:
        return next(iter(self.identifiers), None)

    @property
    def consent_rule(self) -> ConsentRule | None:
        return next(iter(self.consent), None)

    @property
    def consent_takers(self) -> tuple[str, ...]:
        """The roles that may stand in a consent log as those who took the consent."""
        return self.consent_rule.taken_by if self.consent_rule else CONSENT_TAKERS

    @property
    def chasing_rule(self) -> ChasingRule | None:
        """None: nobody is chased for what sites owe."""
        return next(iter(self.chasing), None)

    @property
    def keeps_held_files(self) -> bool:
        """Whether an encrypted copy is kept of a file that was held. Where a study says nothing, nothing is kept."""
        return any(rule.keep == "encrypted" for rule in self.held_files)

    @property
    def return_checks_rule(self) -> ReturnChecks:
        """Where a study says nothing: every rule, with its usual thresholds."""
        return next(iter(self.return_checks), _USUAL_CHECKS)

    @property
    def safeguarding_rule(self) -> SafeguardingRule | None:
        """None: no alert is raised."""
        return next(iter(self.safeguarding), None)

    @property
    def instrument_report_rule(self) -> InstrumentReport | None:
        """None: the usual limits."""
        return next(iter(self.instrument_report), None)

    @property
    def disclosure_rule(self) -> DisclosureRule:
        return next(iter(self.disclosure), _USUAL_DISCLOSURE)

    def find_release(self, wave_id: str) -> Release | None:
        """How a wave goes out; None: it is not sent out by the product."""
        return next((release for release in self.releases if release.wave == wave_id), None)

    def find_respondent_rule(self, respondent: str) -> RespondentRule | None:
        return next((rule for rule in self.respondents if rule.respondent == respondent), None)

    def find_approach_reason(self, text: str) -> ApproachReason | None:
        """The reason with this id or label, whatever the case."""
        folded = text.strip().casefold()
        return next((r for r in self.approach_reasons if folded in (r.id.casefold(), r.label.casefold())), None)

    def find_step(self, step_id: str) -> LadderStep | None:
        return next((step for step in self.ladder if step.id == step_id), None)

    def find_figure(self, figure_id: str) -> Figure | None:
        return next((figure for figure in self.figures if figure.id == figure_id), None)

    def find_minutes(self, work: str) -> int:
        """Minutes by assumption; 0 where none is stated."""
        return next((burden.minutes for burden in self.burdens if burden.work == work), 0)


# section: (model, the field that names an entry, must there be one)
FIELDWORK_SECTIONS: dict[str, tuple[type[DefinitionModel], str, bool]] = {
    "releases": (Release, "wave", False),
    "respondents": (RespondentRule, "respondent", False),
    "approach_reasons": (ApproachReason, "id", False),
    "identifiers": (IdentifierRule, "", False),
    "consent": (ConsentRule, "", False),
    "ladder": (LadderStep, "id", False),
    "quiet_periods": (QuietPeriod, "id", False),
    "chasing": (ChasingRule, "", False),
    "held_files": (HeldFilesRule, "", False),
    "return_checks": (ReturnChecks, "", False),
    "across": (AcrossRule, "id", False),
    "safeguarding": (SafeguardingRule, "", False),
    "safeguarding_triggers": (SafeguardingTrigger, "id", False),
    "instrument_report": (InstrumentReport, "", False),
    "disclosure": (DisclosureRule, "", False),
    "figures": (Figure, "id", False),
    "targets": (Target, "", False),
    "burdens": (Burden, "work", False),
}
_ONLY_ONE = (
    *("identifiers", "consent", "chasing", "held_files", "return_checks", "safeguarding", "instrument_report"),
    "disclosure",
)


def find_fieldwork_faults(
    entries: Mapping[str, Sequence[tuple[str, Any]]],
    wave_ids: Collection[str],
    scope_ids: Collection[str],
    site_ids: Collection[str],
    document_ids: Collection[str] | None,
    respondents: Collection[str],
    reason_ids: Collection[str] = (),
    site_codes: Collection[str] = (),
    identifier_pattern: str = "",
    identifier_example: str = "",
) -> Iterator[str]:
    """What does not fit together in the rules of the fieldwork: sentences that begin with the path of the entry.

    `entries`: section to (path, model), faulty entries left out. The others: what the protocol, the sites and the
    pathway declare.
    """

    def unknown(words: Collection[str], known: Collection[str], where: str, called: str) -> Iterator[str]:
        for word in words:
            if word not in known:
                hint = find_suggestion(word, known) or f" Known: {', '.join(known) or 'none'}."
                yield f'{where} names {called} "{word}", which the study does not have. Correct or remove it.{hint}'

    for section in _ONLY_ONE:
        for path, _ in entries[section][1:]:
            yield f"{path}: there is one [[{section}]] already. Make them one."
    for path, release in entries["releases"]:
        yield from unknown([release.wave], wave_ids, f"{path}.wave", "wave")
        for field, words in (("lead", "before the window opens"), ("gather", "in which more goes along")):
            period = getattr(release, field)
            if period.months < 0 or period.days < 0:
                yield f'{path}.{field} is "{period}". Give the time {words} as "0 days" or more.'
    for path, rule in entries["respondents"]:
        yield from unknown([rule.respondent], respondents, f"{path}.respondent", "respondent")
        yield from unknown(rule.scopes, scope_ids, f"{path}.scopes", "consent scope")
    for path, rule in entries["identifiers"]:
        yield from _find_identifier_faults(path, rule, site_codes, identifier_pattern, identifier_example)
    for path, rule in entries["consent"]:
        scopes = [rule.needed_scope, *([rule.linkage_scope] if rule.linkage_scope else []), *rule.release_scopes]
        yield from unknown(scopes, scope_ids, path, "consent scope")
        yield from unknown(rule.not_withdrawals, reason_ids, f"{path}.not_withdrawals", "disposition reason")
        if rule.document and document_ids is not None:  # a study without a pathway has no documents yet
            yield from unknown([rule.document], document_ids, f"{path}.document", "document")
    for path, step in entries["ladder"]:
        yield from unknown(step.waves, wave_ids, f"{path}.waves", "wave")
        if step.waves and step.about != "return":
            yield f'{path}.waves is for steps about "return" only. Remove it.'
        if step.counts_from != "due" and step.about != "return":
            yield f'{path}.counts_from is "{step.counts_from}"; what is no return counts from "due". Correct it.'
        if step.encloses_copy and step.about != "return":
            yield f'{path}.encloses_copy is for steps about "return" only. Remove it.'
        if step.about != "return" and step.days < 0:
            yield f"{path}.days is {step.days}: what is no return is chased when it is overdue. Give 0 or more."
    if entries["ladder"] and not entries["chasing"]:
        yield "there is a ladder but no [[chasing]]. Add it: it says how often a person may be written to."
    for path, period in entries["quiet_periods"]:
        yield from unknown(period.sites, site_ids, f"{path}.sites", "site")
        yield from unknown(period.about, [*OBLIGATIONS, "approval"], f"{path}.about", "obligation")
        if period.until_on < period.from_on:
            yield f"{path}.until_on ({period.until_on}) is before from_on ({period.from_on}). Correct one of them."
    for path, checks in entries["return_checks"]:
        yield from unknown(checks.leaves_out, RETURN_RULES, f"{path}.leaves_out", "rule")
    for path, across in entries["across"]:
        for test in across.never_together:
            if (bool(test.equals), test.at_least is not None, test.at_most is not None).count(True) != 1:
                yield f"{path}: each test has one of equals, at_least and at_most. Give one."
        if len({test.instrument for test in across.never_together}) < 2:
            yield f"{path} is about one questionnaire. Put it into [[rules]] of its definition."
    for path, trigger in entries["safeguarding_triggers"]:
        if (bool(trigger.equals), trigger.at_least is not None, trigger.at_most is not None).count(True) != 1:
            yield f"{path}: a trigger has one of equals, at_least and at_most. Give one."
    for path, disclosure in entries["disclosure"]:
        if disclosure.base > disclosure.threshold:
            yield f"{path}.base ({disclosure.base}) is above threshold ({disclosure.threshold}). Correct one of them."
    for path, figure in entries["figures"]:
        if figure.until_month < figure.from_month:
            yield f"{path}.until_month ({figure.until_month}) is before from_month ({figure.from_month}). Correct one."
    for path, target in entries["targets"]:
        yield from unknown([target.site] if target.site else [], site_ids, f"{path}.site", "site")
        if target.by <= target.from_on:
            yield f"{path}.by ({target.by}) is not after from_on ({target.from_on}). Correct one of them."


_PARTS = ("{code}", "{number}", "{check}")


def _find_identifier_faults(
    path: str, rule: IdentifierRule, site_codes: Collection[str], pattern: str, example: str
) -> Iterator[str]:
    """What keeps the identifiers that a rule makes from being taken as the study's own when they come back."""
    wrong = [part for part in _PARTS if rule.form.count(part) != 1]
    yield from (f'{path}.form is "{rule.form}". It must hold {part} once. Correct it.' for part in wrong)
    if not wrong and re.search(r"[{}]", re.sub("|".join(map(re.escape, _PARTS)), "", rule.form)):
        yield f'{path}.form is "{rule.form}". Only {", ".join(_PARTS)} may stand in braces. Correct it.'
        return
    try:
        known = re.compile(pattern)
    except re.error:
        return  # said already, as a fault of study.toml
    if wrong or not pattern:
        return
    numbers = (1, 10**rule.digits - 1)
    made = [(code, compute_identifier(rule, code, number)) for code in site_codes for number in numbers]
    for code, identifier in made:
        found = known.fullmatch(identifier)
        if found is None or found.groupdict().get("site", code) != code:
            yield (
                f'{path} makes "{identifier}" for the site with the code {code}, which study.participant_id_pattern '
                f"'{pattern}' does not take as one of that site. Correct one of the two."
            )
            return
    if made and example and parse_sound_number(rule, example) is None:
        yield (
            f'{path} makes no identifier like study.participant_id_example, "{example}": its check digit does not fit, '
            f'or its form. Take one such as "{made[0][1]}".'
        )
