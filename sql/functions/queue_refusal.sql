-- Why a queue takes no new task at an instant, as howdah.enqueue_rows says it; NULL if it takes it.
CREATE OR REPLACE FUNCTION howdah.queue_refusal(
    draining_at timestamptz, pressure text, pressure_until timestamptz, instant timestamptz
)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN draining_at IS NOT NULL THEN 'queue_draining /queue takes no new tasks: it is being drained'
        WHEN pressure_until > instant AND pressure = 'depth' THEN 'backpressure /queue has as many waiting tasks as it may (max_depth)'
        WHEN pressure_until > instant THEN 'backpressure /queue has a task that has waited for as long as one may (max_age)'
    END
$$;
COMMENT ON FUNCTION howdah.queue_refusal(timestamptz, text, timestamptz, timestamptz) IS 'Internal: why a queue takes no new task; NULL if it does.';
