"""What is believed of a `postmaster.pid`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from howdah.core.db.embedded.lockfile import find_postmaster, read_lock_file
from tests.fix_wait import eventually

COMPLETE = "{pid}\n{cluster}\n1795304809\n5433\n/run/howdah\n127.0.0.1\n  2216900    327705\nstopping\n"


def write_lock_file(cluster: Path, pid: int) -> Path:
    """Leave a lock file that names the process."""
    file = cluster / "postmaster.pid"
    file.write_text(COMPLETE.format(pid=pid, cluster=cluster))
    return file


def test_read_lock_file_returns_every_field(tmp_path: Path) -> None:
    """Port, socket directory, memory and status are read as PostgreSQL writes them."""
    write_lock_file(tmp_path, 4711)
    postmaster = read_lock_file(tmp_path)

    assert postmaster is not None
    assert (postmaster.pid, postmaster.port, postmaster.socket_dir) == (4711, 5433, "/run/howdah")
    assert (postmaster.segment, postmaster.status) == (("2216900", "327705"), "stopping")


@pytest.mark.parametrize("text", ["", "47", "4711\n/data\n", "not a number\n"])
def test_read_lock_file_while_written_returns_none(tmp_path: Path, text: str) -> None:
    """A file that is just being written tells nothing yet."""
    (tmp_path / "postmaster.pid").write_text(text)

    assert read_lock_file(tmp_path) is None


def test_find_postmaster_removes_file_of_zombie(tmp_path: Path) -> None:
    """A dead process that nobody waited for still has its id; PostgreSQL would call it a running server."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    status = Path(f"/proc/{child.pid}/stat")
    eventually(lambda: status.read_text().split()[2] == "Z", 5, "the child is a zombie")
    file = write_lock_file(tmp_path, child.pid)
    found = find_postmaster(tmp_path)
    child.wait()

    assert found is None
    assert not file.exists()


def test_find_postmaster_believes_process_that_serves_cluster(tmp_path: Path) -> None:
    """A process called postgres that works in the cluster's directory is its server: the file stays."""
    child = subprocess.Popen(["postgres", "-c", "read line"], executable="/bin/sh", cwd=tmp_path, stdin=subprocess.PIPE)
    with child:
        command_line = Path(f"/proc/{child.pid}/cmdline")
        eventually(lambda: command_line.read_bytes().startswith(b"postgres"), 5, "the child's exec is complete")
        file = write_lock_file(tmp_path, child.pid)
        found = find_postmaster(tmp_path)

    assert found is not None
    assert found.pid == child.pid
    assert file.exists()
