"""The pages that come with a release: what they say, how they read on a phone, whether everyone can use them."""

import html
import json
import os
import re
import subprocess
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from study.instruments import Instrument
from tasks.definitions import load_instrument
from tasks.instrument_pages import write_instrument_page, write_sample_form
from tasks.pages import format_counted, format_list, format_moment_for_people, render_page, write_codebook_page
from tasks.releases import freeze_release
from tasks.workspace import Workspace
from tests.provide import find_axe, find_browser
from tests.releases import BY, MMSE, enrol, fill_study, open_study, send

DAY = date(2013, 3, 4)
PAGES = ("report", "codebook")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = open_study(tmp_path_factory.mktemp("study"))
    fill_study(workspace)
    long_name = "A VISIT WITH A NAME THAT NOBODY SHORTENED BEFORE IT WAS SENT TO US"
    send(workspace, "01-701-1015", long_name, date(2013, 1, 1), MMSE, posted_on=DAY, number=7)
    freeze_release(workspace, DAY, BY)
    return workspace


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = open_study(tmp_path_factory.mktemp("empty"), study_id="new")
    freeze_release(workspace, date(2012, 7, 1), BY)
    return workspace


def read_page(workspace: Workspace, page: str) -> str:
    return workspace.area.get(f"releases/latest/{page}.html").decode()


def read_text(page: str) -> str:
    """What a person reads: no tags, one space between words."""
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def read_tables(page: str) -> dict[str, list[list[str]]]:
    """Cells of every table, head and body, by the label of its region."""
    tables = {}
    for label, table in re.findall(r'aria-label="([^"]+)"><table>(.*?)</table>', page, flags=re.DOTALL):
        rows = re.findall(r"<tr.*?</tr>", table, flags=re.DOTALL)
        tables[html.unescape(label)] = [
            [read_text(cell) for cell in re.findall(r"<t[hd][ >].*?</t[hd]>", row, flags=re.DOTALL)] for row in rows
        ]
    return tables


def test_the_report_says_what_the_release_holds(workspace: Workspace) -> None:
    page = read_page(workspace, "report")
    text, tables = read_text(page), read_tables(page)
    assert "By 4 March 2013, 3 people were screened at 2 sites; 2 of them have been allocated to an arm" in text
    assert "4 questionnaires have been accepted. No query is open." in text
    assert (
        "1 person answered after the date on which their treatment ended (adverse event 1), and that person's" in text
    )
    assert "Nothing has been accepted yet of: Alzheimer's Disease Assessment Scale" in text
    assert "16 declared assumptions" in text
    attendance = tables["Attendance: Mini-Mental State Examination (MMSE)"]
    assert attendance[0] == ["Wave", "Placebo", "Xanomeline High Dose", "Xanomeline Low Dose", "All"]
    assert [row for row in attendance if len(row) == 1] == [["Scheduled"], ["At other times"]]
    assert attendance[2][1:] == ["1", "1", "0", "2"]
    rating = tables["Attendance: Clinician's Interview-Based Impression of Change with carer input (CIBIC+)"]
    assert [row[1:] for row in rating[2:5]] == [["0"] * 4] * 3  # scheduled, and nobody came
    dispositions = {row[0]: row[2:] for row in tables["Disposition by arm"]}
    assert dispositions["Adverse event"] == ["0", "1", "0", "0", "1"]
    assert dispositions["Death"] == ["0"] * 5
    assert dispositions["None recorded"] == ["1", "0", "0", "1", "2"]
    assert dispositions["All"] == ["1", "1", "0", "1", "3"]
    assert tables["Mini-Mental State Examination (MMSE), score: MMSE total"][3][1:] == [
        "27.00", "–", "1", "–", "–", "0", "–", "–", "0"
    ]  # fmt: skip
    missing = tables["Items by instrument, and why answers are missing"]
    assert missing[0] == ["Instrument", "Items", "Answered", "Refused"]
    assert missing[-1] == ["All", "19", "18", "1"]
    sites = tables["What came from each site"]
    assert sites[-1] == ["All", "3", "2", "4", "4", "0", "0", "0", "0"]


def test_a_count_adds_up_in_every_table(workspace: Workspace) -> None:
    for label, rows in read_tables(read_page(workspace, "report")).items():
        if label.startswith("Attendance") or label == "Disposition by arm":
            for row in rows[1:]:
                *counts, total = [int(cell) for cell in row[1:] if cell.isdecimal()] or [0]
                assert sum(counts) == total, (label, row)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("which", ["workspace", "empty"])
def test_no_table_is_empty_and_nothing_comes_from_outside(
    request: pytest.FixtureRequest, page: str, which: str
) -> None:
    text = read_page(request.getfixturevalue(which), page)
    for label, rows in read_tables(text).items():
        assert len(rows) > 1, label
    assert text.count("<table") == len(read_tables(text))
    assert not re.search(r"<(script|link|img|iframe)|https?://[^\s<]*\"", text)
    links = re.findall(r'href="([^"]+)"', text)
    ids = set(re.findall(r'id="([^"]+)"', text))
    for link in links:
        assert (
            link[1:] in ids
            if link.startswith("#")
            else request.getfixturevalue(which).area.has(f"releases/latest/{link}")
        ), link


def test_an_empty_study_says_so(empty: Workspace) -> None:
    text = read_text(read_page(empty, "report"))
    assert "By 1 July 2012, nobody has been screened. No questionnaire has been accepted. No query is open." in text
    assert "The protocol in force on 1 July 2012 uses no instrument yet." in text
    assert "Nothing has come from 1 of the study's 1 site" in text
    assert "This protocol uses no instrument yet. Planned: ICECAP-A" in read_text(read_page(empty, "codebook"))


def test_labels_are_shown_as_they_are(tmp_path: Path) -> None:
    workspace = open_study(tmp_path)
    protocol = workspace.settings.sites_config / "cdisc_pilot" / "study.toml"
    protocol.write_text(protocol.read_text().replace('label = "Placebo"', 'label = "<b>Placebo & Ø</b>"'))
    from tasks.workspace import adopt_configuration

    adopt_configuration(workspace, date(2012, 7, 1), BY)
    enrol(workspace, "01-701-1015", "placebo", on=date(2012, 7, 1))
    freeze_release(workspace, date(2012, 7, 1), BY)
    assert "&lt;b&gt;Placebo &amp; Ø&lt;/b&gt;" in read_page(workspace, "report")


def test_items_say_once_what_they_share() -> None:
    item: dict[str, Any] = {
        "label": "L",
        "missing_codes": {"-9": "not_answered"},
        "asked_if": "",
        "minimum": 0.0,
        "maximum": 1.0,
    }
    more_codes = {**item["missing_codes"], "96": "not_applicable"}
    instrument = {
        "id": "i", "title": "I", "version": "1", "citation": "C.", "licence": "L.", "respondents": ["self"],
        "forms": ["easy_read"], "scales": [], "value_sets": [],
        "items": [
            {**item, "item": "a", "levels": {"0": "no", "1": "yes"}},
            {**item, "item": "b", "levels": {"0": "0", "1": "1"}, "missing_codes": more_codes},
            {**item, "item": "c", "levels": {"0": "0", "2": "2"}, "maximum": 2.0},
        ],
    }  # fmt: skip
    codebook = {
        "title": "T", "protocol_version": "1", "tables": [], "codes": {}, "accepts_unscheduled": False,
        "assumptions": [], "planned_instruments": [], "instruments": [instrument],
    }  # fmt: skip
    text = read_text(write_codebook_page(codebook).decode())
    assert text.count("-9 = not answered") == 1
    assert "a L 0 = no; 1 = yes b L 0 to 1 96 = not applicable c L 0 = 0; 2 = 2" in text
    assert "Forms: easy-read." in text


def test_a_value_that_nobody_gave_is_a_fault() -> None:
    import jinja2

    with pytest.raises(jinja2.UndefinedError):
        render_page("codebook.html.jinja", title="T")


@pytest.mark.parametrize(("n", "text"), [(0, "0 people"), (1, "1 person"), (2, "2 people"), (1234, "1,234 people")])
def test_counted(n: int, text: str) -> None:
    assert format_counted(n, "person", "people") == text
    assert format_counted(n, "site").endswith("site" if n == 1 else "sites")


@pytest.mark.parametrize(
    ("words", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (list("abc"), "a, b and c")]
)
def test_listed(words: list[str], text: str) -> None:
    assert format_list(words) == text


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        ("2015-03-29T00:59:59+00:00", "29 March 2015 at 00:59"),
        ("2015-03-29T01:00:00+00:00", "29 March 2015 at 02:00"),  # clocks go forward
        ("2015-10-25T01:00:00+00:00", "25 October 2015 at 01:00"),  # and back
        ("2016-02-29T23:30:00+00:00", "29 February 2016 at 23:30"),
    ],
)
def test_moments_are_london_time(moment: str, text: str) -> None:
    from datetime import datetime

    assert format_moment_for_people(datetime.fromisoformat(moment)) == text


# In a browser -------------------------------------------------------------------------------------------------------

# The page stands in two frames, as wide as a desktop and as a phone; the script judges both and writes what it found.
_HOST = """<!doctype html><html lang="en"><head><title>t</title></head><body>
<pre id="found"></pre><script>
const page = PAGE, found = {};
async function look(width) {
  const frame = document.createElement("iframe");
  frame.width = width; frame.height = 900; frame.srcdoc = page;
  const loaded = new Promise(resolve => frame.onload = resolve);
  document.body.append(frame);
  await loaded;
  const inside = frame.contentWindow, root = inside.document.documentElement;
  inside.document.querySelectorAll("details").forEach(part => part.open = true);
  const axe = inside.document.createElement("script");
  axe.textContent = AXE;
  inside.document.head.append(axe);
  const judged = await inside.axe.run();
  found[width] = {
    width: root.scrollWidth,
    violations: judged.violations.map(entry => [entry.id, entry.nodes.map(node => node.html.slice(0, 200))]),
    passes: judged.passes.length,
  };
}
look(1280).then(() => look(375)).then(() => {
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script></body></html>"""


@pytest.fixture(scope="module")
def browser() -> Path:
    """A Chromium; skips for a person without one, fails where the whole must be shown (CI)."""
    found, axe = find_browser(), find_axe()
    if found is None or axe is None:
        lacking = "Chromium (apt-get install chromium)" if found is None else "axe-core"
        reason = f"Not on this machine: {lacking}. `python -m tests.provide` fetches it or says how."
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return found


def look_at(browser: Path, page: str, folder: Path) -> dict[str, dict[str, object]]:
    axe = find_axe()
    assert axe is not None

    def quote(text: str) -> str:
        return json.dumps(text).replace("</", "<\\/")

    host = folder / "host.html"
    parts = _HOST.replace("PAGE", "\0page\0").replace("AXE", "\0axe\0")
    host.write_text(parts.replace("\0page\0", quote(page)).replace("\0axe\0", quote(axe.read_text("utf-8"))), "utf-8")
    command = [
        str(browser), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=60000",
        "--timeout=60000", "--dump-dom", host.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert found is not None, done.stderr[-2000:]
    assert found[1], done.stderr[-2000:]
    judged: dict[str, dict[str, object]] = json.loads(html.unescape(found[1]))
    return judged


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("which", ["workspace", "empty"])
def test_everyone_can_use_the_page_and_it_fits_a_phone(
    request: pytest.FixtureRequest, browser: Path, tmp_path: Path, page: str, which: str
) -> None:
    judged = look_at(browser, read_page(request.getfixturevalue(which), page), tmp_path)
    for width in ("1280", "375"):
        assert judged[width]["violations"] == []
        assert judged[width]["width"] <= int(width)  # no scrolling sideways: wide tables scroll in their own frame
        assert judged[width]["passes"] > 10


@pytest.mark.parametrize("write", [write_instrument_page, write_sample_form])
@pytest.mark.parametrize("name", ["eq5d5l", "ascs", "sociodemographics", "dad"])
def test_everyone_can_use_the_pages_of_an_instrument(
    browser: Path, tmp_path: Path, name: str, write: Callable[[Instrument], bytes]
) -> None:
    judged = look_at(browser, write(load_instrument(name)).decode(), tmp_path)
    for width in ("1280", "375"):
        assert judged[width]["violations"] == []
        assert judged[width]["width"] <= int(width)
        assert judged[width]["passes"] > 10


def test_the_browser_finds_what_is_wrong(browser: Path, tmp_path: Path) -> None:
    body = '<img src="x"><p style="width:900px">x</p>'
    page = f"<!doctype html><html><head><title>t</title></head><body>{body}</body></html>"
    judged = look_at(browser, page, tmp_path)["375"]
    assert judged["width"] >= 900
    assert {"image-alt", "html-has-lang"} <= {entry[0] for entry in judged["violations"]}
