-- Take a page of dead letters back to their queues; see howdah.replay_rows.
-- params: tenant_id; task_ids; died_until: the operation's start.
-- returns: one row per dead letter that was found: queue_id, priority, run_at of its lane; error.
-- locks: dead letters in task_id order.
SELECT r.queue_id, r.priority, r.run_at, r.error
FROM howdah.replay_rows(%(tenant_id)b::integer, %(task_ids)b::uuid[], %(died_until)b::timestamptz) AS r
