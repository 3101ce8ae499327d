"""LibreOffice as a person's hands: types into a workbook, saves it, prints it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.conftest import give_up
from tests.services import ServiceMissing

_MODULE = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE script:module PUBLIC "-//OpenOffice.org//DTD OfficeDocument 1.0//EN" "module.dtd">
<script:module xmlns:script="http://openoffice.org/2000/script" script:name="Module1" script:language="StarBasic">
Dim book As Object
Sub Put(title As String, address As String, text As String)
  sheet = book.Sheets.getByName(title)
  cell = sheet.getCellRangeByName(address)
  If sheet.isProtected() And cell.CellProtection.IsLocked Then Exit Sub
  If book.NumberFormats.getByKey(cell.NumberFormat).Type And com.sun.star.util.NumberFormat.TEXT Then
    cell.setString(text)
  Else
    cell.setFormula(text)
  End If
End Sub
Sub Main
  Dim opening(0) As New com.sun.star.beans.PropertyValue
  opening(0).Name = "Hidden"
  opening(0).Value = True
  book = StarDesktop.loadComponentFromURL("{source}", "_blank", 0, opening())
{lines}
  Dim saving(0) As New com.sun.star.beans.PropertyValue
  saving(0).Name = "FilterName"
  saving(0).Value = "Calc MS Excel 2007 XML"
  book.storeToURL("{target}", saving())
  book.close(True)
End Sub
</script:module>
"""


def _run(folder: Path, *arguments: str) -> None:
    soffice = shutil.which("soffice")
    if soffice is None:
        give_up(ServiceMissing("LibreOffice is not on this machine. Install it: apt-get install libreoffice-calc."))
    profile = f"-env:UserInstallation={(folder / 'profile').as_uri()}"
    command = [soffice, profile, "--headless", "--norestore", *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=180)


def fill_in(data: bytes, cells: Iterable[tuple[str, str, str]], folder: Path) -> bytes:
    """The workbook after somebody typed texts into cells (sheet, cell, text), one after the other, and saved it.

    Cells that LibreOffice holds to be locked are left as they are, and what is typed into a cell for text stays text:
    so does the keyboard, and a macro by itself would not. Dates are read as in the United States, or written out.
    """
    source, target = folder / "opened.xlsx", folder / "saved.xlsx"
    source.write_bytes(data)
    target.unlink(missing_ok=True)
    _run(folder, "--convert-to", "pdf", "--outdir", str(folder / "printed"), str(source))  # makes the profile
    lines = "\n".join("  Put({}, {}, {})".format(*map(_quote, cell)) for cell in cells)
    module = _MODULE.replace("{source}", source.as_uri()).replace("{target}", target.as_uri()).replace("{lines}", lines)
    (folder / "profile" / "user" / "basic" / "Standard" / "Module1.xba").write_text(module, encoding="utf-8")
    _run(folder, "macro:///Standard.Module1.Main")
    return target.read_bytes()


def _quote(text: str) -> str:
    """A text of Basic, within XML."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', '""')
    return f'"{escaped}"'
