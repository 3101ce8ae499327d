"""A small study's return workbooks for tests, and ways to spoil them."""

from __future__ import annotations

import datetime as dt
import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import openpyxl
import pandas as pd

from study.instrument_parser import parse_instrument
from study.pack_layout import Choice, Column, Layout, Sheet, derive_return_layout
from study.protocol import parse_study
from tasks.workbooks import write_return_workbook

PROJECT = Path(__file__).resolve().parent.parent
ABOUT = {"site": "LUT", "posted_on": dt.date(2014, 3, 28), "sending_number": 2}

MISSING = (Choice("-9", "not answered"), Choice("-8", "refused"))
ZERO_TO_FIVE = tuple(Choice(str(code), "") for code in range(6))
KEYS = (
    Column("participant_id", "Participant", "text"),
    Column("respondent", "Respondent", "text", (Choice("self", "self"), Choice("carer", "carer"))),
    Column("form", "Form", "text", (Choice("standard", "standard"), Choice("easy_read", "easy read"))),
    Column("wave", "Wave", "text", (Choice("baseline", "Baseline"), Choice("week_8", "Week 8")), only_choices=False),
    Column("collected_on", "Collected on", "date"),
)
LAYOUT = Layout(
    study_id="bridge",
    study_title="Bridge study",
    version="1",
    site_ids=("LUT", "POR"),
    sheets=(
        Sheet(
            "allocation",
            "Allocation",
            "One row for each person allocated.",
            (
                KEYS[0],
                Column("arm", "Arm", "text", (Choice("high", "high dose"), Choice("low", "low dose"))),
                Column("allocated_on", "Allocated on", "date"),
            ),
        ),
        Sheet(
            "walk",
            "Walking scale",
            "One row for each questionnaire.",
            (
                *KEYS,
                Column("walk01", "Level ground", "item", ZERO_TO_FIVE, missing=MISSING),
                Column("walk02", "Stairs", "item", ZERO_TO_FIVE, missing=MISSING),
                Column("walk03", "Metres", "item", minimum=0, maximum=400, whole_numbers=True, missing=MISSING),
            ),
        ),
        Sheet(
            "mood",
            "Mood",
            "One row for each questionnaire.",
            (*KEYS, Column("mood01", "Mood today", "item", ZERO_TO_FIVE, missing=MISSING)),
        ),
    ),
)


def make_frames() -> dict[str, pd.DataFrame]:
    """Two people allocated, three walking records (rows 3 to 5), one of mood."""
    walk = pd.DataFrame(
        {
            "participant_id": ["LUT-001", "LUT-002", "0003"],
            "respondent": ["self", "carer", "self"],
            "form": ["standard", "standard", "easy_read"],
            "wave": ["baseline", "baseline", "week_8"],
            "collected_on": [dt.date(2014, 3, 1), dt.date(2014, 3, 2), dt.date(2014, 3, 3)],
            "walk01": [0.0, 5.0, -9.0],
            "walk02": [1.0, None, 3.0],
            "walk03": [400.0, 12.0, -8.0],
        },
        dtype=object,
    )
    allocation = pd.DataFrame(
        {
            "participant_id": ["LUT-001", "LUT-002"],
            "arm": ["high", "low"],
            "allocated_on": pd.to_datetime(["2014-02-01", "2014-02-03"]),
        }
    )
    mood = walk[["participant_id", "respondent", "form", "wave", "collected_on"]].iloc[:1].assign(mood01=[4.0])
    return {"allocation": allocation, "walk": walk, "mood": mood}


def make_return(**about: object) -> bytes:
    return write_return_workbook(LAYOUT, ABOUT | about, make_frames())


def edit(data: bytes, change: Callable[[openpyxl.Workbook], object]) -> bytes:
    """The workbook after a change that a person could make in a spreadsheet program."""
    workbook = openpyxl.load_workbook(io.BytesIO(data))
    change(workbook)
    buffer = io.BytesIO()
    workbook.save(buffer)
    workbook.close()
    return buffer.getvalue()


def list_parts(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rezip(parts: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def find_part(data: bytes, sheet: str) -> str:
    """The name of a worksheet's part in a workbook that xlsxwriter wrote."""
    workbook = openpyxl.load_workbook(io.BytesIO(data))
    number = workbook.sheetnames.index(sheet) + 1
    workbook.close()
    return f"xl/worksheets/sheet{number}.xml"


def spoil_part(data: bytes, name: str, change: Callable[[bytes], bytes]) -> bytes:
    parts = list_parts(data)
    changed = change(parts[name])
    assert changed != parts[name]
    return rezip(parts | {name: changed})


def load_layout(study_id: str) -> Layout:
    """The layout of a study in sites_config/."""
    study = parse_study(_read_folder(PROJECT / "sites_config" / study_id), study_id)
    instruments = {
        name: parse_instrument(name, _read_folder(PROJECT / "instruments" / name)) for name in study.instruments
    }
    return derive_return_layout(study, instruments)


def _read_folder(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder).as_posix()): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def list_studies() -> list[str]:
    return sorted(path.parent.name for path in (PROJECT / "sites_config").glob("*/study.toml"))
