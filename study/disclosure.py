"""Disclosure control: counts that leave the team, so small that they could tell of single people, are not shown.

`protect_counts` takes every count of an edition at once, tables that share cells included, in three steps:

1. Rounding. Each count becomes a multiple of the base beside it, chosen together (controlled rounding), so that every
   total is the sum of its rounded parts in each table in which it stands.
2. Primary suppression. Counts from 1 to below the threshold are hidden, and zeros that tell something of everybody:
   where all people of a small group fall on one part of a line, and that part is no harmless one.
3. Secondary suppression. A reader who takes the rounded counts for exact, knows how they add up, and for each count of
   an earlier edition whether it has grown, shrunk or stayed, can bound what is hidden by linear programming. While such
   bounds are narrower than the threshold, further counts are hidden: those that a linear programme finds must move to
   make room, at least cost.

To take rounded counts for exact gives the reader more than they have: each true count may lie anywhere beside its
rounded one. So a hidden count is at least as safe as these bounds say. Zeros of groups in which nobody is are never
hidden: everybody knows them. `study/disclosure_audit.py` checks the result from what is published.

Sources: Hundepool and others (2012), Statistical Disclosure Control, chapter 4 (protection intervals, linked tables,
singletons, controlled rounding); Fischetti and Salazar (2001), Management Science 47:1008 (attacker problems; costs by
linear programming); Cox (1987), JASA 82:520 (controlled rounding); ONS, Policy on protecting confidentiality in tables
of birth and death statistics (differencing, zeros that disclose of a group).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize
from scipy.optimize import Bounds, LinearConstraint
from scipy.sparse import coo_array, csc_array, csr_array, eye_array, hstack, vstack
from scipy.sparse.csgraph import connected_components

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

SMALL, ZERO, SECONDARY, CARRIED = "small", "zero", "secondary", "carried"
HIDDEN_BECAUSE: Mapping[str, str] = {
    SMALL: "Below the threshold",
    ZERO: "A zero that would tell something of everybody in its group",
    SECONDARY: "Hidden so that the others cannot be computed from totals or from an earlier edition",
    CARRIED: "Hidden in an earlier edition, and unchanged since",
}
"""Why a count is not shown, the first that holds."""
CELL_COLUMNS = ("key", "n", "cost", "is_harmless", "is_passing", "at_least")
LINE_COLUMNS = ("line", "key", "sign", "is_group")

linprog: Any = optimize.linprog  # their stubs know neither sparse matrices nor plain options
milp: Any = optimize.milp
_TOLERANCE = 1e-6
_SMALL_GROUP = 3
_RINGS = 3
_WEIGHT_OF_KEPT = 20.0
_COST_OF_ZERO = 50.0
"""How many times more it costs to hide a zero: that nobody is there is often known."""
_STEPS = (0, 1, 2, 4, 8)
"""How many multiples farther a rounded count may go, where the nearest two do not add up."""


class DisclosureFault(ValueError):
    """An edition that cannot be protected."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`threshold`: counts below it are hidden, and no hidden count can be told closer than this. `base`: of rounding;
    1 for none."""

    threshold: int = 10
    base: int = 5


@dataclass(frozen=True)
class Counts:
    """Counts and how they add up.

    `cells`, one row for each count: CELL_COLUMNS. key (unique), n (people), cost (how much is lost if it is hidden to
    protect others), is_harmless (that somebody is counted here is nothing to hide), is_passing (people come and go,
    so nobody knows whether it grew or shrank since an earlier edition), at_least (what whoever knows that
    the row is there knows of it: 0, or 1 where it is there only because somebody is in it).

    `lines`, a row for each count of each sum: LINE_COLUMNS. line (a number), key, sign (1 for the whole, -1 for a
    part), is_group (the parts are groups of people, such as sites: to be in one is nothing to hide).
    """

    cells: pd.DataFrame
    lines: pd.DataFrame


@dataclass(frozen=True)
class Protected:
    """What became of an edition's counts. `cells`: key, n, rounded, hidden (a code of HIDDEN_BECAUSE, "" where it is
    shown). This holds what the edition must not show: it stays with the team."""

    cells: pd.DataFrame
    lines: pd.DataFrame

    @property
    def shown(self) -> pd.Series[Any]:
        """The published number of each key, missing where it is hidden."""
        cells = self.cells.set_index("key")
        return cells["rounded"].where(cells["hidden"] == "")


def make_lines(sums: Sequence[tuple[str, Sequence[str], bool]]) -> pd.DataFrame:
    """LINE_COLUMNS of sums: (whole, parts, whether the parts are groups)."""
    rows = []
    for number, (whole, parts, is_group) in enumerate(sums):
        rows += [(number, whole, 1, is_group), *((number, part, -1, is_group) for part in parts)]
    return pd.DataFrame(rows, columns=list(LINE_COLUMNS)).astype({"line": "int64", "sign": "int64", "is_group": "bool"})


def find_sums(lines: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """The sums of LINE_COLUMNS as (whole, parts)."""
    wholes: dict[int, str] = {}
    parts: dict[int, list[str]] = {}
    for number, key, sign in lines[["line", "key", "sign"]].itertuples(index=False, name=None):
        if sign == 1:
            wholes[number] = key
        else:
            parts.setdefault(number, []).append(key)
    return [(whole, parts[number]) for number, whole in wholes.items()]


def protect_counts(counts: Counts, rule: Rule, earlier: Sequence[Protected] = ()) -> Protected:
    """The edition: every count rounded, and what must not be shown hidden, from this edition alone and beside the
    `earlier` ones, which are out already and stay as they are. Raises DisclosureFault where nothing protects a count.
    """
    cells = counts.cells.reset_index(drop=True)
    last = earlier[-1].cells.set_index("key").reindex(cells["key"]) if earlier else None
    fixed = None
    if last is not None:
        fixed = last["rounded"].where((last["n"] == cells["n"].to_numpy()).to_numpy()).to_numpy(float)
    rounded = round_counts(counts, rule.base, fixed, rule.threshold)
    hidden = find_primary(counts, rule)
    if last is not None:
        is_same = (last["n"] == cells["n"].to_numpy()).to_numpy(bool)
        was_hidden = last["hidden"].fillna("").ne("").to_numpy(bool)
        is_carried = is_same & was_hidden & ~cells["is_passing"].to_numpy(bool)
        hidden = hidden.mask(is_carried & (hidden == "").to_numpy(bool), CARRIED)
    told = cells.assign(rounded=rounded, hidden=hidden.to_numpy())
    system = _System(counts, told, earlier)
    is_public = system.find_public()
    told["hidden"] = told["hidden"].mask(is_public, "")
    system.hide((told["hidden"] != "").to_numpy(bool))
    cost = cells["cost"].to_numpy(float) * np.where(cells["n"] > 0, 1.0, _COST_OF_ZERO)
    system.protect(rule.threshold, cost, ~find_empty(counts) & ~is_public)
    told["hidden"] = told["hidden"].mask(system.is_hidden[: len(told)] & (told["hidden"] == "").to_numpy(), SECONDARY)
    return Protected(told[["key", "n", "rounded", "hidden"]], counts.lines)


# Primary ------------------------------------------------------------------------------------------------------------


def find_primary(counts: Counts, rule: Rule) -> pd.Series[Any]:
    """Why each count may not be shown for its own sake: SMALL, ZERO or "". By the index of `counts.cells`.

    A zero is hidden where its line divides a small group of people, all of them fall on one part, and that part is not
    harmless: who knows that somebody belongs to the whole would know what became of them. That part is hidden too,
    since the whole tells it. A group is small up to three thresholds: in a larger one, what all have in common is a
    finding about the study."""
    cells = counts.cells.reset_index(drop=True)
    n = cells["n"].to_numpy()
    hidden = pd.Series("", cells.index, dtype="str").mask((n > 0) & (n < rule.threshold), SMALL)
    places = pd.Index(cells["key"])
    parts = counts.lines[(counts.lines["sign"] == -1) & ~counts.lines["is_group"]]
    place = places.get_indexer(parts["key"])
    parts = parts.assign(place=place, is_there=n[place] > 0, tells=~cells["is_harmless"].to_numpy(bool)[place])
    parts["tells"] &= parts["is_there"]
    by_line = parts.groupby("line")
    size = n[parts["place"]]
    is_small = pd.Series(size, parts.index).groupby(parts["line"]).sum() <= _SMALL_GROUP * rule.threshold
    is_telling = (by_line["is_there"].sum() == 1) & by_line["tells"].any() & (by_line.size() > 1) & is_small
    told = np.zeros(len(cells), bool)
    told[parts.loc[parts["line"].isin(is_telling.index[is_telling]), "place"]] = True
    wholes, of_groups = _pair_lines(counts, places, is_group=True)
    while True:  # where a zero over all groups may be shown, those of the groups follow from it
        is_known = told & (n == 0)
        is_known[of_groups] &= (n[wholes] == 0) & ~told[wholes]
        is_known &= np.isin(np.arange(len(cells)), of_groups)
        if not is_known.any():
            break
        told &= ~is_known
    return hidden.mask(told & (hidden == "").to_numpy(), ZERO)


def find_empty(counts: Counts) -> Flags:
    """Zeros of which everybody knows, since nobody is in any whole that they are a part of, or a part of a part. Hiding
    them protects nothing."""
    places = pd.Index(counts.cells["key"])
    n = counts.cells["n"].to_numpy()
    wholes, parts = _pair_lines(counts, places, is_group=False)
    divides = n > 0
    while True:
        reached = divides.copy()
        reached[parts[divides[wholes]]] = True
        if (reached == divides).all():
            return np.asarray(~divides)
        divides = reached


def _pair_lines(counts: Counts, places: pd.Index, *, is_group: bool) -> tuple[Any, Any]:
    """The places of the whole and of the part, for each part of each sum of this sort."""
    lines = counts.lines[counts.lines["is_group"] == is_group]
    whole = lines[lines["sign"] == 1].set_index("line")["key"]
    parts = lines[lines["sign"] == -1]
    return places.get_indexer(pd.Index(parts["line"].map(whole))), places.get_indexer(pd.Index(parts["key"]))


# Rounding -----------------------------------------------------------------------------------------------------------


def round_counts(counts: Counts, base: int, fixed: Floats | None = None, threshold: int = 0) -> Floats:
    """Each count as a multiple of `base` so that all lines add up: the multiples beside it wherever that is possible,
    with the least sum of differences. `fixed`: multiples to keep where they can be kept, else NaN. Counts of
    `threshold` or more stay so.

    Raises DisclosureFault where the counts themselves do not add up.
    """
    n = counts.cells["n"].to_numpy(float)
    matrix = _find_matrix(counts)
    if len(n) and abs(matrix @ n).max(initial=0) > _TOLERANCE:
        raise DisclosureFault("The counts do not add up, so they cannot be protected together.")
    if base == 1 or not len(n):
        return n
    floor = np.where(n >= threshold, -(-threshold // base), 0)
    below, wanted, weight = np.floor(n / base), n / base, np.ones(len(n))
    kept = np.zeros(len(n), bool) if fixed is None else ~np.isnan(fixed)
    if fixed is not None and kept.any():
        low, high = np.maximum(below, floor), np.ceil(n / base)
        low[kept] = high[kept] = fixed[kept] / base
        found = _round_within(matrix, wanted, weight, low, high)
        if found is not None:
            return np.asarray(base * found)
        wanted[kept], weight[kept] = fixed[kept] / base, _WEIGHT_OF_KEPT
    for steps in _STEPS:
        low, high = np.maximum(below - steps, floor), np.ceil(n / base) + steps
        low[n == 0] = high[n == 0] = 0
        found = _round_within(matrix, wanted, weight, np.maximum(low, 0), high)
        if found is not None:
            return np.asarray(base * found)
    raise DisclosureFault(f"The counts cannot be rounded to multiples of {base} so that they add up.")


def _round_within(
    matrix: csr_array, wanted: Floats, cost: Floats, low: Floats, high: Floats
) -> Floats | None:  # fmt: skip
    """Whole numbers within bounds with `matrix` @ them = 0, near to what is wanted; None where there are none."""
    if bool((high - low <= 1).all()):  # two choices: the difference is linear
        slope = np.where(high > low, (high - wanted) - (wanted - low), 0.0)
        found = milp(
            cost * slope, integrality=np.ones(len(wanted)), bounds=Bounds(low, high),
            constraints=LinearConstraint(matrix, 0, 0), options=_OPTIONS,
        )  # fmt: skip
        return np.round(found.x) if found.x is not None else None
    n, unit = len(wanted), eye_array(len(wanted))
    empty = csr_array((matrix.shape[0], n))
    rows = vstack([hstack([matrix, empty]), hstack([unit, -unit]), hstack([-unit, -unit])])
    least = np.r_[np.zeros(matrix.shape[0]), np.full(2 * n, -np.inf)]
    most = np.r_[np.zeros(matrix.shape[0]), wanted, -wanted]
    found = milp(
        np.r_[np.zeros(n), cost], integrality=np.r_[np.ones(n), np.zeros(n)],
        bounds=Bounds(np.r_[low, np.zeros(n)], np.r_[high, np.full(n, np.inf)]),
        constraints=LinearConstraint(rows, least, most), options=_OPTIONS,
    )  # fmt: skip
    return np.round(found.x[:n]) if found.x is not None else None


_OPTIONS: Mapping[str, Any] = {"mip_rel_gap": 0.02, "node_limit": 2000}
"""No limit of time, so that the same counts give the same edition on any machine."""


def _find_matrix(counts: Counts) -> csr_array:
    """The lines as rows: whole minus parts."""
    place = pd.Index(counts.cells["key"]).get_indexer(counts.lines["key"])
    row, names = pd.factorize(counts.lines["line"])
    entries = (counts.lines["sign"].to_numpy(float), (row, place))
    return csr_array(coo_array(entries, shape=(len(names), len(counts.cells))))


# Secondary ----------------------------------------------------------------------------------------------------------


class _System:
    """This edition's counts, then those of each earlier one, as one set of unknowns with what is known of them."""

    def __init__(self, counts: Counts, told: pd.DataFrame, earlier: Sequence[Protected]) -> None:
        self.n_own = len(told)
        every = [told, *(edition.cells for edition in earlier)]
        self.start = np.cumsum([0, *(len(cells) for cells in every)])
        self.values = np.concatenate([cells["rounded"].to_numpy(float) for cells in every])
        self.is_hidden: Flags = np.concatenate([(cells["hidden"] != "").to_numpy(bool) for cells in every])
        self.at_least = np.r_[counts.cells["at_least"].to_numpy(float), np.zeros(len(self.values) - self.n_own)]
        self.at_least = np.minimum(self.at_least, self.values)
        lines = [counts.lines, *(edition.lines for edition in earlier)]
        rows, shape = [], len(self.values)
        for cells, own, start in zip(every, lines, self.start, strict=False):
            matrix = coo_array(_find_matrix(Counts(cells, own)))
            place = (matrix.row, matrix.col + start)
            rows.append(csr_array(coo_array((matrix.data, place), shape=(matrix.shape[0], shape))))
        self.equal = vstack(rows, format="csr")
        passing = counts.cells.loc[counts.cells["is_passing"].astype(bool), "key"]
        self.links = self._find_links([cells[~cells["key"].isin(passing)] for cells in every])
        self.sums = csr_array(abs(vstack([self.equal, self._find_changes()])))
        self.low, self.high = self.values.copy(), self.values.copy()
        self._split: _Split | None = None

    def _find_links(self, every: Sequence[pd.DataFrame]) -> pd.DataFrame:
        """What the reader knows of each count from one edition to the next: later, sooner (places), least, most (of
        the difference of the rounded counts), is_same (it has not changed)."""
        links = []
        order = [*range(1, len(every)), 0]  # this edition is the last one
        for sooner, later in pairwise(order):
            both = (
                every[sooner]
                .reset_index(names="place")
                .merge(every[later].reset_index(names="place"), on="key", suffixes=("_1", "_2"))
            )
            moved, told = both["n_2"] - both["n_1"], both["rounded_2"] - both["rounded_1"]
            links.append(
                pd.DataFrame(
                    {
                        "later": both["place_2"] + self.start[later], "sooner": both["place_1"] + self.start[sooner],
                        "least": np.where(moved < 0, -np.inf, np.minimum(told, 0)),
                        "most": np.where(moved > 0, np.inf, np.maximum(told, 0)),
                        "is_same": moved == 0,
                    }
                )
            )  # fmt: skip
        names = ["later", "sooner", "least", "most", "is_same"]
        return pd.concat(links, ignore_index=True) if links else pd.DataFrame(columns=names, dtype="float64")

    def find_public(self) -> Flags:
        """This edition's counts that an earlier one shows and that have not changed since: hiding them is no use."""
        fixed = ~self.is_hidden
        fixed[: self.n_own] = False
        same = self.links[self.links["is_same"].astype(bool)].astype({"later": int, "sooner": int})
        for later, sooner in same[["later", "sooner"]].itertuples(index=False, name=None):
            fixed[later] |= fixed[sooner]
        return np.asarray(fixed[: self.n_own])

    def hide(self, which: Flags) -> None:
        self.is_hidden[: self.n_own] = which

    def protect(self, width: float, cost: Floats, may_hide: Flags) -> None:
        """Hide counts of this edition until every hidden count, of earlier editions too, can be anything within
        `width`. The largest come first: what makes room for a total often does for its parts."""
        waiting = self._sort(np.flatnonzero(self.is_hidden))
        while waiting:
            place = waiting.pop(0)
            if self._is_wide(place, width) or self._look(place, width):
                continue
            waiting = self._sort(np.r_[waiting, self._widen(place, width, cost, may_hide)].astype(int))

    def _sort(self, places: Any) -> list[int]:
        return [int(place) for place in places[np.argsort(-self.values[places], kind="stable")]]

    def _is_wide(self, place: int, width: float) -> bool:
        return bool(self.high[place] - self.low[place] >= width - _TOLERANCE)

    def _look(self, place: int, width: float) -> bool:
        """Whether what is hidden leaves a count wide enough; notes by the way how far others can go. What is near is
        tried first, the rest standing still, then all that has to do with it."""
        if self._split is None:
            self._split = _Split(self)
        near = self._split.find_near_problem(self.find_near(place, self.is_hidden))
        # With others that are narrow, then alone. How high it can go at all, `_widen` finds.
        steps = ((near, 1.0, 0.01), (near, -1.0, 0.01), (near, 1.0, 0.0), (self._split.find_problem(place), 1.0, 0.0))
        for (places, problem), way, others in steps:
            aim = way * others * (self.high[places] - self.low[places] < width - _TOLERANCE)
            aim[np.flatnonzero(places == place)[0]] = way
            # Counts need not be followed farther than it takes to call them wide.
            bounds = np.column_stack([self.at_least[places], self.values[places] + 3 * width])
            found = linprog(aim, **problem, bounds=bounds, method="highs")
            if found.x is None:
                raise DisclosureFault("What is published contradicts itself.")
            self._see(places, np.asarray(found.x))
            if self._is_wide(place, width):
                return True
        return False

    def _see(self, places: npt.NDArray[np.int64], table: Floats) -> None:
        self.low[places] = np.minimum(self.low[places], table)
        self.high[places] = np.maximum(self.high[places], table)

    def _find_changes(self) -> csr_array:
        """The links as rows: later minus sooner."""
        later, sooner = (self.links[name].to_numpy(int) for name in ("later", "sooner"))
        row = np.arange(len(later))
        entries = (np.r_[np.ones(len(row)), -np.ones(len(row))], (np.r_[row, row], np.r_[later, sooner]))
        return csr_array(coo_array(entries, shape=(len(row), len(self.values))))

    def _find_differences(self, is_free: Flags) -> tuple[csr_array | None, Floats]:
        """The links as rows over the free counts: these @ them <= so much."""
        if self.links.empty:
            return None, np.zeros(0)
        change = self._find_changes()
        known = change @ np.where(is_free, 0.0, self.values)
        least, most = self.links["least"].to_numpy(float), self.links["most"].to_numpy(float)
        rows = vstack([change, -change], format="csr")[:, np.flatnonzero(is_free)]
        limits = np.r_[most - known, known - least]
        keeps = np.isfinite(limits) & (np.diff(rows.indptr) > 0)
        return (rows[keeps], limits[keeps]) if keeps.any() else (None, np.zeros(0))

    def _widen(self, place: int, width: float, cost: Floats, may_hide: Flags) -> npt.NDArray[np.int64]:
        """Hide what makes a count wide enough; gives what was hidden. Upwards where that is possible, else downwards,
        else from as high as it can go at all."""
        moves = np.zeros(len(self.values), bool)
        moves[: self.n_own] = may_hide & ~self.is_hidden[: self.n_own]
        near, every = self.find_near(place, self.is_hidden | moves), self.is_hidden | moves
        for is_free in (near, every):
            programme = _Room(self, is_free, cost)
            table = programme.solve(place, self.low[place] + width, np.inf)
            if table is None:
                table = programme.solve(place, -np.inf, self.high[place] - width)
            # Zeros of this edition are hidden where nothing else will do, however far off that is.
            if table is not None and (is_free is every or not programme.raises_zeros(table)):
                return self._hide_moved(programme, table)
        highest = programme.solve(place, self.values[place], self.values[place] + 3 * width, farthest=True)
        if highest is None:
            raise DisclosureFault("What is published contradicts itself.")
        found = self._hide_moved(programme, highest)
        lowest = _Room(self, self.is_hidden | moves, cost).solve(place, -np.inf, self.high[place] - width)
        if lowest is None:
            raise DisclosureFault(
                "A count cannot be hidden: nothing that may be hidden with it makes room enough. Publish fewer tables."
            )
        return np.concatenate([found, self._hide_moved(programme, lowest)])

    def find_near(self, place: int, is_free: Flags) -> Flags:
        """The free counts that a few sums, or an earlier edition, connect with one."""
        near = np.zeros(len(self.values), bool)
        near[place] = True
        for _ in range(_RINGS):
            near = is_free & (self.sums.T @ (self.sums @ near.astype(float) > 0).astype(float) > 0)
        return np.asarray(near)

    def _hide_moved(self, programme: _Room, table: Floats) -> npt.NDArray[np.int64]:
        free, value = programme.free, self.values[programme.free]
        moved: npt.NDArray[np.int64] = free[~self.is_hidden[free] & (np.abs(table - value) > _TOLERANCE)]
        self.is_hidden[moved] = True
        self._split = None
        self._see(free, np.where(self.is_hidden[free], table, value))
        return moved


class _Room:
    """What must be hidden at least cost so that a count can move: a linear programme over the hidden counts, and those
    that may be hidden as they go up or down from where they are."""

    def __init__(self, system: _System, is_free: Flags, cost: Floats) -> None:
        moves = is_free & ~system.is_hidden
        self.free = np.flatnonzero(is_free)
        self.paid = np.flatnonzero(moves[self.free])
        self.value, self.at_least = system.values[self.free], system.at_least[self.free]
        start = np.where(moves[self.free], self.value, 0.0)
        equal = system.equal[:, self.free]
        rows = np.flatnonzero(np.diff(equal.indptr))
        right = -(system.equal @ np.where(is_free, 0.0, system.values)) - equal @ start
        self.problem: dict[str, Any] = {
            "A_eq": hstack([equal[rows], -equal[rows][:, self.paid]], format="csr"), "b_eq": right[rows]
        }  # fmt: skip
        less, most = system._find_differences(is_free)
        if less is not None:
            self.problem |= {"A_ub": hstack([less, -less[:, self.paid]], format="csr"), "b_ub": most - less @ start}
        self.cost: Floats = np.zeros(len(self.free) + len(self.paid))
        self.cost[self.paid] = self.cost[len(self.free) :] = cost[self.free[self.paid]]

    def solve(self, place: int, least: float, most: float, *, farthest: bool = False) -> Floats | None:
        """The cheapest table in which a hidden count lies so, or the one where it is highest; None: there is none."""
        low = self.at_least.copy()
        low[self.paid] = 0.0
        high = np.full(len(low), np.inf)
        at = int(np.flatnonzero(self.free == place)[0])
        low[at], high[at] = max(low[at], least), most
        if low[at] > high[at]:
            return None
        down = np.column_stack([np.zeros(len(self.paid)), (self.value - self.at_least)[self.paid]])
        aim = self.cost
        if farthest:
            aim = 1e-4 * aim
            aim[at] = -1.0
        found = linprog(aim, **self.problem, bounds=np.vstack([np.column_stack([low, high]), down]), method="highs")
        if found.x is None:
            return None
        table = np.asarray(found.x[: len(self.free)])
        table[self.paid] += self.value[self.paid] - found.x[len(self.free) :]
        return table

    def raises_zeros(self, table: Floats) -> bool:
        return bool((table[self.paid][self.value[self.paid] == 0] > _TOLERANCE).any())


class _Split:
    """The hidden counts in sets that have nothing to do with each other, each with its linear programme."""

    def __init__(self, system: _System) -> None:
        self.free = np.flatnonzero(system.is_hidden)
        self.equal = system.equal[:, self.free]
        self.right = -(system.equal @ np.where(system.is_hidden, 0.0, system.values))
        self.less, self.most = system._find_differences(system.is_hidden)
        rows = coo_array(vstack([self.equal, self.less]) if self.less is not None else self.equal)
        shape = (sum(rows.shape), sum(rows.shape))
        graph = coo_array((np.ones(rows.nnz), (rows.row, rows.col + rows.shape[0])), shape=shape)
        self.label = connected_components(graph, directed=False)[1][rows.shape[0] :]
        self.values = system.values[self.free]
        self.by_column = (csc_array(self.equal), csc_array(self.less) if self.less is not None else None)

    def find_problem(self, place: int) -> tuple[npt.NDArray[np.int64], dict[str, Any]]:
        """The counts that have to do with one, and the rows that hold over them."""
        own = np.flatnonzero(self.label == self.label[np.searchsorted(self.free, place)])
        return self._take(own)

    def find_near_problem(self, near: Flags) -> tuple[npt.NDArray[np.int64], dict[str, Any]]:
        """The same of these counts alone, all others taken to stand where they are."""
        return self._take(np.flatnonzero(near[self.free]))

    def _take(self, own: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], dict[str, Any]]:
        problem: dict[str, Any] = {}
        for matrix, right, names in zip(
            self.by_column, (self.right, self.most), (("A_eq", "b_eq"), ("A_ub", "b_ub")), strict=True
        ):
            if matrix is not None:
                of_own = csr_array(matrix[:, own])
                rows = np.flatnonzero(np.diff(of_own.indptr))
                if len(rows):
                    taken = matrix @ self.values - of_own @ self.values[own]
                    problem |= {names[0]: of_own[rows], names[1]: (right - taken)[rows]}
        return self.free[own], problem
