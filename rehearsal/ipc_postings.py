"""What each site of the IPC rehearsal posts, and when: the logs and questionnaires of its invented people.

A site can only tell of people for whom it has identifiers, and only collect what a pack asks for. Each thing is told in
the first posting from the day on which it can be; a mistake is mended in the first one after its query was dealt with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from rehearsal.ipc_people import Assumptions as Assumed
from rehearsal.ipc_people import People, find_stops, resolve_answers
from rehearsal.ipc_sites import (
    MISTAKES_OF_RECORDS,
    NAME_AS_ROLE,
    compute_days,
    compute_shares,
    derive_figures,
    find_answers,
    find_mistakes,
    list_posting_days,
    write_records,
)
from study.instruments import Instrument
from study.pack_layout import ACTIVITY, ALLOCATION, CONSENT, DISPOSITION, QUERIES, SCREENING
from study.protocol import Study

NO_ANSWER_AFTER = pd.Timedelta(days=60)
RECEIPT_AFTER = pd.Timedelta(days=4)  # from a Friday's posting to the Tuesday's round
_LAST = int(pd.Timestamp(2200, 1, 1).timestamp())
_APART = 2 * _LAST  # seconds between what is counted of one site and of the next
_POSTED = ["posted_on", "site_id"]


class Posting(NamedTuple):
    """A workbook that a site posts. `sheets`: rows by the code of the sheet; `pack_id`: of the newest pack there."""

    posted_on: date
    site_id: str
    pack_id: str
    sheets: Mapping[str, pd.DataFrame]

    @property
    def file_name(self) -> str:
        return f"rehearsal_{self.site_id}_{self.posted_on}.xlsx"


@dataclass(frozen=True)
class AtSites:
    """What has reached the sites, from packs, receipts and letters. Days are datetime64.

    identifiers: site_id, participant_id, had_on, in the order in which a site uses them. asked: participant_id, wave,
    respondent, instrument, form, opens_on, had_on, one row per record that is asked for. chased: participant_id,
    respondent, wave, chased_on, one row each. queries: query_id, site_id, participant_id, wave, respondent, instrument,
    raised_on. packs: site_id, pack_id, had_on.
    """

    identifiers: pd.DataFrame
    asked: pd.DataFrame
    chased: pd.DataFrame
    queries: pd.DataFrame
    packs: pd.DataFrame


class Sites:
    """The sites of one rehearsal: its people and assumptions, and the versions of the consent form as they will be in
    force (`versions`, as from `derive_document_versions`)."""

    def __init__(
        self,
        study: Study,
        instruments: Mapping[str, Instrument],
        people: People,
        assumptions: Assumed,
        versions: pd.DataFrame,
    ) -> None:
        self.study, self.instruments, self.people, self.assumptions = study, instruments, people, assumptions
        self.stops = find_stops(people)
        self.figures = derive_figures(study, assumptions)
        first, last = study.data_collection_starts_on, study.ends_on
        self.fridays = {
            site.site_id: np.array(list_posting_days(site.site_id, first, last, assumptions), "datetime64[s]")
            for site in study.sites
        }
        self.numbers = {site_id: number for number, site_id in enumerate(self.fridays)}
        # One site after the other, each with a day that never comes at its end: all are looked up at once.
        self.all_fridays = np.concatenate(
            [n * _APART + np.append(own.astype(np.int64), _LAST) for n, own in enumerate(self.fridays.values())]
        )
        self.form_versions = self._find_form_versions(versions)

    def derive_postings(self, there: AtSites, after: date, until: date) -> Iterator[Posting]:
        """What is posted on days later than `after` and up to `until`, by day and site."""
        if there.identifiers.empty:
            return
        persons = self._find_persons(there)
        records = self._find_records(persons, there)
        sheets = {
            SCREENING: self._tell_screening(persons),
            CONSENT: self._tell_consent(persons),
            ALLOCATION: self._tell_allocation(persons),
            DISPOSITION: self._tell_disposition(persons),
            ACTIVITY: self._tell_figures(persons),
            QUERIES: self._tell_answers(there, records),
        }
        first, last = pd.Timestamp(after), pd.Timestamp(until)

        def cut(frame: pd.DataFrame) -> pd.DataFrame:
            found: pd.DataFrame = frame[(frame["posted_on"] > first) & (frame["posted_on"] <= last)]
            return found

        told = {code: cut(frame) for code, frame in sheets.items()}
        told |= {str(code): cut(rows) for code, rows in records.groupby("instrument", sort=False)}
        filled = {code: self._write(code, frame) for code, frame in told.items() if len(frame)}
        if not filled:
            return
        own: dict[Any, dict[str, pd.DataFrame]] = {}
        for code, frame in filled.items():
            columns = frame.drop(columns=_POSTED)
            for key, places in frame.groupby(_POSTED).indices.items():
                own.setdefault(key, {})[code] = columns.iloc[places].reset_index(drop=True)
        for (day, site_id), posted in sorted(own.items(), key=lambda item: item[0]):
            packs = there.packs[(there.packs["site_id"] == site_id) & (there.packs["had_on"] <= day)]
            pack_id = str(packs["pack_id"].iloc[-1]) if len(packs) else ""
            yield Posting(day.date(), str(site_id), pack_id, posted)

    def _write(self, code: str, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows of a sheet as sites fill it in, each beside its day and site."""
        if code not in self.instruments:
            return rows
        parts = [
            write_records(self.instruments[code], own, self.assumptions, with_mistakes=not is_mended, beside=_POSTED)
            for is_mended, own in rows.groupby("is_mended", sort=True)
        ]
        return pd.concat(parts, ignore_index=True)

    # Who can be told of ----------------------------------------------------------------------------------------------

    def _find_persons(self, there: AtSites) -> pd.DataFrame:
        """People for whom the site has an identifier: the n-th approached gets the n-th."""
        identifiers = there.identifiers.assign(number=there.identifiers.groupby("site_id").cumcount() + 1)
        persons = self.people.persons.reset_index(names="person")
        return persons.merge(identifiers, on=["site_id", "number"]).assign(
            form_version=lambda frame: frame["person"].map(self.form_versions)
        )

    def _find_form_versions(self, versions: pd.DataFrame) -> pd.Series[Any]:
        """The version that each person signs: that of the day, or, of some, the one before it in its first weeks; the
        study's first where no version that it lists is in force."""
        persons = self.people.persons
        signed = persons[persons["consented_on"].notna()]
        rule = self.study.fieldwork.consent_rule
        document = rule.document if rule and rule.document else ""
        known = [form.version for form in self.study.consent_forms]
        spells = versions[(versions["document"] == document) & versions["version"].isin(known)]
        present = _find_in_force(spells, signed["site_id"], signed["consented_on"])
        weeks = pd.Timedelta(weeks=self.assumptions["old_form"]["weeks"])
        before = _find_in_force(spells, signed["site_id"], signed["consented_on"] - weeks)
        is_old = signed["wants_old_form"] & (before != "")
        return present.mask(is_old, before).replace("", known[0])

    def _post(self, site_ids: pd.Series[Any], ready_on: pd.Series[Any]) -> pd.Series[Any]:
        """The first posting of each site from a day on; NaT without one."""
        ready = ready_on.to_numpy("datetime64[s]").astype(np.int64)
        numbers = site_ids.map(self.numbers).to_numpy(np.int64)
        places = np.searchsorted(self.all_fridays, numbers * _APART + np.clip(ready, 0, _LAST))
        posted = (self.all_fridays[places] % _APART).astype("datetime64[s]")
        is_never = ready_on.isna().to_numpy() | (posted == np.datetime64(_LAST, "s"))
        return pd.Series(np.where(is_never, np.datetime64("NaT"), posted), ready_on.index)

    def _tell(self, persons: pd.DataFrame, *ready: pd.Series[Any]) -> pd.DataFrame:
        """Rows of `persons` for each posting in which one of these days comes to be told, once a posting."""
        parts = []
        for days in ready:
            known = pd.concat([days, persons["had_on"]], axis="columns").max(axis="columns").where(days.notna())
            parts.append(persons.assign(posted_on=self._post(persons["site_id"], known.astype("datetime64[s]"))))
        told = pd.concat(parts).dropna(subset="posted_on")
        return told.drop_duplicates(["person", "posted_on"]).sort_values(["posted_on", "person"], ignore_index=True)

    # The logs --------------------------------------------------------------------------------------------------------

    def _tell_screening(self, persons: pd.DataFrame) -> pd.DataFrame:
        silent_on = (persons["approached_on"] + NO_ANSWER_AFTER).where(persons["outcome"] == "no_answer")
        answered_on = persons["answered_on"].fillna(silent_on)
        told = self._tell(persons.assign(known_on=answered_on), persons["approached_on"], answered_on)
        is_known = told["known_on"] <= told["posted_on"]
        return pd.DataFrame(
            {
                "posted_on": told["posted_on"],
                "site_id": told["site_id"],
                "participant_id": told["participant_id"],
                "cohort": told["cohort"],
                "body": told["body_id"],
                "screened_on": told["approached_on"],
                "approached_on": told["approached_on"],
                "outcome": told["outcome"].where(is_known, ""),
                "reason": told["reason"].where(is_known, ""),
            }
        )

    def _tell_consent(self, persons: pd.DataFrame) -> pd.DataFrame:
        """The form as it was signed; again when it is filed; and again without the name that stood for a role."""
        signed = persons[persons["consented_on"].notna()]
        seed = self.assumptions.seed
        names = signed["participant_id"].tolist()
        is_named = compute_shares(names, "name_as_role", seed) < self.assumptions["mistakes"]["name_as_role"]
        first = self._tell(signed, signed["consented_on"]).set_index("person")["posted_on"]
        first_on = first.reindex(signed["person"]).set_axis(signed.index)
        mended_on = first_on + RECEIPT_AFTER + self._find_mending_days(names).set_axis(signed.index)
        told = self._tell(
            signed.assign(is_named=is_named, first_on=first_on, mended_on=mended_on),
            signed["consented_on"],
            signed["filed_on"],
            mended_on.where(is_named),
        )
        is_wrong = told["is_named"] & (told["posted_on"] == told["first_on"])
        told = told[~told["is_named"] | is_wrong | (told["posted_on"] >= told["mended_on"])]
        is_filed = told["filed_on"] <= told["posted_on"]
        columns = ["posted_on", "site_id", "participant_id", "consented_on"]
        details = ["route", "taken_by", "capacity", "sixteen_in"]
        return told[[*columns, *details, "form"]].assign(
            consent_form_version=told["form_version"],
            consent_scopes=told["scopes"].str.replace(";", "; "),
            taken_by=told["taken_by"].mask(is_wrong, NAME_AS_ROLE),
            copy_filed=np.where(is_filed, "yes", "no"),
        )

    def _tell_allocation(self, persons: pd.DataFrame) -> pd.DataFrame:
        signed = persons[persons["consented_on"].notna()]
        told = self._tell(signed, signed["consented_on"])
        return told[["posted_on", "site_id", "participant_id", "arm"]].assign(allocated_on=told["consented_on"])

    def _tell_disposition(self, persons: pd.DataFrame) -> pd.DataFrame:
        leavings = self.people.leavings.merge(persons, on="person", suffixes=("", "_of_approach"))
        ready = leavings[["told_on", "had_on"]].max(axis="columns").astype("datetime64[s]")
        told = leavings.assign(posted_on=self._post(leavings["site_id"], ready)).dropna(subset="posted_on")
        return told[["posted_on", "site_id", "participant_id", "scope", "reason", "left_on"]]

    def _tell_figures(self, persons: pd.DataFrame) -> pd.DataFrame:
        begun_on = persons.groupby("site_id")["had_on"].min()
        figures = self.figures[self.figures["site_id"].isin(begun_on.index)]
        begun = begun_on.reindex(figures["site_id"]).set_axis(figures.index)
        ready = pd.concat([figures["reported_on"], begun], axis="columns").max(axis="columns").astype("datetime64[s]")
        told = figures.assign(posted_on=self._post(figures["site_id"], ready)).dropna(subset="posted_on")
        return told[["posted_on", "site_id", "month", "figure", "evaluation", "nhs_england"]]

    # Questionnaires --------------------------------------------------------------------------------------------------

    def _find_mending_days(self, names: list[str]) -> pd.Series[Any]:
        """Days from the receipt to the mended record; NaT for what is never mended."""
        value, seed = self.assumptions["answers_query_after"], self.assumptions.seed
        days = compute_days(names, "mends", value, seed)
        return days.where(compute_shares(names, "is mended", seed) >= value["never"])

    def _find_records(self, persons: pd.DataFrame, there: AtSites) -> pd.DataFrame:
        """Every record that a site ever posts, by what is known now: one row per telling.

        Columns: posted_on, site_id, instrument, participant_id, respondent, form, wave, collected_on, is_partly,
        mistake ('' for none), is_mended, mended_on (when a mistaken one is told anew).
        """
        own = persons[["person", "participant_id", "site_id", "cohort", "route"]]
        rows = there.asked.merge(own, on="participant_id")
        rows = rows.merge(self.people.questionnaires, on=["person", "wave", "respondent"])
        rows = rows.merge(there.chased, how="left", on=["participant_id", "respondent", "wave"])
        one_day = pd.Timedelta(days=1)
        at_hand = pd.concat([rows["had_on"] + one_day, rows["opens_on"]], axis="columns").max(axis="columns")
        stopped = self.stops.reindex(rows["person"]).set_axis(rows.index)
        rows["collected_on"] = resolve_answers(rows, at_hand, rows["chased_on"], stopped)
        rows = rows[rows["collected_on"] <= pd.Timestamp(self.study.data_collection_ends_on)]
        rows = rows.reset_index(drop=True)
        rows["mistake"] = find_mistakes(rows, self.assumptions)
        rows["posted_on"] = self._post(rows["site_id"], rows["collected_on"].astype("datetime64[s]"))
        names = rows["participant_id"] + ":" + rows["wave"] + ":" + rows["respondent"] + ":" + rows["instrument"]
        ready = rows["posted_on"] + RECEIPT_AFTER + self._find_mending_days(names.tolist()).set_axis(rows.index)
        ready = ready.where(rows["mistake"].isin([kind for kind in MISTAKES_OF_RECORDS if kind != "doubled_row"]))
        rows["mended_on"] = self._post(rows["site_id"], ready.astype("datetime64[s]"))
        again = rows[rows["mended_on"].notna()]
        told = pd.concat(
            [rows.assign(is_mended=False), again.assign(is_mended=True, posted_on=again["mended_on"])],
            ignore_index=True,
        )
        return told.dropna(subset="posted_on").sort_values(["posted_on", "person"], ignore_index=True)

    def _tell_answers(self, there: AtSites, records: pd.DataFrame) -> pd.DataFrame:
        """Answers to queries. One about a record with a mistake is answered when the record is mended."""
        queries = there.queries
        keys = ["participant_id", "wave", "respondent", "instrument"]
        mistaken = records[(records["mistake"] != "") & ~records["is_mended"]].drop_duplicates(keys)
        found = queries.merge(mistaken[[*keys, "mended_on"]].assign(is_ours=True), how="left", on=keys)
        days, answers = find_answers(found["query_id"].tolist(), self.assumptions)
        is_ours = found["is_ours"].eq(True)
        ready = (found["raised_on"] + days).astype("datetime64[s]")
        posted = self._post(found["site_id"], ready.mask(is_ours, found["mended_on"]))
        told = found.assign(posted_on=posted, answer=np.where(is_ours, "corrected", answers))
        return told.dropna(subset="posted_on")[["posted_on", "site_id", "query_id", "answer"]]


def _find_in_force(spells: pd.DataFrame, site_ids: pd.Series[Any], days: pd.Series[Any]) -> pd.Series[Any]:
    """The version in force at each site on each day; '' for none."""
    found = pd.Series("", index=days.index, dtype="str")
    for version, site_id, from_on, until_on in spells[["version", "site_id", "from_on", "until_on"]].itertuples(
        index=False, name=None
    ):
        found[(site_ids == site_id) & (days >= from_on) & (days <= until_on)] = version
    return found
