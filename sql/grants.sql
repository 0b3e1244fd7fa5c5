-- Who may do what. Three roles that nobody logs in as; grant them to those who do:
--   howdah_service   what our processes need
--   howdah_producer  enqueue, change and cancel from SQL
--   howdah_readonly  the views, which hold no payloads
-- Without the right to make roles, only those that exist are granted anything: an administrator can
-- make the others and run `howdah migrate` again. Roles belong to the whole server, so another
-- database may be making them at this moment.
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['howdah_service', 'howdah_producer', 'howdah_readonly'] LOOP
        CONTINUE WHEN to_regrole(wanted) IS NOT NULL;
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN
                NULL;
            WHEN insufficient_privilege THEN
                RAISE NOTICE 'role % is not made: % may not make roles', wanted, current_user;
        END;
    END LOOP;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA howdah FROM PUBLIC;

-- Partitions are left out: they are reached through their parents, and a chore may be at them now.
DO $$
DECLARE
    parent regclass;
BEGIN
    IF to_regrole('howdah_service') IS NULL THEN
        RETURN;
    END IF;
    GRANT USAGE ON SCHEMA howdah TO howdah_service;
    FOR parent IN
        SELECT c.oid::regclass
        FROM pg_class AS c
        WHERE c.relnamespace = 'howdah'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO howdah_service', parent);
    END LOOP;
    REVOKE INSERT, UPDATE, DELETE ON howdah.migrations FROM howdah_service;
    GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA howdah TO howdah_service;
END
$$;

DO $$
BEGIN
    IF to_regrole('howdah_producer') IS NULL THEN
        RETURN;
    END IF;
    GRANT USAGE ON SCHEMA howdah TO howdah_producer;
    GRANT EXECUTE ON FUNCTION
        howdah.enqueue(text, text, json, timestamptz, jsonb, text),
        howdah.enqueue_many(text, json),
        howdah.cancel(uuid, text, text),
        howdah.change(uuid, jsonb, text),
        howdah.run_now(uuid, text),
        howdah.explain(uuid, text),
        howdah.open_batch(json, text),
        howdah.close_batch(uuid, text),
        howdah.cancel_batch(uuid, text, text)
    TO howdah_producer;
END
$$;

-- A view calls functions with the rights of who reads it.
DO $$
DECLARE
    readable regclass;
BEGIN
    IF to_regrole('howdah_readonly') IS NULL THEN
        RETURN;
    END IF;
    GRANT USAGE ON SCHEMA howdah TO howdah_readonly;
    FOR readable IN
        SELECT c.oid::regclass FROM pg_class AS c WHERE c.relnamespace = 'howdah'::regnamespace AND c.relkind = 'v'
    LOOP
        EXECUTE format('GRANT SELECT ON %s TO howdah_readonly', readable);
    END LOOP;
    GRANT EXECUTE ON FUNCTION
        howdah.now(),
        howdah.clock_offset(),
        howdah.batch_counts(integer, uuid, timestamptz),
        howdah.batch_state(timestamptz, timestamptz),
        howdah.error_fingerprint(jsonb),
        howdah.explain(uuid, text),
        howdah.id_floor(timestamptz),
        howdah.id_time(uuid),
        howdah.like_patterns(text[]),
        howdah.queue_state(timestamptz, timestamptz, timestamptz),
        howdah.run_state(uuid, integer, integer, timestamptz, timestamptz)
    TO howdah_readonly;
END
$$;
