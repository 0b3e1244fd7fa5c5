"""Runs the models: each `check:` line in the head of a model is one search of all its states.

    check: holds [ltl NAME] [with A=1, B]
    check: MUTANT breaks FLAG [with A=1, B]
    check: MUTANT breaks ltl NAME [with A=1, B]

Words behind `with` are defined for the C preprocessor, and so is the mutant. A `FLAG` is
the variable that is set where a promise is broken; an `ltl` formula NAME is guarded by LTL_NAME.

To read a counterexample: `python tests/models/checks.py lease FINISH_BY_STATE`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MODELS: Final = Path(__file__).resolve().parent
SEARCH_S_MAX: Final = 240
# Searches stop at it with an error. The largest one takes half; several may go on at once.
MEMORY_MB_MAX: Final = 600
DEPTH_MAX: Final = 500_000

_LINE: Final = re.compile(
    r"^ \* check: (?:(?P<holds>holds)(?: ltl (?P<holds_ltl>\w+))?"
    r"|(?P<mutant>[A-Z_]+) breaks (?:ltl (?P<breaks_ltl>\w+)|(?P<flag>\w+)))"
    r"(?: with (?P<defines>[A-Z_]+(?:=\d+)?(?:, [A-Z_]+(?:=\d+)?)*))?$"
)


class ModelError(Exception):
    """The model is no Promela, or the search did not come to its end."""


@dataclass(frozen=True)
class Check:
    """One search, and what it must find.

    Attributes:
        model: The file's name without its suffix.
        mutant: The guard that is removed; None for the model as it is.
        flag: The promise whose break the search must find; None if it must find none, or that of a formula.
        ltl: The formula that is checked instead of assertions.
        defines: Further preprocessor symbols, `NAME` or `NAME=VALUE`.
    """

    model: str
    mutant: str | None
    flag: str | None
    ltl: str | None
    defines: tuple[str, ...]

    def __str__(self) -> str:
        """Name it as tests and messages do."""
        words = [self.model, self.mutant or "holds", *([self.ltl] if self.ltl else []), *self.defines]
        return "-".join(words)

    @property
    def symbols(self) -> list[str]:
        """Options of the preprocessor."""
        names = [*self.defines, *([self.mutant] if self.mutant else []), *([f"LTL_{self.ltl}"] if self.ltl else [])]
        return [f"-D{name}" for name in names]


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        flag: The promise that an execution breaks, if one breaks any.
        has_cycle: An execution goes on for ever, or ends, without what the formula demands.
        other: An error of another kind: a deadlock of the model, a limit that was reached.
        state_count: How many states were stored.
    """

    flag: str | None
    has_cycle: bool
    other: str | None
    state_count: int


def read_checks(model: str) -> list[Check]:
    """Return the checks that the head of a model asks for.

    Raises:
        ModelError: A line begins with `check:` and is none.
    """
    checks = []
    for line in (MODELS / f"{model}.pml").read_text().splitlines():
        if "check:" not in line:
            continue
        match = _LINE.match(line)
        if match is None:
            raise ModelError(f"{model}.pml: not a check: {line}")
        checks.append(
            Check(
                model,
                match["mutant"],
                match["flag"],
                match["holds_ltl"] or match["breaks_ltl"],
                tuple(match["defines"].split(", ")) if match["defines"] else (),
            )
        )
    return checks


def search(check: Check, directory: Path, *, shortest: bool = False) -> Found:
    """Visit every state of a model, or those up to the first error.

    Args:
        check: What to build.
        directory: An empty one; a counterexample is left in it.
        shortest: Whether the counterexample of a flag should be the shortest one, which takes more memory.

    Raises:
        ModelError: The model cannot be built, or the search took too long.
    """
    # Its own text and not a path to it: spin names the trail after the file.
    (directory / "model.pml").write_text((MODELS / f"{check.model}.pml").read_text())
    built = _run(["spin", "-a", *check.symbols, "model.pml"], directory)
    if "rror" in built:
        raise ModelError(f"{check}: {built}")
    kind = ["-DNFAIR=4"] if check.ltl else ["-DSAFETY", "-DNOCLAIM"]
    if shortest and not check.ltl:
        kind.append("-DBFS")
    limits = [f"-DMEMLIM={MEMORY_MB_MAX}", "-DVECTORSZ=1024", "-DCOLLAPSE"]
    # A mutant's search ends soon; optimising it would take longer.
    level = "-O0" if check.mutant else "-O1"
    _run(["gcc", level, "-w", *kind, *limits, "-o", "pan", "pan.c"], directory)
    options = ["-a", "-f", "-N", check.ltl] if check.ltl else []
    output = _run(["./pan", "-w22", f"-m{DEPTH_MAX}", *options], directory)
    return _read(output)


def _run(command: list[str], directory: Path) -> str:
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=SEARCH_S_MAX)
    except subprocess.TimeoutExpired as late:
        raise ModelError(f"{command[0]} took longer than {SEARCH_S_MAX} s") from late
    if done.returncode != 0:
        raise ModelError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def _read(output: str) -> Found:
    states = re.search(r"^\s*(\S+) states, stored", output, re.MULTILINE)
    errors = re.search(r"errors: (\d+)", output)
    if states is None or errors is None:
        raise ModelError(output)
    flag = re.search(r"^pan:\d+: assertion violated\s+ !\((\w+)\)", output, re.MULTILINE)
    has_cycle = "acceptance cycle" in output
    told = [line for line in output.splitlines() if line.startswith(("pan:", "error:"))]
    other = [line for line in told if not re.match(r"pan: (?:ltl formula|elapsed|rate|wrote)", line)]
    if flag or has_cycle:
        other = []
    elif errors[1] != "0" and not other:
        other = [errors[0]]
    return Found(flag[1] if flag else None, has_cycle, "; ".join(other) or None, int(float(states[1])))


def trail(check: Check, directory: Path) -> str:
    """Return the counterexample that `search` has left, one line a step, and the final state."""
    return _run(["spin", "-t", "-p", "-g", "-l", *check.symbols, "model.pml"], directory)


def main(arguments: list[str]) -> int:
    """Search one model, as it is or with a mutant, and print the shortest way to the first error."""
    if not arguments:
        print(__doc__)
        return 64
    model, mutant = arguments[0], arguments[1] if len(arguments) > 1 else None
    for check in read_checks(model):
        if check.mutant != mutant:
            continue
        with tempfile.TemporaryDirectory() as name:
            found = search(check, Path(name), shortest=True)
            print(f"{check}: {found}")
            if found.flag or found.has_cycle or found.other:
                print(trail(check, Path(name)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
