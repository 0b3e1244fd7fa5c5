-- Lanes with ready or scheduled runs and the oldest run_at of each, by skipping through the index: one
-- probe per lane, however long the lanes are.
-- params: after_queue_id, after_priority: lanes above this one (-1, -1 for all); lane_count_max.
-- returns: queue_id, priority, run_at, task_id of the oldest waiting run of each lane, in index order.
-- index: runs_ready_idx
WITH RECURSIVE lane AS (
    (
        SELECT r.queue_id, r.priority, r.run_at, r.task_id, 1 AS ordinal
        FROM howdah.runs AS r
        WHERE r.lease_token IS NULL
            AND (r.queue_id, r.priority) > (%(after_queue_id)b::integer, %(after_priority)b::smallint)
        ORDER BY r.queue_id, r.priority, r.run_at, r.task_id
        LIMIT 1
    )
    UNION ALL
    SELECT step.queue_id, step.priority, step.run_at, step.task_id, lane.ordinal + 1
    FROM lane
    CROSS JOIN LATERAL (
        SELECT r.queue_id, r.priority, r.run_at, r.task_id
        FROM howdah.runs AS r
        WHERE r.lease_token IS NULL AND (r.queue_id, r.priority) > (lane.queue_id, lane.priority)
        ORDER BY r.queue_id, r.priority, r.run_at, r.task_id
        LIMIT 1
    ) AS step
    WHERE lane.ordinal < %(lane_count_max)b::integer
)
SELECT lane.queue_id, lane.priority, lane.run_at, lane.task_id
FROM lane
