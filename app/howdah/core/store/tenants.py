"""Tenants: the unit of isolation."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from howdah.core.db.errors import translated
from howdah.core.db.queries import load
from howdah.core.model import TenantSecret

if TYPE_CHECKING:
    from datetime import datetime

    from howdah.core.db.connect import Connection


class Tenant(NamedTuple):
    """A tenant with the secret that signs its callbacks."""

    id: int
    name: str
    callback_secret: str
    payload_bytes_max: int
    created_at: datetime


class TenantCallbacks(NamedTuple):
    """What outcomes that a tenant's receivers report are checked against."""

    name: str
    callback_key: bytes
    payload_bytes_max: int


class Tenants:
    """The statements on `tenants`, each named as its query file."""

    def __init__(self, schema: str) -> None:
        """Work on the tables of one schema."""
        self._schema = schema

    async def create(self, conn: Connection, name: str) -> tuple[int, bool]:
        """Make a tenant unless it exists; return its number and whether it is new."""
        cursor = await conn.execute(load("tenant.create", self._schema), {"name": name})
        row = await cursor.fetchone()
        assert row is not None, "an upsert returns a row"
        return row[0], row[2]

    async def get(self, conn: Connection, tenant_id: int) -> Tenant | None:
        """Return a tenant by its number."""
        cursor = await conn.execute(load("tenant.get", self._schema), {"id": tenant_id}, binary=True)
        row = await cursor.fetchone()
        return None if row is None else Tenant._make(row)

    async def get_callback_key(self, conn: Connection, tenant_id: int) -> TenantCallbacks | None:
        """Return the key of a tenant's callback tokens, with its name and limit.

        Raises:
            DatabaseUnavailable: The connection is lost.
        """
        with translated():
            cursor = await conn.execute(load("tenant.get_callback_key", self._schema), {"id": tenant_id}, binary=True)
            row = await cursor.fetchone()
        return None if row is None else TenantCallbacks._make(row)

    async def list_secrets(self, conn: Connection) -> list[TenantSecret]:
        """Return every tenant with what signs its callbacks, and their tokens.

        Raises:
            DatabaseUnavailable: The connection is lost.
        """
        with translated():
            cursor = await conn.execute(load("tenant.list_secrets", self._schema))
            return [TenantSecret(*row) for row in await cursor.fetchall()]
