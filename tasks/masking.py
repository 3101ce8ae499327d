"""Which letter stands for which arm in blinded editions: drawn once, and kept sealed apart from the releases."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping

from cryptography.fernet import InvalidToken

from study.datasets import ReleaseFault
from study.masking import assign_letters
from study.protocol import Study
from tasks.quarantine import QuarantineUnusable, open_cipher
from tasks.workspace import Workspace

SEALED = "sealed"
"""The folder of the study's files in which the letters are, encrypted; nothing of it is in a release."""


def draw_letters(workspace: Workspace, study: Study) -> Mapping[str, str]:
    """The letter of each arm, by arm: drawn by chance when first asked for, and the same ever after. Two runs at once
    get the same. Raises ReleaseFault without the key that seals them, or where there is nothing to mask."""
    if len(study.arms) < 2:
        raise ReleaseFault([f"{study.study_id} has fewer than two arms, so there is nothing to mask."])
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


def _find_key(arm_ids: list[str]) -> str:
    """A study that gets other arms draws anew: no letter ever stands for two arms."""
    return f"{SEALED}/arms-{hashlib.sha256(json.dumps(arm_ids).encode()).hexdigest()[:12]}.json.sealed"
