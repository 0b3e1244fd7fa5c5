-- Runs whose receiver has answered 202 and reports the outcome later, and the keys that sign its tokens.
-- reason: DESIGN section 7 promises `mode: async`; a run had no way to wait without a worker that renews its lease.

-- NULL in the rows of all other tasks, where it takes no room: the null bitmap had bits to spare. A boolean would
-- have made each of them 8 bytes longer. No row has a value yet, so there is nothing that the constraint would have
-- to read while nobody can claim.
ALTER TABLE howdah.runs ADD COLUMN awaiting_at timestamptz;
ALTER TABLE howdah.runs ADD CONSTRAINT runs_awaiting_check CHECK (awaiting_at IS NULL OR lease_token IS NOT NULL)
NOT VALID;
COMMENT ON COLUMN howdah.runs.awaiting_at IS 'When its receiver answered 202: since then it waits for the callback, and no worker renews its lease. NULL for all others.';

-- A key of its own, and not callback_secret: receivers know that one, and it may be replaced while callbacks are
-- still to come.
ALTER TABLE howdah.tenants ADD COLUMN callback_key bytea NOT NULL
DEFAULT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid());
ALTER TABLE howdah.tenants ADD CONSTRAINT tenants_callback_key_check CHECK (octet_length(callback_key) >= 32);
COMMENT ON COLUMN howdah.tenants.callback_key IS 'Signs the tokens by which receivers report outcomes; known to nobody but Howdah''s processes. Replacing it makes every token worthless that is out.';
