-- Start a bulk operation on tasks, and return its id. The schedulers work it off, a page in each transaction, after the
-- caller's commit; howdah.bulk_operations shows how far it is, and howdah.cancel_operation stops it. It touches only
-- what existed when it was started: a task that it takes back and that dies again stays a dead letter.
--
-- kind is one of
--   replay_dead_letters  takes dead letters of the queue back to it; with edits (payload, and handler or http) each
--                        becomes a new task instead, see howdah.replay_edited
--   purge_dead_letters   drops dead letters of the queue; the tasks stay failed
--   purge_queue          cancels tasks of the queue that wait
--   cancel_tasks         cancels tasks of the queue, or of all queues by some filter, running ones too (mode: soft, hard)
-- filter says which, all of its fields at once; '{}' is all of them:
--   of dead letters  tags, handler, batch, error_type, fingerprint, reason, dead_after, dead_before
--   of the others    tags, handler, batch, priority, older_than; of cancel_tasks also state
-- rate is the most tasks a second, 0.01 to 10,000; NULL is as fast as it goes.
--
-- Raises JQ422 (JQ413), pointing at the field, for what is not allowed, JQ404 for a queue that does not exist, and JQ409
-- when 100 operations of the tenant are under way.
CREATE OR REPLACE FUNCTION howdah.start_operation(
    kind text,
    queue text DEFAULT NULL,
    filter jsonb DEFAULT '{}',
    rate double precision DEFAULT NULL,
    edits json DEFAULT NULL,
    mode text DEFAULT NULL,
    tenant text DEFAULT NULL
)
RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN howdah.store_operation(
        howdah.tenant_number(tenant), kind, queue, filter, rate,
        CASE WHEN kind = 'cancel_tasks' THEN coalesce(mode, 'soft') ELSE mode END,
        edits, session_user
    );
END
$$;
COMMENT ON FUNCTION howdah.start_operation(text, text, jsonb, double precision, json, text, text) IS 'Start a bulk operation on tasks (replay_dead_letters, purge_dead_letters, purge_queue, cancel_tasks); returns its id.';
