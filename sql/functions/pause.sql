-- Pause a queue: from the commit on, no claim that begins takes a task from it, until the time given, or until
-- howdah.resume. Tasks are accepted as ever, and what runs goes on; a worker may still start what it had claimed
-- ahead, about 100 ms of work. A pause of a paused queue replaces its end, reason and author. Returns whether it
-- was not paused before. Raises JQ404 if there is no such queue, and JQ422, pointing at the field, for a reason of
-- more than 500 characters, and an end that does not lie ahead, or more than 366 days.
CREATE OR REPLACE FUNCTION howdah.pause(
    queue text, reason text DEFAULT NULL, until timestamptz DEFAULT NULL, tenant text DEFAULT NULL
)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- session_user is who has logged in; current_user is this function's owner.
    RETURN howdah.pause_queue(howdah.tenant_number(tenant), queue, reason, until, session_user);
END
$$;
COMMENT ON FUNCTION howdah.pause(text, text, timestamptz, text) IS 'Pause a queue: nothing is claimed from it until a time, or until howdah.resume.';
