-- What the history of a tenant says, queue by queue.
-- params: tenant_id.
-- returns: queue; ended: how many succeeded; seconds: from the first claim to the last end; wait_p50_s,
--   wait_p99_s: from the statement that stored a task to the one that claimed it.
-- index: finished_runs_pkey
SELECT
    q.name AS queue,
    count(*) AS ended,
    extract(epoch FROM max(f.finished_at) - min(f.claimed_at))::double precision AS seconds,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM f.claimed_at - f.queued_at))::double precision AS wait_p50_s,
    percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM f.claimed_at - f.queued_at))::double precision AS wait_p99_s
FROM howdah.finished_runs AS f
JOIN howdah.queues AS q ON q.id = f.queue_id
WHERE f.tenant_id = %(tenant_id)b::integer AND f.outcome = 'succeeded'
GROUP BY q.name
