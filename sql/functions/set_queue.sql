-- Make a queue, or change its settings: those of PUT /v1/queues/{q}, under the same names. What is not given
-- stays, or has its default in a new queue; null takes a cap or limit away. Returns whether the queue is new. Raises JQ422,
-- pointing at the field, for what is not allowed.
CREATE OR REPLACE FUNCTION howdah.set_queue(queue text, settings jsonb DEFAULT '{}', tenant text DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    number constant integer := howdah.tenant_number(tenant);
    field text;
    problem text;
    wanted_timeout_s double precision;
    wanted_depth numeric;
    wanted_age_s double precision;
    wanted_running numeric;
    rate jsonb;
    wanted_rate record;
    is_new boolean;
BEGIN
    IF queue IS NULL OR queue !~ '^[a-z0-9][a-z0-9_.-]{0,127}$' THEN
        RAISE EXCEPTION '/queue must match ^[a-z0-9][a-z0-9_.-]{0,127}$' USING ERRCODE = 'JQ422';
    ELSIF jsonb_typeof(settings) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'settings must be a JSON object' USING ERRCODE = 'JQ422';
    END IF;
    FOR field IN SELECT k.key FROM jsonb_object_keys(settings) AS k (key) LOOP
        IF field NOT IN ('retry', 'timeout', 'keep_history', 'max_depth', 'max_age', 'max_running', 'rate') THEN
            RAISE EXCEPTION '/% is not a setting of a queue', field USING ERRCODE = 'JQ422';
        ELSIF field IN ('retry', 'timeout', 'keep_history') AND jsonb_typeof(settings -> field) = 'null' THEN
            RAISE EXCEPTION '/% must not be null; leave it out', field USING ERRCODE = 'JQ422';
        END IF;
    END LOOP;
    problem := CASE WHEN settings ? 'retry' THEN howdah.retry_problem(settings -> 'retry') END;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', problem USING ERRCODE = 'JQ422';
    END IF;
    IF settings ? 'timeout' THEN
        wanted_timeout_s := CASE WHEN jsonb_typeof(settings -> 'timeout') = 'string' THEN howdah.duration_s(settings ->> 'timeout') END;
        IF wanted_timeout_s IS NULL OR wanted_timeout_s NOT BETWEEN 0.1 AND 86400 THEN
            RAISE EXCEPTION '/timeout must be a duration from 0.1 seconds to 24 hours' USING ERRCODE = 'JQ422';
        END IF;
    END IF;
    IF settings ? 'keep_history' AND settings -> 'keep_history' NOT IN ('"all"', '"failures"', '"none"') THEN
        RAISE EXCEPTION '/keep_history must be all, failures or none' USING ERRCODE = 'JQ422';
    END IF;
    IF jsonb_typeof(settings -> 'max_depth') <> 'null' THEN
        wanted_depth := CASE WHEN jsonb_typeof(settings -> 'max_depth') = 'number' THEN (settings ->> 'max_depth')::numeric END;
        IF wanted_depth IS NULL OR wanted_depth NOT BETWEEN 1 AND 1000000 OR wanted_depth <> trunc(wanted_depth) THEN
            RAISE EXCEPTION '/max_depth must be a whole number from 1 to 1000000' USING ERRCODE = 'JQ422';
        END IF;
    END IF;
    IF jsonb_typeof(settings -> 'max_age') <> 'null' THEN
        wanted_age_s := CASE WHEN jsonb_typeof(settings -> 'max_age') = 'string' THEN howdah.duration_s(settings ->> 'max_age') END;
        IF wanted_age_s IS NULL OR wanted_age_s NOT BETWEEN 1 AND 31622400 THEN
            RAISE EXCEPTION '/max_age must be a duration from 1 second to 366 days' USING ERRCODE = 'JQ422';
        END IF;
    END IF;
    IF jsonb_typeof(settings -> 'max_running') <> 'null' THEN
        wanted_running := CASE WHEN jsonb_typeof(settings -> 'max_running') = 'number' THEN (settings ->> 'max_running')::numeric END;
        IF wanted_running IS NULL OR wanted_running NOT BETWEEN 1 AND 1000000 OR wanted_running <> trunc(wanted_running) THEN
            RAISE EXCEPTION '/max_running must be a whole number from 1 to 1000000' USING ERRCODE = 'JQ422';
        END IF;
    END IF;
    rate := nullif(settings -> 'rate', 'null');
    problem := CASE WHEN rate IS NOT NULL THEN howdah.rate_problem(rate, '/rate') END;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', problem USING ERRCODE = 'JQ422';
    END IF;
    SELECT r.* INTO wanted_rate FROM howdah.read_rate(rate) AS r;
    INSERT INTO howdah.queues AS q (
        tenant_id, name, retry, timeout_s, keep_history, max_depth, max_age_s, max_running, rate_limit, rate_period_s, rate_burst
    )
    VALUES (
        number, queue, coalesce(settings -> 'retry', '{}'), coalesce(wanted_timeout_s, 60),
        coalesce(settings ->> 'keep_history', 'all'), wanted_depth, wanted_age_s, wanted_running,
        wanted_rate.rate_limit, wanted_rate.rate_period_s, wanted_rate.rate_burst
    )
    ON CONFLICT (tenant_id, name) DO UPDATE
    SET retry = coalesce(settings -> 'retry', q.retry),
        timeout_s = coalesce(wanted_timeout_s, q.timeout_s),
        keep_history = coalesce(settings ->> 'keep_history', q.keep_history),
        max_depth = CASE WHEN settings ? 'max_depth' THEN wanted_depth ELSE q.max_depth END,
        max_age_s = CASE WHEN settings ? 'max_age' THEN wanted_age_s ELSE q.max_age_s END,
        max_running = CASE WHEN settings ? 'max_running' THEN wanted_running ELSE q.max_running END,
        rate_limit = CASE WHEN settings ? 'rate' THEN wanted_rate.rate_limit ELSE q.rate_limit END,
        rate_period_s = CASE WHEN settings ? 'rate' THEN wanted_rate.rate_period_s ELSE q.rate_period_s END,
        rate_burst = CASE WHEN settings ? 'rate' THEN wanted_rate.rate_burst ELSE q.rate_burst END,
        gate_at = CASE WHEN settings ? 'rate' THEN NULL ELSE q.gate_at END,
        updated_at = howdah.now(),
        created_at = CASE WHEN q.deleted_at IS NULL THEN q.created_at ELSE howdah.now() END,
        deleted_at = NULL
    -- A new row, or one that was marked as deleted until now.
    RETURNING q.xmax = 0 OR q.created_at = howdah.now() INTO is_new;
    -- Workers claim from queues with limits in another way.
    IF is_new OR settings ?| ARRAY['max_running', 'rate'] THEN
        PERFORM pg_notify('howdah_wake', 'c');
    END IF;
    RETURN is_new;
END
$$;
COMMENT ON FUNCTION howdah.set_queue(text, jsonb, text) IS 'Make a queue, or change its settings; returns whether it is new.';
