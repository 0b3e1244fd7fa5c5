-- A page of the lanes in which runs wait, by skipping through the index: one probe per lane, however
-- long the lanes are.
-- params: after_queue_id, after_priority: the last lane seen (-1, -1 from the start); lane_count_max.
-- returns: queue_id, priority of each lane in index order; due_at: since when its oldest run is due, NULL
--   if it is not.
-- index: runs_ready_idx
WITH RECURSIVE lane AS (
    (
        SELECT r.queue_id, r.priority, r.run_at, 1 AS ordinal
        FROM howdah.runs AS r
        WHERE r.lease_token IS NULL
            AND (r.queue_id, r.priority) > (%(after_queue_id)b::integer, %(after_priority)b::smallint)
        ORDER BY r.queue_id, r.priority, r.run_at
        LIMIT 1
    )
    UNION ALL
    SELECT step.queue_id, step.priority, step.run_at, lane.ordinal + 1
    FROM lane
    CROSS JOIN LATERAL (
        SELECT r.queue_id, r.priority, r.run_at
        FROM howdah.runs AS r
        WHERE r.lease_token IS NULL AND (r.queue_id, r.priority) > (lane.queue_id, lane.priority)
        ORDER BY r.queue_id, r.priority, r.run_at
        LIMIT 1
    ) AS step
    WHERE lane.ordinal < %(lane_count_max)b::integer
)
SELECT lane.queue_id, lane.priority, CASE WHEN lane.run_at <= howdah.now() THEN lane.run_at END AS due_at
FROM lane
