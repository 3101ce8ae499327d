"""Every figure of the report on attrition as one long table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from study.attrition import BENCHMARKS, DIMENSIONS, WHY_NOT_EXPECTED, derive_reason_table, derive_return_table
from study.attrition_models import Attrition, LossModel, Weights
from study.protocol import Study

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

FIGURE_KEYS = ("figure", "wave", "arm", "comparison", "site", "cohort", "respondent", "item", "day")
FIGURE_COLUMNS = (*FIGURE_KEYS, "quantity", "value", "lower", "upper", "note")
COUNTED = r"(n|lost|missing|more|is)(_|$)"
"""How the names of quantities begin that count something, or say yes (1) or no (0)."""


def derive_figures(study: Study, rows: pd.DataFrame, found: Attrition) -> pd.DataFrame:
    """Every figure of the report, one a row: FIGURE_COLUMNS, by codes ("" where a figure is not divided by it); numbers
    to six decimals. `quantity`: what is counted; `lower` and `upper`: of its 95 % interval; `note`: why it has none.

    `returns` and `reasons` are of every wave, arm, site, cohort and respondent of which there is somebody, and of each
    without the others; a code of several arms or none is as the frame of attrition has it.
    """
    parts: list[pd.DataFrame] = []
    counts = ("n_expected", "n_returned", "n_partial", "n_awaited", "n_missing", "n_over", "n_kept")
    why = [f"n_{code}" for code in WHY_NOT_EXPECTED]
    rates = {"rate_pct": ("rate_low_pct", "rate_high_pct"), "retained_pct": ("retained_low_pct", "retained_high_pct")}
    levels = found.levels
    every: list[tuple[str, ...]] = [(), *((name,) for name in DIMENSIONS), *found.tables, DIMENSIONS]
    for by in dict.fromkeys(every):
        table = found.tables.get(by)
        table = derive_return_table(rows, by, levels) if table is None else table
        parts.append(_melt(table, "returns", (*counts, *why), rates, note="gap", is_sparse=len(by) > 2))
    for by in ((), ("wave", "arm"), DIMENSIONS):
        table = derive_reason_table(rows, by, levels, study).rename(columns={"reason": "item"})
        parts.append(_melt(table, "reasons", ("n", "pct"), note="gap", is_sparse=len(by) > 2))
    main = {"wave": found.wave, "respondent": ";".join(found.respondents)}
    for by, table in found.people.items():
        parts.append(_melt(table.assign(**main), "people", (*counts, *why), rates, note="gap", is_sparse=len(by) > 1))
    parts.append(_melt(found.patterns.rename(columns={"pattern": "item"}), "patterns", ("n", "pct"), note="gap"))
    times, ends = found.time_to_loss, {"incidence_pct": ("low_pct", "high_pct")}
    parts.append(_melt(times.curves.rename(columns={"cause": "item"}), "time_to_loss", (), ends, note="gap"))
    at_times = times.at_times.rename(columns={"cause": "item"})
    parts.append(_melt(at_times, "time_to_loss_at", ("n_at_risk", "n"), ends, note="gap"))
    pair = {"intervention": "arm"}
    if isinstance(found.differential, pd.DataFrame):
        table = found.differential.rename(columns=pair).assign(**main)
        table["item"] = table["of"] + ", " + table["assumption"]
        table["is_low"] = (table["verdict"] == "low").astype(float).where(table["verdict"] != "")
        names = ("n_intervention", "lost_intervention", "n_comparison", "lost_comparison", "overall_pct",
                 "differential_pct", "limit_pct", "is_low", "more_intervention", "more_comparison")  # fmt: skip
        parts.append(_melt(table, "differential", names, note="gap"))
    groups = ("n_1", "missing_1", "value_1", "sd_1", "n_2", "missing_2", "value_2", "sd_2", "difference")
    for figure, differences in (("equivalence", found.equivalence), ("lost_and_stayed", found.lost_differences)):
        if isinstance(differences, pd.DataFrame):
            table = differences.rename(columns=pair).assign(**main)
            table["item"] = table["characteristic"] + (": " + table["level"]).where(table["level"] != "", "")
            parts.append(_melt(table, figure, groups, note="gap"))
    if isinstance(found.loss_model, LossModel):
        table = found.loss_model.terms.rename(columns={"term": "item"}).assign(**main)
        odds = {"odds_ratio": ("low", "high")}
        parts.append(_melt(table, "model_of_loss", ("p", "standard_error", "df"), odds, note="gap"))
    if isinstance(found.weights, Weights):
        told_of = ("n", "effective_n", "mean", "largest", "n_trimmed")
        told = pd.DataFrame([{name: float(getattr(found.weights, name)) for name in told_of}]).assign(**main)
        parts.append(_melt(told, "weights", told_of))
    effects_told = (
        *("n_intervention", "n_comparison", "n_sites", "mean_site_size", "cv_site_size", "design_effect"),
        *("effect_sd", "effect", "design_effect_clusters", "effect_sd_clusters", "effect_clusters"),
    )
    for basis in study.power:
        effects = found.detectable[basis.id]
        if isinstance(effects, pd.DataFrame):
            table = effects.rename(columns=pair).assign(wave=basis.wave)
            table["item"] = basis.id + ", " + table["when"]
            parts.append(_melt(table, "detectable", effects_told, note="gap"))
    for quantity, unit in (("n", "people"), ("pct", "per cent")):
        marks = pd.DataFrame([{"item": mark.id, quantity: mark.value} for mark in BENCHMARKS if mark.unit == unit])
        parts.append(_melt(marks, "other_studies", (quantity,)))
    return pd.concat(parts, ignore_index=True)[list(FIGURE_COLUMNS)]


def _melt(
    table: pd.DataFrame,
    figure: str,
    plain: Sequence[str],
    ranged: Mapping[str, tuple[str, str]] | None = None,
    *,
    note: str = "",
    is_sparse: bool = False,
) -> pd.DataFrame:
    """A table's quantities, one a row, with its keys: `plain` ones, and those with the columns of their interval.
    `is_sparse`: what is 0, or cannot be since there is nobody, has no row."""
    told = {**dict.fromkeys(plain), **(ranged or {})}
    n, k = len(table), len(told)

    def stack(columns: Sequence[str | None]) -> Floats:
        parts = [np.full(n, np.nan) if name is None else table[name].to_numpy("float64", na_value=np.nan)
                 for name in columns]  # fmt: skip
        return np.round(np.column_stack(parts), 6)

    value = stack(list(told))
    lower, upper = (stack([ends[at] if ends else None for ends in told.values()]) for at in (0, 1))
    keep = np.ones((n, k), bool)
    if is_sparse:
        is_count = np.array([name.startswith("n") for name in told])
        keep &= ~is_count | ((value != 0) & ~np.isnan(value))
        keep &= (value[:, list(told).index("n" if "n" in told else "n_expected")] != 0)[:, None]
    row, place = np.nonzero(keep)
    words = table[note].to_numpy(object)[row] if note else np.full(len(row), "", object)
    keys = {name: table[name].to_numpy(object)[row] if name in table else "" for name in FIGURE_KEYS[1:]}
    frame = pd.DataFrame({**keys, "quantity": np.array(list(told), object)[place]}, index=range(len(row)))
    frame["value"], frame["lower"], frame["upper"] = value[keep], lower[keep], upper[keep]
    frame["note"] = np.where(np.isnan(value[keep]), words, "")
    frame["day"] = frame["day"].astype("str")
    return frame.assign(figure=figure)


def encode_attrition_figures(study: Study, rows: pd.DataFrame, found: Attrition) -> bytes:
    """`derive_figures` as CSV: UTF-8, comma, a blank where there is nothing to tell. What is counted is written as a
    whole number, everything else with a decimal point: 100 people, 100.0 per cent. Numbers that are expected of the
    days to come ("detectable", at the end) have decimals where they are not whole."""
    figures = derive_figures(study, rows, found)
    is_count = figures["quantity"].str.match(COUNTED).to_numpy(bool)
    numbers = {name: _write_numbers(figures[name].to_numpy(), is_count) for name in ("value", "lower", "upper")}
    return figures.assign(**numbers).to_csv(index=False, lineterminator="\n").encode()


def _write_numbers(values: Floats, is_count: Flags) -> list[str]:
    whole = is_count & (values % 1 == 0)
    return [_write_number(value, plain) for value, plain in zip(values.tolist(), whole.tolist(), strict=True)]


def _write_number(value: float, is_whole: bool) -> str:
    if np.isnan(value):
        return ""
    if is_whole:
        return f"{value:.0f}"
    text = f"{value + 0.0:.6f}".rstrip("0")
    return f"{text}0" if text.endswith(".") else text
