"""Modifications (called amendments before 28 April 2026): where each stands at every body, and which documents count.

A modification is put to each approval that the pathway has a route for, at every place that it affects: one event, many
items, each with a state, a clock and a first day of its own. Two rules of 35 days are kept apart: the committee's (a
decision within 35 days of valid) is a clock like any other; the site's is a route on which silence grants. Under no
body does a change start before the study itself has it approved, and at a site it starts when it may under every body.
"""

from __future__ import annotations

from datetime import date
from itertools import pairwise
from typing import Any

import pandas as pd

from study.approval_steps import (
    DAY,
    ITEM,
    NO_END,
    Item,
    derive_known_spells,
    derive_steps,
    find_silent_grant,
    list_modification_items,
)
from study.approvals import derive_standing, find_unknown_modification
from study.events import DocumentVersionIssued, Event, ModificationIntroduced, ModificationSupplied
from study.instruments import find_suggestion
from study.protocol import Study
from study.state import Events, remembered

_ONE_DAY = pd.Timedelta(days=1)


@remembered
def derive_modifications(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """Where every modification stands at every place, at the end of a day: one row per item, oldest modification first.

    Columns: those of `derive_approvals`, and introduced_on, category, is_substantial, body_ids (joined with ";"; '' if
    it is for all), implied_on (the day from which silence grants it; NaT where somebody must decide, has decided, or
    has not been asked) and starts_on (the day from which the change may be made under this body: the latest of its own
    day and those of the study's own approvals of the change; NaT while one of them is missing).
    """
    introduced = events.select(as_of=as_of).frame(ModificationIntroduced)
    introduced = introduced.sort_values(["occurred_on", "modification"])
    items = list_modification_items(study, introduced)
    levels = {approval.id: approval.level for approval in study.pathway.approvals}
    rows = [(*item, levels[item.approval], True) for item, _ in items]
    frame = pd.DataFrame(rows, columns=[*ITEM, "level", "is_needed"])
    frame = frame.astype({**dict.fromkeys([*ITEM, "level"], "str"), "is_needed": "bool"})
    steps = derive_steps(study, events, as_of)
    steps = steps.loc[steps["modification"] != ""]
    standing = derive_standing(study, steps, frame, as_of)
    about = introduced[["modification", "category", "is_substantial", "body_ids", "occurred_on"]]
    standing = standing.merge(about.rename(columns={"occurred_on": "introduced_on"}), how="left", on="modification")
    waiting = ("submitted", "valid", "information_requested")
    sent = zip(standing["state"], standing["route"], standing["submitted_on"], strict=True)
    implied = [find_silent_grant(study, route, on.date()) if state in waiting else None for state, route, on in sent]
    standing["implied_on"] = pd.Series(implied, standing.index, dtype=DAY)
    standing["starts_on"] = _find_starts(standing)
    return standing


def _find_starts(standing: pd.DataFrame) -> pd.Series[Any]:
    own = standing["in_force_from"].where(standing["state"] == "granted")
    of_study = standing["level"] == "study"
    is_waiting = (of_study & own.isna()).groupby(standing["modification"]).transform("any")
    latest = own.where(of_study).groupby(standing["modification"]).transform("max")
    starts = pd.concat([own, latest], axis="columns").max(axis="columns")
    return starts.where(own.notna() & ~is_waiting).astype(DAY)


def derive_site_starts(study: Study, modifications: pd.DataFrame) -> pd.DataFrame:
    """From when each modification may be made at each site that it concerns, from `derive_modifications`.

    Columns: modification, site_id, n_bodies (that have a say there), n_waiting, starts_on (NaT while one is missing, or
    has refused). A site where no body has a say follows the study's own approvals.
    """
    rows = []
    for name, own in modifications.groupby("modification", sort=False):
        of_study = own.loc[own["level"] == "study"]
        is_approved = bool(of_study["starts_on"].notna().all())
        for site_id in _list_sites(study, own["body_ids"].iloc[0]):
            here = own.loc[own["site_id"] == site_id]
            n_waiting = int(here["starts_on"].isna().sum())
            starts_on = pd.concat([here["starts_on"], of_study["starts_on"]]).max()
            is_ready = is_approved and not n_waiting
            rows.append((name, site_id, len(here), n_waiting, starts_on if is_ready else pd.NaT))
    frame = pd.DataFrame(rows, columns=["modification", "site_id", "n_bodies", "n_waiting", "starts_on"])
    return frame.astype({"modification": "str", "site_id": "str", "starts_on": DAY})


def _list_sites(study: Study, body_ids: str) -> list[str]:
    """The sites of these bodies (joined with ";"); all sites if none are named."""
    named = set(body_ids.split(";")) if body_ids else set()
    return [site.site_id for site in study.sites if not named or any(body.id in named for body in site.bodies)]


@remembered
def derive_document_versions(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """When each version of each document was in force at each site, as known on a day: one row per unbroken time.

    Columns: document, version, site_id, from_on, until_on (the last day; the end of 2200 if no end is known). A version
    that came with an approval is in force from its first grant, one that came with a modification while the study's own
    approvals of that and every body that has a say at the site agree to it; none before its issue. Of several the one
    that came into force last counts (of one day: the later issued), so the version before is back where an objection
    ended a change.
    """
    issued = events.select(as_of=as_of).frame(DocumentVersionIssued).sort_values("occurred_on", kind="stable")
    spells = derive_known_spells(study, events, as_of)
    granted = spells.loc[spells["modification"] == ""].groupby(["approval", "site_id"])["from_on"].min()
    times = _find_times(study, events.select(as_of=as_of).frame(ModificationIntroduced), spells)
    rows: list[tuple[Any, ...]] = []
    for document, own in issued.groupby("document", sort=False):
        versions = own.to_dict("records")
        for site in study.sites:
            candidates = []
            for order, row in enumerate(versions):
                if row["modification"]:
                    found = times.get((row["modification"], site.site_id), [])
                else:
                    of_study = granted.get((row["approval"], ""), pd.NaT)
                    first_on = granted.get((row["approval"], site.site_id), of_study)
                    found = [(first_on, NO_END)] if pd.notna(first_on) else []
                for from_on, until_on in found:
                    if row["occurred_on"] <= until_on:
                        begun_on = max(from_on, row["occurred_on"])
                        candidates.append((begun_on, order, until_on, row["version"]))
            rows += [(document, version, site.site_id, *days) for version, *days in _lay_out(candidates)]
    frame = pd.DataFrame(rows, columns=["document", "version", "site_id", "from_on", "until_on"])
    texts = dict.fromkeys(("document", "version", "site_id"), "str")
    frame = frame.astype({**texts, "from_on": DAY, "until_on": DAY})
    return frame.sort_values(["document", "site_id", "from_on"], ignore_index=True)


def _find_times(
    study: Study, introduced: pd.DataFrame, spells: pd.DataFrame
) -> dict[tuple[str, str], list[tuple[Any, Any]]]:
    """From when to when each modification was agreed by all at each site that it concerns."""
    agreed: dict[Item, list[tuple[Any, Any]]] = {}
    for *parts, from_on, until_on in spells[[*ITEM, "from_on", "until_on"]].itertuples(index=False, name=None):
        agreed.setdefault(Item(*parts), []).append((from_on, until_on))
    items = [item for item, _ in list_modification_items(study, introduced)]
    times = {}
    for name, body_ids in introduced[["modification", "body_ids"]].itertuples(index=False, name=None):
        for site_id in _list_sites(study, body_ids):
            concerned = [item for item in items if item.modification == name and item.site_id in ("", site_id)]
            common = [(pd.Timestamp.min, NO_END)] if concerned else []
            for item in concerned:
                own = agreed.get(item, [])
                pairs = [(max(first, other), min(last, end)) for first, last in common for other, end in own]
                common = [(first, last) for first, last in pairs if first <= last]
            times[name, site_id] = common
    return times


def _lay_out(candidates: list[tuple[Any, int, Any, str]]) -> list[tuple[str, Any, Any]]:
    """Which of several versions counts from when to when. `candidates`: from, order, until, version."""
    bounds = sorted({day for first, _, last, _ in candidates for day in (first, last + _ONE_DAY)})
    found: list[tuple[str, Any, Any]] = []
    for begins, ends in pairwise(bounds):
        present = [one for one in candidates if one[0] <= begins <= one[2]]
        if not present:
            continue
        version, last = max(present)[3], ends - _ONE_DAY
        if found and found[-1][0] == version and found[-1][2] + _ONE_DAY == begins:
            found[-1] = (version, found[-1][1], last)
        else:
            found.append((version, begins, last))
    return found


def find_document_version(versions: pd.DataFrame, document: str, site_id: str, on: date) -> str:
    """Which version was in force at this site on this day, by `derive_document_versions`; "" if none was."""
    day = pd.Timestamp(on)
    is_it = (versions["document"] == document) & (versions["site_id"] == site_id)
    found = versions.loc[is_it & (versions["from_on"] <= day) & (day <= versions["until_on"]), "version"]
    return str(found.iloc[0]) if len(found) else ""


def find_modification_faults(study: Study, events: Events, event: Event, today: date) -> list[str]:
    """Why a modification, its supply or a document can't be recorded as told: sentences; none if it can.

    `events`: the ledger, without a view. `today`: the date in London.
    """
    faults = []
    if event.occurred_on > today:
        faults.append(f"the date {event.occurred_on} is in the future (today is {today}). Correct the date.")
    if isinstance(event, ModificationIntroduced):
        faults += _find_introduction_faults(study, event)
    if isinstance(event, ModificationSupplied):
        faults += find_unknown_modification(events.frame(ModificationIntroduced), event.modification, event.occurred_on)
        if event.site_id and study.find_site(event.site_id) is None:
            known = [site.site_id for site in study.sites]
            hint = find_suggestion(event.site_id, known) or f" Known: {', '.join(known)}."
            faults.append(f'"{event.site_id}" is no site of {study.study_id}. Correct it.{hint}')
    if isinstance(event, DocumentVersionIssued):
        faults += _find_document_faults(study, events, event)
    return faults


def _find_introduction_faults(study: Study, event: ModificationIntroduced) -> list[str]:
    faults = []
    known = {body.id for site in study.sites for body in site.bodies}
    for body_id in event.body_ids:
        if body_id not in known:
            faults.append(f"{body_id} is no body of any site. Correct it.{find_suggestion(body_id, known)}")
    pathway = study.pathway
    routes = [
        pathway.find_routes(approval.id, event.occurred_on, event.category, event.is_substantial)
        for approval in pathway.approvals
    ]
    if not any(routes):
        faults.append(
            f"no route in approvals.toml is for modifications of category {event.category} on {event.occurred_on}, so "
            "nobody would be asked. Add [[routes]] with for_modifications."
        )
    return faults


def _find_document_faults(study: Study, events: Events, event: DocumentVersionIssued) -> list[str]:
    pathway = study.pathway
    faults = []
    if pathway.find_document(event.document) is None:
        known = [document.id for document in pathway.documents]
        hint = find_suggestion(event.document, known) or f" Known: {', '.join(known) or 'none'}."
        faults.append(f'"{event.document}" is not under [[documents]] in approvals.toml. Add or correct it.{hint}')
    if bool(event.approval) == bool(event.modification):
        faults.append(
            "name either the approval that the version was sent in with, or the modification: one of the two."
        )
    elif event.modification:
        faults += find_unknown_modification(events.frame(ModificationIntroduced), event.modification, date.max)
    elif pathway.find_approval(event.approval) is None:
        known = [approval.id for approval in pathway.approvals]
        hint = find_suggestion(event.approval, known)
        faults.append(f'"{event.approval}" is no approval of the pathway. Correct it.{hint}')
    return faults
