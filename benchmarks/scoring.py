"""Scoring a million EQ-5D-5L questionnaires by four value sets, one of them by age and sex.

Run it with `python -m benchmarks.scoring [--records 1000000]`. Answers are drawn at random; one in a hundred is
missing, and so is one age in a hundred. What is timed is everything between the answers and the long table of scores
with their missing reasons: look-ups of four value sets, level sum, EQ VAS. Beside it stands one value set looked up by
a join of frames, as a script would do it, and both must give the same values.
"""

from __future__ import annotations

import argparse
import sys
from time import perf_counter

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from study.instruments import Instrument
from study.scoring import derive_scores
from study.value_sets import list_profiles
from tasks.definitions import load_instrument

MOST_SECONDS = 1.0
JOINED = "england_2018"


def draw_records(instrument: Instrument, n: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Answers and people, by a fixed seed."""
    rng = np.random.default_rng(20260101)
    answers = rng.integers(1, 6, (n, len(instrument.item_ids))).astype(np.float64)
    answers[:, -1] = rng.integers(0, 101, n)
    answers[rng.random(answers.shape) < 0.01] = np.nan
    ages = rng.integers(18, 101, n).astype(np.float64)
    ages[rng.random(n) < 0.01] = np.nan
    people = pd.DataFrame({"age": ages, "sex": rng.choice(["male", "female"], n)})
    return pd.DataFrame(answers, columns=list(instrument.item_ids)), people


def join_one(instrument: Instrument, wide: pd.DataFrame) -> pd.Series[float]:
    """One value set without age and sex, by a join on the answers: what a script would do."""
    value_set = next(value_set for value_set in instrument.value_sets if value_set.id == JOINED)
    levels = pd.DataFrame([list(map(float, profile)) for profile in list_profiles(value_set)])
    levels.columns = pd.Index(value_set.items)
    table = levels.assign(value=value_set.values[0])
    return wide.merge(table, on=list(value_set.items), how="left")["value"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    n = parser.parse_args().records
    console, instrument = Console(), load_instrument("eq5d5l")
    wide, people = draw_records(instrument, n)
    derive_scores(instrument, wide.head(1000), None, people.head(1000))
    seconds = []
    for _ in range(5):
        started = perf_counter()
        scores = derive_scores(instrument, wide, None, people)
        seconds.append(perf_counter() - started)
    started = perf_counter()
    joined = join_one(instrument, wide)
    by_join = perf_counter() - started
    same = scores["scale"] == f"{instrument.id}_{JOINED}"
    if not np.array_equal(scores.loc[same, "score"].to_numpy(), joined.to_numpy(), equal_nan=True):
        sys.exit("The look-up and the join differ.")
    table = Table(title=f"{n:,} records of EQ-5D-5L, best of 5")
    for heading in ("What", "Seconds"):
        table.add_column(heading, justify="left" if heading == "What" else "right")
    table.add_row(f"{len(instrument.value_sets)} value sets, level sum and EQ VAS", f"{min(seconds):.2f}")
    table.add_row("One value set by a join of frames", f"{by_join:.2f}")
    console.print(table)
    if min(seconds) > MOST_SECONDS * n / 1_000_000:
        sys.exit(f"Too slow: at most {MOST_SECONDS} s for a million records.")


if __name__ == "__main__":
    main()
