"""Which letter stands for which arm in blinded editions: drawn once, and kept sealed apart from the releases."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping

from cryptography.fernet import InvalidToken, MultiFernet

from study.calendar import london_day
from study.datasets import ReleaseFault
from study.events import ArmsUnmasked
from study.masking import assign_letters, find_telling_codes
from study.protocol import Study
from tasks.quarantine import QuarantineUnusable, open_cipher
from tasks.workspace import Workspace

SEALED = "sealed"
"""The folder of the study's files in which the letters are, encrypted; nothing of it is in a release."""


def draw_letters(workspace: Workspace, study: Study) -> Mapping[str, str]:
    """The letter of each arm, by arm: drawn by chance when first asked for, and the same ever after. Two runs at once
    get the same. Raises ReleaseFault without the key that seals them, where there is nothing to mask, and where a code
    of the protocol would tell an arm."""
    if len(study.arms) < 2:
        raise ReleaseFault([f"{study.study_id} has fewer than two arms, so there is nothing to mask."])
    if telling := find_telling_codes(study):
        raise ReleaseFault(
            [
                f"No edition of {study.study_id} can be blinded: a code of its protocol holds the name of an arm, and "
                f"every table has it. Rename it: {'; '.join(telling)}."
            ]
        )
    arms = sorted(arm.id for arm in study.arms)
    key = _find_key(arms)
    try:
        cipher = open_cipher(workspace.settings)
    except QuarantineUnusable:
        raise ReleaseFault(
            [
                "A blinded edition needs a key, which seals what each letter stands for: SUMMATIVE_QUARANTINE_KEY is "
                "not set, or is no key. Make one with summative held-files new-key and put it into the settings."
            ]
        ) from None
    if not workspace.area.has(key):
        drawn = list(arms)
        secrets.SystemRandom().shuffle(drawn)
        sealed = cipher.encrypt(json.dumps(assign_letters(drawn)).encode())
        workspace.area.put(key, sealed, if_absent=True)
    return _open(workspace, key, cipher)


def _open(workspace: Workspace, key: str, cipher: MultiFernet) -> dict[str, str]:
    try:
        letters: dict[str, str] = json.loads(cipher.decrypt(workspace.area.get(key)))
    except InvalidToken:
        raise ReleaseFault(
            [
                f"{workspace.area.place}/{key}: no key of the settings opens what the letters stand for. Add the key "
                "that it was sealed with to SUMMATIVE_QUARANTINE_KEY."
            ]
        ) from None
    return letters


def unmask_arms(
    workspace: Workspace, study: Study, release: str, *, reason: str, role: str, requested_by: str, reference: str = ""
) -> Mapping[str, str]:
    """What the letters of a blinded edition stand for, arm by letter, by a named role's decision.

    The decision is recorded before anything is given out. `study`: as the edition's configuration has it, with the
    arms' own names. The answer is for a terminal or a file that somebody asked for: nothing here is ever logged. Raises
    ReleaseFault where no letters were drawn for these arms, or no key opens them.
    """
    key = _find_key(sorted(arm.id for arm in study.arms))
    if not workspace.area.has(key):
        raise ReleaseFault([f"{workspace.name} has no letters for its arms: no blinded edition was frozen of it."])
    try:
        letters = _open(workspace, key, open_cipher(workspace.settings))
    except QuarantineUnusable as fault:
        raise ReleaseFault([f"{fault}, with which the letters were sealed."]) from None
    sealed = key.removeprefix(f"{SEALED}/").partition(".")[0]
    decided = workspace.read_events().frame(ArmsUnmasked)
    event = ArmsUnmasked.model_validate(
        {
            "occurred_on": london_day(workspace.clock()), "requested_by": requested_by, "sealed": sealed,
            "number": int((decided["sealed"] == sealed).sum()) + 1, "release": release, "reason": reason, "role": role,
            "reference": reference,
        }
    )  # fmt: skip
    workspace.ledger.append([event])
    return {letter: arm for arm, letter in sorted(letters.items(), key=lambda pair: (len(pair[1]), pair[1]))}


def _find_key(arm_ids: list[str]) -> str:
    """A study that gets other arms draws anew: no letter ever stands for two arms."""
    return f"{SEALED}/arms-{hashlib.sha256(json.dumps(arm_ids).encode()).hexdigest()[:12]}.json.sealed"
