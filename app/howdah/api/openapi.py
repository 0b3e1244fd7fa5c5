"""The OpenAPI 3.1 document, made from the table of routes, the shapes and the kinds of problems."""

from __future__ import annotations

import inspect
from collections import defaultdict
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson

from howdah.api.examples import ANSWERS, FAULTS, REQUESTS, TEXTS
from howdah.api.operation_shapes import FINGERPRINT_PATTERN, DeathReason
from howdah.api.paging import LIMIT_DEFAULT, LIMIT_MAX
from howdah.api.problems import KINDS, ProblemDocument
from howdah.api.routes import OPERATIONS
from howdah.api.shapes import DURATION_PATTERN, NAME_PATTERN, State
from howdah.core.callback_tokens import LENGTH, PREFIX
from howdah.core.entries import LEVELS

if TYPE_CHECKING:
    from howdah.api.routes import Operation

TITLE: Final = "Howdah"
DESCRIPTION: Final = (
    "A job queue service that rides on PostgreSQL. Send the API key as `Authorization: Bearer hwd_…`. Every error is "
    "an RFC 9457 problem document with a stable `code`; repeat a request whose problem says `retryable`, with an "
    "`Idempotency-Key` if it is a POST, after the seconds of `Retry-After`. Every answer carries `X-Request-Id`."
)
_REF: Final = "#/components/schemas/{name}"

_DATE_TIME: Final = {"type": "string", "format": "date-time"}
PARAMETERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "queue": ("Only tasks of this queue.", {"type": "string", "pattern": NAME_PATTERN}),
    "state": ("Only tasks in this state.", {"enum": list(State.__args__)}),  # type: ignore[attr-defined]
    "handler": ("Only tasks for this handler.", {"type": "string", "pattern": NAME_PATTERN}),
    "batch": ("Only tasks of this batch.", {"type": "string", "format": "uuid"}),
    "tag": ("Only tasks with this tag: `name:value`.", {"type": "string", "pattern": "^[^:]+:"}),
    "created_after": ("Only tasks created at this instant or later.", _DATE_TIME),
    "created_before": ("Only tasks created before this instant.", _DATE_TIME),
    "error_type": ("Only those whose last error is of this type.", {"type": "string"}),
    "fingerprint": (
        "Only those whose errors have this fingerprint.",
        {"type": "string", "pattern": FINGERPRINT_PATTERN},
    ),
    "reason": ("Only those given up for this reason.", {"enum": list(DeathReason.__args__)}),  # type: ignore[attr-defined]
    "dead_after": ("Only those that died at this instant or later.", _DATE_TIME),
    "dead_before": ("Only those that died before this instant.", _DATE_TIME),
    "limit": (
        "Most rows of a page; it may have fewer and still not be the last.",
        {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
    ),
    "cursor": ("`next_cursor` of the page before, with the same filters.", {"type": "string"}),
    "wait": (
        "How long to wait for its end, 60 seconds at most.",
        {"type": "string", "pattern": DURATION_PATTERN, "default": "0s"},
    ),
    "level": ("Only entries of this level or above.", {"enum": list(LEVELS)}),
    "follow": ("Stream entries as server-sent events until the task has ended.", {"type": "boolean", "default": False}),
    "token": (
        "`Howdah-Callback-Token` of the request that was answered with 202; it is the credential.",
        {"type": "string", "pattern": f"^{PREFIX}[A-Za-z0-9_-]{{{LENGTH - len(PREFIX)}}}$"},
    ),
    "id": ("Id of the task, of the batch, or of the operation.", {"type": "string", "format": "uuid"}),
}
_QUEUE_NAME: Final = ("Name of the queue.", {"type": "string", "pattern": NAME_PATTERN})
_PATH_EXAMPLES: Final = {
    "id": "01980a3c-7c2e-7000-9d8b-2f6a51c0e4d7",
    "queue": "emails",
    "token": "hcb_AAAAAQAAAAIBmAo8fC5wAJ2LL2pRwOTXfEXA3OI1p-4BO9l3dmBit5zs-5Rwmqzj7sTuAU8MaIdt0yz1",
}

_OF_ALL: Final = ("bad_parameter", "backpressure", "internal_error")
_OF_KEYS: Final = ("unauthorized", "storage_unavailable")
_OF_BODIES: Final = (
    "invalid_json",
    "json_too_deep",
    "duplicate_key",
    "request_timeout",
    "payload_too_large",
    "unsupported_media_type",
    "validation",
)
_OF_POSTS: Final = ("idempotency_key_in_use", "idempotency_key_reused", "validation")


@cache
def document() -> bytes:
    """Return the document as JSON."""
    return orjson.dumps(describe())


def describe() -> dict[str, Any]:
    """Build the document."""
    shapes: list[type] = [ProblemDocument]
    for operation in OPERATIONS:
        shapes += [shape for shape in (operation.takes, *operation.answers.values()) if shape is not None]
    _, schemas = msgspec.json.schema_components(dict.fromkeys(shapes), ref_template=_REF)
    paths: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for operation in OPERATIONS:
        paths[operation.path][operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": TITLE,
            "version": version("howdah"),
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": dict(paths),
        "components": {
            "schemas": {name: _cleaned(schema) for name, schema in schemas.items()},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key: `hwd_…`."}},
        },
    }


def operation_id(operation: Operation) -> str:
    """Return the name of an operation: noun and verb of its handler."""
    return f"{_noun(operation)}_{operation.handler.__name__}"


def _noun(operation: Operation) -> str:
    return operation.handler.__module__.rpartition(".")[2]


def codes(operation: Operation) -> list[str]:
    """Return every problem code that an operation may answer."""
    wanted = {*_OF_ALL, *operation.problems}
    if operation.scope is not None:
        wanted |= set(_OF_KEYS)
        if operation.scope != "any":
            wanted.add("forbidden")
    if operation.takes is not None:
        wanted |= set(_OF_BODIES)
    if _keeps_answers(operation):
        wanted |= set(_OF_POSTS)
    if "cursor" in operation.parameters:
        wanted.add("bad_cursor")
    return [code for code in KINDS if code in wanted]


def _operation(operation: Operation) -> dict[str, Any]:
    name = operation_id(operation)
    summary, _, rest = (inspect.getdoc(operation.handler) or "").partition("\n")
    described: dict[str, Any] = {
        "operationId": name,
        "tags": [_noun(operation).replace("_", " ")],
        "summary": summary.rstrip("."),
        "parameters": _parameters(operation),
        "responses": {**_answers(operation, name), **_problems(operation)},
    }
    described["description"] = f"{rest.strip()} {_need(operation)}".strip()
    if operation.scope is not None:
        described["security"] = [{"key": []}]
    if operation.takes is not None:
        described["requestBody"] = {
            "required": not operation.body_optional,
            "content": {"application/json": {"schema": _ref(operation.takes), "example": REQUESTS[name]}},
        }
    return described


def _keeps_answers(operation: Operation) -> bool:
    """Tell whether a repeat with the same Idempotency-Key gets the first answer; keys belong to tenants."""
    return operation.method == "POST" and operation.scope is not None


def _need(operation: Operation) -> str:
    """Say which key an operation needs."""
    if operation.scope is None:
        return "Needs no key."
    return "Needs any valid key." if operation.scope == "any" else f"Needs the scope `{operation.scope}`."


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    found = []
    for part in operation.path.split("/"):
        if part.startswith("{"):
            name = part.strip("{}")
            description, schema = _QUEUE_NAME if name == "queue" else PARAMETERS[name]
            found.append(_parameter(name, "path", description, schema) | {"example": _PATH_EXAMPLES[name]})
    found += [_parameter(name, "query", *PARAMETERS[name]) for name in operation.parameters]
    if _keeps_answers(operation):
        schema = {"type": "string", "pattern": "^[!-~]{1,255}$"}
        found.append(_parameter("Idempotency-Key", "header", operation.repeat, schema))
    return found


def _parameter(name: str, place: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "description": description, "schema": schema}


def _answers(operation: Operation, name: str) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for status, shape in operation.answers.items():
        if shape is None:
            media_type, example = TEXTS[name]
            content = {media_type: {"schema": {}, "example": example}}
        else:
            content = {"application/json": {"schema": _ref(shape), "example": ANSWERS[name][status]}}
        answers[str(status)] = {"description": (inspect.getdoc(shape) or "").partition("\n")[0], "content": content}
        if shape is None:
            answers[str(status)]["description"] = "As the summary says."
        if status in (201, 202):
            location = {"description": "Path of what was made.", "schema": {"type": "string"}}
            answers[str(status)]["headers"] = {"Location": location}
    return answers


def _problems(operation: Operation) -> dict[str, Any]:
    by_status: defaultdict[int, list[str]] = defaultdict(list)
    for code in codes(operation):
        by_status[KINDS[code].status].append(code)
    described = {}
    for status, found in sorted(by_status.items()):
        if status in operation.answers:
            continue
        described[str(status)] = {
            "description": " ".join(f"`{code}`: {KINDS[code].meaning}" for code in found),
            "content": {
                "application/problem+json": {
                    "schema": _ref(ProblemDocument),
                    "examples": {code: {"value": problem_example(code)} for code in found},
                }
            },
        }
    return described


def problem_example(code: str) -> dict[str, Any]:
    """Return a problem document with this code."""
    kind = KINDS[code]
    return {
        "type": f"urn:howdah:problem:{code}",
        "title": kind.title,
        "status": kind.status,
        "code": code,
        "detail": kind.meaning,
        "retryable": kind.retryable,
        "request_id": "5f3a9c0e1b7d-2a",
        "errors": FAULTS.get(code, []),
    }


def _ref(shape: type) -> dict[str, str]:
    return {"$ref": _REF.format(name=shape.__name__)}


def _cleaned(schema: dict[str, Any]) -> dict[str, Any]:
    """Unwrap docstrings, which keep their indentation."""
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    return schema
