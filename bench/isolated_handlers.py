"""A handler in a child process, apart from the others: a worker that has one starts a child at once."""

from __future__ import annotations

from typing import Any

import howdah


@howdah.handler("bench.isolated", isolation="process")
def isolated(payload: Any) -> None:
    """Do nothing, in a child process."""
