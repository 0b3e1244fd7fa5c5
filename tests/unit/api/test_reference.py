"""The reference page of the HTTP API says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from howdah.api.auth import CACHE_S, INCLUDED
from howdah.api.problems import KINDS
from howdah.api.routes import OPERATIONS

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "http-api.md").read_text()
ROW = re.compile(r"^\| `([^`]+)` \| (.+) \|$", re.MULTILINE)
ROWS = {match[1]: [cell.strip() for cell in match[2].split(" | ")] for match in ROW.finditer(PAGE)}


def test_every_code_is_listed_as_it_is() -> None:
    """Status and whether a repeat may help, for all codes and no others."""
    listed = {name: cells[:2] for name, cells in ROWS.items() if len(cells) == 3}

    assert listed == {code: [str(kind.status), "yes" if kind.retryable else "no"] for code, kind in KINDS.items()}


def test_every_route_is_listed_with_its_scope() -> None:
    """The table of routes on the page is the table in the code; those without a key are named too."""
    listed = {name: cells[0].strip("`") for name, cells in ROWS.items() if " /" in name}
    keyed = {f"{each.method} {each.path}": each.scope for each in OPERATIONS if each.scope is not None}

    assert listed == keyed
    assert all(f"`{each.path}`" in PAGE for each in OPERATIONS if each.scope is None)


def test_end_of_a_revoked_key_is_told_as_it_is() -> None:
    """How long a process may go by what it knows of a key."""
    assert f"keep what they know of a key for {CACHE_S:g} seconds" in PAGE


def test_every_scope_is_listed() -> None:
    """What keys can be given."""
    assert set(INCLUDED) <= set(ROWS)
