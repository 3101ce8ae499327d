"""The definition language: every folder of instruments/ parses, and every fault of a definition is told at once."""

import re
from pathlib import Path

import pandas as pd
import pytest

from study.instrument_parser import parse_instrument
from study.instruments import (
    DEFAULT_MISSING_CODES,
    MISSING_REASONS,
    DefinitionFaults,
    Instrument,
    derive_codebook_rows,
    derive_scale_rows,
)

FOLDERS = sorted(path.parent for path in (Path(__file__).parent.parent / "instruments").glob("*/definition.toml"))

# One definition that uses every word of the language.
MOOD = """
id = "mood"
title = "Mood"
sheet_title = "Mood"
version = "1"
citation = "None; made for tests."
licence = "None"
respondents = ["self", "proxy"]
forms = ["standard", "easy_read"]

[missing_codes]
-9 = "not_answered"
9 = "refused"

[level_sets.yes_no]
0 = "no"
1 = "yes"

[[items]]
id = "worry"
label = "Worry"
levels = "yes_no"
missing_codes = { 96 = "not_applicable" }

[[items]]
id = "worry_days"
label = "Days"
type = "number"
minimum = 0
maximum = 14
whole_numbers = true
asked_if = { item = "worry", equals = [1] }

[[items]]
id = "rest"
label = "Rest"
levels = "0 to 4"

[[items]]
id = "hours"
label = "Hours"
minimum = 0
maximum = 24

[[items]]
id = "gap"
label = "Levels with a gap"

[items.levels]
1 = "low"
2 = "middle"
5 = "high"

[[scales]]
id = "total"
label = "Total"
method = "sum"
items = ["worry", "rest"]
minimum = 0
maximum = 5

[[scales]]
id = "share"
label = "Share"
method = "prorated_sum"
items = ["worry", "rest", "hours"]
scale_to = 100
at_most_missing_pct = 34
leave_out = ["not_applicable"]
minimum = 0
maximum = 100

[[scales]]
id = "load"
label = "Load"
method = "product"
items = ["worry_days", "rest"]
zero_if = { item = "worry", equals = [0] }
minimum = 0
maximum = 56

[[scales]]
id = "n_yes"
label = "Number of yes"
method = "count"
items = ["worry", "rest"]
counted = [1]
minimum = 0
maximum = 2

[[scales]]
id = "points"
label = "Points"
method = "mapping"
items = ["gap"]
values = { 1 = 0, 2 = 0.5, 5 = 1 }
minimum = 0
maximum = 1

[[scales]]
id = "burden"
label = "Burden"
method = "weighted"
items = ["worry_days", "points"]
weights = { worry_days = 2, points = -1 }
not_asked_as = 0
minimum = -1
maximum = 28
"""
MOOD_EXAMPLES = """\
example,evidence,source,decimals,worry,worry_days,rest,hours,gap,expected_total,expected_share,expected_load,\
expected_n_yes,expected_points,expected_burden
all answered,hand_computed,by hand,6,1,7,4,7.5,2,5,43.103448,28,1,0.5,13.5
no worry,hand_computed,by hand,6,0,,2,,5,2,40,0,0,1,-1
"""


def parse_mood(definition: str = MOOD, examples: str | None = MOOD_EXAMPLES) -> Instrument:
    files = {"definition.toml": definition.encode()}
    if examples is not None:
        files["worked_examples.csv"] = examples.encode()
    return parse_instrument("mood", files)


def find_faults(definition: str = MOOD, examples: str | None = MOOD_EXAMPLES) -> list[str]:
    with pytest.raises(DefinitionFaults) as caught:
        parse_mood(definition, examples)
    return caught.value.faults


def read_instrument(folder: Path) -> Instrument:
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return parse_instrument(folder.name, {name: path.read_bytes() for name, path in files.items()})


def test_there_are_instruments():
    assert {"adas_cog", "cibic_plus", "dad", "mmse", "npi_x", "hachinski"} <= {folder.name for folder in FOLDERS}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_folder_parses_and_has_a_codebook(folder: Path):
    instrument = read_instrument(folder)
    items, scales = derive_codebook_rows(instrument), derive_scale_rows(instrument)
    assert list(items["item"]) == list(instrument.item_ids)
    assert (items["levels"] != "").all()
    assert (items["missing_codes"] != "").all()
    assert set(" ".join(items["scales"]).split()) == set(instrument.scale_ids)
    assert list(scales["scale"]) == list(instrument.scale_ids)
    assert scales["rule"].str.contains("missing if").all()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_labels_are_names_and_not_questions(folder: Path):
    """Licensed wording stays out: an item has a name of at most eight words, never a sentence."""
    for item in read_instrument(folder).items:
        assert len(item.label.split()) <= 8, item.label
        assert not re.search(r"[?!.]|\b(you|your|his|her|he|she|him)\b", item.label, re.IGNORECASE), item.label


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_code_is_never_an_answer_and_missing_at_once(folder: Path):
    for item in read_instrument(folder).items:
        for code in item.missing_codes:
            assert code not in item.levels
            assert not item.lowest <= code <= item.highest or item.type == "level"


def test_an_instrument_is_frozen_and_hashed_by_what_it_is():
    assert parse_mood() == parse_mood()
    assert hash(parse_mood()) == hash(parse_mood())
    with pytest.raises(ValueError, match="frozen"):
        parse_mood().title = "other"


def test_missing_codes_by_item():
    """9 is refused in an item of yes and no, and an answer in one of 0 to 14; 96 is missing where it is declared."""
    codes = {item.id: item.missing_codes for item in parse_mood().items}
    assert codes["worry"] == {-9: "not_answered", 9: "refused", 96: "not_applicable"}
    assert codes["worry_days"] == {-9: "not_answered"}
    assert codes["rest"] == {-9: "not_answered", 9: "refused"}


def test_missing_codes_by_default():
    definition = MOOD.replace('[missing_codes]\n-9 = "not_answered"\n9 = "refused"\n', "")
    assert parse_mood(definition).missing_codes == DEFAULT_MISSING_CODES
    assert set(DEFAULT_MISSING_CODES.values()) == set(MISSING_REASONS) - {"not_returned"}


def test_answers_in_words():
    words = {item.id: item.expected_in_words for item in parse_mood().items}
    assert words == {
        "worry": "0 or 1, or -9 not answered, 9 refused, 96 not applicable",
        "worry_days": "a whole number from 0 to 14, or -9 not answered",
        "rest": "0 to 4, or -9 not answered, 9 refused",
        "hours": "a number from 0 to 24, or -9 not answered",
        "gap": "1, 2 or 5, or -9 not answered, 9 refused",
    }


def test_codebook_rows():
    rows = derive_codebook_rows(parse_mood()).set_index("item")
    assert list(rows.columns) == ["instrument", "label", "type", "levels", "missing_codes", "asked_if", "scales"]
    assert rows.loc["gap", "levels"] == "1 = low; 2 = middle; 5 = high"
    assert rows.loc["hours", "levels"] == "0 to 24"
    assert rows.loc["worry", "missing_codes"] == "-9 = not_answered; 9 = refused; 96 = not_applicable"
    assert rows.loc["worry_days", "asked_if"] == "worry is 1"
    assert rows.loc["gap", "scales"] == "points burden"
    assert rows.loc["worry", "scales"] == "total share load n_yes"


def test_scale_rows():
    rules = derive_scale_rows(parse_mood()).set_index("scale")["rule"]
    assert rules["share"] == (
        "sum x 100 / the highest possible sum of the items answered; items that are not applicable are left out; "
        "missing if more than 34 % of the items are missing"
    )
    assert rules["load"] == "product of the items; 0 if worry is 0; missing if any item is missing"
    assert rules["n_yes"] == "number of items answered 1; missing if any item is missing"
    assert rules["points"] == "by table: 1 gives 0, 2 gives 0.5, 5 gives 1; missing if any item is missing"
    assert rules["burden"] == (
        "sum of item x weight: worry_days x 2, points x -1; an item that was not asked counts 0; "
        "missing if any item is missing"
    )


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('id = "mood"', 'id = "moods"', 'id is "moods", but the folder is "mood". They must be the same.'),
        ('title = "Mood"\nsheet', "sheet", '"title" is missing. Add title = "...".'),
        ('version = "1"', "version = 1", '"version" must be text in quotes that is not empty.'),
        ('version = "1"', 'version = "1"\nlicense = "x"', '"license" is no word of a definition here. Did you mean '
         '"licence"?'),
        ('sheet_title = "Mood"', 'sheet_title = "Mood: days"', 'sheet_title "Mood: days" is no name for a sheet: at '
         "most 31 characters, none of []:*?/\\, no apostrophe at either end, and not \"History\"."),
        ('"self", "proxy"', '"self", "prxy"', 'respondents names "prxy", which is none of self, proxy, carer, '
         'manager. Did you mean "proxy"?'),
        ('"standard", "easy_read"', '"standard", "standard"', 'forms names "standard" more than once.'),
        ('respondents = ["self", "proxy"]', 'respondents = "self"', '"respondents" must be a list of words, such as '
         'respondents = ["self"].'),
        ('-9 = "not_answered"', '-9 = "not_anwsered"', 'missing code -9 has the reason "not_anwsered", which is none '
         "of not_asked, not_answered, refused, not_applicable, not_returned, illegible. Did you mean "
         '"not_answered"?'),
        ('-9 = "not_answered"', 'dk = "not_answered"', 'missing_codes has the code "dk", which is no whole '
         "number of at most 5 digits."),
        ('9 = "refused"', '"+9" = "refused"', 'missing_codes has the code "+9", which is no whole '
         "number of at most 5 digits."),
        ('9 = "refused"', '9 = "refused"\n09 = "illegible"', "missing_codes has the same code twice."),
        ('0 = "no"', '0 = ""', 'level set yes_no: levels: code 0 has no label. Write 0 = "...".'),
        ('levels = "yes_no"', 'levels = "yes_now"', 'item worry: levels names the level set "yes_now", which is not '
         'defined. Did you mean "yes_no"?'),
        ('levels = "0 to 4"', 'levels = "0-4"', 'item rest: levels names the level set "0-4", which is not defined. A '
         'range is written as "0 to 3".'),
        ('levels = "0 to 4"', 'levels = "4 to 0"', 'item rest: levels "4 to 0" must go up, over at most 1,000 '
         "steps."),
        ("96 = ", "1 = ", "item worry: 1 is both an answer (0 or 1) and a missing code."),
        ('id = "rest"', 'id = "worry"', 'item worry: id "worry" is used twice.'),
        ('id = "hours"', 'id = "Hours"', 'item Hours: id "Hours" must be small letters, digits and _, begin with a '
         "letter, 32 at most."),
        ('id = "hours"', 'id = "wave"', 'item wave: id "wave" is the name of another column. Choose another.'),
        ('label = "Rest"', 'lable = "Rest"', 'item rest: "lable" is no word of a definition here. Did you mean '
         '"label"?'),
        ('label = "Rest"', "", 'item rest: "label" is missing. Add label = "...".'),
        ('type = "number"', 'type = "numeric"', 'item worry_days: type "numeric" is none of level, number, '
         'choices. Did you mean "number"?'),
        ("maximum = 14", 'maximum = "14"', 'item worry_days: "maximum" must be a number without quotes, '
         "at most 1,000,000,000."),
        ("maximum = 14", "maximum = -1", "item worry_days: minimum 0 is not below maximum -1."),
        ("whole_numbers = true", "whole_numbers = 1", 'item worry_days: "whole_numbers" must be true or false.'),
        ('levels = "0 to 4"', 'levels = "0 to 4"\nmaximum = 4', 'item rest: "maximum" belongs to an item of type '
         '"number"; a level item has levels.'),
        ('{ item = "worry", equals = [1] }', '{ item = "wory", equals = [1] }', 'item worry_days: asked_if names '
         'item "wory", which is not defined. Did you mean "worry"?'),
        ('{ item = "worry", equals = [1] }', '{ item = "rest", equals = [1] }', 'item worry_days: asked_if names '
         'item "rest", which comes later. It must come before.'),
        ('{ item = "worry", equals = [1] }', '{ item = "worry_days", equals = [1] }', "item worry_days: asked_if "
         'names item "worry_days", which comes later. It must come before.'),
        ('{ item = "worry", equals = [1] }', '{ item = "worry", equals = [2] }', "item worry_days: asked_if: 2 is no "
         "answer of worry (0 or 1)."),
        ('{ item = "worry", equals = [1] }', '{ item = "worry" }', 'item worry_days: asked_if: "equals" must be a '
         "list of answers, such as equals = [1]."),
        ('items = ["worry", "rest"]\nminimum = 0\nmaximum = 5', 'items = ["worry", "rets"]\nminimum = 0\nmaximum = 5',
         'scale total names item "rets", which is not defined. Did you mean "rest"?'),
        ('items = ["worry", "rest"]\nminimum = 0\nmaximum = 5', 'items = ["worry", "points"]\nminimum = 0\nmaximum = 2',
         'scale total names scale "points", which is not defined before it.'),
        ('method = "sum"', 'method = "summ"', 'scale total: method "summ" is none of sum, prorated_sum, product, '
         'count, mapping, weighted, valued_sum, value_set, cost. Did you mean "sum"?'),
        ("maximum = 5", "maximum = 6", "scale total: maximum is 6, but by its items the score can reach 5."),
        ("maximum = 56", "maximum = 14", "scale load: maximum is 14, but by its items the score can reach 56."),
        ("minimum = -1", "minimum = 0", "scale burden: minimum is 0, but by its items the score can reach -1."),
        ("maximum = 5", "maximum = 5\nat_most_missing_pct = 20", 'scale total: "at_most_missing_pct" belongs to the '
         "method prorated_sum, and this scale has the method sum."),
        ("at_most_missing_pct = 34", "at_most_missing_pct = 100", "scale share: at_most_missing_pct must be from 0 to "
         "less than 100."),
        ("at_most_missing_pct = 34", "", 'scale share: "at_most_missing_pct" is missing. Add at_most_missing_pct = a '
         "number."),
        ('["not_applicable"]', '["not_aplicable"]', 'scale share: leave_out names "not_aplicable", which is none of '
         "not_asked, not_answered, refused, not_applicable, not_returned, illegible. Did you mean "
         '"not_applicable"?'),
        ("counted = [1]", "counted = 1", 'scale n_yes: "counted" must be the list of answers that count, such as '
         "counted = [1]."),
        ("2 = 0.5, ", "", "scale points: values says nothing about level 2 of gap."),
        ("5 = 1 }", "5 = 1, 4 = 1 }", "scale points: values names 4, which is no level of gap (1, 2 or 5)."),
        ('items = ["gap"]', 'items = ["gap", "rest"]', "scale points: mapping takes one item, not 2."),
        ("points = -1 }", "poins = -1 }", 'scale burden: weights names "poins", which is not among its items. Did you '
         'mean "points"?'),
        (", points = -1 }", "}", 'scale burden: weights: "points" is missing. Add points = a number.'),
        ('id = "n_yes"', 'id = "total"', 'scale total: id "total" is used twice.'),
        ('id = "n_yes"', 'id = "rest"', 'scale rest: id "rest" is used twice.'),
    ],
)  # fmt: skip
def test_a_fault_of_a_definition(old: str, new: str, fault: str):
    assert MOOD.count(old) >= 1
    assert f"instruments/mood: {fault}" in find_faults(MOOD.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("worry_days,rest,hours", "worry_dais,rest,hours", 'column "worry_dais" is no item and no expected score. Did '
         'you mean "worry_days"?'),
        ("expected_total", "expected_totl", 'column "expected_totl" is no item and no expected score. Did you mean '
         '"expected_total"?'),
        (",source,", ",rest,", 'column "source" is missing.'),
        (",source,", ",rest,", "a column stands there twice."),
        ("all answered,hand_computed", "all answered,hand", 'line 2: evidence "hand" is none of published_table, '
         "published_rule, trial_record, hand_computed."),
        ("by hand,6,1", ",6,1", "line 2: source is empty."),
        ("by hand,6,1", "by hand,six,1", "line 2: decimals must be the number of decimals that the expected scores "
         "have."),
        (",43.103448,", ",not_returnd,", 'line 2: expected share must be a number or a missing reason, and is '
         '"not_returnd". Did you mean "not_returned"?'),
        ("no worry,", "no worry,,", "line 3: the number of cells is not the number of columns."),
    ],
)  # fmt: skip
def test_a_fault_of_the_examples(old: str, new: str, fault: str):
    assert MOOD_EXAMPLES.count(old) >= 1
    faults = find_faults(examples=MOOD_EXAMPLES.replace(old, new, 1))
    assert any(found.startswith("instruments/mood: worked_examples.csv") and found.endswith(fault) for found in faults)


def test_every_scale_needs_an_example():
    examples = MOOD_EXAMPLES.replace(",5,43.103448,28,", ",5,,28,").replace(",5,2,40,0,", ",5,2,,0,")
    assert find_faults(examples=examples) == [
        "instruments/mood: worked_examples.csv: no example says what share must be."
    ]


def test_all_faults_at_once():
    definition = (
        MOOD.replace('title = "Mood"\nsheet', "sheet").replace('label = "Rest"', 'lable = "Rest"')
        .replace('method = "sum"', 'method = "som"').replace("maximum = 56", "maximum = 57")
    )  # fmt: skip
    faults = find_faults(definition, examples=None)
    assert len(faults) == 6
    assert str(DefinitionFaults(faults)) == "\n".join(faults)


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({}, "there is no definition.toml."),
        ({"definition.toml": b"\xff\xfe"}, "definition.toml is not UTF-8 text. Save it as UTF-8."),
        ({"definition.toml": b"title = "}, "definition.toml cannot be read as TOML: Invalid value"),
        ({"definition.toml": b""}, "there are no items. Write each under a line [[items]]."),
        ({"definition.toml": b""}, "there is no worked_examples.csv. Add answers with the scores that they must give."),
        ({"definition.toml": MOOD.encode(), "worked_examples.csv": b"\xff"}, "worked_examples.csv cannot be read as"),
        ({"definition.toml": MOOD.encode(), "worked_examples.csv": b""}, 'worked_examples.csv: column "example" is'),
    ],
)
def test_files_that_are_no_definition(files: dict[str, bytes], fault: str):
    with pytest.raises(DefinitionFaults) as caught:
        parse_instrument("mood", files)
    assert any(found.startswith(f"instruments/mood: {fault}") for found in caught.value.faults)


JUNK = ("1", "-5", "1.5", "nan", "inf", '""', '"x"', "true", "[]", "[1]", '["a", "a"]', "[[]]", "{}", "{ a = 1 }",
        "[{}]", "2020-02-29", "99999999999999999999", "9" * 400, "9" * 5000,
        '{ item = [1], equals = [1] }', '{ item = "worry", equals = [99999999999999999999] }',
        '"0 to 99999999999999999999"')  # fmt: skip


def try_mood(definition: str) -> list[str]:
    """The faults of a definition, none if it parses; any other error passes through."""
    try:
        parse_mood(definition)
    except DefinitionFaults as error:
        return error.faults or ["refused without a fault"]
    return []


@pytest.mark.parametrize("junk", JUNK)
def test_no_value_crashes_the_parser(junk: str):
    """Whatever stands behind any = of a definition, it is accepted or it is a fault, never another error."""
    lines = MOOD.splitlines()
    n_refused = 0
    for number, line in enumerate(lines):
        if " = " in line:
            changed = [*lines[:number], f"{line.split(' = ')[0]} = {junk}", *lines[number + 1 :]]
            faults = try_mood("\n".join(changed))
            assert all(fault.startswith("instruments/mood: ") for fault in faults)
            n_refused += bool(faults)
    assert n_refused > 30


def test_no_missing_line_crashes_the_parser():
    lines = MOOD.splitlines()
    for number in range(len(lines)):
        faults = try_mood("\n".join(lines[:number] + lines[number + 1 :]))
        assert all(fault.startswith("instruments/mood: ") for fault in faults)


def test_codebook_rows_are_text():
    rows = derive_codebook_rows(parse_mood())
    assert all(pd.api.types.is_string_dtype(rows[column]) for column in rows)
