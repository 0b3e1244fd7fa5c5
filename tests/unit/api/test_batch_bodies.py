"""A batch read all at once: what it takes, and that it finds in it what reading task by task does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from howdah.api import bodies
from howdah.api.problems import Problem
from howdah.api.shapes import TaskCreate
from howdah.core.addresses import AddressPolicy
from tests.task_vectors import ACCEPTED, PAYLOADS, REFUSED

BYTES_MAX = 262_144
CLOSED = AddressPolicy()
GOOD = '{"queue": "q", "handler": "h", "payload": [1, {"a": ":"}]}'

texts = st.one_of(
    st.sampled_from([*ACCEPTED, *(refused.text for refused in REFUSED), "5", "null", "[]", "{}", GOOD]),
    st.builds(
        '{{"queue": "q", "handler": "h", {}: {}}}'.format,
        st.sampled_from(['"payload"', '"queue"', '"qu\\u0065ue"', '"priority"', '"traceparent"', '"x"', '"a:b"']),
        st.sampled_from([*PAYLOADS, '"q"', '"low"', '"a:b"', '"\\u0000"', '"\\ud800"', "NaN", "1e999"]),
    ),
)
ends = st.sampled_from(["", ', "atomic": true', ', "atomic": true, "atomic": true', ', "x": 1', ', "atomic": 1', ","])


def read(body: bytes, *, whole: bool) -> Any:
    """Read a batch, or have it read task by task; what comes out, or the problem."""
    read_sound = bodies._read_sound_batch
    with pytest.MonkeyPatch.context() as patch:
        if not whole:
            patch.setattr(bodies, "_read_sound_batch", lambda *_: None)
        try:
            items, is_atomic = bodies.read_batch(body, BYTES_MAX, CLOSED)
        except Problem as problem:
            return str(problem), problem.errors
    assert bodies._read_sound_batch is read_sound
    return [(str(item), item.errors) if isinstance(item, Problem) else item for item in items], is_atomic


@given(tasks=st.lists(texts, max_size=4), end=ends)
@example(tasks=[GOOD] * 1_001, end="")
@example(tasks=[GOOD[:-1] + ', "payload": 1}'], end="")
@example(tasks=['{"queue": "q", "handler": "h", "payload": ' + "[" * 2_000 + "]" * 2_000 + "}"], end="")
def test_batch_read_at_once_is_what_reading_task_by_task_gives(tasks: list[str], end: str) -> None:
    """Same tasks, same payloads, same problems, whatever is wrong with which of them."""
    body = f'{{"tasks": [{", ".join(tasks)}]{end}}}'.encode()

    assert read(body, whole=True) == read(body, whole=False)


@pytest.mark.parametrize("payload", [payload for payload in PAYLOADS if len(payload) < 1_000 and "0000" not in payload])
def test_sound_batch_of_flat_tasks_is_read_at_once(payload: str) -> None:
    """What most batches are takes the fast way, whatever their payloads hold."""
    tasks = [f'{{"queue":"q", "payload" : {payload} ,"handler":"h", "priority": "low", "delay": "5m"}}'] * 3
    read_all = bodies._read_sound_batch(f'{{"tasks": [{",".join(tasks)}]}}'.encode(), BYTES_MAX)

    assert read_all == ([(TaskCreate("q", "h", priority="low", delay="5m"), payload.encode())] * 3, False)


def test_depth_of_a_batch_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand payloads full of brackets, a look at each would hold all other requests up for seconds."""
    looks: list[int] = []
    is_deeper = bodies._is_deeper

    def look(body: bytes, depth_max: int) -> bool:
        looks.append(len(body))
        return is_deeper(body, depth_max)

    monkeypatch.setattr(bodies, "_is_deeper", look)
    tasks = [f'{{"queue": "q", "handler": "h", "payload": [{",".join(["[]"] * 100)}]}}'] * 50
    items, _ = bodies.read_batch(f'{{"tasks": [{",".join(tasks)}]}}'.encode(), BYTES_MAX, CLOSED)

    assert len(items) == 50
    assert len(looks) == 1


def test_payload_null_of_a_batch_is_no_payload() -> None:
    """As everywhere."""
    [item], _ = bodies.read_batch(
        json.dumps({"tasks": [{"queue": "q", "handler": "h", "payload": None}]}).encode(), 9, CLOSED
    )

    assert item == (TaskCreate("q", "h"), None)
