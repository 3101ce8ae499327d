"""The command line: `summative`.

Every command answers in plain sentences. What a person can get wrong ends in a message that says where, what and what
to do; only a fault of the program itself shows a traceback.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from desk import approval_views  # noqa: F401 (adds its commands)
from desk.approval_commands import approvals_app
from desk.attrition_commands import attrition_app
from desk.chasing_commands import chasing_app, tell_of_gaps
from desk.consent_commands import consent_app, tell_of_erasures
from desk.dataset_commands import dataset_app
from desk.exchange_commands import returns_app
from desk.held_file_commands import app as held_files_app
from desk.import_commands import import_app
from desk.incident_commands import app as incidents_app
from desk.instrument_commands import instruments_app
from desk.message_commands import messages_app
from desk.options import (
    ByOption,
    SitesOption,
    StudyArgument,
    err,
    find_day,
    find_program,
    find_site_id,
    is_rehearsed,
    open_study,
    out,
    parse_day,
    parse_sites,
    print_table,
    refuse_sending_from_rehearsal,
    use_prefect,
)
from desk.query_commands import query_app
from desk.release_commands import release_app
from desk.safeguarding_commands import app as safeguarding_app
from desk.wave_commands import waves_app
from rehearsal.approvals_story import STUDY as PLAYED
from rehearsal.evaluation import PlayedEvaluation, play_evaluation
from rehearsal.pilot_source import SourceUnusable, read_source
from rehearsal.reconciliation import ReleaseFrames
from rehearsal.reconciliation import reconcile as follow
from rehearsal.replay import STUDY as REPLAYED
from rehearsal.replay import Progress as Step
from rehearsal.replay import (
    Replayed,
    ReplayRefused,
    find_postings,
    find_unreleased,
    find_workspace_name,
    parse_every,
    replay,
)
from study.calendar import london_day
from study.datasets import ReleaseFault
from study.instruments import DefinitionFaults
from tasks.approvals import APPROVALS_CALENDAR, APPROVALS_PAGE
from tasks.chasing import draw_up
from tasks.definitions import (
    StudyExists,
    StudyNotFound,
    copy_finished_study,
    find_faults,
    list_studies,
    load_study,
    scaffold_study,
)
from tasks.fieldwork import CONSENT_PAGE
from tasks.fieldwork_page import FIELDWORK_PAGE
from tasks.files import FileFault, FileMissing
from tasks.ledger import LedgerRefused
from tasks.letters import find_letter_faults
from tasks.orchestration import StepFailed, prepare_prefect
from tasks.pages import format_counted
from tasks.participant_letters import find_participant_letter_faults
from tasks.quarantine import find_key_faults
from tasks.returns_page import RETURNS_PAGE
from tasks.safeguarding import find_contact_faults
from tasks.settings import read_settings
from tasks.workbooks import write_blank_return
from tasks.workspace import Workspace, create_workspace, use_workspace

app = typer.Typer(
    help="Operations for multi-site evaluation studies: from raw returns to a frozen dataset.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(approvals_app, name="approvals")
app.add_typer(waves_app, name="waves")
app.add_typer(chasing_app, name="chasing")
app.add_typer(consent_app, name="consent")
app.add_typer(messages_app, name="messages")
app.add_typer(incidents_app, name="incidents")
app.add_typer(held_files_app, name="held-files")
app.add_typer(safeguarding_app, name="safeguarding")
app.add_typer(instruments_app, name="instruments")
app.add_typer(attrition_app, name="attrition")
app.add_typer(returns_app, name="returns")
app.add_typer(query_app)
app.add_typer(release_app, name="release")
app.add_typer(dataset_app)
app.add_typer(import_app)
EXPECTED = (
    DefinitionFaults, FileFault, LedgerRefused, ReleaseFault, ReplayRefused, SourceUnusable, StepFailed,
    StudyExists, StudyNotFound,
)  # fmt: skip


def main() -> None:
    """The console script."""
    try:
        app()
    except EXPECTED as fault:
        faults = getattr(fault, "faults", None) or [str(fault)]
        for text in faults:
            err.print(f"[red]✗[/red] {escape(text)}", soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        err.print("Stopped. Nothing is lost: the same command goes on where it stopped.")
        sys.exit(130)


@app.command()
def rehearse(
    study: Annotated[str, typer.Argument(help="cdisc_pilot, a real trial, or ipc, with invented people.")] = REPLAYED,
    sites: SitesOption = "",
    until: Annotated[str, typer.Option(help="Rehearse up to this day, such as 2013-01-31.")] = "",
    every: Annotated[str, typer.Option(help="Days from one study day to the next, 1d to 31d.")] = "7d",
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete what an earlier rehearsal left; begin again.")] = False,
) -> None:
    """Replay a real 17-site trial through the flows that a live study uses, and freeze its dataset; or play the whole
    IPC evaluation with invented people."""
    if study not in (REPLAYED, PLAYED):
        raise typer.BadParameter(f'"{study}" cannot be rehearsed. What can: {REPLAYED} and {PLAYED}.')
    if study == PLAYED and sites:
        raise typer.BadParameter(f"{PLAYED} is rehearsed as a whole: leave --sites out.")
    try:
        days = parse_every(every)
    except ValueError as fault:
        raise typer.BadParameter(str(fault)) from None
    settings, chosen, last = read_settings(), parse_sites(sites), parse_day(until)
    prepare_prefect(settings.data_folder / "prefect")
    if study == PLAYED:
        out.print(
            "Playing the IPC evaluation with invented people, November 2016 to May 2019: approvals become known, sites "
            "open, approach people and post workbooks, packs go out, what is owed is chased.",
            soft_wrap=True,
        )
        with _show_progress() as show:
            played = play_evaluation(settings, until=last, every=days, fresh=fresh, on_progress=show)
        _print_played(played)
        return
    out.print(
        "Replaying the CDISC pilot trial, 2012 to 2015: its sites post their workbooks, the daily round receives, "
        "checks and records them.",
        soft_wrap=True,
    )
    with _show_progress() as show:
        result = replay(settings, sites=chosen, until=last, every=days, fresh=fresh, on_progress=show)
    _print_replayed(result, chosen, last)


@contextmanager
def _show_progress() -> Iterator[Callable[[Step], None]]:
    """A bar that follows the study days; without a terminal, a line for each tenth."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[done]}"), TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("left"),
    )  # fmt: skip
    with Progress(*columns, console=out, disable=not out.is_terminal) as bar:
        task = bar.add_task("Starting", total=None, done="")
        tenths = 0

        def show(step: Step) -> None:
            nonlocal tenths
            done = f"{step.n:,}/{step.n_days:,} study days, workbooks: {step.n_posted:,}"
            bar.update(task, total=step.n_days, completed=step.n, description=f"{step.day:%d %b %Y}", done=done)
            if not out.is_terminal and 10 * step.n // step.n_days > tenths:
                tenths = 10 * step.n // step.n_days
                out.print(f"{step.day:%d %b %Y}: {done}", soft_wrap=True)

        with _a_stop_ends_at_once():
            yield show


@contextmanager
def _a_stop_ends_at_once() -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal end a replay as a kill would, which loses nothing. Ctrl-C also reaches the
    Prefect server of this process: left to itself, Prefect would try for more than a minute to tell that server of the
    stop, and end in a traceback."""

    def end(number: int, frame: object) -> None:
        if out.is_terminal:
            os.write(sys.stdout.fileno(), b"\x1b[?25h\n")  # the cursor, which the progress bar hides
        os.write(
            sys.stderr.fileno(),
            b"Stopped. Nothing is lost: the same command, without --fresh, goes on where it stopped.\n",
        )
        if server := sys.modules.get("prefect.server.api.server"):
            server.SubprocessASGIServer().stop()  # the one that this process started, if it did
        os._exit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    usual = (signal.default_int_handler, signal.SIG_DFL)  # others are ignored, as by nohup, or somebody else's
    before = {number: handler for number in numbers if (handler := signal.getsignal(number)) in usual}
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print_played(played: PlayedEvaluation) -> None:
    """Where the pages are, and what to try next."""
    workspace, program = played.workspace, find_program()
    if played.n_resumed == played.n_days:
        out.print("\nThis rehearsal was complete already.")
    out.print(f"\n[bold]Played:[/bold] {played.n_days} study days, {played.n_recorded:,} entries by people.")
    flow = played.flow
    out.print(
        f"Invented people: {flow.approached:,} approached, {flow.agreed:,} agreed, {flow.baseline_in_time:,} baselines "
        f"in time, {flow.analysed:,} with a six-month follow-up to analyse.",
        soft_wrap=True,
    )
    out.print("What happens is made up: rehearsal/ipc_story.toml, rehearsal/ipc_assumptions.toml", soft_wrap=True)
    if played.frozen:
        out.print(f"[bold]Frozen:[/bold] release {played.frozen['release']}. Rows: {played.frozen['rows']}.")
        out.print(f"\n  Release   {played.frozen['location']}/", soft_wrap=True)
    out.print(f"\n  Approvals {workspace.area.place}/{APPROVALS_PAGE}", soft_wrap=True)
    out.print(f"  Fieldwork {workspace.area.place}/{FIELDWORK_PAGE}", soft_wrap=True)
    out.print(f"  Consent   {workspace.area.place}/{CONSENT_PAGE}", soft_wrap=True)
    out.print(f"  Returns   {workspace.area.place}/{RETURNS_PAGE}", soft_wrap=True)
    out.print(f"  Calendar  {workspace.area.place}/{APPROVALS_CALENDAR}", soft_wrap=True)
    out.print(f"  Ledger    {escape(find_ledger_place(workspace))}", soft_wrap=True)
    out.print("\nTry next:")
    day = f" --as-of {played.last_on}"
    hints = {
        f"approvals show {workspace.name}{day}": "where every site stands, and what it lacks",
        f"approvals forecasts {workspace.name} --site luton": "how the expected opening moved",
        f"incidents list {workspace.name}": "what may be a breach",
        f"waves show {workspace.name}": "questionnaires expected, out, late and in, by site and wave",
        f"chasing list {workspace.name}": "who is to be chased for what, and what rests",
    }
    width = max(map(len, hints))
    for command, meaning in hints.items():
        out.print(f"  {program} {command:<{width}}  {meaning}", soft_wrap=True)


def _print_replayed(result: Replayed, sites: list[str], until: date | None) -> None:
    """Where everything is, and what to try next. Each line holds for any kind of ledger and of file store."""
    workspace = result.workspace
    if result.n_resumed == result.n_days and result.answer == "same":
        out.print(f"\nThis replay was complete already; its release [bold]{result.release}[/bold] is unchanged.")
    else:
        if result.n_resumed:
            out.print(f"Went on after {result.n_resumed:,} study days that an earlier run had completed.")
        out.print(f"\n[bold]Frozen:[/bold] release {result.release}, from {result.n_posted:,} workbooks.")
    if not result.is_of_this_version:
        out.print(
            "It was replayed by another version of the program or its definitions; --fresh begins again with these.",
            soft_wrap=True,
        )
    out.print(f"Rows: {result.rows}.", soft_wrap=True)
    out.print(f"Rests on {len(workspace.study.assumptions)} declared assumptions, which the report lists.")
    out.print(f"\n  Release  {result.location}/", soft_wrap=True)
    out.print(f"  Report   {result.location}/report.html", soft_wrap=True)
    out.print(f"  Pages    {workspace.area.place}/{FIELDWORK_PAGE.rpartition('/')[0]}/", soft_wrap=True)
    out.print(f"  Ledger   {escape(find_ledger_place(workspace))}", soft_wrap=True)
    out.print("\nTry next:")
    part = (f" --sites {','.join(sites)}" if sites else "") + (f" --until {until}" if until else "")
    program = find_program()
    hints = {
        f"reconcile{part}": "every answer of the source, and the trial's own scores",
        f"verify {workspace.name}": "the ledger's chain of hashes",
        f"ledger {workspace.name} --newest 20": "who recorded what, when, from which file and row",
        "serve": "Prefect's page, where a coordinator starts a run",
    }
    width = max(map(len, hints))
    for command, meaning in hints.items():
        out.print(f"  {program} {command:<{width}}  {meaning}", soft_wrap=True)


def find_ledger_place(workspace: Workspace) -> str:
    """Where a ledger lies, for people: its file, or its database without the password, and there the study's name."""
    if not workspace.settings.database_url:
        return str(workspace.folder / "ledger.db")
    url = workspace.ledger.engine.url
    place = str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)
    return f'{place}, table ledger, study "{workspace.name}"'


@app.command()
def reconcile(
    sites: SitesOption = "", until: Annotated[str, typer.Option(help="The day to which it was replayed.")] = ""
) -> None:
    """Hold a replayed release against its source: no answer lost, every score equal to the trial's own."""
    from tasks.releases import read_latest_tables

    settings, chosen, last = read_settings(), parse_sites(sites), parse_day(until)
    find_postings(settings, chosen, last)  # refuses what no replay can have left
    name = find_workspace_name(chosen, last)
    part = (f" --sites {','.join(chosen)}" if chosen else "") + (f" --until {last}" if last else "")
    nothing = f"Nothing is frozen of {name} yet. Run: {find_program()} rehearse{part}"
    if not (settings.data_folder / name).is_dir() and not settings.files:
        raise StudyNotFound(nothing)
    workspace = create_workspace(REPLAYED, settings=settings, name=name)
    try:
        manifest = json.loads(workspace.area.get("releases/latest/manifest.json"))
    except FileMissing:
        raise StudyNotFound(nothing) from None
    known = workspace.read_events().select(
        as_of=date.fromisoformat(manifest["as_of"]), known_at=datetime.fromisoformat(manifest["known_at"])
    )
    unreleased = find_unreleased(workspace, known)
    result = follow(
        read_source(),
        workspace.study,
        ReleaseFrames(**read_latest_tables(workspace)),
        refused=unreleased.refused,
        superseded=unreleased.superseded,
        quarantined=unreleased.quarantined,
        held=unreleased.held,
        sites=chosen or None,
        until=last,
    )
    place = f"{workspace.area.place}/releases/{manifest['release']}/"
    out.print(f"Release {manifest['release']} against the trial's records: {place}\n", soft_wrap=True, markup=False)
    out.print(result.to_text(), soft_wrap=True, markup=False)
    raise typer.Exit(0 if result.adds_up and result.agrees_with_trial else 1)


@app.command()
def check(study: Annotated[str, typer.Argument(help="A study; left out, every study.")] = "") -> None:
    """Check everything that a person can get wrong in a study's protocol, its sites, its instruments, its letters."""
    settings = read_settings()
    n_faults = 0
    for name in [study] if study else list_studies(settings.sites_config):
        found = find_faults(name, settings.sites_config, settings.instruments)
        faults = [*found.faults, *([] if found.faults else find_wording_faults(name))]
        n_faults += len(faults)
        for fault in faults:
            out.print(f"[red]✗[/red] {escape(fault)}", soft_wrap=True)
        for note in found.notes:
            out.print(f"[yellow]·[/yellow] {escape(note)}", soft_wrap=True)
        state = f"{len(faults)} to mend" if faults else "[green]in order[/green]"
        out.print(f"[bold]{name}[/bold]: {state}, {len(found.notes)} note{'s' * (len(found.notes) != 1)}.")
    raise typer.Exit(1 if n_faults else 0)


def find_wording_faults(study_id: str) -> list[str]:
    """What is wrong with the letters that a study sends, to sites and, through them, to participants, with the key that
    it may need, and with the contacts of those who must hear of safeguarding alerts."""
    settings = read_settings()
    study = load_study(study_id, settings.sites_config, settings.instruments)

    faults = [*find_letter_faults(study), *find_participant_letter_faults(study)]
    return [*faults, *find_key_faults(study, settings), *find_contact_faults(study, settings)]


@app.command()
def new(
    study: Annotated[str, typer.Argument(help="The study's short name: small letters, digits, underscores.")],
    title: Annotated[str, typer.Option(help="Its title, as people call it.")] = "",
    like: Annotated[str, typer.Option(help="A finished study to copy, for flat files: btheb or respiratory.")] = "",
) -> None:
    """Write the files of a new study: a protocol and one example site, commented, valid as they are."""
    settings = read_settings()
    try:
        if like:
            files = copy_finished_study(like, study, title, settings.sites_config, settings.instruments)
        else:
            files = scaffold_study(study, title, settings.sites_config)
    except ValueError as fault:
        raise typer.BadParameter(str(fault)) from None
    for file in files:
        out.print(f"  {file}", soft_wrap=True)
    out.print(f"Edit these; [bold]summative check {study}[/bold] says what is still wrong.")


@app.command(name="round")
def run_round(study: StudyArgument, by: ByOption) -> None:
    """Run today's round now: receive what sites have sent, follow approvals and consents, send, chase, write pages."""
    refuse_sending_from_rehearsal(open_study(study))
    with use_prefect():
        from flows.study_day import study_day

        states = study_day(study=study, requested_by=by)
    counts = _report_states(states)
    if counts["unreachable"]:
        workspace = open_study(study)
        tell_of_gaps(workspace, draw_up(workspace, find_day(workspace)))


@app.command()
def receive(study: StudyArgument, by: ByOption, sites: SitesOption = "") -> None:
    """Receive what sites have put into their drop-boxes, without waiting for the next round."""
    chosen, workspace = parse_sites(sites), open_study(study)
    chosen = [find_site_id(workspace, site) for site in chosen]
    # A rehearsal is no study of the settings, and receives on its own last day.
    day = find_day(workspace) if is_rehearsed(workspace) else None
    with use_workspace(workspace), use_prefect():
        from flows.returns import receive_returns_now

        states = receive_returns_now(study=workspace.study.study_id, requested_by=by, sites=chosen, as_of=day)
    _report_states(states)
    out.print(f"Receipts: {workspace.area.place}/sites/<site>/receipts/", soft_wrap=True, markup=False)


def _report_states(states: list[Any]) -> Counter[str]:
    for state in states:
        if state.is_failed():
            err.print(f"[red]✗[/red] {escape(str(state.message))}", soft_wrap=True)
    if any(state.is_failed() for state in states):
        out.print("Something went wrong; what could be done was done, and the next round takes up the rest.")
        raise typer.Exit(1)
    counts = sum((state.result() for state in states if isinstance(state.result(), Counter)), Counter[str]())
    out.print(", ".join(f"{name} {n}" for name, n in counts.items()) or "No site had sent anything.")
    return counts


@app.command()
def freeze(
    study: StudyArgument,
    by: ByOption,
    as_of: Annotated[str, typer.Option(help="The study as of this day; left out, today.")] = "",
    blinded: Annotated[bool, typer.Option("--blinded", help="With letters in the place of the arms.")] = False,
) -> None:
    """Freeze a dataset: tables, codebook, report and manifest."""
    workspace, day = open_study(study), parse_day(as_of)
    from tasks.releases import freeze_release

    frozen = freeze_release(workspace, day or london_day(workspace.clock()), by, is_blinded=blinded)
    news = "the same dataset had been frozen before" if frozen.answer == "same" else "new"
    out.print(f"Release {frozen.release} ({news}): {frozen.location}/", soft_wrap=True)


@app.command()
def verify(
    study: StudyArgument,
    against: Annotated[str, typer.Option(help="A head published elsewhere, such as 1234:9f2c…")] = "",
) -> None:
    """Compute the ledger's chain of hashes again; name the first row that was tampered with, and what was erased."""
    workspace = open_study(study)
    try:
        found = workspace.ledger.verify(against or None)
    except ValueError as fault:
        raise typer.BadParameter(str(fault)) from None
    for text in found.faults:
        err.print(f"[red]✗[/red] {escape(text)}", soft_wrap=True)
    if not found.is_clean:
        raise typer.Exit(1)
    if not found.n_rows:
        err.print(f"Nothing is recorded of {study} yet, so there is nothing to verify.", soft_wrap=True)
        raise typer.Exit(1)
    held = " It holds the head given." if against else ""
    out.print(f"[green]In order[/green]: {found.n_rows:,} rows.{held} Head {found.head}", soft_wrap=True)
    if not tell_of_erasures(workspace):
        raise typer.Exit(1)


@app.command()
def ledger(
    study: StudyArgument,
    kind: Annotated[str, typer.Option(help="Only this kind, such as return_accepted.")] = "",
    site: Annotated[str, typer.Option(help="Only this site.")] = "",
    participant: Annotated[str, typer.Option(help="Only this participant.")] = "",
    by: Annotated[str, typer.Option(help="Only what this person or procedure asked for.")] = "",
    since: Annotated[str, typer.Option(help="Recorded on or after this day.")] = "",
    until: Annotated[str, typer.Option(help="Recorded on or before this day.")] = "",
    newest: Annotated[int, typer.Option(help="The last so many; 0 for all.", min=0)] = 50,
) -> None:
    """What was recorded: who, when, what, from which file and row."""
    workspace = open_study(study)
    site = find_site_id(workspace, site)
    rows = workspace.ledger.history(
        kind=kind or None,
        site_id=site or None,
        participant_id=participant or None,
        requested_by=by or None,
        since=parse_day(since),
        until=parse_day(until),
        newest=newest or None,
    )
    table = Table("Row", "Recorded", "Happened", "What", "Site", "Participant", "Details", "Asked by", "From")
    for row in rows.to_dict("records"):
        source = f"{row['source_sha256'][:8]} {row['source_sheet']} {row['source_row'] or ''}".strip()
        voided = f" (voided by row {row['voided_by']})" if row["voided_by"] else ""
        table.add_row(
            str(row["seq"]), row["recorded_at"][:16].replace("T", " "), row["occurred_on"],
            row["kind"].replace("_", " ") + voided, row["site_id"], row["participant_id"],
            _describe_payload(row["payload"]), row["requested_by"], source,
        )  # fmt: skip
    print_table(table)
    out.print(f"{format_counted(len(rows), 'row')}.")


def _describe_payload(payload: str) -> str:
    """The payload for people: what is not blank, hashes shortened."""
    fields = json.loads(payload)
    return ", ".join(
        f"{name} {value[:8] if isinstance(value, str) and len(value) == 64 else value}"
        for name, value in fields.items()
        if value not in ("", 0, None, [])
    )


@app.command(name="blank-return")
def blank_return(study: StudyArgument, site: Annotated[str, typer.Argument(help="The site's id.")]) -> None:
    """Write the workbook that a site fills in, into its outbox."""
    workspace = open_study(study)
    site = find_site_id(workspace, site)
    box = workspace.drop_box(site)
    box.prepare()
    name = f"{workspace.study.study_id}-{site}-return.xlsx"
    box.send(name, write_blank_return(workspace.layout, site))
    out.print(f"Written: {workspace.area.place}/sites/{site}/outbox/{name}", soft_wrap=True)
    out.print(f"Filled in, it goes into {workspace.area.place}/sites/{site}/inbox/", soft_wrap=True)


@app.command()
def serve(
    port: Annotated[int, typer.Option(help="The port of Prefect's page on this machine.", min=1024, max=65535)] = 4200,
) -> None:
    """Prefect's page and a worker, on this machine only, until Ctrl-C: where a coordinator starts and follows runs."""
    from desk.serve import ServeFault
    from desk.serve import serve as run

    try:
        run(read_settings(), lambda line: out.print(line, soft_wrap=True), port=port)
    except ServeFault as fault:
        err.print(f"[red]✗[/red] {escape(str(fault))}", soft_wrap=True)
        raise typer.Exit(1) from None
