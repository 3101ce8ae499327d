"""A finished study from one flat file: people, three waves, thirty items, by `summative import-study`'s own path.

Run it with `python -m benchmarks.study_import [--people 20000] [--sites 17]`. The file is a CSV of one row for each
person and wave; timed is what lies between its bytes and the ledger: reading, searching for what tells who a person is,
the rules for returns, one append. Peak memory is that of the whole process.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from datetime import UTC, date, datetime
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
from rich.console import Console

from tasks.definitions import copy_finished_study
from tasks.settings import Settings
from tasks.study_import import plan_import, record_import
from tasks.workspace import Workspace, adopt_configuration, create_workspace

N_ITEMS, WAVES = 30, ("baseline", "month_1", "month_2")
TODAY = date(2026, 3, 2)
SECONDS_PER_1000, MOST_GB = 3.0, 6.0

INSTRUMENT = """
id = "respiratory_status"
title = "Benchmark"
sheet_title = "Benchmark"
version = "1"
citation = "none"
licence = "none"
respondents = ["self"]
forms = ["standard"]

[missing_codes]
-9 = "not_answered"
"""


def make_study(folder: Path, n_sites: int) -> Workspace:
    """The respiratory trial's protocol with more sites and a longer questionnaire."""
    settings = Settings(
        data_folder=folder / "out", sites_config=folder / "sites_config", instruments=folder / "instruments"
    )
    copy_finished_study("respiratory", "respiratory", "", settings.sites_config, settings.instruments)
    study = settings.sites_config / "respiratory"
    protocol = (study / "study.toml").read_text().replace(r"\d{1,3}", r"P\d{6}").replace('"12"', '"P000012"')
    (study / "study.toml").write_text(protocol)
    site = (study / "sites" / "centre_1.toml").read_text()
    for n in range(1, n_sites + 1):
        text = site.replace("centre_1", f"centre_{n}").replace("e 1", f"e {n}").replace("clinic_1", f"clinic_{n}")
        (study / "sites" / f"centre_{n}.toml").write_text(text)
    own = (study / "sources" / "import.toml").read_text()
    own = own.replace(
        '1 = "centre_1"\n2 = "centre_2"\n', "".join(f'{n} = "centre_{n}"\n' for n in range(1, n_sites + 1))
    )
    own = own.replace(', resp_status = "status"', "")
    (study / "sources" / "import.toml").write_text(own)
    items = [f"q{n:02d}" for n in range(1, N_ITEMS + 1)]
    text = INSTRUMENT + "".join(f'\n[[items]]\nid = "{q}"\nlabel = "{q}"\nlevels = "1 to 5"\n' for q in items)
    listed = ", ".join(f'"{q}"' for q in items)
    text += f'\n[[scales]]\nid = "total"\nlabel = "Total"\nmethod = "sum"\nitems = [{listed}]\n'
    text += f"minimum = {N_ITEMS}\nmaximum = {5 * N_ITEMS}\n"
    own_instrument = settings.instruments / "respiratory_status"
    (own_instrument / "definition.toml").write_text(text)
    example = (
        ["example,evidence,source,decimals,expected_total", *items],
        ["low,hand_computed,Sum,0,30", *["1"] * N_ITEMS],
    )
    (own_instrument / "worked_examples.csv").write_text("".join(",".join(row) + "\n" for row in example))
    return create_workspace(
        "respiratory", settings=settings, clock=lambda: datetime(2026, 3, 2, 12, tzinfo=UTC), is_synced=False
    )


def write_data(path: Path, n_people: int, n_sites: int) -> int:
    """A CSV with everybody at each wave; its size."""
    rng = np.random.default_rng(20260101)
    n, people = n_people * len(WAVES), np.repeat(np.arange(n_people), len(WAVES))
    frame = pd.DataFrame(
        {
            "subject": [f"P{number:06d}" for number in people],
            "centre": people % n_sites + 1,
            "treatment": np.where(people % 2, "treatment", "placebo"),
            "sex": np.where(people % 3, "male", "female"),
            "age": 20 + people % 60,
            "month": np.tile(np.arange(len(WAVES)), n_people),
            **{f"q{item:02d}": rng.integers(1, 6, n) for item in range(1, N_ITEMS + 1)},
        }
    )
    path.parent.mkdir(parents=True)
    frame.to_csv(path, index=False)
    return path.stat().st_size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=20_000)
    parser.add_argument("--sites", type=int, default=17)
    chosen = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workspace = make_study(folder, chosen.sites)
        size = write_data(folder / "data" / "respiratory.csv", chosen.people, chosen.sites)
        start = perf_counter()
        plan = plan_import(workspace, folder / "data", TODAY, "benchmark")
        planned = perf_counter() - start
        if plan.faults or plan.held:
            console.print(plan.faults[:5], plan.held[:1])
            return 1
        plan.head_seq += len(adopt_configuration(workspace, workspace.study.starts_on, "benchmark"))
        n_rows = record_import(workspace, plan, TODAY, "benchmark")
        seconds = perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    most = SECONDS_PER_1000 * chosen.people / 1000
    console.print(
        f"{chosen.people:,} people, {chosen.sites} sites, {len(WAVES)} waves, {N_ITEMS} items, {size / 2**20:.0f} MB: "
        f"{n_rows:,} rows of the ledger in {seconds:.0f} s (decided after {planned:.0f} s), at most {most:.0f} s; "
        f"peak {peak:.1f} GB, at most {MOST_GB:.0f} GB"
    )
    return 0 if seconds <= most and peak <= MOST_GB else 1


if __name__ == "__main__":
    sys.exit(main())
