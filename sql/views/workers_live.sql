-- Worker processes that gave a sign of life within three of their leases, and pull consumers that did within a minute.
-- BETWEEN says what IS NOT NULL says, but the planner takes it for few rows also before it has statistics.
CREATE OR REPLACE VIEW howdah.workers_live AS
SELECT
    w.name AS worker,
    w.host,
    w.pid,
    w.version,
    CASE WHEN w.stopping_at IS NULL THEN 'live' ELSE 'stopping' END AS state,
    w.queues,
    w.handlers,
    w.serves_http,
    w.concurrency,
    coalesce(held.count, 0) AS running,
    w.lease_s,
    w.started_at,
    w.heartbeat_at,
    round(extract(epoch FROM howdah.now() - w.heartbeat_at), 3) AS heartbeat_age_s,
    w.kind,
    t.name AS tenant
FROM howdah.workers AS w
LEFT JOIN howdah.tenants AS t ON t.id = w.tenant_id
LEFT JOIN (
    SELECT r.worker_id, count(*) AS count
    FROM howdah.runs AS r
    WHERE r.lease_expires_at BETWEEN '-infinity' AND 'infinity' AND r.awaiting_at IS NULL
    GROUP BY r.worker_id
) AS held ON held.worker_id = w.id
WHERE w.stopped_at IS NULL AND w.heartbeat_at > howdah.now() - make_interval(secs => w.silent_after_s);

COMMENT ON VIEW howdah.workers_live IS 'Worker processes that gave a sign of life within three of their leases, and consumers that claim over HTTP, one row for each queue and set of handlers, that did within a minute. Reads workers and the leased rows.';
COMMENT ON COLUMN howdah.workers_live.worker IS 'Name: host, pid and a random part; of a pull consumer what it calls itself.';
COMMENT ON COLUMN howdah.workers_live.host IS 'Host name; NULL for a pull consumer.';
COMMENT ON COLUMN howdah.workers_live.pid IS 'Process id on that host; NULL for a pull consumer.';
COMMENT ON COLUMN howdah.workers_live.version IS 'Version of Howdah it runs; NULL for a pull consumer.';
COMMENT ON COLUMN howdah.workers_live.state IS 'live, or stopping while it drains.';
COMMENT ON COLUMN howdah.workers_live.queues IS 'Names and patterns of queues it claims from.';
COMMENT ON COLUMN howdah.workers_live.handlers IS 'Handlers that it has.';
COMMENT ON COLUMN howdah.workers_live.serves_http IS 'Whether it delivers HTTP callbacks.';
COMMENT ON COLUMN howdah.workers_live.concurrency IS 'Runs that it executes at once; of a pull consumer the most that it asked for in its last claim.';
COMMENT ON COLUMN howdah.workers_live.running IS 'Runs that it holds now, those included that it claimed ahead.';
COMMENT ON COLUMN howdah.workers_live.lease_s IS 'Seconds of its leases.';
COMMENT ON COLUMN howdah.workers_live.started_at IS 'When it started.';
COMMENT ON COLUMN howdah.workers_live.heartbeat_at IS 'Last sign of life.';
COMMENT ON COLUMN howdah.workers_live.heartbeat_age_s IS 'Seconds since then.';
COMMENT ON COLUMN howdah.workers_live.kind IS 'worker: a process of Howdah. pull: claims over HTTP.';
COMMENT ON COLUMN howdah.workers_live.tenant IS 'Tenant of a pull consumer; NULL for workers, which serve all.';
