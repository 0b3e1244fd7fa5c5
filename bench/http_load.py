"""A load generator for HTTP that costs little itself: raw bytes over kept-alive connections.

Run as a process of its own, so that it shares no interpreter with anything. Each
connection sends a request, waits for the whole answer, and sends the next. Prints
one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import cast

import uvloop
from http_client import Reader


class Client(asyncio.Protocol):
    """One connection, sending the same request again and again."""

    def __init__(self, request: bytes, run: Run) -> None:
        """Send `request`, and count answers in `run`."""
        self._request = request
        self._run = run
        self._reader = Reader()
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        """Count an answer once it is complete, and send the next request."""
        whole = self._reader.take(data)
        if whole is None:
            return
        self._run.count(whole[0][9:12], time.perf_counter() - self._sent_at)
        if self._run.is_over:
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        """Count a connection that the server closed."""
        if not self._run.is_over:
            self._run.lost += 1

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)


class Run:
    """What a run has counted."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.statuses: dict[str, int] = {}
        self.waits_s: list[float] = []
        self.lost = 0
        self.is_over = False

    def count(self, status: bytes, wait_s: float) -> None:
        """Count one answer."""
        name = status.decode()
        self.statuses[name] = self.statuses.get(name, 0) + 1
        self.waits_s.append(wait_s)


async def load(port: int, request: bytes, connections: int, seconds: float) -> dict[str, object]:
    """Send the request over so many connections for so long."""
    run, loop = Run(), asyncio.get_running_loop()
    began, cpu_began_s = time.perf_counter(), time.process_time()
    for _ in range(connections):
        await loop.create_connection(lambda: Client(request, run), "127.0.0.1", port)
    await asyncio.sleep(seconds)
    run.is_over = True
    took_s = time.perf_counter() - began
    waits_s = sorted(run.waits_s)
    return {
        "per_s": len(waits_s) / took_s,
        "p50_ms": waits_s[len(waits_s) // 2] * 1e3,
        "p99_ms": waits_s[int(len(waits_s) * 0.99)] * 1e3,
        "statuses": run.statuses,
        "lost": run.lost,
        "cpu_s": time.process_time() - cpu_began_s,
    }


def main() -> None:
    """Read the request from a file, and print what was counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--request", type=Path, required=True, help="file that holds the bytes to send")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    result = uvloop.run(load(given.port, given.request.read_bytes(), given.connections, given.seconds))
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
