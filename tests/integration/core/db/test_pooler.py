"""What works through a transaction pooler, and what is refused there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from howdah.core.db.connect import connect, open_pool
from howdah.core.db.listen import Listener
from howdah.core.db.migrate import migrate
from howdah.core.errors import ServerRefused
from howdah.core.settings import Settings

if TYPE_CHECKING:
    from tests.fix_pooler import Pooler

pytestmark = [pytest.mark.system("pgbouncer"), pytest.mark.slow]


def listener(settings: Settings) -> Listener:
    """A listener that only checks itself."""
    return Listener(settings, "test", on_words=lambda words: None, on_reset=lambda: None)


@pytest.mark.parametrize("pooler", ["", "ignore_startup_parameters = options"], indirect=True)
async def test_listener_refuses_a_transaction_pooler(pooler: Pooler) -> None:
    """A pooler turns our session off, or lets it LISTEN and hear nothing: start-up names the cure for either."""
    migrate(pooler.direct_url)
    with pytest.raises(ServerRefused, match="set HOWDAH_DIRECT_URL"):
        await listener(Settings(database_url=pooler.pooled_url)).start()


async def test_listener_starts_when_the_direct_url_is_set(pooler: Pooler) -> None:
    """With a way around the pooler, the same installation hears its wake-ups."""
    migrate(pooler.direct_url)
    ours = listener(Settings(database_url=pooler.pooled_url, direct_url=pooler.direct_url))
    await ours.start()
    stop = asyncio.Event()
    stop.set()
    await ours.run(stop)


async def test_pool_works_through_a_pooler_that_changes_servers(pooler: Pooler) -> None:
    """Repeated statements with parameters do not depend on which server connection they meet."""
    settings = Settings(database_url=pooler.pooled_url, direct_url=pooler.direct_url)
    pool = await open_pool(settings, "api", 4)

    async def ask(number: int) -> int:
        async with pool.connection() as conn, conn.transaction():
            row = await (await conn.execute("SELECT %(n)b::integer, pg_sleep(0.001)", {"n": number})).fetchone()
            assert row is not None
            return int(row[0])

    async with pool:
        # psycopg would prepare a statement at its fifth execution on a connection.
        answers = await asyncio.gather(*(ask(number) for number in range(100)))

    assert answers == list(range(100))


async def test_hot_connections_pass_the_pooler_by(pooler: Pooler) -> None:
    """What pins its plans keeps them, because nobody else's statements run in its session."""
    settings = Settings(database_url=pooler.pooled_url, direct_url=pooler.direct_url)
    async with await connect(settings, "worker", purpose="hot") as conn:
        row = await (await conn.execute("SELECT pg_backend_pid(), current_setting('enable_seqscan')")).fetchone()

        assert row == (conn.info.backend_pid, "off")
