-- End the pauses whose time is over, and tell which lanes to wake.
-- params: none.
-- returns: queue_id; priority and run_at of each of its lanes that holds something, its oldest run's (NULLs, once, if
--   none does).
-- locks: queues by id, SKIP LOCKED: who has one locked may be pausing it anew, and is looked at again.
-- index: queues_paused_idx, runs_ready_idx
WITH over AS MATERIALIZED (
    SELECT q.id
    FROM howdah.queues AS q
    WHERE q.paused_until <= howdah.now()
    ORDER BY q.id
    FOR UPDATE OF q SKIP LOCKED
),
ended AS (
    UPDATE howdah.queues AS q
    SET paused_until = NULL,
        paused_at = NULL,
        paused_by = NULL,
        pause_reason = NULL
    FROM over
    WHERE q.id = over.id
    RETURNING q.id
)
SELECT e.id AS queue_id, head.priority, head.run_at
FROM ended AS e
LEFT JOIN LATERAL (
    SELECT p.priority, first.run_at
    FROM (VALUES (0::smallint), (1::smallint), (2::smallint), (3::smallint), (4::smallint)) AS p (priority)
    CROSS JOIN LATERAL (
        SELECT r.run_at
        FROM howdah.runs AS r
        WHERE r.queue_id = e.id AND r.priority = p.priority AND r.lease_token IS NULL AND r.run_at < 'infinity'
        ORDER BY r.run_at
        LIMIT 1
    ) AS first
) AS head ON true
