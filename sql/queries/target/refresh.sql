-- Record which targets live workers and pull consumers serve, and which turned unserved or served since the last look.
-- params: grace_s: how long a target may be without a live worker before its runs are parked; was_away:
--   nobody looked for a while, and workers may have been unable to heartbeat, so the grace begins anew.
-- returns: id, handler (NULL for HTTP), is_parked, was_parked of each target that was written; where the
--   last two differ, its runs must be parked or released now.
-- locks: targets, which only this statement updates.
-- A worker or pull consumer is live until it is silent (workers.silent_after_s) or begins to stop; what a pull
-- consumer serves, it serves for its tenant. HTTP is one target for all tenants: callbacks that one of them pulls are not
-- parked for the others either, whose own views say that nobody serves them.
WITH live AS MATERIALIZED (
    SELECT w.tenant_id, w.handlers, w.serves_http
    FROM howdah.workers AS w
    WHERE w.stopped_at IS NULL
        AND w.stopping_at IS NULL
        AND w.heartbeat_at > howdah.now() - make_interval(secs => w.silent_after_s)
),
seen AS MATERIALIZED (
    SELECT
        t.id,
        t.is_parked,
        CASE
            WHEN t.id = 0 THEN EXISTS (SELECT 1 FROM live WHERE live.serves_http)
            ELSE EXISTS (
                SELECT 1
                FROM live
                WHERE t.handler = ANY (live.handlers) AND coalesce(live.tenant_id, t.tenant_id) = t.tenant_id
            )
        END AS is_served,
        t.served_at < howdah.now() - make_interval(secs => %(grace_s)b::double precision) AS is_overdue
    FROM howdah.targets AS t
)
UPDATE howdah.targets AS t
SET served_at = CASE WHEN s.is_served OR %(was_away)b::boolean THEN howdah.now() ELSE t.served_at END,
    is_parked = NOT s.is_served AND NOT %(was_away)b::boolean
FROM seen AS s
WHERE s.id = t.id
    AND CASE
        WHEN s.is_served THEN s.is_parked OR %(was_away)b::boolean OR t.served_at < howdah.now() - interval '10 seconds'
        ELSE NOT s.is_parked AND (s.is_overdue OR %(was_away)b::boolean)
    END
RETURNING t.id, t.handler, t.is_parked, s.is_parked AS was_parked
