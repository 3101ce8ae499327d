"""The sites of the pilot trial as they would have worked in this study: weekly postings of what happened there.

What a site fills in, it fills in the study's own terms: the study's waves, the instruments' codes for missing answers.
Everything supplied here and not held by the source comes from `rehearsal/assumptions.toml`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date

import numpy as np
import pandas as pd

from rehearsal.pilot_source import PilotSource, find_posting_days, load_assumed_values, select_source
from study.instruments import Instrument, Item
from study.pack_layout import ALLOCATION, DISPOSITION, RECORD_KEYS, SCREENING, Layout
from study.protocol import Study
from tasks.workbooks import write_return_workbook

_LOG_COLUMNS = {
    SCREENING: [
        "participant_id", "cohort", "screened_on", "consented_on", "consent_form_version", "consent_scopes",
    ],
    ALLOCATION: ["participant_id", "arm", "allocated_on"],
    DISPOSITION: ["participant_id", "scope", "reason", "left_on"],
}  # fmt: skip


@dataclass(frozen=True)
class Posting:
    """One sending of one site. `sheets`: sheet code -> rows as the site filled them in (dates as datetime64, answers
    as floats, NaN where the cell is blank); `n_source_rows`: item rows of the source that it carries."""

    study_id: str
    site_id: str
    posted_on: date
    sending_number: int
    sheets: Mapping[str, pd.DataFrame] = field(repr=False)
    n_source_rows: int

    @property
    def file_name(self) -> str:
        return f"{self.study_id}_{self.site_id}_{self.posted_on.isoformat()}_{self.sending_number}.xlsx"


def derive_item_rows(
    source: PilotSource, study: Study, sites: Collection[str] | None = None, until: date | None = None
) -> pd.DataFrame:
    """Where each item row of the source goes: the trace from the trial's record to a cell of a workbook.

    Columns: source_file, source_row, test_code, site_id, posted_on, sending_number, sheet_code, participant_id, wave,
    respondent, form, instrument, item, response, missing_reason, collected_on. Sites and until as in `select_source`.
    An occasion that is no wave of the study keeps the source's name for it.
    Raises ValueError if there is such an occasion and the study accepts none that is unscheduled.
    """
    items = select_source(source, sites, until).items
    wave_of_visit = {}
    for visit in items["visit"].unique():
        wave = study.find_wave(visit)
        if wave is None and not study.accepts_unscheduled:
            raise ValueError(
                f'{study.study_id} has no wave "{visit}", which the pilot trial has. Add it, or accept unscheduled '
                "occasions."
            )
        wave_of_visit[visit] = visit if wave is None else wave.id
    items = items.assign(
        wave=items["visit"].map(wave_of_visit),
        posted_on=find_posting_days(items["collected_on"]),
        sending_number=load_assumed_values().sendings_per_posting,
        sheet_code=items["instrument"],
    )
    return items[[
        "source_file", "source_row", "test_code", "site_id", "posted_on", "sending_number", "sheet_code",
        "participant_id", "wave", "respondent", "form", "instrument", "item", "response", "missing_reason",
        "collected_on",
    ]].reset_index(drop=True)  # fmt: skip


def derive_supplied_rows(item_rows: pd.DataFrame) -> pd.DataFrame:
    """The answers that no source row holds: an NPI-X domain with follow-up answers was present (assumption
    npi_presence). Columns as `derive_item_rows`, source_file "", source_row -1, test_code "assumed"."""
    is_follow_up = (item_rows["instrument"] == "npi_x") & ~item_rows["item"].str.endswith("_present")
    supplied = item_rows[is_follow_up]
    supplied = supplied.assign(
        source_file="",
        source_row=-1,
        test_code="assumed",
        item=supplied["item"].str.replace(r"_.*", "_present", regex=True),
        response=float(load_assumed_values().npi_presence),
        missing_reason="",
    )
    return supplied.drop_duplicates(["participant_id", "wave", "item"]).reset_index(drop=True)


def derive_postings(
    source: PilotSource,
    study: Study,
    instruments: Mapping[str, Instrument],
    sites: Collection[str] | None = None,
    until: date | None = None,
) -> list[Posting]:
    """Every sending of the given sites up to and including `until`, ordered by posting date and site.

    Raises ValueError for an unknown site, for a source item that its instrument does not define, and for an arm,
    cohort or disposition reason that the study does not define: the replay must not post what the study cannot hold.
    """
    part = select_source(source, sites, until)
    item_rows = derive_item_rows(source, study, sites, until)
    _check_codes(part, item_rows, study, instruments)
    sheets = _derive_log_sheets(part, study)
    cells = pd.concat([item_rows, derive_supplied_rows(item_rows)], ignore_index=True)
    for instrument_id, rows in cells.groupby("instrument"):
        sheets[str(instrument_id)] = _derive_instrument_sheet(rows, instruments[str(instrument_id)])
    n_source_rows = item_rows.groupby(["posted_on", "site_id"]).size().to_dict()
    sheets_of_posting: dict[tuple[pd.Timestamp, str], dict[str, pd.DataFrame]] = {}
    order = [*_LOG_COLUMNS, *study.instruments]
    for code in sorted(sheets, key=order.index):
        for (posted_on, site_id), rows in _split(sheets[code]):
            sheets_of_posting.setdefault((posted_on, site_id), {})[code] = rows
    return [
        Posting(
            study_id=study.study_id,
            site_id=site_id,
            posted_on=posted_on.date(),
            sending_number=load_assumed_values().sendings_per_posting,
            sheets=sheets_of_posting[posted_on, site_id],
            n_source_rows=int(n_source_rows.get((posted_on, site_id), 0)),
        )
        for posted_on, site_id in sorted(sheets_of_posting)
    ]


def write_posting(posting: Posting, layout: Layout) -> tuple[str, bytes]:
    """The posting as a workbook: its file name and its bytes, which are the same whenever it is written."""
    about = {
        "study": posting.study_id,
        "site": posting.site_id,
        "posted_on": posting.posted_on,
        "sending_number": posting.sending_number,
    }
    return posting.file_name, write_return_workbook(layout, about, dict(posting.sheets))


def _derive_log_sheets(source: PilotSource, study: Study) -> dict[str, pd.DataFrame]:
    values = load_assumed_values()
    scopes = find_consent_scopes(study)
    screening = source.people.assign(
        consent_form_version=values.consent_form_version,
        consent_scopes=scopes,
        posted_on=find_posting_days(source.people["screened_on"]),
    )
    allocated = source.people[source.people["allocated_on"].notna()]
    frames = {
        SCREENING: screening,
        ALLOCATION: allocated.assign(posted_on=find_posting_days(allocated["allocated_on"])),
        DISPOSITION: source.dispositions.assign(posted_on=find_posting_days(source.dispositions["left_on"])),
    }
    return {code: _order(frame, _LOG_COLUMNS[code]) for code, frame in frames.items()}


def _derive_instrument_sheet(rows: pd.DataFrame, instrument: Instrument) -> pd.DataFrame:
    """One row per record, one column per item in the instrument's order; typed missing answers as the item's code."""
    code_of = {
        (item.id, reason): float(find_missing_code(item, reason))
        for item in instrument.items
        for reason in set(rows.loc[rows["item"] == item.id, "missing_reason"]) - {""}
    }
    codes = [code_of.get(pair, np.nan) for pair in zip(rows["item"], rows["missing_reason"], strict=True)]
    cells = rows.assign(cell=rows["response"].where(rows["missing_reason"] == "", pd.Series(codes, index=rows.index)))
    keys = ["posted_on", "site_id", *RECORD_KEYS]
    wide = cells.pivot(index=keys, columns="item", values="cell").reindex(columns=[i.id for i in instrument.items])
    wide.columns.name = None
    return _order(wide.reset_index(), [*RECORD_KEYS, *wide.columns])


def find_missing_code(item: Item, reason: str) -> int:
    """The code that a site writes for this reason: of several, the highest, which is the item's own where it has one.

    Raises ValueError if the item has no code for the reason.
    """
    codes = [code for code, meaning in item.missing_codes.items() if meaning == reason]
    if not codes:
        raise ValueError(f'Item "{item.id}" has no code for "{reason}", which the pilot trial has. Add the code.')
    return max(codes)


def find_consent_scopes(study: Study) -> str:
    """What everyone is taken to have consented to: all that the assumed consent form asks for, as a cell holds it."""
    form = study.find_consent_form(load_assumed_values().consent_form_version)
    return "; ".join(form.scopes) if form else ""


def _order(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Rows by posting, then by person and date: an order that does not depend on how the rows arrived."""
    by = ["posted_on", "site_id", "participant_id", *(c for c in ("collected_on", "wave") if c in frame)]
    return frame.sort_values(by, ignore_index=True)[["posted_on", "site_id", *columns]]


def _split(sheet: pd.DataFrame) -> list[tuple[tuple[pd.Timestamp, str], pd.DataFrame]]:
    """The rows of each posting. The sheet is sorted by posting, so that each is one slice."""
    keys = sheet[["posted_on", "site_id"]]
    starts = np.flatnonzero((keys != keys.shift()).any(axis=1))
    columns = sheet.columns[2:]
    body = sheet[columns]
    first = keys.iloc[starts]
    ends = np.append(starts[1:], len(sheet))[: len(starts)]
    return [
        ((posted_on, site_id), body.iloc[start:end].reset_index(drop=True))
        for posted_on, site_id, start, end in zip(first["posted_on"], first["site_id"], starts, ends, strict=True)
    ]


def _check_codes(
    source: PilotSource, item_rows: pd.DataFrame, study: Study, instruments: Mapping[str, Instrument]
) -> None:
    faults = []
    defined = {(name, item.id) for name, instrument in instruments.items() for item in instrument.items}
    used = set(item_rows[["instrument", "item"]].drop_duplicates().itertuples(index=False, name=None))
    faults += [f'instrument {name} has no item "{item}"' for name, item in sorted(used - defined)]
    for title, values, known in (
        ("arm", source.people["arm"], study.arms),
        ("cohort", source.people["cohort"], study.cohorts),
    ):
        faults += [f'no {title} "{code}"' for code in sorted(set(values) - {""} - {entry.id for entry in known})]
    reasons = {(scope, reason.id) for reason in study.disposition_reasons for scope in reason.scopes}
    left = set(source.dispositions[["scope", "reason"]].itertuples(index=False, name=None))
    faults += [f'no disposition reason "{reason}" of scope "{scope}"' for scope, reason in sorted(left - reasons)]
    version = load_assumed_values().consent_form_version
    if study.find_consent_form(version) is None:
        faults.append(f'no consent form of version "{version}"')
    if faults:
        raise ValueError(f"The pilot trial does not fit {study.study_id}: {'; '.join(faults)}. Define what is missing.")
