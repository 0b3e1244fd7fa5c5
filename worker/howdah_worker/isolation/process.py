"""Child processes, as their worker sees them: started, spoken to, and killed with all that they started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Final

from howdah_worker.isolation import warden

if TYPE_CHECKING:
    from collections.abc import Callable

_WARDEN: Final = warden.__file__


class Warden:
    """The process that kills the groups of children once this process is gone."""

    def __init__(self) -> None:
        """Start it with the first group, not now."""
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def watch(self, group: int) -> None:
        """Have a group killed once this process is gone.

        Raises:
            OSError: The system gives no more processes.
        """
        with self._lock:
            self._groups.add(group)
            self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """Have a group, which has ended, no longer killed."""
        with self._lock:
            self._groups.discard(group)
            with contextlib.suppress(OSError):
                self._tell(f"-{group}\n")

    def end(self) -> None:
        """Let it end, which kills the groups that are left."""
        with self._lock:
            if self._process is not None:
                self._close(self._process)
                self._process.wait()
                self._process = None

    def _tell(self, line: str) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(BrokenPipeError):
                self._write(self._process, line)
                return
        # It is the first time, or somebody has killed it.
        if self._process is not None:
            self._close(self._process)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", _WARDEN, str(os.getpid())], stdin=subprocess.PIPE, start_new_session=True
        )
        self._write(self._process, "".join(f"+{group}\n" for group in self._groups))

    @staticmethod
    def _write(process: subprocess.Popen[bytes], text: str) -> None:
        assert process.stdin is not None
        os.write(process.stdin.fileno(), text.encode())

    @staticmethod
    def _close(process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        process.stdin.close()


class Process:
    """One child process, the leader of its group; may be used from any thread.

    Attributes:
        pid: Of the process, and of its group.
        socket: Our end of the socket to it.
    """

    def __init__(self, watcher: Warden, on_exit: Callable[[int], None]) -> None:
        """Start it.

        It must be done in a thread that lives as long as the process, the main one: Linux
        kills a child whose parent's *thread* has ended.

        Args:
            watcher: Kills it once we are gone.
            on_exit: Called in a thread of its own with the exit code, negative for a signal, once nothing of its
                group is left.

        Raises:
            OSError: The system gives no more processes.
        """
        self._watcher = watcher
        self._on_exit = on_exit
        self._lock = threading.Lock()
        self._is_gone = False
        self.socket, theirs = socket.socketpair()
        try:
            with theirs:
                # Not forked: threads of ours may hold locks that a copy would wait for. Its standard output is ours.
                self._process = subprocess.Popen(
                    [
                        sys.executable,
                        "-P",
                        "-m",
                        "howdah_worker.isolation",
                        str(theirs.fileno()),
                        str(os.getpid()),
                    ],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        except BaseException:
            self.socket.close()
            raise
        self.pid = self._process.pid
        try:
            watcher.watch(self.pid)
        except BaseException:
            self.kill()
            raise
        finally:
            threading.Thread(target=self._wait, name=f"howdah-child-{self.pid}", daemon=True).start()

    def terminate(self) -> None:
        """Ask the group to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the group, now."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            # Once it has been waited for, its number may be another process's.
            if not self._is_gone:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, number)

    def _wait(self) -> None:
        # Without taking its end yet: until then nobody else can get its number, and the group can be killed.
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self._signal(signal.SIGKILL)
        with self._lock:
            self._is_gone = True
        self._watcher.forget(self.pid)
        self._on_exit(self._process.wait())
