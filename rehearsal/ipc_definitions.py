"""The definitions that a rehearsal of IPC runs by: the study's own, marked so that nothing of it is taken for real.

Every page, workbook, letter and release shows the study's title, and every invented person has an identifier; both say
so. Identifiers have an X where real ones have a P: neither study takes the other's people. Everything else is as the
study has it, but for the version of the consent form that the story's modification brings.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tasks.settings import Settings
from tasks.workspace import OWN_DEFINITIONS

MARK = "Rehearsal with invented people"
# file: (what stands there, what takes its place)
_CHANGES: dict[str, tuple[tuple[str, str], ...]] = {
    "study.toml": (
        (r'^title = "(.*)"$', rf'title = "{MARK}: \1"'),
        (r"^participant_id_pattern = '(.*)-P(.*)'$", r"participant_id_pattern = '\1-X\2'"),
        (r'^participant_id_example = "(\w+)-P(\d+)"$', r'participant_id_example = "\1-X\2"'),
        (
            r'^\[\[consent_forms\]\]\nversion = "1\.0"\nlabel = "(.*)1\.0"\n((?:.+\n)+)',
            "".join(f'[[consent_forms]]\nversion = "{v}"\nlabel = "\\g<1>{v}"\n\\g<2>\n' for v in ("1.0", "1.1")),
        ),
    ),
    "fieldwork.toml": ((r'^form = "\{code\}-P', 'form = "{code}-X'),),
}


def write_definitions(settings: Settings, study_id: str, name: str) -> None:
    """Put the marked definitions into the rehearsal's folder, if it has none yet: what has begun goes on by its own.

    Raises ValueError where the study's files no longer hold what the marks replace.
    """
    folder = settings.data_folder / name / OWN_DEFINITIONS / study_id
    if folder.is_dir():
        return
    unfinished = folder.with_name(f"{study_id}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(settings.sites_config / study_id, unfinished)
    for file, changes in _CHANGES.items():
        _mark(unfinished / file, changes)
    unfinished.rename(folder)


def _mark(path: Path, changes: tuple[tuple[str, str], ...]) -> None:
    text = path.read_text(encoding="utf-8")
    for pattern, replacement in changes:
        text, n_found = re.subn(pattern, replacement, text, count=1, flags=re.MULTILINE)
        if not n_found:
            raise ValueError(f"{path.name}: nothing there fits {pattern}, so the rehearsal cannot be marked. Mend it.")
    path.write_text(text, encoding="utf-8")
