"""Credentials of HTTP clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from howdah.core.db.queries import load

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from howdah.core.db.connect import Connection


class ApiKey(NamedTuple):
    """A credential with its tenant; the secret itself is not stored."""

    id: str
    tenant_id: int
    tenant: str
    secret_hash: bytes
    name: str
    scopes: list[str]
    is_dead: bool
    """Revoked, or past its expiry."""
    expires_at: datetime | None
    cursor_secret: bytes
    """What this tenant's list cursors are authenticated with."""


class ApiKeys:
    """The statements on `api_keys`, each named as its query file."""

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._schema = schema

    async def get(self, conn: Connection, key_id: str) -> ApiKey | None:
        """Find a credential by its public part."""
        cursor = await conn.execute(load("api_key.get", self._schema), {"id": key_id}, binary=True)
        row = await cursor.fetchone()
        return None if row is None else ApiKey._make(row)

    async def create(
        self,
        conn: Connection,
        *,
        key_id: str,
        tenant: str,
        secret_hash: bytes,
        name: str,
        scopes: Sequence[str],
        expires_at: datetime | None = None,
    ) -> bool:
        """Store a new credential; False if there is no such tenant."""
        parameters = {
            "id": key_id,
            "tenant": tenant,
            "secret_hash": secret_hash,
            "name": name,
            "scopes": list(scopes),
            "expires_at": expires_at,
        }
        cursor = await conn.execute(load("api_key.create", self._schema), parameters)
        return cursor.rowcount == 1

    async def touch(self, conn: Connection, key_ids: Collection[str]) -> None:
        """Record that credentials were used, to the minute; rows locked by others are passed over."""
        await conn.execute(load("api_key.touch", self._schema), {"ids": list(key_ids)})

    async def revoke(self, conn: Connection, key_id: str) -> bool:
        """Refuse a credential from now on; False if there is none."""
        cursor = await conn.execute(load("api_key.revoke", self._schema), {"id": key_id})
        return cursor.rowcount == 1
