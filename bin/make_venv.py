"""Make the checkout's virtual environment `.venv`, whole or not at all.

    python make_venv.py [--check] run|test

It is made under a lock in a temporary place, from the pinned and hashed
requirements, and renamed when it is complete; so a kill in the middle, or two
commands at once, leave nothing half made. It is made anew when the pins or
pyproject.toml have changed, when the checkout has moved (scripts and the
editable install hold its path), or when its interpreter no longer runs.
`--check` makes nothing and exits 1 if there is something to make.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"

# The pins of `test` contain those of `run`, so a `test` environment serves both.
PINS = {"run": "requirements.lock", "test": "requirements-dev.lock"}


def main() -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description="Make the checkout's virtual environment.")
    parser.add_argument("--check", action="store_true", help="only tell, by the exit code, whether it is up to date")
    parser.add_argument("kind", choices=PINS)
    arguments = parser.parse_args()
    if arguments.check:
        return 0 if is_current(arguments.kind) else 1
    try:
        with (ROOT / ".venv.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another command is making .venv; waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not is_current(arguments.kind):
                make(arguments.kind)
    except OSError as failure:
        say(f"cannot make .venv: {failure}")
        return 1
    except subprocess.CalledProcessError as failure:
        say(f"cannot make .venv; {' '.join(map(str, failure.cmd))} said:\n{failure.output}")
        return 1
    return 0


def is_current(kind: str) -> bool:
    """Tell whether `.venv` was made from the present files, here, and still runs."""
    kinds = list(PINS)
    # Whoever asks for `run` is served by `test` as well.
    if read_stamp() not in [stamp(each) for each in kinds[kinds.index(kind) :]]:
        return False
    return (
        subprocess.run([VENV / "bin" / "python", "-I", "-S", "-c", ""], check=False, capture_output=True).returncode
        == 0
    )


def stamp(kind: str) -> str:
    """Return a text that changes when an environment of this kind has to be made anew."""
    digest = hashlib.sha256(os.fsencode(ROOT))
    for name in (PINS[kind], "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    return f"{kind} {digest.hexdigest()}\n"


def read_stamp() -> str:
    """Return the stamp of the present environment, or an empty text."""
    with contextlib.suppress(OSError):
        return (VENV / "howdah-stamp").read_text()
    return ""


def make(kind: str) -> None:
    """Make the environment beside its place and move it there."""
    for leftover in ROOT.glob(".venv.making-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    say(f"making .venv with {sys.version.split()[0]} (once; half a minute)")
    making = Path(tempfile.mkdtemp(prefix=".venv.making-", dir=ROOT))
    try:
        making.chmod(0o755)
        fresh = making / "venv"
        run([sys.executable, "-I", "-m", "venv", fresh])
        pip: list[str | Path] = [
            fresh / "bin" / "python",
            "-I",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-input",
        ]
        run([*pip, "--require-hashes", "-r", ROOT / PINS[kind]])
        run([*pip, "--no-build-isolation", "--editable", ROOT])
        repoint(fresh)
        (fresh / "howdah-stamp").write_text(stamp(kind))
        if VENV.exists() or VENV.is_symlink():
            VENV.rename(making / "old")
        fresh.rename(VENV)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def repoint(fresh: Path) -> None:
    """Let the environment's scripts name the place where it will be, not the one where it was made."""
    old, new = os.fsencode(fresh), os.fsencode(VENV)
    for path in (fresh / "pyvenv.cfg", *(fresh / "bin").iterdir()):
        if path.is_symlink() or not path.is_file():
            continue
        content = path.read_bytes()
        if old in content and b"\0" not in content:
            path.write_bytes(content.replace(old, new))


def run(command: list[str | Path]) -> None:
    """Run a command in silence; its output is shown only if it fails."""
    # These would install elsewhere than into the environment.
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PIP_USER", "PIP_TARGET", "PIP_PREFIX")
    }
    environment |= {"PIP_ROOT_USER_ACTION": "ignore", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run(
        command,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def say(line: str) -> None:
    """Tell the user, without disturbing what the command writes to standard output."""
    print(f"howdah: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
