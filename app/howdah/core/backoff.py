"""Waiting: for the next try while PostgreSQL is away, and between rounds of a loop.

Tries are spread with full jitter, so that a fleet whose server comes back does
not knock all at once, and never lie further apart than 5 s, which is how soon
every process must have resumed.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, Final, TypeVar

from howdah.core import metrics
from howdah.core.errors import DatabaseUnavailable, Stopped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

T = TypeVar("T")

DELAY_S_MAX: Final = 5.0
_DELAY_S_FIRST: Final = 0.1
# An outage of an hour should leave a few hundred lines, not tens of thousands.
_LOG_EVERY_S: Final = 10.0

_logger = logging.getLogger(__name__)


def delays(unit_random: Callable[[], float] = random.random) -> Iterator[float]:
    """Give the seconds to wait before each further try: evenly random up to a bound that doubles from 0.1 s to 5 s."""
    bound_s = _DELAY_S_FIRST
    while True:
        yield unit_random() * bound_s
        bound_s = min(bound_s * 2, DELAY_S_MAX)


async def pause(stop: asyncio.Event, seconds: float) -> bool:
    """Wait for some seconds, or less if the process is to stop.

    Returns:
        Whether it is to stop.
    """
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return stop.is_set()
    return True


async def retry_forever(operation: Callable[[], Awaitable[T]], what: str, stop: asyncio.Event) -> T:
    """Repeat an operation until PostgreSQL lets it through.

    Only `DatabaseUnavailable` is repeated; every other error is the caller's.
    The operation must bear repeating although an earlier try may have committed.

    Args:
        operation: Called for each try.
        what: Names the operation in logs and metrics, for example `worker_register`.
        stop: Ends the repetition.

    Raises:
        Stopped: `stop` was set before a try succeeded.
    """
    waits = delays()
    failed_since: float | None = None
    logged_at = 0.0
    while not stop.is_set():
        try:
            result = await operation()
        except DatabaseUnavailable as error:
            now = time.monotonic()
            failed_since = now if failed_since is None else failed_since
            if now - logged_at >= _LOG_EVERY_S or failed_since == now:
                logged_at = now
                fields = {"operation": what, "reason": str(error), "for_s": round(now - failed_since, 1)}
                _logger.warning("database_unavailable", extra={"fields": fields})
            metrics.DATABASE_RETRIES.labels(what).inc()
            await pause(stop, next(waits))
        else:
            if failed_since is not None:
                fields = {"operation": what, "after_s": round(time.monotonic() - failed_since, 1)}
                _logger.info("database_available", extra={"fields": fields})
            return result
    raise Stopped(f"{what} was given up because the process is to stop")
