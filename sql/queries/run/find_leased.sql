-- Where leases are held, for counting how they ended: a consumer that reports over HTTP knows no queue and no clock.
-- params: tenant_ids, task_ids, lease_tokens: one element per lease.
-- returns: (tenant_id, task_id, lease_token) of each lease that is held; queue_id; held_s: seconds since its claim; is_limited: whether
--   its queue has limits; flow_key_id; batch_id; has_follow_ups: its end is to be followed by howdah.follow.
-- index: runs_pkey
-- IS NOT DISTINCT FROM for the reason given in run/complete.
SELECT
    r.tenant_id, r.task_id, r.lease_token, r.queue_id, extract(epoch FROM howdah.now() - r.claimed_at)::double precision AS held_s,
    coalesce((SELECT q.is_limited FROM howdah.queues AS q WHERE q.id = r.queue_id), false) AS is_limited, r.flow_key_id,
    r.batch_id, r.has_follow_ups IS NOT NULL AS has_follow_ups
FROM unnest(%(tenant_ids)b::integer[], %(task_ids)b::uuid[], %(lease_tokens)b::uuid[]) AS i (tenant_id, task_id, lease_token)
CROSS JOIN LATERAL (
    SELECT l.tenant_id, l.task_id, l.lease_token, l.queue_id, l.claimed_at, l.flow_key_id, l.batch_id, l.has_follow_ups
    FROM howdah.runs AS l
    WHERE l.tenant_id = i.tenant_id AND l.task_id = i.task_id AND l.lease_token IS NOT DISTINCT FROM i.lease_token
) AS r
