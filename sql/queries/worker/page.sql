-- A page of workers and of one tenant's pull consumers, newest first.
-- params: tenant_id; before_id: smaller ids than this; row_count.
-- returns: workers; state is live, stopping, stopped or silent (no heartbeat for silent_after_s).
-- index: workers_pkey
SELECT
    w.id, w.kind, w.name, w.host, w.pid, w.version, w.queues, w.handlers, w.serves_http, w.concurrency, w.lease_s, w.started_at,
    w.heartbeat_at, w.stopping_at, w.stopped_at,
    CASE
        WHEN w.stopped_at IS NOT NULL THEN 'stopped'
        WHEN w.heartbeat_at < howdah.now() - make_interval(secs => w.silent_after_s) THEN 'silent'
        WHEN w.stopping_at IS NOT NULL THEN 'stopping'
        ELSE 'live'
    END AS state
FROM howdah.workers AS w
WHERE w.id < %(before_id)b::integer AND coalesce(w.tenant_id, %(tenant_id)b::integer) = %(tenant_id)b::integer
ORDER BY w.id DESC
LIMIT %(row_count)b::integer
