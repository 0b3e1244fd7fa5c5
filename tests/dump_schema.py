"""Write `sql/schema.sql`: the tables as all migrations together leave them. Run by `make schema`.

It is reviewed in each diff, where a migration shows only its own step.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from howdah.core.db.embedded import EmbeddedPostgres
from howdah.core.db.embedded.binaries import find_binaries
from howdah.core.db.migrate import migrate
from howdah.core.db.sql_files import sql_directory

# pg_dump's output differs between majors, so one decides.
MAJOR: Final = 18
SCHEMA_FILE: Final = sql_directory() / "schema.sql"

_PREFACE: Final = f"""\
-- Tables, indexes and constraints as all migrations leave them, dumped by PostgreSQL {MAJOR}. Written by
-- `make schema` and never applied; a test compares it with a migrated database. Functions, views and
-- grants stand in files of their own; the daily partitions are left out.

"""
_ENTRY: Final = re.compile(r"^--\n-- Name: (?P<name>.*?); Type: (?P<type>[A-Z ]+); .*\n--\n", re.MULTILINE)
_ELSEWHERE: Final = re.compile(r"(FUNCTION|VIEW) |COLUMN (?P<relation>\w+)\.")


def dump_schema(url: str, bin_dir: Path) -> str:
    """Return what `sql/schema.sql` must hold for the migrated database at `url`.

    Args:
        url: A database of a server of version `MAJOR`.
        bin_dir: Holds that version's `pg_dump`.
    """
    dumped = subprocess.run(
        [
            bin_dir / "pg_dump",
            *("--schema=howdah", "--schema-only", "--no-owner", "--no-privileges", "--no-tablespaces"),
            "--exclude-table=howdah.(tasks|finished_runs|task_logs)_[0-9]*",
            url,
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    # Text between the entries' headings; what is before the first are settings of the session.
    _, *parts = _ENTRY.split(dumped)
    entries = list(zip(parts[::3], parts[1::3], parts[2::3], strict=True))
    views = {name for name, kind, _ in entries if kind == "VIEW"}
    kept = [body.strip() for name, kind, body in entries if not _is_elsewhere(name, kind, views)]
    text = re.sub(r"\n{3,}", "\n\n", "\n\n".join(map(_without_session, kept))).strip()
    return _PREFACE + text.replace("\n\nCOMMENT ON COLUMN", "\nCOMMENT ON COLUMN") + "\n"


def _is_elsewhere(name: str, kind: str, views: set[str]) -> bool:
    if kind in ("FUNCTION", "VIEW"):
        return True
    match = _ELSEWHERE.match(name) if kind == "COMMENT" else None
    return match is not None and (match["relation"] is None or match["relation"] in views)


def _without_session(body: str) -> str:
    lines = body.splitlines()
    return "\n".join(
        line for line in lines if not line.startswith(("SET ", "--", "\\", "SELECT pg_catalog.set_config"))
    )


def main() -> None:
    """Migrate an embedded server that lives as long as this takes, and write the file."""
    with tempfile.TemporaryDirectory(prefix="howdah-schema-") as directory:
        Path(directory).chmod(0o711)
        bin_dir = find_binaries(cluster_major=MAJOR, chosen=None).bin_dir
        with EmbeddedPostgres(Path(directory) / "pg", bin_dir=bin_dir) as server:
            url = server.dsn("postgres")
            migrate(url)
            SCHEMA_FILE.write_text(dump_schema(url, bin_dir))


if __name__ == "__main__":
    main()
