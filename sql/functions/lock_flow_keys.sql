-- Lock flow keys, in id order, and return which were locked: one whose lock cannot be had within 50 ms, because a
-- client's open transaction has it, is left out.
--
-- What can be had at once is locked first. Waiting for the rest is then out of order, but not for longer than that;
-- and who waits holds no lock that anybody with a key's lock waits for, except for another key's.
CREATE OR REPLACE FUNCTION howdah.lock_flow_keys(ids bigint[])
RETURNS bigint[]
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '50ms'
AS $$
DECLARE
    locked bigint[];
BEGIN
    SELECT coalesce(array_agg(l.id), '{}') INTO locked
    FROM (
        SELECT f.id FROM howdah.flow_keys AS f WHERE f.id = ANY (ids) ORDER BY f.id FOR NO KEY UPDATE SKIP LOCKED
    ) AS l;
    IF cardinality(locked) < cardinality(ids) THEN
        BEGIN
            PERFORM 1 FROM howdah.flow_keys AS f WHERE f.id = ANY (ids) ORDER BY f.id FOR NO KEY UPDATE;
            locked := ids;
        EXCEPTION
            WHEN lock_not_available THEN
                NULL;
        END;
    END IF;
    RETURN locked;
END
$$;
COMMENT ON FUNCTION howdah.lock_flow_keys(bigint[]) IS 'Internal: locks flow keys and returns which were had.';
