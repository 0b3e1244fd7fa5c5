"""How much one process takes on at once: what is over is told to come back, before it costs memory."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

from howdah.api.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

# A request that waits for its commit holds a few KiB besides its body. At 10,000 creates a
# second this many wait for 0.2 s, past which a client is better told.
CALLS_MAX: Final = 2_048
# Requests that wait for work or a result hold some 20 KiB each, and nothing else.
WAITS_MAX: Final = 8_192
# Bodies of all requests under way: 32 of the largest batches.
BODY_BYTES_MAX: Final = 256 * 1024 * 1024
# A client on a slow link sends 1 MiB in this time at 0.6 Mbit/s; one that stalls must
# not hold its place for longer.
BODY_S_MAX: Final = 13.0
_LOOK_EVERY_S: Final = 1.0


class Gate:
    """Counts requests under way and the bytes of their bodies, and ends those whose body does not come."""

    def __init__(self) -> None:
        """Begin empty."""
        self.call_count = 0
        self.wait_count = 0
        self._body_bytes = 0
        self._reading: dict[asyncio.Task[object], float] = {}
        self._overdue: set[asyncio.Task[object]] = set()

    def enter(self) -> None:
        """Let a request in.

        Raises:
            Problem: There are too many under way. It is counted all the same, until `leave`.
        """
        self.call_count += 1
        if self.call_count > CALLS_MAX:
            raise Problem("backpressure", f"{CALLS_MAX} requests are under way in this process.")

    def hold(self, size: int) -> None:
        """Count bytes of a body; they are given back by `leave`.

        Raises:
            Problem: All bodies under way are too large together.
        """
        self._body_bytes += size
        if self._body_bytes > BODY_BYTES_MAX:
            raise Problem("backpressure", "The requests under way hold too much memory.")

    def leave(self, body_bytes: int) -> None:
        """Let a request go, and its body."""
        self.call_count -= 1
        self._body_bytes -= body_bytes

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count a request, for as long as this lasts, among those that wait, which take no place from others.

        Raises:
            Problem: Too many wait.
        """
        if self.wait_count >= WAITS_MAX:
            raise Problem("backpressure", f"{WAITS_MAX} requests wait in this process.")
        self.wait_count += 1
        self.call_count -= 1
        try:
            yield
        finally:
            self.wait_count -= 1
            self.call_count += 1

    def begin_reading(self, task: asyncio.Task[object]) -> None:
        """Let a task wait for the body of its request, for `BODY_S_MAX` and about a second.

        A timer for each request would cost more than reading most bodies does: measured, 5 us
        of 55.
        """
        self._reading[task] = time.monotonic() + BODY_S_MAX

    def end_reading(self, task: asyncio.Task[object]) -> bool:
        """End the wait; true if the task was cancelled because it waited too long."""
        del self._reading[task]
        if task in self._overdue:
            self._overdue.discard(task)
            return True
        return False

    async def run(self) -> None:
        """Cancel the tasks that have waited too long, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            now = time.monotonic()
            for task, until in self._reading.items():
                if until < now and task not in self._overdue:
                    self._overdue.add(task)
                    task.cancel()
