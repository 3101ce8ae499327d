"""`summative consent`: consent that sites hold, what does not agree with the returns, and erasing what was given."""

from __future__ import annotations

from typing import Annotated, Literal

import pandas as pd
import typer
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from desk.options import (
    ByOption,
    StudyArgument,
    err,
    find_day,
    find_past_day,
    find_program,
    find_site_id,
    open_study,
    out,
    print_table,
)  # fmt: skip
from study.calendar import format_day
from study.consent import FAULTS, FINDINGS, derive_consents, reconcile_consent
from study.erasure import derive_erased, derive_replacements
from study.events import ConsentCopyChecked
from study.participation import derive_stops
from tasks.consent import LATEST, record_copy_check
from tasks.consent_page import COPY_WORDS, ROUTE_WORDS, STOP_WORDS
from tasks.corrections import CorrectionRefused, take_back_leaving
from tasks.erasure import Erasure, erase_data, find_unfinished, list_recalled, plan_erasure
from tasks.pages import format_counted, format_list
from tasks.workspace import Workspace

consent_app = typer.Typer(
    help="Consent that sites hold: the forms, what is wrong, who stopped what, and erasing what was given.",
    no_args_is_help=True,
)

SiteOption = Annotated[str, typer.Option("--site", help="Only this site.")]
ParticipantOption = Annotated[str, typer.Option("--participant", help="The participant's identifier.")]
RoleOption = Annotated[
    str, typer.Option("--role", help="Whose word it is, as a role such as site_researcher; no name.")
]


@consent_app.command()
def show(
    study: StudyArgument,
    site: SiteOption = "",
    everybody: Annotated[bool, typer.Option("--all", help="Also those with whom nothing is wrong.")] = False,
) -> None:
    """Each consent with something to see to: what is wrong, where the form is, what has stopped."""
    workspace = open_study(study)
    site = find_site_id(workspace, site)
    today = find_day(workspace)
    events = workspace.read_events()
    consents = derive_consents(workspace.study, events, today)
    stops = derive_stops(workspace.study, events, today)
    if site:
        consents = consents[consents["site_id"] == site]
    is_late = ~consents["copy"].isin(["held", "seen"]) & (consents["copy_due_on"] < pd.Timestamp(today))
    consents = consents.assign(is_late=is_late)
    chosen = consents if everybody else consents[(consents["faults"] != "") | is_late]
    stopped = {
        str(person): ", ".join(STOP_WORDS[thing] for thing in own["stops"])
        for person, own in stops.groupby("participant_id")
    }
    table = Table("Participant", "Site", "Signed", "Version", "Route", "Form", "Good until", "What is wrong", "Stopped")
    for row in chosen.to_dict("records"):
        overdue = f", overdue since {_show(row['copy_due_on'])}" if row["is_late"] else ""
        faults = [FAULTS[code].words for code in row["faults"].split(";") if code]
        table.add_row(
            row["participant_id"], row["site_id"], _show(row["signed_on"]), row["form_version"],
            ROUTE_WORDS[row["route"]],
            COPY_WORDS[row["copy"]] + overdue,
            _show(row["reconsent_due_on"]), "; ".join(faults), stopped.get(row["participant_id"], ""),
        )  # fmt: skip
    print_table(table)
    out.print(f"{len(chosen):,} of {format_counted(len(consents), 'consent')}.")


@consent_app.command()
def copy(
    study: StudyArgument,
    participant: ParticipantOption,
    role: RoleOption,
    by: ByOption,
    version: Annotated[str, typer.Option("--version", help="Of the form; left out, the one signed last.")] = "",
    signed: Annotated[str, typer.Option("--signed", help="The form of this day; left out, the one signed last.")] = "",
    seen: Annotated[bool, typer.Option("--seen", help="The form was looked at, and is in order.")] = False,
    missing: Annotated[bool, typer.Option("--missing", help="It was looked for and not found.")] = False,
    faulty: Annotated[bool, typer.Option("--faulty", help="It was found, and something is wrong with it.")] = False,
    on: Annotated[str, typer.Option("--on", help="The day of looking, such as 2017-05-02; left out, today.")] = "",
) -> None:
    """Record what was found of a signed form at its site."""
    findings = [name for name, is_so in (("seen", seen), ("missing", missing), ("faulty", faulty)) if is_so]
    if len(findings) != 1:
        raise typer.BadParameter("say what was found: one of --seen, --missing and --faulty.")
    workspace = open_study(study)
    try:
        told = ConsentCopyChecked.model_validate(
            {
                "occurred_on": find_past_day(workspace, on),
                "requested_by": by,
                "site_id": "any",
                "participant_id": participant,
                "form_version": version or LATEST,
                "finding": findings[0],
                "role": role,
            }
        )
    except ValidationError as error:
        raise typer.BadParameter(_name_faults(error)) from None
    if record_copy_check(workspace, told, find_past_day(workspace, signed) if signed else None) == "same":
        out.print("This was recorded before; nothing was changed.")
    else:
        out.print(f"Recorded: the form of {participant} was {_FOUND[findings[0]]}.")


_FOUND = {"seen": "seen", "missing": "looked for and not found", "faulty": "found with a fault"}


@consent_app.command()
def reconcile(study: StudyArgument, site: SiteOption = "") -> None:
    """Hold consents against returns: records that no consent covers, and consents without a return."""
    workspace = open_study(study)
    site = find_site_id(workspace, site)
    found = reconcile_consent(workspace.study, workspace.read_events(), find_day(workspace))
    if site:
        found = found[found["site_id"] == site]
    waiting = found["finding"] == "no_return"
    table = Table("Site", "Participant", "What", "Not agreed to", "Wave", "Respondent", "First on", "Records")
    for row in found[~waiting].to_dict("records"):
        table.add_row(
            row["site_id"], row["participant_id"], FINDINGS[row["finding"]].words, row["scope"].replace(";", ", "),
            row["wave"], row["respondent"], _show(row["first_on"]), f"{row['n_records']:,}",
        )  # fmt: skip
    if len(table.rows):
        print_table(table)
        for code in dict.fromkeys(found.loc[~waiting, "finding"]):
            out.print(f"{FINDINGS[code].words}: {FINDINGS[code].to_do}.", soft_wrap=True)
    else:
        out.print("Every record that came in is covered by a consent that was in force on its day.")
    out.print(f"{format_counted(int(waiting.sum()), 'person', 'people')} consented and sent nothing yet.")


@consent_app.command(name="take-back-leaving")
def take_back(
    study: StudyArgument,
    participant: Annotated[str, typer.Argument(help="The participant's identifier.")],
    scope: Annotated[str, typer.Argument(help="What it is on record that they left, such as study.")],
    by: ByOption,
    reason: Annotated[
        Literal["entered_in_error", "wrong_participant", "wrong_date"], typer.Option(help="Why it is wrong.")
    ] = "entered_in_error",
) -> None:
    """Take back that somebody left, or died, where that was told by mistake. What it had stopped goes on."""
    workspace = open_study(study)
    try:
        day = take_back_leaving(workspace, participant, scope, reason, by)
    except CorrectionRefused as refused:
        raise typer.BadParameter(str(refused)) from None
    out.print(
        f"Taken back: {participant} left {scope} on {format_day(day)}. Ask the site to take the row out of its sheet: "
        "a sheet that tells of it again records it again.",
        soft_wrap=True,
    )


@consent_app.command()
def erase(
    study: StudyArgument,
    participant: ParticipantOption,
    role: Annotated[str, typer.Option("--role", help="Who decided, as a role such as principal_investigator.")],
    reference: Annotated[str, typer.Option("--reference", help="The reference of the decision.")],
    by: ByOption,
    beyond_limit: Annotated[
        bool, typer.Option("--beyond-limit", help="Also what was given before the limit that was agreed.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; left out, it is only shown what would be done.")] = False,
) -> None:
    """Erase what a participant gave. It cannot be undone; without --yes nothing is changed."""
    workspace = open_study(study)
    if not yes:
        planned = plan_erasure(workspace, participant, is_all=beyond_limit)
        _tell(workspace, planned, "would be")
        out.print(f"Nothing was changed. To do it: the same with --yes ({find_program()} consent erase {study} ...).")
        return
    try:
        done = erase_data(workspace, participant, role, reference, by, is_all=beyond_limit)
    except ValidationError as error:
        raise typer.BadParameter(_name_faults(error)) from None
    _tell(workspace, done, "now")
    if not (done.answers or done.workbooks):
        out.print("No file held anything of it, so nothing was deleted. The decision is on record.")
        return
    out.print("Erased. The ledger keeps the states of the participant and says what was erased and why.")


def _tell(workspace: Workspace, erasure: Erasure, word: str) -> None:
    extent = erasure.extent
    stops = derive_stops(workspace.study, workspace.read_events(), find_day(workspace))
    if not (stops["participant_id"] == extent.participant_id).any():
        out.print(f"[yellow]·[/yellow] {escape(extent.participant_id)} has not left the study: is it the right one?")
    what = "everything" if extent.given_from is None else f"what was given from {format_day(extent.given_from)} on"
    lines = [
        f"{extent.participant_id} ({extent.site_id}): {what}, {format_counted(extent.n_records, 'record')}. The limit "
        f"counts from {format_day(extent.withdrawn_on)}.",
        f"Files of answers {word} written again without them, or deleted: {len(erasure.answers):,}. Workbooks of the "
        f"site {word} deleted: {len(erasure.workbooks):,}.",
    ]
    if extent.n_kept:
        lines.append(
            f"{format_counted(extent.n_kept, 'record')} given before that stay, by what was agreed. --beyond-limit "
            "takes them too."
        )
    if erasure.unread:
        short = format_list(sha256[:12] for sha256 in erasure.unread)
        lines.append(
            f"{format_counted(len(erasure.unread), 'file')} of the site cannot be read, so somebody must look into "
            f"them: {short}."
        )
    if erasure.releases:
        lines.append(
            f"These releases hold answers of the participant and stay as they are; have their copies called back: "
            f"{format_list(erasure.releases)}."
        )
    for line in lines:
        out.print(escape(line), soft_wrap=True)


def tell_of_erasures(workspace: Workspace) -> bool:
    """Say what was erased by decision and what can no longer be rebuilt; nothing where nothing was. False where a file
    is still there that the ledger says was erased."""
    events = workspace.read_events()
    erased = derive_replacements(events)
    if not erased and derive_erased(events).empty:
        return True
    n_replaced = sum(bool(replaced_by) for replaced_by in erased.values())
    out.print(
        f"{format_counted(len(erased), 'file')} erased by decision; what others need of {n_replaced:,} of them is in "
        "the files that took their place.",
        soft_wrap=True,
    )
    for release, place in list_recalled(workspace, events).items():
        out.print(
            f"Release {release} ({place}) holds answers that were erased since. It can't be rebuilt as it is; have its "
            "copies called back.",
            soft_wrap=True,
        )
    unfinished = find_unfinished(workspace, events)
    if unfinished:
        short = format_list(sha256[:12] for sha256 in unfinished)
        err.print(
            f"[red]✗[/red] {format_counted(len(unfinished), 'file')} ({short}) should be gone and still there. The "
            "next round deletes it, or the same `summative consent erase` again.",
            soft_wrap=True,
        )
    return not unfinished


def _name_faults(error: ValidationError) -> str:
    names = ", ".join(str(fault["loc"][0]).replace("_", " ") for fault in error.errors(include_url=False))
    return (
        f"{names}: the ledger holds no free text. Give a code of letters, digits, spaces and signs like . _ - / that "
        "begins with a letter or a digit."
    )


def _show(day: object) -> str:
    return f"{day:%Y-%m-%d}" if isinstance(day, pd.Timestamp) else ""
