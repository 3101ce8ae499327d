"""What it costs to write packs: the workbook and the letters of one site, and of all sites of the IPC evaluation.

Run it with `python -m benchmarks.packs`. Each pack asks 60 people for five instruments, with logs, queries and a block
of identifiers. Medians of five; the first, which warms caches up, is not counted.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from time import perf_counter

from rich.console import Console
from rich.table import Table

from study.pack_layout import derive_return_layout
from tasks.definitions import load_instruments, load_study
from tasks.packs import write_pack
from tasks.participant_letters import write_participant_letters
from tests.pack_plans import make_full_plan, make_rows

N_PEOPLE = 60
N_TIMES = 5
MOST_SECONDS = 1.0


def main() -> int:
    """0 if a pack is written in time."""
    study = load_study("ipc")
    instruments = load_instruments(study)
    layout = derive_return_layout(study, instruments)
    rows = make_rows(study, N_PEOPLE, instruments=";".join(study.instruments[:5]))
    plan = replace(make_full_plan(study, N_PEOPLE), rows=rows)
    seconds, letters, sizes = [], [], []
    for _ in range(N_TIMES + 1):
        started = perf_counter()
        sizes.append(len(write_pack(study, instruments, plan, layout)))
        seconds.append(perf_counter() - started)
        started = perf_counter()
        write_participant_letters(study, plan, instruments)
        letters.append(perf_counter() - started)
    started = perf_counter()
    for _ in study.sites:
        write_pack(study, instruments, plan, layout)
        write_participant_letters(study, plan, instruments)
    of_all = perf_counter() - started
    one = median(seconds[1:])
    table = Table("", "seconds")
    table.add_row(f"a pack of {N_PEOPLE} people, 5 instruments ({sizes[0] / 1000:,.0f} kB)", f"{one:.2f}")
    table.add_row(f"its {N_PEOPLE} letters", f"{median(letters[1:]):.3f}")
    table.add_row(f"packs and letters of {len(study.sites)} sites", f"{of_all:.2f}")
    console = Console()
    console.print(table)
    console.print(f"Target: a pack in less than {MOST_SECONDS:g} s.")
    return 0 if one < MOST_SECONDS else 1


if __name__ == "__main__":
    raise SystemExit(main())
