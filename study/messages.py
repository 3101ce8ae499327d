"""What became of each message: waiting, sent, refused, come back; which addresses no longer take mail; who answered.

A message that was being handed over when its sender ended is **uncertain**, for ever or until a person says what became
of it. What was voided (overtaken, out of date, resolved as not sent) is no message any more: its id may be queued anew,
and its earlier attempts keep their numbers, so that two tries never share one.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable
from datetime import date
from functools import lru_cache
from typing import Any

import pandas as pd

from study.events import (
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
)
from study.state import Events, is_in

QUEUED_COLUMNS = [
    *("message_id", "category", "site_id", "person_id", "role", "channel", "template", "address_code"),
    *("content_sha256", "n_obligations"),
]
MESSAGE_COLUMNS = [
    *QUEUED_COLUMNS,
    *("queued_on", "state", "n_attempts", "last_attempt", "way", "sent_on", "status", "queued_seq", "queued_hash"),
]

_CODE_DIGITS = 24
OUR_MESSAGE_ID = re.compile(rf"<?summative\.([0-9a-f]{{{_CODE_DIGITS}}})\.(\d{{1,6}})@", re.IGNORECASE)
"""How a Message-ID of ours begins, wherever a mail quotes one: the message's code and the attempt."""


def compute_message_code(study: str, message_id: str) -> str:
    """What stands for a message in its mail's headers: nobody can read a site or a person out of it."""
    return hashlib.sha256(f"{study}\x1f{message_id}".encode()).hexdigest()[:_CODE_DIGITS]


def derive_messages(events: Events, as_of: date, *, unsent_only: bool = False, category: str = "") -> pd.DataFrame:
    """One row for each message that stands, in the order in which they were queued; `unsent_only`: of those alone of
    which it is not on record that they were sent; `category`: of these alone.

    Columns: message_id, category, site_id, person_id, role, channel, template, address_code, content_sha256,
    n_obligations; queued_on; state; n_attempts (tries since it was queued), last_attempt (the number of the last try
    under this id ever, 0: none), way (by which it was handed over last: smtp, folder, "" if never), sent_on (NaT: not
    yet), status (the last code that a mail server gave, or ""), queued_seq and queued_hash (of the row that queued it).

    state: queued (waits; with n_attempts a server has put it off), claimed (taken to be sent), uncertain, sent, failed
    (refused for good when it was handed over), delayed (sent; a server reports that it still tries), bounced (came back
    for good). Who looks while a message is being handed over sees it as uncertain.
    """
    view = events.select(as_of=as_of)
    queued = view.frame_among(MessageQueued, "category", [category]) if category else view.frame(MessageQueued)
    queued = queued.rename(columns={"occurred_on": "queued_on"})
    if unsent_only:
        sent_last = view.frame(MessageSent, ["message_id", "seq"]).groupby("message_id")["seq"].max()
        queued = queued[~(_look_up(queued, sent_last, 0) > queued["seq"])]

    if queued.empty:
        return _follow_none().copy()

    def list_steps(kind: type[MessageEvent]) -> pd.DataFrame:
        if not unsent_only and not category:
            return view.frame(kind)
        return view.frame_among(kind, "message_id", queued["message_id"])

    return _follow(queued, list_steps)


@lru_cache(maxsize=1)
def _follow_none() -> pd.DataFrame:
    """No messages, in the columns that they have: on most days nothing waits."""
    nothing = Events({})
    return _follow(nothing.frame(MessageQueued).rename(columns={"occurred_on": "queued_on"}), nothing.frame)


def _follow(queued: pd.DataFrame, list_steps: Callable[[type[MessageEvent]], pd.DataFrame]) -> pd.DataFrame:
    """What became of these messages by their steps, as `derive_messages` tells it."""
    messages = queued[[*QUEUED_COLUMNS, "queued_on"]].copy()
    messages["queued_seq"], messages["queued_hash"] = queued["seq"], queued["hash"]

    claimed = list_steps(MessageClaimed)
    messages["last_attempt"] = _look_up(messages, claimed.groupby("message_id")["attempt"].max(), 0)
    claimed = _since_queued(messages, claimed)
    messages["n_attempts"] = _look_up(messages, claimed.groupby("message_id")["attempt"].nunique(), 0)

    transmitting, sent, failed, resolved, bounced = (
        _since_queued(messages, list_steps(kind))
        for kind in (MessageTransmitting, MessageSent, MessageFailed, MessageResolved, MessageBounced)
    )
    messages["way"] = _look_up(messages, transmitting.groupby("message_id")["way"].last(), "")
    went = pd.concat([sent, resolved[resolved["outcome"] == "was_sent"]])
    messages["sent_on"] = _look_up(messages, went.groupby("message_id")["occurred_on"].min())
    told = pd.concat([failed, bounced]).sort_values("seq").drop_duplicates("message_id", keep="last")
    messages["status"] = _look_up(messages, told.set_index("message_id")["status"], "")

    last = messages[["message_id", "last_attempt"]].rename(columns={"last_attempt": "attempt"})
    ended = pd.concat([sent, failed, resolved])
    is_last = {
        name: is_in(messages["message_id"], last.merge(frame, on=["message_id", "attempt"])["message_id"])
        for name, frame in {
            "claimed": claimed,
            "transmitting": transmitting,
            "ended": ended,
            "failed": failed[failed["persistence"] == "permanent"],
        }.items()
    }
    came_back = {
        word: is_in(messages["message_id"], bounced.loc[bounced["persistence"] == word, "message_id"])
        for word in ("permanent", "temporary")
    }
    messages["state"] = "queued"
    for state, holds in (
        ("claimed", is_last["claimed"] & ~is_last["ended"]),
        ("uncertain", is_last["transmitting"] & ~is_last["ended"]),
        ("failed", is_last["failed"]),
        ("sent", messages["sent_on"].notna()),
        ("delayed", came_back["temporary"]),
        ("bounced", came_back["permanent"]),
    ):
        messages.loc[holds, "state"] = state
    return messages[MESSAGE_COLUMNS].reset_index(drop=True)


def _since_queued(messages: pd.DataFrame, steps: pd.DataFrame) -> pd.DataFrame:
    """The steps of messages that stand, without those of an earlier life of the same id."""
    since = messages.set_index("message_id")["queued_seq"].reindex(steps["message_id"])
    return steps[steps["seq"].to_numpy() > since.fillna(math.inf).to_numpy()]


def _look_up(messages: pd.DataFrame, values: pd.Series[Any], otherwise: Any = None) -> Any:
    """A value for each message, by its id; where there is none, `otherwise` (None: missing)."""
    found = values.reindex(messages["message_id"])
    return (found if otherwise is None else found.fillna(otherwise).astype(values.dtype)).to_numpy()


_ABOUT_ADDRESS = re.compile(r"5\.[0124]\.\d+|521|55[0136]|")


def is_about_address(status: str) -> bool:
    """Whether a code means that the address is wrong (RFC 3463: subjects 0, 1, 2 and 4), and not that this message, or
    our account, is not welcome. Without a code it is taken to be the address."""
    return _ABOUT_ADDRESS.fullmatch(status) is not None


def derive_addresses(events: Events) -> pd.DataFrame:
    """Addresses that a server refused for good, or to which mail is late: one row an address, by address_code.

    Columns: address_code, state ("stopped": nothing is written there any more, whatever came later; "delayed"), since
    (of the first permanent, or the first temporary report), status (its code), message_id.

    A refusal for now, when the message was handed over, says nothing about the address; nor does one for good whose
    code is about something else: a server that suddenly refuses our account would stop everybody for ever.
    """
    columns = ["address_code", "persistence", "occurred_on", "status", "message_id", "seq"]
    failed, bounced = events.frame(MessageFailed), events.frame(MessageBounced)
    told = pd.concat([failed.loc[failed["persistence"] == "permanent", columns], bounced[columns]])
    told = told[(told["persistence"] == "temporary") | told["status"].map(is_about_address).astype(bool)]
    first = told.sort_values(["persistence", "occurred_on", "seq"]).drop_duplicates("address_code")
    first = first.assign(state=first["persistence"].map({"permanent": "stopped", "temporary": "delayed"}))
    found = first.rename(columns={"occurred_on": "since"}).sort_values("address_code")
    return found[["address_code", "state", "since", "status", "message_id"]].reset_index(drop=True)


def find_stopped_addresses(events: Events) -> frozenset[str]:
    """Codes of addresses that are never written to again. A person whose address is corrected has another code."""
    addresses = derive_addresses(events)
    return frozenset(addresses.loc[addresses["state"] == "stopped", "address_code"])


def derive_replies(events: Events, as_of: date) -> pd.DataFrame:
    """Who answered: one row a reply, the oldest first.

    Columns: reply_code, received_on, site_id, message_id ("": to no message of ours), person_id ("": not known),
    is_automatic (an absence notice and the like), is_handled, handled_on (NaT: nobody has dealt with it).
    """
    view = events.select(as_of=as_of)
    replies = view.frame(ReplyReceived).rename(columns={"occurred_on": "received_on"})
    handled = view.frame(ReplyHandled).drop_duplicates("reply_code").set_index("reply_code")["occurred_on"]
    replies["handled_on"] = handled.reindex(replies["reply_code"]).to_numpy()
    replies["is_handled"] = replies["handled_on"].notna()
    columns = ["reply_code", "received_on", "site_id", "message_id", "person_id", "is_automatic"]
    return replies[[*columns, "is_handled", "handled_on"]].sort_values("received_on", kind="stable", ignore_index=True)


def find_message_codes(events: Events, study: str) -> dict[str, dict[str, str]]:
    """Every message that was ever queued, by its code: message_id, site_id, person_id, address_code.

    Those that were voided count too: mail that went out all the same may still come back.
    """
    table = events.tables.get(MessageQueued.kind)
    if table is None:
        return {}
    columns = ["message_id", "site_id", "person_id", "address_code"]
    return {compute_message_code(study, row["message_id"]): row for row in table.select(columns).to_pylist()}
