"""`summative instruments`: the questionnaires that there are, what is wrong with a definition, how one reads, and
how they behaved in a study."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from desk.options import StudyArgument, err, open_study, out
from study.instruments import Instrument
from tasks.definitions import Findings, InstrumentNotFound, check_instrument, list_instruments, load_instrument
from tasks.instrument_pages import write_instrument_pages
from tasks.pages import format_counted, format_list
from tasks.settings import read_settings

instruments_app = typer.Typer(
    help="Questionnaires and scales: which there are, what is wrong with a definition, and how one is scored.",
    no_args_is_help=True,
)


@instruments_app.command("list")
def list_all() -> None:
    """Every instrument: items, scores, who answers it."""
    table = Table("Instrument", "Title", "Items", "Scores", "Answered by", "Forms")
    n_unsound = 0
    for id_ in list_instruments():
        if check_instrument(id_).faults:
            n_unsound += 1
            table.add_row(id_, "[red]has faults[/red]", "", "", "", "")
            continue
        instrument = load_instrument(id_)
        table.add_row(
            id_, escape(instrument.title), str(len(instrument.items)), str(len(instrument.scales)),
            ", ".join(instrument.respondents), ", ".join(form.replace("_", "-") for form in instrument.forms),
        )  # fmt: skip
    out.print(table)
    if n_unsound:
        out.print(f"{format_counted(n_unsound, 'instrument')} with faults: `summative instruments check` tells them.")


@instruments_app.command()
def check(
    instrument: Annotated[str, typer.Argument(help="An instrument's folder, such as eq5d5l; left out, all.")] = "",
) -> None:
    """Every fault of the definitions, with what to do; every worked example scored."""
    ids = [instrument] if instrument else list_instruments()
    n_faults = 0
    for id_ in ids:
        findings = _check(id_)
        n_faults += len(findings.faults)
        for text in findings.faults:
            err.print(f"[red]✗[/red] {escape(text)}", soft_wrap=True)
        for text in findings.notes:
            out.print(f"[yellow]![/yellow] {escape(text)}", soft_wrap=True)
    if n_faults:
        err.print(f"{format_counted(n_faults, 'fault')} in {format_counted(len(ids), 'definition')}.")
        raise typer.Exit(1)
    out.print(f"[green]✓[/green] {format_counted(len(ids), 'definition')} in order, every worked example met.")


@instruments_app.command()
def show(instrument: Annotated[str, typer.Argument(help="An instrument's folder, such as eq5d5l.")]) -> None:
    """How an instrument reads and is scored: a page, and a sample form with neutral wording."""
    found = _load(instrument)
    folder = read_settings().data_folder / "instruments"
    pages = write_instrument_pages(found, folder)
    _summarise(found)
    out.print(f"Codebook page: {pages.codebook}", soft_wrap=True)
    out.print(f"Sample form:   {pages.form}", soft_wrap=True)


@instruments_app.command()
def report(study: StudyArgument) -> None:
    """How the questionnaires of a study behaved so far: a page with plots, and its figures. Nothing is frozen."""
    workspace = open_study(study)
    from tasks.releases import write_current_instruments

    for key in write_current_instruments(workspace):
        out.print(f"{workspace.area.place}/{key}", soft_wrap=True)


def _summarise(instrument: Instrument) -> None:
    out.print(f"[bold]{escape(instrument.title)}[/bold], version {escape(instrument.version)}", soft_wrap=True)
    out.print(
        f"{format_counted(len(instrument.items), 'item')}. Answered by {format_list(instrument.respondents)}; forms: "
        f"{format_list(form.replace('_', '-') for form in instrument.forms)}.",
        soft_wrap=True,
    )
    out.print(escape(instrument.licence), soft_wrap=True)
    table = Table("Score", "Label", "From", "To", "Rule")
    for scale in instrument.scales:
        label = f"{scale.label} (default)" if instrument.is_default(scale) else scale.label
        rule = scale.rule_in_words if len(scale.rule_in_words) <= 120 else f"{scale.rule_in_words[:117]}..."
        table.add_row(scale.id, escape(label), f"{scale.minimum:g}", f"{scale.maximum:g}", escape(rule))
    out.print(table)
    for caution in instrument.cautions:
        out.print(f"[yellow]![/yellow] {escape(caution.text)}", soft_wrap=True)


def _load(instrument_id: str) -> Instrument:
    try:
        return load_instrument(instrument_id)
    except InstrumentNotFound as error:
        raise typer.BadParameter(str(error)) from None


def _check(instrument_id: str) -> Findings:
    try:
        return check_instrument(instrument_id)
    except InstrumentNotFound as error:
        raise typer.BadParameter(str(error)) from None
