-- Let a batch take no more tasks; see howdah.close_batch.
-- params: id; tenant (name).
-- returns: one row: state.
SELECT howdah.close_batch(%(id)b::uuid, %(tenant)b::text) AS state
