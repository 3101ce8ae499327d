"""Where the study stands today: what is open, what is in its way, what changed since last week, what to do first.

Plain values for everybody who shows them (the page, the terminal, the orchestrator), so that all say the same. Whether
something may be done is asked of the gate and nowhere else; dates to come are those of a forecast.

Definitions, for one activity at one site. Open: the gate says yes for the whole site. Suspended: something that was
open there, under all bodies or under one, is open no longer. Blocked: something that it needs was refused or withdrawn
and has not been sent in again, or can be sent in by no route, so that waiting alone will not open it. Partly open: not
for the whole site, but under one body or more. Waiting: nothing of this. At risk is said of the sites that are open,
partly open or waiting: something that the open site rests on ends within 28 days; or, of the others, the chance of
opening by the start of data collection is below 80 in 100, or an authority or the study is late.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, NamedTuple

import pandas as pd

from study.approval_steps import DAY, ITEM, Item, derive_steps, list_items
from study.approvals import derive_approvals
from study.calendar import find_day_bounds, format_day
from study.deadlines import describe_item
from study.forecast import Forecast, derive_forecast_history
from study.gate import Gate, Reason, derive_open_days, find_run_start
from study.pathway import Approval
from study.protocol import Study
from study.state import Events, derive_participants

STATE_WORDS = {
    "open": "open",
    "partly_open": "partly open",
    "waiting": "waiting",
    "suspended": "suspended",
    "blocked": "blocked",
}
STATES = tuple(STATE_WORDS)
DAYS_BACK = 7
DAYS_OF_WARNING = 28
DAYS_OF_A_MOVE = 7
"""A forecast that moved by fewer days has not moved."""

ACTIVITY_WORDS = {
    "approach": "approaching people",
    "recruit": "recruiting",
    "collect_baseline": "collecting the baseline",
    "collect_follow_up": "collecting follow-up",
    "link_records": "linking records",
    "interview": "interviewing",
}
_QUESTION = ["activity", "site_id", "body_id", "person_id"]
_OVER = ("refused", "withdrawn")


class BodyPosition(NamedTuple):
    """Whether an activity may be done under one body of a site, and whether that was so on an earlier day."""

    body_id: str
    is_open: bool
    was_open: bool


class Standing(NamedTuple):
    """An activity at a site: one of STATES; the day since which it is open or suspended (None for the others); the
    bodies that have a say in it; and the gate's reasons, which are the items that are not in force."""

    state: str
    since: date | None
    bodies: tuple[BodyPosition, ...]
    reasons: tuple[Reason, ...]

    @property
    def n_open_bodies(self) -> int:
        return sum(body.is_open for body in self.bodies)


@dataclass(frozen=True)
class SitePosition:
    """A site. `standings` by activity (the first of each group); the rest is about the forecast's activity: `risks`
    (sentences; none if it is not at risk), how many approvals it lacks (its own and the study's), at whom they are,
    and when it opens."""

    site_id: str
    name: str
    standings: Mapping[str, Standing]
    risks: tuple[str, ...]
    n_lacking: int
    n_ours: int
    n_theirs: int
    n_overdue: int
    n_recruited: int
    opened_on: date | None
    median_on: date | None
    p80_on: date | None
    hindrance: str
    probability: float


class Change(NamedTuple):
    """Something that happened, or became known, since last week.

    `kind`: opened, opened_in_part, closed, closed_in_part, a step of an approval, granted_by_silence, expired, or
    taken_back (an entry was voided). `item` is None for what opened or closed.
    """

    kind: str
    on: date | None
    site_id: str
    body_id: str = ""
    activity: str = ""
    item: Item | None = None


class Move(NamedTuple):
    """A forecast of a site's opening, then and now (None: no date), and by how many days it moved (None: unknown)."""

    site_id: str
    recorded_on: date
    before_on: date | None
    now_on: date | None
    n_days: int | None


class Urgent(NamedTuple):
    """Something to do, in words: what is the matter, and the next step. `site_ids`: the sites that it holds up."""

    kind: str
    text: str
    action: str
    site_ids: tuple[str, ...]


@dataclass(frozen=True)
class Position:
    """The study at the end of a day. `activity`: that of the forecast, which stands for the site as a whole.
    `groups`: activities that rest on the same approvals, by the first of them. `urgent`: the most urgent first."""

    as_of: date
    since: date
    activity: str
    groups: Mapping[str, tuple[str, ...]]
    sites: tuple[SitePosition, ...]
    changes: tuple[Change, ...]
    moves: tuple[Move, ...]
    was_forecast: bool
    urgent: tuple[Urgent, ...]
    n_recruited: int

    def count(self, state: str, activity: str = "") -> int:
        """How many sites are in a state, for an activity (none named: the forecast's)."""
        return len(self.find_sites(state, activity))

    def find_sites(self, state: str, activity: str = "") -> tuple[SitePosition, ...]:
        wanted = self.find_group(activity or self.activity)
        return tuple(site for site in self.sites if site.standings[wanted].state == state)

    def find_group(self, activity: str) -> str:
        """The activity that stands for one in `groups`. KeyError if it is not planned."""
        for first, activities in self.groups.items():
            if activity in activities:
                return first
        raise KeyError(f'"{activity}" is no planned activity.')

    @property
    def at_risk(self) -> tuple[SitePosition, ...]:
        return tuple(site for site in self.sites if site.risks)


def name_activities(activities: Iterable[str]) -> str:
    """Activities in a sentence: "approaching people and recruiting"."""
    *rest, last = (ACTIVITY_WORDS[activity] for activity in activities)
    return f"{', '.join(rest)} and {last}" if rest else last


def name_body(study: Study, body_id: str) -> str:
    """The name of a body; the id itself for none of the study's."""
    return next((body.name for site in study.sites for body in site.bodies if body.id == body_id), body_id)


# Asking the gate ----------------------------------------------------------------------------------------------------


def find_groups(study: Study) -> dict[str, tuple[str, ...]]:
    """The planned activities in the pathway's order, those that rest on the same approvals together; by the first."""
    groups: dict[str, tuple[str, ...]] = {}
    for entry in study.pathway.activities:
        same = (first for first in groups if set(study.pathway.find_needs(first) or ()) == set(entry.needs))
        first = next(same, entry.id)
        groups[first] = (*groups.get(first, ()), entry.id)
    return groups


def list_questions(study: Study, approvals: pd.DataFrame, activities: Iterable[str]) -> pd.DataFrame:
    """What to ask the gate of every site: for the whole of it, and under each body that has a say in the activity.

    Columns activity, site_id, body_id, person_id. Where an activity rests on approvals of persons, each question is
    put for every person of whom the site has one on record (`approvals`: as from `derive_approvals`), or for nobody.
    """
    rows = []
    for activity in activities:
        needed = [study.pathway.find_approval(name) for name in study.pathway.find_needs(activity) or ()]
        personal = [approval.id for approval in needed if approval is not None and approval.level == "person"]
        for site in study.sites:
            own = approvals["approval"].isin(personal) & (approvals["site_id"] == site.site_id)
            people = sorted(set(approvals.loc[own, "person_id"])) if personal else []
            for body_id in ("", *_list_bodies_with_a_say(study, site.site_id, needed)):
                rows += [(activity, site.site_id, body_id, person_id) for person_id in people or [""]]
    return pd.DataFrame(rows, columns=_QUESTION)


def _list_bodies_with_a_say(study: Study, site_id: str, needed: Iterable[Approval | None]) -> list[str]:
    site = study.find_site(site_id)
    concerned = {
        item.body_id
        for approval in needed
        if approval is not None and site is not None
        for item, is_needed in list_items(study, approval, [site], person_ids=[""])
        if is_needed and item.body_id
    }
    return [body.id for body in site.bodies if body.id in concerned] if site else []


def derive_site_days(
    study: Study, events: Events, approvals: pd.DataFrame, activities: Iterable[str], first: date, last: date
) -> pd.DataFrame:
    """The gate's answers for every site and for its bodies on many days: index (activity, site_id, body_id; '' for the
    whole site), one column per day. Where letters of persons are needed: whether anybody may do it."""
    return _ask_anybody(study, events, list_questions(study, approvals, activities), first, last)


def _derive_standings(
    study: Study, events: Events, gate: Gate, groups: Iterable[str], hindrances: Mapping[str, str], activity: str
) -> dict[str, dict[str, Standing]]:
    """By site, then by activity."""
    first = min(study.starts_on, gate.on)
    questions = list_questions(study, gate.approvals, groups)
    people: dict[tuple[str, str], dict[str, None]] = {}
    for name, site_id, _, person_id in questions.itertuples(index=False, name=None):
        people.setdefault((name, site_id), {})[person_id] = None
    standings: dict[str, dict[str, Standing]] = {site.site_id: {} for site in study.sites}
    days = _ask_anybody(study, events, questions, first, gate.on)
    for place, rows in days.groupby(level=[0, 1], sort=False):
        group, site_id = (str(part) for part in place)
        answers = rows.to_numpy()
        bodies = tuple(
            BodyPosition(str(key[2]), bool(own[-1]), bool(own.any()))
            for key, own in zip(rows.index, answers, strict=True)
            if key[2]
        )
        lost = [own for own in answers if own.any() and not own[-1]]
        asked = [gate.ask(group, site_id, person_id=person_id).reasons for person_id in people[group, site_id]]
        reasons = min(asked, key=len)
        hindrance = hindrances.get(site_id, "") if activity == group else ""
        since: date | None = None
        if answers[0][-1]:
            state, since = "open", find_run_start(answers[0], first)
        elif lost:
            state, since = "suspended", max(find_run_start(~own, first) for own in lost)
        elif any(reason.state in _OVER for reason in reasons) or hindrance in (*_OVER, "no_route"):
            state = "blocked"
        else:
            state = "partly_open" if any(body.is_open for body in bodies) else "waiting"
        standings[site_id][group] = Standing(state, since, bodies, reasons)
    return standings


def _ask_anybody(study: Study, events: Events, questions: pd.DataFrame, first: date, last: date) -> pd.DataFrame:
    answers = derive_open_days(study, events, questions, first, last)
    return answers.groupby([questions[name] for name in _QUESTION[:3]], sort=False).any()


# What is lacking ----------------------------------------------------------------------------------------------------


def derive_lacking(study: Study, approvals: pd.DataFrame, forecast: Forecast | None = None) -> pd.DataFrame:
    """What some planned activity rests on and is not in force: the rows of `derive_approvals`, and

    waits_for (labels, joined with "; ": what must be in force before it can be sent in or granted, and is not),
    activities (those that rest on it, joined with ";"), is_sendable (not sent in, and nothing stands in the way), turn
    ('' where it waits for others before anybody can act), median_on and p80_on (of the forecast; NaT for none).
    """
    pathway = study.pathway
    resting: dict[str, list[str]] = {}
    for entry in pathway.activities:
        for name in entry.needs:
            resting.setdefault(name, []).append(entry.id)
    missing = approvals.loc[approvals["is_needed"] & ~approvals["is_in_force"]]
    lacking = missing.loc[missing["approval"].isin(list(resting))].copy()
    open_places: dict[str, list[tuple[str, str]]] = {}
    for name, site_id, body_id in missing[ITEM[:3]].itertuples(index=False, name=None):
        open_places.setdefault(name, []).append((site_id, body_id))
    waits = []
    for name, site_id, body_id, state in lacking[[*ITEM[:3], "state"]].itertuples(index=False, name=None):
        approval = pathway.find_approval(name)
        before = () if approval is None else approval.submitted_after
        if approval is not None and state not in ("not_sought", "refused", "withdrawn", "expired"):
            before = approval.granted_after
        labels = []
        for other in before:
            places = open_places.get(other, [])
            if any(_is_same_place((site_id, body_id), place) for place in places):
                found = pathway.find_approval(other)
                labels.append(found.label if found else other)
        waits.append("; ".join(labels))
    lacking["waits_for"] = pd.Series(waits, lacking.index, dtype="str")
    lacking["activities"] = lacking["approval"].map({name: ";".join(ids) for name, ids in resting.items()})
    is_unsent = lacking["state"] == "not_sought"
    lacking["is_sendable"] = is_unsent & (lacking["waits_for"] == "")
    lacking["turn"] = lacking["turn"].mask(is_unsent & (lacking["waits_for"] != ""), "")
    expected = forecast.items if forecast is not None else pd.DataFrame(columns=[*ITEM[:3], "median_on", "p80_on"])
    expected = expected[[*ITEM[:3], "median_on", "p80_on"]].assign(person_id="", modification="")
    lacking = lacking.merge(expected, how="left", on=ITEM)
    return lacking.astype({"median_on": DAY, "p80_on": DAY})


def _is_same_place(one: tuple[str, str], other: tuple[str, str]) -> bool:
    return all("" in pair or pair[0] == pair[1] for pair in zip(one, other, strict=True))


def _find_of_site(frame: pd.DataFrame, site_id: str) -> pd.DataFrame:
    """The rows that concern a site: its own, and the study's."""
    return frame.loc[frame["site_id"].isin(("", site_id))]


# What changed -------------------------------------------------------------------------------------------------------


def _derive_changes(
    study: Study,
    events: Events,
    before: Events,
    gate: Gate,
    gate_before: Gate,
    standings: Mapping[str, Mapping[str, Standing]],
) -> list[Change]:
    """What happened or became known since: openings, then steps, by comparing what was on record then and is now."""
    changes = []
    rows = list_questions(study, gate.approvals, standings[study.sites[0].site_id]).itertuples(index=False, name=None)
    answers = [(row[:3], *(one.ask(*row).is_allowed for one in (gate_before, gate))) for row in rows]
    table = pd.DataFrame(answers, columns=["place", "before", "now"]).groupby("place", sort=False).any()
    turned = table.loc[table["before"] != table["now"]]
    for (activity, site_id, body_id), _, now in turned.itertuples(name=None):
        if not body_id or (activity, site_id, "") not in turned.index:
            kind = ("opened" if now else "closed") + ("_in_part" if body_id else "")
            since = None if body_id else standings[site_id][activity].since
            changes.append(Change(kind, since, site_id, body_id, activity))
    key = [*ITEM, "attempt", "step", "number", "condition"]
    steps, steps_before = derive_steps(study, events, gate.on), derive_steps(study, before, gate_before.on)
    told = steps.merge(steps_before[key].drop_duplicates(), how="left", on=key, indicator=True)
    taken = steps_before.merge(steps[key].drop_duplicates(), how="left", on=key, indicator=True)
    taken["step"] = "taken_back"
    for frame in (told, taken):
        frame = frame.loc[frame["_merge"] == "left_only"]
        for *row, step, step_key, on in frame[[*ITEM, "step", "key", "occurred_on"]].itertuples(index=False, name=None):
            item = Item(*row)
            kind = "granted_by_silence" if (step, step_key) == ("granted", "") else step
            changes.append(Change(kind, on.date(), item.site_id, item.body_id, item=item))
    lapsed = gate.approvals.loc[(gate.approvals["state"] == "expired") & gate.approvals["is_needed"]]
    lapsed = lapsed.merge(gate_before.approvals[[*ITEM, "state"]], how="left", on=ITEM, suffixes=("", "_before"))
    lapsed = lapsed.loc[lapsed["state_before"] != "expired"]
    for *row, on in lapsed[[*ITEM, "turn_since"]].itertuples(index=False, name=None):
        item = Item(*row)
        changes.append(Change("expired", on.date(), item.site_id, item.body_id, item=item))
    return changes


def _derive_moves(events: Events, forecast: Forecast, since: date) -> tuple[bool, list[Move]]:
    """Whether a forecast was on record by then, and what moved by DAYS_OF_A_MOVE days or more, furthest first."""
    told = derive_forecast_history(events.select(as_of=since))
    told = told.loc[told["activity"] == forecast.activity]
    told = told.drop_duplicates("site_id", keep="last").set_index("site_id")
    moves = []
    for site in forecast.sites.to_dict("records"):
        if site["site_id"] not in told.index or site["is_open"]:
            continue
        row = told.loc[site["site_id"]]
        before_on, now_on = _to_day(row["median_on"]), _to_day(site["median_on"])
        n_days = (now_on - before_on).days if before_on and now_on else None
        if before_on != now_on and (n_days is None or abs(n_days) >= DAYS_OF_A_MOVE):
            moves.append(Move(site["site_id"], row["occurred_on"].date(), before_on, now_on, n_days))
    return bool(len(told)), sorted(moves, key=lambda move: -abs(move.n_days if move.n_days is not None else 10**6))


def _to_day(stamp: Any) -> date | None:
    return None if pd.isna(stamp) else stamp.date()


# What to do first ---------------------------------------------------------------------------------------------------


def _name_sites(study: Study, site_ids: Iterable[str]) -> str:
    names = [site.name for site_id in site_ids if (site := study.find_site(site_id)) is not None]
    if len(names) == len(study.sites) and len(names) > 1:
        return "every site"
    if len(names) > 3:
        return f"{len(names)} sites"
    *rest, last = names or [""]
    return f"{', '.join(rest)} and {last}" if rest else last


def _list_urgent(
    study: Study,
    as_of: date,
    approvals: pd.DataFrame,
    lacking: pd.DataFrame,
    standings: Mapping[str, Mapping[str, Standing]],
    forecast: Forecast,
    deadlines: pd.DataFrame,
    incidents: pd.DataFrame,
) -> list[Urgent]:
    """Everything that somebody should see to, the most urgent first. What one person can do in one go is one entry."""
    found: list[tuple[tuple[float, ...], Urgent]] = []
    headline = forecast.activity

    def find_held_up(item: Item, states: tuple[str, ...] = STATES[1:]) -> tuple[str, ...]:
        return tuple(
            site_id
            for site_id, own in standings.items()
            if any(one.state in states and any(item == reason.item for reason in one.reasons) for one in own.values())
        )

    def add(rank: float, kind: str, text: str, action: str, site_ids: tuple[str, ...], days: float = 0) -> None:
        found.append(((rank, -len(site_ids), -days), Urgent(kind, text, action, site_ids)))

    for row in lacking.to_dict("records"):
        item = Item(*(row[name] for name in ITEM))
        name = describe_item(study, item)
        since = _to_day(row["turn_since"])
        days = (as_of - since).days if since else 0
        is_late = pd.notna(row["overdue_since"])
        sites = find_held_up(item)
        where = _name_sites(study, sites)
        rests = 0 if headline in row["activities"].split(";") else 0.4
        lapsed = find_held_up(item, ("suspended",))
        if row["state"] == "expired":
            last_on = (since or as_of) - timedelta(days=1)
            text = f"{name}: it ran out, {format_day(last_on)} was its last day."
            if lapsed:
                text += f" {_name_sites(study, lapsed)} {'is' if len(lapsed) == 1 else 'are'} suspended."
            add(rests if lapsed else 3, "lapsed", text, "Get it renewed; release nothing new until then.", lapsed, days)
        elif row["state"] in _OVER:
            told = "refused" if row["state"] == "refused" else "withdrawn"
            on = _to_day(row["decided_on"] if told == "refused" else row["withdrawn_on"])
            text = f"{name}: {told}{f' on {format_day(on)}' if on else ''}. Waiting alone will not open {where}."
            add((0 if lapsed else 1) + rests, told, text, "Decide whether and how it is sent in again.", sites, days)
        elif row["state"] == "information_requested":
            due = _to_day(row["due_on"])
            when = f"{days} day{'s' * (days != 1)} ago" if days else "today"
            text = f"{name}: asked us for information {when}{', and the clock stands still' * row['is_stopped']}."
            action = "Answer" + (f" by {format_day(due)}" if due else "") + (": it is overdue." if is_late else ".")
            add((2 if is_late else 3) + rests, "answer_owed", text, action, sites, days)
        elif row["state"] == "granted_with_conditions":
            n = row["n_conditions_open"]
            text = f"{name}: granted, but {n} {'condition is' if n == 1 else 'conditions are'} still to be met."
            add(3 + rests, "condition_owed", text, "Meet and record what was asked.", sites, days)
        elif row["turn"] == "authority" and is_late:
            late = (as_of - row["overdue_since"].date()).days + 1
            text = f"{name}: the decision is {late} {'day' if late == 1 else 'days'} overdue."
            add(4 + rests, "decision_overdue", text, "Ask for it.", sites, late)
    unsent = lacking.loc[lacking["is_sendable"]]
    for approval_id, rows in unsent.groupby("approval", sort=False):
        items = [Item(*row) for row in rows[ITEM].itertuples(index=False, name=None)]
        sites = tuple(dict.fromkeys(site_id for item in items for site_id in find_held_up(item)))
        approval = study.pathway.find_approval(str(approval_id))
        label = approval.label if approval else str(approval_id)
        many = f"not sent in at {len(items)} places, though nothing stands in the way."
        text = f"{label}: {many}" if len(items) > 1 else f"{describe_item(study, items[0])}: not sent in yet."
        activities = rows["activities"].iloc[0].split(";")
        purpose = "" if headline in activities else f" for {name_activities(activities)}"
        action = f"Send it in: {_name_sites(study, sites)} cannot open{purpose} without."
        add(3.5 if not purpose else 6, "not_sent", text, action, sites)
    resting = {name for entry in study.pathway.activities for name in entry.needs}
    horizon = pd.Timestamp(as_of + timedelta(days=DAYS_OF_WARNING))
    ending = approvals.loc[approvals["is_in_force"] & approvals["approval"].isin(sorted(resting))]
    for row in ending.loc[ending["in_force_until"] <= horizon].to_dict("records"):
        item = Item(*(row[name] for name in ITEM))
        left = (row["in_force_until"].date() - as_of).days
        closes = (item.site_id,) if item.site_id else tuple(standings)
        text = f"{describe_item(study, item)}: {format_day(row['in_force_until'].date())} is its last day."
        action = f"Renew it, or {_name_sites(study, closes)} will be suspended."
        add(2.5, "ending", text, action, closes, -left)
    late_incidents = incidents.loc[(incidents["state"] != "closed") & incidents["overdue_since"].notna()]
    if n := len(late_incidents):
        sites = tuple(dict.fromkeys(site for site in late_incidents["site_id"] if site))
        text = f"{n} {'incident has' if n == 1 else 'incidents have'} not been dealt with in time"
        text += f" ({_name_sites(study, sites)})." if sites else "."
        add(1.5, "incident_overdue", text, "See the register for whose step is next.", sites)
    for row in deadlines.loc[deadlines["is_overdue"] & (deadlines["kind"] == "duty")].to_dict("records"):
        late = (as_of - row["on"].date()).days
        text = f"{row['title']}: was due on {format_day(row['on'].date())}."
        add(5, "duty_overdue", text, "Send it, and record that it was done.", (), late)
    for row in _find_longest(forecast).to_dict("records"):
        item = Item(row["approval"], row["site_id"], row["body_id"])
        own = lacking.loc[(lacking[ITEM] == list(item)).all(axis="columns")]
        is_theirs = not own.empty and own["turn"].iloc[0] == "authority"
        if is_theirs and pd.notna(own["turn_since"].iloc[0]):
            days = (as_of - own["turn_since"].iloc[0].date()).days
            sites = find_held_up(item)
            text = f"{describe_item(study, item)}: waiting for {days} days, and most likely the last thing that "
            text += f"{_name_sites(study, sites)} needs."
            add(7, "holding_up", text, "Ask when the decision comes.", sites, days)
    return [entry for _, entry in sorted(found, key=lambda pair: pair[0])]


def _find_longest(forecast: Forecast) -> pd.DataFrame:
    """What each site most likely waits for longest."""
    critical = forecast.critical.loc[forecast.critical["share"] > 0]
    return critical.drop_duplicates("site_id")


# The whole ----------------------------------------------------------------------------------------------------------


def derive_position(
    study: Study,
    events: Events,
    as_of: date,
    forecast: Forecast,
    deadlines: pd.DataFrame,
    incidents: pd.DataFrame,
) -> Position:
    """Where the study stands at the end of a day.

    `forecast`: of that day. `deadlines`, `incidents`: as from `derive_deadlines` and `derive_incidents`, also of that
    day. What changed is told by comparison with what was on record at the end of the day a week before, so what is
    recorded late is told in the week in which it was recorded. ValueError for a forecast of another day.
    """
    if forecast.as_of != as_of:
        raise ValueError(f"the forecast is of {forecast.as_of}, not of {as_of}: make one of that day.")
    since = as_of - timedelta(days=DAYS_BACK)
    before = events.select(as_of=since, known_at=find_day_bounds(since)[1])
    gate = Gate(study, as_of, derive_approvals(study, events, as_of))
    gate_before = Gate(study, since, derive_approvals(study, before, since))
    groups = find_groups(study)
    by_site = forecast.sites.set_index("site_id")
    hindrances = dict(zip(forecast.sites["site_id"], forecast.sites["hindrance"], strict=True))
    activity = next((first for first, same in groups.items() if forecast.activity in same), forecast.activity)
    groups.setdefault(activity, (activity,))  # shown as not planned, if it is not
    standings = _derive_standings(study, events, gate, groups, hindrances, activity)
    lacking = derive_lacking(study, gate.approvals, forecast)
    needs = study.pathway.find_needs(forecast.activity) or ()
    people = derive_participants(events.select(as_of=as_of))
    recruited = people.loc[people["consented_on"].notna(), "site_id"].value_counts()
    sites = []
    for site in study.sites:
        row = by_site.loc[site.site_id]
        own = _find_of_site(lacking.loc[lacking["approval"].isin(needs)], site.site_id)
        standing = standings[site.site_id].get(activity)
        probability = forecast.find_probability(site.site_id, study.data_collection_starts_on)
        sites.append(
            SitePosition(
                site_id=site.site_id,
                name=site.name,
                standings=standings[site.site_id],
                risks=_list_risks(study, gate, standing, own, site.site_id, needs, probability),
                n_lacking=len(own),
                n_ours=int((own["turn"] == "applicant").sum()),
                n_theirs=int((own["turn"] == "authority").sum()),
                n_overdue=int(own["overdue_since"].notna().sum()),
                n_recruited=int(recruited.get(site.site_id, 0)),
                opened_on=_to_day(row["opened_on"]),
                median_on=_to_day(row["median_on"]),
                p80_on=_to_day(row["p80_on"]),
                hindrance=str(row["hindrance"]),
                probability=probability,
            )
        )
    was_forecast, moves = _derive_moves(events, forecast, since)
    return Position(
        as_of=as_of,
        since=since,
        activity=activity,
        groups=groups,
        sites=tuple(sites),
        changes=tuple(_derive_changes(study, events, before, gate, gate_before, standings)),
        moves=tuple(moves),
        was_forecast=was_forecast,
        urgent=tuple(_list_urgent(study, as_of, gate.approvals, lacking, standings, forecast, deadlines, incidents)),
        n_recruited=int(recruited.sum()),
    )


def _list_risks(
    study: Study,
    gate: Gate,
    standing: Standing | None,
    lacking: pd.DataFrame,
    site_id: str,
    needs: Iterable[str],
    probability: float,
) -> tuple[str, ...]:
    """Why a site is at risk, for the forecast's activity; nothing where it is suspended or blocked, which is worse."""
    if standing is None or standing.state in ("suspended", "blocked"):
        return ()
    risks = []
    if standing.state == "open":
        own = _find_of_site(gate.approvals, site_id)
        own = own.loc[own["is_in_force"] & own["approval"].isin(list(needs))]
        ending = own.loc[own["in_force_until"] <= pd.Timestamp(gate.on + timedelta(days=DAYS_OF_WARNING))]
        for row in ending.to_dict("records"):
            name = describe_item(study, Item(*(row[column] for column in ITEM)))
            risks.append(f"{name} ends on {format_day(row['in_force_until'].date())}")
        return tuple(risks)
    if gate.on > study.data_collection_starts_on:
        risks.append(f"not open, and data collection began on {format_day(study.data_collection_starts_on)}")
    elif probability < 0.8:
        risks.append(f"{100 * probability:.0f} % chance of being open by {format_day(study.data_collection_starts_on)}")
    n_late = int(lacking["overdue_since"].notna().sum())
    if n_late:
        risks.append(f"{n_late} overdue")
    return tuple(risks)
