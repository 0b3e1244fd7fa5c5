"""How much one process takes on at once: what is over is told to come back, before it costs memory."""

from __future__ import annotations

from typing import Final

from howdah.api.problems import Problem

# A request that waits for its commit holds a few KiB besides its body. At 10,000 creates a
# second this many wait for 0.2 s, past which a client is better told.
CALLS_MAX: Final = 2_048
# Bodies of all requests under way: 32 of the largest batches.
BODY_BYTES_MAX: Final = 256 * 1024 * 1024


class Gate:
    """Counts requests under way and the bytes of their bodies."""

    def __init__(self) -> None:
        """Begin empty."""
        self.call_count = 0
        self._body_bytes = 0

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
