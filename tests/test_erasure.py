"""Erasing what a person gave: it is in no file and no dataset any more, others keep theirs, and the ledger says so."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from moto import mock_aws
from typer.testing import CliRunner

from desk import command_line
from study.erasure import find_limit
from study.events import (
    DataErased,
    DispositionRecorded,
    ErasureDecided,
    IncidentOpened,
    ReturnAccepted,
    ReturnFileProcessed,
    ReturnQuarantined,
    ReturnRefused,
    Source,
)
from study.returns import RESPONSE_COLUMNS
from tasks.erasure import ErasureRefused, erase_data, find_unfinished, finish_erasures, list_recalled, plan_erasure
from tasks.files import ContentStore, FileArea, FileMissing, S3Area, connect_s3
from tasks.ledger import Writing
from tasks.releases import freeze_release
from tasks.returns import encode_responses, read_answers, read_responses
from tasks.workspace import Workspace
from tests.consent_histories import make_study
from tests.releases import BY, MMSE, enrol, move_clock, open_study, send

GONE, OTHER = "01-701-1015", "01-701-1023"
AS_OF = date(2013, 6, 1)
WHY = {"role": "principal_investigator", "reference": "DPO-17", "requested_by": BY}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return fill(open_study(tmp_path))


@pytest.fixture
def stored(tmp_path: Path, file_area: FileArea) -> Workspace:
    """On a folder and on a real S3 server."""
    return fill(open_study(tmp_path, area=file_area))


def make_rows(person: str, wave: str, on: date, number: int) -> list[dict[str, Any]]:
    return [
        {
            "participant_id": person, "respondent": "self", "wave": wave, "instrument": "mmse", "form": "standard",
            "item": item, "response": float(value), "missing_reason": "", "collected_on": on,
            "return_id": f"701-2012-09-03-{number}",
        }
        for item, value in MMSE.items()
    ]  # fmt: skip


def send_together(workspace: Workspace, records: list[tuple[str, str, date]], number: int) -> tuple[str, str]:
    """One file with records of several people; gives the SHA-256 of the workbook and of its answers."""
    rows = [row for record in records for row in make_rows(*record, number)]
    frame = pd.DataFrame(rows)[RESPONSE_COLUMNS].astype({"response": "float64"})
    workbook = workspace.content.put(f"workbook {number}: {rows}".encode())
    answers = workspace.content.put(encode_responses(frame))
    common: dict[str, Any] = {
        "site_id": "701", "requested_by": BY, "return_id": f"701-2012-09-03-{number}", "responses_sha256": answers,
    }  # fmt: skip
    accepted = [
        ReturnAccepted(
            **common, occurred_on=on, participant_id=person, respondent="self", wave=wave, instrument="mmse",
            form="standard", version=1, n_items=6, n_answered=6,
            source=Source(sha256=workbook, sheet="MMSE", row=row),
        )
        for row, (person, wave, on) in enumerate(records, start=3)
    ]  # fmt: skip
    processed = ReturnFileProcessed(
        **common, occurred_on=date(2012, 9, 3), sha256=workbook, posted_on=date(2012, 9, 3), sending_number=number,
        size_bytes=10, outcome="accepted", n_accepted=len(records), source=Source(sha256=workbook),
    )  # fmt: skip
    workspace.ledger.append([*accepted, processed])
    return workbook, answers


SCREENED = date(2012, 8, 1)


def fill(workspace: Workspace) -> Workspace:
    """Two people share a file; each has one of their own too; one is at another site."""
    move_clock(workspace, date(2012, 9, 3))
    for person in (GONE, OTHER, "01-702-1082"):
        enrol(workspace, person, "placebo")
    send_together(workspace, [(GONE, "screening", SCREENED), (OTHER, "screening", SCREENED)], 1)
    send(workspace, "01-702-1082", "screening", SCREENED, MMSE, number=2)
    send(workspace, GONE, "baseline", date(2012, 8, 20), {"cibic": 4}, instrument="cibic_plus", number=3)
    move_clock(workspace, date(2013, 7, 1))
    return workspace


def list_files(workspace: Workspace) -> list[bytes]:
    return [workspace.area.get(f"files/{stored.key}") for stored in workspace.area.below("files").list("")]


def find_holders(workspace: Workspace, person: str = GONE) -> int:
    """How many stored files hold answers of somebody."""
    n = 0
    for data in list_files(workspace):
        if data.startswith(b"PAR1"):
            n += person in set(pq.read_table(io.BytesIO(data))["participant_id"].to_pylist())
        else:
            n += data.startswith(b"workbook") and person.encode() in data
            n += data.startswith(b"a workbook") and person.encode() in data
    return n


def read_people(workspace: Workspace, release: str, table: str = "responses") -> dict[str, int]:
    data = workspace.area.get(f"releases/{release}/data/{table}.parquet")
    return pd.read_parquet(io.BytesIO(data))["participant_id"].value_counts().to_dict()


# What is erased ----------------------------------------------------------------------------------------------------


def test_nothing_of_the_person_is_left_and_others_keep_theirs(stored: Workspace) -> None:
    before = freeze_release(stored, AS_OF, BY)
    assert find_holders(stored) == 4
    planned = erase_data(stored, GONE, **WHY)
    assert (planned.extent.n_records, planned.extent.n_kept, planned.extent.given_from) == (2, 0, None)
    assert (len(planned.answers), len(planned.workbooks), planned.releases) == (2, 2, (before.release,))
    assert find_holders(stored) == 0
    assert find_holders(stored, OTHER) == 1  # the answers; the workbook that they shared is gone
    after = freeze_release(stored, AS_OF, BY)
    assert (after.release, after.answer) == ("2013-06-01.2", "added")
    assert read_people(stored, after.release) == {OTHER: 6, "01-702-1082": 6}
    assert read_people(stored, before.release)[GONE] == 7
    assert list_recalled(stored, stored.read_events()) == {before.release: f"{stored.area.place}/releases/2013-06-01"}


def test_the_ledger_keeps_its_rows_and_attrition_still_counts_the_person(workspace: Workspace) -> None:
    n_rows = workspace.ledger.verify().n_rows
    erase_data(workspace, GONE, **WHY)
    found = workspace.ledger.verify()
    assert found.is_clean
    assert found.n_rows == n_rows + 1 + 4  # the decision, and four tombstones
    release = freeze_release(workspace, AS_OF, BY)
    assert GONE in read_people(workspace, release.release, "participants")
    assert workspace.read_events().frame(ReturnAccepted)["participant_id"].to_list().count(GONE) == 2


def test_the_tombstones_say_what_took_the_place_of_a_file(workspace: Workspace) -> None:
    given = workspace.read_events().frame(ReturnAccepted)
    shared, own = given["responses_sha256"].iloc[0], given["responses_sha256"].iloc[-1]
    erase_data(workspace, GONE, **WHY)
    erased = workspace.read_events().frame(DataErased).set_index("sha256")
    assert set(erased.index) == {*given.loc[given["participant_id"] == GONE, "source_sha256"], shared, own}
    assert set(erased["reason"]) == {"withdrawal_of_data"}
    assert set(zip(erased["role"], erased["reference"], strict=True)) == {(WHY["role"], WHY["reference"])}
    assert set(erased["n_records"]) == {1}
    assert erased.loc[own, "replaced_by"] == ""
    replaced_by = str(erased.loc[shared, "replaced_by"])
    held = read_responses(workspace, replaced_by).to_pandas()
    assert set(held["participant_id"]) == {OTHER}
    assert len(held) == 6
    assert erased.loc[given["source_sha256"].iloc[0], "replaced_by"] == replaced_by


def test_answers_of_others_are_found_under_the_file_that_was_erased(workspace: Workspace) -> None:
    returns = workspace.read_events().frame(ReturnAccepted)
    erase_data(workspace, GONE, **WHY)
    answers = read_answers(workspace, returns)
    assert answers.groupby("participant_id").size().to_dict() == {OTHER: 6, "01-702-1082": 6}
    assert set(answers["responses_sha256"]) == set(returns.loc[returns["participant_id"] != GONE, "responses_sha256"])


def test_a_file_that_nobody_decided_to_erase_is_missed(workspace: Workspace) -> None:
    returns = workspace.read_events().frame(ReturnAccepted)
    workspace.content.erase(returns["responses_sha256"].iloc[0])
    with pytest.raises(FileMissing):
        read_answers(workspace, returns)


def test_two_people_of_one_file_one_after_the_other(stored: Workspace) -> None:
    erase_data(stored, GONE, **WHY)
    erase_data(stored, OTHER, **WHY)
    assert (find_holders(stored), find_holders(stored, OTHER)) == (0, 0)
    returns = stored.read_events().frame(ReturnAccepted)
    assert set(read_answers(stored, returns)["participant_id"]) == {"01-702-1082"}
    release = freeze_release(stored, AS_OF, BY)
    assert read_people(stored, release.release) == {"01-702-1082": 6}
    assert release.manifest["erased"]["n_participants"] == 2
    report = " ".join(stored.area.get(f"releases/{release.release}/report.html").decode().split())
    assert "Answers of 2 participants were erased by decision" in report


def test_an_earlier_view_of_the_ledger_holds_none_of_it_either(workspace: Workspace) -> None:
    known_at = workspace.clock()
    move_clock(workspace, date(2013, 8, 1))
    erase_data(workspace, GONE, **WHY)
    release = freeze_release(workspace, AS_OF, BY, known_at=known_at)
    assert GONE not in read_people(workspace, release.release)
    assert len(release.manifest["erased"]["files"]) == 4


NOTHING = {"n_participants": 0, "n_records": 0, "files": []}


def test_a_release_that_held_nothing_of_it_is_still_the_same(workspace: Workspace) -> None:
    early = date(2012, 7, 31)
    frozen = freeze_release(workspace, early, BY)
    erase_data(workspace, GONE, **WHY)
    assert freeze_release(workspace, early, BY).answer == "same"
    assert frozen.manifest["erased"] == NOTHING
    assert list_recalled(workspace, workspace.read_events()) == {}


def test_the_manifest_says_what_was_erased(workspace: Workspace) -> None:
    assert freeze_release(workspace, AS_OF, BY).manifest["erased"] == NOTHING
    erase_data(workspace, GONE, **WHY)
    told = freeze_release(workspace, AS_OF, BY).manifest["erased"]
    assert (told["n_participants"], told["n_records"]) == (1, 2)
    assert all(file["erased_on"] == "2013-07-01" and file["reason"] == "withdrawal_of_data" for file in told["files"])
    assert GONE not in str(told)


def test_voided_and_held_answers_are_erased_too(workspace: Workspace) -> None:
    incident = IncidentOpened(
        occurred_on=SCREENED, requested_by=BY, site_id="701", incident_id="701-I0001",
        category="collected_while_not_open", subject="x", activity="collect_follow_up", n_records=2,
        found_on=SCREENED,
    )  # fmt: skip
    rows = [row for person in (GONE, OTHER) for row in make_rows(person, "week_8", date(2012, 10, 1), 9)]
    frame = pd.DataFrame(rows)[RESPONSE_COLUMNS].astype({"response": "float64"})
    held = workspace.content.put(encode_responses(frame))
    workbook = workspace.content.put(f"workbook 9: {rows}".encode())
    told = [
        ReturnQuarantined(
            occurred_on=date(2012, 10, 1), requested_by=BY, site_id="701", participant_id=person,
            source=Source(sha256=workbook, sheet="MMSE", row=row), incident_id="701-I0001",
            activity="collect_follow_up", return_id="701-2012-09-03-9", respondent="self", wave="week_8",
            instrument="mmse", form="standard", n_items=6, n_answered=6, responses_sha256=held,
        )
        for row, person in enumerate((GONE, OTHER), start=3)
    ]  # fmt: skip
    workspace.ledger.append([incident, *told])
    assert find_holders(workspace) == 6
    erase_data(workspace, GONE, **WHY)
    assert find_holders(workspace) == 0
    assert set(read_responses(workspace, held).to_pandas()["participant_id"]) == {OTHER}


# The limit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("withdrawn_on", "limit"),
    [
        ("2018-03-01", "2017-09-01"),
        ("2018-02-28", "2017-08-28"),
        ("2018-03-31", "2017-10-01"),  # given on 30 September, to be withdrawn by 30 March
        ("2020-02-29", "2019-08-29"),
        ("2018-08-31", "2018-03-01"),
    ],
)
def test_the_limit_is_the_first_day_whose_time_is_not_over(withdrawn_on: str, limit: str) -> None:
    found = find_limit(make_study(), date.fromisoformat(withdrawn_on))
    assert found is not None
    assert found.isoformat() == limit


def test_without_a_limit_all_of_it_may_be_withdrawn() -> None:
    assert find_limit(make_study(fieldwork=""), date(2018, 3, 1)) is None


def set_limit(workspace: Workspace) -> None:
    fieldwork = workspace.study.fieldwork
    rule = make_study().fieldwork.consent_rule
    assert rule is not None
    workspace.study = workspace.study.model_copy(
        update={"fieldwork": fieldwork.model_copy(update={"consent": (rule,)})}
    )


def withdraw(workspace: Workspace, on: date) -> None:
    told = DispositionRecorded(
        occurred_on=on,
        requested_by=BY,
        site_id="701",
        participant_id=GONE,
        scope="data",
        reason="withdrawal_by_participant",
    )
    workspace.ledger.append([told])


def test_what_was_given_too_long_ago_stays_unless_the_decision_goes_beyond(workspace: Workspace) -> None:
    """Withdrawn on 10 February: the answers of 1 August are older than six months, those of 20 August are not."""
    set_limit(workspace)
    withdraw(workspace, date(2013, 2, 10))
    within = plan_erasure(workspace, GONE)
    assert (within.extent.withdrawn_on, within.extent.given_from) == (date(2013, 2, 10), date(2012, 8, 10))
    assert (within.extent.n_records, within.extent.n_kept) == (1, 1)
    erase_data(workspace, GONE, **WHY)
    release = freeze_release(workspace, AS_OF, BY)
    assert read_people(workspace, release.release)[GONE] == 6
    beyond = erase_data(workspace, GONE, **WHY, is_all=True)
    assert (beyond.extent.n_records, beyond.extent.n_kept) == (2, 0)
    assert find_holders(workspace) == 0
    assert GONE not in read_people(workspace, freeze_release(workspace, AS_OF, BY).release)
    decided = workspace.read_events().frame(ErasureDecided)
    assert decided["decision"].to_list() == [1, 2]
    assert decided["given_from"].dt.strftime("%Y-%m-%d").to_list()[0] == "2012-08-10"


def test_without_a_withdrawal_on_record_the_limit_counts_from_the_day_of_asking(workspace: Workspace) -> None:
    set_limit(workspace)
    assert plan_erasure(workspace, GONE).extent.withdrawn_on == date(2013, 7, 1)
    assert plan_erasure(workspace, GONE).extent.n_kept == 2


# Planning, and what is in the way ----------------------------------------------------------------------------------


def test_planning_changes_nothing(workspace: Workspace) -> None:
    before, head = list_files(workspace), workspace.ledger.head()
    plan_erasure(workspace, GONE)
    assert (list_files(workspace), workspace.ledger.head()) == (before, head)


def test_nobody_unknown_is_erased(workspace: Workspace) -> None:
    with pytest.raises(ErasureRefused, match="01-701-9999 is no participant of cdisc_pilot"):
        erase_data(workspace, "01-701-9999", **WHY)
    assert workspace.read_events().frame(ErasureDecided).empty


def test_files_that_nobody_can_read_are_told_of(workspace: Workspace) -> None:
    sha256 = workspace.content.put(b"no workbook")
    processed = ReturnFileProcessed(
        occurred_on=AS_OF, requested_by=BY, site_id="701", sha256=sha256, size_bytes=11, outcome="quarantined",
        reason="not_a_workbook",
    )  # fmt: skip
    workspace.ledger.append([processed])
    assert plan_erasure(workspace, GONE).unread == (sha256,)


def test_a_workbook_of_which_nothing_of_the_person_was_accepted_is_erased_if_it_holds_answers(
    workspace: Workspace,
) -> None:
    holding = make_workbook(workspace, [GONE, OTHER])
    other = make_workbook(workspace, [OTHER])
    planned = erase_data(workspace, GONE, **WHY)
    assert holding in planned.workbooks
    assert other not in planned.workbooks
    assert not workspace.content.has(holding)
    assert workspace.content.has(other)


def make_workbook(workspace: Workspace, people: list[str]) -> str:
    """A real workbook whose records were all repeated: no row of the ledger names whom it is about."""
    from tasks.workbooks import write_return_workbook

    columns = [column.code for column in workspace.layout.find_sheet("mmse").columns]
    rows = [
        {
            **dict.fromkeys(columns), **MMSE, "participant_id": person, "respondent": "self", "form": "standard",
            "wave": "screening", "collected_on": SCREENED,
        }
        for person in people
    ]  # fmt: skip
    about = {"site": "701", "posted_on": date(2012, 9, 3), "sending_number": 7 + len(people)}
    data = write_return_workbook(workspace.layout, about, {"mmse": pd.DataFrame(rows, dtype=object)})
    sha256 = workspace.content.put(data)
    processed = ReturnFileProcessed(
        occurred_on=AS_OF, requested_by=BY, site_id="701", sha256=sha256, size_bytes=len(data),
        outcome="nothing_accepted", n_repeated=len(people),
    )  # fmt: skip
    workspace.ledger.append([processed])
    return sha256


# Crashes, repeats, and what comes later ----------------------------------------------------------------------------


def test_a_repeated_run_changes_nothing(stored: Workspace) -> None:
    erase_data(stored, GONE, **WHY)
    files, head = list_files(stored), stored.ledger.head()
    again = erase_data(stored, GONE, **WHY)
    assert (again.answers, again.workbooks) == ((), ())
    assert (list_files(stored), stored.ledger.head()) == (files, head)
    assert finish_erasures(stored, BY) == {"files erased": 0, "files deleted": 0}


def test_nothing_is_done_where_nothing_was_decided(workspace: Workspace) -> None:
    assert finish_erasures(workspace, BY) == {}


class Killed(Exception):
    pass


@pytest.mark.parametrize("step", range(12))
def test_a_crash_at_any_step_loses_nothing_leaks_nothing_and_is_finished(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Every write, of a file, to the ledger or of a deletion, may be the last one that is carried out."""
    done = 0

    def breaking(work: Callable[..., Any]) -> Callable[..., Any]:
        def one(*arguments: Any, **named: Any) -> Any:
            nonlocal done
            if done == step:
                raise Killed
            done += 1
            return work(*arguments, **named)

        return one

    with monkeypatch.context() as patched:
        for name in ("put", "erase"):
            patched.setattr(ContentStore, name, breaking(getattr(ContentStore, name)))
        patched.setattr(Writing, "append", breaking(Writing.append))
        with suppress(Killed):
            erase_data(workspace, GONE, **WHY)
    is_decided = not workspace.read_events().frame(ErasureDecided).empty
    returns = workspace.read_events().frame(ReturnAccepted)
    others = returns[returns["participant_id"] != GONE]
    assert read_answers(workspace, others).groupby("participant_id").size().to_dict() == {OTHER: 6, "01-702-1082": 6}
    release = freeze_release(workspace, AS_OF, BY)
    assert (GONE not in read_people(workspace, release.release)) == is_decided
    if is_decided:
        finish_erasures(workspace, BY, workbooks_too=True)
    else:
        erase_data(workspace, GONE, **WHY)
    assert find_holders(workspace) == 0
    assert find_unfinished(workspace, workspace.read_events()) == []
    assert len(workspace.read_events().frame(DataErased)) == 4


def test_a_file_sent_again_is_deleted_again(workspace: Workspace) -> None:
    data = next(data for data in list_files(workspace) if data.startswith(b"workbook 1"))
    erase_data(workspace, GONE, **WHY)
    workspace.content.put(data)
    assert len(find_unfinished(workspace, workspace.read_events())) == 1
    assert finish_erasures(workspace, BY) == {"files erased": 0, "files deleted": 1}
    assert find_holders(workspace) == 0


def test_answers_that_come_later_are_erased_by_the_next_round(workspace: Workspace) -> None:
    erase_data(workspace, GONE, **WHY)
    send_together(workspace, [(GONE, "week_8", date(2012, 10, 1)), (OTHER, "week_8", date(2012, 10, 1))], 5)
    assert GONE not in read_people(workspace, freeze_release(workspace, AS_OF, BY).release)
    assert finish_erasures(workspace, BY)["files erased"] == 2
    assert find_holders(workspace) == 0
    assert read_people(workspace, freeze_release(workspace, AS_OF, BY).release)[OTHER] == 12


def test_a_workbook_sent_later_of_which_all_was_refused_is_erased_by_the_next_round(workspace: Workspace) -> None:
    erase_data(workspace, GONE, **WHY)
    sha256, unnamed = make_workbook(workspace, [GONE, OTHER]), make_workbook(workspace, [OTHER])
    refused = ReturnRefused(
        occurred_on=AS_OF, requested_by=BY, site_id="701", participant_id=GONE,
        source=Source(sha256=sha256, sheet="MMSE", row=3), rule="conflicts_with_accepted",
    )  # fmt: skip
    workspace.ledger.append([refused])
    assert finish_erasures(workspace, BY) == {"files erased": 1, "files deleted": 1}
    assert not workspace.content.has(sha256)
    assert workspace.content.has(unnamed)


# The store ---------------------------------------------------------------------------------------------------------


def test_a_store_erases_one_file_and_says_whether_it_was_there(file_area: FileArea) -> None:
    content = ContentStore(file_area)
    one, two = content.put(b"one"), content.put(b"two")
    assert content.erase(one)
    assert (content.has(one), content.has(two)) == (False, True)
    assert not content.erase(one)
    with pytest.raises(FileMissing):
        content.get(one)
    assert content.put(b"one") == one
    assert content.get(one) == b"one"


def test_a_bucket_that_keeps_versions_keeps_none_of_an_erased_file() -> None:
    with mock_aws():
        client = connect_s3(access_key="a", secret_key="b", region="us-east-1")
        client.create_bucket(Bucket="versions")
        client.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
        area = S3Area("versions", "trial", client)
        content = ContentStore(area)
        other, sha256 = content.put(b"other"), content.put(b"answers")
        key = f"sha256/{sha256[:2]}/{sha256}"
        area.delete(key)
        content.put(b"answers")
        kept = client.list_object_versions(Bucket="versions")
        assert len(kept["Versions"]) == 3
        assert content.erase(sha256)
        kept = client.list_object_versions(Bucket="versions")
        assert [version["Key"][-64:] for version in kept["Versions"]] == [other]
        assert "DeleteMarkers" not in kept
        client.close()


def test_verify_says_what_was_erased_and_what_cannot_be_rebuilt(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_line, "open_study", lambda _: workspace)

    def verify() -> tuple[int, str]:
        result = CliRunner().invoke(command_line.app, ["verify", "cdisc_pilot"])
        return result.exit_code, " ".join(result.output.split())

    freeze_release(workspace, AS_OF, BY)
    assert "erased" not in verify()[1]
    workbook = next(data for data in list_files(workspace) if data.startswith(b"workbook 1"))
    erase_data(workspace, GONE, **WHY)
    code, said = verify()
    assert code == 0
    assert "4 files erased by decision; what others need of 2 of them is in the files that took their place." in said
    assert f"Release 2013-06-01 ({workspace.area.place}/releases/2013-06-01) holds answers that were erased" in said
    sha256 = workspace.content.put(workbook)
    code, said = verify()
    assert code == 1
    assert f"1 file ({sha256[:12]}) should be gone and still there" in said
