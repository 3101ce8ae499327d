"""The tables of a release, each derived by one function, and the checks that a release must pass.

The column names are an interface: other people's scripts rely on them. Rows are ordered by key, never by arrival, so
that the same study gives the same file whenever and however its returns came in.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import numpy as np
import pandas as pd

from study.instruments import MISSING_REASONS, Instrument
from study.protocol import Study
from study.scoring import derive_people, derive_scores
from study.validation import derive_response_schema

NOT_ALLOCATED = "not_allocated"
NOT_RECORDED = "not_recorded"
RECORD_KEY = ["participant_id", "wave", "respondent", "instrument"]

_DTYPES = {"text": "str", "number": "float64", "date": "datetime64[us]"}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a released table. Numbers are doubles; a date has no time of day.

    `codes`: the list of the codebook that its codes are from, "" for none. `levels`: what its numbers mean.
    `reason`: the column beside it that says why a value is missing, "" where none does. `note`: how it is made, where
    the label does not say so.
    """

    name: str
    type: Literal["text", "number", "date"]
    label: str
    codes: str = ""
    levels: tuple[tuple[int, str], ...] = ()
    reason: str = ""
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A released table: its columns in their order, and those that name a row."""

    name: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def column_names(self) -> list[str]:
        return [column.name for column in self.columns]

    def shape(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The table's columns of a frame, in the table's order and types; an empty frame is typed too."""
        shaped = frame[self.column_names]
        types = {column.name: _DTYPES[column.type] for column in self.columns}
        held = dict(zip(self.column_names, shaped.dtypes, strict=True))
        return shaped.astype({name: type_ for name, type_ in types.items() if str(held[name]) != type_})


_PARTICIPANT_ID = Column("participant_id", "text", "Pseudonymous identifier of the participant")
_WAVE = Column(
    "wave", "text", "Wave of the protocol, or an unscheduled occasion by the name that its source gave it", codes="wave"
)
_RESPONDENT = Column("respondent", "text", "Who answered", codes="respondent")
_INSTRUMENT = Column("instrument", "text", "Instrument")
_COLLECTED_ON = Column("collected_on", "date", "Date on which the answers were given")
_RETURN_ID = Column("return_id", "text", "Sending that brought the answers: site, posting date, number")
_FORM = Column("form", "text", "Version of the questionnaire", codes="form")
_MISSING_REASON = Column(
    "missing_reason", "text", "Why there is no value; empty where there is one", codes="missing_reason"
)

PARTICIPANTS = Table(
    "participants",
    ("participant_id",),
    (
        _PARTICIPANT_ID,
        Column("site", "text", "Site that the participant belongs to", codes="site"),
        Column("arm", "text", "Arm allocated to; empty where the person was never allocated", codes="arm"),
        Column("cohort", "text", "Service-user group", codes="cohort"),
        Column("consented_on", "date", "Date on which consent was first signed"),
        Column(
            "disposition",
            "text",
            "How the person left the study or a part of it, or that they completed it",
            codes="disposition",
        ),
        Column("disposition_on", "date", "Date of the disposition"),
        Column("screened_on", "date", "Date on which the site considered the person for the study"),
        Column("consent_basis", "text", "Whether the date of consent was observed", codes="consent_basis"),
        Column("allocated_on", "date", "Date of allocation to an arm"),
        Column("disposition_scope", "text", "What the person left", codes="disposition_scope"),
    ),
)
RESPONSES = Table(
    "responses",
    ("participant_id", "wave", "respondent", "instrument", "item"),
    (
        *(_PARTICIPANT_ID, _WAVE, _RESPONDENT, _INSTRUMENT),
        Column("item", "text", "Item of the instrument"),
        Column("response", "number", "Answer: the number of its level, or as measured", reason="missing_reason"),
        *(_MISSING_REASON, _COLLECTED_ON, _RETURN_ID, _FORM),
    ),
)
SCORES = Table(
    "scores",
    ("participant_id", "wave", "respondent", "instrument", "scale"),
    (
        *(_PARTICIPANT_ID, _WAVE, _RESPONDENT, _INSTRUMENT),
        Column("scale", "text", "Scale of the instrument"),
        Column("score", "number", "Score by the rule of the instrument's definition", reason="missing_reason"),
        *(_MISSING_REASON, _COLLECTED_ON, _RETURN_ID, _FORM),
    ),
)
TABLES = {table.name: table for table in (PARTICIPANTS, RESPONSES, SCORES)}


class ReleaseFault(ValueError):
    """Why a dataset may not be released: every reason, one sentence each, and never a respondent's answer."""

    def __init__(self, faults: Collection[str]) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(self.faults))


# The tables ---------------------------------------------------------------------------------------------------------


def derive_participants_table(participants: pd.DataFrame) -> pd.DataFrame:
    """One row per person screened, from `state.derive_participants`: PARTICIPANTS, ordered by participant_id."""
    return PARTICIPANTS.shape(participants.rename(columns={"site_id": "site"})).sort_values(
        "participant_id", ignore_index=True
    )


def derive_responses_table(
    returns: pd.DataFrame, answers: pd.DataFrame, study: Study, instruments: Mapping[str, Instrument]
) -> pd.DataFrame:
    """One row per item of every accepted record: RESPONSES.

    `returns`: current accepted records (RECORD_KEY, return_id, responses_sha256). `answers`: the long answers of the
    files that brought them, with the same keys. An answer counts only where its own file's record is the current one,
    so a superseded answer never gets in.
    """
    keys = [*RECORD_KEY, "return_id", "responses_sha256"]
    table = RESPONSES.shape(answers.merge(returns[keys], on=keys))
    return _sort_by_key(table, study, instruments, "item")


def derive_scores_table(responses: pd.DataFrame, study: Study, instruments: Mapping[str, Instrument]) -> pd.DataFrame:
    """One row per scale of every record of `responses`: SCORES; scored by each instrument's own definition.

    `responses` must have passed `find_response_faults`. An item of which a record says nothing (the instrument gained
    it later) is not_returned, so that no rule takes it for one that routing skipped. Scores by age and sex take them
    from the questionnaires among `responses` that tell them.
    """
    parts = [SCORES.shape(pd.DataFrame(columns=SCORES.column_names))]
    for instrument_id, rows in responses.groupby("instrument", sort=True):
        instrument = instruments[str(instrument_id)]
        record, records = _find_records(rows)
        item = pd.Index(instrument.item_ids).get_indexer(pd.Index(rows["item"]))
        values = np.full((len(records), len(instrument.item_ids)), np.nan)
        values[record, item] = rows["response"]
        reasons = np.full(values.shape, "not_returned", dtype=object)
        reasons[record, item] = rows["missing_reason"].fillna("")
        wide = pd.DataFrame(values, columns=instrument.item_ids)
        people = derive_people(records, responses, instruments) if instrument.covariates else None
        scores = derive_scores(instrument, wide, pd.DataFrame(reasons, columns=instrument.item_ids), people)
        scores["missing_reason"] = scores["missing_reason"].astype("str").where(scores["missing_reason"] != "")
        parts.append(SCORES.shape(scores.join(records)))
    return _sort_by_key(pd.concat(parts, ignore_index=True), study, instruments, "scale")


def _find_records(rows: pd.DataFrame) -> tuple[np.ndarray[Any, np.dtype[np.intp]], pd.DataFrame]:
    """Which record each row of one instrument belongs to, and the records by that number."""
    number = rows.groupby(RECORD_KEY, sort=False).ngroup().to_numpy().astype(np.intp)
    records = rows.loc[~pd.Series(number, rows.index).duplicated(), [*RECORD_KEY, "form", "collected_on", "return_id"]]
    return number, records.reset_index(drop=True)


def _sort_by_key(
    table: pd.DataFrame, study: Study, instruments: Mapping[str, Instrument], leaf: Literal["item", "scale"]
) -> pd.DataFrame:
    """Rows by participant, wave (the protocol's order, then unscheduled ones by name), respondent, instrument, and
    item or scale in the order of its definition."""
    place = {
        (instrument.id, name): place
        for instrument in instruments.values()
        for place, name in enumerate(instrument.item_ids if leaf == "item" else instrument.scale_ids)
    }
    names, leaves = pd.factorize(table[leaf]), pd.factorize(table["instrument"], sort=True)
    # The place of each pair that occurs, looked up once per pair and not once per row.
    pair = names[0].astype(np.int64) * (len(leaves[1]) + 1) + leaves[0]
    pairs, which = np.unique(pair, return_inverse=True)
    places = [
        place.get((leaves[1][code % (len(leaves[1]) + 1)], names[1][code // (len(leaves[1]) + 1)]), len(place))
        for code in pairs
    ]
    keys = [
        np.array(places, dtype=np.int64)[which] if len(pairs) else np.empty(0, dtype=np.int64),
        leaves[0],
        pd.factorize(table["respondent"], sort=True)[0],
        find_wave_places(table["wave"], study),
        pd.factorize(table["participant_id"], sort=True)[0],
    ]
    return table.iloc[np.lexsort(keys)].reset_index(drop=True)


def find_wave_places(waves: pd.Series, study: Study) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The place of each wave for sorting: the protocol's order, then unscheduled occasions by name."""
    codes, names = pd.factorize(waves)
    planned = [wave.id for wave in study.waves]
    order = [*planned, *sorted(set(names) - set(planned))]
    places = np.array([order.index(name) for name in names], dtype=np.int64)
    return places[codes] if len(codes) else np.empty(0, dtype=np.int64)


# What a release must be ---------------------------------------------------------------------------------------------


def find_participant_faults(participants: pd.DataFrame, study: Study) -> list[str]:
    """What is wrong with the participants table: keys that repeat, codes that the protocol in force does not have."""
    known = {
        "site": [site.site_id for site in study.sites],
        "arm": [arm.id for arm in study.arms],
        "cohort": [cohort.id for cohort in study.cohorts],
        "disposition": [reason.id for reason in study.disposition_reasons],
    }
    return [*_find_key_faults(PARTICIPANTS, participants), *_find_strange_codes(PARTICIPANTS, participants, known)]


def find_response_faults(
    responses: pd.DataFrame,
    participants: pd.DataFrame,
    returns: pd.DataFrame,
    study: Study,
    instruments: Mapping[str, Instrument],
    as_of: date,
) -> list[str]:
    """What is wrong with the responses table, by column and count, without values.

    Keys that repeat or are blank; people who are not in `participants`; codes without a definition; a value and a
    reason for having none, or neither; answers later than `as_of`; values that break the schema generated from their
    instrument; records of the ledger (`returns`, current: RECORD_KEY, n_items, n_answered) whose answers are not all
    there. Answers were checked when they came in: a fault here means that a definition or the pipeline has changed.
    """
    known: dict[str, Collection[str]] = {"instrument": instruments, "respondent": study.respondents}
    known |= {"form": study.forms, "missing_reason": MISSING_REASONS}
    if not study.accepts_unscheduled:
        known["wave"] = [wave.id for wave in study.waves]
    faults = [*_find_key_faults(RESPONSES, responses), *_find_strange_codes(RESPONSES, responses, known)]
    faults += _find_strangers(RESPONSES, responses, participants)
    faults += _find_unexplained(RESPONSES, responses, "response")
    late = int((~(responses["collected_on"] <= pd.Timestamp(as_of))).sum())
    if late:
        faults.append(f"responses.collected_on: {late} rows are dated after {as_of}, or not at all.")
    if not faults:  # a table whose keys don't hold can't be laid out by record
        faults += _find_lost_answers(responses, returns)
        faults += find_schema_faults(responses, instruments)
    return faults


def find_score_faults(scores: pd.DataFrame, participants: pd.DataFrame) -> list[str]:
    """What is wrong with the scores table: keys that repeat, strangers, a value and a reason for having none."""
    return [
        *_find_key_faults(SCORES, scores),
        *_find_strange_codes(SCORES, scores, {"missing_reason": MISSING_REASONS}),
        *_find_strangers(SCORES, scores, participants),
        *_find_unexplained(SCORES, scores, "score"),
    ]


def _find_key_faults(table: Table, frame: pd.DataFrame) -> list[str]:
    key, faults = list(table.key), []
    if n_blank := int(frame[key].isna().any(axis="columns").sum()):
        faults.append(f"{table.name}: {n_blank} rows have a blank in their key ({', '.join(key)}).")
    if n_repeated := int(frame.duplicated(key).sum()):
        faults.append(f"{table.name}: {n_repeated} rows repeat the key of another ({', '.join(key)}).")
    return faults


def _find_strange_codes(table: Table, frame: pd.DataFrame, known: Mapping[str, Collection[str]]) -> list[str]:
    return [
        f"{table.name}.{column}: {n} rows have a code that the definitions in force do not know. Put it back into "
        "them, or void what was recorded with it."
        for column, codes in known.items()
        if (n := int((frame[column].notna() & ~frame[column].isin(list(codes))).sum()))
    ]


def _find_strangers(table: Table, frame: pd.DataFrame, participants: pd.DataFrame) -> list[str]:
    n_strangers = int((~frame["participant_id"].isin(participants["participant_id"])).sum())
    return [f"{table.name}: {n_strangers} rows belong to nobody in participants."] if n_strangers else []


def _find_unexplained(table: Table, frame: pd.DataFrame, value: str) -> list[str]:
    n = int((frame[value].isna() == frame["missing_reason"].isna()).sum())
    return [f"{table.name}: {n} rows have both a {value} and a missing_reason, or neither of the two."] if n else []


def _find_lost_answers(responses: pd.DataFrame, returns: pd.DataFrame) -> list[str]:
    """Records whose rows or answers are not as many as the ledger says were accepted."""
    held = responses.groupby(RECORD_KEY, sort=False)["response"].agg(n_items="size", n_answered="count").reset_index()
    both = returns[[*RECORD_KEY, "n_items", "n_answered"]].merge(held, on=RECORD_KEY, how="outer", suffixes=("", "_"))
    n_differing = int(((both["n_items"] != both["n_items_"]) | (both["n_answered"] != both["n_answered_"])).sum())
    if not n_differing:
        return []
    return [f"responses: {n_differing} records do not hold as many answers as the ledger says were accepted."]


def find_schema_faults(responses: pd.DataFrame, instruments: Mapping[str, Instrument]) -> list[str]:
    """Where released answers break the schema generated from their instrument: instrument, item, check and count.

    Needs unique keys and known instruments. pandera's own message would show the answers; it goes no further.
    """
    from pandera.errors import SchemaErrors  # takes a moment to import, and only freezing needs it

    faults = []
    for instrument_id, rows in responses.groupby("instrument", sort=True):
        instrument = instruments[str(instrument_id)]
        record, records = _find_records(rows)
        item = pd.Index(instrument.item_ids).get_indexer(pd.Index(rows["item"]))
        if n_strange := int((item < 0).sum()):
            faults.append(f"{instrument_id}: {n_strange} answers belong to an item that its definition does not have.")
        values = np.full((len(records), len(instrument.item_ids)), np.nan)
        values[record[item >= 0], item[item >= 0]] = rows["response"][item >= 0]
        try:
            derive_response_schema(instrument).validate(
                pd.DataFrame(values, columns=list(instrument.item_ids)), lazy=True
            )
        except SchemaErrors as errors:
            cases = errors.failure_cases
        else:
            continue
        # A check of routing looks at two columns, and pandera lists a row once for every column of the frame.
        cases = cases.assign(column=cases["column"].where(cases["schema_context"] == "Column", ""))
        for (column, check), n in cases.groupby(["column", "check"])["index"].nunique().items():
            place = f"{instrument_id}.{column}" if column else str(instrument_id)
            faults.append(f"{place}: {n} records break the rule {check}.")
    return faults


# What a report counts -----------------------------------------------------------------------------------------------


def derive_attendance(responses: pd.DataFrame, participants: pd.DataFrame, study: Study) -> pd.DataFrame:
    """People with an accepted questionnaire, by instrument and wave (rows) and arm (columns), and their total.

    Columns instrument, wave, one per arm, not_allocated where there is anyone, total. A wave at which the protocol
    asks for the instrument has a row even if nobody answered, as long as anybody did at another one. Attendance is no
    sum rule: people miss a wave and come back.
    """
    records = responses[["participant_id", "wave", "instrument"]].drop_duplicates()
    records = records.merge(participants[["participant_id", "arm"]], on="participant_id")
    used = set(records["instrument"])
    scheduled = {(entry.instrument, wave) for entry in study.schedule for wave in entry.waves}
    seen = set(zip(records["instrument"], records["wave"], strict=True))
    keys = sorted(seen | {pair for pair in scheduled if pair[0] in used})
    counts = _count_by_arm(records, ["instrument", "wave"], pd.MultiIndex.from_tuples(keys), study) if keys else None
    if counts is None:
        arms = [arm.id for arm in study.arms]
        return pd.DataFrame(columns=["instrument", "wave", *arms, "total"])
    if not counts[NOT_ALLOCATED].any():
        counts = counts.drop(columns=NOT_ALLOCATED)
    table = counts.reset_index(names=["instrument", "wave"])
    instruments = {name: place for place, name in enumerate(study.instruments)}
    order = pd.DataFrame(
        {"instrument": table["instrument"].map(instruments), "wave": find_wave_places(table["wave"], study)}
    )
    return table.loc[order.sort_values(list(order.columns)).index].reset_index(drop=True)


def _count_by_arm(people: pd.DataFrame, by: list[str], index: pd.Index[Any], study: Study) -> pd.DataFrame:
    """Rows of `people` by `by` (exactly the rows of `index`) and arm, with not_allocated and total."""
    arms = people["arm"].fillna(NOT_ALLOCATED)
    counts = people.assign(arm=arms).groupby([*by, "arm"]).size().unstack(fill_value=0)
    counts = counts.reindex(index=index, columns=[*(arm.id for arm in study.arms), NOT_ALLOCATED], fill_value=0)
    counts = counts.fillna(0).astype(int).rename_axis(columns=None)
    counts["total"] = counts.sum(axis="columns")
    return counts


def derive_dispositions(participants: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Everyone screened, by disposition (rows) and arm (columns); people never allocated in a column of their own.

    Columns disposition, one per arm, not_allocated, total. Every reason that the protocol names has a row, a zero row
    too; `not_recorded` counts those of whom nothing of the kind is recorded.
    """
    reasons = [*(reason.id for reason in study.disposition_reasons), NOT_RECORDED]
    people = participants.assign(disposition=participants["disposition"].fillna(NOT_RECORDED))
    counts = _count_by_arm(people, ["disposition"], pd.Index(reasons, name="disposition"), study)
    return counts.reset_index()


def derive_means(scores: pd.DataFrame, participants: pd.DataFrame, study: Study) -> pd.DataFrame:
    """n, mean and standard deviation of every scale over those with a score, by respondent, wave and arm.

    Columns instrument, scale, respondent, wave, arm, n, mean, sd (missing for one person); in the order of the
    protocol's instruments, the scales as `scores` has them, and the waves. A proxy's score is no answer of the person
    themselves, so respondents are kept apart. People never allocated are in no arm and so not here.
    """
    table = scores.merge(participants[["participant_id", "arm"]], on="participant_id").dropna(subset=["score", "arm"])
    keys = ["instrument", "scale", "respondent", "wave", "arm"]
    means = table.groupby(keys, sort=False)["score"].agg(n="size", mean="mean", sd="std").reset_index()
    instruments = {name: place for place, name in enumerate(study.instruments)}
    pairs = dict.fromkeys(zip(scores["instrument"], scores["scale"], strict=True))
    scales = {pair: place for place, pair in enumerate(pairs)}
    arms = {arm.id: place for place, arm in enumerate(study.arms)}
    order = pd.DataFrame(
        {
            "instrument": means["instrument"].map(instruments),
            "scale": [scales[pair] for pair in zip(means["instrument"], means["scale"], strict=True)],
            "respondent": means["respondent"],
            "wave": find_wave_places(means["wave"], study),
            "arm": means["arm"].map(arms),
        }
    )
    return means.loc[order.sort_values(list(order.columns)).index].reset_index(drop=True)


def derive_missing_answers(responses: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Answers by instrument: instrument, n_items, n_answered, and one column for each missing reason, in its order."""
    answers = responses["response"].notna().groupby(responses["instrument"]).agg(n_items="size", n_answered="sum")
    reasons = responses.groupby(["instrument", "missing_reason"]).size().unstack(fill_value=0)
    table: pd.DataFrame = answers.join(reasons.reindex(columns=list(MISSING_REASONS), fill_value=0))
    table = table.fillna(0).astype(int)
    return table.reindex([name for name in study.instruments if name in table.index]).reset_index(names="instrument")


def derive_answered_after_leaving(responses: pd.DataFrame, dispositions: pd.DataFrame) -> pd.DataFrame:
    """People with answers collected after the date on which they left treatment: participant_id, reason, left_on,
    last_collected_on. `dispositions`: from `state.derive_dispositions`, of any scope.

    Leaving treatment is not leaving the questionnaires, so their answers stay.
    """
    last = responses.groupby("participant_id")["collected_on"].max().rename("last_collected_on").reset_index()
    left = dispositions[dispositions["scope"] == "treatment"].rename(columns={"occurred_on": "left_on"})
    table = left[["participant_id", "reason", "left_on"]].merge(last, on="participant_id")
    return table[table["last_collected_on"] > table["left_on"]].reset_index(drop=True)


def derive_site_counts(
    participants: pd.DataFrame, responses: pd.DataFrame, files: pd.DataFrame, queries: pd.DataFrame, study: Study
) -> pd.DataFrame:
    """What came from each site, one row per site of the study: site, n_screened, n_allocated, n_questionnaires (in
    this release), n_files, n_quarantined, n_refused (records), n_queries, n_open.

    `files` and `queries`: from `state.derive_files` and `state.derive_queries`, as of the release's date.
    """
    records = responses[RECORD_KEY].drop_duplicates()
    of_records = records["participant_id"].map(participants.set_index("participant_id")["site"])
    counts = {
        "n_screened": participants["site"].value_counts(),
        "n_allocated": participants.loc[participants["arm"].notna(), "site"].value_counts(),
        "n_questionnaires": of_records.value_counts(),
        "n_files": files["site_id"].value_counts(),
        "n_quarantined": files.loc[files["outcome"] == "quarantined", "site_id"].value_counts(),
        "n_refused": files.groupby("site_id")["n_refused"].sum(),
        "n_queries": queries["site_id"].value_counts(),
        "n_open": queries.loc[queries["status"] == "open", "site_id"].value_counts(),
    }
    sites = pd.Index([site.site_id for site in study.sites], name="site")
    return pd.DataFrame({name: n.reindex(sites).fillna(0).astype(int) for name, n in counts.items()}).reset_index()
