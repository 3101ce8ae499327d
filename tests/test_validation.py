"""Checking cells: literal tables, an independent reading cell by cell, and agreement with the generated schema."""

import datetime as dt
import math
import re
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pandera.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.instruments import MISSING_REASONS, Condition, Instrument, Item
from study.validation import FAULT_COLUMNS, REASON_CODES, RULES, check_records, derive_response_schema
from tests.test_instruments import FOLDERS, read_instrument

CODES = {-9: "not_answered", -8: "refused", -5: "not_asked"}
ITEMS = (
    Item(id="gate", label="Gate", type="level", levels={0: "no", 1: "yes"},
         missing_codes={**CODES, 96: "not_applicable"}),
    Item(id="often", label="Often", type="level", levels={k: str(k) for k in range(1, 5)}, missing_codes=CODES,
         asked_if=Condition(item="gate", equals=(1,))),
    Item(id="why", label="Why", type="number", minimum=0, maximum=100, missing_codes=CODES,
         asked_if=Condition(item="often", equals=(3, 4))),
    Item(id="gap", label="Gap", type="level", levels={1: "a", 2: "b", 9: "c"}, missing_codes=CODES),
    Item(id="days", label="Days", type="number", minimum=0, maximum=96, whole_numbers=True, missing_codes=CODES),
    Item(id="mean", label="Mean", type="number", minimum=-1.5, maximum=8.5, missing_codes={99: "refused"}),
)  # fmt: skip
MIXED = Instrument(
    id="mixed", title="Mixed", sheet_title="Mixed", version="1", citation="none", licence="none",
    respondents=("self",), forms=("standard",), missing_codes=CODES, items=ITEMS, scales=(),
)  # fmt: skip


def check_cell(item: str, cell: object) -> tuple[float, str, tuple[str, str] | None]:
    """Response, missing reason and fault (rule, code shown) of one cell by itself."""
    checked = check_records(MIXED, pd.DataFrame({item: pd.Series([cell], dtype=object)}))
    faults = checked.faults
    assert len(faults) <= 1
    fault = None if faults.empty else (faults["rule"].iloc[0], faults["code_shown"].iloc[0])
    return checked.responses[item].iloc[0], checked.missing_reasons[item].iloc[0], fault


@pytest.mark.parametrize(
    ("item", "cell", "response", "reason", "fault"),
    [
        ("gate", 1, 1, "", None),
        ("gate", 1.0, 1, "", None),
        ("gate", "1", 1, "", None),
        ("gate", " 1 ", 1, "", None),
        ("gate", "\u00a01", 1, "", None),
        ("gate", np.int64(1), 1, "", None),
        ("gate", None, None, "not_answered", None),
        ("gate", math.nan, None, "not_answered", None),
        ("gate", pd.NA, None, "not_answered", None),
        ("gate", pd.NaT, None, "not_answered", None),
        ("gate", "", None, "not_answered", None),
        ("gate", "  ", None, "not_answered", None),
        ("gate", -8, None, "refused", None),
        ("gate", "-8", None, "refused", None),
        ("gate", 96, None, "not_applicable", None),
        ("days", 96, 96, "", None),  # the same code is an answer here
        ("gap", 9, 9, "", None),
        ("gap", 96, None, "illegible", ("level_unknown", "96")),  # and no code at all here
        ("gap", 5, None, "illegible", ("level_unknown", "5")),
        ("gap", 1.5, None, "illegible", ("level_unknown", "1.5")),
        ("gate", 2, None, "illegible", ("level_unknown", "2")),
        ("gate", 0.5, None, "illegible", ("level_unknown", "0.5")),
        ("gate", -7, None, "illegible", ("level_unknown", "-7")),
        ("mean", -9, None, "illegible", ("out_of_range", "-9")),
        ("mean", 99, None, "refused", None),
        ("mean", -1.5, -1.5, "", None),
        ("mean", 8.5, 8.5, "", None),
        ("mean", 8.51, None, "illegible", ("out_of_range", "8.51")),
        ("mean", "7.33", 7.33, "", None),
        ("days", 7.5, None, "illegible", ("out_of_range", "7.5")),
        ("days", 97, None, "illegible", ("out_of_range", "97")),
        ("days", 4857773456, None, "illegible", ("out_of_range", "")),  # too long to be a code: it could identify
        ("days", math.inf, None, "illegible", ("out_of_range", "")),
        ("days", 10**400, None, "illegible", ("out_of_range", "")),
        ("days", "seven", None, "illegible", ("not_a_number", "")),
        ("days", "7,5", None, "illegible", ("not_a_number", "")),
        ("days", "1e1", None, "illegible", ("not_a_number", "")),
        ("days", "nan", None, "illegible", ("not_a_number", "")),
        ("days", "٣", None, "illegible", ("not_a_number", "")),
        ("days", True, None, "illegible", ("unexpected_type", "")),
        ("days", np.bool_(False), None, "illegible", ("unexpected_type", "")),
        ("days", dt.datetime(2016, 3, 1, 9, 30), None, "illegible", ("unexpected_type", "")),  # noqa: DTZ001 - as read
        ("days", dt.date(2016, 3, 1), None, "illegible", ("unexpected_type", "")),
        ("days", dt.time(9, 30), None, "illegible", ("unexpected_type", "")),
        ("days", dt.timedelta(days=7), None, "illegible", ("unexpected_type", "")),
        ("days", 1 + 2j, None, "illegible", ("unexpected_type", "")),
        ("days", Decimal(7), None, "illegible", ("unexpected_type", "")),
    ],
)  # fmt: skip
def test_a_cell(item: str, cell: object, response: float | None, reason: str, fault: tuple[str, str] | None):
    found, found_reason, found_fault = check_cell(item, cell)
    assert (None if math.isnan(found) else found, found_reason, found_fault) == (response, reason, fault)


# gate, often, why -> their missing reasons, and the faults as (item, severity)
@pytest.mark.parametrize(
    ("cells", "reasons", "faults"),
    [
        ((1, 3, 50), ("", "", ""), []),
        ((1, 2, ""), ("", "", "not_asked"), []),
        ((0, "", ""), ("", "not_asked", "not_asked"), []),
        ((0, -9, -8), ("", "not_asked", "not_asked"), []),  # routing knows better than the code entered
        ((1, "", ""), ("", "not_answered", "not_answered"), []),
        ((1, -8, ""), ("", "refused", "refused"), []),
        ((1, -8, -9), ("", "refused", "not_answered"), []),
        ((96, "", ""), ("not_applicable", "not_applicable", "not_applicable"), []),
        (("", "", ""), ("not_answered", "not_answered", "not_answered"), []),
        ((-5, "", ""), ("not_asked", "not_asked", "not_asked"), []),
        ((0, 2, ""), ("", "", "not_asked"), [("often", "hard")]),
        ((0, 3, 50), ("", "", ""), [("often", "hard")]),
        ((1, 2, 50), ("", "", ""), [("why", "hard")]),
        ((0, "", 50), ("", "not_asked", ""), [("why", "hard")]),
        ((96, 2, ""), ("not_applicable", "", "not_asked"), [("often", "hard")]),
        ((-5, 2, ""), ("not_asked", "", "not_asked"), [("often", "hard")]),
        (("", 2, ""), ("not_answered", "", "not_asked"), [("often", "soft")]),
        ((-8, 3, 50), ("refused", "", ""), [("often", "soft")]),
        ((7, 3, 50), ("illegible", "", ""), [("gate", "hard")]),  # one fault is told once
        ((7, "", ""), ("illegible", "illegible", "illegible"), [("gate", "hard")]),
        ((0, 7, ""), ("", "illegible", "illegible"), [("often", "hard")]),
    ],
)
def test_routing(cells: tuple[object, ...], reasons: tuple[str, ...], faults: list[tuple[str, str]]):
    names = ["gate", "often", "why"]
    checked = check_records(MIXED, pd.DataFrame([cells], columns=names, dtype=object))
    assert tuple(checked.missing_reasons.iloc[0]) == reasons
    assert list(zip(checked.faults["item"], checked.faults["severity"], strict=True)) == faults
    assert list(checked.responses.iloc[0].isna()) == [reason != "" for reason in reasons]


def test_routing_is_not_checked_without_the_gate():
    checked = check_records(MIXED, pd.DataFrame({"often": [3, None], "why": ["", 5]}, dtype=object))
    assert checked.missing_reasons.to_numpy().tolist() == [["", "not_answered"], ["not_answered", ""]]
    assert checked.faults[["record", "item", "severity"]].to_numpy().tolist() == [[1, "why", "soft"]]


def test_faults_by_place_and_in_words():
    records = pd.DataFrame(
        {"days": [3, "x", 97], "unknown": ["a", "b", "c"], "gate": [0, 1, 2], "often": [4, 4, ""]},
        index=[12, 15, 13], dtype=object,
    )  # fmt: skip
    checked = check_records(MIXED, records)
    assert list(checked.responses.columns) == ["gate", "often", "days"]
    assert list(checked.responses.index) == [12, 15, 13]
    assert tuple(checked.faults.columns) == FAULT_COLUMNS
    codes = "-9 not answered, -8 refused, -5 not asked"
    days = f"a whole number from 0 to 96, or {codes}"
    often = "no answer, because it is asked only if Gate (gate) is 1 (yes)"
    assert checked.faults.to_numpy().tolist() == [
        [12, "often", "answered_though_not_asked", "hard", often, ""],
        [15, "days", "not_a_number", "hard", days, ""],
        [13, "gate", "level_unknown", "hard", f"0 or 1, or {codes}, 96 not applicable", "2"],
        [13, "days", "out_of_range", "hard", days, "97"],
    ]


def test_no_records_and_no_columns():
    none = check_records(MIXED, pd.DataFrame({"gate": [], "days": []}))
    assert none.responses.shape == none.missing_reasons.shape == (0, 2)
    assert none.faults.empty
    bare = check_records(MIXED, pd.DataFrame(index=[0, 1]))
    assert bare.responses.shape == (2, 0)
    assert tuple(bare.faults.columns) == FAULT_COLUMNS


def test_the_records_are_left_as_they_were():
    records = pd.DataFrame({"gate": [1.0, 7.0], "days": [-9.0, 500.0]})
    before = records.copy()
    check_records(MIXED, records)
    pd.testing.assert_frame_equal(records, before)


def test_every_dtype_reads_the_same():
    """A column is read alike as objects, integers, floats, nullable integers and text."""
    cells = [1, 2, 9, 5, -9] * 300
    expected = check_records(MIXED, pd.DataFrame({"gap": cells}, dtype=object))
    for dtype in ("int8", "uint8", "int64", "float32", "float64", "Int64", "Float64", "str", "category"):
        series = pd.Series([200 if dtype == "uint8" and c < 0 else c for c in cells]).astype(dtype)
        checked = check_records(MIXED, pd.DataFrame({"gap": series}))
        assert checked.responses["gap"].equals(expected.responses["gap"]), dtype
        assert len(checked.faults) == 300 * (1 + (dtype == "uint8")), dtype


def read_slowly(records: pd.DataFrame) -> tuple[dict[tuple[int, str], object], set[tuple[int, str, str, str]]]:
    """The rules once more, cell by cell and in the plainest words: what each cell says, and the faults."""
    says: dict[tuple[int, str], object] = {}
    faults: set[tuple[int, str, str, str]] = set()
    for record in records.index:
        for item in ITEMS:
            cell = records.loc[record, item.id]
            if isinstance(cell, str) and re.fullmatch(r"\s*[+-]?[0-9]+(\.[0-9]+)?\s*", cell):
                cell = float(cell)
            is_number = isinstance(cell, int | float) and not isinstance(cell, bool)
            if cell is None or (isinstance(cell, str) and not cell.strip()) or (is_number and math.isnan(cell)):
                says[record, item.id] = "blank"
                continue
            rule = ""
            if isinstance(cell, str):
                rule = "not_a_number"
            elif not is_number:
                rule = "unexpected_type"
            elif item.levels:
                rule = "" if cell in item.levels else "level_unknown"
            elif not item.lowest <= cell <= item.highest or (item.whole_numbers and cell != int(cell)):
                rule = "out_of_range"
            if rule and is_number and cell in item.missing_codes:
                says[record, item.id] = item.missing_codes[int(cell)]
            elif rule:
                says[record, item.id] = "faulty"
                faults.add((record, item.id, rule, "hard"))
            else:
                says[record, item.id] = float(cell)
        for item in ITEMS:
            if item.asked_if is not None:
                gate, own = says[record, item.asked_if.item], says[record, item.id]
                if gate in item.asked_if.equals:
                    continue
                is_out = isinstance(gate, float) or gate == "not_asked"
                if isinstance(own, float) and gate != "faulty":
                    severity = "hard" if is_out or gate == "not_applicable" else "soft"
                    faults.add((record, item.id, "answered_though_not_asked", severity))
                elif not isinstance(own, float) and own != "faulty" and is_out:
                    says[record, item.id] = "not_asked"
                elif own == "blank":
                    says[record, item.id] = gate
    words = {"blank": "not_answered", "faulty": "illegible"}
    return {place: words.get(say, say) if isinstance(say, str) else say for place, say in says.items()}, faults


CELLS = st.one_of(
    st.sampled_from([None, "", " ", "x", "1", "-9", "96", "2.0", math.nan, True, dt.date(2016, 2, 29), math.inf]),
    st.integers(-10, 101),
    st.sampled_from([0.5, 1.0, 3.0, -1.5, 8.5, 8.6, 96.0, 99.0, 1e18]),
)


@given(st.lists(st.tuples(*[CELLS] * len(ITEMS)), min_size=1, max_size=8))
def test_agrees_with_a_slow_reading(rows: list[tuple[object, ...]]):
    records = pd.DataFrame(rows, columns=list(MIXED.item_ids), dtype=object)
    says, faults = read_slowly(records)
    checked = check_records(MIXED, records)
    found = {tuple(fault) for fault in checked.faults[["record", "item", "rule", "severity"]].to_numpy().tolist()}
    assert found == faults
    assert len(checked.faults) == len(faults)
    for (record, item), say in says.items():
        reason, response = checked.missing_reasons.loc[record, item], checked.responses.loc[record, item]
        assert (response if reason == "" else reason) == say
        assert (reason == "") != math.isnan(response)


SCHEMA = derive_response_schema(MIXED)


def find_schema_breaks(wide: pd.DataFrame) -> set[tuple[int, str]]:
    """(record, item) of everything that the generated schema finds wrong."""
    try:
        SCHEMA.validate(wide, lazy=True)
    except pandera.errors.SchemaErrors as error:
        cases = error.failure_cases
    else:
        return set()
    breaks = set()
    for context, column, check, index in cases[["schema_context", "column", "check", "index"]].to_numpy().tolist():
        item = column if context == "Column" else str(check).removeprefix("answered_though_not_asked: ")
        breaks.add((int(index), str(item)))
    return breaks


ANSWERS = st.one_of(st.just(math.nan), st.sampled_from([1.5, 8.5, 9.0, 97.0, 1e9]), st.integers(-3, 6).map(float))


@given(st.lists(st.tuples(*[ANSWERS] * len(ITEMS)), min_size=1, max_size=6))
def test_the_schema_agrees_with_the_check(rows: list[tuple[float, ...]]):
    """A frame without missing codes breaks the schema exactly where the check finds a level, range or routing fault.

    Routing is compared where both answers are legal: the check lets a fault of the gate speak for itself.
    """
    wide = pd.DataFrame(rows, columns=list(MIXED.item_ids))
    hard = check_records(MIXED, wide).faults.query("severity == 'hard'")
    by_value = {(r, i) for r, i, rule in hard[["record", "item", "rule"]].to_numpy().tolist() if rule != RULES[4]}
    by_routing = set(zip(hard["record"], hard["item"], strict=True)) - by_value
    breaks = find_schema_breaks(wide)
    illegal = {(r, item.id) for r in wide.index for item in ITEMS if item.asked_if
               and ((r, item.asked_if.item) in by_value or (r, item.id) in by_value)}  # fmt: skip
    chained = {(r, "why") for r in wide.index if math.isnan(wide.loc[r, "often"])}  # not asked, known from two gates
    assert by_value <= breaks
    assert breaks - by_value - illegal - chained == by_routing - illegal - chained


@given(st.lists(st.tuples(*[CELLS] * len(ITEMS)), min_size=1, max_size=6))
def test_what_was_checked_meets_the_schema(rows: list[tuple[object, ...]]):
    checked = check_records(MIXED, pd.DataFrame(rows, columns=list(MIXED.item_ids), dtype=object))
    breaks = find_schema_breaks(checked.responses)
    contradictions = checked.faults.query("rule == 'answered_though_not_asked' and severity == 'hard'")
    assert breaks <= set(zip(contradictions["record"], contradictions["item"], strict=True))


def test_the_schema_refuses_and_accepts():
    schema = derive_response_schema(MIXED)
    good = pd.DataFrame({"gate": [1.0, 0.0, np.nan], "often": [2.0, np.nan, np.nan], "days": [0.0, 96.0, np.nan]})
    schema.validate(good)
    schema.validate(good.drop(columns="gate"))
    for column, value in (("gate", 2.0), ("often", 5.0), ("days", 1.5), ("days", 97.0), ("days", -9.0)):
        with pytest.raises(pandera.errors.SchemaError):
            schema.validate(good.assign(**{column: value}))
    with pytest.raises(pandera.errors.SchemaError):
        schema.validate(good.assign(often=[2.0, 2.0, np.nan]))
    with pytest.raises(pandera.errors.SchemaError):
        schema.validate(good.astype(object))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_instrument_takes_its_answers_and_refuses_others(folder):
    """Lowest, highest and every missing code pass; one step outside is a fault; the schema says the same."""
    instrument = read_instrument(folder)
    asked = {item.asked_if.item: item.asked_if.equals[0] for item in instrument.items if item.asked_if}
    wide = {item.id: float(asked.get(item.id, item.highest)) for item in instrument.items}
    for item in instrument.items:
        for value in (item.lowest, item.highest):
            assert not (check_records(instrument, pd.DataFrame([{item.id: value}])).faults["rule"] != RULES[4]).any()
        for code, reason in item.missing_codes.items():
            checked = check_records(instrument, pd.DataFrame([{item.id: code}]))
            assert checked.faults.empty
            assert checked.missing_reasons[item.id].tolist() == [reason]
        for value in (item.lowest - 0.5, item.highest + 0.5):
            checked = check_records(instrument, pd.DataFrame([{item.id: value}]))
            assert checked.faults["rule"].tolist() == ["level_unknown" if item.levels else "out_of_range"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        derive_response_schema(instrument).validate(pd.DataFrame([wide]))
    faults = check_records(instrument, pd.DataFrame([wide])).faults
    assert set(faults["rule"]) <= {"choice_not_alone", "answers_disagree"}  # every highest answer at once


def test_many_records_are_checked_like_few():
    """Blocks of items, whatever their size, give what one look gives."""
    rng = np.random.default_rng(20)
    few = pd.DataFrame(rng.integers(-9, 12, (500, len(ITEMS))), columns=list(MIXED.item_ids)).astype(object)
    many = pd.concat([few] * 120, ignore_index=True).astype(float)
    small, large = check_records(MIXED, few), check_records(MIXED, many)
    assert np.array_equal(np.tile(small.reasons, (120, 1)), large.reasons)
    assert np.array_equal(np.tile(small.responses, (120, 1)), large.responses, equal_nan=True)
    assert len(large.faults) == 120 * len(small.faults)
    pd.testing.assert_frame_equal(large.faults.iloc[: len(small.faults)], small.faults)
    assert large.faults["record"].is_monotonic_increasing


def test_reason_codes():
    assert REASON_CODES[""] == 0
    assert [REASON_CODES[reason] for reason in MISSING_REASONS] == list(range(1, 7))


def test_numbers_are_made_when_asked_for_and_stay_what_they_were() -> None:
    """A large frame of numbers is not copied for its faults; nor may a change of the frame change what was checked."""
    n = 300_000
    records = pd.DataFrame({"gap": np.full(n, 9.0), "days": np.full(n, 12.0), "mean": np.full(n, 99.0)})
    records.loc[7, "days"] = 97.0
    checked = check_records(MIXED, records)
    assert checked.faults[["record", "item", "rule"]].to_numpy().tolist() == [[7, "days", "out_of_range"]]
    assert "responses" not in vars(checked)
    assert np.shares_memory(np.asarray(checked.cells[0]), records["gap"].to_numpy())
    records.loc[:, "gap"] = 1.0
    records["days"] += 1
    assert checked.responses["gap"].eq(9).all()
    assert checked.responses["days"].isna().sum() == 1
    assert checked.responses["days"].max() == 12
    assert checked.responses["mean"].isna().all()
    assert (checked.missing_reasons["mean"] == "refused").all()
