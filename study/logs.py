"""What the logs of a site tell, row by row: which events a row stands for, and when two tellings are the same.

A log may be cumulative: sent whole each time. What stands already is a repeat. What becomes known later is no
difference: a blank that is filled in, a form that was not filed and is, an approach that had no answer and has one.
Everything else that differs from the record is for a correction, or for a query. A consent given anew on the same
version of the form is one more entry, and differs from none.

The workbook asks for no day of an answer to an approach; it is dated with the day of the approach, or, where a person
was found not eligible without being approached, with the day of screening.
"""

from __future__ import annotations

import calendar
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from study.consent import Signing, is_given_anew
from study.events import (
    ActivityReported,
    ApproachAnswered,
    ConsentRecorded,
    DispositionRecorded,
    ParticipantAllocated,
    ParticipantApproached,
    ParticipantEvent,
    ParticipantScreened,
    QueryAnswered,
)
from study.fieldwork import CONSENT_ROUTES, ConsentRule, Figure
from study.identifiers import has_sound_check
from study.pack_layout import (
    ACTIVITY,
    ALLOCATION,
    BODY,
    CONSENT,
    DISPOSITION,
    LOG_SHEETS,
    QUERIES,
    RECORD_KEYS,
    SCREENING,
    Reading,
    ReadSheet,
)
from study.protocol import Study

Content = tuple[object, ...]
Posted = tuple[date, int, int]
"""When a file was posted: day, sending number, correction."""


class LogEntry(NamedTuple):
    """A standing entry of a site's log. `return_id`, `correction`, `posted`: of the file that brought it."""

    hash: str
    content: Content
    return_id: str
    correction: int
    posted: Posted | None = None

    def read_fields(self, kind: type[ParticipantEvent]) -> dict[str, Any]:
        """What it tells, by field, of its own kind: `occurred_on` and the payload."""
        return dict(zip(("occurred_on", *kind.payload_types), self.content, strict=True))


class Told(NamedTuple):
    """The newest version of a figure or of an answer to a query; `posted`: of the file that brought it."""

    version: int
    value: int | str
    posted: Posted | None


@dataclass(frozen=True)
class Person:
    """Someone whom a site has screened. `consents`: the day of signing by the key of the consent. `body_id`: the body
    that answers for the person, '' where nobody said. `outcome`: of the approach. `left`, `left_for`: the day and the
    reason by scope of what was left."""

    screened_on: date | None = None
    consents: Mapping[str, date] = field(default_factory=dict)
    body_id: str = ""
    approached_on: date | None = None
    outcome: str = ""
    left: Mapping[str, date] = field(default_factory=dict)
    left_for: Mapping[str, str] = field(default_factory=dict)
    allocated_on: date | None = None

    @property
    def consented_on(self) -> date | None:
        """The day on which the person joined: a renewed consent does not move it."""
        return min(self.consents.values(), default=None)

    def note(self, kind: type[ParticipantEvent], key: str, day: date, payload: Mapping[str, Any]) -> Person:
        """The person after one more entry."""
        if kind is ParticipantScreened:
            return replace(self, screened_on=day, body_id=payload["body_id"])
        if kind is ParticipantApproached:
            return replace(self, approached_on=day)
        if kind is ApproachAnswered:
            return replace(self, outcome=payload["outcome"])
        if kind is ConsentRecorded:
            return replace(self, consents={**self.consents, key: day})
        if kind is DispositionRecorded:
            of_scope = {payload["scope"]: payload["reason"]}
            return replace(self, left={**self.left, payload["scope"]: day}, left_for={**self.left_for, **of_scope})
        if kind is ParticipantAllocated:
            return replace(self, allocated_on=day)
        return self


@dataclass(frozen=True)
class Step:
    """One thing that a row of a log tells of a person: an event, the column of its date, the columns of its codes by
    field. `may_be_blank`: fields that a row may leave blank; what stands there then stays. `told_by`: the columns that
    tell the step; a row without any of them tells nothing of it (none named: every row tells it)."""

    kind: type[ParticipantEvent]
    dated: str
    codes: Mapping[str, str]
    may_be_blank: frozenset[str] = frozenset()
    told_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Log:
    """A sheet that tells what happened to people; one that introduces them may name new ones."""

    sheet: str
    steps: tuple[Step, ...]
    introduces: bool = False


_OF_PERSON = {"cohort": "cohort", "body_id": BODY}
_DETAILS = ("route", "taken_by", "capacity", "sixteen_in", "copy_filed", "form")
_OF_CONSENT = {
    "form_version": "consent_form_version",
    "scopes": "consent_scopes",
    **dict(zip(_DETAILS, _DETAILS, strict=True)),
}
_SCREENED = Step(ParticipantScreened, "screened_on", _OF_PERSON, frozenset({"body_id"}))
_APPROACHED = Step(ParticipantApproached, "approached_on", _OF_PERSON, frozenset({"body_id"}), ("approached_on",))
_ANSWERED = Step(
    ApproachAnswered, "approached_on", {"outcome": "outcome", "reason": "reason"}, told_by=("outcome", "reason")
)
_CONSENTED = Step(ConsentRecorded, "consented_on", _OF_CONSENT, frozenset(_DETAILS))
_CONSENTED_IN_PASSING = replace(
    _CONSENTED, told_by=("consented_on", _OF_CONSENT["form_version"], _OF_CONSENT["scopes"])
)
_ALLOCATED = Step(ParticipantAllocated, "allocated_on", {"arm": "arm"})
_LEFT = Step(DispositionRecorded, "left_on", {"scope": "scope", "reason": "reason"})
LOGGED_KINDS = tuple(step.kind for step in (_SCREENED, _APPROACHED, _ANSWERED, _CONSENTED, _ALLOCATED, _LEFT))
"""What logs tell of people."""


def list_logs(study: Study) -> tuple[Log, ...]:
    """The logs of people in the order in which people go through them: who is screened in a file may be allocated in
    the same."""
    approach = (_APPROACHED, _ANSWERED) if study.fieldwork.approach_reasons else ()
    later = (Log(ALLOCATION, (_ALLOCATED,)), Log(DISPOSITION, (_LEFT,)))
    if study.consent_basis == "signed":
        screening = Log(SCREENING, (_SCREENED, *approach), introduces=True)
        return (screening, Log(CONSENT, (_CONSENTED,)), *later)
    return (Log(SCREENING, (_SCREENED, *approach, _CONSENTED_IN_PASSING), introduces=True), *later)


# Fields of which an earlier value gives way to a later one without anybody having been wrong, besides blanks.
_GIVES_WAY = {"copy_filed": "no", "outcome": "no_answer", "capacity": "not_assessed"}


@dataclass(frozen=True)
class Entry:
    """One step of one person, as a row of a log tells it."""

    step: Step
    row: int
    participant_id: str
    occurred_on: date
    payload: Mapping[str, Any]
    key: str

    @property
    def content(self) -> Content:
        """What two tellings of one step must share to be the same."""
        return (self.occurred_on, *(self.payload[name] for name in self.step.kind.payload_types))

    def goes_beyond(self, stands: LogEntry | None) -> bool:
        """Whether this differs from the record in nothing but what becomes known later."""
        return stands is not None and self._follows(stands.content, self.content)

    def falls_short_of(self, stands: LogEntry | None) -> bool:
        """Whether the record differs from this in nothing but what has become known since."""
        return stands is not None and self._follows(self.content, stands.content)

    def _follows(self, before: Content, after: Content) -> bool:
        if before == after or before[0] != after[0]:
            return False
        outcomes = dict(zip(self.step.kind.payload_types, zip(before[1:], after[1:], strict=True), strict=True))
        is_answered = outcomes.get("outcome", ("", ""))[0] == "no_answer"
        return all(
            old == new
            or (name in self.step.may_be_blank and old == "")
            or old == _GIVES_WAY.get(name)
            or (name == "reason" and is_answered)
            for name, (old, new) in outcomes.items()
        )


def parse_codes(text: str) -> tuple[str, ...]:
    """Several codes in one cell, parted by semicolons or commas; sorted, each once."""
    return tuple(sorted({code.strip() for code in text.replace(",", ";").split(";")} - {""}))


def derive_choices(study: Study, site_id: str) -> dict[str, list[str]]:
    """The codes that each field of a log may hold at this site; the reasons for leaving by what was left, and those for
    not joining by what came of the approach."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for reason in study.disposition_reasons:
        for scope in reason.scopes:
            reasons[scope].append(reason.id)
    of_outcome: dict[str, list[str]] = {"agreed": [], "declined": [], "not_eligible": [], "no_answer": []}
    for given in study.fieldwork.approach_reasons:
        of_outcome[given.outcome].append(given.id)
    site = study.find_site(site_id)
    return {
        "cohort": [cohort.id for cohort in study.cohorts],
        "body_id": [body.id for body in site.bodies] if site else [],
        "arm": [arm.id for arm in (study.find_arms_at(site) if site else study.arms)],
        "outcome": list(of_outcome),
        "form_version": [form.version for form in study.consent_forms],
        "scopes": [scope.id for scope in study.consent_scopes],
        "route": list(CONSENT_ROUTES),
        "taken_by": list(study.fieldwork.consent_takers),
        "capacity": ["assessed", "not_assessed"],
        "copy_filed": ["yes", "no"],
        "form": list(study.forms),
        "scope": list(reasons),
        **{f"{given}:reason": found for given, found in {**reasons, **of_outcome}.items()},
    }


# Consents given anew ------------------------------------------------------------------------------------------------


def find_renewals(
    rule: ConsentRule | None,
    recorded: Mapping[str, Signing],
    told: Iterable[Signing],
    *,
    corrected: Collection[str] = (),
    posted_later: Collection[str] = (),
) -> dict[date, str]:
    """Which consent of a person on one version of the form each told day of signing is: its `renewal`, by the day.

    `recorded`: what stands, by `renewal`; of that, `corrected` came with the sending that this file corrects, and
    `posted_later` with a workbook that was posted after this one. A recorded day is that consent. A day that stands in
    the place of one that was left out corrects it. Any other is a consent of its own where it was given anew after the
    one before it, and so was the one after it; else it is that one, and differs from it. A first consent that is told
    after a later one needs that to be told with it, unless this workbook is the older one.
    """
    known, days = dict(recorded), dict[date, Signing]()
    for signing in sorted(told):
        days[signing.day] = _fill_in(days.get(signing.day, signing), signing)
    found = {signing.day: renewal for renewal, signing in known.items()}
    for day in found.keys() & days.keys():
        known[found[day]] = _fill_in(known[found[day]], days[day])
    new = {day: signing for day, signing in days.items() if day not in found}
    left_out = [renewal for renewal in corrected if known[renewal].day not in days]
    for _, renewal, day in sorted((abs(known[name].day - day), name, day) for name in left_out for day in new):
        if day in new and renewal in left_out:
            left_out.remove(renewal)
            found[day], known[renewal] = renewal, new.pop(day)
    for day, signing in new.items():
        earlier = [name for name, entry in known.items() if entry.day < day]
        later = [name for name, entry in known.items() if entry.day > day]
        before = max(earlier, key=lambda name: known[name].day, default=None)
        after = min(later, key=lambda name: known[name].day, default=None)
        may_be_late = after is None or "" not in known or known[after].day in days or after in posted_later
        if before is not None and not is_given_anew(rule, known[before], signing):
            found[day] = before
        elif after is not None and not (is_given_anew(rule, signing, known[after]) and (earlier or may_be_late)):
            found[day] = after
        else:
            found[day] = "" if before is None and "" not in known else day.isoformat()
            known.setdefault(found[day], signing)
    return found


def _fill_in(stands: Signing, told: Signing) -> Signing:
    return Signing(stands.day, stands.route or told.route, stands.sixteen_in or told.sixteen_in)


# Rows that say nothing ----------------------------------------------------------------------------------------------

_FILLED_IN_BEFOREHAND: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(LOG_SHEETS, ("participant_id", "asked")),
    CONSENT: ("participant_id", "asked"),
    ACTIVITY: ("month", "figure"),
    QUERIES: ("query_id", "about", "question"),
}


def drop_unfilled_rows(reading: Reading, study: Study) -> Reading:
    """The reading without rows to which the site added nothing: a pack names identifiers, what is due, months and
    queries beforehand. A row with a fault stays, and so does one whose identifier is none of the study's: somebody
    typed it."""
    sheets = {}
    for code, sheet in reading.sheets.items():
        beforehand = _FILLED_IN_BEFOREHAND.get(code, RECORD_KEYS[:-1])
        is_empty = ~_is_filled(sheet, [name for name in sheet.frame.columns[1:] if name not in beforehand])
        if is_empty.any():
            is_empty &= ~sheet.frame["row"].isin(reading.find_stopped_rows(code)).to_numpy()
        if is_empty.any() and "participant_id" in sheet.frame:
            is_empty[is_empty] = [
                study.is_participant_id(name) and has_sound_check(study, name)
                for name in sheet.frame.loc[is_empty, "participant_id"]
            ]
        sheets[code] = replace(sheet, frame=sheet.frame[~is_empty].reset_index(drop=True)) if is_empty.any() else sheet
    return replace(reading, sheets=sheets)


def _is_filled(sheet: ReadSheet, columns: Sequence[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    cells = sheet.frame[list(columns)].to_numpy(dtype=object)
    filled: np.ndarray[Any, np.dtype[np.bool_]] = ~(pd.isna(cells) | (cells == "")).all(axis=1)
    return filled


# Figures and answers ------------------------------------------------------------------------------------------------

Place = tuple[str, ...]
"""What makes a second telling the same thing: figure, month, reported to; or the query."""


class Telling(NamedTuple):
    """A figure or an answer as a row tells it; `column`: where it stands."""

    place: Place
    value: int | str
    row: int
    column: str


def find_month_fault(figure: Figure, month: str, posted_on: date) -> tuple[str, str]:
    """The rule that a month breaks for a figure ('' for none), and what is expected. A month that was not over when the
    workbook was posted can't have been counted."""
    if not figure.from_month <= month <= figure.until_month:
        return "code_unknown", f"a month from {figure.from_month} to {figure.until_month}"
    year, number = int(month[:4]), int(month[5:])
    is_over = posted_on >= date(year, number, calendar.monthrange(year, number)[1])
    return ("", "") if is_over else ("month_not_over", f"a month that was over on {posted_on:%d %b %Y}")


def derive_telling_event(telling: Telling, version: int, common: Mapping[str, Any]) -> ActivityReported | QueryAnswered:
    """The event of a figure (whose place has three parts) or of an answer."""
    if len(telling.place) == 3:
        figure, month, reported_to = telling.place
        told: dict[str, Any] = {"figure": figure, "month": month, "reported_to": reported_to, "count": telling.value}
        return ActivityReported(**common, version=version, **told)
    answer: Any = telling.value
    return QueryAnswered(**common, query_id=telling.place[0], answer_number=version, answer=answer)
