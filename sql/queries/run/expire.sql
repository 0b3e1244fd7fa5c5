-- End a page of tasks whose expires_at has passed before a worker took them, the longest expired first.
-- params: has_follow_ups: of these tasks, or of those that have none; passed_by: task ids that are left alone; run_count_max.
-- returns: tenant_id, task_id, queue_id of each; left_key_id: the flow key of which it held a place; batch_id.
-- moves: waiting -> expired (expire)
-- moves: blocked -> expired (expire)
-- locks: runs by expires_at, SKIP LOCKED.
-- index: runs_expiry_idx, runs_pkey
-- A run that a claim has locked at this moment is passed by, and the claim passes by those locked here: the
-- one that comes second looks at the row as the first left it. A claimed run has left the index.
WITH outlived AS MATERIALIZED (
    SELECT r.tenant_id, r.task_id
    FROM howdah.runs AS r
    WHERE r.expires_at IS NOT NULL AND r.lease_token IS NULL AND r.expires_at <= howdah.now()
        AND (r.has_follow_ups IS NOT NULL) = %(has_follow_ups)b::boolean
        AND r.task_id <> ALL (%(passed_by)b::uuid[])
    ORDER BY r.expires_at
    LIMIT %(run_count_max)b::integer
    FOR UPDATE OF r SKIP LOCKED
),
ended AS (
    DELETE FROM howdah.runs AS r
    USING outlived AS o
    WHERE r.tenant_id = o.tenant_id AND r.task_id = o.task_id
    RETURNING r.tenant_id, r.task_id, r.queue_id, r.attempt, r.queued_at,
        CASE WHEN r.flow_state = 2 THEN r.flow_key_id END AS left_key_id,
        r.batch_id
),
history AS (
    INSERT INTO howdah.finished_runs (
        tenant_id, task_id, claim_no, attempt, queue_id, outcome, is_final, queued_at, finished_at, batch_id
    )
    SELECT e.tenant_id, e.task_id, 0, e.attempt, e.queue_id, 'expired', true, e.queued_at, howdah.now(), e.batch_id
    FROM ended AS e
)
SELECT e.tenant_id, e.task_id, e.queue_id, e.left_key_id, e.batch_id
FROM ended AS e
