"""The page of returns and checks: what came in, what was asked about it, what waits for whom, what was confirmed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import Any

import pandas as pd

from study.calendar import format_day
from study.events import ReturnFileProcessed
from study.held_files import derive_held_files, describe_kinds
from study.pack_layout import Layout
from study.protocol import Study
from study.queries import AGE_BANDS, ANSWERS, CLOSED, WITH_SITE, WITH_STUDY, derive_ages
from study.state import Events, derive_queries
from tasks.pages import format_list, format_moment_for_people, render_page, show_day
from tasks.receipts import find_wording

RETURNS_PAGE = "pages/returns.html"
OUTCOMES = {
    "accepted": "accepted",
    "accepted_in_part": "accepted in part",
    "nothing_accepted": "nothing accepted",
    "quarantined": "put aside",
}
_FILES_SHOWN = 40  # the newest
_QUERIES_SHOWN = 50  # of one site
_ROWS_SHOWN = 50  # of what is answered, and of what is confirmed
_LONG_OPEN = 28  # days: four weeks without an answer is for a telephone call


def write_returns_page(
    *, study: Study, layout: Layout, events: Events, as_of: date, written_at: datetime, banner: str = "", name: str = ""
) -> bytes:
    """The page of a day as one file of HTML, with everything in it that it shows. `banner`: what every reader must know
    first, such as that the people are invented; `name`: how commands call the study (left out, by its id)."""
    page = _Page(study, layout, events.select(as_of=as_of), as_of)
    return render_page(
        "returns.html.jinja",
        title=f"Returns and checks: {study.title}",
        study=study,
        name=name or study.study_id,
        banner=banner,
        as_of=format_day(as_of),
        written_at=format_moment_for_people(written_at),
        head=events.head,
        bands=list(AGE_BANDS.values()),
        outcomes=list(OUTCOMES.values()),
        figures=page.list_figures(),
        to_do=page.list_to_do(),
        by_site=page.describe_sites(),
        total=page.describe_total(),
        answered=page.describe_answered(),
        n_answered=len(page.with_study),
        rules=page.describe_rules(),
        rule_sites=page.rule_sites,
        confirmed=page.describe_confirmed(),
        n_confirmed=len(page.confirmed),
        held=page.describe_held(),
        files=page.describe_files(),
        n_files=len(page.files),
        files_by_site=page.describe_files_by_site(),
        open_by_site=page.describe_open(),
    )


@dataclass
class _Page:
    """The frames behind the page, each folded once, and what the template shows of them."""

    study: Study
    layout: Layout
    events: Events
    as_of: date

    @cached_property
    def queries(self) -> pd.DataFrame:
        return derive_ages(derive_queries(self.events)[_COLUMNS], self.as_of)

    @cached_property
    def still_open(self) -> pd.DataFrame:
        return self.queries[self.queries["stage"] != CLOSED].sort_values(["raised_on", "query_id"])

    @cached_property
    def with_study(self) -> pd.DataFrame:
        own = self.queries[self.queries["stage"] == WITH_STUDY]
        return own.sort_values(["answered_on", "query_id"])

    @cached_property
    def confirmed(self) -> pd.DataFrame:
        own = self.queries[self.queries["close_reason"] == "confirmed"]
        return own.sort_values(["closed_on", "query_id"], ascending=[False, True])

    @cached_property
    def files(self) -> pd.DataFrame:
        return self.events.frame(ReturnFileProcessed)

    @cached_property
    def held(self) -> pd.DataFrame:
        held = derive_held_files(self.events)
        return held[held["state"] == "waiting"]

    @cached_property
    def names(self) -> dict[str, str]:
        return {site.site_id: site.name for site in self.study.sites}

    @cached_property
    def rule_sites(self) -> list[tuple[str, str]]:
        """Code and name of each site that was asked anything, in the study's order."""
        asked = set(self.queries["site_id"])
        return [(site.code, site.name) for site in self.study.sites if site.site_id in asked]

    def name_site(self, site_id: str) -> str:
        return self.names.get(site_id, site_id)

    def list_figures(self) -> list[tuple[str, int]]:
        outcomes = self.files["outcome"].value_counts()
        return [
            ("files received", len(self.files)),
            ("of them accepted whole", int(outcomes.get("accepted", 0))),
            ("queries open", len(self.still_open)),
            ("with the sites", int((self.still_open["stage"] == WITH_SITE).sum())),
            ("answered, for us to look at", len(self.with_study)),
            (f"open for more than {_LONG_OPEN} days", int((self.still_open["age_days"] > _LONG_OPEN).sum())),
            ("held files to review", len(self.held)),
        ]

    def list_to_do(self) -> list[dict[str, Any]]:
        """What waits for the study, the most pressing first: in words, where and how often, and what to do."""
        with_site = self.still_open[self.still_open["stage"] == WITH_SITE]
        latest = self.files.drop_duplicates("site_id", keep="last")
        entries = [
            (self.held, "Files held because they may tell who a person is", "Review them: release or erase", True),
            (self.with_study, "Queries that sites have answered", "Look at each: close it, or put it again", False),
            (
                with_site[with_site["age_days"] > _LONG_OPEN],
                f"Queries that a site has left unanswered for more than {_LONG_OPEN} days",
                "Telephone the site",
                False,
            ),
            (
                latest[latest["outcome"].isin(["quarantined", "nothing_accepted"])],
                "Sites of whose last file nothing was accepted",
                "Ask whether they can read the receipt",
                False,
            ),
        ]
        return [
            {"words": words, "to_do": to_do, "n": len(own), "where": self._list_sites(own), "is_grave": is_grave}
            for own, words, to_do, is_grave in entries
            if len(own)
        ]

    def _list_sites(self, rows: pd.DataFrame) -> str:
        counts = rows["site_id"].value_counts(sort=False)
        return format_list(f"{self.name_site(str(site))} {n}" for site, n in sorted(counts.items()))

    def describe_sites(self) -> list[dict[str, Any]]:
        counted = self._count(self.queries["site_id"])
        return [{"name": site.name, **counted.get(site.site_id, _NOTHING)} for site in self.study.sites]

    def describe_total(self) -> dict[str, Any]:
        return self._count(pd.Series("", self.queries.index, dtype="str")).get("", _NOTHING)

    def _count(self, by: pd.Series[Any]) -> dict[str, dict[str, Any]]:
        """Of each group: open ones by who acts, severity and age (AGE_BANDS); the oldest; closed ones by reason."""
        queries = self.queries
        is_open = queries["stage"] != CLOSED
        flags = pd.DataFrame(
            {
                "n_open": is_open,
                "n_with_site": queries["stage"] == WITH_SITE,
                "n_answered": queries["stage"] == WITH_STUDY,
                "n_hard": is_open & (queries["severity"] == "hard"),
                "n_mended": queries["close_reason"].isin(["mended", "changed"]),
                "n_confirmed": queries["close_reason"] == "confirmed",
                "n_withdrawn": queries["close_reason"] == "withdrawn",
                **{band: is_open & (queries["age_band"] == band) for band in AGE_BANDS.values()},
            }
        )
        sums: Mapping[Any, Mapping[Any, Any]] = flags.groupby(by).sum().astype("int64").to_dict("index")
        oldest = queries.loc[is_open, "age_days"].groupby(by[is_open]).max().to_dict()
        return {
            str(group): {
                **{str(name): n for name, n in own.items() if name not in _BANDS},
                "ages": [own[band] for band in AGE_BANDS.values()],
                "oldest": oldest.get(group),
            }
            for group, own in sums.items()
        }

    def describe_answered(self) -> list[dict[str, Any]]:
        return [
            self._describe(row) | {"answer": ANSWERS[row["answer"]], "answered": show_day(row["answered_on"])}
            for row in self.with_study.head(_ROWS_SHOWN).to_dict("records")
        ]

    def describe_confirmed(self) -> list[dict[str, Any]]:
        return [
            self._describe(row) | {"on": show_day(row["closed_on"])}
            for row in self.confirmed.head(_ROWS_SHOWN).to_dict("records")
        ]

    def describe_open(self) -> list[dict[str, Any]]:
        """Of each site the oldest so many."""
        n = self.still_open["site_id"].value_counts().to_dict()
        shown: dict[str, list[dict[str, Any]]] = {}
        for row in self.still_open.groupby("site_id").head(_QUERIES_SHOWN).to_dict("records"):
            shown.setdefault(row["site_id"], []).append(self._describe(row))
        return [
            {
                "name": site.name,
                "site_id": site.site_id,
                "n": n[site.site_id],
                "rows": shown[site.site_id],
            }
            for site in self.study.sites
            if site.site_id in shown
        ]

    def _describe(self, row: Mapping[Any, Any]) -> dict[str, Any]:
        where = [row["return_id"].removeprefix(f"{row['site_id']}-"), self.layout.find_title(row["sheet"])]
        where += [f"row {row['row']}"] if row["row"] else []
        where += [self.layout.name_column(row["sheet"], row["item"] or row["column_name"])]
        where += [f"line {row['export_line']:,} of the export"] if row["export_line"] else []
        return {
            "query": row["query_id"],
            "site": self.name_site(row["site_id"]),
            "raised": show_day(row["raised_on"]),
            "days": row["age_days"],
            "is_late": row["age_days"] > _LONG_OPEN,
            "participant": row["participant_id"],
            "where": ", ".join(filter(None, where)),
            "wrong": find_wording(row["rule"], "")[0],
            "must": row["severity"] == "hard",
            "state": f"answered: {ANSWERS[row['answer']]}" if row["stage"] == WITH_STUDY else "with the site",
        }

    def describe_rules(self) -> list[dict[str, Any]]:
        """How often each rule asked, in all and at each site, the most frequent first; and how many are open."""
        counts: Mapping[Any, int] = self.queries.groupby(["rule", "site_id"]).size().to_dict()
        n = self.queries["rule"].value_counts()
        n_open = self.still_open["rule"].value_counts()
        severities = dict(zip(self.queries["rule"], self.queries["severity"], strict=True))
        sites = [site.site_id for site in self.study.sites if (site.code, site.name) in self.rule_sites]
        return [
            {
                "wrong": find_wording(rule, "")[0],
                "must": severities[rule] == "hard",
                "n": int(n[rule]),
                "n_open": int(n_open.get(rule, 0)),
                "counts": [counts.get((rule, site_id), 0) for site_id in sites],
            }
            for rule in sorted(n.index, key=lambda rule: (-n[rule], rule))
        ]

    def describe_held(self) -> list[dict[str, Any]]:
        return [
            {
                "file": row["held_id"],
                "site": self.name_site(row["site_id"]),
                "on": show_day(row["held_on"]),
                "sending": row["return_id"].removeprefix(f"{row['site_id']}-") or "not known",
                "found": describe_kinds(row["identifiers"]),
                "n_places": row["n_places"],
                "kept": "an encrypted copy" if row["kept"] == "encrypted" else "nothing",
            }
            for row in self.held.to_dict("records")
        ]

    def describe_files(self) -> list[dict[str, Any]]:
        """The newest so many, the newest first."""
        return [
            {
                "on": show_day(row["occurred_on"]),
                "site": self.name_site(row["site_id"]),
                "sending": row["return_id"].removeprefix(f"{row['site_id']}-") or "not known",
                "correction": row["correction"],
                "outcome": OUTCOMES[row["outcome"]],
                "why": find_wording(row["reason"], "")[0] if row["reason"] else "",
                "is_bad": row["outcome"] in ("quarantined", "nothing_accepted"),
                "counts": [
                    row[name] for name in ("n_accepted", "n_repeated", "n_superseded", "n_refused", "n_queries")
                ],
            }
            for row in self.files.tail(_FILES_SHOWN).iloc[::-1].to_dict("records")
        ]

    def describe_files_by_site(self) -> list[dict[str, Any]]:
        counts: Mapping[Any, int] = self.files.groupby(["site_id", "outcome"]).size().to_dict()
        sums = self.files.groupby("site_id")[["n_accepted", "n_refused"]].sum().to_dict("index")
        last = self.files.groupby("site_id")["occurred_on"].max().to_dict()
        return [
            {
                "name": site.name,
                "counts": [counts.get((site.site_id, outcome), 0) for outcome in OUTCOMES],
                "n": sum(counts.get((site.site_id, outcome), 0) for outcome in OUTCOMES),
                "n_accepted": int(sums.get(site.site_id, {}).get("n_accepted", 0)),
                "n_refused": int(sums.get(site.site_id, {}).get("n_refused", 0)),
                "last": show_day(last[site.site_id]) if site.site_id in last else "",
            }
            for site in self.study.sites
        ]


_BANDS = frozenset(AGE_BANDS.values())
_COLUMNS = [
    "query_id", "site_id", "participant_id", "rule", "severity", "return_id", "sheet", "row", "item", "column_name",
    "export_line", "raised_on", "answered_on", "answer", "closed_on", "close_reason", "stage",
]  # fmt: skip
_NOTHING: dict[str, Any] = {
    **dict.fromkeys(
        ("n_open", "n_with_site", "n_answered", "n_hard", "n_mended", "n_confirmed", "n_withdrawn"), 0
    ),
    "ages": [0] * len(AGE_BANDS),
    "oldest": None,
}  # fmt: skip
