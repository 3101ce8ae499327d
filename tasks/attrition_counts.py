"""Sections of the report on attrition that count: the flow, returns, why they are missing, patterns, time to loss."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from study.attrition import PATTERNS, REASON_KINDS, Gap
from study.attrition_models import CAUSES
from tasks.attrition_parts import (
    NBSP,
    Bullets,
    Grid,
    Heading,
    Plot,
    Rows,
    Section,
    Words,
    draw_both,
    format_interval,
    format_percent,
    format_share,
)
from tasks.attrition_plots import MOST_LINES, draw_returns, draw_time_to_loss
from tasks.attrition_wording import LONGEST, OUT_OF_ARMS, Material, say_too_many
from tasks.drawing import shorten

_MOST_DAYS = 6  # on which curves are read off in the table of the page


# The flow -----------------------------------------------------------------------------------------------------------


def describe_flow(report: Material) -> Section:
    flow = report.flow
    section = Section("flow", "Flow", "Flow of participants")
    elsewhere = " flow.html has every box as a table, flow.csv as data." if report.release else ""
    if flow["figure"]:
        section.add(Plot(flow["figure"], flow["narrow"], is_flow=True))
        section.add_note(
            f"In the terms of {escape(flow['standard'])}. Attendance does not add up from wave to wave: people miss "
            f"one and come back.{elsewhere}"
        )
    else:
        words = f"A figure is drawn for up to {flow['most_arms']} arms, and this study has {flow['n_arms']}.{elsewhere}"
        section.add(Words([words, escape(flow["description"])]))
    if flow["notes"]:
        section.add(Bullets([escape(note) for note in flow["notes"]]))
    for table in [] if report.release else flow["tables"]:
        rows = Rows()
        for row in table["rows"]:
            counts = ("" if n is None else f"{n:,}" for n in row["counts"])
            rows.add(f"{NBSP * 3 * row['inset']}{escape(row['label'])}", *counts)
        title = escape(table["title"])
        head = [title, *(escape(shorten(group, LONGEST)) for group in table["groups"])]
        section.add(rows.finish(f"Flow: {title.lower()}", head))
    return section


# Returns ------------------------------------------------------------------------------------------------------------


def plot_returns(report: Material) -> list[Plot | Words]:
    """Returns by wave and arm as a figure, for the summary; words for more arms than it can show, nothing of nobody."""
    by_arm = report.found.tables["wave", "arm"]
    if len(report.arms) > MOST_LINES:
        return [say_too_many(report.arms)]
    if not (by_arm["n_expected"] > 0).any():
        return []
    waves = {wave.id: report.name("wave", wave.id) for wave in report.study.waves}
    return [draw_both(lambda end, width: draw_returns(f"returns-{end}", by_arm, waves, report.arms, width))]


def describe_returns(report: Material) -> Section:
    found, tables = report.found, report.found.tables
    section = Section("returns", "Returns", "What was expected, and what came back")
    section.add_note(
        "A return is what one respondent is to send of one person at one wave: expected = returned + awaited + "
        "missing. The rate is returned of expected; retention is of those whose window is over, since while one is "
        "open the quick ones are in and the others are not."
    )
    section.add(_return_grid(report, "Returns by wave and arm", tables["wave", "arm"], "wave", "arm"))
    if report.rows["respondent"].nunique() > 1:
        own = tables["wave", "respondent"]
        section.add(_return_grid(report, "Returns by wave and who answers", own, "wave", "respondent"))
    section.add(Heading(f"People at {escape(report.wave)}"))
    section.add_note(
        f"Each person in an arm counts once, whatever else is asked of them: what is answered by {report.respondents}."
    )
    people = found.people
    section.add(_return_grid(report, "By arm", people["arm",], "", "arm", total=people[()]))
    section.add(_return_grid(report, "By site", people["site",], "", "site"))
    if len(report.study.arms) > 1:
        section.add(_return_grid(report, "By site and arm", people["site", "arm"], "site", "arm"))
    if people["cohort", "arm"]["cohort"].nunique() > 1:
        section.add(_return_grid(report, "By cohort and arm", people["cohort", "arm"], "cohort", "arm"))
    section.add(*_list_reasons(report))
    return section


def _return_grid(
    report: Material, caption: str, table: pd.DataFrame, group: str, each: str, total: pd.DataFrame | None = None
) -> Grid:
    """A table of returns, headed by `group`, with a row for each of `each`. An arm with nobody is shown, another place
    with nobody is not."""
    if each == "arm":
        table = table[~table["arm"].isin(OUT_OF_ARMS)]
    if group not in ("", "wave") or each != "arm":
        table = table[table["n"] > 0]
    rows = Rows()
    for row in table.to_dict("records"):
        if group:
            rows.open_group(row[group], report.cell(group, row[group]))
        rows.add(report.cell(each, row[each]), *_tell_counts(row))
    if total is not None:
        rows.add("<b>All</b>", *_tell_counts(total.iloc[0].to_dict()))
    head = [
        each.capitalize() if each != "respondent" else "Who answers", "Expected", "Returned", "Partly", "Awaited",
        "Missing", "Rate", "95&nbsp;% interval", "Window over", "Retained",
    ]  # fmt: skip
    return rows.finish(escape(caption), head)


def _tell_counts(row: Mapping[Any, Any]) -> list[str]:
    counts = [f"{int(row[name]):,}" for name in ("n_expected", "n_returned", "n_partial", "n_awaited", "n_missing")]
    interval = format_interval(row["rate_low_pct"], row["rate_high_pct"], 0, "%") or "–"
    kept = [f"{int(row['n_over']):,}", format_percent(row["retained_pct"])]
    return [*counts, format_percent(row["rate_pct"]), interval, *kept]


def _list_reasons(report: Material) -> list[Grid]:
    """Why returns of the wave are missing, by arm, those that nobody gave too."""
    table = report.found.people_reasons
    arms = [arm for arm in dict.fromkeys(table["arm"]) if arm not in OUT_OF_ARMS]
    if not arms:
        return []
    if len(arms) > MOST_LINES:
        table, arms = _sum_arms(table), ["all"]
    n_expected = table.drop_duplicates("arm").set_index("arm")["n_expected"]
    rows = Rows()
    for kind, words in REASON_KINDS.items():
        own = table[table["reason_kind"] == kind]
        has_several = own["reason"].nunique() > 1
        if has_several:
            rows.open_group(kind, escape(words))
        for reason in dict.fromkeys(own["reason"]):
            counts = own[own["reason"] == reason].set_index("arm")["n"]
            cells = []
            for arm in arms:
                n = int(counts.get(arm, 0))
                cells += [f"{n:,}", format_share(n, int(n_expected.get(arm, 0)))]
            rows.add(report.cell("reason", reason) if has_several else f"<b>{escape(words)}</b>", *cells)
    head = ["Reason"]
    for arm in arms:
        head += ["All" if arm == "all" else report.head(arm), "of expected"]
    return [rows.finish(f"Why they are missing at {escape(report.wave)}", head)]


def _sum_arms(table: pd.DataFrame) -> pd.DataFrame:
    """A table of reasons by arm, of all arms together."""
    n_expected = int(table.drop_duplicates("arm")["n_expected"].sum())
    summed = table.groupby(["reason", "reason_kind"], sort=False)["n"].sum().reset_index()
    return summed.assign(arm="all", n_expected=n_expected)


# Patterns -----------------------------------------------------------------------------------------------------------


def describe_patterns(report: Material) -> Section:
    table = report.found.patterns
    table = table[(table["n_people"] > 0) & ~table["arm"].isin(OUT_OF_ARMS)]
    section = Section("patterns", "Patterns", "Patterns: gone for good, or missed and came back")
    if table.empty:
        report.add_gap(section, Gap("patterns", "Nobody is in an arm."), "Patterns")
        return section
    rows = Rows()
    several = table["respondent"].nunique() > 1
    whose = [name for name in report.study.respondents if name in set(table["respondent"])]
    table = table.sort_values("respondent", key=lambda names: names.map(whose.index), kind="stable")
    for (respondent, arm), own in table.groupby(["respondent", "arm"], sort=False):
        counts, n = own.set_index("pattern")["n"], int(own["n_people"].iloc[0])
        if several:
            rows.open_group(respondent, report.cell("respondent", respondent))
        cells = [f"{int(counts[name]):,} ({format_share(int(counts[name]), n)})" for name in PATTERNS]
        rows.add(report.cell("arm", arm), f"{n:,}", *cells)
    section.add_note(
        "From the baseline on, of what was expected and is settled. Returned at first, then no more: a monotone "
        "pattern. Missed a wave and came back: an intermittent one."
    )
    section.add(rows.finish("Patterns by arm", ["Arm", "People", *(escape(words) for words in PATTERNS.values())]))
    return section


# Time to loss -------------------------------------------------------------------------------------------------------


def describe_times(report: Material) -> Section:
    times = report.found.time_to_loss
    section = Section("time", "Time to loss", "When people were lost")
    for gap in times.gaps:
        _, _, arm = gap.place.partition("arm ")
        words = f"{report.name('arm', arm)}: {gap.words}" if arm else gap.words
        section.gaps.append(("Time to loss", report.word_gap(words)))
    there = {arm: label for arm, label in report.arms.items() if arm in set(times.curves["arm"])}
    if times.people.empty or not there:
        report.add_gap(section, Gap("time to loss", "Nobody is followed in any arm."), "Time to loss")
        return section
    causes = {cause: label for cause, label in CAUSES.items() if (times.people["outcome"] == cause).any()}
    if not causes:
        section.add(Words([f"Nobody of {len(times.people):,} was lost, excluded or died so far."]))
        return section
    if len(there) > MOST_LINES:
        section.add(say_too_many(there))
    else:
        section.add(
            draw_both(
                lambda end, width: draw_time_to_loss(f"time-{end}", times.curves, times.people, there, causes, width)
            )
        )
    section.add_note(
        "Cumulative incidence by days since the start, each cause with the others as competing events. Whoever "
        "returned nothing any more without a word counts as lost from the last day of the first wave missed, so the "
        "newest waves show too few."
    )
    days = sorted(set(times.at_times["day"]))
    if len(days) > _MOST_DAYS:
        days = [days[round(at)] for at in np.linspace(0, len(days) - 1, _MOST_DAYS)]
    rows = Rows()
    for arm, label in there.items():
        rows.open_group(arm, escape(label))
        for day in days:
            own = times.at_times[(times.at_times["arm"] == arm) & (times.at_times["day"] == day)]
            if own.empty:
                continue
            cells = []
            for row in (own[own["cause"] == cause].iloc[0].to_dict() for cause in causes):
                interval = format_interval(row["low_pct"], row["high_pct"], 1, "%")
                share = format_percent(row["incidence_pct"])
                cells += [f"{row['n']:,}", f"{share} ({interval})" if interval else share]
            rows.add(f"Day {day}", f"{int(own['n_at_risk'].iloc[0]):,}", *cells)
    head = ["Days since the start", "Still in"]
    for label in causes.values():
        head += [escape(label), "share (95&nbsp;% interval)"]
    section.add(rows.finish("Time to loss", head))
    return section
