"""The first section of the report on attrition and the last two: what there is to know in five minutes, the methods
paragraph for a paper, and what the report does not say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd

from study.attrition import MISSED, WHY_NOT_EXPECTED
from study.attrition_models import LossModel, Weights
from study.calendar import format_day
from tasks.attrition_comparisons import collect_differential, collect_equivalence, collect_lost, collect_weights
from tasks.attrition_consequences import collect_detectable
from tasks.attrition_counts import plot_returns
from tasks.attrition_parts import (
    Bullets,
    Heading,
    Section,
    Tiles,
    Words,
    format_interval,
    format_percent,
)
from tasks.attrition_plots import MOST_LINES
from tasks.attrition_wording import MOST_NAMED, OUT_OF_ARMS, Material

CITATIONS: Mapping[str, str] = {
    "Aalen and Johansen": "Aalen OO, Johansen S. Scandinavian Journal of Statistics 1978;5:141-150.",
    "Bell and McCaffrey": "Bell RM, McCaffrey DF. Survey Methodology 2002;28:169-181.",
    "Borm": "Borm GF, Fransen J, Lemmens WAJG. Journal of Clinical Epidemiology 2007;60:1234-1238.",
    "Cole and": "Cole SR, Hernán MA. American Journal of Epidemiology 2008;168:656-664.",
    "CONSORT 2025": "Hopewell S, Chan AW, Collins GS and others. PLOS Medicine 2025;22:e1004587.",
    "Coviello": "Coviello V, Boggess M. Stata Journal 2004;4:103-112.",
    "Eldridge": "Eldridge SM, Ashby D, Kerry S. International Journal of Epidemiology 2006;35:1292-1300.",
    "Kish": "Kish L. Survey Sampling. Wiley 1965.",
    "Little and Rubin": "Little RJA, Rubin DB. Statistical Analysis with Missing Data, 3rd edition. Wiley 2019.",
    "Pustejovsky": "Pustejovsky JE, Tipton E. Journal of Business and Economic Statistics 2018;36:672-683.",
    "Robins": "Robins JM, Hernán MA, Brumback B. Epidemiology 2000;11:550-560.",
    "STROBE": "von Elm E, Altman DG, Egger M and others. PLoS Medicine 2007;4:e296.",
    "TREND": "Des Jarlais DC, Lyles C, Crepaz N. American Journal of Public Health 2004;94:361-366.",
    "Vierron": "Vierron E, Giraudeau B. BMC Medical Research Methodology 2009;9:39.",
    "What Works Clearinghouse": "What Works Clearinghouse. Procedures and Standards Handbook, version 4.1. 2020.",
    "Wilson": "Wilson EB. Journal of the American Statistical Association 1927;22:209-212.",
}
"""By what the methods name, the reference."""


# In five minutes ----------------------------------------------------------------------------------------------------


def describe_summary(report: Material, n_gaps: int) -> Section:
    """`n_gaps`: how many figures the report does not give."""
    found, facts = report.found, collect_facts(report)
    section = Section("summary", "Summary", "In five minutes")
    section.add(report.say("who", facts, kind="lead"), Tiles(_list_tiles(report, facts)))
    told = [report.say("kept", facts), report.say("reasons", facts), report.say("by_arm", facts)]
    if report.study.is_randomised and isinstance(found.differential, pd.DataFrame):
        told.append(report.say("differential", **collect_differential(report)))
    elif isinstance(found.equivalence, pd.DataFrame):
        told += [report.say("equivalence", pair) for pair in collect_equivalence(report)[:MOST_NAMED]]
    if isinstance(found.lost_differences, pd.DataFrame):
        told.append(report.say("lost", collect_lost(report)))
    if isinstance(found.weights, Weights):
        told.append(report.say("weights", collect_weights(report)))
    told += [report.say("detectable", fact) for fact in collect_detectable(report)[:MOST_NAMED]]
    lines = [line for words in told for line in words.paragraphs]
    if n_gaps:
        verb = "figure is" if n_gaps == 1 else "figures are"
        lines.append(f"{n_gaps} {verb} not given, or only in part; the reasons stand under the last heading.")
    section.add(Bullets(lines), *plot_returns(report))
    return section


def _list_tiles(report: Material, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    told = report.found.people_reasons
    n_died = facts["n_died"] + int(told.loc[told["reason_kind"] == "death", "n"].sum())
    return [
        (f"{facts['n_people']:,}", f"{'person' if facts['n_people'] == 1 else 'people'} in an arm"),
        (f"{facts['n_over']:,}", f"expected at {escape(report.wave)}, window over"),
        (f"{facts['n_kept']:,}", "of these answered"),
        (facts["retained"] or "–", "retained"),
        (f"{n_died:,}", "died before or while they were expected"),
    ]


def collect_facts(report: Material) -> dict[str, Any]:
    found = report.found
    main = found.people[()].iloc[0]
    people = report.rows.drop_duplicates("participant_id")
    in_arm = people[~people["arm"].isin(OUT_OF_ARMS)]
    n = {name: int(main[name]) for name in main.index if str(name).startswith("n_")}
    why = [(label, n[f"n_{code}"]) for code, label in WHY_NOT_EXPECTED.items() if n[f"n_{code}"]]
    by_arm = found.people["arm",][found.people["arm",]["n_over"] > 0]
    spread = float(by_arm["retained_pct"].max() - by_arm["retained_pct"].min()) if len(by_arm) > 1 else None
    return {
        **n,
        "n_people": len(in_arm),
        "n_out": len(people) - len(in_arm),
        "n_arms": len(report.study.arms),
        "n_sites": int(in_arm["site"].nunique()),
        "wave": escape(report.wave),
        "respondents": report.respondents,
        "retained": format_percent(main["retained_pct"], "") if n["n_over"] else "",
        "retained_interval": format_interval(main["retained_low_pct"], main["retained_high_pct"], 1, "%"),
        "benchmark": f"That is {found.benchmark[0].lower()}{found.benchmark[1:]}",
        "not_expected": [f"{label[0].lower()}{label[1:]} {many:,}" for label, many in why],
        "reasons": _list_reasons(report),
        "arm_rates": _list_rates(report, by_arm),
        "arm_spread": spread,
        "arm_spread_words": f"{spread:.1f} points" if spread else "",
    }


def _list_rates(report: Material, by_arm: pd.DataFrame) -> list[str]:
    """Retention of each arm; of many the lowest and the highest."""
    rates = [
        f"{report.cell('arm', row['arm'])} {format_percent(row['retained_pct'])} ({row['n_kept']:,} of "
        f"{row['n_over']:,})"
        for row in by_arm.to_dict("records")
    ]
    if len(rates) <= MOST_LINES:
        return rates
    order = by_arm["retained_pct"].reset_index(drop=True).sort_values(kind="stable").index
    return [f"lowest {rates[order[0]]}", f"highest {rates[order[-1]]}, of {len(rates)} arms"]


def _list_reasons(report: Material) -> list[str]:
    """Why people are missing, the most frequent first."""
    told = report.found.people_reasons
    told = told[(told["n"] > 0) & (told["reason_kind"] != "awaited")]
    sums = told.groupby(["reason", "reason_kind"], sort=False)["n"].sum().sort_values(ascending=False, kind="stable")
    reasons = [f"{_name_reason(report, *key)} {n:,}" for key, n in zip(sums.index.tolist(), sums, strict=True)]
    if len(reasons) <= MOST_NAMED + 1:
        return reasons
    return [*reasons[:MOST_NAMED], f"other reasons {int(sums.iloc[MOST_NAMED:].sum()):,}"]


def _name_reason(report: Material, reason: str, kind: str) -> str:
    if reason == MISSED:
        return "missed, reason not known"
    label = report.cell("reason", reason)
    is_plain = any(word in label.casefold() for word in ("death", "died"))
    return f"{label} (death)" if kind == "death" and not is_plain else label


# For a paper --------------------------------------------------------------------------------------------------------


def describe_methods(report: Material) -> Section:
    found = report.found
    facts = {
        "has_times": not found.time_to_loss.curves.empty,
        "is_randomised": report.study.is_randomised,
        "has_pairs": len(report.study.arms) > 1,
        "has_lost": isinstance(found.lost_differences, pd.DataFrame),
        "has_model": isinstance(found.loss_model, LossModel),
        "has_weights": isinstance(found.weights, Weights),
        "has_power": any(isinstance(table, pd.DataFrame) for table in found.detectable.values()),
        "standard": escape(report.flow["standard"]),
        "release": escape(report.release),
        "as_of": format_day(report.as_of),
    }
    told = report.say("methods", facts)
    text = " ".join(told.paragraphs)
    cited = sorted((escape(words) for mark, words in CITATIONS.items() if re.search(mark, text)), key=str.casefold)
    return Section("methods", "Methods", "For a paper: methods", [told, Heading("References"), Bullets(cited)])


# What is missing ----------------------------------------------------------------------------------------------------


def list_gaps(report: Material, sections: Sequence[Section]) -> list[str]:
    """What the figures lack as a whole, and what each section cannot give: each once."""
    gaps = [(gap.place, gap.words) for gap in report.found.gaps] + [gap for one in sections for gap in one.gaps]
    lines = (f"<b>{escape(report.name_place(place))}</b>: {escape(report.word_gap(words))}" for place, words in gaps)
    return list(dict.fromkeys(lines))


def describe_gaps(lines: list[str]) -> Section:
    told = Bullets(lines) if lines else Words(["Nothing is missing."])
    return Section("gaps", "What is missing", "What this report does not say, and why", [told])
