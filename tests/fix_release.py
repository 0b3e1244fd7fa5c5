"""A release of one's own: the SQL files, which a test may add to and change, and what a process says of the schema."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from howdah.core.db import schema_version
from howdah.core.db.schema_version import check_schema
from howdah.core.db.sql_files import sql_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """SQL files of a release that a test may change; what runs in this process is that release."""
    directory = tmp_path / "sql"
    shutil.copytree(sql_directory(), directory)
    monkeypatch.setattr(schema_version, "sql_directory", lambda: directory)
    schema_version._files.cache_clear()
    yield directory
    schema_version._files.cache_clear()


def add(release: Path, name: str, text: str) -> str:
    """Add a numbered migration to a release."""
    (release / "migrations" / name).write_text(text)
    return name


def query(url: str, statement: str, *params: Any) -> list[tuple[Any, ...]]:
    """Run one statement in a session of its own."""
    with psycopg.connect(url, autocommit=True) as conn:
        cursor = conn.execute(statement.encode(), params or None)
        return cursor.fetchall() if cursor.description else []


async def check(url: str, schema: str = "howdah") -> None:
    """Ask what a process asks at its start."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        await check_schema(conn, schema)
