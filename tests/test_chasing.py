"""What sites are chased for: on which day, by which step, until what; and what rests."""

from datetime import date
from typing import Any

import pandas as pd
import pytest

from study.chasing import COLUMNS, derive_chasers, derive_owed, derive_rungs, list_pauses
from study.events import ConsentCopyChecked, Event
from study.protocol import Study
from tests.approval_histories import tell
from tests.chasing_studies import (
    CHASERS,
    FIELDWORK,
    JOINED,
    NO_FIGURES,
    accepted,
    answered,
    called,
    chased,
    closed,
    granted_until,
    joined,
    lapsed,
    left,
    make_study,
    paused,
    raised,
    released,
    reported,
    resumed,
    who,
)
from tests.release_studies import APPROVALS, grant, identify

ONE, TWO = identify(1), identify(2)
OPEN = grant("luton", "devon")
OUT = [*OPEN, *joined(1), *released(1)]
KEY = f"chase:return:{ONE}:self:baseline"


def plan(on: str, *told: Event, study: Study | None = None) -> pd.DataFrame:
    return derive_chasers(study or make_study(), tell(*told), date.fromisoformat(on))


def show(chasers: pd.DataFrame, *columns: str) -> list[str]:
    """One line a chaser of what sites owe: "due late 2017-08-18", and what else is asked for."""
    own = chasers.loc[~chasers["about"].isin(["authority", "applicant"]) & ~chasers["is_told"]]
    return [
        f"{row['state']} {row['chaser']} {row['due_on']:%Y-%m-%d}" + "".join(f" {row[column]}" for column in columns)
        for row in own.to_dict("records")
    ]


# Returns --------------------------------------------------------------------------------------------------------------

# Due on Tuesday 15 August 2017; 28 August is a bank holiday.
SOON, LATE, CALL, LAST = "soon 2017-08-08", "late 2017-08-18", "call 2017-08-30", "last 2017-09-13"


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        ("2017-07-31", []),
        ("2017-08-01", [f"coming {SOON}"]),
        ("2017-08-07", [f"coming {SOON}"]),
        ("2017-08-08", [f"due {SOON}", f"coming {LATE}"]),
        ("2017-08-15", [f"due {SOON}", f"coming {LATE}"]),
        ("2017-08-16", [f"coming {LATE}"]),  # a notice ahead is worth nothing after the day
        ("2017-08-17", [f"coming {LATE}"]),
        ("2017-08-18", [f"due {LATE}", f"coming {CALL}"]),
        ("2017-08-29", [f"due {LATE}", f"coming {CALL}"]),
        ("2017-08-30", [f"due {CALL}", f"coming {LAST}"]),
        ("2017-09-13", [f"due {LAST}"]),  # after a backlog the highest alone
        ("2017-10-02", [f"due {LAST}"]),
        ("2017-10-03", []),  # nothing can come any more
    ],
)
def test_a_ladder_stands_while_a_return_is_out(on: str, expected: list[str]) -> None:
    assert show(plan(on, *OUT)) == expected


@pytest.mark.parametrize(
    ("told", "on", "expected"),
    [
        ([accepted(1, "2017-08-17")], "2017-08-18", []),
        ([accepted(1, "2017-08-18")], "2017-08-18", []),
        ([accepted(1, "2017-08-19")], "2017-08-18", [f"due {LATE}", f"coming {CALL}"]),  # of a later day
        ([left(1, "2017-08-18")], "2017-08-18", []),
        ([left(1, "2017-08-19")], "2017-08-18", [f"due {LATE}", f"coming {CALL}"]),
        ([left(1, "2017-08-10", "study", "withdrew")], "2017-08-18", []),
        ([left(1, "2017-08-10", "questionnaires", "withdrew")], "2017-08-18", []),
        ([left(1, "2017-08-10", "data", "withdrew")], "2017-08-18", []),
        # what stops something else stops no questionnaire
        ([left(1, "2017-08-10", "treatment", "withdrew")], "2017-08-18", [f"due {LATE}", f"coming {CALL}"]),
        ([left(1, "2017-08-10", "linkage", "withdrew")], "2017-08-18", [f"due {LATE}", f"coming {CALL}"]),
        # dated before the consent that came later: it holds all the same
        ([left(1, "2017-07-20", "questionnaires", "withdrew")], "2017-08-18", []),
        # somebody else's return
        ([*joined(2), *released(2), accepted(2, "2017-08-17")], "2017-08-18", [f"due {LATE}", f"coming {CALL}"]),
    ],
)
def test_each_end_of_a_return_ends_its_chasers(told: list[Event], on: str, expected: list[str]) -> None:
    assert show(plan(on, *OUT, *told)) == expected


def test_what_was_chased_is_not_chased_again_by_the_same_step() -> None:
    assert show(plan("2017-08-18", *OUT, *chased(f"{KEY}:late"))) == [f"coming {CALL}"]
    assert show(plan("2017-09-13", *OUT, *chased(f"{KEY}:last"))) == []
    assert show(plan("2017-08-30", *OUT, *chased(f"{KEY}:late"))) == [f"due {CALL}", f"coming {LAST}"]


def test_a_corrected_date_chases_nobody_twice_and_goes_back_to_no_lower_step() -> None:
    later = [*OPEN, *joined(1, on="2017-08-08"), *released(1)]  # due on 22 August
    assert show(plan("2017-08-25", *later)) == ["due late 2017-08-25", "coming call 2017-09-06"]
    assert show(plan("2017-08-25", *later, *chased(f"{KEY}:late"))) == ["coming call 2017-09-06"]
    assert show(plan("2017-08-25", *later, *chased(f"{KEY}:call"))) == ["coming last 2017-09-20"]


@pytest.mark.parametrize(
    ("released_on", "on", "expected"),
    [
        # went out after its day: no letter at once; days count from the pack
        ("2017-08-16", "2017-08-18", ["coming late 2017-08-21"]),
        ("2017-08-16", "2017-08-21", ["due late 2017-08-21", "coming call 2017-08-31"]),
        ("2017-09-18", "2017-09-18", ["coming late 2017-09-21"]),
        # in the days of the notice: the pack itself is one
        ("2017-08-08", "2017-08-08", ["coming late 2017-08-18"]),
        ("2017-08-07", "2017-08-08", ["due soon 2017-08-08", "coming late 2017-08-18"]),
        ("2017-08-14", "2017-08-15", ["coming late 2017-08-18"]),
    ],
)
def test_what_goes_out_late_is_not_chased_at_once(released_on: str, on: str, expected: list[str]) -> None:
    assert show(plan(on, *OPEN, *joined(1), *released(1, on=released_on))) == expected


def test_a_second_copy_moves_no_step() -> None:
    again = released(1, on="2017-08-25", copy=2)
    assert show(plan("2017-08-30", *OUT, *again)) == [f"due {CALL}", f"coming {LAST}"]


def test_a_chaser_says_what_who_since_when_and_by_which_rule() -> None:
    (row,) = plan("2017-08-21", *OUT).query("state == 'due'").to_dict("records")
    assert {name: row[name] for name in ("key", "to", "channel", "template", "about", "n_days_late")} == {
        "key": f"{KEY}:late", "to": "site_researcher", "channel": "email", "template": "return_overdue",
        "about": "return", "n_days_late": 3,
    }  # fmt: skip
    assert row["rule"] == (
        f"{ONE}, Baseline, self is due by 2017-08-15. Site researcher is chased by email 3 working days after "
        "2017-08-15 (late)."
    )
    assert (row["n_days_overdue"], row["site_id"], row["wave"], row["respondent"]) == (6, "luton", "baseline", "self")


# Telling --------------------------------------------------------------------------------------------------------------


def list_told(chasers: pd.DataFrame) -> list[str]:
    told = chasers.loc[chasers["is_told"]]
    return [f"{row['to']}: {row['of_role']} {row['channel']} {row['key']}" for row in told.to_dict("records")]


def test_the_coordinator_is_told_of_a_call_and_the_manager_of_a_last_step() -> None:
    call = f"{KEY}:call:told:fieldwork_coordinator"
    last = f"{KEY}:last:told:project_manager"
    assert list_told(plan("2017-08-29", *OUT)) == []
    assert list_told(plan("2017-08-30", *OUT)) == [f"fieldwork_coordinator: site_lead telephone {call}"]
    assert list_told(plan("2017-08-30", *OUT, *chased(call))) == []
    assert show(plan("2017-08-30", *OUT, *chased(call)))[0] == f"due {CALL}"  # told, and still to be made
    assert list_told(plan("2017-08-31", *OUT, *chased(f"{KEY}:call"))) == []
    assert list_told(plan("2017-09-13", *OUT)) == [f"project_manager: site_lead email {last}"]
    assert list_told(plan("2017-09-14", *OUT, *chased(f"{KEY}:last"))) == [f"project_manager: site_lead email {last}"]
    assert list_told(plan("2017-09-14", *OUT, *chased(f"{KEY}:last", last))) == []
    assert list_told(plan("2017-09-14", *OUT, *chased(f"{KEY}:last"), accepted(1, "2017-09-14"))) == []


# Consent --------------------------------------------------------------------------------------------------------------

# Signed on 1 August: to be filed within ten working days, by 15 August.
COPY = f"chase:consent_copy:{ONE}:1.0:copy"


@pytest.mark.parametrize(
    ("told", "on", "expected"),
    [
        (joined(1, filed=""), "2017-08-15", ["coming copy 2017-08-16"]),
        (joined(1, filed=""), "2017-08-16", ["due copy 2017-08-16"]),
        (joined(1, filed="no"), "2017-08-16", ["due copy 2017-08-16"]),
        (joined(1, filed="yes"), "2017-08-16", []),
        ([*joined(1, filed=""), *chased(COPY)], "2017-12-01", []),
        # it goes on when somebody leaves, since the data were given; not when these are withdrawn too
        ([*joined(1, filed=""), left(1, "2017-08-10")], "2017-08-16", ["due copy 2017-08-16"]),
        ([*joined(1, filed=""), left(1, "2017-08-10", "study", "withdrew")], "2017-08-16", ["due copy 2017-08-16"]),
        ([*joined(1, filed=""), left(1, "2017-08-10", "data", "withdrew")], "2017-08-16", []),
    ],
)
def test_consent_forms_to_be_filed(told: list[Event], on: str, expected: list[str]) -> None:
    assert show(plan(on, *OPEN, *told)) == expected


def test_a_form_that_was_not_found_is_asked_for_and_one_that_was_seen_is_not() -> None:
    def looked(finding: str) -> Event:
        return ConsentCopyChecked(**who(1, "2017-09-01"), form_version="1.0", finding=finding)  # type: ignore[arg-type]  # a word of three

    assert [line.split()[1] for line in show(plan("2017-12-01", *OPEN, *joined(1), looked("missing")))] == ["copy"]
    assert show(plan("2017-12-01", *OPEN, *joined(1, filed=""), looked("seen"))) == []


def test_consent_to_be_given_anew_is_asked_for_ahead() -> None:
    rule = 'copy_within = 10\nreconsent_after = "6 months"\n'
    study = make_study(NO_FIGURES.replace("copy_within = 10\n", rule))
    # it counts until 1 February or so, and is asked for four weeks before that
    owed = derive_owed(study, tell(*OPEN, *joined(1)), date(2017, 12, 1)).query("about == 'reconsent'")
    (ends_on,), (owed_on,) = owed["ends_on"], owed["owed_on"]
    assert (ends_on - owed_on).days == 28
    day = (owed_on + pd.offsets.BDay(3)).date().isoformat()
    assert any(line.startswith("due again") for line in show(plan(day, *OPEN, *joined(1), study=study)))
    gone = [*OPEN, *joined(1), left(1, "2017-09-01")]
    assert show(plan(day, *gone, study=study)) == []
    signed_anew = joined(1, on="2017-12-15", form_version="2.0")[1]
    lines = show(plan(day, *OPEN, *joined(1), signed_anew, study=study))
    assert not any(line.startswith("due again") for line in lines)


def test_a_form_signed_anew_on_the_same_version_is_asked_for_by_its_own_key() -> None:
    """The same steps go again for the new form, though they were taken for the old one."""
    rule = 'copy_within = 10\nreconsent_after = "6 months"\n'
    study = make_study(NO_FIGURES.replace("copy_within = 10\n", rule))
    old = [*OPEN, *joined(1, filed=""), *chased(COPY, f"chase:reconsent:{ONE}:1.0:again")]
    anew = joined(1, on="2017-12-01", filed="", renewal="2017-12-01")[1]
    rungs = plan("2018-06-04", *old, anew, study=study)
    assert rungs["key"].tolist() == [
        f"chase:consent_copy:{ONE}:1.0:2017-12-01:copy", f"chase:reconsent:{ONE}:1.0:2017-12-01:again",
    ]  # fmt: skip
    assert rungs["subject"].tolist() == [
        f"Consent form 1.0 of {ONE}, signed 2017-12-01", f"Consent of {ONE} (form 1.0, signed 2017-12-01)",
    ]  # fmt: skip
    assert set(rungs["renewal"]) == {"2017-12-01"}


# Queries --------------------------------------------------------------------------------------------------------------

ASKED = [*OPEN, *joined(1), raised(1, "2017-08-23")]


@pytest.mark.parametrize(
    ("told", "on", "expected"),
    [
        ([], "2017-08-22", []),
        # five working days from Wednesday 23 August, over the bank holiday: 31 August; a day later it is chased
        ([], "2017-08-31", ["coming query 2017-09-01"]),
        ([], "2017-09-01", ["due query 2017-09-01"]),
        ([closed("2017-09-01")], "2017-09-01", []),
        ([answered("2017-09-01")], "2017-09-01", []),
        ([left(1, "2017-08-25")], "2017-09-01", ["due query 2017-09-01"]),
        ([left(1, "2017-08-25", "data", "withdrew")], "2017-09-01", []),
        (chased("chase:query:LUT-0001:query"), "2017-12-01", []),
    ],
)
def test_open_queries(told: list[Event], on: str, expected: list[str]) -> None:
    assert show(plan(on, *ASKED, *told)) == expected


# Activity figures -----------------------------------------------------------------------------------------------------


def test_months_that_are_over_and_not_reported_in_full() -> None:
    study = make_study(FIELDWORK)
    told = [*OPEN, *joined(1, on="2017-07-03")]

    def list_months(on: str, *more: Event) -> list[str]:
        return show(plan(on, *told, *more, study=study).query("about == 'activity_figures'"), "month", "site_id")

    assert list_months("2017-07-31") == []
    assert [line.split()[0] for line in list_months("2017-08-10")] == ["coming"]
    (line,) = list_months("2017-08-15")
    assert line.startswith("due figure")
    assert line.endswith("2017-07 luton")
    half = reported("2017-08-09", "2017-07", "evaluation")
    whole = reported("2017-08-09", "2017-07", "nhs_england")
    assert list_months("2017-08-15", half) == [line]
    assert list_months("2017-08-15", half, whole) == []
    key = "chase:activity_figures:luton:plans:2017-07:figure"
    assert [line[-13:] for line in list_months("2017-09-15", *chased(key))] == ["2017-08 luton"]


def test_months_before_a_site_began_start_no_flood() -> None:
    study = make_study(FIELDWORK)
    told = [*OPEN, *joined(1, on="2017-12-01")]
    on_the_day = plan("2017-12-01", *told, study=study).query("about == 'activity_figures'")
    assert set(on_the_day["state"]) == {"coming"}
    later = plan("2017-12-12", *told, study=study).query("about == 'activity_figures' and state == 'due'")
    assert later["month"].tolist() == ["2017-07", "2017-08", "2017-09", "2017-10", "2017-11"]


# A site that may not collect ------------------------------------------------------------------------------------------


def test_a_suspended_site_is_chased_for_what_lapsed_and_for_nothing_else() -> None:
    study = make_study(FIELDWORK, APPROVALS + CHASERS)
    people = [*joined(1, on="2017-07-10", filed=""), *released(1, on="2017-07-10"), raised(1, "2017-07-20")]
    others = [*joined(1, on="2017-07-10", filed="", site_id="devon"), *released(1, on="2017-07-10", site_id="devon")]
    told = [*granted_until("2017-08-11"), *grant("devon"), *people, *others]

    def list_due(on: str, *more: Event) -> list[str]:
        chasers = plan(on, *told, *more, study=study).query("state == 'due'")
        return sorted(chasers.loc[chasers["site_id"] == "luton", "about"].unique())

    assert list_due("2017-08-11") == ["consent_copy", "query", "return"]  # its last day
    assert list_due("2017-08-14") == ["applicant"]
    assert list_due("2018-04-03") == ["applicant"]
    devon = plan("2017-08-14", *told, study=study).query("state == 'due' and site_id == 'devon'")
    assert sorted(set(devon["about"])) == ["activity_figures", "consent_copy", "return"]
    taken_back = [*grant("luton", "devon"), *people, lapsed("2017-08-10")]
    assert set(plan("2017-08-14", *taken_back, study=study)["about"]) == set()  # it is nobody's turn


# Resting --------------------------------------------------------------------------------------------------------------


def list_resting(on: str, *told: Event) -> list[str]:
    chasers = plan(on, *told)
    chasers = chasers.loc[~chasers["about"].isin(["authority", "applicant"])]
    return [f"{row['state']} {row['chaser']}: {row['rests_because']}" for row in chasers.to_dict("records")]


LATE_ONE = "due late: "
OPEN_END = "resting late: Paused until it is resumed (staff_ill)"
UNTIL = "resting late: Paused until 24 August 2017 (staff_ill)"
PROMISED = "resting late: Promised for 24 August 2017"


@pytest.mark.parametrize(
    ("told", "on", "expected"),
    [
        ([], "2017-08-21", LATE_ONE),
        ([paused("2017-08-22")], "2017-08-21", LATE_ONE),
        ([paused("2017-08-21")], "2017-08-21", OPEN_END),
        ([paused("2017-08-21", until="2017-08-24")], "2017-08-24", UNTIL),
        ([paused("2017-08-21", until="2017-08-24")], "2017-08-25", LATE_ONE),
        ([paused("2017-08-21"), resumed("2017-08-23")], "2017-08-22", OPEN_END),
        ([paused("2017-08-21"), resumed("2017-08-23")], "2017-08-23", LATE_ONE),
        ([paused("2017-08-21", "devon")], "2017-08-21", LATE_ONE),
        ([paused("2017-08-21", "luton", TWO)], "2017-08-21", LATE_ONE),
        ([paused("2017-08-21", "luton", ONE)], "2017-08-21", OPEN_END),
        ([paused("2017-08-21", about=("query",))], "2017-08-21", LATE_ONE),
        ([paused("2017-08-21", about=("query", "return"))], "2017-08-21", OPEN_END),
        ([called("2017-08-21", ["return"], until="2017-08-24")], "2017-08-24", PROMISED),
        ([called("2017-08-21", ["return"], until="2017-08-24")], "2017-08-25", LATE_ONE),
        ([called("2017-08-21", ["query"], until="2017-08-24")], "2017-08-24", LATE_ONE),
        ([called("2017-08-21", ["return"], "reached")], "2017-08-21", LATE_ONE),
    ],
)  # fmt: skip
def test_what_is_paused_or_promised_rests(told: list[Event], on: str, expected: str) -> None:
    assert list_resting(on, *OUT, *told)[0] == expected


def test_quiet_periods_of_the_study_and_of_a_site() -> None:
    told = [*OPEN, *joined(1, on="2017-10-02"), *released(1, on="2017-10-02")]  # due on 16 October: late on the 19th
    there = [*joined(1, on="2017-10-02", site_id="devon"), *released(1, on="2017-10-02", site_id="devon")]
    states = {
        day: [line.split(":")[0] for line in list_resting(day, *told, *there) if "late" in line]
        for day in ("2017-10-20", "2017-10-23", "2017-10-27", "2017-10-28")
    }
    assert states == {
        "2017-10-20": ["due late", "due late"],
        "2017-10-23": ["due late", "resting late"],
        "2017-10-27": ["due late", "resting late"],
        "2017-10-28": ["due late", "due late"],
    }
    query = [*OPEN, *joined(1), raised(1, "2017-12-01")]
    because = "Christmas, until 2 January 2018"
    assert list_resting("2017-12-19", *query) == ["due query: "]
    assert list_resting("2017-12-20", *query) == [f"resting query: {because}"]
    assert list_resting("2018-01-02", *query) == [f"resting query: {because}"]
    assert list_resting("2018-01-03", *query) == ["due query: "]


def test_the_longest_rest_is_told() -> None:
    told = [*OUT, paused("2017-08-21", until="2017-08-24"), paused("2017-08-21", "luton", pause="p2")]
    assert list_resting("2017-08-22", *told)[0] == OPEN_END
    assert list_pauses(tell(*told), date(2017, 8, 22))["pause"].tolist() == ["p1", "p2"]


# As a whole -----------------------------------------------------------------------------------------------------------


def test_the_most_urgent_first() -> None:
    study = make_study(FIELDWORK, APPROVALS + CHASERS)
    told = [*grant("devon"), *granted_until("2017-08-31"), *joined(1, filed=""), *released(1), raised(1, "2017-08-01")]
    told += [
        *joined(1, site_id="devon", filed=""),
        *released(1, site_id="devon"),
        raised(1, "2017-08-01", "DEV-0001", "devon"),
    ]
    due = plan("2017-09-25", *told, study=study).query("state == 'due' and not is_told")
    assert list(dict.fromkeys(due["about"])) == ["applicant", "consent_copy", "return", "query", "activity_figures"]


def test_what_was_chased_and_is_still_owed_is_known() -> None:
    rungs = derive_rungs(make_study(), tell(*OUT, *chased(f"{KEY}:soon", f"{KEY}:late")), date(2017, 8, 22))
    assert show(rungs.query("state == 'chased'")) == [f"chased {LATE}"]


def test_a_study_without_rules_for_chasing_chases_no_site_and_an_empty_one_nobody() -> None:
    study = make_study(FIELDWORK.partition("[[ladder]]")[0])
    assert plan("2017-09-13", *OUT, study=study).query("about == 'return'").empty
    nothing: Any = plan("2017-08-01")
    assert list(nothing.columns) == COLUMNS
    assert {str(nothing[name].dtype) for name in ("due_on", "owed_on", "rests_until")} == {"datetime64[us]"}
    assert date(2017, 8, 1) == JOINED


def test_after_the_study_no_site_owes_anything() -> None:
    told = [*OPEN, *joined(1, filed=""), raised(1, "2019-05-01")]
    assert show(plan("2019-05-31", *told)) != []
    assert show(plan("2019-06-01", *told)) == []
