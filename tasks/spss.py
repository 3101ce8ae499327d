"""SPSS files (.sav, .zsav) as tables of text, with what they say of their variables."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from study.approval_entries import EntryFault
from study.flat_exports import Export

SAV_MAGIC = (b"$FL2", b"$FL3")
_READER = Path(__file__).with_name("spss_reader.py")
_SECONDS = 60


def read_sav(data: bytes) -> Export:
    """An SPSS file as text: codes as they are, days as 2026-02-01, missing values as they stand, with what the file
    says of its variables. Raises EntryFault for a file that cannot be read.

    A process of its own reads it: see `tasks.spss_reader`. Days are made there from the seconds that the file holds:
    what a library makes of them depends on how it and pandas count time.
    """
    try:
        done = subprocess.run(  # noqa: S603  # our own program
            [sys.executable, str(_READER)], input=data, capture_output=True, timeout=_SECONDS, check=True
        )
        found = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError):
        raise EntryFault("The file cannot be read as an SPSS file. Save it as .sav again, and take that.") from None
    found["missing"] = {name: frozenset(values) for name, values in found["missing"].items()}
    return Export(numbers=range(1, len(found["lines"]) + 1), **found)
