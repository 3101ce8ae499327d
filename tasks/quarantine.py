"""Held files: keep one encrypted or not at all, and carry out what a person decides about it.

Encryption is Fernet of the library `cryptography` (AES-128 in CBC mode with HMAC-SHA-256). The key is in the settings
and in nothing that is kept. A copy lies under `held/` of the study's files, named by site and by the hash of the file
as it came; the name that the site gave the file is kept nowhere.

A decision is recorded first and carried out afterwards, so that a killed run is finished by the same command: a file
that was released is received, then its copy goes; of one that was erased the copy goes, older versions in a bucket too.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import pandas as pd

from study.calendar import london_day
from study.events import (
    DataErased,
    Event,
    FileHeld,
    HeldFileDecided,
    QueryClosed,
    ReturnFileProcessed,
    Voided,
)
from study.held_files import derive_held_files, derive_held_id
from study.identifier_scan import count_kinds
from study.protocol import Study
from study.returns import MOST_TOLD, Decision, find_processed_file
from study.state import derive_queries
from tasks.files import AreaUnavailable
from tasks.ledger import LedgerRefused
from tasks.settings import Settings
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

FOLDER = "held"


class QuarantineUnusable(AreaUnavailable):
    """No key, or the wrong one. The text: place, fault, next step; it shows nothing of the key."""


class HeldFileRefused(LedgerRefused):
    """Why nothing is decided about a held file, in one sentence."""


@dataclass(frozen=True)
class Decided:
    """What became of a decision: new, or made before; how many copies went."""

    is_new: bool
    n_deleted: int = 0


def make_key() -> str:
    """A new key, as the setting takes it."""
    from cryptography.fernet import Fernet  # it takes 0.1 s, which no command without held files should pay

    return Fernet.generate_key().decode()


def open_cipher(settings: Settings) -> MultiFernet:
    """What encrypts with the first key of the settings and decrypts with any. Raises QuarantineUnusable."""
    from cryptography.fernet import Fernet, MultiFernet

    keys = [key.strip() for key in settings.quarantine_key.get_secret_value().split(",") if key.strip()]
    if not keys:
        raise QuarantineUnusable(
            "SUMMATIVE_QUARANTINE_KEY: it is not set, and this study keeps held files encrypted. Make one with "
            "summative held-files new-key and put it into the settings"
        )
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except ValueError:
        raise QuarantineUnusable(
            "SUMMATIVE_QUARANTINE_KEY: it is no key. Make one with summative held-files new-key"
        ) from None


def find_key_faults(study: Study, settings: Settings) -> list[str]:
    """What is wrong with the key, where the study needs one."""
    if not study.fieldwork.keeps_held_files:
        return []
    try:
        open_cipher(settings)
    except QuarantineUnusable as fault:
        return [f"{fault}."]
    return []


def keep_held_file(workspace: Workspace, site_id: str, data: bytes) -> str:
    """Keep a file as the study says: "encrypted" or "nothing". Raises QuarantineUnusable, and keeps nothing."""
    if not workspace.study.fieldwork.keeps_held_files:
        return "nothing"
    sha256 = hashlib.sha256(data).hexdigest()
    workspace.area.put(_find_key(site_id, sha256), open_cipher(workspace.settings).encrypt(data))
    return "encrypted"


def read_held_file(workspace: Workspace, site_id: str, sha256: str) -> bytes:
    """A held file as it came. Raises FileMissing, and QuarantineUnusable for another key than it was encrypted with."""
    from cryptography.fernet import InvalidToken

    try:
        data = open_cipher(workspace.settings).decrypt(workspace.area.get(_find_key(site_id, sha256)))
    except InvalidToken:
        raise QuarantineUnusable(
            "SUMMATIVE_QUARANTINE_KEY: this file was encrypted with another key, or altered. Add the key that was in "
            "force then, after a comma"
        ) from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise QuarantineUnusable(f"{FOLDER}: the copy {sha256[:12]} is not the file that was held. Erase it")
    return data


def _find_key(site_id: str, sha256: str) -> str:
    return f"{FOLDER}/{site_id}/{sha256}.encrypted"


def derive_held_event(
    decision: Decision, kept: str, n_already: int, query_id: str, today: date, requested_by: str
) -> Event:
    """The row that says that a file is held; `n_already`: held files of its site so far."""
    facts, sending = decision.facts, decision.sending
    return FileHeld(
        occurred_on=today, requested_by=requested_by, site_id=facts.site_id, sha256=facts.sha256,
        held_id=derive_held_id(facts.site_id, n_already), size_bytes=facts.size_bytes, kept=kept,
        return_id=sending.return_id if sending else "", identifiers=tuple(count_kinds(decision.places)),
        places=tuple(place.code for place in decision.places[:MOST_TOLD]), n_places=len(decision.places),
        query_id=query_id,
    )  # fmt: skip


def find_held_file(workspace: Workspace, held_id: str) -> pd.Series:
    """One row of `derive_held_files`. Raises HeldFileRefused for a number that there is not."""
    held = derive_held_files(workspace.read_events())
    own = held[held["held_id"] == held_id]
    if own.empty:
        raise HeldFileRefused(
            f"{workspace.name} has no held file {held_id}. See them with: summative held-files list {workspace.name}"
        )
    return own.iloc[0]


def record_decision(
    workspace: Workspace, held_id: str, decision: str, *, reason: str, role: str, reference: str, requested_by: str
) -> bool:
    """Record what a person decided about a held file; False where the same was decided before.

    With a release the row that says that the file was dealt with is voided, so that it can be received, and the query
    about it is withdrawn; an erased file is still owed, so its query goes on until the site has sent another. Raises
    HeldFileRefused where it was decided otherwise.
    """
    today = london_day(workspace.clock())
    while True:
        held = find_held_file(workspace, held_id)
        if held["state"] == decision:
            return False
        if held["state"] != "waiting":
            raise HeldFileRefused(f"{held_id} was {held['state']} on {held['decided_on']:%d %b %Y}: that stands.")
        events = workspace.read_events()
        site_id, sha256 = str(held["site_id"]), str(held["sha256"])
        common = {"occurred_on": today, "requested_by": requested_by, "site_id": site_id}
        told: list[Event] = [
            HeldFileDecided(**common, held_id=held_id, decision=decision, reason=reason, role=role, reference=reference)
        ]
        if decision == "released":
            processed = events.frame(ReturnFileProcessed)
            own = processed[(processed["site_id"] == site_id) & (processed["sha256"] == sha256)]
            told += [Voided(**common, voids=row, reason="superseded") for row in own["hash"]]
            queries = derive_queries(events)
            is_open = (queries["query_id"] == held["query_id"]) & (queries["status"] == "open")
            told += [
                QueryClosed(**common, query_id=query_id, reason="withdrawn")
                for query_id in queries.loc[is_open, "query_id"]
            ]
        elif held["kept"] == "encrypted" and sha256 not in set(events.frame(DataErased)["sha256"]):
            told.append(
                DataErased(
                    occurred_on=today,
                    requested_by=requested_by,
                    site_id=site_id,
                    sha256=sha256,
                    reason="identifier_leak",
                    role=role,
                    reference=reference or held_id,
                )
            )
        with workspace.ledger.writing() as writing:
            if writing.newest_seq(site_ids=[site_id]) <= events.head.seq:
                writing.append(told)
                return True


def erase_held_file(
    workspace: Workspace, held_id: str, *, reason: str, role: str, reference: str, requested_by: str
) -> Decided:
    """Record that a held file is erased, with a tombstone where a copy was kept, and delete the copy."""
    is_new = record_decision(
        workspace, held_id, "erased", reason=reason, role=role, reference=reference, requested_by=requested_by
    )
    return Decided(is_new, remove_decided_copies(workspace))


def remove_decided_copies(workspace: Workspace) -> int:
    """Delete the copies that are not waited for any more, or that a killed run left without a row; how many.

    A copy of a released file stays until the file was received. Under the write lock, since a run keeps a copy right
    before it records it.
    """
    with workspace.ledger.writing():
        stored = [entry.key for entry in workspace.area.list(f"{FOLDER}/")]
        if not stored:
            return 0
        events = workspace.read_events()
        wanted = set()
        for row in derive_held_files(events).to_dict("records"):
            is_received = find_processed_file(events, row["site_id"], row["sha256"]) is not None
            if row["state"] == "waiting" or (row["state"] == "released" and not is_received):
                wanted.add(_find_key(row["site_id"], row["sha256"]))
        going = [key for key in stored if key not in wanted]
        for key in going:
            workspace.area.erase(key)
    return len(going)
