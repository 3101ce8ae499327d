"""`summative safeguarding`: alerts about answers that must not wait, who was told, and who has taken them over."""

from __future__ import annotations

from typing import Annotated, Any

import pandas as pd
import typer
from rich.table import Table

from desk.options import (
    ByOption,
    StudyArgument,
    find_day,
    find_past_day,
    find_site_id,
    is_rehearsed,
    open_study,
    out,
    print_table,
    refuse_sending_from_rehearsal,
)
from study.safeguarding import derive_alerts, find_about
from tasks.safeguarding import Way, acknowledge_alert, send_alerts
from tasks.workspace import Workspace

app = typer.Typer(
    help="Safeguarding alerts: answers of which a clinician is told on the day. What was answered is shown nowhere.",
    no_args_is_help=True,
)

AlertArgument = Annotated[str, typer.Argument(help="The alert's number, such as luton-S0001.")]


@app.command(name="list")
def list_alerts(
    study: StudyArgument,
    site: Annotated[str, typer.Option("--site", help="Only this site.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Acknowledged ones too.")] = False,
) -> None:
    """Alerts that nobody has acknowledged, oldest first: whose record it is, what it concerns, who was told when."""
    workspace = open_study(study)
    site = find_site_id(workspace, site)
    alerts = derive_alerts(workspace.study, workspace.read_events(), find_day(workspace))
    alerts = alerts[alerts["site_id"] == site] if site else alerts
    alerts = alerts if everything else alerts[alerts["state"] != "acknowledged"]
    table = Table(
        "Alert", "Site", "Identifier", "Wave", "Concerns", "Where", "Raised", "Told", "Escalated", "Taken over"
    )
    rows: list[Any] = list(alerts.itertuples(index=False))
    for row in rows:
        taken = "" if pd.isna(row.acknowledged_on) else f"{_show(row.acknowledged_on)} {row.role}".replace("_", " ")
        about = find_about(workspace.study, workspace.instruments, row.instrument, row.trigger)
        table.add_row(
            row.alert_id, row.site_id, row.participant_id or "not known", row.wave or "not known", about,
            f"{row.return_id or 'not known'}, {row.source_sheet} row {row.source_row}", _show(row.raised_on),
            _show(row.told_on), _show(row.escalated_on), taken,
        )  # fmt: skip
    print_table(table)
    out.print(f"{len(alerts):,} safeguarding alerts.")


def _show(day: Any) -> str:
    return "" if pd.isna(day) else f"{day:%Y-%m-%d}"


@app.command()
def acknowledge(
    study: StudyArgument,
    alert: AlertArgument,
    way: Annotated[Way, typer.Argument(help="How they said so.")],
    by: ByOption,
    role: Annotated[str, typer.Option("--role", help="Who has taken it over, as a role; no name.")],
    on: Annotated[str, typer.Option("--on", help="When they said so, such as 2017-05-02; left out, today.")] = "",
) -> None:
    """Record that somebody has taken an alert over. Nobody else is told of it from then on."""
    workspace = open_study(study)
    if acknowledge_alert(workspace, alert, role, way, by, on=find_past_day(workspace, on)):
        out.print(f"{alert} is taken over by the {role.replace('_', ' ')}.")
    else:
        out.print(f"{alert} was acknowledged before; nothing was changed.")


@app.command()
def send(study: StudyArgument, by: ByOption) -> None:
    """Tell of every alert that is due now, without waiting for the next round. Nobody is told twice."""
    workspace = open_study(study)
    refuse_sending_from_rehearsal(workspace)
    counts = send_alerts(workspace, by)
    out.print(f"Letters: {counts['alerts']:,}. Alerts told: {counts['told']:,}, escalated: {counts['escalated']:,}.")


def send_after_receiving(workspace: Workspace, by: str) -> None:
    """What a file that was received by a command has raised goes out at once; from a rehearsal nothing does."""
    if is_rehearsed(workspace):
        return
    counts = send_alerts(workspace, by)
    if counts["alerts"]:
        out.print(f"Safeguarding alerts told: {counts['told']:,}, escalated: {counts['escalated']:,}.")
