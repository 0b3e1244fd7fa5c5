"""Where the embedded server's files lie.

Everything lies in the data directory, with two exceptions that are written
down there, so that every later start finds them:

- `cluster` names the directory of the cluster, where root's server account
  cannot enter the data directory (a checkout below a 0700 home);
- `socket` names the directory of the server's socket, where its path would be
  too long for the operating system.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from howdah.core.errors import EmbeddedUnavailable

if TYPE_CHECKING:
    from howdah.core.db.embedded.account import Account

SYSTEM_HOME: Final = Path("/var/lib/howdah")

# sockaddr_un holds 108 bytes on Linux and 104 on macOS, with the final NUL.
SOCKET_PATH_BYTES_MAX: Final = 100


def recorded_home(data_dir: Path) -> Path:
    """Return the directory that holds the cluster: the data directory, or what its file `cluster` names."""
    return _read_record(data_dir / "cluster") or data_dir


def choose_home(data_dir: Path, account: Account, notices: list[str]) -> Path:
    """Decide where the cluster lies, and write it down if it is not the data directory.

    Args:
        data_dir: The real path of the data directory, which exists.
        account: Who runs the server.
        notices: Receives one line if the cluster lies elsewhere for the first time.

    Raises:
        EmbeddedUnavailable: There is a cluster that the account cannot enter.
    """
    home = recorded_home(data_dir)
    if not home.is_dir():
        # An empty cluster in its place would hide that data was lost.
        raise EmbeddedUnavailable(f"the cluster in {home} is gone; bring it back, or remove {data_dir} to start anew")
    if account.can_enter(home):
        return home
    if home != data_dir or (home / "pg").is_dir():
        raise EmbeddedUnavailable(
            f"user id {account.uid}, who owns the cluster, cannot enter {home}; give back the permission to enter it "
            f"and the directories above it (chmod a+x), or {to_start_anew(data_dir, home)}"
        )
    home = SYSTEM_HOME / hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    SYSTEM_HOME.mkdir(mode=0o755, parents=True, exist_ok=True)
    home.mkdir(mode=0o711, exist_ok=True)
    history = "an earlier data directory of this path left it there" if (home / "pg").is_dir() else "it is new"
    notices.append(
        f"the cluster lies in {home}, for the server's user cannot enter {data_dir} ({history}); "
        f"{to_start_anew(data_dir, home)}"
    )
    _write_record(data_dir / "cluster", home)
    return home


def to_start_anew(data_dir: Path, home: Path) -> str:
    """Say how to be rid of a cluster: of one that lies elsewhere, removing the data directory leaves the data."""
    places = " ".join(shlex.quote(str(each)) for each in dict.fromkeys((home, data_dir)))
    return f"to start anew without its data: rm -rf {places}"


def choose_socket_directory(data_dir: Path, home: Path, account: Account, port: int) -> Path:
    """Return a private directory for the server's socket, made if need be.

    It is `run` beside the cluster, or, where that is unusable, a directory
    below the system's temporary one, the same at each start while it exists.

    Raises:
        EmbeddedUnavailable: No directory with a short enough name can be entered.
    """
    beside = home / "run"
    if _is_usable(beside, port):
        account.make_private_directory(beside)
        return beside
    recorded = _read_record(data_dir / "socket")
    # Anybody may make a directory of that name once a cleaner removed ours.
    if recorded is not None and _is_usable(recorded, port) and account.owns_privately(recorded):
        return recorded
    for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if not (_is_usable(Path(parent, "howdah-12345678"), port) and account.can_enter(Path(parent))):
            continue
        made = Path(tempfile.mkdtemp(prefix="howdah-", dir=parent))
        if account.is_switched:
            os.chown(made, account.uid, account.gid)
        _write_record(data_dir / "socket", made)
        return made
    raise EmbeddedUnavailable(f"no directory found for the server's socket: {beside} is too long, and so are others")


def _is_usable(directory: Path, port: int) -> bool:
    # libpq reads a comma in a host as the border between two hosts.
    path = os.fsencode(directory / f".s.PGSQL.{port}")
    return len(path) <= SOCKET_PATH_BYTES_MAX and b"," not in path


def _read_record(record: Path) -> Path | None:
    try:
        return Path(record.read_text(encoding="utf-8", errors="surrogateescape").removesuffix("\n"))
    except FileNotFoundError:
        return None


def _write_record(record: Path, directory: Path) -> None:
    unfinished = record.with_name(record.name + ".unfinished")
    unfinished.write_text(f"{directory}\n", encoding="utf-8", errors="surrogateescape")
    unfinished.replace(record)
