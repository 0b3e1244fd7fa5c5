-- The next run_at of each given lane at or above its horizon, so that a worker knows which lanes have
-- due work and how long it may sleep.
-- params: queue_ids, priorities, horizon_run_ats, horizon_task_ids: one element per lane (at most 1000);
--   target_ids: what the worker serves; ahead_s: runs due later than that are left to another look.
-- returns: queue_id, priority, run_at of each lane that has such a run, and of each lane of a paused queue, where
--   run_at is the end of the pause (NULL: it has none); wait_s: seconds until then; is_paused.
-- index: runs_ready_idx, queues_pkey
-- A paused lane is not looked into. It is told, because a lane of which nothing is said counts as drained.
-- The index does not know targets: without the bound, a lane full of other workers' runs that are due next week was
-- walked to its end (300,000 of them: 0.27 s) each time that this worker found nothing due.
SELECT
    lane.queue_id, lane.priority, coalesce(first.run_at, pause.ends_at) AS run_at,
    extract(epoch FROM coalesce(first.run_at, pause.ends_at) - howdah.now())::double precision AS wait_s, pause.is_on AS is_paused
FROM unnest(
    %(queue_ids)b::integer[], %(priorities)b::smallint[], %(horizon_run_ats)b::timestamptz[], %(horizon_task_ids)b::uuid[]
) AS lane (queue_id, priority, horizon_run_at, horizon_task_id)
JOIN howdah.queues AS q ON q.id = lane.queue_id
CROSS JOIN LATERAL (
    SELECT
        coalesce(q.paused_until > howdah.now(), false) AS is_on,
        CASE WHEN q.paused_until > howdah.now() THEN nullif(q.paused_until, 'infinity') END AS ends_at
) AS pause
LEFT JOIN LATERAL (
    SELECT r.run_at
    FROM howdah.runs AS r
    WHERE r.queue_id = lane.queue_id
        AND r.priority = lane.priority
        AND r.lease_token IS NULL
        AND r.target_id = ANY (%(target_ids)b::integer[])
        AND r.run_at <= howdah.now() + make_interval(secs => %(ahead_s)b::double precision)
        AND (r.run_at, r.task_id) >= (lane.horizon_run_at, lane.horizon_task_id)
    ORDER BY r.run_at, r.task_id
    LIMIT 1
) AS first ON NOT pause.is_on
WHERE pause.is_on OR first.run_at IS NOT NULL
