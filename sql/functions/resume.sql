-- End a queue's pause, and its drain: its tasks are claimed again at once, and it takes new ones. Returns whether
-- there was anything to end. Raises JQ404 if there is no such queue.
CREATE OR REPLACE FUNCTION howdah.resume(queue text, tenant text DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN howdah.resume_queue(howdah.tenant_number(tenant), queue);
END
$$;
COMMENT ON FUNCTION howdah.resume(text, text) IS 'End the pause and the drain of a queue; returns whether there was one.';
