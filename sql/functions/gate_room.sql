-- How many runs a rate lets start now, 0 to burst. The rate is kept by the generic cell rate algorithm (ITU-T I.371):
-- one instant, gate_at, says when all starts so far would be paid for at one per period / limit seconds, and it may
-- lie ahead by no more than burst of them. So in any t seconds at most burst + limit * t / period runs start. n starts
-- move it to howdah.gate_after(gate_at, n, …).
CREATE OR REPLACE FUNCTION howdah.gate_room(
    gate_at timestamptz, rate_limit integer, rate_period_s real, rate_burst integer, now timestamptz
)
RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    -- Of what was charged to the microsecond, a millionth of a start may be missing to a whole one.
    SELECT greatest(
        floor(rate_burst - extract(epoch FROM greatest(gate_at, now) - now)::double precision * rate_limit / rate_period_s + 1e-6),
        0
    )::integer
$$;
COMMENT ON FUNCTION howdah.gate_room(timestamptz, integer, real, integer, timestamptz) IS 'Internal: how many runs a rate lets start now.';
