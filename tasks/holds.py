"""Lift a hold by the word of a named role, and write what is held as a workbook."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import date, datetime, time

import pandas as pd
from pydantic import ValidationError

from study.calendar import format_day, london_day
from study.events import HoldLifted
from study.holds import find_lift_faults
from study.protocol import Study
from study.waves import derive_expected_returns
from tasks.ledger import LedgerRefused
from tasks.workbooks import Book, find_row_height, set_up_print
from tasks.workspace import Workspace


class LiftRefused(LedgerRefused):
    """Why a hold is not lifted: every reason, one sentence each."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(self.faults))


def lift_hold(
    workspace: Workspace,
    participant_id: str,
    wave: str,
    hold: str,
    role: str,
    reason: str,
    reference: str,
    requested_by: str,
) -> HoldLifted:
    """Record that a role lifted one hold on one wave for one participant, today. Raises LiftRefused, also where the
    same was lifted before by another decision."""
    today = london_day(workspace.clock())
    while True:
        events = workspace.read_events()
        expected = derive_expected_returns(workspace.study, events, today)
        own = expected.loc[expected["participant_id"] == participant_id, "site_id"]
        if own.empty:
            raise LiftRefused([f"Nothing is expected of {participant_id}. Check the identifier."])
        try:
            event = HoldLifted(
                occurred_on=today,
                requested_by=requested_by,
                site_id=str(own.iloc[0]),
                participant_id=participant_id,
                wave=wave,
                hold=hold,
                role=role,
                reason=reason,
                reference=reference,
            )
        except ValidationError as fault:
            wrong = sorted({str(error["loc"][0]).replace("_", " ") for error in fault.errors()})
            raise LiftRefused(
                [f"{name}: give a code of letters, digits and spaces, without a colon." for name in wrong]
            ) from None
        if faults := find_lift_faults(workspace.study, events, event, today):
            raise LiftRefused([fault[0].upper() + fault[1:] for fault in faults])
        with workspace.ledger.writing() as writing:
            newest = writing.newest_seq([participant_id], [event.site_id, ""], after=events.head.seq)
            if newest > events.head.seq:
                continue
            if writing.append([event])[0].answer == "conflict":
                raise LiftRefused(
                    [f"{hold} was lifted for {participant_id} at {wave} before, by another decision. Void that first."]
                )
        return event


_COLUMNS = {
    "site_id": ("Site", 20.0), "participant_id": ("Participant", 14.0), "wave": ("Wave", 16.0),
    "respondent": ("Respondent", 12.0), "words": ("Why", 46.0), "to_do": ("What to do", 46.0),
    "by": ("By", 20.0), "since_on": ("Since", 12.0), "closes_on": ("Closes", 12.0), "hold": ("Hold", 22.0),
    "is_liftable": ("May be lifted", 10.0),
}  # fmt: skip


def write_held_workbook(study: Study, held: pd.DataFrame, as_of: date) -> bytes:
    """What is held, as from `study.holds.list_held`, as a workbook to filter and pass on."""
    buffer = io.BytesIO()
    with Book(buffer, f"{study.title}: what is held", as_of) as book:
        sheet = book.add_sheet("Held")
        for column, (label, width) in enumerate(_COLUMNS.values()):
            sheet.set_column(column, column, width)
            sheet.write_string(0, column, label, book.find_format("head"))
        for number, row in enumerate(held.to_dict("records"), start=1):
            for column, name in enumerate(_COLUMNS):
                value = row[name]
                if name.endswith("_on"):
                    if pd.isna(value):
                        sheet.write_blank(number, column, None, book.find_format("date"))
                    else:
                        day = datetime.combine(value.date(), time())
                        sheet.write_datetime(number, column, day, book.find_format("date"))
                else:
                    text = ("yes" if value else "no") if name == "is_liftable" else str(value)
                    text = text.replace("_", " ") if name == "by" else text
                    sheet.write_string(number, column, text, book.find_format("wrapped"))
            wrapped = ("words", "to_do")
            sheet.set_row(number, find_row_height([row[n] for n in wrapped], [_COLUMNS[n][1] for n in wrapped]))
        sheet.freeze_panes(1, 2)
        sheet.autofilter(0, 0, max(len(held), 1), len(_COLUMNS) - 1)
        sheet.repeat_rows(0)
        set_up_print(sheet, f"{study.study_id}  ·  held on {format_day(as_of)}", 1)
    return buffer.getvalue()
