"""The flow of participants as a figure, as a table, and as a page of its own for print.

The figure is SVG laid out here: the same boxes give the same bytes, text stays text, and fonts are the reader's own. It
comes in two shapes: wide, for a screen and for paper, and narrow, for a telephone, with one box below another.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from xml.sax.saxutils import escape

import pandas as pd

from study.calendar import format_day
from study.flow import ALL, MOST_ARMS, find_flow_notes, find_main_analysis, find_wording, list_stages
from study.protocol import Study
from tasks.drawing import EDGE, LINE, NAMESPACE, SIZE, SOFT, TINT, Canvas, measure, wrap_words
from tasks.pages import render_page

STAGE_WORDS = {
    "enrolment": "Enrolment",
    "allocation": "Allocation",
    "follow_up": "Follow-up",
    "analysis": "Analysis",
    "attendance": "Attendance",
}

_PAD, _GAP, _BAND = 8, 22, 26
_MOST_LINES = 4
"""Lines that one label may take in the figure; a longer one is cut there, and whole in the table."""
_MOST_WAVES = 6
"""More of them run on instead of having a line each."""
_OPEN = (".not_answered", ".no_anchor", ".not_expected", ".awaited", ".not_due")
"""Ends of boxes that the figure shows where somebody is in them; the table shows them always."""


@dataclass(frozen=True)
class _Text:
    """A line of a panel: words, the count at its end ("" for none), how far it is set in, whether it is bold, and how
    many lines it may take."""

    words: str
    count: str = ""
    inset: int = 0
    is_bold: bool = False
    most: int = _MOST_LINES


@dataclass
class _Panel:
    """A box of the figure. `is_apart`: outside the sum, drawn with a broken edge."""

    texts: list[_Text] = field(default_factory=list)
    is_apart: bool = False

    def wrap(self, width: float) -> list[tuple[_Text, str, bool]]:
        """Its lines at this width: of which text, the words, and whether it is the text's last."""
        lines = []
        for text in self.texts:
            room = width - 2 * _PAD - text.inset * 12 - (measure(text.count) + 10 if text.count else 0)
            parts = wrap_words(text.words, room, text.most)
            lines += [(text, part, number == len(parts)) for number, part in enumerate(parts, start=1)]
        return lines

    def find_height(self, width: float) -> int:
        return len(self.wrap(width)) * LINE + 2 * _PAD - 2


# What stands in the panels ------------------------------------------------------------------------------------------


def show_count(n: Any) -> str:
    """A count of the figure; "*" where an external edition hides it."""
    return "*" if pd.isna(n) else f"{int(n):,}"


class _Counts:
    """The boxes by name and group."""

    def __init__(self, boxes: pd.DataFrame) -> None:
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        self.parts: dict[tuple[str, str], list[str]] = {}
        for row in boxes.to_dict("records"):
            key = (str(row["box"]), str(row["group"]))
            self.rows[key] = {str(name): value for name, value in row.items()}
            self.parts.setdefault((str(row["part_of"]), str(row["group"])), []).append(key[0])

    def head(self, box: str, group: str, words: str = "") -> list[_Text]:
        """A panel's first line: people, and the sites that they belong to."""
        row = self.rows[(box, group)]
        count = f"n = {show_count(row['n'])}"
        if "n_sites" in row:
            count += f" at {row['n_sites']:,} {'site' if row['n_sites'] == 1 else 'sites'}"
        return [_Text(words or row["label"], count, 0, True)]

    def line(self, box: str, group: str, inset: int = 0, *, is_bold: bool = False) -> list[_Text]:
        """A line and, set in, the parts that it is the sum of."""
        row = self.rows[(box, group)]
        lines = [_Text(row["label"], show_count(row["n"]), inset, is_bold)]
        parts = self.parts.get((box, group), [])
        if box.endswith(".died") and len(parts) == 1:
            parts = []  # the only reason that there is says nothing more
        for part in parts:
            if self.rows[(part, ALL)]["n"] or not part.endswith(_OPEN):
                lines += self.line(part, group, inset + 1)
        return lines

    def find_parts(self, box: str, group: str, rule: str) -> list[str]:
        return [part for part in self.parts.get((box, group), []) if self.rows[(part, group)]["rule"] == rule]


def _list_side(counts: _Counts, before: str, after: str) -> _Panel:
    """Who did not come from one step to the next."""
    side = _Panel()
    for box in counts.parts.get((before, ALL), []):
        row = counts.rows[(box, ALL)]
        if box != after and row["stage"] == "enrolment":
            side.texts += counts.line(box, ALL, is_bold=box.endswith(".out"))
    return side


def _list_panels(counts: _Counts, arm: str, label: str, study: Study) -> dict[str, _Panel]:
    """The panels of one arm by stage, from the top."""
    allocated = _Panel([_Text(label, "", 0, True), *counts.head("allocated", arm)])
    for rule in ("receipt", "baseline"):
        for box in counts.find_parts("allocated", arm, rule):
            allocated.texts += counts.line(box, arm)
    panels = {"allocation": allocated, "follow_up": _Panel()}
    both = counts.find_parts("allocated", arm, "treatment")
    for rule, words in (("treatment", "Treatment"), ("leaving", "Study" if both else "")):
        parts = counts.find_parts("allocated", arm, rule)
        if parts and words:
            panels["follow_up"].texts.append(_Text(words, "", 0, True))
        for box in parts:
            panels["follow_up"].texts += counts.line(box, arm)
    if find_main_analysis(study) is not None:
        panels["analysis"] = _Panel()
        for box in counts.find_parts("allocated", arm, "follow_up"):
            if box != "follow_up.followed_up" and (counts.rows[(box, ALL)]["n"] or not box.endswith(_OPEN)):
                panels["analysis"].texts += counts.line(box, arm, is_bold=box == "lost")
        followed = counts.rows[("follow_up.followed_up", arm)]
        panels["analysis"].texts.insert(0, _Text(followed["label"], show_count(followed["n"]), 0, True))
        panels["analysed"] = _Panel(counts.head("analysed", arm) + counts.line("not_analysed", arm))
    attendance = _Panel([_Text("Returned something at", "", 0, True)], is_apart=True)
    rows = [counts.rows[(f"wave.{wave.id}.returned", arm)] for wave in study.waves]
    if len(rows) > _MOST_WAVES:
        words = ", ".join(f"{row['label']} {show_count(row['n'])}".replace(" ", "\N{NO-BREAK SPACE}") for row in rows)
        attendance.texts.append(_Text(words, most=len(rows)))
    else:
        attendance.texts += [_Text(row["label"], show_count(row["n"])) for row in rows]
    attendance.texts.append(_Text("People miss a wave and come back: these do not add up."))
    panels["attendance"] = attendance
    return panels


# The figure ---------------------------------------------------------------------------------------------------------


class _Canvas(Canvas):
    def draw_panel(self, panel: _Panel, x: float, y: float, width: float, height: float) -> None:
        edge = 'stroke-dasharray="5 4" fill="#fff"' if panel.is_apart else 'fill="#fff"'
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" {edge} stroke="{EDGE}"/>'
        )  # fmt: skip
        at = y + _PAD + SIZE - 1
        for text, words, is_last in panel.wrap(width):
            weight = ' font-weight="bold"' if text.is_bold else ""
            left = x + _PAD + text.inset * 12
            self.parts.append(f'<text x="{left:g}" y="{at:g}"{weight}>{escape(words)}</text>')
            if text.count and is_last:
                right = x + width - _PAD
                self.parts.append(f'<text x="{right:g}" y="{at:g}" text-anchor="end"{weight}>{text.count}</text>')
            at += LINE

    def draw_line(self, *points: tuple[float, float], ends: bool = True) -> None:
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        arrow = f' marker-end="url(#{self.name}-arrow)"' if ends else ""
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{EDGE}"{arrow}/>')

    def draw_band(self, words: str, y: float, height: float) -> None:
        """The name of a stage, upright at the left edge."""
        self.parts.append(f'<rect x="0" y="{y:g}" width="{_BAND - 6}" height="{height:g}" fill="{TINT}"/>')
        middle, size = y + height / 2, min(SIZE, height / max(measure(words, 1), 1))
        self.parts.append(
            f'<text x="{_BAND - 12}" y="{middle:g}" font-size="{size:.3g}" fill="{SOFT}" text-anchor="middle" '
            f'transform="rotate(-90 {_BAND - 12} {middle:g})">{escape(words)}</text>'
        )

    def define_arrow(self) -> str:
        return (
            f'<defs><marker id="{self.name}-arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
            f'markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z" fill="{EDGE}" stroke="none"/></marker></defs>\n'
        )


def can_draw(boxes: pd.DataFrame) -> bool:
    """Whether the flow is a figure: of up to MOST_ARMS arms. More are a table alone."""
    return boxes["group"].nunique() - 1 <= MOST_ARMS


def draw_flow(boxes: pd.DataFrame, study: Study, *, is_narrow: bool = False) -> str:
    """The figure as SVG text. `boxes`: as from `derive_flow_boxes`. Raises ValueError where `can_draw` says no."""
    if not can_draw(boxes):
        raise ValueError(f"A figure is drawn for up to {MOST_ARMS} arms.")
    counts, arms = _Counts(boxes), list_arms(boxes, study)
    panels = {arm: _list_panels(counts, arm, label, study) for arm, label in arms.items()}
    title = f"Flow of participants: {study.title}"
    draw = _draw_narrow if is_narrow else _draw_wide
    canvas = _Canvas("flow-narrow" if is_narrow else "flow")
    width, height = draw(canvas, counts, panels, list_stages(study))
    return canvas.finish(width, height, title, describe_flow(boxes, study), canvas.define_arrow())


def list_arms(boxes: pd.DataFrame, study: Study) -> dict[str, str]:
    """The arms of the boxes, in their order, with labels."""
    labels = {arm.id: arm.label for arm in study.arms}
    return {str(arm): labels.get(str(arm), str(arm)) for arm in boxes["group"].unique() if arm != ALL}


def _draw_wide(
    canvas: _Canvas, counts: _Counts, panels: Mapping[str, Mapping[str, _Panel]], stages: Sequence[str]
) -> tuple[float, float]:
    n_arms = max(len(panels), 1)
    width = float(max(720, 250 * n_arms)) + _BAND
    left, room = float(_BAND), width - _BAND
    main_width, side_width = min(300.0, room * 0.4), min(440.0, room * 0.54)
    main_x, side_x = left + room * 0.03, left + room - side_width - 1
    main_middle, y = main_x + main_width / 2, 1.0
    for number, stage in enumerate(stages):
        head = _Panel(counts.head(stage, ALL))
        height = head.find_height(main_width)
        canvas.draw_panel(head, main_x, y, main_width, height)
        y += height
        if number + 1 < len(stages):
            side = _list_side(counts, stage, stages[number + 1])
            tall = side.find_height(side_width)
            canvas.draw_line((main_middle, y), (main_middle, y + tall + 2 * 10))
            canvas.draw_line((main_middle, y + 10 + tall / 2), (side_x, y + 10 + tall / 2))
            canvas.draw_panel(side, side_x, y + 10, side_width, tall)
            y += tall + 2 * 10
    canvas.draw_band(STAGE_WORDS["enrolment"], 1, y - 1)
    gutter = 12.0
    own = (room - gutter * (n_arms - 1) - 1) / n_arms
    middles = [left + number * (own + gutter) + own / 2 for number in range(n_arms)]
    canvas.draw_line((main_middle, y), (main_middle, y + _GAP / 2), ends=False)
    ends = sorted([main_middle, *middles])
    canvas.draw_line((ends[0], y + _GAP / 2), (ends[-1], y + _GAP / 2), ends=False)
    for x in middles:
        canvas.draw_line((x, y + _GAP / 2), (x, y + _GAP))
    y += _GAP
    rows = list(next(iter(panels.values()))) if panels else []
    starts: dict[str, tuple[float, float]] = {}
    for number, row in enumerate(rows):
        tall = max(of_arm[row].find_height(own) for of_arm in panels.values())
        for x, of_arm in zip(middles, panels.values(), strict=True):
            canvas.draw_panel(of_arm[row], x - own / 2, y, own, tall)
            if number + 1 < len(rows) and not of_arm[rows[number + 1]].is_apart:
                canvas.draw_line((x, y + tall), (x, y + tall + _GAP))
        stage = "analysis" if row == "analysed" else row
        starts[stage] = (starts.get(stage, (y, y))[0], y + tall)
        y += tall + _GAP
    for stage, (top, bottom) in starts.items():
        canvas.draw_band(STAGE_WORDS[stage], top, bottom - top)
    return width, y - _GAP + 1


def _draw_narrow(
    canvas: _Canvas, counts: _Counts, panels: Mapping[str, Mapping[str, _Panel]], stages: Sequence[str]
) -> tuple[float, float]:
    width, y = 340.0, 1.0
    own, inset = width - 2, 24.0
    for number, stage in enumerate(stages):
        head = _Panel(counts.head(stage, ALL))
        canvas.draw_panel(head, 1, y, own, head.find_height(own))
        y += head.find_height(own)
        if number + 1 < len(stages):
            side = _list_side(counts, stage, stages[number + 1])
            tall = side.find_height(own - inset)
            canvas.draw_line((inset / 2, y), (inset / 2, y + tall + 2 * 10))
            canvas.draw_line((inset / 2, y + 10 + tall / 2), (inset, y + 10 + tall / 2))
            canvas.draw_panel(side, inset, y + 10, own - inset + 1, tall)
            y += tall + 2 * 10
    for of_arm in panels.values():
        y += _GAP / 2
        for number, panel in enumerate(of_arm.values()):
            if number and not panel.is_apart:
                canvas.draw_line((width / 2, y), (width / 2, y + _GAP))
            y += _GAP / 2 if panel.is_apart else _GAP if number else 0
            canvas.draw_panel(panel, 1, y, own, panel.find_height(own))
            y += panel.find_height(own)
    return width, y + 1


# The same in words and as a table -----------------------------------------------------------------------------------


def describe_flow(boxes: pd.DataFrame, study: Study) -> str:
    """The main numbers in one or two sentences, for whoever does not see the figure."""
    counts, wording = _Counts(boxes), find_wording(study)
    n = {stage: show_count(counts.rows[(stage, ALL)]["n"]) for stage in list_stages(study)}
    steps = [f"{counts.rows[(stage, ALL)]['label'].lower()} {value}" for stage, value in n.items()]
    arms = []
    for arm, label in list_arms(boxes, study).items():
        words = f"{label}: {wording.into.lower()} {show_count(counts.rows[('allocated', arm)]['n'])}"
        if ("analysed", arm) in counts.rows:
            words += f", lost to follow-up {show_count(counts.rows[('lost', arm)]['n'])}"
            words += f", analysed {show_count(counts.rows[('analysed', arm)]['n'])}"
        arms.append(words)
    first = "; ".join(steps)
    return f"{first[:1].upper()}{first[1:]}. {'. '.join(arms)}. The table below holds every number."


def list_table(boxes: pd.DataFrame, study: Study) -> list[dict[str, Any]]:
    """The boxes as tables by stage, for a page: title, groups (headings) and rows (label, inset, counts; None where a
    box is not counted by arm). Attendance shows who returned something at each wave."""
    arms = list_arms(boxes, study)
    parents = dict(zip(boxes["box"], boxes["part_of"], strict=True))
    tables = []
    for stage, title in STAGE_WORDS.items():
        own = boxes[boxes["stage"] == stage]
        if stage == "attendance":
            own = own[own["box"].str.endswith(".returned")]
        if own.empty:
            continue
        groups = [ALL] if stage == "enrolment" else [*arms, ALL]
        counted = dict(zip(zip(own["box"], own["group"], strict=True), own["n"].tolist(), strict=True))
        rows = []
        for box, label in own.drop_duplicates("box")[["box", "label"]].itertuples(index=False, name=None):
            inset, above = 0, parents[box]
            while above in parents and above not in ("allocated", "follow_up.followed_up", *list_stages(study)):
                inset, above = inset + 1, parents[above]
            rows.append({"label": label, "inset": inset, "counts": [counted.get((box, group)) for group in groups]})
        tables.append({"title": title, "groups": [arms.get(group, "All") for group in groups], "rows": rows})
    return tables


def describe_for_page(people: pd.DataFrame, boxes: pd.DataFrame, study: Study) -> dict[str, Any]:
    """What a page shows of the flow: figure (a file of its own), wide and narrow (within the page; all three "" where
    there are too many arms), description, tables, notes, standard, most_arms and n_arms."""
    drawn = can_draw(boxes)
    figure = draw_flow(boxes, study) if drawn else ""
    return {
        "figure": figure,
        "wide": figure.replace(NAMESPACE, ""),
        "narrow": draw_flow(boxes, study, is_narrow=True).replace(NAMESPACE, "") if drawn else "",
        "description": describe_flow(boxes, study),
        "tables": list_table(boxes, study),
        "notes": find_flow_notes(people, study),
        "standard": find_wording(study).standard,
        "n_arms": boxes["group"].nunique() - 1,
        "most_arms": MOST_ARMS,
    }


def encode_flow_table(boxes: pd.DataFrame) -> bytes:
    """flow.csv: the boxes as they were counted, in UTF-8."""
    return boxes.to_csv(index=False, lineterminator="\n").encode()


def read_flow_table(data: bytes) -> pd.DataFrame:
    """The boxes of a flow.csv."""
    text = ["stage", "box", "part_of", "rule", "reason", "label", "group"]
    return pd.read_csv(io.BytesIO(data), dtype=dict.fromkeys(text, "str"), keep_default_na=False)


def write_flow_page(flow: Mapping[str, Any], study: Study, release: str, slice_name: str, as_of: date) -> bytes:
    """The flow as a page of its own, with a sheet of paper for the figure. `flow`: as from `describe_for_page`."""
    return render_page(
        "flow.html.jinja",
        title=f"Flow of participants: {study.title}",
        study=study,
        flow=flow,
        release=release,
        slice_name=slice_name,
        as_of=format_day(as_of),
    )
