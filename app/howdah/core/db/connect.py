"""Connections of our processes: which URL, which session settings, prepared or not.

`HOWDAH_DATABASE_URL` may be a transaction pooler, and is taken for one when
`HOWDAH_DIRECT_URL` is set beside it. Through a pooler there are neither session
settings nor prepared statements, and the claim needs both: its plan is pinned by
settings, and planning it costs more than running it. So the few long-lived
connections (*hot*: claim, finish, keeper, group commit; *direct*: LISTEN, start-up
checks, session locks) go to the direct URL, which PostgreSQL can afford at four a
process; what comes and goes by the dozen (*plain*: the API's pool; *handler*:
`ctx.transaction()`) goes through the pooler. Pinning the plan by SET LOCAL in a
transaction around each claim instead would cost three more round trips a batch.

Session settings travel in libpq's `options`, so that a new connection has them
from its first statement on.
"""

from __future__ import annotations

import contextlib
import select
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, TypeVar

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

from howdah.core.db.dsn import connection_string
from howdah.core.db.errors import translated
from howdah.core.errors import ServerRefused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from psycopg.abc import PQGen

    from howdah.core.settings import Settings

T = TypeVar("T")

Connection: TypeAlias = psycopg.AsyncConnection[TupleRow]
ConnectionPool: TypeAlias = AsyncConnectionPool[Connection]
Purpose: TypeAlias = Literal["hot", "plain", "direct", "handler"]

# A generic plan for `LIMIT $n` is estimated at a tenth of the table and a custom one over
# many partitions costs milliseconds to make; with these the generic plan is the right one
# whatever the statistics say, which a test holds it to.
_PLANNER_SETTINGS: Final[Mapping[str, str]] = {
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",
    "enable_memoize": "off",
}
# To plan a look at one task takes 3 ms with 30 partitions, to look takes 0.4; pages of lists cost the same either way.
_PLAN_ONCE: Final[Mapping[str, str]] = {"plan_cache_mode": "force_generic_plan"}
# Our statements count on a fresh snapshot each, and clients are shown UTC. A role or a
# database may have other defaults. Handlers get the connection that its owner configured.
# Functions with a body of text find their operators by the caller's path, so ours leads
# nowhere that somebody else may write to; our statements name the schema.
# Our transactions never wait for anything but the server. One whose process is stopped, or
# whose machine is gone, would keep its locks for hours: those of a chore, which no other
# scheduler could do, and of runs, which rescue passes by.
_OWN_SETTINGS: Final[Mapping[str, str]] = {
    "TimeZone": "UTC",
    "default_transaction_isolation": "read committed",
    "search_path": "pg_catalog,pg_temp",
    "idle_in_transaction_session_timeout": "10s",
}

# When PostgreSQL is away, clients shall hear so at once; a pool of four serves hundreds
# of queries in this time.
CHECKOUT_S: Final = 1.0
# psycopg_pool doubles its pauses from 1 s on; given up after this time, a connection is
# tried anew when it is next asked for. Longer, and a server that is back would go
# unnoticed for more than the 5 s that we promise.
_RECONNECT_S: Final = 2.0


POOLER_REFUSAL: Final = (
    "a transaction pooler is between Howdah and PostgreSQL; keep it in HOWDAH_DATABASE_URL if you like, "
    "and set HOWDAH_DIRECT_URL to PostgreSQL itself"
)


class _Parameters(NamedTuple):
    conninfo: str
    prepare_threshold: int | None


async def connect(settings: Settings, process: str, *, purpose: Purpose) -> Connection:
    """Open an autocommit connection.

    Args:
        settings: Tell where, and which schema.
        process: `api`, `worker`, …; DBAs see it as `howdah-<process>`.
        purpose: `hot` pins plans and prepares every statement at its first use;
            `direct` is for LISTEN and session locks; `plain` may be a pooler's, and
            prepares too if it is not;
            `handler` too, and has the session settings that its owner configured.

    Raises:
        DatabaseUnavailable: There was no connection within 5 s for each host.
        ServerRefused: A pooler answers where PostgreSQL itself is needed.
    """
    parameters = _parameters(settings, process, purpose)
    with translated(), _pooler_refused():
        return await psycopg.AsyncConnection.connect(
            parameters.conninfo, autocommit=True, prepare_threshold=parameters.prepare_threshold
        )


class _ImpatientConnection(psycopg.Connection[TupleRow]):
    """A connection that waits for an answer only so long, also of a server that hangs without closing it."""

    answer_s: float | None = None

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        return super().wait(gen, interval, self.answer_s if timeout is None else timeout)


def connect_sync(
    settings: Settings, process: str, *, purpose: Purpose, answer_s: float | None = None
) -> psycopg.Connection[TupleRow]:
    """Open a blocking autocommit connection, for threads of their own; see `connect`.

    Args:
        settings: See `connect`.
        process: See `connect`.
        purpose: See `connect`.
        answer_s: How long a statement may take before it fails as if the connection
            were lost; None waits as long as TCP does. The connection must then be closed.

    Raises:
        DatabaseUnavailable: There was no connection within 5 s for each host.
        ServerRefused: A pooler answers where PostgreSQL itself is needed.
    """
    parameters = _parameters(settings, process, purpose)
    with translated(), _pooler_refused():
        conn = _ImpatientConnection.connect(
            parameters.conninfo, autocommit=True, prepare_threshold=parameters.prepare_threshold
        )
    conn.answer_s = answer_s
    return conn


async def open_pool(
    settings: Settings, process: str, size: int, *, purpose: Literal["plain", "handler"] = "plain"
) -> ConnectionPool:
    """Open a pool of autocommit connections, which its caller closes.

    It opens at once, even while PostgreSQL is away, and recovers by itself: a
    connection that the server has closed is not handed out. Taking one waits at
    most `CHECKOUT_S`, then raises `PoolTimeout`, which `translated()` turns into
    `DatabaseUnavailable`.

    Args:
        settings: Tell where.
        process: `api`, `worker`, …; DBAs see it as `howdah-<process>`.
        size: Most connections at once; one is kept when idle.
        purpose: See `connect`.
    """
    parameters = _parameters(settings, process, purpose)
    kwargs: dict[str, Any] = {"autocommit": True, "prepare_threshold": parameters.prepare_threshold}
    pool: ConnectionPool = AsyncConnectionPool(
        parameters.conninfo,
        kwargs=kwargs,
        min_size=1,
        max_size=size,
        open=False,
        check=_check,
        name=f"howdah-{process}-{purpose}",
        timeout=CHECKOUT_S,
        reconnect_timeout=_RECONNECT_S,
    )
    await pool.open()
    return pool


def session_settings(settings: Settings, purpose: Purpose) -> dict[str, str]:
    """Return the session settings of connections for a purpose; none where a pooler may be between."""
    if purpose == "handler" or (purpose == "plain" and settings.direct_url is not None):
        return {}
    if purpose == "hot":
        # Our own enqueues are announced after their commit and coalesced: NOTIFY inside
        # the transaction takes a database-wide lock at commit (26,500 to 5,600 inserts/s).
        return {**_OWN_SETTINGS, **_PLANNER_SETTINGS, f"{settings.schema}.notify": "off"}
    if purpose == "plain":
        return {**_OWN_SETTINGS, **_PLAN_ONCE}
    return dict(_OWN_SETTINGS)


def _parameters(settings: Settings, process: str, purpose: Purpose) -> _Parameters:
    is_pooled = purpose in ("plain", "handler") and settings.direct_url is not None
    url = settings.database_url if is_pooled else settings.direct_url or settings.database_url
    conninfo = connection_string(url, process, session_settings(settings, purpose))
    if is_pooled:
        return _Parameters(conninfo, None)
    return _Parameters(conninfo, 0 if purpose in ("hot", "plain") else 5)


@contextlib.contextmanager
def _pooler_refused() -> Iterator[None]:
    """Say what to do when pgbouncer turns our session settings away; trying again would not help."""
    try:
        yield
    except psycopg.OperationalError as error:
        if "unsupported startup parameter: options" not in str(error):
            raise
        raise ServerRefused(POOLER_REFUSAL) from error


async def _check(conn: Connection) -> None:
    """Ask the server for a sign of life, but only if this connection has something to read.

    An idle connection has nothing to read, unless the server said that it ends it. So
    one system call replaces a round trip, which would double the cost of a lookup.
    """
    poll = select.poll()
    poll.register(conn.fileno(), select.POLLIN)
    if poll.poll(0):
        await AsyncConnectionPool.check_connection(conn)
