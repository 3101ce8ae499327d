"""The pathway of approvals as data: what a study needs, from whom, in which order, and how long each may take.

A pathway is the file `approvals.toml` beside the protocol, so it is adopted with the rest of the configuration and a
study may state other figures than the usual ones. An approval is needed once for the study, once for each site, or once
for each body of certain kinds at a site, where it may also concern one person. It has one route or more; a route
may have clocks, each for what started on or after a day. Activities name the approvals that they rest on.

Two judgement calls. What an activity needs is what it names and nothing else, so that the file shows it in one place.
A body that works at two sites gives its approval at each: an approval recorded for one site opens no other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from typing import Any, Literal, get_args

from pydantic import Field, StrictBool, StrictInt

from study.calendar import Period
from study.definition_fields import (
    CODE_IN_QUOTES,
    DAY_WORDS,
    LINE_WORDS,
    PERIOD_WORDS,
    BodyKind,
    Code,
    Day,
    DefinitionModel,
    Line,
    PeriodText,
)
from study.instruments import find_suggestion

Activity = Literal["approach", "recruit", "collect_baseline", "collect_follow_up", "link_records", "interview"]
ACTIVITIES: tuple[str, ...] = get_args(Activity)
Level = Literal["study", "site", "body", "person"]

ModificationCategory = Literal["A", "B", "C"]

_KIND_WORDS = 'a list of "council", "ccg", "icb", "nhs_trust", "clinic", "university" and "other"'
_APPROVALS_WORDS = "a list of ids of approvals"
_DAYS_WORDS = "a whole number of days, 0 to 1000"
_SOURCE_WORDS = f"where the figures come from, as {LINE_WORDS}"


class Approval(DefinitionModel):
    """An approval that a study may need. `level` says how many times; `authority` who decides.

    `submitted_after` and `granted_after` name approvals that must be in force before. An approval with
    `needed_from_n_bodies` is needed only if the study has that many bodies of the `counted_kinds`.
    """

    id: Code = Field(description=CODE_IN_QUOTES)
    label: Line = Field(description=LINE_WORDS)
    level: Level = Field(description='"study", "site", "body" or "person" (a person at a body)')
    authority: Line = Field(description=f"who decides, as {LINE_WORDS}")
    body_kinds: tuple[BodyKind, ...] = Field(default=(), description=_KIND_WORDS)
    submitted_after: tuple[Code, ...] = Field(default=(), description=_APPROVALS_WORDS)
    granted_after: tuple[Code, ...] = Field(default=(), description=_APPROVALS_WORDS)
    for_studies_from: Day | None = Field(default=None, description=DAY_WORDS)
    for_studies_until: Day | None = Field(default=None, description=DAY_WORDS)
    needed_from_n_bodies: StrictInt | None = Field(
        default=None, ge=1, le=1000, description="a whole number from 1, without quotes"
    )
    counted_kinds: tuple[BodyKind, ...] = Field(default=(), description=_KIND_WORDS)
    not_needed_at: tuple[Code, ...] = Field(default=(), description="a list of ids of bodies that need not give it")
    must_state_expiry: StrictBool = Field(default=False, description="true or false, without quotes")
    review_every: PeriodText | None = Field(default=None, description='a period in quotes, such as "12 months"')
    review_form_before: PeriodText | None = Field(default=None, description='a period in quotes, such as "4 weeks"')


class Route(DefinitionModel):
    """A way in which an approval is sought. It is open to what is submitted from `open_from` to `open_until`.

    A route with `for_modifications` is not for the study as first approved but for changes of these categories (A: all
    NHS bodies consider it, B: some, C: none has to); with `if_substantial`, only for changes that are.
    """

    id: Code = Field(description=CODE_IN_QUOTES)
    approval: Code = Field(description="the id of an approval, in quotes")
    label: Line = Field(description=LINE_WORDS)
    open_from: Day | None = Field(default=None, description=DAY_WORDS)
    open_until: Day | None = Field(default=None, description=DAY_WORDS)
    for_modifications: tuple[ModificationCategory, ...] = Field(default=(), description='a list of "A", "B" and "C"')
    if_substantial: StrictBool = Field(default=False, description="true or false, without quotes")

    def is_open_on(self, on: date) -> bool:
        return (self.open_from is None or self.open_from <= on) and (self.open_until is None or on <= self.open_until)


class Clock(DefinitionModel):
    """How long a route may take, for what started on or after `applies_from`: of several, the latest that began.

    The authority has `days` of the `unit`, counted from the day after the start (left out: no limit is published, and
    the days are only counted). The first `n_stops` requests for
    information stop the clock until the day of the answer (left out: every request does). Then it goes on where
    it stopped; or, with `after_answer_days`, the decision is due so many days after the answer instead. `answer_days`
    (calendar) is what the applicant has to answer; `validation_days` what the authority has to find it valid;
    `mending_days` (calendar) what the applicant has to answer a request made before that. With `silence_grants` nobody
    has to decide: when the days are over without an objection, a change may start.
    """

    route: Code = Field(description="the id of a route, in quotes")
    applies_from: Day | None = Field(default=None, description=DAY_WORDS)
    starts: Literal["valid", "submitted"] = Field(description='"valid" or "submitted" (the day that it counts from)')
    days: StrictInt | None = Field(default=None, ge=0, le=1000, description=_DAYS_WORDS)
    unit: Literal["calendar", "working"] = Field(description='"calendar" or "working"')
    n_stops: StrictInt | None = Field(default=None, ge=0, le=1000, description="a whole number from 0, without quotes")
    after_answer_days: StrictInt | None = Field(default=None, ge=0, le=1000, description=_DAYS_WORDS)
    answer_days: StrictInt | None = Field(default=None, ge=0, le=1000, description=_DAYS_WORDS)
    validation_days: StrictInt | None = Field(default=None, ge=0, le=1000, description=_DAYS_WORDS)
    validation_unit: Literal["calendar", "working"] = Field(default="working", description='"calendar" or "working"')
    mending_days: StrictInt | None = Field(default=None, ge=0, le=1000, description=_DAYS_WORDS)
    silence_grants: StrictBool = Field(default=False, description="true or false, without quotes")
    source: Line = Field(description=_SOURCE_WORDS)


class Prior(DefinitionModel):
    """How long a step usually takes elsewhere: what a forecast holds on to while the study has few cases of its own.

    `step`: "submission" (from the day on which it can be sent in until it is), "validation" (until it is valid) or
    "decision" (until it is in force). `weight`: as many completed cases of this study count as much as the prior.
    """

    route: Code = Field(description="the id of a route, in quotes")
    step: Literal["submission", "validation", "decision"] = Field(
        description='"submission", "validation" or "decision"'
    )
    lower_quartile: StrictInt = Field(ge=1, le=1000, description="a whole number of days, 1 to 1000")
    median: StrictInt = Field(ge=1, le=1000, description="a whole number of days, 1 to 1000")
    upper_quartile: StrictInt = Field(ge=1, le=1000, description="a whole number of days, 1 to 1000")
    unit: Literal["calendar", "working"] = Field(description='"calendar" or "working"')
    weight: StrictInt = Field(ge=1, le=1000, description="a whole number from 1, without quotes")
    source: Line = Field(description=_SOURCE_WORDS)


class Document(DefinitionModel):
    """A document that is approved in versions, such as the information sheet."""

    id: Code = Field(description=CODE_IN_QUOTES)
    label: Line = Field(description=LINE_WORDS)


class Duty(DefinitionModel):
    """What the study owes others by a day: a report, an upload, a notice, a destruction of data.

    It falls due `offset` after what it counts from, and then `every` so often while that is not after `until`. With
    `counts_from = "approval"` it counts from the day on which that `approval` came into force (at every place).
    """

    id: Code = Field(description=CODE_IN_QUOTES)
    label: Line = Field(description=LINE_WORDS)
    to: Line = Field(description=f"who receives it, as {LINE_WORDS}")
    owner: Code = Field(description="the role that sees to it, such as project_manager, in quotes")
    counts_from: Literal["study_start", "data_collection_start", "data_collection_end", "study_end", "approval"] = (
        Field(description='"study_start", "data_collection_start", "data_collection_end", "study_end" or "approval"')
    )
    approval: Code | None = Field(default=None, description="the id of an approval, in quotes")
    offset: PeriodText = Field(description=PERIOD_WORDS)
    every: PeriodText | None = Field(default=None, description=PERIOD_WORDS)
    until: Literal["data_collection_end", "study_end"] = Field(
        default="study_end", description='"data_collection_end" or "study_end"'
    )
    source: Line = Field(description=_SOURCE_WORDS)


class Chaser(DefinitionModel):
    """One rung of a ladder of chasers: who is chased for what, when and how.

    `about`: "authority" (it is an authority's turn), "applicant" (ours), "expiry" (a last day of force comes), "review"
    (the form of a periodic review), "duty", "incident". It falls due `days` of the `unit` after (negative: before)
    `counts_from`: "turn" (the day on which the turn began) or "due" (the day that something must be done by). Of
    `approvals` or duties only those named, if any are.
    """

    id: Code = Field(description=CODE_IN_QUOTES)
    about: Literal["authority", "applicant", "expiry", "review", "duty", "incident"] = Field(
        description='"authority", "applicant", "expiry", "review", "duty" or "incident"'
    )
    of: tuple[Code, ...] = Field(default=(), description="a list of ids of approvals or duties")
    counts_from: Literal["turn", "due"] = Field(description='"turn" or "due"')
    days: StrictInt = Field(ge=-1000, le=1000, description="a whole number of days, -1000 to 1000")
    unit: Literal["calendar", "working"] = Field(description='"calendar" or "working"')
    to: Code = Field(description="the role that is chased, such as r_and_d_office, in quotes")
    channel: Literal["email", "telephone"] = Field(description='"email" or "telephone"')
    template: Code = Field(description=CODE_IN_QUOTES)


class IncidentRule(DefinitionModel):
    """Who assesses an incident of a category, and by when."""

    category: Literal[
        "collected_while_not_open", "protocol_deviation", "consent_breach", "identifier_leak", "other"
    ] = Field(
        description='"collected_while_not_open", "protocol_deviation", "consent_breach", "identifier_leak" or "other"'
    )
    owner: Code = Field(description="the role that answers for it, such as sponsor, in quotes")
    assess_days: StrictInt = Field(ge=0, le=1000, description=_DAYS_WORDS)
    unit: Literal["calendar", "working"] = Field(description='"calendar" or "working"')
    source: Line = Field(description=_SOURCE_WORDS)


class ActivityNeeds(DefinitionModel):
    """What must be in force before this may be done at a site. An activity that is left out may not be done."""

    id: Activity = Field(description=", ".join(f'"{activity}"' for activity in ACTIVITIES))
    needs: tuple[Code, ...] = Field(description="a list of ids of approvals (may be empty: [])")


class Pathway(DefinitionModel):
    """The approvals of a study, how each is sought and timed, and what each activity rests on."""

    approvals: tuple[Approval, ...] = ()
    routes: tuple[Route, ...] = ()
    clocks: tuple[Clock, ...] = ()
    activities: tuple[ActivityNeeds, ...] = ()
    priors: tuple[Prior, ...] = ()
    documents: tuple[Document, ...] = ()
    duties: tuple[Duty, ...] = ()
    chasers: tuple[Chaser, ...] = ()
    incident_rules: tuple[IncidentRule, ...] = ()

    def find_approval(self, approval_id: str) -> Approval | None:
        return next((approval for approval in self.approvals if approval.id == approval_id), None)

    def find_route(self, route_id: str) -> Route | None:
        return next((route for route in self.routes if route.id == route_id), None)

    def find_routes(
        self, approval_id: str, on: date | None, category: str = "", is_substantial: bool = False
    ) -> tuple[Route, ...]:
        """The routes by which an approval can be sought on a day (None: on any): for the study as first approved, or,
        with its `category`, for a modification."""
        return tuple(
            route
            for route in self.routes
            if route.approval == approval_id
            and (category in route.for_modifications if category else not route.for_modifications)
            and (is_substantial or not route.if_substantial)
            and (on is None or route.is_open_on(on))
        )

    def find_prior(self, route_id: str, step: str) -> Prior | None:
        return next((prior for prior in self.priors if (prior.route, prior.step) == (route_id, step)), None)

    def find_duty(self, duty_id: str) -> Duty | None:
        return next((duty for duty in self.duties if duty.id == duty_id), None)

    def find_document(self, document_id: str) -> Document | None:
        return next((document for document in self.documents if document.id == document_id), None)

    def find_incident_rule(self, category: str) -> IncidentRule | None:
        return next((rule for rule in self.incident_rules if rule.category == category), None)

    def find_needs(self, activity: str) -> tuple[str, ...] | None:
        """The ids of the approvals that an activity needs; None if the pathway does not plan the activity."""
        return next((entry.needs for entry in self.activities if entry.id == activity), None)


# section: (model, the field that names an entry, must there be one)
PATHWAY_SECTIONS: dict[str, tuple[type[DefinitionModel], str, bool]] = {
    "approvals": (Approval, "id", False),
    "routes": (Route, "id", False),
    "clocks": (Clock, "", False),
    "activities": (ActivityNeeds, "id", True),
    "priors": (Prior, "", False),
    "documents": (Document, "id", False),
    "duties": (Duty, "id", False),
    "chasers": (Chaser, "id", False),
    "incident_rules": (IncidentRule, "category", False),
}


def find_pathway_faults(
    entries: Mapping[str, Sequence[tuple[str, Any]]],
    approval_ids: Collection[str],
    route_ids: Collection[str],
    routed: Collection[str],
    duty_ids: Collection[str],
    body_ids: Collection[str],
) -> list[str]:
    """What does not fit together in a pathway: sentences that begin with the path of the entry.

    `entries`: section to (path, model), faulty entries left out. The others count faulty entries as declared: ids of
    approvals and routes, approvals that some route names, ids of duties, and ids of the bodies at the study's sites.
    """
    approvals: list[tuple[str, Approval]] = list(entries["approvals"])
    faults = []
    for path, approval in approvals:
        faults += _find_approval_faults(path, approval)
        if approval.id not in routed:
            faults.append(f'{path} has no route. Add a [[routes]] with approval = "{approval.id}".')
        for field in ("submitted_after", "granted_after"):
            faults += _find_unknown(getattr(approval, field), approval_ids, f"{path}.{field}", "approval")
        for body_id in approval.not_needed_at:
            if body_id not in body_ids:
                faults.append(
                    f'{path}.not_needed_at names body "{body_id}", which no site has. Remove or correct it.'
                    f"{find_suggestion(body_id, body_ids)}"
                )
    faults += _find_cycles({approval.id: approval for _, approval in approvals})
    for path, route in entries["routes"]:
        faults += _find_unknown([route.approval], approval_ids, f"{path}.approval", "approval")
        faults += _find_disorder(path, "open_from", route.open_from, "open_until", route.open_until)
    taken: set[tuple[str, date | None]] = set()
    for path, clock in entries["clocks"]:
        faults += _find_unknown([clock.route], route_ids, f"{path}.route", "route")
        if (clock.route, clock.applies_from) in taken:
            faults.append(
                f'{path} is a second clock of route "{clock.route}" from the same day. Give it another applies_from, '
                "or remove one of the two."
            )
        taken.add((clock.route, clock.applies_from))
    for path, activity in entries["activities"]:
        faults += _find_unknown(activity.needs, approval_ids, f"{path}.needs", "approval")
    faults += _find_prior_faults(entries["priors"], route_ids)
    for path, duty in entries["duties"]:
        faults += _find_duty_faults(path, duty, approval_ids)
    for path, chaser in entries["chasers"]:
        faults += _find_chaser_faults(path, chaser, approval_ids, duty_ids)
    return faults


def _find_prior_faults(priors: Sequence[tuple[str, Any]], route_ids: Collection[str]) -> list[str]:
    faults = []
    taken: set[tuple[str, str]] = set()
    for path, prior in priors:
        faults += _find_unknown([prior.route], route_ids, f"{path}.route", "route")
        if not prior.lower_quartile <= prior.median <= prior.upper_quartile:
            faults.append(
                f"{path} has quartiles {prior.lower_quartile}, {prior.median} and {prior.upper_quartile}. "
                "Put them in order: lower_quartile, median, upper_quartile."
            )
        if (prior.route, prior.step) in taken:
            faults.append(
                f'{path} is a second prior of route "{prior.route}", step "{prior.step}". Remove one of them.'
            )
        taken.add((prior.route, prior.step))
    return faults


def _find_duty_faults(path: str, duty: Duty, approval_ids: Collection[str]) -> list[str]:
    faults = []
    if (duty.counts_from == "approval") != (duty.approval is not None):
        faults.append(
            f'{path} counts from "{duty.counts_from}" but has {"an" if duty.approval else "no"} approval. '
            'Name one only with counts_from = "approval".'
        )
    if duty.approval is not None:
        faults += _find_unknown([duty.approval], approval_ids, f"{path}.approval", "approval")
    if duty.every is not None and duty.every.months + duty.every.days <= 0:
        faults.append(f'{path}.every is "{duty.every}". It must be longer than no time. Correct it.')
    return faults


def _find_chaser_faults(
    path: str, chaser: Chaser, approval_ids: Collection[str], duty_ids: Collection[str]
) -> list[str]:
    faults = []
    if chaser.about == "duty":
        faults += _find_unknown(chaser.of, duty_ids, f"{path}.of", "duty")
    elif chaser.about == "incident":
        if chaser.of:
            faults.append(f"{path}.of names {', '.join(chaser.of)}, but an incident is no approval. Remove it.")
    else:
        faults += _find_unknown(chaser.of, approval_ids, f"{path}.of", "approval")
    if chaser.counts_from == "turn" and (chaser.days < 0 or chaser.about in ("expiry", "review", "duty")):
        faults.append(
            f"{path} counts from the day on which a turn began, which is known only for the turn of an applicant, an "
            'authority or an incident, and only afterwards. Use counts_from = "due", or days from 0.'
        )
    return faults


def _find_approval_faults(path: str, approval: Approval) -> list[str]:
    faults = []
    if approval.level in ("body", "person") and not approval.body_kinds:
        faults.append(f'{path} has level "{approval.level}" but no body_kinds. Add the kinds of body that give it.')
    if approval.level in ("study", "site") and (approval.body_kinds or approval.not_needed_at):
        faults.append(
            f'{path} has level "{approval.level}", so no body gives it. Remove body_kinds and not_needed_at, or set '
            'level = "body".'
        )
    if (approval.needed_from_n_bodies is None) != (not approval.counted_kinds):
        faults.append(f"{path} has only one of needed_from_n_bodies and counted_kinds. Add the other, or remove it.")
    faults += _find_disorder(
        path, "for_studies_from", approval.for_studies_from, "for_studies_until", approval.for_studies_until
    )
    if approval.review_form_before is not None and approval.review_every is None:
        faults.append(f"{path} has review_form_before but no review_every. Add it, or remove review_form_before.")
    for field in ("review_every", "review_form_before"):
        period: Period | None = getattr(approval, field)
        if period is not None and period.months + period.days <= 0:
            faults.append(f'{path}.{field} is "{period}". It must be longer than no time. Correct it.')
    return faults


def _find_disorder(path: str, first: str, first_on: date | None, last: str, last_on: date | None) -> list[str]:
    if first_on is None or last_on is None or first_on <= last_on:
        return []
    return [f"{path}.{last} ({last_on}) is before {first} ({first_on}). Correct one of them."]


_SECTIONS = {"approval": "approvals", "route": "routes", "duty": "duties"}


def _find_unknown(words: Iterable[str], known: Collection[str], where: str, called: str) -> list[str]:
    faults = []
    for word in words:
        if word not in known:
            hint = find_suggestion(word, known) or f" Known: {', '.join(known) or 'none'}."
            faults.append(
                f'{where} names {called} "{word}", which is not under [[{_SECTIONS[called]}]]. Add or correct it.{hint}'
            )
    return faults


def _find_cycles(approvals: Mapping[str, Approval]) -> list[str]:
    """One fault for each ring of approvals that wait for one another, told from its first approval in the file."""
    faults = []
    done: set[str] = set()
    for start in approvals:
        if start in done:
            continue
        trail = [start]
        waiting = [_list_dependencies(approvals, start)]
        while trail:
            if not waiting[-1]:
                done.add(trail.pop())
                waiting.pop()
                continue
            following = waiting[-1].pop(0)
            if following in trail:
                ring = [*trail[trail.index(following) :], following]
                faults.append(
                    f"approvals wait for one another in a ring: {' waits for '.join(ring)}. None of them could ever "
                    "be granted: remove one from submitted_after or granted_after."
                )
            elif following not in done:
                trail.append(following)
                waiting.append(_list_dependencies(approvals, following))
    return faults


def _list_dependencies(approvals: Mapping[str, Approval], approval_id: str) -> list[str]:
    approval = approvals[approval_id]
    named = dict.fromkeys([*approval.submitted_after, *approval.granted_after])
    return [other for other in named if other in approvals]
