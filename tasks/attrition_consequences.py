"""Sections of the report on attrition on what loss does to the study: the effect that can still be detected, and the
study beside others."""

from __future__ import annotations

from html import escape
from typing import Any

import pandas as pd

from study.attrition import BENCHMARKS, Gap
from study.attrition_models import WHENS
from study.flow import STAGES, find_main_analysis, list_stages
from tasks.attrition_parts import (
    Bullets,
    Heading,
    Rows,
    Section,
    Words,
    format_decimal,
    format_percent,
    format_share,
)
from tasks.attrition_wording import LONGEST, Material
from tasks.drawing import shorten

_STEPS = {
    "approached": "Approached",
    "agreed": "Agreed to take part",
    "baseline": "Baseline in time",
    "analysed": "Analysed",
}
"""Steps that the study is laid beside: of BENCHMARKS, `ibsen_` before them."""


# The effect that can be detected ------------------------------------------------------------------------------------


def collect_detectable(report: Material) -> list[dict[str, Any]]:
    facts = []
    for basis in report.study.power:
        table = report.found.detectable[basis.id]
        if isinstance(table, Gap):
            continue
        for _, own in table[table["cohort"] == ""].groupby(["intervention", "comparison"], sort=False):
            by = own.set_index("when").to_dict("index")
            told = {
                when: f"{row['effect_sd']:.2f} SD ({row['effect']:.3g} points)"
                for when, row in by.items()
                if not pd.isna(row["effect_sd"])
            }
            gap = str(by["now"]["gap"])
            facts.append(
                {
                    "label": escape(shorten(basis.label, LONGEST)),
                    "names": report.name_pair(own.iloc[0].to_dict()),
                    "now": told.get("now", ""),
                    "allocated": told.get("allocated", ""),
                    "end": told.get("end", "") if told.get("end") != told.get("now") else "",
                    "gap": f"{gap[0].lower()}{gap[1:]}" if gap else "",
                }
            )
    return facts


def describe_detectable(report: Material) -> Section:
    section = Section("detectable", "Detectable effect", "The effect that can still be detected")
    if not report.study.power:
        words = "The protocol has no [[power]]: it does not say what to compute it from."
        section.add(Words([f"<b>Not given.</b> {words}"]))
    for basis in report.study.power:
        section.add(Heading(escape(shorten(basis.label, LONGEST))))
        table = report.found.detectable[basis.id]
        if isinstance(table, Gap):
            report.add_gap(section, table, f"Detectable effect, {basis.label}")
            continue
        rows = Rows()
        for row in table.to_dict("records"):
            if table["cohort"].nunique() > 1:
                cohort = row["cohort"]
                rows.open_group(cohort, "Everybody" if cohort == "" else report.cell("cohort", cohort))
            of_clusters = (format_decimal(row[f"{name}_clusters"], 2) for name in ("effect_sd", "design_effect"))
            rows.add(
                f"{report.name_pair(row)}: {escape(WHENS[str(row['when'])]).lower()}",
                f"{row['n_intervention']:,.0f} / {row['n_comparison']:,.0f}",
                format_decimal(row["n_sites"], 0),
                format_decimal(row["design_effect"], 2),
                format_decimal(row["effect_sd"], 2),
                format_decimal(row["effect"], 2),
                "{} ({})".format(*of_clusters)
                if not row["gap"] or not pd.isna(row["effect_sd"])
                else escape(str(row["gap"])),
            )
        head = [
            "Arms", "People in each", "Sites", "Design effect", "Effect, SD", "Effect, points",
            "SD as if sites were allocated (design effect)",
        ]  # fmt: skip
        section.add(rows.finish("The smallest difference that would be found", head))
        named = (
            ("Standard deviation", basis.sd),
            ("ICC of sites", basis.icc),
            ("Correlation with the baseline", basis.baseline_correlation),
            ("Power", basis.power),
            ("Alpha, two-sided", basis.alpha),
        )
        section.add(Bullets([f"{words} {value.value:g}: {escape(value.source)}" for words, value in named]))
    return section


# Beside other studies -----------------------------------------------------------------------------------------------


def describe_others(report: Material) -> Section:
    section, retained = Section("others", "Other studies", "Beside other studies"), report.found.retained_pct
    shares = Rows()
    for mark in BENCHMARKS:
        if mark.unit == "per cent":
            shares.add(escape(mark.label), format_percent(mark.value, "", 0))
    if not isinstance(retained, Gap):
        words = f"This study, {escape(report.wave)}, window over"
        shares.add(f"<b>{words}</b>", f"<b>{format_percent(retained)}</b>")
    values, steps = {mark.id: mark for mark in BENCHMARKS}, count_steps(report)
    rows = Rows()
    before = (0.0, 0)
    for step, words in _STEPS.items():
        mark, own = values[f"ibsen_{step}"], steps[step]
        rows.add(
            words,
            f"{mark.value:,.0f}",
            format_percent(100 * mark.value / before[0], "") if before[0] else "",
            f"{own:,}" if own is not None else "–",
            format_share(own, before[1]) if own is not None and before[1] else "",
        )
        before = (mark.value, own or 0)
    head = ["Step", "Individual Budgets", "of the step before", "This study", "of the step before"]
    section.add(
        Words(
            [
                f"{escape(report.found.benchmark)} Other studies had other people, questionnaires and waves: a place "
                "to start a question from, and no verdict."
            ]
        ),
        shares.finish("Retention", ["Figure", "Value"]),
        rows.finish("Steps of the evaluation of Individual Budgets (2005 to 2008)", head),
        Words([escape(source) for source in dict.fromkeys(mark.source for mark in BENCHMARKS)], "note"),
    )
    return section


def count_steps(report: Material) -> dict[str, int | None]:
    """This study's people at the steps of `_STEPS`; None where it has no such step."""
    people, stages = report.people, list_stages(report.study)
    reached = people["reached"].map({name: at for at, name in enumerate(STAGES)})
    counts: dict[str, int | None] = {
        name: int((reached >= STAGES.index(name)).sum()) if name in stages else None
        for name in ("approached", "agreed")
    }
    counts["baseline"] = int((people["baseline"] == "in_time").sum())
    has_analysis = find_main_analysis(report.study) is not None
    counts["analysed"] = int((people["analysed"] == 1).sum()) if has_analysis else None
    return counts
