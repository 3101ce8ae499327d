"""Spoilt files of every kind: no crash, no hang, and nothing accepted that nobody told.

`python -m benchmarks.fuzz` does the same for as long as one likes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from study.approval_entries import EntryFault
from study.exchange import derive_drafts
from study.instruments import DefinitionFaults
from tasks.exchange import write_drafts
from tasks.spss import read_sav
from tasks.workspace import Workspace
from tests.fuzzing import (
    Study,
    Yield,
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
from tests.return_workbooks import edit, find_part
from tests.test_flat_exports import MOOD, ROWS, SOURCE, TODAY, encode, make_workspace, write_sav

SEEDS = st.integers(0, 2**48).map(random.Random)
QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module", params=["ours", "saved by another program"])
def sound(request: pytest.FixtureRequest, study: Study) -> tuple[bytes, Yield]:
    data = study.make_return()
    data = data if request.param == "ours" else edit(data, lambda book: None)
    return data, study.decide(data)


def test_the_sound_file_is_taken_whole(sound: tuple[bytes, Yield]) -> None:
    _, before = sound
    assert len(before.records) == 4
    assert len(before.entries) == 2
    assert (before.told, before.is_read) == (set(), True)


@settings(QUICK, max_examples=60)
@given(rng=SEEDS)
def test_bytes_that_changed_on_the_way(study: Study, sound: tuple[bytes, Yield], rng: random.Random) -> None:
    data, before = sound
    check_whole(before, study.decide(spoil_bytes(data, rng)))


@settings(QUICK, max_examples=60)
@given(rng=SEEDS)
def test_xml_that_somebody_wrote_wrongly(study: Study, sound: tuple[bytes, Yield], rng: random.Random) -> None:
    data, before = sound
    check_keys(before, study.decide(spoil_xml(data, rng)))


@settings(QUICK, max_examples=50)
@given(rng=SEEDS)
def test_cells_that_say_something_else(study: Study, sound: tuple[bytes, Yield], rng: random.Random) -> None:
    data, before = sound
    edits = draw_edits(rng)
    items = study.workspace.instruments["mmse"].item_ids
    check_edits(before, study.decide(type_cells(data, edits, find_part(data, "MMSE"))), edits, items)


def hide(book: openpyxl.Workbook) -> None:
    page = book["MMSE"]
    page.column_dimensions["G"].hidden = True
    page.row_dimensions[4].hidden = True
    page.auto_filter.ref = "A2:K5"
    page.sheet_state = "hidden"


def turn_round(book: openpyxl.Workbook) -> None:
    page = book["MMSE"]
    rows = [[cell.value for cell in row] for row in page["A3:K5"]]
    for row, values in zip(page["A3:K5"], rows[::-1], strict=True):
        for cell, value in zip(row, values, strict=True):
            cell.value = value


@pytest.mark.parametrize(
    "change",
    [
        hide,
        turn_round,
        lambda book: book["MMSE"].insert_rows(4, 3),
        lambda book: book["MMSE"].insert_cols(3, 2),
        lambda book: book["MMSE"].delete_rows(1),
        lambda book: book["MMSE"].delete_rows(2),
        lambda book: book["MMSE"].delete_rows(1, 2),
        lambda book: book["MMSE"].delete_cols(7),
        lambda book: book["MMSE"].move_range("F2:K5", cols=1),
        lambda book: book["MMSE"].move_range("F2:K2", cols=1),
        lambda book: book["MMSE"].move_range("G3:K5", cols=-1),
        lambda book: book["MMSE"].move_range("F3:F5", rows=1),
        lambda book: book["MMSE"].merge_cells("F3:G4"),
        lambda book: book.copy_worksheet(book["MMSE"]),
        lambda book: book.move_sheet("MMSE", -3),
        lambda book: setattr(book["MMSE"], "title", "Sheet1"),
        lambda book: book.remove(book["Hachinski"]),
        lambda book: book.remove(book["About"]),
    ],
)
def test_sheets_that_somebody_worked_over(study: Study, change: Callable[[openpyxl.Workbook], object]) -> None:
    """Rows and columns that were moved whole say what they said. Where single cells were, nothing is accepted as it
    stands there without a word."""
    data = study.make_return()
    before, after = study.decide(data), study.decide(edit(data, change))
    told = dict(before.records.values())
    for key, answers in after.records.values():
        assert key in told
        assert answers == told[key] or after.told
    names: list[str] = []
    edit(data, lambda book: (change(book), names.extend(book.sheetnames)))
    if after.is_read and not after.told:
        assert len(after.records) == len(before.records) - ("Hachinski" not in names)


# Exports --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("exports")
    (draft,) = derive_drafts(MOOD, "a test", {}, {}).drafts
    write_drafts([draft], folder / "instruments")
    return make_workspace(folder, ["mood"], ["baseline", "later"], SOURCE)


@settings(QUICK, max_examples=40)
@given(rng=SEEDS)
def test_a_table_in_which_signs_changed(exported: Workspace, rng: random.Random) -> None:
    text = encode(*ROWS).decode()
    before, spoilt = read_lines(exported, encode(*ROWS), "redcap", TODAY), spoil_text(text, rng)
    with suppress(EntryFault, DefinitionFaults):  # it is refused as a whole, and said why
        check_table(before, read_lines(exported, spoilt.encode(), "redcap", TODAY), text, spoilt)


@pytest.mark.parametrize("seed", [1, 658, 874])  # of the last two, the library ends the process that it runs in
def test_an_spss_file_whose_bytes_changed(tmp_path: Path, seed: int) -> None:
    with suppress(EntryFault):
        export = read_sav(spoil_bytes(write_sav(tmp_path), random.Random(seed)))
        assert all(len(cells) == len(export.header) for cells in export.lines)
