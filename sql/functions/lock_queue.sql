-- Lock a tenant's queue and return its number; raises JQ404 if there is none. Whoever changes what a queue does
-- for its clients goes through here, so that two such changes follow each other. Claims and enqueues lock no queue.
CREATE OR REPLACE FUNCTION howdah.lock_queue(tenant_id integer, queue text)
RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant ALIAS FOR tenant_id;
    number integer;
BEGIN
    SELECT q.id INTO number
    FROM howdah.queues AS q
    WHERE q.tenant_id = tenant AND q.name = queue AND q.deleted_at IS NULL
    FOR NO KEY UPDATE;
    IF number IS NULL THEN
        RAISE EXCEPTION 'there is no queue "%"', left(queue, 128) USING ERRCODE = 'JQ404';
    END IF;
    RETURN number;
END
$$;
COMMENT ON FUNCTION howdah.lock_queue(integer, text) IS 'Internal: locks a queue and returns its number; JQ404 if there is none.';
