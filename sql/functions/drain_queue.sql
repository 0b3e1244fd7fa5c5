-- What howdah.drain does, and the API, which says by whom.
CREATE OR REPLACE FUNCTION howdah.drain_queue(tenant_id integer, queue text, actor text)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    number constant integer := howdah.lock_queue(tenant_id, queue);
BEGIN
    UPDATE howdah.queues AS q
    SET draining_at = howdah.now(),
        draining_by = actor
    WHERE q.id = number AND q.draining_at IS NULL;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION howdah.drain_queue(integer, text, text) IS 'Internal: what howdah.drain and the API share.';
