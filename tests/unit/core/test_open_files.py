"""The limit of open files."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from howdah.core import open_files
soft, hard, open_files.OPEN_FILES_MAX = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(open_files.raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "most", "then"),
    [(64, 512, 1_000, 512), (512, 512, 1_000, 512), (64, 512, 256, 256), (300, 512, 256, 300)],
)
def test_raise_limit_reaches_the_hard_limit_and_never_lowers(soft: int, hard: int, most: int, then: int) -> None:
    """A process may open what its supervisor allows, up to what it can use; the hard limit stays as it was."""
    # In a process of its own: a hard limit that was lowered stays so.
    command = [sys.executable, "-Ic", SCRIPT, str(soft), str(hard), str(most)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert printed.split() == [str(then), str(then), str(hard)]
