"""Answers of a release, collected wave by wave: what comes out is the same however much is held at once."""

import gc
import os
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import study.answers
import study.datasets
import tasks.releases
from study.answers import ABSENT, derive_records
from study.datasets import RESPONSES
from study.validation import REASON_CODES
from tasks.release_files import SpooledAnswers
from tasks.releases import assemble_release, freeze_release
from tasks.workspace import Workspace
from tests.releases import BY, MMSE, fill_study, open_study, send

DAY = date(2013, 3, 4)


def fill(folder: Path) -> Workspace:
    """The study at work, and a second wave of two of its people, one of whom told of a single item."""
    workspace = open_study(folder)
    fill_study(workspace)
    for number, answers in enumerate((MMSE, {"mmse03": "refused"}), start=5):
        who = f"01-701-10{'15' if answers is MMSE else '23'}"
        send(workspace, who, "baseline", date(2012, 9, 1), answers, number=number)
    return workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return fill(tmp_path)


def test_a_release_is_the_same_however_much_is_held_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default everything at once; then a wave at a time from a file, written in blocks of three rows."""
    held, spooled = fill(tmp_path / "a"), fill(tmp_path / "b")
    whole, answers = freeze_release(held, DAY, BY), assemble_release(held, DAY).answers
    assert len(answers.of_blocks) == len({*answers.of_blocks})
    hold_little(monkeypatch)
    monkeypatch.setattr(study.datasets, "ROWS_AT_ONCE", 3)
    answers = assemble_release(spooled, DAY).answers
    assert isinstance(answers.store, SpooledAnswers)
    assert len(answers.of_blocks) > len({*answers.of_blocks})
    parts = freeze_release(spooled, DAY, BY)
    assert parts.manifest["tables"] == whole.manifest["tables"]
    for name in sorted(whole.manifest["files"]):
        # Parquet keeps each block apart, and the report names the hashes of the files.
        if not name.endswith(".parquet") and name != "report.html":
            key = f"releases/{whole.release}/{name}"
            assert held.area.get(key) == spooled.area.get(key), name


def hold_little(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (study.answers, tasks.releases):
        monkeypatch.setattr(module, "ANSWERS_AT_ONCE", 1)


def test_rows_are_read_from_any_place_to_any_other(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    hold_little(monkeypatch)
    answers = assemble_release(workspace, DAY).answers
    whole = RESPONSES.shape(answers.read_rows(0, answers.n_answers))
    assert len(whole) == answers.n_answers >= 20
    assert not whole.duplicated(list(RESPONSES.key)).any()
    for start in range(len(whole) + 1):
        for stop in (start, start + 1, start + 7, len(whole)):
            part = RESPONSES.shape(answers.read_rows(start, stop)).reset_index(drop=True)
            pd.testing.assert_frame_equal(part, whole.iloc[start:stop].reset_index(drop=True))


def test_records_count_what_the_rows_hold(workspace: Workspace) -> None:
    answers = assemble_release(workspace, DAY).answers
    counted = derive_records(RESPONSES.shape(answers.read_rows(0, answers.n_answers)))
    pd.testing.assert_frame_equal(answers.records[counted.columns], counted, check_dtype=False)
    for block in answers.read_blocks():
        assert (np.isnan(block.values) == (block.reasons != 0)).all()
        assert (block.told_reasons[block.reasons == ABSENT] == REASON_CODES["not_returned"]).all()


def test_answers_in_a_file_are_gone_with_who_held_them() -> None:
    store = SpooledAnswers()
    values, reasons = np.array([[1.0, np.nan], [2.0, 3.0], [np.nan, 4.0]]), np.array([[0, 2], [0, 0], [3, 0]], np.int8)
    store.put(values[:1], reasons[:1])
    store.put(values, reasons)
    for number, start, stop in ((0, 0, 1), (1, 0, 3), (1, 1, 2), (1, 2, 2)):
        got = store.get(number, start, stop)
        np.testing.assert_array_equal(got[0], values[start:stop])
        np.testing.assert_array_equal(got[1], reasons[start:stop])
    descriptor = store._file.fileno()
    assert os.fstat(descriptor).st_nlink == 0  # nobody can open it by a name
    del store
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
