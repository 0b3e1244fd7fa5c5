"""What the time of a 401 tells a stranger: nothing, since every wrong key takes the same steps."""

from __future__ import annotations

import gc
import hmac
import random
import statistics
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from howdah.api import auth
from howdah.api.problems import Problem
from howdah.core.credentials import hash_secret, make_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fix_api import Api

pytestmark = pytest.mark.one_server

SAMPLES: Final = 10_000
# Of medians. Measured among wrong keys on a busy machine: 1.00 to 1.02. Without hash and comparison: 1.83.
RATIO_MAX: Final = 1.05
ROUNDS: Final = 10


async def wrong_keys(api: Api) -> dict[str, str]:
    """One key of each way to be wrong that nobody may tell from the others."""
    revoked, expired = await api.make_key("admin"), await api.make_key("admin")
    await api.sql("UPDATE howdah.api_keys SET revoked_at = now() WHERE id = %s", revoked[4:16])
    await api.sql("UPDATE howdah.api_keys SET expires_at = now() WHERE id = %s", expired[4:16])
    head, first, middle, last = api.key[:17], api.key[17], api.key[18:-1], api.key[-1]
    return {
        "unknown": make_key().text,
        "first character": head + ("A" if first != "A" else "B") + middle + last,
        "last character": head + first + middle + ("A" if last != "A" else "B"),
        "revoked": revoked,
        "expired": expired,
    }


def headers(key: str) -> dict[bytes, bytes]:
    """What a request with a key brings."""
    return {b"authorization": b"Bearer " + key.encode()}


async def test_every_wrong_key_takes_the_steps_of_a_right_one(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """B32: at first one lookup, later none; always one hash, and one comparison of 32 bytes in constant time."""
    steps: list[object] = []

    def note(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any) -> Any:
            steps.append((name, *(len(each) for each in args if isinstance(each, bytes))))
            return function(*args)

        return noted

    keys = api.backend.keys
    wrong = await wrong_keys(api)
    monkeypatch.setattr(keys, "_look_up", note("look up", keys._look_up))
    monkeypatch.setattr(auth, "hash_secret", note("hash", hash_secret))
    monkeypatch.setattr(hmac, "compare_digest", note("compare", hmac.compare_digest))
    taken = {}
    for name, key in {"right": await api.make_key("viewer"), **wrong}.items():
        # A key with the same id may be known already; the id alone decides.
        keys._entries.clear()
        for time_of_day in ("cold", "warm"):
            steps.clear()
            answer = await api.get("/v1/ping", key=key)
            taken[name, time_of_day] = (answer.status_code, list(steps))

    check = [("hash", 32), ("compare", 32, 32)]
    expected = {"cold": [("look up",), *check], "warm": check}
    statuses = {"right": 200, **dict.fromkeys(wrong, 401)}
    assert taken == {
        (name, when): (status, steps) for name, status in statuses.items() for when, steps in expected.items()
    }


@pytest.mark.slow
async def test_wrong_keys_cannot_be_told_apart_by_their_time(api: Api) -> None:
    """B32: the medians of 10,000 samples each, taken in turn, are within 5 %; the same instrument sees a step less.

    Noise can push medians apart for a moment, but nothing but equal work brings them together: one
    quiet round of ten is proof. What is malformed is refused without a hash, as its form is no secret.
    """
    keys = api.backend.keys
    wrong = {name: headers(key) for name, key in (await wrong_keys(api)).items()}
    for each in wrong.values():
        with pytest.raises(Problem, match="unauthorized"):
            await keys.check(each)
    malformed = {"malformed": headers(api.key[:-1])}
    # All are known for as long as this takes.
    keys._entries.update({key_id: entry._replace(until=float("inf")) for key_id, entry in keys._entries.items()})
    alike, apart = [], []
    for _ in range(ROUNDS):
        medians = _medians(keys, {**wrong, **malformed})
        fastest_wrong = min(medians[name] for name in wrong)
        alike.append(max(medians[name] for name in wrong) / fastest_wrong)
        apart.append(fastest_wrong / medians["malformed"])
        if alike[-1] <= RATIO_MAX:
            break

    assert alike[-1] <= RATIO_MAX, alike
    assert min(apart) > RATIO_MAX, apart


def _medians(keys: auth.Keys, samples: dict[str, dict[bytes, bytes]]) -> dict[str, float]:
    """Time each kind of key in turn, in an order drawn anew each time; in nanoseconds."""
    took: dict[str, list[int]] = {name: [] for name in samples}
    turns = list(samples.items())
    draw = random.Random(17)
    gc.disable()
    try:
        for _ in range(SAMPLES):
            draw.shuffle(turns)
            for name, given in turns:
                check = keys.check(given)
                began = time.perf_counter_ns()
                try:
                    check.send(None)
                except Problem:
                    took[name].append(time.perf_counter_ns() - began)
    finally:
        gc.enable()
    return {name: statistics.median(each) for name, each in took.items()}
