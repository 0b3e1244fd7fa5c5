-- The next page of an operation on dead letters; see howdah.find_dead_letters.
-- params: tenant_id; id: the operation; look_max; row_max.
-- returns: one row: task_ids; look_end: where the next page begins, NULL if none was looked at; is_end.
-- index: operations_pkey, dead_letters_queue_idx
-- Ids reach at most a minute ahead of the tasks' creation (see howdah.enqueue_rows), so later ones need no look.
SELECT f.task_ids, f.look_end, f.is_end
FROM howdah.operations AS o
CROSS JOIN LATERAL howdah.find_dead_letters(
    o.tenant_id, o.queue_id, o.filter, o.created_at, o.after_task_id, howdah.id_floor(o.created_at + interval '1 minute'),
    false, %(look_max)b::integer, %(row_max)b::integer
) AS f
WHERE o.tenant_id = %(tenant_id)b::integer AND o.id = %(id)b::uuid
