"""The program that a child of `howdah up` is: a command of `howdah` that ends with its parent.

    python -m howdah.up.child PARENT_PID COMMAND [ARGUMENT ...]

A parent that is killed cannot stop anybody. So the kernel is asked to kill this
process with the thread that started it: what it had under way is then rescued
like that of any worker that died. Where the kernel cannot be asked, the next
`howdah up` ends what is left over (see `directory`).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Bind this process's life to its parent's, and become the command."""
    parent_pid = int(argv[1])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        sys.exit("howdah up is gone")
    from howdah.cli import main as command

    command(argv[2:], prog_name="howdah")


if __name__ == "__main__":
    main(sys.argv)
