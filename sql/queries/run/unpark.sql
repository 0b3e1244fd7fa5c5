-- Release parked runs of one lane whose target is served again.
-- params: queue_id; priority; target_ids: the served ones; after_task_id: the last run seen in this lane
--   (the zero UUID from the start).
-- returns: at most 1,000 runs, by task_id: task_id; is_released: false if its row is locked now (ask again);
--   run_at: when it may be claimed, NULL if it is locked or something else blocks it too.
-- moves: blocked -> waiting (unpark)
-- locks: runs by task_id, SKIP LOCKED.
-- index: runs_ready_idx
-- run_at becomes now (or the later due_at), so that the run lies above every worker's horizon. Going on
-- behind the last run seen keeps a lane in which many other runs stay parked from being walked again for
-- each page. Rows that are locked are reported: forgotten, they would stay parked for ever.
-- The answer is put together without a join of the parts: the hot path's plans know nested loops only,
-- and 1,000 runs with themselves took 0.5 s in one.
WITH parked AS MATERIALIZED (
    SELECT r.tenant_id, r.task_id
    FROM howdah.runs AS r
    WHERE r.queue_id = %(queue_id)b::integer
        AND r.priority = %(priority)b::smallint
        AND r.lease_token IS NULL
        AND r.run_at = 'infinity'
        AND r.task_id > %(after_task_id)b::uuid
        AND r.blocked_by & 8 <> 0
        AND r.target_id = ANY (%(target_ids)b::integer[])
    ORDER BY r.task_id
    LIMIT 1000
),
held AS MATERIALIZED (
    SELECT r.tenant_id, r.task_id
    FROM parked AS p
    JOIN howdah.runs AS r ON r.tenant_id = p.tenant_id AND r.task_id = p.task_id
    WHERE r.blocked_by & 8 <> 0
    ORDER BY r.task_id
    FOR UPDATE OF r SKIP LOCKED
),
released AS (
    UPDATE howdah.runs AS r
    SET blocked_by = r.blocked_by & ~8,
        run_at = CASE WHEN r.blocked_by & ~8 = 0 THEN greatest(r.due_at, howdah.now()) ELSE 'infinity' END
    FROM held
    WHERE r.tenant_id = held.tenant_id AND r.task_id = held.task_id
    RETURNING r.task_id, r.run_at
)
SELECT r.task_id, true AS is_released, CASE WHEN isfinite(r.run_at) THEN r.run_at END AS run_at
FROM released AS r
UNION ALL
SELECT p.task_id, false, NULL
FROM parked AS p
WHERE p.task_id NOT IN (SELECT h.task_id FROM held AS h)
ORDER BY task_id
