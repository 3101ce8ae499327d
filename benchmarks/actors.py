"""How true the rehearsal's invented people are to IBSEN: their rates over many seeds, and the counts of one whole run.

    python -m benchmarks.actors              100 seeds of the people alone
    python -m benchmarks.actors --whole      that, and the whole rehearsal once, in a folder of its own

Each step's mean rate is to be within 1 point of IBSEN's, and the counts of a whole run within the 99 % intervals of a
binomial with IBSEN's rates.
"""

from __future__ import annotations

import argparse
import time
from datetime import date
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from scipy.stats import binom

from rehearsal.approvals_story import derive_story, read_story
from rehearsal.ipc_people import IBSEN, Flow, compute_rates, derive_openings, load_ipc_assumptions, play_alone
from study.approval_entries import foresee
from study.state import Events
from tasks.definitions import load_study

TOLERANCE = 1.0  # points


def play_many(n_seeds: int) -> list[Flow]:
    """The flows of the people alone, under the first so many seeds."""
    study, assumptions = load_study("ipc"), load_ipc_assumptions()
    told = derive_story(study, read_story() | {"ends_on": study.ends_on})
    openings = derive_openings(study, foresee(Events({}), [entry.event for entry in told]), study.ends_on)
    return [play_alone(study, openings, assumptions, seed)[1] for seed in range(n_seeds)]


def find_intervals(flow: Flow, coverage: float = 0.99) -> list[tuple[str, int, int, int]]:
    """Step, its count, and the bounds within which IBSEN's rate would have it, given the step before."""
    found, steps = [], Flow._fields
    for before, step in pairwise(steps):
        rate = getattr(IBSEN, step) / getattr(IBSEN, before)
        low, high = binom.interval(coverage, getattr(flow, before), rate)
        found.append((step, getattr(flow, step), int(low), int(high)))
    return found


def print_rates(flows: list[Flow]) -> bool:
    rates, wanted = 100 * compute_rates(flows), 100 * compute_rates([IBSEN])
    print(f"{'step':<18}{'IBSEN':>8}{'mean':>8}{'off by':>8}{'lowest':>8}{'highest':>8}")
    for step in rates:
        mean, target, lowest, highest = rates[step].mean(), wanted[step].iloc[0], rates[step].min(), rates[step].max()
        print(f"{step:<18}{target:>8.2f}{mean:>8.2f}{mean - target:>+8.2f}{lowest:>8.2f}{highest:>8.2f}")
    return bool(((rates.mean() - wanted.iloc[0]).abs() <= TOLERANCE).all())


def print_whole(flow: Flow) -> bool:
    print(f"{'step':<18}{'IBSEN':>8}{'here':>8}  99 % interval")
    print(f"{'approached':<18}{IBSEN.approached:>8,}{flow.approached:>8,}")
    for step, count, low, high in find_intervals(flow):
        print(f"{step:<18}{getattr(IBSEN, step):>8,}{count:>8,}  {low:,} to {high:,}")
    return all(low <= count <= high for _, count, low, high in find_intervals(flow))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--whole", action="store_true", help="play the whole rehearsal as well")
    arguments = parser.parse_args()
    started = time.perf_counter()
    flows = play_many(arguments.seeds)
    seconds = time.perf_counter() - started
    print(f"The people alone, {arguments.seeds} seeds of {flows[0].approached:,}: {seconds:.1f} s")
    is_good = print_rates(flows)
    if arguments.whole:
        from rehearsal.evaluation import count_flow, play_evaluation
        from tasks.orchestration import prepare_prefect
        from tasks.settings import Settings

        with TemporaryDirectory() as folder:
            prepare_prefect(Path(folder) / "prefect")
            started = time.perf_counter()
            played = play_evaluation(Settings(data_folder=Path(folder), _env_file=None))
            flow = count_flow(played.workspace.study, played.workspace.read_events(), date.max)
            print(f"\nThe whole rehearsal: {time.perf_counter() - started:.0f} s")
            is_good &= print_whole(flow)
    print("\nWithin the bounds." if is_good else "\nOUT OF BOUNDS.")
    return 0 if is_good else 1


if __name__ == "__main__":
    raise SystemExit(main())
