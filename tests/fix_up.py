"""`howdah up` as a newcomer runs it: the installed command, what it prints, and what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from howdah.up.directory import identity_of
from tests.fix_wait import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# A first start makes a cluster; on two busy cores that takes up to 10 s.
START_S = 60.0
STOP_S = 60.0


@dataclass
class Up:
    """One `howdah up`, and all that it has printed."""

    data: Path
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Read what it prints."""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as out:
            for line in out:
                self.lines.append(line.rstrip("\n"))

    @property
    def text(self) -> str:
        """All that it has printed."""
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, timeout_s: float = START_S) -> re.Match[str]:
        """Wait until it has printed something of this form."""

        def found() -> re.Match[str] | None:
            match = re.search(pattern, self.text)
            assert match or self.process.poll() is None, f"it ended without {pattern!r}:\n{self.text}"
            return match

        match = eventually(found, timeout_s, f"{pattern!r} is printed")
        assert match is not None
        return match

    def started(self) -> Up:
        """Wait until it is up."""
        self.wait_for("Ctrl-C stops it")
        return self

    @property
    def url(self) -> str:
        """Where its API is."""
        return self.wait_for(r"up at (http://\S+)")[1]

    @property
    def key(self) -> str:
        """The API key that it printed."""
        return self.wait_for(r"(hwd_[a-z0-9]+_[A-Za-z0-9]+)")[1]

    @property
    def curls(self) -> list[str]:
        """The lines to try."""
        return [line.strip() for line in self.lines if line.strip().startswith("curl ")]

    @property
    def child_pids(self) -> list[int]:
        """Process ids of its children, in the order of their start."""
        return [child["pid"] for child in json.loads((self.data / "up.json").read_text())["children"]]

    @property
    def postmaster_pid(self) -> int:
        """Process id of its PostgreSQL."""
        return int((self.data / "pg" / "postmaster.pid").read_text().split()[0])

    def request(self, method: str, path: str, body: object = None) -> Any:
        """Ask its API with its key."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Stop it and return its exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end and all that it printed, and return its exit code."""
        code = self.process.wait(STOP_S)
        self._reader.join(10)
        return code

    def kill_all(self) -> None:
        """Kill it, its children and its PostgreSQL with -9."""
        pids = [self.process.pid, *self.child_pids, self.postmaster_pid]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait()
        eventually(lambda: all(identity_of(pid) is None for pid in pids), 10, "all are gone")


@pytest.fixture
def up(server_directory: Path) -> Iterator[Callable[..., Up]]:
    """Start `howdah up` on a directory with a space in its path; what still runs in the end is killed."""
    made: list[Up] = []
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOWDAH_")}

    def start(*options: str, name: str = "a b", **environment: str) -> Up:
        data = server_directory / name
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "howdah", "up", "--data", str(data), "--port", "0", *options],
            env={**inherited, "PYTHONUNBUFFERED": "1", **environment},
            cwd=server_directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        made.append(Up(data, process))
        return made[-1]

    yield start
    for each in made:
        if each.process.poll() is None:
            each.process.send_signal(signal.SIGTERM)
            try:
                each.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                each.process.kill()
        each.wait()
