"""Each way of leaving stops what it says and nothing else; a pack that is out is called back the same day."""

from datetime import date
from typing import Any

import pandas as pd
import pytest

from study.events import ErasureDecided, Event, ObligationChased, Voided
from study.participation import (
    DATA,
    LINKAGE,
    POST,
    QUESTIONNAIRES,
    TREATMENT,
    derive_stop_notices,
    derive_stops,
    is_stopped,
)
from study.protocol import Study
from tests.approval_histories import tell
from tests.consent_histories import collected, delivered, left, make_study, released, signed

DAY = date(2018, 3, 1)


@pytest.fixture(scope="module")
def study() -> Study:
    return make_study()


def find_stops(study: Study, *told: Event, as_of: date = DAY) -> set[str]:
    return set(derive_stops(study, tell(*told), as_of)["stops"])


EVERYTHING = {QUESTIONNAIRES, LINKAGE, POST}


@pytest.mark.parametrize(
    ("scope", "reason", "stopped"),
    [
        pytest.param("questionnaires", "withdrew", {QUESTIONNAIRES}, id="stops questionnaires"),
        pytest.param("linkage", "withdrew", {LINKAGE}, id="stops linkage"),
        pytest.param("post", "withdrew", {POST}, id="wants no letters"),
        pytest.param("post", "moved", {POST}, id="moved, address not known"),
        pytest.param("treatment", "withdrew", {TREATMENT}, id="stopping treatment is not stopping questionnaires"),
        pytest.param("treatment", "completed", {TREATMENT}, id="completed the treatment"),
        pytest.param("data", "withdrew", {*EVERYTHING, DATA}, id="withdraws what was given"),
        pytest.param("study", "withdrew", EVERYTHING, id="withdraws from the study, and what was given stays given"),
        pytest.param("study", "not_eligible", EVERYTHING, id="taken out"),
        pytest.param("study", "lost_contact", {QUESTIONNAIRES, POST}, id="contact lost withdraws nothing"),
        pytest.param("questionnaires", "lost_contact", {QUESTIONNAIRES}, id="contact lost for questionnaires"),
        pytest.param("study", "completed", {QUESTIONNAIRES}, id="completed: linkage and letters go on"),
        pytest.param("study", "died", {*EVERYTHING, TREATMENT}, id="died"),
        pytest.param("treatment", "died", {*EVERYTHING, TREATMENT}, id="a death told under treatment is a death"),
    ],
)
def test_each_way_of_leaving_stops_what_it_says(study: Study, scope: str, reason: str, stopped: set[str]) -> None:
    assert find_stops(study, left("2018-02-01", scope, reason)) == stopped


@pytest.mark.parametrize(("as_of", "n"), [(date(2018, 1, 31), 0), (date(2018, 2, 1), 1), (date(2018, 2, 2), 1)])
def test_a_stop_counts_from_its_day(study: Study, as_of: date, n: int) -> None:
    assert len(derive_stops(study, tell(left("2018-02-01", "linkage")), as_of)) == n


def test_the_earliest_of_several_counts_and_is_known_since_the_first_was_recorded(study: Study) -> None:
    told = tell(left("2018-02-20", "study"), left("2018-02-10", "questionnaires", "lost_contact"))
    stops = derive_stops(study, told, DAY).set_index("stops")
    assert stops["from_on"].dt.strftime("%Y-%m-%d").to_dict() == {
        LINKAGE: "2018-02-20",
        POST: "2018-02-20",
        QUESTIONNAIRES: "2018-02-10",
    }
    assert stops["reason"].to_dict() == {LINKAGE: "withdrew", POST: "withdrew", QUESTIONNAIRES: "lost_contact"}
    assert stops["recorded_at"].nunique() == 1


def test_of_one_day_a_death_counts_and_then_an_exclusion_whichever_was_told_first(study: Study) -> None:
    told = [left("2018-02-01", "study", reason) for reason in ("completed", "withdrew", "not_eligible", "died")]
    for order in (told, told[::-1]):
        stops = derive_stops(study, tell(*order), DAY)
        assert set(stops["reason"]) == {"died"}
        stops = derive_stops(study, tell(*(event for event in order if event.reason != "died")), DAY)
        assert set(stops["reason"]) == {"not_eligible"}


def test_columns_of_stops(study: Study) -> None:
    stops = derive_stops(study, tell(left("2018-02-01", "post", person="DEV-002")), DAY)
    row = stops.iloc[0].to_dict()
    assert row.pop("recorded_at").tzinfo is not None
    assert row == {
        "participant_id": "DEV-002", "site_id": "devon", "stops": "post", "from_on": pd.Timestamp("2018-02-01"),
        "reason": "withdrew", "kind": "loss", "scope": "post",
    }  # fmt: skip
    assert derive_stops(study, tell(), DAY).dtypes.to_dict() == stops.dtypes.to_dict()


def test_a_decision_to_erase_stops_as_much_as_the_persons_word(study: Study) -> None:
    decided = ErasureDecided(
        occurred_on="2018-02-01", requested_by="Siân", site_id="luton", participant_id="LUT-001", role="sponsor",
        reference="S-1",
    )  # fmt: skip
    stops = derive_stops(study, tell(decided), DAY)
    assert set(stops["stops"]) == {*EVERYTHING, DATA}
    assert set(stops["reason"]) == {"erasure_decided"}


def test_stops_are_looked_up_by_person(study: Study) -> None:
    stops = derive_stops(study, tell(left("2018-02-01", "post"), left("2018-02-03", "study", person="LUT-002")), DAY)
    people = pd.Series(["LUT-001", "LUT-002", "LUT-003"], [7, 8, 9])
    assert is_stopped(stops, people, POST).to_dict() == {7: True, 8: True, 9: False}
    assert is_stopped(stops, people, LINKAGE).to_dict() == {7: False, 8: True, 9: False}


# Stop notices -------------------------------------------------------------------------------------------------------

OUT = [signed("2017-08-25"), released("2018-02-12"), delivered("2018-02-12")]


def find_notices(study: Study, *told: Event, as_of: date = DAY) -> list[dict[str, Any]]:
    return derive_stop_notices(study, tell(*OUT, *told), as_of).to_dict("records")


def test_a_pack_that_is_out_is_called_back_when_the_person_withdraws(study: Study) -> None:
    assert find_notices(study, left("2018-02-20", "questionnaires")) == [
        {
            "key": "stop_notice:LUT-001:luton-2018-02-12-1", "site_id": "luton", "participant_id": "LUT-001",
            "pack_id": "luton-2018-02-12-1", "wave": "follow_up_6m", "respondent": "self", "stops": "questionnaires",
            "reason": "withdrew", "kind": "loss", "from_on": pd.Timestamp("2018-02-20"),
            "known_on": pd.Timestamp("2017-01-01"),
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("scope", "reason", "stops"),
    [
        ("study", "died", "questionnaires"),
        ("treatment", "died", "questionnaires"),
        ("study", "withdrew", "questionnaires"),
        ("data", "withdrew", "questionnaires"),
        ("study", "not_eligible", "questionnaires"),
        ("study", "lost_contact", "questionnaires"),
        ("post", "moved", "post"),
        ("linkage", "withdrew", None),
        ("treatment", "withdrew", None),
        ("study", "completed", None),
    ],
)
def test_what_calls_a_pack_back(study: Study, scope: str, reason: str, stops: str | None) -> None:
    notices = find_notices(study, left("2018-02-20", scope, reason))
    assert [notice["stops"] for notice in notices] == ([stops] if stops else [])


def test_nothing_is_called_back_that_is_in_or_was_never_there(study: Study) -> None:
    gone = left("2018-02-20", "study")
    assert find_notices(study, gone, collected("2018-02-15", "follow_up_6m")) == []
    assert find_notices(study, gone, collected("2018-02-15", "follow_up_6m", respondent="carer")) != []
    undelivered = [
        released("2018-02-12", pack="luton-2018-02-12-2", person="LUT-002"),
        left("2018-02-20", "study", person="LUT-002"),
    ]
    assert find_notices(study, *undelivered) == []
    assert derive_stop_notices(study, tell(gone), DAY).empty


def test_a_pack_is_out_until_all_it_asks_for_is_in(study: Study) -> None:
    both = released("2018-02-12", person="LUT-002", instruments=("care", "mood"))
    gone, part = left("2018-02-20", "study", person="LUT-002"), collected("2018-02-15", "follow_up_6m", "LUT-002")
    assert [one["participant_id"] for one in find_notices(study, both, gone, part)] == ["LUT-002"]
    rest = collected("2018-02-15", "follow_up_6m", "LUT-002", instrument="care")
    assert find_notices(study, both, gone, part, rest) == []


def test_one_notice_for_a_person_and_pack_whatever_is_in_it(study: Study) -> None:
    carer = released("2018-02-12", respondent="carer")
    second = released("2018-03-01", pack="luton-2018-03-01-1", copy_number=2)
    told = find_notices(
        study, carer, second, delivered("2018-03-01", "luton-2018-03-01-1"), left("2018-03-01", "study")
    )
    assert [(one["pack_id"], one["respondent"]) for one in told] == [
        ("luton-2018-02-12-1", "self;carer"),
        ("luton-2018-03-01-1", "self"),
    ]


def chased(notice: dict[str, Any]) -> ObligationChased:
    return ObligationChased(
        occurred_on=DAY, requested_by="Siân", site_id="luton", participant_id="LUT-001", chase=notice["key"],
        about="stop_notice", step="stop_notice", channel="email", due_on=DAY,
    )  # fmt: skip


def test_a_notice_is_given_once_and_again_only_if_its_sending_was_voided(study: Study) -> None:
    gone = left("2018-02-20", "study")
    (notice,) = find_notices(study, gone)
    told = chased(notice)
    assert find_notices(study, gone, told) == []
    voided = Voided(occurred_on=DAY, requested_by="Siân", voids=f"{len(OUT) + 2:064x}", reason="superseded")
    assert len(find_notices(study, gone, told, voided)) == 1


def test_a_withdrawal_is_told_though_the_wish_for_no_letters_was(study: Study) -> None:
    no_letters, gone = left("2018-02-14", "post"), left("2018-02-20", "questionnaires")
    (first,) = find_notices(study, no_letters)
    assert first["key"] == "stop_notice:LUT-001:luton-2018-02-12-1:post"
    (second,) = find_notices(study, no_letters, chased(first), gone)
    assert second["key"] == "stop_notice:LUT-001:luton-2018-02-12-1"


def test_no_notice_when_the_stop_was_a_mistake(study: Study) -> None:
    voided = Voided(occurred_on=DAY, requested_by="Siân", voids=f"{len(OUT) + 1:064x}", reason="wrong_participant")
    assert find_notices(study, left("2018-02-20", "study"), voided) == []


@pytest.mark.parametrize(("late_until", "n"), [("2016-12-31", 0), ("2017-01-01", 1), ("2017-01-02", 1)])
def test_a_pack_whose_last_day_was_over_when_the_stop_was_learned_is_let_be(
    study: Study, late_until: str, n: int
) -> None:
    """What is told here was recorded on 1 January 2017."""
    pack = released("2016-11-01", "luton-2016-11-01-1", "LUT-002", late_until=late_until)
    gone = left("2016-12-01", "study", person="LUT-002")
    assert len(find_notices(study, pack, delivered("2016-11-01", "luton-2016-11-01-1"), gone)) == n
