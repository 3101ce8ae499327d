"""A daily round killed at twenty random moments: nothing lost, nothing sent twice, and nobody left to guess."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.faults import find_s3_settings, run_faults
from tests.mail_servers import run_smtp
from tests.services import S3Server

N_KILLS = 20


def test_killed_at_twenty_random_moments(
    tmp_path: Path, ledger_url: str, s3_server: S3Server, fresh_bucket: str
) -> None:
    """Packs to a real S3 server, messages through a real SMTP server, the ledger on either database."""
    seed = int(os.environ.get("SUMMATIVE_KILL_SEED", "20170710"))
    print(f"SUMMATIVE_KILL_SEED={seed}")  # noqa: T201 - shown by pytest when the test fails
    settings = {**find_s3_settings(s3_server, fresh_bucket), "database_url": ledger_url}
    with run_smtp() as server:
        outcome = run_faults(
            tmp_path, server, settings, n_sites=24, n_messages=4, n_kills=N_KILLS, seed=seed, span=0.4
        )  # fmt: skip
    print(outcome)  # noqa: T201 - likewise
    assert outcome.faults == []
    assert outcome.n_kills == N_KILLS
    assert outcome.n_delivered >= outcome.n_intended - outcome.n_uncertain
    assert outcome.n_uncertain <= N_KILLS
