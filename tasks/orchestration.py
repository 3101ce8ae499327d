"""Prefect as this product uses it: on this machine, silent to the outside, cheap per task, told nothing of people."""

from __future__ import annotations

import gc
import inspect
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from study.datasets import ReleaseFault
from study.instruments import DefinitionFaults
from tasks.definitions import StudyNotFound
from tasks.files import AreaUnavailable
from tasks.settings import PROJECT

_OBJECTS_BETWEEN_SEARCHES = 300_000

P = ParamSpec("P")
R = TypeVar("R")


class StepFailed(Exception):
    """A step or a run that failed, in words that are safe to show: never a value, a file's name or a person's id."""


# Their texts tell of protocol files and of counts only.
_SAFE_TO_SHOW = (DefinitionFaults, ReleaseFault, StudyNotFound)


def prepare_prefect(home: Path, *, quiet: bool = True) -> None:
    """Set what Prefect reads from the environment. Call it before anything imports Prefect; what is set already stays.

    The task-run recorder writes in batches (8 ms a task instead of 38); telemetry is off; runs of this process use a
    server of their own unless PREFECT_API_URL names one.
    """
    home.mkdir(parents=True, exist_ok=True)
    wanted = {
        "PREFECT_HOME": str(home.resolve()),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "60",
    }
    if quiet:
        wanted |= {"PREFECT_LOGGING_LEVEL": "ERROR", "PREFECT_SERVER_LOGGING_LEVEL": "ERROR"}
    for name, value in wanted.items():
        os.environ.setdefault(name, value)


@contextmanager
def many_runs() -> Iterator[None]:
    """For a process that runs many short flows itself: one client for all of them (opening one costs a flow 0.1 s, most
    of it for certificates that a server on this machine does not use), no heartbeat thread (1 s a flow), and a search
    for cyclic garbage that comes less often and passes over what is there at the start (a fifth of the time: Prefect
    and the ledger hold many objects that stay).
    """
    from prefect.context import SyncClientContext
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    thresholds = gc.get_threshold()
    gc.set_threshold(_OBJECTS_BETWEEN_SEARCHES, *thresholds[1:])
    try:
        gc.freeze()
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}), SyncClientContext.get_or_create():
            yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


def guarded(step: Callable[P, R]) -> Callable[P, R]:
    """A step of a flow, or a flow, whose failure tells Prefect its type and its place in the code, and nothing else.

    Prefect keeps an exception's text in states, logs and events, and the texts of pandas, pandera and databases quote
    the values that they tripped over. The clean exception is raised outside the handler, so the first one is not even
    its context.
    """

    @wraps(step)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return step(*args, **kwargs)
        except StepFailed as told:
            clean = StepFailed(*told.args)
        except Exception as fault:
            clean = StepFailed(describe_fault(fault))
        raise clean

    # Prefect reads the types of a flow's parameters; they are names of the step's own module.
    run.__signature__ = inspect.signature(step, eval_str=True)  # type: ignore[attr-defined]  # a name of inspect's
    return run


def describe_fault(fault: BaseException) -> str:
    """Type, place in the code and, where it cannot name a person or quote an answer, the reason."""
    if isinstance(fault, _SAFE_TO_SHOW):
        return "\n".join(getattr(fault, "faults", None) or [str(fault)])
    reason = ""
    if isinstance(fault, AreaUnavailable):
        # "place: reason"; the place may be the name that a site gave a file.
        reason = str(fault).rpartition(": ")[2]
    elif isinstance(fault, OSError) and fault.strerror:
        reason = fault.strerror
    where = _find_place(fault)
    return f"{type(fault).__name__}{f': {reason.rstrip(chr(46))}' if reason else ''}{f' ({where})' if where else ''}"


def _find_place(fault: BaseException) -> str:
    """Where in this project it happened: the step and the innermost line, such as "tasks/returns.py:88 in take"."""
    frames = [
        (Path(frame.filename).relative_to(PROJECT), frame)
        for frame in traceback.extract_tb(fault.__traceback__)
        if Path(frame.filename).is_relative_to(PROJECT) and ".venv" not in Path(frame.filename).parts
    ]
    own = [f"{path.as_posix()}:{frame.lineno} in {frame.name}" for path, frame in frames if frame.name != "run"]
    return " > ".join(own[-2:])
