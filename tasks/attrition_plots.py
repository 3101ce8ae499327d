"""The plots of attrition: returns by wave, time to loss, the boundary of differential attrition, who is lost.

Each is drawn for a width in pixels, so that there is one for a screen and paper and one for a telephone. What colour
tells is told by dashes and words as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from study.attrition_models import LARGE_DIFFERENCE, SMALL_DIFFERENCE, Boundary
from tasks.drawing import EDGE, INK, LINE, PAPER, RULE, SOFT, TINT, Canvas, measure, shorten

WIDE, NARROW = 760.0, 340.0
MOST_LINES = 6
"""Arms of one plot: more cannot be told apart."""
MOST_DIFFERENCES = 40
"""Lines of one love plot: more do not go on a sheet of paper."""
COLOURS = ("#0b5c7d", "#a8470f", "#3d6f1c", "#7a3f8f", "#7d5a00", "#3f4a56")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 2 1 2")
_GOOD, _MIDDLE = "#dcebdc", "#fbeecb"
_AXIS = 10.5  # font size of ticks


@dataclass(frozen=True)
class Axes:
    """Where a plot lies on a canvas, and which values its edges stand for."""

    canvas: Canvas
    left: float
    top: float
    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        (x_0, x_1), (y_0, y_1) = self.x_range, self.y_range
        return (
            self.left + (x - x_0) / (x_1 - x_0) * self.width,
            self.top + self.height - (y - y_0) / (y_1 - y_0) * self.height,
        )

    def draw_frame(self, x_ticks: Sequence[float], y_ticks: Sequence[float], x_words: str, y_words: str) -> None:
        for tick in y_ticks:
            x, y = self.place(self.x_range[0], tick)
            self.canvas.add_line([(x, y), (x + self.width, y)], RULE)
            self.canvas.add_text(x - 6, y + 4, f"{tick:g}", anchor="end", fill=SOFT, size=_AXIS)
        for tick in x_ticks:
            x, y = self.place(tick, self.y_range[0])
            self.canvas.add_line([(x, y), (x, y + 4)], SOFT)
            self.canvas.add_text(x, y + 16, f"{tick:g}", anchor="middle", fill=SOFT, size=_AXIS)
        bottom = self.top + self.height
        self.canvas.add_line([(self.left, bottom), (self.left + self.width, bottom)], INK)
        if x_words:
            self.canvas.add_text(
                self.left + self.width / 2, bottom + 32, x_words, anchor="middle", fill=SOFT, size=_AXIS
            )
        self.canvas.add_text(max(self.left - 28, 2), self.top - 8, y_words, fill=SOFT, size=_AXIS)


def find_ticks(most: float, n: int = 5) -> list[float]:
    """Round steps from 0 to at least `most`, about `n` of them."""
    least = max(most, 1e-9) / n
    power = 10.0 ** np.floor(np.log10(least))
    step = next(round(float(power * part), 10) for part in (1, 2, 2.5, 5, 10) if power * part >= least * (1 - 1e-9))
    return [round(place * step, 10) for place in range(int(np.ceil(most / step - 1e-9)) + 1)]


def _draw_key(canvas: Canvas, labels: Sequence[str], left: float, top: float, room: float) -> float:
    """A line and a word for each arm, as many beside each other as there is room; gives where the key ends."""
    x, y = left, top
    for at, label in enumerate(labels):
        words = shorten(label, 40 if room > 400 else 30)
        width = 34 + measure(words) + 18
        if x > left and x + width > left + room:
            x, y = left, y + LINE + 2
        canvas.add_line([(x, y), (x + 26, y)], COLOURS[at], 2.4, DASHES[at])
        canvas.add_text(x + 32, y + 4, words)
        x += width
    return y + LINE


def draw_returns(
    name: str, table: pd.DataFrame, waves: Mapping[str, str], arms: Mapping[str, str], width: float
) -> str:
    """The share of expected returns that are in, by wave and arm, with intervals. `table`: a return table by wave and
    arm, of which waves without any expected are left out."""
    table = table[(table["n_expected"] > 0) & table["arm"].isin(list(arms))]
    shown = [wave for wave in waves if wave in set(table["wave"])]
    canvas = Canvas(name)
    left, top = 40.0, 24.0 + _draw_key(canvas, list(arms.values()), 40, 10, width - 48)
    each = (width - left - 14) / max(len(shown), 1)
    is_level = all(measure(shorten(waves[wave], 30), _AXIS) < each - 6 for wave in shown)
    slant = 26.0 if is_level else 92.0
    axes = Axes(canvas, left, top, width - left - 14, 200, (-0.5, max(len(shown), 1) - 0.5), (0, 100))
    axes.draw_frame([], [0, 20, 40, 60, 80, 100], "", "per cent of expected returns that are in")
    spread = min(0.16, 0.7 / max(len(arms), 1))
    for at, arm in enumerate(arms):
        own = {str(row["wave"]): row for row in table[table["arm"] == arm].to_dict("records")}
        centre = []
        for place, wave in enumerate(shown):
            if wave not in own:
                continue
            row = own[wave]
            x = place + (at - (len(arms) - 1) / 2) * spread
            centre.append(axes.place(x, float(row["rate_pct"])))
            ends = [axes.place(x, float(row[f"rate_{end}_pct"])) for end in ("low", "high")]
            canvas.add_line(ends, COLOURS[at], 1.4)
        if len(centre) > 1:
            canvas.add_line(centre, COLOURS[at], 1, DASHES[at])
        for x, y in centre:
            canvas.add_dot(x, y, 3.4, COLOURS[at])
    every = max(1, int(np.ceil(len(shown) * 15 / (width - left - 14))))
    for place, wave in enumerate(shown):
        if place % every == 0:
            x, y = axes.place(place, 0)
            if is_level:
                canvas.add_text(x, y + 18, shorten(waves[wave], 30), anchor="middle", size=_AXIS, fill=SOFT)
            else:
                canvas.add_text(x + 4, y + 14, shorten(waves[wave], 18), anchor="end", size=_AXIS, fill=SOFT, turn=-40)
    names = ", ".join(shorten(label, 40) for label in arms.values())
    words = (
        f"Returns by wave, with 95 % intervals, for {names}. The table of returns by wave and arm has the same figures."
    )
    return canvas.finish(width, top + 200 + slant, "Returns by wave and arm", words)


def draw_time_to_loss(
    name: str, curves: pd.DataFrame, people: pd.DataFrame, arms: Mapping[str, str],
    causes: Mapping[str, str], width: float,
) -> str:  # fmt: skip
    """Cumulative incidence of each of `causes` by arm, one panel below another, with the numbers at risk below.
    `people`: how long each was in."""
    last_days = people.groupby("arm")["days"].max().to_dict()
    canvas, is_narrow = Canvas(name), width < 500
    left = 44.0
    y = 26.0 + _draw_key(canvas, list(arms.values()), left, 10, width - left - 8)
    last = max([*(int(day) for day in last_days.values()), 1])
    ticks = [tick for tick in find_ticks(last, 4 if is_narrow else 7) if tick <= last]
    for number, (cause, label) in enumerate(causes.items()):
        own = curves[(curves["cause"] == cause) & curves["arm"].isin(list(arms))]
        highest = float(np.nanmax([*own["high_pct"].fillna(own["incidence_pct"]), 1.0]))
        y_ticks = [tick for tick in find_ticks(min(highest, 100), 4) if tick <= 100]
        height = 190.0 if number == 0 else 90.0
        is_last = number == len(causes) - 1
        axes = Axes(canvas, left, y, width - left - 14, height, (0, last), (0, max(y_ticks[-1], highest)))
        axes.draw_frame(
            ticks if is_last else [], y_ticks, "days since the start" if is_last else "", f"{label}, per cent"
        )
        for at, arm in enumerate(arms):
            curve = own[own["arm"] == arm]
            if curve.empty:
                continue
            _draw_steps(axes, curve, float(last_days.get(arm, 0)), at)
        y += height + (46 if is_last else 34)
    canvas.add_text(4, y + 2, "Still in at the beginning of day", size=_AXIS, is_bold=True)
    scale = Axes(canvas, left, y, width - left - 14, 1, (0, last), (0, 1))
    y += LINE + 2
    for day in ticks:
        canvas.add_text(scale.place(day, 0)[0], y, f"{day:g}", anchor="middle", size=_AXIS, fill=SOFT)
    for at, (arm, label) in enumerate(arms.items()):
        y += LINE
        words = shorten(label, 46 if not is_narrow else 34)
        canvas.add_text(4, y, words, size=_AXIS, fill=COLOURS[at])
        y += LINE - 2
        days = people.loc[people["arm"] == arm, "days"].to_numpy()
        for day in ticks:
            n = int((days >= day).sum())
            canvas.add_text(scale.place(day, 0)[0], y, f"{n:,}", anchor="middle", size=_AXIS)
    words = (
        f"Steps: the share of people who had left by each day, by arm, with 95 % bands: {', '.join(causes.values())}. "
        "Below, how many were still in. The table has the same figures."
    )
    return canvas.finish(width, y + 10, "Time to loss by arm", words)


def _draw_steps(axes: Axes, curve: pd.DataFrame, last: float, at: int) -> None:
    days = [*curve["day"].astype(float), last]
    values = curve["incidence_pct"].astype(float).tolist()
    low = curve["low_pct"].fillna(curve["incidence_pct"]).astype(float).tolist()
    high = curve["high_pct"].fillna(curve["incidence_pct"]).astype(float).tolist()

    def step(heights: Sequence[float]) -> list[tuple[float, float]]:
        return [axes.place(days[n + side], value) for n, value in enumerate(heights) for side in (0, 1)]

    axes.canvas.add_area([*step(high), *reversed(step(low))], COLOURS[at], 0.12)
    axes.canvas.add_line(step(values), COLOURS[at], 2.2, DASHES[at])


def draw_boundary(
    name: str, differential: pd.DataFrame, arms: Mapping[str, str], boundary: Boundary, width: float
) -> str:
    """Where attrition lies by overall and differential attrition: below both limits, between them, above. Of
    `differential` what counts everybody allocated."""
    canvas = Canvas(name)
    told = differential[(differential["of"] == "allocated") & (differential["assumption"] == "cautious")]
    told = told[told["gap"].eq("") | told["differential_pct"].notna()]
    limits = [np.where(limit < 0, 0, limit) / 10 for limit in boundary]
    ends = [int(np.flatnonzero(limit >= 0)[-1]) for limit in boundary]
    right = float(max([*ends, *told["overall_pct"].dropna()]) + 3)
    highest = max(float(max(limits[1])), *[float(value) for value in told["differential_pct"].dropna()], 1.0) * 1.1
    x_ticks, y_ticks = find_ticks(right, 4 if width < 500 else 7), find_ticks(highest, 5)
    left, top, height = 40.0, 28.0, 250.0
    axes = Axes(canvas, left, top, width - left - 16, height, (0, right), (0, highest))
    for limit, end, fill in ((limits[1], ends[1], _MIDDLE), (limits[0], ends[0], _GOOD)):
        edge = [axes.place(overall, float(limit[overall])) for overall in range(end + 1)]
        canvas.add_area([axes.place(0, 0), *edge, axes.place(end, 0)], fill)
        canvas.add_line(edge, SOFT, 1, "" if fill == _GOOD else "5 3")
    axes.draw_frame(
        [tick for tick in x_ticks if tick <= right], [tick for tick in y_ticks if tick <= highest],
        "overall attrition, per cent", "difference between the arms, points",
    )  # fmt: skip
    canvas.add_text(*axes.place(1.5, max(float(limits[0][0]) * 0.35, 0.3)), "low by both limits", size=_AXIS, fill=INK)
    canvas.add_text(axes.left + axes.width, top + 12, "high", anchor="end", size=_AXIS, fill=INK)
    for number, row in enumerate(told.to_dict("records"), start=1):
        x, y = axes.place(float(row["overall_pct"]), float(row["differential_pct"]))
        canvas.add_dot(x, y, 5, EDGE, PAPER)
        canvas.add_text(x + 8 if x < axes.left + axes.width - 20 else x - 8, y - 6, str(number), is_bold=True,
                        anchor="start" if x < axes.left + axes.width - 20 else "end")  # fmt: skip
    y = top + height + 54
    canvas.add_line([(left, y - 4), (left + 24, y - 4)], SOFT)
    canvas.add_text(left + 30, y, "cautious limit", size=_AXIS)
    canvas.add_line([(left + 130, y - 4), (left + 154, y - 4)], SOFT, 1, "5 3")
    canvas.add_text(left + 160, y, "optimistic limit", size=_AXIS)
    lines = []
    for number, row in enumerate(told.to_dict("records"), start=1):
        y += LINE
        names = [shorten(arms.get(str(row[side]), str(row[side])), 40) for side in ("intervention", "comparison")]
        words = f"{number}  {names[0]} against {names[1]}"
        lines.append(f"{words}: {row['overall_pct']:.0f} % overall, {row['differential_pct']:.1f} points apart")
        canvas.add_text(left, y, shorten(words, 100 if width > 500 else 44), size=_AXIS)
    words = f"{'; '.join(lines) or 'No pair of arms has a point'}. The table below has the same figures."
    return canvas.finish(width, y + 12, "Overall and differential attrition by the boundary", words)


def draw_love(name: str, labels: Sequence[str], differences: Sequence[float], who: str, width: float) -> str:
    """Standardised mean differences, the largest first, with the limits of 0.05 and 0.25. `who`: what is compared."""
    canvas, n = Canvas(name), len(labels)
    is_narrow = width < 500
    label_width = 130.0 if is_narrow else 300.0
    highest = max([LARGE_DIFFERENCE * 1.3, *(abs(value) for value in differences)])
    step = find_ticks(highest, 2 if is_narrow else 3)[1]
    reach = float(np.ceil(highest / step - 1e-9) * step)
    ticks = [round(place * step, 10) for place in range(-round(reach / step), round(reach / step) + 1)]
    top, height = 26.0, 20.0 * n + 8
    axes = Axes(canvas, label_width, top, width - label_width - 20, height, (-reach, reach), (0, 1))
    for limit, fill in ((LARGE_DIFFERENCE, TINT), (SMALL_DIFFERENCE, _GOOD)):
        (x_0, y_1), (x_1, y_0) = axes.place(-limit, 1), axes.place(limit, 0)
        canvas.add_box(x_0, y_1, x_1 - x_0, y_0 - y_1, fill)
    zero = axes.place(0, 0)[0]
    canvas.add_line([(zero, top), (zero, top + height)], SOFT)
    for limit in (-LARGE_DIFFERENCE, LARGE_DIFFERENCE):
        x = axes.place(limit, 0)[0]
        canvas.add_line([(x, top), (x, top + height)], SOFT, 1, "4 3")
    for tick in ticks:
        x, y = axes.place(tick, 0)
        canvas.add_line([(x, y), (x, y + 4)], SOFT)
        canvas.add_text(x, y + 16, f"{tick:g}", anchor="middle", fill=SOFT, size=_AXIS)
    canvas.add_line([(axes.left, top + height), (axes.left + axes.width, top + height)], INK)
    for place, (label, value) in enumerate(zip(labels, differences, strict=True)):
        y = top + 4 + 20 * place + 10
        x = axes.place(value, 0)[0]
        room = label_width - 8
        words = label
        kept = len(label)
        while measure(words, _AXIS) > room and kept > 2:  # its end tells it from others
            kept -= 1
            words = f"{label[: kept - kept // 2].rstrip()}…{label[len(label) - kept // 2 :].lstrip()}"
        canvas.add_text(label_width - 8, y + 4, words, anchor="end", size=_AXIS)
        canvas.add_line([(zero, y), (x, y)], EDGE)
        canvas.add_dot(x, y, 4.2, EDGE if abs(value) > SMALL_DIFFERENCE else PAPER, EDGE, 1.4)
    canvas.add_text(
        axes.left + axes.width / 2, top + height + 32, "standard deviations", anchor="middle", fill=SOFT, size=_AXIS
    )
    canvas.add_text(4 if is_narrow else label_width, 14, who, size=_AXIS, fill=SOFT)
    words = f"{who}: standardised differences of {n} characteristics. The table below has the same figures."
    return canvas.finish(width, top + height + 40, "Standardised differences", words)
