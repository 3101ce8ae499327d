"""A small study with a pathway of every level, and ledgers told in one line a step."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from study.approval_entries import ENTRY_STEPS
from study.events import ApprovalEvent, Event
from study.protocol import Study, parse_study
from study.state import ROW_TYPES, Events, Head, decode_rows, format_moment
from tests.test_protocol import DEVON, TRIAL

NOON = datetime(2017, 1, 1, 12, tzinfo=UTC)

PATHWAY = """
[[approvals]]
id = "rec"
label = "REC favourable opinion"
level = "study"
authority = "REC"

[[approvals]]
id = "cag"
label = "Section 251 support"
level = "study"
authority = "CAG"
review_every = "12 months"
review_form_before = "4 weeks"

[[approvals]]
id = "adass"
label = "ADASS support"
level = "study"
authority = "ADASS"
needed_from_n_bodies = 3
counted_kinds = ["council"]

[[approvals]]
id = "council"
label = "Council approval"
level = "body"
authority = "The council"
body_kinds = ["council"]
submitted_after = ["rec"]

[[approvals]]
id = "trust"
label = "Capacity and capability"
level = "body"
authority = "R&D office"
body_kinds = ["nhs_trust"]
granted_after = ["rec"]

[[approvals]]
id = "access"
label = "Letter of access"
level = "person"
authority = "HR"
body_kinds = ["nhs_trust"]
must_state_expiry = true

[[approvals]]
id = "green_light"
label = "Green light"
level = "site"
authority = "Sponsor"
granted_after = ["rec"]

[[routes]]
id = "form"
approval = "rec"
label = "Form"

[[routes]]
id = "full"
approval = "cag"
label = "Full review"

[[routes]]
id = "adass_form"
approval = "adass"
label = "Form"

[[routes]]
id = "council_form"
approval = "council"
label = "Form"

[[routes]]
id = "rd_approval"
approval = "trust"
label = "R&D approval"
open_until = 2016-03-30

[[routes]]
id = "local_pack"
approval = "trust"
label = "Local information pack"
open_from = 2016-03-31

[[routes]]
id = "passport"
approval = "access"
label = "Research passport"

[[routes]]
id = "sponsor_check"
approval = "green_light"
label = "Check"

[[clocks]]
route = "form"
starts = "valid"
days = 60
unit = "calendar"
n_stops = 1
source = "Old rules."

[[clocks]]
route = "form"
applies_from = 2026-04-28
starts = "valid"
days = 30
unit = "calendar"
after_answer_days = 10
answer_days = 60
validation_days = 1
mending_days = 7
source = "New rules."

[[clocks]]
route = "local_pack"
starts = "submitted"
days = 10
unit = "working"
source = "Made up."

[[clocks]]
route = "council_form"
starts = "submitted"
unit = "working"
source = "No limit."

[[activities]]
id = "approach"
needs = ["rec", "adass", "council", "trust", "green_light"]

[[activities]]
id = "interview"
needs = ["rec", "access"]
"""

LUTON = """
site_id = "luton"
name = "Luton"
code = "LUT"
role = "both"

[[bodies]]
id = "luton_council"
name = "Luton Council"
kind = "council"
confirmed = false

[[bodies]]
id = "luton_trust"
name = "Luton Trust"
kind = "nhs_trust"
confirmed = false

[[bodies]]
id = "luton_university"
name = "Luton University"
kind = "university"
confirmed = true
"""


def make_study(pathway: str = PATHWAY) -> Study:
    files = {"study.toml": TRIAL, "sites/luton.toml": LUTON, "sites/devon.toml": DEVON, "approvals.toml": pathway}
    return parse_study({path: text.encode() for path, text in files.items()}, "trial")


ROUTES = {"rec": "form", "cag": "full", "adass": "adass_form", "council": "council_form", "trust": "local_pack"}
ROUTES |= {"access": "passport", "green_light": "sponsor_check"}
PLACES: dict[str, dict[str, str]] = {
    "rec": {},
    "cag": {},
    "adass": {},
    "council": {"site_id": "luton", "body_id": "luton_council"},
    "trust": {"site_id": "luton", "body_id": "luton_trust"},
    "access": {"site_id": "luton", "body_id": "luton_trust", "person_id": "R01"},
    "green_light": {"site_id": "luton"},
}


def step(name: str, on: str | date, approval: str = "rec", **fields: Any) -> ApprovalEvent:
    """A step of an approval, at Luton unless told otherwise, by the approval's usual route."""
    fields = {"approval": approval, "requested_by": "Siân Ó Briain", "occurred_on": on, **PLACES[approval], **fields}
    if name in ("submitted", "resubmitted"):
        fields = {"route": ROUTES[approval], **fields}
    if name == "withdrawn":
        fields = {"withdrawn_by": "applicant", **fields}
    return ENTRY_STEPS[name](**fields)


def tell(*told: Event) -> Events:
    """The ledger in which these stand as rows 1, 2, ..., recorded on successive minutes."""
    return tell_more(Events({}), *told)


def tell_more(before: Events, *told: Event) -> Events:
    """A ledger with further rows."""
    lines = []
    last = before.head.seq + len(told)
    for seq, event in enumerate(told, start=before.head.seq + 1):
        columns = {
            **dict.fromkeys(ROW_TYPES, ""),
            **{name: getattr(event, name) for name in ("key", "kind", "kind_version", "requested_by")},
            **{name: getattr(event, name) for name in ("site_id", "participant_id")},
            "seq": seq,
            "hash": f"{seq:064x}",
            "occurred_on": event.occurred_on.isoformat(),
            "recorded_at": format_moment(NOON + timedelta(minutes=seq)),
            "source_row": 0,
            "payload": event.encode_payload(),
        }
        lines.append("\x1f".join(str(columns[name]) for name in ROW_TYPES))
    parts = [decode_rows("\n".join(lines).encode())] if lines else []
    return before.extend(parts, Head(last, f"{last:064x}"))
