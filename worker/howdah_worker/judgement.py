"""What is reported of a run whose handler was made to stop, or was asked to. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from howdah_worker import outcome
from howdah_worker.run import Stop

if TYPE_CHECKING:
    from howdah_worker.outcome import Ending
    from howdah_worker.run import Run


def judge(run: Run, ending: Ending, is_interrupted: bool) -> Ending | None:
    """Decide what is reported of a run whose handler ended, or is given up.

    Args:
        run: Tells why the handler was to stop, if it was, and whether it saw that.
        ending: What the handler itself did.
        is_interrupted: It did not get to its end.

    Returns:
        What to report, or None for nothing.
    """
    match run.stop:
        case None:
            if not run.has_seen or ending.outcome != "succeeded":
                return ending
            # It has looked at `ctx.cancelled` and returned: most likely before it was done.
            return outcome.RELEASED if run.is_fenced else outcome.cancelled("the handler stopped when it was asked to")
        case Stop.TIMEOUT:
            return outcome.timed_out(run.timeout_s)
        case Stop.CANCEL:
            return outcome.cancelled("stopped by request")
        case Stop.LOST:
            return None
        case Stop.FENCE | Stop.DRAIN:
            return outcome.RELEASED if is_interrupted else ending
