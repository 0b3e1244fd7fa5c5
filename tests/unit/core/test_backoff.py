"""Waiting and repeating."""

import asyncio
import itertools
import json
import logging
import time

import pytest

from howdah.core import backoff, metrics
from howdah.core.backoff import delays, pause, retry_forever
from howdah.core.errors import DatabaseUnavailable, Stopped


def test_delays_double_up_to_their_bound() -> None:
    """At most 5 s lie between tries, however long PostgreSQL is away."""
    bounds = list(itertools.islice(delays(lambda: 1.0), 9))

    assert bounds == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0])


def test_delays_are_fully_jittered() -> None:
    """A fleet is spread over the whole interval."""
    seen = [next(delays()) for _ in range(1_000)]

    assert min(seen) < 0.02
    assert max(seen) > 0.08
    assert max(seen) <= 0.1


async def test_pause_ends_by_itself_or_by_the_stop() -> None:
    """A pause lasts as long as it says, and not a moment longer than the process."""
    stop = asyncio.Event()
    began = time.monotonic()
    assert await pause(stop, 0.01) is False
    asyncio.get_running_loop().call_soon(stop.set)

    assert await pause(stop, 60) is True
    assert await pause(stop, 0) is True
    assert time.monotonic() - began < 30


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all delays nothing."""
    monkeypatch.setattr(backoff, "delays", lambda: itertools.repeat(0.0))


@pytest.mark.usefixtures("no_waiting")
async def test_retry_forever_goes_on_until_the_database_answers(caplog: pytest.LogCaptureFixture) -> None:
    """An outage is repeated through, logged once at its start and once at its end, and counted."""
    counted = metrics.DATABASE_RETRIES.labels("of_a_test")
    before = counted._value.get()
    tries = iter([DatabaseUnavailable("refused")] * 20 + [7])

    async def operation() -> int:
        each = next(tries)
        if isinstance(each, Exception):
            raise each
        return each

    with caplog.at_level(logging.INFO, "howdah.core.backoff"):
        assert await retry_forever(operation, "of_a_test", asyncio.Event()) == 7

    assert counted._value.get() - before == 20
    assert [record.getMessage() for record in caplog.records] == ["database_unavailable", "database_available"]
    assert json.dumps([record.fields["reason"] for record in caplog.records[:1]]) == '["refused"]'  # type: ignore[attr-defined]


async def test_retry_forever_lets_other_errors_through() -> None:
    """A bug is not repeated for ever."""

    async def operation() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await retry_forever(operation, "of_a_test", asyncio.Event())


async def test_retry_forever_ends_with_the_process() -> None:
    """A process that is to stop does not wait for PostgreSQL, nor try once more."""
    stop = asyncio.Event()
    tries = 0

    async def operation() -> None:
        nonlocal tries
        tries += 1
        stop.set()
        raise DatabaseUnavailable("refused")

    with pytest.raises(Stopped, match="of_a_test"):
        await asyncio.wait_for(retry_forever(operation, "of_a_test", stop), 5)
    with pytest.raises(Stopped):
        await retry_forever(operation, "of_a_test", stop)
    assert tries == 1
