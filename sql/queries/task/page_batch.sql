-- A page of the tasks of a batch, in any state or in one, newest first; see task/page.sql. The state of each row looked
-- at is asked for, so look_max should be smaller.
-- params: tenant_id; batch; state, or NULL; before, from: ids below the first and not below the second; queue, handler,
--   tag_name with tag_value, created_after, created_before: filters, or NULL; look_max; row_count.
-- returns: at least one row: id (NULL if none fits); look_count: rows looked at; look_end: the last of them.
-- index: batch_tasks_pkey
WITH looked AS MATERIALIZED (
    SELECT b.task_id AS id
    FROM howdah.batch_tasks AS b
    WHERE b.tenant_id = %(tenant_id)b::integer
        AND b.batch_id = %(batch)b::uuid
        AND b.task_id < %(before)b::uuid
        AND b.task_id >= %(from)b::uuid
    ORDER BY b.task_id DESC
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
    WHERE EXISTS (
            SELECT 1
            FROM howdah.tasks AS t
            WHERE t.tenant_id = %(tenant_id)b::integer
                AND t.id = l.id
                AND (%(queue)b::text IS NULL OR t.queue_id = (
                    SELECT q.id FROM howdah.queues AS q WHERE q.tenant_id = %(tenant_id)b::integer AND q.name = %(queue)b::text
                ))
                AND (%(handler)b::text IS NULL OR t.target_id = (
                    SELECT g.id FROM howdah.targets AS g WHERE g.tenant_id = %(tenant_id)b::integer AND g.handler = %(handler)b::text
                ))
                AND (%(tag_name)b::text IS NULL OR t.tags ->> %(tag_name)b::text = %(tag_value)b::text)
                AND (%(created_after)b::timestamptz IS NULL OR t.created_at >= %(created_after)b::timestamptz)
                AND (%(created_before)b::timestamptz IS NULL OR t.created_at < %(created_before)b::timestamptz)
        )
        AND (%(state)b::text IS NULL OR howdah.task_state(%(tenant_id)b::integer, l.id) = %(state)b::text)
    ORDER BY l.id DESC
    LIMIT %(row_count)b::integer
) AS found ON true
ORDER BY found.id DESC
