"""Configuration as part of history: which version of each part a study followed on a date, and what changed since.

A part is the protocol (`study.toml`), the pathway of its approvals (`approvals.toml`), the rules of its fieldwork
(`fieldwork.toml`), a site's file, the map of a source of exports, or an instrument's folder packed into one document.
Each version is stored by the SHA-256 of its bytes and adopted by a `ConfigurationAdopted` event. A part that the study
gave up is adopted as the empty document, so that giving up is history too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from typing import NamedTuple

import pandas as pd

from study.protocol import FIELDWORK_FILE, PATHWAY_FILE, SITES_FOLDER, SOURCES_FOLDER, STUDY_FILE

_BESIDE = {"pathway": PATHWAY_FILE, "fieldwork": FIELDWORK_FILE}
"""The files beside study.toml that a study may have, by part."""
_FOLDERS = {"site": SITES_FOLDER, "source": SOURCES_FOLDER}
"""The folders of a study, a file for each, by part."""

GIVEN_UP = sha256(b"").hexdigest()
"""The version of a part that the study no longer has: no bytes."""


class ConfigurationPart(NamedTuple):
    """One part as it is now. `name`: the study's, the site's, the source's or the instrument's id."""

    part: str
    name: str
    data: bytes

    @property
    def sha256(self) -> str:
        return sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True)
class ConfigurationChange:
    """A part whose version must be adopted: `follows` is the version in force so far, '' for a new part."""

    part: str
    name: str
    sha256: str
    follows: str


@dataclass(frozen=True, slots=True)
class StudyFiles:
    """The files that a study is read from: path to contents, for the study and for each of its instruments."""

    study: dict[str, bytes]
    instruments: dict[str, dict[str, bytes]]


def pack_folder(files: Mapping[str, bytes]) -> bytes:
    """A folder of text files as one canonical JSON document, file name to text. Raises UnicodeDecodeError if not UTF-8.

    The same files give the same bytes, in whatever order they are listed.
    """
    texts = {name: data.decode() for name, data in files.items()}
    return json.dumps(texts, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def unpack_folder(data: bytes) -> dict[str, bytes]:
    """The inverse of `pack_folder`."""
    return {name: text.encode() for name, text in json.loads(data).items()}


def list_parts(
    study_id: str, study_files: Mapping[str, bytes], instrument_files: Mapping[str, Mapping[str, bytes]]
) -> list[ConfigurationPart]:
    """Every part of a study's configuration: protocol, pathway and fieldwork where there are, sites, sources and
    instruments by name."""
    in_folders = [
        ConfigurationPart(part, _find_name(path, folder), data)
        for part, folder in _FOLDERS.items()
        for path, data in sorted(study_files.items())
        if _find_name(path, folder)
    ]
    instruments = [ConfigurationPart("instrument", id_, pack_folder(files)) for id_, files in instrument_files.items()]
    protocol = [ConfigurationPart("protocol", study_id, study_files[STUDY_FILE])]
    for part, file in _BESIDE.items():
        if file in study_files:
            protocol.append(ConfigurationPart(part, study_id, study_files[file]))
    return [*protocol, *in_folders, *sorted(instruments)]


def find_in_force(adopted: pd.DataFrame, on: date) -> pd.DataFrame:
    """The version of each part that a study followed on a date.

    In: the frame of `ConfigurationAdopted` (part, name, sha256, occurred_on as datetime64, seq, ...). Out: the rows in
    force, one per part and name, sorted by both, parts given up left out. Of two adoptions on one day the one recorded
    later counts.
    """
    until_then = adopted.loc[adopted["occurred_on"] <= pd.Timestamp(on)]
    newest = until_then.sort_values(["occurred_on", "seq"]).drop_duplicates(["part", "name"], keep="last")
    return newest.loc[newest["sha256"] != GIVEN_UP].sort_values(["part", "name"], ignore_index=True)


def find_changes(
    in_force: pd.DataFrame,
    parts: Iterable[ConfigurationPart],
    kinds: Iterable[str] = ("protocol", "pathway", "fieldwork", "site", "source", "instrument"),
) -> list[ConfigurationChange]:
    """What must be adopted so that the parts given are in force: new and changed ones, and those of `kinds` given up.

    `in_force`: as from `find_in_force`. Parts of other kinds that are in force and not among `parts` stay. The content
    of a part given up is the empty document.
    """
    kinds = tuple(kinds)
    rows = in_force[["part", "name", "sha256"]].itertuples(index=False, name=None)
    standing = {(part, name): version for part, name, version in rows}
    wanted = {(part.part, part.name): part.sha256 for part in parts}
    for key in standing:
        if key[0] in kinds:
            wanted.setdefault(key, GIVEN_UP)
    return [
        ConfigurationChange(part, name, version, standing.get((part, name), ""))
        for (part, name), version in wanted.items()
        if standing.get((part, name)) != version
    ]


def assemble_files(parts: Mapping[tuple[str, str], bytes]) -> StudyFiles:
    """The files that a study is parsed from, out of the stored contents of its parts by part and name.

    Parts given up, and parts of other kinds (templates, assumptions), are left out.
    """
    files = StudyFiles({}, {})
    for (part, name), data in parts.items():
        if not data:
            continue
        if part == "protocol":
            files.study[STUDY_FILE] = data
        elif part in _BESIDE:
            files.study[_BESIDE[part]] = data
        elif part in _FOLDERS:
            files.study[f"{_FOLDERS[part]}/{name}.toml"] = data
        elif part == "instrument":
            files.instruments[name] = unpack_folder(data)
    return files


def _find_name(path: str, folder: str) -> str:
    """The site or source whose file this is; '' for any other file."""
    parent, _, name = path.rpartition("/")
    return name.removesuffix(".toml") if parent == folder and name.endswith(".toml") else ""
