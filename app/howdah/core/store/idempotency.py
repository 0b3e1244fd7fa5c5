"""Answers to requests that carried an Idempotency-Key."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from psycopg.errors import LockNotAvailable

from howdah.core.db.queries import load
from howdah.core.errors import Refused

if TYPE_CHECKING:
    from howdah.core.db.connect import Connection


class KeptAnswer(NamedTuple):
    """A stored answer, and the hash of the request that it belongs to."""

    request_hash: bytes
    status: int
    location: str | None
    answer: str


class Idempotency:
    """The statements on `idempotency_keys`, each named as its query file."""

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._schema = schema

    async def take(self, conn: Connection, tenant_id: int, key: str, request_hash: bytes) -> bool:
        """Take a key for this transaction; False if it has an answer already.

        Raises:
            Refused: Another transaction holds the key for longer than lock_timeout (idempotency_key_in_use).
        """
        parameters = {"tenant_id": tenant_id, "key": key, "request_hash": request_hash}
        try:
            cursor = await conn.execute(load("idempotency.take", self._schema), parameters)
        except LockNotAvailable:
            raise Refused("idempotency_key_in_use", "", "A request with the same key is under way.") from None
        return cursor.rowcount == 1

    async def get(self, conn: Connection, tenant_id: int, key: str) -> KeptAnswer | None:
        """Return the answer that a key has, or None."""
        parameters = {"tenant_id": tenant_id, "key": key}
        cursor = await conn.execute(load("idempotency.get", self._schema), parameters, binary=True)
        row = await cursor.fetchone()
        return None if row is None else KeptAnswer._make(row)

    async def answer(
        self, conn: Connection, tenant_id: int, key: str, *, status: int, location: str | None, answer: str
    ) -> None:
        """Store the answer of a key that this transaction has taken."""
        parameters = {"tenant_id": tenant_id, "key": key, "status": status, "location": location, "answer": answer}
        await conn.execute(load("idempotency.answer", self._schema), parameters)
