"""What tests need from outside Python, found or fetched before they run: `python -m tests.provide`.

PostgreSQL's server programs, the browser Chromium, a font, LibreOffice, a reader of PDF, two mail servers and R with
its reader of Stata's and SPSS's files come from the system's packages, where this runs as root on a system with apt;
axe-core, which judges whether a page is accessible, from a package that bundles it.
Nothing here fails: what is missing is named with the way to get it, and its tests skip, or fail where CI is set.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

AXE = Path(sys.prefix) / "share" / "axe-core" / "axe.min.js"
AXE_PACKAGE = "axe-playwright-python==0.1.8"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser() -> Path | None:
    """A Chromium on the PATH."""
    return next((Path(found) for name in BROWSERS if (found := shutil.which(name))), None)


def find_axe() -> Path | None:
    """axe-core as one script."""
    return AXE if AXE.is_file() else None


def find_postgresql() -> Path | None:
    """PostgreSQL's server programs: looked for in the commonest places first, since `tests.services` imports slowly."""
    places = [*Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if places or shutil.which("initdb"):
        return places[0] if places else Path("initdb")
    from tests.services import ServiceMissing, find_postgresql_programs

    try:
        return find_postgresql_programs()
    except ServiceMissing:
        return None


def find_libreoffice() -> Path | None:
    """The program that opens and saves workbooks as another maker's would."""
    return Path(found) if (found := shutil.which("soffice")) else None


def find_pdftotext() -> Path | None:
    """The program that reads the text of a printed page."""
    return Path(found) if (found := shutil.which("pdftotext")) else None


def find_arial() -> Path | None:
    """A font as wide as the one that letters name: with another one their pages break elsewhere."""
    program = shutil.which("fc-match")
    if program is None:
        return None
    told = subprocess.run([program, "-f", "%{file}", "Arial"], capture_output=True, text=True, check=False)
    return Path(told.stdout) if re.search("liberation|arial|arimo", told.stdout, re.IGNORECASE) else None


def find_mail_program(name: str) -> Path | None:
    """A mail server's program, which may lie where only administrators look."""
    return Path(found) if (found := shutil.which(name) or shutil.which(name, path="/usr/sbin")) else None


def find_haven() -> Path | None:
    """R's reader of Stata's and SPSS's files, where R itself finds it."""
    program = shutil.which("Rscript")
    if program is None:
        return None
    told = subprocess.run([program, "-e", 'cat(find.package("haven"))'], capture_output=True, text=True, check=False)
    return Path(told.stdout) if told.returncode == 0 else None


def fetch_axe() -> None:
    """Take the script out of a wheel; the wheel itself is not installed, nor what it requires."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*command, "--dest", folder, AXE_PACKAGE], check=False)
        for wheel in Path(folder).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                name = next(name for name in archive.namelist() if name.endswith("/axe.min.js"))
                AXE.parent.mkdir(parents=True, exist_ok=True)
                AXE.write_bytes(archive.read(name))


def install(packages: list[str]) -> None:
    """Install system packages, where that can be done without asking anybody."""
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
            subprocess.run(["apt-get", "--quiet=2", *command], check=False, env=environment, stdout=subprocess.DEVNULL)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    system: dict[str, Callable[[], Path | None]] = {
        "postgresql": find_postgresql,
        "chromium": find_browser,
        "libreoffice-calc": find_libreoffice,
        "poppler-utils": find_pdftotext,
        "fonts-liberation": find_arial,
        "exim4-daemon-light": lambda: find_mail_program("exim4"),
        "dovecot-imapd": lambda: find_mail_program("dovecot"),
        "r-cran-haven": find_haven,
    }
    if missing := [package for package, find in system.items() if find() is None]:
        say(f"Installing for the tests: {', '.join(missing)} ...")
        install(missing)
    if find_axe() is None:
        fetch_axe()
    for package in [package for package in missing if system[package]() is None]:
        say(f"Not on this machine: {package}. Install it as root (apt-get install {package}) to run its tests.")
    if find_axe() is None:
        say(f"Not on this machine: axe-core. It is fetched by pip ({AXE_PACKAGE}) when there is a network.")


if __name__ == "__main__":
    main()
