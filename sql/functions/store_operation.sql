-- Store a bulk operation for the schedulers; what howdah.start_operation and the API share. created_by is who asked.
-- At most 100 of a tenant may be under way, so that they get on at all: JQ409.
CREATE OR REPLACE FUNCTION howdah.store_operation(
    tenant_id integer, kind text, queue text, filter jsonb, rate double precision, mode text, edits json, created_by text
)
RETURNS uuid
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tenant ALIAS FOR tenant_id;
    count_max constant integer := 100;
    now constant timestamptz := howdah.now();
    queue_id constant integer := howdah.operation_queue(tenant, kind, queue, filter, rate, mode, edits);
    id constant uuid := howdah.new_id();
BEGIN
    IF (
        SELECT count(*) >= count_max FROM howdah.operations AS o WHERE o.tenant_id = tenant AND o.state = 'running'
    ) THEN
        RAISE EXCEPTION '% bulk operations are under way; wait for one, or cancel one', count_max USING ERRCODE = 'JQ409';
    END IF;
    INSERT INTO howdah.operations (
        tenant_id, id, kind, queue_id, mode, rate, created_at, due_at, worked_at, created_by, filter, edits
    )
    VALUES (tenant, id, kind, queue_id, mode, rate, now, now, now, created_by, filter, edits);
    RETURN id;
END
$$;
COMMENT ON FUNCTION howdah.store_operation(integer, text, text, jsonb, double precision, text, json, text) IS 'Internal: stores a bulk operation.';
