"""The contacts file of a study: names and addresses, kept outside the repository and outside the ledger."""

from __future__ import annotations

from study.contacts import Contacts, parse_contacts
from study.protocol import Study
from tasks.workspace import Workspace

_parsed: list[tuple[bytes, Study, Contacts]] = []  # the last file, which a round looks at many times


def load_contacts(workspace: Workspace) -> Contacts:
    """Who can be written to. Nobody, where the study has no contacts file yet.

    Raises `DefinitionFaults` with every fault of the file; none of them quotes an address or a name.
    """
    try:
        data = workspace.contacts_file.read_bytes()
    except FileNotFoundError:
        return Contacts(workspace.study.study_id)
    for known, study, contacts in _parsed:
        if known == data and study is workspace.study:
            return contacts
    contacts = parse_contacts(data, workspace.study)
    _parsed[:] = [(data, workspace.study, contacts)]
    return contacts
