"""The page of consent by site: who consented, where the forms are, what is wrong and what to do, who stopped what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import Any, NamedTuple

import pandas as pd

from study.calendar import add_period, format_day
from study.consent import CONSENT_BREACH, FAULTS, FINDINGS, derive_consents, reconcile_consent
from study.erasure import derive_erased
from study.incidents import derive_incidents
from study.participation import LINKAGE, QUESTIONNAIRES, STOPS, derive_stops, is_stopped
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
_PEOPLE_SHOWN = 50  # of one site: a page of thousands of people opens slowly, and nobody reads it
_RECORDS_SHOWN = 50  # of one site


def write_consent_page(
    *, study: Study, events: Events, as_of: date, written_at: datetime, banner: str = "", name: str = ""
) -> bytes:
    """The page of a day as one file of HTML, with everything in it that it shows. `banner`: what every reader must know
    first, such as that the people are invented; `name`: how commands call the study (left out, by its id)."""
    page = _Page(study, events, as_of)
    return render_page(
        "consent.html.jinja",
        title=f"Consent: {study.title}",
        study=study,
        name=name or study.study_id,
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
        n_not_covered=len(page.not_covered),
        n_waiting=int((page.reconciled["finding"] == "no_return").sum()),
        incidents=page.describe_incidents(),
        people=page.describe_people(),
        n_erased=len(page.erased),
    )


class _Counts(NamedTuple):
    """How many consents of each kind there are; `copies` in the order of COPY_WORDS."""

    n: int
    n_covered: int
    n_linkage: int
    copies: list[int]
    n_overdue: int
    n_reconsent: int
    n_faults: int


_NONE = _Counts(0, 0, 0, [0] * len(COPY_WORDS), 0, 0, 0)


@dataclass
class _Page:
    """The frames behind the page, each folded once, and what the template shows of them."""

    study: Study
    events: Events
    as_of: date

    @cached_property
    def consents(self) -> pd.DataFrame:
        """Of each person; is_asked: for questionnaires; may_be_linked; copy_is_overdue; reconsent: '', "due" or
        "overdue"; is_fine: there is nothing to see to."""
        consents = derive_consents(self.study, self.events, self.as_of)
        today = pd.Timestamp(self.as_of)
        rule = self.study.fieldwork.consent_rule
        notice = pd.Timestamp(add_period(self.as_of, rule.reconsent_notice)) if rule else today
        consents["is_asked"] = ~is_stopped(self.stops, consents["participant_id"], QUESTIONNAIRES)
        consents["copy_is_overdue"] = ~consents["copy"].isin(["held", "seen"]) & (consents["copy_due_on"] < today)
        consents["may_be_linked"] = consents["covers_linkage"] & ~is_stopped(
            self.stops, consents["participant_id"], LINKAGE
        )
        ends_on = consents["reconsent_due_on"]
        soon = (
            pd.Series("", consents.index, dtype="str").mask(ends_on <= notice, "due").mask(ends_on < today, "overdue")
        )
        consents["reconsent"] = soon.where(consents["is_asked"], "")
        consents["is_fine"] = (consents["faults"] == "") & ~consents["copy_is_overdue"] & (consents["reconsent"] == "")
        return consents

    @cached_property
    def stops(self) -> pd.DataFrame:
        return derive_stops(self.study, self.events, self.as_of)

    @cached_property
    def reconciled(self) -> pd.DataFrame:
        return reconcile_consent(self.study, self.events, self.as_of)

    @cached_property
    def not_covered(self) -> pd.DataFrame:
        return self.reconciled[self.reconciled["finding"] != "no_return"]

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
        consents, incidents = self._count(self.consents["site_id"]), self._count_incidents()
        return [
            {
                "name": site.name,
                "site_id": site.site_id,
                **consents.get(site.site_id, _NONE)._asdict(),
                "n_incidents": incidents.get(site.site_id, 0),
            }
            for site in self.study.sites
        ]

    def describe_total(self) -> dict[str, Any]:
        every = self._count(pd.Series("", self.consents.index, dtype="str"))
        return {**every.get("", _NONE)._asdict(), "n_incidents": sum(self._count_incidents().values())}

    def _count(self, by: pd.Series[Any]) -> dict[str, _Counts]:
        consents = self.consents
        flags = {
            "n_covered": consents["covers_questionnaires"] & consents["is_asked"],
            "n_linkage": consents["may_be_linked"],
            **{f"copy_{copy}": consents["copy"] == copy for copy in COPY_WORDS},
            "n_overdue": consents["copy_is_overdue"],
            "n_reconsent": consents["reconsent"] != "",
            "n_faults": consents["faults"] != "",
        }
        groups = pd.DataFrame(flags).groupby(by)
        sums: dict[Any, dict[Any, Any]] = groups.sum().astype("int64").to_dict("index")
        n: dict[Any, int] = groups.size().to_dict()
        return {
            str(name): _Counts(
                n[name], own["n_covered"], own["n_linkage"], [own[f"copy_{copy}"] for copy in COPY_WORDS],
                own["n_overdue"], own["n_reconsent"], own["n_faults"],
            )
            for name, own in sums.items()
        }  # fmt: skip

    def _count_incidents(self) -> dict[str, int]:
        is_open = self.incidents["state"] != "closed"
        return {str(site): int(n) for site, n in self.incidents.loc[is_open, "site_id"].value_counts().items()}

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
        """Of each site the first so many, the gravest first."""
        waves = {wave.id: wave.label for wave in self.study.waves}
        scopes = {scope.id: scope.label for scope in self.study.consent_scopes}
        shown = self.not_covered.groupby("site_id").head(_RECORDS_SHOWN)
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
            for row in shown.to_dict("records")
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
        """Of each site's people the first so many: those with something to see to, the gravest first, then the rest."""
        order = self._rank()
        ordered = self.consents.assign(order=order).sort_values(["order", "participant_id"])
        shown = {str(site): own for site, own in ordered.groupby("site_id").head(_PEOPLE_SHOWN).groupby("site_id")}
        n = self.consents["site_id"].value_counts().to_dict()
        n_to_do = self.consents.loc[~self.consents["is_fine"], "site_id"].value_counts().to_dict()
        return [
            {
                "name": site.name,
                "site_id": site.site_id,
                "rows": self._describe_consents(shown[site.site_id]) if site.site_id in shown else [],
                "n": n.get(site.site_id, 0),
                "n_to_do": n_to_do.get(site.site_id, 0),
            }
            for site in self.study.sites
        ]

    def _rank(self) -> pd.Series[int]:
        """0 for the gravest fault, the next ones by FAULTS, then forms overdue, consents that run out, and the rest."""
        consents, places = self.consents, {code: place for place, code in enumerate(FAULTS)}
        worst = {text: min(places[code] for code in text.split(";")) for text in consents["faults"].unique() if text}
        rank = pd.Series(len(FAULTS) + 2, consents.index, dtype="int64")
        rank = rank.mask(consents["reconsent"] != "", len(FAULTS) + 1).mask(consents["copy_is_overdue"], len(FAULTS))
        return consents["faults"].map(worst).fillna(rank).astype("int64")

    def _describe_consents(self, consents: pd.DataFrame) -> list[dict[str, Any]]:
        scopes = {scope.id: scope.label for scope in self.study.consent_scopes}
        stops = self.stops[self.stops["participant_id"].isin(consents["participant_id"])]
        stopped: dict[str, list[str]] = {}
        for row in stops.itertuples(index=False):
            words = f"{STOP_WORDS[str(row.stops)]} {show_day(row.from_on)}"
            stopped.setdefault(str(row.participant_id), []).append(words)
        return [
            {
                "participant": row["participant_id"],
                "signed": show_day(row["signed_on"]),
                "first_signed": show_day(row["consented_on"]) if row["consented_on"] < row["signed_on"] else "",
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
            for row in consents.to_dict("records")
        ]


_GRAVE = ("collected_before_consent", "parent_after_sixteen", "after_withdrawal", "before_consent")


def _find_words(code: str) -> str:
    """What an incident is about, for people; one that somebody entered by hand has no code."""
    known = FINDINGS.get(code) or FAULTS.get(code)
    return known.words if known else "Entered by a person"


def _has_code(joined: pd.Series[Any], code: str) -> pd.Series[Any]:
    return (";" + joined + ";").str.contains(f";{code};", regex=False).astype("bool")
