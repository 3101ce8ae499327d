"""Packs on a real S3 server: one site denied, the server gone, and runs killed at random moments, on a folder too."""

from __future__ import annotations

import json
import os
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from study.events import PackClaimed, PackDelivered, ReturnReleased
from study.releasing import find_open_claims
from tasks import releasing
from tasks.releasing import draw_up_plan, release_packs
from tasks.workspace import Workspace
from tests.forked_runs import ForkedRuns
from tests.release_studies import (
    FIELDWORK,
    grant,
    identify,
    join,
    leave,
    move_clock,
    open_trial,
    write_definitions,
)
from tests.services import S3Server
from tests.test_release_flow import assert_sound, tell

JULY_3, JULY_10 = date(2017, 7, 3), date(2017, 7, 10)
AUTOMATIC = FIELDWORK.replace('mode = "on_request"', 'mode = "automatic"').replace("at_once = 5", "at_once = 1000")
N_KILLS = 20
SITES = ("devon", "luton", "area_a", "area_b")


def find_settings(server: S3Server, bucket: str, port: int | None = None) -> dict[str, str]:
    return {
        "files": f"s3://{bucket}/studies",
        "s3_endpoint": f"http://127.0.0.1:{port or server.port}",
        "s3_region": server.region,
        "s3_access_key": server.access_key,
        "s3_secret_key": server.secret_key,
    }


@contextmanager
def open_on(folder: Path, settings: dict[str, str], day: date = JULY_10) -> Iterator[Workspace]:
    workspace = open_trial(folder, day, fieldwork=AUTOMATIC, **settings)
    with workspace.ledger:
        yield workspace


def enrol(workspace: Workspace) -> None:
    tell(workspace, [*grant("luton", "devon"), *join([1, 2, 3], JULY_3), *join([1, 2, 3], JULY_3, "devon")])


def run_round(workspace: Workspace, as_of: date) -> releasing.Released:
    return release_packs(workspace, draw_up_plan(workspace, as_of, is_scheduled=True), "daily round")


def test_one_site_is_denied_and_the_others_are_served(s3_server: S3Server, fresh_bucket: str, tmp_path: Path) -> None:
    """The server itself refuses to write below one site's outbox; once it does not, the next run mends it."""
    resource = f"arn:aws:s3:::{fresh_bucket}/studies/trial/sites/devon/outbox/*"
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": resource}
    with open_on(tmp_path, find_settings(s3_server, fresh_bucket)) as workspace, s3_server.connect() as client:
        enrol(workspace)
        policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
        client.put_bucket_policy(Bucket=fresh_bucket, Policy=policy)
        released = run_round(workspace, JULY_10)
        assert {site: counts["questionnaires"] for site, counts in released.counts.items()} == {"luton": 3}
        assert len(released.failures) == 1
        assert "devon" in released.failures[0]
        assert_sound(workspace, complete=False)
        assert find_open_claims(workspace.read_events())["site_id"].tolist() == ["devon"]
        again = run_round(workspace, JULY_10)
        assert (list(again.counts), len(again.failures)) == ([], 1)

        client.delete_bucket_policy(Bucket=fresh_bucket)
        mended = run_round(workspace, JULY_10)
        assert mended.failures == []
        assert mended.counts["devon"]["packs put again"] == 1
        assert_sound(workspace)
        assert len(workspace.read_events().frame(ReturnReleased)) == 6


def test_a_site_denied_until_the_next_day_gets_what_holds_then(
    s3_server: S3Server, fresh_bucket: str, tmp_path: Path
) -> None:
    resource = f"arn:aws:s3:::{fresh_bucket}/studies/trial/sites/devon/outbox/*"
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": resource}
    with open_on(tmp_path, find_settings(s3_server, fresh_bucket)) as workspace, s3_server.connect() as client:
        enrol(workspace)
        policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
        client.put_bucket_policy(Bucket=fresh_bucket, Policy=policy)
        assert len(run_round(workspace, JULY_10).failures) == 1
        client.delete_bucket_policy(Bucket=fresh_bucket)
        tell(workspace, leave(2, JULY_10, "devon"))
        next_day = date(2017, 7, 11)
        move_clock(workspace, next_day)
        counts = run_round(workspace, next_day).counts["devon"]
        assert (counts["packs taken back"], counts["questionnaires"]) == (1, 2)
        assert_sound(workspace)


class Line:
    """A connection to a server that can be cut: what is under way breaks off, and nothing new comes through."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._ends: list[socket.socket] = []
        self.is_cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self.is_cut:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._to))
                self._ends += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        self.is_cut = True
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self.is_cut = False

    def close(self) -> None:
        self.cut()
        self._listener.close()


@pytest.fixture
def line(s3_server: S3Server) -> Iterator[Line]:
    line = Line(s3_server.port)
    yield line
    line.close()


@pytest.mark.parametrize("moment", ["before", "between claim and outbox", "between outbox and record"])
def test_the_server_is_gone_and_the_next_run_mends_it(
    s3_server: S3Server,
    fresh_bucket: str,
    line: Line,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    with open_on(tmp_path, find_settings(s3_server, fresh_bucket, line.port)) as workspace:
        enrol(workspace)
        plan = draw_up_plan(workspace, JULY_10, is_scheduled=True)
        if moment == "before":
            line.cut()
        else:
            name = "_deliver" if moment == "between claim and outbox" else "_record_delivery"
            original = getattr(releasing, name)

            def cut_first(*args: Any) -> Any:
                line.cut()
                if name == "_record_delivery":
                    raise releasing.ReleaseRefused("The run ended here.")
                return original(*args)

            monkeypatch.setattr(releasing, name, cut_first)
        released = release_packs(workspace, plan, "daily round")
        monkeypatch.undo()
        assert released.counts == {}
        assert [failure.partition(":")[0] for failure in released.failures] == ["devon", "luton"]
        assert s3_server.secret_key not in "".join(released.failures)
        events = workspace.read_events()
        assert len(events.frame(PackClaimed)) == (0 if moment == "before" else 1)
        assert events.frame(PackDelivered).empty

        line.mend()
        mended = run_round(workspace, JULY_10)
        assert mended.failures == []
        taken_up = {"before": "", "between claim and outbox": "packs put again"}.get(moment, "packs found delivered")
        if taken_up:
            assert mended.counts["devon"][taken_up] == 1
        assert_sound(workspace)
        assert len(workspace.read_events().frame(ReturnReleased)) == 6


# Killed -------------------------------------------------------------------------------------------------------------

_RELEASE = """
from datetime import date
from pathlib import Path
from tasks import releasing
from tests.release_studies import open_trial
deliver = releasing._deliver
def tell_and_deliver(*args):
    print("delivers", flush=True)
    deliver(*args)
releasing._deliver = tell_and_deliver

def run(day, folder, settings):
    workspace = open_trial(Path(folder), date.fromisoformat(day), **settings)
    plan = releasing.draw_up_plan(workspace, workspace.clock().date(), is_scheduled=True)
    print("planned", flush=True)
    return not releasing.release_packs(workspace, plan, "daily round").failures
"""


@pytest.mark.parametrize("store", ["folder", "s3"])
def test_killed_at_twenty_random_moments_nothing_is_lost_and_nothing_goes_twice(
    request: pytest.FixtureRequest, tmp_path: Path, store: str
) -> None:
    """Each round is killed in the middle of releasing to four sites; meanwhile people join, leave and die, and days go
    by. A folder goes with SQLite, S3 with PostgreSQL."""
    seed = int(os.environ.get("SUMMATIVE_KILL_SEED", "20170710"))
    print(f"SUMMATIVE_KILL_SEED={seed}")  # noqa: T201 - shown by pytest when the test fails
    chance = random.Random(seed)
    settings: dict[str, str] = {}
    if store == "s3":
        settings = find_settings(request.getfixturevalue("s3_server"), request.getfixturevalue("fresh_bucket"))
        settings["database_url"] = request.getfixturevalue("fresh_postgresql_url")
    write_definitions(tmp_path, AUTOMATIC, n_sites=2)
    rounds = ForkedRuns(_RELEASE)

    def release(kill_at: tuple[str, int, float] | None = None) -> int:
        return rounds.run(kill_at, day=day.isoformat(), folder=str(tmp_path), settings=settings)

    day, n_kills, n_left, n_joined, gone = JULY_10, 0, 0, 0, set[str]()
    try:
        with open_on(tmp_path, settings) as workspace:
            tell(workspace, grant(*SITES))
            while n_kills < N_KILLS:
                first, n_joined, told = n_joined + 1, n_joined + 3, []
                for site_id in SITES:
                    told += join(range(first, n_joined + 1), day, site_id)
                    number = chance.randint(1, n_joined)
                    if chance.random() < 0.5 and identify(number, site_id) not in gone:
                        told += leave(number, day, site_id)
                        gone.add(identify(number, site_id))
                tell(workspace, told)
                # Some anywhere, the others close to where a claim is not yet delivered.
                anywhere = ("planned", 1, chance.uniform(0.0, 1.0))
                at_claim = ("delivers", chance.randint(1, len(SITES)), chance.uniform(0.0, 0.02))
                status = release(chance.choice([anywhere, at_claim, at_claim]))
                assert status in (0, -9)
                n_kills += status == -9
                n_open = len(find_open_claims(workspace.read_events()))
                n_left += n_open
                print(n_kills, day, status, n_open)  # noqa: T201 - likewise
                if chance.random() < 0.3:
                    day += timedelta(days=1)
                    move_clock(workspace, day)
            assert n_left > 0, "no kill fell between a claim and its delivery"
            assert release() == 0
            assert_sound(workspace)
            released = set(workspace.read_events().frame(ReturnReleased)["participant_id"])
            everybody = {identify(n, site_id) for site_id in SITES for n in range(1, n_joined + 1)}
            assert everybody - gone <= released
            head = workspace.ledger.head()
            assert release() == 0
            assert workspace.ledger.head() == head
            assert workspace.ledger.verify().is_clean
    finally:
        rounds.close()
