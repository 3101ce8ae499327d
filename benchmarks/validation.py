"""Checking a million rows of thirty items with faults in them, and a workbook of 20,000 rows and 40 columns.

Run it with `python -m benchmarks.validation [--rows 1000000]`. One cell in a hundred holds a fault, some of them in
every item. Three ways are timed in turn on the same frame, and each must find the very same cells: `check_records`,
which places and words every fault; bare masks of numpy, which only say true or false of a cell; and pandera's lazy
validation by the schema of the same definition. The peak of memory beside the frame itself is taken in a process of
its own. The workbook is a file of bytes at the start and checked answers at the end.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from time import process_time, sleep

import numpy as np
import numpy.typing as npt
import pandas as pd
import pandera.errors
from rich.console import Console
from rich.table import Table

from study.instruments import DEFAULT_MISSING_CODES, Condition, Instrument, Item
from study.pack_layout import Layout, Sheet, derive_return_layout
from study.validation import check_records, derive_response_schema
from tasks.definitions import load_study
from tasks.workbooks import read_return_workbook, write_return_workbook

N_ITEMS, SHARE_OF_FAULTS = 30, 0.01
MOST_TIMES_NUMPY, LEAST_TIMES_PANDERA, MOST_FRAMES = 3.0, 2.0, 1.0
WORKBOOK_ROWS, WORKBOOK_COLUMNS, MOST_SECONDS = 20_000, 40, 2.0


def make_instrument(n_items: int = N_ITEMS, instrument_id: str = "bench") -> Instrument:
    """Levels from 1 to 5, every fifth a number from 0 to 100, and one question that hangs on another."""
    codes = dict(DEFAULT_MISSING_CODES)
    items = [
        Item(id=f"q{n:02d}", label=f"Question {n}", type="number", minimum=0, maximum=100, whole_numbers=True,
             missing_codes=codes)
        if n % 5 == 0
        else Item(id=f"q{n:02d}", label=f"Question {n}", type="level", levels={k: str(k) for k in range(1, 6)},
                  missing_codes=codes, asked_if=Condition(item="q01", equals=(1, 2, 3, 4)) if n == 2 else None)
        for n in range(1, n_items + 1)
    ]  # fmt: skip
    return Instrument(
        id=instrument_id, title="Benchmark", sheet_title="Benchmark", version="1", citation="none", licence="none",
        respondents=("self",), forms=("standard",), missing_codes=codes, items=tuple(items), scales=(),
    )  # fmt: skip


def draw_records(instrument: Instrument, n: int) -> tuple[pd.DataFrame, npt.NDArray[np.bool_]]:
    """Answers by a fixed seed, and which cells are faults (a level or a number that there is not)."""
    rng = np.random.default_rng(20260101)
    answers = np.empty((len(instrument.items), n))
    for place, item in enumerate(instrument.items):
        answers[place] = rng.integers(int(item.lowest), int(item.highest) + 1, n)
    gated = instrument.item_ids.index("q02")
    answers[gated, answers[instrument.item_ids.index("q01")] == 5] = np.nan
    is_fault = rng.random(answers.shape) < SHARE_OF_FAULTS
    answers[is_fault] = rng.choice([7.0, 101.0, 999.0], int(is_fault.sum()))
    highest = np.array([item.highest for item in instrument.items])[:, None]
    is_fault &= answers > highest
    return pd.DataFrame(answers.T, columns=list(instrument.item_ids), copy=False), is_fault.T


def find_by_masks(instrument: Instrument, frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """The same checks as bare masks, item by item: range, whole numbers, missing codes, blanks, routing."""
    found = np.zeros((len(instrument.items), len(frame)), dtype=np.bool_)
    for place, item in enumerate(instrument.items):
        cells = frame[item.id].to_numpy()
        is_sound = (cells >= item.lowest) & (cells <= item.highest) & (np.rint(cells) == cells)
        is_sound |= np.isnan(cells)
        for code in item.missing_codes:
            is_sound |= cells == code
        found[place] = ~is_sound
        if item.asked_if is not None:
            gate = frame[item.asked_if.item].to_numpy()
            is_ruled_out = (gate >= 1) & (gate <= 5)
            for value in item.asked_if.equals:
                is_ruled_out &= gate != value
            found[place] |= is_ruled_out & is_sound & (cells >= item.lowest)
    return found.T


def find_by_pandera(instrument: Instrument, frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
    found = np.zeros(frame.shape, dtype=np.bool_)
    try:
        derive_response_schema(instrument).validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        cases = errors.failure_cases
        cases = cases[cases["schema_context"] == "Column"]
        found[cases["index"].to_numpy(dtype=np.intp), frame.columns.get_indexer(pd.Index(cases["column"]))] = True
    return found


def find_by_rules(instrument: Instrument, frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
    faults = check_records(instrument, frame).faults
    found = np.zeros(frame.shape, dtype=np.bool_)
    found[faults["record"].to_numpy(dtype=np.intp), frame.columns.get_indexer(pd.Index(faults["item"]))] = True
    return found


def measure(work: Callable[[], object], times: int = 3) -> float:
    seconds = []
    for _ in range(times):
        started = process_time()
        work()
        seconds.append(process_time() - started)
    return min(seconds)


def read_resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def measure_peak(n: int) -> tuple[int, int]:
    """Bytes beside the frame at the highest, and bytes of the frame, looked at every millisecond."""
    instrument = make_instrument()
    frame, _ = draw_records(instrument, n)
    check_records(instrument, frame.head(1_000))
    before, highest, is_over = read_resident_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not is_over.is_set():
            highest = max(highest, read_resident_bytes())
            sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    checked = check_records(instrument, frame)
    is_over.set()
    watcher.join()
    assert len(checked.responses) == n
    return highest - before, int(frame.memory_usage(index=False).sum())


def make_workbook() -> tuple[bytes, Layout, Instrument]:
    """A return of one questionnaire, with as many item columns as make up WORKBOOK_COLUMNS."""
    instrument = make_instrument(WORKBOOK_COLUMNS - 5)
    study = load_study("ipc").model_copy(update={"instruments": (instrument.id,)})
    layout = derive_return_layout(study, {instrument.id: instrument})
    sheet: Sheet = layout.sheet_by_code[instrument.id]
    records, _ = draw_records(instrument, WORKBOOK_ROWS)
    keys = pd.DataFrame(
        {
            "participant_id": [f"LUT-P{n:05d}" for n in range(WORKBOOK_ROWS)],
            "respondent": "self",
            "form": "standard",
            "wave": "baseline",
            "collected_on": date(2018, 1, 15),
        }
    )
    frame = pd.concat([keys, records], axis=1)[list(sheet.codes)]
    about = {"site": "luton", "posted_on": date(2018, 2, 1), "sending_number": 1}
    return write_return_workbook(layout, about, {instrument.id: frame}), layout, instrument


def read_and_check(data: bytes, layout: Layout, instrument: Instrument) -> int:
    """From the bytes of a file to checked answers; how many faults there are."""
    frame = read_return_workbook(data, layout, site_id="luton").sheets[instrument.id].frame
    assert len(frame) == WORKBOOK_ROWS
    return len(check_records(instrument, frame).faults)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    n = parser.parse_args().rows
    console, instrument = Console(), make_instrument()
    frame, is_fault = draw_records(instrument, n)
    ways = {"rules": find_by_rules, "numpy": find_by_masks, "pandera": find_by_pandera}
    by_way = {name: find(instrument, frame) for name, find in ways.items()}
    routed = by_way["rules"] & ~is_fault
    if routed[:, [place for place, item in enumerate(instrument.items) if item.asked_if is None]].any():
        sys.exit("The rules find a fault where there is none.")
    missed = [name for name, found in by_way.items() if not (found | ~is_fault).all()]
    if missed or not np.array_equal(by_way["rules"], by_way["numpy"]):
        sys.exit(f"The three ways do not find the same cells (missed by: {', '.join(missed) or 'none'}).")
    del by_way, is_fault
    schema = derive_response_schema(instrument)

    def validate() -> None:
        try:
            schema.validate(frame, lazy=True)
        except pandera.errors.SchemaErrors:
            return

    seconds = {
        "rules": measure(lambda: check_records(instrument, frame)),
        "numpy": measure(lambda: find_by_masks(instrument, frame)),
        "pandera": measure(validate, 1),
    }
    with get_context("spawn").Pool(1) as pool:
        peak, size = pool.apply(measure_peak, (n,))
    data, layout, of_workbook = make_workbook()
    n_faults = read_and_check(data, layout, of_workbook)
    in_workbook = measure(lambda: read_and_check(data, layout, of_workbook))
    times_numpy, times_pandera = seconds["rules"] / seconds["numpy"], seconds["pandera"] / seconds["rules"]
    frames = peak / size
    table = Table(title=f"{n:,} rows of {N_ITEMS} items, 1 % faults, best of 3")
    for heading in ("What", "Measured", "Wanted"):
        table.add_column(heading, justify="left" if heading == "What" else "right")
    table.add_row("check_records, every fault placed and worded", f"{seconds['rules']:.2f} s", "")
    table.add_row("bare masks of numpy", f"{seconds['numpy']:.2f} s", "")
    table.add_row("pandera, lazy", f"{seconds['pandera']:.2f} s", "")
    table.add_row("times the masks", f"{times_numpy:.1f}", f"at most {MOST_TIMES_NUMPY:g}")
    table.add_row("times faster than pandera", f"{times_pandera:.1f}", f"at least {LEAST_TIMES_PANDERA:g}")
    table.add_row("peak beside the frame, in frames", f"{frames:.2f}", f"at most {MOST_FRAMES:g}")
    of_file = f"workbook of {WORKBOOK_ROWS:,} x {WORKBOOK_COLUMNS}, file to {n_faults:,} faults"
    table.add_row(of_file, f"{in_workbook:.2f} s", f"at most {MOST_SECONDS:g} s")
    console.print(table)
    missed_targets = [
        words
        for words, is_met in (
            ("the masks", times_numpy <= MOST_TIMES_NUMPY),
            ("pandera", times_pandera >= LEAST_TIMES_PANDERA),
            ("memory", frames <= MOST_FRAMES),
            ("the workbook", in_workbook <= MOST_SECONDS),
        )
        if not is_met
    ]
    if missed_targets:
        sys.exit(f"Missed: {', '.join(missed_targets)}.")


if __name__ == "__main__":
    main()
