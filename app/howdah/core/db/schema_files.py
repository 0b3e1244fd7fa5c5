"""The files that make the schema: numbered migrations, and what is applied again when it changes.

`migrations/NNNN_{pre,post}_words.sql` are applied once each, in the order of
their numbers, and never edited after a release. Their first comment lines may
declare

    -- breaking           releases that do not know this file must not run any more
    -- no-transaction     one statement, for CREATE INDEX CONCURRENTLY; must be
                          written so that a repeat is harmless (IF NOT EXISTS)
    -- reason: …          why, for who reads the ledger

`functions/*.sql`, `views/*.sql` and `grants.sql` hold one object or concern each
and can be applied again at any time.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Phase: TypeAlias = Literal["pre", "post"]

GRANTS_FILE: Final = "grants.sql"

_MIGRATION_NAME: Final = re.compile(r"[0-9]{4}_(pre|post)_[a-z0-9]+(_[a-z0-9]+)*\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """A change that is applied once.

    Attributes:
        name: The file's name; what the ledger knows it by.
        phase: `pre` is harmless to the release before; `post` waits until that has stopped.
        text: The SQL, for the schema `howdah`.
        checksum: SHA-256 of the file.
        is_breaking: Releases that do not know the file must not run once it is applied.
        in_transaction: False for a single statement that refuses to run in one.
    """

    name: str
    phase: Phase
    text: str
    checksum: bytes
    is_breaking: bool
    in_transaction: bool


@dataclass(frozen=True, slots=True)
class Repeatable:
    """A function, a view, or the grants: applied again whenever the file changes.

    Attributes:
        name: Path below `sql/`, with `/`; what the ledger knows it by.
        text: The SQL, for the schema `howdah`.
        checksum: SHA-256 of the file.
    """

    name: str
    text: str
    checksum: bytes


def is_migration(name: str) -> bool:
    """Tell whether a name in the ledger is that of a numbered migration, of any release."""
    return _MIGRATION_NAME.fullmatch(name) is not None


def read_migrations(directory: Path) -> list[Migration]:
    """Return the numbered migrations below `directory`, in the order in which they are applied.

    Raises:
        ValueError: A file's name is not of the form, or two have the same number.
    """
    found = [_migration(path) for path in sorted((directory / "migrations").glob("*.sql"))]
    for first, second in itertools.pairwise(found):
        if first.name[:4] == second.name[:4]:
            raise ValueError(f"{first.name} and {second.name} have the same number")
    return found


def read_repeatables(directory: Path) -> list[Repeatable]:
    """Return functions, views and grants, in the order in which they are applied."""
    return [
        Repeatable(path.relative_to(directory).as_posix(), *_contents(path))
        for path in (
            *sorted((directory / "functions").glob("*.sql")),
            *sorted((directory / "views").glob("*.sql")),
            directory / GRANTS_FILE,
        )
    ]


def _migration(path: Path) -> Migration:
    match = _MIGRATION_NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path.name} is not named NNNN_pre_words.sql or NNNN_post_words.sql")
    text, checksum = _contents(path)
    marks = set(_header(text))
    return Migration(
        name=path.name,
        phase=cast("Phase", match[1]),
        text=text,
        checksum=checksum,
        is_breaking="breaking" in marks,
        in_transaction="no-transaction" not in marks,
    )


def _contents(path: Path) -> tuple[str, bytes]:
    written = path.read_bytes()
    return written.decode(), hashlib.sha256(written).digest()


def _header(text: str) -> Iterator[str]:
    """Yield the comment lines at the top, without their dashes."""
    for line in text.splitlines():
        if not line.startswith("--"):
            return
        yield line.removeprefix("--").strip()
