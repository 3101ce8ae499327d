"""Frozen datasets: the interface, the same bytes from the same study, nothing half, nothing that was taken back."""

import csv
import hashlib
import io
import json
import shutil
import threading
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import study.datasets
import tasks.releases
from study.datasets import PARTICIPANTS, Column, ReleaseFault, Table, TableRows
from study.events import ReleaseFrozen, ReturnAccepted, Voided
from study.state import parse_head
from tasks.files import FileArea, FolderArea, S3Area
from tasks.release_files import compute_content_hash, compute_table_hash, write_table
from tasks.releases import Release, freeze_release, read_manifest
from tasks.workspace import Workspace, adopt_configuration
from tests.releases import BY, MMSE, enrol, fill_study, move_clock, open_study, send

DAY = date(2013, 3, 4)
NAMES = ("participants", "responses", "scores")
SCHEMAS = {
    "participants": {
        "participant_id": pa.string(), "site": pa.string(), "arm": pa.string(), "cohort": pa.string(),
        "consented_on": pa.date32(), "disposition": pa.string(), "disposition_on": pa.date32(),
        "screened_on": pa.date32(), "consent_basis": pa.string(), "allocated_on": pa.date32(),
        "disposition_scope": pa.string(),
    },
    "responses": {
        "participant_id": pa.string(), "wave": pa.string(), "respondent": pa.string(), "instrument": pa.string(),
        "item": pa.string(), "response": pa.float64(), "missing_reason": pa.string(), "collected_on": pa.date32(),
        "return_id": pa.string(), "form": pa.string(),
    },
    "scores": {
        "participant_id": pa.string(), "wave": pa.string(), "respondent": pa.string(), "instrument": pa.string(),
        "scale": pa.string(), "score": pa.float64(), "missing_reason": pa.string(), "collected_on": pa.date32(),
        "return_id": pa.string(), "form": pa.string(),
    },
}  # fmt: skip


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = open_study(tmp_path)
    fill_study(workspace)
    return workspace


@pytest.fixture
def stored(tmp_path: Path, file_area: FileArea) -> Workspace:
    """The same on a folder and on S3."""
    workspace = open_study(tmp_path, area=file_area)
    fill_study(workspace)
    return workspace


def read(workspace: Workspace, release: str, name: str) -> bytes:
    return workspace.area.get(f"releases/{release}/{name}")


def read_table(workspace: Workspace, release: Release | str, name: str) -> pd.DataFrame:
    release = release if isinstance(release, str) else release.release
    return pd.read_parquet(io.BytesIO(read(workspace, release, f"data/{name}.parquet")))


def read_data(workspace: Workspace, release: str) -> dict[str, bytes]:
    return {f"{name}.{kind}": read(workspace, release, f"data/{name}.{kind}") for name in NAMES
            for kind in ("parquet", "csv")}  # fmt: skip


def list_frozen(workspace: Workspace) -> list[str]:
    return list(workspace.read_events().frame(ReleaseFrozen)["release"])


# The interface ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_empty", [False, True])
def test_columns_are_an_interface(tmp_path: Path, name: str, is_empty: bool) -> None:
    workspace = open_study(tmp_path)
    if not is_empty:
        fill_study(workspace)
    frozen = freeze_release(workspace, workspace.clock().date(), BY)
    schema = pq.read_schema(io.BytesIO(read(workspace, frozen.release, f"data/{name}.parquet")))
    assert list(schema.names) == list(SCHEMAS[name])
    assert dict(zip(schema.names, schema.types, strict=True)) == SCHEMAS[name]
    assert schema.metadata is None
    rows = list(csv.reader(io.StringIO(read(workspace, frozen.release, f"data/{name}.csv").decode())))
    assert rows[0] == list(SCHEMAS[name])
    assert (len(rows) == 1) == is_empty


@pytest.mark.parametrize("name", NAMES)
def test_csv_holds_what_parquet_holds(workspace: Workspace, name: str) -> None:
    frozen = freeze_release(workspace, DAY, BY)
    parquet = pq.read_table(io.BytesIO(read(workspace, frozen.release, f"data/{name}.parquet"))).to_pylist()
    text = read(workspace, frozen.release, f"data/{name}.csv").decode()
    convert: dict[pa.DataType, Callable[[str], object]] = {
        pa.string(): str, pa.float64(): float, pa.date32(): date.fromisoformat
    }  # fmt: skip
    rows = [
        {column: convert[SCHEMAS[name][column]](cell) if cell else None for column, cell in row.items()}
        for row in csv.DictReader(io.StringIO(text))
    ]
    assert rows == parquet
    assert "\r" not in text
    assert "nan" not in text.lower().split(",")


def test_identifiers_stay_text_dates_iso_and_doubles_whole(tmp_path: Path) -> None:
    row = dict.fromkeys(PARTICIPANTS.column_names)
    frame = PARTICIPANTS.shape(pd.DataFrame([{**row, "participant_id": "00007", "site": 'a,"b"', "screened_on": DAY}]))
    write_table(TableRows.of(PARTICIPANTS, frame), tmp_path / "p.parquet", tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text().splitlines()[1] == '"00007","a,""b""",,,,,,2013-03-04,,,'
    assert pq.read_table(tmp_path / "p.parquet").to_pylist() == [
        {**row, "participant_id": "00007", "site": 'a,"b"', "screened_on": DAY}
    ]
    numbers = Table("numbers", (), (Column("score", "number", "Score"),))
    values = pd.DataFrame({"score": [0.1 + 0.2, 70 / 62 * 21, 3.0, None]})
    write_table(TableRows.of(numbers, values), tmp_path / "n.parquet", tmp_path / "n.csv")
    assert (tmp_path / "n.csv").read_text() == '"score"\n0.30000000000000004\n23.70967741935484\n3\n\n'


def test_a_table_has_the_same_bytes_whatever_it_is_held_as(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text as text or as categories, with some that no row has; in several blocks, of which each is a row group."""
    table = Table("words", ("x",), (Column("x", "text", "X"), Column("n", "number", "N"), Column("on", "date", "On")))
    plain = table.shape(
        pd.DataFrame({"x": ["b", None, "a", "é"] * 9, "n": [1.5, None, -0.0, 3] * 9, "on": [DAY, None, DAY, DAY] * 9})
    )
    coded = plain.assign(x=pd.Categorical(plain["x"], categories=["z", "é", "b", "a"]))
    monkeypatch.setattr(study.datasets, "ROWS_AT_ONCE", 7)
    files = []
    for name, frame in (("plain", plain), ("coded", coded)):
        paths = tmp_path / f"{name}.parquet", tmp_path / f"{name}.csv"
        told = write_table(TableRows.of(table, frame), *paths)
        assert (told.n_rows, told.columns["x"].n, told.columns["n"].n) == (36, 27, 27)
        assert pq.ParquetFile(paths[0]).num_row_groups == 6
        files.append((pd.read_csv(paths[1]), compute_content_hash(pq.ParquetFile(paths[0])), paths[1].read_bytes()))
    pd.testing.assert_frame_equal(files[0][0], files[1][0])
    assert files[0][1:] == files[1][1:]
    assert files[0][1] == compute_table_hash(
        pa.Table.from_pandas(plain, pa.schema([("x", pa.string()), ("n", pa.float64()), ("on", pa.date32())]))
    )


def test_every_blank_keeps_its_reason_and_unscheduled_occasions_their_name(workspace: Workspace) -> None:
    frozen = freeze_release(workspace, DAY, BY)
    responses = read_table(workspace, frozen, "responses").set_index(["participant_id", "item"])
    assert responses.loc[("01-701-1023", "mmse06"), "missing_reason"] == "refused"
    assert pd.isna(responses.loc[("01-701-1023", "mmse06"), "response"])
    assert responses.loc[("01-701-1023", "cibic"), ["wave", "response"]].tolist() == ["RETRIEVAL", 4.0]
    scores = read_table(workspace, frozen, "scores").set_index(["participant_id", "scale"])
    assert scores.loc[("01-701-1015", "mmse_total"), "score"] == 27
    assert scores.loc[("01-701-1023", "mmse_total"), "missing_reason"] == "refused"
    people = read_table(workspace, frozen, "participants").set_index("participant_id")
    assert people["arm"].fillna("none").to_dict() == {
        "01-701-1015": "placebo", "01-701-1023": "high_dose", "01-702-1082": "none"
    }  # fmt: skip


# The same study, the same bytes -------------------------------------------------------------------------------------


def test_the_order_of_arrival_leaves_no_trace(tmp_path: Path) -> None:
    first, second = open_study(tmp_path / "a"), open_study(tmp_path / "b")
    people = [("01-701-1015", "placebo"), ("01-701-1023", "high_dose"), ("01-702-1082", "low_dose")]
    for workspace, order in ((first, people), (second, people[::-1])):
        move_clock(workspace, date(2012, 9, 3))
        for participant_id, arm in order:
            enrol(workspace, participant_id, arm)
        for participant_id, arm in order:
            number = people.index((participant_id, arm)) + 1
            send(workspace, participant_id, "RETRIEVAL", DAY, MMSE, number=number)
            send(workspace, participant_id, "screening", date(2012, 8, 1), MMSE, number=number + 10)
        move_clock(workspace, DAY)
        freeze_release(workspace, DAY, BY)
    assert read_data(first, "2013-03-04") == read_data(second, "2013-03-04")
    assert read(first, "2013-03-04", "codebook.json") == read(second, "2013-03-04", "codebook.json")
    assert first.ledger.head() != second.ledger.head()


def test_freezing_again_is_the_same_release(stored: Workspace) -> None:
    first = freeze_release(stored, DAY, BY)
    before = read(stored, "2013-03-04", "manifest.json")
    move_clock(stored, date(2013, 3, 9))
    again = freeze_release(stored, DAY, "someone else")
    assert (first.answer, again.answer) == ("added", "same")
    assert first.release == again.release == "2013-03-04"
    assert read(stored, "2013-03-04", "manifest.json") == read(stored, "latest", "manifest.json") == before
    assert list_frozen(stored) == ["2013-03-04"]


def test_the_manifest_names_everything(workspace: Workspace) -> None:
    frozen = freeze_release(workspace, DAY, BY)
    manifest = json.loads(read(workspace, frozen.release, "manifest.json"))
    names = {stored.key.removeprefix("releases/2013-03-04/") for stored in workspace.area.list("releases/2013-03-04/")}
    assert names == set(manifest["files"]) | {"manifest.json"}
    for name, entry in manifest["files"].items():
        content = read(workspace, frozen.release, name)
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert len(manifest["returns"]) == 3
    for entry in manifest["returns"]:
        assert workspace.content.has(entry["sha256"])
        assert workspace.content.has(entry["answers_sha256"])
    assert {part["part"] for part in manifest["configuration"]} == {
        "protocol",
        "pathway",
        "fieldwork",
        "site",
        "instrument",
    }
    assert all(workspace.content.has(part["sha256"]) for part in manifest["configuration"])
    head = parse_head(f"{manifest['ledger']['seq']}:{manifest['ledger']['hash']}")
    assert workspace.ledger.verify(head).is_clean
    assert manifest["tables"]["participants"]["n_rows"] == 3
    assert set(manifest["code"]) == {
        "summative",
        "commit",
        "python",
        "pandas",
        "pyarrow",
        "numpy",
        "matplotlib",
        "pyreadstat",
        "xlsxwriter",
        "scipy",
        "statsmodels",
        "reportlab",
    }
    event = workspace.read_events().frame(ReleaseFrozen).iloc[0]
    assert event["manifest_sha256"] == hashlib.sha256(read(workspace, frozen.release, "manifest.json")).hexdigest()


def test_a_release_can_be_rebuilt_as_it_was_known(workspace: Workspace) -> None:
    freeze_release(workspace, DAY, BY)
    before = {name: read(workspace, "2013-03-04", name) for name in ("manifest.json", "report.html")}
    known_at = datetime.fromisoformat(json.loads(before["manifest.json"])["known_at"])
    move_clock(workspace, date(2013, 3, 20))
    send(workspace, "01-701-1015", "RETRIEVAL", date(2013, 3, 2), MMSE, posted_on=date(2013, 3, 18))
    assert freeze_release(workspace, DAY, BY).release == "2013-03-04.2"
    back = freeze_release(workspace, DAY, BY, known_at=known_at)
    assert (back.release, back.answer) == ("2013-03-04", "same")
    assert read_manifest(workspace, "latest")["release"] == "2013-03-04.2"


def test_a_machine_without_git_freezes_too(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert freeze_release(workspace, DAY, BY).manifest["code"]["commit"] == "unknown"


# What was taken back, and what had not happened ---------------------------------------------------------------------


def find_hash(workspace: Workspace, version: int) -> str:
    returns = workspace.read_events().frame(ReturnAccepted)
    return str(
        returns.loc[(returns["participant_id"] == "01-701-1015") & (returns["version"] == version), "hash"].iloc[0]
    )


def void(workspace: Workspace, version: int) -> None:
    event = Voided(voids=find_hash(workspace, version), reason="entered_in_error", occurred_on=DAY, requested_by=BY)
    workspace.ledger.append([event])


def read_answers_of(workspace: Workspace, frozen: Release) -> list[float]:
    responses = read_table(workspace, frozen, "responses")
    return responses.loc[responses["participant_id"] == "01-701-1015", "response"].tolist()


def test_superseded_and_voided_answers_never_get_in(workspace: Workspace) -> None:
    corrected = {**MMSE, "mmse01": 1}
    send(workspace, "01-701-1015", "screening", date(2012, 8, 1), corrected, version=2, number=9)
    frozen = freeze_release(workspace, DAY, BY)
    assert read_answers_of(workspace, frozen) == list(corrected.values())
    void(workspace, 2)
    again = freeze_release(workspace, DAY, BY)
    assert read_answers_of(workspace, again) == list(MMSE.values())
    void(workspace, 1)
    none = freeze_release(workspace, DAY, BY)
    assert read_answers_of(workspace, none) == []
    assert [frozen.release, again.release, none.release] == ["2013-03-04", "2013-03-04.2", "2013-03-04.3"]
    assert read_manifest(workspace, "latest")["release"] == "2013-03-04.3"


def test_an_answer_corrected_to_a_later_day_is_no_answer_of_the_earlier_one(workspace: Workspace) -> None:
    send(workspace, "01-701-1015", "screening", date(2012, 8, 20), MMSE, version=2, number=9)
    assert read_answers_of(workspace, freeze_release(workspace, date(2012, 8, 10), BY)) == []
    assert len(read_answers_of(workspace, freeze_release(workspace, date(2012, 8, 20), BY))) == 6


def test_an_earlier_day_has_the_protocol_of_that_day_and_what_arrived_later(workspace: Workspace) -> None:
    protocol = workspace.settings.sites_config / "cdisc_pilot" / "study.toml"
    protocol.write_text(protocol.read_text().replace('label = "Placebo"', 'label = "Sham patch"'))
    move_clock(workspace, date(2013, 6, 1))
    adopt_configuration(workspace, date(2013, 6, 1), BY)
    early, late = freeze_release(workspace, DAY, BY), freeze_release(workspace, date(2013, 6, 1), BY)
    assert json.loads(read(workspace, early.release, "codebook.json"))["codes"]["arm"]["placebo"] == "Placebo"
    assert json.loads(read(workspace, late.release, "codebook.json"))["codes"]["arm"]["placebo"] == "Sham patch"
    assert b"Sham" not in read(workspace, early.release, "report.html")
    assert read(workspace, early.release, "data/scores.csv") == read(workspace, late.release, "data/scores.csv")
    # Collected by 10 August, processed on 3 September: in the data, and its file in the manifest.
    august = freeze_release(workspace, date(2012, 8, 10), BY)
    assert len(read_table(workspace, august, "responses")) == 12
    assert {entry["return_id"] for entry in august.manifest["returns"]} == {"701-2012-09-03-1", "701-2012-09-03-2"}
    assert read_manifest(workspace, "latest")["release"] == "2013-06-01"


def test_what_was_known_then(workspace: Workspace) -> None:
    known_at = datetime.fromisoformat("2012-09-03T12:00:00+00:00")
    before = freeze_release(workspace, DAY, BY, known_at=known_at)
    assert set(read_table(workspace, before, "responses")["wave"]) == {"screening"}
    assert before.manifest["known_at"] == "2012-09-03T12:00:00.000000Z"
    assert before.manifest["ledger"]["seq"] < workspace.ledger.head().seq
    now = freeze_release(workspace, DAY, BY)
    assert now.release == "2013-03-04.2"
    assert set(read_table(workspace, now, "responses")["wave"]) == {"screening", "RETRIEVAL"}


def test_another_definition_is_another_release(workspace: Workspace) -> None:
    freeze_release(workspace, DAY, BY)
    protocol = workspace.settings.sites_config / "cdisc_pilot" / "study.toml"
    protocol.write_text(protocol.read_text().replace('label = "Placebo"', 'label = "Sham patch"'))
    adopt_configuration(workspace, DAY, BY)
    assert freeze_release(workspace, DAY, BY).release == "2013-03-04.2"


# Crashes and races --------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process ends here."""


def crash(*_: object, **__: object) -> None:
    raise Crash


def test_a_crash_before_publishing_leaves_nothing(stored: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tasks.releases, "publish_folder", crash)
        with pytest.raises(Crash):
            freeze_release(stored, DAY, BY)
    assert not stored.area.list("releases/")
    assert list_frozen(stored) == []
    assert freeze_release(stored, DAY, BY).answer == "added"


@pytest.mark.parametrize("n_written", [1, 4])
def test_a_crash_while_publishing_leaves_no_release(
    stored: Workspace, monkeypatch: pytest.MonkeyPatch, n_written: int
) -> None:
    # One file of a release is written by the one on a folder, by the other on S3.
    owner, name = (S3Area, "put") if isinstance(stored.area, S3Area) else (FolderArea, "_write")
    write, written = getattr(owner, name), 0

    def write_some(*arguments: object, **named: object) -> object:
        nonlocal written
        written += 1
        if written > n_written:
            raise Crash
        return write(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, write_some)
        with pytest.raises(Crash):
            freeze_release(stored, DAY, BY)
    assert read_manifest(stored, "2013-03-04") is None
    assert not stored.area.has("releases/latest/manifest.json")
    frozen = freeze_release(stored, DAY, BY)
    assert (frozen.release, frozen.answer) == ("2013-03-04", "added")
    for name, entry in frozen.manifest["files"].items():
        assert hashlib.sha256(read(stored, "latest", name)).hexdigest() == entry["sha256"]


@pytest.mark.parametrize("step", ["_record_release", "point_latest"])
def test_a_crash_after_publishing_is_mended(stored: Workspace, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tasks.releases, step, crash)
        with pytest.raises(Crash):
            freeze_release(stored, DAY, BY)
    published = read(stored, "2013-03-04", "manifest.json")
    frozen = freeze_release(stored, DAY, BY)
    assert (frozen.release, frozen.answer) == ("2013-03-04", "same")
    assert read(stored, "latest", "manifest.json") == published
    assert list_frozen(stored) == ["2013-03-04"]
    assert stored.ledger.verify().is_clean


def test_two_freezes_at_once_make_one_release(stored: Workspace) -> None:
    answers: list[str] = []
    ready = threading.Barrier(2)

    def freeze() -> None:
        ready.wait()
        answers.append(freeze_release(stored, DAY, BY).release)

    runs = [threading.Thread(target=freeze) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert answers == ["2013-03-04", "2013-03-04"]
    assert list_frozen(stored) == ["2013-03-04"]
    manifest = read_manifest(stored, "2013-03-04") or {}
    for name, entry in manifest["files"].items():
        assert hashlib.sha256(read(stored, "2013-03-04", name)).hexdigest() == entry["sha256"]


def test_a_release_that_is_gone_comes_back_under_its_name_only_as_it_was(workspace: Workspace) -> None:
    move_clock(workspace, date(2013, 3, 9))
    frozen = freeze_release(workspace, DAY, BY)
    before = read(workspace, "2013-03-04", "manifest.json")
    shutil.rmtree(workspace.folder / "releases" / "2013-03-04")
    again = freeze_release(workspace, DAY, BY, known_at=datetime.fromisoformat(frozen.manifest["known_at"]))
    assert (again.release, again.answer) == ("2013-03-04", "added")
    assert read(workspace, "2013-03-04", "manifest.json") == before
    shutil.rmtree(workspace.folder / "releases" / "2013-03-04")
    assert freeze_release(workspace, DAY, BY).release == "2013-03-04.2"


def test_a_manifest_that_was_changed_is_noticed(workspace: Workspace) -> None:
    freeze_release(workspace, DAY, BY)
    changed = read(workspace, "2013-03-04", "manifest.json").replace(b"CDISC", b"Cdisc")
    workspace.area.put("releases/2013-03-04/manifest.json", changed)
    with pytest.raises(ReleaseFault, match=r"manifest\.json is not the one that was recorded"):
        freeze_release(workspace, DAY, BY)


# Refused, and empty -------------------------------------------------------------------------------------------------


def test_every_reason_to_refuse_is_told_at_once_without_values(workspace: Workspace) -> None:
    send(workspace, "01-703-9999", "screening", date(2012, 8, 1), {**MMSE, "mmse01": 5}, number=7)
    send(workspace, "01-701-1015", "week_8", date(2012, 10, 1), {"mmse01": "lost_in_post"}, number=8)
    with pytest.raises(ReleaseFault) as refused:
        freeze_release(workspace, DAY, BY)
    text = str(refused.value)
    assert "responses: 6 rows belong to nobody in participants." in text
    assert "responses.missing_reason: 1 rows have a code that the definitions in force do not know." in text
    assert len(refused.value.faults) == 2
    assert not any(value in text for value in ("9999", "lost_in_post", "1015"))
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None
    assert not workspace.area.list("releases/")


def test_answers_that_break_their_schema_are_refused(workspace: Workspace) -> None:
    send(workspace, "01-701-1015", "week_8", date(2012, 10, 1), {**MMSE, "mmse01": 4321}, number=7)
    with pytest.raises(ReleaseFault) as refused:
        freeze_release(workspace, DAY, BY)
    assert len(refused.value.faults) == 1
    assert refused.value.faults[0].startswith("mmse.mmse01: 1 records break the rule isin(")
    assert "4321" not in str(refused.value)
    assert refused.value.__context__ is None


def test_a_day_to_come_and_a_day_before_the_study_are_refused(workspace: Workspace) -> None:
    with pytest.raises(ReleaseFault, match="2013-03-05 is still to come"):
        freeze_release(workspace, date(2013, 3, 5), BY)
    with pytest.raises(ReleaseFault, match="had adopted no protocol by 2012-06-30"):
        freeze_release(workspace, date(2012, 6, 30), BY)


@pytest.mark.parametrize(
    ("study_id", "says"),
    [
        ("cdisc_pilot", "No questionnaire has been accepted yet."),
        ("ipc", "No questionnaire has been accepted yet."),
        ("new", "uses no instrument yet."),
    ],
)
def test_an_empty_study_gives_an_empty_release_that_says_so(tmp_path: Path, study_id: str, says: str) -> None:
    workspace = open_study(tmp_path, study_id=study_id)
    frozen = freeze_release(workspace, date(2012, 7, 1), BY)
    n_rows = {name: table["n_rows"] for name, table in frozen.manifest["tables"].items()}
    assert {*NAMES, "analysis_did", "analysis_wide", "dispositions", "returns"} <= set(n_rows)
    assert not any(n_rows.values())
    report = read(workspace, frozen.release, "report.html").decode()
    assert says in report
    assert "nobody has been screened" in report
    assert report.count("<table") - report.count('aria-label="Flow: ') == 1  # the files; the flow shows its zero rows


def test_a_study_where_nobody_is_allocated(tmp_path: Path) -> None:
    workspace = open_study(tmp_path)
    move_clock(workspace, date(2012, 9, 3))
    enrol(workspace, "01-701-1015")
    send(workspace, "01-701-1015", "screening", date(2012, 8, 1), MMSE)
    frozen = freeze_release(workspace, date(2012, 9, 3), BY)
    assert read_table(workspace, frozen, "scores")["score"].tolist() == [27.0]
    report = read(workspace, frozen.release, "report.html").decode()
    assert "There are no scores of people who were allocated to an arm." in report
    assert "0 of them\nhave been allocated to an arm." in report


def test_a_rehearsal_is_no_slice(tmp_path: Path) -> None:
    """All of its invented people are in it; the banner and the title say that they are invented."""
    workspace = open_study(tmp_path, name="cdisc_pilot.rehearsal")
    fill_study(workspace)
    frozen = freeze_release(workspace, DAY, BY)
    assert frozen.manifest["slice"] == workspace.slice_name == ""
    for page in ("report.html", "instruments.html", "flow.html"):
        assert "slice" not in read(workspace, frozen.release, page).decode().casefold()


def test_a_slice_says_that_it_is_one(tmp_path: Path) -> None:
    workspace = open_study(tmp_path, name="cdisc_pilot.701-702")
    fill_study(workspace)
    frozen = freeze_release(workspace, DAY, BY)
    assert frozen.manifest["slice"] == "cdisc_pilot.701-702"
    report = read(workspace, frozen.release, "report.html").decode()
    assert "A slice, not the whole study." in report
    assert "Nothing has come from 15 of the study's 17 sites: Site 703," in report
