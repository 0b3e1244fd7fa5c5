-- From when on a rate lets so many runs start at once (at most its burst): see howdah.gate_room.
CREATE OR REPLACE FUNCTION howdah.gate_opens_at(
    gate_at timestamptz, start_count integer, rate_limit integer, rate_period_s real, rate_burst integer
)
RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT gate_at - make_interval(secs => (rate_burst - start_count) * rate_period_s::double precision / rate_limit)
$$;
COMMENT ON FUNCTION howdah.gate_opens_at(timestamptz, integer, integer, real, integer) IS 'Internal: from when on a rate lets so many runs start.';
