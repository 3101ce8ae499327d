"""People at the sites and in the study team: who holds which role, where, from when to when, and who stands in.

Names and addresses never enter the ledger, a log or a fault: a person is named by `person_id`, an address by a code. A
fault of the contacts file says in which entry it is and what is expected, and quotes nothing of it but codes.

Judgement calls:

- Of several people in one role at a site, the first in the file is written to; the others when the first can't be.
- A role that nobody holds at a site may be held for all sites by somebody of the study team. An approving office is
  another matter: what one body owes is never asked of another's office.
- Who is on leave is stood in for by their deputy, for these days; who has left is never written to, and neither is a
  deputy who has left. A deputy who is away is stood in for as well, but nobody twice.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

from pydantic import Field, ValidationError

from study.definition_fields import DAY_WORDS, LINE_WORDS, Code, Day, DefinitionModel, Line
from study.instruments import DefinitionFaults, find_suggestion
from study.protocol import Study

CONTACTS_FILE = "contacts.toml"
OFFICE = "approving_office"
"""The role that answers for a body's approvals."""
SITE_ROLES = ("site_researcher", "site_lead", "senior_responsible_officer")
STOP_NOTICE_ROLES = ("site_researcher", "site_lead")
"""Who is told at once that a pack must not be posted."""

_PERSON_WORDS = "a short name in quotes (letters, digits, dots, dashes and underscores, a letter or digit first)"
_ADDRESS_WORDS = "one e-mail address in quotes"

Why = Literal["", "nobody", "away", "wrong_address", "no_address"]
WHY_WORDS: dict[str, str] = {
    "nobody": "nobody holds this role",
    "away": "everybody in this role is on leave, and no deputy is there",
    "wrong_address": "mail to the address came back",
    "no_address": "no e-mail address is known",
}
"""Why nobody can be written to."""


class Person(DefinitionModel):
    """Somebody who may be written to. `site_id` '' is the study team; `body_id`: of an office that approves.

    `role`, and the roles that they hold `also`. They come with `from_on` and go after `until_on`; on each `leave`
    (first and last day) the deputy stands in.
    """

    person_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$", description=_PERSON_WORDS)
    name: Line = Field(description=LINE_WORDS)
    email: str = Field(
        default="", pattern=r"^([^\s@<>,;:\"()]+@[^\s@<>,;:\"()]+\.[^\s@<>,;:\"().]+)?$", description=_ADDRESS_WORDS
    )
    telephone: str = Field(default="", pattern=r"^[0-9 +()./-]{0,40}$", description="a telephone number in quotes")
    role: Code = Field(description="a role such as site_researcher, in quotes")
    also: tuple[Code, ...] = Field(default=(), description="a list of further roles, in quotes")
    site_id: str = Field(default="", description="the id of a site in quotes; left out: the study team")
    body_id: str = Field(default="", description="the id of a body in quotes")
    from_on: Day | None = Field(default=None, description=DAY_WORDS)
    until_on: Day | None = Field(default=None, description=DAY_WORDS)
    deputy_id: str = Field(default="", description="the person_id of somebody else in this file, in quotes")
    leave: tuple[tuple[Day, Day], ...] = Field(
        default=(), description="a list of first and last days, such as [[2017-08-01, 2017-08-14]]"
    )

    @property
    def roles(self) -> tuple[str, ...]:
        return (self.role, *self.also)

    def is_there(self, on: date) -> bool:
        """Whether they hold their role on a day, on leave or not."""
        return (self.from_on is None or self.from_on <= on) and (self.until_on is None or on <= self.until_on)

    def is_away(self, on: date) -> bool:
        return any(first <= on <= last for first, last in self.leave)


@dataclass(frozen=True, slots=True)
class Found:
    """Who is to be written to, in whose place ('' if in their own role), or why nobody can be."""

    person: Person | None
    instead_of: str = ""
    why: Why = ""


@dataclass(frozen=True)
class Contacts:
    """The people of a study, in the order of the file."""

    study_id: str
    people: tuple[Person, ...] = ()

    def find_person(self, person_id: str) -> Person | None:
        return next((person for person in self.people if person.person_id == person_id), None)

    def find_code(self, person: Person) -> str:
        """The code of a person's address; '' where none is known."""
        return compute_address_code(self.study_id, person.email) if person.email else ""

    def list_holders(self, role: str, site_id: str, on: date, body_id: str = "") -> list[Person]:
        """Who holds a role for a site or a body on a day, on leave or not."""
        there = [person for person in self.people if role in person.roles and person.is_there(on)]
        if role == OFFICE:
            return [one for one in there if one.body_id == body_id and one.site_id in ("", site_id)]
        return [one for one in there if one.site_id == site_id] or [one for one in there if not one.site_id]

    def seek(self, role: str, site_id: str, on: date, body_id: str = "", stopped: Collection[str] = ()) -> Found:
        """Who is to be written to in a role on a day. `stopped`: codes of addresses from which mail came back."""
        why: Why = "nobody"
        for holder in self.list_holders(role, site_id, on, body_id):
            for person in self._list_deputies(holder, on):
                trouble = self._find_trouble(person, on, stopped)
                if not trouble:
                    return Found(person, holder.person_id if person is not holder else "")
                if why in ("nobody", "away") or trouble == "wrong_address":
                    why = trouble
        return Found(None, why=why)

    def find_recipient(self, role: str, site_id: str, on: date, body_id: str = "") -> Person | None:
        """Who is to be written to in a role on a day, as if every address were right; None for nobody."""
        return self.seek(role, site_id, on, body_id).person

    def _list_deputies(self, holder: Person, on: date) -> Iterator[Person]:
        """Somebody, and then those who stand in, each for the one before, as far as they are still there."""
        seen: list[str] = []
        person: Person | None = holder
        while person is not None and person.person_id not in seen and person.is_there(on):
            yield person
            seen.append(person.person_id)
            person = self.find_person(person.deputy_id)

    def _find_trouble(self, person: Person, on: date, stopped: Collection[str]) -> Why:
        if person.is_away(on):
            return "away"
        if not person.email:
            return "no_address"
        return "wrong_address" if self.find_code(person) in stopped else ""


def compute_address_code(study_id: str, email: str) -> str:
    """What tells two addresses apart without showing either; capitals make no difference."""
    return hashlib.sha256(f"{study_id}:{email.strip().casefold()}".encode()).hexdigest()[:16]


def list_roles(study: Study) -> tuple[str, ...]:
    """Every role that the study names: who is chased or told, who owns duties and incidents, and the sites' own."""
    fieldwork, pathway, chasing = study.fieldwork, study.pathway, study.fieldwork.chasing_rule
    roles = [
        *SITE_ROLES,
        OFFICE,
        *([chasing.coordinator, chasing.manager] if chasing else ["fieldwork_coordinator", "project_manager"]),
        *(role for step in fieldwork.ladder for role in (step.to, step.tells) if role),
        *(chaser.to for chaser in pathway.chasers),
        *(duty.owner for duty in pathway.duties),
        *(incident.owner for incident in pathway.incident_rules),
        *(role for rule in fieldwork.safeguarding for role in (rule.clinician, rule.escalates_to)),
    ]
    return tuple(dict.fromkeys(roles))


def parse_contacts(data: bytes, study: Study) -> Contacts:
    """The contacts file of a study. Raises `DefinitionFaults` with every fault of it, none of which quotes an address,
    a name or a telephone number."""
    raw = _parse_toml(data)
    faults = [
        f'{CONTACTS_FILE}: "{_show_code(key)}" is no section here. Write each person under [[people]].'
        for key in raw
        if key != "people"
    ]
    entries = raw.get("people", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DefinitionFaults([*faults, f"{CONTACTS_FILE}: people are not a list. Write each under [[people]]."])
    people: list[tuple[str, Person]] = []
    declared = [entry.get("person_id") for entry in entries]
    for n, entry in enumerate(entries, start=1):
        place = _name_entry(entry, n)
        try:
            people.append((place, Person.model_validate(entry)))
        except ValidationError as error:
            faults += _explain(place, error)
    for name in sorted({name for name in declared if isinstance(name, str) and declared.count(name) > 1}):
        faults.append(
            f'{CONTACTS_FILE}: person_id "{_show_code(name)}" is there {declared.count(name)} times. Give each person '
            "one of their own; whoever holds two roles is one entry, with the second under `also`."
        )
    known = {name for name in declared if isinstance(name, str)}
    for place, person in people:
        faults += [f"{place}: {fault}" for fault in _find_person_faults(study, person, known)]
    if faults:
        raise DefinitionFaults(faults)
    return Contacts(study.study_id, tuple(person for _, person in people))


def _parse_toml(data: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        fault = f"line {line} is not UTF-8 text. Save the file with the encoding UTF-8."
    except tomllib.TOMLDecodeError as error:
        # The parser's own words may quote the line, and with it an address.
        where = re.search(r"at (line \d+, column \d+|end of document)", str(error))
        fault = f"it cannot be read as TOML ({where[0] if where else 'somewhere'}). Correct that line."
    raise DefinitionFaults([f"{CONTACTS_FILE}: {fault}"])


def _name_entry(entry: dict[str, Any], n: int) -> str:
    name = entry.get("person_id")
    shown = f' "{_show_code(name)}"' if isinstance(name, str) and _show_code(name) else f", entry {n}"
    return f"{CONTACTS_FILE}: people{shown}"


def _show_code(text: str) -> str:
    """A code as it is; nothing of what might be a name or an address."""
    return text if re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", text) else ""


def _explain(place: str, error: ValidationError) -> Iterator[str]:
    told: set[str] = set()
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        name = str(fault["loc"][0])
        if name in told:
            continue
        told.add(name)
        field = Person.model_fields.get(name)
        if field is None:
            shown = _show_code(name) or "an entry"
            hint = find_suggestion(shown, Person.model_fields) or f" Known: {', '.join(Person.model_fields)}."
            yield f"{place}: {shown} is no setting here. Remove it or correct its name.{hint}"
        elif fault["type"] == "missing":
            yield f"{place}: {name} is missing. Add {name} = {field.description}."
        else:
            yield f"{place}: {name} must be {field.description}. Correct it."


def _find_person_faults(study: Study, person: Person, known: Collection[str]) -> Iterator[str]:
    roles = list_roles(study)
    for role in person.roles:
        if role not in roles:
            hint = find_suggestion(role, roles) or f" Known: {', '.join(roles)}."
            yield f'role "{role}" is none that the study names. Correct it.{hint}'
    sites = {site.site_id: site for site in study.sites}
    if person.site_id and person.site_id not in sites:
        yield f"site_id names no site of the study. Correct it.{_suggest(person.site_id, list(sites))}"
    bodies = [body.id for site in study.sites for body in site.bodies if person.site_id in ("", site.site_id)]
    if person.body_id and person.body_id not in bodies:
        yield f"body_id names no body{' of that site' if person.site_id else ''}.{_suggest(person.body_id, bodies)}"
    if person.deputy_id == person.person_id:
        yield "deputy_id is the person themselves. Name somebody else, or remove it."
    elif person.deputy_id and person.deputy_id not in known:
        yield f"deputy_id names nobody in this file. Add or correct them.{_suggest(person.deputy_id, list(known))}"
    if person.from_on and person.until_on and person.until_on < person.from_on:
        yield f"until_on ({person.until_on}) is before from_on ({person.from_on}). Correct one of them."
    for first, last in person.leave:
        if last < first:
            yield f"leave ends ({last}) before it begins ({first}). Put the first day first."


def _suggest(text: str, known: Sequence[str]) -> str:
    return find_suggestion(text, known) or f" Known: {', '.join(sorted(known)[:20]) or 'none'}."


@dataclass(frozen=True, slots=True)
class Gap:
    """A role, or an address, by which nobody can be reached."""

    role: str
    site_id: str
    body_id: str
    why: Why
    person_id: str = ""


def find_gaps(
    study: Study, contacts: Contacts, wanted: Collection[tuple[str, str, str]], on: date, stopped: Collection[str] = ()
) -> list[Gap]:
    """Of these roles (role, site_id, body_id) those in which nobody can be written to, and why."""
    gaps = []
    for role, site_id, body_id in dict.fromkeys(wanted):
        found = contacts.seek(role, site_id, on, body_id, stopped)
        if found.person is None:
            gaps.append(Gap(role, site_id, body_id, found.why))
    return gaps


def list_wanted_roles(study: Study) -> list[tuple[str, str, str]]:
    """Every place that the study's ladders may write to: (role, site_id, body_id)."""
    site_roles = [step.to for step in study.fieldwork.ladder]
    rule = study.fieldwork.chasing_rule
    team = [step.tells for step in study.fieldwork.ladder if step.tells]
    team += [rule.coordinator, rule.manager] if rule else []
    team += [chaser.to for chaser in study.pathway.chasers if chaser.to != OFFICE]
    wanted = [(role, "", "") for role in team]
    wanted += [(role, site.site_id, "") for site in study.sites for role in (*STOP_NOTICE_ROLES, *site_roles)]
    wanted += [
        (role, site.site_id, "")
        for entry in study.fieldwork.safeguarding
        for role in (entry.clinician, entry.escalates_to)
        for site in study.sites
    ]
    if any(chaser.to == OFFICE for chaser in study.pathway.chasers):
        wanted += [(OFFICE, site.site_id, body.id) for site in study.sites for body in site.bodies]
    return list(dict.fromkeys(wanted))


def find_leavers(contacts: Contacts, on: date, within_days: int = 28) -> list[Person]:
    """Who has left, or leaves within so many days."""
    limit = on + timedelta(days=within_days)
    return [person for person in contacts.people if person.until_on is not None and person.until_on <= limit]
