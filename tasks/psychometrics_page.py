"""The page of how the instruments behaved: what to look at first, then each instrument with plots and their figures."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from html import escape
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from study.answers import Answers
from study.calendar import format_day
from study.instruments import MISSING_REASONS, Instrument
from study.protocol import Study
from study.psychometrics import (
    FLAGS,
    Limits,
    Psychometrics,
    derive_flags,
    derive_psychometrics,
    find_contradictable,
    read_distribution,
)
from study.state import Head
from tasks.pages import format_counted, format_list, format_moment_for_people, render_page

INSTRUMENTS_PAGE = "instruments.html"
INSTRUMENTS_FIGURES = "instruments.csv"

_INK, _SOFT, _ACCENT, _PALE = "#1d2733", "#52606f", "#0b5c7d", "#e4ecf1"
_PLOT_WIDTH = 8.6  # inches, of which the page shows what there is room for
_LABEL_WIDTH = 2.9
_LONGEST_LABEL = 40  # characters beside a plot
_LONGEST_WAVE = 18  # characters above or below one
_SMALLEST_TOLD = 7  # per cent: narrower parts of a bar have no room for a number
_DARKEST_MISSING = 40.0  # per cent
_MOST_BARS = 32  # of one plot: more do not go on a sheet of paper
_MOST_PLACES = 4  # waves that are named one by one beside a flag
_BORDERS = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>", re.DOTALL)
_SIZE = re.compile(r'<svg ([^>]*?)width="[^"]*"([^>]*?)height="[^"]*"', re.DOTALL)
_NAMES = re.compile(r'(\bid="|href="#|url\(#)')


class InstrumentsReport(NamedTuple):
    """The page, and every figure as CSV."""

    page: bytes
    figures: bytes


def write_instruments_report(
    *,
    study: Study,
    instruments: Mapping[str, Instrument],
    answers: Answers,
    scores: pd.DataFrame,
    participants: pd.DataFrame,
    as_of: date,
    known_at: datetime,
    head: Head,
    release: str = "",
    slice_name: str = "",
    banner: str = "",
) -> InstrumentsReport:
    """The page and its figures, from a release's answers, and its tables of scores and participants.

    `release`: its name, "" where nothing was frozen. `banner`: what every reader must know first. The same arguments
    give the same bytes.
    """
    found = derive_psychometrics(answers, scores, participants, study)
    page = _Page(study, instruments, found)
    rendered = render_page(
        "psychometrics.html.jinja",
        title=f"{study.title}: instruments",
        study=study,
        release=release,
        slice_name=slice_name,
        banner=banner,
        as_of=format_day(as_of),
        known_at=format_moment_for_people(known_at),
        head=head,
        limits=found.limits,
        n_questionnaires=len(answers.records),
        findings=page.describe_findings(),
        figures_file=INSTRUMENTS_FIGURES,
        sections=page.describe_sections(),
        unanswered=[instruments[name].title for name in study.instruments if name not in page.answered],
    )
    return InstrumentsReport(rendered, encode_figures(found))


def encode_figures(found: Psychometrics) -> bytes:
    """Every figure as CSV: UTF-8, comma, a blank where there is nothing to tell."""
    sink = io.BytesIO()
    pyarrow.csv.write_csv(pa.Table.from_pandas(found.figures, preserve_index=False), sink)
    return sink.getvalue()


@dataclass(frozen=True)
class _Strand:
    """What one respondent answered on one form of an instrument: the figures of all sites, by wave."""

    instrument: Instrument
    respondent: str
    form: str
    figures: pd.DataFrame
    limits: Limits

    def of(self, kind: str) -> pd.DataFrame:
        return self.figures[(self.figures["of"] == kind) & (self.figures["wave"] != "")]

    @property
    def shown_waves(self) -> list[str]:
        told = self.of("questionnaire")
        return told.loc[told["not_given"] == "", "wave"].tolist()

    @property
    def main_wave(self) -> str:
        """The wave with most questionnaires."""
        told = self.of("questionnaire").sort_values("n", ascending=False, kind="stable")
        return str(told["wave"].iloc[0])


class _Page:
    def __init__(self, study: Study, instruments: Mapping[str, Instrument], found: Psychometrics) -> None:
        self.study, self.instruments, self.limits = study, instruments, found.limits
        self.figures, self.flags = found.figures, derive_flags(found.figures)
        self.answered = set(found.figures["instrument"])
        self.waves = {wave.id: wave.label for wave in study.waves}
        self.sites = {site.site_id: site.name for site in study.sites}
        self.n_plots = 0

    # What to look at first --------------------------------------------------------------------------------------

    def describe_findings(self) -> list[dict[str, Any]]:
        """Each flag raised, the gravest first: its meaning, and where."""
        return [
            {
                "flag": FLAGS[str(name)],
                "n": len(rows),
                "places": self._describe_places(rows)
                if FLAGS[str(name)].rank < 3
                else self._count_places(rows, FLAGS[str(name)].id),
            }
            for name, rows in self.flags.groupby("flag", sort=False)
        ]

    def _describe_places(self, rows: pd.DataFrame) -> list[dict[str, str]]:
        """A line for each item or score; those of one instrument that have the same figures at the same waves share
        one, as scores do that rest on the same items."""
        where = ["instrument", "respondent", "form", "site", "of"]
        lines: dict[tuple[str, ...], list[str]] = {}
        for key, own in rows.groupby([*where, "name", "within"], sort=False):
            *place, name, within = (str(part) for part in key)
            words = self._name_figure(place[0], place[4], name, within)
            lines.setdefault((*place, self._name_waves(own)), []).extend([words] if words else [])
        return [
            {"where": self._name_place(*place[:4]), "what": "; ".join(words), "when": waves}
            for (*place, waves), words in lines.items()
        ]

    def _count_places(self, rows: pd.DataFrame, flag: str) -> list[dict[str, str]]:
        words = {"items_alike": "pair", "alpha_high": "scale"}.get(flag, "item or score")
        many = "items or scores" if words == "item or score" else f"{words}s"
        counts = rows.drop_duplicates(["instrument", "of", "name", "within"])["instrument"].value_counts(sort=False)
        return [
            {"where": self.instruments[str(name)].sheet_title, "what": format_counted(int(n), words, many), "when": ""}
            for name, n in counts.items()
        ]

    def _name_place(self, instrument_id: str, respondent: str, form: str, site: str) -> str:
        words = [self.instruments[instrument_id].sheet_title]
        if len(self._list_strands(instrument_id)) > 1:
            words.append(_name_strand(respondent, form))
        return ", ".join([*words, f"at {self.sites.get(site, site)} alone"] if site else words)

    def _name_figure(self, instrument_id: str, of: str, name: str, within: str) -> str:
        """The item, pair or score that a flag is about; "" for whole questionnaires."""
        instrument = self.instruments[instrument_id]
        if of == "item_pair":
            return f"{self._name_item(instrument, name)} with {self._name_item(instrument, within)}"
        scale = instrument.find_scale(name if of == "scale" else within)
        if of == "scale":
            return scale.label if scale else name
        item = self._name_item(instrument, name)
        return f"{item} in {scale.label}" if scale else item

    def _name_item(self, instrument: Instrument, name: str) -> str:
        item = instrument.find_item(name)
        return f"{item.label} ({name})" if item else name

    def _name_waves(self, rows: pd.DataFrame) -> str:
        """Where a flag is raised and by which figure: "Week 2 (11 %)", or "at 14 waves, 21 to 36 %"."""
        flag = str(rows["flag"].iloc[0])
        values = [_show_value(flag, value) for value in rows["value"]]
        if len(rows) <= _MOST_PLACES:
            names = [self.name_wave(wave) for wave in rows["wave"]]
            return ", ".join(f"{name} ({value})" if value else name for name, value in zip(names, values, strict=True))
        low, high = (_show_value(flag, value) for value in (rows["value"].min(), rows["value"].max()))
        return f"at {len(rows)} waves" + (f", {low} to {high}" if low else "")

    def name_wave(self, wave: str) -> str:
        return self.waves.get(wave, wave) if wave else "all waves"

    # Instrument by instrument -----------------------------------------------------------------------------------

    def _list_strands(self, instrument_id: str) -> list[tuple[str, str]]:
        own = self.figures[self.figures["instrument"] == instrument_id]
        return list(dict.fromkeys(zip(own["respondent"], own["form"], strict=True)))

    def describe_sections(self) -> list[dict[str, Any]]:
        sections = []
        for instrument_id in dict.fromkeys(self.figures["instrument"]):
            instrument = self.instruments[instrument_id]
            strands = self._list_strands(instrument_id)
            sections.append(
                {
                    "id": instrument_id,
                    "title": instrument.title,
                    "short": instrument.sheet_title,
                    "reflective": [scale.label for scale in instrument.scales if scale.reflective],
                    "why_no_agreement": _explain_no_agreement(instrument),
                    "contradictable": find_contradictable(instrument, self.limits) is not None,
                    "flags": self._count_flags(instrument_id),
                    "strands": [self._describe_strand(instrument, *strand) for strand in strands],
                    "is_several": len(strands) > 1,
                }
            )
        return sections

    def _count_flags(self, instrument_id: str) -> list[str]:
        own = self.flags[(self.flags["instrument"] == instrument_id) & (self.flags["rank"] < 3)]
        return [FLAGS[str(name)].title for name in dict.fromkeys(own["flag"])]

    def _describe_strand(self, instrument: Instrument, respondent: str, form: str) -> dict[str, Any]:
        figures = self.figures
        own = figures[
            (figures["instrument"] == instrument.id) & (figures["respondent"] == respondent) & (figures["form"] == form)
        ]
        strand = _Strand(instrument, respondent, form, own[own["site"] == ""], self.limits)
        told = strand.of("questionnaire")
        small = [self.name_wave(wave) for wave in told.loc[told["not_given"] != "", "wave"]]
        described: dict[str, Any] = {
            "title": _name_strand(respondent, form),
            "small": small,
            "waves": [],
            "scales": [],
            "parts": [],
            "answers": None,
            "missing": None,
            "alpha": [],
            "sites": [],
        }
        if not strand.shown_waves:
            return described
        described["waves"] = self._describe_waves(strand)
        parts = {name for scale in instrument.scales for name in scale.items}
        for scale in instrument.scales:
            table = self._describe_scale(strand, scale.id)
            described["parts" if scale.id in parts and not scale.reflective else "scales"].append(
                {
                    "label": scale.label,
                    "is_reflective": scale.reflective,
                    "rows": table,
                    "has_words": any(row["flags"] or row["why"] for row in table),
                }
            )
        described["answers"] = self._describe_items(strand)
        described["missing"] = self._describe_missing(strand)
        described["alpha"] = [
            plot for scale in instrument.scales if scale.reflective and (plot := self._describe_alpha(strand, scale.id))
        ]
        described["sites"] = self._describe_sites(own)
        return described

    def _describe_waves(self, strand: _Strand) -> list[dict[str, Any]]:
        """Each wave: questionnaires, missing answers, and how many people left out none, one, two, more."""
        rows = []
        for row in strand.of("questionnaire").dropna(subset="n").to_dict("records"):
            by_number = read_distribution(row["distribution"])
            counts = [by_number.get(str(n), 0) for n in range(3)]
            rows.append(
                {
                    "wave": self.name_wave(row["wave"]),
                    "n": int(row["n"]),
                    "missing": _percent(row["missing_pct"]),
                    "left_out": [*counts, sum(by_number.values()) - sum(counts)],
                    "careless": _percent(row["careless_pct"]),
                    "longest_run": _number(row["longest_run"], 1),
                    "variability": _number(row["variability"], 2),
                    "same_level": _percent(row["same_level_pct"]),
                    "is_flagged": row["flags"] != "",
                }
            )
        return rows

    def _describe_scale(self, strand: _Strand, scale_id: str) -> list[dict[str, Any]]:
        rows = strand.of("scale")
        return [
            {
                "wave": self.name_wave(row["wave"]),
                "n": _number(row["n_answered"], 0),
                "missing": _percent(row["missing_pct"]),
                "mean": _number(row["mean"], 2),
                "sd": _number(row["sd"], 2),
                "lowest": _percent(row["lowest_pct"]),
                "highest": _percent(row["highest_pct"]),
                "n_complete": _number(row["n_complete"], 0),
                "alpha": f"{row['alpha']:.2f} ({row['alpha_low']:.2f} to {row['alpha_high']:.2f})"
                if not np.isnan(row["alpha"])
                else row["not_given"].partition("alpha: ")[2] or "–",
                "why": row["not_given"].partition("alpha: ")[0].rstrip("; "),
                "flags": [FLAGS[name].title for name in row["flags"].split() if FLAGS[name].rank < 3],
            }
            for row in rows[rows["name"] == scale_id].to_dict("records")
        ]

    def _describe_items(self, strand: _Strand) -> dict[str, Any]:
        """The answers to each item at the wave with most questionnaires: a plot, and the same as a table."""
        wave, instrument = strand.main_wave, strand.instrument
        own = strand.of("item")
        own = own[own["wave"] == wave]
        agreement = strand.of("item_of_scale")
        agreement = agreement[agreement["wave"] == wave].drop_duplicates("name").set_index("name")
        labels = {item.id: item.label for item in instrument.items}
        bars, rows = [], []
        for row in own.to_dict("records"):
            counts = read_distribution(row["distribution"])
            total = sum(counts.values())
            shares = {label: 100 * n / total for label, n in counts.items()} if total else {}
            if shares:
                bars.append((labels[row["name"]], shares))
            item_rest, without = (
                agreement.loc[row["name"], ["item_rest", "alpha_without"]]
                if row["name"] in agreement.index
                else (np.nan, np.nan)
            )
            rows.append(
                {
                    "item": row["name"],
                    "label": labels[row["name"]],
                    "n": _number(row["n_answered"], 0),
                    "missing": _percent(row["missing_pct"]),
                    "mean": _number(row["mean"], 2),
                    "sd": _number(row["sd"], 2),
                    "why": ", ".join(
                        f"{reason.replace('_', ' ')} {row[f'n_{reason}']:.0f}"
                        for reason in MISSING_REASONS
                        if row[f"n_{reason}"] > 0
                    ),
                    "answers": "; ".join(f"{label}: {_percent(share)}" for label, share in shares.items())
                    or row["not_given"],
                    "shares": [_percent(share) for share in shares.values()],
                    "item_rest": _number(item_rest, 2),
                    "alpha_without": _number(without, 2),
                }
            )
        kinds = list(dict.fromkeys(tuple(shares) for _, shares in bars))
        name = self.name_wave(wave)
        parts = [bars[start : start + _MOST_BARS] for start in range(0, len(bars), _MOST_BARS)]
        plots = [
            self._draw(
                f"Stacked bars: the answers to {format_counted(len(part), 'item')} of {instrument.sheet_title} at "
                f"{name}, in per cent of those who answered. The table has the same figures.",
                _draw_distributions(part),
            )
            for part in parts
        ]
        return {
            "wave": name,
            "plots": plots,
            "rows": rows,
            "has_agreement": len(agreement) > 0,
            "levels": list(kinds[0]) if len(kinds) == 1 else [],
            "has_missing": any(row["why"] for row in rows),
        }

    def _describe_missing(self, strand: _Strand) -> dict[str, Any]:
        """The share of missing answers by item and wave, of items of which any is missing."""
        own = strand.of("item")
        waves = strand.shown_waves
        table = own.pivot(index="name", columns="wave", values="missing_pct")
        table = table.reindex(index=list(strand.instrument.item_ids), columns=waves)
        some = table[(table > 0).any(axis=1)]
        labels = {item.id: item.label for item in strand.instrument.items}
        names = [self.name_wave(wave) for wave in waves]
        alt = (
            f"A map of {format_counted(len(some), 'item')} of {strand.instrument.sheet_title} by "
            f"{format_counted(len(waves), 'wave')}: per cent of missing answers. The table has the same figures."
        )
        plot = None
        if len(some):
            rows = [labels[name] for name in some.index]
            plot = self._draw(alt, _draw_missing(some.to_numpy(), rows, names))
        return {
            "plot": plot,
            "n_without": int((~(table > 0).any(axis=1)).sum()),
            "waves": names,
            "rows": [
                {"item": name, "label": labels[str(name)], "cells": [_percent(value) for value in values]}
                for name, values in zip(some.index, some.to_numpy(), strict=True)
            ],
        }

    def _describe_alpha(self, strand: _Strand, scale_id: str) -> dict[str, Any] | None:
        """Alpha over the waves; None where it is given at none."""
        rows = strand.of("scale")
        rows = rows[(rows["name"] == scale_id) & rows["alpha"].notna()]
        scale = strand.instrument.find_scale(scale_id)
        if rows.empty or scale is None:
            return None
        names = [self.name_wave(wave) for wave in rows["wave"]]
        alt = (
            f"Cronbach's alpha of {scale.label} with its 95 % interval at {format_list(names)}. The table of scores "
            "has the same figures."
        )
        values = rows[["alpha", "alpha_low", "alpha_high"]].to_numpy()
        return {"label": scale.label, "plot": self._draw(alt, _draw_alpha(values, names, self.limits))}

    def _describe_sites(self, own: pd.DataFrame) -> list[dict[str, Any]]:
        """Questionnaires and missing answers of each site, over all waves; small ones together in a sentence."""
        rows = own[(own["of"] == "questionnaire") & (own["wave"] == "") & (own["site"] != "")]
        return [
            {
                "site": self.sites.get(row["site"], row["site"]),
                "n": _number(row["n"], 0),
                "missing": _percent(row["missing_pct"]),
                "careless": _percent(row["careless_pct"]),
                "why": row["not_given"],
                "is_flagged": row["flags"] != "",
            }
            for row in rows.to_dict("records")
        ]

    def _draw(self, alt: str, svg: str) -> str:
        self.n_plots += 1
        return _embed(svg, alt, self.n_plots)


def _name_strand(respondent: str, form: str) -> str:
    return f"{respondent}, {form.replace('_', '-')} form"


def _explain_no_agreement(instrument: Instrument) -> str:
    """Why there is no alpha, in words; "" where there is one."""
    if any(scale.reflective for scale in instrument.scales):
        return ""
    if instrument.facts:
        return "it asks for counts, amounts or characteristics, which need not go together"
    methods = {scale.method for scale in instrument.scales}
    if not any(len(scale.items) > 1 for scale in instrument.scales):
        return "no score is made of several items"
    if "value_set" in methods or "valued_sum" in methods:
        return "its items are weighed by preferences: they are parts of what is valued, and need not go together"
    if "cost" in methods:
        return "it counts what was used, and uses need not go together"
    return "its definition does not say that its items are effects of one cause"


def _number(value: Any, decimals: int) -> str:
    return "–" if pd.isna(value) else f"{value:,.{decimals}f}"


def _percent(value: Any) -> str:
    """A share as people read it: none of it is 0, and a little is not none."""
    if pd.isna(value):
        return "–"
    return "<1\N{NO-BREAK SPACE}%" if 0 < value < 0.5 else f"{value:.0f}\N{NO-BREAK SPACE}%"


def _show_value(flag: str, value: float) -> str:
    if flag == "no_variation" or np.isnan(value):
        return ""
    return (
        f"{value:.2f}" if flag in ("alpha_low", "alpha_high", "item_against_rest", "items_alike") else _percent(value)
    )


# Plots --------------------------------------------------------------------------------------------------------------


def _embed(svg: str, alt: str, number: int) -> str:
    """A plot as a part of the page: no size of its own, names that no other plot has, and a text for who sees none."""
    svg = _NAMES.sub(rf"\g<1>p{number}-", _BORDERS.sub("", svg)).strip()
    label = escape(alt)
    return _SIZE.sub(lambda found: f'<svg {found[1]}{found[2]} role="img" aria-label="{label}"', svg, count=1)


def _save(figure: Any) -> str:
    """A figure as SVG with text as text; the same figure gives the same bytes."""
    import matplotlib

    sink = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "summative"}):
        figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
    return sink.getvalue()


def _make_axes(
    height_of_plot: float, *, label_width: float = _LABEL_WIDTH, top: float = 0.1, bottom: float = 0.5,
    right: float = 0.15,
) -> Any:  # fmt: skip
    """A figure with one plot that leaves room for labels around it; all in inches."""
    from matplotlib.figure import Figure

    height = height_of_plot + top + bottom
    figure = Figure(figsize=(_PLOT_WIDTH, height))
    axes = figure.add_axes(
        (
            label_width / _PLOT_WIDTH,
            bottom / height,
            1 - (label_width + right) / _PLOT_WIDTH,
            height_of_plot / height,
        )
    )
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_SOFT)
    axes.tick_params(length=0, labelsize=9.5, colors=_INK)
    return axes


def _shorten(label: str, longest: int = _LONGEST_LABEL) -> str:
    return label if len(label) <= longest else f"{label[: longest - 1].rstrip()}…"


def _shade(share: float) -> tuple[str, str]:
    """The colour of a place from the lowest (0) to the highest (1), and that of text on it: light to dark, so that it
    reads without colour."""
    light, dark = np.array([0xF0, 0xF5, 0xF8]), np.array([0x0B, 0x3C, 0x55])
    red, green, blue = (round(part) for part in light + (dark - light) * share)
    return f"#{red:02x}{green:02x}{blue:02x}", "#ffffff" if share > 0.45 else _INK


def _write(axes: Any, x: float, y: float, text: str, **how: Any) -> None:
    """A text at a place of the plot; one that is clipped to the plot, as `axes.text` makes it, is slow to draw."""
    axes.figure.text(
        x, y, text, **{"transform": axes.transData, "va": "center", "fontsize": 8.5, "parse_math": False} | how
    )


def _name_rows(axes: Any, labels: Sequence[str]) -> None:
    """Names beside the rows, without the ticks that cost more than they show."""
    axes.set_yticks([])
    for row, label in enumerate(labels):
        how = {"ha": "right", "fontsize": 9.5, "color": _INK, "transform": axes.get_yaxis_transform()}
        _write(axes, -0.01, row, _shorten(label), **how)


def _add_boxes(axes: Any, boxes: Sequence[tuple[float, float, float, float, str]]) -> None:
    """Rectangles, each left, bottom, width, height and fill, as one thing to draw: hundreds of single ones are slow."""
    from matplotlib.collections import PolyCollection

    corners = [[(x, y), (x + w, y), (x + w, y + h), (x, y + h)] for x, y, w, h, _ in boxes]
    fills = [fill for *_, fill in boxes]
    axes.add_collection(PolyCollection(corners, facecolors=fills, edgecolors=_SOFT, linewidths=0.5), autolim=False)


def _draw_distributions(bars: Sequence[tuple[str, Mapping[str, float]]]) -> str:
    """A bar for each item, from its lowest answer to its highest."""
    kinds = list(dict.fromkeys(tuple(shares) for _, shares in bars))
    has_key = len(kinds) == 1
    axes = _make_axes(0.27 * len(bars), top=0.45 if has_key else 0.1)
    boxes: list[tuple[float, float, float, float, str]] = []
    for row, (_, shares) in enumerate(bars):
        left = 0.0
        for place, share in enumerate(shares.values()):
            fill, ink = _shade(place / max(len(shares) - 1, 1))
            if share > 0:
                boxes.append((left, row - 0.37, share, 0.74, fill))
            if share >= _SMALLEST_TOLD:
                _write(axes, left + share / 2, row, f"{share:.0f}", ha="center", color=ink)
            left += share
    _add_boxes(axes, boxes)
    axes.set(xlim=(0, 100), ylim=(len(bars) - 0.5, -0.5))
    _name_rows(axes, [label for label, _ in bars])
    axes.set_xlabel("per cent of those who answered", fontsize=9.5, color=_SOFT)
    if has_key:
        from matplotlib.patches import Patch

        n = len(kinds[0])
        patches = [
            Patch(facecolor=_shade(place / max(n - 1, 1))[0], edgecolor=_SOFT, label=label)
            for place, label in enumerate(kinds[0])
        ]
        axes.legend(
            handles=patches, ncols=min(n, 11), loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False,
            fontsize=9, handlelength=1.1, handleheight=1.0, columnspacing=0.9, handletextpad=0.4, borderaxespad=0.2,
        )  # fmt: skip
    return _save(axes.figure)


def _draw_missing(shares: Any, rows: Sequence[str], waves: Sequence[str]) -> str:
    """A cell for each item and wave, darker for more, with the per cent written in it."""
    axes = _make_axes(0.27 * len(rows), top=1.0, bottom=0.15, right=0.75)
    boxes: list[tuple[float, float, float, float, str]] = []
    for (row, column), share in np.ndenumerate(shares):
        fill, ink = _shade(min(share / _DARKEST_MISSING, 1.0)) if share > 0 else ("#ffffff", _SOFT)
        boxes.append((column - 0.48, row - 0.46, 0.96, 0.92, fill))
        if share != 0:
            text = "–" if np.isnan(share) else "<1" if share < 0.5 else f"{share:.0f}"
            _write(axes, column, row, text, ha="center", color=ink)
    _add_boxes(axes, boxes)
    axes.set(xlim=(-0.5, len(waves) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    _name_rows(axes, rows)
    axes.xaxis.tick_top()
    names = [_shorten(wave, _LONGEST_WAVE) for wave in waves]
    axes.set_xticks(range(len(waves)), names, rotation=40, ha="left", fontsize=9, parse_math=False)
    axes.spines["bottom"].set_visible(False)
    return _save(axes.figure)


def _draw_alpha(values: Any, waves: Sequence[str], limits: Limits) -> str:
    """A point with its interval for each wave, and the two limits."""
    is_crowded = len(waves) > 6
    axes = _make_axes(1.9, label_width=0.6, bottom=0.75 if is_crowded else 0.35)
    places = np.arange(len(waves))
    lowest = min(limits.alpha_low, float(values[:, 1].min())) - 0.06
    for limit in (limits.alpha_low, limits.alpha_high):
        axes.axhline(limit, color=_SOFT, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.text(len(waves) - 0.45, limit, f"{limit:.2f}", ha="right", va="bottom", fontsize=8.5, color=_SOFT)
    axes.errorbar(
        places, values[:, 0], yerr=np.abs(values[:, 1:] - values[:, :1]).T, fmt="o", color=_ACCENT, ecolor=_INK,
        elinewidth=1.3, capsize=4, markersize=6,
    )  # fmt: skip
    for place, alpha in zip(places, values[:, 0], strict=True):
        axes.text(place + 0.06, alpha, f"{alpha:.2f}", ha="left", va="center", fontsize=9, color=_INK)
    axes.set(xlim=(-0.5, len(waves) - 0.4), ylim=(lowest, 1.0))
    names = [_shorten(wave, _LONGEST_WAVE) for wave in waves]
    axes.set_xticks(places, names, rotation=20 if is_crowded else 0, fontsize=9, parse_math=False)
    axes.set_ylabel("alpha", fontsize=9.5, color=_SOFT)
    axes.grid(axis="y", color=_PALE, linewidth=0.7)
    axes.set_axisbelow(True)
    return _save(axes.figure)
