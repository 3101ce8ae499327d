"""`summative messages` as a coordinator types it, on the IPC study; mail goes to files."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from desk.message_commands import messages_app
from study.events import MessageClaimed, MessageTransmitting, ReplyReceived
from tasks.outbox import SendingFailed, send_waiting
from tasks.settings import read_settings
from tasks.workspace import Workspace
from tests.outgoing_messages import BY, SITE, open_outbox, queue, today


@pytest.fixture(autouse=True)
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SUMMATIVE_DATA_FOLDER", str(tmp_path / "out"))
    monkeypatch.setenv("SUMMATIVE_CONTACTS", str(tmp_path / "contacts"))
    monkeypatch.setenv("COLUMNS", "250")
    read_settings.cache_clear()
    yield
    read_settings.cache_clear()


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    workspace = open_outbox(tmp_path)
    yield workspace
    workspace.ledger.close()


def run(command: str, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(messages_app, [command, "ipc", *words])
    if isinstance(result.exception, SendingFailed):
        return 1, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


def find_id(workspace: Workspace, number: int) -> str:
    return f"digest-luton-{today(workspace)}-{number}"


def test_what_waits_is_listed_shown_and_sent(workspace: Workspace) -> None:
    queue(workspace, 1, 2)
    code, said = run("list")
    assert code == 0
    assert f"{find_id(workspace, 1)} person1 (site researcher) digest waits" in said
    assert said.endswith("2 messages.")
    code, said = run("show", find_id(workspace, 2))
    assert code == 0
    assert f"{find_id(workspace, 2)}, queued on {today(workspace)}: waits" in said
    assert "To: Zoë Person 2 <person2@luton.example> Subject: What is owed – today Dear Zoë .a line" in said
    code, said = run("send", "--by", "Anna Price")
    assert (code, "2 sent." in said, "outbox_mail" in said) == (0, True, True)
    assert run("send", "--by", "Anna Price") == (0, "Nothing waits.")
    assert run("list")[1].count("written to a file") == 2
    assert "0 messages." in run("list", "--site", "tower_hamlets")[1]
    code, said = run("show", "nothing")
    assert (code, '"nothing" is no message of ipc that stands.' in said) == (2, True)


def test_old_messages_are_shown_when_asked_for(workspace: Workspace) -> None:
    now = workspace.clock()
    workspace.clock = workspace.ledger.clock = lambda: now - timedelta(days=20)
    queue(workspace, 1)
    send_waiting(workspace, today(workspace), BY)
    assert "0 messages." in run("list")[1]
    assert "1 message." in run("list", "--all")[1]


@pytest.mark.parametrize(("word", "said_then"), [("--was-sent", "was sent."), ("--was-not-sent", "was not sent: the")])
def test_an_uncertain_message_is_resolved_by_a_person(workspace: Workspace, word: str, said_then: str) -> None:
    queue(workspace, 1)
    about = {"occurred_on": today(workspace), "requested_by": BY, "site_id": SITE}
    message_id = find_id(workspace, 1)
    workspace.ledger.append(
        [
            MessageClaimed(**about, message_id=message_id),
            MessageTransmitting(**about, message_id=message_id, way="smtp"),
        ]
    )
    assert "UNCERTAIN: look whether it went out" in run("list")[1]
    assert run("list")[1].endswith("Uncertain: 1.")
    assert "1 uncertain: say what became of them" in run("send", "--by", "Anna Price")[1]
    code, said = run("resolve", message_id, "--by", "Anna Price")
    assert (code, "Say --was-sent or --was-not-sent" in said) == (2, True)
    code, said = run("resolve", message_id, word, "--by", "Anna Price")
    assert (code, said_then in said) == (0, True)
    told = workspace.ledger.history(kind="message_resolved")
    assert told["requested_by"].tolist() == ["Anna Price"]
    assert "Uncertain" not in run("list")[1]


def test_a_mail_server_that_is_down_is_told(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    queue(workspace, 1)
    monkeypatch.setenv("SUMMATIVE_SMTP_URL", "smtp://study@localhost:1")
    read_settings.cache_clear()
    code, said = run("send", "--by", "Anna Price")
    assert (code, "cannot be reached" in said) == (1, True)
    code, said = run("send", "--to-folder", "--by", "Anna Price")
    assert (code, "1 sent." in said) == (0, True)


def test_the_mailbox_is_read_and_replies_are_dealt_with(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = run("read", "--by", "Anna Price")
    assert (code, "No mailbox is set." in said) == (2, True)
    for part in ("new", "cur"):
        (tmp_path / "Maildir" / part).mkdir(parents=True)
    mail = "From: person1@luton.example\nMessage-ID: <{}@b>\nSubject: {}\n\nText of the answer\n"
    (tmp_path / "Maildir" / "new" / "1").write_text(mail.format("a", "Re: x"))
    (tmp_path / "Maildir" / "new" / "2").write_text(mail.format("b", "Automatic reply: x"))
    monkeypatch.setenv("SUMMATIVE_IMAP_URL", f"maildir:{tmp_path / 'Maildir'}")
    read_settings.cache_clear()
    queue(workspace, 1)
    assert run("read", "--by", "Anna Price") == (0, "1 answers; 1 automatic answers.")
    assert run("read", "--by", "Anna Price") == (0, "2 recorded before.")
    code, said = run("replies")
    assert (code, said.endswith("1 reply."), "person1" in said, "Text" in said) == (0, True, True, False)
    assert run("replies", "--all")[1].endswith("2 replies.")
    (reply,) = (
        row["reply_code"]
        for row in workspace.read_events().frame(ReplyReceived).to_dict("records")
        if not row["is_automatic"]
    )
    assert run("handled", reply, "--by", "Anna Price") == (0, f"{reply} is handled.")
    assert "was handled before" in run("handled", reply, "--by", "Ben Hall")[1]
    assert run("replies")[1].endswith("0 replies.")
    code, said = run("handled", "nothing", "--by", "Anna Price")
    assert (code, "is no reply to ipc" in said) == (2, True)
