"""Requests that the OpenAPI document allows, and many that it does not: the answers are those that it describes."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from howdah.api import results, runs
from howdah.api.openapi import describe
from tests.fix_api import Api, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.one_server

CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)
EXAMPLES_PER_OPERATION = 60


@pytest.fixture
def served(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """An API in a thread of its own, for a client that blocks; none of its answers may wait for long."""
    for module in (runs, results):
        monkeypatch.setattr(module, "WAIT_S_MAX", 0.1)
    ready, stop = threading.Event(), threading.Event()
    made: list[Api] = []

    async def serve() -> None:
        async with serving(database) as api:
            made.append(api)
            ready.set()
            while not stop.is_set():  # noqa: ASYNC110 - set by another thread
                await asyncio.sleep(0.05)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(30)
    yield made[0]
    stop.set()
    thread.join()


@pytest.mark.slow
@pytest.mark.timeout(400)
# The API's thread draws its pauses at random while this one draws requests, which looks as if the latter did.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
def test_answers_conform_to_the_description(served: Api) -> None:
    """No request, valid or not, is answered with 5xx, an undescribed status, or a body that does not fit."""
    schema = schemathesis.openapi.from_dict(describe())
    schema.config.update(base_url=f"http://127.0.0.1:{served.port}")
    tried: Counter[str] = Counter()
    statuses: Counter[int] = Counter()
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path in ("/openapi.json", "/docs", "/metrics"):
            continue

        @hypothesis.given(case=operation.as_strategy())
        @hypothesis.settings(
            max_examples=EXAMPLES_PER_OPERATION,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        def attempt(case: Any) -> None:
            response = case.call(headers={"Authorization": f"Bearer {served.key}"})
            tried[case.operation.label] += 1
            statuses[response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        attempt()

    assert len(tried) >= 15
    # It got past the door, and was refused there and behind it.
    assert {200, 201, 400, 404, 422} <= set(statuses)
