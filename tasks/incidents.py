"""The incident register in the ledger: open an incident, take its steps, admit or exclude what it holds back.

What a person records is checked against what stands, and appended under the write lock only if nothing that concerns
the site was recorded in between. What an admission accepts is appended together with the decision, or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from study.calendar import london_day
from study.events import Event, IncidentDecided, IncidentEvent, IncidentOpened
from study.incidents import (
    compute_assess_by,
    derive_admission,
    derive_incident_ids,
    find_incident_faults,
    find_site_of_incident,
    number_step,
)
from tasks.ledger import Answer, LedgerRefused
from tasks.returns import read_responses
from tasks.workspace import Workspace


class IncidentRefused(LedgerRefused):
    """Why a step of an incident cannot be recorded: every reason, one sentence each."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(self.faults))


@dataclass(frozen=True)
class Recorded:
    """What became of a step. `answer`: "same" where it stood already. `n_admitted`: records accepted by it; `n_left`:
    records of the incident that stand otherwise since, and were left alone."""

    incident_id: str
    answer: Answer
    n_admitted: int = 0
    n_left: int = 0


def open_incident(workspace: Workspace, told: IncidentOpened) -> Recorded:
    """Enter an incident that a person noticed. Its number and the day by which it must be assessed are given here,
    whatever it says of them. The same incident told again keeps its number. Raises IncidentRefused."""
    today = london_day(workspace.clock())
    told = told.model_copy(update={"assess_by": compute_assess_by(workspace.study, told.category, told.found_on)})
    if faults := find_incident_faults(workspace.study, workspace.read_events(), told, today):
        raise IncidentRefused(faults)
    with workspace.ledger.writing() as writing:
        standing = writing.find_keys([told.key]).get(told.key)
        if standing is None or standing.is_voided:
            n_already = writing.count(IncidentOpened.kind, told.site_id)
            (number,) = derive_incident_ids(told.site_id or workspace.study.study_id, n_already, 1)
            writing.append([told.model_copy(update={"incident_id": number})])
            return Recorded(number, "added")
    opened = workspace.read_events().frame(IncidentOpened).set_index("key")
    return Recorded(str(opened["incident_id"][told.key]), "same")


def record_step(workspace: Workspace, told: IncidentEvent) -> Recorded:
    """Record a later step of an incident; an admission accepts what the incident holds, in the same append.

    Raises IncidentRefused with every reason, and FileMissing where answers that are to be admitted are gone.
    """
    today = london_day(workspace.clock())
    while True:
        events = workspace.read_events()
        site_id = find_site_of_incident(events, told.incident_id)
        event = number_step(events, told.model_copy(update={"site_id": site_id}))
        if faults := find_incident_faults(workspace.study, events, event, today):
            raise IncidentRefused(faults)
        steps: list[Event] = [event]
        n_left = 0
        if isinstance(event, IncidentDecided) and event.decision == "admitted":
            accepted, n_left = derive_admission(events, event)
            for sha256 in {record.responses_sha256 for record in accepted}:
                read_responses(workspace, sha256)
            steps += accepted
        with workspace.ledger.writing() as writing:
            if writing.newest_seq(site_ids=[site_id, ""]) > events.head.seq:
                continue
            answers = writing.append(steps)
            if refused := [answer.key for answer in answers if answer.answer == "conflict"]:
                raise IncidentRefused([f"{event.incident_id}: the ledger holds {refused[0]} otherwise."])
        return Recorded(event.incident_id, answers[0].answer, len(steps) - 1, n_left)
