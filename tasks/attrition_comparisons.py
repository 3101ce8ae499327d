"""Sections of the report on attrition that compare: differential attrition, equivalence, who is lost, weights.

`collect_...` gives the facts of a section for its sentences, in the summary too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd

from study.attrition import Gap
from study.attrition_models import LARGE_DIFFERENCE, MEANINGS, LossModel, Weights, find_pairs
from tasks.attrition import load_boundary
from tasks.attrition_parts import (
    Bullets,
    Grid,
    Heading,
    Rows,
    Section,
    Words,
    draw_both,
    format_decimal,
    format_interval,
    format_p,
    format_percent,
)
from tasks.attrition_plots import MOST_DIFFERENCES, MOST_LINES, draw_boundary, draw_love
from tasks.attrition_wording import MOST_NAMED, Material, reorder_by_size
from tasks.pages import format_counted

# Differential attrition ---------------------------------------------------------------------------------------------

_VERDICTS = {
    ("low", "low"): "low by both limits",
    ("high", "high"): "high by both limits",
    ("high", "low"): "low by the optimistic limit and high by the cautious one",
    ("low", "high"): "low by the cautious limit and high by the optimistic one",
}
"""By the cautious and the optimistic limit."""
_SIDES = ("intervention", "comparison")


def collect_differential(report: Material) -> dict[str, Any]:
    table = report.found.differential
    assert isinstance(table, pd.DataFrame)
    pairs = []
    for _, both in table[table["of"] == "allocated"].groupby(list(_SIDES), sort=False):
        row = both.iloc[0].to_dict()
        if pd.isna(row["differential_pct"]):
            continue
        by = {str(one["assumption"]): one for one in both.to_dict("records")}
        cautious, optimistic = (str(by[name]["verdict"]) for name in ("cautious", "optimistic"))
        needed = {side: by["cautious"][f"more_{side}"] for side in _SIDES}
        pairs.append(
            {
                "names": report.name_pair(row),
                "overall": format_percent(row["overall_pct"], "", 0),
                "apart": f"{row['differential_pct']:.1f} points",
                "verdict": _VERDICTS[cautious, optimistic],
                "is_low": cautious == "low",
                "is_low_optimistic": optimistic == "low",
                "more": [
                    f"{format_counted(int(n), 'more answer')} in {report.cell('arm', row[side])}"
                    for side, n in needed.items()
                    if not pd.isna(n) and n
                ],
            }
        )
    return {
        "pairs": pairs if len(pairs) <= MOST_NAMED else [],
        "n_pairs": len(pairs),
        "n_low": sum(pair["is_low"] for pair in pairs),
        "n_low_optimistic": sum(pair["is_low_optimistic"] for pair in pairs),
        "every": pairs,
    }


def describe_differential(report: Material) -> Section:
    section, table = Section("differential", "Differential", "Differential attrition"), report.found.differential
    if isinstance(table, Gap):
        report.add_gap(section, table, "Differential attrition")
        return section
    every, boundary = collect_differential(report)["every"], load_boundary()
    if not every:
        gap = Gap("differential attrition", "In no pair of arms somebody counts on both sides.")
        report.add_gap(section, gap, "Differential attrition")
        return section
    if len(every) <= 2 * MOST_LINES:
        section.add(draw_both(lambda end, width: draw_boundary(f"boundary-{end}", table, report.arms, boundary, width)))
    section.add(Bullets([line for pair in every[: 2 * MOST_LINES] for line in report.say("more", pair).paragraphs]))
    rows = Rows()
    words = {"allocated": "Of everybody allocated: the rule", "expected": "Of those expected, beside it"}
    for row in table.to_dict("records"):
        rows.open_group(row["of"], words[str(row["of"])])
        more = ("–" if pd.isna(row[f"more_{side}"]) else f"{int(row[f'more_{side}']):,}" for side in _SIDES)
        rows.add(
            f"{report.name_pair(row)}, {row['assumption']}",
            "; ".join(f"{row[f'lost_{side}']:,} of {row[f'n_{side}']:,}" for side in _SIDES),
            format_percent(row["overall_pct"], "–", 0),
            format_decimal(row["differential_pct"], 1),
            format_decimal(row["limit_pct"], 1),
            row["verdict"] or escape(row["gap"]),
            " / ".join(more) if row["verdict"] else "–",
        )
    head = [
        "Arms, limit", "Lost in each", "Overall", "Apart, points", "Limit, points", "Attrition is",
        "More answers needed in either",
    ]  # fmt: skip
    section.add(rows.finish("Attrition by the boundary of the What Works Clearinghouse", head, texts=(5,)))
    return section


# Equivalence --------------------------------------------------------------------------------------------------------


def collect_equivalence(report: Material) -> list[dict[str, Any]]:
    table = report.found.equivalence
    assert isinstance(table, pd.DataFrame)
    pairs = []
    for _, own in table.groupby(list(_SIDES), sort=False):
        compared = own[own["difference"].notna()]
        far = reorder_by_size(compared[compared["meaning"] == "not_equivalent"])
        pairs.append(
            {
                "names": report.name_pair(own.iloc[0].to_dict()),
                "n": int((own["n_1"] + own["missing_1"] + own["n_2"] + own["missing_2"]).iloc[0]),
                "n_compared": len(compared),
                "n_equivalent": int((compared["meaning"] == "equivalent").sum()),
                "n_adjust": int((compared["meaning"] == "adjust").sum()),
                "n_not_equivalent": len(far),
                "worst": [
                    f"{escape(report.name_characteristic(row))} ({row['difference']:+.2f})"
                    for row in far.head(3).to_dict("records")
                ],
            }
        )
    return pairs


def describe_equivalence(report: Material) -> Section:
    section = Section("equivalence", "Equivalence", "Baseline equivalence of those analysed")
    table = report.found.equivalence
    if isinstance(table, Gap):
        report.add_gap(section, table, "Baseline equivalence")
        return section
    if not report.study.is_randomised:
        words = "The study is not randomised at every site, so no boundary of attrition applies; this stands for it."
        section.add(Words([words]))
    section.add(*(report.say("equivalence", pair) for pair in collect_equivalence(report)[: 2 * MOST_LINES]))
    for _, own in list(table.groupby(list(_SIDES), sort=False))[: 2 * MOST_LINES]:
        pair = own.iloc[0].to_dict()
        heads = [report.head(str(pair[side])) for side in _SIDES]
        section.add(_difference_grid(report, f"At the baseline: {report.name_pair(pair)}", own, heads))
    section.add_note(f"{'. '.join(MEANINGS.values())}.")
    return section


def _difference_grid(report: Material, caption: str, table: pd.DataFrame, heads: Sequence[str]) -> Grid:
    rows = Rows()
    meanings = {"equivalent": "alike", "adjust": "adjust for it", "not_equivalent": "<b>too far apart</b>"}
    for row in table.to_dict("records"):
        values = []
        for at in (1, 2):
            values += [f"{row[f'n_{at}']:,}", _tell_value(row, at)]
        rows.add(
            escape(report.name_characteristic(row)),
            *values,
            format_decimal(row["difference"], 2, sign=True),
            meanings.get(str(row["meaning"]), escape(str(row["gap"]))),
        )
    head = [
        "Characteristic", f"{heads[0]}: n", "mean (SD) or share", f"{heads[1]}: n", "mean (SD) or share", "Apart, SD",
        "Which means",
    ]  # fmt: skip
    return rows.finish(caption, head, texts=(6,))


def _tell_value(row: Mapping[Any, Any], at: int) -> str:
    """Of one of two groups the mean and its standard deviation, or a share."""
    value, sd = row[f"value_{at}"], row[f"sd_{at}"]
    if row["measure"] == "cox_index":
        return format_percent(value)
    return format_decimal(value, 2) + ("" if pd.isna(sd) else f" ({sd:.2f})")


# Who is lost --------------------------------------------------------------------------------------------------------


def collect_lost(report: Material) -> dict[str, Any]:
    table = report.found.lost_differences
    assert isinstance(table, pd.DataFrame)
    compared = table[table["difference"].notna()]
    large = reorder_by_size(compared[compared["difference"].abs() > LARGE_DIFFERENCE])
    n = {at: int((table[f"n_{at}"] + table[f"missing_{at}"]).iloc[0]) if len(table) else 0 for at in (1, 2)}
    return {
        "n_lost": n[1],
        "n_stayed": n[2],
        "wave": escape(report.wave),
        "n_compared": len(compared),
        "n_large": len(large),
        "large": [
            f"{escape(report.name_characteristic(row))} {'higher' if row['difference'] > 0 else 'lower'} in those lost "
            f"({row['difference']:+.2f})"
            for row in large.head(3).to_dict("records")
        ],
    }


def describe_lost(report: Material) -> Section:
    section, table = Section("lost", "Who is lost", "Who is lost"), report.found.lost_differences
    if isinstance(table, Gap):
        report.add_gap(section, table, "Who is lost")
    else:
        section.add(report.say("lost", collect_lost(report)))
        given = reorder_by_size(table[table["difference"].notna()]).head(MOST_DIFFERENCES)
        if len(given):
            labels = [report.name_characteristic(row) for row in given.to_dict("records")]
            values = given["difference"].tolist()
            section.add(
                draw_both(lambda end, width: draw_love(f"love-{end}", labels, values, "Lost less stayed", width))
            )
        section.add(_difference_grid(report, "Those lost and those who stayed", table, ("Lost", "Stayed")))
    model = report.found.loss_model
    section.add(Heading("Model of loss"))
    if isinstance(model, Gap):
        report.add_gap(section, model, "Model of loss")
    else:
        _add_model(report, section, model)
    return section


def _add_model(report: Material, section: Section, model: LossModel) -> None:
    pairs = find_pairs(report.study.arms)
    reference = f" Arms are compared with {report.cell('arm', pairs[0][1])}." if pairs else ""
    section.add(Words([f"Lost: {model.n_lost:,} of {model.n:,} people at {model.n_sites:,} sites.{reference}"]))
    gaps = [report.word_gap(gap.words) for gap in model.gaps]
    section.gaps += [("Model of loss", words) for words in gaps]
    if gaps:
        section.add(Bullets([escape(words) for words in gaps]))
    terms = model.terms[model.terms["term"] != "(constant)"]
    has_care = terms["gap"].ne("").any()
    rows = Rows()
    for row in terms.to_dict("records"):
        rows.add(
            escape(report.name_term(str(row["term"]))),
            format_decimal(row["odds_ratio"], 2),
            format_interval(row["low"], row["high"], 2) or "–",
            format_p(row["p"]),
            format_decimal(row["df"], 1),
            *([escape(row["gap"])] if has_care else []),
        )
    head = ["Term", "Odds ratio", "95&nbsp;% interval", "p", "Degrees of freedom", *(["Care"] if has_care else [])]
    section.add(rows.finish("Odds of being lost", head, texts=(5,)))
    section.add_note(escape(model.method))


# Weights ------------------------------------------------------------------------------------------------------------


def collect_weights(report: Material) -> dict[str, Any]:
    weights = report.found.weights
    assert isinstance(weights, Weights)
    return {
        "n": weights.n,
        "effective": f"{weights.effective_n:,.1f}",
        "mean": f"{weights.mean:.3f}",
        "largest": f"{weights.largest:.2f}",
        "n_trimmed": weights.n_trimmed,
    }


def describe_weights(report: Material) -> Section:
    section, weights = Section("weights", "Weights", "Weights for who was lost"), report.found.weights
    if isinstance(weights, Gap):
        report.add_gap(section, weights, "Weights")
    else:
        section.add(report.say("weights", collect_weights(report)))
        section.add_note(escape(_name_recipe(report, weights.recipe)))
    section.add_note(
        "They are the column attrition_weight of the table analysis_wide; attrition_weight_status says who has none, "
        "and why."
    )
    return section


def _name_recipe(report: Material, recipe: str) -> str:
    before, mark, after = recipe.partition("terms: ")
    terms, semicolon, rest = after.partition("; ")
    names = ", ".join(report.name_term(term) for term in terms.split(", ")) if mark else ""
    return f"{before}{mark}{names}{semicolon}{rest}"
