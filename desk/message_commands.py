"""`summative messages`: what went out, what waits, what nobody knows of, and who answered."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

import pandas as pd
import typer
from rich.table import Column, Table

from desk.options import (
    ByOption,
    StudyArgument,
    find_day,
    find_site_id,
    open_study,
    out,
    print_table,
    refuse_sending_from_rehearsal,
)  # fmt: skip
from study.calendar import london_day
from study.events import ReplyHandled
from study.messages import derive_addresses, derive_messages, derive_replies
from tasks.files import ContentDamaged, FileMissing
from tasks.mailbox import read_mailbox
from tasks.outbox import find_transport, read_kept, resolve_message, send_waiting
from tasks.pages import format_counted

messages_app = typer.Typer(
    help="Messages to sites: what went out, what waits, what came back, who answered.", no_args_is_help=True
)

MessageArgument = Annotated[str, typer.Argument(help="The message's id, as `messages list` shows it.")]
SiteOption = Annotated[str, typer.Option("--site", help="Only this site.")]

_STATES = {
    "queued": "waits",
    "claimed": "waits (was taken)",
    "uncertain": "UNCERTAIN: look whether it went out",
    "sent": "sent",
    "failed": "refused",
    "delayed": "sent, delayed",
    "bounced": "came back",
}
_SENT_WORDS = {
    "sent": "sent",
    "put_off": "put off by the server, to be tried again today",
    "refused": "refused for good",
    "overtaken": "overtaken by news and taken back",
    "expired": "of an earlier day and taken back",
    "lost": "taken back because their wording is gone",
    "uncertain": "uncertain: say what became of them with `messages resolve`",
}
_READ_WORDS = {
    "answered": "answers",
    "automatic": "automatic answers",
    "unmatched": "mails from people we know nothing of",
    "bounced": "messages that came back",
    "delayed": "messages that are delayed",
    "known": "recorded before",
    "passed_over": "no matter of this study's",
    "unreadable": "not readable as mail",
}


@messages_app.command(name="list")
def list_messages(
    study: StudyArgument,
    site: SiteOption = "",
    everything: Annotated[bool, typer.Option("--all", help="Those that were sent long ago too.")] = False,
) -> None:
    """Messages that want a look (waiting, uncertain, refused, come back) and those of the last two weeks."""
    workspace = open_study(study)
    site, today = find_site_id(workspace, site), find_day(workspace)
    events = workspace.read_events()
    messages = derive_messages(events, today)
    if site:
        messages = messages[messages["site_id"] == site]
    if not everything:
        is_recent = messages["queued_on"] >= pd.Timestamp(today) - pd.Timedelta(days=14)
        messages = messages[is_recent | messages["state"].isin(["queued", "claimed", "uncertain"])]
    stopped = derive_addresses(events).set_index("address_code")["state"]
    # An id tells the day and the site too, and is typed into other commands: it is not broken where there is room.
    longest = max(map(len, messages["message_id"]), default=0)
    table = Table(Column("Message", no_wrap=out.width >= longest + 45), "To", "What", "State")
    for row in messages.to_dict("records"):
        table.add_row(
            row["message_id"], f"{row['person_id']} ({row['role'].replace('_', ' ')})",
            row["category"].replace("_", " "), _describe_fate(row, stopped.get(row["address_code"], "")),
        )  # fmt: skip
    print_table(table)
    n_uncertain = int((messages["state"] == "uncertain").sum())
    out.print(f"{format_counted(len(messages), 'message')}.{f' Uncertain: {n_uncertain:,}.' if n_uncertain else ''}")


def _describe_fate(row: dict[Any, Any], address: str) -> str:
    """The state, what the server answered, how often it was tried, and what is wrong with the address."""
    tries = f"{row['n_attempts']} tries" if row["n_attempts"] > 1 else ""
    told = [_describe_state(row), row["status"], tries, f"address {address.replace('_', ' ')}" if address else ""]
    return ", ".join(filter(None, told))


def _describe_state(row: dict[Any, Any]) -> str:
    if row["state"] == "sent" and row["way"] == "folder":
        return "written to a file"
    if row["state"] == "queued" and row["n_attempts"]:
        return "waits (put off by the server)"
    return _STATES[row["state"]]


def _show(day: Any) -> str:
    return "" if pd.isna(day) else f"{day:%Y-%m-%d}"


@messages_app.command()
def show(study: StudyArgument, message: MessageArgument) -> None:
    """The wording of a message, as it was kept when it was queued, and to whom it is addressed."""
    workspace = open_study(study)
    messages = derive_messages(workspace.read_events(), find_day(workspace))
    found = messages[messages["message_id"] == message]
    if found.empty:
        raise typer.BadParameter(f'"{message}" is no message of {study} that stands. `messages list --all` has them.')
    row = found.iloc[0].to_dict()
    try:
        kept = read_kept(workspace, row["content_sha256"])
    except (FileMissing, ContentDamaged) as fault:
        raise typer.BadParameter(f"The wording of {message} cannot be read: {fault}") from None
    out.print(f"{message}, queued on {_show(row['queued_on'])}: {_describe_state(row)}", markup=False)
    out.print(f"To: {kept.name} <{kept.address}>\nSubject: {kept.letter.subject}\n", markup=False)
    out.print(kept.letter.text, markup=False, soft_wrap=True)


@messages_app.command()
def resolve(
    study: StudyArgument,
    message: MessageArgument,
    by: ByOption,
    was_sent: Annotated[
        bool | None,
        typer.Option("--was-sent/--was-not-sent", help="What you found out, from the mail server or the addressee."),
    ] = None,
) -> None:
    """Say what became of an uncertain message. One that was not sent is taken back: what it asked for is due again."""
    if was_sent is None:
        raise typer.BadParameter("Say --was-sent or --was-not-sent: the mail server's log has it, or the addressee.")
    outcome: Literal["was_sent", "was_not_sent"] = "was_sent" if was_sent else "was_not_sent"
    resolve_message(open_study(study), message, outcome, by)
    out.print(f"{message} {'was sent' if was_sent else 'was not sent: the next round decides anew'}.", markup=False)


@messages_app.command()
def send(
    study: StudyArgument,
    by: ByOption,
    to_folder: Annotated[
        bool, typer.Option("--to-folder", help="Write them as files (.eml), whatever mail server is set.")
    ] = False,
) -> None:
    """Send the messages of today that wait. Those of earlier days are taken back, and decided on anew."""
    workspace = open_study(study)
    refuse_sending_from_rehearsal(workspace)
    today, transport = london_day(workspace.clock()), find_transport(workspace, to_folder=to_folder)
    counts = send_waiting(workspace, today, by, transport)
    _print_counts(counts, _SENT_WORDS, "Nothing waits.")
    if transport.way == "folder" and counts["sent"]:
        out.print(f"They lie in {workspace.folder / 'outbox_mail'}.", markup=False)


@messages_app.command()
def read(study: StudyArgument, by: ByOption) -> None:
    """Read the mailbox for answers and for what came back. It is left as it is."""
    workspace = open_study(study)
    if not workspace.settings.imap_url:
        raise typer.BadParameter("No mailbox is set. Give one in the setting SUMMATIVE_IMAP_URL.")
    counts = read_mailbox(workspace, london_day(workspace.clock()), by)
    _print_counts(counts, _READ_WORDS, "Nothing new.")


def _print_counts(counts: Counter[str], words: dict[str, str], otherwise: str) -> None:
    told = [f"{counts[word]:,} {text}" for word, text in words.items() if counts[word]]
    out.print(f"{'; '.join(told)}." if told else otherwise)


@messages_app.command()
def replies(
    study: StudyArgument,
    everything: Annotated[bool, typer.Option("--all", help="Automatic and handled ones too.")] = False,
) -> None:
    """Who answered and waits for somebody to deal with it. What they wrote stands in the mailbox."""
    workspace = open_study(study)
    found = derive_replies(workspace.read_events(), find_day(workspace))
    if not everything:
        found = found[~found["is_handled"] & ~found["is_automatic"]]
    table = Table("Reply", "Received", "From", "Site", "To message", "Automatic", "Handled")
    for row in found.to_dict("records"):
        table.add_row(
            row["reply_code"], _show(row["received_on"]), row["person_id"] or "not known", row["site_id"],
            row["message_id"], "yes" if row["is_automatic"] else "", _show(row["handled_on"]),
        )  # fmt: skip
    print_table(table)
    out.print(f"{format_counted(len(found), 'reply', 'replies')}.")


@messages_app.command()
def handled(
    study: StudyArgument,
    reply: Annotated[str, typer.Argument(help="The reply's code, as `messages replies` shows it.")],
    by: ByOption,
) -> None:
    """Record that a reply was dealt with."""
    workspace = open_study(study)
    today = find_day(workspace)
    found = derive_replies(workspace.read_events(), today).set_index("reply_code")
    if reply not in found.index:
        raise typer.BadParameter(f'"{reply}" is no reply to {study}. `messages replies --all` has their codes.')
    if found["is_handled"][reply]:
        out.print(f"{reply} was handled before, on {_show(found['handled_on'][reply])}; nothing was changed.")
        return
    workspace.ledger.append(
        [ReplyHandled(occurred_on=today, requested_by=by, site_id=found["site_id"][reply], reply_code=reply)]
    )
    out.print(f"{reply} is handled.")
