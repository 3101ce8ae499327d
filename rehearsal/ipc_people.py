"""The people of the IPC evaluation's rehearsal, all of them invented: who is approached, agrees, answers, leaves.

Everything is drawn beforehand, for everybody at once, from `ipc_assumptions.toml` and a seed: `draw_people`. What a
person does doesn't depend on what the study does, with two exceptions that are resolved later by `resolve_answers`:
nobody can fill in a questionnaire before it is there, and some fill it in soon after their site was chased.

`play_alone` supposes when questionnaires are there and when sites are chased, so that the assumptions can be tried a
hundred times in seconds; the whole rehearsal (`rehearsal/evaluation.py`) takes both from the study's own ledger.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from study.calendar import is_working_day
from study.gate import derive_open_days
from study.protocol import Site, Study
from study.state import Events
from tasks.settings import PROJECT

ASSUMPTIONS_FILE = PROJECT / "rehearsal" / "ipc_assumptions.toml"
BASELINE, MAIN_FOLLOW_UP = "baseline", "follow_up_6m"
NEVER = np.datetime64("NaT", "D")

Days = npt.NDArray[np.datetime64]
Numbers = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class Assumption(BaseModel):
    """One thing that the rehearsal supposes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    statement: str
    value: Any
    why: str


@dataclass(frozen=True)
class Assumptions:
    """What is supposed, by id; and the seed from which everything is drawn."""

    seed: int
    listed: tuple[Assumption, ...]

    def __getitem__(self, assumption_id: str) -> Any:
        """The value. Raises KeyError for an assumption that the file does not state."""
        return self._values[assumption_id]

    @property
    def _values(self) -> dict[str, Any]:
        return {assumption.id: assumption.value for assumption in self.listed}

    def change(self, **values: Any) -> Assumptions:
        """The same with other values, for a rehearsal under another assumption."""
        if unknown := sorted(set(values) - set(self._values)):
            raise KeyError(f"{ASSUMPTIONS_FILE.name} states no {', '.join(unknown)}")
        return Assumptions(
            self.seed, tuple(a.model_copy(update={"value": values.get(a.id, a.value)}) for a in self.listed)
        )


def parse_ipc_assumptions(data: bytes) -> Assumptions:
    """Raises ValueError naming every entry that is incomplete or there twice."""
    raw = tomllib.loads(data.decode())
    try:
        listed = tuple(Assumption.model_validate(entry) for entry in raw["assumption"])
    except ValidationError as error:
        raise ValueError(f"{ASSUMPTIONS_FILE.name}: an assumption is incomplete: {error.errors()[0]['loc']}.") from None
    ids = [assumption.id for assumption in listed]
    if repeated := sorted({name for name in ids if ids.count(name) > 1}):
        raise ValueError(f"{ASSUMPTIONS_FILE.name}: declared twice: {', '.join(repeated)}. Keep one of each.")
    return Assumptions(int(raw["seed"]), listed)


@cache
def load_ipc_assumptions() -> Assumptions:
    """The assumptions as they are declared."""
    return parse_ipc_assumptions(ASSUMPTIONS_FILE.read_bytes())


# --- What is drawn ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class People:
    """Everybody whom the sites approach. Days are datetime64[s], NaT where something never happens.

    persons, one row each (the index numbers them all; `number` counts within the site, in the order of approach):
    site_id, number, cohort, body_id, arm, approached_on, answered_on, outcome, reason, consented_on, route, scopes
    (joined ";"), form, taken_by, capacity, sixteen_in, filed_on (the copy of the consent form), wants_old_form.
    leavings: person, scope, reason, left_on, told_on (when the site knows).
    questionnaires, one row per person, wave and respondent of everyone who consented: person, wave, respondent, fate
    (in_time, too_late, never), within (days from having it to filling it in), heeds and heeds_within (whether it is
    filled in soon after a chaser, and in how many days), is_partly.
    """

    persons: pd.DataFrame
    leavings: pd.DataFrame
    questionnaires: pd.DataFrame


class Flow(NamedTuple):
    """How many came so far: the steps of IBSEN's flow."""

    approached: int
    agreed: int
    baseline_in_time: int
    analysed: int


IBSEN = Flow(2521, 1594, 1356, 959)


def derive_openings(study: Study, events: Events, last: date) -> pd.DataFrame:
    """On which days each site may approach people: a row per site_id, a column per day of data collection."""
    questions = pd.DataFrame(
        [("approach", site.site_id, "", "") for site in study.sites],
        columns=["activity", "site_id", "body_id", "person_id"],
    )
    days = derive_open_days(study, events, questions, study.data_collection_starts_on, last)
    return days.set_axis(pd.Index(questions["site_id"]), axis="index")


def draw_people(study: Study, openings: pd.DataFrame, assumptions: Assumptions, seed: int | None = None) -> People:
    """Everybody, with all that they will do.

    `openings`: a row per site_id, a column per day, True where the site may approach people (`derive_openings`). A
    site that never opens approaches nobody.
    """
    rng = np.random.default_rng([assumptions.seed if seed is None else seed, 1])
    persons = _draw_approaches(study, openings, assumptions, rng)
    _draw_answers(study, persons, assumptions, rng)
    _draw_consents(study, persons, assumptions, rng)
    return People(persons, _draw_leavings(persons, assumptions, rng), _draw_fates(study, persons, assumptions, rng))


def _draw_approaches(
    study: Study, openings: pd.DataFrame, assumptions: Assumptions, rng: np.random.Generator
) -> pd.DataFrame:
    """Who is approached where and when, in whose name and for which arm."""
    period, parts = assumptions["approach_period"], []
    for site in study.sites:
        days = _find_days_of_work(site, openings, assumptions, study.data_collection_starts_on, period["until"])
        n = int(assumptions["approached"].get(site.site_id, 0)) if len(days) else 0
        places = np.sort(rng.beta(period["shape_start"], period["shape_end"], n))
        comparison = rng.random(n) < assumptions["comparison_share"]
        is_named = rng.random(n) < assumptions["body_named"]
        bodies = np.array([body.id for body in site.bodies])
        parts.append(
            pd.DataFrame(
                {
                    "site_id": site.site_id,
                    "number": np.arange(1, n + 1),
                    "approached_on": days[(places * len(days)).astype(int)],
                    "body_id": np.where(is_named, bodies[rng.integers(0, len(bodies), n)], ""),
                    "arm": _find_arms(study, site, comparison),
                }
            )
        )
    persons = pd.concat(parts, ignore_index=True)
    shares: Mapping[str, float] = assumptions["cohorts"]
    persons["cohort"] = _choose(rng, shares, len(persons))
    persons["approached_on"] = persons["approached_on"].astype("datetime64[s]")
    return persons


def _find_days_of_work(site: Site, openings: pd.DataFrame, assumptions: Assumptions, first: date, last: date) -> Days:
    """The working days on which a site approaches people: those on which it is open, or, where it goes on without
    asking, all since it opened first."""
    if site.site_id not in openings.index:
        return np.empty(0, "datetime64[D]")
    is_open = openings.loc[site.site_id].to_numpy(bool)
    if site.site_id in assumptions["goes_on"]:
        is_open = np.logical_or.accumulate(is_open)
    days = [day.date() for day in pd.DatetimeIndex(openings.columns[is_open])]
    return np.array([day for day in days if first <= day <= last and _is_worked(day)], "datetime64[D]")


@cache
def _is_worked(day: date) -> bool:
    return is_working_day(day)


def _find_arms(study: Study, site: Site, comparison: Flags) -> npt.NDArray[np.str_]:
    arms = {arm.role: arm.id for arm in study.find_arms_at(site)}
    only = next(iter(arms.values()))
    return np.where(comparison, arms.get("comparison", only), arms.get("intervention", only))


def _draw_answers(study: Study, persons: pd.DataFrame, assumptions: Assumptions, rng: np.random.Generator) -> None:
    n = len(persons)
    agrees = rng.random(n) < find_probabilities(assumptions["agrees"], persons)
    place = rng.random(n)
    ineligible, declining = assumptions["not_eligible"], assumptions["declines"]
    outcome = np.select(
        [agrees, place < ineligible["share"], place < ineligible["share"] + declining["share"]],
        ["agreed", "not_eligible", "declined"],
        "no_answer",
    )
    reason = np.full(n, "", dtype=object)
    for name, shares in (("not_eligible", ineligible), ("declined", declining)):
        chosen = _choose(rng, {key: share for key, share in shares.items() if key != "share"}, n)
        reason = np.where(outcome == name, chosen, reason)
    answered_on = persons["approached_on"] + _draw_days(rng, assumptions["answers_after"], n)
    persons["outcome"], persons["reason"] = outcome, reason.astype(str)
    persons["answered_on"] = answered_on.where(outcome != "no_answer")


def _draw_consents(study: Study, persons: pd.DataFrame, assumptions: Assumptions, rng: np.random.Generator) -> None:
    n, cohort = len(persons), persons["cohort"]
    signs = (persons["outcome"] == "agreed") & (rng.random(n) >= assumptions["never_signs"])
    consented_on = (persons["answered_on"] + _draw_days(rng, assumptions["signs_after"], n)).where(signs)
    lacks_capacity = rng.random(n) < cohort.map(assumptions["consultee"]).fillna(0.0)
    youngest, oldest = assumptions["children"]["youngest"], assumptions["children"]["oldest"]
    age_in_months = np.floor(12 * (youngest + (oldest - youngest) * rng.random(n)))
    is_child = (cohort == "children_complex_needs").to_numpy()
    months = consented_on.to_numpy().astype("datetime64[M]") + (16 * 12 - age_in_months).astype(int)
    is_young = is_child & (months >= consented_on.to_numpy().astype("datetime64[M]"))
    persons["consented_on"] = consented_on
    persons["route"] = np.select([~signs, is_young, ~is_child & lacks_capacity], ["", "parent", "consultee"], "self")
    persons["sixteen_in"] = np.where(is_young & signs, months.astype(str), "")
    not_assessed = rng.random(n) < assumptions["capacity_not_assessed"]
    persons["capacity"] = np.where(
        persons["route"] == "consultee", np.where(not_assessed, "not_assessed", "assessed"), ""
    )
    given = {scope.id: rng.random(n) < assumptions["scopes"][scope.id] for scope in study.consent_scopes}
    persons["scopes"] = [
        ";".join(scope for scope, yes in zip(given, row, strict=True) if yes)
        for row in zip(*given.values(), strict=True)
    ]
    wants_easy_read = rng.random(n) < cohort.map(assumptions["easy_read"])
    persons["form"] = np.where(wants_easy_read, "easy_read", "standard")
    persons["taken_by"] = _choose(rng, assumptions["taken_by"], n)
    persons["wants_old_form"] = rng.random(n) < assumptions["old_form"]["share"]
    copies, place = assumptions["copies"], rng.random(n)
    days = _draw_days(rng, copies, n).where(place >= copies["at_once"], pd.Timedelta(0))
    persons["filed_on"] = (consented_on + days).where(place < 1 - copies["never"])


def _draw_leavings(persons: pd.DataFrame, assumptions: Assumptions, rng: np.random.Generator) -> pd.DataFrame:
    """Each way of leaving by its own steady rate; the first that ends the whole study ends what would come after."""
    n, parts = len(persons), []
    scopes = assumptions["leaves_scope"]
    for reason, share in assumptions["leaves"].items():
        yearly = persons["cohort"].map(share).to_numpy() if isinstance(share, dict) else np.full(n, share)
        days = np.floor(rng.exponential(size=n) * 365 / -np.log1p(-yearly))
        delay = _draw_days(rng, assumptions["leaving_known_after"], n)
        happens = persons["consented_on"].notna() & (days < 900)
        if reason == "ipc_ended":
            happens &= persons["arm"] == "intervention"
        left_on = persons["consented_on"] + pd.to_timedelta(np.minimum(days, 900), unit="D")
        left_on = left_on + pd.Timedelta(days=1)  # nobody leaves on the day of joining
        parts.append(
            pd.DataFrame(
                {
                    "person": persons.index, "scope": scopes[reason], "reason": reason, "left_on": left_on,
                    "told_on": left_on + delay,
                }
            )[happens]
        )  # fmt: skip
    leavings = pd.concat(parts, ignore_index=True).sort_values(["person", "left_on"], ignore_index=True)
    leavings["left_on"] = leavings["left_on"].astype("datetime64[s]")
    leavings["told_on"] = leavings["told_on"].astype("datetime64[s]")
    ends = leavings[leavings["scope"].isin(["study", "data"])].drop_duplicates("person").set_index("person")["left_on"]
    is_after = leavings["left_on"].to_numpy() > ends.reindex(leavings["person"]).to_numpy("datetime64[s]")
    kept: pd.DataFrame = leavings.loc[~is_after].reset_index(drop=True)
    return kept


def _draw_fates(
    study: Study, persons: pd.DataFrame, assumptions: Assumptions, rng: np.random.Generator
) -> pd.DataFrame:
    """What becomes of each questionnaire if nothing ends the person's part before."""
    joined = persons[persons["consented_on"].notna()]
    n = len(joined)
    chances = find_probabilities(assumptions["baseline_in_time"], joined)
    comes = rng.random(n) < chances
    too_late = ~comes & (rng.random(n) < assumptions["baseline_too_late"])
    fates = {BASELINE: np.select([comes, too_late], ["in_time", "too_late"], "never")}
    follows = comes & (rng.random(n) < find_probabilities(assumptions["follow_up_in_time"], joined))
    fates[MAIN_FOLLOW_UP] = np.where(follows, "in_time", "never")
    later = assumptions["later_follow_up_in_time"]
    for wave in (wave.id for wave in study.waves if wave.role == "follow_up" and wave.id != MAIN_FOLLOW_UP):
        chance = later["all"] + np.where(follows, 0.0, later["without_earlier"])
        fates[wave] = np.where(comes & (rng.random(n) < chance), "in_time", "never")
    has_carer = joined["scopes"].str.split(";").map({"carer_contact"}.issubset).to_numpy(bool)
    respondent = np.where(joined["route"] == "self", "self", "proxy")
    parts = []
    for wave, fate in fates.items():
        parts.append(_list_questionnaires(joined.index, wave, respondent, fate))
        answers = rng.random(n) < assumptions["carer_answers"][wave]
        carer_fate = np.where(answers & (fates[BASELINE] == "in_time"), "in_time", "never")
        parts.append(_list_questionnaires(joined.index, wave, "carer", carer_fate)[has_carer])
    frame = pd.concat(parts, ignore_index=True)
    size = len(frame)
    days = _draw_days(rng, assumptions["answers_within"], size)
    late = _draw_days(rng, assumptions["answers_too_late"], size)
    heeding = assumptions["heeds_chaser"]
    frame["within"] = days.where(frame["fate"] != "too_late", late)
    frame["heeds"] = (rng.random(size) < heeding["share"]) & (frame["fate"] == "in_time")
    frame["heeds_within"] = _draw_days(rng, heeding, size)
    frame["is_partly"] = rng.random(size) < frame["respondent"].map(assumptions["partly"])
    return frame


def _list_questionnaires(
    persons: pd.Index, wave: str, respondent: str | npt.NDArray[np.str_], fate: npt.NDArray[np.str_]
) -> pd.DataFrame:
    return pd.DataFrame({"person": persons, "wave": wave, "respondent": respondent, "fate": fate})


# --- When they answer -------------------------------------------------------------------------------------------------


def resolve_answers(
    questionnaires: pd.DataFrame, at_hand_on: pd.Series, chased_on: pd.Series, stopped_on: pd.Series
) -> pd.Series:
    """The day on which each questionnaire is filled in; NaT for never.

    In: rows of `People.questionnaires`; on the same index the day from which it can be filled in, the day on which the
    site was first chased for it (NaT: it was not), the day from which nobody answers any more (NaT: none). A chaser
    brings an answer forward only for whoever heeds it, and only if it would come later.
    """
    own = at_hand_on + questionnaires["within"]
    after_chaser = (chased_on + questionnaires["heeds_within"]).where(questionnaires["heeds"])
    answered_on = own.where(~(after_chaser < own), after_chaser)
    is_answered = (questionnaires["fate"] != "never") & ~(stopped_on <= answered_on)
    return answered_on.where(is_answered)


def find_stops(people: People) -> pd.Series:
    """By person, the first day on which nobody fills in a questionnaire for them any more."""
    ends = people.leavings[people.leavings["scope"].isin(["questionnaires", "study", "data"])]
    return ends.groupby("person")["left_on"].min().astype("datetime64[s]")


def play_alone(
    study: Study, openings: pd.DataFrame, assumptions: Assumptions, seed: int | None = None
) -> tuple[People, Flow]:
    """Everybody, and what the study would count if questionnaires and chasers went out as supposed. Nobody is sent any
    without consent to them, or on advice without an assessment of capacity: in the whole rehearsal both are held."""
    people = draw_people(study, openings, assumptions, seed)
    rng = np.random.default_rng([assumptions.seed if seed is None else seed, 2])
    persons, rows = people.persons, people.questionnaires
    own = rows[rows["respondent"] != "carer"]
    stops = find_stops(people)
    consented_on = persons["consented_on"]
    at_hand = consented_on + _draw_days(rng, assumptions["at_hand_after"], len(persons))
    baselines = own[own["wave"] == BASELINE].set_index("person")
    window = study.find_window(study.baseline)
    due = consented_on + pd.Timedelta(days=window.due.days)
    late_until = consented_on + pd.Timedelta(days=window.late_until.days)
    chased = (due + pd.Timedelta(days=5)).reindex(baselines.index)
    at_hand = at_hand.where(persons["scopes"].str.contains("questionnaires") & (persons["capacity"] != "not_assessed"))
    filled = resolve_answers(baselines, at_hand.reindex(baselines.index), chased, stops.reindex(baselines.index))
    in_time = filled[filled <= late_until.reindex(filled.index)].astype("datetime64[s]")
    follow_ups = own[own["wave"] == MAIN_FOLLOW_UP].set_index("person").reindex(in_time.index)
    wave = study.find_wave(MAIN_FOLLOW_UP)
    assert wave is not None
    window = study.find_window(wave)
    target = add_months_to_days(in_time, wave.offset.months)
    opens, closes = (target + pd.Timedelta(days=period.days) for period in (window.opens, window.late_until))
    chased = target + pd.Timedelta(days=window.due.days + 5)
    answered = resolve_answers(follow_ups, opens, chased, stops.reindex(follow_ups.index))
    counts = (answered <= closes) & (answered <= pd.Timestamp(study.data_collection_ends_on))
    withdrawn = people.leavings.loc[people.leavings["scope"] == "data", "person"]
    counts &= ~counts.index.isin(withdrawn)
    n_agreed = int((persons["outcome"] == "agreed").sum())
    return people, Flow(len(persons), n_agreed, len(in_time), int(counts.sum()))


def add_months_to_days(days: pd.Series, n_months: int) -> pd.Series:
    """Calendar months later, clipped to the end of a shorter month; NaT stays."""
    values = days.to_numpy().astype("datetime64[D]")
    months = values.astype("datetime64[M]")
    moved = (months + n_months).astype("datetime64[D]") + (values - months.astype("datetime64[D]"))
    last = (months + n_months + 1).astype("datetime64[D]") - np.timedelta64(1, "D")
    return pd.Series(np.minimum(moved, last).astype("datetime64[s]"), index=days.index)


# --- Drawing ----------------------------------------------------------------------------------------------------------


def find_probabilities(value: Mapping[str, Any], persons: pd.DataFrame) -> Numbers:
    """The figure for everybody, with what is added for a cohort, an arm or a site; between 0 and 1."""
    chance = np.full(len(persons), float(value["all"]))
    for part, column in (("cohorts", "cohort"), ("arms", "arm"), ("sites", "site_id")):
        if part in value:
            chance += persons[column].map(value[part]).fillna(0.0).to_numpy(float)
    clipped: Numbers = np.clip(chance, 0.0, 1.0)
    return clipped


def _draw_days(rng: np.random.Generator, value: Mapping[str, float], n: int) -> pd.Series:
    days = np.round(value["median"] * rng.lognormal(0.0, value["spread"], n))
    clipped = np.clip(days, value["least"], value["most"]).astype("timedelta64[D]")
    return pd.Series(clipped.astype("timedelta64[s]"))


def _choose(rng: np.random.Generator, shares: Mapping[str, float], n: int) -> npt.NDArray[np.str_]:
    weights = np.array(list(shares.values()), float)
    return np.array(list(shares))[rng.choice(len(weights), n, p=weights / weights.sum())]


def compute_rates(flows: Sequence[Flow] | Iterable[Flow]) -> pd.DataFrame:
    """The three steps of each flow as rates: agreed of those approached, baselines of those, analysed of those."""
    frame = pd.DataFrame(flows, columns=list(Flow._fields))
    steps = list(Flow._fields)
    return pd.DataFrame({step: frame[step] / frame[before] for before, step in pairwise(steps)})
