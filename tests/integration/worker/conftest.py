"""Runs tests that depend on it on both event loops: asyncio's own and uvloop, which production uses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.fix_hostile import loop_factories

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pytest


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Choose the loops that a test runs on, once for each."""
    if item.path.name.startswith(("test_callback", "test_worker_tasks")):
        return loop_factories()
    return {"asyncio": asyncio.new_event_loop}
