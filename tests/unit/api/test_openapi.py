"""The description of the API is complete, valid, and true of its own examples."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest

from howdah.api.docs import page
from howdah.api.examples import ANSWERS, REQUESTS, TEXTS
from howdah.api.openapi import codes, describe, document, operation_id, problem_example
from howdah.api.problems import KINDS, ProblemDocument
from howdah.api.routes import OPERATIONS, Operation, routes

DOCUMENT = describe()


def described(operation: Operation) -> dict[str, Any]:
    """The document's part about an operation."""
    found: dict[str, Any] = DOCUMENT["paths"][operation.path][operation.method.lower()]
    return found


def test_every_route_is_described() -> None:
    """What is served and what is described are the same paths and methods."""
    served = {path.path for path in routes()}  # type: ignore[attr-defined]

    assert set(DOCUMENT["paths"]) == served == {operation.path for operation in OPERATIONS}
    assert sum(len(methods) for methods in DOCUMENT["paths"].values()) == len(OPERATIONS)
    assert len({operation_id(operation) for operation in OPERATIONS}) == len(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS, ids=operation_id)
def test_every_operation_has_examples_that_fit(operation: Operation) -> None:
    """Requests and answers of the examples decode into the declared shapes, without a field too many."""
    name, part = operation_id(operation), described(operation)
    for status, shape in operation.answers.items():
        if shape is None:
            assert name in TEXTS
            continue
        example = ANSWERS[name][status]
        assert part["responses"][str(status)]["content"]["application/json"]["example"] == example
        decoded = msgspec.json.decode(msgspec.json.encode(example), type=shape)
        assert msgspec.json.decode(msgspec.json.encode(decoded)) == example
    if operation.takes is not None:
        msgspec.json.decode(msgspec.json.encode(REQUESTS[name]), type=operation.takes)
    assert part["summary"]
    assert len(part["summary"]) <= 120
    assert (operation.scope is not None) == ("security" in part)


@pytest.mark.parametrize("operation", OPERATIONS, ids=operation_id)
def test_every_problem_of_an_operation_is_described(operation: Operation) -> None:
    """Each code stands under its status with an example, and no other does."""
    found = set()
    for status, response in described(operation)["responses"].items():
        for code, example in response["content"].get("application/problem+json", {}).get("examples", {}).items():
            found.add(code)
            assert example["value"]["status"] == int(status)
    wanted = {code for code in codes(operation) if KINDS[code].status not in operation.answers}

    assert found == wanted


def test_every_code_is_described_somewhere() -> None:
    """No code is a surprise; 404 and 405 of unknown paths aside, which no operation has."""
    everywhere = {code for operation in OPERATIONS for code in codes(operation)}

    assert set(KINDS) - everywhere == {"method_not_allowed"}
    for code in KINDS:
        msgspec.json.decode(msgspec.json.encode(problem_example(code)), type=ProblemDocument)
        assert f"<code>{code}</code>" in page()[0].decode()


def test_references_lead_somewhere() -> None:
    """Every $ref names a schema of the document, and every schema is used."""
    text = document().decode()
    names = set(re.findall(r'"#/components/schemas/([A-Za-z]+)"', text))

    assert names == set(DOCUMENT["components"]["schemas"])


def test_parameters_of_paths_are_declared() -> None:
    """Each name in braces has a required parameter with an example."""
    for operation in OPERATIONS:
        in_path = {each["name"] for each in described(operation)["parameters"] if each["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", operation.path))
        in_query = [each["name"] for each in described(operation)["parameters"] if each["in"] == "query"]
        assert tuple(in_query) == operation.parameters


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.targets: set[str] = set()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            if name in ("href", "src") and value:
                self.targets.add(value)


def test_docs_page_lists_every_group_once() -> None:
    """The menu and the page have the operations of one noun together, each of them once."""
    text = page()[0].decode()
    menu = text[text.index("<nav>") : text.index("</nav>")]
    heads = re.findall("<h2>([^<]+)</h2>", menu)
    linked = re.findall('<a href="#([a-z_]+)">', menu)
    sections = re.findall('<section id="([a-z_]+)">', text)

    assert len(set(heads)) == len(heads)
    nouns = {
        "tasks",
        "batches",
        "callbacks",
        "dead letters",
        "operations",
        "results",
        "logs",
        "queues",
        "runs",
        "workers",
    }
    assert nouns | {"tenants", "health", "schemas", "errors"} == set(heads)
    assert linked == sections
    assert sorted(linked) == sorted([*(operation_id(operation) for operation in OPERATIONS), "problems"])


def test_docs_page_needs_nothing_from_anywhere() -> None:
    """No script, no third party, no link that leads nowhere; its policy allows its style alone."""
    body, policy = page()
    links = _Links()
    links.feed(body.decode())

    assert "script" not in links.tags
    assert {target for target in links.targets if not target.startswith("#")} == {"/openapi.json"}
    assert {target[1:] for target in links.targets if target.startswith("#")} <= links.ids
    assert {operation_id(operation) for operation in OPERATIONS} <= links.ids
    assert policy.startswith(b"default-src 'none'; style-src 'sha256-")
