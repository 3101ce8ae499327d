"""The contacts file of a study: names and addresses, kept outside the repository and outside the ledger."""

from __future__ import annotations

from study.contacts import Contacts, parse_contacts
from tasks.workspace import Workspace


def load_contacts(workspace: Workspace) -> Contacts:
    """Who can be written to. Nobody, where the study has no contacts file yet.

    Raises `DefinitionFaults` with every fault of the file; none of them quotes an address or a name.
    """
    try:
        data = workspace.contacts_file.read_bytes()
    except FileNotFoundError:
        return Contacts(workspace.study.study_id)
    return parse_contacts(data, workspace.study)
