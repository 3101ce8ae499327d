"""What the tests of a replay share: a Prefect server of their own, the real command, and what a replay left.

A command takes seconds to import what it needs. `Commands` imports it once and gives each command a forked process of
its own, which can be killed like any other.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import IO

from tests.services import STARTUP_SECONDS, ServiceFailed, _read_end, _start, _stop, find_free_ports

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path(sys.executable).with_name("summative")
COMMAND_SECONDS = 1_800.0

_FORKER = """
import json, os, sys
import flows.datasets, flows.study_day
from desk.command_line import main
from tasks.settings import read_settings
print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(order["environment"])
        read_settings.cache_clear()
        sys.argv = ["summative", *order["arguments"]]
        try:
            main()
        except SystemExit as exit:
            status = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
        except BaseException:
            import traceback
            traceback.print_exc()
            status = 99
        else:
            status = 0
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@contextmanager
def run_prefect() -> Iterator[str]:
    """The address of a Prefect server that ends with the tests, whatever was killed. Raises ServiceFailed."""
    folder = Path(tempfile.mkdtemp(prefix="summative-prefect-"))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT")},
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_UI_ENABLED": "0",
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    }
    process: subprocess.Popen[bytes] | None = None
    try:
        log, (port,) = folder / "server.log", find_free_ports(1)
        command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app",
                   "--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on"]  # fmt: skip
        process = _start(command, log, stop_signal=SIGKILL, environment=environment, folder=folder)
        deadline = time.monotonic() + 4 * STARTUP_SECONDS  # it creates its database first
        while process.poll() is None and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2).close()
            except OSError:
                time.sleep(0.1)
            else:
                break
        else:
            raise ServiceFailed(f"Prefect's server did not come up:\n{_read_end(log)}")
        yield f"http://127.0.0.1:{port}/api"
    finally:
        if process is not None:
            _stop(process, SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def make_environment(folder: Path, prefect_url: str, **settings: str) -> dict[str, str]:
    """The environment of a command whose studies lie in `folder`; nothing of this machine's own settings in it."""
    own = {n: v for n, v in os.environ.items() if not n.startswith(("SUMMATIVE", "PREFECT", "PYTEST"))}
    return {
        **own,
        "SUMMATIVE_DATA_FOLDER": str(folder),
        "SUMMATIVE_DATABASE_URL": "",
        "SUMMATIVE_FILES": "",
        "PREFECT_API_URL": prefect_url,
        "PREFECT_HOME": str(folder / "prefect"),
        "COLUMNS": "200",
        **settings,
    }


@dataclass(frozen=True)
class Answer:
    """What a command said, on both channels, and with which status it ended."""

    status: int
    text: str


def run_program(arguments: list[str], environment: Mapping[str, str]) -> Answer:
    """The installed program itself, in a process of its own."""
    done = subprocess.run(
        [PROGRAM, *arguments], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=COMMAND_SECONDS, check=False,
    )  # fmt: skip
    return Answer(done.returncode, done.stdout)


class Commands:
    """Runs commands one after another, each in a process forked from one that has imported the program."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._orders: IO[str] = process.stdin
        self._answers: IO[str] = process.stdout
        self._log = folder / "commands.log"
        self._errors = folder / "forker.log"

    def run(
        self,
        arguments: list[str],
        environment: Mapping[str, str] | None = None,
        *,
        kill_after: float = COMMAND_SECONDS,
        kill_when: Callable[[], bool] = lambda: False,
    ) -> Answer:
        """What the command said. It is sent SIGKILL after so many seconds, or as soon as `kill_when` holds, if it still
        runs: the status is then -9."""
        self._log.unlink(missing_ok=True)
        order = {"arguments": arguments, "environment": dict(environment or {}), "log": str(self._log)}
        self._orders.write(json.dumps(order) + "\n")
        self._orders.flush()
        child, ended = int(self._read()), threading.Event()

        def watch() -> None:
            give_up_at = time.monotonic() + kill_after
            while not ended.wait(0.002):
                if time.monotonic() >= give_up_at or kill_when():
                    _kill(child)
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            status = int(self._read())
        finally:
            ended.set()
            watcher.join()
        return Answer(status, self._log.read_text() if self._log.exists() else "")

    def _read(self) -> str:
        line = self._answers.readline()
        if not line:
            raise ServiceFailed(f"The program could not be imported:\n{_read_end(self._errors)}")
        return line


def _kill(process_id: int) -> None:
    """It may have ended by itself a moment ago."""
    try:
        os.kill(process_id, SIGKILL)
    except ProcessLookupError:
        return


@contextmanager
def run_commands(folder: Path, prefect_url: str) -> Iterator[Commands]:
    """`Commands` with this Prefect server; ends with the tests. Its commands name their data folder themselves."""
    folder.mkdir(parents=True, exist_ok=True)
    # Prefect reads this when it is imported, which is here before a command can set it.
    environment = make_environment(folder / "nowhere", prefect_url, PREFECT_LOGGING_LEVEL="ERROR")
    with (folder / "forker.log").open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", _FORKER], cwd=ROOT, env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
    try:
        commands = Commands(process, folder)
        commands._read()
        yield commands
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)
        if process.stdout is not None:
            process.stdout.close()


def hash_data(study_folder: Path) -> dict[str, str]:
    """SHA-256 of each data file of the newest release."""
    files = sorted((study_folder / "releases" / "latest" / "data").iterdir())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def list_tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with its SHA-256, links by what they point to; what is disposable left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_file() and not name.startswith(("cache/", "ledger.db-")):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
