"""`summative approvals`, to look at: where the sites stand, what each lacks, how forecasts moved, what falls due."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

import pandas as pd
import typer
from rich.markup import escape
from rich.table import Table

from desk.approval_commands import approvals_app
from desk.options import StudyArgument, find_day, find_site_id, open_study, out, parse_day
from study.approval_chasing import derive_approval_chasers
from study.approvals import derive_approvals
from study.calendar import find_day_bounds
from study.deadlines import derive_deadlines
from study.forecast import derive_forecast_history
from study.position import STATE_WORDS, derive_lacking, name_activities, name_body
from study.state import Events
from tasks.approvals import Following, follow_approvals
from tasks.workspace import Workspace

SiteOption = Annotated[str, typer.Option("--site", help="Only this site.")]
AsOfOption = Annotated[str, typer.Option("--as-of", help="At the end of this day; left out, today.")]
KnownOption = Annotated[
    str, typer.Option("--known", help="Only what was recorded by the end of this day: what was believed then.")
]


def _open(study: str, as_of: str, known: str) -> tuple[Workspace, date, Events]:
    """The workspace, the day asked for, and the ledger as it is to be seen."""
    workspace = open_study(study)
    events, known_on = workspace.read_events(), parse_day(known)
    if known_on:
        events = events.select(known_at=find_day_bounds(known_on)[1])
    return workspace, parse_day(as_of) or known_on or find_day(workspace), events


@approvals_app.command(name="show")
def show(study: StudyArgument, site: SiteOption = "", as_of: AsOfOption = "", known: KnownOption = "") -> None:
    """Where every site stands, when it is expected to open, and what to do first; of one site, all that it lacks."""
    workspace, day, events = _open(study, as_of, known)
    site_id = find_site_id(workspace, site)
    following = follow_approvals(workspace, day, events)
    if following is None:
        out.print(f"{workspace.study.title} needs no approvals: its approvals.toml names none.")
        return
    _show_site(following, site_id) if site_id else _show_sites(following)


def _show_sites(following: Following) -> None:
    position, study = following.position, following.study
    table = Table("Site", "State", "Lacks", "With us", "With them", "Overdue", "Opens (median)", "80 % date", "At risk")
    for site in position.sites:
        standing = site.standings[position.activity]
        state = STATE_WORDS[standing.state] + (f" since {standing.since}" if standing.since else "")
        opened = (
            "opened " + str(site.opened_on)
            if site.opened_on
            else _write(site.median_on) or site.hindrance.replace("_", " ")
        )
        table.add_row(
            site.name, state, *(str(n or "") for n in (site.n_lacking, site.n_ours, site.n_theirs, site.n_overdue)),
            opened, "" if site.opened_on else _write(site.p80_on), "yes" if site.risks else "",
        )  # fmt: skip
    out.print(f"{study.title}, {position.as_of}. State for {name_activities(position.groups[position.activity])}.")
    out.print(table)
    for urgent in position.urgent[:3]:
        out.print(f"[bold]·[/bold] {escape(urgent.text)} {escape(urgent.action)}", soft_wrap=True)
    n_changes = len(position.changes)
    out.print(f"{n_changes} changes and {len(position.moves)} moved forecasts since {position.since}.")


def _show_site(following: Following, site_id: str) -> None:
    position, study = following.position, following.study
    site = next(site for site in position.sites if site.site_id == site_id)
    out.print(f"[bold]{escape(site.name)}[/bold], {position.as_of}")
    for first, activities in position.groups.items():
        standing = site.standings[first]
        state = STATE_WORDS[standing.state] + (f" since {standing.since}" if standing.since else "")
        bodies = f", under {standing.n_open_bodies} of {len(standing.bodies)} bodies"
        out.print(f"  {name_activities(activities)}: {state}{bodies if standing.state == 'partly_open' else ''}")
    lacking = derive_lacking(study, derive_approvals(study, following.events, position.as_of), following.forecast)
    own = lacking.loc[lacking["site_id"].isin(("", site_id))]
    table = Table("Approval", "Body", "State", "Whose turn", "Since", "Days", "Deadline", "Overdue since", "Expected")
    for row in own.to_dict("records"):
        allowed = "" if pd.isna(row["days_allowed"]) else f" of {row['days_allowed']}"
        days = "" if pd.isna(row["days_used"]) else f"{row['days_used']}{allowed}"
        approval = study.pathway.find_approval(row["approval"])
        person = f" ({row['person_id']})" if row["person_id"] else ""
        table.add_row(
            (approval.label if approval else row["approval"]) + person,
            name_body(study, row["body_id"]) or ("(the site)" if row["site_id"] else "(the study)"),
            row["state"].replace("_", " "), {"applicant": "ours", "authority": "theirs"}.get(row["turn"], ""),
            *(_write(row[name]) for name in ("turn_since",)), days,
            *(_write(row[name]) for name in ("due_on", "overdue_since", "median_on")),
        )  # fmt: skip
    out.print(table)
    for risk in site.risks:
        out.print(f"At risk: {escape(risk)}", soft_wrap=True)


@approvals_app.command(name="forecasts")
def list_forecasts(
    study: StudyArgument,
    site: SiteOption = "",
    on: Annotated[
        str, typer.Option("--on", help="Only what was expected on this day: the last forecast by then.")
    ] = "",
) -> None:
    """How what was expected of each site's opening moved, as it was recorded; and what came of it."""
    workspace, day = open_study(study), parse_day(on)
    site = find_site_id(workspace, site)
    history = derive_forecast_history(workspace.read_events())
    history = history[history["site_id"] == site] if site else history
    if day:
        history = history[history["occurred_on"] <= pd.Timestamp(day)].drop_duplicates(
            ["activity", "site_id"], keep="last"
        )
    table = Table("Site", "For", "Expected on", "10 %", "Median", "80 %", "Opened", "Days late", "By the 80 % date")
    for row in history.to_dict("records"):
        covered = "" if pd.isna(row["is_covered"]) else ("yes" if row["is_covered"] else "no")
        days = ["", "", ""] if row["is_open"] else [_write(row[name]) for name in ("p10_on", "median_on", "p80_on")]
        late = "" if row["is_open"] or pd.isna(row["days_late"]) else str(row["days_late"])
        table.add_row(
            row["site_id"], name_activities([row["activity"]]), _write(row["occurred_on"]), *days,
            _write(row["opened_on"]), late, "" if row["is_open"] else covered,
        )  # fmt: skip
    out.print(table)
    told = history[~history["is_open"] & history["is_covered"].notna()]
    if len(told):
        n_covered, n_days = int(told["is_covered"].sum()), int(told["days_late"].median())
        out.print(
            f"Of {len(told)} forecast{'s' * (len(told) != 1)} of sites that have opened since, {n_covered} had them "
            "open by the 80 % date; "
            f"the middle one was {abs(n_days)} days too {'early' if n_days > 0 else 'late'}.",
            soft_wrap=True,
        )
    else:
        out.print(f"{len(history)} forecasts. None of them can be held against an opening yet.")


@approvals_app.command(name="deadlines")
def list_deadlines(
    study: StudyArgument,
    days: Annotated[int, typer.Option(help="So many days ahead.", min=0)] = 90,
    as_of: AsOfOption = "",
    known: KnownOption = "",
) -> None:
    """What falls due, ends or is overdue: decisions, answers, expiries, reviews, duties, assessments of incidents."""
    workspace, day, events = _open(study, as_of, known)
    found = derive_deadlines(workspace.study, events, day, within_days=days)
    table = Table("On", "What", "Site", "Whose", "Overdue")
    for row in found.to_dict("records"):
        table.add_row(_write(row["on"]), row["title"], row["site_id"], row["owner"], "yes" if row["is_overdue"] else "")
    out.print(table)
    out.print(f"{len(found)} in the {days} days from {day}.")


@approvals_app.command(name="chasers")
def list_chasers(study: StudyArgument, as_of: AsOfOption = "", known: KnownOption = "") -> None:
    """Who is to be chased today for approvals, duties and renewals, by which rule. Nothing is sent by this."""
    workspace, day, events = _open(study, as_of, known)
    found = derive_approval_chasers(workspace.study, events, day)
    table = Table("Due", "Who", "How", "Why")
    due = found[found["state"] == "due"]
    for row in due.to_dict("records"):
        table.add_row(_write(row["due_on"]), row["to"].replace("_", " "), row["channel"], row["rule"])
    out.print(table)
    out.print(f"{len(due)} due on {day}, {len(found) - len(due)} to come.")


def _write(day: Any) -> str:
    """A day of a frame, or nothing."""
    return "" if day is None or pd.isna(day) else f"{day:%Y-%m-%d}"
