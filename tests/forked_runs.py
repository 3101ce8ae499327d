"""Runs that can be killed: a process that imports once, and forks one of its own for each run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL

_FORKER = """
print("ready", flush=True)
import json, os, sys
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        print(f"pid {os.getpid()}", flush=True)
        os._exit(0 if run(**json.loads(line)) else 1)
    print(f"ended {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}", flush=True)
"""


class ForkedRuns:
    """Runs of `run(**order)`, which a script defines and which says by printing lines how far it is."""

    def __init__(self, script: str) -> None:
        root = Path(__file__).resolve().parent.parent
        self.process = subprocess.Popen(
            [sys.executable, "-c", script + _FORKER], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env={**os.environ, "PYTHONPATH": str(root)},
        )  # fmt: skip
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def run(self, kill_at: tuple[str, int, float] | None = None, **order: object) -> int:
        """How a run ended: 0, 1 where `run` gave nothing true, -9 where it was killed. `kill_at`: so many seconds after
        it has said this for the n-th time."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        child, n_told = 0, 0
        while not (line := self._read()).startswith("ended"):
            assert line, "the process that forks has ended"
            if line.startswith("pid"):
                child = int(line.split()[1])
            if kill_at and line == kill_at[0]:
                n_told += 1
                if n_told == kill_at[1]:
                    time.sleep(kill_at[2])
                    with suppress(ProcessLookupError):
                        os.kill(child, SIGKILL)
        return int(line.split()[1])

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)
        assert self.process.stdout is not None
        self.process.stdout.close()
