"""Every promise of the protocol holds in all states of its model, and every planted bug is found there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from howdah.core.state import MOVES, Move, Stage, parse_move
from tests.models.checks import MODELS, read_checks, search

if TYPE_CHECKING:
    from pathlib import Path

    from tests.models.checks import Check

NAMES = sorted(path.stem for path in MODELS.glob("*.pml"))
CHECKS = [check for name in NAMES for check in read_checks(name)]
MOVE = re.compile(r"(\w+) -> (\w+) ((?:\(\w+\)(?:, )?)+)")


def text_of(name: str) -> str:
    """The text of a model."""
    return (MODELS / f"{name}.pml").read_text()


@pytest.mark.system("spin", "gcc")
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("check", [check for check in CHECKS if check.mutant is None], ids=str)
def test_promises_hold_in_every_state(check: Check, tmp_path: Path) -> None:
    """No execution breaks a promise, waits for ever, or is cut off by a limit of the search."""
    found = search(check, tmp_path)

    assert (found.flag, found.has_cycle, found.other) == (None, False, None)
    assert found.state_count > 100


@pytest.mark.system("spin", "gcc")
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("check", [check for check in CHECKS if check.mutant], ids=str)
def test_planted_bug_is_found(check: Check, tmp_path: Path) -> None:
    """Without the guard some execution breaks the promise that it is there for, and not another one."""
    found = search(check, tmp_path)

    assert (found.flag, found.has_cycle, found.other) == (check.flag, check.ltl is not None, None)


@pytest.mark.parametrize("name", NAMES)
def test_every_promise_and_every_guard_has_its_check(name: str) -> None:
    """A flag that no mutant sets proves nothing, and neither does a mutant that nobody runs."""
    text = text_of(name)
    checks = read_checks(name)
    flags = set(re.findall(r"PROMISE\((\w+),", text)) - {"flag"} | set(re.findall(r"assert\(!(\w+)\)", text)) - {"flag"}
    switches = set(re.findall(r"^#ifn?def (\w+)", text, re.MULTILINE)) | set(re.findall(r"defined\((\w+)\)", text))
    parameters = set(re.findall(r"^#define (\w+) \d+$", text, re.MULTILINE))
    used = {symbol.removeprefix("-D").partition("=")[0] for check in checks for symbol in check.symbols}

    assert flags - {check.flag for check in checks} == set()
    assert switches - used - parameters == set()
    assert any(check.mutant is None for check in checks)


@pytest.mark.parametrize("name", NAMES)
def test_head_explains_every_promise(name: str) -> None:
    """Whoever reads a broken flag finds in the head what was promised."""
    head = text_of(name).partition("*/")[0]
    promises = {check.flag or f"ltl {check.ltl}" for check in read_checks(name) if check.mutant}

    assert {promise for promise in promises if f" *   {promise} " not in head} == set()


@pytest.mark.parametrize("name", NAMES)
def test_head_names_the_files_that_the_model_stands_for(name: str) -> None:
    """Whoever changes one of them finds the model by its path; one that was moved or deleted is noticed."""
    about = re.search(r"\* Stands for (.*?)\n \*\n", text_of(name).partition("*/")[0], re.DOTALL)
    paths = re.findall(r"[\w/]+\.(?:sql|py)", about[1]) if about else []

    assert paths
    assert [path for path in paths if not (MODELS.parents[1] / path).is_file()] == []


def test_models_make_the_moves_of_the_protocol() -> None:
    """Each move that a model names is one of `core.state`, and every way out of `running` is in the model of leases."""
    made = {
        name: {
            parse_move(f"{source} -> {target} {reason.strip(', ')}")
            for source, target, reasons in MOVE.findall(text_of(name))
            for reason in re.findall(r"\(\w+\)", reasons)
        }
        for name in NAMES
    }

    assert set().union(*made.values()) - MOVES == set()
    # A receiver that owes the outcome holds the same lease, by the same token: to the model it is who held it before.
    handed_on = {Move(Stage.RUNNING, Stage.AWAITING, "await")}
    assert {move for move in MOVES if move.source is Stage.RUNNING} - made["lease"] == handed_on
