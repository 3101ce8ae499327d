"""The flow of participants: one frame that says of each person what became of them, and the boxes counted from it.

`derive_disposition_rows` gives one row per person. `derive_flow_boxes` counts every box of the figure from these rows
alone, so that a released table of them gives the same boxes again; `find_flow_faults` holds every sum rule over them.

Judgement calls:

- Who is recorded at a later step has passed the earlier ones: who was allocated counts as consented. `find_flow_notes`
  says of how many people an earlier step is not on record.
- Before the groups each person leaves at one step, for one reason: what came of the approach, else the first way of
  leaving on record, else that the next step is awaited.
- Loss (the person left, or nothing came) is kept apart from exclusion by the study team, as the protocol's reasons say.
- Leaving the treatment is not leaving the study, unless all follow-up visits end with the treatment.
- Attendance at a wave adds up within the wave and never from wave to wave: people miss one and come back.
- Whoever has answered the main analysis's wave is followed up, whatever was told of them before or since.

Sources: CONSORT 2025, item 22 (randomised studies); TREND (2004), item 12, and STROBE (2007), item 13 (others).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from study.attrition import WHY_NOT_EXPECTED, derive_attrition_rows
from study.datasets import PARTICIPANTS, Column, Table
from study.events import ApproachAnswered, ParticipantApproached
from study.participation import DATA, QUESTIONNAIRES, TREATMENT, derive_stops
from study.protocol import DispositionReason, MainAnalysis, Study
from study.state import Events, derive_current_returns, derive_participants, remembered

Flags = npt.NDArray[np.bool_]

MOST_ARMS = 6
"""A figure is drawn for so many arms; more are a table."""
ALL = "all"
DISPOSITIONS = "dispositions"
NOT_RECORDED = "not_recorded"

STAGES = ("assessed", "approached", "agreed", "consented", "entered")
APPROACHES = {
    "agreed": "Agreed to take part",
    "declined": "Declined",
    "not_eligible": "Not eligible",
    "no_answer": "No answer so far",
}
ENTRIES = {
    "entered": "Entered a group",
    "not_eligible": "Not eligible",
    "declined": "Declined to take part",
    "lost": "Left before entering a group",
    "died": "Died",
    "excluded": "Excluded by the study team",
    "not_approached": "Not approached so far",
    "no_answer": "No answer so far",
    "consent_awaited": "Consent not in so far",
    "not_allocated": "Not in a group so far",
}
STANDINGS = {
    "in": "In the study so far",
    "completed": "Completed the study",
    "lost": "Left the study",
    "died": "Died",
    "excluded": "Excluded by the study team",
}
TREATMENTS = {
    "ongoing": "On it, or nothing else recorded",
    "completed": "Completed it",
    "lost": "Discontinued",
    "died": "Died",
    "excluded": "Taken off it by the study team",
}
OUTCOMES = {
    "returned": "Returned",
    "awaited": "Awaited, the window is open",
    "missed": "Missed, reason not known",
    "lost": "Had left",
    "excluded": "Had been excluded by the study team",
    "died": "Had died",
    "not_due": "Window not open yet",
    "not_expected": "Not expected",
}
FOLLOW_UPS = {
    "followed_up": "Followed up",
    "lost": "Left before answering",
    "died": "Died",
    "missed": "Missed, reason not known",
    "not_answered": "Came, without the outcome",
    "no_anchor": "What the wave counts from never came",
    "excluded": "Excluded by the study team",
    "not_expected": "Not expected",
    "awaited": "Awaited, the window is open",
    "not_due": "Window not open yet",
}
LOSSES = ("lost", "died", "missed", "not_answered", "no_anchor")
"""Of FOLLOW_UPS: what counts as lost to follow-up."""
NOT_ANALYSED = {
    "data_withdrawn": "What was given has been withdrawn",
    "no_baseline": "No baseline",
    "baseline_late": "Baseline after its last day",
    "late": "Answered after the last day",
}
BASELINES = {
    "in_time": "Baseline in time",
    "late": "Baseline after its last day",
    "none": "No baseline so far",
}
NO_YES = ((0, "No"), (1, "Yes"))

RULES: Mapping[str, str] = {
    "approach": "assessed = left before the approach + not approached so far + approached",
    "agreement": "approached = did not agree + no answer so far + agreed",
    "consent": "agreed = left before consent + consent awaited + consented",
    "entry": "the last box before the groups = left before them + not in a group so far + entered",
    "receipt": "allocated = received + did not receive",
    "baseline": "allocated = baseline in time + late + none so far",
    "treatment": "allocated = on the treatment + completed + discontinued + taken off + died",
    "leaving": "allocated = in the study + completed + left + excluded + died",
    "follow_up": "allocated = followed up + lost to follow-up + excluded + not expected + awaited",
    "analysis": "followed up = analysed + excluded from the analysis",
    "exits": "left before the next step = every way of leaving",
    "loss": "lost to follow-up = left + died + nothing came",
    "reasons": "a line = its reasons",
    "attendance": "allocated = returned + every reason for not having returned, within a wave",
    "arms": "all = the sum over the arms",
    "allocation": "entered = the sum of the people allocated",
    "people": "assessed = people in the table of dispositions",
}
"""Every sum rule that must hold, by name."""

BOX_COLUMNS = ("stage", "box", "part_of", "rule", "reason", "label", "group", "n", "n_sites")

_LEAVING_KINDS = {"loss": "lost", "exclusion": "excluded", "death": "died", "completion": "completed", "": "lost"}
_OF_STUDY = frozenset({"study", "questionnaires", "data"})
_REASON_KINDS = {**_LEAVING_KINDS, "unexplained": "missed", "awaited": "awaited"}
_NOT_EXPECTED = {"died": "died", "ineligible": "excluded", "not_due": "not_due"}
_COUNTS_AS = {"lost": "loss", "died": "death", "excluded": "exclusion", "completed": "completion"}


@dataclass(frozen=True)
class Wording:
    """The words of a standard for the flow. `standard`: its name; `entered`, `into`: of the box above the groups, and
    of a group's first one; `out`: of those who left before the next step."""

    standard: str
    assessed: str
    entered: str
    into: str
    treatment: str
    out: str


def find_wording(study: Study) -> Wording:
    """The wording by how people come into the arms: `study.allocation` says whether by chance."""
    if study.allocation == "randomised":
        return Wording(
            "CONSORT 2025", "Assessed for eligibility", "Randomised", "Allocated", "allocated intervention", "Excluded"
        )
    entered = "Enrolled" if study.allocation == "none" else "Entered a group"
    return Wording(
        "TREND and STROBE", "Assessed for eligibility", entered, "In the group", "the intervention", "Did not go on"
    )


def find_main_analysis(study: Study) -> MainAnalysis | None:
    """None: the protocol states none, and the flow ends with who is still in the study."""
    return next(iter(study.main_analysis), None)


def find_baseline_wave(study: Study) -> str | None:
    return next((wave.id for wave in study.waves if wave.role == "baseline"), None)


def list_stages(study: Study) -> list[str]:
    """The steps up to the groups that this study keeps records of, of STAGES."""
    kept = ["assessed"]
    if study.fieldwork.approach_reasons:
        kept += ["approached", "agreed"]
    if study.consent_basis == "signed" and study.allocation != "none":
        kept.append("consented")
    return [*kept, "entered"]


def ends_with_treatment(study: Study) -> bool:
    """Whether all follow-ups are visits of the treatment, so that who leaves it leaves the study."""
    follow_ups = [wave for wave in study.waves if wave.role == "follow_up"]
    return bool(follow_ups) and all(wave.ends_with_treatment for wave in follow_ups)


def keeps_treatment(study: Study) -> bool:
    """Whether ways of leaving the treatment are recorded, apart from those of leaving the study."""
    return not ends_with_treatment(study) and any("treatment" in reason.scopes for reason in study.disposition_reasons)


def keeps_receipt(study: Study) -> bool:
    return any(reason.is_never_received for reason in study.disposition_reasons)


# The frame ----------------------------------------------------------------------------------------------------------


def name_outcome(wave_id: str) -> str:
    """The column of the outcome at a wave."""
    return f"outcome_{wave_id}"


def derive_dispositions_layout(study: Study) -> Table:
    """The released table of dispositions; a column for each wave of the protocol."""
    own = {column.name: column for column in PARTICIPANTS.columns}
    reason = "Reason for it, as the protocol lists reasons"
    columns = [
        *(own[name] for name in ("participant_id", "site", "arm", "cohort", "screened_on")),
        Column("approached_on", "date", "Date on which the site told the person of the study"),
        Column("approach", "text", "What came of the approach; empty where nobody approached them", codes="approach"),
        Column("approach_reason", "text", "Why the person did not join, as told at the approach"),
        own["consented_on"],
        own["allocated_on"],
        Column("reached", "text", "The last step up to the groups that the person reached", codes="flow_stage"),
        Column("entry", "text", "Whether the person entered a group, or why not", codes="entry"),
        Column("entry_reason", "text", reason),
        Column("received", "number", "Whether the intervention was received; empty: not recorded", levels=NO_YES),
        Column("treatment", "text", "Where the person stands with the treatment", codes="treatment"),
        Column("treatment_reason", "text", reason, codes="disposition"),
        Column("treatment_left_on", "date", "Date on which the treatment ended"),
        Column("standing", "text", "Where the person stands with the study", codes="standing"),
        Column("left_reason", "text", reason, codes="disposition"),
        Column("left_on", "date", "Date of it"),
        *(
            Column(name_outcome(wave.id), "text", f"What became of the wave: {wave.label}", codes="wave_outcome")
            for wave in study.waves
        ),
        Column("baseline", "text", "Whether the main analysis's baseline is in", codes="baseline"),
        Column("follow_up", "text", "Whether the main analysis's outcome is in, or why not", codes="follow_up"),
        Column("follow_up_reason", "text", "Why the outcome is not in"),
        Column("analysed", "number", "Whether the person is in the main analysis", levels=NO_YES),
        Column("not_analysed", "text", "Why somebody who was followed up is not", codes="not_analysed"),
    ]
    return Table(DISPOSITIONS, ("participant_id",), tuple(columns))


OF_DISPOSITIONS: Mapping[str, Mapping[str, str]] = {
    "approach": APPROACHES,
    "flow_stage": dict(zip(STAGES, ("Assessed", "Approached", "Agreed", "Consented", "Entered a group"), strict=True)),
    "entry": ENTRIES,
    "treatment": TREATMENTS,
    "standing": STANDINGS,
    "baseline": BASELINES,
    "wave_outcome": OUTCOMES,
    "follow_up": FOLLOW_UPS,
    "not_analysed": NOT_ANALYSED,
}
"""The codes that the table of dispositions has beyond those of the study."""


@remembered
def derive_disposition_rows(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """What became of each person by the end of a day: `derive_dispositions_layout`, one row per person on record,
    ordered by participant_id.

    `arm` is the arm allocated to; of a study without allocation its one arm, once the person consented. Columns from
    `received` on are empty of who is in no arm, except the outcomes of waves: who is not allocated may have answered.
    """
    view = events.select(as_of=as_of)
    people = _find_people(study, view)
    stops = derive_stops(study, view, as_of)
    _add_entry(study, people, stops)
    is_in = people["arm"].notna().to_numpy(bool)
    _add_leaving(study, people, stops, is_in)
    rows = derive_attrition_rows(study, view, as_of)
    returns = derive_current_returns(
        view, ["participant_id", "respondent", "wave", "instrument", "occurred_on", "n_answered"]
    )
    reasons = _add_outcomes(study, people, stops, rows, returns)
    _add_analysis(study, people, stops, rows, returns, reasons, is_in)
    return derive_dispositions_layout(study).shape(people)


def _find_people(study: Study, view: Events) -> pd.DataFrame:
    known = derive_participants(view).rename(columns={"site_id": "site"}).set_index("participant_id")
    columns = ["participant_id", "site_id", "cohort", "occurred_on"]
    approached = view.frame(ParticipantApproached, columns).drop_duplicates("participant_id")
    answered = view.frame(ApproachAnswered).drop_duplicates("participant_id", keep="last")
    sites = pd.concat([approached, answered]).drop_duplicates("participant_id").set_index("participant_id")["site_id"]
    people = known.reindex(known.index.union(sites.index, sort=True))
    people["site"] = people["site"].fillna(sites)
    approached, answered = approached.set_index("participant_id"), answered.set_index("participant_id")
    people["cohort"] = people["cohort"].fillna(approached["cohort"])
    people["approached_on"] = approached["occurred_on"].fillna(answered["occurred_on"]).reindex(people.index)
    late = answered["occurred_on"].reindex(people.index)
    people["approached_on"] = people["approached_on"].fillna(late)
    people["approach"] = answered["outcome"].reindex(people.index)
    people["approach"] = people["approach"].where(
        people["approach"].notna() | people["approached_on"].isna(), "no_answer"
    )
    reason = answered["reason"].reindex(people.index)
    people["approach_reason"] = reason.where(reason != "")
    if study.allocation == "none":
        only = pd.Series(study.arms[0].id, people.index, dtype="str")
        people["arm"] = only.where(people["consented_on"].notna() | people["arm"].notna())
    return people.rename_axis("participant_id").reset_index()


def _add_entry(study: Study, people: pd.DataFrame, stops: pd.DataFrame) -> None:
    stages = list_stages(study)
    reaches = {
        "assessed": np.ones(len(people), bool),
        "approached": people["approached_on"].notna().to_numpy(bool),
        "agreed": (people["approach"] == "agreed").to_numpy(bool),
        "consented": people["consented_on"].notna().to_numpy(bool),
        "entered": people["arm"].notna().to_numpy(bool),
    }
    if "consented" not in stages and "agreed" in stages:  # a consent is an agreement, whatever the study calls it
        reaches["agreed"] = reaches["agreed"] | reaches["consented"]
    place = np.max([np.where(reaches[name], number, 0) for number, name in enumerate(stages)], axis=0)
    people["reached"] = _take(stages, place)
    left = _find_first(people, stops, (QUESTIONNAIRES,))
    ineligible = [reason.id for reason in study.disposition_reasons if reason.is_ineligibility]
    refused = people["approach"].isin(("declined", "not_eligible")) & (people["reached"] == "approached")
    next_step = {"approached": "not_approached", "agreed": "no_answer", "consented": "consent_awaited"}
    pending = [next_step.get(name, "not_allocated") for name in stages[1:]]
    if study.allocation == "none":
        pending[-1] = "consent_awaited"
    entry = _take([*pending, "entered"], place)
    is_out = entry != "entered"
    told = left["kind"].replace("completed", "lost").mask(left["reason"].isin(ineligible), "not_eligible")
    has_left = is_out & left["on"].notna()
    entry = entry.mask(has_left, told).mask(is_out & refused, people["approach"])
    reason = left["reason"].where(has_left).mask(is_out & refused, people["approach_reason"])
    people["entry"], people["entry_reason"] = entry, reason


def _find_first(people: pd.DataFrame, stops: pd.DataFrame, things: Sequence[str]) -> pd.DataFrame:
    """How each person first left one of these: on, reason and kind (of STANDINGS; missing where they have not)."""
    own = stops[stops["stops"].isin(things)].sort_values("from_on", kind="stable").drop_duplicates("participant_id")
    own = own.assign(kind=own["kind"].map(_LEAVING_KINDS).astype("str")).set_index("participant_id")
    found = own[["from_on", "reason", "kind"]].reindex(people["participant_id"]).reset_index(drop=True)
    return found.rename(columns={"from_on": "on"})


def _add_leaving(study: Study, people: pd.DataFrame, stops: pd.DataFrame, is_in: Flags) -> None:
    things = (QUESTIONNAIRES, TREATMENT) if ends_with_treatment(study) else (QUESTIONNAIRES,)
    left, treatment = _find_first(people, stops, things), _find_first(people, stops, (TREATMENT,))
    people["standing"] = left["kind"].fillna("in").where(is_in)
    people["left_reason"], people["left_on"] = left["reason"].where(is_in), left["on"].where(is_in)
    people["treatment"] = treatment["kind"].fillna("ongoing").where(is_in)
    people["treatment_reason"] = treatment["reason"].where(is_in)
    people["treatment_left_on"] = treatment["on"].where(is_in)
    never = [reason.id for reason in study.disposition_reasons if reason.is_never_received]
    received = (~people["treatment_reason"].isin(never)).astype("float64")
    people["received"] = received.where(is_in & bool(never))


def _add_outcomes(
    study: Study, people: pd.DataFrame, stops: pd.DataFrame, rows: pd.DataFrame, returns: pd.DataFrame
) -> dict[str, pd.Series[Any]]:
    """The outcome at each wave, over all respondents of a person: the first of OUTCOMES that one of them has. Gives the
    reasons beside them, by wave."""
    kinds = rows["reason_kind"].map(_REASON_KINDS)
    outcome = kinds.where(rows["is_expected"], rows["why_not_expected"].map(_NOT_EXPECTED).fillna("not_expected"))
    outcome = outcome.mask(rows["is_returned"], "returned")
    rank = outcome.map({code: number for number, code in enumerate(OUTCOMES)})
    # Who had died or been excluded before is not expected: the reason is the one that was told of it.
    told = rows["why_not_expected"].copy()
    ineligible = [reason.id for reason in study.disposition_reasons if reason.is_ineligibility]
    for why, own in (("died", stops["kind"] == "death"), ("ineligible", stops["reason"].isin(ineligible))):
        reason_of = stops[own].drop_duplicates("participant_id").set_index("participant_id")["reason"]
        told = told.mask(told == why, rows["participant_id"].map(reason_of))
    reason = rows["reason"].where(rows["is_expected"], told)
    found = rows[["participant_id", "wave"]].assign(outcome=outcome, rank=rank, reason=reason)
    found = found.sort_values("rank", kind="stable").drop_duplicates(["participant_id", "wave"])
    ids = pd.Index(people["participant_id"])
    reasons = {}
    for wave in study.waves:
        at_wave = found[found["wave"] == wave.id].set_index("participant_id").reindex(ids)
        came = ids.isin(returns.loc[returns["wave"] == wave.id, "participant_id"])
        people[name_outcome(wave.id)] = at_wave["outcome"].fillna("not_expected").mask(came, "returned").to_numpy()
        reasons[wave.id] = at_wave["reason"].reset_index(drop=True)
    return reasons


def _add_analysis(
    study: Study,
    people: pd.DataFrame,
    stops: pd.DataFrame,
    rows: pd.DataFrame,
    returns: pd.DataFrame,
    reasons: Mapping[str, pd.Series[Any]],
    is_in: Flags,
) -> None:
    main = find_main_analysis(study)
    if main is None:
        for name in ("baseline", "follow_up", "follow_up_reason", "analysed", "not_analysed"):
            people[name] = None
        return
    of_main = returns[returns["respondent"].isin(main.respondents) & (returns["n_answered"] > 0)]
    wanted = of_main["wave"] == main.wave
    if main.instruments:
        wanted &= of_main["instrument"].isin(main.instruments)
    first_on, last_on = _find_answered(people, of_main[wanted]), _find_last_days(people, rows, main.wave)
    is_followed = first_on.notna().to_numpy(bool)
    outcome = people[name_outcome(main.wave)].replace("returned", "not_answered")
    people["follow_up"] = outcome.mask(is_followed, "followed_up").where(is_in)
    reason = reasons[main.wave]
    over = rows.loc[(rows["wave"] == main.wave) & rows["is_over"], "participant_id"]
    was_over = people["participant_id"].isin(over).to_numpy(bool)
    has_none = (people["follow_up"] == "not_expected") & (reason == "no_anchor")
    people["follow_up"] = (
        people["follow_up"].mask(has_none & was_over, "no_anchor").mask(has_none & ~was_over, "not_due")
    )
    has_reason = is_in & people["follow_up"].isin(("lost", "died", "excluded", "not_expected")).to_numpy(bool)
    people["follow_up_reason"] = reason.where(has_reason & (reason != "").to_numpy(bool))
    faults = {"data_withdrawn": people["participant_id"].isin(stops.loc[stops["stops"] == DATA, "participant_id"])}
    people["baseline"] = None
    before = find_baseline_wave(study)
    if before is not None:
        first = returns[returns["respondent"].isin(main.respondents) & (returns["wave"] == before)]
        baseline_on = _find_answered(people, first)
        is_late = ~(baseline_on <= _find_last_days(people, rows, before))
        baseline = pd.Series("in_time", people.index, dtype="str").mask(is_late, "late")
        people["baseline"] = baseline.mask(baseline_on.isna(), "none").where(is_in)
        if main.needs_baseline:
            faults |= {"no_baseline": baseline_on.isna(), "baseline_late": is_late}
    if main.in_time:
        faults["late"] = ~(first_on <= last_on)
    why = pd.Series(None, people.index, dtype="str")
    for code in reversed(list(faults)):
        why = why.mask(faults[code], code)
    people["not_analysed"] = why.where(is_followed & is_in)
    people["analysed"] = (why.isna() & is_followed).astype("float64").where(is_in)


def _find_answered(people: pd.DataFrame, returns: pd.DataFrame) -> pd.Series[Any]:
    first = returns.groupby("participant_id")["occurred_on"].min()
    return first.reindex(people["participant_id"]).reset_index(drop=True)


def _find_last_days(people: pd.DataFrame, rows: pd.DataFrame, wave_id: str) -> pd.Series[Any]:
    own = rows[rows["wave"] == wave_id].groupby("participant_id")["last_on"].max()
    return own.reindex(people["participant_id"]).reset_index(drop=True)


def _take(words: Sequence[str], places: Any) -> pd.Series[Any]:
    return pd.Series(np.array(words, object)[places], dtype="str")


# The boxes ----------------------------------------------------------------------------------------------------------


class _Counter:
    """Counts people and their sites, by group, into rows of BOX_COLUMNS."""

    def __init__(self, people: pd.DataFrame, arms: Sequence[str]) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.arms = list(arms)
        self.site, sites = pd.factorize(people["site"].fillna(""))
        self.n_sites = max(len(sites), 1)
        self.group = pd.Categorical(people["arm"], categories=self.arms).codes

    def add(
        self, stage: str, box: str, where: Any, label: str, *, part_of: str = "", rule: str = "", reason: str = "",
        by_arm: bool = True,
    ) -> None:  # fmt: skip
        held = np.asarray(where, bool)
        common = (stage, box, part_of, rule, reason, label)
        self.rows.append((*common, ALL, *self._count(held)))
        if by_arm:
            for number, arm in enumerate(self.arms):
                self.rows.append((*common, arm, *self._count(held & (self.group == number))))

    def _count(self, held: Flags) -> tuple[int, int]:
        return int(held.sum()), int((np.bincount(self.site[held], minlength=self.n_sites) > 0).sum())

    def add_reasons(
        self, stage: str, box: str, where: Any, told: pd.Series[Any], labels: Mapping[str, str], *, by_arm: bool = True
    ) -> None:
        """A row for each reason of `labels`, for each other one that is told, and where one is missing for that."""
        held = np.asarray(where, bool)
        told = told.fillna(NOT_RECORDED).mask(told == "", NOT_RECORDED)
        found = list(told[held].unique())
        other = sorted(set(found) - set(labels) - {NOT_RECORDED})
        words = {**labels, **{code: code.replace("_", " ") for code in other}}
        if NOT_RECORDED in found:
            words[NOT_RECORDED] = "No reason recorded"
        for code, label in words.items():
            is_own = held & (told == code).to_numpy(bool)
            self.add(
                stage, f"{box}.{code}", is_own, label, part_of=box, rule="reasons", reason=code, by_arm=by_arm
            )  # fmt: skip

    def build(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows, columns=list(BOX_COLUMNS)).astype({"n": "int64", "n_sites": "int64"})


def derive_flow_boxes(people: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Every box of the flow and every line in one, counted from the rows of `derive_disposition_rows` alone.

    BOX_COLUMNS: stage (enrolment, allocation, follow_up, attendance, analysis), box (its name), part_of (the box that
    it is a part of, "" for none), rule (of RULES, by which the parts add up to it, "" for none), reason (of attendance:
    the wave), label, group (an arm, or ALL), n, n_sites (sites that these people belong to). Boxes before the groups
    are of ALL alone. Reasons that the protocol lists have rows with 0 too. Arms in the protocol's order, others after
    them by name.
    """
    people = people.reset_index(drop=True)
    known = [arm.id for arm in study.arms]
    counter = _Counter(people, [*known, *sorted(set(people["arm"].dropna()) - set(known))])
    _count_enrolment(counter, people, study)
    is_in = (people["reached"] == "entered").to_numpy(bool)
    counter.add("allocation", "allocated", is_in, find_wording(study).into)
    _count_treatment(counter, people, study, is_in)
    _count_standing(counter, people, study, is_in)
    _count_attendance(counter, people, study, is_in)
    _count_analysis(counter, people, study, is_in)
    return counter.build()


_OPEN = ("not_approached", "no_answer", "consent_awaited", "not_allocated")
_WITH_REASONS = ("not_eligible", "declined", "lost", "died", "excluded")


def _count_enrolment(counter: _Counter, people: pd.DataFrame, study: Study) -> None:
    wording, stages = find_wording(study), list_stages(study)
    words = {"assessed": wording.assessed, "approached": "Approached", "agreed": "Agreed to take part"}
    words |= {"consented": "Consented", "entered": wording.entered}
    rules = {"approached": "approach", "agreed": "agreement", "consented": "consent", "entered": "entry"}
    place = people["reached"].map({name: number for number, name in enumerate(stages)}).fillna(-1).to_numpy()
    entry, told = people["entry"], people["entry_reason"]
    counter.add("enrolment", "assessed", np.ones(len(people), bool), wording.assessed, by_arm=False)
    for number, name in enumerate(stages[1:], start=1):
        before = stages[number - 1]
        of_step: dict[str, Any] = {"part_of": before, "rule": rules[name], "by_arm": False}
        is_here, expected = place == number - 1, _list_exits(study, before, name)
        is_left = is_here & entry.isin(_WITH_REASONS).to_numpy(bool)
        counter.add("enrolment", f"{before}.out", is_left, wording.out, **of_step)
        for code in _WITH_REASONS:
            is_own = is_here & (entry == code).to_numpy(bool)
            if code in expected or is_own.any():
                counter.add(
                    "enrolment", f"{before}.{code}", is_own, ENTRIES[code], part_of=f"{before}.out", rule="exits",
                    by_arm=False,
                )  # fmt: skip
                labels = _complete(_find_entry_labels(study, before, code), told[is_own], study)
                counter.add_reasons("enrolment", f"{before}.{code}", is_own, told, labels, by_arm=False)
        for code in _OPEN:
            is_own = is_here & (entry == code).to_numpy(bool)
            if code in expected or is_own.any():
                counter.add("enrolment", f"{before}.{code}", is_own, ENTRIES[code], **of_step)
        counter.add("enrolment", name, place >= number, words[name], **of_step)


def _list_exits(study: Study, before: str, name: str) -> tuple[str, ...]:
    """The ways of leaving at a step that have a row with 0 too."""
    if name == "approached":
        return ("not_approached",)
    if before == "approached":
        last = ("lost", "died", "excluded") if name == "entered" else ()
        return ("not_eligible", "declined", *last, "no_answer")
    if name == "entered":
        ineligible = any(reason.is_ineligibility for reason in study.disposition_reasons)
        awaited = "consent_awaited" if study.allocation == "none" else "not_allocated"
        return (*(["not_eligible"] if ineligible else []), "lost", "died", "excluded", awaited)
    return ("consent_awaited",)


def _find_entry_labels(study: Study, before: str, code: str) -> dict[str, str]:
    """The reasons that have a row with 0 too, under a way of leaving before the groups."""
    if before == "approached" and code in ("declined", "not_eligible"):
        return {given.id: given.label for given in study.fieldwork.approach_reasons if given.outcome == code}
    if code in ("not_eligible", "excluded"):
        excluding = _list_reasons(study, "exclusion")
        return _label([reason for reason in excluding if reason.is_ineligibility == (code == "not_eligible")])
    return {}


def _list_reasons(study: Study, kind: str, scopes: frozenset[str] = _OF_STUDY) -> list[DispositionReason]:
    return [reason for reason in study.disposition_reasons if reason.kind == kind and scopes & set(reason.scopes)]


def _label(reasons: Sequence[DispositionReason]) -> dict[str, str]:
    return {reason.id: reason.label for reason in reasons}


def _count_treatment(counter: _Counter, people: pd.DataFrame, study: Study, is_in: Flags) -> None:
    treatment, scope = find_wording(study).treatment, frozenset({"treatment"})
    if keeps_receipt(study):
        received = (people["received"] == 1).to_numpy(bool)
        common: dict[str, Any] = {"part_of": "allocated", "rule": "receipt"}
        counter.add("allocation", "received", is_in & received, f"Received {treatment}", **common)
        counter.add("allocation", "not_received", is_in & ~received, f"Did not receive {treatment}", **common)
        never = [reason for reason in study.disposition_reasons if reason.is_never_received]
        counter.add_reasons(
            "allocation", "not_received", is_in & ~received, people["treatment_reason"], _label(never)
        )  # fmt: skip
    if not keeps_treatment(study):
        return
    words = {**TREATMENTS, "lost": f"Discontinued {treatment}", "ongoing": f"On {treatment}, or nothing else recorded"}
    _count_leaving(counter, people, study, is_in, "treatment", words, scope)


def _count_standing(counter: _Counter, people: pd.DataFrame, study: Study, is_in: Flags) -> None:
    scopes = _OF_STUDY | {"treatment"} if ends_with_treatment(study) else _OF_STUDY
    words = dict(STANDINGS)
    if ends_with_treatment(study):
        words |= {"in": "Still on treatment", "lost": f"Discontinued {find_wording(study).treatment}"}
    _count_leaving(counter, people, study, is_in, "standing", words, scopes)


def _count_leaving(
    counter: _Counter, people: pd.DataFrame, study: Study, is_in: Flags, column: str, words: Mapping[str, str],
    scopes: frozenset[str],
) -> None:  # fmt: skip
    rule = "leaving" if column == "standing" else "treatment"
    told = people["left_reason" if column == "standing" else "treatment_reason"]
    for code, label in words.items():
        is_own = is_in & (people[column] == code).to_numpy(bool)
        counter.add("follow_up", f"{column}.{code}", is_own, label, part_of="allocated", rule=rule)
        if code in ("lost", "excluded", "died"):
            labels = _label(_list_reasons(study, _COUNTS_AS[code], scopes))
            counter.add_reasons("follow_up", f"{column}.{code}", is_own, told, _complete(labels, told[is_own], study))


def _complete(labels: Mapping[str, str], told: pd.Series[Any], study: Study) -> dict[str, str]:
    """The labels with those of other reasons of the protocol that are told, in its order."""
    found = set(told.dropna())
    others = {reason.id: reason.label for reason in study.disposition_reasons if reason.id in found | set(labels)}
    return {**labels, **{code: label for code, label in others.items() if code not in labels}}


def _count_attendance(counter: _Counter, people: pd.DataFrame, study: Study, is_in: Flags) -> None:
    for wave in study.waves:
        outcome = people[name_outcome(wave.id)]
        for code, label in OUTCOMES.items():
            counter.add(
                "attendance", f"wave.{wave.id}.{code}", is_in & (outcome == code).to_numpy(bool),
                wave.label if code == "returned" else label, part_of="allocated", rule="attendance", reason=wave.id,
            )  # fmt: skip


def _count_analysis(counter: _Counter, people: pd.DataFrame, study: Study, is_in: Flags) -> None:
    main = find_main_analysis(study)
    if main is None:
        return
    wave = study.find_wave(main.wave)
    at = wave.label if wave else main.wave
    if find_baseline_wave(study) is not None:
        for code, label in BASELINES.items():
            is_own = is_in & (people["baseline"] == code).to_numpy(bool)
            counter.add("allocation", f"baseline.{code}", is_own, label, part_of="allocated", rule="baseline")
    told = people["follow_up_reason"]
    follow_up = people["follow_up"]
    is_lost = is_in & follow_up.isin(LOSSES).to_numpy(bool)
    heads = {"followed_up": f"Followed up at {at}"}
    for code, label in FOLLOW_UPS.items():
        if code == "lost":
            counter.add("analysis", "lost", is_lost, "Lost to follow-up", part_of="allocated", rule="follow_up")
        is_own = is_in & (follow_up == code).to_numpy(bool)
        of: dict[str, Any] = {"part_of": "allocated", "rule": "follow_up"}
        if code in LOSSES:
            of = {"part_of": "lost", "rule": "loss"}
        counter.add("analysis", f"follow_up.{code}", is_own, heads.get(code, label), **of)
        if code in ("lost", "excluded", "died"):
            kept = _OF_STUDY | {"treatment"} if wave and wave.ends_with_treatment else _OF_STUDY
            labels = _complete(_label(_list_reasons(study, _COUNTS_AS[code], kept)), told[is_own], study)
            counter.add_reasons("analysis", f"follow_up.{code}", is_own, told, labels)
        elif code == "not_expected":
            more = {c: words for c, words in WHY_NOT_EXPECTED.items() if c in set(told[is_own].dropna())}
            counter.add_reasons("analysis", f"follow_up.{code}", is_own, told, more)
    common: dict[str, Any] = {"part_of": "follow_up.followed_up", "rule": "analysis"}
    analysed = is_in & (people["analysed"] == 1).to_numpy(bool)
    counter.add("analysis", "analysed", analysed, f"Analysed: {main.label}", **common)
    excluded = is_in & (people["follow_up"] == "followed_up").to_numpy(bool) & ~analysed
    counter.add("analysis", "not_analysed", excluded, "Excluded from the analysis", **common)
    could = ["data_withdrawn", *(["no_baseline", "baseline_late"] if main.needs_baseline else [])]
    could += ["late"] if main.in_time else []
    counter.add_reasons(
        "analysis", "not_analysed", excluded, people["not_analysed"], {code: NOT_ANALYSED[code] for code in could}
    )  # fmt: skip


# What must hold -----------------------------------------------------------------------------------------------------


def find_flow_faults(people: pd.DataFrame, boxes: pd.DataFrame, study: Study) -> list[str]:
    """Every sum rule of RULES that the boxes break, and every person whom no box can hold; no identifiers.

    `people`: as from `derive_disposition_rows`; `boxes`: as from `derive_flow_boxes`, or as read back from a file.
    """
    faults = _find_person_faults(people, study)
    keys = zip(boxes["box"], boxes["group"], strict=True)
    counts: dict[tuple[str, str], int] = dict(zip(keys, boxes["n"].tolist(), strict=True))
    if len(counts) != len(boxes):
        return [*faults, "The flow has a box twice."]
    parts = boxes[boxes["part_of"] != ""].assign(place=boxes["reason"].where(boxes["rule"] == "attendance", ""))
    sums = parts.groupby(["part_of", "rule", "place", "group"])["n"].sum().reset_index()
    for whole, rule, _, group, n in sums.itertuples(index=False, name=None):
        if counts.get((whole, group)) != n:
            faults.append(_word_fault(rule, f"{whole}, {group}", counts.get((whole, group)), n))
    over_arms = boxes[(boxes["group"] != ALL) & (boxes["stage"] != "enrolment")].groupby("box")["n"].sum()
    for box, n in over_arms.items():
        if counts.get((str(box), ALL)) != n:
            faults.append(_word_fault("arms", str(box), counts.get((str(box), ALL)), n))
    once = {"allocation": ("entered", counts.get(("allocated", ALL))), "people": ("assessed", len(people))}
    for rule, (box, expected) in once.items():
        if counts.get((box, ALL)) != expected:
            faults.append(_word_fault(rule, box, counts.get((box, ALL)), expected))
    return faults


def _word_fault(rule: str, place: str, stated: Any, n: Any) -> str:
    return f'The flow does not add up at {place}: {stated}, and its parts are {n} (rule "{rule}": {RULES[rule]}).'


def _find_person_faults(people: pd.DataFrame, study: Study) -> list[str]:
    faults = []
    repeated = people[people["participant_id"].duplicated(keep=False)]
    n_arms = repeated.groupby("participant_id")["arm"].nunique()
    if n_several := int((n_arms > 1).sum()):
        who = "participant stands" if n_several == 1 else "participants stand"
        faults.append(f"{n_several} {who} in more than one arm. Void the allocation that was a mistake.")
    if n_twice := int((n_arms <= 1).sum()):
        faults.append(f"{n_twice} {'participant is' if n_twice == 1 else 'participants are'} there twice.")
    n_strange = int((people["arm"].notna() & ~people["arm"].isin([arm.id for arm in study.arms])).sum())
    if n_strange:
        faults.append(f"{n_strange} people are in an arm that the protocol does not have.")
    return faults


def find_release_faults(
    people: pd.DataFrame, participants: pd.DataFrame, records: pd.DataFrame, study: Study
) -> list[str]:
    """Where the dispositions and the released tables contradict each other.

    Everybody in `participants` has a disposition and the same arm, and who has answers at a wave of the protocol
    (`records`, from `study.answers`) is there as returned. The other way round is no fault: answers that were erased or
    are kept apart came all the same.
    """
    faults = []
    ours = people.set_index("participant_id")
    joined = participants.set_index("participant_id")
    n_absent = int((~joined.index.isin(ours.index)).sum())
    if n_absent:
        faults.append(f"dispositions: {n_absent} people of the table participants are not there.")
    both = joined.index.intersection(ours.index)
    theirs = joined.loc[both, "arm"]
    n_other = int((theirs.notna() & (theirs != ours.loc[both, "arm"])).sum())
    if n_other:
        faults.append(f"dispositions.arm: {n_other} people have another arm in the table participants.")
    came = records[["participant_id", "wave"]].drop_duplicates()
    for wave in study.waves:
        outcome = ours[name_outcome(wave.id)].reindex(came.loc[came["wave"] == wave.id, "participant_id"])
        if n := int((outcome != "returned").sum()):
            faults.append(f"dispositions.{name_outcome(wave.id)}: {n} people with answers are not there as returned.")
    return faults


def find_flow_notes(people: pd.DataFrame, study: Study) -> list[str]:
    """What a reader must know of the figures, one sentence each: what is not recorded or not stated, arms in which
    nobody is or is left, steps that people passed without a record."""
    notes = []
    if people.empty:
        notes.append("Nobody has been screened yet.")
    if find_main_analysis(study) is None:
        notes.append("The protocol states no main analysis: the flow ends with who is still in the study.")
    if not keeps_receipt(study):
        notes.append("Whether people received the intervention is not recorded: no reason of the protocol says so.")
    entered = people[people["reached"] == "entered"]
    for arm in study.arms:
        own = entered[entered["arm"] == arm.id]
        if len(people) and own.empty:
            notes.append(f"{arm.label}: nobody is in this arm.")
        elif len(own) and own["standing"].isin(("lost", "died", "excluded")).all():
            notes.append(f"{arm.label}: nobody is left in the study, and nobody has completed it.")
    if len(study.arms) == 1:
        notes.append("The study has one arm: nothing is compared.")
    stages = list_stages(study)
    steps = {"approached": people["approached_on"].isna(), "agreed": people["approach"] != "agreed"}
    steps["consented"] = people["consented_on"].isna()
    place = people["reached"].map({name: number for number, name in enumerate(stages)})
    for number, name in enumerate(stages):
        if name in steps and (n := int((steps[name] & (place > number)).sum())):
            who = "1 person has" if n == 1 else f"{n:,} people have"
            notes.append(f"{who} gone further than this step without a record of it, and counted here: {name}.")
    return notes
