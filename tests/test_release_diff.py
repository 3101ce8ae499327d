"""What differs between two releases, and which event of the ledger made it so."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

import desk.release_commands
from desk.command_line import app
from study.analysis_tables import derive_layouts, derive_scores_table
from study.answers import HeldAnswers, collect_answers
from study.datasets import RESPONSES, SCORES, ReleaseFault, derive_participants_table
from study.erasure import derive_erased, is_erased
from study.events import (
    AnswerCorrected,
    ConfigurationAdopted,
    ConsentRecorded,
    DispositionRecorded,
    ErasureDecided,
    ParticipantAllocated,
    ReturnAccepted,
    ReturnQuarantined,
    Source,
    Voided,
)
from study.release_diff import CAUSES, COLUMNS, Side, compare_datasets, compare_table, count_changes
from study.state import derive_participants, derive_returns
from tasks.release_checks import diff_releases
from tasks.releases import cut_events, freeze_release
from tasks.returns import read_answer_parts
from tasks.workspace import Workspace
from tests.releases import BY, MMSE, fill_study, move_clock, open_study, send

DAY = date(2013, 3, 4)
LAYOUTS = ("participants", "responses", "scores")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = open_study(tmp_path)
    fill_study(workspace)
    return workspace


def view(workspace: Workspace, as_of: date = DAY, seq: int | None = None, **changed: Any) -> Side:
    """The core tables as a release of now, or of an earlier row, would hold them."""
    seq = seq or workspace.ledger.head().seq
    everything = workspace.read_events()
    events = cut_events(everything, seq)
    study, instruments = workspace.study, workspace.instruments
    returns = derive_returns(events)
    returns = returns[returns["is_current"] & (returns["occurred_on"] <= pd.Timestamp(as_of))]
    returns = returns[~is_erased(returns, derive_erased(events))]
    answers, faults = collect_answers(
        returns, partial(read_answer_parts, workspace), derive_participants(events), study, instruments, as_of,
        HeldAnswers(), {},
    )  # fmt: skip
    assert faults == []
    side = Side(
        study=study, events=events, as_of=as_of, seq=seq, definitions={}, code={"commit": "1"},
        tables={
            "participants": derive_participants_table(derive_participants(events.select(as_of=as_of))),
            "responses": RESPONSES.shape(answers.read_rows(0, answers.n_answers)),
            "scores": derive_scores_table(answers),
        },
        layouts={name: layout for name, layout in derive_layouts(study, instruments).items() if name in LAYOUTS},
    )  # fmt: skip
    return replace(side, **changed)


def compare(workspace: Workspace, before: Side, after: Side) -> dict[tuple[str, str, str], int]:
    """How many by table, change and cause."""
    changes = compare_datasets(before, after, workspace.read_events())
    assert list(changes.columns) == COLUMNS
    rows = changes[["table", "change", "cause"]].itertuples(index=False, name=None)
    return dict(Counter((str(table), str(change), str(cause)) for table, change, cause in rows))


# Cells ---------------------------------------------------------------------------------------------------------------


def test_every_difference_of_two_tables_is_told_once_and_nothing_else() -> None:
    key = {"wave": "baseline", "respondent": "self", "instrument": "mmse"}
    rest = {"missing_reason": None, "collected_on": pd.Timestamp("2013-01-31"), "return_id": "r", "form": "standard"}
    rows = [{**key, **rest, "participant_id": who, "item": "a", "response": 1.0} for who in ("p1", "p2", "p3")]
    before = RESPONSES.shape(pd.DataFrame(rows))
    changed = {**rows[1], "response": None, "missing_reason": "refused", "collected_on": pd.Timestamp("2013-02-01")}
    after = RESPONSES.shape(pd.DataFrame([rows[0], changed, {**rows[2], "participant_id": "p4"}]))
    found = compare_table(RESPONSES, before, after)
    told = found[["change", "participant_id", "item", "column", "old", "new"]].to_numpy().tolist()
    assert sorted(told) == [
        ["added", "p4", "a", "", "", ""],
        ["changed", "p2", "a", "collected_on", "2013-01-31", "2013-02-01"],
        ["changed", "p2", "a", "missing_reason", "", "refused"],
        ["changed", "p2", "a", "response", "1", ""],
        ["gone", "p3", "a", "", "", ""],
    ]
    assert compare_table(RESPONSES, before, before).empty
    assert compare_table(RESPONSES, before, before.iloc[::-1]).empty
    assert len(compare_table(RESPONSES, pd.DataFrame(), after)) == 3
    score = SCORES.shape(pd.DataFrame([{**key, **rest, "participant_id": "p1", "scale": "total", "score": 0.1 + 0.2}]))
    other = compare_table(SCORES, score, score.assign(score=0.3))
    assert other[["item", "old", "new"]].to_numpy().tolist() == [["total", "0.30000000000000004", "0.3"]]


# Causes --------------------------------------------------------------------------------------------------------------


def find_return(workspace: Workspace, person: str, version: int = 1) -> pd.Series[Any]:
    returns = workspace.read_events().frame(ReturnAccepted)
    own = returns[(returns["participant_id"] == person) & (returns["version"] == version)]
    row: pd.Series[Any] = own.iloc[0]
    return row


def void(workspace: Workspace, sha256: str) -> None:
    workspace.ledger.append([Voided(voids=sha256, reason="entered_in_error", occurred_on=DAY, requested_by=BY)])


WHO: dict[str, Any] = {"requested_by": BY, "site_id": "701", "participant_id": "01-701-1015"}
RECORD: dict[str, Any] = {"respondent": "self", "wave": "screening", "instrument": "mmse"}


def return_later(workspace: Workspace) -> None:
    send(workspace, "01-701-1015", "week_8", date(2013, 1, 7), MMSE, number=8)


def correct_at_site(workspace: Workspace) -> None:
    send(workspace, "01-701-1015", "screening", date(2012, 8, 1), {**MMSE, "mmse01": 1}, version=2, number=9)


def correct_here(workspace: Workspace) -> None:
    correct_at_site(workspace)
    prints = {"old_fingerprint": "a" * 32, "new_fingerprint": "b" * 32}
    event = AnswerCorrected(**WHO, **RECORD, occurred_on=DAY, item="mmse01", version=2, reason="site_says", **prints)
    workspace.ledger.append([event])


def void_return(workspace: Workspace) -> None:
    void(workspace, find_return(workspace, "01-701-1015")["hash"])


def erase(workspace: Workspace) -> None:
    workspace.ledger.append([ErasureDecided(**WHO, occurred_on=DAY, role="sponsor", reference="E-1")])


def admit(workspace: Workspace) -> None:
    held = {**RECORD, "wave": "week_8"}
    event = ReturnQuarantined(
        **WHO, **held, occurred_on=date(2013, 1, 7), incident_id="I-1", activity="collect_follow_up", return_id="r-9",
        form="standard", n_items=6, n_answered=6, responses_sha256="a" * 64,
        source=Source(sha256="b" * 64, sheet="MMSE", row=3),
    )  # fmt: skip
    workspace.ledger.append([event])
    return_later(workspace)


ITEMS = len(MMSE)


@pytest.mark.parametrize(
    ("happens", "expected"),
    [
        (return_later, {("responses", "added", "later_return"): ITEMS, ("scores", "added", "later_return"): 1}),
        (
            correct_at_site,
            {
                ("responses", "changed", "corrected_return"): 1 + ITEMS,  # the answer, and the sending of each
                ("scores", "changed", "corrected_return"): 2,
            },
        ),
        (
            correct_here,
            {("responses", "changed", "correction"): 1 + ITEMS, ("scores", "changed", "correction"): 2},
        ),
        (void_return, {("responses", "gone", "void"): ITEMS, ("scores", "gone", "void"): 1}),
        (erase, {("responses", "gone", "erasure"): ITEMS, ("scores", "gone", "erasure"): 1}),
        (admit, {("responses", "added", "admitted"): ITEMS, ("scores", "added", "admitted"): 1}),
    ],
)  # fmt: skip
def test_a_record_that_differs_has_its_event(
    workspace: Workspace, happens: Callable[[Workspace], None], expected: dict[Any, int]
) -> None:
    before = view(workspace)
    happens(workspace)
    after = view(workspace)
    assert compare(workspace, before, after) == expected
    changes = compare_datasets(before, after, workspace.read_events())
    rows = {int(row) for text in changes["ledger_rows"] for row in text.split(";")}
    assert rows
    assert all(before.seq < row <= after.seq for row in rows)


def test_a_correction_that_is_voided_brings_back_what_was_there(workspace: Workspace) -> None:
    correct_at_site(workspace)
    before = view(workspace)
    void(workspace, find_return(workspace, "01-701-1015", 2)["hash"])
    assert {cause for *_, cause in compare(workspace, before, view(workspace))} == {"void"}


def test_a_later_day_and_an_earlier_moment_are_causes_too(workspace: Workspace) -> None:
    now = view(workspace)
    assert compare(workspace, view(workspace, date(2013, 2, 28)), now) == {
        ("responses", "added", "other_day"): 1, ("scores", "added", "other_day"): 1,
    }  # fmt: skip
    return_later(workspace)
    assert compare(workspace, view(workspace), now) == {
        ("responses", "gone", "not_known_yet"): ITEMS, ("scores", "gone", "not_known_yet"): 1,
    }  # fmt: skip


def test_what_is_told_of_a_person_has_its_entry(workspace: Workspace) -> None:
    before = view(workspace)
    arm = workspace.read_events().frame(ParticipantAllocated).iloc[0]
    void(workspace, arm["hash"])
    on = date(2013, 2, 1)
    scope = ("questionnaires", "treatment")
    reason = next(entry.id for entry in workspace.study.disposition_reasons if entry.kind == "loss")
    workspace.ledger.append(
        [
            ParticipantAllocated(**WHO, occurred_on=date(2012, 8, 1), arm="low_dose"),
            DispositionRecorded(**WHO, occurred_on=on, scope="study", reason=reason),
            ConsentRecorded(**WHO, occurred_on=date(2012, 7, 30), form_version="2", scopes=scope, basis="assumed"),
        ]
    )
    after = view(workspace)
    changes = compare_datasets(before, after, workspace.read_events())
    told = {row["column"]: row for row in changes.to_dict("records")}
    assert dict(zip(changes["column"], changes["cause"], strict=True)) == {
        "arm": "void", "consented_on": "consent", "disposition": "withdrawal", "disposition_on": "withdrawal",
        "disposition_scope": "withdrawal",
    }  # fmt: skip
    assert (told["arm"]["old"], told["arm"]["new"]) == ("placebo", "low_dose")
    assert len(str(told["arm"]["ledger_rows"]).split(";")) == 2


def test_scores_by_another_definition_or_another_version_of_the_program(workspace: Workspace) -> None:
    before = view(workspace, definitions={("instrument", "mmse"): "a" * 64})
    scores = before.tables["scores"]
    tables = {**before.tables, "scores": scores.assign(score=scores["score"] + 1)}
    n = int(scores["score"].notna().sum())
    n_mmse = int(scores.loc[scores["instrument"] == "mmse", "score"].notna().sum())
    assert compare(workspace, before, replace(before, tables=tables)) == {("scores", "changed", "unexplained"): n}
    other = replace(before, tables=tables, code={"commit": "2"})
    assert compare(workspace, before, other) == {("scores", "changed", "program"): n}
    event = ConfigurationAdopted(
        occurred_on=DAY, requested_by=BY, part="instrument", name="mmse", sha256="b" * 64, follows="a" * 64
    )
    workspace.ledger.append([event])
    changed = replace(before, tables=tables, definitions={("instrument", "mmse"): "b" * 64})
    assert compare(workspace, before, changed) == {
        ("scores", "changed", "definition"): n_mmse, ("scores", "changed", "unexplained"): n - n_mmse,
    }  # fmt: skip
    changes = compare_datasets(before, changed, workspace.read_events())
    rows = set(changes.loc[changes["cause"] == "definition", "ledger_rows"])
    assert rows == {str(workspace.ledger.head().seq)}


def test_counts_come_in_the_order_of_tables_and_causes() -> None:
    rows = [("scores", "added", "void"), ("scores", "gone", "later_return"), ("items", "changed", "void")] * 2
    changes = pd.DataFrame(rows, columns=["table", "change", "cause"])
    assert count_changes(changes).to_numpy().tolist() == [
        ["scores", "later_return", 0, 0, 2], ["scores", "void", 2, 0, 0], ["items", "void", 0, 2, 0],
    ]  # fmt: skip
    assert count_changes(changes.iloc[:0]).empty


# Two releases --------------------------------------------------------------------------------------------------------


def test_two_releases_are_compared_without_showing_an_answer(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze_release(workspace, DAY, BY)
    move_clock(workspace, date(2013, 3, 20))
    send(workspace, "01-701-1015", "RETRIEVAL", date(2013, 3, 2), {"cibic": 7}, instrument="cibic_plus",
         posted_on=date(2013, 3, 18))  # fmt: skip
    freeze_release(workspace, DAY, BY)
    found = diff_releases(workspace, "2013-03-04", "latest")
    assert (found.before, found.after) == ("2013-03-04", "2013-03-04.2")
    core = found.counts[found.counts["table"].isin(["participants", "responses", "scores"])]
    assert core.to_numpy().tolist() == [["responses", "later_return", 1, 0, 0], ["scores", "later_return", 1, 0, 0]]
    assert set(found.changes["cause"]) == {"later_return"}  # of the wide tables too
    page, table = (workspace.area.get(key).decode() for key in found.keys)
    assert CAUSES["later_return"] in page
    assert "01-701-1015" not in page
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [row["participant_id"] for row in rows if row["table"] == "responses"] == ["01-701-1015"]
    monkeypatch.setattr(desk.release_commands, "open_study", lambda _: workspace)
    answer = CliRunner().invoke(app, ["release", "diff", "cdisc_pilot", "2013-03-04", "2013-03-04.2"])
    assert answer.exit_code == 0
    assert CAUSES["later_return"] in answer.output
    assert "01-701-1015" not in answer.output
    same = CliRunner().invoke(app, ["release", "diff", "cdisc_pilot", "latest", "2013-03-04.2"])
    assert "2013-03-04.2 and 2013-03-04.2 hold the same." in same.output
    verified = CliRunner().invoke(app, ["release", "verify", "cdisc_pilot", "2013-03-04"])
    assert (verified.exit_code, "In order" in verified.output) == (0, True)
    workspace.area.put("releases/2013-03-04/codebook.json", b"{}")
    verified = CliRunner().invoke(app, ["release", "verify", "cdisc_pilot", "2013-03-04"])
    assert (verified.exit_code, "is not as it was: 1 fault" in verified.output) == (1, True)
    with pytest.raises(ReleaseFault, match=r'has no release "2014"\. Frozen are: 2013-03-04, 2013-03-04\.2'):
        diff_releases(workspace, "2014", "latest")
