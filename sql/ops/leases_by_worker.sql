-- Who is at work on what, and does everybody renew?
-- Look for a worker without a name (it is gone; rescue takes its runs back within seconds), for a
-- lease_left_s below zero, and for running = concurrency: that worker is full.
-- Needs: howdah_readonly.
SELECT
    coalesce(r.worker, '(gone)') AS worker,
    w.state,
    count(*) AS running,
    w.concurrency,
    count(*) FILTER (WHERE r.lease_left_s < 0) AS expired,
    min(r.lease_left_s) AS lease_left_s,
    max(r.running_s) AS longest_s,
    w.heartbeat_age_s
FROM howdah.running AS r
LEFT JOIN LATERAL (
    SELECT l.state, l.concurrency, l.heartbeat_age_s
    FROM howdah.workers_live AS l
    WHERE l.worker = r.worker AND coalesce(l.tenant, r.tenant) = r.tenant
    ORDER BY l.heartbeat_age_s
    LIMIT 1
) AS w ON true
GROUP BY r.worker, w.state, w.concurrency, w.heartbeat_age_s
ORDER BY running DESC;
