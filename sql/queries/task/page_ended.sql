-- A page of a tenant's tasks that ended with the given outcome, newest first; see task/page.sql.
-- It looks at final rows only; the others of a task are few, and passed by in the index.
-- params: outcome: succeeded, cancelled or expired; tenant_id; before, from: ids below the first and not below the
--   second; queue, handler, tag_name with tag_value, created_after, created_before: filters, or NULL; look_max; row_count.
-- returns: at least one row: id (NULL if none fits); look_count: rows looked at; look_end: the last of them.
-- index: finished_runs_pkey
WITH looked AS MATERIALIZED (
    SELECT f.task_id AS id, f.queue_id, f.queued_at AS created_at, f.outcome
    FROM howdah.finished_runs AS f
    WHERE f.tenant_id = %(tenant_id)b::integer
        AND f.task_id < %(before)b::uuid
        AND f.task_id >= %(from)b::uuid
        AND f.is_final
    ORDER BY f.task_id DESC
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
    WHERE l.outcome = %(outcome)b::text
        AND (%(queue)b::text IS NULL OR l.queue_id = (
            SELECT q.id FROM howdah.queues AS q WHERE q.tenant_id = %(tenant_id)b::integer AND q.name = %(queue)b::text
        ))
        AND (%(handler)b::text IS NULL OR EXISTS (
            SELECT 1
            FROM howdah.tasks AS t
            JOIN howdah.targets AS g ON g.id = t.target_id
            WHERE t.tenant_id = %(tenant_id)b::integer AND t.id = l.id AND g.handler = %(handler)b::text
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
