-- Let a task take its dedup key again, because it is about to wait and run anew: claim_no is the number of claims
-- that it had. Raises JQ409, with the constraint dedup_keys_pkey and the holder's id as detail, if another task
-- holds the key. Locks the key first, then judges with a fresh snapshot, as howdah.take_keys does.
CREATE OR REPLACE FUNCTION howdah.retake_key(tenant_id integer, queue_id integer, id uuid, dedup jsonb, claim_no integer)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    tenant ALIAS FOR tenant_id;
    queue ALIAS FOR queue_id;
    task ALIAS FOR id;
    claims ALIAS FOR claim_no;
    now constant timestamptz := howdah.now();
    term record;
    held record;
BEGIN
    SELECT m.until, m.expires_at INTO term FROM howdah.key_term(dedup, now) AS m;
    INSERT INTO howdah.dedup_keys AS k (tenant_id, queue_id, claim_no, task_id, taken_at, expires_at, until, key)
    VALUES (tenant, queue, claims, task, now, term.expires_at, term.until, dedup ->> 'key')
    ON CONFLICT (tenant_id, queue_id, key) DO UPDATE SET task_id = k.task_id
    RETURNING k.task_id, k.until, k.claim_no, k.expires_at INTO held;
    IF held.task_id <> task AND howdah.holds_key(
        held.until, held.expires_at, held.claim_no,
        (SELECT r.claim_no FROM howdah.runs AS r WHERE r.tenant_id = tenant AND r.task_id = held.task_id), now
    ) THEN
        RAISE EXCEPTION 'the dedup key of the task is held by task %', held.task_id
            USING ERRCODE = 'JQ409', CONSTRAINT = 'dedup_keys_pkey', DETAIL = held.task_id::text;
    END IF;
    UPDATE howdah.dedup_keys AS k
    SET task_id = task, until = term.until, claim_no = claims, taken_at = now, expires_at = term.expires_at
    WHERE k.tenant_id = tenant AND k.queue_id = queue AND k.key = dedup ->> 'key';
END
$$;
COMMENT ON FUNCTION howdah.retake_key(integer, integer, uuid, jsonb, integer) IS 'Internal: lets a task that is replayed take its dedup key again.';
