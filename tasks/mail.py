"""Mail as it goes out: a message as RFC 5322 text, handed to an SMTP server or written to a folder.

A server took a message, or it did not, or nobody can know: if the connection ends between the last dot and the server's
answer. The three are told apart here, since a message of which it is not known must never be sent again by itself.
"""

from __future__ import annotations

import re
import select
import smtplib
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from functools import lru_cache
from pathlib import Path
from time import monotonic
from typing import Literal, Protocol, Self
from urllib.parse import SplitResult, unquote, urlsplit

from study.calendar import LONDON
from tasks.files import FolderArea, safe_name
from tasks.orchestration import StepFailed
from tasks.settings import Settings

OUTBOX_FOLDER = "outbox_mail"
_ACCEPTING = 10  # so many times longer may a server take over a whole message as over a step (RFC 5321, 4.5.3.2.6)
_ENHANCED = re.compile(rb"^\s*([245]\.\d{1,3}\.\d{1,3})\b")
_LONGEST_LISTENING = 0.25  # seconds
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_SPECIALS = re.compile(r"""[][()<>@,:;.\\"]+""")
_WELL, _GOES_ON, _FOR_NOW = 2, 3, 4  # first digits of an answer
_CLOSING = 421


class MailUnavailable(StepFailed):
    """The mail server cannot be worked with at all, as things stand. What waits goes on waiting."""


class MailRefused(StepFailed):
    """A message that cannot be sent as it is."""


class AddressRefused(MailRefused):
    """An address that no server could take, by its form."""


@dataclass(frozen=True)
class Mail:
    """What the headers of one message are made of. `code`: of the message, as in its Message-ID."""

    code: str
    attempt: int
    name: str
    address: str
    subject: str
    text: str
    html: str
    dated_at: datetime


@dataclass(frozen=True)
class Outcome:
    """What became of a message. "unknown": the server took it, or not. `status`: the server's code.

    `trouble`: "connection" where it broke, so that the next message may still fare better; "account" where the server
    does not let us send at all.
    """

    result: Literal["sent", "permanent", "temporary", "unknown"]
    status: str = ""
    trouble: Literal["", "connection", "account"] = ""


def compute_message_id(code: str, attempt: int, mail_from: str) -> str:
    """The same for the same message and attempt, whenever and wherever it is made."""
    return f"<summative.{code}.{attempt}@{mail_from.rpartition('@')[2] or 'study.invalid'}>"


def write_mail(mail: Mail, settings: Settings, sender_name: str) -> bytes:
    """Text and HTML as one message with CRLF lines, all ASCII on the wire; the same inputs give the same bytes.

    Raises AddressRefused for the recipient's address, MailRefused for a header that no mail can have.
    """
    message = make_headers(mail, settings, sender_name)
    message.set_content(mail.text, charset="utf-8", cte="quoted-printable")
    message.add_alternative(mail.html, subtype="html", charset="utf-8", cte="quoted-printable")
    message.set_boundary(f"=_summative_{mail.code}_{mail.attempt}")
    return message.as_bytes()


def make_headers(mail: Mail, settings: Settings, sender_name: str) -> EmailMessage:
    """A message that has its headers and says nothing yet. Raises as `write_mail` does."""
    message = EmailMessage(policy=SMTP)
    recipient = parse_address(mail.address)
    try:
        message["From"] = _fit_address("From", settings.mail_from_name or sender_name, settings.mail_from)
        message["To"] = _fit_address("To", mail.name, recipient.addr_spec)
        message["Subject"] = mail.subject
        message["Date"] = format_datetime(mail.dated_at.astimezone(LONDON))
        message["Message-ID"] = compute_message_id(mail.code, mail.attempt, settings.mail_from)
        message["Auto-Submitted"] = "auto-generated"
        message["X-Summative-Message"] = f"{mail.code}.{mail.attempt}"
        if settings.mail_reply_to:
            message["Reply-To"] = Address(addr_spec=settings.mail_reply_to)
        return message
    except (ValueError, IndexError, MessageError):
        # The texts of these faults quote what they tripped over.
        refused = MailRefused(
            "A message has a name or a subject that mail cannot carry. Look at the contacts, the letter's template and "
            "the settings mail_from, mail_from_name and mail_reply_to."
        )
    raise refused


@lru_cache(maxsize=256)
def _fit_address(header: str, name: str, address: str) -> Address:
    """A name that needs more than one line goes without the characters that only quotes allow (RFC 5322, 3.2.3).

    Python's email library drops the quotes of a name that it folds, and "A study: its long title" would then be read
    as a group of addresses.
    """
    whole = Address(name, addr_spec=address)
    if "\r\n " in SMTP.header_factory(header, whole).fold(policy=SMTP):
        return Address(" ".join(_SPECIALS.sub(" ", name).split()), addr_spec=address)
    return whole


def parse_address(address: str) -> Address:
    """The address, its domain as it stands on the wire. Raises AddressRefused where not every server could take it."""
    local, _, domain = address.rpartition("@")
    try:
        wired = f"{local}@{domain.encode('idna').decode()}"
        if _ADDRESS.fullmatch(wired):
            return Address(addr_spec=wired)
    except (ValueError, IndexError, MessageError):  # their texts quote the address
        pass
    raise AddressRefused("An address is not one that mail can go to. Look at the contacts.")


class Transport(Protocol):
    """A way out. Used by one thread, within `with`."""

    way: Literal["smtp", "folder"]
    """By "folder" a message that is handed over again under the same attempt is one message still."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: object, fault: object, at: object) -> None: ...

    def prepare(self) -> None:
        """Be ready for the next message. Raises MailUnavailable."""

    def hand_over(self, name: str, address: str, data: bytes) -> Outcome:
        """`name`: of the message and attempt, for who keeps files."""

    def has(self, name: str) -> bool:
        """Whether this message and attempt went out. Of a mail server nobody can ask that."""


class FolderTransport:
    """Messages as files (.eml), which a mail program opens; a file appears whole or not at all. `is_synced`: as of a
    FolderArea."""

    way: Literal["smtp", "folder"] = "folder"

    def __init__(self, folder: Path, *, is_synced: bool = True) -> None:
        self.folder = folder
        self._area = FolderArea(folder, is_synced=is_synced)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, fault: object, at: object) -> None:
        pass

    def prepare(self) -> None:
        pass

    def hand_over(self, name: str, address: str, data: bytes) -> Outcome:
        self._area.put(_name_file(name), data)
        return Outcome("sent")

    def has(self, name: str) -> bool:
        return self._area.has(_name_file(name))


def _name_file(name: str) -> str:
    return f"{safe_name(name)}.eml"


class SmtpTransport:
    """One connection to a server, encrypted and logged in, made when the first message needs it and kept."""

    way: Literal["smtp", "folder"] = "smtp"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._url = _parse_url(settings.smtp_url)
        self._connection: smtplib.SMTP | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, fault: object, at: object) -> None:
        if self._connection is not None and fault is None:
            with suppress(OSError, smtplib.SMTPException):
                self._connection.quit()
        self._drop()

    def prepare(self) -> None:
        """Raises MailUnavailable: no connection, no encryption, or the login was refused."""
        if self._connection is not None:
            return
        url, settings = self._url, self._settings
        host, port = url.hostname or "", url.port or 0
        own_name = settings.mail_from.rpartition("@")[2]  # else it is asked of a name server, which may take its time
        place, seconds = f"The mail server {host}:{port}", settings.mail_seconds
        try:
            context = ssl.create_default_context(cafile=settings.mail_authority or None)
            if url.scheme == "smtps":
                self._connection = smtplib.SMTP_SSL(host, port, own_name, timeout=seconds, context=context)
            else:
                self._connection = smtplib.SMTP(host, port, own_name, timeout=seconds)
                self._connection.starttls(context=context)
            if url.username:
                self._connection.login(unquote(url.username), settings.smtp_password.get_secret_value())
            self._connection.ehlo_or_helo_if_needed()
            if self._connection.sock is not None:  # or the last dot waits for the text before it to be acknowledged
                self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return
        except smtplib.SMTPAuthenticationError as refused:
            fault = f"{place} refuses the login ({refused.smtp_code}). Look at the settings smtp_url and smtp_password."
        except smtplib.SMTPNotSupportedError:
            fault = f"{place} offers no encryption or no login. Mail is not sent in the clear: look at smtp_url."
        except ssl.SSLCertVerificationError:
            fault = f"{place} shows a certificate that is not trusted. Look at smtp_url, or set mail_authority."
        except smtplib.SMTPResponseException as refused:
            fault = f"{place} does not take mail now ({refused.smtp_code})."
        except smtplib.SMTPException as broken:
            fault = f"{place} broke off ({type(broken).__name__})."
        except OSError as broken:
            fault = f"{place} cannot be reached ({broken.strerror or type(broken).__name__})."
        self._drop()
        raise MailUnavailable(f"{fault} What waits goes out with the next run of today.")

    def hand_over(self, name: str, address: str, data: bytes) -> Outcome:
        """One message to one address. A connection that the server has closed meanwhile is made anew, once."""
        refused: Outcome | None = None
        for _ in range(2):
            try:
                self.prepare()
            except MailUnavailable:
                return Outcome("temporary", trouble="account")
            refused = self._try(lambda: self._name_both(address))
            if refused is None or refused.trouble != "connection":
                break
        return self._transmit(data) if refused is None else refused

    def _name_both(self, address: str) -> Outcome | None:
        """Sender and recipient; None: the server waits for the message."""
        connection = self._connected()
        code, words = connection.mail(self._settings.mail_from)
        if code // 100 != _WELL:
            refused = self._refuse(code, words)
            return refused if refused.trouble else Outcome("temporary", refused.status, "account")
        code, words = connection.rcpt(parse_address(address).addr_spec)
        if code // 100 == _WELL:
            return None
        refused = self._refuse(code, words)
        # Many servers say with the code of a wrong address that they do not relay for whoever sends.
        return Outcome("temporary", refused.status, "account") if b"relay" in words.lower() else refused

    def _transmit(self, data: bytes) -> Outcome:
        asked_at = monotonic()
        if (refused := self._try(self._begin)) is not None:
            return refused
        round_trip = min(monotonic() - asked_at, _LONGEST_LISTENING)
        connection = self._connected()
        lines = re.sub(rb"(?m)^\.", b"..", data if data.endswith(b"\r\n") else data + b"\r\n")
        # Until the last dot has left here, the server cannot take the message, whatever happens. So it is listened to
        # once more: one that has closed the connection amid the message is then known not to have taken it.
        if (broken := self._try(lambda: connection.send(lines))) is not None:
            return broken
        if connection.sock is not None and select.select([connection.sock], [], [], round_trip)[0]:
            self._drop()
            return Outcome("temporary", trouble="connection")
        try:
            if connection.sock is not None:
                connection.sock.settimeout(self._settings.mail_seconds * _ACCEPTING)
            connection.send(b".\r\n")
            code, words = connection.getreply()
            if connection.sock is not None:
                connection.sock.settimeout(self._settings.mail_seconds)
        except (OSError, smtplib.SMTPException):
            self._drop()
            return Outcome("unknown", trouble="connection")
        return Outcome("sent") if code // 100 == _WELL else self._refuse(code, words)

    def _begin(self) -> Outcome | None:
        code, words = self._connected().docmd("DATA")
        return None if code // 100 == _GOES_ON else self._refuse(code, words)

    def _refuse(self, code: int, words: bytes) -> Outcome:
        """What the server's no means; the connection is made ready for the next message."""
        status = _find_status(code, words)
        if code == _CLOSING:
            self._drop()
            return Outcome("temporary", status, "connection")
        try:
            self._connected().rset()
        except (OSError, smtplib.SMTPException):
            self._drop()
        return Outcome("temporary" if code // 100 == _FOR_NOW else "permanent", status)

    def _try(self, step: Callable[[], Outcome | None]) -> Outcome | None:
        """What a step gives. A connection that ends in it has certainly not taken the message."""
        try:
            return step()
        except (OSError, smtplib.SMTPException):
            self._drop()
            return Outcome("temporary", trouble="connection")

    def _connected(self) -> smtplib.SMTP:
        if self._connection is None:
            raise smtplib.SMTPServerDisconnected("no connection")
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(OSError):
                self._connection.close()
            self._connection = None

    def has(self, name: str) -> bool:
        raise RuntimeError("What a mail server took, only people can find out.")


def _find_status(code: int, words: bytes) -> str:
    """The code of three parts if the server gives one, else its plain one."""
    enhanced = _ENHANCED.match(words)
    return enhanced[1].decode() if enhanced else str(code)


def _parse_url(text: str) -> SplitResult:
    """Raises MailUnavailable for a URL that names no encrypted server."""
    try:
        url = urlsplit(text)
        ports = {"smtp": 587, "smtps": 465}
        if url.scheme in ports and url.hostname and not url.password:
            return url if url.port else url._replace(netloc=f"{url.netloc.rstrip(':')}:{ports[url.scheme]}")
    except ValueError:
        pass
    raise MailUnavailable(
        "The setting smtp_url is no mail server. Write smtp://name@mail.example.org:587 or "
        "smtps://name@mail.example.org:465, and the password into smtp_password."
    )
