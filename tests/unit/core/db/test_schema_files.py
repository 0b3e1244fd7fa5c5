"""The files that make the schema: their names, marks and order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from howdah.core.db.schema_files import is_migration, read_migrations, read_repeatables
from howdah.core.db.sql_files import sql_directory

if TYPE_CHECKING:
    from pathlib import Path


def write(directory: Path, **files: str) -> None:
    """Write files below `directory`; the keywords are paths with `__` for `/`, without `.sql`."""
    for name, text in files.items():
        path = directory / f"{name.replace('__', '/')}.sql"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_migrations_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """The number decides, whatever the phase."""
    write(tmp_path, migrations__0010_pre_b="B", migrations__0002_post_a="A", migrations__0011_pre_c="C")

    assert [(each.name, each.phase, each.text) for each in read_migrations(tmp_path)] == [
        ("0002_post_a.sql", "post", "A"),
        ("0010_pre_b.sql", "pre", "B"),
        ("0011_pre_c.sql", "pre", "C"),
    ]


@pytest.mark.parametrize(
    ("text", "is_breaking", "in_transaction"),
    [
        ("-- Do it.\n-- reason: because\nSELECT 1", False, True),
        ("-- Do it.\n-- breaking\nSELECT 1", True, True),
        ("-- no-transaction\n-- breaking\nSELECT 1", True, False),
        ("--breaking\nSELECT 1", True, True),
        ("-- This is not breaking.\nSELECT 1", False, True),
        ("-- Do it.\nSELECT 1\n-- breaking", False, True),
    ],
)
def test_marks_count_only_as_whole_lines_of_the_header(
    tmp_path: Path, text: str, is_breaking: bool, in_transaction: bool
) -> None:
    """A word in a sentence, or below the header, marks nothing."""
    write(tmp_path, migrations__0001_pre_a=text)
    [migration] = read_migrations(tmp_path)

    assert (migration.is_breaking, migration.in_transaction) == (is_breaking, in_transaction)


@pytest.mark.parametrize("name", ["1_pre_a", "0001_a", "0001_pre_", "0001_pre_A", "0001_both_a", "0001-pre-a"])
def test_migration_with_a_wrong_name_is_refused(tmp_path: Path, name: str) -> None:
    """A file that would never be applied, or in the wrong phase, is an error of its author."""
    write(tmp_path, **{f"migrations__{name}": "SELECT 1"})
    with pytest.raises(ValueError, match="is not named"):
        read_migrations(tmp_path)


def test_two_migrations_with_one_number_are_refused(tmp_path: Path) -> None:
    """Two branches that took the same number must agree on an order."""
    write(tmp_path, migrations__0001_pre_a="A", migrations__0001_post_b="B")
    with pytest.raises(ValueError, match="same number"):
        read_migrations(tmp_path)


def test_repeatables_come_as_functions_views_grants(tmp_path: Path) -> None:
    """Views call functions, and grants name both."""
    write(tmp_path, views__a="V", functions__z="Z", functions__b="B", grants="G")

    assert [each.name for each in read_repeatables(tmp_path)] == [
        "functions/b.sql",
        "functions/z.sql",
        "views/a.sql",
        "grants.sql",
    ]


def test_names_in_the_ledger_tell_migrations_from_the_rest() -> None:
    """A function that a newer release added does not make its schema a newer one."""
    assert is_migration("0001_pre_a.sql")
    assert not is_migration("functions/a.sql")
    assert not is_migration("grants.sql")


def test_our_own_migrations_keep_the_rules() -> None:
    """Each begins with a sentence and a reason; one outside a transaction is one statement that may be repeated."""
    for migration in read_migrations(sql_directory()):
        lines = migration.text.splitlines()

        assert lines[0].startswith("-- ")
        assert lines[0].endswith(".")
        assert any(line.startswith("-- reason: ") for line in lines[:4]), migration.name
        if not migration.in_transaction:
            assert migration.text.count(";") <= 1, migration.name
            assert "IF NOT EXISTS" in migration.text or "IF EXISTS" in migration.text, migration.name
