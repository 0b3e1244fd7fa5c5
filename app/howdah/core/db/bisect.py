"""Batches in which one bad item must fail alone.

What our statements refuse comes back as rows. An error is something else: a
value that a type does not take, a trigger that somebody added. It aborts the
whole statement and does not say whose fault it is, so the batch is halved until
the item at fault stands alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import psycopg
from psycopg import errors

from howdah.core.db.errors import is_disconnect, is_retryable, is_storage_full

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from howdah.core.db.connect import Connection

T = TypeVar("T")
R = TypeVar("R")


async def bisected(
    conn: Connection,
    items: Sequence[T],
    attempt: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
    failed: Callable[[T, psycopg.Error], R],
    is_fatal: Callable[[psycopg.Error], bool] | None = None,
) -> list[R]:
    """Apply a batch in one transaction, leaving out the items that cause an error.

    With k bad items among n the statement runs about k x log2(n) times more, all
    in one transaction with one commit.

    Args:
        conn: Any; inside a transaction the whole becomes a savepoint of it.
        items: The batch, in the order in which results are returned.
        attempt: One statement for a part of the batch; returns one result for each item.
        failed: Makes the result of an item that cannot be applied, or raises if it concerns all.
        is_fatal: Tells which errors are nobody's fault; `concerns_all` if not given.

    Raises:
        psycopg.Error: The error is nobody's fault: the connection is lost, the server
            has no room, or the statement or a lock took too long. Nothing was applied.
    """
    async with conn.transaction():
        return await _halved(conn, items, attempt, failed, is_fatal or concerns_all)


async def _halved(
    conn: Connection,
    items: Sequence[T],
    attempt: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
    failed: Callable[[T, psycopg.Error], R],
    is_fatal: Callable[[psycopg.Error], bool],
) -> list[R]:
    try:
        async with conn.transaction():
            return list(await attempt(items))
    except psycopg.Error as error:
        if is_fatal(error):
            raise
        if len(items) == 1:
            return [failed(items[0], error)]
    middle = len(items) // 2
    return [
        *await _halved(conn, items[:middle], attempt, failed, is_fatal),
        *await _halved(conn, items[middle:], attempt, failed, is_fatal),
    ]


def concerns_all(error: psycopg.Error) -> bool:
    """Tell whether an error has nothing to do with the items of the batch, so that halving it is in vain."""
    if is_disconnect(error) or is_storage_full(error) or is_retryable(error):
        return True
    # The same time would be spent with each half again.
    return isinstance(error, errors.QueryCanceled)
