"""The report on attrition: its numbers, its words on any data, its files, and what it says of bad input."""

import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import cache
from html import unescape
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from matplotlib import path
from typer.testing import CliRunner

from desk.command_line import app
from study.analysis_tables import derive_wide_layout
from study.attrition import Gap, derive_attrition_rows
from study.attrition_models import (
    WEIGHT_STATUSES,
    choose_characteristics,
    derive_design,
    derive_differential,
    derive_losses,
    derive_weight_columns,
    derive_weights,
)
from study.flow import LOSSES, derive_disposition_rows, derive_flow_boxes
from study.masking import mask_arms, mask_study
from study.protocol import Arm, PowerBasis, PowerValue, Study
from study.state import Events, Head
from tasks.attrition import load_boundary
from tasks.attrition_figures import FIGURE_COLUMNS
from tasks.attrition_page import AttritionReport, derive_report_figures, list_sections, write_attrition_report
from tasks.attrition_parts import Bullets, Grid, Plot, Section, Words
from tasks.attrition_plots import NARROW, WIDE, draw_boundary, draw_love, find_ticks
from tasks.attrition_wording import Material
from tasks.definitions import load_instruments, load_study
from tasks.drawing import measure
from tasks.flow_diagram import describe_for_page
from tasks.pdf import UNKNOWN_SIGN, make_printable
from tasks.releases import freeze_release
from tests.attrition_histories import END, make_rows, tell_pilot
from tests.provide import find_pdftotext
from tests.releases import BY, fill_study, open_study
from tests.test_pages import browser, look_at
from tests.wave_histories import make_study

__all__ = ["browser"]
AS_OF, KNOWN_AT = date(2019, 1, 1), datetime(2019, 1, 2, 6, 30, tzinfo=UTC)
HEAD = Head(7, "ab" * 32)
MAIN = "w1"
ATTRITION_FILES = ("attrition.html", "attrition.pdf", "attrition.csv")
LOST = {"in": False, "reason": "withdrew", "kind": "loss", "left_on": "2017-05-01", "left_kind": "loss"}


@cache
def study_of(n_arms: int = 2, allocation: str = "randomised", label: str = "Arm") -> Study:
    """A study whose comparison is at w1, by the participants themselves, and that states its power."""
    study = make_study()
    arms = tuple(
        Arm(id=f"arm_{n}", label=f"{label} {n}", role="intervention" if n else "comparison") for n in range(n_arms)
    )
    waves = tuple(wave.model_copy(update={"id": f"w{n}"}) for n, wave in enumerate(study.waves))
    figure = {name: PowerValue(value=value, source="Made up.") for name, value in
              (("sd", 2.0), ("icc", 0.02), ("baseline_correlation", 0.5), ("power", 0.8), ("alpha", 0.05))}  # fmt: skip
    basis = PowerBasis(
        id="mood", label="Mood", instrument="mood", scale="total", respondents=("self",), wave=MAIN, **figure
    )  # type: ignore[arg-type]  # of a dict
    sites = tuple(site.model_copy(update={"allocation": None}) for site in study.sites)
    return study.model_copy(
        update={"arms": arms, "allocation": allocation, "waves": waves, "sites": sites, "power": (basis,)}
    )


def told_of(rows: pd.DataFrame, characteristics: pd.DataFrame | None = None) -> pd.DataFrame:
    ids = sorted(set(rows["participant_id"]))
    if characteristics is not None:
        return characteristics.reindex(ids)
    return pd.DataFrame({"age": np.random.default_rng(4).normal(70, 9, len(ids))}, ids)


def draw_up(rows: pd.DataFrame, study: Study, characteristics: pd.DataFrame | None = None) -> list[Section]:
    people = derive_disposition_rows(study, Events({}), AS_OF)
    flow = describe_for_page(people, derive_flow_boxes(people, study), study)
    found = derive_report_figures(study, rows, told_of(rows, characteristics), people, AS_OF)
    return list_sections(Material(study, {}, rows, people, found, flow, AS_OF, "r"))


def write(rows: pd.DataFrame, study: Study, characteristics: pd.DataFrame | None = None) -> AttritionReport:
    people = derive_disposition_rows(study, Events({}), AS_OF)
    return write_attrition_report(
        study=study, instruments={}, rows=rows, characteristics=told_of(rows, characteristics), people=people,
        flow=describe_for_page(people, derive_flow_boxes(people, study), study), as_of=AS_OF, known_at=KNOWN_AT,
        head=HEAD, release="r",
    )  # fmt: skip


def read_words(sections: list[Section], *ids: str) -> str:
    """The words of sections, without tags."""
    parts: list[str] = []
    for section in sections:
        if ids and section.id not in ids:
            continue
        for block in section.blocks:
            if isinstance(block, Words):
                parts += block.paragraphs
            elif isinstance(block, Bullets):
                parts += block.lines
            elif isinstance(block, Grid):
                parts += [block.caption, *block.head, *(cell for row in block.rows for cell in row)]
    return unescape(re.sub(r"<[^>]*>", "", "\n".join(parts))).replace("\xa0", " ")


# The pilot trial ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pilot() -> tuple[Study, pd.DataFrame, AttritionReport]:
    study, events = tell_pilot()
    return (
        study,
        derive_attrition_rows(study, events, END),
        write_pilot(study, derive_attrition_rows(study, events, END)),
    )


@cache
def tell_dispositions() -> pd.DataFrame:
    return derive_disposition_rows(*tell_pilot(), END)


def write_pilot(study: Study, rows: pd.DataFrame, letters: Mapping[str, str] | None = None) -> AttritionReport:
    people = tell_dispositions()
    if letters:
        people = mask_arms(people, letters)
    ids = sorted(set(rows["participant_id"]))
    values = np.arange(float(len(ids)))
    made = pd.DataFrame({"adas_cog.adas_cog_11": np.cos(values), "dad.dad_total (carer)": np.sin(values)}, ids)
    return write_attrition_report(
        study=study, instruments=load_instruments(study), rows=rows, characteristics=made, people=people,
        flow=describe_for_page(people, derive_flow_boxes(people, study), study), as_of=END, known_at=KNOWN_AT,
        head=HEAD, release="2015-12-31", is_blinded=bool(letters),
    )  # fmt: skip


def test_the_page_of_the_pilot_trial_says_what_the_frame_says(
    pilot: tuple[Study, pd.DataFrame, AttritionReport],
) -> None:
    _, rows, report = pilot
    words = unescape(re.sub(r"<[^>]*>", "", report.page.decode())).replace("\xa0", " ")
    own = rows[(rows["wave"] == "week_24") & (rows["respondent"] == "self") & (rows["arm"] != "not_allocated")]
    expected = own[own["is_expected"]]
    assert (len(expected), int(expected["is_returned"].sum())) == (252, 116)
    assert "254 people are in 3 arms at 17 sites; 52 more people are known and in no arm." in words
    assert "At Week 24, 116 of 252 whose window is over answered: 46.0 % (95 % interval 40.0 to 52.2 %)" in words
    assert "136 people who were expected will not answer: Adverse event 91," in words
    assert "By arm: Placebo 69.4 % (59 of 85)," in words
    assert "high by both limits" in words
    assert "25 more answers in Xanomeline High Dose would bring it to the cautious limit" in words
    for number in ("2,521", "1,594", "1,356", "959", "80 %", "88 %", "97 %"):
        assert number in words
    assert "What Works Clearinghouse. Procedures and Standards Handbook, version 4.1. 2020." in words


def test_the_page_asks_for_nothing_and_reads_without_seeing(
    pilot: tuple[Study, pd.DataFrame, AttritionReport],
) -> None:
    page = pilot[2].page.decode()
    assert "<script" not in page
    assert "http" not in page
    assert re.findall(r'(?:src|href)="(?!#|attrition\.(?:csv|pdf)")[^"]*"', page) == []
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    drawn = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawn) == 10  # five figures, each wide and narrow
    assert all('role="img"' in svg and "<title" in svg and "<desc" in svg for svg in drawn)
    tables = re.findall(r"<table>.*?</table>", page, re.DOTALL)
    assert len(tables) > 8
    assert all("<caption>" in table and 'scope="col"' in table and 'scope="row"' in table for table in tables)
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    for svg in drawn:
        root = ElementTree.fromstring(svg)
        width = float(root.attrib["width"])
        for text in root.iter("text"):
            assert 0 <= float(text.attrib["x"]) <= width


def test_the_figures_add_up_and_hold_what_the_page_shows(pilot: tuple[Study, pd.DataFrame, AttritionReport]) -> None:
    _, rows, report = pilot
    figures = pd.read_csv(BytesIO(report.figures), keep_default_na=False, dtype=str)
    assert tuple(figures.columns) == FIGURE_COLUMNS
    figures["value"] = pd.to_numeric(figures["value"])
    returns = figures[(figures["figure"] == "returns") & (figures["quantity"] == "n_expected")]
    dimensions = ["wave", "arm", "site", "cohort", "respondent"]
    divided_by = returns[dimensions].ne("").sum(axis="columns")
    for depth in (0, 1, 5):
        own = returns[divided_by == depth]
        groups = own.groupby(own[dimensions].ne("").apply(tuple, axis="columns"))["value"].sum()
        assert set(groups) == {rows["is_expected"].sum()}, depth
    deep = returns[divided_by == 5].set_index(dimensions)["value"]
    assert not deep.index.duplicated().any()
    own = rows[(rows["wave"] == "week_24") & (rows["arm"] == "placebo") & (rows["site"] == "701")]
    own = own[own["respondent"] == "self"]
    assert deep["week_24", "placebo", "701", own["cohort"].iloc[0], "self"] == own["is_expected"].sum() > 0
    named = set(figures["figure"])
    assert named == {
        "returns", "reasons", "people", "patterns", "time_to_loss", "time_to_loss_at", "differential", "equivalence",
        "lost_and_stayed", "model_of_loss", "weights", "detectable", "other_studies",
    }  # fmt: skip
    silent = figures[figures["value"].isna() & (figures["note"] == "")]
    assert set(silent["figure"]) <= {"equivalence", "lost_and_stayed", "differential", "model_of_loss", "detectable"}


def test_the_same_report_has_the_same_bytes(pilot: tuple[Study, pd.DataFrame, AttritionReport]) -> None:
    study, rows, report = pilot
    assert write_pilot(study, rows.copy()) == report
    assert report.paper.startswith(b"%PDF-1.")
    assert b"/CreationDate (D:20190102063000" in report.paper
    assert b"/Lang (en-GB)" in report.paper
    assert b"DejaVuSans" in report.paper
    assert b"/Helvetica" not in report.paper  # every font stands in the file


def test_a_blinded_report_shows_letters_and_never_an_arm(pilot: tuple[Study, pd.DataFrame, AttritionReport]) -> None:
    study, rows, open_report = pilot
    letters = {"placebo": "B", "low_dose": "A", "high_dose": "C"}
    main = study.main_analysis[0].model_copy(update={"label": "ADAS-Cog on high dose"})
    telling = study.model_copy(update={"main_analysis": (main,)})
    report = write_pilot(mask_study(telling, letters), mask_arms(rows, letters), letters)
    page, open_page = report.page.decode(), open_report.page.decode()
    assert "Analysed: ADAS-Cog on [arm]" in re.sub(r"</text>\s*<text[^>]*>", " ", page)
    for word in ("placebo", "low_dose", "high_dose", "Low Dose", "High Dose"):
        assert word not in page
        assert word not in report.figures.decode()
    assert "Placebo" in open_page
    assert "letters stand for the arms" in page
    assert all(f"Arm {letter}" in page for letter in "ABC")


def test_the_flow_the_sentences_and_the_figures_are_of_one_frame(
    pilot: tuple[Study, pd.DataFrame, AttritionReport],
) -> None:
    """What stands in the released table of dispositions gives the people of the comparison, arm by arm."""
    study, _, report = pilot
    figures = pd.read_csv(BytesIO(report.figures), keep_default_na=False)
    own = figures[figures["figure"].eq("people") & figures["arm"].ne("") & figures["site"].eq("")]
    own = own[own["cohort"].eq("")].pivot(index="arm", columns="quantity", values="value").astype("float64")
    people = tell_dispositions().dropna(subset="arm")
    came, lost = people["follow_up"].isin(("followed_up", "not_answered")), people["follow_up"].isin(LOSSES)
    by_arm = people.assign(came=came, lost=lost).groupby("arm")[["came", "lost", "analysed"]].sum().astype(int)
    assert own["n_returned"].to_dict() == by_arm["came"].to_dict() == {"high_dose": 30, "low_dose": 27, "placebo": 59}
    n = people.groupby("arm").size()
    assert (own["n_expected"] + own["n_died"]).to_dict() == n.to_dict()
    told = figures[figures["figure"].eq("reasons") & figures["wave"].eq("week_24") & figures["quantity"].eq("n")]
    told = told[told["respondent"].eq("self") & told["site"].ne("") & told["arm"].isin(n.index)]
    counted = told.groupby(["arm", "item"])["value"].apply(lambda values: int(values.astype("float64").sum()))
    died = people[people["follow_up"] == "died"].groupby("arm").size() - own["n_died"]
    stated = people[people["follow_up"].isin(("lost", "excluded"))].groupby(["arm", "follow_up_reason"]).size()
    deaths = counted[counted.index.get_level_values("item") == "death"]
    assert counted.drop(index=deaths.index).to_dict() == stated.to_dict()
    assert deaths.droplevel("item").to_dict() == died[died > 0].astype(int).to_dict()
    page = unescape(report.page.decode())
    for arm in study.arms:
        came, lost, analysed = by_arm.loc[arm.id]
        assert f"{arm.label}: allocated {n[arm.id]}, lost to follow-up {lost}, analysed {analysed}" in page
        assert f"{arm.label} {100 * came / own.loc[arm.id, 'n_over']:.1f}\xa0% ({came} of " in page


def test_counts_are_whole_and_shares_have_decimals(pilot: tuple[Study, pd.DataFrame, AttritionReport]) -> None:
    figures = pd.read_csv(BytesIO(pilot[2].figures), keep_default_na=False, dtype=str)
    figures = figures[figures["value"] != ""]
    has_point = figures["value"].str.contains(".", regex=False)
    is_count = figures["quantity"].str.match("(n|lost|missing|more|is)(_|$)")
    at_end = figures["figure"].eq("detectable") & figures["item"].str.endswith(", end")
    assert not has_point[is_count & ~at_end].any()
    assert has_point[~is_count].all()
    assert {"100.0", "80.0"} <= set(figures.loc[~is_count, "value"])


def test_the_paper_says_what_the_page_says(pilot: tuple[Study, pd.DataFrame, AttritionReport], tmp_path: Path) -> None:
    if find_pdftotext() is None:
        pytest.skip("pdftotext is not here: apt-get install poppler-utils")
    paper = tmp_path / "attrition.pdf"
    paper.write_bytes(pilot[2].paper)

    def read(*pages: str) -> str:
        done = subprocess.run(["pdftotext", *pages, str(paper), "-"], capture_output=True, text=True, check=True)
        return re.sub(r"[\s•]", "", done.stdout)

    whole, page = read(), pilot[2].page.decode()
    lines = re.findall(r"<li>(?!<a |<b>\d)(.*?)</li>", page, re.DOTALL) + re.findall(r"<p>(.*?)</p>", page, re.DOTALL)
    lines = [re.sub(r"\s", "", unescape(re.sub("<[^>]*>", "", line))) for line in lines]
    assert len(lines) > 30
    assert [line for line in lines if line not in whole and "attrition.csv" not in line] == []
    first = read("-l", "1")  # the answer, and how it came about wave by wave
    assert "116of252" in first
    assert "percentofexpectedreturnsthatarein" in first


# Words on any data --------------------------------------------------------------------------------------------------

FATES: dict[str, dict[str, Any]] = {
    "in": {},
    "lost": LOST,
    "missed": {"in": False},
    "died": {"in": False, "reason": "died", "kind": "death", "left_on": "2017-06-15", "left_kind": "death"},
    "died_before": {"why": "died", "left_on": "2017-02-01", "left_kind": "death"},
    "ineligible": {"why": "ineligible"},
    "awaited": {"in": False, "reason": "awaited"},
    "early": {"is_over": False},
    "not_due": {"why": "not_due"},
}


@given(
    fates=st.lists(st.tuples(st.sampled_from(list(FATES)), st.integers(0, 2), st.integers(0, 3)), max_size=24),
    n_arms=st.integers(1, 3),
    allocation=st.sampled_from(["randomised", "matched"]),
)
@settings(max_examples=12, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
def test_no_sentence_contradicts_the_data(fates: list[tuple[str, int, int]], n_arms: int, allocation: str) -> None:
    rows = make_rows(
        {"person": f"P{n}", "arm": f"arm_{arm % n_arms}", "site": f"s{site}", "wave": MAIN, **FATES[fate]}
        for n, (fate, arm, site) in enumerate(fates)
    )
    sections = draw_up(rows, study_of(n_arms, allocation))
    words, summary = read_words(sections), read_words(sections, "summary")
    assert not re.search(r"\b(nan|None|NaT|inf|Gap)\b", words)
    assert not re.search(r"(?<![\d,.])1 (people|persons|returns|more answers|figures|were|are|sites|arms)\b", words)
    assert not re.search(r"(?<![\d,.])[02-9] (person|figure|site|arm)\b", words)
    rows = rows.astype(dict.fromkeys(("is_expected", "is_over", "is_returned"), bool))
    own = rows[rows["is_expected"]]
    over, returned = own[own["is_over"]], own[own["is_returned"]]
    kept = over[over["is_returned"]]
    n_people = rows["participant_id"].nunique()
    assert (f"{n_people} {'person is' if n_people == 1 else 'people are'} in" in summary) == (n_people > 0)
    assert ("Nobody has joined an arm yet" in summary) == (n_people == 0)
    assert (f"{len(kept)} of {len(over)} whose window is over" in summary) == (len(over) > 0)
    assert ("No window is over yet" in summary) == (len(over) == 0 and len(own) > 0)
    assert ("Nothing is expected of anybody" in summary) == (len(own) == 0)
    n_missing = len(own) - len(returned) - int((own["reason"] == "awaited").sum())
    stated = re.search(r"(\d+) (?:person|people) who (?:was|were) expected will not answer: (.*)\.", summary)
    assert (stated is not None) == (n_missing > 0)
    if stated is not None:
        assert int(stated[1]) == n_missing
        assert sum(int(n) for n in re.findall(r" (\d+)(?=,| and|$)", stated[2])) == n_missing
    assert ("Nobody who was expected is missing." in summary) == (len(own) > 0 and n_missing == 0)
    assert ("What Works Clearinghouse for randomised studies" in summary) <= (allocation == "randomised" and n_arms > 1)
    gaps = next(section for section in sections if section.id == "gaps").blocks[0]
    n_gaps = len(gaps.lines) if isinstance(gaps, Bullets) else 0
    counted = re.search(r"(\d+) figures? (?:is|are) not given", summary)
    assert (int(counted[1]) if counted else 0) == n_gaps
    lost = re.search(r"(\d+) (?:person was|people were) lost at .* and (\d+) stayed", summary)
    if lost is not None:
        alive = over[over["reason_kind"] != "death"]
        assert (int(lost[1]), int(lost[2])) == (int((~alive["is_returned"]).sum()), len(kept))


# Bad input ----------------------------------------------------------------------------------------------------------


def spread(n_sites: int = 6, n: int = 60, **usual: Any) -> list[dict[str, Any]]:
    return [
        {"person": f"P{k:03}", "arm": f"arm_{k % 2}", "site": f"s{k // 2 % n_sites}", "in": k % 5 > 0, "wave": MAIN,
         **usual}
        for k in range(n)
    ]  # fmt: skip


USUAL = spread()


def ask(rows: list[dict[str, Any]], n_arms: int = 2, characteristics: pd.DataFrame | None = None) -> str:
    """The words of the report of bad input; its three files can be written."""
    frame, study = make_rows(rows), study_of(n_arms)
    report = write(frame, study, characteristics)
    assert report.paper.startswith(b"%PDF")
    assert len(report.figures) > 100
    page = unescape(re.sub(r"<style>.*?</style>|<[^>]*>", "", report.page.decode(), flags=re.DOTALL))
    assert not re.search(r"\b(nan|None|NaT|inf)\b", page)
    return page.replace("\xa0", " ")


def test_an_empty_study_gives_a_report_of_named_gaps() -> None:
    words = ask([])
    assert "Nobody has joined an arm yet." in words
    assert "Study: Nothing is expected of anybody yet: no participant has joined." in words


def test_one_arm_is_not_compared() -> None:
    words = ask(spread(arm="arm_0"), 1)
    assert "The study has one arm: there is nothing to compare it with." in words
    assert "The arms are up to" not in words


def test_an_arm_with_nobody_left_is_named() -> None:
    words = ask([{**row, **(LOST if row["arm"] == "arm_1" else {})} for row in USUAL])
    assert "Arm 1: Everybody in this arm has left." in words


def test_a_wave_without_returns_is_named() -> None:
    words = ask(spread(**{"in": False}))
    assert "Nothing of this wave has come back." in words
    assert "Everybody is lost: nobody stayed to compare them with." in words


def test_a_site_with_one_participant_is_named() -> None:
    words = ask([{**USUAL[0], "site": "alone"}, *USUAL[1:]])
    assert "Sites: 1 site has one participant: nothing varies within." in words


def test_all_missing_at_the_baseline_leaves_a_model_of_arms() -> None:
    ids = [row["person"] for row in USUAL]
    assert "Nobody's value is known, left out: score." in ask(USUAL, 2, pd.DataFrame({"score": np.nan}, ids))


def test_constant_scores_have_no_standard_deviation() -> None:
    words = ask(USUAL, 2, pd.DataFrame({"score": 4.0}, [row["person"] for row in USUAL]))
    assert "Everybody within a group has the same value: there is no standard deviation." in words
    assert "Does not vary, or follows from the others, left out: score." in words


def test_a_participant_in_two_arms_is_in_neither_and_named() -> None:
    words = ask([*USUAL, {**USUAL[0], "arm": "arm_1", "wave": "w2"}])
    assert "1 participant stands in more than one arm and in no arm's figures." in words
    assert "59 people are in 2 arms" in words


def test_separation_gives_no_odds_and_no_weights() -> None:
    pets = pd.DataFrame({"pet": ["cat" if row["in"] else "rabbit" for row in USUAL]}, [row["person"] for row in USUAL])
    words = ask(USUAL, 2, pets)
    assert "Loss is separated by pet: rabbit" in words
    assert words.count("so no odds ratio is finite and none is given") >= 2  # the model, and the weights


def test_forty_arms_are_tables_without_plots() -> None:
    rows = [{**row, "arm": f"arm_{k % 40}", "in": k // 40 % 3 > 0} for k, row in enumerate(spread(n=200))]
    words = ask(rows, 40)
    assert "40 arms are more than one can show apart" in words
    assert "Of 39 comparisons" in words
    assert "Arm 39" in words


@pytest.mark.parametrize("label", ["治療群 😀 «Ä» & <arm>", "x" * 500, "A budget with a very long name " * 16])
def test_labels_of_any_script_and_length_are_shown(label: str) -> None:
    study = study_of(2, "randomised", label)
    report = write(make_rows(spread()), study)
    assert report.paper.startswith(b"%PDF")
    page = unescape(report.page.decode())
    assert label[:20] in page
    assert not re.search(r"&amp;(?:amp|lt|gt|#\d+|#x\w+);", report.page.decode())  # escaped once
    for svg in re.findall(r"<svg.*?</svg>", report.page.decode(), re.DOTALL):
        root = ElementTree.fromstring(svg)
        width = float(root.attrib["width"])
        for text in (text for text in root.iter("text") if "transform" not in text.attrib):
            size = measure("".join(text.itertext()), float(text.attrib.get("font-size", "12")))
            share = {"start": 0.0, "middle": 0.5, "end": 1.0}[text.attrib.get("text-anchor", "start")]
            left = float(text.attrib["x"]) - share * size
            assert left > -12
            assert left + size < width + 12
    assert make_printable("Ä治\x07") == f"Ä{UNKNOWN_SIGN}{UNKNOWN_SIGN}"


# Sections -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_arms", [2, 6, 7])
def test_two_to_six_arms_are_drawn_and_more_are_tables(n_arms: int) -> None:
    rows = make_rows([{**row, "arm": f"arm_{k % n_arms}", "in": k // n_arms % 3 > 0} for k, row in enumerate(USUAL)])
    sections = {section.id: section for section in draw_up(rows, study_of(n_arms))}
    drawn = {name for name, section in sections.items() if any(isinstance(block, Plot) for block in section.blocks)}
    assert drawn == ({"summary", "flow", "differential", "lost", "time"} if n_arms <= 6 else {"differential", "lost"})
    for name in drawn & {"summary", "flow", "time"}:
        for block in sections[name].blocks:
            if isinstance(block, Plot):
                assert all(block.wide.count(f"Arm {n}") and block.narrow.count(f"Arm {n}") for n in range(n_arms))
    words = read_words(list(sections.values()))
    assert ("7 arms are more than one can show apart" in words) == (n_arms == 7)
    assert ("A figure is drawn for up to 6 arms, and this study has 7." in words) == (n_arms == 7)
    assert all(f"Arm {n}" in words for n in range(n_arms))


@pytest.mark.parametrize("allocation", ["randomised", "matched"])
def test_the_boundary_is_for_randomised_studies_and_equivalence_stands_for_it(allocation: str) -> None:
    sections = draw_up(make_rows(USUAL), study_of(2, allocation))
    words = read_words(sections)
    is_randomised = allocation == "randomised"
    assert ("differential" in [section.id for section in sections]) == is_randomised
    assert "equivalence" in [section.id for section in sections]
    assert ("no boundary of attrition applies; this stands for it" in words) == (not is_randomised)
    assert ("Reported in the terms of CONSORT 2025." in words) == is_randomised
    assert ("Reported in the terms of TREND and STROBE." in words) == (not is_randomised)


STANDARDS = {"CONSORT": "Hopewell", "STROBE": "von Elm", "TREND": "Des Jarlais"}


@pytest.mark.parametrize("rows", [[], USUAL])
@pytest.mark.parametrize("allocation", ["randomised", "matched"])
def test_the_methods_cite_what_they_name_and_nothing_else(rows: list[dict[str, Any]], allocation: str) -> None:
    section = next(one for one in draw_up(make_rows(rows), study_of(2, allocation)) if one.id == "methods")
    told, _, references = section.blocks
    text, cited = " ".join(told.paragraphs), [unescape(line) for line in references.lines]
    named = re.findall(r"([A-Z][^\W\d_]+)(?:(?:,| and) [A-Z][^\W\d_]+)*(?:'s)? \(?((?:19|20)\d\d)", text)
    named = [(name, year) for name, year in named if name not in ("January", "CONSORT")]  # the day of the report
    named += [(author, "") for name, author in STANDARDS.items() if name in text]
    assert [pair for pair in named if not any(all(part in line for part in pair) for line in cited)] == []
    assert [line for line in cited if not any(name in line and year in line for name, year in named)] == []
    assert len(cited) == (13 if rows else 3) + (1 if allocation == "randomised" else 2)
    assert ("Stabilised inverse-probability weights" in text) == bool(rows)


def test_the_detectable_effect_is_given_by_cohort_with_its_sources() -> None:
    study = study_of()
    cohorts = [cohort.label for cohort in study.cohorts[:2]]
    rows = [
        {**row, "cohort": study.cohorts[k % 2].id, "why": "not_due" if k % 10 == 9 else ""}
        for k, row in enumerate(USUAL)
    ]
    words = read_words(draw_up(make_rows(rows), study), "detectable")
    for told in ("Everybody", *cohorts, "had nobody been lost", "with the returns that are in", "at the end"):
        assert told in words
    for source in ("Standard deviation 2: Made up.", "ICC of sites 0.02: Made up.", "Correlation with the baseline 0.5",
                   "Power 0.8: Made up.", "Alpha, two-sided 0.05: Made up."):  # fmt: skip
        assert source in words
    assert "Design effect" in words


# Weights ------------------------------------------------------------------------------------------------------------


def test_the_weights_column_says_of_everybody_whether_and_why_not() -> None:
    fates = {**{f"P{n:03}": "in" for n in range(40)}, **{f"P{n:03}": "lost" for n in range(40, 60)}}
    fates |= {"Q_died": "died", "Q_before": "died_before", "Q_not": "ineligible", "Q_open": "awaited"}
    rows = make_rows(
        {"person": name, "arm": f"arm_{n % 2}", "wave": MAIN, **FATES[fate]}
        for n, (name, fate) in enumerate(fates.items())
    )
    made = told_of(rows)
    made.iloc[0, 0] = np.nan
    people = pd.Series([*fates, "Q_nowhere"])
    weights = derive_weights(derive_losses(rows, MAIN, ("self",)), made, "arm_0")
    assert not isinstance(weights, Gap)
    columns = derive_weight_columns(people, rows, weights, MAIN, ("self",)).set_index(people)
    status = columns["attrition_weight_status"]
    assert status["P000"] == "no_baseline_value"
    assert set(status["P001":"P039"]) == {"weighted"}  # type: ignore[misc]  # labels, in order
    assert set(status["P040":"P059"]) == {"lost"}  # type: ignore[misc]  # labels, in order
    assert status["Q_died":].tolist() == ["died", "died", "not_expected", "not_over", "not_in_arm"]  # type: ignore[misc]  # labels, in order
    assert (columns["attrition_weight"].notna() == (status == "weighted")).all()
    given = weights.people.set_index("participant_id")["weight"].dropna()
    pd.testing.assert_series_equal(
        columns["attrition_weight"].dropna(), given.round(6), check_names=False, check_index=False
    )
    assert set(status) <= set(WEIGHT_STATUSES)
    none = derive_weight_columns(people, rows, Gap("weights", "No."), MAIN, ("self",))
    assert none["attrition_weight"].isna().all()
    assert (none["attrition_weight_status"] == "no_model").sum() == 40


def test_the_codebook_has_the_recipe_of_the_weights() -> None:
    study = load_study("cdisc_pilot")
    columns = {column.name: column for column in derive_wide_layout(study, load_instruments(study)).columns}
    note = columns["attrition_weight"].note
    assert "Week 24 (self)" in note
    assert "1st and 99th percentile" in note
    assert columns["attrition_weight_status"].codes == "attrition_weight_status"


def test_who_answers_in_the_participants_place_counts_for_them_in_models() -> None:
    study = load_study("ipc")
    known = pd.DataFrame(
        {
            "eq5d5l.eq_vas": [50.0, np.nan],
            "eq5d5l.eq_vas (proxy)": [np.nan, 40.0],
            "ons4.ons_worth (carer)": [1.0, np.nan],
        },
        ["P1", "P2"],
    )
    chosen = choose_characteristics(study, known, ("self", "proxy"))
    assert chosen["eq5d5l.eq_vas"].tolist() == [50.0, 40.0]
    assert list(chosen.columns) == ["eq5d5l.eq_vas", "ons4.ons_worth (carer)"]
    losses = pd.DataFrame({"arm": "a", "site": "s", "cohort": "", "is_lost": False}, ["P1", "P2"])
    design = derive_design(losses, chosen, "a")
    assert design.terms == ["(constant)", "eq5d5l.eq_vas"]
    assert "Known of fewer than 80 % of the people, left out: ons4.ons_worth (carer)." in design.gaps[0].words


# Releases -----------------------------------------------------------------------------------------------------------


def test_a_release_ends_with_the_report_and_the_command_shows_it_before(own_settings: Path) -> None:
    workspace = open_study(own_settings)
    fill_study(workspace)
    n_rows = workspace.ledger.head().seq
    done = CliRunner().invoke(app, ["attrition", "report", "cdisc_pilot"])
    assert done.exit_code == 0, done.output
    assert "pages/attrition.pdf" in done.output
    assert b"Not a release." in workspace.area.get("pages/attrition.html")
    assert workspace.ledger.head().seq == n_rows
    frozen = freeze_release(workspace, date(2013, 3, 1), BY)
    page = workspace.area.get(f"releases/{frozen.release}/attrition.html")
    assert b"Release 2013-03-01: the study as of 1 March 2013" in page
    assert set(ATTRITION_FILES) <= set(frozen.manifest["files"])
    wide = pd.read_csv(BytesIO(workspace.area.get(f"releases/{frozen.release}/data/analysis_wide.csv")))
    assert set(wide["attrition_weight_status"]) <= set(WEIGHT_STATUSES)
    assert (wide["attrition_weight"].notna() == (wide["attrition_weight_status"] == "weighted")).all()


# Plots --------------------------------------------------------------------------------------------------------------


def test_everyone_can_use_the_page(browser: Path, tmp_path: Path) -> None:
    judged = look_at(browser, write(make_rows(USUAL), study_of()).page.decode(), tmp_path)
    for width in ("1280", "375"):
        assert judged[width]["violations"] == []
        assert int(str(judged[width]["width"])) <= int(width)


@given(st.floats(1e-3, 1e6), st.integers(2, 9))
@settings(max_examples=60, deadline=None)
def test_ticks_are_round_and_reach_far_enough(most: float, n: int) -> None:
    ticks = find_ticks(most, n)
    assert ticks[0] == 0
    assert ticks[-1] >= most * (1 - 1e-9)
    assert len(ticks) <= n + 2
    step = ticks[1]
    assert float(f"{step:.2g}") == pytest.approx(step)


@pytest.mark.parametrize("n_lost", [3, 12, 20])
def test_a_pair_of_arms_lies_in_the_field_of_its_verdict(n_lost: int) -> None:
    """Of 100 in each arm, 3 are lost in one and so many more in the other."""
    rows = make_rows(
        {"person": f"{arm}{k}", "arm": f"arm_{arm}", "wave": MAIN, "in": k >= 3 + arm * (n_lost - 3)}
        for arm in (0, 1)
        for k in range(100)
    )
    table = derive_differential(rows, study_of(), load_boundary(), MAIN, ("self",))
    assert isinstance(table, pd.DataFrame)
    drawn = ElementTree.fromstring(draw_boundary("b", table, {"arm_0": "One", "arm_1": "Other"}, load_boundary(), WIDE))
    dot = next(element.attrib for element in drawn if element.tag.endswith("circle"))
    fields = [
        [tuple(map(float, pair.split(","))) for pair in element.attrib["points"].split()]
        for element in drawn
        if element.tag.endswith("polygon")
    ]
    place = (float(dot["cx"]), float(dot["cy"]) - 0.2)  # on the axis is within
    is_low = [path.Path(field).contains_point(place) for field in reversed(fields)]  # the cautious one is drawn last
    verdicts = table[table["of"] == "allocated"].set_index("assumption")["verdict"]
    assert is_low == [verdicts[name] == "low" for name in ("cautious", "optimistic")]
    assert is_low == {3: [True, True], 12: [False, True], 20: [False, False]}[n_lost]


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_love_plot_has_a_dot_for_each_difference_where_it_belongs(width: float) -> None:
    drawn = ElementTree.fromstring(
        draw_love("l", ["one", "two", "three"], [0.3, -0.1, 0.01], "Lost less stayed", width)
    )
    dots = [element for element in drawn if element.tag.endswith("circle")]
    places = [float(dot.attrib["cx"]) for dot in dots]
    zero = places[2] - (places[0] - places[2]) * 0.01 / 0.29
    assert places[1] < zero < places[2] < places[0]
    assert places[0] - zero == pytest.approx(3 * (zero - places[1]), abs=1.5)
    assert [dot.attrib["fill"] for dot in dots][2] == "#ffffff"  # within 0.05
