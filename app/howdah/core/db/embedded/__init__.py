"""An embedded PostgreSQL: binaries found here, started and stopped with us.

For `howdah up` and for tests, where nobody has set up a server. Only the
standard library is used, and all of it blocks. `server` is the life cycle,
`binaries` finds a PostgreSQL to run, `account` is the user it runs as,
`places` decides where its files lie, `lockfile` reads `postmaster.pid`, and
`launch` is the small program that turns into the server.
"""

from howdah.core.db.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres"]
