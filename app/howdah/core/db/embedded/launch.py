"""Become the server's account and turn into PostgreSQL. A program, not a module to import.

    python -I -S launch.py PARENT_PID UID GID PROGRAM [ARGUMENT ...]

UID -1 stays who we are. The server is told to shut down fast (SIGINT) when
the thread that started it is gone, be it by kill -9. The request survives exec but not a
change of user, so it is made here, after that change and before the exec;
doing the same in Popen's `preexec_fn` would be unsafe once threads exist.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Switch the user, bind the server's life to its parent's, and exec it."""
    parent_pid, uid, gid = (int(word) for word in argv[1:4])
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
    if os.getppid() != parent_pid:
        # The parent died before the request was made: nobody would ever stop the server.
        sys.exit("the process that asked for this server is gone")
    os.execv(argv[4], argv[4:])


if __name__ == "__main__":
    main(sys.argv)
