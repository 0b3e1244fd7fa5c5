"""supervisord.conf as it ships, run by supervisor on a database of the test's own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xmlrpc.client import Fault, ServerProxy

import psycopg
import pytest
from supervisor.xmlrpc import SupervisorTransport
from tests.fix_wait import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

CONF: Final = Path(__file__).resolve().parents[2] / "supervisord.conf"
BIN: Final = Path(sys.executable).parent
PROGRAMS: Final = {"scheduler", "worker-0", "worker-1", "api-0", "api-1"}
# Five Python processes start at once, each within 2 s on a quiet machine.
START_S: Final = 60.0

HANDLERS: Final = """
import asyncio
import howdah

@howdah.handler("nap")
async def nap(seconds: float) -> None:
    await asyncio.sleep(seconds)
"""


@dataclass
class Supervisord:
    """A running supervisord, its log, and the database of its programs."""

    process: subprocess.Popen[bytes]
    directory: Path
    database: str

    def programs(self) -> dict[str, dict[str, Any]]:
        """What it says of each program, by name; nothing while it does not answer."""
        transport = SupervisorTransport(serverurl=f"unix://{self.directory}/supervisor.sock")
        try:
            told: Any = ServerProxy("http://supervisor", transport=transport).supervisor.getAllProcessInfo()
        except (OSError, Fault):
            return {}
        finally:
            transport.close()
        return {each["name"]: each for each in told}

    def log(self) -> str:
        """All that it and its programs have logged."""
        return (self.directory / "log").read_text()

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute SQL on the programs' database."""
        with psycopg.connect(self.database, autocommit=True) as conn:
            cursor = conn.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def live_worker_count(self) -> int:
        """Workers that beat."""
        [(count,)] = self.sql("SELECT count(*) FROM howdah.workers_live WHERE state = 'live'")
        return int(count)


@pytest.fixture
def supervisord(database: str) -> Iterator[Supervisord]:
    """Two API processes, two workers and a scheduler, all running."""
    # Sockets need a short path.
    directory = Path(tempfile.mkdtemp(prefix="howdah-"))
    (directory / "naps.py").write_text(HANDLERS)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOWDAH_")}
    environment |= {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RUN_DIR": str(directory),
        "API_PROCESSES": "2",
        "WORKERS": "2",
        "HOWDAH_DATABASE_URL": database,
        "HOWDAH_HANDLERS": "naps",
        "HOWDAH_LEASE_S": "3",
        "PYTHONPATH": str(directory),
    }
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(
            [str(BIN / "supervisord"), "-c", str(CONF)], cwd=directory, env=environment, stdout=log, stderr=log
        )
    made = Supervisord(process, directory, database)
    try:
        eventually(
            lambda: {name for name, each in made.programs().items() if each["statename"] == "RUNNING"} == PROGRAMS,
            START_S,
            "all programs run",
        )
        eventually(lambda: made.live_worker_count() == 2, START_S, "both workers are registered")
        yield made
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(90)
        shutil.rmtree(directory)


def test_killed_worker_is_started_again(supervisord: Supervisord) -> None:
    """After kill -9 of a worker another takes its place, and what it was at runs again."""
    supervisord.sql("SELECT howdah.enqueue('q', 'nap', '1.5', options => '{\"tags\": {}}') FROM generate_series(1, 10)")
    [(name, pid)] = eventually(
        lambda: supervisord.sql(
            "SELECT w.name, w.pid FROM howdah.runs AS r JOIN howdah.workers AS w ON w.id = r.worker_id LIMIT 1"
        ),
        10,
        "a worker is at it",
    )
    before = {each["pid"] for each in supervisord.programs().values()}
    os.kill(pid, signal.SIGKILL)
    eventually(
        lambda: len({each["pid"] for each in supervisord.programs().values()} - before) == 1, START_S, "a new process"
    )
    eventually(lambda: supervisord.sql("SELECT count(*) FROM howdah.runs") == [(0,)], 30, "all tasks have ended")

    assert pid in before
    assert supervisord.sql("SELECT count(*) FROM howdah.tasks_finished WHERE state = 'succeeded'") == [(10,)]
    assert supervisord.sql("SELECT DISTINCT worker FROM howdah.recent_failures WHERE outcome = 'lost'") == [(name,)]


def test_stop_of_supervisord_drains_its_programs(supervisord: Supervisord) -> None:
    """SIGTERM lets handlers end, spends no attempt, and every program exits with 0."""
    supervisord.sql("SELECT howdah.enqueue('q', 'nap', '2') FROM generate_series(1, 6)")
    eventually(lambda: supervisord.sql("SELECT count(*) FROM howdah.running") == [(6,)], 10, "six handlers run")
    supervisord.process.terminate()
    code = supervisord.process.wait(60)
    ends = re.findall(r'"event":"process_stopped","exit_code":(\d+)', supervisord.log())

    assert code == 0
    assert ends == ["0"] * len(PROGRAMS)
    assert supervisord.sql("SELECT outcome, attempt, count(*) FROM howdah.finished_runs GROUP BY 1, 2") == [
        ("succeeded", 1, 6)
    ]


def test_api_processes_listen_on_a_socket_each(supervisord: Supervisord) -> None:
    """Nginx finds both API processes where its configuration says, and others may not connect."""
    sockets = sorted(supervisord.directory.glob("api-*.sock"))

    assert [each.name for each in sockets] == ["api-0.sock", "api-1.sock"]
    assert [oct(each.stat().st_mode & 0o777) for each in sockets] == ["0o660"] * 2
