"""The documents against the system: links, names of commands and settings, and the SQL that they print."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import psycopg
import pytest

from howdah import cli
from howdah.core.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
DOCUMENTS: Final = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "sql/**/*.md", "deploy/**/*.md", "bench/**/*.md")
    for path in ROOT.glob(pattern)
)
# Files of other formats in which people look up settings and commands.
DEPLOYMENT: Final = sorted(
    path
    for pattern in ("deploy/**/*", "nginx/*", "supervisord.conf", "Dockerfile")
    for path in ROOT.glob(pattern)
    if path.is_file() and path.suffix != ".md"
)

# Read by parts of the system that are not processes of the service, and patterns in prose.
OTHER_VARIABLES: Final = {"HOWDAH_PG_BIN", "HOWDAH_PG_USER", "HOWDAH_TEST_PG"}

LINK: Final = re.compile(r"\[[^\]]*\]\((?!https?://|mailto:)([^)\s]+)\)")
FENCE: Final = re.compile(r"^```([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# At the start of a line or span, behind variables that are set for it, or as a value (supervisord).
COMMAND: Final = re.compile(r"(?:^|=)(?:[A-Z_]+=\S+ )*(?:\S*/)?howdah ((?:[a-z]+ ?)+(?:--[a-z]+ ?)*)", re.MULTILINE)


def named(path: Path) -> str:
    """A file's name in the checkout."""
    return path.relative_to(ROOT).as_posix()


def code(text: str) -> Iterator[str]:
    """What a document sets as code: its blocks, and the spans of its prose."""
    for info, block in FENCE.findall(text):
        if info.split(" ")[0] in {"sh", "console", "ini", "yaml", ""}:
            yield block
    yield from re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def sql_blocks() -> list[tuple[str, str]]:
    """SQL that documents mark as runnable (```sql run), with where it stands."""
    found = []
    for path in DOCUMENTS:
        text = path.read_text()
        for match in re.finditer(r"^```sql run\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, match.start()) + 1
            found.append((f"{named(path)}:{line}", match[1]))
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_relative_links_lead_somewhere(path: Path) -> None:
    """Each link to a file of the checkout finds it, and its section if it names one."""
    broken = []
    for target in LINK.findall(FENCE.sub("", path.read_text())):
        name, _, section = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (section and section not in _sections(file)):
            broken.append(target)

    assert broken == []


@pytest.mark.parametrize("path", [*DOCUMENTS, *DEPLOYMENT], ids=named)
def test_variables_exist(path: Path) -> None:
    """Each HOWDAH_ variable that is named is one that a process reads."""
    known = {f"HOWDAH_{field.name.upper()}" for field in dataclasses.fields(Settings)} | OTHER_VARIABLES
    mentioned = set(re.findall(r"\bHOWDAH_[A-Z][A-Z_]*[A-Z]\b(?!\*|_\*)", path.read_text()))

    assert mentioned - known == set()


@pytest.mark.parametrize("path", [*DOCUMENTS, *DEPLOYMENT], ids=named)
def test_commands_exist(path: Path) -> None:
    """Each `howdah <command>` that is set as code exists, and has the options that are given to it."""
    text = path.read_text()
    spans = list(code(text)) if path.suffix == ".md" else [text]
    unknown = [words for span in spans for words in COMMAND.findall(span) if not _is_command(words.split())]

    assert unknown == []


def test_every_view_and_runbook_statement_is_documented() -> None:
    """sql/README.md lists each view, and the runbook each of the statements under sql/ops."""
    readme = (ROOT / "sql" / "README.md").read_text()
    runbook = (ROOT / "docs" / "operate" / "runbook.md").read_text()

    assert [path.stem for path in (ROOT / "sql" / "views").glob("*.sql") if f"`{path.stem}`" not in readme] == []
    assert [path.name for path in (ROOT / "sql" / "ops").glob("*.sql") if path.name not in runbook] == []


def test_every_document_can_be_found_from_the_index() -> None:
    """docs/README.md, or a document that it links, leads to each document."""
    seen = set()
    queue = [ROOT / "README.md"]
    while queue:
        path = queue.pop()
        if path in seen or path.suffix != ".md" or not path.exists():
            continue
        seen.add(path)
        links = LINK.findall(path.read_text())
        queue += [(path.parent / link.partition("#")[0]).resolve() for link in links if link.partition("#")[0]]
        queue += [each / "README.md" for each in list(queue) if each.is_dir()]

    assert [named(path) for path in DOCUMENTS if path not in seen] == []


def test_tests_that_documents_name_exist() -> None:
    """A promise that names its tests names ones that are there."""
    missing = [
        f"{named(path)}: {name}"
        for path in DOCUMENTS
        for name in re.findall(r"`(tests/[A-Za-z0-9_/.]+)`", path.read_text())
        if not (ROOT / name).exists()
    ]

    assert missing == []


@pytest.mark.parametrize(("where", "statements"), sql_blocks(), ids=lambda value: value.split("\n")[0][:60])
def test_sql_runs_as_it_stands(database: str, where: str, statements: str) -> None:
    """A block marked as runnable runs on a new installation without an error."""
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("SELECT howdah.enqueue('demo-handlers', 'demo.greet', '{\"name\": \"Hannibal\"}')")
        conn.execute(statements.encode())


def _sections(path: Path) -> set[str]:
    """Anchors of a Markdown file's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def _is_command(words: list[str]) -> bool:
    command: click.Command = cli.main
    for word in words:
        if word.startswith("--"):
            options = {option for parameter in command.params for option in parameter.opts}
            if word not in options | {"--help"}:
                return False
        elif isinstance(command, click.Group):
            if word not in command.commands:
                return False
            command = command.commands[word]
        else:
            # An argument, or the sentence goes on.
            break
    return True
