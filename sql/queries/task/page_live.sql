-- A page of a tenant's tasks that have a live run in the given state, newest first; see task/page.sql.
-- params: state: queued, scheduled, retrying, blocked, running or awaiting_callback; tenant_id; before, from: ids below
--   the first and not below the second; queue, handler, tag_name with tag_value, created_after, created_before: filters, or NULL; look_max;
--   row_count.
-- returns: at least one row: id (NULL if none fits); look_count: rows looked at; look_end: the last of them.
-- index: runs_pkey
WITH looked AS MATERIALIZED (
    SELECT
        r.task_id AS id, r.queue_id, r.target_id, r.queued_at AS created_at,
        CASE
            WHEN r.awaiting_at IS NOT NULL THEN 'awaiting_callback'
            ELSE howdah.run_state(r.lease_token, r.blocked_by, r.attempt, r.run_at, howdah.now())
        END AS state
    FROM howdah.runs AS r
    WHERE r.tenant_id = %(tenant_id)b::integer AND r.task_id < %(before)b::uuid AND r.task_id >= %(from)b::uuid
    ORDER BY r.task_id DESC
    LIMIT %(look_max)b::integer
)
SELECT
    found.id,
    (SELECT count(*) FROM looked)::integer AS look_count,
    (SELECT l.id FROM looked AS l ORDER BY l.id LIMIT 1) AS look_end
FROM (VALUES (0)) AS always (present)
LEFT JOIN (
    SELECT l.id
    FROM looked AS l
    WHERE l.state = %(state)b::text
        AND (%(queue)b::text IS NULL OR l.queue_id = (
            SELECT q.id FROM howdah.queues AS q WHERE q.tenant_id = %(tenant_id)b::integer AND q.name = %(queue)b::text
        ))
        AND (%(handler)b::text IS NULL OR l.target_id = (
            SELECT g.id FROM howdah.targets AS g WHERE g.tenant_id = %(tenant_id)b::integer AND g.handler = %(handler)b::text
        ))
        AND (%(tag_name)b::text IS NULL OR EXISTS (
            SELECT 1
            FROM howdah.tasks AS t
            WHERE t.tenant_id = %(tenant_id)b::integer AND t.id = l.id AND t.tags ->> %(tag_name)b::text = %(tag_value)b::text
        ))
        AND (%(created_after)b::timestamptz IS NULL OR l.created_at >= %(created_after)b::timestamptz)
        AND (%(created_before)b::timestamptz IS NULL OR l.created_at < %(created_before)b::timestamptz)
    ORDER BY l.id DESC
    LIMIT %(row_count)b::integer
) AS found ON true
ORDER BY found.id DESC
