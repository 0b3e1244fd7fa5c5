"""Who may do what: keys, scopes, and what an answer tells a stranger."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from howdah.api.auth import CACHE_S, INCLUDED
from howdah.api.routes import OPERATIONS
from howdah.core.credentials import make_key
from tests.fix_api import TASK, Api, assert_problem
from tests.fix_wait import eventually_async


async def test_every_wrong_key_gets_the_same_answer(api: Api) -> None:
    """B31, B32: 401 with one body, whether the key is missing, malformed, unknown, wrong, revoked or expired."""
    revoked, expired = await api.make_key("admin"), await api.make_key("admin")
    await api.sql("UPDATE howdah.api_keys SET revoked_at = now() WHERE id = %s", revoked[4:16])
    await api.sql("UPDATE howdah.api_keys SET expires_at = now() WHERE id = %s", expired[4:16])
    tail = "B" if api.key[-1] == "A" else "A"
    wrong = {
        "none": None,
        "empty": "",
        "no key": "Bearer",
        "scheme": f"Basic {api.key}",
        "no scheme": api.key,
        "unknown": f"Bearer {make_key().text}",
        "wrong tail": f"Bearer {api.key[:-1]}{tail}",
        "cut": f"Bearer {api.key[:-1]}",
        "longer": f"Bearer {api.key}A",
        "upper case": f"Bearer {api.key.upper()}",
        "other environment": f"Bearer {api.key.replace('hwd', 'hwx')}",
        "two keys": f"Bearer {api.key}, Bearer {api.key}",
        "revoked": f"Bearer {revoked}",
        "expired": f"Bearer {expired}",
        "not ascii": "Bearer hwd_\xe4",
        "long": "Bearer " + "x" * 10_000,
    }
    bodies = set()
    for header in wrong.values():
        headers = {} if header is None else {"Authorization": header.encode("latin-1")}
        answer = await api.client.request("GET", "/v1/ping", headers=headers)
        assert_problem(answer, 401, "unauthorized", [])
        assert answer.headers["www-authenticate"].startswith("Bearer")
        bodies.add(answer.text.replace(answer.headers["x-request-id"], ""))

    assert len(bodies) == 1


async def test_key_in_the_query_is_never_read(api: Api) -> None:
    """B31: keys in URLs end up in logs."""
    answer = await api.client.get(f"/v1/tasks?api_key={api.key}")

    assert_problem(answer, 401, "unauthorized")


async def test_key_is_accepted_in_any_case_of_the_scheme(api: Api) -> None:
    """Schemes of HTTP know no case."""
    assert (await api.client.get("/v1/ping", headers={"Authorization": f"bearer {api.key}"})).status_code == 200


async def test_unknown_keys_are_looked_up_once_in_a_while(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """An id that does not exist is remembered like one that does: repeated, it costs no query."""
    unknown = make_key().text
    await api.get("/v1/ping", key=unknown)
    lookups = 0
    find = api.backend.keys._look_up

    async def counted(key_id: str) -> Any:
        nonlocal lookups
        lookups += 1
        return await find(key_id)

    monkeypatch.setattr(api.backend.keys, "_look_up", counted)
    answers = [await api.get("/v1/ping", key=unknown) for _ in range(20)]

    assert {answer.status_code for answer in answers} == {401}
    assert lookups == 0


async def test_requests_with_one_new_key_share_its_lookup(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst with a key that is not known yet asks PostgreSQL once."""
    key = await api.make_key("viewer")
    lookups = 0
    find = api.backend.keys._look_up

    async def counted(key_id: str) -> Any:
        nonlocal lookups
        lookups += 1
        return await find(key_id)

    monkeypatch.setattr(api.backend.keys, "_look_up", counted)
    answers = await asyncio.gather(*(api.get("/v1/ping", key=key) for _ in range(50)))

    assert {answer.status_code for answer in answers} == {200}
    assert lookups == 1


@pytest.mark.slow
async def test_revoked_key_works_no_longer_than_five_seconds(api: Api) -> None:
    """B34: within the promise the key is refused, also one that was in use all the time."""
    key = await api.make_key("viewer")
    assert (await api.get("/v1/ping", key=key)).status_code == 200
    await api.sql("UPDATE howdah.api_keys SET revoked_at = now() WHERE id = %s", key[4:16])
    began = time.monotonic()

    async def is_refused() -> bool:
        return (await api.get("/v1/ping", key=key)).status_code == 401

    await eventually_async(is_refused, 5, "the revoked key is refused")

    assert time.monotonic() - began <= CACHE_S + 1


async def test_use_of_a_key_is_recorded_to_the_minute(api: Api) -> None:
    """Operators see which keys are in use."""
    await api.get("/v1/ping")
    await api.backend.keys.touch()
    rows = await api.sql("SELECT last_used_at = date_trunc('minute', last_used_at) FROM howdah.api_keys")

    assert rows == [(True,)]


@pytest.mark.one_server
async def test_every_route_is_closed_to_keys_without_its_scope(api: Api) -> None:
    """B36: the table of routes decides; roles include others as documented, and nothing else opens a route.

    What asks for any key is open to each, also to one that may do nothing else.
    """
    keys = {scope: await api.make_key(scope) for scope in INCLUDED}
    for operation in OPERATIONS:
        path = operation.path.replace("{id}", "0198f000-0000-7000-8000-000000000000").replace("{queue}", "q")
        anonymous = await api.request(operation.method, path, {} if operation.takes else None, key="")
        assert (anonymous.status_code == 401) == (operation.scope is not None), operation.path
        for scope, key in keys.items():
            answer = await api.request(operation.method, path, {} if operation.takes else None, key=key)
            is_open = operation.scope in {None, "any"} | INCLUDED[scope]
            assert (answer.status_code != 403) == is_open, (operation.method, operation.path, scope)
            if not is_open:
                assert_problem(answer, 403, "forbidden")


async def test_lists_show_a_tenant_only_its_own(api: Api) -> None:
    """Two tenants use the same names and never meet."""
    stranger = await api.make_key("admin", tenant="other")
    mine, theirs = await api.create(queue="same"), (await api.post("/v1/tasks", TASK, key=stranger)).json()
    lists = {
        key: [
            (await api.get(path, key=key)).json()["data"]
            for path in ("/v1/tasks", "/v1/tasks?state=queued", "/v1/queues")
        ]
        for key in (api.key, stranger)
    }

    assert [[row.get("id") or row["name"] for row in rows] for rows in lists[api.key]] == [
        [mine["id"]],
        [mine["id"]],
        ["same"],
    ]
    assert [[row.get("id") or row["name"] for row in rows] for rows in lists[stranger]] == [
        [theirs["id"]],
        [theirs["id"]],
        ["q"],
    ]


async def test_callback_secret_is_the_tenants_own(api: Api) -> None:
    """An admin key reads the secret that its own tenant's callbacks are signed with."""
    stranger = await api.make_key("admin", tenant="other")
    secrets = dict(await api.sql("SELECT name, callback_secret FROM howdah.tenants"))
    answers = [(await api.get("/v1/tenant/callback-secret", key=key)) for key in (api.key, stranger)]

    assert [answer.json() for answer in answers] == [
        {"tenant": name, "callback_secret": secrets[name]} for name in ("default", "other")
    ]
    assert answers[0].headers["cache-control"] == "no-store"
