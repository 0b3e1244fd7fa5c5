"""Connections that handlers borrow: each is kept as it was opened, or closed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from psycopg.pq import TransactionStatus

from howdah.core.db import handler_connections
from howdah.core.db.handler_connections import HandlerConnections
from howdah.core.settings import Settings
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from howdah.core.db.connect import Connection


async def test_connection_whose_reset_is_cancelled_is_closed(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that is cancelled while its connection is made ready for the next leaves none open behind it."""
    monkeypatch.setattr(handler_connections, "_RESET", "SELECT pg_sleep(60)")
    lent: list[Connection] = []
    is_leaving = asyncio.Event()
    connections = HandlerConnections(Settings(database_url=database, handler_pool=1), "test")

    async def borrow() -> None:
        async with connections.take() as conn:
            lent.append(conn)
            is_leaving.set()

    borrowing = asyncio.create_task(borrow())
    await is_leaving.wait()
    await eventually_async(
        lambda: lent[0].pgconn.transaction_status == TransactionStatus.ACTIVE, 5, "it is being reset"
    )
    borrowing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await borrowing

    assert lent[0].closed
