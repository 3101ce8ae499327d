"""`summative release`: whether a frozen dataset is what it was, what differs between two, waivers, and what may leave
the team: external editions, reports for a committee."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast, get_args

import typer
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from desk.options import (
    ByOption,
    StudyArgument,
    err,
    find_day,
    open_study,
    out,
    parse_day,
    print_table,
    write_file,
)
from study.masking import UNMASKING_REASONS
from study.release_diff import CAUSES, CHANGES
from study.release_rules import EVERYTHING, OBSTACLES, REASONS, Obstacle
from tasks.pages import format_counted

release_app = typer.Typer(
    help="Frozen datasets: verify one, compare two, record why one may be released all the same; external editions, "
    "reports for a monitoring committee.",
    no_args_is_help=True,
)


@release_app.command()
def verify(
    study: StudyArgument,
    release: Annotated[str, typer.Argument(help="The release, such as 2014-06-30; left out, the newest.")] = "",
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build it again from the ledger, and compare.")] = False,
) -> None:
    """Hold a release against its manifest, the ledger and the files that it rests on.

    Ends with 0 if all is as it was, with 1 if anything is not, and with 3 if it was built again with the same content
    in other bytes.
    """
    from tasks.release_checks import verify_release

    found = verify_release(open_study(study), release, is_rebuilt=rebuild)
    for text in found.faults:
        err.print(f"[red]✗[/red] {escape(text)}", soft_wrap=True)
    for text in found.notes:
        out.print(f"[yellow]·[/yellow] {escape(text)}", soft_wrap=True)
    if found.other_bytes:
        out.print(
            f"Built again: every table holds the same. Other bytes, and nothing else: {', '.join(found.other_bytes)}.",
            soft_wrap=True,
        )
    if found.faults:
        out.print(f"{found.release} is not as it was: {format_counted(len(found.faults), 'fault')}.")
    else:
        again = " Built again, it is the same byte for byte." if found.was_rebuilt and not found.other_bytes else ""
        out.print(
            f"[green]In order[/green]: {found.release}, {format_counted(found.n_files, 'file')} as the manifest has "
            f"them, {format_counted(found.n_sources, 'file')} that it rests on, and the ledger up to row "
            f"{found.head.seq:,}.{again}",
            soft_wrap=True,
        )
    raise typer.Exit(found.exit_code)


@release_app.command()
def diff(
    study: StudyArgument,
    before: Annotated[str, typer.Argument(help="A release, such as 2014-06-30.")],
    after: Annotated[str, typer.Argument(help="Another, such as 2014-12-31.")],
) -> None:
    """Compare two releases: rows and cells added, changed and gone, by table and cause. Writes a page, and a CSV file
    with every row and cell; no answers are shown here."""
    from tasks.release_checks import diff_releases

    workspace = open_study(study)
    found = diff_releases(workspace, before, after)
    table = Table("Table", "Cause", *(words.capitalize() for words in CHANGES.values()))
    for row in found.counts.to_dict("records"):
        table.add_row(row["table"], CAUSES[row["cause"]], *(f"{row[change]:,}" for change in CHANGES))
    print_table(table)
    if found.changes.empty:
        out.print(f"{found.before} and {found.after} hold the same.")
    for key in found.keys:
        out.print(f"  {workspace.area.place}/{key}", soft_wrap=True, markup=False)


@release_app.command()
def waive(
    study: StudyArgument,
    what: Annotated[str, typer.Argument(help=f"What stands in the way: {', '.join(OBSTACLES)}.")],
    subject: Annotated[
        str,
        typer.Argument(help=f'Which: a site, a query or "{EVERYTHING}"; an approval; a column. As the refusal says.'),
    ],
    reason: Annotated[str, typer.Option("--reason", help=f"Why: {', '.join(REASONS)}.")],
    role: Annotated[str, typer.Option("--role", help="Who decided, as a role such as data_manager; no name.")],
    by: ByOption,
    until: Annotated[str, typer.Option("--until", help="For datasets as of days up to this; left out, today.")] = "",
    reference: Annotated[str, typer.Option("--reference", help="Where the decision is written down.")] = "",
) -> None:
    """Record that a dataset may be released in spite of open hard queries, a lapsed approval, or a column that looks as
    if it told who somebody is. It covers what stands in the way now, and nothing that comes later."""
    from tasks.release_checks import waive_hindrances

    if what not in get_args(Obstacle):
        raise typer.BadParameter(f'"{what}" cannot be waived. What can: {", ".join(OBSTACLES)}.')
    if reason not in REASONS:
        raise typer.BadParameter(f'"{reason}" is no reason. Reasons: {", ".join(REASONS)}.')
    workspace = open_study(study)
    day = parse_day(until) or find_day(workspace)
    try:
        n = waive_hindrances(
            workspace, cast("Obstacle", what), subject, until=day, reason=reason, role=role, requested_by=by,
            today=find_day(workspace), reference=reference,
        )  # fmt: skip
    except ValidationError as error:
        names = sorted({str(fault["loc"][0]).replace("requested_by", "by") for fault in error.errors()})
        raise typer.BadParameter(f"not understood: {', '.join(names)}. Give codes: letters, digits, - and _.") from None
    out.print(
        f"Recorded: {OBSTACLES[cast('Obstacle', what)]}, {n:,} of them, for datasets as of days up to {day}: "
        f"{REASONS[reason]}.",
        soft_wrap=True,
    )


# What leaves the team ------------------------------------------------------------------------------------------------


@release_app.command()
def external(
    study: StudyArgument,
    release: Annotated[str, typer.Argument(help="The release, such as 2014-06-30; left out, the newest.")] = "",
) -> None:
    """Write the external edition of a release, which may leave the team: flow, questionnaires and why they are missing,
    small numbers hidden, all others rounded, protected together with the external editions that are out already."""
    from tasks.editions import publish_external

    edition = publish_external(open_study(study), release)
    before = " It was there before, and is unchanged." if edition.answer == "same" else ""
    out.print(f"External edition {edition.name}: {edition.location}/{before}", soft_wrap=True, markup=False)
    against = f", beside {', '.join(edition.protected_against)}" if edition.protected_against else ""
    out.print(
        f"{edition.n_hidden:,} of {edition.n_counts:,} numbers are hidden, so that none can be told from the others"
        f"{against}. Send that folder and nothing beside it.",
        soft_wrap=True,
    )


@release_app.command()
def committee(
    study: StudyArgument,
    release: Annotated[str, typer.Argument(help="The release, blinded or not, such as 2014-06-30-blinded.")],
    part: Annotated[str, typer.Option("--part", help="open: all arms together; closed: by masked letter.")],
) -> None:
    """Write a report for the monitoring committee: the open one names no arm; the closed one has letters for the arms,
    and what they stand for stays sealed."""
    from tasks.editions import Part, publish_committee_report

    if part not in get_args(Part):
        raise typer.BadParameter(f'"{part}" is no part of a report. Parts: {", ".join(get_args(Part))}.')
    edition = publish_committee_report(open_study(study), release, cast("Part", part))
    before = " It was there before, and is unchanged." if edition.answer == "same" else ""
    out.print(f"Report {edition.name}: {edition.location}/{before}", soft_wrap=True, markup=False)
    if part == "closed":
        out.print("Confidential: for the members of the committee only.")
        source = edition.name.removesuffix("-committee-closed")
        if source in edition.matched_by:
            out.print(
                f"[yellow]Warning:[/yellow] made from {source}, which has the arms. The exact counts of this report "
                "can be matched with the flow of that release, which tells the letters. A blinded release is the safe "
                f"source: summative freeze {study} --blinded.",
                soft_wrap=True,
            )
        elif edition.matched_by:
            out.print(
                f"Releases with the arms are there as well: {', '.join(edition.matched_by)}. Keep them from whoever "
                "reads this report: equal counts would tell the letters.",
                soft_wrap=True,
            )


@release_app.command()
def unmask(
    study: StudyArgument,
    release: Annotated[str, typer.Argument(help="The blinded release, such as 2014-06-30-blinded.")],
    reason: Annotated[str, typer.Option("--reason", help=f"Why: {', '.join(UNMASKING_REASONS)}.")],
    role: Annotated[
        str, typer.Option("--role", help="Who decided, as a role such as unblinded_statistician; no name.")
    ],
    by: ByOption,
    reference: Annotated[str, typer.Option("--reference", help="Where the decision is written down.")] = "",
    to: Annotated[Path | None, typer.Option("--to", help="Write it to this file; left out, it is shown here.")] = None,
) -> None:
    """Open what the letters of a blinded release stand for, for a named role. That it was opened, by whom and why, is
    recorded first; what was seen is in no log."""
    from tasks.editions import open_letters

    if reason not in UNMASKING_REASONS:
        raise typer.BadParameter(f'"{reason}" is no reason. Reasons: {", ".join(UNMASKING_REASONS)}.')
    if to is not None and to.exists():
        raise typer.BadParameter(f"{to} is there already. Name another file.")
    try:
        letters = open_letters(
            open_study(study), release, reason=reason, role=role, requested_by=by, reference=reference
        )
    except ValidationError as error:
        names = sorted({str(fault["loc"][0]).replace("requested_by", "by") for fault in error.errors()})
        raise typer.BadParameter(f"not understood: {', '.join(names)}. Give codes: letters, digits, - and _.") from None
    if to is not None:
        write_file(to, "".join(f"{letter},{label}\n" for letter, label in letters.items()).encode())
        out.print(f"Recorded, and written to {to}. Delete it when it has been read.", soft_wrap=True, markup=False)
        return
    out.print("Recorded.")
    for letter, label in letters.items():
        out.print(f"  {letter}  {label}", markup=False)
