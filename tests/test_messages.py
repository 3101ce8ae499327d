"""What became of messages, by literal histories of one or two of them."""

from __future__ import annotations

from datetime import date
from typing import Any

import pandas as pd
import pytest

from study.events import (
    Event,
    MessageBounced,
    MessageClaimed,
    MessageEvent,
    MessageFailed,
    MessageQueued,
    MessageResolved,
    MessageSent,
    MessageTransmitting,
    ReplyHandled,
    ReplyReceived,
    Voided,
)
from study.messages import (
    MESSAGE_COLUMNS,
    OUR_MESSAGE_ID,
    compute_message_code,
    derive_addresses,
    derive_messages,
    derive_replies,
    find_message_codes,
    find_stopped_addresses,
    is_about_address,
)
from tests.approval_histories import tell

DAY, NEXT = date(2018, 3, 26), date(2018, 3, 27)
WHO: dict[str, Any] = {"requested_by": "A. Tester", "site_id": "luton"}


def queued(message_id: str = "m1", on: date = DAY, address_code: str = "a1") -> MessageQueued:
    return MessageQueued(
        **WHO, occurred_on=on, message_id=message_id, category="digest", person_id="anna", role="site_researcher",
        channel="email", template="digest", content_sha256="a" * 64, address_code=address_code, n_obligations=2,
    )  # fmt: skip


def later(kind: type[MessageEvent], attempt: int = 1, message_id: str = "m1", on: date = DAY, **more: Any) -> Event:
    if kind is MessageTransmitting:
        more.setdefault("way", "smtp")
    if kind in (MessageFailed, MessageBounced):
        more.setdefault("address_code", "a1")
    return kind(**WHO, occurred_on=on, message_id=message_id, attempt=attempt, **more)


CLAIMED, TRANSMITTING, SENT = (later(kind) for kind in (MessageClaimed, MessageTransmitting, MessageSent))
HANDED = [queued(), CLAIMED, TRANSMITTING]
REFUSED = later(MessageFailed, persistence="permanent", status="5.1.1")
PUT_OFF = later(MessageFailed, persistence="temporary", status="451")
CAME_BACK = later(MessageBounced, persistence="permanent", status="5.1.1", on=NEXT)
IS_LATE = later(MessageBounced, persistence="temporary", status="4.4.1", on=NEXT)
CLAIMED_2, TRANSMITTING_2, SENT_2 = (later(kind, 2) for kind in (MessageClaimed, MessageTransmitting, MessageSent))
VOID = Voided(requested_by="A. Tester", occurred_on=DAY, voids=f"{1:064x}", reason="superseded")  # of the first row


@pytest.mark.parametrize(
    ("history", "state", "n_attempts", "status", "is_sent"),
    [
        ([queued()], "queued", 0, "", False),
        ([queued(), CLAIMED], "claimed", 1, "", False),
        (HANDED, "uncertain", 1, "", False),
        ([*HANDED, SENT], "sent", 1, "", True),
        ([*HANDED, REFUSED], "failed", 1, "5.1.1", False),
        ([*HANDED, PUT_OFF], "queued", 1, "451", False),
        ([*HANDED, PUT_OFF, CLAIMED_2], "claimed", 2, "451", False),
        ([*HANDED, PUT_OFF, CLAIMED_2, TRANSMITTING_2], "uncertain", 2, "451", False),
        ([*HANDED, PUT_OFF, CLAIMED_2, TRANSMITTING_2, SENT_2], "sent", 2, "451", True),
        ([queued(), CLAIMED, CLAIMED_2, TRANSMITTING_2, SENT_2], "sent", 2, "", True),
        ([*HANDED, later(MessageResolved, outcome="was_sent")], "sent", 1, "", True),
        ([*HANDED, SENT, IS_LATE], "delayed", 1, "4.4.1", True),
        ([*HANDED, SENT, CAME_BACK], "bounced", 1, "5.1.1", True),
        ([*HANDED, SENT, IS_LATE, CAME_BACK], "bounced", 1, "5.1.1", True),
        ([*HANDED, CAME_BACK], "bounced", 1, "5.1.1", False),  # so it had gone out, but nobody said on which day
    ],
)
def test_state(history: list[Event], state: str, n_attempts: int, status: str, is_sent: bool) -> None:
    (row,) = derive_messages(tell(*history), NEXT).to_dict("records")
    assert (row["state"], row["n_attempts"], row["status"]) == (state, n_attempts, status)
    assert (row["sent_on"] == pd.Timestamp(DAY)) is is_sent
    assert row["last_attempt"] == n_attempts


def test_columns_of_no_messages() -> None:
    for events in (tell(), tell(VOID)):
        messages = derive_messages(events, DAY)
        assert list(messages) == MESSAGE_COLUMNS
        assert messages.empty
    assert derive_addresses(tell()).empty
    assert find_stopped_addresses(tell()) == frozenset()
    assert derive_replies(tell(), DAY).empty
    assert find_message_codes(tell(), "ipc") == {}


def test_a_voided_message_is_none_and_its_second_life_counts_on() -> None:
    """The next try takes a number that no try before it had, and knows nothing of what became of the first life."""
    assert derive_messages(tell(*HANDED, VOID), DAY).empty
    events = tell(*HANDED, later(MessageResolved, outcome="was_not_sent"), VOID, queued(on=NEXT))
    (row,) = derive_messages(events, NEXT).to_dict("records")
    assert (row["state"], row["n_attempts"], row["last_attempt"], row["way"]) == ("queued", 0, 1, "")
    assert (row["queued_on"], row["queued_seq"], row["status"]) == (pd.Timestamp(NEXT), 6, "")
    assert derive_messages(events, DAY).empty  # of the second life nothing was known then


def test_messages_do_not_mix() -> None:
    two = [later(kind, message_id="m2") for kind in (MessageClaimed, MessageTransmitting, MessageSent)]
    messages = derive_messages(tell(queued("m2"), *HANDED, *two), DAY)
    assert dict(zip(messages["message_id"], messages["state"], strict=True)) == {"m2": "sent", "m1": "uncertain"}
    assert messages["way"].tolist() == ["smtp", "smtp"]


@pytest.mark.parametrize(
    ("history", "stopped", "delayed"),
    [
        ([PUT_OFF], [], []),
        ([REFUSED], ["a1"], []),
        ([IS_LATE], [], ["a1"]),
        ([CAME_BACK], ["a1"], []),
        ([IS_LATE, CAME_BACK], ["a1"], []),
        ([CAME_BACK, IS_LATE], ["a1"], []),  # for ever
        ([REFUSED, SENT_2], ["a1"], []),
        ([later(MessageFailed, persistence="permanent", status="5.7.1")], [], []),
        ([later(MessageBounced, persistence="permanent")], ["a1"], []),
        ([REFUSED, later(MessageBounced, persistence="temporary", address_code="a2")], ["a1"], ["a2"]),
    ],
)
def test_addresses(history: list[Event], stopped: list[str], delayed: list[str]) -> None:
    events = tell(*HANDED, *history)
    addresses = derive_addresses(events).groupby("state")["address_code"].agg(list).to_dict()
    assert addresses.get("stopped", []) == stopped
    assert addresses.get("delayed", []) == delayed
    assert find_stopped_addresses(events) == set(stopped)


def test_since_when_an_address_is_stopped() -> None:
    (row,) = derive_addresses(tell(*HANDED, IS_LATE, CAME_BACK)).to_dict("records")
    assert row["since"] == pd.Timestamp(NEXT)
    assert (row["status"], row["message_id"]) == ("5.1.1", "m1")


@pytest.mark.parametrize(
    ("status", "is_about"),
    [
        *[(status, True) for status in ("", "5.0.0", "5.1.1", "5.1.10", "5.2.2", "5.4.4", "550", "551", "553", "521")],
        *[(status, False) for status in ("5.3.4", "5.5.0", "5.6.1", "5.7.1", "5.7.26", "552", "554", "530", "501")],
    ],
)
def test_which_codes_are_about_the_address(status: str, is_about: bool) -> None:
    assert is_about_address(status) is is_about


def test_replies() -> None:
    def reply(code: str, on: date, **more: Any) -> ReplyReceived:
        return ReplyReceived(**WHO, occurred_on=on, reply_code=code, **more)

    events = tell(
        reply("late", NEXT, message_id="m1", person_id="anna"),
        reply("early", DAY, is_automatic=True),
        ReplyHandled(**WHO, occurred_on=NEXT, reply_code="late"),
    )
    replies = derive_replies(events, NEXT)
    assert replies["reply_code"].tolist() == ["early", "late"]
    assert replies["is_handled"].tolist() == [False, True]
    assert replies["handled_on"].tolist() == [pd.NaT, pd.Timestamp(NEXT)]
    assert derive_replies(events, DAY)["reply_code"].tolist() == ["early"]


def test_codes_of_messages() -> None:
    """The voided too; of another study, or of a slice of this one, the same message has another code."""
    code = compute_message_code("ipc", "m1")
    events = tell(queued(), VOID, queued("m2", address_code="a2"))
    known = find_message_codes(events, "ipc")
    assert known[code] == {"message_id": "m1", "site_id": "luton", "person_id": "anna", "address_code": "a1"}
    assert len(known) == 2
    assert compute_message_code("ipc.rehearsal", "m1") != code
    assert OUR_MESSAGE_ID.search(f"<x@y> <summative.{code}.12@study.example>")
    assert not OUR_MESSAGE_ID.search("<summative.abc.1@study.example>")
