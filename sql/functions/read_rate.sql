-- What a rate asks for: its limit, period and burst (the limit, if none is given); NULLs if there is no rate.
CREATE OR REPLACE FUNCTION howdah.read_rate(rate jsonb)
RETURNS TABLE (rate_limit integer, rate_period_s real, rate_burst integer)
LANGUAGE sql IMMUTABLE
AS $$
    SELECT
        (rate ->> 'limit')::integer,
        howdah.duration_s(rate ->> 'period')::real,
        coalesce(rate ->> 'burst', rate ->> 'limit')::integer
$$;
COMMENT ON FUNCTION howdah.read_rate(jsonb) IS 'Internal: what a rate asks for.';
