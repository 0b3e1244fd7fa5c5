-- Let a batch take no more tasks, so that it is complete as soon as all of its tasks have ended; at once if it has none.
-- What its own live tasks enqueue when they end may still join it. Returns its state after the call, running or complete;
-- closing it again changes nothing. Waits for transactions that are adding tasks to it. Raises JQ404 if there is no such
-- batch.
CREATE OR REPLACE FUNCTION howdah.close_batch(id uuid, tenant text DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    number constant integer := howdah.tenant_number(tenant);
    batch ALIAS FOR id;
    is_complete boolean;
BEGIN
    UPDATE howdah.batches AS b
    SET closed_at = howdah.now()
    WHERE b.tenant_id = number AND b.id = batch AND b.closed_at IS NULL;
    PERFORM FROM howdah.complete_batches(ARRAY[number], ARRAY[batch]);
    SELECT b.completed_at IS NOT NULL INTO is_complete FROM howdah.batches AS b WHERE b.tenant_id = number AND b.id = batch;
    IF is_complete IS NULL THEN
        RAISE EXCEPTION 'there is no batch %', batch USING ERRCODE = 'JQ404';
    END IF;
    RETURN CASE WHEN is_complete THEN 'complete' ELSE 'running' END;
END
$$;
COMMENT ON FUNCTION howdah.close_batch(uuid, text) IS 'Let a batch take no more tasks; it is complete when all of its tasks have ended.';
