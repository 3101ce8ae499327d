"""What definitions say beyond items and sums: value sets, unit costs, choices, rules, variants, cautions."""

from __future__ import annotations

import math
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.codebook import describe_instrument
from study.instrument_parser import parse_instrument
from study.instruments import DefinitionFaults, Instrument, derive_scale_rows
from study.scoring import derive_people, derive_scores, find_worked_example_faults
from study.validation import check_records, derive_response_schema
from tests.test_instruments import JUNK

DAY = """
id = "day"
title = "A day"
sheet_title = "A day"
version = "1"
citation = "None; made for tests."
licence = "None"
respondents = ["self", "proxy"]
forms = ["standard", "easy_read"]
recall = "2 weeks"
default_value_set = "by_age"

[[items]]
id = "sleep"
label = "Sleep"
levels = { 1 = "good", 2 = "bad" }

[[items]]
id = "mood"
label = "Mood"
levels = { 1 = "good", 2 = "fair", 3 = "bad" }

[[items]]
id = "age_now"
label = "Age"
minimum = 0
maximum = 110
provides = "age"

[[items]]
id = "sex_now"
label = "Sex"
levels = { 1 = "male", 2 = "female", 3 = "another" }
provides = "sex"

[[items]]
id = "visits"
label = "Visits"
minimum = 0
maximum = 10

[[items]]
id = "nights"
label = "Nights"
minimum = 0
maximum = 14
forms = ["standard"]

[[items]]
id = "aids"
label = "Aids"
type = "choices"
choices = { none = "None", stick = "Stick", chair = "Chair" }
exclusive = ["none"]
respondents = ["self"]

[[value_sets]]
id = "plain"
label = "Plain"
file = "value_sets/plain.csv"
items = ["sleep", "mood"]
country = "Nowhere"
citation = "None"
source = "None"
decimals = 2

[[value_sets]]
id = "by_age"
label = "By age"
file = "value_sets/by_age.csv"
items = ["sleep", "mood"]
country = "Nowhere"
citation = "None"
source = "None"
decimals = 1
maps_from = "plain"

[[scales]]
id = "total"
label = "Total"
method = "sum"
items = ["sleep", "mood"]
times = 2
plus = -4
minimum = 0
maximum = 6
reflective = true

[[scales]]
id = "metric"
label = "Metric"
method = "mapping"
items = ["raw"]
values = { 2 = 0, 3 = 1.5, 4 = 2.25, 5 = 9 }
minimum = 0
maximum = 9

[[scales]]
id = "worth"
label = "Worth"
method = "valued_sum"
items = ["sleep", "mood"]
times = 0.5
minimum = -0.5
maximum = 1

[scales.item_values]
sleep = { 1 = 1, 2 = 0 }
mood = { 1 = 1, 2 = 0.25, 3 = -1 }

[[scales]]
id = "alike"
label = "Alike"
method = "valued_sum"
items = ["aids_stick", "aids_chair"]
values = { 0 = 1, 1 = 0 }
minimum = 0
maximum = 2

[[scales]]
id = "plain_value"
label = "Plain value"
method = "value_set"
value_set = "plain"
minimum = -0.25
maximum = 1

[[scales]]
id = "age_value"
label = "Value by age"
method = "value_set"
value_set = "by_age"
minimum = 0.1
maximum = 2.4

[[scales]]
id = "cost"
label = "Cost"
method = "cost"
items = ["visits", "nights"]
times_in_recall = { visits = 2 }
not_asked_as = 0

[[rules]]
id = "good_and_many"
says = "Ten visits beside good sleep and mood"
severity = "soft"
never_together = [{ items = ["sleep", "mood"], equals = [1] }, { items = ["visits"], at_least = 10 }]

[[rules]]
id = "more_nights"
says = "More nights than visits"
severity = "hard"
never_together = [{ items = ["nights"], above = "visits" }]

[[cautions]]
scales = ["plain_value", "age_value"]
forms = ["easy_read"]
text = "Not validated for it."
""".replace(
    '[[scales]]\nid = "metric"',
    '[[scales]]\nid = "raw"\nlabel = "Raw"\nmethod = "sum"\nitems = ["sleep", "mood"]\nminimum = 2\nmaximum = 5\n\n'
    '[[scales]]\nid = "metric"',
)
PLAIN = "profile,value\n11,1\n12,0.5\n13,0\n21,0.75\n22,0.25\n23,-0.25\n"
BY_AGE = "profile,age_band,sex,value\n" + "".join(
    f"{profile},{band},{sex},{base + n / 10:.1f}\n"
    for band, sex, base in (("18-34", "male", 0.1), ("18-34", "female", 0.7), ("35-90", "male", 1.3),
                            ("35-90", "female", 1.9))
    for n, profile in enumerate(("11", "12", "13", "21", "22", "23"))
)  # fmt: skip
COSTS = (
    "item,unit_cost,unit,price_year,edition,source\n"
    "visits,40.50,visit,2021/22,Edition 2022,Unit costs\nnights,100,night,2021/22,Edition 2022,Unit costs\n"
)
EXAMPLES = (
    "example,evidence,source,decimals,age,sex,sleep,mood,age_now,sex_now,visits,nights,aids_none,aids_stick,aids_chair,"
    "expected_total,expected_raw,expected_metric,expected_worth,expected_alike,expected_plain_value,expected_age_value,"
    "expected_cost\n"
    "well,hand_computed,by hand,2,34,female,1,1,34,2,3,2,1,0,0,0,2,0,1,2,1,0.7,443\n"
    "ill,hand_computed,by hand,2,,,2,3,,,3,,0,1,1,6,5,9,-0.5,0,-0.25,not_returned,not_answered\n"
)
FILES = {
    "definition.toml": DAY, "worked_examples.csv": EXAMPLES, "value_sets/plain.csv": PLAIN,
    "value_sets/by_age.csv": BY_AGE, "unit_costs.csv": COSTS,
}  # fmt: skip


def parse_day(**changed: str | None) -> Instrument:
    """The definition above; a file by the name before its ending, None to leave it out."""
    files = {name: changed.get(name.split("/")[-1].split(".")[0], text) for name, text in FILES.items()}
    return parse_instrument("day", {name: text.encode() for name, text in files.items() if text is not None})


def find_faults(**changed: str | None) -> list[str]:
    with pytest.raises(DefinitionFaults) as caught:
        parse_day(**changed)
    return caught.value.faults


def score(
    people: pd.DataFrame | None = None, reasons: dict[str, str] | None = None, **answers: float
) -> dict[str, object]:
    wide = pd.DataFrame([answers])
    missing = pd.DataFrame([reasons]) if reasons else None
    scores = derive_scores(parse_day(), wide, missing, people)
    return {
        row.scale: row.missing_reason or pytest.approx(row.score)
        for row in scores.astype({"scale": "str", "missing_reason": "str"}).itertuples()
    }


def test_it_parses_and_its_examples_are_met():
    instrument = parse_day()
    assert find_worked_example_faults(instrument) == []
    assert instrument == parse_day()
    assert hash(instrument) == hash(parse_day())
    assert instrument.covariates == ("age", "sex")
    assert instrument.item_ids[-3:] == ("aids_none", "aids_stick", "aids_chair")
    assert [scale.id for scale in instrument.scales if scale.reflective] == ["total"]
    assert [scale.id for scale in instrument.scales if instrument.is_default(scale)] == ["age_value"]


def test_without_unit_costs_there_is_no_cost():
    instrument = parse_day(unit_costs=None)
    assert "cost" not in instrument.scale_ids
    assert instrument.has_costs
    assert find_worked_example_faults(instrument) == []  # what a study's own table gives is not the definition's to say


def test_scores_by_hand():
    """Cost: 3 visits taken twice at 40.50, 2 nights at 100."""
    people = pd.DataFrame({"age": [35.0], "sex": ["male"]})
    answers = {"sleep": 2, "mood": 2, "visits": 3, "nights": 2, "aids_stick": 0, "aids_chair": 1}
    assert score(people, **answers) == {
        "total": 4, "raw": 4, "metric": 2.25, "worth": 0.125, "alike": 1, "plain_value": 0.25, "age_value": 1.7,
        "cost": 443,
    }  # fmt: skip
    assert score(people, {"nights": "not_asked"}, **answers | {"nights": math.nan})["cost"] == 243


@pytest.mark.parametrize(
    ("age", "sex", "expected"),
    [
        (17.9, "male", "not_applicable"),
        (18, "male", 0.1),
        (34, "female", 0.7),
        (34.99, "female", 0.7),
        (35, "female", 1.9),
        (90, "male", 1.3),
        (90.99, "male", 1.3),
        (91, "male", "not_applicable"),
        (math.nan, "male", "not_returned"),
        (50, "", "not_returned"),
        (50, None, "not_returned"),
        (50, "another", "not_applicable"),
    ],
)
def test_age_and_sex(age: float, sex: str | None, expected: float | str):
    assert score(pd.DataFrame({"age": [age], "sex": [sex]}), sleep=1, mood=1)["age_value"] == expected


def test_a_missing_answer_is_told_before_a_missing_age():
    assert score(None, {"mood": "refused", "sleep": "refused"}, sleep=math.nan, mood=math.nan)["age_value"] == "refused"
    assert score(None, sleep=1, mood=1)["age_value"] == "not_returned"


def test_the_codebook_says_it():
    rows = derive_scale_rows(parse_day()).set_index("scale")
    assert rows.loc["total", "rule"] == "sum of the items, times 2, minus 4; missing if any item is missing"
    assert rows.loc["alike", "rule"].startswith("sum of what each answer is worth: 0 gives 1, 1 gives 0; missing")
    assert rows.loc["age_value", "rule"].endswith(
        "needs the age in years at collection (18 to 90) and the sex of the person, else missing"
    )
    assert rows.loc["cost", "rule"].startswith(
        "sum of item x unit cost, at prices of 2021/22: visits x 81, nights x 100; an item that was not asked counts 0"
    )
    assert rows["is_default"].to_dict() == {scale: scale == "age_value" for scale in rows.index}
    assert rows.loc["plain_value", "cautions"] == "Form easy-read: Not validated for it."
    book = describe_instrument(parse_day())
    assert book["scales"][3]["values"] == {
        "sleep": {"1": 1.0, "2": 0.0}, "mood": {"1": 1.0, "2": 0.25, "3": -1.0},
    }  # fmt: skip
    assert [entry["covariates"] for entry in book["value_sets"]] == [[], ["age", "sex"]]
    assert book["unit_costs"]["editions"] == ["Edition 2022"]


# Checks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "faults"),
    [
        ({"aids_none": 1, "aids_stick": 0}, []),
        ({"aids_none": 0, "aids_stick": 1, "aids_chair": 1}, []),
        ({"aids_none": 1, "aids_stick": 0, "aids_chair": 1}, [("aids_none", "choice_not_alone", "hard")]),
        ({"aids_none": 1, "aids_stick": None}, []),
        ({"sleep": 1, "mood": 1, "visits": 9}, []),
        ({"sleep": 1, "mood": 2, "visits": 10}, []),
        ({"sleep": 1, "mood": 1, "visits": 10}, [("visits", "answers_disagree", "soft")]),
        ({"sleep": 1, "mood": None, "visits": 10}, []),
        ({"sleep": 1, "visits": 10}, []),  # an item without a column breaks no rule
        ({"visits": 2, "nights": 2}, []),
        ({"visits": 2, "nights": 3}, [("nights", "answers_disagree", "hard")]),
        ({"visits": -9, "nights": 3}, []),
        ({"visits": 99, "nights": 3}, [("visits", "out_of_range", "hard")]),
        ({"form": "easy_read", "nights": 3}, [("nights", "answered_though_not_asked", "hard")]),
        ({"form": "standard", "nights": 3}, []),
        ({"form": "unknown", "nights": 3}, []),
        ({"respondent": "proxy", "form": "standard", "aids_stick": 1}, [
            ("aids_stick", "answered_though_not_asked", "hard")
        ]),
    ],
)  # fmt: skip
def test_a_record(cells: dict[str, object], faults: list[tuple[str, str, str]]):
    found = check_records(parse_day(), pd.DataFrame([cells], dtype=object)).faults
    assert list(found[["item", "rule", "severity"]].itertuples(index=False, name=None)) == faults


def test_faults_between_items_in_words_and_answers_kept():
    cells = {"sleep": 1, "mood": 1, "visits": 10, "nights": 11, "aids_none": 1, "aids_stick": 1, "form": "easy_read"}
    checked = check_records(parse_day(), pd.DataFrame([cells], dtype=object))
    assert checked.faults[["item", "expected", "code_shown"]].to_numpy().tolist() == [
        ["visits", "Ten visits beside good sleep and mood", ""],
        ["nights", "no answer, because it is asked only on the standard form", ""],
        ["nights", "More nights than visits", ""],
        ["aids_none", "this choice and no other, or the others without it", ""],
    ]
    assert checked.responses.notna().all().all()
    derive_response_schema(parse_day()).validate(checked.responses)


def test_a_blank_that_the_form_does_not_ask_is_not_asked():
    forms, nights = ["easy_read", "standard", "easy_read", "easy_read"], [None, None, -8, "many"]
    checked = check_records(parse_day(), pd.DataFrame({"form": forms, "nights": nights}, dtype=object))
    assert checked.faults["rule"].tolist() == ["not_a_number"]
    assert checked.missing_reasons["nights"].tolist() == ["not_asked", "not_answered", "not_asked", "illegible"]


def test_rules_of_many_records_agree_with_one_at_a_time():
    rng = np.random.default_rng(5)
    cells = pd.DataFrame({
        name: rng.integers(low, high + 1, 400) for name, low, high in (
            ("sleep", 1, 2), ("mood", 1, 3), ("visits", 8, 10), ("nights", 7, 12), ("aids_none", 0, 1),
            ("aids_stick", 0, 1),
        )
    })  # fmt: skip
    instrument = parse_day()
    together = check_records(instrument, cells).faults.drop(columns="record")
    alone = [check_records(instrument, cells.iloc[[n]]).faults.drop(columns="record") for n in range(len(cells))]
    pd.testing.assert_frame_equal(together, pd.concat(alone, ignore_index=True))
    assert together["rule"].value_counts().min() > 10


# Who a record is about ------------------------------------------------------------------------------------------------


def test_people_from_what_they_told():
    told = pd.DataFrame(
        [
            ("P1", "self", "2020-03-01", "age_now", 40.0), ("P1", "self", "2020-03-01", "sex_now", 2.0),
            ("P1", "self", "2021-03-01", "age_now", 99.0),  # told again, and wrong: the first counts
            ("P1", "carer", "2020-03-01", "age_now", 70.0), ("P2", "proxy", "2020-03-01", "sex_now", 3.0),
            ("P2", "proxy", "2020-03-01", "age_now", math.nan),
        ],
        columns=["participant_id", "respondent", "collected_on", "item", "response"],
    ).assign(instrument="day", collected_on=lambda frame: pd.to_datetime(frame["collected_on"]))  # fmt: skip
    records = pd.DataFrame(
        [("P1", "self", date(2020, 3, 1)), ("P1", "proxy", date(2021, 2, 27)), ("P1", "self", date(2022, 3, 2)),
         ("P1", "self", date(2020, 2, 28)), ("P1", "carer", date(2020, 3, 1)), ("P2", "self", date(2020, 3, 1)),
         ("P3", "self", date(2020, 3, 1)), ("P1", "self", date(2030, 2, 27))],
        columns=["participant_id", "respondent", "collected_on"], index=[5, 6, 7, 8, 9, 10, 11, 12],
    ).assign(collected_on=lambda frame: pd.to_datetime(frame["collected_on"]))  # fmt: skip
    people = derive_people(records, told, {"day": parse_day()})
    assert list(people.index) == [5, 6, 7, 8, 9, 10, 11, 12]
    assert people["age"].fillna(-1).tolist() == [40, 40, 42, 39, 70, -1, -1, 49]
    assert people["sex"].tolist() == ["female", "female", "female", "female", "", "another", "", "female"]
    nobody = derive_people(records, told.iloc[:0], {"day": parse_day()})
    assert nobody["age"].isna().all()
    assert (nobody["sex"] == "").all()
    assert derive_people(records, told, {})["age"].isna().all()


# Faults ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('default_value_set = "by_age"', "", "there are several value sets. Say which is the default: "
         'default_value_set = "plain".'),
        ('default_value_set = "by_age"', 'default_value_set = "by_sex"', 'default_value_set names "by_sex", which no '
         'scale is scored by. Did you mean "by_age"?'),
        ('value_set = "plain"\n', 'value_set = "plane"\n', 'scale plain_value: value_set names "plane", which is not '
         'defined. Did you mean "plain"?'),
        ('file = "value_sets/plain.csv"', 'file = "value_sets/plane.csv"', 'value set plain: there is no file '
         '"value_sets/plane.csv" in the folder of the instrument. Did you mean "value_sets/plain.csv"?'),
        ('file = "value_sets/plain.csv"', 'file = "value_sets/plane.csv"', "value_sets/plain.csv: no value set names "
         'this file. Add one with file = "value_sets/plain.csv", or remove it.'),
        ('items = ["sleep", "mood"]\ncountry', 'items = ["sleep", "mod"]\ncountry', 'value set plain: names item '
         '"mod", which is not defined. Did you mean "mood"?'),
        ('items = ["sleep", "mood"]\ncountry', 'items = ["sleep", "visits"]\ncountry', "value set plain: item visits "
         "must have levels without a gap to be part of a profile."),
        ("decimals = 2", "decimals = 2.5", 'value set plain: "decimals" must be how many the published values have, '
         "such as decimals = 3."),
        ("decimals = 2", "decimals = 1", "value_sets/plain.csv, line 5: the value has more than 1 decimals."),
        ('maps_from = "plain"', 'maps_from = "plan"', "value set by_age: maps_from must name a value set defined "
         "before it, of the same items and no ages."),
        ('id = "by_age"', 'id = "plain"', 'value set plain: id "plain" is used twice.'),
        ("minimum = -0.25\n", "minimum = 0\n", "scale plain_value: minimum is 0, but by its items the score can reach "
         "-0.25."),
        ('value_set = "plain"\n', 'value_set = "plain"\nitems = ["sleep"]\n', 'scale plain_value: "items" does not go '
         "with a value set: the table says what is scored."),
        ("times = 2", 'times = "2"', 'scale total: "times" must be a number without quotes, at most 1,000,000,000.'),
        ("times = 2\n", "times = 3\n", "scale total: minimum is 0, but by its items the score can reach 2."),
        ("reflective = true", 'reflective = "yes"', 'scale total: "reflective" must be true or false.'),
        ("3 = 1.5, ", "", "scale metric: values must name each score from 2 to 5 once."),
        ("sleep = { 1 = 1, 2 = 0 }\n", "", "scale worth: item_values says nothing about sleep."),
        ("sleep = { 1 = 1, 2 = 0 }\n", "slep = { 1 = 1, 2 = 0 }\n", 'scale worth: item_values names "slep", which is '
         'not among its items. Did you mean "sleep"?'),
        ("sleep = { 1 = 1, 2 = 0 }\n", "sleep = { 1 = 1 }\n", "scale worth: values says nothing about level 2 of "
         "sleep."),
        ("times = 0.5\n", "values = { 1 = 1 }\n", 'scale worth: write either "values" (for all items alike) or a table '
         '"item_values" (item by item).'),
        ('items = ["aids_stick", "aids_chair"]', 'items = ["aids_stick", "total"]', "scale alike: valued_sum takes "
         "items and not scales, and total is a scale."),
        ("times_in_recall = { visits = 2 }", "times_in_recall = { visit = 2 }", 'scale cost: times_in_recall names '
         '"visit", which is not among its items.'),
        ("times_in_recall = { visits = 2 }", "times_in_recall = 2", 'scale cost: "times_in_recall" must be a table of '
         "item = number, such as { hours_a_week = 26 }."),
        ('items = ["visits", "nights"]', 'items = ["visits", "nights", "age_now"]', "scale cost: unit_costs.csv says "
         "nothing about age_now."),
        ('items = ["visits", "nights"]\n', 'items = ["visits", "nights"]\nminimum = 0\n', 'scale cost: "minimum" does '
         "not go with a cost: it follows from the table of unit costs."),
        ('choices = { none = "None", stick = "Stick", chair = "Chair" }', "", 'item aids: "choices" is missing. Write '
         'choices = { none = "None of these", ... }.'),
        ('none = "None"', 'None = "None"', 'item aids: choice "None" must be small letters, digits and _, and at most '
         "32 with the id before it."),
        ('exclusive = ["none"]', 'exclusive = ["non"]', 'item aids: exclusive names "non", which is none of none, '
         'stick, chair. Did you mean "none"?'),
        ('respondents = ["self"]\n\n[[value', 'respondents = ["carer"]\n\n[[value', "item aids: respondents names "
         '"carer", which is none of self, proxy.'),
        ('id = "nights"', 'id = "sex"', 'item sex: id "sex" is the name of another column. Choose another.'),
        ('provides = "age"', 'provides = "weight"', 'item age_now: provides "weight" is none of age, sex.'),
        ('2 = "female"', '2 = "woman"', "item sex_now: an item that provides the sex must have levels labelled "
         '"male" and "female".'),
        ('levels = { 1 = "good", 2 = "bad" }', 'levels = { 1 = "good", 2 = "bad" }\nprovides = "age"', "item sleep: an "
         'item that provides the age must be of type "number", in years.'),
        ('severity = "soft"', 'severity = "mild"', 'rule good_and_many: severity "mild" is none of hard, soft.'),
        ('id = "more_nights"', 'id = "good_and_many"', 'rule good_and_many: id "good_and_many" is used twice.'),
        ('items = ["visits"], at_least = 10', 'items = ["nights"], at_least = 10', "rule more_nights: it is told of "
         "its last item, nights, and so is rule good_and_many. A site is asked one thing of an answer: put another "
         "item last."),
        ("equals = [1] }, {", "equals = [4] }, {", "rule good_and_many: 4 is no answer of sleep (1 or 2)."),
        ("at_least = 10", "at_least = 10, at_most = 12", "rule good_and_many: each test has one of equals, at_least, "
         "at_most and above."),
        ('above = "visits"', 'above = "visit"', 'rule more_nights: above names item "visit", which is not defined. Did '
         'you mean "visits"?'),
        ('{ items = ["nights"], above = "visits" }', '{ items = ["nights"], at_least = 3 }', "rule more_nights: a rule "
         "is about at least two items."),
        ('never_together = [{ items = ["nights"], above = "visits" }]', "", 'rule more_nights: "never_together" must '
         'be a list of tests, such as [{ items = ["a"], equals = [1] }, { items = ["b"], at_least = 2 }].'),
        ('says = "More nights than visits"', "", 'rule more_nights: "says" is missing. Add says = "...".'),
        ('scales = ["plain_value", "age_value"]', 'scales = ["plain_valu"]', 'caution number 1: scales names '
         '"plain_valu", which is none of total, raw, metric, worth, alike, plain_value, age_value, cost. Did you mean '
         '"plain_value"?'),
        ('text = "Not validated for it."', "", 'caution number 1: "text" is missing. Add text = "...".'),
    ],
)  # fmt: skip
def test_a_fault_of_a_definition(old: str, new: str, fault: str):
    assert DAY.count(old) >= 1
    assert f"instruments/day: {fault}" in find_faults(definition=DAY.replace(old, new, 1))


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("", ": the columns must be profile, value; or profile, age_band, sex, value."),
        ("profile,utility\n11,1\n", ": the columns must be profile, value; or profile, age_band, sex, value."),
        (PLAIN.replace("11,1\n", "11,1,0\n"), ", line 2: the number of cells is not the number of columns."),
        (PLAIN.replace("11,1\n", ""), ": 1 of 6 values are missing. Each profile needs one."),
        (PLAIN.replace("11,1\n", "12,1\n"), ", line 3: this profile stands there before."),
        (PLAIN.replace("13,0", "14,0"), ", line 4: the profile is none of the items' answers."),
        (PLAIN.replace("13,0", "13,nan"), ", line 4: the value must be a number."),
        (PLAIN.replace("13,0", "13,1e2"), ", line 4: the value must be a number."),
        (PLAIN.replace("13,0", "13,"), ", line 4: the value must be a number."),
    ],
)
def test_a_fault_of_a_value_set(table: str, fault: str):
    assert f"instruments/day: value_sets/plain.csv{fault}" in find_faults(plain=table)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("11,18-34,male", "11,18-34,man", ", line 2: sex must be male or female."),
        ("18-34", "34-18", ': age band "34-18" must be two ages, such as 18-34.'),
        ("18-34", "18+", ': age band "18+" must be two ages, such as 18-34.'),
        ("35-90", "30-90", ": two age bands have the age 30. Each age belongs to one."),
        ("35-90", "36-90", ": no age band has the age 35. Bands follow each other."),
        ("11,18-34,male,0.1\n", "", ": 1 of 24 values are missing. Each profile needs one for each age band and sex."),
    ],
)
def test_a_fault_of_a_value_set_by_age(old: str, new: str, fault: str):
    assert f"instruments/day: value_sets/by_age.csv{fault}" in find_faults(by_age=BY_AGE.replace(old, new))


def test_many_faults_of_a_kind_are_counted():
    faults = find_faults(plain=PLAIN.replace(",", ",x"))
    columns = "the columns must be profile, value; or profile, age_band, sex, value."
    assert faults == [f"instruments/day: value_sets/plain.csv: {columns}"]
    faults = find_faults(plain="profile,value\n" + "".join(f"9{n},1\n" for n in range(9)))
    assert sum("value_sets/plain.csv, line" in fault for fault in faults) == 3
    assert "instruments/day: value_sets/plain.csv: and 6 more faults of that kind." in faults


def test_a_value_set_that_is_no_text():
    files = {name: text.encode() for name, text in FILES.items()} | {"value_sets/plain.csv": b"\xff\xfe\x00"}
    with pytest.raises(DefinitionFaults, match=r"value_sets/plain\.csv: cannot be read as UTF-8 CSV"):
        parse_instrument("day", files)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("item,unit_cost", "item,cost", ": the columns must be item, unit_cost, unit, price_year, edition, source, "
         "with a row for each item."),
        ("visits,40.50", "visit,40.50", ', line 2: "visit" is no item that counts. Did you mean "visits"?'),
        ("visits,40.50", "mood,40.50", ', line 2: "mood" is no item that counts. Did you mean "mood"?'),
        ("nights,100", "visits,100", ", line 3: visits stands there twice."),
        ("40.50", "-1", ", line 2: unit_cost must be a number of pounds that is not below 0, such as 42.50."),
        ("40.50", "£40.50", ", line 2: unit_cost must be a number of pounds that is not below 0, such as 42.50."),
        ("2021/22", "21", ", line 2: price_year must be a year such as 2022, or a financial year such as 2021/22."),
        ("nights,100,night,2021/22", "nights,100,night,2022/23", ": several price years (2021/22, 2022/23). Bring all "
         "costs to one of them."),
        ("Edition 2022", "", ", line 2: edition is empty."),
        ("Edition 2022", "Edition, 2022", ", line 2: there are more cells than columns."),
    ],
)  # fmt: skip
def test_a_fault_of_the_unit_costs(old: str, new: str, fault: str):
    assert f"instruments/day: unit_costs.csv{fault}" in find_faults(unit_costs=COSTS.replace(old, new, 1))


def test_a_person_of_an_example():
    faults = find_faults(worked_examples=EXAMPLES.replace("34,female", "34.5,woman"))
    assert faults == [
        "instruments/day: worked_examples.csv, line 2: age must be a whole number of years, and sex male or female."
    ]


@given(
    name=st.sampled_from(["value_sets/plain.csv", "value_sets/by_age.csv", "unit_costs.csv", "worked_examples.csv"]),
    place=st.integers(0, 400), cut=st.integers(0, 12), put=st.binary(max_size=12),
)  # fmt: skip
def test_a_table_that_was_damaged_is_read_or_has_faults(name: str, place: int, cut: int, put: bytes):
    files = {file: text.encode() for file, text in FILES.items()}
    place %= len(files[name])
    files[name] = files[name][:place] + put + files[name][place + cut :]
    try:
        faults = [] if parse_instrument("day", files) else ["no instrument"]
    except DefinitionFaults as error:
        faults = error.faults
    # A table that is sound after the damage has other values, which the scale's range may not hold.
    others = [fault for fault in faults if name not in fault and "by its items the score can reach" not in fault]
    assert others == []


@pytest.mark.parametrize("junk", JUNK)
def test_no_value_crashes_the_parser(junk: str):
    """Whatever stands behind any = of a definition, it is accepted or it is a fault, never another error."""
    lines = DAY.splitlines()
    n_refused = 0
    for number, line in enumerate(lines):
        if " = " in line:
            changed = [*lines[:number], f"{line.split(' = ')[0]} = {junk}", *lines[number + 1 :]]
            try:
                parse_day(definition="\n".join(changed))
            except DefinitionFaults as error:
                n_refused += bool(error.faults)
    assert n_refused > 60


def test_no_missing_line_crashes_the_parser():
    lines = DAY.splitlines()
    n_refused = 0
    for number in range(len(lines)):
        try:
            parse_day(definition="\n".join(lines[:number] + lines[number + 1 :]))
        except DefinitionFaults as error:
            n_refused += bool(error.faults)
    assert n_refused > 60
