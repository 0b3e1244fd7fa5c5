-- Which lanes have due work, and does a live worker serve it?
-- Look for served = f: nobody has that handler, or no worker claims from that queue (HOWDAH_QUEUES). Where
-- served = t and age_s grows, the workers are full (leases_by_worker.sql) or too few.
-- Needs: howdah_readonly.
SELECT
    o.tenant, o.queue, o.priority, o.target, o.state, o.age_s, o.task_id,
    EXISTS (
        SELECT 1
        FROM howdah.workers_live AS w
        WHERE w.state = 'live'
            AND coalesce(w.tenant, o.tenant) = o.tenant
            AND o.queue LIKE ANY (howdah.like_patterns(w.queues))
            AND CASE WHEN o.target = 'http' THEN w.serves_http ELSE o.target = ANY (w.handlers) END
    ) AS served
FROM howdah.oldest_waiting AS o
WHERE o.state IN ('queued', 'retrying') AND o.age_s > 0
ORDER BY o.age_s DESC
LIMIT 50;
