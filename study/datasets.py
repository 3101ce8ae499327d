"""The tables of a release, each derived by one function, and the checks that a release must pass.

The column names are an interface: other people's scripts rely on them. Rows are ordered by key, never by arrival, so
that the same study gives the same file whenever and however its returns came in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from study.instruments import MISSING_REASONS
from study.protocol import Study

NOT_ALLOCATED = "not_allocated"
NOT_RECORDED = "not_recorded"
RECORD_KEY = ["participant_id", "wave", "respondent", "instrument"]

ROWS_AT_ONCE = 2**18
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
        """The table's columns of a frame, in the table's order and types, categories by their words; an empty frame is
        typed too."""
        shaped = frame[self.column_names]
        types = {column.name: _DTYPES[column.type] for column in self.columns}
        held = dict(zip(self.column_names, shaped.dtypes, strict=True))
        for name in (name for name, type_ in held.items() if isinstance(type_, pd.CategoricalDtype)):
            shaped[name] = shaped[name].cat.categories.array.take(shaped[name].cat.codes.to_numpy(), allow_fill=True)
        return shaped.astype({name: type_ for name, type_ in types.items() if str(held[name]) != type_})


@dataclass(frozen=True)
class TableRows:
    """A released table as what is written of it needs it: some rows at a time, so that the largest is never held whole.

    `read`: the rows from one place to another, in the layout's columns; text may be categories. `find_texts`: the
    different texts of a column.
    """

    table: Table
    n_rows: int
    read: Callable[[int, int], pd.DataFrame]
    find_texts: Callable[[str], Iterable[str]]

    @classmethod
    def of(cls, table: Table, frame: pd.DataFrame) -> TableRows:
        """`frame`: the whole table; text may be categories."""
        return cls(
            table,
            len(frame),
            lambda start, stop: table.shape(frame.iloc[start:stop]),
            lambda name: frame[name].dropna().unique(),
        )

    def read_blocks(self) -> Iterator[pd.DataFrame]:
        """Every row, at most ROWS_AT_ONCE together; one empty block where there are none."""
        for start in range(0, max(self.n_rows, 1), ROWS_AT_ONCE):
            yield self.read(start, min(start + ROWS_AT_ONCE, self.n_rows))

    def read_all(self) -> pd.DataFrame:
        """The whole table, in its layout's types."""
        return self.table.shape(self.read(0, self.n_rows)).reset_index(drop=True)


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


# What a report counts -----------------------------------------------------------------------------------------------


def derive_attendance(records: pd.DataFrame, participants: pd.DataFrame, study: Study) -> pd.DataFrame:
    """People with an accepted questionnaire, by instrument and wave (rows) and arm (columns), and their total.

    Columns instrument, wave, one per arm, not_allocated where there is anyone, total. A wave at which the protocol
    asks for the instrument has a row even if nobody answered, as long as anybody did at another one. Attendance is no
    sum rule: people miss a wave and come back.
    """
    records = (
        records[["participant_id", "wave", "instrument"]]
        .drop_duplicates()
        .merge(participants[["participant_id", "arm"]], on="participant_id")
    )
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
    keys = ["instrument", "scale", "respondent", "wave"]
    person = pd.Index(participants["participant_id"]).get_indexer(pd.Index(scores["participant_id"]))
    arm = pd.Categorical(participants["arm"]).take(person, allow_fill=True)
    table = scores[[*keys, "score"]].assign(arm=arm).dropna(subset=["score", "arm"])
    groups = table.groupby([*keys, "arm"], sort=False, observed=True)["score"]
    means = groups.agg(n="size", mean="mean", sd="std").reset_index().astype(dict.fromkeys([*keys, "arm"], "str"))
    instruments = {name: place for place, name in enumerate(study.instruments)}
    pairs = scores[["instrument", "scale"]].drop_duplicates().itertuples(index=False, name=None)
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


def derive_missing_answers(records: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Answers by instrument: instrument, n_items, n_answered, and one column for each missing reason, in its order.
    `records`: from `study.answers`, with their counts."""
    counts = ["n_items", "n_answered", *(f"n_{reason}" for reason in MISSING_REASONS)]
    table = records.groupby("instrument")[counts].sum().rename(columns={f"n_{name}": name for name in MISSING_REASONS})
    return table.reindex([name for name in study.instruments if name in table.index]).reset_index(names="instrument")


def derive_answered_after_leaving(records: pd.DataFrame, dispositions: pd.DataFrame) -> pd.DataFrame:
    """People with answers collected after the date on which they left treatment: participant_id, reason, left_on,
    last_collected_on. `dispositions`: from `state.derive_dispositions`, of any scope.

    Leaving treatment is not leaving the questionnaires, so their answers stay.
    """
    last = records.groupby("participant_id")["collected_on"].max().rename("last_collected_on").reset_index()
    left = dispositions[dispositions["scope"] == "treatment"].rename(columns={"occurred_on": "left_on"})
    table = left[["participant_id", "reason", "left_on"]].merge(last, on="participant_id")
    return table[table["last_collected_on"] > table["left_on"]].reset_index(drop=True)


def derive_site_counts(
    participants: pd.DataFrame, records: pd.DataFrame, files: pd.DataFrame, queries: pd.DataFrame, study: Study
) -> pd.DataFrame:
    """What came from each site, one row per site of the study: site, n_screened, n_allocated, n_questionnaires (in
    this release), n_files, n_quarantined, n_refused (records), n_queries, n_open.

    `records`: from `study.answers`. `files` and `queries`: from `state.derive_files` and `state.derive_queries`, as of
    the release's date.
    """
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
