"""The report on attrition: one page, the same on paper, and every figure as a table.

All of it is made from `study.attrition_models.Attrition` and from the flow of participants. The page and the paper set
the same sections: what is counted (`tasks.attrition_counts`), what is compared (`tasks.attrition_comparisons`), what
loss does to the study (`tasks.attrition_consequences`), and what stands first and last (`tasks.attrition_summary`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from html import escape
from typing import Any, NamedTuple

import pandas as pd

from study.attrition_models import Attrition, derive_attrition
from study.calendar import format_day
from study.flow import find_main_analysis
from study.instruments import Instrument
from study.masking import ARM_MARK
from study.protocol import Study
from study.state import Head
from tasks.attrition import load_boundary
from tasks.attrition_comparisons import (
    describe_differential,
    describe_equivalence,
    describe_lost,
    describe_weights,
)
from tasks.attrition_consequences import describe_detectable, describe_others
from tasks.attrition_counts import describe_flow, describe_patterns, describe_returns, describe_times
from tasks.attrition_figures import encode_attrition_figures
from tasks.attrition_parts import Bullets, Grid, Heading, Plot, Section, Tiles, Words
from tasks.attrition_summary import describe_gaps, describe_methods, describe_summary, list_gaps
from tasks.attrition_wording import Material
from tasks.drawing import shorten
from tasks.pages import format_moment_for_people, render_page

ATTRITION_PAGE, ATTRITION_PAPER, ATTRITION_FIGURES = "attrition.html", "attrition.pdf", "attrition.csv"

_MOST_ON_PAPER = 150  # rows of a table in the PDF: longer ones are in the page


class AttritionReport(NamedTuple):
    """The page, the same as PDF, and every figure as CSV."""

    page: bytes
    paper: bytes
    figures: bytes


def derive_report_figures(
    study: Study,
    rows: pd.DataFrame,
    characteristics: pd.DataFrame,
    people: pd.DataFrame,
    as_of: date,
) -> Attrition:
    """Everything that the report tells. `people`: the table of dispositions, which says who is analysed."""
    analysed = None
    if find_main_analysis(study) is not None:
        analysed = set(people.loc[people["analysed"] == 1, "participant_id"])
    return derive_attrition(study, rows, characteristics, load_boundary(), as_of, analysed)


def write_attrition_report(
    *,
    study: Study,
    instruments: Mapping[str, Instrument],
    rows: pd.DataFrame,
    characteristics: pd.DataFrame,
    people: pd.DataFrame,
    flow: Mapping[str, Any],
    as_of: date,
    known_at: datetime,
    head: Head,
    release: str = "",
    slice_name: str = "",
    banner: str = "",
    is_blinded: bool = False,
) -> AttritionReport:
    """The report in its three forms.

    `rows`: from `derive_attrition_rows`; `characteristics`: from `derive_baseline_characteristics`; `people`: the table
    of dispositions; `flow`: from `describe_for_page`. `release`: its name, "" where nothing was frozen. The same
    arguments give the same bytes.
    """
    found = derive_report_figures(study, rows, characteristics, people, as_of)
    sections = list_sections(Material(study, instruments, rows, people, found, flow, as_of, release))
    title = f"{study.title}: attrition"
    told = f"Release {release}: the" if release else "Not a release. The"
    known = format_moment_for_people(known_at)
    notices = [escape(banner)] if banner else []
    if slice_name:
        notices.append(f"A slice, not the whole study: only what was put into {escape(slice_name)}.")
    if is_blinded:
        notices.append(f"A blinded edition: letters stand for the arms, and {ARM_MARK} for the name of one in a label.")
    page = render_page(
        "attrition.html.jinja",
        title=title,
        study=study,
        told=told,
        notices=notices,
        as_of=format_day(as_of),
        known_at=known,
        head=head,
        sections=sections,
        files=(ATTRITION_FIGURES, ATTRITION_PAPER),
        is_released=bool(release),
    )
    lines = [
        f"{escape(study.title)}. {told} study as of {format_day(as_of)}, as known on {known}.",
        *(f"<b>{notice}</b>" for notice in notices),
    ]
    foot = f"{shorten(study.title, 70)}: attrition{f', release {release}' if release else ''}, {format_day(as_of)}"
    paper = _write_paper(title, lines, sections, foot, known_at, head)
    return AttritionReport(page, paper, encode_attrition_figures(study, rows, found))


def list_sections(report: Material) -> list[Section]:
    """What the page and the paper tell, in its order."""
    sections = [
        describe_flow(report),
        describe_returns(report),
        describe_patterns(report),
        describe_times(report),
        *([describe_differential(report)] if report.study.is_randomised else []),
        describe_equivalence(report),
        describe_lost(report),
        describe_weights(report),
        describe_detectable(report),
        describe_others(report),
        describe_methods(report),
    ]
    gaps = list_gaps(report, sections)
    sections = [describe_summary(report, len(gaps)), *sections, describe_gaps(gaps)]
    for section in sections:
        section.blocks = [block for block in section.blocks if not isinstance(block, Grid) or block.rows]
    return sections


def _write_paper(
    title: str, lines: list[str], sections: Sequence[Section], foot: str, moment: datetime, head: Head
) -> bytes:
    from tasks.pdf import UNKNOWN_SIGN, PaperReport, PaperTable  # its library is slow to load

    paper = PaperReport(title, foot, moment)
    paper.add_title("Who was lost, and what it does to the study", lines)
    for section in sections:
        if section is not sections[0]:
            paper.add_heading(section.title)
        for block, after in zip(section.blocks, [*section.blocks[1:], None], strict=True):
            if isinstance(block, Words):
                for words in block.paragraphs:
                    paper.add_text(words, block.kind, is_kept=isinstance(after, Grid | Plot))
            elif isinstance(block, Bullets):
                paper.add_list(block.lines)
            elif isinstance(block, Tiles):
                paper.add_figures(block.tiles)
            elif isinstance(block, Heading):
                paper.add_heading(block.words, 3)
            elif isinstance(block, Plot):
                paper.add_figure(block.wide)
            elif len(block.rows) > _MOST_ON_PAPER:
                paper.add_text(
                    f"{block.caption}: {len(block.rows):,} rows, in {ATTRITION_PAGE} and {ATTRITION_FIGURES}.", "note"
                )
            else:
                paper.add_table(PaperTable(block.caption, block.head, block.rows, block.numbers, block.groups))
    paper.add_text(
        f"Written by Summative from row {head.seq:,} of the ledger, {head.hash[:16]}. For the study's team: small "
        f"counts are not suppressed. {UNKNOWN_SIGN} stands for a sign that the font lacks; {ATTRITION_PAGE} has "
        "it.",
        "note",
    )
    return paper.write()
