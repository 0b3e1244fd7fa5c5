"""The tests of the promises are themselves tested: each planted bug must make the named test fail.

A mutant is the checkout copied elsewhere with one text replaced. A replacement
that no longer fits fails here too, so that no mutant is lost to a refactoring.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("app", "worker", "scheduler", "sql", "tests", "pyproject.toml")
TOKEN_GUARD = "r.lease_token IS NOT DISTINCT FROM i.lease_token"


@dataclass(frozen=True)
class Mutant:
    """A bug that others have shipped, and the test that must notice it."""

    name: str
    bug: str
    path: str
    right: str
    wrong: str
    test: str


MUTANTS = (
    Mutant(
        "M1",
        "a finish is guarded by the run's state only",
        "sql/queries/run/complete.sql",
        TOKEN_GUARD,
        "r.lease_token IS NOT NULL",
        "tests/sql/test_protocol.py::test_late_finish_is_refused_while_another_worker_holds_the_run",
    ),
    Mutant(
        "M1-fail",
        "a failure is guarded by the run's state only",
        "sql/queries/run/fail.sql",
        TOKEN_GUARD,
        "r.lease_token IS NOT NULL",
        "tests/sql/test_protocol.py::test_late_finish_is_refused_while_another_worker_holds_the_run",
    ),
    Mutant(
        "M2",
        "a finish is guarded by the worker's identity",
        "sql/queries/run/complete.sql",
        TOKEN_GUARD,
        "r.worker_id = 7",
        "tests/sql/test_protocol.py::test_late_finish_is_refused_for_the_same_worker_too",
    ),
    Mutant(
        "M4",
        "a rescue looks before it acts, without holding the rows",
        "sql/queries/run/lock_expired.sql",
        "FOR UPDATE OF r SKIP LOCKED",
        "",
        "tests/sql/test_protocol.py::test_rescue_passes_by_a_run_that_is_being_finished",
    ),
    Mutant(
        "M5",
        "a claim takes more than its share",
        "sql/queries/run/claim.sql",
        "LIMIT lane.share",
        "LIMIT lane.share + 1",
        "tests/sql/test_protocol.py::test_claim_never_takes_more_than_its_share",
    ),
    Mutant(
        "heartbeat",
        "a heartbeat renews no lease",
        "sql/queries/run/heartbeat.sql",
        "howdah.now() + make_interval(secs => %(lease_s)b::double precision)",
        "r.lease_expires_at + 0 * make_interval(secs => %(lease_s)b::double precision)",
        "tests/integration/worker/test_worker_leases.py::test_lease_is_renewed_for_as_long_as_the_handler_works",
    ),
    Mutant(
        "M9",
        "a create is acknowledged before its commit",
        "app/howdah/api/committer.py",
        "await self._serve(conn)",
        "await conn.set_autocommit(False)\n                        await self._serve(conn)",
        "tests/integration/api/test_writer.py::test_create_is_answered_after_its_commit",
    ),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_planted_bug_is_caught(mutant: Mutant, tmp_path: Path, server_url: str) -> None:
    """The named test fails on the mutant; that it passes on the real code, its own run shows."""
    for part in PARTS:
        source = ROOT / part
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / part)
    target = tmp_path / mutant.path
    text = target.read_text()
    assert text.count(mutant.right) == 1, f"{mutant.path} no longer holds {mutant.right!r} exactly once"
    target.write_text(text.replace(mutant.right, mutant.wrong))
    sources = os.pathsep.join(str(tmp_path / part) for part in ("app", "worker", "scheduler"))
    run = subprocess.run(
        [sys.executable, "-Pm", "pytest", "-q", "-x", "-p", "no:cacheprovider", mutant.test],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": sources, "TEST_DATABASE_URL": server_url},
        capture_output=True,
        text=True,
        check=False,
    )

    # 1 says that a test failed; anything else, such as 4 for a test that was not found, proves nothing.
    assert run.returncode == 1, run.stdout[-3000:] + run.stderr[-2000:]
    assert "1 failed" in run.stdout, run.stdout[-3000:]
