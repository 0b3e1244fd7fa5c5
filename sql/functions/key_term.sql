-- How long the dedup of a task says that it holds its key, as dedup_keys stores it.
CREATE OR REPLACE FUNCTION howdah.key_term(dedup jsonb, instant timestamptz)
RETURNS TABLE (until text, expires_at timestamptz)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT
        CASE WHEN coalesce(dedup ->> 'until', 'finished') IN ('started', 'finished') THEN coalesce(dedup ->> 'until', 'finished') ELSE 'expiry' END,
        -- Of the two words it makes NULL.
        instant + make_interval(secs => howdah.duration_s(dedup ->> 'until'))
$$;
COMMENT ON FUNCTION howdah.key_term(jsonb, timestamptz) IS 'Internal: how long a task holds its dedup key.';
