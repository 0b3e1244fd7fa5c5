-- Park due runs of one lane whose target no live worker serves, so that they do not lie at its head.
-- params: queue_id; priority; target_ids: the unserved ones.
-- returns: task_id of each parked run; looks at the 1,000 oldest due runs of the lane.
-- moves: waiting -> blocked (park)
-- locks: runs by run_at, SKIP LOCKED.
-- index: runs_ready_idx, runs_pkey
-- A waiting run is told by its worker_id where it is locked: with lease_token IS NULL there, stale
-- statistics made the planner walk runs_ready_idx from its start for each row instead of runs_pkey.
WITH head AS MATERIALIZED (
    SELECT r.tenant_id, r.task_id
    FROM (
        SELECT o.tenant_id, o.task_id, o.target_id
        FROM howdah.runs AS o
        WHERE o.queue_id = %(queue_id)b::integer
            AND o.priority = %(priority)b::smallint
            AND o.lease_token IS NULL
            AND o.run_at <= howdah.now()
        ORDER BY o.run_at, o.task_id
        LIMIT 1000
    ) AS oldest
    JOIN howdah.runs AS r ON r.tenant_id = oldest.tenant_id AND r.task_id = oldest.task_id
    WHERE oldest.target_id = ANY (%(target_ids)b::integer[])
        AND r.run_at <= howdah.now()
        AND r.worker_id IS NULL
    FOR UPDATE OF r SKIP LOCKED
)
UPDATE howdah.runs AS r
SET blocked_by = r.blocked_by | 8,
    due_at = r.run_at,
    run_at = 'infinity'
FROM head
WHERE r.tenant_id = head.tenant_id AND r.task_id = head.task_id
RETURNING r.task_id
