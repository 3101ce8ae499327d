"""Steps of approvals as people tell them: written dates, names of places, and what need not be said.

One rule for dates, one for places and one for what is left out, for the command line, the tracker and imported files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pandas as pd
from pydantic import ValidationError

from study.approval_steps import DECISIONS, ITEM, STEPS, Item, derive_steps, find_category
from study.approvals import find_place_faults, find_recording_faults, find_telling_faults
from study.events import (
    ApprovalConditionMet,
    ApprovalEvent,
    ApprovalGrantedWithConditions,
    ApprovalInformationAnswered,
    ApprovalInformationRequested,
    ApprovalRenewed,
    ApprovalResubmitted,
    ApprovalSubmitted,
    ApprovalWithdrawn,
    DocumentVersionIssued,
    DutyDone,
    Event,
    ModificationIntroduced,
    ModificationSupplied,
    Source,
    Voided,
    is_code,
)
from study.instruments import find_suggestion
from study.pack_layout import EARLIEST_DAY, LATEST_DAY, fold_title, parse_date, parse_text
from study.pathway import Approval
from study.protocol import Study
from study.state import ROW_TYPES, Events, Head, decode_rows

ENTRY_STEPS: dict[str, type[ApprovalEvent]] = {
    "resubmitted" if kind is ApprovalResubmitted else step: kind for kind, step in STEPS.items()
}
"""The word for each step to the kind of event that records it."""

RECORDED_KINDS: tuple[type[Event], ...] = (
    *ENTRY_STEPS.values(),
    *(ModificationIntroduced, ModificationSupplied, DocumentVersionIssued, DutyDone),
)
"""What people record of approvals; each row of these kinds can be voided by hand."""

_SHORT_YEAR = re.compile(r"(\d{1,2})(?:st|nd|rd|th)?[ /.-]?([A-Za-z]{3,9})[ /.,-]{1,2}(\d{2})", re.ASCII)
_NUMBERS = re.compile(r"(\d{1,4})([/.-])(\d{1,2})\2(\d{1,4})", re.ASCII)
_MONTH_FIRST = re.compile(r"[A-Za-z]{3,9}\.?[ /.-]?\d{1,2}(?:st|nd|rd|th)?[ ,/.-]+\d{2,4}", re.ASCII)
_HOW = "Write 2017-02-13, 13/02/2017 (day first) or 13 Feb 2017."


class EntryFault(ValueError):
    """What was told can't be understood. `faults`: every reason, a sentence or two each."""

    def __init__(self, *faults: str) -> None:
        self.faults = list(faults)
        super().__init__(" ".join(faults))


# Dates --------------------------------------------------------------------------------------------------------------


def parse_written_day(value: object, *, is_1904: bool = False) -> date | None:
    """A day as it was written: 2017-02-13, 13/02/2017, 13 Feb 2017 or 13 Feb 17; None for a blank.

    Always the day first: 02/13/2017 is refused, and 02/03/2017 is 2 March. A year of two digits is taken only where the
    month is a name, and lies in 1980 to 2079. From a workbook also a real date, or the number by which Excel keeps one
    (a cell that has lost its format). Raises EntryFault with the reason.
    """
    if isinstance(value, str):
        text = parse_text(value)
        if match := _SHORT_YEAR.fullmatch(text):
            year = int(match[3])
            text = f"{match[1]} {match[2]} {year + (2000 if year < EARLIEST_DAY.year - 1900 else 1900)}"
        value = text
    parsed = parse_date(value, is_1904=is_1904)
    if parsed.is_fault:
        raise EntryFault(_explain_date(value))
    return parsed.date


def _explain_date(value: object) -> str:
    if not isinstance(value, str):
        return f'"{parse_text(value)[:30]}" is no day of {EARLIEST_DAY.year} to {LATEST_DAY.year}. {_HOW}'
    shown = f'"{value[:30]}"'
    if value.isdecimal():
        return f"{shown} is a number, not a date. Give the column the format of a date, or write the day. {_HOW}"
    if _MONTH_FIRST.fullmatch(value):
        return f"{shown} has the month first. The day comes first here. {_HOW}"
    if match := _NUMBERS.fullmatch(value):
        first, second, third = match[1], int(match[3]), match[4]
        if len(first) <= 2 and len(third) == 2:
            return f"{shown} has a year of two digits, which could be a day. Write the year in full. {_HOW}"
        if len(first) <= 2 and len(third) == 4 and second > 12:
            return f"{shown} has no month {second}: the day comes first here, never the month. {_HOW}"
        return f"{shown} is not in the calendar, or not of {EARLIEST_DAY.year} to {LATEST_DAY.year}. {_HOW}"
    return f"{shown} is not a date. {_HOW}"


# Places -------------------------------------------------------------------------------------------------------------


def find_item(
    study: Study, approval: str, site: str = "", body: str = "", person: str = "", modification: str = ""
) -> Item:
    """The item that is meant. Approvals, sites and bodies go by id, name or code, in any case.

    A body names its site, if it works at one only; a site names its body, if only one there can give the approval.
    Raises EntryFault for names that the study does not know, and for what could be either of several.
    """
    faults: list[str] = []

    def find(word: str, known: Mapping[str, Sequence[str]], called: str) -> str:
        """`known`: id to the other names that it goes by."""
        folded = fold_title(word)
        for id_, names in known.items():
            if folded in (fold_title(id_), *map(fold_title, names)):
                return id_
        words = [*known, *(name for names in known.values() for name in names)]
        hint = find_suggestion(word, words) or f" Known: {', '.join(known) or 'none'}."
        faults.append(f'"{word[:60]}" is no {called} of {study.study_id}. Correct it.{hint}')
        return ""

    found = find(approval, {entry.id: [entry.label] for entry in study.pathway.approvals}, "approval")
    site_id = find(site, {entry.site_id: [entry.name, entry.code] for entry in study.sites}, "site") if site else ""
    own = study.find_site(site_id)
    body_id = ""
    if body and not faults:
        nearby = {entry.id: [entry.name] for entry in own.bodies} if own else {}
        everywhere = {entry.id: [entry.name] for place in study.sites for entry in place.bodies}
        is_near = any(fold_title(body) in map(fold_title, (id_, *names)) for id_, names in nearby.items())
        body_id = find(body, nearby if is_near else everywhere, "body")
    kind = study.pathway.find_approval(found)
    if not faults and kind is not None:
        site_id, body_id = _complete_place(study, kind, site_id, body_id)
    item = Item(found, site_id, body_id, person, modification)
    faults = faults or [f"{item}: {text}" for text in find_place_faults(study, item)]
    if faults:
        raise EntryFault(*faults)
    return item


def _complete_place(study: Study, approval: Approval, site_id: str, body_id: str) -> tuple[str, str]:
    if body_id and not site_id:
        sites = [site.site_id for site in study.sites if any(body.id == body_id for body in site.bodies)]
        if len(sites) > 1:
            raise EntryFault(f"{body_id} works at several sites ({', '.join(sites)}). Name the site.")
        site_id = sites[0]
    site = study.find_site(site_id)
    if approval.level in ("body", "person") and site is not None and not body_id:
        bodies = [body.id for body in site.bodies if body.kind in approval.body_kinds]
        if len(bodies) > 1:
            raise EntryFault(f"{approval.id}: several bodies at {site.name} give it ({', '.join(bodies)}). Name one.")
        body_id = bodies[0] if bodies else ""
    return site_id, body_id


# Steps --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A step as somebody tells it. None or "" for what was not said; `fields`: what only some steps have
    (conditions, condition, in_force_from, expires_on, withdrawn_by)."""

    step: str
    item: Item
    on: date
    attempt: int | None = None
    number: int | None = None
    route: str = ""
    letter: str = ""
    letter_sha256: str = ""
    fields: Mapping[str, Any] | None = None


def complete_entry(
    study: Study, events: Events, steps: pd.DataFrame, entry: Entry, requested_by: str, source: Source | None = None
) -> ApprovalEvent:
    """The event of an entry, with what was not said filled in. `steps`: those of the ledger, by `derive_steps`.

    The attempt is the present one, for "resubmitted" the next. A request for information is the open one or the next;
    an answer that of the open one; a renewal the next. What was told of the same day before keeps its number, so that
    telling it twice changes nothing. The route is that on record, or the only one possible. Raises EntryFault.
    """
    kind = ENTRY_STEPS[entry.step]
    own = steps.loc[(steps[ITEM] == list(entry.item)).all(axis="columns")]
    attempt = entry.attempt or _find_attempt(entry, own)
    own = own.loc[own["attempt"] == attempt]
    told: dict[str, Any] = {**entry.item._asdict(), "attempt": attempt, **(entry.fields or {})}
    if kind in (ApprovalSubmitted, ApprovalResubmitted):
        told["route"] = entry.route or _find_route(study, events, entry, own)
    elif entry.route:
        raise EntryFault(f'{entry.item}: a route belongs to a submission, not to "{entry.step}". Leave it out.')
    number_field = _NUMBERED.get(kind)
    if number_field:
        told[number_field] = entry.number or _find_number(entry, own)
    elif entry.number:
        raise EntryFault(f'{entry.item}: only requests, answers and renewals are numbered, not "{entry.step}".')
    _refuse_fields(kind, entry, told)
    try:
        return kind(
            occurred_on=entry.on,
            requested_by=requested_by,
            source=source,
            letter=entry.letter,
            letter_sha256=entry.letter_sha256,
            **told,
        )
    except ValidationError as fault:
        fields = ", ".join(sorted({str(error["loc"][0]).replace("_", " ") for error in fault.errors()}))
        raise EntryFault(f"{entry.item}: {fields}: not as the ledger can keep it. Use a short code.") from None


def _refuse_fields(kind: type[ApprovalEvent], entry: Entry, told: Mapping[str, Any]) -> None:
    for field in told.keys() - kind.model_fields.keys():
        raise EntryFault(f'{entry.item}: "{entry.step}" has no {field.replace("_", " ")}. Leave it out.')
    conditions = (*told.get("conditions", ()), told.get("condition", ""))
    for called, texts in (("letter's reference", (entry.letter,)), ("condition", conditions)):
        for text in texts:
            if text and not is_code(text):
                raise EntryFault(
                    f'"{text[:40]}" cannot be kept as a {called}. It may have 80 letters (a to z), digits, spaces and '
                    "_.,+/&'()- and no colon."
                )
    if kind is ApprovalGrantedWithConditions and not told.get("conditions"):
        raise EntryFault(f"{entry.item}: name each condition by a short code, such as indemnity_letter.")
    if kind is ApprovalConditionMet and not told.get("condition"):
        raise EntryFault(f"{entry.item}: say which condition was met.")
    if kind is ApprovalWithdrawn and told.get("withdrawn_by") not in ("applicant", "authority"):
        raise EntryFault(f'{entry.item}: say who withdrew it: "applicant" or "authority".')


_NUMBERED: dict[type[ApprovalEvent], str] = {
    ApprovalInformationRequested: "request",
    ApprovalInformationAnswered: "request",
    ApprovalRenewed: "renewal",
}


def _find_attempt(entry: Entry, own: pd.DataFrame) -> int:
    latest = int(own["attempt"].max()) if len(own) else 1
    if entry.step == "submitted":
        return 1
    if entry.step != "resubmitted" or own.empty:
        return latest
    present = own.loc[own["attempt"] == latest]
    is_told = (present.loc[present["step"] == "submitted", "occurred_on"] == pd.Timestamp(entry.on)).any()
    is_over = present["step"].isin((*DECISIONS, "withdrawn")).any()
    return latest if latest > 1 and (is_told or not is_over) else latest + 1


def _find_number(entry: Entry, own: pd.DataFrame) -> int:
    rows = own.loc[own["step"] == entry.step]
    same_day = rows.loc[rows["occurred_on"] == pd.Timestamp(entry.on), "number"]
    if len(same_day):
        return int(same_day.max())
    last = int(rows["number"].max()) if len(rows) else 0
    if entry.step == "renewed":
        return last + 1
    asked = own.loc[own["step"] == "requested", "number"]
    open_ones = sorted(set(asked) - set(own.loc[own["step"] == "answered", "number"]))
    if open_ones:
        return int(open_ones[-1])
    return last + 1 if entry.step == "requested" else max(last, 1)


def _find_route(study: Study, events: Events, entry: Entry, own: pd.DataFrame) -> str:
    on_record = own.loc[own["route"] != "", "route"]
    if len(on_record):
        return str(on_record.iloc[0])
    category, is_substantial = find_category(events, entry.item.modification)
    routes = study.pathway.find_routes(entry.item.approval, entry.on, category, is_substantial)
    if len(routes) == 1:
        return routes[0].id
    if not routes:
        raise EntryFault(f"{entry.item}: no route is open to it on {entry.on}. Correct the date.")
    raise EntryFault(f"{entry.item}: name the route: {' or '.join(route.id for route in routes)}.")


# The ledger as it would be ------------------------------------------------------------------------------------------


def foresee(events: Events, told: Iterable[Event]) -> Events:
    """The ledger as it would be with these events as well: for deciding, never for writing."""
    lines = []
    seq = events.head.seq
    for event in told:
        seq += 1
        columns = {
            **dict.fromkeys(ROW_TYPES, ""),
            **{name: getattr(event, name) for name in ("key", "kind", "kind_version", "requested_by")},
            **{name: getattr(event, name) for name in ("site_id", "participant_id")},
            **{"seq": seq, "hash": f"{seq:064x}", "occurred_on": event.occurred_on.isoformat()},
            **{"recorded_at": "2000-01-01T00:00:00.000000Z", "source_row": 0, "payload": event.encode_payload()},
        }
        lines.append("\x1f".join(str(columns[name]) for name in ROW_TYPES))
    if not lines:
        return events
    return events.extend([decode_rows("\n".join(lines).encode())], Head(seq, f"{seq:064x}"))


def list_standing(events: Events, kinds: Sequence[type[Event]] = RECORDED_KINDS) -> list[tuple[Event, dict[str, Any]]]:
    """Standing events of these kinds as they were told, each with its row of the ledger (seq, hash, recorded_at …)."""
    found: list[tuple[Event, dict[str, Any]]] = []
    for kind in kinds:
        for row in events.frame(kind).to_dict("records"):
            told = {name: row[name] for name in (*kind.payload_types, "site_id", "participant_id", "requested_by")}
            for name, plain in kind.payload_types.items():
                if plain is date:
                    told[name] = None if pd.isna(row[name]) else row[name].date()
                elif plain is tuple:
                    told[name] = tuple(row[name].split(";")) if row[name] else ()
            found.append((kind(occurred_on=row["occurred_on"].date(), **told), {str(name): row[name] for name in row}))
    return sorted(found, key=lambda pair: int(pair[1]["seq"]))


def find_entry_faults(
    study: Study, events: Events, steps: pd.DataFrame, event: ApprovalEvent, today: date
) -> list[str]:
    """Why a step can't be recorded. Of one that stands on record already only what is wrong with it in itself: the
    ledger answers for the rest, with "same" or "conflict"."""
    if (steps["key"] == event.key).any():
        return find_telling_faults(study, events, event, today)
    return find_recording_faults(study, events, event, today, steps)


def find_orphans(study: Study, events: Events, changed: Sequence[Event], today: date) -> list[str]:
    """What would no longer stand if these events (a void, and perhaps what is told instead) were recorded: sentences.

    Only what stands now and would not then is told, so that an old fault of the history hinders no correction.
    """
    after = foresee(events, changed)
    now, then = derive_steps(study, events, today), derive_steps(study, after, today)
    voided = {event.voids for event in changed if isinstance(event, Voided)}
    gone = [(event, row) for event, row in list_standing(events) if row["hash"] in voided]
    items = {tuple(getattr(event, name) for name in ITEM) for event, _ in gone if isinstance(event, ApprovalEvent)}
    changes = (ModificationIntroduced, ModificationSupplied)
    names = {event.modification for event, _ in gone if isinstance(event, changes)}
    introduced = set(after.frame(ModificationIntroduced)["modification"])
    orphans = []
    for event, row in list_standing(after):
        if isinstance(event, ApprovalEvent):
            if tuple(getattr(event, name) for name in ITEM) not in items and event.modification not in names:
                continue
            before = set(find_recording_faults(study, events, event, today, now))
            found = [text for text in find_recording_faults(study, after, event, today, then) if text not in before]
            if found:
                orphans.append(f"row {row['seq']} ({STEPS[type(event)]} on {event.occurred_on}): {found[0]}")
        elif (
            isinstance(event, ModificationSupplied | DocumentVersionIssued) and event.modification in names - introduced
        ):
            orphans.append(f"row {row['seq']} ({event.kind.replace('_', ' ')} on {event.occurred_on}).")
    return orphans
