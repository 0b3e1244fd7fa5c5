"""The migrator: once each, whole files only, beside a running service, and never backwards."""

from __future__ import annotations

import logging
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from howdah.core.db import migrate as migrate_module
from howdah.core.db import schema_version
from howdah.core.db.migrate import migrate
from howdah.core.db.schema_files import read_migrations, read_repeatables
from howdah.core.db.schema_version import check_schema
from howdah.core.db.sql_files import sql_directory
from howdah.core.errors import DatabaseUnavailable, MigrationFailed, SchemaRefused
from tests.fix_wait import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALL_FILES = [each.name for each in (*read_migrations(sql_directory()), *read_repeatables(sql_directory()))]


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SQL files of a release that a test may change; what runs in this process is that release."""
    directory = tmp_path / "sql"
    shutil.copytree(sql_directory(), directory)
    monkeypatch.setattr(schema_version, "sql_directory", lambda: directory)
    schema_version._files.cache_clear()
    return directory


@pytest.fixture(autouse=True)
def _forget_releases() -> Iterator[None]:
    yield
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


def as_role(url: str, role: str) -> str:
    """The URL with a session that has the rights of a role."""
    return psycopg.conninfo.make_conninfo(url, options=f"-c role={role}")


async def check(url: str, schema: str = "howdah") -> None:
    """Ask what a process asks at its start."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        await check_schema(conn, schema)


async def test_first_migration_makes_a_schema_that_works(blank_database: str) -> None:
    """From an empty database to an enqueued task in one call; a second call finds nothing to do."""
    assert migrate(blank_database) == ALL_FILES
    assert migrate(blank_database) == []
    await check(blank_database)
    assert query(blank_database, "SELECT howdah.enqueue('q', 'h') IS NOT NULL") == [(True,)]
    ledger = query(blank_database, "SELECT file, duration_s > 0 FROM howdah.migrations ORDER BY file")
    assert ledger == sorted((name, True) for name in ALL_FILES)


def test_migration_makes_partitions_for_two_weeks(blank_database: str) -> None:
    """Tasks can be stored from the first minute on, and until long after somebody must have noticed a dead chore."""
    migrate(blank_database)
    query(blank_database, "DROP TABLE howdah.tasks_" + _day(blank_database, 14))
    migrate(blank_database)
    days = query(
        blank_database,
        "SELECT parent.name, count(*), min(right(c.relname, 8)), max(right(c.relname, 8))"
        " FROM unnest(ARRAY['tasks', 'finished_runs']) AS parent (name)"
        " JOIN pg_inherits AS i ON i.inhparent = ('howdah.' || parent.name)::regclass"
        " JOIN pg_class AS c ON c.oid = i.inhrelid GROUP BY 1 ORDER BY 1",
    )

    expected = (16, _day(blank_database, -1), _day(blank_database, 14))
    assert days == [("finished_runs", *expected), ("tasks", *expected)]


def test_four_migrators_at_once_apply_each_file_once(blank_database: str) -> None:
    """Several hosts that deploy at the same moment do not hurt each other: one works, the others find it done."""
    barrier = threading.Barrier(4)

    def race() -> list[str]:
        barrier.wait()
        return migrate(blank_database)

    with ThreadPoolExecutor(4) as pool:
        applied = [future.result() for future in [pool.submit(race) for _ in range(4)]]

    assert sorted(map(len, applied)) == [0, 0, 0, len(ALL_FILES)]


def test_two_schemas_live_side_by_side(blank_database: str) -> None:
    """A second installation in the same database shares nothing with the first: no rows, settings, channel or roles."""
    migrate(blank_database, "howdah")
    migrate(blank_database, "cell_b")
    query(blank_database, "SELECT howdah.enqueue('q', 'h'), cell_b.enqueue('q', 'h'), cell_b.enqueue('q', 'h')")
    with psycopg.connect(blank_database, autocommit=True) as conn:
        conn.execute("LISTEN cell_b_wake; LISTEN howdah_wake; SET howdah.notify = off")
        conn.execute("SELECT howdah.enqueue('q', 'h'), cell_b.enqueue('q', 'h')")
        channels = [notification.channel for notification in conn.notifies(timeout=5, stop_after=1)]

    assert query(blank_database, "SELECT count(*) FROM howdah.runs") == [(2,)]
    assert query(blank_database, "SELECT count(*) FROM cell_b.runs") == [(3,)]
    assert channels == ["cell_b_wake"]
    roles = query(blank_database, "SELECT rolname FROM pg_roles WHERE rolname ~ '^cell_b_' ORDER BY 1")
    assert roles == [("cell_b_producer",), ("cell_b_readonly",), ("cell_b_service",)]
    reaching_out = query(
        blank_database,
        "SELECT p.proname FROM pg_proc AS p"
        " WHERE p.pronamespace = 'cell_b'::regnamespace AND p.prosrc ~ '\\yhowdah[._]'",
    )
    assert reaching_out == []


def test_plain_owner_of_the_database_can_migrate(admin: psycopg.Connection, blank_database: str) -> None:
    """Without the right to make roles, everything but the roles is made."""
    dbname = psycopg.conninfo.conninfo_to_dict(blank_database)["dbname"]
    admin.execute("CREATE ROLE landlord LOGIN")
    try:
        admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO landlord").format(sql.Identifier(str(dbname))))
        url = as_role(blank_database, "landlord")

        assert migrate(url, "cell_c") == ALL_FILES
        assert migrate(url, "cell_c") == []
        assert query(url, "SELECT cell_c.enqueue('q', 'h') IS NOT NULL") == [(True,)]
        assert query(url, "SELECT to_regrole('cell_c_service')") == [(None,)]
        assert query(url, "SELECT tableowner FROM pg_tables WHERE schemaname = 'cell_c' GROUP BY 1") == [("landlord",)]
    finally:
        admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO CURRENT_USER").format(sql.Identifier(str(dbname))))
        query(blank_database, "DROP OWNED BY landlord CASCADE")
        admin.execute("DROP ROLE landlord")


def test_roles_that_appear_later_are_granted_by_the_next_run(blank_database: str) -> None:
    """An administrator makes a role that the migrator might not; the next run gives it its rights."""
    migrate(blank_database)
    query(blank_database, "DROP OWNED BY howdah_producer")
    migrate(blank_database)

    assert query(
        blank_database,
        "SELECT has_function_privilege('howdah_producer', 'howdah.enqueue_many(text, json)', 'EXECUTE'),"
        " has_function_privilege('howdah_producer', 'howdah.now()', 'EXECUTE'),"
        " has_table_privilege('howdah_producer', 'howdah.runs', 'SELECT')",
    ) == [(True, False, False)]


async def test_failure_in_the_middle_of_a_file_leaves_nothing_of_it(database: str, release: Path) -> None:
    """What came before the failing statement is undone, files before it stay, and a mended file applies."""
    good = add(release, "0101_pre_good.sql", "CREATE TABLE howdah.good (id int)")
    bad = add(
        release, "0102_pre_bad.sql", "CREATE TABLE howdah.half (id int);\nSELECT 1 / 0;\nCREATE TABLE howdah.x ()"
    )
    with pytest.raises(MigrationFailed, match="division by zero") as failure:
        migrate(database, directory=release)

    assert failure.value.step == bad
    made = query(database, "SELECT to_regclass('howdah.good') IS NOT NULL, to_regclass('howdah.half') IS NOT NULL")
    assert made == [(True, False)]
    with pytest.raises(SchemaRefused, match=bad):
        await check(database)

    add(release, bad, "CREATE TABLE howdah.half (id int)")
    assert migrate(database, directory=release) == [bad]
    assert query(database, "SELECT file FROM howdah.migrations WHERE file ~ '^01'") == [(good,), (bad,)]


def test_edited_file_is_refused(database: str, release: Path) -> None:
    """A file that was applied is history: whoever edits it is told so, and nothing is applied."""
    first = next((release / "migrations").glob("0001_*"))
    first.write_text(first.read_text() + "\n-- a better comment\n")
    add(release, "0101_pre_more.sql", "CREATE TABLE howdah.more ()")
    with pytest.raises(SchemaRefused, match=rf"{first.name} was edited"):
        migrate(database, directory=release)

    assert query(database, "SELECT to_regclass('howdah.more')") == [(None,)]


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


def test_changed_function_is_applied_again_and_only_that(database: str, release: Path) -> None:
    """Functions follow the code without a migration of their own."""
    (release / "functions" / "retry_policy.sql").write_text(
        (release / "functions" / "retry_policy.sql").read_text().replace("'max_attempts', 4", "'max_attempts', 5")
    )

    assert migrate(database, directory=release) == ["functions/retry_policy.sql"]
    assert query(database, "SELECT howdah.retry_policy(NULL, NULL) ->> 'max_attempts'") == [("5",)]


def test_broken_function_leaves_all_functions_as_they_were(database: str, release: Path) -> None:
    """Functions change together or not at all, since they call each other."""
    (release / "functions" / "id_time.sql").write_text("SELECT 1; CREATE OR REPLACE FUNCTION howdah.id_time(")
    now = release / "functions" / "id_floor.sql"
    now.write_text(now.read_text() + "\nCOMMENT ON FUNCTION howdah.id_floor(timestamptz) IS 'changed';\n")
    with pytest.raises(MigrationFailed) as failure:
        migrate(database, directory=release)

    assert failure.value.step == "functions/id_time.sql"
    comment = query(database, "SELECT obj_description('howdah.id_floor(timestamptz)'::regprocedure)")
    assert comment != [("changed",)]


def test_processes_are_told_of_a_change_and_of_nothing_else(database: str, release: Path) -> None:
    """A migration that changed something says so on the channel, after its commit."""
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("LISTEN howdah_wake")
        migrate(database, directory=release)
        add(release, "0101_pre_more.sql", "CREATE TABLE howdah.more ()")
        migrate(database, directory=release)
        heard = [notification.payload for notification in conn.notifies(timeout=5, stop_after=1)]

    assert heard == ["m"]


def test_unqualified_name_in_a_file_is_refused(database: str, release: Path) -> None:
    """Where it would lead depends on who migrates: a role named like the schema has that schema in its search path."""
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(sql.SQL("ALTER DATABASE {} SET search_path = howdah").format(sql.Identifier(conn.info.dbname)))
    add(release, "0101_pre_stray.sql", "CREATE TABLE stray ()")
    with pytest.raises(MigrationFailed, match="no schema has been selected"):
        migrate(database, directory=release)


def test_migrator_without_a_server_says_so(tmp_path: Path) -> None:
    """A server that is not there is no failed migration."""
    with pytest.raises(DatabaseUnavailable):
        migrate(f"postgresql://howdah@/jobs?host={tmp_path}")


def test_foreign_schema_is_not_taken_over(admin: psycopg.Connection, blank_database: str) -> None:
    """A role that may not write in the schema is told what PostgreSQL said, and nothing is half done."""
    migrate(blank_database)
    admin.execute("CREATE ROLE stranger LOGIN")
    try:
        with pytest.raises(MigrationFailed, match="permission denied"):
            migrate(as_role(blank_database, "stranger"))
    finally:
        admin.execute("DROP ROLE stranger")


def _day(url: str, offset: int) -> str:
    return str(query(url, f"SELECT to_char((now() AT TIME ZONE 'UTC')::date + ({offset}), 'YYYYMMDD')")[0][0])
