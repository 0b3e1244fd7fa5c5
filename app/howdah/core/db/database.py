"""The database itself, on a server that we started: a new one has none of ours."""

from __future__ import annotations

import contextlib

import psycopg
from psycopg import errors, sql

from howdah.core.db.dsn import connection_string
from howdah.core.db.errors import translated


def make_database(url: str, name: str) -> None:
    """Make a database unless there is one of that name.

    Args:
        url: Of another database of the server, by a role that may make databases.
        name: Of the new one; its encoding is UTF-8.

    Raises:
        DatabaseUnavailable: There is no connection.
    """
    statement = sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0").format(sql.Identifier(name))
    with translated(), psycopg.connect(connection_string(url, "up"), autocommit=True) as conn:
        exists = conn.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchone()
        with contextlib.suppress(errors.DuplicateDatabase):
            if exists is None:
                conn.execute(statement)
