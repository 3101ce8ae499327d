"""A workspace of the small study of `approval_histories`, with its ledger and files in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from study.protocol import Study
from tasks.files import FolderArea
from tasks.ledger import Ledger
from tasks.settings import Settings
from tasks.workspace import Workspace

NEW_YEAR = datetime(2018, 1, 1, 12, tzinfo=UTC)


@contextmanager
def open_trial(study: Study, folder: Path, url: str = "") -> Iterator[Workspace]:
    """Time stands at noon of 1 January 2018. Several may be open on one folder at once."""
    settings = Settings(data_folder=folder)
    with Ledger.open(url or f"sqlite:///{folder / 'ledger.db'}", "trial", lambda: NEW_YEAR) as ledger:
        yield Workspace("trial", study, {}, ledger, FolderArea(folder), settings, folder, lambda: NEW_YEAR)
