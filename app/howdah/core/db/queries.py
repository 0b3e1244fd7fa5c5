"""The statements that our processes run: one file each, `sql/queries/<noun>/<verb>.sql`.

A file holds a header of comment lines (see `sql/README.md`) and one statement
with parameters like `%(lease_s)b::double precision`. Parameters are binary, for
psycopg writes a list as text ten times slower (1000 rows of 7 columns: 23 ms
against 2.4 ms).
"""

from __future__ import annotations

from functools import cache

from howdah.core.db.sql_files import for_schema, sql_directory


@cache
def load(name: str, schema: str) -> bytes:
    """Return a statement, ready to be executed with named parameters.

    Comment lines are left out, because psycopg would look for parameters in
    them. In front stands a tag such as `/* howdah:run.claim */`, by which a DBA
    recognises the statement in `pg_stat_activity` and in the server's log.

    Args:
        name: `<noun>.<verb>`, for example `run.claim`.
        schema: The schema to run it on, as `Settings.schema` allows.

    Raises:
        FileNotFoundError: There is no such statement.
    """
    noun, verb = name.split(".")
    text = (sql_directory() / "queries" / noun / f"{verb}.sql").read_text()
    statement = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return f"/* howdah:{name} */ {for_schema(statement, schema).strip()}".encode()
