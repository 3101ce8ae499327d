"""`summative chasing`: who is chased for what, what rests and why, calls, pauses, and who can be written to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import typer
from pydantic import ValidationError
from rich.markup import escape
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
    refuse_sending_from_rehearsal,
)  # fmt: skip
from study.calendar import format_day, london_day
from study.chasing import CALL_SUBJECTS, list_pauses
from study.contacts import WHY_WORDS, find_gaps, find_leavers, list_wanted_roles
from study.deadlines import describe_place
from study.messages import find_stopped_addresses
from tasks.chasing import (
    ChasingRefused,
    Drawn,
    chase,
    describe_gaps,
    draw_up,
    log_call,
    pause_chasing,
    resume_chasing,
    word_letter,
)
from tasks.contacts import load_contacts
from tasks.outbox import SendingRefused, find_transport
from tasks.pages import format_counted
from tasks.workspace import Workspace

chasing_app = typer.Typer(
    help="Chasing: who is asked for what today, what rests and why, calls, pauses, and who can be written to.",
    no_args_is_help=True,
)

SiteOption = Annotated[str, typer.Option("--site", help="Only this site.")]
AboutOption = Annotated[
    str, typer.Option("--about", help=f"What it is about, such as return,query. Any of: {', '.join(CALL_SUBJECTS)}.")
]
Outcome = Literal["reached", "promised", "left_message", "not_reached"]

_AHEAD_DAYS = 14


@chasing_app.command(name="list")
def list_chasers(
    study: StudyArgument,
    site: SiteOption = "",
    on: Annotated[str, typer.Option("--as-of", help="As of this day; left out, today.")] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Also what comes later than two weeks, and what was chased and is still owed.")
    ] = False,
) -> None:
    """What is due to be chased, what comes, and what rests, each with the reason."""
    workspace = open_study(study)
    site = find_site_id(workspace, site)
    day = find_day(workspace, on)
    drawn = draw_up(workspace, day)
    rungs = drawn.rungs
    if site:
        rungs = rungs.loc[rungs["site_id"] == site]
    shown = rungs.loc[~rungs["is_told"]]
    if not everything:
        limit = pd.Timestamp(day) + pd.Timedelta(days=_AHEAD_DAYS)
        shown = shown.loc[(shown["state"] != "chased") & ((shown["state"] != "coming") | (shown["due_on"] <= limit))]
    table = Table("State", "On", "Where", "What", "Overdue", "Whom", "Why")
    rows: list[Any] = list(shown.itertuples(index=False))
    described = [_describe(workspace, drawn, row) for row in rows]
    for cells in described:
        table.add_row(*cells)
    print_table(table)
    counts = Counter(state for state, *_ in described)
    out.print(", ".join(f"{counts[state]:,} {state}" for state in ("due", "resting", "coming")) + ".")
    for pause in list_pauses(drawn.events, day).to_dict("records"):
        until = "until it is resumed" if pd.isna(pause["until"]) else f"until {format_day(pause['until'].date())}"
        out.print(f"Pause {pause['pause']}: {until} ({pause['reason']}).")


def _describe(workspace: Workspace, drawn: Drawn, row: Any) -> tuple[str, ...]:
    """A chaser as a row of the list. What the ladder would send may still wait for another day: that is said too."""
    because = row.rests_because or drawn.plan.resting.get(row.key, "")
    state = "resting" if because and row.state == "due" else row.state
    place = describe_place(workspace.study, row.site_id, row.body_id if row.approval else "") or "the study"
    owed = row.owed_on if pd.notna(row.owed_on) else row.anchor_on
    why = because or f"{row.fact} {owed:%Y-%m-%d} ({row.chaser.replace('_', ' ')})"
    overdue = f"{row.n_days_overdue} days" if row.n_days_overdue else ""
    role = row.to.replace("_", " ")
    return (state, f"{row.due_on:%Y-%m-%d}", place, escape(row.subject), overdue, f"{role}, {row.channel}", escape(why))


@chasing_app.command()
def preview(
    study: StudyArgument,
    site: SiteOption = "",
    to_folder: Annotated[
        Path | None, typer.Option("--to-folder", help="Write the letters there, as text and as HTML.")
    ] = None,
    on: Annotated[str, typer.Option("--as-of", help="As of this day; left out, today.")] = "",
) -> None:
    """The letters that would be sent today, as they would read. Nothing is recorded and nothing is sent."""
    workspace = open_study(study)
    site = find_site_id(workspace, site)
    drawn = draw_up(workspace, find_day(workspace, on))
    drafts = [draft for draft in drawn.drafts if site in ("", draft.site_id, draft.person.site_id)]
    for draft in drafts:
        letter = word_letter(workspace, drawn.contacts, draft)
        if to_folder is None:
            out.rule(f"{draft.person.person_id} ({draft.role.replace('_', ' ')})")
            out.print(f"Subject: {letter.subject}\n", markup=False)
            out.print(letter.text, markup=False)
        else:
            to_folder.mkdir(parents=True, exist_ok=True)
            (to_folder / f"{draft.message_id}.txt").write_text(letter.text, encoding="utf-8")
            (to_folder / f"{draft.message_id}.html").write_text(letter.html, encoding="utf-8")
    where = f" They are in {to_folder}." if to_folder is not None and drafts else ""
    letters = "letter" if len(drafts) == 1 else "letters"
    out.print(f"{len(drafts):,} {letters} would be sent.{where} Nothing was recorded.")
    tell_of_gaps(workspace, drawn)


def tell_of_gaps(workspace: Workspace, drawn: Drawn) -> None:
    """The roles in which somebody is to be written to and nobody can be."""
    for text in describe_gaps(workspace, drawn):
        out.print(text, soft_wrap=True)


def _count_words(name: str, n: int) -> str:
    """A count of a round of chasing in words."""
    words = {
        "stop_notices": ("stop notice",),
        "digests": ("digest",),
        "chased": ("thing owed asked for", "things owed asked for"),
        "unreachable": ("role without anybody to write to", "roles without anybody to write to"),
    }
    return format_counted(n, *words[name]) if name in words else f"{n:,} {name.replace('_', ' ')}"


@chasing_app.command()
def send(
    study: StudyArgument,
    by: ByOption,
    to_folder: Annotated[
        bool, typer.Option("--to-folder", help="Write letters as files into the study's folder, whatever is set.")
    ] = False,
) -> None:
    """Chase what is due today, now. A second time the same day it finds only what is new."""
    workspace = open_study(study)
    refuse_sending_from_rehearsal(workspace)
    transport = find_transport(workspace, to_folder=to_folder)
    try:
        counts = chase(workspace, london_day(workspace.clock()), by, transport)
    except SendingRefused as refused:
        raise typer.BadParameter(str(refused)) from None
    said = ", ".join(_count_words(name, n) for name, n in counts.items() if n)
    out.print(f"{said}." if said else "Nothing was due.")
    if counts["unreachable"]:
        tell_of_gaps(workspace, draw_up(workspace, find_day(workspace)))


@chasing_app.command()
def call(
    study: StudyArgument,
    site: Annotated[str, typer.Argument(help="The site that was called, or that called.")],
    about: Annotated[str, typer.Argument(help=f"What it was about, such as return,query: {', '.join(CALL_SUBJECTS)}.")],
    outcome: Annotated[Outcome, typer.Argument(help="What came of it.")],
    by: ByOption,
    promised: Annotated[str, typer.Option("--promised", help="The day that was promised, such as 2017-09-15.")] = "",
    person: Annotated[str, typer.Option("--person", help="Whom, by the person_id of the contacts; no name.")] = "",
    incoming: Annotated[bool, typer.Option("--incoming", help="They called.")] = False,
    on: Annotated[str, typer.Option("--on", help="The day of the call; left out, today.")] = "",
) -> None:
    """Log a call with a site. It settles the calls that were due about the same, unless nobody was reached."""
    workspace = open_study(study)
    if person and load_contacts(workspace).find_person(person) is None:
        raise typer.BadParameter(f'The contacts have no person_id "{person}". `chasing contacts` lists them.')
    promised_day = parse_day(promised)
    with _refusing():
        number, n_settled = log_call(
            workspace, find_site_id(workspace, site), _split(about), outcome, by,
            on=find_past_day(workspace, on), direction="in" if incoming else "out", person_id=person,
            promised_on=promised_day,
        )  # fmt: skip
    steps = "step by telephone is" if n_settled == 1 else "steps by telephone are"
    rests = f" What was promised rests until {format_day(promised_day)}." if promised_day else ""
    out.print(f"Call {number} of that day is logged; {n_settled:,} {steps} settled.{rests}")


@chasing_app.command()
def pause(
    study: StudyArgument,
    reason: Annotated[str, typer.Argument(help="Why, as a code such as staff_ill or new_lead; no free text.")],
    by: ByOption,
    site: Annotated[str, typer.Option("--site", help="Only this site; left out, the study.")] = "",
    participant: Annotated[str, typer.Option("--participant", help="Only this participant.")] = "",
    about: AboutOption = "",
    until: Annotated[str, typer.Option("--until", help="The last day of it; left out, until it is resumed.")] = "",
) -> None:
    """Let chasing rest: of a site, a participant, of what it is about. Stop notices go out all the same."""
    workspace = open_study(study)
    with _refusing():
        name = pause_chasing(
            workspace, by, reason, on=find_day(workspace), site_id=find_site_id(workspace, site),
            participant_id=participant, about=_split(about), until=parse_day(until),
        )  # fmt: skip
    out.print(f"Paused as {name}{f' until {until}' if until else ''}.")


@chasing_app.command()
def resume(
    study: StudyArgument,
    pause: Annotated[str, typer.Argument(help="The name of the pause; `chasing list` shows it.")],
    by: ByOption,
) -> None:
    """End a pause. What is owed is due again from today on."""
    workspace = open_study(study)
    with _refusing():
        resume_chasing(workspace, pause, by, on=find_day(workspace))
    out.print(f"{pause} is over.")


@chasing_app.command()
def contacts(study: StudyArgument, site: SiteOption = "") -> None:
    """Who would be written to in each role today, and what is missing: nobody, leave, leavers, wrong addresses."""
    workspace = open_study(study)
    site = find_site_id(workspace, site)
    people, day = load_contacts(workspace), find_day(workspace)
    stopped = find_stopped_addresses(workspace.read_events())
    wanted = [one for one in list_wanted_roles(workspace.study) if site in ("", one[1])]
    table = Table("Where", "Role", "Who", "Instead of", "Missing")
    for role, site_id, body_id in wanted:
        found = people.seek(role, site_id, day, body_id, stopped)
        place = describe_place(workspace.study, site_id, body_id) or "the study"
        who = found.person.person_id if found.person else ""
        missing = WHY_WORDS[found.why] if found.why else ""
        table.add_row(place, role.replace("_", " "), who, found.instead_of, missing)
    print_table(table)
    gaps = find_gaps(workspace.study, people, wanted, day, stopped)
    out.print(f"{len(people.people):,} people in {workspace.contacts_file.name}; {len(gaps):,} roles without anybody.")
    for person in find_leavers(people, day):
        out.print(f"{person.person_id} leaves on {person.until_on}.")
    for person in people.people:
        if people.find_code(person) in stopped:
            out.print(f"{person.person_id}: mail to the address came back; nothing is sent there.")


@contextmanager
def _refusing() -> Iterator[None]:
    """What a person asked for wrongly is said as what is wrong with it."""
    try:
        yield
    except ChasingRefused as refused:
        raise typer.BadParameter(str(refused)) from None
    except ValidationError as error:
        names = ", ".join(str(fault["loc"][0]).replace("_", " ") for fault in error.errors(include_url=False))
        raise typer.BadParameter(
            f"{names}: the ledger holds no free text. Give a code of letters, digits and signs such as . _ - that "
            "begins with a letter or a digit."
        ) from None


def _split(text: str) -> Sequence[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
