"""Work begun ahead: elsewhere or here, once its result is asked for, with the same result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from study.protocol import Study
from tasks import ahead
from tasks.ahead import begin, count_processors, other_processes
from tasks.definitions import load_study
from tasks.settings import PROJECT


def find_process(_: str) -> int:
    return os.getpid()


def fail(word: str) -> None:
    raise LookupError(word)


def die_where_lent(own: int) -> str:
    """Ends a process that is not the one that asked."""
    if os.getpid() != own:
        os.kill(os.getpid(), signal.SIGKILL)
    return "done here"


def test_without_other_processes_nothing_is_begun_before_its_result_is_asked_for() -> None:
    done: list[str] = []
    find_result = begin(done.append, "word")
    assert done == []
    find_result()
    assert done == ["word"]


@pytest.mark.skipif(count_processors() < 2, reason="this machine lends one processor only")
def test_other_processes_do_the_work_raise_what_it_raised_and_are_replaced_where_they_die() -> None:
    with other_processes():
        assert begin(find_process, "elsewhere")() != os.getpid()
        with pytest.raises(LookupError, match="nobody"):
            begin(fail, "nobody")()
        results = [begin(die_where_lent, os.getpid()) for _ in range(3)]
        assert [find_result() for find_result in results] == ["done here"] * 3
        assert begin(find_process, "here")() == os.getpid()  # those that died are gone for good
    assert begin(find_process, "after")() == os.getpid()


def look_at(study: Study) -> tuple[int, int, str]:
    return os.getpid(), id(study), study.title


@pytest.mark.skipif(count_processors() < 2, reason="this machine lends one processor only")
def test_a_definition_is_told_once_to_each_process_and_another_one_anew() -> None:
    study = load_study("ipc", PROJECT / "sites_config", PROJECT / "instruments")
    other = study.model_copy(update={"title": "Another study"})
    with other_processes():
        seen = [begin(look_at, study)() for _ in range(20)]
        assert {title for _, _, title in seen} == {study.title}
        assert len({(process, told) for process, told, _ in seen}) == len({process for process, _, _ in seen})
        assert begin(look_at, other)()[2] == "Another study"
        assert begin(look_at, study)()[2] == study.title
    with other_processes():
        assert begin(look_at, study)()[2] == study.title


@pytest.mark.skipif(count_processors() < 2, reason="this machine lends one processor only")
def test_other_processes_leave_with_the_block_and_outlive_no_interrupt() -> None:
    with other_processes():
        lent = begin(find_process, "elsewhere")()
        os.kill(lent, signal.SIGINT)  # as Ctrl+C sends it to every process of a terminal
        assert begin(find_process, "elsewhere")() != os.getpid()
    until = time.monotonic() + 10
    while _is_alive(lent) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _is_alive(lent)


LENDS_AND_DIES = """
import os, signal
from tasks.ahead import begin, other_processes
with other_processes():
    print(begin(os.getpid)(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(count_processors() < 2, reason="this machine lends one processor only")
def test_other_processes_outlive_no_kill_of_the_one_that_lends() -> None:
    killed = subprocess.run(
        [sys.executable, "-c", LENDS_AND_DIES], cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=False, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL
    until = time.monotonic() + 10
    while _is_alive(int(killed.stdout)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _is_alive(int(killed.stdout))


def test_one_processor_begins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "count_processors", lambda: 1)
    with other_processes():
        assert begin(find_process, "here")() == os.getpid()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
