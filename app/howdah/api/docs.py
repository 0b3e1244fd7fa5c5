"""The page /docs: the OpenAPI document for people, in one file without scripts or third parties."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from howdah.api.openapi import describe
from howdah.api.problems import KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    # Method, path, and what the document says about them.
    Described: TypeAlias = tuple[str, str, dict[str, Any]]

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --accent: #a65b1f; }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; display: grid; grid-template-columns: 17rem minmax(0, 1fr); }
nav { position: sticky; top: 0; height: 100vh; overflow: auto; padding: 1.5rem; border-right: 1px solid var(--line); }
nav h2 { font-size: .8rem; text-transform: uppercase; letter-spacing: .08em; margin: 1.2rem 0 .3rem; }
nav a { display: block; padding: .1rem 0; font-size: .9rem; }
main { padding: 1.5rem clamp(1rem, 4vw, 4rem) 6rem; max-width: 70rem; overflow-wrap: anywhere; }
a { color: inherit; text-decoration-color: var(--accent); }
h1 { margin: 0 0 .5rem; }
section { border-top: 1px solid var(--line); margin-top: 2.5rem; padding-top: 1rem; }
h3 { margin: 0; }
code, pre { font: .875rem/1.45 ui-monospace, monospace; }
pre { background: var(--soft); padding: .8rem 1rem; border-radius: .4rem; overflow: auto; }
.method { color: var(--accent); font-weight: 700; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); }
td:first-child { white-space: nowrap; }
details { margin: .4rem 0; }
summary { cursor: pointer; }
@media (max-width: 50rem) { body { display: block; } nav { position: static; height: auto; border: 0; } }
"""


@cache
def page() -> tuple[bytes, bytes]:
    """Return the page, and the content security policy that allows it nothing but its own style."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; "
    return _html(describe()).encode(), (policy + "frame-ancestors 'none'").encode()


def _html(document: dict[str, Any]) -> str:
    operations = _by_tag(
        [
            (method.upper(), path, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        ]
    )
    schemas = document["components"]["schemas"]
    info = document["info"]
    title = escape(f"{info['title']} {info['version']}")
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>',
        _navigation(operations, schemas),
        f"<main><h1>{title}</h1><p>{_prose(info['description'])}</p>",
        '<p>The same as <a href="/openapi.json">openapi.json</a>, for programs.</p>',
        *(_operation(method, path, operation) for method, path, operation in operations),
        *(_schema(name, schema) for name, schema in schemas.items()),
        _problem_table(),
        "</main></body></html>",
    ]
    return "\n".join(parts)


def _by_tag(operations: list[Described]) -> list[Described]:
    """Bring what has one tag together; tags in the order in which they come first."""
    tags = list(dict.fromkeys(operation["tags"][0] for _, _, operation in operations))
    return sorted(operations, key=lambda each: tags.index(each[2]["tags"][0]))


def _navigation(operations: list[Described], schemas: dict[str, Any]) -> str:
    parts, tag = ["<nav>"], ""
    for _, _, operation in operations:
        if operation["tags"][0] != tag:
            tag = operation["tags"][0]
            parts.append(f"<h2>{escape(tag)}</h2>")
        parts.append(f'<a href="#{operation["operationId"]}">{escape(operation["summary"])}</a>')
    parts.append("<h2>schemas</h2>")
    parts += [f'<a href="#{name}">{name}</a>' for name in schemas]
    parts.append('<h2>errors</h2><a href="#problems">Codes</a></nav>')
    return "".join(parts)


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [
        f'<section id="{operation["operationId"]}">',
        f"<h3>{escape(operation['summary'])}</h3>",
        f'<p><code><span class="method">{method}</span> {escape(path)}</code></p>',
        f"<p>{_prose(operation['description'])}</p>",
    ]
    if operation["parameters"]:
        rows = [
            (f"<code>{escape(each['name'])}</code>", each["in"], _prose(each["description"]))
            for each in operation["parameters"]
        ]
        parts.append(_table(("parameter", "in", ""), rows))
    body = operation.get("requestBody")
    if body is not None:
        [(media_type, content)] = body["content"].items()
        parts.append(f"<p>Takes {_type(content['schema'])}, <code>{media_type}</code>:</p>{_json(content['example'])}")
    for status, response in operation["responses"].items():
        for media_type, content in response["content"].items():
            if media_type != "application/problem+json":
                shown = content["example"] if media_type != "application/json" else _dumped(content["example"])
                parts.append(
                    f"<p>Answers <code>{status}</code> {_type(content['schema'])}:</p><pre>{escape(shown)}</pre>"
                )
    problems = [
        (f"<code>{status}</code>", _prose(response["description"]))
        for status, response in operation["responses"].items()
        if "application/problem+json" in response["content"]
    ]
    parts.append(f"<details><summary>Problems</summary>{_table(('status', ''), problems)}</details></section>")
    return "".join(parts)


def _schema(name: str, schema: dict[str, Any]) -> str:
    required = set(schema.get("required", []))
    rows = [
        (
            f"<code>{escape(field)}</code>",
            _type(described) + ("" if field in required else ", optional"),
            _prose(described.get("description", "")),
        )
        for field, described in schema.get("properties", {}).items()
    ]
    table = _table(("field", "type", ""), rows)
    return f'<section id="{name}"><h3>{name}</h3><p>{_prose(schema.get("description", ""))}</p>{table}</section>'


def _problem_table() -> str:
    rows = [
        (f"<code>{code}</code>", str(kind.status), "yes" if kind.retryable else "no", _prose(kind.meaning))
        for code, kind in KINDS.items()
    ]
    return f'<section id="problems"><h3>Codes</h3>{_table(("code", "status", "retryable", ""), rows)}</section>'


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(f"<code>{escape(str(each))}</code>" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return escape(schema.get("format") or schema.get("type") or "any JSON")


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{each}</th>" for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _json(value: object) -> str:
    return f"<pre>{escape(_dumped(value))}</pre>"


def _dumped(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _prose(text: str) -> str:
    """Escape a text; what stands between backticks is code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
