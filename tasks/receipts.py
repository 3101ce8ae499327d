"""Receipts: what a site reads about the file it sent. Built anew each time; never the file that came."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import date
from functools import lru_cache

import pandas as pd

from study.returns import Decision, FileFacts
from tasks.settings import PROJECT
from tasks.workbooks import ReceiptRow, ReceiptSummary, write_receipt_workbook
from tasks.workspace import Workspace


@lru_cache(maxsize=1)
def read_wording() -> Mapping[str, Mapping[str, str]]:
    """The sentences of each rule, as people edit them in templates/queries.toml."""
    wording: Mapping[str, Mapping[str, str]] = tomllib.loads(
        (PROJECT / "templates" / "queries.toml").read_text(encoding="utf-8")
    )
    return wording


def find_wording(rule: str, expected: str) -> tuple[str, str]:
    """What is wrong and what to do. Where nothing is expected in particular, the sentence ends without it."""
    texts = read_wording()[rule]
    expected = expected.rstrip(".")
    what = texts["do"].format(expected=expected) if expected else _leave_out(texts["do"])
    what = what.strip()
    return texts["wrong"], what if what.endswith((".", "!", "?")) else f"{what}."


def _leave_out(text: str) -> str:
    before, marker, _ = text.partition("{expected}")
    if not marker:
        return text
    sentence = before.rpartition(". ")
    return f"{sentence[0]}." if sentence[0] else before.rstrip(" :;,").removesuffix("such as").rstrip(" ,;:")


def write_receipt(workspace: Workspace, decision: Decision, received_on: date) -> tuple[str, bytes]:
    """The receipt of one file: its name and its bytes. `decision.faults` carry their query ids by now."""
    sending, facts = decision.sending, decision.facts
    rows = [
        ReceiptRow(
            sheet=workspace.layout.find_title(fault.sheet) or fault.sheet,
            cell=fault.cell,
            participant_id=fault.participant_id,
            wave=fault.wave,
            instrument=fault.instrument,
            item=fault.item,
            what_is_wrong=find_wording(fault.rule, fault.expected)[0],
            what_to_do=find_wording(fault.rule, fault.expected)[1],
            query_id=fault.query_id,
            severity=fault.severity,
        )
        for fault in decision.faults.itertuples()
    ]
    reason, what_to_do = find_wording(decision.quarantine_rule, "") if decision.quarantine_rule else ("", "")
    summary = ReceiptSummary(
        study_title=workspace.study.title,
        site_id=facts.site_id,
        return_id=sending.return_id if sending else "",
        outcome=decision.outcome,
        received_on=received_on,
        posted_on=sending.posted_on if sending else None,
        sending_number=sending.sending_number if sending else None,
        correction=sending.correction if sending else 0,
        n_accepted=decision.n_accepted - decision.n_superseded,
        n_repeated=decision.n_repeated,
        n_superseded=decision.n_superseded,
        n_refused=decision.n_refused,
        n_log_entries=len(decision.log_events),
        reason=reason,
        what_to_do=what_to_do,
        notes=tuple(assumption.text for assumption in workspace.study.assumptions),
    )
    name = sending.return_id if sending else f"unidentified-{received_on}"
    return f"{name}-receipt-{facts.sha256[:8]}.xlsx", write_receipt_workbook(summary, rows)


def write_repeat_receipt(workspace: Workspace, facts: FileFacts, before: pd.Series) -> tuple[str, bytes]:
    """The receipt of a file that was received before, whatever its name was then."""
    summary = ReceiptSummary(
        study_title=workspace.study.title,
        site_id=facts.site_id,
        return_id=before["return_id"],
        outcome=before["outcome"],
        received_on=before["occurred_on"].date(),
        posted_on=before["posted_on"].date() if pd.notna(before["posted_on"]) else None,
        sending_number=int(before["sending_number"]) or None,
        correction=int(before["correction"]),
        n_repeated=int(before["n_accepted"] + before["n_repeated"]),
        n_refused=int(before["n_refused"]),
        reason=find_wording(before["reason"], "")[0] if before["reason"] else "",
        what_to_do=find_wording(before["reason"], "")[1] if before["reason"] else "",
        notes=("You had sent us this very file before. Nothing was counted twice; the first receipt stands.",),
    )
    name = before["return_id"] or "unidentified"
    return f"{name}-received-before-{facts.sha256[:8]}.xlsx", write_receipt_workbook(summary, [])
