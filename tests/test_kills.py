"""A replay killed at random moments and run again each time ends as if nothing had happened, with nothing twice."""

import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.events import ConflictRefused, ReleaseFrozen, ReturnAccepted, ReturnFileProcessed, StudyDayCompleted
from study.state import Events
from tasks.ledger import Ledger
from tests.replays import Commands, hash_data, make_environment, run_commands, run_prefect, run_program

N_KILLS = 20
SLICE = ["rehearse", "--sites", "701,706,711", "--until", "2012-10-15"]
NAME = "cdisc_pilot.701-706-711.until-2012-10-15"
RECORD = ["participant_id", "respondent", "wave", "instrument", "version"]


@pytest.fixture(scope="module")
def prefect_url() -> Iterator[str]:
    with run_prefect() as url:
        yield url


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory, prefect_url: str) -> Iterator[Commands]:
    with run_commands(tmp_path_factory.mktemp("commands"), prefect_url) as commands:
        yield commands


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory: pytest.TempPathFactory, prefect_url: str) -> Path:
    """The study folder of the slice as the installed program replays it in one go."""
    folder = tmp_path_factory.mktemp("unkilled")
    answer = run_program(SLICE, make_environment(folder, prefect_url))
    assert answer.status == 0, answer.text
    return folder / NAME


def read_events(study_folder: Path) -> Events:
    with Ledger.open(f"sqlite:///{study_folder / 'ledger.db'}", NAME) as ledger:
        found = ledger.verify()
        assert found.is_clean, found.faults
        return ledger.read_events()


def assert_as_if_never_killed(killed: Path, unkilled: Path, n_kills: int) -> None:
    """The same data, byte for byte; the same history, told once; every receipt; nothing half-written that is read."""
    assert hash_data(killed) == hash_data(unkilled)
    events, expected = read_events(killed), read_events(unkilled)
    for kind in (ReturnFileProcessed, ReturnAccepted, StudyDayCompleted, ReleaseFrozen):
        told, once = events.frame(kind), expected.frame(kind)
        assert not told["key"].duplicated().any(), kind
        columns = [name for name in once if name not in {"seq", "hash", "recorded_at", "manifest_sha256"}]
        assert told[columns].equals(once[columns]), kind
    assert events.frame(ConflictRefused).empty
    assert not events.frame(ReturnAccepted).duplicated(RECORD).any()
    assert events.head.seq == expected.head.seq

    receipts = {path.relative_to(killed): path for path in (killed / "sites").glob("*/receipts/*")}
    due = [path.relative_to(unkilled) for path in (unkilled / "sites").glob("*/receipts/*")]
    assert set(due) <= set(receipts)
    for name in due:
        assert receipts[name].read_bytes() == (unkilled / name).read_bytes(), name
    # A workbook that was recorded and not yet taken out of its inbox is met again, and the site is told so.
    again = set(receipts) - set(due)
    assert all("-received-before-" in name.name for name in again)
    assert len(again) <= n_kills
    assert not [path for path in (killed / "sites").glob("*/inbox/*") if not path.name.startswith(".summative-")]

    def list_kept(folder: Path) -> set[str]:
        found = {path.name for path in (folder / "files").rglob("*") if path.is_file()}
        return {name for name in found if not name.startswith(".summative-")}

    assert list_kept(killed) == list_kept(unkilled)
    for path in (killed / "files").rglob("*"):
        if path.is_file() and not path.name.startswith(".summative-"):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    released = [path.name for path in (killed / "releases").iterdir() if not path.name.startswith(".summative-")]
    assert sorted(released) == ["2012-10-15", "latest"]


def test_killed_at_twenty_random_moments_it_ends_the_same(unkilled: Path, commands: Commands, tmp_path: Path) -> None:
    """Each process goes on where the last was killed. One that ends before its kill is held against the unkilled run,
    and the next begins afresh, so that all twenty fall into work that is being done."""
    seed = int(os.environ.get("SUMMATIVE_KILL_SEED", "20121015"))
    print(f"SUMMATIVE_KILL_SEED={seed}")  # noqa: T201 - shown by pytest when the test fails
    moments, place, killed = random.Random(seed), {"SUMMATIVE_DATA_FOLDER": str(tmp_path)}, tmp_path / NAME
    n_kills, n_since_fresh, options = 0, 0, ["--fresh"]
    while n_kills < N_KILLS:
        answer = commands.run([*SLICE, *options], place, kill_after=moments.uniform(0.5, 7.0))
        assert answer.status in (0, -9), answer.text
        print(n_kills + 1, options, answer.status, *answer.text.splitlines()[-1:])  # noqa: T201 - likewise
        if answer.status == -9:
            n_kills, n_since_fresh, options = n_kills + 1, n_since_fresh + 1, []
        else:
            assert_as_if_never_killed(killed, unkilled, n_since_fresh)
            n_since_fresh, options = 0, ["--fresh"]
    answer = commands.run(SLICE, place)
    assert answer.status == 0, answer.text
    assert_as_if_never_killed(killed, unkilled, n_since_fresh)
    again = commands.run(SLICE, place)
    assert "This replay was complete already" in again.text
    assert_as_if_never_killed(killed, unkilled, n_since_fresh)


@pytest.mark.parametrize("then", ["1d", "7d"])
def test_what_a_killed_month_left_is_not_met_too_early(
    unkilled: Path, commands: Commands, tmp_path: Path, then: str
) -> None:
    """A monthly study day is killed when its sites have posted three weeks: a round of an earlier day, which another
    rhythm has, would take these workbooks for postings of the future and hold them in quarantine."""
    place, killed = {"SUMMATIVE_DATA_FOLDER": str(tmp_path)}, tmp_path / NAME

    def has_posted() -> bool:
        return len(list(killed.glob("sites/*/inbox/*_2012-*.xlsx"))) >= 3

    answer = commands.run([*SLICE, "--every", "31d"], place, kill_when=has_posted)
    assert answer.status == -9, answer.text
    assert max(path.name.split("_")[3] for path in killed.glob("sites/*/inbox/*.xlsx")) > "2012-07-09"
    answer = commands.run([*SLICE, "--every", then], place)
    assert answer.status == 0, answer.text
    assert hash_data(killed) == hash_data(unkilled)
    files = read_events(killed).frame(ReturnFileProcessed)
    assert set(files["outcome"]) == {"accepted"}
    assert not files["key"].duplicated().any()
