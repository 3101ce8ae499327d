"""Sending packs: claim, deliver, take up what was begun; two at once; one site's store denied; another day refused."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from study.events import ApprovalWithdrawn, Event, PackClaimed, PackDelivered, ReturnReleased, Voided
from study.packs import PackPlan
from study.releasing import ReleasePlan, compose_pack, derive_voids, find_open_claims
from tasks import releasing
from tasks.files import AreaUnavailable, DropBox, FileFault
from tasks.orchestration import StepFailed
from tasks.packs import find_letters_name, write_pack_files
from tasks.releasing import (
    Claim,
    ReleaseRefused,
    draw_up_plan,
    find_sites_to_serve,
    refuse_another_day,
    refuse_another_plan,
    release_packs,
    release_site,
    send_blank_pack,
)
from tasks.workspace import Workspace, use_workspace
from tests.release_studies import BY, answer, grant, identify, join, leave, move_clock, open_trial
from tests.replays import run_prefect

JULY_3, JULY_10, JULY_11 = date(2017, 7, 3), date(2017, 7, 10), date(2017, 7, 11)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """Both sites are open, three people joined at each."""
    workspace = open_trial(tmp_path, JULY_10)
    tell(workspace, [*grant("luton", "devon"), *join(range(1, 4), JULY_3), *join(range(1, 4), JULY_3, "devon")])
    with workspace.ledger:
        yield workspace


def tell(workspace: Workspace, events: Sequence[Event]) -> None:
    workspace.ledger.append(events)


def release_all(workspace: Workspace, as_of: date = JULY_10) -> releasing.Released:
    return release_packs(workspace, draw_up_plan(workspace, as_of), BY)


def list_outbox(workspace: Workspace, site_id: str = "luton") -> list[str]:
    stored = workspace.area.below("sites").list(f"{site_id}/outbox/")
    return [entry.key.rpartition("/")[2] for entry in stored]


def assert_sound(workspace: Workspace, *, complete: bool = True) -> None:
    """Every questionnaire that stands as released belongs to one delivered pack whose workbook is in the outbox as it
    was kept; nothing was released twice; no outbox holds anything else."""
    events = workspace.read_events()
    claims, delivered = events.frame(PackClaimed), events.frame(PackDelivered)
    released = events.frame(ReturnReleased)
    assert not released.duplicated(["participant_id", "respondent", "wave", "copy_number"]).any()
    assert set(released["pack_id"]) <= set(claims["pack_id"])
    assert released.groupby("pack_id").size().to_dict() == {
        row.pack_id: row.n_returns for row in claims.itertuples() if row.n_returns
    }
    if complete:
        assert sorted(delivered["pack_id"]) == sorted(claims["pack_id"])
    for site in workspace.study.sites:
        own = claims[claims["site_id"] == site.site_id]
        own = own[own["pack_id"].isin(delivered["pack_id"])]
        box = workspace.drop_box(site.site_id)
        assert all(box.has_sent(row.file_name, row.sha256) for row in own.itertuples())
        letters = [f"{row.pack_id}_letters.html" for row in own.itertuples() if row.letters_sha256]
        assert sorted(list_outbox(workspace, site.site_id)) == sorted([*own["file_name"], *letters])


# Sending ------------------------------------------------------------------------------------------------------------


def test_a_pack_is_claimed_put_and_recorded(workspace: Workspace) -> None:
    released = release_all(workspace)
    assert released.failures == []
    assert {site: counts["questionnaires"] for site, counts in released.counts.items()} == {"devon": 3, "luton": 3}
    assert list_outbox(workspace) == ["luton-2017-07-10-1.xlsx", "luton-2017-07-10-1_letters.html"]
    kinds = workspace.ledger.history(site_id="luton")["kind"].tolist()
    expected = ["pack_claimed", "identifiers_issued", *["return_released"] * 3, "pack_delivered"]
    assert kinds[-6:] == expected
    assert_sound(workspace)
    assert release_all(workspace).counts == {}
    assert workspace.ledger.history(site_id="luton")["kind"].tolist() == kinds


def test_the_letters_are_named_as_the_pack_names_them(workspace: Workspace) -> None:
    release_all(workspace)
    row = workspace.read_events().frame(PackClaimed).iloc[0]
    claim = Claim(row.pack_id, row.site_id, row.key, row.hash, row.file_name, row.sha256, row.letters_sha256)
    plan: Any = row  # the name rests on the pack's id alone
    assert [name for name, _ in claim.files] == [find_letters_name(plan), row.file_name]


@pytest.mark.parametrize("as_of", [date(2017, 7, 9), JULY_11])
def test_nothing_is_sent_as_of_another_day(workspace: Workspace, as_of: date) -> None:
    plan = draw_up_plan(workspace, as_of)
    assert plan.n_going == 6
    for send in (release_packs, lambda *given: release_site(given[0], given[1], "luton", BY)):
        with pytest.raises(ReleaseRefused, match="today is 10 July 2017"):
            send(workspace, plan, BY)
    with pytest.raises(ReleaseRefused, match="today is 10 July 2017"):
        send_blank_pack(workspace, "luton", as_of, BY)
    assert list_outbox(workspace) == []


@pytest.mark.parametrize(
    ("now", "today"),
    [
        (datetime(2017, 10, 28, 22, 59, tzinfo=UTC), date(2017, 10, 28)),  # 23:59 in summer time
        (datetime(2017, 10, 28, 23, 0, tzinfo=UTC), date(2017, 10, 29)),
        (datetime(2017, 10, 29, 23, 59, tzinfo=UTC), date(2017, 10, 29)),  # the clocks have gone back
        (datetime(2017, 10, 30, 0, 0, tzinfo=UTC), date(2017, 10, 30)),
        (datetime(2018, 3, 24, 23, 59, tzinfo=UTC), date(2018, 3, 24)),
        (datetime(2018, 3, 25, 22, 59, tzinfo=UTC), date(2018, 3, 25)),  # the clocks have gone forward
        (datetime(2018, 3, 25, 23, 0, tzinfo=UTC), date(2018, 3, 26)),
        (datetime(2018, 1, 1, 0, 0, tzinfo=UTC), date(2018, 1, 1)),
    ],
)
def test_today_is_londons_whatever_the_clock_change(workspace: Workspace, now: datetime, today: date) -> None:
    workspace.clock = lambda: now
    refuse_another_day(workspace, today)
    for other in (-1, 1):
        with pytest.raises(ReleaseRefused, match="Ask for today"):
            refuse_another_day(workspace, date.fromordinal(today.toordinal() + other))


def test_another_count_than_the_plan_told_is_refused(workspace: Workspace) -> None:
    plan = draw_up_plan(workspace, JULY_10)
    refuse_another_plan(plan, 6)
    with pytest.raises(ReleaseRefused, match="The plan was of 7 questionnaires, and now 6 would go"):
        refuse_another_plan(plan, 7)


def test_a_blank_pack_has_identifiers_and_no_questionnaire(workspace: Workspace) -> None:
    pack = send_blank_pack(workspace, "luton", JULY_10, BY)
    assert (pack.purpose, len(pack.rows), pack.first_number, pack.n_numbers) == ("blank", 0, 4, 20)
    assert_sound(workspace)
    assert draw_up_plan(workspace, JULY_10).n_going == 6  # nothing that was due was lost by it
    again = send_blank_pack(workspace, "luton", JULY_10, BY)
    assert (again.pack_id, again.n_numbers) == ("luton-2017-07-10-2", 0)
    assert_sound(workspace)


# What is newer than the plan ----------------------------------------------------------------------------------------


def test_what_was_recorded_after_the_plan_counts_in_the_daily_round(workspace: Workspace) -> None:
    """Who died between the fold and the claim is not sent anything: the site is planned anew."""
    move_clock(workspace, date(2018, 1, 2))
    day = date(2018, 1, 2)
    tell(workspace, [*answer(range(1, 4), "baseline", date(2017, 7, 5)), *leave(9, day, "devon")])
    plan = draw_up_plan(workspace, day, is_scheduled=True)
    assert plan.n_going == 3
    tell(workspace, leave(2, day))
    assert release_site(workspace, plan, "luton", BY)["questionnaires"] == 2
    assert set(workspace.read_events().frame(ReturnReleased)["participant_id"]) == {identify(1), identify(3)}
    assert_sound(workspace)


def test_a_person_is_asked_again_where_other_questionnaires_would_go(workspace: Workspace) -> None:
    plan = draw_up_plan(workspace, JULY_10)
    tell(workspace, leave(2, JULY_10))
    released = release_packs(workspace, plan, BY)
    assert list(released.counts) == ["devon"]
    assert released.failures == [
        "luton: Other questionnaires would go there now than in the plan: something was recorded meanwhile. Look at "
        "the plan again, and send it with its count."
    ]
    assert list_outbox(workspace) == []
    assert_sound(workspace)


def test_news_that_change_nothing_stop_nothing(workspace: Workspace) -> None:
    plan = draw_up_plan(workspace, JULY_10)
    tell(workspace, join([7], JULY_11))  # known of a day to come: not yet true
    assert release_packs(workspace, plan, BY).failures == []
    assert_sound(workspace)


def test_an_approval_that_ended_meanwhile_holds_the_pack(workspace: Workspace) -> None:
    plan = draw_up_plan(workspace, JULY_10)
    about = {"occurred_on": JULY_10, "requested_by": BY, "approval": "green_light", "site_id": "luton"}
    tell(workspace, [ApprovalWithdrawn(**about, withdrawn_by="authority")])
    released = release_packs(workspace, plan, BY)
    assert released.failures == [
        "luton: What was in the plan does not go there any more: something was recorded meanwhile. Look at it again."
    ]
    assert list_outbox(workspace) == []


def test_packs_begun_ahead_are_the_same_and_news_still_counts(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What other processes write ahead is a plan's; where a site is planned anew, its pack is another."""
    begun: list[str] = []

    def begin(work: Callable[..., Any], *args: Any) -> Callable[[], Any]:
        begun.append(args[2].pack_id)
        return lambda: work(*args)

    monkeypatch.setattr(releasing, "has_other_processes", lambda: True)
    monkeypatch.setattr(releasing, "begin", begin)
    plan = draw_up_plan(workspace, JULY_10)
    expected = {
        site_id: write_pack_files(workspace.study, workspace.instruments, pack, workspace.layout)
        for site_id in ("devon", "luton")
        if (pack := compose_pack(plan, site_id)) is not None
    }
    about = {"occurred_on": JULY_10, "requested_by": BY, "approval": "green_light", "site_id": "luton"}
    tell(workspace, [ApprovalWithdrawn(**about, withdrawn_by="authority")])
    assert [failure.partition(":")[0] for failure in release_packs(workspace, plan, BY).failures] == ["luton"]
    assert begun == ["devon-2017-07-10-1", "luton-2017-07-10-1"]
    sent = workspace.area.get("sites/devon/outbox/devon-2017-07-10-1.xlsx")
    assert sent == expected["devon"].workbook
    assert not any("luton" in name for name in list_outbox(workspace))


def test_a_pack_that_cannot_be_composed_ahead_stops_no_other(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    compose = compose_pack

    def fail_at_devon(plan: ReleasePlan, site_id: str, **options: Any) -> PackPlan | None:
        if site_id == "devon":
            raise FileFault("devon: no such place")
        return compose(plan, site_id, **options)

    monkeypatch.setattr(releasing, "has_other_processes", lambda: True)
    monkeypatch.setattr(releasing, "compose_pack", fail_at_devon)
    released = release_all(workspace)
    assert [failure.partition(":")[0] for failure in released.failures] == ["devon"]
    assert set(released.counts) == {"luton"}


# What an earlier run left -------------------------------------------------------------------------------------------


def kill_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, after: bool = False) -> None:
    """The process ends where this is called the first time, before or after it is done."""
    original: Callable[..., Any] = getattr(owner, name)

    def end(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(owner, name, original)
        if after:
            original(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(owner, name, end)


POINTS = [
    (releasing, "write_pack_files", False, "nothing", 1),
    (releasing, "_deliver", False, "put again", 1),
    (DropBox, "send", True, "put again", 1),  # the letters lie there, the workbook does not
    (releasing, "_record_delivery", False, "found delivered", 1),
    (releasing, "_record_delivery", True, "nothing", 1),
]


@pytest.mark.parametrize(("owner", "name", "after", "taken_up", "number"), POINTS)
def test_a_run_that_died_is_finished_by_the_next(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    after: bool,
    taken_up: str,
    number: int,
) -> None:
    kill_at(monkeypatch, owner, name, after=after)
    with pytest.raises(Killed):
        release_all(workspace)
    released = release_all(workspace)
    assert released.failures == []
    total = sum(released.counts.values(), Counter[str]())
    told = {what.removeprefix("packs ") for what in total if what.startswith("packs ")}
    assert told == ({taken_up} - {"nothing"})
    assert_sound(workspace)
    events = workspace.read_events()
    assert len(events.frame(ReturnReleased)) == 6
    assert set(events.frame(PackClaimed)["pack_id"]) == {f"{site}-2017-07-10-{number}" for site in ("devon", "luton")}


def begin_and_die(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, site_id: str = "luton") -> None:
    kill_at(monkeypatch, releasing, "_deliver")
    with pytest.raises(Killed):
        release_packs(workspace, draw_up_plan(workspace, JULY_10, sites=[site_id]), BY)
    assert len(find_open_claims(workspace.read_events())) == 1


def test_a_claim_of_which_something_newer_is_known_is_taken_back_and_planned_anew(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_and_die(workspace, monkeypatch)
    tell(workspace, leave(2, JULY_10))
    plan = draw_up_plan(workspace, JULY_10, is_scheduled=True)
    assert plan.n_going == 0  # the wave goes on request only: the word was given before
    counts = release_site(workspace, plan, "luton", "daily round")
    assert (counts["packs taken back"], counts["questionnaires"]) == (1, 2)
    assert_sound(workspace)
    events = workspace.read_events()
    assert len(events.frame(Voided)) == 4
    assert set(events.frame(ReturnReleased)["participant_id"]) == {identify(1), identify(3)}
    assert events.frame(PackClaimed)[["pack_id", "first_number"]].to_numpy().tolist() == [["luton-2017-07-10-2", 24]]


def test_a_claim_of_an_earlier_day_is_planned_anew_by_that_days_rules(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_and_die(workspace, monkeypatch)
    move_clock(workspace, JULY_11)
    counts = release_site(workspace, draw_up_plan(workspace, JULY_11, is_scheduled=True), "luton", "daily round")
    assert (counts["packs taken back"], counts["questionnaires"]) == (1, 3)
    released = workspace.read_events().frame(ReturnReleased)
    assert released["occurred_on"].dt.date.unique().tolist() == [JULY_11]
    assert_sound(workspace)


def test_a_claim_whose_window_closed_meanwhile_goes_no_more(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_and_die(workspace, monkeypatch)
    later = date(2017, 8, 1)
    move_clock(workspace, later)
    plan = draw_up_plan(workspace, later, is_scheduled=True)
    counts = release_site(workspace, plan, "luton", "daily round")
    assert counts["packs taken back"] == 1
    assert counts["questionnaires"] == 0
    assert workspace.read_events().frame(ReturnReleased).empty
    assert_sound(workspace)


def test_a_pack_that_lies_in_the_outbox_went_out_whatever_is_known_since(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The site may have it: it is never taken back unseen, and a stop notice can follow it."""
    kill_at(monkeypatch, releasing, "_record_delivery")
    with pytest.raises(Killed):
        release_packs(workspace, draw_up_plan(workspace, JULY_10, sites=["luton"]), BY)
    tell(workspace, leave(2, JULY_11))
    move_clock(workspace, JULY_11)
    plan = draw_up_plan(workspace, JULY_11, is_scheduled=True)
    assert release_site(workspace, plan, "luton", BY)["packs found delivered"] == 1
    assert set(workspace.read_events().frame(ReturnReleased)["participant_id"]) == {identify(n) for n in (1, 2, 3)}
    assert_sound(workspace)


def test_a_blank_pack_that_was_begun_is_sent_after_all(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    kill_at(monkeypatch, releasing, "_deliver")
    with pytest.raises(Killed):
        send_blank_pack(workspace, "luton", JULY_10, BY)
    move_clock(workspace, JULY_11)
    plan = draw_up_plan(workspace, JULY_11, is_scheduled=True)
    assert "luton" in find_sites_to_serve(plan)
    assert release_site(workspace, plan, "luton", BY)["packs"] == 1
    claim = workspace.read_events().frame(PackClaimed).iloc[0]
    assert (claim.purpose, claim.n_returns, claim.first_number) == ("blank", 0, 24)
    assert_sound(workspace)


def test_who_delivers_a_claim_that_was_taken_back_leaves_nothing_behind(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that lost its lock (its database was gone for a while) and wakes up late."""
    begin_and_die(workspace, monkeypatch)
    events = workspace.read_events()
    row = find_open_claims(events).iloc[0]
    claim = Claim(row.pack_id, "luton", row.key, row.hash, row.file_name, row.sha256, row.letters_sha256)
    tell(workspace, derive_voids(events, row.pack_id, JULY_10, BY))
    with pytest.raises(ReleaseRefused, match="was taken back while it was being delivered"):
        releasing._deliver(workspace, claim, JULY_10, BY)
    assert list_outbox(workspace) == []


# One site's store ---------------------------------------------------------------------------------------------------


def test_a_site_whose_outbox_fails_stops_no_other_and_is_mended_by_the_next_run(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = DropBox.send

    def deny(box: DropBox, name: str, data: bytes) -> None:
        if name.startswith("devon"):
            raise AreaUnavailable(f"sites/{name}: access denied. Give the account the right to write.")
        original(box, name, data)

    monkeypatch.setattr(DropBox, "send", deny)
    released = release_all(workspace)
    assert list(released.counts) == ["luton"]
    assert len(released.failures) == 1
    assert "devon: sites/devon-2017-07-10-1" in released.failures[0]
    assert_sound(workspace, complete=False)
    assert find_sites_to_serve(draw_up_plan(workspace, JULY_10, is_scheduled=True)) == ["devon"]
    monkeypatch.setattr(DropBox, "send", original)
    mended = release_packs(workspace, draw_up_plan(workspace, JULY_10, is_scheduled=True), "daily round")
    assert mended.counts["devon"]["packs put again"] == 1
    assert_sound(workspace)
    assert len(workspace.read_events().frame(ReturnReleased)) == 6


# Two at once --------------------------------------------------------------------------------------------------------


def test_two_workers_never_send_the_same_twice(tmp_path: Path, ledger_url: str) -> None:
    """The same wave is released by four runs at once, each with a workspace of its own and the plan from before."""
    first = open_trial(tmp_path, JULY_10, database_url=ledger_url)
    tell(first, [*grant("luton", "devon"), *join(range(1, 6), JULY_3), *join(range(1, 6), JULY_3, "devon")])
    start = threading.Barrier(4)

    def work(_: int) -> releasing.Released:
        workspace = open_trial(tmp_path, JULY_10, database_url=ledger_url)
        with workspace.ledger:
            plan = draw_up_plan(workspace, JULY_10)
            assert plan.n_going == 10
            start.wait(timeout=60)
            return release_packs(workspace, plan, BY)

    with first.ledger:
        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(work, range(4)))
        total = sum((counts for one in done for counts in one.counts.values()), Counter[str]())
        assert total["questionnaires"] == 10
        assert total["packs"] == 2
        told = [failure for one in done for failure in one.failures]
        assert len(told) == 6
        assert all("does not go there any more" in failure for failure in told)
        assert_sound(first)


def test_without_the_lock_the_keys_alone_still_forbid_it(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the look for news fail to see another's claim, its rows stand under the same keys: nothing is claimed."""
    plan = draw_up_plan(workspace, JULY_10, sites=["luton"])
    release_packs(workspace, plan, BY)
    head = workspace.ledger.head()
    from tasks.ledger import Writing

    monkeypatch.setattr(Writing, "newest_seq", lambda *_, **__: 0)
    released = release_packs(workspace, plan, BY)
    assert released.counts == {}
    assert "the ledger holds" in released.failures[0]
    assert workspace.ledger.head() == head
    assert_sound(workspace)


# The flows ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prefect_url() -> Iterator[str]:
    with run_prefect() as url:
        yield url


@pytest.fixture
def flowing(workspace: Workspace, prefect_url: str, tmp_path: Path) -> Iterator[Workspace]:
    """The workspace stands in the place of its study's, and runs report to a server of the tests' own."""
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_HOME,
        PREFECT_LOGGING_TO_API_ENABLED,
        temporary_settings,
    )

    settings = {PREFECT_API_URL: prefect_url, PREFECT_HOME: tmp_path, PREFECT_LOGGING_TO_API_ENABLED: False}
    with temporary_settings(settings), use_workspace(workspace):
        yield workspace


def test_a_run_without_send_leaves_a_plan_and_sends_nothing(flowing: Workspace) -> None:
    from flows.waves import release_wave_now

    head = flowing.ledger.head()
    assert release_wave_now(study="trial", requested_by=BY, waves=["baseline"], as_of=JULY_10) == []
    assert flowing.ledger.head() == head
    assert list_outbox(flowing) == []
    assert b"What would be sent" in flowing.area.get(releasing.PLAN_PAGE)
    assert flowing.area.get(releasing.PLAN_WORKBOOK).startswith(b"PK")


def test_a_run_sends_what_was_expected_and_nothing_else(flowing: Workspace) -> None:
    from flows.waves import release_wave_now

    asked: dict[str, Any] = {"study": "trial", "requested_by": BY, "sites": ["luton"], "as_of": JULY_10, "send": True}
    with pytest.raises(StepFailed, match="The plan was of 5 questionnaires, and now 3 would go"):
        release_wave_now(**asked, expect=5)
    states = release_wave_now(**asked, expect=3)
    assert [state.name for state in states] == ["Completed"]
    assert list_outbox(flowing, "devon") == []
    assert_sound(flowing)
    move_clock(flowing, JULY_11)
    with pytest.raises(StepFailed, match="today is 11 July 2017"):
        release_wave_now(**asked | {"sites": []}, expect=3)
    with pytest.raises(StepFailed, match="trial has no wave follow_up_9m"):
        release_wave_now(study="trial", requested_by=BY, waves=["follow_up_9m"], as_of=JULY_11)
    with pytest.raises(StepFailed, match="trial has no site leeds"):
        release_wave_now(study="trial", requested_by=BY, sites=["leeds"], as_of=JULY_11)


def test_the_round_sends_what_is_automatic_and_one_site_stops_no_other(
    flowing: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect import flow

    from flows.waves import Sendings, release_due

    day = date(2018, 1, 2)
    move_clock(flowing, day)
    for site_id in ("luton", "devon"):
        tell(flowing, answer(range(1, 4), "baseline", date(2017, 7, 5), site_id))
    tell(flowing, join([8], date(2017, 12, 30)))  # a baseline, which goes on request only
    original, told = DropBox.send, list[Sendings]()

    def deny(box: DropBox, name: str, data: bytes) -> None:
        if name.startswith("devon"):
            raise AreaUnavailable(f"sites/{name}: access denied. Give the account the right to write.")
        original(box, name, data)

    @flow(name="a-round", persist_result=False)
    def run(as_of: date) -> None:
        told.append(release_due("trial", ["luton", "devon"], as_of, "daily round"))

    monkeypatch.setattr(DropBox, "send", deny)
    run(day)
    assert {site: counts["questionnaires"] for site, counts in told[0].counts.items()} == {"luton": 3}
    assert len(told[0].failures) == 1
    assert told[0].failures[0].startswith("Site devon was not sent its pack: AreaUnavailable: access denied.")
    assert sorted(state.name for state in told[0].states) == ["Completed", "Failed"]
    monkeypatch.setattr(DropBox, "send", original)
    run(day)
    assert told[1].failures == []
    assert told[1].counts["devon"]["packs put again"] == 1
    run(day)
    assert (told[2].counts, told[2].failures) == ({}, [])
    assert_sound(flowing)
    assert set(flowing.read_events().frame(ReturnReleased)["wave"]) == {"follow_up_6m"}
    run(date(2018, 1, 1))
    assert told[3].states == []
    assert told[3].note == "No packs: they go on their own day only, and today is Tuesday 2 January 2018."
