-- Whether somebody would feel a benchmark: a run is under way, or some ended within the last two minutes.
-- params: none.
-- returns: one row: is_busy.
-- index: runs_lease_idx, queue_stats_pkey
SELECT
    EXISTS (SELECT FROM howdah.runs AS r WHERE r.lease_expires_at IS NOT NULL AND r.awaiting_at IS NULL)
    OR EXISTS (
        SELECT
        FROM howdah.queue_stats AS s
        WHERE s.bucket_at >= date_trunc('minute', howdah.now()) - interval '2 minutes'
    ) AS is_busy
