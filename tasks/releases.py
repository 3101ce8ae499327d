"""Freeze a dataset: tables, codebook, report and manifest, published by one atomic step."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute

from study.analysis_tables import (
    derive_asked_returns,
    derive_baseline_characteristics,
    derive_further_tables,
    derive_scores_table,
    list_table_rows,
    list_told_items,
)
from study.answers import ANSWERS_AT_ONCE, Answers, HeldAnswers, collect_answers
from study.attrition import derive_attrition_rows
from study.calendar import london_day
from study.codebook import derive_study_codebook
from study.configuration import find_in_force
from study.datasets import (
    RECORD_KEY,
    TABLES,
    ReleaseFault,
    TableRows,
    derive_participants_table,
    find_participant_faults,
    find_score_faults,
)
from study.erasure import derive_erased, is_erased, summarise_erasures
from study.events import (
    ConfigurationAdopted,
    ConsentRecorded,
    DispositionRecorded,
    ParticipantAllocated,
    ParticipantScreened,
    ReleaseFrozen,
)
from study.flow import (
    DISPOSITIONS,
    derive_disposition_rows,
    derive_flow_boxes,
    find_flow_faults,
    find_release_faults,
)
from study.incidents import count_quarantined
from study.instruments import Instrument
from study.masking import mask_arms, mask_study
from study.protocol import Study
from study.release_rules import (
    Hindrance,
    apply_waivers,
    count_left_out,
    describe_hindrances,
    find_hindrances,
    judge_consent,
)
from study.state import (
    Events,
    Head,
    derive_current_returns,
    derive_dispositions,
    derive_files,
    derive_participants,
    derive_queries,
    format_moment,
)
from study.yields import Sending, summarise_sending
from tasks.ahead import other_processes
from tasks.attrition_page import (
    ATTRITION_FIGURES,
    ATTRITION_PAGE,
    ATTRITION_PAPER,
    AttritionReport,
    write_attrition_report,
)
from tasks.codebook_files import write_codebook_files
from tasks.definitions import parse_configuration
from tasks.exports import (
    DESCRIPTOR,
    begin_labelled_files,
    encode_descriptor,
    encode_names,
    label_tables,
    write_examples,
)
from tasks.files import ReleaseDiffers, point_latest, publish_folder
from tasks.flow_diagram import (
    describe_for_page,
    encode_flow_table,
    write_flow_page,
)
from tasks.identifier_search import make_scanner
from tasks.masking import draw_letters
from tasks.page_links import link_pages
from tasks.pages import write_release_report
from tasks.psychometrics_page import (
    INSTRUMENTS_FIGURES,
    INSTRUMENTS_PAGE,
    InstrumentsReport,
    write_instruments_report,
)
from tasks.release_files import DataFiles, FileEntry, SpooledAnswers, describe_file, write_data_files
from tasks.returns import read_answer_parts
from tasks.settings import PROJECT
from tasks.workspace import Workspace

RELEASES = "releases"
MANIFEST = "manifest.json"
BLINDED = "blinded"
CONTENT_HASH = "sha256_of_content"
_WRITERS = (
    *("pandas", "pyarrow", "numpy", "matplotlib", "pyreadstat", "xlsxwriter"),
    *("scipy", "statsmodels", "reportlab"),
)

pc: Any = pyarrow.compute  # its stubs know no plain values as scalars

_LOG_KINDS = (ParticipantScreened, ConsentRecorded, ParticipantAllocated, DispositionRecorded)
_HASHES = ("source_sha256", "responses_sha256")
_OF_RETURNS = (*RECORD_KEY, "site_id", "occurred_on", "return_id", "n_items", "n_answered", *_HASHES)


@dataclass(frozen=True)
class Release:
    """A frozen dataset. `answer`: "added", or "same" where this very dataset had been frozen before."""

    release: str
    answer: str
    manifest: Mapping[str, Any]
    location: str


@dataclass(frozen=True)
class WrittenRelease:
    """The files of a release by their names, all but its manifest, and what the manifest says of each."""

    files: Mapping[str, bytes | Path]
    entries: Mapping[str, FileEntry]
    manifest: bytes


@dataclass(frozen=True)
class Assembled:
    """Everything that goes into a release, before it is written.

    `head`: the last row of the ledger at `known_at`. `files`: every file from which anything here came, and every
    other one processed by `as_of`. `quarantined`: what `count_quarantined` says is left out. `erased`: what was
    erased of it until now, whatever `known_at`. `slice_name`: that of a replay's slice, "" for the whole study.
    `attrition_rows`: from `derive_attrition_rows`. `left_out`: what `count_left_out` says of answers without consent.
    `letters`: of a blinded edition, by arm; all frames and `study` have them in the place of the arms. `waived`: what
    stood in the way and was let pass.
    """

    study: Study
    instruments: Mapping[str, Instrument]
    slice_name: str
    as_of: date
    known_at: datetime
    head: Head
    tables: Mapping[str, pd.DataFrame]
    answers: Answers
    attrition_rows: pd.DataFrame
    dispositions: pd.DataFrame
    files: pd.DataFrame
    queries: pd.DataFrame
    quarantined: Mapping[str, Any]
    sending: Sending
    erased: Mapping[str, Any]
    configuration: pd.DataFrame
    left_out: Mapping[str, Any]
    letters: Mapping[str, str]
    waived: tuple[Mapping[str, Any], ...] = ()

    @cached_property
    def rows(self) -> Mapping[str, TableRows]:
        """Every table of the release by its name; `tables` are those that are held whole."""
        return list_table_rows(self.tables, self.answers, self.study, self.instruments)

    @property
    def edition(self) -> str:
        return BLINDED if self.letters else ""


def assemble_release(
    workspace: Workspace,
    as_of: date,
    known_at: datetime | None = None,
    *,
    is_blinded: bool = False,
    up_to: int | None = None,
) -> Assembled:
    """The tables of the study as of a date, as known at a moment, by the configuration of that date.

    Without `known_at`: as known when the ledger last learned something. So everything that is written here follows
    from the ledger, and what one run froze another can rebuild. Raises ReleaseFault with every reason why the tables
    are not sound; what else forbids to release them, `find_release_hindrances` tells. `is_blinded`: with letters for
    the arms. `up_to`: the last row of the ledger that counts, where several were recorded at `known_at` itself.
    """
    today = london_day(workspace.clock())
    if as_of > today:
        raise ReleaseFault([f"{as_of} is still to come (today is {today}). Freeze as of a day that is over, or today."])
    everything = workspace.read_events()
    known_at = known_at or _find_head(everything)[1] or workspace.clock()
    known = (everything if up_to is None else cut_events(everything, up_to)).select(known_at=known_at)
    happened = known.select(as_of=as_of)
    configuration = find_in_force(happened.frame(ConfigurationAdopted), as_of)
    if configuration.empty:
        raise ReleaseFault(
            [
                f"{workspace.name} had adopted no protocol by {as_of}, as known on {format_moment(known_at)}. "
                f"Its first round adopts it: `summative round {workspace.name} --by NAME`."
            ]
        )
    parts = zip(*(configuration[name] for name in ("part", "name", "sha256")), strict=True)
    study, instruments = parse_configuration({(part, name): workspace.content.get(sha) for part, name, sha in parts})
    # A correction may have moved a questionnaire to a date after `as_of`: what it replaced is no answer of any day.
    returns = derive_current_returns(known, _OF_RETURNS).astype(dict.fromkeys(_HASHES, "category"))
    returns = returns[returns["occurred_on"] <= pd.Timestamp(as_of)]
    files = _find_source_files(known, happened, returns)
    erased = summarise_erasures(everything, returns, files)
    # What was erased since can't be read as it was known then: that decision holds for every view.
    returns = returns[~is_erased(returns, derive_erased(everything))]
    reasons = judge_consent(study, happened, returns, as_of)
    left_out, returns = count_left_out(returns, reasons), returns[reasons == ""]
    asked, lost = derive_asked_returns(study, happened, as_of), derive_attrition_rows(study, happened, as_of)
    participants = derive_participants_table(derive_participants(happened))
    people = derive_disposition_rows(study, happened, as_of)
    of_ledger: dict[str, Any] = {
        "head": _find_head(known)[0],
        "dispositions": derive_dispositions(happened),
        "queries": derive_queries(happened),
        "quarantined": count_quarantined(known, as_of),
        "sending": summarise_sending(study, known, as_of),
    }
    del everything, known, happened
    workspace.ledger.forget_events()  # answers, and what is derived from them, take the room of what tells of them
    letters: Mapping[str, str] = {}
    if is_blinded:
        letters = draw_letters(workspace, study)
        study = mask_study(study, letters)
        participants, asked, lost, people = (mask_arms(frame, letters) for frame in (participants, asked, lost, people))
    answers, strange = collect_answers(
        returns,
        partial(read_answer_parts, workspace),
        participants,
        study,
        instruments,
        as_of,
        HeldAnswers() if returns["n_items"].sum() <= ANSWERS_AT_ONCE else SpooledAnswers(),
        list_told_items(study, instruments),
    )
    faults = [*find_participant_faults(participants, study), *strange]
    if not faults:
        scores = derive_scores_table(answers)
        faults = find_score_faults(scores, participants)
        faults += find_flow_faults(people, derive_flow_boxes(people, study), study)
        faults += find_release_faults(people, participants, answers.records, study)
    if faults:
        raise ReleaseFault(faults)
    return Assembled(
        study=study,
        instruments=instruments,
        slice_name=workspace.slice_name,
        as_of=as_of,
        known_at=known_at,
        tables=derive_further_tables(
            {"participants": participants, "scores": scores, DISPOSITIONS: people},
            answers,
            asked,
            lost,
            study,
            instruments,
        ),
        answers=answers,
        attrition_rows=lost,
        files=files,
        erased=erased,
        configuration=configuration,
        left_out=left_out,
        letters=letters,
        **of_ledger,
    )


def find_release_hindrances(workspace: Workspace, assembled: Assembled) -> tuple[list[Hindrance], Assembled]:
    """What stands in the way of releasing this, as far as nobody waived it, and the same with what was waived."""
    events = workspace.read_events()
    known = cut_events(events, assembled.head.seq).select(known_at=assembled.known_at)
    scanner = make_scanner(assembled.study, assembled.as_of)
    hindrances = find_hindrances(assembled.study, known, assembled.as_of, assembled.rows, scanner)
    left, waived = apply_waivers(hindrances, events, assembled.as_of)
    return left, replace(assembled, waived=tuple(waived))


def cut_events(events: Events, seq: int) -> Events:
    """The ledger up to a row, that row included."""
    tables = {
        kind: table.slice(0, pc.sum(pc.less_equal(table["seq"], seq)).as_py()) for kind, table in events.tables.items()
    }
    return Events({kind: table for kind, table in tables.items() if len(table)})


def _find_head(events: Events) -> tuple[Head, datetime | None]:
    """The last row in this view, and the moment at which it was recorded; None of an empty ledger."""
    head, moment = Head(), None
    for table in events.tables.values():
        if events.known_at is not None:
            table = table.filter(
                pc.less_equal(table["recorded_at"], pa.scalar(events.known_at, pa.timestamp("us", "UTC")))
            )
        if len(table):
            last = table.slice(pc.index(table["seq"], pc.max(table["seq"])).as_py(), 1).to_pylist()[0]
            if last["seq"] > head.seq:
                head, moment = Head(last["seq"], last["hash"]), last["recorded_at"]
    return head, moment


def _find_source_files(known: Events, happened: Events, returns: pd.DataFrame) -> pd.DataFrame:
    """Files processed by the release's date, and later ones that told of something that had happened by then."""
    files = derive_files(known)
    told = {sha256 for kind in _LOG_KINDS for sha256 in happened.frame(kind)["source_sha256"]}
    told |= set(returns["source_sha256"])
    is_source = files["sha256"].isin(told) | (files["occurred_on"] <= pd.Timestamp(str(happened.as_of)))
    return files[is_source].sort_values(["site_id", "sha256"], ignore_index=True)


def freeze_release(
    workspace: Workspace,
    as_of: date,
    requested_by: str,
    known_at: datetime | None = None,
    *,
    is_blinded: bool = False,
) -> Release:
    """Freeze the study as of a date. The same tables by the same configuration are the same release, whatever came
    between; other ones get the next number: 2014-06-30, 2014-06-30.2 ... (of a blinded edition 2014-06-30-blinded ...).

    A release appears whole or not at all. A crash before the publishing step leaves nothing that counts; one after it
    is mended by the next freeze, which finds the release and records it. Raises ReleaseFault.
    """
    assembled = assemble_release(workspace, as_of, known_at, is_blinded=is_blinded)
    hindrances, assembled = find_release_hindrances(workspace, assembled)
    if hindrances:
        raise ReleaseFault(describe_hindrances(hindrances, workspace.name, as_of))
    recorded = workspace.read_events().frame(ReleaseFrozen)
    workspace.ledger.forget_events()  # writing needs room of its own
    manifests = dict(zip(recorded["release"], recorded["manifest_sha256"], strict=True))
    with workspace.area.hold_scratch() as scratch:
        data = write_data_files(assembled.rows, scratch)
        pa.default_memory_pool().release_unused()  # pages need room of their own
        wanted = derive_manifest(assembled, "", data, data.entries)
        number, name = 1, f"{as_of.isoformat()}-{BLINDED}" if is_blinded else as_of.isoformat()
        while True:
            release = name if number == 1 else f"{name}.{number}"
            standing, answer = read_manifest(workspace, release), "same"
            if standing is None:
                with other_processes(1) if assembled.answers.n_answers > ANSWERS_AT_ONCE else nullcontext():
                    written = write_release_files(assembled, release, data, scratch)
                # A release that is recorded and gone from the store comes back under its name only as it was.
                if manifests.get(release) in (None, compute_sha256(written.manifest)):
                    try:
                        files = {**written.files, MANIFEST: written.manifest}
                        answer = publish_folder(workspace.area, files, f"{RELEASES}/{release}", last=MANIFEST)
                    except ReleaseDiffers:  # another run was first: with the same dataset, or with another?
                        if read_manifest(workspace, release) is None:
                            raise
                    standing = read_manifest(workspace, release)
            if standing is not None and is_same_dataset(standing, wanted):
                break
            number += 1
    _record_release(workspace, assembled, release, manifests.get(release), requested_by)
    others = recorded[(recorded["release"] != release) & ~recorded["release"].str.contains(f"-{BLINDED}", regex=False)]
    if not is_blinded and _is_newest(assembled, others):
        point_latest(workspace.area, RELEASES, release, MANIFEST)
    return Release(release, answer, standing, f"{workspace.area.place}/{RELEASES}/{release}")


def is_same_dataset(manifest: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two manifests tell of the same content of the same tables, by the same definitions."""

    def collect(told: Mapping[str, Any], hash_name: str) -> dict[str, Any]:
        return {name: (table["columns"], table[hash_name]) for name, table in told["tables"].items()}

    definitions, others = (
        [(part["part"], part["name"], part["sha256"]) for part in told["configuration"]] for told in (manifest, other)
    )
    # Manifests from before there were hashes of the content have those of the CSV files alone.
    tables = (*manifest["tables"].values(), *other["tables"].values())
    hash_name = CONTENT_HASH if all(CONTENT_HASH in table for table in tables) else "sha256_of_csv"
    return definitions == others and collect(manifest, hash_name) == collect(other, hash_name)


def _is_newest(assembled: Assembled, others: pd.DataFrame) -> bool:
    """Whether no other release is as of a later day, or of the same day and as known later."""
    as_of, known_at = pd.Timestamp(assembled.as_of), format_moment(assembled.known_at)
    later = (others["as_of"] > as_of) | ((others["as_of"] == as_of) & (others["known_at"] > known_at))
    return not later.any()


def _record_release(
    workspace: Workspace, assembled: Assembled, release: str, recorded_sha256: str | None, requested_by: str
) -> None:
    encoded = workspace.area.get(f"{RELEASES}/{release}/{MANIFEST}")
    sha256 = compute_sha256(encoded)
    if recorded_sha256 not in (None, sha256):
        raise ReleaseFault(
            [
                f"{workspace.area.place}/{RELEASES}/{release}/{MANIFEST} is not the one that was recorded when the "
                "release was frozen: it has been changed since. Restore it from a backup."
            ]
        )
    event = ReleaseFrozen(
        occurred_on=assembled.as_of,
        requested_by=requested_by,
        release=release,
        as_of=assembled.as_of,
        known_at=json.loads(encoded)["known_at"],
        manifest_sha256=sha256,
    )
    workspace.ledger.append([event])


def read_manifest(workspace: Workspace, release: str) -> dict[str, Any] | None:
    """The manifest of a release, or None where there is no such release (a folder without a manifest is none)."""
    key = f"{RELEASES}/{release}/{MANIFEST}"
    if not workspace.area.has(key):
        return None
    manifest: dict[str, Any] = json.loads(workspace.area.get(key))
    return manifest


def read_latest_tables(workspace: Workspace) -> dict[str, pd.DataFrame]:
    """The tables of the newest release, by name. Raises FileMissing where nothing was frozen yet."""
    return {
        name: pd.read_parquet(io.BytesIO(workspace.area.get(f"{RELEASES}/latest/data/{name}.parquet")))
        for name in TABLES
    }


# Files --------------------------------------------------------------------------------------------------------------


def write_release_files(assembled: Assembled, release: str, data: DataFiles, folder: Path) -> WrittenRelease:
    """Every file of a release: the data, the same for other programs, the codebook, the report, who was
    lost, how the instruments behaved, and the manifest that names them. The large ones are written below `folder`."""
    labelled = label_tables(assembled.study, assembled.rows)
    find_labelled = begin_labelled_files(labelled, assembled.known_at, data.paths, folder)
    people = assembled.tables[DISPOSITIONS]
    boxes = derive_flow_boxes(people, assembled.study)
    flow = describe_for_page(people, boxes, assembled.study)
    instruments = _write_instruments(assembled, release)
    pa.default_memory_pool().release_unused()
    attrition = _write_attrition(assembled, flow, release)
    pa.default_memory_pool().release_unused()
    exported: dict[str, bytes | Path] = {
        **find_labelled(),
        DESCRIPTOR: encode_descriptor(assembled.study.study_id, labelled, data.entries),
        "names.csv": encode_names(labelled),
        **write_examples(assembled.study, assembled.instruments),
    }
    entries = {**data.entries, **{name: describe_file(content) for name, content in exported.items()}}
    summaries = {name: table.summary for name, table in data.tables.items()}
    pages: dict[str, bytes] = {
        "flow.csv": encode_flow_table(boxes),
        "flow.html": write_flow_page(flow, assembled.study, release, assembled.slice_name, assembled.as_of),
        **({"flow.svg": flow["figure"].encode()} if flow["figure"] else {}),
        **write_codebook_files(
            derive_study_codebook(assembled.study, assembled.instruments, labelled.codes, summaries)
        ),
        "report.html": write_release_report(
            release=release,
            slice_name=assembled.slice_name,
            study=assembled.study,
            instruments=assembled.instruments,
            as_of=assembled.as_of,
            known_at=assembled.known_at,
            head=assembled.head,
            tables=assembled.tables,
            records=assembled.answers.records,
            dispositions=assembled.dispositions,
            files=assembled.files,
            queries=assembled.queries,
            kept_apart=assembled.quarantined,
            erased=assembled.erased,
            left_out=assembled.left_out,
            waived=assembled.waived,
            is_blinded=bool(assembled.letters),
            sending=assembled.sending,
            flow=flow,
            data_files=entries,
        ),
        "attrition.html": attrition.page,
        "attrition.pdf": attrition.paper,
        "attrition.csv": attrition.figures,
        "instruments.html": instruments.page,
        "instruments.csv": instruments.figures,
    }
    entries |= {name: describe_file(content) for name, content in pages.items()}
    manifest = _encode_json(derive_manifest(assembled, release, data, entries))
    return WrittenRelease({**data.paths, **exported, **pages}, entries, manifest)


def _write_instruments(assembled: Assembled, release: str = "", banner: str = "") -> InstrumentsReport:
    return write_instruments_report(
        study=assembled.study,
        instruments=assembled.instruments,
        answers=assembled.answers,
        scores=assembled.tables["scores"],
        participants=assembled.tables["participants"],
        as_of=assembled.as_of,
        known_at=assembled.known_at,
        head=assembled.head,
        release=release,
        slice_name=assembled.slice_name,
        banner=banner,
    )


def write_current_instruments(workspace: Workspace) -> list[str]:
    """How the instruments behaved until today, among the study's pages, without freezing anything. Gives the keys of
    the page and its figures; raises ReleaseFault where the tables may not be released."""
    assembled = assemble_release(workspace, london_day(workspace.clock()))
    written = _write_instruments(assembled, banner=workspace.banner)
    keys = [f"pages/{INSTRUMENTS_PAGE}", f"pages/{INSTRUMENTS_FIGURES}"]
    for key, content in zip(keys, written, strict=True):
        workspace.area.put(key, content)
    link_pages(workspace.area)
    return keys


def _write_attrition(
    assembled: Assembled, flow: Mapping[str, Any], release: str = "", banner: str = ""
) -> AttritionReport:
    tables, study, rows = assembled.tables, assembled.study, assembled.attrition_rows
    return write_attrition_report(
        study=study,
        instruments=assembled.instruments,
        rows=rows,
        characteristics=derive_baseline_characteristics(
            tables, assembled.answers.told, rows, study, assembled.instruments
        ),
        people=tables[DISPOSITIONS],
        flow=flow,
        as_of=assembled.as_of,
        known_at=assembled.known_at,
        head=assembled.head,
        release=release,
        slice_name=assembled.slice_name,
        banner=banner,
        is_blinded=bool(assembled.letters),
    )


def write_current_attrition(workspace: Workspace) -> list[str]:
    """Who was lost until today, among the study's pages, without freezing anything. Gives the keys of the page, the
    same on paper, and the figures; raises ReleaseFault where the tables may not be released."""
    assembled = assemble_release(workspace, london_day(workspace.clock()))
    people, study = assembled.tables[DISPOSITIONS], assembled.study
    flow = describe_for_page(people, derive_flow_boxes(people, study), study)
    written = _write_attrition(assembled, flow, banner=workspace.banner)
    keys = [f"pages/{name}" for name in (ATTRITION_PAGE, ATTRITION_PAPER, ATTRITION_FIGURES)]
    for key, content in zip(keys, written, strict=True):
        workspace.area.put(key, content)
    link_pages(workspace.area)
    return keys


def derive_manifest(
    assembled: Assembled, release: str, data: DataFiles, entries: Mapping[str, FileEntry]
) -> dict[str, Any]:
    """Everything that went in and came out, by SHA-256, so that the release can be verified and rebuilt."""
    return {
        "release": release,
        "study": assembled.study.study_id,
        "slice": assembled.slice_name,
        "title": assembled.study.title,
        "as_of": assembled.as_of.isoformat(),
        "known_at": format_moment(assembled.known_at),
        "ledger": {"seq": assembled.head.seq, "hash": assembled.head.hash},
        "configuration": [
            {"part": row.part, "name": row.name, "sha256": row.sha256, "adopted_on": f"{row.occurred_on:%Y-%m-%d}"}
            for row in assembled.configuration.itertuples(index=False)
        ],
        "assumptions": [{"id": entry.id, "text": entry.text} for entry in assembled.study.assumptions],
        "tables": {
            name: {
                "n_rows": table.summary.n_rows,
                "columns": table.summary.table.column_names,
                "sha256_of_csv": data.entries[f"data/{name}.csv"].sha256,
                CONTENT_HASH: table.content_hash,
            }
            for name, table in data.tables.items()
        },
        "files": {name: {"sha256": entry.sha256, "bytes": entry.n_bytes} for name, entry in sorted(entries.items())},
        "returns": [
            {
                "site": row.site_id,
                "return_id": row.return_id,
                "outcome": row.outcome,
                "sha256": row.sha256,
                "answers_sha256": row.responses_sha256,
            }
            for row in assembled.files.itertuples()
        ],
        "collected_while_not_allowed": dict(assembled.quarantined),
        "without_consent": dict(assembled.left_out),
        "waived": [dict(waiver) for waiver in assembled.waived],
        "masked_arms": sorted(assembled.letters.values()),
        "erased": dict(assembled.erased),
        "code": derive_code_version(),
    }


def derive_code_version() -> dict[str, str]:
    """The version of Summative and of what shapes a release's bytes. `commit`: "unknown" outside a git checkout."""
    try:
        described = subprocess.run(  # noqa: S603 - fixed words, no input
            ["git", "-C", str(PROJECT), "describe", "--always", "--dirty"],  # noqa: S607 - git is found on the PATH
            capture_output=True, text=True, check=False,
        ).stdout.strip()  # fmt: skip
    except OSError:
        described = ""
    return {
        "summative": version("summative"),
        "commit": described or "unknown",
        "python": platform.python_version(),
        **{name: version(name) for name in _WRITERS},
    }


def compute_sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _encode_json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
