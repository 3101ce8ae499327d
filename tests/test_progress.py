"""How far the fieldwork has come: the matrix adds up, each person counts once, targets rise in even steps."""

from datetime import date
from typing import Any

import pytest

from study.events import (
    ApproachAnswered,
    ConsentRecorded,
    DispositionRecorded,
    Event,
    ParticipantApproached,
    ParticipantScreened,
    ReturnAccepted,
    ReturnReleased,
)
from study.fieldwork import Target
from study.progress import derive_curves, derive_matrix, derive_reached
from study.protocol import Study
from study.state import Events
from tasks.definitions import load_study
from tests.test_state import A, tell

ALL = ("eq5d5l", "ascot_sct4", "ons4", "service_use")
COLUMNS = ["n_expected", "n_planned", "n_held", "n_out", "n_late", "n_in", "n_partial", "n_missing", "n_stopped"]
COLUMNS.append("n_truncated")


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study("ipc")


def on(day: str, kind: type[Event], person: str, site: str = "luton", **fields: Any) -> Event:
    return kind(
        occurred_on=date.fromisoformat(day), requested_by="daily round", site_id=site, participant_id=person, **fields
    )


def consented(day: str, person: str, site: str = "luton") -> list[Event]:
    return [
        on(day, ParticipantScreened, person, site, cohort="mental_health"),
        on(
            day, ConsentRecorded, person, site, form_version="1.0", scopes=("questionnaires",), basis="signed",
            route="self", copy_filed="yes", form="standard",
        ),
    ]  # fmt: skip


def released(day: str, person: str, due: str, wave: str = "baseline") -> Event:
    return on(
        day, ReturnReleased, person, pack_id="p1", respondent="self", wave=wave, form="standard", instruments=ALL,
        opens_on=date.fromisoformat(day), due_on=date.fromisoformat(due), late_until=date(2018, 11, 30),
    )  # fmt: skip


def answered(day: str, person: str, wave: str = "baseline", instruments: str = "all") -> list[Event]:
    names = ALL if instruments == "all" else (instruments,)
    return [
        on(
            day, ReturnAccepted, person, return_id="r1", respondent="self", wave=wave, instrument=name, form="standard",
            version=1, n_items=1, n_answered=1, responses_sha256=A,
        )
        for name in names
    ]  # fmt: skip


PEOPLE = [
    *consented("2017-08-01", "LUT-P00013"),  # nothing sent: held, since the site is not open
    *consented("2017-08-01", "LUT-P00021"),  # out, and not due yet
    released("2017-08-02", "LUT-P00021", "2017-08-29"),
    *consented("2017-08-01", "LUT-P00037"),  # in
    released("2017-08-02", "LUT-P00037", "2017-08-29"),
    *answered("2017-08-20", "LUT-P00037"),
    *consented("2017-08-01", "LUT-P00044"),  # in part
    released("2017-08-02", "LUT-P00044", "2017-08-29"),
    *answered("2017-08-20", "LUT-P00044", instruments="ons4"),
    *consented("2017-08-01", "LUT-P00056"),  # left before anything came in
    on("2017-08-10", DispositionRecorded, "LUT-P00056", scope="questionnaires", reason="withdrew"),
]


@pytest.mark.parametrize(
    ("as_of", "baseline"),
    [
        ("2017-08-28", [4, 0, 1, 1, 0, 1, 1, 0, 1, 0]),
        ("2017-08-29", [4, 0, 1, 1, 0, 1, 1, 0, 1, 0]),  # the due day itself is not late
        ("2017-08-30", [4, 0, 1, 1, 1, 1, 1, 0, 1, 0]),
        ("2017-10-24", [4, 0, 1, 1, 1, 1, 1, 0, 1, 0]),  # the last day on which it is taken
        ("2017-10-25", [4, 0, 0, 0, 0, 1, 1, 2, 1, 0]),
    ],
)
def test_the_matrix_adds_up(study: Study, as_of: str, baseline: list[int]) -> None:
    matrix = derive_matrix(study, tell(*PEOPLE), date.fromisoformat(as_of))
    assert len(matrix) == len(study.sites) * len(study.waves)
    row = matrix[(matrix["site_id"] == "luton") & (matrix["wave"] == "baseline")]
    assert row[COLUMNS].iloc[0].tolist() == baseline
    parts = ["n_planned", "n_held", "n_out", "n_in", "n_partial", "n_missing"]
    assert (matrix[parts].sum(axis="columns") == matrix["n_expected"]).all()
    others = matrix[matrix["site_id"] != "luton"]
    assert not others[COLUMNS].to_numpy().any()


def test_what_would_open_after_the_end_is_not_expected(study: Study) -> None:
    cut = study.model_copy(update={"data_collection_ends_on": date(2018, 1, 31)})
    row, then = (
        derive_matrix(known, tell(*PEOPLE), date(2017, 8, 28)).set_index(["site_id", "wave"]).loc["luton"]
        for known in (study, cut)
    )
    assert row.loc["follow_up_6m", ["n_expected", "n_planned", "n_truncated"]].tolist() == [4, 4, 0]
    # Two of the four have no baseline yet, so that no day is known.
    assert then.loc["follow_up_6m", ["n_expected", "n_planned", "n_truncated"]].tolist() == [2, 2, 2]
    assert then.loc["follow_up_6m", "n_stopped"] == row.loc["follow_up_6m", "n_stopped"]


def test_each_person_reaches_each_thing_once(study: Study) -> None:
    rows = [
        on("2017-07-03", ParticipantApproached, "LUT-P00013", cohort="mental_health"),
        on("2017-07-05", ApproachAnswered, "LUT-P00013", outcome="agreed"),
        on("2017-07-05", ApproachAnswered, "LUT-P00021", outcome="declined"),
        *consented("2017-07-10", "LUT-P00013"),  # screened later than approached: approached once, on the first day
        *answered("2017-07-20", "LUT-P00013"),
        *answered("2018-01-20", "LUT-P00013", "follow_up_6m"),
        *answered("2018-07-20", "LUT-P00013", "follow_up_12m"),
    ]
    reached = derive_reached(study, tell(*rows), date(2018, 12, 1))
    told = [(row.measure, f"{row.on:%Y-%m-%d}") for row in reached.sort_values("on", kind="stable").itertuples()]
    assert told == [
        ("approached", "2017-07-03"),
        ("agreed", "2017-07-05"),
        ("consented", "2017-07-10"),
        ("baseline", "2017-07-20"),
        ("follow_up", "2018-01-20"),
    ]
    assert list(derive_reached(study, tell(*rows), date(2017, 7, 5))["measure"]) == ["approached", "agreed"]


def test_a_target_rises_in_even_steps_and_days_to_come_have_no_count(study: Study) -> None:
    target = Target(measure="consented", n=100, from_on=date(2017, 7, 1), by=date(2017, 10, 9), source="Made up.")
    fieldwork = study.fieldwork.model_copy(update={"targets": (target,)})
    events = tell(*consented("2017-07-31", "LUT-P00013"), *consented("2017-08-15", "LUT-P00021"))
    curve = derive_curves(study.model_copy(update={"fieldwork": fieldwork}), events, date(2017, 8, 15))
    assert [f"{on:%m-%d}" for on in curve["on"]] == ["07-01", "07-31", "08-15", "08-31", "09-30", "10-09"]
    assert curve["n"].fillna(-1).tolist() == [0, 1, 2, -1, -1, -1]
    assert curve["n_target"].tolist() == [0, 30, 45, 61, 91, 100]


def test_an_empty_ledger_has_every_row_and_no_counts(study: Study) -> None:
    assert not derive_matrix(study, Events({}), date(2017, 8, 1))[COLUMNS].to_numpy().any()
    assert derive_reached(study, Events({}), date(2017, 8, 1)).empty
    assert (derive_curves(study, Events({}), date(2017, 8, 1))["n"].dropna() == 0).all()
