"""Everything dated that lies ahead of the study or was missed: one list for the page, the calendar and the terminal.

Each date is that of the module which decides it (approvals, modifications, duties, incidents); nothing is counted here.
What is settled has no date: a granted approval is not waited for any more, and a renewal that follows on without a
gap moves the last day of force.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any, NamedTuple

import pandas as pd

from study.approval_steps import DAY, ITEM, NO_END, derive_known_spells
from study.approvals import derive_approvals
from study.duties import derive_duties
from study.incidents import STUDY_TEAM, derive_incidents
from study.modifications import derive_modifications
from study.protocol import Study
from study.state import Events, remembered

DEADLINE_KINDS = (
    *("decision_due", "answer_due", "expiry", "review_form_due", "review_due", "duty", "implied_start"),
    "incident_assessment",
)
_COLUMNS = ["on", "kind", "title", *ITEM, "duty", "incident_id", "owner", "is_overdue", "uid"]


class _Deadline(NamedTuple):
    on: Any
    kind: str
    title: str
    approval: str = ""
    site_id: str = ""
    body_id: str = ""
    person_id: str = ""
    modification: str = ""
    duty: str = ""
    incident_id: str = ""
    owner: str = STUDY_TEAM
    number: int = 0


def derive_deadlines(study: Study, events: Events, as_of: date, within_days: int | None = 90) -> pd.DataFrame:
    """What is dated from `as_of` to so many days later (None: all), and all that is overdue; the earliest first.

    After the last day of the study no approval of it is overdue any more. What is dated ahead stays.

    Columns: on, kind (one of DEADLINE_KINDS), title (what it is, without its place), approval, site_id, body_id,
    person_id, modification, duty, incident_id ('' where that does not apply), owner (who has to act: an authority by
    its name, or a role), is_overdue (the day is over) and uid. `implied_start` is the day from which silence lets a
    change start. The uid names the obligation and not its day: a calendar that has the entry already moves it.
    """
    rows = [*_list_item_deadlines(study, derive_needed(study, events, as_of))]
    rows += _list_other_deadlines(study, events, as_of)
    frame = pd.DataFrame(rows, columns=_Deadline._fields)
    texts = dict.fromkeys((*ITEM, "kind", "title", "duty", "incident_id", "owner"), "str")
    frame = frame.astype({**texts, "on": DAY, "number": "int64"})
    frame["is_overdue"] = frame["on"] < pd.Timestamp(as_of)
    if as_of > study.ends_on:
        frame = frame.loc[~frame["is_overdue"] | (frame["approval"] == "")]
    names = frame[["kind", *ITEM, "duty", "incident_id", "number"]].astype("str").itertuples(index=False, name=None)
    frame["uid"] = pd.Series([":".join((study.study_id, *parts)) for parts in names], frame.index, dtype="str")
    if within_days is not None:
        frame = frame.loc[frame["on"] <= pd.Timestamp(as_of + timedelta(days=within_days))]
    return frame.sort_values(["on", "uid"], ignore_index=True)[_COLUMNS]


@remembered
def derive_needed(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """Every approval that the study needs, and every modification's at every place.

    Columns: those of `derive_approvals`, introduced_on and implied_on (of modifications), lasts_until (the last day of
    unbroken force; NaT for no end, or where nothing was in force), resumes_on (from when it is in force again after a
    gap, by a letter on record) and first_in_force_on (of all attempts).
    """
    approvals = derive_approvals(study, events, as_of)
    modifications = derive_modifications(study, events, as_of)
    columns = [*approvals.columns, "introduced_on", "implied_on"]
    parts = [approvals.loc[approvals["is_needed"]], modifications]
    needed = pd.concat([part.reindex(columns=columns) for part in parts if len(part)] or [modifications[columns]])
    needed = needed.reset_index(drop=True).astype({"introduced_on": DAY, "implied_on": DAY})
    spells = derive_known_spells(study, events, as_of)
    first = spells.groupby(ITEM)["from_on"].min().rename("first_in_force_on")
    needed = needed.join(first, on=ITEM)
    known: dict[tuple[str, ...], list[tuple[pd.Timestamp, pd.Timestamp]]] = {}
    latest = spells.loc[spells["is_latest"], [*ITEM, "from_on", "until_on"]]
    for *item, from_on, until_on in latest.itertuples(index=False, name=None):
        known.setdefault(tuple(item), []).append((from_on, until_on))
    ends = [
        _find_end(known.get(tuple(item), []), from_on)
        for *item, from_on in needed[[*ITEM, "in_force_from"]].itertuples(index=False, name=None)
    ]
    for place, column in enumerate(("lasts_until", "resumes_on")):
        needed[column] = pd.Series([days[place] for days in ends], needed.index, dtype=DAY)
    return needed


def _find_end(spells: list[tuple[Any, Any]], from_on: Any) -> tuple[Any, Any]:
    """The last day of the spell from this day and of those that follow it without a gap, and the day after the gap."""
    last: Any = None
    for begun_on, until_on in spells:
        if begun_on == from_on or (last is not None and begun_on <= last + pd.Timedelta(days=1)):
            last = until_on
        elif last is not None:
            return last, begun_on
    return None if last == NO_END else last, None


def _list_item_deadlines(study: Study, needed: pd.DataFrame) -> Iterator[_Deadline]:
    rows: list[Any] = list(needed.itertuples(index=False))
    for row in rows:
        item = {column: getattr(row, column) for column in ITEM}
        what = describe_item(study, row, with_place=False)
        approval = study.pathway.find_approval(row.approval)
        authority = approval.authority if approval else ""
        if pd.notna(row.implied_on):
            title = f"{what}: unless somebody objects, silence counts as agreement from this day"
            yield _Deadline(row.implied_on, "implied_start", title, **item, owner=authority, number=row.attempt)
        elif pd.notna(row.decision_due_on):
            title = f"{what}: the decision is due"
            yield _Deadline(row.decision_due_on, "decision_due", title, **item, owner=authority, number=row.attempt)
        elif row.turn == "authority" and pd.notna(row.due_on):
            title = f"{what}: the application should be found valid"
            yield _Deadline(row.due_on, "decision_due", title, **item, owner=authority, number=row.attempt)
        if row.turn == "applicant" and pd.notna(row.due_on):
            title = f"{what}: the answer to the request for information is due"
            yield _Deadline(row.due_on, "answer_due", title, **item, number=row.attempt)
        if row.state in ("granted", "expired") and pd.notna(row.lasts_until):
            yield _Deadline(row.lasts_until, "expiry", f"{what}: last day of force", **item, number=row.attempt)
        if pd.notna(row.review_form_due_on):
            title = f"{what}: the form for the periodic review is due"
            yield _Deadline(row.review_form_due_on, "review_form_due", title, **item, number=row.attempt)
        if pd.notna(row.review_due_on):
            title = f"{what}: the periodic review is due"
            yield _Deadline(row.review_due_on, "review_due", title, **item, owner=authority, number=row.attempt)


def _list_other_deadlines(study: Study, events: Events, as_of: date) -> Iterator[_Deadline]:
    duties = derive_duties(study, events, as_of)
    owed: list[Any] = list(duties.loc[duties["state"] != "done"].itertuples(index=False))
    for row in owed:
        title = f"{row.label} (to: {row.to})"
        about = {"duty": row.duty, "site_id": row.site_id, "owner": row.owner, "number": row.n}
        yield _Deadline(row.due_on, "duty", title, **about)
    incidents = derive_incidents(study, events, as_of)
    is_owed = (incidents["state"] == "open") & incidents["assess_by"].notna()
    waiting: list[Any] = list(incidents.loc[is_owed].itertuples(index=False))
    for row in waiting:
        title = f"Incident {row.incident_id}: the assessment is due"
        about = {"incident_id": row.incident_id, "site_id": row.site_id, "owner": row.turn}
        yield _Deadline(row.assess_by, "incident_assessment", title, **about)


def describe_item(study: Study, row: Any, with_place: bool = True) -> str:
    """An approval and its place in words: "Council approval, Luton Council (Luton)". `row`: has the fields of Item."""
    approval = study.pathway.find_approval(row.approval)
    told = approval.label if approval else row.approval
    if row.modification:
        told = f"Modification {row.modification}: {told}"
    if row.person_id:
        told = f"{told} of {row.person_id}"
    place = describe_place(study, row.site_id, row.body_id) if with_place else ""
    return f"{told}, {place}" if place else told


def describe_place(study: Study, site_id: str, body_id: str = "") -> str:
    """A site, or a body at a site, by name: "Luton", "Luton Council (Luton)"; '' for the study as a whole."""
    site = study.find_site(site_id)
    if site is None:
        return site_id
    body = next((body.name for body in site.bodies if body.id == body_id), body_id)
    return f"{body} ({site.name})" if body else site.name
