"""A real SMTP server for the tests, in a process of its own: TLS, login, and faults on demand.

It takes mail by STARTTLS or TLS from the start, after a login, and writes each message that it accepts to a folder
before it answers. Which faults it shows it reads from a file, so a test changes them while the server runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from signal import SIGKILL
from typing import Any, Literal

import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from tests.services import STARTUP_SECONDS, ServiceFailed, _read_end, _start, _stop, find_free_ports

ROOT = Path(__file__).resolve().parent.parent
NAME = "study"
Security = Literal["starttls", "tls"]


@dataclass(frozen=True)
class Delivered:
    """A message that the server accepted."""

    sender: str
    address: str
    message: Message

    @property
    def message_id(self) -> str:
        return str(self.message["Message-ID"])


class MailServer:
    """A server and the one login that it takes. `authority`: a file of whom to trust; `port` stays over a new start."""

    def __init__(self, folder: Path, security: Security) -> None:
        self.folder = folder
        self.security = security
        self.authority = folder / "authority.pem"
        self.password = secrets.token_urlsafe(12)
        self.port = find_free_ports(1)[0]
        self._process: subprocess.Popen[bytes] | None = None
        ca = trustme.CA()
        ca.cert_pem.write_to_path(self.authority)
        ca.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "own.pem")
        (folder / "accepted").mkdir()
        (folder / "password").write_text(self.password)
        self.show_faults()

    def start(self) -> None:
        """Raises ServiceFailed."""
        log = self.folder / "server.log"
        command = [sys.executable, "-m", "tests.mail_servers", str(self.folder), str(self.port), self.security]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = _start(command, log, stop_signal=SIGKILL, folder=self.folder, environment=environment)
        deadline = time.monotonic() + STARTUP_SECONDS
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServiceFailed(f"The SMTP server did not come up:\n{_read_end(log)}")
            time.sleep(0.02)

    def end(self) -> None:
        """At once, whatever it is doing."""
        if self._process is not None:
            _stop(self._process, SIGKILL)

    def empty(self) -> None:
        """Forget what was accepted, and show no faults."""
        self.show_faults()
        for path in (self.folder / "accepted").iterdir():
            path.unlink()

    @property
    def url(self) -> str:
        scheme = "smtps" if self.security == "tls" else "smtp"
        return f"{scheme}://{NAME}@localhost:{self.port}"

    @property
    def settings(self) -> dict[str, Any]:
        """The product's settings for this server."""
        return {
            "smtp_url": self.url,
            "smtp_password": self.password,
            "mail_from": "study@summative.example",
            "mail_authority": str(self.authority),
        }

    def show_faults(self, **faults: float | str | bool) -> None:
        """From the next command on, these faults and no others.

        `delay`: seconds before a message is accepted. By pattern of the recipient's address: `refused` (550),
        `refused_for_now` (451), `closed_within` (closes amid the message), `closed_after` (accepts, and closes before
        it answers), `rejected` (554 5.7.1 after the message). `no_login`: refuses every login. `no_sender`: refuses
        every sender. `no_relay`: refuses every recipient, for our account's sake.
        """
        new = self.folder / "faults.new"
        new.write_text(json.dumps(faults))
        new.replace(self.folder / "faults.json")

    def read_delivered(self) -> list[Delivered]:
        """What was accepted, in order."""
        found = []
        for path in sorted((self.folder / "accepted").glob("*.eml")):
            envelope, _, data = path.read_bytes().partition(b"\n")
            told = json.loads(envelope)
            found.append(Delivered(told["from"], told["to"], message_from_bytes(data)))
        return found


@contextmanager
def run_smtp(security: Security = "starttls") -> Iterator[MailServer]:
    """A server of its own, which ends with the tests. Raises ServiceFailed."""
    folder = Path(tempfile.mkdtemp(prefix="summative-smtp-"))
    try:
        server = MailServer(folder, security)
        try:
            server.start()
            yield server
        finally:
            server.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


# ---------------------------------------------------------------- the server's own process


class _Handler:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # One that was emptied and restarted goes on behind what lies there, and writes over nothing.
        self.n_accepted = max((int(path.stem) for path in (folder / "accepted").glob("*.eml")), default=0)

    def faults(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "faults.json").read_text()))

    def is_meant(self, fault: str, address: str) -> bool:
        pattern = self.faults().get(fault, "")
        return bool(pattern) and re.search(pattern, address) is not None

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.faults().get("no_sender"):
            return "550 5.7.1 Sender not allowed"
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.faults().get("no_relay"):
            return "550 relay not permitted"
        if self.is_meant("refused", address):
            return "550 5.1.1 No such person here"
        if self.is_meant("refused_for_now", address):
            return "451 4.3.0 Try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: _Server, session: Session, envelope: Envelope) -> str:
        (address,) = envelope.rcpt_tos
        await asyncio.sleep(self.faults().get("delay", 0.0))
        if self.is_meant("rejected", address):
            return "554 5.7.1 Content not welcome"
        self.n_accepted += 1
        path = self.folder / "accepted" / f"{self.n_accepted:06}.eml"
        head = json.dumps({"from": envelope.mail_from, "to": address}).encode()
        assert isinstance(envelope.original_content, bytes)
        path.with_suffix(".new").write_bytes(head + b"\n" + envelope.original_content)
        path.with_suffix(".new").replace(path)
        if self.is_meant("closed_after", address):
            server.cut()
        return "250 2.0.0 Accepted"


class _Server(SMTP):
    event_handler: _Handler

    async def smtp_DATA(self, arg: str) -> None:
        assert self.envelope is not None
        if self.envelope.rcpt_tos and self.event_handler.is_meant("closed_within", self.envelope.rcpt_tos[0]):
            await self.push("354 Go on")
            await self._reader.readuntil(b"\r\n")
            self.cut()
            return
        await super().smtp_DATA(arg)

    def cut(self) -> None:
        assert self.transport is not None
        self.transport.abort()  # type: ignore[attr-defined]  # every transport of asyncio's servers can


def serve(folder: Path, port: int, security: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "own.pem")
    password = (folder / "password").read_bytes()
    handler = _Handler(folder)

    def authenticate(
        server: SMTP, session: Session, envelope: Envelope, mechanism: str, login: LoginPassword
    ) -> AuthResult:
        is_right = (login.login, login.password) == (NAME.encode(), password)
        return AuthResult(success=is_right and not handler.faults().get("no_login"), handled=False)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        is_wrapped = security == "tls"

        def make() -> _Server:
            return _Server(
                handler, hostname="localhost", loop=loop, auth_required=True, authenticator=authenticate,
                tls_context=None if is_wrapped else context, require_starttls=not is_wrapped,
                auth_require_tls=not is_wrapped,
            )  # fmt: skip

        server = await loop.create_server(make, "127.0.0.1", port, ssl=context if is_wrapped else None)
        await server.serve_forever()

    asyncio.run(run())


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
