"""Answers as a release collects them, from a table RESPONSES."""

import datetime as dt
from collections.abc import Mapping

import pandas as pd
import pyarrow as pa

from study.analysis_tables import list_told_items
from study.answers import Answers, HeldAnswers, collect_answers
from study.datasets import RECORD_KEY
from study.instruments import Instrument
from study.protocol import Study
from study.returns import RESPONSE_COLUMNS
from tasks.returns import RESPONSES_SCHEMA


def list_records(responses: pd.DataFrame) -> pd.DataFrame:
    """The records of the ledger that these responses came from."""
    counts = responses.groupby(RECORD_KEY)["response"].agg(n_items="size", n_answered="count").reset_index()
    told = responses.drop_duplicates(RECORD_KEY)[[*RECORD_KEY, "return_id"]]
    return counts.merge(told, on=RECORD_KEY).assign(responses_sha256="a")


def collect(
    responses: pd.DataFrame,
    study: Study,
    instruments: Mapping[str, Instrument],
    returns: pd.DataFrame | None = None,
    people: pd.DataFrame | None = None,
    as_of: dt.date = dt.date(2100, 1, 1),
) -> tuple[Answers, list[str]]:
    """`collect_answers` of long rows, as if each file (by `responses_sha256`, else one) had been kept so. `returns`: by
    default those that the rows are of; `people`: whoever they are of."""
    rows = responses if "responses_sha256" in responses else responses.assign(responses_sha256="a")
    parts = [
        (str(sha256), pa.Table.from_pandas(own[RESPONSE_COLUMNS], RESPONSES_SCHEMA, preserve_index=False))
        for sha256, own in rows.groupby("responses_sha256")
    ]
    return collect_answers(
        list_records(responses) if returns is None else returns,
        lambda hashes: [part for part in parts if part[0] in hashes],
        responses[["participant_id"]] if people is None else people,
        study,
        instruments,
        as_of,
        HeldAnswers(),
        list_told_items(study, instruments),
    )


def hold(responses: pd.DataFrame, study: Study, instruments: Mapping[str, Instrument]) -> Answers:
    """`collect` of rows without faults."""
    answers, faults = collect(responses, study, instruments)
    assert faults == []
    return answers
