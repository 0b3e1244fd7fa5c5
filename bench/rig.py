"""What every benchmark needs: a server, a fresh database, processes of Howdah, and honest numbers.

The server is an embedded one with `fsync` on, made for the run and thrown away,
or the one that `--url` names (a superuser; pg_stat_statements must be loaded). Everything runs
on this machine, so a figure means "with producer, worker and PostgreSQL on these
cores"; compare figures of one sitting only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from howdah.core.db.embedded import EmbeddedPostgres
from howdah.core.db.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BENCH = Path(__file__).resolve().parent
SERVER_OPTIONS = {
    "shared_buffers": "1GB",
    "max_wal_size": "4GB",
    "max_connections": "200",
    "autovacuum_naptime": "10s",
    "shared_preload_libraries": "pg_stat_statements",
}
# About 100 bytes, as the peers' payloads in published comparisons are.
PAYLOAD = '{"n": 12345, "to": "somebody@example.com", "text": "a payload of about one hundred bytes, as most are"}'


def parser(description: str, **defaults: Any) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--url", help="server to use, with pg_stat_statements: a superuser (default: an embedded server)")
    made.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    for name, default in defaults.items():
        made.add_argument(f"--{name}", type=type(default), default=default, help=f"default {default}")
    return made


class Api(NamedTuple):
    """A running API process, and a key of the tenant `default` that may do everything."""

    port: int
    key: str
    pid: int


@dataclass
class Rig:
    """A migrated database of its own on a server, and the means to run Howdah on it."""

    url: str
    bin_dir: Path

    def connect(self) -> psycopg.Connection:
        """Open an autocommit session."""
        return psycopg.connect(self.url, autocommit=True)

    @contextlib.contextmanager
    def process(self, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run `howdah <arguments>` until the block ends; it is then stopped with SIGTERM, unless it was killed."""
        with tempfile.TemporaryFile() as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "howdah", *arguments],
                env=self.environment(**environment),
                cwd=BENCH,
                stdout=log,
                stderr=log,
            )
            try:
                yield child
                child.terminate()
                code = child.wait(timeout=60)
            except BaseException:
                child.kill()
                child.wait()
                log.seek(0)
                sys.stderr.write(log.read().decode(errors="replace")[-4000:])
                raise
            if code not in (0, -signal.SIGKILL):
                log.seek(0)
                raise SystemExit(f"howdah {arguments[0]} exited {code}:\n{log.read().decode(errors='replace')[-4000:]}")

    def worker(self, **environment: str) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        """Run a worker with the handlers of `bench/handlers.py`."""
        return self.process("worker", **{"HOWDAH_HANDLERS": "handlers", **environment})

    def command(self, *arguments: str) -> str:
        """Run `howdah <arguments>` to its end and return what it printed."""
        return subprocess.run(
            [sys.executable, "-m", "howdah", *arguments],
            env=self.environment(),
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    @contextlib.contextmanager
    def api(self) -> Iterator[Api]:
        """Run one API process that is ready to serve."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        [key] = [word for word in self.command("key", "create", "--name", "bench").split() if word.startswith("hwd_")]
        with self.process("api", HOWDAH_API_PORT=str(port)) as process:
            until(lambda: _is_ready(port), 30, "the API is ready")
            yield Api(port, key, process.pid)

    def environment(self, **changes: str) -> dict[str, str]:
        """Return the environment of a process of Howdah on this database."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("HOWDAH_")}
        return {
            **own,
            "HOWDAH_DATABASE_URL": self.url,
            "HOWDAH_LOG_LEVEL": "warning",
            # What the caller has in its path comes along: the same code runs on both sides.
            "PYTHONPATH": os.pathsep.join([str(BENCH), *filter(None, [os.environ.get("PYTHONPATH")])]),
            **changes,
        }

    def seed(self, count: int, handler: str = "bench.noop", queue: str = "bench") -> int:
        """Store waiting tasks through the public function, then settle the tables; returns the queue's id."""
        items = json.dumps([{"queue": queue, "handler": handler, "payload": json.loads(PAYLOAD)}] * min(1000, count))
        with self.connect() as conn:
            for _ in range(max(1, count // 1000)):
                conn.execute("SELECT count(*) FROM howdah.enqueue_many(NULL, %s::json)", [items])
            conn.execute("VACUUM (ANALYZE) howdah.runs")
            conn.execute("CHECKPOINT")
            row = conn.execute("SELECT id FROM howdah.queues WHERE name = %s", [queue]).fetchone()
        assert row is not None
        return int(row[0])

    def fill(
        self, count: int, *, queues: int = 1, handler: str = "bench.noop", url: str | None = None, settle: bool = True
    ) -> list[int]:
        """Store waiting tasks straight into the tables, a million at a time.

        Args:
            count: How many.
            queues: Over how many queues they are spread.
            handler: What runs them, unless they are callbacks.
            url: Where they call back to.
            settle: Vacuum the tables and write everything out, so that nothing of this is done while measuring.

        Returns:
            The ids of the queues.
        """
        text = (BENCH / "bare_enqueue.sql").read_text().replace("%", "%%")
        statement = re.sub(r"(?<!:):([a-z_]+)", r"%(\1)s", text)
        with self.connect() as conn:
            variables = self.variables(conn, queues, handler, url)
            for start in range(0, count, 1_000_000):
                conn.execute(statement, {**variables, "batch": min(1_000_000, count - start)})
            if settle:
                conn.execute("VACUUM (ANALYZE) howdah.runs, howdah.tasks")
                conn.execute("CHECKPOINT")
        return [int(each) for each in variables["queue_ids"].strip("{}").split(",")]

    def variables(
        self, conn: psycopg.Connection, queues: int = 1, handler: str = "bench.noop", url: str | None = None
    ) -> dict[str, str]:
        """Make the names that tasks need, and return the variables of bare_enqueue.sql."""
        names = [f"bench{number}" for number in range(queues)]
        conn.execute("SELECT howdah.make_names(1, %s::text[], %s::text[])", [names, [handler]])
        row = conn.execute(
            "SELECT array_agg(q.id)::text, (SELECT t.id FROM howdah.targets AS t WHERE t.handler = %s)::text "
            "FROM howdah.queues AS q WHERE q.name = ANY (%s)",
            [handler, names],
        ).fetchone()
        assert row is not None
        return {
            "queue_ids": row[0],
            "target_id": "0" if url else row[1],
            "http": json.dumps({"url": url}) if url else "none",
            "payload": PAYLOAD,
        }

    def clear(self) -> None:
        """Remove all work, so that the next measurement starts like the first."""
        with self.connect() as conn:
            conn.execute("TRUNCATE howdah.runs, howdah.tasks, howdah.finished_runs, howdah.dead_letters")


@contextlib.contextmanager
def open_rig(url: str | None) -> Iterator[Rig]:
    """Provide a migrated database that is dropped at the end."""
    with contextlib.ExitStack() as stack:
        if url is None:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="howdah-bench-"))
            Path(directory).chmod(0o755)  # The account that the server runs as must be able to enter.
            server = stack.enter_context(EmbeddedPostgres(Path(directory) / "pg", options=SERVER_OPTIONS))
            assert server.bin_dir is not None
            admin_url, bin_dir = server.dsn("postgres"), server.bin_dir
        else:
            admin_url, bin_dir = url, Path(os.environ.get("HOWDAH_PG_BIN") or "/usr/bin")
        name = f"howdah_bench_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(admin_url, autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            own_url = urlsplit(admin_url)._replace(path=f"/{name}").geturl()
            migrate(own_url)
            with psycopg.connect(own_url, autocommit=True) as conn:
                conn.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA public")
                # Each look at the counters reads all of them. Those of the migrations, which grow in number, made it
                # cost 1.2 ms, fifty times a second, and the newer of two versions seem the slower one.
                conn.execute(
                    "SELECT pg_stat_statements_reset(0, oid) FROM pg_database WHERE datname = current_database()"
                )
            yield Rig(own_url, bin_dir)
        finally:
            with psycopg.connect(admin_url, autocommit=True) as admin:
                admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return True
    except OSError:
        return False


def rss_mb(pid: int) -> float:
    """Resident memory of a process in MB (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def percentile(values: list[float], share: float) -> float:
    """Return the value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def report(result: dict[str, Any], *, as_json: bool) -> None:
    """Print a result: one JSON object, or a line a figure."""
    if as_json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:32} {value:,.3f}" if isinstance(value, float) else f"{name:32} {value:,}")


def until(condition: Callable[[], bool], timeout_s: float, what: str, look_s: float = 0.005) -> None:
    """Wait for a condition, looking every `look_s` seconds.

    Raises:
        TimeoutError: It did not come true in time.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(look_s)
