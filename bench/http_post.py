"""What durable creates over HTTP cost: POST /v1/tasks against the same server's empty authenticated route.

One API process. Runs alternate, so that a machine that slows down slows both; the
ratio is of the best run of each. Every 201 was committed with fsync before it was
sent, and the number of stored tasks is compared with the number of answers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from rig import BENCH, PAYLOAD, open_rig, parser, report

if TYPE_CHECKING:
    from rig import Rig


def measure(rig: Rig, connections: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Return requests per second of both routes, their ratio, and the latency of creates."""
    body = json.dumps({"queue": "bench", "handler": "bench.noop", "payload": json.loads(PAYLOAD)})
    best: dict[str, dict[str, Any]] = {}
    created_count = 0
    with rig.api() as api:
        routes = {"ping": request("GET", "/v1/ping", api.key), "post": request("POST", "/v1/tasks", api.key, body)}
        for number in range(rounds + 1):
            for name, message in routes.items():
                run = load(api.port, message, connections, seconds if number else 0.5)
                wanted = {"ping": "200", "post": "201"}[name]
                if set(run["statuses"]) != {wanted} or run["lost"]:
                    raise SystemExit(f"{name} was answered {run['statuses']}, {run['lost']} connections were lost")
                created_count += run["statuses"].get("201", 0)
                # The first round warms up: plans, caches, the queue.
                if number and run["per_s"] > best.get(name, run | {"per_s": 0})["per_s"]:
                    best[name] = run
    with rig.connect() as conn:
        [stored] = conn.execute("SELECT count(*) FROM howdah.tasks").fetchone() or (0,)
    # What was under way when a run ended was stored and not counted.
    if not created_count <= stored <= created_count + connections * (rounds + 1):
        raise SystemExit(f"{created_count} creates were answered, and {stored} tasks are stored")
    return {
        "ping_per_s": best["ping"]["per_s"],
        "post_per_s": best["post"]["per_s"],
        "ratio": best["post"]["per_s"] / best["ping"]["per_s"],
        "post_p50_ms": best["post"]["p50_ms"],
        "post_p99_ms": best["post"]["p99_ms"],
    }


def request(method: str, path: str, key: str, body: str = "") -> bytes:
    """Return the bytes of a request that carries a key."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n{body}".encode()


def load(port: int, message: bytes, connections: int, seconds: float) -> dict[str, Any]:
    """Send a request again and again over so many connections, from a process of its own; returns what it counted."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(message)
        file.flush()
        command = [sys.executable, str(BENCH / "http_load.py"), "--port", str(port), "--request", file.name]
        command += ["--connections", str(connections), "--seconds", str(seconds)]
        result: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return result


def main() -> None:
    """Run the benchmark."""
    given = parser(__doc__ or "", connections=64, seconds=3.0, rounds=3).parse_args()
    with open_rig(given.url) as rig:
        report(measure(rig, given.connections, given.seconds, given.rounds), as_json=given.json)


if __name__ == "__main__":
    main()
