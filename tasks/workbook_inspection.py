"""What is looked at in an Excel file before any parser reads it.

A file from outside is opened as bytes, as a zip and as XML, within stated limits and without trusting what it says of
itself. What passes is handed on in a package built anew, so that the parser sees those parts and no others, and no
sheet whose few cells would make it lay out a billion.
"""

from __future__ import annotations

import io
import posixpath
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.parsers import expat

MEGABYTE = 1_000_000
MAX_FILE_BYTES = 50 * MEGABYTE
MAX_UNPACKED_BYTES = 500 * MEGABYTE
MAX_PART_BYTES = 100 * MEGABYTE
MAX_RATIO = 250  # unpacked to packed, for parts that unpack to more than 10 MB; real sheets stay under 50
MAX_PARTS = 2_000
MAX_SHEETS = 200
MAX_ROW = 100_000  # the last row that is read
MAX_COLUMN = 6_000
MAX_CELLS = 4_000_000  # rows x columns of the rectangle that holds a sheet's values
MAX_TEXT_BYTES = 400 * MEGABYTE  # shared strings, each as often as cells refer to it

_RATIO_FREE_BYTES = 10 * MEGABYTE
_HEAD_BYTES = 256_000  # of a large sheet, what is kept to find out which sheet it is
_HEAD_ROWS = 15
_ODD_SHEET_BYTES = 20 * MEGABYTE  # of a sheet whose cells do not all say their address
_CHUNK = 1 << 20

_OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ZIP_MAGIC = b"PK\x03\x04"

UNREADABLE: Mapping[str, str] = {
    "not_a_workbook": "This file is not an Excel workbook. Please send the workbook saved as .xlsx.",
    "old_excel_format": "This workbook has another format. Please save it as an Excel workbook (.xlsx) and send that.",
    "encrypted_workbook": "This workbook has a password. Please take the password off and send it again.",
    "truncated_workbook": "The end of this file is missing. Please send it again.",
    "damaged_workbook": "This file is damaged. Please open it, save it as an Excel workbook (.xlsx) and send it again.",
    "zip_bomb": (
        f"Unpacked, this file is larger than we open: at most {MAX_UNPACKED_BYTES // MEGABYTE} MB in all, "
        f"{MAX_PART_BYTES // MEGABYTE} MB in one part, {MAX_PARTS} parts, {MAX_RATIO} times its packed size. "
        "Please copy the rows into a new workbook and send that."
    ),
    "macro_workbook": "This workbook holds macros. Please save it as an Excel workbook without macros (.xlsx).",
    "unsafe_workbook": "This file refers to things outside itself. Please copy the rows into a new workbook.",
    "file_too_large": f"This file is larger than {MAX_FILE_BYTES // MEGABYTE} MB. Please send it in parts.",
    "empty_workbook": "This workbook is empty. Please send the one that was filled in.",
}


class WorkbookUnreadable(ValueError):
    """A file that is not read at all: ``rule`` is a key of `UNREADABLE`, ``expected`` says what to send instead."""

    def __init__(self, rule: str, expected: str = "") -> None:
        self.rule = rule
        self.expected = expected or UNREADABLE[rule]
        super().__init__(self.expected)


@dataclass(frozen=True)
class SheetPart:
    """A worksheet of the package. ``head`` is the whole XML of a small sheet, the beginning of a large one; ``name`` is
    that of its part."""

    title: str
    head: bytes
    is_whole: bool
    name: str
    _entry: zipfile.ZipInfo
    _data: bytes

    def read(self) -> bytes:
        return self.head if self.is_whole else b"".join(_unpack(self._data, self._entry))


@dataclass(frozen=True)
class Package:
    """The inspected parts that matter: worksheets in the order of their tabs, shared strings, styles, the epoch.

    ``parts``: every part of XML by its folded name, sheets that are large left out; no parser is given the others.
    """

    sheets: tuple[SheetPart, ...]
    shared_strings: bytes
    styles: bytes
    is_1904: bool
    parts: Mapping[str, bytes]

    def list_targets(self, owner: str) -> list[tuple[str, str]]:
        """(kind, name of the part) of what a part refers to inside the package; kinds in small letters."""
        return [(kind, target) for kind, _, target in _list_relations(self.parts, owner)]


@dataclass(frozen=True)
class Area:
    """Cells from (``row``, ``column``) to (``last_row``, ``last_column``), all counted from 1; ``cell`` the address."""

    row: int
    column: int
    last_row: int
    last_column: int

    @property
    def cell(self) -> str:
        first = f"{find_letters(self.column)}{self.row}"
        last = f"{find_letters(self.last_column)}{self.last_row}"
        return first if first == last else f"{first}:{last}"


def find_letters(column: int) -> str:
    """The letters of a column counted from 1: 1 is "A", 28 is "AB"."""
    letters = ""
    while column:
        column, rest = divmod(column - 1, 26)
        letters = chr(65 + rest) + letters
    return letters


def inspect_package(data: bytes, *, max_bytes: int = MAX_FILE_BYTES) -> Package:
    """Unpack a workbook within the limits; raises `WorkbookUnreadable`, whatever the bytes are."""
    if len(data) > max_bytes:
        largest = f"This file is larger than {max_bytes / MEGABYTE:g} MB. Please send it in parts."
        raise WorkbookUnreadable("file_too_large", largest)
    if not data.strip(b"\x00"):
        raise WorkbookUnreadable("empty_workbook")
    if data.startswith(_OLE_MAGIC):
        encrypted = "EncryptedPackage".encode("utf-16-le") in data
        raise WorkbookUnreadable("encrypted_workbook" if encrypted else "old_excel_format")
    if not data.startswith(_ZIP_MAGIC):
        raise WorkbookUnreadable("not_a_workbook")
    entries = _list_entries(data)
    parts, heads = _unpack_parts(data, entries)
    return _find_sheets(data, entries, parts, heads)


def _list_entries(data: bytes) -> dict[str, zipfile.ZipInfo]:
    """The zip's directory by folded name. Its size is bounded before it is read."""
    if data.count(b"PK\x01\x02") > 2 * MAX_PARTS:
        raise WorkbookUnreadable("zip_bomb")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
    except zipfile.BadZipFile:
        end = data.rfind(b"PK\x05\x06", len(data) - 70_000 if len(data) > 70_000 else 0)
        is_whole = end >= 0 and len(data) - end >= 22
        raise WorkbookUnreadable("damaged_workbook" if is_whole else "truncated_workbook") from None
    except (ValueError, NotImplementedError, struct.error, OverflowError, LookupError, OSError):
        raise WorkbookUnreadable("damaged_workbook") from None
    if len(infos) > MAX_PARTS:
        raise WorkbookUnreadable("zip_bomb")
    entries = {_fold_name(info.filename): info for info in infos}
    if len(entries) < len(infos):
        raise WorkbookUnreadable("damaged_workbook")
    if any(info.flag_bits & 0x1 for info in infos):
        raise WorkbookUnreadable("encrypted_workbook")
    if "mimetype" in entries or any(name.endswith("workbook.bin") for name in entries):
        raise WorkbookUnreadable("old_excel_format")
    if any(name.endswith("vbaproject.bin") or "/macrosheets/" in name for name in entries):
        raise WorkbookUnreadable("macro_workbook")
    if "[content_types].xml" not in entries:
        raise WorkbookUnreadable("not_a_workbook")
    return entries


def _unpack_parts(data: bytes, entries: Mapping[str, zipfile.ZipInfo]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Every part unpacked once: (small XML parts whole, beginnings of large ones). Others are only measured."""
    parts: dict[str, bytes] = {}
    heads: dict[str, bytes] = {}
    total = 0
    for name, info in entries.items():
        is_xml = name.endswith((".xml", ".rels"))
        size, checksum, tail = 0, 0, b""
        kept: list[bytes] = []
        for chunk in _unpack(data, info):
            size += len(chunk)
            if (
                total + size > MAX_UNPACKED_BYTES
                or size > MAX_PART_BYTES
                or (size > _RATIO_FREE_BYTES and size > MAX_RATIO * info.compress_size)
            ):
                raise WorkbookUnreadable("zip_bomb")
            checksum = zlib.crc32(chunk, checksum)
            if is_xml:
                if not kept:
                    _refuse_odd_encoding(chunk)
                _refuse_declarations(tail + chunk)
                tail = chunk[-16:]
                if size <= 4 * _CHUNK or not name.startswith("xl/worksheets/"):
                    kept.append(chunk)
        if checksum != info.CRC:
            raise WorkbookUnreadable("damaged_workbook")
        total += size
        if is_xml:
            whole = size <= 4 * _CHUNK or not name.startswith("xl/worksheets/")
            (parts if whole else heads)[name] = b"".join(kept)
    return parts, heads


def _unpack(data: bytes, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """The contents of one entry, in chunks of bounded size; declared sizes are not relied on."""
    header = data[info.header_offset : info.header_offset + 30]
    if len(header) < 30 or header[:4] != _ZIP_MAGIC:
        raise WorkbookUnreadable("damaged_workbook")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    start = info.header_offset + 30 + name_length + extra_length
    packed = memoryview(data)[start : start + info.compress_size]
    if len(packed) < info.compress_size:
        raise WorkbookUnreadable("truncated_workbook")
    if info.compress_type == zipfile.ZIP_STORED:
        for offset in range(0, len(packed), _CHUNK):
            yield bytes(packed[offset : offset + _CHUNK])
        return
    if info.compress_type != zipfile.ZIP_DEFLATED:
        raise WorkbookUnreadable("damaged_workbook")
    inflater = zlib.decompressobj(-15)
    try:
        chunk = inflater.decompress(packed, _CHUNK)
        while chunk:
            yield chunk
            chunk = inflater.decompress(inflater.unconsumed_tail, _CHUNK)
    except zlib.error:
        raise WorkbookUnreadable("damaged_workbook") from None
    if not inflater.eof:
        raise WorkbookUnreadable("damaged_workbook")


_ENCODING = re.compile(rb"""<\?xml[^>]*?\bencoding\s*=\s*["']([^"']*)["']""")


def _refuse_odd_encoding(beginning: bytes) -> None:
    """Parts are searched as bytes, so they must be UTF-8, as every program that writes workbooks makes them."""
    match = _ENCODING.match(beginning.removeprefix(b"\xef\xbb\xbf").lstrip())
    if b"\x00" in beginning[:200] or (match and match[1].lower() not in {b"utf-8", b"us-ascii", b"ascii"}):
        raise WorkbookUnreadable("damaged_workbook")


def _refuse_declarations(text: bytes) -> None:
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise WorkbookUnreadable("unsafe_workbook")


def _fold_name(name: str) -> str:
    return name.replace("\\", "/").lstrip("/").lower()


def _find_sheets(
    data: bytes, entries: Mapping[str, zipfile.ZipInfo], parts: Mapping[str, bytes], heads: Mapping[str, bytes]
) -> Package:
    types = parts["[content_types].xml"]
    if b"macroEnabled" in types or b"vbaProject" in types:
        raise WorkbookUnreadable("macro_workbook")
    book_name = next(
        (target for kind, _, target in _list_relations(parts, "") if kind == "officedocument"), "xl/workbook.xml"
    )
    if book_name not in parts:
        raise WorkbookUnreadable("not_a_workbook")
    listed = list(_list_relations(parts, book_name))
    relations = {key: (kind, target) for kind, key, target in listed}
    if len(relations) < len(listed):
        raise WorkbookUnreadable("damaged_workbook")
    # Sheet and part lead to each other, or rows would be missed by nobody.
    listed_ids = {key for key, (kind, _) in relations.items() if kind == "worksheet"}
    sheets, is_1904 = [], False
    for tag, attributes in _list_elements(parts[book_name]):
        if tag == "workbookPr":
            is_1904 = attributes.get("date1904", "0").lower() in {"1", "true"}
        if tag != "sheet":
            continue
        kind, target = relations.get(attributes.get("id", ""), ("", ""))
        if kind == "xlmacrosheet":
            raise WorkbookUnreadable("macro_workbook")
        if not kind:
            raise WorkbookUnreadable("damaged_workbook")
        if kind != "worksheet":
            continue
        if target not in parts and target not in heads:
            raise WorkbookUnreadable("damaged_workbook")
        is_whole = target in parts
        head = parts[target] if is_whole else heads[target][:_HEAD_BYTES]
        listed_ids.discard(attributes["id"])
        sheets.append(SheetPart(attributes.get("name", ""), head, is_whole, target, entries[target], data))
    if not sheets:
        raise WorkbookUnreadable("empty_workbook")
    if listed_ids:
        raise WorkbookUnreadable("damaged_workbook")
    if len(sheets) > MAX_SHEETS:
        raise WorkbookUnreadable("zip_bomb")
    by_kind = dict(relations.values())
    # Texts would be read as blanks, and days as numbers.
    if any(by_kind.get(kind, book_name) not in parts for kind in ("sharedstrings", "styles")):
        raise WorkbookUnreadable("damaged_workbook")
    return Package(
        sheets=tuple(sheets),
        shared_strings=parts.get(by_kind.get("sharedstrings", ""), b""),
        styles=parts.get(by_kind.get("styles", ""), b""),
        is_1904=is_1904,
        parts=parts,
    )


def _list_relations(parts: Mapping[str, bytes], owner: str) -> Iterator[tuple[str, str, str]]:
    """(kind, id, name of the part) of what a part refers to inside the package; kinds in lower case."""
    folder, base = posixpath.split(owner)
    rels = parts.get(posixpath.join(folder, "_rels", f"{base}.rels"))
    for tag, attributes in _list_elements(rels) if rels else ():
        if tag == "Relationship" and attributes.get("TargetMode", "Internal") != "External":
            target = attributes.get("Target", "").replace("\\", "/")
            name = target if target.startswith("/") else posixpath.join(folder, target)
            kind = attributes.get("Type", "").rpartition("/")[2].lower()
            yield kind, attributes.get("Id", ""), _fold_name(posixpath.normpath(name))


def _list_elements(xml: bytes) -> list[tuple[str, dict[str, str]]]:
    """Elements of a small part in document order, names and attributes without prefixes."""
    found: list[tuple[str, dict[str, str]]] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        found.append((_local(name), {_local(key): value for key, value in attributes.items()}))

    _parse_xml(xml, start)
    return found


def _local(name: str) -> str:
    return name.rpartition(":")[2]


# --- One sheet as XML -------------------------------------------------------------------------------------------------

_P = rb"(?:[A-Za-z_][\w.-]*:)?"  # a namespace prefix, which some programs write
_ROW_TAG = re.compile(rb"<(" + _P + rb")row[\s/>]")
_CELL_REF = re.compile(rb"""\sr\s*=\s*["']([A-Za-z]+)(\d+)""")
_REFERENCE = re.compile(r"[A-Za-z]{1,3}[0-9]{1,7}")
_CELL = re.compile(rb"<(" + _P + rb")c(?=[\s/>])([^>]*?)(?:/>|>(.*?)</\1c\s*>)", re.DOTALL)
_EMPTY_CELL = re.compile(rb"<" + _P + rb"c\s[^>]*/>")
_EMPTY_ROW = re.compile(rb"<(" + _P + rb")row\s[^>]*?(?:/>|>\s*</\1row>)")
_FORMULA_TAG = re.compile(rb"<" + _P + rb"f[\s/>]")
_FORMULA_CELL = re.compile(
    rb"<" + _P + rb"""c\s(?:[^>]*?\s)?r\s*=\s*["']([A-Za-z]{1,3}\d{1,7})["'][^>]*>\s*<""" + _P + rb"""f([\s/][^>]*)?>"""
)
_ERROR_CELL = re.compile(rb"<" + _P + rb"""c(\s[^>]*?\bt\s*=\s*["']e["'][^>]*)>""")
_ARRAY = re.compile(rb"""\bt\s*=\s*["'](?:array|dataTable)["']""")
_AREA_REF = re.compile(rb"""\bref\s*=\s*["']([A-Za-z]{1,3}\d{1,7})(?::([A-Za-z]{1,3}\d{1,7}))?["']""")
_REF_ATTRIBUTE = re.compile(rb"""(?:^|\s)r\s*=\s*["']([A-Za-z]{1,3}\d{1,7})["']""")
_SHARED_STRING = re.compile(rb"<" + _P + rb"si[\s/>]")
_STRING_INDEX = re.compile(rb"""\bt\s*=\s*["']s["'][^>]*>\s*<""" + _P + rb"""v[^>]*>\s*(\d+)""")


def cut_head(part: SheetPart) -> bytes:
    """The first rows of a sheet as a sheet of its own, enough to see which sheet it is."""
    starts = [match for _, match in zip(range(_HEAD_ROWS + 1), _ROW_TAG.finditer(part.head), strict=False)]
    if part.is_whole and len(starts) <= _HEAD_ROWS:
        return part.head
    if not starts:
        return b""
    prefix = starts[-1][1]
    return part.head[: starts[-1].start()] + b"</" + prefix + b"sheetData></" + prefix + b"worksheet>"


def find_formulas(xml: bytes, columns: Collection[int] | None = None) -> tuple[list[Area], int]:
    """Cells that hold formulas, array formulas with all their cells, and how many formulas have no address.

    With ``columns`` (from 1), single formulas in other columns are passed over; sheets may hold very many.
    """
    if not _FORMULA_TAG.search(xml):
        return [], 0
    wanted = None if columns is None else {find_letters(column).encode() for column in columns}
    areas, n_placed = [], 0
    for match in _FORMULA_CELL.finditer(xml):
        first, n_placed = match[1], n_placed + 1
        reference = _AREA_REF.search(match[2]) if match[2] and _ARRAY.search(match[2]) else None
        if reference:
            areas.append(_parse_area(reference[1], reference[2] or reference[1]))
        elif wanted is None or first.rstrip(b"0123456789").upper() in wanted:
            areas.append(_parse_area(first, first))
    return areas, len(_FORMULA_TAG.findall(xml)) - n_placed


def find_errors(xml: bytes) -> list[Area]:
    """Cells that hold an error such as #REF!, which a parser gives as blank."""
    if b'"e"' not in xml and b"'e'" not in xml:
        return []
    cells = (_REF_ATTRIBUTE.search(match[1]) for match in _ERROR_CELL.finditer(xml))
    return [_parse_area(cell[1], cell[1]) for cell in cells if cell]


def _parse_area(first: bytes, last: bytes) -> Area:
    row, column = _parse_reference(first)
    last_row, last_column = _parse_reference(last)
    return Area(row, column, max(last_row, row), max(last_column, column))


def _parse_reference(reference: bytes) -> tuple[int, int]:
    """(row, column), both from 1, of "F14"."""
    letters = reference.rstrip(b"0123456789")
    return int(reference[len(letters) :]), _find_column(letters)


def bound_sheet(xml: bytes) -> tuple[bytes, str]:
    """A sheet whose values lie within `MAX_ROW`, `MAX_COLUMN` and `MAX_CELLS`, and the first cell left out for it.

    One character in the last row of a sheet makes a parser lay out every cell above it, and end the process when
    memory runs out. Cells without a value are left out first; then those beyond the last row or column. Raises
    `WorkbookUnreadable` if that isn't enough.
    """
    is_plain = _is_plainly_addressed(xml)
    if is_plain and len(xml) > MEGABYTE and xml.count(b"/>") > 10_000:
        xml = _EMPTY_ROW.sub(b"", _EMPTY_CELL.sub(b"", xml))
    if _is_small_enough(xml, is_plain):
        return xml, ""
    outside = ""
    kept: list[bytes] = []
    end = 0
    for match in _CELL.finditer(xml) if is_plain else ():
        drop = not match[3]
        if not drop and (reference := _REF_ATTRIBUTE.search(match[2])):
            row, column = _parse_reference(reference[1])
            if row > MAX_ROW or column > MAX_COLUMN:
                drop, outside = True, outside or reference[1].decode().upper()
        if drop:
            kept.append(xml[end : match.start()])
            end = match.end()
    kept.append(xml[end:])
    bounded = b"".join(kept)
    if not _is_small_enough(bounded, is_plain):
        raise WorkbookUnreadable("file_too_large", "A sheet has values in too large an area. Please send it in parts.")
    return bounded, outside


def _is_plainly_addressed(xml: bytes) -> bool:
    """Whether every cell begins with its address, as all common programs write it, so that none is overlooked."""
    if xml.count(b"<c ") != xml.count(b'<c r="'):
        return False
    others = (opening + after for opening in (b"<c", b":c") for after in (b">", b"/", b"\t", b"\n", b"\r"))
    return b":c " not in xml and not any(other in xml for other in others)


def _is_small_enough(xml: bytes, is_plain: bool) -> bool:
    """Whether the rectangle from A1 to the last cell may be laid out."""
    if is_plain:
        references = _CELL_REF.findall(xml)
        last_column = max((_find_column(letters) for letters in {letters for letters, _ in references}), default=0)
        last_row = max((int(row[:9]) for row in {row for _, row in references}), default=0)
    else:
        last_row, last_column = _measure_by_position(xml)
    return last_row <= MAX_ROW and last_column <= MAX_COLUMN and last_row * last_column <= MAX_CELLS


def _measure_by_position(xml: bytes) -> tuple[int, int]:
    """The last row and column of a sheet whose cells may go without an address and then follow the one before."""
    if len(xml) > _ODD_SHEET_BYTES:
        raise WorkbookUnreadable("file_too_large", "Please save this workbook with Excel or LibreOffice; send that.")
    row, column, last_row, last_column = 0, 0, 0, 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal row, column, last_row, last_column
        tag = _local(name)
        if tag == "row":
            written = attributes.get("r", "")
            row, column = int(written[:9]) if written.isascii() and written.isdigit() else row + 1, 0
        elif tag == "c":
            match = _REFERENCE.fullmatch(attributes.get("r", ""))
            place = _parse_reference(match[0].encode()) if match else (row, column + 1)
            column = place[1]
            last_row, last_column = max(last_row, place[0]), max(last_column, column)

    _parse_xml(xml, start)
    return last_row, last_column


def _parse_xml(xml: bytes, start: Callable[[str, dict[str, str]], None] | None = None) -> None:
    """Run through XML, telling each element to ``start``; raises `WorkbookUnreadable` if it is not well-formed."""
    parser = expat.ParserCreate()
    if start:
        parser.StartElementHandler = start
    try:
        parser.Parse(xml, True)
    except expat.ExpatError:
        raise WorkbookUnreadable("damaged_workbook") from None


def _find_column(letters: bytes) -> int:
    number = 0
    for letter in letters[:4].upper():
        number = number * 26 + letter - 64
    return number


def measure_texts(shared_strings: bytes, sheets: Sequence[bytes]) -> int:
    """Bytes of text that a parser makes when it copies a shared string into each cell that refers to it."""
    lengths = [len(text) for text in _SHARED_STRING.split(shared_strings)[1:]]
    longest = max(lengths, default=0)
    n_references = sum(sheet.count(b"<v") for sheet in sheets)
    if longest * n_references <= MAX_TEXT_BYTES:
        return longest * n_references
    indexes = (int(index[:9]) for sheet in sheets for index in _STRING_INDEX.findall(sheet))
    return sum(lengths[index] for index in indexes if index < len(lengths))


# --- The package that the parser is given -----------------------------------------------------------------------------

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"


def build_package(package: Package, sheets: Sequence[bytes]) -> bytes:
    """A workbook of these sheets, named "1", "2" …, with the shared strings, styles and epoch of ``package``.

    Raises `WorkbookUnreadable` if a part is not well-formed (the parser would make something of it, and not what was
    inspected), or if repeated texts would fill the memory.
    """
    for part in (*sheets, package.shared_strings, package.styles):
        if part:
            _parse_xml(part)
    if measure_texts(package.shared_strings, sheets) > MAX_TEXT_BYTES:
        raise WorkbookUnreadable("zip_bomb")
    names = [f"worksheets/sheet{number}.xml" for number in range(1, len(sheets) + 1)]
    targets = [(f"s{number}", "worksheet", name) for number, name in enumerate(names, start=1)]
    contents = {f"xl/{name}": sheet for name, sheet in zip(names, sheets, strict=True)}
    for kind, name, part in (
        ("sharedStrings", "sharedStrings.xml", package.shared_strings),
        ("styles", "styles.xml", package.styles),
    ):
        if part:
            targets.append((kind, kind, name))
            contents[f"xl/{name}"] = part
    tabs = "".join(f'<sheet name="{n}" sheetId="{n}" r:id="s{n}"/>' for n in range(1, len(sheets) + 1))
    epoch = '<workbookPr date1904="1"/>' if package.is_1904 else ""
    book = f'<workbook xmlns="{_MAIN}" xmlns:r="{_RELATION}">{epoch}<sheets>{tabs}</sheets></workbook>'
    contents["xl/workbook.xml"] = book.encode()
    contents["xl/_rels/workbook.xml.rels"] = _write_relations(targets)
    contents["_rels/.rels"] = _write_relations([("book", "officeDocument", "xl/workbook.xml")])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def _write_relations(targets: Sequence[tuple[str, str, str]]) -> bytes:
    lines = "".join(
        f'<Relationship Id="{key}" Type="{_RELATION}/{kind}" Target="{target}"/>' for key, kind, target in targets
    )
    return f'<Relationships xmlns="{_RELATIONS}">{lines}</Relationships>'.encode()
