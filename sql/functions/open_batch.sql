-- Open a batch and return its id: tasks join it by their field batch, until howdah.close_batch. When it is closed and
-- all of its tasks have ended, its follow-ups are enqueued, in one transaction and once: of follow_ups, '{}' or an
-- object, on_complete in any case, on_success if all tasks have succeeded, on_failure if one has failed or expired.
-- Each is a task with the fields of POST /v1/tasks, but for id, run_at and expires_at; without a payload it gets the counts.
--
-- SELECT howdah.open_batch('{"on_complete": {"queue": "reports", "handler": "mail"}}');
--
-- Raises JQ422 (JQ413), pointing at the field, for what is not allowed.
CREATE OR REPLACE FUNCTION howdah.open_batch(follow_ups json DEFAULT '{}', tenant text DEFAULT NULL)
RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    id constant uuid := howdah.new_id();
BEGIN
    PERFORM howdah.store_batch(howdah.tenant_number(tenant), id, follow_ups, session_user);
    RETURN id;
END
$$;
COMMENT ON FUNCTION howdah.open_batch(json, text) IS 'Open a batch of tasks whose end enqueues others; returns its id.';
