"""Everything at once: clients post while processes and the server are killed, stopped and cut off.

The faults come from a seed, which is printed; `--storm-seed N` repeats a run and
`--storm-s SECONDS` makes it longer.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.chaos.history import Producer, judge, zombie_count
from tests.fix_fleet import LEASE_S
from tests.fix_wait import eventually_async

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fix_fleet import Fleet

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(600)]

RATE_PER_S = 150
# A run that meets fewer proves little: with a guard by state alone, most find their task ended anyway.
ZOMBIES_MIN = 20
# Each gives about six.
_MORE_PAUSES_MAX = 20
MIX = (
    (0.55, "chaos.noop", {}),
    (0.15, "chaos.sleep", {"s": 0.05}),
    # Long enough that the next attempt still runs when a stopped worker wakes up.
    (0.08, "chaos.sleep", {"s": 0.8 * LEASE_S}),
    (0.04, "chaos.plain", {"s": 0.8 * LEASE_S}),
    (0.08, "chaos.flaky", {}),
    (0.10, "chaos.effect", {"s": 0.3}),
)


async def test_no_promise_breaks_under_a_storm_of_faults(fleet: Fleet, pytestconfig: pytest.Config) -> None:
    """Nothing acknowledged is lost, nothing is recorded twice, and every task ends, whatever is killed when."""
    seed = pytestconfig.getoption("--storm-seed") or random.randrange(1 << 32)
    print(f"storm seed {seed}")
    chance = random.Random(seed)
    fleet.query("CREATE TABLE effects (task_id uuid, claim_no int)")
    fleet.make_key()
    for number in range(2):
        fleet.add_api(f"api{number}")
        fleet.add_scheduler(f"scheduler{number}")
    for number in range(3):
        fleet.add_worker(f"worker{number}", HOWDAH_CONCURRENCY="40")
    producer = Producer()
    stop = asyncio.Event()
    load = asyncio.create_task(_produce(fleet, producer, chance, stop))
    await _faults(fleet, chance, pytestconfig.getoption("--storm-s"))
    stop.set()
    await load
    await eventually_async(fleet.drained, 60, "the fleet drains")
    verdict = judge(fleet, producer)
    print(verdict.counts)

    assert verdict.violations == [], f"seed {seed}"
    assert min(verdict.counts["lost"], verdict.counts["unknown"]) > 0, f"inadequate, seed {seed}: {verdict.counts}"
    assert verdict.counts["zombies"] >= ZOMBIES_MIN, f"inadequate, seed {seed}: {verdict.counts}"


async def _produce(fleet: Fleet, producer: Producer, chance: random.Random, stop: asyncio.Event) -> None:
    """Post at a steady rate, each task under a key of its own, and repeat until it is acknowledged."""
    limits = aiohttp.ClientTimeout(total=8)
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {fleet.api_key}"}, timeout=limits) as session,
        asyncio.TaskGroup() as posts,
    ):
        number = 0
        while not stop.is_set():
            _, handler, payload = chance.choices(MIX, [share for share, *_ in MIX])[0]
            posts.create_task(_post(fleet, session, producer, f"key-{number}", handler, payload))
            number += 1
            await asyncio.sleep(1 / RATE_PER_S)


async def _post(
    fleet: Fleet, session: aiohttp.ClientSession, producer: Producer, key: str, handler: str, payload: dict[str, float]
) -> None:
    body = {
        "queue": "chaos",
        "handler": handler,
        "payload": payload,
        "tags": {"key": key},
        "retry": {"max_attempts": 20, "initial": "100ms"},
    }
    producer.unknown.add(key)
    for attempt in range(200):
        port = fleet.api_ports[(attempt + hash(key)) % len(fleet.api_ports)]
        try:
            async with session.post(
                f"http://127.0.0.1:{port}/v1/tasks", json=body, headers={"Idempotency-Key": key}
            ) as answer:
                if answer.status in (200, 201):
                    task_id = (await answer.json())["id"]
                    producer.acknowledged[key] = task_id
                    producer.ids_seen.setdefault(key, set()).add(task_id)
                    return
                assert answer.status in (409, 429, 503), f"{answer.status}: {await answer.text()}"
        except (aiohttp.ClientError, TimeoutError):
            pass
        producer.unknown_count += 1
        await asyncio.sleep(min(1.0, 0.05 * 2**attempt))
    raise AssertionError(f"{key} was never acknowledged")


async def _faults(fleet: Fleet, chance: random.Random, storm_s: float) -> None:
    """Run rounds of faults, each kind at least once, until the time is over and there were enough late reports."""
    faults: list[Callable[[], object]] = [
        lambda: _restart(fleet, f"worker{chance.randrange(3)}"),
        lambda: _restart(fleet, f"api{chance.randrange(2)}"),
        lambda: _restart(fleet, f"scheduler{chance.randrange(2)}"),
        lambda: _pause(fleet, f"worker{chance.randrange(3)}"),
        lambda: _pause(fleet, f"worker{chance.randrange(3)}"),
        lambda: _deploy(fleet, f"worker{chance.randrange(3)}"),
        lambda: _crash_server(fleet),
        lambda: asyncio.to_thread(_terminate_backends, fleet, chance),
    ]
    end = time.monotonic() + storm_s
    while time.monotonic() < end:
        for fault in chance.sample(faults, len(faults)):
            await asyncio.sleep(chance.uniform(1.0, 2.5))
            await fault()  # type: ignore[misc]
    for _ in range(_MORE_PAUSES_MAX):
        if zombie_count(fleet) >= ZOMBIES_MIN:
            break
        await _pause(fleet, f"worker{chance.randrange(3)}")
        await asyncio.sleep(chance.uniform(1.0, 2.5))


async def _restart(fleet: Fleet, name: str) -> None:
    await asyncio.to_thread(fleet.processes[name].kill)
    fleet.processes[name].start()


async def _pause(fleet: Fleet, name: str) -> None:
    """Stop a worker for longer than its lease; when it goes on, its reports come late."""
    fleet.processes[name].signal(signal.SIGSTOP)
    await asyncio.sleep(2 * LEASE_S)
    fleet.processes[name].signal(signal.SIGCONT)


async def _deploy(fleet: Fleet, name: str) -> None:
    # It may have been started anew a moment ago.
    await asyncio.to_thread(fleet.processes[name].until_started)
    assert await asyncio.to_thread(fleet.processes[name].stop) == 0
    fleet.processes[name].start()


async def _crash_server(fleet: Fleet) -> None:
    # Not in a thread: an embedded server ends with the thread that started it.
    fleet.crash_server()


def _terminate_backends(fleet: Fleet, chance: random.Random) -> None:
    with fleet.connect() as conn:
        pids = [
            row[0]
            for row in conn.execute("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'howdah%'").fetchall()
        ]
        for pid in chance.sample(pids, len(pids) // 2):
            conn.execute("SELECT pg_terminate_backend(%s)", [pid])
