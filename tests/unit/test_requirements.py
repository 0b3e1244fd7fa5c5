"""The pinned requirements: whole, hashed, and free of where they came from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PINS = ["requirements.lock", "requirements-dev.lock"]


def pinned(name: str) -> dict[str, str]:
    """Return the version of each distribution that a file pins."""
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", (ROOT / name).read_text(), flags=re.MULTILINE))


def names(requirements: list[str]) -> set[str]:
    """Return the normalised names of the distributions that are required."""
    return {re.split(r"[\[<>=~! ;]", requirement)[0].lower().replace("_", "-") for requirement in requirements}


@pytest.mark.parametrize("name", PINS)
def test_every_pin_has_a_hash(name: str) -> None:
    """What is downloaded is checked, whoever serves it."""
    entries = re.split(r"^(?=[a-z0-9])", (ROOT / name).read_text(), flags=re.MULTILINE)[1:]

    assert len(entries) == len(pinned(name)) > 30
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("name", PINS)
def test_pins_name_no_host(name: str) -> None:
    """Where packages are fetched from is the installing machine's choice."""
    assert re.findall(r"://|^-.*", (ROOT / name).read_text(), flags=re.MULTILINE) == []


def test_pins_hold_all_declared_requirements() -> None:
    """Installed with --no-deps, the pins must hold what pyproject.toml asks for, and what builds it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    needed = (
        project["project"]["dependencies"] + project["project"]["optional-dependencies"]["embedded"] + groups["build"]
    )

    assert names(needed) - pinned("requirements.lock").keys() == set()
    assert names(groups["dev"]) - pinned("requirements-dev.lock").keys() == set()


def test_development_pins_contain_runtime_pins() -> None:
    """Tests run with the versions that users get."""
    assert pinned("requirements.lock").items() <= pinned("requirements-dev.lock").items()
