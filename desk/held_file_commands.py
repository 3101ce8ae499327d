"""`summative held-files`: files that were not read because they may tell who a person is, and what becomes of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from desk.options import ByOption, StudyArgument, find_day, find_site_id, open_study, out, print_table
from desk.safeguarding_commands import send_after_receiving
from study.events import is_code
from study.held_files import derive_held_files, describe_finding, describe_kinds
from tasks.quarantine import erase_held_file, find_held_file, make_key, record_decision
from tasks.returns import receive_released_file

app = typer.Typer(
    help="Files that were held because something in them may tell who a person is: look, release, erase.",
    no_args_is_help=True,
)

HeldArgument = Annotated[str, typer.Argument(help="The held file's number, such as luton-F0001.")]
RoleOption = Annotated[str, typer.Option("--role", help="Whose word it is, as a role such as data_manager; no name.")]
ReferenceOption = Annotated[str, typer.Option("--reference", help="A reference of your own papers, if there is one.")]


@app.command(name="list")
def list_held_files(
    study: StudyArgument,
    site: Annotated[str, typer.Option("--site", help="Only this site.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Decided ones too.")] = False,
) -> None:
    """Held files that wait for a decision, oldest first: what kind of thing was found, and at how many places."""
    workspace = open_study(study)
    site = find_site_id(workspace, site)
    held = derive_held_files(workspace.read_events())
    held = held[held["site_id"] == site] if site else held
    held = held if everything else held[held["state"] == "waiting"]
    table = Table("File", "Site", "Held on", "Sending", "Found", "Places", "Kept", "Query", "State")
    for row in held.to_dict("records"):
        table.add_row(
            row["held_id"], row["site_id"], f"{row['held_on']:%Y-%m-%d}", row["return_id"] or "not known",
            describe_kinds(row["identifiers"]), f"{row['n_places']:,}", row["kept"], row["query_id"], row["state"],
        )  # fmt: skip
    print_table(table)
    out.print(f"{len(held):,} held file{'' if len(held) == 1 else 's'}.")


@app.command()
def show(study: StudyArgument, held: HeldArgument) -> None:
    """Where a held file holds what it must not: sheet, cell and kind. What stands there is never shown."""
    row = find_held_file(open_study(study), held)
    out.print(f"{held}, from {row['site_id']}, held on {row['held_on']:%Y-%m-%d}: {row['state']}.")
    table = Table("Sheet", "Cell", "What was found")
    places = row["places"].split(";")
    for place in places:
        table.add_row(*describe_finding(place))
    print_table(table)
    if row["n_places"] > len(places):
        out.print(f"These are the first {len(places):,} of {row['n_places']:,} places.")
    if row["state"] != "waiting":
        reference = f", {row['reference']}" if row["reference"] else ""
        out.print(
            f"{row['state'].capitalize()} on {row['decided_on']:%Y-%m-%d} by {row['reviewer']} ({row['role']}"
            f"{reference}): {row['reason'].replace('_', ' ')}."
        )


@app.command()
def release(
    study: StudyArgument,
    held: HeldArgument,
    reason: Annotated[
        Literal["not_identifying", "allowed_here"],
        typer.Argument(help="not_identifying: it tells of nobody; allowed_here: it does, and the approvals allow it."),
    ],
    by: ByOption,
    role: RoleOption,
    reference: ReferenceOption = "",
) -> None:
    """Receive a held file after all, as if it had come now. The same file is not held again."""
    workspace = open_study(study)
    _check_codes(role, reference)
    is_new = record_decision(
        workspace, held, "released", reason=reason, role=role, reference=reference, requested_by=by
    )
    if not is_new:
        out.print(f"{held} was released before; nothing was changed.")
    decision = receive_released_file(workspace, held, find_day(workspace), by)
    if decision is not None:
        out.print(
            f"{held} is released and received: {decision.n_accepted:,} records accepted, {decision.n_log_entries:,} "
            f"entries of logs, {len(decision.faults):,} faults. Its receipt is in the site's folder."
        )
        send_after_receiving(workspace, by)
    elif find_held_file(workspace, held)["kept"] == "nothing" and is_new:
        out.print(f"{held} is released. No copy was kept: ask the site to send the same file again; it will be taken.")


@app.command()
def erase(
    study: StudyArgument,
    held: HeldArgument,
    reason: Annotated[
        Literal["identifying", "sent_in_error"],
        typer.Argument(help="identifying: it tells who somebody is; sent_in_error: it was not meant for the study."),
    ],
    by: ByOption,
    role: RoleOption,
    reference: ReferenceOption = "",
) -> None:
    """Erase a held file for good. The site still owes the file without what it must not hold."""
    workspace = open_study(study)
    _check_codes(role, reference)
    decided = erase_held_file(workspace, held, reason=reason, role=role, reference=reference, requested_by=by)
    before = "" if decided.is_new else " already, and nothing was changed"
    out.print(f"{held} is erased{before}. Copies deleted: {decided.n_deleted:,}.")


@app.command(name="new-key")
def new_key() -> None:
    """A new key for SUMMATIVE_QUARANTINE_KEY. It is shown once and kept nowhere: keep it apart from the data."""
    out.print(make_key(), soft_wrap=True, markup=False)


def _check_codes(role: str, reference: str) -> None:
    wrong: list[Any] = [name for name, text in (("role", role), ("reference", reference)) if text and not is_code(text)]
    if wrong or not role:
        raise typer.BadParameter(
            f"{', '.join(wrong) or 'role'}: the ledger holds no free text. Give a code of letters, digits, spaces and "
            "signs such as . _ - / that begins with a letter or a digit."
        )
