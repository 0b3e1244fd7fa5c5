"""How a worker stops: nothing is lost, and no attempt is spent on what it did not finish."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from howdah_worker.executor import CLEANUP_S

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from howdah_worker.executor import Executor
    from howdah_worker.finisher import Finisher
    from howdah_worker.lease_keeper import LeaseKeeper

# A second signal leaves the process 3 s (`service.FAST_STOP_S_MAX`): handlers get one of them
# to clean up, and PostgreSQL one to record.
_FAST_S: Final = 1.0
# Longer than a restart of PostgreSQL takes to be noticed.
_FLUSH_S: Final = 10.0

_logger = logging.getLogger(__name__)


async def drain(
    executor: Executor,
    finisher: Finisher,
    keeper: LeaseKeeper,
    *,
    recovering: asyncio.Task[None],
    drain_s: float,
    hurry: asyncio.Event,
) -> int:
    """Hand back what has not started, wait for what runs, then cancel and hand back that too.

    Args:
        executor: Claims for it have ended.
        finisher: Still running; everything is recorded when this returns, if PostgreSQL answers.
        keeper: Still running.
        recovering: Asks for the runs of claims that were not answered; may be under way when this returns.
        drain_s: How long handlers may go on.
        hurry: Set for a fast stop: handlers are cancelled at once.

    Returns:
        How many outcomes could not be recorded: those runs start again when their leases end.
    """
    keeper.drain()
    executor.close()
    _logger.info("drain_began", extra={"fields": {"running": executor.running_count(), "limit_s": drain_s}})
    await _within(executor.until_idle(), drain_s, hurry)
    if left := executor.running_count():
        _logger.warning("handlers_stopped", extra={"fields": {"count": left}})
        executor.stop_running()
        await _within(executor.until_idle(), CLEANUP_S, hurry)
        if hurry.is_set():
            await _within(executor.until_idle(), _FAST_S, None)
        executor.give_up_running()
    await _within(_recorded(recovering, finisher), _FLUSH_S, hurry)
    if hurry.is_set():
        await _within(finisher.flush(), _FAST_S, None)
    if lost := finisher.backlog():
        _logger.error("reports_lost", extra={"fields": {"count": lost}})
    _logger.info("drain_ended")
    return lost


async def _recorded(recovering: asyncio.Task[None], finisher: Finisher) -> None:
    """Wait until nothing is left to be recorded."""
    await asyncio.wait({recovering})
    await finisher.flush()


async def _within(work: Coroutine[Any, Any, None], limit_s: float, hurry: asyncio.Event | None) -> None:
    """Wait for `work`, at most `limit_s` and not once `hurry` is set."""
    waits = {asyncio.ensure_future(work)}
    if hurry is not None:
        waits.add(asyncio.ensure_future(hurry.wait()))  # type: ignore[arg-type]
    try:
        await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await each
