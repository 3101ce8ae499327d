"""Fixtures that several test modules use: the two databases and the two file stores, each real."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import pytest
from hypothesis import HealthCheck, settings

if "PREFECT_HOME" not in os.environ:  # Prefect reads it, and makes the folder, as soon as it is imported
    os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="summative-prefect-")
    atexit.register(shutil.rmtree, os.environ["PREFECT_HOME"], ignore_errors=True)

from tests.services import PostgreSQLServer, S3Server, ServiceMissing, run_postgresql, run_s3

if TYPE_CHECKING:
    from tasks.files import FileArea, S3Area

Server = TypeVar("Server")

# Shared machines stall for a second now and then: what a property test shows is not how fast it was.
settings.register_profile("summative", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("summative")


def give_up(reason: ServiceMissing) -> NoReturn:
    """Skip for a person without the server; fail where the whole must be shown (CI=true)."""
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(f"{reason} (CI is set, so this is no reason to skip.)", pytrace=False)
    pytest.skip(str(reason))


def _enter(stack: ExitStack, service: AbstractContextManager[Server]) -> Server:
    try:
        return stack.enter_context(service)
    except ServiceMissing as reason:
        missing = reason
    give_up(missing)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQLServer]:
    with ExitStack() as stack:
        yield _enter(stack, run_postgresql())


@pytest.fixture
def fresh_postgresql_url(postgresql_server: PostgreSQLServer) -> Iterator[str]:
    """SQLAlchemy URL (postgresql+psycopg://...) of a new, empty database, dropped afterwards."""
    with postgresql_server.fresh_database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a new, empty database: the test runs once on each kind that a ledger may lie in."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    return str(request.getfixturevalue("fresh_postgresql_url"))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with ExitStack() as stack:
        yield _enter(stack, run_s3())


@pytest.fixture
def fresh_bucket(s3_server: S3Server) -> Iterator[str]:
    """Name of a new, empty bucket, deleted afterwards."""
    with s3_server.fresh_bucket() as name:
        yield name


@pytest.fixture(scope="session")
def shared_s3_area(s3_server: S3Server) -> Iterator[S3Area]:
    """One client and one bucket for many tests, each below a prefix of its own: both take long to warm up."""
    from tasks.files import S3Area, connect_s3

    client = connect_s3(
        endpoint_url=s3_server.endpoint_url,
        access_key=s3_server.access_key,
        secret_key=s3_server.secret_key,
        region=s3_server.region,
    )
    try:
        with s3_server.fresh_bucket() as bucket:
            yield S3Area(bucket, "", client)
    finally:
        client.close()


@pytest.fixture(params=["folder", "s3"])
def file_area(request: pytest.FixtureRequest, tmp_path: Path) -> FileArea:
    """A new, empty file area: the test runs once on each kind of store."""
    from tasks.files import FolderArea

    if request.param == "folder":
        return FolderArea(tmp_path / "area")
    shared: S3Area = request.getfixturevalue("shared_s3_area")
    return shared.below(f"test-{secrets.token_hex(6)}")


@pytest.fixture
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Settings of the test's own, which no other test of the process sees."""
    from tasks.settings import read_settings  # this file stands before anything of the product is imported

    for name, folder in (("DATA_FOLDER", "out"), ("SITES_CONFIG", "sites_config"), ("INSTRUMENTS", "instruments")):
        monkeypatch.setenv(f"SUMMATIVE_{name}", str(tmp_path / folder))
    read_settings.cache_clear()
    yield tmp_path
    read_settings.cache_clear()
