"""The server itself: its clock, and what it allows a session."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from psycopg.errors import LockNotAvailable, QueryCanceled

from howdah.core.db.errors import translated
from howdah.core.db.queries import load
from howdah.core.errors import StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from howdah.core.clock import DatabaseClock
    from howdah.core.db.connect import Connection


@contextlib.contextmanager
def within_limits() -> Iterator[None]:
    """Raise what a limit ended as a condition that passes.

    Raises:
        StorageUnavailable: A lock was not granted in time, or a statement took too long.
    """
    try:
        yield
    except (LockNotAvailable, QueryCanceled) as error:
        raise StorageUnavailable("a lock or a statement took too long") from error


class Server:
    """The queries under `sql/queries/server`."""

    def __init__(self, schema: str) -> None:
        """Work on the installation with this schema."""
        self._now = load("server.now", schema)
        self._limit = load("server.limit", schema)

    async def sample_clock(self, conn: Connection, clock: DatabaseClock) -> None:
        """Give the clock a sample of the database's time.

        Raises:
            DatabaseUnavailable: The connection is lost.
        """
        with translated():
            before = clock.local()
            cursor = await conn.execute(self._now)
            after = clock.local()
            row = await cursor.fetchone()
        assert row is not None, "the statement returns a row"
        clock.add_sample(before, row[0], after)

    async def limit(self, conn: Connection, *, statement_timeout_s: float, lock_timeout_s: float) -> None:
        """Limit the statements of this transaction, and their waits for locks; 0 means no limit."""
        await self._execute_limit(conn, statement_timeout_s, lock_timeout_s, is_local=True)

    async def limit_session(self, conn: Connection, *, statement_timeout_s: float, lock_timeout_s: float) -> None:
        """Limit all statements of a session, which must not be a pooler's; 0 means no limit."""
        await self._execute_limit(conn, statement_timeout_s, lock_timeout_s, is_local=False)

    async def _execute_limit(
        self, conn: Connection, statement_timeout_s: float, lock_timeout_s: float, *, is_local: bool
    ) -> None:
        parameters = {
            "statement_timeout_ms": round(statement_timeout_s * 1000),
            "lock_timeout_ms": round(lock_timeout_s * 1000),
            "is_local": is_local,
        }
        with translated():
            await conn.execute(self._limit, parameters)
