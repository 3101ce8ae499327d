"""Take in a study that is over from flat files: read them, search them, decide on them as on returns, record them.

No workbook is made on the way. What `study.flat_files` makes of the files is handed to `study.returns.decide_return` as
the reading of one return of each site, so that the same rules decide; each event then names the file, by SHA-256, and
the row that it came from. Everything of all sites is one append: an import is in the ledger whole or not at all.

What was imported (the files, the map, the definitions, by SHA-256) is a document of its own, kept beside the files. The
same again changes nothing. Anything else is a correction of what each site had told before.

History is taken in, and nothing is sent: no receipt, no letter, no safeguarding alert.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from study.approval_entries import EntryFault
from study.events import Event, FileHeld, IncidentOpened, QueryRaised, ReturnFileProcessed, Source
from study.flat_exports import is_import_map
from study.flat_files import (
    NO_COLUMN,
    FileMap,
    FlatColumn,
    FlatSheets,
    FlatTable,
    ImportMap,
    derive_flat_sheets,
    encode_import_document,
    fold_name,
    list_names,
    parse_import_map,
    propose_map,
    tell_rows,
)
from study.held_files import derive_held_id
from study.identifier_scan import (
    KIND_WORDS,
    IdentifierKind,
    Place,
    Scanner,
    count_kinds,
    find_column_kind,
    find_kinds_in_name,
    holds_identifier,
)
from study.incidents import SiteGate
from study.instruments import find_suggestion
from study.pack_layout import SCREENING, Reading, ReadSheet, parse_text
from study.protocol import SOURCES_FOLDER
from study.queries import derive_seal
from study.returns import (
    MOST_TOLD,
    Decision,
    Fault,
    FileFacts,
    Standing,
    decide_return,
    derive_homes,
    derive_responses,
    derive_return_events,
    derive_standing,
    find_allowed_files,
    find_files_asked_about,
    find_named_again,
    number_incidents,
    number_queries,
    settle_queries,
)
from study.state import Events
from tasks.definitions import list_configuration
from tasks.files import FileMissing
from tasks.identifier_search import decode_text, make_scanner
from tasks.receipts import find_wording
from tasks.returns import encode_responses, read_standing_answers
from tasks.spss import SAV_MAGIC
from tasks.workbook_inspection import MEGABYTE, find_letters
from tasks.workspace import Workspace, adopt_configuration

MOST_BYTES = 2048 * MEGABYTE
_READER = Path(__file__).with_name("flat_reader.py")
_SECONDS = 600
_ENDINGS = (".csv", ".tsv", ".txt", ".sav", ".zsav", ".dta")
_DTA_MAGIC = re.compile(rb"<stata_dta>|[\x66-\x73][\x01\x02]\x01\x00", re.DOTALL)
_SEPARATOR = re.compile(r"sep=([,;\t|])(?:\r\n|\r|\n)", re.IGNORECASE)
_POINT_ZERO = re.compile(r"^([+-]?\d{1,15})\.0+$", re.ASCII)
_BINARY = "this is no CSV, SPSS or Stata file. Save the table as one of these"


@dataclass(frozen=True)
class HeldTable:
    """A file that is not taken: places in it may tell who a person is. `told`: where, for people."""

    name: str
    sha256: str
    size_bytes: int
    site_id: str
    places: tuple[Place, ...]
    told: tuple[str, ...]


@dataclass(frozen=True)
class _OfSite:
    """What was decided of one site's part."""

    site_id: str
    decision: Decision
    standing: Standing
    places: Mapping[str, pd.DataFrame]


@dataclass
class StudyImport:
    """What an import would take, or took. `sheets`: rows by sheet, and by wave where it has any: (sheet, wave) to n.
    `is_known`: this very import stands already."""

    map_name: str
    names: list[str] = field(default_factory=list)
    held: list[HeldTable] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sheets: dict[tuple[str, str], int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    is_known: bool = False
    files: dict[str, bytes] = field(default_factory=dict, repr=False)
    parts: list[_OfSite] = field(default_factory=list, repr=False)
    tables: list[FlatTable] = field(default_factory=list, repr=False)
    head_seq: int = 0


def load_import_map(workspace: Workspace, name: str = "") -> tuple[str, ImportMap]:
    """The map of a study's files, by its name, or the one that it has. Raises EntryFault, DefinitionFaults."""
    folder = workspace.settings.sites_config / workspace.study.study_id / SOURCES_FOLDER
    place = f"sites_config/{workspace.study.study_id}/{SOURCES_FOLDER}"
    known = sorted(path.stem for path in folder.glob("*.toml") if is_import_map(path.read_bytes()))
    if not known:
        raise EntryFault(
            f"There is no map of files in {place}. Begin one with: summative import-study {workspace.name} --propose"
        )
    if name and name not in known:
        raise EntryFault(f'There is no map of files "{name}" in {place}. Known: {", ".join(known)}.')
    if not name and len(known) > 1:
        raise EntryFault(f"{place} has several maps of files. Name one with --map: {', '.join(known)}.")
    chosen = name or known[0]
    data = (folder / f"{chosen}.toml").read_bytes()
    return chosen, parse_import_map(data, f"{place}/{chosen}.toml", workspace.study, workspace.layout)


def find_import_folder(workspace: Workspace) -> Path:
    """Where a study's files are looked for, where nobody says otherwise."""
    return workspace.folder / "import"


# --- Reading ----------------------------------------------------------------------------------------------------------


def read_flat_file(path: Path) -> tuple[FlatTable, bytes, list[str]]:
    """A CSV, SPSS or Stata file as a table of text, its bytes, and what a person should know. Raises EntryFault."""
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MOST_BYTES else b""
    except OSError as fault:
        raise EntryFault(f"{path}: cannot be read ({fault.strerror}).") from None
    if size > MOST_BYTES:
        raise EntryFault(
            f"{path.name}: larger than {MOST_BYTES // MEGABYTE:,} MB. Give it in parts, each its [[files]]."
        )
    if not data.strip():
        raise EntryFault(f"{path.name}: the file is empty.")
    sha256 = hashlib.sha256(data).hexdigest()
    if data.startswith(SAV_MAGIC) or _DTA_MAGIC.match(data):
        table, notes = _read_labelled(path.name, data, "sav" if data.startswith(SAV_MAGIC) else "dta")
        return FlatTable(path.name, sha256, np.arange(1, len(table[0]) + 1), table[1]), data, notes
    rows, columns, notes = _read_csv(path.name, data)
    return FlatTable(path.name, sha256, rows, columns), data, notes


def _read_labelled(name: str, data: bytes, kind: str) -> tuple[tuple[range, dict[str, FlatColumn]], list[str]]:
    try:
        done = subprocess.run(  # noqa: S603  # our own program
            [sys.executable, str(_READER), kind], input=data, capture_output=True, timeout=_SECONDS, check=True
        )
        with pa.ipc.open_stream(done.stdout) as stream:
            about = json.loads((stream.schema.metadata or {})[b"about"])
            table = stream.read_all()
    except (subprocess.SubprocessError, pa.ArrowInvalid, KeyError, ValueError):
        what = "SPSS" if kind == "sav" else "Stata"
        raise EntryFault(
            f"{name}: cannot be read as a file of {what}: damaged, or with fewer cases than it says. Save it again."
        ) from None
    if not len(table):
        raise EntryFault(f"{name}: the file has no case.")
    columns = {
        column: _make_column(
            table[column].combine_chunks(), frozenset(about["missing"].get(column, ())),
            about["labels"].get(column, {}), about["titles"].get(column, ""),
        )
        for column in table.column_names
    }  # fmt: skip
    return (range(len(table)), columns), []


def _read_csv(name: str, data: bytes) -> tuple[np.ndarray, dict[str, FlatColumn], list[str]]:
    text, notes = decode_text(data), []
    if text is None:
        raise EntryFault(f"{name}: {_BINARY}.")
    if not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            data.decode()
        except UnicodeDecodeError:
            notes.append(f"{name}: not UTF-8, so it was read as Windows-1252. Look at letters with accents.")
    text = text.removeprefix("\ufeff")
    declared = _SEPARATOR.match(text)
    body = text[declared.end() :] if declared else text
    header = re.split(r"[\r\n]", body.lstrip(), maxsplit=1)[0]
    delimiter = declared[1] if declared else max(",;\t|", key=header.count)
    first = _read_header(name, header, delimiter)
    doubles = [column for column, n in Counter(first).items() if n > 1]
    if doubles:
        raise EntryFault(f"{name}: two columns are called {', '.join(doubles)}. Give each its own name.")
    shorter: list[int] = []

    def note(row: pa.csv.InvalidRow) -> Literal["skip", "error"]:
        shorter.append(int(row.number or 0))
        return "skip"

    try:
        table = pa.csv.read_csv(
            io.BytesIO(body.encode("utf-8", "surrogatepass")),
            read_options=pa.csv.ReadOptions(use_threads=False, column_names=first, skip_rows=1, block_size=1 << 25),
            parse_options=pa.csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=note
            ),
            convert_options=pa.csv.ConvertOptions(
                column_types={column: pa.dictionary(pa.int32(), pa.string()) for column in first},
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        raise EntryFault(f"{name}: this is no CSV file that can be read. Mend its quotes, or save it anew.") from None
    if shorter:
        raise EntryFault(
            f"{name}, {tell_rows(shorter)}: more or fewer cells than the header has columns, so that answers may stand "
            "under the wrong names. Put quotes around cells that hold the delimiter."
        )
    columns = {column: _make_column(table[column].unify_dictionaries().combine_chunks()) for column in first}
    rows = np.arange(len(table)) + 2 + bool(declared)
    is_blank = np.ones(len(table), dtype=bool)
    for column in columns.values():
        is_blank &= np.array([not text for text in column.texts], dtype=bool)[column.codes]
    if is_blank.all():
        raise EntryFault(f"{name}: the file has a header and no row.")
    if is_blank.any():
        columns = {key: _keep(column, ~is_blank) for key, column in columns.items()}
    return rows[~is_blank], columns, notes


def _read_header(name: str, header: str, delimiter: str) -> list[str]:
    """The names of the columns; one without a name, as R leaves that of the rows, is called by its letters."""
    import csv

    try:
        cells = next(csv.reader([header], delimiter=delimiter, strict=True))
    except (csv.Error, StopIteration):
        raise EntryFault(f"{name}, row 1: this is no header of a CSV file. Mend the quotes.") from None
    return [cell.strip() or find_letters(n) for n, cell in enumerate(cells, start=1)]


def _make_column(
    array: Any,
    missing: frozenset[str] = frozenset(),
    labels: Mapping[str, str] | None = None,
    title: str = "",
) -> FlatColumn:
    """A column with each text once, blanks around it removed, and null as blank. 99.0 is 99: programs write whole
    numbers so where the column has a blank, and a code must be known all the same."""
    texts = [_POINT_ZERO.sub(r"\1", parse_text(text)) for text in array.dictionary.to_pylist()]
    distinct = list(dict.fromkeys([*texts, ""]))
    places = {text: n for n, text in enumerate(distinct)}
    own = np.array([places[text] for text in texts] + [places[""]], dtype=np.int64)
    codes = array.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)
    return FlatColumn(own[codes], distinct, missing, labels or {}, title)


def _keep(column: FlatColumn, rows: np.ndarray) -> FlatColumn:
    return FlatColumn(column.codes[rows], column.texts, column.missing, column.labels, column.title)


def _find_path(folder: Path, file: FileMap) -> Path:
    """The file of that name, or the one file with that name and an ending that can be read. Raises EntryFault."""
    there = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    if file.name in there:
        return folder / file.name
    found = [name for name in there if Path(name).stem == file.name and Path(name).suffix.lower() in _ENDINGS]
    if len(found) > 1:
        raise EntryFault(f"{folder} has {' and '.join(found)}. Leave one, or name it in full under [[files]].")
    if not found:
        hint = find_suggestion(file.name, there) or f" It has: {', '.join(there[:20]) or 'nothing'}."
        raise EntryFault(f'{folder} has no file "{file.name}" ({", ".join(_ENDINGS)}).{hint} Name another with --from.')
    return folder / found[0]


# --- Searching --------------------------------------------------------------------------------------------------------


def find_identifiers_in_table(
    table: FlatTable, scanner: Scanner, days: frozenset[str], people: frozenset[str]
) -> list[tuple[Place, str]]:
    """Every column of a table that holds what may tell who a person is, with the first place of each kind and the name
    of the column. `days`: columns that the map says hold days of the study; `people`: those of the identifiers; both
    as `fold_name` gives them.

    As files from sites are searched: all texts, what columns are called, what a file says of its variables.
    """
    found: list[tuple[Place, str]] = [
        (Place("", "", "file_name", kind), "") for kind in sorted(find_kinds_in_name(Path(table.name).stem, scanner))
    ]
    for number, (name, column) in enumerate(table.columns.items(), start=1):
        kinds: dict[IdentifierKind, int] = {}
        is_day, is_own = fold_name(name) in days, fold_name(name) in people
        texts = list(column.texts)
        for place, of_text in scanner.scan(texts).items() if texts else ():
            for kind in of_text:
                if not (kind == "birth_date" and is_day):
                    kinds.setdefault(kind, place)
        head = next(filter(None, map(find_column_kind, (name, column.title))), "")
        if head and not is_day and not is_own:
            for place, text in enumerate(texts):
                if (own := holds_identifier(head, text, scanner)) is not None:
                    kinds.setdefault(own, place)
        for kind, place in sorted(kinds.items()):
            rows = table.rows[column.codes == place]
            cell = f"{find_letters(number)}{rows[0]}" if len(rows) else ""
            found.append((Place("", cell, "cell", kind), name))
        words = [column.title, *column.labels.values()]
        for of_text in scanner.scan(words).values():
            found += [(Place("", f"{find_letters(number)}1", "other", kind), name) for kind in sorted(of_text)]
    return list(dict.fromkeys(found))


def _tell_place(place: Place, column: str) -> str:
    row = re.sub(r"\D", "", place.cell)
    where = f'column "{column}", row {row}' if place.spot == "cell" else f'what the file says of "{column}"'
    return f"{where if column else 'the name of the file'}: {KIND_WORDS[place.kind]}"


# --- Deciding ---------------------------------------------------------------------------------------------------------


def plan_import(workspace: Workspace, folder: Path, today: date, requested_by: str, map_name: str = "") -> StudyImport:
    """Read the files and decide on them; nothing is kept or recorded. Everything wrong is in `faults` and `held`.

    Raises EntryFault or DefinitionFaults where a file or the map cannot be read at all.
    """
    name, mapped = load_import_map(workspace, map_name)
    plan = StudyImport(name)
    faults: list[str] = []
    for file in mapped.files:
        try:
            path = _find_path(folder, file)
            table, data, notes = read_flat_file(path)
        except EntryFault as fault:
            faults += fault.faults
            continue
        plan.tables.append(table)
        plan.files[table.sha256] = data
        plan.names.append(table.name)
        plan.notes += notes
    if faults:
        raise EntryFault(*faults)
    events = workspace.read_events()
    plan.head_seq = events.head.seq
    _search(workspace, plan, mapped, events, today)
    found = derive_flat_sheets(mapped, plan.tables, workspace.study, workspace.layout, workspace.instruments)
    if plan.held:
        # A column that the map misnames is taken for one that it does not name, and its days for days of birth. Of what
        # is held nothing else is told.
        plan.faults = [text for text in found.faults if NO_COLUMN in text]
        return plan
    plan.notes += found.notes
    plan.faults += found.faults
    for code, frame in found.sheets.items():
        by_wave = frame.groupby("wave", sort=False).size() if "wave" in frame else {"": len(frame)}
        order = {wave.id: n for n, wave in enumerate(workspace.study.waves)}
        for wave, n in sorted(by_wave.items(), key=lambda entry: order.get(str(entry[0]), len(order))):
            plan.sheets[code, str(wave)] = int(n)
    if SCREENING not in found.sheets:
        return plan
    document = _describe_import(workspace, plan)
    homes = derive_homes(events)
    told = found.sheets[SCREENING]["site_id"].unique().tolist()
    answers = [_is_known(workspace, events, site, mapped, document) for site in told]
    plan.is_known = bool(told) and all(answers) and not plan.faults
    if plan.is_known:
        return plan
    for site_id in sorted(told):
        part = _decide_site(workspace, plan, found, mapped, site_id, events, homes, document, today, requested_by)
        plan.parts.append(part)
    _tell_faults(workspace, plan, mapped)
    return plan


def _search(workspace: Workspace, plan: StudyImport, mapped: ImportMap, events: Events, today: date) -> None:
    """Which of the files hold what may tell who a person is, and nobody has let through."""
    scanner = make_scanner(workspace.study, today)
    first = workspace.study.sites[0].site_id
    for file, table in zip(mapped.files, plan.tables, strict=True):
        site_id = file.site or first
        if table.sha256 in find_allowed_files(events, site_id):
            continue
        dated = {fold_name(name) for name in file.days} | {
            fold_name(name)
            for entry in mapped.sheets
            if mapped.find_file(entry) is file
            for code, name in (*entry.columns.items(), *_list_wide(mapped, entry.wide))
            if (sheet := workspace.layout.find_sheet(entry.sheet))
            and (column := sheet.column_by_code.get(code))
            and column.kind == "date"
        }
        people = frozenset(map(fold_name, list_names(file.participant_id)))
        found = find_identifiers_in_table(table, scanner, frozenset(dated), people)
        if found:
            places, told = tuple(place for place, _ in found), tuple(_tell_place(*entry) for entry in found)
            size = len(plan.files[table.sha256])
            plan.held.append(HeldTable(table.name, table.sha256, size, site_id, places, told))


def _list_wide(mapped: ImportMap, wide: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    yield from ((code, name.replace("{wave}", word)) for code, name in wide.items() for word in mapped.waves)


def _describe_import(workspace: Workspace, plan: StudyImport) -> dict[str, object]:
    """What decides what an import ends in: files, map and definitions."""
    settings, study = workspace.settings, workspace.study
    parts = list_configuration(study.study_id, settings.sites_config, settings.instruments, study)
    return {
        "study": study.study_id,
        "map": plan.map_name,
        "files": [{"name": table.name, "sha256": table.sha256} for table in plan.tables],
        "definitions": {f"{part.part}/{part.name}": part.sha256 for part in parts},
    }


def _find_return_id(mapped: ImportMap, site_id: str) -> str:
    return f"{site_id}-{mapped.posted_on.isoformat()}-{mapped.sending_number}"


def _find_newest(events: Events, return_id: str) -> tuple[int, set[str]]:
    """The highest correction of a sending, -1 where there was none, and the SHA-256 of the files that came with it."""
    files = events.frame(ReturnFileProcessed)
    own = files[files["return_id"] == return_id]
    newest = int(own["correction"].max()) if len(own) else -1
    return newest, set(own.loc[own["correction"] == newest, "sha256"])


def _is_known(
    workspace: Workspace, events: Events, site_id: str, mapped: ImportMap, document: Mapping[str, object]
) -> bool:
    newest, files = _find_newest(events, _find_return_id(mapped, site_id))
    return newest >= 0 and hashlib.sha256(encode_import_document(document, newest)).hexdigest() in files


def _decide_site(
    workspace: Workspace,
    plan: StudyImport,
    found: FlatSheets,
    mapped: ImportMap,
    site_id: str,
    events: Events,
    homes: Mapping[str, str],
    document: Mapping[str, object],
    today: date,
    requested_by: str,
) -> _OfSite:
    """What follows from one site's part, by the rules for returns."""
    study, instruments = workspace.study, workspace.instruments
    correction = _find_newest(events, _find_return_id(mapped, site_id))[0] + 1
    sheets, places = {}, {}
    for position, (code, frame) in enumerate(found.sheets.items(), start=1):
        own = frame[frame["site_id"] == site_id].reset_index(drop=True)
        if len(own):
            sheets[code], places[code] = _make_sheet(workspace, code, own, position), own[["file", "row"]]
    about = {
        "study": study.study_id, "site": site_id, "layout_version": workspace.layout.version, "pack_id": "",
        "posted_on": mapped.posted_on, "sending_number": mapped.sending_number, "correction": correction,
    }  # fmt: skip
    reading = Reading(about, sheets)
    data = encode_import_document(document, correction)
    plan.files[sha256 := hashlib.sha256(data).hexdigest()] = data
    standing = derive_standing(events, site_id, homes)
    named = find_named_again(reading, study, instruments, standing)
    decision = decide_return(
        reading, FileFacts(sha256, len(data), site_id), study, instruments, standing,
        read_standing_answers(workspace, standing, named), today, requested_by,
        SiteGate(study, events, site_id, today),
    )  # fmt: skip
    asked = find_files_asked_about(decision, standing)
    seals = {name: derive_seal(plan.files[name]) for name in asked & plan.files.keys() - {sha256}}
    # The document follows from what the ledger holds, and seals nothing: the file of the data does.
    seals[sha256] = derive_seal(plan.files[plan.tables[0].sha256])
    for name in asked - seals.keys():
        with suppress(FileMissing):
            seals[name] = derive_seal(workspace.content.get(name))
    return _OfSite(site_id, settle_queries(decision, standing, seals), standing, places)


def _make_sheet(workspace: Workspace, code: str, own: pd.DataFrame, position: int) -> ReadSheet:
    """One site's rows of a sheet as a reader of workbooks gives them. Rows have numbers of their own."""
    sheet = workspace.layout.sheet_by_code[code]
    columns: dict[str, object] = {"row": np.arange(1, len(own) + 1)}
    missing = []
    for column in sheet.columns:
        if column.code in own:
            columns[column.code] = own[column.code].to_numpy(dtype=object)
        elif column.kind == "item":
            missing.append(column.code)
        else:
            columns[column.code] = np.full(len(own), None if column.kind in ("date", "count") else "", dtype=object)
    frame = pd.DataFrame(columns)
    letters = {name: find_letters(n) for n, name in enumerate(frame.columns[1:], start=1)}
    return ReadSheet(code, sheet.title, position, frame, letters, tuple(missing))


def _tell_faults(workspace: Workspace, plan: StudyImport, mapped: ImportMap) -> None:
    """What stops a row, as faults of its file; what is only asked about, counted."""
    grouped: dict[tuple[str, str, str, str], list[tuple[int, int]]] = {}
    softly: Counter[str] = Counter()
    # Rows that are at fault already were left out: of the others, only what answers are can be told.
    is_in_part = bool(plan.faults)
    for part in plan.parts:
        if part.decision.quarantine_rule:
            wrong = find_wording(part.decision.quarantine_rule, "")[0]
            plan.faults.append(f"sources/{plan.map_name}.toml, posted_on {mapped.posted_on}: {wrong}")
            continue
        for fault in part.decision.faults:
            if fault.severity != "hard":
                softly[fault.rule] += 1
                continue
            if is_in_part and not fault.item:
                continue
            places = part.places.get(fault.sheet)
            file, row = (-1, 0) if places is None or not fault.row else places.iloc[fault.row - 1]
            name = _find_column(mapped, fault)
            grouped.setdefault((fault.rule, fault.sheet, name, fault.expected), []).append((int(file), int(row)))
        plan.counts["people"] += len(part.decision.new_participant_ids)
        plan.counts["records accepted"] += part.decision.count("accepted")
        plan.counts["records repeated"] += part.decision.count("repeated")
        plan.counts["records superseded"] += part.decision.count("superseding")
        plan.counts["records quarantined"] += part.decision.count("quarantined")
        plan.counts["log entries"] += part.decision.n_log_entries
    for (rule, sheet, name, expected), told in grouped.items():
        wrong = find_wording(rule, "")[0]
        allowed = f" Expected: {expected.rstrip('.')}." if expected else ""
        for file in sorted({file for file, _ in told}):
            rows = sorted({row for other, row in told if other == file})
            place = f"{plan.tables[file].name}, {tell_rows(rows)}" if file >= 0 else "The files"
            plan.faults.append(f'{place}, column "{name}" (sheet {sheet}): {wrong}{allowed}')
    if plan.faults:
        return
    plan.counts["queries"] = sum(softly.values())
    plan.notes += [f"{find_wording(rule, '')[0]} {n:,} times; recorded as queries." for rule, n in softly.items()]
    if plan.counts["records quarantined"]:
        plan.notes.append(
            f"{plan.counts['records quarantined']:,} records are of days on which the protocol's approvals allow none: "
            "they are kept apart as incidents until somebody decides."
        )


def _find_column(mapped: ImportMap, fault: Fault) -> str:
    """What the file calls the column of a fault."""
    code = fault.item or fault.column
    for entry in mapped.sheets:
        if entry.sheet == fault.sheet:
            if code in entry.wide:
                words = [word for word, wave in mapped.waves.items() if wave == fault.wave]
                return entry.wide[code].replace("{wave}", words[0]) if words else entry.wide[code]
            if entry.columns.get(code):
                return entry.columns[code]
            file = mapped.find_file(entry)
            if code == "participant_id" and file:
                return file.participant_id
    return code


# --- Recording --------------------------------------------------------------------------------------------------------


class ImportOvertaken(RuntimeError):
    """Something was recorded of the study since the import was planned."""


def record_import(workspace: Workspace, plan: StudyImport, today: date, requested_by: str) -> int:
    """Keep the files and record what was planned, in one append; how many rows were added.

    Files in which something was found are recorded as held and not kept, and nothing else is recorded. Raises
    EntryFault for a plan with faults, and ImportOvertaken where the ledger went on since: plan again.
    """
    if plan.held:
        return _record_held(workspace, plan, today, requested_by)
    if plan.faults:
        raise EntryFault(*plan.faults)
    if plan.is_known:
        return 0
    for data in plan.files.values():
        workspace.content.put(data)
    shas = [table.sha256 for table in plan.tables]
    told: list[tuple[_OfSite, str, str]] = []
    for part in plan.parts:
        parts = [derive_responses(part.decision, quarantined=quarantined) for quarantined in (False, True)]
        kept = [workspace.content.put(encode_responses(frame)) if len(frame) else "" for frame in parts]
        told.append((part, kept[0], kept[1]))
    files = workspace.read_events().frame(ReturnFileProcessed)
    known = set(zip(files["site_id"], files["sha256"], strict=True))
    with workspace.ledger.writing() as writing:
        if writing.head.seq != plan.head_seq:
            raise ImportOvertaken
        n_before = writing.head.seq
        events: list[Event] = []
        for part, accepted, quarantined in told:
            query_ids = number_queries(part.decision, part.standing, writing.count(QueryRaised.kind, part.site_id))
            incident_ids = number_incidents(part.decision, writing.count(IncidentOpened.kind, part.site_id))
            own = derive_return_events(
                part.decision, part.standing, query_ids, accepted, today, requested_by, incident_ids, quarantined
            )
            events += (_place_event(event, part, shas) for event in own)
            events += _derive_file_events(plan, part, today, requested_by, accepted)
        for appended in writing.append(event for event in events if not _is_of_known_file(event, known)):
            if appended.answer == "conflict":
                raise EntryFault(
                    f"The ledger holds {appended.key} otherwise (row {appended.seq}). Nothing of the files was "
                    "recorded. Report this fault."
                )
        return writing.head.seq - n_before


def _is_of_known_file(event: Event, known: Collection[tuple[str, str]]) -> bool:
    """Whether it is the row of a file that came before: a file has one row at each site."""
    return isinstance(event, ReturnFileProcessed) and (event.site_id, event.sha256) in known


def _place_event(event: Event, part: _OfSite, shas: Sequence[str]) -> Event:
    """The event with the file and the row that it came from."""
    source = event.source
    places = part.places.get(source.sheet) if source and source.row else None
    if source is None or places is None:
        return event
    file, row = places.to_numpy()[source.row - 1].tolist()
    changed: dict[str, object] = {"source": Source(sha256=shas[file], sheet=source.sheet, row=row)}
    if isinstance(event, QueryRaised):
        changed["row"] = row
    return event.model_copy(update=changed)


def _derive_file_events(
    plan: StudyImport, part: _OfSite, today: date, requested_by: str, responses_sha256: str
) -> Iterator[Event]:
    """A row for each file of which something is this site's."""
    sending = part.decision.sending
    used = set().union(*(set(places["file"]) for places in part.places.values()))
    for n, table in enumerate(plan.tables):
        if n in used and sending is not None:
            yield ReturnFileProcessed(
                occurred_on=today, requested_by=requested_by, site_id=part.site_id, sha256=table.sha256,
                source=Source(sha256=table.sha256), return_id=sending.return_id, posted_on=sending.posted_on,
                sending_number=sending.sending_number, correction=sending.correction,
                size_bytes=len(plan.files[table.sha256]), outcome="accepted", responses_sha256=responses_sha256,
            )  # fmt: skip


def _record_held(workspace: Workspace, plan: StudyImport, today: date, requested_by: str) -> int:
    """Rows that say which files are held, and where what was found stands. Nothing of them is kept: who imports them
    has them."""
    known = workspace.read_events().frame(FileHeld)
    with workspace.ledger.writing() as writing:
        events: list[Event] = []
        n_new: Counter[str] = Counter()
        for held in plan.held:
            if ((known["site_id"] == held.site_id) & (known["sha256"] == held.sha256)).any():
                continue
            n_already = writing.count(FileHeld.kind, held.site_id) + n_new[held.site_id]
            n_new[held.site_id] += 1
            events.append(
                FileHeld(
                    occurred_on=today, requested_by=requested_by, site_id=held.site_id, sha256=held.sha256,
                    held_id=derive_held_id(held.site_id, n_already), size_bytes=held.size_bytes, kept="nothing",
                    identifiers=tuple(count_kinds(held.places)),
                    places=tuple(place.code for place in held.places[:MOST_TOLD]), n_places=len(held.places),
                )
            )  # fmt: skip
        writing.append(events)
    return len(events)


def import_study(
    workspace: Workspace, folder: Path, today: date, requested_by: str, map_name: str = ""
) -> tuple[StudyImport, int]:
    """Plan and record; where somebody wrote meanwhile, again. What was taken, and how many rows were added.

    The definitions are adopted as of the study's first day: a release of any of its days is made by them.
    """
    plan = plan_import(workspace, folder, today, requested_by, map_name)
    while not plan.faults:
        if not plan.held and not plan.is_known:
            plan.head_seq += len(adopt_configuration(workspace, workspace.study.starts_on, requested_by))
        try:
            return plan, record_import(workspace, plan, today, requested_by)
        except ImportOvertaken:
            plan = plan_import(workspace, folder, today, requested_by, map_name)
    return plan, 0


def propose_import_map(workspace: Workspace, folder: Path) -> str:
    """A map to begin with, from the files of a folder. Raises EntryFault where it holds none that can be read."""
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in _ENDINGS) if folder.is_dir() else []
    if not paths:
        raise EntryFault(f"{folder} has no file that can be read ({', '.join(_ENDINGS)}).")
    return propose_map([read_flat_file(path)[0] for path in paths], workspace.study, workspace.layout)
