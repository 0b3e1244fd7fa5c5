"""The embedded server under root, under a normal user, and under users who cannot run one."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from howdah.core.db.embedded import EmbeddedPostgres
from howdah.core.db.embedded.places import SYSTEM_HOME
from howdah.core.errors import EmbeddedUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    MakeServer = Callable[..., EmbeddedPostgres]

pytestmark = pytest.mark.one_server

# Starts a server, says who runs it, and stops it; or says why it cannot.
REPORT = """
import json, os, sys
from howdah.core.db.embedded import EmbeddedPostgres
from howdah.core.errors import EmbeddedUnavailable
try:
    with EmbeddedPostgres(sys.argv[1], bin_dir=sys.argv[2]) as server:
        uid = os.stat(f"/proc/{server.pid}").st_uid
        print(json.dumps({"uid": uid, "notices": server.notices}))
except EmbeddedUnavailable as refusal:
    print(json.dumps({"refusal": str(refusal)}))
"""


def report(prefix: list[str], directory: Path, bin_dir: Path) -> dict[str, Any]:
    """Start and stop a server in a process that runs under the prefix, and return what it says."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", REPORT, directory, bin_dir], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


def modes(directory: Path) -> dict[Path, int]:
    """Return the modes of a directory and of all above it."""
    return {each: each.stat().st_mode for each in (directory, *directory.parents)}


@pytest.fixture
def closed_directory(server_directory: Path) -> Iterator[Path]:
    """A directory that only its owner may enter; what the launcher puts elsewhere for it is removed."""
    before = set(SYSTEM_HOME.glob("*"))
    directory = server_directory / "closed"
    directory.mkdir(mode=0o700)
    yield directory
    for record in directory.rglob("cluster"):
        home = Path(record.read_text().strip())
        assert home not in before
        shutil.rmtree(home)


@pytest.mark.system("root")
def test_server_of_root_runs_as_system_user(make_server: MakeServer) -> None:
    """Root's server belongs to an account without privileges, and so do its files; nobody else may look."""
    server = make_server()
    uid = pwd.getpwnam("howdah").pw_uid

    assert Path(f"/proc/{server.pid}").stat().st_uid == uid
    for name in ("pg", "run"):
        found = (server.data_dir / name).stat()
        assert (found.st_uid, found.st_mode & 0o777) == (uid, 0o700)
    assert (server.data_dir / "pg.log").stat().st_mode & 0o777 == 0o600


@pytest.mark.system("root", "unshare")
def test_server_of_normal_user_runs_as_that_user(server_directory: Path, bin_dir: Path) -> None:
    """A normal user's server is the user's own process; no account is made."""
    nobody = pwd.getpwnam("nobody").pw_uid

    assert report(["unshare", "--user", f"--map-user={nobody}"], server_directory / "pg", bin_dir) == {
        "uid": nobody,
        "notices": [],
    }


@pytest.mark.system("root")
def test_server_of_root_runs_as_owner_of_existing_cluster(make_server: MakeServer) -> None:
    """Root opens a cluster that somebody else made as its owner, even one who has left /etc/passwd."""
    server = make_server()
    server.stop()
    for path in (server.data_dir / "pg", *(server.data_dir / "pg").rglob("*"), server.data_dir / "run"):
        os.chown(path, 54321, 54321)
    server.start()

    assert Path(f"/proc/{server.pid}").stat().st_uid == 54321


@pytest.mark.system("root", "unshare")
def test_cluster_of_another_user_is_refused(server_directory: Path, bin_dir: Path) -> None:
    """A normal user is told whose cluster it is, instead of being shown PostgreSQL's complaint."""
    with EmbeddedPostgres(server_directory / "pg", bin_dir=bin_dir):
        pass
    (server_directory / "pg" / "pg.lock").chmod(0o666)
    other = pwd.getpwnam("daemon").pw_uid

    refusal = report(["unshare", "--user", f"--map-user={other}"], server_directory / "pg", bin_dir)["refusal"]
    assert "the cluster belongs to uid" in refusal


@pytest.mark.system("unshare")
def test_user_without_passwd_entry_is_told_so(server_directory: Path, bin_dir: Path) -> None:
    """A user id that no name belongs to, as under `docker --user`, gets a reason instead of initdb's failure."""
    refusal = report(["unshare", "--user", "--map-user=54321"], server_directory / "pg", bin_dir)["refusal"]

    assert "uid 54321 has no entry in /etc/passwd" in refusal
    assert "HOWDAH_DATABASE_URL" in refusal


@pytest.mark.system("root", "setpriv")
def test_root_without_right_to_change_user_is_told_so(server_directory: Path, bin_dir: Path) -> None:
    """Root that may not become another user, as in a hardened container, gets a reason."""
    stripped = ["setpriv", "--bounding-set=-setuid", "--inh-caps=-setuid"]

    refusal = report(stripped, server_directory / "pg", bin_dir)["refusal"]
    assert "CAP_SETUID" in refusal


def without_account(directory: Path) -> list[str]:
    """Return a prefix under which the system user does not exist; this machine keeps its own /etc."""
    script = 'cp -a /etc "$0" && sed -i /^howdah:/d "$0/passwd" "$0/group" && mount --bind "$0" /etc && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, str(directory / "etc")]


@pytest.mark.system("root", "unshare", "useradd")
def test_created_system_user_is_announced_first(server_directory: Path, bin_dir: Path) -> None:
    """Where root has to make the system user, the first notice says so."""
    told = report(without_account(server_directory), server_directory / "pg", bin_dir)

    assert told["notices"] == ["created the system user howdah (PostgreSQL refuses to run as root)"]


@pytest.mark.system("root", "unshare")
def test_nobody_stands_in_where_no_user_can_be_created(server_directory: Path, bin_dir: Path) -> None:
    """On an image without useradd and adduser the server runs as nobody, and that is said."""
    # They live in /usr/sbin.
    prefix = [*without_account(server_directory), "env", "PATH=/usr/bin"]
    told = report(prefix, server_directory / "pg", bin_dir)

    assert told["uid"] == pwd.getpwnam("nobody").pw_uid
    assert "runs as the user nobody" in told["notices"][0]


@pytest.mark.system("root")
def test_binaries_below_closed_directory_are_copied_once(
    make_server: MakeServer, closed_directory: Path, bin_dir: Path
) -> None:
    """Root's server runs from a virtual environment in a 0700 home, by a copy that the next start uses again."""
    installed = closed_directory / "site-packages"
    package = bin_dir.parent.parent
    for source in (package, package.with_name(package.name + ".libs")):
        if source.is_dir():
            shutil.copytree(source, installed / source.name, symlinks=True)
    before = modes(closed_directory)
    server = make_server(bin_dir=installed / bin_dir.relative_to(package.parent))
    first = server.bin_dir
    assert first is not None
    made_at = first.parent.stat().st_ctime_ns
    server.stop()
    server.start()

    assert first.is_relative_to(server.data_dir)
    assert server.bin_dir == first
    assert first.parent.stat().st_ctime_ns == made_at
    assert modes(closed_directory) == before


@pytest.mark.system("root")
def test_cluster_of_closed_directory_lies_in_system_home(closed_directory: Path, bin_dir: Path) -> None:
    """Root's data directory below a 0700 one keeps its cluster elsewhere, and changes no mode above it.

    It is said where the cluster lies and how to remove it, since removing the data directory leaves it there.
    """
    data_dir = closed_directory / "data"
    before = modes(closed_directory)
    with EmbeddedPostgres(data_dir, bin_dir=bin_dir) as server:
        first_notices = list(server.notices)
        with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    home = Path((data_dir / "cluster").read_text().strip())
    with (
        EmbeddedPostgres(data_dir, bin_dir=bin_dir) as server,
        psycopg.connect(server.dsn("postgres"), autocommit=True) as connection,
    ):
        kept = connection.execute("SELECT n FROM kept").fetchone()

    assert home.parent == SYSTEM_HOME
    assert len(home.name) == 16
    assert (home / "pg" / "PG_VERSION").exists()
    assert (data_dir / "pg.log").exists()
    assert any(f"rm -rf {home} {data_dir}" in notice for notice in first_notices)
    assert server.notices == []
    assert kept == (7,)
    assert modes(closed_directory) == before


@pytest.mark.system("root")
def test_missing_cluster_is_not_replaced_by_empty_one(closed_directory: Path, bin_dir: Path) -> None:
    """If the cluster that a data directory names is gone, a start refuses: an empty one would hide the loss."""
    with EmbeddedPostgres(closed_directory, bin_dir=bin_dir):
        pass
    home = Path((closed_directory / "cluster").read_text().strip())
    away = home.with_name(f"{home.name}.away")
    home.rename(away)
    try:
        with pytest.raises(EmbeddedUnavailable, match="is gone"):
            EmbeddedPostgres(closed_directory, bin_dir=bin_dir).start()
    finally:
        away.rename(home)


@pytest.mark.system("root")
def test_cluster_that_its_owner_can_no_longer_enter_is_named(server_directory: Path, bin_dir: Path) -> None:
    """A parent directory closed after the first start is reported, not opened again and not worked around."""
    parent = server_directory / "parent"
    with EmbeddedPostgres(parent / "pg", bin_dir=bin_dir):
        pass
    parent.chmod(0o700)

    with pytest.raises(EmbeddedUnavailable, match=rf"cannot enter .*: rm -rf {parent / 'pg'}$"):
        EmbeddedPostgres(parent / "pg", bin_dir=bin_dir).start()
    assert parent.stat().st_mode & 0o777 == 0o700
