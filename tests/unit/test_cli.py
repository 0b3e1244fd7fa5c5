"""The command howdah: quick help, and refusals that name what is wrong."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from howdah.cli import main

COMMANDS = ("api", "bench", "doctor", "key", "migrate", "scheduler", "tenant", "up", "version", "worker")


def test_help_lists_every_command() -> None:
    """Whoever types howdah --help sees each command with a line about it."""
    shown = CliRunner().invoke(main, ["--help"]).output

    assert [name for name in COMMANDS if f"\n  {name} " in shown] == list(COMMANDS)


def test_help_loads_neither_driver_nor_server() -> None:
    """Help answers at once because nothing of a process is imported for it."""
    code = (
        "import sys, howdah.cli; print([m for m in ('psycopg', 'starlette', 'aiohttp', 'uvloop') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout

    assert loaded == "[]\n"


def test_version_is_the_packages() -> None:
    """Howdah version prints what the package is installed as."""
    from importlib.metadata import version

    assert CliRunner().invoke(main, ["version"]).output == f"{version('howdah')}\n"


@pytest.mark.parametrize(
    "command", [["api"], ["worker"], ["scheduler"], ["migrate"], ["doctor"], ["key", "revoke", "x"]]
)
def test_missing_setting_is_named_with_64(command: list[str]) -> None:
    """A command that lacks a setting says which one, and ends with the exit code for it."""
    result = CliRunner(env={"HOWDAH_DATABASE_URL": None}).invoke(main, command)

    assert result.exit_code == 64
    assert "HOWDAH_DATABASE_URL" in result.output


@pytest.mark.parametrize("command", [["api"], ["worker"], ["scheduler"], ["up"]])
def test_wrong_setting_is_named_with_64(command: list[str]) -> None:
    """A value that is not allowed is refused before anything is started."""
    environment = {"HOWDAH_DATABASE_URL": "postgresql://127.0.0.1:1/x", "HOWDAH_LEASE_S": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "howdah", *command], env=environment, check=False, capture_output=True, text=True
    )

    assert done.returncode == 64
    assert "HOWDAH_LEASE_S" in done.stderr
    assert "Traceback" not in done.stderr


def test_unreachable_server_is_one_line_with_1() -> None:
    """Where nothing listens a command says so in a line, without a traceback."""
    result = CliRunner(env={"HOWDAH_DATABASE_URL": "postgresql://127.0.0.1:1/x"}).invoke(main, ["doctor"])

    assert result.exit_code == 1
    assert result.output.startswith("howdah: ")
    assert "Traceback" not in result.output
