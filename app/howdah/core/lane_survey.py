"""Going through the lanes in which runs wait, where there are too many lanes to peek at all of them. Pure.

A survey begins at the first lane and comes page by page to the last. It passes by runs
that an earlier one has seen, with `LAG_US` for transactions that commit late.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from howdah.core.model import LaneKey

# As behind a peek: what was made ready in a transaction that took seconds is still found.
LAG_US: Final = 10_000_000
_START: Final = LaneKey(-1, -1)


class Page(NamedTuple):
    """What to look at next.

    Attributes:
        after: The last lane seen; queue -1 at the start.
        horizon_run_at: Older runs are not looked for.
        begun_at: When the survey began.
    """

    after: LaneKey
    horizon_run_at: int
    begun_at: int


class LaneSurvey:
    """Whether a survey is wanted, and how far it has come."""

    def __init__(self) -> None:
        """Begin with nothing wanted, and nothing seen."""
        self._page: Page | None = None
        self._is_wanted = False
        self._seen_to = 0

    def want(self) -> None:
        """Ask for a survey, unless one is under way."""
        self._is_wanted |= self._page is None

    def want_anew(self) -> None:
        """Ask for a survey of all runs, from the first lane on."""
        self._page, self._is_wanted, self._seen_to = None, True, 0

    def page(self, now: int) -> Page | None:
        """Return what to look at next, if a survey is wanted or under way."""
        if self._is_wanted:
            self._is_wanted = False
            self._page = Page(_START, self._seen_to, now)
        return self._page

    def turn(self, page: Page, last: LaneKey | None) -> None:
        """Go on behind the last lane of a page; None if it was the last page."""
        if page is not self._page:
            return  # Begun anew meanwhile.
        if last is not None:
            self._page = page._replace(after=last)
        else:
            self._page = None
            self._seen_to = max(0, page.begun_at - LAG_US)
