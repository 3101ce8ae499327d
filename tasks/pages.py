"""Pages for people: static HTML that needs no script and asks nothing of the outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from functools import lru_cache
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from study.calendar import LONDON, format_day, format_short_day
from study.codebook import MISSING_REASON_LABELS, describe_summary
from study.datasets import (
    NOT_ALLOCATED,
    derive_answered_after_leaving,
    derive_attendance,
    derive_dispositions,
    derive_means,
    derive_missing_answers,
    derive_site_counts,
)
from study.fieldwork import LadderStep
from study.instruments import MISSING_REASONS, Instrument
from study.labelled import SPSS_MISSING, STATA_MISSING
from study.masking import find_telling_sites
from study.protocol import Study
from study.release_rules import LEFT_OUT_WORDS, OBSTACLES, REASONS
from study.state import Head
from study.yields import Sending
from tasks.release_files import FileEntry
from tasks.settings import PROJECT

_SITE_COUNTS = {
    "n_screened": "People screened",
    "n_allocated": "Allocated",
    "n_questionnaires": "Question\N{SOFT HYPHEN}naires",
    "n_files": "Files received",
    "n_quarantined": "In quarantine",
    "n_refused": "Records refused",
    "n_queries": "Queries raised",
    "n_open": "Still open",
}


@lru_cache(maxsize=1)
def _templates() -> Environment:
    loader = FileSystemLoader(PROJECT / "templates" / "pages")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": format_number, "counted": format_counted, "listed": format_list}
    environment.filters["summary"] = describe_summary
    return environment


def render_page(template: str, **values: Any) -> bytes:
    """A page from its template. Raises jinja2.UndefinedError for a value that the template names and nobody gave."""
    return (_templates().get_template(template).render(**values).rstrip() + "\n").encode()


def load_words(template: str) -> Any:
    """The macros of a template, for words that stand in several files."""
    return _templates().get_template(template).module


def format_number(n: int) -> str:
    """A count as people read it: 38,193."""
    return f"{n:,}"


def format_counted(n: int, one: str, many: str = "") -> str:
    """A count with its word: "1 person", "37 people"; without `many` an "s" is added."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def format_list(words: Iterable[str]) -> str:
    """Words as a sentence lists them: "a, b and c"."""
    *rest, last = list(words) or [""]
    return f"{', '.join(rest)} and {last}" if rest else last


def show_day(stamp: Any) -> str:
    """A date of a frame as tables show it; "" where there is none."""
    return "" if pd.isna(stamp) else format_short_day(stamp)


def format_moment_for_people(moment: datetime) -> str:
    """A moment in London time: 9 March 2015 at 06:30."""
    local = moment.astimezone(LONDON)
    return f"{format_day(local.date())} at {local:%H:%M}"


# The codebook -------------------------------------------------------------------------------------------------------


def write_codebook_page(codebook: Mapping[str, Any]) -> bytes:
    """The codebook (`study.codebook`) as a page."""
    return render_page(
        "codebook.html.jinja",
        title=f"Codebook: {codebook['title']}",
        codebook=codebook,
        instruments=[describe_items(entry) for entry in codebook["instruments"]],
        summarised=any(table["n_rows"] is not None for table in codebook["tables"]),
        missing=[
            {"reason": reason, "label": label, "stata": STATA_MISSING[reason], "spss": SPSS_MISSING[reason]}
            for reason, label in MISSING_REASON_LABELS.items()
        ],
    )


def describe_items(instrument: Mapping[str, Any]) -> dict[str, Any]:
    """An instrument for its page: what all items have in common is said once, above the table, and not in each row."""
    rows = [
        {
            "item": item["item"],
            "label": item["label"],
            "answers": _describe_answers(item),
            "missing": [(code, reason.replace("_", " ")) for code, reason in item["missing_codes"].items()],
            "asked_if": item["asked_if"],
            "summary": item.get("summary"),
        }
        for item in instrument["items"]
    ]
    answers = rows[0]["answers"] if all(row["answers"] == rows[0]["answers"] for row in rows) else []
    missing = [pair for pair in rows[0]["missing"] if all(pair in row["missing"] for row in rows)]
    for row in rows:
        row["missing"] = [pair for pair in row["missing"] if pair not in missing]
    return {
        **{name: value for name, value in instrument.items() if name != "items"},
        "rows": rows,
        "shared": {"answers": answers, "missing": missing},
        "own": [*(["answers"] if not answers else []), *(["missing"] if any(row["missing"] for row in rows) else [])],
        "is_routed": any(row["asked_if"] for row in rows),
    }


def _describe_answers(item: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Codes and labels; the reach alone of a number, and of levels without a gap whose labels only repeat the codes."""
    levels, n_possible = item["levels"], item["maximum"] - item["minimum"] + 1
    if levels and (len(levels) != n_possible or any(code != label for code, label in levels.items())):
        return list(item["levels"].items())
    return [(f"{item['minimum']:g} to {item['maximum']:g}", "")]


# The report of a release --------------------------------------------------------------------------------------------


def write_release_report(
    *,
    release: str,
    slice_name: str,
    study: Study,
    instruments: Mapping[str, Instrument],
    as_of: date,
    known_at: datetime,
    head: Head,
    tables: Mapping[str, pd.DataFrame],
    records: pd.DataFrame,
    dispositions: pd.DataFrame,
    files: pd.DataFrame,
    queries: pd.DataFrame,
    kept_apart: Mapping[str, Any],
    erased: Mapping[str, Any],
    left_out: Mapping[str, Any],
    waived: Sequence[Mapping[str, Any]],
    is_blinded: bool,
    sending: Sending,
    flow: Mapping[str, Any],
    data_files: Mapping[str, FileEntry],
) -> bytes:
    """The page that comes with a release: attendance, dispositions, scores, what sites sent.

    `tables`: participants and scores. `records`: from `study.answers`. `dispositions`, `files`, `queries`: as from the
    folds of `study.state`, as of the release's date. `kept_apart`: from `study.incidents.count_quarantined`. `erased`:
    from `study.erasure.summarise_erasures`. `sending`: from `study.yields.summarise_sending`. `flow`: from
    `tasks.flow_diagram.describe_for_page`. `left_out` and `waived`: from `study.release_rules`. `is_blinded`: whether
    letters stand for the arms. `slice_name`: of a part of the study, "" for the whole. `data_files`: the files of the
    tables and what describes them. Every number on the page is counted here from these; what has no rows is said in a
    sentence.
    """
    participants, scores = tables["participants"], tables["scores"]
    received = files[files["occurred_on"] <= pd.Timestamp(as_of)]
    by_site = derive_site_counts(participants, records, received, queries, study)
    is_silent = by_site[list(_SITE_COUNTS)].sum(axis="columns") == 0
    attendance = derive_attendance(records, participants, study)
    answered = set(records["instrument"])
    return render_page(
        "release_report.html.jinja",
        title=f"{study.title}: release {release}",
        study=study,
        slice_name=slice_name,
        release=release,
        as_of=format_day(as_of),
        known_at=format_moment_for_people(known_at),
        head=head,
        n_screened=len(participants),
        n_allocated=int(participants["arm"].notna().sum()),
        n_questionnaires=len(records),
        n_responses=int(records["n_items"].sum()),
        n_answered=int(records["n_answered"].sum()),
        n_files=len(received),
        n_open=int(by_site["n_open"].sum()),
        n_quarantined=int(by_site["n_quarantined"].sum()),
        kept_apart=kept_apart,
        n_erased=erased["n_participants"],
        left_out=left_out,
        left_out_words=LEFT_OUT_WORDS,
        waived=waived,
        obstacles=OBSTACLES,
        waiver_reasons=REASONS,
        is_blinded=is_blinded,
        n_telling_sites=find_telling_sites(participants) if is_blinded else 0,
        active_sites=by_site.loc[~is_silent, "site"].tolist(),
        silent_sites=[site.name for site, silent in zip(study.sites, is_silent, strict=True) if silent],
        arms=_describe_arms(participants, study),
        attendance=_describe_attendance(attendance, study, instruments),
        unanswered=[instruments[name].title for name in study.instruments if name not in answered],
        dispositions=_describe_dispositions(derive_dispositions(participants, study), study),
        after_leaving=_describe_after_leaving(derive_answered_after_leaving(records, dispositions), study),
        has_left_treatment=bool((dispositions["scope"] == "treatment").any()),
        means=_describe_means(derive_means(scores, participants, study), study, instruments),
        missing=_describe_missing(derive_missing_answers(records, study), instruments),
        sites=_describe_sites(by_site[~is_silent], study),
        sending=sending,
        flow=flow,
        steps=describe_steps(sending.steps, study),
        files=_describe_files(data_files),
    )


_FORMATS = {"Parquet": "data/{}.parquet", "CSV": "data/{}.csv", "Stata": "stata/{}.dta", "SPSS": "spss/{}.sav"}


def _describe_files(files: Mapping[str, FileEntry]) -> dict[str, Any]:
    """The files of each table, one cell a format (None where there is none), and those that are of no table."""

    def describe(name: str) -> dict[str, Any] | None:
        if name not in files:
            return None
        return {
            "name": name,
            "n_bytes": files[name].n_bytes,
            "sha256": files[name].sha256,
        }

    names = [name.removeprefix("data/").removesuffix(".csv") for name in files if name.startswith("data/")]
    tables = [
        {"name": name, "files": [describe(path.format(name)) for path in _FORMATS.values()]}
        for name in names
        if f"data/{name}.csv" in files
    ]
    of_tables = {path.format(name) for name in names for path in _FORMATS.values()}
    others = [describe(name) for name in sorted(files) if name not in of_tables]
    return {"formats": list(_FORMATS), "tables": tables, "others": others}


def _find_wave_label(study: Study, wave_id: str) -> str:
    wave = study.find_wave(wave_id)
    return wave.label if wave else wave_id


def _describe_arms(participants: pd.DataFrame, study: Study) -> list[dict[str, Any]]:
    counts = participants["arm"].value_counts()
    return [{"label": arm.label, "n": int(counts.get(arm.id, 0))} for arm in study.arms]


def _describe_attendance(
    table: pd.DataFrame, study: Study, instruments: Mapping[str, Instrument]
) -> list[dict[str, Any]]:
    """One table per instrument: the waves at which the protocol asks for it, then what came at other times."""
    described = []
    for instrument_id, rows in table.groupby("instrument", sort=False):
        columns = [arm.id for arm in study.arms]
        headings = [arm.label for arm in study.arms]
        if NOT_ALLOCATED in table and rows[NOT_ALLOCATED].any():
            columns, headings = [*columns, NOT_ALLOCATED], [*headings, "Not allocated"]
        counted = [
            {"wave": wave, "counts": [int(n) for n in counts]}
            for wave, *counts in rows[["wave", *columns, "total"]].itertuples(index=False)
        ]
        groups = _group_waves(counted, study, str(instrument_id))
        described.append({"title": instruments[str(instrument_id)].title, "arms": headings, "groups": groups})
    return described


def _group_waves(rows: Sequence[Mapping[str, Any]], study: Study, instrument_id: str) -> list[dict[str, Any]]:
    """Rows by their wave: those at which the protocol asks for the instrument, then those of other times."""
    scheduled = {wave for entry in study.schedule if entry.instrument == instrument_id for wave in entry.waves}
    groups = []
    for heading, is_scheduled in (("Scheduled", True), ("At other times", False)):
        own = [row for row in rows if (row["wave"] in scheduled) == is_scheduled]
        if own:
            shown = [{**row, "wave": _find_wave_label(study, row["wave"])} for row in own]
            groups.append({"heading": heading, "rows": shown})
    return groups


def _describe_dispositions(table: pd.DataFrame, study: Study) -> dict[str, Any]:
    labels = {reason.id: (reason.label, reason.kind) for reason in study.disposition_reasons}
    columns = [*(arm.id for arm in study.arms), NOT_ALLOCATED, "total"]
    rows = []
    for row in table.to_dict("records"):
        label, kind = labels.get(row["disposition"], ("None recorded", ""))
        rows.append({"label": label, "kind": kind, "counts": [int(row[name]) for name in columns]})
    return {
        "arms": [*(arm.label for arm in study.arms), "Not allocated"],
        "rows": rows,
        "totals": [int(table[name].sum()) for name in columns],
    }


def _describe_after_leaving(table: pd.DataFrame, study: Study) -> dict[str, Any]:
    """How many people, and for which reasons their treatment had ended, the most frequent first."""
    labels = {reason.id: reason.label.lower() for reason in study.disposition_reasons}
    reasons = table["reason"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    return {
        "n": int(table["participant_id"].nunique()),
        "reasons": [f"{labels[str(reason)]} {n}" for reason, n in reasons.items()],
    }


def _describe_means(table: pd.DataFrame, study: Study, instruments: Mapping[str, Instrument]) -> list[dict[str, Any]]:
    """By instrument: tables of the scales that stand for themselves, and of those that other scales are made of."""
    described = []
    for instrument_id, of_instrument in table.groupby("instrument", sort=False):
        instrument = instruments[str(instrument_id)]
        parts = {name for scale in instrument.scales for name in scale.items}
        several = of_instrument["respondent"].nunique() > 1
        main: list[dict[str, Any]] = []
        components: list[dict[str, Any]] = []
        for (scale_id, respondent), rows in of_instrument.groupby(["scale", "respondent"], sort=False):
            scale = instrument.find_scale(str(scale_id))
            label = scale.label if scale else str(scale_id)
            title = f"{label}, {respondent}" if several else label
            groups = _group_waves(_describe_waves(rows, study), study, instrument.id)
            (components if scale_id in parts else main).append({"title": title, "groups": groups})
        described.append({"title": instrument.title, "main": main, "components": components})
    return described


def _describe_waves(means: pd.DataFrame, study: Study) -> list[dict[str, Any]]:
    """Rows of one scale: per wave, for each arm its mean, standard deviation and n, as text; "–" where none is."""
    cells = {(row["wave"], row["arm"]): row for row in means.to_dict("records")}
    rows = []
    for wave in dict.fromkeys(means["wave"]):
        found = [cells.get((wave, arm.id)) for arm in study.arms]
        texts = [
            ["–", "–", "0"]
            if cell is None
            else [f"{cell['mean']:.2f}", _format_sd(cell["sd"]), format_number(cell["n"])]
            for cell in found
        ]
        rows.append({"wave": wave, "cells": [text for cell_texts in texts for text in cell_texts]})
    return rows


def _format_sd(sd: float) -> str:
    """One person has no standard deviation."""
    return "–" if pd.isna(sd) else f"{sd:.2f}"


def _describe_missing(table: pd.DataFrame, instruments: Mapping[str, Instrument]) -> dict[str, Any]:
    reasons = [reason for reason in MISSING_REASONS if table[reason].any()]
    columns = ["n_items", "n_answered", *reasons]
    return {
        "labels": ["Items", "Answered", *(reason.replace("_", " ").capitalize() for reason in reasons)],
        "rows": [
            {"title": instruments[row["instrument"]].title, "counts": [int(row[name]) for name in columns]}
            for row in table.to_dict("records")
        ],
        "totals": [int(table[name].sum()) for name in columns],
    }


def describe_steps(steps: pd.DataFrame, study: Study) -> list[dict[str, Any]]:
    """What each step of a ladder brought, in words and numbers; `steps` as from `derive_step_yields`."""
    described = []
    for row in steps.to_dict("records"):
        step = study.fieldwork.find_step(row["step"])
        described.append(
            {
                "step": str(row["step"]).replace("_", " ").capitalize(),
                "when": describe_step(step) if step else "in no ladder any more",
                "counts": [int(row[name]) for name in ("n_chased", "n_answered", "n_late", "n_waiting")],
                "answered_pct": "–" if pd.isna(row["answered_pct"]) else f"{row['answered_pct']:.0f} %",
            }
        )
    return described


def describe_step(step: LadderStep) -> str:
    """When a step is taken, and who is written to: "3 working days after the due day, to the site researcher"."""
    n_days = abs(step.days)
    counted = {"released": "the pack went out", "due": "the due day", "closes": "the window's last day"}[
        step.counts_from
    ]
    when = f"{format_counted(n_days, 'working day')} {'before' if step.days < 0 else 'after'} {counted}"
    if not n_days:
        when = f"on {counted}"
    return f"{when}, to the {step.to.replace('_', ' ')} by {step.channel}"


def _describe_sites(by_site: pd.DataFrame, study: Study) -> dict[str, Any]:
    names = {site.site_id: site.name for site in study.sites}
    rows: Sequence[dict[str, Any]] = [
        {"site": names[site], "counts": [int(n) for n in counts]}
        for site, *counts in by_site[["site", *_SITE_COUNTS]].itertuples(index=False)
    ]
    return {
        "labels": list(_SITE_COUNTS.values()),
        "rows": rows,
        "totals": [int(by_site[name].sum()) for name in _SITE_COUNTS],
    }
