"""The data directory: one user at a time, and no process is taken for another."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from howdah.core.errors import UpRefused
from howdah.up.directory import DataDirectory, identity_of

if TYPE_CHECKING:
    from pathlib import Path


def test_directory_is_free_again_after_its_release(tmp_path: Path) -> None:
    """Who comes while it is used is refused with the URL and the pid, who comes later gets it."""
    first, second = DataDirectory(tmp_path / "d"), DataDirectory(tmp_path / "d")
    first.claim()
    first.record("http://127.0.0.1:1", [])
    with pytest.raises(UpRefused, match=rf"http://127\.0\.0\.1:1 \(pid {os.getpid()}\)") as refusal:
        second.claim()
    first.release()
    second.claim()
    second.release()

    assert refusal.value.exit_code == 1


def test_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A file in its place is said, not shown as a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UpRefused, match="cannot be used"):
        DataDirectory(tmp_path / "file" / "d").claim()


def test_key_file_is_for_its_owner_and_written_whole(tmp_path: Path) -> None:
    """The key can be read back; the file is private, also if one lay there before."""
    data = DataDirectory(tmp_path)
    before = data.read_key()
    data.key_file.write_text("old")
    data.key_file.chmod(0o644)
    data.write_key("new")

    assert before is None
    assert data.read_key() == "new"
    assert stat.S_IMODE(data.key_file.stat().st_mode) == 0o600


@pytest.mark.parametrize("record", ["", "{", "[]", '{"children": []}'])
def test_damaged_record_ends_nobody(tmp_path: Path, record: str) -> None:
    """A record that cannot be read is as good as none."""
    (tmp_path / "up.json").write_text(record)

    assert DataDirectory(tmp_path).end_leftovers() == 0


def test_process_with_a_recorded_id_and_another_start_is_spared(tmp_path: Path) -> None:
    """A pid that was given to somebody else is no leftover of ours."""
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        children = [{"pid": stranger.pid, "identity": "boot 1"}]
        (tmp_path / "up.json").write_text(json.dumps({"children": children}))

        assert DataDirectory(tmp_path).end_leftovers() == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_identity_tells_processes_apart() -> None:
    """A process keeps its identity; one that ended has none, also before it was collected."""
    process = subprocess.Popen(["sleep", "60"])
    mine, its = identity_of(os.getpid()), identity_of(process.pid)
    again = identity_of(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    as_zombie = identity_of(process.pid)
    process.wait()

    assert its is not None
    assert its == again
    assert its != mine
    assert as_zombie is None
    assert identity_of(process.pid) is None
