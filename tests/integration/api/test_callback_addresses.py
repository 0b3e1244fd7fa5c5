"""Where a callback may go, as far as its URL tells when the task is created."""

from __future__ import annotations

import pytest

from tests.fix_api import TASK, Api, assert_problem, serving

pytestmark = pytest.mark.one_server

# One address of every range that must not be reached.
SPECIAL = [
    *("127.0.0.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1"),
    *("192.0.0.1", "192.88.99.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1"),
    *("240.0.0.1", "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::8.8.8.8"),
    *("64:ff9b::8.8.8.8", "64:ff9b:1::1", "2002::1", "2001::1", "100::1", "2001:db8::1", "fc00::1", "fe80::1"),
    *("fec0::1", "ff00::1", "5f00::1", "3fff::1", "fd00:ec2::254"),
]
# 127.0.0.1 as resolvers read it, and names that mean it.
SPELLINGS = ["127.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.1.", "localhost", "LOCALHOST.", "a.localhost"]


def _hosts() -> list[str]:
    return [*(f"[{each}]" if ":" in each else each for each in SPECIAL), *SPELLINGS]


async def test_special_address_in_a_url_is_refused_at_the_door(api: Api) -> None:
    """B45, B46: 422 blocked_address at the URL, whatever the spelling, single and in a batch; nothing is stored."""
    tasks = [{"queue": "q", "http": {"url": f"http://{host}/"}} for host in _hosts()]
    for task in tasks:
        assert_problem(await api.post("/v1/tasks", task), 422, "blocked_address", ["/http/url"])
    batch = (await api.post("/v1/tasks/batch", {"tasks": tasks})).json()["results"]
    atomic = await api.post("/v1/tasks/batch", {"tasks": [TASK, tasks[0]], "atomic": True})

    assert [result["problem"]["code"] for result in batch] == ["blocked_address"] * len(tasks)
    assert [result["problem"]["errors"][0]["pointer"] for result in batch] == [
        f"/tasks/{index}/http/url" for index in range(len(tasks))
    ]
    assert_problem(atomic, 422, "blocked_address", ["/tasks/1/http/url"])
    assert await api.task_count() == 0


@pytest.mark.parametrize("host", ["8.8.8.8", "[2606:4700::1]", "[::ffff:8.8.8.8]", "example.com", "internal"])
async def test_public_addresses_and_names_are_accepted(api: Api, host: str) -> None:
    """What a name leads to is judged when it is dialled."""
    assert (await api.post("/v1/tasks", {"queue": "q", "http": {"url": f"http://{host}/"}})).status_code == 201


async def test_port_that_no_callback_may_have_is_refused(api: Api) -> None:
    """B48: where something may listen that obeys whatever it is sent."""
    for port in (0, 22, 25, 5432, 6379, 99_999):
        task = {"queue": "q", "http": {"url": f"http://example.com:{port}/"}}
        assert_problem(await api.post("/v1/tasks", task), 422, "validation", ["/http/url"])


async def test_ranges_that_the_operator_opens_are_open(database: str) -> None:
    """The setting that opens ranges to workers opens them here, and no others."""
    async with serving(database, HOWDAH_CALLBACK_ALLOW_CIDRS="127.0.0.0/8,fd00::/8") as api:
        statuses = {
            host: (await api.post("/v1/tasks", {"queue": "q", "http": {"url": f"http://{host}:8080/"}})).status_code
            for host in ("127.0.0.1", "localhost", "[fd00::1]", "[::1]", "10.0.0.1", "127.1")
        }

    assert statuses == {
        "127.0.0.1": 201,
        "localhost": 201,
        "[fd00::1]": 201,
        "[::1]": 422,
        "10.0.0.1": 422,
        "127.1": 422,
    }


async def test_sql_leaves_addresses_to_the_worker(api: Api) -> None:
    """howdah.enqueue knows no setting of the service: such a task is stored, and refused when it is to be dialled."""
    await api.sql(
        """SELECT howdah.enqueue('q', options => '{"http": {"url": "http://127.0.0.1/"}}')""",
    )

    assert await api.task_count() == 1
