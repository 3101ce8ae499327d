"""Freeze a dataset: tables, codebook, report and manifest, published by one atomic step."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from importlib.metadata import version
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from study.codebook import derive_study_codebook
from study.datasets import (
    ReleaseFault,
    derive_participants_table,
    derive_responses_table,
    derive_scores_table,
    find_release_faults,
    find_schema_faults,
)
from study.configuration import find_in_force
from study.events import ConfigurationAdopted, ReleaseFrozen
from study.instruments import Instrument
from study.protocol import Study
from study.state import (
    Events,
    derive_files,
    derive_participants,
    derive_queries,
    derive_returns,
    format_moment,
)
from tasks.definitions import parse_configuration
from tasks.files import point_latest, publish_folder
from tasks.pages import write_codebook_page, write_release_report
from tasks.returns import read_answers
from tasks.settings import PROJECT
from tasks.workspace import Workspace

RELEASES = "releases"
_FIELDS = {
    "score": pa.float64(),
    "response": pa.float64(),
}


@dataclass(frozen=True)
class Release:
    """A frozen dataset. `answer`: "added", or "same" where this very dataset had been frozen before."""

    release: str
    answer: str
    manifest: Mapping[str, Any]
    location: str


@dataclass(frozen=True)
class Assembled:
    """Everything that goes into a release, before it is written."""

    study: Study
    instruments: Mapping[str, Instrument]
    events: Events
    as_of: date
    known_at: datetime
    tables: Mapping[str, pd.DataFrame]
    files: pd.DataFrame
    queries: pd.DataFrame
    returns: pd.DataFrame
    configuration: pd.DataFrame


def assemble_release(workspace: Workspace, as_of: date, known_at: datetime | None = None) -> Assembled:
    """The tables of the study as of a date, as known at a moment (default: now), by the configuration of that date.

    Raises ReleaseFault with every reason why they may not be released.
    """
    everything = workspace.read_events()
    known_at = known_at or workspace.clock()
    events = everything.select(as_of=as_of, known_at=known_at)
    configuration = find_in_force(events.frame(ConfigurationAdopted), as_of)
    study, instruments = parse_configuration(
        {(row.part, row.name): workspace.content.get(row.sha256) for row in configuration.itertuples()}
    )
    participants = derive_participants_table(derive_participants(events))
    returns = derive_returns(events)
    current = returns[returns["is_current"]]
    responses = derive_responses_table(current, read_answers(workspace, current), study, instruments)
    scores = derive_scores_table(responses, study, instruments)
    faults = find_release_faults(participants, responses, scores, study, instruments)
    faults += find_schema_faults(responses, instruments)
    if faults:
        raise ReleaseFault("This dataset may not be released:\n" + "\n".join(f"- {fault}" for fault in faults))
    return Assembled(
        study=study,
        instruments=instruments,
        events=events,
        as_of=as_of,
        known_at=known_at,
        tables={"participants": participants, "responses": responses, "scores": scores},
        files=derive_files(events),
        queries=derive_queries(events),
        returns=returns,
        configuration=configuration,
    )


def freeze_release(
    workspace: Workspace, as_of: date, requested_by: str, known_at: datetime | None = None
) -> Release:
    """Freeze the study as of a date. The same dataset frozen again is the same release, whatever came between.

    A release appears whole or not at all: a crash before the publishing step leaves nothing, one after it is mended by
    the next freeze, which finds the folder and records it.
    """
    assembled = assemble_release(workspace, as_of, known_at)
    data = derive_data_files(assembled.tables)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in data.items()}
    for number in range(1, 1000):
        release = as_of.isoformat() if number == 1 else f"{as_of.isoformat()}.{number}"
        standing = read_manifest(workspace, release)
        if standing is None:
            break
        if {name: entry["sha256"] for name, entry in standing["files"].items() if name in hashes} == hashes:
            return _record_release(workspace, assembled, release, "same", requested_by)
    files = dict(data)
    files["codebook.json"] = _encode_json(derive_codebook(assembled))
    files["codebook.html"] = write_codebook_page(derive_codebook(assembled))
    files["report.html"] = write_release_report(
        release=release,
        study=assembled.study,
        instruments=assembled.instruments,
        as_of=assembled.as_of,
        known_at=assembled.known_at,
        head=assembled.events.head,
        tables=assembled.tables,
        files=assembled.files,
        queries=assembled.queries,
        data_files=data,
    )
    manifest = derive_manifest(assembled, release, files)
    files["manifest.json"] = _encode_json(manifest)
    publish_folder(workspace.area, files, f"{RELEASES}/{release}", last="manifest.json")
    return _record_release(workspace, assembled, release, "added", requested_by)


def _record_release(
    workspace: Workspace, assembled: Assembled, release: str, answer: str, requested_by: str
) -> Release:
    encoded = workspace.area.get(f"{RELEASES}/{release}/manifest.json")
    manifest = json.loads(encoded)
    workspace.ledger.append(
        [
            ReleaseFrozen(
                occurred_on=assembled.as_of,
                requested_by=requested_by,
                release=release,
                as_of=assembled.as_of,
                known_at=manifest["known_at"],
                manifest_sha256=hashlib.sha256(encoded).hexdigest(),
            )
        ]
    )
    point_latest(workspace.area, RELEASES, release)
    return Release(release, answer, manifest, f"{workspace.area.place}/{RELEASES}/{release}")


def read_manifest(workspace: Workspace, release: str) -> dict[str, Any] | None:
    """The manifest of a release, or None where there is no such release (a folder without a manifest is none)."""
    key = f"{RELEASES}/{release}/manifest.json"
    if not workspace.area.has(key):
        return None
    manifest: dict[str, Any] = json.loads(workspace.area.get(key))
    return manifest


def read_latest_tables(workspace: Workspace) -> dict[str, pd.DataFrame]:
    """The tables of the newest release, by name. Raises FileMissing where nothing was frozen yet."""
    return {
        name: pd.read_parquet(io.BytesIO(workspace.area.get(f"{RELEASES}/latest/data/{name}.parquet")))
        for name in ("participants", "responses", "scores")
    }


def derive_data_files(tables: Mapping[str, pd.DataFrame]) -> dict[str, bytes]:
    """Each table as Parquet and CSV; the same rows give the same bytes."""
    files = {}
    for name, table in tables.items():
        files[f"data/{name}.parquet"] = encode_parquet(table)
        files[f"data/{name}.csv"] = encode_csv(table)
    return files


def _find_field(column: str) -> pa.Field:
    if column.endswith("_on"):
        return pa.field(column, pa.date32())
    return pa.field(column, _FIELDS.get(column, pa.string()))


def encode_parquet(table: pd.DataFrame) -> bytes:
    """Dates as dates, numbers as doubles, everything else as text; no metadata of the writer's environment."""
    schema = pa.schema([_find_field(column) for column in table.columns])
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(table, schema, preserve_index=False).replace_schema_metadata(None), sink,
                   compression="zstd")  # fmt: skip
    return sink.getvalue()


def encode_csv(table: pd.DataFrame) -> bytes:
    """UTF-8, comma, one header; dates as 2013-01-31, whole numbers without a point, missing values empty."""
    shown = table.copy()
    for column in shown.columns:
        if column.endswith("_on"):
            shown[column] = pd.to_datetime(shown[column]).dt.strftime("%Y-%m-%d")
    text: str = shown.to_csv(index=False, lineterminator="\n", float_format="%.15g")
    return text.encode()


def derive_codebook(assembled: Assembled) -> dict[str, Any]:
    """What every column, instrument, item, level, missing code and scale of the release means."""
    return derive_study_codebook(assembled.study, assembled.instruments, assembled.tables)


def derive_manifest(assembled: Assembled, release: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Everything that went in and came out, by SHA-256, so that the release can be verified and rebuilt."""
    files_in = assembled.files.sort_values(["site_id", "sha256"])
    return {
        "release": release,
        "study": assembled.study.study_id,
        "title": assembled.study.title,
        "as_of": assembled.as_of.isoformat(),
        "known_at": format_moment(assembled.known_at),
        "ledger": {"seq": assembled.events.head.seq, "hash": assembled.events.head.hash},
        "configuration": [
            {"part": row.part, "name": row.name, "sha256": row.sha256, "adopted_on": f"{row.occurred_on:%Y-%m-%d}"}
            for row in assembled.configuration.itertuples(index=False)
        ],
        "assumptions": [{"id": entry.id, "text": entry.text} for entry in assembled.study.assumptions],
        "tables": {
            name: {
                "n_rows": len(table),
                "columns": list(table.columns),
                "sha256_of_csv": hashlib.sha256(files[f"data/{name}.csv"]).hexdigest(),
            }
            for name, table in assembled.tables.items()
        },
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in sorted(files.items())
        },
        "returns": [
            {"site": row.site_id, "return_id": row.return_id, "sha256": row.sha256, "outcome": row.outcome}
            for row in files_in.itertuples()
        ],
        "code": derive_code_version(),
    }


def derive_code_version() -> dict[str, str]:
    """The version of Summative and of what shapes a release's bytes."""
    commit = subprocess.run(  # noqa: S603 - fixed words, no input
        ["git", "-C", str(PROJECT), "describe", "--always", "--dirty"],  # noqa: S607 - git is found on the PATH
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {
        "summative": version("summative"),
        "commit": commit.stdout.strip() or "unknown",
        "python": platform.python_version(),
        **{name: version(name) for name in ("pandas", "pyarrow", "numpy")},
    }


def _encode_json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
