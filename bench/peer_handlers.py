"""The handler that peer_howdah.py's worker runs: it tells the harness when each job started."""

from __future__ import annotations

import atexit
import os
from typing import Any

import core  # The harness; see bench/README.md.

import howdah

_record = core.Recorder(os.environ["PEER_STARTS"])
atexit.register(_record.flush)


@howdah.handler("peer.noop")
async def noop(payload: dict[str, Any]) -> None:
    """Record the start, as the handlers of all peers do."""
    _record(payload["t"])
