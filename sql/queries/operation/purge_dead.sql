-- Drop a page of dead letters; see howdah.purge_dead_letters.
-- params: tenant_id; task_ids; died_until: the operation's start.
-- returns: one row per dead letter that was dropped: task_id.
-- locks: dead letters in task_id order.
SELECT p.task_id
FROM howdah.purge_dead_letters(%(tenant_id)b::integer, %(task_ids)b::uuid[], %(died_until)b::timestamptz) AS p
