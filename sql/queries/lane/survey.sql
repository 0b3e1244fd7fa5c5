-- A page of the lanes in which runs wait, by skipping through the index: one probe per lane that has some, however
-- many lanes a worker knows. So it finds what to peek at where there are very many.
-- params: after_queue_id, after_priority: the last lane seen (-1, -1 from the start); horizon_run_at: older runs
--   do not count; lane_count_max.
-- returns: queue_id, priority of each lane in index order; run_at of its first run, which may be far ahead.
-- index: runs_ready_idx
-- The horizon is checked in the index: entries of runs that have gone, which an open snapshot keeps, cost no look at
-- the table. They cost a step through the index, though, and so do runs that wait and are older: 28 to 64 ms were seen
-- for a million of them in one lane. (To find the next lane without the horizon would look at each run that has gone.)
WITH RECURSIVE lane AS (
    (
        SELECT r.queue_id, r.priority, r.run_at, 1 AS ordinal
        FROM howdah.runs AS r
        WHERE r.lease_token IS NULL
            AND (r.queue_id, r.priority) > (%(after_queue_id)b::integer, %(after_priority)b::smallint)
            AND r.run_at >= %(horizon_run_at)b::timestamptz
        ORDER BY r.queue_id, r.priority, r.run_at
        LIMIT 1
    )
    UNION ALL
    SELECT step.queue_id, step.priority, step.run_at, lane.ordinal + 1
    FROM lane
    CROSS JOIN LATERAL (
        SELECT r.queue_id, r.priority, r.run_at
        FROM howdah.runs AS r
        WHERE r.lease_token IS NULL
            AND (r.queue_id, r.priority) > (lane.queue_id, lane.priority)
            AND r.run_at >= %(horizon_run_at)b::timestamptz
        ORDER BY r.queue_id, r.priority, r.run_at
        LIMIT 1
    ) AS step
    WHERE lane.ordinal < %(lane_count_max)b::integer
)
SELECT lane.queue_id, lane.priority, lane.run_at
FROM lane
