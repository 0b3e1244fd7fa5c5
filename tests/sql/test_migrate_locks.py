"""A migration beside a running service: nobody waits for it for long, and it waits for nobody for ever."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest

from howdah.core.db import migrate as migrate_module
from howdah.core.db.migrate import migrate
from howdah.core.errors import MigrationFailed
from tests.fix_release import add, query
from tests.fix_wait import eventually

if TYPE_CHECKING:
    from pathlib import Path


def test_index_is_built_concurrently_and_a_broken_build_repeated(database: str, release: Path) -> None:
    """A no-transaction file may be interrupted: what it left unusable is dropped and built anew."""
    query(database, "SELECT howdah.enqueue('q', 'h')")
    # What an interrupted build leaves: an index that is not valid and in the way of its name.
    query(database, "CREATE INDEX runs_worker_idx ON howdah.runs (worker_id)")
    query(database, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'howdah.runs_worker_idx'::regclass")
    name = add(
        release,
        "0101_pre_worker_index.sql",
        "-- Find the runs of a worker.\n-- no-transaction\n"
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS runs_worker_idx ON howdah.runs (worker_id);\n",
    )

    assert migrate(database, directory=release) == [name]
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'howdah.runs_worker_idx'::regclass"
    assert query(database, valid) == [(True,)]


def test_waiting_migrator_does_not_deadlock_with_a_concurrent_index(database: str, release: Path) -> None:
    """The second migrator holds no snapshot while it waits, or the first one's index build would wait for it."""
    name = add(
        release,
        "0101_pre_index.sql",
        "-- no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS runs_worker_idx ON howdah.runs (worker_id)",
    )
    migrators = (
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'howdah-migrate' AND datname = current_database()"
    )
    with psycopg.connect(database) as blocker, ThreadPoolExecutor(2) as pool:
        # The build waits for this writer, so that both migrators are surely under way.
        blocker.execute("LOCK TABLE howdah.runs IN ROW EXCLUSIVE MODE")
        futures = [pool.submit(migrate, database, directory=release) for _ in range(2)]
        eventually(lambda: len(query(database, migrators)) == 2, 10, "both migrators are connected")
        building = f"{migrators} AND wait_event_type = 'Lock' AND query LIKE '%CONCURRENTLY%'"
        eventually(lambda: query(database, building), 10, "the index build waits for the writer")
        blocker.rollback()
        applied = sorted((future.result() for future in futures), key=len)

    assert applied == [[], [name]]


def test_migration_waits_for_a_lock_in_turns(
    database: str, release: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A long transaction delays a migration; the migration steps back each time, so that others are not held up."""
    monkeypatch.setattr(migrate_module, "LOCK_TIMEOUT_S", 0.1)
    name = add(release, "0101_pre_column.sql", "ALTER TABLE howdah.queues ADD COLUMN colour text")
    with (
        caplog.at_level(logging.WARNING, logger="howdah"),
        psycopg.connect(database) as reader,
        ThreadPoolExecutor(1) as pool,
    ):
        reader.execute("SELECT 1 FROM howdah.queues")
        future = pool.submit(migrate, database, directory=release)
        eventually(lambda: len(caplog.records) >= 2, 10, "the migration has stepped back twice")
        reader.rollback()
        applied = future.result(30)

    assert applied == [name]
    assert {record.getMessage() for record in caplog.records} == {"migration_waits"}


def test_migration_that_gets_no_lock_gives_up(database: str, release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that somebody forgot does not keep a deployment hanging for ever."""
    monkeypatch.setattr(migrate_module, "LOCK_TIMEOUT_S", 0.05)
    monkeypatch.setattr(migrate_module, "LOCK_ATTEMPTS", 2)
    name = add(release, "0101_pre_column.sql", "ALTER TABLE howdah.queues ADD COLUMN colour text")
    with psycopg.connect(database) as reader:
        reader.execute("SELECT 1 FROM howdah.queues")
        with pytest.raises(MigrationFailed, match="lock timeout") as failure:
            migrate(database, directory=release)

    assert failure.value.step == name


def test_statement_that_takes_too_long_is_ended_unless_the_file_allows_it(
    database: str, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration that would hold its locks for long fails; one that says it needs the time gets it."""
    monkeypatch.setattr(migrate_module, "STATEMENT_TIMEOUT_S", 0.1)
    name = add(release, "0101_pre_slow.sql", "CREATE TABLE howdah.slow ();\nSELECT pg_sleep(0.3)")
    with pytest.raises(MigrationFailed, match="statement timeout"):
        migrate(database, directory=release)
    add(release, name, "SET LOCAL statement_timeout = '5s';\nSELECT pg_sleep(0.3)")

    assert migrate(database, directory=release) == [name]
    assert query(database, "SELECT to_regclass('howdah.slow')") == [(None,)]
