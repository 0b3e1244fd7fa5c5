-- How many starts of a queue are paid for at once: those of 100 ms, so that its row is updated ten times a second at
-- most. No more than half of the burst, for what comes while it is full is lost, and at least one.
CREATE OR REPLACE FUNCTION howdah.gate_block(rate_limit integer, rate_period_s real, rate_burst integer)
RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT greatest(least(ceil(rate_limit / rate_period_s * 0.1), ceil(rate_burst / 2.0)), 1)::integer
$$;
COMMENT ON FUNCTION howdah.gate_block(integer, real, integer) IS 'Internal: how many starts of a queue are paid for at once.';
