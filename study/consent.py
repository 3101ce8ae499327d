"""Consent that sites hold: what each person agreed to, where the signed form is, and what is wrong with it.

The forms stay at the sites. What is known of them is the consent log of the sites' returns, and what somebody found who
went to look. A consent is judged by what its own entry says and by the ledger as it is on the day of the question.

Judgement calls:

- The form signed last is the one in force, whatever it is; a form signed by a superseded version is still consent, and
  has a fault that a committee may accept.
- One version of the form may be signed more than once. Two days of signing are two consents where the first was to be
  given anew by the second, or somebody else consents: a young person after a parent, a person after a consultee or the
  other way round. Any other two are one consent, and one of the days is wrong.
- Which versions might be signed where and when is what the approvals say of the document that `consent_rule.document`
  names. Only while no version of it has been issued at all do the dates of the protocol's own list stand in: a site
  without the approval of a version has not got it because some other list has a date.
- The last day of a consent that must be given anew still counts. A parent's consent holds until the month of the 16th
  birthday is over, which is as exactly as the site tells it.
- Faults are looked for in signed consent alone. What a replay assumes can't be wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import pandas as pd

from study.calendar import Period, add_months, add_period, add_working_days, find_holidays
from study.events import (
    ConsentCopyChecked,
    ConsentRecorded,
    DispositionRecorded,
    DocumentVersionIssued,
    IncidentOpened,
    QueryClosed,
    ReturnRefused,
)
from study.fieldwork import ConsentRule
from study.incidents import RECORD_KEY, compute_assess_by, derive_held
from study.modifications import derive_document_versions
from study.participation import QUESTIONNAIRES, derive_stops, is_stopped
from study.protocol import Study
from study.state import Events, derive_current_returns, is_in, remembered

DAY: Final = "datetime64[us]"
COPIES = ("held", "seen", "missing", "faulty", "")
"""Where a signed form is: the site says that it is filed; somebody has seen it, did not find it, or found a fault in
it; nobody has said anything."""

_TOLD = [
    *(
        "seq",
        "participant_id",
        "site_id",
        "occurred_on",
        "form_version",
        "renewal",
        "scopes",
        "basis",
        "route",
        "form",
        "taken_by",
    ),
    *("capacity", "sixteen_in", "copy_filed"),
]
_COLUMNS = [
    *("participant_id", "site_id", "consented_on", "signed_on", "form_version", "renewal", "scopes", "route", "form"),
    *("taken_by", "capacity", "sixteen_in", "copy", "copy_due_on", "reconsent_due_on", "faults"),
    *("covers_questionnaires", "covers_linkage"),
]


class Finding(NamedTuple):
    """What may be wrong, in words, and what to do about it."""

    words: str
    to_do: str


FAULTS: dict[str, Finding] = {
    "collected_before_consent": Finding(
        "Answers were collected before consent was given",
        "Have the site check both dates against the papers; the sponsor assesses the incident",
    ),
    "parent_after_sixteen": Finding(
        "A parent consented after the month of the 16th birthday",
        "Ask the site for the young person's own consent; the sponsor assesses the incident",
    ),
    "signed_before_approved": Finding(
        "Signed on a version of the form that was not approved at the site on that day",
        "Have the site check date and version; have an approved version signed, or ask the committee",
    ),
    "capacity_not_assessed": Finding(
        "A consultee advised, and no assessment of capacity is recorded",
        "Ask the site whether capacity was assessed; without it the advice does not count",
    ),
    "superseded_version": Finding(
        "Signed on a version of the form that had been replaced",
        "Have the present version signed, or ask the committee whether this one may stand",
    ),
    "reconsent_overdue": Finding(
        "Consent was to be given anew, and was not",
        "Ask the site to seek it; until then nothing is sent",
    ),
    "sixteen_unknown": Finding(
        "A parent consented, and the month of the 16th birthday is not told",
        "Ask the site for the month, never for the date of birth",
    ),
    "withdrawn_before_consent": Finding(
        "The person left before the day of signing",
        "Have the site check both dates against the papers",
    ),
}
"""What may be wrong with a consent, the gravest first."""

FINDINGS: dict[str, Finding] = {
    "before_consent": Finding(
        "Collected before consent was given",
        "Have the site check both dates against the papers; the sponsor assesses the incident",
    ),
    "after_withdrawal": Finding(
        "Collected after the person had withdrawn",
        "Have the site check both dates against the papers; the sponsor assesses the incident",
    ),
    "no_consent": Finding(
        "Collected, and no consent is on record",
        "Ask the site for the entry of its consent log",
    ),
    "consent_ended": Finding(
        "Collected after consent had run out",
        "Ask the site whether consent was given anew; if not, tell the sponsor",
    ),
    "scope_missing": Finding(
        "Collected without consent to it",
        "Have the site check the form scope by scope; if it was not agreed to, tell the sponsor",
    ),
    "no_return": Finding(
        "Consent is there, and nothing has come back",
        "Nothing, unless it is overdue: then it is chased",
    ),
}
"""What does not agree between consents and returns, the gravest first."""


@remembered
def derive_consents(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """The consent of each person at the end of a day: one row per participant who has signed, by participant_id.

    Columns: participant_id, site_id, consented_on (the first signing of all), signed_on (of the form in force, which is
    the one signed last), form_version, renewal (blank unless it was given anew on its version, as `SignedForm` has it),
    scopes (joined with ";"), route, form, taken_by, capacity, sixteen_in, copy (of COPIES), copy_due_on (by when the
    form is to be filed; where a filed one was found wanting, as long after that), reconsent_due_on (the last day on
    which it still counts; NaT: it does not run out), faults (of FAULTS, joined with ";"), covers_questionnaires and
    covers_linkage (agreed to, and not run out; without a rule for consent every consent covers questionnaires, and none
    linkage).
    """
    rule = study.fieldwork.consent_rule
    view = events.select(as_of=as_of)
    every = view.frame(ConsentRecorded, _TOLD).sort_values(["participant_id", "occurred_on", "seq"])
    consents = every.drop_duplicates("participant_id", keep="last").reset_index(drop=True)
    consents["signed_on"] = consents["occurred_on"]
    consents["consented_on"] = every.drop_duplicates("participant_id")["occurred_on"].to_numpy()
    _add_copies(study, rule, view, consents)
    ends = [_find_sixteen_ends(consents), _find_reconsent_days(rule, consents["signed_on"])]
    consents["reconsent_due_on"] = pd.concat(ends, axis="columns").min(axis="columns").astype(DAY)
    has_ended = consents["reconsent_due_on"] < pd.Timestamp(as_of)
    consents["covers_questionnaires"] = _has_scope(
        consents["scopes"], rule.needed_scope if rule else None, rule is None
    )
    consents["covers_linkage"] = _has_scope(consents["scopes"], rule.linkage_scope if rule else None, False)
    found = _find_faults(study, rule, events, view, consents, has_ended, as_of)
    is_invalid = has_ended | found["parent_after_sixteen"]
    consents[["covers_questionnaires", "covers_linkage"]] = consents[["covers_questionnaires", "covers_linkage"]].mask(
        is_invalid, False
    )
    consents["faults"] = _join_codes(found)
    return consents[_COLUMNS]


def _has_scope(scopes: pd.Series[Any], scope: str | None, without: bool) -> pd.Series[Any]:
    """Whether each list of scopes holds this one; `without`: the answer where the study names none."""
    if scope is None:
        return pd.Series(without, scopes.index, dtype="bool")
    places, different = pd.factorize(scopes)
    holds = np.array([scope in text.split(";") for text in different], bool)
    return pd.Series(holds[places], scopes.index)


def _join_codes(found: pd.DataFrame) -> pd.Series[Any]:
    """The names of the columns that are true, joined with ";"."""
    which = found.to_numpy() @ (1 << np.arange(found.shape[1], dtype=np.int64))
    numbers, places = np.unique(which, return_inverse=True)
    texts = [";".join(code for bit, code in enumerate(found.columns) if number >> bit & 1) for number in numbers]
    return pd.Series(texts, dtype="str").take(places).set_axis(found.index)


def _look_up(keys: pd.Series[Any], values: pd.Series[Any]) -> pd.Series[Any]:
    """The value of each key by the values' index, missing where there is none; the values keep their type."""
    return values.reindex(keys).set_axis(keys.index)


def _map_days(days: pd.Series[Any], compute: Callable[[date], date]) -> pd.Series[Any]:
    """A rule of the calendar over dates: each different date is computed once."""
    every = days.dropna().unique()
    computed = pd.Series([pd.Timestamp(compute(day.date())) for day in every], pd.DatetimeIndex(every), dtype=DAY)
    return _look_up(days, computed)


class Signing(NamedTuple):
    """A consent as a log tells it: its day, who consented, the month of a child's 16th birthday ('' not told)."""

    day: date
    route: str = ""
    sixteen_in: str = ""


def is_given_anew(rule: ConsentRule | None, before: Signing, after: Signing) -> bool:
    """Whether a later signing on one version of the form is a consent of its own, and not the earlier one with another
    date: the earlier one was to be given anew (from its notice on), or the person consents after a parent or a
    consultee, or a consultee advises after the person or a parent had consented. `rule`: None where there is none."""
    if after.day <= before.day:
        return False
    if before.route and after.route in ("self", "consultee") and after.route != before.route:
        return True
    ends = []
    if before.route == "parent" and before.sixteen_in:
        ends.append(_find_last_day_of_month(before.sixteen_in))
    if rule is not None and rule.reconsent_after is not None:
        ends.append(add_period(before.day, rule.reconsent_after))
    return bool(ends) and after.day >= (find_notice_day(rule, min(ends)) if rule else min(ends))


def find_notice_day(rule: ConsentRule, ends_on: date) -> date:
    """The first day on which a consent that runs out is to be sought anew."""
    notice = rule.reconsent_notice
    return add_period(ends_on, Period(-notice.months, -notice.days))


def name_forms(forms: pd.DataFrame) -> pd.Series[Any]:
    """`study.events.name_form` of each row with form_version and renewal."""
    has_day = forms["renewal"] != ""
    return forms["form_version"] + (":" + forms["renewal"]).where(has_day, "")


def _find_reconsent_days(rule: ConsentRule | None, signed_on: pd.Series[Any]) -> pd.Series[Any]:
    if rule is None or rule.reconsent_after is None:
        return pd.Series(pd.NaT, signed_on.index, dtype=DAY)
    after: Period = rule.reconsent_after
    return _map_days(signed_on, lambda day: add_period(day, after))


def _find_sixteen_ends(consents: pd.DataFrame) -> pd.Series[Any]:
    """The last day of the month in which a child whose parent consented turns 16; NaT for everybody else."""
    months = consents["sixteen_in"].where(consents["route"] == "parent", "")
    every = [month for month in months.unique() if month]
    ends = [pd.Timestamp(_find_last_day_of_month(month)) for month in every]
    return _look_up(months, pd.Series(ends, every, dtype=DAY))


def _find_last_day_of_month(month: str) -> date:
    """Of a month as "2018-09"."""
    return add_months(date.fromisoformat(f"{month}-01"), 1) - timedelta(days=1)


def _add_copies(study: Study, rule: ConsentRule | None, view: Events, consents: pd.DataFrame) -> None:
    """Adds copy and copy_due_on. What was found last counts, unless the site has told its consent anew since then."""
    form = ["participant_id", "form_version", "renewal"]
    checks = view.frame(ConsentCopyChecked).sort_values([*form, "check", "seq"]).drop_duplicates(form, keep="last")
    checks = checks[[*form, "finding", "occurred_on", "seq"]]
    checks = checks.rename(columns={"occurred_on": "checked_on", "seq": "checked_seq"})
    told = consents[[*form, "seq"]].merge(checks, how="left", on=form)
    told.index = consents.index
    filed = consents["copy_filed"]
    is_refiled = (filed == "yes") & (told["checked_seq"] < told["seq"]) & (told["finding"] != "seen")
    has_finding = told["finding"].notna() & ~is_refiled
    stated = filed.map({"yes": "held", "no": "missing", "": ""}).astype("str")
    consents["copy"] = stated.mask(has_finding, told["finding"]).astype("str")
    if rule is None:
        consents["copy_due_on"] = pd.Series(pd.NaT, consents.index, dtype=DAY)
        return
    holidays, n_days = find_holidays(study.bank_holidays), rule.copy_within
    is_reopened = has_finding & ((told["finding"] == "faulty") | ((told["finding"] == "missing") & (filed == "yes")))
    begun_on = consents["signed_on"].mask(is_reopened, told["checked_on"])
    consents["copy_due_on"] = _map_days(begun_on, lambda day: add_working_days(day, n_days, holidays))


# Faults -------------------------------------------------------------------------------------------------------------


def derive_form_days(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """On which days each version of the consent form might be signed at each site, as known on a day.

    Columns: version, site_id, from_on, until_on. By the approvals of the document that the study's rule for consent
    names, or, while no version of it has been issued, by the dates of the protocol's consent forms.
    """
    columns = ["version", "site_id", "from_on", "until_on"]
    rule = study.fieldwork.consent_rule
    if rule is not None and rule.document is not None:
        issued = events.select(as_of=as_of).frame(DocumentVersionIssued)
        if (issued["document"] == rule.document).any():
            versions = derive_document_versions(study, events, as_of)
            return versions.loc[versions["document"] == rule.document, columns].reset_index(drop=True)
    rows = [
        (
            form.version,
            site.site_id,
            pd.Timestamp(form.in_force_from),
            pd.Timestamp(form.in_force_until or "2200-12-31"),
        )
        for form in study.consent_forms
        for site in study.sites
    ]
    return pd.DataFrame(rows, columns=columns).astype({"from_on": DAY, "until_on": DAY})


def _find_faults(
    study: Study,
    rule: ConsentRule | None,
    events: Events,
    view: Events,
    consents: pd.DataFrame,
    has_ended: pd.Series[Any],
    as_of: date,
) -> pd.DataFrame:
    """One column of yes or no for each of FAULTS."""
    none = pd.Series(False, consents.index, dtype="bool")
    found = pd.DataFrame(dict.fromkeys(FAULTS, none), index=consents.index)
    is_signed = consents["basis"] == "signed"
    if rule is None or not is_signed.any():
        return found
    signed_on, route = consents["signed_on"], consents["route"]
    is_before, is_superseded = _judge_versions(derive_form_days(study, events, as_of), consents)
    found["signed_before_approved"], found["superseded_version"] = is_before, is_superseded
    collected = _find_collected(view)
    refused = _find_refused(view, collected)
    refused_people = refused.loc[refused["finding"] == "before_consent", "participant_id"]
    firsts = collected.groupby("participant_id")["occurred_on"].min()
    is_before_consent = _look_up(consents["participant_id"], firsts) < consents["consented_on"]
    found["collected_before_consent"] = is_before_consent | is_in(consents["participant_id"], refused_people)
    found["capacity_not_assessed"] = (route == "consultee") & (consents["capacity"] != "assessed")
    sixteen_ends = _find_sixteen_ends(consents)
    found["parent_after_sixteen"] = sixteen_ends < signed_on
    found["sixteen_unknown"] = (route == "parent") & (consents["sixteen_in"] == "")
    found["reconsent_overdue"] = has_ended & ~found["parent_after_sixteen"]
    found["withdrawn_before_consent"] = (
        _look_up(consents["participant_id"], _find_first_withdrawal(study, view)) < consents["consented_on"]
    )
    return found.where(is_signed, False).astype("bool")


def _judge_versions(days: pd.DataFrame, consents: pd.DataFrame) -> tuple[pd.Series[Any], pd.Series[Any]]:
    """Whether each was signed before its version might be, and whether after it had been replaced. A version that was
    never in force at the site counts as not approved yet."""
    own = consents[["form_version", "site_id", "signed_on"]].reset_index(names="place")
    pairs = own.merge(days.rename(columns={"version": "form_version"}), on=["form_version", "site_id"])
    is_within = (pairs["from_on"] <= pairs["signed_on"]) & (pairs["signed_on"] <= pairs["until_on"])
    in_force = set(pairs.loc[is_within, "place"])
    begun = set(pairs.loc[pairs["from_on"] <= pairs["signed_on"], "place"])
    places = pd.Series(consents.index, consents.index)
    return ~places.isin(begun), places.isin(begun - in_force)


def _find_collected(view: Events) -> pd.DataFrame:
    """Every record that stands, accepted or held, with its place (RECORD_KEY), site_id and occurred_on."""
    columns = [*RECORD_KEY, "site_id", "occurred_on"]
    held = derive_held(view)
    parts = [derive_current_returns(view, columns), held.loc[held["is_held"], columns]]
    return pd.concat(parts, ignore_index=True)


_REFUSED_FOR = {"collected_before_consent": "before_consent", "consent_not_recorded": "no_consent"}


def _find_refused(view: Events, collected: pd.DataFrame) -> pd.DataFrame:
    """Records that were refused for want of consent and are still asked about: RECORD_KEY, site_id, occurred_on (the
    day of refusing: that of collecting was not taken in) and finding."""
    refused = view.frame(ReturnRefused)
    refused = refused[refused["rule"].isin(list(_REFUSED_FOR))]
    refused = refused[~refused["query_id"].isin(view.frame(QueryClosed)["query_id"])]
    of_them = collected.loc[collected["participant_id"].isin(refused["participant_id"]), RECORD_KEY]
    refused = refused.drop_duplicates([*RECORD_KEY, "rule"]).merge(
        of_them.drop_duplicates(), how="left", on=RECORD_KEY, indicator=True
    )
    refused = refused[refused["_merge"] == "left_only"]
    finding = refused["rule"].map(_REFUSED_FOR).astype("str")
    return refused.assign(finding=finding)[[*RECORD_KEY, "site_id", "occurred_on", "finding"]]


def _find_first_withdrawal(study: Study, view: Events) -> pd.Series[Any]:
    """The first day on which each participant left the questionnaires, the study or what was given already."""
    kinds = {reason.id: reason.kind for reason in study.disposition_reasons}
    told = view.frame(DispositionRecorded)
    is_own = told["scope"].isin(["study", "questionnaires", "data"]) & told["reason"].map(kinds).isin(["loss"])
    return told[is_own].groupby("participant_id")["occurred_on"].min()


# Consents and returns -----------------------------------------------------------------------------------------------

_RECONCILED = [
    "participant_id",
    "site_id",
    "finding",
    "respondent",
    "wave",
    "scope",
    "n_records",
    "first_on",
    "last_on",
]


@remembered
def reconcile_consent(study: Study, events: Events, as_of: date) -> pd.DataFrame:
    """What does not agree between consents and returns at the end of a day, the gravest first within each site.

    Columns: participant_id, site_id, finding (of FINDINGS), respondent, wave, scope (scopes not agreed to, joined with
    ";"), n_records, first_on and last_on (days of collecting; for no_return, the day of signing). One row per
    participant, finding, respondent and wave. Each record is judged by the consent that was in force on the day on
    which it was collected, held records among them. Records refused for want of consent are told of until they are
    settled, with the day of refusing, since the day of collecting was not taken in. What a respondent's answers need is
    the scope of questionnaires and what the study's rule for that respondent names. The ledger holds no records of
    linkage: whose records may be linked is `covers_linkage`.
    """
    view = events.select(as_of=as_of)
    records = _find_collected(view)
    judged = judge_records(study, events, records, as_of)
    judged = judged[judged["finding"] != ""]
    key = ["participant_id", "site_id", "finding", "respondent", "wave", "scope"]
    refused = _find_refused(view, records)
    signed = view.frame(ConsentRecorded, ["participant_id"])["participant_id"]
    is_settled = (refused["finding"] == "no_consent") & refused["participant_id"].isin(signed)
    judged = pd.concat([judged, refused[~is_settled].assign(scope="")], ignore_index=True)
    found = judged.groupby(key, as_index=False)["occurred_on"].agg(["size", "min", "max"])
    found = found.rename(columns={"size": "n_records", "min": "first_on", "max": "last_on"})
    waiting = derive_consents(study, events, as_of)
    came = pd.concat([records["participant_id"], found["participant_id"]])
    waiting = waiting[waiting["covers_questionnaires"] & ~waiting["participant_id"].isin(came)]
    waiting = waiting[~is_stopped(derive_stops(study, events, as_of), waiting["participant_id"], QUESTIONNAIRES)]
    waiting = waiting.assign(finding="no_return", respondent="", wave="", scope="", n_records=0)
    waiting = waiting.assign(first_on=waiting["signed_on"], last_on=waiting["signed_on"])
    both = pd.concat([found[_RECONCILED], waiting[_RECONCILED]], ignore_index=True)
    both["rank"] = both["finding"].map({code: place for place, code in enumerate(FINDINGS)})
    order = ["site_id", "rank", "participant_id", "first_on", "respondent", "wave"]
    return both.sort_values(order, ignore_index=True)[_RECONCILED].astype({"first_on": DAY, "last_on": DAY})


def judge_records(study: Study, events: Events, records: pd.DataFrame, as_of: date) -> pd.DataFrame:
    """What the consent of the day of collecting does not cover: `records` (participant_id, respondent, occurred_on; one
    row each) by day, with finding (of FINDINGS, '' where all is well), and scope (scopes not agreed to, joined with
    ";", where the finding is scope_missing). Consents and withdrawals count as known at the end of `as_of`."""
    rule = study.fieldwork.consent_rule
    records = records.sort_values("occurred_on", kind="stable").reset_index(drop=True)
    signed = events.select(as_of=as_of).frame(ConsentRecorded, _TOLD)
    signed = signed.sort_values(["occurred_on", "seq"]).reset_index(drop=True)
    ends = [_find_sixteen_ends(signed), _find_reconsent_days(rule, signed["occurred_on"])]
    signed["ends_on"] = pd.concat(ends, axis="columns").min(axis="columns").astype(DAY)
    signed["signed_on"] = signed["occurred_on"]
    # By number: merge_asof cannot join texts where both sides are empty.
    people, _ = pd.factorize(pd.concat([records["participant_id"], signed["participant_id"]]))
    records["person"], signed["person"] = people[: len(records)], people[len(records) :]
    signings = signed[["person", "occurred_on", "signed_on", "scopes", "ends_on"]]
    judged = pd.merge_asof(records, signings, on="occurred_on", by="person")
    collected_on, has_consent = judged["occurred_on"], judged["signed_on"].notna()
    judged["scope"] = _find_missing_scopes(study, judged).where(has_consent, "")
    finding = np.zeros(len(judged), np.int8)
    codes = list(FINDINGS)
    for code, is_so in (
        ("scope_missing", judged["scope"] != ""),
        ("consent_ended", judged["ends_on"] < collected_on),
        ("no_consent", ~has_consent),
        (
            "after_withdrawal",
            _look_up(judged["participant_id"], _find_withdrawals(study, events, as_of)) < collected_on,
        ),
        ("before_consent", ~has_consent & judged["participant_id"].isin(signed["participant_id"])),
    ):
        finding[is_so.to_numpy(bool)] = codes.index(code) + 1
    judged["finding"] = pd.Series(["", *codes], dtype="str").take(finding).set_axis(judged.index)
    judged["scope"] = judged["scope"].where(judged["finding"] == "scope_missing", "").astype("str")
    return judged


def _find_missing_scopes(study: Study, judged: pd.DataFrame) -> pd.Series[Any]:
    """Which scopes each record needs that its consent (scopes) does not hold, joined with ";"."""
    rule = study.fieldwork.consent_rule
    missing = pd.DataFrame(index=judged.index)
    for scope in study.consent_scopes:
        needed = [
            respondent
            for respondent in judged["respondent"].unique()
            if (rule is not None and rule.needed_scope == scope.id)
            or ((of := study.fieldwork.find_respondent_rule(respondent)) is not None and scope.id in of.scopes)
        ]
        missing[scope.id] = judged["respondent"].isin(needed) & ~_has_scope(judged["scopes"].fillna(""), scope.id, True)
    return _join_codes(missing)


def _find_withdrawals(study: Study, events: Events, as_of: date) -> pd.Series[Any]:
    """The day from which each person who withdrew answers no more. Who completed, died, moved away or was taken out did
    not withdraw."""
    stops = derive_stops(study, events, as_of)
    rule = study.fieldwork.consent_rule
    is_own = (stops["stops"] == QUESTIONNAIRES) & (stops["kind"] == "loss")
    if rule is not None:
        is_own &= ~stops["reason"].isin(rule.not_withdrawals)
    return stops[is_own].set_index("participant_id")["from_on"]


# Incidents ----------------------------------------------------------------------------------------------------------

CONSENT_BREACH: Literal["consent_breach"] = "consent_breach"


def derive_consent_incidents(study: Study, events: Events, as_of: date, requested_by: str) -> list[IncidentOpened]:
    """The incidents that consents and returns give rise to and that no standing incident is about yet, in the order of
    site and participant; their numbers (`incident_id`) are given under the ledger's lock.

    One for each person and kind: answers from before consent, answers from after withdrawing, a parent's consent after
    the month of the 16th birthday. What is only not told yet (a consent, an assessment of capacity) is asked for and is
    no incident, and neither is a superseded form. `occurred_on` is the first day concerned; `n_records` how many.
    """
    if study.consent_basis != "signed" or study.fieldwork.consent_rule is None:
        return []
    found = reconcile_consent(study, events, as_of)
    found = found[found["finding"].isin(["before_consent", "after_withdrawal"])]
    key = ["site_id", "participant_id", "finding"]
    records = found.groupby(key, as_index=False).agg(n_records=("n_records", "sum"), first_on=("first_on", "min"))
    consents = derive_consents(study, events, as_of)
    children = consents[_has_scope(consents["faults"], "parent_after_sixteen", False)]
    children = children.assign(finding="parent_after_sixteen", n_records=0, first_on=children["signed_on"])
    every = pd.concat([records, children[[*key, "n_records", "first_on"]]]).sort_values(key)
    opened = events.frame(IncidentOpened)
    known = set(opened.loc[opened["category"] == CONSENT_BREACH, "subject"])
    rows: list[Any] = list(every.itertuples(index=False))
    return [
        IncidentOpened(
            occurred_on=row.first_on.date(), requested_by=requested_by, site_id=row.site_id,
            participant_id=row.participant_id, incident_id="new", category=CONSENT_BREACH,
            subject=f"{row.participant_id}:{row.finding}", n_records=row.n_records, found_on=as_of,
            assess_by=compute_assess_by(study, CONSENT_BREACH, as_of),
        )
        for row in rows
        if f"{row.participant_id}:{row.finding}" not in known
    ]  # fmt: skip
