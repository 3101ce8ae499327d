"""Spoilt files by the thousand: nothing crashes, nothing hangs, nothing is accepted that nobody told.

Run it with `python -m benchmarks.fuzz`, with `--count N` for more and `--seed S` for others; `--public FOLDER` (or
PUBLIC_DATA in the environment) adds `nhs_return_workbooks/*.xlsx`, returns of councils.

A return of one study, as the program writes it, as openpyxl and (where there is one) LibreOffice save it, is spoilt
in its bytes, in the XML of its parts and in single cells, and decided on as in an inbox. An export is spoilt as text,
and an SPSS file in its bytes. What must hold is written in `tests/fuzzing.py`; of public returns, that they are read
or refused. A case that breaks a rule is named by its seed, by which `--only` runs it again. Exits 1 if there is one.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.table import Table

from study.approval_entries import EntryFault
from study.exchange import derive_drafts
from study.instruments import DefinitionFaults
from study.pack_layout import Column, Layout, Sheet
from tasks.exchange import write_drafts
from tasks.spss import read_sav
from tasks.workbook_inspection import WorkbookUnreadable
from tasks.workbooks import read_return_workbook
from tests.fuzzing import (
    LONGEST,
    Study,
    check_edits,
    check_keys,
    check_table,
    check_whole,
    draw_edits,
    read_lines,
    spoil_bytes,
    spoil_text,
    spoil_xml,
    type_cells,
)
from tests.libreoffice import fill_in
from tests.return_workbooks import edit, find_part
from tests.test_flat_exports import MOOD, ROWS, SOURCE, TODAY, encode, make_workspace, write_sav

SEED, COUNT = 20_261_122, 1_000
SLOW_FILES = 40  # of a kind that takes a second each
Case = Callable[[random.Random], bool]
"""Spoils a file and holds what comes of it against the rules; whether it was read."""


def list_workbook_cases(name: str, data: bytes, study: Study) -> dict[str, Case]:
    before = study.decide(data)
    assert before.is_read
    assert not before.told
    part, items = find_part(data, "MMSE"), study.workspace.instruments["mmse"].item_ids

    def in_bytes(rng: random.Random) -> bool:
        after = study.decide(spoil_bytes(data, rng))
        check_whole(before, after)
        return after.is_read

    def in_xml(rng: random.Random) -> bool:
        after = study.decide(spoil_xml(data, rng))
        check_keys(before, after)
        return after.is_read

    def in_cells(rng: random.Random) -> bool:
        edits = draw_edits(rng)
        after = study.decide(type_cells(data, edits, part))
        check_edits(before, after, edits, items)
        return after.is_read

    return {f"{name}: bytes": in_bytes, f"{name}: XML": in_xml, f"{name}: cells": in_cells}


def list_export_cases(folder: Path) -> dict[str, Case]:
    (draft,) = derive_drafts(MOOD, "a benchmark", {}, {}).drafts
    write_drafts([draft], folder / "instruments")
    workspace = make_workspace(folder, ["mood"], ["baseline", "later"], SOURCE)
    text = encode(*ROWS).decode()
    before = read_lines(workspace, encode(*ROWS), "redcap", TODAY)
    sav = write_sav(folder)

    def as_text(rng: random.Random) -> bool:
        spoilt = spoil_text(text, rng)
        with suppress(EntryFault, DefinitionFaults):
            check_table(before, read_lines(workspace, spoilt.encode(), "redcap", TODAY), text, spoilt)
            return True
        return False

    def as_spss(rng: random.Random) -> bool:
        with suppress(EntryFault):
            export = read_sav(spoil_bytes(sav, rng))
            assert all(len(cells) == len(export.header) for cells in export.lines)
            return True
        return False

    return {"an export: text": as_text, "an SPSS file: bytes": as_spss}


def list_public_cases(folder: Path | None) -> dict[str, Case]:
    columns = tuple(
        Column(code, label, "item", minimum=0, maximum=99)
        for code, label in (("gender", "Gender"), ("ethnicity", "Ethnic Group"), ("response", "Response/ Non Response"))
    )
    layout = Layout("nhs", "NHS", "1", ("717",), (Sheet("answers", "Service User Data", "", columns),))
    cases: dict[str, Case] = {}
    for path in sorted(folder.glob("nhs_return_workbooks/*.xlsx")) if folder else ():
        for what, spoil in (("bytes", spoil_bytes), ("XML", spoil_xml)):

            def is_read(
                rng: random.Random, path: Path = path, spoil: Callable[[bytes, random.Random], bytes] = spoil
            ) -> bool:
                with suppress(WorkbookUnreadable):
                    read_return_workbook(spoil(path.read_bytes(), rng), layout)
                    return True
                return False

            cases[f"{path.stem[:24]}: {what}"] = is_read
    return cases


def main() -> int:
    parser = argparse.ArgumentParser(description="Spoilt files by the thousand.")
    parser.add_argument("--count", type=int, default=COUNT, help="files of each kind")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", type=int, help="the seed of one case, run again for every kind")
    parser.add_argument("--public", default=os.environ.get("PUBLIC_DATA", ""))
    given = parser.parse_args()
    console = Console(width=120)
    table = Table("File and what is spoilt", "spoilt", "read", "slowest", "rules broken")
    n_broken = 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        study = Study(folder / "study")
        ours = study.make_return()
        cases = list_workbook_cases("as written", ours, study)
        cases |= list_workbook_cases("openpyxl", edit(ours, lambda book: None), study)
        if shutil.which("soffice"):
            (folder / "saved").mkdir()
            cases |= list_workbook_cases("LibreOffice", fill_in(ours, [], folder / "saved"), study)
        cases |= list_export_cases(folder)
        cases |= list_public_cases(Path(given.public) if given.public else None)
        for name, case in cases.items():
            is_slow = name.startswith(("an SPSS", "unacceptable"))
            n = 1 if given.only is not None else min(given.count, SLOW_FILES) if is_slow else given.count
            broken: Counter[str] = Counter()
            n_read, slowest = 0, 0.0
            for number in range(n):
                seed = given.only if given.only is not None else given.seed * 1_000_003 + number
                started = time.process_time()
                try:
                    n_read += case(random.Random(seed))  # noqa: S311  # it must be the same again
                except Exception as error:  # whatever it is, it is counted and named
                    broken[f"seed {seed}: {type(error).__name__}: {error}"[:200]] += 1
                slowest = max(slowest, time.process_time() - started)
            if slowest > LONGEST:
                broken[f"a file took {slowest:.1f} s"] += 1
            table.add_row(name, f"{n:,}", f"{n_read:,}", f"{slowest:.2f} s", str(broken.total()))
            for text in list(broken)[:5]:
                console.print(f"  {name}: {text}", markup=False)
            n_broken += broken.total()
    console.print(table)
    return 1 if n_broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
