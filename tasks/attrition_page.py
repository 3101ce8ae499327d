"""The report on attrition: one page, the same on paper, and every figure as a table.

All of it is made from `study.attrition_models.Attrition` and from the flow of participants. Sentences are in
`templates/pages/attrition_words.jinja`; each rests on counts, and where there is no number its place is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from html import escape, unescape
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from study.attrition import (
    BENCHMARKS,
    IN_SEVERAL_ARMS,
    NOT_ALLOCATED,
    NOT_KNOWN,
    PATTERNS,
    REASON_KINDS,
    WHY_NOT_EXPECTED,
    Gap,
    settle_arms,
)
from study.attrition_models import (
    CAUSES,
    MEANINGS,
    WHENS,
    Attrition,
    LossModel,
    Weights,
    derive_attrition,
    find_pairs,
)
from study.calendar import format_day
from study.codebook import derive_codes
from study.flow import STAGES, find_main_analysis, list_stages
from study.instruments import Instrument
from study.protocol import Study
from study.state import Head
from tasks.attrition import load_boundary
from tasks.attrition_figures import encode_attrition_figures
from tasks.attrition_plots import (
    MOST_DIFFERENCES,
    MOST_LINES,
    NARROW,
    WIDE,
    draw_boundary,
    draw_love,
    draw_returns,
    draw_time_to_loss,
)
from tasks.drawing import NAMESPACE, shorten
from tasks.pages import format_counted, format_moment_for_people, load_words, render_page

ATTRITION_PAGE, ATTRITION_PAPER, ATTRITION_FIGURES = "attrition.html", "attrition.pdf", "attrition.csv"

_OUT_OF_ARMS = (NOT_ALLOCATED, IN_SEVERAL_ARMS)
_LONGEST = 60  # characters of a label in a sentence or a table
_LONGEST_HEAD = 34  # characters of a label that heads a column
_MOST_NAMED = 4  # reasons, characteristics or pairs of arms in one sentence
_MOST_DAYS = 6  # on which curves are read off in the table of the page
_MOST_ON_PAPER = 150  # rows of a table in the PDF: longer ones are in the page
_MOST_UNFOLDED = 24  # rows of a table that the page shows unfolded
_NBSP = "\N{NO-BREAK SPACE}"
_TAG = re.compile(r"<[^>]*>")


class AttritionReport(NamedTuple):
    """The page, the same as PDF, and every figure as CSV."""

    page: bytes
    paper: bytes
    figures: bytes


# What a report is made of -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Words:
    """Paragraphs, as HTML of b, i and a. `kind`: "p", "lead" or "note"."""

    paragraphs: list[str]
    kind: str = "p"


@dataclass(frozen=True)
class Bullets:
    lines: list[str]


@dataclass(frozen=True)
class Tiles:
    """Large numbers, each with its words."""

    tiles: list[tuple[str, str]]


@dataclass(frozen=True)
class Heading:
    words: str


@dataclass(frozen=True)
class Plot:
    """A figure for a screen and paper, and one for a telephone."""

    wide: str
    narrow: str
    is_flow: bool = False


@dataclass(frozen=True)
class Grid:
    """A table, its cells as HTML. `numbers`: places of columns set to the right; `groups`: rows that head the next."""

    caption: str
    head: list[str]
    rows: list[list[str]]
    numbers: frozenset[int]
    groups: frozenset[int] = frozenset()

    @property
    def is_folded(self) -> bool:
        return len(self.rows) > _MOST_UNFOLDED


@dataclass
class Section:
    id: str
    short: str
    title: str
    blocks: list[Any] = field(default_factory=list)


# The report ---------------------------------------------------------------------------------------------------------


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
    sections = list_sections(study, instruments, rows, people, found, flow, as_of, release)
    title = f"{study.title}: attrition"
    told = f"Release {release}: the" if release else "Not a release. The"
    known = format_moment_for_people(known_at)
    notices = [escape(banner)] if banner else []
    if slice_name:
        notices.append(f"A slice, not the whole study: only what was put into {escape(slice_name)}.")
    if is_blinded:
        notices.append("A blinded edition: letters stand for the arms.")
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


def list_sections(
    study: Study,
    instruments: Mapping[str, Instrument],
    rows: pd.DataFrame,
    people: pd.DataFrame,
    found: Attrition,
    flow: Mapping[str, Any],
    as_of: date,
    release: str = "",
) -> list[Section]:
    """What the page and the paper tell, in its order. Arguments as in `write_attrition_report`; `found`: from
    `derive_report_figures`."""
    return _Report(study, instruments, rows, people, found, flow, as_of, release).list_sections()


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


class _Report:
    """Turns figures into sections of words, plots and tables."""

    def __init__(
        self,
        study: Study,
        instruments: Mapping[str, Instrument],
        rows: pd.DataFrame,
        people: pd.DataFrame,
        found: Attrition,
        flow: Mapping[str, Any],
        as_of: date,
        release: str,
    ) -> None:
        self.study, self.instruments, self.found, self.flow = study, instruments, found, flow
        self.rows, self.people, self.as_of, self.release = settle_arms(rows), people, as_of, release
        codes = derive_codes(study)
        self.labels = {
            **{name: dict(codes[name]) for name in ("wave", "arm", "site", "cohort")},
            "respondent": {"self": "Participant", "proxy": "Proxy", "carer": "Carer", "manager": "Manager"},
            "reason": dict(codes["reason"]),
        }
        self.labels["arm"] |= {NOT_ALLOCATED: "In no arm", IN_SEVERAL_ARMS: "In several arms"}
        self.labels["cohort"] |= {NOT_KNOWN: "Not known"}
        self.arms = {arm.id: self.name("arm", arm.id) for arm in study.arms}
        self.gaps: list[tuple[str, str]] = [(gap.place, gap.words) for gap in found.gaps]
        self.words = load_words("attrition_words.jinja")

    # Words --------------------------------------------------------------------------------------------------------

    def name(self, what: str, code: Any) -> str:
        return shorten(str(self.labels[what].get(str(code), code)), _LONGEST)

    def cell(self, what: str, code: Any) -> str:
        return escape(self.name(what, code))

    def say(self, macro: str, *facts: Any, kind: str = "p", **named: Any) -> Words:
        """The paragraphs of a macro of the template."""
        plain = {name: _unescape(value) for name, value in named.items()}
        text = str(getattr(self.words, macro)(*map(_unescape, facts), **plain))  # the template escapes, once
        return Words(
            [re.sub(r"[ \n]+", " ", part).strip() for part in re.split(r"\n\s*\n", text) if part.strip()], kind
        )

    def say_gap(self, gap: Gap, title: str) -> Words:
        """A named gap in the place of a figure; it stands in the list at the end too."""
        words = self.word_gap(gap.words)
        self.gaps.append((title, words))
        return Words([f"<b>Not given.</b> {escape(words)}"])

    def word_gap(self, words: str) -> str:
        """Codes of the study and names of characteristics in a gap by their labels."""
        for wave in self.study.waves:
            words = words.replace(f"window of {wave.id} is", f"window of {self.name('wave', wave.id)} is")
        return re.sub(r"[\w]+\.[\w]+( \(\w+\))?|\b(arm|cohort): \w+", lambda found: self.name_term(found[0]), words)

    def name_term(self, term: str) -> str:
        """A characteristic or a term of a model by its labels."""
        kind, colon, code = term.partition(": ")
        if colon and kind in ("arm", "cohort") and code in self.labels[kind]:
            return f"{kind.capitalize()}: {self.name(kind, code)}"
        if colon and kind not in ("arm", "cohort"):
            return f"{self.name_term(kind)}: {shorten(code, _LONGEST)}"
        instrument, dot, rest = term.partition(".")
        if dot and instrument in self.instruments:
            scale_id, _, whose = rest.partition(" (")
            scale = self.instruments[instrument].find_scale(scale_id)
            label = shorten(scale.label if scale is not None else scale_id, _LONGEST)
            return f"{label} ({whose}" if whose else label
        if term == "(constant)":
            return "Constant"
        return {"age": "Age", "sex": "Sex", "cohort": "Cohort"}.get(term, term)

    def name_pair(self, row: Mapping[Any, Any]) -> str:
        return f"{escape(self.name('arm', row['intervention']))} against {escape(self.name('arm', row['comparison']))}"

    @property
    def wave(self) -> str:
        return self.name("wave", self.found.wave)

    # Sections -----------------------------------------------------------------------------------------------------

    def list_sections(self) -> list[Section]:
        rest = [
            self.describe_flow(),
            self.describe_returns(),
            self.describe_patterns(),
            self.describe_times(),
            *([self.describe_differential()] if self.study.is_randomised else []),
            self.describe_equivalence(),
            self.describe_lost(),
            self.describe_weights(),
            self.describe_detectable(),
            self.describe_others(),
            self.describe_methods(),
        ]
        gaps = self.describe_gaps()
        sections = [self.describe_summary(), *rest, gaps]
        for section in sections:
            section.blocks = [block for block in section.blocks if not isinstance(block, Grid) or block.rows]
        return sections

    def describe_summary(self) -> Section:
        facts = self.collect_facts()
        main = self.found.people[()].iloc[0]
        tiles = [(f"{facts['n_people']:,}", f"{'person' if facts['n_people'] == 1 else 'people'} in an arm")]
        tiles.append((f"{facts['n_over']:,}", f"expected at {escape(self.wave)}, window over"))
        tiles.append((f"{facts['n_kept']:,}", "of these answered"))
        tiles.append((facts["retained"] or "–", "retained"))
        told = self.found.people_reasons
        n_died = int(main["n_died"]) + int(told.loc[told["reason_kind"] == "death", "n"].sum())
        tiles.append((f"{n_died:,}", "died before or while they were expected"))
        blocks: list[Any] = [self.say("who", facts, kind="lead"), Tiles(tiles)]
        lines = []
        for words in (self.say("kept", facts), self.say("reasons", facts), self.say("by_arm", facts)):
            lines += words.paragraphs
        if self.study.is_randomised and isinstance(self.found.differential, pd.DataFrame):
            lines += self.say("differential", **self.collect_differential()).paragraphs
        elif isinstance(self.found.equivalence, pd.DataFrame):
            for pair in self.collect_equivalence()[:_MOST_NAMED]:
                lines += self.say("equivalence", pair).paragraphs
        if isinstance(self.found.lost_differences, pd.DataFrame):
            lines += self.say("lost", self.collect_lost()).paragraphs
        if isinstance(self.found.weights, Weights):
            lines += self.say("weights", self.collect_weights()).paragraphs
        for fact in self.collect_detectable()[:_MOST_NAMED]:
            lines += self.say("detectable", fact).paragraphs
        n_gaps = len(self.gaps)
        if n_gaps:
            verb = "figure is" if n_gaps == 1 else "figures are"
            lines.append(f"{n_gaps} {verb} not given, or only in part; the reasons stand under the last heading.")
        blocks.append(Bullets(lines))
        return Section("summary", "Summary", "In five minutes", blocks)

    def collect_facts(self) -> dict[str, Any]:
        main = self.found.people[()].iloc[0]
        people = self.rows.drop_duplicates("participant_id")
        in_arm = people[~people["arm"].isin(_OUT_OF_ARMS)]
        n = {name: int(main[name]) for name in main.index if str(name).startswith("n_")}
        by_arm = self.found.people["arm",][self.found.people["arm",]["n_over"] > 0]
        rates = [
            f"{self.cell('arm', row['arm'])} {_percent(row['retained_pct'])} ({row['n_kept']:,} of {row['n_over']:,})"
            for row in by_arm.to_dict("records")
        ]
        if len(rates) > MOST_LINES:
            order = by_arm.sort_values("retained_pct", kind="stable")["arm"].tolist()
            place = {arm: at for at, arm in enumerate(by_arm["arm"])}
            rates = [f"lowest {rates[place[order[0]]]}", f"highest {rates[place[order[-1]]]}, of {len(rates)} arms"]
        spread = float(by_arm["retained_pct"].max() - by_arm["retained_pct"].min()) if len(by_arm) > 1 else None
        told = self.found.people_reasons
        told = told[(told["n"] > 0) & (told["reason_kind"] != "awaited")]
        sums = (
            told.groupby(["reason", "reason_kind"], sort=False)["n"].sum().sort_values(ascending=False, kind="stable")
        )
        reasons = [f"{self._name_reason(*key)} {n:,}" for key, n in zip(sums.index.tolist(), sums, strict=True)]
        if len(reasons) > _MOST_NAMED + 1:
            rest = int(sums.iloc[_MOST_NAMED:].sum())
            reasons = [*reasons[:_MOST_NAMED], f"other reasons {rest:,}"]
        why = [(label, n[f"n_{code}"]) for code, label in WHY_NOT_EXPECTED.items() if n[f"n_{code}"]]
        benchmark = self.found.benchmark
        return {
            **n,
            "n_people": len(in_arm),
            "n_out": len(people) - len(in_arm),
            "n_arms": len(self.study.arms),
            "n_sites": int(in_arm["site"].nunique()),
            "wave": escape(self.wave),
            "respondents": " or ".join(_name_respondent(name) for name in self.found.respondents),
            "retained": _percent(main["retained_pct"], "") if n["n_over"] else "",
            "retained_interval": _interval(main["retained_low_pct"], main["retained_high_pct"], 1, "%"),
            "benchmark": f"That is {benchmark[0].lower()}{benchmark[1:]}",
            "not_expected": [f"{label[0].lower()}{label[1:]} {many:,}" for label, many in why],
            "reasons": reasons,
            "arm_rates": rates,
            "arm_spread": spread,
            "arm_spread_words": f"{spread:.1f} points" if spread else "",
        }

    def _name_reason(self, reason: Any, kind: Any) -> str:
        if str(reason) == "missed":
            return "nothing came and no reason is known"
        return f"{self.cell('reason', reason)}{' (death)' if kind == 'death' else ''}"

    # The flow -----------------------------------------------------------------------------------------------------

    def describe_flow(self) -> Section:
        flow = self.flow
        section = Section("flow", "Flow", "Flow of participants")
        elsewhere = " flow.html has every box as a table, flow.csv as data." if self.release else ""
        if flow["figure"]:
            words = f"In the terms of {escape(flow['standard'])}. Attendance does not add up from wave to wave: people "
            words += f"miss one and come back.{elsewhere}"
            section.blocks += [Plot(flow["figure"], flow["narrow"], is_flow=True), Words([words], "note")]
        else:
            words = (
                f"A figure is drawn for up to {flow['most_arms']} arms, and this study has {flow['n_arms']}.{elsewhere}"
            )
            section.blocks.append(Words([words, escape(flow["description"])]))
        if flow["notes"]:
            section.blocks.append(Bullets([escape(note) for note in flow["notes"]]))
        if not self.release:
            for table in flow["tables"]:
                rows = [
                    [
                        f"{_NBSP * 3 * row['inset']}{escape(row['label'])}",
                        *("" if n is None else f"{n:,}" for n in row["counts"]),
                    ]
                    for row in table["rows"]
                ]
                head = [escape(table["title"]), *(escape(shorten(group, _LONGEST)) for group in table["groups"])]
                section.blocks.append(
                    Grid(f"Flow: {escape(table['title']).lower()}", head, rows, frozenset(range(1, len(head))))
                )
        return section

    # Returns ------------------------------------------------------------------------------------------------------

    def describe_returns(self) -> Section:
        found, tables = self.found, self.found.tables
        section = Section("returns", "Returns", "What was expected, and what came back")
        by_arm = tables["wave", "arm"]
        shown = dict(list(self.arms.items())[:MOST_LINES])
        waves = {wave.id: self.name("wave", wave.id) for wave in self.study.waves}
        if len(self.arms) > MOST_LINES:
            section.blocks.append(Words([f"No plot: {len(self.arms)} arms are more than one can show apart."]))
        elif (by_arm["n_expected"] > 0).any():
            section.blocks.append(
                self._plot(draw_returns(f"returns-{at}", by_arm, waves, shown, width) for at, width in _WIDTHS)
            )
        section.blocks.append(
            Words(
                ["A return is what one respondent is to send of one person at one wave: expected = returned + "
                 "awaited + missing. The rate is returned of expected; retention is of those whose window is over, "
                 "since while one is open the quick ones are in and the others are not."], "note",
            )
        )  # fmt: skip
        section.blocks.append(self._return_grid("Returns by wave and arm", by_arm, "wave", "arm"))
        if self.rows["respondent"].nunique() > 1:
            own = tables["wave", "respondent"]
            section.blocks.append(self._return_grid("Returns by wave and who answers", own, "wave", "respondent"))
        section.blocks.append(Heading(f"People at {escape(self.wave)}"))
        whose = " or ".join(_name_respondent(name) for name in found.respondents)
        words = f"Each person in an arm counts once, whatever else is asked of them: what is answered by {whose}."
        section.blocks.append(Words([words], "note"))
        people = found.people
        section.blocks.append(self._return_grid("By arm", people["arm",], "", "arm", total=people[()]))
        section.blocks.append(self._return_grid("By site", people["site",], "", "site"))
        if len(self.study.arms) > 1:
            section.blocks.append(self._return_grid("By site and arm", people["site", "arm"], "site", "arm"))
        if people["cohort", "arm"]["cohort"].nunique() > 1:
            section.blocks.append(self._return_grid("By cohort and arm", people["cohort", "arm"], "cohort", "arm"))
        section.blocks += self._list_reasons()
        return section

    def _return_grid(
        self, caption: str, table: pd.DataFrame, group: str, each: str, total: pd.DataFrame | None = None
    ) -> Grid:
        """A table of returns, headed by `group`, with a row for each of `each`. An arm with nobody is shown, another
        place with nobody is not."""
        if each == "arm":
            table = table[~table["arm"].isin(_OUT_OF_ARMS)]
        if group not in ("", "wave") or each != "arm":
            table = table[table["n"] > 0]
        rows: list[list[str]] = []
        groups: set[int] = set()
        before = None
        for row in table.to_dict("records"):
            if group and row[group] != before:
                groups.add(len(rows))
                rows.append([self.cell(group, row[group]), *[""] * 9])
                before = row[group]
            rows.append([self.cell(each, row[each]), *_tell_counts(row)])
        if total is not None:
            rows.append(["<b>All</b>", *_tell_counts(total.iloc[0].to_dict())])
        head = [
            each.capitalize() if each != "respondent" else "Who answers", "Expected", "Returned", "Partly",
            "Awaited", "Missing", "Rate", "95&nbsp;% interval", "Window over", "Retained",
        ]  # fmt: skip
        return Grid(escape(caption), head, rows, frozenset(range(1, 10)), frozenset(groups))

    def _list_reasons(self) -> list[Any]:
        """Why returns of the wave are missing, by arm, those that nobody gave too."""
        table = self.found.people_reasons
        arms = [arm for arm in dict.fromkeys(table["arm"]) if arm not in _OUT_OF_ARMS]
        if not arms:
            return []
        if len(arms) > MOST_LINES:
            table, arms = derive_all(table), ["all"]
        n_expected = table.drop_duplicates("arm").set_index("arm")["n_expected"]
        rows: list[list[str]] = []
        groups = set()
        for kind, words in REASON_KINDS.items():
            own = table[table["reason_kind"] == kind]
            if own.empty:
                continue
            if own["reason"].nunique() > 1:
                groups.add(len(rows))
                rows.append([escape(words), *[""] * (2 * len(arms))])
            for reason in dict.fromkeys(own["reason"]):
                counts = own[own["reason"] == reason].set_index("arm")["n"]
                cells = []
                for arm in arms:
                    n, of = int(counts.get(arm, 0)), int(n_expected.get(arm, 0))
                    cells += [f"{n:,}", _percent(100 * n / of) if of else "–"]
                label = self.cell("reason", reason) if own["reason"].nunique() > 1 else f"<b>{escape(words)}</b>"
                rows.append([label, *cells])
        head = ["Reason"]
        for arm in arms:
            head += ["All" if arm == "all" else escape(shorten(self.name("arm", arm), _LONGEST_HEAD)), "of expected"]
        caption = f"Why they are missing at {escape(self.wave)}"
        return [Grid(caption, head, rows, frozenset(range(1, len(head))), frozenset(groups))]

    # Patterns -----------------------------------------------------------------------------------------------------

    def describe_patterns(self) -> Section:
        table = self.found.patterns
        table = table[(table["n_people"] > 0) & ~table["arm"].isin(_OUT_OF_ARMS)]
        section = Section("patterns", "Patterns", "Patterns: gone for good, or missed and came back")
        if table.empty:
            section.blocks.append(self.say_gap(Gap("patterns", "Nobody is in an arm."), "Patterns"))
            return section
        rows: list[list[str]] = []
        groups: set[int] = set()
        before: Any = None
        several = table["respondent"].nunique() > 1
        whose = [name for name in self.study.respondents if name in set(table["respondent"])]
        table = table.sort_values("respondent", key=lambda names: names.map(whose.index), kind="stable")
        for (respondent, arm), own in table.groupby(["respondent", "arm"], sort=False):
            counts = own.set_index("pattern")["n"]
            n = int(own["n_people"].iloc[0])
            if several and respondent != before:
                groups.add(len(rows))
                rows.append([self.cell("respondent", respondent), *[""] * (len(PATTERNS) + 1)])
                before = respondent
            cells = [f"{int(counts[name]):,} ({_percent(100 * int(counts[name]) / n)})" for name in PATTERNS]
            rows.append([self.cell("arm", arm), f"{n:,}", *cells])
        head = ["Arm", "People", *(escape(words) for words in PATTERNS.values())]
        section.blocks += [
            Words(
                ["From the baseline on, of what was expected and is settled. Returned at first, then no more: a "
                 "monotone pattern. Missed a wave and came back: an intermittent one."], "note",
            ),
            Grid("Patterns by arm", head, rows, frozenset(range(1, len(head))), frozenset(groups)),
        ]  # fmt: skip
        return section

    # Time to loss -------------------------------------------------------------------------------------------------

    def describe_times(self) -> Section:
        times = self.found.time_to_loss
        section = Section("time", "Time to loss", "When people were lost")
        for gap in times.gaps:
            self.gaps.append(("Time to loss", self.word_gap(self._name_arm_place(gap.place, gap.words))))
        there = {arm: label for arm, label in self.arms.items() if arm in set(times.curves["arm"])}
        if times.people.empty or not there:
            section.blocks.append(self.say_gap(Gap("time to loss", "Nobody is followed in any arm."), "Time to loss"))
            return section
        causes = {cause: label for cause, label in CAUSES.items() if (times.people["outcome"] == cause).any()}
        if not causes:
            section.blocks.append(Words([f"Nobody of {len(times.people):,} was lost, excluded or died so far."]))
            return section
        if len(there) > MOST_LINES:
            section.blocks.append(Words([f"No plot: {len(there)} arms are more than one can show apart."]))
        else:
            section.blocks.append(
                self._plot(
                    draw_time_to_loss(f"time-{at}", times.curves, times.people, there, causes, width)
                    for at, width in _WIDTHS
                )
            )
        section.blocks.append(
            Words(
                ["Cumulative incidence by days since the start, each cause with the others as competing events. "
                 "Whoever returned nothing any more without a word counts as lost from the last day of the first "
                 "wave missed, so the newest waves show too few."], "note",
            )
        )  # fmt: skip
        rows: list[list[str]] = []
        groups: set[int] = set()
        days = sorted(set(times.at_times["day"]))
        days = (
            days if len(days) <= _MOST_DAYS else [days[round(at)] for at in np.linspace(0, len(days) - 1, _MOST_DAYS)]
        )
        for arm, label in there.items():
            groups.add(len(rows))
            rows.append([escape(label), *[""] * (1 + 2 * len(causes))])
            for day in days:
                own = times.at_times[(times.at_times["arm"] == arm) & (times.at_times["day"] == day)]
                if own.empty:
                    continue
                cells = []
                for row in (own[own["cause"] == cause].iloc[0].to_dict() for cause in causes):
                    low_high = _interval(row["low_pct"], row["high_pct"], 1, "%")
                    share = "–" if pd.isna(row["incidence_pct"]) else _percent(row["incidence_pct"])
                    cells += [f"{row['n']:,}", f"{share} ({low_high})" if low_high else share]
                rows.append([f"Day {day}", f"{int(own['n_at_risk'].iloc[0]):,}", *cells])
        head = ["Days since the start", "Still in"]
        for label in causes.values():
            head += [escape(label), "share (95&nbsp;% interval)"]
        section.blocks.append(Grid("Time to loss", head, rows, frozenset(range(1, len(head))), frozenset(groups)))
        return section

    def _name_arm_place(self, place: str, words: str) -> str:
        arm = place.rpartition("arm ")[2] if "arm " in place else ""
        return f"{self.name('arm', arm)}: {words}" if arm else words

    # Differential attrition ---------------------------------------------------------------------------------------

    def collect_differential(self) -> dict[str, Any]:
        table = self.found.differential
        assert isinstance(table, pd.DataFrame)
        own = table[table["of"] == "allocated"]
        pairs = []
        for _, both in own.groupby(["intervention", "comparison"], sort=False):
            by = both.set_index("assumption")
            row = both.iloc[0].to_dict()
            if pd.isna(row["differential_pct"]):
                continue
            cautious, optimistic = (str(by.loc[name, "verdict"]) for name in ("cautious", "optimistic"))
            verdict = {
                ("low", "low"): "low by both limits",
                ("high", "high"): "high by both limits",
                ("high", "low"): "low by the optimistic limit and high by the cautious one",
            }.get((cautious, optimistic), "low by the cautious limit and high by the optimistic one")
            first = by.to_dict("index")["cautious"]
            needed = {side: first[f"more_{side}"] for side in ("intervention", "comparison")}
            more = [
                f"{format_counted(int(n), 'more answer')} in {self.cell('arm', row[side])}"
                for side, n in needed.items()
                if not pd.isna(n) and n
            ]
            pairs.append(
                {
                    "names": self.name_pair(row),
                    "overall": _percent(row["overall_pct"], "", 0),
                    "apart": f"{row['differential_pct']:.1f} points",
                    "verdict": verdict,
                    "is_low": cautious == "low",
                    "is_low_optimistic": optimistic == "low",
                    "more": more,
                }
            )
        return {
            "pairs": pairs if len(pairs) <= _MOST_NAMED else [],
            "n_pairs": len(pairs),
            "n_low": sum(pair["is_low"] for pair in pairs),
            "n_low_optimistic": sum(pair["is_low_optimistic"] for pair in pairs),
            "every": pairs,
        }

    def describe_differential(self) -> Section:
        section = Section("differential", "Differential", "Differential attrition")
        table = self.found.differential
        if isinstance(table, Gap):
            section.blocks.append(self.say_gap(table, "Differential attrition"))
            return section
        boundary = load_boundary()
        told = self.collect_differential()
        if not told["every"]:
            gap = Gap("differential attrition", "In no pair of arms somebody counts on both sides.")
            section.blocks.append(self.say_gap(gap, "Differential attrition"))
            return section
        if len(told["every"]) <= 2 * MOST_LINES:
            section.blocks.append(
                self._plot(draw_boundary(f"boundary-{at}", table, self.arms, boundary, width) for at, width in _WIDTHS)
            )
        lines = [line for pair in told["every"][: 2 * MOST_LINES] for line in self.say("more", pair).paragraphs]
        section.blocks.append(Bullets(lines))
        rows: list[list[str]] = []
        groups: set[int] = set()
        before: Any = None
        for row in table.to_dict("records"):
            if row["of"] != before:
                groups.add(len(rows))
                words = {"allocated": "Of everybody allocated: the rule", "expected": "Of those expected, beside it"}
                rows.append([words[str(row["of"])], *[""] * 7])
                before = row["of"]
            more = [
                "–" if pd.isna(row[f"more_{side}"]) else f"{int(row[f'more_{side}']):,}"
                for side in ("intervention", "comparison")
            ]
            lost = f"{row['lost_intervention']:,} of {row['n_intervention']:,}; " \
                   f"{row['lost_comparison']:,} of {row['n_comparison']:,}"  # fmt: skip
            rows.append(
                [
                    f"{self.name_pair(row)}, {row['assumption']}", lost, _percent(row["overall_pct"], "–", 0),
                    _number(row["differential_pct"], 1), _number(row["limit_pct"], 1),
                    row["verdict"] or escape(row["gap"]),
                    " / ".join(more) if row["verdict"] else "–",
                ]
            )  # fmt: skip
        rows = [row if len(row) < 8 else row[:7] for row in rows]
        head = [
            "Arms, limit", "Lost in each", "Overall", "Apart, points", "Limit, points", "Attrition is",
            "More answers needed in either",
        ]  # fmt: skip
        section.blocks.append(
            Grid("Attrition by the boundary of the What Works Clearinghouse", head, rows, frozenset((2, 3, 4, 6)),
                 frozenset(groups))
        )  # fmt: skip
        return section

    # Equivalence --------------------------------------------------------------------------------------------------

    def collect_equivalence(self) -> list[dict[str, Any]]:
        table = self.found.equivalence
        assert isinstance(table, pd.DataFrame)
        pairs = []
        for _, own in table.groupby(["intervention", "comparison"], sort=False):
            row = own.iloc[0].to_dict()
            compared = own[own["difference"].notna()]
            far = compared[compared["meaning"] == "not_equivalent"]
            far = far.reindex(far["difference"].abs().sort_values(ascending=False, kind="stable").index)
            pairs.append(
                {
                    "names": self.name_pair(row),
                    "n": int((own["n_1"] + own["missing_1"] + own["n_2"] + own["missing_2"]).iloc[0]),
                    "n_compared": len(compared),
                    "n_equivalent": int((compared["meaning"] == "equivalent").sum()),
                    "n_adjust": int((compared["meaning"] == "adjust").sum()),
                    "n_not_equivalent": len(far),
                    "worst": [self._tell_difference(one) for one in far.head(3).to_dict("records")],
                }
            )
        return pairs

    def _tell_difference(self, row: Mapping[Any, Any]) -> str:
        return f"{escape(self._name_row(row))} ({row['difference']:+.2f})"

    def _name_row(self, row: Mapping[Any, Any]) -> str:
        level = str(row["level"])
        term = str(row["characteristic"])
        if level and term == "cohort":
            level = self.name("cohort", level)
        return f"{self.name_term(term)}{f': {shorten(level, _LONGEST)}' if level else ''}"

    def describe_equivalence(self) -> Section:
        section = Section("equivalence", "Equivalence", "Baseline equivalence of those analysed")
        table = self.found.equivalence
        if isinstance(table, Gap):
            section.blocks.append(self.say_gap(table, "Baseline equivalence"))
            return section
        if not self.study.is_randomised:
            words = (
                "The study is not randomised at every site, so no boundary of attrition applies; this stands for it."
            )
            section.blocks.append(Words([words]))
        for pair in self.collect_equivalence()[: 2 * MOST_LINES]:
            section.blocks.append(self.say("equivalence", pair))
        for (one, other), own in list(table.groupby(["intervention", "comparison"], sort=False))[: 2 * MOST_LINES]:
            caption = self.name_pair({"intervention": one, "comparison": other})
            heads = tuple(escape(shorten(self.name("arm", arm), _LONGEST_HEAD)) for arm in (one, other))
            section.blocks.append(self._difference_grid(f"At the baseline: {caption}", own, heads))
        section.blocks.append(Words([f"{'. '.join(MEANINGS.values())}."], "note"))
        return section

    def _difference_grid(self, caption: str, table: pd.DataFrame, heads: Sequence[str]) -> Grid:
        rows: list[list[str]] = []
        for row in table.to_dict("records"):
            is_share = row["measure"] == "cox_index"
            values = []
            for at in (1, 2):
                value = _percent(row[f"value_{at}"]) if is_share else _number(row[f"value_{at}"], 2)
                spread = "" if is_share or pd.isna(row[f"sd_{at}"]) else f" ({row[f'sd_{at}']:.2f})"
                values += [f"{row[f'n_{at}']:,}", f"{value}{spread}"]
            meaning = {"equivalent": "alike", "adjust": "adjust for it", "not_equivalent": "<b>too far apart</b>"}
            rows.append(
                [escape(self._name_row(row)), *values, _number(row["difference"], 2, sign=True),
                 meaning.get(str(row["meaning"]), escape(str(row["gap"])))]
            )  # fmt: skip
        head = ["Characteristic", f"{heads[0]}: n", "mean (SD) or share", f"{heads[1]}: n", "mean (SD) or share",
                "Apart, SD", "Which means"]  # fmt: skip
        return Grid(caption, head, rows, frozenset(range(1, 6)))

    # Who is lost --------------------------------------------------------------------------------------------------

    def collect_lost(self) -> dict[str, Any]:
        table = self.found.lost_differences
        assert isinstance(table, pd.DataFrame)
        compared = table[table["difference"].notna()]
        large = compared[compared["difference"].abs() > 0.25]
        large = large.reindex(large["difference"].abs().sort_values(ascending=False, kind="stable").index)
        first = table.iloc[0] if len(table) else None
        return {
            "n_lost": int(first["n_1"] + first["missing_1"]) if first is not None else 0,
            "n_stayed": int(first["n_2"] + first["missing_2"]) if first is not None else 0,
            "wave": escape(self.wave),
            "n_compared": len(compared),
            "n_large": len(large),
            "large": [
                f"{escape(self._name_row(row))} {'higher' if row['difference'] > 0 else 'lower'} in those lost "
                f"({row['difference']:+.2f})"
                for row in large.head(3).to_dict("records")
            ],
        }

    def describe_lost(self) -> Section:
        section = Section("lost", "Who is lost", "Who is lost")
        table = self.found.lost_differences
        if isinstance(table, Gap):
            section.blocks.append(self.say_gap(table, "Who is lost"))
        else:
            section.blocks.append(self.say("lost", self.collect_lost()))
            given = table[table["difference"].notna()]
            given = given.reindex(given["difference"].abs().sort_values(ascending=False, kind="stable").index)
            given = given.head(MOST_DIFFERENCES)
            if len(given):
                labels = [self._name_row(row) for row in given.to_dict("records")]
                section.blocks.append(
                    self._plot(
                        draw_love(f"love-{at}", labels, given["difference"].tolist(), "Lost less stayed", width)
                        for at, width in _WIDTHS
                    )
                )
            section.blocks.append(self._difference_grid("Those lost and those who stayed", table, ("Lost", "Stayed")))
        model = self.found.loss_model
        section.blocks.append(Heading("Model of loss"))
        if isinstance(model, Gap):
            section.blocks.append(self.say_gap(model, "Model of loss"))
        else:
            section.blocks += self._describe_model(model)
        return section

    def _describe_model(self, model: LossModel) -> list[Any]:
        rows = [
            [
                escape(self.name_term(str(row["term"]))), _number(row["odds_ratio"], 2),
                _interval(row["low"], row["high"], 2) or "–", _p_value(row["p"]), _number(row["df"], 1),
                escape(row["gap"]),
            ]
            for row in model.terms.to_dict("records")
            if row["term"] != "(constant)"
        ]  # fmt: skip
        pairs = find_pairs(self.study.arms)
        reference = f" Arms are compared with {self.cell('arm', pairs[0][1])}." if pairs else ""
        head = ["Term", "Odds ratio", "95&nbsp;% interval", "p", "Degrees of freedom", "Care"]
        if not any(row[-1] for row in rows):
            head, rows = head[:-1], [row[:-1] for row in rows]
        blocks: list[Any] = [
            Words([f"Lost: {model.n_lost:,} of {model.n:,} people at {model.n_sites:,} sites.{reference}"]),
            Grid("Odds of being lost", head, rows, frozenset((1, 2, 3, 4))),
            Words([escape(model.method)], "note"),
        ]  # fmt: skip
        for gap in model.gaps:
            self.gaps.append(("Model of loss", self.word_gap(gap.words)))
        if model.gaps:
            blocks.insert(1, Bullets([escape(self.word_gap(gap.words)) for gap in model.gaps]))
        return blocks

    # Weights ------------------------------------------------------------------------------------------------------

    def collect_weights(self) -> dict[str, Any]:
        weights = self.found.weights
        assert isinstance(weights, Weights)
        return {
            "n": weights.n,
            "effective": f"{weights.effective_n:,.1f}",
            "mean": f"{weights.mean:.3f}",
            "largest": f"{weights.largest:.2f}",
            "n_trimmed": weights.n_trimmed,
        }

    def describe_weights(self) -> Section:
        section = Section("weights", "Weights", "Weights for who was lost")
        weights = self.found.weights
        if isinstance(weights, Gap):
            section.blocks.append(self.say_gap(weights, "Weights"))
        else:
            section.blocks.append(self.say("weights", self.collect_weights()))
            section.blocks.append(Words([escape(self._name_recipe(weights.recipe))], "note"))
        section.blocks.append(
            Words(["They are the column attrition_weight of the table analysis_wide; attrition_weight_status says who "
                   "has none, and why."], "note")
        )  # fmt: skip
        return section

    def _name_recipe(self, recipe: str) -> str:
        before, mark, after = recipe.partition("terms: ")
        terms, semicolon, rest = after.partition("; ")
        names = ", ".join(self.name_term(term) for term in terms.split(", ")) if mark else ""
        return f"{before}{mark}{names}{semicolon}{rest}"

    # What it does to the study ------------------------------------------------------------------------------------

    def collect_detectable(self) -> list[dict[str, Any]]:
        facts = []
        for basis in self.study.power:
            table = self.found.detectable[basis.id]
            if isinstance(table, Gap):
                continue
            table = table[table["cohort"] == ""]
            for _, own in table.groupby(["intervention", "comparison"], sort=False):
                by = own.set_index("when").to_dict("index")
                told = {
                    when: f"{row['effect_sd']:.2f} SD ({row['effect']:.3g} points)"
                    for when, row in by.items()
                    if not pd.isna(row["effect_sd"])
                }
                gap = str(by["now"]["gap"])
                facts.append(
                    {
                        "label": escape(shorten(basis.label, _LONGEST)),
                        "names": self.name_pair(own.iloc[0].to_dict()),
                        "now": told.get("now", ""),
                        "allocated": told.get("allocated", ""),
                        "end": told.get("end", "") if told.get("end") != told.get("now") else "",
                        "gap": f"{gap[0].lower()}{gap[1:]}" if gap else "",
                    }
                )
        return facts

    def describe_detectable(self) -> Section:
        section = Section("detectable", "Detectable effect", "The effect that can still be detected")
        if not self.study.power:
            words = "The protocol has no [[power]]: it does not say what to compute it from."
            section.blocks.append(Words([f"<b>Not given.</b> {words}"]))
            return section
        for basis in self.study.power:
            section.blocks.append(Heading(escape(shorten(basis.label, _LONGEST))))
            table = self.found.detectable[basis.id]
            if isinstance(table, Gap):
                section.blocks.append(self.say_gap(table, f"Detectable effect, {basis.label}"))
                continue
            rows: list[list[str]] = []
            groups: set[int] = set()
            before: Any = None
            for row in table.to_dict("records"):
                of = "Everybody" if row["cohort"] == "" else self.cell("cohort", row["cohort"])
                if table["cohort"].nunique() > 1 and of != before:
                    groups.add(len(rows))
                    rows.append([of, *[""] * 6])
                    before = of
                rows.append(
                    [
                        f"{self.name_pair(row)}: {escape(WHENS[str(row['when'])]).lower()}",
                        f"{row['n_intervention']:,.0f} / {row['n_comparison']:,.0f}", _number(row["n_sites"], 0),
                        _number(row["design_effect"], 2), _number(row["effect_sd"], 2), _number(row["effect"], 2),
                        f"{_number(row['effect_sd_clusters'], 2)} ({_number(row['design_effect_clusters'], 2)})"
                        if not row["gap"] or not pd.isna(row["effect_sd"])
                        else escape(str(row["gap"])),
                    ]
                )  # fmt: skip
            head = ["Arms", "People in each", "Sites", "Design effect", "Effect, SD", "Effect, points",
                    "SD as if sites were allocated (design effect)"]  # fmt: skip
            section.blocks.append(
                Grid(
                    "The smallest difference that would be found", head, rows, frozenset(range(1, 7)), frozenset(groups)
                )
            )
            named = (("Standard deviation", basis.sd), ("ICC of sites", basis.icc),
                     ("Correlation with the baseline", basis.baseline_correlation), ("Power", basis.power),
                     ("Alpha, two-sided", basis.alpha))  # fmt: skip
            section.blocks.append(
                Bullets([f"{words} {value.value:g}: {escape(value.source)}" for words, value in named])
            )
        return section

    # Beside other studies -----------------------------------------------------------------------------------------

    def describe_others(self) -> Section:
        section = Section("others", "Other studies", "Beside other studies")
        values = {mark.id: mark for mark in BENCHMARKS}
        steps = self.count_steps()
        rows: list[list[str]] = []
        before = (0.0, 0)
        for step, words in _STEPS.items():
            mark, own = values[f"ibsen_{step}"], steps[step]
            rows.append(
                [
                    words, f"{mark.value:,.0f}", _percent(100 * mark.value / before[0], "") if before[0] else "",
                    f"{own:,}" if own is not None else "–",
                    _percent(100 * own / before[1]) if own is not None and before[1] else "",
                ]
            )  # fmt: skip
            before = (mark.value, own or 0)
        head = ["Step", "Individual Budgets", "of the step before", "This study", "of the step before"]
        retained = self.found.retained_pct
        shares = [
            [f"{escape(mark.label)}", _percent(mark.value, "", 0)] for mark in BENCHMARKS if mark.unit == "per cent"
        ]
        if not isinstance(retained, Gap):
            shares.append([f"<b>This study, {escape(self.wave)}, window over</b>", f"<b>{_percent(retained)}</b>"])
        sources = dict.fromkeys(mark.source for mark in BENCHMARKS)
        section.blocks += [
            Words([f"{escape(self.found.benchmark)} Other studies had other people, questionnaires and waves: a place "
                   "to start a question from, and no verdict."]),
            Grid("Retention", ["Figure", "Value"], shares, frozenset((1,))),
            Grid("Steps of the evaluation of Individual Budgets (2005 to 2008)", head, rows, frozenset(range(1, 5))),
            Words([escape(source) for source in sources], "note"),
        ]  # fmt: skip
        return section

    def count_steps(self) -> dict[str, int | None]:
        """This study's people at the steps of `_STEPS`; None where it has no such step."""
        people, stages = self.people, list_stages(self.study)
        place = {name: at for at, name in enumerate(STAGES)}
        reached = people["reached"].map(place)
        counts: dict[str, int | None] = {
            "approached": int((reached >= place["approached"]).sum()) if "approached" in stages else None,
            "agreed": int((reached >= place["agreed"]).sum()) if "agreed" in stages else None,
            "baseline": int((people["baseline"] == "in_time").sum()),
            "analysed": None,
        }
        if find_main_analysis(self.study) is not None:
            counts["analysed"] = int((people["analysed"] == 1).sum())
        return counts

    # For a paper --------------------------------------------------------------------------------------------------

    def describe_methods(self) -> Section:
        found = self.found
        facts = {
            "has_times": not found.time_to_loss.curves.empty,
            "is_randomised": self.study.is_randomised,
            "has_pairs": len(self.study.arms) > 1,
            "has_lost": isinstance(found.lost_differences, pd.DataFrame),
            "has_model": isinstance(found.loss_model, LossModel),
            "has_weights": isinstance(found.weights, Weights),
            "has_power": any(isinstance(table, pd.DataFrame) for table in found.detectable.values()),
            "standard": escape(self.flow["standard"]),
            "release": escape(self.release),
            "as_of": format_day(self.as_of),
        }
        told = self.say("methods", facts)
        text = " ".join(told.paragraphs)
        cited = [words for mark, words in CITATIONS.items() if re.search(mark, text)]
        return Section(
            "methods", "Methods", "For a paper: methods",
            [told, Heading("References"), Bullets([escape(words) for words in cited])],
        )  # fmt: skip

    def describe_gaps(self) -> Section:
        section = Section("gaps", "What is missing", "What this report does not say, and why")
        lines = [
            f"<b>{escape(_name_place(self, place))}</b>: {escape(self.word_gap(words))}" for place, words in self.gaps
        ]
        lines = list(dict.fromkeys(lines))
        self.gaps = [(line, "") for line in lines]
        section.blocks.append(Bullets(lines) if lines else Words(["Nothing is missing."]))
        return section

    def _plot(self, drawn: Iterable[str]) -> Plot:
        wide, narrow = drawn
        return Plot(wide, narrow.replace(NAMESPACE, ""))


_WIDTHS = (("wide", WIDE), ("narrow", NARROW))
_STEPS = {
    "approached": "Approached",
    "agreed": "Agreed to take part",
    "baseline": "Baseline in time",
    "analysed": "Analysed",
}
"""Steps that the study is laid beside: of BENCHMARKS, `ibsen_` before them."""

CITATIONS: Mapping[str, str] = {
    "Aalen and Johansen": "Aalen OO, Johansen S. Scandinavian Journal of Statistics 1978;5:141-150.",
    "Bell and McCaffrey": "Bell RM, McCaffrey DF. Survey Methodology 2002;28:169-181.",
    "Borm": "Borm GF, Fransen J, Lemmens WAJG. Journal of Clinical Epidemiology 2007;60:1234-1238.",
    "Cole and": "Cole SR, Hernán MA. American Journal of Epidemiology 2008;168:656-664.",
    "Coviello": "Coviello V, Boggess M. Stata Journal 2004;4:103-112.",
    "Eldridge": "Eldridge SM, Ashby D, Kerry S. International Journal of Epidemiology 2006;35:1292-1300.",
    "Kish": "Kish L. Survey Sampling. Wiley 1965.",
    "Little and Rubin": "Little RJA, Rubin DB. Statistical Analysis with Missing Data, 3rd edition. Wiley 2019.",
    "Pustejovsky": "Pustejovsky JE, Tipton E. Journal of Business and Economic Statistics 2018;36:672-683.",
    "Robins": "Robins JM, Hernán MA, Brumback B. Epidemiology 2000;11:550-560.",
    "Vierron": "Vierron E, Giraudeau B. BMC Medical Research Methodology 2009;9:39.",
    "What Works Clearinghouse": "What Works Clearinghouse. Procedures and Standards Handbook, version 4.1. 2020.",
    "Wilson": "Wilson EB. Journal of the American Statistical Association 1927;22:209-212.",
}


def _unescape(value: Any) -> Any:
    """Words, and those in lists and mappings, as they were before they became HTML."""
    if isinstance(value, str):
        return unescape(value)
    if isinstance(value, Mapping):
        return {name: _unescape(part) for name, part in value.items()}
    return [_unescape(part) for part in value] if isinstance(value, list) else value


def _name_place(report: _Report, place: str) -> str:
    kind, _, code = place.partition(" ")
    if kind in ("arm", "wave") and code:
        return report.name(kind, code)
    return place[:1].upper() + place[1:]


def _name_respondent(name: str) -> str:
    return {"self": "the participants themselves", "proxy": "a proxy", "carer": "a carer", "manager": "a manager"}[name]


def derive_all(table: pd.DataFrame) -> pd.DataFrame:
    """A table of reasons by arm, of all arms together."""
    n_expected = int(table.drop_duplicates("arm")["n_expected"].sum())
    summed = table.groupby(["reason", "reason_kind"], sort=False)["n"].sum().reset_index()
    return summed.assign(arm="all", n_expected=n_expected)


def _tell_counts(row: Mapping[Any, Any]) -> list[str]:
    counts = [f"{int(row[name]):,}" for name in ("n_expected", "n_returned", "n_partial", "n_awaited", "n_missing")]
    rate = [_percent(row["rate_pct"]), _interval(row["rate_low_pct"], row["rate_high_pct"], 0, "%") or "–"]
    return [*counts, *rate, f"{int(row['n_over']):,}", _percent(row["retained_pct"])]


def _percent(value: Any, none: str = "–", decimals: int = 1) -> str:
    return none if pd.isna(value) else f"{value:.{decimals}f}{_NBSP}%"


def _number(value: Any, decimals: int, *, sign: bool = False) -> str:
    if pd.isna(value):
        return "–"
    return f"{value + 0.0:{'+' if sign else ''},.{decimals}f}"


def _interval(low: Any, high: Any, decimals: int, unit: str = "") -> str:
    """ "12.1 to 28.7 %"; "" where there is none."""
    if pd.isna(low) or pd.isna(high):
        return ""
    ends = [f"{value:,.{decimals}f}" if value < 1e6 else "above a million" for value in (low, high)]
    return f"{ends[0]} to {ends[1]}{f'{_NBSP}{unit}' if unit else ''}"


def _p_value(value: Any) -> str:
    if pd.isna(value):
        return "–"
    return "&lt;0.001" if value < 0.001 else f"{value:.3f}"
