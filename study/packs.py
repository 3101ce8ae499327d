"""What one pack holds: what goes to a site in one sending, put together from folds of the ledger.

A pack asks for the returns that are due and tells the site all that the study knows and still wants to know there:
people whose approach or consent is incomplete, months without figures, open queries. What is in it is decided here;
`tasks/packs.py` makes a workbook of it, and whether it may go is decided in `study/releasing.py`.

Two judgement calls. A pack lists new identifiers only once, in the pack that issues them: in two workbooks they would
be given to two people. And of consent it lists only what something is asked about: every line that is filled in
beforehand may be out of date when it comes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Literal

import pandas as pd

from study.calendar import add_period
from study.events import (
    ActivityReported,
    ApproachAnswered,
    ConsentRecorded,
    Event,
    ParticipantAllocated,
    ParticipantApproached,
    ParticipantScreened,
)
from study.identifiers import Block, list_block
from study.participation import DATA, POST, QUESTIONNAIRES, derive_stops
from study.protocol import Study
from study.state import Events

Purpose = Literal["wave", "blank", "replacement"]

SIGNED_FORM = "signed_form"
RECONSENT = "reconsent"
_UNFILED = ("", "missing", "faulty")


def _no_rows() -> pd.DataFrame:
    return pd.DataFrame()


@dataclass(frozen=True, eq=False)
class PackPlan:
    """What one pack holds. All frames are of this site alone, and may be empty.

    rows: returns that it asks for, with columns of `derive_expected_returns` (participant_id, wave, respondent, form,
    instruments, opens_on, due_on, closes_on, late_until) and copy_number. queries: open ones, rows of `derive_queries`.
    consents: what is known of consent there, rows of `derive_consents`. stop_list: what has stopped for whom, rows of
    `derive_stops`. first_number, n_numbers: the block of identifiers that this pack issues; 0, 0 for none.

    What `add_what_is_open` adds. approaches: people who were approached and of whom no answer is known (participant_id,
    cohort, body, screened_on, approached_on). unsigned: identifiers of people who agreed and of whom no consent is
    known. unallocated: of people who consented and are in no arm yet. figures: months owed (month, figure, due_on;
    evaluation and nhs_england, NA where that count is missing).
    """

    pack_id: str
    site_id: str
    as_of: date
    purpose: Purpose
    rows: pd.DataFrame
    queries: pd.DataFrame = field(default_factory=_no_rows)
    consents: pd.DataFrame = field(default_factory=_no_rows)
    first_number: int = 0
    n_numbers: int = 0
    stop_list: pd.DataFrame = field(default_factory=_no_rows)
    figures: pd.DataFrame = field(default_factory=_no_rows)
    approaches: pd.DataFrame = field(default_factory=_no_rows)
    unsigned: tuple[str, ...] = ()
    unallocated: tuple[str, ...] = ()


_APPROACHES = {
    **dict.fromkeys(("participant_id", "cohort", "body"), "str"),
    **dict.fromkeys(("screened_on", "approached_on"), "datetime64[us]"),
}


def derive_pack_id(site_id: str, as_of: date, n: int) -> str:
    """The name of the n-th pack that a site is sent on one day: "luton-2017-09-04-1"."""
    return f"{site_id}-{as_of.isoformat()}-{n}"


def add_what_is_open(study: Study, events: Events, plan: PackPlan) -> PackPlan:
    """The plan with people of the site of whom something is not known yet, and with the counts that the site has told
    of the months that it owes. Who has left the questionnaires is asked about no more."""
    view = events.select(as_of=plan.as_of)

    def rows(kind: type[Event], *columns: str) -> Iterator[tuple[Any, ...]]:
        table = view.table_of_site(kind, plan.site_id)
        return zip(*(table[name].to_pylist() for name in columns), strict=True)

    stops = derive_stops(study, events, plan.as_of)
    gone = set(stops.loc[stops["stops"] == QUESTIONNAIRES, "participant_id"])
    signed = {person for (person,) in rows(ConsentRecorded, "participant_id")}
    answers = dict(rows(ApproachAnswered, "participant_id", "outcome"))
    agreed = {person for person, outcome in answers.items() if outcome == "agreed"}
    screened = dict(rows(ParticipantScreened, "participant_id", "occurred_on"))
    approaches = [
        (person, cohort, body, screened.get(person), approached_on)
        for person, cohort, body, approached_on in rows(
            ParticipantApproached, "participant_id", "cohort", "body_id", "occurred_on"
        )
        if person not in signed and person not in gone and person not in answers
    ]
    allocated = {person for (person,) in rows(ParticipantAllocated, "participant_id")} if study.arms else set()
    return replace(
        plan,
        approaches=pd.DataFrame(sorted(approaches), columns=list(_APPROACHES)).astype(_APPROACHES)
        if approaches
        else _no_rows(),
        unsigned=tuple(sorted(agreed - signed - gone)) if study.consent_basis == "signed" else (),
        unallocated=tuple(sorted(signed - gone - allocated)) if study.arms else (),
        figures=_add_counts(
            plan.figures, rows(ActivityReported, "version", "seq", "figure", "month", "reported_to", "count")
        ),
    )


def _add_counts(figures: pd.DataFrame, told: Iterable[tuple[Any, ...]]) -> pd.DataFrame:
    """Months owed, with what was told of them last. `told`: version, seq, figure, month, reported_to, count."""
    if not len(figures):
        return figures
    last = {(figure, month, to): count for _, _, figure, month, to, count in sorted(told)}
    return figures.assign(
        **{
            name: pd.array(
                [
                    last.get((figure, month, name))
                    for figure, month in zip(figures["figure"], figures["month"], strict=True)
                ],
                "Int64",
            )
            for name in ("evaluation", "nhs_england")
        }
    )


def list_new_identifiers(study: Study, plan: PackPlan) -> list[str]:
    """The identifiers of the block that a pack issues, in order."""
    rule, site = study.fieldwork.identifier_rule, study.find_site(plan.site_id)
    if rule is None or site is None or not plan.n_numbers:
        return []
    return list_block(rule, site.code, Block(plan.first_number, plan.n_numbers))


def derive_stop_list(plan: PackPlan) -> pd.DataFrame:
    """Who must not be contacted about the study, one row each by participant_id: participant_id, stops (questionnaires,
    post, data: those that have stopped, joined with ";") and from_on, the first day of the earliest."""
    columns = ["participant_id", "stops", "from_on"]
    if not len(plan.stop_list):
        return pd.DataFrame(columns=columns)
    own = plan.stop_list[plan.stop_list["stops"].isin([QUESTIONNAIRES, POST, DATA])]
    grouped = own.groupby("participant_id", sort=True)
    listed = grouped.agg(stops=("stops", lambda stops: ";".join(sorted(set(stops)))), from_on=("from_on", "min"))
    return listed.reset_index()[columns]


def find_without_post(plan: PackPlan) -> set[str]:
    """Who gets no letter."""
    return set(plan.stop_list.loc[plan.stop_list["stops"] == POST, "participant_id"]) if len(plan.stop_list) else set()


def derive_asked_consents(study: Study, plan: PackPlan) -> pd.DataFrame:
    """Consents about which a site is asked something, by participant_id: the columns of `derive_consents` and asked,
    codes joined with ";": SIGNED_FORM (it is not filed, as far as is known), RECONSENT (it is to be given anew soon),
    and those of `study.consent.FAULTS`. Of those who have left, nothing is asked but their form."""
    consents, rule = plan.consents, study.fieldwork.consent_rule
    if not len(consents) or rule is None or study.consent_basis != "signed":
        return consents.iloc[:0].assign(asked=pd.Series(dtype="str"))
    gone = set[str]()
    if len(plan.stop_list):
        gone = set(plan.stop_list.loc[plan.stop_list["stops"] == QUESTIONNAIRES, "participant_id"])
    soon = pd.Timestamp(add_period(plan.as_of, rule.reconsent_notice))
    has_left = consents["participant_id"].isin(gone)
    is_soon = (consents["reconsent_due_on"] <= soon) & (consents["reconsent_due_on"] >= pd.Timestamp(plan.as_of))
    asked = consents["faults"].mask(has_left, "")
    for code, is_asked in ((RECONSENT, is_soon & ~has_left), (SIGNED_FORM, consents["copy"].isin(_UNFILED))):
        asked = asked.mask(is_asked, (code + ";" + asked).str.strip(";"))
    found = consents.assign(asked=asked)
    return found[asked != ""].sort_values("participant_id", ignore_index=True)
