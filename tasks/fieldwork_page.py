"""The coordinator's page: what to do today, where each wave stands at each site, what chasing brings and costs."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import pandas as pd

from study.calendar import format_day
from study.progress import MEASURE_WORDS, derive_curves, derive_matrix, derive_reached
from study.protocol import Study
from study.safeguarding import find_open_alerts
from study.state import Events
from study.waves import derive_moves
from study.work_list import KIND_WORDS, derive_work_list, format_since
from study.yields import derive_burden, derive_step_yields
from tasks.pages import describe_steps, format_moment_for_people, render_page

FIELDWORK_PAGE = "pages/fieldwork.html"
DAYS_BACK = 7
_ENTRIES_SHOWN = 6
_MOVES_SHOWN = 50
_CHART = (600.0, 200.0)
_WORK_WORDS = {
    "approach": "Approaches",
    "consent": "Consents",
    "pack": "Packs",
    "questionnaire": "Questionnaires",
    "digest": "Letters read",
    "call": "Calls",
    "query": "Queries answered",
    "activity_figures": "Figures reported",
}
_CELL_WORDS = {
    "n_out": "out",
    "n_late": "late",
    "n_partial": "in part",
    "n_held": "held",
    "n_missing": "missing",
    "n_planned": "to come",
    "n_truncated": "after the end",
}
_DATE_WORDS = {
    "release_from": "may go out from",
    "opens_on": "window opens",
    "due_on": "due",
    "closes_on": "window closes",
    "late_until": "taken until",
}


def write_fieldwork_page(
    study: Study,
    events: Events,
    as_of: date,
    written_at: datetime,
    banner: str = "",
    name: str = "",
    study_then: Study | None = None,
) -> bytes:
    """The page of a day as one file of HTML, with everything in it that it shows. `banner`: stands above all else;
    `name`: how commands call the study (left out, by its id); `study_then`: the study as it was configured DAYS_BACK
    before, where that was otherwise."""
    name = name or study.study_id
    matrix = derive_matrix(study, events, as_of)
    reached = derive_reached(study, events, as_of)
    curves = derive_curves(study, events, as_of)
    since = as_of - timedelta(days=DAYS_BACK)
    return render_page(
        "fieldwork.html.jinja",
        title=f"Fieldwork: {study.title}",
        banner=banner,
        study=study,
        name=name,
        as_of=format_day(as_of),
        since=format_day(since),
        written_at=format_moment_for_people(written_at),
        head=events.head,
        figures=[
            *[
                ("safeguarding alerts open", len(find_open_alerts(study, events, as_of)))
                for _ in study.fieldwork.safeguarding
            ],
            *[
                (words, int((reached["measure"] == measure).sum()))
                for measure, words in MEASURE_WORDS.items()
                if measure != "agreed" or study.fieldwork.approach_reasons  # else no site tells who agreed
            ],
            ("questionnaires out", int(matrix["n_out"].sum())),
            ("of these late", int(matrix["n_late"].sum())),
            ("held", int(matrix["n_held"].sum())),
        ],
        work=_describe_work(study, events, as_of, name),
        matrix=_describe_matrix(study, matrix),
        curves=[_draw_curve(study, curve, as_of) for _, curve in curves.groupby(["measure", "site_id"], sort=False)],
        moves=_describe_moves(study, derive_moves(study, events, as_of, since, study_then)),
        n_moves_shown=_MOVES_SHOWN,
        steps=_describe_yields(study, derive_step_yields(study, events, as_of)),
        burden=_describe_burden(study, derive_burden(study, events, as_of)),
    )


def _find_site_name(study: Study, site_id: str) -> str:
    site = study.find_site(site_id)
    return site.name if site else site_id or "All sites"


def _describe_work(study: Study, events: Events, as_of: date, name: str) -> list[dict[str, Any]]:
    """The work list by kind: what stands first is shown, the rest folded away."""
    entries = derive_work_list(study, events, as_of, name)
    groups = []
    for kind, words in KIND_WORDS.items():
        own = [
            {
                "site": _find_site_name(study, entry.site_id) if entry.site_id else "Study",
                "text": entry.text,
                "action": entry.action,
                "since": format_since(entry),
            }
            for entry in entries
            if entry.kind == kind
        ]
        if own:
            groups.append({"words": words, "n": len(own), "first": own[:_ENTRIES_SHOWN], "rest": own[_ENTRIES_SHOWN:]})
    return groups


def _describe_matrix(study: Study, matrix: pd.DataFrame) -> dict[str, Any]:
    """Waves of which nothing is expected anywhere are left out; so are sites of which nothing is."""
    by_wave = matrix.groupby("wave")[["n_expected", "n_stopped", "n_truncated"]].sum().any(axis="columns")
    waves = [wave for wave in study.waves if by_wave[wave.id]]
    cells = {(row.site_id, row.wave): row for row in matrix.itertuples(index=False)}
    rows = []
    for site in study.sites:
        own = [cells[site.site_id, wave.id] for wave in waves]
        if any(cell.n_expected or cell.n_stopped or cell.n_truncated for cell in own):
            rows.append({"site": site.name, "cells": [_describe_cell(cell) for cell in own]})
    totals = matrix.drop(columns="site_id").groupby("wave").sum()
    return {
        "waves": [wave.label for wave in waves],
        "rows": rows,
        "totals": [_describe_cell(totals.loc[wave.id]) for wave in waves],
    }


def _describe_cell(counts: Any) -> dict[str, Any]:
    told = [(words, int(getattr(counts, name))) for name, words in _CELL_WORDS.items() if getattr(counts, name)]
    return {"n_in": int(counts.n_in), "n_expected": int(counts.n_expected), "told": told, "is_late": counts.n_late > 0}


def _draw_curve(study: Study, curve: pd.DataFrame, as_of: date) -> dict[str, Any]:
    """What was reached against a target: points of two lines in a box of `_CHART`, and the same as words."""
    first = curve.iloc[0]
    width, height = _CHART
    days = (curve["on"] - curve["on"].min()).dt.days.astype("float64")
    span = max(float(days.max()), 1.0)
    top = float(max(curve["n_target"].max(), curve["n"].fillna(0).max(), 1))
    x, done = days * width / span, curve["n"].notna()
    target_y, reached_y = (
        height - curve["n_target"] * height / top,
        height - curve["n"].astype("Float64") * height / top,
    )
    past = curve[curve["on"] <= pd.Timestamp(as_of)]
    now = past.iloc[-1] if len(past) else None
    words = MEASURE_WORDS[str(first["measure"])]
    points: list[Any] = list(curve.itertuples(index=False))
    where = "" if not first["site_id"] else f" at {_find_site_name(study, str(first['site_id']))}"
    return {
        "caption": f"{words.capitalize()}{where}",
        "target": _join_points(x, target_y),
        "reached": _join_points(x[done], reached_y[done]),
        "now_x": None if now is None else round(float(x[past.index[-1]]), 1),
        "n_target": round(float(curve["n_target"].max())),
        "from_on": format_day(curve["on"].min().date()),
        "by": format_day(curve["on"].max().date()),
        "said": "It has not begun."
        if now is None
        else f"{int(now['n']):,} by {format_day(now['on'].date())}; in even steps it would be {now['n_target']:,.0f}.",
        "rows": [
            {
                "on": format_day(row.on.date()),
                "n": "–" if pd.isna(row.n) else f"{int(row.n):,}",
                "n_target": f"{row.n_target:,.0f}",
            }
            for row in points
        ],
    }


def _join_points(x: pd.Series[float], y: pd.Series[Any]) -> str:
    return " ".join(f"{a:.1f},{float(b):.1f}" for a, b in zip(x, y, strict=True))


def _describe_moves(study: Study, moves: pd.DataFrame) -> list[dict[str, str]]:
    labels = {wave.id: wave.label for wave in study.waves}
    rows: list[Any] = list(moves[moves["date_column"] == "due_on"].itertuples(index=False))
    return [
        {
            "participant": row.participant_id,
            "what": f"{labels.get(row.wave, row.wave)}, {row.respondent}: {_DATE_WORDS[row.date_column]}",
            "moved_from": format_day(row.moved_from.date()),
            "moved_to": "no date" if pd.isna(row.moved_to) else format_day(row.moved_to.date()),
            "why": row.why,
            "told": "" if pd.isna(row.due_told_on) else format_day(row.due_told_on.date()),
        }
        for row in rows
    ]


def _describe_yields(study: Study, yields: pd.DataFrame) -> list[dict[str, Any]]:
    """Each step over all sites, and below it site by site."""
    described = describe_steps(yields[yields["site_id"] == ""], study)
    by_step = {step: own[own["site_id"] != ""] for step, own in yields.groupby("step", sort=False)}
    for entry, step in zip(described, dict.fromkeys(yields["step"]), strict=True):
        own = by_step[step]
        entry["sites"] = [
            {**row, "site": _find_site_name(study, site_id)}
            for row, site_id in zip(describe_steps(own, study), own["site_id"], strict=True)
        ]
    return described


def _describe_burden(study: Study, burden: pd.DataFrame) -> dict[str, Any]:
    pieces = burden.pivot_table(index="site_id", columns="work", values="n", aggfunc="sum", sort=False)
    minutes = burden.groupby("site_id", sort=False)["minutes"].sum()
    work = [name for name in _WORK_WORDS if pieces[name].any()]
    rows = [
        {
            "site": _find_site_name(study, str(site_id)),
            "counts": [int(pieces.loc[site_id, name]) for name in work],
            "hours": f"{minutes[site_id] / 60:,.1f}",
        }
        for site_id in pieces.index
        if pieces.loc[site_id].any()
    ]
    return {
        "labels": [_WORK_WORDS[name] for name in work],
        "minutes": [study.fieldwork.find_minutes(name) for name in work] if study.fieldwork.burdens else [],
        "rows": rows,
        "totals": [int(pieces[name].sum()) for name in work],
        "hours": f"{minutes.sum() / 60:,.1f}",
    }
