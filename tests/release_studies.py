"""A small study that sends out waves, in a folder of the test's, and people who join it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from study.events import (
    ApprovalGranted,
    ApprovalSubmitted,
    ConsentRecorded,
    DispositionRecorded,
    Event,
    ParticipantScreened,
    ReturnAccepted,
)
from study.fieldwork import IdentifierRule
from study.identifiers import compute_identifier
from study.protocol import Study, parse_study
from tasks.settings import Settings
from tasks.workspace import Workspace, create_workspace
from tests.test_protocol import DEVON, LUTON, TRIAL, replace_once

BY = "A. Tester"
RULE = IdentifierRule(form="{code}-P{number}{check}", digits=4, block=20)

STUDY = TRIAL
for _old, _new in (
    (r"'(?P<site>[A-Z]{3})-\d{3}'", r"'(?P<site>[A-Z]{3})-P\d{5}'"),
    ('participant_id_example = "LUT-001"', 'participant_id_example = "LUT-P00013"'),
    ('instrument = "care"\nrespondent = "carer"', 'instrument = "mood"\nrespondent = "carer"'),
    ('[[planned_instruments]]\nid = "care"\nlabel = "Care received"\n', ""),
    ("in_force_until = 2018-01-31\n", ""),
    ('due = "0 days"\ncloses = "2 weeks"', 'due = "2 weeks"\ncloses = "4 weeks"'),
    ('late_until = "1 month"', 'late_until = "2 months"'),
):  # fmt: skip
    STUDY = replace_once(STUDY, _old, _new)

APPROVALS = """
[[approvals]]
id = "green_light"
label = "Green light"
level = "site"
authority = "Sponsor"

[[routes]]
id = "check"
approval = "green_light"
label = "Check"
"""
for _activity in ("approach", "recruit", "collect_baseline", "collect_follow_up"):
    APPROVALS += f'\n[[activities]]\nid = "{_activity}"\nneeds = ["green_light"]\n'

FIELDWORK = """
[[releases]]
wave = "baseline"
mode = "on_request"
lead = "0 days"
at_once = 5

[[releases]]
wave = "follow_up_6m"
mode = "automatic"
lead = "2 weeks"
at_once = 5

[[identifiers]]
form = "{code}-P{number}{check}"
digits = 4
block = 20

[[approach_reasons]]
id = "no_time"
label = "No time"
outcome = "declined"

[[consent]]
needed_scope = "questionnaires"
copy_within = 10
source = "Made up."

[[figures]]
id = "plans"
label = "Care plans"
due = "10 days"
from_month = "2017-07"
until_month = "2018-11"
"""

MOOD = """
id = "mood"
title = "Mood"
sheet_title = "Mood"
version = "1"
citation = "Written for this test."
licence = "Free to use."
respondents = ["self", "carer"]
forms = ["standard"]

[missing_codes]
-9 = "not_answered"
-8 = "refused"
-7 = "not_applicable"
-6 = "illegible"
-5 = "not_asked"

[[items]]
id = "mood01"
label = "Mood today"
levels = "0 to 4"

[[scales]]
id = "mood_total"
label = "Mood"
method = "sum"
items = ["mood01"]
minimum = 0
maximum = 4
"""
EXAMPLES = "example,evidence,source,decimals,expected_mood_total,mood01\nbest,hand_computed,Stated,0,4,4\n"


class Clock:
    """Noon in UTC of a day, until it is moved."""

    def __init__(self, day: date) -> None:
        self.day = day

    def __call__(self) -> datetime:
        return datetime(self.day.year, self.day.month, self.day.day, 12, tzinfo=UTC)


@cache
def make_study(fieldwork: str = FIELDWORK) -> Study:
    files = {
        "study.toml": STUDY, "approvals.toml": APPROVALS, "fieldwork.toml": fieldwork,
        "sites/luton.toml": LUTON, "sites/devon.toml": DEVON,
    }  # fmt: skip
    return parse_study({path: text.encode() for path, text in files.items()}, "trial")


def write_definitions(folder: Path, fieldwork: str = FIELDWORK, n_sites: int = 0) -> None:
    """The study and its instrument as files, below `folder`; with further sites: `area_a`, `area_b` and so on."""
    sites = {"sites/luton.toml": LUTON, "sites/devon.toml": DEVON}
    for letter in ascii_lowercase[:n_sites]:
        text = LUTON.replace("luton", f"area_{letter}").replace("LUT", f"AR{letter.upper()}")
        text = text.replace("Luton", f"Area {letter.upper()}")
        sites[f"sites/area_{letter}.toml"] = text
    study = {"study.toml": STUDY, "approvals.toml": APPROVALS, "fieldwork.toml": fieldwork, **sites}
    files = {f"sites_config/trial/{name}": text for name, text in study.items()}
    files |= {"instruments/mood/definition.toml": MOOD, "instruments/mood/worked_examples.csv": EXAMPLES}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def open_trial(folder: Path, day: date, *, fieldwork: str = FIELDWORK, **settings: Any) -> Workspace:
    """The study at work in a folder; time stands at noon of a day. Several may be open at once."""
    if not (folder / "sites_config").exists():
        write_definitions(folder, fieldwork)
    chosen = Settings(
        data_folder=folder / "out", sites_config=folder / "sites_config", instruments=folder / "instruments", **settings
    )
    return create_workspace("trial", settings=chosen, clock=Clock(day))


def move_clock(workspace: Workspace, day: date) -> None:
    workspace.clock = workspace.ledger.clock = Clock(day)


def identify(number: int, site_id: str = "luton") -> str:
    """The identifier of a number at a site."""
    codes = {"luton": "LUT", "devon": "DEV"}
    return compute_identifier(RULE, codes.get(site_id, f"AR{site_id[-1].upper()}"), number)


def grant(*sites: str, on: date = date(2017, 6, 1)) -> list[Event]:
    """The sites are open for everything from this day on."""
    about = [{"occurred_on": on, "requested_by": BY, "approval": "green_light", "site_id": site} for site in sites]
    told: list[Event] = [ApprovalSubmitted(**one, route="check") for one in about]
    return [*told, *(ApprovalGranted(**one) for one in about)]


def join(numbers: Iterable[int], on: date, site_id: str = "luton", *, cohort: str = "younger") -> list[Event]:
    """People are screened and consent on a day."""
    events: list[Event] = []
    for number in numbers:
        who = {"occurred_on": on, "requested_by": BY, "site_id": site_id, "participant_id": identify(number, site_id)}
        events.append(ParticipantScreened(**who, cohort=cohort))
        events.append(
            ConsentRecorded(
                **who, form_version="1.0", scopes=("questionnaires",), basis="signed", route="self", copy_filed="yes"
            )
        )
    return events


def answer(numbers: Iterable[int], wave: str, on: date, site_id: str = "luton") -> list[Event]:
    """Their questionnaires of a wave come in, filled in on a day."""
    return [
        ReturnAccepted(
            occurred_on=on, requested_by=BY, site_id=site_id, participant_id=identify(number, site_id),
            return_id=f"{site_id}-{on}-1", respondent="self", wave=wave, instrument="mood", form="standard", version=1,
            n_items=1, n_answered=1, responses_sha256="0" * 64,
        )
        for number in numbers
    ]  # fmt: skip


def leave(number: int, on: date, site_id: str = "luton") -> list[Event]:
    return [
        DispositionRecorded(
            occurred_on=on, requested_by=BY, site_id=site_id, participant_id=identify(number, site_id), scope="study",
            reason="died",
        )
    ]  # fmt: skip
