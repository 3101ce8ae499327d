"""Reports that leave the team: what an external edition counts, and what a monitoring committee is shown.

An external edition publishes three tables that share their counts: the flow of participants, by arm; questionnaires
expected, returned and missing by wave and respondent, for all and by arm, by site and by cohort; and why they are
missing, for all and by arm. Finer crossings are not published: nearly every count of them would be hidden.

Judgement calls:

- Questionnaires are those of people who entered a group, so that these tables and the flow are about the same people.
- Where two tables count the same people under two names, and their numbers agree in every group, a reader is taken to
  know it: the flow's outcomes at a wave and the questionnaires of that wave, for example.
- Percentages are those of the published numbers, and hidden where one of the two is. Means, models and plots are in no
  external edition.
- A committee's reports show exact counts: it decides on safety. What it passes on is an external edition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from study.attrition import MISSED, NOT_KNOWN, REASON_KINDS
from study.disclosure import CELL_COLUMNS, Counts, Protected, make_lines
from study.flow import ALL, derive_flow_boxes, find_main_analysis
from study.protocol import Study

KEPT_APART = "kept_apart"
OUTCOMES = ("expected", "returned", "awaited", "missing")
BY = ("all", "arm", "site", "cohort")
OUTCOME_WORDS: Mapping[str, str] = {
    "expected": "Expected",
    "returned": "Returned",
    "awaited": "Awaited",
    "missing": "Missing",
}
REASON_WORDS: Mapping[str, str] = {
    MISSED: REASON_KINDS["unexplained"],
    KEPT_APART: "It came, and is not in this release",
}

_HARMLESS = (
    *("received", "baseline.in_time", "standing.in", "standing.completed", "treatment.ongoing", "treatment.completed"),
    *("follow_up.followed_up", "follow_up.awaited", "follow_up.not_due", "analysed"),
)
_HARMLESS_ENDS = (
    *(".returned", ".awaited", ".not_due", ".not_approached", ".no_answer", ".consent_awaited", ".not_allocated"),
)
_PASSING_ENDS = (
    *("awaited", ".not_due", ".not_approached", ".no_answer", ".consent_awaited", ".not_allocated"),
    *("standing.in", "treatment.ongoing"),
)
"""People come to these and leave them again."""
_COSTS = {"all": 40.0, "arm": 10.0, "cohort": 10.0, "site": 4.0}
_HEADLINES = ("assessed", "entered", "allocated", "analysed", "follow_up.followed_up", "lost")
_COST_OF_RETURNS, _COST_OF_HEADLINE, _COST_OF_BASIS = 3.0, 15.0, 50.0
"""How many times more it costs to hide what was expected and returned, a figure that everybody looks for, and one that
all others are held against."""


def name_box(box: str, group: str) -> str:
    """The key of a count of the flow."""
    return f"flow|{box}|{group}"


def name_return(wave: str, respondent: str, by: str, group: str, what: str) -> str:
    """The key of a count of questionnaires; `what`: of OUTCOMES, or "missing." and a reason."""
    return f"returns|{wave}|{respondent}|{by}|{group}|{what}"


def find_return_rows(returns: pd.DataFrame, people: pd.DataFrame) -> pd.DataFrame:
    """The questionnaires expected of people who entered a group, from the released tables `returns` and
    `dispositions`: wave, respondent, arm, site, cohort, outcome (of OUTCOMES), reason (of what is missing)."""
    entered = people[people["reached"] == "entered"].set_index("participant_id")
    rows = returns[(returns["expected"] == 1) & returns["participant_id"].isin(entered.index)].reset_index(drop=True)
    is_in, is_awaited = rows["returned"] == 1, rows["reason"] == "awaited"
    outcome = pd.Series("missing", rows.index, dtype="str").mask(is_awaited, "awaited").mask(is_in, "returned")
    reason = rows["reason"].fillna(KEPT_APART).where(outcome == "missing", "")
    found = rows[["wave", "respondent"]].assign(outcome=outcome, reason=reason)
    for name in ("arm", "site", "cohort"):
        found[name] = rows["participant_id"].map(entered[name]).fillna(NOT_KNOWN).astype("str")
    return found


def list_groups(rows: pd.DataFrame, study: Study) -> dict[str, list[str]]:
    """The groups by which questionnaires are counted, in the protocol's order; what else the rows hold comes after."""
    known = {
        "arm": [arm.id for arm in study.arms],
        "site": [site.site_id for site in study.sites],
        "cohort": [cohort.id for cohort in study.cohorts],
    }
    groups = {by: [*levels, *sorted(set(rows[by]) - set(levels))] for by, levels in known.items()}
    return {"all": [ALL], **groups}


def list_reasons(rows: pd.DataFrame, study: Study) -> dict[str, str]:
    """Why a questionnaire may be missing, with words: the protocol's reasons, then the others."""
    kinds = ("loss", "exclusion", "death")
    words = {reason.id: reason.label for reason in study.disposition_reasons if reason.kind in kinds}
    words |= REASON_WORDS
    return words | {code: code.replace("_", " ") for code in sorted(set(rows["reason"]) - set(words) - {""})}


def list_slots(study: Study) -> list[tuple[str, str]]:
    """Wave and respondent wherever the protocol asks for something."""
    asked = {(wave, entry.respondent) for entry in study.schedule for wave in entry.waves}
    return [(wave.id, name) for wave in study.waves for name in study.respondents if (wave.id, name) in asked]


def derive_edition_counts(people: pd.DataFrame, returns: pd.DataFrame, study: Study) -> Counts:
    """Every count of an external edition and how they add up, from the released tables of dispositions and returns."""
    boxes, empty = derive_flow_boxes(people, study), derive_flow_boxes(people.iloc[:0], study)
    flow, flow_sums = _count_flow(boxes, set(empty["box"]))
    rows = find_return_rows(returns, people)
    sent, sent_sums = _count_returns(rows, study)
    cells = pd.DataFrame([*flow, *sent], columns=list(CELL_COLUMNS))
    cells = cells.astype({"n": "int64", "cost": "float64", "at_least": "int64"})
    cells = cells.astype({"is_harmless": "bool", "is_passing": "bool"})
    same = find_same_counts(cells, study)
    return Counts(cells, make_lines([*flow_sums, *sent_sums, *((whole, parts, True) for whole, parts in same)]))


_Sums = list[tuple[str, Sequence[str], bool]]


def _count_flow(boxes: pd.DataFrame, always: set[str]) -> tuple[list[tuple[Any, ...]], _Sums]:
    cells: list[tuple[Any, ...]] = []
    stages = {*boxes.loc[boxes["stage"] == "enrolment", "box"]} - {box for box in boxes["box"] if "." in box}
    for box, group, n in boxes[["box", "group", "n"]].itertuples(index=False, name=None):
        is_harmless = box in stages or box in _HARMLESS or box.endswith(_HARMLESS_ENDS)
        cost = _COSTS["all" if group == ALL else "arm"]
        if box in stages or box == "allocated":
            cost *= _COST_OF_BASIS
        elif box in _HEADLINES:
            cost *= _COST_OF_HEADLINE
        elif box.endswith(".returned"):
            cost *= _COST_OF_RETURNS
        at_least = int(box not in always and group == ALL)
        cells.append((name_box(box, group), n, cost, is_harmless, box.endswith(_PASSING_ENDS), at_least))
    sums: _Sums = []
    parts = boxes[boxes["part_of"] != ""].assign(place=boxes["reason"].where(boxes["rule"] == "attendance", ""))
    for (whole, _, _, group), own in parts.groupby(["part_of", "rule", "place", "group"], sort=False):
        sums.append((name_box(str(whole), str(group)), [name_box(box, str(group)) for box in own["box"]], False))
    arms = [group for group in boxes["group"].unique() if group != ALL]
    for box in boxes.loc[boxes["group"] != ALL, "box"].unique():
        sums.append((name_box(box, ALL), [name_box(box, arm) for arm in arms], True))
    sums.append((name_box("entered", ALL), [name_box("allocated", ALL)], True))
    return cells, sums


def _count_returns(rows: pd.DataFrame, study: Study) -> tuple[list[tuple[Any, ...]], _Sums]:
    cells: list[tuple[Any, ...]] = []
    sums: _Sums = []
    groups, reasons = list_groups(rows, study), list_reasons(rows, study)
    usual = set(list_reasons(rows.iloc[:0], study))
    rows = rows.assign(all=ALL)
    keys = ["wave", "respondent"]
    for by in BY:
        counted = rows.groupby([*keys, by, "outcome"]).size().to_dict()
        told = rows.groupby([*keys, by, "reason"]).size().to_dict()
        for wave, respondent in list_slots(study):
            for group in groups[by]:
                place = (wave, respondent, by, group)
                n = {outcome: int(counted.get((wave, respondent, group, outcome), 0)) for outcome in OUTCOMES[1:]}
                n = {"expected": sum(n.values()), **n}
                for outcome in OUTCOMES:
                    cost = _COSTS[by] * (_COST_OF_RETURNS if outcome in ("expected", "returned") else 1)
                    is_passing = outcome == "awaited"
                    cells.append((name_return(*place, outcome), n[outcome], cost, outcome != "missing", is_passing, 0))
                sums.append((name_return(*place, "expected"), [name_return(*place, o) for o in OUTCOMES[1:]], False))
                if by in ("all", "arm"):
                    names = [name_return(*place, f"missing.{code}") for code in reasons]
                    for code, name in zip(reasons, names, strict=True):
                        n_told = int(told.get((wave, respondent, group, code), 0))
                        at_least = int(code not in usual and by == "all" and n_told > 0)
                        cells.append((name, n_told, _COSTS[by], False, False, at_least))
                    sums.append((name_return(*place, "missing"), names, False))
            if by != "all":
                of_arm = [f"missing.{code}" for code in reasons] if by == "arm" else []
                for what in [*OUTCOMES, *of_arm]:
                    parts = [name_return(wave, respondent, by, group, what) for group in groups[by]]
                    sums.append((name_return(wave, respondent, "all", ALL, what), parts, True))
    return cells, sums


def find_same_counts(cells: pd.DataFrame, study: Study) -> list[tuple[str, list[str]]]:
    """Counts that are the same people under two names, as (key, keys that it is the sum of), where the numbers agree in
    every group.

    What the flow says of a wave and what the tables of questionnaires say of it, and its lost and their reasons; what
    respondents at one wave have in common; the follow-up of the main analysis and its wave."""
    n: dict[str, int] = dict(zip(cells["key"], cells["n"], strict=True))
    groups = [ALL, *(arm.id for arm in study.arms)]
    losses = [reason.id for reason in study.disposition_reasons if reason.kind == "loss"]
    wanted: list[list[tuple[str, list[str]]]] = []

    def of_returns(wave: str, respondent: str, group: str, what: str) -> str:
        return name_return(wave, respondent, "all" if group == ALL else "arm", group, what)

    by_wave: dict[str, list[str]] = {}
    for wave_id, respondent in list_slots(study):
        by_wave.setdefault(wave_id, []).append(respondent)
    endings = sorted({key.split("|", 3)[3] for key in n if key.startswith("returns|")})
    for wave_id, respondents in by_wave.items():
        for respondent in respondents:
            for box, parts in (
                ("returned", ["returned"]), ("awaited", ["awaited"]), ("missed", [f"missing.{MISSED}"]),
                ("lost", [f"missing.{code}" for code in losses]),
            ):  # fmt: skip
                wanted.append(
                    [
                        (
                            name_box(f"wave.{wave_id}.{box}", group),
                            [of_returns(wave_id, respondent, group, one) for one in parts],
                        )
                        for group in groups
                    ]
                )
        for other in respondents[1:]:
            for outcome in sorted({ending.rsplit("|", 1)[1] for ending in endings}):
                own = [ending for ending in endings if ending.endswith(f"|{outcome}")]
                first, second = (f"returns|{wave_id}|{name}|" for name in (respondents[0], other))
                wanted.append([(f"{second}{ending}", [f"{first}{ending}"]) for ending in own])
    main = find_main_analysis(study)
    if main is not None:
        for code in ("lost", "died", "missed", "excluded", "awaited", "not_due", "followed_up"):
            at_wave = f"wave.{main.wave}.{'returned' if code == 'followed_up' else code}"
            wanted.append([(name_box(f"follow_up.{code}", group), [name_box(at_wave, group)]) for group in groups])
    found = []
    for sums in wanted:
        if all(whole in n and parts and all(part in n for part in parts) for whole, parts in sums) and all(
            n[whole] == sum(n[part] for part in parts) for whole, parts in sums
        ):
            found += sums
    return found


# What is published --------------------------------------------------------------------------------------------------


def derive_edition_flow(boxes: pd.DataFrame, protected: Protected) -> pd.DataFrame:
    """The boxes of a flow with the published numbers: without n_sites, and n missing where it is hidden."""
    keys = [name_box(box, group) for box, group in zip(boxes["box"], boxes["group"], strict=True)]
    return boxes.drop(columns="n_sites").assign(n=protected.shown.reindex(keys).astype("Int64").to_numpy())


def derive_edition_returns(rows: pd.DataFrame, protected: Protected, study: Study) -> pd.DataFrame:
    """wave, respondent, by, group, OUTCOMES and returned_pct (of the published numbers); missing where hidden."""
    shown, groups = protected.shown, list_groups(rows, study)
    places = [(*slot, by, group) for slot in list_slots(study) for by in BY for group in groups[by]]
    table = pd.DataFrame(places, columns=["wave", "respondent", "by", "group"])
    for outcome in OUTCOMES:
        table[outcome] = shown.reindex([name_return(*place, outcome) for place in places]).astype("Int64").to_numpy()
    expected = table["expected"].astype("Float64")
    table["returned_pct"] = (100 * table["returned"].astype("Float64") / expected.where(expected > 0)).round(0)
    return table


def derive_edition_reasons(rows: pd.DataFrame, protected: Protected, study: Study) -> pd.DataFrame:
    """wave, respondent, by, group, reason, n: why questionnaires are missing; n missing where hidden."""
    shown, groups, reasons = protected.shown, list_groups(rows, study), list_reasons(rows, study)
    places = [
        (wave, respondent, by, group, reason)
        for wave, respondent in list_slots(study)
        for by in ("all", "arm")
        for group in groups[by]
        for reason in reasons
    ]
    table = pd.DataFrame(places, columns=["wave", "respondent", "by", "group", "reason"])
    keys = [name_return(*place[:4], f"missing.{place[4]}") for place in places]
    table["n"] = shown.reindex(keys).astype("Int64").to_numpy()
    return table


def derive_moves(before: Protected, after: Protected) -> dict[str, str]:
    """How each count went from one edition to the next, as a reader may know it: "same", "grew" or "shrank", as far as
    the published numbers do not say otherwise. Of counts that people come to and leave again nobody knows."""
    both = before.cells.merge(after.cells, on="key", suffixes=("_1", "_2"))
    moved, told = both["n_2"] - both["n_1"], both["rounded_2"] - both["rounded_1"]
    words = pd.Series("", both.index, dtype="str").mask((moved == 0) & (told == 0), "same")
    words = words.mask((moved > 0) & (told >= 0), "grew").mask((moved < 0) & (told <= 0), "shrank")
    words = words.mask(both["key"].map(_is_passing).astype(bool), "")
    return {key: word for key, word in zip(both["key"], words, strict=True) if word}


def _is_passing(key: str) -> bool:
    """Whether `Counts` has it as passing: by the box of the flow, or by what is counted of questionnaires."""
    parts = key.split("|")
    return parts[1].endswith(_PASSING_ENDS) if parts[0] == "flow" else parts[-1] == "awaited"


# For a monitoring committee -----------------------------------------------------------------------------------------


def derive_recruitment(people: pd.DataFrame, study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Screened, consented and entered, from the table of dispositions: by month, counted up (month, and the three), and
    by site (site, and the three)."""
    days = {"n_screened": "screened_on", "n_consented": "consented_on", "n_entered": "allocated_on"}
    months = sorted({month for name in days.values() for month in people[name].dropna().dt.strftime("%Y-%m")})
    by_month = pd.DataFrame({"month": months})
    by_site = pd.DataFrame({"site": [site.site_id for site in study.sites]})
    for name, column in days.items():
        told = people[people[column].notna()]
        counts = told[column].dt.strftime("%Y-%m").value_counts().reindex(months, fill_value=0)
        by_month[name] = counts.cumsum().to_numpy()
        by_site[name] = told["site"].value_counts().reindex(by_site["site"], fill_value=0).to_numpy()
    return by_month, by_site


def derive_retention(rows: pd.DataFrame, study: Study, by: str) -> pd.DataFrame:
    """wave, respondent, group and OUTCOMES with returned_pct (missing where nothing was expected), counted exactly;
    `rows`: from `find_return_rows`; `by`: of BY."""
    groups = list_groups(rows, study)[by]
    counted = rows.assign(all=ALL).groupby(["wave", "respondent", by, "outcome"]).size().to_dict()
    places = [(*slot, group) for slot in list_slots(study) for group in groups]
    table = pd.DataFrame(places, columns=["wave", "respondent", "group"])
    for outcome in OUTCOMES[1:]:
        table[outcome] = [int(counted.get((*place, outcome), 0)) for place in places]
    table.insert(3, "expected", table[list(OUTCOMES[1:])].sum(axis=1))
    expected = table["expected"].astype("float64")
    table["returned_pct"] = 100 * table["returned"] / expected.where(expected > 0)
    return table


def derive_why_missing(rows: pd.DataFrame, study: Study, by: str) -> pd.DataFrame:
    """reason, and a column for each group of `by` with how many questionnaires are missing for it, counted exactly."""
    missing, groups = rows.assign(all=ALL), list_groups(rows, study)[by]
    counted = missing[missing["outcome"] == "missing"].groupby(["reason", by]).size().to_dict()
    table = pd.DataFrame({"reason": list(list_reasons(rows, study))})
    for group in groups:
        table[group] = [int(counted.get((reason, group), 0)) for reason in table["reason"]]
    return table
