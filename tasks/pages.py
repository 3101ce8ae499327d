"""Pages for people: static HTML that needs no script and asks nothing of the outside."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from study.datasets import derive_answered_after_leaving, derive_attendance, derive_dispositions, derive_means
from study.instruments import Instrument
from study.protocol import Study
from study.state import Head
from tasks.settings import PROJECT

NOT_ALLOCATED = "Not allocated"
_RETURN_COUNTS = {
    "files": "Files",
    "quarantined": "In quarantine",
    "n_accepted": "Records accepted",
    "n_superseded": "of these, corrections",
    "n_repeated": "Sent again",
    "n_refused": "Refused",
    "queries": "Queries",
    "open": "Open",
}


@lru_cache(maxsize=1)
def _templates() -> Environment:
    loader = FileSystemLoader(PROJECT / "templates" / "pages")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def render_page(template: str, **values: Any) -> bytes:
    """A page from its template. Raises jinja2.UndefinedError for a value that the template names and nobody gave."""
    return (_templates().get_template(template).render(**values).rstrip() + "\n").encode()


def write_codebook_page(codebook: Mapping[str, Any]) -> bytes:
    """The codebook (`study.codebook`) as a page."""
    # In a template `instrument.items` would be the dict's own method.
    instruments = [{**entry, "items_": entry["items"]} for entry in codebook["instruments"]]
    return render_page("codebook.html.jinja", title="Codebook", codebook={**codebook, "instruments": instruments})


def write_release_report(
    *,
    release: str,
    study: Study,
    instruments: Mapping[str, Instrument],
    as_of: date,
    known_at: datetime,
    head: Head,
    tables: Mapping[str, pd.DataFrame],
    files: pd.DataFrame,
    queries: pd.DataFrame,
    data_files: Mapping[str, bytes],
) -> bytes:
    """The page that comes with a release: attendance, dispositions, means, returns; every figure from its tables."""
    participants, responses, scores = tables["participants"], tables["responses"], tables["scores"]
    attendance = derive_attendance(responses, participants, study)
    after = derive_answered_after_leaving(responses, participants)
    waves = {wave.id for wave in study.waves}
    withdrew = after["disposition"].str.startswith("withdrawal")
    figures = [
        ("people screened", len(participants)),
        ("allocated to an arm", int(participants["arm"].notna().sum())),
        ("sites that sent returns", int(files["site_id"].nunique())),
        ("questionnaires accepted", len(responses.drop_duplicates(["participant_id", "wave", "respondent", "instrument"]))),
        ("answers and typed blanks", len(responses)),
        ("queries open", int((queries["status"] == "open").sum())),
    ]  # fmt: skip
    return render_page(
        "release_report.html.jinja",
        title=f"{study.title}: release {release}",
        study=study,
        release=release,
        as_of=format_day(as_of),
        known_at=format_moment_for_people(known_at),
        head=head,
        figures=[{"label": label, "n": n} for label, n in figures],
        assumptions=study.assumptions,
        unscheduled=sorted(set(responses["wave"]) - waves),
        attendance=[
            _describe_attendance(instruments[name], attendance[attendance["instrument"] == name], study)
            for name in study.instruments
            if (attendance["instrument"] == name).any()
        ],
        dispositions=_describe_dispositions(derive_dispositions(participants, study), study),
        n_after_leaving=len(after),
        n_after_withdrawing=int(withdrew.sum()),
        means=_describe_means(derive_means(scores, participants, study), study, instruments),
        returns=_describe_returns(files, queries, study),
        files=[
            {"name": name, "n_rows": len(tables[name.split("/")[1].split(".")[0]]), "sha256": _sha256(content)}
            for name, content in sorted(data_files.items())
        ],
    )


def format_day(day: date) -> str:
    """A date as people write it: 9 March 2015."""
    return f"{day.day} {day:%B %Y}"


def format_moment_for_people(moment: datetime) -> str:
    """A moment in London time: 9 March 2015 at 06:30."""
    local = moment.astimezone(ZoneInfo("Europe/London"))
    return f"{format_day(local.date())} at {local:%H:%M}"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _find_arm_columns(table: pd.DataFrame, study: Study) -> tuple[list[str], list[str]]:
    """Columns of a table by arm and their headings; people never allocated last, if the table counts them."""
    names = {arm.id: arm.label for arm in study.arms} | {"not_allocated": NOT_ALLOCATED}
    columns = [name for name in names if name in table]
    return columns, [names[column] for column in columns]


def _find_wave_label(study: Study, wave_id: str) -> str:
    wave = study.find_wave(wave_id)
    return wave.label if wave else f"{wave_id} (unscheduled)"


def _describe_attendance(instrument: Instrument, table: pd.DataFrame, study: Study) -> dict[str, Any]:
    columns, arms = _find_arm_columns(table, study)
    rows = [
        {"wave": _find_wave_label(study, row["wave"]), "counts": [int(row[name]) for name in [*columns, "total"]]}
        for row in table.to_dict("records")
    ]
    return {"title": instrument.title, "arms": arms, "rows": rows}


def _describe_dispositions(table: pd.DataFrame, study: Study) -> dict[str, Any]:
    columns, arms = _find_arm_columns(table, study)
    labels = {reason.id: (reason.label, reason.kind) for reason in study.disposition_reasons}
    rows = []
    for row in table.to_dict("records"):
        label, kind = labels.get(row["disposition"], ("None recorded", "still in the study"))
        rows.append({"label": label, "kind": kind, "counts": [int(row[name]) for name in [*columns, "total"]]})
    totals = [int(table[name].sum()) for name in [*columns, "total"]]
    rows.append({"label": "All", "kind": "", "counts": totals, "is_total": True})
    return {"arms": arms, "rows": [{"is_total": False, **row} for row in rows]}


def _describe_means(table: pd.DataFrame, study: Study, instruments: Mapping[str, Instrument]) -> list[dict[str, Any]]:
    described = []
    arms = [arm.id for arm in study.arms]
    for (instrument_id, scale_id), rows in table.groupby(["instrument", "scale"], sort=False):
        instrument = instruments[str(instrument_id)]
        scale = instrument.find_scale(str(scale_id))
        cells = rows.set_index(["wave", "arm"])
        described.append(
            {
                "title": f"{instrument.title}: {scale.label if scale else scale_id}",
                "arms": [arm.label for arm in study.arms],
                "rows": [
                    {"wave": _find_wave_label(study, wave), "cells": [_find_mean(cells, wave, arm) for arm in arms]}
                    for wave in dict.fromkeys(rows["wave"])
                ],
            }
        )
    return described


def _find_mean(cells: pd.DataFrame, wave: str, arm: str) -> dict[str, float]:
    if (wave, arm) not in cells.index:
        return {"mean": 0.0, "n": 0}
    row = cells.loc[(wave, arm)]
    return {"mean": float(row["mean"]), "n": int(row["n"])}


def _describe_returns(files: pd.DataFrame, queries: pd.DataFrame, study: Study) -> dict[str, Any]:
    counts = files.assign(files=1, quarantined=(files["outcome"] == "quarantined").astype(int))
    by_site = counts.groupby("site_id")[[name for name in _RETURN_COUNTS if name in counts]].sum()
    by_site["queries"] = queries.groupby("site_id").size()
    by_site["open"] = queries[queries["status"] == "open"].groupby("site_id").size()
    by_site = by_site.reindex([site.site_id for site in study.sites], columns=list(_RETURN_COUNTS)).fillna(0).astype(int)
    rows: Sequence[dict[str, Any]] = [
        {"site": site.name, "counts": by_site.loc[site.site_id].tolist(), "is_total": False} for site in study.sites
    ]
    total = {"site": "All", "counts": by_site.sum().tolist(), "is_total": True}
    return {"labels": list(_RETURN_COUNTS.values()), "rows": [*rows, total]}
