-- Lock a page of runs whose lease has run out, oldest first, to be failed as lost or timed out in the same transaction.
-- params: hold_until: leases that ended before it count no crash (their workers could not renew them).
-- returns: tenant_id, task_id, lease_token, counts_crash; queue_id, is_limited (of its queue), flow_key_id, batch_id,
--   has_follow_ups: howdah.follow is to be called if it ends here; silent: who
--   was not heard of, worker, or of a run that waits for its callback receiver (its heartbeat is overdue) or callback
--   (it did not come in time); at most 500 rows.
-- locks: runs by lease_expires_at, SKIP LOCKED.
-- index: runs_lease_idx
SELECT
    r.tenant_id,
    r.task_id,
    r.lease_token,
    coalesce(r.lease_expires_at >= %(hold_until)b::timestamptz, true) AS counts_crash,
    r.queue_id,
    coalesce((SELECT q.is_limited FROM howdah.queues AS q WHERE q.id = r.queue_id), false) AS is_limited,
    r.flow_key_id,
    r.batch_id,
    r.has_follow_ups IS NOT NULL AS has_follow_ups,
    CASE
        WHEN r.awaiting_at IS NULL THEN 'worker'
        WHEN r.deadline_at > howdah.now() THEN 'receiver'
        ELSE 'callback'
    END AS silent
FROM howdah.runs AS r
WHERE r.lease_expires_at < howdah.now()
ORDER BY r.lease_expires_at
LIMIT 500
FOR UPDATE OF r SKIP LOCKED
