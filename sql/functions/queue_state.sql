-- What a queue does for its clients: paused wins over draining, which goes on underneath. It is derived, never
-- stored.
CREATE OR REPLACE FUNCTION howdah.queue_state(paused_until timestamptz, draining_at timestamptz, instant timestamptz)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN paused_until > instant THEN 'paused'
        WHEN draining_at IS NOT NULL THEN 'draining'
        ELSE 'active'
    END
$$;
COMMENT ON FUNCTION howdah.queue_state(timestamptz, timestamptz, timestamptz) IS 'State of a queue: active, paused or draining.';
