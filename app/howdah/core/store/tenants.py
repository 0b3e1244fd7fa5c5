"""Tenants: the units of isolation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from howdah.core.db.errors import translated
from howdah.core.db.queries import load
from howdah.core.model import TenantSecret

if TYPE_CHECKING:
    from howdah.core.db.connect import Connection


class Tenants:
    """The queries under `sql/queries/tenant`."""

    def __init__(self, schema: str) -> None:
        """Work on the installation with this schema."""
        self._list_secrets = load("tenant.list_secrets", schema)

    async def list_secrets(self, conn: Connection) -> list[TenantSecret]:
        """Return every tenant with the secret that signs its callbacks.

        Raises:
            DatabaseUnavailable: The connection is lost.
        """
        with translated():
            cursor = await conn.execute(self._list_secrets)
            return [TenantSecret(*row) for row in await cursor.fetchall()]
