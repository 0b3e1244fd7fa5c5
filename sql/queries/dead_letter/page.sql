-- A page of a queue's dead letters, newest task first; see howdah.find_dead_letters.
-- params: tenant_id; queue_id; filter (JSON text); before: the last id seen; look_max; row_max.
-- returns: at least one row: task_id (NULL if none fits) and what is known of it; look_end: where the next page
--   begins; is_end.
-- index: dead_letters_pkey, tasks_pkey
SELECT
    d.task_id, g.handler, t.http ->> 'url' AS url, d.priority, d.reason, d.attempt, d.crashes, d.queued_at, d.dead_at, t.tags,
    d.error, howdah.error_fingerprint(d.error) AS fingerprint, f.look_end, f.is_end
FROM howdah.find_dead_letters(
    %(tenant_id)b::integer, %(queue_id)b::integer, %(filter)b::text::jsonb, NULL, '00000000-0000-0000-0000-000000000000',
    %(before)b::uuid, true, %(look_max)b::integer, %(row_max)b::integer
) AS f
LEFT JOIN LATERAL unnest(f.task_ids) AS found (task_id) ON true
LEFT JOIN howdah.dead_letters AS d ON d.tenant_id = %(tenant_id)b::integer AND d.task_id = found.task_id
LEFT JOIN howdah.tasks AS t ON t.tenant_id = %(tenant_id)b::integer AND t.id = d.task_id
LEFT JOIN howdah.targets AS g ON g.id = d.target_id
ORDER BY d.task_id DESC NULLS LAST
