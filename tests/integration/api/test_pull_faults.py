"""Processes die under consumers: leased runs come back, and whoever waits goes on."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.fix_wait import eventually

if TYPE_CHECKING:
    from tests.fix_fleet import Fleet

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(180)]


def ask(fleet: Fleet, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send a request to the newest API process."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{fleet.api_ports[-1]}{path}",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {fleet.api_key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=90) as answer:
        found: dict[str, Any] = json.loads(answer.read())
        return found


def test_runs_of_a_consumer_come_back_after_their_lease(fleet: Fleet) -> None:
    """The API is killed with runs leased over it, and their consumer is gone: another gets them when the leases end."""
    fleet.make_key()
    fleet.add_scheduler()
    api = fleet.add_api("first")
    ids = set(fleet.enqueue(20, "pulled", queue="q"))
    claim = {"handlers": ["pulled"], "max": 20, "lease": "3s", "wait": "60s"}
    first = ask(fleet, "/v1/queues/q/claim", claim)["runs"]
    # Until rescue has been well for as long as a worker's lease it waits for those that could not renew.
    eventually(
        lambda: (
            fleet.query(
                "SELECT last_good_at > howdah.now() - interval '2 s' FROM howdah.maintenance WHERE chore = 'rescue'"
            )
            == [(True,)]
        ),
        30,
        "rescue works",
    )
    api.kill()
    fleet.add_api("second")
    second: list[dict[str, Any]] = []
    began = time.monotonic()
    while len(second) < 20 and time.monotonic() - began < 60:
        second += ask(fleet, "/v1/queues/q/claim", claim)["runs"]
    leases = [{"task_id": run["task_id"], "lease_token": run["lease_token"]} for run in second]
    ends = ask(fleet, "/v1/runs/finish", {"runs": [{**lease, "outcome": "succeeded"} for lease in leases]})
    late = [{"task_id": run["task_id"], "lease_token": run["lease_token"], "outcome": "succeeded"} for run in first]

    assert {run["task_id"] for run in first} == {run["task_id"] for run in second} == ids
    assert {run["attempt"] for run in second} == {2}
    assert {result["status"] for result in ends["results"]} == {"ok"}
    assert {result["status"] for result in ask(fleet, "/v1/runs/finish", {"runs": late})["results"]} == {"lease_lost"}
    assert fleet.outcomes() == {"lost": 20, "succeeded": 20}


def test_consumers_go_on_after_postgresql_crashed(fleet: Fleet) -> None:
    """Claims are refused while it is away, and served again by the same process, to the same consumers."""
    fleet.make_key()
    fleet.add_api()
    claim = {"handlers": ["pulled"], "max": 5, "wait": "30s"}
    fleet.enqueue(5, "pulled", queue="q")
    [*before] = ask(fleet, "/v1/queues/q/claim", claim)["runs"]
    fleet.crash_server()
    fleet.enqueue(5, "pulled", queue="q")

    def served() -> list[dict[str, Any]]:
        try:
            found: list[dict[str, Any]] = ask(fleet, "/v1/queues/q/claim", claim)["runs"]
        except urllib.error.HTTPError as problem:
            with problem:
                if problem.code != 503:
                    raise
            return []
        return found

    after = eventually(served, 20, "claims are served")
    leases = [{"task_id": run["task_id"], "lease_token": run["lease_token"]} for run in [*before, *after]]
    ends = ask(fleet, "/v1/runs/finish", {"runs": [{**lease, "outcome": "succeeded"} for lease in leases]})

    assert (len(before), len(after)) == (5, 5)
    assert {result["status"] for result in ends["results"]} == {"ok"}
    assert fleet.drained()
