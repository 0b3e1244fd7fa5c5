"""Group commit of tasks with a dedup or flow key, or a batch: apart from others, for these may be held up.

A SQL client that has taken a dedup key, made a flow key, or closed a batch, and has not
committed yet, holds up whoever brings the same key; a batch counts as one here. So these
tasks have a writer of their own, which waits for no key longer than for a commit that is
under way elsewhere. A task whose key takes longer goes to a second writer: one key after
the other, each with all the patience that there is, and then it is refused for now.
Others with a key that is known to be held up line up behind it at once; when it is free,
they go the usual way.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from msgspec import UNSET

from howdah.api.committer import Committer
from howdah.api.database import LOCK_S_MAX
from howdah.core.store.tasks import BATCH_IN_USE, DEDUP_KEY_IN_USE, FLOW_KEY_IN_USE, KEYS_IN_USE, Stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from howdah.api.committer import Entry

# What a batch waits for one key: longer than a commit takes on most disks (1 to 5 ms measured), and too
# short for its neighbours to mind.
KEY_S_MAX: Final = 0.02


class KeyedCommitter(Committer):
    """Commits tasks with keys together; those whose keys are held up are handed on."""

    def __init__(self, held: HeldCommitter, **parts: Any) -> None:
        """Hand on to `held`; `parts` are a `Committer`'s."""
        super().__init__(**parts, lock_s_max=KEY_S_MAX)
        self._held = held
        held.hand_back = super().submit

    def submit(self, entry: Entry) -> None:
        """Commit a task with the next batch, or behind others whose key is held up."""
        if self._held.is_waiting_for(entry):
            self._held.submit(entry)
        else:
            super().submit(entry)

    def _deliver(self, entry: Entry, row: Stored) -> None:
        if row.error in KEYS_IN_USE:
            self._held.submit(entry)
        else:
            super()._deliver(entry, row)


class HeldCommitter(Committer):
    """Commits tasks whose keys are held up, one at a time; what waits for longer than `LOCK_S_MAX` is refused.

    Attributes:
        hand_back: Takes tasks whose key was waited for with success.
    """

    hand_back: Callable[[Entry], None]

    def __init__(self, **parts: Any) -> None:
        """`parts` are a `Committer`'s."""
        super().__init__(**parts, lock_s_max=LOCK_S_MAX)

    def submit(self, entry: Entry) -> None:
        """Wait for the key of a task."""
        entry.refuse_at = time.monotonic() + LOCK_S_MAX
        super().submit(entry)

    def is_waiting_for(self, entry: Entry) -> bool:
        """Tell whether a task with the same key is held up; these are few."""
        return any(each.name == entry.name for each in (*self._waiting, *self._under_way))

    def _take(self) -> list[Entry]:
        now = time.monotonic()
        waiting, self._waiting = self._waiting, []
        for entry in waiting:
            if entry.refuse_at > now:
                self._waiting.append(entry)
            else:
                super()._deliver(entry, _refused(entry))
        first, self._waiting = self._waiting[:1], self._waiting[1:]
        return first

    def _deliver(self, entry: Entry, row: Stored) -> None:
        super()._deliver(entry, row)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if each.name != entry.name:
                self._waiting.append(each)
            elif row.error in KEYS_IN_USE:
                super()._deliver(each, row)
            else:
                self.hand_back(each)


def _refused(entry: Entry) -> Stored:
    if entry.task.dedup is not UNSET:
        return Stored(0, None, False, DEDUP_KEY_IN_USE)
    return Stored(0, None, False, BATCH_IN_USE if entry.task.flow is UNSET else FLOW_KEY_IN_USE)
