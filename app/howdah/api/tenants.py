"""The tenant that a key belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from howdah.api import shapes
from howdah.api.call import Answer, json_answer

if TYPE_CHECKING:
    from howdah.api.call import Call


async def get_callback_secret(call: Call) -> Answer:
    """Read the secret with which receivers verify this tenant's callbacks."""
    async with call.backend.database.connection() as conn:
        tenant = await call.backend.tenants.get(conn, call.key.tenant_id)
    assert tenant is not None, "a key's tenant exists: the key refers to it"
    answer = json_answer(200, shapes.CallbackSecret(tenant.name, tenant.callback_secret))
    return answer._replace(headers=[*answer.headers, (b"cache-control", b"no-store")])


async def ping(call: Call) -> Answer:
    """Tell whose key it is, without asking the database: a cheap test of address, key and clock skew."""
    return json_answer(200, shapes.Pong(call.key.tenant))
