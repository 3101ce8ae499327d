"""The invented people of the IPC rehearsal: IBSEN's flow, nothing before its time, and the same again from one seed."""

from datetime import date
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rehearsal.approvals_story import derive_story, read_story
from rehearsal.ipc_people import (
    ASSUMPTIONS_FILE,
    BASELINE,
    IBSEN,
    People,
    add_months_to_days,
    compute_rates,
    derive_openings,
    draw_people,
    find_probabilities,
    find_stops,
    load_ipc_assumptions,
    parse_ipc_assumptions,
    play_alone,
    resolve_answers,
)
from study.approval_entries import foresee
from study.protocol import Study
from study.state import Events
from tasks.definitions import load_study


@cache
def study() -> Study:
    return load_study("ipc")


@cache
def openings() -> pd.DataFrame:
    told = derive_story(study(), read_story() | {"ends_on": study().ends_on})
    return derive_openings(study(), foresee(Events({}), [entry.event for entry in told]), study().ends_on)


@cache
def people() -> People:
    return draw_people(study(), openings(), load_ipc_assumptions())


def test_mean_rates_are_those_of_ibsen() -> None:
    """15 seeds: a standard error of about 0.3 points, hence 1.5 here. `benchmarks/actors.py` plays 100, within 1."""
    flows = [play_alone(study(), openings(), load_ipc_assumptions(), seed)[1] for seed in range(15)]
    assert {flow.approached for flow in flows} == {IBSEN.approached}
    off = 100 * (compute_rates(flows).mean() - compute_rates([IBSEN]).iloc[0])
    assert (off.abs() < 1.5).all(), off


def test_everybody_is_approached_while_the_site_is_open() -> None:
    persons = people().persons
    assert len(persons) == IBSEN.approached
    assert set(persons["site_id"]) == {site.site_id for site in study().sites}
    allowed = openings()
    is_open = [allowed.loc[site, day] for site, day in zip(persons["site_id"], persons["approached_on"], strict=True)]
    strayed = persons[~np.array(is_open)]
    assert set(strayed["site_id"]) == {"luton"}  # which goes on while its council's agreement has lapsed
    assert strayed["approached_on"].between("2017-09-01", "2017-09-14").all()
    assert (persons["approached_on"].dt.day_of_week < 5).all()


def test_a_site_that_never_opens_approaches_nobody() -> None:
    closed = openings().copy()
    closed.loc["islington"] = False
    assert "islington" not in set(draw_people(study(), closed, load_ipc_assumptions()).persons["site_id"])


def test_what_people_say_is_what_the_study_knows() -> None:
    persons, fieldwork = people().persons, study().fieldwork
    assert set(persons["cohort"]) == {cohort.id for cohort in study().cohorts}
    assert set(persons["arm"]) == {arm.id for arm in study().arms}
    assert set(persons["body_id"]) <= {body.id for site in study().sites for body in site.bodies} | {""}
    of_outcome = {reason.id: reason.outcome for reason in fieldwork.approach_reasons}
    told = persons[persons["reason"] != ""]
    assert (told["reason"].map(of_outcome) == told["outcome"]).all()
    assert set(persons.loc[persons["reason"] == "", "outcome"]) == {"agreed", "no_answer"}
    assert set(persons["taken_by"]) <= set(fieldwork.consent_takers)
    scopes = {(reason.id, scope) for reason in study().disposition_reasons for scope in reason.scopes}
    assert set(people().leavings[["reason", "scope"]].itertuples(index=False, name=None)) <= scopes
    scheduled = {(entry.respondent, wave) for entry in study().schedule for wave in entry.waves}
    asked = people().questionnaires[["respondent", "wave"]].drop_duplicates()
    assert set(asked.itertuples(index=False, name=None)) == scheduled


def test_nothing_happens_before_its_time() -> None:
    persons, leavings = people().persons, people().leavings
    answered = persons["answered_on"].dropna()
    assert (answered >= persons["approached_on"][answered.index]).all()
    signed = persons["consented_on"].dropna()
    assert (signed >= persons["answered_on"][signed.index]).all()
    assert set(persons["outcome"][signed.index]) == {"agreed"}
    filed = persons["filed_on"].dropna()
    assert (filed >= signed[filed.index]).all()
    assert (leavings["left_on"] > signed.reindex(leavings["person"]).to_numpy()).all()
    assert (leavings["told_on"] >= leavings["left_on"]).all()


def test_consent_is_given_by_whoever_can() -> None:
    persons = people().persons
    signed = persons[persons["consented_on"].notna()]
    is_child = signed["cohort"] == "children_complex_needs"
    assert set(signed.loc[is_child, "route"]) == {"parent", "self"}
    assert set(signed.loc[~is_child, "route"]) == {"consultee", "self"}
    by_parents = signed[signed["route"] == "parent"]
    assert (by_parents["sixteen_in"] >= by_parents["consented_on"].dt.strftime("%Y-%m")).all()
    assert (signed.loc[signed["route"] != "parent", "sixteen_in"] == "").all()
    assert ((signed["capacity"] != "") == (signed["route"] == "consultee")).all()


def test_nobody_leaves_after_leaving_the_whole_study() -> None:
    leavings = people().leavings
    ends = leavings[leavings["scope"].isin(["study", "data"])].drop_duplicates("person").set_index("person")["left_on"]
    after = leavings["left_on"] > leavings["person"].map(ends)
    assert len(ends) > 100
    assert not after.any()


def test_one_seed_gives_the_same_people_and_another_gives_others() -> None:
    again = draw_people(study(), openings(), load_ipc_assumptions())
    pd.testing.assert_frame_equal(again.persons, people().persons)
    pd.testing.assert_frame_equal(again.leavings, people().leavings)
    pd.testing.assert_frame_equal(again.questionnaires, people().questionnaires)
    other = draw_people(study(), openings(), load_ipc_assumptions(), seed=1)
    assert not other.persons["outcome"].equals(people().persons["outcome"])


DAY = pd.Timestamp(2018, 3, 1)


@pytest.mark.parametrize(
    ("fate", "heeds", "at_hand", "chased", "stopped", "expected"),
    [
        ("in_time", False, DAY, pd.NaT, pd.NaT, date(2018, 3, 31)),
        ("in_time", False, DAY, date(2018, 3, 10), pd.NaT, date(2018, 3, 31)),
        ("in_time", True, DAY, date(2018, 3, 10), pd.NaT, date(2018, 3, 15)),
        ("in_time", True, DAY, date(2018, 3, 28), pd.NaT, date(2018, 3, 31)),  # on its way already
        ("in_time", True, DAY, pd.NaT, pd.NaT, date(2018, 3, 31)),
        ("in_time", False, DAY, pd.NaT, date(2018, 3, 31), None),  # stopped on that very day
        ("in_time", False, DAY, pd.NaT, date(2018, 4, 1), date(2018, 3, 31)),
        ("in_time", True, DAY, date(2018, 3, 10), date(2018, 3, 16), date(2018, 3, 15)),
        ("in_time", False, pd.NaT, pd.NaT, pd.NaT, None),  # never had it
        ("never", True, DAY, date(2018, 3, 10), pd.NaT, None),
        ("too_late", False, DAY, pd.NaT, pd.NaT, date(2018, 3, 31)),
    ],
)
def test_when_a_questionnaire_is_filled_in(
    fate: str, heeds: bool, at_hand: Any, chased: Any, stopped: Any, expected: date | None
) -> None:
    rows = pd.DataFrame(
        {"fate": [fate], "within": [pd.Timedelta(days=30)], "heeds": [heeds], "heeds_within": [pd.Timedelta(days=5)]}
    )
    days = [pd.Series(pd.DatetimeIndex([day])) for day in (at_hand, chased, stopped)]
    (answered,) = resolve_answers(rows, *days)
    assert (None if pd.isna(answered) else answered.date()) == expected


def test_who_stops_answering() -> None:
    leavings = pd.DataFrame(
        [
            (0, "linkage", DAY),
            (1, "questionnaires", DAY),
            (1, "study", DAY - pd.Timedelta(days=3)),
            (2, "data", DAY),
            (3, "treatment", DAY),
            (4, "post", DAY),
        ],
        columns=["person", "scope", "left_on"],
    )
    stops = find_stops(People(pd.DataFrame(), leavings, pd.DataFrame()))
    assert stops.to_dict() == {1: DAY - pd.Timedelta(days=3), 2: DAY}


def test_months_are_clipped_to_their_end() -> None:
    days = pd.Series(pd.DatetimeIndex(["2017-08-31", "2019-08-31", "2017-02-28", None]))
    assert [None if pd.isna(day) else str(day.date()) for day in add_months_to_days(days, 6)] == [
        "2018-02-28", "2020-02-29", "2017-08-28", None,
    ]  # fmt: skip


def test_probabilities_add_up_and_stay_between_0_and_1() -> None:
    persons = pd.DataFrame({"cohort": ["a", "b"], "arm": ["x", "y"], "site_id": ["m", "n"]})
    value = {"all": 0.5, "cohorts": {"a": 0.2}, "arms": {"x": 0.1, "y": -0.9}, "sites": {"m": 0.05}}
    assert find_probabilities(value, persons).tolist() == pytest.approx([0.85, 0.0])


def test_other_assumptions_give_another_flow() -> None:
    changed = load_ipc_assumptions().change(agrees={"all": 1.0}, baseline_in_time={"all": 0.0})
    assert play_alone(study(), openings(), changed)[1] == (2521, 2521, 0, 0)
    with pytest.raises(KeyError, match="agress"):
        load_ipc_assumptions().change(agress={})


def test_assumptions_that_are_incomplete_or_there_twice() -> None:
    data = ASSUMPTIONS_FILE.read_bytes()
    with pytest.raises(ValueError, match="declared twice: agrees"):
        parse_ipc_assumptions(data + b'\n[[assumption]]\nid = "agrees"\nstatement = "x"\nvalue = 1\nwhy = "x"\n')
    with pytest.raises(ValueError, match="incomplete"):
        parse_ipc_assumptions(b'seed = 1\n[[assumption]]\nid = "agrees"\nvalue = 1\nwhy = "x"\n')


def test_baselines_are_of_everybody_who_consented() -> None:
    rows = people().questionnaires
    own = rows[(rows["wave"] == BASELINE) & (rows["respondent"] != "carer")]
    assert sorted(own["person"]) == list(people().persons.index[people().persons["consented_on"].notna()])
