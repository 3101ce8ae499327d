"""Who is chased today for what is owed to the study, what comes next, and what rests and why.

What sites owe is returns, copies of consent forms, renewed consent, answers to queries and activity figures; what
bodies owe is approvals (`study/approval_chasing.py`). The plan is drawn up afresh each day from what is owed that day,
so whatever ends an obligation ends its chasers. Nothing is scheduled ahead.

Judgement calls:

- A step of a ladder is taken once for one obligation: its key holds no date, so a date that is corrected chases nobody
  twice. Of the steps that are due only the highest counts, and none below one that was taken is gone back to.
- What reached a site after its day counts from when it did: a pack that went out late, or months of figures that were
  over before the site began, start no flood of overdue letters. A notice ahead of a day is worth nothing after it, nor
  on the day on which the pack itself goes out.
- A return is chased while its site may collect it: under a body whose approval lapsed nobody is asked for
  questionnaires, nor for consent copies, queries or figures; the approval that lapsed is chased as ever.
- Queries and consent copies go on when a participant withdraws or dies, since the data were given; they end when the
  data themselves are withdrawn. Whoever answered a query has done their part: it is looked at here.
- A promise on the telephone lets what it was about rest at that site, to the end of the promised day.
- A step by telephone is never mailed: the coordinator is told of the call, and it stands on the list until it is
  logged. A role that a step `tells` is told in its own digest, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from study.approval_chasing import derive_approval_rungs
from study.approval_steps import DAY, ITEM
from study.calendar import HolidayCalendar, add_period, find_holidays, format_day, is_working_day
from study.consent import derive_consents, find_notice_day, name_forms
from study.events import (
    CallLogged,
    ChasingPaused,
    ChasingResumed,
    ConsentRecorded,
    ObligationChased,
    ParticipantApproached,
    ParticipantScreened,
)
from study.fieldwork import OBLIGATIONS, LadderStep
from study.gate import derive_open_days
from study.incidents import find_activity
from study.participation import DATA, QUESTIONNAIRES, derive_stops, is_stopped
from study.protocol import Study
from study.queries import find_unanswered_queries
from study.releasing import derive_owed_figures
from study.state import Events, derive_queries, is_in, remembered
from study.waves import derive_expected_returns

CHASER_STATES = ("due", "resting", "coming", "chased")
APPROVAL, TOLD = "approval", "told"
URGENCY = (
    *("incident", "authority", "applicant", "expiry", "review", "duty", "consent_copy", "reconsent", "return"),
    *("query", "activity_figures"),
)
"""What a chaser may be about, the most urgent first."""

_APPROVALS = ("authority", "applicant", "expiry", "review")
_IDS = ["participant_id", "respondent", "wave", "form_version", "renewal", "query_id", "figure", "month"]
_OWED_COLUMNS = ["about", "obligation", "site_id", "body_id", *_IDS, "owed_on", "had_on", "ends_on", "last_on"]
COLUMNS = [
    *("key", "chaser", "about", *ITEM, "duty", "incident_id", *_IDS, "to", "channel", "template", "anchor_on"),
    *("due_on", "state", "rests_because", "rests_until", "rule", "n_days_late", "owed_on", "n_days_overdue"),
    *("had_on", "ends_on", "obligation", "subject", "fact", "encloses_copy", "is_told", "of_role"),
]
_DAYS = ("anchor_on", "due_on", "rests_until", "owed_on", "had_on", "ends_on")
_COUNTS = ("n_days_late", "n_days_overdue")
_FLAGS = ("encloses_copy", "is_told")
_FAR = pd.Timestamp("2200-12-31")
_COLLECTING = ("collect_baseline", "collect_follow_up")


def derive_chasers(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """Every chaser that is due at the end of a day, rests, or comes next if nothing changes.

    One row per obligation and step, and one per role that is told of a step. Columns: key (`chase` of
    ObligationChased), chaser (the step's id), about (of URGENCY), approval, site_id, body_id, person_id, modification,
    duty, incident_id, participant_id, respondent, wave, form_version, renewal, query_id, figure, month ('' where that
    does not apply), to (a role), channel ("email", "telephone"), template, anchor_on, due_on (the day on which it is to
    go), state ("due", "resting": it is due and something forbids it today, "coming"), rests_because (words) and
    rests_until (its last day; NaT: open), rule (a sentence), n_days_late (since due_on), owed_on (the day by which the
    thing itself is owed; NaT for some approvals), n_days_overdue (since owed_on), had_on (since when the site can see
    to it; of a query, since when it was put to it), ends_on (of a return the window's last day, of a consent the last
    day on which it counts), obligation, subject and fact (what is owed, in words), encloses_copy, is_told (it is not
    chased but told, in a digest whatever the channel) and of_role (who is chased, where `to` is only told). The most
    urgent first, then by day and key.
    """
    rungs = derive_rungs(study, events, as_of)
    return rungs.loc[rungs["state"] != "chased"].reset_index(drop=True)


@remembered
def derive_rungs(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """The chasers of `derive_chasers`, and of each thing that is still owed the highest step that was taken (state
    "chased"; "resting" things that were chased among them, with their reason)."""
    events = events.select(as_of=as_of)
    taken = events.frame(ObligationChased, ["key"])["key"]
    of_approvals = derive_approval_rungs(study, events, as_of)
    of_approvals["owed_on"] = of_approvals["anchor_on"].where(of_approvals["about"].isin(["expiry", "review", "duty"]))
    parts = [of_approvals.reindex(columns=COLUMNS)]
    if study.fieldwork.chasing_rule is not None and as_of <= study.ends_on:
        parts.append(_derive_steps(study, events, taken, as_of).reindex(columns=COLUMNS))
    rungs = _complete(pd.concat([part for part in parts if len(part)] or parts, ignore_index=True), as_of)
    told = _derive_told(study, rungs)
    rungs = pd.concat([rungs, told.loc[~is_in(told["key"], taken)]], ignore_index=True)
    rungs = _rest(study, events, rungs, as_of)
    order = {about: place for place, about in enumerate(URGENCY)}
    states = {state: place for place, state in enumerate(CHASER_STATES)}
    rungs["order"], rungs["stage"] = rungs["about"].map(order), rungs["state"].map(states)
    rungs = rungs.sort_values(["stage", "order", "due_on", "key"], ignore_index=True)
    return rungs[COLUMNS]


def _complete(rungs: pd.DataFrame, as_of: date) -> pd.DataFrame:
    """The columns that not every part has, each of its kind."""
    for column in COLUMNS:
        if column in _DAYS:
            rungs[column] = rungs[column].astype(DAY)
        elif column in _FLAGS:
            rungs[column] = rungs[column].eq(True)
        elif column not in _COUNTS:
            rungs[column] = rungs[column].astype("object").fillna("").astype("str")
    day = pd.Timestamp(as_of)
    for column, since in (("n_days_late", "due_on"), ("n_days_overdue", "owed_on")):
        rungs[column] = (day - rungs[since]).dt.days.clip(lower=0).fillna(0).astype("int64")
    return rungs


# What is owed ---------------------------------------------------------------------------------------------------------


def derive_second_copies(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """Questionnaires of which a step that is due on a day encloses a second copy: participant_id, respondent, wave.

    Those of `derive_rungs`, without what else is owed and in what words.
    """
    events = events.select(as_of=as_of)
    stops = derive_stops(study, events, as_of)
    returns = _list_owed_returns(derive_expected_returns(study, events, as_of), stops)
    steps = _place_steps(study, _settle_owed(study, events, [returns], as_of), as_of)
    if len(steps) and study.fieldwork.chasing_rule is not None and as_of <= study.ends_on:
        steps = _choose_steps(steps, events.frame(ObligationChased, ["key"])["key"], as_of)
        steps = _rest(study, events, steps[steps["encloses_copy"]].copy(), as_of)
        returns = steps[steps["state"] == "due"]
    else:
        returns = returns.iloc[:0]
    return returns[["participant_id", "respondent", "wave"]].drop_duplicates(ignore_index=True)


@remembered
def derive_owed(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """What sites owe the study at the end of a day and may be asked for: one row an obligation.

    Columns: about (of OBLIGATIONS), obligation (how keys name it), site_id, body_id (of the participant; '' unknown),
    participant_id, respondent, wave, form_version, renewal (of a form signed anew on its version), query_id, figure,
    month, owed_on (the day by which it is owed), had_on (since when the site can see to it), ends_on (of a return the
    window's last day, of a consent the last day on which it counts) and last_on (the last day on which anybody is asked
    for it). What is owed under an approval that is not in force is left out.
    """
    events = events.select(as_of=as_of)
    stops = derive_stops(study, events, as_of)
    parts = [
        _list_owed_returns(derive_expected_returns(study, events, as_of), stops),
        *_derive_owed_consent(study, events, stops, as_of),
        _derive_owed_queries(study, events, stops),
        _derive_owed_figures(study, events, as_of),
    ]
    return _settle_owed(study, events, parts, as_of)


def _settle_owed(study: Study, events: Events, parts: list[pd.DataFrame], as_of: date) -> pd.DataFrame:
    """The rows that anybody may be asked for today, in the columns of `derive_owed`."""
    expected = derive_expected_returns(study, events, as_of)
    bodies = expected.drop_duplicates("participant_id").set_index("participant_id")["body_id"]
    screened = events.select(as_of=as_of).frame(ParticipantScreened).set_index("participant_id")["body_id"]
    bodies = pd.concat([bodies, screened])
    bodies = bodies[~bodies.index.duplicated()]
    owed = pd.concat([part.reindex(columns=_OWED_COLUMNS) for part in parts if len(part)] or [_no_obligations()])
    for column in ("owed_on", "had_on", "ends_on", "last_on"):
        owed[column] = owed[column].astype(DAY)
    last_on = owed["last_on"].fillna(_FAR)
    owed["last_on"] = last_on.where(last_on <= pd.Timestamp(study.ends_on), pd.Timestamp(study.ends_on))
    texts = ["about", "obligation", "site_id", "body_id", *_IDS]
    owed[texts] = owed[texts].astype("object").fillna("").astype("str")
    unknown = owed["body_id"].eq("") & owed["participant_id"].ne("")
    owed.loc[unknown, "body_id"] = owed.loc[unknown, "participant_id"].map(bodies).fillna("").astype("str")
    owed = owed.loc[(owed["last_on"] >= pd.Timestamp(as_of)) & owed["owed_on"].notna()]
    owed = owed.drop_duplicates("obligation")
    return owed.loc[_may_be_asked(study, events, owed, as_of)].reset_index(drop=True)


def _no_obligations() -> pd.DataFrame:
    return pd.DataFrame(columns=_OWED_COLUMNS)


def _list_owed_returns(expected: pd.DataFrame, stops: pd.DataFrame) -> pd.DataFrame:
    """Questionnaires that are out and not, or not wholly, in."""
    is_owed = expected["status"].isin(["released", "partial"]) & expected["released_on"].notna()
    owed = expected.loc[is_owed & ~is_stopped(stops, expected["participant_id"], QUESTIONNAIRES)].copy()
    owed["about"], owed["owed_on"], owed["last_on"] = "return", owed["due_on"], owed["late_until"]
    owed["had_on"], owed["ends_on"] = owed["released_on"], owed["closes_on"]
    owed["obligation"] = "return:" + owed["participant_id"] + ":" + owed["respondent"] + ":" + owed["wave"]
    return owed


def _derive_owed_consent(study: Study, events: Events, stops: pd.DataFrame, as_of: date) -> list[pd.DataFrame]:
    """Forms that nobody says are filed, and consent that is to be given anew."""
    rule = study.fieldwork.consent_rule
    if rule is None:
        return []
    consents = derive_consents(study, events, as_of)
    consents["name"] = consents["participant_id"] + ":" + name_forms(consents)
    consents = consents.loc[~is_stopped(stops, consents["participant_id"], DATA)]
    copies = consents.loc[~consents["copy"].isin(["held", "seen"])].assign(about="consent_copy")
    copies["obligation"] = "consent_copy:" + copies["name"]
    copies["owed_on"], copies["had_on"] = copies["copy_due_on"], copies["signed_on"]
    is_left = is_stopped(stops, consents["participant_id"], QUESTIONNAIRES)
    renewals = consents.loc[consents["reconsent_due_on"].notna() & ~is_left].assign(about="reconsent")
    renewals["obligation"] = "reconsent:" + renewals["name"]
    ahead = {day: pd.Timestamp(find_notice_day(rule, day.date())) for day in renewals["reconsent_due_on"].unique()}
    renewals["owed_on"] = renewals["reconsent_due_on"].map(ahead)
    renewals["had_on"], renewals["ends_on"] = renewals["signed_on"], renewals["reconsent_due_on"]
    return [copies, renewals]


def _derive_owed_queries(study: Study, events: Events, stops: pd.DataFrame) -> pd.DataFrame:
    """Open queries that the site has not answered. One that was put to it again is owed anew, from then."""
    queries = find_unanswered_queries(derive_queries(events))
    queries = queries.loc[~is_stopped(stops, queries["participant_id"], DATA)].copy()
    rule = study.fieldwork.chasing_rule
    n_days = rule.query_within if rule else 0
    queries["about"], queries["had_on"] = "query", queries["asked_on"]
    again = queries["n_reopened"].astype("str").where(queries["n_reopened"] > 0, "")
    queries["obligation"] = ("query:" + queries["query_id"] + ":" + again).str.removesuffix(":")
    queries["owed_on"] = _add_working_days(queries["asked_on"], n_days, study.bank_holidays)
    return queries


def _derive_owed_figures(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """Months without figures; those that were over before a site began are owed as if they had ended when it did."""
    site_ids = [site.site_id for site in study.sites]
    owed = derive_owed_figures(study, events, as_of, site_ids)
    if owed.empty:
        return _no_obligations()
    begun = [
        events.frame(kind)[["site_id", "occurred_on"]]
        for kind in (ParticipantScreened, ParticipantApproached, ConsentRecorded)
    ]
    begun_on = pd.concat(begun).groupby("site_id")["occurred_on"].min()
    owed["had_on"] = owed["site_id"].map(begun_on).astype(DAY)
    allowed = {figure.id: figure.due for figure in study.fieldwork.figures}
    ready = [
        pd.NaT if pd.isna(on) else pd.Timestamp(add_period(on.date(), allowed[figure]))
        for on, figure in zip(owed["had_on"], owed["figure"], strict=True)
    ]
    due = owed["due_on"].astype(DAY)
    owed["owed_on"] = pd.concat([due, pd.Series(ready, owed.index, dtype=DAY)], axis="columns").max(axis="columns")
    owed["about"] = "activity_figures"
    owed["obligation"] = "activity_figures:" + owed["site_id"] + ":" + owed["figure"] + ":" + owed["month"]
    return owed


def _may_be_asked(study: Study, events: Events, owed: pd.DataFrame, as_of: date) -> pd.Series[bool]:
    """Whether the approvals that each obligation rests on are in force: of a return, for collecting at its wave under
    its body; of anything else of a participant, for collecting at all under it; of a figure, anywhere at the site."""
    activities = {wave: find_activity(study, wave) for wave in owed["wave"].unique()}
    asked = pd.DataFrame({"activity": owed["wave"].map(activities), "site_id": owed["site_id"]})
    asked["body_id"] = owed["body_id"]
    asked["is_return"], asked["is_of_person"] = owed["about"] == "return", owed["participant_id"] != ""
    distinct = asked.drop_duplicates().reset_index(drop=True)
    is_open = _find_open_places(study, events, as_of)
    answers = []
    for activity, site_id, body_id, is_return, is_of_person in distinct.itertuples(index=False, name=None):
        if is_return:
            answers.append(is_open.get((activity, site_id, body_id), False))
        elif is_of_person:
            answers.append(any(is_open.get((one, site_id, body_id), False) for one in _COLLECTING))
        else:
            answers.append(any(found for (_, site, _), found in is_open.items() if site == site_id))
    distinct["may"] = pd.Series(answers, distinct.index, dtype="bool")
    may: pd.Series[bool] = asked.merge(distinct, how="left", on=list(asked.columns))["may"].set_axis(owed.index)
    return may


@remembered
def _find_open_places(study: Study, events: Events, as_of: date) -> dict[tuple[str, str, str], bool]:
    """Whether collecting is open today, by activity, site and body ('': the whole site). Nowhere else is it."""
    questions = [
        (activity, site.site_id, body_id)
        for site in study.sites
        for body_id in ("", *(body.id for body in site.bodies))
        for activity in _COLLECTING
    ]
    frame = pd.DataFrame(questions, columns=["activity", "site_id", "body_id"]).assign(person_id="")
    return dict(zip(questions, derive_open_days(study, events, frame, as_of, as_of).iloc[:, 0].tolist(), strict=True))


# Steps of the ladders -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _make_week(calendar: HolidayCalendar, first: int, last: int) -> np.busdaycalendar:
    """Working days as numpy counts them, with the bank holidays from the first year to the last."""
    holidays = find_holidays(calendar)
    days = pd.date_range(f"{first}-01-01", f"{last}-12-31", freq="B")
    return np.busdaycalendar(holidays=[day.date() for day in days if not is_working_day(day.date(), holidays)])


def _add_working_days(days: pd.Series[Any], n_days: int, calendar: HolidayCalendar) -> pd.Series[Any]:
    """`study.calendar.add_working_days` for many days at once, 0 moving on to a working day; NaT stays."""
    found = pd.Series(pd.NaT, days.index, dtype=DAY)
    known = days.notna()
    if not known.any():
        return found
    stamps = days[known].to_numpy("datetime64[D]")
    reach = abs(n_days) // 200 + 1
    years = stamps.astype("datetime64[Y]").astype(int) + 1970
    week = _make_week(calendar, int(years.min()) - reach, int(years.max()) + reach)
    moved = np.busday_offset(stamps, n_days, roll="backward" if n_days > 0 else "forward", busdaycal=week)
    found[known] = moved.astype("datetime64[us]")
    return found


@remembered
def _date_steps(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """Every step of the ladder for every obligation that it is about, with its day and its `place` in the ladder; the
    lowest of an obligation first. Whether it was taken, or is worth anything, is not asked here."""
    return _place_steps(study, derive_owed(study, events, as_of), as_of)


def _place_steps(study: Study, owed: pd.DataFrame, as_of: date) -> pd.DataFrame:
    parts = []
    for place, step in enumerate(study.fieldwork.ladder):
        part = owed.loc[owed["about"] == step.about]
        part = part.loc[part["wave"].isin(step.waves)] if step.waves else part
        if len(part):
            parts.append(_date_step(study, step, part, as_of).assign(place=place))
    if not parts:
        return pd.DataFrame()
    steps = pd.concat(parts, ignore_index=True)
    steps["key"] = "chase:" + steps["obligation"] + ":" + steps["chaser"]
    return steps.sort_values(["obligation", "due_on", "place"], ignore_index=True)


def _derive_steps(study: Study, events: Events, taken: pd.Series[Any], as_of: date) -> pd.DataFrame:
    """The step of each obligation that is due, the next that comes, and the highest that was taken."""
    rungs = _date_steps(study, events, as_of)
    if rungs.empty:
        return pd.DataFrame(columns=COLUMNS)
    return _describe_steps(study, _choose_steps(rungs, taken, as_of))


def _choose_steps(rungs: pd.DataFrame, taken: pd.Series[Any], as_of: date) -> pd.DataFrame:
    """Of the steps of `_date_steps` those that `_derive_steps` gives, with is_taken and state."""
    rungs = rungs.assign(is_taken=is_in(rungs["key"], taken))
    rungs = rungs.loc[rungs["is_taken"] | (rungs["is_good"] & (rungs["due_on"] <= rungs["last_on"]))].copy()
    rungs["rank"] = rungs.groupby("obligation").cumcount()
    highest = rungs["rank"].where(rungs["is_taken"]).groupby(rungs["obligation"]).transform("max").fillna(-1)
    rungs = rungs.loc[rungs["rank"] >= highest]
    is_due = rungs["due_on"] <= pd.Timestamp(as_of)
    rungs["state"] = np.where(rungs["is_taken"], "chased", np.where(is_due, "due", "coming"))
    last = rungs.loc[rungs["state"] == "due"].drop_duplicates("obligation", keep="last")
    following = rungs.loc[rungs["state"] == "coming"].drop_duplicates("obligation", keep="first")
    return pd.concat([rungs.loc[rungs["state"] == "chased"], last, following], ignore_index=True)


def _date_step(study: Study, step: LadderStep, owed: pd.DataFrame, as_of: date) -> pd.DataFrame:
    """One step for each of these obligations: anchor_on, due_on, and is_good (whether it is worth anything)."""
    anchor = {"released": owed["had_on"], "due": owed["owed_on"], "closes": owed["ends_on"]}[step.counts_from]
    if step.about == "return" and step.days >= 0:
        anchor = pd.concat([anchor, owed["had_on"]], axis="columns").max(axis="columns").where(anchor.notna())
    due_on = _add_working_days(anchor, step.days, study.bank_holidays)
    is_good = due_on.notna()
    if step.days < 0:
        is_good &= (due_on > owed["had_on"]) & (anchor >= pd.Timestamp(as_of))
    return owed.assign(
        chaser=step.id,
        to=step.to,
        channel=step.channel,
        template=step.template,
        encloses_copy=step.encloses_copy,
        anchor_on=anchor,
        due_on=due_on,
        is_good=is_good,
        days=step.days,
    )


_ANCHORS = {"return": "is due by", "consent_copy": "is to be filed by", "reconsent": "is to be asked for from"}
_ANCHORS |= {"query": "was to be answered by", "activity_figures": "were due by"}


def _describe_steps(study: Study, rungs: pd.DataFrame) -> pd.DataFrame:
    """Add subject, fact and rule in words."""
    labels = {wave.id: wave.label for wave in study.waves}
    labels |= {figure.id: figure.label for figure in study.fieldwork.figures}
    waves, figures = (
        rungs[name].map({id_: labels.get(id_, id_) for id_ in rungs[name]}) for name in ("wave", "figure")
    )
    about = rungs["about"]
    person = rungs["participant_id"]
    version, signed = rungs["form_version"], (", signed " + rungs["renewal"]).where(rungs["renewal"] != "", "")
    words = {
        "return": person + ", " + waves + ", " + rungs["respondent"],
        "consent_copy": "Consent form " + version + " of " + person + signed,
        "reconsent": "Consent of " + person + " (form " + version + signed + ")",
        "query": "Query " + rungs["query_id"],
        "activity_figures": figures + ", " + rungs["month"],
    }
    rungs["subject"] = ""
    for name, text in words.items():
        rungs.loc[about == name, "subject"] = text[about == name]
    rungs["fact"] = about.map(_ANCHORS)
    n_days = rungs["days"].abs().astype("str")
    unit = np.where(rungs["days"].abs() == 1, " working day ", " working days ")
    when = np.where(rungs["days"] == 0, "on", np.where(rungs["days"] < 0, "before", "after"))
    counted = pd.Series(np.where(rungs["days"] == 0, "", n_days + unit), rungs.index, dtype="str")
    role = rungs["to"].str.replace("_", " ").str.capitalize()
    rungs["rule"] = (
        rungs["subject"] + " " + rungs["fact"] + " " + rungs["owed_on"].dt.strftime("%Y-%m-%d") + ". " + role
        + " is chased by " + rungs["channel"] + " " + counted + when + " " + rungs["anchor_on"].dt.strftime("%Y-%m-%d")
        + " (" + rungs["chaser"] + ")."
    )  # fmt: skip
    return rungs


def _derive_told(study: Study, rungs: pd.DataFrame) -> pd.DataFrame:
    """Who is told of steps that are due or were taken: the role that a step `tells`, and the coordinator of a call.

    A call that was made is told to nobody any more.
    """
    tells = {step.id: step.tells for step in study.fieldwork.ladder if step.tells}
    reached = rungs.loc[rungs["state"].isin(["due", "chased"])]
    parts = [reached.assign(role=reached["chaser"].map(tells)).dropna(subset="role")]
    rule = study.fieldwork.chasing_rule
    if rule is not None:
        is_call = (reached["channel"] == "telephone") & (reached["state"] == "due")
        parts.append(reached.loc[is_call].assign(role=rule.coordinator))
    told = pd.concat(parts, ignore_index=True)
    told["key"] = (told["key"] + ":told:" + told["role"]).astype("str")
    told = told.assign(of_role=told["to"], to=told["role"].astype("str"), is_told=True, state="due")
    return told[COLUMNS]


# What rests -----------------------------------------------------------------------------------------------------------


def find_kind(about: str) -> str:
    """What a chaser is about, as pauses, quiet periods and calls name it."""
    return APPROVAL if about in _APPROVALS else about


def _rest(study: Study, events: Events, rungs: pd.DataFrame, as_of: date) -> pd.DataFrame:
    """What is due and may not go today rests, with the reason; of several the one that lasts longest."""
    kinds = rungs["about"].map({about: find_kind(about) for about in URGENCY})
    is_held = rungs["state"].isin(["due", "chased"])
    latest = pd.Series(pd.NaT, rungs.index, dtype=DAY)
    because = pd.Series("", rungs.index, dtype="str")

    def rest(rows: pd.Series[Any], until: pd.Timestamp, words: str) -> None:
        longer = is_held & rows & ~(latest >= until)
        latest[longer], because[longer] = until, words

    for period in study.fieldwork.quiet_periods:
        if period.covers(as_of):
            rows = _match(rungs, kinds, period.sites, "", period.about)
            rest(rows, pd.Timestamp(period.until_on), f"{period.label}, until {format_day(period.until_on)}")
    for pause in list_pauses(events, as_of).to_dict("records"):
        about = pause["about"].split(";") if pause["about"] else ()
        rows = _match(rungs, kinds, [pause["site_id"]] if pause["site_id"] else (), pause["participant_id"], about)
        until = _FAR if pd.isna(pause["until"]) else pause["until"]
        words = "until it is resumed" if pd.isna(pause["until"]) else f"until {format_day(pause['until'])}"
        rest(rows, until, f"Paused {words} ({pause['reason']})")
    for site_id, about, until in list_promises(events, as_of):
        words = f"Promised for {format_day(until.date())}"
        rest(_match(rungs, kinds, [site_id], "", about) & ~rungs["about"].isin(["duty", "incident"]), until, words)
    resting = because != ""
    rungs["rests_because"], rungs["rests_until"] = because, latest.where(latest != _FAR)
    rungs.loc[resting & (rungs["state"] == "due"), "state"] = "resting"
    return rungs


def _match(
    rungs: pd.DataFrame, kinds: pd.Series[Any], sites: Sequence[str], participant_id: str, about: Sequence[str]
) -> pd.Series[Any]:
    rows = pd.Series(True, rungs.index)
    if sites:
        rows &= rungs["site_id"].isin(sites)
    if participant_id:
        rows &= rungs["participant_id"] == participant_id
    if about:
        rows &= kinds.isin(about)
    return rows


def list_pauses(events: Events, as_of: date) -> pd.DataFrame:
    """The pauses that hold on a day: pause, site_id, participant_id, about (joined with ";"), until (NaT: open), reason
    and since."""
    view = events.select(as_of=as_of)
    pauses = view.frame(ChasingPaused)
    is_over = pauses["pause"].isin(view.frame(ChasingResumed)["pause"]) | (pauses["until"] < pd.Timestamp(as_of))
    pauses = pauses.loc[~is_over].rename(columns={"occurred_on": "since"})
    return pauses[["pause", "site_id", "participant_id", "about", "until", "reason", "since"]].reset_index(drop=True)


def list_promises(events: Events, as_of: date) -> list[tuple[str, tuple[str, ...], pd.Timestamp]]:
    """Promises made on the telephone whose day is not over: the site, what they were about, the promised day."""
    calls = events.select(as_of=as_of).frame(CallLogged)
    held = calls.loc[(calls["outcome"] == "promised") & (calls["promised_on"] >= pd.Timestamp(as_of))]
    columns = ["site_id", "about", "promised_on"]
    return [
        (site_id, tuple(about.split(";")), until)
        for site_id, about, until in held[columns].itertuples(index=False, name=None)
        if about
    ]


CALL_SUBJECTS = (*OBLIGATIONS, APPROVAL)
"""What a call or a pause may be about."""
