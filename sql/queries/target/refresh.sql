-- Record which targets live workers serve, and which turned unserved or served since the last look.
-- params: grace_s: how long a target may be without a live worker before its runs are parked.
-- returns: id, is_parked of each target whose runs must be parked (true) or released (false) now.
-- locks: targets, which only this statement updates.
-- A worker is live while its heartbeat is younger than three of its leases and it has not begun to stop.
WITH live AS MATERIALIZED (
    SELECT w.handlers, w.serves_http
    FROM howdah.workers AS w
    WHERE w.stopped_at IS NULL
        AND w.stopping_at IS NULL
        AND w.heartbeat_at > howdah.now() - make_interval(secs => 3 * w.lease_s)
),
served AS MATERIALIZED (
    SELECT
        t.id,
        t.is_parked,
        CASE
            WHEN t.id = 0 THEN EXISTS (SELECT 1 FROM live WHERE live.serves_http)
            ELSE EXISTS (SELECT 1 FROM live WHERE t.handler = ANY (live.handlers))
        END AS is_served
    FROM howdah.targets AS t
)
UPDATE howdah.targets AS t
SET served_at = CASE WHEN s.is_served THEN howdah.now() ELSE t.served_at END,
    is_parked = NOT s.is_served AND t.served_at < howdah.now() - make_interval(secs => %(grace_s)b::double precision)
FROM served AS s
WHERE s.id = t.id
    AND (
        s.is_served AND (s.is_parked OR t.served_at < howdah.now() - interval '10 seconds')
        OR NOT s.is_served AND NOT s.is_parked
            AND t.served_at < howdah.now() - make_interval(secs => %(grace_s)b::double precision)
    )
RETURNING t.id, t.is_parked, s.is_parked AS was_parked
