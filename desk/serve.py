"""Prefect's page on this machine: a server, a worker and the studies' deployments, for as long as somebody wants."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from tasks.definitions import list_sites, list_studies, list_waves
from tasks.orchestration import prepare_prefect
from tasks.settings import PROJECT, Settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

HOST = "127.0.0.1"
PORT = 4200
POOL = "study-work"
LONDON = ZoneInfo("Europe/London")
PATIENCE_SECONDS = 180
STOP_SECONDS = 20

Say = Callable[[str], None]


class ServeFault(Exception):
    """Why Prefect's page cannot be had here now, and what to do."""


@dataclass(frozen=True)
class Registered:
    """What Prefect was told to run: each deployment's full name, and when the schedules of each study's round fire next
    (none: switched off)."""

    names: list[str]
    next_rounds: dict[str, datetime | None]


def serve(settings: Settings, say: Say, *, port: int = PORT) -> None:
    """Start server and worker on loopback, register the deployments of prefect.yaml, and wait until told to stop.

    Ends on Ctrl-C, SIGTERM or SIGHUP, with every process that it started gone, and only then. Raises ServeFault where
    the port is taken, or where a part does not start or dies.
    """
    check_port(port)
    home = settings.data_folder.resolve() / "prefect"
    set_environment(settings, home, port)
    with _stoppable(), contextlib.ExitStack() as stack:
        say(f"Starting Prefect on this machine, port {port}. This takes up to a minute.")
        prefect = [sys.executable, "-m", "prefect"]
        server = stack.enter_context(
            _running([*prefect, "server", "start", "--host", HOST, "--port", str(port)], home / "server.log")
        )
        _await_server(port, server)
        registered = register(settings, home / "deploy.log")
        worker = stack.enter_context(
            _running([*prefect, "worker", "start", "--pool", POOL, "--type", "process"], home / "worker.log")
        )
        for line in describe(list_studies(settings.sites_config), port, registered):
            say(line)
        try:
            while True:
                for part in (server, worker):
                    part.check()
                time.sleep(0.2)
        except KeyboardInterrupt:
            say("Stopping: what runs now is ended. The next round takes up what it left.")
    say("Stopped. Nothing runs any more, and no round starts until this is started again.")


def check_port(port: int) -> None:
    """Raises ServeFault where something listens on the port already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise ServeFault(
                f"Port {port} of this machine is taken, perhaps by another `summative serve`: look at "
                f"http://{HOST}:{port}. Stop that one, or choose another port with --port {port + 1}."
            ) from None


def set_environment(settings: Settings, home: Path, port: int) -> None:
    """What server, worker and runs read: nothing of a person's own Prefect profile, and this process's settings."""
    for name in [*os.environ]:
        if name.startswith(("PREFECT_API_", "PREFECT_SERVER_API_", "PREFECT_UI_")):
            del os.environ[name]
    os.environ["PREFECT_HOME"] = str(home)
    prepare_prefect(home, quiet=False)
    os.environ |= {
        "PREFECT_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
        # Who presses a button waits two seconds for the worker to see it, not ten.
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        # Runs use this environment as it is; none may install anything.
        "PREFECT_RUNNER_AUTO_INSTALL_DEPENDENCIES": "false",
        # Runs start in folders of their own.
        "SUMMATIVE_DATA_FOLDER": str(settings.data_folder.resolve()),
        "SUMMATIVE_SITES_CONFIG": str(settings.sites_config.resolve()),
        "SUMMATIVE_INSTRUMENTS": str(settings.instruments.resolve()),
    }


def register(settings: Settings, log: Path) -> Registered:
    """Register what prefect.yaml says, each form narrowed to its study; drop what it no longer says.

    May be called again and again: names stay, schedules are those of the file.
    """
    # Imported here: Prefect reads the environment when it is imported.
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate
    from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    ours = WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL]))
    with get_client(sync_client=True) as client:
        with contextlib.suppress(ObjectAlreadyExists):
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
        before = {
            deployment.id: deployment.updated
            for deployment in client.read_deployments(work_pool_filter=ours, limit=200)
        }
        _deploy(log)
        registered = Registered([], {})
        for deployment in client.read_deployments(work_pool_filter=ours, limit=200):
            if before.get(deployment.id) == deployment.updated:
                client.delete_deployment(deployment.id)
                continue
            study_id = str(deployment.parameters["study"])
            schema = narrow_schema(
                deployment.parameter_openapi_schema or {},
                study_id,
                list_sites(settings.sites_config, study_id),
                list_waves(settings.sites_config, study_id),
            )
            client.update_deployment(deployment.id, DeploymentUpdate(parameter_openapi_schema=schema))
            registered.names.append(deployment.name)
            if deployment.schedules:
                is_on = not deployment.paused and any(entry.active for entry in deployment.schedules)
                registered.next_rounds[study_id] = _await_next_run(client, deployment.id) if is_on else None
    registered.names.sort()
    return registered


def _await_next_run(client: SyncPrefectClient, deployment_id: UUID) -> datetime:
    """When the server has scheduled the next run of a deployment; it plans its runs some seconds after it learns of it.

    Raises ServeFault if it plans none.
    """
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
    from prefect.client.schemas.sorting import FlowRunSort

    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        planned = client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id])),
            sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        )
        for run in planned:
            if run.auto_scheduled and run.state and run.state.is_scheduled() and run.expected_start_time:
                return run.expected_start_time.astimezone(LONDON)
        time.sleep(0.3)
    raise ServeFault("Prefect's scheduler plans no rounds although a schedule is active. Look at the server's log.")


def narrow_schema(
    schema: Mapping[str, Any], study_id: str, sites: Sequence[str], waves: Sequence[str]
) -> dict[str, Any]:
    """A deployment's form with its own study and that study's sites and waves as the only choices.

    A default of nothing goes away, since the form would send it as a value.
    """
    narrow = deepcopy(dict(schema))
    properties = narrow.get("properties", {})
    if "study" in properties:
        properties["study"]["enum"] = [study_id]
    for name, choices in (("sites", sites), ("waves", waves)):
        if name in properties:
            properties[name]["items"]["enum"] = list(choices)
    for entry in properties.values():
        if "default" in entry and entry["default"] is None:
            del entry["default"]
    return narrow


def describe(studies: Sequence[str], port: int, registered: Registered) -> Iterator[str]:
    """For a coordinator: where the page is, how to start a run, when rounds start by themselves."""
    yield f"\n[bold]Prefect's page: http://{HOST}:{port}/deployments[/bold]   (seen from this machine only)"
    yield "\nTo start a run: choose a line there, such as"
    for name in registered.names:
        yield f"  {name}"
    yield "then Run, Custom run; fill in your name, choose sites or a day if you like, and Submit."
    yield "The run's page says how it went: Artifacts holds its counts, site by site."
    yield "\nDaily rounds that start by themselves while this runs:"
    for study_id in studies:
        if study_id not in registered.next_rounds:
            yield f"  {study_id}: none. Give it entries in prefect.yaml, copied from another study's."
        elif (upcoming := registered.next_rounds[study_id]) is None:
            yield f"  {study_id}: switched off in prefect.yaml"
        else:
            yield f"  {study_id}: next on {upcoming:%A} {upcoming.day} {upcoming:%B} at {upcoming:%H:%M}, London time"
    yield "\nCtrl-C stops it."


@dataclass
class _Part:
    """A process that serving needs, in a session of its own so that a Ctrl-C in the terminal reaches it through us."""

    process: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raises ServeFault if it has ended."""
        if self.process.poll() is not None:
            lines = self.log.read_text("utf-8", "replace").splitlines()[-15:]
            what = " ".join(self.process.args[1:4]) if isinstance(self.process.args, list) else "A part"
            raise ServeFault(f"`{what}` ended by itself. The last lines of {self.log}:\n" + "\n".join(lines))


@contextlib.contextmanager
def _running(command: list[str], log: Path) -> Iterator[_Part]:
    """Run a part until the block ends; then it and everything that it started is gone."""
    with log.open("wb") as sink:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter, fixed arguments
            command, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=find_lifeline(),
        )  # fmt: skip
    try:
        yield _Part(process, log)
    finally:
        with _deaf():
            _end(process)


def find_lifeline() -> Callable[[], object] | None:
    """What a new process runs first, on Linux: have the kernel end it should its parent be killed outright."""
    if sys.platform != "linux":
        return None
    import ctypes

    prctl, set_death_signal = ctypes.CDLL(None).prctl, 1
    return lambda: prctl(set_death_signal, signal.SIGTERM)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask, wait, insist: the process and its descendants (Prefect gives each run a session of its own)."""
    family = find_descendants(process.pid)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    for pid in {*family, *find_descendants(process.pid)}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.kill()
    process.wait()


def find_descendants(pid: int) -> list[int]:
    """The process ids of everything that a process started, and what those started."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)  # noqa: S607 - as on PATH
    parents = {int(child): int(parent) for child, parent in map(str.split, listing.stdout.splitlines())}
    found = [pid]
    for candidate in found:
        found += [child for child, parent in parents.items() if parent == candidate]
    return found[1:]


def _await_server(port: int, server: _Part) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        server.check()
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/api/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise ServeFault(f"Prefect's server did not answer within {PATIENCE_SECONDS} seconds. Look at {server.log}.")


def _deploy(log: Path) -> None:
    """What `prefect deploy --all` does, from the folder of prefect.yaml. Raises ServeFault with its last lines."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    with log.open("wb") as sink:
        done: subprocess.CompletedProcess[bytes] = subprocess.run(  # noqa: S603 - our own interpreter, fixed arguments
            command, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, check=False
        )
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text("utf-8", "replace"))
    if done.returncode:
        raise ServeFault("prefect.yaml could not be registered:\n" + "\n".join(text.splitlines()[-15:]))


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM and a closed terminal end the block as Ctrl-C does."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Hear no signal while cleaning up: a second Ctrl-C must not leave anything behind."""
    before = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
