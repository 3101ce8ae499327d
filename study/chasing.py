"""Who is chased for what, when and by which rule: the plan of chasers for approvals, duties and incidents.

The plan is drawn up afresh each day from what is owed that day, so whatever ends an obligation ends its chasers: a
decision, an answer, a renewal, a duty that was done, an assessment. Nothing is scheduled ahead, and nothing is sent.

Judgement calls:

- The day of a chaser that falls on a weekend or a bank holiday moves to the next working day.
- Of the rungs of one ladder that are due, only the highest counts: after a backlog, nobody gets three letters at once.
- An authority is not chased for what it can't give yet: its days count from the later of the day on which its turn
  began and the day on which the last of the approvals in `granted_after` came into force. Nor is a body chased where
  silence grants.
- What was never sent in counts from the day from which nothing else holds it up: the start of the study, the day on
  which the last of the approvals that it waits for came into force, or the introduction of a modification.
- With the study's last day the chasing of approvals ends; what is in force until then need not be renewed. Duties and
  incidents are owed beyond it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import date
from typing import Any, NamedTuple

import pandas as pd

from study.approval_steps import DAY, ITEM, Item
from study.calendar import add_days, find_holidays, move_to_working_day
from study.deadlines import derive_needed, describe_item, describe_place
from study.duties import derive_duties
from study.incidents import derive_incidents
from study.pathway import Chaser
from study.protocol import Study
from study.state import Events

CHASER_STATES = ("due", "coming")
_COLUMNS = [
    *("key", "chaser", "about", *ITEM, "duty", "incident_id", "to", "channel", "template", "anchor_on", "due_on"),
    *("state", "rule", "n_days_late"),
]
_Anchors = dict[str, tuple[date, str]]


class _Obligation(NamedTuple):
    """Something that is owed on a day. `anchors`: by `counts_from`, the day that rungs count from and what it is.

    `ladder`: the same for all that is owed of one thing. `name`: how keys name it. `of`: what a chaser may be kept
    to. `last_on`: the last day on which anybody is chased for it.
    """

    about: str
    of: str
    ladder: str
    name: str
    subject: str
    anchors: _Anchors
    ids: Mapping[str, str]
    last_on: date = date.max


class _Rung(NamedTuple):
    counted_on: date
    place: int
    due_on: date
    chaser: Chaser
    obligation: _Obligation


def derive_approval_chasers(study: Study, events: Events, as_of: date, sent: Collection[str] = ()) -> pd.DataFrame:
    """The rungs that are due at the end of a day, and those that come if nothing changes: due ones first, then by day.

    `sent`: keys of what was sent already, which is left out. Columns: key (the same from day to day, as long as the day
    that it counts from stands), chaser, about, approval, site_id, body_id, person_id, modification, duty, incident_id
    ('' where that does not apply), to (a role), channel, template, anchor_on (the day that it counts from), due_on (the
    day on which it is to go), state ("due" or "coming"), rule (a sentence: what is owed, since or until when, who is
    chased by which rung) and n_days_late (calendar days since due_on; 0 for what is coming).
    """
    ladders: dict[str, list[_Rung]] = {}
    for obligation in (
        *_list_item_obligations(study, events, as_of),
        *_list_duty_obligations(study, events, as_of),
        *_list_incident_obligations(study, events, as_of),
    ):
        ladders.setdefault(obligation.ladder, []).extend(_list_rungs(study, obligation))
    rows = [_describe_rung(rung, as_of) for rungs in ladders.values() for rung in _choose(rungs, as_of)]
    frame = pd.DataFrame([row for row in rows if row["key"] not in sent], columns=_COLUMNS)
    kinds = {**dict.fromkeys(_COLUMNS, "str"), "anchor_on": DAY, "due_on": DAY, "n_days_late": "int64"}
    frame = frame.astype(kinds)
    return frame.sort_values(["state", "due_on", "key"], ascending=[False, True, True], ignore_index=True)


def _list_rungs(study: Study, obligation: _Obligation) -> Iterator[_Rung]:
    holidays = find_holidays(study.bank_holidays)
    for place, chaser in enumerate(study.pathway.chasers):
        if chaser.about != obligation.about or (chaser.of and obligation.of not in chaser.of):
            continue
        if chaser.counts_from not in obligation.anchors:
            continue
        anchor_on, _ = obligation.anchors[chaser.counts_from]
        counted_on = add_days(anchor_on, chaser.days, chaser.unit, holidays)
        due_on = move_to_working_day(counted_on, "later", holidays)
        if due_on <= obligation.last_on:
            yield _Rung(counted_on, place, due_on, chaser, obligation)


def _choose(rungs: Iterable[_Rung], as_of: date) -> Iterable[_Rung]:
    """The highest rung that is due, and of those that come the highest of each day."""
    return {max(rung.due_on, as_of): rung for rung in sorted(rungs, key=lambda rung: rung[:2])}.values()


def _describe_rung(rung: _Rung, as_of: date) -> dict[str, Any]:
    chaser, obligation = rung.chaser, rung.obligation
    anchor_on, fact = obligation.anchors[chaser.counts_from]
    n_days = abs(chaser.days)
    unit = f"{'working ' if chaser.unit == 'working' else ''}day{'' if n_days == 1 else 's'}"
    when = f"{n_days} {unit} {'before' if chaser.days < 0 else 'after'} that day" if n_days else "on that day"
    moved = f"; moved from {rung.counted_on}, no working day" if rung.due_on != rung.counted_on else ""
    return {
        "key": f"chase:{obligation.name}:{chaser.id}:{anchor_on}",
        "chaser": chaser.id,
        "about": chaser.about,
        **dict.fromkeys((*ITEM, "duty", "incident_id"), ""),
        **obligation.ids,
        "to": chaser.to,
        "channel": chaser.channel,
        "template": chaser.template,
        "anchor_on": anchor_on,
        "due_on": rung.due_on,
        "state": "due" if rung.due_on <= as_of else "coming",
        "rule": f"{obligation.subject} {fact} {anchor_on}. {chaser.to.replace('_', ' ').capitalize()} is chased by "
        f"{chaser.channel} {when} ({chaser.id}{moved}).",
        "n_days_late": max((as_of - rung.due_on).days, 0),
    }


# Approvals ----------------------------------------------------------------------------------------------------------

_TURN_FACTS = {
    "information_requested": "has waited for our answer to a request for information since",
    "granted_with_conditions": "was granted with conditions, some of which are not met, on",
    "refused": "was refused on",
    "expired": "has not been in force since",
    "not_sought": "has not been sent in, and nothing else has held it up since",
}


def _list_item_obligations(study: Study, events: Events, as_of: date) -> Iterator[_Obligation]:
    if as_of > study.ends_on:
        return
    needed = derive_needed(study, events, as_of)
    ready = _Readiness(study, needed)
    rows: list[Any] = list(needed.itertuples(index=False))
    for row in rows:
        item = Item.of(row)
        parts = ":".join(item)
        for about, anchors in _list_owed(study, ready, item, row):
            yield _Obligation(
                about=about,
                of=item.approval,
                ladder=f"review:{parts}" if about == "review" else f"approval:{parts}",
                name=f"approval:{parts}:{row.attempt}",
                subject=describe_item(study, row),
                anchors=anchors,
                ids=item._asdict(),
                last_on=study.ends_on,
            )


def _list_owed(study: Study, ready: _Readiness, item: Item, row: Any) -> Iterator[tuple[str, _Anchors]]:
    """What is owed of one item: what it is about, and the days that count."""
    turn_on, due_on = _to_date(row.turn_since), _to_date(row.due_on)
    if row.turn == "authority":
        ready_on = ready.find_day(item, "granted_after")
        turn_on = None if turn_on is None or ready_on is None else max(turn_on, ready_on)
        if turn_on is not None and pd.isna(row.implied_on):
            yield (
                "authority",
                _join(turn_on, "has been with the authority since", due_on, "is due from the authority by"),
            )
    elif row.turn == "applicant" and pd.isna(row.resumes_on):
        if row.state == "not_sought":
            ready_on = ready.find_day(item, "submitted_after", "granted_after")
            ready_on = None if ready_on is None else max(ready_on, study.starts_on)
            turn_on = _to_date(row.introduced_on) if item.modification else ready_on
        if turn_on is not None:
            yield "applicant", _join(turn_on, _TURN_FACTS[row.state], due_on, "is to have our answer by")
    last_on, review_on = _to_date(row.lasts_until), _to_date(row.review_due_on)
    is_granted = row.state in ("granted", "expired") and pd.isna(row.resumes_on)
    if is_granted and last_on is not None and last_on < study.ends_on:
        yield "expiry", _join(None, "", last_on, "has its last day of force on")
    if review_on is not None and review_on <= study.ends_on:
        yield "review", _join(None, "", _to_date(row.review_form_due_on) or review_on, "owes its periodic review by")


def _join(turn_on: date | None, turn_fact: str, due_on: date | None, due_fact: str) -> _Anchors:
    days = {"turn": (turn_on, turn_fact), "due": (due_on, due_fact)}
    return {name: (on, fact) for name, (on, fact) in days.items() if on is not None}


def _to_date(day: Any) -> date | None:
    return None if pd.isna(day) else day.date()


class _Readiness:
    """From when on an item's turn can count: once the approvals that it waits for are in force."""

    def __init__(self, study: Study, needed: pd.DataFrame) -> None:
        self.study = study
        self.begun: dict[str, dict[Item, date | None]] = {}
        original = needed.loc[needed["modification"] == "", [*ITEM, "is_in_force", "first_in_force_on"]]
        for *parts, is_in_force, first_on in original.itertuples(index=False, name=None):
            item = Item(*parts)
            self.begun.setdefault(item.approval, {})[item] = first_on.date() if is_in_force else None

    def find_day(self, item: Item, *fields: str) -> date | None:
        """When the last of the approvals that an item names in these fields first came into force (the first of days
        if it names none); None while one of them is not in force. Those of the same site and body count; a modification
        waits for none."""
        approval = self.study.pathway.find_approval(item.approval)
        latest = date.min
        if approval is None or item.modification:
            return latest
        for other in (name for field in fields for name in getattr(approval, field)):
            for place, begun_on in self.begun.get(other, {}).items():
                if all("" in pair or pair[0] == pair[1] for pair in zip(item[1:4], place[1:4], strict=True)):
                    if begun_on is None:
                        return None
                    latest = max(latest, begun_on)
        return latest


# Duties and incidents -----------------------------------------------------------------------------------------------


def _list_duty_obligations(study: Study, events: Events, as_of: date) -> Iterator[_Obligation]:
    duties = derive_duties(study, events, as_of)
    rows: list[Any] = list(duties.loc[duties["state"] != "done"].itertuples(index=False))
    for row in rows:
        place = describe_place(study, row.site_id)
        name = f"duty:{row.duty}:{row.site_id}"
        yield _Obligation(
            about="duty",
            of=row.duty,
            ladder=f"{name}:{row.n}",
            name=name,
            subject=f"{row.label}{f', {place},' if place else ''} (to: {row.to})",
            anchors=_join(None, "", row.due_on.date(), "is due on"),
            ids={"duty": row.duty, "site_id": row.site_id},
        )


def _list_incident_obligations(study: Study, events: Events, as_of: date) -> Iterator[_Obligation]:
    if all(chaser.about != "incident" for chaser in study.pathway.chasers):
        return
    incidents = derive_incidents(study, events, as_of)
    rows: list[Any] = list(incidents.loc[incidents["state"] == "open"].itertuples(index=False))
    for row in rows:
        place = describe_place(study, row.site_id)
        name = f"incident:{row.incident_id}"
        yield _Obligation(
            about="incident",
            of="",
            ladder=name,
            name=name,
            subject=f"Incident {row.incident_id}{f', {place},' if place else ''}",
            anchors=_join(row.found_on.date(), "was found on", _to_date(row.assess_by), "is to be assessed by"),
            ids={"incident_id": row.incident_id, "site_id": row.site_id},
        )
