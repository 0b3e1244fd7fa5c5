"""Every SQL file: what its header promises, what PostgreSQL makes of it, and who may run it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.pq import ExecStatus

from howdah.core.db.queries import load
from howdah.core.db.sql_files import sql_directory
from tests.fix_db import _database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SQL = sql_directory()
PLACEHOLDER = re.compile(r"%\((\w+)\)b")
KEYS = ("params", "returns", "moves", "locks", "index")


@dataclass(frozen=True)
class File:
    """A query file, taken apart.

    Attributes:
        name: `<noun>.<verb>`.
        sentence: The header's lines before the first key.
        entries: What the header says behind each key, continuation lines (indented) included.
        statement: What psycopg is given.
        parameters: Names of the parameters, in the order of their numbers.
        numbered: The statement with `$1`, … instead of names.
    """

    name: str
    sentence: str
    entries: dict[str, str]
    statement: str
    parameters: list[str]
    numbered: bytes


def read(path: Path) -> File:
    """Take a query file apart."""
    name = f"{path.parent.name}.{path.stem}"
    sentence, entries, key = "", dict[str, str](), None
    for line in path.read_text().splitlines():
        if not line.startswith("--"):
            break
        found = re.match(rf"-- ({'|'.join(KEYS)}): (.*)", line)
        if found:
            key = found[1]
            entries[key] = f"{entries.get(key, '')}\n{found[2]}".strip()
        elif key is None:
            sentence += line.removeprefix("--")
        elif line.startswith("--   "):
            entries[key] += f"\n{line.removeprefix('--').strip()}"
        else:
            key = "why"
            entries.setdefault(key, "")
    statement = load(name, "howdah").decode()
    parameters = list(dict.fromkeys(PLACEHOLDER.findall(statement)))
    numbered = PLACEHOLDER.sub(lambda match: f"${parameters.index(match[1]) + 1}", statement)
    return File(name, sentence.strip(), entries, statement, parameters, numbered.encode())


FILES = [read(path) for path in sorted((SQL / "queries").glob("*/*.sql"))]
each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)


@pytest.fixture(scope="module")
def schema(server_url: str, admin: psycopg.Connection, template_database: str) -> Iterator[psycopg.Connection]:
    """A session in a migrated database that the tests of this module only look at."""
    with _database(server_url, admin, template_database) as url, psycopg.connect(url, autocommit=True) as conn:
        yield conn


@each_file
def test_header_says_what_the_statement_does(file: File) -> None:
    """A sentence first, then each parameter by its name, and what is locked."""
    parameters = file.entries.get("params")

    assert re.fullmatch(r"[A-Z].*\.", file.sentence)
    assert parameters is not None
    assert (parameters == "none.") == (not file.parameters)
    assert [name for name in file.parameters if not re.search(rf"\b{name}\b", parameters)] == []
    if re.search(r"\bFOR UPDATE\b|\bUPDATE howdah\.|\bDELETE FROM\b", file.statement):
        assert "locks" in file.entries


@each_file
def test_statement_is_safe_to_prepare(file: File) -> None:
    """No parameter is in a literal, none lacks its type, and no column can appear by itself.

    A placeholder in a literal is read as text; `%` elsewhere stops psycopg; a
    prepared statement with `*` fails for good once a column is added.
    """
    literals = re.findall(r"'(?:[^']|'')*'", file.statement)

    assert not [literal for literal in literals if "%(" in literal]
    assert "%" not in PLACEHOLDER.sub("", file.statement)
    assert not re.search(r"%\(\w+\)b(?!::[a-z])", file.statement), "a parameter without a cast"
    assert not re.search(r"(\b(SELECT|RETURNING)|,)\s+(\w+\.)?\*", at_top_level(file.statement))
    assert not re.search(r"(?<!:)\bnow\(\)", file.statement.replace("howdah.now()", "")), "the clock is howdah.now()"
    assert ";" not in without_literals(file.statement), "one statement a file"
    assert "--" not in without_literals(file.statement), "a comment behind code"


@each_file
def test_statement_is_understood_by_the_server(schema: psycopg.Connection, file: File) -> None:
    """Every name in it exists, every parameter has a type, every column a name of its own and a type."""
    described = describe(schema, file)

    assert described.nparams == len(file.parameters)
    assert all(described.param_type(number) != 0 for number in range(described.nparams))
    names = [(described.fname(number) or b"").decode() for number in range(described.nfields)]
    assert len(set(names)) == len(names)
    assert "?column?" not in names
    unknown = 705
    assert all(described.ftype(number) != unknown for number in range(described.nfields))


def test_one_task_is_read_as_many_are() -> None:
    """A task by itself and in a list are read alike, but for payload, result, progress, and how they are found."""
    statements = {file.name: file.statement.split("*/")[-1] for file in FILES}
    alone = statements["task.get"].replace(" t.payload,", "").replace(" f.result,", "").replace(" h.result,", "")
    alone = re.sub(r",\n    said\..*", "", alone)
    alone = re.sub(r"LEFT JOIN LATERAL \(\n    SELECT l\.fraction.*?AS said ON true\n", "", alone, flags=re.DOTALL)
    alone = alone.replace("t.id = %(id)b::uuid", "t.id = ANY (%(ids)b::uuid[])\nORDER BY t.id DESC")

    assert alone.strip() == statements["task.get_many"].strip()


@each_file
def test_header_says_what_comes_back(schema: psycopg.Connection, file: File) -> None:
    """A statement that answers with more than void has `returns:`; others have none."""
    described = describe(schema, file)
    void = 2278
    has_answer = any(described.ftype(number) != void for number in range(described.nfields))

    assert ("returns" in file.entries) == has_answer


@each_file
def test_named_indexes_exist(schema: psycopg.Connection, file: File) -> None:
    """The index that a statement is said to need is one that the migrations make."""
    named = re.findall(r"\w+", file.entries.get("index", ""))
    found = {
        name
        for (name,) in schema.execute(
            "SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = 'howdah'::regnamespace"
            " AND c.relkind IN ('i', 'I') AND NOT c.relispartition"
        )
    }

    assert set(named) <= found


@each_file
def test_service_role_may_run_the_statement(schema: psycopg.Connection, file: File) -> None:
    """An installation may run its processes without owning the schema."""
    schema.execute("SET plan_cache_mode = force_generic_plan; SET ROLE howdah_service")
    try:
        nulls = ", ".join("NULL" for _ in file.parameters)
        schema.execute(b"PREPARE checked AS " + file.numbered)
        schema.execute(f"EXPLAIN EXECUTE checked{f'({nulls})' if nulls else ''}".encode())
    finally:
        schema.execute("RESET ROLE; DEALLOCATE ALL; RESET plan_cache_mode")


def test_service_role_may_make_partitions(database: str) -> None:
    """The chore that keeps enqueue working needs no owner of the schema."""
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("SET ROLE howdah_service")

        assert len(conn.execute("SELECT howdah.make_partitions(16)").fetchall()) == 6


def test_producer_role_enqueues_changes_and_cancels_and_nothing_else(database: str) -> None:
    """A service of somebody else may send tasks from its own transactions, and read no one's."""
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("SET ROLE howdah_producer")
        row = conn.execute("SELECT howdah.enqueue('q', 'h', '{}')").fetchone()
        assert row is not None

        assert conn.execute("SELECT howdah.run_now(%s)", row).fetchone() == ("queued",)
        assert conn.execute("SELECT howdah.change(%s, '{}')", row).fetchone() == ("queued",)
        assert conn.execute("SELECT howdah.cancel(%s)", row).fetchone() == ("cancelled",)
        keyed = 'SELECT howdah.enqueue(\'q\', \'h\', options => \'{"dedup": {"key": "k", "on_conflict": "replace"}}\')'
        assert conn.execute(keyed.encode()).fetchone() != conn.execute(keyed.encode()).fetchone()
        assert conn.execute("SELECT error FROM howdah.enqueue_many(NULL, '[]')").fetchall() == []
        for forbidden in (
            "SELECT 1 FROM howdah.tasks",
            "SELECT 1 FROM howdah.runs",
            "SELECT 1 FROM howdah.queue_depth",
            "DELETE FROM howdah.runs",
            "SELECT howdah.make_partitions(1)",
            "SELECT howdah.replay(gen_random_uuid())",
            "SELECT howdah.pause('q')",
            "SELECT howdah.resume('q')",
            "SELECT howdah.drain('q')",
            "SELECT howdah.delete_queue('q')",
            "SELECT howdah.set_queue('q')",
            "SELECT howdah.make_names(1, ARRAY['q'], NULL)",
            "SELECT howdah.enqueue_rows(1, '[]', NULL)",
            "SELECT howdah.take_keys(1, '[]', NULL, NULL, NULL, 1)",
            "SELECT 1 FROM howdah.dedup_keys",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(forbidden.encode())


def test_only_the_owner_shifts_the_clock(database: str) -> None:
    """A producer's own setting has no effect: its tasks would get times and ids of its choice."""
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("SET howdah.clock_offset = '2 days'")
        conn.execute("SELECT howdah.enqueue('q', 'h')")
        conn.execute("SET SESSION AUTHORIZATION howdah_producer")
        conn.execute("SELECT howdah.enqueue('q', 'h')")
        conn.execute("RESET SESSION AUTHORIZATION")
        rows = conn.execute(
            "SELECT created_at > statement_timestamp() + interval '1 day' FROM howdah.tasks ORDER BY id"
        ).fetchall()

        assert rows == [(False,), (True,)]


def test_functions_that_act_as_their_owner_pin_the_search_path(schema: psycopg.Connection) -> None:
    """Else a caller's own objects of the same names would run with the owner's rights."""
    loose = schema.execute(
        "SELECT p.oid::regprocedure::text FROM pg_proc AS p"
        " WHERE p.pronamespace = 'howdah'::regnamespace AND p.prosecdef"
        " AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false)"
    ).fetchall()

    assert loose == []


def test_no_function_is_for_everybody(schema: psycopg.Connection) -> None:
    """PostgreSQL grants new functions to PUBLIC; ours belong to the roles that were given them."""
    public = schema.execute(
        "SELECT p.oid::regprocedure::text FROM pg_proc AS p"
        " CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a"
        " WHERE p.pronamespace = 'howdah'::regnamespace AND a.grantee = 0"
    ).fetchall()

    assert public == []


def test_functions_that_touch_tables_are_plpgsql(schema: psycopg.Connection) -> None:
    """Citus can run a PL/pgSQL function with parameters in another node's schema, a LANGUAGE sql one it cannot."""
    touching = schema.execute(
        "SELECT p.proname FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang"
        " WHERE p.pronamespace = 'howdah'::regnamespace AND l.lanname = 'sql'"
        " AND p.prosrc ~* '\\y(from|join|into|update)\\s+howdah\\.\\w+\\M(?!\\s*\\()'"
    ).fetchall()

    assert touching == []


@pytest.mark.parametrize("kind", ["functions", "views"])
def test_object_has_the_name_of_its_file_and_a_comment(kind: str) -> None:
    """Who sees a name in psql finds the file; who reads the file finds a sentence first."""
    for path in sorted((SQL / kind).glob("*.sql")):
        text = path.read_text()
        [made] = re.findall(r"^CREATE OR REPLACE (?:FUNCTION|VIEW) howdah\.(\w+)", text, re.MULTILINE)

        assert made == path.stem
        assert text.startswith("-- ")
        assert re.search(rf"^COMMENT ON (FUNCTION|VIEW) howdah\.{made}\b", text, re.MULTILINE)


def describe(conn: psycopg.Connection, file: File) -> psycopg.pq.abc.PGresult:
    """Prepare a statement on the server and return what it says about parameters and columns."""
    for result in (conn.pgconn.prepare(b"described", file.numbered), conn.pgconn.describe_prepared(b"described")):
        assert result.status == ExecStatus.COMMAND_OK, result.error_message.decode()
    conn.execute("DEALLOCATE described")
    return result


def without_literals(statement: str) -> str:
    """The statement without its tag and the contents of its literals."""
    return re.sub(r"'(?:[^']|'')*'", "''", statement.partition("*/ ")[2])


def at_top_level(statement: str) -> str:
    """The statement without anything in parentheses: what decides which columns come back."""
    text, before = without_literals(statement), ""
    while text != before:
        before, text = text, re.sub(r"\([^()]*\)", "", text)
    return text
