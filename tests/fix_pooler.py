"""A transaction pooler (pgbouncer) before a server of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.fix_fleet import free_port
from tests.fix_wait import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from howdah.core.db.embedded import EmbeddedPostgres


@dataclass(frozen=True)
class Pooler:
    """URLs of one database: through the pooler, and without it."""

    pooled_url: str
    direct_url: str


@pytest.fixture
def pooler(
    request: pytest.FixtureRequest, make_server: Callable[..., EmbeddedPostgres], server_directory: Path
) -> Iterator[Pooler]:
    """A pooler in transaction mode with two server connections, for tests marked system("pgbouncer").

    Its parameter, if it has one, is another line of its configuration.
    """
    server_port, port = free_port(), free_port()
    server = make_server("pooled", port=server_port)
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as conn:
        conn.execute("CREATE ROLE pooled LOGIN SUPERUSER PASSWORD 'pooled'")
    directory = server_directory / "pgbouncer"
    directory.mkdir(mode=0o755)
    (directory / "users.txt").write_text('"pooled" "pooled"\n')
    configuration = directory / "pgbouncer.ini"
    configuration.write_text(
        f"""[databases]
postgres = host=127.0.0.1 port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {directory}/users.txt
pool_mode = transaction
default_pool_size = 2
{getattr(request, "param", "")}
"""
    )
    # It refuses to run as root; Debian keeps it where a normal user's PATH does not look.
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin:/usr/local/sbin")
    assert program is not None
    account = ["-u", "nobody"] if os.geteuid() == 0 else []
    with (directory / "pgbouncer.log").open("w") as log:
        process = subprocess.Popen([program, "-q", *account, configuration], stdout=log, stderr=log)
    try:
        made = Pooler(
            f"postgresql://pooled@127.0.0.1:{port}/postgres",
            f"postgresql://pooled:pooled@127.0.0.1:{server_port}/postgres",
        )
        eventually(lambda: _answers(made.pooled_url), 10, "the pooler answers")
        yield made
    finally:
        process.terminate()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=2):
            return True
    except psycopg.OperationalError:
        return False
