"""Kills what the children of a worker have left when the worker is gone, however it went.

A program of its own, without a module of ours or of others, so that it stays small. The
worker writes the process groups of its children to its standard input, `+4711` and
`-4711` a line; when that ends, all groups that are left are killed. Nothing that a handler
does (signals blocked, the interpreter's lock held, descriptors closed) reaches it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from typing import Final

# A process that a handler has forked may hold the other end of the pipe open: the parent is looked at, too.
_LOOK_S: Final = 0.5


def main(worker: int) -> None:
    """Watch until the process `worker`, our parent, is gone; then kill."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    rest = b""
    while os.getppid() == worker:
        if not select.select([0], [], [], _LOOK_S)[0]:
            continue
        data = os.read(0, 4_096)
        if not data:
            break
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            (groups.add if line[:1] == b"+" else groups.discard)(int(line[1:]))
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]))
