-- What a queue holds now. Counts look at no more than count_max rows of each kind, so they stay fast at
-- any backlog; a count that reaches count_max means "at least".
-- params: queue_id; count_max.
-- returns: one row: queued, scheduled, retrying, blocked, running, dead_letters, oldest_queued_at, oldest_age_s.
-- index: runs_ready_idx, runs_lease_idx, dead_letters_queue_idx
WITH waiting AS MATERIALIZED (
    SELECT lane.priority, r.blocked_by, r.attempt, r.run_at
    FROM generate_series(0, 4) AS lane (priority)
    CROSS JOIN LATERAL (
        SELECT w.blocked_by, w.attempt, w.run_at
        FROM howdah.runs AS w
        WHERE w.queue_id = %(queue_id)b::integer AND w.priority = lane.priority AND w.lease_token IS NULL
        ORDER BY w.run_at
        LIMIT %(count_max)b::integer
    ) AS r
),
state AS (
    SELECT howdah.run_state(NULL, w.blocked_by, w.attempt, w.run_at, howdah.now()) AS name, w.run_at
    FROM waiting AS w
)
SELECT
    count(*) FILTER (WHERE s.name = 'queued') AS queued,
    count(*) FILTER (WHERE s.name = 'scheduled') AS scheduled,
    count(*) FILTER (WHERE s.name = 'retrying') AS retrying,
    count(*) FILTER (WHERE s.name = 'blocked') AS blocked,
    (
        SELECT count(*)
        FROM (
            SELECT 1
            FROM howdah.runs AS r
            WHERE r.queue_id = %(queue_id)b::integer AND r.lease_expires_at IS NOT NULL
            LIMIT %(count_max)b::integer
        ) AS running
    ) AS running,
    (
        SELECT count(*)
        FROM (
            SELECT 1
            FROM howdah.dead_letters AS d
            WHERE d.queue_id = %(queue_id)b::integer
            LIMIT %(count_max)b::integer
        ) AS dead
    ) AS dead_letters,
    min(s.run_at) FILTER (WHERE s.name = 'queued') AS oldest_queued_at,
    extract(epoch FROM howdah.now() - min(s.run_at) FILTER (WHERE s.name = 'queued'))::double precision AS oldest_age_s
FROM state AS s
