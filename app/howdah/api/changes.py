"""Changes to what is stored: each in a transaction of its own, once per Idempotency-Key if there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from howdah.api.idempotency import key_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from howdah.api.call import Answer, Call
    from howdah.core.db.connect import Connection

# How long a change waits for a row that is locked. A worker that records an outcome holds its run for milliseconds.
LOCK_S_MAX: Final = 1.0


async def at_once(call: Call, work: Callable[[Connection], Awaitable[Answer]]) -> Answer:
    """Carry a change out in a transaction of its own."""
    async with call.backend.database.transaction(lock_s_max=LOCK_S_MAX) as conn:
        return await work(conn)


async def once(call: Call, body: bytes, work: Callable[[Connection], Awaitable[Answer]]) -> Answer:
    """Carry a change out, once per Idempotency-Key if there is one; its answer is then kept, for any key to repeat."""
    key = key_of(call)
    if key is None:
        return await at_once(call, work)

    async def kept(conn: Connection) -> tuple[Answer, Callable[[], None]]:
        return await work(conn), _nothing

    return await call.backend.keeper.once(call, key, body, kept)


def _nothing() -> None:
    """Do nothing after a commit."""
