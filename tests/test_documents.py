"""The documents, held against the program: commands, paths, settings, words and recipes are what they say."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer.main
from pydantic import BaseModel, SecretStr
from typer.testing import CliRunner

from desk.command_line import app
from study import events
from study.analysis_tables import derive_layouts
from study.contacts import parse_contacts
from study.datasets import TABLES, TableRows
from study.labelled import derive_legal_names
from tasks.codebook_files import write_codebook_files
from tasks.definitions import check_instrument, find_faults, load_instruments, load_study
from tasks.exports import DESCRIPTOR
from tasks.letters import LETTERS_FOLDER, find_letter_faults
from tasks.release_files import write_data_files
from tasks.releases import MANIFEST, write_release_files
from tasks.settings import PROJECT, Settings, read_settings
from tests.test_houserules import ROOMS, find_forbidden_text, find_sources

DOCUMENTS = ("README.md", "ARCHITECTURE.md", "GLOSSARY.md", "CONTRIBUTING.md", "CHANGELOG.md")
WITH_COMMANDS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")


@dataclass(frozen=True)
class Block:
    """A fenced or an indented block. `before`: the last line of text above it."""

    language: str
    text: str
    before: str


def read(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


@cache
def find_blocks(name: str) -> list[Block]:
    """Fenced blocks by their language; indented ones have the language ""."""
    blocks: list[Block] = []
    lines, before, n = read(name).splitlines(), "", 0
    while n < len(lines):
        line = lines[n]
        if line.startswith("```"):
            end = lines.index("```", n + 1)
            blocks.append(Block(line[3:].strip(), "\n".join(lines[n + 1 : end]) + "\n", before))
            n = end
        elif line.startswith("    ") and not before.startswith(("-", "  ")):
            end = n
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end]):
                end += 1
            blocks.append(Block("", "\n".join(text[4:] for text in lines[n:end]).strip() + "\n", before))
            n = end - 1
        elif line.strip():
            before = line
        n += 1
    return blocks


@cache
def find_spans(name: str) -> list[str]:
    """What stands between single backticks, outside blocks."""
    text = re.sub(r"^```.*?^```$", "", read(name), flags=re.MULTILINE | re.DOTALL)
    text = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    return [re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", text)]


def list_lines(block: Block) -> list[str]:
    """The lines of a block; one that ends in a backslash goes on in the next."""
    return re.sub(r" \\\n +", " ", block.text).splitlines()


def find_shown_commands(name: str, program: str) -> list[str]:
    lines = [line for block in find_blocks(name) if block.language in ("", "console") for line in list_lines(block)]
    return [text for text in [*lines, *find_spans(name)] if text.split(" ")[0] == program]


# Commands ------------------------------------------------------------------------------------------------------------


def list_commands(group: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command by its name, such as "check" or "approvals show"."""
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from list_commands(command, f"{name}{word} ")
        else:
            yield f"{name}{word}", command


COMMANDS: dict[str, Any] = dict(list_commands(typer.main.get_command(app)))
GROUPS = {name.split(" ")[0] for name in COMMANDS if " " in name}


def split_command(words: list[str]) -> tuple[str, list[str]]:
    """The name of the command that these words call, and what is given to it."""
    n = 2 if words[0] in GROUPS else 1
    return " ".join(words[:n]), words[n:]


def find_command_faults(text: str) -> list[str]:
    """What of a shown `summative ...` the program does not know. "..." and a bare `summative` stand for any command."""
    words = shlex.split(text)[1:]
    if not words or words[0] in ("...", "--help") or (words[0] in GROUPS and words[1:] in ([], ["--help"])):
        return []
    called, given = split_command(words)
    if called not in COMMANDS:
        return [f"{text}: there is no command {called}"]
    parameters = COMMANDS[called].params
    options = {
        name: option for option in parameters for name in [*option.opts, *option.secondary_opts] if name.startswith("-")
    }
    n_arguments, rest, faults = 0, iter(given), []
    for word in rest:
        if not word.startswith("-"):
            n_arguments += 1
        elif word not in options and word != "--help":
            faults.append(f"{text}: there is no option {word}")
        elif word != "--help" and not options[word].is_flag:
            next(rest, None)
    arguments = [parameter for parameter in parameters if parameter.param_type_name == "argument"]
    if n_arguments > len(arguments):
        faults.append(f"{text}: more words than {called} takes")
    return faults


@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_every_command_shown_exists(name: str) -> None:
    shown = find_shown_commands(name, "summative")
    assert shown
    assert [fault for text in shown for fault in find_command_faults(text)] == []


def test_every_command_of_the_program_is_shown_to_its_users() -> None:
    shown = {
        split_command(shlex.split(text)[1:])[0]
        for name in WITH_COMMANDS
        for text in find_shown_commands(name, "summative")
        if " " in text
    }
    shown |= {word for text in find_shown_commands("README.md", "make") for word in text.split()[1:]}
    assert set(COMMANDS) - shown == set()


def test_complete_commands_are_accepted_by_the_program() -> None:
    """Indented ones are meant to be typed: nothing that they need is left out."""
    for block in [block for name in ("README.md", "CONTRIBUTING.md") for block in find_blocks(name)]:
        for line in list_lines(block) if block.language in ("", "console") else []:
            words = shlex.split(line) if line.startswith("summative ") else []
            if words and words[1] != "...":
                called, given = split_command(words[1:])
                assert COMMANDS[called].make_context(called, list(given)) is not None, line


@cache
def read_targets() -> dict[str, str]:
    """Make's targets with their recipes."""
    found = re.findall(r"^([a-z]+):(.*(?:\n\t.*)*)", read("Makefile"), re.MULTILINE)
    return dict(found)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_make_target_shown_exists(name: str) -> None:
    for text in find_shown_commands(name, "make"):
        assert all(word in read_targets() for word in shlex.split(text)[1:] if "=" not in word), text


def test_make_calls_commands_that_exist() -> None:
    called = re.findall(r"bin\)?/summative (\S+)", "\n".join(read_targets().values()).replace("$(BIN)", "bin"))
    assert called
    assert set(called) <= set(COMMANDS) | GROUPS


# Paths and links -----------------------------------------------------------------------------------------------------

_FOLDERS = {path.name for path in PROJECT.iterdir() if path.is_dir()} - {"out"}
_ENDINGS = (".py", ".md", ".toml", ".txt", ".yaml", ".csv", ".ini")


def make_table(name: str, **columns: list[Any]) -> pd.DataFrame:
    """A table of a release: the columns given, and the others blank."""
    return TABLES[name].shape(pd.DataFrame(columns, columns=TABLES[name].column_names))


@cache
def find_release_files() -> set[str]:
    """What a release holds, as the code that writes it says."""
    data = {f"data/{name}.{ending}" for name in TABLES for ending in ("parquet", "csv")}
    written = "".join(inspect.getsource(writer) for writer in (write_release_files, write_codebook_files))
    return {*data, MANIFEST, DESCRIPTOR, *re.findall(r'"([a-z]+\.[a-z]+)":', written)}


def find_missing_paths(name: str) -> list[str]:
    """Paths of the repository that a document names and that are not there, whether in a span or a recipe's place."""
    known_later = {  # made by the recipes of CONTRIBUTING.md, which a test follows
        "sites_config/day_centres/study.toml",
        "sites_config/day_centres/approvals.toml",
        "sites_config/day_centres/fieldwork.toml",
        "sites_config/day_centres/sources/redcap.toml",
        "sites_config/day_centres/sites/northtown.toml",
        "instruments/getting_about/definition.toml",
        "instruments/getting_about/worked_examples.csv",
        "instruments/getting_about/value_sets/panel.csv",
        "templates/letters/answers_missing.jinja",
    }
    missing = []
    for span in find_spans(name):
        if " " in span or "<" in span or span.startswith((".venv/", "out/")):
            continue
        first = span.split("/")[0]
        if ("/" in span and first in _FOLDERS) or span in ("Makefile", *DOCUMENTS) or span.startswith(".ci/"):
            is_there = span in known_later or (PROJECT / span).exists()
        elif first == "data":
            is_there = span in find_release_files()
        elif "/" not in span and span.endswith(_ENDINGS):
            of_folders = ("study.toml", "approvals.toml", "fieldwork.toml", "unit_costs.csv")
            is_there = (PROJECT / span).exists() or span in of_folders or span in find_release_files()
        else:
            continue
        if not is_there:
            missing.append(span)
    return missing


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_path_named_exists(name: str) -> None:
    assert find_missing_paths(name) == []


def test_the_readme_lists_what_a_release_holds() -> None:
    table = [line for line in read("README.md").splitlines() if line.startswith("| `")]
    named = {span for line in table for span in re.findall(r"`([^`]+)`", line.split("|")[1]) if "." in span}
    assert named == find_release_files()


def slug(heading: str) -> str:
    """The anchor that a heading has on a rendered page."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_resolve(name: str) -> None:
    text = read(name)
    links = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)
    for link in links:
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        assert not file or (PROJECT / file).is_file(), link
        headings = re.findall(r"^#+ (.+)$", read(file or name), re.MULTILINE)
        assert not anchor or anchor in {slug(heading) for heading in headings}, link


def test_the_readme_leads_to_every_document() -> None:
    assert {name for name in (*DOCUMENTS[1:], "LICENSE") if f"]({name})" not in read("README.md")} == set()


def test_the_licence_is_the_one_declared() -> None:
    assert tomllib.loads(read("pyproject.toml"))["project"]["license"] == "MIT"
    assert read("LICENSE").startswith("MIT License")


def test_the_changelog_knows_this_version() -> None:
    assert tomllib.loads(read("pyproject.toml"))["project"]["version"] in read("CHANGELOG.md")


# Settings ------------------------------------------------------------------------------------------------------------


def show_default(value: object) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Path) and value.is_relative_to(PROJECT):
        value = value.relative_to(PROJECT)
    return "" if value is None else str(value)


def derive_settings_table() -> str:
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = show_default(field.default)
        rows.append(f"| `SUMMATIVE_{name.upper()}` | {f'`{default}`' if default else 'empty'} | {field.description} |")
    return "\n".join(rows)


def derive_example() -> str:
    """The text of .env.example: every setting with what it means, switched off."""
    parts = ["# Copy to .env and take away the # before what you set. Never commit .env: it may hold keys.\n"]
    for name, field in Settings.model_fields.items():
        parts.append(f"# {field.description}\n#SUMMATIVE_{name.upper()}={show_default(field.default)}\n")
    return "\n".join(parts)


def test_the_table_of_settings_is_true() -> None:
    shown = re.search(r"<!-- settings: .* -->\n(.*)<!-- end of settings -->", read("README.md"), re.DOTALL)
    assert shown
    assert shown[1].strip() == derive_settings_table()


def test_the_example_of_settings_is_true() -> None:
    assert read(".env.example") == derive_example()


def test_no_document_invents_a_setting() -> None:
    named = {found for name in DOCUMENTS for found in re.findall(r"SUMMATIVE_[A-Z0-9_]+", read(name))}
    assert named <= {f"SUMMATIVE_{name.upper()}" for name in Settings.model_fields}


def test_the_examples_file_gives_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line of it, switched on, is understood, and means what is so anyway."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"SUMMATIVE_{name.upper()}", raising=False)
    lines = [line[1:] for line in derive_example().splitlines() if line.startswith("#SUMMATIVE_")]
    (tmp_path / ".env").write_text("\n".join(line for line in lines if not line.endswith("=")) + "\n")
    given = Settings(_env_file=tmp_path / ".env")
    monkeypatch.chdir(PROJECT)
    for name, field in Settings.model_fields.items():
        value = getattr(given, name)
        assert show_default(value) == show_default(field.default), name


# Words ---------------------------------------------------------------------------------------------------------------

# Names that hold a word of "Words that are not used", and why they may.
ALLOWED_NAMES = {
    "subject": "what a query is about: a record or a place, never a person",
    "subjects": "as above",
    "find_subject": "as above",
    "log_subjects": "as above",
    "CALL_SUBJECTS": "what a call is about",
    "_SUBJECT": "the line of a letter that mail programs call so",
    "questionnaires": "the scope of a disposition, and sheets as people see them",
    "QUESTIONNAIRES": "as above",
    "covers_questionnaires": "as above: whether a consent covers them",
    "of_questionnaires": "as above",
    "_list_questionnaires": "as above",
    "questionnaire": "a piece of a site's work, as people see it",
    "n_questionnaires": "a column of the report, read by people",
    "client": "the other side of a connection",
    "_client": "the other side of a connection",
    "_lock": "the write lock of the ledger",
    "_number_lock": "the number of a lock of the ledger",
    "lock": "a file that one process holds",
    "center": "a position in a workbook's cell",
    "withdrawal": "a word of the source, in the report",
    "withdrawal_by_participant": "a reason of the source",
    "after_withdrawal": "somebody took back their consent, as consent forms call it",
    "not_withdrawals": "as above",
    "_find_withdrawals": "as above",
    "_find_first_withdrawal": "as above",
    "withdrawal_of_data": "somebody took back the data that they had given",
    "data_withdrawal_within": "as above",
    "visit": "the source's own column",
    "visits": "the source's own column",
    "wave_of_visit": "from the source's visit to a wave",
    "submission": "the sending in of an application, as authorities call it; a step of a prior",
    "organisation": "a column's name in other people's tables, which an import recognises",
    "assignment": "who answers for an incident; no arm of a study",
    "centre": "the middle of a range of numbers",
    "survey": "a sheet of an XLSForm",
}


def find_named(source: str) -> Iterator[str]:
    """Every name that a source gives to something, and texts that look like one (columns, codes)."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Constant) and re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", str(node.value)):
            yield str(node.value)


def split_words(name: str) -> set[str]:
    """From "ParticipantScreened" and "n_items": the words, with and without the s of a plural."""
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]
    return {form for word in words for form in (word, word.removesuffix("s"))}


def read_glossary(heading: str) -> list[list[str]]:
    """The cells of a table of the glossary, by the heading above it."""
    part = read("GLOSSARY.md").split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")]
    return rows[2:]


def find_forbidden_words() -> set[str]:
    return {word for row in read_glossary("Words that are not used") for word in row[0].split(", ")}


@cache
def read_named() -> dict[str, set[str]]:
    """Every name of the rooms, with the files that give it."""
    named: dict[str, set[str]] = {}
    for path in find_sources(*ROOMS):
        for name in find_named(path.read_text(encoding="utf-8")):
            named.setdefault(name, set()).add(str(path.relative_to(PROJECT)))
    return named


def test_words_that_are_not_used_name_nothing() -> None:
    forbidden = find_forbidden_words()
    assert "subject" in forbidden
    found = {
        name: sorted(files)
        for name, files in read_named().items()
        if split_words(name) & forbidden and name not in ALLOWED_NAMES
    }
    assert found == {}


@pytest.mark.parametrize(
    ("source", "n_found"),
    [
        ("patient_id = 1", 1),
        ("def derive_subjects(frame): ...", 1),
        ("class SurveyWave: ...", 1),
        ("frame['n_dropouts']", 1),
        ("def f(user): self.reminder = 1", 2),
        ("'a patient in a sentence'", 0),
        ("participant_id = site_id", 0),
        ("from x import user\nx.patient()", 0),
    ],
)
def test_words_are_found(source: str, n_found: int) -> None:
    forbidden = find_forbidden_words()
    assert sum(bool(split_words(name) & forbidden) for name in find_named(source)) == n_found


TERMS = [
    (row[0], name)
    for heading in re.findall(r"^## (.+)$", read("GLOSSARY.md"), re.MULTILINE)
    if heading != "Words that are not used"
    for row in read_glossary(heading)
    for name in re.findall(r"`([^`]+)`", row[2])
]


def find_in_code(name: str) -> bool:
    """Whether a dotted name is a module and something in it, and another one a name that the rooms give."""
    if "." not in name:
        return name in read_named() or name == "flows"
    *parts, last = name.split(".")
    for n in range(len(parts) + 1, 1, -1):
        with contextlib.suppress(ImportError):
            found: Any = importlib.import_module(".".join([*parts, last][:n]))
            for step in [*parts, last][n:]:
                if isinstance(found, type) and issubclass(found, BaseModel) and step in found.model_fields:
                    return True
                if not hasattr(found, step):
                    return False
                found = getattr(found, step)
            return True
    return False


@pytest.mark.parametrize(("term", "name"), TERMS)
def test_what_the_glossary_names_is_in_the_code(term: str, name: str) -> None:
    assert find_in_code(name), f"{term}: {name}"


@pytest.mark.parametrize("name", ["study.protocol.Subject", "study.nothing", "patient_id", "study.protocol.Site.age"])
def test_what_is_not_in_the_code_is_not_found(name: str) -> None:
    assert not find_in_code(name)


def test_every_term_has_one_entry() -> None:
    terms = [
        row[0]
        for heading in re.findall(r"^## (.+)$", read("GLOSSARY.md"), re.MULTILINE)
        if heading != "Words that are not used"
        for row in read_glossary(heading)
    ]
    assert len(terms) == len(set(terms)) > 50


def test_every_kind_of_event_is_about_a_term() -> None:
    """The first word of a kind, such as that of query_raised, has an entry: people meet it in `summative ledger`."""
    terms = {word for term, _ in TERMS for word in re.findall(r"[a-z]+", term)}
    kinds = {kind for kind, event in events.KINDS.items() if event.__module__ == "study.events"}
    assert {kind for kind in kinds if not split_words(kind.split("_")[0]) & terms and kind != "voided"} == set()


# What no committed file says ------------------------------------------------------------------------------------------

FOREIGN_TEXT = {
    "a working paper that is no part of the repository": re.compile(r"\b(?:DESIGN|CONTRACT\d?)\.md\b"),
    "how the code came about": re.compile(
        r"\b(?:claude|anthropic|openai|chatgpt|copilot|language model|(?:this|an?|the|previous|earlier) (?:AI|coding) "
        r"(?:session|agent|assistant)|(?:this|previous|earlier|next) session)\b",
        re.IGNORECASE,
    ),
    "a scratch folder": re.compile(r"/tmp/[a-z]|\bfind_repos\b"),
    "a registry's address": re.compile(r"\b(?:artifactory|devpi|nexus\.|trusted-host)\b", re.IGNORECASE),
}


def find_committed() -> list[Path]:
    """The files of the repository: what git would commit, or, without git, all but what is built."""
    git = ["git", "-C", str(PROJECT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if (PROJECT / ".git").exists() and shutil.which("git"):
        names = subprocess.run(git, capture_output=True, text=True, check=True).stdout.split("\0")
        return [PROJECT / name for name in names if name and (PROJECT / name).is_file()]
    built = {".venv", "out", "build", ".git", ".hypothesis", "__pycache__"}
    return [
        path
        for path in PROJECT.rglob("*")
        if path.is_file() and not any(part in built or part.endswith(("_cache", ".egg-info")) for part in path.parts)
    ]


def find_foreign_text(text: str) -> list[str]:
    own = [
        f"line {number}: {what}"
        for number, line in enumerate(text.splitlines(), start=1)
        for what, pattern in FOREIGN_TEXT.items()
        if pattern.search(line)
    ]
    return own + find_forbidden_text(text)


def test_no_file_says_what_is_not_the_projects() -> None:
    # The two that hold the patterns and their examples.
    exempt = {Path(__file__), PROJECT / "tests" / "test_houserules.py"}
    committed = [path for path in find_committed() if path not in exempt]
    assert PROJECT / "README.md" in committed
    found = {}
    for path in committed:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if faults := find_foreign_text(text):
            found[str(path.relative_to(PROJECT))] = faults
    assert found == {}


@pytest.mark.parametrize(
    ("text", "n_faults"),
    [
        ("As DESIGN.md says", 1),
        ("see /tmp/lab/x", 1),
        ("written in an earlier session", 1),
        ("a session of SQLAlchemy, a fixture of scope session", 0),
        ("the research design", 0),
    ],
)
def test_foreign_text_is_found(text: str, n_faults: int) -> None:
    assert len(find_foreign_text(text)) == n_faults


@pytest.mark.parametrize("name", DOCUMENTS)
def test_prose_is_plain(name: str) -> None:
    """Lines that fit, no emoji, no word that sells."""
    text = re.sub(r"^```.*?^```$", "", read(name), flags=re.MULTILINE | re.DOTALL)
    assert [line for line in text.splitlines() if len(line) > 120 and not line.startswith("|")] == []
    assert re.findall(r"[\U0001F000-\U0001FAFF\u2600-\u27BF]", text) == []
    selling = (
        r"\b(?:powerful|seamless\w*|robust|cutting-edge|effortless\w*|simply|best-in-class|blazing\w*|leverage\w*)\b"
    )
    assert re.findall(selling, text, re.IGNORECASE) == []


# Recipes --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the definitions, as CONTRIBUTING.md advises, that the settings lead to."""
    for folder in ("sites_config", "instruments"):
        shutil.copytree(PROJECT / folder, tmp_path / folder)
        monkeypatch.setenv(f"SUMMATIVE_{folder.upper()}", str(tmp_path / folder))
    monkeypatch.setenv("SUMMATIVE_DATA_FOLDER", str(tmp_path / "out"))
    read_settings.cache_clear()
    yield tmp_path
    read_settings.cache_clear()


def follow(block: Block, folder: Path) -> str:
    """Do what a recipe says; give what a command printed."""
    if block.language == "console":
        printed = ""
        for line in block.text.splitlines():
            result = CliRunner().invoke(app, shlex.split(line)[1:])
            assert result.exit_code == 0, f"{line}: {result.output}"
            printed += result.output
        return printed
    place = re.search(r"`([^`]+)`:$", block.before)
    if place is None:
        return ""
    path = folder / place[1]
    if block.before.startswith("Create "):
        assert not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
    elif block.before.startswith("Append to "):
        path.write_text(path.read_text(encoding="utf-8") + block.text, encoding="utf-8")
    else:
        assert block.before.startswith("Change in ")
        old, new = ([line[1:] for line in block.text.splitlines() if line.startswith(sign)] for sign in ("-", "+"))
        text = path.read_text(encoding="utf-8")
        assert all(text.count(f"{line}\n") == 1 for line in old), old
        path.write_text(text.replace("\n".join(old), "\n".join(new)), encoding="utf-8")
    return ""


def is_printed(line: str, printed: str) -> bool:
    """Whether a command printed this line; one that ends in "..." stands for any that begins so."""
    if line.endswith("..."):
        return any(text.startswith(line.removesuffix("...")) for text in printed.splitlines())
    return line in printed.splitlines()


def test_the_recipes_give_a_study_without_faults(desk: Path) -> None:
    """Study, site, wave, instrument, approval: to the letter, in their order, with what the check answers."""
    recipes = read("CONTRIBUTING.md").split("## Add a kind of event")[0].count("\n## Add ")
    printed, n_shown, n_done = "", 0, 0
    for block in find_blocks("CONTRIBUTING.md"):
        if block.language == "python":
            break
        if block.language == "text":
            n_shown += 1
            missing = [line for line in block.text.splitlines() if not is_printed(line, printed)]
            assert missing == [], printed
        else:
            printed = follow(block, desk) or printed
            n_done += 1
    assert (recipes, n_shown) == (10, 11)
    assert n_done >= 17
    assert find_faults("day_centres").faults == ()
    assert check_instrument("getting_about").faults == ()


def test_a_slip_in_a_recipe_would_be_found(desk: Path) -> None:
    blocks = find_blocks("CONTRIBUTING.md")
    for block in blocks[: next(n for n, block in enumerate(blocks) if "[[waves]]" in block.text) + 1]:
        if block.language != "text":
            slip = block.text.replace('anchor = "baseline"', 'anchor = "base_line"')
            follow(Block(block.language, slip, block.before), desk)
    faults = find_faults("day_centres").faults
    assert len(faults) == 1
    assert "base_line" in faults[0]


def test_the_recipe_for_a_kind_of_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KINDS", dict(events.KINDS))
    (block,) = [block for block in find_blocks("CONTRIBUTING.md") if block.language == "python"]
    names: dict[str, Any] = {"__name__": "recipe"}
    exec(compile(block.text, "CONTRIBUTING.md", "exec", dont_inherit=True), names)
    who = {"occurred_on": "2026-03-02", "requested_by": "a test", "site_id": "luton", "participant_id": "LUT-P00001"}
    held = names["InterviewHeld"](**who, wave="baseline")
    assert held.key == "interview:LUT-P00001:baseline"
    assert held.encode_payload() == '{"wave":"baseline"}'
    assert events.KINDS["interview_held"] is names["InterviewHeld"]


def test_a_release_opens_as_the_readme_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {
        "participants": make_table("participants", participant_id=["a", "b", "c"], arm=["x", "x", "y"]),
        "responses": make_table("responses"),
        "scores": make_table(
            "scores",
            participant_id=["a", "b", "c", "c"],
            wave=["week_24", "week_24", "week_24", "week_8"],
            scale=["adas_cog_11"] * 4,
            score=[1.0, 2.0, 5.0, 9.0],
        ),
    }
    latest = tmp_path / "out" / "cdisc_pilot" / "releases" / "latest"
    write_data_files({name: TableRows.of(TABLES[name], frame) for name, frame in tables.items()}, latest)
    monkeypatch.chdir(tmp_path)
    (block,) = [block for block in find_blocks("README.md") if block.language == "python"]
    *before, last = block.text.strip().splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(before), names)
    assert eval(last, names).to_dict() == {"x": 1.5, "y": 5.0}


def test_the_recipe_for_a_letter(tmp_path: Path) -> None:
    shutil.copytree(LETTERS_FOLDER, tmp_path / "templates" / "letters")
    (block,) = [block for block in find_blocks("CONTRIBUTING.md") if block.language == "jinja"]
    study = load_study("ipc", PROJECT / "sites_config", PROJECT / "instruments")
    step = study.fieldwork.ladder[0].model_copy(update={"template": "answers_missing"})
    fieldwork = study.fieldwork.model_copy(update={"ladder": (step,)})
    study = study.model_copy(update={"fieldwork": fieldwork})
    assert any("answers_missing" in fault for fault in find_letter_faults(study, tmp_path / "templates" / "letters"))
    follow(block, tmp_path)
    assert find_letter_faults(study, tmp_path / "templates" / "letters") == []


def test_the_contacts_file_of_the_readme_is_sound() -> None:
    (block,) = [block for block in find_blocks("README.md") if block.language == "toml"]
    contacts = parse_contacts(block.text.encode(), load_study("ipc", PROJECT / "sites_config", PROJECT / "instruments"))
    assert all(person.email.endswith(".invalid") for person in contacts.people)
    before, on_leave = (contacts.find_recipient("site_researcher", "luton", date(2017, 8, day)) for day in (11, 14))
    assert before is not None
    assert on_leave is not None
    assert (before.person_id, on_leave.person_id) == ("luton.researcher", "luton.lead")


def test_other_languages_read_what_is_there() -> None:
    study = load_study("cdisc_pilot", PROJECT / "sites_config", PROJECT / "instruments")
    layouts = derive_layouts(study, load_instruments(study))
    for language in ("r", "stata"):
        (block,) = [block for block in find_blocks("README.md") if block.language == language]
        assert len(block.text.strip().splitlines()) <= 7
        (name,) = re.findall(r"releases/latest/stata/(\w+)\.dta", block.text)
        variables = set(derive_legal_names(layouts[name].column_names).values())
        assert {"arm", "adas_cog_11_week_24"} <= variables & set(re.findall(r"\w+", block.text))
