-- Stop a bulk operation; see howdah.cancel_operation.
-- params: id; tenant (name).
-- returns: one row: state.
SELECT howdah.cancel_operation(%(id)b::uuid, %(tenant)b::text) AS state
