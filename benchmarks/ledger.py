"""How long the ledger takes on SQLite, and whether that grows in step with its rows.

    python -m benchmarks.ledger [--rows N] [--repeats N]

Prints medians at 10,000 rows, 100,000 and so on up to N (default 1,000,000). Every fold runs in a process of its own:
cold, without a cache, and again after 1,000 events came since the last fold. Memory is that process's peak.
"""

import argparse
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import date, timedelta
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from study.configuration import find_in_force
from study.events import (
    ConfigurationAdopted,
    ConsentRecorded,
    DispositionRecorded,
    Event,
    ParticipantAllocated,
    ParticipantScreened,
    QueryClosed,
    QueryRaised,
    ReturnAccepted,
    ReturnFileProcessed,
    Source,
    compute_sha256,
)
from study.state import (
    derive_files,
    derive_participants,
    derive_queries,
    derive_returns,
)
from tasks.ledger import Ledger

Result = TypeVar("Result")

STUDY = "benchmark"
START = date(2024, 1, 8)
INSTRUMENTS = ("adas_cog", "cibic_plus", "dad", "mmse", "npi_x")
N_WAVES = 8
SINCE_LAST_FOLD = 1_000
TARGETS = {
    "append": "100,000 in 5 s",
    "fold, cold": "1,000,000 in 6 s",
    "fold, 1,000 new": "1,000,000 in 2 s",
    "verify": "1,000,000 in 20 s",
    "peak memory": "1,000,000 in 1,500 MB",
}


def make_events() -> Iterator[Event]:
    """An endless study: files of ten participants, each with five instruments at eight waves, and some queries."""
    n_queries = count(1)
    for file in count():
        site_id = f"{701 + file % 17}"
        sha256 = compute_sha256(f"file {file}")
        who = {"requested_by": "flow study_day", "site_id": site_id}
        people = [f"01-{site_id}-{file // 17:05d}{place}" for place in range(10)]
        for row, participant_id in enumerate(people, start=3):
            day = START + timedelta(days=file % 500)
            told = {**who, "participant_id": participant_id, "source": Source(sha256=sha256, sheet="Log", row=row)}
            yield ParticipantScreened(**told, occurred_on=day, cohort="alzheimers_disease")
            yield ConsentRecorded(**told, occurred_on=day, form_version="1.0", scopes=("a", "b"), basis="signed")
            yield ParticipantAllocated(**told, occurred_on=day, arm=("placebo", "low_dose", "high_dose")[row % 3])
            for wave in range(N_WAVES):
                for instrument in INSTRUMENTS:
                    place = {"respondent": "self", "wave": f"week_{wave * 4}", "instrument": instrument}
                    yield ReturnAccepted(
                        **{**told, "source": Source(sha256=sha256, sheet=instrument, row=row)},
                        **place,
                        occurred_on=day + timedelta(weeks=wave * 4),
                        return_id=f"{site_id}-{day}-1",
                        form="standard",
                        version=1,
                        n_items=14,
                        n_answered=13,
                        responses_sha256=compute_sha256(f"answers {file}"),
                    )
                query_id = f"{site_id}-{next(n_queries):06d}"
                yield QueryRaised(
                    **told,
                    **place,
                    occurred_on=day + timedelta(weeks=wave * 4),
                    query_id=query_id,
                    rule="out_of_range",
                    severity="soft",
                    subject=f"return:{participant_id}:self:{wave}:{instrument}",
                    item="adas01",
                )
                if wave % 2:
                    yield QueryClosed(**who, occurred_on=day + timedelta(weeks=30), query_id=query_id, reason="mended")
            yield DispositionRecorded(**told, occurred_on=day, scope="treatment", reason="completed")
        yield ReturnFileProcessed(**who, occurred_on=day, sha256=sha256, size_bytes=50_000, outcome="accepted")


def measure(action: Callable[[], object]) -> float:
    start = perf_counter()
    action()
    return perf_counter() - start


def fold(url: str, cache: Path | None) -> tuple[float, float]:
    """Seconds from an open ledger to the current frames, and the process's peak memory in MB."""
    with Ledger.open(url, STUDY) as ledger:

        def derive() -> None:
            events = ledger.read_events(cache)
            for frame in (derive_participants, derive_returns, derive_queries, derive_files):
                frame(events)
            find_in_force(events.frame(ConfigurationAdopted), START)

        seconds = measure(derive)
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def verify(url: str) -> float:
    with Ledger.open(url, STUDY) as ledger:
        return measure(lambda: ledger.verify().is_clean or sys.exit("The chain is broken."))


def alone(action: Callable[..., Result], *arguments: object) -> Result:
    """Run in a fresh process: nothing in memory, and a peak of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(action, *arguments).result()


def measure_sizes(folder: Path, sizes: list[int], repeats: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Medians by what was measured, in seconds (memory: MB), for each size of the same growing ledger."""
    url, cache, events = f"sqlite:///{folder / 'ledger.sqlite'}", folder / "cache", make_events()
    with Ledger.open(url, STUDY) as ledger:
        for size in sizes:
            appended = []
            while (missing := size - ledger.head().seq) > 0:
                some = list(islice(events, min(missing, 100_000)))
                appended.append(measure(lambda: ledger.append(some)) * 100_000 / len(some))  # noqa: B023 (called at once)
            cold = [alone(fold, url, None) for _ in range(repeats)]
            checked = [alone(verify, url) for _ in range(repeats)]
            alone(fold, url, cache)
            ledger.append(islice(events, SINCE_LAST_FOLD))
            warm = [alone(fold, url, cache) for _ in range(repeats)]
            yield (
                size,
                {
                    "append": median(appended),
                    "fold, cold": median(seconds for seconds, _ in cold),
                    "fold, 1,000 new": median(seconds for seconds, _ in warm),
                    "verify": median(checked),
                    "peak memory": max(megabytes for _, megabytes in cold),
                },
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    sizes = sorted({*(size for size in (10_000, 100_000, 1_000_000) if size < options.rows), options.rows})
    table = Table("rows", *(f"{name}\n[dim]{target}" for name, target in TARGETS.items()), title="Ledger on SQLite")
    with tempfile.TemporaryDirectory() as folder:
        for size, figures in measure_sizes(Path(folder), sizes, options.repeats):
            seconds = [f"{figures[name]:.2f} s" for name in list(TARGETS)[:-1]]
            table.add_row(f"{size:,}", *seconds, f"{figures['peak memory']:,.0f} MB")
            Console(stderr=True).print(f"{size:,} rows measured")
    table.caption = "append: per 100,000 events at that size. Medians."
    Console().print(table)


if __name__ == "__main__":
    main()
