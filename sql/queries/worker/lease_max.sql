-- The longest lease of workers that may still hold runs: how long a pause of rescue must last so that all
-- of them could renew.
-- params: none.
-- returns: one row: lease_s (0 if there is no such worker, so nobody to wait for).
-- What counts is who lived within the hour before the last good rescue: since then nobody may have been
-- able to say so, and who fell silent earlier has been rescued from (a lease is an hour at most).
-- A pull consumer may ask for an hour, for which the runs of all others must not wait: it has the 15 s of a worker's
-- usual lease to come back in.
SELECT coalesce(max(CASE WHEN w.kind = 'pull' THEN least(w.lease_s, 15) ELSE w.lease_s END), 0)::double precision AS lease_s
FROM howdah.workers AS w
WHERE w.stopped_at IS NULL
    AND w.heartbeat_at > coalesce(
        (SELECT m.last_good_at FROM howdah.maintenance AS m WHERE m.chore = 'rescue'), '-infinity'
    ) - interval '1 hour'
