"""Search a file that a site sent for what tells who a person is, before it is kept or read.

Everything that can hold text is searched: cells of all sheets, hidden ones too, headers, names of sheets and ranges,
comments, headers and footers, drop-downs, links, text boxes, properties, leftovers of pivot tables and other workbooks,
and the file's own name; of what is no workbook, its text. Each text of a workbook is searched once, however many cells
show it. Only places and kinds leave this module.

Names and addresses of those who made a file (creator, last editor, manager, authors of comments) are names of staff,
which a spreadsheet program writes by itself: they are let through, there and nowhere else.
"""

from __future__ import annotations

import csv
import datetime as dt
import html
import io
import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote

from study.approval_entries import EntryFault
from study.identifier_scan import (
    IdentifierKind,
    NameLists,
    Place,
    Scanner,
    Spot,
    find_kinds_in_name,
    find_telling_headers,
    holds_identifier,
    is_birth_day,
    is_nhs_number,
)
from study.pack_layout import ABOUT, Layout, fold_title
from study.protocol import Study
from tasks.settings import PROJECT
from tasks.spss import SAV_MAGIC, read_sav
from tasks.workbook_inspection import MAX_PARTS, Package, SheetPart, find_letters

MAX_PLACES = 1_000
"""More are not listed: nobody mends them one by one."""
MAX_ARCHIVE_BYTES = 50_000_000
"""So much of a zip that is no workbook is unpacked."""
_HEADER_ROWS = 15
_MAX_ABOVE = 2  # cells above a heading: titles. Words of a list have more.
_COLUMNS_ONE_BY_ONE = 12
_LARGEST_CELL = 40_000  # bytes of XML; a cell holds at most 32,767 characters


@lru_cache(maxsize=1)
def read_name_lists() -> NameLists:
    """The names of `templates/personal_names.csv`, which people may add to."""
    words: dict[str, list[str]] = defaultdict(list)
    with (PROJECT / "templates" / "personal_names.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for role in ("given", "family", "never"):
                words[f"{role} {row[role]}"].append(row["word"])
    words["family strong"] += words["family common"]
    order = ("given strong", "given weak", "family strong", "family weak", "never yes", "family common")
    return NameLists(*(frozenset(words[name]) for name in order))


def make_scanner(study: Study, today: dt.date) -> Scanner:
    """What texts of this study are judged by on a day."""
    return Scanner(read_name_lists(), today, study.is_participant_id)


def find_identifiers(
    data: bytes, package: Package | None, name: str, layout: Layout, scanner: Scanner
) -> tuple[Place, ...]:
    """Every place of a file that holds an identifier, in the order of its sheets; at most `MAX_PLACES`.

    `package`: of a workbook that was inspected; None for any other file. `name`: what the sender called the file.
    """
    found = dict.fromkeys(Place("", "", "file_name", kind) for kind in sorted(find_kinds_in_name(_cut(name), scanner)))
    places = _search_package(package, layout, scanner) if package else _search_text(data, layout, scanner)
    for place in places:
        if len(found) >= MAX_PLACES:
            break
        found[place] = None
    return tuple(found)


def _cut(name: str) -> str:
    """A file's name without its ending."""
    return name.rpartition("/")[2].rpartition(".")[0] or name


# --- Columns ----------------------------------------------------------------------------------------------------------


@dataclass
class _Column:
    """What is filled in of a column: row (from 1) to its value: text, a number or a day."""

    cells: dict[int, object] = field(default_factory=dict)

    def list_heads(self) -> list[str]:
        return [value for row, value in self.cells.items() if row <= _HEADER_ROWS and isinstance(value, str)]


def _is_declared(column: _Column, declared: frozenset[str]) -> bool:
    return any(fold_title(head) in declared for head in column.list_heads())


def _list_declared(layout: Layout) -> frozenset[str]:
    """Codes and labels of the columns that hold dates by the study's own layout."""
    columns = [column for sheet in layout.sheets for column in sheet.columns if column.kind in ("date", "month")]
    return frozenset(fold_title(text) for column in columns for text in (column.code, column.label))


def _judge_column(
    column: _Column, kind: str, head_row: int, beside: object, scanner: Scanner
) -> Iterator[tuple[int, IdentifierKind]]:
    """(row, kind) below a telling heading; (0, kind) for the cell beside one that has nothing below, or that ends with
    a colon."""
    is_label = str(column.cells.get(head_row)).rstrip().endswith(":")
    if sum(row < head_row for row in column.cells) > _MAX_ABOVE and not is_label:
        return
    below = [] if is_label else [(row, value) for row, value in column.cells.items() if row > head_row]
    for row, value in below:
        if found := holds_identifier(kind, _as_day(value) if kind == "birth_date" else _as_text(value), scanner):
            yield row, found
    if not below and beside not in (None, ""):
        bare = "perhaps_name" if kind == "name" else kind
        if found := holds_identifier(bare, _as_day(beside) if kind == "birth_date" else _as_text(beside), scanner):
            yield 0, found


def _as_text(value: object) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def _as_day(value: object) -> object:
    """A number in a column of dates of birth: days since 1900, or a day written as eight digits; a year is none."""
    if not isinstance(value, float):
        return value
    if 2_100 < value < 60_000 or 1_000 < value < 1_900:
        return dt.date(1899, 12, 30) + dt.timedelta(days=int(value))
    digits = f"{value:.0f}"
    return f"{digits[:2]}.{digits[2:4]}.{digits[4:]}" if len(digits) in (7, 8) else ""


# --- Workbooks --------------------------------------------------------------------------------------------------------

_TEXT = re.compile(rb"<(?:\w+:)?t(?: [^>]*)?>([^<]*)</")
_PLAIN_TEXT = re.compile(rb"<t(?: [^>]*)?>([^<]*)</t>")
_ITEM = re.compile(rb"<(?:\w+:)?si(?: [^>]*)?>(.{0,300000}?)</(?:\w+:)?si>|<(?:\w+:)?si(?: [^>]*)?/>", re.DOTALL)
_VALUE = rb"<(?:\w+:)?v(?: [^>]*)?>"
_PLAIN_INDEX = re.compile(rb"<v>(\d+)</v>")
_ANY_INDEX = re.compile(_VALUE + rb"\s*(\d+)\s*</")
_PLAIN_TEN = re.compile(rb"<v>(\d{10}(?:\.0*)?|\d\.\d{1,9}[Ee]\+?0?9)</v>")
_ANY_TEN = re.compile(_VALUE + rb"\s*(\d{10}(?:\.0*)?|\d\.\d{1,9}[Ee]\+?0?9)\s*</")
_TEXT_VALUE = re.compile(rb"""\bt=["'](?:str|d)["'][^>]*>.{0,9000}?<(?:\w+:)?v(?: [^>]*)?>([^<]*)</""", re.DOTALL)
_INLINE = re.compile(rb"<(?:\w+:)?is>(.{0,200000}?)</(?:\w+:)?is>", re.DOTALL)
_COLUMN_CELL = rb"""<(?:\w+:)?c r=["'](%s)(\d{1,7})["']([^>]*?)(?:/>|>(.{0,200000}?)</(?:\w+:)?c>)"""
_REF = re.compile(rb"""\sr=["']([A-Za-z]{1,3})(\d{1,7})["']""")
_STYLE = re.compile(rb"""\ss=["'](\d+)["']""")
_TYPE = re.compile(rb"""\st=["'](\w+)["']""")
_ATTRIBUTE = re.compile(
    rb"""\s(?:\w+:)?(name|caption|descr|title|v|display|tooltip|prompt|promptTitle|error|errorTitle|location|Target|"""
    rb"""val|alt|displayName|uniqueName|userName)=(?:"([^"]*)"|'([^']*)')"""
)
_NODE = re.compile(rb">([^<>]*[^<>\s][^<>]*)<")
_HEADERS = re.compile(rb"<(?:\w+:)?(?:odd|even|first)(?:Header|Footer)(?: [^>]*)?>([^<]*)<")
_CHECKS = re.compile(rb"<(?:\w+:)?formula[12]?(?: [^>]*)?>([^<]*)<")
_COMMENT = re.compile(
    rb"<(?:\w+:)?(comment|threadedComment)\b([^>]*)>(.{0,60000}?)</(?:\w+:)?(?:comment|threadedComment)>", re.DOTALL
)
_COMMENT_REF = re.compile(rb"""\bref=["']([A-Za-z]{1,3}\d{1,7})["']""")
_AUTHOR = re.compile(rb"<(?:\w+:)?author(?: [^>]*)?>([^<]*)<")
_DEFINED = re.compile(rb"""<(?:\w+:)?definedName\b[^>]*?\sname=["']([^"']*)["'][^>]*>([^<]*)<""")
_PROPERTY = re.compile(rb"<(?:\w+:)?(\w+)(?: [^>]*)?>([^<]+)</")
_STAFF = ("creator", "lastmodifiedby", "manager")
_STAFF_KINDS = {"name", "email"}
# Nothing that a person typed: colours, chains of formulas, kinds of parts, lists of what stands elsewhere.
_NO_TEXT = ("[content_types].xml", "xl/calcchain.xml", "xl/styles.xml", "xl/sharedstrings.xml", "docprops/app.xml")
_NO_TEXT_STARTS = ("xl/theme/", "xl/persons/", "xl/printersettings/")
_FORMAT_CODES = re.compile(rb"""<(?:\w+:)?numFmt\b[^>]*?/>""")
_CELL_FORMATS = re.compile(rb"<(?:\w+:)?cellXfs\b.*?</(?:\w+:)?cellXfs>", re.DOTALL)
_FORMAT = re.compile(rb"<(?:\w+:)?xf\b[^>]*?>")
_DATE_FORMATS = frozenset([*range(14, 18), 22, *range(27, 32), 34, 35, 36, *range(50, 59)])


def _unescape(text: bytes) -> str:
    decoded = text.decode("utf-8", "replace")
    if "&" in decoded:
        decoded = html.unescape(decoded)
    return decoded.replace("\x00", " ").replace("_x000D_", " ")


def _join_texts(xml: bytes) -> str:
    """The text of a cell or a comment, of which every stretch in a type of its own is an element."""
    return _unescape(b"".join(_TEXT.findall(xml)))


def _list_shared_strings(xml: bytes) -> list[str]:
    """The shared strings in their order; those in several types of letters put together."""
    texts = _PLAIN_TEXT.findall(xml)
    if len(texts) == xml.count(b"<si>") and b":si>" not in xml and b"<si/>" not in xml and b"<r" not in xml:
        joined = b"\x00".join(texts)
        if b"&" not in joined and b"_x000D_" not in joined:
            return joined.decode("utf-8", "replace").split("\x00") if texts else []
        return [_unescape(text) for text in texts]
    return [_join_texts(match[1] or b"") for match in _ITEM.finditer(xml)]


def _find_date_styles(styles: bytes) -> frozenset[int]:
    """Numbers of the formats of cells that show a day."""
    own = set()
    for match in _FORMAT_CODES.findall(styles):
        number, code = re.search(rb'numFmtId="(\d+)"', match), re.search(rb'formatCode="([^"]*)"', match)
        if number and code:
            plain = re.sub(r'"[^"]*"|\\.|\[[^\]]*\]|_.', "", html.unescape(code[1].decode("utf-8", "replace")))
            if re.search(r"[dy]", plain.lower()):
                own.add(int(number[1]))
    cells = _CELL_FORMATS.search(styles)
    formats = _FORMAT.findall(cells[0]) if cells else []
    ids = (re.search(rb'numFmtId="(\d+)"', text) for text in formats)
    found = [int(number[1]) if number else 0 for number in ids]
    return frozenset(place for place, number in enumerate(found) if number in _DATE_FORMATS or number in own)


@dataclass(frozen=True)
class _Cell:
    letters: str
    row: int
    style: int
    type: str

    @property
    def address(self) -> str:
        return f"{self.letters}{self.row}" if self.row else ""


def _find_cell(xml: bytes, position: int) -> _Cell:
    """The cell in which a position lies; without an address where the file gives none."""
    start = xml.rfind(b"<c ", max(position - 200, 0), position)
    if start < 0:
        lowest = max(position - _LARGEST_CELL, 0)
        start = max(xml.rfind(b"<c ", lowest, position), xml.rfind(b":c ", lowest, position))
    tag = xml[start : xml.find(b">", start)] if start >= 0 else b""
    place, style, kind = _REF.search(tag), _STYLE.search(tag), _TYPE.search(tag)
    letters, row = (place[1].decode().upper(), int(place[2])) if place else ("", 0)
    return _Cell(letters, row, int(style[1]) if style else 0, kind[1].decode() if kind else "")


class _Sheet:
    """One worksheet as XML, of which only what is needed is taken apart."""

    def __init__(self, xml: bytes, strings: Sequence[str]) -> None:
        self.xml, self.strings = xml, strings
        self._is_plain = b":v>" not in xml and b"<v " not in xml
        self._columns: dict[str, _Column] = {}
        self._has_all = False

    def list_strings(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, _Cell]]:
        """(number of the shared string, cell) of the cells that show one of those wanted."""
        for match in (_PLAIN_INDEX if self._is_plain else _ANY_INDEX).finditer(self.xml):
            number = int(match[1][:9])
            if wanted(number):
                cell = _find_cell(self.xml, match.start())
                if cell.type == "s":
                    yield number, cell

    def list_texts(self) -> list[tuple[str, int]]:
        """Texts that stand in the sheet itself, with their positions: results of formulas, and cells of programs that
        share no strings."""
        found: list[tuple[str, int]] = []
        if b'"str"' in self.xml or b"'str'" in self.xml or b't="d"' in self.xml:
            found += [(_unescape(match[1]), match.start(1)) for match in _TEXT_VALUE.finditer(self.xml)]
        if b"is>" in self.xml:
            found += [(_join_texts(match[1]), match.start()) for match in _INLINE.finditer(self.xml)]
        return found

    def list_tens(self) -> Iterator[tuple[str, _Cell]]:
        """Numbers of ten digits."""
        for match in (_PLAIN_TEN if self._is_plain else _ANY_TEN).finditer(self.xml):
            digits = f"{float(match[1]):.0f}"
            if is_nhs_number(digits):
                cell = _find_cell(self.xml, match.start())
                if cell.type in ("", "n", "str"):
                    yield digits, cell

    def list_days(self, first: int, last: int, styles: frozenset[int]) -> Iterator[_Cell]:
        """Cells that show a day, from one number of days to another."""
        numbers = b"|".join(str(style).encode() for style in sorted(styles))
        shown = re.compile(
            rb""" s=["'](?:%s)["'][^>]*>\s*<(?:\w+:)?v(?: [^>]*)?>\s*([1-9]\d{3,4})(?:\.\d*)?\s*<""" % numbers
        )
        for match in shown.finditer(self.xml):
            if first <= int(match[1]) <= last:
                cell = _find_cell(self.xml, match.start(1))
                if cell.type in ("", "n"):
                    yield cell

    def read_column(self, letters: str) -> _Column:
        """What is filled in of a column: texts, and numbers as float. After some columns one by one, all of them."""
        if letters not in self._columns and not self._has_all:
            self._has_all = len(self._columns) >= _COLUMNS_ONE_BY_ONE
            self._columns.setdefault(letters, _Column())
            pattern = _COLUMN_CELL % (b"[A-Z]{1,3}" if self._has_all else letters.encode())
            found: dict[str, _Column] = {}
            for match in re.finditer(pattern, self.xml, re.DOTALL):
                value = self._read_value(match[3], match[4] or b"")
                if value not in (None, ""):
                    found.setdefault(match[1].decode(), _Column()).cells[int(match[2])] = value
            self._columns.update(found)
        return self._columns.setdefault(letters, _Column())

    def _read_value(self, attributes: bytes, content: bytes) -> object:
        kind = _TYPE.search(attributes)
        if kind and kind[1] == b"inlineStr":
            return _join_texts(content).strip()
        value = re.search(_VALUE + rb"([^<]*)<", content)
        if not value:
            return None
        if kind and kind[1] in (b"str", b"d"):
            return _unescape(value[1]).strip()
        try:
            if kind and kind[1] == b"s":
                return self.strings[int(value[1])].strip()
            return float(value[1])
        except (ValueError, IndexError, OverflowError):
            return None


@dataclass(frozen=True)
class _Search:
    """One workbook being searched."""

    package: Package
    scanner: Scanner
    strings: Sequence[str]
    hits: dict[int, set[IdentifierKind]]
    heads: dict[int, str]
    date_styles: frozenset[int]
    declared: frozenset[str]

    def search_cells(self, sheet: _Sheet, code: str) -> Iterator[tuple[Place, int]]:
        """Places of a sheet's cells, with the shared string that is to blame (-1: none)."""
        heads: list[tuple[str, _Cell]] = []
        if self.hits or self.heads:
            for number, cell in sheet.list_strings(lambda number: number in self.hits or number in self.heads):
                if number in self.heads:
                    heads.append((self.heads[number], cell))
                for place in self._place(self.hits.get(number, ()), sheet, code, cell):
                    yield place, number
        texts = sheet.list_texts()
        if texts:
            for number, kinds in self.scanner.scan([text for text, _ in texts]).items():
                cell = _find_cell(sheet.xml, texts[number][1])
                yield from ((place, -1) for place in self._place(kinds, sheet, code, cell))
            for number, head in find_telling_headers([text for text, _ in texts]).items():
                heads.append((head, _find_cell(sheet.xml, texts[number][1])))
        for digits, cell in sheet.list_tens():
            if not self.scanner.is_own(digits):
                yield Place(code, cell.address, "cell", "nhs_number"), -1
        if self.date_styles and code != ABOUT:
            for cell in self._list_birth_days(sheet):
                yield Place(code, cell.address, "cell", "birth_date"), -1
        for head, cell in heads:
            yield from ((place, -1) for place in self._search_column(sheet, code, head, cell))

    def _place(self, kinds: Iterable[IdentifierKind], sheet: _Sheet, code: str, cell: _Cell) -> Iterator[Place]:
        for kind in sorted(kinds):
            is_date = kind == "birth_date" and cell.row > 0
            if is_date and (code == ABOUT or _is_declared(sheet.read_column(cell.letters), self.declared)):
                continue
            yield Place(code, cell.address, "cell", kind)

    def _list_birth_days(self, sheet: _Sheet) -> Iterator[_Cell]:
        epoch = dt.date(1904, 1, 1) if self.package.is_1904 else dt.date(1899, 12, 30)
        today = self.scanner.today
        first = max((dt.date(today.year - 111, 1, 1) - epoch).days, 1)
        last = (dt.date(today.year - 17, 12, 31) - epoch).days
        columns: dict[str, bool] = {}
        for cell in sheet.list_days(first, last, self.date_styles):
            if cell.letters not in columns:
                columns[cell.letters] = _is_declared(sheet.read_column(cell.letters), self.declared)
            if columns[cell.letters]:
                continue
            value = sheet.read_column(cell.letters).cells.get(cell.row) if cell.row else None
            day = epoch + dt.timedelta(days=int(value)) if isinstance(value, float) else None
            if day is None or is_birth_day(day, today):
                yield cell

    def _search_column(self, sheet: _Sheet, code: str, head: str, cell: _Cell) -> Iterator[Place]:
        if not cell.row:
            return
        number = 0
        for letter in cell.letters:
            number = number * 26 + ord(letter) - 64
        right = find_letters(number + 1)
        column = sheet.read_column(cell.letters)
        beside = sheet.read_column(right).cells.get(cell.row)
        for row, kind in _judge_column(column, head, cell.row, beside, self.scanner):
            address = f"{cell.letters}{row}" if row else f"{right}{cell.row}"
            yield Place(code, address, "cell", kind)


def _search_package(package: Package, layout: Layout, scanner: Scanner) -> Iterator[Place]:
    strings = _list_shared_strings(package.shared_strings)
    search = _Search(
        package, scanner, strings, scanner.scan(strings), find_telling_headers(strings),
        _find_date_styles(package.styles), _list_declared(layout),
    )  # fmt: skip
    yield from _search_properties(package, scanner)
    yield from _search_book(package, scanner)
    codes = {part.name: _find_code(part, position, layout) for position, part in enumerate(package.sheets, start=1)}
    shown: set[int] = set()
    searched = {part.name for part in package.sheets}
    for part in package.sheets:
        code = codes[part.name]
        for kind in sorted(find_kinds_in_name(part.title, scanner)) if code.startswith("sheet_") else ():
            yield Place(code, "", "sheet_name", kind)
        sheet = _Sheet(part.head if part.is_whole else part.read(), strings)
        for place, number in search.search_cells(sheet, code):
            shown.add(number)
            yield place
        yield from _search_around(sheet.xml, code, scanner)
        for target_kind, target in package.list_targets(part.name):
            if target_kind in ("comments", "threadedcomment") and target in package.parts:
                searched.add(target)
                yield from _search_comments(package.parts[target], code, scanner)
            elif target_kind in ("drawing", "vmldrawing", "table", "hyperlink") and target in package.parts:
                searched.add(target)
                spot: Spot = "other" if target_kind == "table" else "text_box"
                yield from _search_any(package.parts[target], code, spot, scanner)
    for number, kinds in search.hits.items():  # texts that no cell shows any more are in the file all the same
        if number not in shown and kinds != {"birth_date"}:
            yield from (Place("", "", "other", kind) for kind in sorted(kinds) if kind != "birth_date")
    for name, xml in package.parts.items():
        if name in searched or name in _NO_TEXT or name.startswith((*_NO_TEXT_STARTS, "docprops/")):
            continue
        if name == "xl/workbook.xml" or (name.endswith(".rels") and b"External" not in xml):
            continue
        spot = (
            "link" if name.endswith(".rels") else "text_box" if "/drawings/" in name or "/charts/" in name else "other"
        )
        owner = re.sub(r"_rels/([^/]+)\.rels$", r"\1", name)
        yield from _search_any(xml, codes.get(owner, ""), spot, scanner)


def _find_code(part: SheetPart, position: int, layout: Layout) -> str:
    """The layout's code of a sheet that has its title; else its position, since its title might hold a name."""
    return layout.code_by_title.get(fold_title(part.title), f"sheet_{position}")


def _search_texts(texts: Sequence[str], sheet: str, cell: str, spot: Spot, scanner: Scanner) -> Iterator[Place]:
    kinds = set().union(*scanner.scan(texts).values()) if texts else set()
    return (Place(sheet, cell, spot, kind) for kind in sorted(kinds))


def _search_any(xml: bytes, sheet: str, spot: Spot, scanner: Scanner) -> Iterator[Place]:
    """Texts and telling attributes of any part of XML; runs of text one by one and put together."""
    nodes = [_unescape(text).strip() for text in _NODE.findall(xml)]
    attributes = [unquote(_unescape(one or other)) for _, one, other in _ATTRIBUTE.findall(xml)]
    attributes = [re.sub(r"^mailto:|\?.*$", "", text) if text.startswith("mailto:") else text for text in attributes]
    whole = [" ".join(nodes)] if len(nodes) < 1_000 else []
    # A date beside others is that of a chart or a cache as often as not: only one that is called a birth counts there.
    found = _search_texts([*nodes, *attributes, *whole], sheet, "", spot, scanner)
    return (place for place in found if place.kind != "birth_date" or spot == "text_box")


def _search_around(xml: bytes, sheet: str, scanner: Scanner) -> Iterator[Place]:
    """What a sheet holds beside its cells: headers and footers, drop-downs and their messages, links."""
    start, end = xml.find(b"sheetData"), xml.rfind(b"sheetData")
    rest = xml[:start] + xml[end:] if 0 <= start < end else xml
    # "&C&14Smith" begins with signs for place and size.
    headers = [re.sub(r'&(?:[A-Z]|\d+|"[^"]*")', " ", _unescape(text)).strip() for text in _HEADERS.findall(rest)]
    yield from _search_texts([re.sub(r" +", " ", text) for text in headers], sheet, "", "header_footer", scanner)
    checks = [_unescape(text).strip('"').replace(",", "\n") for text in _CHECKS.findall(rest)]
    links: list[str] = []
    for name, one, other in _ATTRIBUTE.findall(rest):
        (checks if name in (b"prompt", b"promptTitle", b"error", b"errorTitle") else links).append(
            unquote(_unescape(one or other)).removeprefix("mailto:")
        )
    yield from _search_texts(checks, sheet, "", "check", scanner)
    yield from _search_texts(links, sheet, "", "link", scanner)


def _search_comments(xml: bytes, sheet: str, scanner: Scanner) -> Iterator[Place]:
    """Comments by cell. A program begins each with the name of its author, who is staff."""
    authors = sorted({_unescape(author).strip() for author in _AUTHOR.findall(xml)} - {""}, key=len, reverse=True)
    for match in _COMMENT.finditer(xml):
        text = _join_texts(match[3]) or " ".join(_unescape(part) for part in _NODE.findall(b">" + match[3] + b"<"))
        text = text.strip()
        for author in authors:
            if text.startswith(f"{author}:"):
                text = text[len(author) + 1 :].strip()
                break
        cell = _COMMENT_REF.search(match[2])
        yield from _search_texts([text], sheet, cell[1].decode().upper() if cell else "", "comment", scanner)


def _search_properties(package: Package, scanner: Scanner) -> Iterator[Place]:
    """Title, subject, company, own properties ... Those who made the file are staff."""
    for name, xml in package.parts.items():
        if not name.startswith("docprops/"):
            continue
        for tag, text in _PROPERTY.findall(re.sub(rb"<TitlesOfParts>.*?</TitlesOfParts>", b"", xml, flags=re.DOTALL)):
            if b"vector" in tag or (name == "docprops/core.xml" and tag in (b"created", b"modified", b"lastPrinted")):
                continue
            is_staff = tag.decode().lower() in _STAFF and name != "docprops/custom.xml"
            kinds = find_kinds_in_name(_unescape(text), scanner) - (_STAFF_KINDS if is_staff else set())
            yield from (Place("", "", "document_property", kind) for kind in sorted(kinds))
        for label in re.findall(rb'\bname="([^"]*)"', xml) if name == "docprops/custom.xml" else ():
            kinds = find_kinds_in_name(_unescape(label), scanner)
            yield from (Place("", "", "document_property", kind) for kind in sorted(kinds))


def _search_book(package: Package, scanner: Scanner) -> Iterator[Place]:
    """Names of ranges, and what they stand for."""
    for name, xml in package.parts.items():
        if b"definedName" in xml and name.startswith("xl/") and name.count("/") == 1:
            for label, text in _DEFINED.findall(xml):
                kinds = find_kinds_in_name(_unescape(label), scanner)
                literal = re.findall(r'"([^"]*)"', _unescape(text))
                kinds |= set().union(*scanner.scan(literal).values())
                for kind in sorted(kinds - {"birth_date"}):
                    yield Place("", "", "defined_name", kind)


# --- Text -------------------------------------------------------------------------------------------------------------

_PRINTABLE = re.compile(rb"[\x20-\x7e]{10,}")
_WIDE = re.compile(rb"(?:[\x20-\x7e]\x00){10,}")


def decode_text(data: bytes) -> str | None:
    """The text of a file of text (UTF-8, UTF-16 or Windows-1252), None for anything else."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError:
            return None
    sample = data[:4096]
    if b"\x00" in sample or sum(byte < 32 and byte not in b"\t\r\n\x0b\x0c\x1a" for byte in sample):
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _search_archive(data: bytes, scanner: Scanner) -> Iterator[Place]:
    """A zip that is no workbook for us: the XML in it, of a letter, of a workbook with macros or of another program."""
    left = MAX_ARCHIVE_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist()[:MAX_PARTS]:
                if left > 0 and entry.filename.lower().endswith((".xml", ".rels")):
                    with archive.open(entry) as part:
                        xml = part.read(left)
                    left -= len(xml)
                    yield from _search_any(xml, "", "other", scanner)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        RuntimeError,
        ValueError,
        NotImplementedError,
        LookupError,
    ):
        return  # damaged, or with a password: nobody can read it


def _search_text(data: bytes, layout: Layout, scanner: Scanner) -> Iterator[Place]:
    """A file of text as a table, by cells; of anything else what can be read in it, such as an old spreadsheet's."""
    if data.startswith(b"PK"):
        yield from _search_archive(data, scanner)
        return
    if data.startswith(SAV_MAGIC):
        try:
            export = read_sav(data)
        except EntryFault:
            pass  # damaged: what can be read in it is searched
        else:
            labels = [label for own in export.labels.values() for label in own.values()]
            yield from _search_texts([*export.titles.values(), *labels], "", "", "other", scanner)
            yield from _search_rows([export.header, *export.lines], layout, scanner)
            titles = [export.titles.get(name, "") for name in export.header]
            yield from _search_rows([titles, *export.lines], layout, scanner)
            return
    text = decode_text(data)
    if text is None:
        runs = [run.decode("ascii") for run in _PRINTABLE.findall(data)]
        runs += [run.decode("utf-16-le") for run in _WIDE.findall(data)]
        # In noise something that looks like a name or a postcode turns up by chance.
        for kinds in scanner.scan(runs).values():
            yield from (Place("", "", "other", kind) for kind in sorted(kinds & {"email", "nhs_number"}))
        return
    yield from _search_rows(_split_rows(text), layout, scanner)


def _search_rows(rows: Sequence[Sequence[str]], layout: Layout, scanner: Scanner) -> Iterator[Place]:
    """A table, by cells, and by what its columns are called."""
    columns: dict[int, _Column] = defaultdict(_Column)
    cells: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row, line in enumerate(rows, start=1):
        for column, value in enumerate(line):
            if value := value.strip():
                columns[column].cells[row] = value
                cells[value].append((row, column))
    texts, declared = list(cells), _list_declared(layout)
    dates = {column: _is_declared(found, declared) for column, found in columns.items()}
    for number, kinds in scanner.scan(texts).items():
        for row, column in cells[texts[number]]:
            for kind in sorted(kinds):
                if kind != "birth_date" or not dates[column]:
                    yield Place("", f"{find_letters(column + 1)}{row}", "cell", kind)
    for number, head in find_telling_headers(texts).items():
        for row, column in cells[texts[number]]:
            beside = columns[column + 1].cells.get(row) if column + 1 in columns else None
            for own_row, kind in _judge_column(columns[column], head, row, beside, scanner):
                place = (column, own_row) if own_row else (column + 1, row)
                yield Place("", f"{find_letters(place[0] + 1)}{place[1]}", "cell", kind)


def _split_rows(text: str) -> list[list[str]]:
    """Rows of a table of text, whatever parts its cells; each line as one cell where it is no table."""
    counts = {mark: text[:20_000].count(mark) for mark in ",;\t|"}
    mark = max(counts, key=lambda mark: counts[mark])
    limit = csv.field_size_limit(10_000_000)
    try:
        return list(csv.reader(io.StringIO(text.replace("\x00", ""), newline=""), delimiter=mark))
    except csv.Error:
        return [[line] for line in text.splitlines()]
    finally:
        csv.field_size_limit(limit)
