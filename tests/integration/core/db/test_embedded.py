"""The embedded server, as any user: started, shared, killed, found again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from howdah.core.db.embedded import EmbeddedPostgres
from howdah.core.db.embedded.binaries import find_binaries, read_major
from howdah.core.errors import EmbeddedUnavailable
from tests.fix_wait import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    MakeServer = Callable[..., EmbeddedPostgres]

# Starts the server, says what came of it, and stops it when its input ends.
HOLD = """
import json, sys
from howdah.core.db.embedded import EmbeddedPostgres
with EmbeddedPostgres(sys.argv[1], bin_dir=sys.argv[2]) as server:
    print(json.dumps([server.pid, server.is_owner, server.dsn("postgres")]), flush=True)
    sys.stdin.read()
"""


def query(server: EmbeddedPostgres | str, statement: str) -> Any:
    """Run a statement as the superuser and return the first value of its answer."""
    url = server if isinstance(server, str) else server.dsn("postgres")
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql.SQL(statement))  # type: ignore[arg-type]
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def is_running(pid: int) -> bool:
    """Tell whether the process is a live PostgreSQL server, not a zombie of one."""
    try:
        return b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def kill(server: EmbeddedPostgres) -> int:
    """Kill the server with -9, see it gone, and return the pid that it had."""
    assert server.pid is not None
    pid = server.pid
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not is_running(pid), 5, "the killed server ends")
    return pid


@contextlib.contextmanager
def holding(directory: Path, bin_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """Run another process that starts the server, and stops it at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, directory, bin_dir], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        yield process


def heard(process: subprocess.Popen[str]) -> tuple[int, bool, str]:
    """Return what the other process says of its server: pid, ownership, URL."""
    assert process.stdout is not None
    pid, is_owner, url = json.loads(process.stdout.readline())
    return pid, is_owner, url


def test_start_in_path_with_space_and_percent_serves(make_server: MakeServer) -> None:
    """A server starts in any directory that can be named, and its URL leads to it."""
    server = make_server("data 100% söft")

    assert query(server, "SELECT current_user || ' ' || pg_is_in_recovery()") == "howdah false"
    assert query(server, "SHOW data_checksums") == "on"
    assert query(server, "SHOW fsync") == "on"


def test_stop_ends_server_and_keeps_data(make_server: MakeServer) -> None:
    """What was committed is there after a stop and a new start."""
    server = make_server()
    query(server, "CREATE TABLE kept AS SELECT 7 AS n")
    first_pid = server.pid
    server.stop()

    assert first_pid is not None
    assert not is_running(first_pid)
    assert query(server.start(), "SELECT n FROM kept") == 7


def test_stop_repeated_does_nothing(make_server: MakeServer) -> None:
    """Stopping twice, or before any start, is harmless."""
    server = make_server()
    server.stop()
    server.stop()

    assert not server.is_owner


def test_start_after_kill_of_postmaster_recovers(make_server: MakeServer) -> None:
    """A kill -9 of PostgreSQL loses nothing that was committed, and the next start serves again."""
    server = make_server()
    query(server, "CREATE TABLE kept AS SELECT 7 AS n")
    killed = kill(server)
    again = make_server()

    assert again.is_owner
    assert again.pid != killed
    assert query(again, "SELECT n FROM kept") == 7
    assert "database system was not properly shut down" in again.log_file.read_text()


def test_start_waits_for_survivors_of_killed_server(make_server: MakeServer) -> None:
    """No second server starts while a process of the killed one can still write to the cluster."""
    server = make_server()
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        survivor = connection.info.backend_pid
        os.kill(survivor, signal.SIGSTOP)
        try:
            kill(server)
            with pytest.raises(EmbeddedUnavailable, match="was killed"):
                server.start(timeout_s=0.5)
        finally:
            os.kill(survivor, signal.SIGCONT)
        server.start()

    assert query(server, "SELECT 1") == 1


def test_start_with_pid_of_unrelated_process_in_lock_file(make_server: MakeServer) -> None:
    """A lock file whose process id now belongs to somebody else, as after a container restart, is no obstacle."""
    server = make_server()
    query(server, "CREATE TABLE kept AS SELECT 7 AS n")
    leave_lock_file(server, pid=os.getpid())

    assert query(server.start(), "SELECT n FROM kept") == 7


def test_start_with_pid_of_other_server_in_lock_file(make_server: MakeServer) -> None:
    """Nor is one that names a PostgreSQL server of another directory; that server is left alone."""
    other = make_server("other")
    server = make_server()
    assert other.pid is not None
    leave_lock_file(server, pid=other.pid)
    server.start()

    assert server.is_owner
    assert query(server, "SHOW data_directory") != query(other, "SHOW data_directory")


def leave_lock_file(server: EmbeddedPostgres, *, pid: int) -> None:
    """Kill the server and leave behind a lock file that names another process."""
    lock_file = Path(query(server, "SHOW data_directory")) / "postmaster.pid"
    lines = lock_file.read_text().splitlines()
    owner = lock_file.stat()
    kill(server)
    lock_file.write_text("\n".join([str(pid), *lines[1:], ""]))
    os.chown(lock_file, owner.st_uid, owner.st_gid)
    # The socket has a lock file of the same kind.
    socket_lock = Path(lines[4], f".s.PGSQL.{lines[3]}.lock")
    socket_lock.write_text(socket_lock.read_text().replace(lines[0], str(pid), 1))


def test_six_processes_at_once_share_one_server(server_directory: Path, bin_dir: Path) -> None:
    """Of processes that start one data directory at once, one owns the server and all reach it."""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(holding(server_directory / "pg", bin_dir)) for _ in range(6)]
        told = [heard(process) for process in processes]
        answers = {query(url, "SHOW data_directory") for _, _, url in told}

        assert len({pid for pid, _, _ in told}) == 1
        assert sorted(is_owner for _, is_owner, _ in told) == [False] * 5 + [True]
        assert len(answers) == 1


def test_stop_of_sharer_leaves_server_running(server_directory: Path, bin_dir: Path) -> None:
    """Only the owner stops the server; afterwards another process can own it."""
    with holding(server_directory / "pg", bin_dir) as owner:
        pid, is_owner, url = heard(owner)
        with EmbeddedPostgres(server_directory / "pg", bin_dir=bin_dir) as sharer:
            shared = sharer.pid, sharer.is_owner

        assert is_owner
        assert shared == (pid, False)
        assert query(url, "SELECT 1") == 1
    with EmbeddedPostgres(server_directory / "pg", bin_dir=bin_dir) as successor:
        assert successor.is_owner


def test_kill_of_owner_shuts_server_down_cleanly(server_directory: Path, bin_dir: Path) -> None:
    """A kill -9 of the process that started the server ends the server too, with a clean shutdown."""
    with holding(server_directory / "pg", bin_dir) as owner:
        pid, _, _ = heard(owner)
        owner.kill()
    eventually(lambda: not is_running(pid), 10, "the server ends with its owner")
    log = (server_directory / "pg" / "pg.log").read_text()

    assert "received fast shutdown request" in log
    assert "database system is shut down" in log


def test_options_reach_server(make_server: MakeServer) -> None:
    """Options are settings of the server, libraries to preload included."""
    server = make_server(options={"work_mem": "7MB", "shared_preload_libraries": "pg_stat_statements"})
    query(server, "CREATE EXTENSION pg_stat_statements")

    assert query(server, "SHOW work_mem") == "7MB"
    assert query(server, "SELECT count(*) >= 0 FROM pg_stat_statements") is True


def test_port_listens_on_loopback_and_asks_for_password(make_server: MakeServer) -> None:
    """With a port the server also answers TCP on 127.0.0.1, never without a password."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = make_server(port=port)
    tcp = f"host=127.0.0.1 port={port} user=howdah dbname=postgres"
    query(server, "ALTER ROLE howdah PASSWORD 'open'")

    assert query(f"{tcp} password=open", "SELECT inet_server_port()") == port
    assert query(server, "SHOW listen_addresses") == "127.0.0.1"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"{tcp} password=wrong")


def test_variables_of_libpq_do_not_steer_server(make_server: MakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """PGDATA, PGPORT and PGOPTIONS of the caller's shell do not reach the embedded server."""
    monkeypatch.setenv("PGDATA", "/nonexistent")
    monkeypatch.setenv("PGPORT", "1")
    server = make_server()

    assert query(server, "SHOW port") == "5432"


@pytest.mark.parametrize("name", ["d" * 90, "a,b"])
def test_socket_of_unusable_path_lies_in_private_temporary_directory(make_server: MakeServer, name: str) -> None:
    """Where the socket's path would be too long, or not expressible in a URL, a private directory serves, each time."""
    server = make_server(name)
    recorded = Path((server.data_dir / "socket").read_text().strip())
    try:
        server.stop()
        server.start()

        assert query(server, "SHOW unix_socket_directories") == f'"{recorded}"'
        assert (server.data_dir / "socket").read_text().strip() == str(recorded)
        assert recorded.parent == Path(tempfile.gettempdir())
        assert recorded.stat().st_mode & 0o777 == 0o700
    finally:
        server.stop()
        shutil.rmtree(recorded)


def test_recorded_socket_directory_of_others_is_not_trusted(make_server: MakeServer) -> None:
    """A directory that took the place of the recorded one and is open to others is not used."""
    server = make_server("d" * 90)
    record = server.data_dir / "socket"
    replaced = Path(record.read_text().strip())
    server.stop()
    replaced.chmod(0o777)
    server.start()
    chosen = Path(record.read_text().strip())
    server.stop()
    for directory in (replaced, chosen):
        shutil.rmtree(directory)

    assert chosen != replaced


def test_cluster_is_opened_by_its_own_major_version(server_directory: Path) -> None:
    """Binaries of the cluster's own major version go before those that come first in the order."""
    older = find_binaries(cluster_major=17, chosen=None).bin_dir
    with EmbeddedPostgres(server_directory / "pg", bin_dir=older):
        pass
    with EmbeddedPostgres(server_directory / "pg") as server:
        assert server.bin_dir is not None
        assert read_major(server.bin_dir) == 17
        assert query(server, "SHOW server_version").startswith("17.")


def test_cluster_is_never_opened_by_another_major_version(
    server_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HOWDAH_PG_BIN of another major version is refused before PostgreSQL touches the cluster.

    What to remove is said for those who would rather start anew.
    """
    with EmbeddedPostgres(server_directory / "pg", bin_dir=find_binaries(cluster_major=17, chosen=None).bin_dir):
        pass
    monkeypatch.setenv("HOWDAH_PG_BIN", str(find_binaries(cluster_major=18, chosen=None).bin_dir))

    with pytest.raises(
        EmbeddedUnavailable, match=r"made by PostgreSQL 17 and cannot be opened by 18; to start .*: rm -rf /"
    ):
        EmbeddedPostgres(server_directory / "pg").start()


def test_start_with_wrong_option_says_why_and_leaves_nothing(make_server: MakeServer) -> None:
    """A server that does not come up is reported with the end of its log, and can be started afterwards."""
    with pytest.raises(EmbeddedUnavailable, match="unrecognized configuration parameter"):
        make_server(options={"no_such_setting": "1"})
    server = make_server()

    assert server.is_owner


def test_server_outlives_the_thread_that_started_it(make_server: MakeServer) -> None:
    """A server may be started in any thread, and lasts until it is stopped or the process ends."""
    servers: list[EmbeddedPostgres] = []
    thread = threading.Thread(target=lambda: servers.append(make_server()))
    thread.start()
    thread.join()

    assert query(servers[0], "SELECT 1") == 1
    assert servers[0].is_owner


def test_start_in_directory_without_permission_names_it(make_server: MakeServer, server_directory: Path) -> None:
    """A data directory that cannot be made is named in the error, not shown as a traceback of ours."""
    (server_directory / "file").write_text("in the way")

    with pytest.raises(EmbeddedUnavailable, match=r"cannot be set up in .*file/pg"):
        make_server("file/pg")
