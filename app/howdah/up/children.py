"""The processes that `howdah up` looks after: started, started again when they end, stopped.

Each logs JSON lines into a pipe. They go to a file of their own, and warnings
and errors to the screen as well.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from howdah.core.errors import UpRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from howdah.up.screen import Screen
    from howdah.up.stop import StopRequests

# A log is begun anew at this size, and the one before is kept.
LOG_BYTES_MAX: Final = 16 * 1024 * 1024
# Chosen: a child that dies at once is tried about every 10 s in the end.
_PAUSE_S_FIRST: Final = 0.5
_PAUSE_S_MAX: Final = 10.0
_HEALTHY_S: Final = 60.0
_LOOK_S: Final = 0.05
# A restart helps neither against a wrong setting nor against a schema that does not fit.
_HOPELESS: Final = {64: "a setting", 69: "the server or its schema"}
_ECHOED: Final = frozenset({"warning", "error", "critical"})
_NOT_SHOWN: Final = frozenset({"at", "level", "process", "pid", "logger", "event", "trace", "stack", "main_thread"})


@dataclass
class Child:
    """One process, over all its lives.

    Attributes:
        name: What people see: api, worker-1, …
        command: The command of `howdah` that it runs.
        log_file: Where what it writes is kept.
    """

    name: str
    command: str
    log_file: Path
    process: subprocess.Popen[bytes] | None = None
    pump: threading.Thread | None = None
    started_at: float = 0.0
    again_at: float = 0.0
    pause_s: float = _PAUSE_S_FIRST
    last_words: list[str] = field(default_factory=list)

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.poll() is None


class Children:
    """All child processes. Used from the main thread alone: the kernel binds a child's life to the starting thread."""

    def __init__(self, environment: Mapping[str, str], screen: Screen, changed: Callable[[list[int]], None]) -> None:
        """Prepare; `changed` is called with the process ids whenever a child was started."""
        self._environment = dict(environment)
        self._screen = screen
        self._changed = changed
        self._all: list[Child] = []

    def add(self, name: str, command: str, log_file: Path) -> None:
        """Start a child."""
        child = Child(name, command, log_file)
        self._all.append(child)
        self._start(child)

    def tend(self) -> None:
        """Start children again that have ended, once their pause is over.

        Raises:
            UpRefused: One ended because of something that no restart can cure.
        """
        for child in self._all:
            if child.process is not None and (code := child.process.poll()) is not None:
                self._collect(child, code)
            if child.process is None and time.monotonic() >= child.again_at:
                self._start(child)

    def pids(self, command: str) -> set[int]:
        """Return the process ids of the children that run a command."""
        return {each.process.pid for each in self._all if each.command == command and each.process is not None}

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every child that runs."""
        for child in self._all:
            if child.process is not None and child.is_running:
                child.process.send_signal(number)

    def wait(self, timeout_s: float, stop: StopRequests) -> bool:
        """Wait until all have ended; return whether some run on, after so long or at a new request to stop."""
        deadline = time.monotonic() + timeout_s
        while any(child.is_running for child in self._all):
            if time.monotonic() > deadline or stop.wait(_LOOK_S):
                return True
        return False

    def _start(self, child: Child) -> None:
        child.process = subprocess.Popen(
            # -P keeps the working directory off the import path, as the installed command does.
            [sys.executable, "-P", "-m", "howdah.up.child", str(os.getpid()), child.command],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # A session of its own: Ctrl-C in the terminal reaches us alone, and we stop them in order.
            start_new_session=True,
        )
        child.started_at = time.monotonic()
        child.last_words.clear()
        assert child.process.stdout is not None
        child.pump = threading.Thread(target=self._pump, args=(child, child.process.stdout), daemon=True)
        child.pump.start()
        self._changed([each.process.pid for each in self._all if each.process is not None])

    def _collect(self, child: Child, code: int) -> None:
        assert child.process is not None
        assert child.pump is not None
        # Its end may be known before its last words are; a process that it left behind may keep the pipe open.
        child.pump.join(1.0)
        pid, child.process = child.process.pid, None
        if code in _HOPELESS:
            why = _gist(child.last_words[-1]) if child.last_words else f"see {child.log_file}"
            raise UpRefused(f"{child.name} cannot start because of {_HOPELESS[code]}: {why}", exit_code=code)
        if time.monotonic() - child.started_at > _HEALTHY_S:
            child.pause_s = _PAUSE_S_FIRST
        ended = f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
        self._screen.say(f"{child.name} (pid {pid}) {ended}; starting it again in {child.pause_s:g} s")
        child.again_at = time.monotonic() + child.pause_s
        child.pause_s = min(child.pause_s * 2, _PAUSE_S_MAX)

    def _pump(self, child: Child, out: BinaryIO) -> None:
        """Move what a child writes into its file, until it ends."""
        file = _open_log(child.log_file)
        with out:
            for line in out:
                if file.tell() > LOG_BYTES_MAX:
                    file.close()
                    child.log_file.replace(child.log_file.with_suffix(".log.1"))
                    file = _open_log(child.log_file)
                file.write(line)
                file.flush()
                shown = summary_of(line)
                if shown is not None:
                    child.last_words[:] = [*child.last_words, shown][-5:]
                    self._screen.say(f"{child.name}: {shown}")
        file.close()


def summary_of(line: bytes) -> str | None:
    """Return what a log line says to somebody at a terminal; None if it is not worth their attention."""
    text = line.decode(errors="replace").rstrip()
    try:
        entry: Any = json.loads(text)
    except ValueError:
        return text or None
    if not isinstance(entry, dict) or entry.get("level") not in _ECHOED:
        return None
    fields = " ".join(f"{name}={value}" for name, value in entry.items() if name not in _NOT_SHOWN)
    return f"{entry['level']} {entry.get('event', '')} {fields}".rstrip()


def _gist(summary: str) -> str:
    """Return the reason that a child gave, without the traceback that stands on the screen already."""
    reason = summary.partition(" reason=")[2] or summary
    return reason.splitlines()[0].rstrip(":")


def _open_log(path: Path) -> BinaryIO:
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags, mode=0o600))
