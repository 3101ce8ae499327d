"""The pages of a study lead to each other, and to nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tasks.files import FolderArea
from tasks.page_links import PAGES, REPORT, link_pages
from tasks.pages import render_page

PAGE = b"<h1>%s</h1>\n<!-- pages --><!-- end of pages -->\n<main>Text</main>\n"


def put(area: FolderArea, *keys: str) -> None:
    for key in keys:
        area.put(key, PAGE % key.encode())


def read_links(area: FolderArea, key: str) -> list[str]:
    return re.findall(r'href="([^"]+)"', area.get(key).decode())


def test_each_page_leads_to_the_others_that_are_there(tmp_path: Path) -> None:
    area = FolderArea(tmp_path)
    put(area, "pages/approvals.html")
    link_pages(area)
    assert area.get("pages/approvals.html") == PAGE % b"pages/approvals.html", "no other page, no list of them"
    put(area, "pages/fieldwork.html", "pages/returns.html", REPORT)
    link_pages(area)
    assert read_links(area, "pages/approvals.html") == ["fieldwork.html", "returns.html", f"../{REPORT}"]
    assert read_links(area, "pages/returns.html") == ["approvals.html", "fieldwork.html", f"../{REPORT}"]
    assert "<main>Text</main>" in area.get("pages/returns.html").decode()
    for key in PAGES:
        for link in read_links(area, key) if area.has(key) else ():
            assert (tmp_path / "pages" / link).is_file()


def test_links_follow_what_is_there_and_are_not_doubled(tmp_path: Path) -> None:
    area = FolderArea(tmp_path)
    put(area, *PAGES)
    link_pages(area)
    first = area.get("pages/consent.html")
    written = (tmp_path / "pages/consent.html").stat().st_mtime_ns
    link_pages(area)
    assert (area.get("pages/consent.html"), (tmp_path / "pages/consent.html").stat().st_mtime_ns) == (first, written)
    area.delete("pages/release_plan.html")
    link_pages(area)
    assert "release_plan.html" not in area.get("pages/consent.html").decode()
    assert area.get("pages/consent.html").count(b"Other pages:") == 1


@pytest.mark.parametrize("name", ["approvals", "fieldwork", "consent", "returns", "release_plan", "psychometrics"])
def test_every_page_has_a_place_for_them(name: str) -> None:
    template = (Path(__file__).parents[1] / "templates/pages" / f"{name}.html.jinja").read_text(encoding="utf-8")
    assert template.count('{% include "page_links.jinja" %}') == 1
    assert render_page("page_links.jinja") == b"<!-- pages --><!-- end of pages -->\n"
