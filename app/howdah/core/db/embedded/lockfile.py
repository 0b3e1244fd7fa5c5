"""What `postmaster.pid` says, and whether it is true.

PostgreSQL trusts a process id in that file as long as some process has it.
After a container restart that may be anybody, and the server would refuse to
start for ever. So a file that provably names no server of this cluster is
removed, and one that may name a living server never is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

_NAME: Final = "postmaster.pid"


@dataclass(frozen=True, slots=True)
class Postmaster:
    """The content of a `postmaster.pid`.

    Attributes:
        pid: The server's first process.
        port: Its port, which also names its socket.
        socket_dir: Where its socket lies; empty until it listens.
        segment: Key and id of its System V shared memory; empty until it has one.
        status: `starting`, `ready`, `stopping` or `standby`; empty until known.
    """

    pid: int
    port: int
    socket_dir: str
    segment: tuple[str, ...]
    status: str


def read_lock_file(cluster: Path) -> Postmaster | None:
    """Return what the lock file says; None if there is none, or it is being written."""
    try:
        lines = Path(cluster, _NAME).read_text(errors="surrogateescape").splitlines()
        lines += [""] * (8 - len(lines))
        return Postmaster(
            pid=int(lines[0]),
            port=int(lines[3]),
            socket_dir=lines[4],
            segment=tuple(lines[6].split()),
            status=lines[7].strip(),
        )
    except (FileNotFoundError, ValueError):
        return None


def find_postmaster(cluster: Path) -> Postmaster | None:
    """Return the living server of a cluster, or None after clearing away a stale lock file.

    A killed server counts as living while other processes of it still hold
    its shared memory: a second one beside them would destroy the cluster. Its
    status is then `stopping`.
    """
    postmaster = read_lock_file(cluster)
    if postmaster is None:
        return None
    if not Path("/proc/self").exists():
        # Elsewhere than on Linux only the process's existence is known; PostgreSQL judges a dead one's file itself.
        return postmaster if _is_alive(postmaster.pid) else None
    if _is_alive(postmaster.pid) and _is_postmaster_of(postmaster.pid, cluster):
        return postmaster
    if _is_attached(postmaster.segment):
        return replace(postmaster, status="stopping")
    Path(cluster, _NAME).unlink(missing_ok=True)
    return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_postmaster_of(pid: int, cluster: Path) -> bool:
    """Tell whether a process is the cluster's server; when in doubt, it is."""
    process = Path("/proc", str(pid))
    try:
        # A zombie's command line is empty, so it is none.
        argv = (process / "cmdline").read_bytes().split(b"\0")
        if os.path.basename(argv[0]) not in (b"postgres", b"postmaster"):
            return False
        return (process / "cwd").readlink() == cluster.resolve()
    except PermissionError:
        # Root without CAP_SYS_PTRACE may not look. A server that we started names its cluster.
        return b"-D" not in argv or os.fsencode(cluster) in argv
    except (FileNotFoundError, ProcessLookupError):
        return False


def _is_attached(segment: tuple[str, ...]) -> bool:
    """Tell whether any process is attached to a System V shared memory segment."""
    try:
        rows = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    except FileNotFoundError:
        return False
    # Columns: key shmid perms size cpid lpid nattch …; the lock file writes the key unsigned.
    for columns in (row.split() for row in rows):
        if len(segment) == 2 and columns[1] == segment[1] and int(columns[0]) & 0xFFFFFFFF == int(segment[0]):
            return int(columns[6]) > 0
    return False
