"""supervisord.conf as it ships, run by supervisor on a database of the test's own."""

from __future__ import annotations

import configparser
import contextlib
import dataclasses
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

from howdah.api.main import STOP_S_MAX
from howdah.core.db.migrate import migrate
from howdah.core.settings import Settings
from tests.fix_wait import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.one_server]

CONF: Final = Path(__file__).resolve().parents[2] / "supervisord.conf"
BIN: Final = Path(sys.executable).parent
PROGRAMS: Final = {f"{name}-{number}" for name in ("scheduler", "worker", "api") for number in (0, 1)}
# FATAL on a quiet machine; EXITED where a program takes longer than startsecs to refuse.
GIVEN_UP: Final = {"EXITED", "FATAL"}
# Six Python processes start at once, each within 2 s on a quiet machine.
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
    environment: dict[str, str]

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

    def states(self) -> dict[str, str]:
        """The state of each program, by name."""
        return {name: each["statename"] for name, each in self.programs().items()}

    def control(self, *command: str) -> str:
        """Run supervisorctl, which must succeed, and return what it printed."""
        return subprocess.run(
            [str(BIN / "supervisorctl"), "-c", str(CONF), *command],
            cwd="/",
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=90,
        ).stdout

    def log(self, pattern: str = "*.log") -> str:
        """All that it and its programs have logged."""
        return "".join(path.read_text() for path in sorted(self.directory.glob(pattern)))

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """Execute SQL on the programs' database."""
        with psycopg.connect(self.database, autocommit=True) as conn:
            cursor = conn.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def live_worker_count(self) -> int:
        """Workers that beat."""
        [(count,)] = self.sql("SELECT count(*) FROM howdah.workers_live WHERE state = 'live'")
        return int(count)


@contextlib.contextmanager
def started(database: str, **settings: str) -> Iterator[Supervisord]:
    """Start supervisord with two API processes, two workers and two schedulers, and stop it in the end."""
    # Sockets need a short path.
    directory = Path(tempfile.mkdtemp(prefix="howdah-"))
    (directory / "naps.py").write_text(HANDLERS)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOWDAH_")}
    environment |= {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RUN_DIR": str(directory),
        "LOG_DIR": str(directory),
        "API_PROCESSES": "2",
        "WORKERS": "2",
        "HOWDAH_DATABASE_URL": database,
        "HOWDAH_HANDLERS": "naps",
        "HOWDAH_LEASE_S": "3",
        "PYTHONPATH": str(directory),
        **settings,
    }
    process = subprocess.Popen(
        [str(BIN / "supervisord"), "-c", str(CONF)],
        cwd=directory,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Supervisord(process, directory, database, environment)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(90)
        shutil.rmtree(directory)


@pytest.fixture
def supervisord(database: str) -> Iterator[Supervisord]:
    """All of it, running."""
    with started(database) as made:
        eventually(lambda: made.states() == dict.fromkeys(PROGRAMS, "RUNNING"), START_S, "all programs run")
        eventually(lambda: made.live_worker_count() == 2, START_S, "both workers are registered")
        yield made


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
        lambda: len({each["pid"] for each in supervisord.programs().values()} - before - {0}) == 1,
        10,
        "another process is there",
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


def test_stop_of_workers_drains_them_and_a_start_goes_on(supervisord: Supervisord) -> None:
    """`supervisorctl stop` ends workers with 0 and spends no attempt; what was waiting runs after `start`."""
    supervisord.sql("SELECT howdah.enqueue('q', 'nap', '1') FROM generate_series(1, 6)")
    eventually(lambda: supervisord.sql("SELECT count(*) FROM howdah.running") == [(6,)], 10, "six handlers run")
    supervisord.control("stop", "worker:*")
    stopped = {name: each for name, each in supervisord.programs().items() if name.startswith("worker")}
    supervisord.sql("SELECT howdah.enqueue('q', 'nap', '0.1') FROM generate_series(1, 4)")
    supervisord.control("start", "worker:*")
    eventually(lambda: supervisord.sql("SELECT count(*) FROM howdah.runs") == [(0,)], 30, "all tasks have ended")

    assert [(each["statename"], each["exitstatus"]) for each in stopped.values()] == [("STOPPED", 0)] * 2
    assert supervisord.sql("SELECT outcome, attempt, count(*) FROM howdah.finished_runs GROUP BY 1, 2") == [
        ("succeeded", 1, 10)
    ]


def test_wrong_setting_ends_fatal_and_not_in_a_loop(database: str) -> None:
    """What no restart can mend is given up within seconds, and the log of each program names the variable."""
    with started(database, HOWDAH_CONCURRENCY="many") as made:
        eventually(lambda: set(made.states().values()) <= GIVEN_UP and made.states(), START_S, "all were given up")
        spawns = [made.log("supervisord.log").count(f"spawned: '{name}'") for name in PROGRAMS]
        logs = [made.log(f"{name}.log") for name in PROGRAMS]

        assert made.process.poll() is None
    assert max(spawns) <= 4
    assert all("HOWDAH_CONCURRENCY: must be a whole number from 1 to 10000, not 'many'" in log for log in logs)


def test_database_without_schema_ends_the_programs(blank_database: str) -> None:
    """Nothing goes on where `howdah migrate` was forgotten; once it has run, a start is all that it takes."""
    with started(blank_database) as made:
        eventually(lambda: set(made.states().values()) <= GIVEN_UP and made.states(), START_S, "all were given up")
        logs = [made.log(f"{name}.log") for name in PROGRAMS]
        migrate(blank_database)
        made.control("start", "all")

        assert made.states() == dict.fromkeys(PROGRAMS, "RUNNING")
    assert all('"exit_code":69,"meaning":"schema_refused"' in log for log in logs)


def test_stops_are_given_more_time_than_a_drain_takes() -> None:
    """With the default settings no process is killed while it drains."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=None)
    parser.read(CONF)
    [drain_s] = [each.default for each in dataclasses.fields(Settings) if each.name == "drain_s"]

    assert parser.getint("program:worker", "stopwaitsecs") > drain_s + 15
    assert parser.getint("program:scheduler", "stopwaitsecs") > drain_s + 15
    assert parser.getint("program:api", "stopwaitsecs") > STOP_S_MAX


def test_control_socket_is_the_accounts_own(supervisord: Supervisord) -> None:
    """Who may connect may run anything, so nobody else may."""
    assert oct((supervisord.directory / "supervisor.sock").stat().st_mode & 0o777) == "0o700"


def test_api_processes_listen_on_a_socket_each(supervisord: Supervisord) -> None:
    """Nginx finds both API processes where its configuration says, and others may not connect."""
    sockets = sorted(supervisord.directory.glob("api-*.sock"))

    assert [each.name for each in sockets] == ["api-0.sock", "api-1.sock"]
    assert [oct(each.stat().st_mode & 0o777) for each in sockets] == ["0o660"] * 2
