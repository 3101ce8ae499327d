"""`summative instruments`: list, check, show; and the pages that show writes."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from desk.command_line import app
from tasks.definitions import check_instrument, list_instruments, load_instrument
from tasks.instrument_pages import write_instrument_page, write_sample_form
from tasks.settings import PROJECT, read_settings

INSTRUMENTS = list_instruments(PROJECT / "instruments")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the instruments, which the settings lead to."""
    shutil.copytree(PROJECT / "instruments", tmp_path / "instruments")
    monkeypatch.setenv("SUMMATIVE_INSTRUMENTS", str(tmp_path / "instruments"))
    monkeypatch.setenv("SUMMATIVE_DATA_FOLDER", str(tmp_path / "out"))
    read_settings.cache_clear()
    yield tmp_path
    read_settings.cache_clear()


def call(*words: str) -> Result:
    return CliRunner().invoke(app, ["instruments", *words])


def change(desk: Path, file: str, old: str, new: str) -> None:
    path = desk / "instruments" / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def read_text(page: bytes) -> str:
    """What a reader sees, without tags."""
    body = re.sub(r"<style>.*?</style>", "", page.decode(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)).replace("&#39;", "'").replace("&amp;", "&")


def test_the_measures_of_the_field_are_there():
    assert {
        "eq5d3l", "eq5d5l", "eq5dy", "ascot_sct4", "ascot_carer", "ascs", "sace", "ghq12", "icecap_o", "swemwbs",
        "wemwbs", "ons4", "pam", "self_rated_health", "who5", "service_use", "sociodemographics", "adas_cog",
        "cibic_plus", "dad", "mmse", "npi_x", "hachinski",
    } <= set(INSTRUMENTS)  # fmt: skip


def test_which_scales_are_reflective():
    """Never a measure that is weighed by preferences, or that counts: there agreement of items means nothing."""
    instruments = [load_instrument(name, PROJECT / "instruments") for name in INSTRUMENTS]
    assert {scale.id for instrument in instruments for scale in instrument.scales if scale.reflective} == {
        "adas_cog_11", "dad_total", "ghq12_likert", "swemwbs_raw", "wemwbs_total", "who5_raw",
    }  # fmt: skip


def test_no_two_instruments_share_a_name():
    """A column of a wide table is of one instrument."""
    instruments = [load_instrument(name, PROJECT / "instruments") for name in INSTRUMENTS]
    for names in ([i.item_ids for i in instruments], [i.scale_ids for i in instruments]):
        counted = Counter(name for of_one in names for name in of_one)
        assert [name for name, n in counted.items() if n > 1] == []
    titles = [instrument.sheet_title.casefold() for instrument in instruments]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_every_folder_is_in_order(name: str):
    assert check_instrument(name, PROJECT / "instruments").faults == ()


def test_list(desk: Path):
    result = call("list")
    assert result.exit_code == 0
    assert all(name in result.output for name in INSTRUMENTS)
    change(desk, "ghq12/definition.toml", "maximum = 36", "maximum = 35")
    assert "1 instrument with faults" in call("list").output


def test_check_says_that_all_is_well_and_what_to_know(desk: Path):
    result = call("check")
    assert result.exit_code == 0
    assert f"{len(INSTRUMENTS)} definitions in order, every worked example met." in result.output
    assert "instruments/ascot_sct4: on the form easy_read: The weights were elicited" in result.output
    assert "instruments/service_use: no unit_costs.csv, so no costs are computed." in result.output


def test_check_tells_the_faults_of_all_at_once(desk: Path):
    change(desk, "ghq12/definition.toml", "maximum = 36", "maximum = 35")
    change(desk, "swemwbs/definition.toml", "20 = 18.59", "20 = 18.95")
    change(desk, "eq5d5l/value_sets/uk_2026.csv", "11112,0.959\n", "")
    (desk / "instruments" / "pam" / "notes.txt").write_text("call the vendor", encoding="utf-8")
    (desk / "instruments" / "dad" / ".DS_Store").write_bytes(b"\0")
    result = call("check")
    assert result.exit_code == 1
    for told in (
        "instruments/ghq12: scale ghq12_likert: maximum is 35, but by its items the score can reach 36.",
        'instruments/swemwbs: worked example "raw sum 20": swemwbs_metric must be 18.59, and comes out as 18.95.',
        "instruments/eq5d5l: value_sets/uk_2026.csv: 1 of 3,125 values are missing. Each profile needs one.",
        "instruments/pam/notes.txt: nothing reads this file.",
        f"3 faults in {len(INSTRUMENTS)} definitions.",
    ):
        assert told in result.output
    assert call("check", "mmse").exit_code == 0
    assert call("check", "ghq12").exit_code == 1


@pytest.mark.parametrize("command", ["check", "show"])
def test_an_instrument_that_is_not_there(desk: Path, command: str):
    result = call(command, "ghq_12")
    assert result.exit_code == 2
    assert "ghq12" in result.output


def test_show(desk: Path):
    result = call("show", "eq5d5l")
    assert result.exit_code == 0
    assert "eq5d5l_dsu_uk" in result.output
    assert "(default)" in result.output
    folder = desk / "out" / "instruments" / "eq5d5l"
    assert {path.name for path in folder.iterdir()} == {"codebook.html", "form.html"}
    assert (folder / "codebook.html").read_bytes() == write_instrument_page(load_instrument("eq5d5l"))
    assert call("show", "eq5d5l").exit_code == 0  # once more, over what is there


def test_show_with_faults(desk: Path):
    change(desk, "ghq12/definition.toml", "maximum = 36", "maximum = 35")
    result = call("show", "ghq12")
    assert result.exit_code == 1
    assert not (desk / "out" / "instruments").exists()


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_the_page_says_all_and_the_form_asks_all(name: str):
    instrument = load_instrument(name, PROJECT / "instruments")
    page, form = (read_text(write(instrument)) for write in (write_instrument_page, write_sample_form))
    group_of = {name: f"{group.label}: " for group in instrument.choice_groups for name in group.items}
    for item in instrument.items:
        assert f" {item.id} " in page
        assert item.label in page
        assert item.label.removeprefix(group_of.get(item.id, "")) in form
    for scale in instrument.scales:
        assert f" {scale.id} " in page
    for value_set in instrument.value_sets:
        assert value_set.citation in page
    for words in [*(rule.says for rule in instrument.rules), *(caution.text for caution in instrument.cautions)]:
        assert words in page
    assert instrument.licence in page
    assert instrument.licence in form
    assert "{{" not in page + form


def test_the_form_numbers_questions_and_says_who_is_asked():
    form = read_text(write_sample_form(load_instrument("service_use", PROJECT / "instruments")))
    assert '9. Hospital inpatient, nights Only if question 8 is "yes".' in form.replace("&#34;", '"')
    assert "Think of the last 6 months." in form
    form = read_text(write_sample_form(load_instrument("sociodemographics", PROJECT / "instruments")))
    assert "6. Age on leaving full-time education Only on the standard form." in form
    assert "7. Long-term conditions Tick all that apply. Tick None of these alone." in form


def test_costs_of_a_study_that_supplies_them(desk: Path):
    """Two items of one table: what the page says of it, and that the definition asks for the others."""
    file = desk / "instruments" / "service_use" / "unit_costs.csv"
    items = [item.id for item in load_instrument("service_use").items if item.type == "number"]
    rows = [f"{item},{n}.50,contact,2021/22,Edition of 2022,Table {n}" for n, item in enumerate(items, start=1)]
    file.write_text("item,unit_cost,unit,price_year,edition,source\n" + "\n".join(rows) + "\n", encoding="utf-8")
    instrument = load_instrument("service_use")
    scale = instrument.find_scale("su_cost")
    assert scale is not None
    assert scale.weights["su_home_care"] == (items.index("su_home_care") + 1.5) * 26
    page = read_text(write_instrument_page(instrument))
    assert "Prices of 2021/22, from Edition of 2022." in page
    assert "su_gp contact 1.50" in page
    file.write_text(file.read_text(encoding="utf-8").replace("su_gp", "su_dentist"), encoding="utf-8")
    output = call("check", "service_use").output
    assert 'unit_costs.csv, line 2: "su_dentist" is no item that counts.' in output
    assert "scale su_cost: unit_costs.csv says nothing about su_gp." in output
