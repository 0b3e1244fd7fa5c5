"""A stop that was asked for is nothing to worry about, and the log says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.fix_wait import eventually

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.one_server

# How many connections each process has once all of its parts are at work; a worker's finisher waits for a run.
CONNECTIONS = {"api": 5, "worker": 3, "scheduler": 4}


@pytest.mark.slow
@pytest.mark.parametrize("process", CONNECTIONS)
def test_clean_stop_logs_no_warning(process: str, database: str, tmp_path: Path) -> None:
    """A process that is told to stop while PostgreSQL is well ends with 0, and with nothing above info in its log."""
    log = tmp_path / "log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOWDAH_")}
    environment |= {"HOWDAH_DATABASE_URL": database, "HOWDAH_API_PORT": "0"}
    with log.open("wb") as out, psycopg.connect(database, autocommit=True) as conn:
        running = subprocess.Popen([sys.executable, "-P", "-m", "howdah", process], env=environment, stdout=out)

        def is_connected() -> bool:
            row = conn.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND datname = current_database()",
                [f"howdah-{process}"],
            ).fetchone()
            return row is not None and row[0] >= CONNECTIONS[process]

        try:
            eventually(is_connected, 20, "the process is at work")
            running.send_signal(signal.SIGTERM)
            code = running.wait(20)
        finally:
            running.kill()
            running.wait()
    entries: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]

    assert code == 0
    assert [entry for entry in entries if entry["level"] != "info"] == []
    assert entries[-1]["event"] == "process_stopped"
