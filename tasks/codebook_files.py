"""The codebook as files: a page, JSON, a workbook, and DDI-Codebook XML for archives and catalogues."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from xml.etree import ElementTree

import xlsxwriter  # type: ignore[import-untyped]  # it ships no types

from study.codebook import MISSING_REASON_LABELS, derive_study_codebook, describe_summary
from study.datasets import RESPONSES
from study.labelled import SPSS_MISSING, STATA_MISSING
from tasks.pages import write_codebook_page
from tasks.workspace import Workspace

DDI = "ddi:codebook:2_5"
_FIXED_CREATION = datetime(2000, 1, 1)  # noqa: DTZ001  # workbooks hold no time zone
_WIDTHS = (22, 30, 30, 60, 40, 40, 40, 60)


def write_codebook_files(codebook: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a codebook (`study.codebook.derive_study_codebook`) by name; the same codebook, the same bytes."""
    return {
        "codebook.json": (json.dumps(codebook, indent=2, ensure_ascii=False) + "\n").encode(),
        "codebook.html": write_codebook_page(codebook),
        "codebook.xlsx": encode_codebook_workbook(codebook),
        "codebook.xml": encode_ddi(codebook),
    }


def write_current_codebook(workspace: Workspace) -> list[str]:
    """The codebook of a study by its definitions as they are, before any data. Gives the keys of its files."""
    files = write_codebook_files(derive_study_codebook(workspace.study, workspace.instruments))
    for name, content in files.items():
        workspace.area.put(f"codebook/{name}", content)
    return [f"codebook/{name}" for name in files]


# Workbook -----------------------------------------------------------------------------------------------------------


def encode_codebook_workbook(codebook: Mapping[str, Any]) -> bytes:
    """Sheets of columns, codes, items, scales and missing values; all of it text."""
    buffer = io.BytesIO()
    workbook = xlsxwriter.Workbook(buffer, {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False})
    workbook.set_properties({"title": f"Codebook: {codebook['title']}", "created": _FIXED_CREATION})
    heading = workbook.add_format({"bold": True, "bottom": 1, "text_wrap": True, "valign": "top"})
    wrapped = workbook.add_format({"text_wrap": True, "valign": "top"})
    for title, head, rows in _list_sheets(codebook):
        sheet = workbook.add_worksheet(title)
        for place, text in enumerate(head):
            sheet.set_column(place, place, _WIDTHS[place], wrapped)
            sheet.write_string(0, place, text, heading)
        n_rows = 0
        for n_rows, row in enumerate(rows, start=1):
            for place, text in enumerate(row):
                if text:
                    sheet.write_string(n_rows, place, text, wrapped)
        sheet.freeze_panes(1, 0)
        sheet.set_landscape()
        sheet.fit_to_pages(1, 0)
        sheet.autofilter(0, 0, max(n_rows, 1), len(head) - 1)
    workbook.close()
    return buffer.getvalue()


def _list_sheets(codebook: Mapping[str, Any]) -> Iterable[tuple[str, Sequence[str], Iterable[Sequence[str]]]]:
    """Title, headings and rows of each sheet."""
    yield (
        "columns",
        ("Table", "Column", "In Stata and SPSS", "Meaning", "Type", "Codes", "Why it is missing", "In this release"),
        (
            (
                *(table["name"], column["name"], column["variable"] or ""),
                *(f"{column['label']}. {column['note']}" if column["note"] else column["label"], column["type"]),
                column["codes"] or _join(column["levels"]),
                *(column["reason"], describe_summary(column["summary"])),
            )
            for table in codebook["tables"]
            for column in table["columns"]
        ),
    )
    yield (
        "codes",
        ("List", "Code", "Number in Stata and SPSS", "Meaning"),
        (
            (name, code, "" if name == "site" else str(number), label)
            for name, labels in codebook["codes"].items()
            for number, (code, label) in enumerate(labels.items(), start=1)
        ),
    )
    yield (
        "items",
        (
            *("Instrument", "Item", "Asked if", "Question", "Answers", "Missing codes on the sheet", "Used by scales"),
            "In this release",
        ),
        (
            (
                *(instrument["id"], item["item"], item["asked_if"], item["label"]),
                _join(item["levels"]) or f"{item['minimum']:g} to {item['maximum']:g}",
                _join(item["missing_codes"]),
                *(", ".join(item["scales"]), describe_summary(item["summary"])),
            )
            for instrument in codebook["instruments"]
            for item in instrument["items"]
        ),
    )
    yield (
        "scales",
        ("Instrument", "Scale", "From and to", "Label", "Rule", "Items", "In this release"),
        (
            (
                *(instrument["id"], scale["scale"], f"{scale['minimum']:g} to {scale['maximum']:g}", scale["label"]),
                *(scale["rule"], str(scale["items"]), describe_summary(scale["summary"])),
            )
            for instrument in codebook["instruments"]
            for scale in instrument["scales"]
        ),
    )
    yield (
        "missing values",
        ("Reason", "In Stata", "In SPSS", "Meaning"),
        (
            (reason, f".{STATA_MISSING[reason]}", str(SPSS_MISSING[reason]), label)
            for reason, label in MISSING_REASON_LABELS.items()
        ),
    )
    yield "assumptions", ("Assumption", "Meaning"), ((one["id"], one["text"]) for one in codebook["assumptions"])


def _join(labels: Mapping[str, str]) -> str:
    return "; ".join(f"{code} = {label}" for code, label in labels.items())


# DDI ----------------------------------------------------------------------------------------------------------------


def encode_ddi(codebook: Mapping[str, Any]) -> bytes:
    """DDI-Codebook 2.5: the study, its files, and every variable with labels, categories, missing values and, where
    there are data, counts. Elements stand in the order of the schema (https://ddialliance.org, codebook.xsd)."""
    ElementTree.register_namespace("", DDI)
    root = _element(None, "codeBook", version="2.5")
    citation = _element(_element(root, "stdyDscr"), "citation")
    title = _element(citation, "titlStmt")
    _element(title, "titl", codebook["title"])
    _element(title, "IDNo", codebook["study"])
    _element(_element(citation, "verStmt"), "version", f"Protocol {codebook['protocol_version']}")
    for table in codebook["tables"]:
        text = _element(_element(root, "fileDscr", ID=f"F_{table['name']}"), "fileTxt")
        _element(text, "fileName", f"data/{table['name']}.csv")
        size = _element(text, "dimensns")
        if table["n_rows"] is not None:
            _element(size, "caseQnty", str(table["n_rows"]))
        _element(size, "varQnty", str(len(table["columns"])))
        _element(text, "fileType", "text/csv; charset=utf-8")
    data = _element(root, "dataDscr")
    for table in codebook["tables"]:
        for column in table["columns"]:
            _describe_variable(data, codebook, table["name"], column)
    ElementTree.indent(root, space=" ")
    written: str = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{written}\n'.encode()


def _describe_variable(data: Any, codebook: Mapping[str, Any], table: str, column: Mapping[str, Any]) -> None:
    summary = column["summary"] or {}
    is_coded = bool(column["levels"] or column["codes"])
    kind = "discrete" if is_coded or column["type"] == "text" else "contin"
    of = {"ID": f"V_{table}.{column['name']}", "name": column["name"], "files": f"F_{table}", "intrvl": kind}
    variable = _element(data, "var", **of)
    _element(variable, "labl", column["label"])
    if summary:
        for name, value in (
            ("vald", summary["n"]),
            ("invd", sum(summary["missing"].values())),
            ("min", summary.get("minimum")),
            ("mean", summary.get("mean")),
            ("max", summary.get("maximum")),
        ):
            if value is not None:
                _element(variable, "sumStat", f"{value:.15g}", type=name)
    if column["variable"] and column["variable"] != column["name"]:
        _element(variable, "txt", f"Called {column['variable']} in the files for Stata and SPSS.")
    if column["note"]:
        _element(variable, "txt", column["note"])
    labels = column["levels"] or codebook["codes"].get(column["codes"], {})
    for code, label in labels.items():
        _describe_category(variable, code, label, summary.get("counts", {}).get(code))
    if column["reason"] and table != RESPONSES.name:
        for reason, label in MISSING_REASON_LABELS.items():
            n = summary["missing"].get(reason, 0) if summary else None
            _describe_category(variable, str(SPSS_MISSING[reason]), label, n, is_missing=True)
    written = {"text": "character", "number": "numeric", "date": "character"}[column["type"]]
    dated = {"category": "date"} if column["type"] == "date" else {}
    _element(variable, "varFormat", type=written, schema="other", **dated)


def _describe_category(variable: Any, code: str, label: str, n: int | None, *, is_missing: bool = False) -> None:
    category = _element(variable, "catgry", **({"missing": "Y"} if is_missing else {}))
    _element(category, "catValu", code)
    _element(category, "labl", label)
    if n is not None:
        _element(category, "catStat", str(n), type="freq")


def _element(parent: Any, tag: str, text: str | None = None, **attributes: str) -> Any:
    name = f"{{{DDI}}}{tag}"
    element = ElementTree.Element(name) if parent is None else ElementTree.SubElement(parent, name)
    element.attrib.update(attributes)
    element.text = text
    return element
