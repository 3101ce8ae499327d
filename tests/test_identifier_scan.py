"""What tells who a person is, found by kind in texts and by place in files; and what looks like it and is not."""

from __future__ import annotations

import csv
import io
import re
import tomllib
from collections.abc import Callable
from datetime import date, datetime
from time import perf_counter
from typing import Any

import openpyxl
import pytest
import xlsxwriter
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl.comments import Comment
from openpyxl.packaging.custom import StringProperty
from openpyxl.workbook.defined_name import DefinedName
from openpyxl.worksheet.datavalidation import DataValidation

from study.identifier_scan import (
    IDENTIFIER_KINDS,
    KIND_WORDS,
    SPOT_WORDS,
    Place,
    Scanner,
    find_column_kind,
    find_kinds_in_name,
    holds_identifier,
    is_birth_day,
    is_nhs_number,
    parse_written_date,
)
from study.pack_layout import derive_return_layout
from tasks.definitions import load_instruments, load_study
from tasks.identifier_search import find_identifiers, make_scanner, read_name_lists
from tasks.workbook_inspection import WorkbookUnreadable, inspect_package
from tasks.workbooks import write_blank_return
from tests.pack_plans import make_full_plan
from tests.return_workbooks import LAYOUT, PROJECT, edit, list_parts, list_studies, make_return, rezip, spoil_part
from tests.test_packs import INSTRUMENTS, STUDY
from tests.test_packs import LAYOUT as PACK_LAYOUT

TODAY = date(2018, 6, 1)
SCANNER = Scanner(read_name_lists(), TODAY, lambda text: bool(re.fullmatch(r"LUT-\d{3}|701\d{7}", text)))
NHS = "943 476 5919"

# Texts ----------------------------------------------------------------------------------------------------------------

FOUND = {
    "nhs_number": [
        NHS, "9434765919", "NHS no. 943-476-5919", "９４３４７６５９１９", "see 943\u00a0476\u00a05919 on file",
        "(9434765919)",
    ],
    "email": ["j.smith@example.org", "write to mjones+x@nhs.net please", "jsmith (at) example.co.uk", "a@b.io"],
    "telephone": [
        "07700 900123", "07700900123", "(020) 7946 0958", "01632 960 123", "tel. 0115 496 0123, ask", "+44 7700 900123",
        "+44 (0)7700 900 123", "0044 20 7946 0958", "+1 415 555 1212", "(415) 555-1212",
    ],
    "postcode": ["LU1 2AB", "lives at EC1A 1BB now", "SW1A1AA", "lu1 2ab", "m11ae", "B33 8TH"],
    "birth_date": [
        "12/03/1950", "1950-03-12", "12 March 1950", "12.3.1950", "born 12/3/50", "DOB: 3 March 2011",
        "d.o.b. 03/03/11", "March 12, 1950", "Date of birth 2015-02-01", "seen 3rd of May 1948 by nurse",
    ],
    "name": [
        "John Smith", "spoke to Jean Smith today", "Mrs Jones", "mrs patel", "SMITH, John", "Smith, Jean", "JOHN SMITH",
        "john smith", "Dear Margaret", "her daughter Susan came", "Priya Sharma", "Oluwaseun Adeyemi", "Siân Pritchard",
        "Grace Patel", "Susan Ward", "J. Smith", "Łukasz Nowak", "Mary-Ann O'Brien", "Dr A Gupta", "Mohammed Khan",
        "Mark Johnson",
    ],
}  # fmt: skip
LET_THROUGH = [
    "Victoria Ward", "St Thomas Hospital", "Rose Ward", "Albert Road", "Trail Making Test", "Modified Barthel Index",
    "Barking and Dagenham", "Dr appointment", "MR Scan", "MS Society", "Mark Complete", "Grace Period", "May 2018",
    "1 April 2018", "12/03/2018", "12/03/1850", "B12 5mg", "W2 2nd", "E10 visit", "code e101ab", "LUT-001",
    "LUT-P00013", "0.9434765919", "94347659190", "1234567890", "0000000000", "7011234569", "0 1 2 3 4 5 6 7 8 9 10",
    "enquiries@nhs.net", "data.collections@nhs.net", "0300 303 5678", "0800 123 4567", "Gypsy or Irish Traveller",
    "Personal Health Budget", "version 1.2.3", "2026-11-22 10:00", "Florence Nightingale Ward", "LU1", "1950",
    "Hamilton Depression Scale", "Stockton on Tees", "Sue Ryder hospice", "Week 10 (telephone)", "John", "",
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in FOUND.items() for text in texts])
def test_each_kind_is_found_and_no_other(kind: str, text: str) -> None:
    assert SCANNER.find_kinds(text) == {kind}


@pytest.mark.parametrize("text", LET_THROUGH)
def test_what_only_looks_like_it_is_let_through(text: str) -> None:
    assert SCANNER.find_kinds(text) == set()


def test_many_texts_at_once_are_told_apart() -> None:
    texts = [text for texts in FOUND.values() for text in texts]
    wanted = {2 * n: {kind} for n, kind in enumerate(kind for kind, own in FOUND.items() for _ in own)}
    assert SCANNER.scan([part for text in texts for part in (text, "weekly visits")]) == wanted


def test_a_text_may_hold_several_kinds() -> None:
    assert SCANNER.find_kinds(f"Mrs Jones, {NHS}, LU1 2AB, 07700 900123, m@x.org, born 1/2/40") == set(IDENTIFIER_KINDS)


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("12/03/1950", date(1950, 3, 12)),
        ("1950-03-12", date(1950, 3, 12)),
        ("03/15/1950", date(1950, 3, 15)),  # no month is the 15th
        ("3rd of May 1948", date(1948, 5, 3)),
        ("31/02/1950", None),
        ("1950", None),
    ],
)
def test_written_dates(text: str, day: date | None) -> None:
    assert parse_written_date(text) == day


@pytest.mark.parametrize(
    ("day", "is_birth"),
    [
        (date(2000, 6, 1), True),  # 18 today
        (date(2000, 6, 2), False),
        (date(1908, 6, 1), True),
        (date(1907, 6, 2), True),
        (date(1907, 6, 1), False),  # 111 today
        (date(2000, 2, 29), True),
        (TODAY, False),
    ],
)
def test_an_undeclared_day_is_a_birth_from_18_to_110_years_back(day: date, is_birth: bool) -> None:
    assert is_birth_day(day, TODAY) is is_birth


@given(st.integers(0, 10**9 - 1))
@settings(max_examples=60)
def test_one_digit_in_eleven_completes_an_nhs_number_and_one_wrong_digit_never_does(number: int) -> None:
    nine = f"{number:09d}"
    fitting = [digit for digit in "0123456789" if is_nhs_number(nine + digit)]
    assert len(fitting) <= 1
    for digit in fitting:
        whole = nine + digit
        wrong = whole[:4] + str((int(whole[4]) + 1) % 10) + whole[5:]
        assert not is_nhs_number(wrong)
        assert "nhs_number" in SCANNER.find_kinds(f"No {whole[:3]} {whole[3:6]} {whole[6:]}") or SCANNER.is_own(whole)


@given(st.lists(st.text(max_size=40), max_size=6))
@settings(max_examples=100)
def test_texts_do_not_run_into_each_other(texts: list[str]) -> None:
    """What is found in many is what is found in each; the sign between texts stands in none of them."""
    clean = [text.replace("\x00", "") for text in texts]
    each = {n: SCANNER.find_kinds(text) for n, text in enumerate(clean)}
    assert SCANNER.scan(clean) == {n: kinds for n, kinds in each.items() if kinds}


# Columns and names ----------------------------------------------------------------------------------------------------

COLUMNS = {
    "name": [
        "Surname", "First name", "first_name", "lastName", "Name of service user", "Patient name", "Full Name",
        "Carer's name",         "next_of_kin_contact_name", "Social worker name",
    ],
    "perhaps_name": ["Name", "name", "Names"],
    "birth_date": ["DOB", "D.O.B.", "Date of birth", "birth_date", "patient_dob", "Born on"],
    "telephone": ["telephone_1", "Phone number", "Mobile", "ec_phone", "Tel"],
    "nhs_number": ["NHS number", "nhs_no", "NHS No."],
    "": [
        "Site name", "Name of Council", "redcap_event_name", "File name", "Variable name", "Drug name", "Year of birth",
        "birth_year", "Participant", "Collected on", "NHS England", "x" * 70, "",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "header"), [(kind, header) for kind, headers in COLUMNS.items() for header in headers]
)
def test_columns_by_what_they_are_called(kind: str, header: str) -> None:
    assert find_column_kind(header) == kind


@pytest.mark.parametrize(
    ("column", "value", "kind"),
    [
        ("name", "Zharko", "name"),
        ("name", "yes", None),
        ("name", "not known", None),
        ("name", "A17", None),
        ("name", "LUT-001", None),
        ("name", "last_name", None),
        ("perhaps_name", "Jean Smith", "name"),
        ("perhaps_name", "Birmingham", None),
        ("perhaps_name", "Rose Ward", None),
        ("birth_date", date(2011, 2, 12), "birth_date"),
        ("birth_date", "12.2.11", "birth_date"),
        ("birth_date", "2011", None),
        ("telephone", "415 555 1212", "telephone"),
        ("telephone", "made", None),
        ("nhs_number", "1234567890", "nhs_number"),
    ],
)
def test_what_stands_in_a_telling_column(column: str, value: object, kind: str | None) -> None:
    assert holds_identifier(column, value, SCANNER) == kind


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("John_Smith_questionnaire", {"name"}),
        ("return-JohnSmith-2018", {"name"}),
        ("smith john", {"name"}),
        ("return 943_476_5919", {"nhs_number"}),
        ("9434765919", {"nhs_number"}),
        ("LU1_2AB return", {"postcode"}),
        ("ipc_luton_2018-01-08_1", set()),
        ("EQ-5D-5L", set()),
        ("Victoria_Ward", set()),
        ("return 2018-06-01 (2)", set()),
    ],
)
def test_names_of_files_sheets_and_ranges(name: str, kinds: set[str]) -> None:
    assert find_kinds_in_name(name, SCANNER) == kinds


def test_places_in_words_and_as_codes() -> None:
    place = Place("sheet_4", "B7", "comment", "name")
    assert (place.words, place.code) == ("a name, in a comment", "sheet_4 B7 comment name")
    assert set(KIND_WORDS) == set(IDENTIFIER_KINDS)
    assert all(text == "" or text.startswith(("in ",)) for text in SPOT_WORDS.values())


# Workbooks ------------------------------------------------------------------------------------------------------------


def search(data: bytes, name: str = "return.xlsx", layout: Any = LAYOUT, scanner: Scanner = SCANNER) -> list[str]:
    package = inspect_package(data) if data[:2] == b"PK" else None
    return sorted(place.code for place in find_identifiers(data, package, name, layout, scanner))


def put(sheet: str, cell: str, value: object) -> Callable[[openpyxl.Workbook], object]:
    return lambda book: book[sheet].__setitem__(cell, value)


def comment(book: openpyxl.Workbook) -> None:
    book["Walking scale"]["B4"].comment = Comment(f"Ward clerk:\nring {NHS} back", "Ward clerk")


def hide(book: openpyxl.Workbook) -> None:
    page = book.create_sheet("Old")
    page["C9"] = NHS
    page.sheet_state = "veryHidden"


def hide_rows(book: openpyxl.Workbook) -> None:
    book["Mood"]["Z40"] = NHS
    book["Mood"].row_dimensions[40].hidden = True
    book["Mood"].column_dimensions["Z"].hidden = True


def footer(book: openpyxl.Workbook) -> None:
    book["Mood"].oddFooter.center.text = f"of {NHS}"


def define(book: openpyxl.Workbook) -> None:
    book.defined_names["John_Smith"] = DefinedName("John_Smith", attr_text="Mood!$A$1")


def check(book: openpyxl.Workbook) -> None:
    rule = DataValidation(type="list", formula1='"9434765919,9000000000"')
    rule.add("F9")
    book["Mood"].add_data_validation(rule)


def link(book: openpyxl.Workbook) -> None:
    book["Mood"]["H2"].hyperlink = "mailto:jean.smith@example.org"
    book["Mood"]["H2"].value = "write"


def custom(book: openpyxl.Workbook) -> None:
    book.custom_doc_props.append(StringProperty(name="About", value="Jean Smith"))


def birthday(book: openpyxl.Workbook) -> None:
    book["Mood"]["H3"] = datetime(1950, 3, 12)  # noqa: DTZ001 (as a spreadsheet keeps a day)


def columns(book: openpyxl.Workbook) -> None:
    page = book.create_sheet("Extra")
    for row in (
        ["Surname", "DOB", "Mobile", "Name"],
        ["Zharkovic", 18335, 7700900123, "Leeds"],
        ["Qwertz", None, None, "Hull"],
    ):
        page.append(row)


CHANGES = [
    (put("Mood", "A3", NHS), ["mood A3 cell nhs_number"]),
    (put("Mood", "A3", 9434765919), ["mood A3 cell nhs_number"]),
    (put("Mood", "H1", "Jean Smith"), ["mood H1 cell name"]),  # a header
    (put("Walking scale", "K9", '="943476" & "5919"'), []),  # a formula without a result
    (comment, ["walk B4 comment nhs_number"]),
    (hide, ["sheet_5 C9 cell nhs_number"]),
    (hide_rows, ["mood Z40 cell nhs_number"]),
    (footer, ["mood header_footer nhs_number"]),
    (define, ["defined_name name"]),
    (check, ["mood check nhs_number"]),
    (link, ["mood link email"]),
    (custom, ["document_property name"]),
    (birthday, ["mood H3 cell birth_date"]),
    (lambda book: book.create_sheet("Jean Smith"), ["sheet_5 sheet_name name"]),
    (lambda book: setattr(book.properties, "title", "Jean Smith"), ["document_property name"]),
    (lambda book: setattr(book.properties, "subject", f"for {NHS}"), ["document_property nhs_number"]),
    (lambda book: setattr(book.properties, "creator", f"for {NHS}"), ["document_property nhs_number"]),
    (lambda book: setattr(book.properties, "creator", "Jean Smith"), []),  # staff, as Excel writes by itself
    (lambda book: setattr(book.properties, "lastModifiedBy", "jean.smith@example.org"), []),
    (
        columns,
        ["sheet_5 A2 cell name", "sheet_5 A3 cell name", "sheet_5 B2 cell birth_date", "sheet_5 C2 cell telephone"],
    ),
]


@pytest.mark.parametrize(("change", "places"), CHANGES)
def test_every_place_of_a_workbook(change: Callable[[openpyxl.Workbook], object], places: list[str]) -> None:
    assert search(edit(make_return(), change)) == places


def test_a_clean_workbook_has_nothing() -> None:
    assert search(make_return()) == []
    assert search(edit(make_return(), lambda book: None)) == []


def test_the_name_of_the_file() -> None:
    assert search(make_return(), "inbox/John Smith.xlsx") == ["file_name name"]


def test_a_declared_column_may_hold_old_days_and_a_column_called_birth_may_hold_none() -> None:
    old = datetime(1950, 3, 12)  # noqa: DTZ001 (as a spreadsheet keeps a day)
    assert search(edit(make_return(), put("Mood", "E3", old))) == []
    assert search(edit(make_return(), put("Mood", "E3", "12/03/1950"))) == []
    child = edit(make_return(), lambda book: (put("Mood", "H1", "DOB")(book), put("Mood", "H3", "12.2.2011")(book)))
    assert search(child) == ["mood H3 cell birth_date"]


def test_texts_that_no_cell_shows_and_texts_in_several_types_are_found() -> None:
    def add(xml: bytes) -> bytes:
        rich = b"<si><r><t>943 476</t></r><r><t xml:space='preserve'> 5919</t></r></si></sst>"
        return re.sub(rb"</sst>\s*$", rich, xml)

    assert search(spoil_part(make_return(), "xl/sharedStrings.xml", add)) == ["other nhs_number"]


def test_texts_of_programs_that_share_none_and_results_of_formulas() -> None:
    parts = list_parts(make_return())
    sheet = next(name for name in parts if name.endswith("sheet4.xml"))
    inline = b'<row r="60"><c r="B60" t="inlineStr"><is><t>j.smith@example.org</t></is></c>'
    formula = b'<c r="C60" t="str"><f>A1&amp;B1</f><v>LU1 2AB</v></c></row></sheetData>'
    changed = parts[sheet].replace(b"</sheetData>", inline + formula)
    assert search(rezip(parts | {sheet: changed})) == ["mood B60 cell email", "mood C60 cell postcode"]


def test_a_text_box_and_what_is_left_of_another_workbook() -> None:
    box = b'<xdr:wsDr xmlns:xdr="x" xmlns:a="a"><a:t>Mrs Jo</a:t><a:t>Mrs Jones</a:t></xdr:wsDr>'
    cache = b'<pivotCacheDefinition xmlns="x"><s v="LU1 2AB"/></pivotCacheDefinition>'
    more = {"xl/drawings/drawing9.xml": box, "xl/pivotCache/pivotCacheDefinition1.xml": cache}
    assert search(rezip(list_parts(make_return()) | more)) == ["other postcode", "text_box name"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_of_text_is_searched_by_cells(encoding: str, delimiter: str) -> None:
    sink = io.StringIO()
    rows = [["participant_id", "surname", "dob", "note"], ["LUT-001", "Müller", "2011-02-12", f"see {NHS}; call"]]
    csv.writer(sink, delimiter=delimiter).writerows([*rows, ["LUT-002", "", "", "fine"]])
    found = search(sink.getvalue().encode(encoding), "export.csv")
    assert found == ["B2 cell name", "C2 cell birth_date", "D2 cell nhs_number"]


def test_an_old_spreadsheet_is_searched_as_far_as_it_can_be_read() -> None:
    data = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500) + b"write j.smith@example.org\x01" + bytes(200)
    assert search(data, "old.xls") == ["other email"]
    wide = bytes(64) + "no 943 476 5919".encode("utf-16-le") + bytes(64)
    assert search(wide, "old.xls") == ["other nhs_number"]


@pytest.mark.parametrize("part", ["word/document.xml", "content.xml"])
def test_what_is_no_workbook_is_searched_too(part: str) -> None:
    letter = rezip({"mimetype": b"x", part: b"<d><p>of Mrs Jones,</p><p>943 476 5919</p></d>"})
    places = find_identifiers(letter, None, "letter.docx", LAYOUT, SCANNER)
    assert [place.code for place in places] == ["other name", "other nhs_number"]
    assert find_identifiers(letter[:-30], None, "letter.docx", LAYOUT, SCANNER) == ()


def test_every_pack_passes_as_it_was_written() -> None:
    from tasks.packs import write_pack

    data = write_pack(STUDY, INSTRUMENTS, make_full_plan(STUDY, 40), PACK_LAYOUT)
    assert search(data, "pack.xlsx", PACK_LAYOUT, make_scanner(STUDY, TODAY)) == []


@pytest.mark.parametrize("study_id", list_studies())
def test_every_blank_return_passes_as_it_was_written(study_id: str) -> None:
    """With the sites' own bodies to choose from, and every instrument's labels."""
    study = load_study(study_id)
    layout = derive_return_layout(study, load_instruments(study))
    for site in study.sites:
        data = write_blank_return(layout, site.site_id, posted_on=study.starts_on, sending_number=1)
        assert search(data, f"{study_id}-{site.site_id}-return.xlsx", layout, make_scanner(study, TODAY)) == []


def list_labels(value: object, name: str = "") -> list[str]:
    """What people may read in a workbook of a definition: titles and labels, wherever they stand."""
    if isinstance(value, dict):
        return [text for key, part in value.items() for text in list_labels(part, key)]
    if isinstance(value, list):
        return [text for part in value for text in list_labels(part, name)]
    return [value] if isinstance(value, str) and name in ("title", "label", "short_title") else []


@pytest.mark.parametrize("instrument", sorted(path.name for path in (PROJECT / "instruments").iterdir()))
def test_no_label_of_an_instrument_looks_like_a_person(instrument: str) -> None:
    definition = tomllib.loads((PROJECT / "instruments" / instrument / "definition.toml").read_text(encoding="utf-8"))
    labels = list_labels(definition)
    assert labels
    assert {labels[place]: kinds for place, kinds in SCANNER.scan(labels).items()} == {}


@given(st.integers(2, 60), st.sampled_from(["A", "C", "H", "AB"]), st.sampled_from(list(FOUND)), st.data())
@settings(max_examples=12)
def test_wherever_it_stands_it_is_found_and_its_place_is_told(row: int, column: str, kind: str, data: Any) -> None:
    text = data.draw(st.sampled_from([text for text in FOUND[kind] if not text.startswith("=")]))
    found = search(edit(make_return(), put("Mood", f"{column}{row}", text)))
    assert f"mood {column}{row} cell {kind}" in found


@given(st.sampled_from(sorted(list_parts(make_return()))), st.data())
@settings(max_examples=60)
def test_a_part_that_was_altered_is_refused_or_searched(part: str, data: Any) -> None:
    """Bytes of any part replaced, left out or doubled: no crash, whatever is in it."""
    parts = list_parts(edit(make_return(), comment))
    content = bytearray(parts.get(part, b"<x/>"))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content)))
        n = data.draw(st.integers(0, 40))
        content[place : place + n] = data.draw(st.binary(max_size=12)) or bytes(content[place : place + n]) * 2
    try:
        package = inspect_package(rezip(parts | {part: bytes(content)}))
    except WorkbookUnreadable:
        return
    assert isinstance(find_identifiers(b"", package, "return.xlsx", LAYOUT, SCANNER), tuple)


def test_five_thousand_telling_columns_take_no_time() -> None:
    buffer = io.BytesIO()
    with xlsxwriter.Workbook(buffer, {"in_memory": True}) as book:
        page = book.add_worksheet("Wide")
        for column in range(5_000):
            page.write_string(0, column, f"Surname {column}")
            page.write_string(9, column, "not known")
        page.write_string(9, 4_999, "Zharkovic")
    started = perf_counter()
    assert search(buffer.getvalue()) == ["sheet_1 GJH10 cell name"]
    assert perf_counter() - started < 5
