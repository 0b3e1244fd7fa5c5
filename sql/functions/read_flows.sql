-- The limits that flows ask for, in order: concurrency, and of a rate its limit, period and burst (the limit, if none
-- is given).
CREATE OR REPLACE FUNCTION howdah.read_flows(flows jsonb[])
RETURNS TABLE (key text, concurrency integer, rate_limit integer, rate_period_s real, rate_burst integer)
LANGUAGE sql STABLE
AS $$
    SELECT
        u.flow ->> 'key',
        (u.flow ->> 'concurrency')::integer,
        r.rate_limit, r.rate_period_s, r.rate_burst
    FROM unnest(flows) WITH ORDINALITY AS u (flow, ordinal)
    CROSS JOIN LATERAL howdah.read_rate(u.flow -> 'rate') AS r
    ORDER BY u.ordinal
$$;
COMMENT ON FUNCTION howdah.read_flows(jsonb[]) IS 'Internal: the limits that flows ask for.';
