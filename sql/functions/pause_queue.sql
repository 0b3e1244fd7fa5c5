-- What howdah.pause does, and the API, which says by whom.
CREATE OR REPLACE FUNCTION howdah.pause_queue(
    tenant_id integer, queue text, reason text, until timestamptz, actor text
)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    number constant integer := howdah.lock_queue(tenant_id, queue);
    now constant timestamptz := howdah.now();
    was_paused boolean;
BEGIN
    IF length(reason) > 500 THEN
        RAISE EXCEPTION '/reason must have at most 500 characters' USING ERRCODE = 'JQ422';
    ELSIF until <= now THEN
        RAISE EXCEPTION '/until must lie ahead' USING ERRCODE = 'JQ422';
    ELSIF isfinite(until) AND until > now + interval '366 days' THEN
        RAISE EXCEPTION '/until must be at most 366 days ahead' USING ERRCODE = 'JQ422';
    END IF;
    SELECT coalesce(q.paused_until > now, false) INTO was_paused FROM howdah.queues AS q WHERE q.id = number;
    UPDATE howdah.queues AS q
    SET paused_until = coalesce(until, 'infinity'),
        paused_at = CASE WHEN was_paused THEN q.paused_at ELSE now END,
        paused_by = actor,
        pause_reason = nullif(reason, '')
    WHERE q.id = number;
    RETURN NOT was_paused;
END
$$;
COMMENT ON FUNCTION howdah.pause_queue(integer, text, text, timestamptz, text) IS 'Internal: what howdah.pause and the API share.';
