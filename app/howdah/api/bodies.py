"""JSON at the door: what every body has to pass before anything looks at it.

In this order: depth, before any parser recurses; the grammar, with strict UTF-8,
no NaN, no number that a double cannot hold, no lone surrogates; no field twice
outside of payloads; names and types of fields; where a callback would go. A
payload is never decoded: it stays the bytes that came.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec
import orjson

from howdah.api.allowed import expectation
from howdah.api.batch_shapes import BatchOpenEnvelope
from howdah.api.callback_shapes import CallbackComplete
from howdah.api.problems import Fault, Problem, invalid
from howdah.api.shapes import BatchCreate, BatchEnvelope, FollowUp, TaskCreate
from howdah.core.addresses import check_url
from howdah.core.errors import Refused
from howdah.core.pointer import escape, fault_of, pointer_at, unescape

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    from howdah.api.operation_shapes import Edits
    from howdah.core.addresses import AddressPolicy

T = TypeVar("T")


class _WithRuns(Protocol):
    runs: list[msgspec.Raw]


RunsT = TypeVar("RunsT", bound=_WithRuns)

PAYLOAD_DEPTH_MAX: Final = 64
# A payload lies one level deep in a task and three in a batch of tasks.
TASK_DEPTH_MAX: Final = PAYLOAD_DEPTH_MAX + 1
BATCH_DEPTH_MAX: Final = PAYLOAD_DEPTH_MAX + 3
# Among the edits of many dead letters.
EDITS_DEPTH_MAX: Final = PAYLOAD_DEPTH_MAX + 2
BATCH_TASKS_MAX: Final = 1_000
# Of a task, those of its follow-ups among them.
FOLLOW_UPS_MAX: Final = 32

# Runs of plain characters are one step each: character by character it takes 2.5 times as long.
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
# About 1 ms.
_WALKED_TOKENS: Final = 5_000
_TO_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))

# Parts that clients choose all of.
_OPAQUE: Final = frozenset({"payload", "result"})
_decode_task: Final = msgspec.json.Decoder(TaskCreate).decode
_decode_batch: Final = msgspec.json.Decoder(BatchCreate).decode
_decode_envelope: Final = msgspec.json.Decoder(BatchEnvelope).decode
_decode_opening: Final = msgspec.json.Decoder(BatchOpenEnvelope).decode
_decode_completion: Final = msgspec.json.Decoder(CallbackComplete).decode
_decoders: Final[dict[type, msgspec.json.Decoder[Any]]] = {}


def read_task(body: bytes, payload_bytes_max: int, addresses: AddressPolicy) -> tuple[TaskCreate, bytes | None]:
    """Read the body of POST /v1/tasks.

    Args:
        body: As it came.
        payload_bytes_max: Larger payloads are refused.
        addresses: Decides about the URL of a callback, as far as its text tells where it leads.

    Returns:
        The task without its payload, and the payload's bytes; None if it has none, or null.

    Raises:
        Problem: Anything is wrong with it, apart from values that PostgreSQL judges.
    """
    return _task(body, _parse(body, TASK_DEPTH_MAX), payload_bytes_max, addresses, "")


def read_batch(
    body: bytes, payload_bytes_max: int, addresses: AddressPolicy
) -> tuple[list[tuple[TaskCreate, bytes | None] | Problem], bool]:
    """Read the body of POST /v1/tasks/batch; what it takes is what `read_task` takes.

    Returns:
        For each task what `read_task` returns, or its problem; and whether all shall be stored or none.

    Raises:
        Problem: The body as a whole is wrong.
    """
    sound = _read_sound_batch(body, payload_bytes_max)
    if sound is not None:
        return sound
    parsed = _parse(body, BATCH_DEPTH_MAX)
    envelope = _typed(BatchEnvelope, _decode_envelope, body, parsed, "")
    _refuse_duplicates(body, parsed, envelope.tasks, depth=1)
    count = len(envelope.tasks)
    if not 1 <= count <= BATCH_TASKS_MAX:
        raise invalid("/tasks", f"must have 1 to {BATCH_TASKS_MAX} items, not {count}")
    items: list[tuple[TaskCreate, bytes | None] | Problem] = []
    for index, (raw, task) in enumerate(zip(envelope.tasks, parsed["tasks"], strict=True)):
        try:
            items.append(_task(bytes(raw), task, payload_bytes_max, addresses, f"/tasks/{index}"))
        except Problem as problem:
            items.append(problem)
    return items, envelope.atomic


def _read_sound_batch(
    body: bytes, payload_bytes_max: int
) -> tuple[list[tuple[TaskCreate, bytes | None] | Problem], bool] | None:
    """Read a batch of flat tasks in which nothing is wrong, all at once; None if something may be, or may not.

    The same checks one after the other, of each task by itself, take three times as long.
    """
    try:
        # Both parsers give up where they would go too deep for the stack.
        parsed, batch = orjson.loads(body), _decode_batch(body)
    except (orjson.JSONDecodeError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not 1 <= len(batch.tasks) <= BATCH_TASKS_MAX or b"\\u0000" in body:
        return None
    items: list[tuple[TaskCreate, bytes | None] | Problem] = []
    # As in `_refuse_duplicates`. Pairs inside of http, retry, flow and tags are not counted, so tasks with them fail.
    colons = body.count(b":") - len(parsed) - sum(map(len, parsed["tasks"]))
    may_be_deep = False
    for index, task in enumerate(batch.tasks):
        payload = None
        if task.payload is not msgspec.UNSET:
            payload = bytes(task.payload)
            task.payload = msgspec.UNSET
            colons -= payload.count(b":")
            if len(payload) > payload_bytes_max:
                return None
            may_be_deep |= payload.count(b"[") + payload.count(b"{") > PAYLOAD_DEPTH_MAX
        if task.http is not msgspec.UNSET:
            return None
        if task.dedup is not msgspec.UNSET:
            if b"\\" in body:
                return None
            colons -= len(parsed["tasks"][index]["dedup"]) + task.dedup.key.count(":")
        items.append((task, None if payload == b"null" else payload))
    # One look at all of them: a look at each takes up to 2 ms, of a thousand that would be seconds.
    if colons > 0 or (may_be_deep and _is_too_deep(body, BATCH_DEPTH_MAX)):
        return None
    return items, batch.atomic


def read_opening(
    body: bytes, payload_bytes_max: int, addresses: AddressPolicy
) -> tuple[BatchOpenEnvelope, list[tuple[TaskCreate, bytes | None] | Problem]]:
    """Read the body of POST /v1/batches; what its tasks take is what `read_task` takes.

    Returns:
        The whole, and for each task what `read_task` returns, or its problem.

    Raises:
        Problem: The body as a whole is wrong, or one of its follow-ups.
    """
    parsed = _parse(body, BATCH_DEPTH_MAX)
    opening: BatchOpenEnvelope = _typed(BatchOpenEnvelope, _decode_opening, body, parsed, "")
    followers = list(_followers(opening))
    payloads = [each.payload for each, _ in followers if each.payload is not msgspec.UNSET]
    _refuse_duplicates(body, parsed, [*opening.tasks, *payloads], depth=PAYLOAD_DEPTH_MAX)
    _refuse_nul(body, {**parsed, "tasks": None}, "")
    for each, place in followers:
        _check(each, None if each.payload is msgspec.UNSET else each.payload, payload_bytes_max, addresses, place)
    count = len(opening.tasks)
    if count > BATCH_TASKS_MAX or not (count or opening.open):
        raise invalid("/tasks", f"must have 1 to {BATCH_TASKS_MAX} items, or none if open is true; not {count}")
    items: list[tuple[TaskCreate, bytes | None] | Problem] = []
    for index, (raw, parsed_task) in enumerate(zip(opening.tasks, parsed.get("tasks", ()), strict=True)):
        try:
            task, payload = _task(bytes(raw), parsed_task, payload_bytes_max, addresses, f"/tasks/{index}")
            if task.batch is not msgspec.UNSET:
                raise invalid(f"/tasks/{index}/batch", "is the one that is opened here: leave it out")
            items.append((task, payload))
        except Problem as problem:
            items.append(problem)
    return opening, items


def _followers(opening: BatchOpenEnvelope) -> Iterator[tuple[FollowUp, str]]:
    """Yield the follow-ups of a batch, and theirs, with the place of each."""
    for name in ("on_complete", "on_success", "on_failure"):
        follow_up = getattr(opening, name)
        if follow_up is not msgspec.UNSET:
            yield follow_up, f"/{name}"
            yield from _follow_ups(follow_up, f"/{name}")


def read_completion(body: bytes, result_bytes_max: int) -> tuple[bytes | None, Sequence[msgspec.Raw]]:
    """Read the body of a callback's `complete`; its result takes what a payload does.

    Returns:
        The result's bytes, None if there is none, or null; and the tasks that it enqueues, for `read_enqueued`.

    Raises:
        Problem: Anything is wrong with it.
    """
    parsed = _parse(body, TASK_DEPTH_MAX)
    completion: CallbackComplete = _typed(CallbackComplete, _decode_completion, body, parsed, "")
    enqueued = [] if completion.enqueue is msgspec.UNSET else completion.enqueue
    if completion.result is msgspec.UNSET:
        _refuse_duplicates(body, parsed, enqueued)
        return None, enqueued
    result = bytes(completion.result)
    # What pairs the result has is its own business.
    _refuse_duplicates(body, {**parsed, "result": None}, [result, *enqueued], depth=1)
    if len(result) > result_bytes_max:
        raise invalid("/result", f"must be at most {result_bytes_max} bytes", "payload_too_large")
    _refuse_nul(body, parsed, "", opaque=frozenset())
    return None if result == b"null" else result, enqueued


def read(body: bytes, shape: type[T]) -> T:
    """Read any other body into the struct that it must fit.

    Raises:
        Problem: It does not.
    """
    return _read(body, shape, PAYLOAD_DEPTH_MAX)


def read_edited(body: bytes, shape: type[T]) -> T:
    """Read a body that may hold a payload among edits into the struct that it must fit; see `check_edits`.

    Raises:
        Problem: It does not.
    """
    return _read(body, shape, EDITS_DEPTH_MAX)


def read_enqueued(
    items: Sequence[msgspec.Raw], payload_bytes_max: int, addresses: AddressPolicy, place: str
) -> list[tuple[TaskCreate, bytes | None]]:
    """Read the tasks that a consumer or receiver enqueues with its outcome; each takes what `read_task` takes.

    Args:
        items: Out of a body whose depth and grammar were checked.
        payload_bytes_max: Larger payloads are refused.
        addresses: Decides about the URL of a callback, as far as its text tells where it leads.
        place: Where they stand in the body.

    Raises:
        Problem: Anything is wrong with one, apart from values that PostgreSQL judges.
    """
    if len(items) > BATCH_TASKS_MAX:
        raise invalid(place, f"must have at most {BATCH_TASKS_MAX} items, not {len(items)}")
    return [
        _task(bytes(item), orjson.loads(bytes(item)), payload_bytes_max, addresses, f"{place}/{index}")
        for index, item in enumerate(items)
    ]


def check_edits(edits: Edits, payload_bytes_max: int, addresses: AddressPolicy, prefix: str) -> None:
    """Check the payload and the URL among edits as those of a task are.

    Args:
        edits: As they were read.
        payload_bytes_max: Larger payloads are refused.
        addresses: Decides about the URL of a callback, as far as its text tells where it leads.
        prefix: Where the edits stand in the body.

    Raises:
        Problem: Something is wrong with them, apart from values that PostgreSQL judges.
    """
    if edits.payload is not msgspec.UNSET and len(bytes(edits.payload)) > payload_bytes_max:
        raise invalid(f"{prefix}/payload", f"must be at most {payload_bytes_max} bytes", "payload_too_large")
    if edits.http is not msgspec.UNSET:
        found = check_url(edits.http.url, addresses, f"{prefix}/http/url")
        if isinstance(found, Refused):
            raise invalid(found.pointer, found.detail, found.code)


def _read(body: bytes, shape: type[T], depth_max: int) -> T:
    decoder = _decoders.get(shape)
    if decoder is None:
        decoder = _decoders[shape] = msgspec.json.Decoder(shape)
    parsed = _parse(body, depth_max)
    value: T = _typed(shape, decoder.decode, body, parsed, "")
    _refuse_duplicates(body, parsed)
    _refuse_nul(body, parsed, "")
    return value


def read_runs(body: bytes, shape: type[RunsT], item_shape: type[T]) -> tuple[RunsT, list[T | Problem]]:
    """Read a body with a list of `runs`, each of which fails by itself.

    Args:
        body: As it came.
        shape: Of the whole; its `runs` are `Raw`.
        item_shape: Of each of them; a field `result` stays the bytes that came.

    Returns:
        The whole, and each run or its problem.

    Raises:
        Problem: The body as a whole is wrong.
    """
    parsed = _parse(body, BATCH_DEPTH_MAX)
    whole: RunsT = _typed(shape, _decoder(shape).decode, body, parsed, "")
    _refuse_duplicates(body, parsed, whole.runs, depth=1)
    count = len(whole.runs)
    if not 1 <= count <= BATCH_TASKS_MAX:
        raise invalid("/runs", f"must have 1 to {BATCH_TASKS_MAX} items, not {count}")
    decode = _decoder(item_shape).decode
    items: list[T | Problem] = []
    for index, (raw, run) in enumerate(zip(whole.runs, parsed["runs"], strict=True)):
        try:
            items.append(_run(bytes(raw), run, item_shape, decode, f"/runs/{index}"))
        except Problem as problem:
            items.append(problem)
    return whole, items


def _run(body: bytes, parsed: Any, shape: type[T], decode: Any, prefix: str) -> T:
    run: T = _typed(shape, decode, body, parsed, prefix)
    result, enqueued = getattr(run, "result", msgspec.UNSET), getattr(run, "enqueue", msgspec.UNSET)
    # The tasks that it enqueues are looked at one by one.
    opaque = [*([] if result is msgspec.UNSET else [result]), *([] if enqueued is msgspec.UNSET else enqueued)]
    _refuse_duplicates(body, parsed, opaque, prefix)
    _refuse_nul(body, parsed, prefix)
    return run


def _decoder(shape: type) -> msgspec.json.Decoder[Any]:
    decoder = _decoders.get(shape)
    if decoder is None:
        decoder = _decoders[shape] = msgspec.json.Decoder(shape)
    return decoder


def _task(
    body: bytes, parsed: Any, payload_bytes_max: int, addresses: AddressPolicy, prefix: str
) -> tuple[TaskCreate, bytes | None]:
    task: TaskCreate = _typed(TaskCreate, _decode_task, body, parsed, prefix)
    payload = None
    if task.payload is not msgspec.UNSET:
        payload = bytes(task.payload)
        task.payload = msgspec.UNSET
    if task.on_success is not msgspec.UNSET or task.on_failure is not msgspec.UNSET:
        followers = list(_follow_ups(task, prefix))
        if len(followers) > FOLLOW_UPS_MAX:
            raise invalid(prefix, f"must have at most {FOLLOW_UPS_MAX} follow-ups in all")
        payloads = [each.payload for each, _ in followers if each.payload is not msgspec.UNSET]
        payloads += [] if payload is None else [msgspec.Raw(payload)]
        _refuse_duplicates(body, parsed, payloads, prefix, depth=PAYLOAD_DEPTH_MAX)
        for each, place in followers:
            _check(each, None if each.payload is msgspec.UNSET else each.payload, payload_bytes_max, addresses, place)
    else:
        _refuse_duplicates(body, parsed, [] if payload is None else [payload], prefix)
    _refuse_nul(body, parsed, prefix)
    _check(task, payload, payload_bytes_max, addresses, prefix)
    return task, None if payload == b"null" else payload


def _follow_ups(task: FollowUp, place: str) -> Iterator[tuple[FollowUp, str]]:
    """Yield the follow-ups of a task, and theirs, with the place of each."""
    for name, follow_up in (("on_success", task.on_success), ("on_failure", task.on_failure)):
        if follow_up is not msgspec.UNSET:
            yield follow_up, f"{place}/{name}"
            yield from _follow_ups(follow_up, f"{place}/{name}")


def _check(
    task: FollowUp, payload: bytes | msgspec.Raw | None, payload_bytes_max: int, addresses: AddressPolicy, place: str
) -> None:
    if payload is not None and len(bytes(payload)) > payload_bytes_max:
        raise invalid(f"{place}/payload", f"must be at most {payload_bytes_max} bytes", "payload_too_large")
    if task.http is not msgspec.UNSET:
        found = check_url(task.http.url, addresses, f"{place}/http/url")
        if isinstance(found, Refused):
            raise invalid(found.pointer, found.detail, found.code)


def _parse(body: bytes, depth_max: int) -> Any:
    """Check depth and grammar; the result tells about keys, its values are not used."""
    if _is_too_deep(body, depth_max):
        raise invalid(
            pointer_at(body, level=depth_max),
            f"must be nested at most {PAYLOAD_DEPTH_MAX} levels deep",
            "json_too_deep",
        )
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _malformed(body, error) from None


def _malformed(body: bytes, error: orjson.JSONDecodeError) -> Problem:
    """Say what is wrong with a body that is no JSON, and in which field, if one can be told."""
    said = error.msg
    try:
        offset = len(body.decode()[: error.pos].encode())
    except UnicodeDecodeError as undecodable:
        said, offset = "is not valid UTF-8", undecodable.start
    where = pointer_at(body, offset=offset)
    detail = f"The body is not valid JSON at byte {offset}{f' ({where})' if where else ''}: {said}."
    return Problem("invalid_json", detail, [Fault(said, pointer=where)])


def _is_too_deep(body: bytes, depth_max: int) -> bool:
    return body.count(b"[") + body.count(b"{") > depth_max and _is_deeper(body, depth_max)


def _is_deeper(body: bytes, depth_max: int) -> bool:
    """Tell whether well-formed JSON is nested deeper than that; of malformed JSON a guess is good enough.

    A walk over the first brackets finds whatever goes down at once. Of the rest, innermost
    pairs are taken away level by level, in C: a walk over 1 MiB of brackets would take 70 ms.
    """
    level = 0
    for count, token in enumerate(_TOKEN.finditer(body)):
        first = body[token.start()]
        level += (first in b"[{") - (first in b"]}")
        if level > depth_max:
            return True
        if count == _WALKED_TOKENS:
            break
    else:
        return False
    brackets = _STRING.sub(b"", body).translate(_TO_SQUARE, _NOT_BRACKETS)
    for _ in range(depth_max):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    # Unbalanced brackets leave a rest as well; so shallow, the parser may name what is wrong.
    return b"[" * (depth_max + 1) in brackets or b"[]" in brackets


def _typed(shape: type, decode: Any, body: bytes, parsed: Any, prefix: str) -> Any:
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        pointer = _member_at_fault(parsed, fault_of(error)[0])
        raise invalid(prefix + pointer, expectation(shape, pointer, _value_at(parsed, pointer))) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid(prefix, f"is not valid JSON: {error}", "invalid_json") from None


def _member_at_fault(parsed: Any, pointer: str) -> str:
    """Complete the pointer to a free mapping of texts (tags, headers), of which msgspec names no member."""
    value = _value_at(parsed, pointer)
    if pointer.endswith(("/tags", "/headers")) and isinstance(value, dict):
        return next((f"{pointer}/{escape(key)}" for key, part in value.items() if not isinstance(part, str)), pointer)
    return pointer


def _value_at(parsed: Any, pointer: str) -> Any:
    """Return what stands at a place; `UNSET` if nothing does, or if a field on the way is given twice."""
    value = parsed
    for token in map(unescape, pointer.split("/")[1:]):
        if isinstance(value, dict):
            value = value.get(token, msgspec.UNSET)
        elif isinstance(value, list) and token.isdecimal() and int(token) < len(value):
            value = value[int(token)]
        else:
            return msgspec.UNSET
    return value


class _Twice(dict[str, Any]):
    """An object with a key that is given twice."""

    key = ""


def _pairs(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    twice, seen = _Twice(made), set()
    for key, _ in pairs:
        if key in seen:
            twice.key = key
        seen.add(key)
    return twice


def _refuse_duplicates(
    body: bytes, parsed: dict[str, Any], opaque: Sequence[Any] = (), prefix: str = "", *, depth: int = 3
) -> None:
    """Refuse a key that is given twice: the last one counts for us, the first one may count for a proxy before us.

    Every pair has a colon. If there are no more colons outside of the opaque parts than pairs
    and colons in URL and run_at, no pair can have been swallowed; else a slower parser tells.
    """
    colons = body.count(b":")
    escapes = body.count(b"\\")
    for part in map(bytes, opaque):
        colons -= part.count(b":")
        escapes -= part.count(b"\\")
    pairs = _pair_count(parsed)
    if not escapes:
        http, run_at = parsed.get("http"), parsed.get("run_at")
        pairs += http["url"].count(":") if isinstance(http, dict) else 0
        pairs += run_at.count(":") if isinstance(run_at, str) else 0
    if colons > pairs:
        _find_duplicate(json.loads(body, object_pairs_hook=_pairs), prefix, depth)


def _pair_count(parsed: dict[str, Any]) -> int:
    count = len(parsed)
    for key, value in parsed.items():
        if type(value) is dict and key not in _OPAQUE:
            count += _pair_count(value)
    return count


def _find_duplicate(value: Any, pointer: str, depth: int) -> None:
    if not isinstance(value, dict):
        return
    if isinstance(value, _Twice):
        where = f"{pointer}/{escape(value.key)}"
        raise Problem("duplicate_key", f"{where} is given twice", [Fault("is given twice", pointer=where)])
    for key, part in value.items():
        if depth > 1 and key not in _OPAQUE:
            _find_duplicate(part, f"{pointer}/{escape(key)}", depth - 1)


def _refuse_nul(body: bytes, parsed: dict[str, Any], prefix: str, opaque: Container[str] = _OPAQUE) -> None:
    """Refuse NUL in texts outside of the payload: PostgreSQL cannot store it (of payloads, it says so itself)."""
    if b"\\u0000" not in body:
        return
    for pointer, text in _texts({key: part for key, part in parsed.items() if key not in opaque}, prefix):
        if "\0" in text:
            raise invalid(pointer, "must not contain \\u0000")


def _texts(value: Any, pointer: str) -> list[tuple[str, str]]:
    if isinstance(value, str):
        return [(pointer, value)]
    found: list[tuple[str, str]] = []
    if isinstance(value, dict):
        for key, part in value.items():
            found += [(pointer, key), *_texts(part, f"{pointer}/{escape(key)}")]
    elif isinstance(value, list):
        for index, part in enumerate(value):
            found += _texts(part, f"{pointer}/{index}")
    return found
