"""Modifications at every body and site, and the versions of documents, on boundary days."""

from datetime import date
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from study.approvals import derive_approvals, find_recording_faults
from study.events import ApprovalEvent, DocumentVersionIssued, Event, ModificationIntroduced, ModificationSupplied
from study.modifications import (
    derive_document_versions,
    derive_modifications,
    derive_site_starts,
    find_document_version,
    find_modification_faults,
)
from study.protocol import parse_study
from tests.approval_histories import LUTON, PATHWAY, step, tell
from tests.test_protocol import DEVON, TRIAL

ROUTES = """
[[routes]]
id = "rec_change"
approval = "rec"
label = "Substantial modification"
for_modifications = ["A", "B", "C"]
if_substantial = true

[[routes]]
id = "council_change"
approval = "council"
label = "Modification"
for_modifications = ["A", "B", "C"]

[[routes]]
id = "trust_considers"
approval = "trust"
label = "No objection within 35 days"
for_modifications = ["A", "B"]

[[routes]]
id = "trust_at_once"
approval = "trust"
label = "No consideration"
for_modifications = ["C"]

[[clocks]]
route = "rec_change"
starts = "valid"
days = 35
unit = "calendar"
source = "The committee's 35 days."

[[clocks]]
route = "trust_considers"
starts = "submitted"
days = 35
unit = "calendar"
silence_grants = true
source = "The site's 35 days."

[[clocks]]
route = "trust_at_once"
starts = "submitted"
days = 0
unit = "calendar"
silence_grants = true
source = "At once."

[[documents]]
id = "consent_form"
label = "Consent form"

[[documents]]
id = "sheet"
label = "Information sheet"
"""
EAST = '\n[[bodies]]\nid = "east_trust"\nname = "East Trust"\nkind = "nhs_trust"\nconfirmed = true\n'
FILES = {"study.toml": TRIAL, "sites/luton.toml": LUTON + EAST, "sites/devon.toml": DEVON + EAST}
# Councils: luton_council, devon_council. Trusts: luton_trust, and east_trust at both sites.
STUDY = parse_study({k: v.encode() for k, v in (FILES | {"approvals.toml": PATHWAY + ROUTES}).items()}, "trial")
WHO = {"requested_by": "A. Manager"}
TRUST = {"body_id": "luton_trust", "route": "trust_considers"}
COUNCIL = {"route": "council_change"}


def introduce(category: str = "A", on: str = "2017-03-01", substantial: bool = True, **fields: Any) -> Event:
    fields = {"modification": "M1", **fields}
    return ModificationIntroduced(occurred_on=on, category=category, is_substantial=substantial, **WHO, **fields)


def supply(on: str, site_id: str = "", **fields: Any) -> Event:
    return ModificationSupplied(occurred_on=on, site_id=site_id, **WHO, **{"modification": "M1", **fields})


def issue(version: str, on: str, **fields: Any) -> Event:
    fields = {"document": "consent_form", "version": version, **fields}
    return DocumentVersionIssued(occurred_on=on, **WHO, **fields)


def change(name: str, on: str, approval: str = "rec", **fields: Any) -> ApprovalEvent:
    """A step of the modification; at Luton's council, or Luton's own trust, unless told otherwise."""
    if name == "submitted":
        usual = {"rec": "rec_change", "council": "council_change", "trust": "trust_considers"}
        fields = {"route": usual[approval], **fields}
    return step(name, on, approval, **{"modification": "M1", **fields})


def approve(approval: str, sent: str, on: str, **fields: Any) -> list[Event]:
    return [change("submitted", sent, approval, **fields), change("granted", on, approval, **fields)]


def show(value: Any) -> str:
    return "-" if pd.isna(value) else f"{value:%Y-%m-%d}"


def fold(on: str, *told: Event) -> dict[str, str]:
    """Where it stands at each place: state, implied, may start."""
    rows = derive_modifications(STUDY, tell(*told), date.fromisoformat(on)).itertuples()
    return {
        "/".join(part for part in (row.approval, row.site_id, row.body_id) if part): (
            f"{row.state} {show(row.implied_on)} {show(row.starts_on)}"
        )
        for row in rows
    }


REC = approve("rec", "2017-03-02", "2017-03-20")
# Supplied on 24 February of a leap year: 35 days later is 30 March, after 29 February and the change of the clocks.
LEAP = [introduce(on="2020-02-01"), *approve("rec", "2020-02-02", "2020-02-20"), supply("2020-02-24")]


def test_one_supply_fans_out_to_every_body_that_is_affected() -> None:
    told = [introduce(), *REC, supply("2017-03-10")]
    assert fold("2017-03-10", *told) == {
        "rec": "submitted - -",
        "council/luton/luton_council": "submitted - -",
        "council/devon/devon_council": "submitted - -",
        "trust/luton/luton_trust": "submitted 2017-04-14 -",
        "trust/luton/east_trust": "submitted 2017-04-14 -",
        "trust/devon/east_trust": "submitted 2017-04-14 -",
    }
    assert fold("2017-03-09", *told)["council/luton/luton_council"] == "not_sought - -"
    assert fold("2017-02-28", *told) == {}


@pytest.mark.parametrize(
    ("category", "substantial", "on", "trust", "council", "asks_rec"),
    [
        ("A", True, "2017-04-13", "submitted 2017-04-14 -", "submitted - -", True),
        ("A", True, "2017-04-14", "granted - 2017-04-14", "submitted - -", True),
        ("B", True, "2017-04-13", "submitted 2017-04-14 -", "submitted - -", True),
        ("B", False, "2017-04-14", "granted - 2017-04-14", "submitted - -", False),
        ("C", True, "2017-03-10", "granted - -", "submitted - -", True),  # its own say is there, the committee's is not
        ("C", True, "2017-03-20", "granted - 2017-03-20", "submitted - -", True),
        ("C", False, "2017-03-10", "granted - 2017-03-10", "submitted - -", False),
        # a council that says nothing has not agreed, however long
        ("A", False, "2018-12-31", "granted - 2017-04-14", "submitted - -", False),
    ],
)
def test_categories(category: str, substantial: bool, on: str, trust: str, council: str, asks_rec: bool) -> None:
    rec = REC if substantial else []
    found = fold(on, introduce(category, substantial=substantial), *rec, supply("2017-03-10"))
    assert found["trust/luton/luton_trust"] == trust
    assert found["council/luton/luton_council"] == council
    assert ("rec" in found) == asks_rec


@pytest.mark.parametrize(
    ("granted_on", "on", "expected"),
    [
        ("2017-04-13", "2017-04-14", "granted - 2017-04-14"),
        ("2017-04-14", "2017-04-14", "granted - 2017-04-14"),
        ("2017-04-15", "2017-04-14", "granted - -"),
        ("2017-04-15", "2017-04-15", "granted - 2017-04-15"),
    ],
)
def test_silence_starts_nothing_before_the_committee_has_agreed(granted_on: str, on: str, expected: str) -> None:
    told = [introduce(), *approve("rec", "2017-03-02", granted_on), supply("2017-03-10")]
    assert fold(on, *told)["trust/luton/luton_trust"] == expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        # objections on day 34, 35 (the last on which one counts) and 36, when silence had granted: that ends it
        ([change("refused", "2017-04-13", "trust")], ["submitted", "refused", "refused", "refused"]),
        ([change("refused", "2017-04-14", "trust")], ["submitted", "submitted", "refused", "refused"]),
        ([change("refused", "2017-04-15", "trust")], ["submitted", "submitted", "granted", "withdrawn"]),
        ([change("withdrawn", "2017-04-15", "trust")], ["submitted", "submitted", "granted", "withdrawn"]),
        ([change("withdrawn", "2017-04-12", "trust")], ["submitted", "withdrawn", "withdrawn", "withdrawn"]),
        # agreed early, and agreed once more after silence had
        ([change("granted", "2017-04-12", "trust")], ["submitted", "granted", "granted", "granted"]),
        ([change("granted", "2017-04-15", "trust")], ["submitted", "submitted", "granted", "granted"]),
        # a question is no objection
        (
            [change("requested", "2017-04-12", "trust")],
            ["submitted", "information_requested", "granted", "granted"],
        ),
    ],
)
def test_what_a_trust_says_around_the_35th_day(told: list[Event], expected: list[str]) -> None:
    told = [introduce(), *REC, supply("2017-03-10"), *told]
    days = ["2017-04-11", "2017-04-13", "2017-04-14", "2017-04-15"]
    assert [fold(day, *told)["trust/luton/luton_trust"].split()[0] for day in days] == expected
    assert fold("2017-04-15", *told)["trust/luton/east_trust"] == "granted - 2017-04-14"  # each has its own


def test_a_question_does_not_stop_the_35_days_and_shows_them() -> None:
    told = [introduce(), *REC, supply("2017-03-10"), change("requested", "2017-04-12", "trust")]
    assert fold("2017-04-12", *told)["trust/luton/luton_trust"] == "information_requested 2017-04-14 -"


def test_a_trust_that_agrees_early_starts_early() -> None:
    told = [introduce(), *REC, supply("2017-03-10"), change("granted", "2017-03-25", "trust")]
    assert fold("2017-03-24", *told)["trust/luton/luton_trust"] == "submitted 2017-04-14 -"
    assert fold("2017-03-25", *told)["trust/luton/luton_trust"] == "granted - 2017-03-25"


def test_asked_again_after_an_objection() -> None:
    again = change("resubmitted", "2017-05-01", "trust", route="trust_considers", attempt=2)
    told = [introduce(), *REC, supply("2017-03-10"), change("refused", "2017-04-20", "trust"), again]
    assert fold("2017-04-30", *told)["trust/luton/luton_trust"] == "withdrawn - -"
    assert fold("2017-05-01", *told)["trust/luton/luton_trust"] == "submitted 2017-06-05 -"
    assert fold("2017-06-05", *told)["trust/luton/luton_trust"] == "granted - 2017-06-05"
    assert find_recording_faults(STUDY, tell(*told[:-1]), again, date(2017, 6, 1)) == []


def test_sent_to_one_body_or_site_before_the_rest() -> None:
    told = [
        introduce(),
        *REC,
        change("submitted", "2017-03-03", "trust"),
        supply("2017-03-06", "luton"),
        supply("2017-03-10"),
    ]
    found = fold("2017-04-01", *told)
    assert {place: words.split()[1] for place, words in found.items() if place.startswith("trust")} == {
        "trust/luton/luton_trust": "2017-04-07",
        "trust/luton/east_trust": "2017-04-10",
        "trust/devon/east_trust": "2017-04-14",
    }


def test_the_committees_own_35_days_are_another_clock() -> None:
    told = [introduce(), change("submitted", "2017-03-02"), change("valid", "2017-03-06"), supply("2017-03-03")]
    for on, left, overdue in (
        ("2017-04-10", 0, "-"),
        ("2017-04-11", -1, "2017-04-11"),
        ("2018-01-01", -266, "2017-04-11"),
    ):
        rows = derive_modifications(STUDY, tell(*told), date.fromisoformat(on))
        rec = rows.loc[rows["approval"] == "rec"].iloc[0]
        # 35 days from valid, not from supply; and the committee's silence grants nothing
        assert (show(rec["decision_due_on"]), rec["days_left"], rec["state"]) == ("2017-04-10", left, "valid")
        assert (show(rec["overdue_since"]), show(rec["implied_on"])) == (overdue, "-")


def list_starts(on: str, *told: Event) -> dict[str, str]:
    modifications = derive_modifications(STUDY, tell(*told), date.fromisoformat(on))
    rows = derive_site_starts(STUDY, modifications).itertuples()
    return {row.site_id: f"{row.n_bodies} {row.n_waiting} {show(row.starts_on)}" for row in rows}


@pytest.mark.parametrize(
    ("on", "told", "expected"),
    [
        ("2017-04-14", [], {"luton": "3 1 -", "devon": "2 1 -"}),
        ("2017-04-14", [change("granted", "2017-04-01", "council")], {"luton": "3 0 2017-04-14", "devon": "2 1 -"}),
        ("2017-04-20", [change("granted", "2017-04-20", "council")], {"luton": "3 0 2017-04-20", "devon": "2 1 -"}),
        (
            "2017-04-20",
            [change("granted", "2017-04-20", "council"), change("refused", "2017-04-20", "trust")],
            {"luton": "3 1 -", "devon": "2 1 -"},
        ),
    ],
)
def test_a_site_starts_with_the_last_of_its_bodies(on: str, told: list[Event], expected: dict[str, str]) -> None:
    assert list_starts(on, introduce(), *REC, supply("2017-03-10"), *told) == expected


def test_a_modification_for_named_bodies_concerns_them_and_their_sites_alone() -> None:
    told = [
        introduce("C", body_ids=["luton_trust"]),
        *REC,
        supply("2017-03-10"),
        issue("2", "2017-03-01", modification="M1"),
    ]
    assert list(fold("2017-03-10", *told)) == ["rec", "trust/luton/luton_trust"]
    assert list_starts("2017-03-20", *told) == {"luton": "1 0 2017-03-20"}
    versions = derive_document_versions(STUDY, tell(*told), date(2017, 4, 1))
    assert versions["site_id"].tolist() == ["luton"]
    east = [introduce("C", body_ids=["east_trust"]), *REC, supply("2017-03-10")]
    assert list(list_starts("2017-03-20", *east)) == ["devon", "luton"]


# Documents ----------------------------------------------------------------------------------------------------------

FIRST = [step("submitted", "2017-01-10"), step("granted", "2017-02-28"), issue("1", "2016-12-01", approval="rec")]
SECOND = [
    introduce(),
    issue("2", "2017-03-01", modification="M1"),
    *REC,
    supply("2017-03-10"),
    change("granted", "2017-03-15", "council", body_id="devon_council", site_id="devon"),
    change("granted", "2017-05-02", "council"),
]


def list_versions(as_of: str, *told: Event, document: str = "consent_form") -> list[str]:
    versions = derive_document_versions(STUDY, tell(*told), date.fromisoformat(as_of))
    rows = versions.loc[versions["document"] == document].itertuples()
    return [f"{row.site_id} {row.version} {show(row.from_on)} {show(row.until_on)}" for row in rows]


END = "2200-12-31"


def test_versions_by_site_and_day() -> None:
    events = tell(*FIRST, *SECOND)
    versions = derive_document_versions(STUDY, events, date(2017, 6, 1))
    found = {
        (site_id, day): find_document_version(versions, "consent_form", site_id, date.fromisoformat(day))
        for site_id, day in [
            *(("devon", day) for day in ("2017-02-27", "2017-02-28", "2017-04-13", "2017-04-14", "2019-01-01")),
            *(("luton", day) for day in ("2017-02-28", "2017-05-01", "2017-05-02")),
        ]
    }
    assert found == {
        ("devon", "2017-02-27"): "",
        ("devon", "2017-02-28"): "1",
        ("devon", "2017-04-13"): "1",
        ("devon", "2017-04-14"): "2",
        ("devon", "2019-01-01"): "2",
        ("luton", "2017-02-28"): "1",
        ("luton", "2017-05-01"): "1",
        ("luton", "2017-05-02"): "2",
    }
    assert find_document_version(versions, "sheet", "luton", date(2017, 6, 1)) == ""
    assert find_document_version(versions, "consent_form", "somerset", date(2017, 6, 1)) == ""


@pytest.mark.parametrize(
    ("as_of", "told", "expected"),
    [
        ("2017-02-27", FIRST, []),
        ("2017-02-28", FIRST, [f"devon 1 2017-02-28 {END}", f"luton 1 2017-02-28 {END}"]),
        # what is not known yet moves nothing
        ("2017-04-13", [*FIRST, *SECOND], [f"devon 1 2017-02-28 {END}", f"luton 1 2017-02-28 {END}"]),
        (
            "2017-04-14",
            [*FIRST, *SECOND],
            ["devon 1 2017-02-28 2017-04-13", f"devon 2 2017-04-14 {END}", f"luton 1 2017-02-28 {END}"],
        ),
        # never before its issue
        (
            "2017-12-01",
            [*FIRST[:2], issue("1", "2017-03-05", approval="rec")],
            [f"devon 1 2017-03-05 {END}", f"luton 1 2017-03-05 {END}"],
        ),
        # the last day of February in a leap year
        (
            "2020-03-01",
            [
                *(step("submitted", "2020-01-10"), step("granted", "2020-02-29")),
                *(issue("1", "2020-01-01", approval="rec"), issue("1b", "2020-03-01", approval="rec")),
            ],
            [
                *("devon 1 2020-02-29 2020-02-29", f"devon 1b 2020-03-01 {END}"),
                *("luton 1 2020-02-29 2020-02-29", f"luton 1b 2020-03-01 {END}"),
            ],
        ),
        # two from one day: the later issued
        (
            "2017-12-01",
            [*FIRST, issue("1a", "2016-12-02", approval="rec")],
            [f"devon 1a 2017-02-28 {END}", f"luton 1a 2017-02-28 {END}"],
        ),
        # of an approval of bodies, with the first that a body of the site grants
        (
            "2017-12-01",
            [
                *(step("submitted", "2017-01-10", "council"), step("granted", "2017-03-26", "council")),
                issue("1", "2016-12-01", approval="council"),
            ],
            [f"luton 1 2017-03-26 {END}"],
        ),
    ],
)
def test_versions_as_known_on_a_day(as_of: str, told: list[Event], expected: list[str]) -> None:
    assert list_versions(as_of, *told) == expected


def test_a_late_objection_brings_the_version_before_back_and_leaves_what_was() -> None:
    told = [*FIRST, *SECOND, change("refused", "2017-06-01", "trust", body_id="east_trust", site_id="devon")]
    devon = ["devon 1 2017-02-28 2017-04-13", "devon 2 2017-04-14 2017-05-31", f"devon 1 2017-06-01 {END}"]
    assert list_versions("2017-06-01", *told)[:3] == devon
    again = change(
        "resubmitted", "2017-06-10", "trust", body_id="east_trust", site_id="devon", route="trust_at_once", attempt=2
    )
    devon[2:] = ["devon 1 2017-06-01 2017-06-09", f"devon 2 2017-06-10 {END}"]
    assert list_versions("2017-07-01", *told, again)[:4] == devon


def test_a_leap_year_and_a_clock_change() -> None:
    told = [*LEAP, issue("2", "2020-02-01", modification="M1")]
    told += [change("granted", "2020-03-01", "council", body_id="devon_council", site_id="devon")]
    assert [fold(day, *told)["trust/devon/east_trust"] for day in ("2020-03-29", "2020-03-30")] == [
        *("submitted 2020-03-30 -", "granted - 2020-03-30")
    ]
    assert list_versions("2020-04-01", *told) == [f"devon 2 2020-03-30 {END}"]


DAYS = st.integers(0, 120).map(lambda n: date(2017, 3, 1) + pd.Timedelta(days=n).to_pytimedelta())
STEPS_OF = {"trust": ["granted", "refused", "withdrawn"], "council": ["granted", "refused", "withdrawn"]}


@settings(max_examples=8, deadline=None)
@given(
    sent=DAYS,
    rec=st.none() | DAYS,
    said=st.dictionaries(
        st.sampled_from(["trust", "council"]), st.tuples(st.sampled_from(STEPS_OF["trust"]), DAYS), max_size=2
    ),
    category=st.sampled_from("AC"),
)
def test_a_version_counts_on_exactly_the_days_on_which_all_had_agreed(
    sent: date, rec: date | None, said: dict[str, tuple[str, date]], category: str
) -> None:
    """The rule told again, a day at a time; and a later look back never says otherwise of a day than that day did."""
    told = [introduce(category, body_ids=["luton_trust", "luton_council"]), supply(sent.isoformat())]
    told += [issue("2", "2017-03-01", modification="M1")]
    told += approve("rec", "2017-03-01", rec.isoformat()) if rec else []
    told += [change(name, on.isoformat(), approval) for approval, (name, on) in said.items()]
    events = tell(*told)
    silence = sent + pd.Timedelta(days=35 if category == "A" else 0).to_pytimedelta()

    def has_agreed(approval: str, day: date) -> bool:
        name, on = said.get(approval, ("", date.max))
        granted_on = on if name == "granted" else date.max
        if approval == "trust" and not (on <= silence):
            granted_on = silence
        ended_on = on if name in ("refused", "withdrawn") else date.max
        return granted_on <= day < ended_on

    def is_expected(day: date) -> bool:
        return rec is not None and rec <= day and has_agreed("trust", day) and has_agreed("council", day)

    last = date(2017, 8, 31)
    looked_back = derive_document_versions(STUDY, events, last)
    days = [date(2017, 3, 1) + pd.Timedelta(days=n).to_pytimedelta() for n in range(0, 180)]
    found = [find_document_version(looked_back, "consent_form", "luton", day) == "2" for day in days]
    assert found == [is_expected(day) for day in days]
    for day in days[20::60]:
        then = derive_document_versions(STUDY, events, day)
        assert (find_document_version(then, "consent_form", "luton", day) == "2") == is_expected(day)


# Recording ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "faults"),
    [
        (supply("2017-03-01"), []),
        (
            supply("2017-03-01", modification="M2"),
            ['"M2" is no modification on record. Record that it was introduced first. Known: M1.'],
        ),
        (
            supply("2017-02-28"),
            ["2017-02-28 is before modification M1 was introduced (2017-03-01). Correct one of them."],
        ),
        (
            supply("2018-01-02", "lutton"),
            [
                "the date 2018-01-02 is in the future (today is 2018-01-01). Correct the date.",
                '"lutton" is no site of trial. Correct it. Did you mean "luton"?',
            ],
        ),
        (introduce(modification="M2", body_ids=["luton_trust", "luton_university"]), []),
        (
            introduce(modification="M2", body_ids=["luton_trst"]),
            ['luton_trst is no body of any site. Correct it. Did you mean "luton_trust"?'],
        ),
        (issue("2", "2017-03-01", modification="M1"), []),
        (issue("2", "2017-03-01", approval="rec"), []),
        (
            issue("2", "2017-03-01", document="shet", approval="rec"),
            ['"shet" is not under [[documents]] in approvals.toml. Add or correct it. Did you mean "sheet"?'],
        ),
        (
            issue("2", "2017-03-01"),
            ["name either the approval that the version was sent in with, or the modification: one of the two."],
        ),
        (
            issue("2", "2017-03-01", approval="rec", modification="M1"),
            ["name either the approval that the version was sent in with, or the modification: one of the two."],
        ),
        (
            issue("2", "2017-03-01", approval="reck"),
            ['"reck" is no approval of the pathway. Correct it. Did you mean "rec"?'],
        ),
        (
            issue("2", "2017-03-01", modification="M2"),
            ['"M2" is no modification on record. Record that it was introduced first. Known: M1.'],
        ),
    ],
)
def test_what_cannot_be_recorded(event: Event, faults: list[str]) -> None:
    assert find_modification_faults(STUDY, tell(introduce()), event, date(2018, 1, 1)) == faults


def test_a_category_that_nobody_is_asked_about() -> None:
    routes = [route for route in STUDY.pathway.routes if not route.for_modifications]
    silent = STUDY.model_copy(update={"pathway": STUDY.pathway.model_copy(update={"routes": tuple(routes)})})
    (fault,) = find_modification_faults(silent, tell(), introduce("B"), date(2018, 1, 1))
    assert fault.startswith("no route in approvals.toml is for modifications of category B on 2017-03-01, so nobody")


SUPPLIED = [introduce(), supply("2017-03-10")]


@pytest.mark.parametrize(
    ("told", "event", "fault"),
    [
        (SUPPLIED, change("granted", "2017-04-01", "council"), ""),
        (SUPPLIED, change("granted", "2017-04-01", "trust"), ""),
        # objections that are recorded after silence has granted, dated before and after
        (SUPPLIED, change("refused", "2017-04-14", "trust"), ""),
        (SUPPLIED, change("refused", "2017-05-01", "trust"), ""),
        (
            SUPPLIED,
            change("granted", "2017-03-09", "council"),
            "council (luton, luton_council, M1): granted on 2017-03-09, but submitted only on 2017-03-10.",
        ),
        (SUPPLIED, change("granted", "2017-04-01"), "rec (M1): granted on 2017-04-01, but there is no record that it"),
        (
            SUPPLIED,
            change("granted", "2017-04-01", "council", modification="M2"),
            'council (luton, luton_council, M2): "M2" is no modification on record.',
        ),
        (
            [introduce(substantial=False)],
            change("submitted", "2017-03-02"),
            "rec (M1): a non-substantial modification of category A is not put to it, or not to this body.",
        ),
        (
            [introduce(body_ids=["luton_trust"])],
            change("submitted", "2017-03-02", "council"),
            "council (luton, luton_council, M1): a substantial modification of category A is not put to it, or not to",
        ),
        (
            [introduce()],
            change("submitted", "2017-02-28"),
            "rec (M1): 2017-02-28 is before modification M1 was introduced (2017-03-01).",
        ),
        (
            [introduce()],
            change("submitted", "2017-03-02", "trust", route="local_pack"),
            'trust (luton, luton_trust, M1): route "local_pack" is not open to it on 2017-03-02.',
        ),
    ],
)
def test_steps_of_a_modification(told: list[Event], event: ApprovalEvent, fault: str) -> None:
    faults = find_recording_faults(STUDY, tell(*told), event, date(2018, 1, 1))
    if fault:
        assert any(text.startswith(fault) for text in faults), faults
    else:
        assert faults == []


def test_the_study_as_first_approved_is_left_alone() -> None:
    """A modification's steps neither open nor close what the gate looks at."""
    day = date(2017, 6, 1)
    changed = tell(*FIRST, *SECOND, change("refused", "2017-05-20", "trust"))
    assert_frame_equal(derive_approvals(STUDY, changed, day), derive_approvals(STUDY, tell(*FIRST), day))
    assert set(derive_modifications(STUDY, changed, day)["modification"]) == {"M1"}
    assert derive_modifications(STUDY, tell(*FIRST), day).empty
