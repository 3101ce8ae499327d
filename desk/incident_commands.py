"""`summative incidents`: the register of what may be a breach, from noticing it to closing it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import pandas as pd
import typer
from pydantic import ValidationError
from rich.table import Table

from desk.options import (
    ByOption,
    StudyArgument,
    find_day,
    find_past_day,
    find_site_id,
    open_study,
    out,
    parse_day,
    print_table,
)
from study.events import (
    Event,
    IncidentActionDone,
    IncidentActionPlanned,
    IncidentAssessed,
    IncidentAssigned,
    IncidentClosed,
    IncidentDecided,
    IncidentEvent,
    IncidentOpened,
)
from study.incidents import derive_incidents
from tasks.incidents import Recorded, open_incident, record_step

app = typer.Typer(
    help="The incident register: deviations, breaches, and what was collected while it was not allowed.",
    no_args_is_help=True,
)

Category = Literal["protocol_deviation", "consent_breach", "identifier_leak", "other"]
IncidentArgument = Annotated[str, typer.Argument(help="The incident's number, such as luton-I0001.")]
OnOption = Annotated[str, typer.Option("--on", help="The day, such as 2017-05-02; left out, today.")]
RoleOption = Annotated[str, typer.Option("--role", help="Whose word it is, as a role such as sponsor; no name.")]
ReferenceOption = Annotated[str, typer.Option("--reference", help="The sponsor's own reference.")]
SiteOption = Annotated[str, typer.Option("--site", help="Only this site.")]

_Told = TypeVar("_Told", bound=Event)

_CATEGORIES = {
    "collected_while_not_open": "not allowed then",
    "protocol_deviation": "deviation from the protocol",
    "consent_breach": "breach of consent",
    "identifier_leak": "identifier leaked",
    "other": "other",
}
_STEPS = {"assess": "assess it", "decide": "admit or exclude", "act": "corrective action", "close": "close it", "": ""}


@app.command(name="list")
def list_incidents(
    study: StudyArgument,
    site: SiteOption = "",
    everything: Annotated[bool, typer.Option("--all", help="Closed ones too.")] = False,
) -> None:
    """Incidents that are not closed: what happened, what they hold back, what is next and by whom."""
    workspace = open_study(study)
    site = find_site_id(workspace, site)
    register = derive_incidents(workspace.study, workspace.read_events(), find_day(workspace))
    if site:
        register = register[register["site_id"] == site]
    if not everything:
        register = register[register["state"] != "closed"]
    table = Table("Incident", "Site", "What", "Of", "Happened", "Held back", "Outcome", "State", "Next", "By", "Until")
    for row in register.to_dict("records"):
        table.add_row(
            row["incident_id"], " ".join(filter(None, [row["site_id"], row["body_id"]])), _describe(row),
            row["subject"], _show(row["occurred_on"]), _describe_held(row), row["outcome"].replace("_", " "),
            ", ".join(filter(None, [row["state"], row["decision"]])), _STEPS[row["next_step"]],
            row["turn"].replace("_", " "), _describe_due(row),
        )  # fmt: skip
    print_table(table)
    out.print(f"{len(register):,} incidents.")


def _describe(row: Mapping[Any, Any]) -> str:
    activity = row["activity"].replace("_", " ")
    told = _CATEGORIES[row["category"]]
    return f"{activity}: {told}" if activity else told


def _describe_held(row: Mapping[Any, Any]) -> str:
    """Records that are held back, and whether the gate would say yes now."""
    parts = [f"{row['n_held']:,}" if row["n_held"] else "", f"admitted {row['n_admitted']:,}" * bool(row["n_admitted"])]
    if not pd.isna(row["is_allowed_now"]):
        parts.append("the gate says yes now" if row["is_allowed_now"] else "the gate says no")
    return ", ".join(filter(None, parts))


def _describe_due(row: Mapping[Any, Any]) -> str:
    if not pd.isna(row["overdue_since"]):
        return f"overdue since {_show(row['overdue_since'])}"
    return _show(row["next_due_on"])


def _show(day: Any) -> str:
    return "" if pd.isna(day) else f"{day:%Y-%m-%d}"


@app.command()
def record(
    study: StudyArgument,
    category: Annotated[Category, typer.Argument(help="What kind of incident it is.")],
    subject: Annotated[
        str, typer.Argument(help="What it is about: a participant's identifier, a sending, a query. No name, no text.")
    ],
    by: ByOption,
    on: Annotated[str, typer.Option("--on", help="When it happened, such as 2017-05-02; left out, today.")] = "",
    found: Annotated[str, typer.Option("--found", help="When it was noticed; left out, today.")] = "",
    site: Annotated[str, typer.Option("--site", help="The site concerned.")] = "",
    body: Annotated[str, typer.Option("--body", help="The body of the site concerned.")] = "",
    records: Annotated[int, typer.Option("--records", help="How many records it concerns.", min=0)] = 0,
) -> None:
    """Enter an incident that somebody noticed: a deviation, a breach of consent, an identifier that leaked."""
    workspace = open_study(study)
    site = find_site_id(workspace, site)
    day = find_past_day(workspace, on)
    told = _make(
        IncidentOpened, occurred_on=day, requested_by=by, site_id=site, incident_id="new", category=category,
        subject=subject, body_id=body, n_records=records, found_on=find_past_day(workspace, found),
    )  # fmt: skip
    recorded = open_incident(workspace, told)
    if recorded.answer == "same":
        out.print(f"This was recorded before, as {recorded.incident_id}; nothing was changed.")
    else:
        out.print(f"Recorded as {recorded.incident_id}.")


@app.command()
def assign(
    study: StudyArgument,
    incident: IncidentArgument,
    owner: Annotated[str, typer.Argument(help="Who answers for it, as a role such as project_manager; no name.")],
    by: ByOption,
    on: OnOption = "",
    until: Annotated[str, typer.Option("--until", help="The day until which it must be settled.")] = "",
) -> None:
    """Say who answers for an incident, and until when."""
    _record(study, IncidentAssigned, by, on, incident_id=incident, owner=owner, due_on=parse_day(until))
    out.print(f"{incident} is assigned to {owner}{f' until {until}' if until else ''}.")


@app.command()
def assess(
    study: StudyArgument,
    incident: IncidentArgument,
    outcome: Annotated[Literal["no_breach", "breach", "serious_breach"], typer.Argument(help="What it is.")],
    by: ByOption,
    reference: ReferenceOption,
    role: RoleOption = "sponsor",
    on: OnOption = "",
) -> None:
    """Record the sponsor's assessment of an incident. A later one replaces an earlier one."""
    _record(study, IncidentAssessed, by, on, incident_id=incident, outcome=outcome, role=role, reference=reference)
    out.print(f"{incident} is assessed: {outcome.replace('_', ' ')}.")


@app.command()
def action(
    study: StudyArgument,
    incident: IncidentArgument,
    code: Annotated[str, typer.Argument(help="The action's code in the sponsor's papers, such as CAPA-12.")],
    by: ByOption,
    done: Annotated[bool, typer.Option("--done", help="It was carried out; left out, it is planned.")] = False,
    owner: Annotated[str, typer.Option("--owner", help="Who carries it out, as a role.")] = "",
    until: Annotated[str, typer.Option("--until", help="The day until which it must be carried out.")] = "",
    on: OnOption = "",
) -> None:
    """Plan a corrective action, or record that it was carried out."""
    if done:
        if owner or until:
            raise typer.BadParameter("--owner and --until belong to an action that is planned. Leave them out.")
        _record(study, IncidentActionDone, by, on, incident_id=incident, action=code)
    else:
        due_on = parse_day(until)
        _record(study, IncidentActionPlanned, by, on, incident_id=incident, action=code, owner=owner, due_on=due_on)
    out.print(f"{incident}: action {code} is {'done' if done else 'planned'}.")


@app.command()
def decide(
    study: StudyArgument,
    incident: IncidentArgument,
    decision: Annotated[
        Literal["admit", "exclude"], typer.Argument(help="admit: the answers are used; exclude: they never are.")
    ],
    by: ByOption,
    role: RoleOption,
    reference: ReferenceOption,
    on: OnOption = "",
) -> None:
    """Record the decision whether the answers that an incident holds back are used. It is made once."""
    word = {"admit": "admitted", "exclude": "excluded"}[decision]
    recorded = _record(
        study, IncidentDecided, by, on, incident_id=incident, decision=word, role=role, reference=reference
    )
    out.print(f"{incident}: its answers are {word}.")
    if word == "admitted":
        out.print(f"Records accepted by this: {recorded.n_admitted:,}.")
    if recorded.n_left:
        out.print(f"{recorded.n_left:,} records were corrected or accepted otherwise since, and were left as they are.")


@app.command()
def close(study: StudyArgument, incident: IncidentArgument, by: ByOption, on: OnOption = "") -> None:
    """Close an incident that was assessed, with every action done and what it held back decided on."""
    _record(study, IncidentClosed, by, on, incident_id=incident)
    out.print(f"{incident} is closed.")


def _record(study: str, kind: type[IncidentEvent], by: str, on: str, **fields: Any) -> Recorded:
    workspace = open_study(study)
    return record_step(workspace, _make(kind, occurred_on=find_past_day(workspace, on), requested_by=by, **fields))


def _make(kind: type[_Told], **fields: Any) -> _Told:
    """The event, or what is wrong with an option: the ledger takes codes, and no free text."""
    try:
        return kind(**fields)
    except ValidationError as error:
        names = ", ".join(str(fault["loc"][0]).replace("_", " ") for fault in error.errors(include_url=False))
        raise typer.BadParameter(
            f"{names}: the ledger holds no free text. Give a code of letters, digits, spaces and signs such as . _ - / "
            "that begins with a letter or a digit."
        ) from None
