"""Everything dated that lies ahead or was missed: which kinds there are, when each ends, and stable UIDs."""

from datetime import date
from typing import Any

import pandas as pd
import pytest

from study.deadlines import DEADLINE_KINDS, derive_deadlines
from study.events import DutyDone, Event, ModificationIntroduced, ModificationSupplied
from tests.approval_histories import PATHWAY, make_study, step, tell
from tests.test_approval_chasing import ASSESSED, DUTIES, OPENED
from tests.test_modifications import ROUTES

STUDY = make_study(PATHWAY + DUTIES + ROUTES)
DUTY_DAYS = ["2017-07-01", "2018-01-01", "2018-07-01", "2019-01-01"]


def fold(on: str, *told: Event, within_days: int | None = None) -> pd.DataFrame:
    return derive_deadlines(STUDY, tell(*told), date.fromisoformat(on), within_days)


def show(deadlines: pd.DataFrame, *columns: str) -> list[str]:
    """One line each, duties left out: "2017-03-06 decision_due", "late" where it is, and what else is asked for."""
    rows: list[dict[Any, Any]] = deadlines.loc[deadlines["kind"] != "duty"].to_dict("records")
    return [
        " ".join((f"{row['on']:%Y-%m-%d}", row["kind"], *(["late"] if row["is_overdue"] else [])))
        + "".join(f" {row[column]}" for column in columns)
        for row in rows
    ]


SENT = [step("submitted", "2017-01-02"), step("valid", "2017-01-05")]
NEW = [step("submitted", "2026-04-28")]
LASTING = [*SENT, step("granted", "2017-01-31", expires_on="2018-01-30")]
CAG = [step("submitted", "2017-01-02", "cag"), step("granted", "2017-03-10", "cag")]
CHANGE = [
    ModificationIntroduced(
        occurred_on="2017-03-01", requested_by="A. Manager", modification="M1", category="A", is_substantial=False
    ),
    ModificationSupplied(occurred_on="2017-03-06", requested_by="A. Manager", modification="M1"),
]


@pytest.mark.parametrize(
    ("told", "on", "expected"),
    [
        (SENT, "2017-01-04", []),
        (SENT, "2017-01-05", ["2017-03-06 decision_due"]),
        (SENT, "2017-03-06", ["2017-03-06 decision_due"]),
        (SENT, "2017-03-07", ["2017-03-06 decision_due late"]),
        # stopped, and gone on with what was left
        ([*SENT, step("requested", "2017-01-20")], "2017-01-20", []),
        (
            [*SENT, step("requested", "2017-01-20"), step("answered", "2017-02-01")],
            "2017-02-01",
            ["2017-03-18 decision_due"],
        ),
        # a second request does not stop the clock: the authority's day stays
        (
            [
                *(*SENT, step("requested", "2017-01-20"), step("answered", "2017-02-01")),
                step("requested", "2017-02-05", request=2),
            ],
            "2017-03-19",
            ["2017-03-18 decision_due late"],
        ),
        ([*SENT, step("granted", "2017-01-31")], "2017-01-31", []),
        # a last day of force, and what a renewal makes of it
        (LASTING, "2018-01-30", ["2018-01-30 expiry"]),
        (LASTING, "2018-01-31", ["2018-01-30 expiry late"]),
        ([*LASTING, step("renewed", "2018-01-15")], "2018-01-16", []),
        (
            [*LASTING, step("renewed", "2018-01-15", in_force_from="2018-01-31", expires_on="2018-12-31")],
            "2018-01-16",
            ["2018-12-31 expiry"],
        ),
        # a gap of one day is a lapse, and shown
        (
            [*LASTING, step("renewed", "2018-01-15", in_force_from="2018-02-01", expires_on="2018-12-31")],
            "2018-01-16",
            ["2018-01-30 expiry"],
        ),
        (
            [*LASTING, step("renewed", "2018-01-15", in_force_from="2018-02-01", expires_on="2018-12-31")],
            "2018-02-01",
            ["2018-12-31 expiry"],
        ),
        ([*LASTING, step("withdrawn", "2018-01-10")], "2018-01-16", []),
        ([*LASTING, step("resubmitted", "2018-02-10", attempt=2)], "2018-02-10", []),
        # review and its form
        (CAG, "2018-02-11", ["2018-02-10 review_form_due late", "2018-03-10 review_due"]),
        (
            [*CAG, step("renewed", "2018-02-01", "cag")],
            "2018-02-11",
            ["2019-02-10 review_form_due", "2019-03-10 review_due"],
        ),
        # silence starts a change at the trust; the council has no day
        (CHANGE, "2017-04-09", ["2017-04-10 implied_start"]),
        (CHANGE, "2017-04-10", []),
        ([*CHANGE, step("refused", "2017-04-01", "trust", modification="M1")], "2017-04-05", []),
        # incidents until they are assessed
        ([OPENED], "2017-07-18", ["2017-07-17 incident_assessment late"]),
        ([OPENED, ASSESSED], "2017-07-18", []),
        # with the study's last day nothing of its approvals is late any more
        (SENT, "2019-05-31", ["2017-03-06 decision_due late"]),
        (SENT, "2019-06-01", []),
        ([*SENT, step("granted", "2017-01-31", expires_on="2019-06-30")], "2019-06-01", ["2019-06-30 expiry"]),
        ([OPENED], "2019-06-01", ["2017-07-17 incident_assessment late"]),
    ],
)
def test_kinds_on_boundary_days(told: list[Event], on: str, expected: list[str]) -> None:
    assert show(fold(on, *told)) == expected


def test_days_of_the_new_rules() -> None:
    study = STUDY.model_copy(update={"ends_on": date(2028, 12, 31), "starts_on": date(2026, 1, 1)})

    def list_days(on: str, *told: Event) -> list[str]:
        return show(derive_deadlines(study, tell(*told), date.fromisoformat(on), None), "owner", "title")

    assert list_days("2026-04-28", *NEW) == [
        "2026-04-29 decision_due REC REC favourable opinion: the application should be found valid"
    ]
    asked = [*NEW, step("valid", "2026-04-29"), step("requested", "2026-05-08")]
    assert list_days("2026-05-08", *asked) == [
        "2026-07-07 answer_due study team REC favourable opinion: the answer to the request for information is due"
    ]
    assert list_days("2026-05-20", *asked, step("answered", "2026-05-20")) == [
        "2026-05-30 decision_due REC REC favourable opinion: the decision is due"
    ]


@pytest.mark.parametrize(
    ("on", "within_days", "expected"),
    [
        ("2017-04-01", 90, []),
        ("2017-04-02", 90, DUTY_DAYS[:1]),
        ("2017-07-02", 90, DUTY_DAYS[:1]),  # overdue stays, however short the time ahead
        ("2017-07-02", 0, DUTY_DAYS[:1]),
        ("2017-07-01", 184, DUTY_DAYS[:2]),
        ("2017-07-01", 183, DUTY_DAYS[:1]),
        ("2017-01-01", None, DUTY_DAYS),
        ("2019-06-01", 90, DUTY_DAYS),  # duties are owed beyond the end of the study
    ],
)
def test_how_far_ahead(on: str, within_days: int | None, expected: list[str]) -> None:
    assert [f"{day:%Y-%m-%d}" for day in fold(on, within_days=within_days)["on"]] == expected


def test_each_says_what_where_and_whose() -> None:
    found = {"occurred_on": date(2017, 3, 5), "found_on": date(2017, 3, 5)}
    told = [*CHANGE, OPENED.model_copy(update=found), step("submitted", "2017-02-01", "trust")]
    rows = fold("2017-03-10", *told, within_days=130)
    assert show(rows, "title", "approval", "site_id", "body_id", "modification", "owner") == [
        "2017-02-15 decision_due late Capacity and capability: the decision is due trust luton luton_trust  R&D office",
        "2017-04-10 implied_start Modification M1: Capacity and capability: unless somebody objects, silence counts as "
        "agreement from this day trust luton luton_trust M1 R&D office",
        "2017-07-17 incident_assessment Incident luton-I0001: the assessment is due  luton   sponsor",
    ]
    (duty,) = rows.loc[rows["kind"] == "duty"].to_dict("records")
    assert (duty["title"], duty["owner"], duty["duty"]) == ("Progress report (to: Funder)", "project_manager", "report")


def test_a_uid_is_one_obligation_and_stays_while_its_day_moves() -> None:
    def find_uids(on: str, *told: Event) -> dict[str, str]:
        rows = fold(on, *told)
        assert rows["uid"].is_unique
        return dict(zip(rows["uid"], rows["on"].dt.strftime("%Y-%m-%d"), strict=True))

    before = find_uids("2017-01-10", *SENT)
    answered = find_uids("2017-02-01", *SENT, step("requested", "2017-01-20"), step("answered", "2017-02-01"))
    assert before.keys() == answered.keys()
    assert before["trial:decision_due:rec:::::::1"] == "2017-03-06"
    assert answered["trial:decision_due:rec:::::::1"] == "2017-03-18"
    again = [*SENT, step("refused", "2017-01-31"), step("resubmitted", "2017-03-01", attempt=2)]
    anew = find_uids("2017-03-10", *again, step("valid", "2017-03-02", attempt=2))
    assert "trial:decision_due:rec:::::::2" in anew.keys() - before.keys()
    # what was done goes, and takes no other number with it
    done = DutyDone(duty="report", due_on="2017-07-01", occurred_on="2017-06-01", requested_by="A. Manager")
    assert before.keys() - find_uids("2017-06-02", done).keys() == {
        *("trial:decision_due:rec:::::::1", "trial:duty::::::report::1")
    }


def test_many_at_once_have_uids_of_their_own_and_known_kinds() -> None:
    told = [*SENT, *CAG, *CHANGE, OPENED, *(step("submitted", "2017-02-01", name) for name in ("council", "trust"))]
    rows = fold("2017-03-11", *told)
    assert rows["uid"].is_unique
    assert set(rows["kind"]) <= set(DEADLINE_KINDS)
    assert rows["on"].is_monotonic_increasing
    assert rows["is_overdue"].tolist() == (rows["on"] < pd.Timestamp("2017-03-11")).tolist()
