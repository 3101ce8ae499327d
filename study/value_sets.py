"""Value sets: what each profile of answers is worth, from a published table beside an instrument's definition.

A value set is a CSV file, one row a profile: column ``profile`` (the answers as digits, in the order of the items that
the definition names), column ``value``; where the value depends on the person also ``age_band`` ("18-34", both ages
included) and ``sex`` ("male" or "female"). Published tables are shipped as they are published: one that is computed
anew from rounded coefficients differs from it in places.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

VALUE_SETS_FOLDER = "value_sets"
SEXES = ("male", "female")
COVARIATES = ("age", "sex")

Floats = npt.NDArray[np.float64]

_AGE_BAND = re.compile(r"([0-9]{1,3})-([0-9]{1,3})")
_VALUE = re.compile(r"-?[0-9]{1,6}(\.[0-9]{1,12})?")
_MOST_PROFILES = 1_000_000
_MOST_SHOWN = 3  # faults of one kind in one file, before the rest is only counted


class ValueSet(BaseModel):
    """A published table of values, as a dense table indexed by the number of the profile.

    ``lowest`` and ``n_levels``: of each item, the lowest level and how many there are. ``age_bands``: the first and
    last age of each band, empty where the value depends on the profile alone. ``table``: float64, groups x profiles,
    where a group is an age band and a sex (both sexes of the first band first), as bytes to be compared and hashed.
    ``maps_from``: of a mapping between two versions of a questionnaire, the value set whose values it translates.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    label: str
    file: str
    items: tuple[str, ...]
    country: str
    citation: str
    source: str
    decimals: int
    maps_from: str = ""
    lowest: tuple[int, ...]
    n_levels: tuple[int, ...]
    age_bands: tuple[tuple[int, int], ...] = ()
    table: bytes

    @property
    def values(self) -> Floats:
        """Groups x profiles."""
        n_profiles = int(np.prod(self.n_levels))
        return np.frombuffer(self.table, dtype="<f8").reshape(-1, n_profiles)

    @property
    def covariates(self) -> tuple[str, ...]:
        return COVARIATES if self.age_bands else ()

    @property
    def reach(self) -> tuple[float, float]:
        return float(self.values.min()), float(self.values.max())

    def find_groups(self, ages: Floats, sexes: Floats) -> npt.NDArray[np.intp]:
        """The row of `values` for each person; -1 where the age is in no band. `sexes`: places in SEXES."""
        groups = np.full(len(ages), -1, dtype=np.intp)
        for place, (first, last) in enumerate(self.age_bands):
            inside = (ages >= first) & (ages < last + 1)
            groups[inside] = place * len(SEXES) + sexes[inside].astype(np.intp)
        return groups


def parse_value_table(
    data: bytes, file: str, decimals: int, levels: Sequence[tuple[int, int]]
) -> tuple[tuple[tuple[int, int], ...], bytes, list[str]]:
    """The age bands and the table (as of `ValueSet`) of a value set's file, and everything that is wrong with it.

    `levels`: the lowest and highest level of each item. The table is complete or there are faults. Read once for the
    same bytes: a study's definitions are loaded often.
    """
    bands, table, faults = _parse_table(data, decimals, tuple(levels))
    return (
        bands,
        table,
        [f"{file}: {fault}" if not fault.startswith("line") else f"{file}, {fault}" for fault in faults],
    )


@lru_cache(maxsize=64)
def _parse_table(
    data: bytes, decimals: int, levels: tuple[tuple[int, int], ...]
) -> tuple[tuple[tuple[int, int], ...], bytes, tuple[str, ...]]:
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig")), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        return (), b"", (f"cannot be read as UTF-8 CSV: {error}.",)
    header, rows = [name.strip() for name in rows[0]] if rows else [], [row for row in rows[1:] if any(row)]
    if header not in (["profile", "value"], ["profile", "age_band", "sex", "value"]):
        return (), b"", ("the columns must be profile, value; or profile, age_band, sex, value.",)
    if ragged := next((n for n, row in enumerate(rows, start=2) if len(row) != len(header)), None):
        return (), b"", (f"line {ragged}: the number of cells is not the number of columns.",)
    if any(not 0 <= low <= high <= 9 for low, high in levels):
        return (), b"", ("a profile is written with one digit an item, so their levels must be within 0 to 9.",)
    n_profiles = int(np.prod([high - low + 1 for low, high in levels], dtype=np.float64))
    if n_profiles > _MOST_PROFILES:
        return (), b"", (f"the items have {n_profiles:,} profiles; at most {_MOST_PROFILES:,} can be in a table.",)
    return _fill_table(rows, decimals, levels, n_profiles, is_grouped=len(header) > 2)


def _fill_table(
    rows: Sequence[Sequence[str]],
    decimals: int,
    levels: tuple[tuple[int, int], ...],
    n_profiles: int,
    *,
    is_grouped: bool,
) -> tuple[tuple[tuple[int, int], ...], bytes, tuple[str, ...]]:
    faults = _Counted()
    number = _number_profiles(levels)
    bands: dict[str, int] = {}
    limits: list[tuple[int, int]] = []
    for text in dict.fromkeys(row[1] for row in rows) if is_grouped else ():
        match = _AGE_BAND.fullmatch(text)
        if match is None or int(match[1]) > int(match[2]):
            faults.add("band", f'age band "{text}" must be two ages, such as 18-34.')
        else:
            bands[text] = len(limits)
            limits.append((int(match[1]), int(match[2])))
    for (_, last), (first, _) in zip(sorted(limits), sorted(limits)[1:], strict=False):
        if first <= last:
            faults.add("overlap", f"two age bands have the age {first}. Each age belongs to one.")
        if first > last + 1:
            faults.add("gap", f"no age band has the age {last + 1}. Bands follow each other.")
    n_groups = len(limits) * len(SEXES) if is_grouped else 1
    table: list[float | None] = [None] * (max(n_groups, 1) * n_profiles)
    group = 0
    for line, row in enumerate(rows, start=2):
        place = number.get(row[0].strip())
        if place is None:
            faults.add("profile", f"line {line}: the profile is none of the items' answers.")
            continue
        if is_grouped:
            if row[1] not in bands or row[2] not in SEXES:
                if row[2] not in SEXES:
                    faults.add("sex", f"line {line}: sex must be male or female.")
                continue
            group = bands[row[1]] * len(SEXES) + SEXES.index(row[2])
        text = row[-1].strip()
        if not _VALUE.fullmatch(text):
            faults.add("value", f"line {line}: the value must be a number.")
            continue
        if len(text.partition(".")[2].rstrip("0")) > decimals:
            faults.add("decimals", f"line {line}: the value has more than {decimals} decimals.")
        place += group * n_profiles
        if table[place] is not None:
            faults.add("twice", f"line {line}: this profile stands there before.")
        table[place] = float(text)
    if (n_empty := table.count(None)) and not faults:
        each = " for each age band and sex" if is_grouped else ""
        faults.add("empty", f"{n_empty:,} of {len(table):,} values are missing. Each profile needs one{each}.")
    return tuple(limits), b"" if faults else np.array(table, dtype="<f8").tobytes(), faults.listed()


class _Counted:
    """Faults by kind: the first few in full, the rest counted."""

    def __init__(self) -> None:
        self.by_kind: dict[str, list[str]] = {}

    def __bool__(self) -> bool:
        return bool(self.by_kind)

    def add(self, kind: str, text: str) -> None:
        self.by_kind.setdefault(kind, []).append(text)

    def listed(self) -> tuple[str, ...]:
        told = []
        for texts in self.by_kind.values():
            told += texts[:_MOST_SHOWN]
            if len(texts) > _MOST_SHOWN:
                told.append(f"and {len(texts) - _MOST_SHOWN:,} more faults of that kind.")
        return tuple(told)


@lru_cache(maxsize=16)
def _number_profiles(levels: tuple[tuple[int, int], ...]) -> Mapping[str, int]:
    """The number of each profile by its digits, in ascending order."""
    profiles = [""]
    for low, high in levels:
        profiles = [f"{profile}{level}" for profile in profiles for level in range(low, high + 1)]
    return {profile: place for place, profile in enumerate(profiles)}


def list_profiles(value_set: ValueSet) -> list[str]:
    """Every profile of a value set as digits, in the order of the columns of its `values`."""
    levels = zip(value_set.lowest, value_set.n_levels, strict=True)
    return list(_number_profiles(tuple((low, low + n - 1) for low, n in levels)))


def map_values(
    value_set: ValueSet, origin: ValueSet, values: Floats, ages: Floats, sexes: Floats, bandwidth: float = 0.0
) -> Floats:
    """Values of one value set translated into another where only the value is known and not the answers.

    `value_set` is a mapping whose `maps_from` is `origin`; both are over the same profiles. `values`, `ages` (years)
    and `sexes` (places in SEXES): one for each person. With a bandwidth of 0 the mean over the profiles that have
    exactly this value; else the mean weighted by an Epanechnikov kernel, 1 - (distance / bandwidth)^2 for profiles
    closer than the bandwidth. NaN where no profile is that close, or the age is in no band. Raises ValueError for a
    negative bandwidth. Source: Hernandez Alava, Pudney, Wailoo 2022, 10.1007/s40273-022-01218-7.
    """
    if bandwidth < 0:
        raise ValueError("the bandwidth must be 0 or more")
    groups = value_set.find_groups(ages, sexes)
    known = origin.values[0]
    cases, where = np.unique(np.column_stack([groups, values]), axis=0, return_inverse=True)
    mapped = np.full(len(cases), np.nan)
    for case, (group, value) in enumerate(cases.tolist()):
        distance = np.abs(known - value)
        weights = distance < 1e-9 if bandwidth == 0 else np.clip(1 - (distance / bandwidth) ** 2, 0, None)
        if group >= 0 and weights.any():
            mapped[case] = np.average(value_set.values[int(group)], weights=weights)
    return mapped[where.ravel()]
