"""The gate on boundary days, and that a fold over many days says of each what the gate says on that day."""

from datetime import date, timedelta
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.approval_steps import Item
from study.events import Event
from study.gate import Answer, derive_open_days, open_gate
from study.state import Events
from tests.approval_histories import PATHWAY, make_study, step, tell

TRIAL = make_study()
DAY = timedelta(days=1)


def granted(approval: str, on: str = "2017-02-01", **fields: Any) -> list[Event]:
    return [step("submitted", "2017-01-10", approval), step("granted", on, approval, **fields)]


EVERYTHING = [event for approval in ("rec", "council", "trust", "green_light") for event in granted(approval)]


def ask(events: Events, on: str | date, activity: str = "approach", body_id: str = "", person_id: str = "") -> Answer:
    day = date.fromisoformat(on) if isinstance(on, str) else on
    return open_gate(TRIAL, events, day).ask(activity, "luton", body_id, person_id)


def find_states(answer: Answer) -> list[str]:
    return [reason.state for reason in answer.reasons]


def test_open_from_the_day_of_the_last_grant() -> None:
    events = tell(*EVERYTHING)
    assert not ask(events, "2017-01-31").is_allowed
    assert ask(events, "2017-02-01") == Answer()
    assert ask(events, "2030-01-01").is_allowed


def test_every_reason_is_given() -> None:
    events = tell(step("submitted", "2017-01-10"), step("submitted", "2017-01-11", "council"))
    answer = ask(events, "2017-01-20")
    assert [reason.text for reason in answer.reasons] == [
        "rec: submitted on 2017-01-10, not granted yet.",
        "council (luton, luton_council): submitted on 2017-01-11, not granted yet.",
        "trust (luton, luton_trust): not sought yet.",
        "green_light (luton): not sought yet.",
    ]
    assert answer.reasons[1].item == Item("council", "luton", "luton_council")


def test_one_bodys_delay_closes_only_what_it_covers() -> None:
    events = tell(*(event for approval in ("rec", "trust", "green_light") for event in granted(approval)))
    assert ask(events, "2017-03-01", body_id="luton_trust").is_allowed
    assert find_states(ask(events, "2017-03-01", body_id="luton_council")) == ["not_sought"]
    assert find_states(ask(events, "2017-03-01")) == ["not_sought"]  # the whole site: every body
    assert ask(events, "2017-03-01", body_id="luton_university").is_allowed  # no approval is asked of its kind


@pytest.mark.parametrize(
    ("steps", "on", "expected"),
    [
        # the last day of force, and the day after; 29 February; both clock changes
        ([step("granted", "2017-02-01", expires_on="2017-08-31")], "2017-08-31", []),
        ([step("granted", "2017-02-01", expires_on="2017-08-31")], "2017-09-01", ["expired"]),
        ([step("granted", "2017-02-01", expires_on="2020-02-29")], "2020-02-29", []),
        ([step("granted", "2017-02-01", expires_on="2020-02-29")], "2020-03-01", ["expired"]),
        ([step("granted", "2017-02-01", expires_on="2017-03-26")], "2017-03-26", []),
        ([step("granted", "2017-02-01", expires_on="2017-03-26")], "2017-03-27", ["expired"]),
        ([step("granted", "2017-02-01", expires_on="2017-10-29")], "2017-10-29", []),
        ([step("granted", "2017-02-01", expires_on="2017-10-29")], "2017-10-30", ["expired"]),
        # a start later than the letter, and one that the letter gives for days before it
        ([step("granted", "2017-02-01", in_force_from="2017-03-01")], "2017-02-28", ["granted"]),
        ([step("granted", "2017-02-01", in_force_from="2017-03-01")], "2017-03-01", []),
        ([step("granted", "2017-02-01", in_force_from="2017-01-15")], "2017-01-31", ["submitted"]),
        ([step("granted", "2017-02-01", in_force_from="2017-01-15")], "2017-02-01", []),
        # conditions
        (
            [step("granted_with_conditions", "2017-02-01", conditions=["a", "b"])],
            "2017-02-01",
            ["granted_with_conditions"],
        ),
        (
            [
                step("granted_with_conditions", "2017-02-01", conditions=["a", "b"]),
                step("condition_met", "2017-02-05", condition="a"),
                step("condition_met", "2017-02-09", condition="b"),
            ],
            "2017-02-08",
            ["granted_with_conditions"],
        ),
        (
            [
                step("granted_with_conditions", "2017-02-01", conditions=["a", "b"]),
                step("condition_met", "2017-02-05", condition="a"),
                step("condition_met", "2017-02-09", condition="b"),
            ],
            "2017-02-09",
            [],
        ),
        # a lapse suspends, a renewal reopens
        (
            [step("granted", "2017-02-01", expires_on="2017-05-31"), step("renewed", "2017-06-10")],
            "2017-06-09",
            ["expired"],
        ),
        ([step("granted", "2017-02-01", expires_on="2017-05-31"), step("renewed", "2017-06-10")], "2017-06-10", []),
        ([step("granted", "2017-02-01", expires_on="2017-05-31"), step("renewed", "2017-05-20")], "2017-06-01", []),
        (
            [
                step("granted", "2017-02-01", expires_on="2017-05-31"),
                step("renewed", "2017-05-20", in_force_from="2017-06-03"),
            ],
            "2017-06-02",
            ["expired"],
        ),
        (
            [step("granted", "2017-02-01"), step("renewed", "2018-02-01", expires_on="2018-12-31")],
            "2019-01-01",
            ["expired"],
        ),
        # refused, withdrawn, tried again
        ([step("refused", "2017-02-01")], "2017-02-01", ["refused"]),
        ([step("granted", "2017-02-01"), step("withdrawn", "2017-04-01")], "2017-03-31", []),
        ([step("granted", "2017-02-01"), step("withdrawn", "2017-04-01")], "2017-04-01", ["withdrawn"]),
        (
            [step("refused", "2017-02-01"), step("resubmitted", "2017-03-01", attempt=2)],
            "2017-03-01",
            ["submitted"],
        ),
        (
            [
                step("refused", "2017-02-01"),
                step("resubmitted", "2017-03-01", attempt=2),
                step("granted", "2017-04-01", attempt=2),
            ],
            "2017-04-01",
            [],
        ),
        ([step("valid", "2017-01-12")], "2017-01-12", ["valid"]),
        ([step("requested", "2017-01-12")], "2017-01-12", ["information_requested"]),
        ([step("requested", "2017-01-12"), step("answered", "2017-01-13")], "2017-01-13", ["submitted"]),
    ],
)
def test_states_on_boundary_days(steps: list[Event], on: str, expected: list[str]) -> None:
    others = [event for event in EVERYTHING if event.approval != "rec"]  # type: ignore[attr-defined]  # all are steps
    answer = ask(tell(step("submitted", "2017-01-10"), *steps, *others), on)
    assert [reason.state for reason in answer.reasons if reason.item == Item("rec")] == expected
    assert answer.is_allowed == (not answer.reasons)


def test_a_person_needs_a_letter_of_their_own() -> None:
    events = tell(*granted("rec"), *granted("access", expires_on="2017-06-30"))
    assert ask(events, "2017-06-30", "interview", person_id="R01").is_allowed
    assert find_states(ask(events, "2017-07-01", "interview", person_id="R01")) == ["expired"]
    assert find_states(ask(events, "2017-06-30", "interview", person_id="R02")) == ["not_sought"]
    assert find_states(ask(events, "2017-06-30", "interview")) == ["person_not_named"]
    assert ask(events, "2017-06-30", "interview", body_id="luton_council").is_allowed  # no letter is asked for there


@pytest.mark.parametrize(
    ("question", "state", "text"),
    [
        (("recruit", "luton"), "not_planned", "recruit: the study's approvals.toml does not plan this activity."),
        (("recuit", "luton"), "unknown_activity", '"recuit" is no activity. Did you mean "recruit"?'),
        (("approach", "lutton"), "unknown_site", '"lutton" is no site of trial. Did you mean "luton"?'),
        (
            ("approach", "luton", "luton_counsil"),
            "unknown_body",
            '"luton_counsil" is no body at Luton. Did you mean "luton_council"?',
        ),
    ],
)
def test_a_question_that_cannot_be_is_a_no(question: tuple[str, ...], state: str, text: str) -> None:
    answer = open_gate(TRIAL, tell(*EVERYTHING), date(2017, 3, 1)).ask(*question)
    assert [(reason.state, reason.text) for reason in answer.reasons] == [(state, text)]


def test_a_body_that_need_not_approve() -> None:
    spared = PATHWAY.replace('body_kinds = ["council"]', 'body_kinds = ["council"]\nnot_needed_at = ["luton_council"]')
    events = tell(*(event for approval in ("rec", "trust", "green_light") for event in granted(approval)))
    gate = open_gate(make_study(spared), events, date(2017, 3, 1))
    assert gate.ask("approach", "luton").is_allowed
    assert find_states(gate.ask("approach", "devon"))[:1] == ["not_sought"]


# Many days at once --------------------------------------------------------------------------------------------------

FIRST, LAST = date(2020, 2, 20), date(2020, 3, 31)  # 29 February and a clock change are among them
STAMPS = pd.date_range(FIRST, LAST)
DAYS = st.integers(0, (LAST - FIRST).days).map(lambda n: FIRST + n * DAY)
QUESTIONS = pd.DataFrame(
    [
        ("approach", "luton", "", ""),
        ("approach", "luton", "luton_trust", ""),
        ("approach", "luton", "luton_council", ""),
        ("approach", "devon", "", ""),
        ("interview", "luton", "luton_trust", "R01"),
        ("interview", "luton", "", ""),
        ("recruit", "luton", "", ""),
    ],
    columns=["activity", "site_id", "body_id", "person_id"],
    index=list("abcdefg"),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Any steps on any days, impossible orders among them; one telling of each key, as the ledger keeps it."""
    told: dict[str, Event] = {}
    maybe = st.none() | DAYS
    for approval in draw(st.lists(st.sampled_from(["rec", "council", "trust", "access", "green_light"]), max_size=12)):
        attempt = draw(st.integers(1, 2))
        fields: dict[str, Any] = {"attempt": attempt}
        name = draw(
            st.sampled_from(
                [
                    *("granted", "granted", "granted", "granted_with_conditions", "condition_met", "condition_met"),
                    *("renewed", "renewed", "withdrawn", "refused", "submitted", "requested", "answered", "valid"),
                ]
            )
        )
        if name in ("granted", "granted_with_conditions", "renewed"):
            fields |= {"in_force_from": draw(maybe), "expires_on": draw(maybe)}
        if name == "granted_with_conditions":
            fields["conditions"] = draw(st.lists(st.sampled_from("ab"), min_size=1))
        if name == "condition_met":
            fields["condition"] = draw(st.sampled_from("ab"))
        if name == "renewed":
            fields["renewal"] = draw(st.integers(1, 2))
        if name in ("requested", "answered"):
            fields["request"] = draw(st.integers(1, 2))
        event = step("resubmitted" if (name, attempt) == ("submitted", 2) else name, draw(DAYS), approval, **fields)
        told.setdefault(event.key, event)
    return list(told.values())


def is_in_force(told: list[Any], approval: str, day: date) -> bool:
    """The rule in plain words, one approval and one day at a time: the oracle of the folds."""
    seen = [event for event in told if event.approval == approval and event.occurred_on <= day]
    latest = max((event.attempt for event in seen), default=0)
    seen = [event for event in seen if event.attempt == latest]
    by_kind: dict[str, list[Any]] = {}
    for event in seen:
        by_kind.setdefault(event.kind.removeprefix("approval_"), []).append(event)
    grants = by_kind.get("granted", []) + by_kind.get("granted_with_conditions", [])
    if not grants or "withdrawn" in by_kind:
        return False
    (grant,) = grants
    met = {event.condition for event in by_kind.get("condition_met", [])}
    if set(getattr(grant, "conditions", ())) - met:
        return False
    starts = grant.in_force_from or grant.occurred_on
    if day < starts:
        return False
    expires_on = grant.expires_on
    for renewal in sorted(by_kind.get("renewed", []), key=lambda event: event.renewal):
        if (renewal.in_force_from or renewal.occurred_on) <= day:
            expires_on = renewal.expires_on
    return expires_on is None or day <= expires_on


@settings(max_examples=15, deadline=None)
@given(told=histories(), base=st.booleans())
def test_a_fold_over_many_days_says_what_the_gate_says_each_day(told: list[Event], base: bool) -> None:
    if base:  # most random ledgers open nothing: let the rest be granted, so that what is drawn decides
        drawn = {event.approval for event in told}  # type: ignore[attr-defined]  # all are steps
        every = [step("granted", FIRST, approval) for approval in PLACES_NEEDED if approval not in drawn]
        told = [*told, *every]
    events = tell(*told)
    open_days = derive_open_days(TRIAL, events, QUESTIONS, FIRST, LAST)
    assert open_days.index.equals(QUESTIONS.index)
    assert open_days.columns.equals(STAMPS)
    for stamp, answers in list(zip(STAMPS, open_days.to_numpy().T, strict=True))[::8]:
        gate = open_gate(TRIAL, events, stamp.date())
        asked = [gate.ask(*question).is_allowed for question in QUESTIONS.itertuples(index=False)]
        assert asked == answers.tolist(), stamp
    for stamp, answers in zip(STAMPS, open_days.to_numpy().T, strict=True):
        shown = {approval: is_in_force(told, approval, stamp.date()) for approval in PLACES_NEEDED}
        assert answers[1] == (shown["rec"] and shown["trust"] and shown["green_light"]), stamp
        assert answers[4] == (shown["rec"] and shown["access"]), stamp


PLACES_NEEDED = ("rec", "council", "trust", "access", "green_light")


def test_many_days_of_a_plain_history() -> None:
    events = tell(*EVERYTHING, step("withdrawn", "2017-02-04", "council"))
    open_days = derive_open_days(TRIAL, events, QUESTIONS.iloc[:3], date(2017, 1, 31), date(2017, 2, 5))
    assert open_days.to_numpy().tolist() == [
        [False, True, True, True, False, False],
        [False, True, True, True, True, True],
        [False, True, True, True, False, False],
    ]
    assert open_days.columns.equals(pd.date_range("2017-01-31", "2017-02-05"))


def test_a_ledger_without_steps_opens_nothing() -> None:
    assert not derive_open_days(TRIAL, tell(), QUESTIONS, FIRST, LAST).to_numpy().any()
