"""Receipts: what a site reads about the file it sent. Built anew each time; never the file that came."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import lru_cache
from typing import Any

from study.identifiers import has_sound_check
from study.incidents import Breach
from study.marked_rows import MarkedSheet, derive_marked_sheets
from study.pack_layout import ABOUT, Layout, Reading
from study.queries import GATE_RULES, AskedQuery
from study.returns import MOST_TOLD, Decision, Fault, FileFacts, QueryKey
from tasks.settings import PROJECT
from tasks.workbooks import ReceiptRow, ReceiptSummary, write_receipt_workbook
from tasks.workspace import Workspace

ASSUMPTIONS = "This study takes some things as given. Its protocol, and the report of every release, list them."


@lru_cache(maxsize=1)
def read_wording() -> Mapping[str, Mapping[str, str]]:
    """The sentences of each rule, as people edit them in templates/queries.toml."""
    wording: Mapping[str, Mapping[str, str]] = tomllib.loads(
        (PROJECT / "templates" / "queries.toml").read_text(encoding="utf-8")
    )
    return wording


def find_wording(rule: str, expected: str) -> tuple[str, str]:
    """What is wrong, and what to do. What is expected there is said only where something is."""
    texts = read_wording()[rule]
    sentences = [texts["do"]]
    if expected and "expected" in texts:
        sentences.append(texts["expected"].format(expected=expected.rstrip(".")))
    return texts["wrong"], " ".join(sentences)


def write_receipt(
    workspace: Workspace,
    decision: Decision,
    query_ids: Sequence[str],
    received_on: date,
    incident_ids: Sequence[str] = (),
    reading: Reading | None = None,
    left_open: Sequence[tuple[QueryKey, AskedQuery]] = (),
) -> tuple[str, bytes]:
    """The receipt of one file: its name and its bytes. `query_ids`: the query of each fault; `incident_ids`: the
    incident of each breach; `reading`: the file as it was read, None where it was not; `left_open`: queries about rows
    that a correction leaves out. What a person has settled is not told again."""
    sending, facts = decision.sending, decision.facts
    told = sorted(
        (pair for pair in zip(decision.faults, query_ids, strict=True) if not decision.is_silent(pair[0])),
        key=lambda pair: _find_place(workspace.layout, pair[0]),
    )
    waves = {wave.id: wave.label for wave in workspace.study.waves}
    rows = [_derive_row(workspace.layout, waves, fault, query_id, decision.export_lines) for fault, query_id in told]
    expected = decision.faults[0].expected if decision.quarantine_rule and decision.faults else ""
    reason, what_to_do = find_wording(decision.quarantine_rule, expected) if decision.quarantine_rule else ("", "")
    summary = ReceiptSummary(
        study_title=workspace.study.title,
        site_id=facts.site_id,
        return_id=sending.return_id if sending else "",
        outcome=decision.outcome,
        received_on=received_on,
        posted_on=sending.posted_on if sending else None,
        sending_number=sending.sending_number if sending else None,
        correction=sending.correction if sending else 0,
        n_accepted=decision.count("accepted"),
        n_repeated=decision.count("repeated"),
        n_superseded=decision.count("superseding"),
        n_refused=decision.count("refused"),
        n_quarantined=decision.count("quarantined"),
        n_log_entries=decision.n_log_entries,
        reason=reason,
        what_to_do=what_to_do,
        not_allowed=tuple(
            _describe_breach(workspace.layout, breach, incident_id)
            for breach, incident_id in zip(decision.breaches, incident_ids, strict=True)
        ),
        still_open=tuple(_describe_left_open(workspace.layout, key, query) for key, query in left_open),
        notes=(*_find_notes(decision), *((ASSUMPTIONS,) if workspace.study.assumptions else ())),
    )
    if decision.places:
        summary = replace(summary, notes=tuple(_find_held_notes(workspace, decision)))
    name = sending.return_id if sending else f"unidentified-{received_on}"
    marked = _mark_rows(workspace, decision, [fault for fault, _ in told], reading)
    return f"{name}-receipt-{facts.sha256[:8]}.xlsx", write_receipt_workbook(summary, rows, marked)


def _mark_rows(
    workspace: Workspace, decision: Decision, faults: Sequence[Fault], reading: Reading | None
) -> tuple[MarkedSheet, ...]:
    """The site's rows with the faulty cells marked. Nothing is repeated of a file that was held or put aside."""
    if reading is None or decision.quarantine_rule or decision.places or decision.sending is None:
        return ()
    records = {record.key.participant_id for record in decision.records}
    known = {fault.participant_id for fault in decision.faults} | records | set(decision.new_participant_ids)
    study, site_id = workspace.study, decision.facts.site_id

    def is_own(text: str) -> bool:
        is_of_study = study.is_participant_id(text) and has_sound_check(study, text)
        return is_of_study and study.participant_site(text) == site_id

    scopes = {scope.id for scope in study.consent_scopes}
    return derive_marked_sheets(
        reading, workspace.layout, site_id, faults, known - {""}, decision.sending.posted_on, scopes, is_own
    )


def _find_held_notes(workspace: Workspace, decision: Decision) -> Iterator[str]:
    """What becomes of a file that must not be kept as it is."""
    n_places = len(decision.places)
    yield f"We found this at {n_places:,} place{'s' * (n_places != 1)}; the sheet To mend says where, and not what."
    if any(place.spot == "file_name" for place in decision.places):
        yield "The name of the file is one of them: give it another one, such as the code of your site and the day."
    if n_places > MOST_TOLD:
        yield f"Only the first {MOST_TOLD} are listed."
    if workspace.study.fieldwork.keeps_held_files:
        yield "We keep an encrypted copy that nobody reads, until a person looks at it and lets it in or erases it."
    else:
        yield "We have kept no copy of this file."


def _find_notes(decision: Decision) -> Iterator[str]:
    n_repeated = decision.n_log_repeated + decision.count("repeated")
    is_all_repeated = n_repeated and len(decision.records) == decision.count("repeated") and not decision.log_events
    if decision.export_lines and decision.faults:
        yield "These rows come from an export of another tool. Of an SPSS file, its line is the case."
    if is_all_repeated and not decision.faults:
        yield "There was nothing new in this workbook: we had all of it before."


def _describe_breach(layout: Layout, breach: Breach, incident_id: str) -> str:
    """What was not allowed, where it stands, why, and what follows."""
    missing = "; ".join(reason.rstrip(".") for reason in breach.reasons)
    wrong, what_to_do = find_wording(GATE_RULES[breach.question.activity], missing)
    rows = defaultdict(list)
    for sheet, row in breach.rows:
        rows[sheet].append(row)
    places = "; ".join(f"{layout.find_title(sheet)}, {_list_rows(numbers)}" for sheet, numbers in rows.items())
    return f"{places}: {wrong} {what_to_do} The first was on {breach.first_on:%d %b %Y}. Incident {incident_id}."


def _describe_left_open(layout: Layout, key: QueryKey, query: AskedQuery) -> str:
    """A query about a row that a correction leaves out: its number, where it was, what is wrong."""
    _, rule, item = key
    place = f"{layout.find_title(query.sheet)}, row {query.row} of what you sent first"
    named = layout.name_column(query.sheet, item or query.column)
    return f"{query.query_id}: {', '.join(filter(None, [place, named]))}. {find_wording(rule, '')[0]}"


def _list_rows(numbers: Iterable[int]) -> str:
    """ "row 3", "rows 3 to 5, 9"."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    told = ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
    return f"row{'s' * (len(runs) > 1 or len(runs[0]) > 1)} {told}"


def _find_place(layout: Layout, fault: Fault) -> tuple[int, int, int, str]:
    """In the order in which a person goes through the workbook; the file as a whole first, unknown sheets last."""
    codes = ["", ABOUT, *layout.sheet_by_code]
    sheet = codes.index(fault.sheet) if fault.sheet in codes else len(codes)
    letters = fault.cell.rstrip("0123456789")
    return sheet, fault.row, len(letters), letters


def _derive_row(
    layout: Layout,
    waves: Mapping[str, str],
    fault: Fault,
    query_id: str,
    export_lines: Mapping[str, Mapping[int, int]],
) -> ReceiptRow:
    wrong, what_to_do = find_wording(fault.rule, fault.expected)
    if line := export_lines.get(fault.sheet, {}).get(fault.row):
        what_to_do = f"{what_to_do} In the export it is line {line:,}."
    return ReceiptRow(
        sheet=layout.find_title(fault.sheet),
        cell=fault.cell,
        participant_id=fault.participant_id,
        wave=waves.get(fault.wave, fault.wave),
        instrument=layout.find_title(fault.instrument),
        item=layout.name_column(fault.sheet, fault.item or fault.column),
        what_is_wrong=wrong,
        what_to_do=what_to_do,
        query_id=query_id,
        severity=fault.severity,
        marked_at=(fault.sheet, fault.row, fault.column),
    )


def write_repeat_receipt(workspace: Workspace, facts: FileFacts, before: Mapping[str, Any]) -> tuple[str, bytes]:
    """The receipt of a file that was received before, whatever its name was then (`before`: what became of it)."""
    reason, what_to_do = find_wording(before["reason"], "") if before["reason"] else ("", "")
    notes = ["We had received this very file before. Nothing was counted twice; the first receipt stands."]
    if before["n_refused"]:
        notes.append(
            "If you have since put right elsewhere what kept rows of it from being accepted, put the next number under "
            "Correction on its sheet About and send it again."
        )
    if before["n_quarantined"]:
        notes.append("What is kept apart because the approvals did not allow it stays so until the sponsor decides.")
    summary = ReceiptSummary(
        study_title=workspace.study.title,
        site_id=facts.site_id,
        return_id=before["return_id"],
        outcome=before["outcome"],
        received_on=before["occurred_on"],
        posted_on=before["posted_on"],
        sending_number=before["sending_number"] or None,
        correction=before["correction"],
        n_repeated=before["n_accepted"] + before["n_repeated"],
        n_refused=before["n_refused"],
        n_quarantined=before["n_quarantined"],
        reason=reason,
        what_to_do=what_to_do,
        notes=tuple(notes),
    )
    name = before["return_id"] or "unidentified"
    return f"{name}-received-before-{facts.sha256[:8]}.xlsx", write_receipt_workbook(summary, [])
