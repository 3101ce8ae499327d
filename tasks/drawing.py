"""Figures laid out in code: SVG whose text stays text, with the same bytes for the same figure.

A figure is made of few elements (rect, line, polyline, polygon, circle, text), all with colours of their own, so that a
page can change them in the dark and `tasks.pdf` can draw them on paper.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from xml.sax.saxutils import escape

NAMESPACE = ' xmlns="http://www.w3.org/2000/svg"'
"""What a file needs and a page does without."""
SIZE, LINE = 12, 16
INK, SOFT, EDGE, TINT, RULE, PAPER = "#1d2733", "#52606f", "#0b5c7d", "#f3f6f9", "#d5dbe2", "#ffffff"

_NARROW_LETTERS, _WIDE_LETTERS = "fijlrtI.,:;'|!()[] -", "mwMW@%"


def measure(words: str, size: float = SIZE) -> float:
    """About how wide words are in a common sans-serif font; rather too wide than too narrow."""
    width = 0.0
    for letter in words:
        if unicodedata.combining(letter):
            continue
        if unicodedata.east_asian_width(letter) in "WF" or letter in _WIDE_LETTERS:
            width += 1.0
        elif letter in _NARROW_LETTERS:
            width += 0.38
        else:
            width += 0.7 if letter.isupper() else 0.6
    return width * size


def wrap_words(words: str, room: float, most: int = 4) -> list[str]:
    """Words in lines of at most this width; what is too long for a line is cut; more than `most` end in "…"."""
    lines, line = [], ""
    for word in words.split(" "):
        rest = word
        while rest:
            joined = f"{line} {rest}" if line else rest
            if measure(joined) <= room:
                line, rest = joined, ""
            elif line:
                lines.append(line)
                line = ""
            else:
                fitting = next((n for n in range(len(rest), 1, -1) if measure(rest[:n]) <= room), 1)
                lines.append(rest[:fitting])
                rest = rest[fitting:]
    lines += [line] if line else []
    if len(lines) > most:
        last = lines[most - 1]
        while last and measure(f"{last}…") > room:
            last = last[:-1]
        lines = [*lines[: most - 1], f"{last}…"]
    return lines or [""]


def shorten(label: str, longest: int) -> str:
    """A label of at most so many characters, "…" in the place of what is cut."""
    return label if len(label) <= longest else f"{label[: longest - 1].rstrip()}…"


class Canvas:
    """A figure in the making, in pixels from the upper left corner. `name`: what its ids begin with, so that several
    may stand in one page."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.parts: list[str] = []

    def add_box(
        self, x: float, y: float, width: float, height: float, fill: str, stroke: str = "none", opacity: float = 1
    ) -> None:
        faint = f' fill-opacity="{opacity:g}"' if opacity < 1 else ""
        self.parts.append(
            f'<rect x="{_at(x)}" y="{_at(y)}" width="{_at(width)}" height="{_at(height)}" fill="{fill}"{faint} '
            f'stroke="{stroke}"/>'
        )

    def add_line(
        self, points: Sequence[tuple[float, float]], stroke: str = INK, width: float = 1, dash: str = ""
    ) -> None:
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<polyline points="{_list(points)}" fill="none" stroke="{stroke}" stroke-width="{width:g}"{dashed}/>'
        )

    def add_area(self, points: Sequence[tuple[float, float]], fill: str, opacity: float = 1) -> None:
        self.parts.append(f'<polygon points="{_list(points)}" fill="{fill}" fill-opacity="{opacity:g}"/>')

    def add_dot(self, x: float, y: float, radius: float, fill: str, stroke: str = "none", width: float = 1) -> None:
        self.parts.append(
            f'<circle cx="{_at(x)}" cy="{_at(y)}" r="{radius:g}" fill="{fill}" stroke="{stroke}" '
            f'stroke-width="{width:g}"/>'
        )

    def add_text(
        self, x: float, y: float, words: str, *, anchor: str = "start", fill: str = INK, size: float = SIZE,
        is_bold: bool = False, turn: float = 0,
    ) -> None:  # fmt: skip
        """Words whose baseline begins, ends or has its middle (`anchor`) there; `turn`: degrees, clockwise."""
        weight = ' font-weight="bold"' if is_bold else ""
        turned = f' transform="rotate({turn:g} {_at(x)} {_at(y)})"' if turn else ""
        self.parts.append(
            f'<text x="{_at(x)}" y="{_at(y)}" font-size="{size:g}" fill="{fill}" text-anchor="{anchor}"{weight}'
            f"{turned}>{escape(words)}</text>"
        )

    def finish(self, width: float, height: float, title: str, description: str, definitions: str = "") -> str:
        """The figure as SVG, with a title and a description for who does not see it."""
        name = self.name
        return (
            f'<svg{NAMESPACE} viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
            f'height="{height:g}" role="img" aria-labelledby="{name}-title {name}-words" '
            f'font-family="Arial, Helvetica, sans-serif" font-size="{SIZE}" fill="{INK}">\n'
            f'<title id="{name}-title">{escape(title)}</title>\n<desc id="{name}-words">{escape(description)}</desc>\n'
            + definitions
            + "\n".join(self.parts)
            + "\n</svg>\n"
        )


def _at(place: float) -> str:
    """To a tenth of a pixel, so that no figure hangs on how a machine rounds."""
    return f"{round(place, 1) + 0.0:g}" if abs(place) < 1e5 else f"{place:.0f}"


def _list(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_at(x)},{_at(y)}" for x, y in points)
