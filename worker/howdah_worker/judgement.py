"""What is reported of a run whose handler was made to stop, or was asked to, or that has no task. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from howdah_worker import outcome
from howdah_worker.run import Stop

if TYPE_CHECKING:
    from howdah_worker.outcome import Ending
    from howdah_worker.run import Run


# Retention rewrites a partition: its tasks are away for a moment, and their runs wait.
_TASK_AWAY_S: Final = 1.0
# A short timeout ends the lease 10 s later at the latest.
_TASK_AWAY_S_MAX: Final = 8.0
_RELEASES_MAX: Final = 8
_TASK_GONE_RETRY_S: Final = 60.0


def judge_taskless(run: Run) -> tuple[float, Ending]:
    """Decide how long a run whose task cannot be found is kept, and what is then reported.

    It is handed back, each time after a longer wait, for about a minute; from then on its
    attempts fail a minute apart, until its policy makes it a dead letter. Without its task,
    the policy is that of its queue.
    """
    # Claims that were handed back count, and spend no attempt.
    releases = run.claim_no - run.attempt
    wait_s = min(_TASK_AWAY_S * 2 ** min(releases, _RELEASES_MAX), _TASK_AWAY_S_MAX)
    if releases < _RELEASES_MAX:
        return wait_s, outcome.RELEASED
    return wait_s, outcome.task_gone(_TASK_GONE_RETRY_S)


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
