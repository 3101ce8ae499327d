"""What chasing brings and what it costs: the yield of each step of a ladder, and a site's work in pieces and minutes.

Judgement calls:

- An answer counts for the last step that was taken before it became known, and for that one alone: of three steps and
  one answer, one brought it. So what a step brought can be added up.
- What counts is when the answer became known, not the day written on it: a step is there to bring it in.
- Steps of messages that never went out are no steps; one whose fate is uncertain counts once a person says that it
  went out.
- Minutes are assumptions of `fieldwork.toml`, pieces are counted. A questionnaire is counted when it came in.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any, NamedTuple

import pandas as pd

from study.calendar import LONDON
from study.consent import name_forms
from study.events import (
    ActivityReported,
    ApproachAnswered,
    CallLogged,
    ConsentCopyChecked,
    ConsentRecorded,
    Event,
    MessageQueued,
    MessageResolved,
    MessageSent,
    ObligationChased,
    PackDelivered,
    ParticipantApproached,
    QueryAnswered,
    QueryClosed,
    ReturnAccepted,
    ReturnReleased,
)
from study.fieldwork import OBLIGATIONS
from study.protocol import Study
from study.state import Events, number_groups

_YIELD_COLUMNS = ["about", "step", "site_id", "n_chased", "n_answered", "n_late", "n_waiting", "answered_pct"]
BURDEN_COLUMNS = ["site_id", "work", "n", "minutes"]


def derive_step_yields(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """What each step of the ladders brought, by site, and over all sites with a blank site_id.

    Columns: about, step, site_id, n_chased, n_answered (within `answer_days` of the step), n_late (answered after
    that), n_waiting (not answered, and `answer_days` are not over), answered_pct (n_answered in 100 of those that do
    not wait; NaN where all wait). In the ladder's order; steps that are in no ladder any more come last.
    """
    events = events.select(as_of=as_of)
    taken = _list_steps_taken(events)
    rule = study.fieldwork.chasing_rule
    if rule is None or taken.empty:
        return pd.DataFrame(columns=_YIELD_COLUMNS)
    answers = _list_answers(events, taken["obligation"])
    answers = answers[answers["on"] <= pd.Timestamp(as_of)]
    # Each answer to the last step before it; then each step's first answer.
    met = pd.merge_asof(
        answers.sort_values("on", kind="stable"),
        taken[["obligation", "chased_on", "place"]].sort_values(["chased_on", "place"], kind="stable"),
        left_on="on",
        right_on="chased_on",
        by="obligation",
    ).dropna(subset="place")
    first = met.groupby("place")["on"].min().reindex(taken["place"]).to_numpy("datetime64[us]")
    taken["n_days"] = (pd.Series(first, index=taken.index) - taken["chased_on"]).dt.days
    has_answer = taken["n_days"].notna()
    taken["answered"] = has_answer & (taken["n_days"] <= rule.answer_days)
    taken["late"] = has_answer & ~taken["answered"]
    taken["waiting"] = ~has_answer & ((pd.Timestamp(as_of) - taken["chased_on"]).dt.days < rule.answer_days)
    everywhere = taken.assign(site_id="")
    counts = (
        pd.concat([everywhere, taken])
        .groupby(["about", "step", "site_id"])
        .agg(
            n_chased=("place", "size"),
            n_answered=("answered", "sum"),
            n_late=("late", "sum"),
            n_waiting=("waiting", "sum"),
        )
        .reset_index()
    )
    settled = counts["n_chased"] - counts["n_waiting"]
    counts["answered_pct"] = (100 * counts["n_answered"] / settled).where(settled > 0)
    order = {step.id: place for place, step in enumerate(study.fieldwork.ladder)}
    counts["order"] = counts["step"].map(order).fillna(len(order))
    return counts.sort_values(["order", "step", "site_id"], ignore_index=True)[_YIELD_COLUMNS]


def _list_steps_taken(events: Events) -> pd.DataFrame:
    """Steps for what sites owe that reached somebody: about, step, site_id, chased_on, obligation (the chaser's key
    without its step), place (a number each)."""
    chased = events.frame(ObligationChased)
    chased = chased[chased["about"].isin(OBLIGATIONS)]
    went_out = set(events.frame(MessageSent)["message_id"])
    resolved = events.frame(MessageResolved)
    went_out |= set(resolved.loc[resolved["outcome"] == "was_sent", "message_id"])
    chased = chased[(chased["message_id"] == "") | chased["message_id"].isin(went_out)]
    taken = chased[["about", "step", "site_id"]].copy()
    taken["chased_on"] = chased["occurred_on"].astype("datetime64[us]")
    # Consent given anew answers for the person, on whatever form; an answer for a query, however often it was put.
    is_of_person = chased["about"].isin(["reconsent", "query"])
    parts = chased["chase"].str.rsplit(":", n=1).str[0]
    taken["obligation"] = parts.mask(is_of_person, parts.str.split(":", n=3).str[:3].str.join(":")).astype("str")
    return taken.reset_index(drop=True).rename_axis("place").reset_index()


def _list_answers(events: Events, owed: pd.Series[Any]) -> pd.DataFrame:
    """Everything that answers one of these obligations: obligation, on (the London day on which it became known)."""

    def name(kind: type[Event], about: str, parts: tuple[str, ...], **wanted: str) -> pd.DataFrame:
        columns = [*parts, "renewal"] if "form_version" in parts else parts
        frame = events.frame(kind, [*columns, "recorded_at", *wanted])
        for column, value in wanted.items():
            frame = frame[frame[column] == value]
        named = f"chase:{about}"
        obligation = pd.Series(named, index=frame.index, dtype="str")
        for part in parts:
            obligation = obligation + ":" + (name_forms(frame) if part == "form_version" else frame[part])
        obligation = obligation[obligation.isin(owed)]
        known = frame.loc[obligation.index, "recorded_at"].dt.tz_convert(LONDON).dt.tz_localize(None).dt.normalize()
        return pd.DataFrame({"obligation": obligation.astype("str"), "on": known.astype("datetime64[us]")})

    form = ("participant_id", "form_version")
    parts = [
        name(ReturnAccepted, "return", ("participant_id", "respondent", "wave")),
        name(QueryClosed, "query", ("query_id",)),
        name(QueryAnswered, "query", ("query_id",)),
        name(ConsentRecorded, "consent_copy", form, copy_filed="yes"),
        name(ConsentCopyChecked, "consent_copy", form, finding="seen"),
        name(ConsentRecorded, "reconsent", ("participant_id",)),
        name(ActivityReported, "activity_figures", ("site_id", "figure", "month")),
    ]
    return pd.concat(parts, ignore_index=True)


class Sending(NamedTuple):
    """What was sent to sites in all: packs, questionnaires in them, messages, calls; and what each step brought."""

    n_packs: int
    n_released: int
    n_messages: int
    n_calls: int
    steps: pd.DataFrame


def summarise_sending(study: Study, events: Events, as_of: date) -> Sending:
    """Counts of everything that went out by a day. `steps`: the rows of `derive_step_yields` over all sites."""
    events = events.select(as_of=as_of)
    released = events.frame(ReturnReleased, ["pack_id"])
    delivered = events.frame(PackDelivered)
    steps = derive_step_yields(study, events, as_of)
    return Sending(
        n_packs=len(delivered),
        n_released=int(released["pack_id"].isin(delivered["pack_id"]).sum()),
        n_messages=len(events.frame(MessageSent)),
        n_calls=len(events.frame(CallLogged)),
        steps=steps[steps["site_id"] == ""].reset_index(drop=True),
    )


def derive_burden(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """How much work each site had, by kind: site_id, work (as in `fieldwork.toml`), n, minutes (by assumption).

    A row for every site and kind of work, zero among them, in the order of the protocol.
    """
    events = events.select(as_of=as_of)
    counts = _count_work(events)
    rows: list[dict[str, Any]] = []
    for site in study.sites:
        for work, by_site in counts.items():
            n = int(by_site.get(site.site_id, 0))
            minutes = n * study.fieldwork.find_minutes(work)
            rows.append({"site_id": site.site_id, "work": work, "n": n, "minutes": minutes})
    return pd.DataFrame(rows, columns=BURDEN_COLUMNS)


def _count_work(events: Events) -> Mapping[str, pd.Series[int]]:
    def count(kind: type[Event], distinct: tuple[str, ...] = ()) -> pd.Series[int]:
        frame = events.frame(kind, ["site_id"])
        if distinct:
            frame = frame[~pd.Series(number_groups(events.table(kind), distinct)).duplicated()]
        return frame.groupby("site_id").size()

    sent = set(events.frame(MessageSent)["message_id"])
    queued = events.frame(MessageQueued)
    digests = queued[(queued["category"] == "digest") & queued["message_id"].isin(sent)].groupby("site_id").size()
    approached = events.frame(ParticipantApproached, ["participant_id"])["participant_id"]
    answered = events.frame(ApproachAnswered)
    # An approach whose first day nobody wrote down was one all the same.
    only_answered = answered[~answered["participant_id"].isin(approached)].groupby("site_id").size()
    return {
        "approach": count(ParticipantApproached).add(only_answered, fill_value=0),
        "consent": count(ConsentRecorded),
        "pack": count(PackDelivered),
        "questionnaire": count(ReturnAccepted, ("participant_id", "respondent", "wave", "instrument")),
        "digest": digests,
        "call": count(CallLogged),
        "query": count(QueryAnswered),
        "activity_figures": count(ActivityReported, ("figure", "month", "site_id")),
    }
