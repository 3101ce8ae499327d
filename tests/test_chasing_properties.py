"""Chasing under random histories: late, corrected and repeated news, rounds that run twice, at once, or are killed.

Each example plays some weeks of two sites with many people, each with a history of their own, and holds every round
against a second account of who may be chased, written person by person from what was told.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from study.calendar import add_working_days, is_working_day, move_to_working_day
from study.chasing import derive_rungs
from study.contacts import compute_address_code
from study.digests import Draft, Plan, plan_digests
from study.events import ConsentRecorded, Event, MessageQueued, ObligationChased, Voided
from study.fieldwork import LadderStep
from study.state import Events
from tests.approval_histories import tell_more
from tests.chasing_studies import (
    accepted,
    answered,
    closed,
    joined,
    lapsed,
    left,
    make_study,
    paused,
    raised,
    read_contacts,
    released,
    resumed,
)
from tests.release_studies import BY, grant, identify

STUDY, CONTACTS = make_study(), read_contacts()
LADDER = [step for step in STUDY.fieldwork.ladder if step.about == "return"]
STOPPING = [("study", "died"), ("study", "withdrew"), ("questionnaires", "withdrew"), ("data", "withdrew")]
NOT_STOPPING = [("treatment", "withdrew"), ("linkage", "withdrew"), ("post", "withdrew")]
N_PEOPLE, N_DAYS = 250, 26
# the first days: an ordinary summer, the end of summer time, the end of a year, the start of summer time
FIRST_DAYS = [date(2017, 8, 1), date(2017, 10, 9), date(2017, 12, 4), date(2018, 3, 5)]


@dataclass
class Person:
    """What was told of somebody so far, as the second account keeps it."""

    number: int
    site_id: str
    consented_on: date | None = None
    released_on: date | None = None
    in_on: list[date] = field(default_factory=list)
    stopped_on: list[date] = field(default_factory=list)

    @property
    def id(self) -> str:
        return identify(self.number, self.site_id)


@dataclass
class World:
    """A ledger, and what was told to it in plain words."""

    told: list[Event] = field(default_factory=list)
    people: dict[str, Person] = field(default_factory=dict)
    consent_seq: dict[str, int] = field(default_factory=dict)
    lapsed_on: dict[str, date] = field(default_factory=dict)
    pauses: dict[str, tuple[str, str, date, date]] = field(default_factory=dict)
    settled: dict[str, date] = field(default_factory=dict)
    events: Events = field(default_factory=lambda: Events({}))

    def hear(self, *events: Event) -> None:
        self.told.extend(events)

    def read(self) -> Events:
        self.events = tell_more(self.events, *self.told[self.events.head.seq :])
        return self.events

    def is_paused(self, person: Person, on: date) -> bool:
        return any(
            site in ("", person.site_id) and who in ("", person.id) and first <= on <= last
            for site, who, first, last in self.pauses.values()
        )

    def may_be_asked(self, person: Person, on: date) -> bool:
        """Whether somebody's baseline may be chased on a day, pauses and quiet periods apart."""
        lapse = self.lapsed_on.get(person.site_id)
        if person.consented_on is None or person.released_on is None or person.released_on > on:
            return False
        if any(day <= on for day in (*person.in_on, *person.stopped_on)) or (lapse and lapse <= on):
            return False
        return on <= STUDY.compute_window_dates(STUDY.baseline, person.consented_on).late_until

    def find_step(self, person: Person, on: date, taken: set[str]) -> LadderStep | None:
        """The highest step that is due on a day and above those that were taken, one that is worth something."""
        assert person.consented_on is not None
        assert person.released_on is not None
        dates = STUDY.compute_window_dates(STUDY.baseline, person.consented_on)
        found: list[tuple[date, int, LadderStep]] = []
        for place, step in enumerate(LADDER):
            anchor = dates.due_on if step.days < 0 else max(dates.due_on, person.released_on)
            due_on = move_to_working_day(add_working_days(anchor, step.days), "later")
            is_good = step.days >= 0 or (due_on > person.released_on and on <= dates.due_on)
            if is_good or f"chase:return:{person.id}:self:baseline:{step.id}" in taken:
                found.append((due_on, place, step))
        found.sort()
        highest = max(
            (n for n, (_, _, step) in enumerate(found) if f"chase:return:{person.id}:self:baseline:{step.id}" in taken),
            default=-1,
        )
        due = [step for due_on, _, step in found[highest + 1 :] if due_on <= on <= dates.late_until]
        due = [step for step in due if self._date(step, dates.due_on, person.released_on) <= dates.late_until]
        return due[-1] if due else None

    @staticmethod
    def _date(step: LadderStep, due_on: date, released_on: date) -> date:
        anchor = due_on if step.days < 0 else max(due_on, released_on)
        return move_to_working_day(add_working_days(anchor, step.days), "later")


def make_up(chance: random.Random, first: date) -> dict[int, list[tuple[str, ...]]]:
    """What is told on which day, as words: each person's own history, some of it late, corrected or told again."""
    news: dict[int, list[tuple[str, ...]]] = {}

    def tell_on(day: int, *words: object) -> None:
        news.setdefault(max(day, 0), []).append(tuple(str(word) for word in words))

    for n in range(1, N_PEOPLE + 1):
        who = (n, chance.choice(["luton", "devon"]))
        begun = chance.randint(-25, 14)
        heard = begun + chance.choice([0, 0, 1, 6])
        tell_on(heard, "joined", *who, begun, chance.choice(["yes", "yes", ""]))
        sent = heard + chance.choice([0, 0, 1, 5, 20])
        tell_on(sent, "released", *who, max(sent, begun))
        if chance.random() < 0.15:
            tell_on(sent + chance.randint(1, 20), "moved", *who, begun + chance.choice([-6, 5, 12]))
        if chance.random() < 0.5:
            came = begun + chance.randint(0, 45)
            tell_on(came + chance.choice([0, 0, 2, 9]), "accepted", *who, came)
            if chance.random() < 0.3:
                tell_on(came + chance.randint(0, 12), "accepted", *who, came)
        if chance.random() < 0.25:
            gone = begun + chance.randint(-8, 40)  # some before they consented, by the date on the form
            tell_on(gone + chance.choice([0, 0, 1, 8]), "left", *who, gone, *chance.choice(STOPPING))
        if chance.random() < 0.15:
            tell_on(begun + chance.randint(0, 30), "left", *who, begun + 1, *chance.choice(NOT_STOPPING))
        if chance.random() < 0.2:
            asked = heard + chance.randint(1, 15)
            tell_on(asked, "raised", *who, asked)
            if chance.random() < 0.5:
                tell_on(asked + chance.randint(1, 15), chance.choice(["closed", "answered"]), *who)
        if chance.random() < 0.08:
            day = heard + chance.randint(0, 25)
            tell_on(day, "paused", *who, day, chance.randint(0, 9))
    if chance.random() < 0.4:
        day = chance.randint(5, N_DAYS)
        tell_on(day, "lapsed", chance.choice(["luton", "devon"]), day)
    if chance.random() < 0.4:
        day = chance.randint(0, N_DAYS)
        tell_on(day, "site_paused", chance.choice(["luton", "devon"]), day)
        tell_on(day + chance.randint(1, 8), "resumed")
    for several in news.values():
        chance.shuffle(several)
    return news


def hear(world: World, words: tuple[str, ...], first: date, today: date) -> None:
    """Tell the ledger, and the second account, one piece of news."""

    def day(text: str) -> date:
        return first + timedelta(days=int(text))

    kind, *about = words
    if kind == "lapsed":
        world.hear(lapsed(day(about[1]), about[0]))
        world.lapsed_on[about[0]] = day(about[1])
        return
    if kind == "site_paused":
        world.hear(paused(day(about[1]), about[0], pause="of_site"))
        world.pauses["of_site"] = (about[0], "", day(about[1]), date.max)
        return
    if kind == "resumed":
        site_id, who, since, _ = world.pauses["of_site"]
        world.hear(resumed(today, site_id, pause="of_site"))
        world.pauses["of_site"] = (site_id, who, since, today - timedelta(days=1))
        return
    number, site_id = int(about[0]), about[1]
    person = world.people.setdefault(identify(number, site_id), Person(number, site_id))
    if kind == "joined":
        screened, consented = joined(number, on=day(about[2]), site_id=site_id, filed=about[3])
        world.hear(screened)
        if person.consented_on is None:
            world.hear(consented)
            world.consent_seq[person.id] = len(world.told)
            person.consented_on = day(about[2])
    elif kind == "moved" and person.consented_on is not None:
        seq = world.consent_seq[person.id]
        old = world.told[seq - 1]
        assert isinstance(old, ConsentRecorded)
        void = Voided(occurred_on=today, requested_by=BY, voids=f"{seq:064x}", reason="wrong_date")
        world.hear(void, old.model_copy(update={"occurred_on": min(day(about[2]), today)}))
        world.consent_seq[person.id] = len(world.told)
        person.consented_on = min(day(about[2]), today)
    elif kind == "released":
        n_copies = 1 + sum(event.key.startswith(f"released:{person.id}:") for event in world.told)
        world.hear(*released(number, on=today, site_id=site_id, copy=n_copies))
        person.released_on = person.released_on or today
    elif kind == "accepted":
        world.hear(accepted(number, min(day(about[2]), today), site_id=site_id, version=1 + len(person.in_on)))
        person.in_on.append(min(day(about[2]), today))
    elif kind == "left":
        scope, reason = about[3], about[4]
        world.hear(left(number, min(day(about[2]), today), scope, reason, site_id))
        if (scope, reason) in STOPPING:
            person.stopped_on.append(min(day(about[2]), today))
    elif kind == "raised":
        world.hear(raised(number, today, f"Q-{number}", site_id))
    elif kind in ("closed", "answered"):
        world.hear((closed if kind == "closed" else answered)(today, f"Q-{number}", site_id))
        world.settled[f"Q-{number}"] = today
    elif kind == "paused":
        last = day(about[2]) + timedelta(days=int(about[3]))
        if last >= today:
            world.hear(paused(today, site_id, person.id, pause=f"of_{number}", until=last))
            world.pauses[f"of_{number}"] = (site_id, person.id, today, last)


def draw_up(world: World, today: date) -> Plan:
    events = world.read()
    return plan_digests(STUDY, CONTACTS, events, derive_rungs(STUDY, events, today), frozenset(), today)


def queue(world: World, draft: Draft, today: date) -> bool:
    """As the outbox queues: a letter with its steps or nothing, and nothing that stands already."""
    keys = {event.key for event in world.told}
    if f"message:{draft.message_id}" in keys or any(chase.chase in keys for chase in draft.chases):
        return False
    world.hear(
        MessageQueued(
            occurred_on=today, requested_by=BY, site_id=draft.site_id, message_id=draft.message_id, category="digest",
            person_id=draft.person.person_id, role=draft.role, channel="email", template=draft.template,
            content_sha256="0" * 64, address_code=compute_address_code("trial", draft.person.email),
        ),
        *(
            ObligationChased(
                occurred_on=today, requested_by=BY, site_id=chase.site_id, participant_id=chase.participant_id,
                chase=chase.chase, about=chase.about, step=chase.step, message_id=draft.message_id, channel="email",
                due_on=chase.due_on,
            )
            for chase in draft.chases
        ),
    )  # fmt: skip
    return True


def play_round(world: World, chance: random.Random, today: date) -> Plan:
    """A day's round: whole, twice, twice at once, or killed and taken up. The plan that the day ended with."""
    manner = chance.choice(["whole", "twice", "at once", "killed"])
    plan = draw_up(world, today)
    if manner == "killed":
        for draft in plan.drafts[: chance.randint(0, len(plan.drafts))]:
            assert queue(world, draft, today)
        plan = draw_up(world, today)
    if manner == "at once":  # both decide on the same rows, and queue in turns
        drafts = [draft for pair in zip(plan.drafts, draw_up(world, today).drafts, strict=True) for draft in pair]
        assert [queue(world, draft, today) for draft in drafts] == [True, False] * len(plan.drafts)
    else:
        for draft in plan.drafts:
            assert queue(world, draft, today)
    if manner == "twice":
        assert draw_up(world, today).drafts == ()
    return plan


def list_keys(world: World, today: date) -> Iterator[ObligationChased]:
    return (event for event in world.told if isinstance(event, ObligationChased) and event.occurred_on == today)


def is_quiet(today: date, site_id: str, about: str) -> bool:
    return any(
        period.covers(today)
        and (not period.sites or site_id in period.sites)
        and (not period.about or about in period.about)
        for period in STUDY.fieldwork.quiet_periods
    )


def check_round(world: World, plan: Plan, before: set[str], today: date) -> int:
    """Hold a day's letters against the second account. How many steps were taken for returns."""
    new = [event for event in list_keys(world, today) if event.key not in before]
    letters = [event for event in world.told if isinstance(event, MessageQueued) and event.occurred_on == today]
    assert len({letter.person_id for letter in letters}) == len(letters)
    assert len({letter.address_code for letter in letters}) == len(letters)
    taken = [event.key for event in world.told if isinstance(event, ObligationChased)]
    assert len(taken) == len(set(taken))
    returns = [event for event in new if event.key.startswith("chase:return:")]
    for event in returns:
        person = world.people[event.participant_id]
        assert world.may_be_asked(person, today), (event.key, today)
        assert not world.is_paused(person, today), (event.key, today)
        assert not is_quiet(today, person.site_id, "return")
    for draft in plan.drafts:  # whoever is named in a letter may be asked, and not only who is asked today
        for section in (part for part in draft.sections if part.about == "return"):
            for name in (cell for row in section.rows for cell in row if cell in world.people):
                assert world.may_be_asked(world.people[name], today), (name, today)
                assert not world.is_paused(world.people[name], today), (name, today)
    for event in (event for event in new if event.about == "query"):
        assert event.key.split(":")[2] not in world.settled
        assert event.site_id not in world.lapsed_on or world.lapsed_on[event.site_id] > today
    # everybody who may be asked was asked by the step of today, unless their letter waits
    asked = {event.key for event in new}
    expected = set()
    for person in world.people.values():
        if not world.may_be_asked(person, today) or world.is_paused(person, today):
            continue
        step = world.find_step(person, today, before)
        if step is not None and step.channel == "email" and not is_quiet(today, person.site_id, "return"):
            expected.add(f"chase:return:{person.id}:self:baseline:{step.id}")
    told = {key for key in asked if ":told:" in key}
    assert {key for key in asked if key.startswith("chase:return:")} - told <= expected
    assert expected - asked <= set(plan.resting) | set(before)
    for event in (event for event in returns if event.key.endswith(":told:fieldwork_coordinator")):
        step = world.find_step(world.people[event.participant_id], today, before)
        assert step is not None
        assert (step.id, step.channel) == (event.step, "telephone")
    week = [
        event for event in world.told
        if isinstance(event, MessageQueued) and event.occurred_on.isocalendar()[:2] == today.isocalendar()[:2]
    ]  # fmt: skip
    per_person = {person: sum(event.person_id == person for event in week) for person in {e.person_id for e in week}}
    assert all(n <= 2 for n in per_person.values())
    for key in expected - asked:
        assert "went to this person this week" in plan.resting[key] or "written already" in plan.resting[key]
    return len(asked - told)


# No shrinking: another seed is another world, and not a smaller one.
@settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(seed=st.integers(0, 2**32 - 1), first=st.sampled_from(FIRST_DAYS), gap=st.sampled_from([1, 2, 7]))
def test_no_chaser_that_should_not_have_gone_and_none_left_out(seed: int, first: date, gap: int) -> None:
    play(seed, first, gap)


def play(seed: int, first: date, gap: int) -> None:
    """Some weeks of the two sites, a round on every working day, every other, or one a week."""
    chance = random.Random(seed)
    world = World()
    world.hear(*grant("luton", "devon"))
    news = make_up(chance, first)
    waiting: list[tuple[str, ...]] = []
    n_chased = n_rounds = 0
    for n in range(N_DAYS):
        today = first + timedelta(days=n)
        waiting += news.get(n, [])
        if not is_working_day(today) or n % gap:
            continue
        # a round hears what came in since the last one; nobody is released before they joined
        waiting.sort(key=lambda words: words[0] != "joined")
        half = len(waiting) if chance.random() < 0.6 else len(waiting) // 2
        for several in filter(None, (waiting[:half], waiting[half:])):  # some days have a second round, with more news
            for words in several:
                hear(world, words, first, today)
            before = {event.key for event in world.told if isinstance(event, ObligationChased)}
            plan = play_round(world, chance, today)
            n_chased += check_round(world, plan, before, today)
            n_rounds += 1
        waiting = []
    assert n_rounds >= 3
    if gap < 7:
        assert n_chased, "nothing was chased: the histories hold nothing to look at"


def test_the_second_account_would_notice() -> None:
    """A round that chases somebody who has answered, or leaves somebody out, does not pass."""
    today = date(2017, 8, 18)
    world = World()
    world.hear(*grant("luton", "devon"))
    for words in (("joined", "1", "luton", "-17", "yes"), ("released", "1", "luton", "-17")):
        hear(world, words, date(2017, 8, 18), date(2017, 8, 1))
    plan = draw_up(world, today)
    assert [draft.person.person_id for draft in plan.drafts] == ["rosa"]
    with pytest.raises(AssertionError):
        check_round(world, Plan(), set(), today)  # nobody was written to
    for draft in plan.drafts:
        queue(world, draft, today)
    assert check_round(world, plan, set(), today) == 1
    world.people[identify(1)].in_on.append(today)
    with pytest.raises(AssertionError):
        check_round(world, plan, set(), today)  # somebody was who had answered
