"""Writes log lines from a thread of its own, so that a blocked reader blocks no work.

A full pipe (a paused `less`, Ctrl-S at the terminal, a log collector that hangs)
would otherwise stop the event loop, or the thread that renews leases, inside a
logging call. Lines wait in a bounded queue; when it is full, or the reader is
gone, lines are dropped and counted, and the count is written once writing works
again.
"""

from __future__ import annotations

import atexit
import os
import select
import threading
import time
from collections import deque
from typing import Final

# Chosen; at 300 bytes a line this is about 3 MB.
LINES_WAITING_MAX: Final = 10_000
_LINES_AT_ONCE: Final = 200
_POLL_S: Final = 0.2


class LineWriter:
    """Writes whole lines to a file descriptor, in order, without ever making the caller wait for it."""

    def __init__(self, descriptor: int, lines_waiting_max: int = LINES_WAITING_MAX) -> None:
        """Write to an open file descriptor, which stays the caller's to close."""
        self.dropped = 0
        self._descriptor = descriptor
        self._lines_waiting_max = lines_waiting_max
        self._reported = 0
        self._lines: deque[bytes] = deque()
        self._is_writing = False
        self._is_stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="howdah-log", daemon=True)

    def start(self) -> None:
        """Start the thread; at the interpreter's exit it gets a second to write what waits."""
        self._thread.start()
        atexit.register(self.stop)

    def put(self, line: bytes) -> None:
        """Hand over one line with its line feed; dropped and counted if too many wait."""
        with self._changed:
            if len(self._lines) >= self._lines_waiting_max or self._is_stopped:
                self.dropped += 1
                return
            self._lines.append(line)
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all lines are written; False if that took longer than `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._lines and not self._is_writing, timeout_s)

    def stop(self, timeout_s: float = 1.0) -> None:
        """Write what waits, for at most `timeout_s`, and end the thread; a repeat does nothing."""
        atexit.unregister(self.stop)
        self.flush(timeout_s)
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines or self._is_stopped)
                if self._is_stopped:
                    return
                lines = [self._lines.popleft() for _ in range(min(_LINES_AT_ONCE, len(self._lines)))]
                self._is_writing = True
                missing = self.dropped - self._reported
            if missing:
                lines.insert(0, self._report(missing))
            if self._write(b"".join(lines)):
                self._reported += missing
            else:
                with self._changed:
                    self.dropped += len(lines) - bool(missing)

    def _write(self, data: bytes) -> bool:
        """Write all of it, waiting as long as the reader does; False if it can never be written."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                # Someone who shares our terminal or pipe made it non-blocking.
                select.select([], [self._descriptor], [], _POLL_S)
            except OSError:
                return False
            if self._is_stopped and view:
                return False
        return True

    @staticmethod
    def _report(missing: int) -> bytes:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return f'{{"at":"{now}","level":"warning","event":"log_lines_dropped","count":{missing}}}\n'.encode()
