"""What has stopped for whom: each way of leaving stops what it says and nothing else.

Leaving a treatment is not leaving the questionnaires; wanting no letters is not withdrawing from linkage; and a person
with whom contact was lost has withdrawn nothing. What a disposition ends is its scope, with three judgement calls:

- Who died has stopped everything, under whatever scope the death was told, except that what was given stays given.
- Who completed the study is asked nothing more. That withdraws neither linkage nor letters.
- A reason that the study lists under `not_withdrawals` (contact lost, moved away) ends questionnaires and letters where
  it ends the study: there is nobody to reach. Linkage needs no contact, and goes on.

Sources: PeRSEVERE principles for stopping participation (2022); CONSORT 2025 on kinds of loss.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any

import pandas as pd

from study.calendar import LONDON
from study.events import (
    DispositionRecorded,
    ErasureDecided,
    ObligationChased,
    PackDelivered,
    ReturnAccepted,
    ReturnQuarantined,
    ReturnReleased,
)
from study.incidents import RECORD_KEY
from study.protocol import Study
from study.state import Events, is_in, remembered

QUESTIONNAIRES, LINKAGE, POST, TREATMENT, DATA = STOPS = ("questionnaires", "linkage", "post", "treatment", "data")
"""What may stop."""

_STOPPED_BY_SCOPE = {
    "study": (QUESTIONNAIRES, LINKAGE, POST),
    "questionnaires": (QUESTIONNAIRES,),
    "linkage": (LINKAGE,),
    "post": (POST,),
    "treatment": (TREATMENT,),
    "data": (QUESTIONNAIRES, LINKAGE, POST, DATA),
}
_STOPPED_BY_DEATH = (QUESTIONNAIRES, LINKAGE, POST, TREATMENT)
_FIRST_OF_A_DAY = ("death", "exclusion", "loss", "", "completion")
_COLUMNS = ["participant_id", "site_id", "stops", "from_on", "recorded_at", "reason", "kind", "scope"]


@remembered
def derive_stops(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """What has stopped for whom by the end of a day: one row per participant and thing, in the order of both.

    Columns: participant_id, site_id, stops (one of STOPS), from_on, recorded_at (when the first word of it was
    recorded), reason, kind (completion, loss, exclusion or death; '' where the study lists the reason no more) and
    scope (of the disposition). Of several dispositions that stop the same, the earliest counts, and of those of one
    day a death, then an exclusion, whichever was told first. A decision to erase what a person gave stops as much as
    the person's own word, with the reason "erasure_decided".
    """
    view = events.select(as_of=as_of)
    erased = view.frame(ErasureDecided)
    erased = erased[["participant_id", "site_id", "occurred_on", "recorded_at", "seq"]].drop_duplicates(
        "participant_id"
    )
    told = pd.concat([view.frame(DispositionRecorded), erased.assign(scope="data", reason="erasure_decided")])
    told = told.reset_index(drop=True)
    kinds = {reason.id: reason.kind for reason in study.disposition_reasons} | {"erasure_decided": "loss"}
    told["kind"] = pd.Series([kinds.get(reason, "") for reason in told["reason"]], told.index, dtype="str")
    told["from_on"] = told["occurred_on"]
    words = told[["scope", "kind", "reason"]].drop_duplicates().itertuples(index=False, name=None)
    stopped = [(*word, thing) for word in words for thing in _find_stopped(study, *word)]
    by_words = pd.DataFrame(stopped, columns=["scope", "kind", "reason", "stops"], dtype="str")
    every = told.merge(by_words, on=["scope", "kind", "reason"])
    thing = ["participant_id", "stops"]
    every["rank"] = every["kind"].map({kind: rank for rank, kind in enumerate(_FIRST_OF_A_DAY)})
    every = every.sort_values([*thing, "from_on", "rank", "scope", "reason", "seq"])
    first = every.drop_duplicates(thing).set_index(thing)
    first["recorded_at"] = every.groupby(thing)["recorded_at"].min()
    return first.reset_index()[_COLUMNS]


def _find_stopped(study: Study, scope: str, kind: str, reason: str) -> tuple[str, ...]:
    if kind == "death":
        return _STOPPED_BY_DEATH
    stopped = _STOPPED_BY_SCOPE.get(scope, ())
    if scope != "study":
        return stopped
    if kind == "completion":
        return (QUESTIONNAIRES,)
    rule = study.fieldwork.consent_rule
    if rule is not None and reason in rule.not_withdrawals:
        return (QUESTIONNAIRES, POST)
    return stopped


def is_stopped(stops: pd.DataFrame, participant_ids: Iterable[str], thing: str) -> pd.Series[Any]:
    """Whether something has stopped for each of these participants, by `derive_stops`; the index is kept."""
    wanted = (
        participant_ids if isinstance(participant_ids, pd.Series) else pd.Series(list(participant_ids), dtype="str")
    )
    return is_in(wanted, stops.loc[stops["stops"] == thing, "participant_id"])


# Stop notices -------------------------------------------------------------------------------------------------------

_RELEASED = [
    *("seq", "site_id", "participant_id", "pack_id", "wave", "respondent", "instruments", "late_until"),
]
_NOTICE = [
    *("key", "site_id", "participant_id", "pack_id", "wave", "respondent", "stops", "reason", "kind", "from_on"),
    "known_on",
]


def derive_stop_notices(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """Whom a site must be told of today, because a questionnaire for them is out that must not be handed over.

    One row per participant and pack, by site and participant, as long as it has not been told: key (what makes it this
    notice), site_id, participant_id, pack_id, wave and respondent (joined with ";"), stops ("questionnaires", or "post"
    where only letters have stopped), reason and kind (of the disposition), from_on, known_on (the London day on which
    it was learned).

    A pack is out from its delivery until everything that it asks of the person is in. Two judgement calls: having
    completed the study is no reason to pull a pack, since what is still out is on its way back; and a pack whose last
    day was over before the stop was learned is handed over no more. A wish for no letters has a notice of its own, so
    that a later withdrawal is told as well.
    """
    view = events.select(as_of=as_of)
    stops = derive_stops(study, events, as_of)
    leaving = stops[stops["stops"] == QUESTIONNAIRES]
    post = stops[(stops["stops"] == POST) & ~stops["participant_id"].isin(leaving["participant_id"])]
    stops = pd.concat([leaving[leaving["kind"] != "completion"], post])
    stops["known_on"] = stops["recorded_at"].dt.tz_convert(LONDON).dt.tz_localize(None).dt.normalize()
    columns = ["participant_id", "stops", "reason", "kind", "from_on", "known_on"]
    released = view.frame_among(ReturnReleased, "participant_id", stops["participant_id"].unique(), _RELEASED)
    released = released[released["pack_id"].isin(view.frame(PackDelivered)["pack_id"])]
    released = released[_is_out(view, released)]
    told = released.merge(stops[columns], on="participant_id")
    told = told[told["late_until"] >= told["known_on"]].sort_values(["site_id", "participant_id", "pack_id", "seq"])
    notices = told.drop_duplicates(["participant_id", "pack_id"]).copy()
    for column in ("wave", "respondent"):
        different = told.drop_duplicates(["participant_id", "pack_id", column])
        words = different.groupby(["participant_id", "pack_id"], sort=False)[column].agg(";".join)
        notices[column] = words.to_numpy()
    ending = notices["stops"].map({QUESTIONNAIRES: "", POST: ":post"}).astype("str")
    notices["key"] = ("stop_notice:" + notices["participant_id"] + ":" + notices["pack_id"] + ending).astype("str")
    notices = notices[~is_in(notices["key"], view.frame(ObligationChased, ["chase"])["chase"])]
    return notices[_NOTICE].reset_index(drop=True)


def _is_out(view: Events, released: pd.DataFrame) -> pd.Series[Any]:
    """Whether something that each released questionnaire asks for is not in."""
    people = released["participant_id"].unique()
    came = [
        view.frame_among(kind, "participant_id", people, RECORD_KEY) for kind in (ReturnAccepted, ReturnQuarantined)
    ]
    asked = released[["participant_id", "respondent", "wave"]].assign(instrument=released["instruments"].str.split(";"))
    asked = asked.explode("instrument").reset_index(names="place")
    asked = asked.merge(pd.concat(came).drop_duplicates(), how="left", on=RECORD_KEY, indicator=True)
    return pd.Series(released.index.isin(asked.loc[asked["_merge"] == "left_only", "place"]), released.index)
