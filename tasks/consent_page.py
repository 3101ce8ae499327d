"""The page of consent by site: who consented, where the forms are, what is wrong and what to do, who stopped what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import Any

import pandas as pd

from study.calendar import add_period, format_day
from study.consent import CONSENT_BREACH, FAULTS, FINDINGS, derive_consents, reconcile_consent
from study.erasure import derive_erased
from study.incidents import derive_incidents
from study.participation import QUESTIONNAIRES, STOPS, derive_stops, is_stopped
from study.protocol import Study
from study.state import Events
from tasks.pages import format_list, format_moment_for_people, render_page, show_day

COPY_WORDS = {"held": "held", "seen": "seen", "missing": "missing", "faulty": "faulty", "": "not told"}
STOP_WORDS = {
    "questionnaires": "questionnaires",
    "linkage": "linkage",
    "post": "letters",
    "treatment": "treatment",
    "data": "data given",
}
ROUTE_WORDS = {"self": "own", "consultee": "consultee", "parent": "parent", "": "not told"}
KIND_WORDS = {
    "completion": "completed",
    "loss": "left",
    "exclusion": "taken out",
    "death": "died",
    "": "not in the protocol any more",
}
_STEPS = {"assess": "to be assessed", "decide": "to be decided", "act": "corrective action", "close": "to be closed"}
_ASKED_FIRST = [code for code in FINDINGS if code != "no_return"]


def write_consent_page(*, study: Study, events: Events, as_of: date, written_at: datetime, banner: str = "") -> bytes:
    """The page of a day as one file of HTML, with everything in it that it shows. `banner`: what every reader must know
    first, such as that the people are invented."""
    page = _Page(study, events, as_of)
    return render_page(
        "consent.html.jinja",
        title=f"Consent: {study.title}",
        study=study,
        banner=banner,
        as_of=format_day(as_of),
        written_at=format_moment_for_people(written_at),
        head=events.head,
        has_rule=study.fieldwork.consent_rule is not None,
        is_assumed=study.consent_basis == "assumed",
        copies=list(COPY_WORDS.values()),
        things=list(STOP_WORDS.values()),
        figures=page.list_figures(),
        to_do=page.list_to_do(),
        by_site=page.describe_sites(),
        total=page.describe_total(),
        stops=page.describe_stops(),
        stops_by_site=page.describe_stops_by_site(),
        reconciled=page.describe_reconciled(),
        n_waiting=int((page.reconciled["finding"] == "no_return").sum()),
        incidents=page.describe_incidents(),
        people=page.describe_people(),
        n_erased=len(page.erased),
    )


@dataclass
class _Page:
    """The frames behind the page, each folded once, and what the template shows of them."""

    study: Study
    events: Events
    as_of: date

    @cached_property
    def consents(self) -> pd.DataFrame:
        """Of each person; is_asked: for questionnaires; copy_is_overdue; reconsent: '', "due" or "overdue"."""
        consents = derive_consents(self.study, self.events, self.as_of)
        today = pd.Timestamp(self.as_of)
        rule = self.study.fieldwork.consent_rule
        notice = pd.Timestamp(add_period(self.as_of, rule.reconsent_notice)) if rule else today
        consents["is_asked"] = ~is_stopped(self.stops, consents["participant_id"], QUESTIONNAIRES)
        consents["copy_is_overdue"] = ~consents["copy"].isin(["held", "seen"]) & (consents["copy_due_on"] < today)
        ends_on = consents["reconsent_due_on"]
        soon = (
            pd.Series("", consents.index, dtype="str").mask(ends_on <= notice, "due").mask(ends_on < today, "overdue")
        )
        consents["reconsent"] = soon.where(consents["is_asked"], "")
        return consents

    @cached_property
    def stops(self) -> pd.DataFrame:
        return derive_stops(self.study, self.events, self.as_of)

    @cached_property
    def reconciled(self) -> pd.DataFrame:
        return reconcile_consent(self.study, self.events, self.as_of)

    @cached_property
    def erased(self) -> pd.DataFrame:
        return derive_erased(self.events)

    @cached_property
    def incidents(self) -> pd.DataFrame:
        register = derive_incidents(self.study, self.events, self.as_of)
        return register[register["category"] == CONSENT_BREACH]

    @cached_property
    def names(self) -> dict[str, str]:
        return {site.site_id: site.name for site in self.study.sites}

    def name_site(self, site_id: str) -> str:
        return self.names.get(site_id, site_id)

    def list_figures(self) -> list[tuple[str, int]]:
        consents = self.consents
        in_force = consents["covers_questionnaires"] & consents["is_asked"]
        copies = consents["copy"]
        return [
            ("consented", len(consents)),
            ("may be sent questionnaires", int(in_force.sum())),
            ("forms held or seen", int(copies.isin(["held", "seen"]).sum())),
            ("forms missing, faulty or not told of", int((~copies.isin(["held", "seen"])).sum())),
            ("to be asked for consent anew", int((consents["reconsent"] != "").sum())),
            ("consents with a fault", int((consents["faults"] != "").sum())),
            ("open incidents", int((self.incidents["state"] != "closed").sum())),
        ]

    def list_to_do(self) -> list[dict[str, Any]]:
        """What is wrong, the gravest first: in words, where and how often, and what to do."""
        consents = self.consents
        entries = []
        for code, fault in FAULTS.items():
            own = consents[_has_code(consents["faults"], code)]
            if len(own):
                entries.append(self._describe_entry(fault.words, fault.to_do, own, is_grave=code in _GRAVE))
        for code in _ASKED_FIRST:
            own = self.reconciled[self.reconciled["finding"] == code]
            if len(own) and code != "before_consent":  # told of above
                finding = FINDINGS[code]
                people = own.drop_duplicates("participant_id")
                entries.append(self._describe_entry(finding.words, finding.to_do, people, code in _GRAVE))
        overdue = consents[consents["copy_is_overdue"]]
        if len(overdue):
            words = "The signed form should be filed by now, and is missing, faulty or not told of"
            entries.append(
                self._describe_entry(words, "Ask the site to file it and to say so in its consent log", overdue)
            )
        due = consents[consents["reconsent"] == "due"]
        if len(due):
            words = "Consent runs out soon"
            entries.append(self._describe_entry(words, "Ask the site to seek it anew in time", due))
        return sorted(entries, key=lambda entry: not entry["is_grave"])

    def _describe_entry(self, words: str, to_do: str, people: pd.DataFrame, is_grave: bool = False) -> dict[str, Any]:
        counts = people["site_id"].value_counts(sort=False)
        where = format_list(f"{self.name_site(str(site))} {n}" for site, n in sorted(counts.items()))
        return {"words": words, "to_do": to_do, "n": len(people), "where": where, "is_grave": is_grave}

    def describe_sites(self) -> list[dict[str, Any]]:
        groups = dict(list(self.consents.groupby("site_id")))
        empty = self.consents.iloc[:0]
        return [
            {"name": site.name, "site_id": site.site_id, **self._count(groups.get(site.site_id, empty), site.site_id)}
            for site in self.study.sites
        ]

    def describe_total(self) -> dict[str, Any]:
        return self._count(self.consents, None)

    def _count(self, consents: pd.DataFrame, site_id: str | None) -> dict[str, Any]:
        incidents = self.incidents if site_id is None else self.incidents[self.incidents["site_id"] == site_id]
        return {
            "n": len(consents),
            "n_covered": int((consents["covers_questionnaires"] & consents["is_asked"]).sum()),
            "n_linkage": int(
                (
                    consents["covers_linkage"]
                    & ~is_stopped(self.stops, consents["participant_id"], "linkage").astype("bool")
                ).sum()
            ),
            "copies": [int((consents["copy"] == copy).sum()) for copy in COPY_WORDS],
            "n_overdue": int(consents["copy_is_overdue"].sum()),
            "n_reconsent": int((consents["reconsent"] != "").sum()),
            "n_faults": int((consents["faults"] != "").sum()),
            "n_incidents": int((incidents["state"] != "closed").sum()),
        }

    def describe_stops(self) -> list[dict[str, Any]]:
        """One row per reason for leaving: how many people it ended each thing for."""
        labels = {reason.id: reason.label for reason in self.study.disposition_reasons}
        labels["erasure_decided"] = "What was given is erased, by decision"
        rows = []
        for (kind, reason), own in self.stops.groupby(["kind", "reason"], sort=False):
            counts = own["stops"].value_counts()
            rows.append(
                {
                    "reason": labels.get(str(reason), str(reason)),
                    "kind": KIND_WORDS[str(kind)],
                    "n": int(own["participant_id"].nunique()),
                    "counts": [int(counts.get(thing, 0)) for thing in STOPS],
                }
            )
        return sorted(rows, key=lambda row: (-row["n"], row["reason"]))

    def describe_stops_by_site(self) -> list[dict[str, Any]]:
        counts: Mapping[Any, int] = self.stops.groupby(["site_id", "stops"]).size().to_dict()
        people = self.stops.groupby("site_id")["participant_id"].nunique().to_dict()
        return [
            {
                "name": site.name,
                "n": people[site.site_id],
                "counts": [counts.get((site.site_id, thing), 0) for thing in STOPS],
            }
            for site in self.study.sites
            if site.site_id in people
        ]

    def describe_reconciled(self) -> list[dict[str, Any]]:
        waves = {wave.id: wave.label for wave in self.study.waves}
        scopes = {scope.id: scope.label for scope in self.study.consent_scopes}
        found = self.reconciled[self.reconciled["finding"] != "no_return"]
        return [
            {
                "site": self.name_site(row["site_id"]),
                "participant": row["participant_id"],
                "finding": FINDINGS[row["finding"]].words,
                "scope": format_list(scopes.get(scope, scope) for scope in row["scope"].split(";") if scope),
                "wave": waves.get(row["wave"], row["wave"]),
                "respondent": row["respondent"],
                "n": row["n_records"],
                "on": show_day(row["first_on"]),
                "is_grave": row["finding"] in _GRAVE,
            }
            for row in found.to_dict("records")
        ]

    def describe_incidents(self) -> list[dict[str, Any]]:
        return [
            {
                "number": row["incident_id"],
                "site": self.name_site(row["site_id"]),
                "subject": row["subject"].partition(":")[0],
                "what": _find_words(row["subject"].partition(":")[2]),
                "on": show_day(row["occurred_on"]),
                "state": "closed" if row["state"] == "closed" else _STEPS[row["next_step"]],
                "outcome": row["outcome"].replace("_", " "),
                "due": show_day(row["next_due_on"]),
                "is_late": not pd.isna(row["overdue_since"]),
            }
            for row in self.incidents.to_dict("records")
        ]

    def describe_people(self) -> list[dict[str, Any]]:
        """Each site's people, those with something to see to first."""
        scopes = {scope.id: scope.label for scope in self.study.consent_scopes}
        stopped: dict[str, list[str]] = {}
        for row in self.stops.itertuples(index=False):
            stopped.setdefault(str(row.participant_id), []).append(
                f"{STOP_WORDS[str(row.stops)]} {show_day(row.from_on)}"
            )
        sites = []
        for site in self.study.sites:
            own = self.consents[self.consents["site_id"] == site.site_id]
            own = own.assign(is_fine=(own["faults"] == "") & ~own["copy_is_overdue"] & (own["reconsent"] == ""))
            rows = [
                {
                    "participant": row["participant_id"],
                    "signed": show_day(row["signed_on"]),
                    "version": row["form_version"],
                    "route": ROUTE_WORDS[row["route"]],
                    "scopes": format_list(scopes.get(scope, scope) for scope in row["scopes"].split(";") if scope),
                    "place": COPY_WORDS[row["copy"]],
                    "copy_due": show_day(row["copy_due_on"]) if row["copy"] not in ("held", "seen") else "",
                    "copy_is_late": row["copy_is_overdue"],
                    "reconsent": show_day(row["reconsent_due_on"]),
                    "reconsent_is_late": row["reconsent"] == "overdue",
                    "faults": [FAULTS[code].words for code in row["faults"].split(";") if code],
                    "stopped": stopped.get(row["participant_id"], []),
                }
                for row in own.sort_values(["is_fine", "participant_id"]).to_dict("records")
            ]
            sites.append(
                {"name": site.name, "site_id": site.site_id, "rows": rows, "n_to_do": int((~own["is_fine"]).sum())}
            )
        return sites


_GRAVE = ("collected_before_consent", "parent_after_sixteen", "after_withdrawal", "before_consent")


def _find_words(code: str) -> str:
    """What an incident is about, for people; one that somebody entered by hand has no code."""
    known = FINDINGS.get(code) or FAULTS.get(code)
    return known.words if known else "Entered by a person"


def _has_code(joined: pd.Series[Any], code: str) -> pd.Series[Any]:
    return (";" + joined + ";").str.contains(f";{code};", regex=False).astype("bool")
