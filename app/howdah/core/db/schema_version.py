"""Whether this code and a schema fit together; asked at start, and again when the schema changes.

| the schema is | then |
|---|---|
| missing, or older than this code needs | refused, naming the command to run |
| newer, by migrations that are not breaking | warned |
| newer, by a breaking migration | refused |
| changed by an edited file | the migrator refuses; processes run |

Migrations marked `post` are not needed by the code that brings them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from psycopg import errors

from howdah.core.db.schema_files import is_migration, read_migrations, read_repeatables
from howdah.core.db.sql_files import for_schema, sql_directory
from howdah.core.errors import SchemaRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from psycopg import AsyncConnection

_log: Final = logging.getLogger(__name__)

LEDGER_QUERY: Final = "SELECT m.file, m.checksum, m.is_breaking FROM howdah.migrations AS m"


@dataclass(frozen=True, slots=True)
class Applied:
    """A line of the ledger: one file that was applied."""

    file: str
    checksum: bytes
    is_breaking: bool


def by_file(rows: Iterable[tuple[Any, ...]]) -> dict[str, Applied]:
    """Index the rows that `LEDGER_QUERY` returned."""
    return {file: Applied(file, bytes(checksum), is_breaking) for file, checksum, is_breaking in rows}


def refuse_breaking(known: Iterable[str], ledger: Mapping[str, Applied]) -> list[str]:
    """Return the migrations in the ledger that this code does not know, if it can live with them.

    Args:
        known: Names of the migrations that this code knows.
        ledger: What was applied.

    Raises:
        SchemaRefused: One of them is breaking.
    """
    newer = sorted(name for name in ledger.keys() - set(known) if is_migration(name))
    breaking = [name for name in newer if ledger[name].is_breaking]
    if breaking:
        raise SchemaRefused(
            f"the schema is newer than this release and breaks it ({', '.join(breaking)}); run the newer release"
        )
    return newer


async def check_schema(conn: AsyncConnection[Any], schema: str) -> None:
    """Refuse to work on a schema that this code does not fit.

    One statement. Logs a warning if the schema is newer in ways that do not hurt.

    Args:
        conn: An autocommit connection.
        schema: The schema's name.

    Raises:
        SchemaRefused: The schema is missing, too old, or breakingly newer.
        psycopg.Error: The ledger could not be read.
    """
    try:
        cursor = await conn.execute(for_schema(LEDGER_QUERY, schema).encode())
        ledger = by_file(await cursor.fetchall())
    except (errors.UndefinedTable, errors.InvalidSchemaName):
        raise SchemaRefused(f'there is no schema "{schema}" in the database; run `howdah migrate`') from None
    known, needed = _files(sql_directory())
    newer = refuse_breaking(known, ledger)
    missing = sorted(needed - ledger.keys())
    if missing:
        raise SchemaRefused(
            f"the schema is older than this release ({missing[0]} was not applied); run `howdah migrate`"
        )
    if newer:
        _log.warning("schema_newer", extra={"fields": {"schema": schema, "files": newer}})


@cache
def _files(directory: Path) -> tuple[frozenset[str], frozenset[str]]:
    """Return the migrations that this code knows, and all files that it needs."""
    migrations = read_migrations(directory)
    needed = {each.name for each in migrations if each.phase == "pre"}
    needed |= {each.name for each in read_repeatables(directory)}
    return frozenset(each.name for each in migrations), frozenset(needed)
