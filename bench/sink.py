"""A receiver of callbacks that answers 200 to everything, at little cost: a process of its own, on raw connections.

Prints its port once it listens. With `--delay` it answers each request so many seconds later.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import cast

import uvloop
from http_client import Reader

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Receiver(asyncio.Protocol):
    """One connection, on which a client sends a request, waits for its answer, and sends the next."""

    def __init__(self, delay_s: float) -> None:
        """Answer after `delay_s` seconds."""
        self._delay_s = delay_s
        self._reader = Reader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer a request once it is whole."""
        if self._reader.take(data) is None:
            return
        if self._delay_s:
            asyncio.get_running_loop().call_later(self._delay_s, self._transport.write, _ANSWER)
        else:
            self._transport.write(_ANSWER)


async def serve(delay_s: float) -> None:
    """Listen on a free port until the process is ended."""
    server = await asyncio.get_running_loop().create_server(lambda: Receiver(delay_s), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=0.0)
    uvloop.run(serve(parser.parse_args().delay))
