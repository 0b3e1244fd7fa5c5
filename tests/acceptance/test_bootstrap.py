"""How `bin/up` and `bin/test` find a Python and make their virtual environment.

They run here in a small checkout of their own, without requirements, whose
build backend notes each build and can be told to hang.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fix_wait import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

BIN = Path(__file__).resolve().parents[2] / "bin"

COMMAND = """#!/bin/sh
set -eu
. "$(dirname -- "$0")/bootstrap.sh"
prepare run
exec "$python" -P -m project "$@"
"""

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "project"
version = "1"
"""

BACKEND = '''
"""Builds an editable wheel with one script, and says so in a file."""
import os, time, zipfile

FILES = {
    "project.pth": os.getcwd(),
    "project-1.dist-info/METADATA": "Metadata-Version: 2.1\\nName: project\\nVersion: 1\\n",
    "project-1.dist-info/WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    "project-1.dist-info/entry_points.txt": "[console_scripts]\\nproject = project:main\\n",
}

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    with open("builds", "a") as builds:
        builds.write("built\\n")
    while os.path.exists("hang"):
        time.sleep(0.01)
    name = "project-1-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as wheel:
        for path, text in FILES.items():
            wheel.writestr(path, text)
        record = "".join(f"{path},,\\n" for path in [*FILES, "project-1.dist-info/RECORD"])
        wheel.writestr("project-1.dist-info/RECORD", record)
    return name
'''

PROJECT = """
import sys
def main():
    print("ran", *sys.argv[1:])
if __name__ == "__main__":
    main()
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the real bootstrap and next to nothing to install."""
    root = tmp_path / "a checkout"
    (root / "bin").mkdir(parents=True)
    for name in ("bootstrap.sh", "make_venv.py"):
        shutil.copy(BIN / name, root / "bin")
    (root / "bin" / "go").write_text(COMMAND)
    (root / "bin" / "go").chmod(0o755)
    for name, text in {
        "pyproject.toml": PYPROJECT,
        "backend.py": BACKEND,
        "project.py": PROJECT,
        "requirements.lock": "",
        "requirements-dev.lock": "",
    }.items():
        (root / name).write_text(text)
    return root


@pytest.fixture
def fake_path(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Return an environment in which only these commands exist, each a shell script."""

    def make(**scripts: str) -> dict[str, str]:
        directory = tmp_path / "path"
        directory.mkdir()
        (directory / "dirname").symlink_to(shutil.which("dirname") or "")
        for name, script in scripts.items():
            command = directory / name.replace("_", ".")
            command.write_text(f"#!/bin/sh\n{script}\n")
            command.chmod(0o755)
        return {"PATH": str(directory)}

    return make


def go(checkout: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the checkout's command from elsewhere."""
    return subprocess.run(
        [checkout / "bin" / "go", *arguments], check=False, capture_output=True, text=True, cwd="/", env=env
    )


def builds(checkout: Path) -> int:
    """Return how often the checkout was installed."""
    file = checkout / "builds"
    return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.mark.slow
def test_two_first_uses_at_once_make_one_environment(checkout: Path) -> None:
    """One installs and the other waits; in a path with a space, and scripts name the place where they end up."""
    commands = [
        subprocess.Popen([checkout / "bin" / "go", "one word", "two"], stdout=subprocess.PIPE, text=True, cwd="/")
        for _ in range(2)
    ]
    printed = [command.communicate()[0] for command in commands]
    script = subprocess.run([checkout / ".venv" / "bin" / "project"], check=True, capture_output=True, text=True)

    assert printed == ["ran one word two\n"] * 2
    assert builds(checkout) == 1
    assert script.stdout == "ran\n"


@pytest.mark.slow
def test_environment_is_made_anew_only_when_pins_change(checkout: Path) -> None:
    """A second use installs nothing; one after the pins have changed does, or shows what pip says and keeps the old."""
    go(checkout)
    go(checkout)
    built_unchanged = builds(checkout)
    pins = checkout / "requirements.lock"
    pins.write_text("no-such-distribution==1 --hash=md5:0\n")
    failed = go(checkout)
    built_failed = builds(checkout)
    pins.write_text("# Other pins.\n")
    changed = go(checkout)

    assert (built_unchanged, built_failed, builds(checkout)) == (1, 1, 2)
    assert failed.returncode == 1
    assert "cannot make .venv" in failed.stderr
    assert "md5" in failed.stderr
    assert changed.stdout == "ran\n"


@pytest.mark.slow
def test_kill_in_the_middle_leaves_nothing_broken(checkout: Path) -> None:
    """After a kill -9 of an installation that was under way, the next use makes a whole environment."""
    (checkout / "hang").touch()
    with subprocess.Popen([checkout / "bin" / "go"], start_new_session=True) as command:
        eventually(lambda: builds(checkout) == 1, 60, "the installation is under way")
        os.killpg(command.pid, signal.SIGKILL)
    half_made = (checkout / ".venv").exists()
    (checkout / "hang").unlink()

    assert not half_made
    assert go(checkout).stdout == "ran\n"
    assert list(checkout.glob(".venv.making-*")) == []


def test_shim_of_missing_version_is_passed_over(checkout: Path, fake_path: Callable[..., dict[str, str]]) -> None:
    """A version manager's command for a version that is not installed is not taken for a Python."""
    (checkout / "bin" / "make_venv.py").write_text("import sys; sys.exit(sys.executable)")
    missing = 'echo "python3.13: command not found" >&2; exit 127'
    chosen = go(checkout, env=fake_path(python3_13=missing, python3=f'exec "{sys.executable}" "$@"'))

    assert chosen.stderr.strip() == sys.executable


def test_python_without_ensurepip_is_told_what_to_install(
    checkout: Path, fake_path: Callable[..., dict[str, str]]
) -> None:
    """Debian ships Python without the means to make environments: one line names the package."""
    bare = f'case "$*" in *ensurepip*) exit 1;; esac; exec "{sys.executable}" "$@"'
    refused = go(checkout, env=fake_path(python3=bare))
    name = f"python3.{sys.version_info.minor}"

    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert f"apt-get install {name}-venv" in refused.stderr


def test_too_old_python_is_told_what_is_needed(checkout: Path, fake_path: Callable[..., dict[str, str]]) -> None:
    """With nothing but an old Python, one line says which is needed."""
    refused = go(checkout, env=fake_path(python3="echo 310"))

    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "needs Python 3.11 or newer" in refused.stderr
