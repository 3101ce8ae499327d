"""The tables of a release, each derived by one function, and the checks that a release must pass.

The column names are an interface: other people's scripts rely on them. Rows are ordered by key, never by arrival, so
that the same study gives the same file whenever and however its returns came in.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from pandera.errors import SchemaErrors

from study.instruments import Instrument
from study.protocol import Study
from study.scoring import derive_scores
from study.validation import derive_response_schema

PARTICIPANT_COLUMNS = [
    "participant_id", "site", "cohort", "arm", "screened_on", "consented_on", "consent_basis", "allocated_on",
    "disposition", "disposition_scope", "disposition_on",
]  # fmt: skip
RESPONSE_COLUMNS = [
    "participant_id", "wave", "respondent", "form", "instrument", "item", "response", "missing_reason", "collected_on",
    "return_id",
]  # fmt: skip
SCORE_COLUMNS = [
    "participant_id", "wave", "respondent", "form", "instrument", "scale", "score", "missing_reason", "collected_on",
    "return_id",
]  # fmt: skip

COLUMN_LABELS: Mapping[str, str] = {
    "participant_id": "Pseudonymous identifier of the participant",
    "site": "Site that the participant belongs to",
    "cohort": "Service-user group",
    "arm": "Arm allocated to; missing where the person was never allocated",
    "screened_on": "Date on which the site considered the person for the study",
    "consented_on": "Date on which consent was signed",
    "consent_basis": "signed: as the site's consent log says; assumed: declared by the replay, not observed",
    "allocated_on": "Date of allocation to an arm",
    "disposition": "How the person left the study or a part of it, or that they completed it",
    "disposition_scope": "What they left: treatment, questionnaires, or the study",
    "disposition_on": "Date of that",
    "wave": "Wave of the protocol, or the name of an unscheduled occasion as its source gave it",
    "respondent": "Who answered: self, proxy, carer, manager",
    "form": "Version of the questionnaire: standard, easy_read",
    "instrument": "Instrument",
    "item": "Item of the instrument",
    "response": "Answer, as the number of its level or as measured; missing where missing_reason says why",
    "missing_reason": "Why there is no value; missing where there is one",
    "collected_on": "Date on which the answers were given",
    "return_id": "Sending that brought the answers: site, posting date, number",
    "scale": "Scale of the instrument",
    "score": "Score by the rule of the instrument's definition",
}


class ReleaseFault(ValueError):
    """Why a dataset may not be released; never a respondent's answer."""


def derive_participants_table(participants: pd.DataFrame) -> pd.DataFrame:
    """One row per person screened, from `state.derive_participants`: PARTICIPANT_COLUMNS, ordered by participant_id."""
    table = participants.rename(columns={"site_id": "site"})[PARTICIPANT_COLUMNS]
    return table.sort_values("participant_id", ignore_index=True)


def derive_responses_table(
    returns: pd.DataFrame, answers: pd.DataFrame, study: Study, instruments: Mapping[str, Instrument]
) -> pd.DataFrame:
    """One row per item of every accepted record: RESPONSE_COLUMNS.

    `returns`: current accepted records (participant_id, respondent, wave, instrument, return_id, responses_sha256).
    `answers`: the long answers of the files that brought them, with the same keys. An answer counts only where its own
    file's record is the current one, so a superseded answer never gets in.
    """
    keys = ["participant_id", "respondent", "wave", "instrument", "return_id", "responses_sha256"]
    table = answers.merge(returns[keys], on=keys, how="inner", validate="many_to_one")
    return _sort_long(table, study, instruments, "item")[RESPONSE_COLUMNS]


def derive_scores_table(
    responses: pd.DataFrame, study: Study, instruments: Mapping[str, Instrument]
) -> pd.DataFrame:
    """One row per scale of every accepted record: SCORE_COLUMNS; scored by each instrument's own definition."""
    record = ["participant_id", "wave", "respondent", "form", "instrument", "collected_on", "return_id"]
    scored = []
    for instrument_id, rows in responses.groupby("instrument", sort=True):
        instrument = instruments[str(instrument_id)]
        records = rows[record].drop_duplicates(ignore_index=True)
        position = rows[record].merge(records.assign(position=records.index), on=record)["position"].to_numpy()
        rows = rows.assign(position=position)
        wide = rows.pivot(index="position", columns="item", values="response").reindex(columns=instrument.item_ids)
        reasons = rows.pivot(index="position", columns="item", values="missing_reason")
        reasons = reasons.reindex(columns=instrument.item_ids).fillna("")
        scores = derive_scores(instrument, wide, reasons)
        scored.append(scores.join(records))
    if not scored:
        return pd.DataFrame(columns=SCORE_COLUMNS)
    table = pd.concat(scored, ignore_index=True)
    table["missing_reason"] = table["missing_reason"].where(table["missing_reason"] != "")
    return _sort_long(table, study, instruments, "scale")[SCORE_COLUMNS]


def _sort_long(
    table: pd.DataFrame, study: Study, instruments: Mapping[str, Instrument], leaf: str
) -> pd.DataFrame:
    """Rows by participant, wave (the protocol's order, then unscheduled ones by name), respondent, instrument, leaf."""
    waves = {wave.id: place for place, wave in enumerate(study.waves)}
    leaves = {
        (instrument.id, name): place
        for instrument in instruments.values()
        for place, name in enumerate(instrument.item_ids if leaf == "item" else instrument.scale_ids)
    }
    order = pd.DataFrame(
        {
            "participant_id": table["participant_id"],
            "wave_place": table["wave"].map(waves).fillna(len(waves)),
            "wave": table["wave"],
            "respondent": table["respondent"],
            "instrument": table["instrument"],
            "leaf": pd.MultiIndex.from_frame(table[["instrument", leaf]]).map(leaves),
        }
    )
    return table.loc[order.sort_values(list(order)).index].reset_index(drop=True)


def derive_attendance(responses: pd.DataFrame, participants: pd.DataFrame, study: Study) -> pd.DataFrame:
    """People who answered, by instrument and wave (rows) and arm (columns), with a total.

    Attendance does not fall steadily: people come back, so no row is the remainder of the one before.
    """
    records = responses[["participant_id", "wave", "instrument"]].drop_duplicates()
    records = records.merge(participants[["participant_id", "arm"]], on="participant_id", how="left")
    records["arm"] = records["arm"].fillna("not_allocated")
    counts = records.groupby(["instrument", "wave", "arm"]).size().unstack(fill_value=0)
    arms = [arm.id for arm in study.arms]
    counts = counts.reindex(columns=arms + (["not_allocated"] if "not_allocated" in counts else []), fill_value=0)
    counts["total"] = counts.sum(axis=1)
    table = counts.reset_index()
    waves = {wave.id: place for place, wave in enumerate(study.waves)}
    table["wave_place"] = table["wave"].map(waves).fillna(len(waves))
    table = table.sort_values(["instrument", "wave_place", "wave"], ignore_index=True).drop(columns="wave_place")
    return table.rename_axis(columns=None)


def derive_dispositions(participants: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Everyone screened, by disposition (rows) and arm (columns); people never allocated in a column of their own.

    Every reason that the protocol names has a row, a zero row too; `not_recorded` counts those still in the study.
    """
    reasons = [reason.id for reason in study.disposition_reasons]
    table = participants.assign(
        arm=participants["arm"].fillna("not_allocated"), disposition=participants["disposition"].fillna("not_recorded")
    )
    counts = table.groupby(["disposition", "arm"]).size().unstack(fill_value=0)
    columns = [*(arm.id for arm in study.arms), "not_allocated"]
    counts = counts.reindex(index=[*reasons, "not_recorded"], columns=columns, fill_value=0).fillna(0).astype(int)
    counts["total"] = counts.sum(axis=1)
    return counts.rename_axis(index="disposition", columns=None).reset_index()


def derive_means(scores: pd.DataFrame, participants: pd.DataFrame, study: Study) -> pd.DataFrame:
    """n, mean and standard deviation of every scale, by wave and arm, over those with a score.

    Columns instrument, scale, wave, arm, n, mean, sd; in the order of the instruments, their scales and the waves.
    """
    table = scores.merge(participants[["participant_id", "arm"]], on="participant_id")
    keys = ["instrument", "scale", "wave", "arm"]
    means = table.dropna(subset=["score"]).groupby(keys, sort=False)["score"].agg(n="size", mean="mean", sd="std")
    means = means.reset_index()
    waves = {wave.id: place for place, wave in enumerate(study.waves)}
    scales = {key: place for place, key in enumerate(dict.fromkeys(zip(scores["instrument"], scores["scale"], strict=True)))}
    instruments = {name: place for place, name in enumerate(study.instruments)}
    order = pd.DataFrame(
        {
            "instrument": means["instrument"].map(instruments),
            "scale": [scales[key] for key in zip(means["instrument"], means["scale"], strict=True)],
            "wave_place": means["wave"].map(waves).fillna(len(waves)),
            "wave": means["wave"],
            "arm": means["arm"],
        }
    )
    return means.loc[order.sort_values(list(order)).index].reset_index(drop=True)


def derive_answered_after_leaving(responses: pd.DataFrame, participants: pd.DataFrame) -> pd.DataFrame:
    """People with answers collected after the date on which they left treatment: participant_id, arm, disposition,
    disposition_on, last_collected_on. Leaving treatment is not leaving the questionnaires, so their answers stay."""
    last = responses.groupby("participant_id")["collected_on"].max().rename("last_collected_on").reset_index()
    left = participants[participants["disposition_scope"] == "treatment"]
    table = left.merge(last, on="participant_id")
    table = table[table["last_collected_on"] > table["disposition_on"]]
    return table[["participant_id", "arm", "disposition", "disposition_on", "last_collected_on"]].reset_index(drop=True)


def find_release_faults(
    participants: pd.DataFrame,
    responses: pd.DataFrame,
    scores: pd.DataFrame,
    study: Study,
    instruments: Mapping[str, Instrument],
) -> list[str]:
    """Every reason not to release these tables: keys that are not unique, strangers, values no definition allows.

    The tables come from checked returns, so a fault here means that the pipeline itself is wrong. Messages hold places
    and counts only.
    """
    faults = []
    for name, table, key in (
        ("participants", participants, ["participant_id"]),
        ("responses", responses, ["participant_id", "wave", "respondent", "instrument", "item"]),
        ("scores", scores, ["participant_id", "wave", "respondent", "instrument", "scale"]),
    ):
        if n_doubled := int(table.duplicated(key).sum()):
            faults.append(f"{name}: {n_doubled} rows share their key ({', '.join(key)}) with another row.")
    strangers = ~responses["participant_id"].isin(participants["participant_id"])
    if strangers.any():
        faults.append(f"responses: {int(strangers.sum())} rows belong to nobody in participants.")
    for name, table, value in (("responses", responses, "response"), ("scores", scores, "score")):
        unexplained = table[value].isna() == table["missing_reason"].isna()
        if unexplained.any():
            faults.append(
                f"{name}: {int(unexplained.sum())} rows have both a value and a missing_reason, or neither of the two."
            )
    sites = {site.site_id for site in study.sites}
    if not set(participants["site"]) <= sites:
        faults.append("participants: a site is not among the study's sites.")
    arms = {arm.id for arm in study.arms}
    if not set(participants["arm"].dropna()) <= arms:
        faults.append("participants: an arm is not among the study's arms.")
    for instrument_id, rows in responses.groupby("instrument", sort=True):
        if str(instrument_id) not in instruments:
            faults.append(f'responses: instrument "{instrument_id}" has no definition.')
    return faults


def find_schema_faults(responses: pd.DataFrame, instruments: Mapping[str, Instrument]) -> list[str]:
    """Where released answers break the schema generated from their instrument; by item, check and count, no values."""
    faults = []
    for instrument_id, rows in responses.groupby("instrument", sort=True):
        if str(instrument_id) not in instruments:
            continue
        instrument = instruments[str(instrument_id)]
        wide = rows.pivot(index=["participant_id", "wave", "respondent"], columns="item", values="response")
        wide = wide.reindex(columns=instrument.item_ids).reset_index(drop=True)
        try:
            derive_response_schema(instrument).validate(wide, lazy=True)
        except SchemaErrors as errors:
            cases = errors.failure_cases.groupby(["column", "check"]).size()
            faults += [f"{instrument_id}: {n} answers to {column} break {check}." for (column, check), n in cases.items()]
    return faults
