"""Modifications (called amendments before 28 April 2026): where each stands at every body, and which documents count.

A modification is put to each approval that the pathway has a route for, at every place that it affects: one event, many
items, each with a state, a clock and a first day of its own. Two rules of 35 days are kept apart: the committee's (a
decision within 35 days of valid) is a clock like any other; the site's is a route on which silence grants. Under no
body does a change start before the study itself has it approved, and at a site it starts when it may under every body.
"""

from __future__ import annotations

from datetime import date
from typing import Any

import pandas as pd

from study.approval_steps import (
    DAY,
    ITEM,
    NO_END,
    derive_spells,
    derive_steps,
    find_silent_grant,
    list_modification_items,
)
from study.approvals import derive_standing, find_unknown_modification
from study.events import DocumentVersionIssued, Event, ModificationIntroduced, ModificationSupplied
from study.instruments import find_suggestion
from study.protocol import Study
from study.state import Events


def derive_modifications(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """Where every modification stands at every place, at the end of a day: one row per item, oldest modification first.

    Columns: those of `derive_approvals`, and introduced_on, category, is_substantial, implied_on (the day from which
    silence grants it; NaT where somebody must decide, has decided, or has not been asked) and starts_on (the day from
    which the change may be made under this body: the latest of its own day and those of the study's own approvals of
    the change; NaT while one of them is missing).
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
    about = introduced[["modification", "category", "is_substantial", "occurred_on"]]
    standing = standing.merge(about.rename(columns={"occurred_on": "introduced_on"}), how="left", on="modification")
    sent = zip(standing["state"], standing["route"], standing["submitted_on"], strict=True)
    implied = [
        find_silent_grant(study, route, on.date()) if state == "submitted" else None for state, route, on in sent
    ]
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
    """From when each modification may be made at each site, from `derive_modifications`.

    Columns: modification, site_id, n_bodies (that have a say there), n_waiting, starts_on (NaT while one is missing, or
    has refused). A site where no body has a say follows the study's own approvals.
    """
    rows = []
    for name, own in modifications.groupby("modification", sort=False):
        of_study = own.loc[own["level"] == "study"]
        is_approved = bool(of_study["starts_on"].notna().all())
        for site in study.sites:
            here = own.loc[own["site_id"] == site.site_id]
            n_waiting = int(here["starts_on"].isna().sum())
            starts_on = pd.concat([here["starts_on"], of_study["starts_on"]]).max()
            is_ready = is_approved and not n_waiting
            rows.append((name, site.site_id, len(here), n_waiting, starts_on if is_ready else pd.NaT))
    frame = pd.DataFrame(rows, columns=["modification", "site_id", "n_bodies", "n_waiting", "starts_on"])
    return frame.astype({"modification": "str", "site_id": "str", "starts_on": DAY})


def derive_document_versions(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """When each version of each document was in force at each site, as known on a day: one row per version and site.

    Columns: document, version, site_id, from_on, until_on (the last day; the end of 2200 if no later version is in
    force). A version that came with an approval is in force with its first grant, one that came with a modification
    with its start at the site, and none before its issue. Of two that start on one day the later issued counts.
    """
    view = events.select(as_of=as_of)
    issued = view.frame(DocumentVersionIssued).sort_values("occurred_on", kind="stable")
    columns = ["document", "version", "site_id", "from_on", "until_on"]
    spells = derive_spells(derive_steps(study, events, as_of))
    granted = spells.loc[spells["modification"] == ""].groupby(["approval", "site_id"])["from_on"].min()
    starts = derive_site_starts(study, derive_modifications(study, events, as_of))
    started = starts.set_index(["modification", "site_id"])["starts_on"]
    rows = []
    for order, row in enumerate(issued.to_dict("records")):
        for site in study.sites:
            if row["modification"]:
                from_on = started.get((row["modification"], site.site_id), pd.NaT)
            else:
                of_study = granted.get((row["approval"], ""), pd.NaT)
                from_on = granted.get((row["approval"], site.site_id), of_study)
            if pd.notna(from_on):
                from_on = max(from_on, row["occurred_on"])
                rows.append((row["document"], row["version"], site.site_id, from_on, order))
    versions = pd.DataFrame(rows, columns=[*columns[:-1], "order"]).astype({"from_on": DAY})
    versions = versions.sort_values(["document", "site_id", "from_on", "order"], ignore_index=True)
    following = versions.groupby(["document", "site_id"])["from_on"].shift(-1)
    versions["until_on"] = (following - pd.Timedelta(days=1)).fillna(NO_END).astype(DAY)
    versions = versions.loc[versions["from_on"] <= versions["until_on"], columns].reset_index(drop=True)
    return versions.astype(dict.fromkeys(columns[:3], "str"))


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
