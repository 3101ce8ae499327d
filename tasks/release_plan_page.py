"""What a coordinator looks at before sending: a page and a workbook of what would go where, what is held, and why."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import date, datetime, time
from typing import Any

import pandas as pd

from study.calendar import format_day, format_short_day
from study.holds import HOLDS
from study.releasing import GOES, HELD, WAITS, WORDS, ReleasePlan, find_open_claims
from tasks.pages import format_list, format_moment_for_people, render_page
from tasks.workbooks import Book, find_row_height, set_up_print, write_lines

_ROWS_SHOWN = 200
"""Of one kind at one site on the page; the workbook has all of them."""

_COLUMNS = (
    ("site", "Site", 22.0), ("participant_id", "Participant", 14.0), ("wave", "Wave", 20.0),
    ("respondent", "Respondent", 12.0), ("form", "Form", 12.0), ("questionnaires", "Questionnaires", 34.0),
    ("copy_number", "Copy", 7.0), ("opens_on", "Opens", 12.0), ("due_on", "Due", 12.0), ("closes_on", "Closes", 12.0),
)  # fmt: skip
_DAYS = ("opens_on", "due_on", "closes_on")


def write_release_plan_page(plan: ReleasePlan, written_at: datetime, banner: str = "") -> bytes:
    """The plan as one page of HTML. Each person is named by identifier alone. `banner`: stands above all else."""
    counts = plan.rows["decision"].value_counts()
    return render_page(
        "release_plan.html.jinja",
        title=f"What would be sent: {plan.study.title}",
        banner=banner,
        study=plan.study,
        as_of=format_day(plan.as_of),
        written_at=format_moment_for_people(written_at),
        head=plan.head,
        n_going=plan.n_going,
        n_waiting=int(counts.get(WAITS, 0)),
        n_held=int(counts.get(HELD, 0)),
        n_by_word=int((plan.going["word"] != "").sum()),
        n_sites=plan.going["site_id"].nunique(),
        waves=format_list(_name_wave(plan, wave) for wave in plan.waves if plan.study.fieldwork.find_release(wave)),
        places=format_list(_name_site(plan, site) for site in plan.sites) if _is_part(plan) else "all sites",
        is_scheduled=plan.is_scheduled,
        summary=_describe_counts(plan),
        sites=[_describe_site(plan, site_id) for site_id in _list_sites(plan)],
        holds=_describe_holds(plan),
        left=[
            {"pack": row["pack_id"], "site": _name_site(plan, row["site_id"]), "n": row["n_returns"]}
            for row in find_open_claims(plan.events).to_dict("records")
            if row["site_id"] in plan.sites
        ],
        rows_shown=_ROWS_SHOWN,
    )


def _is_part(plan: ReleasePlan) -> bool:
    return len(plan.sites) < len(plan.study.sites)


def _name_site(plan: ReleasePlan, site_id: str) -> str:
    site = plan.study.find_site(site_id)
    return site.name if site else site_id


def _name_wave(plan: ReleasePlan, wave_id: str) -> str:
    wave = plan.study.find_wave(wave_id)
    return wave.label if wave else wave_id


def _describe_words(word: str) -> str:
    return " ".join(WORDS[code] for code in word.split(";") if code)


def _describe_why(row: Any) -> str:
    """Why a row does not go, or by which word it does."""
    if row["decision"] == HELD:
        return "; ".join(HOLDS[code].words for code in row["holds"].split(";"))
    return _describe_words(row["word"])


def _describe_to_do(row: Any) -> str:
    if row["decision"] == HELD:
        return "; ".join(dict.fromkeys(HOLDS[code].to_do for code in row["holds"].split(";")))
    return "Send it with the count of this plan" if row["decision"] == WAITS else ""


def _describe_row(plan: ReleasePlan, row: Any) -> dict[str, Any]:
    """One questionnaire in words; days as dates, None where there is none."""
    return {
        "site": _name_site(plan, row["site_id"]),
        "participant_id": row["participant_id"],
        "wave": _name_wave(plan, row["wave"]),
        "respondent": row["respondent"],
        "form": row["form"].replace("_", " "),
        "questionnaires": row["instruments"].replace(";", ", "),
        "copy_number": row["copy_number"],
        **{name: None if pd.isna(row[name]) else row[name].date() for name in _DAYS},
        "why": _describe_why(row),
        "to_do": _describe_to_do(row),
    }


def _list_sites(plan: ReleasePlan) -> list[str]:
    """Sites of which there is anything to say."""
    named = {*plan.rows["site_id"], *plan.sites_with_work}
    return [site_id for site_id in plan.sites if site_id in named]


def _describe_counts(plan: ReleasePlan) -> list[dict[str, Any]]:
    return [
        {
            "site": _name_site(plan, row["site_id"]),
            "wave": _name_wave(plan, row["wave"]),
            **{decision: row[decision] for decision in (GOES, WAITS, HELD)},
        }
        for row in plan.count().to_dict("records")
    ]


def _describe_site(plan: ReleasePlan, site_id: str) -> dict[str, Any]:
    rows = plan.rows[plan.rows["site_id"] == site_id]
    block = plan.blocks[plan.blocks["site_id"] == site_id]
    parts = {decision: rows[rows["decision"] == decision] for decision in (GOES, WAITS, HELD)}
    return {
        "site_id": site_id,
        "name": _name_site(plan, site_id),
        "is_served": site_id in plan.sites_with_work,
        "n": {decision: len(part) for decision, part in parts.items()},
        "rows": {
            decision: [_show_days(_describe_row(plan, row)) for row in part[:_ROWS_SHOWN].to_dict("records")]
            for decision, part in parts.items()
        },
        "n_numbers": int(block["n_numbers"].sum()),
        "n_queries": int((plan.queries["site_id"] == site_id).sum()),
        "n_figures": int((plan.figures["site_id"] == site_id).sum()),
    }


def _show_days(row: dict[str, Any]) -> dict[str, Any]:
    return row | {name: _show_day(row[name]) for name in _DAYS}


def _show_day(day: date | None) -> str:
    return format_short_day(day) if day else "–"


def _describe_holds(plan: ReleasePlan) -> list[dict[str, Any]]:
    """Each hold with how many it holds, the most actionable first."""
    held = plan.rows.loc[plan.rows["decision"] == HELD, "holds"].str.split(";").explode().value_counts()
    return [
        {"words": hold.words, "n": int(held[code]), "to_do": hold.to_do, "by": hold.by.replace("_", " ")}
        for code, hold in HOLDS.items()
        if code in held
    ]


# The workbook -------------------------------------------------------------------------------------------------------


def write_release_plan_workbook(plan: ReleasePlan) -> bytes:
    """The plan as a workbook to filter and pass on: what goes, what waits for a word, what is held. The same plan gives
    the same bytes."""
    buffer = io.BytesIO()
    with Book(buffer, f"{plan.study.title}: what would be sent", plan.as_of) as book:
        _write_summary(book, plan)
        for title, decision in (("Goes", GOES), ("Waits for a word", WAITS), ("Held", HELD)):
            rows = plan.rows[plan.rows["decision"] == decision]
            _write_rows(book, plan, title, [_describe_row(plan, row) for row in rows.to_dict("records")])
        book.write_lists()
    return buffer.getvalue()


def _write_summary(book: Book, plan: ReleasePlan) -> None:
    sheet = book.add_sheet("Plan")
    widths = (26, 26, 12, 12, 12)
    for column, width in enumerate(widths):
        sheet.set_column(column, column, width, book.find_format("prose"))
    sheet.set_row(0, 28)
    sheet.write_string(0, 0, plan.study.title, book.find_format("title"))
    sheet.write_string(1, 0, f"What would be sent on {format_day(plan.as_of)}", book.find_format("subtitle"))
    lines = [
        f"{plan.n_going:,} questionnaires would go. Nothing has been sent: whoever sends gives this count, and if "
        "something is recorded meanwhile that changes the plan, nothing goes.",
        "What is held goes by nobody's word. Each row says why, and what ends it.",
        f"Drawn up from row {plan.head.seq} of the ledger, {plan.head.hash[:16]}.",
    ]
    row = write_lines(book, sheet, 3, "How to read it", lines, last_column=4, width=sum(widths)) + 1
    for column, heading in enumerate(("Site", "Wave", "Go", "Wait", "Held")):
        sheet.write_string(row, column, heading, book.find_format("head"))
    for counted in _describe_counts(plan):
        row += 1
        for column, name in enumerate(("site", "wave")):
            sheet.write_string(row, column, counted[name], book.find_format("text"))
        for column, name in enumerate((GOES, WAITS, HELD), start=2):
            sheet.write_number(row, column, counted[name], book.find_format("count"))
    row += 2
    for column, heading in enumerate(("Site", "New identifiers", "Queries", "Months owed")):
        sheet.write_string(row, column, heading, book.find_format("head"))
    for site_id in _list_sites(plan):
        row += 1
        site = _describe_site(plan, site_id)
        sheet.write_string(row, 0, site["name"], book.find_format("text"))
        for column, name in enumerate(("n_numbers", "n_queries", "n_figures"), start=1):
            sheet.write_number(row, column, site[name], book.find_format("count"))
    set_up_print(sheet, f"{plan.study.study_id}  ·  {format_day(plan.as_of)}", 1)
    sheet.activate()


def _write_rows(book: Book, plan: ReleasePlan, title: str, rows: Sequence[dict[str, Any]]) -> None:
    sheet = book.add_sheet(title)
    columns = [*_COLUMNS, ("why", "Why", 46.0), ("to_do", "What to do", 46.0)]
    for column, (_, label, width) in enumerate(columns):
        sheet.set_column(column, column, width)
        sheet.write_string(0, column, label, book.find_format("head"))
    for number, row in enumerate(rows, start=1):
        for column, (name, _, _) in enumerate(columns):
            value = row[name]
            if name in _DAYS:
                if value is None:
                    sheet.write_blank(number, column, None, book.find_format("date"))
                else:
                    sheet.write_datetime(number, column, datetime.combine(value, time()), book.find_format("date"))
            elif name == "copy_number":
                sheet.write_number(number, column, value, book.find_format("count"))
            else:
                sheet.write_string(number, column, value, book.find_format("wrapped"))
        texts = [(row[name], width) for name, _, width in columns if name in ("questionnaires", "why", "to_do")]
        sheet.set_row(number, find_row_height(*zip(*texts, strict=True)))
    sheet.freeze_panes(1, 2)
    sheet.autofilter(0, 0, max(len(rows), 1), len(columns) - 1)
    sheet.repeat_rows(0)
    set_up_print(sheet, f"{plan.study.study_id}  ·  {format_day(plan.as_of)}  ·  {title}", 1)
