"""A small study with rules for consent, and what sites tell of people, one line each."""

from datetime import date
from typing import Any

from study.events import (
    ConsentCopyChecked,
    ConsentRecorded,
    DispositionRecorded,
    PackDelivered,
    ParticipantScreened,
    ReturnAccepted,
    ReturnRefused,
    ReturnReleased,
    Source,
)
from study.protocol import Study, parse_study
from tests.approval_histories import LUTON, PATHWAY
from tests.test_protocol import DEVON, TRIAL, replace_once

FIELDWORK = """
[[respondents]]
respondent = "carer"
scopes = ["carer_contact"]

[[consent]]
needed_scope = "questionnaires"
linkage_scope = "linkage"
copy_within = 10
data_withdrawal_within = "6 months"
not_withdrawals = ["lost_contact"]
document = "consent_form"
source = "Made up."
"""

_SCOPES = """
[[consent_scopes]]
id = "linkage"
label = "Linkage to records"

[[consent_scopes]]
id = "carer_contact"
label = "Contact with the carer"

[[consent_forms]]
version = "2.0"
label = "Form 2"
in_force_from = 2018-02-01
scopes = ["questionnaires", "linkage", "carer_contact"]
"""

_REASONS = """
[[disposition_reasons]]
id = "completed"
label = "Completed"
kind = "completion"
scopes = ["treatment", "questionnaires", "study"]

[[disposition_reasons]]
id = "withdrew"
label = "Withdrew"
kind = "loss"
scopes = ["treatment", "questionnaires", "linkage", "post", "data", "study"]

[[disposition_reasons]]
id = "lost_contact"
label = "Contact lost"
kind = "loss"
scopes = ["questionnaires", "study"]

[[disposition_reasons]]
id = "moved"
label = "Moved, address not known"
kind = "loss"
scopes = ["post"]

[[disposition_reasons]]
id = "not_eligible"
label = "Found not eligible"
kind = "exclusion"
scopes = ["study"]
"""

DOCUMENTS = """
[[documents]]
id = "consent_form"
label = "Consent form"

[[incident_rules]]
category = "consent_breach"
owner = "sponsor"
assess_days = 5
unit = "working"
source = "Made up."
"""


def make_study(fieldwork: str = FIELDWORK, pathway: str = PATHWAY + DOCUMENTS) -> Study:
    """The study "trial" with two sites, two versions of the consent form, and rules for consent."""
    files = {
        "study.toml": replace_once(TRIAL, 'scopes = ["study"]', 'scopes = ["treatment", "study"]') + _SCOPES + _REASONS,
        "sites/luton.toml": LUTON,
        "sites/devon.toml": DEVON,
        "approvals.toml": pathway,
        "fieldwork.toml": fieldwork,
    }
    return parse_study({path: text.encode() for path, text in files.items()}, "trial")


def _who(on: str | date, person: str) -> dict[str, Any]:
    site_id = {"LUT": "luton", "DEV": "devon"}[person[:3]]
    return {"occurred_on": on, "requested_by": "Siân", "site_id": site_id, "participant_id": person}


def screened(on: str, person: str = "LUT-001", **fields: Any) -> ParticipantScreened:
    return ParticipantScreened(**_who(on, person), **{"cohort": "older", **fields})


def signed(on: str, person: str = "LUT-001", **fields: Any) -> ConsentRecorded:
    usual: dict[str, Any] = {"form_version": "1.0", "scopes": ("questionnaires",), "basis": "signed", "route": "self"}
    return ConsentRecorded(**_who(on, person), **{**usual, **fields})


def looked(
    on: str, finding: str, check: int = 1, person: str = "LUT-001", version: str = "1.0", renewal: str = ""
) -> ConsentCopyChecked:
    told = {**_who(on, person), "form_version": version, "renewal": renewal, "check": check, "finding": finding}
    return ConsentCopyChecked.model_validate({**told, "role": "coordinator"})


def left(on: str, scope: str, reason: str = "withdrew", person: str = "LUT-001") -> DispositionRecorded:
    return DispositionRecorded(**_who(on, person), scope=scope, reason=reason)


def collected(on: str, wave: str = "baseline", person: str = "LUT-001", **fields: Any) -> ReturnAccepted:
    usual: dict[str, Any] = {
        "return_id": "luton-2017-09-04-1", "respondent": "self", "wave": wave, "instrument": "mood",
        "form": "standard", "version": 1, "n_items": 2, "n_answered": 2, "responses_sha256": "a" * 64,
    }  # fmt: skip
    return ReturnAccepted(**_who(on, person), **{**usual, **fields})


def released(on: str, pack: str = "luton-2018-02-12-1", person: str = "LUT-001", **fields: Any) -> ReturnReleased:
    usual: dict[str, Any] = {
        "pack_id": pack, "respondent": "self", "wave": "follow_up_6m", "form": "standard", "instruments": ("mood",),
        "opens_on": "2018-02-26", "due_on": "2018-03-05", "late_until": "2018-04-05",
    }  # fmt: skip
    return ReturnReleased(**_who(on, person), **{**usual, **fields})


def delivered(on: str, pack: str = "luton-2018-02-12-1", site_id: str = "luton") -> PackDelivered:
    told = {"occurred_on": on, "requested_by": "Siân", "site_id": site_id, "pack_id": pack}
    return PackDelivered.model_validate(told)


def refused(on: str, rule: str, person: str = "LUT-001", row: int = 3, **fields: Any) -> ReturnRefused:
    usual: dict[str, Any] = {
        "respondent": "self", "wave": "baseline", "instrument": "mood", "query_id": "LUT-0001",
        "source": Source(sha256="b" * 64, sheet="Mood", row=row),
    }  # fmt: skip
    return ReturnRefused(**_who(on, person), rule=rule, **{**usual, **fields})
