-- Lease ready runs of lanes whose queues have limits: what run/claim does for all others.
-- params: queue_ids, priorities, horizon_run_ats, horizon_task_ids, shares: one element per lane (at most 256);
--   target_ids: what the worker serves; worker_id; lease_token: a new random UUID; lease_s, grace_s: seconds.
-- returns: as run/claim; and for each lane that may have more due runs although its share was not filled a row in
--   which only queue_id and priority are not NULL.
-- moves: waiting -> running (claim)
SELECT
    c.tenant_id, c.task_id, c.queue_id, c.target_id, c.priority, c.claim_no, c.attempt, c.run_at, c.queued_at,
    c.timeout_s, c.deadline_at, c.has_task, c.payload, c.http, c.tags, c.traceparent, c.parent_id,
    c.completes_batch_id, c.flow_key_id, c.batch_id, c.has_follow_ups, c.crashes
FROM howdah.claim_limited(
    %(queue_ids)b::integer[], %(priorities)b::smallint[], %(horizon_run_ats)b::timestamptz[],
    %(horizon_task_ids)b::uuid[], %(shares)b::integer[], %(target_ids)b::integer[], %(worker_id)b::integer,
    %(lease_token)b::uuid, %(lease_s)b::double precision, %(grace_s)b::double precision
) AS c
