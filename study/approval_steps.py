"""The steps of approvals: which items a study has, what the ledger says of each, and when each was in force.

An item is one approval at one place: of the study, a site, a body at a site, or a person at a body; of the study as
first approved or of one modification of it. The steps of an item are events; each attempt (an application and what
follows it) has its own.

A modification fans out: what the sponsor supplied to all on one day counts as sent in to every body that it affects,
unless the body has a step of its own. Where silence grants, the day on which an objection came too late is a step too.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any, Literal, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute

from study.calendar import add_days, find_holidays
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
    ModificationIntroduced,
    ModificationSupplied,
)
from study.pathway import Approval, Clock, Pathway, Route
from study.protocol import Site, Study
from study.state import Events, derive_frame, remembered, remembered_by_content

pc: Any = pyarrow.compute

STEPS: dict[type[ApprovalEvent], str] = {
    ApprovalSubmitted: "submitted",
    ApprovalResubmitted: "submitted",
    ApprovalFoundValid: "valid",
    ApprovalInformationRequested: "requested",
    ApprovalInformationAnswered: "answered",
    ApprovalGranted: "granted",
    ApprovalGrantedWithConditions: "granted_with_conditions",
    ApprovalConditionMet: "condition_met",
    ApprovalRefused: "refused",
    ApprovalWithdrawn: "withdrawn",
    ApprovalRenewed: "renewed",
}
DECISIONS = ("granted", "granted_with_conditions", "refused")
ITEM = ["approval", "site_id", "body_id", "person_id", "modification"]
DAY: Literal["datetime64[us]"] = "datetime64[us]"
NO_END = pd.Timestamp("2200-12-31")
_ONE_DAY = pd.Timedelta(days=1)


class Item(NamedTuple):
    """One approval at one place; what does not apply is ''."""

    approval: str
    site_id: str = ""
    body_id: str = ""
    person_id: str = ""
    modification: str = ""

    @classmethod
    def of(cls, told: Any) -> Item:
        """The item that an event is about, or a row that has its columns as names."""
        return cls(*(getattr(told, name) for name in ITEM))

    def __str__(self) -> str:
        place = ", ".join(part for part in (self.site_id, self.body_id, self.person_id, self.modification) if part)
        return f"{self.approval} ({place})" if place else self.approval


def is_needed(study: Study, approval: Approval) -> bool:
    """Whether a study needs an approval at all: by the day on which it starts, and by how many bodies it has."""
    if approval.for_studies_from is not None and study.starts_on < approval.for_studies_from:
        return False
    if approval.for_studies_until is not None and study.starts_on > approval.for_studies_until:
        return False
    if approval.needed_from_n_bodies is None:
        return True
    counted = {body.id for site in study.sites for body in site.bodies if body.kind in approval.counted_kinds}
    return len(counted) >= approval.needed_from_n_bodies


def list_items(
    study: Study, approval: Approval, sites: Iterable[Site], body_id: str = "", person_ids: Iterable[str] = ()
) -> list[tuple[Item, bool]]:
    """The items of an approval that concern these sites, and whether each is needed.

    With `body_id`, those of this body alone (the study's and the sites' own stay). A body whose kind the approval does
    not name has no item. People are those given: an approval of a person has no item without one.
    """
    needed = is_needed(study, approval)
    if approval.level == "study":
        return [(Item(approval.id), needed)]
    if approval.level == "site":
        return [(Item(approval.id, site.site_id), needed) for site in sites]
    bodies = [
        (site.site_id, body.id)
        for site in sites
        for body in site.bodies
        if body.kind in approval.body_kinds and body_id in ("", body.id)
    ]
    people = list(person_ids) if approval.level == "person" else [""]
    return [
        (Item(approval.id, site_id, body, person_id), needed and body not in approval.not_needed_at)
        for site_id, body in bodies
        for person_id in people
    ]


# Folding ------------------------------------------------------------------------------------------------------------


@remembered
def derive_steps(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """Every standing step up to a day, one row each, ordered by item, attempt and day.

    Columns: those of an Item, attempt, step, number (of a request or renewal, else 0), condition, conditions (joined
    with ";"), route, occurred_on, in_force_from, expires_on (NaT where not stated), letter, key ('' for a step that
    follows from others: sent in with a modification's supply, or granted by silence).
    """
    events = events.select(as_of=as_of)
    steps = derive_frame(pa.concat_tables(_lay_out(events.table(kind), step) for kind, step in STEPS.items()))
    if len(introduced := events.frame(ModificationIntroduced)):
        supplied = _derive_supplied(study, introduced, events.frame(ModificationSupplied), steps)
        steps = pd.concat([steps, supplied], ignore_index=True)
        steps = _add_silent_grants(study, steps, as_of)
    return steps.sort_values([*ITEM, "attempt", "occurred_on", "key"], ignore_index=True)


def _lay_out(told: pa.Table, step: str) -> pa.Table:
    """Events of one kind in the columns of `derive_steps`; what the kind does not state is '', 0 or missing."""
    n = len(told)
    number = {"requested": "request", "answered": "request", "renewed": "renewal"}.get(step)
    columns: dict[str, Any] = {name: told[name] for name in (*ITEM, "attempt")}
    columns["step"] = pa.repeat(step, n)
    columns["number"] = told[number] if number else pa.repeat(0, n)
    for name in ("condition", "conditions", "route", "letter", "key"):
        columns[name] = told[name] if name in told.column_names else pa.repeat("", n)
    for name in ("occurred_on", "in_force_from", "expires_on"):
        columns[name] = told[name] if name in told.column_names else pa.nulls(n, told["occurred_on"].type)
    if pa.types.is_list(columns["conditions"].type):
        columns["conditions"] = pc.binary_join(columns["conditions"], ";")
    return pa.table(columns)


def find_category(events: Events, modification: str) -> tuple[str, bool]:
    """The category of a modification and whether it is substantial; ("", False) for none, or none on record."""
    introduced = events.frame(ModificationIntroduced)
    rows = introduced.loc[introduced["modification"] == modification, ["category", "is_substantial"]]
    return next(rows.itertuples(index=False, name=None), ("", False))


def list_modification_items(study: Study, introduced: pd.DataFrame) -> list[tuple[Item, tuple[Route, ...]]]:
    """What modifications fan out to: each approval that has routes for the category, at each place that needs it.

    `introduced`: rows of ModificationIntroduced. A modification for named bodies concerns these, their sites, and
    the study's own approvals.
    """
    found = []
    columns = ["modification", "category", "is_substantial", "body_ids"]
    for name, category, is_substantial, body_ids in introduced[columns].itertuples(index=False, name=None):
        named = set(body_ids.split(";")) if body_ids else set()
        sites = [site for site in study.sites if not named or any(body.id in named for body in site.bodies)]
        for approval in study.pathway.approvals:
            routes = study.pathway.find_routes(approval.id, None, category, is_substantial)
            if not routes or approval.level == "person":
                continue
            for item, needed in list_items(study, approval, sites):
                if needed and (not named or not item.body_id or item.body_id in named):
                    found.append((item._replace(modification=name), routes))
    return found


def _derive_supplied(
    study: Study, introduced: pd.DataFrame, supplied: pd.DataFrame, steps: pd.DataFrame
) -> pd.DataFrame:
    """The steps "submitted" that follow from what the sponsor supplied to all bodies, or to those of a site, at once.

    A body's own step counts before the site's supply, and that before the study's.
    """
    days: dict[tuple[str, str], tuple[Any, str]] = {}
    for name, site_id, day, letter in supplied[["modification", "site_id", "occurred_on", "letter"]].itertuples(
        index=False, name=None
    ):
        days[name, site_id] = (day, letter)
    is_own = (steps["step"] == "submitted") & (steps["attempt"] == 1)
    own = set(steps.loc[is_own, ITEM].itertuples(index=False, name=None))
    rows = []
    for item, routes in list_modification_items(study, introduced):
        told = days.get((item.modification, item.site_id)) or days.get((item.modification, ""))
        if told is None or not item.site_id or tuple(item) in own:
            continue
        day, letter = told
        route = next((route.id for route in routes if route.is_open_on(day.date())), "")
        rows.append({**item._asdict(), "route": route, "occurred_on": day, "letter": letter})
    return _fill_steps(rows, "submitted")


def _add_silent_grants(study: Study, steps: pd.DataFrame, as_of: date) -> pd.DataFrame:
    """Grant what nobody objected to in time; what comes later than that is no decision any more but an end."""
    attempt = [*ITEM, "attempt"]
    sent = steps.loc[(steps["step"] == "submitted") & (steps["modification"] != "")]
    days = [
        find_silent_grant(study, route, on.date()) for route, on in zip(sent["route"], sent["occurred_on"], strict=True)
    ]
    sent = sent[attempt].assign(occurred_on=pd.Series(days, sent.index, dtype=DAY))
    closing = steps.loc[steps["step"].isin((*DECISIONS, "withdrawn"))]
    closed_on = closing.groupby(attempt)["occurred_on"].min().rename("closed_on")
    sent = sent.join(closed_on, on=attempt)
    is_silent = (sent["occurred_on"] <= pd.Timestamp(as_of)) & ~(sent["closed_on"] <= sent["occurred_on"])
    granted = sent.loc[is_silent, [*attempt, "occurred_on"]]
    is_among = pd.MultiIndex.from_frame(steps[attempt]).isin(pd.MultiIndex.from_frame(granted[attempt]))
    steps.loc[is_among & (steps["step"] == "refused"), "step"] = "withdrawn"
    rows: list[Any] = granted.to_dict("records")
    return pd.concat([steps, _fill_steps(rows, "granted")], ignore_index=True)


def _fill_steps(rows: list[dict[str, Any]], step: str) -> pd.DataFrame:
    blank = {"attempt": 1, "number": 0, "condition": "", "conditions": "", "route": "", "letter": "", "key": ""}
    columns = [*ITEM, "attempt", "step", *list(blank)[1:], "occurred_on", "in_force_from", "expires_on"]
    frame = pd.DataFrame([{**blank, "step": step, **row} for row in rows], columns=columns)
    kinds = {"attempt": "int64", "number": "int64"} | dict.fromkeys(("occurred_on", "in_force_from", "expires_on"), DAY)
    return frame.astype({**dict.fromkeys(columns, "str"), **kinds})


def find_silent_grant(study: Study, route_id: str, submitted_on: date) -> date | None:
    """The day from which silence grants what was sent in by this route; None where somebody has to decide."""
    clock = find_clock(study.pathway, route_id, submitted_on, None)
    if clock is None or not clock.silence_grants:
        return None
    return add_days(submitted_on, clock.days or 0, clock.unit, find_holidays(study.bank_holidays))


def find_clock(pathway: Pathway, route: str, submitted_on: date | None, valid_on: date | None) -> Clock | None:
    """The clock of a route that an attempt runs under, by the day on which that clock started; None if it has none.

    Before an application is valid, the rules of the day on which it was sent in are shown.
    """
    found: Clock | None = None
    for clock in pathway.clocks:
        start = submitted_on if clock.starts == "submitted" else (valid_on or submitted_on)
        if clock.route != route or start is None or (clock.applies_from is not None and start < clock.applies_from):
            continue
        if found is None or (clock.applies_from or date.min) >= (found.applies_from or date.min):
            found = clock
    return found


@remembered_by_content
def derive_attempts(steps: pd.DataFrame) -> pd.DataFrame:
    """One row per item and attempt, in that order: what became of it. `attempt_id` is the row's place."""
    groups = steps.groupby([*ITEM, "attempt"], sort=True)
    attempts = groups["occurred_on"].min().rename("begun_on").reset_index()
    steps = steps.assign(attempt_id=groups.ngroup())

    def pick(names: tuple[str, ...]) -> pd.DataFrame:
        rows = steps.loc[steps["step"].isin(names)].drop_duplicates("attempt_id").set_index("attempt_id")
        return rows.reindex(attempts.index).rename_axis("attempt_id")

    submitted, decided = pick(("submitted",)), pick(DECISIONS)
    attempts["submitted_on"] = submitted["occurred_on"]
    attempts["route"] = submitted["route"].fillna("").astype("str")
    attempts["valid_on"] = pick(("valid",))["occurred_on"]
    attempts["decision"] = decided["step"].fillna("").astype("str")
    attempts["decided_on"] = decided["occurred_on"]
    attempts["expires_on"] = decided["expires_on"]
    attempts["withdrawn_on"] = pick(("withdrawn",))["occurred_on"]
    conditions = decided["conditions"].fillna("").str.split(";").explode().rename("condition").reset_index()
    conditions = conditions.loc[conditions["condition"] != ""].astype({"condition": "str"})
    met = steps.loc[steps["step"] == "condition_met", ["attempt_id", "condition", "occurred_on"]]
    conditions = conditions.merge(met, how="left", on=["attempt_id", "condition"])
    open_ones = conditions["occurred_on"].isna().groupby(conditions["attempt_id"]).sum()
    attempts["n_conditions_open"] = open_ones.reindex(attempts.index, fill_value=0).astype("int64")
    met_on = conditions.groupby("attempt_id")["occurred_on"].max().reindex(attempts.index)
    starts = pd.concat([decided["occurred_on"], decided["in_force_from"], met_on], axis="columns").max(axis="columns")
    is_granted = attempts["decision"].isin(DECISIONS[:2]) & (attempts["n_conditions_open"] == 0)
    attempts["in_force_from"] = starts.where(is_granted).astype(DAY)
    return attempts


def _number_renewals(steps: pd.DataFrame, attempts: pd.DataFrame) -> pd.DataFrame:
    renewals = steps.loc[steps["step"] == "renewed"]
    places = attempts[[*ITEM, "attempt"]].assign(attempt_id=attempts.index)
    return renewals.merge(places, on=[*ITEM, "attempt"])


@remembered_by_content
def derive_spells(steps: pd.DataFrame) -> pd.DataFrame:
    """When each item was in force, from `derive_steps`: one row per unbroken statement of a letter.

    Columns: approval, site_id, body_id, person_id, attempt, from_on, until_on (the last day; the end of 2200 if none is
    stated), is_latest (of the item's latest attempt). A renewal's own last day counts from its start; a withdrawal and
    a later attempt end what was before them. Ordered by item, attempt and day.
    """
    attempts = derive_attempts(steps)
    granted = attempts.loc[attempts["in_force_from"].notna()]
    first = granted[["in_force_from", "expires_on"]].assign(attempt_id=granted.index, number=0)
    renewals = _number_renewals(steps, attempts)
    renewals = renewals.loc[renewals["attempt_id"].isin(granted.index)]
    base = granted["in_force_from"].reindex(renewals["attempt_id"]).set_axis(renewals.index)
    starts = pd.concat([renewals["occurred_on"], renewals["in_force_from"], base], axis="columns")
    renewals = renewals.assign(in_force_from=starts.max(axis="columns").astype(DAY))
    spells = pd.concat([first, renewals[["in_force_from", "expires_on", "attempt_id", "number"]]], ignore_index=True)
    spells = spells.sort_values(["attempt_id", "number"], ignore_index=True)
    following = _find_earliest_after(spells["in_force_from"], spells["attempt_id"])
    item_ids = attempts.groupby(ITEM, sort=True).ngroup()
    superseded = _find_earliest_after(attempts["begun_on"], item_ids)
    ends = pd.concat(
        [
            spells["expires_on"].fillna(NO_END),
            following - _ONE_DAY,
            (attempts["withdrawn_on"] - _ONE_DAY).reindex(spells["attempt_id"]).reset_index(drop=True),
            (superseded - _ONE_DAY).reindex(spells["attempt_id"]).reset_index(drop=True),
        ],
        axis="columns",
    )
    spells["until_on"] = ends.min(axis="columns").astype(DAY)
    spells = spells.rename(columns={"in_force_from": "from_on"})
    is_latest = ~item_ids.duplicated(keep="last")
    about = attempts[[*ITEM, "attempt"]].assign(is_latest=is_latest)
    spells = about.merge(spells, left_index=True, right_on="attempt_id")
    spells = spells.loc[spells["from_on"] <= spells["until_on"]].sort_values(["attempt_id", "from_on"])
    return spells[[*ITEM, "attempt", "from_on", "until_on", "is_latest"]].reset_index(drop=True)


@remembered
def derive_known_spells(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """When each item was in force, by every step up to the end of a day: `derive_spells` of `derive_steps`."""
    return derive_spells(derive_steps(study, events, as_of))


def _find_earliest_after(days: pd.Series[Any], group_ids: pd.Series[Any]) -> pd.Series[Any]:
    """For each row the earliest day of the rows after it in its group; NaT for the last."""
    backwards = days[::-1].groupby(group_ids[::-1]).cummin()
    return backwards[::-1].groupby(group_ids).shift(-1)
