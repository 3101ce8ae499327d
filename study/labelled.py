"""Tables as statistics programs hold them: legal names, codes as labelled numbers, typed missing values.

Stata and SPSS share one layout, so that a script for the one reads like a script for the other. Identifiers (of people,
sites, sendings, items, scales) stay text. Other codes become numbers with labels, in the order of their list. A value
that is missing for a known reason becomes .a to .f in Stata, and in SPSS a number from -9996 to -9991 that is declared
user-missing; a blank without a reason is system-missing. Dates are days since 1960 in Stata and seconds since 14
October 1582 in SPSS, made here as plain numbers: what a library makes of them depends on how it and pandas count time.
A column of codes or words may be of type "str" or a categorical.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from study.datasets import Column, ReleaseFault, Table, TableRows
from study.instruments import MISSING_REASONS

LONGEST_NAME = 28
"""Of a variable. Stata takes 32, also of a set of value labels, which is called as its variable; SPSS takes 64."""
STATA_MISSING = dict(zip(MISSING_REASONS, "abcdef", strict=True))
STATA_MISSING_LABELLED = {reason: 0x7FFF_FFE6 + place for place, reason in enumerate(MISSING_REASONS)}
"""The numbers of .a to .f in a set of value labels."""
STATA_LONGEST_TEXT = 2045
"""Bytes of a text of fixed width. A column with a longer one holds places in a list of texts."""
SPSS_MISSING = {reason: -9991 - place for place, reason in enumerate(MISSING_REASONS)}
SPSS_SYSTEM_MISSING = -np.finfo(np.float64).max
# By type: the least and the greatest value, and ".", ".a", ".b" ... (Stata's manual: help dta). Of doubles, the highest
# exponent, and the letter's number 5 bytes up.
_PLACES = np.arange(len(MISSING_REASONS) + 1)
_STATA_INTEGERS = {"i1": (-127, 100, 101), "i2": (-32_767, 32_740, 32_741)}
_STATA_MISSING_NUMBERS = {
    **{np.dtype(kind): (first + _PLACES).astype(kind) for kind, (_, _, first) in _STATA_INTEGERS.items()},
    np.dtype("f8"): (0x7FE0_0000_0000_0000 + (_PLACES << 40)).view("f8"),
}
_READ_ONE_BY_ONE = pd.StringDtype("python", na_value=np.nan)  # three times as fast as from Arrow
STATA_EPOCH, SPSS_EPOCH = np.datetime64("1960-01-01", "us"), np.datetime64("1582-10-14", "us")

# Words that a program does not take for a variable (Stata: [U] 11.3, and for its matrices [M-2] reswords; SPSS:
# reserved keywords of variable names).
_RESERVED = frozenset(
    [
        *("all", "and", "by", "eq", "ge", "gt", "le", "lt", "ne", "not", "or", "to", "with"),
        *("byte", "double", "float", "if", "in", "int", "long", "strl", "using"),
        *("aggregate", "array", "boolean", "break", "case", "catch", "class", "colvector", "complex", "const"),
        *("continue", "default", "delegate", "delete", "do", "else", "eltypedef", "end", "enum", "explicit", "export"),
        *("external", "for", "friend", "function", "global", "goto", "inline", "local", "null", "pragma", "protected"),
        *("quad", "rowvector", "short", "typedef", "typename", "virtual"),
    ]
)

_LEGAL = re.compile(rf"[A-Za-z][A-Za-z0-9_]{{0,{LONGEST_NAME - 1}}}")
_STORAGE = re.compile(r"str[0-9]+")


@dataclass(frozen=True)
class Variable:
    """A column of a table in Stata and SPSS. `numbers`: of a coded column, each code's number; `labels`: what numbers
    mean, of a coded column or of an item with levels."""

    name: str
    column: Column
    numbers: Mapping[str, int]
    labels: Mapping[int, str]


def derive_legal_names(names: Iterable[str]) -> dict[str, str]:
    """A name that Stata and SPSS take for each column, in order.

    At most LONGEST_NAME characters: ASCII letters, digits and underscores, a letter first; no reserved word; unique
    whatever the case. A legal name stays as it is; a long one keeps its beginning and its end around four digits of its
    hash, so that it is the same in every release, whatever other columns there are.
    """
    names = list(names)
    taken = {name.lower(): name for name in reversed(names) if _is_legal(name)}
    legal = {}
    for name in names:
        if taken.get(name.lower()) == name:
            legal[name] = name
            continue
        found, attempt = _make_legal(name), 0
        while found.lower() in taken or not _is_legal(found):
            attempt += 1
            found = _shorten(_make_legal(name), f"{name}{attempt}", always=True)
        taken[found.lower()] = legal[name] = found
    return legal


def _is_legal(name: str) -> bool:
    word = name.lower()
    return bool(_LEGAL.fullmatch(name)) and word not in _RESERVED and not _STORAGE.fullmatch(word) and word[-1] != "_"


def _make_legal(name: str) -> str:
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9_]+", "_", ascii_only).strip("_")
    if not plain or not plain[0].isalpha() or not _is_legal(plain[:LONGEST_NAME].rstrip("_")):
        plain = f"v_{plain}".rstrip("_")
    return _shorten(plain, name)


def _shorten(plain: str, name: str, *, always: bool = False) -> str:
    if len(plain) <= LONGEST_NAME and not always:
        return plain
    digits = hashlib.sha256(name.encode()).hexdigest()[:4]
    if len(plain) <= LONGEST_NAME - 5:
        return f"{plain}_{digits}"
    return f"{plain[:12].rstrip('_')}_{digits}_{plain[-10:].lstrip('_')}"


def extend_codes(codes: Mapping[str, Mapping[str, str]], tables: Mapping[str, TableRows]) -> dict[str, dict[str, str]]:
    """The lists of codes (name to code to label) with what stands in the tables beyond them, such as unscheduled
    occasions: at their end, in alphabetical order, each as its own label."""
    extended = {name: dict(labels) for name, labels in codes.items()}
    strange: dict[str, set[str]] = {}
    for rows in tables.values():
        for column in rows.table.columns:
            if column.codes and column.codes != "missing_reason":  # a closed list
                strange.setdefault(column.codes, set()).update(rows.find_texts(column.name))
    for name, found in strange.items():
        own = extended.setdefault(name, {})
        own |= {code: code for code in sorted(found - set(own))}
    return extended


def find_reason_columns(table: Table) -> set[str]:
    """The columns that a statistics program does without: their reasons are the values' own missing types there."""
    return {column.reason for column in table.columns if column.reason}


def derive_variables(table: Table, codes: Mapping[str, Mapping[str, str]]) -> list[Variable]:
    """The variables of a table, in its order; `codes` as from `extend_codes`."""
    reasons = find_reason_columns(table)
    columns = [column for column in table.columns if column.name not in reasons]
    names = derive_legal_names(column.name for column in columns)
    variables = []
    for column in columns:
        numbers: dict[str, int] = {}
        labels = dict(column.levels)
        if column.codes and column.codes != "site":
            own = codes.get(column.codes, {})
            numbers = {code: number for number, code in enumerate(own, start=1)}
            labels = {number: own[code] for code, number in numbers.items()}
        variables.append(Variable(names[column.name], column, numbers, labels))
    return variables


def derive_stata_types(frame: pd.DataFrame, variables: Iterable[Variable]) -> dict[str, np.dtype[Any]]:
    """How Stata holds each variable: a byte (i1) or an int (i2) where all of its codes or levels fit; other numbers and
    dates as doubles (f8); text in as many bytes as the longest takes (S...), beyond STATA_LONGEST_TEXT as objects (O).
    A value that is none of its levels makes a variable a double."""
    return {variable.name: _find_stata_type(frame[variable.column.name], variable) for variable in variables}


def _find_stata_type(values: pd.Series[Any], variable: Variable) -> np.dtype[Any]:
    if variable.column.type == "text" and not variable.numbers:
        width = max((len(word.encode()) for word in find_words(values)[1]), default=1)
        return np.dtype(f"S{max(width, 1)}" if width <= STATA_LONGEST_TEXT else "O")
    numbers = np.array([*variable.labels])
    for kind, (least, greatest, _) in _STATA_INTEGERS.items():
        if len(numbers) and least <= numbers.min() and numbers.max() <= greatest:
            if variable.numbers or bool((values.isna() | values.isin(numbers)).all()):
                return np.dtype(kind)
            break
    return np.dtype("f8")


def derive_stata_columns(
    frame: pd.DataFrame, variables: Iterable[Variable], types: Mapping[str, np.dtype[Any]]
) -> dict[str, Any]:
    """The values by variable, as Stata's files hold them: UTF-8 of fixed width, objects where text is longer, numbers
    and days with those that mean . to .f. `frame`: any rows of the one that `types` (`derive_stata_types`) are from."""
    columns = {}
    places = {reason: number for number, reason in enumerate(STATA_MISSING, start=1)}
    for variable in variables:
        kind, values = types[variable.name], _find_values(frame, variable, STATA_EPOCH, np.timedelta64(1, "D"))
        if kind.kind in "SO":
            codes, words = values
            texts = [word.encode() if kind.kind == "S" else word for word in [*words, ""]]
            columns[variable.name] = np.array(texts, kind)[codes]
            continue
        found, is_missing = np.zeros(len(frame), kind), np.isnan(values)
        np.copyto(found, values, where=~is_missing, casting="unsafe")
        why = np.zeros(len(frame), np.int8)
        if variable.column.reason:
            codes, words = find_words(frame[variable.column.reason])
            why = np.array([*(places[word] for word in words), 0], np.int8)[codes]
        is_missing |= why > 0
        found[is_missing] = _STATA_MISSING_NUMBERS[kind][why[is_missing]]
        columns[variable.name] = found
    return columns


def derive_spss_columns(table: Table, frame: pd.DataFrame, variables: Iterable[Variable]) -> dict[str, Any]:
    """The values by variable, as SPSS's files hold them: text, or numbers with that of a reason where a value is
    missing for it and SPSS_SYSTEM_MISSING where none is told; in two bytes where all of a labelled variable fit. Raises
    ReleaseFault where a value would be taken for the number of a reason."""
    columns: dict[str, Any] = {}
    for variable in variables:
        column, values = variable.column, _find_values(frame, variable, SPSS_EPOCH, np.timedelta64(1, "s"))
        if column.type == "text" and not variable.numbers:
            codes, words = values
            columns[variable.name] = pd.array(np.array([*words, ""], object)[codes], dtype=_READ_ONE_BY_ONE)
            continue
        if column.reason:
            lowest, highest = min(SPSS_MISSING.values()), max(SPSS_MISSING.values())
            if bool(((values >= lowest) & (values <= highest)).any()):
                raise ReleaseFault(
                    [
                        f"{table.name}.{column.name}: a value lies between {lowest} and {highest}, the numbers that "
                        "mean a missing value in SPSS files. Let its instrument's definition scale it otherwise."
                    ]
                )
            codes, words = find_words(frame[column.reason])
            numbers = np.array([*(SPSS_MISSING[word] for word in words), np.nan])[codes]
            values = np.where(codes < 0, values, numbers)
        values = np.where(np.isnan(values), SPSS_SYSTEM_MISSING, values)
        if variable.labels and bool((np.abs(values) < 2**15).all() and (values == np.rint(values)).all()):
            values = values.astype(np.int16)
        columns[variable.name] = values
    return columns


def find_words(values: pd.Series[Any]) -> tuple[Any, list[str]]:
    """The words that stand in a column, and of each row the place of its own among them; -1 where there is none."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.cat.remove_unused_categories()
        return values.cat.codes.to_numpy(), values.cat.categories.tolist()
    codes, words = pd.factorize(values)
    return codes, list(words)


def _find_values(frame: pd.DataFrame, variable: Variable, epoch: np.datetime64, unit: np.timedelta64) -> Any:
    """Doubles of numbers, codes and days (units since the epoch), NaN where they are missing; of text `find_words`."""
    values = frame[variable.column.name]
    if variable.column.type == "text":
        codes, words = find_words(values)
        if not variable.numbers:
            return codes, words
        return np.array([*(variable.numbers[word] for word in words), np.nan])[codes]
    if variable.column.type == "date":
        days = values.to_numpy("datetime64[us]")
        return np.where(np.isnat(days), np.nan, (days - epoch) / unit)
    return values.to_numpy("float64")


def derive_names_table(layouts: Mapping[str, Table], codes: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """How each column is called and coded in Stata and SPSS: table, column, variable, type, label, values ("1 = placebo
    (Placebo); ...") and missing_from (the column with the reasons, that these files hold as typed missing values)."""
    rows = [
        {
            "table": table.name,
            "column": variable.column.name,
            "variable": variable.name,
            "type": variable.column.type,
            "label": variable.column.label,
            "values": describe_values(variable),
            "missing_from": variable.column.reason,
        }
        for table in layouts.values()
        for variable in derive_variables(table, codes)
    ]
    columns = ["table", "column", "variable", "type", "label", "values", "missing_from"]
    return pd.DataFrame(rows, columns=columns, dtype="str")


def describe_values(variable: Variable) -> str:
    """What the numbers of a variable mean: "1 = placebo (Placebo); 2 = ..." of codes, "0 = No; 1 = Yes" of levels."""
    if variable.numbers:
        return "; ".join(
            f"{number} = {code}" + (f" ({variable.labels[number]})" if variable.labels[number] != code else "")
            for code, number in variable.numbers.items()
        )
    return "; ".join(f"{number} = {label}" for number, label in variable.labels.items())
