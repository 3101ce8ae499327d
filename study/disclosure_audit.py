"""What a reader can compute of an external edition: bounds of every hidden count, from the published tables alone.

This shares nothing with `study/disclosure.py`, which decides what is hidden: it takes the tables as they are published,
finds by their own columns what adds up to what, and asks a linear programme how small and how large each hidden count
can be. The published (rounded) numbers are taken for exact. Of two or more editions it is told in addition which counts
have stayed, grown or shrunk from one to the next (`moves`), and which count the same people under two names (`same`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize
from scipy.sparse import coo_array, csc_array, csr_array
from scipy.sparse.csgraph import connected_components

linprog: Any = optimize.linprog  # its stubs know no sparse matrices
FINDING_COLUMNS = ("edition", "key", "low", "high")
_FAR = 4.0
"""Bounds are followed as far as so many thresholds; what can be farther is as good as anywhere."""
_DIRECTIONS = 60
_PARTS_OF_EXPECTED = ("returned", "awaited", "missing")


@dataclass(frozen=True)
class Published:
    """An edition's tables, as its files hold them; a hidden number is missing. `flow`: box, part_of, rule, reason,
    group, n. `returns`: wave, respondent, by, group, expected, returned, awaited, missing. `reasons`: wave, respondent,
    by, group, reason, n."""

    flow: pd.DataFrame
    returns: pd.DataFrame
    reasons: pd.DataFrame


@dataclass
class Sums:
    """Numbers by key (NaN where hidden), sums (whole, parts) over them, and the least that each can be."""

    values: dict[str, float] = field(default_factory=dict)
    sums: list[tuple[str, list[str]]] = field(default_factory=list)


def read_sums(published: Published) -> Sums:
    """What the published tables say: every number, and every sum that their columns tell of."""
    found = Sums()
    _read_flow(published.flow, found)
    _read_returns(published, found)
    return found


def _number(value: Any) -> float:
    return float("nan") if pd.isna(value) else float(value)


def _read_flow(flow: pd.DataFrame, found: Sums) -> None:
    groups: dict[str, list[str]] = {}
    parts: dict[tuple[str, str, str, str], list[str]] = {}
    for row in flow.to_dict("records"):
        key = f"flow|{row['box']}|{row['group']}"
        found.values[key] = _number(row["n"])
        if row["part_of"]:
            of_wave = row["reason"] if row["rule"] == "attendance" else ""
            parts.setdefault((row["part_of"], row["group"], row["rule"], of_wave), []).append(key)
        if row["group"] != "all":
            groups.setdefault(row["box"], []).append(key)
    found.sums += [(f"flow|{whole}|{group}", own) for (whole, group, _, _), own in parts.items()]
    found.sums += [(f"flow|{box}|all", own) for box, own in groups.items()]
    found.sums.append(("flow|entered|all", ["flow|allocated|all"]))


def _read_returns(published: Published, found: Sums) -> None:
    of_all: dict[tuple[str, str], list[str]] = {}
    for row in published.returns.to_dict("records"):
        place = f"returns|{row['wave']}|{row['respondent']}|{row['by']}|{row['group']}"
        top = f"returns|{row['wave']}|{row['respondent']}|all|all"
        for name in ("expected", *_PARTS_OF_EXPECTED):
            found.values[f"{place}|{name}"] = _number(row[name])
            if row["by"] != "all":
                of_all.setdefault((f"{top}|{name}", row["by"]), []).append(f"{place}|{name}")
        found.sums.append((f"{place}|expected", [f"{place}|{name}" for name in _PARTS_OF_EXPECTED]))
    of_missing: dict[str, list[str]] = {}
    for row in published.reasons.to_dict("records"):
        place = f"returns|{row['wave']}|{row['respondent']}|{row['by']}|{row['group']}|missing"
        top = f"returns|{row['wave']}|{row['respondent']}|all|all|missing.{row['reason']}"
        found.values[f"{place}.{row['reason']}"] = _number(row["n"])
        of_missing.setdefault(place, []).append(f"{place}.{row['reason']}")
        if row["by"] != "all":
            of_all.setdefault((top, row["by"]), []).append(f"{place}.{row['reason']}")
    found.sums += list(of_missing.items())
    found.sums += [(whole, own) for (whole, _), own in of_all.items()]


def find_told(
    editions: Sequence[Sums],
    width: float,
    same: Sequence[Iterable[tuple[str, Sequence[str]]]] = (),
    moves: Sequence[Mapping[str, str]] = (),
) -> pd.DataFrame:
    """Hidden counts whose bounds are narrower than `width`: FINDING_COLUMNS, none where the editions are safe.

    `editions`: in the order in which they went out. `same`: of each edition, keys with those that count the
    same people together.
    `moves`: from each edition to the next, "same", "grew" or "shrank" by key; a key that is missing there is not known
    to have done either. Raises ValueError where the published numbers contradict each other.
    """
    names = [(number, key) for number, sums in enumerate(editions) for key in sums.values]
    place = {name: number for number, name in enumerate(names)}
    values = np.array([editions[number].values[key] for number, key in names])
    equal: list[dict[int, float]] = []
    below: list[tuple[dict[int, float], float]] = []
    for number, sums in enumerate(editions):
        of_same = same[number] if number < len(same) else ()
        for whole, parts in (*sums.sums, *of_same):
            row = {place[(number, whole)]: 1.0}
            for part in parts:
                row[place[(number, part)]] = row.get(place[(number, part)], 0.0) - 1.0
            equal.append(row)
    for number, told in enumerate(moves):
        for key, move in told.items():
            before, after = place.get((number, key)), place.get((number + 1, key))
            if before is None or after is None:
                continue
            # Rounding may have moved what is shown the other way: the reader sees that, and allows for it.
            seen = values[after] - values[before]
            if move in ("same", "grew"):
                below.append(({before: 1.0, after: -1.0}, max(0.0, -np.nan_to_num(seen))))
            if move in ("same", "shrank"):
                below.append(({after: 1.0, before: -1.0}, max(0.0, np.nan_to_num(seen))))
    bounds = _Bounds(values, equal, below)
    rows = [(*names[number], low, high) for number, low, high in bounds.find_narrow(width)]
    return pd.DataFrame(rows, columns=list(FINDING_COLUMNS))


class _Bounds:
    """How small and how large each unknown can be, in the sets of unknowns that hang together."""

    def __init__(
        self, values: npt.NDArray[np.float64], equal: Sequence[Mapping[int, float]],
        below: Sequence[tuple[Mapping[int, float], float]],
    ) -> None:  # fmt: skip
        self.unknown = np.flatnonzero(np.isnan(values))
        self.known = np.nan_to_num(values)
        self.equal, self.of_equal = self._put([(row, 0.0) for row in equal], len(values), is_equal=True)
        self.below, self.of_below = self._put(below, len(values), is_equal=False)

    def _put(
        self, rows: Sequence[tuple[Mapping[int, float], float]], n: int, *, is_equal: bool
    ) -> tuple[csc_array, npt.NDArray[np.float64]]:
        """The rows over the unknowns, what is known of them taken to the right."""
        at = [(number, column, factor) for number, (row, _) in enumerate(rows) for column, factor in row.items()]
        row, column, factor = (np.array(part) for part in zip(*at, strict=True)) if at else (np.zeros(0, int),) * 3
        matrix = csr_array(coo_array((factor.astype(float), (row, column)), shape=(len(rows), n)))
        right = np.array([limit for _, limit in rows]) - matrix @ self.known
        own = csr_array(matrix[:, self.unknown])
        is_empty = np.diff(own.indptr) == 0
        wrong = np.abs(right) > 0.5 if is_equal else right < -0.5
        if (wrong & is_empty).any():
            raise ValueError(f"{int((wrong & is_empty).sum())} published sums do not add up.")
        return csc_array(own[~is_empty]), right[~is_empty]

    def find_narrow(self, width: float) -> list[tuple[int, float, float]]:
        n_rows = self.equal.shape[0] + self.below.shape[0]
        size = n_rows + len(self.unknown)
        first, second = coo_array(self.equal), coo_array(self.below)
        edges = np.r_[first.row, second.row + self.equal.shape[0]], np.r_[first.col, second.col] + n_rows
        graph = coo_array((np.ones(len(edges[0])), edges), shape=(size, size))
        label = connected_components(graph, directed=False)[1][n_rows:]
        found = []
        for number in np.unique(label):
            own = np.flatnonzero(label == number)
            low, high = self._bound(own, width)
            for at in np.flatnonzero(high - low < width - 1e-6):
                found.append((int(self.unknown[own[at]]), round(float(low[at]), 6), round(float(high[at]), 6)))
        return found

    def _bound(self, own: npt.NDArray[np.int64], width: float) -> tuple[Any, Any]:
        """The least and the most of each unknown of a set, as far as it takes to call it wide."""
        problem: dict[str, Any] = {}
        for matrix, right, names in (
            (self.equal, self.of_equal, ("A_eq", "b_eq")), (self.below, self.of_below, ("A_ub", "b_ub"))
        ):  # fmt: skip
            part = csr_array(matrix[:, own])
            rows = np.flatnonzero(np.diff(part.indptr))
            if len(rows):
                problem |= {names[0]: part[rows], names[1]: right[rows]}

        def solve(aim: npt.NDArray[np.float64], most: Any) -> npt.NDArray[np.float64] | None:
            limits = np.column_stack([np.zeros(len(own)), np.full(len(own), np.inf) if most is None else most])
            found = linprog(aim, bounds=limits, method="highs", **problem)
            if found.status == 3:
                return None
            if found.x is None:
                raise ValueError("The published numbers contradict each other.")
            return np.asarray(found.x)

        first = solve(np.ones(len(own)), None)
        if first is None:
            raise ValueError("The published numbers contradict each other.")
        far = first + _FAR * width
        low, high = first.copy(), first.copy()
        # Extreme tables in many directions settle most counts at once; the others are looked at one by one.
        direction = np.random.default_rng(0)
        for _ in range(_DIRECTIONS if len(own) > _DIRECTIONS else 0):
            aim = direction.normal(size=len(own)) * (high - low < width)
            seen = solve(aim, far)
            assert seen is not None  # within `far` there is always a least
            low, high = np.minimum(low, seen), np.maximum(high, seen)
        for at in range(len(own)):
            for way in (-1.0, 1.0):
                if high[at] - low[at] >= width:
                    break
                aim = np.zeros(len(own))
                aim[at] = way
                seen = solve(aim, far)
                assert seen is not None  # within `far` there is always a least and a most
                low, high = np.minimum(low, seen), np.maximum(high, seen)
        return low, high
