-- A page of a tenant's tasks, newest first. It looks at no more than look_max rows, so it may be short or empty before
-- the list ends.
-- params: tenant_id; before, from: ids below the first and not below the second; queue, handler, tag_name with
--   tag_value, created_after, created_before: filters, or NULL; look_max; row_count.
-- returns: at least one row: id (NULL if none fits); look_count: rows looked at; look_end: the last of them.
-- index: tasks_pkey
WITH looked AS MATERIALIZED (
    SELECT t.id, t.queue_id, t.target_id, t.created_at, t.tags ->> %(tag_name)b::text AS tag_value
    FROM howdah.tasks AS t
    WHERE t.tenant_id = %(tenant_id)b::integer AND t.id < %(before)b::uuid AND t.id >= %(from)b::uuid
    ORDER BY t.id DESC
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
    WHERE (%(queue)b::text IS NULL OR l.queue_id = (
            SELECT q.id FROM howdah.queues AS q WHERE q.tenant_id = %(tenant_id)b::integer AND q.name = %(queue)b::text
        ))
        AND (%(handler)b::text IS NULL OR l.target_id = (
            SELECT g.id FROM howdah.targets AS g WHERE g.tenant_id = %(tenant_id)b::integer AND g.handler = %(handler)b::text
        ))
        AND (%(tag_name)b::text IS NULL OR l.tag_value = %(tag_value)b::text)
        AND (%(created_after)b::timestamptz IS NULL OR l.created_at >= %(created_after)b::timestamptz)
        AND (%(created_before)b::timestamptz IS NULL OR l.created_at < %(created_before)b::timestamptz)
    ORDER BY l.id DESC
    LIMIT %(row_count)b::integer
) AS found ON true
ORDER BY found.id DESC
