"""What an error of psycopg means to us, and what to do about it.

| the error says | so we |
|---|---|
| the connection is gone, or never came about | `DatabaseUnavailable`; connect again and repeat |
| a deadlock, a serialisation failure, a lock not granted in time | repeat the transaction |
| the disk is full, or a partition is missing | `StorageUnavailable`; an operator must act |
| SQLSTATE JQ422, JQ413, JQ404, JQ409, JQ429 of our own functions | `Refused` |
| anything else | let it through: a fault of ours |
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Final, TypeVar
from uuid import UUID

import psycopg
from psycopg import errors
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from howdah.core.errors import DatabaseUnavailable, Refused, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

T = TypeVar("T")

# Operator intervention, idle_session_timeout, and a server that became a standby or
# has no room: another attempt needs another connection.
_ENDED: Final = frozenset({"57P01", "57P02", "57P03", "57P05", "25006", "53300"})
# The class of connection exceptions.
_CONNECTION_CLASS: Final = "08"

_REFUSED_CODES: Final = {
    "JQ422": "validation",
    "JQ413": "payload_too_large",
    "JQ404": "not_found",
    "JQ409": "state_conflict",
    "JQ429": "backpressure",
}
# The constraint that a JQ409 names if another task, whose id is the detail, holds the dedup key.
_DEDUP_KEY: Final = "dedup_keys_pkey"

# Two transactions that repeat in step would fail again in step, so the pauses vary.
# Chosen: five attempts within about a third of a second.
ATTEMPTS: Final = 5
_PAUSE_S: Final = 0.02


def is_disconnect(error: psycopg.Error) -> bool:
    """Tell whether the connection is lost or must be given up, and another one may serve.

    If a statement was under way, whether it committed is unknown.
    """
    if isinstance(error, (PoolTimeout, PoolClosed, TooManyRequests)):
        return True
    if isinstance(error, errors.FeatureNotSupported) and error.diag.source_function == "RevalidateCachedQuery":
        # A migration changed a column under a prepared statement, which fails on this
        # connection from now on. The message may be in any language.
        return True
    if error.sqlstate is None:
        # Errors without a SQLSTATE come from libpq and psycopg, not from the server.
        # ProgrammingError and DataError among them are ours, such as a missing parameter.
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return error.sqlstate in _ENDED or error.sqlstate.startswith(_CONNECTION_CLASS)


def is_retryable(error: psycopg.Error) -> bool:
    """Tell whether the same transaction may succeed when repeated at once on the same connection."""
    return isinstance(error, (errors.DeadlockDetected, errors.SerializationFailure, errors.LockNotAvailable))


def is_storage_full(error: psycopg.Error) -> bool:
    """Tell whether the server has no room left on its disk."""
    return isinstance(error, errors.DiskFull)


def is_missing_partition(error: psycopg.Error) -> bool:
    """Tell whether a row belongs to a partition that does not exist.

    Partitioning reports a CHECK violation that names a table and no constraint;
    every real CHECK has a name. (The message itself may be in any language.)
    """
    return (
        isinstance(error, errors.CheckViolation)
        and error.diag.constraint_name is None
        and error.diag.table_name is not None
    )


def translate(error: psycopg.Error) -> Exception:
    """Return the error of our own tree that says what this one means, or the error itself if none does."""
    if is_disconnect(error):
        return DatabaseUnavailable(_first_line(error))
    if is_storage_full(error) or is_missing_partition(error):
        return StorageUnavailable(_first_line(error))
    code = _REFUSED_CODES.get(error.sqlstate or "")
    if error.sqlstate == "JQ409" and error.diag.constraint_name == _DEDUP_KEY:
        return Refused(
            "dedup_conflict", "", error.diag.message_primary or "", task_id=UUID(error.diag.message_detail or "")
        )
    if code is not None:
        message = error.diag.message_primary or ""
        pointer, _, detail = message.partition(" ")
        return Refused(code, pointer, detail) if pointer.startswith("/") else Refused(code, "", message)
    return error


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise errors of psycopg that leave the block as what they mean.

    Raises:
        DatabaseUnavailable: The connection is lost; whether a statement committed is unknown.
        StorageUnavailable: The server has no room or no partition for the rows.
        Refused: One of our functions refused its arguments.
    """
    try:
        yield
    except psycopg.Error as error:
        meaning = translate(error)
        if meaning is error:
            raise
        raise meaning from error


async def retrying(attempt: Callable[[], Awaitable[T]]) -> T:
    """Run a transaction, again if the server chose it as the victim of a deadlock or conflict.

    Args:
        attempt: A whole transaction; repeated up to four times, with pauses that
            grow and vary, about a third of a second in all.

    Returns:
        What the attempt that succeeded returned.

    Raises:
        psycopg.Error: Any other error at once, or the last attempt's.
    """
    for number in range(1, ATTEMPTS):
        try:
            return await attempt()
        except (errors.DeadlockDetected, errors.SerializationFailure):
            await asyncio.sleep(random.uniform(0.5, 1) * _PAUSE_S * 2 ** (number - 1))
    return await attempt()


def _first_line(error: psycopg.Error) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
