"""Which release may run on which schema."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from howdah.core.db import schema_version
from howdah.core.db.migrate import migrate
from howdah.core.errors import SchemaRefused
from tests.fix_release import add, check, query

if TYPE_CHECKING:
    from pathlib import Path


async def test_breaking_newer_schema_is_refused_by_the_older_release(
    database: str, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once a breaking file is applied, neither the old migrator nor an old process goes on."""
    add(release, "0101_post_gone.sql", "-- The old way is gone.\n-- breaking\n-- reason: a test\nSELECT 1")
    assert migrate(database, directory=release) == ["0101_post_gone.sql"]
    monkeypatch.undo()
    schema_version._files.cache_clear()
    with pytest.raises(SchemaRefused, match="newer"):
        migrate(database)
    with pytest.raises(SchemaRefused, match="0101_post_gone"):
        await check(database)


async def test_newer_schema_that_does_not_break_is_lived_with(
    database: str, release: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An older release runs on, says what it does not know, and puts none of its own functions back."""
    add(release, "0101_pre_addition.sql", "ALTER TABLE howdah.queues ADD COLUMN colour text")
    function = release / "functions" / "id_time.sql"
    function.write_text(function.read_text() + "\nCOMMENT ON FUNCTION howdah.id_time(uuid) IS 'newer';\n")
    assert migrate(database, directory=release) == ["0101_pre_addition.sql", "functions/id_time.sql"]
    monkeypatch.undo()
    schema_version._files.cache_clear()
    with caplog.at_level(logging.WARNING, logger="howdah"):
        await check(database)
        assert migrate(database) == []

    assert [record.getMessage() for record in caplog.records] == ["schema_newer", "schema_newer"]
    assert query(database, "SELECT obj_description('howdah.id_time(uuid)'::regprocedure)") == [("newer",)]


async def test_older_schema_is_refused_until_it_is_migrated(database: str, release: Path) -> None:
    """A process of the new release waits for `pre`; it does not need `post`."""
    add(release, "0101_pre_needed.sql", "ALTER TABLE howdah.queues ADD COLUMN colour text")
    add(release, "0102_post_cleanup.sql", "ALTER TABLE howdah.queues ADD CONSTRAINT c CHECK (colour <> '') NOT VALID")
    with pytest.raises(SchemaRefused, match=r"0101_pre_needed.*howdah migrate"):
        await check(database)
    with pytest.raises(SchemaRefused, match="0101_pre_needed"):
        migrate(database, phase="post", directory=release)

    assert migrate(database, phase="pre", directory=release) == ["0101_pre_needed.sql"]
    await check(database)
    assert migrate(database, phase="post", directory=release) == ["0102_post_cleanup.sql"]


async def test_database_without_schema_is_refused_with_the_command(blank_database: str) -> None:
    """The error of a forgotten first step names the step."""
    with pytest.raises(SchemaRefused, match=r'no schema "howdah".*howdah migrate'):
        await check(blank_database)
