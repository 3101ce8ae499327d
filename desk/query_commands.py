"""`summative queries`, `close-query`, `reopen-query` and `correct-answer`: what sites were asked about their data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from desk.options import ByOption, StudyArgument, find_site_id, open_study, out, print_table
from study.calendar import london_day
from study.events import CorrectionReason
from study.queries import CLOSINGS, WITH_STUDY, find_open_queries
from study.returns import RecordKey
from study.state import derive_queries
from tasks.corrections import Correction, CorrectionRefused, correct_answer
from tasks.pages import format_counted
from tasks.queries import QueryRefused, close_query, derive_query_list, reopen_query, write_query_list

query_app = typer.Typer()

QueryArgument = Annotated[str, typer.Argument(help="The query's number, such as 701-0012.")]
CloseReason = Literal["confirmed", "withdrawn"]


@query_app.command()
def queries(
    study: StudyArgument,
    site: Annotated[str, typer.Option(help="Only this site.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Closed ones too.")] = False,
    answered: Annotated[bool, typer.Option("--answered", help="Only those that a site has answered.")] = False,
    to: Annotated[Path | None, typer.Option("--to", help="Write the list to a file as well: .csv.")] = None,
) -> None:
    """Questions to sites about their data: open ones, oldest first, with their age and who has to act."""
    workspace = open_study(study)
    site = find_site_id(workspace, site)
    if to is not None and to.suffix.lower() != ".csv":
        raise typer.BadParameter(f"{to}: the list is written as .csv. Give the file that ending.")
    found = derive_queries(workspace.read_events())
    found = found[found["site_id"] == site] if site else found
    found = found.sort_values(["raised_on", "query_id"]) if everything else find_open_queries(found)
    found = found[found["stage"] == WITH_STUDY] if answered else found
    listed = derive_query_list(found, london_day(workspace.clock()), workspace.layout)
    table = Table("Query", "Site", "Raised", "Days", "Participant", "Where", "What is wrong", "State")
    for row in listed.to_dict("records"):
        place = [
            row["return_id"], row["sheet"], f"row {row['row']}" if row["row"] else "",
            f"(line {row['export_line']:,} of the export)" if row["export_line"] else "", row["about"],
        ]  # fmt: skip
        table.add_row(
            row["query_id"], row["site_id"], f"{row['raised_on']:%Y-%m-%d}", f"{row['age_days']:,}",
            row["participant_id"], " ".join(filter(None, place)), row["wrong"], row["state"],
        )  # fmt: skip
    print_table(table)
    out.print(f"{format_counted(len(found), 'query', 'queries')}.")
    if to is not None:
        to.write_bytes(write_query_list(listed))
        out.print(f"Written: {to}", soft_wrap=True)


@query_app.command(name="close-query")
def close(
    study: StudyArgument,
    query: QueryArgument,
    by: ByOption,
    reason: Annotated[
        CloseReason, typer.Option(help="confirmed: the site says that it is right; withdrawn: it need not be answered.")
    ],
) -> None:
    """Close a query that no return will close. The same value is not asked about again; another one is.

    No data are changed. What stopped a row goes on stopping it: the row stays out of every dataset, until the site
    sends it mended.
    """
    try:
        closed = close_query(open_study(study), query, reason, by)
    except QueryRefused as refused:
        raise typer.BadParameter(str(refused)) from None
    if not closed.is_new:
        out.print(f"{query} was closed before; nothing was changed.")
        return
    out.print(f"{query} is closed: {CLOSINGS[reason]}. This value is not asked about again; another one is.")
    out.print(closed.effect, soft_wrap=True)


@query_app.command(name="reopen-query")
def reopen(study: StudyArgument, query: QueryArgument, by: ByOption) -> None:
    """Put a query to its site again: one that was closed by mistake, or whose answer does not do."""
    try:
        is_new = reopen_query(open_study(study), query, by)
    except QueryRefused as refused:
        raise typer.BadParameter(str(refused)) from None
    out.print(f"{query} waits for its site again." if is_new else f"{query} waits for its site already.")


@query_app.command(name="correct-answer")
def correct(
    study: StudyArgument,
    participant: Annotated[str, typer.Argument(help="The participant's identifier.")],
    respondent: Annotated[str, typer.Argument(help="Who answered, such as self.")],
    wave: Annotated[str, typer.Argument(help="The wave, such as baseline.")],
    instrument: Annotated[str, typer.Argument(help="The questionnaire, such as eq5d5l.")],
    item: Annotated[str, typer.Argument(help="The item, such as eq5d5l_ua.")],
    by: ByOption,
    was: Annotated[str, typer.Option(help='What stands there now, as in a workbook; "" for blank.')],
    now: Annotated[str, typer.Option(help='What should stand there; "" for blank.')],
    reason: Annotated[
        CorrectionReason, typer.Option(help="The site says so; it was typed wrongly; or it is evident from the rest.")
    ],
    role: Annotated[str, typer.Option(help="Whose word it is, as a role; no name.")] = "",
    reference: Annotated[str, typer.Option(help="A reference of your own papers, if there is one.")] = "",
) -> None:
    """Correct one accepted answer on a site's word. Refused where something else stands there by now."""
    asked = Correction(RecordKey(participant, respondent, wave, instrument), item, was, now, reason, role, reference)
    try:
        done = correct_answer(open_study(study), asked, by)
    except CorrectionRefused as refused:
        raise typer.BadParameter(str(refused)) from None
    out.print(f"Corrected: version {done.version} of the record.")
    if done.mended:
        out.print(f"Mended by it: {', '.join(done.mended)}.")
