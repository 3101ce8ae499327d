"""A daily round killed at twenty random moments: nothing lost, nothing sent twice, and little left to find out."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from benchmarks.faults import open_places, run_faults
from tests.mail_servers import run_smtp
from tests.services import S3Server

N_KILLS = 20


@pytest.mark.parametrize("ledger", ["sqlite", "postgresql"])
def test_killed_at_twenty_random_moments(
    tmp_path: Path, ledger: str, s3_server: S3Server, request: pytest.FixtureRequest
) -> None:
    """Packs to a real S3 server, messages through a real SMTP server, the ledger on either database."""
    seed = int(os.environ.get("SUMMATIVE_KILL_SEED", "20170710"))
    print(f"SUMMATIVE_KILL_SEED={seed}")  # noqa: T201 - shown by pytest when the test fails
    databases = request.getfixturevalue("postgresql_server") if ledger == "postgresql" else None
    with run_smtp() as server:
        outcome = run_faults(
            tmp_path, server, partial(open_places, s3_server, databases), n_sites=8, n_messages=12, n_kills=N_KILLS,
            seed=seed, span=1.5,
        )  # fmt: skip
    print(outcome)  # noqa: T201 - likewise
    assert outcome.faults == []
    assert outcome.n_kills == N_KILLS
    assert outcome.n_uncertain <= N_KILLS
    assert outcome.n_intended - outcome.n_uncertain <= outcome.n_delivered <= outcome.n_intended
    assert outcome.n_packs == 8 * outcome.n_studies
