"""The mailbox: what came back of what was sent, and who answered.

Read by IMAP over TLS or from a Maildir folder, and left as it is found: nothing is moved, deleted or marked as read.
What a mail says stays there; the ledger gets which message it is about, a server's code, and whether a program answered
by itself. Reading twice adds nothing.

A mail is about a message of ours if it quotes our Message-ID: in a report of the server (RFC 3464), in the headers of
an answer, or anywhere in the text of an older bounce. Nothing is concluded from an address alone, except who wrote: a
forged report must not silence anybody.
"""

from __future__ import annotations

import hashlib
import imaplib
import re
import ssl
import time
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from email import message_from_bytes
from email.header import Header
from email.message import Message
from email.utils import parseaddr
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from study.calendar import london_day
from study.contacts import compute_address_code
from study.events import Event, MessageBounced, ReplyReceived
from study.messages import OUR_MESSAGE_ID, find_message_codes
from tasks.orchestration import StepFailed
from tasks.settings import Settings
from tasks.workspace import Workspace

Known = Mapping[str, Mapping[str, str]]

_LOOKS_BACK = timedelta(days=30)  # servers give up after five days, people answer for weeks
_LARGEST_BYTES = 512 * 1024  # of a mail, from its beginning: what quotes our Message-ID stands there
_CODE_DIGITS = 24
_IMAPS_PORT = 993
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")  # whatever the locale

_STATUS = re.compile(r"\b([45]\.\d{1,3}\.\d{1,3})\b")
_PLAIN_STATUS = re.compile(r"\b([45]\d\d)[ -]")
_BOUNCE_SENDER = re.compile(r"mailer-daemon|postmaster|mail delivery", re.IGNORECASE)
_BOUNCE_TITLE = re.compile(
    r"undeliver|delivery (status|failure|has failed|delayed)|mail delivery|returned mail|failure notice|not delivered",
    re.IGNORECASE,
)
_LATE = re.compile(r"delayed|will (keep|continue|retry|be retried)|still trying|not yet been delivered", re.IGNORECASE)
_ABSENT = re.compile(r"^(automatic reply|auto(matic)?[- ]?(re)?sp|out of (the )?office|autoreply)", re.IGNORECASE)


class MailboxUnavailable(StepFailed):
    """The mailbox cannot be read now."""


@dataclass(frozen=True)
class Received:
    """A mail as it lies in the mailbox, and when it came."""

    data: bytes
    received_at: datetime


class Bounce(NamedTuple):
    """What a report says of a message of ours. `code`: of the message, as in its Message-ID."""

    code: str
    persistence: Literal["permanent", "temporary"]
    status: str


class Reply(NamedTuple):
    """Somebody, or a program, answered. `codes`: of messages of ours that it refers to, the nearest first."""

    reply_code: str
    codes: tuple[str, ...]
    address: str
    is_automatic: bool


def read_mailbox(workspace: Workspace, as_of: date, requested_by: str) -> Counter[str]:
    """Record what came back and who answered; how many mails were what: bounced, delayed, answered, automatic,
    unmatched (an answer to no message of ours), known (recorded before), passed_over (no matter of ours), unreadable.

    Nothing is read where no mailbox is set, nor for a replay or a rehearsal: it is the world's mailbox. Raises
    MailboxUnavailable, and StepFailed unless `as_of` is today.
    """
    if not workspace.settings.imap_url or not workspace.is_of_the_world:
        return Counter()
    today = london_day(workspace.clock())
    if as_of != today:
        raise StepFailed(f"The mailbox is not read as of {as_of}: today is {today}, and it holds what came until now.")
    events = workspace.read_events()
    answered = frozenset(events.frame(ReplyReceived)["reply_code"])
    mails = read_mails(workspace.settings, workspace.clock() - _LOOKS_BACK, answered)
    return record_mails(workspace, mails, as_of, requested_by)


def record_mails(workspace: Workspace, mails: Iterable[Received], as_of: date, requested_by: str) -> Counter[str]:
    """Record what these mails tell; in the words of `read_mailbox`, how many were what."""
    known = find_message_codes(workspace.read_events(), workspace.name)
    counts: Counter[str] = Counter()
    for received in mails:
        try:
            found = classify(received.data, workspace.settings.mail_from)
        except Exception:  # whatever a hostile mail does to the parser, the next one is read
            counts["unreadable"] += 1
            continue
        # Never later than today: a fold as of today shows what was read today.
        received_on = min(london_day(received.received_at), as_of)
        told = _derive_event(workspace, found, known, received_on, requested_by)
        if told is None:
            counts["passed_over"] += 1
            continue
        word, event = told
        with workspace.ledger.writing() as writing:
            if event.key in writing.find_keys([event.key]):
                word = "known"
            else:
                writing.append([event])
        counts[word] += 1
    return counts


def _derive_event(
    workspace: Workspace, found: Bounce | Reply | None, known: Known, received_on: date, requested_by: str
) -> tuple[str, Event] | None:
    """What a mail was, and what is recorded of it; None: nothing."""
    if isinstance(found, Bounce) and found.code in known:
        about = known[found.code]
        bounced = MessageBounced(
            occurred_on=received_on, requested_by=requested_by, site_id=about["site_id"],
            message_id=about["message_id"], persistence=found.persistence, status=found.status,
            address_code=about["address_code"],
        )  # fmt: skip
        return ("bounced" if found.persistence == "permanent" else "delayed"), bounced
    # An answer to messages that are not ours is one to another study, or to a rehearsal, by the same mailbox.
    if isinstance(found, Reply) and (not found.codes or any(code in known for code in found.codes)):
        about = _find_about(found, known, compute_address_code(workspace.study.study_id, found.address))
        received = ReplyReceived(
            occurred_on=received_on, requested_by=requested_by, site_id=about["site_id"], reply_code=found.reply_code,
            message_id=about["message_id"], person_id=about["person_id"], is_automatic=found.is_automatic,
        )  # fmt: skip
        return ("automatic" if found.is_automatic else "answered" if about["person_id"] else "unmatched"), received
    return None


def _find_about(reply: Reply, known: Known, address_code: str) -> Mapping[str, str]:
    """The message that was answered; else whom we last wrote to at this address, and no message; else nobody."""
    for code in reply.codes:
        if code in known:
            return known[code]
    for message in reversed(list(known.values())):
        if message["address_code"] == address_code:
            return {**message, "message_id": ""}
    return {"site_id": "", "message_id": "", "person_id": ""}


# ---------------------------------------------------------------- what a mail is


def classify(data: bytes, mail_from: str) -> Bounce | Reply | None:
    """A report that a message of ours came back or is late, an answer, or nothing that concerns us: our own mail, a
    report that all went well, a bounce of somebody else's mail."""
    mail = message_from_bytes(data)
    sender = parseaddr(_text(mail["From"]))[1]
    if mail["X-Summative-Message"] is not None and sender.casefold() == mail_from.casefold():
        return None
    report = (
        _text(mail.get_param("report-type", "")).casefold() if mail.get_content_type() == "multipart/report" else ""
    )
    if report == "delivery-status":
        return _read_report(mail)
    is_from_server = _BOUNCE_SENDER.search(_text(mail["From"])) or _text(mail["Return-Path"]).strip() == "<>"
    if is_from_server and (_BOUNCE_TITLE.search(_text(mail["Subject"])) or "X-Failed-Recipients" in mail):
        return _read_older_bounce(mail, data)
    is_automatic = report == "disposition-notification" or _is_automatic(mail)
    return Reply(compute_reply_code(mail, data), _find_codes(mail), sender, is_automatic)


def compute_reply_code(mail: Message, data: bytes) -> str:
    """Of its Message-ID; of the whole mail where it has none."""
    return hashlib.sha256(_text(mail["Message-ID"]).strip().encode() or data).hexdigest()[:_CODE_DIGITS]


def _is_automatic(mail: Message) -> bool:
    """RFC 3834, and what was used before it and beside it."""
    told = _text(mail["Auto-Submitted"]).partition(";")[0].strip().casefold()
    if told not in ("", "no"):
        return True
    if any(mail[name] is not None for name in ("X-Autoreply", "X-Autorespond", "X-Auto-Response-Suppress")):
        return True
    if _text(mail["Precedence"]).strip().casefold() in ("auto_reply", "bulk", "junk", "list"):
        return True
    return _ABSENT.search(_text(mail["Subject"]).strip()) is not None


def _find_codes(mail: Message) -> tuple[str, ...]:
    """What is answered first, then what came before it, the latest first."""
    quoted = [_text(mail["In-Reply-To"]), *reversed(_text(mail["References"]).split())]
    found = (match[1].lower() for text in quoted for match in OUR_MESSAGE_ID.finditer(text))
    return tuple(dict.fromkeys(found))


def _read_report(mail: Message) -> Bounce | None:
    """RFC 3464: a block for each recipient. We write to one, so the worst of them is ours."""
    worst: tuple[int, str] = (0, "")
    for part in mail.walk():
        if part.get_content_type() == "message/delivery-status":
            for block in part.get_payload():
                if isinstance(block, Message):
                    action = _text(block["Action"]).strip().casefold()
                    found = _STATUS.search(_text(block["Status"]))
                    worst = max(worst, ({"failed": 2, "delayed": 1}.get(action, 0), found[1] if found else ""))
    code = _find_original(mail)
    if not worst[0] or not code:
        return None
    return Bounce(code, "permanent" if worst[0] == 2 else "temporary", worst[1])


def _find_original(mail: Message) -> str:
    """The code of our message, from the headers that came back with the report; else from what it answers or quotes."""
    for part in mail.walk():
        kind = part.get_content_type()
        if kind == "message/rfc822":
            inner = part.get_payload(0) if part.is_multipart() else None
            text = _text(inner["Message-ID"]) if isinstance(inner, Message) else ""
        elif kind in ("text/rfc822-headers", "message/rfc822-headers"):
            text = _read_text(part)
        else:
            continue
        if found := OUR_MESSAGE_ID.search(text):
            return found[1].lower()
    if codes := _find_codes(mail):
        return codes[0]
    found = OUR_MESSAGE_ID.search(" ".join(_read_text(part) for part in mail.walk() if not part.is_multipart()))
    return found[1].lower() if found else ""


def _read_older_bounce(mail: Message, data: bytes) -> Bounce | None:
    """A bounce in words. The first code of the server in it counts; without one it is for good, unless it says that the
    server goes on trying."""
    code = _find_original(mail)
    if not code and (found := OUR_MESSAGE_ID.search(data.decode("ascii", "replace"))):
        code = found[1].lower()
    if not code:
        return None
    text = " ".join(_read_text(part) for part in mail.walk() if not part.is_multipart())
    own_words = re.split(r"(?m)^-{2,}|^Message-ID:", text)[0] or text
    told = _STATUS.search(own_words) or _PLAIN_STATUS.search(own_words)
    status = told[1] if told else ""
    is_late = status.startswith("4") or (
        not status and _LATE.search(f"{_text(mail['Subject'])} {own_words}") is not None
    )
    return Bounce(code, "temporary" if is_late else "permanent", status)


def _text(value: object) -> str:
    return str(value) if isinstance(value, str | Header) else ""


def _read_text(part: Message) -> str:
    payload = part.get_payload(decode=True)
    return payload.decode("utf-8", "replace") if isinstance(payload, bytes) else str(part.get_payload())


# ---------------------------------------------------------------- where mail lies


def read_mails(settings: Settings, since: datetime, answered: Container[str] = ()) -> Iterator[Received]:
    """Every mail that came since a moment, the oldest first, but those whose reply code is in `answered`, if the server
    lets us see that without fetching them. Raises MailboxUnavailable."""
    url = urlsplit(settings.imap_url)
    if url.scheme == "maildir":
        yield from _read_maildir(Path(f"{url.netloc}{unquote(url.path)}"), since)
        return
    if url.scheme != "imaps" or not url.hostname or not url.username or url.password:
        raise MailboxUnavailable(
            "The setting imap_url is no mailbox. Write imaps://name@mail.example.org:993 and the password into "
            "imap_password, or maildir:path."
        )
    port = url.port or _IMAPS_PORT
    place = f"The mailbox at {url.hostname}:{port}"
    try:
        context = ssl.create_default_context(cafile=settings.mail_authority or None)
        with imaplib.IMAP4_SSL(url.hostname, port, ssl_context=context, timeout=settings.mail_seconds) as connection:
            yield from _read_imap(connection, unquote(url.username), settings, since, answered)
        return
    except ssl.SSLCertVerificationError:
        fault = f"{place} shows a certificate that is not trusted. Look at imap_url, or set mail_authority."
    except imaplib.IMAP4.abort:
        fault = f"{place} broke off. The next run reads on."
    except imaplib.IMAP4.error:
        fault = f"{place} refuses the login or has no folder {settings.mail_folder}. Look at the settings imap_url, "
        fault += "imap_password and mail_folder."
    except OSError as broken:
        fault = f"{place} cannot be reached ({broken.strerror or type(broken).__name__}). The next run reads on."
    raise MailboxUnavailable(fault)


def _read_imap(
    connection: imaplib.IMAP4_SSL, name: str, settings: Settings, since: datetime, answered: Container[str]
) -> Iterator[Received]:
    connection.login(name, settings.imap_password.get_secret_value())
    _demand(connection.select(f'"{settings.mail_folder}"', readonly=True))
    day = since.astimezone(UTC) - timedelta(days=1)  # a server counts days by a clock of its own
    (found,) = _demand(connection.uid("SEARCH", "SINCE", f"{day.day}-{_MONTHS[day.month - 1]}-{day.year}"))
    for uid in found.split():
        head = _fetch(connection, uid, "BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)]")
        if head is None or compute_reply_code(message_from_bytes(head[1]), b"") in answered:
            continue
        whole = _fetch(connection, uid, f"INTERNALDATE BODY.PEEK[]<0.{_LARGEST_BYTES}>")
        came = imaplib.Internaldate2tuple(whole[0]) if whole else None
        if whole and came:
            yield Received(whole[1], datetime.fromtimestamp(time.mktime(came), UTC))


def _fetch(connection: imaplib.IMAP4_SSL, uid: bytes, what: str) -> tuple[bytes, bytes] | None:
    """The server's words and the bytes of a mail; None where it is gone."""
    answer = _demand(connection.uid("FETCH", uid.decode(), f"({what})"))
    return next((part for part in answer if isinstance(part, tuple)), None)


def _demand(answer: tuple[str, list[Any]]) -> list[Any]:
    if answer[0] != "OK":
        raise imaplib.IMAP4.error
    return answer[1]


def _read_maildir(folder: Path, since: datetime) -> Iterator[Received]:
    found = []
    try:
        for part in ("new", "cur"):
            for path in (folder / part).iterdir():
                with suppress(FileNotFoundError):  # a mail program has moved it meanwhile
                    came = datetime.fromtimestamp(path.stat().st_mtime, UTC)
                    if came >= since:
                        with path.open("rb") as file:
                            found.append((came, path.name, file.read(_LARGEST_BYTES)))
    except OSError as broken:
        fault = f"The folder that imap_url names is no Maildir that can be read ({broken.strerror})."
    else:
        yield from (Received(data, came) for came, _, data in sorted(found))
        return
    raise MailboxUnavailable(fault)
