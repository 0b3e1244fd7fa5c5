-- Where the gate of a rate stands after so many starts now: see howdah.gate_room. Rounded up to the microsecond, so
-- that no rate is ever exceeded.
CREATE OR REPLACE FUNCTION howdah.gate_after(
    gate_at timestamptz, start_count integer, rate_limit integer, rate_period_s real, now timestamptz
)
RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT greatest(gate_at, now)
        + make_interval(secs => ceil(start_count * rate_period_s::double precision / rate_limit * 1000000) / 1000000)
$$;
COMMENT ON FUNCTION howdah.gate_after(timestamptz, integer, integer, real, timestamptz) IS 'Internal: where the gate of a rate stands after so many starts.';
