-- The longest lease that workers seen in the last hour take: how long a pause of rescue must last so that
-- all of them could renew.
-- params: none.
-- returns: one row: lease_s (15 if there is no worker).
-- index: workers_live_idx
SELECT coalesce(max(w.lease_s), 15)::double precision AS lease_s
FROM howdah.workers AS w
WHERE w.stopped_at IS NULL AND w.heartbeat_at > howdah.now() - interval '1 hour'
