"""Exports of other tools, put into the inboxes of their sites as the workbooks that a site would send."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from study.approval_entries import EntryFault
from study.exchange import find_identifier_words
from study.flat_exports import (
    Export,
    SiteSheets,
    SourceMap,
    compute_correction,
    derive_site_sheets,
    is_import_map,
    parse_source,
)
from study.identifier_scan import KIND_WORDS, find_column_kind
from study.instruments import DefinitionFaults, find_suggestion
from study.protocol import SOURCES_FOLDER
from tasks.exchange import read_csv_lines
from tasks.identifier_search import make_scanner
from tasks.spss import read_sav
from tasks.workbooks import write_return_workbook
from tasks.workspace import Workspace


@dataclass(frozen=True)
class SitePosting:
    """What of an export goes into one site's inbox. `n_rows`: by sheet."""

    site_id: str
    file_name: str
    workbook: bytes
    n_rows: Mapping[str, int]


def list_sources(workspace: Workspace) -> list[str]:
    """The names of a study's sources of exports, sorted."""
    folder = workspace.settings.sites_config / workspace.study.study_id / SOURCES_FOLDER
    return sorted(path.stem for path in folder.glob("*.toml") if not is_import_map(path.read_bytes()))


def load_source(workspace: Workspace, name: str) -> SourceMap:
    """The map of one source of a study. Raises EntryFault where there is none, DefinitionFaults where it is wrong."""
    known = list_sources(workspace)
    place = f"sites_config/{workspace.study.study_id}/{SOURCES_FOLDER}"
    if name not in known:
        hint = find_suggestion(name, known) or f" Known: {', '.join(known) or 'none'}."
        raise EntryFault(f'There is no map {place}/{name}.toml for the source "{name}". Write one.{hint}')
    path = workspace.settings.sites_config / workspace.study.study_id / SOURCES_FOLDER / f"{name}.toml"
    return parse_source(path.read_bytes(), f"{place}/{name}.toml", workspace.study, workspace.layout)


def read_export(
    workspace: Workspace, source: SourceMap, data: bytes, exported_on: date
) -> tuple[list[SitePosting], SiteSheets]:
    """An export as a workbook for each site, and what a person should know. Nothing of it is kept or posted.

    Raises EntryFault or DefinitionFaults where it cannot be taken as a whole.
    """
    correction = compute_correction(source, exported_on)
    export = read_sav(data) if source.format == "spss" else _read_table(data)
    _refuse_telling_words(workspace, source, export, exported_on)
    found = derive_site_sheets(source, export, workspace.study, workspace.layout, workspace.instruments)
    postings = []
    for site_id, sheets in sorted(found.sheets.items()):
        about = {
            "site": site_id,
            "posted_on": source.posted_on,
            "sending_number": source.sending_number,
            "correction": correction,
        }
        name = f"{workspace.study.study_id}_{site_id}_{source.sending_number}_{correction}.xlsx"
        n_rows = {code: len(frame) for code, frame in sheets.items()}
        workbook = write_return_workbook(workspace.layout, about, sheets, export_lines=found.lines[site_id])
        postings.append(SitePosting(site_id, name, workbook, n_rows))
    return postings, found


def _read_table(data: bytes) -> Export:
    rows = read_csv_lines(data)
    (_, header), lines = rows[0], rows[1:]
    return Export(header, [cells for _, cells in lines], [number for number, _ in lines])


def _refuse_telling_words(workspace: Workspace, source: SourceMap, export: Export, on: date) -> None:
    """Stop where a variable that is taken is labelled as one that tells who a person is, or where its label or those of
    its values do."""
    sheets = [(entry, workspace.layout.find_sheet(entry.sheet)) for entry in source.sheets]
    taken = {source.participant_id, *(name for entry, _ in sheets for name in entry.columns.values())}
    taken |= {code for _, sheet in sheets if sheet for code in sheet.codes}
    scanner = make_scanner(workspace.study, on)
    faults = []
    for name in export.header:
        if name not in taken:
            continue
        title = export.titles.get(name, "")
        if find_column_kind(title) not in ("", "perhaps_name"):
            faults.append(f'the variable "{name}" holds {find_identifier_words(title)} by its label. It is not taken.')
        kinds = set().union(*scanner.scan([title, *export.labels.get(name, {}).values()]).values())
        if kinds:
            words = " and ".join(KIND_WORDS[kind] for kind in sorted(kinds))
            faults.append(f'the variable "{name}" has {words} in its label or in the labels of its values. Remove it.')
    if faults:
        raise DefinitionFaults(faults)


def post_export(workspace: Workspace, postings: list[SitePosting]) -> None:
    """Put each workbook into its site's inbox, where the next round finds it. Twice is harmless."""
    for posting in postings:
        workspace.drop_box(posting.site_id).post(posting.file_name, posting.workbook)
