"""The handler that peer_howdah.py's worker runs: it tells the harness when each job started."""

from __future__ import annotations

import array
import atexit
import os
import threading
from typing import Any

import core  # The harness; see bench/README.md.

import howdah


class Recorder(core.Recorder):  # type: ignore[misc]
    """The harness's recorder, which on a busy machine loses a start now and then: here, none is.

    It swaps its buffer while a handler may be about to add to the old one, and gives
    that a millisecond. One start that is missing makes the harness wait for its time limit.
    """

    _lock = threading.Lock()

    def __call__(self, sent_at: float) -> None:
        """Add the start of a job that was sent at that time."""
        with self._lock:
            super().__call__(sent_at)

    def flush(self) -> None:
        """Write out what was added."""
        with self._lock:
            old, self.buf = self.buf, array.array("d")
        if old:
            self.f.write(old.tobytes())


_record = Recorder(os.environ["PEER_STARTS"])
atexit.register(_record.flush)


@howdah.handler("peer.noop")
async def noop(payload: dict[str, Any]) -> None:
    """Record the start, as the handlers of all peers do."""
    _record(payload["t"])
