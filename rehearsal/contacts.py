"""Made-up people at the sites of a rehearsal, so that what is sent has somebody to go to.

Their addresses end in `.invalid`, which no mail server delivers to, and their names say what they are.
"""

from __future__ import annotations

from collections.abc import Iterator

from study.contacts import CONTACTS_FILE, OFFICE, SITE_ROLES, list_roles
from study.protocol import Study
from tasks.workspace import Workspace


def write_contacts(workspace: Workspace) -> None:
    """Put the made-up people of a rehearsal into its own folder, in place of those before."""
    entries = [_describe(*person) for person in _list_people(workspace.study)]
    text = "# Made up for a rehearsal: none of these people exists.\n\n" + "\n".join(entries)
    (workspace.folder / CONTACTS_FILE).write_text(text, encoding="utf-8")


def _list_people(study: Study) -> Iterator[tuple[str, str, str, str]]:
    """person_id, role, site_id, body_id."""
    for role in list_roles(study):
        if role not in (*SITE_ROLES, OFFICE):
            yield role, role, "", ""
    for site in study.sites:
        for role in SITE_ROLES:
            yield f"{site.site_id}.{_shorten(role)}", role, site.site_id, ""
        for n, body in enumerate(site.bodies, start=1):
            yield f"{site.site_id}.office{n}", OFFICE, site.site_id, body.id


def _shorten(role: str) -> str:
    """The first letters of a role's words: a person_id has 40 characters, and a site's id may have most of them."""
    return "".join(word[0] for word in role.split("_"))


def _describe(person_id: str, role: str, site_id: str, body_id: str) -> str:
    lines = [
        "[[people]]",
        f'person_id = "{person_id}"',
        f'name = "Invented {role.replace("_", " ")}"',
        f'email = "{person_id}@rehearsal.invalid"',
        f'role = "{role}"',
    ]
    lines += [f'{name} = "{value}"' for name, value in (("site_id", site_id), ("body_id", body_id)) if value]
    return "\n".join(lines) + "\n"
