"""Health, readiness, metrics and the log of an API process."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from tests.fix_api import TASK, Api, serving

if TYPE_CHECKING:
    import pytest

import pytest

pytestmark = pytest.mark.one_server


async def test_health_needs_no_key(api: Api) -> None:
    """Probes and scrapers have none."""
    answers = [await api.get(path, key="") for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs")]

    assert {answer.status_code for answer in answers} == {200}
    assert answers[0].json() == {"status": "ok"}
    assert answers[1].json() == {
        "ready": True,
        "checks": {"database": "ok", "loops": "ok"},
        "warnings": {},
    }


async def test_lossy_commit_is_shown_as_long_as_it_lasts(database: str) -> None:
    """A server that may lose acknowledged tasks is served only if allowed, and never in silence."""
    lossy = f"{database}&options=-c%20synchronous_commit%3Doff"
    async with serving(lossy, HOWDAH_ALLOW_LOSSY_COMMIT="1") as api:
        answer = await api.get("/readyz")

    assert answer.status_code == 200
    assert "synchronous_commit" in answer.json()["warnings"]["durability"]


async def test_metrics_count_requests_by_route_and_creates_by_kind(api: Api) -> None:
    """Labels are templates of paths and known methods, whatever strangers send."""

    async def read() -> dict[tuple[str, ...], float]:
        families = text_string_to_metric_families((await api.get("/metrics")).text)
        return {
            (sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples
        }

    before = await read()
    task = await api.create()
    await api.post("/v1/tasks/batch", {"tasks": [TASK] * 3})
    await api.get(f"/v1/tasks/{task['id']}")
    await api.get("/nowhere/at/all")
    await api.request("TRACE", "/v1/tasks")
    after = await read()

    def added(*name: str) -> float:
        [found] = [key for key in after if sorted(key) == sorted(name)]
        return after[found] - before.get(found, 0.0)

    assert added("howdah_tasks_enqueued_total", "single") == 1
    assert added("howdah_tasks_enqueued_total", "batch") == 3
    assert added("howdah_http_requests_total", "/v1/tasks/{id}", "GET", "200") == 1
    assert added("howdah_http_requests_total", "unmatched", "GET", "404") >= 1
    assert added("howdah_http_requests_total", "/v1/tasks", "other", "405") == 1


async def test_each_request_leaves_one_line_in_the_log(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """With its id, route, status, tenant and task; never with the key or the payload."""
    with caplog.at_level(logging.INFO, logger="howdah.api.middleware"):
        created = await api.post("/v1/tasks", {**TASK, "payload": "s3cret"}, X_Request_Id="request-0001")
        await api.get("/v1/nothing")
    lines = [record.fields for record in caplog.records if record.message == "request_answered"]

    assert len(lines) == 2
    assert lines[0] | {"duration_ms": 0} == {
        "request_id": "request-0001",
        "method": "POST",
        "route": "/v1/tasks",
        "status": 201,
        "duration_ms": 0,
        "tenant": "default",
        "key": api.key[4:16],
        "task_id": created.json()["id"],
    }
    assert (lines[1]["status"], lines[1]["path"]) == (404, "/v1/nothing")
    assert "s3cret" not in caplog.text
    assert api.key[17:] not in str(lines)
