"""A freeze that is killed leaves a whole release or none, and the next one ends in the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from datetime import date
from pathlib import Path

from tasks.release_checks import verify_release
from tasks.releases import MANIFEST, RELEASES, freeze_release
from tests.forked_runs import ForkedRuns
from tests.releases import BY, fill_study, move_clock, open_study

DAY = date(2013, 6, 3)
N_KILLS = 8

_FREEZE = """
from datetime import date
from pathlib import Path
from tasks import releases
from tests.releases import BY, move_clock, open_study
publish, record = releases.publish_folder, releases._record_release
def tell_and_publish(*args, **how):
    print("publishes", flush=True)
    return publish(*args, **how)
def tell_and_record(*args):
    print("records", flush=True)
    record(*args)
releases.publish_folder, releases._record_release = tell_and_publish, tell_and_record

def run(day, folder):
    workspace = open_study(Path(folder))
    move_clock(workspace, date.fromisoformat(day))
    return releases.freeze_release(workspace, date.fromisoformat(day), BY)
"""


def find_releases(folder: Path) -> list[Path]:
    """What counts as a release there: a folder under its name."""
    releases = folder / "out" / "cdisc_pilot" / RELEASES
    return [path for path in sorted(releases.glob("2*")) if path.is_dir()] if releases.is_dir() else []


def test_killed_at_random_moments_a_release_is_whole_or_absent(tmp_path: Path) -> None:
    seed = int(os.environ.get("SUMMATIVE_KILL_SEED", "20130603"))
    print(f"SUMMATIVE_KILL_SEED={seed}")  # noqa: T201 - shown by pytest when the test fails
    chance = random.Random(seed)
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    killed.mkdir()
    fill_study(open_study(killed))
    shutil.copytree(killed, undisturbed)
    runs = ForkedRuns(_FREEZE)
    n_kills = n_absent = n_unrecorded = 0
    try:
        while n_kills < N_KILLS:
            at_publishing = ("publishes", 1, chance.uniform(0.0, 0.01))
            at_recording = ("records", 1, 0.0)
            status = runs.run(
                chance.choice([at_publishing, at_publishing, at_recording]), day=str(DAY), folder=str(killed)
            )
            assert status in (0, -9)
            n_kills += status == -9
            found = find_releases(killed)
            n_absent += not found
            for release in found:
                manifest = json.loads((release / MANIFEST).read_bytes())
                stored = {name: hashlib.sha256((release / name).read_bytes()).hexdigest() for name in manifest["files"]}
                assert stored == {name: told["sha256"] for name, told in manifest["files"].items()}
            latest = killed / "out" / "cdisc_pilot" / RELEASES / "latest"
            assert not latest.is_symlink() or latest.resolve() in found
            n_unrecorded += bool(found) and not latest.is_symlink()
            if found and n_kills < N_KILLS:
                shutil.rmtree(killed)  # begin anew: most kills are to fall before there is a release
                shutil.copytree(undisturbed, killed)
        assert n_absent, "no kill fell before the release was there"
        assert n_unrecorded, "no kill fell between a release and its record"
        assert runs.run(day=str(DAY), folder=str(killed)) == 0
    finally:
        runs.close()
    for folder in (killed, undisturbed):
        workspace = open_study(folder)
        move_clock(workspace, DAY)
        assert freeze_release(workspace, DAY, BY).answer == ("same" if folder is killed else "added")
        assert verify_release(workspace, str(DAY)).faults == []
    (release,), (other,) = find_releases(killed), find_releases(undisturbed)
    assert (release / MANIFEST).read_bytes() == (other / MANIFEST).read_bytes()
