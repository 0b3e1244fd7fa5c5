"""Keeps the background loops of a process alive.

A loop is a coroutine function that works until the process is to stop. A crash
of one must neither go unnoticed nor take the others along: it is logged with its
traceback, and the loop starts again after a pause that grows. A loop that
crashes again and again ends the process, whose supervisor then starts it clean.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from howdah.core import metrics
from howdah.core.backoff import delays, pause
from howdah.core.errors import DatabaseUnavailable, LoopFailed, StartRefused, Stopped

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# With pauses that double up to 5 s these take about 15 s on average.
CRASHES_MAX: Final = 10
# Longer than any pause, so that a loop that keeps crashing shows all the time.
FAULT_SHOWN_S: Final = 10.0
# A loop that ran for so long has recovered; its crashes are counted anew.
HEALTHY_AFTER_S: Final = 60.0

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Loop:
    name: str
    work: Callable[[], Awaitable[None]]
    fault: str = ""
    crashed_at: float = -math.inf


class Supervisor:
    """A named set of loops that run until the process is to stop."""

    def __init__(self, stop: asyncio.Event) -> None:
        """End loops, by their own doing, once `stop` is set."""
        self._stop = stop
        self._loops: list[_Loop] = []

    def add(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Add a loop before `run`; `work` is called for each start and returns when the process is to stop."""
        self._loops.append(_Loop(name, work))

    def fault(self) -> str | None:
        """Say which loops crashed a moment ago, for a readiness check; None if all are well."""
        since = time.monotonic() - FAULT_SHOWN_S
        return "; ".join(f"{loop.name}: {loop.fault}" for loop in self._loops if loop.crashed_at > since) or None

    async def run(self) -> None:
        """Run all loops until each has returned after the stop.

        Cancelling it cancels them all. When it ends, none of them is left running.

        Raises:
            LoopFailed: A loop crashed `CRASHES_MAX` times without a healthy minute between.
            StartRefused: A loop found that this process must not go on, for example a newer schema.
        """
        tasks = [asyncio.create_task(self._keep(loop), name=loop.name) for loop in self._loops]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION) if tasks else (set(), None)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, loop: _Loop) -> None:
        waits, crashes = delays(), 0
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                await loop.work()
                if self._stop.is_set():
                    return
                error: Exception = RuntimeError("the loop returned although the process is not to stop")
            except (Stopped, StartRefused) as refusal:
                if self._stop.is_set() and isinstance(refusal, Stopped):
                    return
                raise
            except Exception as raised:
                error = raised
            if time.monotonic() - began >= HEALTHY_AFTER_S:
                waits, crashes = delays(), 0
            # PostgreSQL being away is no fault of the loop, however long it takes.
            crashes += not isinstance(error, DatabaseUnavailable)
            self._log(loop, error, crashes)
            if crashes >= CRASHES_MAX:
                raise LoopFailed(f"the loop {loop.name!r} crashed {crashes} times: {error!r}") from error
            loop.fault, loop.crashed_at = f"{type(error).__name__}: {error}", time.monotonic()
            await pause(self._stop, next(waits))

    @staticmethod
    def _log(loop: _Loop, error: Exception, crashes: int) -> None:
        if isinstance(error, DatabaseUnavailable):
            _logger.warning("loop_interrupted", extra={"fields": {"loop": loop.name, "reason": str(error)}})
            return
        metrics.LOOP_RESTARTS.labels(loop.name).inc()
        fields = {"loop": loop.name, "crashes": crashes}
        _logger.error("loop_crashed", exc_info=error, extra={"fields": fields})
