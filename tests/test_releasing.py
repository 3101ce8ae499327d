"""What may go to which site: boundary days, a coordinator's word, floods, backlogs, second copies, identifiers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import pandas as pd
import pytest

from study.events import (
    ActivityReported,
    Event,
    HoldLifted,
    IdentifiersIssued,
    PackClaimed,
    PackDelivered,
    ReturnReleased,
    Voided,
)
from study.holds import HOLDS
from study.releasing import (
    COPY,
    ReleasePlan,
    compose_pack,
    derive_blocks,
    derive_claim,
    derive_owed_figures,
    derive_voids,
    find_claimed_rows,
    find_open_claims,
    plan_release,
)
from study.state import Events
from tests.approval_histories import tell
from tests.release_studies import BY, FIELDWORK, answer, grant, identify, join, leave, make_study

JULY_3, JULY_10 = date(2017, 7, 3), date(2017, 7, 10)
OPEN = grant("luton", "devon")
# Baselines of July 2017, six months on: opens 27 December (a week before 3 January), released two weeks before that.
FOLLOWED = [*OPEN, *join(range(1, 4), JULY_3), *answer(range(1, 4), "baseline", JULY_3)]
FIRST_DAY = date(2017, 12, 13)
OPENS, DUE, CLOSES = date(2017, 12, 27), date(2018, 1, 17), date(2018, 1, 31)
SHA = "a" * 64


def plan(told: Sequence[Event] | Events, as_of: date = JULY_10, **options: Any) -> ReleasePlan:
    events = told if isinstance(told, Events) else tell(*told)
    return plan_release(make_study(), events, as_of, **options)


def claim(at: ReleasePlan, site_id: str = "luton", *, delivered: bool = True) -> list[Event]:
    """What a pack of this plan leaves in the ledger."""
    pack = compose_pack(at, site_id)
    assert pack is not None
    events = derive_claim(at.study, pack, BY, SHA, f"{pack.pack_id}.xlsx")
    if delivered:
        events.append(PackDelivered(occurred_on=at.as_of, requested_by=BY, site_id=site_id, pack_id=pack.pack_id))
    return events


def count(at: ReleasePlan) -> dict[str, int]:
    return {str(name): int(n) for name, n in at.rows["decision"].value_counts().items()}


def tell_words(at: ReleasePlan) -> set[str]:
    return set(at.rows["word"])


# When it goes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("as_of", "n_going"),
    [
        (date(2017, 12, 12), 0),  # the day before its lead begins
        (FIRST_DAY, 3),
        (OPENS, 3),
        (DUE, 3),
        (date(2018, 1, 18), 3),  # due before it was ever sent: by a coordinator's word
        (CLOSES, 3),
        (date(2018, 2, 1), 0),  # the day after the window closed
    ],
)
def test_it_goes_from_the_first_day_of_its_lead_until_its_window_closes(as_of: date, n_going: int) -> None:
    at = plan(FOLLOWED, as_of, waves=["follow_up_6m"])
    assert at.n_going == n_going
    if n_going:
        assert set(at.going["opens_on"]) == {pd.Timestamp(OPENS)}
        assert set(at.going["closes_on"]) == {pd.Timestamp(CLOSES)}


@pytest.mark.parametrize(
    ("as_of", "decision"),
    [(date(2018, 1, 17), "goes"), (date(2018, 1, 18), "waits"), (date(2018, 1, 31), "waits")],
)
def test_a_past_dated_send_never_goes_out_by_itself(as_of: date, decision: str) -> None:
    """What was due before it was ever sent, imported or of a site that joined late, waits for a coordinator."""
    at = plan(FOLLOWED, as_of, waves=["follow_up_6m"], is_scheduled=True)
    assert count(at) == {decision: 3}
    assert tell_words(at) == ({"backlog"} if decision == "waits" else {""})
    asked = plan(FOLLOWED, as_of, waves=["follow_up_6m"])
    assert asked.n_going == 3
    assert tell_words(asked) == tell_words(at)


def test_an_imported_backlog_does_not_vanish() -> None:
    """Records that came in late are planned as they are, and shown as waiting."""
    late = [*OPEN, *join([1], date(2017, 7, 3)), *answer([1], "baseline", date(2017, 7, 3))]
    at = plan(late, date(2018, 1, 20), is_scheduled=True)
    assert at.rows[["wave", "decision", "word"]].to_numpy().tolist() == [["follow_up_6m", "waits", "backlog"]]
    assert at.sites_with_work == ["devon", "luton"]  # identifiers, and no questionnaire
    pack = compose_pack(at, "luton")
    assert pack is not None
    assert (pack.purpose, len(pack.rows)) == ("blank", 0)


def test_a_later_change_of_the_baseline_moves_what_has_not_gone() -> None:
    """Nothing is locked when it is planned: the same people, answered two weeks later, are due two weeks later."""
    moved = [*OPEN, *join([1], JULY_3), *answer([1], "baseline", date(2017, 7, 17))]
    assert plan(moved, FIRST_DAY, waves=["follow_up_6m"]).n_going == 0
    assert plan(moved, date(2017, 12, 27), waves=["follow_up_6m"]).n_going == 1


@pytest.mark.parametrize(
    ("baseline", "due"),
    [(date(2017, 9, 11), date(2018, 3, 26)), (date(2018, 4, 14), date(2018, 10, 29))],
    ids=["spring", "autumn"],
)
def test_a_clock_change_moves_no_day(baseline: date, due: date) -> None:
    """Two weeks after its day falls on the Sunday of the change, of 23 or of 25 hours: it is due on the Monday."""
    told = [*OPEN, *join([1], baseline), *answer([1], "baseline", baseline)]
    for as_of in (due - timedelta(days=1), due):
        at = plan(told, as_of, waves=["follow_up_6m"], is_scheduled=True)
        assert count(at) == {"goes": 1}
        assert at.going["due_on"].tolist() == [pd.Timestamp(due)]
    assert count(plan(told, due + timedelta(days=1), waves=["follow_up_6m"], is_scheduled=True)) == {"waits": 1}


# Whose word -----------------------------------------------------------------------------------------------------------


def test_the_daily_round_sends_automatic_waves_only() -> None:
    told = [*FOLLOWED, *join(range(10, 13), date(2017, 12, 11))]
    at = plan(told, FIRST_DAY, is_scheduled=True)
    by_wave = at.rows.groupby("wave")["decision"].unique().str.join("")
    assert by_wave.to_dict() == {"baseline": "waits", "follow_up_6m": "goes"}
    assert set(at.rows.loc[at.rows["wave"] == "baseline", "word"]) == {"on_request"}
    asked = plan(told, FIRST_DAY)
    assert count(asked) == {"goes": 6}
    assert tell_words(asked) == {""}


@pytest.mark.parametrize(("n", "decision"), [(4, "goes"), (5, "goes"), (6, "waits")])
def test_more_than_so_many_at_once_wait_for_a_word_all_of_them(n: int, decision: str) -> None:
    told = [*OPEN, *join(range(1, n + 1), JULY_3), *answer(range(1, n + 1), "baseline", JULY_3)]
    at = plan(told, FIRST_DAY, is_scheduled=True)
    assert count(at) == {decision: n}
    assert tell_words(at) == ({"at_once"} if decision == "waits" else {""})
    assert tell_words(plan(told, FIRST_DAY)) == tell_words(at)
    assert plan(told, FIRST_DAY).n_going == n


def test_a_flood_at_one_site_stops_no_other_site() -> None:
    told = [
        *OPEN, *join(range(1, 8), JULY_3), *answer(range(1, 8), "baseline", JULY_3),
        *join(range(1, 4), JULY_3, "devon"), *answer(range(1, 4), "baseline", JULY_3, "devon"),
    ]  # fmt: skip
    at = plan(told, FIRST_DAY, is_scheduled=True)
    assert at.count()[["site_id", "goes", "waits"]].to_numpy().tolist() == [["devon", 3, 0], ["luton", 0, 7]]


def test_two_handfuls_of_one_day_make_a_flood_too() -> None:
    first = [*OPEN, *join(range(1, 5), JULY_3), *answer(range(1, 5), "baseline", JULY_3)]
    told = [*first, *claim(plan(first, FIRST_DAY, is_scheduled=True))]
    more = [*join(range(5, 7), JULY_3), *answer(range(5, 7), "baseline", JULY_3)]
    same_day = plan([*told, *more], FIRST_DAY, is_scheduled=True)
    assert count(same_day) == {"waits": 2}
    assert tell_words(same_day) == {"at_once"}
    assert count(plan([*told, *more], date(2017, 12, 14), is_scheduled=True)) == {"goes": 2}


def test_what_had_the_word_keeps_it() -> None:
    told = [*OPEN, *join(range(1, 4), JULY_10)]
    agreed = {(identify(1), "self", "baseline", 1)}
    at = plan(told, JULY_10, waves=["follow_up_6m"], is_scheduled=True, agreed=agreed)
    assert at.going[COPY].to_numpy().tolist() == [[identify(1), "self", "baseline", 1]]
    assert len(at.rows) == 1


# Held -----------------------------------------------------------------------------------------------------------------


def test_what_is_held_goes_by_nobodys_word() -> None:
    closed = plan([*grant("devon"), *join([1], JULY_3)])
    assert closed.rows[["decision", "holds"]].to_numpy().tolist() == [["held", "site_not_open"]]
    agreed = {(identify(1), "self", "baseline", 1)}
    assert plan([*grant("devon"), *join([1], JULY_3)], agreed=agreed).n_going == 0


def test_who_died_is_in_no_plan() -> None:
    at = plan([*OPEN, *join([1, 2], JULY_3), *leave(1, date(2017, 7, 9))])
    assert at.rows["participant_id"].tolist() == [identify(2)]


def test_what_is_in_already_is_not_sent() -> None:
    at = plan([*OPEN, *join([1, 2], JULY_3), *answer([1], "baseline", date(2017, 7, 5))])
    assert at.rows["participant_id"].tolist() == [identify(2)]


def test_duplicates_in_the_list_are_sent_once() -> None:
    at = plan([*OPEN, *join([1, 1], JULY_3)])
    assert at.n_going == 1


def test_a_hold_that_was_lifted_lets_it_go_early() -> None:
    early = date(2017, 12, 1)
    lifted = HoldLifted(
        occurred_on=early, requested_by=BY, site_id="luton", participant_id=identify(1), wave="follow_up_6m",
        hold="window_not_open", role="fieldwork_coordinator", reason="moving_away", reference="Note 4",
    )  # fmt: skip
    at = plan([*FOLLOWED, lifted], early, waves=["follow_up_6m"])
    assert at.going["participant_id"].tolist() == [identify(1)]


def test_an_unknown_wave_or_site_is_refused() -> None:
    with pytest.raises(ValueError, match=r"trial has no follow_up_9m. It has baseline, follow_up_6m"):
        plan(OPEN, waves=["follow_up_9m"])
    with pytest.raises(ValueError, match=r"trial has no leeds. It has devon, luton"):
        plan(OPEN, sites=["leeds"])


def test_a_study_without_releases_sends_nothing() -> None:
    study = make_study("")
    at = plan_release(study, tell(*OPEN, *join([1], JULY_3)), JULY_10)
    assert at.rows.empty
    assert at.sites_with_work == []


# Once, and copies -----------------------------------------------------------------------------------------------------


def test_what_went_out_does_not_go_again() -> None:
    told = [*OPEN, *join([1, 2], JULY_3)]
    sent = [*told, *claim(plan(told))]
    assert plan(sent).rows.empty
    assert plan([*sent, *join([3], JULY_3)]).going["participant_id"].tolist() == [identify(3)]


def find_copies(*numbers: int, **more: Any) -> pd.DataFrame:
    rows = [{"participant_id": identify(n), "respondent": "self", "wave": "baseline", **more} for n in numbers]
    return pd.DataFrame(rows, columns=[*COPY[:3], *more])


def test_a_second_copy_goes_once_and_to_nobody_who_needs_none() -> None:
    told = [*OPEN, *join(range(1, 5), JULY_3)]
    sent = [*told, *claim(plan(told)), *answer([2], "baseline", JULY_10), *leave(3, date(2017, 7, 11))]
    day = date(2017, 7, 12)
    at = plan(sent, day, second_copies=find_copies(1, 2, 3, 9), is_scheduled=True)
    assert at.going[COPY].to_numpy().tolist() == [[identify(1), "self", "baseline", 2]]
    pack = compose_pack(at, "luton")
    assert pack is not None
    assert pack.purpose == "replacement"
    again = [*sent, *claim(at)]
    assert plan(again, day, second_copies=find_copies(1, 2, 3)).rows.empty
    third = plan(again, day, second_copies=find_copies(1, copy_number=3))
    assert third.going["copy_number"].tolist() == [3]


def test_no_second_copy_after_the_window_closed() -> None:
    told = [*OPEN, *join([1], JULY_3)]
    sent = [*told, *claim(plan(told))]
    closes = date(2017, 7, 31)
    assert plan(sent, closes, second_copies=find_copies(1)).n_going == 1
    after = plan(sent, date(2017, 8, 1), second_copies=find_copies(1))
    assert after.rows["decision"].tolist() == ["held"]
    assert HOLDS[after.rows["holds"].iloc[0]].words == "The window is over"


def test_a_copy_of_what_never_went_is_no_second_copy() -> None:
    at = plan([*OPEN, *join([1], JULY_3)], second_copies=find_copies(1))
    assert at.going["copy_number"].tolist() == [1]


# Identifiers and figures ----------------------------------------------------------------------------------------------


def issue(first: int, n: int = 20, site_id: str = "luton") -> Event:
    return IdentifiersIssued(occurred_on=JULY_3, requested_by=BY, site_id=site_id, first=first, n=n)


def find_blocks(told: Sequence[Event], as_of: date = JULY_10) -> list[list[Any]]:
    blocks: list[list[Any]] = derive_blocks(make_study(), tell(*told), as_of, ["luton"]).to_numpy().tolist()
    return blocks


@pytest.mark.parametrize(("n_used", "blocks"), [(0, []), (10, []), (11, [["luton", 21, 20]])])
def test_a_site_gets_a_new_block_when_less_than_half_of_one_is_left(n_used: int, blocks: list[list[Any]]) -> None:
    used = join(range(1, n_used + 1), JULY_3)
    assert find_blocks([*OPEN, issue(1), *used]) == blocks


def test_identifiers_go_only_where_people_may_be_approached() -> None:
    assert find_blocks([]) == []
    assert find_blocks(grant("devon")) == []
    assert find_blocks(OPEN) == [["luton", 1, 20]]
    last = make_study().data_collection_ends_on
    assert find_blocks(OPEN, last) == [["luton", 1, 20]]
    assert find_blocks(OPEN, date(2018, 12, 1)) == []


def test_numbers_that_never_went_out_are_replaced_and_never_given_again() -> None:
    """A claim that was taken back: the site has none of its numbers, and no other pack gives them."""
    at = plan(OPEN, is_scheduled=True)
    claimed = claim(at, delivered=False)
    assert find_blocks([*OPEN, *claimed]) == [["luton", 21, 20]]
    events = tell(*OPEN, *claimed)
    voided = tell(*OPEN, *claimed, *derive_voids(events, "luton-2017-07-10-1", JULY_10, BY))
    found = derive_blocks(make_study(), voided, JULY_10, ["luton"])
    assert found.to_numpy().tolist() == [["luton", 21, 20]]
    assert find_blocks([*OPEN, *claim(at)]) == []


def test_numbers_of_an_imported_list_are_not_given_again() -> None:
    assert find_blocks([*OPEN, *join(range(1, 31), JULY_3)]) == [["luton", 31, 20]]
    assert find_blocks([*OPEN, *join([5, 25], JULY_3)]) == [["luton", 26, 20]]
    assert find_blocks([*OPEN, *join([9000], JULY_3)]) == [["luton", 1, 20]]  # one slip does not use up the rest


def test_no_number_above_the_last_is_made() -> None:
    assert find_blocks([*OPEN, issue(9990, 10)]) == []
    assert find_blocks([*OPEN, issue(9976, 20)]) == []  # more than half unused
    used = [issue(9976, 20), *join(range(9976, 9990), JULY_3)]
    assert find_blocks([*OPEN, *used]) == [["luton", 9996, 4]]


def report_figure(month: str, reported_to: Any) -> Event:
    return ActivityReported(
        occurred_on=date(2017, 9, 4), requested_by=BY, site_id="luton", figure="plans", month=month,
        reported_to=reported_to, count=3,
    )  # fmt: skip


def test_months_are_owed_once_they_are_over_until_both_counts_are_in() -> None:
    def list_owed(told: Sequence[Event], as_of: date) -> list[str]:
        owed = derive_owed_figures(make_study(), tell(*told), as_of, ["luton", "devon"])
        assert set(owed["site_id"]) <= {"luton"}  # nobody was approached elsewhere
        return owed["month"].tolist()

    told = [*OPEN, *join([1], JULY_3)]
    assert list_owed(told, date(2017, 7, 31)) == []
    assert list_owed(told, date(2017, 8, 1)) == ["2017-07"]
    assert list_owed([*told, report_figure("2017-07", "evaluation")], date(2017, 9, 4)) == ["2017-07", "2017-08"]
    both = [report_figure("2017-07", to) for to in ("evaluation", "nhs_england")]
    assert list_owed([*told, *both], date(2017, 9, 4)) == ["2017-08"]


# Claims ---------------------------------------------------------------------------------------------------------------


def test_a_claim_tells_what_the_pack_tells() -> None:
    at = plan([*OPEN, *join([1], JULY_3)])
    claimed, issued, released = claim(at, delivered=False)
    assert isinstance(claimed, PackClaimed)
    assert (claimed.pack_id, claimed.purpose, claimed.waves) == ("luton-2017-07-10-1", "wave", ("baseline",))
    assert (claimed.n_returns, claimed.first_number, claimed.n_numbers) == (1, 2, 20)
    assert isinstance(issued, IdentifiersIssued)
    assert isinstance(released, ReturnReleased)
    assert released.key == f"released:{identify(1)}:self:baseline:1"
    assert (released.opens_on, released.due_on, released.late_until, released.instruments) == (
        date(2017, 6, 26), date(2017, 7, 17), date(2017, 9, 4), ("mood",),
    )  # fmt: skip


def test_an_open_claim_is_found_and_its_voids_take_back_all_of_it_but_its_numbers() -> None:
    told = [*OPEN, *join([1, 2], JULY_3)]
    events = tell(*told, *claim(plan(told), delivered=False))
    assert find_open_claims(events)["pack_id"].tolist() == ["luton-2017-07-10-1"]
    assert find_open_claims(events, "devon").empty
    assert find_open_claims(tell(*told, *claim(plan(told)))).empty
    voids = derive_voids(events, "luton-2017-07-10-1", JULY_10, BY)
    assert len(voids) == 3
    assert all(isinstance(void, Voided) for void in voids)
    taken_back = tell(*told, *claim(plan(told), delivered=False), *voids)
    assert find_open_claims(taken_back).empty
    assert find_claimed_rows(taken_back, "luton-2017-07-10-1").empty
    assert len(taken_back.frame(IdentifiersIssued)) == 1
    again = plan(taken_back)
    assert again.n_going == 2
    pack = compose_pack(again, "luton")
    assert pack is not None
    assert pack.pack_id == "luton-2017-07-10-2"  # a name is never used again


def test_the_plan_says_what_is_not_automatic_in_its_own_words() -> None:
    assert 'mode = "on_request"' in FIELDWORK
    at = plan([*OPEN, *join(range(1, 8), JULY_3)], date(2017, 7, 18), is_scheduled=True)
    assert tell_words(at) == {"on_request;backlog"}
    assert tell_words(plan([*OPEN, *join(range(1, 8), JULY_3)], date(2017, 7, 18))) == {"backlog;at_once"}


# What goes along ----------------------------------------------------------------------------------------------------

GATHERING = FIELDWORK.replace(
    'mode = "automatic"\nlead = "2 weeks"\n', 'mode = "automatic"\nlead = "2 weeks"\ngather = "9 days"\n'
)


@pytest.mark.parametrize(
    ("days_later", "expected"),
    [(0, {1, 2}), (9, {1, 2}), (10, {1})],  # nine days are gathered, the last one too; the tenth is a Saturday's
)
def test_what_may_soon_go_goes_along(days_later: int, expected: set[int]) -> None:
    assert GATHERING != FIELDWORK
    later = JULY_3 + timedelta(days=days_later)
    told = [*OPEN, *join([1], JULY_3), *answer([1], "baseline", JULY_3), *join([2], later)]
    told += answer([2], "baseline", later)
    at = plan_release(make_study(GATHERING), tell(*told), FIRST_DAY, is_scheduled=True)
    assert set(at.going["participant_id"]) == {identify(number) for number in expected}
    assert set(at.rows["decision"]) == {"goes"}


def test_what_may_soon_go_makes_no_pack_by_itself() -> None:
    told = [*OPEN, *join([1], JULY_3), *answer([1], "baseline", JULY_3)]
    told += [*join([2], JULY_3, "devon"), *answer([2], "baseline", JULY_3 + timedelta(days=3), "devon")]
    study, eve = make_study(GATHERING), FIRST_DAY - timedelta(days=1)
    assert plan_release(study, tell(*told), eve, is_scheduled=True).rows.empty
    # Another site's pack takes nothing along.
    at = plan_release(study, tell(*told), FIRST_DAY, is_scheduled=True)
    assert set(at.going["site_id"]) == {"luton"}


def test_what_goes_along_is_held_like_the_rest() -> None:
    told = [*OPEN, *join([1, 2], JULY_3), *answer([1], "baseline", JULY_3)]
    told += [*answer([2], "baseline", JULY_3 + timedelta(days=3)), *leave(2, JULY_10)]
    at = plan_release(make_study(GATHERING), tell(*told), FIRST_DAY, is_scheduled=True)
    assert set(at.going["participant_id"]) == {identify(1)}
