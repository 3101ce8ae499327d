"""What was adopted when: literal tables of adoptions, and a study rebuilt from the versions of a past day."""

from datetime import date

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from study.configuration import (
    GIVEN_UP,
    ConfigurationChange,
    ConfigurationPart,
    assemble_files,
    find_changes,
    find_in_force,
    list_parts,
    pack_folder,
    unpack_folder,
)

A, B, C = "a" * 64, "b" * 64, "c" * 64


def adoptions(*rows: tuple[str, str, str, str, int]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["part", "name", "sha256", "occurred_on", "seq"])
    frame["occurred_on"] = pd.to_datetime(frame["occurred_on"])
    return frame


ADOPTED = adoptions(
    ("protocol", "trial", A, "2017-01-10", 1),
    ("site", "luton", A, "2017-01-10", 2),
    ("protocol", "trial", B, "2017-03-01", 3),
    ("protocol", "trial", C, "2017-03-01", 4),  # a second version on the same day
    ("site", "luton", GIVEN_UP, "2017-06-01", 5),
    ("protocol", "trial", A, "2017-02-01", 6),  # recorded late, for an earlier day
    ("site", "luton", B, "2017-09-01", 7),  # the site came back
)


def in_force(on: date) -> list[tuple[str, str, str]]:
    return list(find_in_force(ADOPTED, on)[["part", "name", "sha256"]].itertuples(index=False, name=None))


def test_versions_in_force_on_boundary_days() -> None:
    assert in_force(date(2017, 1, 9)) == []
    assert in_force(date(2017, 1, 10)) == [("protocol", "trial", A), ("site", "luton", A)]
    assert in_force(date(2017, 2, 28)) == [("protocol", "trial", A), ("site", "luton", A)]
    assert in_force(date(2017, 3, 1)) == [("protocol", "trial", C), ("site", "luton", A)]
    assert in_force(date(2017, 5, 31)) == [("protocol", "trial", C), ("site", "luton", A)]
    assert in_force(date(2017, 6, 1)) == [("protocol", "trial", C)]
    assert in_force(date(2017, 8, 31)) == [("protocol", "trial", C)]
    assert in_force(date(2017, 9, 1)) == [("protocol", "trial", C), ("site", "luton", B)]


@given(order=st.permutations(range(len(ADOPTED))), on=st.dates(date(2017, 1, 1), date(2017, 12, 31)))
def test_the_order_of_rows_does_not_matter(order: list[int], on: date) -> None:
    pd.testing.assert_frame_equal(find_in_force(ADOPTED.iloc[order], on), find_in_force(ADOPTED, on))


def test_changes_since_what_is_in_force() -> None:
    same, changed, new = (ConfigurationPart("site", name, name.encode()) for name in ("same", "changed", "new"))
    standing = adoptions(
        ("site", "same", same.sha256, "2017-01-10", 1),
        ("site", "changed", A, "2017-01-10", 2),
        ("site", "gone", B, "2017-01-10", 3),
        ("templates", "letters", C, "2017-01-10", 4),  # of another kind: not this caller's to give up
    )
    assert find_changes(find_in_force(standing, date(2017, 2, 1)), [same, changed, new]) == [
        ConfigurationChange("site", "changed", changed.sha256, A),
        ConfigurationChange("site", "new", new.sha256, ""),
        ConfigurationChange("site", "gone", GIVEN_UP, B),
    ]


def test_adopting_the_changes_leaves_nothing_to_change() -> None:
    parts = [ConfigurationPart("site", "luton", b"one"), ConfigurationPart("protocol", "trial", b"two")]
    on = date(2017, 4, 1)
    changes = find_changes(find_in_force(ADOPTED, on), parts)
    rows = [(change.part, change.name, change.sha256, "2017-04-01", 20 + n) for n, change in enumerate(changes)]
    assert len(rows) == 2
    after = pd.concat([ADOPTED, adoptions(*rows)], ignore_index=True)
    assert find_changes(find_in_force(after, on), parts) == []


@given(st.dictionaries(st.text("abc_.", min_size=1, max_size=8), st.text(max_size=40).map(str.encode)))
def test_folders_come_out_as_they_went_in(files: dict[str, bytes]) -> None:
    packed = pack_folder(files)
    assert unpack_folder(packed) == files
    assert pack_folder(dict(reversed(files.items()))) == packed


def test_parts_and_files_are_two_views_of_the_same() -> None:
    study_files = {"sites/702.toml": b"two", "study.toml": b"protocol", "sites/701.toml": b"one"}
    instrument_files = {"mood": {"definition.toml": b"id", "worked_examples.csv": "ü".encode()}}
    parts = list_parts("trial", study_files, instrument_files)
    assert [(part.part, part.name) for part in parts] == [
        ("protocol", "trial"),
        ("site", "701"),
        ("site", "702"),
        ("instrument", "mood"),
    ]
    files = assemble_files({(part.part, part.name): part.data for part in parts})
    assert files.study == study_files
    assert files.instruments == instrument_files


def test_parts_given_up_and_parts_of_other_kinds_are_no_files() -> None:
    files = assemble_files({("site", "701"): b"", ("instrument", "mood"): b"", ("templates", "letters"): b"x"})
    assert (files.study, files.instruments) == ({}, {})
