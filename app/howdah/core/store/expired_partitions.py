"""Partitions whose day has expired: emptied of what may go, detached, dropped.

Every step is one transaction of the server, or can be repeated after a crash;
where a step is comes from the catalogue. None waits long for a lock, because a
lock that is waited for keeps everybody behind it waiting too.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final, Literal, LiteralString, NamedTuple

from psycopg import errors, sql

from howdah.core.db.queries import load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import date
    from uuid import UUID

    from howdah.core.db.connect import Connection

# Retirement can wait for an hour; these only bridge what ordinary transactions hold.
_ATTEMPTS: Final = 5
_PAUSE_S: Final = 0.5

# By this comment the catalogue tells our tables from those that somebody detached to keep them.
_MARK: Final = "Expired: detached and dropped by the retention chore."


class ExpiredPartition(NamedTuple):
    """A partition whose day has expired, or a table that was one."""

    parent: Literal["tasks", "finished_runs", "task_logs"]
    name: str
    day: date
    id_from: UUID
    id_until: UUID
    is_kept: bool
    """It holds only survivors: tasks that had a live run or a dead letter when the day expired."""
    status: Literal["attached", "pending", "detached"]
    """`pending`: its detachment was interrupted."""


class ExpiredPartitions:
    """The statements of retention. Connections are direct, autocommit, with a short `lock_timeout`."""

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._schema = schema

    async def list(self, conn: Connection, retention_s: float) -> list[ExpiredPartition]:
        """Return what has expired, the oldest day first, tasks before their history and logs."""
        cursor = await conn.execute(load("partition.list_expired", self._schema), {"retention_s": retention_s})
        return [ExpiredPartition(*row) for row in await cursor.fetchall()]

    async def has_survivors(self, conn: Connection, partition: ExpiredPartition) -> bool:
        """Tell whether any of its tasks has a live run or a dead letter; once false, that stays so."""
        cursor = await conn.execute(load("partition.has_survivors", self._schema), _range(partition))
        row = await cursor.fetchone()
        return row is not None and bool(row[0])

    async def has_tasks(self, conn: Connection, partition: ExpiredPartition) -> bool:
        """Tell whether there is any task of its day."""
        cursor = await conn.execute(load("partition.has_tasks", self._schema), _range(partition))
        row = await cursor.fetchone()
        return row is not None and bool(row[0])

    async def is_locked(self, conn: Connection, partition: ExpiredPartition, age_s: float) -> bool:
        """Tell whether a transaction older than `age_s` seconds holds the partition or its parent."""
        parameters = {"parent": partition.parent, "name": partition.name, "age_s": age_s}
        cursor = await conn.execute(load("partition.is_locked", self._schema), parameters)
        row = await cursor.fetchone()
        return row is not None and bool(row[0])

    async def keep_survivors(self, conn: Connection, partition: ExpiredPartition) -> bool:
        """Exchange a partition for one with only what must be kept, at once for everybody; False if it is in use.

        Of tasks these are the survivors, of history and logs those of all tasks of the day that are there.
        """
        parameters = {"parent": partition.parent, "day": partition.day}
        return await _patiently(lambda: conn.execute(load("partition.keep", self._schema), parameters))

    async def purge(self, conn: Connection, partition: ExpiredPartition, retention_s: float) -> int:
        """Delete a page of tasks that ended `retention_s` ago, or history or logs without a task; return the count."""
        if partition.parent == "finished_runs":
            return (await conn.execute(load("partition.purge_history", self._schema), _range(partition))).rowcount
        if partition.parent == "task_logs":
            return (await conn.execute(load("partition.purge_logs", self._schema), _range(partition))).rowcount
        parameters = {**_range(partition), "retention_s": retention_s}
        return (await conn.execute(load("partition.purge_tasks", self._schema), parameters)).rowcount

    async def detach(self, conn: Connection, partition: ExpiredPartition) -> bool:
        """Detach a partition without locking its parent against anybody; False if it is in use.

        Waits for transactions that may still read it, and may stop half-way:
        the partition then is `pending`, nobody sees it any more, and `finalize` goes on.
        """
        mark = sql.Literal(_MARK)
        if not await _patiently(lambda: self._execute(conn, "COMMENT ON TABLE {name} IS {mark}", partition, mark=mark)):
            return False
        statement: LiteralString = "ALTER TABLE {parent} DETACH PARTITION {name} CONCURRENTLY"
        return await _patiently(lambda: self._execute(conn, statement, partition))

    async def finalize(self, conn: Connection, partition: ExpiredPartition) -> bool:
        """Complete a detachment that was interrupted; False if transactions from before it are still open."""
        statement: LiteralString = "ALTER TABLE {parent} DETACH PARTITION {name} FINALIZE"
        return await _patiently(lambda: self._execute(conn, statement, partition))

    async def drop(self, conn: Connection, partition: ExpiredPartition) -> bool:
        """Drop a table that is detached; False if it is in use."""
        return await _patiently(lambda: self._execute(conn, "DROP TABLE IF EXISTS {name}", partition))

    async def _execute(
        self, conn: Connection, statement: LiteralString, partition: ExpiredPartition, **parts: sql.Composable
    ) -> None:
        composed = sql.SQL(statement).format(
            parent=sql.Identifier(self._schema, partition.parent),
            name=sql.Identifier(self._schema, partition.name),
            **parts,
        )
        await conn.execute(composed)


async def _patiently(attempt: Callable[[], Awaitable[object]]) -> bool:
    """Try a statement until it gets its locks, but not for long; return whether it did."""
    for _ in range(_ATTEMPTS):
        try:
            await attempt()
        except errors.LockNotAvailable:
            await asyncio.sleep(random.uniform(0.5, 1) * _PAUSE_S)
        except errors.ObjectNotInPrerequisiteState:
            # A table has at most one partition that is being detached: this one, or another that is in use.
            return False
        else:
            return True
    return False


def _range(partition: ExpiredPartition) -> dict[str, object]:
    return {"id_from": partition.id_from, "id_until": partition.id_until}
