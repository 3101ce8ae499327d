"""One accepted answer is corrected on a site's word: a next version, refused where something else stands there."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from study.events import AnswerCorrected, DispositionRecorded, QueryRaised, ReturnAccepted
from study.participation import derive_stops
from study.queries import describe_state
from study.returns import RecordKey
from study.state import derive_participants, derive_queries
from tasks.corrections import Correction, CorrectionRefused, correct_answer, take_back_leaving
from tests.test_bad_input import ANN, CAT, SITE, Post, mmse, open_post

ASKED = Correction(RecordKey(ANN, "self", "screening", "mmse"), "mmse01", "5", "4", "site_says", "site_lead", "T-17")


@pytest.fixture
def post(tmp_path: Path) -> Post:
    post = open_post(tmp_path)
    post.begin()
    return post


def test_an_answer_is_corrected_in_a_next_version_and_the_ledger_holds_no_value(post):
    post.receive(post.make())
    assert correct_answer(post.workspace, ASKED, "Anna Price") == (2, ())
    assert post.find_marks()[ANN] == 4.0
    events = post.workspace.read_events()
    [row] = events.frame(AnswerCorrected).to_dict("records")
    assert (row["reason"], row["role"], row["reference"], row["requested_by"]) == ("site_says", "site_lead", "T-17",
                                                                                  "Anna Price")  # fmt: skip
    assert row["old_fingerprint"] != row["new_fingerprint"]
    accepted = events.frame(ReturnAccepted)
    first, second = accepted[accepted["participant_id"] == ANN].to_dict("records")
    assert (second["version"], second["supersedes_return_id"], second["occurred_on"]) == (
        2, first["return_id"], first["occurred_on"])  # fmt: skip
    assert second["source_sha256"] == first["source_sha256"], "erasing finds the workbook by it"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"was": "3"}, "not, or no longer, what you say it was"),
        ({"was": ""}, "not, or no longer, what you say it was"),
        ({"now": "5"}, "is that already"),
        ({"now": "9"}, "This is not one of the answers to this question."),
        ({"now": "about four"}, "There is text where a number belongs."),
        ({"item": "mmse99"}, "there is no item mmse99"),
        ({"record": RecordKey(ANN, "self", "week_8", "mmse")}, "No accepted record"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(post, change, why):
    post.receive(post.make())
    before = post.workspace.read_events().head
    with pytest.raises(CorrectionRefused, match=why):
        correct_answer(post.workspace, replace(ASKED, **change), "Anna Price")
    assert post.workspace.read_events().head == before


def test_a_correction_that_is_told_twice_is_stale_the_second_time(post):
    post.receive(post.make())
    correct_answer(post.workspace, ASKED, "Anna Price")
    with pytest.raises(CorrectionRefused, match="no longer"):
        correct_answer(post.workspace, ASKED, "Anna Price")
    assert correct_answer(post.workspace, replace(ASKED, was="4", now="-9"), "Anna Price") == (3, ())
    assert pd.isna(post.find_marks()[ANN])


def test_the_site_s_next_workbook_undoes_no_correction_and_is_asked(post):
    post.receive(post.make())
    correct_answer(post.workspace, ASKED, "Anna Price")
    post.receive(post.make(correction=1))
    assert post.find_marks() == {ANN: 4.0, "01-702-1002": 5.0, CAT: 5.0}
    [row] = post.workspace.read_events().frame(QueryRaised).to_dict("records")
    assert (row["rule"], row["participant_id"]) == ("conflicts_with_accepted", ANN)
    post.receive(post.make({"mmse": mmse(ANN, mmse01=4)}, sending_number=2))
    [query] = derive_queries(post.workspace.read_events()).to_dict("records")
    assert describe_state(query) == "closed: mended"


def test_a_query_whose_fault_is_gone_with_it_is_mended(post):
    items = {item.id: 0.0 for item in post.workspace.instruments["npi_x"].items if item.id.endswith("_present")}
    gate = next(iter(items))
    routed = next(
        item.id for item in post.workspace.instruments["npi_x"].items if item.asked_if and item.asked_if.item == gate
    )
    row = {"participant_id": ANN, "respondent": "carer", "form": "standard", "wave": "week_2"}
    row |= {"collected_on": date(2013, 2, 28), **items, gate: None, routed: 1}
    post.receive(post.make({"npi_x": pd.DataFrame([row], dtype=object)}))
    [query] = derive_queries(post.workspace.read_events()).to_dict("records")
    assert (query["rule"], query["severity"], query["stage"]) == ("answered_though_not_asked", "soft", "with_site")
    asked = replace(ASKED, record=RecordKey(ANN, "carer", "week_2", "npi_x"), item=gate, was="", now="1")
    assert correct_answer(post.workspace, asked, "Anna Price").mended == (query["query_id"],)
    [query] = derive_queries(post.workspace.read_events()).to_dict("records")
    assert describe_state(query) == "closed: mended"


# Leaving, told by mistake -------------------------------------------------------------------------------------------


def test_a_death_told_by_mistake_is_taken_back_and_stops_nothing_any_more(post):
    post.receive(post.make())
    died = DispositionRecorded(
        occurred_on=date(2013, 6, 3), requested_by="Anna Price", site_id=SITE, participant_id=ANN, scope="study",
        reason="death",
    )  # fmt: skip
    post.workspace.ledger.append([died])

    def find_left() -> tuple[str, int]:
        events = post.workspace.read_events()
        people = derive_participants(events).set_index("participant_id")
        stops = derive_stops(post.workspace.study, events, date(2013, 7, 1))
        return str(people.loc[ANN, "disposition"]), int((stops["participant_id"] == ANN).sum())

    assert find_left()[0] == "death"
    assert find_left()[1] > 0
    assert take_back_leaving(post.workspace, ANN, "study", "entered_in_error", "Anna Price") == date(2013, 6, 3)
    assert find_left() == ("nan", 0)
    with pytest.raises(CorrectionRefused, match="On record: nothing"):
        take_back_leaving(post.workspace, ANN, "study", "entered_in_error", "Anna Price")
    assert post.workspace.ledger.append([died])[0].answer == "added", "told again it is on record again"


def test_what_somebody_did_not_leave_is_not_taken_back(post):
    post.workspace.ledger.append([
        DispositionRecorded(
            occurred_on=date(2013, 6, 3), requested_by="Anna Price", site_id=SITE, participant_id=ANN,
            scope="treatment", reason="adverse_event",
        )
    ])  # fmt: skip
    before = post.workspace.read_events().head
    with pytest.raises(CorrectionRefused, match="On record: treatment"):
        take_back_leaving(post.workspace, ANN, "study", "entered_in_error", "Anna Price")
    assert post.workspace.read_events().head == before
