"""Today's letters: to each person one digest of all that is due to be asked of them or told, the most urgent first.

Judgement calls:

- One digest a day goes to one mailbox, whatever roles, sites or absent colleagues are read there. Of several people
  with the same address the first by `person_id` gets it.
- What a person is asked for today comes with what they were asked for before and still owe, so that one letter shows
  all of it; that alone is no reason to write.
- Nothing is held back from a digest that goes: the cap is on letters, and not on lines.
- A role in which nobody can be reached, and an address from which mail came back, are told to the manager; a role once
  a week for as long as somebody is sought in it, an address once.
- Stop notices go to the researcher and the lead of the site on the day, whatever rests, and count in no cap.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import pandas as pd

from study.calendar import format_short_day
from study.chasing import TOLD, URGENCY
from study.contacts import OFFICE, STOP_NOTICE_ROLES, WHY_WORDS, Contacts, Found, Gap, Person
from study.deadlines import describe_place
from study.events import MessageQueued, ObligationChased
from study.held_files import derive_held_files, describe_finding
from study.protocol import Study
from study.queries import find_age_band
from study.state import Events

DIGEST, STOP_NOTICE, CALL = "digest", "stop_notice", "telephone"
GAP_TEMPLATE, ADDRESS_TEMPLATE, STOP_TEMPLATE = "nobody_to_write_to", "wrong_address", "stop_notice"
STOPPED_PACKS = "stopped_packs"
HELD_TEMPLATE = "file_held"
ALERT_LETTER, ALERT_RAISED, ALERT_ESCALATED = "safeguarding", "safeguarding_raised", "safeguarding_escalated"
LETTERS = (DIGEST, STOP_TEMPLATE, ALERT_LETTER)
OWN_PARTS = (GAP_TEMPLATE, ADDRESS_TEMPLATE, STOPPED_PACKS, HELD_TEMPLATE, ALERT_RAISED, ALERT_ESCALATED)
"""Letters, and parts of letters, that are sent whatever ladders a study has."""
PART_TEMPLATES = {"told": "told", "open": "still_open"}
"""The wording of what somebody is only told, and of what they were asked for before."""

TEAM = "team"
_RESPONDENTS = {
    "self": "the participant",
    "proxy": "somebody for them",
    "carer": "the carer",
    "manager": "the home's manager",
}


@dataclass(frozen=True, slots=True)
class Chase:
    """One step that a letter takes: the fields of ObligationChased that are not the letter's own."""

    chase: str
    about: str
    step: str
    site_id: str
    participant_id: str
    due_on: date


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a letter: its wording, and a table of what it is about. `is_told`: another `role` is asked for it;
    `is_open`: it was asked for before."""

    template: str
    about: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    is_told: bool = False
    is_open: bool = False
    role: str = ""
    channel: str = "email"

    @property
    def manner(self) -> str:
        """Which of PART_TEMPLATES words it; '' for its own template. A call is its caller's to make."""
        return "open" if self.is_open else "told" if self.is_told and self.channel != CALL else ""


@dataclass(frozen=True, slots=True)
class Draft:
    """A letter as decided, before it is worded. `site_id` is '' where it concerns several sites, or none."""

    message_id: str
    category: str
    template: str
    person: Person
    role: str
    place: str
    site_id: str
    on: date
    sections: tuple[Section, ...]
    chases: tuple[Chase, ...]
    participant_ids: tuple[str, ...]
    instead_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What goes out today. `resting`: chasers that are due and wait for another day, by key, with the reason."""

    drafts: tuple[Draft, ...] = ()
    gaps: tuple[Gap, ...] = ()
    resting: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Bundle:
    """What comes together for one mailbox."""

    people: dict[str, Person] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    instead_of: dict[str, None] = field(default_factory=dict)
    rows: list[Any] = field(default_factory=list)
    still_open: list[Any] = field(default_factory=list)
    extra: list[tuple[Section, tuple[Chase, ...]]] = field(default_factory=list)

    @property
    def person(self) -> Person:
        return self.people[min(self.people)]


def plan_digests(
    study: Study,
    contacts: Contacts,
    events: Events,
    rungs: pd.DataFrame,
    stopped: Collection[str],
    as_of: date,
    other_gaps: Iterable[Gap] = (),
) -> Plan:
    """The digests of a day. `rungs`: of `derive_rungs`; `stopped`: codes of addresses from which mail came back;
    `other_gaps`: roles in which nobody could be reached with something else."""
    rule = study.fieldwork.chasing_rule
    if rule is None:
        return Plan()
    finder = _Finder(contacts, as_of, stopped)
    bundles: dict[str, _Bundle] = {}
    gaps: dict[Gap, None] = dict.fromkeys(other_gaps)
    written = rungs.loc[(rungs["channel"] == "email") | rungs["is_told"]]
    due: list[Any] = list(written.loc[written["state"] == "due"].itertuples(index=False))
    for row in due:
        found = finder.find(row.to, row.site_id, row.body_id)
        if found.person is None:
            body_id = row.body_id if row.to == OFFICE else ""
            gaps[Gap(row.to, row.site_id, body_id, found.why)] = None
        else:
            _find_bundle(bundles, contacts, found, row.to).rows.append(row)
    told = set(events.select(as_of=as_of).frame(ObligationChased, ["key"])["key"])
    _tell_of_held_files(contacts, finder, bundles, gaps, events.select(as_of=as_of), told, as_of)
    _tell_manager(study, contacts, finder, bundles, [*gaps], told, as_of)
    still_open = written.loc[(written["state"] == "chased") & (written["rests_because"] == "")]
    pending: list[Any] = list(still_open.itertuples(index=False))
    for row in pending:
        found = finder.find(row.to, row.site_id, row.body_id)
        bundle = bundles.get(contacts.find_code(found.person)) if found.person else None
        if bundle is not None:
            bundle.still_open.append(row)
    sent = _Sent(events, as_of)
    drafts: list[Draft] = []
    resting: dict[str, str] = {}
    for code, bundle in sorted(bundles.items(), key=lambda pair: pair[1].person.person_id):
        if reason := sent.find_rest(code, bundle.people, rule.weekly_digests):
            resting |= dict.fromkeys((row.key for row in bundle.rows), reason)
            continue
        drafts.append(_draft_digest(study, finder, bundle, as_of))
    return Plan(tuple(drafts), tuple(gaps), resting)


class _Finder:
    """Who is to be written to, looked up once for each role and place."""

    def __init__(self, contacts: Contacts, as_of: date, stopped: Collection[str]) -> None:
        self.contacts, self.as_of, self.stopped = contacts, as_of, stopped
        self._found: dict[tuple[str, str, str], Found] = {}

    def find(self, role: str, site_id: str, body_id: str = "") -> Found:
        key = (role, site_id, body_id)
        if key not in self._found:
            self._found[key] = self.contacts.seek(role, site_id, self.as_of, body_id, self.stopped)
        return self._found[key]


class _Sent:
    """What went to whom this week."""

    def __init__(self, events: Events, as_of: date) -> None:
        queued = events.frame(MessageQueued)
        queued = queued.loc[queued["category"] == DIGEST]
        monday = pd.Timestamp(as_of - timedelta(days=as_of.weekday()))
        day = pd.Timestamp(as_of)
        self.today = queued.loc[queued["occurred_on"] == day]
        in_week = (queued["occurred_on"] >= monday) & (queued["occurred_on"] < monday + pd.Timedelta(days=7))
        self.week = queued.loc[in_week]

    def find_rest(self, code: str, people: Collection[str], n_a_week: int) -> str:
        if self._count(self.today, code, people):
            return "Today's digest has been written already"
        if self._count(self.week, code, people) >= n_a_week:
            return f"{n_a_week} digests went to this person this week"
        return ""

    @staticmethod
    def _count(queued: pd.DataFrame, code: str, people: Collection[str]) -> int:
        return int(((queued["address_code"] == code) | queued["person_id"].isin(people)).sum())


def _find_bundle(bundles: dict[str, _Bundle], contacts: Contacts, found: Found, role: str) -> _Bundle:
    assert found.person is not None
    bundle = bundles.setdefault(contacts.find_code(found.person), _Bundle())
    bundle.people[found.person.person_id] = found.person
    bundle.roles.setdefault(found.person.person_id, role)
    if found.instead_of and (absent := contacts.find_person(found.instead_of)):
        bundle.instead_of[absent.name] = None
    return bundle


# Held files -----------------------------------------------------------------------------------------------------------

_MOST_PLACES = 10


def _tell_of_held_files(
    contacts: Contacts,
    finder: _Finder,
    bundles: dict[str, _Bundle],
    gaps: dict[Gap, None],
    events: Events,
    told: Collection[str],
    as_of: date,
) -> None:
    """Add to the digest of each site, once, which of its files were held and where, never what stands there."""
    held = derive_held_files(events)
    waiting: list[Any] = list(held.loc[held["state"] == "waiting"].itertuples(index=False))
    for row in waiting:
        name = f"chase:file_held:{row.held_id}"
        if name in told:
            continue
        sought = {role: finder.find(role, row.site_id) for role in STOP_NOTICE_ROLES}
        role = next((role for role, found in sought.items() if found.person), "")
        if not role:
            gaps[Gap(STOP_NOTICE_ROLES[0], row.site_id, "", sought[STOP_NOTICE_ROLES[0]].why)] = None
            continue
        places = row.places.split(";")
        lines = [
            (row.query_id or row.held_id, row.return_id or "not known", *describe_finding(place))
            for place in places[:_MOST_PLACES]
        ]
        if row.n_places > len(lines):
            lines.append((row.query_id or row.held_id, row.return_id or "not known", "and more", "", "see the receipt"))
        section = Section(HELD_TEMPLATE, TOLD, ("Query", "Return", "Sheet", "Cell", "What was found"), tuple(lines))
        chase = Chase(name, TOLD, HELD_TEMPLATE, row.site_id, "", as_of)
        _find_bundle(bundles, contacts, sought[role], role).extra.append((section, (chase,)))


# The manager's own matters --------------------------------------------------------------------------------------------


def _tell_manager(
    study: Study,
    contacts: Contacts,
    finder: _Finder,
    bundles: dict[str, _Bundle],
    gaps: Sequence[Gap],
    told: Collection[str],
    as_of: date,
) -> None:
    """Add to the manager's digest who could not be reached, and which addresses are wrong."""
    rule = study.fieldwork.chasing_rule
    assert rule is not None
    manager = finder.find(rule.manager, "")
    if manager.person is None:
        return
    year, week, _ = as_of.isocalendar()
    rows: dict[str, list[tuple[tuple[str, ...], Chase]]] = {GAP_TEMPLATE: [], ADDRESS_TEMPLATE: []}
    for gap in gaps:
        name = f"chase:gap:{gap.role}:{gap.site_id}:{gap.body_id}:{year}-W{week:02d}"
        place = describe_place(study, gap.site_id, gap.body_id) or "The study"
        line = (place, _show_role(gap.role), WHY_WORDS[gap.why])
        rows[GAP_TEMPLATE].append((line, Chase(name, TOLD, GAP_TEMPLATE, gap.site_id, "", as_of)))
    for person in contacts.people:
        code = contacts.find_code(person)
        if code in finder.stopped and person.is_there(as_of):
            name = f"chase:wrong_address:{person.person_id}:{code}"
            place = describe_place(study, person.site_id, person.body_id) or "Study team"
            line = (place, _show_role(person.role), person.name)
            rows[ADDRESS_TEMPLATE].append((line, Chase(name, TOLD, ADDRESS_TEMPLATE, person.site_id, "", as_of)))
    columns = {GAP_TEMPLATE: ("Where", "Role", "Why"), ADDRESS_TEMPLATE: ("Where", "Role", "Who")}
    for template, found in rows.items():
        new = [(line, chase) for line, chase in found if chase.chase not in told]
        if new:
            section = Section(template, TOLD, columns[template], tuple(line for line, _ in new))
            bundle = _find_bundle(bundles, contacts, manager, rule.manager)
            bundle.extra.append((section, tuple(chase for _, chase in new)))


# Putting a digest together --------------------------------------------------------------------------------------------


def _draft_digest(study: Study, finder: _Finder, bundle: _Bundle, as_of: date) -> Draft:
    person = bundle.person
    place = person.site_id or person.body_id or TEAM
    shows_site = bool({row.site_id for row in (*bundle.rows, *bundle.still_open)} - {person.site_id})
    sections = [*_make_sections(study, finder, bundle.rows, shows_site, is_open=False)]
    sections += [section for section, _ in bundle.extra]
    sections += _make_sections(study, finder, bundle.still_open, shows_site, is_open=True)
    chases = [make_chase(row) for row in bundle.rows] + [chase for _, several in bundle.extra for chase in several]
    every = [*bundle.rows, *bundle.still_open]
    site_ids = {chase.site_id for chase in chases} | {row.site_id for row in every}
    return Draft(
        message_id=f"digest-{place}-{person.person_id}-{as_of}",
        category=DIGEST,
        template=DIGEST,
        person=person,
        role=bundle.roles[person.person_id],
        place=place,
        site_id=site_ids.pop() if len(site_ids) == 1 else "",
        on=as_of,
        sections=tuple(sections),
        chases=tuple(chases),
        participant_ids=tuple(sorted({row.participant_id for row in every} - {""})),
        instead_of=tuple(bundle.instead_of),
    )


def make_chase(row: Any) -> Chase:
    """The step that a row of `derive_rungs` is, to be recorded when it is taken."""
    about = TOLD if row.is_told else row.about
    return Chase(row.key, about, row.chaser, row.site_id, row.participant_id, row.due_on.date())


def _make_sections(
    study: Study, finder: _Finder, rows: Iterable[Any], shows_site: bool, is_open: bool
) -> list[Section]:
    """One section for each thing owed and wording, the most urgent first: of what is owed by its kind, then what is
    overdue longest. So are the rows of a site; what is not due yet comes by its day."""
    groups: dict[tuple[str, str, str, bool, str], list[Any]] = {}
    for row in rows:
        group = (row.about, row.template, row.channel, row.is_told, _show_role(row.of_role))
        groups.setdefault(group, []).append(row)
    sections = []
    for about, template, channel, is_told, role in sorted(
        groups, key=lambda group: (URGENCY.index(group[0]), -max(row.n_days_overdue for row in groups[group]), group)
    ):
        members = groups[about, template, channel, is_told, role]
        members.sort(key=lambda row: (row.site_id, -row.n_days_overdue, row.owed_on, row.subject))
        titles, lines = _TABLES.get(about, _tabulate_facts)(study, members)
        if titles[-1] == _DAYS_LATE and not any(row.n_days_overdue for row in members):
            titles, lines = titles[:-1], [line[:-1] for line in lines]
        if shows_site and about in _TABLES:
            titles = ("Site", *titles)
            lines = [(describe_place(study, row.site_id), *line) for row, line in zip(members, lines, strict=True)]
        if channel == CALL:
            titles = (*titles, "Whom to call")
            lines = [(*line, _describe_called(finder, row)) for row, line in zip(members, lines, strict=True)]
        sections.append(Section(template, about, titles, tuple(lines), is_told, is_open, role, channel))
    return sections


def _describe_called(finder: _Finder, row: Any) -> str:
    found = finder.contacts.seek(row.of_role, row.site_id, finder.as_of, row.body_id)
    holders = finder.contacts.list_holders(row.of_role, row.site_id, finder.as_of, row.body_id)
    person = found.person or next(iter(holders), None)
    if person is None:
        return f"{_show_role(row.of_role)}: {WHY_WORDS[found.why]}"
    return f"{person.name}, {person.telephone or 'no number known'}"


_DAYS_LATE = "Days late"
_Lines = list[tuple[str, ...]]
_Table = tuple[tuple[str, ...], _Lines]


def _tabulate_returns(study: Study, rows: Sequence[Any]) -> _Table:
    waves = {wave.id: wave.label for wave in study.waves}
    lines: _Lines = [
        (
            row.participant_id,
            waves.get(row.wave, row.wave),
            _RESPONDENTS.get(row.respondent, row.respondent),
            *_due(row),
        )
        for row in rows
    ]
    return ("Identifier", "Wave", "Who answers", "Due on", _DAYS_LATE), lines


def _name_form(row: Any) -> str:
    """The form's version; where it was signed anew on that version, with the day."""
    day = format_short_day(date.fromisoformat(row.renewal)) if row.renewal else ""
    return f"{row.form_version}, {day}" if day else str(row.form_version)


def _tabulate_copies(study: Study, rows: Sequence[Any]) -> _Table:
    lines: _Lines = [(row.participant_id, _name_form(row), *_due(row)) for row in rows]
    return ("Identifier", "Form version", "To be filed by", _DAYS_LATE), lines


def _tabulate_renewals(study: Study, rows: Sequence[Any]) -> _Table:
    lines: _Lines = [(row.participant_id, _name_form(row), format_short_day(row.ends_on)) for row in rows]
    return ("Identifier", "Form version", "Counts until"), lines


def _tabulate_queries(study: Study, rows: Sequence[Any]) -> _Table:
    lines: _Lines = [(row.query_id, row.participant_id or "-", _find_age(row), *_due(row)) for row in rows]
    return ("Query", "Identifier", "Asked", "To be answered by", _DAYS_LATE), lines


def _find_age(row: Any) -> str:
    """How long ago a query was put to its site: what is in a letter is due, so its day and its delay make today."""
    today = row.due_on + timedelta(days=row.n_days_late)
    return f"{find_age_band((today - row.had_on).days)} ago"


def _tabulate_figures(study: Study, rows: Sequence[Any]) -> _Table:
    labels = {figure.id: figure.label for figure in study.fieldwork.figures}
    lines: _Lines = [(labels.get(row.figure, row.figure), row.month, *_due(row)) for row in rows]
    return ("Figure", "Month", "Due on", _DAYS_LATE), lines


def _tabulate_facts(study: Study, rows: Sequence[Any]) -> _Table:
    lines: _Lines = [(row.subject, f"{row.fact} {format_short_day(row.anchor_on)}") for row in rows]
    return ("What", "Since, or by when"), lines


_TABLES = {
    "return": _tabulate_returns,
    "consent_copy": _tabulate_copies,
    "reconsent": _tabulate_renewals,
    "query": _tabulate_queries,
    "activity_figures": _tabulate_figures,
}


def _due(row: Any) -> tuple[str, str]:
    return format_short_day(row.owed_on), str(row.n_days_overdue or "-")


def _show_role(role: str) -> str:
    return role.replace("_", " ")


# Stop notices ---------------------------------------------------------------------------------------------------------


def plan_stop_notices(
    study: Study, contacts: Contacts, events: Events, notices: pd.DataFrame, stopped: Collection[str], as_of: date
) -> tuple[list[Draft], dict[str, list[Chase]]]:
    """Letters that tell sites which packs must not be handed over any more, and by site the notices themselves.

    `notices`: of `study.participation.derive_stop_notices`. A site's letters come lead first: the last one carries the
    chases, so that a run that ends in between writes all of them again.
    """
    queued = events.frame(MessageQueued)
    today = queued.loc[(queued["category"] == STOP_NOTICE) & (queued["occurred_on"] == pd.Timestamp(as_of))]
    drafts: list[Draft] = []
    by_site: dict[str, list[Chase]] = {}
    for site_id, rows in notices.groupby("site_id", sort=True):
        site = str(site_id)
        members: list[Any] = list(rows.itertuples(index=False))
        chases = [
            Chase(row.key, STOP_NOTICE, STOP_NOTICE, site, row.participant_id, row.known_on.date()) for row in members
        ]
        by_site[site] = chases
        section = make_stop_section(study, rows)
        people: dict[str, tuple[Person, str]] = {}
        for role in STOP_NOTICE_ROLES:
            found = contacts.seek(role, site, as_of, stopped=stopped).person
            if found is not None:
                people.setdefault(contacts.find_code(found), (found, role))
        for place, (person, role) in enumerate(reversed(people.values()), start=1):
            number = 1 + int((today["person_id"] == person.person_id).sum())
            drafts.append(
                Draft(
                    message_id=f"stop-{site}-{person.person_id}-{as_of}-{number}",
                    category=STOP_NOTICE,
                    template=STOP_TEMPLATE,
                    person=person,
                    role=role,
                    place=site,
                    site_id=site,
                    on=as_of,
                    sections=(section,),
                    chases=tuple(chases) if place == len(people) else (),
                    participant_ids=tuple(sorted(rows["participant_id"].unique())),
                )
            )
    return drafts, by_site


def make_stop_section(study: Study, notices: pd.DataFrame) -> Section:
    """Stop notices in words, without the reason: staff need to know what to do, not why."""
    columns = ("Identifier", "Pack", "Wave", "Who answers", "What stopped", "From")
    waves = {wave.id: wave.label for wave in study.waves}
    rows: list[Any] = list(notices.itertuples(index=False))
    lines: _Lines = [
        (
            row.participant_id,
            row.pack_id,
            ", ".join(waves.get(wave, wave) for wave in row.wave.split(";")),
            ", ".join(_RESPONDENTS.get(word, word) for word in row.respondent.split(";")),
            "letters by post" if row.stops == "post" else "questionnaires",
            format_short_day(row.from_on),
        )
        for row in rows
    ]
    return Section(STOPPED_PACKS, STOP_NOTICE, columns, tuple(lines))
