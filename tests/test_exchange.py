"""Definitions to REDCap's data dictionary and to XLSForm, and back: what is carried, refused, and listed."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from desk.command_line import app
from study.approval_entries import EntryFault
from study.exchange import Draft, NotCarried, Question, Translated, Wording, derive_drafts, parse_condition
from study.instrument_parser import parse_instrument
from study.instruments import DEFINITION_FILE, EXAMPLES_FILE, Condition, Instrument
from study.redcap import COLUMNS
from study.xlsform import parse_xlsform
from tasks.definitions import list_instruments, load_instrument
from tasks.exchange import read_dictionary, read_wording, read_xlsform, write_dictionary, write_xlsform
from tasks.settings import PROJECT, read_settings
from tests.conftest import give_up
from tests.services import ServiceMissing

FOLDER = PROJECT / "instruments"
INSTRUMENTS = list_instruments(FOLDER)
PUBLIC = PROJECT.parent / "shared" / "data" / "redcap_longitudinal"


def load(name: str) -> Instrument:
    return load_instrument(name, FOLDER)


def parse(draft: Draft) -> Instrument:
    files = {DEFINITION_FILE: draft.definition.encode(), EXAMPLES_FILE: draft.worked_examples.encode()}
    return parse_instrument(draft.id, files)


def find_carried(instrument: Instrument) -> dict[str, Any]:
    """All of a definition that both formats can say."""
    return {
        "id": instrument.id,
        "asked_of": (instrument.respondents, instrument.forms),
        "items": [
            (i.id, i.label, i.type, i.levels, i.minimum, i.maximum, i.whole_numbers, i.asked_if)
            for i in instrument.items
        ],
        "choice_groups": instrument.choice_groups,
    }


def go_through_redcap(instrument: Instrument) -> Instrument:
    data, _ = write_dictionary([instrument], {})
    (draft,) = read_dictionary(data).drafts
    return parse(draft)


def go_through_xlsform(instrument: Instrument) -> Instrument:
    data, _ = write_xlsform(instrument, Wording())
    (draft,) = read_xlsform(data, "form").drafts
    return parse(draft)


def write_rows(*rows: Mapping[str, str]) -> bytes:
    """A data dictionary of fields given by the names that programs have for the columns."""
    titles = {name: title for title, name in COLUMNS.items()}
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(COLUMNS))
    writer.writeheader()
    writer.writerow({titles["field_name"]: "record_id", titles["form_name"]: "mood", titles["field_type"]: "text"})
    for row in rows:
        writer.writerow({titles["form_name"]: "mood"} | {titles[name]: text for name, text in row.items()})
    return sink.getvalue().encode()


def field(name: str, kind: str, label: str = "Asked", **more: str) -> dict[str, str]:
    return {"field_name": name, "field_type": kind, "field_label": label} | more


def choose(name: str, choices: str, **more: str) -> dict[str, str]:
    return field(name, "radio", select_choices_or_calculations=choices, **more)


def number(name: str, low: str, high: str, kind: str = "integer", **more: str) -> dict[str, str]:
    return field(
        name, "text", text_validation_type_or_show_slider_number=kind, text_validation_min=low,
        text_validation_max=high, **more,
    )  # fmt: skip


def take_in(*rows: Mapping[str, str]) -> tuple[Instrument, Translated]:
    translated = read_dictionary(write_rows(*rows))
    (draft,) = translated.drafts
    return parse(draft), translated


def find_left(translated: Translated, name: str) -> list[str]:
    return [entry.what for entry in translated.not_carried if entry.name == name]


# There and back


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_a_definition_comes_back_from_redcap(name: str) -> None:
    assert find_carried(go_through_redcap(load(name))) == find_carried(load(name))


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_a_definition_comes_back_from_an_xlsform(name: str) -> None:
    back = go_through_xlsform(load(name))
    assert find_carried(back) == find_carried(load(name))
    assert (back.title, back.version) == (load(name).title, load(name).version)


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="<>&[]|$"), min_size=1)
CODES = st.lists(st.integers(-99, 999), min_size=1, max_size=6, unique=True)


@st.composite
def questions(draw: st.DrawFn) -> list[Question]:
    """Questions of every kind, some of which hang on one before."""
    made: list[Question] = []
    for position in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["level", "number", "choices"]))
        condition = ""
        if draw(st.booleans()) and made:
            gate = draw(st.sampled_from(made))
            codes = [code for code, _ in gate.choices]
            if gate.kind == "choices":
                condition = f"[{gate.name}({draw(st.sampled_from(codes))})] = '{draw(st.sampled_from([0, 1]))}'"
            elif codes:
                picked = draw(st.lists(st.sampled_from(codes), min_size=1, unique=True))
                condition = " or ".join(f"[{gate.name}] = '{code}'" for code in picked)
        if kind == "number":
            low = draw(st.integers(-500, 500))
            question = Question("form", f"q{position}", draw(WORDS), "number", (), low, low + draw(st.integers(1, 900)),
                                draw(st.booleans()), condition=condition)  # fmt: skip
        else:
            codes = (
                [str(code) for code in draw(CODES)]
                if kind == "level"
                else [f"c{n}" for n in range(draw(st.integers(1, 5)))]
            )
            choices = tuple((code, draw(WORDS)) for code in codes)
            alone = tuple(draw(st.lists(st.sampled_from(codes), max_size=1))) if kind == "choices" else ()
            question = Question("form", f"q{position}", draw(WORDS), "level" if kind == "level" else "choices", choices,
                                exclusive=alone, condition=condition)  # fmt: skip
        made.append(question)
    return made


@settings(max_examples=60, deadline=None)
@given(questions())
def test_any_definition_comes_back(asked: list[Question]) -> None:
    (draft,) = derive_drafts(asked, "a test", {}, {}).drafts
    instrument = parse(draft)
    assert sum(item.asked_if is not None for item in instrument.items if item.id in {q.name for q in asked}) == sum(
        bool(question.condition) for question in asked if question.kind != "choices"
    )
    assert find_carried(go_through_redcap(instrument)) == find_carried(instrument)
    assert find_carried(go_through_xlsform(instrument)) == find_carried(instrument)


def test_several_instruments_are_forms_of_one_dictionary() -> None:
    data, _ = write_dictionary([load("who5"), load("sociodemographics")], {})
    drafts = read_dictionary(data).drafts
    assert [find_carried(parse(draft)) for draft in drafts] == [
        find_carried(load("who5")), find_carried(load("sociodemographics")),
    ]  # fmt: skip
    names = [row["Variable / Field Name"] for row in csv.DictReader(io.StringIO(data.decode()))]
    assert names[0] == "participant_id"
    assert len(names) == len(set(names))


def test_what_a_form_cannot_say_is_listed() -> None:
    for left in (write_dictionary([load("service_use")], {})[1], write_xlsform(load("service_use"), Wording())[1]):
        assert {"su_contacts", "su_nights"} <= {entry.name for entry in left if entry.what == "a score"}
        assert NotCarried("service_use", "how far back it asks (6 months)", "Say it there.") in left
        assert ("service_use", "that it asks for facts and measures nothing") in [(one.name, one.what) for one in left]
        assert any("-9 not answered" in entry.what for entry in left)
    own = [entry for entry in write_dictionary([load("sociodemographics")], {})[1] if entry.name == "socio_left_school"]
    assert [entry.what for entry in own] == [
        "that it is asked on the standard form only", "its own codes for no answer",
    ]  # fmt: skip


ANY = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=12)
FIELDS = st.fixed_dictionaries(
    {
        "field_name": st.sampled_from(["a", "b", "age", "a_1", "1x", "é", "x" * 40, "hurt", "expected_x", "wave"])
        | ANY,
        "field_type": st.sampled_from(["radio", "checkbox", "text", "slider", "yesno", "calc", "notes"]) | ANY,
        "field_label": ANY,
        "select_choices_or_calculations": st.sampled_from(["0, No | 1, Yes", "-1, A|-1, B", "a, A | A, B", ",|,", "1,"])
        | ANY,
        "text_validation_type_or_show_slider_number": st.sampled_from(["integer", "number", "number_2dp", "email"])
        | ANY,
        "text_validation_min": st.sampled_from(["", "0", "-5", "1.5", "1e9", "999999999", "-"]) | ANY,
        "text_validation_max": st.sampled_from(["", "0", "10", "-1.5", "today", "000"]) | ANY,
        "branching_logic": st.sampled_from(["[a] = '1'", "[hurt(1)] = '1'", "[b] > 0", "[a] = '1' or [a] = '0'"]) | ANY,
        "field_annotation": st.sampled_from(["@NONEOFTHEABOVE='1'", "@NONEOFTHEABOVE=x"]) | ANY,
        "form_name": st.sampled_from(["mood", "Mood 2", "9", "x" * 50]),
    }
)


@settings(max_examples=150, deadline=None)
@given(st.lists(FIELDS, max_size=6))
def test_whatever_a_dictionary_says_its_definitions_are_sound_and_nothing_is_lost(rows: list[dict[str, str]]) -> None:
    translated = read_dictionary(write_rows(*rows))
    instruments = [parse(draft) for draft in translated.drafts]
    assert sum(len(one.items) for one in instruments) == sum(draft.n_items for draft in translated.drafts)
    carried = {name for one in instruments for name in (*one.item_ids, *(group.id for group in one.choice_groups))}
    told = {entry.name for entry in translated.not_carried}
    assert {row["field_name"].strip() for row in rows} - {""} <= carried | told


ALONE = "not(selected(., 'x') and count-selected(.) > 1)"
TYPES = ["select_one l", "select_multiple l", "integer", "decimal", "range", "begin group", "end group", "begin_repeat",
         "end_repeat", "text", "select_one none", "note", "phonenumber", "wheel"]  # fmt: skip
ROWS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(TYPES) | ANY,
        "name": st.sampled_from(["a", "B-2", "participant_id", "age", "1"]) | ANY,
        "label": ANY,
        "relevant": st.sampled_from(["", "${a} = '1'", "selected(${a}, 'x')", "not(selected(${a}, 'x'))"]) | ANY,
        "constraint": st.sampled_from(
            ["", ". >= 0 and . <= 9", ". > 5", "not(selected(., 'x') and count-selected(.) > 1)"]
        )
        | ANY,
        "parameters": st.sampled_from(["", "start=0 end=5", "start=5 end=0 step=0.5"]) | ANY,
        "hint": ANY,
    }
)
LISTED = st.lists(st.fixed_dictionaries({"list_name": st.just("l"), "name": st.sampled_from(["x", "1", "-2"]) | ANY,
                                         "label": ANY}), max_size=4)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=6), LISTED)
def test_whatever_a_form_says_its_definition_is_sound_and_nothing_is_lost(
    rows: list[dict[str, str]], listed: list[dict[str, str]]
) -> None:
    translated = parse_xlsform(rows, listed, [], "form")
    carried: set[str] = set()
    for instrument in map(parse, translated.drafts):
        carried |= {*instrument.item_ids, *(group.id for group in instrument.choice_groups)}
    told = {entry.name for entry in translated.not_carried}
    asked = [row for row in rows if row["type"].strip() and "group" not in row["type"] and "end" not in row["type"]]
    assert {row["name"] for row in asked if row["name"]} <= carried | told


# Branching


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[sex] = '0'", Condition(item="sex_answer", equals=(0,))),
        ('[sex]="1" OR [sex]="0"', Condition(item="sex_answer", equals=(0, 1))),
        ("[sex] <> '0'", Condition(item="sex_answer", equals=(1,))),
        ("[born] = '1' and [sex] = '0'", Condition(item="born", equals=(1,))),  # whoever answers born is of sex 0
        ("[born] = '1' and [sex] = '1'", None),
        ("[hurt(2)] = '1'", Condition(item="hurt_2", equals=(1,))),
        ("([times] >= 1) and [times] < 3", Condition(item="times", equals=(1, 2))),
        ("[times] > 12", None),  # nobody would ever be asked
        ("[sex] = '0' or [born] = '1'", None),
        ("[visit_1_arm_1][sex] = '0'", None),
        ("datediff([a], 'today', 'y') > 3", None),
        ("[later] = '1'", None),
        ("[weight] = '2'", Condition(item="weight", equals=(2,))),
        ("[weight] > 2", None),
        ("[sex] = ", None),
        ("([sex] = '0'", None),
    ],
)
def test_branching_is_carried_as_far_as_one_condition_goes(text: str, expected: Condition | None) -> None:
    instrument, translated = take_in(
        choose("sex", "0, Female | 1, Male"),
        choose("born", "0, No | 1, Yes", branching_logic="[sex] = '0'"),
        field("hurt", "checkbox", select_choices_or_calculations="1, Back | 2, Hand"),
        number("times", "0", "12"),
        number("weight", "0", "300", "number"),
        choose("asked", "0, No | 1, Yes", branching_logic=text),
        choose("later", "0, No | 1, Yes"),
    )
    item = instrument.find_item("asked")
    assert item is not None
    assert item.asked_if == expected
    assert ("when it is asked" in find_left(translated, "asked")) == (expected is None)


def test_a_condition_of_endless_alternatives_is_given_up() -> None:
    assert parse_condition(" and ".join(["([a] = 1 or [a] = 2)"] * 30)) is None
    assert parse_condition("[a] = 1 and ([b] = 2 or [c] = 3)") is not None


# Coming in


def test_kinds_of_field_become_kinds_of_item() -> None:
    instrument, translated = take_in(
        field("ok", "yesno"),
        field("known", "truefalse"),
        field("pain", "slider", select_choices_or_calculations="none | much"),
        choose("colour", "r, Red, and so on | g, Green"),
        number("height", "130", "215.5", "number_1dp"),
        number("steps", "", ""),
    )
    items = {item.id: item for item in instrument.items}
    assert items["ok"].levels == {1: "Yes", 0: "No"}
    assert items["known"].levels == {1: "True", 0: "False"}
    assert (items["pain"].minimum, items["pain"].maximum, items["pain"].whole_numbers) == (0, 100, True)
    assert items["colour"].levels == {1: "Red, and so on", 2: "Green"}
    assert (items["height"].maximum, items["height"].whole_numbers) == (215.5, False)
    assert items["steps"].maximum == 999_999
    assert find_left(translated, "pain") == ["the words along the slider"]
    assert find_left(translated, "colour") == ["codes that are no whole numbers"]
    assert find_left(translated, "steps") == ["a whole range"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (field("contact", "text", text_validation_type_or_show_slider_number="email"), "an e-mail address"),
        (field("contact", "text", text_validation_type_or_show_slider_number="phone_uk"), "a telephone number"),
        (field("area", "text", text_validation_type_or_show_slider_number="postalcode_uk"), "a postcode"),
        (field("dob", "text", text_validation_type_or_show_slider_number="date_dmy"), "a date of birth"),
        (field("q7", "text", "First name"), "a name"),
        (field("q8", "notes", "Home address"), "an address"),
        (number("nhs_number", "1", "9999"), "an NHS number"),
        (choose("village", "1, Ayton | 2, Beeford", identifier="y"), 'what REDCap marks as "Identifier"'),
    ],
)
def test_what_would_tell_who_a_person_is_is_refused_by_name(row: dict[str, str], words: str) -> None:
    instrument, translated = take_in(choose("ok", "0, No | 1, Yes"), row)
    assert instrument.item_ids == ("ok",)
    assert find_left(translated, row["field_name"]) == [f"refused: it would hold {words}"]


def test_everything_that_is_dropped_is_listed() -> None:
    _, translated = take_in(
        choose("ok", "0, <b>No</b> | 1, Yes", section_header="Part 1", field_note="Think", required_field="y",
               custom_alignment="RH", question_number="1", matrix_group_name="m", field_annotation="@HIDDEN"),
        choose("ok", "0, No | 1, Yes"),
        field("sum", "calc"), field("scan", "file"), field("said", "notes"), field("hello", "descriptive"),
        field("on", "text", text_validation_type_or_show_slider_number="date_dmy"), field("odd", "wheel"),
        number("bad", "9", "1"), number("until", "0", "today"),
    )  # fmt: skip
    assert set(find_left(translated, "ok")) == {
        "bold, colours and other marks", "a heading", "a note below it", "that it must be answered",
        "how it is aligned", "its number on the page", "its place in a matrix", "its annotation or action tags",
        "a second field of that name",
    }  # fmt: skip
    for name in ("sum", "scan", "said", "hello", "on", "odd", "record_id", "bad", "until"):
        assert find_left(translated, name), name


def test_a_choice_that_stands_alone_is_read_from_its_action_tag() -> None:
    instrument, translated = take_in(
        field("hurt", "checkbox", select_choices_or_calculations="1, Back | 0, Nothing | -9, Unknown",
              field_annotation="@NONEOFTHEABOVE='0,-9' @RIGHT"),
    )  # fmt: skip
    (group,) = instrument.choice_groups
    assert (group.items, group.exclusive) == (("hurt_1", "hurt_0", "hurt__9"), ("hurt_0", "hurt__9"))
    assert find_left(translated, "hurt") == ["its annotation or action tags"]


def test_choices_without_a_code_are_listed() -> None:
    instrument, translated = take_in(choose("ok", "0, No | 1, Yes | Perhaps"), choose("bare", "Yes | No"))
    assert instrument.item_ids == ("ok",)
    assert instrument.items[0].levels == {0: "No", 1: "Yes"}
    assert find_left(translated, "ok") == ["choices with the same code, or with none"]
    assert "a question without choices" in find_left(translated, "bare")


def test_names_that_cannot_stay_are_changed_and_said() -> None:
    long = "a_field_with_a_name_of_many_letters"
    instrument, translated = take_in(
        choose("age", "1, Young | 2, Old"), choose(long, "1, Yes"), choose(f"{long}_2", "1, Yes")
    )
    assert instrument.item_ids == ("age_answer", long[:32], f"{long[:29]}_2")
    assert find_left(translated, "age") == ["its name"]


def test_long_codes_of_choices_are_shortened_and_said() -> None:
    codes = "would_rather_not_say_to_a_stranger", "would_rather_not_say_to_a_friend"
    instrument, translated = take_in(
        field("why_did_you_not_come_to_us", "checkbox",
              select_choices_or_calculations=f"{codes[0]}, Stranger | {codes[1]}, Friend",
              field_annotation=f"@NONEOFTHEABOVE='{codes[1]}'"),
    )  # fmt: skip
    assert [item.label for item in instrument.items] == ["Asked: Stranger", "Asked: Friend"]
    assert instrument.choice_groups[0].exclusive == (instrument.item_ids[1],)
    assert "codes of more than 20 letters" in find_left(translated, "why_did_you_not_come_to_us")


@pytest.mark.parametrize("data", [b"", b"a,b\n1,2\n", b"\x00\x01", b'Form Name,"x\n'])
def test_a_file_that_is_no_dictionary_is_refused(data: bytes) -> None:
    with pytest.raises(EntryFault):
        read_dictionary(data)


def make_xlsform(survey: list[list[str]], choices: list[list[str]] | None = None) -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "survey"
    for row in survey:
        sheet.append(row)
    listed = book.create_sheet("choices")
    for row in choices or [["list_name", "name", "label"], ["yn", "yes", "Yes"], ["yn", "no", "No"]]:
        listed.append(row)
    sink = io.BytesIO()
    book.save(sink)
    return sink.getvalue()


def test_an_xlsform_as_people_write_them() -> None:
    translated = read_xlsform(
        make_xlsform(
            [
                ["type", "name", "label::English (en)", "label::Welsh (cy)", "relevant", "constraint", "required",
                 "parameters", "appearance"],
                ["start", "start", "", "", "", "", "", "", ""],
                ["deviceid", "device", "", "", "", "", "", "", ""],
                ["text", "carer_name", "Name of carer", "", "", "", "", "", ""],
                ["geopoint", "home", "Where", "", "", "", "", "", ""],
                ["begin group", "g", "Part", "", "${pets} = 'yes'", "", "", "", ""],
                ["select one yn", "pets", "Any pets?", "Anifeiliaid?", "", "", "yes", "", "minimal"],
                ["end_group", "", "", "", "", "", "", "", ""],
                ["begin_group", "g2", "Part", "", "${pets} = 'yes'", "", "", "", ""],
                ["integer", "n-pets", "How many?", "", "", ". > 0 and . <= 20", "", "", ""],
                ["select all that apply from yn", "kinds", "Kinds", "", "", "", "", "", ""],
                ["end group", "", "", "", "", "", "", "", ""],
                ["range", "joy", "Joy", "", "selected(${kinds}, 'no')", "", "", "start=0 end=10 step=1", ""],
                ["begin repeat", "r", "Each", "", "", "", "", "", ""],
                ["integer", "each", "Each", "", "", "", "", "", ""],
                ["end repeat", "", "", "", "", "", "", "", ""],
                ["decimal", "weight", "Weight", "", "", ". > 0", "", "", ""],
                ["note", "bye", "Thanks", "", "", "", "", "", ""],
            ]
        ),
        "pets",
    )  # fmt: skip
    (draft,) = translated.drafts
    instrument = parse(draft)
    items = {item.id: item for item in instrument.items}
    assert list(items) == ["pets", "n_pets", "kinds_yes", "kinds_no", "joy", "weight"]
    assert items["pets"].levels == {1: "Yes", 2: "No"}
    assert (items["n_pets"].minimum, items["n_pets"].maximum) == (1, 20)
    assert items["n_pets"].asked_if == items["kinds_yes"].asked_if == Condition(item="pets", equals=(1,))
    assert items["joy"].asked_if == Condition(item="kinds_no", equals=(1,))
    assert (items["joy"].minimum, items["joy"].maximum, items["joy"].whole_numbers) == (0, 10, True)
    refused = [entry.name for entry in translated.not_carried if entry.what.startswith("refused")]
    assert refused == ["device", "carer_name", "home"]
    for name in ("start", "r", "each", "bye", "pets"):
        assert find_left(translated, name), name
    assert "a rule about its answers" in find_left(translated, "weight")
    assert "when it is asked" in find_left(translated, "pets")  # it hangs on itself
    assert "other languages" in find_left(translated, "pets")


@pytest.mark.parametrize("data", [b"", b"PK", make_xlsform([["a", "b"], ["1", "2"]])])
def test_a_file_that_is_no_xlsform_is_refused(data: bytes) -> None:
    with pytest.raises(EntryFault):
        read_xlsform(data, "form")


# Wording, files, commands


def test_licensed_wording_goes_out_only_where_the_study_supplies_it() -> None:
    instrument = load("eq5d5l")
    item = instrument.items[0]
    data, _ = write_dictionary([instrument], {})
    assert item.label in data.decode()
    own = f"item,code,text\n{item.id},,\"The study's own question\"\n{item.id},1,The study's own answer\n"
    wording = read_wording(own.encode(), [instrument])
    rows = list(csv.DictReader(io.StringIO(write_dictionary([instrument], wording)[0].decode())))
    (row,) = [row for row in rows if row["Variable / Field Name"] == item.id]
    assert row["Field Label"] == "The study's own question"
    assert row["Choices, Calculations, OR Slider Labels"].startswith("1, The study's own answer | 2, ")
    with pytest.raises(EntryFault, match=r"line 3.*eq5d5l.*|line 3: no instrument"):
        read_wording(f"item,code,text\n{item.id},,x\nnobody,,y\n".encode(), [instrument])
    with pytest.raises(EntryFault, match="no such code"):
        read_wording(f"item,code,text\n{item.id},77,x\n".encode(), [instrument])


@pytest.mark.parametrize("name", ["sociodemographics", "service_use", "eq5d5l"])
def test_wording_can_be_kept_out_of_definitions_and_put_back(name: str, desk: Path) -> None:
    before, after, wording = desk / "before.csv", desk / "after.csv", desk / "wording.csv"
    before.write_bytes(write_dictionary([load(name)], {})[0])
    taken = call("from-redcap", before, "--to", desk / "drafts", "--wording-to", wording)
    assert taken.exit_code == 0
    drawn_up = load_instrument(name, desk / "drafts")
    assert drawn_up.item_ids == load(name).item_ids
    labels = {item.label for item in load(name).items} | {w for item in load(name).items for w in item.levels.values()}
    text = (desk / "drafts" / name / DEFINITION_FILE).read_text(encoding="utf-8")
    assert [label for label in labels if len(label) > 12 and label in text] == []
    after.write_bytes(write_dictionary([drawn_up], read_wording(wording.read_bytes(), [drawn_up]))[0])
    assert after.read_bytes() == before.read_bytes()
    assert call("from-redcap", before, "--to", desk / "more", "--wording-to", wording).exit_code == 1


@pytest.mark.parametrize("name", ["service_use", "sociodemographics"])
def test_what_is_written_opens_in_libreoffice_and_is_read_when_saved_there(name: str, tmp_path: Path) -> None:
    program = shutil.which("soffice")
    if program is None:
        give_up(ServiceMissing("soffice is not installed: LibreOffice opens the files that are written."))
    (tmp_path / "dictionary.csv").write_bytes(write_dictionary([load(name)], {})[0])
    (tmp_path / "form.xlsx").write_bytes(write_xlsform(load(name), Wording())[0])
    for file, to in (("dictionary.csv", "xlsx"), ("form.xlsx", "xlsx")):
        subprocess.run(
            [str(program), f"-env:UserInstallation=file://{tmp_path}/profile", "--headless", "--convert-to", to,
             "--outdir", str(tmp_path / "out"), str(tmp_path / file)],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
    book = openpyxl.load_workbook(tmp_path / "out" / "dictionary.xlsx")
    names = [row[0] for row in book.active.iter_rows(min_row=2, values_only=True)]
    assert {item.id for item in load(name).items if not item.id.startswith("socio_cond")} <= set(names)
    (draft,) = read_xlsform((tmp_path / "out" / "form.xlsx").read_bytes(), "form").drafts
    assert find_carried(parse(draft)) == find_carried(load(name))


def test_the_same_instrument_gives_the_same_bytes() -> None:
    assert write_xlsform(load("who5"), Wording()) == write_xlsform(load("who5"), Wording())


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    shutil.copytree(FOLDER / "who5", tmp_path / "instruments" / "who5")
    monkeypatch.setenv("SUMMATIVE_INSTRUMENTS", str(tmp_path / "instruments"))
    monkeypatch.setenv("SUMMATIVE_DATA_FOLDER", str(tmp_path / "out"))
    read_settings.cache_clear()
    yield tmp_path
    read_settings.cache_clear()


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["instruments", *map(str, words)])


def test_the_commands_take_in_and_hand_out(desk: Path) -> None:
    dictionary, form = desk / "who5.csv", desk / "who5.xlsx"
    assert call("to-redcap", "who5", "--to", dictionary).exit_code == 0
    assert call("to-xlsform", "who5", "--to", form).exit_code == 0
    again = call("to-redcap", "who5", "--to", dictionary)
    assert again.exit_code == 1
    assert "nothing is overwritten" in again.stderr
    before = (desk / "instruments" / "who5" / "definition.toml").read_bytes()
    assert "left as it is" in call("from-redcap", dictionary).stdout
    assert (desk / "instruments" / "who5" / "definition.toml").read_bytes() == before
    taken = call("from-redcap", dictionary, "--to", desk / "drafts")
    assert taken.exit_code == 0
    assert "✓ who5: 5 items" in taken.stdout
    assert "citation and licence" in taken.stdout
    assert find_carried(load_instrument("who5", desk / "drafts")) == find_carried(load("who5"))
    assert call("from-xlsform", form, "--to", desk / "more").exit_code == 0
    assert find_carried(load_instrument("who5", desk / "more")) == find_carried(load("who5"))


def test_the_commands_say_what_is_wrong(desk: Path) -> None:
    (desk / "x.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    for words, told in (
        (("from-redcap", desk / "x.csv"), "no data dictionary"),
        (("from-redcap", desk / "none.csv"), "cannot be read"),
        (("from-xlsform", desk / "x.csv"), ""),
        (("to-redcap", "whp5", "--to", desk / "y.csv"), 'Did you mean "who5"?'),
    ):
        result = call(*words)
        assert result.exit_code == 1
        assert told in result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="the REDCap project of the shared data is not on this machine")
def test_the_public_project_goes_in_and_its_identifiers_are_refused() -> None:
    translated = read_dictionary((PUBLIC / "dictionary.csv").read_bytes())
    instruments = {draft.id: parse(draft) for draft in translated.drafts}
    assert len(instruments) == 9
    assert sum(len(instrument.items) for instrument in instruments.values()) == 90
    refused = {entry.name for entry in translated.not_carried if entry.what.startswith("refused")}
    assert refused == {
        "first_name", "last_name", "telephone_1", "email", "dob", "ec_phone", "next_of_kin_contact_name",
        "next_of_kin_contact_phone", "next_of_kin_contact_address",
    }  # fmt: skip
    born = instruments["demographics"].find_item("num_children")
    assert born is not None
    assert born.asked_if == Condition(item="given_birth", equals=(1,))
    rows = list(csv.DictReader(io.StringIO((PUBLIC / "dictionary.csv").read_text(encoding="utf-8"))))
    carried = {name for one in instruments.values() for name in (*one.item_ids, *(g.id for g in one.choice_groups))}
    told = {entry.name for entry in translated.not_carried}
    assert {row["Variable / Field Name"] for row in rows} <= carried | told
