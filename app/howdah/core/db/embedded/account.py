"""The operating-system account that the embedded server runs as.

PostgreSQL refuses to run as root, so root hands the server to an account
without privileges: the owner of an existing cluster, else `howdah` (made if
need be), else `nobody`. Anybody else runs the server as themselves.
"""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from howdah.core.errors import EmbeddedUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ACCOUNT_NAME: Final = "howdah"

# The second form is busybox's, on Alpine.
_CREATE_ACCOUNT: Final = (
    ("useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", ACCOUNT_NAME),
    ("adduser", "-S", "-D", "-H", "-s", "/sbin/nologin", ACCOUNT_NAME),
)
_ADVICE: Final = "set HOWDAH_DATABASE_URL to use a PostgreSQL server that runs already"


@dataclass(frozen=True, slots=True)
class Account:
    """Who the server's processes run as.

    Attributes:
        uid: The account's user id; never 0.
        gid: Its only group: supplementary groups are dropped.
        is_switched: True if we are root and change to this account.
    """

    uid: int
    gid: int
    is_switched: bool

    def run(self, argv: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        """Run a short program as this account and capture what it prints.

        Variables of the PG family are kept from it: `PGDATA` or `PGOPTIONS`
        of our caller's shell must not steer the embedded server.

        Raises:
            PermissionError: The account may not execute the program, or we may
                not change to the account (EPERM).
        """
        switch: dict[str, Any] = {}
        if self.is_switched:
            switch = {"user": self.uid, "group": self.gid, "extra_groups": []}
        return subprocess.run(
            argv,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            cwd="/",
            env=server_environment(),
            **switch,
        )

    def can_enter(self, directory: Path) -> bool:
        """Tell whether the account may reach files below an existing directory."""
        if not self.is_switched:
            return os.access(directory, os.X_OK)
        return self.run(["/bin/sh", "-c", 'cd "$1"', "sh", directory]).returncode == 0

    def can_execute(self, program: Path) -> bool:
        """Tell whether the account may run a program that answers to `--version`."""
        try:
            return self.run([program, "--version"]).returncode == 0
        except PermissionError:
            return False

    def make_private_directory(self, directory: Path) -> None:
        """Make a directory that only this account (and root) can look into.

        A directory that exists is accepted if it is the account's own.

        Raises:
            EmbeddedUnavailable: Something else stands there.
        """
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            self.require_private_directory(directory)
            return
        if self.is_switched:
            os.chown(directory, self.uid, self.gid)

    def require_private_directory(self, directory: Path) -> None:
        """Raise EmbeddedUnavailable unless this is a 0700 directory of the account's own, not a link to one."""
        if not self.owns_privately(directory):
            raise EmbeddedUnavailable(f"{directory} is in the way: expected a 0700 directory of uid {self.uid}")

    def owns_privately(self, directory: Path) -> bool:
        """Tell whether this is a 0700 directory of the account's own, and not a link to one."""
        try:
            found = directory.lstat()
        except FileNotFoundError:
            return False
        return stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077 and found.st_uid == self.uid


def choose_account(cluster_owner: os.stat_result | None, notices: list[str]) -> Account:
    """Decide who runs the server.

    Args:
        cluster_owner: The status of an existing cluster's directory; None
            before the first start.
        notices: Receives one line if an account was made or stands in.

    Raises:
        EmbeddedUnavailable: This user cannot run a server here. The message
            says why and what to do.
    """
    uid = os.geteuid()
    if uid != 0:
        return _current_account(uid, cluster_owner)
    if cluster_owner is not None:
        if cluster_owner.st_uid == 0:
            raise EmbeddedUnavailable("the cluster belongs to root, and PostgreSQL refuses to run as root; chown it")
        account = Account(cluster_owner.st_uid, cluster_owner.st_gid, is_switched=True)
    else:
        entry = _lookup(ACCOUNT_NAME) or _create(notices) or _lookup("nobody")
        if entry is None:
            raise EmbeddedUnavailable(f"there is neither a user {ACCOUNT_NAME} nor nobody; {_ADVICE}")
        account = Account(entry.pw_uid, entry.pw_gid, is_switched=True)
    try:
        account.run(["/bin/sh", "-c", ":"])
    except PermissionError as refusal:
        if refusal.errno != errno.EPERM:
            raise
        raise EmbeddedUnavailable(
            "PostgreSQL refuses to run as root, and this process may not change its user (it lacks CAP_SETUID "
            f"or CAP_SETGID); run as a normal user, or {_ADVICE}"
        ) from refusal
    return account


def server_environment() -> dict[str, str]:
    """Return our environment without the variables by which libpq and PostgreSQL are steered."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _current_account(uid: int, cluster_owner: os.stat_result | None) -> Account:
    if cluster_owner is not None and cluster_owner.st_uid != uid:
        raise EmbeddedUnavailable(
            f"the cluster belongs to uid {cluster_owner.st_uid}; run as that user or as root, or choose another "
            "data directory"
        )
    try:
        pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedUnavailable(
            f"uid {uid} has no entry in /etc/passwd, which PostgreSQL's initdb needs; add one, or {_ADVICE}"
        ) from None
    return Account(uid, os.getegid(), is_switched=False)


def _lookup(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _create(notices: list[str]) -> pwd.struct_passwd | None:
    for argv in _CREATE_ACCOUNT:
        if shutil.which(argv[0]) is None:
            continue
        made = _succeeds(argv)
        if entry := _lookup(ACCOUNT_NAME):
            # Another process may have been the one that made it, at the same time.
            if made:
                notices.append(f"created the system user {ACCOUNT_NAME} (PostgreSQL refuses to run as root)")
            return entry
    notices.append(f"PostgreSQL runs as the user nobody: a system user {ACCOUNT_NAME} could not be created")
    return None


def _succeeds(argv: Sequence[str]) -> bool:
    return subprocess.run(argv, check=False, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0
