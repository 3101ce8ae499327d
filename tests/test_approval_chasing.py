"""Chasers for approvals, duties and incidents: who is chased when, by which rung, until what it is about ends."""

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.approval_chasing import derive_approval_chasers
from study.calendar import is_working_day
from study.events import (
    DutyDone,
    Event,
    IncidentAssessed,
    IncidentOpened,
    ModificationIntroduced,
    ModificationSupplied,
    ObligationChased,
)
from study.pathway import Chaser
from study.protocol import Study
from tests.approval_histories import PATHWAY, make_study, step, tell
from tests.test_modifications import ROUTES

DUTIES = """
[[duties]]
id = "report"
label = "Progress report"
to = "Funder"
owner = "project_manager"
counts_from = "study_start"
offset = "6 months"
every = "6 months"
source = "Made up."
"""


def remind(name: str, about: str, counts_from: str, days: int, unit: str = "working", **fields: Any) -> Chaser:
    usual = {"to": "project_manager", "channel": "email", "template": name}
    return Chaser(id=name, about=about, counts_from=counts_from, days=days, unit=unit, **{**usual, **fields})


OFFICE = {"to": "approving_office"}
COUNCILS = [
    remind("first", "authority", "turn", 20, of=("council",), **OFFICE),
    remind("second", "authority", "turn", 40, of=("council",), channel="telephone", **OFFICE),
    remind("third", "authority", "turn", 60, of=("council",)),
]
OURS = [remind("answer", "applicant", "turn", 5)]
BASE = make_study(PATHWAY + DUTIES + ROUTES)


def make(chasers: Iterable[Chaser], **dates: date) -> Study:
    """The trial, which lasts from 2017-01-01 to 2019-05-31, with these chasers."""
    pathway = BASE.pathway.model_copy(update={"chasers": tuple(chasers)})
    return BASE.model_copy(update={"pathway": pathway, **dates})


def chased(keys: Iterable[str], on: str | date = "2017-01-01") -> list[Event]:
    """These steps were taken."""
    return [
        ObligationChased(
            occurred_on=on, requested_by="A. Manager", chase=key, about="authority", step=key.rpartition(":")[2],
            channel="email", due_on=on,
        )
        for key in keys
    ]  # fmt: skip


def plan(study: Study, on: str, *told: Event, sent: Iterable[str] = ()) -> pd.DataFrame:
    return derive_approval_chasers(study, tell(*told, *chased(sent)), date.fromisoformat(on))


def show(chasers: pd.DataFrame, *columns: str) -> list[str]:
    """One line a rung: "due first 2017-03-01 2017-03-29", and what else is asked for."""
    return [
        " ".join((row["state"], row["chaser"], *(f"{row[day]:%Y-%m-%d}" for day in ("anchor_on", "due_on")))).strip()
        + "".join(f" {row[column]}" for column in columns)
        for row in chasers.to_dict("records")
    ]


REC = [step("submitted", "2017-01-02"), step("granted", "2017-01-31")]
SENT = [*REC, step("submitted", "2017-03-01", "council")]
# 20, 40 and 60 working days after 1 March 2017: Easter (14 and 17 April), 1 and 29 May come in between
RUNGS = ["first 2017-03-01 2017-03-29", "second 2017-03-01 2017-04-28", "third 2017-03-01 2017-05-30"]
ASKED = [*SENT, step("requested", "2017-03-24", "council")]


def write(due: str = "", coming: Iterable[str] = ()) -> list[str]:
    return [f"due {due}"] * bool(due) + [f"coming {rung}" for rung in coming]


@pytest.mark.parametrize(
    ("told", "on", "expected"),
    [
        (REC, "2017-03-01", []),
        (SENT, "2017-02-28", []),
        (SENT, "2017-03-01", write(coming=RUNGS)),
        (SENT, "2017-03-28", write(coming=RUNGS)),
        (SENT, "2017-03-29", write(RUNGS[0], RUNGS[1:])),
        (SENT, "2017-04-27", write(RUNGS[0], RUNGS[1:])),
        # after a backlog the highest alone
        (SENT, "2017-04-28", write(RUNGS[1], RUNGS[2:])),
        (SENT, "2018-04-28", write(RUNGS[2])),
        # nobody is chased for what is decided, withdrawn, or ours to answer
        ([*SENT, step("granted", "2017-03-29", "council")], "2017-03-29", []),
        ([*SENT, step("granted", "2017-03-30", "council")], "2017-03-29", write(RUNGS[0], RUNGS[1:])),
        ([*SENT, step("refused", "2017-03-29", "council")], "2017-03-29", []),
        ([*SENT, step("withdrawn", "2017-03-29", "council")], "2017-03-29", []),
        (ASKED, "2017-03-29", []),
        (ASKED, "2018-03-29", []),
        # the answer begins a turn of its own: 20 working days from Monday 3 April
        (
            [*ASKED, step("answered", "2017-04-03", "council")],
            "2017-05-03",
            write(
                coming=["first 2017-04-03 2017-05-04", "second 2017-04-03 2017-06-02", "third 2017-04-03 2017-06-30"]
            ),
        ),
        (
            [*ASKED, step("answered", "2017-04-03", "council")],
            "2017-05-04",
            write("first 2017-04-03 2017-05-04", ["second 2017-04-03 2017-06-02", "third 2017-04-03 2017-06-30"]),
        ),
        # found valid: the same turn
        ([*SENT, step("valid", "2017-03-20", "council")], "2017-03-29", write(RUNGS[0], RUNGS[1:])),
    ],
)
def test_a_ladder_stands_while_it_is_the_authoritys_turn(told: list[Event], on: str, expected: list[str]) -> None:
    assert show(plan(make(COUNCILS), on, *told)) == expected


def test_a_chaser_says_who_what_since_when_and_by_which_rule() -> None:
    (row, *_) = plan(make(COUNCILS), "2017-04-03", *SENT).to_dict("records")
    assert {name: row[name] for name in ("key", "to", "channel", "template", "about", "n_days_late", "rule")} == {
        "key": "chase:approval:council:luton:luton_council:::1:turn1:first",
        "to": "approving_office",
        "channel": "email",
        "template": "first",
        "about": "authority",
        "n_days_late": 5,
        "rule": "Council approval, Luton Council (Luton) has been with the authority since 2017-03-01. Approving "
        "office is chased by email 20 working days after that day (first).",
    }
    assert (row["approval"], row["site_id"], row["body_id"], row["duty"]) == ("council", "luton", "luton_council", "")


def test_what_was_sent_is_left_out_and_brings_no_lower_rung_back() -> None:
    study = make(COUNCILS)
    keys = plan(study, "2017-04-28", *SENT)["key"].tolist()
    assert show(plan(study, "2017-04-28", *SENT, sent=keys[:1])) == write(coming=RUNGS[2:])
    assert show(plan(study, "2017-05-30", *SENT, sent=keys[:1])) == write(RUNGS[2])
    assert show(plan(study, "2018-05-30", *SENT, sent=keys)) == []


def test_each_attempt_is_chased_anew() -> None:
    told = [*SENT, step("refused", "2017-05-02", "council"), step("resubmitted", "2017-06-01", "council", attempt=2)]
    keys = plan(make(COUNCILS), "2017-06-29", *told)["key"]
    assert keys[0] == "chase:approval:council:luton:luton_council:::2:turn1:first"


def test_each_turn_request_and_term_is_chased_anew_and_a_corrected_date_is_not() -> None:
    def list_keys(on: str, *told: Event, chasers: Iterable[Chaser] = (*COUNCILS, *OURS, *EXPIRY)) -> list[str]:
        found = plan(make(chasers), on, *told)
        keys = found.loc[found["state"].eq("due") & found["body_id"].eq("luton_council"), "key"]
        return [key.removeprefix("chase:approval:council:luton:luton_council:::") for key in keys]

    granted = {"expires_on": "2017-12-01"}
    answered = [*ASKED, step("answered", "2017-04-03", "council")]
    asked_again = [*answered, step("requested", "2017-05-05", "council", request=2)]
    renewed = [*SENT, step("granted", "2017-03-10", "council", **granted)]
    assert list_keys("2017-03-31", *ASKED) == ["1:request1:answer"]
    assert list_keys("2017-05-04", *answered) == ["1:turn2:first"]
    assert list_keys("2017-05-12", *asked_again) == ["1:request2:answer"]
    assert list_keys("2017-11-20", *renewed) == ["1:term1:close"]
    assert list_keys("2017-12-08", *renewed) == ["1:lapse1:answer"]
    renewed.append(step("renewed", "2017-11-30", "council", expires_on="2018-12-01"))
    assert list_keys("2018-11-20", *renewed) == ["1:term2:close"]
    # the request, the answer or the last day turns out to have been another: the same keys
    moved = [*SENT, step("requested", "2017-03-22", "council")]
    assert list_keys("2017-03-31", *moved) == ["1:request1:answer"]
    assert list_keys("2017-05-09", *moved, step("answered", "2017-04-05", "council")) == ["1:turn2:first"]
    later = [*SENT, step("granted", "2017-03-10", "council", expires_on="2017-12-04")]
    assert list_keys("2017-11-20", *later) == ["1:term1:close"]


def test_a_corrected_date_goes_back_to_no_lower_rung() -> None:
    study = make(COUNCILS)
    (second,) = plan(study, "2017-04-28", *SENT).query("state == 'due'")["key"]
    moved = [*REC, step("submitted", "2017-03-20", "council")]
    assert show(plan(study, "2017-04-28", *moved))[0].startswith("due first")
    assert show(plan(study, "2017-04-28", *moved, sent=[second])) == ["coming third 2017-03-20 2017-06-16"]


@pytest.mark.parametrize(
    ("days", "unit", "due", "moved_from"),
    [
        (38, "calendar", "2017-01-24", ""),
        (7, "calendar", "2016-12-28", "2016-12-24"),  # Saturday; 26 and 27 are off as well
        (10, "calendar", "2016-12-28", "2016-12-27"),  # Tuesday, off in place of Christmas Day
        (14, "calendar", "2017-01-03", "2016-12-31"),  # Saturday; 2 January is off in place of New Year's Day
        (0, "calendar", "2016-12-19", "2016-12-17"),
        (0, "working", "2016-12-19", "2016-12-17"),
        (1, "working", "2016-12-19", ""),
        (5, "working", "2016-12-23", ""),
        (6, "working", "2016-12-28", ""),
    ],
)
def test_a_day_off_moves_to_the_next_working_day(days: int, unit: str, due: str, moved_from: str) -> None:
    study = make([remind("rung", "authority", "turn", days, unit, of=("trust",))], starts_on=date(2016, 12, 1))
    told = [step("submitted", "2016-12-01"), step("granted", "2016-12-05"), step("submitted", "2016-12-17", "trust")]
    (row,) = plan(study, "2016-12-17", *told).to_dict("records")  # a Saturday
    assert f"{row['due_on']:%Y-%m-%d}" == due
    told_of_it = f"; moved from {moved_from}, no working day" if moved_from else ""
    assert row["rule"].endswith(f"(rung{told_of_it}).")


def test_two_rungs_that_move_to_one_day_are_one() -> None:
    rungs = [remind(f"day{n}", "authority", "turn", n, "calendar", of=("council",)) for n in (3, 4, 5, 6)]
    # Saturday 4, Sunday 5, Monday 6, Tuesday 7 March
    assert show(plan(make(rungs), "2017-03-01", *SENT)) == [
        *("coming day5 2017-03-01 2017-03-06", "coming day6 2017-03-01 2017-03-07")
    ]


def test_rungs_of_one_day_by_their_order_in_the_file() -> None:
    rungs = [remind("low", "authority", "turn", 0), remind("high", "authority", "turn", 0)]
    assert show(plan(make(rungs), "2017-03-01", *SENT)) == ["due high 2017-03-01 2017-03-01"]


@pytest.mark.parametrize(
    ("told", "on", "expected"),
    [
        # 60 calendar days from valid on 5 January end on Monday 6 March
        ([step("submitted", "2017-01-02")], "2017-03-07", []),
        (
            [step("submitted", "2017-01-02"), step("valid", "2017-01-05")],
            "2017-03-06",
            ["coming late 2017-03-06 2017-03-07"],
        ),
        (
            [step("submitted", "2017-01-02"), step("valid", "2017-01-05")],
            "2017-03-07",
            ["due late 2017-03-06 2017-03-07"],
        ),
        # the clock is stopped: nobody is late
        (
            [step("submitted", "2017-01-02"), step("valid", "2017-01-05"), step("requested", "2017-01-20")],
            "2017-12-01",
            [],
        ),
        (
            [
                *(step("submitted", "2017-01-02"), step("valid", "2017-01-05"), step("requested", "2017-01-20")),
                step("answered", "2017-02-01"),
            ],
            "2017-03-20",
            ["due late 2017-03-18 2017-03-20"],  # due on a Saturday
        ),
    ],
)
def test_an_authority_that_is_late_by_its_clock(told: list[Event], on: str, expected: list[str]) -> None:
    assert show(plan(make([remind("late", "authority", "due", 1, of=("rec",))]), on, *told)) == expected


# Ours ---------------------------------------------------------------------------------------------------------------

CONDITIONS = step("granted_with_conditions", "2017-03-10", "council", conditions=["insurance"])


def list_ours(on: str, *told: Event) -> list[str]:
    return show(plan(make(OURS), on, *told), "approval", "body_id")


@pytest.mark.parametrize(
    ("told", "on", "expected"),
    [
        # the applicant owes an answer, the conditions, something after a refusal or a lapse
        (ASKED, "2017-03-31", ["due answer 2017-03-24 2017-03-31 council luton_council"]),
        (ASKED, "2017-03-30", ["coming answer 2017-03-24 2017-03-31 council luton_council"]),
        ([*ASKED, step("answered", "2017-03-31", "council")], "2017-03-31", []),
        ([*SENT, CONDITIONS], "2017-03-17", ["due answer 2017-03-10 2017-03-17 council luton_council"]),
        ([*SENT, CONDITIONS, step("condition_met", "2017-03-17", "council", condition="insurance")], "2017-03-17", []),
        (
            [*SENT, step("refused", "2017-03-10", "council")],
            "2017-03-17",
            ["due answer 2017-03-10 2017-03-17 council luton_council"],
        ),
        (
            [*SENT, step("granted", "2017-03-03", "council", expires_on="2017-03-09")],
            "2017-03-17",
            ["due answer 2017-03-10 2017-03-17 council luton_council"],
        ),
        (
            [*SENT, step("refused", "2017-03-10", "council"), step("resubmitted", "2017-03-17", "council", attempt=2)],
            "2017-03-17",
            [],
        ),
    ],
)
def test_what_we_owe(told: list[Event], on: str, expected: list[str]) -> None:
    others = [step("submitted", "2017-01-02", "cag"), *(step("submitted", "2017-02-01", name) for name in ("trust",))]
    lines = [line for line in list_ours(on, *told, *others) if "luton_council" in line]
    assert lines == expected


@pytest.mark.parametrize(
    ("told", "on", "expected"),
    [
        # what waits for the committee is not asked for before the committee has agreed; what waits for nothing is
        ([], "2017-01-09", {"rec": "2017-01-09", "cag": "2017-01-09"}),  # five working days from Sunday 1 January
        ([step("submitted", "2017-01-05")], "2017-02-01", {"cag": "2017-01-09"}),
        (
            REC,
            "2017-02-07",
            {"cag": "2017-01-09", **dict.fromkeys(("council", "trust", "green_light"), "2017-02-07")},
        ),
        # it lapses: nothing more can be sent in
        ([*REC, step("withdrawn", "2017-02-10")], "2017-02-10", {"cag": "2017-01-09"}),
        # a renewal later does not begin the waiting anew
        (
            [REC[0], step("granted", "2017-01-31", expires_on="2018-01-30"), step("renewed", "2018-01-20")],
            "2018-03-01",
            {"cag": "2017-01-09", **dict.fromkeys(("council", "trust", "green_light"), "2017-02-07")},
        ),
    ],
)
def test_what_could_be_sent_in(told: list[Event], on: str, expected: dict[str, str]) -> None:
    chasers = plan(make(OURS), on, *told)
    found = {row["approval"]: f"{row['due_on']:%Y-%m-%d}" for row in chasers.to_dict("records")}
    assert found == expected  # adass is not needed, and nobody asked for a letter of access


def test_a_body_is_not_chased_for_what_it_cannot_grant_yet() -> None:
    study = make([remind("waiting", "authority", "turn", 10, of=("trust",))])
    early = [step("submitted", "2017-01-03", "trust"), step("submitted", "2017-01-02")]
    assert show(plan(study, "2017-03-01", *early)) == []
    granted = [*early, step("granted", "2017-03-01")]
    assert show(plan(study, "2017-03-01", *granted)) == ["coming waiting 2017-03-01 2017-03-15"]
    lapsed = [*granted, step("withdrawn", "2017-03-14")]
    assert show(plan(study, "2017-03-15", *lapsed)) == []


def test_nothing_is_chased_before_the_study_starts_or_after_it_ends() -> None:
    study = make([*OURS, *COUNCILS])
    assert set(plan(study, "2016-12-31")["state"]) == {"coming"}
    assert show(plan(study, "2019-05-31", *SENT), "approval")[0].startswith("due ")
    assert show(plan(study, "2019-06-01", *SENT)) == []
    late = [*REC, step("submitted", "2019-05-10", "council")]  # twenty working days end on 10 June
    assert [line for line in show(plan(study, "2019-05-20", *late)) if "first" in line] == []


# Expiry and review --------------------------------------------------------------------------------------------------

EXPIRY = [remind("near", "expiry", "due", -60, "calendar"), remind("close", "expiry", "due", -14, "calendar")]
LASTING = [step("submitted", "2017-01-02"), step("granted", "2017-01-31", expires_on="2018-01-30")]


@pytest.mark.parametrize(
    ("told", "on", "expected"),
    [
        (LASTING, "2017-11-30", ["coming near 2018-01-30 2017-12-01", "coming close 2018-01-30 2018-01-16"]),
        (LASTING, "2017-12-01", ["due near 2018-01-30 2017-12-01", "coming close 2018-01-30 2018-01-16"]),
        (LASTING, "2018-01-16", ["due close 2018-01-30 2018-01-16"]),
        (LASTING, "2018-01-31", ["due close 2018-01-30 2018-01-16"]),  # it was missed, and nobody was told
        # a renewal ends the ladder, even one that begins later; its own last day has one of its own
        ([*LASTING, step("renewed", "2018-01-15")], "2018-01-16", []),
        ([*LASTING, step("renewed", "2018-01-15", in_force_from="2018-01-31")], "2018-01-16", []),
        ([*LASTING, step("renewed", "2018-01-15", in_force_from="2018-02-10")], "2018-01-16", []),
        ([*LASTING, step("renewed", "2018-01-15", in_force_from="2018-02-10")], "2018-02-05", []),
        (
            [*LASTING, step("renewed", "2018-01-15", in_force_from="2018-01-31", expires_on="2019-01-30")],
            "2018-12-03",
            ["due near 2019-01-30 2018-12-03", "coming close 2019-01-30 2019-01-16"],
        ),
        ([*LASTING, step("withdrawn", "2018-01-10")], "2018-01-16", []),
        ([*LASTING, step("resubmitted", "2018-02-10", attempt=2)], "2018-02-10", []),
        # what lasts as long as the study need not be renewed
        ([LASTING[0], step("granted", "2017-01-31", expires_on="2019-05-31")], "2019-05-31", []),
        (
            [LASTING[0], step("granted", "2017-01-31", expires_on="2019-05-30")],
            "2019-05-20",
            ["due close 2019-05-30 2019-05-16"],
        ),
    ],
)
def test_expiry(told: list[Event], on: str, expected: list[str]) -> None:
    assert show(plan(make(EXPIRY), on, *told)) == expected


def test_what_has_lapsed_is_one_thing_and_not_two() -> None:
    chasers = plan(make([*EXPIRY, *OURS]), "2018-02-06", *LASTING, step("submitted", "2017-01-02", "cag"))
    rec = chasers.loc[chasers["approval"] == "rec"]
    assert show(rec) == ["due close 2018-01-30 2018-01-16", "coming answer 2018-01-31 2018-02-07"]
    (row,) = plan(make([*EXPIRY, *OURS]), "2018-02-07", *LASTING).query("approval == 'rec'").to_dict("records")
    assert (row["state"], row["chaser"]) == ("due", "answer")
    resumed = [*LASTING, step("renewed", "2018-02-03", in_force_from="2018-02-20")]
    assert plan(make([*EXPIRY, *OURS]), "2018-02-07", *resumed).query("approval == 'rec'").empty


CAG = [step("submitted", "2017-01-02", "cag"), step("granted", "2017-03-10", "cag")]


@pytest.mark.parametrize(
    ("told", "on", "expected"),
    [
        # the form is due 4 weeks before the anniversary, and the chaser comes 4 weeks before the form
        (CAG, "2018-01-12", ["coming form 2018-02-10 2018-01-15"]),
        (CAG, "2018-01-15", ["due form 2018-02-10 2018-01-15"]),
        ([*CAG, step("renewed", "2018-01-15", "cag")], "2018-01-15", ["coming form 2019-02-10 2019-01-14"]),
        ([*CAG, step("withdrawn", "2018-01-15", "cag")], "2018-01-15", []),
        # the third review would be after the end of the study
        (
            [*CAG, step("renewed", "2018-01-15", "cag"), step("renewed", "2019-01-15", "cag", renewal=2)],
            "2019-01-15",
            [],
        ),
    ],
)
def test_periodic_review(told: list[Event], on: str, expected: list[str]) -> None:
    assert show(plan(make([remind("form", "review", "due", -28, "calendar")]), on, *told)) == expected


# Duties and incidents -----------------------------------------------------------------------------------------------

OF_DUTY = [remind("near", "duty", "due", -14, "calendar"), remind("late", "duty", "due", 1)]


def done(due_on: str, on: str) -> Event:
    return DutyDone(duty="report", due_on=due_on, occurred_on=on, requested_by="A. Manager")


@pytest.mark.parametrize(
    ("told", "on", "expected"),
    [
        ([], "2017-06-18", []),
        ([], "2017-06-19", ["due near 2017-07-01 2017-06-19"]),  # 17 June was a Saturday
        ([], "2017-07-02", ["due near 2017-07-01 2017-06-19"]),
        ([], "2017-07-03", ["due late 2017-07-01 2017-07-03"]),
        ([done("2017-07-01", "2017-06-19")], "2017-06-19", []),
        ([done("2017-07-01", "2017-07-03")], "2017-07-02", ["due near 2017-07-01 2017-06-19"]),
        ([done("2017-07-01", "2017-07-03")], "2018-01-01", ["due near 2018-01-01 2017-12-18"]),
        ([], "2018-01-03", ["due late 2017-07-01 2017-07-03", "due late 2018-01-01 2018-01-02"]),
        (
            [done("2019-01-01", "2018-01-02")],
            "2020-01-02",
            [  # owed beyond the end of the study
                *("due late 2017-07-01 2017-07-03", "due late 2018-01-01 2018-01-02", "due late 2018-07-01 2018-07-02")
            ],
        ),
    ],
)
def test_duties(told: list[Event], on: str, expected: list[str]) -> None:
    lines = show(plan(make(OF_DUTY), on, *told))
    assert [line for line in lines if line.startswith("due")] == expected


def test_a_duty_is_named_in_its_key_and_rule() -> None:
    row = plan(make(OF_DUTY), "2017-06-19").to_dict("records")[0]
    assert row["key"] == "chase:duty:report::1:near"
    assert row["rule"] == (
        "Progress report (to: Funder) is due on 2017-07-01. Project manager is chased by email 14 days before that day "
        "(near; moved from 2017-06-17, no working day)."
    )
    assert plan(make([remind("near", "duty", "due", -14, of=("other",))]), "2017-06-19").empty


OPENED = IncidentOpened(
    occurred_on="2017-07-03", requested_by="A. Manager", site_id="luton", incident_id="luton-I0001",
    category="protocol_deviation", subject="visit:1", found_on="2017-07-10", assess_by="2017-07-17",
)  # fmt: skip
ASSESSED = IncidentAssessed(
    occurred_on="2017-07-14", requested_by="A. Sponsor", site_id="luton", incident_id="luton-I0001", outcome="breach",
    role="sponsor", reference="SP1",
)  # fmt: skip


def test_incidents_until_they_are_assessed() -> None:
    rungs = [remind("found", "incident", "turn", 1), remind("assess", "incident", "due", -2, to="sponsor")]
    study = make(rungs)
    assert show(plan(study, "2017-07-09", OPENED)) == []
    assert show(plan(study, "2017-07-11", OPENED)) == [
        *("due found 2017-07-10 2017-07-11", "coming assess 2017-07-17 2017-07-13")
    ]
    (row,) = plan(study, "2017-07-13", OPENED).to_dict("records")
    assert (row["key"], row["to"]) == ("chase:incident:luton-I0001:assess", "sponsor")
    assert row["rule"].startswith("Incident luton-I0001, Luton, is to be assessed by 2017-07-17. Sponsor is chased")
    assert show(plan(study, "2017-07-13", OPENED, ASSESSED))[0].startswith("due assess")
    assert show(plan(study, "2017-07-14", OPENED, ASSESSED)) == []


# Modifications ------------------------------------------------------------------------------------------------------


def test_modifications_are_chased_where_somebody_must_decide() -> None:
    study = make([remind("waiting", "authority", "turn", 10), *OURS])
    told = [
        *REC,
        ModificationIntroduced(
            occurred_on="2017-03-01", requested_by="A. Manager", modification="M1", category="A", is_substantial=True
        ),
        ModificationSupplied(occurred_on="2017-03-06", requested_by="A. Manager", modification="M1"),
    ]
    chasers = plan(study, "2017-03-20", *told)
    assert show(chasers.loc[chasers["modification"] == "M1"], "approval", "body_id") == [
        "due answer 2017-03-01 2017-03-08 rec ",  # nobody has sent it to the committee
        "due waiting 2017-03-06 2017-03-20 council devon_council",
        "due waiting 2017-03-06 2017-03-20 council luton_council",
    ]  # the trust's silence grants
    assert "chase:approval:council:luton:luton_council::M1:1:turn1:waiting" in chasers["key"].tolist()
    objected = step("refused", "2017-03-10", "trust", modification="M1")
    refused = plan(study, "2017-03-20", *told, objected)
    assert (
        "answer" in refused.loc[(refused["approval"] == "trust") & (refused["modification"] == "M1"), "chaser"].tolist()
    )


# All days -----------------------------------------------------------------------------------------------------------

SETTING = make([*COUNCILS, *OURS, *EXPIRY, *OF_DUTY, remind("form", "review", "due", -28, "calendar")])
DAYS = st.integers(0, 200).map(lambda n: date(2017, 1, 1) + timedelta(days=n))
COURSES = [("council", ["submitted", "requested", "answered", "granted", "refused"]), ("rec", ["submitted", "granted"])]


@st.composite
def courses(draw: st.DrawFn) -> list[Event]:
    """Approvals that go some way, each step on or after the one before."""
    told: list[Event] = [done("2017-07-01", draw(DAYS).isoformat())] if draw(st.booleans()) else []
    for approval, steps in COURSES:
        names = steps[: draw(st.integers(0, len(steps)))]
        if "refused" in names and "granted" in names:
            names.remove("granted")
        for name, on in zip(names, sorted(draw(st.tuples(*[DAYS] * len(names)))), strict=True):
            fields = {"expires_on": on + timedelta(days=90)} if name == "granted" else {}
            told.append(step(name, on, approval, **fields))
    return told


@settings(max_examples=6, deadline=None)
@given(told=courses(), first=DAYS)
def test_day_by_day_nothing_is_sent_twice_on_a_day_off_or_for_what_is_over(told: list[Event], first: date) -> None:
    """Walk some days, send what is due: no key twice, one rung a day for one thing, and none for what had ended."""
    sent = dict[str, date]()
    for n in range(0, 40, 8):
        day = first + timedelta(days=n)
        chasers = derive_approval_chasers(SETTING, tell(*told, *chased(sent, day)), day)
        assert chasers["key"].is_unique
        assert not chasers["key"].isin(list(sent)).any()
        assert all(is_working_day(due_on.date()) for due_on in chasers["due_on"])
        due = chasers.loc[chasers["state"] == "due"]
        assert (due["due_on"] <= pd.Timestamp(day)).all()
        assert (chasers.loc[chasers["state"] == "coming", "due_on"] > pd.Timestamp(day)).all()
        things = ["approval", "site_id", "body_id", "person_id", "modification", "duty"]
        assert not due.loc[due["about"].isin(["authority", "applicant", "expiry"])].duplicated(things).any()
        over = {
            event.approval  # type: ignore[attr-defined]  # all others are steps
            for event in told
            if event.occurred_on <= day and event.kind in ("approval_granted", "approval_refused")
        }
        of_luton = due.loc[due["site_id"].isin(["", "luton"]) & (due["about"] == "authority")]
        assert not of_luton["approval"].isin(list(over)).any()
        assert not (due["about"].eq("duty") & due["key"].str.contains("::1:")).any() or not any(
            isinstance(event, DutyDone) and event.occurred_on <= day for event in told
        )
        again = derive_approval_chasers(SETTING, tell(*told, *chased([*sent, *due["key"]], day)), day)
        assert "due" not in set(again["state"])  # sending uncovers no lower rung
        sent.update(dict.fromkeys(due["key"], day))


def test_a_study_without_reminders_chases_nobody() -> None:
    chasers = plan(make([]), "2017-06-01", *SENT)
    assert chasers.empty
    assert [str(chasers[name].dtype) for name in ("key", "due_on", "n_days_late")] == ["str", "datetime64[us]", "int64"]
