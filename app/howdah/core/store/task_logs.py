"""What handlers log of their tasks: written in batches by workers, read page by page, or followed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg
from psycopg.rows import namedtuple_row

from howdah.core.db.arrays import Float4s, Instants, Int2s, Int4s, Texts, Uuids
from howdah.core.db.bisect import bisected, concerns_all
from howdah.core.db.errors import translated
from howdah.core.db.queries import load
from howdah.core.store.raw_json import raw_json_cursor
from howdah.core.store.server import within_limits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from howdah.core.db.connect import Connection

_log: Final = logging.getLogger(__name__)


class Said(NamedTuple):
    """One entry and the claim that made it."""

    tenant_id: int
    task_id: bytes
    lease_token: bytes
    claim_no: int
    seq: int
    level: int
    fraction: float | None
    logged_at: int
    """Microseconds since 2000."""
    message: str
    fields: bytes | None


class Followed(NamedTuple):
    """A task that is followed, and how far its follower has read."""

    tenant_id: int
    task_id: UUID
    claim_no: int
    seq: int
    level: int


class TaskLogs:
    """The queries under `sql/queries/log`."""

    def __init__(self, schema: str) -> None:
        """Work on the installation with this schema."""
        self._insert = load("log.insert", schema)
        self._page = load("log.page", schema)
        self._follow = load("log.follow", schema)

    async def insert(self, conn: Connection, entries: Sequence[Said]) -> int:
        """Append entries whose leases are held; one that cannot be stored keeps no other from it.

        Args:
            conn: Hot, autocommit, reading raw, with limits on statements and locks.
            entries: At least one. Those that are there already are not stored twice.

        Returns:
            How many were stored by this call.

        Raises:
            DatabaseUnavailable: The connection is lost; a repeat does no harm.
            StorageUnavailable: The server cannot store now, or did not within the limits.
        """
        with translated(), within_limits():
            try:
                return await self._insert_all(conn, entries)
            except psycopg.Error as error:
                if concerns_all(error):
                    raise

            async def attempt(part: Sequence[Said]) -> list[int]:
                stored = await self._insert_all(conn, part)
                return [stored, *[0] * (len(part) - 1)]

            errors: list[psycopg.Error] = []

            def refuse(_: Said, error: psycopg.Error) -> int:
                errors.append(error)
                return 0

            stored = sum(await bisected(conn, entries, attempt, refuse))
            if errors:
                fields = {"count": len(errors), "sqlstate": errors[0].sqlstate}
                _log.error("log_entries_unstorable", exc_info=errors[0], extra={"fields": fields})
            return stored

    async def _insert_all(self, conn: Connection, entries: Sequence[Said]) -> int:
        columns = list(zip(*entries, strict=True))
        parameters = {
            "tenant_ids": Int4s(columns[0]),
            "task_ids": Uuids(columns[1]),
            "lease_tokens": Uuids(columns[2]),
            "claim_nos": Int4s(columns[3]),
            "seqs": Int4s(columns[4]),
            "levels": Int2s(columns[5]),
            "fractions": Float4s(columns[6]),
            "logged_ats": Instants(columns[7]),
            "messages": Texts(columns[8]),
            "fields": Texts(columns[9]),
        }
        cursor = await conn.execute(self._insert, parameters, binary=True)
        row = await cursor.fetchone()
        assert row is not None, "an aggregate returns a row"
        count: int = row[0]
        return count

    async def page(
        self, conn: Connection, tenant_id: int, task_id: UUID, *, after: tuple[int, int], level: int, row_count: int
    ) -> list[Any]:
        """Return entries of a task behind `after` (claim number and seq), oldest first; named tuples."""
        cursor = raw_json_cursor(conn)
        cursor.row_factory = namedtuple_row
        parameters = {
            "tenant_id": tenant_id,
            "id": task_id,
            "after_claim_no": after[0],
            "after_seq": after[1],
            "level": level,
            "row_count": row_count,
        }
        await cursor.execute(self._page, parameters)
        return await cursor.fetchall()

    async def follow(self, conn: Connection, followed: Sequence[Followed], *, row_count: int) -> list[Any]:
        """Return what is new for each follower, by its ordinal (from 1), and which of their tasks have ended.

        One statement, however many there are. A row with `ended_as` says that there is nothing more to come.
        """
        columns = list(zip(*followed, strict=True))
        cursor = raw_json_cursor(conn)
        cursor.row_factory = namedtuple_row
        parameters = {
            "tenant_ids": Int4s(columns[0]),
            "task_ids": Uuids([task_id.bytes for task_id in columns[1]]),
            "after_claim_nos": Int4s(columns[2]),
            "after_seqs": Int4s(columns[3]),
            "levels": Int2s(columns[4]),
            "row_count": row_count,
        }
        await cursor.execute(self._follow, parameters)
        return await cursor.fetchall()
