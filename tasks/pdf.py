"""Reports on paper: PDF of headings, words, tables and the figures that our pages have, with fonts embedded.

Needs nothing but Python packages: reportlab lays out and writes, DejaVu Sans comes with matplotlib. The same report
gives the same bytes: the moment in the file and its id follow from the report.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from html import escape, unescape
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from reportlab.lib.colors import HexColor, toColor  # type: ignore[import-untyped]  # it ships no types
from reportlab.lib.pagesizes import A4  # type: ignore[import-untyped]  # it ships no types
from reportlab.lib.styles import ParagraphStyle  # type: ignore[import-untyped]  # it ships no types
from reportlab.lib.utils import TimeStamp  # type: ignore[import-untyped]  # it ships no types
from reportlab.pdfbase import pdfmetrics  # type: ignore[import-untyped]  # it ships no types
from reportlab.pdfbase.ttfonts import TTFont  # type: ignore[import-untyped]  # it ships no types
from reportlab.pdfgen.canvas import Canvas as PdfCanvas  # type: ignore[import-untyped]  # it ships no types
from reportlab.platypus import (  # type: ignore[import-untyped]  # it ships no types
    BaseDocTemplate,
    CondPageBreak,
    Flowable,
    Frame,
    ListFlowable,
    ListItem,
    PageTemplate,
    Paragraph,
    Spacer,
    Table,
)

from tasks.drawing import EDGE, INK, RULE, SOFT, TINT

UNKNOWN_SIGN = "\N{WHITE SQUARE}"
"""In the place of a sign that the font lacks."""

_MARGIN, _FOOT = 45.0, 50.0
_WIDTH, _HEIGHT = A4[0] - 2 * _MARGIN, A4[1] - _MARGIN - _FOOT
_SIZE = 8.6
_WHOLE = 12
"""Rows of a table, or of a part of one under a heading, that stay on one page."""
_TOGETHER = 3
"""Rows at the end of a table that are not parted."""
_HIGHEST, _LEAST_SCALE = 0.88 * _HEIGHT, 0.5
"""Of a figure: how high it may be, and how small at least before it is cut."""
_FIGURE_FONT = 0.92
"""DejaVu Sans is wider than the fonts for which figures are laid out."""
_FACES = {"": "DejaVuSans", "Bold": "DejaVuSans-Bold", "Oblique": "DejaVuSans-Oblique"}
_TAG = re.compile(r"<[^>]*>")


@cache
def _load_fonts() -> frozenset[int]:
    """Registers the fonts; gives the signs that they have."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for name in _FACES.values():
        pdfmetrics.registerFont(TTFont(name, str(folder / f"{name}.ttf")))
    pdfmetrics.registerFontFamily(
        _FACES[""], normal=_FACES[""], bold=_FACES["Bold"], italic=_FACES["Oblique"], boldItalic=_FACES["Bold"]
    )
    return frozenset.intersection(*(frozenset(pdfmetrics.getFont(name).face.charToGlyph) for name in _FACES.values()))


def make_printable(words: str) -> str:
    """Words in signs that the font has; UNKNOWN_SIGN for others, nothing for those that take no room."""
    known = _load_fonts()
    spaces = {
        "\n": " ",
        "\t": " ",
        "\N{SOFT HYPHEN}": "",
        "\N{ZERO WIDTH SPACE}": "",
        "\N{NARROW NO-BREAK SPACE}": "\xa0",
    }
    return "".join(
        letter if ord(letter) in known and ord(letter) >= 32 else spaces.get(letter, UNKNOWN_SIGN) for letter in words
    )


@dataclass(frozen=True)
class PaperTable:
    """A table: words as HTML fragments (b, i, a). `numbers`: places of the columns that are set to the right. `groups`:
    rows that head those after them, by place; they have one cell."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int]
    groups: frozenset[int] = frozenset()


class PaperReport:
    """A report in the making. `foot`: what stands at the foot of each page. `moment`: that of the file."""

    def __init__(self, title: str, foot: str, moment: datetime) -> None:
        _load_fonts()
        self.title, self.foot, self.moment = make_printable(title), make_printable(foot), moment
        self.parts: list[Any] = []
        base = {
            "fontName": _FACES[""],
            "fontSize": _SIZE,
            "leading": _SIZE * 1.42,
            "textColor": HexColor(INK),
            "bulletFontName": _FACES[""],
        }
        bold = {**base, "fontName": _FACES["Bold"]}
        self.styles = {
            "title": ParagraphStyle("title", **{**bold, "fontSize": 17, "leading": 21}, spaceAfter=4),
            "h2": ParagraphStyle("h2", **{**bold, "fontSize": 12.5, "leading": 16}, spaceBefore=14, spaceAfter=4),
            "h3": ParagraphStyle("h3", **{**bold, "fontSize": 9.6, "leading": 13}, spaceBefore=8, spaceAfter=2),
            "p": ParagraphStyle("p", **base, spaceAfter=4, splitLongWords=1),
            "lead": ParagraphStyle("lead", **{**base, "fontSize": 9.6, "leading": 14}, spaceAfter=5),
            "note": ParagraphStyle("note", **{**base, "fontSize": 7.4, "leading": 10.4, "textColor": HexColor(SOFT)}),
            "cell": ParagraphStyle("cell", **{**base, "fontSize": 7.3, "leading": 9.6}),
            "head": ParagraphStyle("head", **{**bold, "fontSize": 7.1, "leading": 9}),
            "head_n": ParagraphStyle("head_n", **{**bold, "fontSize": 7.1, "leading": 9}, alignment=2),
            "caption": ParagraphStyle("caption", **{**bold, "fontSize": 8}, spaceBefore=6, spaceAfter=3),
            "figure": ParagraphStyle("figure", **{**bold, "fontSize": 14, "leading": 17}),
        }

    def _paragraph(self, words: str, style: str) -> Any:
        """Words as an HTML fragment, in signs that the font has."""
        parts = re.split(r"(<[^>]*>)", words)
        text = "".join(
            part if _TAG.fullmatch(part) else escape(make_printable(unescape(part)), False) for part in parts
        )
        return Paragraph(text, self.styles[style])

    def add_title(self, words: str, lines: Sequence[str]) -> None:
        self.parts += [
            self._paragraph(words, "title"),
            *(self._paragraph(line, "note") for line in lines),
            Spacer(0, 8),
        ]

    def add_heading(self, words: str, level: int = 2) -> None:
        heading = self._paragraph(words, f"h{level}")
        if level == 2:
            heading.outline = make_printable(unescape(_TAG.sub("", words)))
            rule = _Rule()
            rule.keepWithNext = True
            self.parts += [CondPageBreak(160), rule]
        heading.keepWithNext = True
        self.parts.append(heading)

    def add_text(self, words: str, style: str = "p", *, is_kept: bool = False) -> None:
        """A paragraph; `is_kept`: on the page of what follows."""
        paragraph = self._paragraph(words, style)
        paragraph.keepWithNext = is_kept
        self.parts.append(paragraph)

    def add_list(self, lines: Sequence[str]) -> None:
        items = [ListItem(self._paragraph(line, "p"), leftIndent=11, bulletColor=HexColor(EDGE)) for line in lines]
        self.parts.append(
            ListFlowable(
                items, bulletType="bullet", start="•", bulletFontName=_FACES[""], bulletFontSize=_SIZE, leftIndent=11
            )
        )
        self.parts.append(Spacer(0, 3))

    def add_figures(self, figures: Sequence[tuple[str, str]]) -> None:
        """Large numbers with the words for each, side by side."""
        cells = [[self._paragraph(number, "figure"), self._paragraph(words, "note")] for number, words in figures]
        table = Table([cells], colWidths=[_WIDTH / max(len(cells), 1)] * len(cells))
        style: list[Any] = [("BACKGROUND", (0, 0), (-1, -1), HexColor(TINT)), ("VALIGN", (0, 0), (-1, -1), "TOP")]
        style.append(("FONT", (0, 0), (-1, -1), _FACES[""], 7.3))
        style += [("LINEBEFORE", (at, 0), (at, 0), 2.5, HexColor(EDGE)) for at in range(len(cells))]
        table.setStyle(style)
        self.parts += [table, Spacer(0, 8)]

    def add_figure(self, svg: str) -> None:
        """A figure of `tasks.drawing`, as wide as the page at most and nearly as high. One that would become too small
        to read is cut between its boxes, and goes on on the next page."""
        root = ElementTree.fromstring(svg)  # noqa: S314 - our own figure
        _, _, width, height = (float(part) for part in root.attrib["viewBox"].split())
        ends = [0.0, height]
        while _HIGHEST / max(after - before for before, after in pairwise(ends)) < _LEAST_SCALE:
            longest = max(range(len(ends) - 1), key=lambda at: ends[at + 1] - ends[at])
            cut = _find_cut(root, ends[longest], ends[longest + 1])
            if cut is None:
                break
            ends.insert(longest + 1, cut)
        scale = min(_WIDTH / width, 0.75, *(_HIGHEST / (after - before) for before, after in pairwise(ends)))
        for before, after in pairwise(ends):
            self.parts += [_Figure(root, width, before, after, scale), Spacer(0, 4)]

    def add_table(self, table: PaperTable) -> None:
        rows: list[list[Any]] = [
            [self._paragraph(words, "head_n" if at in table.numbers else "head") for at, words in enumerate(table.head)]
        ]
        style: list[Any] = [
            ("FONT", (0, 0), (-1, -1), _FACES[""], 7.3),
            ("TEXTCOLOR", (0, 0), (-1, -1), HexColor(INK)),
            ("VALIGN", (0, 0), (-1, 0), "BOTTOM"),
            ("VALIGN", (0, 1), (-1, -1), "TOP"),
            ("LINEBELOW", (0, 0), (-1, 0), 0.9, HexColor(INK)),
            ("LINEBELOW", (0, 1), (-1, -1), 0.35, HexColor(RULE)),
            ("LEFTPADDING", (0, 0), (-1, -1), 3),
            ("RIGHTPADDING", (0, 0), (-1, -1), 3),
            ("TOPPADDING", (0, 0), (-1, -1), 2),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
            *(("ALIGN", (at, 0), (at, -1), "RIGHT") for at in table.numbers),
        ]
        for number, row in enumerate(table.rows):
            if number in table.groups:
                rows.append([self._paragraph(f"<b>{row[0]}</b>", "cell"), *[""] * (len(table.head) - 1)])
                style.append(("SPAN", (0, number + 1), (-1, number + 1)))
                style.append(("TOPPADDING", (0, number + 1), (-1, number + 1), 5))
                end = min((other for other in table.groups if other > number), default=len(table.rows))
                style.append(("NOSPLIT", (0, number + 1), (-1, end if end - number < _WHOLE else number + 2)))
                continue
            rows.append(
                [
                    make_printable(unescape(_TAG.sub("", words)))
                    if at in table.numbers
                    else self._paragraph(words, "cell")
                    for at, words in enumerate(row)
                ]
            )
        style.append(("NOSPLIT", (0, max(len(rows) - _TOGETHER, 0)), (-1, -1)))
        widths = _find_widths(table)
        laid = Table(rows, colWidths=widths, repeatRows=1, hAlign="LEFT")
        laid.setStyle(style)
        caption = self._paragraph(table.caption, "caption")
        caption.keepWithNext = len(rows) < _WHOLE
        self.parts += [*([] if len(rows) < _WHOLE else [CondPageBreak(160)]), caption, laid, Spacer(0, 6)]

    def write(self) -> bytes:
        sink = io.BytesIO()
        moment, title, foot = self.moment, self.title, self.foot

        class Pages(_Pages):
            def __init__(self, *places: Any, **how: Any) -> None:
                super().__init__(*places, **{**how, "invariant": 1, "lang": "en-GB", "initialFontName": _FACES[""]})
                self._doc._timeStamp = _make_stamp(moment)
                self.foot = foot

        document = _Document(sink, pagesize=A4, title=title, author="Summative", creator="Summative", invariant=1)
        frame = Frame(_MARGIN, _FOOT, _WIDTH, _HEIGHT, 0, 0, 0, 0)
        document.addPageTemplates([PageTemplate(frames=[frame])])
        document.build(self.parts, canvasmaker=Pages)
        return sink.getvalue()


def _make_stamp(moment: datetime) -> Any:
    stamp = TimeStamp(1)
    local = moment.astimezone(UTC)
    stamp.t, stamp.lt = local.timestamp(), local.utctimetuple()
    stamp.YMDhms, stamp.dhh, stamp.dmm, stamp.tzname = tuple(stamp.lt)[:6], 0, 0, "UTC"
    return stamp


def _find_widths(table: PaperTable) -> list[float]:
    """Numbers take what they need; words share what is left, by what they would need."""
    plain = [[make_printable(unescape(_TAG.sub("", words))) for words in row] for row in table.rows]
    body = [row for number, row in enumerate(plain) if number not in table.groups]
    needed, least = [], []
    for at, head in enumerate(table.head):
        words = make_printable(unescape(_TAG.sub("", head)))
        longest = max((pdfmetrics.stringWidth(word, _FACES["Bold"], 7.1) for word in words.split()), default=0.0)
        whole = pdfmetrics.stringWidth(words, _FACES["Bold"], 7.1)
        cells = max((pdfmetrics.stringWidth(row[at], _FACES[""], 7.3) for row in body), default=0.0)
        if at in table.numbers:
            least.append(max(longest, cells) + 7)
            needed.append(max(min(whole, longest * 1.6), cells) + 7)
        else:
            least.append(min(max(longest, cells) + 7, 60))
            needed.append(max(longest, cells, min(whole, 80)) + 7)
    if sum(needed) <= _WIDTH:
        return needed
    texts = [at for at in range(len(table.head)) if at not in table.numbers]
    widths = [min(least[at], _WIDTH / 2) for at in range(len(table.head))]
    room = max(_WIDTH - sum(widths), 0.0)
    wanted = sum(needed[at] - widths[at] for at in texts) or 1.0
    for at in texts:
        widths[at] += room * max(needed[at] - widths[at], 0.0) / wanted
    return [width * min(1.0, _WIDTH / sum(widths)) for width in widths]


def _find_cut(root: Any, before: float, after: float) -> float | None:
    """Where a figure can be cut between its boxes, nearest to the middle; None if nowhere."""
    boxes = [(float(a["y"]), float(a["y"]) + float(a["height"])) for a in
             (element.attrib for element in root if element.tag.endswith("rect"))]  # fmt: skip
    free = [
        below + 3
        for _, below in boxes
        if before + 40 < below < after - 40 and not any(top < below + 3 < bottom for top, bottom in boxes)
    ]
    return min(free, key=lambda place: abs(place - (before + after) / 2), default=None)


class _Document(BaseDocTemplate):  # type: ignore[misc]  # of a library without types
    """Puts each main heading among the bookmarks."""

    def afterFlowable(self, part: Any) -> None:
        if outline := getattr(part, "outline", ""):
            key = f"part-{self.page}-{self.frame._y:.0f}"
            self.canv.bookmarkPage(key)
            self.canv.addOutlineEntry(outline, key, 0)


class _Pages(PdfCanvas):  # type: ignore[misc]  # of a library without types
    """Numbers the pages when it is known how many there are."""

    foot = ""

    def __init__(self, *places: Any, **how: Any) -> None:
        super().__init__(*places, **how)
        self._held: list[dict[str, Any]] = []

    def showPage(self) -> None:
        self._held.append(dict(self.__dict__))
        self._startPage()

    def save(self) -> None:
        for number, state in enumerate(self._held, start=1):
            self.__dict__.update(state)
            self.setFont(_FACES[""], 7)
            self.setFillColor(HexColor(SOFT))
            self.drawString(_MARGIN, _FOOT - 22, self.foot)
            self.drawRightString(A4[0] - _MARGIN, _FOOT - 22, f"{number} of {len(self._held)}")
            super().showPage()
        super().save()


class _Rule(Flowable):  # type: ignore[misc]  # of a library without types
    def wrap(self, width: float, height: float) -> tuple[float, float]:
        return width, 10.0

    def draw(self) -> None:
        self.canv.setStrokeColor(HexColor(EDGE))
        self.canv.setLineWidth(1.2)
        self.canv.line(0, 0, _WIDTH, 0)


class _Figure(Flowable):  # type: ignore[misc]  # of a library without types
    """The elements of a figure of `tasks.drawing` between two heights, drawn on paper."""

    def __init__(self, root: Any, width: float, before: float, after: float, scale: float) -> None:
        super().__init__()
        self.root, self.scale, self.high = root, scale, after
        self.width, self.height = width * scale, (after - before) * scale

    def wrap(self, width: float, height: float) -> tuple[float, float]:
        return self.width, self.height

    def draw(self) -> None:
        shown = self.canv.beginPath()
        shown.rect(-2, -2, self.width + 4, self.height + 4)
        self.canv.clipPath(shown, stroke=0, fill=0)
        self.canv.scale(self.scale, self.scale)
        for element in self.root:
            tag = element.tag.rpartition("}")[2]
            if draw := getattr(self, f"_draw_{tag}", None):
                self.canv.saveState()
                draw(element.attrib, element)
                self.canv.restoreState()

    def _take_colours(self, attributes: dict[str, str]) -> dict[str, int]:
        fill, stroke = attributes.get("fill", INK), attributes.get("stroke", "none")
        if fill != "none":
            self.canv.setFillColor(toColor(_lengthen(fill)))
            self.canv.setFillAlpha(float(attributes.get("fill-opacity", "1")))
        if stroke != "none":
            self.canv.setStrokeColor(toColor(_lengthen(stroke)))
            self.canv.setLineWidth(float(attributes.get("stroke-width", "1")))
            if dash := attributes.get("stroke-dasharray"):
                self.canv.setDash([float(part) for part in dash.replace(",", " ").split()])
        return {"fill": int(fill != "none"), "stroke": int(stroke != "none")}

    def _draw_rect(self, a: dict[str, str], _: Any) -> None:
        x, y, width, height = (float(a[name]) for name in ("x", "y", "width", "height"))
        self.canv.rect(x, self.high - y - height, width, height, **self._take_colours(a))

    def _draw_circle(self, a: dict[str, str], _: Any) -> None:
        self.canv.circle(float(a["cx"]), self.high - float(a["cy"]), float(a["r"]), **self._take_colours(a))

    def _trace(self, points: str) -> tuple[Any, list[tuple[float, float]]]:
        path = self.canv.beginPath()
        places = [
            (float(x), self.high - float(y)) for x, y in (pair.split(",") for pair in points.replace(", ", ",").split())
        ]
        path.moveTo(*places[0])
        for place in places[1:]:
            path.lineTo(*place)
        return path, places

    def _draw_polygon(self, a: dict[str, str], _: Any) -> None:
        path, _ = self._trace(a["points"])
        path.close()
        self.canv.drawPath(path, **self._take_colours(a))

    def _draw_polyline(self, a: dict[str, str], _: Any) -> None:
        path, places = self._trace(a["points"])
        self.canv.drawPath(path, **self._take_colours(a))
        if "marker-end" in a and len(places) > 1:
            (x0, y0), (x, y) = places[-2], places[-1]
            length = max(((x - x0) ** 2 + (y - y0) ** 2) ** 0.5, 1e-9)
            along, across = (
                ((x - x0) / length * 8, (y - y0) / length * 8),
                ((y - y0) / length * 4, (x0 - x) / length * 4),
            )
            head = self.canv.beginPath()
            head.moveTo(x, y)
            head.lineTo(x - along[0] + across[0], y - along[1] + across[1])
            head.lineTo(x - along[0] - across[0], y - along[1] - across[1])
            head.close()
            self.canv.setFillColor(toColor(_lengthen(a["stroke"])))
            self.canv.drawPath(head, fill=1, stroke=0)

    def _draw_text(self, a: dict[str, str], element: Any) -> None:
        words, x, y = make_printable("".join(element.itertext())), float(a["x"]), self.high - float(a["y"])
        size = float(a.get("font-size", "12")) * _FIGURE_FONT
        self.canv.setFont(_FACES["Bold" if a.get("font-weight") == "bold" else ""], size)
        self._take_colours(a)
        if turned := a.get("transform", ""):
            degrees, turn_x, turn_y = (float(part) for part in turned[7:-1].split())
            self.canv.translate(turn_x, self.high - turn_y)
            self.canv.rotate(-degrees)
            x, y = x - turn_x, y - (self.high - turn_y)
        anchor = a.get("text-anchor", "start")
        write = {"start": self.canv.drawString, "end": self.canv.drawRightString, "middle": self.canv.drawCentredString}
        write[anchor](x, y, words)


def _lengthen(colour: str) -> str:
    return f"#{''.join(2 * digit for digit in colour[1:])}" if re.fullmatch("#[0-9a-f]{3}", colour) else colour
