"""States, clocks and deadlines of approvals on boundary days, and what cannot be recorded."""

from datetime import date
from typing import Any

import pandas as pd
import pytest

from study.approvals import derive_approvals, find_recording_faults
from study.events import ApprovalEvent, Event
from tests.approval_histories import make_study, step, tell

TRIAL = make_study()
TODAY = date(2018, 1, 1)


def fold(on: str, *told: Event, approval: str = "rec", site_id: str = "") -> Any:
    approvals = derive_approvals(TRIAL, tell(*told), date.fromisoformat(on))
    rows = approvals.loc[(approvals["approval"] == approval) & approvals["site_id"].isin(["luton", site_id])]
    assert len(rows) == 1
    return rows.iloc[0]


def show(value: Any) -> str:
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d}"
    return "-" if pd.isna(value) else str(value)


SENT = [step("submitted", "2017-01-02"), step("valid", "2017-01-05")]
STOPPED = [*SENT, step("requested", "2017-01-20")]
ANSWERED = [*STOPPED, step("answered", "2017-02-01")]
SECOND = [*ANSWERED, step("requested", "2017-02-05", request=2)]
NEW = [step("submitted", "2026-04-24"), step("valid", "2026-04-28")]
NEW_STOPPED = [*NEW, step("requested", "2026-05-08")]
NEW_ANSWERED = [*NEW_STOPPED, step("answered", "2026-05-20")]
OLD = [step("submitted", "2026-04-20"), step("valid", "2026-04-27")]
UNMENDED = [step("submitted", "2026-04-28"), step("requested", "2026-04-29")]


@pytest.mark.parametrize(
    ("told", "on", "expected"),
    [
        # state, whose turn, stopped, days used and left, decision due, due, overdue since
        ([], "2017-01-05", "not_sought applicant False - - - - -"),
        (SENT, "2017-01-01", "not_sought applicant False - - - - -"),
        (SENT, "2017-01-02", "submitted authority False - - - - -"),
        (SENT, "2017-01-04", "submitted authority False - - - - -"),
        (SENT, "2017-01-05", "valid authority False 0 60 2017-03-06 2017-03-06 -"),
        (SENT, "2017-03-06", "valid authority False 60 0 2017-03-06 2017-03-06 -"),
        (SENT, "2017-03-07", "valid authority False 61 -1 2017-03-06 2017-03-06 2017-03-07"),
        (SENT, "2017-03-27", "valid authority False 81 -21 2017-03-06 2017-03-06 2017-03-07"),  # clocks went forward
        (STOPPED, "2017-01-19", "valid authority False 14 46 2017-03-06 2017-03-06 -"),
        (STOPPED, "2017-01-20", "information_requested applicant True 15 45 - - -"),
        (STOPPED, "2017-06-20", "information_requested applicant True 15 45 - - -"),
        (ANSWERED, "2017-02-01", "valid authority False 15 45 2017-03-18 2017-03-18 -"),
        (ANSWERED, "2017-02-02", "valid authority False 16 44 2017-03-18 2017-03-18 -"),
        (ANSWERED, "2017-03-19", "valid authority False 61 -1 2017-03-18 2017-03-18 2017-03-19"),
        # the rule has one stop: a second request does not stop the clock
        (SECOND, "2017-02-06", "information_requested applicant False 20 40 2017-03-18 - -"),
        # a request on the day on which it was due, and one that came too late
        (
            [*SENT, step("requested", "2017-03-06")],
            "2017-03-09",
            "information_requested applicant True 60 0 2017-03-06 - -",
        ),
        # rules from 28 April 2026
        (OLD, "2026-05-01", "valid authority False 4 56 2026-06-26 2026-06-26 -"),
        (NEW, "2026-04-27", "submitted authority False - - - - -"),  # sent in under the old rules
        (NEW, "2026-04-28", "valid authority False 0 30 2026-05-28 2026-05-28 -"),
        (NEW_STOPPED, "2026-05-08", "information_requested applicant True 10 20 - 2026-07-07 -"),
        (NEW_STOPPED, "2026-07-07", "information_requested applicant True 10 20 - 2026-07-07 -"),
        (NEW_STOPPED, "2026-07-08", "information_requested applicant True 10 20 - 2026-07-07 2026-07-08"),
        (NEW_ANSWERED, "2026-05-20", "valid authority False 0 10 2026-05-30 2026-05-30 -"),
        (NEW_ANSWERED, "2026-05-31", "valid authority False 11 -1 2026-05-30 2026-05-30 2026-05-31"),
        # one working day to find it valid: Friday 1 May 2026 is before the bank holiday of 4 May
        ([step("submitted", "2026-05-01")], "2026-05-05", "submitted authority False - - - 2026-05-05 -"),
        ([step("submitted", "2026-05-01")], "2026-05-06", "submitted authority False - - - 2026-05-05 2026-05-06"),
        # seven days to mend what is not valid yet
        (UNMENDED, "2026-05-06", "information_requested applicant False - - - 2026-05-06 -"),
        (UNMENDED, "2026-05-07", "information_requested applicant False - - - 2026-05-06 2026-05-07"),
        (
            [*UNMENDED, step("answered", "2026-04-30")],
            "2026-04-30",
            "submitted authority False - - - 2026-05-01 -",
        ),
        # decided: the days it took stay
        ([*ANSWERED, step("granted", "2017-02-11")], "2017-09-01", "granted  False 25 - - - -"),
        ([*ANSWERED, step("refused", "2017-02-11")], "2017-09-01", "refused applicant False 25 - - - -"),
        ([*SENT, step("withdrawn", "2017-01-10")], "2017-01-09", "valid authority False 4 56 2017-03-06 2017-03-06 -"),
        ([*SENT, step("withdrawn", "2017-01-10")], "2017-01-10", "withdrawn  False 5 - - - -"),
    ],
)
def test_clock_of_the_committee(told: list[Event], on: str, expected: str) -> None:
    row = fold(on, *told)
    fields = ("state", "turn", "is_stopped", "days_used", "days_left", "decision_due_on", "due_on", "overdue_since")
    assert " ".join(show(row[field]) for field in fields) == expected


@pytest.mark.parametrize(
    ("sent", "on", "used", "due"),
    [
        ("2017-04-10", "2017-04-18", 4, "2017-04-26"),  # over Good Friday and Easter Monday
        ("2017-04-13", "2017-04-17", 0, "2017-05-02"),  # Easter, and 1 May
        ("2017-05-26", "2017-05-30", 1, "2017-06-12"),  # spring bank holiday, 29 May
        ("2020-02-27", "2020-03-02", 2, "2020-03-12"),  # 29 February 2020 is a Saturday
        ("2024-02-28", "2024-02-29", 1, "2024-03-13"),  # 29 February 2024 is worked
        ("2017-03-24", "2017-03-27", 1, "2017-04-07"),  # clocks go forward on Sunday 26 March
        ("2017-10-27", "2017-10-30", 1, "2017-11-10"),  # and back on Sunday 29 October
        ("2017-12-22", "2017-12-28", 2, "2018-01-10"),  # Christmas, Boxing Day and New Year's Day
    ],
)
def test_working_days(sent: str, on: str, used: int, due: str) -> None:
    row = fold(on, step("submitted", sent, "trust"), approval="trust")
    assert (row["clock_unit"], row["days_used"], show(row["decision_due_on"])) == ("working", used, due)


def test_working_days_stop_for_as_many_requests_as_there_are() -> None:
    told = [
        step("submitted", "2017-04-10", "trust"),
        step("requested", "2017-04-12", "trust"),  # 2 used
        step("answered", "2017-04-24", "trust"),
        step("requested", "2017-04-26", "trust", request=2),  # 4 used
        step("answered", "2017-05-02", "trust", request=2),
    ]
    row = fold("2017-05-03", *told, approval="trust")
    assert (row["days_used"], show(row["decision_due_on"]), row["state"]) == (5, "2017-05-10", "submitted")


def test_a_route_without_a_limit_only_counts() -> None:
    row = fold("2017-04-18", step("submitted", "2017-04-10", "council"), approval="council")
    assert row["days_used"] == 4
    assert [show(row[field]) for field in ("days_allowed", "days_left", "due_on", "overdue_since")] == ["-"] * 4


@pytest.mark.parametrize(
    ("renewed", "expected"),
    [
        ([], ("2021-02-28", "2021-01-31")),
        ([1], ("2022-02-28", "2022-01-31")),
        ([1, 2, 3], ("2024-02-29", "2024-02-01")),
    ],
)
def test_annual_review_and_its_form(renewed: list[int], expected: tuple[str, str]) -> None:
    told = [step("submitted", "2020-01-02", "cag"), step("granted", "2020-02-29", "cag")]
    told += [step("renewed", f"{2020 + n}-02-20", "cag", renewal=n) for n in renewed]
    row = fold("2023-03-01", *told, approval="cag")
    assert (show(row["review_due_on"]), show(row["review_form_due_on"])) == expected


def test_what_the_study_does_not_need_and_what_it_does_not_know() -> None:
    approvals = derive_approvals(TRIAL, tell(step("submitted", "2017-01-02", site_id="devon")), date(2017, 2, 1))
    assert approvals.loc[approvals["approval"] == "adass", "state"].tolist() == ["not_needed"]
    (stray,) = (row for _, row in approvals.iterrows() if (row["approval"], row["site_id"]) == ("rec", "devon"))
    assert (stray["level"], stray["is_needed"], stray["state"]) == ("", False, "submitted")


# Recording ----------------------------------------------------------------------------------------------------------


def find_faults(event: ApprovalEvent, *told: Event) -> list[str]:
    return find_recording_faults(TRIAL, tell(*told), event, TODAY)


@pytest.mark.parametrize(
    ("told", "event", "fault"),
    [
        (
            SENT,
            step("granted", "2017-01-01"),
            "rec: granted on 2017-01-01, but submitted only on 2017-01-02. Correct the date of one of them.",
        ),
        ([], step("granted", "2017-01-01"), "rec: granted on 2017-01-01, but there is no record that it was submitted"),
        (SENT, step("granted", "2018-01-02"), "rec: the date 2018-01-02 is in the future (today is 2018-01-01)."),
        (
            SENT,
            step("granted", "2017-02-01", expires_on="2017-01-31"),
            "rec: its last day of force (2017-01-31) is before its first (2017-02-01). Correct one.",
        ),
        (
            SENT,
            step("granted", "2017-01-04"),
            "rec: granted on 2017-01-04, but found valid on 2017-01-05, which is later.",
        ),
        (
            [],
            step("submitted", "2017-01-01", "council", body_id="devon_council"),
            "council (luton, devon_council): devon_council is no body at Luton. Correct it, or add it to the site's",
        ),
        (
            [],
            step("submitted", "2017-01-01", "council", body_id="luton_trust"),
            'council (luton, luton_trust): Luton Trust is a body of kind "nhs_trust", and the approval is for council.',
        ),
        (
            [],
            step("submitted", "2017-01-01", "council", site_id="lutton"),
            'council (lutton, luton_council): "lutton" is no site of trial. Correct it. Did you mean "luton"?',
        ),
        (
            [],
            step("submitted", "2017-01-01", site_id="luton"),
            "rec (luton): the approval is one of the study, not of a site. Leave the site out.",
        ),
        (
            [],
            step("submitted", "2017-01-01", "access", person_id=""),
            "access (luton, luton_trust): the approval is one of each person, and no person is named.",
        ),
        (
            [],
            step("submitted", "2016-03-30", "trust"),
            'trust (luton, luton_trust): route "local_pack" is not open to it on 2016-03-30. Correct it. '
            "Possible: rd_approval.",
        ),
        (
            [step("submitted", "2017-01-01", "access")],
            step("granted", "2017-02-01", "access"),
            "access (luton, luton_trust, R01): it has no last day of force, which this approval must state.",
        ),
        (SENT, step("answered", "2017-01-20"), "rec: answered on 2017-01-20, but there is no record that it was asked"),
        (STOPPED, step("answered", "2017-01-19"), "rec: answered on 2017-01-19, but asked for information only on"),
        (STOPPED, step("requested", "2017-02-01", request=2), "rec: asked for information on 2017-02-01, but there is"),
        (
            [*SENT, step("refused", "2017-02-01")],
            step("requested", "2017-02-02"),
            "rec: asked for information on 2017-02-02, after it was refused on 2017-02-01.",
        ),
        (
            [*SENT, step("withdrawn", "2017-02-01")],
            step("granted", "2017-02-02"),
            "rec: granted on 2017-02-02, after it was withdrawn on 2017-02-01.",
        ),
        (
            [*SENT, step("granted_with_conditions", "2017-02-01", conditions=["a"])],
            step("condition_met", "2017-02-02", condition="c"),
            "rec: no such condition is in the grant (a). Correct it.",
        ),
        (
            [*SENT, step("granted", "2017-02-01")],
            step("resubmitted", "2017-03-01", attempt=2),
            "rec: submitted on 2017-03-01 again, but attempt 1 was neither refused nor withdrawn, nor had it expired",
        ),
        (SENT, step("submitted", "2017-03-01", attempt=2), "rec: submitted on 2017-03-01 as attempt 2: record it as"),
        (
            [],
            step("resubmitted", "2017-03-01", attempt=2),
            "rec: submitted on 2017-03-01 as attempt 2, but there is no",
        ),
        (SENT, step("renewed", "2017-02-01"), "rec: renewed on 2017-02-01, but there is no record that it was granted"),
    ],
)
def test_what_cannot_be_recorded(told: list[Event], event: ApprovalEvent, fault: str) -> None:
    faults = find_faults(event, *told)
    assert any(text.startswith(fault) for text in faults), faults


@pytest.mark.parametrize(
    ("told", "event"),
    [
        ([], step("submitted", "2017-01-02")),
        (SENT, step("requested", "2017-01-05")),
        (STOPPED, step("answered", "2017-01-20")),
        (ANSWERED, step("granted", "2018-01-01", expires_on="2018-01-01")),
        ([*SENT, step("granted", "2017-02-01", expires_on="2017-02-28")], step("resubmitted", "2017-03-01", attempt=2)),
        ([*SENT, step("refused", "2017-02-01")], step("resubmitted", "2017-02-01", attempt=2)),
        ([*SENT, step("granted", "2017-02-01")], step("granted", "2017-02-03")),  # the ledger answers "conflict"
        ([*SENT, step("granted", "2017-02-01")], step("withdrawn", "2017-02-01")),
    ],
)
def test_what_can_be_recorded(told: list[Event], event: ApprovalEvent) -> None:
    assert find_faults(event, *told) == []


def test_two_tellings_of_one_decision_share_a_key() -> None:
    decisions = [
        step("granted", "2017-02-01"),
        step("granted", "2017-02-02"),
        step("refused", "2017-02-01"),
        step("granted_with_conditions", "2017-02-01", conditions=["a"]),
    ]
    assert len({event.key for event in decisions}) == 1
    assert step("submitted", "2017-01-01").key != step("resubmitted", "2017-01-01", attempt=2).key
