-- Take note that a run is executed from now on with nothing beside it, so that a loss is its own doing.
-- params: tenant_id, task_id, lease_token: the lease; timeout_s: how long it may take.
-- returns: its deadline, in one row; none if the lease is not held any more, or somebody has locked the row: it must
--   not begin then.
-- locks: the run, SKIP LOCKED.
-- index: runs_pkey
WITH held AS MATERIALIZED (
    SELECT r.ctid
    FROM howdah.runs AS r
    WHERE r.tenant_id = %(tenant_id)b::integer
        AND r.task_id = %(task_id)b::uuid
        AND r.lease_token IS NOT DISTINCT FROM %(lease_token)b::uuid
    FOR UPDATE OF r SKIP LOCKED
)
UPDATE howdah.runs AS r
SET alone_state = 2,
    deadline_at = howdah.now() + make_interval(secs => %(timeout_s)b::double precision)
FROM held
WHERE r.ctid = held.ctid
RETURNING r.deadline_at
