"""Handlers in processes of their own, which can be killed: `@howdah.handler("name", isolation="process")`.

    worker ── socket ──> child        one run at a time each; `children` has the pool, `process` one of them,
       └───── pipe ────> warden       `child` is what runs in it, `wire` what the two say to each other

A child leads a process group. It ends with its worker, however that ends: it reads the
end of its socket, Linux kills it (PR_SET_PDEATHSIG), and the warden kills its group.
"""
