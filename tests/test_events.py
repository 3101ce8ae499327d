"""The vocabulary: what the ledger's hashes rest on is written out here, so that no change to it goes unseen."""

from datetime import date, datetime
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from study import events
from study.events import (
    KINDS,
    ActivityReported,
    AnswerCorrected,
    ApproachAnswered,
    ApprovalConditionMet,
    ApprovalFoundValid,
    ApprovalGranted,
    ApprovalGrantedWithConditions,
    ApprovalInformationAnswered,
    ApprovalInformationRequested,
    ApprovalRefused,
    ApprovalRenewed,
    ApprovalResubmitted,
    ApprovalSubmitted,
    ApprovalWithdrawn,
    ArmsUnmasked,
    CallLogged,
    ChasingPaused,
    ChasingResumed,
    Code,
    ConfigurationAdopted,
    ConflictRefused,
    ConsentCopyChecked,
    ConsentRecorded,
    Count,
    DataErased,
    DispositionRecorded,
    DocumentVersionIssued,
    DutyDone,
    ErasureDecided,
    Event,
    FileHeld,
    ForecastRecorded,
    HeldFileDecided,
    HoldLifted,
    IdentifiersIssued,
    IncidentActionDone,
    IncidentActionPlanned,
    IncidentAssessed,
    IncidentAssigned,
    IncidentClosed,
    IncidentDecided,
    IncidentOpened,
    MessageBounced,
    MessageClaimed,
    MessageFailed,
    MessageQueued,
    MessageResolved,
    MessageSent,
    MessageTransmitting,
    ModificationIntroduced,
    ModificationSupplied,
    ObligationChased,
    PackClaimed,
    PackDelivered,
    ParticipantAllocated,
    ParticipantApproached,
    ParticipantScreened,
    QueryAnswered,
    QueryClosed,
    QueryRaised,
    ReleaseFrozen,
    ReleaseWaived,
    ReplyHandled,
    ReplyReceived,
    ReturnAccepted,
    ReturnFileProcessed,
    ReturnQuarantined,
    ReturnRefused,
    ReturnReleased,
    SafeguardingAcknowledged,
    SafeguardingRaised,
    Source,
    StudyDayCompleted,
    UnknownKind,
    Voided,
    compute_content_hash,
    encode_canonical,
    parse_event,
    upcast_payload,
    upcaster,
)

DAY = date(2013, 9, 2)
A, B = "a" * 64, "b" * 64
WHO: dict[str, Any] = {"occurred_on": DAY, "requested_by": "flow study_day"}
SITE = {**WHO, "site_id": "701"}
PERSON = {**SITE, "participant_id": "01-701-1015"}
BODY: dict[str, Any] = {**WHO, "site_id": "luton", "approval": "council_governance", "body_id": "luton_council"}
STEP = "approval:council_governance:luton:luton_council::"
STEP_PAYLOAD = '"letter":"","letter_sha256":"","modification":"","person_id":""'
INCIDENT: dict[str, Any] = {**SITE, "incident_id": "701-I0001"}
PACK = {"pack_id": "701-2013-09-02-1"}
MESSAGE = {"message_id": "701-2013-09-02-digest-p01"}
RECORD = {"return_id": "701-2013-09-02-1", "respondent": "self", "wave": "WEEK 10 (T)", "instrument": "adas_cog"}

# An example of each kind, its key, its version and its payload. A payload that changes needs a new kind_version and an
# upcaster: ledgers hold the old one for ever.
EXAMPLES = [
    (
        ConfigurationAdopted(**WHO, part="protocol", name="cdisc_pilot", sha256=A, follows=B),
        "configuration:protocol:cdisc_pilot:2013-09-02:bbbbbbbbbbbb>aaaaaaaaaaaa",
        1,
        f'{{"follows":"{B}","name":"cdisc_pilot","part":"protocol","sha256":"{A}"}}',
    ),
    (
        ParticipantScreened(**PERSON, cohort="alzheimers_disease", body_id="clinic_701"),
        "screened:01-701-1015",
        2,
        '{"body_id":"clinic_701","cohort":"alzheimers_disease"}',
    ),
    (
        ConsentRecorded(
            **PERSON,
            form_version="2.1",
            scopes=("records", "interview", "records"),
            basis="signed",
            route="parent",
            taken_by="site_researcher",
            sixteen_in="2014-02",
            copy_filed="no",
            form="easy_read",
        ),
        "consent:01-701-1015:2.1",
        3,
        '{"basis":"signed","capacity":"","copy_filed":"no","form":"easy_read","form_version":"2.1","renewal":"",'
        '"route":"parent","scopes":["interview","records"],"sixteen_in":"2014-02","taken_by":"site_researcher"}',
    ),
    (
        ConsentRecorded(**PERSON, form_version="2.1", scopes=(), basis="signed", renewal="2013-09-02"),
        "consent:01-701-1015:2.1:2013-09-02",
        3,
        '{"basis":"signed","capacity":"","copy_filed":"","form":"","form_version":"2.1","renewal":"2013-09-02",'
        '"route":"","scopes":[],"sixteen_in":"","taken_by":""}',
    ),
    (ParticipantAllocated(**PERSON, arm="placebo"), "allocated:01-701-1015", 1, '{"arm":"placebo"}'),
    (
        DispositionRecorded(**PERSON, scope="treatment", reason="adverse_event"),
        "disposition:01-701-1015:treatment",
        1,
        '{"reason":"adverse_event","scope":"treatment"}',
    ),
    (
        ReturnFileProcessed(**SITE, sha256=A, size_bytes=17, outcome="quarantined", reason="not_a_workbook"),
        f"return_file:701:{A}",
        1,
        '{"correction":0,"n_accepted":0,"n_queries":0,"n_refused":0,"n_repeated":0,"n_superseded":0,'
        f'"outcome":"quarantined","posted_on":null,"reason":"not_a_workbook","responses_sha256":"","return_id":"",'
        f'"sending_number":0,"sha256":"{A}","size_bytes":17}}',
    ),
    (
        ReturnAccepted(**PERSON, **RECORD, form="standard", version=2, n_items=14, n_answered=13, responses_sha256=A),
        "return:01-701-1015:self:WEEK 10 (T):adas_cog:2",
        1,
        '{"form":"standard","instrument":"adas_cog","n_answered":13,"n_items":14,"respondent":"self",'
        f'"responses_sha256":"{A}","return_id":"701-2013-09-02-1","supersedes_return_id":"","version":2,'
        '"wave":"WEEK 10 (T)"}',
    ),
    (
        ReturnRefused(**SITE, source=Source(sha256=A, sheet="ADAS-Cog", row=7), rule="unknown_participant"),
        f"refused:{A}:ADAS-Cog:7",
        1,
        '{"instrument":"","n_items":0,"query_id":"","respondent":"","return_id":"","rule":"unknown_participant",'
        '"wave":""}',
    ),
    (
        QueryRaised(
            **SITE, query_id="701-0031", rule="level_unknown", severity="hard", subject="file:1", item="adas01"
        ),
        "query:file:1:level_unknown:adas01:1",
        3,
        '{"column_name":"","episode":1,"export_line":0,"fingerprint":"","instrument":"","item":"adas01","query_id":"701-0031","respondent":"",'
        '"return_id":"","row":0,"rule":"level_unknown","severity":"hard","sheet":"","subject":"file:1","wave":""}',
    ),
    (
        AnswerCorrected(
            **PERSON,
            respondent="self",
            wave="week_8",
            instrument="mmse",
            item="mmse01",
            version=2,
            reason="site_says",
            old_fingerprint="a" * 32,
            new_fingerprint="b" * 32,
        ),
        "answer_corrected:01-701-1015:self:week_8:mmse:2",
        1,
        '{"instrument":"mmse","item":"mmse01","new_fingerprint":"'
        + "b" * 32
        + '","old_fingerprint":"'
        + "a" * 32
        + '","reason":"site_says","reference":"","respondent":"self","role":"","version":2,"wave":"week_8"}',
    ),
    (
        QueryClosed(**SITE, query_id="701-0031", reason="mended"),
        "query_closed:701-0031",
        1,
        '{"query_id":"701-0031","reason":"mended"}',
    ),
    (StudyDayCompleted(**WHO), "study_day:2013-09-02", 1, "{}"),
    (
        ReleaseFrozen(**WHO, release="1", as_of=DAY, known_at="2013-09-02T05:30:00.000000Z", manifest_sha256=A),
        "release:1",
        1,
        f'{{"as_of":"2013-09-02","known_at":"2013-09-02T05:30:00.000000Z","manifest_sha256":"{A}","release":"1"}}',
    ),
    (
        ReleaseWaived(
            **WHO, waived="hard_queries", subject="701", until=DAY, n_concerned=3, reason="interim", role="data_manager"
        ),
        "release_waived:hard_queries:701:2013-09-02:1",
        1,
        '{"n_concerned":3,"number":1,"reason":"interim","reference":"","role":"data_manager","subject":"701",'
        '"until":"2013-09-02","waived":"hard_queries"}',
    ),
    (
        ArmsUnmasked(
            **WHO,
            sealed="arms-0123456789ab",
            release="2013-09-02-blinded",
            reason="safety",
            role="unblinded_statistician",
        ),
        "arms_unmasked:arms-0123456789ab:1",
        1,
        '{"number":1,"reason":"safety","reference":"","release":"2013-09-02-blinded","role":"unblinded_statistician",'
        '"sealed":"arms-0123456789ab"}',
    ),
    (
        ApprovalSubmitted(**BODY, route="council_application"),
        f"{STEP}:1:submitted",
        1,
        f'{{"approval":"council_governance","attempt":1,"body_id":"luton_council",'
        f"{STEP_PAYLOAD}"
        ',"route":"council_application"}',
    ),
    (
        ApprovalResubmitted(**BODY, attempt=2, route="council_application"),
        f"{STEP}:2:submitted",
        1,
        f'{{"approval":"council_governance","attempt":2,"body_id":"luton_council",'
        f"{STEP_PAYLOAD}"
        ',"route":"council_application"}',
    ),
    (
        ApprovalFoundValid(**BODY),
        f"{STEP}:1:valid",
        1,
        f'{{"approval":"council_governance","attempt":1,"body_id":"luton_council",{STEP_PAYLOAD}}}',
    ),
    (
        ApprovalInformationRequested(**BODY, request=2),
        f"{STEP}:1:requested:2",
        1,
        f'{{"approval":"council_governance","attempt":1,"body_id":"luton_council",{STEP_PAYLOAD},"request":2}}',
    ),
    (
        ApprovalInformationAnswered(**BODY),
        f"{STEP}:1:answered:1",
        1,
        f'{{"approval":"council_governance","attempt":1,"body_id":"luton_council",{STEP_PAYLOAD},"request":1}}',
    ),
    (
        ApprovalGranted(**BODY, expires_on=DAY),
        f"{STEP}:1:decided",
        1,
        f'{{"approval":"council_governance","attempt":1,"body_id":"luton_council","expires_on":"2013-09-02","in_force_from":null,'
        f"{STEP_PAYLOAD}"
        "}",
    ),
    (
        ApprovalGrantedWithConditions(**BODY, conditions=("b", "a")),
        f"{STEP}:1:decided",
        1,
        f'{{"approval":"council_governance","attempt":1,"body_id":"luton_council","conditions":["a","b"],"expires_on":null,"in_force_from":null,'
        f"{STEP_PAYLOAD}"
        "}",
    ),
    (
        ApprovalConditionMet(**BODY, condition="a"),
        f"{STEP}:1:condition_met:a",
        1,
        f'{{"approval":"council_governance","attempt":1,"body_id":"luton_council","condition":"a",{STEP_PAYLOAD}}}',
    ),
    (
        ApprovalRefused(**BODY),
        f"{STEP}:1:decided",
        1,
        f'{{"approval":"council_governance","attempt":1,"body_id":"luton_council",{STEP_PAYLOAD}}}',
    ),
    (
        ApprovalWithdrawn(**BODY, withdrawn_by="authority"),
        f"{STEP}:1:withdrawn",
        1,
        f'{{"approval":"council_governance","attempt":1,"body_id":"luton_council",'
        f"{STEP_PAYLOAD}"
        ',"withdrawn_by":"authority"}',
    ),
    (
        ApprovalRenewed(**BODY, in_force_from=DAY),
        f"{STEP}:1:renewed:1",
        1,
        f'{{"approval":"council_governance","attempt":1,"body_id":"luton_council","expires_on":null,"in_force_from":"2013-09-02",'
        f"{STEP_PAYLOAD}"
        ',"renewal":1}',
    ),
    (
        ModificationIntroduced(**WHO, modification="M01", category="A", is_substantial=True, body_ids=("b", "a")),
        "modification:M01",
        1,
        '{"body_ids":["a","b"],"category":"A","is_substantial":true,"modification":"M01"}',
    ),
    (
        ModificationSupplied(**SITE, modification="M01", letter="mail 7"),
        "modification_supplied:M01:701",
        1,
        '{"letter":"mail 7","modification":"M01"}',
    ),
    (
        DocumentVersionIssued(**WHO, document="consent_form", version="2.0", modification="M01", file_sha256=A),
        "document:consent_form:2.0",
        1,
        f'{{"approval":"","document":"consent_form","file_sha256":"{A}","modification":"M01","version":"2.0"}}',
    ),
    (
        DutyDone(**WHO, duty="funder_report", due_on=date(2014, 3, 1)),
        "duty:funder_report::2014-03-01",
        1,
        '{"due_on":"2014-03-01","duty":"funder_report","letter":"","letter_sha256":""}',
    ),
    (
        ForecastRecorded(**SITE, activity="approach", model="m1", n_draws=10_000, is_open=False, median_on=DAY),
        "forecast:approach:701:2013-09-02",
        1,
        '{"activity":"approach","is_open":false,"median_on":"2013-09-02","model":"m1","n_draws":10000,"p10_on":null,'
        '"p80_on":null}',
    ),
    (
        IncidentOpened(
            **SITE,
            incident_id="701-I0001",
            category="collected_while_not_open",
            subject="701-2013-09-02-1:aaaa",
            activity="collect_baseline",
            body_id="clinic_701",
            n_records=3,
            found_on=DAY,
        ),
        "incident:collected_while_not_open:701-2013-09-02-1:aaaa:collect_baseline:clinic_701:2013-09-02",
        1,
        '{"activity":"collect_baseline","assess_by":null,"body_id":"clinic_701","category":"collected_while_not_open",'
        '"found_on":"2013-09-02","incident_id":"701-I0001","n_records":3,"subject":"701-2013-09-02-1:aaaa"}',
    ),
    (
        IncidentAssigned(**INCIDENT, assignment=2, owner="project_manager", due_on=DAY),
        "incident_assigned:701-I0001:2",
        1,
        '{"assignment":2,"due_on":"2013-09-02","incident_id":"701-I0001","owner":"project_manager"}',
    ),
    (
        IncidentAssessed(**INCIDENT, outcome="breach", role="sponsor", reference="SP 12/3"),
        "incident_assessed:701-I0001:1",
        1,
        '{"assessment":1,"incident_id":"701-I0001","outcome":"breach","reference":"SP 12/3","role":"sponsor"}',
    ),
    (
        IncidentActionPlanned(**INCIDENT, action="CAPA-12"),
        "incident_action:701-I0001:CAPA-12",
        1,
        '{"action":"CAPA-12","due_on":null,"incident_id":"701-I0001","owner":""}',
    ),
    (
        IncidentActionDone(**INCIDENT, action="CAPA-12"),
        "incident_action_done:701-I0001:CAPA-12",
        1,
        '{"action":"CAPA-12","incident_id":"701-I0001"}',
    ),
    (
        IncidentDecided(**INCIDENT, decision="admitted", role="sponsor", reference="SP 12/4"),
        "incident_decided:701-I0001",
        1,
        '{"decision":"admitted","incident_id":"701-I0001","reference":"SP 12/4","role":"sponsor"}',
    ),
    (IncidentClosed(**INCIDENT), "incident_closed:701-I0001", 1, '{"incident_id":"701-I0001"}'),
    (
        SafeguardingRaised(
            **PERSON, **RECORD, alert_id="701-S0001", subject="01-701-1015:self:week_8:adas_cog", trigger="safety"
        ),
        "safeguarding:01-701-1015:self:week_8:adas_cog:safety",
        1,
        '{"alert_id":"701-S0001","instrument":"adas_cog","respondent":"self","return_id":"701-2013-09-02-1",'
        '"subject":"01-701-1015:self:week_8:adas_cog","trigger":"safety","wave":"WEEK 10 (T)"}',
    ),
    (
        SafeguardingAcknowledged(**PERSON, alert_id="701-S0001", role="safeguarding_clinician", way="telephone"),
        "safeguarding_acknowledged:701-S0001",
        1,
        '{"alert_id":"701-S0001","role":"safeguarding_clinician","way":"telephone"}',
    ),
    (
        ReturnQuarantined(
            **PERSON,
            **RECORD,
            source=Source(sha256=A, sheet="adas_cog", row=7),
            incident_id="701-I0001",
            activity="collect_follow_up",
            form="standard",
            n_items=14,
            n_answered=13,
            responses_sha256=B,
        ),
        f"quarantined:{A}:adas_cog:7",
        1,
        '{"activity":"collect_follow_up","form":"standard","incident_id":"701-I0001","instrument":"adas_cog",'
        f'"n_answered":13,"n_items":14,"respondent":"self","responses_sha256":"{B}","return_id":"701-2013-09-02-1",'
        '"wave":"WEEK 10 (T)"}',
    ),
    (
        IdentifiersIssued(**SITE, first=51, n=50),
        "identifiers:701:51",
        1,
        '{"first":51,"n":50}',
    ),
    (
        ParticipantApproached(**PERSON, cohort="alzheimers_disease", body_id="clinic_701"),
        "approached:01-701-1015",
        1,
        '{"body_id":"clinic_701","cohort":"alzheimers_disease"}',
    ),
    (
        ApproachAnswered(**PERSON, outcome="declined", reason="no_time"),
        "approach_answered:01-701-1015",
        1,
        '{"outcome":"declined","reason":"no_time"}',
    ),
    (
        ConsentCopyChecked(**PERSON, form_version="2.1", check=2, finding="seen", role="fieldwork_coordinator"),
        "consent_copy:01-701-1015:2.1:2",
        2,
        '{"check":2,"finding":"seen","form_version":"2.1","renewal":"","role":"fieldwork_coordinator"}',
    ),
    (
        ConsentCopyChecked(**PERSON, form_version="2.1", renewal="2013-09-02", finding="faulty"),
        "consent_copy:01-701-1015:2.1:2013-09-02:1",
        2,
        '{"check":1,"finding":"faulty","form_version":"2.1","renewal":"2013-09-02","role":""}',
    ),
    (
        QueryAnswered(**SITE, query_id="701-0031", answer_number=2, answer="corrected"),
        "query_answered:701-0031:2",
        1,
        '{"answer":"corrected","answer_number":2,"query_id":"701-0031"}',
    ),
    (
        ActivityReported(**SITE, figure="care_plans", month="2017-08", reported_to="nhs_england", version=2, count=131),
        "activity:701:care_plans:2017-08:nhs_england:2",
        1,
        '{"count":131,"figure":"care_plans","month":"2017-08","reported_to":"nhs_england","version":2}',
    ),
    (
        FileHeld(
            **SITE,
            held_id="701-F0001",
            sha256=A,
            size_bytes=2048,
            kept="encrypted",
            return_id="701-2013-09-02-1",
            identifiers=("name", "email"),
            places=("sheet_4 B7 cell name", "file_name email"),
            n_places=2,
            query_id="701-0032",
        ),
        f"file_held:701:{A}",
        1,
        '{"held_id":"701-F0001","identifiers":["email","name"],"kept":"encrypted","n_places":2,'
        '"places":["file_name email","sheet_4 B7 cell name"],"query_id":"701-0032","return_id":"701-2013-09-02-1",'
        f'"sha256":"{A}","size_bytes":2048}}',
    ),
    (
        HeldFileDecided(
            **SITE, held_id="701-F0001", decision="released", reason="not_identifying", role="data_manager"
        ),
        "held_file:701-F0001",
        1,
        '{"decision":"released","held_id":"701-F0001","reason":"not_identifying","reference":"","role":"data_manager"}',
    ),
    (
        ErasureDecided(**PERSON, given_from=DAY, role="sponsor", reference="SP 12/5"),
        "erasure:01-701-1015:1",
        1,
        '{"decision":1,"given_from":"2013-09-02","reference":"SP 12/5","role":"sponsor"}',
    ),
    (
        DataErased(
            **WHO,
            sha256=A,
            replaced_by=B,
            reason="withdrawal_of_data",
            role="sponsor",
            reference="SP 12/5",
            n_records=3,
        ),
        f"erased:{A}",
        1,
        f'{{"n_records":3,"reason":"withdrawal_of_data","reference":"SP 12/5","replaced_by":"{B}",'
        f'"role":"sponsor","sha256":"{A}"}}',
    ),
    (
        PackClaimed(
            **SITE,
            **PACK,
            purpose="wave",
            waves=("week_4", "week_2"),
            n_returns=7,
            n_queries=2,
            first_number=51,
            n_numbers=50,
            sha256=A,
            letters_sha256=B,
            file_name="701-2013-09-02-1.xlsx",
            protocol_version="1.0",
        ),
        "pack:701-2013-09-02-1",
        1,
        f'{{"file_name":"701-2013-09-02-1.xlsx","first_number":51,"letters_sha256":"{B}","n_numbers":50,'
        '"n_queries":2,"n_returns":7,"pack_id":"701-2013-09-02-1","protocol_version":"1.0",'
        f'"purpose":"wave","sha256":"{A}","waves":["week_2","week_4"]}}',
    ),
    (
        ReturnReleased(
            **PERSON,
            **PACK,
            respondent="carer",
            wave="week_2",
            copy_number=2,
            form="easy_read",
            instruments=("npi_x", "dad"),
            opens_on=DAY,
            due_on=date(2013, 9, 9),
            late_until=date(2013, 9, 30),
        ),
        "released:01-701-1015:carer:week_2:2",
        1,
        '{"copy_number":2,"due_on":"2013-09-09","form":"easy_read","instruments":["dad","npi_x"],'
        '"late_until":"2013-09-30","opens_on":"2013-09-02","pack_id":"701-2013-09-02-1",'
        '"respondent":"carer","wave":"week_2"}',
    ),
    (
        PackDelivered(**SITE, **PACK),
        "pack_delivered:701-2013-09-02-1",
        1,
        '{"pack_id":"701-2013-09-02-1"}',
    ),
    (
        HoldLifted(
            **PERSON,
            wave="week_2",
            hold="superseded_form",
            role="sponsor",
            reason="committee_accepted",
            reference="REC 12/3",
        ),
        "hold_lifted:01-701-1015:week_2:superseded_form",
        1,
        '{"hold":"superseded_form","reason":"committee_accepted","reference":"REC 12/3","role":"sponsor",'
        '"wave":"week_2"}',
    ),
    (
        MessageQueued(
            **SITE,
            **MESSAGE,
            category="digest",
            person_id="p01",
            role="site_researcher",
            channel="email",
            template="digest",
            content_sha256=A,
            address_code="a1b2c3d4",
            n_obligations=4,
        ),
        "message:701-2013-09-02-digest-p01",
        1,
        f'{{"address_code":"a1b2c3d4","category":"digest","channel":"email","content_sha256":"{A}",'
        '"message_id":"701-2013-09-02-digest-p01","n_obligations":4,"person_id":"p01",'
        '"role":"site_researcher","template":"digest"}',
    ),
    (
        ObligationChased(
            **PERSON,
            chase="chase:return:01-701-1015:self:week_2:return_overdue",
            about="return",
            step="return_overdue",
            **MESSAGE,
            channel="email",
            due_on=DAY,
        ),
        "chase:return:01-701-1015:self:week_2:return_overdue",
        1,
        '{"about":"return","channel":"email",'
        '"chase":"chase:return:01-701-1015:self:week_2:return_overdue","due_on":"2013-09-02",'
        '"message_id":"701-2013-09-02-digest-p01","step":"return_overdue"}',
    ),
    (
        MessageClaimed(**SITE, **MESSAGE, attempt=2),
        "message_claimed:701-2013-09-02-digest-p01:2",
        1,
        '{"attempt":2,"message_id":"701-2013-09-02-digest-p01"}',
    ),
    (
        MessageTransmitting(**SITE, **MESSAGE, way="smtp"),
        "message_transmitting:701-2013-09-02-digest-p01:1",
        1,
        '{"attempt":1,"message_id":"701-2013-09-02-digest-p01","way":"smtp"}',
    ),
    (
        MessageSent(**SITE, **MESSAGE),
        "message_sent:701-2013-09-02-digest-p01:1",
        1,
        '{"attempt":1,"message_id":"701-2013-09-02-digest-p01"}',
    ),
    (
        MessageFailed(**SITE, **MESSAGE, persistence="permanent", status="550", address_code="a1b2c3d4"),
        "message_failed:701-2013-09-02-digest-p01:1",
        1,
        '{"address_code":"a1b2c3d4","attempt":1,"message_id":"701-2013-09-02-digest-p01",'
        '"persistence":"permanent","status":"550"}',
    ),
    (
        MessageResolved(**SITE, **MESSAGE, outcome="was_sent"),
        "message_resolved:701-2013-09-02-digest-p01:1",
        1,
        '{"attempt":1,"message_id":"701-2013-09-02-digest-p01","outcome":"was_sent"}',
    ),
    (
        MessageBounced(**SITE, **MESSAGE, persistence="temporary", status="4.2.2", address_code="a1b2c3d4"),
        "message_bounced:701-2013-09-02-digest-p01:temporary:4.2.2",
        1,
        '{"address_code":"a1b2c3d4","attempt":1,"message_id":"701-2013-09-02-digest-p01",'
        '"persistence":"temporary","status":"4.2.2"}',
    ),
    (
        ReplyReceived(**SITE, reply_code="9f86d081", **MESSAGE, person_id="p01", is_automatic=True),
        "reply:9f86d081",
        1,
        '{"is_automatic":true,"message_id":"701-2013-09-02-digest-p01","person_id":"p01","reply_code":"9f86d081"}',
    ),
    (
        ReplyHandled(**SITE, reply_code="9f86d081"),
        "reply_handled:9f86d081",
        1,
        '{"reply_code":"9f86d081"}',
    ),
    (
        CallLogged(
            **SITE,
            call=2,
            person_id="p01",
            direction="out",
            about=("return", "query"),
            outcome="promised",
            promised_on=date(2013, 9, 9),
        ),
        "call:701:2013-09-02:2",
        1,
        '{"about":["query","return"],"call":2,"direction":"out","outcome":"promised","person_id":"p01",'
        '"promised_on":"2013-09-09"}',
    ),
    (
        ChasingPaused(**PERSON, pause="701-P0001", about=("return",), until=date(2013, 9, 30), reason="on_holiday"),
        "chasing_paused:701-P0001",
        1,
        '{"about":["return"],"pause":"701-P0001","reason":"on_holiday","until":"2013-09-30"}',
    ),
    (
        ChasingResumed(**PERSON, pause="701-P0001"),
        "chasing_resumed:701-P0001",
        1,
        '{"pause":"701-P0001"}',
    ),
    (Voided(**WHO, voids=A, reason="wrong_date"), f"void:{A}", 1, f'{{"reason":"wrong_date","voids":"{A}"}}'),
    (
        ConflictRefused(
            **PERSON,
            refused_key="screened:01-701-1015",
            refused_kind="participant_screened",
            refused_content_hash=B,
            standing_hash=A,
        ),
        f"conflict:{A}:{B}",
        1,
        f'{{"refused_content_hash":"{B}","refused_key":"screened:01-701-1015","refused_kind":"participant_screened",'
        f'"standing_hash":"{A}"}}',
    ),
]


def test_a_consent_recorded_before_routes_were_asked_for_has_none() -> None:
    old = '{"basis":"signed","form_version":"1","scopes":["records"]}'
    assert upcast_payload("consent_recorded", 1, old) == (
        '{"basis":"signed","capacity":"","copy_filed":"","form":"","form_version":"1","renewal":"","route":"",'
        '"scopes":["records"],"sixteen_in":"","taken_by":""}'
    )


@pytest.mark.parametrize(
    ("kind", "version", "old"),
    [
        ("consent_recorded", 2, '{"form_version":"1","route":"self"}'),
        ("consent_copy_checked", 1, '{"form_version":"1","route":"self"}'),
    ],
)
def test_what_was_recorded_before_consent_could_be_given_anew_is_the_first(kind: str, version: int, old: str) -> None:
    assert upcast_payload(kind, version, old) == '{"form_version":"1","renewal":"","route":"self"}'


@pytest.mark.parametrize("month", ["2018-3", "2018-13", "2018-03-05", "March 2018", "18-03"])
def test_no_date_of_birth_fits_into_a_month(month: str) -> None:
    with pytest.raises(ValidationError):
        ConsentRecorded(**PERSON, form_version="1", scopes=("records",), basis="signed", sixteen_in=month)


def test_a_person_screened_before_bodies_were_asked_for_has_none() -> None:
    assert upcast_payload("participant_screened", 1, '{"cohort":"x"}') == '{"body_id":"","cohort":"x"}'


@pytest.fixture
def own_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds and upcasters that a test defines are gone after it."""
    monkeypatch.setattr(events, "KINDS", dict(KINDS))
    monkeypatch.setattr(events, "_UPCASTERS", {})


@pytest.mark.parametrize(("event", "key", "version", "payload"), EXAMPLES, ids=lambda value: getattr(value, "kind", ""))
def test_kind_is_as_ledgers_hold_it(event: Event, key: str, version: int, payload: str) -> None:
    assert (event.key, event.kind_version, event.encode_payload()) == (key, version, payload)


@pytest.mark.parametrize("event", [example[0] for example in EXAMPLES], ids=lambda event: event.kind)
def test_event_comes_back_from_its_row(event: Event) -> None:
    source = event.source
    row = {
        **{
            name: getattr(event, name) for name in ("kind", "kind_version", "requested_by", "site_id", "participant_id")
        },
        "occurred_on": event.occurred_on.isoformat(),
        "payload": event.encode_payload(),
        "source_sha256": source.sha256 if source else "",
        "source_sheet": source.sheet if source else "",
        "source_row": source.row if source else 0,
    }
    assert parse_event(row) == event


def test_every_kind_has_an_example() -> None:
    own = {kind for kind, event in KINDS.items() if event.__module__ == "study.events"}
    assert own == {event.kind for event, *_ in EXAMPLES}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": 2}, '{"a":2,"b":1}'),
        ({"Z": 1, "a": 2, "É": 3, "é": 4}, '{"Z":1,"a":2,"É":3,"é":4}'),
        (["Ynys Môn", "日本", "😀"], '["Ynys Môn","日本","😀"]'),
        ('say "x"\\\n\x1f\x7f\u2028', '"say \\"x\\"\\\\\\n\\u001f\x7f\u2028"'),
        ([True, None, 9_007_199_254_740_991, date(2024, 2, 29)], '[true,null,9007199254740991,"2024-02-29"]'),
    ],
)
def test_canonical_json(value: object, text: str) -> None:
    assert encode_canonical(value) == text


@pytest.mark.parametrize(
    ("content", "digest"),
    [
        (
            ("participant_screened", 1, "2013-09-02", "701", "01-701-1015", '{"cohort":"alzheimers_disease"}'),
            "76a257610e126a448aaa05d27d65d8fa13c6cfeec447cb8639c44b518382e891",
        ),
        (
            ("participant_screened", 1, "2013-09-02", "701", "01-701-1015", '{"cohort":"Môn"}'),
            "ede706834e0d6904d0bbb2d978f040ee8dbe700e5cb468aad493a0ff6e4ab2f0",
        ),
    ],
)
def test_content_hash_is_frozen(content: tuple[Any, ...], digest: str) -> None:
    assert compute_content_hash(*content) == digest


@pytest.mark.parametrize(
    "fault",
    [
        {"cohort": "line\nbreak"},
        {"cohort": "ends\n"},
        {"cohort": "unit\x1fseparator"},
        {"cohort": "a:b"},
        {"cohort": " leading"},
        {"cohort": ""},
        {"cohort": "x" * 81},
        {"participant_id": "01 701"},
        {"participant_id": ""},
        {"site_id": ""},
        {"requested_by": ""},
        {"requested_by": " "},
        {"requested_by": "a\rb"},
        {"occurred_on": datetime(2013, 9, 2, 23, 30)},  # noqa: DTZ001 (a wrong date on purpose)
        {"occurred_on": "2013-02-29"},
        {"score": 7},
        {"source": {"sha256": "A" * 64}},
        {"source": {"sha256": A, "row": -1}},
        {"source": {"sha256": A, "sheet": "a\nb"}},
    ],
    ids=str,
)
def test_what_no_event_may_say(fault: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ParticipantScreened(**{**PERSON, "cohort": "x", **fault})


def test_event_is_frozen() -> None:
    with pytest.raises(ValidationError):
        setattr(EXAMPLES[1][0], "site_id", "702")  # noqa: B010 (a type checker refuses the plain form)


@pytest.mark.parametrize(
    "annotation", [str, float, list[Code], dict[str, int], Code | None, Count | None, tuple[Code, Code]]
)
def test_payload_cannot_hold_free_text_or_numbers_with_a_fraction(own_kinds: None, annotation: Any) -> None:
    with pytest.raises(TypeError, match=r"^Loose\.field: a payload holds codes"):
        type("Loose", (Event,), {"__annotations__": {"field": annotation}, "__module__": __name__, "kind": "loose"})


def test_kind_is_given_once(own_kinds: None) -> None:
    with pytest.raises(TypeError, match='kind "voided" is Voided already'):

        class Again(Event):
            kind: ClassVar[str] = "voided"


def test_old_payload_is_read_through_each_upcaster(own_kinds: None) -> None:
    class Third(Event):
        kind: ClassVar[str] = "third"
        kind_version: ClassVar[int] = 3
        key_form: ClassVar[str] = "third:{code}"
        code: Code
        n: Count

    upcaster("third", 1)(lambda payload: {**payload, "n": 1})
    upcaster("third", 2)(lambda payload: {"code": payload["old_code"], "n": payload["n"] + 1})
    assert upcast_payload("third", 1, '{"old_code":"x"}') == '{"code":"x","n":2}'
    assert upcast_payload("third", 2, '{"n":5,"old_code":"x"}') == '{"code":"x","n":6}'
    assert upcast_payload("third", 3, "as it is") == "as it is"
    with pytest.raises(TypeError, match="has an upcaster already"):
        upcaster("third", 1)(lambda payload: payload)


@pytest.mark.parametrize(
    ("kind", "version", "message"),
    [
        ("seance_held", 1, 'holds kind "seance_held" version 1, which this version of Summative does not know'),
        ("voided", 2, 'holds kind "voided" version 2, which this version of Summative does not know'),
        ("voided", 0, 'Kind "voided" version 0 has no upcaster to version 1'),
    ],
)
def test_unknown_row_is_never_passed_over(own_kinds: None, kind: str, version: int, message: str) -> None:
    with pytest.raises(UnknownKind, match=message):
        upcast_payload(kind, version, "{}")
