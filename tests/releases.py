"""A study at work for tests of releases: the pilot's protocol in a folder of the test's, and events made by hand."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd

from study.events import (
    ConsentRecorded,
    DispositionRecorded,
    Event,
    ParticipantAllocated,
    ParticipantScreened,
    ReturnAccepted,
    ReturnFileProcessed,
    Source,
)
from study.returns import RESPONSE_COLUMNS
from tasks.definitions import scaffold_study
from tasks.files import FileArea
from tasks.returns import encode_responses
from tasks.settings import PROJECT, Settings
from tasks.workspace import Workspace, adopt_configuration, create_workspace

BY = "A. Tester"
MMSE = {"mmse01": 5, "mmse02": 4, "mmse03": 3, "mmse04": 4, "mmse05": 3, "mmse06": 8}


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, day: date) -> None:
        self.day = day

    def __call__(self) -> datetime:
        return datetime(self.day.year, self.day.month, self.day.day, 6, 30, tzinfo=UTC)


def open_study(
    folder: Path, *, study_id: str = "cdisc_pilot", name: str | None = None, area: FileArea | None = None
) -> Workspace:
    """A workspace with a copy of a study's definitions, that adopted them on 1 July 2012; its clock is a `Clock`.

    The study "new" is one that was begun just now: it has sites, and no instruments yet.
    """
    if study_id == "new":
        (folder / "sites_config").mkdir()
        scaffold_study("new", "A new study", folder / "sites_config", date(2012, 1, 1))
    else:
        shutil.copytree(PROJECT / "sites_config" / study_id, folder / "sites_config" / study_id, dirs_exist_ok=True)
    shutil.copytree(PROJECT / "instruments", folder / "instruments", dirs_exist_ok=True)
    settings = Settings(
        data_folder=folder / "out", sites_config=folder / "sites_config", instruments=folder / "instruments"
    )
    workspace = create_workspace(study_id, settings=settings, name=name, clock=Clock(date(2012, 7, 1)))
    if area is not None:
        workspace = replace(workspace, area=area)
    adopt_configuration(workspace, date(2012, 7, 1), BY)
    return workspace


def move_clock(workspace: Workspace, day: date) -> None:
    workspace.clock = workspace.ledger.clock = Clock(day)


def enrol(
    workspace: Workspace, participant_id: str, arm: str = "", on: date = date(2012, 8, 1), left: str = ""
) -> list[Event]:
    """Someone is screened, consents, is allocated to an arm (if one is given), and leaves treatment half a year on."""
    who = {"site_id": participant_id.split("-")[1], "participant_id": participant_id, "requested_by": BY}
    events: list[Event] = [
        ParticipantScreened(**who, occurred_on=on, cohort="alzheimers_disease"),
        ConsentRecorded(
            **who, occurred_on=on, form_version="1", scopes=("questionnaires", "treatment"), basis="assumed"
        ),
    ]
    if arm:
        events.append(ParticipantAllocated(**who, occurred_on=on, arm=arm))
    if left:
        events.append(DispositionRecorded(**who, occurred_on=date(2013, 2, 1), scope="treatment", reason=left))
    workspace.ledger.append(events)
    return events


def send(
    workspace: Workspace,
    participant_id: str,
    wave: str,
    on: date,
    answers: Mapping[str, float | str],
    *,
    instrument: str = "mmse",
    respondent: str = "self",
    version: int = 1,
    posted_on: date = date(2012, 9, 3),
    number: int = 1,
) -> str:
    """One file with one record is accepted; text among the answers is a missing reason. Gives the file's SHA-256."""
    site_id = participant_id.split("-")[1]
    return_id = f"{site_id}-{posted_on}-{number}"
    rows = [
        {
            "participant_id": participant_id, "respondent": respondent, "wave": wave, "instrument": instrument,
            "form": "standard", "item": item, "response": None if isinstance(value, str) else float(value),
            "missing_reason": value if isinstance(value, str) else "", "collected_on": on, "return_id": return_id,
        }
        for item, value in answers.items()
    ]  # fmt: skip
    responses = pd.DataFrame(rows)[RESPONSE_COLUMNS].astype({"response": "float64"})
    sha256 = workspace.content.put(f"a workbook: {rows}, {version}".encode())
    answers_sha256 = workspace.content.put(encode_responses(responses))
    common = {"site_id": site_id, "requested_by": BY, "return_id": return_id, "responses_sha256": answers_sha256}
    workspace.ledger.append(
        [
            ReturnAccepted(
                **common, occurred_on=on, participant_id=participant_id, respondent=respondent, wave=wave,
                instrument=instrument, form="standard", version=version, n_items=len(rows),
                n_answered=int(responses["response"].notna().sum()), source=Source(sha256=sha256, sheet="MMSE", row=3),
            ),
            ReturnFileProcessed(
                **common, occurred_on=max(posted_on, workspace.clock().date()), sha256=sha256, posted_on=posted_on,
                sending_number=number, size_bytes=10, outcome="accepted", n_accepted=1, source=Source(sha256=sha256),
            ),
        ]
    )  # fmt: skip
    return sha256


def fill_study(workspace: Workspace) -> None:
    """Three people at two sites, one never allocated; three questionnaires, one at an unscheduled occasion."""
    move_clock(workspace, date(2012, 9, 3))
    enrol(workspace, "01-701-1015", "placebo")
    enrol(workspace, "01-701-1023", "high_dose", left="adverse_event")
    enrol(workspace, "01-702-1082")
    send(workspace, "01-701-1015", "screening", date(2012, 8, 1), MMSE)
    send(workspace, "01-701-1023", "screening", date(2012, 8, 2), {**MMSE, "mmse06": "refused"}, number=2)
    rating = {"cibic": 4}
    move_clock(workspace, date(2013, 3, 4))
    send(
        workspace, "01-701-1023", "RETRIEVAL", date(2013, 3, 1), rating, instrument="cibic_plus",
        posted_on=date(2013, 3, 4),
    )  # fmt: skip
