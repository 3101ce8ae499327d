"""Links between a study's pages: each leads to the others that are there, wherever the folder is put."""

from __future__ import annotations

import html
import re

from tasks.files import FileArea

PAGES = {
    "pages/approvals.html": "Approvals",
    "pages/fieldwork.html": "Fieldwork",
    "pages/consent.html": "Consent",
    "pages/returns.html": "Returns and checks",
    "pages/release_plan.html": "What would go out",
    "pages/instruments.html": "Instruments",
    "pages/attrition.html": "Attrition",
}
REPORT = "releases/latest/report.html"
_MARKED = re.compile(rb"<!-- pages -->.*?<!-- end of pages -->", re.DOTALL)


def link_pages(area: FileArea) -> None:
    """Write into each page of a study where the others are, those and no more that are there; what is so already stays.

    Pages are written one by one, some each day and some on demand, so that none knows when it is written which others
    there will be. A page has a place for the links, `page_links.jinja`.
    """
    there = [key for key in PAGES if area.has(key)]
    links = [(key, PAGES[key], key.removeprefix("pages/")) for key in there]
    if area.has(REPORT):
        links.append((REPORT, "Newest release", f"../{REPORT}"))
    for page in there:
        before = area.get(page)
        others = "".join(
            f'<li><a href="{href}">{html.escape(words)}</a></li>\n' for key, words, href in links if key != page
        )
        nav = f'<nav aria-label="Other pages"><ul>\n<li>Other pages:</li>\n{others}</ul></nav>' if others else ""
        after = _MARKED.sub(f"<!-- pages -->{nav}<!-- end of pages -->".encode(), before, count=1)
        if after != before:
            area.put(page, after)
