-- The longest lease that any worker takes which did not stop cleanly: how long a pause of rescue must
-- last so that all of them could renew.
-- params: none.
-- returns: one row: lease_s (0 if there is no such worker, so nobody to wait for).
SELECT coalesce(max(w.lease_s), 0)::double precision AS lease_s
FROM howdah.workers AS w
WHERE w.stopped_at IS NULL
