"""What a return says beside all else that is known: what each rule finds, and what it leaves alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.events import QueryClosed
from study.fieldwork import AcrossRule, AcrossTest, Fieldwork, ReturnChecks
from study.incidents import SiteGate
from study.instrument_parser import parse_instrument
from study.instruments import DefinitionFaults, Instrument
from study.logs import Person
from study.pack_layout import Column, Layout, ReadSheet, Sheet, derive_return_layout
from study.protocol import Study
from study.queries import RETURN_RULES
from study.return_checks import Beside, Finding, find_across_faults, find_earlier, find_return_faults, find_settled
from study.returns import RecordKey, StandingRecord
from study.validation import check_records
from tasks.definitions import load_instrument, load_instruments, load_study
from tasks.receipts import find_wording
from tasks.settings import PROJECT
from tasks.workbooks import read_return_workbook
from tests.test_returns import Row, Site
from tests.test_workbook_faults import NHS

STUDY = load_study("ipc")
ADDED = ("sociodemographics", "wemwbs", "eq5d3l")
INSTRUMENTS = load_instruments(STUDY) | {name: load_instrument(name) for name in ADDED}
ANN, BEN, CAT = "LUT-P00013", "LUT-P00021", "LUT-P00037"
CONSENTED, BASELINE, SIX = date(2017, 9, 1), date(2017, 9, 11), date(2018, 3, 12)
TODAY = date(2018, 10, 1)
FINE = {"eq5d5l_mo": 1, "eq5d5l_sc": 2, "eq5d5l_ua": 3, "eq5d5l_pd": 2, "eq5d5l_ad": 1, "eq5d5l_vas": 70}


@dataclass
class Told:
    """A record as a file tells it."""

    key: RecordKey
    row: int
    form: str
    collected_on: date | None
    items: npt.NDArray[np.object_]
    responses: npt.NDArray[np.float64]
    reasons: npt.NDArray[np.int8]


Cells = Mapping[str, Any]


def tell(
    instrument: str, cells: Cells, name: str = ANN, wave: str = "baseline", on: date | None = BASELINE,
    respondent: str = "self", form: str = "standard",
) -> tuple[RecordKey, str, date | None, Cells]:  # fmt: skip
    return RecordKey(name, respondent, wave, instrument), form, on, cells


def make_records(rows: Sequence[Any], instruments: Mapping[str, Instrument]) -> tuple[list[Told], dict[str, ReadSheet]]:
    """The rows of each instrument together, from row 3 on, checked cell by cell as a return's are."""
    told, sheets = [], {}
    for name, instrument in instruments.items():
        own = [row for row in rows if row[0].instrument == name]
        if not own:
            continue
        frame = pd.DataFrame([[c.get(item) for item in instrument.item_ids] for *_, c in own], dtype=object)
        frame.columns = pd.Index(instrument.item_ids)
        checked = check_records(instrument, frame)
        items = np.array(instrument.item_ids, dtype=object)
        for n, (key, form, on, _) in enumerate(own):
            told.append(Told(key, n + 3, form, on, items, checked.responses.to_numpy()[n], checked.reasons[n]))
        frame.insert(0, "row", np.arange(3, 3 + len(own)))
        sheets[name] = ReadSheet(name, instrument.sheet_title, 1, frame, {})
    return told, sheets


ALONE = Person(screened_on=CONSENTED, consents={"": CONSENTED})


def find(
    *rows: Any,
    before: Sequence[Any] = (),
    people: Mapping[str, Person] | None = None,
    sent: Mapping[tuple[str, str, str], str] | None = None,
    posted_on: date = TODAY,
    study: Study = STUDY,
) -> list[Finding]:
    told, sheets = make_records(rows, INSTRUMENTS)
    earlier = {record.key: record for record in make_records(before, INSTRUMENTS)[0]}
    records = {
        key: StandingRecord(1, record.form, record.collected_on or TODAY, "luton-2017-10-01-1", 0, "a" * 64)
        for key, record in earlier.items()
    }
    everybody = {row[0].participant_id: ALONE for row in rows} | dict(people or {})
    beside = Beside(records, earlier, everybody, sent or {}, posted_on, TODAY)
    return find_return_faults(study, INSTRUMENTS, told, sheets, beside)


def rules(found: Sequence[Finding]) -> list[str]:
    return [finding.rule for finding in found]


def with_rules(**fields: Any) -> Study:
    return with_fieldwork(return_checks=(ReturnChecks(**fields),))


def with_fieldwork(**sections: Any) -> Study:
    fieldwork: Fieldwork = STUDY.fieldwork.model_copy(update=sections)
    return STUDY.model_copy(update={"fieldwork": fieldwork})


def test_a_usual_return_is_asked_nothing() -> None:
    rows = [tell("eq5d5l", FINE), tell("ons4", {"ons_satisfied": 7, "ons_happy": 6}, on=BASELINE)]
    rows += [tell("eq5d5l", {**FINE, "eq5d5l_vas": 60}, BEN), tell("eq5d5l", FINE, wave="follow_up_6m", on=SIX)]
    assert find(*rows) == []
    assert find() == []


def test_11111_is_an_answer_and_asked_about_nowhere() -> None:
    best = dict.fromkeys(FINE, 1) | {"eq5d5l_vas": 100}
    names = [f"LUT-P{n:05d}" for n in range(19)]
    assert find(*(tell("eq5d5l", best, name) for name in names)) == []


# People and waves ---------------------------------------------------------------------------------------------------


def test_a_follow_up_without_a_baseline_is_asked_about_once() -> None:
    later: dict[str, Any] = {"wave": "follow_up_6m", "on": SIX}
    rows = [tell("eq5d5l", FINE, **later), tell("ons4", {"ons_happy": 5}, **later)]
    found = find(*rows)
    assert [(f.rule, f.severity, f.record, f.column) for f in found] == [
        ("follow_up_without_baseline", "soft", 0, "wave"),
    ]
    assert find(*rows, before=[tell("ascot_carer", {}, respondent="carer")]) == []  # by whichever respondent
    assert find(*rows, tell("eq5d5l", FINE)) == []
    assert find(*rows, tell("eq5d5l", FINE, on=None)) == []  # the baseline in the file has a question of its own


def test_a_missing_baseline_that_comes_later_answers_the_question() -> None:
    asked = [(f"{ANN}:self:follow_up_6m:eq5d5l", "follow_up_without_baseline", ""),
             (f"{BEN}:self:follow_up_6m:eq5d5l", "follow_up_without_baseline", ""),
             (f"{ANN}:self:follow_up_6m:eq5d5l", "outside_window", "")]  # fmt: skip
    told, _ = make_records([tell("ons4", {"ons_happy": 5})], INSTRUMENTS)
    assert find_settled(asked, STUDY, told) == {asked[0]}


@pytest.mark.parametrize(
    ("scope", "reason", "on", "rule", "severity"),
    [
        ("study", "died", date(2017, 9, 10), "answered_after_death", "hard"),
        ("study", "died", date(2017, 9, 11), "", ""),  # on that very day
        ("questionnaires", "withdrew", date(2017, 9, 10), "answered_after_leaving", "soft"),
        ("data", "data_withdrawn", date(2017, 9, 10), "answered_after_leaving", "soft"),
        ("treatment", "withdrew", date(2017, 9, 10), "", ""),  # leaving the treatment is not leaving the questionnaires
        ("study", "lost_contact", date(2017, 9, 10), "", ""),  # and whoever was lost may be found
        ("questionnaires", "completed", date(2017, 9, 10), "", ""),
    ],
)
def test_answers_from_after_leaving(scope: str, reason: str, on: date, rule: str, severity: str) -> None:
    person = replace(ALONE, left={scope: on}, left_for={scope: reason})
    found = find(tell("eq5d5l", FINE), people={ANN: person})
    assert [(f.rule, f.severity) for f in found] == ([(rule, severity)] if rule else [])
    if rule:
        assert found[0].expected == "a date up to 10 Sep 2017"


def test_after_death_every_row_is_stopped_and_after_withdrawing_one_question_is_asked() -> None:
    rows = [tell("eq5d5l", FINE), tell("ons4", {"ons_happy": 5})]
    for reason, n in (("died", 2), ("withdrew", 1)):
        person = replace(ALONE, left={"study": CONSENTED}, left_for={"study": reason})
        assert len(find(*rows, people={ANN: person})) == n


def test_a_questionnaire_that_nobody_is_asked_at_that_wave() -> None:
    [finding] = find(tell("ons4", {"ons_happy": 5}, respondent="proxy"))
    assert (finding.rule, finding.column) == ("not_scheduled", "wave")
    takes_all = STUDY.model_copy(update={"accepts_unscheduled": True})
    assert find(tell("ons4", {"ons_happy": 5}, respondent="proxy"), study=takes_all) == []


def test_easy_read_that_was_sent_and_standard_that_is_told() -> None:
    sent = {(ANN, "self", "baseline"): "easy_read"}
    [finding] = find(tell("ascot_sct4", {}), tell("ons4", {"ons_happy": 5}), sent=sent)
    assert (finding.rule, finding.record, finding.column) == ("form_differs", 0, "form")
    assert "easy read" in finding.expected
    assert find(tell("eq5d5l", FINE), sent=sent) == []  # it has no easy-read form
    assert find(tell("ons4", {"ons_happy": 5}, form="easy_read"), sent=sent) == []


# Dates --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("day", "is_asked"), [(date(2017, 9, 10), True), (date(2017, 9, 11), False)])
def test_posted_before_the_last_date_in_the_file(day: date, is_asked: bool) -> None:
    found = find(tell("eq5d5l", FINE), tell("eq5d5l", FINE, BEN, on=date(2019, 1, 1)), posted_on=day)
    about = [(f.sheet, f.column, f.record, f.expected) for f in found if f.rule == "posted_before_collected"]
    assert about == ([("about", "posted_on", None, "11 Sep 2017 or later, the last date in it")] if is_asked else [])


def test_a_follow_up_dated_before_the_baseline() -> None:
    rows = [tell("eq5d5l", FINE, wave="follow_up_6m", on=date(2017, 9, 10)),
            tell("ons4", {"ons_happy": 5}, wave="follow_up_6m", on=date(2017, 9, 10))]  # fmt: skip
    [finding] = find(*rows, before=[tell("eq5d5l", FINE)])
    assert (finding.rule, finding.record) == ("waves_out_of_order", 0)
    assert finding.expected == "a date from 11 Sep 2017 on, when an earlier wave was answered"


def test_a_baseline_dated_in_the_future_says_nothing_of_the_follow_up() -> None:
    rows = [tell("eq5d5l", FINE, on=TODAY + timedelta(days=1)),
            tell("eq5d5l", FINE, wave="follow_up_6m", on=date(2018, 3, 11))]  # fmt: skip
    assert "waves_out_of_order" in rules(find(tell("eq5d5l", FINE, on=TODAY), rows[1]))
    assert "waves_out_of_order" not in rules(find(*rows))


# 24 November 2017 is the last day of the baseline's window, and 26 February 2018 the first of the 6-month one: twelve
# weeks after consent, and two weeks before 11 March 2018, moved to the next working day.
@pytest.mark.parametrize(
    ("wave", "on", "is_asked"),
    [
        ("baseline", CONSENTED, False),
        ("baseline", date(2017, 11, 24), False),
        ("baseline", date(2017, 11, 25), True),
        ("follow_up_6m", date(2018, 2, 25), True),
        ("follow_up_6m", date(2018, 2, 26), False),
        ("follow_up_6m", date(2018, 6, 4), False),
        ("follow_up_6m", date(2018, 6, 5), True),
        ("baseline", date(2017, 8, 31), False),  # before consent: asked about already
    ],
)
def test_dates_outside_the_window(wave: str, on: date, is_asked: bool) -> None:
    before = [tell("ons4", {}, on=BASELINE)] if wave != "baseline" else []
    found = find(tell("eq5d5l", FINE, wave=wave, on=on), before=before)
    assert rules(found) == ["outside_window"] * is_asked


@pytest.mark.parametrize(("n_days", "is_asked"), [(136, True), (137, False), (183, False)])
def test_the_same_weeks_told_twice(n_days: int, is_asked: bool) -> None:
    """Three quarters of six months are 137 days less an eighth; less than that overlaps by more than a quarter."""
    study = with_rules(leaves_out=("outside_window",))
    later = tell("service_use", {}, wave="follow_up_6m", on=BASELINE + timedelta(days=n_days))
    assert rules(find(later, before=[tell("service_use", {})], study=study)) == ["recall_overlaps"] * is_asked
    assert rules(find(tell("service_use", {}), later, study=study)) == ["recall_overlaps"] * is_asked


# Sheets -------------------------------------------------------------------------------------------------------------


def name_people(n: int) -> list[str]:
    return [f"LUT-P{number:05d}" for number in range(n)]


@pytest.mark.parametrize(("n", "highest", "is_asked"), [(20, 3, True), (20, 4, False), (19, 3, False)])
def test_a_sheet_of_3l_typed_into_5l(n: int, highest: int, is_asked: bool) -> None:
    rows = [tell("eq5d5l", {**FINE, "eq5d5l_sc": k % highest + 1}, name) for k, name in enumerate(name_people(n))]
    found = [f for f in find(*rows) if f.rule == "other_version"]
    assert [(f.sheet, f.column, f.record) for f in found] == [("eq5d5l", "eq5d5l_mo", None)] * is_asked


@pytest.mark.parametrize(("n_blank", "cell", "is_asked"), [(5, None, True), (4, None, False), (10, -9, False)])
def test_a_page_left_out(n_blank: int, cell: Any, is_asked: bool) -> None:
    """A code says why there is no answer, and is not asked about."""
    back = ("eq5d5l_ad", "eq5d5l_vas")
    rows = [
        tell("eq5d5l", FINE | (dict.fromkeys(back, cell) if k < n_blank else {}), name)
        for k, name in enumerate(name_people(10))
    ]
    found = find(*rows)
    assert [(f.rule, f.sheet, f.column) for f in found] == [("often_blank", "eq5d5l", "eq5d5l_ad")] * is_asked
    if is_asked:
        assert "eq5d5l_ad, eq5d5l_vas" in found[0].expected


def test_a_question_that_an_earlier_answer_leads_to_and_that_is_blank() -> None:
    instrument = load_instrument("npi_x")
    item = next(item for item in instrument.items if item.asked_if is not None)
    assert item.asked_if is not None
    gate = {item.asked_if.item: item.asked_if.equals[0]}
    study = STUDY.model_copy(update={"accepts_unscheduled": True})
    told, sheets = make_records([tell("npi_x", gate, respondent="carer")], {"npi_x": instrument})
    beside = Beside({}, {}, {ANN: ALONE}, {}, TODAY, TODAY)
    [finding] = find_return_faults(study, {"npi_x": instrument}, told, sheets, beside)
    assert (finding.rule, finding.item, finding.record) == ("asked_and_blank", item.id, 0)
    told, sheets = make_records([tell("npi_x", {**gate, item.id: -9}, respondent="carer")], {"npi_x": instrument})
    assert item.id not in [f.item for f in find_return_faults(study, {"npi_x": instrument}, told, sheets, beside)]


@pytest.mark.parametrize(("n", "is_asked"), [(3, True), (2, False)])
def test_a_number_that_may_be_a_code(n: int, is_asked: bool) -> None:
    rows = [tell("eq5d5l", {**FINE, "eq5d5l_vas": 99 if k < n else 50 + k}, m) for k, m in enumerate(name_people(12))]
    found = find(*rows)
    assert [(f.rule, f.column) for f in found] == [("sentinel_suspected", "eq5d5l_vas")] * is_asked


def test_one_answer_throughout_in_most_rows_of_a_long_questionnaire() -> None:
    items = load_instrument("wemwbs").item_ids
    study = STUDY.model_copy(update={"accepts_unscheduled": True})
    straight = [tell("wemwbs", dict.fromkeys(items, 3), name) for name in name_people(4)]
    varied = tell("wemwbs", {item: n % 5 + 1 for n, item in enumerate(items)}, CAT)
    [finding] = find(*straight, varied, study=study)
    assert (finding.rule, finding.sheet, finding.record) == ("answered_alike", "wemwbs", None)
    assert find(*straight, study=study) == []  # four rows are too few to say


# Other waves --------------------------------------------------------------------------------------------------------

LATER: dict[str, Any] = {"wave": "follow_up_6m", "on": SIX}
SCHEDULED = STUDY.model_copy(update={"accepts_unscheduled": True})


@pytest.mark.parametrize(
    ("now", "rule"),
    [
        ({"socio_age": 40, "socio_sex": 1}, "sex_changed"),
        ({"socio_age": 41, "socio_sex": 2}, ""),
        ({"socio_age": 42, "socio_sex": 2}, "birth_year_changed"),
        ({"socio_age": 39, "socio_sex": 2}, "birth_year_changed"),
        ({"socio_age": -8, "socio_sex": -9}, ""),
    ],
)
def test_a_person_who_became_another(now: dict[str, int], rule: str) -> None:
    before = [tell("sociodemographics", {"socio_age": 40, "socio_sex": 2})]
    found = find(tell("sociodemographics", now, **LATER), before=before, study=SCHEDULED)
    assert rules(found) == [rule] * bool(rule)
    assert all(f.item in ("socio_age", "socio_sex") and not f.expected.count("4") for f in found)
    proxy = [tell("sociodemographics", {"socio_age": 77, "socio_sex": 1}, respondent="proxy")]
    assert find(tell("sociodemographics", now, **LATER), before=proxy, study=SCHEDULED) == []


@pytest.mark.parametrize(("vas", "is_asked"), [(10, False), (9, True)])
def test_a_score_that_moved_very_far(vas: int, is_asked: bool) -> None:
    before = [tell("eq5d5l", {**FINE, "eq5d5l_vas": 90})]
    found = find(tell("eq5d5l", {**FINE, "eq5d5l_vas": vas}, **LATER), before=before)
    assert [(f.rule, f.item) for f in found] == [("implausible_change", "eq5d5l_vas")] * is_asked
    if is_asked:
        assert found[0].expected == "a change of EQ VAS by at most 80 since the wave before"


@cache
def answer(seed: int) -> dict[str, Any]:
    items = load_instrument("wemwbs").item_ids
    return dict(zip(items, np.random.default_rng(seed).integers(1, 6, len(items)).tolist(), strict=True))


def test_two_people_whose_rows_have_changed_places() -> None:
    """Ann's row holds what Ben answered before, and the other way round; Cat stayed as she was."""
    before = [tell("wemwbs", answer(n), name) for n, name in enumerate((ANN, BEN, CAT))]
    rows = [tell("wemwbs", answer(n), name, **LATER) for n, name in ((1, ANN), (0, BEN), (2, CAT))]
    [finding] = find(*rows, before=before, study=SCHEDULED)
    assert (finding.rule, finding.record, finding.column) == ("identity_swapped", 0, "participant_id")
    assert "row 4" in finding.expected
    right = [tell("wemwbs", answer(n), name, **LATER) for n, name in enumerate((ANN, BEN, CAT))]
    assert find(*right, before=before, study=SCHEDULED) == []
    slipped = [tell("wemwbs", answer(n), name, **LATER) for n, name in ((1, ANN), (2, BEN), (0, CAT))]
    [finding] = find(*slipped, before=before, study=SCHEDULED)
    assert (finding.record, "3 people, from this row on" in finding.expected) == (0, True)
    one_way = [tell("wemwbs", answer(n), name, **LATER) for n, name in ((1, ANN), (5, BEN), (2, CAT))]
    assert find(*one_way, before=before, study=SCHEDULED) == []


def test_the_records_that_are_compared_are_the_last_of_another_wave() -> None:
    def stands(on: date) -> StandingRecord:
        return StandingRecord(1, "standard", on, "luton-2017-10-01-1", 0, "a" * 64)

    def key(wave: str, name: str = ANN) -> RecordKey:
        return RecordKey(name, "self", wave, "eq5d5l")

    records = {key("baseline"): stands(BASELINE), key("follow_up_6m"): stands(SIX), key("baseline", BEN): stands(SIX)}
    named = [key("follow_up_12m")]
    assert find_earlier(STUDY, INSTRUMENTS, named, records) == {key("follow_up_6m")}
    assert find_earlier(STUDY, INSTRUMENTS, [key("follow_up_6m")], records) == {key("baseline")}
    no_swaps = with_rules(leaves_out=("identity_swapped",))
    assert find_earlier(no_swaps, INSTRUMENTS, named, records) == {key("follow_up_6m")}
    none = with_rules(leaves_out=("implausible_change", "identity_swapped"))
    assert find_earlier(none, INSTRUMENTS, named, records) == set()  # EQ-5D-5L tells neither sex nor age


# Across questionnaires ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("happy", "is_asked"), [(9, True), (8, False), (-9, False)])
def test_answers_to_two_questionnaires_that_hardly_go_together(happy: int, is_asked: bool) -> None:
    rows = [tell("eq5d5l", {**FINE, "eq5d5l_ad": 5}), tell("ons4", {"ons_happy": happy, "ons_anxious": 0})]
    found = [f for f in find(*rows) if f.rule == "scales_disagree"]
    assert [(f.severity, f.item) for f in found] == [("soft", "ons_anxious")] * is_asked
    assert not [f for f in find(rows[0], (rows[1][0]._replace(wave="follow_up_6m"), *rows[1][1:])) if f.item]


def test_a_rule_across_questionnaires_must_name_what_there_is() -> None:
    test = AcrossTest(instrument="eq5d5l", items=("eq5d5l_da",), equals=(5,))
    rule = AcrossRule(
        id="odd", says="Odd", severity="soft", never_together=(test, test.model_copy(update={"instrument": "ons5"}))
    )
    faults = list(find_across_faults(with_fieldwork(across=(rule,)), load_instruments(STUDY)))
    assert faults[0].startswith('sites_config/ipc/fieldwork.toml: across odd: eq5d5l has no item "eq5d5l_da".')
    assert '"ons5" is no instrument of the study.' in faults[1]


def test_a_study_leaves_rules_out() -> None:
    row = tell("eq5d5l", FINE, wave="follow_up_6m", on=SIX)
    assert rules(find(row)) == ["follow_up_without_baseline"]
    assert find(row, study=with_rules(leaves_out=("follow_up_without_baseline",))) == []


# Anything at all ----------------------------------------------------------------------------------------------------

DAYS = st.none() | st.dates(date(2017, 6, 1), TODAY)
ANSWERS = st.none() | st.integers(-9, 110)


@st.composite
def draw_row(draw: st.DrawFn) -> Any:
    name = draw(st.sampled_from(["eq5d5l", "ons4", "service_use", "sociodemographics", "wemwbs"]))
    cells = {item: draw(ANSWERS) for item in INSTRUMENTS[name].item_ids}
    wave = draw(st.sampled_from(["baseline", "follow_up_6m", "follow_up_12m", "visit 9", ""]))
    respondent = draw(st.sampled_from(["self", "proxy", ""]))
    return tell(name, cells, draw(st.sampled_from([ANN, BEN, CAT, ""])), wave, draw(DAYS), respondent)


@settings(max_examples=60, deadline=None)
@given(st.lists(draw_row(), max_size=8), st.lists(draw_row(), max_size=6))
def test_whatever_is_told_each_question_names_a_place_and_no_answer(rows: list[Any], before: list[Any]) -> None:
    stands = [row for row in before if all(row[0]) and row[2]]
    told, _ = make_records(rows, INSTRUMENTS)
    found = find(*rows, before=stands)
    for finding in found:
        assert finding.severity == RETURN_RULES[finding.rule]
        place = told[finding.record].key.instrument if finding.record is not None else finding.sheet
        names = INSTRUMENTS[place].item_ids if place in INSTRUMENTS else ()
        assert finding.column in (*names, "participant_id", "wave", "form", "collected_on", "posted_on")
        assert find_wording(finding.rule, finding.expected)
    assert len({(f.rule, f.record, f.item, f.sheet, f.column) for f in found}) == len(found)
    assert found == find(*rows, before=stands)


# Definitions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            "largest_change = 80",
            "largest_change = 100",
            "scale eq_vas: largest_change must be more than 0 and less than",
        ),
        (
            "highest = 3",
            "highest = 5",
            "other version number 1: highest must be an answer of eq5d5l_mo below its highest",
        ),
        (
            "rows = 20",
            "rows = 1",
            "other version number 1: highest and rows must be whole numbers, and rows at least 2",
        ),
        ('title = "EQ-5D-3L"', 'titel = "EQ-5D-3L"', 'other version number 1: "titel" is no word of a definition here'),
    ],
)
def test_what_can_be_wrong_with_these_words_of_a_definition(old: str, new: str, fault: str) -> None:
    folder = PROJECT / "instruments" / "eq5d5l"
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    text = files["definition.toml"].decode()
    assert text.count(old) == 1
    with pytest.raises(DefinitionFaults) as faults:
        parse_instrument("eq5d5l", files | {"definition.toml": text.replace(old, new).encode()})
    assert any(told.startswith(f"instruments/eq5d5l: {fault}") for told in faults.value.faults)


# Through the decision -----------------------------------------------------------------------------------------------


@pytest.fixture
def luton(monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site that may collect whatever the day."""
    monkeypatch.setattr(SiteGate, "is_allowed", lambda *_: True)
    own = load_instruments(STUDY)
    site = Site("luton", study=STUDY, instruments=own, layout=derive_return_layout(STUDY, own))
    site.send({"screening": [screen(ANN), screen(BEN)], "consent": [consent(ANN), consent(BEN)]},
              posted_on=date(2017, 9, 4), today=TODAY)  # fmt: skip
    return site


def screen(name: str) -> Row:
    return {"participant_id": name, "cohort": "mental_health", "screened_on": CONSENTED, "approached_on": CONSENTED,
            "outcome": "agreed"}  # fmt: skip


def consent(name: str) -> Row:
    return {"participant_id": name, "consented_on": CONSENTED, "consent_form_version": "1.0", "route": "self",
            "consent_scopes": "questionnaires", "taken_by": "site_researcher", "copy_filed": "yes"}  # fmt: skip


def eq5d(name: str, wave: str, on: date, **cells: Any) -> Row:
    row = {"participant_id": name, "respondent": "self", "form": "standard", "wave": wave, "collected_on": on}
    return row | FINE | cells


def test_what_is_found_is_placed_and_only_death_stops_a_row(luton: Site) -> None:
    received = luton.send(
        {
            "disposition": [{"participant_id": BEN, "scope": "study", "reason": "died", "left_on": date(2017, 9, 20)}],
            "eq5d5l": [eq5d(ANN, "follow_up_6m", SIX), eq5d(BEN, "baseline", date(2017, 9, 21))],
        },
        posted_on=date(2018, 3, 1), today=TODAY,
    )  # fmt: skip
    found = {fault[0]: fault[1:] for fault in received.faults if fault[0] in RETURN_RULES}
    assert found == {
        "follow_up_without_baseline": ("eq5d5l", "D3", "soft"),
        "answered_after_death": ("eq5d5l", "E4", "hard"),
        "posted_before_collected": ("about", "", "soft"),
    }
    assert received.counts[2] == 1


def test_a_death_that_is_told_after_later_answers_were_taken(luton: Site) -> None:
    luton.send({"eq5d5l": [eq5d(BEN, "baseline", date(2017, 9, 21))]}, posted_on=date(2017, 10, 1), today=TODAY)
    row = {"participant_id": BEN, "scope": "study", "reason": "died", "left_on": date(2017, 9, 20)}
    received = luton.send({"disposition": [row]}, posted_on=date(2017, 11, 1), today=TODAY)
    assert received.faults == [("died_before_answers", "disposition", "D3", "soft")]
    again = luton.send({"disposition": [row]}, posted_on=date(2017, 12, 1), today=TODAY)
    assert again.find(QueryClosed) == []  # told again, and asked as before
    right = luton.send(
        {"disposition": [{**row, "left_on": date(2017, 10, 20)}]},
        posted_on=date(2017, 11, 1), correction=1, today=TODAY,
    )  # fmt: skip
    assert right.faults == []
    assert len(right.find(QueryClosed)) == 1


def test_a_baseline_that_comes_at_last_closes_the_question(luton: Site) -> None:
    asked = luton.send({"eq5d5l": [eq5d(ANN, "follow_up_6m", SIX)]}, posted_on=date(2018, 4, 1), today=TODAY)
    [query_id] = asked.query_ids
    came = luton.send({"eq5d5l": [eq5d(ANN, "baseline", BASELINE)]}, posted_on=date(2018, 4, 2), today=TODAY)
    assert came.faults == []
    closed = [event.query_id for event in came.find(QueryClosed)]
    assert closed == [query_id]


# Real returns -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not NHS.is_dir(), reason="the NHS return workbooks of the shared data are not on this machine")
def test_a_deleted_column_of_a_real_return_is_reported_by_name() -> None:
    """The workbook's own list of codes has five questions on the cost of care; its sheet has lost two of them. Another
    of its sheets goes down to row 1,048,576."""
    cost = "Complete Cost of Care Package (Voluntary fields)\nDoes this budget include "
    labels = {
        "authority": "LA Code\n(automatically generated)\nDO NOT OVERWRITE THE DATA IN THIS FIELD",
        "contributions": f"{cost}any contributions made by the service user?",
        "equipment": f"{cost}any equipment costs?",
        "care_home": f"{cost}any care home fees?",
        "other_streams": f"{cost}other streams of funding outside of social care?",
    }
    columns = tuple(Column(code, label, "item", minimum=0, maximum=99) for code, label in labels.items())
    layout = Layout("nhs", "NHS", "1", ("406",), (Sheet("answers", "Service User Data", "", columns),))
    data = (NHS / "unacceptable_column_deleted_test_data_return.xlsx").read_bytes()
    seconds = []
    for _ in range(2):
        started = time.process_time()
        reading = read_return_workbook(data, layout)
        seconds.append(time.process_time() - started)
        if seconds[-1] < 2:
            break
    assert min(seconds) < 2
    missing = {problem.column: problem.expected for problem in reading.problems if problem.rule == "missing_column"}
    assert list(missing) == ["equipment", "other_streams"]
    assert "any equipment costs?" in missing["equipment"]
