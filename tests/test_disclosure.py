"""Disclosure control: rounding that adds up, what is hidden, and that nobody can compute it: by an auditor apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from functools import cache
from itertools import pairwise, product
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from study.attrition import derive_attrition_rows
from study.disclosure import (
    CARRIED,
    CELL_COLUMNS,
    SECONDARY,
    SMALL,
    ZERO,
    Counts,
    DisclosureFault,
    Protected,
    Rule,
    find_primary,
    find_sums,
    make_lines,
    protect_counts,
    round_counts,
)
from study.disclosure_audit import Published, Sums, find_told, read_sums
from study.editions import (
    derive_edition_counts,
    derive_edition_flow,
    derive_edition_reasons,
    derive_edition_returns,
    derive_moves,
    find_return_rows,
)
from study.flow import derive_disposition_rows, derive_flow_boxes
from study.protocol import Study
from study.state import Events
from tests.attrition_histories import tell_pilot

RULE = Rule()
BEFORE, AFTER = date(2013, 12, 31), date(2015, 3, 9)


def make_counts(n: Mapping[str, int], sums: Sequence[tuple[str, Sequence[str], bool]], harmless: str = "") -> Counts:
    rows = [(key, number, 1.0, key in harmless.split(), False, 0) for key, number in n.items()]
    return Counts(pd.DataFrame(rows, columns=list(CELL_COLUMNS)), make_lines(sums))


def make_tables(people: Sequence[tuple[int, int, int]], n_arms: int, n_sites: int, n_outcomes: int) -> Counts:
    """Tables of arm by outcome and of site by outcome, with one and the same margin of outcomes and total."""
    n: dict[str, int] = {}
    sums: list[tuple[str, Sequence[str], bool]] = []
    outcomes = range(n_outcomes)
    for by, size, place in (("all", 1, None), ("arm", n_arms, 0), ("site", n_sites, 1)):
        for group in range(size):
            own = [who for who in people if place is None or who[place] == group]
            n |= {f"{by}{group}.{outcome}": sum(who[2] == outcome for who in own) for outcome in outcomes}
            n[f"{by}{group}"] = len(own)
            sums.append((f"{by}{group}", [f"{by}{group}.{outcome}" for outcome in outcomes], False))
        if by != "all":
            for end in ("", *(f".{outcome}" for outcome in outcomes)):
                sums.append((f"all0{end}", [f"{by}{group}{end}" for group in range(size)], True))
    return make_counts(n, sums, harmless=" ".join(key for key in n if key.endswith(".0")))


def publish(protected: Protected) -> Sums:
    """What a reader of these tables has."""
    return Sums({str(key): float(n) for key, n in protected.shown.items()}, find_sums(protected.lines))


def audit(*editions: Protected, width: float = RULE.threshold) -> list[str]:
    """What a reader of all editions can tell too closely."""
    moves = [derive_moves(before, after) for before, after in pairwise(editions)]
    return list(find_told([publish(one) for one in editions], width, (), moves)["key"])


def unhide(protected: Protected, *why: str) -> Protected:
    hidden = protected.cells["hidden"]
    return Protected(protected.cells.assign(hidden=hidden.mask(hidden.isin(why), "")), protected.lines)


# Rounding -----------------------------------------------------------------------------------------------------------


def test_rounded_counts_add_up_and_lie_beside_the_true_ones() -> None:
    counts = make_counts({"all": 13, "a": 4, "b": 4, "c": 5}, [("all", ["a", "b", "c"], True)])
    rounded = dict(zip("tabc", round_counts(counts, 5), strict=True))
    assert rounded["t"] == rounded["a"] + rounded["b"] + rounded["c"]
    assert rounded["t"] in (10, 15)
    assert rounded["c"] == 5
    assert {rounded["a"], rounded["b"]} <= {0, 5}
    assert round_counts(counts, 1).tolist() == [13, 4, 4, 5]


def test_what_was_published_of_an_unchanged_count_is_published_again() -> None:
    counts = make_counts({"all": 13, "a": 4, "b": 4, "c": 5}, [("all", ["a", "b", "c"], True)])
    first = round_counts(counts, 5)
    other = np.array([np.nan, 5 - first[1], np.nan, np.nan])  # the other neighbour of 4
    assert round_counts(counts, 5, other)[1] == other[1]


def test_counts_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(DisclosureFault, match="do not add up"):
        protect_counts(make_counts({"all": 12, "a": 4, "b": 4}, [("all", ["a", "b"], True)]), RULE)


# Primary suppression ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "why"), [(0, ""), (1, SMALL), (9, SMALL), (10, ""), (11, "")])
def test_the_threshold(n: int, why: str) -> None:
    counts = make_counts({"all": n + 40, "a": n, "b": 40}, [("all", ["a", "b"], True)])
    assert find_primary(counts, RULE).tolist() == ["", why, ""]


LINE = [("left", ["died", "moved", "ill"], False)]


@pytest.mark.parametrize(
    ("n", "harmless", "hidden"),
    [
        ((12, 0, 0), "", {"died", "moved", "ill"}),  # all who left died
        ((12, 1, 0), "", {"moved"}),  # two reasons: a zero tells of nobody
        ((12, 0, 0), "died", set()),  # nothing to hide about that part
        ((0, 0, 0), "", set()),
        ((31, 0, 0), "", set()),  # more than three thresholds
        ((30, 0, 0), "", {"died", "moved", "ill"}),
    ],
)
def test_zeros_that_tell_of_a_whole_group(n: tuple[int, int, int], harmless: str, hidden: set[str]) -> None:
    parts = dict(zip(("died", "moved", "ill"), n, strict=True))
    counts = make_counts({"left": sum(n), **parts}, LINE, harmless)
    found = find_primary(counts, RULE)
    assert set(counts.cells["key"][found != ""]) - {"left"} == hidden


def test_a_zero_that_follows_from_a_shown_one_is_not_hidden() -> None:
    """Nobody at all moved, which is shown: so it is no secret of one arm."""
    n = {"left": 52, "died": 40, "moved": 0, "ill": 12, "left_a": 12, "died_a": 12, "moved_a": 0, "ill_a": 0}
    n |= {"left_b": 40, "died_b": 28, "moved_b": 0, "ill_b": 12}
    sums = [(name, [f"{part}{arm}" for part in ("died", "moved", "ill")], False)
            for name, arm in (("left", ""), ("left_a", "_a"), ("left_b", "_b"))]  # fmt: skip
    sums += [(part, [f"{part}_a", f"{part}_b"], True) for part in ("left", "died", "moved", "ill")]
    counts = make_counts(n, sums)
    found = dict(zip(counts.cells["key"], find_primary(counts, RULE), strict=True))
    assert {key for key, why in found.items() if why} == {"died_a", "ill_a"}
    assert found["ill_a"] == ZERO
    assert audit(protect_counts(counts, RULE)) == []


# The auditor finds what leaks ---------------------------------------------------------------------------------------


def test_the_auditor_finds_a_single_hidden_part() -> None:
    sums = [("all", ["a", "b", "c"])]
    known = Sums({"all": 60, "a": float("nan"), "b": 30, "c": 25}, list(sums))
    told = find_told([known], 10)
    assert told[["key", "low", "high"]].to_numpy().tolist() == [["a", 5, 5]]
    two = Sums({"all": 60, "a": float("nan"), "b": float("nan"), "c": 25}, list(sums))
    assert find_told([two], 10).empty
    narrow = Sums({"all": 30, "a": float("nan"), "b": float("nan"), "c": 25}, list(sums))
    assert find_told([narrow], 10)["high"].tolist() == [5, 5]


def test_the_auditor_finds_what_two_editions_tell_together() -> None:
    """Each hides two parts; who holds one against the other, and knows that nobody came, has the third."""
    sums, hidden = [("all", ["a", "b", "c"])], float("nan")
    first = Sums({"all": 60, "a": hidden, "b": hidden, "c": 25}, list(sums))
    second = Sums({"all": 60, "a": hidden, "b": 30, "c": hidden}, list(sums))
    assert find_told([first], 10).empty
    assert find_told([second], 10).empty
    same = dict.fromkeys(("all", "a", "b", "c"), "same")
    assert set(find_told([first, second], 10, (), [same])["key"]) == {"a", "b", "c"}
    assert find_told([first, second], 10, (), [{}]).empty
    grew = Sums({"all": 70, "a": 10, "b": hidden, "c": hidden}, list(sums))
    told = find_told([Sums({"all": 60, "a": hidden, "b": hidden, "c": 25}, list(sums)), grew], 15, (), [{"a": "grew"}])
    assert told[["edition", "key", "low", "high"]].to_numpy().tolist()[0] == [0, "a", 0, 10]


def test_the_auditor_refuses_what_contradicts_itself() -> None:
    with pytest.raises(ValueError, match="do not add up"):
        find_told([Sums({"all": 60, "a": 10, "b": 30}, [("all", ["a", "b"])])], 10)
    with pytest.raises(ValueError, match="contradict"):
        find_told([Sums({"all": 10, "a": 40, "b": float("nan")}, [("all", ["a", "b"])])], 10)


@pytest.mark.parametrize("seed", range(6))
def test_the_auditor_agrees_with_counting_every_table(seed: int) -> None:
    """Small tables with some cells hidden: the bounds are those of all whole tables that fit what is shown."""
    chance = Random(seed)
    inner = {(row, column): chance.randrange(5) for row in range(2) for column in range(3)}
    rows, columns = range(2), range(3)
    n: dict[str, float] = {f"c{row}{column}": value for (row, column), value in inner.items()}
    n |= {f"r{row}": sum(inner[row, column] for column in columns) for row in rows}
    n |= {f"k{column}": sum(inner[row, column] for row in rows) for column in columns}
    sums = [(f"r{row}", [f"c{row}{column}" for column in columns]) for row in rows]
    sums += [(f"k{column}", [f"c{row}{column}" for row in rows]) for column in columns]
    hidden = [*sorted(chance.sample(sorted(key for key in n if key[0] == "c"), 4)), "r0"]
    shown = {key: float("nan") if key in hidden else value for key, value in n.items()}
    fits: dict[str, set[int]] = {key: set() for key in hidden}
    for values in product(range(9), repeat=len(hidden) - 1):
        table = {**n, **dict(zip(hidden, values, strict=False))}
        table["r0"] = sum(table[f"c0{column}"] for column in columns)
        if all(table[whole] == sum(table[part] for part in parts) for whole, parts in sums):
            for key in hidden:
                fits[key].add(int(table[key]))
    told = find_told([Sums(shown, sums)], 100).set_index("key")
    assert {key: (min(values), max(values)) for key, values in fits.items()} == {
        key: (round(told.loc[key, "low"]), round(told.loc[key, "high"])) for key in hidden
    }


# Secondary suppression ----------------------------------------------------------------------------------------------

PEOPLE = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.sampled_from((0, 0, 0, 1, 1, 2))), max_size=220)


@settings(max_examples=15, phases=(Phase.explicit, Phase.generate))
@given(PEOPLE, PEOPLE, st.sampled_from((RULE, Rule(10, 1), Rule(7, 3), Rule(5, 5))))
def test_nothing_hidden_can_be_told_from_one_edition_or_two(
    before: list[tuple[int, int, int]], more: list[tuple[int, int, int]], rule: Rule
) -> None:
    first = protect_counts(make_tables(before, 3, 5, 3), rule)
    second = protect_counts(make_tables([*before, *more], 3, 5, 3), rule, [first])
    for edition in (first, second):
        small = edition.cells["n"].between(1, rule.threshold - 1)
        assert (edition.cells.loc[small, "hidden"] == SMALL).all()
        assert (edition.cells["rounded"] % rule.base == 0).all()
        assert audit(edition, width=rule.threshold) == []
    assert audit(first, second, width=rule.threshold) == []


@settings(max_examples=10, phases=(Phase.explicit, Phase.generate))
@given(PEOPLE, st.lists(st.integers(0, 219), max_size=40))
def test_nothing_hidden_can_be_told_when_people_change(people: list[tuple[int, int, int]], moved: list[int]) -> None:
    """Counts that shrink: who was awaited has come, who was in has left."""
    first = protect_counts(make_tables(people, 3, 5, 3), RULE)
    later = [(a, s, (o + 1) % 3) if place in moved else (a, s, o) for place, (a, s, o) in enumerate(people)]
    second = protect_counts(make_tables(later, 3, 5, 3), RULE, [first])
    assert audit(first, second) == []


def test_the_same_counts_again_are_the_same_edition_again() -> None:
    chance = Random(1)
    people = [(chance.randrange(3), chance.randrange(5), chance.choice((0, 0, 0, 1, 1, 2))) for _ in range(150)]
    counts = make_tables(people, 3, 5, 3)
    first = protect_counts(counts, RULE)
    again = protect_counts(counts, RULE, [first])
    assert again.cells["rounded"].tolist() == first.cells["rounded"].tolist()
    assert again.shown.isna().tolist() == first.shown.isna().tolist()
    assert protect_counts(counts, RULE).cells.equals(first.cells)
    assert CARRIED in set(again.cells["hidden"])


def test_without_secondary_suppression_it_leaks() -> None:
    chance = Random(2)
    people = [(chance.randrange(3), chance.randrange(5), chance.choice((0, 0, 0, 1, 1, 2))) for _ in range(150)]
    protected = protect_counts(make_tables(people, 3, 5, 3), RULE)
    assert audit(protected) == []
    assert len(audit(unhide(protected, SECONDARY))) > 0
    every = protected.cells.index[protected.cells["hidden"] == SECONDARY]
    leaks = 0
    for place in every:  # each of them is there for something
        hidden = protected.cells["hidden"].where(protected.cells.index != place, "")
        leaks += bool(audit(Protected(protected.cells.assign(hidden=hidden), protected.lines)))
    assert leaks >= len(every) / 2


def test_an_edition_that_looks_only_at_itself_leaks_beside_the_earlier_one() -> None:
    """Protected alone, later editions of growing tables tell of earlier ones: some of a few do."""
    leaks = 0
    for seed in range(6):
        chance = Random(seed)
        people = [(chance.randrange(3), chance.randrange(5), chance.choice((0, 0, 0, 1, 1, 2))) for _ in range(190)]
        first = protect_counts(make_tables(people[:150], 3, 5, 3), RULE)
        later = make_tables(people, 3, 5, 3)
        leaks += bool(audit(first, protect_counts(later, RULE)))
        assert audit(first, protect_counts(later, RULE, [first])) == []
    assert leaks > 0


# The pilot trial ----------------------------------------------------------------------------------------------------


@cache
def tell_tables(as_of: date, n_waves: int = 99) -> tuple[Study, pd.DataFrame, pd.DataFrame]:
    """The pilot's protocol, dispositions and returns on a day, the last waves of some left out."""
    study, events = tell_pilot()
    kept = study.waves if n_waves >= len(study.waves) else tuple(
        wave for wave in study.waves if wave.id in ("screening", "baseline", "week_8", "week_24")
    )  # fmt: skip
    ids = {wave.id for wave in kept}
    schedule = tuple(
        entry.model_copy(update={"waves": tuple(wave for wave in entry.waves if wave in ids)})
        for entry in study.schedule
        if ids & set(entry.waves)
    )
    study = study.model_copy(update={"waves": kept, "schedule": schedule})
    known: Events = events.select(as_of=as_of)
    people, rows = derive_disposition_rows(study, known, as_of), derive_attrition_rows(study, known, as_of)
    returns = rows[["participant_id", "wave", "respondent"]].assign(
        expected=rows["is_expected"].astype(float), returned=rows["is_returned"].astype(float),
        reason=rows["reason"].where(rows["reason"] != ""),
    )  # fmt: skip
    return study, people, returns


def publish_tables(as_of: date, protected: Protected, n_waves: int = 99) -> Sums:
    study, people, returns = tell_tables(as_of, n_waves)
    rows = find_return_rows(returns, people)
    return read_sums(
        Published(
            derive_edition_flow(derive_flow_boxes(people, study), protected),
            derive_edition_returns(rows, protected, study),
            derive_edition_reasons(rows, protected, study),
        )
    )


def count_tables(as_of: date, n_waves: int = 99) -> Counts:
    study, people, returns = tell_tables(as_of, n_waves)
    return derive_edition_counts(people, returns, study)


def test_the_pilots_tables_add_up_as_the_auditor_reads_them() -> None:
    """Every sum that the auditor finds in the columns of the files is one that the suppressor knew, and the reverse."""
    counts = count_tables(AFTER)
    shown = Protected(counts.cells.assign(rounded=counts.cells["n"], hidden=""), counts.lines)
    read = publish_tables(AFTER, shown)
    assert read.values == dict(zip(counts.cells["key"], counts.cells["n"], strict=True))
    theirs = {(whole, frozenset(parts)) for whole, parts in read.sums}
    ours = {(whole, frozenset(parts)) for whole, parts in find_sums(counts.lines)}
    assert theirs <= ours
    n = read.values
    assert all(n[whole] == sum(n[part] for part in parts) for whole, parts in ours)
    assert len(ours - theirs) > 50  # the same people under two names, which no column tells
    assert find_told([read], RULE.threshold).empty  # nothing is hidden


def test_the_pilots_edition_tells_nothing_that_is_hidden() -> None:
    counts = count_tables(AFTER)
    protected = protect_counts(counts, RULE)
    cells = protected.cells.set_index("key")
    assert cells.loc["flow|allocated|placebo", ["n", "rounded", "hidden"]].tolist() == [86, 85, ""]
    assert cells.loc["flow|standing.died|all", "hidden"] == SMALL
    assert cells.loc[["flow|assessed|all", "flow|entered|all", "flow|analysed|all"], "hidden"].eq("").all()
    assert (cells["rounded"] - cells["n"]).abs().max() < RULE.base
    assert cells["hidden"].eq(SECONDARY).sum() < cells["hidden"].eq(SMALL).sum()
    same = [find_sums(counts.lines)]
    assert find_told([publish_tables(AFTER, protected)], RULE.threshold, same).empty


def test_two_editions_of_the_pilot_tell_nothing_together() -> None:
    first = protect_counts(count_tables(BEFORE, 4), RULE)
    second = protect_counts(count_tables(AFTER, 4), RULE, [first])
    published = [publish_tables(BEFORE, first, 4), publish_tables(AFTER, second, 4)]
    same = [find_sums(one.lines) for one in (first, second)]
    moves = [derive_moves(first, second)]
    assert set(moves[0].values()) == {"same", "grew"}  # what shrinks, people come to and leave
    assert find_told(published, RULE.threshold, same, moves).empty
    for why in (SECONDARY, SMALL):
        leaking = publish_tables(AFTER, unhide(second, why, CARRIED), 4)
        assert len(find_told([leaking], RULE.threshold, same[1:])) > 30
    alone = protect_counts(count_tables(AFTER, 4), RULE)
    careless = [published[0], publish_tables(AFTER, alone, 4)]
    assert len(find_told(careless, RULE.threshold, same, [derive_moves(first, alone)])) > 0
