-- Drain a queue: from the commit on, no enqueue that begins stores a task in it (JQ409), while what waits is
-- worked off; howdah.resume ends it. A replay is no new task. Returns whether it was not drained before. Raises
-- JQ404 if there is no such queue.
CREATE OR REPLACE FUNCTION howdah.drain(queue text, tenant text DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN howdah.drain_queue(howdah.tenant_number(tenant), queue, session_user);
END
$$;
COMMENT ON FUNCTION howdah.drain(text, text) IS 'Let a queue take no new tasks while what waits in it is worked off.';
