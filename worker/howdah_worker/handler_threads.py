"""The threads in which plain functions run.

As a `ThreadPoolExecutor`, without what nobody asks for (a future for each call), and
with one message to the event loop for all calls that end while it is busy: a message
costs it a system call and a turn.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from howdah_worker.outcome import RELEASED
from howdah_worker.run import RUNNING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from howdah_worker.outcome import Ending
    from howdah_worker.run import Run


class HandlerThreads:
    """Performs runs in threads, which are started when they are first needed.

    Everything but the threads' own work is called on the event loop.
    """

    def __init__(
        self,
        count: int,
        loop: asyncio.AbstractEventLoop,
        perform: Callable[[Run], Ending],
        on_ended: Callable[[Sequence[tuple[Run, Ending]]], None],
    ) -> None:
        """Describe the threads.

        Args:
            count: How many there may be.
            loop: The event loop to tell.
            perform: Called in a thread; must not raise.
            on_ended: Called on the event loop with runs that ended, and what that returned for each.
        """
        self._count = count
        self._loop = loop
        self._perform = perform
        self._on_ended = on_ended
        self._busy = 0
        self._threads: list[threading.Thread] = []
        self._runs: SimpleQueue[Run | None] = SimpleQueue()
        self._ended: deque[tuple[Run, Ending]] = deque()
        self._is_told = False

    @property
    def free(self) -> int:
        """How many runs may be given."""
        return self._count - self._busy

    def give(self, run: Run) -> None:
        """Have a run performed; there must be a thread free."""
        self._busy += 1
        self._runs.put(run)
        if len(self._threads) < self._busy:
            thread = threading.Thread(target=self._work, name=f"howdah-handler_{len(self._threads)}")
            # The system may give no more threads now: those that there are take the run when they can, or one
            # that can be started later.
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._threads.append(thread)

    def end(self) -> None:
        """Let the threads end that have nothing to do; what has not started is forgotten."""
        try:
            while True:
                self._runs.get_nowait()
        except Empty:
            pass
        for _ in self._threads:
            self._runs.put(None)

    def _work(self) -> None:
        while (run := self._runs.get()) is not None:
            # Its timeout may have come while it waited for a thread: its outcome is recorded then.
            self._ended.append((run, self._perform(run) if run.stage is RUNNING else RELEASED))
            del run  # Waiting for the next, a thread keeps nothing of the last alive.
            # First added, then asked; told off first, then taken: so none is missed.
            if not self._is_told:
                self._is_told = True
                with contextlib.suppress(RuntimeError):  # The event loop has ended without waiting for this call.
                    self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._is_told = False
        ended = [self._ended.popleft() for _ in range(len(self._ended))]
        self._busy -= len(ended)
        if ended:  # Two threads may have told at once.
            self._on_ended(ended)
