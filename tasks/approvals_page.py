"""The project manager's page: where the approvals stand, what moved, what to do first, when the sites will open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import Any

import pandas as pd

from study.approval_steps import ITEM, NO_END, derive_steps
from study.approvals import STATE_WORDS as APPROVAL_STATE_WORDS
from study.approvals import derive_approvals
from study.calendar import format_day
from study.deadlines import describe_item, describe_place
from study.forecast import Forecast, derive_forecast_history
from study.gate import Reason
from study.modifications import (
    derive_document_versions,
    derive_modifications,
    derive_site_starts,
    find_document_version,
)
from study.position import (
    DAYS_BACK,
    DAYS_OF_A_MOVE,
    DAYS_OF_WARNING,
    STATE_WORDS,
    STATES,
    Change,
    Position,
    SitePosition,
    Standing,
    derive_lacking,
    name_activities,
    name_body,
)
from study.protocol import Site, Study
from study.state import Events
from study.timeline import (
    SLIP_DAYS,
    WavePlan,
    compute_percent,
    derive_approval_bars,
    derive_approval_marks,
    derive_room,
    derive_site_bars,
    list_quarters,
    list_wave_plans,
)
from tasks.pages import format_counted, format_list, format_moment_for_people, render_page, show_day

_APPROVAL_WORDS = APPROVAL_STATE_WORDS | {"granted": "granted, not in force yet"}
_CHANGE_WORDS = {
    "closed": "Suspended",
    "closed_in_part": "Closed under a body",
    "opened": "Opened",
    "opened_in_part": "Opened under a body",
    "expired": "Ran out",
    "refused": "Refused",
    "withdrawn": "Withdrawn",
    "granted": "Granted",
    "granted_by_silence": "Agreed by silence",
    "granted_with_conditions": "Granted with conditions",
    "condition_met": "Condition met",
    "renewed": "Renewed",
    "requested": "Information asked for",
    "answered": "Answered",
    "valid": "Found valid",
    "submitted": "Sent in",
    "taken_back": "Entry taken back",
}
_HINDRANCES = {
    "refused": "No date: something it needs was refused and has not been sent in again.",
    "withdrawn": "No date: something it needs was withdrawn and has not been sent in again.",
    "no_route": "No date: something it needs can be sent in by no route.",
    "not_planned": "No date: the activity is not planned.",
    "beyond_horizon": "The 80 % date lies more than three years off.",
}
_FAR_OFF = "80 % date more than three years off"
_STEP_WORDS = {"submission": "sending it in", "validation": "having it found valid", "decision": "the decision"}
_MARKS = {
    "submitted": "sent",
    "valid": "valid",
    "granted": "granted",
    "granted_with_conditions": "granted",
    "renewed": "granted",
    "refused": "refused",
    "withdrawn": "refused",
    "expired": "refused",
}
_BAR_WORDS = {"sent": "sent in", "running": "under review", "stopped": "clock stopped", "in_force": "in force"}


def write_approvals_page(
    *,
    study: Study,
    events: Events,
    as_of: date,
    written_at: datetime,
    position: Position,
    forecast: Forecast,
    deadlines: pd.DataFrame,
    incidents: pd.DataFrame,
    chasers: pd.DataFrame,
) -> bytes:
    """The page of a day as one file of HTML, with everything in it that it shows.

    `position`: from `derive_position`; `forecast`: the one that it was given. `deadlines`: those of the next 90 days,
    `incidents`: the register, `chasers`: the plan of chasing; each from its `derive_` function, of the same day.
    """
    page = _Page(study, events, as_of, position, forecast)
    return render_page(
        "approvals.html.jinja",
        title=f"Approvals: {study.title}",
        study=study,
        as_of=format_day(as_of),
        since=format_day(position.since),
        written_at=format_moment_for_people(written_at),
        head=events.head,
        n_draws=forecast.n_draws,
        words=STATE_WORDS,
        days_back=DAYS_BACK,
        days_of_warning=DAYS_OF_WARNING,
        days_of_a_move=DAYS_OF_A_MOVE,
        slip_days=SLIP_DAYS,
        activity=name_activities(position.groups.get(position.activity, (position.activity,))),
        starts_on=format_day(study.data_collection_starts_on),
        ends_on=format_day(study.data_collection_ends_on),
        figures=[(state, position.count(state), _name_few(position.find_sites(state))) for state in STATES],
        n_at_risk=len(position.at_risk),
        at_risk=_name_few(position.at_risk),
        activities=page.describe_activities(),
        concerned=page.describe_concerned(),
        position=position,
        urgent=position.urgent[:3],
        n_more_urgent=len(position.urgent[3:]),
        more_urgent=position.urgent[3:],
        changes=page.describe_changes(),
        moves=page.describe_moves(),
        recruited=page.describe_recruited(),
        ticks=page.ticks,
        plan=page.draw_plan(),
        study_lanes=page.draw_items(""),
        site_lanes=[page.draw_site(site) for site in position.sites],
        room=page.describe_room(),
        study_lacks=page.describe_lacking(""),
        sites=[page.describe_site(site) for site in position.sites],
        deadlines=page.describe_deadlines(deadlines),
        modifications=page.describe_modifications(),
        documents=page.describe_documents(),
        critical=page.describe_critical(),
        paths=page.describe_paths(),
        incidents=page.describe_incidents(incidents),
        chasers=page.describe_chasers(chasers),
        n_chasers=int((chasers["state"] == "due").sum()),
    )


@dataclass
class _Page:
    """The frames behind the page, each folded once, and what the template shows of them."""

    study: Study
    events: Events
    as_of: date
    position: Position
    forecast: Forecast

    @cached_property
    def approvals(self) -> pd.DataFrame:
        return derive_approvals(self.study, self.events, self.as_of)

    @cached_property
    def steps(self) -> pd.DataFrame:
        return derive_steps(self.study, self.events, self.as_of)

    @cached_property
    def lacking(self) -> pd.DataFrame:
        return derive_lacking(self.study, self.approvals, self.forecast)

    @cached_property
    def bars(self) -> pd.DataFrame:
        return derive_approval_bars(self.study, self.steps, self.as_of)

    @cached_property
    def marks(self) -> pd.DataFrame:
        return derive_approval_marks(self.steps, self.approvals)

    @cached_property
    def bars_of(self) -> dict[Any, pd.DataFrame]:
        return dict(iter(self.bars.groupby(ITEM)))

    @cached_property
    def marks_of(self) -> dict[Any, pd.DataFrame]:
        return dict(iter(self.marks.groupby(ITEM)))

    @cached_property
    def expected(self) -> dict[tuple[str, ...], Any]:
        """The median of each item that has one."""
        known = self.lacking.loc[self.lacking["median_on"].notna()]
        return dict(zip(known[ITEM].itertuples(index=False, name=None), known["median_on"], strict=True))

    @cached_property
    def site_bars(self) -> pd.DataFrame:
        return derive_site_bars(self.study, self.events, self.approvals, self.as_of, self.position.activity)

    @cached_property
    def room(self) -> pd.DataFrame:
        site_ids = [site.site_id for site in self.study.sites]
        return derive_room(self.study, self.forecast, site_ids)

    @cached_property
    def plans(self) -> tuple[WavePlan, ...]:
        return list_wave_plans(self.study)

    @cached_property
    def modifications(self) -> pd.DataFrame:
        return derive_modifications(self.study, self.events, self.as_of)

    @cached_property
    def scale(self) -> tuple[date, date]:
        first = min([self.study.starts_on, self.as_of, *(stamp.date() for stamp in self.bars["from_on"])])
        return first, max(self.study.data_collection_ends_on, self.as_of)

    def name(self, site_id: str) -> str:
        site = self.study.find_site(site_id)
        return site.name if site else site_id

    def label(self, approval_id: str) -> str:
        approval = self.study.pathway.find_approval(approval_id)
        return approval.label if approval else approval_id

    # Today

    def describe_activities(self) -> list[dict[str, Any]]:
        """A row per group of activities; where all stand alike there is one."""
        return [
            {
                "words": name_activities(activities),
                "counts": [len(self.position.find_sites(state, first)) for state in STATES],
            }
            for first, activities in self.position.groups.items()
        ]

    def describe_concerned(self) -> list[tuple[str, str]]:
        """Which sites are in each state, where they are too many for their figure, and why sites are at risk."""
        position = self.position
        rows = [
            (STATE_WORDS[state].capitalize(), format_list(site.name for site in sites))
            for state in ("suspended", "blocked", "partly_open", "waiting")
            if not _name_few(sites := position.find_sites(state))
        ]
        by_reason: dict[str, list[str]] = {}
        for site in position.at_risk:
            by_reason.setdefault("; ".join(site.risks), []).append(site.name)
        at_risk = "; ".join(f"{format_list(names)} ({reason})" for reason, names in by_reason.items())
        return [(label, names) for label, names in [*rows, ("At risk", at_risk)] if names]

    def describe_changes(self) -> list[dict[str, Any]]:
        """Changes of one kind and one approval together, what opens and closes sites first."""
        grouped: dict[tuple[Any, ...], list[Change]] = {}
        for change in self.position.changes:
            item = change.item
            about = (item.approval, item.modification) if item else (change.activity, "")
            grouped.setdefault((change.kind, *about), []).append(change)
        rows = []
        for (kind, about, modification), changes in grouped.items():
            item = changes[0].item
            what = self.label(about) if item else name_activities(self.position.groups[about])
            what += f", modification {modification}" if modification else ""
            named = (describe_place(self.study, change.site_id, change.body_id) for change in changes)
            places = list(dict.fromkeys(named))
            shown = places
            if len(places) > 3:
                n_sites = format_counted(len({change.site_id for change in changes}), "site")
                n_bodies = format_counted(len(places), "body", "bodies")
                shown = [f"{n_bodies} of {n_sites}" if changes[0].body_id else n_sites]
            days = sorted({change.on for change in changes if change.on})
            when = (
                ""
                if not days
                else show_day(days[0])
                if len(days) == 1
                else f"{show_day(days[0])} to {show_day(days[-1])}"
            )
            rows.append(
                {
                    "rank": list(_CHANGE_WORDS).index(kind),
                    "kind": _CHANGE_WORDS[kind],
                    "what": what,
                    "where": format_list(place for place in shown if place),
                    "when": when,
                }
            )
        return sorted(rows, key=lambda row: row["rank"])

    def describe_moves(self) -> list[str]:
        sentences = []
        for move in self.position.moves:
            if move.n_days is None:
                now = f"now {format_day(move.now_on)}" if move.now_on else "now has no date"
                before = f"was {format_day(move.before_on)}" if move.before_on else "had no date"
                sentences.append(f"{self.name(move.site_id)}: {before}, {now}.")
            else:
                later = "later" if move.n_days > 0 else "sooner"
                days = format_counted(abs(move.n_days), "day")
                sentences.append(f"{self.name(move.site_id)}: {days} {later}, now {show_day(move.now_on)}.")
        return sentences

    def describe_recruited(self) -> str:
        position = self.position
        if not position.n_recruited:
            return "Nobody has consented yet."
        own = [site for site in position.sites if site.n_recruited]
        text = f"{format_counted(position.n_recruited, 'person has', 'people have')} consented so far, at "
        text += f"{format_counted(len(own), 'site')}."
        closed = [site for site in own if site.standings[position.activity].state == "suspended"]
        if closed:
            n = sum(site.n_recruited for site in closed)
            text += f" {n} of them at sites that are suspended now: {format_list(site.name for site in closed)}."
        return text

    # Timelines

    def _place(self, from_on: date, until_on: date, kind: str) -> dict[str, Any] | None:
        """A bar on the scale; None where it lies outside."""
        first, last = self.scale
        x = compute_percent(from_on, first, last)
        width = round(compute_percent(until_on + timedelta(days=1), first, last) - x, 3)
        return {"x": x, "width": max(width, 0.25), "kind": kind} if width > 0 else None

    def _percent(self, day: date) -> float:
        return compute_percent(day, *self.scale)

    @cached_property
    def ticks(self) -> dict[str, Any]:
        first, last = self.scale
        quarters = [
            {"x": self._percent(day), "text": f"{day:%Y}" if day.month == 1 else f"{day:%b}", "is_year": day.month == 1}
            for day in list_quarters(first, last)
        ]
        return {"quarters": quarters, "today": self._percent(self.as_of)}

    def draw_plan(self) -> list[dict[str, Any]]:
        """A lane for each wave of the protocol."""
        lanes = []
        for plan in self.plans:
            bar = self._place(plan.opens_on, plan.closes_on, "wave")
            text = f"{format_day(plan.opens_on)} to {format_day(plan.closes_on)}"
            note = text
            if plan.role == "follow_up":
                note = "no baseline leaves room for it"
                if plan.last_baseline_on:
                    note = f"in full only of people whose baseline is by {show_day(plan.last_baseline_on)}"
            lanes.append(
                {
                    "name": plan.label,
                    "note": note,
                    "desc": f"{plan.label}: {text}; {note}." if note != text else f"{plan.label}: {text}.",
                    "bars": [bar] if bar else [],
                    "marks": [],
                }
            )
        return lanes

    def draw_items(self, site_id: str) -> list[dict[str, Any]]:
        """A lane for each approval of a site, or with '' of the study: those that something planned rests on. Lanes of
        one approval follow each other; `group` is its label, where bodies give it."""
        resting = {name for entry in self.study.pathway.activities for name in entry.needs}
        own = self.approvals.loc[(self.approvals["site_id"] == site_id) & self.approvals["is_needed"]]
        own = own.loc[own["approval"].isin(sorted(resting))]
        lanes = []
        for row in own.to_dict("records"):
            key = tuple(row[name] for name in ITEM)
            bars, desc = [], []
            for bar in self.bars_of.get(key, self.bars[:0]).to_dict("records"):
                from_on, until_on = bar["from_on"].date(), bar["until_on"].date()
                placed = self._place(from_on, until_on, bar["kind"])
                if placed:
                    bars.append(placed)
                end = "" if bar["until_on"] >= NO_END else f" to {show_day(until_on)}"
                desc.append(f"{_BAR_WORDS[bar['kind']]} from {show_day(from_on)}{end}")
            marks = []
            for mark in self.marks_of.get(key, self.marks[:0]).to_dict("records"):
                if mark["kind"] in _MARKS:
                    marks.append({"x": self._percent(mark["on"].date()), "kind": _MARKS[mark["kind"]]})
                if mark["kind"] in ("refused", "withdrawn", "expired"):
                    desc.append(f"{_APPROVAL_WORDS[mark['kind']]} on {show_day(mark['on'])}")
            place = name_body(self.study, row["body_id"])
            label = self.label(row["approval"])
            name = (place or label) + (f", person {row['person_id']}" if row["person_id"] else "")
            note = self._write_standing(row)
            expected_on = self.expected.get(key)
            if expected_on is not None:
                marks.append({"x": self._percent(expected_on.date()), "kind": "median"})
                note += f"; expected {show_day(expected_on)}"
            lanes.append(
                {
                    "name": name,
                    "group": label if place else "",
                    "note": note,
                    "desc": f"{label}: {'; '.join(desc or ['not sent in'])}.",
                    "bars": bars,
                    "marks": marks,
                }
            )
        return lanes

    def _write_standing(self, row: Mapping[Any, Any]) -> str:
        """Where an approval stands, in a few words."""
        if row["is_in_force"]:
            end = f" to {show_day(row['in_force_until'])}" if pd.notna(row["in_force_until"]) else ""
            return f"in force from {show_day(row['in_force_from'])}{end}"
        since = f" since {show_day(row['turn_since'])}" if pd.notna(row["turn_since"]) else ""
        return _APPROVAL_WORDS[row["state"]] + ("; clock stopped" if row["is_stopped"] else "") + since

    def draw_site(self, site: SitePosition) -> dict[str, Any]:
        """The lane of a site: its approvals above, in the middle when it was open, below the recruiting behind it."""
        needs = self.study.pathway.find_needs(self.forecast.activity) or ()
        own = (self.bars["site_id"] == site.site_id) & self.bars["approval"].isin(needs)
        sought, stopped = [], []
        for bar in self.bars.loc[own].to_dict("records"):
            bounds = (bar["from_on"].date(), bar["until_on"].date())
            if bar["kind"] in ("sent", "running", "stopped"):
                sought.append(bounds)
            if bar["kind"] == "stopped":
                stopped.append(bounds)
        bars = [("sought", *run) for run in _join_runs(sought)] + [("stopped", *run) for run in _join_runs(stopped)]
        top = [placed for kind, from_on, until_on in bars if (placed := self._place(from_on, until_on, kind))]
        spells = self.site_bars.loc[self.site_bars["site_id"] == site.site_id]
        middle = [
            placed
            for kind, from_on, until_on in spells[["kind", "from_on", "until_on"]].itertuples(index=False, name=None)
            if (placed := self._place(from_on.date(), until_on.date(), kind))
        ]
        marks = self.marks.loc[(self.marks["site_id"] == site.site_id) & self.marks["approval"].isin(needs)]
        told = marks[["kind", "on"]].drop_duplicates().itertuples(index=False, name=None)
        standing = site.standings[self.position.activity]
        return {
            "name": site.name,
            "site_id": site.site_id,
            "state": standing.state,
            "note": self._write_expectation(site),
            "desc": self._write_lane(site, sought, stopped, spells),
            "top": top,
            "marks": [{"x": self._percent(on.date()), "kind": _MARKS[kind]} for kind, on in told if kind in _MARKS],
            "middle": middle,
            "expected": self._draw_expectation(site),
            "bottom": self._draw_room(site),
        }

    def _write_expectation(self, site: SitePosition) -> str:
        standing = site.standings[self.position.activity]
        if standing.state == "open":
            return f"open since {show_day(standing.since)}"
        words = STATE_WORDS[standing.state]
        words += f" since {show_day(standing.since)}" if standing.since else ""
        if standing.n_open_bodies:
            words += f" ({standing.n_open_bodies} of {len(standing.bodies)} bodies open)"
        if site.median_on is None:
            return f"{words}; no date"
        return (
            f"{words}; expected {show_day(site.median_on)}, 80 % by {show_day(site.p80_on)}"
            if site.p80_on
            else f"{words}; {_FAR_OFF}"
        )

    def _write_lane(
        self,
        site: SitePosition,
        sought: list[tuple[date, date]],
        stopped: list[tuple[date, date]],
        spells: pd.DataFrame,
    ) -> str:
        parts = []
        if sought:
            parts.append(f"Its own approvals were sent in from {show_day(min(run[0] for run in sought))}")
            marks = self.marks.loc[(self.marks["site_id"] == site.site_id) & (self.marks["kind"] == "granted")]
            if len(marks):
                parts.append(f"{len(marks)} granted, the latest on {show_day(marks['on'].max())}")
        if stopped:
            n_days = sum((end - start).days + 1 for start, end in _join_runs(stopped))
            parts.append(f"a clock stood still on {format_counted(n_days, 'day')}")
        for kind, from_on, until_on in spells[["kind", "from_on", "until_on"]].itertuples(index=False, name=None):
            parts.append(f"{STATE_WORDS[kind]} {show_day(from_on)} to {show_day(until_on)}")
        if site.standings[self.position.activity].state != "open":
            parts.append(f"today: {self._write_expectation(site)}")
        return "; ".join(parts or ["Nothing was sent in yet"]) + "."

    def _draw_expectation(self, site: SitePosition) -> dict[str, Any] | None:
        row = self.forecast.sites.set_index("site_id").loc[site.site_id]
        if row["is_open"] or pd.isna(row["p10_on"]):
            return None
        last = row["p80_on"].date() if pd.notna(row["p80_on"]) else self.scale[1] + timedelta(days=1)
        place: dict[str, Any] = {
            "from": self._percent(row["p10_on"].date()),
            "until": self._percent(last),
            "median": None,
        }
        if pd.notna(row["median_on"]):
            place["median"] = self._percent(row["median_on"].date())
        return place if place["until"] > place["from"] or place["from"] < 100 else None

    def _draw_room(self, site: SitePosition) -> list[dict[str, Any]]:
        """The planned recruiting behind the opening, in parts: all follow-ups still fit, some do, none does."""
        own = self.room.loc[self.room["site_id"] == site.site_id]
        if own["opens_on"].isna().any():
            return []
        last_days = sorted({plan.last_baseline_on for plan in self.plans if plan.last_baseline_on})
        start, bars = own["opens_on"].iloc[0].date(), []
        for n, last in enumerate(last_days):
            kind = "room_all" if n == 0 else "room_none" if n == len(last_days) - 1 else "room_some"
            if start <= last:
                bars.append(self._place(start, last, kind))
                start = last + timedelta(days=1)
        return [bar for bar in bars if bar]

    def describe_room(self) -> dict[str, Any]:
        """What is left of recruiting, and what a month's slip would take: sites that are not open yet."""
        waves = [plan for plan in self.plans if plan.last_baseline_on]
        rows, without = [], []
        for site in self.position.sites:
            own = self.room.loc[self.room["site_id"] == site.site_id].set_index("wave")
            standing = site.standings[self.position.activity]
            if standing.state == "open":
                continue
            if site.median_on is None:
                without.append(site.name)
                continue
            cells = []
            for plan in waves:
                before, after = own.loc[plan.wave, "n_days"], own.loc[plan.wave, "n_days_after_slip"]
                cells.append((_weeks(before), _weeks(after)))
            rows.append({"name": site.name, "opens": show_day(site.median_on), "cells": cells})
        return {
            "waves": [
                {
                    "label": plan.label if plan.role == "follow_up" else "Any baseline",
                    "last": show_day(plan.last_baseline_on),
                }
                for plan in waves
            ],
            "rows": rows,
            "without": without,
            "open": [
                (plan.label, _weeks(max((plan.last_baseline_on - self._recruiting_from()).days + 1, 0)))
                for plan in waves
                if plan.last_baseline_on
            ],
        }

    def _recruiting_from(self) -> date:
        return max(self.as_of, self.study.data_collection_starts_on)

    # What each site lacks

    def describe_lacking(self, site_id: str) -> list[dict[str, Any]]:
        """The rows of the table of one site; with '' the study's own."""
        rows = []
        for row in self.lacking.loc[self.lacking["site_id"] == site_id].to_dict("records"):
            approval = self.study.pathway.find_approval(row["approval"])
            state = _APPROVAL_WORDS[row["state"]]
            if row["state"] == "granted_with_conditions":
                state += f" ({row['n_conditions_open']} open)"
            if row["is_stopped"]:
                state += "; clock stopped"
            if row["waits_for"]:
                state += f"; waits for {format_list(row['waits_for'].split('; '))}"
            turn = {"applicant": "Study team", "authority": approval.authority if approval else ""}.get(
                row["turn"], "Nobody's yet"
            )
            used = "" if pd.isna(row["days_used"]) else str(row["days_used"])
            if used:
                used += f" of {row['days_allowed']}" if pd.notna(row["days_allowed"]) else ""
                used += " working" if row["clock_unit"] == "working" else ""
            rows.append(
                {
                    "approval": self.label(row["approval"])
                    + (f", person {row['person_id']}" if row["person_id"] else ""),
                    "body": name_body(self.study, row["body_id"]) or ("The site" if site_id else "The study"),
                    "state": state,
                    "turn": turn,
                    "since": show_day(row["turn_since"]) if row["turn"] else "",
                    "used": used,
                    "due": show_day(row["due_on"]),
                    "overdue": show_day(row["overdue_since"]),
                    "needed_for": self._name_needed(row["activities"].split(";")),
                    "expected": show_day(row["median_on"]),
                    "expected_80": show_day(row["p80_on"]),
                }
            )
        return rows

    def _name_needed(self, activities: Sequence[str]) -> str:
        planned = [entry.id for entry in self.study.pathway.activities]
        if set(planned) == set(activities):
            return "everything"
        words = (name.removeprefix("collect_").removeprefix("link_").replace("_", "-") for name in activities)
        return format_list(words)

    def describe_site(self, site: SitePosition) -> dict[str, Any]:
        standings = []
        for first, activities in self.position.groups.items():
            standing = site.standings[first]
            open_ones = [name_body(self.study, body.body_id) for body in standing.bodies if body.is_open]
            closed = [name_body(self.study, body.body_id) for body in standing.bodies if not body.is_open]
            standings.append(
                {
                    "words": name_activities(activities).capitalize(),
                    "state": standing.state,
                    "since": show_day(standing.since) if standing.since else "",
                    "open": format_list(open_ones) if open_ones and closed else "",
                    "closed": format_list(closed) if open_ones and closed else "",
                    "reasons": self._describe_reasons(standing),
                }
            )
        lacks = self.describe_lacking(site.site_id)
        lanes = self.draw_items(site.site_id)
        own = self.room.loc[self.room["site_id"] == site.site_id]
        return {
            "site_id": site.site_id,
            "name": site.name,
            "state": site.standings[self.position.activity].state,
            "note": self._write_summary(site),
            "standings": standings,
            "lacks": lacks,
            "forecast": self._write_forecast(site),
            "risks": "; ".join(site.risks),
            "slip": self._write_slip(site, own),
            "lanes": [(group, list(lanes)) for group, lanes in groupby(lanes, key=itemgetter("group"))],
            "n_recruited": site.n_recruited,
        }

    def _write_summary(self, site: SitePosition) -> str:
        parts = []
        if site.n_lacking:
            held = [f"{site.n_ours} with us"] * bool(site.n_ours) + [f"{site.n_overdue} overdue"] * bool(site.n_overdue)
            parts.append(f"lacks {site.n_lacking}" + (f" ({', '.join(held)})" if held else ""))
        if site.opened_on is None:
            parts.append(self._write_expectation(site).split("; ", 1)[-1])
        own = self.lacking.loc[self.lacking["site_id"] == site.site_id]
        needs = self.study.pathway.find_needs(self.forecast.activity) or ()
        n_others = int((~own["approval"].isin(needs)).sum())
        parts += [f"lacks {n_others} for other activities"] if n_others else []
        parts += [f"{format_counted(site.n_recruited, 'person', 'people')} consented"] if site.n_recruited else []
        return "; ".join(parts)

    def _describe_reasons(self, standing: Standing) -> str:
        """The gate's reasons, those of one approval in one state together."""
        found: dict[str, int] = {}
        for reason in standing.reasons:
            if reason.item is None:
                text = self._name_in_reason(reason)
            else:
                text = f"{self.label(reason.item.approval)} ({_APPROVAL_WORDS[reason.state]})"
            found[text] = found.get(text, 0) + 1
        return format_list(text if n == 1 else f"{n} × {text}" for text, n in found.items())

    def _name_in_reason(self, reason: Reason) -> str:
        """A reason of no item; the ids in its text become labels."""
        approval_id = reason.text.partition(":")[0]
        if reason.state == "person_not_named":
            return f"{self.label(approval_id)} (of each person; nobody has one on record)"
        return "the pathway does not plan it"

    def _write_forecast(self, site: SitePosition) -> str:
        activity = name_activities((self.forecast.activity,))
        if site.opened_on:
            return f"Open for {activity} since {format_day(site.opened_on)}."
        if site.median_on is None:
            return _HINDRANCES.get(site.hindrance, "No date.")
        text = f"Expected to open for {activity} by {format_day(site.median_on)} as likely as not"
        text += f", by {format_day(site.p80_on)} with 80 %." if site.p80_on else f". {_HINDRANCES['beyond_horizon']}"
        start = self.study.data_collection_starts_on
        if self.as_of < start:
            chance = f"{100 * site.probability:.0f} %"
            text += f" The chance of being open when data collection starts ({format_day(start)}) is {chance}."
        else:
            text += f" Data collection started on {format_day(start)}: it was not open."
        return text

    def _write_slip(self, site: SitePosition, own: pd.DataFrame) -> str:
        if site.opened_on or site.median_on is None:
            return ""
        parts = []
        for row, plan in zip(own.to_dict("records"), self.plans, strict=True):
            if plan.role == "follow_up":
                before, after = _weeks(row["n_days"]), _weeks(row["n_days_after_slip"])
                parts.append(
                    f"{before} weeks with the {plan.label}"
                    + (f" ({after} after one month's slip)" if row["n_days"] else "")
                )
        return f"Recruiting that is left from then on: {format_list(parts)}." if parts else ""

    # Deadlines

    def describe_deadlines(self, deadlines: pd.DataFrame) -> list[dict[str, Any]]:
        """A row per deadline; those of one kind, approval and day at many places are one row."""
        rows = []
        alike = ["on", "kind", "approval", "modification", "duty", "incident_id", "owner"]
        for _, own in deadlines.groupby(alike, sort=False):
            row = own.iloc[0]
            days = (row["on"].date() - self.as_of).days
            rows.append(
                {
                    "on": show_day(row["on"]),
                    "days": "overdue" if row["is_overdue"] else "today" if days == 0 else format_counted(days, "day"),
                    "title": row["title"],
                    "where": self._name_places(own),
                    "owner": _name_role(row["owner"]),
                    "is_overdue": bool(row["is_overdue"]),
                }
            )
        return rows

    # Modifications

    def describe_modifications(self) -> list[dict[str, Any]]:
        frame = self.modifications
        silent = self._find_silent()
        starts = derive_site_starts(self.study, frame)
        rows = []
        for name, own in frame.groupby("modification", sort=False):
            of_study, of_bodies = own.loc[own["level"] == "study"], own.loc[own["level"] != "study"]
            n_silent = sum(item in silent for item in of_bodies[ITEM].itertuples(index=False, name=None))
            n_granted = int((of_bodies["state"] == "granted").sum())
            days = starts.loc[(starts["modification"] == name)]
            started = days["starts_on"].dropna()
            waiting = of_bodies["state"].isin(
                ("not_sought", "submitted", "valid", "information_requested", "granted_with_conditions")
            )
            implied = of_bodies["implied_on"].dropna()
            objected = of_bodies.loc[of_bodies["state"].isin(("refused", "withdrawn"))]
            rows.append(
                {
                    "name": name,
                    "category": own["category"].iloc[0],
                    "is_substantial": bool(own["is_substantial"].iloc[0]),
                    "introduced": show_day(own["introduced_on"].iloc[0]),
                    "reviews": [
                        (self.label(row["approval"]), self._write_review(row)) for row in of_study.to_dict("records")
                    ],
                    "n_bodies": len(of_bodies),
                    "n_agreed": n_granted - n_silent,
                    "n_silent": n_silent,
                    "n_waiting": int(waiting.sum()),
                    "implied": show_day(implied.min()) if len(implied) else "",
                    "objected": [
                        describe_place(self.study, row["site_id"], row["body_id"])
                        for row in objected.to_dict("records")
                    ],
                    "n_sites": int((started <= pd.Timestamp(self.as_of)).sum()),
                    "first": show_day(started.min()) if len(started) else "",
                    "last": show_day(started.max()) if len(started) else "",
                    "is_over": len(started) == len(days) and bool((started <= pd.Timestamp(self.as_of)).all()),
                }
            )
        return rows

    def _find_silent(self) -> set[tuple[str, ...]]:
        """The items of modifications that stand granted because nobody decided: silence granted them."""
        steps = self.steps
        own = steps.loc[(steps["step"] == "granted") & (steps["key"] == "") & (steps["modification"] != "")]
        granted = self.modifications.loc[self.modifications["state"] == "granted", ITEM]
        return set(own[ITEM].itertuples(index=False, name=None)) & set(granted.itertuples(index=False, name=None))

    def _write_review(self, row: Mapping[Any, Any]) -> str:
        if row["state"] == "granted":
            return f"approved on {show_day(row['decided_on'])}"
        text = _APPROVAL_WORDS[row["state"]]
        if pd.notna(row["turn_since"]):
            text += f" since {show_day(row['turn_since'])}"
        return text + (f", due {show_day(row['due_on'])}" if pd.notna(row["due_on"]) else "")

    def describe_documents(self) -> list[dict[str, Any]]:
        versions = derive_document_versions(self.study, self.events, self.as_of)
        found = []
        for document in self.study.pathway.documents:
            by_version: dict[str, list[Site]] = {}
            for site in self.study.sites:
                version = find_document_version(versions, document.id, site.site_id, self.as_of)
                by_version.setdefault(version, []).append(site)
            groups = [
                {
                    "version": version,
                    "n": len(sites),
                    "sites": self._name_sites(sites),
                }
                for version, sites in sorted(by_version.items(), reverse=True)
            ]
            found.append({"label": document.label, "groups": groups})
        return found

    def _name_sites(self, sites: Sequence[Site]) -> str:
        """Sites by name; of most of them, those that are left out."""
        others = [site.name for site in self.study.sites if site not in sites]
        if len(others) < len(sites) and len(sites) > 3:
            return f"all but {format_list(others)}" if others else "every site"
        return format_list(site.name for site in sites)

    # The critical path

    def describe_critical(self) -> list[dict[str, Any]]:
        """By kind of approval: at how many sites it is expected to be the last to come, and what would help most."""
        critical = self.forecast.critical.loc[self.forecast.critical["share"] > 0]
        rows = []
        for approval, own in critical.groupby("approval", sort=False):
            shares = own.groupby("site_id")["share"].sum()
            sites = [self.name(str(site_id)) for site_id in shares.sort_values(ascending=False).index]
            rows.append(
                {
                    "label": self.label(str(approval)),
                    "n": float(shares.sum()),
                    "sites": format_list(sites[:5]),
                    "more": len(sites[5:]),
                }
            )
        return sorted(rows, key=lambda row: -row["n"])

    def describe_paths(self) -> list[dict[str, Any]]:
        history = derive_forecast_history(self.events.select(as_of=self.as_of))
        history = history.loc[history["activity"] == self.forecast.activity]
        rows = []
        for site in self.position.sites:
            if site.opened_on:
                continue
            critical = self.forecast.critical.loc[self.forecast.critical["site_id"] == site.site_id]
            levers = self.forecast.levers.loc[self.forecast.levers["site_id"] == site.site_id]
            own = history.loc[
                (history["site_id"] == site.site_id) & (history["occurred_on"] < pd.Timestamp(self.as_of))
            ]
            last, lever = "", ""
            if len(critical):
                row = critical.iloc[0]
                last = f"{self._name_item(row['approval'], row['body_id'])} ({100 * row['share']:.0f} %)"
            if len(levers) and pd.notna(levers["days_gained"].iloc[0]):
                row = levers.iloc[0]
                gained = format_counted(int(row["days_gained"]), "day")
                lever = (
                    f"{self._name_item(row['approval'], row['body_id'])}: {_STEP_WORDS[row['step']]}, {gained} sooner"
                )
            rows.append(
                {
                    "name": site.name,
                    "last": last or _HINDRANCES.get(site.hindrance, "–"),
                    "lever": lever,
                    "told": [self._find_told(own, days) for days in (None, 28, 7)],
                    "now": show_day(site.median_on) if site.median_on else "no date",
                    "now_80": show_day(site.p80_on) if site.p80_on else "no date",
                }
            )
        return rows

    def _name_item(self, approval_id: str, body_id: str) -> str:
        """An approval with its body, where the site is told already."""
        return ", ".join(part for part in (self.label(approval_id), name_body(self.study, body_id)) if part)

    def _find_told(self, own: pd.DataFrame, days: int | None) -> str:
        """The median on record so many days ago (None: the first on record)."""
        if days is not None:
            own = own.loc[own["occurred_on"] <= pd.Timestamp(self.as_of - timedelta(days=days))]
        if own.empty:
            return "–"
        row = own.iloc[0 if days is None else -1]
        told = show_day(row["median_on"]) or "no date"
        return f"{told} (on {show_day(row['occurred_on'])})" if days is None else told

    # Incidents and chasers

    def describe_incidents(self, incidents: pd.DataFrame) -> list[dict[str, Any]]:
        rows = []
        for row in incidents.loc[incidents["state"] != "closed"].to_dict("records"):
            rows.append(
                {
                    "id": row["incident_id"],
                    "category": _name_role(row["category"]),
                    "place": self.name(row["site_id"]) if row["site_id"] else "Whole study",
                    "body": name_body(self.study, row["body_id"]),
                    "found": show_day(row["found_on"]),
                    "next": f"{row['next_step']} ({_name_role(row['turn'])})",
                    "due": show_day(row["next_due_on"]),
                    "overdue": show_day(row["overdue_since"]),
                    "n_held": int(row["n_held"]),
                }
            )
        return rows

    def describe_chasers(self, chasers: pd.DataFrame) -> list[dict[str, Any]]:
        """Chasers that are due; those of one rung and approval at many places are one row."""
        due = chasers.loc[chasers["state"] == "due"]
        alike = ["due_on", "chaser", "approval", "modification", "duty", "incident_id", "to", "channel"]
        rows = []
        for _, own in due.groupby(alike, sort=False):
            row = own.iloc[0]
            duty = self.study.pathway.find_duty(row["duty"])
            what = describe_item(self.study, row, with_place=False) if row["approval"] else ""
            rows.append(
                {
                    "due": show_day(row["due_on"]),
                    "late": f"{format_counted(row['n_days_late'], 'day')} late" if row["n_days_late"] else "today",
                    "what": what or (duty.label if duty else f"Incident {row['incident_id']}"),
                    "where": self._name_places(own),
                    "to": _name_role(row["to"]),
                    "channel": row["channel"],
                }
            )
        return rows

    def _name_places(self, rows: pd.DataFrame) -> str:
        """The sites and bodies of some rows, up to three by name."""
        about = rows[["site_id", "body_id"]].itertuples(index=False, name=None)
        places = [place for one in about if (place := describe_place(self.study, *one))]
        return f"{len(places)} places" if len(places) > 3 else format_list(places) or "Whole study"


def _join_runs(runs: Iterable[tuple[date, date]]) -> list[tuple[date, date]]:
    """Stretches of days as few as possible, in order."""
    joined: list[tuple[date, date]] = []
    for start, end in sorted(runs):
        if joined and start <= joined[-1][1] + timedelta(days=1):
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def _name_role(role: str) -> str:
    """A role as people write it; the name of an authority stays as it is."""
    words = role.replace("_", " ")
    return words[:1].upper() + words[1:]


def _name_few(sites: Sequence[SitePosition]) -> str:
    """The names of up to three sites; "" of more."""
    return format_list(site.name for site in sites) if len(sites) <= 3 else ""


def _weeks(n_days: Any) -> str:
    return "–" if pd.isna(n_days) else f"{n_days / 7:.0f}"
