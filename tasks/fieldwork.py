"""The pages of the fieldwork: the coordinator's, the one of consent by site, and the one of returns and checks."""

from __future__ import annotations

from datetime import date, timedelta

import pyarrow as pa

from tasks.consent_page import write_consent_page
from tasks.fieldwork_page import DAYS_BACK, FIELDWORK_PAGE, write_fieldwork_page
from tasks.page_links import link_pages
from tasks.returns_page import RETURNS_PAGE, write_returns_page
from tasks.workspace import Workspace, read_study_of

CONSENT_PAGE = "pages/consent.html"


def write_fieldwork_pages(workspace: Workspace, as_of: date) -> None:
    """Write the pages of a day in the study's files; they replace those before."""
    if not workspace.writes_pages:
        return
    pa.default_memory_pool().release_unused()  # what deciding held for a while; pages need room of their own
    study, events, written_at = workspace.study, workspace.read_events(), workspace.clock()
    banner, name = workspace.banner, workspace.name
    study_then = read_study_of(workspace, as_of - timedelta(days=DAYS_BACK))
    page = write_fieldwork_page(study, events, as_of, written_at, banner, name, study_then)
    workspace.area.put(FIELDWORK_PAGE, page)
    page = write_consent_page(study=study, events=events, as_of=as_of, written_at=written_at, banner=banner, name=name)
    workspace.area.put(CONSENT_PAGE, page)
    page = write_returns_page(
        study=study,
        layout=workspace.layout,
        events=events,
        as_of=as_of,
        written_at=written_at,
        banner=banner,
        name=name,
    )
    workspace.area.put(RETURNS_PAGE, page)
    link_pages(workspace.area)
