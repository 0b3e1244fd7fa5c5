-- A task with everything a client may see of it; its state is read from where its row is.
-- params: tenant_id; id.
-- returns: one row or none.
-- index: tasks_pkey, runs_pkey, finished_runs_pkey, dead_letters_pkey, task_logs_progress_idx
-- Apart from task/get_many, because one id can be followed into every table: planned for any task, this reads
-- one partition of each in 0.5 ms, and with ANY it opened all of them (48 days: 11 ms). A test keeps them alike.
SELECT
    t.id, q.name AS queue, g.handler, t.http, t.priority, t.created_at, t.tags, t.dedup, t.retry, t.flow, t.payload, t.traceparent, t.replayed_from,
    t.parent_id, t.batch_id, t.completes_batch_id, t.follow_ups,
    coalesce(t.timeout_s, q.timeout_s) AS timeout_s,
    howdah.task_state(t.tenant_id, t.id) AS state,
    coalesce(r.due_at, t.run_at) AS run_at,
    t.expires_at,
    coalesce(r.attempt, d.attempt, f.attempt, 0) AS attempt,
    coalesce(r.claim_no, d.claim_no, f.claim_no, 0) AS claim_no,
    howdah.retry_policy(q.retry, t.retry) ->> 'max_attempts' AS max_attempts,
    r.blocked_by,
    r.lease_expires_at, r.deadline_at, CASE WHEN r.awaiting_at IS NULL THEN w.name END AS worker, r.cancel_mode,
    f.result, f.response_status, coalesce(f.finished_at, d.dead_at) AS finished_at,
    coalesce(f.error, d.error, last.error) AS error,
    d.reason AS dead_reason,
    said.fraction AS progress_fraction, said.message AS progress_message, said.logged_at AS progress_at
FROM howdah.tasks AS t
JOIN howdah.queues AS q ON q.id = t.queue_id
JOIN howdah.targets AS g ON g.id = t.target_id
LEFT JOIN howdah.runs AS r ON r.tenant_id = t.tenant_id AND r.task_id = t.id
LEFT JOIN howdah.workers AS w ON w.id = r.worker_id
LEFT JOIN howdah.dead_letters AS d ON d.tenant_id = t.tenant_id AND d.task_id = t.id
LEFT JOIN LATERAL (
    SELECT h.result, h.response_status, h.finished_at, h.error, h.attempt, h.claim_no
    FROM howdah.finished_runs AS h
    WHERE h.tenant_id = t.tenant_id AND h.task_id = t.id AND h.is_final AND r.task_id IS NULL
    ORDER BY h.finished_at DESC
    LIMIT 1
) AS f ON true
LEFT JOIN LATERAL (
    SELECT h.error
    FROM howdah.finished_runs AS h
    WHERE h.tenant_id = t.tenant_id AND h.task_id = t.id AND h.error IS NOT NULL
    ORDER BY h.claim_no DESC
    LIMIT 1
) AS last ON true
LEFT JOIN LATERAL (
    SELECT l.fraction, l.message, l.logged_at
    FROM howdah.task_logs AS l
    WHERE l.tenant_id = t.tenant_id AND l.task_id = t.id AND l.fraction IS NOT NULL
        AND l.claim_no = coalesce(r.claim_no, d.claim_no, f.claim_no)
    ORDER BY l.seq DESC
    LIMIT 1
) AS said ON true
WHERE t.tenant_id = %(tenant_id)b::integer AND t.id = %(id)b::uuid
