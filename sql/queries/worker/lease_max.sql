-- The longest lease of workers that may still hold runs: how long a pause of rescue must last so that all
-- of them could renew.
-- params: none.
-- returns: one row: lease_s (0 if there is no such worker, so nobody to wait for).
-- What counts is who lived within the hour before the last good rescue: since then nobody may have been
-- able to say so, and who fell silent earlier has been rescued from (a lease is an hour at most).
SELECT coalesce(max(w.lease_s), 0)::double precision AS lease_s
FROM howdah.workers AS w
WHERE w.stopped_at IS NULL
    AND w.heartbeat_at > coalesce(
        (SELECT m.last_good_at FROM howdah.maintenance AS m WHERE m.chore = 'rescue'), '-infinity'
    ) - interval '1 hour'
