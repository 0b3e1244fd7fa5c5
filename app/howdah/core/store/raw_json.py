"""Reading JSON as the text that it is: what we hand on to a client is not decoded on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psycopg.adapt import Buffer, Loader
from psycopg.pq import Format

if TYPE_CHECKING:
    from psycopg import AsyncCursor

    from howdah.core.db.connect import Connection


class _JsonText(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> bytes:
        return bytes(data)


class _JsonbText(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> bytes:
        # The first byte is the version of the format.
        return bytes(data[1:])


def raw_json_cursor(conn: Connection) -> AsyncCursor[Any]:
    """Return a binary cursor that reads `json` and `jsonb` as bytes."""
    cursor = conn.cursor(binary=True)
    cursor.adapters.register_loader("json", _JsonText)
    cursor.adapters.register_loader("jsonb", _JsonbText)
    return cursor
