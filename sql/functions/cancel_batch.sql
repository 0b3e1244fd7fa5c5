-- Cancel the tasks of a batch that have not ended, and close it. It is complete once they have ended: those that wait do
-- so within a second or two, running ones when their handlers stop, as mode (soft, hard) asks them to. Returns the id of
-- the bulk operation that does it, after the caller's commit: see howdah.start_operation. Raises JQ404 if there is no
-- such batch, and JQ409 if it is complete.
CREATE OR REPLACE FUNCTION howdah.cancel_batch(id uuid, mode text DEFAULT 'soft', tenant text DEFAULT NULL)
RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN howdah.stop_batch(tenant, id, mode, session_user);
END
$$;
COMMENT ON FUNCTION howdah.cancel_batch(uuid, text, text) IS 'Cancel the tasks of a batch, and close it; returns the id of the bulk operation that does it.';
