"""What sites really send, from inbox to receipt: nothing is lost, the rest is unharmed, and the answer is clear.

Every test sends workbooks through the tasks of a real workspace: its ledger, its files, its drop-boxes.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import re
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest
from openpyxl.utils.datetime import CALENDAR_MAC_1904
from openpyxl.workbook import Workbook

from study.events import (
    ActivityReported,
    ApproachAnswered,
    ConsentRecorded,
    QueryAnswered,
    QueryRaised,
    ReturnAccepted,
    ReturnRefused,
    Voided,
)
from study.state import derive_files, derive_participants, derive_queries, derive_returns
from tasks.files import FileArea, FolderArea, S3Area, _name_temporary, connect_s3
from tasks.returns import find_sites_with_files, read_answers, receive_site_returns, remove_leftovers
from tasks.settings import Settings
from tasks.workbook_inspection import MEGABYTE
from tasks.workbooks import write_return_workbook
from tasks.workspace import Workspace, create_workspace
from tests.return_workbooks import edit, find_part, list_parts, rezip, spoil_part

SITE = "702"
TODAY = date(2013, 3, 1)
ANN, BEN, CAT = "01-702-1001", "01-702-1002", "01-702-1003"
LARGEST_MB = 2
MMSE = {f"mmse{n:02d}": float(highest) for n, highest in enumerate([5, 5, 3, 5, 3, 9], start=1)}


def screening(*people: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "participant_id": list(people),
            "cohort": "alzheimers_disease",
            "screened_on": date(2013, 2, 1),
            "consented_on": date(2013, 2, 1),
            "consent_form_version": "1",
            "consent_scopes": "treatment; questionnaires",
        }
    )


def mmse(*people: str, **cells: object) -> pd.DataFrame:
    """One row for each person, from row 3 on."""
    fixed = {"respondent": "self", "form": "standard", "wave": "screening", "collected_on": date(2013, 2, 10)}
    return pd.DataFrame({"participant_id": list(people), **(fixed | MMSE | cells)})


@dataclass
class Post:
    """A site that puts files into its inbox, and a study that receives them."""

    workspace: Workspace
    site_id: str = SITE
    sent: int = 0

    def make(
        self, sheets: Mapping[str, pd.DataFrame] | None = None, *, change: Callable[[Workbook], object] | None = None,
        **about: object,
    ) -> bytes:  # fmt: skip
        about = {"study": "cdisc_pilot", "site": self.site_id, "posted_on": TODAY, "sending_number": 1} | about
        sheets = sheets or {"mmse": mmse(ANN, BEN, CAT)}
        data = write_return_workbook(self.workspace.layout, about, dict(sheets))
        return edit(data, change) if change else data

    def put(self, data: bytes, name: str = "return.xlsx") -> None:
        self.workspace.drop_box(self.site_id).post(name, data)

    def receive(self, *files: bytes, today: date = TODAY) -> Counter[str]:
        for number, data in enumerate(files):
            self.put(data, f"return {number}.xlsx")
        return receive_site_returns(self.workspace, self.site_id, today, "Mary")

    def begin(self) -> None:
        """Three people screened, who consented."""
        self.receive(self.make({"screening": screening(ANN, BEN, CAT)}, posted_on=date(2013, 2, 8)))

    @property
    def area(self) -> FileArea:
        return self.workspace.area.below("sites").below(self.site_id)

    def list_inbox(self) -> list[str]:
        return [stored.key for stored in self.area.list("inbox/", everything=True)]

    def read_receipts(self) -> dict[str, Receipt]:
        names = [stored.key for stored in self.area.list("receipts/")]
        return {name.removeprefix("receipts/"): Receipt.read(self.area.get(name)) for name in names}

    @property
    def receipt(self) -> Receipt:
        """The receipt of the last file; that of `begin` left out."""
        found = [receipt for name, receipt in self.read_receipts().items() if "2013-02-08" not in name]
        assert len(found) == 1
        return found[0]

    def count(self) -> dict[str, int]:
        """What the ledger holds of this site."""
        events = self.workspace.read_events()
        returns, files = derive_returns(events), derive_files(events)
        return {
            "accepted": int(returns["is_current"].sum()),
            "refused": len(events.frame(ReturnRefused)),
            "open": int((derive_queries(events)["status"] == "open").sum()),
            "quarantined": int((files["outcome"] == "quarantined").sum()),
        }

    def find_marks(self) -> dict[str, float]:
        """The standing answer to mmse01 of each person, as it is kept."""
        returns = derive_returns(self.workspace.read_events())
        answers = read_answers(self.workspace, returns[returns["is_current"]])
        answers = answers[answers["item"] == "mmse01"]
        return dict(zip(answers["participant_id"], answers["response"], strict=True))


@dataclass
class Receipt:
    """A receipt as a person at the site reads it."""

    summary: list[str]
    rows: list[dict[str, str]] = field(default_factory=list)

    @classmethod
    def read(cls, data: bytes) -> Receipt:
        workbook = openpyxl.load_workbook(io.BytesIO(data))
        summary = [str(cell) for row in workbook["Read me"].values for cell in row if cell is not None]
        rows = []
        if "To mend" in workbook.sheetnames:
            head, *body = workbook["To mend"].values
            rows = [{str(name): str(cell or "") for name, cell in zip(head, row, strict=True)} for row in body]
        workbook.close()
        return cls(summary, rows)

    @property
    def places(self) -> list[tuple[str, str, str]]:
        return [(row["Query"], row["Sheet"], row["Cell"]) for row in self.rows]

    def says(self, text: str) -> bool:
        return any(text in line for line in [*self.summary, *(cell for row in self.rows for cell in row.values())])


def open_post(folder: Path, **settings: Any) -> Post:
    settings = {"data_folder": folder, "settle_seconds": 10, "largest_return_mb": LARGEST_MB} | settings
    clock = datetime(2013, 3, 1, 6, 30, tzinfo=UTC)
    return Post(create_workspace("cdisc_pilot", settings=Settings(_env_file=None, **settings), clock=lambda: clock))


@pytest.fixture
def post(tmp_path: Path) -> Post:
    post = open_post(tmp_path)
    post.begin()
    return post


def read_ledger(workspace: Workspace) -> str:
    """All that the ledger holds, as one text, without the hashes, in which any digits may stand."""
    with workspace.ledger.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM ledger ORDER BY seq").all()
    return re.sub(r"[0-9a-f]{64}|\d\d:\d\d:\d\d\.\d{6}Z", "", "\n".join(str(tuple(row)) for row in rows))


def set_cell(sheet: str, cell: str, value: object) -> Callable[[Workbook], object]:
    return lambda workbook: workbook[sheet].__setitem__(cell, value)


# Rows and cells -------------------------------------------------------------------------------------------------------

STRANGE = "who lives behind a green door"

# what is sent, what is changed in it, the cell that is named, words of the receipt
CELLS = [
    pytest.param("A4", "01-702-9999", "does not know this participant", id="unknown participant"),
    pytest.param("A4", "01-706-1001", "belongs to another site", id="another site's participant"),
    pytest.param("A4", STRANGE, "not an identifier of the study", id="a name for an identifier"),
    pytest.param("B4", STRANGE, "respondent does not belong", id="unknown respondent"),
    pytest.param("D4", "visit: " + STRANGE, "not one of the study's waves", id="unknown wave"),
    pytest.param("F4", 77, "not one of the answers", id="level out of range"),
    pytest.param("F4", STRANGE, "text where a number belongs", id="text where a number belongs"),
    pytest.param("F4", "=2+2", "There is a formula", id="formula"),
    pytest.param("E4", "=TODAY()", "There is a formula", id="formula for a date"),
    pytest.param("E4", date(2013, 3, 2), "lies in the future", id="a date in the future"),
    pytest.param("E4", "next week", "cannot be understood", id="no date"),
    pytest.param("E4", "02/28/2013", "cannot be understood", id="the month first"),
    pytest.param("E4", "28/02/13", "cannot be understood", id="a year of two digits"),
    pytest.param("E4", "41321", "cannot be understood", id="a day's number as text"),
    pytest.param("E4", 7, "cannot be understood", id="a day in 1900"),
    pytest.param("E4", None, "The date is missing", id="no date at all"),
    pytest.param("F4", "3 - severe", "text where a number belongs", id="a code with a label of nobody's"),
    pytest.param("F4", "n/a", "text where a number belongs", id="n/a"),
    pytest.param("F4", "-", "text where a number belongs", id="a dash"),
    pytest.param("F4", "\u2713", "text where a number belongs", id="a tick"),
    pytest.param("F4", "x", "text where a number belongs", id="a cross"),
    pytest.param("F4", "4,5", "text where a number belongs", id="two answers, or a decimal comma"),
    pytest.param("F4", "4 / 5", "text where a number belongs", id="two answers"),
    pytest.param("F4", "4-5", "text where a number belongs", id="a range"),
    pytest.param("F4", date(2013, 5, 4), "a date or another kind", id="two answers that became a date"),
    pytest.param("F4", True, "a date or another kind", id="TRUE"),
    pytest.param("F4", 4.5, "not one of the answers", id="between two levels"),
    pytest.param("F4", "\u00bd", "text where a number belongs", id="a half in one sign"),
    pytest.param("F4", "#N/A", "shows an error", id="an error"),
]


@pytest.mark.parametrize(("cell", "value", "words"), CELLS)
def test_one_bad_cell_stops_its_row_alone(post, cell, value, words):
    counts = post.receive(post.make(change=set_cell("MMSE", cell, value)))
    assert (counts["files"], counts["records accepted"], counts["records refused"]) == (1, 2, 1)
    assert post.count() == {"accepted": 2, "refused": 1, "open": 1, "quarantined": 0}
    assert post.find_marks() == {ANN: 5.0, CAT: 5.0}
    assert post.receipt.places == [("702-0001", "MMSE", cell)]
    assert post.receipt.says(words)
    assert post.receipt.says("Part of this workbook was accepted")
    assert post.list_inbox() == []
    ledger = read_ledger(post.workspace)
    for stranger in ("9999", "706", "green door", "77", "2+2", "TODAY", "next week"):
        assert stranger not in ledger
        assert not post.receipt.says(stranger)


@pytest.mark.parametrize(
    "value",
    [4, 4.0, "4", "4.0", "\u00a04\u00a0", "4\u200b", "\u3000\uff14", "+4"],
    ids=["number", "decimal", "text", "text with decimals", "no-break spaces", "zero width", "full width", "sign"],
)
def test_a_number_is_one_however_it_is_typed(post, value):
    counts = post.receive(post.make(change=set_cell("MMSE", "F4", value)))
    assert (counts["records accepted"], counts["queries"]) == (3, 0)
    assert post.find_marks() == {ANN: 5.0, BEN: 4.0, CAT: 5.0}


@pytest.mark.parametrize(
    "value",
    [
        date(2013, 2, 10), datetime.fromisoformat("2013-02-10T09:30"), 41315, "10/02/2013", "10 Feb 2013",
        "2013-02-10T09:30:00Z",
    ],
)  # fmt: skip
def test_a_day_is_one_however_it_is_typed(post, value):
    counts = post.receive(post.make(change=set_cell("MMSE", "E4", value)))
    assert (counts["records accepted"], counts["queries"]) == (3, 0)
    accepted = post.workspace.read_events().frame(ReturnAccepted)
    assert set(accepted["occurred_on"].dt.date) == {date(2013, 2, 10)}


def test_days_of_a_workbook_that_counts_from_1904(post):
    counts = post.receive(post.make(change=lambda book: setattr(book, "epoch", CALENDAR_MAC_1904)))
    assert (counts["records accepted"], counts["queries"]) == (3, 0)
    accepted = post.workspace.read_events().frame(ReturnAccepted)
    assert set(accepted["occurred_on"].dt.date) == {date(2013, 2, 10)}


HACHINSKI = ["absent", "Present", "1 - present", "0 = absent", "1: present", "not answered", "-8 refused", "absent"]


def test_words_of_the_questionnaire_are_their_codes_and_that_is_recorded(post):
    items = [item.id for item in post.workspace.instruments["hachinski"].items][: len(HACHINSKI)]
    rest = {item.id: 0.0 for item in post.workspace.instruments["hachinski"].items}
    sheet = mmse(ANN, BEN)[["participant_id", "respondent", "form", "wave", "collected_on"]]
    sheet = sheet.assign(**(rest | dict(zip(items, HACHINSKI, strict=True))))
    counts = post.receive(post.make({"hachinski": sheet}))
    assert (counts["records accepted"], counts["records refused"], counts["queries"]) == (2, 0, 1)
    returns = derive_returns(post.workspace.read_events())
    answers = read_answers(post.workspace, returns[returns["is_current"]]).set_index(["participant_id", "item"])
    own = answers.loc[ANN].loc[items]
    assert own["response"].tolist()[:5] == [0, 1, 1, 0, 1]
    assert own["missing_reason"].tolist()[5:7] == ["not_answered", "refused"]
    [row] = post.receipt.rows
    assert (row["Importance"], row["Sheet"]) == ("Please check", post.workspace.layout.find_title("hachinski"))
    assert post.receipt.says("we took the codes that they stand for")
    assert post.receipt.says("16 cells")


@pytest.mark.parametrize("word", ["presen", "1 - absent", "2 - present", "present?", "absent/present", "1 present 1"])
def test_words_that_are_not_exactly_those_of_one_code_are_asked_about(post, word):
    keys = mmse(ANN)[["participant_id", "respondent", "form", "wave", "collected_on"]]
    sheet = keys.assign(**{item.id: 0.0 for item in post.workspace.instruments["hachinski"].items})
    post.receive(post.make({"hachinski": sheet}, change=set_cell("Hachinski", "F3", word)))
    assert post.count() == {"accepted": 0, "refused": 1, "open": 1, "quarantined": 0}
    assert post.receipt.says("text where a number belongs")


def hide_and_filter(workbook: Workbook) -> None:
    page = workbook["MMSE"]
    page.column_dimensions["F"].hidden = True
    page.row_dimensions[4].hidden = True
    page.auto_filter.ref = "A2:K5"
    page.auto_filter.add_filter_column(0, [ANN])


def test_hidden_columns_and_filtered_rows_are_read(post):
    """What a person cannot see any more is in the file all the same."""
    assert post.receive(post.make(change=hide_and_filter))["records accepted"] == 3
    assert post.find_marks() == {ANN: 5.0, BEN: 5.0, CAT: 5.0}


def test_merged_labels_do_no_harm_and_merged_codes_are_told(post):
    post.receive(post.make({"mmse": mmse(ANN)}, change=lambda book: book["MMSE"].merge_cells("F1:H1")))
    assert post.count()["accepted"] == 1
    merged = post.make({"mmse": mmse(BEN)}, change=lambda book: book["MMSE"].merge_cells("F2:G2"), sending_number=2)
    post.receive(merged)
    assert post.count() == {"accepted": 2, "refused": 0, "open": 1, "quarantined": 0}  # the labels say which is which
    assert list(post.workspace.read_events().frame(QueryRaised)["rule"]) == ["merged_cells"]


def test_a_label_above_the_code_of_another_question_stops_the_sheet(post):
    """Somebody deleted one cell of the labels, and the rest moved to the left: or of the codes?"""

    def move(workbook: Workbook) -> None:
        page = workbook["MMSE"]
        for column in range(6, 11):
            page.cell(1, column).value = page.cell(1, column + 1).value

    post.receive(post.make(change=move))
    assert post.count()["accepted"] == 0
    assert post.receipt.says("belongs to another question than its code")
    assert [row["Cell"] for row in post.receipt.rows] == [f"{letter}1:{letter}2" for letter in "FGHIJ"]


def test_a_header_twice_five_thousand_columns_and_a_million_empty_rows(tmp_path):
    post = open_post(tmp_path, largest_return_mb=50)
    post.begin()

    def spoil(workbook: Workbook) -> None:
        page = workbook["MMSE"]
        for column in range(1, 12):
            page.cell(6, column).value = page.cell(2, column).value
        for column in range(12, 5_012):
            page.cell(2, column).value = f"note {column}"

    data = post.make(change=spoil)
    rows = b"".join(b'<row r="%d" ht="15"><c r="A%d" s="1"/></row>' % (row, row) for row in range(1_000, 1_048_577))
    data = spoil_part(data, find_part(data, "MMSE"), lambda xml: xml.replace(b"</sheetData>", rows + b"</sheetData>"))
    started = time.process_time()
    counts = post.receive(data)
    assert time.process_time() - started < 5
    assert (counts["records accepted"], counts["records refused"]) == (3, 0)
    assert [row["Importance"] for row in post.receipt.rows] == ["Please check"]  # of the columns


def test_the_value_that_a_formula_had_when_it_was_saved_is_not_taken(post):
    data = post.make()
    formula = re.compile(rb'<c r="F4"([^>]*)><v>5</v></c>')
    spoilt = spoil_part(
        data, find_part(data, "MMSE"), lambda xml: formula.sub(rb'<c r="F4"\1><f>2+3</f><v>5</v></c>', xml)
    )
    assert post.receive(spoilt)["records accepted"] == 2
    assert post.receipt.places == [("702-0001", "MMSE", "F4")]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_a_table_of_text_in_an_inbox_is_answered_and_not_guessed_at(post, encoding):
    """Nobody says which sheet and which site it is: it comes in by a map of its source, `returns from-export`."""
    post.receive("participant_id;mmse01;note\n01-702-1001;4,5;caf\u00e9\n".encode(encoding))
    assert post.count() == {"accepted": 0, "refused": 0, "open": 1, "quarantined": 1}
    assert post.receipt.says("not an Excel workbook")


def test_the_whole_table_of_a_bad_file_in_one_receipt(post):
    """All faults at once, each by its place, and the one sound record accepted."""

    def spoil(workbook: Workbook) -> None:
        page = workbook["MMSE"]
        page["A3"], page["F4"] = "01-702-9999", "four"
        workbook.create_sheet(STRANGE[:20])["A1"] = STRANGE
        page["M2"] = STRANGE

    post.receive(post.make(change=spoil))
    assert [(row["Sheet"], row["Cell"], row["Importance"]) for row in post.receipt.rows] == [
        ("MMSE", "M2", "Please check"),
        ("MMSE", "A3", "Must be mended"),
        ("MMSE", "F4", "Must be mended"),
        ("sheet 3", "", "Please check"),
    ]
    assert post.count() == {"accepted": 1, "refused": 2, "open": 4, "quarantined": 0}
    assert "green door" not in read_ledger(post.workspace)


def test_a_missing_column_stops_its_sheet_and_no_other(post):
    def drop(workbook: Workbook) -> None:
        workbook["MMSE"].delete_cols(7)

    hachinski = mmse(ANN)[["participant_id", "respondent", "form", "wave", "collected_on"]]
    hachinski = hachinski.assign(**{item.id: 0.0 for item in post.workspace.instruments["hachinski"].items})
    post.receive(post.make({"mmse": mmse(ANN, BEN), "hachinski": hachinski}, change=drop))
    assert post.count() == {"accepted": 1, "refused": 2, "open": 1, "quarantined": 0}
    assert post.receipt.says("A column is missing")
    assert post.receipt.says("mmse02")


def test_an_unknown_sheet_is_told_and_harms_nothing(post):
    post.receive(post.make(change=lambda workbook: workbook.create_sheet(STRANGE).__setitem__("A1", STRANGE)))
    assert post.count() == {"accepted": 3, "refused": 0, "open": 1, "quarantined": 0}
    assert post.receipt.says("not one of the study's")
    assert post.receipt.says("Everything in this workbook was accepted")
    assert not post.receipt.says("green door")
    assert "green door" not in read_ledger(post.workspace)


@pytest.mark.parametrize(
    ("second", "accepted", "refused", "n_open"),
    [pytest.param(5.0, 2, 0, 0, id="the same answers"), pytest.param(4.0, 1, 2, 1, id="other answers")],
)
def test_a_duplicate_participant_in_one_file(post, second, accepted, refused, n_open):
    rows = mmse(ANN, ANN, BEN)
    rows.loc[1, "mmse01"] = second
    counts = post.receive(post.make({"mmse": rows}))
    assert post.count() == {"accepted": accepted, "refused": refused, "open": n_open, "quarantined": 0}
    assert counts["records repeated"] == (accepted == 2)


# The same again, other answers ----------------------------------------------------------------------------------------


def test_the_same_file_under_another_name_changes_nothing(post):
    data = post.make()
    post.receive(data)
    head = post.workspace.ledger.head()
    post.put(data, "renamed.xlsx")
    counts = receive_site_returns(post.workspace, SITE, TODAY, "Mary")
    assert counts == Counter({"files": 1, "files repeated": 1})
    assert post.workspace.ledger.head() == head
    assert post.list_inbox() == []
    again = next(receipt for name, receipt in post.read_receipts().items() if "received-before" in name)
    assert again.says("We had received this very file before")


def test_the_same_answers_in_another_workbook_count_once(post):
    post.receive(post.make())
    counts = post.receive(post.make(sending_number=2))
    assert (counts["records accepted"], counts["records repeated"]) == (0, 3)
    assert post.count() == {"accepted": 3, "refused": 0, "open": 0, "quarantined": 0}


def test_conflicting_answers_are_asked_about_and_settled_by_a_correction(post):
    post.receive(post.make())
    post.receive(post.make({"mmse": mmse(ANN, BEN, mmse01=1.0)}, sending_number=2))
    assert post.count() == {"accepted": 3, "refused": 2, "open": 2, "quarantined": 0}
    assert post.find_marks() == {ANN: 5.0, BEN: 5.0, CAT: 5.0}
    receipt = post.read_receipts()
    assert any(entry.says("These answers differ from those accepted earlier") for entry in receipt.values())
    post.receive(post.make({"mmse": mmse(ANN, BEN, CAT, mmse01=1.0)}, correction=1))
    assert post.find_marks() == {ANN: 1.0, BEN: 1.0, CAT: 1.0}
    assert post.count()["open"] == 0


def test_files_of_one_inbox_count_in_their_order_whatever_their_names(tmp_path):
    post = open_post(tmp_path)
    first = post.make({"screening": screening(ANN)}, posted_on=date(2013, 2, 8))
    second = post.make({"mmse": mmse(ANN)}, posted_on=date(2013, 2, 15))
    third = post.make({"mmse": mmse(ANN, mmse01=2.0)}, posted_on=date(2013, 2, 15), correction=1)
    for name, data in (("a", third), ("b", second), ("c", first), ("d", b"nothing of the kind")):
        post.put(data, f"{name}.xlsx")
    counts = receive_site_returns(post.workspace, SITE, TODAY, "Mary")
    assert (counts["records accepted"], counts["records superseded"], counts["records refused"]) == (2, 1, 0)
    assert (counts["files"], counts["files quarantined"]) == (4, 1)
    assert post.find_marks() == {ANN: 2.0}


# Whole files ----------------------------------------------------------------------------------------------------------


def make_bomb(post: Post) -> bytes:
    """A return one sheet of which unpacks to sixty megabytes of blanks."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in list_parts(post.make()).items():
            with archive.open(name, "w") as part:
                part.write(content)
                for _ in range(60 if name.endswith("sheet2.xml") else 0):
                    part.write(b" " * (1 << 20))
    return buffer.getvalue()


def make_macro(post: Post) -> bytes:
    return rezip(list_parts(post.make()) | {"xl/vbaProject.bin": b"macro"})


def make_empty(_: Post) -> bytes:
    buffer = io.BytesIO()
    workbook = Workbook()
    workbook.save(buffer)
    return buffer.getvalue()


FILES = [
    pytest.param(make_empty, "This workbook is empty", id="an empty workbook"),
    pytest.param(lambda _: b"", "This workbook is empty", id="an empty file"),
    pytest.param(lambda post: post.make({"mmse": mmse()}), "holds a row", id="a workbook without a row"),
    pytest.param(lambda post: post.make()[:-900], "The end of this file is missing", id="a truncated zip"),
    pytest.param(make_bomb, "We open at most", id="a zip bomb"),
    pytest.param(make_macro, "holds macros", id="a macro workbook"),
    pytest.param(lambda _: b"participant_id;mmse01\n", "not an Excel workbook", id="not a workbook"),
    pytest.param(lambda _: os.urandom(LARGEST_MB * MEGABYTE), "not an Excel workbook", id="just small enough"),
    pytest.param(lambda _: os.urandom(LARGEST_MB * MEGABYTE + 1), "We read at most 2 MB", id="too large"),
    pytest.param(lambda post: post.make(site="706"), "another site", id="another site's file"),
    pytest.param(lambda post: post.make(posted_on=date(2013, 3, 2)), "lies in the future", id="posted tomorrow"),
    pytest.param(
        lambda post: post.make(change=lambda book: book.remove(book["About"])), "no sheet About", id="without About"
    ),
    pytest.param(
        lambda post: post.make(change=set_cell("About", "C4", STRANGE)), "names another study", id="another study"
    ),
]


@pytest.mark.parametrize(("make", "words"), FILES)
def test_a_bad_file_is_kept_and_answered_and_the_run_goes_on(post, make, words):
    bad, good = make(post), post.make({"mmse": mmse(ANN)}, sending_number=9)
    post.put(bad, f"0 {STRANGE}.xlsx")
    post.put(good, "1.xlsx")
    counts = receive_site_returns(post.workspace, SITE, TODAY, "Mary")
    assert (counts["files"], counts["files quarantined"], counts["records accepted"]) == (2, 1, 1)
    assert post.count() == {"accepted": 1, "refused": 0, "open": 1, "quarantined": 1}
    assert post.list_inbox() == []
    files = derive_files(post.workspace.read_events())
    held = files[files["outcome"] == "quarantined"].iloc[0]
    if held["reason"] == "file_too_large":
        [aside] = post.area.list("set_aside/")
        assert aside.size == held["size_bytes"] == len(bad)
    else:
        assert post.workspace.content.get(held["sha256"]) == bad
    receipts = post.read_receipts().values()
    assert sum(receipt.says(words) and receipt.says("put aside unread") for receipt in receipts) == 1
    assert "green door" not in read_ledger(post.workspace)


def test_two_hundred_megabytes_are_refused_unread(tmp_path):
    post = open_post(tmp_path, largest_return_mb=50)
    inbox = tmp_path / "cdisc_pilot" / "sites" / SITE / "inbox"
    inbox.mkdir(parents=True)
    with (inbox / "huge.xlsx").open("wb") as file:
        file.truncate(200 << 20)
    counts = receive_site_returns(post.workspace, SITE, TODAY, "Mary")
    assert counts["files quarantined"] == 1
    assert post.receipt.says("We read at most 50 MB")
    assert [stored.size for stored in post.area.list("set_aside/")] == [200 << 20]
    assert receive_site_returns(post.workspace, SITE, TODAY, "Mary") == Counter()


def test_the_same_bad_bytes_from_two_sites(tmp_path):
    post = open_post(tmp_path)
    other = Post(post.workspace, "706")
    for site in (post, other):
        site.receive(b"")
        assert site.receipt.places[0][0] == f"{site.site_id}-0001"
    assert "conflict" not in read_ledger(post.workspace)


def test_a_file_still_being_written_is_left_and_told_of(tmp_path, caplog):
    post = open_post(tmp_path)
    post.workspace.clock = lambda: datetime.now(UTC)
    data = post.make({"screening": screening(ANN)})
    post.put(data[:2000], f"{STRANGE}.xlsx")
    post.put(b"x", ".DS_Store")
    assert find_sites_with_files(post.workspace) == [SITE]
    counts = receive_site_returns(post.workspace, SITE, TODAY, "Mary")
    assert counts == Counter({"files unfinished": 1, "files ignored": 1})
    assert len(post.list_inbox()) == 2
    assert "1 still being written" in caplog.text
    assert "green door" not in caplog.text
    post.put(data, f"{STRANGE}.xlsx")
    assert receive_site_returns(post.workspace, SITE, TODAY, "Mary")["log entries"] == 2
    assert post.list_inbox() == ["inbox/.DS_Store"]


def test_an_empty_inbox_is_no_work(tmp_path):
    post = open_post(tmp_path)
    assert find_sites_with_files(post.workspace) == []
    assert receive_site_returns(post.workspace, SITE, TODAY, "Mary") == Counter()


def test_leftovers_of_killed_runs_are_removed_after_a_day(post):
    folder = post.workspace.folder / "sites" / SITE
    assert isinstance(post.workspace.area, FolderArea)
    assert remove_leftovers(post.workspace) == 0
    old, new = folder / _name_temporary(), folder / _name_temporary()
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 100_000,) * 2)
    assert remove_leftovers(post.workspace) == 1
    assert new.exists()


# The same on every store ----------------------------------------------------------------------------------------------


@pytest.fixture
def any_post(ledger_url: str, file_area: FileArea, tmp_path: Path) -> Iterator[Post]:
    post = open_post(tmp_path, database_url=ledger_url)
    post.workspace.area = file_area
    post.workspace.__dict__.pop("content", None)
    post.begin()
    yield post
    post.workspace.ledger.close()


def test_bad_rows_files_and_corrections_on_every_store(any_post):
    post = any_post
    post.put(post.make(change=set_cell("MMSE", "F4", 77)), "a.xlsx")
    post.put(b"no workbook", "b.xlsx")
    post.put(os.urandom(LARGEST_MB * MEGABYTE + 1), "c.xlsx")
    counts = receive_site_returns(post.workspace, SITE, TODAY, "Mary")
    assert (counts["files"], counts["files quarantined"]) == (3, 2)
    assert post.count() == {"accepted": 2, "refused": 1, "open": 3, "quarantined": 2}
    post.receive(post.make(correction=1))
    assert post.count() == {"accepted": 3, "refused": 1, "open": 2, "quarantined": 2}
    assert post.list_inbox() == []
    assert post.workspace.ledger.verify().is_clean


@pytest.mark.parametrize("name", ["a/b/../../../c.xlsx", "two\nlines.xlsx", "..\\up.xlsx", "=cmd|x.xlsx", "ünï.xlsx"])
@pytest.mark.parametrize("is_return", [True, False])
def test_a_name_is_never_trusted_in_a_bucket(tmp_path, name, is_return):
    """A bucket's keys may hold what no file system would: separators, line ends, ways up."""
    from moto import mock_aws  # slow to import, and the processes of the test below import this module

    with mock_aws():
        client = connect_s3(access_key="k", secret_key="s", region="us-east-1")
        client.create_bucket(Bucket="odd")
        post = open_post(tmp_path)
        post.workspace.area = S3Area("odd", "study", client)
        data = post.make({"screening": screening(ANN)}) if is_return else b"nothing"
        client.put_object(Bucket="odd", Key=f"study/sites/{SITE}/inbox/{name}", Body=data)
        counts = receive_site_returns(post.workspace, SITE, TODAY, "Mary")
        assert (counts["log entries"], counts["files quarantined"]) == ((2, 0) if is_return else (0, 1))
        assert post.list_inbox() == []
        assert len(post.read_receipts()) == 1
        ledger = read_ledger(post.workspace)
        for part in ("lines", "c.xlsx", "up.xlsx", "cmd", "ünï"):
            assert part not in ledger
        client.close()


# Crashes and crowds ---------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here."""


def list_facts(workspace: Workspace) -> list[tuple[str, int, str]]:
    """What the ledger says, apart from when it was said."""
    with workspace.ledger.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT key, revision, content_hash FROM ledger ORDER BY seq").all()
    return [tuple(row) for row in rows]


STEPS = {
    "before the file is kept": ("tasks.files.ContentStore.put", 1, False),
    "after the file is kept": ("tasks.files.ContentStore.put", 1, True),
    "before the answers are kept": ("tasks.files.ContentStore.put", 2, False),
    "after the answers are kept": ("tasks.files.ContentStore.put", 2, True),
    "before the append": ("tasks.ledger.Writing.append", 1, False),
    "after the append": ("tasks.ledger.Writing.append", 1, True),
    "before the receipt": ("tasks.files.DropBox.leave_receipt", 1, False),
    "after the receipt, before the commit": ("tasks.files.DropBox.leave_receipt", 1, True),
    "before the file is cleared": ("tasks.files.DropBox.clear", 1, False),
    "after the file is cleared": ("tasks.files.DropBox.clear", 1, True),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_run_that_was_killed_is_made_good_by_the_next(tmp_path, monkeypatch, step):
    def spoil(workbook: Workbook) -> None:
        workbook["MMSE"]["F4"] = 77

    calm, killed = open_post(tmp_path / "calm"), open_post(tmp_path / "killed")
    for post in (calm, killed):
        post.begin()
    data = calm.make(change=spoil)
    calm.receive(data)

    target, call, after = STEPS[step]
    module, owner_name, name = target.rsplit(".", 2)
    owner = getattr(__import__(module, fromlist=[owner_name]), owner_name)
    original = getattr(owner, name)
    calls = 0

    def die(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        result = original(*arguments, **options) if calls < call or after else None
        if calls == call:
            raise Killed
        return result

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, die)
        with pytest.raises(Killed):
            killed.receive(data)
    again = open_post(tmp_path / "killed")
    receive_site_returns(again.workspace, SITE, TODAY, "Mary")
    assert list_facts(again.workspace) == list_facts(calm.workspace)
    assert again.workspace.ledger.verify().is_clean
    assert again.list_inbox() == []
    receipts = {name: receipt for name, receipt in again.read_receipts().items() if "received-before" not in name}
    assert receipts == calm.read_receipts()
    assert again.find_marks() == {ANN: 5.0, CAT: 5.0}


def receive_together(folder: Path, start: Any) -> None:
    post = open_post(folder)
    start.wait()
    receive_site_returns(post.workspace, SITE, TODAY, "Mary")


def test_two_processes_that_receive_one_inbox_count_nothing_twice(tmp_path):
    calm, crowd = open_post(tmp_path / "calm"), open_post(tmp_path / "crowd")
    for post in (calm, crowd):
        post.begin()
        for number in range(1, 7):
            rows = mmse(ANN, BEN, wave=f"WEEK {2 * number}" if number < 5 else "screening")
            post.put(post.make({"mmse": rows}, sending_number=number), f"{number}.xlsx")
    receive_site_returns(calm.workspace, SITE, TODAY, "Mary")
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    processes = [context.Process(target=receive_together, args=(tmp_path / "crowd", start)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert sorted(list_facts(crowd.workspace)) == sorted(list_facts(calm.workspace))
    assert crowd.workspace.ledger.verify().is_clean
    assert crowd.list_inbox() == []
    events = crowd.workspace.read_events()
    assert events.frame(ReturnAccepted)["key"].is_unique
    assert len(events.frame(QueryRaised)) == 0
    assert len(derive_participants(events)) == 3


# Logs of people, figures and answers ----------------------------------------------------------------------------------

LUTON = ["LUT-P00013", "LUT-P00021", "LUT-P00037"]
AUTUMN = date(2017, 10, 2)


def approach(*people: str, **cells: object) -> pd.DataFrame:
    fixed = {"cohort": "mental_health", "screened_on": date(2017, 9, 4), "approached_on": date(2017, 9, 5)}
    return pd.DataFrame({"participant_id": list(people), **(fixed | {"outcome": "agreed"} | cells)})


def consent(*people: str, **cells: object) -> pd.DataFrame:
    fixed = {"consented_on": date(2017, 9, 11), "consent_form_version": "1.0", "consent_scopes": "questionnaires"}
    details = {"route": "self", "taken_by": "site_researcher", "copy_filed": "no", "form": "standard"}
    return pd.DataFrame({"participant_id": list(people), **(fixed | details | cells)})


@pytest.fixture
def luton(tmp_path: Path) -> Post:
    """A site of the study whose consent is signed. Nothing is approved there: logs are taken all the same."""
    clock = datetime(2017, 10, 2, 6, 30, tzinfo=UTC)
    settings = Settings(_env_file=None, data_folder=tmp_path, settle_seconds=10)
    return Post(create_workspace("ipc", settings=settings, clock=lambda: clock), "luton")


def post_logs(post: Post, number: int = 1, change: Any = None, **sheets: pd.DataFrame) -> Receipt:
    """One sending of logs, and its receipt."""
    before = set(post.read_receipts())
    about = {"study": "ipc", "posted_on": date(2017, 9, 29), "sending_number": number}
    post.receive(post.make(sheets, change=change, **about), today=AUTUMN)
    [name] = set(post.read_receipts()) - before
    return post.read_receipts()[name]


def test_names_and_wrong_digits_in_logs_reach_neither_ledger_nor_receipt(luton):
    def spoil(workbook: Workbook) -> None:
        workbook["Consent"]["F3"] = STRANGE
        workbook["Consent"]["H4"] = datetime(2002, 3, 14)  # noqa: DTZ001 (a birthday as a spreadsheet keeps it)
        workbook["Screening and approach"]["A5"] = "LUT-P00036"
        workbook["Screening and approach"]["G4"] = STRANGE

    receipt = post_logs(luton, screening=approach(*LUTON), consent=consent(*LUTON[:2]), change=spoil)
    assert [(row["Sheet"], row["Cell"], row["Importance"]) for row in receipt.rows] == [
        ("Screening and approach", "G4", "Must be mended"),
        ("Screening and approach", "A5", "Must be mended"),
        ("Consent", "F3", "Must be mended"),
        ("Consent", "A4", "Must be mended"),
        ("Consent", "H4", "Must be mended"),
    ]
    assert receipt.says("its last digit, the check digit, does not fit the others")
    assert receipt.says("Never type a date of birth")
    assert receipt.says("Expected is no reason here, unless the person declined or is not eligible.")
    ledger = read_ledger(luton.workspace)
    for typed in ("green door", "2002", "LUT-P00036", "LUT-P00021"):
        assert typed not in ledger
        assert not receipt.says(typed)


def test_a_log_that_grows_from_week_to_week_asks_nothing(luton):
    first = post_logs(luton, screening=approach(*LUTON, outcome=["agreed", "no_answer", ""]), consent=consent(LUTON[0]))
    later = post_logs(
        luton,
        2,
        screening=approach(*LUTON, outcome=["agreed", "declined", "agreed"], reason=["", "no_time", ""]),
        consent=consent(LUTON[0], LUTON[2], copy_filed="yes"),
    )
    assert (first.rows, later.rows) == ([], [])
    events = luton.workspace.read_events()
    assert events.frame(ApproachAnswered)["outcome"].tolist() == ["agreed", "declined", "agreed"]
    assert events.frame(ConsentRecorded)["copy_filed"].tolist() == ["yes", "yes"]
    assert len(events.frame(Voided)) == 2
    again = post_logs(luton, 3, screening=approach(*LUTON, outcome=""), consent=consent(LUTON[0], copy_filed=""))
    assert again.rows == []
    assert len(luton.workspace.read_events().frame(Voided)) == 2


def test_figures_and_answers_come_in_by_the_same_workbook(luton):
    post_logs(luton, screening=approach(LUTON[0], cohort="other"))
    figures = pd.DataFrame({"month": ["2017-08"], "figure": ["budgets"], "evaluation": [12], "nhs_england": [15]})
    answers = pd.DataFrame({"query_id": ["luton-0001", "luton-0009"], "answer": "confirmed"})
    receipt = post_logs(luton, 2, activity=figures, queries=answers)
    assert receipt.places == [("luton-0002", "Queries", "A4")]
    assert receipt.says("Your site has no query with this number")
    events = luton.workspace.read_events()
    told = events.frame(ActivityReported)
    assert list(zip(told["reported_to"], told["count"], strict=True)) == [("evaluation", 12), ("nhs_england", 15)]
    assert events.frame(QueryAnswered)["query_id"].tolist() == ["luton-0001"]
    assert set(derive_queries(events)["status"]) == {"open"}
