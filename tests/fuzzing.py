"""Ways to spoil the files that arrive, and what must hold of whatever is read from them.

Whatever a spoilt file yields is what the sound one would have yielded, or what its changed cells plainly say, or it is
reported; nothing crashes, and nothing takes longer than `LONGEST` seconds. One study, on one day, decides on each file.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from xml.sax.saxutils import escape

import pandas as pd

from study.identifier_scan import Scanner
from study.incidents import SiteGate
from study.returns import Decision, FileFacts, Standing
from tasks.flat_exports import load_source, read_export
from tasks.identifier_search import find_identifiers, make_scanner
from tasks.returns import Received, _decide, take_snapshot
from tasks.workbook_inspection import WorkbookUnreadable, inspect_package
from tasks.workbooks import read_return_workbook
from tasks.workspace import Workspace
from tests.return_workbooks import list_parts, rezip
from tests.test_bad_input import ANN, BEN, CAT, SITE, TODAY, mmse, open_post

LONGEST = 5.0
Row = tuple[str, int]
Taken = dict[Row, tuple[tuple[object, ...], dict[str, tuple[float | None, str]]]]
"""What is accepted, by sheet and row: the record it is, and by item the answer or why there is none."""


@dataclass
class Yield:
    """What became of a file: records and log entries that are accepted, and the places about which something is told.
    `is_read`: False for a file that is put aside, or held, as a whole."""

    records: Taken = field(default_factory=dict)
    entries: list[str] = field(default_factory=list)
    told: set[Row] = field(default_factory=set)
    is_read: bool = False


class Study:
    """A day on which a file is decided on, again and again; nothing is recorded."""

    def __init__(self, folder: Path) -> None:
        self.post = open_post(folder, largest_return_mb=50)
        self.post.begin()
        self.workspace: Workspace = self.post.workspace
        snapshot = take_snapshot(self.workspace, afresh=True)
        self.standing: Standing = snapshot.find_standing(SITE)
        self.gate: SiteGate = snapshot.find_gate(self.workspace.study, SITE, TODAY)
        self.scanner: Scanner = make_scanner(self.workspace.study, TODAY)

    def make_return(self) -> bytes:
        """Three questionnaires of one instrument, one of another, and two entries of a log."""
        keys = mmse(BEN)[["participant_id", "respondent", "form", "wave", "collected_on"]]
        hachinski = keys.assign(**{item.id: 0.0 for item in self.workspace.instruments["hachinski"].items})
        allocation = pd.DataFrame(
            {"participant_id": [ANN, BEN], "arm": ["placebo", "low_dose"], "allocated_on": date(2013, 2, 12)}
        )
        return self.post.make({"allocation": allocation, "mmse": mmse(ANN, BEN, CAT), "hachinski": hachinski})

    def decide(self, data: bytes) -> Yield:
        """What becomes of a file, by the same steps as in an inbox."""
        started = time.process_time()
        found = self._decide(data)
        assert time.process_time() - started < LONGEST
        return found

    def _decide(self, data: bytes) -> Yield:
        facts = FileFacts(hashlib.sha256(data).hexdigest(), len(data), SITE)
        try:
            package = inspect_package(data)
        except WorkbookUnreadable:
            find_identifiers(data, None, "return.xlsx", self.workspace.layout, self.scanner)
            return Yield()
        if find_identifiers(data, package, "return.xlsx", self.workspace.layout, self.scanner):
            return Yield()
        try:
            reading = read_return_workbook(package, self.workspace.layout, site_id=SITE)
        except WorkbookUnreadable:
            return Yield()
        received = Received("return.xlsx", facts, reading)
        return _list_taken(_decide(self.workspace, received, self.standing, self.gate, "A. Tester"))


def _list_taken(decision: Decision) -> Yield:
    found = Yield(is_read=not decision.quarantine_rule)
    for record in decision.records:
        if record.outcome in ("accepted", "superseding", "quarantined"):
            answers = {
                str(item): (None if math.isnan(value) else float(value), str(reason))
                for item, value, reason in zip(record.items, record.responses, record.reasons, strict=True)
            }
            place = (record.key.instrument, record.row)
            found.records[place] = ((*record.key, record.form, record.collected_on), answers)
    found.entries = sorted(
        f"{event.kind} {event.occurred_on} {event.encode_payload()}" for event in decision.log_events
    )
    for fault in decision.faults:
        found.told |= {(fault.sheet, fault.row)}
    return found


def check_whole(before: Yield, after: Yield) -> None:
    """Of a file whose cells nobody changed: all that it yields was there before; if anything is gone, that is told."""
    for place, record in after.records.items():
        assert record in before.records.values(), f"{place} was never told"
    assert set(after.entries) <= set(before.entries)
    is_all_there = len(after.records) == len(before.records) and after.entries == before.entries
    assert is_all_there or not after.is_read or after.told, "something is gone, and nobody is told"


# --- Bytes ------------------------------------------------------------------------------------------------------------


def spoil_bytes(data: bytes, rng: random.Random) -> bytes:
    """A few changes as disks, networks and people make them."""
    spoilt = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5, 20])):
        place, size = rng.randrange(len(spoilt) + 1), rng.choice([1, 1, 2, 4, 30, 500])
        if rng.random() < 0.3:  # the directory at the end of a zip
            place = max(len(spoilt) - rng.randrange(1, 1_500), 0)
        way = rng.randrange(7)
        if way == 0:
            spoilt[place : place + size] = rng.randbytes(size)
        elif way == 1:
            del spoilt[place : place + size]
        elif way == 2:
            spoilt[place:place] = spoilt[place : place + size]
        elif way == 3:
            spoilt[place : place + size] = bytes(size)
        elif way == 4 and place < len(spoilt):
            spoilt[place] ^= 1 << rng.randrange(8)
        elif way == 5:
            other = rng.randrange(len(spoilt) + 1)
            spoilt[place : place + size], spoilt[other : other + size] = (
                spoilt[other : other + size],
                spoilt[place : place + size],
            )
        else:
            del spoilt[max(place, 1) :]
        if not spoilt:
            return b"PK"
    return bytes(spoilt)


SNIPPETS = [
    b'<c r="A1">', b"</c>", b"<row>", b"</row>", b'r="XFD1048576"', b't="s"', b't="e"', b't="d"', b"<v>99999999</v>",
    b"<f>", b"<f/>", b"<x:c>", b'ref="A1:XFD1048576"', b'<mergeCell ref="A3:H9"/>', b"&#0;", b"&amp;", b"\xff\xfe",
    b"<![CDATA[", b"]]>", b"<!--", b"-->", b'r="0"', b'r="99999999999999"', b"<v>1e999</v>", b"<v>NaN</v>", b"\x00",
]  # fmt: skip


def spoil_xml(data: bytes, rng: random.Random) -> bytes:
    """A change within a part, put together again as a whole zip: its values may be others then."""
    parts = list_parts(data)
    name = rng.choice(sorted(name for name in parts if name.endswith((".xml", ".rels"))))
    xml = parts[name]
    for _ in range(rng.choice([1, 1, 2, 6])):
        place, n_cut = rng.randrange(len(xml) + 1), rng.choice([0, 1, 7, 40, 900])
        put = rng.choice(SNIPPETS) if rng.random() < 0.7 else rng.randbytes(rng.randrange(6))
        if rng.random() < 0.3 and (tags := list(re.finditer(rb"<[^>]+>", xml))):
            tag = rng.choice(tags)
            place, n_cut = tag.start(), len(tag[0])
            put = rng.choice([b"", tag[0] * 2, put])
        xml = xml[:place] + put + xml[place + n_cut :]
    return rezip(parts | {name: xml})


# --- Cells ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Typed:
    """What somebody types into a cell, as XML, and what it plainly is: an answer, a day, a text; else None."""

    xml: str
    answer: float | None = None
    day: date | None = None
    says: str | None = None
    is_blank: bool = False


def _string(text: str, **plainly: object) -> Typed:
    xml = f't="inlineStr"><is><t xml:space="preserve">{escape(text)}</t></is></c>'
    return Typed(xml, **plainly)  # type: ignore[arg-type]  # of tests


def _number(number: float, **plainly: object) -> Typed:
    return Typed(f"><v>{number!r}</v></c>", answer=float(number), **plainly)  # type: ignore[arg-type]  # of tests


_NOTHING = (
    "n/a", "-", "x", "\u2713", "4,5", "4;5", "1/2", "3 - severe", "four", "4.", ".4", "1e0", "\u00bd", "nan", "inf",
    "0x4", "1_0", "\u0664", "28/02/13", "02/28/2013", "31/02/2013", "=1+1", "#REF!", "--", "a" * 40,
)  # fmt: skip
_DAYS = ("16/02/2013", "2013-02-16", "16 Feb 2013", "16th February 2013", "2013-02-16T23:59:59Z")
_TEXTS = (
    ANN, f" {BEN}\u00a0", f"{CAT}\u200b", "01-702-9999", "01-706-1001", "self", "carer", "SELF", "standard",
    "easy_read", "screening", "baseline", "week_8",
)  # fmt: skip
TYPED = (
    *(_string(text) for text in _NOTHING),
    *(_string(text, is_blank=True) for text in ("", " ", "\u00a0", "\u200b", "\u3000\t")),
    *(_string(str(n), answer=float(n)) for n in (0, 3, 5, 9, 77, -9, -8)),
    *(_string(text, answer=4.0) for text in ("4.0", " 4\u00a0", "\uff14", "+4")),
    *(_number(n) for n in (0, 1, 3, 5, 9, 77, -9, -7, 3.5, 1e15, -1e300, 5e-324)),
    _number(41_321, day=date(2013, 2, 16)), _number(41_321.75, day=date(2013, 2, 16)), _number(99_999),
    *(_string(text, day=date(2013, 2, 16)) for text in _DAYS),
    _string("16/02/2113"), _string("28/02/2013", day=date(2013, 2, 28)), _string("01/04/2013"),
    *(_string(text, says=text.strip(" \u200b\u00a0")) for text in _TEXTS),
    Typed('t="b"><v>1</v></c>'), Typed('t="e"><v>#REF!</v></c>'), Typed("><f>2+2</f><v>4</v></c>"),
    Typed('t="str"><f>"4"</f><v>4</v></c>'), Typed('t="d"><v>2013-02-16</v></c>', day=date(2013, 2, 16)),
    Typed('t="s"><v>99999</v></c>'), Typed('t="n"><v></v></c>', is_blank=True), Typed("/>", is_blank=True),
)  # fmt: skip
_CELL = r'<c r="%s"[^>]*?(?:/>|>.*?</c>)'
_KEYS = {"A": 0, "B": 1, "C": 4, "D": 2}  # where the columns of a record stand in its key


@dataclass(frozen=True)
class Edit:
    """A cell of the questionnaire MMSE, and what is typed there."""

    row: int
    column: str
    typed: Typed

    @property
    def cell(self) -> str:
        return f"{self.column}{self.row}"


def draw_edits(rng: random.Random) -> list[Edit]:
    """Up to four cells of the three questionnaires of `Study.make_return`."""
    cells = rng.sample([(row, column) for row in (3, 4, 5) for column in "ABCDEFGHIJK"], rng.randrange(1, 5))
    return [Edit(row, column, rng.choice(TYPED)) for row, column in cells]


def type_cells(data: bytes, edits: Sequence[Edit], part: str) -> bytes:
    parts = list_parts(data)
    xml = parts[part].decode()
    for edit in edits:
        put = f'<c r="{edit.cell}" {edit.typed.xml}'
        there = re.search(_CELL % edit.cell, xml, flags=re.DOTALL)
        assert there, f"{edit.cell} is not in the file"
        xml = xml[: there.start()] + put + xml[there.end() :]
    return rezip(parts | {part: xml.encode()})


def check_edits(before: Yield, after: Yield, edits: Sequence[Edit], items: Sequence[str]) -> None:
    """Rows that nobody touched are as they were; a touched one says what was typed, or is told about, or is not taken
    and told about."""
    if not after.is_read:
        return
    touched = {("mmse", edit.row) for edit in edits}
    told_whole = {sheet for sheet, row in after.told if not row}
    told = after.told | {place for place in before.records if place[0] in told_whole}
    people = [after.records[place][0][0] for place in after.records if place[0] == "mmse"]
    for place, record in before.records.items():
        if place not in touched and place not in after.records:
            assert place in told or record in after.records.values(), f"{place} is gone, and nobody is told"
        elif place not in touched:
            assert after.records[place] == record, f"{place} was not touched, and is another"
    assert len(people) == len(set(people)), "two records of one person"
    for place in touched:
        if place not in after.records:  # told alike in another row, it counts once
            named = {edit.typed.says for edit in edits if edit.row == place[1] and edit.column == "A"}
            assert place in told or named & set(people), f"{place} is gone, and nobody is told"
            continue
        key, answers = after.records[place]
        _, before_answers = before.records[place]
        own = {edit.column: edit.typed for edit in edits if edit.row == place[1]}
        for n, item in enumerate(items):
            typed, answer = own.get("FGHIJK"[n]), answers[item]
            if typed is None:
                assert answer == before_answers[item], f"{place} {item} was not touched, and is another"
            elif typed.is_blank:
                assert answer[0] is None, f"{place} {item} was blank"
            elif typed.answer is None or answer[0] != typed.answer:
                is_code = typed.answer is not None and typed.answer < 0 and answer[0] is None
                assert is_code or place in told, f"{place} {item}: nobody is told"
        for column, at in _KEYS.items():
            typed = own.get(column)
            if typed is not None and (column != "D" or typed.says):  # an occasion may have any name of its own
                assert key[at] == typed.says or place in told, f"{place} {column} is not what was typed"
        if (typed := own.get("E")) is not None:
            assert key[5] == typed.day or place in told, f"{place} E is not what was typed"


# --- Tables of text ---------------------------------------------------------------------------------------------------


_SIGNS = ',;"\n\r\t 0123456789.-/aZ\u00e9\x00'


def spoil_text(text: str, rng: random.Random) -> str:
    """A few signs changed, lost, doubled or put in."""
    for _ in range(rng.choice([1, 1, 2, 4])):
        place, way = rng.randrange(len(text) + 1), rng.randrange(5)
        put = {0: rng.choice(_SIGNS), 1: "", 2: rng.choice(_SIGNS), 3: text[place : place + 40], 4: ""}[way]
        rest = {0: text[place + 1 :], 1: text[place + 1 :], 2: text[place:], 3: text[place:], 4: ""}[way]
        text = text[:place] + put + rest
    return text


Lines = dict[tuple[str, str, int], str]
"""What an export tells, by site, sheet and line: the row as its workbook says it when it is read."""


def read_lines(workspace: Workspace, data: bytes, source: str, on: date) -> tuple[Lines, list[str]]:
    """The rows of an export, and what a person is told. Raises as `read_export` does."""
    postings, found = read_export(workspace, load_source(workspace, source), data, on)
    rows = {}
    for posting in postings:
        reading = read_return_workbook(posting.workbook, workspace.layout, site_id=posting.site_id)
        for code, sheet in reading.sheets.items():
            assert len(sheet.frame) == len(found.lines[posting.site_id][code])
            for row in sheet.frame.itertuples(index=False, name=None):
                rows[posting.site_id, code, reading.export_lines[code][row[0]]] = str(row[1:])
    return rows, found.notes


def check_table(before: tuple[Lines, list[str]], after: tuple[Lines, list[str]], text: str, spoilt: str) -> None:
    """Lines that are as they were yield what they did, whatever became of others. A line is what its signs say: what
    stands in a changed one is what its cells say, and no more can be known of it. Lines of one record have the
    participant and the site from each other."""
    old, new = text.splitlines(), spoilt.splitlines()
    if new[:1] != old[:1] and after[1] != before[1]:  # other columns, and a person is told which
        return
    same = {row for (_, _, line), row in before[0].items() if old[line - 1] in new}
    changed = {line.partition(",")[0] for line in {*old} ^ {*new}}
    others = {
        place
        for place, row in after[0].items()
        if new[place[2] - 1] in old and row not in same and new[place[2] - 1].partition(",")[0] not in changed
    }
    assert not others, f"{sorted(others)} were not touched, and are others"


def check_keys(before: Yield, after: Yield) -> None:
    """Of a file whose XML somebody changed: no record of anybody else, unless that is told. The occasion may be another
    one: the study takes unscheduled ones by any name."""

    def list_keys(found: Yield) -> set[tuple[object, ...]]:
        return {(key[0], key[1], key[3]) for key, _ in found.records.values()}

    assert after.told or list_keys(after) <= list_keys(before), "a record of somebody else, and nobody is told"
