"""Digests: one letter a day to one mailbox, what stands in it and in which order, and who is told of what."""

from collections.abc import Iterable
from datetime import date
from typing import Any

import pytest

from study.chasing import derive_rungs
from study.contacts import Contacts, compute_address_code
from study.digests import Draft, Plan, plan_digests, plan_stop_notices
from study.events import Event, MessageQueued
from study.participation import derive_stop_notices
from study.protocol import Study
from tests.approval_histories import tell
from tests.chasing_studies import (
    CHASERS,
    CONTACTS,
    FIELDWORK,
    NO_FIGURES,
    accepted,
    chased,
    granted_until,
    joined,
    left,
    make_study,
    raised,
    read_contacts,
    released,
)
from tests.release_studies import APPROVALS, BY, grant, identify

ONE, TWO = identify(1), identify(2)
OPEN = grant("luton", "devon")
OUT = [*OPEN, *joined(1), *released(1)]
KEY = f"chase:return:{ONE}:self:baseline"


def plan(
    on: str,
    *told: Event,
    study: Study | None = None,
    contacts: Contacts | None = None,
    stopped: Iterable[str] = (),
) -> Plan:
    study, events, day = study or make_study(), tell(*told), date.fromisoformat(on)
    rungs = derive_rungs(study, events, day)
    return plan_digests(study, contacts or read_contacts(), events, rungs, set(stopped), day)


def show(drafts: Iterable[Draft]) -> list[str]:
    """One line a letter: who, and its parts with the numbers of their rows."""
    return [
        f"{draft.person.person_id}: "
        + ", ".join(f"{part.manner or part.template} {len(part.rows)}" for part in draft.sections)
        for draft in drafts
    ]


def queued(on: str, person_id: str, address: str = "", category: str = "digest") -> Event:
    code = compute_address_code("trial", address or f"{person_id}@luton.invalid")
    return MessageQueued(
        occurred_on=on, requested_by=BY, message_id=f"{category}-{person_id}-{on}", category=category,
        person_id=person_id, role="site_researcher", channel="email", template="digest", content_sha256="0" * 64,
        address_code=code,
    )  # fmt: skip


def test_one_letter_with_everything_the_most_urgent_first() -> None:
    study = make_study(FIELDWORK)
    told = [*OPEN, *joined(1, filed=""), *released(1), *joined(2), *released(2), raised(1, "2017-08-09")]
    drafts = plan("2017-08-18", *told, study=study).drafts
    parts = "consent_copy_overdue 1, return_overdue 2, query_open 1"
    assert show(drafts) == ["lena: figures_overdue 1", f"rosa: {parts}"]
    draft = drafts[1]
    assert (draft.message_id, draft.site_id, draft.role) == ("digest-luton-rosa-2017-08-18", "luton", "site_researcher")
    assert draft.participant_ids == (ONE, TWO)
    assert [chase.step for chase in draft.chases] == ["copy", "late", "late", "query"]
    (returns,) = (part for part in draft.sections if part.about == "return")
    assert returns.columns == ("Identifier", "Wave", "Who answers", "Due on", "Days late")
    assert returns.rows[0] == (ONE, "Baseline", "the participant", "15 Aug 2017", "3")
    (queries,) = (part for part in draft.sections if part.about == "query")
    assert queries.columns == ("Query", "Identifier", "Asked", "To be answered by", "Days late")
    assert queries.rows == (("LUT-0001", ONE, "8 to 14 days ago", "16 Aug 2017", "2"),)


def test_what_was_asked_before_comes_with_it_and_is_no_reason_to_write() -> None:
    before = [*OUT, *joined(2, on="2017-08-08"), *released(2, on="2017-08-08"), *chased(f"{KEY}:late", on="2017-08-18")]
    assert plan("2017-08-23", *before).drafts == ()
    (draft,) = plan("2017-08-25", *before).drafts
    assert show([draft]) == ["rosa: return_overdue 1, open 1"]
    assert [chase.chase for chase in draft.chases] == [f"chase:return:{TWO}:self:baseline:late"]
    assert draft.participant_ids == (ONE, TWO)  # news about either overtakes the letter
    (draft,) = plan("2017-08-25", *before, accepted(1, "2017-08-24")).drafts
    assert show([draft]) == ["rosa: return_overdue 1"]


def test_the_call_is_the_coordinators_and_the_last_step_is_told_to_the_manager() -> None:
    (draft,) = plan("2017-08-30", *OUT).drafts
    assert show([draft]) == ["cora: return_call 1"]
    (part,) = draft.sections
    assert part.columns[-1] == "Whom to call"
    assert part.rows[0][0] == "Luton"
    assert part.rows[0][-1] == "Lena Lamb, 01582 000000"
    assert (draft.message_id, [chase.about for chase in draft.chases]) == ("digest-team-cora-2017-08-30", ["told"])
    drafts = plan("2017-09-13", *OUT).drafts
    assert show(drafts) == ["lena: return_last 1", "mona: told 1"]
    assert drafts[1].sections[0].role == "site lead"


# Who gets it ----------------------------------------------------------------------------------------------------------


def test_a_deputy_gets_it_together_with_their_own() -> None:
    told = [*OPEN, *joined(1, on="2017-09-11"), *released(1, on="2017-09-11")]  # late on 28 September
    away = plan("2017-09-28", *told).drafts
    assert show(away) == ["dora: return_overdue 1"]
    assert (away[0].instead_of, away[0].message_id) == (("Rosa Reed",), "digest-luton-dora-2017-09-28")
    assert show(plan("2017-10-02", *told).drafts) == ["rosa: return_overdue 1"]


def test_one_mailbox_gets_one_letter_whoever_reads_it() -> None:
    shared = read_contacts(CONTACTS.replace("lena@luton.invalid", "Rosa@luton.invalid"))
    study = make_study(NO_FIGURES.replace('to = "site_researcher"\nchannel = "email"\ntemplate = "query_open"',
                                          'to = "site_lead"\nchannel = "email"\ntemplate = "query_open"'))  # fmt: skip
    told = [*OUT, raised(1, "2017-08-09")]
    assert show(plan("2017-08-18", *told, study=study).drafts) == ["lena: query_open 1", "rosa: return_overdue 1"]
    (draft,) = plan("2017-08-18", *told, study=study, contacts=shared).drafts
    assert show([draft]) == ["lena: return_overdue 1, query_open 1"]


def test_an_address_that_is_wrong_and_a_role_that_nobody_holds_are_told_to_the_manager() -> None:
    wrong = compute_address_code("trial", "rosa@luton.invalid")
    drafts = plan("2017-08-18", *OUT, stopped=[wrong]).drafts
    assert show(drafts) == ["dora: return_overdue 1", "mona: wrong_address 1"]
    assert drafts[1].sections[0].rows == (("Luton", "site researcher", "Rosa Reed"),)
    key = f"chase:wrong_address:rosa:{wrong}"
    assert [chase.chase for chase in drafts[1].chases] == [key]
    assert show(plan("2017-08-21", *OUT, *chased(key), stopped=[wrong]).drafts) == ["dora: return_overdue 1"]

    nobody = read_contacts(
        CONTACTS.replace('role = "site_researcher"\nsite_id = "luton"', 'role = "site_lead"\nsite_id = "luton"')
    )
    found = plan("2017-08-18", *OUT, contacts=nobody)
    assert show(found.drafts) == ["mona: nobody_to_write_to 1"]
    assert found.drafts[0].sections[0].rows == (("Luton", "site researcher", "nobody holds this role"),)
    (key,) = (chase.chase for chase in found.drafts[0].chases)
    assert key == "chase:gap:site_researcher:luton::2017-W33"
    assert show(plan("2017-08-18", *OUT, *chased(key), contacts=nobody).drafts) == []
    assert show(plan("2017-08-21", *OUT, *chased(key), contacts=nobody).drafts) == ["mona: nobody_to_write_to 1"]


def test_a_body_office_and_the_manager_get_theirs() -> None:
    chasers = CHASERS.replace('to = "project_manager"', 'to = "approving_office"', 1).replace(
        'about = "authority"', 'about = "expiry"'
    )
    chasers = chasers.replace('counts_from = "turn"\ndays = 20', 'counts_from = "due"\ndays = -20', 1)
    approvals = APPROVALS.replace('level = "site"', 'level = "body"\nbody_kinds = ["council"]') + chasers
    study = make_study(NO_FIGURES, approvals)
    told = [event.model_copy(update={"body_id": "luton_council"}) for event in granted_until("2017-09-01")]
    office = """
[[people]]
person_id = "olaf"
name = "Olaf Orr"
email = "olaf@council.invalid"
role = "approving_office"
body_id = "luton_council"
"""
    drafts = plan("2017-08-10", *told, study=study, contacts=read_contacts(CONTACTS + office)).drafts
    (draft,) = (draft for draft in drafts if draft.person.person_id == "olaf")
    assert (draft.message_id, draft.place) == ("digest-luton_council-olaf-2017-08-10", "luton_council")
    assert draft.sections[0].rows == (
        ("Green light, Luton Council (Luton)", "has its last day of force on 1 Sep 2017"),
    )


# One a day, a few a week ----------------------------------------------------------------------------------------------

# Friday 18 August; the week began on Monday the 14th


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ([], ""),
        (["2017-08-18"], "Today's digest has been written already"),
        (["2017-08-17"], ""),
        (["2017-08-14", "2017-08-17"], "2 digests went to this person this week"),
        (["2017-08-13", "2017-08-17"], ""),  # the Sunday before
        (["2017-08-13", "2017-08-11"], ""),
    ],
)
def test_the_weekly_cap(sent: list[str], reason: str) -> None:
    found = plan("2017-08-18", *OUT, *(queued(day, "rosa") for day in sent))
    assert show(found.drafts) == ([] if reason else ["rosa: return_overdue 1"])
    assert found.resting == ({f"{KEY}:late": reason} if reason else {})


def test_other_people_and_other_letters_do_not_count() -> None:
    others = [queued("2017-08-18", "lena"), queued("2017-08-18", "rosa", category="stop_notice")]
    assert show(plan("2017-08-18", *OUT, *others).drafts) == ["rosa: return_overdue 1"]
    # another person, the same mailbox
    same = queued("2017-08-18", "someone", "ROSA@luton.invalid")
    assert plan("2017-08-18", *OUT, same).drafts == ()


def test_nobody_is_written_to_without_rules_or_people() -> None:
    assert plan("2017-08-18", *OUT, contacts=Contacts("trial")).drafts == ()
    without = make_study(NO_FIGURES.partition("[[ladder]]")[0], APPROVALS + CHASERS)
    assert plan("2017-08-18", *OUT, study=without) == Plan()


# Stop notices ---------------------------------------------------------------------------------------------------------


def plan_stops(on: str, *told: Event, contacts: Contacts | None = None) -> tuple[list[Draft], dict[str, Any]]:
    study, events, day = make_study(), tell(*told), date.fromisoformat(on)
    notices = derive_stop_notices(study, events, day)
    return plan_stop_notices(study, contacts or read_contacts(), events, notices, set(), day)


def test_a_stop_notice_goes_to_researcher_and_lead_and_names_no_reason() -> None:
    told = [*OUT, left(1, "2016-12-28")]  # learned on the day that the ledger was written
    drafts, by_site = plan_stops("2017-12-27", *told)
    assert [(draft.message_id, draft.category) for draft in drafts] == [
        ("stop-luton-lena-2017-12-27-1", "stop_notice"), ("stop-luton-rosa-2017-12-27-1", "stop_notice"),
    ]  # fmt: skip
    assert [len(draft.chases) for draft in drafts] == [0, 1]  # the last letter carries the step
    assert [chase.chase for chase in by_site["luton"]] == [f"stop_notice:{ONE}:luton-2017-08-01-baseline-1"]
    (section,) = drafts[0].sections
    assert section.rows == (
        (ONE, "luton-2017-08-01-baseline-1", "Baseline", "the participant", "questionnaires", "28 Dec 2016"),
    )
    assert "died" not in str(section)


def test_a_second_stop_notice_of_a_day_is_another_letter_and_both_roles_in_one_person_are_one() -> None:
    told = [*OUT, left(1, "2017-08-10"), queued("2017-08-10", "rosa", category="stop_notice")]
    drafts, _ = plan_stops("2017-08-10", *told)
    assert [draft.message_id for draft in drafts] == ["stop-luton-lena-2017-08-10-1", "stop-luton-rosa-2017-08-10-2"]
    there = [*OPEN, *joined(1, site_id="devon"), *released(1, site_id="devon"), left(1, "2017-08-10", site_id="devon")]
    drafts, _ = plan_stops("2017-08-10", *there)
    assert [draft.person.person_id for draft in drafts] == ["ravi"]
    drafts, by_site = plan_stops("2017-08-10", *there, contacts=Contacts("trial"))
    assert (drafts, list(by_site)) == ([], ["devon"])
