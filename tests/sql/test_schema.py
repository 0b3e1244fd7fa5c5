"""What the migrations leave: the schema that is reviewed, and no object without a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from howdah.core.db.embedded.binaries import find_binaries
from howdah.core.db.sql_files import sql_directory
from tests.dump_schema import MAJOR, SCHEMA_FILE, dump_schema

if TYPE_CHECKING:
    from pathlib import Path


def test_schema_file_is_what_the_migrations_make(database: str) -> None:
    """Who reviews sql/schema.sql sees what an installation gets; after a new migration, run `make schema`."""
    with psycopg.connect(database) as conn:
        if conn.info.server_version // 10_000 != MAJOR:
            pytest.skip(f"sql/schema.sql is dumped by PostgreSQL {MAJOR}")
    bin_dir = find_binaries(cluster_major=MAJOR, chosen=None).bin_dir

    assert dump_schema(database, bin_dir).splitlines() == SCHEMA_FILE.read_text().splitlines()


@pytest.mark.parametrize(
    ("directory", "catalogue"),
    [
        ("functions", "SELECT proname FROM pg_proc WHERE pronamespace = 'howdah'::regnamespace"),
        ("views", "SELECT viewname FROM pg_views WHERE schemaname = 'howdah'"),
    ],
)
async def test_every_function_and_view_has_its_file(
    conn: psycopg.AsyncConnection, directory: str, catalogue: str
) -> None:
    """None is overloaded, left behind or made elsewhere: the file of that name is all there is to it."""
    names = sorted(name for (name,) in await (await conn.execute(catalogue.encode())).fetchall())

    assert names == sorted(path.stem for path in _files(directory))


def _files(directory: str) -> list[Path]:
    return list((sql_directory() / directory).glob("*.sql"))
