"""What every benchmark needs: a server, a fresh database, processes of Howdah, and honest numbers.

The server is an embedded one with `fsync` on, made for the run and thrown away,
or the one that `--url` names (a role that may create databases). Everything runs
on this machine, so a figure means "with producer, worker and PostgreSQL on these
cores"; compare figures of one sitting only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from howdah.core.db.embedded import EmbeddedPostgres
from howdah.core.db.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator

BENCH = Path(__file__).resolve().parent
SERVER_OPTIONS = {
    "shared_buffers": "1GB",
    "max_wal_size": "4GB",
    "max_connections": "200",
    "shared_preload_libraries": "pg_stat_statements",
}
# About 100 bytes, as the peers' payloads in published comparisons are.
PAYLOAD = '{"n": 12345, "to": "somebody@example.com", "text": "a payload of about one hundred bytes, as most are"}'


def parser(description: str, **defaults: Any) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--url", help="server to use: a role that may create databases (default: an embedded server)")
    made.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    for name, default in defaults.items():
        made.add_argument(f"--{name}", type=type(default), default=default, help=f"default {default}")
    return made


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
        """Run `howdah <arguments>` until the block ends; it is then stopped with SIGTERM."""
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
            if code != 0:
                log.seek(0)
                raise SystemExit(f"howdah {arguments[0]} exited {code}:\n{log.read().decode(errors='replace')[-4000:]}")

    def worker(self, **environment: str) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        """Run a worker with the handlers of `bench/handlers.py`."""
        return self.process("worker", **{"HOWDAH_HANDLERS": "handlers", **environment})

    def environment(self, **changes: str) -> dict[str, str]:
        """Return the environment of a process of Howdah on this database."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("HOWDAH_")}
        return {
            **own,
            "HOWDAH_DATABASE_URL": self.url,
            "HOWDAH_LOG_LEVEL": "warning",
            "PYTHONPATH": str(BENCH),
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
            admin_url, bin_dir = url, Path("/usr/bin")
        name = f"howdah_bench_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(admin_url, autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            own_url = urlsplit(admin_url)._replace(path=f"/{name}").geturl()
            migrate(own_url)
            yield Rig(own_url, bin_dir)
        finally:
            with psycopg.connect(admin_url, autocommit=True) as admin:
                admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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


def until(condition: Any, timeout_s: float, what: str) -> None:
    """Wait for a condition, looking every 5 ms.

    Raises:
        TimeoutError: It did not come true in time.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.005)


def children_cpu_s() -> float:
    """Seconds of CPU that ended children used."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
