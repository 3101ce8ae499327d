"""The flow of participants: the pilot trial's boxes against its published tables, sum rules, the figure, bad input."""

from __future__ import annotations

import re
import subprocess
from datetime import date
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tasks.releases
from rehearsal.evaluation import count_flow
from rehearsal.ipc_people import BASELINE, MAIN_FOLLOW_UP
from rehearsal.pilot_source import COLLECTION, find_records_folder
from study.datasets import ReleaseFault
from study.events import Event, ParticipantAllocated
from study.flow import (
    ALL,
    MOST_ARMS,
    RULES,
    derive_disposition_rows,
    derive_dispositions_layout,
    derive_flow_boxes,
    find_flow_faults,
    find_flow_notes,
    find_release_faults,
    find_wording,
)
from study.instruments import DefinitionFaults
from study.protocol import Arm, Study
from study.state import Events
from tasks.definitions import load_study
from tasks.flow_diagram import (
    can_draw,
    describe_for_page,
    draw_flow,
    encode_flow_table,
    measure,
    read_flow_table,
    wrap_words,
    write_flow_page,
)
from tasks.releases import freeze_release
from tasks.settings import PROJECT
from tests.approval_histories import tell
from tests.attrition_histories import END, tell_pilot
from tests.consent_histories import collected, left, screened, signed
from tests.flow_counts import find_differences, read_release
from tests.provide import find_haven
from tests.releases import BY, fill_study, open_study
from tests.wave_histories import FIELDWORK, allocated, answered, approached, make_study

ARMS = {"placebo": "Placebo", "high_dose": "Xanomeline High Dose", "low_dose": "Xanomeline Low Dose"}
APPROACH = """
[[approach_reasons]]
id = "no_time"
label = "No time"
outcome = "declined"

[[approach_reasons]]
id = "too_young"
label = "Too young"
outcome = "not_eligible"
"""
ANALYSIS = """
[[main_analysis]]
label = "Mood at 6 months"
wave = "follow_up_6m"
respondents = ["self"]
instruments = ["mood"]
needs_baseline = true
in_time = true
"""
NEVER = """
[[disposition_reasons]]
id = "never_began"
label = "Never began"
kind = "loss"
scopes = ["treatment"]
is_never_received = true
"""


def count(boxes: pd.DataFrame, box: str, group: str = ALL) -> int:
    (n,) = boxes.loc[(boxes["box"] == box) & (boxes["group"] == group), "n"]
    return int(n)


def by_arm(boxes: pd.DataFrame, box: str) -> tuple[int, ...]:
    return tuple(count(boxes, box, arm) for arm in ARMS)


# The pilot trial ----------------------------------------------------------------------------------------------------


@cache
def published(table: str) -> pd.DataFrame:
    """A table of the trial's published records."""
    (path,) = Path(find_records_folder()).rglob(f"{COLLECTION}/{table}.parquet")
    return pd.read_parquet(path)


@cache
def pilot() -> tuple[Study, pd.DataFrame, pd.DataFrame]:
    study, events = tell_pilot()
    people = derive_disposition_rows(study, events, END)
    return study, people, derive_flow_boxes(people, study)


def split(people: pd.Series) -> tuple[int, ...]:
    """How many of these people of the published records are in each arm."""
    arms = published("dm").set_index("USUBJID")["ARM"].reindex(people.unique())
    return tuple(int((arms == label).sum()) for label in ARMS.values())


def test_enrolment_of_the_pilot_trial() -> None:
    study, people, boxes = pilot()
    arms = published("dm")["ARM"]
    assert count(boxes, "assessed") == len(arms) == 306
    assert count(boxes, "assessed.out") == (arms == "Screen Failure").sum() == 52
    assert count(boxes, "assessed.not_eligible.screen_failure") == 52
    assert count(boxes, "assessed.not_allocated") == 0
    assert count(boxes, "entered") == 254
    assert by_arm(boxes, "allocated") == split(published("dm")["USUBJID"]) == (86, 84, 84)
    labels = boxes.drop_duplicates("box").set_index("box")["label"]
    assert labels[["assessed", "assessed.out", "entered"]].tolist() == [
        "Assessed for eligibility", "Excluded", "Randomised",
    ]  # fmt: skip
    assert find_flow_faults(people, boxes, study) == []


@pytest.mark.parametrize(
    ("box", "term", "n"),
    [
        ("standing.completed", "COMPLETED", 110),
        ("standing.lost.adverse_event", "ADVERSE EVENT", 92),
        ("standing.died.death", "DEATH", 3),
        ("standing.lost.lack_of_efficacy", "LACK OF EFFICACY", 4),
        ("standing.lost.lost_to_follow_up", "LOST TO FOLLOW-UP", 2),
        ("standing.lost.physician_decision", "PHYSICIAN DECISION", 3),
        ("standing.excluded.protocol_deviation", "PROTOCOL (DEVIATION|VIOLATION)", 6),
        ("standing.excluded.study_terminated_by_sponsor", "STUDY TERMINATED BY SPONSOR", 7),
        ("standing.lost.withdrawal_by_participant", "WITHDRAWAL BY SUBJECT", 27),
    ],
)
def test_how_people_left_the_pilot_trial(box: str, term: str, n: int) -> None:
    boxes, told = pilot()[2], published("ds")
    told = told[(told["DSCAT"] == "DISPOSITION EVENT") & told["DSDECOD"].str.fullmatch(term)]
    assert by_arm(boxes, box) == split(told["USUBJID"])
    assert count(boxes, box) == len(told) == n


def test_nobody_of_the_pilot_trial_is_left_without_a_disposition() -> None:
    boxes = pilot()[2]
    assert by_arm(boxes, "standing.in") == (0, 0, 0)
    assert by_arm(boxes, "standing.excluded.screen_failure") == (0, 0, 0)  # a row with nobody stays


def test_attendance_of_the_pilot_trial_by_wave() -> None:
    study, _, boxes = pilot()
    told = pd.concat([published(name) for name in ("qsco", "qsda", "qsgi", "qshi", "qsmm", "qsni")])
    told = told[told["QSDRVFL"] != "Y"]
    n = []
    for wave in study.waves:
        names = [wave.label.upper(), *wave.aliases]
        there = told.loc[told["VISIT"].isin(names), "USUBJID"]
        found = by_arm(boxes, f"wave.{wave.id}.returned")
        assert found == split(there), wave.id
        n.append(sum(found))
    assert n[:2] == [254, 254]
    assert any(later > earlier for earlier, later in pairwise(n))  # people come back


def test_analysis_of_the_pilot_trial() -> None:
    boxes, told = pilot()[2], published("qsco")
    is_there = (told["VISIT"] == "WEEK 24") & (told["QSDRVFL"] != "Y") & told["QSSTRESN"].notna()
    assert by_arm(boxes, "analysed") == split(told.loc[is_there, "USUBJID"]) == (59, 30, 27)
    assert by_arm(boxes, "lost") == (24, 50, 54)
    assert by_arm(boxes, "follow_up.excluded") == (3, 4, 3)
    assert by_arm(boxes, "not_analysed") == (0, 0, 0)


def test_sites_stand_beside_people() -> None:
    boxes, dm = pilot()[2], published("dm")
    allocated_to = dm[dm["ARM"] == "Placebo"]
    row = boxes[(boxes["box"] == "allocated") & (boxes["group"] == "placebo")].iloc[0]
    assert (row["n"], row["n_sites"]) == (86, allocated_to["SITEID"].nunique())


# IPC ----------------------------------------------------------------------------------------------------------------


def test_the_flow_agrees_with_the_rehearsals_own_count() -> None:
    study = load_study("ipc")
    code = study.sites[0].code
    who = {"site_id": study.sites[0].site_id, "requested_by": BY}
    ids = [f"{code}-P{number:04d}0" for number in range(12)]
    told: list[Event] = []

    def put(kind: str, number: int, on: str, **fields: object) -> None:
        from study import events

        made = getattr(events, kind)
        told.append(made(**who, participant_id=ids[number], occurred_on=date.fromisoformat(on), **fields))

    def put_answers(number: int, wave: str, on: str, respondent: str = "self") -> None:
        put(
            "ReturnAccepted", number, on, return_id="r", respondent=respondent, wave=wave, instrument="eq5d5l",
            form="standard", version=1, n_items=6, n_answered=6, responses_sha256="a" * 64,
        )  # fmt: skip

    for number in range(12):
        put("ParticipantScreened", number, "2017-07-03", cohort="mental_health")
        put("ParticipantApproached", number, "2017-07-03", cohort="mental_health")
        outcome = "agreed" if number < 9 else ("declined", "not_eligible", "no_answer")[number - 9]
        reason = {"declined": "no_time", "not_eligible": "no_plan"}.get(outcome, "")
        put("ApproachAnswered", number, "2017-07-03", outcome=outcome, reason=reason)
    for number in range(8):
        scopes = ("questionnaires", "carer_contact")
        put("ConsentRecorded", number, "2017-07-04", form_version="1.0", scopes=scopes, basis="signed", route="self")
        put("ParticipantAllocated", number, "2017-07-04", arm=("intervention", "comparison")[number % 2])
    for number, baseline_on, later_on in (
        (0, "2017-07-31", "2018-02-01"), (1, "2017-09-26", "2018-06-18"),  # the last day of each
        (2, "2017-09-28", "2018-04-01"), (3, "2017-08-01", "2018-05-01"),  # too late, at the one or the other
        (4, "2017-08-01", "2018-02-01"),
    ):  # fmt: skip
        put_answers(number, BASELINE, baseline_on)
        put_answers(number, MAIN_FOLLOW_UP, later_on)
    put("DispositionRecorded", 4, "2018-03-01", scope="data", reason="data_withdrawn")
    put_answers(5, BASELINE, "2017-08-01")
    put("DispositionRecorded", 6, "2017-09-01", scope="study", reason="died")
    put_answers(7, BASELINE, "2017-08-01", "carer")
    events = tell(*told)
    for day in (date(2019, 5, 31), date(2017, 8, 1)):
        people = derive_disposition_rows(study, events, day)
        boxes = derive_flow_boxes(people, study)
        assert find_flow_faults(people, boxes, study) == []
        flow = count_flow(study, events, day)
        steps = ("approached", "agreed", "baseline.in_time", "analysed")
        assert tuple(count(boxes, box) for box in steps) == flow, day
    people = derive_disposition_rows(study, events, date(2019, 5, 31))
    boxes = derive_flow_boxes(people, study)
    assert (count(boxes, "approached"), count(boxes, "analysed"), count(boxes, "not_analysed")) == (12, 2, 3)
    why = people.dropna(subset=["not_analysed"])["not_analysed"].tolist()
    assert why == ["baseline_late", "late", "data_withdrawn"]
    assert count(boxes, "approached.declined.no_time") == count(boxes, "approached.not_eligible.no_plan") == 1
    assert count(boxes, "approached.declined.privacy") == 0
    assert count(boxes, "agreed.consent_awaited") == 1
    assert find_wording(study).standard == "TREND and STROBE"


# Histories ----------------------------------------------------------------------------------------------------------

PEOPLE = ("LUT-001", "LUT-002", "DEV-001", "LUT-003")
DAYS = ("2017-09-01", "2017-09-20", "2018-03-20", "2018-06-30")


def list_pool() -> list[Event]:
    pool: list[Event] = []
    for number, person in enumerate(PEOPLE):
        pool += [screened("2017-08-01", person), approached("2017-08-02", person), signed("2017-08-20", person)]
        outcome = ("agreed", "declined", "not_eligible", "no_answer")[number]
        pool += [answered("2017-08-03", outcome, person), allocated("2017-08-25", person)]
        pool += [collected("2017-08-21", person=person), collected("2018-02-20", "follow_up_6m", person)]
        pool += [collected("2018-07-20", "follow_up_12m", person, respondent="carer")]
        for scope, reason in (
            ("treatment", "never_began"), ("study", "withdrew"), ("data", "withdrew"), ("post", "withdrew"),
            ("study", "died"), ("study", "not_eligible"), ("treatment", "withdrew"), ("study", "gone_from_protocol"),
        ):  # fmt: skip
            pool.append(left(DAYS[(number + len(pool)) % 4], scope, reason, person))
    return pool


POOL = list_pool()
STUDIES = {
    allocation: make_study(
        ('allocation = "matched"', f'allocation = "{allocation}"'),
        fieldwork=FIELDWORK + APPROACH,
        more=ANALYSIS + NEVER,
    )
    for allocation in ("matched", "randomised")
}


@settings(max_examples=12, deadline=None)
@given(
    told=st.lists(st.sampled_from(range(len(POOL))), unique=True),
    order=st.randoms(use_true_random=False),
    as_of=st.dates(date(2017, 8, 1), date(2019, 1, 31)),
    allocation=st.sampled_from(list(STUDIES)),
)
def test_no_history_breaks_a_sum_rule(told: list[int], order: Random, as_of: date, allocation: str) -> None:
    study = STUDIES[allocation]
    people = derive_disposition_rows(study, tell(*(POOL[place] for place in sorted(told))), as_of)
    boxes = derive_flow_boxes(people, study)
    assert find_flow_faults(people, boxes, study) == []
    assert find_differences(write_as_text(people), boxes) == []
    assert set(boxes["rule"]) <= {"", *RULES}
    order.shuffle(told)
    again = derive_disposition_rows(study, tell(*(POOL[place] for place in told)), as_of)
    pd.testing.assert_frame_equal(again, people)


def write_as_text(people: pd.DataFrame) -> pd.DataFrame:
    """The table as a program reads it that knows no types."""
    text = people.copy()
    for name in text.columns:
        if text[name].dtype.kind == "f":
            text[name] = text[name].map({0.0: "0", 1.0: "1"})
    return text.astype("str").where(people.notna(), "")


def derive(study: Study, *told: Event, as_of: date = date(2018, 12, 31)) -> tuple[pd.DataFrame, pd.DataFrame]:
    people = derive_disposition_rows(study, tell(*told), as_of)
    return people, derive_flow_boxes(people, study)


def test_every_rule_is_held() -> None:
    study = STUDIES["matched"]
    people, boxes = derive(study, *POOL)
    named = set()
    for place in boxes[boxes["rule"] != ""].drop_duplicates(["part_of", "rule"], keep="last").index:
        wrong = boxes.copy()
        wrong.loc[place, "n"] += 1
        faults = find_flow_faults(people, wrong, study)
        assert faults, boxes.loc[place, "box"]
        named |= set(re.findall(r'rule "(\w+)"', " ".join(faults)))
    for box in ("assessed", "entered", "allocated"):
        wrong = boxes.copy()
        wrong.loc[wrong["box"] == box, "n"] += 1
        named |= set(re.findall(r'rule "(\w+)"', " ".join(find_flow_faults(people, wrong, study))))
    assert named == set(RULES)


def test_who_came_further_has_passed_the_earlier_steps_and_a_note_says_so() -> None:
    study = STUDIES["matched"]
    people, boxes = derive(study, screened("2017-08-01"), allocated("2017-08-25"))
    assert [count(boxes, box) for box in ("approached", "agreed", "consented", "entered")] == [1, 1, 1, 1]
    notes = " ".join(find_flow_notes(people, study))
    assert "1 person has gone further than this step without a record of it, and counted here: consented." in notes


def test_loss_is_kept_apart_from_exclusion() -> None:
    study = STUDIES["matched"]
    joined = [event for person in PEOPLE for event in (
        screened("2017-08-01", person), signed("2017-08-20", person), allocated("2017-08-25", person),
        collected("2017-08-21", person=person),
    )]  # fmt: skip
    gone = (left("2017-10-01", "study", "withdrew", "LUT-001"), left("2017-10-01", "study", "not_eligible", "LUT-002"))
    _, boxes = derive(study, *joined, *gone, left("2017-10-01", "study", "died", "DEV-001"))
    assert (count(boxes, "lost"), count(boxes, "follow_up.excluded")) == (3, 1)
    assert [count(boxes, f"follow_up.{code}") for code in ("lost", "died", "missed")] == [1, 1, 1]
    assert count(boxes, "standing.excluded.not_eligible", "budget") == 1


def test_receipt_is_counted_where_the_protocol_says_how() -> None:
    study = STUDIES["randomised"]
    joined = [event for person in PEOPLE for event in (signed("2017-08-20", person), allocated("2017-08-25", person))]
    people, boxes = derive(study, *joined, left("2017-09-01", "treatment", "never_began", "LUT-002"))
    assert [count(boxes, box) for box in ("received", "not_received", "not_received.never_began")] == [3, 1, 1]
    assert not any("received" in note for note in find_flow_notes(people, study))
    people, boxes = derive(make_study(more=ANALYSIS), *joined)
    assert "received" not in set(boxes["box"])
    assert people["received"].isna().all()
    assert any("is not recorded" in note for note in find_flow_notes(people, study=make_study(more=ANALYSIS)))


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            'wave = "follow_up_6m"\nrespondents',
            'wave = "week_3"\nrespondents',
            'wave names wave "week_3"',
        ),
        (
            'respondents = ["self"]\ninstruments',
            'respondents = ["manager"]\ninstruments',
            'respondents names "manager"',
        ),
        ('instruments = ["mood"]\nneeds', 'instruments = ["moood"]\nneeds', 'instruments names "moood"'),
        ("is_never_received = true", "is_never_received = true\n" + ANALYSIS, "more than one [[main_analysis]]"),
        (
            'scopes = ["treatment"]\nis_never',
            'scopes = ["study"]\nis_never',
            'is_never_received is true, but its scopes lack "treatment"',
        ),
    ],
)
def test_faults_of_what_the_protocol_says_of_the_flow(old: str, new: str, fault: str) -> None:
    with pytest.raises(DefinitionFaults) as faults:
        make_study((old, new), more=ANALYSIS + NEVER)
    assert [fault in found for found in faults.value.faults] == [True]


# The figure ---------------------------------------------------------------------------------------------------------


def read_svg(text: str) -> tuple[ElementTree.Element, str]:
    root = ElementTree.fromstring(text)
    return root, " ".join("".join(part.itertext()) for part in root.iter("{http://www.w3.org/2000/svg}text"))


@pytest.mark.parametrize("is_narrow", [False, True])
def test_the_figure_is_text_and_says_what_the_boxes_say(is_narrow: bool) -> None:
    study, people, boxes = pilot()
    drawn = draw_flow(boxes, study, is_narrow=is_narrow)
    assert drawn == draw_flow(derive_flow_boxes(people, study), study, is_narrow=is_narrow)
    root, words = read_svg(drawn)
    for told in ("n = 306 at 17 sites", "n = 254 at 17 sites", "n = 86 at 16 sites", "Adverse event", "Screen failure"):
        assert told in words
    assert root.get("role") == "img"
    description = root.find("{http://www.w3.org/2000/svg}desc")
    assert description is not None
    assert description.text is not None
    assert "Placebo: allocated 86, lost to follow-up 24, analysed 59" in description.text
    width = float(str(root.get("width")))
    boxes_drawn = list(root.iter("{http://www.w3.org/2000/svg}rect"))
    assert all(float(str(box.get("x"))) + float(str(box.get("width"))) <= width for box in boxes_drawn)
    assert (width <= 375) == is_narrow
    assert "font-family" in drawn
    assert "@font-face" not in drawn


def test_the_table_reads_back_and_the_page_shows_every_box() -> None:
    study, people, boxes = pilot()
    pd.testing.assert_frame_equal(
        read_flow_table(encode_flow_table(boxes)), boxes.astype({"box": "str"}), check_dtype=False
    )
    flow = describe_for_page(people, boxes, study)
    page = write_flow_page(flow, study, "2015-03-09", "", END).decode()
    for label in boxes.loc[boxes["stage"] != "attendance", "label"].unique():
        assert label.replace("'", "&#39;") in page
    assert page.count("<svg") == 2
    assert "@page" in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    "label", ["Ünïcödé 😀 & <arm>", "処置群" * 20, "x" * 500, "A budget with a very long name " * 16]
)
def test_labels_of_any_length_and_script_stay_in_their_boxes(label: str) -> None:
    study = STUDIES["matched"]
    arms = tuple(arm.model_copy(update={"label": label}) if arm.id == "budget" else arm for arm in study.arms)
    study = study.model_copy(update={"arms": arms})
    people, boxes = derive(study, *POOL)
    for is_narrow in (False, True):
        _, words = read_svg(draw_flow(boxes, study, is_narrow=is_narrow))
        assert label[:8] in words
    page = write_flow_page(describe_for_page(people, boxes, study), study, "r", "", END).decode()
    assert label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in page
    assert all(measure(line) <= 120 for line in wrap_words(label, 120))
    assert len(wrap_words(label, 120)) <= 4


# Bad input ----------------------------------------------------------------------------------------------------------


def test_an_empty_study_has_a_flow_of_zeros_and_says_so() -> None:
    for study in (STUDIES["matched"], load_study("ipc"), load_study("cdisc_pilot")):
        people = derive_disposition_rows(study, Events({}), date(2018, 1, 1))
        boxes = derive_flow_boxes(people, study)
        assert boxes["n"].sum() == 0
        assert find_flow_faults(people, boxes, study) == []
        assert "Nobody has been screened yet." in find_flow_notes(people, study)
        assert "Assessed for eligibility" in read_svg(draw_flow(boxes, study))[1].replace("  ", " ")
        assert list(people.columns) == derive_dispositions_layout(study).column_names


def test_one_arm() -> None:
    study = STUDIES["matched"]
    study = study.model_copy(update={"arms": study.arms[:1], "allocation": "none"})
    people, boxes = derive(study, *[event for event in POOL if not isinstance(event, ParticipantAllocated)])
    assert find_flow_faults(people, boxes, study) == []
    assert count(boxes, "entered") == 4
    assert "consented" not in set(boxes["box"])
    assert "The study has one arm: nothing is compared." in find_flow_notes(people, study)
    assert "Enrolled" in read_svg(draw_flow(boxes, study))[1]


def test_an_arm_with_nobody_left_and_one_with_nobody() -> None:
    study = STUDIES["matched"]
    people, boxes = derive(
        study, screened("2017-08-01"), signed("2017-08-20"), allocated("2017-08-25"), left("2017-09-01", "study")
    )  # fmt: skip
    notes = find_flow_notes(people, study)
    assert "Budget: nobody is left in the study, and nobody has completed it." in notes
    assert "Usual care: nobody is in this arm." in notes
    assert count(boxes, "allocated", "usual") == 0
    assert find_flow_faults(people, boxes, study) == []


def test_a_participant_in_two_arms_is_refused() -> None:
    study, people, _ = pilot()
    twice = pd.concat([people, people[people["arm"] == "placebo"].head(1).assign(arm="low_dose")], ignore_index=True)
    faults = find_flow_faults(twice, derive_flow_boxes(twice, study), study)
    assert faults == ["1 participant stands in more than one arm. Void the allocation that was a mistake."]
    strange = people.assign(arm=people["arm"].replace("placebo", "sugar"))
    faults = find_flow_faults(strange, derive_flow_boxes(strange, study), study)
    assert faults == ["86 people are in an arm that the protocol does not have."]


def test_forty_arms_are_a_table() -> None:
    study, people, _ = pilot()
    arms = tuple(Arm(id=f"arm_{number}", label=f"Arm {number}", role="intervention") for number in range(40))
    study = study.model_copy(update={"arms": arms})
    number = pd.Series(range(len(people))) % 40
    people = people.assign(arm=("arm_" + number.astype("str")).where(people["arm"].notna()))
    boxes = derive_flow_boxes(people, study)
    assert find_flow_faults(people, boxes, study) == []
    assert not can_draw(boxes)
    with pytest.raises(ValueError, match=f"up to {MOST_ARMS} arms"):
        draw_flow(boxes, study)
    page = write_flow_page(describe_for_page(people, boxes, study), study, "r", "", END).decode()
    assert "this study has 40: its flow is the table below" in " ".join(page.split())
    assert "Arm 39" in page
    assert "<svg" not in page


# Releases -----------------------------------------------------------------------------------------------------------


def test_a_release_holds_the_flow_and_its_boxes_follow_from_its_files(tmp_path: Path) -> None:
    workspace = open_study(tmp_path)
    fill_study(workspace)
    frozen = freeze_release(workspace, workspace.clock().date(), BY)
    folder = Path(frozen.location)
    people, boxes = read_release(folder)
    assert (len(people), count(boxes, "entered"), count(boxes, "allocated", "placebo")) == (3, 2, 1)
    assert find_differences(people, boxes) == []
    assert {"flow.svg", "flow.csv", "flow.html", "data/dispositions.parquet"} <= set(frozen.manifest["files"])
    report = (folder / "report.html").read_text(encoding="utf-8")
    figure = (folder / "flow.svg").read_text(encoding="utf-8")
    assert figure.replace(' xmlns="http://www.w3.org/2000/svg"', "") in report
    assert "n = 3 at 2 sites" in read_svg(figure)[1]
    wrong = people.copy()
    wrong.loc[wrong["arm"] == "placebo", "standing"] = "lost"
    assert find_differences(wrong, boxes)


def test_r_counts_the_same_boxes_from_the_files(tmp_path: Path) -> None:
    """Independently of Python: base R reads dispositions.csv and flow.csv, and nothing else."""
    if find_haven() is None:
        pytest.skip("R is not here: apt-get install r-cran-haven")
    workspace = open_study(tmp_path)
    fill_study(workspace)
    folder = Path(freeze_release(workspace, workspace.clock().date(), BY).location)
    n_boxes = len(read_release(folder)[1])
    assert count_in_r(folder)[-1] == f"{n_boxes} boxes, 0 differ"
    people = folder / "data" / "dispositions.csv"
    told = people.read_text(encoding="utf-8")
    people.write_text(told.replace(',"placebo",', ',"low_dose",'), encoding="utf-8")
    assert any(line.split()[:2] == ["allocated", "placebo"] for line in count_in_r(folder))


def count_in_r(folder: Path) -> list[str]:
    script = PROJECT / "tests" / "count_flow.R"
    done = subprocess.run(["Rscript", str(script), str(folder)], capture_output=True, text=True, check=True)
    return [line.strip() for line in done.stdout.splitlines()]


def test_a_release_is_refused_while_the_flow_does_not_reconcile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = open_study(tmp_path)
    fill_study(workspace)

    def lose_one(people: pd.DataFrame, study: Study) -> pd.DataFrame:
        boxes = derive_flow_boxes(people, study)
        boxes.loc[(boxes["box"] == "standing.in") & (boxes["group"] == "placebo"), "n"] -= 1
        return boxes

    monkeypatch.setattr(tasks.releases, "derive_flow_boxes", lose_one)
    with pytest.raises(ReleaseFault) as refusal:
        freeze_release(workspace, workspace.clock().date(), BY)
    assert any('does not add up at allocated, placebo' in fault and 'rule "leaving"' in fault
               for fault in refusal.value.faults)  # fmt: skip
    assert not (Path(workspace.folder) / "releases").exists()


def test_dispositions_that_contradict_the_tables_are_faults() -> None:
    study, people, _ = pilot()
    participants = people[["participant_id", "arm"]]
    answers = people.loc[people["outcome_week_24"] == "returned", ["participant_id"]].assign(wave="week_24")
    assert find_release_faults(people, participants, answers, study) == []
    changed = people.assign(outcome_week_24="missed")
    assert find_release_faults(changed, participants, answers, study) == [
        "dispositions.outcome_week_24: 116 people with answers are not there as returned."
    ]
    assert find_release_faults(people.head(300), participants, answers.head(0), study) == [
        "dispositions: 6 people of the table participants are not there."
    ]
    other = participants.assign(arm=participants["arm"].replace("placebo", "low_dose"))
    assert find_release_faults(people, other, answers.head(0), study) == [
        "dispositions.arm: 86 people have another arm in the table participants."
    ]
