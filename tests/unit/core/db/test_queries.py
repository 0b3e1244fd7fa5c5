"""Loading the statements of sql/queries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from howdah.core.db import queries, sql_files
from howdah.core.db.queries import load
from howdah.core.db.sql_files import for_schema, sql_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def claim_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A query file that stands alone, in a directory of SQL of its own."""
    monkeypatch.setattr(queries, "sql_directory", lambda: tmp_path)
    load.cache_clear()
    file = tmp_path / "queries" / "run" / "claim.sql"
    file.parent.mkdir(parents=True)
    yield file
    load.cache_clear()


def test_load_tags_the_statement_and_leaves_comments_out(claim_file: Path) -> None:
    """What the server sees is the statement alone, behind a tag that names it."""
    claim_file.write_text("-- Lease 10 % of %(x)s.\n-- index: a\nSELECT 1\n    -- why\nFROM howdah.runs\n")

    assert load("run.claim", "howdah") == b"/* howdah:run.claim */ SELECT 1\nFROM howdah.runs"


def test_load_names_the_schema_but_not_the_tag(claim_file: Path) -> None:
    """The tag says whose statement it is; the statement, which schema it runs on."""
    claim_file.write_text("-- Lease.\nSELECT howdah.now()\n")

    assert load("run.claim", "cell_b") == b"/* howdah:run.claim */ SELECT cell_b.now()"


def test_load_refuses_an_unknown_name() -> None:
    """A misspelt name is an error at once, not an empty statement."""
    with pytest.raises(FileNotFoundError):
        load("run.clam", "howdah")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("howdah.runs", "cell_b.runs"),
        ("SCHEMA howdah;", "SCHEMA cell_b;"),
        ("current_setting('howdah.notify', true)", "current_setting('cell_b.notify', true)"),
        ("pg_notify('howdah_wake', words)", "pg_notify('cell_b_wake', words)"),
        ("TO howdah_service, howdah_readonly", "TO cell_b_service, cell_b_readonly"),
        ("'howdah.%I'", "'cell_b.%I'"),
        ("LIKE 'howdah-%'", "LIKE 'howdah-%'"),
        ("Howdah, a job queue", "Howdah, a job queue"),
        ("my_howdah.runs and howdahs", "my_howdah.runs and howdahs"),
    ],
)
def test_for_schema_replaces_only_the_name_of_the_schema(written: str, expected: str) -> None:
    """Schema, settings, channel and roles follow the name; headers, prose and other words do not."""
    assert for_schema(written, "cell_b") == expected


def test_sql_directory_prefers_the_installed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package reads what it was shipped with, wherever it lies."""
    monkeypatch.setattr(sql_files, "__file__", str(tmp_path / "howdah" / "core" / "db" / "sql_files.py"))
    installed = tmp_path / "howdah" / "core" / "_sql"
    installed.mkdir(parents=True)

    assert sql_directory() == installed


def test_sql_directory_of_a_checkout_holds_the_migrations() -> None:
    """An editable install reads the checkout's files, so that an edit counts at once."""
    assert (sql_directory() / "migrations").is_dir()
