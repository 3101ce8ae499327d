"""How well files are searched for what tells who a person is: recall and precision by kind, and how fast.

Run it with `python -m benchmarks.identifiers`, and with `--public FOLDER` (or PUBLIC_DATA in the environment) to
read the public data too: `redcap_longitudinal/data.csv`, an export with names, telephones, e-mails and dates of
birth of invented people, and `nhs_return_workbooks/*.xlsx`, returns of councils without any.

Workbooks of 2,000 cells are drawn with a seed: identifiers of the study, days, answers, amounts and remarks, with
the names of hospitals, councils, scales and medicines that look like people's. Into copies of them one identifier
is put, of each kind, in each kind of place. The names are written down here and were not taken from the lists that
the search uses. Found is what is named at its place and by its kind. Precision is the share of what was found that
had been put there, over all these workbooks and the clean ones. Exits 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import xlsxwriter  # type: ignore[import-untyped]  # it ships no types
from rich.console import Console
from rich.table import Table
from stdnum.gb import nhs

from study.identifier_scan import IDENTIFIER_KINDS, KIND_WORDS, IdentifierKind, Place
from study.pack_layout import derive_return_layout
from tasks.definitions import load_instruments, load_study
from tasks.identifier_search import find_identifiers, make_scanner
from tasks.workbook_inspection import inspect_package
from tasks.workbooks import read_return_workbook

SEED = 20_261_122
TODAY = dt.date(2018, 6, 1)
N_CLEAN = 300
N_EACH = 25  # workbooks for each kind and place
N_ROWS, N_COLUMNS = 100, 20
LEAST_RECALL, MOST_CLEAN_HELD, MOST_SCAN_SECONDS, MOST_SECONDS = 0.99, 0.01, 1.0, 2.0


def split(words: str) -> list[str]:
    return words.split()


def split_lines(lines: str) -> list[str]:
    return lines.split("|")


GIVEN = split(
    "Margaret Dorothy Joan Sheila Patricia Maureen Brenda Pauline Christine Susan Linda Julie Karen Tracey "
    "Sharon Michelle Lisa Emma Sarah Laura Gemma Hannah Chloe Jessica Ellie Ronald Kenneth Derek Raymond Brian "
    "Keith Alan Trevor Graham Stephen Ian Gary Darren Wayne Lee Craig Gavin Callum Connor Ryan Liam Kieran Harry "
    "Oliver Archie Mohammed Imran Asif Usman Bilal Yasmin Fatima Aisha Nadia Shabana Priya Anjali Rajesh Sanjay "
    "Vikram Amit Sunita Kiran Gurpreet Harpreet Manjit Olu Chinedu Ngozi Funmi Kwame Abena Kofi Blessing "
    "Precious Agnieszka Katarzyna Piotr Tomasz Marek Siobhan Niamh Declan Sean Rhys Gareth Megan Bronwen Hamish "
    "Fiona Morag Catriona Dmitri Elena Ioana Andrei Wei Mei Hiroshi Ayse"
)
FAMILY = split(
    "Smith Jones Taylor Brown Williams Wilson Johnson Davies Patel Robinson Wright Thompson Evans Walker White "
    "Roberts Green Hall Wood Jackson Clarke Clark Harrison Scott Cooper King Turner Martin Ward Hill Morris "
    "Moore Baker Harris Lewis Allen Khan Hussain Ahmed Begum Ali Shah Mahmood Akhtar Singh Kaur Gill Sharma "
    "Gupta Mehta Desai Adeyemi Okafor Mensah Owusu Boateng Nowak Kowalski Wisniewski Murphy O'Brien Kelly Byrne "
    "Llewellyn Pritchard MacDonald Campbell Fraser Sutherland Popescu Ivanova Chen Wong Nguyen Tanaka Yilmaz "
    "Higginbotham Entwistle Ramsbottom Thistlethwaite Featherstone Pemberton"
)
REMARKS = split_lines(
    "Asked for a second chair in the bathroom|Wheelchair service, review in May|"
    "Direct payment card was blocked twice|Nottingham City Council has been told|"
    "Seen at Queen Elizabeth Hospital|Moved to Rose Ward at St Thomas Hospital|"
    "Respite at Victoria House, Albert Road|Modified Barthel Index not done|Hamilton Depression Scale: refused|"
    "Takes paracetamol 500 mg, vitamin B12 5 mg|Sue Ryder hospice, weekly|Day centre on Tuesday and Friday|"
    "Care plan agreed in March 2018|Budget 1,250.00 a month|Telephoned twice, no answer|"
    "Team manager on leave until 4 June|Barking and Dagenham, Tower Hamlets|Carer at work; call after 17:30|"
    "Version 1.2 of the form|Not known|n/a|yes|no|Long-term conditions: COPD, diabetes|"
    "Blood pressure 120/80, weight 71.5 kg|Week 10 (telephone)|Prefers e-mail|See item 7.2.1, page 14|"
    "Physiotherapy 3 times a week|Christmas Day visit|Will not complete this time|Grace period ends|"
    "Mark as complete|Gypsy or Irish Traveller|Mental Health Act assessment on 1 April 2018|"
    "Mini Mental State 24 of 30|Stockton on Tees Borough Council|Bluebird Care, Red Cross, Age UK|"
    "Aids and adaptations: stair lift|Luton|North Shields"
)
LABELS = split_lines(
    "Participant|Collected on|Wave|Service|Hours a week|Cost|Remark|Site name|Method|Reference|Code of council|"
    "Stratum|Question 1|Question 2|Question 3|Question 4|Question 5|Question 6|Outcome|Drug name"
)
AREAS = split("B BS CV DE E EC EX HU IP LE LN LS LU M N NG NW OX PE PO S SE SR SW TR TS W WC")


def draw(rng: np.random.Generator, values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def draw_digits(rng: np.random.Generator, n: int) -> str:
    return "".join(str(digit) for digit in rng.integers(0, 10, n))


def draw_value(kind: IdentifierKind, rng: np.random.Generator) -> str:
    """An identifier of nobody."""
    if kind == "nhs_number":
        while True:
            nine = draw(rng, "4679") + draw_digits(rng, 8)
            for whole in (nine + digit for digit in "0123456789" if nhs.is_valid(nine + digit)):
                parts = (whole[:3], whole[3:6], whole[6:])
                return str(draw(rng, [whole, " ".join(parts), "-".join(parts)]))
    if kind == "name":
        given, family = draw(rng, GIVEN), draw(rng, FAMILY)
        title = draw(rng, ["Mr", "Mrs", "Miss", "Ms", "Dr"])
        forms = [f"{given} {family}", f"{family}, {given}", f"{title} {family}",
                 f"{given} {draw(rng, 'ABJM')} {family}", f"{given.upper()} {family.upper()}",
                 f"{title} {given[0]} {family}"]  # fmt: skip
        return str(draw(rng, forms))
    if kind == "postcode":
        outward = draw(rng, AREAS) + str(int(rng.integers(1, 20)))
        inward = str(int(rng.integers(10))) + "".join(draw(rng, "ABDEFGHJLNPQRSTUWXYZ") for _ in range(2))
        return str(draw(rng, [f"{outward} {inward}", f"{outward}{inward}", f"{outward} {inward}".lower()]))
    if kind == "email":
        person = f"{draw(rng, GIVEN)}.{draw(rng, FAMILY)}"
        local = draw(rng, [person, f"user{draw_digits(rng, 3)}", "m_jones+x"])
        return f"{local.lower()}@{draw(rng, ['example.org', 'gmail.com', 'nhs.net', 'btinternet.com', 'x.co.uk'])}"
    if kind == "telephone":
        rest, mobile = draw_digits(rng, 6), int(rng.integers(400, 1000))
        forms = [f"07{mobile} {rest}", f"07{mobile}{rest}", f"(01582) {rest}",
                 f"0115 9{rest[:2]} {draw_digits(rng, 4)}", f"+44 7{mobile} {rest}",
                 f"020 7{rest[:3]} {draw_digits(rng, 4)}", f"+1 415 55{rest[0]} {draw_digits(rng, 4)}"]  # fmt: skip
        return str(draw(rng, forms))
    day = TODAY - dt.timedelta(days=int(rng.integers(18 * 366, 110 * 365)))
    forms = [f"{day:%d/%m/%Y}", f"{day:%Y-%m-%d}", f"{day.day} {day:%B %Y}", f"{day:%d.%m.%Y}", f"born {day:%d/%m/%y}",
             f"DOB {day:%d-%m-%Y}"]  # fmt: skip
    return str(draw(rng, forms))


Fill = Callable[[xlsxwriter.Workbook, list[Any], str], Any]


def write_workbook(rng: np.random.Generator, fill: Fill | None = None, value: str = "") -> bytes:
    """A workbook of 2,000 cells on two sheets, and what `fill` puts into it."""
    buffer = io.BytesIO()
    with xlsxwriter.Workbook(buffer, {"in_memory": True}) as book:
        day = book.add_format({"num_format": "dd mmm yyyy"})
        sheets = [book.add_worksheet("Figures"), book.add_worksheet("Notes")]
        for page in sheets:
            page.write_row(0, 0, LABELS)
            for row in range(1, N_ROWS // 2):
                page.write_string(row, 0, f"LUT-P{draw_digits(rng, 5)}")
                page.write_datetime(row, 1, dt.datetime(2018, 1, 1) + dt.timedelta(days=int(rng.integers(150))), day)  # noqa: DTZ001 (as a spreadsheet keeps a day)
                page.write_string(row, 2, draw(rng, ["baseline", "follow_up_6m"]))
                for column in (3, 6, 7, 18, 19):
                    page.write_string(row, column, draw(rng, REMARKS))
                page.write_number(row, 4, int(rng.integers(0, 60)))
                page.write_number(row, 5, float(rng.integers(0, 5_000_000)) / 100)
                page.write_string(row, 8, draw(rng, ["post", "telephone", "face to face"]))
                page.write_string(row, 9, f"R{draw_digits(rng, 7)}")
                page.write_number(row, 10, int(rng.integers(100, 1000)))
                page.write_number(row, 11, int(rng.integers(1000, 60_000)))
                for column in range(12, 18):
                    page.write_number(row, column, int(rng.integers(0, 6)))
        if fill:
            fill(book, sheets, value)
    return buffer.getvalue()


def in_sheet(book: xlsxwriter.Workbook, _: list[Any], value: str) -> None:
    hidden = book.add_worksheet("Old")
    hidden.hide()
    hidden.write_string(7, 2, value)


def in_column(head: str) -> Fill:
    def fill(book: xlsxwriter.Workbook, sheets: list[Any], value: str) -> None:
        sheets[1].write_string(0, 21, head)
        sheets[1].write_string(4, 21, value)
        sheets[1].set_row(4, None, None, {"hidden": True})

    return fill


# place: (what puts it there, where it is to be named)
PLACES: dict[str, tuple[Fill, tuple[str, str, str]]] = {
    "cell": (lambda _, s, v: s[0].write_string(30, 6, v), ("sheet_1", "G31", "cell")),
    "remark": (
        lambda _, s, v: s[0].write_string(31, 6, f"Asked again, see {v}, no answer"),
        ("sheet_1", "G32", "cell"),
    ),
    "header": (lambda _, s, v: s[0].write_string(0, 20, v), ("sheet_1", "U1", "cell")),
    "comment": (lambda _, s, v: s[0].write_comment(9, 3, f"of {v}"), ("sheet_1", "D10", "comment")),
    "hidden sheet": (in_sheet, ("sheet_3", "C8", "cell")),
    "sheet name": (lambda b, s, v: b.add_worksheet(clean_title(v)), ("sheet_3", "", "sheet_name")),
    "footer": (lambda _, s, v: s[1].set_footer(f"&Lof {v}"), ("sheet_2", "", "header_footer")),
    "property": (lambda b, s, v: b.set_properties({"title": v}), ("", "", "document_property")),
    "own property": (lambda b, s, v: b.set_custom_property("note", v), ("", "", "document_property")),
    "link": (lambda _, s, v: s[1].write_url("Z9", "https://example.org", tip=v, string="see"), ("sheet_2", "", "link")),
    "file name": (lambda b, s, v: None, ("", "", "file_name")),
}
TELLING = {"name": "Surname", "birth_date": "DOB", "telephone": "Mobile", "nhs_number": "NHS number"}


def clean_title(value: str) -> str:
    """Signs that a sheet's or a file's name may not have."""
    return "".join("-" if sign in "[]:*?/\\" else sign for sign in value)[:31]


def list_places(kind: IdentifierKind) -> dict[str, tuple[Fill, tuple[str, str, str]]]:
    places = dict(PLACES)
    if kind in TELLING:
        places["column called so"] = (in_column(TELLING[kind]), ("sheet_2", "V5", "cell"))
    if kind == "nhs_number":
        fill: Fill = lambda _, s, v: s[0].write_number(3, 5, int(v.replace(" ", "").replace("-", "")))  # noqa: E731 (as the others are)
        places["number"] = (fill, ("sheet_1", "F4", "cell"))
    if kind == "birth_date":
        places["cell of a day"] = (put_day, ("sheet_1", "G6", "cell"))
    return places


def put_day(book: xlsxwriter.Workbook, sheets: list[Any], value: str) -> None:
    day = dt.datetime(1950, 1, 1) + dt.timedelta(days=37 * len(value))  # noqa: DTZ001 (as a spreadsheet keeps a day)
    sheets[0].write_datetime(5, 6, day, book.add_format({"num_format": "d/m/yyyy"}))


class Search:
    """The study's own search, with the places that it names."""

    def __init__(self) -> None:
        self.study = load_study("ipc")
        self.instruments = load_instruments(self.study)
        self.layout = derive_return_layout(self.study, self.instruments)
        self.scanner = make_scanner(self.study, TODAY)

    def run(self, data: bytes, name: str = "return.xlsx") -> tuple[Place, ...]:
        package = inspect_package(data) if data[:2] == b"PK" else None
        return find_identifiers(data, package, name, self.layout, self.scanner)


def measure_clean(search: Search, rng: np.random.Generator) -> Counter[str]:
    """Places by kind in clean workbooks; "held": workbooks with any."""
    found: Counter[str] = Counter()
    for _ in range(N_CLEAN):
        places = search.run(write_workbook(rng))
        found["held"] += bool(places)
        found.update(place.kind for place in places)
    return found


def measure_seeded(
    search: Search, rng: np.random.Generator
) -> Iterator[tuple[IdentifierKind, str, bool, list[IdentifierKind]]]:
    """(kind, place, whether it was found there, what else was named) of each workbook with one identifier."""
    for kind in IDENTIFIER_KINDS:
        for place, (fill, where) in list_places(kind).items():
            for _ in range(N_EACH):
                value = draw_value(kind, rng)
                if place == "column called so" and kind == "name":
                    value = str(draw(rng, FAMILY))
                named = f"{clean_title(value)}.xlsx" if place == "file name" else "return.xlsx"
                places = search.run(write_workbook(rng, fill, value), named)
                wanted = Place(*where, kind)  # type: ignore[arg-type]  # the table above names spots that there are
                yield kind, place, wanted in places, [other.kind for other in places if other != wanted]


_OF_REDCAP: dict[IdentifierKind, tuple[str, ...]] = {
    "name": ("first_name", "last_name", "next_of_kin_contact_name"),
    "telephone": ("telephone_1", "ec_phone", "next_of_kin_contact_phone"),
    "email": ("email",),
    "birth_date": ("dob",),
}


def measure_redcap(search: Search, data: bytes) -> dict[IdentifierKind, tuple[int, int, int]]:
    """(identifiers in the columns that hold them, found, found elsewhere) of the export, by kind."""
    rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"))))
    cells = {
        kind: {
            f"{_letters(rows[0].index(name))}{number}"
            for name in names if name in rows[0]
            for number, row in enumerate(rows[1:], start=2) if row[rows[0].index(name)].strip()
        }
        for kind, names in _OF_REDCAP.items()
    }  # fmt: skip
    places = search.run(data, "data.csv")
    named = {kind: {place.cell for place in places if place.kind == kind} for kind in cells}
    return {kind: (len(own), len(own & named[kind]), len(named[kind] - own)) for kind, own in cells.items()}


def _letters(column: int) -> str:
    return (chr(64 + column // 26) if column >= 26 else "") + chr(65 + column % 26)


def measure_speed(search: Search) -> tuple[float, float, float]:
    """Seconds to inspect, to search, and to read a workbook of 20,000 rows and 40 columns."""
    rng = np.random.default_rng(SEED)
    answers = rng.integers(1, 6, (20_000, 36))
    buffer = io.BytesIO()
    with xlsxwriter.Workbook(buffer, {"in_memory": True}) as book:
        page, day = book.add_worksheet("EQ-5D-5L"), book.add_format({"num_format": "dd mmm yyyy"})
        for row in range(20_000):
            page.write_row(row, 0, (f"LUT-P{row:05d}", "self", "baseline"))
            page.write_datetime(row, 3, dt.datetime(2018, 1, 1), day)  # noqa: DTZ001 (as a spreadsheet keeps a day)
            page.write_row(row, 4, answers[row].tolist())
    data = buffer.getvalue()
    started = perf_counter()
    package = inspect_package(data)
    inspected = perf_counter()
    find_identifiers(data, package, "return.xlsx", search.layout, search.scanner)
    searched = perf_counter()
    read_return_workbook(package, search.layout)
    return inspected - started, searched - inspected, perf_counter() - searched


def main() -> int:
    """0 if every target is met."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--public", default=os.environ.get("PUBLIC_DATA", ""), help="folder of the public data")
    public = parser.parse_args().public
    console, search, missed = Console(width=120), Search(), []

    clean = measure_clean(search, np.random.default_rng(SEED))
    put, found, extra, by_place = Counter[str](), Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    for kind, place, is_found, others in measure_seeded(search, np.random.default_rng(SEED + 1)):
        put[kind] += 1
        found[kind] += is_found
        by_place[kind, place] += not is_found
        extra.update(others)
    table = Table("Generated", "put there", "found", "recall", "found beside", "precision")
    for kind in IDENTIFIER_KINDS:
        recall = found[kind] / put[kind]
        beside = extra[kind] + clean[kind]
        precision = found[kind] / max(found[kind] + beside, 1)
        table.add_row(
            KIND_WORDS[kind], f"{put[kind]:,}", f"{found[kind]:,}", f"{recall:.4f}", f"{beside:,}", f"{precision:.4f}"
        )
        if recall < LEAST_RECALL:
            missed.append(f"recall of {KIND_WORDS[kind]}")
    console.print(table)
    for (what, place), n in sorted(by_place.items()):
        if n:
            console.print(f"  not found: {what} as {place}, {n} of {N_EACH}")
    console.print(f"Clean workbooks of {N_ROWS * N_COLUMNS:,} cells held: {clean['held']} of {N_CLEAN}")
    if clean["held"] > MOST_CLEAN_HELD * N_CLEAN:
        missed.append("clean workbooks held")

    folder = Path(public) if public else None
    if folder is None or not folder.is_dir():
        console.print("Public data: not read, since no folder of them was given (--public FOLDER).")
    else:
        table = Table("Public: REDCap export", "there", "found", "recall", "elsewhere")
        for kind, (n, n_found, n_other) in measure_redcap(
            search, (folder / "redcap_longitudinal" / "data.csv").read_bytes()
        ).items():
            table.add_row(KIND_WORDS[kind], str(n), str(n_found), f"{n_found / max(n, 1):.4f}", str(n_other))
            if n_found < LEAST_RECALL * n:
                missed.append(f"recall of {KIND_WORDS[kind]} in the public export")
        console.print(table)
        for file in sorted((folder / "nhs_return_workbooks").glob("*.xlsx")):
            places = search.run(file.read_bytes(), file.name)
            console.print(f"Public: {file.name}: {'held at ' + str(len(places)) + ' places' if places else 'not held'}")
            if places:
                missed.append(file.name)

    inspected, searched, read = measure_speed(search)
    console.print(
        f"A workbook of 20,000 x 40: inspected {inspected:.2f} s, searched {searched:.2f} s, read {read:.2f} s, in all "
        f"{inspected + searched + read:.2f} s"
    )
    if searched > MOST_SCAN_SECONDS or inspected + searched + read > MOST_SECONDS:
        missed.append("speed")
    console.print(
        f"Targets: recall at least {LEAST_RECALL} of each kind, at most {MOST_CLEAN_HELD:.0%} of clean workbooks held, "
        f"searched in less than {MOST_SCAN_SECONDS:g} s and read in at most {MOST_SECONDS:g} s. "
        + (f"Missed: {', '.join(missed)}." if missed else "All met.")
    )
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
