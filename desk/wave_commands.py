"""`summative waves`: what is due, out and in, what is held and why, and the sending of packs to sites."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.markup import escape
from rich.table import Table

from desk.options import (
    ByOption,
    StudyArgument,
    err,
    find_day,
    find_program,
    find_site_id,
    open_study,
    out,
    parse_day,
    print_table,
    refuse_sending_from_rehearsal,
    write_file,
)  # fmt: skip
from study.calendar import london_day
from study.holds import HOLDS, list_held
from study.instruments import find_suggestion
from study.progress import derive_matrix
from study.releasing import WORDS, ReleasePlan, find_open_claims
from study.waves import derive_moves
from tasks.holds import LiftRefused, lift_hold, write_held_workbook
from tasks.ledger import SendingBusy
from tasks.pages import format_counted
from tasks.releasing import (
    ReleaseRefused,
    draw_up_plan,
    find_sites_to_serve,
    refuse_another_day,
    refuse_another_plan,
    release_packs,
    send_blank_pack,
    write_release_plan,
)
from tasks.workspace import Workspace, read_study_of

waves_app = typer.Typer(
    help="Waves: what is due, out and in at each site; what is held, and why; packs to the sites.",
    no_args_is_help=True,
)

SiteOption = Annotated[str, typer.Option("--site", help="Only this site: its id, name or code.")]
AsOfOption = Annotated[str, typer.Option("--as-of", help="At the end of this day; left out, today.")]
BySenderOption = Annotated[str, typer.Option("--by", help="Your name, to send: the ledger keeps who asked for what.")]
SendOption = Annotated[bool, typer.Option("--send", help="Send it. Without this, only what would be sent is shown.")]


@contextmanager
def _telling_refusals() -> Iterator[None]:
    try:
        yield
    except (ReleaseRefused, LiftRefused, SendingBusy) as refused:
        for text in getattr(refused, "faults", None) or [str(refused)]:
            err.print(f"[red]✗[/red] {escape(text)}", soft_wrap=True)
        raise typer.Exit(1) from None


def _find_sites(workspace: Workspace, text: str) -> list[str]:
    """ "luton, BAR" to ids, in the study's order."""
    named = {find_site_id(workspace, site.strip()) for site in text.split(",") if site.strip()}
    return [site.site_id for site in workspace.study.sites if site.site_id in named]


def _find_waves(workspace: Workspace, text: str) -> list[str]:
    """Waves by id, label or alias, parted by commas."""
    found = []
    for word in (part.strip() for part in text.split(",") if part.strip()):
        wave = workspace.study.find_wave(word)
        if wave is None:
            known = [entry.id for entry in workspace.study.waves]
            hint = find_suggestion(word.casefold(), known)
            raise typer.BadParameter(
                f'{workspace.study.study_id} has no wave "{word}".{hint} Its waves: {", ".join(known)}.'
            )
        found.append(wave.id)
    return found


def _name_site(workspace: Workspace, site_id: str) -> str:
    site = workspace.study.find_site(site_id)
    return site.name if site else site_id


def _show(day: Any) -> str:
    return "" if day is None or pd.isna(day) else f"{day:%Y-%m-%d}"


def _require(value: str, option: str, why: str) -> None:
    if not value.strip():
        raise typer.BadParameter(f"{option} is missing: {why}.")


# To look at ---------------------------------------------------------------------------------------------------------


@waves_app.command(name="show")
def show(study: StudyArgument, site: SiteOption = "", as_of: AsOfOption = "") -> None:
    """Site by wave: how many questionnaires are expected, out, in, late, missed and held."""
    workspace = open_study(study)
    site_id, day = find_site_id(workspace, site), find_day(workspace, as_of)
    events = workspace.read_events()
    matrix = derive_matrix(workspace.study, events, day)
    matrix = matrix[matrix[["n_expected", "n_stopped", "n_truncated"]].any(axis="columns")]
    if site_id:
        matrix = matrix[matrix["site_id"] == site_id]
    counts = {
        "n_expected": "Expected", "n_planned": "To come", "n_held": "Held", "n_out": "Out", "n_late": "Of these late",
        "n_in": "In", "n_partial": "In part", "n_missing": "Missing", "n_stopped": "Left before",
        "n_truncated": "After the end",
    }  # fmt: skip
    table = Table("Site", "Wave", title=None)
    for label in counts.values():
        table.add_column(label, justify="right")
    for row in matrix.to_dict("records"):
        wave = workspace.study.find_wave(row["wave"])
        table.add_row(
            _name_site(workspace, row["site_id"]), wave.label if wave else row["wave"],
            *(f"{row[name]:,}" if row[name] else "" for name in counts),
        )  # fmt: skip
    if len(matrix):
        table.add_section()
        table.add_row("All", "", *(f"{int(matrix[name].sum()):,}" for name in counts))
    out.print(f"{workspace.study.title}, {day}.")
    print_table(table)
    if not len(matrix):
        out.print("Nothing is expected there yet: nobody has joined.")
    _tell_of_claims(workspace, find_open_claims(events, site_id))
    if n_held := int(matrix["n_held"].sum()):
        out.print(
            f"{n_held:,} {'is' if n_held == 1 else 'are'} held. Why: {find_program()} waves held {study}",
            soft_wrap=True,
        )


def _tell_of_claims(workspace: Workspace, claims: pd.DataFrame) -> None:
    for row in claims.to_dict("records"):
        out.print(
            f"[bold]·[/bold] {escape(row['pack_id'])} for {escape(_name_site(workspace, row['site_id']))} was begun on "
            f"{_show(row['occurred_on'])} and does not lie in the outbox as far as is known. The next run finishes it, "
            "or plans it anew.",
            soft_wrap=True,
        )


@waves_app.command(name="held")
def held(
    study: StudyArgument,
    site: SiteOption = "",
    as_of: AsOfOption = "",
    to: Annotated[Path | None, typer.Option("--to", help="Write the list to a file as well: .xlsx or .csv.")] = None,
) -> None:
    """What would go out and is held, with the reason, what ends it and who can; what is mended soonest comes first."""
    workspace = open_study(study)
    site_id, day = find_site_id(workspace, site), find_day(workspace, as_of)
    if to is not None and to.suffix.lower() not in (".xlsx", ".csv"):
        raise typer.BadParameter(f"{to}: the list is written as .xlsx or .csv. Give the file one of these endings.")
    rows = list_held(workspace.study, workspace.read_events(), day)
    if site_id:
        rows = rows[rows["site_id"] == site_id]
    table = Table("Site", "Participant", "Wave", "Respondent", "Why", "What to do", "By", "Since", "Closes", "Hold")
    for row in rows.head(_ROWS_SHOWN).to_dict("records"):
        table.add_row(
            row["site_id"], row["participant_id"], row["wave"], row["respondent"], escape(row["words"]),
            escape(row["to_do"]), row["by"].replace("_", " "), _show(row["since_on"]), _show(row["closes_on"]),
            row["hold"] + (" (may be lifted)" if row["is_liftable"] else ""),
        )  # fmt: skip
    print_table(table)
    n_rows = len(rows[["participant_id", "wave", "respondent"]].drop_duplicates())
    cut = f" The first {_ROWS_SHOWN} are shown; --to writes all of them." if len(rows) > _ROWS_SHOWN else ""
    if n_rows:
        held_words = f"{format_counted(n_rows, 'questionnaire')} {'is' if n_rows == 1 else 'are'} held on {day}"
        out.print(f"{held_words}, for {format_counted(len(rows), 'reason')}.{cut}", soft_wrap=True)
    else:
        out.print(f"Nothing is held on {day}.")
    if to is not None:
        write_file(
            to,
            write_held_workbook(workspace.study, rows, day)
            if to.suffix.lower() == ".xlsx"
            else rows.to_csv(index=False, date_format="%Y-%m-%d").encode(),
        )
        out.print(f"Written: {to}", soft_wrap=True, markup=False)


_ROWS_SHOWN = 100


@waves_app.command(name="moved")
def moved(
    study: StudyArgument,
    since: Annotated[str, typer.Option("--since", help="What moved after this day; left out, yesterday.")] = "",
    site: SiteOption = "",
    as_of: AsOfOption = "",
) -> None:
    """Which dates moved, from, to and why. What was sent already says so still."""
    workspace = open_study(study)
    site_id, day = find_site_id(workspace, site), find_day(workspace, as_of)
    begin = parse_day(since) or day - timedelta(days=1)
    moves = derive_moves(workspace.study, workspace.read_events(), day, begin, read_study_of(workspace, begin))
    if site_id:
        moves = moves[moves["site_id"] == site_id]
    table = Table("Site", "Participant", "Wave", "Respondent", "Date", "From", "To", "The pack said", "Why")
    for row in moves.to_dict("records"):
        table.add_row(
            row["site_id"], row["participant_id"], row["wave"], row["respondent"],
            row["date_column"].replace("_", " "), _show(row["moved_from"]), _show(row["moved_to"]) or "no date",
            _show(row["due_told_on"]), escape(row["why"]),
        )  # fmt: skip
    print_table(table)
    out.print(f"{format_counted(len(moves), 'date')} moved between {begin} and {day}.")


# To send ------------------------------------------------------------------------------------------------------------


@waves_app.command(name="release")
def release(
    study: StudyArgument,
    wave: Annotated[
        str, typer.Option("--wave", help="Which waves, parted by commas; left out, all that the study sends.")
    ] = "",
    site: Annotated[str, typer.Option("--site", help="Which sites, parted by commas; left out, all.")] = "",
    send: SendOption = False,
    expect: Annotated[int | None, typer.Option(min=0, help="To send: how many go, as the plan said.")] = None,
    by: BySenderOption = "",
    as_of: AsOfOption = "",
) -> None:
    """Show exactly what would go where, and what is held and why; with --send, send it.

    Without --send nothing leaves the house: a page and a workbook of the plan are written. To send, give the count that
    the plan told, and your name. If something was recorded meanwhile that changes the plan, nothing goes.
    """
    workspace = open_study(study)
    day = find_day(workspace, as_of)
    with _telling_refusals():
        if send:
            _require(by, "--by", "the ledger keeps who asked for a sending")
            if expect is None:
                raise typer.BadParameter(
                    "--expect is missing: give the count that the plan told, so that just it goes."
                )
            refuse_sending_from_rehearsal(workspace)
            refuse_another_day(workspace, day)
        plan = draw_up_plan(workspace, day, _find_waves(workspace, wave), _find_sites(workspace, site))
        if not send:
            _show_plan(workspace, plan, study, wave, site)
            return
        if expect is not None:
            refuse_another_plan(plan, expect)
        if not find_sites_to_serve(plan):
            out.print("Nothing is due to go there, so nothing was sent.")
            return
        released = release_packs(workspace, plan, by)
    for site_id, counts in released.counts.items():
        told = ", ".join(f"{n:,} {what}" for what, n in counts.items() if n) or "nothing to send any more"
        out.print(f"[green]Served[/green] {escape(_name_site(workspace, site_id))}: {told}.", soft_wrap=True)
    for failure in released.failures:
        err.print(f"[red]✗[/red] {escape(failure)}", soft_wrap=True)
    if released.failures:
        err.print(
            "The other sites were served. Nothing is sent twice: run this again, or wait for the daily round, and what "
            "was begun is finished.",
            soft_wrap=True,
        )
        raise typer.Exit(1)


def _show_plan(workspace: Workspace, plan: ReleasePlan, study: str, wave: str, site: str) -> None:
    table = Table("Site", "Wave")
    for label in ("Go", "By your word", "Held"):
        table.add_column(label, justify="right")
    by_word = plan.going[plan.going["word"] != ""].groupby(["site_id", "wave"]).size()
    for row in plan.count().to_dict("records"):
        wave_found = workspace.study.find_wave(row["wave"])
        n_by_word = int(by_word.get((row["site_id"], row["wave"]), 0))
        table.add_row(
            _name_site(workspace, row["site_id"]), wave_found.label if wave_found else row["wave"],
            *(f"{n:,}" if n else "" for n in (row["goes"], n_by_word, row["held"])),
        )  # fmt: skip
    out.print(f"What would be sent on {plan.as_of}. Nothing was sent.")
    print_table(table)
    for code, n in plan.going["word"].str.split(";").explode().value_counts().items():
        if code:
            out.print(f"[bold]·[/bold] {n:,} need your word, which --send gives. {WORDS[str(code)]}", soft_wrap=True)
    counts = plan.rows.loc[plan.rows["decision"] == "held", "holds"].str.split(";").explode().value_counts()
    for code, hold in HOLDS.items():
        if code in counts:
            out.print(
                f"[bold]·[/bold] Held, {counts[code]:,}: {escape(hold.words)}. {escape(hold.to_do)}.", soft_wrap=True
            )
    blocks = plan.blocks[plan.blocks["site_id"].isin(plan.sites_with_work)]
    if len(blocks):
        sites = ", ".join(_name_site(workspace, site_id) for site_id in blocks["site_id"])
        out.print(f"New identifiers go with it to {escape(sites)}.", soft_wrap=True)
    _tell_of_claims(workspace, find_open_claims(plan.events))
    out.print(f"The plan to read, and beside it as a workbook: {write_release_plan(workspace, plan)}", soft_wrap=True)
    if plan.n_going and plan.as_of != london_day(workspace.clock()):
        out.print(f"{plan.n_going:,} would go on that day. What goes out goes on its own day only.", soft_wrap=True)
    elif plan.n_going:
        asked = "".join(f" {option} {text}" for option, text in (("--wave", wave), ("--site", site)) if text)
        out.print(
            f"To send just this: {find_program()} waves release {study}{asked} --send --expect {plan.n_going} "
            '--by "Your Name"',
            soft_wrap=True,
        )
    else:
        out.print("Nothing would go.")


@waves_app.command(name="pack")
def pack(
    study: StudyArgument,
    site: Annotated[str, typer.Option("--site", help="The site: its id, name or code.")],
    blank: Annotated[bool, typer.Option("--blank", help="A pack without questionnaires.")] = False,
    send: SendOption = False,
    by: BySenderOption = "",
) -> None:
    """Send one site a pack without questionnaires: logs, open queries, and new identifiers where it needs them."""
    workspace = open_study(study)
    site_id, day = find_site_id(workspace, site), find_day(workspace)
    if not blank:
        raise typer.BadParameter(
            "only a blank pack is made by this: add --blank. One with questionnaires is sent by `waves release`."
        )
    _require(site_id, "--site", "a pack is for one site")
    plan = draw_up_plan(workspace, day, sites=[site_id])
    n_numbers = int(plan.blocks["n_numbers"].sum())
    told = f"{n_numbers:,} new identifiers" if n_numbers else "no new identifiers"
    told += f", {len(plan.queries):,} open queries"
    if not send:
        name = escape(_name_site(workspace, site_id))
        out.print(f"A blank pack for {name} would hold {told}. Nothing was sent.", soft_wrap=True)
        if not n_numbers:
            out.print("Enough identifiers are unused there, or nobody may be approached there today.", soft_wrap=True)
        command = f'{find_program()} waves pack {study} --site {site_id} --blank --send --by "Your Name"'
        out.print(f"To send it: {command}", soft_wrap=True)
        return
    _require(by, "--by", "the ledger keeps who asked for a sending")
    refuse_sending_from_rehearsal(workspace)
    with _telling_refusals():
        sent = send_blank_pack(workspace, site_id, day, by)
    n_sent = f"{sent.n_numbers:,} new identifiers" if sent.n_numbers else "no new identifiers"
    out.print(
        f"[green]Sent[/green] {escape(sent.pack_id)}: {n_sent}, {len(sent.queries):,} open queries.", soft_wrap=True
    )


@waves_app.command(name="lift")
def lift(
    study: StudyArgument,
    participant: Annotated[str, typer.Argument(help="The participant's identifier.")],
    wave: Annotated[str, typer.Option("--wave", help="The wave: its id or label.")],
    hold: Annotated[str, typer.Option("--hold", help="The hold, as `waves held` names it.")],
    role: Annotated[str, typer.Option("--role", help="Whose decision it is, as a role such as project_manager.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, as a short code such as accepted_by_committee.")],
    reference: Annotated[str, typer.Option("--reference", help="The reference of the decision: a letter, a minute.")],
    by: ByOption,
) -> None:
    """Lift one hold on one wave for one participant. Never for a death, a withdrawal or a missing consent."""
    workspace = open_study(study)
    waves = _find_waves(workspace, wave)
    _require(wave, "--wave", "a hold is lifted for one wave")
    with _telling_refusals():
        event = lift_hold(workspace, participant.strip(), waves[0], hold.strip(), role, reason, reference, by)
    out.print(
        f"[green]Lifted[/green]: {event.hold} no longer holds {event.participant_id} at {event.wave}, by decision "
        f"{escape(event.reference)}. Any other hold still does.",
        soft_wrap=True,
    )
