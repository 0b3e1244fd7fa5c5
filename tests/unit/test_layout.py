"""The shape of the repository: three source roots, who may import whom, what a wheel holds."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = {"app": "howdah", "worker": "howdah_worker", "scheduler": "howdah_scheduler"}

# What a module of ours may import of ours. The longest prefix of its name counts.
MAY_IMPORT = {
    "howdah": {"howdah.context", "howdah.core", "howdah.handlers"},
    "howdah.api": {"howdah.api", "howdah.core", "howdah.handlers"},
    "howdah.cli": {"howdah", "howdah_scheduler", "howdah_worker"},
    "howdah.__main__": {"howdah.cli"},
    "howdah.client": {"howdah.client"},
    "howdah.core": {"howdah.core"},
    "howdah.demo": {"howdah"},
    "howdah.up": {"howdah.access", "howdah.cli", "howdah.core", "howdah.demo", "howdah.up"},
    "howdah_scheduler": {"howdah.core", "howdah.handlers", "howdah_scheduler"},
    "howdah_worker": {"howdah.context", "howdah.core", "howdah.handlers", "howdah_worker"},
}

# Where a library may be used; everything else reaches it through these modules.
HOME_OF_LIBRARY = {
    "aiohttp": {"howdah_worker.callback*", "howdah.client"},
    "click": {"howdah.cli"},
    "croniter": {"howdah.core.cron"},
    "prometheus_client": {"howdah.core.metrics"},
    "psycopg": {"howdah.core.db", "howdah.core.store"},
    "psycopg_pool": {"howdah.core.db", "howdah.core.store"},
    "starlette": {"howdah.api"},
    "uvicorn": {"howdah.api"},
}

# Decided without a database and without a loop: time is an argument of theirs.
PURE = {f"howdah.core.{name}" for name in ("cron", "errors", "limits", "model", "retry", "sign", "state", "units")}
IMPURE = {"asyncio", "howdah.core.db", "howdah.core.store", "psycopg", "psycopg_pool"}


def modules() -> Iterator[tuple[str, Path]]:
    """Yield the dotted name and the file of each module of ours."""
    for root in SOURCE_ROOTS:
        for file in sorted((ROOT / root).rglob("*.py")):
            parts = file.relative_to(ROOT / root).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def imports(source: str) -> Iterator[str]:
    """Yield the dotted name of everything that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(name: str, prefixes: set[str]) -> bool:
    """Tell whether a dotted name is one of these, or below one; a final `*` stands for any ending."""
    return any(
        name.startswith(prefix[:-1]) if prefix.endswith("*") else name == prefix or name.startswith(f"{prefix}.")
        for prefix in prefixes
    )


def violations(module: str, source: str) -> list[str]:
    """Return what a module imports against the rules."""
    rule = max((prefix for prefix in MAY_IMPORT if is_within(module, {prefix})), key=len)
    found = []
    for name in imports(source):
        library = name.split(".")[0]
        if library in {*SOURCE_ROOTS.values()} and not is_within(name, MAY_IMPORT[rule] | {module}):
            found.append(f"{module} imports {name}")
        elif library in HOME_OF_LIBRARY and not is_within(module, HOME_OF_LIBRARY[library]):
            found.append(f"{module} uses {library}")
        elif module in PURE and is_within(name, IMPURE):
            found.append(f"{module} is to be pure and imports {name}")
        elif is_within(module, {"howdah.core.db"}) and is_within(name, {"howdah.core.store"}):
            found.append(f"{module}, below the store, imports {name}")
    return found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("howdah.api.routes", "import howdah_worker.claimer"),
        ("howdah.core.store.runs", "def f():\n    from howdah.api import paging"),
        ("howdah_worker.claimer", "from howdah_scheduler import rescue"),
        ("howdah_worker.finisher", "from psycopg import sql"),
        ("howdah.core.sign", "from asyncio import sleep"),
        ("howdah.core.retry", "from howdah.core import db"),
        ("howdah.core.db.connect", "from howdah.core.store.runs import Runs"),
        ("howdah.client.http", "from howdah.core.errors import HowdahError"),
    ],
)
def test_rules_find_forbidden_import(module: str, source: str) -> None:
    """Each rule below refuses the import that it is there to refuse."""
    assert len(violations(module, source)) == 1


def test_imports_obey_the_layers() -> None:
    """Processes never import each other, the kernel imports no process, and each library has its place."""
    found = [violation for module, file in modules() for violation in violations(module, file.read_text())]

    assert found == []


@pytest.mark.parametrize(("root", "package"), SOURCE_ROOTS.items())
def test_source_root_holds_only_its_package(root: str, package: str) -> None:
    """A source root is no package and holds one, so that nothing else of ours can be imported by accident."""
    present = {path.name for path in (ROOT / root).iterdir()} - {"__pycache__"}

    assert present == {package}


@pytest.mark.parametrize("name", ["app", "worker", "scheduler", "sql", "bench"])
def test_generic_name_is_not_importable(name: str) -> None:
    """Users' packages are often called so, and the worker imports them: no name of ours may shadow one."""
    assert importlib.util.find_spec(name) is None


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with an sdist of the checkout, and a wheel that was built from that sdist."""
    directory = tmp_path_factory.mktemp("built")
    build = [sys.executable, "-P", "-m", "hatchling", "build", "-d", str(directory)]
    subprocess.run([*build, "-t", "sdist"], cwd=ROOT, check=True, capture_output=True)
    (sdist,) = directory.glob("*.tar.gz")
    # Debian's Python 3.11.2 does not know the filter, and 3.12 warns without it.
    safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(sdist) as archive:
        archive.extractall(directory / "source", **safely)
    (source,) = (directory / "source").iterdir()
    subprocess.run([*build, "-t", "wheel"], cwd=source, check=True, capture_output=True)
    return directory


@pytest.fixture(scope="module")
def wheel(built: Path) -> set[str]:
    """Names of the files in the wheel."""
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(built / "installed")
        return set(archive.namelist())


@pytest.mark.slow
def test_wheel_has_exactly_three_packages(wheel: set[str]) -> None:
    """Nothing but our three packages lands in a user's site-packages."""
    top = {name.split("/")[0] for name in wheel}

    assert {name for name in top if not name.endswith(".dist-info")} == set(SOURCE_ROOTS.values())


@pytest.mark.slow
def test_wheel_holds_every_module_and_sql_file(wheel: set[str]) -> None:
    """What the checkout runs is what gets installed: code, type markers, SQL, licence."""
    expected = {f"{package}/py.typed" for package in SOURCE_ROOTS.values()}
    for root in SOURCE_ROOTS:
        expected |= {file.relative_to(ROOT / root).as_posix() for file in (ROOT / root).rglob("*.py")}
    expected |= {f"howdah/core/_sql/{file.relative_to(ROOT / 'sql')}" for file in (ROOT / "sql").rglob("*.sql")}

    assert expected - wheel == set()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel)


@pytest.mark.slow
def test_installed_code_finds_its_sql(built: Path, wheel: set[str]) -> None:
    """Without a checkout around it, the code reads the SQL that was installed with it."""
    installed = built / "installed"
    script = "from howdah.core.db.sql_files import sql_directory; print(sql_directory())"
    printed = subprocess.run(
        [sys.executable, "-P", "-c", script],
        env={**os.environ, "PYTHONPATH": str(installed)},
        cwd="/",
        check=True,
        capture_output=True,
        text=True,
    ).stdout

    assert Path(printed.strip()) == installed / "howdah" / "core" / "_sql"
