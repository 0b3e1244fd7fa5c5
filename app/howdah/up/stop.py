"""Requests to stop: counted, and waited for."""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING, Final

from howdah.core.errors import Stopped

if TYPE_CHECKING:
    from types import FrameType

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequests:
    """Counts SIGINT, SIGTERM and SIGHUP from its making on; belongs to the main thread."""

    def __init__(self) -> None:
        """Take the signals over."""
        self.count = 0
        # A pipe, because a handler that interrupts threading's own waiting must not touch its locks.
        self._news, self._bell = os.pipe()
        os.set_blocking(self._bell, False)
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)

    def wait(self, seconds: float) -> bool:
        """Wait for some seconds, or less if there is a new request; return whether there was one."""
        if not select.select([self._news], [], [], seconds)[0]:
            return False
        os.read(self._news, 1)
        return True

    def check(self) -> None:
        """Go on only if nobody wants us to stop.

        Raises:
            Stopped: Somebody does.
        """
        if self.count:
            raise Stopped("a stop was requested")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        os.write(self._bell, b"!")
