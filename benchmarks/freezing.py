"""What a frozen dataset costs: participants at 3 waves with 100 questions each, in every format, with its pages.

Run it with `python -m benchmarks.freezing [--participants 10000 30000 100000] [--waves 3]`. A study of two arms at 17
sites; nine people in ten answer the second wave, eight the third, and one answer in fifty is missing with a reason.
With fewer waves nothing has come yet of the others. Filling the ledger and freezing are done by processes of their own;
memory is the peak of the one that freezes, with its imports and with the process that writes beside it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path
from threading import Event as Signal
from threading import Thread
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from rich.console import Console

from study.events import (
    ConsentRecorded,
    Event,
    ParticipantAllocated,
    ParticipantScreened,
    ReturnAccepted,
    ReturnFileProcessed,
    Source,
)
from study.returns import RESPONSE_COLUMNS
from tasks.definitions import scaffold_study
from tasks.returns import encode_responses
from tasks.settings import Settings
from tasks.workspace import Workspace, adopt_configuration, create_workspace

STUDY, BY, INSTRUMENT = "battery", "benchmark", "battery_100"
N_ITEMS, N_SCALES, N_SITES = 100, 5, 17
STARTS_ON, JOINED_ON, FROZEN_ON = date(2024, 1, 1), date(2024, 9, 2), date(2026, 6, 30)
WAVES = {"baseline": (0, 1.0), "follow_up_6m": (182, 0.9), "follow_up_12m": (365, 0.8)}
MOST_SECONDS, MOST_MEGABYTES, LARGEST = 120.0, 4_000.0, 100_000
_A_BATCH = 20_000
_MISSING = 50

R = TypeVar("R")


def define_study(folder: Path) -> Settings:
    """The study's configuration and its instrument, in a folder."""
    settings = Settings(data_folder=folder / "out", sites_config=folder / "sites_config", instruments=folder / "own")
    settings.sites_config.mkdir(parents=True)
    scaffold_study(STUDY, "A large study", settings.sites_config, STARTS_ON)
    study = settings.sites_config / STUDY
    for name in ("approvals.toml", "fieldwork.toml"):
        (study / name).unlink()
    protocol = (study / "study.toml").read_text(encoding="utf-8")
    start, end = protocol.index("\n[[planned_instruments]]"), protocol.index("\n[[schedule]]")
    protocol = (protocol[:start] + protocol[end:]).replace("icecap_a", INSTRUMENT)
    protocol = protocol.replace("instruments = []", f'instruments = ["{INSTRUMENT}"]')
    protocol = protocol.replace("ABC-", f"{find_code(0)}-").replace('"matched"', '"randomised"')
    (study / "study.toml").write_text(protocol, encoding="utf-8")
    (example,) = (study / "sites").glob("*.toml")
    site = example.read_text(encoding="utf-8")
    for n in range(N_SITES):
        own = site.replace(f'"{example.stem}"', f'"{find_site(n)}"').replace('"ABC"', f'"{find_code(n)}"')
        own = own.replace('"Example area"', f'"Area {n}"')
        (study / "sites" / f"{find_site(n)}.toml").write_text(own, encoding="utf-8")
    example.unlink()
    instrument = settings.instruments / INSTRUMENT
    instrument.mkdir(parents=True)
    items = "".join(
        f'\n[[items]]\nid = "q{n:03}"\nlabel = "Question {n}"\n'
        'levels = { 0 = "never", 1 = "seldom", 2 = "at times", 3 = "often", 4 = "always" }\n'
        for n in range(N_ITEMS)
    )
    a_scale = N_ITEMS // N_SCALES
    scales = "".join(
        f'\n[[scales]]\nid = "scale_{n}"\nlabel = "Scale {n}"\nmethod = "sum"\nminimum = 0\nmaximum = {4 * a_scale}\n'
        f"items = {[f'q{item:03}' for item in range(n * a_scale, (n + 1) * a_scale)]}\n".replace("'", '"')
        for n in range(N_SCALES)
    )
    (instrument / "definition.toml").write_text(
        f'id = "{INSTRUMENT}"\ntitle = "A hundred questions"\nsheet_title = "Hundred questions"\nversion = "1"\n'
        'citation = "Made for a benchmark."\nlicence = "Free."\nrespondents = ["self", "proxy", "carer"]\n'
        'forms = ["standard", "easy_read"]\n\n[missing_codes]\n-9 = "not_answered"\n-8 = "refused"\n' + items + scales,
        encoding="utf-8",
    )
    names = ["example", "evidence", "source", "decimals", *(f"expected_scale_{n}" for n in range(N_SCALES))]
    values = ["always", "hand_computed", "All at the top", "0", *[str(4 * a_scale)] * N_SCALES, *["4"] * N_ITEMS]
    rows = [",".join([*names, *(f"q{n:03}" for n in range(N_ITEMS))]), ",".join(values)]
    (instrument / "worked_examples.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return settings


def find_site(n: int) -> str:
    return f"site_{n:02}"


def find_code(n: int) -> str:
    return "S" + chr(65 + n // 10) + chr(65 + n % 10)


def open_study(settings: Settings) -> Workspace:
    workspace = create_workspace(STUDY, settings=settings)
    workspace.clock = workspace.ledger.clock = lambda: datetime(2026, 7, 1, 9, tzinfo=UTC)
    return workspace


def list_events(workspace: Workspace, n_participants: int, n_waves: int) -> Iterator[Event]:
    """Everybody joins within some weeks; each site sends one file a wave."""
    common = {"requested_by": BY}
    generator = np.random.default_rng(20260101)
    for site in range(N_SITES):
        at_site = {**common, "site_id": find_site(site)}
        numbers = range(site, n_participants, N_SITES)
        people = [f"{find_code(site)}-P{n // N_SITES:05}" for n in numbers]
        joined = [JOINED_ON + timedelta(days=n % 60) for n in numbers]
        for n, (participant_id, on) in enumerate(zip(people, joined, strict=True)):
            who = {**at_site, "participant_id": participant_id, "occurred_on": on}
            yield ParticipantScreened(**who, cohort="everyone")
            yield ConsentRecorded(**who, form_version="1.0", scopes=("questionnaires",), basis="signed")
            yield ParticipantAllocated(**who, arm="intervention" if n % 2 else "comparison")
        for number, (wave, (days, share)) in enumerate([*WAVES.items()][:n_waves], start=1):
            answered = (generator.random(len(people)) < share).nonzero()[0]
            dates = [joined[place] + timedelta(days=days + 5) for place in answered]
            own = np.array(people)[answered]
            yield from _list_returns(workspace, at_site, wave, number, own, dates, generator)


def _list_returns(
    workspace: Workspace,
    at_site: dict[str, str],
    wave: str,
    number: int,
    people: np.ndarray[tuple[int], np.dtype[np.str_]],
    on: list[date],
    generator: np.random.Generator,
) -> Iterator[Event]:
    site_id, posted_on = at_site["site_id"], max(on)
    return_id = f"{site_id}-{posted_on}-{number}"
    values = generator.integers(0, 5, (len(people), N_ITEMS)).astype(float)
    is_missing = generator.integers(0, _MISSING, values.shape) == 0
    values[is_missing] = np.nan
    rows = pd.DataFrame(
        {
            "participant_id": np.repeat(people, N_ITEMS), "respondent": "self", "wave": wave, "instrument": INSTRUMENT,
            "form": "standard", "item": np.tile([f"q{n:03}" for n in range(N_ITEMS)], len(people)),
            "response": values.ravel(), "missing_reason": np.where(is_missing.ravel(), "not_answered", ""),
            "collected_on": np.repeat(np.array(on, "datetime64[s]"), N_ITEMS), "return_id": return_id,
        }
    )  # fmt: skip
    sha256 = workspace.content.put(f"the workbook {return_id}".encode())
    answers = workspace.content.put(encode_responses(rows[RESPONSE_COLUMNS]))
    common = {**at_site, "return_id": return_id, "responses_sha256": answers}
    for n, (participant_id, day) in enumerate(zip(people, on, strict=True)):
        yield ReturnAccepted(
            **common, occurred_on=day, participant_id=str(participant_id), respondent="self", wave=wave,
            instrument=INSTRUMENT, form="standard", version=1, n_items=N_ITEMS,
            n_answered=int(N_ITEMS - is_missing[n].sum()), source=Source(sha256=sha256, sheet="Hundred", row=n + 3),
        )  # fmt: skip
    yield ReturnFileProcessed(
        **common, occurred_on=posted_on, sha256=sha256, posted_on=posted_on, sending_number=number, size_bytes=10,
        outcome="accepted", n_accepted=len(people), source=Source(sha256=sha256),
    )  # fmt: skip


def fill(settings: Settings, n_participants: int, n_waves: int = len(WAVES)) -> None:
    workspace = open_study(settings)
    adopt_configuration(workspace, STARTS_ON, BY)
    events = list_events(workspace, n_participants, n_waves)
    while batch := list(islice(events, _A_BATCH)):
        workspace.ledger.append(batch)


def freeze(settings: Settings) -> tuple[float, float, float]:
    """Seconds, peak in megabytes, and megabytes of the release's files."""
    from tasks.releases import freeze_release  # what it draws with is counted, and imported by this process alone

    workspace = open_study(settings)
    with watch_memory() as peaks:
        started = perf_counter()
        frozen = freeze_release(workspace, FROZEN_ON, BY)
        seconds = perf_counter() - started
    size = sum(file["bytes"] for file in frozen.manifest["files"].values())
    return seconds, max(peaks) / 1e6, size / 1e6


@contextmanager
def watch_memory() -> Iterator[list[int]]:
    """Bytes held by this process and those that it started, what they share counted once, looked up 5 times a second
    (on Linux)."""
    held: list[int] = [0]
    is_over = Signal()

    def look() -> None:
        while not is_over.wait(0.2):
            held.append(sum(find_held(pid) for pid in list_processes(os.getpid())))

    watcher = Thread(target=look, daemon=True)
    watcher.start()
    yield held
    is_over.set()
    watcher.join()


def list_processes(pid: int) -> Iterator[int]:
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text(encoding="ascii").split():
                yield from list_processes(int(child))


def find_held(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def run_alone(work: Callable[..., R], *args: Any) -> R:
    """What `work` gives in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *args).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--participants", type=int, nargs="+", default=[10_000, 30_000, LARGEST])
    parser.add_argument("--waves", type=int, choices=range(1, len(WAVES) + 1), default=len(WAVES))
    console, misses = Console(width=120), []
    n_waves = parser.parse_args().waves
    for n_participants in parser.parse_args().participants:
        with tempfile.TemporaryDirectory() as folder:
            settings = define_study(Path(folder))
            run_alone(fill, settings, n_participants, n_waves)
            seconds, megabytes, size = run_alone(freeze, settings)
        console.print(
            f"{n_participants:>7,} people, {n_waves * N_ITEMS} questions: {seconds:.1f} s, peak {megabytes:,.0f} MB, "
            f"release {size:,.0f} MB"
        )
        if n_participants == LARGEST and (seconds > MOST_SECONDS or megabytes > MOST_MEGABYTES):
            misses.append(f"{n_participants:,} people: at most {MOST_SECONDS:.0f} s and {MOST_MEGABYTES:,.0f} MB")
    if misses:
        raise SystemExit("Missed: " + "; ".join(misses))


if __name__ == "__main__":
    main()
