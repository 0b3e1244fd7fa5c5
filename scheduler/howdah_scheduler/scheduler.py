"""The scheduler process: which chores it looks after, and over which connections.

Rescue has a connection of its own, for everything else can wait for a while and
lost runs cannot. Bulk operations have one because a large one is at work for
minutes without a pause, and retention because a single step of it may be.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from typing import TYPE_CHECKING, Final

from howdah.core.backoff import pause, retry_forever
from howdah.core.clock import DatabaseClock
from howdah.core.db.connect import connect
from howdah.core.db.errors import translated
from howdah.core.db.precheck import READ_ONLY_S_MAX, check_server
from howdah.core.db.schema_version import check_schema
from howdah.core.service import run
from howdah.core.supervisor import Supervisor
from howdah_scheduler.batches import CompleteBatches
from howdah_scheduler.chore import PROCESS, ChoreLoop
from howdah_scheduler.cleanup import Cleanup
from howdah_scheduler.expire import Expire
from howdah_scheduler.operate import Operate
from howdah_scheduler.park import Park
from howdah_scheduler.partitions import MakePartitions
from howdah_scheduler.queues import Queues
from howdah_scheduler.rescue import Rescue
from howdah_scheduler.retention import Retention
from howdah_scheduler.settle import Settle
from howdah_scheduler.sweep import Sweep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from howdah.core.db.connect import Purpose
    from howdah.core.service import ExitCode, Service
    from howdah.core.settings import Settings
    from howdah_scheduler.chore import Chore

# One for each loop, and one that comes and goes: it renews the lease of a long round.
CONNECTIONS: Final = 6

_logger = logging.getLogger(__name__)


def main(settings: Settings) -> ExitCode:
    """Run a scheduler until it is told to stop, and return the exit code."""
    return run(work, settings, PROCESS)


async def work(service: Service) -> None:
    """Look after all chores until the service is to stop.

    Raises:
        StartRefused: The schema or the server does not fit.
        LoopFailed: A loop crashed again and again.
    """
    settings = service.settings
    check = functools.partial(_check, settings, time.monotonic() + READ_ONLY_S_MAX)
    await retry_forever(check, "start", service.stopping)
    supervisor = Supervisor(service.stopping)
    service.readiness.add("loops", supervisor.fault)
    for name, purpose, chores in _loops(settings):
        supervisor.add(name, ChoreLoop(settings, service.stopping, purpose, chores).run)
    running = asyncio.create_task(supervisor.run())
    canceller = asyncio.create_task(_cancel_late(running, service))
    try:
        await running
    except asyncio.CancelledError:
        if not service.stopping.is_set():
            raise
        _logger.warning("chores_interrupted")
    finally:
        canceller.cancel()


async def _check(settings: Settings, refuse_read_only_at: float) -> None:
    """Make sure that server and schema fit, before anything is done to them."""
    await check_server(
        settings,
        PROCESS,
        DatabaseClock(),
        connection_count=CONNECTIONS,
        refuse_read_only_at=refuse_read_only_at,
    )
    async with await connect(settings, PROCESS, purpose="direct") as conn:
        with translated():
            await check_schema(conn, settings.schema)


async def _cancel_late(running: asyncio.Task[None], service: Service) -> None:
    """Interrupt chores that outlast the time for draining; each may be interrupted anywhere."""
    await service.stopping.wait()
    await pause(service.stopping_fast, service.settings.drain_s)
    running.cancel()


def _loops(settings: Settings) -> list[tuple[str, Purpose, Sequence[Chore]]]:
    """Return the loops: their names, what their connections are for, and their chores."""
    schema, retention_s = settings.schema, settings.retention_s
    return [
        ("rescue", "hot", [Rescue(schema)]),
        (
            "lanes",
            "hot",
            [Queues(schema), Expire(schema), Sweep(schema), Park(schema), Settle(schema), CompleteBatches(schema)],
        ),
        ("operations", "hot", [Operate(schema)]),
        ("upkeep", "direct", [MakePartitions(schema, settings.partition_days_ahead), Cleanup(schema, retention_s)]),
        ("retention", "direct", [Retention(schema, retention_s)]),
    ]
