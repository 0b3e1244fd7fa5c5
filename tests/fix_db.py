"""PostgreSQL for tests: one server a run, one migrated template, one database a test.

The server is TEST_DATABASE_URL if that is set (a URL of a role that may create
databases), else an embedded one of the version that `--pg` names, else a
container. Under pytest-xdist the controller starts it, for a worker that ended
early would take it away from the others.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from howdah.core.db.embedded import EmbeddedPostgres
from howdah.core.db.embedded.binaries import find_binaries
from howdah.core.errors import EmbeddedUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

SQL_DIR: Final = Path(__file__).resolve().parents[1] / "sql"

# fsync stays on: tests kill servers and count what was acknowledged. The rest
# keeps checkpoints and full connection slots from disturbing a short run.
SERVER_OPTIONS: Final = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "30min",
}

# Where servers keep their data, if it has room: a database a test means tens of thousands of files that are written and
# flushed, which three processes of tests did on a disk in 188 s, and in memory in 50. A flush has nothing to do there,
# but no test takes the power away: what a killed process has written stays, in memory as on a disk.
MEMORY: Final = Path("/dev/shm")
_MEMORY_BYTES_MIN: Final = 4 * 2**30

_SERVER_URL: Final = pytest.StashKey[str]()
_WORKER_INPUT: Final = "howdah_server_url"


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    """Start the server in xdist's controller and tell each worker where it is."""
    node.workerinput[_WORKER_INPUT] = _server_url(node.config)  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def server_url(pytestconfig: pytest.Config) -> str:
    """URL of the run's server, at a database that is no test's own."""
    shared = getattr(pytestconfig, "workerinput", {}).get(_WORKER_INPUT)
    return shared or _server_url(pytestconfig)


@pytest.fixture(scope="session")
def admin(server_url: str) -> Iterator[psycopg.Connection]:
    """Autocommit connection that creates and drops the databases of tests."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def template_database(server_url: str, admin: psycopg.Connection) -> str:
    """Name of a database to which all migrations were applied, made once for each state of sql/."""
    from howdah.core.db.migrate import migrate

    name = f"howdah_template_{_sql_hash()}"
    with _exclusive():
        if not admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            # It gets its name last, so that a crash leaves no half-migrated template.
            unfinished = f"{name}_unfinished"
            _drop_database(admin, unfinished)
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(unfinished)))
            migrate(with_database(server_url, unfinished))
            rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
            admin.execute(rename.format(sql.Identifier(unfinished), sql.Identifier(name)))
    return name


@pytest.fixture
def database(server_url: str, admin: psycopg.Connection, template_database: str) -> Iterator[str]:
    """URL of a migrated, empty database that is this test's own."""
    with _database(server_url, admin, template_database) as url:
        yield url


@pytest.fixture
def blank_database(server_url: str, admin: psycopg.Connection) -> Iterator[str]:
    """URL of a database without Howdah's schema that is this test's own."""
    with _database(server_url, admin, "template1") as url:
        yield url


@pytest_asyncio.fixture
async def conn(database: str) -> AsyncIterator[psycopg.AsyncConnection]:
    """Autocommit connection to the test's own database."""
    connection = await psycopg.AsyncConnection.connect(database, autocommit=True)
    async with connection:
        yield connection


@pytest.fixture(scope="session")
def bin_dir(pytestconfig: pytest.Config) -> Path:
    """Directory with the programs of the PostgreSQL under test."""
    return _bin_dir(pytestconfig)


@pytest.fixture
def make_server(bin_dir: Path, server_directory: Path) -> Iterator[Callable[..., EmbeddedPostgres]]:
    """Start embedded servers that a test may stop, kill and start again; the keywords are EmbeddedPostgres's."""
    with contextlib.ExitStack() as servers:

        def make(name: str = "server", **keywords: object) -> EmbeddedPostgres:
            keywords = {"bin_dir": bin_dir, **keywords}
            return servers.enter_context(EmbeddedPostgres(server_directory / name, **keywords))  # type: ignore[arg-type]

        yield make


@pytest.fixture
def server_directory() -> Iterator[Path]:
    """Directory that an embedded server's account may enter, which pytest's own (0700) is not."""
    with _server_directory() as directory:
        yield directory


async def row_of(
    conn: psycopg.AsyncConnection[tuple[object, ...]], statement: str, *params: object
) -> tuple[object, ...]:
    """Execute a statement and return its first row."""
    row = await (await conn.execute(statement.encode(), params or None)).fetchone()
    assert row is not None
    return row


async def value_of(conn: psycopg.AsyncConnection[tuple[object, ...]], statement: str, *params: object) -> object:
    """Execute a statement and return the one value of its first row."""
    [value] = await row_of(conn, statement, *params)
    return value


def with_database(url: str, dbname: str) -> str:
    """Return the URL with another database name."""
    return urlsplit(url)._replace(path=f"/{dbname}").geturl()


def _server_url(config: pytest.Config) -> str:
    if _SERVER_URL not in config.stash:
        config.stash[_SERVER_URL] = os.environ.get("TEST_DATABASE_URL") or _start_server(config)
    return config.stash[_SERVER_URL]


def _start_server(config: pytest.Config) -> str:
    try:
        bin_dir = _bin_dir(config)
    except EmbeddedUnavailable as refusal:
        return _start_container(config, refusal)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(_server_directory())
        server = stack.enter_context(EmbeddedPostgres(directory / "pg", options=SERVER_OPTIONS, bin_dir=bin_dir))
        config.add_cleanup(stack.pop_all().close)
    return server.dsn("postgres")


def _start_container(config: pytest.Config, refusal: EmbeddedUnavailable) -> str:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], check=False, capture_output=True).returncode != 0:
        raise pytest.UsageError(f"no PostgreSQL for the tests ({refusal}), and no container engine")
    from testcontainers.postgres import PostgresContainer

    container = PostgresContainer(f"postgres:{config.getoption('--pg')}", driver=None).start()
    config.add_cleanup(container.stop)
    return container.get_connection_url()


def _bin_dir(config: pytest.Config) -> Path:
    return find_binaries(cluster_major=config.getoption("--pg"), chosen=None).bin_dir


@contextlib.contextmanager
def _server_directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="howdah-test-", dir=MEMORY if _has_room() else None))
    try:
        directory.chmod(0o711)
        yield directory
    finally:
        shutil.rmtree(directory)


def _has_room() -> bool:
    """Tell whether there is memory for the data of servers."""
    try:
        room = min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available)
    except OSError:
        return False
    return os.access(MEMORY, os.W_OK) and room >= _MEMORY_BYTES_MIN


@contextlib.contextmanager
def _database(server_url: str, admin: psycopg.Connection, template: str) -> Iterator[str]:
    name = f"howdah_test_{uuid.uuid4().hex}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    admin.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
    try:
        yield with_database(server_url, name)
    finally:
        _drop_database(admin, name)


def _drop_database(admin: psycopg.Connection, name: str) -> None:
    admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _sql_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted(SQL_DIR.rglob("*.sql")):
        digest.update(f"{path.relative_to(SQL_DIR)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _exclusive() -> Iterator[None]:
    """Hold a lock against all other test processes of this user."""
    with Path(tempfile.gettempdir(), f"howdah-test-{os.getuid()}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
