"""How many files and sockets this process may have open."""

from __future__ import annotations

import resource
from typing import Final

# Chosen: six for each of the 10,000 runs that a worker may have under way at most. Where the hard limit is
# a billion, taking all of it would slow down programs that handlers start and that close every number.
OPEN_FILES_MAX: Final = 65_536


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one, at most to `OPEN_FILES_MAX`; return what it is then.

    The usual soft limit of 1,024 is kept low for programs that use select(); each callback
    under way needs a socket, so may each handler, and so does each client of the API.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return OPEN_FILES_MAX
    wanted = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)
