"""What a coordinator relies on, against a real server and a real worker: `summative serve` as a person starts it."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pandera.pandas as pa
import pytest

from desk.serve import ServeFault, check_port, find_descendants, find_lifeline
from rehearsal.pilot_sites import Posting, derive_postings, write_posting
from rehearsal.pilot_source import read_source
from study.calendar import london_day
from study.release_rules import EVERYTHING
from study.state import derive_files, derive_queries, derive_returns
from tasks.files import AreaUnavailable, DropBox
from tasks.orchestration import StepFailed
from tasks.release_checks import waive_hindrances
from tasks.settings import PROJECT, Settings
from tasks.workspace import Workspace, create_workspace, use_workspace

STUDY = "cdisc_pilot"
LONDON = ZoneInfo("Europe/London")
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
# Nobody's name and nobody's answer: whatever of it turns up in Prefect came out of a workbook.
TELLTALE = "zebra-answer-4711"
COORDINATOR = "Ann Coordinator"
COMMAND = [sys.executable, "-c", "from desk.command_line import main; main()", "serve", "--port"]


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Desk:
    """A page that is being served: its address, its folder, and the process that a person would stop with Ctrl-C."""

    port: int
    folder: Path
    process: subprocess.Popen[str]
    said: Path

    @property
    def home(self) -> Path:
        return self.folder / "prefect"

    def ask(self, path: str, body: object = None) -> Any:
        """The answer of the server's API; for a refusal its status and its reason."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        for patience in range(20, -1, -1):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return json.loads(answer.read() or b"null")
            except urllib.error.HTTPError as refusal:
                with refusal:
                    # 503: its database is busy, and a client is to ask again.
                    if refusal.code != 503 or not patience:
                        return refusal.code, json.loads(refusal.read())["detail"]
            time.sleep(0.5)
        raise AssertionError("The last attempt returns or raises.")

    def deployments(self) -> dict[str, dict[str, Any]]:
        return {found["name"]: found for found in self.ask("/deployments/filter", {})}

    def start(self, name: str, **parameters: object) -> Any:
        """Start a run as the form does."""
        return self.ask(f"/deployments/{self.deployments()[name]['id']}/create_flow_run", {"parameters": parameters})

    def wait(self, *runs: dict[str, Any], seconds: float = 240) -> list[dict[str, Any]]:
        """The runs when all of them have ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = [self.ask(f"/flow_runs/{run['id']}") for run in runs]
            if all(run["state_type"] in ENDED for run in found):
                return found
            time.sleep(0.5)
        log = (self.home / "worker.log").read_text("utf-8", "replace")[-3000:]
        raise AssertionError(f"Not ended after {seconds} s: {[run['state_type'] for run in found]}\n{log}")

    def find_runs(self, name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask(
            "/flow_runs/filter",
            {"deployments": {"name": {"any_": [name]}}, "sort": "EXPECTED_START_TIME_ASC", "limit": 200},
        )
        return found

    def read_artifact(self, run: dict[str, Any]) -> str:
        """The page that a run left."""
        wanted = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}, "type": {"any_": ["markdown"]}}}
        (artifact,) = self.ask("/artifacts/filter", wanted)
        return str(artifact["data"])

    def read_everything(self) -> str:
        """All that Prefect holds: every row of its database, every file of its folder."""
        parts = []
        with closing(sqlite3.connect(f"file:{self.home / 'prefect.db'}?mode=ro", uri=True)) as database:
            for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                parts += [repr(row) for row in database.execute(f'SELECT * FROM "{table}"')]
        for file in sorted(self.home.rglob("*")):
            if file.is_file() and not file.name.startswith("prefect.db"):
                parts.append(file.read_bytes().decode("utf-8", "replace"))
        return "\n".join(parts)


def make_environment(folder: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "SUMMATIVE_"))}
    return own | {"SUMMATIVE_DATA_FOLDER": str(folder), "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}


@contextmanager
def serving(folder: Path) -> Iterator[Desk]:
    """Run `summative serve`; afterwards nothing of it runs, whatever happened."""
    port, said = find_free_port(), folder / "said.txt"
    folder.mkdir(parents=True, exist_ok=True)
    with said.open("w") as sink:
        process = subprocess.Popen(
            [*COMMAND, str(port)], cwd=PROJECT, env=make_environment(folder), stdout=sink, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=find_lifeline(), text=True,
        )  # fmt: skip
    try:
        yield Desk(port, folder, process, said)
    finally:
        family = find_descendants(process.pid)
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pid in filter(is_alive, family):
            os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def wait_until(is_true: Callable[[], object], seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, "It did not come true in time."
        time.sleep(0.2)


def await_page(desk: Desk) -> str:
    """What `summative serve` says when it is ready."""
    wait_until(lambda: "Ctrl-C stops it" in desk.said.read_text() or desk.process.poll() is not None)
    said = desk.said.read_text()
    assert desk.process.poll() is None, said
    return said


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with serving(tmp_path_factory.mktemp("desk")) as served:
        await_page(served)
        yield served


@pytest.fixture(scope="session")
def live(desk: Desk) -> Workspace:
    """The study that the worker's runs work on."""
    return create_workspace(STUDY, settings=Settings(data_folder=desk.folder))


@pytest.fixture(scope="session")
def postings(live: Workspace) -> dict[str, list[Posting]]:
    """The first two workbooks of some sites."""
    sites = ["703", "704", "706", "709", "711"]
    found = derive_postings(read_source(), live.study, live.instruments, sites, dt.date(2012, 9, 30))
    return {site: [posting for posting in found if posting.site_id == site][:2] for site in sites}


def post(workspace: Workspace, postings: list[Posting]) -> set[str]:
    """Put the workbooks into the sites' drop-boxes. Returns the participants in them."""
    people: set[str] = set()
    for posting in postings:
        workspace.drop_box(posting.site_id).post(*write_posting(posting, workspace.layout))
        for sheet in posting.sheets.values():
            people |= set(sheet["participant_id"])
    return people


def count_files(workspace: Workspace, *sites: str) -> Counter[str]:
    """How often each stored file of these sites was recorded as received."""
    files = derive_files(workspace.read_events())
    return Counter(files.loc[files["site_id"].isin(sites), "sha256"])


# Schedules


def test_a_scheduled_round_appears_without_being_asked_for(desk: Desk) -> None:
    runs = [run for run in desk.find_runs("ipc daily round") if run["auto_scheduled"]]
    assert runs
    for run in runs:
        due = dt.datetime.fromisoformat(run["expected_start_time"]).astimezone(LONDON)
        assert (due.hour, due.minute) == (6, 30)
        assert due.weekday() < 5
        assert run["parameters"] == {"study": "ipc", "requested_by": "daily round"}
        assert run["state_type"] == "SCHEDULED"


def test_the_finished_trial_has_a_schedule_that_is_switched_off(desk: Desk) -> None:
    (entry,) = desk.deployments()[f"{STUDY} daily round"]["schedules"]
    assert (entry["active"], entry["schedule"]["cron"], entry["schedule"]["timezone"]) == (
        False, "30 6 * * 1-5", "Europe/London",
    )  # fmt: skip
    assert not [run for run in desk.find_runs(f"{STUDY} daily round") if run["auto_scheduled"]]
    assert f"{STUDY}: switched off" in desk.said.read_text()
    assert "ipc: next on " in desk.said.read_text()


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        # Clocks go forward on Sunday 30 March 2031 at 01:00 UTC.
        (
            "2031-03-27", "2031-04-02",
            ["2031-03-27T06:30", "2031-03-28T06:30", "2031-03-31T05:30", "2031-04-01T05:30"],
        ),
        # Clocks go back on Sunday 26 October 2031 at 01:00 UTC.
        (
            "2031-10-23", "2031-10-29",
            ["2031-10-23T05:30", "2031-10-24T05:30", "2031-10-27T06:30", "2031-10-28T06:30"],
        ),
    ],
)  # fmt: skip
def test_rounds_keep_london_time_across_a_clock_change(desk: Desk, start: str, end: str, expected: list[str]) -> None:
    deployment = desk.deployments()["ipc daily round"]
    span = {"start_time": f"{start}T00:00:00Z", "end_time": f"{end}T00:00:00Z", "min_runs": 4, "max_runs": 4}
    desk.ask(f"/deployments/{deployment['id']}/schedule", span)
    due = [run["expected_start_time"] for run in desk.find_runs("ipc daily round")]
    moments = [dt.datetime.fromisoformat(text).astimezone(dt.UTC) for text in due]
    assert [f"{at:%Y-%m-%dT%H:%M}" for at in moments if start <= f"{at:%Y-%m-%d}" < end] == expected
    assert not [at for at in moments if at.astimezone(LONDON).hour == 1], "An hour that may not exist, or exist twice."


def test_a_scheduled_round_rests_on_a_bank_holiday_and_says_so(desk: Desk) -> None:
    deployment = desk.deployments()["ipc daily round"]
    span = {"start_time": "2025-08-25T00:00:00Z", "end_time": "2025-08-26T00:00:00Z", "min_runs": 1, "max_runs": 1}
    desk.ask(f"/deployments/{deployment['id']}/schedule", span)
    (run,) = [run for run in desk.find_runs("ipc daily round") if run["expected_start_time"].startswith("2025-08-25")]
    (ended,) = desk.wait(run)
    assert (ended["state_type"], ended["name"]) == ("COMPLETED", "ipc, 2025-08-25")
    assert "No round: a bank holiday. What sites send waits for Tuesday 26 August 2025." in desk.read_artifact(ended)


# The form


@pytest.mark.parametrize(
    ("name", "parameters", "reason"),
    [
        ("receive returns", {"study": "nope"}, "'study'. Failure reason: 'nope' is not one of ['cdisc_pilot']"),
        ("receive returns", {"study": "ipc"}, "'ipc' is not one of ['cdisc_pilot']"),
        ("receive returns", {"sites": ["999"]}, "'sites[0]'. Failure reason: '999' is not one of ['701', '702'"),
        ("receive returns", {"sites": ["luton"]}, "'luton' is not one of ['701'"),
        ("receive returns", {"sites": ["701", "701"]}, "has non-unique elements"),
        ("receive returns", {"sites": "701"}, "'701' is not of type 'array'"),
        ("receive returns", {"as_of": "31/01/2013"}, "'as_of'. Failure reason: '31/01/2013' does not match"),
        ("daily round", {"as_of": "2013-13-01"}, "'2013-13-01' does not match"),
        ("daily round", {"requested_by": "   "}, "'requested_by'. Failure reason: '   ' does not match"),
        ("freeze release", {"requested_by": ""}, "'requested_by'. Failure reason: '' is too short"),
        ("freeze release", {"requested_by": None}, "None is not of type 'string'"),
    ],
)
def test_the_server_refuses_a_bad_form_with_the_reason(
    desk: Desk, name: str, parameters: dict[str, Any], reason: str
) -> None:
    before = len(desk.find_runs(f"{STUDY} {name}"))
    status, detail = desk.start(f"{STUDY} {name}", **{"requested_by": COORDINATOR, **parameters})
    assert status == 409
    assert reason in detail
    assert len(desk.find_runs(f"{STUDY} {name}")) == before


def test_the_server_asks_for_a_name(desk: Desk) -> None:
    assert desk.start(f"{STUDY} daily round") == (
        409, "Error creating flow run: Validation failed. Failure reason: 'requested_by' is a required property",
    )  # fmt: skip


def test_the_form_shows_choices(desk: Desk) -> None:
    form = desk.deployments()["ipc receive returns"]["parameter_openapi_schema"]["properties"]
    assert list(form) == ["study", "requested_by", "sites", "as_of"]
    assert form["study"]["enum"] == ["ipc"]
    assert "luton" in form["sites"]["items"]["enum"]
    assert "701" not in form["sites"]["items"]["enum"]
    assert (form["as_of"]["type"], form["as_of"]["format"]) == ("string", "date")
    assert {entry["title"] for entry in form.values()} == {"Study", "Requested by", "Sites", "As of"}
    assert all(entry["description"] for entry in form.values())


def test_registering_again_changes_nothing_and_drops_what_the_file_no_longer_names(desk: Desk) -> None:
    """In a process of its own, as Prefect reads its settings when it is imported."""
    before = {name: found["id"] for name, found in desk.deployments().items()}
    kept = desk.deployments()["ipc receive returns"]
    stranger = {
        name: kept[name]
        for name in ("flow_id", "parameters", "parameter_openapi_schema", "work_pool_name", "entrypoint")
    }
    assert "id" in desk.ask("/deployments/", stranger | {"name": "an older name"})
    again = (
        "from pathlib import Path; from desk import serve; from tasks.settings import read_settings\n"
        f"serve.set_environment(read_settings(), Path({str(desk.home)!r}), {desk.port})\n"
        f"found = serve.register(read_settings(), Path({str(desk.home / 'again.log')!r}))\n"
        "print(*found.names, sep='|')"
    )
    done = subprocess.run(
        [sys.executable, "-c", again], env=make_environment(desk.folder), cwd=PROJECT, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.strip().split("|") == sorted(before)
    assert {name: found["id"] for name, found in desk.deployments().items()} == before
    assert desk.deployments()["ipc receive returns"]["parameter_openapi_schema"] == kept["parameter_openapi_schema"]


# Runs by the worker


def test_a_run_from_the_form_is_done_by_the_worker_and_leaves_counts(
    desk: Desk, live: Workspace, postings: dict[str, list[Posting]]
) -> None:
    people = post(live, postings["706"])
    (ended,) = desk.wait(desk.start(f"{STUDY} receive returns", requested_by=f" {COORDINATOR} ", sites=["706", "705"]))
    assert ended["state_type"] == "COMPLETED"
    assert ended["name"] == f"{STUDY}, {dt.datetime.now(LONDON):%Y-%m-%d}"
    returns = derive_returns(live.read_events())
    n_accepted = len(returns[returns["site_id"] == "706"])
    assert n_accepted > 0
    assert set(returns["requested_by"]) == {COORDINATOR}
    page = desk.read_artifact(ended)
    assert "## Returns received: " in page
    header, _, row, total = [line.split(" | ") for line in page.splitlines() if line.startswith("|")]
    counts = dict(zip(header[1:], row[1:], strict=True))
    assert (row[0], counts["files"], counts["records accepted"]) == ("| 706", "2", str(n_accepted))
    assert [cell.strip("| *") for cell in total[1:]] == [cell.strip("| ") for cell in row[1:]]
    assert not [person for person in people if person in page]


def test_one_bad_site_fails_the_run_by_name_and_the_next_run_mends_it(
    desk: Desk, live: Workspace, postings: dict[str, list[Posting]]
) -> None:
    post(live, postings["709"] + postings["711"])
    receipts = desk.folder / STUDY / "sites" / "709" / "receipts"
    if receipts.is_dir():
        receipts.rmdir()
    receipts.write_text("a file where a folder is needed")
    sites = ["709", "711"]
    (failed,) = desk.wait(desk.start(f"{STUDY} receive returns", requested_by=COORDINATOR, sites=sites))
    assert failed["state_type"] == "FAILED"
    assert failed["state"]["message"].startswith(
        "Site 709 was not served to the end: AreaUnavailable: a file lies where a folder is needed"
    )
    assert "711" not in failed["state"]["message"]
    assert "**Site 709 was not served to the end" in desk.read_artifact(failed)
    assert len(count_files(live, "711")) == 2
    assert not count_files(live, "709")
    receipts.unlink()
    (mended,) = desk.wait(desk.start(f"{STUDY} receive returns", requested_by=COORDINATOR, sites=sites))
    assert mended["state_type"] == "COMPLETED"
    assert "711" not in desk.read_artifact(mended)
    assert set(count_files(live, "709", "711").values()) == {1}
    assert len(count_files(live, "709", "711")) == 4


def test_runs_at_once_double_nothing_and_a_second_round_is_dropped(
    desk: Desk, live: Workspace, postings: dict[str, list[Posting]]
) -> None:
    """Two rounds and a receiving, each in a process of its own, over the same four files."""
    post(live, postings["703"] + postings["704"])
    rounds = [desk.start(f"{STUDY} daily round", requested_by=COORDINATOR) for _ in range(2)]
    receiving = desk.start(f"{STUDY} receive returns", requested_by=COORDINATOR)
    *ended, received = desk.wait(*rounds, receiving)
    assert sorted(run["state_type"] for run in ended) == ["CANCELLED", "COMPLETED"]
    assert received["state_type"] == "COMPLETED"
    files = count_files(live, "703", "704")
    assert (len(files), set(files.values())) == (4, {1})
    returns = derive_returns(live.read_events())
    assert not returns.duplicated(["participant_id", "respondent", "wave", "instrument", "version"]).any()
    queries = derive_queries(live.read_events())
    assert queries["query_id"].is_unique
    assert live.ledger.verify().is_clean


def test_a_day_to_come_is_refused_in_words(desk: Desk) -> None:
    (ended,) = desk.wait(desk.start("ipc receive returns", requested_by=COORDINATOR, as_of="2099-01-01"))
    assert ended["state_type"] == "FAILED"
    assert "2099-01-01 has not come yet: today is " in ended["state"]["message"]


# Nothing about people


@pytest.fixture
def here(desk: Desk, tmp_path: Path) -> Iterator[Workspace]:
    """A workspace of its own, for flows that run in this process and report to the same server."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    workspace = create_workspace(STUDY, settings=Settings(data_folder=tmp_path))
    server = {PREFECT_API_URL: f"http://127.0.0.1:{desk.port}/api", PREFECT_HOME: desk.home}
    with temporary_settings(server), use_workspace(workspace):
        yield workspace


def test_an_inbox_that_cannot_be_read_stops_no_other_site(
    desk: Desk, here: Workspace, postings: dict[str, list[Posting]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.returns import receive_returns_now

    post(here, postings["706"] + postings["709"])
    look = DropBox.look

    def fail_for_one(box: DropBox, *arguments: Any) -> Any:
        if box._site == "706":
            raise AreaUnavailable(f"sites/706/inbox/{TELLTALE}.xlsx: permission denied. Give the account the right.")
        return look(box, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(DropBox, "look", fail_for_one)
        state = receive_returns_now(study=STUDY, requested_by=COORDINATOR, return_state=True)
    assert state.is_failed()
    assert state.message is not None
    assert state.message.startswith("Site 706 was not served to the end: AreaUnavailable: permission denied")
    assert len(count_files(here, "709")) == 2
    assert not count_files(here, "706")
    receive_returns_now(study=STUDY, requested_by=COORDINATOR)
    assert set(count_files(here, "706", "709").values()) == {1}
    assert len(count_files(here, "706", "709")) == 4


def raise_from_pandera(*_: object) -> Counter[str]:
    frame = pd.DataFrame({"participant_id": [TELLTALE], "adas01": [4711.5]})
    pa.DataFrameSchema({"adas01": pa.Column(float, pa.Check.le(5))}).validate(frame)
    raise AssertionError("The schema refuses this frame.")


def raise_from_pandas(*_: object) -> Counter[str]:
    pd.to_numeric(pd.Series([TELLTALE]))
    raise AssertionError("That is no number.")


def raise_a_chain(*_: object) -> Counter[str]:
    try:
        raise KeyError(TELLTALE)
    except KeyError as fault:
        raise RuntimeError(f"answer {TELLTALE}") from fault


@pytest.mark.parametrize(
    ("crash", "shown"),
    [(raise_from_pandera, "SchemaError"), (raise_from_pandas, "ValueError"), (raise_a_chain, "RuntimeError")],
)
def test_a_crash_whose_text_quotes_answers_reaches_prefect_as_type_and_place(
    desk: Desk,
    here: Workspace,
    postings: dict[str, list[Posting]],
    monkeypatch: pytest.MonkeyPatch,
    crash: Callable[..., Counter[str]],
    shown: str,
) -> None:
    from flows import returns

    people = post(here, postings["711"])
    with pytest.raises(Exception, match=r"4711|zebra"):
        crash()
    monkeypatch.setattr(returns, "receive_site_returns", crash)
    state = returns.receive_returns_now(study=STUDY, requested_by=COORDINATOR, return_state=True)
    assert state.is_failed()
    assert f"Site 711 was not served to the end: {shown} (" in str(state.message)
    assert f"in {crash.__name__}" in str(state.message)
    wait_until(lambda: f"in {crash.__name__}" in desk.read_everything())
    kept = desk.read_everything()
    assert not [word for word in (TELLTALE, "4711.5", *people) if word in kept]


def test_prefect_knows_nothing_of_people(desk: Desk, live: Workspace, here: Workspace) -> None:
    """After all the runs above, and one of a workbook with an answer that can be told from every other."""
    from flows.datasets import freeze_dataset
    from flows.study_day import study_day

    found = derive_postings(read_source(), here.study, here.instruments, ["706"], dt.date(2012, 12, 31))
    people = post(here, found[:-1])
    sheets = {code: sheet.copy() for code, sheet in found[-1].sheets.items()}
    sheet = sheets["adas_cog"].astype({"adas01": object})
    sheet.loc[sheet.index[0], "adas01"] = TELLTALE
    spoilt = Posting(
        STUDY,
        "706",
        found[-1].posted_on,
        found[-1].sending_number,
        sheets | {"adas_cog": sheet},
        found[-1].n_source_rows,
    )
    name, data = write_posting(spoilt, here.layout)
    here.drop_box("706").post(f"{name[:-5]} {sorted(people)[0]}.xlsx", data)
    study_day(study=STUDY, requested_by=COORDINATOR)
    with pytest.raises(StepFailed, match="Hard queries are open: 1 "):
        freeze_dataset(study=STUDY, requested_by=COORDINATOR)
    today = london_day(here.clock())
    waive_hindrances(
        here, "hard_queries", EVERYTHING, until=today, reason="interim", role="data_manager",
        requested_by=COORDINATOR, today=today,
    )  # fmt: skip
    freeze_dataset(study=STUDY, requested_by=COORDINATOR)
    assert len(derive_queries(here.read_events())) > 0, "The answer that is no number was asked about."

    everybody = people | set(derive_returns(live.read_events())["participant_id"])
    assert len(everybody) >= 5
    wait_until(lambda: f"release-{STUDY}".replace("_", "-") in desk.read_everything())
    kept = desk.read_everything()
    assert COORDINATOR in kept, "What is searched for people holds what it is known to hold."
    assert "Site 709 was not served" in kept
    assert not [word for word in (TELLTALE, *everybody) if word in kept]


# Starting and stopping


def test_a_port_that_is_taken_is_refused_in_words(desk: Desk, tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, str(desk.port)],
        env=make_environment(tmp_path),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"Port {desk.port} of this machine is taken" in done.stderr
    assert f"--port {desk.port + 1}" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(ServeFault, match="is taken"):
        check_port(desk.port)


def test_it_listens_on_this_machine_only(desk: Desk) -> None:
    wanted = f"{desk.port:04X}"
    listening = {
        fields[1]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        if Path(table).exists()
        for fields in map(str.split, Path(table).read_text().splitlines()[1:])
        if fields[1].endswith(f":{wanted}") and fields[3] == "0A"
    }
    if not listening:
        pytest.skip("This system does not tell who listens.")
    assert listening == {f"0100007F:{wanted}"}


def test_stopping_in_the_middle_of_a_run_leaves_no_process(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        said = await_page(served)
        assert f"Prefect's page: http://127.0.0.1:{served.port}/deployments" in said
        assert "ipc receive returns" in said
        run = served.start("ipc freeze release", requested_by=COORDINATOR)
        wait_until(lambda: served.ask(f"/flow_runs/{run['id']}")["state_type"] in {"PENDING", "RUNNING", *ENDED})
        family = find_descendants(served.process.pid)
        assert len(family) >= 2
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(60) == 0
        assert "Stopped. Nothing runs any more" in served.said.read_text()
        assert not [pid for pid in family if is_alive(pid)]
        check_port(served.port)


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux ends the parts of a process that was killed outright.")
def test_killed_outright_it_leaves_no_process(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        wait_until(lambda: find_descendants(served.process.pid))
        time.sleep(1)
        family = find_descendants(served.process.pid)
        served.process.kill()
        served.process.wait()
        wait_until(lambda: not [pid for pid in family if is_alive(pid)], seconds=60)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_it_starts_it_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path) as served:
        wait_until(lambda: find_descendants(served.process.pid))
        family = find_descendants(served.process.pid)
        served.process.send_signal(number)
        assert served.process.wait(60) in {0, 130}
        assert not [pid for pid in family if is_alive(pid)]
