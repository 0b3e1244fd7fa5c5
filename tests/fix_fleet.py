"""A fleet: Howdah's processes on a server of their own, all of which a test may stop, kill and start again.

Processes are the installed command with real settings; nothing in them knows
that it is tested. Only processes that the fleet started are ever signalled, by
their id.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from howdah.core.db.migrate import migrate
from tests.fix_db import SERVER_OPTIONS
from tests.fix_wait import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from howdah.core.db.embedded import EmbeddedPostgres

CHAOS = Path(__file__).resolve().parent / "chaos"
LEASE_S = 3.0


@dataclass
class Process:
    """One process of Howdah, and its log over all its lives."""

    command: tuple[str, ...]
    environment: dict[str, str]
    log: Path
    child: subprocess.Popen[bytes] | None = None
    start_count: int = 0
    _log_offset: int = 0

    def start(self) -> Process:
        """Start it (again)."""
        with self.log.open("ab") as log:
            offset = log.tell()
            self.child = subprocess.Popen(
                [sys.executable, "-m", "howdah", *self.command], env=self.environment, stdout=log, stderr=log
            )
        self.start_count += 1
        self._log_offset = offset
        return self

    def until_started(self) -> None:
        """Wait until the process of the last start hears signals: before, SIGTERM ends it as it would any other."""

        def has_started() -> bool:
            with self.log.open("rb") as log:
                log.seek(self._log_offset)
                return b'"process_started"' in log.read()

        eventually(has_started, 30, f"{self.command[0]} has started")

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.child is not None
        return self.child.pid

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.child is not None
        self.child.send_signal(number)

    def kill(self) -> None:
        """Kill it with -9 and collect it."""
        self.signal(signal.SIGKILL)
        self.wait(10)

    def wait(self, timeout_s: float) -> int:
        """Wait for its end and return its exit code."""
        assert self.child is not None
        return self.child.wait(timeout_s)

    def stop(self, timeout_s: float = 30) -> int:
        """Stop it with SIGTERM and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log records with this event name."""
        records = []
        for line in self.log.read_text(errors="replace").splitlines():
            if line.startswith("{") and name in line:
                record = json.loads(line)
                if record.get("event") == name:
                    records.append(record)
        return records


@dataclass
class Fleet:
    """A server, a database and the processes on it."""

    server: EmbeddedPostgres
    directory: Path
    url: str
    processes: dict[str, Process] = field(default_factory=dict)
    api_ports: list[int] = field(default_factory=list)
    api_key: str = ""

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Open an autocommit session."""
        return psycopg.connect(self.url, autocommit=True)

    def query(self, statement: str, *params: Any) -> list[tuple[Any, ...]]:
        """Run one statement in a session of its own."""
        with self.connect() as conn:
            cursor = conn.execute(statement.encode(), params or None)
            return cursor.fetchall() if cursor.description else []

    def add(self, name: str, *command: str, **environment: str) -> Process:
        """Start a process under a name."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("HOWDAH_")}
        process = Process(
            command,
            {
                **inherited,
                "HOWDAH_DATABASE_URL": self.url,
                "HOWDAH_LEASE_S": str(LEASE_S),
                "PYTHONPATH": os.pathsep.join(filter(None, [str(CHAOS), inherited.get("PYTHONPATH", "")])),
                "CHAOS_OUT": str(self.directory),
                **environment,
            },
            self.directory / f"{name}.log",
        )
        self.processes[name] = process
        return process.start()

    def add_api(self, name: str = "api", **environment: str) -> Process:
        """Start an API process on a free port and wait until it answers."""
        port = free_port()
        self.api_ports.append(port)
        process = self.add(name, "api", HOWDAH_API_PORT=str(port), **environment)
        eventually(lambda: self.status(port, "/readyz") == 200, 30, f"{name} is ready")
        return process

    def add_worker(self, name: str = "worker", **environment: str) -> Process:
        """Start a worker with the handlers of tests/chaos/chaos_handlers.py and wait until it has registered."""
        before = self.query("SELECT count(*) FROM howdah.workers")[0][0]
        process = self.add(name, "worker", **{"HOWDAH_HANDLERS": "chaos_handlers", **environment})
        eventually(
            lambda: self.query("SELECT count(*) FROM howdah.workers")[0][0] > before, 30, f"{name} has registered"
        )
        return process

    def add_scheduler(self, name: str = "scheduler", **environment: str) -> Process:
        """Start a scheduler."""
        return self.add(name, "scheduler", **environment)

    def make_key(self) -> str:
        """Make an API key with every scope."""
        output = subprocess.run(
            [sys.executable, "-m", "howdah", "key", "create", "--name", "chaos"],
            env={**os.environ, "HOWDAH_DATABASE_URL": self.url},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        [self.api_key] = [word for word in output.split() if word.startswith("hwd_")]
        return self.api_key

    def status(self, port: int, path: str) -> int:
        """HTTP status of a GET, 0 if nothing listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as problem:
            with problem:
                return problem.code
        except OSError:
            return 0

    def enqueue(self, count: int, handler: str, payload: Any = None, queue: str = "chaos", **fields: Any) -> list[str]:
        """Store tasks through the public function."""
        items = json.dumps([{"queue": queue, "handler": handler, "payload": payload, **fields}] * count)
        rows = self.query("SELECT id::text, error FROM howdah.enqueue_many(NULL, %s::json) ORDER BY ordinal", items)
        assert [row[1] for row in rows] == [None] * count
        return [row[0] for row in rows]

    def drained(self) -> bool:
        """No task waits or runs."""
        return self.query("SELECT count(*) FROM howdah.runs")[0][0] == 0

    def outcomes(self) -> dict[str, int]:
        """How many claims ended in each outcome."""
        return dict(self.query("SELECT outcome, count(*) FROM howdah.finished_runs GROUP BY outcome"))  # type: ignore[arg-type]

    def crash_server(self) -> None:
        """Crash PostgreSQL (immediate shutdown: recovery from the log follows) and start it again."""
        assert self.server.pid is not None
        os.kill(self.server.pid, signal.SIGQUIT)
        self.server.stop()
        self.server.start()

    def logs(self) -> str:
        """End of every log, for a failed test's report."""
        return "\n".join(
            f"== {name}\n{process.log.read_text(errors='replace')[-3000:]}" for name, process in self.processes.items()
        )

    def close(self) -> None:
        """End what still lives."""
        for process in self.processes.values():
            if process.child is not None and process.child.poll() is None:
                process.signal(signal.SIGCONT)
                process.kill()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def fleet(
    make_server: Callable[..., EmbeddedPostgres], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Fleet]:
    """An empty fleet: a migrated server of its own, no processes yet. Logs are shown if the test fails."""
    server = make_server("fleet", options=SERVER_OPTIONS)
    made = Fleet(server, tmp_path, server.dsn("postgres"))
    migrate(made.url)
    failures = request.session.testsfailed
    try:
        yield made
    finally:
        made.close()
        if request.session.testsfailed > failures or sys.exc_info()[0]:
            print(made.logs())
        if out := os.environ.get("CHAOS_KEEP"):
            shutil.copytree(tmp_path, out, dirs_exist_ok=True)
