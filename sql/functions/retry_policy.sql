-- The whole retry policy of a task: the task's fields over the queue's over the defaults. Declared STABLE,
-- as jsonb_build_object is: declared IMMUTABLE it could not be inlined, and cost 4 us a row.
CREATE OR REPLACE FUNCTION howdah.retry_policy(queue_retry jsonb, task_retry jsonb)
RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT jsonb_build_object(
        'max_attempts', 4, 'max_age', '24h', 'backoff', 'exponential',
        'initial', '1s', 'max', '300s', 'factor', 2, 'jitter', 0.2
    ) || coalesce(queue_retry, '{}') || coalesce(task_retry, '{}')
$$;
COMMENT ON FUNCTION howdah.retry_policy(jsonb, jsonb) IS 'Retry policy in force: task over queue over defaults.';
