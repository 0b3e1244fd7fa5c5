"""Code that the documents print: it runs, and does what they say of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from howdah.core.sign import make_secret, sign
from howdah.core.state import MOVES, Stage

if TYPE_CHECKING:
    from collections.abc import Callable

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
CALLBACKS: Final = DOCS / "howto" / "receive-callbacks.md"
WITH_PYTHON: Final = [
    path for path in (DOCS.parent / "README.md", *sorted(DOCS.glob("**/*.md"))) if "\n```python" in path.read_text()
]

TASK_ID: Final = "01a200c2-309c-7003-8040-4451cc92de6c"

NODE_MAIN: Final = """
import { isGenuine } from "./verify.mjs";
const cases = JSON.parse(process.argv[2]);
console.log(JSON.stringify(cases.map((c) => isGenuine(c.secret, c.headers, Buffer.from(c.body)))));
"""

GO_MAIN: Final = """
package main

import ("encoding/json"; "fmt"; "net/http"; "os"; "example/webhook")

func main() {
	var cases []struct { Secret, Body string; Headers map[string]string }
	if err := json.Unmarshal([]byte(os.Args[1]), &cases); err != nil { panic(err) }
	answers := []bool{}
	for _, c := range cases {
		header := http.Header{}
		for name, value := range c.Headers { header.Set(name, value) }
		answers = append(answers, webhook.IsGenuine(c.Secret, header, []byte(c.Body)))
	}
	text, _ := json.Marshal(answers)
	fmt.Println(string(text))
}
"""

PYTHON_MAIN: Final = """
import json, sys
from verify import is_genuine
print(json.dumps([is_genuine(c["secret"], c["headers"], c["body"].encode()) for c in json.loads(sys.argv[1])]))
"""


IMPORT_ALL: Final = """
import importlib, os, pathlib
for path in sorted(pathlib.Path(os.environ["PYTHONPATH"]).glob("*.py"), key=lambda path: path.name != "my_handlers.py"):
    module = importlib.import_module(path.stem)
    for name in [name for name in vars(module) if name.startswith("test_")]:
        getattr(module, name)()
"""


def blocks(path: Path, language: str) -> list[str]:
    """The code blocks of a document that are in this language."""
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", WITH_PYTHON, ids=lambda path: path.name)
def test_python_of_a_document_runs(path: Path, tmp_path: Path) -> None:
    """Each block is a module that can be imported, in order; tests in it pass."""
    modules = ["my_handlers", *(f"block_{number}" for number in range(2, 10))]
    for module, block in zip(modules, blocks(path, "python"), strict=False):
        # Blocks go on where the first left off.
        (tmp_path / f"{module}.py").write_text(block if module == "my_handlers" else f"import howdah\n{block}")
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_python_verifier_tells_genuine_from_false(tmp_path: Path) -> None:
    """The function on the page accepts what Howdah signs, and nothing else."""
    (tmp_path / "verify.py").write_text(blocks(CALLBACKS, "python")[0])

    _check_verifier(lambda cases: [sys.executable, "-c", PYTHON_MAIN, cases], tmp_path)


@pytest.mark.system("node")
def test_node_verifier_tells_genuine_from_false(tmp_path: Path) -> None:
    """The function on the page accepts what Howdah signs, and nothing else."""
    (tmp_path / "verify.mjs").write_text(blocks(CALLBACKS, "js")[0])
    (tmp_path / "main.mjs").write_text(NODE_MAIN)

    _check_verifier(lambda cases: ["node", "main.mjs", cases], tmp_path)


@pytest.mark.slow
@pytest.mark.system("go")
def test_go_verifier_tells_genuine_from_false(tmp_path: Path) -> None:
    """The function on the page accepts what Howdah signs, and nothing else."""
    (tmp_path / "go.mod").write_text("module example\n\ngo 1.19\n")
    (tmp_path / "webhook").mkdir()
    (tmp_path / "webhook" / "webhook.go").write_text(blocks(CALLBACKS, "go")[0])
    (tmp_path / "main.go").write_text(GO_MAIN)

    _check_verifier(lambda cases: ["go", "run", ".", cases], tmp_path)


def test_diagram_of_states_is_the_table_of_moves() -> None:
    """The diagram shows each move with its reasons, and no other."""
    [diagram] = blocks(DOCS / "states.md", "mermaid")
    drawn = {
        (Stage.NEW if source == "[*]" else Stage(source), Stage(target), reason)
        for source, target, reasons in re.findall(r"^ +(\S+) --> (\S+): (.+)$", diagram, re.MULTILINE)
        for reason in reasons.split(", ")
    }

    assert drawn == {(move.source, move.target, move.reason) for move in MOVES}


def _check_verifier(command: Callable[[str], list[str]], directory: Path) -> None:
    """Run a verifier on messages, the first three of which are genuine."""
    secret, other, body, now = make_secret(), make_secret(), '{"order": 17, "é": 1}', int(time.time())

    def message(at: int = now, sent: str = body, **changed: str) -> dict[str, object]:
        headers = {
            "webhook-id": TASK_ID,
            "webhook-timestamp": str(at),
            "webhook-signature": sign(secret, TASK_ID, at, body.encode()),
        }
        return {"secret": secret, "body": sent, "headers": {**headers, **changed}}

    genuine = [
        message(),
        message(at=now - 240),
        message(**{"webhook-signature": sign((other, secret), TASK_ID, now, body.encode())}),
    ]
    false = [
        message(sent=body + " "),
        message(at=now - 360),
        message(at=now + 360),
        message(**{"webhook-id": "01a200c2-309c-7003-8040-4451cc92de6d"}),
        message(**{"webhook-timestamp": str(now - 1)}),
        message(**{"webhook-signature": "v1,"}),
        message(**{"webhook-signature": "v1,AAAA"}),
        {**message(), "secret": other},
    ]
    done = subprocess.run(
        command(json.dumps(genuine + false)),
        cwd=directory,
        env={**os.environ, "GOFLAGS": "-mod=mod", "GOCACHE": str(directory / "cache"), "GO111MODULE": "on"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True] * len(genuine) + [False] * len(false)
