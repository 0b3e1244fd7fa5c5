-- How many worker processes and pull consumers there are, by what is known of them.
-- params: none.
-- returns: one row: live; stopping; silent: a process without a heartbeat for three leases, but for less than an hour.
--   (A pull consumer does not say when it leaves, so its silence tells nothing.)
-- index: workers_live_idx
SELECT
    count(*) FILTER (WHERE w.stopping_at IS NULL AND NOT s.is_silent) AS live,
    count(*) FILTER (WHERE w.stopping_at IS NOT NULL AND NOT s.is_silent) AS stopping,
    count(*) FILTER (WHERE s.is_silent AND w.kind = 'worker') AS silent
FROM howdah.workers AS w
CROSS JOIN LATERAL (SELECT w.heartbeat_at < howdah.now() - make_interval(secs => w.silent_after_s) AS is_silent) AS s
WHERE w.stopped_at IS NULL AND w.heartbeat_at > howdah.now() - interval '1 hour'
