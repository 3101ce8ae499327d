"""A real post office for the tests: Exim takes mail, delivers it, bounces it and answers for who is away; Dovecot lets
it be read by IMAP.

Both end with the test run and keep everything in a temporary folder. They must be started as root, as mail servers are.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email import message_from_bytes
from email.message import EmailMessage, Message
from pathlib import Path
from signal import SIGTERM
from typing import Any

import trustme

from tests.services import STARTUP_SECONDS, ServiceFailed, ServiceMissing, _read_end, _start, _stop, find_free_ports

NAME = "study"
ACCOUNT = "mail"  # what mail lies there belongs to it

_EXIM = """
primary_hostname = post.example
exim_user = {account}
exim_group = {account}
never_users =
domainlist local = luton.example : summative.example
spool_directory = {folder}/spool
log_file_path = {folder}/exim-%s.log
pid_file_path = {folder}/exim.pid
daemon_smtp_ports = {smtp_port}
local_interfaces = 127.0.0.1
tls_certificate = {folder}/own.pem
tls_privatekey = {folder}/own.key
tls_advertise_hosts = *
acl_smtp_rcpt = acl_rcpt
acl_smtp_data = acl_data
host_lookup =
rfc1413_hosts =
keep_environment =
delay_warning = 1s
delay_warning_condition = yes
queue_run_max = 5

begin acl
acl_rcpt:
  accept authenticated = *
  deny message = relay not permitted
acl_data:
  accept

begin routers
absent:
  driver = accept
  domains = luton.example
  local_parts = absent
  transport = absence_notice
people:
  driver = accept
  domains = +local
  local_parts = study : anna
  transport = into_maildir
unreachable:
  driver = manualroute
  domains = far.example
  route_list = far.example 127.0.0.1::{closed_port}
  transport = over_smtp
  self = send

begin transports
into_maildir:
  driver = appendfile
  directory = {folder}/mail/$local_part_data
  maildir_format
  user = {account}
over_smtp:
  driver = smtp
  allow_localhost
absence_notice:
  driver = autoreply
  user = {account}
  from = absent@luton.example
  to = $sender_address
  subject = "Away until Monday"
  text = "I am away."

begin retry
* * F,1h,1s

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_condition = ${{if and{{{{eq{{$auth2}}{{{name}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_set_id = $auth2
"""

_DOVECOT = """
protocols = imap
listen = 127.0.0.1
base_dir = {folder}/dovecot
state_dir = {folder}/dovecot
log_path = {folder}/dovecot.log
ssl = required
ssl_cert = <{folder}/own.pem
ssl_key = <{folder}/own.key
disable_plaintext_auth = yes
mail_location = maildir:{folder}/mail/%u
first_valid_uid = 1
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={account} gid={account} home={folder}/mail
}}
service imap-login {{
  inet_listener imap {{
    port = 0
  }}
  inet_listener imaps {{
    port = {imap_port}
    ssl = yes
  }}
}}
"""


class PostOffice:
    """Running servers with one mailbox that the product reads and one person who gets its mail."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.password = secrets.token_hex(12)
        self.smtp_port, self.imap_port, self.closed_port = find_free_ports(3)
        self.authority = folder / "authority.pem"

    @property
    def settings(self) -> dict[str, Any]:
        """The product's settings for these servers."""
        return {
            "smtp_url": f"smtp://{NAME}@localhost:{self.smtp_port}",
            "smtp_password": self.password,
            "imap_url": f"imaps://{NAME}@localhost:{self.imap_port}",
            "imap_password": self.password,
            "mail_from": "study@summative.example",
            "mail_authority": str(self.authority),
        }

    @property
    def mailbox(self) -> Path:
        """The Maildir that the mailbox is."""
        return self.folder / "mail" / NAME

    def read_mail(self, name: str) -> list[Message]:
        """What lies in somebody's mailbox, the oldest first."""
        paths = [path for part in ("new", "cur") for path in (self.folder / "mail" / name / part).glob("*")]
        return [message_from_bytes(path.read_bytes()) for path in sorted(paths, key=lambda path: path.stat().st_mtime)]

    def wait_for_mail(self, name: str, n: int) -> list[Message]:
        """As soon as there are so many; the queue is run meanwhile."""
        deadline = time.monotonic() + STARTUP_SECONDS
        while len(found := self.read_mail(name)) < n:
            if time.monotonic() > deadline:
                log = _read_end(self.folder / "exim-main.log")
                raise ServiceFailed(f"Exim delivered {len(found)} messages to {name} instead of {n}:\n{log}")
            command = [_find("exim4"), "-C", str(self.folder / "exim.conf"), "-qf"]
            subprocess.run(command, check=True, timeout=60, stderr=subprocess.DEVNULL)
            time.sleep(0.5)
        return found

    def drop(self, mail: EmailMessage | bytes) -> None:
        """Lay a mail into the mailbox, as if it had just come."""
        (self.mailbox / "tmp").mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns()}.dropped.post"
        path = self.mailbox / "tmp" / name
        path.write_bytes(mail if isinstance(mail, bytes) else mail.as_bytes())
        shutil.chown(path, ACCOUNT)
        path.rename(self.mailbox / "new" / name)

    def empty(self) -> None:
        """Forget what was delivered, and what still waits to be."""
        for path in [*(self.folder / "mail").glob("*/*/*"), *(self.folder / "spool" / "input").glob("*")]:
            if path.is_file():
                path.unlink()


@contextmanager
def run_post_office() -> Iterator[PostOffice]:
    """Raises ServiceMissing, ServiceFailed."""
    exim, dovecot = _find("exim4"), _find("dovecot")
    if os.geteuid() != 0:
        raise ServiceMissing("Exim and Dovecot: must be started as root here. Run these tests as root.")
    folder = Path(tempfile.mkdtemp(prefix="summative-post-"))
    processes = []
    try:
        office = PostOffice(folder)
        _prepare(office)
        for command, log in (
            ([exim, "-C", str(folder / "exim.conf"), "-bdf"], folder / "exim-out.log"),
            ([dovecot, "-F", "-c", str(folder / "dovecot.conf")], folder / "dovecot-out.log"),
        ):
            processes.append(_start(command, log, stop_signal=SIGTERM, folder=folder))
        _wait(office, processes)
        yield office
    finally:
        for process in reversed(processes):
            _stop(process, SIGTERM)
        shutil.rmtree(folder, ignore_errors=True)


def _find(program: str) -> str:
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    if not found:
        raise ServiceMissing(
            f"{program}: not on this machine. Install the mail servers (apt-get install exim4-daemon-light "
            "dovecot-imapd) and run the tests again."
        )
    return found


def _prepare(office: PostOffice) -> None:
    folder = office.folder
    folder.chmod(0o755)
    ca = trustme.CA()
    ca.cert_pem.write_to_path(office.authority)
    own = ca.issue_cert("localhost", "127.0.0.1")
    (folder / "own.pem").write_bytes(b"".join(part.bytes() for part in own.cert_chain_pems))
    own.private_key_pem.write_to_path(folder / "own.key")
    for name in (NAME, "anna"):
        for part in ("new", "cur", "tmp"):
            (folder / "mail" / name / part).mkdir(parents=True)
    entry = pwd.getpwnam(ACCOUNT)
    for path in [folder, folder / "mail", *(folder / "mail").rglob("*")]:
        os.chown(path, entry.pw_uid, entry.pw_gid)
    values = {
        "folder": folder, "smtp_port": office.smtp_port, "imap_port": office.imap_port, "account": ACCOUNT,
        "closed_port": office.closed_port, "name": NAME, "password": office.password,
    }  # fmt: skip
    (folder / "exim.conf").write_text(_EXIM.format(**values))
    (folder / "dovecot.conf").write_text(_DOVECOT.format(**values))
    for path in (folder / "own.key", folder / "own.pem"):
        path.chmod(0o644)  # Exim reads them as its own account; the folder ends with the tests


def _wait(office: PostOffice, processes: list[subprocess.Popen[bytes]]) -> None:
    context = ssl.create_default_context(cafile=office.authority)
    deadline = time.monotonic() + STARTUP_SECONDS
    while time.monotonic() < deadline and all(process.poll() is None for process in processes):
        with suppress(OSError):
            with socket.create_connection(("127.0.0.1", office.smtp_port), timeout=2) as plain:
                greeted = plain.recv(3) == b"220"
            with (
                socket.create_connection(("localhost", office.imap_port), timeout=2) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as wrapped,
            ):
                greeted = greeted and wrapped.recv(4) == b"* OK"
            if greeted:
                return
        time.sleep(0.05)
    logs = sorted(office.folder.glob("*.log"))
    raise ServiceFailed("The mail servers did not come up:\n" + "\n".join(f"{p.name}: {_read_end(p)}" for p in logs))


if __name__ == "__main__":
    with run_post_office() as shown:
        sys.stdout.write(f"{shown.settings}\n")
        time.sleep(600)
