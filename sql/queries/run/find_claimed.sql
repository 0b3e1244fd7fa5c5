-- The runs that a claim took whose answer was lost, found by the claim's token.
-- params: lease_token; worker_id.
-- returns: rows as run/claim returns them.
-- index: runs_lease_idx, tasks_pkey
SELECT
    r.tenant_id, r.task_id, r.queue_id, r.target_id, r.priority, r.claim_no, r.attempt, r.run_at, r.queued_at,
    coalesce(t.timeout_s, q.timeout_s) AS timeout_s, r.deadline_at,
    t.id IS NOT NULL AS has_task, t.payload, t.http, t.tags, t.traceparent, t.parent_id, t.completes_batch_id,
    r.flow_key_id, r.batch_id, r.has_follow_ups, r.crashes
FROM howdah.runs AS r
JOIN howdah.queues AS q ON q.id = r.queue_id
LEFT JOIN howdah.tasks AS t ON t.tenant_id = r.tenant_id AND t.id = r.task_id
WHERE r.lease_expires_at IS NOT NULL AND r.lease_token = %(lease_token)b::uuid AND r.worker_id = %(worker_id)b::integer
ORDER BY r.run_at, r.task_id
