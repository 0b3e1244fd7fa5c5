-- Stop a bulk operation: no page of it begins any more, and what it did stays done. It waits for a page that is under
-- way. Returns cancelled, also if it was before. Raises JQ404 if there is no such operation, and JQ409 if it has ended.
CREATE OR REPLACE FUNCTION howdah.cancel_operation(id uuid, tenant text DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    number constant integer := howdah.tenant_number(tenant);
    wanted ALIAS FOR id;
    found_state text;
BEGIN
    SELECT o.state INTO found_state FROM howdah.operations AS o WHERE o.tenant_id = number AND o.id = wanted FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no operation %', wanted USING ERRCODE = 'JQ404';
    ELSIF found_state IN ('done', 'failed') THEN
        RAISE EXCEPTION 'the operation has ended: it is %', found_state USING ERRCODE = 'JQ409';
    END IF;
    UPDATE howdah.operations AS o
    SET state = 'cancelled', finished_at = howdah.now()
    WHERE o.tenant_id = number AND o.id = wanted AND o.state = 'running';
    RETURN 'cancelled';
END
$$;
COMMENT ON FUNCTION howdah.cancel_operation(uuid, text) IS 'Stop a bulk operation; what it did stays done.';
