"""Howdah: a job queue service that rides on PostgreSQL.

What handlers need: `howdah.handler` declares one, `howdah.Context` is what it is
given, `howdah.LeaseLost` is what a transaction of it may raise, and `RetryAfter`,
`Snooze`, `GiveUp` and `Cancel` are what it may decide about its task. Names are
loaded on first use, so importing the package costs nothing and pulls in no server.
"""

from typing import TYPE_CHECKING

__all__ = ["Cancel", "Context", "GiveUp", "LeaseLost", "RetryAfter", "Snooze", "__version__", "handler"]

if TYPE_CHECKING:
    from howdah.context import Context
    from howdah.core.decisions import Cancel, GiveUp, RetryAfter, Snooze
    from howdah.core.errors import LeaseLost
    from howdah.handlers import handler

    __version__: str
else:
    # Under TYPE_CHECKING type checkers would accept any misspelt name.
    _HOMES = {
        "handler": "howdah.handlers",
        "Context": "howdah.context",
        "LeaseLost": "howdah.core.errors",
        **dict.fromkeys(("Cancel", "GiveUp", "RetryAfter", "Snooze"), "howdah.core.decisions"),
    }

    def __getattr__(name):
        """Load a public name on its first use."""
        if name == "__version__":
            from importlib.metadata import version

            value = version("howdah")
        elif name in _HOMES:
            from importlib import import_module

            value = getattr(import_module(_HOMES[name]), name)
        else:
            raise AttributeError(f"module 'howdah' has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__():
        """List the public names too."""
        return sorted({*globals(), *__all__})
