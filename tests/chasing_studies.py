"""A small study with ladders, and people at its sites: for tests of chasing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from study.contacts import Contacts, parse_contacts
from study.events import (
    ActivityReported,
    ApprovalGranted,
    ApprovalWithdrawn,
    CallLogged,
    ChasingPaused,
    ChasingResumed,
    ConsentRecorded,
    DispositionRecorded,
    Event,
    ObligationChased,
    PackDelivered,
    ParticipantScreened,
    QueryAnswered,
    QueryClosed,
    QueryRaised,
    ReturnAccepted,
    ReturnReleased,
)
from study.protocol import Study, parse_study
from tasks.mail import OUTBOX_FOLDER
from tasks.workspace import Workspace
from tests import release_studies
from tests.release_studies import BY, grant, identify, open_trial
from tests.test_protocol import DEVON, LUTON

CHASERS = """
[[chasers]]
id = "light_waiting"
about = "authority"
counts_from = "turn"
days = 20
unit = "working"
to = "project_manager"
channel = "email"
template = "approval_escalated"

[[chasers]]
id = "light_lapsed"
about = "applicant"
counts_from = "turn"
days = 1
unit = "working"
to = "project_manager"
channel = "email"
template = "answer_owed"
"""

LADDER = """
[[ladder]]
id = "soon"
about = "return"
counts_from = "due"
days = -5
to = "site_researcher"
channel = "email"
template = "return_expected"

[[ladder]]
id = "late"
about = "return"
counts_from = "due"
days = 3
to = "site_researcher"
channel = "email"
template = "return_overdue"

[[ladder]]
id = "call"
about = "return"
counts_from = "due"
days = 10
to = "site_lead"
channel = "telephone"
template = "return_call"

[[ladder]]
id = "last"
about = "return"
counts_from = "due"
days = 20
to = "site_lead"
channel = "email"
template = "return_last"
tells = "project_manager"

[[ladder]]
id = "copy"
about = "consent_copy"
counts_from = "due"
days = 1
to = "site_researcher"
channel = "email"
template = "consent_copy_overdue"

[[ladder]]
id = "again"
about = "reconsent"
counts_from = "due"
days = 0
to = "site_researcher"
channel = "email"
template = "reconsent_due"

[[ladder]]
id = "query"
about = "query"
counts_from = "due"
days = 1
to = "site_researcher"
channel = "email"
template = "query_open"

[[ladder]]
id = "figure"
about = "activity_figures"
counts_from = "due"
days = 1
to = "site_lead"
channel = "email"
template = "figures_overdue"

[[quiet_periods]]
id = "christmas"
label = "Christmas"
from_on = 2017-12-20
until_on = 2018-01-02

[[quiet_periods]]
id = "luton_leave"
label = "Luton's own leave"
from_on = 2017-10-23
until_on = 2017-10-27
sites = ["luton"]
about = ["return"]

[[chasing]]
weekly_digests = 2
query_within = 5
answer_days = 10
coordinator = "fieldwork_coordinator"
manager = "project_manager"
"""
FIELDWORK = release_studies.FIELDWORK + LADDER
NO_FIGURES = FIELDWORK.partition("[[figures]]")[0] + LADDER

CONTACTS = """
[[people]]
person_id = "rosa"
name = "Rosa Reed"
email = "rosa@luton.invalid"
role = "site_researcher"
site_id = "luton"
deputy_id = "dora"
leave = [[2017-09-25, 2017-09-29]]

[[people]]
person_id = "dora"
name = "Dora Dean"
email = "dora@luton.invalid"
role = "care_worker"
site_id = "luton"

[[people]]
person_id = "lena"
name = "Lena Lamb"
email = "lena@luton.invalid"
telephone = "01582 000000"
role = "site_lead"
site_id = "luton"

[[people]]
person_id = "ravi"
name = "Ravi Rao"
email = "ravi@devon.invalid"
role = "site_researcher"
also = ["site_lead"]
site_id = "devon"

[[people]]
person_id = "mona"
name = "Mona Mann"
email = "mona@study.invalid"
role = "project_manager"

[[people]]
person_id = "cora"
name = "Cora Cole"
email = "cora@study.invalid"
telephone = "020 0000 0000"
role = "fieldwork_coordinator"
""".replace('role = "care_worker"', 'role = "senior_responsible_officer"')

JOINED = date(2017, 8, 1)
"""A Tuesday. The baseline is due on 15 August, its window closes on the 29th, late returns count to 1 October (Sunday:
moved to 2 October)."""


@cache
def make_study(fieldwork: str = NO_FIGURES, approvals: str = release_studies.APPROVALS) -> Study:
    files = {
        "study.toml": release_studies.STUDY + WITHDREW, "approvals.toml": approvals, "fieldwork.toml": fieldwork,
        "sites/luton.toml": LUTON, "sites/devon.toml": DEVON,
    }  # fmt: skip
    return parse_study({path: text.encode() for path, text in files.items()}, "trial")


WITHDREW = """
[[disposition_reasons]]
id = "withdrew"
label = "Withdrew"
kind = "loss"
scopes = ["treatment", "questionnaires", "linkage", "post", "data", "study"]
"""


def read_contacts(text: str = CONTACTS) -> Contacts:
    return parse_contacts(text.encode(), make_study())


def who(number: int, on: date | str, site_id: str = "luton") -> dict[str, Any]:
    return {"occurred_on": on, "requested_by": BY, "site_id": site_id, "participant_id": identify(number, site_id)}


def joined(
    *numbers: int, on: date | str = JOINED, site_id: str = "luton", filed: str = "yes", **fields: Any
) -> list[Event]:
    """People who were screened and consented on a day; with `filed` the form is in its folder."""
    usual: dict[str, Any] = {"form_version": "1.0", "scopes": ("questionnaires",), "basis": "signed", "route": "self"}
    events: list[Event] = []
    for number in numbers:
        about = who(number, on, site_id)
        events.append(ParticipantScreened(**about, cohort="younger"))
        events.append(ConsentRecorded(**about, **{**usual, **fields}, copy_filed=filed))
    return events


def released(
    *numbers: int, on: date | str = JOINED, site_id: str = "luton", wave: str = "baseline", copy: int = 1
) -> list[Event]:
    """A pack with their questionnaires goes out on a day and lies in the outbox."""
    day = date.fromisoformat(str(on))
    pack = f"{site_id}-{on}-{wave}-{copy}"
    out: list[Event] = [
        ReturnReleased(
            **who(number, on, site_id), pack_id=pack, respondent="self", wave=wave, copy_number=copy, form="standard",
            instruments=("mood",), opens_on=on, due_on=day + timedelta(days=14), late_until=day + timedelta(days=62),
        )
        for number in numbers
    ]  # fmt: skip
    return [*out, PackDelivered(occurred_on=on, requested_by=BY, site_id=site_id, pack_id=pack)]


def accepted(number: int, on: date | str, wave: str = "baseline", site_id: str = "luton", version: int = 1) -> Event:
    return ReturnAccepted(
        **who(number, on, site_id), return_id=f"{site_id}-{on}-1", respondent="self", wave=wave, instrument="mood",
        form="standard", version=version, n_items=1, n_answered=1, responses_sha256="0" * 64,
    )  # fmt: skip


def left(number: int, on: date | str, scope: str = "study", reason: str = "died", site_id: str = "luton") -> Event:
    return DispositionRecorded(**who(number, on, site_id), scope=scope, reason=reason)


def raised(number: int, on: date | str, query_id: str = "LUT-0001", site_id: str = "luton") -> Event:
    return QueryRaised(
        **who(number, on, site_id), query_id=query_id, rule="item_missing", severity="soft",
        subject=f"record:{identify(number, site_id)}", wave="baseline", instrument="mood",
    )  # fmt: skip


def answered(on: date | str, query_id: str = "LUT-0001", site_id: str = "luton") -> Event:
    return QueryAnswered(occurred_on=on, requested_by=BY, site_id=site_id, query_id=query_id, answer="confirmed")


def closed(on: date | str, query_id: str = "LUT-0001", site_id: str = "luton") -> Event:
    return QueryClosed(occurred_on=on, requested_by=BY, site_id=site_id, query_id=query_id, reason="mended")


def reported(on: date | str, month: str, reported_to: str, site_id: str = "luton") -> Event:
    return ActivityReported(
        occurred_on=on, requested_by=BY, site_id=site_id, figure="plans", month=month, reported_to=reported_to, count=3
    )


def paused(on: date | str, site_id: str = "", participant_id: str = "", pause: str = "p1", **fields: Any) -> Event:
    return ChasingPaused(
        occurred_on=on, requested_by=BY, site_id=site_id, participant_id=participant_id, pause=pause,
        reason="staff_ill", **fields,
    )  # fmt: skip


def resumed(on: date | str, site_id: str = "", pause: str = "p1") -> Event:
    return ChasingResumed(occurred_on=on, requested_by=BY, site_id=site_id, pause=pause)


def called(on: date | str, about: Sequence[str], outcome: str = "promised", until: str | None = None) -> Event:
    return CallLogged(
        occurred_on=on, requested_by=BY, site_id="luton", direction="out", about=tuple(about), outcome=outcome,
        promised_on=until,
    )  # fmt: skip


def chased(*keys: str, on: date | str = JOINED, site_id: str = "luton") -> list[Event]:
    """These steps were taken."""
    return [
        ObligationChased(
            occurred_on=on, requested_by=BY, site_id=site_id, chase=key, about="return", step=key.rpartition(":")[2],
            channel="email", due_on=on,
        )
        for key in keys
    ]  # fmt: skip


def lapsed(on: date | str, site_id: str = "luton") -> Event:
    """The site's green light is taken back."""
    return ApprovalWithdrawn(
        occurred_on=on, requested_by=BY, approval="green_light", site_id=site_id, withdrawn_by="authority"
    )


def granted_until(expires_on: date | str, site_id: str = "luton", on: date | str = "2017-06-01") -> list[Event]:
    first, _ = grant(site_id, on=date.fromisoformat(str(on)))
    about = {"occurred_on": on, "requested_by": BY, "approval": "green_light", "site_id": site_id}
    return [first, ApprovalGranted(**about, expires_on=expires_on)]


class Tick:
    """A clock that shows half past six in London of a day."""

    def __init__(self, day: date) -> None:
        self.day = day

    def __call__(self) -> datetime:
        return datetime.combine(self.day, time(5, 30), UTC)


def open_chasing(folder: Path, day: date, contacts: str = CONTACTS, fieldwork: str = NO_FIGURES) -> Workspace:
    """The study at work in a folder, with its contacts; letters go into a folder of files."""
    workspace = open_trial(folder, day, fieldwork=fieldwork)
    workspace.study = make_study(fieldwork)
    (workspace.folder / "contacts.toml").write_text(contacts, encoding="utf-8")
    set_day(workspace, day)
    return workspace


def set_day(workspace: Workspace, day: date) -> None:
    workspace.clock = workspace.ledger.clock = Tick(day)


def list_mail(workspace: Workspace) -> list[Path]:
    """The letters that went out, as files, in the order of their names."""
    return sorted((workspace.folder / OUTBOX_FOLDER).rglob("*.eml"))
