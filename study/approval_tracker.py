"""The approvals tracker: one row per approval and place, what a person may fill in, and the steps that follow from it.

A reading is a merge of three: what the cells hold, what they held when the workbook was written, and what the ledger
holds now. Only cells that the person changed count. A cell that the ledger got meanwhile with the same content needs
nothing more; with other content it is a conflict, and the record stands. A recorded step is never changed by a cell: it
is corrected by a command that says why. A row is taken whole or not at all; the other rows are taken.

Rows of an imported file go the same way, with nothing written before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import groupby
from typing import Any, Literal

import pandas as pd

from study.approval_entries import (
    ENTRY_STEPS,
    Entry,
    EntryFault,
    complete_entry,
    foresee,
    list_standing,
    parse_written_day,
)
from study.approval_steps import ITEM, STEPS, Item, derive_steps
from study.approvals import STATE_WORDS, derive_approvals, find_recording_faults, find_telling_faults
from study.events import (
    ApprovalConditionMet,
    ApprovalEvent,
    ApprovalFoundValid,
    ApprovalGranted,
    ApprovalGrantedWithConditions,
    ApprovalInformationAnswered,
    ApprovalInformationRequested,
    ApprovalRefused,
    ApprovalRenewed,
    ApprovalResubmitted,
    ApprovalSubmitted,
    ApprovalWithdrawn,
    Source,
    is_code,
)
from study.instruments import find_suggestion
from study.modifications import derive_modifications
from study.pack_layout import fold_title, parse_text
from study.protocol import Study
from study.state import Events

LAYOUT_VERSION = "1"
DECISION_WORDS = {"granted": "granted", "granted_with_conditions": "granted with conditions", "refused": "refused"}
WITHDRAWN_BY = ("applicant", "authority")

TURN_WORDS = {"applicant": "us", "authority": "the authority", "": ""}


@dataclass(frozen=True)
class Field:
    """A column that a person may fill in. `step`: the step that its cell tells, with the other fields of that step."""

    code: str
    label: str
    kind: Literal["date", "text"]
    step: str
    advice: str = ""


FIELDS = (
    Field("route", "Route", "text", "submitted", "Only where several are possible."),
    Field("submitted_on", "Submitted on", "date", "submitted", "The day on which the application was sent in."),
    Field("valid_on", "Valid on", "date", "valid", "The day on which it became valid, from the letter."),
    Field("requested_on", "Information requested on", "date", "requested", "Which request: see its number."),
    Field("answered_on", "Answered on", "date", "answered", "The day on which the request was answered in full."),
    Field("decision", "Decision", "text", "decided", "With its day. A withdrawal has cells of its own."),
    Field("decided_on", "Decided on", "date", "decided", "The day of the decision, from the letter."),
    Field(
        "in_force_from", "In force from", "date", "decided", "Only if the letter says another day than the decision."
    ),
    Field(
        "expires_on", "Last day of force", "date", "decided", "Only if the letter states one. That day still counts."
    ),
    Field("conditions", "Conditions", "text", "decided", "Short codes, parted by a semicolon: indemnity; poster."),
    Field("conditions_met_on", "All conditions met on", "date", "condition_met", "The day on which the last was met."),
    Field("withdrawn_on", "Withdrawn on", "date", "withdrawn", "Before a decision or after it."),
    Field("withdrawn_by", "Withdrawn by", "text", "withdrawn", "Us, or the authority that takes it back."),
    Field("renewed_on", "Renewed on", "date", "renewed", "Which renewal: see its number."),
    Field("renewed_until", "Renewed until", "date", "renewed", "The last day of force that the renewal states."),
    Field("letter", "Letter reference", "text", "", "The reference of the letter about the newest step of the row."),
)
FIELD_BY_CODE = {entry.code: entry for entry in FIELDS}
DAYS = tuple(entry.code for entry in FIELDS if entry.kind == "date")
# The day that a step happened on is the first cell that must be filled in for it.
MAIN_DAY = {
    **{"submitted": "submitted_on", "valid": "valid_on", "requested": "requested_on", "answered": "answered_on"},
    **{"decided": "decided_on", "condition_met": "conditions_met_on", "withdrawn": "withdrawn_on"},
    "renewed": "renewed_on",
}
_STEP_FIELDS = {
    step: tuple(entry.code for entry in entries) for step, entries in groupby(FIELDS, key=lambda entry: entry.step)
}
# (code, label, is it a day): what the tracker says for information.
FACTS = (
    ("site", "Site", False),
    ("body", "Body", False),
    ("approval", "Approval", False),
    ("modification", "Modification", False),
    ("person", "Person", False),
    ("attempt", "Attempt", False),
    ("state", "State", False),
    ("turn", "Whose turn", False),
    ("since", "Since", True),
    ("days_used", "Days used", False),
    ("deadline", "Deadline", True),
    ("in_force_until", "In force until", True),
    ("request", "Request no.", False),
    ("renewal", "Renewal no.", False),
)
IDENTITY = ("site", "body", "approval", "modification", "person", "attempt")


def format_key(item: Item, attempt: int) -> str:
    """What a row of the tracker is known by, wherever it stands."""
    return "|".join((*item, str(attempt)))


def parse_key(text: str) -> tuple[Item, int] | None:
    """The inverse of `format_key`; None for anything else."""
    *item, attempt = text.split("|")
    if len(item) != len(ITEM) or not (attempt.isascii() and attempt.isdigit() and 0 < len(attempt) < 7):
        return None
    return Item(*item), int(attempt)


# What the cells hold by the ledger ----------------------------------------------------------------------------------


def derive_cells(told: Sequence[ApprovalEvent], request: int, renewal: int) -> dict[str, str]:
    """What the cells of a row hold by these steps of one item and attempt: codes to text, days as 2017-02-13."""
    cells = dict.fromkeys(FIELD_BY_CODE, "")
    conditions: tuple[str, ...] = ()
    met: dict[str, date] = {}
    for event in told:
        on = event.occurred_on.isoformat()
        if isinstance(event, ApprovalSubmitted | ApprovalResubmitted):
            cells |= {"route": event.route, "submitted_on": on}
        elif isinstance(event, ApprovalFoundValid):
            cells["valid_on"] = on
        elif isinstance(event, ApprovalInformationRequested) and event.request == request:
            cells["requested_on"] = on
        elif isinstance(event, ApprovalInformationAnswered) and event.request == request:
            cells["answered_on"] = on
        elif isinstance(event, ApprovalGranted | ApprovalGrantedWithConditions | ApprovalRefused):
            cells |= {"decision": DECISION_WORDS[STEPS[type(event)]], "decided_on": on}
            cells["in_force_from"] = _show(getattr(event, "in_force_from", None))
            cells["expires_on"] = _show(getattr(event, "expires_on", None))
            conditions = getattr(event, "conditions", ())
            cells["conditions"] = "; ".join(conditions)
        elif isinstance(event, ApprovalConditionMet):
            met[event.condition] = event.occurred_on
        elif isinstance(event, ApprovalWithdrawn):
            cells |= {"withdrawn_on": on, "withdrawn_by": event.withdrawn_by}
        elif isinstance(event, ApprovalRenewed) and event.renewal == renewal:
            cells |= {"renewed_on": on, "renewed_until": _show(event.expires_on)}
    if conditions and set(conditions) <= set(met):
        cells["conditions_met_on"] = max(met.values()).isoformat()
    in_order = sorted(told, key=lambda event: event.occurred_on)
    cells["letter"] = next((event.letter for event in reversed(in_order) if event.letter), "")
    return cells


def _show(day: date | None) -> str:
    return day.isoformat() if day else ""


def _find_open_numbers(told: Sequence[ApprovalEvent]) -> tuple[int, int]:
    """Which request for information and which renewal the cells of a row are about: what is open, or comes next."""
    asked = {event.request for event in told if isinstance(event, ApprovalInformationRequested)}
    answered = {event.request for event in told if isinstance(event, ApprovalInformationAnswered)}
    renewed = {event.renewal for event in told if isinstance(event, ApprovalRenewed)}
    is_over = any(STEPS[type(event)] in (*DECISION_WORDS, "withdrawn") for event in told)
    last = max(asked, default=0)
    request = max(asked - answered, default=max(last, 1) if is_over else last + 1)
    return request, max(renewed, default=0) + 1


@dataclass(frozen=True)
class Told:
    """Standing steps of approvals by item and attempt, and who told each (the row of the ledger, by key)."""

    steps: Mapping[tuple[Item, int], Sequence[ApprovalEvent]]
    rows: Mapping[str, Mapping[str, Any]]


def find_told(events: Events) -> Told:
    steps: dict[tuple[Item, int], list[ApprovalEvent]] = {}
    rows: dict[str, Mapping[str, Any]] = {}
    for event, row in list_standing(events, tuple(STEPS)):
        assert isinstance(event, ApprovalEvent)
        steps.setdefault((Item.of(event), event.attempt), []).append(event)
        rows[event.key] = row
    return Told(steps, rows)


def derive_tracker(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """The rows of the tracker: the study's own, then site by site; modifications after the rest.

    Columns: key, site_id, body_id, approval_id, then the codes of FACTS (words for people, days as dates or None,
    numbers) and of FIELDS (text; days as dates or None). What is not needed has no row unless something is on record of
    it. Of several attempts the latest is shown, and below it the next, once that is refused, withdrawn or expired.
    """
    standing = pd.concat(
        [derive_approvals(study, events, as_of), derive_modifications(study, events, as_of)], ignore_index=True
    )
    standing = standing.loc[standing["state"] != "not_needed"]
    told = find_told(events.select(as_of=as_of))
    sites = {site.site_id: n for n, site in enumerate(study.sites)}
    site_names = {site.site_id: site.name for site in study.sites}
    body_names = {body.id: body.name for site in study.sites for body in site.bodies}
    labels = {approval.id: approval.label for approval in study.pathway.approvals}
    rows = []
    for row in standing.to_dict("records"):
        item = Item(*(row[name] for name in ITEM))
        latest = max(int(row["attempt"]), 1)
        is_over = row["state"] in ("refused", "withdrawn", "expired")
        for attempt in range(latest, latest + 1 + is_over):
            own = told.steps.get((item, attempt), [])
            is_next = attempt > latest
            request, renewal = _find_open_numbers(own)
            cells = derive_cells(own, request, renewal)
            facts = {
                "site": site_names.get(item.site_id, item.site_id) or "The whole study",
                "body": body_names.get(item.body_id, item.body_id),
                "approval": labels.get(item.approval, item.approval),
                "modification": item.modification,
                "person": item.person_id,
                "attempt": attempt,
                "state": "can be sought again" if is_next else STATE_WORDS[row["state"]],
                "turn": "us" if is_next else TURN_WORDS[row["turn"]],
                "since": None if is_next else _to_day(row["turn_since"]),
                "days_used": None if is_next or pd.isna(row["days_used"]) else int(row["days_used"]),
                "deadline": None if is_next else _to_day(row["due_on"]),
                "in_force_until": None if is_next else _to_day(row["in_force_until"]),
                "request": request,
                "renewal": renewal,
            }
            days = {code: date.fromisoformat(cells[code]) if cells[code] else None for code in DAYS}
            place = {"site_id": item.site_id, "body_id": item.body_id, "approval_id": item.approval}
            rows.append({"key": format_key(item, attempt), **place, **facts, **cells, **days})
    order = sorted(
        range(len(rows)),
        key=lambda n: (rows[n]["modification"] != "", sites.get(str(rows[n]["site_id"]), -1), rows[n]["body_id"], n),
    )
    columns = ["key", "site_id", "body_id", "approval_id", *FACT_CODES, *FIELD_BY_CODE]
    return pd.DataFrame([rows[n] for n in order], columns=columns, dtype=object)


FACT_CODES = tuple(code for code, _, _ in FACTS)


def _to_day(value: Any) -> date | None:
    return None if pd.isna(value) else value.date()


# What follows from rows that were filled in -------------------------------------------------------------------------


@dataclass(frozen=True)
class FilledRow:
    """One row as it came in. `cells`: as typed, by code of FIELDS; a code that is left out was not in the file.
    `was`: as text, what they held when they were written. `places`: where each cell is, in words."""

    row: int
    place: str
    item: Item
    attempt: int
    request: int = 1
    renewal: int = 1
    cells: Mapping[str, object] = field(default_factory=dict)
    was: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    is_1904: bool = False

    def find_place(self, code: str) -> str:
        return self.places.get(code) or self.place


@dataclass(frozen=True)
class Fault:
    """Why something of a row was not taken; `row` 0: it concerns the file."""

    row: int
    text: str


@dataclass
class Decision:
    """What follows from the rows of a file, each step with the number of its row.

    `told`: steps to record. `refused`: steps that the ledger holds otherwise; told to it, they are kept as refused.
    `n_known`: steps that the ledger got meanwhile with the same content.
    """

    told: list[tuple[int, ApprovalEvent]] = field(default_factory=list)
    refused: list[tuple[int, ApprovalEvent]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    n_unchanged: int = 0
    n_known: int = 0

    @property
    def n_faulty_rows(self) -> int:
        return len({fault.row for fault in self.faults})


def decide_rows(
    study: Study,
    events: Events,
    rows: Sequence[FilledRow],
    requested_by: str,
    today: date,
    find_source: Callable[[int], Source | None] = lambda _: None,
) -> Decision:
    """What is to be recorded of filled rows, and every fault of the rest. `events`: the ledger, without a view.

    A row with a fault is left out whole, and with it what can't stand without it; nothing else is.
    """
    decision = Decision()
    told = find_told(events)
    steps = derive_steps(study, events, today)
    found: list[tuple[FilledRow, str, ApprovalEvent]] = []
    for row in rows:
        reading = _RowReading(study, events, steps, told, row, requested_by, find_source(row.row))
        reading.read()
        decision.faults += reading.faults
        decision.refused += [(row.row, event) for event in reading.refused]
        decision.n_known += reading.n_known
        decision.n_unchanged += not reading.is_changed
        if not reading.faults:
            found += [(row, step, event) for step, event in reading.told]
    found = _drop_contradictions(found, decision)
    decision.told = [(row.row, event) for row, _, event in _drop_faulty(study, events, found, decision, today)]
    refused = decision.refused
    decision.refused = [pair for pair in refused if not find_telling_faults(study, events, pair[1], today)]
    return decision


def _drop_contradictions(
    found: list[tuple[FilledRow, str, ApprovalEvent]], decision: Decision
) -> list[tuple[FilledRow, str, ApprovalEvent]]:
    """Leave out rows that tell one step differently: nobody here knows which of them is right."""
    by_key: dict[str, list[tuple[FilledRow, str, ApprovalEvent]]] = {}
    for entry in found:
        by_key.setdefault(entry[2].key, []).append(entry)
    bad = set()
    for entries in by_key.values():
        contents = {(event.kind, event.occurred_on, event.encode_payload()) for _, _, event in entries}
        if len(contents) > 1:
            for row, step, event in entries:
                others = ", ".join(other.place for other, _, _ in entries if other.row != row.row)
                text = f"{row.find_place(MAIN_DAY[step])}: {_name(event)} is told otherwise in {others}. Keep one."
                decision.faults.append(Fault(row.row, text))
                bad.add(row.row)
    kept, seen = [], set()
    for entry in found:
        if entry[0].row not in bad and entry[2].key not in seen:
            kept.append(entry)
            seen.add(entry[2].key)
    return kept


def _drop_faulty(
    study: Study, events: Events, found: list[tuple[FilledRow, str, ApprovalEvent]], decision: Decision, today: date
) -> list[tuple[FilledRow, str, ApprovalEvent]]:
    """Leave out rows whose steps can't stand in the ledger as it would be, until all that are left can."""
    while found:
        after = foresee(events, [event for _, _, event in found])
        steps = derive_steps(study, after, today)
        bad = set()
        for row, step, event in found:
            for text in find_recording_faults(study, after, event, today, steps):
                decision.faults.append(Fault(row.row, f"{row.find_place(MAIN_DAY[step])}: {text}"))
                bad.add(row.row)
        if not bad:
            break
        found = [entry for entry in found if entry[0].row not in bad]
    return found


def _name(event: ApprovalEvent) -> str:
    item = Item.of(event)
    return f'{item}, "{STEPS[type(event)].replace("_", " ")}"'


class _RowReading:
    """Reads one row: its faults, its new steps, and those that the ledger holds otherwise."""

    def __init__(
        self,
        study: Study,
        events: Events,
        steps: pd.DataFrame,
        told: Told,
        row: FilledRow,
        by: str,
        source: Source | None,
    ) -> None:
        self.study, self.events, self.steps, self.row = study, events, steps, row
        self.by, self.source = by, source
        self.own = told.steps.get((row.item, row.attempt), ())
        self.ledger_rows = told.rows
        self.request, self.renewal = row.request, row.renewal
        self.now = derive_cells(self.own, self.request, self.renewal)
        self.was = {code: row.was.get(code, "") for code in FIELD_BY_CODE}
        self.cells = dict(self.was)
        self.faults: list[Fault] = []
        self.told: list[tuple[str, ApprovalEvent]] = []
        self.refused: list[ApprovalEvent] = []
        self.n_known = 0
        self.is_changed = False

    def fault(self, code: str, text: str) -> None:
        self.faults.append(Fault(self.row.row, f"{self.row.find_place(code)}: {text}"))

    def read(self) -> None:
        unread = set()
        for code, value in self.row.cells.items():
            try:
                self.cells[code] = self.parse(FIELD_BY_CODE[code], value)
            except EntryFault as fault:
                self.fault(code, f"{FIELD_BY_CODE[code].label}: {fault}")
                unread.add(FIELD_BY_CODE[code].step)
        self.is_changed = bool(unread) or self.cells != self.was
        for step, codes in _STEP_FIELDS.items():
            if step and step not in unread:
                self.read_step(step, codes)
        if self.cells["letter"] not in {self.was["letter"], *(event.letter for event in self.own)}:
            self.give_letter()

    def parse(self, entry: Field, value: object) -> str:
        if entry.kind == "date":
            return _show(parse_written_day(value, is_1904=self.row.is_1904))
        text = parse_text(value)
        if not text:
            return ""
        if entry.code == "conditions":
            return "; ".join(sorted({part.strip() for part in text.replace(",", ";").split(";") if part.strip()}))
        choices: dict[str, tuple[str, ...]] = {}
        if entry.code == "decision":
            choices = {word: (code,) for code, word in DECISION_WORDS.items()}
        elif entry.code == "withdrawn_by":
            choices = dict.fromkeys(WITHDRAWN_BY, ())
        elif entry.code == "route":
            own = [route for route in self.study.pathway.routes if route.approval == self.row.item.approval]
            choices = {route.id: (route.label,) for route in own}
        if not choices:
            return text
        for word, names in choices.items():
            if fold_title(text) in map(fold_title, (word, *names)):
                return word
        hint = find_suggestion(text.casefold(), choices) or f" Possible: {', '.join(choices)}."
        raise EntryFault(f'"{text[:40]}" is not one of the choices. Correct it.{hint}')

    def read_step(self, step: str, codes: tuple[str, ...]) -> None:
        was, now = ([cells[code] for code in codes] for cells in (self.was, self.now))
        changed = [code for code in codes if self.cells[code] != self.was[code]]
        if not changed:
            return
        # A cell left blank says nothing: the record may say more (the only possible route, for one).
        if all(self.cells[code] == self.now[code] for code in codes if self.cells[code] or code in changed):
            self.n_known += 1
            return
        if any(now) and was == now:
            self.fault(changed[0], self.refuse_correction(step, changed[0]))
            return
        main = MAIN_DAY[step]
        if not self.cells[main]:
            label = FIELD_BY_CODE[main].label
            what = f'it was emptied, but the ledger holds a step ("{label}"). ' if any(now) else ""
            self.fault(main, f'{what or "the step has no day. "}Fill in "{label}", or put back what was changed.')
            return
        if step == "decided" and not self.cells["decision"]:
            self.fault("decision", "there is a day but no decision. Choose one, or clear the cells of the decision.")
            return
        try:
            made = self.make_events(step)
        except EntryFault as fault:
            self.fault(changed[0], str(fault))
            return
        standing = [event for event in made if event.key in self.ledger_rows]
        if standing or any(now):
            self.fault(changed[0], self.describe_conflict(step))
            self.refused += standing
        else:
            self.told += [(step, event) for event in made]

    def make_events(self, step: str) -> list[ApprovalEvent]:
        cells = self.cells
        on = date.fromisoformat(cells[MAIN_DAY[step]])
        fields: dict[str, Any] = {}
        word = step
        if step == "submitted" and self.row.attempt > 1:
            word = "resubmitted"
        if step == "decided":
            word = next(code for code, words in DECISION_WORDS.items() if words == cells["decision"])
            fields = {code: date.fromisoformat(cells[code]) for code in ("in_force_from", "expires_on") if cells[code]}
            if cells["conditions"]:
                fields["conditions"] = tuple(cells["conditions"].split("; "))
        elif step == "withdrawn":
            fields = {"withdrawn_by": cells["withdrawn_by"]}
        elif step == "renewed" and cells["renewed_until"]:
            fields = {"expires_on": date.fromisoformat(cells["renewed_until"])}
        number = {"requested": self.request, "answered": self.request, "renewed": self.renewal}.get(step)
        route = cells["route"] if step == "submitted" else ""
        entries = [Entry(word, self.row.item, on, self.row.attempt, number, route, fields=fields)]
        if step == "condition_met":
            entries = [
                Entry(word, self.row.item, on, self.row.attempt, fields={"condition": condition})
                for condition in self.list_open_conditions()
            ]
        assert word in ENTRY_STEPS
        return [complete_entry(self.study, self.events, self.steps, entry, self.by, self.source) for entry in entries]

    def list_open_conditions(self) -> list[str]:
        met = {event.condition for event in self.own if isinstance(event, ApprovalConditionMet)}
        conditions = [part for part in self.cells["conditions"].split("; ") if part and part not in met]
        if not conditions:
            raise EntryFault("no condition of this grant is open. Clear the cell, or record the grant with conditions.")
        return conditions

    def find_standing(self, step: str) -> list[ApprovalEvent]:
        steps = tuple(DECISION_WORDS) if step == "decided" else (step,)
        numbers = {"requested": self.request, "answered": self.request, "renewed": self.renewal}
        return [
            event
            for event in self.own
            if STEPS[type(event)] in steps
            and getattr(event, "request", getattr(event, "renewal", None)) in (None, numbers.get(step))
        ]

    def describe_standing(self, events: Sequence[ApprovalEvent]) -> str:
        return "; ".join(
            f'row {row["seq"]}, "{STEPS[type(event)].replace("_", " ")}" on {event.occurred_on}, told by '
            f"{row['requested_by']} on {row['recorded_at']:%Y-%m-%d}"
            for event in events
            if (row := self.ledger_rows.get(event.key)) is not None
        )

    def refuse_correction(self, step: str, code: str) -> str:
        standing = self.find_standing(step)
        seq = self.ledger_rows[standing[0].key]["seq"] if standing else "ROW"
        what = "emptied" if not self.cells[code] else "changed"
        return (
            f"the cell was {what}, but what it held is on record ({self.describe_standing(standing)}). A record is not "
            f"changed by the tracker. If it is wrong: summative approvals void {self.study.study_id} {seq} --reason "
            "wrong_date (or entered_in_error), then tell it anew; or record it with --correct."
        )

    def describe_conflict(self, step: str) -> str:
        return (
            "somebody recorded this step meanwhile with another content "
            f"({self.describe_standing(self.find_standing(step))}). Nothing was overwritten. Ask them; if the record "
            "is wrong, record yours with --correct."
        )

    def give_letter(self) -> None:
        """The reference in the row goes with the newest of its new steps."""
        letter = self.cells["letter"]
        if self.told and is_code(letter):
            step, event = max(self.told, key=lambda pair: pair[1].occurred_on)
            self.told[self.told.index((step, event))] = (step, event.model_copy(update={"letter": letter}))
        elif self.told:
            self.fault(
                "letter", f'"{letter[:40]}" cannot be kept as a reference: at most 80 letters, digits and signs.'
            )
        elif not self.faults:
            text = "a reference is kept with a new step, and this row has none; recorded steps keep theirs. To correct "
            self.fault("letter", f"{text}one: summative approvals record with --correct.")


def describe_standing(study: Study, row: Any) -> str:
    """Where an item stands, in a sentence or two: from a row of `derive_approvals` or `derive_modifications`."""
    text = f"Now {STATE_WORDS[row.state]}"
    if row.state == "granted" and pd.notna(row.in_force_from):
        text += f", in force from {row.in_force_from:%Y-%m-%d}"
        text += f" to {row.in_force_until:%Y-%m-%d}" if pd.notna(row.in_force_until) else ""
    text += "."
    if row.turn:
        approval = study.pathway.find_approval(row.approval)
        who = "ours" if row.turn == "applicant" else f"theirs ({approval.authority})" if approval else "theirs"
        since = f", since {row.turn_since:%Y-%m-%d}" if pd.notna(row.turn_since) else ""
        used = f", {row.days_used} {row.clock_unit} days used" if pd.notna(row.days_used) else ""
        due = f", due by {row.due_on:%Y-%m-%d}" if pd.notna(row.due_on) else ", without a deadline"
        text += f" The turn is {who}{since}{used}{due}."
    return text
