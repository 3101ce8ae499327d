"""Consent in the ledger: what was found of a signed form, and the incidents that consents and returns give rise to.

Either is decided on what was read of the ledger, and appended under the write lock only if nothing newer concerns the
people and sites that it rests on.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import date

import pandas as pd

from study.calendar import london_day
from study.consent import derive_consent_incidents
from study.events import ConsentCopyChecked, ConsentRecorded, Event, IncidentOpened
from study.incidents import derive_incident_ids
from study.state import Events
from tasks.ledger import Answer, LedgerRefused
from tasks.workspace import Workspace

LATEST = "latest"
"""Stands for the version of the form that was signed last."""


class ConsentRefused(LedgerRefused):
    """Why something about a consent cannot be recorded: every reason, one sentence each."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(self.faults))


def record_copy_check(workspace: Workspace, told: ConsentCopyChecked, signed_on: date | None = None) -> Answer:
    """Record what was found of a signed form: of the one signed last, among those of its version and of the day of
    signing where these are given (`form_version` "latest": any). Its number and its site are found here. "same": found
    so on that day before.

    Raises ConsentRefused with every reason.
    """
    today = london_day(workspace.clock())
    while True:
        events = workspace.read_events()
        event, faults = _complete_check(events, told, signed_on, today)
        if faults:
            raise ConsentRefused(faults)
        if event is None:
            return "same"
        with workspace.ledger.writing() as writing:
            if writing.newest_seq(participant_ids=[event.participant_id]) > events.head.seq:
                continue
            return writing.append([event])[0].answer


def _complete_check(
    events: Events, told: ConsentCopyChecked, signed_on: date | None, today: date
) -> tuple[ConsentCopyChecked | None, list[str]]:
    """The check to append (None: it stands already), or why it can't be."""
    person, version = told.participant_id, told.form_version
    every = events.select(as_of=today).frame(ConsentRecorded).sort_values(["occurred_on", "seq"])
    own = every[every["participant_id"] == person]
    if own.empty:
        return None, [f"no consent of {person} is on record, so there is no form to look for. Correct the identifier."]
    faults = []
    signed = own if version == LATEST else own[own["form_version"] == version]
    if signed.empty:
        known = ", ".join(sorted(set(own["form_version"])))
        faults.append(f"{person} has signed no form of version {version}. Signed: {known}. Correct the version.")
    elif signed_on is not None:
        known = ", ".join(signed["occurred_on"].dt.strftime("%Y-%m-%d"))
        signed = signed[signed["occurred_on"] == pd.Timestamp(signed_on)]
        if signed.empty:
            faults.append(f"{person} has signed no such form on {signed_on}. Signed: {known}. Correct the day.")
    if told.occurred_on > today:
        faults.append(f"the date {told.occurred_on} is in the future (today is {today}). Correct the date.")
    if len(signed) and told.occurred_on < (on := signed["occurred_on"].iloc[-1].date()):
        faults.append(f"the date {told.occurred_on} is before the form was signed ({on}). Correct the date.")
    if faults:
        return None, faults
    site_id, version, renewal = (str(signed[name].iloc[-1]) for name in ("site_id", "form_version", "renewal"))
    form = {"participant_id": person, "form_version": version, "renewal": renewal}
    checks = events.frame(ConsentCopyChecked)
    checks = checks[(checks[list(form)] == pd.Series(form)).all(axis="columns")].sort_values("check")
    number = 1
    if len(checks):
        last = checks.iloc[-1]
        if (last["finding"], last["occurred_on"].date()) == (told.finding, told.occurred_on):
            return None, []
        number = int(last["check"]) + 1
    return told.model_copy(update={**form, "site_id": site_id, "check": number}), []


def watch_consent(workspace: Workspace, as_of: date, requested_by: str) -> Counter[str]:
    """Open the incidents that consents and returns give rise to by the end of a day, once each. Returns counts for
    people to read. Two runs at once, or one that was killed, open none twice."""
    counts: Counter[str] = Counter()
    while True:
        events = workspace.read_events()
        found = derive_consent_incidents(workspace.study, events, as_of, requested_by)
        if not found:
            return counts
        with workspace.ledger.writing() as writing:
            sites = sorted({incident.site_id for incident in found})
            if writing.newest_seq(site_ids=[*sites, ""]) > events.head.seq:
                continue
            of_site: dict[str, list[IncidentOpened]] = defaultdict(list)
            for incident in found:
                of_site[incident.site_id].append(incident)
            told: list[Event] = []
            for site_id, own in of_site.items():
                numbers = derive_incident_ids(site_id, writing.count(IncidentOpened.kind, site_id), len(own))
                told += [
                    one.model_copy(update={"incident_id": number}) for one, number in zip(own, numbers, strict=True)
                ]
            added = sum(appended.answer == "added" for appended in writing.append(told))
        counts["incidents opened"] = added
        return counts
