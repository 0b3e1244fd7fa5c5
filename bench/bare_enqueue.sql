-- The row work of enqueueing a batch of tasks, as pgbench does it and `Rig.fill` too: no checks, no names
-- to look up, nobody told. They are spread over the queues in turn; http is "none" for a handler's tasks.
WITH stored AS (
    INSERT INTO howdah.tasks (tenant_id, id, queue_id, target_id, priority, created_at, run_at, http, payload)
    SELECT
        1, howdah.new_id(n), (:queue_ids::integer[])[1 + n % cardinality(:queue_ids::integer[])], :target_id::integer, 1,
        howdah.now(), howdah.now(), nullif(:http::text, 'none')::jsonb, :payload::json
    FROM generate_series(1, :batch::integer) AS n
    RETURNING id, queue_id, target_id, priority, run_at
)
INSERT INTO howdah.runs (tenant_id, task_id, queue_id, target_id, priority, run_at, queued_at, due_at)
SELECT 1, s.id, s.queue_id, s.target_id, s.priority, s.run_at, s.run_at, s.run_at
FROM stored AS s;
