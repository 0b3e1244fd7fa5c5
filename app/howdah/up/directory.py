"""The data directory of `howdah up`: who uses it, who was left over in it, and the API key.

up.lock      locked for as long as a `howdah up` uses the directory
up.json      its URL and process ids, and those of its children
api-key      the first API key, for its owner's eyes only
logs/        what each child logs
pg/, pg.log  the embedded PostgreSQL
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import IO, Any, Final

from howdah.core.errors import UpRefused

_LOOK_S: Final = 0.02
_KILLED_S_MAX: Final = 5.0


class DataDirectory:
    """A data directory that this process uses alone, from `claim` until it ends."""

    def __init__(self, path: Path) -> None:
        """Describe it; nothing is touched before `claim`."""
        self.path = path.absolute()
        self.key_file = self.path / "api-key"
        self._record = self.path / "up.json"
        self._lock: IO[str] | None = None

    def claim(self) -> None:
        """Take the directory, made if need be.

        Raises:
            UpRefused: Another `howdah up` uses it, or it cannot be made.
        """
        try:
            # The account that PostgreSQL runs as under root must be able to pass through.
            self.path.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
            lock = (self.path / "up.lock").open("a")
        except OSError as error:
            raise UpRefused(f"{self.path} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise UpRefused(self._occupied()) from None
        self._lock = lock
        (self.path / "logs").mkdir(exist_ok=True, mode=0o700)

    def release(self) -> None:
        """Give the directory up after a clean stop."""
        self._record.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()

    def log_file(self, name: str) -> Path:
        """Return where a child's log lies."""
        return self.path / "logs" / f"{name}.log"

    def record(self, url: str, child_pids: list[int]) -> None:
        """Write down who runs here, for a second `howdah up` and for one after a crash."""
        children = [{"pid": pid, "identity": identity} for pid in child_pids if (identity := identity_of(pid))]
        written = {"url": url, "pid": os.getpid(), "children": children}
        _write_private(self._record, json.dumps(written))

    def end_leftovers(self) -> int:
        """Kill children of an earlier `howdah up` that outlived it; return how many there were.

        A process counts only if it has the recorded id and was started at the recorded time.
        """
        left = [
            (child["pid"], child["identity"])
            for child in self._read_record().get("children", [])
            if identity_of(child["pid"]) == child["identity"]
        ]
        for pid, _ in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + _KILLED_S_MAX
        while any(identity_of(pid) == identity for pid, identity in left) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        return len(left)

    def read_key(self) -> str | None:
        """Return the API key that is kept here; None before the first start."""
        try:
            return self.key_file.read_text().strip() or None
        except FileNotFoundError:
            return None

    def write_key(self, key: str) -> None:
        """Keep the API key, readable by its owner alone."""
        _write_private(self.key_file, f"{key}\n")

    def _occupied(self) -> str:
        running = self._read_record()
        if "url" not in running:
            return f"another howdah up is just starting in {self.path}"
        return f"{self.path} is in use by howdah up at {running['url']} (pid {running['pid']}); choose another --data"

    def _read_record(self) -> dict[str, Any]:
        try:
            record = json.loads(self._record.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}


def identity_of(pid: int) -> str | None:
    """Return what tells a process from a later one with the same id; None if there is none.

    On Linux the boot and the moment of its start, in clock ticks; elsewhere its start to the second.
    """
    if not Path("/proc/self/stat").exists():
        shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], check=False, capture_output=True, text=True)
        return shown.stdout.strip() or None
    try:
        stat = Path("/proc", str(pid), "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold anything; the state comes first behind it, the start as the 20th.
    fields = stat.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {fields[19]}"


def _write_private(path: Path, text: str) -> None:
    """Write a file whole or not at all, readable by its owner alone."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    with open(unfinished, "x", opener=lambda name, flags: os.open(name, flags, mode=0o600)) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
