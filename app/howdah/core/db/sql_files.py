"""The SQL that ships with the code: where it lies, and the schema that it is for.

Files under `sql/` name the schema `howdah` throughout, so that each can be read
and run with psql as it is. An installation whose schema has another name
replaces it here, by one rule and nowhere else.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

# The word `howdah`, also where it begins `howdah.now`, `howdah_wake` or
# `howdah_service`; not `howdah-` of our HTTP headers, nor part of another word.
_SCHEMA_NAME: Final = re.compile(r"(?<![A-Za-z0-9_-])howdah(?![A-Za-z0-9-])")


def sql_directory() -> Path:
    """Return where the SQL files lie: inside an installed package, else in the checkout."""
    installed = Path(__file__).parents[1] / "_sql"
    return installed if installed.is_dir() else Path(__file__).parents[4] / "sql"


def for_schema(text: str, schema: str) -> str:
    """Return the SQL with everything that carries the schema's name named after `schema`.

    That is the schema itself, settings (`howdah.notify`), the notification
    channel (`howdah_wake`) and roles (`howdah_service`).

    Args:
        text: The contents of a file under `sql/`.
        schema: As `Settings.schema` allows: needs no quotes in SQL.
    """
    return _SCHEMA_NAME.sub(schema, text)
