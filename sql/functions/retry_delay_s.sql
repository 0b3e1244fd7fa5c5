-- Seconds to wait after the given attempt failed. unit_random in [0, 1) places the delay within the
-- jitter: delay × (1 − jitter … 1 + jitter), at most a day. The exponential is compared as logarithms,
-- so that no policy can overflow. Its reference is delay_s in core/retry.py.
CREATE OR REPLACE FUNCTION howdah.retry_delay_s(policy jsonb, attempt integer, unit_random double precision)
RETURNS double precision
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    initial double precision := howdah.duration_s(policy ->> 'initial');
    delay_max double precision := howdah.duration_s(policy ->> 'max');
    factor double precision := (policy ->> 'factor')::double precision;
    jitter double precision := (policy ->> 'jitter')::double precision;
    delays jsonb := policy -> 'list';
    delay double precision;
BEGIN
    CASE policy ->> 'backoff'
        WHEN 'exponential' THEN
            IF initial <= 0 THEN
                delay := 0;
            ELSIF ln(initial) + (attempt - 1) * ln(factor) >= ln(greatest(delay_max, 0.001)) THEN
                delay := delay_max;
            ELSE
                delay := initial * power(factor, attempt - 1);
            END IF;
        WHEN 'linear' THEN
            delay := initial * attempt;
        WHEN 'fixed' THEN
            delay := initial;
        ELSE
            delay := howdah.duration_s(delays ->> (least(attempt, jsonb_array_length(delays)) - 1));
    END CASE;
    RETURN least(least(delay, delay_max) * (1 - jitter + 2 * jitter * unit_random), 86400);
END
$$;
COMMENT ON FUNCTION howdah.retry_delay_s(jsonb, integer, double precision) IS 'Seconds until the next attempt.';
