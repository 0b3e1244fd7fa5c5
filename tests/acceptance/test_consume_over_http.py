"""A consumer in a language of its own: what docs/howto/consume-over-http.md prints, run against `howdah up`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.fix_wait import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fix_up import Up

pytestmark = pytest.mark.slow

PAGE: Final = (Path(__file__).resolve().parents[2] / "docs" / "howto" / "consume-over-http.md").read_text()


def blocks(language: str) -> list[str]:
    """The page's code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def running(up: Callable[..., Up]) -> Up:
    """A started `howdah up`."""
    return up().started()


@pytest.fixture
def consumer(running: Up, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The page's consumer, as a process."""
    program = tmp_path / "consumer.py"
    program.write_text(blocks("python")[0])
    process = subprocess.Popen(
        [sys.executable, str(program)],
        env={**os.environ, "URL": running.url, "KEY": running.key},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.system("curl")
def test_lines_of_the_page_take_a_task_to_its_result(running: Up) -> None:
    """Store, claim, renew, finish and wait, each by the line that the page shows for it."""
    environment = {**os.environ, "URL": running.url, "KEY": running.key}

    def shell(line: str) -> Any:
        done = subprocess.run(
            ["sh", "-c", line], env=environment, check=True, capture_output=True, text=True, timeout=60
        )
        return json.loads(done.stdout)

    store, claim, heartbeat, finish, wait = blocks("sh")
    stored = shell(store)
    [run] = shell(claim)["runs"]
    environment |= {"TASK": run["task_id"], "TOKEN": run["lease_token"]}
    [shown] = [json.loads(text)["runs"][0] for text in blocks("json")]

    assert run["task_id"] == stored["id"]
    assert run.keys() == shown.keys()
    assert [result["status"] for result in shell(heartbeat)["results"]] == ["ok"]
    assert [result["state"] for result in shell(finish)["results"]] == ["succeeded"]
    assert shell(wait)["result"] == {"bytes": 4711}


def test_consumer_of_the_page_executes_tasks(running: Up, consumer: subprocess.Popen[str]) -> None:
    """Tasks that are stored while it waits are executed; who waits for one gets its result; a bad one is retried."""
    made = [
        running.request("POST", "/v1/tasks", {"queue": "images", "handler": "thumbnail", "payload": payload})["id"]
        for payload in ({"image": "cat.jpg"}, {"no": "image"}, {"image": "dog.jpg"})
    ]
    good = [running.request("GET", f"/v1/tasks/{made[place]}/result?wait=9s") for place in (0, 2)]
    bad = eventually(
        lambda: [run for run in running.request("GET", f"/v1/tasks/{made[1]}/runs")["data"] if run["outcome"]],
        20,
        "the bad one has failed",
    )
    [shown] = [each for each in running.request("GET", "/v1/workers")["data"] if each["kind"] == "pull"]

    assert [each["result"] for each in good] == [{"thumbnail": "small-cat.jpg"}, {"thumbnail": "small-dog.jpg"}]
    assert (bad[0]["outcome"], bad[0]["error"]["type"]) == ("failed", "KeyError")
    assert (shown["name"], shown["state"], shown["handlers"]) == ("thumbnails-1", "live", ["thumbnail"])
    assert consumer.poll() is None
