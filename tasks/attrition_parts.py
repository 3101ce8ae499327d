"""What the report on attrition is made of: sections of words, figures and tables, and how its numbers are written.

The page and the paper are two ways to set the same sections. Words and cells are HTML of b, i and a.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from tasks.attrition_plots import NARROW, WIDE
from tasks.drawing import NAMESPACE

NBSP = "\N{NO-BREAK SPACE}"
_MOST_UNFOLDED = 24  # rows of a table that the page shows unfolded


@dataclass(frozen=True)
class Words:
    """Paragraphs. `kind`: "p", "lead" or "note"."""

    paragraphs: list[str]
    kind: str = "p"


@dataclass(frozen=True)
class Bullets:
    lines: list[str]


@dataclass(frozen=True)
class Tiles:
    """Large numbers, each with its words."""

    tiles: list[tuple[str, str]]


@dataclass(frozen=True)
class Heading:
    words: str


@dataclass(frozen=True)
class Plot:
    """A figure for a screen and paper, and one for a telephone."""

    wide: str
    narrow: str
    is_flow: bool = False


@dataclass(frozen=True)
class Grid:
    """A table. `numbers`: places of columns set to the right; `groups`: rows that head the next."""

    caption: str
    head: list[str]
    rows: list[list[str]]
    numbers: frozenset[int]
    groups: frozenset[int] = frozenset()

    @property
    def is_folded(self) -> bool:
        return len(self.rows) > _MOST_UNFOLDED


@dataclass
class Section:
    """`gaps`: what it cannot give, as (what it is, why)."""

    id: str
    short: str
    title: str
    blocks: list[Any] = field(default_factory=list)
    gaps: list[tuple[str, str]] = field(default_factory=list)

    def add(self, *blocks: Any) -> None:
        self.blocks += blocks

    def add_note(self, words: str) -> None:
        self.blocks.append(Words([words], "note"))


class Rows:
    """The rows of a table in the making, under headings where there are some."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []
        self._groups: set[int] = set()
        self._group: Any = None

    def open_group(self, group: Any, words: str) -> None:
        """A heading above the next rows, unless they stand under this one already."""
        if not self._groups or group != self._group:
            self._groups.add(len(self.rows))
            self.rows.append([words])
            self._group = group

    def add(self, *cells: str) -> None:
        self.rows.append(list(cells))

    def finish(self, caption: str, head: list[str], texts: Iterable[int] = ()) -> Grid:
        """The table: every column after the first holds numbers, except those of `texts`."""
        numbers = frozenset(range(1, len(head))) - set(texts)
        return Grid(caption, head, self.rows, numbers, frozenset(self._groups))


def draw_both(draw: Callable[[str, float], str]) -> Plot:
    """A figure at both widths. `draw`: gives it by the end of its name and its width."""
    return Plot(draw("wide", WIDE), draw("narrow", NARROW).replace(NAMESPACE, ""))


# Numbers ------------------------------------------------------------------------------------------------------------


def format_percent(value: Any, none: str = "–", decimals: int = 1) -> str:
    return none if pd.isna(value) else f"{value:.{decimals}f}{NBSP}%"


def format_share(n: int, of: int) -> str:
    return format_percent(100 * n / of if of else None)


def format_decimal(value: Any, decimals: int, *, sign: bool = False) -> str:
    if pd.isna(value):
        return "–"
    return f"{value + 0.0:{'+' if sign else ''},.{decimals}f}"


def format_interval(low: Any, high: Any, decimals: int, unit: str = "") -> str:
    """ "12.1 to 28.7 %"; "" where there is none."""
    if pd.isna(low) or pd.isna(high):
        return ""
    ends = [f"{value:,.{decimals}f}" if value < 1e6 else "above a million" for value in (low, high)]
    return f"{ends[0]} to {ends[1]}{f'{NBSP}{unit}' if unit else ''}"


def format_p(value: Any) -> str:
    if pd.isna(value):
        return "–"
    return "&lt;0.001" if value < 0.001 else f"{value:.3f}"
