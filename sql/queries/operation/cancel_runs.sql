-- Cancel a page of tasks; see howdah.cancel_runs.
-- params: tenant_id; task_ids; mode: soft or hard; stage: waiting, running, or NULL for both.
-- returns: one row per run that was found: state (cancelled or running), is_news, worker_id.
-- locks: runs in task_id order.
SELECT c.state, c.is_news, c.worker_id
FROM howdah.cancel_runs(%(tenant_id)b::integer, %(task_ids)b::uuid[], %(mode)b::text, %(stage)b::text) AS c
