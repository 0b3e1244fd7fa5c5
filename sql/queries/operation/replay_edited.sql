-- Make new tasks of a page of dead letters, with the edits of the operation; see howdah.replay_edited_rows.
-- params: tenant_id; id: the operation; task_ids; died_until: the operation's start.
-- returns: one row per dead letter that was found: queue_id, priority, run_at of the new task's lane; error.
-- locks: dead letters in task_id order.
-- index: operations_pkey
SELECT r.queue_id, r.priority, r.run_at, r.error
FROM howdah.operations AS o
CROSS JOIN LATERAL howdah.replay_edited_rows(
    o.tenant_id, %(task_ids)b::uuid[], o.edits, %(died_until)b::timestamptz
) AS r
WHERE o.tenant_id = %(tenant_id)b::integer AND o.id = %(id)b::uuid
