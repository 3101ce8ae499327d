"""A small study with three waves, packs and respondents by consent, and ledgers whose rows were recorded when told."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pyarrow as pa

from study.events import ApproachAnswered, Event, HoldLifted, ParticipantAllocated, ParticipantApproached
from study.protocol import Study, parse_study
from study.state import Events
from tests.approval_histories import LUTON, tell
from tests.consent_histories import collected, screened, signed
from tests.test_protocol import DEVON, TRIAL, replace_once

OPEN = "".join(
    f'[[activities]]\nid = "{name}"\nneeds = []\n'
    for name in ("approach", "recruit", "collect_baseline", "collect_follow_up")
)

FIELDWORK = """
[[releases]]
wave = "baseline"
mode = "on_request"

[[releases]]
wave = "follow_up_6m"
mode = "automatic"
lead = "2 weeks"

[[releases]]
wave = "follow_up_12m"
mode = "automatic"
lead = "2 weeks"

[[respondents]]
respondent = "self"
routes = ["self"]

[[respondents]]
respondent = "proxy"
routes = ["consultee", "parent"]

[[respondents]]
respondent = "carer"
scopes = ["carer_contact"]

[[consent]]
needed_scope = "questionnaires"
copy_within = 10
reconsent_after = "12 months"
source = "Made up."
"""

_MORE = """
[[waves]]
id = "follow_up_12m"
label = "12-month follow-up"
role = "follow_up"
anchor = "baseline"
offset = "12 months"
window = "visit"

[[waves]]
id = "home_visit"
label = "Home visit"
role = "follow_up"
anchor = "allocated"
offset = "1 month"
window = "visit"

[[schedule]]
instrument = "mood"
respondent = "self"
forms = ["standard", "easy_read"]
waves = ["follow_up_12m", "home_visit"]

[[schedule]]
instrument = "walking"
respondent = "self"
forms = ["standard"]
waves = ["baseline", "follow_up_6m", "follow_up_12m"]

[[schedule]]
instrument = "mood"
respondent = "proxy"
forms = ["standard"]
waves = ["baseline", "follow_up_6m", "follow_up_12m"]

[[schedule]]
instrument = "mood"
respondent = "carer"
forms = ["easy_read"]
waves = ["follow_up_6m"]
cohorts = ["younger"]

[[consent_scopes]]
id = "carer_contact"
label = "Contact with the carer"

[[consent_forms]]
version = "2.0"
label = "Form 2"
in_force_from = 2018-02-01
scopes = ["questionnaires", "carer_contact"]

[[disposition_reasons]]
id = "withdrew"
label = "Withdrew"
kind = "loss"
scopes = ["treatment", "questionnaires", "linkage", "post", "data", "study"]

[[disposition_reasons]]
id = "not_eligible"
label = "Found not eligible"
kind = "exclusion"
scopes = ["study"]
"""

_STUDY = TRIAL + _MORE
for _old, _new in (
    ('respondents = ["self", "carer"]', 'respondents = ["self", "proxy", "carer"]'),
    ('forms = ["standard"]\ninstruments', 'forms = ["standard", "easy_read"]\ninstruments'),
    ('instruments = ["mood"]', 'instruments = ["mood", "walking"]'),
    ('forms = ["standard"]\nwaves = ["baseline"', 'forms = ["standard", "easy_read"]\nwaves = ["baseline"'),
    ('id = "died"\nlabel = "Died"\nkind = "death"\nscopes = ["study"]',
     'id = "died"\nlabel = "Died"\nkind = "death"\nscopes = ["treatment", "study"]'),
):  # fmt: skip
    _STUDY = replace_once(_STUDY, _old, _new)


def make_study(*changes: tuple[str, str], fieldwork: str = FIELDWORK, pathway: str = OPEN, more: str = "") -> Study:
    """The study "trial" with two open sites; `changes`: texts of its protocol to replace, `more` to append."""
    study = _STUDY + more
    for old, new in changes:
        study = replace_once(study, old, new)
    files = {"study.toml": study, "sites/luton.toml": LUTON, "sites/devon.toml": DEVON}
    files |= {"approvals.toml": pathway, "fieldwork.toml": fieldwork}
    return parse_study({path: text.encode() for path, text in files.items()}, "trial")


def _who(on: str, person: str) -> dict[str, Any]:
    site_id = {"LUT": "luton", "DEV": "devon"}[person[:3]]
    return {"occurred_on": on, "requested_by": "Siân", "site_id": site_id, "participant_id": person}


def approached(on: str, person: str = "LUT-001", **fields: Any) -> ParticipantApproached:
    return ParticipantApproached(**_who(on, person), **{"cohort": "older", **fields})


def answered(on: str, outcome: str = "agreed", person: str = "LUT-001") -> ApproachAnswered:
    return ApproachAnswered(**_who(on, person), outcome=outcome)


def allocated(on: str, person: str = "LUT-001") -> ParticipantAllocated:
    return ParticipantAllocated(**_who(on, person), arm="budget")


def lifted(hold: str, on: str = "2017-09-01", wave: str = "baseline", person: str = "LUT-001") -> HoldLifted:
    decision = {"role": "project_manager", "reason": "accepted", "reference": "REC-17"}
    return HoldLifted(**_who(on, person), wave=wave, hold=hold, **decision)


def enrol(person: str = "LUT-001", on: str = "2017-09-04", baseline_on: str = "", **fields: Any) -> list[Event]:
    """Somebody screened and consented, and, with a day for it, a whole baseline by the person themselves."""
    told: list[Event] = [screened(on, person), signed(on, person, **fields)]
    if baseline_on:
        told += [collected(baseline_on, person=person, instrument=name) for name in ("mood", "walking")]
    return told


def tell_when(*told: tuple[datetime, Event]) -> Events:
    """The ledger in which these stand, each recorded at its moment."""
    events = tell(*(event for _, event in told))
    return _record_at(events, {seq: moment for seq, (moment, _) in enumerate(told, start=1)})


def _record_at(events: Events, moments: Mapping[int, datetime]) -> Events:
    tables = {}
    for kind, table in events.tables.items():
        column = table.schema.get_field_index("recorded_at")
        recorded = pa.array([moments[seq] for seq in table["seq"].to_pylist()], table.schema.field(column).type)
        tables[kind] = table.set_column(column, "recorded_at", recorded)
    return Events(tables, events.head)
