"""What a body has to pass before anything looks at it."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from howdah.api.bodies import BATCH_DEPTH_MAX, TASK_DEPTH_MAX, read, read_batch, read_task
from howdah.api.problems import Problem
from howdah.api.shapes import Cancel
from howdah.core.addresses import AddressPolicy

BYTES_MAX = 262_144
CLOSED = AddressPolicy()

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
).filter(lambda value: "\\ud" not in json.dumps(value).lower() or "\\u" not in json.dumps(value, ensure_ascii=True))


def task(payload: str, **fields: Any) -> bytes:
    """The JSON of a task with this text as its payload."""
    written = json.dumps({"queue": "q", "handler": "h", **fields})
    return f'{written[:-1]}, "payload": {payload}}}'.encode()


@given(value=json_values, indent=st.sampled_from([None, 0, 3]), is_ascii=st.booleans())
def test_payload_comes_out_as_it_went_in(value: Any, indent: int | None, is_ascii: bool) -> None:
    """Any JSON value, however it is written, is kept byte for byte."""
    text = json.dumps(value, indent=indent, ensure_ascii=is_ascii)
    _, payload = read_task(task(text), BYTES_MAX, CLOSED)

    assert payload == (None if value is None else text.encode())


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@example(b"{}")
@example(b"[" * 100)
@example(b'{"queue": ' + b'"' * 99)
@example(b'{"queue":"q","handler":"h","tags":null}')
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """Whatever is sent: a task, or a problem of the client's; never another exception."""
    problems = []
    readings: list[Any] = [partial(read_task, body, BYTES_MAX, CLOSED), partial(read_batch, body, BYTES_MAX, CLOSED)]
    for reading in (*readings, partial(read, body, Cancel)):
        try:
            reading()
        except Problem as problem:
            problems.append(problem)

    assert {problem.status for problem in problems} <= {400, 413, 422}


@pytest.mark.parametrize("wrapped", ["[{}]", '{{"a": {}}}', '[[], {{"b": [{}]}}]'])
def test_depth_is_counted_to_the_level(wrapped: str) -> None:
    """A payload of 64 levels passes, single and in a batch; one of 65 does not."""
    levels = wrapped.format("").count("[") + wrapped.format("").count("{") - ("[]," in wrapped)
    text = "1"
    for _ in range(64 // levels):
        text = wrapped.format(text)
    text = "[" * (64 % levels) + text + "]" * (64 % levels)
    batch = b'{"tasks": [%b]}'

    assert read_task(task(text), BYTES_MAX, CLOSED)[1] == text.encode()
    assert not isinstance(read_batch(batch % task(text), BYTES_MAX, CLOSED)[0][0], Problem)
    too_deep = task(f"[{text}]")
    for reading in (
        partial(read_task, too_deep, BYTES_MAX, CLOSED),
        partial(read_batch, batch % too_deep, BYTES_MAX, CLOSED),
    ):
        with pytest.raises(Problem, match="json_too_deep"):
            reading()
    assert (TASK_DEPTH_MAX, BATCH_DEPTH_MAX) == (65, 67)


def test_depth_behind_many_brackets_is_found() -> None:
    """What is nested late in a wide payload is nested all the same; brackets in texts are none."""
    wide = "[" + "[]," * 10_000 + "{}]"
    texts = "[" + '"[[",' * 10_000 + '"]"]'
    deep = "[" * 65 + "]" * 65

    assert read_task(task(wide), BYTES_MAX, CLOSED)[1] == wide.encode()
    assert read_task(task(texts), BYTES_MAX, CLOSED)[1] == texts.encode()
    with pytest.raises(Problem, match="json_too_deep"):
        read_task(task(f"{wide[:-1]}, {deep}]"), BYTES_MAX, CLOSED)


@given(
    payload=json_values,
    broken=st.sampled_from(["NaN", '"\\ud800"', '"\t"', "1e999", "[" * 70, "'"]),
    fields=st.dictionaries(st.sampled_from(["queue", "priority", "tags"]), json_values),
    place=st.integers(0, 3),
)
def test_fault_inside_a_payload_points_at_the_payload(
    payload: Any, broken: str, fields: dict[str, Any], place: int
) -> None:
    """Whatever else a batch holds, what is no JSON, or too deep, is found in the payload that has it."""
    head = json.dumps({"handler": "h", **fields})[:-1]
    bad = f'{head}, "payload": [{json.dumps(payload)}, {broken}]}}'
    tasks = [task(json.dumps(payload)).decode() for _ in range(3)]
    tasks.insert(place, bad)
    with pytest.raises(Problem) as single:
        read_task(bad.encode(), BYTES_MAX, CLOSED)
    with pytest.raises(Problem) as batch:
        read_batch(f'{{"atomic": true, "tasks": [{", ".join(tasks)}]}}'.encode(), BYTES_MAX, CLOSED)

    assert single.value.errors[0].pointer == "/payload"
    assert batch.value.errors[0].pointer == f"/tasks/{place}/payload"


@given(
    keys=st.lists(st.sampled_from(["queue", "handler", "priority", "delay"]), min_size=2, max_size=5),
    colons=st.text(alphabet=':\\"x', max_size=5),
    payload=json_values,
)
def test_a_field_given_twice_is_found_whatever_the_rest_is(keys: list[str], colons: str, payload: Any) -> None:
    """Refused as duplicate exactly if a field is given twice, whatever colons and escapes are around it."""
    values = {"queue": "q", "handler": "h", "priority": "low", "delay": "1s"}
    parts = [f"{json.dumps(key)}: {json.dumps(values[key])}" for key in keys]
    parts += [f'"tags": {json.dumps({"t": colons})}', f'"payload": {json.dumps(payload)}']
    body = f"{{{', '.join(parts)}}}".encode()
    try:
        read_task(body, BYTES_MAX, CLOSED)
        code = None
    except Problem as problem:
        code = problem.code

    assert (code == "duplicate_key") == (len(set(keys)) < len(keys) and "queue" in keys)


def test_batch_names_the_place_of_each_problem() -> None:
    """Problems of single tasks do not spoil the batch, and point into the body as it was sent."""
    good = task("1")
    items, is_atomic = read_batch(
        b'{"atomic": true, "tasks": [%b, {"queue": 1}, 5, {"queue": "q", "tags": {"a": 1}}]}' % good, BYTES_MAX, CLOSED
    )
    problems = [item for item in items if isinstance(item, Problem)]

    assert is_atomic
    assert not isinstance(items[0], Problem)
    assert [problem.errors[0].pointer for problem in problems] == ["/tasks/1/queue", "/tasks/2", "/tasks/3/tags/a"]
