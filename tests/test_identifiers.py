"""New identifiers: check digits that find the usual slips, blocks that never meet, and the form that a study gives."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.fieldwork import IdentifierRule
from study.identifiers import (
    Block,
    compute_identifier,
    derive_block,
    has_sound_check,
    is_issued,
    list_block,
    parse_sound_number,
)
from tasks.definitions import load_study

IPC = load_study("ipc")
PILOT = load_study("cdisc_pilot")
LUTON = IPC.sites[[site.site_id for site in IPC.sites].index("luton")]
RULE = IdentifierRule(form="{code}-P{number}{check}", digits=4, block=50)


def make_issued(*rows: tuple[str, int, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["site_id", "first", "n"])


@pytest.mark.parametrize(
    ("number", "identifier"),
    # 572 with the check digit 4 is the example that descriptions of the scheme give; noughts before it change nothing.
    [(1, "LUT-P00013"), (2, "LUT-P00021"), (17, "LUT-P00174"), (572, "LUT-P05724"), (9999, "LUT-P99992")],
)
def test_an_identifier_of_a_number(number, identifier):
    assert compute_identifier(RULE, "LUT", number) == identifier
    assert parse_sound_number(RULE, identifier) == number


def test_no_other_check_digit_will_do():
    assert [digit for digit in range(10) if parse_sound_number(RULE, f"LUT-P0572{digit}") is not None] == [4]


@pytest.mark.parametrize("number", [0, -1, 10_000])
def test_a_number_that_does_not_fit_is_refused(number):
    with pytest.raises(ValueError, match="no number of 4 digits from 1 on"):
        compute_identifier(RULE, "LUT", number)


@given(st.integers(1, 9999), st.integers(0, 4), st.integers(1, 9))
def test_one_wrong_digit_is_found(number, place, difference):
    made = compute_identifier(RULE, "LUT", number)
    digits = list(made[-5:])
    digits[place] = str((int(digits[place]) + difference) % 10)
    assert parse_sound_number(RULE, made[:-5] + "".join(digits)) is None


@given(st.integers(1, 9999), st.integers(0, 3))
def test_two_neighbours_that_changed_places_are_found(number, place):
    made = compute_identifier(RULE, "LUT", number)
    digits = list(made[-5:])
    digits[place], digits[place + 1] = digits[place + 1], digits[place]
    swapped = made[:-5] + "".join(digits)
    assert (parse_sound_number(RULE, swapped) is None) == (swapped != made)


@pytest.mark.parametrize(
    ("text", "is_sound"),
    [
        ("LUT-P00013", True),
        ("LUT-P00010", False),
        ("LUT-P0013", False),
        ("LUT-P000013", False),
        ("LUT-P0001３", False),
        ("XYZ-P00013", True),  # which site it is is for the study's pattern
        ("lut-p00013", False),
        ("Mary Jones", False),
        ("", False),
    ],
)
def test_what_is_sound(text, is_sound):
    assert has_sound_check(IPC, text) == is_sound


def test_a_study_without_a_rule_finds_everything_sound():
    assert PILOT.fieldwork.identifier_rule is None
    assert has_sound_check(PILOT, "01-701-1015")


@pytest.mark.parametrize("form", ["{check}{number}/{code}", "{code}.{number}.{check}", "S+{code}{number}{check}"])
def test_any_form_is_read_as_it_is_made(form):
    rule = IdentifierRule(form=form, digits=3, block=5)
    made = list_block(rule, "a7", Block(1, 5))
    assert [parse_sound_number(rule, name) for name in made] == [1, 2, 3, 4, 5]
    assert parse_sound_number(rule, f"{made[0]}!") is None


# Blocks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("issued", "block"),
    [
        (make_issued(), Block(1, 50)),
        (make_issued(("luton", 1, 50)), Block(51, 50)),
        (make_issued(("luton", 51, 50), ("luton", 1, 50)), Block(101, 50)),
        (make_issued(("luton", 1, 50), ("luton", 200, 7)), Block(207, 50)),
        (make_issued(("portsmouth", 1, 500)), Block(1, 50)),
        (make_issued(("luton", 1, 9_980)), Block(9_981, 19)),
    ],
)
def test_the_next_block_follows_on_the_highest_number_of_the_site(issued, block):
    assert derive_block(IPC, LUTON, issued) == block


def test_blocks_end_with_the_digits():
    with pytest.raises(ValueError, match="luton has used all numbers of 4 digits"):
        derive_block(IPC, LUTON, make_issued(("luton", 1, 9_999)))


def test_a_study_without_a_rule_issues_none():
    with pytest.raises(ValueError, match=r"cdisc_pilot has no \[\[identifiers\]\]"):
        derive_block(PILOT, PILOT.sites[0], make_issued())


def test_blocks_of_all_sites_hold_each_identifier_once_and_are_the_studys_own():
    made = []
    for site in IPC.sites:
        issued = make_issued()
        for _ in range(3):
            block = derive_block(IPC, site, issued)
            issued = pd.concat([issued, make_issued((site.site_id, *block))], ignore_index=True)
            own = list_block(RULE, site.code, block)
            assert {IPC.participant_site(name) for name in own} == {site.site_id}
            made += own
    assert len(made) == len(set(made)) == 3 * 50 * len(IPC.sites)
    assert all(IPC.is_participant_id(name) and has_sound_check(IPC, name) for name in made)


@pytest.mark.parametrize(("number", "expected"), [(1, True), (50, True), (51, False), (101, True), (150, True)])
def test_whether_an_identifier_was_issued(number, expected):
    assert is_issued(RULE, compute_identifier(RULE, "LUT", number), {1: 50, 101: 50}) is expected


def test_a_wrong_digit_was_never_issued():
    assert not is_issued(RULE, "LUT-P00010", {1: 50})
