"""Messages for the tests of the outbox, and workspaces of the IPC study to queue them in."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from study.calendar import london_day
from study.contacts import compute_address_code
from study.events import ObligationChased, ParticipantScreened, ReleaseFrozen
from tasks.outbox import Letter, Outgoing, queue_message
from tasks.settings import Settings
from tasks.workspace import Clock, Workspace, create_workspace, read_clock

BY = "A. Tester"
SITE = "luton"


def open_outbox(folder: Path, url: str = "", clock: Clock = read_clock, **settings: Any) -> Workspace:
    own = {"data_folder": folder / "out", "contacts": folder / "contacts", "database_url": url, **settings}
    return create_workspace("ipc", settings=Settings(_env_file=None, **own), clock=clock)


def today(workspace: Workspace) -> date:
    return london_day(workspace.clock())


def make_outgoing(
    number: int, on: date, *, site_id: str = SITE, n_steps: int = 1, address: str = "", **changes: Any
) -> Outgoing:
    """Message `number` of a day, to person `number` of a site, with steps about participants of its own."""
    message_id = f"digest-{site_id}-{on}-{number}"
    address = address or f"person{number}@{site_id}.example"
    people = [f"{site_id}-{number}-{step}" for step in range(n_steps)]
    return Outgoing(
        **{
            "message_id": message_id,
            "category": "digest",
            "site_id": site_id,
            "person_id": f"person{number}",
            "role": "site_researcher",
            "template": "digest",
            "name": f"Zoë Person {number}",
            "address": address,
            "address_code": compute_address_code("ipc", address),
            "letter": Letter("What is owed – today", f"Dear Zoë\n.a line\nWe wait for {people}.", "<p>Dear Zoë</p>"),
            "obligations": tuple(make_step(message_id, person, on, site_id) for person in people),
            "participant_ids": tuple(people),
            **changes,
        }
    )


def make_step(message_id: str, participant_id: str, on: date, site_id: str = SITE) -> ObligationChased:
    return ObligationChased(
        occurred_on=on, requested_by=BY, site_id=site_id, participant_id=participant_id,
        chase=f"chase:return:{participant_id}:self:baseline:overdue", about="return", step="return_overdue",
        message_id=message_id, channel="email", due_on=on,
    )  # fmt: skip


def queue(workspace: Workspace, *numbers: int, **changes: Any) -> None:
    head = workspace.ledger.head().seq
    for number in numbers:
        message = make_outgoing(number, today(workspace), **changes)
        assert queue_message(workspace, message, head, today(workspace), BY)


def tell_news(workspace: Workspace, about: str) -> None:
    """Something new about a participant ("site:participant"), a site ("site"), or the study ("")."""
    site_id, _, participant_id = about.partition(":")
    if about:
        event: Any = ParticipantScreened(
            occurred_on=today(workspace), requested_by=BY, site_id=site_id, cohort="older_people",
            participant_id=participant_id or f"{site_id}-new-{workspace.ledger.head().seq}",
        )  # fmt: skip
    else:
        event = ReleaseFrozen(
            occurred_on=today(workspace), requested_by=BY, release=f"release-{workspace.ledger.head().seq}",
            as_of=today(workspace), known_at="2017-09-04T12:00:00.000000Z", manifest_sha256="0" * 64,
        )  # fmt: skip
    assert workspace.ledger.append([event])[0].answer == "added"
