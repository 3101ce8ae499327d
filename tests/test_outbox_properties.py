"""Any order of queueing, news, sending, dying and resolving: nothing goes out twice, and nothing that should not."""

from __future__ import annotations

import atexit
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from study.events import MessageFailed, MessageQueued, ObligationChased
from study.messages import derive_messages
from tasks.files import FolderArea
from tasks.ledger import Ledger, Writing
from tasks.mail import Outcome
from tasks.outbox import queue_message, resolve_message, send_waiting
from tasks.workspace import Workspace
from tests.outgoing_messages import BY, make_outgoing, open_outbox, tell_news, today
from tests.releases import Clock, move_clock

DAY = date(2017, 9, 4)
PLACES = ("luton", "tower_hamlets")
N_MESSAGES = 4


class Died(BaseException):
    """The process is gone, in the middle of what it did."""


class DyingLedger(Ledger):
    """Dies before or after one of its next transactions is committed."""

    dies_in = -1
    dies_before = False

    @contextmanager
    def writing(self) -> Iterator[Writing]:
        self.dies_in -= 1
        if self.dies_in == 0 and self.dies_before:
            raise Died
        with super().writing() as writing:
            yield writing
        if self.dies_in == 0:
            raise Died


class Server:
    """A mail server, as far as a sender can know it. `answers` are given in turn; then it takes everything."""

    way: Literal["smtp", "folder"] = "smtp"

    def __init__(self, world: World) -> None:
        self.world = world
        self.answers: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, fault: object, at: object) -> None:
        pass

    def prepare(self) -> None:
        pass

    def has(self, name: str) -> bool:
        raise AssertionError("A mail server is never asked what it took.")

    def hand_over(self, name: str, address: str, data: bytes) -> Outcome:
        answer = self.answers.pop(0) if self.answers else "taken"
        if answer == "died before":
            raise Died
        if answer in ("refused", "put off", "lost before"):
            results: dict[str, Any] = {"refused": "permanent", "put off": "temporary", "lost before": "unknown"}
            return Outcome(results[answer], "550" if answer == "refused" else "")
        self.world.take(name)
        if answer == "died after":
            raise Died
        return Outcome("unknown" if answer == "lost after" else "sent")


class World:
    """A study, its outbox and the server, and what a bystander knows of them."""

    def __init__(self, workspace: Workspace, ledger: DyingLedger) -> None:
        self.workspace = replace(workspace, ledger=ledger)
        self.ledger = ledger
        self.server = Server(self)
        self.taken: list[str] = []
        self.lives: Counter[str] = Counter()
        self.news_since: dict[str, int] = {}
        self.n_deaths = 0
        self.answers: list[str] = []

    def take(self, name: str) -> None:
        """The server takes a message: it must stand, be of today, and have nothing newer about it."""
        message_id = name.rpartition(".")[0]
        (row,) = (one for one in self.messages() if one["message_id"] == message_id)
        assert row["queued_on"].date() == today(self.workspace)
        assert row["state"] == "uncertain"  # from here until it is recorded
        assert self.news_since[message_id] == 0
        self.taken.append(f"{message_id} {self.lives[message_id]}")

    def messages(self) -> list[dict[str, Any]]:
        frame = derive_messages(self.ledger.read_events(), today(self.workspace))
        return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]

    def queue(self, number: int) -> None:
        outgoing = make_outgoing(number, today(self.workspace), site_id=PLACES[number % 2])
        if queue_message(self.workspace, outgoing, self.ledger.head().seq, today(self.workspace), BY):
            self.lives[outgoing.message_id] += 1
            self.news_since[outgoing.message_id] = 0

    def tell(self, place: str) -> None:
        tell_news(self.workspace, place)
        for message_id in self.news_since:
            self.news_since[message_id] += place in message_id

    def send(self, dies_in: int, dies_before: bool, answers: list[str]) -> None:
        self.ledger.dies_in, self.ledger.dies_before, self.server.answers = dies_in, dies_before, list(answers)
        self.answers += answers
        try:
            send_waiting(self.workspace, today(self.workspace), BY, self.server)
        except Died:
            self.n_deaths += 1
        finally:
            self.ledger.dies_in = -1

    def resolve(self) -> None:
        """A person looks into the server's log, and tells the truth."""
        for row in self.messages():
            if row["state"] == "uncertain":
                name = str(row["message_id"])
                was_taken = f"{name} {self.lives[name]}" in self.taken
                resolve_message(self.workspace, name, "was_sent" if was_taken else "was_not_sent", BY)
                self.n_deaths -= 1

    def check(self) -> None:
        assert max(Counter(self.taken).values(), default=0) <= 1
        events = self.ledger.read_events()
        states = {str(row["message_id"]): str(row["state"]) for row in self.messages()}
        n_uncertain = list(states.values()).count("uncertain")
        n_lost = sum(answer.startswith("lost") for answer in self.answers)
        assert n_uncertain <= max(self.n_deaths, 0) + n_lost
        for message_id, state in states.items():
            was_taken = f"{message_id} {self.lives[message_id]}" in self.taken
            if state == "sent":
                assert was_taken
            elif state != "uncertain":
                assert not was_taken
        # Steps stand for what stands and was not refused, and for nothing else.
        chased = events.frame(ObligationChased)["message_id"].tolist()
        assert sorted(chased) == sorted(name for name, state in states.items() if state != "failed")
        assert not events.frame(MessageQueued)["key"].duplicated().any()
        assert not events.frame(MessageFailed)["key"].duplicated().any()
        assert self.ledger.verify().is_clean


ANSWERS = st.sampled_from(["taken", "refused", "put off", "lost before", "lost after", "died before", "died after"])
ROUNDS = st.tuples(
    st.lists(st.integers(0, N_MESSAGES - 1), min_size=1, max_size=N_MESSAGES, unique=True),
    st.sampled_from(["nothing", "nothing", *PLACES, ""]),
    st.one_of(st.just(-1), st.integers(1, 14)),
    st.booleans(),
    st.lists(ANSWERS, min_size=1, max_size=4),
    st.sampled_from(["send again", "resolve", "next day"]),
)
"""What is queued, which news comes, where the sender dies, what the server answers, what happens then."""


def _hurry(connection: sqlite3.Connection, _: object) -> None:
    """No power is cut here: what dies is the process."""
    connection.execute("PRAGMA synchronous = off")


@cache
def open_base() -> Workspace:
    """The study, read once; its own ledger is not used."""
    folder = tempfile.mkdtemp(prefix="summative-outbox-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    workspace = open_outbox(Path(folder), clock=Clock(DAY))
    workspace.ledger.close()
    return workspace


@settings(max_examples=40)
@given(history=st.lists(ROUNDS, min_size=1, max_size=5))
def test_any_history(history: list[tuple[list[int], str, int, bool, list[str], str]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with DyingLedger.open(f"sqlite:///{folder / 'ledger.db'}", "ipc", Clock(DAY)) as ledger:
            sa.event.listen(ledger.engine, "connect", _hurry)
            ledger.engine.dispose()
            world = World(replace(open_base(), folder=folder, area=FolderArea(folder), clock=Clock(DAY)), ledger)
            for numbers, news, dies_in, dies_before, answers, then in history:
                for number in numbers:
                    world.queue(number)
                if news != "nothing":
                    world.tell(news)
                world.send(dies_in, dies_before, answers)
                world.check()
                if then == "resolve":
                    world.resolve()
                elif then == "next day":
                    move_clock(world.workspace, today(world.workspace) + timedelta(days=1))
                else:
                    world.send(-1, False, [])
                world.check()
            # In the end a run that nothing disturbs leaves nothing waiting.
            world.send(-1, False, [])
            world.check()
            assert {row["state"] for row in world.messages()} <= {"sent", "failed", "uncertain"}
