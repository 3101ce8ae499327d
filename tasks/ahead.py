"""Work that takes long and needs nothing but its arguments, begun before its turn comes.

For a process that serves many sites day after day: `other_processes` lends it those of its machine. Anywhere else the
work is done when its result is asked for, in the same process, and nothing is begun.
"""

from __future__ import annotations

import gc
import multiprocessing
import multiprocessing.connection
import os
import pickle
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import lru_cache
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import pandas as pd

from study.instruments import Instrument
from study.pack_layout import Layout
from study.protocol import Study

P = ParamSpec("P")
R = TypeVar("R")

_TEXT_KEPT_AS = "mode.string_storage"
_PRELOADED = ["tasks.packs"]
"""What the processes have imported before they are asked for anything."""


class _Lent(NamedTuple):
    """Processes that are lent, and the folder of what they are told once. `told`: it and its file, by its id."""

    pool: ProcessPoolExecutor
    folder: Path
    told: dict[int, tuple[object, Path]]


_lent: list[_Lent] = []


@contextmanager
def other_processes(most: int | None = None) -> Iterator[None]:
    """While this lasts, what is begun ahead is done by other processes, one for each processor that this one may use,
    `most` at the most. With a single processor nothing changes."""
    n_processors = count_processors()
    if n_processors < 2:
        yield
        return
    n_processes = min(n_processors, most or n_processors)
    # Not forked from here: a fork of a process with threads, as Prefect has them, may hang.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload(_PRELOADED)
    with (
        tempfile.TemporaryDirectory(prefix="summative-") as folder,
        ProcessPoolExecutor(n_processes, context, _take_after_parent, (pd.get_option(_TEXT_KEPT_AS), folder)) as pool,
    ):
        for _ in range(n_processes):
            pool.submit(os.getpid)  # starts them, while this process goes on
        _lent.append(_Lent(pool, Path(folder), {}))
        try:
            yield
        finally:
            _lent.pop()
            pool.shutdown(cancel_futures=True)


def count_processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_other_processes() -> bool:
    """Whether what is begun now is done elsewhere."""
    return bool(_lent)


def begin(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Callable[[], R]:
    """Have `work` done; what this gives waits for its result, or raises what it raised. `work` must be a function of a
    module and of its arguments alone, since it may be done elsewhere, or twice: where a process dies, here."""
    begun: Future[R] | None = None
    if _lent:
        with suppress(BrokenProcessPool):
            begun = _lent[-1].pool.submit(work, *args, **kwargs)

    def find_result() -> R:
        if begun is not None:
            with suppress(BrokenProcessPool):
                return begun.result()
        return work(*args, **kwargs)

    return find_result


def _refer(definition: object) -> Any:
    """How a definition goes to another process: as the name of a file, which each reads once. Sent whole with every
    piece of work it would take longer than some of that work, and what it has worked out there would be lost."""
    if not _lent:
        return definition.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    lent = _lent[-1]
    if id(definition) not in lent.told:
        path = lent.folder / str(len(lent.told))
        path.write_bytes(pickle.dumps(definition))
        lent.told[id(definition)] = (definition, path)  # held, so that nothing else gets its id
    return _recall, (lent.told[id(definition)][1],)


for _definition in (Study, Layout, Instrument):
    ForkingPickler.register(_definition, _refer)


@lru_cache(maxsize=256)
def _recall(path: Path) -> object:
    definition: object = pickle.loads(path.read_bytes())  # noqa: S301 (written by the process that lends)
    return definition


def _take_after_parent(text_kept_as: str, folder: str) -> None:
    """Keep text as the process that lends does, and leave interrupts to it. What is imported stays, so garbage is
    looked for less often."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, args=(folder,), daemon=True).start()
    pd.set_option(_TEXT_KEPT_AS, text_kept_as)
    gc.freeze()
    gc.set_threshold(100_000, *gc.get_threshold()[1:])


def _leave_with_parent(folder: str) -> None:
    """End this process once the one that lends it has ended, in whatever way, and leave nothing of it behind."""
    if parent := multiprocessing.parent_process():
        multiprocessing.connection.wait([parent.sentinel])
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)
