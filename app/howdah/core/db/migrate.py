"""The migrator: brings the schema to what this code ships with.

Any number of migrators may run at once; one works, the others wait and then find
nothing to do. Each numbered file is one transaction, so that a failure or a crash
leaves whole files only. The service may be running all the while: no statement
waits for a lock, and keeps others waiting behind it, for longer than 4 s.

Blocking, and over a direct connection: a transaction pooler would hand the lock to
somebody else.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import random
import re
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, LiteralString

import psycopg
from psycopg import errors, sql

from howdah.core.db.dsn import connection_string
from howdah.core.db.errors import is_disconnect, is_retryable
from howdah.core.db.schema_files import GRANTS_FILE, read_migrations, read_repeatables
from howdah.core.db.schema_version import LEDGER_QUERY, by_file, refuse_breaking
from howdah.core.db.sql_files import for_schema, sql_directory
from howdah.core.errors import DatabaseUnavailable, MigrationFailed, SchemaRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from howdah.core.db.schema_files import Migration, Phase, Repeatable
    from howdah.core.db.schema_version import Applied

_log: Final = logging.getLogger(__name__)

# Warehouse (PyPI) runs every migration under these two; a file that needs longer says
# SET LOCAL statement_timeout in its first line.
LOCK_TIMEOUT_S: Final = 4
STATEMENT_TIMEOUT_S: Final = 5
# Functions, grants and new partitions block nobody, so only a hang is worth ending.
HARMLESS_TIMEOUT_S: Final = 60
# With waits that grow from 0.5 to 8 s, a lock is tried for about 90 s.
LOCK_ATTEMPTS: Final = 10
# Another migrator may be building an index; ten minutes without one word is a hang to look at.
MIGRATOR_WAIT_S: Final = 600.0
_POLL_S: Final = 0.1
DAYS_AHEAD: Final = 14


def migrate(
    url: str, schema: str = "howdah", phase: Phase | None = None, *, directory: Path | None = None
) -> list[str]:
    """Apply what is missing, and return the files that were applied, in order.

    The first call makes the schema in an empty database, as a superuser or as an
    owner of the database; roles are made if the caller may. Partitions for the
    coming days are made each time. Running processes are told of a change.

    Args:
        url: A direct connection, by a role that owns the schema or may make it.
        schema: The schema's name.
        phase: `pre` applies only what the release before can live with; `post` the
            rest, once that has stopped; None both.
        directory: Holds the SQL files; default: those that ship with the code.

    Raises:
        SchemaRefused: The schema is breakingly newer than this code, a file was
            edited after it was applied, or `post` was asked for before `pre`.
        MigrationFailed: PostgreSQL refused a file; those before it are applied.
        DatabaseUnavailable: The connection failed. What was applied stays applied;
            run it again.
    """
    directory = directory or sql_directory()
    try:
        with psycopg.connect(connection_string(url, "migrate"), autocommit=True, prepare_threshold=None) as conn:
            conn.add_notice_handler(_log_notice)
            # With "$user" in it, a role named like the schema would give unqualified names another meaning.
            conn.execute("SET search_path = ''")
            _take_lock(conn, schema)
            return _Migrator(conn, schema).run(directory, phase)
    except psycopg.Error as failure:
        if is_disconnect(failure):
            raise DatabaseUnavailable(str(failure).strip()) from failure
        raise MigrationFailed("migrate", str(failure).strip()) from failure


class _Migrator:
    """One run of the migrator, under its lock."""

    def __init__(self, conn: psycopg.Connection[Any], schema: str) -> None:
        self._conn = conn
        self._schema = schema

    def run(self, directory: Path, phase: Phase | None) -> list[str]:
        self._make_ledger()
        ledger = by_file(self._conn.execute(self._statement(LEDGER_QUERY)))
        migrations = read_migrations(directory)
        newer = refuse_breaking((each.name for each in migrations), ledger)
        if newer:
            # Functions of this release would replace newer ones.
            _log.warning("schema_newer", extra={"fields": {"schema": self._schema, "files": newer}})
            return []
        _refuse_edited(migrations, ledger)
        applied = self._apply_migrations(_pending(migrations, ledger, phase))
        applied += self._apply_repeatables(read_repeatables(directory), ledger)
        self._make_partitions()
        if applied:
            self._conn.execute("SELECT pg_notify(%s, 'm')", [f"{self._schema}_wake"])
        return applied

    def _make_ledger(self) -> None:
        def make() -> None:
            # IF NOT EXISTS would ask for the right to make schemas even where there is one.
            if self._missing("to_regnamespace", self._schema):
                self._conn.execute(self._statement("CREATE SCHEMA howdah"))
            if self._missing("to_regclass", f"{self._schema}.migrations"):
                self._conn.execute(self._statement((sql_directory() / "ledger.sql").read_text()))

        self._transaction("ledger.sql", STATEMENT_TIMEOUT_S, make)

    def _apply_migrations(self, pending: Sequence[Migration]) -> list[str]:
        for each in pending:
            started = time.monotonic()
            if each.in_transaction:
                self._transaction(each.name, STATEMENT_TIMEOUT_S, partial(self._apply, each, each.is_breaking))
            else:
                self._apply_alone(each)
            duration_s = time.monotonic() - started
            _log.info("migration_applied", extra={"fields": {"file": each.name, "duration_s": duration_s}})
        return [each.name for each in pending]

    def _apply_alone(self, migration: Migration) -> None:
        """Apply a file that refuses to run in a transaction; it may be repeated after a crash.

        There is no lock timeout: building an index concurrently keeps nobody waiting,
        and a timeout would leave an invalid index behind.
        """
        with _reported(migration.name):
            self._conn.execute("SET lock_timeout = 0; SET statement_timeout = 0")
            for index in self._invalid_indexes(migration.text):
                drop = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}")
                self._conn.execute(drop.format(sql.Identifier(self._schema, index)))
            self._apply(migration, migration.is_breaking)

    def _invalid_indexes(self, text: str) -> list[str]:
        """Return the indexes named in `text` that an interrupted build left unusable."""
        found = self._conn.execute(
            "SELECT c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
            " WHERE NOT i.indisvalid AND c.relnamespace = to_regnamespace(%s)",
            [self._schema],
        )
        return [name for (name,) in found if re.search(rf"\b{re.escape(name)}\b", text)]

    def _apply_repeatables(self, files: Sequence[Repeatable], ledger: Mapping[str, Applied]) -> list[str]:
        changed = [each for each in files if each.name not in ledger or ledger[each.name].checksum != each.checksum]
        # Tables may be new, so grants are applied in any case.
        due = [each for each in files if each in changed or each.name == GRANTS_FILE]

        def apply() -> None:
            # Functions call each other, so their order would matter.
            self._conn.execute("SET LOCAL check_function_bodies = off")
            for each in due:
                with _reported(each.name):
                    self._apply(each, is_breaking=False)

        self._transaction(due[0].name, HARMLESS_TIMEOUT_S, apply)
        return [each.name for each in changed]

    def _apply(self, file: Migration | Repeatable, is_breaking: bool) -> None:
        started = time.monotonic()
        self._conn.execute(self._statement(file.text))
        self._conn.execute(
            self._statement(
                "INSERT INTO howdah.migrations (file, checksum, is_breaking, duration_s) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT (file) DO UPDATE SET checksum = excluded.checksum, duration_s = excluded.duration_s,"
                " applied_at = excluded.applied_at"
            ),
            [file.name, file.checksum, is_breaking, time.monotonic() - started],
        )

    def _make_partitions(self) -> None:
        make = self._statement("SELECT howdah.make_partitions(%s)")
        self._transaction("make_partitions", HARMLESS_TIMEOUT_S, lambda: self._conn.execute(make, [DAYS_AHEAD]))

    def _transaction(self, step: str, statement_timeout_s: float, body: Callable[[], object]) -> None:
        """Run `body` in a transaction, again while it does not get its locks."""
        for attempt in range(1, LOCK_ATTEMPTS + 1):
            try:
                with _reported(step), self._conn.transaction():
                    self._conn.execute(
                        f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_S}s'; "
                        f"SET LOCAL statement_timeout = '{statement_timeout_s}s'"
                    )
                    body()
                    return
            except (errors.LockNotAvailable, errors.DeadlockDetected) as failure:
                if attempt == LOCK_ATTEMPTS:
                    raise MigrationFailed(step, f"{LOCK_ATTEMPTS} attempts did not get its locks: {failure}") from None
                _log.warning("migration_waits", extra={"fields": {"file": step, "attempt": attempt}})
                time.sleep(random.uniform(0.5, 1) * min(8.0, 0.5 * 2 ** (attempt - 1)))

    def _missing(self, lookup: LiteralString, name: str) -> bool:
        return _is_true(self._conn.execute(f"SELECT {lookup}(%s) IS NULL", [name]))

    def _statement(self, text: str) -> bytes:
        return for_schema(text, self._schema).encode()


def _pending(migrations: Sequence[Migration], ledger: Mapping[str, Applied], phase: Phase | None) -> list[Migration]:
    pending = [each for each in migrations if each.name not in ledger]
    if phase is None:
        return pending
    first_pre = next((each.name for each in pending if each.phase == "pre"), None)
    if phase == "post" and first_pre is not None:
        raise SchemaRefused(
            f"{first_pre} comes first; run `howdah migrate --pre`, and roll out the release, before --post"
        )
    return [each for each in pending if each.phase == phase]


def _refuse_edited(migrations: Sequence[Migration], ledger: Mapping[str, Applied]) -> None:
    for each in migrations:
        if each.name in ledger and ledger[each.name].checksum != each.checksum:
            raise SchemaRefused(f"{each.name} was edited after it was applied; restore it and write a new file instead")


def _take_lock(conn: psycopg.Connection[Any], schema: str) -> None:
    """Take the lock of this schema's migrators, which the session holds until it ends.

    It is polled: a session that waits inside pg_advisory_lock() holds a snapshot, for
    which CREATE INDEX CONCURRENTLY of the holder waits in turn, and one of them is killed.
    """
    key = int.from_bytes(hashlib.sha256(f"howdah.migrate:{schema}".encode()).digest()[:8], signed=True)
    deadline = time.monotonic() + MIGRATOR_WAIT_S
    while not _is_true(conn.execute("SELECT pg_try_advisory_lock(%s)", [key])):
        if time.monotonic() > deadline:
            raise MigrationFailed("migrate", f"another migrator has been at work for {MIGRATOR_WAIT_S:g} s")
        time.sleep(_POLL_S)


@contextlib.contextmanager
def _reported(step: str) -> Iterator[None]:
    """Name the step in errors that a repeat would not cure."""
    try:
        yield
    except psycopg.Error as failure:
        if is_disconnect(failure) or is_retryable(failure):
            raise
        raise MigrationFailed(step, str(failure).strip()) from failure


def _is_true(cursor: psycopg.Cursor[Any]) -> bool:
    row = cursor.fetchone()
    return row is not None and bool(row[0])


def _log_notice(diagnostic: errors.Diagnostic) -> None:
    _log.info(
        "notice_received", extra={"fields": {"severity": diagnostic.severity, "text": diagnostic.message_primary}}
    )
