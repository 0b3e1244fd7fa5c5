-- Release parked runs of one lane whose target is served again.
-- params: queue_id; priority; target_ids: the served ones.
-- returns: queue_id, priority, run_at of each run that became claimable; at most 1,000 are looked at.
-- moves: blocked -> waiting (unpark)
-- locks: runs, SKIP LOCKED.
-- index: runs_ready_idx
-- run_at becomes now (or the later due_at), so that the run lies above every worker's horizon.
WITH parked AS MATERIALIZED (
    SELECT r.tenant_id, r.task_id
    FROM howdah.runs AS r
    WHERE r.queue_id = %(queue_id)b::integer
        AND r.priority = %(priority)b::smallint
        AND r.lease_token IS NULL
        AND r.run_at = 'infinity'
        AND r.blocked_by & 8 <> 0
        AND r.target_id = ANY (%(target_ids)b::integer[])
    LIMIT 1000
    FOR UPDATE OF r SKIP LOCKED
)
UPDATE howdah.runs AS r
SET blocked_by = r.blocked_by & ~8,
    run_at = CASE WHEN r.blocked_by & ~8 = 0 THEN greatest(r.due_at, howdah.now()) ELSE 'infinity' END
FROM parked
WHERE r.tenant_id = parked.tenant_id AND r.task_id = parked.task_id
RETURNING r.queue_id, r.priority, r.run_at
