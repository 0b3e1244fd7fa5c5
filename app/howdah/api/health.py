"""Health, readiness and metrics of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from howdah.api import shapes
from howdah.api.call import JSON_TYPE, Answer, json_answer
from howdah.core import metrics

if TYPE_CHECKING:
    from howdah.api.call import Call

_NO_STORE: Final = (b"cache-control", b"no-store")


async def healthz(call: Call) -> Answer:
    """Answer: that it does shows that the event loop turns. Independent of PostgreSQL."""
    return json_answer(200, shapes.Health("ok"), _NO_STORE)


async def readyz(call: Call) -> Answer:
    """Tell whether this process should be given requests, and what every check found."""
    is_ready, report = call.backend.readiness.report()
    return json_answer(200 if is_ready else 503, report, _NO_STORE)


async def get_metrics(call: Call) -> Answer:
    """Expose Prometheus metrics."""
    text, content_type = metrics.render(call.headers.get(b"accept", b"").decode("latin-1"))
    return Answer(200, text, [(b"content-type", content_type.encode()), _NO_STORE])


async def get_openapi(call: Call) -> Answer:
    """Describe this API as OpenAPI 3.1."""
    from howdah.api.openapi import document

    return Answer(200, document(), [JSON_TYPE])


async def get_docs(call: Call) -> Answer:
    """Show that description to people."""
    from howdah.api.docs import page

    body, policy = page()
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", policy),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    ]
    return Answer(200, body, headers)
