"""Whether a release is what it was, whether it can be built again, and what is different in another one."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pyarrow.csv
import pyarrow.parquet as pq

from study.analysis_tables import derive_layouts
from study.datasets import ReleaseFault
from study.erasure import derive_replacements
from study.events import ReleaseFrozen, ReleaseWaived
from study.release_diff import CAUSES, CHANGES, Side, compare_datasets, count_changes
from study.release_rules import Obstacle, find_covered, find_hindrances
from study.state import EMPTY, Head, parse_moment
from tasks.definitions import parse_configuration
from tasks.erasure import list_recalled
from tasks.files import ContentDamaged, FileMissing, hash_chunks
from tasks.identifier_search import make_scanner
from tasks.pages import format_counted, render_page
from tasks.release_files import compute_content_hash, write_data_files
from tasks.releases import (
    CONTENT_HASH,
    MANIFEST,
    RELEASES,
    assemble_release,
    compute_sha256,
    cut_events,
    derive_code_version,
    find_release_hindrances,
    read_manifest,
    write_release_files,
)
from tasks.workspace import Workspace

DIFFERENCES = "pages/release_diffs"


@dataclass
class Checked:
    """What verifying a release found. `faults`: what is not as it was; `notes`: what is worth knowing and no fault;
    `other_bytes`: files that a rebuild wrote otherwise while the tables hold the same."""

    release: str
    n_files: int = 0
    n_sources: int = 0
    head: Head = EMPTY
    was_rebuilt: bool = False
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    other_bytes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0: all as it was; 1: something is not; 3: rebuilt with the same content in other bytes."""
        return 1 if self.faults else 3 if self.other_bytes else 0


def find_release(workspace: Workspace, release: str = "") -> str:
    """The release of this name; left out, the newest. Raises ReleaseFault where there is none."""
    name = release or "latest"
    if not workspace.area.has(f"{RELEASES}/{name}/{MANIFEST}"):
        known = sorted(workspace.read_events().frame(ReleaseFrozen)["release"])
        hint = f" Frozen are: {', '.join(known)}." if known else " Nothing was frozen yet."
        raise ReleaseFault([f'{workspace.name} has no release "{name}".{hint}'])
    return str((read_manifest(workspace, name) or {})["release"]) if name == "latest" else name


# Verifying ----------------------------------------------------------------------------------------------------------


def verify_release(workspace: Workspace, release: str, *, is_rebuilt: bool = False) -> Checked:
    """Hold a release against its manifest, the manifest against the ledger, and what it rests on against the store;
    with `is_rebuilt` also build it again, as of the same day and as known at the same moment, and compare.

    Raises ReleaseFault where there is no such release.
    """
    release = find_release(workspace, release)
    found = Checked(release)
    prefix = f"{RELEASES}/{release}/"
    encoded = workspace.area.get(f"{prefix}{MANIFEST}")
    try:
        manifest = json.loads(encoded)
        found.n_files, found.head = len(manifest["files"]), Head(**manifest["ledger"])
    except (ValueError, KeyError, TypeError):
        found.faults.append(f"{MANIFEST} cannot be read. Restore the release from a backup.")
        return found
    files = _hash_files(workspace, prefix, manifest, found)
    _check_tables(workspace, prefix, files, manifest, found)
    _check_record(workspace, release, encoded, manifest, found)
    _check_chain(workspace, found)
    _check_sources(workspace, manifest, found)
    if is_rebuilt:
        _check_rebuilt(workspace, manifest, files, found)
    return found


def _hash_files(workspace: Workspace, prefix: str, manifest: Mapping[str, Any], found: Checked) -> dict[str, str]:
    """The SHA-256 of each file of a release that is there, by its name."""
    files = {}
    for name, told in manifest["files"].items():
        try:
            files[name] = hash_chunks(workspace.area.read_chunks(f"{prefix}{name}"))
        except FileMissing:
            found.faults.append(f"{name} is missing.")
            continue
        if files[name] != told["sha256"]:
            found.faults.append(f"{name} was changed: its hash is not the one in the manifest.")
    there = {stored.key.removeprefix(prefix) for stored in workspace.area.list(prefix)}
    for name in sorted(there - set(manifest["files"]) - {MANIFEST}):
        found.faults.append(f"{name} lies in the release's folder and is not of the release.")
    return files


def _check_tables(
    workspace: Workspace, prefix: str, files: Mapping[str, str], manifest: Mapping[str, Any], found: Checked
) -> None:
    """Each table, read from its Parquet file, has the content that the manifest tells. A file that was changed is told
    of already, and may be unreadable."""
    for name, told in manifest["tables"].items():
        file = f"data/{name}.parquet"
        if CONTENT_HASH not in told or files.get(file) != manifest["files"].get(file, {}).get("sha256"):
            continue
        with TemporaryDirectory() as folder:
            workspace.area.fetch(f"{prefix}{file}", Path(folder, "table"))
            table = pq.ParquetFile(Path(folder, "table"))
            if (table.metadata.num_rows, compute_content_hash(table)) != (told["n_rows"], told[CONTENT_HASH]):
                found.faults.append(f"{file} does not hold what the manifest says of the table {name}.")


def _check_record(
    workspace: Workspace, release: str, encoded: bytes, manifest: Mapping[str, Any], found: Checked
) -> None:
    recorded = workspace.read_events().frame(ReleaseFrozen)
    own = recorded[recorded["release"] == release]
    if own.empty:
        found.faults.append(f"The ledger does not know {release}: freeze it again, which records it.")
    elif own["manifest_sha256"].iloc[-1] != compute_sha256(encoded):
        found.faults.append(f"{MANIFEST} is not the one that was recorded when the release was frozen.")
    if manifest["release"] != release:
        found.faults.append(f"{MANIFEST} is that of the release {manifest['release']}.")


def _check_chain(workspace: Workspace, found: Checked) -> None:
    chain = workspace.ledger.verify(found.head if found.head.seq else None)
    found.faults += [f"Ledger: {fault}" for fault in chain.faults]


def _check_sources(workspace: Workspace, manifest: Mapping[str, Any], found: Checked) -> None:
    """Files that sites sent, their answers, and the definitions, by hash in the store."""
    wanted: dict[str, str] = {}
    for entry in manifest["returns"]:
        wanted |= {entry["sha256"]: f"The file of the sending {entry['return_id'] or entry['sha256'][:12]}"}
        if entry["answers_sha256"]:
            wanted[entry["answers_sha256"]] = f"The answers of the sending {entry['return_id']}"
    wanted |= {part["sha256"]: f"The {part['part']} {part['name']}" for part in manifest["configuration"]}
    found.n_sources = len(wanted)
    replaced, n_erased = derive_replacements(workspace.read_events()), 0
    for sha256, words in wanted.items():
        try:
            workspace.content.get(sha256)
        except (FileMissing, ContentDamaged) as fault:
            if sha256 in replaced:
                n_erased += 1
                continue
            what = "is missing from the store" if isinstance(fault, FileMissing) else "is damaged in the store"
            found.faults.append(f"{words} {what} ({sha256[:12]}). Restore it from a backup.")
    if n_erased:
        found.notes.append(f"{format_counted(n_erased, 'file')} that it rests on were erased by decision since.")
    if found.release in list_recalled(workspace, workspace.read_events()):
        found.notes.append(
            "It holds answers that were decided to be erased since: call its copies back, and freeze another."
        )


def _check_rebuilt(workspace: Workspace, manifest: Mapping[str, Any], files: Mapping[str, str], found: Checked) -> None:
    """Build the release again and compare: bytes, or else the content of its tables."""
    found.was_rebuilt = True
    try:
        assembled = assemble_release(
            workspace,
            date.fromisoformat(manifest["as_of"]),
            parse_moment(manifest["known_at"]),
            is_blinded=bool(manifest.get("masked_arms")),
            up_to=manifest["ledger"]["seq"],
        )
    except (ReleaseFault, FileMissing) as fault:
        found.faults.append(f"It cannot be built again: {fault}")
        return
    _, assembled = find_release_hindrances(workspace, assembled)
    with TemporaryDirectory() as folder:
        data = write_data_files(assembled.rows, Path(folder))
        written = write_release_files(assembled, manifest["release"], data, Path(folder))
    again, rebuilt = json.loads(written.manifest), {name: entry.sha256 for name, entry in written.entries.items()}
    other_tables = _find_other_tables(manifest, again)
    for name in other_tables:
        found.faults.append(f"Built again, the table {name} holds something else.")
    names = sorted({*files, *rebuilt})
    differing = [name for name in names if files.get(name) != rebuilt.get(name)]
    code = derive_code_version()
    if other_tables or not differing:
        return
    if manifest["code"] == code:
        found.faults += [f"Built again by the same versions, {name} has other bytes." for name in differing]
        return
    found.other_bytes = differing
    others = ", ".join(
        f"{name} {manifest['code'].get(name, 'none')} then, {version} now"
        for name, version in code.items()
        if manifest["code"].get(name) != version
    )
    found.notes.append(f"Other versions wrote it: {others}.")


def _find_other_tables(manifest: Mapping[str, Any], again: Mapping[str, Any]) -> list[str]:
    """Tables whose content is not the same, or that only one of the two has."""
    names = dict.fromkeys([*manifest["tables"], *again["tables"]])
    found = []
    for name in names:
        told, built = manifest["tables"].get(name), again["tables"].get(name)
        if told is None or built is None:
            found.append(name)
            continue
        hash_name = CONTENT_HASH if CONTENT_HASH in told else "sha256_of_csv"
        if (told["columns"], told[hash_name]) != (built["columns"], built[hash_name]):
            found.append(name)
    return found


# Differences --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Differences:
    """What differs between two releases. `changes`: as from `compare_datasets`; `counts`: from `count_changes`;
    `keys`: of the files that were written (a page, and every row and cell as CSV)."""

    before: str
    after: str
    changes: pd.DataFrame
    counts: pd.DataFrame
    keys: tuple[str, ...]


def diff_releases(workspace: Workspace, before: str, after: str) -> Differences:
    """Compare two releases, and write what differs among the study's pages. Raises ReleaseFault where one is missing,
    or where one has masked arms and the other has not."""
    before, after = find_release(workspace, before), find_release(workspace, after)
    sides = [_read_side(workspace, name) for name in (before, after)]
    manifests = [read_manifest(workspace, name) or {} for name in (before, after)]
    if manifests[0].get("masked_arms", []) != manifests[1].get("masked_arms", []):
        raise ReleaseFault([f"Of {before} and {after} one has masked arms: they can't be compared arm by arm."])
    changes = compare_datasets(sides[0], sides[1], workspace.read_events())
    counts = count_changes(changes)
    keys = (f"{DIFFERENCES}/{before}_{after}.html", f"{DIFFERENCES}/{before}_{after}.csv")
    page = render_page(
        "release_diff.html.jinja",
        title=f"{sides[1].study.title}: what differs between {before} and {after}",
        before=manifests[0],
        after=manifests[1],
        counts=counts.to_dict("records"),
        causes=CAUSES,
        changes=CHANGES,
        file=keys[1].rpartition("/")[2],
        n_changes=len(changes),
        banner=workspace.banner,
    )
    workspace.area.put(keys[0], page)
    workspace.area.put(keys[1], _encode_csv(changes))
    return Differences(before, after, changes, counts, keys)


def _encode_csv(changes: pd.DataFrame) -> bytes:
    sink = io.BytesIO()
    pyarrow.csv.write_csv(pyarrow.Table.from_pandas(changes, preserve_index=False), sink)
    return sink.getvalue()


def _read_side(workspace: Workspace, release: str) -> Side:
    manifest = read_manifest(workspace, release) or {}
    definitions = {(part["part"], part["name"]): part["sha256"] for part in manifest["configuration"]}
    study, instruments = parse_configuration({part: workspace.content.get(sha) for part, sha in definitions.items()})
    layouts = derive_layouts(study, instruments)
    return Side(
        study=study,
        events=cut_events(workspace.read_events(), manifest["ledger"]["seq"]),
        as_of=date.fromisoformat(manifest["as_of"]),
        seq=manifest["ledger"]["seq"],
        definitions=definitions,
        code=manifest["code"],
        tables={
            name: pd.read_parquet(io.BytesIO(workspace.area.get(f"{RELEASES}/{release}/data/{name}.parquet")))
            for name in manifest["tables"]
            if name in layouts
        },
        layouts=layouts,
    )


# Waivers ------------------------------------------------------------------------------------------------------------


def waive_hindrances(
    workspace: Workspace,
    waived: Obstacle,
    subject: str,
    *,
    until: date,
    reason: str,
    role: str,
    requested_by: str,
    today: date,
    reference: str = "",
) -> int:
    """Record that what stands in the way of a release may stand there, for datasets as of days up to `until`; gives how
    many it concerns. Raises ReleaseFault where nothing of the kind stands in the way now."""
    events = workspace.read_events()
    assembled = assemble_release(workspace, min(until, today))
    scanner = make_scanner(assembled.study, today)
    hindrances = find_hindrances(assembled.study, events, min(until, today), assembled.rows, scanner)
    concerned = find_covered(hindrances, waived, subject)
    if not concerned:
        own = [hindrance for hindrance in hindrances if hindrance.what == waived]
        names = sorted({name for one in own for name in (one.site_id or one.subject, one.subject)})[:10]
        there = f" What does: {', '.join(names)}." if names else ""
        raise ReleaseFault([f'Nothing called "{subject}" stands in the way as {waived}.{there}'])
    before = events.frame(ReleaseWaived)
    same = before[
        (before["waived"] == waived) & (before["subject"] == subject) & (before["until"] == pd.Timestamp(until))
    ]
    event = ReleaseWaived.model_validate(
        {
            "occurred_on": today, "requested_by": requested_by, "waived": waived, "subject": subject, "until": until,
            "number": len(same) + 1, "n_concerned": sum(one.n for one in concerned), "reason": reason, "role": role,
            "reference": reference,
        }
    )  # fmt: skip
    workspace.ledger.append([event])
    return sum(one.n for one in concerned)
