"""The tables of a release that follow from the others: returns, the answers of each instrument side by side, and one
analysis table for each design (wide, and difference-in-difference).

What a column is called and means follows from the definitions, so that it can be had before any data. A value that is
missing has its reason beside it, in a column of the same name with "_missing".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from study.answers import REASONS, RECORD_COLUMNS, Answers
from study.attrition import REASON_KINDS, WHY_NOT_EXPECTED, keep_ended_waves
from study.attrition_models import (
    WEIGHT_RECIPE,
    WEIGHT_STATUSES,
    derive_characteristics,
    derive_weight_columns,
    find_comparison,
    fit_weights,
)
from study.datasets import PARTICIPANTS, RESPONSES, SCORES, Column, Table, TableRows, find_wave_places
from study.flow import derive_dispositions_layout
from study.instruments import MISSING_REASONS, Instrument
from study.protocol import Study, Wave
from study.scoring import compute_scores, derive_people
from study.state import Events
from study.waves import derive_expected_returns

RETURN_STATUSES = {
    "returned": "Everything that was asked is in",
    "partial": "A part of what was asked is in",
    "missed": "The last day on which it is taken, or data collection, is over, and nothing is in",
    "stopped": "The person left the questionnaires before it was over",
    "pending": "It may still come",
    "kept_apart": "It came, and is not in this release: held for a decision, without consent for it, or erased",
    "unscheduled": "It came, and the protocol asks for nothing on this occasion",
}
NOT_EXPECTED = {**WHY_NOT_EXPECTED, "unscheduled": "The protocol asks for nothing on this occasion"}
TIMINGS = {
    "early": "Before the window opened",
    "in_window": "Within the window",
    "late": "After the window closed, and taken",
    "out_of_window": "After the last day on which it is taken",
}
NO_YES = ((0, "No"), (1, "Yes"))
MISSING = "_missing"
ITEMS = "items_"

_SLOT = ["participant_id", "wave", "respondent"]
_WHY_MISSING = "Why there is no value: "
_REASON_WORDS = pd.array([None, *MISSING_REASONS], dtype="str")
_REASON_NUMBER = {reason: number for number, reason in enumerate(MISSING_REASONS, start=1)}
_NOT_ASKED, _NOT_RETURNED = _REASON_NUMBER["not_asked"], _REASON_NUMBER["not_returned"]

Flags = np.ndarray[Any, np.dtype[np.bool_]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Numbers = np.ndarray[Any, np.dtype[np.int8]]


def _find(table: Table, *names: str) -> list[Column]:
    own = {column.name: column for column in table.columns}
    return [own[name] for name in names]


RETURNS = Table(
    "returns",
    ("participant_id", "wave", "respondent"),
    (
        *_find(RESPONSES, "participant_id", "wave", "respondent"),
        *_find(PARTICIPANTS, "site", "arm", "cohort"),
        Column("expected", "number", "Whether this return was to be expected by the release's day", levels=NO_YES),
        Column(
            "not_expected_because", "text", "Why it was not; empty where it was expected", codes="not_expected_because"
        ),
        Column("reason", "text", "Why it is missing, of what was expected and is not in", codes="reason"),
        Column("reason_kind", "text", "What that reason counts as", codes="reason_kind"),
        Column("returned", "number", "Whether anything of it is in this release", levels=NO_YES),
        Column("status", "text", "Where the return stood on the release's day", codes="status"),
        Column("instruments", "text", "Instruments that it asks for, joined with a semicolon"),
        Column("n_instruments", "number", "How many of them a return can hold"),
        Column("n_returned", "number", "Instruments of this return that are in this release"),
        Column("form", "text", "Version of the questionnaire that came, or that the person is given", codes="form"),
        Column("is_proxy", "number", "Whether somebody answered in the participant's place", levels=NO_YES),
        Column("is_easy_read", "number", "Whether anything of it came on the easy-read form", levels=NO_YES),
        Column("anchor_on", "date", "Date of the event from which the wave counts"),
        *(
            Column(name, "date", label)
            for name, label in (
                ("opens_on", "First day of the window"),
                ("due_on", "Day on which it is due"),
                ("closes_on", "Last day of the window"),
                ("late_until", "Last day on which it is taken"),
                ("collected_on", "First day on which anything of it was answered"),
                ("completed_on", "Last day on which anything of it was answered"),
            )
        ),
        Column("days_from_anchor", "number", "Days from anchor_on to collected_on"),
        Column("timing", "text", "completed_on, judged by the window", codes="timing"),
        Column("in_window", "number", "Whether completed_on lies within the window", levels=NO_YES),
        Column("left_on", "date", "Day on which the person left; empty where they are in the study or completed it"),
    ),
)
OF_RETURNS: Mapping[str, Mapping[str, str]] = {
    "status": RETURN_STATUSES,
    "not_expected_because": NOT_EXPECTED,
    "reason_kind": REASON_KINDS,
    "timing": TIMINGS,
}
"""The codes that `RETURNS` has beyond those of the study."""
OF_ANALYSIS: Mapping[str, Mapping[str, str]] = {"attrition_weight_status": WEIGHT_STATUSES}
"""The codes that the analysis tables have beyond those of the study."""


# Returns ------------------------------------------------------------------------------------------------------------


def derive_asked_returns(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """`waves.derive_expected_returns` with the visits that ended with somebody's treatment, as `attrition` counts them:
    expected, and missing for the reason for which they left it."""
    return derive_expected_returns(keep_ended_waves(study), events, as_of)


def derive_returns_table(
    asked: pd.DataFrame, rows: pd.DataFrame, records: pd.DataFrame, participants: pd.DataFrame, study: Study
) -> pd.DataFrame:
    """One row per participant, wave and respondent of which something is expected or in: RETURNS.

    `asked`: from `derive_asked_returns`; `rows`: from `attrition.derive_attrition_rows`, which decides what was
    expected and why it is missing; `records`: of the answers in the release (`study.answers`), from which alone what is
    in is counted, so that the tables agree to the row; `participants`: the released table. An occasion that the
    protocol does not ask for has a row where something came.
    """
    table = asked.rename(columns={"form": "form_given", "n_returned": "n_told"})[[*_SLOT, *_OF_ASKED]]
    table = table.merge(rows[[*_SLOT, *_OF_ATTRITION]], on=_SLOT, how="left")
    table = table.merge(_derive_came(records), on=_SLOT, how="outer", indicator="origin")
    table = table.merge(participants[["participant_id", "site", "arm", "cohort"]], on="participant_id")
    table["is_scheduled"] = (table.pop("origin") != "right_only").to_numpy(bool)
    table["returned"] = table["n_returned"].notna().astype(float)
    table = table.fillna({"n_returned": 0, "n_told": 0, "n_instruments": 0})
    for name in ("instruments", "form_given", "why_not_expected", "reason", "reason_kind"):
        table[name] = table[name].astype("str").where(table[name].notna() & (table[name] != ""))
    table["instruments"] = table["instruments"].fillna(table["came"])
    table["status"] = find_return_statuses(table)
    table["not_expected_because"] = table["why_not_expected"].mask(~table["is_scheduled"], "unscheduled")
    table["expected"] = table["not_expected_because"].isna().astype(float)
    table["form"] = table["form"].fillna(table["form_given"])
    table["is_proxy"] = (table["respondent"] == "proxy").astype(float)
    table["timing"] = find_timings(table)
    table["in_window"] = (table["timing"] == "in_window").astype(float).where(table["timing"].notna())
    table["days_from_anchor"] = compute_days_between(table["anchor_on"], table["collected_on"])
    table = RETURNS.shape(table)
    keys = [
        pd.factorize(table["respondent"], sort=True)[0],
        find_wave_places(table["wave"], study),
        pd.factorize(table["participant_id"], sort=True)[0],
    ]
    return table.iloc[np.lexsort(keys)].reset_index(drop=True)


_OF_ASKED = [
    *("instruments", "n_instruments", "n_told", "form_given", "status"),
    *("anchor_on", "opens_on", "due_on", "closes_on", "late_until"),
]
_OF_ATTRITION = ["why_not_expected", "reason", "reason_kind", "left_on"]


def _derive_came(records: pd.DataFrame) -> pd.DataFrame:
    """What is in of each slot: came (its instruments, joined), n_returned, collected_on, completed_on, form (several
    are joined by a semicolon), is_easy_read."""
    groups = records.groupby(_SLOT, sort=False)
    came = groups["collected_on"].agg(["min", "max", "size"]).reset_index()
    came = came.rename(columns={"min": "collected_on", "max": "completed_on", "size": "n_returned"})
    for name, column in (("came", "instrument"), ("form", "form")):
        words = records[[*_SLOT, column]].drop_duplicates().sort_values(column)
        joined = words.groupby(_SLOT)[column].agg(";".join) if len(words) else words.set_index(_SLOT)[column]
        came = came.merge(joined.rename(name).reset_index(), on=_SLOT)
    came["is_easy_read"] = came["form"].str.contains("easy_read", regex=False).astype(float)
    return came


def find_return_statuses(table: pd.DataFrame) -> pd.Series[Any]:
    """Where each return stands, a code of RETURN_STATUSES.

    As `waves.derive_expected_returns` says, with three differences: what has not come and still may is pending,
    whether it was sent out or not; what the ledger took and this release leaves out is kept_apart; what came without
    being asked for is unscheduled. `table`: is_scheduled, returned, status, n_told, n_returned, n_instruments.
    """
    is_in = table["returned"] == 1
    status = table["status"].astype("str")
    status = status.mask(status.isin(["planned", "released", "held"]), "pending")
    status = status.mask(
        status.isin(["returned", "partial"]) & is_in & (table["n_returned"] < table["n_told"]), "partial"
    )
    status = status.mask((table["n_told"] > 0) & ~is_in, "kept_apart")
    return status.mask(~table["is_scheduled"], "unscheduled")


def find_timings(table: pd.DataFrame) -> pd.Series[Any]:
    """The last day of the answers by the window, a code of TIMINGS: early before `opens_on`, late after `closes_on`,
    out_of_window after `late_until`; missing where nothing is in or there is no window."""
    day, found = table["completed_on"], pd.Series(None, table.index, dtype="str")
    found = found.mask(day >= table["opens_on"], "in_window")
    found = found.mask(day > table["closes_on"], "late").mask(day > table["late_until"], "out_of_window")
    return found.mask(day < table["opens_on"], "early")


def compute_days_between(since: pd.Series[Any], until: pd.Series[Any]) -> pd.Series[Any]:
    """Whole days from one date to another; missing where either is."""
    return (until - since).dt.days.astype("float64")


# Items of each instrument -------------------------------------------------------------------------------------------


def derive_items_layout(instrument: Instrument) -> Table:
    """One row per record of an instrument, one column per item, each with the reason where it has no answer."""
    columns = [*_find(RESPONSES, *_SLOT, "form", "collected_on")]
    for column in find_item_columns(instrument):
        columns += _pair(column)
    return Table(f"{ITEMS}{instrument.id}", tuple(_SLOT), tuple(columns))


def find_item_columns(instrument: Instrument) -> list[Column]:
    """The column of each item, in the instrument's order."""
    return [
        Column(
            item.id,
            "number",
            item.label,
            levels=tuple(sorted(item.levels.items())) if item.type == "level" else (),
            reason=f"{item.id}{MISSING}",
        )
        for item in instrument.items
    ]


def _pair(column: Column) -> list[Column]:
    """A column and the one that says why its values are missing."""
    name = f"{column.name}{MISSING}"
    why = Column(name, "text", f"{_WHY_MISSING}{column.label}", codes="missing_reason")
    return [Column(column.name, column.type, column.label, column.codes, column.levels, name), why]


def derive_items_rows(answers: Answers, instrument: Instrument, start: int, stop: int) -> pd.DataFrame:
    """Some rows of the answers to one instrument by record (`derive_items_layout`), in the order of a release; text as
    categories. An item of which a record says nothing is not_returned."""
    block = answers.read_records(instrument.id, start, stop)
    reasons = block.told_reasons
    parts: dict[str, Any] = {name: pd.Categorical(block.records[name]) for name in (*_SLOT, "form")}
    parts["collected_on"] = block.records["collected_on"]
    for place, name in enumerate(instrument.item_ids):
        parts[name] = block.values[:, place]
        parts[f"{name}{MISSING}"] = pd.Categorical.from_codes(reasons[:, place] - 1, dtype=REASONS)
    return pd.DataFrame(parts, columns=derive_items_layout(instrument).column_names, copy=False)


def take_items_rows(answers: Answers, instrument: Instrument) -> TableRows:
    """The table of `derive_items_layout`."""

    def find_texts(column: str) -> list[str]:
        if column.endswith(MISSING):
            return list(MISSING_REASONS)
        return list(answers.records.loc[answers.records["instrument"] == instrument.id, column].dropna().unique())

    return TableRows(
        derive_items_layout(instrument),
        answers.count_records(instrument.id),
        partial(derive_items_rows, answers, instrument),
        find_texts,
    )


def _number_reasons(reasons: pd.Series[Any]) -> Numbers:
    """Places in MISSING_REASONS from 1; 0 for none."""
    codes, words = pd.factorize(reasons)
    numbers = np.array([*(_REASON_NUMBER[word] for word in words), 0], np.int8)
    return np.asarray(numbers[codes], np.int8)


def _word_reasons(numbers: Numbers) -> Any:
    return _REASON_WORDS.take(numbers)


# Analysis tables ----------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """A scale as one kind of respondent answers it. `name`: of its columns; `waves`: at which it may have a value."""

    instrument: str
    scale: str
    respondent: str
    name: str
    label: str
    waves: tuple[str, ...]


WIDE, DID = "analysis_wide", "analysis_did"
_BASICS = ("site", "cohort", "arm")
_OF_SLOT = (
    ("status", "Where the return stood"),
    ("form", "Version of the questionnaire"),
    ("collected_on", "First day on which anything was answered"),
    ("days_from_anchor", "Days from the event from which the wave counts to the first answers"),
    ("timing", "The last day of the answers, judged by the window"),
)


def find_outcomes(study: Study, instruments: Mapping[str, Instrument]) -> list[Outcome]:
    """Every scale that the protocol's schedule asks for, by respondent, in the order of instruments and scales.

    A column is called as its scale; with the respondent after it where that is not the participant, and with the
    instrument before it where two instruments have a scale of the same name.
    """
    often = Counter(scale for instrument in instruments.values() for scale in instrument.scale_ids)
    outcomes = []
    for instrument in (instruments[name] for name in study.instruments):
        for respondent in study.respondents:
            asked = {
                wave
                for entry in study.schedule
                if (entry.instrument, entry.respondent) == (instrument.id, respondent)
                for wave in entry.waves
            }
            waves = tuple(wave.id for wave in study.waves if wave.id in asked)
            ending = "" if respondent == "self" else f"_{respondent}"
            for scale in instrument.scales if waves else ():
                name = scale.id if often[scale.id] == 1 else f"{instrument.id}_{scale.id}"
                whom = "" if respondent == "self" else f", answered by {respondent}"
                outcomes.append(
                    Outcome(instrument.id, scale.id, respondent, f"{name}{ending}", f"{scale.label}{whom}", waves)
                )
    return outcomes


def find_slots(study: Study) -> list[tuple[Wave, str]]:
    """Wave and respondent, wherever the schedule asks for an instrument that the study has."""
    asked = {
        (wave, entry.respondent)
        for entry in study.schedule
        if entry.instrument in study.instruments
        for wave in entry.waves
    }
    return [(wave, name) for wave in study.waves for name in study.respondents if (wave.id, name) in asked]


def find_characteristics(study: Study, instruments: Mapping[str, Instrument]) -> dict[str, tuple[str, str, Column]]:
    """Baseline characteristics by the name of their column: instrument, respondent, and the item's own column.

    They are the items of the instruments without a scale that the schedule asks for at baseline. Scores at baseline are
    characteristics as well, and have columns of their own.
    """
    found: dict[str, tuple[str, str, Column]] = {}
    for entry in study.find_scheduled(study.baseline.id):
        instrument = instruments.get(entry.instrument)
        if instrument is None or instrument.scales:
            continue
        ending = "" if entry.respondent == "self" else f"_{entry.respondent}"
        for column in find_item_columns(instrument):
            found.setdefault(f"{column.name}{ending}", (instrument.id, entry.respondent, column))
    return found


def _list_basics(study: Study) -> list[Column]:
    columns = [*_find(PARTICIPANTS, "site")]
    if any(site.type for site in study.sites):
        columns.append(Column("site_type", "text", "Kind of site, as the protocol names it: its implementation model"))
    columns.append(Column("allocation", "text", "How people come to an arm at this site", codes="allocation"))
    return [*columns, *_find(PARTICIPANTS, "cohort", "arm")]


GROUP = Column("group", "number", "Arm's role in the comparison", levels=((0, "Comparison"), (1, "Intervention")))
_POST = Column("post", "number", "Before or after", levels=((0, "Baseline"), (1, "Follow-up")))
_INTERACTION = Column("interaction", "number", "Group times post: the difference in differences", levels=NO_YES)


def derive_wide_layout(study: Study, instruments: Mapping[str, Instrument]) -> Table:
    """One row per person screened: who they are, then for each wave and respondent how the return went, then every
    score of every wave, each with the reason where it is missing."""
    columns = [*_find(PARTICIPANTS, "participant_id"), *_list_basics(study), GROUP]
    columns += _find(PARTICIPANTS, "screened_on", "consented_on", "allocated_on", "disposition", "disposition_on")
    if _tells(instruments, "age"):
        columns.append(Column("age", "number", "Age in whole years when the person joined"))
    if _tells(instruments, "sex"):
        columns.append(Column("sex", "text", "Sex, as the questionnaires tell it"))
    for name, (_, respondent, column) in find_characteristics(study, instruments).items():
        whom = "" if respondent == "self" else f", answered by {respondent}"
        columns += _pair(Column(name, "number", f"{column.label}{whom}: at baseline", levels=column.levels))
    of_returns = {column.name: column for column in RETURNS.columns}
    for wave, respondent in find_slots(study):
        for name, label in _OF_SLOT:
            like = of_returns[name]
            whom = "" if respondent == "self" else f", {respondent}"
            columns.append(
                Column(_name_slot(name, wave.id, respondent), like.type, f"{label}: {wave.label}{whom}", like.codes)
            )
    labels = {wave.id: wave.label for wave in study.waves}
    for outcome in find_outcomes(study, instruments):
        for wave_id in outcome.waves:
            columns += _pair(Column(f"{outcome.name}_{wave_id}", "number", f"{outcome.label}: {labels[wave_id]}"))
    compared, respondents = find_comparison(study)
    whose = f"For answers at {labels[compared]} ({' or '.join(respondents)}):"
    columns += [
        Column("attrition_weight", "number", "Weight for who was lost", note=f"{whose} {WEIGHT_RECIPE}"),
        Column(
            "attrition_weight_status", "text", "Whether there is a weight, and why not", codes="attrition_weight_status"
        ),
    ]
    return Table(WIDE, ("participant_id",), tuple(columns))


def derive_did_layout(study: Study, instruments: Mapping[str, Instrument]) -> Table:
    """One row per person allocated and wave, for a difference-in-difference model: group, post and their product,
    site, cohort and kind of site, how the wave was timed, and every score."""
    columns = [*_find(PARTICIPANTS, "participant_id"), *_find(RESPONSES, "wave")]
    columns.append(Column("wave_number", "number", "Place of the wave in the protocol; the baseline is 0"))
    columns += [GROUP, _POST, _INTERACTION, *_list_basics(study)]
    columns += [
        Column("days_from_anchor", "number", "Days from the event from which the wave counts to the first answers"),
        Column("collected_on", "date", "First day on which anything of the wave was answered"),
    ]
    for outcome in find_outcomes(study, instruments):
        columns += _pair(Column(outcome.name, "number", outcome.label))
    return Table(DID, ("participant_id", "wave"), tuple(columns))


def _name_slot(name: str, wave_id: str, respondent: str) -> str:
    return f"{name}_{wave_id}" + ("" if respondent == "self" else f"_{respondent}")


def _tells(instruments: Mapping[str, Instrument], what: str) -> bool:
    return any(item.provides == what for instrument in instruments.values() for item in instrument.items)


def derive_baseline_characteristics(
    tables: Mapping[str, pd.DataFrame],
    told: pd.DataFrame,
    rows: pd.DataFrame,
    study: Study,
    instruments: Mapping[str, Instrument],
) -> pd.DataFrame:
    """What is known of people at the baseline, for models of attrition: `attrition_models.derive_characteristics`, with
    age, sex and the characteristics of `find_characteristics`, answers with levels by their words. `tables`:
    participants and scores; `told`: RESPONSES of `list_told_items`; `rows`: from `attrition.derive_attrition_rows`."""
    found, people = derive_characteristics(study, rows, tables["scores"]), tables["participants"]
    ages = derive_joining_ages(people, told, instruments).set_axis(people["participant_id"])
    for name in (name for name in ("age", "sex") if _tells(instruments, name)):
        found[name] = ages[name].reindex(found.index)
    for name, (instrument, respondent, column) in find_characteristics(study, instruments).items():
        answers = _find_answers(told, study.baseline.id, respondent, instrument, column.name)
        values = answers.set_index("participant_id")["response"].reindex(found.index)
        found[name] = values.map(dict(column.levels)) if column.levels else values
    return found


def derive_wide_table(
    tables: Mapping[str, pd.DataFrame],
    told: pd.DataFrame,
    rows: pd.DataFrame,
    study: Study,
    instruments: Mapping[str, Instrument],
) -> pd.DataFrame:
    """The wide analysis table (`derive_wide_layout`), ordered by participant. `tables`: participants, scores and
    returns; `told`: RESPONSES of `list_told_items`; `rows`: from `attrition.derive_attrition_rows`. Scores of occasions
    that the schedule does not ask for stand in `scores` alone."""
    layout, people = derive_wide_layout(study, instruments), tables["participants"]
    parts = _derive_basics(people, study)
    for name in ("screened_on", "consented_on", "allocated_on", "disposition", "disposition_on"):
        parts[name] = people[name].to_numpy()
    ages = derive_joining_ages(people, told, instruments)
    parts["age"], parts["sex"] = ages["age"], ages["sex"].where(ages["sex"] != "")
    cells = _Cells(tables, study)
    for name, (instrument, respondent, column) in find_characteristics(study, instruments).items():
        slot = (study.baseline.id, respondent, instrument)
        own = _find_answers(told, *slot, column.name)
        parts |= _name_pair(name, cells.fill(own, "response", *slot))
    for wave, respondent in find_slots(study):
        own = cells.find_returns(wave.id, respondent)
        for name, _ in _OF_SLOT:
            parts[_name_slot(name, wave.id, respondent)] = own[name].to_numpy()
    grouped = _group_scores(tables["scores"])
    for outcome in find_outcomes(study, instruments):
        for wave_id in outcome.waves:
            parts |= _name_pair(f"{outcome.name}_{wave_id}", cells.fill_score(grouped, outcome, wave_id))
    wave_id, respondents, weights = fit_weights(
        study, rows, derive_baseline_characteristics(tables, told, rows, study, instruments)
    )
    weighted = derive_weight_columns(people["participant_id"], rows, weights, wave_id, respondents)
    parts |= {str(name): weighted[name].to_numpy() for name in weighted.columns}
    return layout.shape(pd.DataFrame({name: parts[name] for name in layout.column_names}))


def derive_did_table(
    tables: Mapping[str, pd.DataFrame], study: Study, instruments: Mapping[str, Instrument]
) -> pd.DataFrame:
    """The difference-in-difference table (`derive_did_layout`), ordered by participant and wave.

    Everybody allocated to an arm has a row for the baseline and each follow-up, also where nothing came or was to be
    expected: the reasons say which. Scores of occasions that the schedule does not ask for, such as those of a visit at
    which somebody stopped early, stand in `scores` alone. `tables`: participants, scores and returns.
    """
    layout = derive_did_layout(study, instruments)
    people = tables["participants"]
    people = people[people["arm"].notna()].reset_index(drop=True)
    waves = [wave for wave in study.waves if wave.role != "screening"]
    n, n_waves = len(people), len(waves)

    def repeat(values: Any) -> Any:
        return pd.Series(values).repeat(n_waves).reset_index(drop=True)

    def interleave(columns: list[Any]) -> Any:
        """One column per wave to rows by participant, then wave."""
        stacked = pd.concat([pd.Series(column) for column in columns], ignore_index=True)
        return stacked.iloc[np.arange(n * n_waves).reshape(n_waves, n).T.ravel()].reset_index(drop=True)

    parts = {name: repeat(values) for name, values in _derive_basics(people, study).items()}
    parts["wave"] = pd.Series([wave.id for wave in waves] * n, dtype="str")
    before = [wave.id for wave in waves].index(study.baseline.id)
    parts["wave_number"] = pd.Series([number - before for number in range(n_waves)] * n, dtype="float64")
    parts["post"] = pd.Series([find_post(wave) for wave in waves] * n, dtype="float64")
    parts["interaction"] = parts["group"] * parts["post"]
    cells = _Cells({**tables, "participants": people}, study)
    timed = [cells.find_earliest(wave.id) for wave in waves]
    for name in ("days_from_anchor", "collected_on"):
        parts[name] = interleave([frame[name] for frame in timed])
    grouped = _group_scores(tables["scores"])
    for outcome in find_outcomes(study, instruments):
        filled = [cells.fill_score(grouped, outcome, wave.id) for wave in waves]
        values = np.array([found.values for found in filled]).T.ravel()
        reasons = np.array([found.reasons for found in filled]).T.ravel()
        parts |= _name_pair(outcome.name, _Filled(values, reasons))
    return layout.shape(pd.DataFrame({name: parts[name] for name in layout.column_names}))


def find_post(wave: Wave) -> float:
    """0 for the baseline, 1 for a follow-up."""
    return 0.0 if wave.role == "baseline" else 1.0


def find_groups(arms: pd.Series[Any], study: Study) -> pd.Series[Any]:
    """1 for an arm of the role intervention, 0 for comparison; missing for who was never allocated."""
    roles = {arm.id: 1.0 if arm.role == "intervention" else 0.0 for arm in study.arms}
    return arms.map(roles).astype("float64")


def derive_joining_ages(
    people: pd.DataFrame, told: pd.DataFrame, instruments: Mapping[str, Instrument]
) -> pd.DataFrame:
    """Age and sex (`scoring.derive_people`) of each participant on the day of their consent, or where none is recorded
    that of screening."""
    day = people["consented_on"].fillna(people["screened_on"])
    records = people[["participant_id"]].assign(respondent="self", collected_on=day)
    return derive_people(records, told, instruments)


def _derive_basics(people: pd.DataFrame, study: Study) -> dict[str, Any]:
    types = {site.site_id: site.type for site in study.sites if site.type}
    ways = {site.site_id: site.allocation or study.allocation for site in study.sites}
    return {
        "participant_id": people["participant_id"],
        "site": people["site"],
        "site_type": people["site"].map(types),
        "allocation": people["site"].map(ways),
        "cohort": people["cohort"],
        "arm": people["arm"],
        "group": find_groups(people["arm"], study),
    }


class _Filled(NamedTuple):
    values: Floats
    reasons: Numbers


def _name_pair(name: str, filled: _Filled) -> dict[str, Any]:
    return {name: filled.values, f"{name}{MISSING}": _word_reasons(filled.reasons)}


def _find_answers(told: pd.DataFrame, wave_id: str, respondent: str, instrument: str, item: str) -> pd.DataFrame:
    of_item = told[(told["instrument"] == instrument) & (told["item"] == item)]
    return of_item[(of_item["wave"] == wave_id) & (of_item["respondent"] == respondent)]


def _group_scores(scores: pd.DataFrame) -> dict[Any, pd.DataFrame]:
    columns = ["participant_id", "score", "missing_reason"]
    keys = ["wave", "respondent", "instrument", "scale"]
    return dict(iter(scores.groupby(keys, sort=False)[columns]))


class _Cells:
    """One value of each participant at a wave, and why there is none.

    Of a score that no record gives: not_returned where the return was expected, the protocol asked for the instrument
    and it did not come (or is kept apart); not_asked where nothing was to be expected.
    """

    def __init__(self, tables: Mapping[str, pd.DataFrame], study: Study) -> None:
        self.ids = pd.Index(tables["participants"]["participant_id"])
        self.returns = dict(iter(tables["returns"].groupby(["wave", "respondent"], sort=False)))
        self.empty = tables["returns"].iloc[:0]
        self.respondents = study.respondents
        self._by_slot: dict[tuple[str, str], pd.DataFrame] = {}
        self._asked: dict[tuple[str, str, str], Flags] = {}

    def find_returns(self, wave_id: str, respondent: str) -> pd.DataFrame:
        """The rows of `returns` of a slot, one per participant; blank where there is none."""
        key = (wave_id, respondent)
        if key not in self._by_slot:
            rows = self.returns.get(key, self.empty).set_index("participant_id")
            self._by_slot[key] = rows.reindex(self.ids)
        return self._by_slot[key]

    def find_earliest(self, wave_id: str) -> pd.DataFrame:
        """days_from_anchor and collected_on of the respondent who answered first; of two on one day, the first in the
        protocol's order."""
        frames = [self.find_returns(wave_id, name)[["collected_on", "anchor_on"]] for name in self.respondents]
        found = frames[0].reset_index(drop=True)
        for frame in frames[1:]:
            other = frame.reset_index(drop=True)
            is_earlier = (other["collected_on"] < found["collected_on"]) | found["collected_on"].isna()
            found = found.mask(is_earlier, other)
        days = compute_days_between(found["anchor_on"], found["collected_on"])
        return pd.DataFrame({"days_from_anchor": days, "collected_on": found["collected_on"]})

    def is_asked(self, wave_id: str, respondent: str, instrument: str) -> Flags:
        """Whether the return was expected and asked for the instrument."""
        key = (wave_id, respondent, instrument)
        if key not in self._asked:
            own = self.find_returns(wave_id, respondent)
            codes, lists = pd.factorize(own["instruments"])
            has_it = np.array([*(instrument in str(names).split(";") for names in lists), False], bool)
            self._asked[key] = np.asarray((own["expected"] == 1).to_numpy() & has_it[codes], bool)
        return self._asked[key]

    def fill_score(self, grouped: Mapping[Any, pd.DataFrame], outcome: Outcome, wave_id: str) -> _Filled:
        """Of a wave at which the schedule does not ask for it: not_asked, even where a score came."""
        slot = (wave_id, outcome.respondent, outcome.instrument)
        rows = grouped.get((*slot, outcome.scale)) if wave_id in outcome.waves else None
        return self.fill(rows, "score", *slot)

    def fill(self, rows: pd.DataFrame | None, value: str, wave_id: str, respondent: str, instrument: str) -> _Filled:
        asked = self.is_asked(wave_id, respondent, instrument)
        values = np.full(len(self.ids), np.nan)
        reasons = np.where(asked, _NOT_RETURNED, _NOT_ASKED).astype(np.int8)
        if rows is not None and len(rows):
            place = self.ids.get_indexer(pd.Index(rows["participant_id"]))
            is_here = place >= 0
            values[place[is_here]] = rows[value].to_numpy()[is_here]
            reasons[place[is_here]] = _number_reasons(rows["missing_reason"])[is_here]
        return _Filled(values, reasons)


# All of them --------------------------------------------------------------------------------------------------------


def derive_layouts(study: Study, instruments: Mapping[str, Instrument]) -> dict[str, Table]:
    """Every table of a release of this study by its name, known before any data."""
    tables: Iterable[Table] = (
        *(PARTICIPANTS, RETURNS, RESPONSES, SCORES),
        *(derive_wide_layout(study, instruments), derive_did_layout(study, instruments)),
        *(derive_items_layout(instruments[name]) for name in study.instruments),
        derive_dispositions_layout(study),
    )
    return {table.name: table for table in tables}


def list_told_items(study: Study, instruments: Mapping[str, Instrument]) -> dict[str, list[str]]:
    """Items by instrument that tell more than scores: age, sex, and characteristics at baseline."""
    told = {one.id: [item.id for item in one.items if item.provides] for one in instruments.values()}
    for instrument_id, _, column in find_characteristics(study, instruments).values():
        if column.name not in told[instrument_id]:
            told[instrument_id].append(column.name)
    return told


def derive_scores_table(answers: Answers) -> pd.DataFrame:
    """One row per scale of every record: SCORES, text as categories; scored by each instrument's own definition.

    The answers must be without faults (`answers.collect_answers`). An item of which a record says nothing (the
    instrument gained it later) is not_returned, so that no rule takes it for one that routing skipped. Scores by age
    and sex take them from the questionnaires that tell them.
    """
    records = answers.records
    numbers = {one.id: len(one.scales) for one in answers.instruments.values()}
    n_scales = records["instrument"].map(numbers).fillna(0).to_numpy(np.int64)
    begins, total = np.cumsum(n_scales) - n_scales, int(n_scales.sum())
    scores, reasons, scales = np.full(total, np.nan), np.zeros(total, np.int8), np.empty(total, np.int32)
    names = list(dict.fromkeys(name for one in answers.instruments.values() for name in one.scale_ids))
    for number, block in enumerate(answers.read_blocks()):
        instrument = block.instrument
        people = derive_people(block.records, answers.told, answers.instruments) if instrument.covariates else None
        own, why = compute_scores(instrument, block.values.T, block.told_reasons.T, people)
        at = begins[answers.find_records(number)][:, None] + np.arange(len(instrument.scales))
        scores[at], reasons[at] = own.T, why.T
        scales[at] = [names.index(name) for name in instrument.scale_ids]
        del block
    told = pd.DataFrame({name: answers.coded.get(name, records[name]) for name in RECORD_COLUMNS})
    table = told.take(np.repeat(np.arange(len(records)), n_scales)).reset_index(drop=True)
    return table.assign(
        scale=pd.Categorical.from_codes(scales, pd.Index(names, dtype="str")),
        score=scores,
        missing_reason=pd.Categorical.from_codes(reasons - 1, dtype=REASONS),
    )[SCORES.column_names]


def derive_further_tables(
    tables: Mapping[str, pd.DataFrame],
    answers: Answers,
    asked: pd.DataFrame,
    rows: pd.DataFrame,
    study: Study,
    instruments: Mapping[str, Instrument],
) -> dict[str, pd.DataFrame]:
    """`tables` (participants, scores and dispositions) and those that follow from them: returns and analysis tables.

    `asked` and `rows`: as in `derive_returns_table`, as of the release's day.
    """
    every = {**tables, RETURNS.name: derive_returns_table(asked, rows, answers.records, tables["participants"], study)}
    every[WIDE] = derive_wide_table(every, answers.told, rows, study, instruments)
    every[DID] = derive_did_table(every, study, instruments)
    return every


def list_table_rows(
    tables: Mapping[str, pd.DataFrame], answers: Answers, study: Study, instruments: Mapping[str, Instrument]
) -> dict[str, TableRows]:
    """Every table of a release by its name, in the order of `derive_layouts`. `tables`: `derive_further_tables`."""
    found = {}
    for name, layout in derive_layouts(study, instruments).items():
        if name in tables:
            found[name] = TableRows.of(layout, tables[name])
        elif name == RESPONSES.name:
            found[name] = TableRows(layout, answers.n_answers, answers.read_rows, answers.find_texts)
        else:
            found[name] = take_items_rows(answers, instruments[name.removeprefix(ITEMS)])
    return found
