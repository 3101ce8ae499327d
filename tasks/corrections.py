"""Correct what was recorded and is wrong: one answer of an accepted record, or that somebody left.

An answer is corrected where a site says what it should be and sends no workbook. The record gets a next version, with
its answers in a file of their own; the ledger holds that it was corrected, by whom, why and on whose word, and the old
and the new value as fingerprints. Who corrects says what stands there now: if that is something else by then, nothing
is changed. What a site sends later with the old value contradicts the record, and is asked about; it undoes nothing
silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from study.calendar import london_day
from study.erasure import derive_erased
from study.events import (
    AnswerCorrected,
    CorrectionReason,
    Event,
    QueryClosed,
    ReturnAccepted,
    Source,
    Voided,
    VoidReason,
)
from study.incidents import RECORD_KEY
from study.instruments import Instrument
from study.pack_layout import parse_answer, parse_text
from study.queries import CLOSED, compute_fingerprint, derive_seal
from study.returns import RESPONSE_COLUMNS, RecordKey
from study.state import Events, derive_dispositions, derive_queries, derive_returns
from study.validation import REASON_NAMES, CheckedRecords, check_records
from tasks.pages import format_list
from tasks.receipts import find_wording
from tasks.returns import encode_responses, read_answers
from tasks.workspace import Workspace


class CorrectionRefused(ValueError):
    """Why something is not corrected. It never repeats an answer."""


@dataclass(frozen=True)
class Correction:
    """What somebody asks for: the item, what stands there (`was`) and what should, as a workbook would have it."""

    record: RecordKey
    item: str
    was: str
    now: str
    reason: CorrectionReason
    role: str = ""
    reference: str = ""


class Corrected(NamedTuple):
    """What came of it: the record's version, and the queries that it mended."""

    version: int
    mended: tuple[str, ...]


def correct_answer(workspace: Workspace, asked: Correction, requested_by: str) -> Corrected:
    """Record a correction, and close the queries about that record whose fault is gone with it.

    Raises CorrectionRefused where there is no such record or item, where `was` is not what stands there, where `now`
    is no answer that the instrument allows there, and where both are the same.
    """
    instrument = workspace.instruments.get(asked.record.instrument)
    if instrument is None or asked.item not in instrument.item_ids:
        raise CorrectionRefused(
            f"{asked.record.instrument}: there is no item {asked.item}. Look it up in the codebook."
        )
    while True:
        events = workspace.read_events()
        stands = _find_record(events, asked.record)
        site_id = str(stands["site_id"])
        answers = read_answers(workspace, stands.to_frame().T)
        cells = _lay_out(instrument, answers, str(stands["form"]), asked.record.respondent)
        old = check_records(instrument, cells)
        new = _check(instrument, cells, asked, old)
        responses = _derive_responses(asked.record, stands, new, f"{site_id}-corrected-{int(stands['version']) + 1}")
        data = encode_responses(responses)
        about: dict[str, Any] = {
            "occurred_on": london_day(workspace.clock()),
            "requested_by": requested_by,
            "site_id": site_id,
        }
        source = None
        if stands["source_sha256"]:
            place = {"sheet": stands["source_sheet"], "row": int(stands["source_row"])}
            source = Source(sha256=stands["source_sha256"], **place)
        version = int(stands["version"]) + 1
        seal = derive_seal(data)
        mended = _find_mended(events, asked, old, new)
        told: list[Event] = [
            AnswerCorrected(
                **about, **asked.record._asdict(), item=asked.item, version=version, reason=asked.reason,
                role=asked.role, reference=asked.reference,
                old_fingerprint=compute_fingerprint(seal, [parse_text(cells[asked.item].iloc[0])]),
                new_fingerprint=compute_fingerprint(seal, [parse_text(parse_answer(asked.now))]),
            ),
            ReturnAccepted(
                **about | {"occurred_on": stands["occurred_on"].date()}, **asked.record._asdict(), source=source,
                return_id=responses["return_id"].iloc[0], form=stands["form"], version=version,
                supersedes_return_id=stands["return_id"], n_items=len(responses),
                n_answered=int((new.reasons == 0).sum()), responses_sha256=workspace.content.put(data),
            ),
            *(QueryClosed(**about, query_id=query_id, reason="mended") for query_id in mended),
        ]  # fmt: skip
        with workspace.ledger.writing() as writing:
            if writing.newest_seq(site_ids=[site_id], participant_ids=[asked.record.participant_id]) <= events.head.seq:
                writing.append(told)
                return Corrected(version, mended)


def take_back_leaving(
    workspace: Workspace, participant_id: str, scope: str, reason: VoidReason, requested_by: str
) -> date:
    """Void what is on record of how somebody left the study, or the part of it that `scope` names; the day of it.

    What the leaving had stopped goes on with the next round, and a query that rested on it closes when the site sends
    the record again. A log that still tells of the leaving records it anew. Raises CorrectionRefused where nothing of
    the kind stands, and once erasing was decided: what is gone does not come back.
    """
    while True:
        events = workspace.read_events()
        leavings = derive_dispositions(events)
        own = leavings[leavings["participant_id"] == participant_id]
        found = own[own["scope"] == scope]
        if found.empty:
            known = format_list(sorted(own["scope"])) if len(own) else "nothing"
            raise CorrectionRefused(
                f"Nothing is on record of {participant_id} leaving {scope}. On record: {known}. Nothing was changed."
            )
        if (derive_erased(events)["participant_id"] == participant_id).any():
            raise CorrectionRefused(
                f"The data of {participant_id} are erased, or erasing them was decided. Nothing was changed."
            )
        row = found.iloc[-1]
        void = Voided(
            occurred_on=london_day(workspace.clock()), requested_by=requested_by, voids=row["hash"], reason=reason
        )
        with workspace.ledger.writing() as writing:
            if writing.newest_seq(participant_ids=[participant_id], after=events.head.seq) <= events.head.seq:
                writing.append([void])
                day: date = row["occurred_on"].date()
                return day


def _find_record(events: Events, record: RecordKey) -> pd.Series[Any]:
    returns = derive_returns(events)
    is_own = returns["is_current"] & (returns[RECORD_KEY] == list(record)).all(axis="columns")
    if not is_own.any():
        raise CorrectionRefused(
            f"No accepted record of {record.participant_id}, {record.respondent}, {record.wave}, {record.instrument} "
            "is on record. What was refused is mended by the site, in its workbook."
        )
    return returns[is_own].iloc[-1]


def _lay_out(instrument: Instrument, answers: pd.DataFrame, form: str, respondent: str) -> pd.DataFrame:
    """The record's answers as cells of one row of a workbook: numbers, and the codes of what is missing."""
    cells: dict[str, Any] = {"respondent": respondent, "form": form}
    for item, response, reason in answers[["item", "response", "missing_reason"]].itertuples(index=False):
        known = instrument.find_item(item)
        codes = {why: float(code) for code, why in known.missing_codes.items()} if known else {}
        cells[item] = response if pd.isna(reason) or not reason else codes.get(reason)
        if reason in ("not_asked", "not_answered"):
            cells[item] = None
    return pd.DataFrame([cells], dtype=object)


def _check(instrument: Instrument, cells: pd.DataFrame, asked: Correction, old: CheckedRecords) -> CheckedRecords:
    """The record as it will be. Raises CorrectionRefused."""

    def read(text: str) -> CheckedRecords:
        return check_records(instrument, cells.assign(**{asked.item: pd.Series([parse_answer(text)], dtype=object)}))

    told, new = read(asked.was), read(asked.now)
    if not _is_same(told, old, asked.item):
        raise CorrectionRefused(
            f"{asked.item} is not, or no longer, what you say it was. Nothing was changed; look at the record again."
        )
    if _is_same(new, old, asked.item):
        raise CorrectionRefused(f"{asked.item} is that already. Nothing was changed.")
    hard = new.faults[new.faults["severity"] == "hard"]
    if len(hard):
        fault = hard.iloc[0]
        raise CorrectionRefused(f"{fault['item']}: {' '.join(find_wording(fault['rule'], fault['expected']))}")
    return new


def _is_same(one: CheckedRecords, other: CheckedRecords, item: str) -> bool:
    place = one.items.index(item)
    return bool(
        one.reasons[0, place] == other.reasons[0, place]
        and np.array_equal(one.responses[item], other.responses[item], equal_nan=True)
    )


def _derive_responses(record: RecordKey, stands: pd.Series[Any], new: CheckedRecords, return_id: str) -> pd.DataFrame:
    """The answers as they are kept: RESPONSE_COLUMNS, ordered by item."""
    names = np.array(new.items, dtype=object)
    order = np.argsort(names)
    frame = pd.DataFrame(
        {
            **record._asdict(),
            "form": stands["form"],
            "item": names[order],
            "response": new.responses.to_numpy()[0, order],
            "missing_reason": REASON_NAMES[new.reasons[0, order]],
            "collected_on": stands["occurred_on"].date(),
            "return_id": return_id,
        }
    )
    return frame[RESPONSE_COLUMNS]


def _find_mended(events: Events, asked: Correction, old: CheckedRecords, new: CheckedRecords) -> tuple[str, ...]:
    """Open queries about the record whose rule found something before, and does not now."""
    queries = derive_queries(events)
    own = queries[(queries["subject"] == ":".join(asked.record)) & (queries["stage"] != CLOSED)]
    before, after = ({*zip(own_["rule"], own_["item"], strict=True)} for own_ in (old.faults, new.faults))
    gone = before - after
    rows = zip(own["query_id"], own["rule"], own["item"], strict=True)
    return tuple(query_id for query_id, rule, item in rows if (rule, item) in gone)
