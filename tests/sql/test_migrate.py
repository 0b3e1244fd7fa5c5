"""The migrator: once each, whole files only, and nothing that is not its own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from howdah.core.db.migrate import migrate
from howdah.core.db.schema_files import read_migrations, read_repeatables
from howdah.core.db.sql_files import sql_directory
from howdah.core.errors import DatabaseUnavailable, MigrationFailed, SchemaRefused
from tests.fix_release import add, check, query

if TYPE_CHECKING:
    from pathlib import Path


ALL_FILES = [each.name for each in (*read_migrations(sql_directory()), *read_repeatables(sql_directory()))]


def as_role(url: str, role: str) -> str:
    """The URL with a session that has the rights of a role."""
    return psycopg.conninfo.make_conninfo(url, options=f"-c role={role}")


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
        " FROM unnest(ARRAY['tasks', 'finished_runs', 'task_logs']) AS parent (name)"
        " JOIN pg_inherits AS i ON i.inhparent = ('howdah.' || parent.name)::regclass"
        " JOIN pg_class AS c ON c.oid = i.inhrelid GROUP BY 1 ORDER BY 1",
    )

    expected = (16, _day(blank_database, -1), _day(blank_database, 14))
    assert days == [("finished_runs", *expected), ("task_logs", *expected), ("tasks", *expected)]


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
