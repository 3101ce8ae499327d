"""Who is chased for approvals, duties and incidents, when and by which rule.

The plan is drawn up afresh each day from what is owed that day, so whatever ends an obligation ends its chasers: a
decision, an answer, a renewal, a duty that was done, an assessment. Nothing is scheduled ahead.

Judgement calls:

- The day of a chaser that falls on a weekend or a bank holiday moves to the next working day.
- Of the rungs of one ladder that are due, only the highest counts: after a backlog, nobody gets three letters at once.
- A rung is taken once on each occasion of an attempt: the turn after the n-th answer, the n-th request, the term after
  the n-th renewal. So a date that is corrected chases nobody twice, and what really begins anew is chased anew. Nor is
  a rung below one that was taken gone back to.
- An authority is not chased for what it can't give yet: its days count from the later of the day on which its turn
  began and the day on which the last of the approvals in `granted_after` came into force. Nor is a body chased where
  silence grants.
- What was never sent in counts from the day from which nothing else holds it up: the start of the study, the day on
  which the last of the approvals that it waits for came into force, or the introduction of a modification.
- With the study's last day the chasing of approvals ends; what is in force until then need not be renewed. Duties and
  incidents are owed beyond it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

import pandas as pd

from study.approval_steps import DAY, ITEM, Item, derive_steps
from study.calendar import add_days, find_holidays, move_to_working_day
from study.deadlines import derive_needed, describe_item, describe_place
from study.duties import derive_duties
from study.events import ObligationChased
from study.incidents import derive_incidents
from study.pathway import Chaser
from study.protocol import Study
from study.state import Events, remembered

RUNG_STATES = ("due", "coming", "chased")
_COLUMNS = [
    *("key", "chaser", "about", *ITEM, "duty", "incident_id", "to", "channel", "template", "anchor_on", "due_on"),
    *("state", "rule", "n_days_late", "obligation", "subject", "fact"),
]
_Anchors = dict[str, tuple[date, str]]


class _Obligation(NamedTuple):
    """Something that is owed on a day. `anchors`: by `counts_from`, the day that rungs count from and what it is.

    `ladder`: the same for all that is owed of one thing. `name`: how keys name it, without a date that may move. `of`:
    what a chaser may be kept to. `last_on`: the last day on which anybody is chased for it.
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

    @property
    def key(self) -> str:
        return f"chase:{self.obligation.name}:{self.chaser.id}"


def derive_approval_chasers(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """The rungs that are due at the end of a day, and those that come if nothing changes: due ones first, then by day.

    What was chased already (standing ObligationChased) is left out. Columns: key (the same from day to day), chaser,
    about, approval, site_id, body_id, person_id, modification, duty, incident_id ('' where that does not apply), to (a
    role), channel, template, anchor_on (the day that it counts from), due_on (the day on which it is to go), state
    ("due" or "coming"), rule (a sentence: what is owed, since or until when, who is chased by which rung), n_days_late
    (calendar days since due_on; 0 for what is coming), obligation (what is owed, as keys name it), subject and fact
    (what is owed and what anchor_on is, in words).
    """
    rungs = derive_approval_rungs(study, events, as_of)
    return rungs.loc[rungs["state"] != "chased"].reset_index(drop=True)


def derive_approval_rungs(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """The rungs of `derive_approval_chasers`, and of each ladder the highest that was taken (state "chased")."""
    taken = set(events.select(as_of=as_of).frame(ObligationChased, ["key"])["key"])
    rows = [
        _describe_rung(rung, state, as_of)
        for rungs in _list_ladders(study, events, as_of)
        for rung, state in _choose(rungs, taken, as_of)
    ]
    frame = pd.DataFrame(rows, columns=_COLUMNS)
    kinds = {**dict.fromkeys(_COLUMNS, "str"), "anchor_on": DAY, "due_on": DAY, "n_days_late": "int64"}
    frame = frame.astype(kinds)
    order = frame["state"].map({state: place for place, state in enumerate(RUNG_STATES)})
    frame = frame.assign(order=order).sort_values(["order", "due_on", "key"], ignore_index=True)
    return frame[_COLUMNS]


@remembered
def _list_ladders(study: Study, events: Events, as_of: date) -> tuple[list[_Rung], ...]:
    """Of everything that is owed its rungs, the lowest first; whether they were taken or not."""
    ladders: dict[str, list[_Rung]] = {}
    for obligation in (
        *_list_item_obligations(study, events, as_of),
        *_list_duty_obligations(study, events, as_of),
        *_list_incident_obligations(study, events, as_of),
    ):
        ladders.setdefault(obligation.ladder, []).extend(_list_rungs(study, obligation))
    return tuple(sorted(rungs, key=lambda rung: rung[:2]) for rungs in ladders.values())


def _is_chased(study: Study, *about: str) -> bool:
    """Whether any chaser is about one of these: what nobody is chased for need not be folded."""
    return any(chaser.about in about for chaser in study.pathway.chasers)


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


def _choose(ordered: Sequence[_Rung], taken: Collection[str], as_of: date) -> Iterator[tuple[_Rung, str]]:
    """Of the rungs above the highest that was taken: the highest that is due, and of those that come the highest of
    each day. The highest that was taken comes first."""
    highest = max((n for n, rung in enumerate(ordered) if rung.key in taken), default=-1)
    if highest >= 0:
        yield ordered[highest], "chased"
    by_day = {max(rung.due_on, as_of): rung for rung in ordered[highest + 1 :]}
    for rung in by_day.values():
        yield rung, "due" if rung.due_on <= as_of else "coming"


def _describe_rung(rung: _Rung, state: str, as_of: date) -> dict[str, Any]:
    chaser, obligation = rung.chaser, rung.obligation
    anchor_on, fact = obligation.anchors[chaser.counts_from]
    n_days = abs(chaser.days)
    unit = f"{'working ' if chaser.unit == 'working' else ''}day{'' if n_days == 1 else 's'}"
    when = f"{n_days} {unit} {'before' if chaser.days < 0 else 'after'} that day" if n_days else "on that day"
    moved = f"; moved from {rung.counted_on}, no working day" if rung.due_on != rung.counted_on else ""
    return {
        "key": rung.key,
        "chaser": chaser.id,
        "about": chaser.about,
        **dict.fromkeys((*ITEM, "duty", "incident_id"), ""),
        **obligation.ids,
        "to": chaser.to,
        "channel": chaser.channel,
        "template": chaser.template,
        "anchor_on": anchor_on,
        "due_on": rung.due_on,
        "state": state,
        "rule": f"{obligation.subject} {fact} {anchor_on}. {chaser.to.replace('_', ' ').capitalize()} is chased by "
        f"{chaser.channel} {when} ({chaser.id}{moved}).",
        "n_days_late": max((as_of - rung.due_on).days, 0),
        "obligation": obligation.name,
        "subject": obligation.subject,
        "fact": fact,
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
    if as_of > study.ends_on or not _is_chased(study, "authority", "applicant", "expiry", "review"):
        return
    needed = derive_needed(study, events, as_of)
    ready = _Readiness(study, needed)
    numbers = _count_steps(study, events, as_of)
    rows: list[Any] = list(needed.itertuples(index=False))
    for row in rows:
        item = Item.of(row)
        parts = ":".join(item)
        for about, anchors in _list_owed(study, ready, item, row):
            occasion = _name_occasion(about, row, numbers.get((*item, row.attempt), {}))
            yield _Obligation(
                about=about,
                of=item.approval,
                ladder=f"review:{parts}" if about == "review" else f"approval:{parts}",
                name=f"approval:{parts}:{row.attempt}:{occasion}",
                subject=describe_item(study, row),
                anchors=anchors,
                ids=item._asdict(),
                last_on=study.ends_on,
            )


def _count_steps(study: Study, events: Events, as_of: date) -> dict[tuple[Any, ...], dict[str, int]]:
    """Of each item and attempt: how many requests, answers and renewals there were."""
    steps = derive_steps(study, events, as_of)
    numbered = steps.loc[steps["step"].isin(["requested", "answered", "renewed"])]
    found: dict[tuple[Any, ...], dict[str, int]] = {}
    distinct = numbered.groupby([*ITEM, "attempt", "step"])["number"].nunique().reset_index()
    for *parts, step, n in distinct.itertuples(index=False, name=None):
        found.setdefault(tuple(parts), {})[step] = int(n)
    return found


def _name_occasion(about: str, row: Any, numbers: Mapping[str, int]) -> str:
    """Which of the times that this may be owed within one attempt; it holds no date, since dates are corrected."""
    if about == "authority":
        return f"turn{1 + numbers.get('answered', 0)}"
    if about in ("expiry", "review"):
        return f"term{1 + numbers.get('renewed', 0)}"
    return {
        "information_requested": f"request{numbers.get('requested', 0)}",
        "granted_with_conditions": "conditions",
        "refused": "refusal",
        "expired": f"lapse{1 + numbers.get('renewed', 0)}",
    }.get(row.state, "unsought")


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
    if not _is_chased(study, "duty"):
        return
    duties = derive_duties(study, events, as_of)
    rows: list[Any] = list(duties.loc[duties["state"] != "done"].itertuples(index=False))
    for row in rows:
        place = describe_place(study, row.site_id)
        name = f"duty:{row.duty}:{row.site_id}:{row.n}"
        yield _Obligation(
            about="duty",
            of=row.duty,
            ladder=name,
            name=name,
            subject=f"{row.label}{f', {place},' if place else ''} (to: {row.to})",
            anchors=_join(None, "", row.due_on.date(), "is due on"),
            ids={"duty": row.duty, "site_id": row.site_id},
        )


def _list_incident_obligations(study: Study, events: Events, as_of: date) -> Iterator[_Obligation]:
    if not _is_chased(study, "incident"):
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
