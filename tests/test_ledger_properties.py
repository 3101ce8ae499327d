"""Whatever the order, the retries and the crashes, the ledger folds to one state, and the past stays what it was."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import count

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from study.events import ConflictRefused, DispositionRecorded, Event, ParticipantScreened, Voided
from study.state import derive_dispositions, derive_participants, parse_moment
from tasks.ledger import Appended, Ledger, LedgerRefused

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
STUDIES = count(1)
PEOPLE = [f"P{number}" for number in range(4)]
COHORTS = ["children", "older_adults"]


def screened(participant_id: str, cohort: str) -> ParticipantScreened:
    return ParticipantScreened(
        occurred_on=date(2024, 3, 1), requested_by="a test", site_id="701", participant_id=participant_id, cohort=cohort
    )


def void(digest: str) -> Voided:
    return Voided(occurred_on=date(2024, 3, 1), requested_by="a test", voids=digest, reason="entered_in_error")


@pytest.fixture
def engine(ledger_url: str) -> Iterator[sa.Engine]:
    """A database with the ledger's tables; every example is a study of its own in it."""
    with Ledger.open(ledger_url, "none") as ledger:
        yield ledger.engine


def people(ledger: Ledger, known_at: str | None = None) -> dict[str, str]:
    frame = derive_participants(ledger.read_events().select(known_at=known_at))
    return dict(zip(frame["participant_id"], frame["cohort"], strict=True))


class Model(RuleBasedStateMachine):
    """The ledger beside a dictionary that does by hand what the ledger says it does."""

    def __init__(self, engine: sa.Engine) -> None:
        super().__init__()
        self.now = NOON
        self.ledger = Ledger(engine, f"study_{next(STUDIES)}", lambda: self.now)
        self.rows: list[Appended] = []
        self.cohorts: dict[str, str] = {}
        self.standing: dict[str, Appended] = {}
        self.revisions: dict[str, int] = dict.fromkeys(PEOPLE, 0)
        self.conflicts: set[tuple[str, str]] = set()
        self.believed: dict[str, dict[str, str]] = {}
        self.voids: list[Appended] = []

    @rule(told=st.lists(st.tuples(st.sampled_from(PEOPLE), st.sampled_from(COHORTS)), max_size=5))
    def tell(self, told: list[tuple[str, str]]) -> None:
        answers = self.ledger.append(screened(*each) for each in told)
        for (person, cohort), answer in zip(told, answers, strict=True):
            if person not in self.cohorts:
                self.revisions[person] += 1
                assert (answer.answer, answer.revision) == ("added", self.revisions[person])
                self.cohorts[person], self.standing[person] = cohort, answer
                self.rows.append(answer)
            elif self.cohorts[person] == cohort:
                assert answer == self.standing[person]._replace(answer="same")
            else:
                assert answer == self.standing[person]._replace(answer="conflict")
                self.conflicts.add((answer.hash, cohort))

    @rule(told=st.lists(st.tuples(st.sampled_from(PEOPLE), st.sampled_from(COHORTS)), min_size=1, max_size=5))
    def crash(self, told: list[tuple[str, str]]) -> None:
        head = self.ledger.head()

        def fail() -> None:
            with self.ledger.writing() as writing:
                writing.append(screened(*each) for each in told)
                raise ConnectionError

        with pytest.raises(ConnectionError):
            fail()
        assert self.ledger.head() == head

    @precondition(lambda self: self.rows)
    @rule(data=st.data(), times=st.integers(1, 2))
    def take_back(self, data: st.DataObject, times: int) -> None:
        row = data.draw(st.sampled_from(self.rows))
        first, *again = [self.ledger.append([void(row.hash)])[0] for _ in range(times)]
        assert {answer.answer for answer in again} <= {"same"}
        person = row.key.removeprefix("screened:")
        if first.answer == "added":
            assert self.standing.pop(person) == row
            del self.cohorts[person]
            self.voids.append(first)
        else:
            assert first.answer == "same"
            assert self.standing.get(person) != row

    @precondition(lambda self: self.voids)
    @rule(data=st.data())
    def take_back_a_void(self, data: st.DataObject) -> None:
        voided = data.draw(st.sampled_from(self.voids))
        with pytest.raises(LedgerRefused, match="a void cannot be voided"):
            self.ledger.append([screened("P9", "children"), void(voided.hash)])

    @rule(seconds=st.integers(-3, 3))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @invariant()
    def agrees(self) -> None:
        assert people(self.ledger) == self.cohorts
        assert len(self.ledger.read_events().frame(ConflictRefused)) == len(self.conflicts)
        newest = self.ledger.history(newest=1)["recorded_at"]
        if len(newest):
            self.believed[newest[0]] = dict(self.cohorts)

    def teardown(self) -> None:
        """What was believed at each moment is still what was believed then, for a reader who comes fresh too."""
        fresh = Ledger(self.ledger.engine, self.ledger.study, self.ledger.clock)
        assert fresh.verify(self.ledger.head()).is_clean
        for reader in (self.ledger, fresh):
            for known_at, believed in self.believed.items():
                assert people(reader, known_at) == believed
                just_before = parse_moment(known_at) - timedelta(microseconds=1)
                earlier = [cohorts for moment, cohorts in self.believed.items() if parse_moment(moment) <= just_before]
                frame = derive_participants(reader.read_events().select(known_at=just_before))
                assert dict(zip(frame["participant_id"], frame["cohort"], strict=True)) == (earlier or [{}])[-1]


def test_ledger_agrees_with_its_model(engine: sa.Engine) -> None:
    class OnThisDatabase(Model):
        def __init__(self) -> None:
            super().__init__(engine)

    run_state_machine_as_test(OnThisDatabase, settings=settings(max_examples=25, stateful_step_count=20))


# What happens to one person, in this order; between people any order may come about.
LIVES: list[list[str]] = [
    ["tell"],
    ["tell", "void"],
    ["tell", "void", "tell other"],
    ["tell", "void", "tell", "void", "tell other", "leave"],
    ["leave", "tell"],
]


def perform(ledger: Ledger, person: str, act: str, standing: dict[str, str], times: int) -> None:
    if act == "void":
        event: Event = void(standing[person])
    elif act == "leave":
        event = DispositionRecorded(
            **screened(person, "x").model_dump(exclude={"cohort", "body_id"}), scope="study", reason="withdrew"
        )
    else:
        event = screened(person, COHORTS[act == "tell other"])
    answers = [ledger.append([event])[0] for _ in range(times)]
    assert [answer.answer for answer in answers] == ["added"] + ["same"] * (times - 1)
    if act.startswith("tell"):
        standing[person] = answers[0].hash


@given(data=st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_interleaving_and_retry_folds_to_the_same_state(engine: sa.Engine, data: st.DataObject) -> None:
    lives = data.draw(st.lists(st.sampled_from(LIVES), min_size=1, max_size=6))
    turns = [number for number, life in enumerate(lives) for _ in life]
    folded = []
    for order in (turns, data.draw(st.permutations(turns))):
        ledger = Ledger(engine, f"study_{next(STUDIES)}", lambda: NOON)
        left = [list(life) for life in lives]
        standing: dict[str, str] = {}
        for number in order:
            perform(ledger, f"P{number}", left[number].pop(0), standing, data.draw(st.integers(1, 3)))
        events = ledger.read_events()
        dispositions = derive_dispositions(events).drop(columns=["seq", "hash"]).sort_values("key", ignore_index=True)
        folded.append((derive_participants(events).to_csv(), dispositions.to_csv()))
        assert ledger.verify().is_clean
    assert folded[0] == folded[1]
