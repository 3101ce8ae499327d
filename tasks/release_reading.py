"""A release for code: its tables with what they mean.

from tasks.release_reading import read_release
release = read_release("out/cdisc_pilot/releases/latest")
release.tables["scores"]          # a frame, codes as they are
release.label("analysis_did")     # the same with codes and levels in words
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from study.datasets import RESPONSES, Column, Table
from tasks.exports import encode_workbook
from tasks.files import FileMissing
from tasks.workspace import Workspace

RELEASES = "releases"


class ReleaseDamaged(ValueError):
    """A file of a release is not the one that its manifest names."""


@dataclass(frozen=True)
class FrozenRelease:
    """A release as it was frozen. `tables`: its frames by name, with the codes of the codebook; `codebook` and
    `manifest`: as in its files."""

    tables: Mapping[str, pd.DataFrame]
    codebook: Mapping[str, Any]
    manifest: Mapping[str, Any]

    def label(self, name: str) -> pd.DataFrame:
        """A table with codes and levels in words, as ordered categories; what is no code stays as it is, and so do the
        reasons of missing values. The meaning of each column is in `attrs["labels"]` of the frame."""
        frame = self.tables[name].copy()
        columns = self.find_columns(name)
        for column in columns:
            labels = {float(level): label for level, label in column["levels"].items()}
            labels = labels or self.codebook["codes"].get(column["codes"], {})
            if labels and column["codes"] != "missing_reason":
                words = list(dict.fromkeys(labels.values()))
                values = frame[column["name"]].map(labels)
                frame[column["name"]] = pd.Categorical(values, categories=words, ordered=True)
        frame.attrs["labels"] = {column["name"]: column["label"] for column in columns}
        return frame

    def find_columns(self, name: str) -> list[dict[str, Any]]:
        """What the codebook says of each column of a table."""
        found: list[dict[str, Any]] = next(one["columns"] for one in self.codebook["tables"] if one["name"] == name)
        return found


def write_release_workbook(workspace: Workspace, release: str = "latest") -> str:
    """A release's tables as an Excel workbook among the study's files, outside the release. Gives its key."""
    read = read_release(workspace, release)
    tables = [
        (
            Table(
                described["name"],
                tuple(described["key"]),
                tuple(Column(one["name"], one["type"], one["label"]) for one in described["columns"]),
            ),
            read.tables[described["name"]],
        )
        for described in read.codebook["tables"]
        if described["name"] != RESPONSES.name
    ]
    name = read.manifest["release"]
    key = f"workbooks/{name}.xlsx"
    title = f"{read.manifest['title']}: release {name}"
    workspace.area.put(key, encode_workbook(title, tables, date.fromisoformat(read.manifest["as_of"])))
    return key


def read_release(place: Workspace | Path | str, release: str = "latest") -> FrozenRelease:
    """A release: its folder, or the workspace that it is in and its name. Every file read is held against the manifest.

    Raises FileMissing where there is none, and ReleaseDamaged for a file that has been changed since.
    """
    get: Callable[[str], bytes]
    if isinstance(place, Workspace):
        area = place.area

        def get(name: str) -> bytes:
            return area.get(f"{RELEASES}/{release}/{name}")

    else:
        folder = Path(place)

        def get(name: str) -> bytes:
            try:
                return (folder / name).read_bytes()
            except FileNotFoundError:
                raise FileMissing(f"{folder / name} is not there.") from None

    manifest = json.loads(get("manifest.json"))

    def get_verified(name: str) -> bytes:
        content = get(name)
        if hashlib.sha256(content).hexdigest() != manifest["files"][name]["sha256"]:
            raise ReleaseDamaged(
                f"{name} of the release {manifest['release']} is not the file that its manifest names: it has been "
                "changed since it was frozen. Restore it from a backup, or freeze the study again as of that day."
            )
        return content

    codebook = json.loads(get_verified("codebook.json"))
    # Dates come back from Parquet as Python objects; as times they can be reckoned with.
    days = {
        table["name"]: [column["name"] for column in table["columns"] if column["type"] == "date"]
        for table in codebook["tables"]
    }
    tables = {
        name: pd.read_parquet(io.BytesIO(get_verified(f"data/{name}.parquet"))).astype(
            dict.fromkeys(days[name], "datetime64[us]")
        )
        for name in manifest["tables"]
    }
    return FrozenRelease(tables, codebook, manifest)
