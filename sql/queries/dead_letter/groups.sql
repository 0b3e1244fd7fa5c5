-- The newest dead letters of a queue, grouped by what their errors have in common, the largest groups first.
-- params: tenant_id; queue_id; filter (JSON text); look_max; group_count.
-- returns: at least one row: fingerprint (NULL if none fits), error_type, letter_count, first_dead_at, last_dead_at; of the
--   last of them task_id and error_message; look_count: dead letters looked at; is_end: they are all; group_total.
-- index: dead_letters_pkey
WITH found AS MATERIALIZED (
    SELECT f.task_ids, f.look_count, f.is_end
    FROM howdah.find_dead_letters(
        %(tenant_id)b::integer, %(queue_id)b::integer, %(filter)b::text::jsonb, NULL, '00000000-0000-0000-0000-000000000000',
        'ffffffff-ffff-ffff-ffff-ffffffffffff', true, %(look_max)b::integer, %(look_max)b::integer
    ) AS f
),
letter AS MATERIALIZED (
    SELECT d.task_id, d.dead_at, d.error, howdah.error_fingerprint(d.error) AS fingerprint
    FROM found AS f
    CROSS JOIN LATERAL unnest(f.task_ids) AS i (task_id)
    JOIN howdah.dead_letters AS d ON d.tenant_id = %(tenant_id)b::integer AND d.task_id = i.task_id
),
kind AS (
    SELECT
        l.fingerprint,
        count(*)::integer AS letter_count,
        min(l.dead_at) AS first_dead_at,
        max(l.dead_at) AS last_dead_at,
        (array_agg(l.task_id ORDER BY l.dead_at DESC, l.task_id DESC))[1] AS task_id,
        (array_agg(l.error ORDER BY l.dead_at DESC, l.task_id DESC))[1] AS error,
        count(*) OVER ()::integer AS group_total
    FROM letter AS l
    GROUP BY l.fingerprint
    ORDER BY count(*) DESC, max(l.dead_at) DESC, l.fingerprint
    LIMIT %(group_count)b::integer
)
SELECT
    k.fingerprint, k.error ->> 'type' AS error_type, k.letter_count, k.first_dead_at, k.last_dead_at, k.task_id,
    k.error ->> 'message' AS error_message, f.look_count, f.is_end, coalesce(k.group_total, 0) AS group_total
FROM found AS f
LEFT JOIN kind AS k ON true
ORDER BY k.letter_count DESC NULLS LAST, k.last_dead_at DESC, k.fingerprint
