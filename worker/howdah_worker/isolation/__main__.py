"""`python -m howdah_worker.isolation`, which a worker calls: a child process."""

from __future__ import annotations

import sys

from howdah_worker.isolation.child import main

main(int(sys.argv[1]), int(sys.argv[2]))
