-- Close a batch and start the bulk operation that cancels its tasks; what howdah.cancel_batch and the API share.
-- created_by is who asked.
CREATE OR REPLACE FUNCTION howdah.stop_batch(tenant text, id uuid, mode text, created_by text)
RETURNS uuid
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF howdah.close_batch(id, tenant) = 'complete' THEN
        RAISE EXCEPTION 'the batch is complete' USING ERRCODE = 'JQ409';
    END IF;
    RETURN howdah.store_operation(
        howdah.tenant_number(tenant), 'cancel_tasks', NULL, jsonb_build_object('batch', id), NULL, mode, NULL, created_by
    );
END
$$;
COMMENT ON FUNCTION howdah.stop_batch(text, uuid, text, text) IS 'Internal: closes a batch and cancels its tasks.';
