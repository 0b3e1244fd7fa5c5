"""What every test directory shares: fixtures, options, and the rule for tests that need the system.

Fixtures live in `fix_<theme>.py`. A test that needs programs of the operating
system, or root, is marked `@pytest.mark.system("nginx", "root")` with what it needs.
"""

from __future__ import annotations

import os
import resource
import shutil

import hypothesis
import pytest

# The machine is busy with the tests beside; how long an example takes is no property of the code.
hypothesis.settings.register_profile("howdah", hypothesis.settings(deadline=None))
hypothesis.settings.load_profile("howdah")

OPEN_FILES = 4_096

pytest_plugins = [
    "tests.fix_api",
    "tests.fix_callback",
    "tests.fix_chores",
    "tests.fix_db",
    "tests.fix_hostile",
    "tests.fix_queue",
    "tests.fix_retention",
    "tests.fix_up",
    "tests.fix_fleet",
    "tests.fix_nginx",
    "tests.fix_operations",
    "tests.fix_pooler",
    "tests.fix_backlog",
    "tests.fix_proxy",
    "tests.fix_pull",
    "tests.fix_release",
    "tests.fix_worker",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this suite."""
    group = parser.getgroup("howdah")
    group.addoption(
        "--pg",
        type=int,
        default=int(os.environ.get("HOWDAH_TEST_PG") or 18),
        metavar="MAJOR",
        help="major version of PostgreSQL to test on (default: HOWDAH_TEST_PG, or 18)",
    )
    group.addoption("--storm-seed", type=int, help="seed of the fault test's storm (default: drawn and printed)")
    group.addoption("--storm-s", type=float, default=20.0, help="seconds that the storm lasts (default: 20)")
    group.addoption(
        "--require-system",
        action="store_true",
        help="fail tests marked `system` whose needs are missing, instead of skipping them",
    )


def pytest_configure() -> None:
    """Let this process open as many files as it may: it is a server and its thousand clients in one test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES and (hard == resource.RLIM_INFINITY or soft < hard):
        wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose system is not complete, or fail it under `--require-system`."""
    needs = [need for marker in item.iter_markers("system") for need in marker.args]
    missing = [need for need in needs if not _is_present(need)]
    if not missing:
        return
    message = f"needs {', '.join(missing)}"
    if item.config.getoption("--require-system"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def _is_present(need: str) -> bool:
    if need == "root":
        return os.geteuid() == 0
    # Debian keeps servers where a normal user's PATH does not look.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    return shutil.which(need, path=path) is not None
